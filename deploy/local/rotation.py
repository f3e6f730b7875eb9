"""`make rotate-keys`: new keys, while everything runs and nothing that was signed or sealed becomes unreadable.

auth's signing key lies in its database: a new one is published at once and signs once every verifier knows it. The keys
that seal the CRMs' credentials and the workflows' secrets are in the processes' settings: every process learns to open
with the new one before any seals with it, then what the old one sealed is sealed anew.
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
SEALING = {"crm-sync": "crm_sync.rotate_keys", "workflows": "workflows.rotate_keys"}
"""Services that seal what they store → the module that seals it anew."""


def rotate_keys(settings: Settings) -> None:
    """Rotates all. Refused when a step fails: what was done so far is sound, and the command can be run again."""
    with exclusive(settings.run):
        control = Control(settings)
        refuse_unless_ready(control)
        system = System.of(control.running_settings())
        with step("Publishing a new signing key"):
            said = run_module(system, "auth", "auth.rotate_keys")
        say(f"  {said}")
        _rotate_sealing_keys(system, control)


def _rotate_sealing_keys(system: System, control: Control) -> None:
    kinds = [kind for kind in KINDS if kind.owner in SEALING]
    rings = {owner: system.secrets.key_ring(_name(owner)).split(",") for owner in SEALING}
    new = {owner: new_key(f"k{_newest(ring) + 1}") for owner, ring in rings.items()}
    with step("Telling every process of crm-sync and workflows the new keys"):
        for owner, ring in rings.items():
            system.secrets.put(_name(owner), ",".join([*ring, new[owner]]))
        replace(system, control, kinds)
    with step("Putting the new keys in use"):
        for owner, ring in rings.items():
            system.secrets.put(_name(owner), ",".join([new[owner], *ring]))
        replace(system, control, kinds)
    with step("Sealing the stored credentials and secrets anew"):
        for owner, module in SEALING.items():
            run_module(system, owner, module)
            system.secrets.put(_name(owner), ",".join([new[owner], *rings[owner]][:KEPT_KEYS]))


def _name(owner: str) -> str:
    return f"keys:{owner}"


def _newest(ring: list[str]) -> int:
    return max(int(key.partition(":")[0][1:]) for key in ring)
