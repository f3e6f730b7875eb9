"""`make status`: what runs, how it is, and the figures that were measured."""

from collections import Counter
from collections.abc import Sequence

from deploy.local.control import Control, Kept
from deploy.local.figures import lines as figure_lines
from deploy.local.memory import families, pss_bytes
from deploy.local.programs import SIMULATOR, System, kind_of
from deploy.local.progress import say
from deploy.local.readiness import status_of
from deploy.local.servers.ports import is_open
from deploy.local.settings import Settings
from deploy.local.supervisor import PID_FILE, READY

HEADINGS = ("PROCESS", "REPLICAS", "PID", "PORT", "MEMORY", "RESTARTS", "HEALTH")
RIGHT_ALIGNED = frozenset({"REPLICAS", "PID", "PORT", "MEMORY", "RESTARTS"})
MEGABYTE = 1_000_000


def show(settings: Settings) -> None:
    """Prints the table and the figures. NoSupervisor when nothing runs."""
    control = Control(settings)
    settings = control.running_settings()
    phase = control.phase()
    kept = control.programs()
    supervisor = int((settings.run / PID_FILE).read_text())
    memory = {pid: pss_bytes(family) for pid, family in families([one.pid for one in kept if one.pid]).items()}
    memory[supervisor] = pss_bytes([supervisor])
    counts = Counter(one.program.service for one in kept)
    system = System.of(settings)
    rows = [_row(one, counts[one.program.service], memory, system) for one in kept]
    rows.append(("supervisor", "1", str(supervisor), "-", _megabytes(memory[supervisor]), "-", phase))
    _print_table(rows)
    say()
    say(f"Address {settings.address}   memory of all {_megabytes(sum(memory.values()))}   state {settings.state}")
    if phase != READY:
        say("It is not ready: another command starts or stops it just now.")
    for line in figure_lines(settings):
        say(line)


def _row(kept: Kept, replicas: int, memory: dict[int, int], system: System) -> tuple[str, ...]:
    program = kept.program
    size = _megabytes(memory[kept.pid]) if kept.pid else "-"
    health = _health(kept, system) if kept.pid else "restarting"
    pid = str(kept.pid or "-")
    return (program.name, str(replicas), pid, str(program.port or "-"), size, str(kept.restarts), health)


def _health(kept: Kept, system: System) -> str:
    program = kept.program
    if kind_of(program.service) is None and program.service != SIMULATOR:
        checks = {
            "postgresql": system.postgresql.is_ready,
            "rabbitmq": system.rabbitmq.is_ready,
            "redis": system.redis.is_ready,
        }
        check = checks.get(program.service)
        answers = check() if check else program.port is not None and is_open(program.port)
        return "ready" if answers else "not answering"
    match status_of(program):
        case 200:
            return "ready"
        case None:
            return "not answering"
        case status:
            return f"not ready ({status})"


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    table = [HEADINGS, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(HEADINGS))]
    for row in table:
        cells = (
            cell.rjust(width) if heading in RIGHT_ALIGNED else cell.ljust(width)
            for cell, width, heading in zip(row, widths, HEADINGS, strict=True)
        )
        say("  ".join(cells).rstrip())


def _megabytes(size: int) -> str:
    return f"{size / MEGABYTE:.0f} MB"
