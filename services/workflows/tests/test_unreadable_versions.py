"""A stored version that this release cannot read, such as one with a step type of a later release, holds nobody up and is shown."""

from typing import Any

import orjson
import pytest

from services.workflows.tests.conftest import Desk, StartWorker, created
from services.workflows.tests.neighbours import lead_event, make_lead
from tests.support.fixtures import eventually

STOP = {"id": "end", "type": "stop"}
FAX = {"id": "fax", "type": "send_fax"}
WAIT = {"id": "w", "type": "wait_for_event", "event": "lead.updated", "condition": "lead.score > 50", "timeout": "1h"}
ON_CREATED = {"type": "event", "event": "lead.created"}
REASON = "version 1 cannot be read by this release: /steps/0/type: unknown step type"


async def store(desk: Desk, workflow_id: str, *steps: dict[str, Any], **fields: Any) -> None:
    """What another release has saved as the workflow's first version."""
    await desk.database.execute(
        "UPDATE workflow_versions SET definition = definition || $2 WHERE workflow_id = $1",
        workflow_id,
        orjson.dumps({"steps": list(steps), **fields}).decode(),
    )


async def let_workers_die(desk: Desk, run_id: str, times: int) -> None:
    """As if so many workers had held the run until their leases ended."""
    await desk.database.execute("UPDATE runs SET state = 'running', lease_token = 'dead' WHERE id = $1", run_id)
    await desk.database.execute("UPDATE runs SET lost_leases = $2, due_at = now() WHERE id = $1", run_id, times - 1)


@pytest.mark.parametrize("steps", [[FAX, STOP], [STOP, {**FAX, "id": "other"}], [{**STOP, "id": "other"}]])
async def test_its_run_is_shown_after_some_tries_and_goes_on_with_a_version_that_can_be_read(
    desk: Desk, start_worker: StartWorker, steps: list[dict[str, Any]]
) -> None:
    await desk.know_lead()
    workflow_id = await desk.define(STOP)
    run_id = await desk.start(workflow_id)
    await store(desk, workflow_id, *steps)
    await let_workers_die(desk, run_id, 5)
    await start_worker()
    run = await desk.until(run_id, "needs_attention")
    assert ("cannot be read by this release" in run["error"]) == ("send_fax" in str(steps))
    body = {"name": "mended", "trigger": {"type": "manual"}, "steps": [STOP]}
    assert (await desk.api.put(f"/api/workflows/{workflow_id}", json=body)).status_code == 200
    await desk.steer(run_id, "retry", version="latest")
    await desk.until(run_id, "completed")


async def test_its_run_is_left_to_other_workers_first(desk: Desk, start_worker: StartWorker) -> None:
    """A worker of a newer release may be able to read it: while both work, nothing is given up at once."""
    await desk.know_lead()
    workflow_id = await desk.define(STOP)
    run_id = await desk.start(workflow_id)
    await store(desk, workflow_id, FAX)
    await start_worker(lease_seconds=1.0)

    async def tried() -> bool:
        return bool(await desk.database.fetchval("SELECT lost_leases >= 1 FROM runs WHERE id = $1", run_id))

    await eventually(tried)
    assert (await desk.run(run_id))["state"] == "running"
    await desk.steer(run_id, "cancel")
    await desk.until(run_id, "cancelled")


async def test_nobody_starts_or_retries_it_by_hand(desk: Desk) -> None:
    await desk.know_lead()
    workflow_id = await desk.define(STOP, trigger=ON_CREATED)
    await store(desk, workflow_id, FAX)
    for path in (f"/api/workflows/{workflow_id}", f"/api/workflows/{workflow_id}/versions"):
        assert (await desk.api.get(path)).status_code == 200
    refused = await desk.api.post(f"/api/workflows/{workflow_id}/runs", json={"lead_id": "lead_1"})
    assert (refused.status_code, refused.json()["type"].rpartition("/")[2]) == (409, "definition-unreadable")
    assert REASON in refused.json()["detail"]


@pytest.mark.parametrize("unreadable", [FAX, {**STOP, "reason": "{{"}])
async def test_an_event_lists_what_it_cannot_start_and_starts_the_others(
    desk: Desk, start_worker: StartWorker, heard: list[dict[str, Any]], unreadable: dict[str, Any]
) -> None:
    conditioned = {**ON_CREATED, "condition": "lead.score > 50"}
    broken = [await desk.define(STOP, trigger=trigger) for trigger in (ON_CREATED, conditioned, ON_CREATED)]
    other = await desk.define(STOP, trigger=ON_CREATED)
    await store(desk, broken[0], unreadable)
    await store(desk, broken[1], unreadable)
    await store(desk, broken[2], unreadable, trigger={**ON_CREATED, "condition": "lead.fax ~ 1"})
    await start_worker()
    await desk.publish(created(make_lead(email="a@example.com", score=1)))

    async def started() -> Any:
        return await desk.runs(other)

    [run] = await eventually(started)
    await desk.until(run["id"], "completed")
    [listed], none, [unsure] = [await desk.runs(workflow_id) for workflow_id in broken]
    assert none == []
    for suspended in (listed, unsure):
        assert suspended["state"] == "suspended"
        assert suspended["error"].startswith("definition: version 1 cannot be read by this release: ")
        assert suspended["step_id"] == unreadable["id"]
    retried = await desk.api.post(f"/api/runs/{listed['id']}/retry", json={})
    assert retried.status_code == 409

    async def told() -> bool:
        return {event["subject"] for event in heard} == {listed["id"], unsure["id"], run["id"]}

    await eventually(told)


async def test_an_event_that_its_run_waits_for_makes_somebody_look(desk: Desk, start_worker: StartWorker) -> None:
    lead = await desk.know_lead(score=1)
    runs = [await desk.start(await desk.define(WAIT)) for _ in range(2)]
    await desk.database.execute("UPDATE runs SET state = 'running', lease_token = 't'")
    await desk.database.execute(
        "UPDATE runs SET state = 'waiting', lease_token = NULL, waiting_for = 'lead.updated', due_at = now() + interval '1 hour'"
    )
    await desk.database.execute(
        """INSERT INTO run_steps (workspace_id, run_id, iteration, step_id, generation, type, state, place, due_at, started_at)
           SELECT workspace_id, id, 0, 'w', 0, 'wait_for_event', 'waiting', 0, due_at, now() FROM runs"""
    )
    await store(desk, (await desk.run(runs[0]))["workflow_id"], WAIT, FAX)
    await start_worker()
    await desk.publish(lead_event("lead.updated", {**lead, "version": 2, "score": 60}, ["score"], {"score": 1}))
    await desk.until(runs[1], "completed")
    run = await desk.until(runs[0], "queued", "running")
    assert [(step["state"], step["due_at"]) for step in run["steps"]] == [("running", None)]
    await let_workers_die(desk, runs[0], 5)
    run = await desk.until(runs[0], "needs_attention")
    assert "unknown step type" in run["error"]
    assert [step["state"] for step in run["steps"]] == ["unknown"]
