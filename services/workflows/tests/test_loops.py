"""Nothing feeds itself: loops end suspended, with the reason, listed and counted."""

import asyncio
from typing import Any

from chassis.context import Context
from services.workflows.tests.conftest import Application, Desk, created
from services.workflows.tests.neighbours import lead_event, make_lead
from tests.support.fixtures import eventually

STOP = {"id": "end", "type": "stop"}
ON_UPDATED = {"type": "event", "event": "lead.updated"}


def bump(stage: str) -> dict[str, Any]:
    return {"id": "stage", "type": "update_lead", "set": {"stage": stage, "title": "{{ run.id }}"}}


async def settled(desk: Desk, *workflow_ids: str) -> list[dict[str, Any]]:
    """Every run of these workflows, once none of them works and one is suspended."""

    async def still() -> Any:
        runs = [run for workflow_id in workflow_ids for run in await desk.runs(workflow_id)]
        states = {run["state"] for run in runs}
        return runs if states == {"completed", "suspended"} else None

    await eventually(still, seconds=20)
    await asyncio.sleep(0.5)
    found: list[dict[str, Any]] = await eventually(still, seconds=20)
    return found


async def test_a_workflow_that_triggers_itself_ends_suspended(
    desk: Desk, worker: Application, leads_announce: None, heard: list[dict[str, Any]]
) -> None:
    lead = await desk.know_lead()
    workflow_id = await desk.define(bump("contacted"), trigger=ON_UPDATED)
    await desk.publish(lead_event("lead.updated", lead, ["score"], {"score": 1}))
    runs = await settled(desk, workflow_id)
    assert sorted(run["state"] for run in runs) == ["completed", "suspended"]
    [suspended] = await desk.runs(workflow_id, state="suspended")
    assert suspended["error"].startswith("loop: the event was caused by this workflow itself")
    status = (await desk.api.get(f"/api/workflows/{workflow_id}/status")).json()
    assert status["runs"]["by_state"]["suspended"] == 1
    told = [event for event in heard if event["type"] == "workflow.run.suspended"]
    assert [event["data"]["error"] for event in told] == [suspended["error"]]
    assert len(desk.neighbours.received("/api/leads", "PATCH")) == 1


async def test_two_workflows_that_fight_end_suspended(desk: Desk, worker: Application, leads_announce: None) -> None:
    lead = await desk.know_lead()
    one = await desk.define(bump("contacted"), trigger={**ON_UPDATED, "condition": 'lead.stage == "new"'})
    two = await desk.define(bump("new"), trigger={**ON_UPDATED, "condition": 'lead.stage == "contacted"'})
    await desk.publish(lead_event("lead.updated", lead, ["score"], {"score": 1}))
    runs = await settled(desk, one, two)
    assert sorted(run["state"] for run in runs) == ["completed", "completed", "suspended"]
    assert len(desk.neighbours.received("/api/leads", "PATCH")) == 2


async def test_reentry_that_is_allowed_ends_after_eight_hops(
    desk: Desk, worker: Application, leads_announce: None
) -> None:
    lead = await desk.know_lead()
    workflow_id = await desk.define(bump("contacted"), trigger=ON_UPDATED, allow_reentry=True)
    await desk.publish(lead_event("lead.updated", lead, ["score"], {"score": 1}))
    runs = await settled(desk, workflow_id)
    assert sorted(run["state"] for run in runs) == ["completed"] * 8 + ["suspended"]
    [suspended] = await desk.runs(workflow_id, state="suspended")
    assert "8 end it" in suspended["error"]
    await desk.steer(suspended["id"], "retry")
    await desk.until(suspended["id"], "completed")


async def test_twenty_runs_an_hour_for_one_lead_are_the_limit(desk: Desk, worker: Application) -> None:
    workflow_id = await desk.define(STOP, trigger=ON_UPDATED)
    lead = make_lead(email="a@example.com")
    events = [lead_event("lead.updated", {**lead, "version": number}, ["score"], {}) for number in range(2, 27)]
    other = lead_event("lead.updated", make_lead("lead_2", version=2), ["score"], {})
    await desk.publish(*events, other)

    async def all_there() -> Any:
        return len(await desk.runs(workflow_id)) == 26

    await eventually(all_there, seconds=20)
    suspended = await desk.runs(workflow_id, state="suspended")
    assert len(suspended) == 5
    assert all(run["error"].startswith("rate: 20 runs") and run["lead_id"] == "lead_1" for run in suspended)
    answer = await desk.api.post(f"/api/workflows/{workflow_id}/runs", json={"lead_id": "lead_1"})
    assert (answer.status_code, answer.json()["state"]) == (201, "suspended")


async def test_only_runs_of_the_last_hour_for_this_lead_and_workflow_count(desk: Desk) -> None:
    await desk.know_lead()
    workflow_id, other_id = await desk.define(STOP), await desk.define(STOP)
    for count, workflow, lead_id, state, age in (
        (19, workflow_id, "lead_1", "queued", "59 minutes"),
        (30, workflow_id, "lead_1", "queued", "61 minutes"),
        (30, workflow_id, "lead_1", "suspended", "1 minute"),
        (30, workflow_id, "lead_2", "queued", "1 minute"),
        (30, other_id, "lead_1", "queued", "1 minute"),
    ):
        await desk.database.execute(
            """INSERT INTO runs (workspace_id, id, workflow_id, version, lead_id, state, error, step_id, trigger, origin, chain, due_at,
                                 created_at)
               SELECT 'ws_1', $1 || $2 || $3 || $4 || n, $1, 1, $2, $3, 'x', 'end', '{}', 'system', '{}', now(), now() - $4::text::interval
               FROM generate_series(1, $5::integer) AS n""",
            workflow,
            lead_id,
            state,
            age,
            count,
        )
    states = [(await desk.run(await desk.start(workflow_id)))["state"] for _ in range(2)]
    assert states == ["queued", "suspended"]


async def test_a_chain_from_elsewhere_counts_its_hops(desk: Desk, worker: Application) -> None:
    workflow_id = await desk.define(STOP, trigger={"type": "event", "event": "lead.created"})
    long = Context(origin="workflow:wf_8/run_8", chain=tuple(f"wf_{number}" for number in range(8)))
    await desk.publish(created(make_lead(email="a@example.com"), context=long))

    async def there() -> Any:
        return await desk.runs(workflow_id)

    [run] = await eventually(there)
    assert run["state"] == "suspended"
    assert run["chain"] == [*(f"wf_{number}" for number in range(1, 8)), workflow_id]
