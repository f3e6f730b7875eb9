"""What the user chose, and where everything lies below the state folder."""

import os
from dataclasses import dataclass
from pathlib import Path

from deploy.local.errors import Refused

REPOSITORY = Path(__file__).resolve().parents[2]
DEFAULT_PORT = 8080
DEFAULT_ADMIN_EMAIL = "admin@example.com"


@dataclass(frozen=True)
class Settings:
    """From the environment: PORT, STATE_DIR, ADMIN_EMAIL, ADMIN_PASSWORD. Paths are absolute."""

    state: Path
    port: int = DEFAULT_PORT
    admin_email: str = DEFAULT_ADMIN_EMAIL
    admin_password: str | None = None
    """None: generated at the first start and shown once."""

    @classmethod
    def from_environment(cls) -> "Settings":
        """Refused when a variable makes no sense. A relative STATE_DIR is below the repository."""
        port = os.environ.get("PORT", str(DEFAULT_PORT))
        if not port.isdecimal() or not 0 < int(port) < 65_536:
            raise Refused(f"PORT={port} is no port: give a number from 1 to 65535, e.g. PORT=8081")
        return cls(
            state=(REPOSITORY / (os.environ.get("STATE_DIR") or ".state")).resolve(),
            port=int(port),
            admin_email=os.environ.get("ADMIN_EMAIL") or DEFAULT_ADMIN_EMAIL,
            admin_password=os.environ.get("ADMIN_PASSWORD") or None,
        )

    @property
    def servers(self) -> Path:
        """Data of PostgreSQL, RabbitMQ and Redis."""
        return self.state / "servers"

    @property
    def gateway(self) -> Path:
        """The gateway's rendered configuration."""
        return self.state / "gateway"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def run(self) -> Path:
        """Pid files, the supervisor's socket and the lock of the commands that change what runs."""
        return self.state / "run"

    @property
    def bytecode(self) -> Path:
        """Python's compiled files, so that nothing is written beside the sources."""
        return self.state / "bytecode"

    @property
    def tests(self) -> Path:
        """What test runs write; theirs, also while the system is up."""
        return self.state / "test"

    @property
    def address(self) -> str:
        """The gateway's address."""
        return f"http://127.0.0.1:{self.port}"
