"""What a run that was cancelled at an awkward moment does when it is retried, and how its calls are shown."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from services.workflows.tests.conftest import Application, Desk, StartWorker
from services.workflows.tests.neighbours import Reply, lead_event
from tests.support.fixtures import eventually
from workflows import run_repository
from workflows.engine.run import CANCELLABLE, State


def hook(desk: Desk, path: str, **fields: Any) -> dict[str, Any]:
    return {"id": f"call_{path}", "type": "http_request", "url": desk.url(path), **fields}


async def cancelled_during(desk: Desk, *steps: dict[str, Any]) -> str:
    """A run of a call and these steps, cancelled while the call was out."""
    gate = threading.Event()
    desk.neighbours.script("/hooks/first", Reply(hold=gate))
    await desk.know_lead()
    run_id = await desk.start(await desk.define(hook(desk, "first"), *steps))

    async def called() -> Any:
        return desk.neighbours.received("/hooks/first")

    await eventually(called)
    await desk.steer(run_id, "cancel")
    gate.set()
    await desk.until(run_id, "cancelled")
    return run_id


async def test_a_stop_that_a_cancellation_overtook_still_stops(desk: Desk, worker: Application) -> None:
    check = {
        "id": "c",
        "type": "condition",
        "if": "steps.call_first.status == 200",
        "then": [{"id": "end", "type": "stop"}],
    }
    run_id = await cancelled_during(desk, check, hook(desk, "behind"))
    await desk.steer(run_id, "retry")
    run = await desk.until(run_id, "completed")
    assert [step["id"] for step in run["steps"]] == ["call_first", "c", "end"]
    assert not desk.neighbours.received("/hooks/behind")
    assert len(desk.neighbours.received("/hooks/first")) == 1


async def test_a_last_call_that_a_cancellation_let_finish_is_not_made_again(desk: Desk, worker: Application) -> None:
    run_id = await cancelled_during(desk)
    assert [step["state"] for step in (await desk.run(run_id))["steps"]] == ["succeeded"]
    await desk.steer(run_id, "retry")
    await desk.until(run_id, "completed")
    assert len(desk.neighbours.received("/hooks/first")) == 1


async def test_attempts_are_shown_in_their_order_whatever_the_workers_clocks_said(
    desk: Desk, worker: Application
) -> None:
    desk.neighbours.script("/hooks/a", Reply(400))
    await desk.know_lead()
    run_id = await desk.start(await desk.define(hook(desk, "a")))
    await desk.until(run_id, "failed")
    await desk.database.execute("UPDATE step_attempts SET started_at = now() + interval '1 hour'")
    await desk.steer(run_id, "retry")
    run = await desk.until(run_id, "completed")
    assert [(a["generation"], a["state"]) for a in run["steps"][0]["attempts"]] == [(0, "failed"), (1, "succeeded")]


async def test_archiving_cancels_runs_in_every_open_state(desk: Desk, start_worker: StartWorker) -> None:
    await desk.know_lead()
    workflow_id = await desk.define({"id": "end", "type": "stop"})
    for state in CANCELLABLE:
        run_id = await desk.start(workflow_id)
        if state is State.SUSPENDED:
            await desk.database.execute("DELETE FROM runs WHERE id = $1", run_id)
            await desk.database.execute(
                """INSERT INTO runs (workspace_id, id, workflow_id, version, lead_id, state, error, step_id, trigger, origin, chain)
                   VALUES ('ws_1', $1, $2, 1, 'lead_1', 'suspended', 'loop: x', 'end', $3, 'system', '{}')""",
                run_id,
                workflow_id,
                '{"changed": [], "previous": {}}',
            )
        elif state is not State.QUEUED:
            await desk.database.execute("UPDATE runs SET state = 'running', lease_token = 't' WHERE id = $1", run_id)
            if state is not State.RUNNING:
                await desk.database.execute(
                    "UPDATE runs SET state = $2, lease_token = NULL, error = 'x' WHERE id = $1", run_id, state
                )
    assert {run["state"] for run in await desk.runs(workflow_id)} == set(CANCELLABLE)
    assert (await desk.api.delete(f"/api/workflows/{workflow_id}?runs=cancel")).status_code == 204
    await desk.database.execute("UPDATE runs SET due_at = now()")  # the lease of the one that ran is over
    await start_worker()

    async def all_cancelled() -> bool:
        return {run["state"] for run in await desk.runs(workflow_id)} == {"cancelled"}

    await eventually(all_cancelled)


@pytest.mark.parametrize("starter", ["person", "event"])
async def test_a_run_that_starts_while_its_workflow_is_archived_is_cancelled_with_the_others(
    desk: Desk, worker: Application, monkeypatch: pytest.MonkeyPatch, starter: str
) -> None:
    starting, go_on = asyncio.Event(), asyncio.Event()
    insert = run_repository.insert_runs

    async def slowly(connection: Any, runs: Sequence[Any]) -> None:
        starting.set()
        await go_on.wait()
        await insert(connection, runs)

    monkeypatch.setattr(run_repository, "insert_runs", slowly)
    lead = await desk.know_lead(email="a@example.com")
    trigger = {"type": "event", "event": "lead.updated"}
    workflow_id = await desk.define({"id": "w", "type": "wait", "duration": "1h"}, trigger=trigger)
    begin: asyncio.Future[Any]
    if starter == "person":
        begin = asyncio.ensure_future(desk.start(workflow_id))
    else:
        begin = asyncio.ensure_future(desk.publish(lead_event("lead.updated", {**lead, "version": 2}, ["score"])))
    await asyncio.wait_for(starting.wait(), 5)
    archive = asyncio.create_task(desk.api.delete(f"/api/workflows/{workflow_id}?runs=cancel"))
    await asyncio.wait({archive}, timeout=1)
    assert not archive.done()
    go_on.set()
    await begin
    assert (await archive).status_code == 204
    [run] = await desk.runs(workflow_id)
    await desk.until(run["id"], "cancelled")
