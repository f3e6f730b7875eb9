"""The processes of the system and what each is told by its environment. One table: to add a process, add a row."""

from dataclasses import dataclass
from pathlib import Path

from deploy.local.environment import Environment
from deploy.local.program import PORT_MAPPER, SERVERS, SERVICES, WORKERS, Program, of_server
from deploy.local.servers import Epmd, PostgreSQL, RabbitMQ, Redis
from deploy.local.servers.launch import MARKER
from deploy.local.settings import REPOSITORY, Settings
from deploy.local.stored import Ports, Secrets, write_json

CONNECTIONS_PER_PROCESS = 7  # a pool of five, and two for the outbox and health
SPARE_CONNECTIONS = 10


@dataclass(frozen=True)
class Kind:
    """One kind of process: `python -m module`, with the settings of the service `owner`."""

    service: str
    module: str
    owner: str
    replicas: int
    most: int
    stage: int
    upstream: str | None = None
    """The gateway's name for it; None when the gateway does not route to it."""


KINDS = (
    Kind("auth", "auth", "auth", 1, 2, SERVICES, "auth"),
    Kind("leads", "leads", "leads", 2, 6, SERVICES, "leads"),
    Kind("workflows", "workflows", "workflows", 1, 3, SERVICES, "workflows"),
    Kind("crm-sync", "crm_sync", "crm-sync", 1, 3, SERVICES, "crm_sync"),
    Kind("leads-worker", "leads.worker", "leads", 1, 3, WORKERS),
    Kind("workflows-worker", "workflows.worker", "workflows", 1, 3, WORKERS),
    Kind("crm-sync-worker", "crm_sync.worker", "crm-sync", 1, 3, WORKERS),
)
SIMULATOR = "simulator"
SIMULATOR_KIND = Kind(SIMULATOR, "simulators", "", 1, 1, SERVICES)
OWNERS = tuple(dict.fromkeys(kind.owner for kind in KINDS))


def kind_of(service: str) -> Kind | None:
    """The row of that name, None for servers and the simulator."""
    return next((kind for kind in KINDS if kind.service == service), None)


def database_of(owner: str) -> str:
    """The name of a service's database and of its role."""
    return owner.replace("-", "_")


def connection_limit(owner: str) -> int:
    """How many connections the role may have: those of all replicas, one more of each while one replaces another."""
    processes = sum(kind.most + 1 for kind in KINDS if kind.owner == owner)
    return processes * CONNECTIONS_PER_PROCESS


