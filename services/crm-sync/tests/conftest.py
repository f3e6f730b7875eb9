"""crm-sync on real servers and against the HubSpot simulator: in this process, or as processes of its own."""

import asyncio
import base64
import itertools
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from socket import AF_INET, SOCK_STREAM, socket
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aio_pika
import asyncpg
import httpx2
import pytest
from starlette.types import Receive, Scope, Send

from chassis.context import Context
from chassis.events import Event, encode, new_event
from chassis.ids import new_id
from chassis.migrations import migrate
from chassis.worker import create_worker_app
from contracts.validation import problems
from crm_sync.consumer import QUEUE
from crm_sync.main import create
from crm_sync.settings import CrmSyncSettings
from crm_sync.worker import build
from simulators.testing import RunningSimulators
from tests.support.fixtures import eventually
from tests.support.identity import TestIdentity
from tests.support.servers import TestServers

KEYS = f"k1:{base64.b64encode(b'1' * 32).decode()}"
# Wide enough that only the tests about limits meet one; the first call of a connection still waits for its bucket to fill.
ROOMY = {"requests_per_10_seconds": 10_000, "requests_per_day": 100_000_000}

_portals = itertools.count(1000)


@pytest.fixture(scope="session")
def simulators(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSimulators]:
    """The simulators' own process; each test uses a portal and receivers of its own."""
    with RunningSimulators(tmp_path_factory.mktemp("simulators")) as running:
        yield running


@pytest.fixture
def portal_of_others() -> int:
    """A second account, which no connection has been to."""
    return next(_portals)


@pytest.fixture
def portal(simulators: RunningSimulators) -> Iterator[int]:
    """A HubSpot account nobody else uses, without limits."""
    number = next(_portals)
    simulators.control("PUT", f"hubspot/accounts/{number}", {"burst": 100_000, "oauth_burst": 100_000})
    yield number
    simulators.control("DELETE", "hubspot/faults")


@dataclass
class Neighbours:
    """Auth's and leads' addresses, answered by the test. `leads` are those that leads would know, by workspace and id."""

    identity: TestIdentity
    leads: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            while line := await reader.readline():
                length, token = 0, ""
                while header := (await reader.readline()).decode().strip():
                    name, _, value = header.partition(": ")
                    length = int(value) if name.lower() == "content-length" else length
                    token = value if name.lower() == "authorization" else token
                body = await reader.readexactly(length)
                status, document = await self._answer(line.decode().split(" ")[1], body.decode(), token)
                text = json.dumps(document).encode()
                head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n"
                writer.write(head.encode() + text)
                await writer.drain()

    async def _answer(self, path: str, body: str, token: str) -> tuple[int, Any]:
        if path.endswith("jwks.json"):
            return 200, await self.identity.keys()
        if path.endswith("/ended"):
            return 200, {"ended": list(await self.identity.ended_sessions())}
        if path == "/api/auth/token":
            workspace = dict(part.split("=") for part in body.split("&"))["workspace_id"]
            return 200, {"access_token": f"for:{workspace}", "token_type": "bearer", "expires_in": 900}
        lead = self.leads.get((token.partition(":")[2], path.rpartition("/")[2]))
        return (200, lead) if lead else (404, {"title": "Not found"})


@asynccontextmanager
async def serving(neighbours: Neighbours) -> AsyncIterator[Neighbours]:
    server = await asyncio.start_server(neighbours.serve, "127.0.0.1", 0)
    neighbours.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield neighbours
    finally:
        server.close()


def quick(simulators: RunningSimulators, neighbours: Neighbours) -> dict[str, Any]:
    """Settings with times that let a test wait for them."""
    return {
        "internal_url": neighbours.url,
        "outbound_allowed_hosts": f"127.0.0.1:{simulators.port}",
        "credential_keys": KEYS,
        "hubspot_base_url": simulators.url,
        "call_timeout_seconds": 1.0,
        "vendor_timeout_seconds": 1.2,
        "lease_seconds": 3.0,
        "poll_seconds": 0.05,
        "pause_base_seconds": 0.2,
        "pause_cap_seconds": 1.0,
    }


