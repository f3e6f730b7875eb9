"""auth in this process on real servers: one replica and one database for all tests, a workspace and a client address for each.

Tests of what all workspaces share (signing keys, the seed) take `own_settings`: a database of their own.
"""

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx2
import orjson
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from auth import repository
from auth.main import create
from auth.passwords import Passwords
from auth.settings import Settings
from chassis.ids import new_id
from chassis.migrations import migrate
from contracts.validation import problems
from tests.support.processes import variables_of
from tests.support.servers import TestServers

PASSWORD = "an honest password"
SERVICE_SECRET = "for-tests-only-and-long-enough-for-it"
REQUIRED: dict[str, Any] = {
    "host": "127.0.0.1",
    "port": 1,
    "internal_url": "http://127.0.0.1:9",
    "service_client_secret": SERVICE_SECRET,
    "key_encryption_keys": "k1:" + "A" * 43 + "=",
    "client_secrets": f"leads:{SERVICE_SECRET},crm-sync:{SERVICE_SECRET}-too",
}


@dataclass
class Replica:
    """One process's worth of auth."""

    app: ASGIApp
    settings: Settings
    state: dict[str, Any]

    def client(self, address: str = "203.0.113.1") -> httpx2.AsyncClient:
        """A client whose requests seem to come from `address`."""

        async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
            await self.app({**scope, "state": dict(self.state)}, receive, send)

        return httpx2.AsyncClient(
            transport=httpx2.ASGITransport(with_state, raise_app_exceptions=False, client=(address, 40_000)),
            base_url="http://auth",
        )


@dataclass
class Person:
    """Somebody signed in."""

    workspace_id: str
    id: str
    email: str
    session_id: str
    access_token: str
    refresh_token: str
    password: str = PASSWORD

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.access_token}"}


Rows = asyncpg.Connection
Start = Callable[..., Awaitable[Replica]]
SignIn = Callable[..., Awaitable[Person]]
AddUser = Callable[[Person, str], Awaitable[Person]]
Announced = Callable[[], Awaitable[list[dict[str, Any]]]]


@pytest.fixture(scope="session", autouse=True)
def cheap_hashes() -> Iterator[None]:
    """Passwords cost next to nothing here; test_passwords.py puts the real parameters back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("auth.passwords.MEMORY_KIB", 64)
        patch.setattr("auth.passwords.PASSES", 1)
        yield


@pytest.fixture(scope="session")
async def settings(servers: TestServers, virtual_host: str) -> AsyncIterator[Settings]:
    """auth's settings on a database that the session's tests share."""
    name = new_id("auth_shared")
    parts = urlsplit(servers.postgres_dsn)
    owner = await asyncpg.connect(servers.postgres_dsn)
    try:
        await owner.execute(f"CREATE ROLE \"{name}\" LOGIN PASSWORD '{SERVICE_SECRET}'")
        await owner.execute(f'CREATE DATABASE "{name}"')
        await migrate(parts._replace(path=f"/{name}").geturl(), "auth", role=name)
        as_role = parts._replace(path=f"/{name}", netloc=f"{name}:{SERVICE_SECRET}@{parts.hostname}:{parts.port}")
        yield Settings(**REQUIRED, database_url=as_role.geturl(), broker_url=virtual_host, cache_url=servers.redis_url)
    finally:
        await owner.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        await owner.execute(f'DROP ROLE IF EXISTS "{name}"')
        await owner.close()


@pytest.fixture
async def own_settings(service_settings: Callable[..., Awaitable[Settings]]) -> Settings:
    """auth's settings on a database of the test's own."""
    return await service_settings(Settings, **REQUIRED)


@pytest.fixture
def as_environment(monkeypatch: pytest.MonkeyPatch) -> Callable[[Settings], None]:
    """`as_environment(settings)`: this process's environment says what `settings` say."""

    def do(settings: Settings) -> None:
        for name, value in variables_of(settings).items():
            monkeypatch.setenv(name, value)

    return do


@pytest.fixture(scope="session")
async def auth(settings: Settings) -> AsyncIterator[Replica]:
    """The replica that most tests talk to."""
    async with AsyncExitStack() as stack:
        yield await start_replica(stack, settings)


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """`await start(settings, name=value, …)`: one more replica, for this test."""
    async with AsyncExitStack() as stack:

        async def one_more(settings: Settings, **overrides: Any) -> Replica:
            return await start_replica(stack, Settings(**{**settings.model_dump(), **overrides}))

        yield one_more


