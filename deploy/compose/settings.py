"""The settings of the containers: .env beside docker-compose.yml, made from .env.example."""

import base64
import os
import re
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

from deploy.local.errors import Refused
from deploy.local.servers.launch import private_file
from deploy.local.settings import REPOSITORY
from deploy.local.stored import new_key

ENV_FILE = Path(os.environ.get("ENV_FILE") or REPOSITORY / ".env")
"""Another one is another system, if its COMPOSE_PROJECT_NAME is another too."""
EXAMPLE = REPOSITORY / ".env.example"
_LINE = re.compile(r"^([A-Z][A-Z_]*)=(.*)$")


def _value_of(name: str) -> str:
    """A new value for a variable that the example leaves empty."""
    makers: list[tuple[str, Callable[[], str]]] = [
        ("_KEYS", lambda: new_key("k1")),
        ("WEBHOOK_SECRET", lambda: "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()),
        ("ADMIN_PASSWORD", lambda: secrets.token_urlsafe(15)),
        ("_PASSWORD", lambda: secrets.token_urlsafe(24)),
        ("_SECRET", lambda: secrets.token_urlsafe(32)),
    ]
    for ending, make in makers:
        if name.endswith(ending):
            return make()
    raise Refused(f"{EXAMPLE.name} leaves {name} empty, and nobody knows how to fill it in")


FROM_ENVIRONMENT = ("PORT", "ADMIN_EMAIL", "ADMIN_PASSWORD", "COMPOSE_PROJECT_NAME", "VERSION")
"""What `make up PORT=8081` may say when .env is made."""


def make(given: Mapping[str, str], file: Path = ENV_FILE) -> bool:
    """Write .env from the example if there is none, readable by its owner only; True if it was made now.

    `given` has values to be used instead of the example's: the environment, of which FROM_ENVIRONMENT is taken.
    """
    if file.exists():
        return False
    lines = []
    for line in EXAMPLE.read_text().splitlines():
        found = _LINE.match(line)
        if found:
            name, value = found.groups()
            chosen = given.get(name) if name in FROM_ENVIRONMENT else None
            value = chosen or value or _value_of(name)
            lines.append(f"{name}={value}")
        else:
            lines.append(line)
    private_file(file, "\n".join(lines) + "\n")
    return True


def read(file: Path = ENV_FILE) -> dict[str, str]:
    """The variables in .env. Refused when there is no such file."""
    try:
        text = file.read_text()
    except FileNotFoundError:
        raise Refused("there is no .env: `make up` makes one, or copy .env.example and fill it in") from None
    return {found[1]: found[2] for found in map(_LINE.match, text.splitlines()) if found}