@dataclass
class Running:
    """A running application and what it owns."""

    app: Any
    state: dict[str, Any]

    def client(self, headers: dict[str, str]) -> httpx2.AsyncClient:
        async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
            scope["state"] = dict(self.state)
            await self.app(scope, receive, send)

        transport = httpx2.ASGITransport(app=with_state)
        return httpx2.AsyncClient(transport=transport, base_url="http://crm-sync", headers=headers)


@asynccontextmanager
async def running(app: Any) -> AsyncIterator[Running]:
    """Run an application's lifespan in this process."""
    async with app.router.lifespan_context(app) as state:
        assert await state["resources"].tokens.wait_ready(10)
        yield Running(app, state)


def worker_app(settings: CrmSyncSettings) -> Any:
    return create_worker_app(settings, lambda found: build(settings, found))


@dataclass
class Service:
    """The HTTP process and what it runs on."""

    settings: CrmSyncSettings
    http: Running
    neighbours: Neighbours
    database: asyncpg.Connection


@asynccontextmanager
async def open_service(settings: CrmSyncSettings, neighbours: Neighbours) -> AsyncIterator[Service]:
    database = await asyncpg.connect(settings.database_url.get_secret_value())
    try:
        async with running(create(settings)) as http:
            yield Service(settings, http, neighbours, database)
    finally:
        await database.close()


@asynccontextmanager
async def common_service(
    servers: TestServers, virtual_host: str, simulators: RunningSimulators
) -> AsyncIterator[Service]:
    """A service for all tests of a module; each test has a workspace and a portal of its own."""
    database_url = await make_database(servers)
    async with AsyncExitStack() as stack:
        neighbours = await stack.enter_async_context(serving(Neighbours(TestIdentity())))
        settings = CrmSyncSettings(
            host="127.0.0.1",
            port=1,
            database_url=database_url,
            broker_url=virtual_host,
            cache_url=servers.redis_url.rpartition("/")[0] + "/15",
            service_client_secret="for-tests-only",
            **quick(simulators, neighbours),
        )
        service = await stack.enter_async_context(open_service(settings, neighbours))
        await asyncio.wait_for(service.http.state["resources"].bus.publishing.up.wait(), 10)
        yield service
    await drop_database(servers, database_url)


@pytest.fixture(scope="module")
async def shared(servers: TestServers, virtual_host: str, simulators: RunningSimulators) -> AsyncIterator[Service]:
    """A module's service with its worker running."""
    async with common_service(servers, virtual_host, simulators) as service:
        await purge(virtual_host)
        async with running(worker_app(service.settings)):
            yield service


@pytest.fixture(scope="module")
async def workerless(servers: TestServers, virtual_host: str, simulators: RunningSimulators) -> AsyncIterator[Service]:
    """A module's service without any worker: what is due stays due until the test has done something about it."""
    async with common_service(servers, virtual_host, simulators) as service:
        yield service


async def drop_database(servers: TestServers, database_url: str) -> None:
    owner = await asyncpg.connect(servers.postgres_dsn)
    try:
        await owner.execute(f'DROP DATABASE "{urlsplit(database_url).path[1:]}" WITH (FORCE)')
    finally:
        await owner.close()


async def make_database(servers: TestServers) -> str:
    """A migrated database."""
    name = new_id("crm_sync_shared")
    owner = await asyncpg.connect(servers.postgres_dsn)
    try:
        await owner.execute(
            """DO $$ BEGIN CREATE ROLE crm_sync LOGIN PASSWORD 'for-tests-only';
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                ALTER ROLE crm_sync PASSWORD 'for-tests-only'; END $$"""
        )
        await owner.execute(f'CREATE DATABASE "{name}"')
    finally:
        await owner.close()
    parts = urlsplit(servers.postgres_dsn)
    await migrate(urlunsplit(parts._replace(path=f"/{name}")), "crm_sync", role="crm_sync")
    netloc = f"crm_sync:for-tests-only@{parts.hostname}:{parts.port}"
    return urlunsplit(parts._replace(netloc=netloc, path=f"/{name}"))


