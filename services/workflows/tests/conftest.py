"""The workflows service on real servers, in this process or as processes of its own, among neighbours made of HTTP."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import aio_pika
import asyncpg
import httpx2
import orjson
import pytest
from pydantic import SecretStr
from starlette.types import Receive, Scope, Send

from chassis.bus import declare_topology
from chassis.events import Event, encode
from chassis.ids import new_id
from chassis.worker import create_worker_app
from contracts import topology
from deploy.local.servers import free_ports
from services.workflows.tests.neighbours import Neighbours, lead_event, make_lead
from tests.support.fixtures import eventually
from tests.support.identity import TestIdentity
from tests.support.processes import ServiceProcess, environment_of
from workflows.main import create
from workflows.settings import WorkflowsSettings
from workflows.worker import build_loops

WORKSPACE = "ws_1"
SECRET_KEYS = f"k1:{b64encode(bytes(32)).decode()}"


@pytest.fixture(scope="session")
def identity() -> TestIdentity:
    """A signer of access tokens that stands in for auth."""
    return TestIdentity()


@pytest.fixture(scope="session")
def running_neighbours(identity: TestIdentity) -> Iterator[Neighbours]:
    running = Neighbours(identity)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def neighbours(running_neighbours: Neighbours) -> Neighbours:
    """auth, leads, crm-sync and webhook receivers, with nothing left of earlier tests."""
    running_neighbours.forget()
    return running_neighbours


@pytest.fixture(scope="session")
async def session_settings(
    virtual_host: str,
    redis_database: str,
    running_neighbours: Neighbours,
    shared_database: Callable[[str], Awaitable[str]],
) -> WorkflowsSettings:
    """Settings on one database for the whole session: tests empty its tables, which costs less than a database each."""
    return WorkflowsSettings(
        host="127.0.0.1",
        port=1,
        internal_url=running_neighbours.url,
        database_url=SecretStr(await shared_database("workflows")),
        broker_url=SecretStr(virtual_host),
        cache_url=SecretStr(redis_database),
        service_client_secret=SecretStr("for-tests-only"),
        secret_keys=SecretStr(SECRET_KEYS),
        outbound_allowed_hosts=f"127.0.0.1:{running_neighbours.port}",
        poll_seconds=0.1,
        timer_sweep_seconds=0.1,
        revocation_poll_seconds=0.2,
    )


@pytest.fixture(scope="session")
async def session_application(session_settings: WorkflowsSettings) -> AsyncIterator["Application"]:
    async with running(create(session_settings)) as started:
        yield started


@pytest.fixture(scope="session")
async def session_database(session_settings: WorkflowsSettings) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(session_settings.database_url.get_secret_value())
    yield connection
    await connection.close()


TABLES = (
    "step_attempts", "run_steps", "runs", "rotations", "secrets", "workflow_versions", "workflows", "users", "lead_view", "crm_view",
    "outbox", "inbox", "inbox_suspects", "idempotency_keys",
)  # fmt: skip
"""Where the service keeps anything; what names another comes before it."""


@pytest.fixture
async def database(
    session_database: asyncpg.Connection, emptied_database: Callable[[str], Awaitable[str]]
) -> asyncpg.Connection:
    """A connection of the service's role to its database, emptied."""
    await emptied_database("workflows")
    return session_database


@pytest.fixture
async def settings(
    session_settings: WorkflowsSettings, neighbours: Neighbours, database: asyncpg.Connection
) -> WorkflowsSettings:
    """Settings on an emptied database, with queues that hold nothing of earlier tests."""
    del neighbours, database
    connection = await aio_pika.connect(session_settings.broker_url.get_secret_value())
    async with connection:
        channel = await connection.channel()
        await declare_topology(channel, topology())
        for contract in topology().queues:
            if contract.service == "workflows":
                for name in (contract.name, contract.dead):
                    await (await channel.get_queue(name, ensure=False)).purge()
    return session_settings


@dataclass
class Application:
    """A running application and what it owns."""

    client: httpx2.AsyncClient
    state: dict[str, Any]


