"""`make run`: start, fill with the demo's content, and do the main job in front of the user."""

from deploy.local import checks
from deploy.local.control import Control, NoSupervisor
from deploy.local.progress import say
from deploy.local.run_lock import exclusive
from deploy.local.settings import Settings
from deploy.local.start import refuse_leftovers, start


def run(settings: Settings) -> None:
    """Starts the system, unless it runs already, and shows a lead's way through it."""
    checks.check_system()
    checks.make_state_folder(settings)
    with exclusive(settings.run):
        if _is_up(settings):
            say(f"It runs already: {settings.address}  (make status, make stop)")
            return
        refuse_leftovers(settings)
        start(settings)


def _is_up(settings: Settings) -> bool:
    try:
        return Control(settings).is_ready()
    except NoSupervisor:
        return False
