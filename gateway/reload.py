"""Gives a running gateway other replicas, without a failed request.

On SIGHUP nginx's old worker closes its idle client connections at once. A client that is just writing its next request
on one of them gets a reset: under load that was 12 to 24 lost requests for each reload (nginx 1.22, 50 busy
connections); only nginx 1.27.4 has a remedy of its own (`keepalive_min_timeout`). So for half a second before it every
answer says `Connection: close` (snippets/pass.conf looks for a flag file), busy clients come back on new connections,
and there is nothing left to drop.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from gateway.render import CLOSING_FLAG, UPSTREAMS_FILE, nginx_command, upstreams

SETTLE_SECONDS = 0.5
RELOAD_SECONDS = 10.0


class ReloadRefused(Exception):
    """nginx did not take the new replicas; it goes on with those it had."""


def change_replicas(destination: Path, pid_path: Path, replicas: Mapping[str, Sequence[str]]) -> bool:
    """Write the replicas into the rendered configuration and make the running nginx use them; False when none runs.

    Returns once requests go to the new replicas only (those in flight finish on the old ones): a replica that was left
    out may be stopped then. Takes about a second. Raises ValueError as `upstreams` does, and ReloadRefused when nginx
    keeps the old list.
    """
    listed = destination / UPSTREAMS_FILE
    before = listed.read_text()
    _write(listed, upstreams(replicas))
    master = _running(pid_path)
    if master is None:
        return False
    try:
        _check(destination)
        _reload(destination / CLOSING_FLAG, master)
    except ReloadRefused:
        _write(listed, before)
        raise
    return True


def _write(path: Path, text: str) -> None:
    """Replace a file whole, so that an nginx that starts at this moment reads the one or the other."""
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    new.replace(path)


def _running(pid_path: Path) -> int | None:
    try:
        pid = int(pid_path.read_text())
        os.kill(pid, 0)
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return None
    return pid


def _check(destination: Path) -> None:
    check = subprocess.run(nginx_command(destination, "-t"), capture_output=True, text=True, check=False)  # noqa: S603 - our own command line
    if check.returncode != 0:
        raise ReloadRefused(check.stderr.strip())


def _reload(flag: Path, master: int) -> None:
    old = _workers(master)
    flag.touch()
    try:
        time.sleep(SETTLE_SECONDS)
        os.kill(master, signal.SIGHUP)
        deadline = time.monotonic() + RELOAD_SECONDS
        while not _taken_over(master, old):
            if time.monotonic() > deadline:
                raise ReloadRefused(f"nginx {master} did not start new workers; see its error log")
            time.sleep(0.02)
    except ProcessLookupError as ended:
        raise ReloadRefused(f"nginx {master} ended during the reload") from ended
    finally:
        flag.unlink(missing_ok=True)


def _workers(master: int) -> set[int]:
    """The pids of nginx's workers. Linux only, as the deployments are."""
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    return {int(pid) for pid in children}


def _taken_over(master: int, old: set[int]) -> bool:
    """Whether new workers run and every old one has stopped accepting connections (its title says so)."""
    now = _workers(master)
    return bool(now - old) and all(_is_leaving(pid) for pid in old & now)


def _is_leaving(worker: int) -> bool:
    try:
        return b"shutting down" in Path(f"/proc/{worker}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return True
