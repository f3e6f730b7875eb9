"""`make announce-again service=leads`: a service's events of the last 72 hours once more, for a broker that lost what it held."""

from deploy.local.control import Control
from deploy.local.errors import Refused
from deploy.local.modules import run_module
from deploy.local.programs import OWNERS, System
from deploy.local.progress import say
from deploy.local.settings import Settings


def announce_again(settings: Settings, service: str | None) -> None:
    """Of one service, or of all. Refused for an unknown one; NoSupervisor when the system, which publishes them, does not run."""
    if service is not None and service not in OWNERS:
        raise Refused(f"no service {service} has events: choose from {', '.join(OWNERS)}")
    system = System.of(Control(settings).running_settings())
    for owner in OWNERS if service is None else [service]:
        package = owner.replace("-", "_")
        say(f"  {run_module(system, owner, 'chassis.announce_again', package)}")
