"""One system, started as a user starts it: what the commands say, that it heals, scales without a failed request, and stops."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from deploy.local import orphans
from deploy.local.api import Api, ApiRefused
from deploy.local.control import Control, Kept
from deploy.local.errors import Refused
from deploy.local.programs import KINDS, System
from deploy.local.seeding import sign_in
from deploy.local.servers import free_ports
from deploy.local.settings import REPOSITORY, Settings
from tests.support.load import Load

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]


class CommandLine:
    """`python -m deploy.local` on one state folder and port."""

    def __init__(self, state: Path, port: int) -> None:
        self.settings = Settings(state=state, port=port)
        self.control = Control(self.settings)

    def __call__(self, *words: str, port: int | None = None) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, "STATE_DIR": str(self.settings.state), "PORT": str(port or self.settings.port)}
        command = [sys.executable, "-m", "deploy.local", *words]
        return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)

    def sign_in(self) -> Api:
        return sign_in(System.of(self.settings))

    def kept(self, name: str) -> Kept:
        return next(one for one in self.control.programs() if one.program.name == name)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[CommandLine, str]]:
    """The system and what its start said."""
    system = CommandLine(tmp_path_factory.mktemp("system") / "state", free_ports(1)[0])
    done = system("run")
    assert done.returncode == 0, done.stdout + done.stderr
    yield system, done.stdout
    assert system("clean").returncode == 0


@pytest.fixture
def system(started: tuple[CommandLine, str]) -> CommandLine:
    return started[0]


@pytest.fixture
def api(system: CommandLine) -> Iterator[Api]:
    """The administrator's API."""
    with system.sign_in() as signed_in:
        yield signed_in


