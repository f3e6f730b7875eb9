"""A process's pool: bounded waiting, a COMMIT that nothing cancels, and a process that ends when its pool is beyond help."""

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, ClassVar

import asyncpg
import pytest

from chassis import resources
from chassis.bus import Bus
from chassis.database import Database, NotDurable, Transaction, open_database
from chassis.errors import Unavailable
from chassis.idempotency import Answer, WriteRequest, run_once
from chassis.outbox import OutboxRow
from chassis.principal import Principal
from chassis.settings import ServiceSettings
from chassis.trouble import CommitUnknown
from tests.support.event_process import user_event
from tests.support.fixtures import NewDatabase, eventually, owner_dsn
from tests.support.servers import TestServers

Superuser = asyncpg.Connection


class ThingSettings(ServiceSettings):
    service: ClassVar[str] = "leads"


@pytest.fixture
async def dsn(new_database: NewDatabase) -> str:
    return await new_database("chassis")


@pytest.fixture
async def database(dsn: str, broker_url: str) -> AsyncIterator[Database]:
    async with open_database(dsn, Bus(broker_url, "leads"), service="leads", pool_size=2) as opened:
        yield opened


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The signals that were sent, instead of sending them."""
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    monkeypatch.setattr(resources, "WATCH_SECONDS", 0.05)
    monkeypatch.setattr(resources, "POOL_DEAD_SECONDS", 0.5)
    monkeypatch.setattr("chassis.database.ACQUIRE_SECONDS", 0.1)
    return sent


class Dsn:
    """What the watchdog reads of the settings."""

    def __init__(self, dsn: str) -> None:
        self.database_url = self
        self._dsn = dsn

    def get_secret_value(self) -> str:
        return self._dsn


async def test_whoever_finds_no_free_connection_is_told_so_within_a_second(database: Database) -> None:
    async with database.acquire(), database.acquire():
        started = asyncio.get_running_loop().time()
        with pytest.raises(Unavailable) as refused:
            async with database.acquire():
                pass
    assert 0.9 < asyncio.get_running_loop().time() - started < 2
    assert refused.value.headers["Retry-After"] == "1"


async def test_a_pool_that_gives_no_connection_for_long_ends_the_process(
    database: Database, dsn: str, killed: list[tuple[int, int]]
) -> None:
    async with database.acquire(), database.acquire():
        settings: Any = Dsn(dsn)
        await asyncio.wait_for(resources._watch_pool(database, settings), 5)
    assert killed == [(os.getpid(), signal.SIGTERM)]


async def test_a_process_that_stood_still_is_not_ended_for_it(
    database: Database, dsn: str, killed: list[tuple[int, int]]
) -> None:
    """Its pool gave nobody a connection for long, because nobody asked."""
    settings: Any = Dsn(dsn)
    async with database.acquire(), database.acquire():
        database.served_at -= 60
        watching = asyncio.create_task(resources._watch_pool(database, settings))
        await asyncio.sleep(0.3)  # two vain tries; the third part of what is too long is not over
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert killed == []


async def test_every_process_watches_its_pool(
    service_settings: Callable[..., Awaitable[Any]],
    dsn: str,
    killed: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("chassis.database.ACQUIRE_SECONDS", 1.0)
    settings = await service_settings(ThingSettings, database_url=dsn, database_pool_size=2)
    async with resources.open_resources(settings) as opened, opened.database.acquire(), opened.database.acquire():

        async def ends() -> bool:
            return killed == [(os.getpid(), signal.SIGTERM)]

        await eventually(ends, seconds=5)


async def test_a_pool_that_is_only_busy_does_not(
    database: Database, dsn: str, killed: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Far more want a connection than get one, but some do: this process does what it can."""
    monkeypatch.setattr(resources, "POOL_DEAD_SECONDS", 1.2)  # longer than a busy machine lets a process stand still
    served = 0

    async def work() -> None:
        nonlocal served
        while True:
            try:
                async with database.acquire():
                    served += 1
                    await asyncio.sleep(0.05)
            except Unavailable:
                await asyncio.sleep(random.uniform(0, 0.2))

    workers = [asyncio.create_task(work()) for _ in range(100)]
    settings: Any = Dsn(dsn)
    watching = asyncio.create_task(resources._watch_pool(database, settings))
    try:
        await asyncio.sleep(2.4)  # twice as long as a pool may give nobody a connection
    finally:
        for task in (*workers, watching):
            task.cancel()
        await asyncio.gather(*workers, watching, return_exceptions=True)
    assert served > 20
    assert killed == []


async def test_a_server_that_takes_nobody_ends_no_process(database: Database, killed: list[tuple[int, int]]) -> None:
    """A fresh process would find it no better."""
    settings: Any = Dsn("postgresql://nobody@127.0.0.1:9/none")
    async with database.acquire(), database.acquire():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(resources._watch_pool(database, settings), 1)
    assert killed == []


@pytest.fixture
async def superuser(servers: TestServers, dsn: str) -> AsyncIterator[Superuser]:
    """A connection to the same database that may break things. Each COMMIT that stored a seed takes a moment."""
    connection = await asyncpg.connect(owner_dsn(servers, dsn))
    await connection.execute(
        """CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.4); RETURN NULL; END';
        CREATE CONSTRAINT TRIGGER linger AFTER INSERT ON seeds DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION linger()"""
    )
    yield connection
    await connection.close()


