"""What could stop a start, looked at before anything is done: each answer is one line that says what to do."""

import errno
import os
import platform
import shutil
import socket
from pathlib import Path

from deploy.local.errors import Refused
from deploy.local.packages import system_name
from deploy.local.settings import Settings

MARKER_FILE = ".automation-orchestrator"
SPACE_TO_INSTALL_MIB = 1500
SPACE_TO_RUN_MIB = 400
FULL_MIB = 8


def check_system() -> None:
    """Refused on anything but Linux: processes are found through /proc."""
    if platform.system() != "Linux":
        raise Refused(f"this system is not supported ({system_name()}): use Debian 12 or Ubuntu 24.04 or newer")


def make_state_folder(settings: Settings) -> None:
    """Makes the state folder and those in it, mode 0700. Refused when it can't be written, or is something else's."""
    try:
        settings.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not is_state_folder(settings.state) and any(settings.state.iterdir()):
            raise Refused(f"{settings.state} is in use for something else: choose a new or empty STATE_DIR=…")
        if settings.state.stat().st_uid != os.geteuid():
            owner = settings.state.stat().st_uid
            raise Refused(f"{settings.state} belongs to user {owner}: run as that user, or choose another STATE_DIR=…")
        settings.state.chmod(0o700)
        (settings.state / MARKER_FILE).touch()
        for folder in (settings.logs, settings.run, settings.bytecode, settings.tests):
            folder.mkdir(exist_ok=True, mode=0o700)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, "not writable", str(folder))
    except PermissionError as error:
        raise Refused(
            f"no right to write {error.filename}: choose another STATE_DIR=…, or put the right owner"
        ) from error
    except (FileExistsError, NotADirectoryError) as error:
        raise Refused(f"{error.filename} is not a folder: choose another STATE_DIR=…") from error


def is_state_folder(folder: Path) -> bool:
    """Whether the folder was made by this program, which may then remove it."""
    return (folder / MARKER_FILE).exists()


def check_space(folder: Path, needed_mib: int) -> None:
    """Refused when the folder's disk has less room than that."""
    free = shutil.disk_usage(folder).free // 2**20
    if free < needed_mib:
        raise Refused(
            f"the disk is full: {folder} has {free} MiB left of {needed_mib} needed; free some, or choose another STATE_DIR=…"
        )


def is_disk_full(folder: Path) -> bool:
    """Whether the folder's disk has no room to speak of; False for a folder that is not there."""
    return folder.exists() and shutil.disk_usage(folder).free < FULL_MIB * 2**20


def check_port(port: int) -> None:
    """Refused when the gateway could not listen on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError as error:
            raise Refused(f"no right to listen on port {port}: choose one above 1023, e.g. PORT=8080") from error
        except OSError as error:
            other = port + 1 if port < 65_535 else 8080
            raise Refused(
                f"port {port} is taken: choose another, e.g. PORT={other}, or stop what listens there"
            ) from error