async def start_replica(stack: AsyncExitStack, settings: Settings) -> Replica:
    app = create(settings)
    state = await stack.enter_async_context(app.router.lifespan_context(app))
    assert state is not None
    return Replica(app, settings, dict(state))


@pytest.fixture
async def rows(settings: Settings) -> AsyncIterator[Rows]:
    """The shared database, as the service's own role."""
    connection = await asyncpg.connect(settings.database_url.get_secret_value())
    yield connection
    await connection.close()


@pytest.fixture
async def own_rows(own_settings: Settings) -> AsyncIterator[Rows]:
    """The test's own database, as the service's own role."""
    connection = await asyncpg.connect(own_settings.database_url.get_secret_value())
    yield connection
    await connection.close()


@pytest.fixture
async def api(auth: Replica) -> AsyncIterator[httpx2.AsyncClient]:
    """A client at an address that no other test uses."""
    address = ".".join(str(random.randrange(1, 255)) for _ in range(4))
    async with auth.client(address) as client:
        yield client


@pytest.fixture(scope="session")
async def password_hash() -> str:
    with Passwords(threads=1, waiting_limit=1) as passwords:
        return await passwords.hash(PASSWORD)


@pytest.fixture
async def make_workspace(rows: Rows, password_hash: str) -> Callable[[], Awaitable[tuple[str, str]]]:
    """`await make_workspace()`: id of a new workspace and address of its administrator, whose password is PASSWORD."""

    async def make() -> tuple[str, str]:
        workspace_id, user_id = new_id("ws"), new_id("user")
        email = f"{user_id}@example.com"
        await repository.insert_workspace(rows, workspace_id, "Workspace of one test")
        await repository.insert_user(
            rows,
            workspace_id=workspace_id,
            user_id=user_id,
            email=email,
            name="Administrator",
            role="admin",
            password_hash=password_hash,
        )
        return workspace_id, email

    return make


@pytest.fixture
async def admin(make_workspace: Callable[[], Awaitable[tuple[str, str]]], sign_in: SignIn) -> Person:
    """The administrator of this test's workspace."""
    _, email = await make_workspace()
    return await sign_in(email)


@pytest.fixture
async def stranger(make_workspace: Callable[[], Awaitable[tuple[str, str]]], sign_in: SignIn) -> Person:
    """The administrator of another workspace."""
    _, email = await make_workspace()
    return await sign_in(email)


@pytest.fixture
async def agent(admin: Person, add_user: AddUser) -> Person:
    """An agent of the administrator's workspace."""
    return await add_user(admin, "agent")


def _person(document: dict[str, Any], password: str) -> Person:
    workspace_id, session_id, _ = document["refresh_token"].split(".")
    user = document["user"]
    access, refresh = document["access_token"], document["refresh_token"]
    return Person(workspace_id, user["id"], user["email"], session_id, access, refresh, password)


@pytest.fixture
def sign_in(api: httpx2.AsyncClient) -> SignIn:
    """`await sign_in(email, password)`; from another address or at another replica with `client=`."""

    async def do(email: str, password: str = PASSWORD, client: httpx2.AsyncClient | None = None) -> Person:
        answer = await (client or api).post("/api/auth/login", json={"email": email, "password": password})
        assert answer.status_code == 200, answer.text
        return _person(answer.json(), password)

    return do


@pytest.fixture
def add_user(api: httpx2.AsyncClient, sign_in: SignIn) -> AddUser:
    """`await add_user(admin, role)`: a new user of the administrator's workspace, signed in."""

    async def do(by: Person, role: str) -> Person:
        email = f"{new_id(role)}@example.com"
        body = {"email": email, "name": role.title(), "role": role, "password": PASSWORD}
        answer = await api.post("/api/auth/users", json=body, headers=by.headers)
        assert answer.status_code == 201, answer.text
        return await sign_in(email)

    return do


@pytest.fixture
def announced(rows: Rows, admin: Person) -> Announced:
    """`await announced()`: every event of this test's workspace, oldest first, each checked against its contract."""

    async def do() -> list[dict[str, Any]]:
        query = "SELECT body FROM outbox WHERE workspace_id = $1 ORDER BY seq"
        events = [orjson.loads(record["body"]) for record in await rows.fetch(query, admin.workspace_id)]
        for event in events:
            assert problems(event) == []
        return events

    return do
