"""PostgreSQL: a small pool, transactions that carry their events, and a COMMIT that nothing cancels."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import asyncpg

from chassis.bus import Bus
from chassis.errors import Unavailable
from chassis.events import Event
from chassis.failpoints import failpoint
from chassis.logs import get_logger
from chassis.metrics import OUTBOX_OLDEST, OUTBOX_PARKED_NOW, OUTBOX_WAITING, POOL_CONNECTIONS, POOL_WAITING, POOL_WAITS
from chassis.outbox import Outbox, OutboxRow, insert_events
from chassis.queries import load_queries
from chassis.trouble import CommitUnknown, is_connection_lost

log = get_logger()
queries = load_queries("chassis")

ACQUIRE_SECONDS = 1.0
CONTROL_CONNECTIONS = 2
SESSION_SETTINGS = {
    "lock_timeout": "5s",
    "statement_timeout": "15s",
    # A process that stopped inside a transaction lets go of its locks before its client gives up on the retry.
    "idle_in_transaction_session_timeout": "5s",
    "client_connection_check_interval": "2s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "jit": "off",
    "timezone": "UTC",
}

_Result = TypeVar("_Result")


class _Connection(asyncpg.Connection):
    """No reset query when a connection goes back to the pool: no session state is set, and it costs a round trip."""

    def get_reset_query(self) -> str:
        return ""


class NotDurable(Exception):
    """The server runs with settings under which a commit can be lost."""


PooledConnection = asyncpg.pool.PoolConnectionProxy


class Transaction:
    """An open transaction. What is emitted here is committed with it and announced after it."""

    def __init__(self, connection: "PooledConnection") -> None:
        self.connection = connection
        self._events: list[Event] = []

    def emit(self, event: Event) -> None:
        """Announce `event` if, and only if, this transaction commits."""
        self._events.append(event)

    async def write_events(self) -> list[OutboxRow]:
        """Insert what was emitted; the database calls this just before COMMIT."""
        return await insert_events(self.connection, self._events) if self._events else []


class Database:
    """One service's database, as one process uses it. Make it with `open_database`."""

    def __init__(self, pool: "asyncpg.Pool[Any]", control: "asyncpg.Pool[Any]", outbox: Outbox) -> None:
        self._pool = pool
        self.control = control
        """Connections that requests cannot use up: for the relay, leases and health."""
        self.outbox = outbox
        self.served_at = time.monotonic()
        """When the pool last gave somebody a connection (monotonic)."""
        self._waiting = 0

    async def observe(self) -> None:
        """Set the gauges of the pool and of the outbox."""
        size, idle = self._pool.get_size(), self._pool.get_idle_size()
        for state, number in (("used", size - idle), ("idle", idle), ("free", self._pool.get_max_size() - size)):
            POOL_CONNECTIONS.labels(state).set(number)
        POOL_WAITING.set(self._waiting)
        outbox = await self.outbox_state()
        OUTBOX_WAITING.set(outbox["waiting"])
        OUTBOX_OLDEST.set(outbox["oldest_seconds"])
        OUTBOX_PARKED_NOW.set(outbox["parked"])

    async def outbox_state(self) -> "asyncpg.Record":
        """`waiting` and `parked` events, and the age of the oldest that waits, `oldest_seconds`."""
        async with self.control.acquire(timeout=1) as connection:
            found: asyncpg.Record | None = await connection.fetchrow(queries["outbox_state"])
        if found is None:
            raise LookupError("an aggregate gives one row")
        return found

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator["PooledConnection"]:
        """A connection for statements that each stand alone; Unavailable (503) if none is free within a second."""
        self._waiting += 1
        try:
            connection = await self._pool.acquire(timeout=ACQUIRE_SECONDS)
        except TimeoutError as error:
            POOL_WAITS.inc()
            raise Unavailable("The service has more to do than it can; try again.") from error
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            # Whatever keeps a connection from being opened is the database's trouble, not the work's.
            raise Unavailable("The database cannot be reached; try again.") from error
        finally:
            self._waiting -= 1
        self.served_at = time.monotonic()
        try:
            yield connection
        finally:
            await finish(self._pool.release(connection))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """A transaction that commits at the end of the block, events included, and rolls back on any exception.

        CommitUnknown if the connection is lost while COMMIT is under way. A cancellation during COMMIT is delivered after it.
        """
        async with self.acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            tx = Transaction(connection)
            try:
                yield tx
                rows = await tx.write_events()
                failpoint("database.before_commit")
            except BaseException:
                await finish(_rollback(transaction))
                raise
            await finish(self._commit(transaction, rows))

    async def _commit(self, transaction: asyncpg.transaction.Transaction, rows: list[OutboxRow]) -> None:
        try:
            await transaction.commit()
        except Exception as error:
            if is_connection_lost(error):
                raise CommitUnknown("the connection was lost during COMMIT") from error
            raise
        failpoint("database.after_commit")
        self.outbox.announce(rows)

    def announce(self, rows: Sequence[OutboxRow]) -> None:
        """Publish rows that the caller's own statement has inserted into the outbox and committed."""
        self.outbox.announce(rows)

    async def read(self, work: Callable[["PooledConnection"], Awaitable[_Result]]) -> _Result:
        """Run a read; once more on a fresh connection if the first one was lost under it."""
        try:
            async with self.acquire() as connection:
                return await work(connection)
        except Exception as error:
            if not is_connection_lost(error):
                raise
        try:
            async with self.acquire() as connection:
                return await work(connection)
        except Exception as error:
            if is_connection_lost(error):
                raise Unavailable("The database cannot be reached; try again.") from error
            raise


