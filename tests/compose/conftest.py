"""One system in containers for these tests, beside whatever else runs: names, port, settings and data of its own, gone at the end."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from deploy.local.api import Api
from deploy.local.servers import free_ports
from deploy.local.settings import REPOSITORY
from tests.support.load import Load

PROJECT = "automation-orchestrator-test"
START_SECONDS = 600
FIGURES: list[str] = []
"""What was measured on the way, shown at the end."""


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for figure in FIGURES:
        terminalreporter.write_line(f"measured: {figure}")


class Containers:
    """`docker compose` on the test's own settings."""

    def __init__(self, env_file: Path, port: int) -> None:
        self.port = port
        self._env_file = env_file
        # What the tests run under must not reach into the containers' settings.
        self.environment = {
            name: os.environ[name] for name in ("PATH", "HOME", "DOCKER_HOST") if name in os.environ
        } | {
            "ENV_FILE": str(env_file),
            "PORT": str(port),
            "COMPOSE_PROJECT_NAME": PROJECT,
            "VERSION": "test",
        }

    def settings(self) -> dict[str, str]:
        lines = [line.partition("=") for line in self._env_file.read_text().splitlines() if line[:1].isupper()]
        return {name: value for name, _, value in lines}

    def command(self, *words: str, seconds: float = START_SECONDS) -> "subprocess.CompletedProcess[str]":
        """`make up`, `make rollout`, …: what they print."""
        return self._run([sys.executable, "-m", "deploy.compose", *words], seconds)

    def compose(self, *words: str, seconds: float = START_SECONDS) -> str:
        """What `docker compose` printed; AssertionError when it failed."""
        done = self._run(["docker", "compose", "--env-file", str(self._env_file), *words], seconds)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def docker(self, *words: str) -> str:
        done = self._run(["docker", *words], 120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def _run(self, words: Sequence[str], seconds: float) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            words, cwd=REPOSITORY, env=self.environment, capture_output=True, text=True, timeout=seconds, check=False
        )

    def ids(self, service: str) -> list[str]:
        """The running containers of a service."""
        return self.compose("ps", "--quiet", "--status", "running", service).split()

    def scale(self, **wanted: int) -> None:
        """As an operator does, without waiting; `leads_worker` is leads-worker."""
        wishes = [f"--scale={name.replace('_', '-')}={number}" for name, number in wanted.items()]
        self.compose("up", "--detach", "--no-recreate", *wishes)

    def wait_ready(self, *services: str, seconds: float = 120) -> None:
        """Return when every container of these services, or of all, is healthy."""
        eventually(lambda: self._unready(services) == [], seconds)

    def _unready(self, services: Sequence[str]) -> list[str]:
        found = [json.loads(line) for line in self.compose("ps", "--format", "json", *services).splitlines()]
        return [one["Name"] for one in found if one["Health"] not in ("", "healthy") or one["State"] != "running"]

    def sign_in(self) -> Api:
        settings = self.settings()
        api = Api(self.port)
        api.sign_in(settings["ADMIN_EMAIL"], settings["ADMIN_PASSWORD"])
        return api

    def load(self, **more: Any) -> Load:
        return Load(self.sign_in, **more)

    def answers(self, service: str, since: float) -> dict[str, list[float]]:
        """When each replica of a service answered a request since that time (unix seconds, whole), by its address: the gateway's log."""
        addresses = {
            network["IPAddress"]
            for one in json.loads(self.docker("inspect", *self.ids(service)))
            for network in one["NetworkSettings"]["Networks"].values()
        }
        answered: dict[str, list[float]] = {}
        [gateway] = self.ids("gateway")
        for line in self.docker("logs", "--since", f"{since:.3f}", gateway).splitlines():
            if line.startswith("{"):
                request = json.loads(line)
                address = request["upstream"].rpartition(", ")[2].partition(":")[0]
                if address in addresses:
                    answered.setdefault(address, []).append(datetime.fromisoformat(request["time"]).timestamp())
        return answered

    def sql(self, database: str, statement: str) -> str:
        """Ask PostgreSQL as its owner; unaligned rows."""
        words = ["psql", "-XqAt", "-U", "ao_owner", "-h", "127.0.0.1", "-d", database, "-c", statement]
        password = f"PGPASSWORD={self.settings()['POSTGRES_PASSWORD']}"
        return self.compose("exec", "-T", "-e", password, "postgres", *words).strip()

    def simulated(self, path: str) -> Any:
        """What the simulators' control side answers to GET."""
        program = (
            f"import urllib.request as r; print(r.urlopen('http://127.0.0.1:8000/_control/{path}').read().decode())"
        )
        return json.loads(self.compose("exec", "-T", "simulator", "python", "-c", program))

    def check_nothing_lost(self, load: Load, seconds: float = 90) -> None:
        """Every lead that was answered 201 is there, once in the CRM, in its newest version, and its run has ended."""
        assert load.created
        names = ", ".join(f"'{lead_id}'" for lead_id in load.created)
        assert self.sql("leads", f"SELECT count(*) FROM leads WHERE id IN ({names})") == str(len(load.created))

        def waiting() -> tuple[str, str]:
            behind = self.sql(
                "crm_sync",
                f"SELECT count(*) FROM lead_copies copy LEFT JOIN sync_states s USING (workspace_id, lead_id)"
                f" WHERE copy.lead_id IN ({names}) AND (s.state IS DISTINCT FROM 'idle' OR s.synced_version < copy.version)",
            )
            runs = self.sql(
                "workflows", f"SELECT count(*) FROM runs WHERE lead_id IN ({names}) AND state NOT IN ('completed')"
            )
            return behind, runs

        eventually(lambda: waiting() == ("0", "0"), seconds, shown=waiting)
        creates = self.simulated("hubspot/creates?portal_id=1&by=ao_lead_id")["creates"]
        assert {lead_id: creates.get(lead_id) for lead_id in load.created if creates.get(lead_id) != 1} == {}


def eventually(condition: Callable[[], bool], seconds: float, shown: Callable[[], object] | None = None) -> None:
    """Return when it holds; AssertionError after `seconds` with what `shown` says."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {shown() if shown else ''}"
        time.sleep(0.5)


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Containers, str]]:
    """The containers, and what `make up` said."""
    containers = Containers(tmp_path_factory.mktemp("compose") / "env", free_ports(1)[0])
    try:
        done = containers.command("up")
        assert done.returncode == 0, done.stdout + done.stderr
        yield containers, done.stdout
    finally:
        containers.compose("--profile", "*", "down", "--volumes", "--timeout", "5")


@pytest.fixture
def containers(started: tuple[Containers, str]) -> Containers:
    """All of them ready, in their default number."""
    found = started[0]
    found.compose("up", "--detach", "--wait")
    return found
