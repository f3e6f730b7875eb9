"""A workflow that triggers itself, and two that fight: stopped, with the reason, while everything else goes on."""

from typing import Any

from chassis.ids import new_id
from tests.guarantees.consumers import all_taken
from tests.support.fixtures import eventually
from tests.support.system import Client, RunningSystem


async def define(client: Client, condition: str, changes: dict[str, Any], **more: Any) -> str:
    answer = await client.post(
        "/api/workflows",
        {
            "name": new_id("loop"),
            "trigger": {"type": "event", "event": "lead.updated", "condition": condition},
            "steps": [{"id": "change", "type": "update_lead", "set": changes}],
            **more,
        },
    )
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def runs(client: Client, workflow_id: str) -> list[dict[str, Any]]:
    return list((await client.get(f"/api/workflows/{workflow_id}/runs?limit=200")).json()["items"])


async def settled_version(system: RunningSystem, client: Client, lead_id: str, *workflows: str) -> int:
    """The lead's version once everybody has had all its events and every run that they started has ended."""

    async def version() -> int:
        return int((await client.get(f"/api/leads/{lead_id}")).json()["version"])

    async def settled() -> int:
        before = await version()
        if not await all_taken(system, [lead_id]):
            return 0
        states = {run["state"] for workflow in workflows for run in await runs(client, workflow)}
        return before if states <= {"completed", "suspended"} and await version() == before else 0

    return int(await eventually(settled, seconds=30))


async def new_lead(client: Client, source: str) -> str:
    answer = await client.post("/api/leads", {"email": f"{new_id('loop')}@example.com", "source": source})
    return str(answer.json()["id"])


async def test_a_workflow_does_not_start_from_its_own_change(system: RunningSystem, client: Client) -> None:
    source = new_id("self")
    workflow = await define(client, f'lead.source == "{source}"', {"title": "{{ run.id }}"})
    lead = await new_lead(client, source)
    await client.patch(f"/api/leads/{lead}", {"score": 1})
    await eventually(lambda: runs(client, workflow))
    assert await settled_version(system, client, lead, workflow) == 3  # created, edited, changed once by the workflow
    states = sorted(run["state"] for run in await runs(client, workflow))
    assert states.count("completed") == 1
    assert set(states) <= {"completed", "suspended"}


async def test_two_workflows_that_undo_each_other_end_suspended_with_the_reason(
    system: RunningSystem, client: Client
) -> None:
    source = new_id("fight")
    up = await define(client, f'lead.source == "{source}" && lead.stage == "new"', {"stage": "contacted"})
    down = await define(client, f'lead.source == "{source}" && lead.stage == "contacted"', {"stage": "new"})
    lead = await new_lead(client, source)
    await client.patch(f"/api/leads/{lead}", {"score": 1})

    async def suspended() -> list[dict[str, Any]]:
        found = [*await runs(client, up), *await runs(client, down)]
        return [run for run in found if run["state"] == "suspended"]

    await eventually(suspended, seconds=20)
    assert await settled_version(system, client, lead, up, down) <= 12
    [reason, *_] = [(await client.get(f"/api/runs/{run['id']}")).json()["error"] for run in await suspended()]
    assert reason


async def test_a_workflow_that_may_start_again_is_stopped_after_eight_hops(
    system: RunningSystem, client: Client
) -> None:
    source = new_id("reentry")
    workflow = await define(client, f'lead.source == "{source}"', {"title": "{{ run.id }}"}, allow_reentry=True)
    lead = await new_lead(client, source)
    await client.patch(f"/api/leads/{lead}", {"score": 1})

    async def suspended() -> bool:
        return any(run["state"] == "suspended" for run in await runs(client, workflow))

    await eventually(suspended, seconds=30)
    assert await settled_version(system, client, lead, workflow) == 2 + 8  # created, edited, and eight hops