@asynccontextmanager
async def running(app: Any) -> AsyncIterator[Application]:
    """Run an application's lifespan in this process."""
    async with app.router.lifespan_context(app) as state:

        async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
            scope["state"] = dict(state)
            await app(scope, receive, send)

        transport = httpx2.ASGITransport(app=with_state)
        async with httpx2.AsyncClient(transport=transport, base_url="http://workflows") as client:
            yield Application(client, state)


@pytest.fixture
async def api(
    session_application: Application, identity: TestIdentity, database: asyncpg.Connection
) -> httpx2.AsyncClient:
    """A client of the HTTP process, signed in as an administrator of ws_1."""
    del database
    session_application.client.headers.update(identity.headers())
    return session_application.client


StartWorker = Callable[..., Awaitable[Application]]


@pytest.fixture
async def start_worker(settings: WorkflowsSettings) -> AsyncIterator[StartWorker]:
    """`await start_worker(lease_seconds=1)`: one more worker in this process."""
    async with AsyncExitStack() as stack:

        async def start(**changes: Any) -> Application:
            own = settings.model_copy(update=changes)
            app = create_worker_app(own, lambda resources: build_loops(own, resources))
            return await stack.enter_async_context(running(app))

        yield start


@pytest.fixture
async def worker(start_worker: StartWorker) -> Application:
    """A running workflows-worker."""
    return await start_worker()


Publish = Callable[..., Awaitable[None]]


@pytest.fixture
async def publish(settings: WorkflowsSettings) -> AsyncIterator[Publish]:
    """`await publish(event, …)`: put events on the exchange, confirmed, in this order."""
    connection = await aio_pika.connect(settings.broker_url.get_secret_value())
    async with connection:
        channel = await connection.channel(publisher_confirms=True)
        exchange = await channel.get_exchange("events", ensure=False)

        async def put(*events: Event) -> None:
            for event in events:
                message = aio_pika.Message(encode(event), message_id=event.id, type=event.type, delivery_mode=2)
                await exchange.publish(message, event.type)

        yield put


