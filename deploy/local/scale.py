"""`make scale leads=3`: another number of replicas, live. Requests go to a replica only while it is ready."""

from collections.abc import Iterable, Sequence
from itertools import count, islice, zip_longest

from deploy.local import gateway
from deploy.local.control import Control
from deploy.local.errors import Refused
from deploy.local.program import Program
from deploy.local.programs import KINDS, Kind, System, kind_of
from deploy.local.progress import say, step
from deploy.local.readiness import health_check, wait_until
from deploy.local.run_lock import exclusive
from deploy.local.settings import Settings

READY_SECONDS = 60


def scale(settings: Settings, wishes: Iterable[str]) -> None:
    """`wishes` are `service=number`. Refused when one can't be had; NoSupervisor when the system does not run."""
    parsed = [_parse(wish) for wish in wishes]
    with exclusive(settings.run):
        control = Control(settings)
        refuse_unless_ready(control)
        system = System.of(control.running_settings())
        for kind, number in parsed:
            running = replicas(control, kind)
            if number > len(running):
                with step(f"Adding {number - len(running)} of {kind.service}"):
                    add(system, control, kind, number - len(running))
            elif number < len(running):
                with step(f"Removing {len(running) - number} of {kind.service}"):
                    remove(system, control, running[number:])
            say(f"  {kind.service} has {number} replica{'s' if number > 1 else ''}.")


def refuse_unless_ready(control: Control) -> None:
    """Refused while the system starts or stops; NoSupervisor when it does not run."""
    if not control.is_ready():
        raise Refused("the system is just starting or stopping: try again when it is done")


def replicas(control: Control, kind: Kind) -> list[Program]:
    """Those of a kind that are kept now, in the order of their start."""
    return [one.program for one in control.programs() if one.program.service == kind.service]


def add(system: System, control: Control, kind: Kind, number: int) -> None:
    """Starts that many more; the gateway hears of them once they are ready."""
    new = _new_replicas(system, control, kind, number)
    _start(system, control, new)
    _announce(system, [one.program for one in control.programs()])


def remove(system: System, control: Control, leaving: list[Program]) -> None:
    """Takes replicas out of the gateway first, then stops them; they finish what they have."""
    names = [program.name for program in leaving]
    _announce(system, [one.program for one in control.programs() if one.program.name not in names])
    for name in names:
        control.stop(name)


def replace(system: System, control: Control, kinds: Sequence[Kind]) -> None:
    """Puts a fresh process, with the settings of now, in the place of each replica: of every kind one after the other."""
    for round_ in zip_longest(*(replicas(control, kind) for kind in kinds)):
        leaving = [program for program in round_ if program is not None]
        new = [_new_replicas(system, control, kind, 1)[0] for kind, old in zip(kinds, round_, strict=True) if old]
        _start(system, control, new)
        remove(system, control, leaving)


def _new_replicas(system: System, control: Control, kind: Kind, number: int) -> list[Program]:
    """That many under the lowest free names."""
    names = {program.name for program in replicas(control, kind)}
    all_of_kind = (system.replica(kind, position) for position in count(1))
    return list(islice((replica for replica in all_of_kind if replica.name not in names), number))


def _start(system: System, control: Control, new: Sequence[Program]) -> None:
    """Starts them and waits until they are well; on failure none of them stays."""
    try:
        for program in new:
            control.start(program)
        checks = {program.name: health_check(program) for program in new}
        wait_until(control, checks, system.settings.logs, READY_SECONDS)
    except BaseException:
        kept = {one.program.name for one in control.programs()}
        for program in new:
            if program.name in kept:
                control.stop(program.name)
        raise


def _parse(wish: str) -> tuple[Kind, int]:
    service, _, number = wish.partition("=")
    kind = kind_of(service)
    if kind is None:
        raise Refused(f"{service} can't be scaled: name one of {', '.join(one.service for one in KINDS)}")
    if not number.isdecimal() or not 1 <= int(number) <= kind.most:
        raise Refused(f"{wish}: {service} can have 1 to {kind.most} replicas here, e.g. make scale {service}=2")
    return kind, int(number)


def _announce(system: System, programs: list[Program]) -> None:
    gateway.route_to(system, programs)
    system.write_health_targets(programs)
