"""The servers that tests run against: PostgreSQL, RabbitMQ with its management API, and Redis, real and private.

A set lives for one pytest session, or is kept running while somebody works:

    python -m tests.support.servers start FILE     # then: export AO_TEST_SERVERS=FILE
    python -m tests.support.servers stop FILE
"""

import argparse
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from deploy.local import orphans
from deploy.local.servers import Epmd, Launched, PostgreSQL, RabbitMQ, Redis, free_ports, launch, wait_ready
from deploy.local.servers.launch import private_file

REPOSITORY = Path(__file__).resolve().parents[2]
RUNNING_SET = "AO_TEST_SERVERS"
OWNER_FILE = "owner.pid"
STOP_SECONDS = 20


@dataclass(frozen=True)
class TestServers:
    """Where the servers are. `postgres_dsn` is a superuser's; `folder` holds data and logs of all of them."""

    __test__ = False

    postgres_dsn: str
    amqp_url: str
    management_url: str
    redis_url: str
    folder: str

    @classmethod
    def load(cls, path: Path) -> "TestServers":
        """Reads the file that `start` wrote."""
        return cls(**json.loads(path.read_text()))

    def save(self, path: Path) -> None:
        """Writes the file that `load` reads, for its owner only."""
        private_file(path, json.dumps(asdict(self), indent=1) + "\n")


@contextmanager
def test_servers() -> Iterator[TestServers]:
    """The running set named by AO_TEST_SERVERS, or a set of this session's own that ends with it."""
    running = os.environ.get(RUNNING_SET)
    if running:
        yield TestServers.load(Path(running))
        return
    state = Path(os.environ.get("STATE_DIR", REPOSITORY / ".state")).resolve()
    parent = state / "test"
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _remove_abandoned(parent)
    folder = Path(tempfile.mkdtemp(prefix="servers-", dir=parent))
    (folder / OWNER_FILE).write_text(str(os.getpid()))
    started: list[Launched] = []
    try:
        yield start_servers(folder, started)
    finally:
        end_at_once(folder, started)


test_servers.__test__ = False  # type: ignore[attr-defined]  # pytest: not a test, in spite of its name


@contextmanager
def shared_test_servers() -> Iterator[None]:
    """The set of `test_servers`, for the processes that this one starts meanwhile."""
    if os.environ.get(RUNNING_SET):
        yield
        return
    with test_servers() as running:
        file = Path(running.folder) / "servers.json"
        running.save(file)
        os.environ[RUNNING_SET] = str(file)
        try:
            yield
        finally:
            del os.environ[RUNNING_SET]


def start_servers(folder: Path, started: list[Launched]) -> TestServers:
    """Starts a set below `folder` and appends each server to `started` at once, so that a failure can stop the rest."""
    ports = free_ports(6)
    password = secrets.token_urlsafe(24)
    postgres = PostgreSQL(folder / "postgresql", ports[0], password, max_connections=300)
    redis = Redis(folder / "redis", ports[1], password)
    epmd = Epmd(folder / "rabbitmq", ports[2])
    rabbit = RabbitMQ(folder / "rabbitmq", ports[3], ports[4], ports[2], password, management_port=ports[5])
    logs = folder / "logs"
    started.append(launch(epmd, logs))
    wait_ready(started[0])
    for server in (rabbit, postgres, redis):
        started.append(launch(server, logs))
    wait_ready(*started, seconds=120)
    management = rabbit.management_url()
    assert management is not None
    return TestServers(postgres.dsn(), rabbit.url(), management, redis.url(), str(folder))


def end_at_once(folder: Path, started: Iterable[Launched]) -> None:
    """End the servers, and whatever else belongs to `folder`: nobody needs their data any more.

    PostgreSQL shuts down immediately (SIGQUIT): killed, it would leave its shared memory behind until the machine restarts.
    """
    for one in started:
        if isinstance(one.server, PostgreSQL):
            one.process.send_signal(signal.SIGQUIT)
            one.process.wait(STOP_SECONDS)
    orphans.end(orphans.processes_of(folder), 0)
    for one in started:
        one.process.wait()
    shutil.rmtree(folder, ignore_errors=True)


def _start(path: Path) -> None:
    if path.exists():
        sys.exit(f"{path} exists: a set runs already, or stop it first: python -m tests.support.servers stop {path}")
    folder = path.resolve().with_suffix("")
    folder.mkdir(parents=True, mode=0o700)
    started: list[Launched] = []
    try:
        servers = start_servers(folder, started)
    except BaseException:
        end_at_once(folder, started)
        raise
    servers.save(path)
    sys.stdout.write(f"The servers run. To use them: export {RUNNING_SET}={path.resolve()}\n")


def _stop(path: Path) -> None:
    folder = Path(TestServers.load(path).folder)
    orphans.end(orphans.processes_of(folder), STOP_SECONDS)
    shutil.rmtree(folder)
    path.unlink()


def _remove_abandoned(parent: Path) -> None:
    """Ends what sessions left that were killed themselves, and removes their folders."""
    for folder in parent.glob("servers-*"):
        try:
            owner = int((folder / OWNER_FILE).read_text())
        except (FileNotFoundError, ValueError):
            continue  # one that is just being made
        if not orphans.is_alive(owner):
            orphans.end(orphans.processes_of(folder), STOP_SECONDS)
            shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.support.servers", description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["start", "stop"])
    parser.add_argument("file", type=Path)
    arguments = parser.parse_args()
    (_start if arguments.action == "start" else _stop)(arguments.file)


if __name__ == "__main__":
    main()
