"""A private Redis that keeps nothing on disk: it holds the shared cache and the rate buckets, both may be lost."""

import signal
import socket
from dataclasses import dataclass
from pathlib import Path

from deploy.local.servers.launch import Command, base_environment, private_file, private_folder, shared_settings

SETTINGS = """\
# Written at every start; changes here are lost.
bind 127.0.0.1
port {port}
requirepass {password}
dir {folder}
daemonize no
"""


@dataclass(frozen=True)
class Redis:
    """One Redis server."""

    folder: Path
    port: int
    password: str

    name = "redis"
    stop_signal = signal.SIGTERM

    def url(self, database: int = 0) -> str:
        """The address with the password."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/{database}"

    def prepare(self) -> None:
        private_folder(self.folder)
        text = SETTINGS.format(port=self.port, password=self.password, folder=f'"{self.folder}"')
        text += shared_settings("redis")
        private_file(self.folder / "redis.conf", text)

    def command(self) -> Command:
        words = ("redis-server", str(self.folder / "redis.conf"))
        return Command(words, self.folder, base_environment(self.folder))

    def is_ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                answer = connection.recv(64)
                return b"+OK" in answer and (b"+PONG" in answer or b"+PONG" in connection.recv(64))
        except OSError:
            return False
