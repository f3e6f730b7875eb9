"""Wake-ups from other processes: PostgreSQL's NOTIFY, heard on a connection of its own."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import asyncpg

from chassis.logs import get_logger
from chassis.trouble import is_database_trouble
from crm_sync.models import ConnectionKey

log = get_logger()

CHANNEL = "crm_sync_due"
_CHECK_SECONDS = 5.0
_RECONNECT_SECONDS = 1.0


class Listener:
    """A lost notification costs a poll's time and nothing else, so that a lost connection is simply opened again."""

    name = "listen-for-wishes"

    def __init__(self, dsn: str, wake: Callable[[Iterable[ConnectionKey]], None]) -> None:
        self._dsn = dsn
        self._wake = wake

    async def run(self, stopping: asyncio.Event) -> None:
        stop = asyncio.ensure_future(stopping.wait())
        try:
            while not stopping.is_set():
                try:
                    await self._listen(stop)
                except Exception as error:
                    if not is_database_trouble(error):
                        raise
                    log.warning("lose-notifications", error=str(error) or type(error).__name__)
                await asyncio.wait({stop}, timeout=_RECONNECT_SECONDS)
        finally:
            stop.cancel()

    async def _listen(self, stop: "asyncio.Future[Any]") -> None:
        connection = await asyncpg.connect(
            self._dsn, timeout=3, server_settings={"application_name": "crm-sync listener"}
        )
        try:
            await connection.add_listener(CHANNEL, self._heard)
            while not stop.done():
                await connection.fetchval("SELECT 1", timeout=_CHECK_SECONDS)
                await asyncio.wait({stop}, timeout=_CHECK_SECONDS)
        finally:
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                await connection.close(timeout=2)

    def _heard(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        workspace_id, _, connection_id = str(payload).partition("/")
        self._wake([ConnectionKey(workspace_id, connection_id)])
