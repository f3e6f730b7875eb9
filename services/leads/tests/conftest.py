"""The leads service on real servers: in this process (`replica`) or as processes of its own (`start_process`)."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg
import httpx2
import pytest
from starlette.types import Receive, Scope, Send

from chassis.worker import create_worker_app
from deploy.local.servers import free_ports
from leads.changes import created
from leads.main import create
from leads.models import EMPTY_FIELDS, Lead
from leads.settings import Settings
from leads.worker import build
from tests.support.fixtures import eventually
from tests.support.identity import TestIdentity
from tests.support.processes import ServiceProcess, environment_of

WORKSPACE = "ws_1"


@pytest.fixture
async def internal_url(identity: TestIdentity) -> AsyncIterator[str]:
    """Auth's two internal addresses, answered by the test's own signer."""
    [port] = free_ports(1)
    async with answering_as_auth(identity, port):
        yield f"http://127.0.0.1:{port}"


@asynccontextmanager
async def answering_as_auth(identity: TestIdentity, port: int) -> AsyncIterator[None]:
    """While the block runs, `identity` answers at `port`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            while line := await reader.readline():
                while (await reader.readline()).strip():
                    pass
                wants_keys = b"jwks" in line
                document = await identity.keys() if wants_keys else {"ended": list(await identity.ended_sessions())}
                body = json.dumps(document).encode()
                head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
                writer.write(head + body)
                await writer.drain()

    server = await asyncio.start_server(answer, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()


@pytest.fixture
async def settings(
    service_settings: Callable[..., Awaitable[Any]],
    emptied_database: Callable[[str], Awaitable[str]],
    internal_url: str,
) -> Settings:
    """Settings on the session's database, broker and cache, all of them emptied."""
    database_url = await emptied_database("leads")
    made: Settings = await service_settings(
        Settings, database_url=database_url, internal_url=internal_url, revocation_poll_seconds=0.2
    )
    return made


@dataclass
class Replica:
    """A running application and what it owns."""

    client: httpx2.AsyncClient
    state: dict[str, Any]


@asynccontextmanager
async def running(app: Any) -> AsyncIterator[Replica]:
    """Run an application's lifespan in this process."""
    async with app.router.lifespan_context(app) as state:

        async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
            scope["state"] = dict(state)
            await app(scope, receive, send)

        transport = httpx2.ASGITransport(app=with_state)
        async with httpx2.AsyncClient(transport=transport, base_url="http://leads") as client:
            yield Replica(client, state)


StartReplica = Callable[..., Awaitable[Replica]]


@pytest.fixture
async def start_replica(settings: Settings, identity: TestIdentity) -> AsyncIterator[StartReplica]:
    """`await start_replica(cache_url=…)`: one more application on the same servers; its client is an administrator of ws_1."""
    async with AsyncExitStack() as stack:

        async def start(**overrides: Any) -> Replica:
            own = Settings(**{**dict(settings), **overrides})
            replica = await stack.enter_async_context(running(create(own)))
            replica.client.headers.update(identity.headers())
            return replica

        yield start


@pytest.fixture
async def replica(start_replica: StartReplica) -> Replica:
    return await start_replica()


@pytest.fixture
async def api(replica: Replica) -> httpx2.AsyncClient:
    """A client of one replica, signed in as an administrator of ws_1."""
    return replica.client


StartWorker = Callable[[], Awaitable[Replica]]


@pytest.fixture
async def start_worker(settings: Settings) -> AsyncIterator[StartWorker]:
    """`await start_worker()`: one more leads-worker, connected to the broker."""
    async with AsyncExitStack() as stack:

        async def start() -> Replica:
            started = await stack.enter_async_context(running(create_worker_app(settings, build)))
            await asyncio.wait_for(started.state["resources"].bus.publishing.up.wait(), 20)
            return started

        yield start


@pytest.fixture
async def worker(start_worker: StartWorker) -> Replica:
    return await start_worker()


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the service's role, to look into its database."""
    connection = await asyncpg.connect(settings.database_url.get_secret_value())
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
async def add_user(database: asyncpg.Connection) -> Callable[..., Awaitable[str]]:
    """`await add_user("user_2", active=False)`: a row of the slim copy."""

    async def add(user_id: str = "user_1", *, workspace: str = WORKSPACE, active: bool = True) -> str:
        await database.execute(
            "INSERT INTO users (workspace_id, id, name, active, version) VALUES ($1, $2, 'Somebody', $3, 1)",
            workspace,
            user_id,
            active,
        )
        return user_id

    return add


@dataclass
class Process:
    """`python -m leads`, with a client of it."""

    process: ServiceProcess
    client: httpx2.AsyncClient

    async def exit_code(self) -> int:
        return await self.process.exit_code()


StartProcess = Callable[..., Awaitable[Process]]


@pytest.fixture
async def start_process(settings: Settings, identity: TestIdentity) -> AsyncIterator[StartProcess]:
    """`await start_process(failpoint="leads.after_commit")`: the service as a process, once it is ready."""
    started: list[Process] = []

    async def start(*, failpoint: str = "") -> Process:
        own = settings.model_copy(update={"port": free_ports(1)[0]})
        url = f"http://127.0.0.1:{own.port}"
        client = httpx2.AsyncClient(base_url=url, headers=identity.headers(), trust_env=False)
        one = Process(ServiceProcess("leads", environment_of(own, failpoint)), client)
        started.append(one)
        await eventually(lambda: is_ready(client), seconds=40)
        return one

    yield start
    for one in started:
        await one.client.aclose()
        one.process.kill()
        one.process.wait()


async def is_ready(client: httpx2.AsyncClient) -> bool:
    try:
        return (await client.get("/health/ready")).status_code == 200
    except httpx2.TransportError:
        return False


EventsOf = Callable[[str], Awaitable[list[dict[str, Any]]]]


@pytest.fixture
def events_of(database: asyncpg.Connection) -> EventsOf:
    """`await events_of(lead_id)`: what was announced about a lead, in order."""

    async def read(lead_id: str) -> list[dict[str, Any]]:
        records = await database.fetch("SELECT body FROM outbox WHERE subject = $1 ORDER BY seq", lead_id)
        return [json.loads(record["body"]) for record in records]

    return read


MakeLead = Callable[..., Lead]


@pytest.fixture(scope="session")
def make_lead() -> MakeLead:
    """`make_lead(score=5)`: a lead at version 1, without any server."""

    def make(*, unique: bool = True, **fields: Any) -> Lead:
        now = datetime(2026, 11, 25, 8, 30, tzinfo=UTC)
        given = {**EMPTY_FIELDS, "email": "ada@example.com", **fields}
        return created(WORKSPACE, "lead_1", given, now, unique=unique).lead

    return make
