"""Tells the user what is being done and for how long: nothing takes more than two seconds in silence."""

import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

TICK_SECONDS = 1.0
PLAIN_TICK_SECONDS = 2.0  # where lines can't be overwritten
ROOM_FOR_SECONDS = 12
CLEAR_LINE = "\r\033[K"


def say(text: str = "") -> None:
    """One line for the user, at once."""
    print(text, flush=True)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Shows `what` with the seconds since its start, and how it ended."""
    started = time.monotonic()
    ended = threading.Event()
    ticker = threading.Thread(target=_tick, args=(what, started, ended), daemon=True)
    ticker.start()
    outcome = "failed after"
    try:
        yield
        outcome = "done in"
    finally:
        ended.set()
        ticker.join()
        seconds = time.monotonic() - started
        clear = CLEAR_LINE if sys.stdout.isatty() else ""
        say(f"{clear}  {what}: {outcome} {seconds:.1f} s")


def _tick(what: str, started: float, ended: threading.Event) -> None:
    overwrite = sys.stdout.isatty()
    # A line longer than the terminal is wide could not be overwritten.
    shown = what[: shutil.get_terminal_size().columns - ROOM_FOR_SECONDS] if overwrite else what
    if overwrite:
        print(f"  {shown} …", end="", flush=True)
    announced = overwrite
    while not ended.wait(TICK_SECONDS if overwrite else PLAIN_TICK_SECONDS):
        seconds = time.monotonic() - started
        if overwrite:
            print(f"{CLEAR_LINE}  {shown} … {seconds:.0f} s", end="", flush=True)
        else:
            say(f"    … {seconds:.0f} s" if announced else f"  {what} … {seconds:.0f} s")
            announced = True
