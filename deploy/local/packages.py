"""The system's packages: what is missing, and how it is installed without starting the distribution's own instances."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deploy.local.errors import Refused
from deploy.local.log_files import tail
from deploy.local.progress import say, step
from deploy.local.servers import postgresql, rabbitmq
from deploy.local.settings import Settings
from gateway.render import find_nginx

OLDEST = {"debian": 12.0, "ubuntu": 24.04}
INSTALL_SCRIPT = Path(__file__).with_name("install-packages.sh")
OS_RELEASE = Path("/etc/os-release")


@dataclass(frozen=True)
class Package:
    """A package, what it is for, and how to see that it is there."""

    name: str
    purpose: str
    is_there: Callable[[], bool]


def _can_make_environments() -> bool:
    """Debian's Python comes without `ensurepip`, which its package python3-venv brings."""
    words = [sys.executable, "-c", "import ensurepip, venv"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


NEEDED = (
    Package("postgresql", "PostgreSQL", lambda: postgresql.program_folder() is not None),
    Package("rabbitmq-server", "RabbitMQ", (rabbitmq.SCRIPTS / "rabbitmq-server").exists),
    Package("redis-server", "Redis", lambda: shutil.which("redis-server") is not None),
    Package("nginx", "nginx", lambda: find_nginx() is not None),
    Package("python3-venv", "Python's virtual environments", _can_make_environments),
)


def missing() -> list[Package]:
    """The packages without which nothing runs."""
    return [package for package in NEEDED if not package.is_there()]


def announce(absent: list[Package]) -> None:
    """Says what will be installed into the system."""
    if absent:
        say(f"  system packages: {', '.join(one.name for one in absent)} (apt-get; not started, not enabled at boot)")
    else:
        say("  system packages: nothing to install, PostgreSQL, RabbitMQ, Redis and nginx are there")


def install(absent: list[Package], settings: Settings) -> None:
    """Installs what is missing, as root or through sudo. Refused where that can't be done; nothing is half done then."""
    if not absent:
        return
    names = [one.name for one in absent]
    command = f"apt-get install -y --no-install-recommends {' '.join(names)}"
    if not is_supported_system():
        what = ", ".join(one.purpose for one in absent)
        raise Refused(
            f"this system is not supported ({system_name()}): use Debian 12 or Ubuntu 24.04 or newer, or install {what} yourself"
        )
    prefix = _as_root(command)
    log = settings.logs / "install-packages.log"
    with step(f"Installing {', '.join(names)} (log: {log})"), log.open("wb") as output:
        done = subprocess.run([*prefix, "sh", str(INSTALL_SCRIPT), *names], stdout=output, stderr=output, check=False)
    still = [one.name for one in missing()]
    if done.returncode != 0 or still:
        raise Refused(
            f"installing {', '.join(still or names)} failed ({_last_words(log)}): see {log}, then as root: {command}"
        )


def is_supported_system() -> bool:
    """Whether this is Debian 12, Ubuntu 24.04 or newer; a testing release without a number counts as newer."""
    release = os_release()
    oldest = OLDEST.get(release.get("ID", ""))
    if oldest is None or platform.system() != "Linux" or shutil.which("apt-get") is None:
        return False
    version = release.get("VERSION_ID", "")
    return not version or float(version) >= oldest


def system_name() -> str:
    """What the system calls itself."""
    return os_release().get("PRETTY_NAME", platform.platform(terse=True))


def os_release() -> dict[str, str]:
    """The fields of os-release(5), unquoted; {} where there is none."""
    try:
        lines = OS_RELEASE.read_text().splitlines()
    except FileNotFoundError:
        return {}
    pairs = (line.split("=", 1) for line in lines if "=" in line)
    return {name: value.strip("\"'") for name, value in pairs}


def _as_root(command: str) -> list[str]:
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    if sudo is None:
        raise Refused(f"packages are missing and there is no sudo: as root, run `{command}`, then this again")
    if (
        not sys.stdin.isatty()
        and subprocess.run([sudo, "-n", "true"], capture_output=True, check=False).returncode != 0
    ):
        raise Refused(f"packages are missing and sudo needs a password: run `sudo {command}`, then this again")
    if subprocess.run([sudo, "-v"], check=False).returncode != 0:
        raise Refused(
            f"packages are missing and you may not become root: have `{command}` run by somebody who may, then this again"
        )
    return [sudo]


def _last_words(log: Path) -> str:
    complaints = [line for line in tail(log, 200) if line.startswith("E: ") or "No space left" in line]
    return complaints[-1].removeprefix("E: ") if complaints else "apt-get"