async def store(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.connection.execute("INSERT INTO seeds (name) VALUES ('kept')")
        tx.emit(user_event())


async def committing(superuser: Superuser) -> int | None:
    """The process id of a session in its COMMIT."""
    found: int | None = await superuser.fetchval(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND query = 'COMMIT;'"
    )
    return found


async def test_a_commit_under_way_is_finished_although_its_request_is_cancelled(
    database: Database, superuser: Superuser, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced: list[OutboxRow] = []
    monkeypatch.setattr(database.outbox, "announce", announced.extend)
    task = asyncio.create_task(store(database))
    await eventually(lambda: committing(superuser))
    for _ in range(3):  # a client that is gone, a deadline, a process that stops
        task.cancel()
        await asyncio.sleep(0.01)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await superuser.fetchval("SELECT count(*) FROM seeds") == 1
    assert [row.event_id for row in announced] == [await superuser.fetchval("SELECT event_id FROM outbox")]


async def test_a_commit_that_fails_leaves_neither_the_change_nor_its_event(
    database: Database, superuser: Superuser, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced: list[OutboxRow] = []
    monkeypatch.setattr(database.outbox, "announce", announced.extend)
    await superuser.execute(
        """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END';
        CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON seeds DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION refuse()"""
    )
    with pytest.raises(asyncpg.RaiseError):
        await store(database)
    assert await superuser.fetchval("SELECT (SELECT count(*) FROM seeds) + (SELECT count(*) FROM outbox)") == 0
    assert announced == []


@pytest.mark.parametrize("losses", [1, 2])
async def test_a_read_whose_connection_is_lost_is_made_once_more(
    database: Database, superuser: Superuser, losses: int
) -> None:
    reads = []

    async def read(connection: asyncpg.pool.PoolConnectionProxy) -> int:
        reads.append(await connection.fetchval("SELECT pg_backend_pid()"))
        if len(reads) <= losses:
            await superuser.execute("SELECT pg_terminate_backend($1)", reads[-1])
        return int(await connection.fetchval("SELECT 7"))

    if losses == 1:
        assert await database.read(read) == 7
    else:
        with pytest.raises(Unavailable):
            await database.read(read)
    assert len(reads) == 2


async def test_a_connection_lost_in_commit_leaves_it_unknown_whether_it_happened(
    database: Database, superuser: Superuser
) -> None:
    task = asyncio.create_task(store(database))
    await superuser.execute("SELECT pg_terminate_backend($1)", await eventually(lambda: committing(superuser)))
    with pytest.raises(CommitUnknown):
        await task


async def test_a_write_whose_commit_was_lost_is_carried_out_once_more_under_its_key(
    database: Database, superuser: Superuser
) -> None:
    async def effect(tx: Transaction) -> Answer:
        await tx.connection.execute("INSERT INTO seeds (name) VALUES ('kept')")
        return Answer(204)

    somebody = Principal(workspace_id="ws_1", subject="user_1", scopes=frozenset())
    write = WriteRequest(somebody, "POST", "/api/things", "", b"{}", "key-1", client_key=True)
    task = asyncio.create_task(run_once(write, database, effect))
    await superuser.execute("SELECT pg_terminate_backend($1)", await eventually(lambda: committing(superuser)))
    assert (await task).status == 204
    assert await superuser.fetchval("SELECT count(*) FROM seeds") == 1


async def test_a_server_that_could_lose_commits_is_not_worked_with(
    dsn: str, broker_url: str, superuser: Superuser
) -> None:
    name = await superuser.fetchval("SELECT current_database()")
    await superuser.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    with pytest.raises(NotDurable, match="synchronous_commit"):
        async with asyncio.timeout(5), open_database(dsn, Bus(broker_url, "leads"), service="leads", pool_size=2):
            pass


async def test_what_a_process_does_first_finds_a_connection_open(
    dsn: str, broker_url: str, servers: TestServers
) -> None:
    """A busy server may need longer for a new one than anybody waits for it."""
    owner, name = await asyncpg.connect(servers.postgres_dsn), dsn.rpartition("/")[2]
    async with open_database(dsn, Bus(broker_url, "leads"), service="leads", pool_size=2) as opened:
        await owner.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        async with opened.acquire() as connection:
            assert await connection.fetchval("SELECT 1") == 1
    await owner.close()


async def test_no_session_waits_or_holds_locks_for_longer_than_the_gateway_waits_for_an_answer(
    database: Database,
) -> None:
    """Its 15 seconds: a repetition on another replica gets through although the first one's process stands still."""
    limits = {"lock_timeout": "5s", "idle_in_transaction_session_timeout": "5s", "statement_timeout": "15s"}
    async with database.acquire() as one, database.control.acquire() as two:
        for connection in (one, two):
            assert {name: await connection.fetchval(f"SHOW {name}") for name in limits} == limits
            assert await connection.fetchval("SHOW client_connection_check_interval") == "2s"


async def test_a_logged_trace_quotes_no_row(dsn: str) -> None:
    program = """
import asyncio, sys, asyncpg
from chassis.logs import configure_logs, get_logger

async def main():
    connection = await asyncpg.connect(sys.argv[1])
    try:
        for _ in range(2):
            await connection.execute("INSERT INTO seeds (name) VALUES ('ada' || '@example.com')")
    except asyncpg.PostgresError:
        get_logger().exception("fail")

configure_logs("test")
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, dsn, stdout=asyncio.subprocess.PIPE)
    logged, _ = await process.communicate()
    assert b"UniqueViolationError: duplicate key value" in logged
    assert b"ada@example.com" not in logged


async def test_a_rollback_is_finished_before_the_connection_is_given_to_the_next(database: Database) -> None:
    async def fail() -> None:
        async with database.transaction() as tx:
            await tx.connection.execute("INSERT INTO seeds (name) VALUES ('dropped')")
            await asyncio.sleep(60)

    for _ in range(3):
        task = asyncio.create_task(fail())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    async with database.acquire() as connection:
        assert await connection.fetchval("SELECT count(*) FROM seeds") == 0
        assert not connection.is_in_transaction()
