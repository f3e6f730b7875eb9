"""`make scale leads=3`: another number of replicas, live. Requests go to a replica only while it is ready."""

from deploy.local import gateway
from deploy.local.control import Control, Kept
from deploy.local.errors import Refused
from deploy.local.programs import KINDS, Kind, System, kind_of
from deploy.local.progress import step
from deploy.local.readiness import http_check, wait_until
from deploy.local.run_lock import exclusive
from deploy.local.settings import Settings

READY_SECONDS = 60


def scale(settings: Settings, wish: str) -> None:
    """`wish` is `service=number`. Refused when it can't be had; NoSupervisor when the system does not run."""
    kind, number = _parse(wish)
    control = Control(settings)
    if not control.is_ready():
        raise Refused("the system is just starting or stopping: try again when it is done")
    system = System.of(settings)
    with exclusive(settings.run):
        running = [one for one in control.programs() if one.program.service == kind.service]
        if number > len(running):
            with step(f"Adding {number - len(running)} of {kind.service}"):
                _add(system, control, kind, number)
        elif number < len(running):
            with step(f"Removing {len(running) - number} of {kind.service}"):
                remove(system, control, running[number:])


def _parse(wish: str) -> tuple[Kind, int]:
    service, _, number = wish.partition("=")
    kind = kind_of(service)
    if kind is None:
        raise Refused(f"{service} can't be scaled: name one of {', '.join(one.service for one in KINDS)}")
    if not number.isdecimal() or not 1 <= int(number) <= kind.most:
        raise Refused(f"{wish}: {service} can have 1 to {kind.most} replicas here, e.g. make scale {service}=2")
    return kind, int(number)


def _add(system: System, control: Control, kind: Kind, number: int) -> None:
    """Starts the lowest free numbers; the gateway hears of them once they are ready."""
    names = {one.program.name for one in control.programs()}
    replicas = (system.replica(kind, count) for count in range(1, kind.most + 1))
    missing = number - sum(one.program.service == kind.service for one in control.programs())
    new = [replica for replica in replicas if replica.name not in names][:missing]
    for program in new:
        control.start(program)
    try:
        checks = {program.name: http_check(program) for program in new}
        wait_until(control, checks, system.settings.logs, READY_SECONDS)
        _announce(system, control.programs())
    except BaseException:
        for program in new:
            control.stop(program.name)
        raise


def remove(system: System, control: Control, leaving: list[Kept]) -> None:
    """Takes replicas out of the gateway first, then stops them; they finish what they have."""
    names = {one.program.name for one in leaving}
    _announce(system, [one for one in control.programs() if one.program.name not in names])
    for name in names:
        control.stop(name)


def _announce(system: System, kept: list[Kept]) -> None:
    programs = [one.program for one in kept]
    gateway.route_to(system, programs)
    system.write_health_targets(programs)
