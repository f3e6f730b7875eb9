"""A worker that was frozen past its lease and comes back late changes nothing any more."""

import asyncio
import signal

import pytest

from chassis.ids import new_id
from deploy.local.programs import kind_of
from tests.guarantees.conftest import Account
from tests.support.fixtures import eventually
from tests.support.system import Client, RunningSystem


@pytest.mark.long  # the broker gives a frozen consumer's deliveries to another after two heartbeats
@pytest.mark.timeout(180)
async def test_a_worker_paused_past_its_lease_during_the_crms_call(
    system: RunningSystem, client: Client, account: Account
) -> None:
    """The lead changes meanwhile and another worker takes over: the CRM ends at the newest version."""
    kind = kind_of("crm-sync-worker")
    assert kind is not None
    second = system.system.replica(kind, 2)
    system.programs[second.name] = second
    await account.simulators.latency(1.0)
    lead = (await client.post("/api/leads", {"email": f"{new_id('fence')}@example.com"})).json()
    await eventually(lambda: is_in_flight(account, lead["id"]), seconds=10)
    system.signal("crm-sync-worker-1", signal.SIGSTOP)
    try:
        changed = await client.patch(f"/api/leads/{lead['id']}", {"first_name": "Newest"})
        assert changed.status_code == 200
        system.spawn(second.name)
        system.wait_ready(second.name)
        await account.simulators.latency(0)
        await eventually(lambda: account.in_step(lead["id"], 2), seconds=40)
    finally:
        system.signal("crm-sync-worker-1", signal.SIGCONT)
    await asyncio.sleep(2)
    assert await account.in_step(lead["id"], 2)
    [contact] = await account.contacts_of(lead["id"])
    assert contact["properties"]["firstname"] == "Newest"
    system.terminate(second.name)
    await eventually(lambda: ready_again(system), seconds=10)


async def is_in_flight(account: Account, lead_id: str) -> bool:
    return (await account.standing(lead_id)).get("state") == "in_flight"


async def ready_again(system: RunningSystem) -> bool:
    await asyncio.to_thread(system.wait_ready, "crm-sync-worker-1")
    return True
