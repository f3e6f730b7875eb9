"""Finds and ends every process that belongs to a state folder, whatever started it and whoever died meanwhile.

A process belongs to the folder when its environment carries the folder's marker, or, since PostgreSQL, Redis and nginx
write their titles over their environment, when it works in that folder and is one of the servers' programs.
"""

import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from deploy.local.servers.launch import MARKER

SERVER_PROGRAMS = frozenset(
    {"postgres", "redis-server", "nginx", "epmd", "beam.smp", "erl_child_setup", "inet_gethost"}
)
STOP_SIGNALS = {"postgres": signal.SIGINT, "nginx": signal.SIGQUIT}


def processes_of(folder: Path, *, but: Iterable[Path] = ()) -> list[int]:
    """Pids of the living processes of `folder`, except those of the folders `but` below it and this process itself."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            home = _home(entry)
            if home and _below(home, folder) and not any(_below(home, other) for other in but):
                found.append(int(entry.name))
    return sorted(found)


def end(pids: list[int], seconds: float) -> list[int]:
    """Asks the processes to stop, waits, kills those that did not. Returns the pids that had to be killed."""
    for pid in pids:
        _signal(pid, STOP_SIGNALS.get(_program(Path(f"/proc/{pid}")), signal.SIGTERM))
    late = wait_gone(pids, seconds)
    for pid in late:
        _signal(pid, signal.SIGKILL)
    wait_gone(late, 5)
    return late


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that ended and was not yet collected by its parent does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def _home(entry: Path) -> Path | None:
    """The folder a process belongs to, or None."""
    try:
        environment = (entry / "environ").read_bytes()
        wanted = f"{MARKER}=".encode()
        for variable in environment.split(b"\0"):
            if variable.startswith(wanted):
                return Path(os.fsdecode(variable.removeprefix(wanted)))
        if _program(entry) in SERVER_PROGRAMS:
            return Path(os.readlink(entry / "cwd"))
    except OSError:  # it ended meanwhile, or is another user's
        return None
    return None


def _program(entry: Path) -> str:
    try:
        return (entry / "comm").read_text().strip()
    except OSError:
        return ""


def _below(path: Path, folder: Path) -> bool:
    return path == folder or folder in path.parents


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def wait_gone(pids: list[int], seconds: float) -> list[int]:
    """Waits at most that long; returns the pids that are still there."""
    deadline = time.monotonic() + seconds
    left = [pid for pid in pids if is_alive(pid)]
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = [pid for pid in left if is_alive(pid)]
    return left
