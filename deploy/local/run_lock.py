"""One command at a time changes what runs in a state folder."""

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deploy.local.errors import Refused

GIVE_WAY_SECONDS = 60


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Holds the lock. Refused when another command has it; the kernel frees it when its holder dies."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not _try(descriptor):
            raise Refused("another command is changing this system now: wait for it, or end it with `make stop`")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)  # the next holder must not be taken for this one
    finally:
        os.close(descriptor)


def break_off_holder(folder: Path, seconds: float = GIVE_WAY_SECONDS) -> bool:
    """Asks the command that holds the lock to clean up and end, and waits for it; False when none holds it."""
    try:
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        deadline = time.monotonic() + seconds
        asked = None
        while not _try(descriptor):
            holder = os.pread(descriptor, 32, 0).strip()
            if holder and holder != asked:  # empty: it has only just taken the lock
                with suppress(ProcessLookupError):  # it ends just now
                    os.kill(int(holder), signal.SIGTERM)
                asked = holder
            if time.monotonic() > deadline:
                raise Refused(f"the command that runs now did not end in {seconds:.0f} s: try again")
            time.sleep(0.05)
        return asked is not None
    finally:
        os.close(descriptor)


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
