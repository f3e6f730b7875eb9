"""What `make test` and `make lint` need: the packages, the environment with the tests' tools, a checked gateway."""

import tempfile
from pathlib import Path

from deploy.local import checks, packages
from deploy.local.control import Control
from deploy.local.environment import RUN_LOCK, TEST_LOCK, Environment
from deploy.local.progress import say
from deploy.local.run_lock import exclusive
from deploy.local.servers import Nginx
from deploy.local.settings import Settings
from gateway.render import UPSTREAMS, GatewaySettings, render


def prepare(settings: Settings) -> None:
    """Installs what is missing, saying so first; silent when nothing is. The system may be up meanwhile."""
    checks.check_system()
    checks.make_state_folder(settings)
    environment = Environment.of(settings)
    absent = packages.missing()
    locks = [lock for lock in (RUN_LOCK, TEST_LOCK) if not environment.has(lock)]
    if not absent and not locks:
        return
    with exclusive(settings.run):
        say("Preparing the tests")
        packages.announce(absent)
        say(
            f"  Python packages: {', '.join(lock.name for lock in locks) or 'nothing to install'}, in {environment.folder}"
        )
        checks.check_space(settings.state, checks.SPACE_TO_INSTALL_MIB)
        packages.install(absent, settings)
        for lock in locks:
            environment.install(lock, settings, in_use=Control(settings).runs())


def lint_gateway(settings: Settings) -> None:
    """Renders the gateway's configuration and has nginx check it. ServerFailed with nginx's words when it is wrong."""
    with tempfile.TemporaryDirectory(dir=settings.state) as name:
        folder = Path(name)
        example = GatewaySettings(
            public_listen="127.0.0.1:8080",
            internal_listen="127.0.0.1:8081",
            replicas={upstream: ["127.0.0.1:9000"] for upstream in UPSTREAMS},
            static_dir=folder / "static",
            log_dir=folder / "logs",
            pid_path=folder / "nginx.pid",
            temp_dir=folder / "temporary",
        )
        render(folder, example)
        Nginx(folder, 8080).check()
