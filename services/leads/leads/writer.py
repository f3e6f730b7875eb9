"""Creating leads: what concurrent requests want stored is written together, in one statement, without waiting for company.

While one statement runs, requests queue; what has queued goes into the next one. Alone, a request is written alone and at once.
The statement is the transaction. Where one row spoils it for the others (its key is taken), each is written by itself.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Self

import asyncpg
from prometheus_client import Histogram

from chassis.database import Database, finish
from chassis.errors import Unavailable
from chassis.failpoints import failpoint
from chassis.trouble import is_connection_lost
from leads.repository import KeyTaken, LeadWrite, create_leads

MAX_BATCH = 100
MAX_WAITING = 2_000
ALONE_AT_ONCE = 2

_BATCH_ROWS = Histogram("leads_written_together", "Leads stored by one statement.", buckets=(1, 2, 5, 10, 20, 50, 100))


class Outcome(Enum):
    """What became of a lead: stored; left out (its e-mail or phone is taken, or its owner unknown); its key is in use."""

    CREATED = "created"
    LEFT_OUT = "left out"
    KEY_TAKEN = "key taken"


@dataclass(frozen=True, slots=True)
class _Waiting:
    row: LeadWrite
    outcome: asyncio.Future[Outcome]

    def settle(self, result: Outcome | BaseException) -> None:
        if self.outcome.done():  # the request was given up
            return
        if isinstance(result, BaseException):
            self.outcome.set_exception(result)
        else:
            self.outcome.set_result(result)


class LeadWriter:
    """One per process, as a context; `create` takes any number of requests."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queue: deque[_Waiting] = deque()
        self._queued = asyncio.Event()
        self._alone = asyncio.Semaphore(ALONE_AT_ONCE)
        self._writing_alone: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._write_forever(), name="lead-writer")
        return self

    async def __aexit__(self, *_: object) -> None:
        # Requests have been answered by now; a statement under way is finished all the same.
        tasks = [*self._writing_alone, *([self._task] if self._task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def create(self, row: LeadWrite) -> Outcome:
        """Store the lead with its key and its event; announces it. Unavailable (503) if that cannot be done now."""
        if len(self._queue) >= MAX_WAITING:
            raise Unavailable("The service has more to do than it can; try again.")
        waiting = _Waiting(row, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._queued.set()
        return await waiting.outcome

    async def _write_forever(self) -> None:
        while True:
            await self._queued.wait()
            self._queued.clear()
            while batch := self._next_batch():
                try:
                    await finish(self._write(batch))
                except Exception as error:  # noqa: BLE001 - each request answers for it; the writer goes on
                    for waiting in batch:
                        waiting.settle(error)

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        while self._queue and len(batch) < MAX_BATCH:
            waiting = self._queue.popleft()
            if not waiting.outcome.done():
                batch.append(waiting)
        return batch

    async def _write(self, batch: Sequence[_Waiting]) -> None:
        _BATCH_ROWS.observe(len(batch))
        try:
            created = await self._store([waiting.row for waiting in batch])
        except (KeyTaken, asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
            if len(batch) == 1:
                batch[0].settle(Outcome.KEY_TAKEN if isinstance(error, KeyTaken) else error)
                return
            for waiting in batch:
                task = asyncio.create_task(self._write_alone(waiting))
                self._writing_alone.add(task)
                task.add_done_callback(self._writing_alone.discard)
            return
        for waiting in batch:
            is_new = waiting.row.change.lead.id in created
            waiting.settle(Outcome.CREATED if is_new else Outcome.LEFT_OUT)

    async def _write_alone(self, waiting: _Waiting) -> None:
        """One row by itself, while the writer goes on with others: it may wait for a lock that they do not need."""
        async with self._alone:
            try:
                await finish(self._write([waiting]))
            except Exception as error:  # noqa: BLE001 - the request answers for it
                waiting.settle(error)

    async def _store(self, rows: Sequence[LeadWrite]) -> set[str]:
        """The statement; once more with the same keys if the connection was lost in it, for it may have been carried out."""
        try:
            return await self._store_once(rows)
        except Exception as error:
            if not is_connection_lost(error):
                raise
        try:
            return await self._store_once(rows)
        except Exception as error:
            if is_connection_lost(error):
                raise Unavailable("The database cannot be reached; try again.") from error
            raise

    async def _store_once(self, rows: Sequence[LeadWrite]) -> set[str]:
        async with self._database.acquire() as connection:
            failpoint("leads.before_commit")
            created = await create_leads(connection, rows)
        failpoint("leads.after_commit")
        self._database.announce([row.event for row in rows if row.change.lead.id in created])
        return created
