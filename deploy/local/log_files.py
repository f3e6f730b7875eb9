"""Log files of bounded size. The processes hold them open for appending, so a full one is copied and emptied in place."""

import os
import shutil
from pathlib import Path

NOISE = ("supervisor:", "For further information visit")
LARGEST_BYTES = 20 * 1024 * 1024


def rotate(folder: Path, largest_bytes: int = LARGEST_BYTES) -> None:
    """Moves the content of each log of the folder, and of those in it, above the size to `NAME.log.1`, which it replaces.

    Lines written between the copy and the emptying are lost; that is the price of not having the processes reopen.
    On a full disk there is no copy: the log is emptied all the same.
    """
    for log in folder.rglob("*.log"):
        if log.stat().st_size > largest_bytes:
            kept = log.with_name(log.name + ".1")
            try:
                shutil.copyfile(log, kept)
            except OSError:
                kept.unlink(missing_ok=True)
            os.truncate(log, 0)


def tail(log: Path, lines: int = 12, most_bytes: int = 64 * 1024) -> list[str]:
    """The last lines of a log; [] when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - most_bytes))
            return file.read().decode(errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        return []


def last_words(log: Path) -> str:
    """The last line of a log that says something, and where the rest is: for an error of one line."""
    said = [line.strip() for line in tail(log) if line.strip() and not line.strip().startswith(NOISE)]
    return f"{said[-1][:200] if said else 'it said nothing'}; see {log}"
