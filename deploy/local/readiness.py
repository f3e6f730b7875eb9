"""Waits until what was started does its work, and says which part does not."""

import http.client
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from deploy.local.control import Control
from deploy.local.errors import Refused
from deploy.local.log_files import last_words
from deploy.local.program import Program

GIVE_UP_AFTER_RESTARTS = 3
ASK_SECONDS = 2


def wait_until(control: Control, checks: Mapping[str, Callable[[], bool]], logs: Path, seconds: float) -> None:
    """Returns when every check, by program name, was true once. Refused for one that keeps dying or takes too long."""
    deadline = time.monotonic() + seconds
    waiting = dict(checks)
    while waiting:
        waiting = {name: check for name, check in waiting.items() if not check()}
        for kept in control.programs():
            if kept.program.name in waiting and kept.restarts >= GIVE_UP_AFTER_RESTARTS:
                raise Refused(f"{kept.program.name} does not start ({last_words(Path(kept.program.log))})")
        if waiting and time.monotonic() > deadline:
            name = next(iter(waiting))
            raise Refused(f"{name} was not ready after {seconds:.0f} s ({last_words(logs / f'{name}.log')})")
        if waiting:
            time.sleep(0.05)


def http_check(program: Program, path: str = "/health/ready") -> Callable[[], bool]:
    """Whether a process answers 200: it does its work, perhaps without some server it can do without."""
    return lambda: status_of(program, path) == 200


def health_check(program: Program) -> Callable[[], bool]:
    """Whether a process reports itself and all it depends on to be well."""
    return lambda: b'"status":"ok"' in _get(program, "/health/detailed")[1][:64]


def status_of(program: Program, path: str = "/health/ready") -> int | None:
    """The HTTP status a process answers with, None when it does not."""
    return _get(program, path)[0]


def _get(program: Program, path: str) -> tuple[int | None, bytes]:
    if program.port is None:
        return None, b""
    connection = http.client.HTTPConnection("127.0.0.1", program.port, timeout=ASK_SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return None, b""
    finally:
        connection.close()
