"""`make scale leads=3`: another number of replicas, live. Requests go to a replica only while it is ready."""

from collections.abc import Iterable
from itertools import count, islice

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
        system = System.of(settings)
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
    """Starts that many more under the lowest free names; the gateway hears of them once they are ready."""
    names = {program.name for program in replicas(control, kind)}
    free = (
        replica for replica in (system.replica(kind, position) for position in count(1)) if replica.name not in names
    )
    new = list(islice(free, number))
    try:
        for program in new:
            control.start(program)
        checks = {program.name: health_check(program) for program in new}
        wait_until(control, checks, system.settings.logs, READY_SECONDS)
        _announce(system, [one.program for one in control.programs()])
    except BaseException:
        kept = {one.program.name for one in control.programs()}
        for program in new:
            if program.name in kept:
                control.stop(program.name)
        raise


def remove(system: System, control: Control, leaving: list[Program]) -> None:
    """Takes replicas out of the gateway first, then stops them; they finish what they have."""
    names = [program.name for program in leaving]
    _announce(system, [one.program for one in control.programs() if one.program.name not in names])
    for name in names:
        control.stop(name)


def replace(system: System, control: Control, kind: Kind) -> None:
    """Puts a fresh process, with the settings of now, in the place of each replica, one after the other."""
    for old in replicas(control, kind):
        add(system, control, kind, 1)
        remove(system, control, [old])


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
