"""Deleting what has been kept long enough: a few thousand rows at a time, by one process at a time."""

import asyncio
from collections.abc import Sequence
from zlib import crc32

from chassis.database import Database
from chassis.logs import get_logger
from chassis.trouble import is_database_trouble

log = get_logger()

BATCH = 5_000
EVERY_SECONDS = 60.0


class Prune:
    """A worker's duty: delete the rows of `table` that meet `condition` (constant SQL, never from outside)."""

    def __init__(self, database: Database, table: str, condition: str) -> None:
        self.name = f"prune-{table}"
        self._database = database
        self._lock = crc32(self.name.encode())
        self._statement = (
            f"DELETE FROM {table} WHERE ctid = ANY (ARRAY("  # noqa: S608 - both parts are constants of our code
            f"SELECT ctid FROM {table} WHERE {condition} LIMIT {BATCH} FOR UPDATE SKIP LOCKED))"
        )

    async def run(self, stopping: asyncio.Event) -> None:
        stop = asyncio.ensure_future(stopping.wait())
        try:
            while not stopping.is_set():
                try:
                    while await self.run_once() == BATCH and not stopping.is_set():
                        pass
                except Exception as error:
                    if not is_database_trouble(error):
                        log.exception("fail-pruning", duty=self.name)
                await asyncio.wait({stop}, timeout=EVERY_SECONDS)
        finally:
            stop.cancel()

    async def run_once(self) -> int:
        """Delete one batch; returns how many rows went, 0 while another process prunes this table."""
        async with self._database.control.acquire(timeout=2) as connection, connection.transaction():
            if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", self._lock):
                return 0
            tag = await connection.execute(self._statement)
        return int(tag.rpartition(" ")[2])


def common_pruning(database: Database) -> Sequence[Prune]:
    """What every service's database keeps: published events 72 h, keys until they expire, inbox rows 30 days."""
    return (
        Prune(database, "outbox", "published_at < now() - interval '72 hours'"),
        Prune(database, "idempotency_keys", "expires_at < now()"),
        Prune(database, "inbox", "taken_at < now() - interval '30 days'"),
        Prune(database, "inbox_suspects", "at < now() - interval '30 days'"),
    )
