"""Whether the process of this container is ready: `python -I -S /app/ready.py PORT`. Exit code 0 if it says so, else 1.

No more than a socket, since it is asked every few seconds in every container.
"""

import socket
import sys

SECONDS = 3


def is_ready(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        connection.sendall(b"GET /health/ready HTTP/1.0\r\nHost: localhost\r\n\r\n")
        return connection.recv(12)[9:] == b"200"


if __name__ == "__main__":
    try:
        sys.exit(0 if is_ready(int(sys.argv[1])) else 1)
    except OSError as error:
        sys.exit(str(error))
