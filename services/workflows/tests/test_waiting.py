"""Waits end when they should: by time, by event, or at once; no wake-up is lost, and after a long stop they end spread out."""

import asyncio
from datetime import timedelta
from typing import Any

import orjson
import pytest

from chassis.clock import rfc3339, utcnow
from chassis.database import Transaction
from services.workflows.tests.conftest import Application, Desk, StartWorker, created
from services.workflows.tests.neighbours import crm_event, lead_event, make_lead
from tests.support.fixtures import eventually
from workflows.consuming import EventsConsumer
from workflows.execution import store

STOP = {"id": "end", "type": "stop"}
REPLY = {
    "id": "reply",
    "type": "wait_for_event",
    "event": "lead.updated",
    "condition": 'lead.stage == "qualified"',
    "timeout": "1h",
    "on_timeout": [{"id": "late", "type": "stop", "outcome": "failed", "reason": "no reply"}],
}


async def waiting(desk: Desk, *steps: dict[str, Any], **lead: Any) -> str:
    """A run of these steps for lead_1, once it waits."""
    await desk.know_lead(**{"email": "a@example.com", **lead})
    run_id = await desk.start(await desk.define(*steps))
    await desk.until(run_id, "waiting")
    return run_id


async def due_in(desk: Desk, run_id: str) -> float:
    return float(
        await desk.database.fetchval(
            "SELECT extract(epoch FROM due_at - now())::float8 FROM runs WHERE id = $1", run_id
        )
    )


async def let_time_pass(desk: Desk, seconds: float) -> None:
    """What waits is due this much earlier."""
    await desk.database.execute(
        "UPDATE runs SET due_at = due_at - interval '1 second' * $1::float8 WHERE state = 'waiting'", seconds
    )


async def test_a_wait_ends_when_its_time_has_come_and_not_before(
    desk: Desk, worker: Application, heard: list[dict[str, Any]]
) -> None:
    run_id = await waiting(desk, {"id": "w", "type": "wait", "duration": "2h"}, STOP)
    assert 7190 < await due_in(desk, run_id) <= 7200
    run = await desk.run(run_id)
    assert run["due_at"] == run["steps"][0]["due_at"]
    await let_time_pass(desk, 7000)
    await asyncio.sleep(0.5)
    assert (await desk.run(run_id))["state"] == "waiting"
    await let_time_pass(desk, 200)
    await desk.until(run_id, "completed")
    assert [event["type"] for event in heard] == ["workflow.run.waiting", "workflow.run.completed"]
    assert [(s["step_id"], s["outcome"]) for s in heard[0]["data"]["steps"]] == [("w", "waiting")]
    assert [(s["step_id"], s["outcome"]) for s in heard[1]["data"]["steps"]] == [
        ("w", "succeeded"),
        ("end", "succeeded"),
    ]


async def test_a_wait_until_a_time_follows_the_lead_when_that_time_moves_on(desk: Desk, worker: Application) -> None:
    at = utcnow() + timedelta(hours=1)
    run_id = await waiting(
        desk, {"id": "w", "type": "wait", "until": "lead.custom.call_at"}, STOP, custom={"call_at": rfc3339(at)}
    )
    assert 3500 < await due_in(desk, run_id) <= 3600
    later = rfc3339(at + timedelta(hours=1))
    await desk.database.execute(
        "UPDATE lead_view SET version = 2, lead = jsonb_set(lead, '{custom,call_at}', $1)", orjson.dumps(later).decode()
    )
    await let_time_pass(desk, 3605)

    async def waits_on() -> bool:
        return await due_in(desk, run_id) > 7000

    await eventually(waits_on)
    past = rfc3339(utcnow() - timedelta(seconds=1))
    await desk.database.execute(
        "UPDATE lead_view SET version = 3, lead = jsonb_set(lead, '{custom,call_at}', $1)", orjson.dumps(past).decode()
    )
    await let_time_pass(desk, 7205)
    await desk.until(run_id, "completed")


async def test_an_event_that_meets_the_condition_wakes_the_run_and_others_do_not(
    desk: Desk, worker: Application
) -> None:
    run_id = await waiting(desk, REPLY, STOP)
    lead = make_lead(email="a@example.com")
    await desk.publish(
        lead_event("lead.updated", {**lead, "version": 2, "stage": "contacted"}, ["stage"], {"stage": "new"}),
        lead_event("lead.deleted", {**lead, "version": 3, "stage": "qualified"}),
        lead_event("lead.updated", {**lead, "version": 2, "stage": "qualified"}, workspace="ws_2"),
        lead_event("lead.updated", {**lead, "id": "lead_2", "version": 2, "stage": "qualified"}),
    )

    async def all_taken() -> bool:
        return int(await desk.database.fetchval("SELECT count(*) FROM inbox")) == 4

    await eventually(all_taken)
    assert (await desk.run(run_id))["state"] == "waiting"
    event = lead_event("lead.updated", {**lead, "version": 4, "stage": "qualified"}, ["stage"], {"stage": "contacted"})
    await desk.publish(event, event)
    run = await desk.until(run_id, "completed")
    output = run["steps"][0]["output"]
    assert output == {"timed_out": False, "event": {"type": "lead.updated", "id": event.id, "time": event.time}}


