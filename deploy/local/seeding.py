"""The demo's content: workspace, administrator and three leads in the databases, connection and workflow through the API.

Each is put in once; `seeded.json` remembers it, so that what a user deleted stays deleted and a warm start does not ask.
"""

import json
import subprocess
from typing import Any

from deploy.local.api import Api
from deploy.local.errors import Refused
from deploy.local.log_files import last_words
from deploy.local.programs import System
from deploy.local.settings import REPOSITORY
from deploy.local.stored import read_json, write_json

PASSWORD = "administrator"  # noqa: S105 -- the name it is kept under
REMEMBERED = "seeded.json"


def seed_databases(system: System) -> None:
    """Refused with the seed's own words when one of them fails."""
    seeded = _remembered(system)
    if "leads" in seeded:
        return
    administrator = {
        "ADMIN_EMAIL": system.settings.admin_email,
        "ADMIN_PASSWORD": _administrator_password(system),
    }
    made = json.loads(_seed(system, "auth", administrator))
    seeded |= {"email": system.settings.admin_email, "workspace_id": made["workspace_id"], "user_id": made["user_id"]}
    _remember(system, seeded)
    _seed(system, "leads", {"WORKSPACE_ID": made["workspace_id"]})
    _remember(system, seeded | {"leads": True})


def sign_in(system: System) -> Api:
    """The API as the administrator. Refused when the password was changed since."""
    api = Api(system.settings.port)
    api.sign_in(_remembered(system)["email"], system.secrets.password(PASSWORD))
    return api


def _administrator_password(system: System) -> str:
    """The one the user chose, else a generated one; kept before it is used."""
    if system.settings.admin_password:
        system.secrets.put(PASSWORD, system.settings.admin_password)
    return system.secrets.password(PASSWORD)


def _seed(system: System, owner: str, variables: dict[str, str]) -> str:
    log = system.settings.logs / f"seed-{owner}.log"
    environment = {
        **system.base_environment(),
        **system.environment_of(owner),
        f"{owner.upper()}_PORT": "1",
        **variables,
    }
    words = [str(system.environment.python), "-m", f"{owner}.seed"]
    with log.open("ab") as errors:
        done = subprocess.run(
            words, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True, check=False
        )
    if done.returncode != 0:
        raise Refused(f"seeding {owner} failed ({last_words(log)})")
    return done.stdout.strip().splitlines()[-1]


def _remembered(system: System) -> dict[str, Any]:
    return read_json(system.settings.state / REMEMBERED)


def _remember(system: System, seeded: dict[str, Any]) -> None:
    write_json(system.settings.state / REMEMBERED, seeded)