async def purge(broker_url: str) -> None:
    connection = await aio_pika.connect(broker_url)
    async with connection:
        channel = await connection.channel()
        await (await channel.get_queue(QUEUE, ensure=False)).purge()


@pytest.fixture
async def neighbours(identity: TestIdentity) -> AsyncIterator[Neighbours]:
    async with serving(Neighbours(identity)) as made:
        yield made


@pytest.fixture
async def settings(
    service_settings: Callable[..., Awaitable[Any]], neighbours: Neighbours, simulators: RunningSimulators
) -> CrmSyncSettings:
    """Settings on a fresh database, for a test that has processes of its own."""
    made: CrmSyncSettings = await service_settings(CrmSyncSettings, **quick(simulators, neighbours))
    return made


@pytest.fixture
async def own(settings: CrmSyncSettings, neighbours: Neighbours) -> AsyncIterator[Service]:
    """A service of the test's own, without any worker."""
    async with open_service(settings, neighbours) as service:
        yield service


StartWorker = Callable[..., Awaitable[Running]]


@pytest.fixture
async def start_worker(settings: CrmSyncSettings) -> AsyncIterator[StartWorker]:
    """`await start_worker(poll_seconds=60)`: a worker of the test's own, in this process."""
    async with AsyncExitStack() as stack:

        async def start(**changed: Any) -> Running:
            return await stack.enter_async_context(running(worker_app(settings.model_copy(update=changed))))

        yield start


LEAD = {
    "phone": None,
    "first_name": "Ada",
    "last_name": "Lovelace",
    "company": "Analytical Engines",
    "title": "Countess",
    "source": "web",
    "stage": "new",
    "score": 70,
    "owner_id": None,
    "tags": [],
    "custom": {},
    "consent": {},
    "external_ids": {},
    "created_at": "2026-11-25T08:30:00.000Z",
    "updated_at": "2026-11-25T08:30:00.000Z",
}


def lead_event(lead_id: str, version: int, *, kind: str = "", chain: tuple[str, ...] = (), **fields: Any) -> Event:
    """An event of leads: created at version 1, updated after that, unless `kind` says otherwise."""
    workspace = fields.pop("workspace", "ws_1")
    lead = {"id": lead_id, "email": f"{lead_id}@example.com", **LEAD, **fields, "version": version}
    event_type = f"lead.{kind or ('created' if version == 1 else 'updated')}"
    return new_event(
        event_type,
        source="/services/leads",
        workspace_id=workspace,
        subject=lead_id,
        subject_version=version,
        data={"lead": lead, "changed": [], "previous": {}, "actor": "user:user_1"},
        context=Context("req_of_lead", "user:user_1", chain),
    )


