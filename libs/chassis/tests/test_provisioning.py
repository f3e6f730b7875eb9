"""Databases and roles are made once, kept up to date, and refused in one line when something is missing."""

import asyncio
import sys
from collections.abc import AsyncIterator
from urllib.parse import quote, urlsplit

import asyncpg
import pytest

from chassis.ids import new_id
from chassis.provisioning import ProvisioningRefused, Service, main, provision
from tests.support.servers import TestServers

PASSWORD = 'it\'s a "password"'


@pytest.fixture
async def service(servers: TestServers) -> AsyncIterator[Service]:
    """A service whose database and role do not exist yet."""
    name = new_id("service")
    yield Service("chassis", f"{name}-data", name, PASSWORD, 3)
    owner = await asyncpg.connect(servers.postgres_dsn)
    await owner.execute(f'DROP DATABASE IF EXISTS "{name}-data" WITH (FORCE)')
    await owner.execute(f'DROP ROLE IF EXISTS "{name}"')
    await owner.close()


def dsn_of(servers: TestServers, service: Service) -> str:
    host = urlsplit(servers.postgres_dsn)
    return f"postgresql://{service.role}:{quote(service.password)}@{host.hostname}:{host.port}/{service.database}"


async def test_what_is_missing_is_made_and_a_second_time_changes_nothing(
    servers: TestServers, service: Service
) -> None:
    await asyncio.gather(*(provision(servers.postgres_dsn, [service]) for _ in range(2)))
    connection = await asyncpg.connect(dsn_of(servers, service))
    try:
        await connection.execute("INSERT INTO seeds (name) VALUES ('kept')")
        await provision(servers.postgres_dsn, [service])
        assert await connection.fetchval("SELECT count(*) FROM seeds") == 1
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("CREATE TABLE mine (id integer)")
        role = await connection.fetchrow(
            "SELECT rolsuper OR rolcreatedb OR rolcreaterole AS may, rolconnlimit FROM pg_roles WHERE rolname = current_user"
        )
        assert role is not None
        assert (role["may"], role["rolconnlimit"]) == (False, 3)
        assert not await connection.fetchval("SELECT has_database_privilege('public', current_database(), 'CONNECT')")
    finally:
        await connection.close()


async def test_a_new_password_and_limit_take_the_place_of_the_old(servers: TestServers, service: Service) -> None:
    await provision(servers.postgres_dsn, [service])
    changed = Service(service.package, service.database, service.role, "another", 5)
    await provision(servers.postgres_dsn, [changed])
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(dsn_of(servers, service))
    connection = await asyncpg.connect(dsn_of(servers, changed))
    assert await connection.fetchval("SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user") == 5
    await connection.close()


async def test_more_connections_than_the_server_takes_are_refused(servers: TestServers, service: Service) -> None:
    greedy = Service(service.package, service.database, service.role, service.password, 5_000)
    with pytest.raises(
        ProvisioningRefused, match=r"the services may open 5\d\d\d connections, .* raise its max_connections to 5"
    ):
        await provision(servers.postgres_dsn, [greedy])


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "set OWNER_DATABASE_URL"),
        ({"OWNER_DATABASE_URL": "postgresql://x"}, "set LEADS_DATABASE_URL"),
        (
            {"OWNER_DATABASE_URL": "postgresql://x", "LEADS_DATABASE_URL": "postgresql://l:p@h/d"},
            "set LEADS_CONNECTION_LIMIT",
        ),
        (
            {
                "OWNER_DATABASE_URL": "postgresql://x",
                "LEADS_DATABASE_URL": "postgresql://h/d",
                "LEADS_CONNECTION_LIMIT": "5",
            },
            "must name a role",
        ),
        (
            {
                "OWNER_DATABASE_URL": "postgresql://x",
                "LEADS_DATABASE_URL": "postgresql://l:p@h/d",
                "LEADS_CONNECTION_LIMIT": "many",
            },
            "must be a number",
        ),
        (
            {
                "OWNER_DATABASE_URL": "postgresql://o:p@127.0.0.1:9/postgres",
                "LEADS_DATABASE_URL": "postgresql://l:p@h/d",
                "LEADS_CONNECTION_LIMIT": "5",
            },
            "Connect call failed",
        ),
    ],
)
def test_what_is_missing_is_said_in_one_line(
    variables: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("OWNER_DATABASE_URL", "LEADS_DATABASE_URL", "LEADS_CONNECTION_LIMIT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["provisioning", "leads"])
    assert main() == 1
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
