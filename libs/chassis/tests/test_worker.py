"""A worker's duties: they outlive faults and lost connections, and let go when the process is told to stop."""

import asyncio
import os
import signal
from collections.abc import Callable

import asyncpg
import pytest

from chassis import listening
from chassis.listening import Listener
from chassis.whole_answers import _Corked
from chassis.worker import Periodic, running
from tests.support.fixtures import NewDatabase, eventually, owner_dsn
from tests.support.servers import TestServers


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The signals that were sent, instead of sending them."""
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    return sent


class Counting:
    """A duty's work: raises `faults` one after the other, then counts."""

    def __init__(self, *faults: Exception) -> None:
        self.times = 0
        self._faults = list(faults)

    async def __call__(self) -> None:
        if self._faults:
            raise self._faults.pop(0)
        self.times += 1

    def at_least(self, times: int) -> Callable[[], object]:
        async def check() -> bool:
            return self.times >= times

        return check


async def test_a_duty_goes_on_after_faults_and_trouble_and_at_once_when_it_is_woken(
    signals: list[tuple[int, int]],
) -> None:
    work, again = Counting(ValueError("a fault"), ConnectionResetError("trouble")), Counting()
    often, seldom = Periodic("often", 0.02, work), Periodic("seldom", 3600, again)
    async with running([often, seldom], drain_seconds=1):
        await eventually(work.at_least(2), seconds=2)  # type: ignore[arg-type]
        await eventually(again.at_least(1), seconds=2)  # type: ignore[arg-type]
        seldom.wake()
        await eventually(again.at_least(2), seconds=2)  # type: ignore[arg-type]
    assert signals == []


class Duty:
    """A duty that needs a moment to let go of what it holds, or never does."""

    def __init__(self, name: str, *, lets_go: bool = True, fails: bool = False) -> None:
        self.name = name
        self.state = "held"
        self._lets_go = lets_go
        self._fails = fails

    async def run(self, stopping: asyncio.Event) -> None:
        try:
            if self._fails:
                raise ZeroDivisionError
            await stopping.wait()
            await asyncio.sleep(0.1 if self._lets_go else 60)
            self.state = "let go"
        except asyncio.CancelledError:
            self.state = "cut off"
            raise


async def test_duties_finish_what_they_hold_and_one_that_does_not_is_cut_off_in_time() -> None:
    good, bad = Duty("good"), Duty("bad", lets_go=False)
    async with asyncio.timeout(3), running([good, bad], drain_seconds=0.5):
        pass
    assert (good.state, bad.state) == ("let go", "cut off")


async def test_a_duty_that_ends_by_a_fault_ends_the_process(signals: list[tuple[int, int]]) -> None:
    async with running([Duty("good"), Duty("bad", fails=True)], drain_seconds=1):

        async def is_told() -> bool:
            return bool(signals)

        await eventually(is_told)
        assert signals == [(os.getpid(), signal.SIGTERM)]


async def test_notifications_are_heard_and_a_lost_connection_is_made_anew(
    new_database: NewDatabase, servers: TestServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "RECONNECT_SECONDS", 0.05)
    dsn = await new_database("chassis")
    heard: list[str] = []
    opened: list[None] = []
    listener = Listener(dsn, "work", heard.append, opened=lambda: opened.append(None))

    async def is_open(times: int) -> bool:
        return len(opened) == times

    async def hears(*payloads: str) -> bool:
        return heard == list(payloads)

    owner = await asyncpg.connect(owner_dsn(servers, dsn))
    async with running([listener], drain_seconds=1):
        await eventually(lambda: is_open(1), seconds=3)
        await owner.execute("NOTIFY work, 'one'")
        await eventually(lambda: hears("one"), seconds=3)
        await owner.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'listen-work'"
            " AND datname = current_database()"
        )
        await eventually(lambda: is_open(2), seconds=3)
        await owner.execute("NOTIFY work, 'two'")
        await eventually(lambda: hears("one", "two"), seconds=3)
    await owner.close()


class Wire(asyncio.Transport):
    """What goes over a connection, call by call."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


async def test_an_answers_head_and_body_leave_in_one_piece_also_before_the_end_of_the_connection() -> None:
    wire = Wire()
    corked = _Corked(wire)
    corked.write(b"head ")
    corked.write(b"body")
    assert wire.sent == []
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert wire.sent == [b"head body"]
    corked.write(b"last ")
    corked.write(b"answer")
    corked.close()
    assert (wire.sent[1:], wire.closed) == ([b"last answer"], True)
    await asyncio.sleep(0)
    assert len(wire.sent) == 2