async def test_a_wait_for_an_event_that_never_comes_takes_the_timeouts_branch(desk: Desk, worker: Application) -> None:
    run_id = await waiting(desk, REPLY, STOP)
    assert 3590 < await due_in(desk, run_id) <= 3600
    await let_time_pass(desk, 3600)
    run = await desk.until(run_id, "failed")
    assert run["error"] == "no reply"
    assert [step["id"] for step in run["steps"]] == ["reply", "late"]


async def test_a_condition_that_holds_already_does_not_wait(desk: Desk, worker: Application) -> None:
    await desk.know_lead(stage="qualified")
    run = await desk.until(await desk.start(await desk.define(REPLY, STOP)), "completed")
    assert run["steps"][0]["output"] == {"timed_out": False, "event": None}


async def test_a_condition_may_read_the_steps_and_the_trigger(desk: Desk, worker: Application) -> None:
    step = {**REPLY, "condition": "lead.version > steps.stage.version && trigger.lead.version == 1 && lead.score > 50"}
    run_id = await waiting(desk, {"id": "stage", "type": "update_lead", "set": {"stage": "contacted"}}, step, STOP)
    lead = {**desk.neighbours.leads["ws_1", "lead_1"], "score": 60}
    await desk.publish(lead_event("lead.updated", {**lead, "version": 2}, ["score"], {"score": 0}))
    await asyncio.sleep(0.3)
    assert (await desk.run(run_id))["state"] == "waiting"
    await desk.publish(lead_event("lead.updated", {**lead, "version": 3}, ["score"], {"score": 0}))
    await desk.until(run_id, "completed")


CRM = {
    "id": "crm",
    "type": "wait_for_event",
    "event": "crm.lead.synced",
    "condition": "event.version >= lead.version",
    "timeout": "1h",
}


async def test_a_run_waits_until_the_crm_has_the_lead(desk: Desk, worker: Application) -> None:
    run_id = await waiting(desk, CRM, STOP, version=3)
    await desk.publish(crm_event("crm.lead.synced", "lead_1", 1, version=2))
    await asyncio.sleep(0.3)
    assert (await desk.run(run_id))["state"] == "waiting"
    await desk.publish(crm_event("crm.lead.synced", "lead_1", 2, version=3, external_id="77"))
    run = await desk.until(run_id, "completed")
    assert run["steps"][0]["output"]["event"]["external_id"] == "77"


async def test_a_crm_that_was_faster_than_the_wait_is_not_missed(desk: Desk, worker: Application) -> None:
    await desk.know_lead(version=3)
    await desk.publish(crm_event("crm.lead.synced", "lead_1", 1, version=3, external_id="77"))

    async def seen() -> Any:
        return await desk.database.fetchval("SELECT count(*) FROM crm_view")

    await eventually(seen)
    run = await desk.until(await desk.start(await desk.define(CRM, STOP)), "completed")
    assert run["steps"][0]["output"]["event"]["external_id"] == "77"


@pytest.mark.parametrize("kind", ["lead", "crm"])
@pytest.mark.parametrize("first", ["the run looks", "the event comes"])
async def test_no_event_falls_between_a_look_and_the_wait_that_follows(
    desk: Desk, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch, first: str, kind: str
) -> None:
    """The event's transaction and the registration of the wait are held inside each other, in both orders."""
    lead = await desk.know_lead()
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def pause() -> None:
        inside.set()
        await go_on.wait()

    real_lock, real_apply = store.lock_lead, EventsConsumer.apply

    async def lock_and_pause(*arguments: Any) -> Any:
        found = await real_lock(*arguments)
        await pause()
        return found

    async def apply_and_pause(consumer: EventsConsumer, tx: Transaction, deliveries: Any) -> None:
        await real_apply(consumer, tx, deliveries)
        await pause()

    workflow_id = await desk.define(REPLY if kind == "lead" else CRM, STOP)
    event = lead_event("lead.updated", {**lead, "version": 2, "stage": "qualified"}, ["stage"], {"stage": "new"})
    if kind == "crm":
        event = crm_event("crm.lead.synced", "lead_1", 1, version=1)
    if first == "the run looks":
        monkeypatch.setattr(store, "lock_lead", lock_and_pause)
        await start_worker()
        run_id = await desk.start(workflow_id)
        await asyncio.wait_for(inside.wait(), 10)
        await desk.publish(event)
    else:
        monkeypatch.setattr(EventsConsumer, "apply", apply_and_pause)
        await start_worker()
        await desk.publish(event)
        await asyncio.wait_for(inside.wait(), 10)
        run_id = await desk.start_while_locked(workflow_id)
    await asyncio.sleep(0.5)
    assert (await desk.run(run_id))["state"] == "running"
    go_on.set()
    await desk.until(run_id, "completed")


