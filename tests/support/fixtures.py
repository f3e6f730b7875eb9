"""Fixtures on real servers: databases, a virtual host per session, a Redis database per session.

- `servers`: where PostgreSQL, RabbitMQ and Redis are (one set per session).
- `emptied_database("leads")`: a migrated database of a service without a row, as the service's own role.
- `new_database("leads")`: a fresh one, for tests that change more than rows; gone after the test.
- `broker_url`: this session's virtual host, every queue of the topology declared and empty when the test begins.
- `redis_url`: this session's Redis database, empty when the test begins.
- `service_settings(LeadsSettings, **overrides)`: settings of a service on all of these.
- `identity`: signs access tokens and ends sessions, in place of auth.
"""

import asyncio
import json
import os
import time
import urllib.request
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import aio_pika
import asyncpg
import pytest
from redis.asyncio import Redis

from chassis.bus import declare_topology
from chassis.ids import new_id
from chassis.migrations import migrate
from chassis.settings import ServiceSettings
from contracts import topology
from tests.support.identity import TestIdentity
from tests.support.servers import TestServers, test_servers

_Settings = TypeVar("_Settings", bound=ServiceSettings)
NewDatabase = Callable[[str], Awaitable[str]]

_ROLE_PASSWORD = "for-tests-only"


@pytest.fixture(scope="session")
def servers() -> Iterator[TestServers]:
    with test_servers() as running:
        yield running


def _with_path(dsn: str, path: str) -> str:
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{path}"))


def _as_role(dsn: str, role: str) -> str:
    parts = urlsplit(dsn)
    return urlunsplit(parts._replace(netloc=f"{role}:{_ROLE_PASSWORD}@{parts.hostname}:{parts.port}"))


@pytest.fixture(scope="session")
async def _templates(servers: TestServers) -> AsyncIterator[dict[str, str]]:
    """Migrated databases by package, to be cloned; dropped at the end."""
    made: dict[str, str] = {}
    yield made
    owner = await asyncpg.connect(servers.postgres_dsn)
    try:
        for name in made.values():
            await owner.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    finally:
        await owner.close()


async def _make_template(servers: TestServers, package: str) -> str:
    name = new_id(f"template_{package}")
    owner = await asyncpg.connect(servers.postgres_dsn)
    try:
        await owner.execute("SELECT pg_advisory_lock(1)")  # other sessions' roles are the same ones
        await owner.execute(
            f"""DO $$ BEGIN CREATE ROLE "{package}" LOGIN PASSWORD '{_ROLE_PASSWORD}';
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                ALTER ROLE "{package}" PASSWORD '{_ROLE_PASSWORD}'; END $$"""
        )
        await owner.execute(f'CREATE DATABASE "{name}"')
    finally:
        await owner.close()
    await migrate(_with_path(servers.postgres_dsn, name), package, role=package)
    return name


@pytest.fixture(scope="session")
def shared_database(servers: TestServers, _templates: dict[str, str]) -> NewDatabase:
    """`await shared_database("leads")`: one migrated database for the session."""

    async def share(package: str) -> str:
        if f"{package} shared" not in _templates:
            _templates[f"{package} shared"] = await _make_template(servers, package)
        return _as_role(_with_path(servers.postgres_dsn, _templates[f"{package} shared"]), package)

    return share


@pytest.fixture
def emptied_database(servers: TestServers, shared_database: NewDatabase) -> NewDatabase:
    """`await emptied_database("leads")`: the session's shared database without a row; costs a tenth of a fresh one."""

    async def empty(package: str) -> str:
        dsn = await shared_database(package)
        owner = await asyncpg.connect(owner_dsn(servers, dsn))
        try:
            await owner.execute(_EMPTY)
        finally:
            await owner.close()
        return dsn

    return empty


_EMPTY = """
SET session_replication_role = replica;  -- tables in any order
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'schema_migrations' LOOP
        EXECUTE format('DELETE FROM %I', name);
    END LOOP;
END $$
"""


