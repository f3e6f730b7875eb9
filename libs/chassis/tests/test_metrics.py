"""What Prometheus is shown: states are looked at when it asks, and one that can not be looked at holds nobody up."""

import asyncio
import time
from contextlib import AsyncExitStack

import pytest
from prometheus_client import REGISTRY, Gauge

from chassis import metrics
from chassis.metrics import Observers, watch_loop
from tests.support.event_process import QUEUE, Effects, Process, consuming, dead_letters, process, user_event
from tests.support.fixtures import eventually

__all__ = ["process"]


def value(name: str, **labels: str) -> float:
    """A sample as it stands; 0 before its first."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_what_cannot_be_looked_at_is_counted_and_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "OBSERVE_SECONDS", 0.2)
    gauge = Gauge("observed_by_a_test", "Of this test.")
    observers = Observers()

    async def fine() -> None:
        gauge.set(7)

    async def fails() -> None:
        raise ConnectionError("away")

    async def hangs() -> None:
        await asyncio.Event().wait()

    for observe in (fails, hangs, fine):
        observers.add(observe.__name__, observe)
    began = time.monotonic()
    await observers.observe()
    assert time.monotonic() - began < 2
    assert value("observed_by_a_test") == 7
    assert [value("observations_missed_total", observer=name) for name in ("fails", "hangs", "fine")] == [1, 1, 0]
    REGISTRY.unregister(gauge)


async def test_a_loop_that_is_held_up_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "LAG_SECONDS", 0.01)
    before = value("event_loop_lag_seconds_sum")
    watching = asyncio.create_task(watch_loop())
    await asyncio.sleep(0.02)
    time.sleep(0.2)
    await asyncio.sleep(0.02)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert value("event_loop_lag_seconds_sum") - before > 0.15


async def test_the_outbox_and_the_pool_are_shown_as_they_are(process: Process) -> None:
    await process.database.observe()
    assert (value("outbox_waiting_events"), value("outbox_parked_events")) == (0, 0)
    async with process.database.acquire() as connection:
        await connection.execute(
            "INSERT INTO outbox (event_id, workspace_id, type, subject, body, created_at, claimed_until, parked_at)"
            " SELECT 'evt_' || n, 'ws_1', 'user.created', 's', '{}', now() - interval '90 seconds', 'infinity',"
            " CASE n WHEN 2 THEN now() END"
            " FROM generate_series(1, 2) n"
        )
        await process.database.observe()
        assert value("database_pool_connections", state="used") == 1
    assert (value("outbox_waiting_events"), value("outbox_parked_events")) == (1, 1)
    assert 90 <= value("outbox_oldest_seconds") < 100
    await process.database.observe()
    assert value("database_pool_connections", state="used") == 0


async def test_who_waits_for_a_connection_is_shown(process: Process) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(4):
            await stack.enter_async_context(process.database.acquire())
        waiting = [asyncio.create_task(process.value("SELECT 1")) for _ in range(3)]
        await asyncio.sleep(0.1)
        await process.database.observe()
        assert value("database_pool_waiting") == 3
    assert await asyncio.gather(*waiting) == [1, 1, 1]
    await process.database.observe()
    assert value("database_pool_waiting") == 0


async def test_events_are_counted_by_type_and_outcome(process: Process, broker_url: str) -> None:
    samples = {
        "published": ("outbox_events_published_total", {"type": "user.created"}),
        "taken": ("events_consumed_total", {"queue": QUEUE, "type": "user.created", "outcome": "taken"}),
        "repeated": ("events_consumed_total", {"queue": QUEUE, "type": "user.created", "outcome": "repeated"}),
        "dead": ("events_consumed_total", {"queue": QUEUE, "type": "user.created", "outcome": "dead"}),
    }
    before = {outcome: value(name, **labels) for outcome, (name, labels) in samples.items()}
    event, effects = user_event(), Effects()
    async with consuming(process, effects):
        async with process.database.transaction() as tx:
            tx.emit(event)
        await eventually(lambda: effects.saw(event))
        await process.publish(event)
        await process.bus.publish_event(b"{", event_id="evt_bad", event_type="user.created", published_ms=1)

        async def counted() -> bool:
            return all(value(name, **labels) == before[outcome] + 1 for outcome, (name, labels) in samples.items())

        await eventually(counted)
    assert len(await dead_letters(broker_url)) == 1
