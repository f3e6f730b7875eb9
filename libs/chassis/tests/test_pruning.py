"""What has been kept long enough goes, by one process at a time; an event that nobody has had never goes."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from chassis import pruning
from chassis.bus import Bus
from chassis.database import Database, open_database
from chassis.pruning import Prune, common_pruning
from tests.support.fixtures import NewDatabase, eventually


@pytest.fixture
async def database(emptied_database: NewDatabase, broker_url: str) -> AsyncIterator[Database]:
    async with open_database(
        await emptied_database("chassis"), Bus(broker_url, "leads"), service="leads", pool_size=2
    ) as opened:
        yield opened


@pytest.fixture
async def direct(database: Database) -> AsyncIterator[asyncpg.pool.PoolConnectionProxy]:
    async with database.acquire() as connection:
        yield connection


async def names(connection: asyncpg.pool.PoolConnectionProxy, column: str, table: str) -> list[str]:
    return [record[0] for record in await connection.fetch(f"SELECT {column} FROM {table} ORDER BY 1")]


async def test_what_every_service_keeps_goes_when_its_time_is_over_and_not_before(
    database: Database, direct: asyncpg.pool.PoolConnectionProxy
) -> None:
    await direct.execute(
        """INSERT INTO outbox (event_id, workspace_id, type, subject, body, created_at, published_at, parked_at)
        SELECT name, 'ws_1', 'user.created', 'user_1', '', now() - interval '400 days', now() - published, now() - parked
        FROM (VALUES ('published 71 h ago', interval '71 hours', NULL::interval), ('published 73 h ago', '73 hours', NULL),
                     ('never published', NULL, NULL), ('parked', NULL, '300 days')) AS t (name, published, parked);
        INSERT INTO idempotency_keys (workspace_id, principal, key, fingerprint, created_at, expires_at)
        VALUES ('ws_1', 'user_1', 'over', '', now() - interval '25 hours', now() - interval '1 second'),
               ('ws_1', 'user_1', 'alive', '', now() - interval '29 days', now() + interval '1 minute');
        INSERT INTO inbox (queue, event_id, taken_at)
        VALUES ('q', 'young', now() - interval '29 days'), ('q', 'old', now() - interval '31 days');
        INSERT INTO inbox_suspects (queue, event_id, tries, at)
        VALUES ('q', 'young', 1, now() - interval '29 days'), ('q', 'old', 1, now() - interval '31 days')"""
    )
    for duty in common_pruning(database):
        assert await duty.run_once() == 1
        assert await duty.run_once() == 0
    assert await names(direct, "event_id", "outbox") == ["never published", "parked", "published 71 h ago"]
    assert await names(direct, "key", "idempotency_keys") == ["alive"]
    assert await names(direct, "event_id", "inbox") == ["young"]
    assert await names(direct, "event_id", "inbox_suspects") == ["young"]


async def test_one_process_at_a_time_prunes_a_table(
    database: Database, direct: asyncpg.pool.PoolConnectionProxy
) -> None:
    await direct.execute("INSERT INTO seeds (name) VALUES ('gone')")
    duty, other = Prune(database, "seeds", "true"), Prune(database, "inbox", "true")
    async with direct.transaction():
        await direct.execute("SELECT pg_advisory_xact_lock($1)", duty._lock)
        assert await duty.run_once() == 0
        await direct.execute("INSERT INTO inbox (queue, event_id) VALUES ('q', 'e')")
    assert await other.run_once() == 1
    assert await duty.run_once() == 1


async def test_a_row_that_somebody_works_on_is_left_without_waiting(
    database: Database, direct: asyncpg.pool.PoolConnectionProxy
) -> None:
    await direct.execute("INSERT INTO seeds (name) VALUES ('held'), ('free')")
    async with direct.transaction():
        await direct.execute("SELECT 1 FROM seeds WHERE name = 'held' FOR UPDATE")
        assert await asyncio.wait_for(Prune(database, "seeds", "true").run_once(), 2) == 1
    assert await names(direct, "name", "seeds") == ["held"]


async def test_a_duty_goes_on_in_batches_until_nothing_is_left_and_again_after_trouble(
    database: Database, direct: asyncpg.pool.PoolConnectionProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "BATCH", 2)
    monkeypatch.setattr(pruning, "EVERY_SECONDS", 0.1)
    await direct.execute("INSERT INTO seeds (name) SELECT 'seed ' || number FROM generate_series(1, 5) AS number")
    batches: list[int] = []
    duty, stopping = Prune(database, "seeds", "true"), asyncio.Event()
    once = duty.run_once

    async def run_once() -> int:
        if not batches:
            batches.append(-1)
            raise ConnectionResetError("the database is away")
        monkeypatch.setattr(pruning, "EVERY_SECONDS", 60)
        batches.append(await once())
        return batches[-1]

    monkeypatch.setattr(duty, "run_once", run_once)
    task = asyncio.create_task(duty.run(stopping))

    async def is_over() -> bool:
        return batches[:4] == [-1, 2, 2, 1]

    await eventually(is_over, seconds=3)
    stopping.set()
    await asyncio.wait_for(task, 1)