@dataclass(frozen=True)
class System:
    """The servers and processes of one state folder, with its ports and secrets."""

    settings: Settings
    environment: Environment
    ports: Ports
    secrets: Secrets

    @classmethod
    def of(cls, settings: Settings) -> "System":
        ports = Ports(settings.state, avoid=frozenset({settings.port}))
        return cls(settings, Environment.of(settings), ports, Secrets(settings.state))

    @property
    def postgresql(self) -> PostgreSQL:
        folder = self.settings.servers / "postgresql"
        most = sum(map(connection_limit, OWNERS)) + SPARE_CONNECTIONS
        return PostgreSQL(folder, self.ports.of("postgresql"), self.secrets.password("postgresql"), most)

    @property
    def epmd(self) -> Epmd:
        return Epmd(self.settings.servers / "rabbitmq", self.ports.of("epmd"))

    @property
    def rabbitmq(self) -> RabbitMQ:
        return RabbitMQ(
            self.settings.servers / "rabbitmq",
            port=self.ports.of("rabbitmq"),
            distribution_port=self.ports.of("rabbitmq-distribution"),
            epmd_port=self.epmd.port,
            password=self.secrets.password("rabbitmq"),
        )

    @property
    def redis(self) -> Redis:
        return Redis(self.settings.servers / "redis", self.ports.of("redis"), self.secrets.password("redis"))

    @property
    def internal_url(self) -> str:
        """The gateway's internal listener."""
        return f"http://127.0.0.1:{self.ports.of('gateway-internal')}"

    @property
    def health_targets(self) -> Path:
        """The file that tells auth which processes `/health/detailed` asks."""
        return self.settings.run / "health-targets.json"

    def server_programs(self) -> list[Program]:
        """PostgreSQL, RabbitMQ with its port mapper, and Redis, in the order to start them."""
        staged = ((self.postgresql, SERVERS), (self.epmd, PORT_MAPPER), (self.redis, SERVERS), (self.rabbitmq, SERVERS))
        for server, _ in staged:
            server.prepare()
        return [of_server(server, self.settings.logs, server.port, stage) for server, stage in staged]

    def programs(self) -> list[Program]:
        """Services, workers and the simulator in their default number."""
        replicas = [self.replica(kind, number) for kind in KINDS for number in range(1, kind.replicas + 1)]
        return [*replicas, self.simulator()]

    def replica(self, kind: Kind, number: int) -> Program:
        """The `number`-th process of a kind, counted from 1."""
        name = f"{kind.service}-{number}"
        port = self.ports.of(name)
        return self._python(name, kind, port, self.environment_of(kind.owner, port))

    def simulator(self) -> Program:
        """The vendors' simulators and the webhook receiver, one process."""
        port = self.ports.of(SIMULATOR)
        variables = {
            "SIMULATORS_PORT": str(port),
            "SIMULATORS_DATA_DIR": str(self.settings.state / "simulators"),
            "SIMULATORS_WEBHOOK_SECRET": self.secrets.webhook_secret("webhook"),
        }
        return self._python(SIMULATOR, SIMULATOR_KIND, port, variables)

    def environment_of(self, owner: str, port: int) -> dict[str, str]:
        """The settings of one of the service's processes, as variables with its prefix."""
        simulator = f"127.0.0.1:{self.ports.of(SIMULATOR)}"
        values = {
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "DATABASE_URL": self.database_url(owner),
            "BROKER_URL": self.rabbitmq.url(),
            "CACHE_URL": self.redis.url(),
            "INTERNAL_URL": self.internal_url,
            "SERVICE_CLIENT_SECRET": self.secrets.password(f"client:{owner}"),
            "OUTBOUND_ALLOWED_HOSTS": simulator,
        }
        match owner:
            case "auth":
                clients = (f"{name}:{self.secrets.password(f'client:{name}')}" for name in OWNERS if name != "auth")
                values["CLIENT_SECRETS"] = ",".join(clients)
                values["KEY_ENCRYPTION_KEYS"] = self.secrets.key_ring("keys:auth")
                values["HEALTH_TARGETS"] = str(self.health_targets)
            case "workflows":
                values["SECRET_KEYS"] = self.secrets.key_ring("keys:workflows")
            case "crm-sync":
                values["CREDENTIAL_KEYS"] = self.secrets.key_ring("keys:crm-sync")
                values["HUBSPOT_BASE_URL"] = f"http://{simulator}"
        return {f"{_prefix(owner)}{name}": value for name, value in values.items()}

    def database_url(self, owner: str) -> str:
        """The connection string of a service's role."""
        name = database_of(owner)
        password = self.secrets.password(f"database:{owner}")
        return f"postgresql://{name}:{password}@127.0.0.1:{self.postgresql.port}/{name}"

    def base_environment(self) -> dict[str, str]:
        """What every Python process of the system gets, whatever it does."""
        return {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(self.settings.state),
            MARKER: str(self.settings.state),
            "PYTHONPYCACHEPREFIX": str(self.settings.bytecode),
            "PYTHONUNBUFFERED": "1",
            "MALLOC_ARENA_MAX": "2",  # threads of their own arenas cost memory and win nothing here
        }

    def write_health_targets(self, programs: list[Program]) -> None:
        """Tells auth which processes there are."""
        targets = {one.name: f"http://127.0.0.1:{one.port}" for one in programs if kind_of(one.service)}
        write_json(self.health_targets, targets)

    def _python(self, name: str, kind: Kind, port: int, variables: dict[str, str]) -> Program:
        return Program(
            name=name,
            service=kind.service,
            argv=(str(self.environment.python), "-m", kind.module),
            cwd=str(REPOSITORY),
            env={**self.base_environment(), **variables},
            log=str(self.settings.logs / f"{name}.log"),
            stage=kind.stage,
            port=port,
        )


def _prefix(owner: str) -> str:
    return owner.upper().replace("-", "_") + "_"
