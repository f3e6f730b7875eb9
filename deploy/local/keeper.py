"""Keeps one program running, and ends it for good when asked."""

import asyncio
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from deploy.local.program import Program

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 10.0
HEALTHY_AFTER_SECONDS = 30.0


class Keeper:
    """One program: its process, restarted with growing pauses whenever it ends by itself."""

    def __init__(self, program: Program, run_folder: Path) -> None:
        self.program = program
        self.restarts = 0
        self._pid_file = run_folder / f"{program.name}.pid"
        self._process: asyncio.subprocess.Process | None = None
        self._started = 0.0
        self._stopping = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Starts the process and keeps it; returns its pid. OSError when it can't be started."""
        pid = await self._spawn()
        self._keeping = asyncio.create_task(self._keep())
        return pid

    async def stop(self) -> None:
        """Asks the process to stop, kills it when it does not in time, and returns when it is gone."""
        self._stopping.set()
        self._signal(self.program.stop_signal)
        if self._keeping is not None:
            done, _ = await asyncio.wait({self._keeping}, timeout=self.program.stop_seconds)
            if not done and self._process is not None:
                _signal_group(self._process.pid, signal.SIGKILL)
            await self._keeping
        self._pid_file.unlink(missing_ok=True)

    def to_json(self) -> dict[str, Any]:
        """The program and how it fares; `pid` is None while it waits for its restart."""
        alive = self._process is not None and self._process.returncode is None
        return {
            "program": self.program.to_json(),
            "pid": self._process.pid if alive and self._process else None,
            "restarts": self.restarts,
            "uptime_seconds": time.monotonic() - self._started,
        }

    async def _keep(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            await self._wait_end()
            if time.monotonic() - self._started > HEALTHY_AFTER_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            if await self._stopped_within(pause):
                return
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            self.restarts += 1
            try:
                await self._spawn()
            except OSError as error:
                self._write_log(f"supervisor: {self.program.name} can't be started: {error}\n")

    async def _wait_end(self) -> None:
        """Waits for the process; what it left in its session (nginx's workers) would be in the next one's way."""
        if self._process is None:
            return
        code = await self._process.wait()
        _signal_group(self._process.pid, signal.SIGKILL)
        if not self._stopping.is_set():
            self._write_log(f"supervisor: {self.program.name} (pid {self._process.pid}) ended with code {code}\n")

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def _spawn(self) -> int:
        self._process = None
        self._started = time.monotonic()
        log = os.open(self.program.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self.program.argv,
                cwd=self.program.cwd,
                env=dict(self.program.env),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        finally:
            os.close(log)
        with suppress(OSError):  # on a full disk the process runs all the same
            self._pid_file.write_text(f"{self._process.pid}\n")
        if self._stopping.is_set():  # asked to stop while this process was being made
            self._signal(self.program.stop_signal)
        return self._process.pid

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    def _write_log(self, line: str) -> None:
        with suppress(OSError), open(self.program.log, "a") as log:  # a full disk must not end the keeping
            log.write(line)


def _signal_group(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return
