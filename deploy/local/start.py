"""Starts the system: says what it will do, makes what is missing, starts the parts side by side, waits until all work."""

import time
from dataclasses import dataclass

from deploy.local import checks, databases, gateway, orphans, packages, seeding
from deploy.local.control import Control
from deploy.local.environment import RUN_LOCK, Environment
from deploy.local.errors import Refused
from deploy.local.programs import System, kind_of
from deploy.local.progress import say, step
from deploy.local.readiness import health_check, http_check, wait_until
from deploy.local.settings import Settings
from deploy.local.stop import stop_everything

SERVERS_READY_SECONDS = 90
SERVICES_READY_SECONDS = 120


def refuse_leftovers(settings: Settings) -> None:
    """Refused when an earlier start was broken off; what it left is stopped first."""
    if Control(settings).runs() or orphans.processes_of(settings.state, but=[settings.tests]):
        stop_everything(settings)
        raise Refused("an earlier start was broken off; what it left running has been stopped: run this again")


def announce(settings: Settings, absent: list[packages.Package], environment: Environment) -> None:
    """What will be installed and where, before anything is."""
    say("Automation Orchestrator on this machine")
    packages.announce(absent)
    ready = environment.has(RUN_LOCK)
    say(f"  Python packages: {'nothing to install' if ready else f'{RUN_LOCK.name}'}, in {environment.folder}")
    say(f"  everything else: data, secrets, logs in {settings.state}")
    say(f"  address:         {settings.address}, other ports on 127.0.0.1 below 32768")


@dataclass(frozen=True)
class Started:
    """A system that was just brought up. `is_cold`: something had to be installed, or the databases were new."""

    system: System
    seconds: float
    is_cold: bool


def start(settings: Settings) -> Started:
    """Brings the whole system up. On any failure nothing is left running."""
    began = time.monotonic()
    absent = packages.missing()
    environment = Environment.of(settings)
    announce(settings, absent, environment)
    is_cold = bool(absent) or not environment.has(RUN_LOCK) or not (settings.servers / "postgresql" / "data").exists()
    checks.check_port(settings.port)
    checks.check_space(settings.state, checks.SPACE_TO_INSTALL_MIB if is_cold else checks.SPACE_TO_RUN_MIB)
    packages.install(absent, settings)
    environment.install(RUN_LOCK, settings, in_use=False)
    control = Control(settings)
    supervisor = control.spawn()
    try:
        system = System.of(settings)
        system.ports.renew_taken()
        _start_servers(system, control)
        _start_services(system, control)
        seeding.seed_samples(system)
        control.mark_ready()
    except BaseException:
        say("  Stopping what was started.")
        stop_everything(settings)
        raise
    finally:
        if supervisor.stdin is not None:
            supervisor.stdin.close()
    return Started(system, time.monotonic() - began, is_cold)


def _start_servers(system: System, control: Control) -> None:
    """Servers side by side; databases are made and migrated while RabbitMQ, the slowest, still starts."""
    postgresql, logs = system.postgresql, system.settings.logs
    with step("Starting PostgreSQL, RabbitMQ and Redis"):
        for program in system.server_programs():
            control.start(program)
        wait_until(control, {"postgresql": postgresql.is_ready}, logs, SERVERS_READY_SECONDS)
    with step("Bringing the databases up to date"):
        databases.bring_up_to_date(system)
    with step("Waiting for RabbitMQ"):  # services that find it there need not try again
        wait_until(
            control, {"rabbitmq": system.rabbitmq.is_ready, "redis": system.redis.is_ready}, logs, SERVERS_READY_SECONDS
        )


def _start_services(system: System, control: Control) -> None:
    programs = system.programs()
    with step(f"Starting the gateway, {len(programs)} services, workers and the simulator"):
        system.write_health_targets(programs)
        control.start(gateway.prepare(system, programs))
        for program in programs:
            control.start(program)
        seeding.seed_databases(system)
        checks_of = {one.name: health_check(one) if kind_of(one.service) else http_check(one) for one in programs}
        wait_until(control, checks_of, system.settings.logs, SERVICES_READY_SECONDS)
