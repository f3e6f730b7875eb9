"""`python -m gateway.openapi`: writes the API document of the whole system, static/docs/openapi.json.

With `--check` it writes nothing and exits with 1 when the file is not what the services say now. Each service describes
itself in a process of its own, without any server: its routes need settings, so it gets placeholders for them.
"""

from __future__ import annotations

import argparse
import base64
import difflib
import importlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.merge import merge

TARGET = Path(__file__).parent / "static" / "docs" / "openapi.json"
SECONDS_TO_DESCRIBE = 60


@dataclass(frozen=True, slots=True)
class Service:
    """A service as its package has it: `<package>.main.create(<package>.settings.<settings>())` is the application."""

    package: str
    settings: str

    @property
    def prefix(self) -> str:
        return f"{self.package.upper()}_"


SERVICES = (
    Service("auth", "Settings"),
    Service("leads", "Settings"),
    Service("workflows", "WorkflowsSettings"),
    Service("crm_sync", "CrmSyncSettings"),
)

_KEYS = "placeholder:" + base64.b64encode(bytes(32)).decode()
_PLACEHOLDERS = {
    "PORT": "1",
    "INTERNAL_URL": "http://127.0.0.1:1",
    "DATABASE_URL": "postgresql://placeholder",
    "BROKER_URL": "amqp://placeholder",
    "CACHE_URL": "redis://placeholder",
    "SERVICE_CLIENT_SECRET": "placeholder" * 4,
    "CLIENT_SECRETS": "placeholder:" + "placeholder" * 4,
    "KEY_ENCRYPTION_KEYS": _KEYS,
    "CREDENTIAL_KEYS": _KEYS,
    "SECRET_KEYS": _KEYS,
}


def describe(service: Service) -> dict[str, Any]:
    """The service's own OpenAPI document, made in this process."""
    settings = getattr(importlib.import_module(f"{service.package}.settings"), service.settings)()
    application = importlib.import_module(f"{service.package}.main").create(settings)
    document: dict[str, Any] = application.openapi()
    return document


def described_apart(service: Service) -> dict[str, Any]:
    """The same from a process of its own: two services in one would share metrics and settings."""
    environment = os.environ | {service.prefix + name: value for name, value in _PLACEHOLDERS.items()}
    words = [sys.executable, "-m", "gateway.openapi", "--service", service.package]
    done = subprocess.run(  # noqa: S603 - our own command line
        words, env=environment, capture_output=True, text=True, check=False, timeout=SECONDS_TO_DESCRIBE
    )
    if done.returncode != 0:
        raise SystemExit(f"{service.package} can't describe itself:\n{done.stderr.strip()}")
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def whole_document() -> str:
    """The merged document, as the file's text."""
    with ThreadPoolExecutor() as threads:
        described = list(threads.map(described_apart, SERVICES))
    merged = merge({service.package: document for service, document in zip(SERVICES, described, strict=True)})
    return json.dumps(merged, ensure_ascii=False, indent=1) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m gateway.openapi", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare; exit code 1 when the file is stale")
    parser.add_argument("--service", choices=[service.package for service in SERVICES], help="print one service's own")
    arguments = parser.parse_args()
    if arguments.service:
        (service,) = (service for service in SERVICES if service.package == arguments.service)
        sys.stdout.write(json.dumps(describe(service)))
        return 0
    text = whole_document()
    if not arguments.check:
        TARGET.write_text(text)
        return 0
    stored = TARGET.read_text() if TARGET.exists() else ""
    if stored == text:
        return 0
    difference = difflib.unified_diff(stored.splitlines(), text.splitlines(), "stored", "services", lineterm="", n=1)
    sys.stderr.write("\n".join(list(difference)[:40]) + f"\n{TARGET} is stale: run python -m gateway.openapi\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
