"""Every accepted write's event gets to everybody who reads it, whatever becomes of the broker."""

import asyncio
import shutil
import signal

import pytest

from tests.guarantees.consumers import all_taken, dead_letter_counts, missing_events
from tests.guarantees.history import History, load
from tests.support.fixtures import eventually
from tests.support.processes import ServiceProcess
from tests.support.system import Client, RunningSystem

READERS = ("leads-worker-1", "workflows-worker-1", "crm-sync-worker-1")


async def test_rabbitmq_away_for_20_seconds_under_writes_costs_no_write_and_no_event(
    system: RunningSystem, client: Client
) -> None:
    """It stands still before it dies: what was sent to it meanwhile it has never confirmed."""
    history = History()
    async with load(client, history, per_second=10):
        await asyncio.sleep(0.5)
        system.signal_server("rabbitmq", signal.SIGSTOP)
        await asyncio.sleep(1)
        await asyncio.to_thread(system.kill_server, "rabbitmq")
        await asyncio.sleep(20)
        await asyncio.to_thread(system.launch_server, "rabbitmq")
        # And once more in an orderly way: its clients are told.
        await asyncio.to_thread(system.stop_server, "rabbitmq")
        await asyncio.to_thread(system.launch_server, "rabbitmq")
    assert set(history.statuses) == {201}
    assert not history.unknown
    await history.check(system)
    await eventually(lambda: all_taken(system, history.ok.values()), seconds=30)


async def test_a_broker_that_lost_its_disk_is_refilled_from_the_outboxes(system: RunningSystem, client: Client) -> None:
    """Events sit in the queues of readers that are away; then everything the broker held is gone."""
    for name in READERS:
        system.kill(name)
    history = History()
    for _ in range(10):
        await history.create(client)
    await eventually(lambda: published(system, history), seconds=20)
    await asyncio.to_thread(system.kill_server, "rabbitmq")
    shutil.rmtree(system.system.rabbitmq.folder / "data")
    await asyncio.to_thread(system.launch_server, "rabbitmq")
    await history.create(client)
    for name in READERS:
        system.spawn(name)
    system.wait_ready(*READERS)
    missing = await missing_events(system, history.ok.values())
    assert missing["crm-sync.leads"] >= 10
    for owner in ("auth", "leads", "workflows", "crm_sync"):
        await announce_again(system, owner)
    await eventually(lambda: all_taken(system, history.ok.values()), seconds=30)
    assert not any((await dead_letter_counts(system)).values())


async def published(system: RunningSystem, history: History) -> bool:
    rows = await system.sql(
        "leads",
        "SELECT count(*) AS n FROM outbox WHERE subject = ANY($1::text[]) AND published_at IS NULL",
        list(history.ok.values()),
    )
    return bool(rows[0]["n"] == 0)


async def announce_again(system: RunningSystem, package: str) -> None:
    owner = package.replace("_", "-")
    environment = {**system.system.base_environment(), **system.system.environment_of(owner, 1)}
    assert await ServiceProcess("chassis.announce_again", environment, package).exit_code() == 0


@pytest.mark.parametrize("seconds", [3, pytest.param(60, marks=[pytest.mark.long, pytest.mark.timeout(180)])])
async def test_a_broker_with_a_memory_alarm_stops_neither_writes_nor_acknowledgements(
    system: RunningSystem, client: Client, seconds: int
) -> None:
    history = History()
    async with load(client, history, per_second=20):
        await asyncio.to_thread(system.rabbitmqctl, "set_vm_memory_high_watermark", "0.0000001")
        await asyncio.sleep(seconds)
        await asyncio.to_thread(system.rabbitmqctl, "set_vm_memory_high_watermark", "0.6")
    assert set(history.statuses) == {201}
    await eventually(lambda: all_taken(system, history.ok.values()), seconds=40)


async def test_events_published_before_their_readers_first_start_wait_for_them(
    system: RunningSystem, client: Client
) -> None:
    """An empty broker and nobody but leads: the queues of the others are declared all the same."""
    away = [*READERS, "auth-1", "workflows-1", "crm-sync-1"]
    for name in away:
        system.kill(name)
    await asyncio.to_thread(system.kill_server, "rabbitmq")
    shutil.rmtree(system.system.rabbitmq.folder / "data")
    await asyncio.to_thread(system.launch_server, "rabbitmq")
    history = History()
    for _ in range(20):
        await history.create(client)
    await eventually(lambda: published(system, history), seconds=30)
    for name in away:
        system.spawn(name)
    system.wait_ready(*away)
    await eventually(lambda: all_taken(system, history.ok.values()), seconds=30)
