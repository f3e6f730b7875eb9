"""A service's own commands, run with the service's settings."""

import subprocess

from deploy.local.errors import Refused
from deploy.local.log_files import last_words
from deploy.local.programs import System
from deploy.local.settings import REPOSITORY


def run_module(system: System, owner: str, module: str, *words: str) -> str:
    """What `python -m module` says as the service `owner`. Refused when it fails; what went wrong is in a log of its own."""
    log = system.settings.logs / f"{module.rpartition('.')[2].replace('_', '-')}-{owner}.log"
    environment = {**system.base_environment(), **system.environment_of(owner, port=1)}
    command = [str(system.environment.python), "-m", module, *words]
    with log.open("ab") as errors:
        done = subprocess.run(
            command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True, check=False
        )
    if done.returncode != 0:
        raise Refused(f"{module} failed for {owner} ({last_words(log)})")
    return done.stdout.strip()
