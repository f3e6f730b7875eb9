"""The outbox: events are committed with the change they announce, then published, then marked; a dead publisher's rows are taken over.

A row belongs to its writer for ten seconds. The writer hands its events to `announce` right after its commit, and publishes them
at once or, if the broker cannot be reached, as soon as it can; whatever is still unpublished when the ten seconds are over belongs
to whichever relay claims it first.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import asyncpg

from chassis.bus import BrokerUnavailable, Bus, MessageRefused
from chassis.events import Event, encode
from chassis.failpoints import failpoint
from chassis.logs import get_logger
from chassis.metrics import OUTBOX_PARKED, OUTBOX_PUBLISHED
from chassis.queries import load_queries
from chassis.trouble import is_database_trouble

log = get_logger()
queries = load_queries("chassis")

BATCH = 200
MAX_WAITING = 10_000
REFUSALS_UNTIL_PARKED = 5
SWEEP_SECONDS = 1.0
OWN_SECONDS = 9.0
"""How long its writer publishes a row: a little less than the ten seconds for which the database keeps it for its writer."""
RETRY_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """One event as the relay sees it."""

    event_id: str
    type: str
    body: bytes
    attempts: int = 0
    made_at: float = field(default_factory=time.monotonic)


def outbox_rows(events: Sequence[Event]) -> list[OutboxRow]:
    """The events as rows; EventTooLarge if one is above the limit."""
    return [OutboxRow(event.id, event.type, encode(event)) for event in events]


async def insert_events(connection: asyncpg.pool.PoolConnectionProxy, events: Sequence[Event]) -> list[OutboxRow]:
    """Insert events in the caller's transaction, all in one statement."""
    rows = outbox_rows(events)
    await connection.execute(
        queries["insert_outbox"],
        [row.event_id for row in rows],
        [event.workspaceid for event in events],
        [event.type for event in events],
        [event.subject for event in events],
        [event.subjectversion for event in events],
        [row.body for row in rows],
    )
    return rows


class Outbox:
    """Publishes committed events: the process's own at once, everybody's left-over ones by sweeping."""

    def __init__(self, pool: asyncpg.Pool, bus: Bus) -> None:
        self._pool = pool
        self._bus = bus
        self._waiting: asyncio.Queue[OutboxRow] = asyncio.Queue(MAX_WAITING)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._publish_own(), name="outbox-publisher"),
            asyncio.create_task(self._sweep(), name="outbox-sweep"),
        ]

    async def stop(self, flush_seconds: float = 2.0) -> None:
        """Publish what waits, for at most `flush_seconds`; the rest is swept by another process."""
        if self._bus.publishing.up.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(flush_seconds):
                    await self._waiting.join()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def announce(self, rows: Sequence[OutboxRow]) -> None:
        """Publish these committed rows as soon as the broker can be reached. Of more than MAX_WAITING the oldest are left to the sweep."""
        for row in rows:
            if self._waiting.full():
                self._waiting.get_nowait()
                self._waiting.task_done()
            self._waiting.put_nowait(row)

    async def _publish_own(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < BATCH and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            try:
                await self._publish_while_own(batch)
            except Exception as error:
                if not is_database_trouble(error):
                    log.exception("fail-publishing", events=len(batch))
                # The rows stay unmarked: the sweep announces them again, and inboxes drop what they already have.
            finally:
                for _ in batch:
                    self._waiting.task_done()

    async def _publish_while_own(self, rows: Sequence[OutboxRow]) -> None:
        """Publish as soon as the broker can be reached, once more what it was lost under, and nothing that is not ours any more."""
        while rows:
            await self._bus.publishing.usable()
            oldest = time.monotonic() - OWN_SECONDS
            rows = [row for row in rows if row.made_at > oldest]
            if rows and (rows := await self.publish(rows)):
                await asyncio.sleep(RETRY_SECONDS)

    async def _sweep(self) -> None:
        while True:
            try:
                await self._bus.publishing.usable()
                while await self.sweep_once() == BATCH:
                    pass
            except Exception as error:
                if not is_database_trouble(error):
                    log.exception("fail-sweeping")
            await asyncio.sleep(SWEEP_SECONDS)

    async def sweep_once(self) -> int:
        """Claim rows whose time with their writer is over, publish and mark them; returns how many were claimed."""
        async with self._pool.acquire(timeout=2) as connection:
            records = await connection.fetch(queries["claim_outbox"], BATCH)
        rows = [OutboxRow(r["event_id"], r["type"], r["body"], r["attempts"]) for r in records]
        suspects = [row for row in rows if row.attempts > 0]
        if healthy := [row for row in rows if row.attempts == 0]:
            await self.publish(healthy)
        for row in suspects:
            await self.publish([row])
        return len(rows)

    async def publish(self, rows: Sequence[OutboxRow]) -> list[OutboxRow]:
        """Publish together, mark what was confirmed, count what was refused; returns the rows that the broker was lost under."""
        failpoint("outbox.before_publish")
        now = time.time_ns() // 1_000_000
        results = await asyncio.gather(
            *(
                self._bus.publish_event(row.body, event_id=row.event_id, event_type=row.type, published_ms=now)
                for row in rows
            ),
            return_exceptions=True,
        )
        failpoint("outbox.after_publish")
        confirmed = [row for row, result in zip(rows, results, strict=True) if result is None]
        refused = [row for row, result in zip(rows, results, strict=True) if isinstance(result, MessageRefused)]
        if confirmed:
            await self._mark(confirmed)
            failpoint("outbox.after_mark")
        if refused:
            await self._count_refusals(refused)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, MessageRefused | BrokerUnavailable):
                raise result
        return [row for row, result in zip(rows, results, strict=True) if isinstance(result, BrokerUnavailable)]

    async def _mark(self, rows: Sequence[OutboxRow]) -> None:
        async with self._pool.acquire(timeout=2) as connection:
            await connection.execute(queries["mark_published"], [row.event_id for row in rows])
        for event_type, count in Counter(row.type for row in rows).items():
            OUTBOX_PUBLISHED.labels(event_type).inc(count)

    async def _count_refusals(self, rows: Sequence[OutboxRow]) -> None:
        """A refusal may mean that a queue is gone, so the link declares everything anew; a row refused alone too often is parked."""
        async with self._pool.acquire(timeout=2) as connection:
            parked = await connection.fetch(
                queries["count_refusal"], [row.event_id for row in rows], REFUSALS_UNTIL_PARKED
            )
        for record in parked:
            OUTBOX_PARKED.inc()
            log.error("park-event", event_id=record["event_id"], type=record["type"])
        await self._bus.publishing.reopen()
