"""`make run`: start, fill with the demo's content, and do the main job in front of the user."""

from deploy.local import checks, figures, seeding
from deploy.local.api import ApiRefused
from deploy.local.control import Control, NoSupervisor
from deploy.local.journey import Journey
from deploy.local.programs import System
from deploy.local.progress import say
from deploy.local.run_lock import exclusive
from deploy.local.settings import REPOSITORY, Settings
from deploy.local.start import refuse_leftovers, start


def run(settings: Settings) -> None:
    """Starts the system, unless it runs already, and shows a lead's way through it."""
    checks.check_system()
    checks.make_state_folder(settings)
    with exclusive(settings.run):
        if _is_up(settings):
            say(f"It runs already: {Control(settings).running_settings().address}  (make status, make stop)")
            return
        refuse_leftovers(settings)
        is_password_new = not settings.admin_password and not (settings.state / seeding.PASSWORD_FILE).exists()
        started = start(settings)
        name = "cold_start_seconds" if started.is_cold else "warm_start_seconds"
        figures.keep(settings, **{name: round(started.seconds, 1)})
        say(f"Ready in {started.seconds:.1f} s.")
        _show_journey(started.system)
        _say_goodbye(settings, is_password_new)


def _is_up(settings: Settings) -> bool:
    try:
        return Control(settings).is_ready()
    except NoSupervisor:
        return False


def _show_journey(system: System) -> None:
    """What a user changed since the demo was set up may end it early; the system runs all the same."""
    try:
        with seeding.sign_in(system) as api:
            arrived = Journey(api).show()
        if not arrived:
            say("  … it has not arrived at the CRM: was the sample connection or workflow changed? See make logs.")
    except ApiRefused as error:
        say(f"  No lead is sent: {error}")


def _say_goodbye(settings: Settings, is_password_new: bool) -> None:
    file = settings.state / seeding.PASSWORD_FILE
    password = f"{file.read_text().strip()}  (shown this once, kept in {file})" if is_password_new else f"in {file}"
    say()
    say(f"  Address   {settings.address}   (API: {settings.address}/api/docs)")
    say(f"  Sign in   {settings.admin_email}, password {password}")
    say("  Try next:")
    elsewhere = "" if settings.state == REPOSITORY / ".state" else f" STATE_DIR={settings.state}"
    say(f"    make status{elsewhere}")
    say(f"    make scale leads=3{elsewhere}")
    say(f"    make logs service=leads{elsewhere}")
