"""The demo's content: workspace, administrator and three leads in the databases, connection and workflow through the API.

Each is put in once; `seeded.json` remembers it, so that what a user deleted stays deleted and a warm start does not ask.
"""

import json
import secrets
import subprocess
from typing import Any

from deploy.local import samples
from deploy.local.api import Api
from deploy.local.errors import Refused
from deploy.local.log_files import last_words
from deploy.local.programs import SIMULATOR, System
from deploy.local.servers.launch import private_file
from deploy.local.settings import REPOSITORY, Settings
from deploy.local.stored import read_json, write_json

PASSWORD_FILE = "admin-password"  # noqa: S105 -- where it is kept
REMEMBERED = "seeded.json"


def seed_databases(system: System) -> None:
    """Refused with the seed's own words when one of them fails."""
    seeded = _remembered(system)
    if "leads" in seeded:
        return
    administrator = {
        "ADMIN_EMAIL": system.settings.admin_email,
        "ADMIN_PASSWORD": _choose_password(system.settings),
    }
    made = json.loads(_seed(system, "auth", administrator))
    seeded |= {"email": system.settings.admin_email, "workspace_id": made["workspace_id"], "user_id": made["user_id"]}
    _remember(system, seeded)
    _seed(system, "leads", {"WORKSPACE_ID": made["workspace_id"]})
    _remember(system, seeded | {"leads": True})


def sign_in(system: System) -> Api:
    """The API as the administrator, to be closed. ApiRefused with 401 when the password was changed since."""
    api = Api(system.settings.port)
    try:
        api.sign_in(_remembered(system)["email"], (system.settings.state / PASSWORD_FILE).read_text().strip())
    except BaseException:
        api.close()
        raise
    return api


def seed_samples(system: System) -> None:
    """A HubSpot connection to the simulator, and a workflow that ends there. A broken-off try is taken up, not repeated."""
    seeded = _remembered(system)
    if "workflow_id" in seeded:
        return
    with sign_in(system) as api:
        if "connection_id" not in seeded:
            made = api.send("POST", "/api/crm/connections", samples.connection(), Idempotency_Key="sample-connection")
            seeded["connection_id"] = made["id"]
            _remember(system, seeded)
            # Makes what the CRM needs for us now, so that the first lead does not wait for it.
            api.send("POST", f"/api/crm/connections/{made['id']}/verify")
        definition = samples.workflow(
            connection_id=seeded["connection_id"],
            owner_id=seeded["user_id"],
            receiver=f"http://127.0.0.1:{system.ports.of(SIMULATOR)}/webhooks/sample",
            signing_secret=system.secrets.webhook_secret("webhook"),
        )
        workflow = api.send("POST", "/api/workflows", definition, Idempotency_Key="sample-workflow")
    _remember(system, seeded | {"workflow_id": workflow["id"]})


def _choose_password(settings: Settings) -> str:
    """The one the user chose, else a generated one; kept before it is used."""
    path = settings.state / PASSWORD_FILE
    if settings.admin_password or not path.exists():
        private_file(path, (settings.admin_password or secrets.token_urlsafe(15)) + "\n")
    return path.read_text().strip()


def _seed(system: System, owner: str, variables: dict[str, str]) -> str:
    log = system.settings.logs / f"seed-{owner}.log"
    environment = {
        **system.base_environment(),
        **system.environment_of(owner, port=1),
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
