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
UNUSED = ("prompt-toolkit", "shellingham", "typer", "wcwidth")
"""What the CEL package's command line needs, which workflows/engine/expression.py leaves out."""
ONLY_FOR_TOOLS = ("markdown-it-py", "mdurl", "pygments", "rich")
"""The same, but the tests' tools need them. Without them each process is smaller: structlog would load rich."""


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
            _run([*compiler, f"{name}.in", "-o", f"{name}.lock", *_choices(name)])


def _choices(name: str) -> list[str]:
    """The tests run on the versions that the system runs on; what nobody uses is not installed."""
    left_out = UNUSED if name == "requirements-dev" else UNUSED + ONLY_FOR_TOOLS
    constraints = ["-c", "requirements.lock"] if name == "requirements-dev" else []
    return [*constraints, *(f"--no-emit-package={package}" for package in left_out)]


def _run(words: list[str]) -> None:
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Refused(f"{' '.join(words[:4])} … failed: {done.stderr.strip()[-300:]}")
