"""Talks to a state folder's supervisor; starts it too."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from deploy.local.errors import Refused
from deploy.local.program import GATEWAY, Program
from deploy.local.servers.launch import MARKER
from deploy.local.settings import REPOSITORY, Settings
from deploy.local.supervisor import READY, SOCKET

START_SECONDS = 10
SHUTDOWN_SECONDS = 150  # four stages of at most 30 s, and some room


@dataclass(frozen=True)
class Kept:
    """A program under the supervisor, and how it fares."""

    program: Program
    pid: int | None
    restarts: int
    uptime_seconds: float


class NoSupervisor(Exception):
    """Nothing answers on the state folder's socket: the system does not run."""


class Control:
    """The supervisor of one state folder."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def spawn(self) -> "subprocess.Popen[bytes]":
        """Starts the supervisor. It stops everything when this process ends before `ready`; keep the result alive."""
        with (self._settings.logs / "supervisor.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "deploy.local.supervisor", str(self._settings.run)],
                cwd=REPOSITORY,
                env={
                    **os.environ,
                    MARKER: str(self._settings.state),
                    "PYTHONPYCACHEPREFIX": str(self._settings.bytecode),
                },
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.runs():
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise Refused(f"the supervisor did not start: see {log.name}")
            time.sleep(0.02)
        return process

    def runs(self) -> bool:
        """Whether a supervisor answers."""
        try:
            self._ask({"do": "list"})
        except NoSupervisor:
            return False
        return True

    def is_ready(self) -> bool:
        """Whether the last start was finished. NoSupervisor when nothing runs."""
        return self.phase() == READY

    def phase(self) -> str:
        """starting, ready or stopping. NoSupervisor when nothing runs."""
        return str(self._ask({"do": "list"})["phase"])

    def programs(self) -> list[Kept]:
        """What it keeps, in the order of their start. NoSupervisor when nothing runs."""
        return [
            Kept(Program.from_json(one["program"]), one["pid"], one["restarts"], one["uptime_seconds"])
            for one in self._ask({"do": "list"})["programs"]
        ]

    def running_settings(self) -> Settings:
        """The settings with the port that the gateway has, whatever PORT says now. NoSupervisor when nothing runs."""
        ports = (one.program.port for one in self.programs() if one.program.stage == GATEWAY)
        return dataclasses.replace(self._settings, port=next(ports, None) or self._settings.port)

    def start(self, program: Program) -> None:
        self._ask({"do": "start", "program": program.to_json()})

    def stop(self, name: str) -> None:
        """Returns when the program is gone."""
        self._ask({"do": "stop", "name": name})

    def mark_ready(self) -> None:
        self._ask({"do": "ready"})

    def shutdown(self) -> None:
        """Stops everything, the supervisor last."""
        self._ask({"do": "shutdown"})

    def _ask(self, request: dict[str, Any]) -> Any:
        try:
            folder = os.open(self._settings.run, os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError as error:
            raise NoSupervisor from error
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(SHUTDOWN_SECONDS)
                connection.connect(f"/proc/self/fd/{folder}/{SOCKET}")  # a socket's path may have at most 107 bytes
                connection.sendall(json.dumps(request).encode() + b"\n")
                answer = json.loads(connection.makefile("rb").readline())
        except (ConnectionError, FileNotFoundError, TimeoutError, ValueError) as error:
            raise NoSupervisor from error
        finally:
            os.close(folder)
        if "error" in answer:
            raise Refused(f"the supervisor could not {request['do']}: {answer['error']}")
        return answer["ok"]
