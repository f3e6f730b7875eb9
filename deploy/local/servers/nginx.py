"""A private nginx over the configuration of `gateway/`, which renders it and gives it other replicas while it runs."""

import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from deploy.local.servers.launch import Command, ServerFailed, base_environment, private_folder
from deploy.local.servers.ports import is_open
from gateway.render import find_nginx, nginx_command


@dataclass(frozen=True)
class Nginx:
    """One nginx over a configuration that was rendered into `folder`, listening on `port`."""

    folder: Path
    port: int

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
        done = subprocess.run(
            self._words("-t", "-q"), env=base_environment(self.folder), capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise ServerFailed(f"the gateway's configuration is wrong: {done.stderr.strip()}")

    def _words(self, *arguments: str) -> tuple[str, ...]:
        if find_nginx() is None:
            raise ServerFailed("no nginx: install the package nginx")
        return tuple(nginx_command(self.folder, *arguments))
