"""A private nginx. Its configuration belongs to `gateway/`; this only runs it and tells it to read it again."""

import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from deploy.local.servers.launch import Command, ServerFailed, base_environment, private_folder
from deploy.local.servers.ports import is_open


def program() -> str | None:
    """nginx lies in sbin, which an ordinary user's PATH often lacks."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


@dataclass(frozen=True)
class Nginx:
    """One nginx over a configuration that was rendered below `folder`, listening on `port`."""

    folder: Path
    port: int
    configuration: Path

    name = "gateway"
    stop_signal = signal.SIGQUIT  # finishes requests in flight

    def prepare(self) -> None:
        private_folder(self.folder)

    def command(self) -> Command:
        return Command(self._words(), self.folder, base_environment(self.folder))

    def is_ready(self) -> bool:
        return is_open(self.port)

    def check(self) -> None:
        """Raises ServerFailed with nginx's words when the configuration is wrong."""
        self._run("-t", "-q")

    def reload(self) -> None:
        """Checks the configuration, then has the running master read it; old workers finish what they have."""
        self.check()
        self._run("-s", "reload")

    def _run(self, *arguments: str) -> None:
        words = (*self._words(), *arguments)
        done = subprocess.run(
            words, env=base_environment(self.folder), capture_output=True, text=True, check=False, cwd=self.folder
        )
        if done.returncode != 0:
            raise ServerFailed(f"nginx {' '.join(arguments)} failed: {done.stderr.strip()}")

    def _words(self) -> tuple[str, ...]:
        nginx = program()
        if nginx is None:
            raise ServerFailed("no nginx: install the package nginx-light")
        # Workers of root's nginx run as root like everything else here: another account could not enter the folder.
        account = "user root; " if os.geteuid() == 0 else ""
        return (nginx, "-p", str(self.folder), "-c", str(self.configuration), "-g", f"{account}daemon off;")
