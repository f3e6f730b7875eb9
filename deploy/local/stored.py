"""What a state folder remembers: chosen ports, generated secrets, measured figures. JSON, readable by its owner only."""

import base64
import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deploy.local.errors import Refused
from deploy.local.servers import free_ports
from deploy.local.servers.launch import private_file
from deploy.local.servers.ports import is_free

KEY_BYTES = 32


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file, {} when there is none. Refused when the file is damaged."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise Refused(f"{path} is damaged ({error}): restore it, or start anew with `make clean`") from error
    return found


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replaces the file whole."""
    private_file(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


class Ports:
    """Ports by name, chosen free and below 32768 once, then kept in ports.json."""

    def __init__(self, state: Path, avoid: frozenset[int] = frozenset()) -> None:
        self._path = state / "ports.json"
        self._avoid = avoid
        self._ports: dict[str, int] = read_json(self._path)

    def of(self, name: str) -> int:
        """The port of that name, chosen now if it has none."""
        if name not in self._ports:
            taken = frozenset(self._ports.values()) | self._avoid
            self._ports[name] = free_ports(1, taken)[0]
            write_json(self._path, self._ports)
        return self._ports[name]

    def renew_taken(self) -> list[str]:
        """Forgets the ports that somebody else took while the system was down; returns their names."""
        lost = [name for name, port in self._ports.items() if port in self._avoid or not is_free(port)]
        for name in lost:
            del self._ports[name]
        write_json(self._path, self._ports)
        return lost


class Secrets:
    """Passwords and keys by name, generated once, kept in secrets.json (mode 0600)."""

    def __init__(self, state: Path) -> None:
        self._path = state / "secrets.json"
        self._secrets: dict[str, str] = read_json(self._path)

    def password(self, name: str) -> str:
        """A password of 32 letters, digits, `-` and `_`: safe in URLs, SQL literals and settings files."""
        return self._once(name, lambda: secrets.token_urlsafe(24))

    def key_ring(self, name: str) -> str:
        """Encryption keys as `id:base64,…`, the first one in use."""
        return self._once(name, lambda: new_key("k1"))

    def webhook_secret(self, name: str) -> str:
        """A Standard Webhooks secret: `whsec_` and 192 bits in base64."""
        return self._once(name, lambda: "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode())

    def put(self, name: str, value: str) -> None:
        """Replaces one, on disk before it is used."""
        self._secrets[name] = value
        write_json(self._path, self._secrets)

    def get(self, name: str) -> str | None:
        return self._secrets.get(name)

    def _once(self, name: str, make: Callable[[], str]) -> str:
        if name not in self._secrets:
            self.put(name, make())
        return self._secrets[name]


def new_key(key_id: str) -> str:
    """One key of 256 bits as `id:base64`."""
    return f"{key_id}:{base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()}"
