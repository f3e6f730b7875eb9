"""Docker, as the command line sees it."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from deploy.compose import settings
from deploy.local.errors import Refused
from deploy.local.settings import REPOSITORY

GRACE_SECONDS = 30


@dataclass(frozen=True)
class Container:
    """One container of a service of ours. `health` is "" when it has no check."""

    id: str
    name: str
    health: str
    state: str

    @property
    def is_well(self) -> bool:
        return self.state == "running" and self.health in ("", "healthy")


def check() -> None:
    """Refused when Docker or Compose is not there, or its engine does not answer."""
    if shutil.which("docker") is None:
        raise Refused(
            "Docker is not installed: install Docker Engine with Compose v2.24 or newer (docs.docker.com/engine/install)"
        )
    if _run(["docker", "compose", "version", "--short"]).returncode != 0:
        raise Refused("Docker has no Compose: install its plugin, v2.24 or newer (docs.docker.com/compose/install)")
    if (answer := _run(["docker", "info", "--format", "{{.ServerVersion}}"])).returncode != 0:
        raise Refused(
            f"the Docker engine does not answer ({answer.stderr.strip().splitlines()[-1]}): start it, or join the group docker"
        )


def compose(*words: str) -> str:
    """What `docker compose` printed. Refused with its last words when it fails."""
    done = _run(["docker", "compose", "--env-file", str(settings.ENV_FILE), *words])
    if done.returncode != 0:
        raise Refused(f"docker compose {' '.join(words)} failed: {_last_words(done.stderr or done.stdout)}")
    return done.stdout


def containers(service: str) -> list[Container]:
    """The service's containers that run or are about to."""
    found = []
    for line in compose("ps", "--format", "json", service).splitlines():
        one = json.loads(line)
        found.append(Container(one["ID"], one["Name"], one["Health"], one["State"]))
    return found


def stop(container: Container) -> None:
    """Ask it to stop, wait until it has drained, remove it."""
    for words in (["docker", "stop", "--time", str(GRACE_SECONDS), container.id], ["docker", "rm", container.id]):
        done = _run(words)
        if done.returncode != 0:
            raise Refused(f"{' '.join(words[:2])} {container.name} failed: {_last_words(done.stderr)}")


def _run(words: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    # Compose would prefer variables of the environment, which the Makefile sets for make run, to those in .env.
    chosen = settings.read() if settings.ENV_FILE.exists() else {}
    environment = {name: value for name, value in os.environ.items() if name not in chosen}
    return subprocess.run(words, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)


def _last_words(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "; ".join(lines[-3:]) or "it said nothing"
