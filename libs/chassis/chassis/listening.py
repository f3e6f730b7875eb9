"""Wake-ups from other processes: PostgreSQL's NOTIFY, heard on a connection of its own."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import asyncpg

from chassis.logs import get_logger
from chassis.trouble import is_database_trouble

log = get_logger()

RECONNECT_SECONDS = 1.0


class Listener:
    """A worker's duty: calls `heard` with each payload of a channel, and `opened` whenever it has begun to listen.

    What is notified while it reconnects is lost: whoever listens must look by itself now and then.
    """

    def __init__(
        self, dsn: str, channel: str, heard: Callable[[str], None], *, opened: Callable[[], None] | None = None
    ) -> None:
        self.name = f"listen-{channel}"
        self._dsn = dsn
        self._channel = channel
        self._heard = heard
        self._opened = opened

    async def run(self, stopping: asyncio.Event) -> None:
        stop = asyncio.create_task(stopping.wait())
        try:
            while not stopping.is_set():
                try:
                    await self._listen(stop)
                except Exception as error:
                    if not is_database_trouble(error):
                        raise
                    log.warning("lose-notifications", channel=self._channel, error=str(error) or type(error).__name__)
                    await asyncio.wait({stop}, timeout=RECONNECT_SECONDS)
        finally:
            stop.cancel()

    async def _listen(self, stop: "asyncio.Task[Any]") -> None:
        lost = asyncio.Event()
        settings = {"application_name": self.name, "tcp_keepalives_idle": "10"}
        connection = await asyncpg.connect(self._dsn, timeout=3, server_settings=settings)
        try:
            connection.add_termination_listener(lambda _connection: lost.set())
            await connection.add_listener(self._channel, self._notified)
            if self._opened is not None:
                self._opened()
            ended = asyncio.create_task(lost.wait())
            await asyncio.wait({stop, ended}, return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
            if not stop.done():
                raise ConnectionResetError("the connection that listens was lost")
        finally:
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                await connection.close(timeout=2)

    def _notified(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        self._heard(str(payload))
