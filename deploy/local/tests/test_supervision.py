"""The supervisor restarts what dies, stops in order, and leaves nothing behind, however it ends itself."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.local import checks, orphans
from deploy.local.control import Control, NoSupervisor
from deploy.local.errors import Refused
from deploy.local.program import GATEWAY, SERVICES, Program
from deploy.local.servers.launch import MARKER
from deploy.local.settings import Settings
from deploy.local.stop import stop_everything

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(600)"
)


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """A state folder with a deep path, as long as socket addresses may not be."""
    made = Settings(state=tmp_path / ("long" * 30) / "state")
    checks.make_state_folder(made)
    yield made
    stop_everything(made)


@pytest.fixture
def supervisor(settings: Settings) -> Iterator["subprocess.Popen[bytes]"]:
    """A supervisor as `make run` starts it."""
    with Control(settings).spawn() as process:
        yield process
        stop_everything(settings)


@pytest.fixture
def control(settings: Settings, supervisor: "subprocess.Popen[bytes]") -> Control:
    return Control(settings)


def _program(settings: Settings, name: str, *words: str, stage: int = SERVICES, stop_seconds: float = 30) -> Program:
    return Program(
        name=name,
        service=name,
        argv=words or ("sleep", "600"),
        cwd=str(settings.state),
        env={MARKER: str(settings.state), "PATH": os.environ["PATH"]},
        log=str(settings.logs / f"{name}.log"),
        stage=stage,
        stop_seconds=stop_seconds,
    )


def _pid(control: Control, name: str) -> int | None:
    return next(one.pid for one in control.programs() if one.program.name == name)


def _eventually(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_what_dies_is_started_again(
    settings: Settings, control: Control, supervisor: "subprocess.Popen[bytes]"
) -> None:
    control.start(_program(settings, "leads-1"))
    first = _pid(control, "leads-1")
    assert first is not None
    os.kill(first, signal.SIGKILL)
    _eventually(lambda: _pid(control, "leads-1") not in (None, first))
    assert (settings.run / "leads-1.pid").read_text().strip() == str(_pid(control, "leads-1"))
    assert "ended with code -9" in (settings.logs / "leads-1.log").read_text()
    control.shutdown()
    assert supervisor.wait(5) == 0


def test_what_keeps_dying_is_started_ever_more_seldom(settings: Settings, control: Control) -> None:
    control.start(_program(settings, "broken", "false"))
    time.sleep(1.5)
    restarts = next(one.restarts for one in control.programs())
    assert 2 <= restarts <= 5  # after 0.1, 0.2, 0.4, 0.8 s


def test_the_children_of_a_dead_process_do_not_stay_in_the_next_ones_way(settings: Settings, control: Control) -> None:
    control.start(_program(settings, "master", "sh", "-c", "sleep 600 & echo $! >> children; wait"))
    children = settings.state / "children"
    _eventually(children.exists)
    _eventually(lambda: bool(children.read_text()))
    first = int(children.read_text())
    master = _pid(control, "master")
    assert master is not None
    os.kill(master, signal.SIGKILL)
    _eventually(lambda: len(children.read_text().split()) == 2)
    assert not orphans.is_alive(first)


def test_stopping_waits_for_the_process_and_kills_it_only_when_it_is_late(settings: Settings, control: Control) -> None:
    control.start(_program(settings, "stubborn", sys.executable, "-c", STUBBORN, stop_seconds=0.5))
    pid = _pid(control, "stubborn")
    assert pid is not None
    _eventually(lambda: "on" in (settings.logs / "stubborn.log").read_text())
    control.stop("stubborn")
    assert not orphans.is_alive(pid)
    assert control.programs() == []


def test_a_program_that_does_not_exist_is_refused_and_not_kept(settings: Settings, control: Control) -> None:
    with pytest.raises(Refused, match="FileNotFoundError"):
        control.start(_program(settings, "absent", "/no/such/program"))
    assert control.programs() == []


def test_shutdown_stops_later_stages_first(settings: Settings, control: Control) -> None:
    script = "trap 'echo $0 >> order; exit 0' TERM; echo on; while :; do sleep 0.05; done"
    for name, stage in (("service", SERVICES), ("gateway", GATEWAY)):
        control.start(_program(settings, name, "sh", "-c", script, name, stage=stage))
        log = settings.logs / f"{name}.log"
        _eventually(lambda log=log: "on" in log.read_text())  # type: ignore[misc]
    control.shutdown()
    assert (settings.state / "order").read_text().split() == ["gateway", "service"]
    with pytest.raises(NoSupervisor):
        control.programs()


def test_a_start_whose_starter_dies_leaves_nothing_running(
    settings: Settings, control: Control, supervisor: "subprocess.Popen[bytes]"
) -> None:
    control.start(_program(settings, "leads-1"))
    assert supervisor.stdin is not None
    supervisor.stdin.close()  # what the kernel does for a starter that dies
    supervisor.wait(10)
    assert orphans.processes_of(settings.state) == []


def test_a_system_that_is_ready_outlives_its_starter(
    settings: Settings, control: Control, supervisor: "subprocess.Popen[bytes]"
) -> None:
    control.start(_program(settings, "leads-1"))
    control.mark_ready()
    assert supervisor.stdin is not None
    supervisor.stdin.close()
    time.sleep(0.3)
    assert control.is_ready()
    assert _pid(control, "leads-1") is not None


def test_stop_ends_everything_after_the_supervisor_was_killed(
    settings: Settings, control: Control, supervisor: "subprocess.Popen[bytes]"
) -> None:
    control.start(_program(settings, "leads-1"))
    control.start(_program(settings, "stubborn", "sh", "-c", "sleep 600; true"))
    supervisor.kill()
    supervisor.wait()
    assert len(orphans.processes_of(settings.state)) >= 2
    assert stop_everything(settings) is True
    assert orphans.processes_of(settings.state) == []
    assert list(settings.run.glob("*.pid")) == []
    assert stop_everything(settings) is False


def test_stop_ends_everything_while_the_supervisor_hangs(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, control: Control, supervisor: "subprocess.Popen[bytes]"
) -> None:
    monkeypatch.setattr("deploy.local.control.SHUTDOWN_SECONDS", 0.5)
    control.start(_program(settings, "leads-1"))
    supervisor.send_signal(signal.SIGSTOP)
    stop_everything(settings)
    supervisor.wait(5)
    assert orphans.processes_of(settings.state) == []


def test_processes_of_another_state_folder_and_of_test_runs_are_left_alone(settings: Settings, tmp_path: Path) -> None:
    homes = [tmp_path / "elsewhere", settings.tests / "servers-1", settings.state.with_name("state-2")]
    others = [subprocess.Popen(["sleep", "600"], env={MARKER: str(home)}) for home in homes]
    try:
        assert stop_everything(settings) is False
        assert all(orphans.is_alive(other.pid) for other in others)
    finally:
        for other in others:
            other.kill()
            other.wait()


def test_a_shell_that_works_in_the_state_folder_is_left_alone(settings: Settings) -> None:
    with subprocess.Popen(["sleep", "600"], cwd=settings.logs, env={}) as shell:
        try:
            assert orphans.processes_of(settings.state) == []
        finally:
            shell.kill()
