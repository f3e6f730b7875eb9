"""`make lock`: the exact versions and hashes of every Python package, worked out anew from requirements*.in."""

import subprocess
import sys

from deploy.local import checks
from deploy.local.errors import Refused
from deploy.local.progress import step
from deploy.local.settings import REPOSITORY, Settings

COMPILER = "uv"
OPTIONS = (
    "--universal",
    "--generate-hashes",
    "--python-version=3.11",
    "--no-header",
    "--no-annotate",
    "--no-emit-index-url",
)


def compile_locks(settings: Settings) -> None:
    """Writes requirements.lock and requirements-dev.lock. The compiler gets an environment of its own."""
    checks.make_state_folder(settings)
    folder = settings.state / "lock-environment"
    with step(f"Installing {COMPILER} into {folder}"):
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", COMPILER])
    for name in ("requirements", "requirements-dev"):
        with step(f"Pinning {name}.in in {name}.lock"):
            compiler = [str(folder / "bin/uv"), "pip", "compile", "--quiet", "--upgrade", *OPTIONS]
            _run([*compiler, f"{name}.in", "-o", f"{name}.lock", *_constraints(name)])


def _constraints(name: str) -> list[str]:
    """The tests run on the versions that the system runs on."""
    return ["-c", "requirements.lock"] if name == "requirements-dev" else []


def _run(words: list[str]) -> None:
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Refused(f"{' '.join(words[:4])} … failed: {done.stderr.strip()[-300:]}")
