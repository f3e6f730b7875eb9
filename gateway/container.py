"""`python -m gateway.container DIRECTORY`: the gateway's configuration for its container image.

Everything is filled in but what an operator may set when the container starts: those placeholders stay, and the
image's entry point fills them in with envsubst.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from gateway.render import UPSTREAMS_FILE, render_files, upstreams_by_name

PORT = 8000
"""Every service listens there, in its own container."""
RESOLVER = "127.0.0.11"
"""Docker's name server (docs.docker.com/engine/network, DNS services)."""
RUN = "/run/gateway"
FIXED = {
    "PUBLIC_LISTEN": "8080",
    "INTERNAL_LISTEN": "8081",
    "STATIC_DIR": "/usr/share/gateway",
    "CLOSING_FLAG": f"{RUN}/closing",
    "LOG_DIR": f"{RUN}/log",
    "PID_PATH": f"{RUN}/nginx.pid",
    "TEMP_DIR": f"{RUN}/temp",
    "TRIES": "9",  # Compose stops all the containers that are too many at once, and nginx learns of it by their refusals
}
AT_START = ("WORKERS", "REQUEST_RATE", "REQUEST_BURST", "CONNECTIONS", "UNLIMITED")
"""Environment variables of the container."""


def write(directory: Path) -> None:
    render_files(directory, FIXED | {name: f"${{{name}}}" for name in AT_START})
    (directory / UPSTREAMS_FILE).write_text(upstreams_by_name(PORT, RESOLVER))


def main() -> None:
    directory = Path(sys.argv[1])
    write(directory / "configuration")
    shutil.copytree(Path(__file__).parent / "static" / "docs", directory / "static" / "docs")


if __name__ == "__main__":
    main()
