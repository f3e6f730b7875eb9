"""Owners are assigned in turn, fairly among concurrent runs, and who left is skipped."""

from collections import Counter
from typing import Any

from services.workflows.tests.conftest import Desk, StartWorker, created
from services.workflows.tests.neighbours import make_lead, user_event
from tests.support.fixtures import eventually

USERS = ["user_a", "user_b", "user_c"]


async def owners(desk: Desk, workflow_id: str, leads: list[dict[str, Any]]) -> Counter[str]:
    """Who got how many of these leads, once every run has ended."""
    for lead in leads:
        desk.neighbours.put_lead(lead)
    await desk.publish(*(created(lead) for lead in leads))
    wanted = {lead["id"] for lead in leads}

    async def all_ended() -> bool:
        runs = [run for run in await desk.runs(workflow_id) if run["lead_id"] in wanted]
        return [run["state"] for run in runs] == ["completed"] * len(leads)

    await eventually(all_ended, seconds=30)
    return Counter(desk.neighbours.leads["ws_1", lead_id]["owner_id"] for lead_id in wanted)


async def test_owners_take_turns_fairly_under_concurrency_and_who_left_is_skipped(
    desk: Desk, start_worker: StartWorker
) -> None:
    await desk.know_users(*USERS)
    step = {"id": "owner", "type": "assign_owner", "users": USERS}
    workflow_id = await desk.define(step, trigger={"type": "event", "event": "lead.created"})
    for _ in range(2):
        await start_worker()
    first = [make_lead(f"lead_{number}", email=f"{number}@example.com") for number in range(30)]
    assert await owners(desk, workflow_id, first) == {"user_a": 10, "user_b": 10, "user_c": 10}
    await desk.publish(user_event("user.disabled", "user_b", 2, active=False))

    async def gone() -> bool:
        return not await desk.database.fetchval("SELECT active FROM users WHERE id = 'user_b'")

    await eventually(gone)
    second = [make_lead(f"lead_{number}", email=f"{number}@example.com") for number in range(30, 40)]
    assert await owners(desk, workflow_id, second) == {"user_a": 5, "user_c": 5}
