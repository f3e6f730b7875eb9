"""The bell between processes: a run started over HTTP is taken by a worker at once, not at its next poll."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import asyncpg

from chassis.logs import get_logger
from chassis.trouble import is_database_trouble

log = get_logger()

CHANNEL = "workflow_runs"
RECONNECT_SECONDS = 1.0


class Bell:
    """Listens on one connection of its own (PostgreSQL LISTEN). A bell missed while it reconnects costs one poll's time."""

    name = "bell"

    def __init__(self, dsn: str, ring: Callable[[], None]) -> None:
        self._dsn = dsn
        self._ring = ring

    async def run(self, stopping: asyncio.Event) -> None:
        stop = asyncio.create_task(stopping.wait())
        try:
            while not stopping.is_set():
                try:
                    await self._listen(stop)
                except Exception as error:
                    if not is_database_trouble(error):
                        raise
                    log.warning("lose-bell", error=str(error) or type(error).__name__)
                    await asyncio.wait({stop}, timeout=RECONNECT_SECONDS)
        finally:
            stop.cancel()

    async def _listen(self, stop: "asyncio.Task[Any]") -> None:
        lost = asyncio.Event()
        connection = await asyncpg.connect(
            self._dsn, timeout=3, server_settings={"application_name": "workflows bell", "tcp_keepalives_idle": "10"}
        )
        try:
            connection.add_termination_listener(lambda _connection: lost.set())
            await connection.add_listener(CHANNEL, self._rung)
            self._ring()
            ended = asyncio.create_task(lost.wait())
            await asyncio.wait({stop, ended}, return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
            if not stop.done():
                raise ConnectionResetError("the connection that listens was lost")
        finally:
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                await connection.close(timeout=2)

    def _rung(self, *_notification: Any) -> None:
        self._ring()
