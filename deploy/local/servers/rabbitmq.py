"""A private RabbitMQ node and the port mapper it needs.

The node's own script is called, not Debian's wrapper in /usr/sbin, which insists on the account and folders of the
distribution's instance.
"""

import hashlib
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

from deploy.local.servers.launch import Command, base_environment, private_file, private_folder, shared_settings
from deploy.local.servers.ports import is_open

SCRIPTS = Path("/usr/lib/rabbitmq/bin")
USER = "ao"
PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"

SETTINGS = """\
# Written at every start; changes here are lost. User and password count on the first start only.
listeners.tcp.1 = 127.0.0.1:{port}
default_user = {user}
default_pass = {password}
default_vhost = /
"""

MANAGEMENT_SETTINGS = """\
management.tcp.ip = 127.0.0.1
management.tcp.port = {management_port}
management_agent.disable_metrics_collector = true
"""

# Two schedulers that sleep when there is nothing to do, and few helper threads: a node at rest costs no CPU.
EMULATOR_ARGUMENTS = "+S 2:2 +SDcpu 1:1 +SDio 2 +sbwt none +sbwtdcpu none +sbwtdio none"


@dataclass(frozen=True)
class Epmd:
    """Erlang's port mapper on a port of its own, in the foreground, so that RabbitMQ leaves no daemon behind."""

    folder: Path
    port: int

    name = "epmd"
    stop_signal = signal.SIGTERM

    def prepare(self) -> None:
        private_folder(self.folder)

    def command(self) -> Command:
        words = ("epmd", "-port", str(self.port), "-address", "127.0.0.1")
        return Command(words, self.folder, base_environment(self.folder))

    def is_ready(self) -> bool:
        return is_open(self.port)


@dataclass(frozen=True)
class RabbitMQ:
    """One node. It needs its `Epmd` running; `management_port` also switches the management plugin on."""

    folder: Path
    port: int
    distribution_port: int
    epmd_port: int
    password: str
    management_port: int | None = None

    name = "rabbitmq"
    stop_signal = signal.SIGTERM

    @property
    def node(self) -> str:
        """The node's name, different for each folder."""
        return f"ao-{hashlib.sha256(str(self.folder).encode()).hexdigest()[:8]}@localhost"

    def url(self, vhost: str = "%2F") -> str:
        """The AMQP address with user and password; `vhost` is already percent-encoded."""
        return f"amqp://{USER}:{self.password}@127.0.0.1:{self.port}/{vhost}"

    def management_url(self) -> str | None:
        """Base address of the management API with user and password, or None without it."""
        if self.management_port is None:
            return None
        return f"http://{USER}:{self.password}@127.0.0.1:{self.management_port}"

    def prepare(self) -> None:
        private_folder(self.folder)
        settings = SETTINGS.format(port=self.port, user=USER, password=self.password) + shared_settings("rabbitmq")
        plugins = ""
        if self.management_port:
            settings += MANAGEMENT_SETTINGS.format(management_port=self.management_port)
            plugins = "rabbitmq_management"
        private_file(self.folder / "rabbitmq.conf", settings)
        private_file(self.folder / "enabled_plugins", f"[{plugins}].\n")

    def command(self) -> Command:
        return Command((str(SCRIPTS / "rabbitmq-server"),), self.folder, self.environment())

    def environment(self) -> dict[str, str]:
        """What the node's scripts need, `rabbitmqctl` too. The Erlang cookie lies in HOME, which is the folder."""
        return base_environment(
            self.folder,
            ERL_EPMD_ADDRESS="127.0.0.1",
            ERL_EPMD_PORT=str(self.epmd_port),
            RABBITMQ_NODENAME=self.node,
            RABBITMQ_DIST_PORT=str(self.distribution_port),
            RABBITMQ_MNESIA_BASE=str(self.folder / "data"),
            RABBITMQ_LOG_BASE=str(self.folder / "logs"),
            RABBITMQ_CONFIG_FILE=str(self.folder / "rabbitmq.conf"),
            RABBITMQ_ADVANCED_CONFIG_FILE=str(self.folder / "advanced.config"),
            RABBITMQ_ENABLED_PLUGINS_FILE=str(self.folder / "enabled_plugins"),
            RABBITMQ_GENERATED_CONFIG_DIR=str(self.folder / "generated"),
            RABBITMQ_CONF_ENV_FILE="/dev/null",
            RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=(
                f"{EMULATOR_ARGUMENTS} -start_epmd false -kernel inet_dist_use_interface {{127,0,0,1}}"
            ),
            detached="1",  # the script then becomes the node instead of watching over it
        )

    def is_ready(self) -> bool:
        """Whether the node answers the protocol header with `connection.start` (AMQP 0-9-1, 2.2.4)."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                connection.sendall(PROTOCOL_HEADER)
                answered = connection.recv(1) == b"\x01"
        except OSError:
            return False
        return answered and (self.management_port is None or is_open(self.management_port))
