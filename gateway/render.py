"""Writes the gateway's nginx configuration for one place: fills in the `${NAME}` placeholders and lists the replicas.

The files beside this module are the configuration; only what differs from place to place (addresses, directories,
limits) is a placeholder. Local runs and container images use the same files. Standard library only, so that an image
can run it too.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

UPSTREAMS = ("auth", "leads", "workflows", "crm_sync")
UPSTREAMS_FILE = "upstreams.conf"
CLOSING_FLAG = "closing"

_SOURCE = Path(__file__).parent
_PLACEHOLDER = re.compile(r"\$\{([A-Z][A-Z_]*)\}")  # nginx's own $variables stay as they are
_FORGIVEN = "max_fails=2 fail_timeout=1s"
RESOLVE_SECONDS = 1
"""How long a name's addresses are believed: a replica that came or went is known after that."""
_ADDRESS = re.compile(r"[A-Za-z0-9_.-]+:[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """What differs from place to place. Addresses are nginx `listen` values, such as `127.0.0.1:8080` or `8080`."""

    public_listen: str
    internal_listen: str
    replicas: Mapping[str, Sequence[str]]  # upstream name → "host:port" of each replica; a name left out has no replica
    static_dir: Path  # holds docs/
    log_dir: Path  # access.log and error.log
    pid_path: Path
    temp_dir: Path  # request bodies and large answers pass through here
    worker_processes: int = 1
    tries: int = 3  # of a request whose replicas die or refuse it
    requests_per_second: int = 1000  # per client address
    request_burst: int = 2000
    connections_per_client: int = 2000
    unlimited_networks: Sequence[str] = ("127.0.0.0/8", "::1/128")  # clients whose requests are not counted


def upstreams(replicas: Mapping[str, Sequence[str]]) -> str:
    """The text of `upstreams.conf`: a block for every upstream. `reload.change_replicas` gives it to a running gateway.

    `replicas` maps an upstream's name to the "host:port" of each replica. Raises ValueError for an unknown name or a
    malformed address.
    """
    unknown = sorted(set(replicas) - set(UPSTREAMS))
    if unknown:
        raise ValueError(f"unknown upstream: {', '.join(unknown)}; known are {', '.join(UPSTREAMS)}")
    return "\n".join(_upstream(name, replicas.get(name, ())) for name in UPSTREAMS)


def upstreams_by_name(port: int, resolver: str) -> str:
    """The text of `upstreams.conf` where a name server knows the replicas, as Docker's does: nginx 1.27.3 or newer asks it.

    Each upstream is the name `<upstream>` with hyphens, all of its addresses are replicas. `resolver` is the name server's address.
    """
    lines = []
    for name in UPSTREAMS:
        address = f"{name.replace('_', '-')}:{port} resolve"
        servers = [f"{address} {_FORGIVEN}", f"{address} backup max_fails=0"]
        lines.append(
            _block(name, [f"resolver {resolver} valid={RESOLVE_SECONDS}s ipv6=off", "resolver_timeout 2s"], servers)
        )
    return "\n".join(lines)


def _upstream(name: str, addresses: Sequence[str]) -> str:
    malformed = [address for address in addresses if not _ADDRESS.fullmatch(address)]
    if malformed:
        raise ValueError(f"a replica of {name} is not host:port: {', '.join(malformed)}")
    servers = [f"{address} {_FORGIVEN}" for address in addresses]
    if len(addresses) > 1:
        # A replica that has come back is left out for up to a second more. If the others die meanwhile, nginx would
        # have none left: then these, which are never left out, are asked. (A lone replica is never left out anyway.)
        servers += [f"{address} backup max_fails=0" for address in addresses]
    if not addresses:
        servers = ["127.0.0.1:9 down"]  # nginx refuses a group without servers; requests for this one get a 502
    return _block(name, [], servers)


def _block(name: str, more: Sequence[str], servers: Sequence[str]) -> str:
    lines = [f"zone {name} 128k", "least_conn", *more, *(f"server {server}" for server in servers)]
    # The services keep an idle connection for 75 s: nginx has to be the one that closes it.
    lines += ["keepalive 64", "keepalive_requests 100000", "keepalive_timeout 60s"]
    return f"upstream {name} {{\n" + "".join(f"    {line};\n" for line in lines) + "}\n"


def render(destination: Path, settings: GatewaySettings) -> None:
    """Write nginx.conf, conf.d/, snippets/ and upstreams.conf under `destination`, and make the directories they name.

    Start nginx with `nginx_command(destination)`. Raises KeyError when a file has a placeholder without a value.
    """
    render_files(destination, _values(destination, settings))
    (destination / UPSTREAMS_FILE).write_text(upstreams(settings.replicas))
    (destination / CLOSING_FLAG).unlink(missing_ok=True)
    for directory in (settings.log_dir, settings.temp_dir, settings.pid_path.parent):
        directory.mkdir(parents=True, exist_ok=True)


def render_files(destination: Path, values: Mapping[str, str]) -> None:
    """Write nginx.conf, conf.d/ and snippets/ with these values of their placeholders. KeyError when one has none."""
    for part in ("conf.d", "snippets"):
        shutil.rmtree(destination / part, ignore_errors=True)  # files of an earlier version would be read too
    for source in sorted([_SOURCE / "nginx.conf", *_SOURCE.glob("conf.d/*.conf"), *_SOURCE.glob("snippets/*.conf")]):
        target = destination / source.relative_to(_SOURCE)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_PLACEHOLDER.sub(lambda found: values[found[1]], source.read_text()))


def find_nginx() -> str | None:
    """It lies in sbin, which an ordinary user's PATH often lacks."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def nginx_command(destination: Path, *arguments: str) -> list[str]:
    """The command line for a configuration written by `render`: runs in the foreground; with "-t" checks it."""
    # Workers of a gateway that root starts stay root: they read below directories that only their owner may enter.
    account = "user root; " if os.geteuid() == 0 else ""
    where = ["-e", "stderr", "-p", str(destination), "-c", str(destination / "nginx.conf")]
    return [find_nginx() or "nginx", *where, "-g", f"{account}daemon off;", *arguments]


def _values(destination: Path, settings: GatewaySettings) -> dict[str, str]:
    return {
        "CLOSING_FLAG": str(destination / CLOSING_FLAG),
        "PUBLIC_LISTEN": settings.public_listen,
        "INTERNAL_LISTEN": settings.internal_listen,
        "STATIC_DIR": str(settings.static_dir),
        "LOG_DIR": str(settings.log_dir),
        "PID_PATH": str(settings.pid_path),
        "TEMP_DIR": str(settings.temp_dir),
        "WORKERS": str(settings.worker_processes),
        "TRIES": str(settings.tries),
        "REQUEST_RATE": f"{settings.requests_per_second}r/s",
        "REQUEST_BURST": str(settings.request_burst),
        "CONNECTIONS": str(settings.connections_per_client),
        "UNLIMITED": " ".join(f"{network} 1;" for network in settings.unlimited_networks),
    }
