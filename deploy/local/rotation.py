"""`make rotate-keys`: new keys, while everything runs and nothing that was signed or sealed becomes unreadable.

auth's signing key lies in its database: a new one is published at once and signs once every verifier knows it. The key
that seals the CRMs' credentials is in the processes' settings: every process learns to open with the new one before any
seals with it, then what the old one sealed is sealed anew.
"""

from deploy.local.control import Control
from deploy.local.modules import run_module
from deploy.local.programs import KINDS, System
from deploy.local.progress import say, step
from deploy.local.run_lock import exclusive
from deploy.local.scale import refuse_unless_ready, replace
from deploy.local.settings import Settings
from deploy.local.stored import new_key

KEPT_KEYS = 2
SEALING = "crm-sync"


def rotate_keys(settings: Settings) -> None:
    """Rotates both. Refused when a step fails: what was done so far is sound, and the command can be run again."""
    with exclusive(settings.run):
        control = Control(settings)
        refuse_unless_ready(control)
        system = System.of(control.running_settings())
        with step("Publishing a new signing key"):
            said = run_module(system, "auth", "auth.rotate_keys")
        say(f"  {said}")
        _rotate_sealing_key(system, control)


def _rotate_sealing_key(system: System, control: Control) -> None:
    name = f"keys:{SEALING}"
    ring = system.secrets.key_ring(name).split(",")
    new = new_key(f"k{max(int(key.partition(':')[0][1:]) for key in ring) + 1}")
    with step("Telling every process of crm-sync the new key"):
        system.secrets.put(name, ",".join([*ring, new]))
        replace(system, control, [kind for kind in KINDS if kind.owner == SEALING])
    with step("Putting the new key in use"):
        system.secrets.put(name, ",".join([new, *ring]))
        replace(system, control, [kind for kind in KINDS if kind.owner == SEALING])
    with step("Sealing the stored credentials anew"):
        run_module(system, SEALING, "crm_sync.rotate_keys")
        system.secrets.put(name, ",".join([new, *ring][:KEPT_KEYS]))
