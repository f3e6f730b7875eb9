"""What ends a wait, when a time and an event meet, when a second wait follows the first, and when a worker's clock is wrong."""

from datetime import timedelta

import pytest

from chassis import clock
from services.workflows.tests.conftest import Application, Desk, StartWorker
from services.workflows.tests.neighbours import Reply, lead_event
from tests.support.fixtures import eventually
from workflows import run_repository
from workflows.execution import calling, journal, progress, store
from workflows.steps import http_request

STOP = {"id": "end", "type": "stop"}
REPLY = {"type": "wait_for_event", "event": "lead.updated", "condition": "lead.score > 50", "timeout": "1h"}


async def test_of_a_time_and_an_event_the_one_that_came_first_counts(desk: Desk) -> None:
    await desk.know_lead()
    workflow_id = await desk.define({"id": "w", **REPLY}, STOP)
    timed_out, woken = await desk.start(workflow_id), await desk.start(workflow_id)
    await desk.database.execute("UPDATE runs SET state = 'running', lease_token = 't'")
    await desk.database.execute("UPDATE runs SET state = 'waiting', lease_token = NULL, waiting_for = 'lead.updated'")
    async with desk.pool() as connection:
        seen = {
            run.id: run for run in await run_repository.waiting_runs(connection, [("ws_1", "lead_1", "lead.updated")])
        }
        assert set(seen) == {timed_out, woken}
        assert await run_repository.wake_run(connection, seen[woken], {"id": "evt_1"})
        assert await store.release_timers(connection, batch=9, per_workspace=9, late_seconds=60, spread_seconds=0) == 1
        assert not await run_repository.wake_run(connection, seen[timed_out], {"id": "evt_1"})
        assert await run_repository.waiting_runs(connection, [("ws_1", "lead_1", "lead.updated")]) == []
    rows = await desk.database.fetch("SELECT id, state, wake IS NOT NULL AS by_event FROM runs")
    assert {tuple(row) for row in rows} == {(timed_out, "queued", False), (woken, "queued", True)}


async def test_a_second_wait_does_not_end_by_the_event_of_the_first(desk: Desk, worker: Application) -> None:
    lead = await desk.know_lead(score=1)
    second = {**REPLY, "condition": "lead.score > 90"}
    run_id = await desk.start(await desk.define({"id": "one", **REPLY}, {"id": "two", **second}, STOP))
    await desk.until(run_id, "waiting")
    await desk.publish(lead_event("lead.updated", {**lead, "version": 2, "score": 60}, ["score"], {"score": 1}))

    async def stands_at_the_second() -> bool:
        run = await desk.run(run_id)
        return (run["step_id"], run["state"]) == ("two", "waiting")

    await eventually(stands_at_the_second)
    await desk.database.execute("UPDATE runs SET due_at = now()")
    run = await desk.until(run_id, "completed")
    assert [step["output"]["timed_out"] for step in run["steps"][:2]] == [False, True]


@pytest.mark.parametrize("hours", [-2, 2])
async def test_a_worker_whose_clock_is_wrong_keeps_every_time(
    desk: Desk, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """Leases, pauses and waits are counted by the database's clock."""
    for module in (calling, journal, progress, http_request):
        monkeypatch.setattr(module, "utcnow", lambda: clock.utcnow() + timedelta(hours=hours))
    desk.neighbours.script("/hooks/a", Reply(503, headers={"retry-after": "100"}))
    await desk.know_lead(custom={"call_at": clock.rfc3339(clock.utcnow() + timedelta(minutes=30))})
    call = {"id": "call", "type": "http_request", "url": desk.url("a")}
    until = {"id": "u", "type": "wait", "until": "lead.custom.call_at"}
    run_id = await desk.start(await desk.define(call, {"id": "w", "type": "wait", "duration": "1h"}, until, STOP))
    await start_worker()
    await desk.until(run_id, "retrying")
    assert 90 < await due_in(desk) <= 100
    await desk.database.execute("UPDATE runs SET due_at = now()")
    await desk.until(run_id, "waiting")
    assert 3590 < await due_in(desk) <= 3600
    await desk.database.execute("UPDATE runs SET due_at = now()")

    async def waits_until() -> bool:
        run = await desk.run(run_id)
        return (run["step_id"], run["state"]) == ("u", "waiting")

    await eventually(waits_until)
    assert 1780 < await due_in(desk) <= 1800


async def due_in(desk: Desk) -> float:
    return float(await desk.database.fetchval("SELECT extract(epoch FROM due_at - now())::float8 FROM runs"))
