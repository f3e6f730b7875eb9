"""Ends everything of a state folder: through its supervisor when there is one, and whatever is left without."""

import os
import shutil
import signal

from deploy.local import orphans
from deploy.local.checks import is_state_folder
from deploy.local.control import Control, NoSupervisor
from deploy.local.errors import Refused
from deploy.local.progress import say, step
from deploy.local.run_lock import break_off_holder
from deploy.local.settings import Settings
from deploy.local.supervisor import PID_FILE

STOP_SECONDS = 30
SUPERVISOR_SECONDS = 2


def stop(settings: Settings) -> None:
    """Stops the system, a start that is under way, and every process that an earlier one left."""
    broken_off = break_off_holder(settings.run)
    say("Stopped." if stop_everything(settings) or broken_off else "Nothing runs.")


def stop_everything(settings: Settings) -> bool:
    """Ends every process of the folder but those of test runs; False when there was none."""
    supervisor = _supervisor_pid(settings)
    found = _ask_supervisor(settings)
    if supervisor is not None and orphans.wait_gone([supervisor], SUPERVISOR_SECONDS):
        os.kill(supervisor, signal.SIGKILL)  # one that hangs must not restart what is being ended
    left = orphans.processes_of(settings.state, but=[settings.tests])
    if left:
        with step(f"Ending {len(left)} processes that an earlier start left"):
            orphans.end(left, STOP_SECONDS)
    for pid_file in settings.run.glob("*.pid"):
        pid_file.unlink(missing_ok=True)
    return found or bool(left)


def clean(settings: Settings) -> None:
    """Stops everything, test runs too, and removes the state folder. Refused when that is not one of ours."""
    if not settings.state.exists():
        say("Nothing to remove.")
        return
    if not is_state_folder(settings.state):
        raise Refused(f"{settings.state} was not made by this program: remove it yourself")
    stop(settings)
    orphans.end(orphans.processes_of(settings.state), STOP_SECONDS)
    with step(f"Removing {settings.state}"):
        shutil.rmtree(settings.state)


def _ask_supervisor(settings: Settings) -> bool:
    control = Control(settings)
    try:
        if not control.runs():
            return False
        with step("Stopping"):
            control.shutdown()
    except (NoSupervisor, Refused):
        say("  The supervisor did not finish; its processes are ended one by one.")
    return True


def _supervisor_pid(settings: Settings) -> int | None:
    """None when there is none, or when its pid file is an old one and the number another process's."""
    try:
        pid = int((settings.run / PID_FILE).read_text())
    except (FileNotFoundError, ValueError):
        return None
    return pid if pid in orphans.processes_of(settings.state, but=[settings.tests]) else None
