"""The gateway's part: its configuration rendered for this state folder, and its replicas while it runs."""

from pathlib import Path

from deploy.local.errors import Refused
from deploy.local.program import GATEWAY, Program, of_server
from deploy.local.programs import System, kind_of
from deploy.local.servers import Nginx
from deploy.local.settings import REPOSITORY
from gateway.reload import ReloadRefused, change_replicas
from gateway.render import GatewaySettings, render


def prepare(system: System, programs: list[Program]) -> Program:
    """Renders the configuration for these replicas and checks it; returns nginx as a program."""
    settings = system.settings
    render(
        settings.gateway,
        GatewaySettings(
            public_listen=f"127.0.0.1:{settings.port}",
            internal_listen=system.internal_url.removeprefix("http://"),
            replicas=upstreams(programs),
            static_dir=REPOSITORY / "gateway" / "static",
            log_dir=settings.logs / "gateway",
            pid_path=pid_path(system),
            temp_dir=settings.gateway / "temporary",
        ),
    )
    nginx = Nginx(settings.gateway, settings.port)
    nginx.check()
    return of_server(nginx, settings.logs, settings.port, GATEWAY)


def upstreams(programs: list[Program]) -> dict[str, list[str]]:
    """The replicas' addresses by the gateway's names."""
    found: dict[str, list[str]] = {}
    for one in programs:
        kind = kind_of(one.service)
        if kind is not None and kind.upstream is not None:
            found.setdefault(kind.upstream, []).append(f"127.0.0.1:{one.port}")
    return found


def route_to(system: System, programs: list[Program]) -> None:
    """Has the running gateway use these replicas, without a failed request. Refused when nginx does not take them."""
    try:
        change_replicas(system.settings.gateway, pid_path(system), upstreams(programs))
    except ReloadRefused as error:
        raise Refused(f"the gateway kept its replicas ({error}): see {system.settings.logs}/gateway.log") from error


def pid_path(system: System) -> Path:
    """Where nginx writes its own pid; the supervisor's file has another name."""
    return system.settings.gateway / "nginx.pid"
