"""The loop that gives connections their turns: at once when woken, otherwise by looking for what has come due."""

import asyncio
from collections.abc import Iterable, Mapping

from chassis.logs import get_logger
from chassis.trouble import is_database_trouble
from crm_sync.connectors.protocol import Connector
from crm_sync.models import ConnectionKey
from crm_sync.sync import repository
from crm_sync.sync.batch import Tools
from crm_sync.sync.turn import serve

log = get_logger()

_AFTER_FAULT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 30.0
"""However long the budget grants nothing: it may have been raised meanwhile."""


class Syncer:
    """A worker's main duty. Each connection has at most one lane here; lanes run side by side."""

    name = "sync-leads"

    def __init__(self, tools: Tools, connectors: Mapping[str, Connector]) -> None:
        self._tools = tools
        self._connectors = dict(connectors)
        self._lanes: dict[ConnectionKey, asyncio.Task[None]] = {}
        self._again: set[ConnectionKey] = set()
        self._slots = asyncio.Semaphore(tools.settings.parallel_connections)
        self._stopping = asyncio.Event()

    def wake(self, keys: Iterable[ConnectionKey]) -> None:
        """Something is due at these connections: begin now, or come again once the turn under way is over."""
        if self._stopping.is_set():
            return
        for key in keys:
            self._again.add(key)
            if key not in self._lanes:
                self._lanes[key] = asyncio.create_task(self._lane(key), name=f"sync-{key.id}")

    async def run(self, stopping: asyncio.Event) -> None:
        """Look for due connections until `stopping`, then let every lane finish the batch in its hands."""
        self._stopping = stopping
        stop = asyncio.ensure_future(stopping.wait())
        while not stopping.is_set():
            await self.look()
            await asyncio.wait({stop}, timeout=self._tools.settings.poll_seconds)
        if self._lanes:
            await asyncio.wait(self._lanes.values())

    async def look(self) -> None:
        """Wake every connection with something due."""
        try:
            async with self._tools.database.acquire() as db:
                due = await repository.due_connections(db)
        except Exception as error:
            if not is_database_trouble(error):
                raise
            log.warning("wait-for-database", error=str(error) or type(error).__name__)
            return
        self.wake(due)

    async def _lane(self, key: ConnectionKey) -> None:
        try:
            while key in self._again and not self._stopping.is_set():
                self._again.discard(key)
                wait = await self._turn(key)
                if wait is not None:
                    self._again.add(key)
                    if wait > 0:
                        await self._pause(min(wait, LONGEST_WAIT_SECONDS))
        finally:
            del self._lanes[key]
            self._again.discard(key)

    async def _turn(self, key: ConnectionKey) -> float | None:
        try:
            async with self._slots:
                return await serve(self._tools, self._connectors, key)
        except Exception as error:
            if is_database_trouble(error):
                log.warning("wait-for-database", connection_id=key.id, error=str(error) or type(error).__name__)
            else:
                log.exception("fail-turn", connection_id=key.id)
            await self._pause(_AFTER_FAULT_SECONDS)
            return None

    async def _pause(self, seconds: float) -> None:
        stop = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({stop}, timeout=seconds)
        finally:
            stop.cancel()
