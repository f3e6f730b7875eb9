"""crm-sync on real servers and against the HubSpot simulator: in this process, or as processes of its own."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aio_pika
import asyncpg
import httpx2
import pytest

from chassis.ids import new_id
from chassis.migrations import migrate
from crm_sync.consumer import QUEUE
from crm_sync.settings import CrmSyncSettings
from deploy.local.servers import free_ports
from simulators.testing import RunningSimulators
from tests.support.fixtures import eventually
from tests.support.identity import TestIdentity
from tests.support.processes import ServiceProcess, environment_of
from tests.support.servers import TestServers

from .crm import Crm
from .crm_neighbours import Neighbours, serving
from .crm_service import Running, Service, open_service, quick, running, worker_app

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


StartProcess = Callable[..., Awaitable[ServiceProcess]]


@pytest.fixture
async def start_process(settings: CrmSyncSettings) -> AsyncIterator[StartProcess]:
    """`await start_process(failpoint="sync.after_call")`: a worker process, once it is ready."""
    started: list[ServiceProcess] = []

    async def start(*, failpoint: str = "", **changed: Any) -> ServiceProcess:
        [port] = free_ports(1)
        own = settings.model_copy(update={**changed, "port": port})
        one = ServiceProcess("crm_sync.worker", environment_of(own, failpoint))
        started.append(one)
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:

            async def is_ready() -> bool:
                if one.poll() is not None:
                    return True
                try:
                    return (await client.get("/health/live")).status_code == 200
                except httpx2.TransportError:
                    return False

            await eventually(is_ready, seconds=40)
        return one

    yield start
    for one in started:
        one.kill()
        one.wait()