@pytest.fixture
async def leads_announce(neighbours: Neighbours, publish: Publish) -> AsyncIterator[None]:
    """What the neighbours' leads service writes is announced, as the real one does it."""

    async def relay() -> None:
        while True:
            await publish(*neighbours.take_events())
            await asyncio.sleep(0.005)

    task = asyncio.create_task(relay())
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.fixture
async def heard(settings: WorkflowsSettings) -> AsyncIterator[list[dict[str, Any]]]:
    """Every workflow.run.* event published while the test runs."""
    connection = await aio_pika.connect(settings.broker_url.get_secret_value())
    async with connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(new_id("ears"), auto_delete=True, exclusive=True)
        await queue.bind("events", "workflow.run.*")
        found: list[dict[str, Any]] = []

        async def hear(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            found.append(orjson.loads(message.body))
            await message.ack()

        await queue.consume(hear)
        yield found


@dataclass
class Desk:
    """What most tests do: define, start, look."""

    api: httpx2.AsyncClient
    database: asyncpg.Connection
    neighbours: Neighbours
    publish: Publish
    dsn: str
    names: Iterator[int] = field(default_factory=lambda: iter(range(1000)))

    def url(self, path: str = "") -> str:
        """A webhook receiver's address."""
        return f"{self.neighbours.url}/hooks/{path}"

    async def define(self, *steps: dict[str, Any], trigger: dict[str, Any] | None = None, **fields: Any) -> str:
        """Create a workflow; its id."""
        body = {
            "name": f"workflow {next(self.names)}",
            "trigger": trigger or {"type": "manual"},
            "steps": list(steps),
            **fields,
        }
        answer = await self.api.post("/api/workflows", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def know_lead(self, **fields: Any) -> dict[str, Any]:
        """A lead that the leads service has, and that workflows has heard of."""
        lead = self.neighbours.put_lead(make_lead(**fields))
        await self.database.execute(
            "INSERT INTO lead_view (workspace_id, lead_id, version, deleted, lead) VALUES ($1, $2, $3, false, $4)",
            WORKSPACE,
            lead["id"],
            lead["version"],
            orjson.dumps(lead).decode(),
        )
        return lead

    async def know_users(self, *user_ids: str, active: bool = True) -> None:
        await self.database.executemany(
            "INSERT INTO users (workspace_id, id, name, active, version) VALUES ($1, $2, $2, $3, 1)",
            [(WORKSPACE, user_id, active) for user_id in user_ids],
        )

    async def start(self, workflow_id: str, lead_id: str = "lead_1") -> str:
        """Start a run by hand; its id."""
        answer = await self.api.post(f"/api/workflows/{workflow_id}/runs", json={"lead_id": lead_id})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def start_while_locked(self, workflow_id: str, lead_id: str = "lead_1") -> str:
        """Insert a queued run as `start` does, without the lock on the lead that a person's start takes."""
        run_id = new_id("run")
        trigger = {"type": "manual", "lead": {}, "changed": [], "previous": {}}
        await self.database.execute(
            """INSERT INTO runs (workspace_id, id, workflow_id, version, lead_id, state, step_id, trigger, origin, chain, due_at)
               SELECT workspace_id, $2, workflow_id, version, $3, 'queued', definition #>> '{steps,0,id}', $4, 'system', '{}', now()
               FROM workflow_versions WHERE workflow_id = $1""",
            workflow_id,
            run_id,
            lead_id,
            orjson.dumps(trigger).decode(),
        )
        return run_id

    @asynccontextmanager
    async def pool(self) -> AsyncIterator[Any]:
        """A connection of the kind services take from their pool."""
        async with asyncpg.create_pool(self.dsn, min_size=1, max_size=1) as pool, pool.acquire() as connection:
            yield connection

    async def run(self, run_id: str) -> dict[str, Any]:
        answer = await self.api.get(f"/api/runs/{run_id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def runs(self, workflow_id: str, **query: Any) -> list[dict[str, Any]]:
        answer = await self.api.get(f"/api/workflows/{workflow_id}/runs", params={"limit": 200, **query})
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["items"]
        return found

    async def until(
        self, run_id: str, *states: str, seconds: float = 10, without_pauses: bool = False
    ) -> dict[str, Any]:
        """The run, once it is in one of these states. `without_pauses`, those before repetitions are over at once."""

        async def reached() -> dict[str, Any] | None:
            if without_pauses:
                await self.database.execute("UPDATE runs SET due_at = now() WHERE state = 'retrying'")
            run = await self.run(run_id)
            return run if run["state"] in states else None

        try:
            found: dict[str, Any] = await eventually(reached, seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; the run: {await self.run(run_id)}") from error
        return found

    async def outlive_leases(self) -> None:
        """As if the time were over for which a dead worker's claims are kept for it."""
        await self.database.execute("UPDATE runs SET due_at = now() WHERE state = 'running'")

    async def steer(self, run_id: str, verb: str, **body: Any) -> dict[str, Any]:
        answer = await self.api.post(f"/api/runs/{run_id}/{verb}", json=body)
        assert answer.status_code == 202, answer.text
        found: dict[str, Any] = answer.json()
        return found


@pytest.fixture
def desk(
    api: httpx2.AsyncClient,
    database: asyncpg.Connection,
    neighbours: Neighbours,
    publish: Publish,
    settings: WorkflowsSettings,
) -> Desk:
    return Desk(api, database, neighbours, publish, settings.database_url.get_secret_value())


StartProcess = Callable[..., Awaitable[ServiceProcess]]


@pytest.fixture
async def start_process(settings: WorkflowsSettings, servers: Any) -> AsyncIterator[StartProcess]:
    """`await start_process(failpoint="step.after_call:1", lease_seconds=2)`: `python -m workflows.worker`."""
    started: list[ServiceProcess] = []

    async def start(*, failpoint: str = "", **changes: Any) -> ServiceProcess:
        own = settings.model_copy(update={"port": free_ports(1)[0], **changes})
        started.append(ServiceProcess("workflows.worker", environment_of(own, failpoint)))
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.wait()


def created(lead: dict[str, Any], **context: Any) -> Event:
    """lead.created of this lead."""
    return lead_event("lead.created", lead, **context)


__all__: Sequence[str] = ("Application", "Desk", "Publish", "StartProcess", "StartWorker", "created")