@pytest.fixture
async def new_database(servers: TestServers, _templates: dict[str, str]) -> AsyncIterator[NewDatabase]:
    """`await new_database("leads")`: the connection string of a fresh database, as the service's role."""
    made: list[str] = []

    async def make(package: str) -> str:
        if package not in _templates:
            _templates[package] = await _make_template(servers, package)
        name = new_id(package)
        owner = await asyncpg.connect(servers.postgres_dsn)
        try:
            # Copying files takes half as long as logging every page of them.
            await owner.execute(f'CREATE DATABASE "{name}" TEMPLATE "{_templates[package]}" STRATEGY file_copy')
        finally:
            await owner.close()
        made.append(name)
        return _as_role(_with_path(servers.postgres_dsn, name), package)

    yield make
    owner = await asyncpg.connect(servers.postgres_dsn)
    try:
        for name in made:
            await owner.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    finally:
        await owner.close()


def owner_dsn(servers: TestServers, database_url: str) -> str:
    """The superuser's connection to the database that `database_url` names: for looking, and for breaking things."""
    return _with_path(servers.postgres_dsn, urlsplit(database_url).path.lstrip("/"))


def _manage(servers: TestServers, method: str, path: str, body: Any = None) -> None:
    parts = urlsplit(servers.management_url)
    request = urllib.request.Request(
        f"http://{parts.hostname}:{parts.port}/api{path}",
        method=method,
        data=json.dumps(body).encode() if body is not None else None,
        headers={
            "Content-Type": "application/json",
            "Authorization": "Basic " + b64encode(f"{parts.username}:{parts.password}".encode()).decode(),
        },
    )
    with urllib.request.urlopen(request, timeout=20):
        pass


@pytest.fixture(scope="session")
def virtual_host(servers: TestServers) -> Iterator[str]:
    """A virtual host of this session's own; its amqp URL."""
    name = new_id("vhost")
    user = urlsplit(servers.management_url).username
    _manage(servers, "PUT", f"/vhosts/{name}", {})
    _manage(servers, "PUT", f"/permissions/{name}/{user}", {"configure": ".*", "write": ".*", "read": ".*"})
    yield _with_path(servers.amqp_url, name)
    _manage(servers, "DELETE", f"/vhosts/{name}")


@pytest.fixture
async def broker_url(virtual_host: str) -> str:
    """The session's virtual host with every queue declared and empty."""
    connection = await aio_pika.connect(virtual_host)
    async with connection:
        channel = await connection.channel()
        await declare_topology(channel, topology())
        for contract in topology().queues:
            for name in (contract.name, contract.dead, *(contract.retry(s) for s in topology().retry_seconds)):
                await (await channel.get_queue(name, ensure=False)).purge()
    return virtual_host


@pytest.fixture(scope="session")
def redis_database(servers: TestServers) -> str:
    """The URL of a Redis database of this session's own."""
    number = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw") or os.getpid()
    return _with_path(servers.redis_url, str(int(number) % 16))


@pytest.fixture
async def redis_url(redis_database: str) -> str:
    """This session's Redis database, emptied."""
    url = redis_database
    redis = Redis.from_url(url)
    try:
        await redis.flushdb()
    finally:
        await redis.aclose()
    return url


@pytest.fixture
def identity() -> TestIdentity:
    """A signer of access tokens that stands in for auth."""
    return TestIdentity()


@pytest.fixture
async def service_settings(new_database: NewDatabase, broker_url: str, redis_url: str) -> Callable[..., Awaitable[Any]]:
    """`await service_settings(LeadsSettings, port=1234, …)`: settings on a fresh database and this session's broker and cache."""

    async def make(kind: type[_Settings], **overrides: Any) -> _Settings:
        package = kind.service.replace("-", "_")
        values: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": 1,
            "internal_url": "http://127.0.0.1:9",
            "broker_url": broker_url,
            "cache_url": redis_url,
            "service_client_secret": "for-tests-only",
            **overrides,
        }
        if "database_url" not in values:
            values["database_url"] = await new_database(package)
        return kind(**values)

    return make


async def eventually(check: Callable[[], Awaitable[Any]], *, seconds: float = 10.0, every: float = 0.02) -> Any:
    """Ask `check` until it gives something true, and return that; AssertionError after `seconds` with the last finding.

    It asks ever more seldom: what is waited for needs the processors more than the question does.
    """
    found: Any = None
    began = time.monotonic()
    try:
        async with asyncio.timeout(seconds):
            while True:
                found = await check()
                if found:
                    return found
                await asyncio.sleep(max(every, min(0.1, (time.monotonic() - began) / 10)))
    except TimeoutError as error:
        raise AssertionError(f"not within {seconds} s; last seen: {found!r}") from error
