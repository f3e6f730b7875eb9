"""Keeps programs running: starts them, restarts what dies, stops them in order. One process, told what to do over a socket.

    python -m deploy.local.supervisor RUN_FOLDER

It is started by `make run` with a pipe as its standard input. Until it was told that the system is ready, the end of
that pipe (the starter died) makes it stop everything: a start broken off leaves nothing running.

The socket is in a folder only its owner may enter: who can write to it can run programs. A request is one line of JSON,
`{"do": "start", …}`, so is the answer: `{"ok": …}` or `{"error": "…"}`.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from deploy.local.keeper import Keeper
from deploy.local.log_files import rotate
from deploy.local.program import Program

SOCKET = "supervisor.sock"
PID_FILE = "supervisor.pid"
STARTING, READY, STOPPING = "starting", "ready", "stopping"
ROTATE_EVERY_SECONDS = 10
REQUEST_LIMIT_BYTES = 1_048_576


class Supervisor:
    """The programs by name, and the phase: starting, ready, stopping."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.phase = STARTING
        self.keepers: dict[str, Keeper] = {}
        self.ended = asyncio.Event()
        self._commands: dict[str, Callable[[dict[str, Any]], Awaitable[Any]]] = {
            "start": self._start,
            "stop": self._stop,
            "list": self._list,
            "ready": self._ready,
            "shutdown": self._shutdown,
        }

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection: one request, one answer."""
        try:
            request = json.loads(await reader.readline())
            answer = {"ok": await self._commands[request["do"]](request)}
        except (ValueError, KeyError, TypeError, OSError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        try:
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        except ConnectionError:
            pass  # the asker went away; what was asked for is done all the same
        finally:
            writer.close()
        if self.phase == STOPPING and not self.keepers:
            self.ended.set()

    async def stop_everything(self) -> None:
        """Stops stage after stage, the programs of a stage at once."""
        self.phase = STOPPING
        for stage in sorted({keeper.program.stage for keeper in self.keepers.values()}, reverse=True):
            names = [name for name, keeper in self.keepers.items() if keeper.program.stage == stage]
            await asyncio.gather(*(self._stop({"name": name}) for name in names))

    async def leave(self) -> None:
        """Stops everything and ends the supervisor."""
        await self.stop_everything()
        self.ended.set()

    async def _start(self, request: dict[str, Any]) -> int:
        program = Program.from_json(request["program"])
        if self.phase == STOPPING:
            raise ValueError("the system is stopping")
        if program.name in self.keepers:
            raise ValueError(f"{program.name} runs already")
        keeper = Keeper(program, self.folder)
        self.keepers[program.name] = keeper
        try:
            return await keeper.start()
        except OSError:
            del self.keepers[program.name]
            raise

    async def _stop(self, request: dict[str, Any]) -> None:
        keeper = self.keepers[request["name"]]
        await keeper.stop()
        self.keepers.pop(request["name"], None)

    async def _list(self, _request: dict[str, Any]) -> dict[str, Any]:
        return {"phase": self.phase, "programs": [keeper.to_json() for keeper in self.keepers.values()]}

    async def _ready(self, _request: dict[str, Any]) -> None:
        self.phase = READY

    async def _shutdown(self, _request: dict[str, Any]) -> None:
        await self.stop_everything()


async def _watch_starter(supervisor: Supervisor) -> None:
    """Returns when the system is ready; stops everything if the starter died before."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()
    if supervisor.phase == STARTING:
        await supervisor.leave()


async def _rotate_logs(supervisor: Supervisor) -> None:
    while True:
        await asyncio.sleep(ROTATE_EVERY_SECONDS)
        for folder in {Path(keeper.program.log).parent for keeper in supervisor.keepers.values()}:
            rotate(folder)


async def run(folder: Path) -> None:
    """Serves until told to shut down, or until SIGTERM or SIGINT."""
    supervisor = Supervisor(folder)
    loop = asyncio.get_running_loop()
    leaving: set[asyncio.Task[None]] = set()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: leaving.add(loop.create_task(supervisor.leave())))
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    os.chdir(folder)  # a socket's whole path may have at most 107 bytes
    Path(SOCKET).unlink(missing_ok=True)
    server = await asyncio.start_unix_server(supervisor.answer, SOCKET, limit=REQUEST_LIMIT_BYTES)
    Path(PID_FILE).write_text(f"{os.getpid()}\n")
    chores = [asyncio.create_task(_watch_starter(supervisor)), asyncio.create_task(_rotate_logs(supervisor))]
    await supervisor.ended.wait()
    for chore in chores:
        chore.cancel()
    server.close()
    Path(SOCKET).unlink(missing_ok=True)
    Path(PID_FILE).unlink(missing_ok=True)


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1])))