async def _rollback(transaction: asyncpg.transaction.Transaction) -> None:
    try:
        await transaction.rollback()
    except Exception as error:
        if not is_connection_lost(error):  # a lost session has rolled back by itself
            raise


async def finish(work: Awaitable[_Result]) -> _Result:
    """Let `work` run to its end even if the caller is cancelled; the cancellation is raised after it."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
        except BaseException:  # noqa: BLE001 - the task holds it; it is raised by result() below
            break
    result = task.result()
    if cancelled is not None:
        raise cancelled
    return result


async def check_durability(connection: "PooledConnection | asyncpg.Connection[asyncpg.Record]") -> None:
    """NotDurable if the server could lose a commit it has confirmed (PostgreSQL, "Write Ahead Log" settings)."""
    found = {record["name"]: record["setting"] for record in await connection.fetch(queries["durability"])}
    unsafe = sorted(name for name, setting in found.items() if setting == "off")
    if unsafe:
        raise NotDurable(f"PostgreSQL runs with {', '.join(unsafe)} off: set it on; accepted leads could be lost")


async def _connect_pool(dsn: str, size: int, application: str) -> "asyncpg.Pool[Any]":
    pool: asyncpg.Pool[Any] = asyncpg.create_pool(
        dsn,
        min_size=0,
        max_size=size,
        max_inactive_connection_lifetime=60,
        connection_class=_Connection,
        timeout=3,
        server_settings={**SESSION_SETTINGS, "application_name": application},
    )
    await pool
    return pool


@asynccontextmanager
async def open_database(dsn: str, bus: Bus, *, service: str, pool_size: int) -> AsyncIterator[Database]:
    """The service's database, once it answers and is durable; waits for a server that is late."""
    control = await _connect_pool(dsn, CONTROL_CONNECTIONS, f"{service} control")
    pool = await _connect_pool(dsn, pool_size, service)
    # Of both, so that what a process does first finds a connection open: a busy server may take longer to open one than
    # `acquire` waits, and a process that fails at its start is no use to anybody.
    for each in (control, pool):
        await _wait_until_durable(each)
    outbox = Outbox(control, bus)
    outbox.start()
    try:
        yield Database(pool, control, outbox)
    finally:
        await outbox.stop()
        for each in (pool, control):
            try:
                await asyncio.wait_for(each.close(), 5)
            except TimeoutError:
                each.terminate()


async def _wait_until_durable(pool: "asyncpg.Pool[Any]") -> None:
    while True:
        try:
            async with pool.acquire(timeout=3) as connection:
                await check_durability(connection)
                return
        except (OSError, TimeoutError, asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError) as error:
            log.warning("wait-for-database", error=str(error) or type(error).__name__)
            await asyncio.sleep(1)
