"""A crash between a call and its result: repeated where the receiver can tell, stopped where it cannot, never silently twice."""

import signal
from typing import Any

import pytest

from chassis.ids import new_id
from tests.guarantees.calls import SECRET, run_to_receiver
from tests.guarantees.conftest import QUICK_CRM, Account, Simulators
from tests.support.fixtures import eventually
from tests.support.system import Client, RunningSystem

WORKER = "workflows-worker-1"


async def state_of(client: Client, run_id: str) -> str:
    return str((await client.get(f"/api/runs/{run_id}")).json()["state"])


async def ended(client: Client, run_id: str) -> Any:
    state = await state_of(client, run_id)
    return state if state in {"completed", "failed", "needs_attention", "suspended"} else None


@pytest.mark.parametrize(
    ("failpoint", "on_unknown", "state", "attempts"),
    [
        ("step.after_call", "retry", "completed", 2),
        ("step.after_call", "stop", "needs_attention", 1),
        ("step.before_call", "retry", "completed", 1),
    ],
)
async def test_a_worker_killed_around_a_call(
    system: RunningSystem,
    client: Client,
    simulators: Simulators,
    failpoint: str,
    on_unknown: str,
    state: str,
    attempts: int,
) -> None:
    system.respawn(WORKER, FAILPOINT=failpoint, WORKFLOWS_LEASE_SECONDS="2")
    receiver = new_id("receiver")
    await simulators.receive(receiver, SECRET)
    run_id = await run_to_receiver(system, client, receiver, on_unknown)
    assert await system.died(WORKER) == -signal.SIGKILL
    system.spawn(WORKER)
    system.wait_ready(WORKER)
    assert await eventually(lambda: ended(client, run_id), seconds=40) == state
    deliveries = await simulators.deliveries(receiver)
    assert [each["count"] for each in deliveries] == [attempts]  # one webhook-id, whatever the number of tries


@pytest.mark.parametrize("failpoint", ["sync.before_call", "sync.after_call", "sync.before_settle"])
async def test_a_sync_worker_killed_around_the_crms_accept_leaves_one_contact(
    system: RunningSystem, client: Client, account: Account, failpoint: str
) -> None:
    system.respawn("crm-sync-worker-1", FAILPOINT=failpoint, **QUICK_CRM)
    lead = (await client.post("/api/leads", {"email": f"{new_id('once')}@example.com"})).json()
    assert await system.died("crm-sync-worker-1") == -signal.SIGKILL
    system.spawn("crm-sync-worker-1")
    system.wait_ready("crm-sync-worker-1")
    await eventually(lambda: account.in_step(lead["id"], 1), seconds=40)
    assert len(await account.contacts_of(lead["id"])) == 1
    found = (await client.get(f"/api/leads/{lead['id']}")).json()
    await eventually(lambda: shown(client, lead["id"], account), seconds=25)
    assert found["version"] == 1


async def shown(client: Client, lead_id: str, account: Account) -> bool:
    """True once the lead shows the CRM's id."""
    lead = (await client.get(f"/api/leads/{lead_id}")).json()
    return account.connection_id in lead["external_ids"]
