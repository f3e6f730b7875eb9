"""The whole system for tests that break it: real servers, every service process, the gateway; no supervisor, so that what a
test kills stays dead until the test starts it again."""

import asyncio
import dataclasses
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx2

from chassis.trouble import is_connection_lost
from deploy.local import databases, gateway, seeding
from deploy.local.environment import Environment
from deploy.local.program import Program
from deploy.local.programs import System, database_of
from deploy.local.readiness import status_of
from deploy.local.servers import Launched, free_ports, launch, stop, wait_ready
from deploy.local.settings import REPOSITORY, Settings
from tests.support.processes import ServiceProcess
from tests.support.servers import end_at_once

READY_SECONDS = 60
SHORT_LEASES = {
    "WORKFLOWS_LEASE_SECONDS": "6",
    "CRM_SYNC_LEASE_SECONDS": "6",
    "CRM_SYNC_CALL_TIMEOUT_SECONDS": "2",
    "CRM_SYNC_VENDOR_TIMEOUT_SECONDS": "4",
    "CRM_SYNC_PAUSE_CAP_SECONDS": "5",
}
"""A test waits for the end of a dead worker's lease."""
STOP_SECONDS = 40
SERVERS = ("epmd", "postgresql", "redis", "rabbitmq")


class RunningSystem:
    """Processes and servers by name, as `deploy.local` names them: `leads-1`, `crm-sync-worker-1`, `gateway`, `rabbitmq`, …"""

    def __init__(self, folder: Path) -> None:
        settings = Settings(state=folder, port=free_ports(1)[0], admin_password=secrets.token_urlsafe(16))
        for each in (settings.logs, settings.run):
            each.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Compiled files are shared with whoever runs the tests: compiling them takes longer than starting the system.
        shared = Path(sys.pycache_prefix or REPOSITORY / ".state" / "bytecode")
        shared.mkdir(parents=True, exist_ok=True, mode=0o700)
        settings.bytecode.symlink_to(shared)
        self.system = dataclasses.replace(System.of(settings), environment=Environment(Path(sys.prefix)))
        self.settings = settings
        self.programs: dict[str, Program] = {}
        self.processes: dict[str, ServiceProcess | subprocess.Popen[bytes]] = {}
        self._servers: dict[str, Launched] = {}
        self._pools: dict[str, asyncpg.Pool] = {}
        self._wanted: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        return self.settings.address

    def start(self) -> None:
        """Servers, databases, seeds, services; returns when every process is ready."""
        for name in SERVERS:
            self.launch_server(name, wait=name == "epmd")
        wait_ready(*self._servers.values(), seconds=READY_SECONDS)
        databases.bring_up_to_date(self.system)
        programs = self.system.programs()
        self.system.write_health_targets(programs)
        programs.append(gateway.prepare(self.system, programs))
        self.programs = {program.name: program for program in programs}
        for name in self.programs:
            self.spawn(name)
        seeding.seed_databases(self.system)
        self.wait_ready(*self.programs)
        self._wanted = tuple(self.programs)

    def put_right(self) -> None:
        """Start again what a test that failed has left dead."""
        for name in SERVERS:
            if name not in self._servers:
                self.launch_server(name)
        self.revive(*self._wanted)

    def stop(self) -> None:
        """End everything at once, and remove it."""
        for process in self.processes.values():
            process.kill()
            process.wait()
        end_at_once(self.settings.state, list(self._servers.values()))

    def spawn(self, name: str, **environment: str) -> None:
        """Start a process; `environment` adds to its variables, say `FAILPOINT="outbox.before_publish"`."""
        program = self.programs[name]
        variables = {**program.env, **SHORT_LEASES, **environment}
        match program.argv:
            case (_, "-m", module):
                self.processes[name] = ServiceProcess(module, variables, output=Path(program.log))
            case _:
                with Path(program.log).open("ab") as output:
                    self.processes[name] = subprocess.Popen(
                        program.argv, cwd=program.cwd, env=variables, stdout=output, stderr=output
                    )

    def signal(self, name: str, number: int) -> None:
        self.processes[name].send_signal(number)

    def kill(self, name: str) -> None:
        """SIGKILL, and wait until it is gone."""
        self.processes[name].kill()
        self.processes.pop(name).wait(10)

    def terminate(self, name: str) -> int:
        """Ask it to stop as a supervisor does, and wait; its exit code."""
        process = self.processes.pop(name)
        process.send_signal(self.programs[name].stop_signal)
        try:
            return process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
            raise

    def respawn(self, name: str, **environment: str) -> None:
        """Stop a process and start it with other variables; returns when it is ready."""
        self.terminate(name)
        self.spawn(name, **environment)
        self.wait_ready(name)

    def revive(self, *names: str) -> None:
        """Start those that do not run; returns when they are ready."""
        dead = [name for name in names if name not in self.processes or self.processes[name].poll() is not None]
        for name in dead:
            self.spawn(name)
        self.wait_ready(*dead)

    async def died(self, name: str, seconds: float = 20) -> int:
        """Wait until a process has ended by itself (at its failpoint, say); its exit code."""
        process = self.processes[name]
        async with asyncio.timeout(seconds):
            while (code := process.poll()) is None:
                await asyncio.sleep(0.02)
        del self.processes[name]
        return code

    def wait_ready(self, *names: str) -> None:
        """Return when each answers that it is ready; an AssertionError shows the end of the log of one that does not."""
        deadline = time.monotonic() + READY_SECONDS
        for name in names:
            program = self.programs[name]
            path = "/health" if name == "gateway" else "/health/ready"
            while status_of(dataclasses.replace(program, port=self._port(program)), path) != 200:
                if self.processes[name].poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"{name} is not ready:\n{self.log(name)[-3000:]}")
                time.sleep(0.05)

    def _port(self, program: Program) -> int:
        return self.settings.port if program.port is None else program.port

    def log(self, name: str) -> str:
        return Path(self.programs[name].log).read_text(errors="replace")

    def launch_server(self, name: str, *, wait: bool = True) -> None:
        """Start PostgreSQL, RabbitMQ, its port mapper or Redis."""
        self._servers[name] = launch(getattr(self.system, name), self.settings.logs)
        if wait:
            wait_ready(self._servers[name], seconds=READY_SECONDS)

    def stop_server(self, name: str) -> None:
        stop(self._servers.pop(name))

    def signal_server(self, name: str, number: int) -> None:
        """Send a signal to a server and everything in its session."""
        os.killpg(self._servers[name].pid, number)

    def kill_server(self, name: str) -> None:
        """SIGKILL to a server and everything in its session."""
        self.signal_server(name, signal.SIGKILL)
        self._servers.pop(name).process.wait(10)

    def rabbitmqctl(self, *words: str) -> str:
        """Run RabbitMQ's own control program; its output."""
        server = self.system.rabbitmq
        program = Path(server.command().argv[0]).with_name("rabbitmqctl")
        done = subprocess.run(
            [str(program), *words],
            env=dict(server.environment()),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    async def sql(self, owner: str, statement: str, *values: Any) -> list[asyncpg.Record]:
        """Ask a service's database as its owner."""
        if owner not in self._pools:
            dsn = self.system.postgresql.dsn(database_of(owner))
            self._pools[owner] = await asyncpg.create_pool(dsn, min_size=0, max_size=4)
        pool = self._pools[owner]
        try:
            return list(await pool.fetch(statement, *values))
        except Exception as error:
            if not is_connection_lost(error):
                raise
            # A connection of before a restart, most likely; the statement has to bear being repeated.
            await pool.expire_connections()
            return list(await pool.fetch(statement, *values))

    async def close(self) -> None:
        """Let go of the connections of `sql`."""
        for pool in self._pools.values():
            await pool.close()

    async def sign_in(self) -> "Client":
        """A client of the gateway, signed in as the administrator."""
        client = Client(self.url)
        answer = await client.post(
            "/api/auth/login",
            {"email": self.settings.admin_email, "password": self.settings.admin_password},
        )
        assert answer.status_code == 200, answer.text
        client.authorise(answer.json()["access_token"])
        return client

    async def sign_in_as(self, other: "Client") -> "Client":
        """Another client, with connections of its own, in the session of `other`."""
        client = Client(self.url)
        client.http.headers["Authorization"] = other.http.headers["Authorization"]
        return client

    @property
    def simulator_url(self) -> str:
        return f"http://127.0.0.1:{self.system.ports.of('simulator')}"


class Client:
    """The gateway as a user's program sees it; it repeats nothing by itself."""

    def __init__(self, url: str) -> None:
        self.http = httpx2.AsyncClient(base_url=url, timeout=30, trust_env=False)

    async def close(self) -> None:
        await self.http.aclose()

    def authorise(self, token: str) -> None:
        self.http.headers["Authorization"] = f"Bearer {token}"

    async def get(self, path: str, **headers: str) -> httpx2.Response:
        return await self.http.get(path, headers=_dashed(headers))

    async def post(self, path: str, body: Any = None, **headers: str) -> httpx2.Response:
        return await self.http.post(path, json=body, headers=_dashed(headers))

    async def put(self, path: str, body: Any, **headers: str) -> httpx2.Response:
        return await self.http.put(path, json=body, headers=_dashed(headers))

    async def patch(self, path: str, body: Any, **headers: str) -> httpx2.Response:
        return await self.http.patch(path, json=body, headers=_dashed(headers))

    async def delete(self, path: str, **headers: str) -> httpx2.Response:
        return await self.http.delete(path, headers=_dashed(headers))


def _dashed(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


@contextmanager
def running_system() -> Iterator[RunningSystem]:
    """A system below the state folder's test folder, gone at the end."""
    parent = Path(os.environ.get("STATE_DIR", REPOSITORY / ".state")).resolve() / "test"
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = Path(tempfile.mkdtemp(prefix="system-", dir=parent))
    system = RunningSystem(folder)
    try:
        system.start()
        yield system
    finally:
        system.stop()
