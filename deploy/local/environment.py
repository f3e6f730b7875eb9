"""The virtual environment below the state folder, made from the hash-pinned lock and made anew when the lock changed."""

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from deploy.local.errors import Refused
from deploy.local.log_files import tail
from deploy.local.progress import step
from deploy.local.settings import REPOSITORY, Settings
from deploy.local.stored import read_json, write_json

RUN_LOCK = REPOSITORY / "requirements.lock"
TEST_LOCK = REPOSITORY / "requirements-dev.lock"
SOURCE_FOLDERS = (
    "services/auth",
    "services/leads",
    "services/workflows",
    "services/crm-sync",
    "libs/chassis",
    "libs/contracts",
    ".",
)
MARKER = "installed-locks.json"
PATHS_FILE = "automation-orchestrator.pth"


@dataclass(frozen=True)
class Environment:
    """A virtual environment. It remembers the hashes of the locks that were installed into it whole."""

    folder: Path

    @classmethod
    def of(cls, settings: Settings) -> "Environment":
        """The environment this process already runs in, when it is one of ours, else the state folder's own.

        So a test's systems, each with a state folder of its own, share one environment.
        """
        current = cls(Path(sys.prefix))
        return current if current.has(RUN_LOCK) else cls(settings.state / "venv")

    @property
    def python(self) -> Path:
        return self.folder / "bin/python"

    def has(self, lock: Path) -> bool:
        """Whether exactly this lock was installed, for this checkout."""
        return self._is_whole() and _digest(lock) in self._installed().values()

    def install(self, lock: Path, settings: Settings, *, in_use: bool) -> None:
        """Installs the lock, into a new environment when its last version is another one. Progress is shown.

        Refused when that fails, or when the environment is in use and would have to be made anew.
        """
        if self.has(lock):
            return
        if self._installed().get(lock.name) or not self._is_whole():
            if in_use:
                raise Refused(f"{lock.name} changed while the system runs: `make stop` first, then this again")
            self._create(settings)
        log = settings.logs / "install-python.log"
        with step(f"Installing {lock.name} into {self.folder} (log: {log})"):
            words = ["-m", "pip", "install", "--require-hashes", "--no-deps", "--prefer-binary", "--progress-bar=off"]
            self._run([str(self.python), *words, "-r", str(lock)], log, settings)
        write_json(self.folder / MARKER, {**self._installed(), lock.name: _digest(lock)})

    def _create(self, settings: Settings) -> None:
        with step(f"Making the virtual environment {self.folder}"):
            shutil.rmtree(self.folder, ignore_errors=True)
            log = settings.logs / "install-python.log"
            self._run([sys.executable, "-m", "venv", str(self.folder)], log, settings)
            packages = next(self.folder.glob("lib/python3*/site-packages"))
            (packages / PATHS_FILE).write_text(_source_paths())

    def _is_whole(self) -> bool:
        """Whether there is an environment whose imports lead to this checkout: folders are moved and copied."""
        paths = next(self.folder.glob(f"lib/python3*/site-packages/{PATHS_FILE}"), None)
        return self.python.exists() and paths is not None and paths.read_text() == _source_paths()

    def _installed(self) -> dict[str, str]:
        return read_json(self.folder / MARKER)

    @staticmethod
    def _run(words: list[str], log: Path, settings: Settings) -> None:
        environment = {
            **os.environ,
            "PYTHONPYCACHEPREFIX": str(settings.bytecode),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
        with log.open("ab") as output:
            done = subprocess.run(words, stdout=output, stderr=output, env=environment, check=False)
        if done.returncode != 0:
            complaint = next((line for line in reversed(tail(log, 40)) if "rror" in line), "pip failed").strip()
            raise Refused(f"{complaint[:200]} (see {log}): put it right, then run this again")


def _source_paths() -> str:
    """The lines of a .pth file (see `site` in Python's documentation): where our packages lie."""
    return "".join(f"{(REPOSITORY / source).resolve()}\n" for source in SOURCE_FOLDERS)


def _digest(lock: Path) -> str:
    """The hash of the lock and of the Python it was installed for."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return hashlib.sha256(version.encode() + lock.read_bytes()).hexdigest()
