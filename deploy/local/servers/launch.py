"""What a server is to those who start it, and how to start and stop one directly, without a supervisor."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

MARKER = "AO_STATE_DIR"
"""Environment variable carried by every process started below a state folder; `make stop` finds orphans by it."""

LOG_TAIL_LINES = 12
SHARED_SETTINGS = Path(__file__).parents[2] / "servers"


class ServerFailed(RuntimeError):
    """A server ended before it was ready, or was not ready in time."""


@dataclass(frozen=True)
class Command:
    """A program to run in the foreground. `env` is its whole environment."""

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]


class Server(Protocol):
    """A private server. `prepare` is idempotent: it writes the settings, and the first time the data too."""

    @property
    def name(self) -> str: ...
    @property
    def folder(self) -> Path: ...
    @property
    def stop_signal(self) -> signal.Signals: ...
    def prepare(self) -> None: ...
    def command(self) -> Command: ...
    def is_ready(self) -> bool: ...


@dataclass(frozen=True)
class Launched:
    """A server that was started directly, with where its output goes."""

    server: Server
    process: "subprocess.Popen[bytes]" = field(repr=False)
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid


def base_environment(folder: Path, **more: str) -> dict[str, str]:
    """The environment of a server: nothing of the caller's but its PATH, so that no RABBITMQ_* or PG* leaks in."""
    path = os.environ.get("PATH", "/usr/bin:/bin")
    return {"PATH": path, "LANG": "C.UTF-8", "HOME": str(folder), MARKER: str(folder), **more}


def shared_settings(name: str) -> str:
    """What a server is told wherever it runs, as lines of its own settings file."""
    return (SHARED_SETTINGS / f"{name}.conf").read_text()


def private_folder(path: Path) -> Path:
    """Makes the folder, and its parents, readable by its owner only."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def private_file(path: Path, text: str) -> None:
    """Writes a file that only its owner may read, never readable by others for an instant; the old one stays whole."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)


def launch(server: Server, log_folder: Path) -> Launched:
    """Prepares and starts a server in its own session; its pid goes to `<folder>/<name>.pid`. See `wait_ready`."""
    server.prepare()
    command = server.command()
    log = private_folder(log_folder) / f"{server.name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            command.argv,
            cwd=command.cwd,
            env=dict(command.env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    (server.folder / f"{server.name}.pid").write_text(f"{process.pid}\n")
    return Launched(server, process, log)


def wait_ready(*launched: Launched, seconds: float = 60) -> None:
    """Returns when every server answers. ServerFailed names the one that ended or was too slow, and shows its log."""
    deadline = time.monotonic() + seconds
    waiting = list(launched)
    while waiting:
        one = waiting[0]
        if one.process.poll() is not None:
            raise ServerFailed(f"{one.server.name} ended with code {one.process.returncode}:\n{log_tail(one.log)}")
        if one.server.is_ready():
            waiting.pop(0)
        elif time.monotonic() > deadline:
            raise ServerFailed(f"{one.server.name} was not ready in {seconds:.0f} s:\n{log_tail(one.log)}")
        else:
            time.sleep(0.05)


def stop(one: Launched, seconds: float = 20) -> None:
    """Asks the server to stop cleanly; kills it, with everything in its session, when it does not in time."""
    if one.process.poll() is None:
        one.process.send_signal(one.server.stop_signal)
        try:
            one.process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(one.process.pid, signal.SIGKILL)
            one.process.wait()
    (one.server.folder / f"{one.server.name}.pid").unlink(missing_ok=True)


def log_tail(log: Path) -> str:
    """The last lines of a log, to show beside an error."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
