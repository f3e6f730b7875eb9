"""Migrations: each file once, under a lock, without holding up the traffic; the service's role gets rows and no schema."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import asyncpg
import pytest

from chassis import migrations
from chassis.ids import new_id
from chassis.migrations import Migration, find_migrations, migrate
from tests.support.fixtures import NewDatabase, eventually, owner_dsn
from tests.support.servers import TestServers


@pytest.fixture
async def empty(servers: TestServers) -> AsyncIterator[str]:
    """The superuser's connection to a database with nothing in it."""
    name = new_id("empty")
    owner = await asyncpg.connect(servers.postgres_dsn)
    await owner.execute(f'CREATE DATABASE "{name}"')
    yield urlsplit(servers.postgres_dsn)._replace(path=f"/{name}").geturl()
    await owner.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    await owner.close()


@pytest.fixture
async def role_dsn(new_database: NewDatabase) -> str:
    """The chassis' own database, as its role."""
    return await new_database("chassis")


async def test_of_two_at_once_one_applies_each_file_and_the_other_waits_for_it(empty: str, role_dsn: str) -> None:
    wanted = [migration.version for migration in find_migrations("chassis")]
    first, second = await asyncio.gather(*(migrate(empty, "chassis", role="chassis") for _ in range(2)))
    assert sorted([first, second], key=len) == [[], wanted]


async def test_the_services_role_writes_rows_and_never_the_schema(role_dsn: str) -> None:
    connection = await asyncpg.connect(role_dsn)
    try:
        await connection.execute("INSERT INTO seeds (name) VALUES ('row')")
        for statement in (
            "CREATE TABLE mine (id integer)",
            "ALTER TABLE seeds ADD COLUMN mine integer",
            "TRUNCATE seeds",
            "SELECT * FROM schema_migrations",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await connection.close()


async def test_a_file_that_fails_leaves_nothing_and_is_tried_again(
    empty: str, role_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [Migration("chassis/1", "CREATE TABLE one (id integer); SELECT 1/0")]
    monkeypatch.setattr(migrations, "find_migrations", lambda _package: files)
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(empty, "chassis", role="chassis")
    files[0] = Migration("chassis/1", "CREATE TABLE one (id integer)")
    assert await migrate(empty, "chassis", role="chassis") == ["chassis/1"]


async def test_a_file_that_asks_for_it_runs_outside_a_transaction(
    empty: str, role_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [
        Migration("chassis/1", "CREATE TABLE one (id integer)"),
        Migration("chassis/2", "-- migrate: no-transaction\nCREATE INDEX CONCURRENTLY ids ON one (id)"),
    ]
    monkeypatch.setattr(migrations, "find_migrations", lambda _package: files)
    assert await migrate(empty, "chassis", role="chassis") == ["chassis/1", "chassis/2"]
    assert await migrate(empty, "chassis", role="chassis") == []


async def waits_for_a_lock(connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
    """Whether some session of this database waits for a lock now."""
    return bool(
        await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
    )


async def test_a_table_in_use_is_changed_when_it_is_free_and_its_readers_do_not_queue_behind(
    role_dsn: str, servers: TestServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "_LOCK_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(migrations, "_LOCK_PAUSE_SECONDS", 0.1)
    files = [Migration("chassis/9", "ALTER TABLE seeds ADD COLUMN more text")]
    monkeypatch.setattr(migrations, "find_migrations", lambda _package: files)
    user, reader = await asyncpg.connect(role_dsn), await asyncpg.connect(role_dsn)
    watcher = await asyncpg.connect(owner_dsn(servers, role_dsn))
    async with user.transaction():
        await user.execute("SELECT count(*) FROM seeds")
        task = asyncio.create_task(migrate(owner_dsn(servers, role_dsn), "chassis", role="chassis"))
        await eventually(lambda: waits_for_a_lock(watcher))
        assert not task.done()
        await asyncio.wait_for(reader.execute("SELECT count(*) FROM seeds"), 1)
    assert await asyncio.wait_for(task, 5) == ["chassis/9"]
    for connection in (user, reader, watcher):
        await connection.close()