async def test_many_waits_and_events_at_once_lose_no_wake_up(desk: Desk, start_worker: StartWorker) -> None:
    workflow_id = await desk.define(REPLY, STOP, trigger={"type": "event", "event": "lead.created"})
    for _ in range(2):
        await start_worker()
    leads = [make_lead(f"lead_{number}", email=f"{number}@example.com") for number in range(30)]
    updates = [
        lead_event("lead.updated", {**lead, "version": 2, "stage": "qualified"}, ["stage"], {"stage": "new"})
        for lead in leads
    ]

    async def announce(number: int) -> None:
        await desk.publish(created(leads[number]))
        await asyncio.sleep(0.002 * number)
        await desk.publish(updates[number])

    await asyncio.gather(*(announce(number) for number in range(30)))

    async def all_ended() -> bool:
        states = [run["state"] for run in await desk.runs(workflow_id)]
        return states == ["completed"] * 30

    await eventually(all_ended, seconds=30)


async def test_due_timers_after_a_long_stop_run_spread_out(desk: Desk, start_worker: StartWorker) -> None:
    await desk.know_lead()
    workflow_id = await desk.define({"id": "w", "type": "wait", "duration": "1h"}, STOP)
    for workspace, count in (("ws_1", 40), ("ws_2", 40)):
        await copy_waiting_runs(desk, workflow_id, workspace, count)
    async with desk.pool() as connection:
        batches = []
        while released := await store.release_timers(
            connection, batch=30, per_workspace=20, late_seconds=60, spread_seconds=600
        ):
            batches.append(released)
        rows = await connection.fetch(
            "SELECT extract(epoch FROM due_at - now())::float8 AS wait FROM runs WHERE state = 'queued'"
        )
    assert len(rows) == 80
    assert all(batch <= 30 for batch in batches)
    waits = sorted(row["wait"] for row in rows)
    assert waits[0] >= -1
    assert waits[-1] <= 600
    assert waits[-1] - waits[0] > 300
    assert len({round(wait, 3) for wait in waits}) > 70


async def test_one_workspace_cannot_take_every_timer(desk: Desk) -> None:
    workflow_id = await desk.define({"id": "w", "type": "wait", "duration": "1h"}, STOP)
    for workspace, count in (("ws_1", 60), ("ws_2", 5)):
        await copy_waiting_runs(desk, workflow_id, workspace, count)
    async with desk.pool() as connection:
        assert (
            await store.release_timers(connection, batch=100, per_workspace=25, late_seconds=60, spread_seconds=60)
            == 30
        )
        counts = await connection.fetch(
            "SELECT workspace_id, count(*) AS n FROM runs WHERE state = 'queued' GROUP BY 1 ORDER BY 1"
        )
    assert [(row["workspace_id"], row["n"]) for row in counts] == [("ws_1", 25), ("ws_2", 5)]


async def test_a_timer_that_is_on_time_runs_at_once_and_others_wait_on(desk: Desk) -> None:
    workflow_id = await desk.define({"id": "w", "type": "wait", "duration": "1h"}, STOP)
    await copy_waiting_runs(desk, workflow_id, "ws_1", 4, late="2 seconds")
    await desk.database.execute("UPDATE runs SET due_at = now() + interval '1 minute' WHERE id = 'ws_1_run_4'")
    async with desk.pool() as connection:
        assert (
            await store.release_timers(connection, batch=100, per_workspace=25, late_seconds=60, spread_seconds=60) == 3
        )
        assert await connection.fetchval("SELECT count(*) FROM runs WHERE state = 'queued' AND due_at <= now()") == 3


async def copy_waiting_runs(desk: Desk, workflow_id: str, workspace: str, count: int, late: str = "2 days") -> None:
    """Waiting runs whose time came while nobody was there."""
    if workspace != "ws_1":
        await desk.database.execute(
            "INSERT INTO workflows (workspace_id, id, name, version) SELECT $1, id, name, version FROM workflows WHERE id = $2",
            workspace,
            workflow_id,
        )
        await desk.database.execute(
            "INSERT INTO workflow_versions SELECT $1, workflow_id, version, definition, created_by, created_at "
            "FROM workflow_versions WHERE workflow_id = $2",
            workspace,
            workflow_id,
        )
    await desk.database.execute(
        """INSERT INTO runs (workspace_id, id, workflow_id, version, lead_id, state, step_id, trigger, origin, chain, due_at)
           SELECT $1, $1 || '_run_' || n, $2, 1, 'lead_1', 'queued', 'w', '{"changed": [], "previous": {}}', 'system', '{}', now()
           FROM generate_series(1, $3) AS n""",
        workspace,
        workflow_id,
        count,
    )
    await desk.database.execute("UPDATE runs SET state = 'running', lease_token = 't' WHERE state = 'queued'")
    await desk.database.execute(
        f"UPDATE runs SET state = 'waiting', lease_token = NULL, due_at = now() - interval '{late}' WHERE state = 'running'"
    )
