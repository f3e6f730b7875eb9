"""How much memory processes take: the proportional set size, in which shared pages are shared out."""

from collections import defaultdict
from pathlib import Path

BYTES_PER_KIB = 1024


def families(pids: list[int]) -> dict[int, list[int]]:
    """For each pid itself and all its descendants: PostgreSQL's backends, nginx's workers."""
    children: dict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            children[_parent(entry)].append(int(entry.name))
    return {pid: _with_descendants(pid, children) for pid in pids}


def pss_bytes(pids: list[int]) -> int:
    """The sum of the processes' PSS; those that ended or may not be looked at count nothing."""
    return sum(_pss(Path(f"/proc/{pid}/smaps_rollup")) for pid in pids)


def _with_descendants(pid: int, children: dict[int, list[int]]) -> list[int]:
    found = [pid]
    for child in children.get(pid, ()):
        found += _with_descendants(child, children)
    return found


def _parent(entry: Path) -> int:
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _pss(rollup: Path) -> int:
    try:
        for line in rollup.read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * BYTES_PER_KIB
    except OSError:
        return 0
    return 0