@dataclass
class Crm:
    """What tests do with the service: connect, announce leads, and look at what became of them."""

    service: Service
    client: httpx2.AsyncClient
    workspace: str
    simulators: RunningSimulators
    portal: int

    @property
    def database(self) -> asyncpg.Connection:
        return self.service.database

    def other(self, workspace: str, role: str = "admin") -> httpx2.AsyncClient:
        """A client of another workspace, or of another role in this one."""
        headers = self.service.neighbours.identity.headers(workspace=workspace, role=role)
        return self.service.http.client(headers)

    def as_service(self, name: str = "workflows") -> httpx2.AsyncClient:
        headers = self.service.neighbours.identity.service_headers(name, workspace=self.workspace)
        return self.service.http.client(headers)

    async def pause(self, connection: dict[str, Any]) -> None:
        assert (await self.client.post(f"/api/crm/connections/{connection['id']}/pause")).status_code == 200

    async def resume(self, connection: dict[str, Any]) -> None:
        assert (await self.client.post(f"/api/crm/connections/{connection['id']}/resume")).status_code == 200

    async def connect(self, **given: Any) -> dict[str, Any]:
        """A HubSpot connection to the test's portal; `paused=True` lets leads gather before the first call."""
        paused = given.pop("paused", False)
        body = {
            "name": "HubSpot",
            "vendor": "hubspot",
            "credentials": {"access_token": f"pat-sim-{self.portal}"},
            "settings": ROOMY,
            **given,
        }
        answer = await self.client.post("/api/crm/connections", json=body)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        if paused:
            await self.pause(made)
        return made

    async def connect_webhook(self, name: str, secret: str, **given: Any) -> dict[str, Any]:
        """A webhook connection to the simulated receiver of that name."""
        body = {
            "name": name,
            "vendor": "webhook",
            "credentials": {"secret": secret},
            "settings": {"url": f"{self.simulators.url}/webhooks/{name}", "requests_per_second": 1000},
            **given,
        }
        answer = await self.client.post("/api/crm/connections", json=body)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def announce(self, *events: Event) -> None:
        """Publish events as leads would."""
        bus = self.service.http.state["resources"].bus
        await asyncio.wait_for(bus.publishing.up.wait(), 10)
        for event in events:
            assert problems(json.loads(encode(event))) == []
            await bus.publish_event(encode(event), event_id=event.id, event_type=event.type, published_ms=0)

    def event(self, lead_id: str, version: int = 1, **fields: Any) -> Event:
        """An event about a lead of this workspace."""
        return lead_event(lead_id, version, workspace=self.workspace, **fields)

    async def lead(self, lead_id: str, version: int = 1, **fields: Any) -> None:
        """Publish an event about a lead."""
        await self.announce(self.event(lead_id, version, **fields))

    async def taken_in(self, lead_id: str, version: int = 1) -> None:
        """Wait until the worker's consumer has this version of the lead."""

        async def is_there() -> bool:
            held = await self.database.fetchval(
                "SELECT version FROM lead_copies WHERE workspace_id = $1 AND lead_id = $2", self.workspace, lead_id
            )
            return held is not None and held >= version

        await eventually(is_there)

    async def standing(self, lead_id: str, connection: dict[str, Any]) -> dict[str, Any] | None:
        answer = await self.client.get(f"/api/crm/leads/{lead_id}")
        items = answer.json()["items"] if answer.status_code == 200 else []
        found = [each for each in items if each["connection_id"] == connection["id"]]
        return found[0] if found else None

    async def until(
        self, lead_id: str, connection: dict[str, Any], *, seconds: float = 10.0, **wanted: Any
    ) -> dict[str, Any]:
        """Wait until the lead's standing has these values, and return it."""

        async def check() -> dict[str, Any] | None:
            nonlocal last
            last = await self.standing(lead_id, connection)
            return last if last and all(last[name] == value for name, value in wanted.items()) else None

        last: dict[str, Any] | None = None
        try:
            return await eventually(check, seconds=seconds)  # type: ignore[no-any-return]
        except AssertionError as error:
            raise AssertionError(f"{lead_id} is {last}, not {wanted}") from error

    async def in_step(self, lead_id: str, connection: dict[str, Any], version: int = 1, **more: Any) -> dict[str, Any]:
        return await self.until(lead_id, connection, synced_version=version, state="in_step", **more)

    async def shown(self, connection: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = (await self.client.get(f"/api/crm/connections/{connection['id']}")).json()
        return found

    async def resting(self, connection: dict[str, Any], least: int = 1) -> dict[str, Any]:
        """Wait until the connection has met trouble that often in a row, and return it."""

        async def check() -> dict[str, Any] | None:
            shown = await self.shown(connection)
            return shown if shown["trouble"] is not None and shown["trouble"]["count"] >= least else None

        return await eventually(check)  # type: ignore[no-any-return]

    async def dead_letters(self, **filters: str) -> list[dict[str, Any]]:
        answer = await self.client.get("/api/crm/dead-letters", params=filters)
        assert answer.status_code == 200, answer.text
        items: list[dict[str, Any]] = answer.json()["items"]
        return items

    async def count(self, state: str) -> int:
        """How many leads are in that state, all connections together."""
        return int(
            await self.database.fetchval(
                "SELECT count(*) FROM sync_states WHERE workspace_id = $1 AND state = $2", self.workspace, state
            )
        )

    async def events(self, lead_id: str, connection: dict[str, Any]) -> list[dict[str, Any]]:
        """What was announced about a lead at a connection, in order, each kept to its contract."""
        rows = await self.database.fetch(
            "SELECT body FROM outbox WHERE workspace_id = $1 AND subject = $2 ORDER BY subject_version",
            self.workspace,
            f"{connection['id']}/{lead_id}",
        )
        found = [json.loads(row["body"]) for row in rows]
        for event in found:
            assert problems(event) == []
        return found

    async def row(self, lead_id: str) -> asyncpg.Record:
        found = await self.database.fetchrow(
            "SELECT * FROM sync_states WHERE workspace_id = $1 AND lead_id = $2", self.workspace, lead_id
        )
        assert found is not None
        return found

    def contacts(self) -> list[dict[str, Any]]:
        return self.simulators.contacts(self.portal)

    def calls(self, operation: str = "contacts.batch_upsert") -> list[dict[str, Any]]:
        return self.simulators.requests(self.portal, operation)

    def fault(self, operation: str, effect: dict[str, Any], **rule: Any) -> int:
        return self.simulators.add_fault(operation, effect, portal_id=self.portal, **rule)


_workspaces = itertools.count(1)


@asynccontextmanager
async def open_crm(service: Service, simulators: RunningSimulators, portal: int) -> AsyncIterator[Crm]:
    workspace = f"ws_{next(_workspaces)}"
    async with service.http.client(service.neighbours.identity.headers(workspace=workspace)) as client:
        yield Crm(service, client, workspace, simulators, portal)


@pytest.fixture
async def crm(shared: Service, simulators: RunningSimulators, portal: int) -> AsyncIterator[Crm]:
    """A workspace of the module's service, with its worker running."""
    async with open_crm(shared, simulators, portal) as made:
        yield made


@pytest.fixture
async def still_crm(workerless: Service, simulators: RunningSimulators, portal: int) -> AsyncIterator[Crm]:
    """A workspace of the module's service without a worker."""
    async with open_crm(workerless, simulators, portal) as made:
        yield made


@pytest.fixture
async def own_crm(own: Service, simulators: RunningSimulators, portal: int) -> AsyncIterator[Crm]:
    """The same on a service of the test's own; workers are the test's to start."""
    async with open_crm(own, simulators, portal) as made:
        yield made


@dataclass
class Process:
    """`python -m crm_sync.worker` as a process of its own."""

    process: asyncio.subprocess.Process
    port: int

    async def exit_code(self) -> int:
        return await asyncio.wait_for(self.process.wait(), 30)


StartProcess = Callable[..., Awaitable[Process]]


@pytest.fixture
async def start_process(settings: CrmSyncSettings, tmp_path: Path) -> AsyncIterator[StartProcess]:
    """`await start_process(failpoint="sync.after_call")`: a worker process, once it is ready."""
    started: list[Process] = []

    async def start(*, failpoint: str | None = None, **changed: Any) -> Process:
        port = _free_port()
        own = settings.model_copy(update={**changed, "port": port})
        environment = {**os.environ, **as_environment(own)}
        if failpoint:
            environment["FAILPOINT"] = failpoint
        log = (tmp_path / f"worker-{port}.log").open("wb")
        with log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "crm_sync.worker", env=environment, stdout=log, stderr=log
            )
        one = Process(process, port)
        started.append(one)
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:

            async def is_ready() -> bool:
                if process.returncode is not None:
                    return True
                try:
                    return (await client.get("/health/live")).status_code == 200
                except httpx2.TransportError:
                    return False

            await eventually(is_ready, seconds=40)
        return one

    yield start
    for one in started:
        if one.process.returncode is None:
            one.process.kill()
            await one.process.wait()


def as_environment(settings: CrmSyncSettings) -> dict[str, str]:
    """The settings as a process reads them."""
    values = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        text = value.get_secret_value() if hasattr(value, "get_secret_value") else value
        values[f"CRM_SYNC_{name.upper()}"] = str(text)
    return values


def _free_port() -> int:
    with socket(AF_INET, SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
