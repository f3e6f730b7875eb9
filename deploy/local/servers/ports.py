"""Free ports below the kernel's ephemeral range, so that no outgoing connection can take one between two starts."""

import random
import socket

LOWEST, HIGHEST = 10_240, 32_767


def is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:`port` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def is_open(port: int) -> bool:
    """Whether something accepts connections on 127.0.0.1:`port`."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def free_ports(count: int, taken: frozenset[int] = frozenset()) -> list[int]:
    """`count` different free ports, none of them in `taken`. They start at a random place: two starters seldom meet."""
    start = random.SystemRandom().randrange(LOWEST, HIGHEST)
    found: list[int] = []
    for step in range(HIGHEST - LOWEST):
        port = LOWEST + (start - LOWEST + step) % (HIGHEST - LOWEST)
        if port not in taken and is_free(port):
            found.append(port)
        if len(found) == count:
            return found
    raise OSError(f"only {len(found)} of {count} ports between {LOWEST} and {HIGHEST} are free")