def _rows(system: CommandLine, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
    """What PostgreSQL answers its owner."""

    async def ask() -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(System.of(system.settings).postgresql.dsn(database))
        try:
            return [tuple(record) for record in await connection.fetch(statement)]
        finally:
            await connection.close()

    return asyncio.run(ask())


def _eventually(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def test_a_start_says_what_it_does_and_shows_a_leads_way_to_its_crm_id(started: tuple[CommandLine, str]) -> None:
    system, said = started
    before, _, way = said.partition("A lead's way")
    assert "system packages:" in before.splitlines()[1]
    assert str(system.settings.state) in before
    assert re.search(r"Ready in \d+\.\d s\.", before)
    hops = [
        "POST /api/leads",
        "accepted: 201",
        "event lead.created published",
        "matched: run_",
        "step assign",
        "step sync",
    ]
    hops += ["CRM request (hubspot", "CRM id ", "visible in GET /api/leads/{id}"]
    assert [hop for hop in hops if hop not in way] == []
    milliseconds = [float(found) for found in re.findall(r"^ +(\d+\.\d)  ", way, re.MULTILINE)]
    assert milliseconds == sorted(milliseconds)
    password = (system.settings.state / "admin-password").read_text().strip()
    assert said.count(password) == 1
    assert system.settings.address in way
    assert len(re.findall(r"^    make ", way, re.MULTILINE)) == 3


def test_a_second_run_says_that_it_runs_and_changes_nothing(system: CommandLine) -> None:
    before = [(one.program.name, one.pid) for one in system.control.programs()]
    done = system("run")
    assert (done.returncode, done.stdout.count("\n")) == (0, 1)
    assert "runs already" in done.stdout
    assert [(one.program.name, one.pid) for one in system.control.programs()] == before


def test_another_system_on_a_taken_port_is_refused_in_one_line_and_leaves_nothing(
    system: CommandLine, tmp_path: Path
) -> None:
    other = CommandLine(tmp_path / "state", system.settings.port)
    done = other("run")
    assert done.returncode == 1
    assert re.fullmatch(rf"run: port {system.settings.port} is taken: choose another, .*\n", done.stderr)
    assert orphans.processes_of(other.settings.state) == []


def test_the_demos_content_is_there(api: Api) -> None:
    names = [api.get(f"/api/leads/lead-{number}")["first_name"] for number in (1, 2, 3)]
    assert names == ["John", "Jane", "Bob"]
    assert [one["vendor"] for one in api.get("/api/crm/connections")["items"]] == ["hubspot"]
    assert [one["name"] for one in api.get("/api/workflows")["items"]] == ["Welcome good leads"]


def test_status_shows_every_process_ready_with_its_memory(system: CommandLine) -> None:
    done = system("status")
    assert done.returncode == 0
    rows = [line.split() for line in done.stdout.splitlines()[1 : done.stdout.splitlines().index("")]]
    names = {row[0] for row in rows}
    expected = {f"{kind.service}-{number}" for kind in KINDS for number in range(1, kind.replicas + 1)}
    assert names == expected | {"postgresql", "rabbitmq", "redis", "epmd", "gateway", "simulator", "supervisor"}
    assert [row for row in rows if row[-1] != "ready"] == []
    assert "memory of all" in done.stdout


def test_what_runs_is_found_without_saying_its_port_again(system: CommandLine) -> None:
    assert system.settings.address in system("status", port=8080).stdout
    assert system.settings.address in system("run", port=8080).stdout


def test_everything_listens_on_loopback_below_the_ephemeral_range(system: CommandLine) -> None:
    ports = {one.program.port for one in system.control.programs()}
    assert all(port is not None and port < 32_768 for port in ports)
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    addresses = {
        (fields[1].split(":")[0], int(fields[1].split(":")[1], 16)) for fields in listening if fields[3] == "0A"
    }
    ours = {address for address, port in addresses if port in ports}
    assert ours == {"0100007F"}


def test_secrets_are_their_owners_alone(system: CommandLine) -> None:
    state = system.settings.state
    assert state.stat().st_mode & 0o777 == 0o700
    for name in ("secrets.json", "admin-password", "ports.json", "seeded.json"):
        assert (state / name).stat().st_mode & 0o777 == 0o600
    secrets = json.loads((state / "secrets.json").read_text())
    for cmdline in (Path(f"/proc/{pid}/cmdline") for pid in orphans.processes_of(state)):
        words = cmdline.read_bytes().decode(errors="replace")
        assert not any(secret in words for secret in secrets.values())


def test_roles_own_nothing_and_have_a_limit_of_connections(system: CommandLine) -> None:
    roles = _rows(
        system,
        "SELECT rolname, rolsuper OR rolcreatedb OR rolcreaterole, rolconnlimit > 0 FROM pg_roles"
        " WHERE rolname IN ('auth', 'leads', 'workflows', 'crm_sync') ORDER BY 1",
    )
    assert roles == [(name, False, True) for name in ("auth", "crm_sync", "leads", "workflows")]
    owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'leads'"
    assert _rows(system, owner) == [("ao_owner",)]
    assert _rows(system, "SELECT has_database_privilege('auth', 'leads', 'CONNECT')") == [(False,)]


def test_scaling_up_and_down_fails_no_request(system: CommandLine) -> None:
    with Load(system.sign_in) as load:
        assert system("scale", "leads=3").returncode == 0
        assert [one.program.name for one in system.control.programs() if one.program.service == "leads"] == [
            "leads-1",
            "leads-2",
            "leads-3",
        ]
        assert system("scale", "leads=1").returncode == 0
        assert system("scale", "leads=2").returncode == 0
    assert load.failures == {}
    assert load.answers["POST 201"] > 20


@pytest.mark.parametrize("wish", ["leads=0", "leads=99", "leads=", "postgresql=2", "nothing=1"])
def test_a_number_of_replicas_that_can_not_be_had_is_refused(system: CommandLine, wish: str) -> None:
    done = system("scale", wish)
    assert done.returncode == 1
    assert done.stderr.startswith("scale: ")
    assert done.stderr.count("\n") == 1


def test_keys_rotate_without_an_invalid_token_and_credentials_stay_readable(system: CommandLine, api: Api) -> None:
    with Load(system.sign_in) as load:
        done = system("rotate-keys")
        assert done.returncode == 0, done.stdout + done.stderr
    assert load.created
    assert load.failures == {}
    assert api.get("/api/leads/lead-1")["id"] == "lead-1"
    stored = json.loads((system.settings.state / "secrets.json").read_text())
    for owner in ("crm-sync", "workflows"):
        assert [key.partition(":")[0] for key in stored[f"keys:{owner}"].split(",")] == ["k2", "k1"]
    connection = api.get("/api/crm/connections")["items"][0]["id"]
    assert api.send("POST", f"/api/crm/connections/{connection}/verify")


def test_events_are_announced_again_and_have_their_effect_no_second_time(system: CommandLine, api: Api) -> None:
    before = api.get("/api/leads/lead-1/timeline")
    one = system("announce-again", "leads")
    assert one.returncode == 0, one.stdout + one.stderr
    [count] = re.findall(r"leads: (\d+) events will be published again", one.stdout)
    assert int(count) >= 4
    unpublished = "SELECT FROM outbox WHERE published_at IS NULL"
    _eventually(lambda: _rows(system, unpublished, "leads") == [])
    everybody = system("announce-again")
    assert re.findall(r"(\w+): \d+ events", everybody.stdout) == ["auth", "leads", "workflows", "crm_sync"]
    assert api.get("/api/leads/lead-1/timeline") == before
    unknown = system("announce-again", "gateway")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (1, 1)


@pytest.mark.parametrize("name", ["leads-1", "gateway", "redis", "crm-sync-worker-1", "postgresql", "rabbitmq"])
def test_what_is_killed_comes_back_and_works(system: CommandLine, name: str) -> None:
    before = system.kept(name)
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)
    _eventually(lambda: system.kept(name).pid not in (None, before.pid))
    _eventually(lambda: b'"status":"ok"' in _health(system))


def _health(system: CommandLine) -> bytes:
    with Api(system.settings.port) as anybody:
        try:
            return anybody.ask("GET", "/health/detailed")[1][:64]
        except Refused:
            return b""


def test_stop_ends_everything_and_the_next_start_has_everything(system: CommandLine) -> None:
    with system.sign_in() as api:
        lead = api.send("POST", "/api/leads", {"email": "kept@example.com"})
        api.send("DELETE", "/api/leads/lead-3")
    ports = (system.settings.state / "ports.json").read_text()
    assert system("stop").returncode == 0
    assert orphans.processes_of(system.settings.state) == []
    assert system("status").returncode == 1
    done = system("run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (system.settings.state / "ports.json").read_text() == ports
    with system.sign_in() as api:
        assert api.get(f"/api/leads/{lead['id']}")["email"] == "kept@example.com"
        with pytest.raises(ApiRefused) as refused:
            api.get("/api/leads/lead-3")
    assert refused.value.status == 404
    password = (system.settings.state / "admin-password").read_text().strip()
    assert password not in done.stdout


def test_after_the_supervisor_was_killed_a_run_cleans_up_and_says_so(system: CommandLine) -> None:
    os.kill(int((system.settings.run / "supervisor.pid").read_text()), signal.SIGKILL)
    done = system("run")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "run this again" in done.stderr
    assert orphans.processes_of(system.settings.state) == []
    assert system("stop").stdout.strip() == "Nothing runs."
