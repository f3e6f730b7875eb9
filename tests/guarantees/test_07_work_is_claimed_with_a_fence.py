"""A worker that was frozen past its lease and comes back late changes nothing any more."""

import asyncio
import signal
from typing import Any

import pytest

from chassis.ids import new_id
from deploy.local.programs import kind_of
from tests.guarantees.calls import SECRET, run_to_receiver
from tests.guarantees.conftest import Account, Simulators
from tests.support.fixtures import eventually
from tests.support.system import Client, RunningSystem


async def test_a_worker_paused_during_its_call_comes_back_to_a_run_that_another_has_finished(
    system: RunningSystem, client: Client, simulators: Simulators
) -> None:
    """The first call's answer reaches a worker that has lost its lease: the run stays as the second worker left it."""
    first, other = second_worker(system, "workflows-worker"), "workflows-worker-1"
    system.spawn(first, WORKFLOWS_LEASE_SECONDS="2")
    system.wait_ready(first)
    receiver = new_id("receiver")
    answers = [{"body": {"who": "first"}, "delay_seconds": 0.3}, {"body": {"who": "other"}}]
    planned = {"secret": SECRET, "answers": answers}
    assert (await simulators.http.put(f"/_control/webhooks/{receiver}", json=planned)).status_code < 300
    system.signal(other, signal.SIGSTOP)  # so that it is the first that takes the run
    try:
        run_id = await run_to_receiver(system, client, receiver, "retry")
        await eventually(lambda: simulators.deliveries(receiver))
        system.signal(first, signal.SIGSTOP)
    finally:
        system.signal(other, signal.SIGCONT)
    try:
        finished = await eventually(lambda: completed(client, run_id), seconds=15)
    finally:
        system.signal(first, signal.SIGCONT)

    async def has_let_go() -> bool:
        return await asyncio.to_thread(lambda: "lose-lease" in system.log(first))

    await eventually(has_let_go)
    assert await completed(client, run_id) == finished
    assert [step["output"]["body"] for step in finished["steps"]] == [{"who": "other"}]
    assert [each["count"] for each in await simulators.deliveries(receiver)] == [2]
    system.kill(first)


def second_worker(system: RunningSystem, service: str) -> str:
    """The name of another worker of that kind, ready to be started."""
    kind = kind_of(service)
    assert kind is not None
    second = system.system.replica(kind, 2)
    system.programs[second.name] = second
    return second.name


async def completed(client: Client, run_id: str) -> Any:
    """The run once it is completed."""
    run = (await client.get(f"/api/runs/{run_id}")).json()
    return run if run["state"] == "completed" else None


@pytest.mark.long  # the broker gives a frozen consumer's deliveries to another after two heartbeats
@pytest.mark.timeout(180)
async def test_a_worker_paused_past_its_lease_during_the_crms_call(
    system: RunningSystem, client: Client, account: Account
) -> None:
    """The lead changes meanwhile and another worker takes over: the CRM ends at the newest version."""
    second = second_worker(system, "crm-sync-worker")
    await account.simulators.latency(1.0)
    lead = (await client.post("/api/leads", {"email": f"{new_id('fence')}@example.com"})).json()
    await eventually(lambda: is_in_flight(account, lead["id"]), seconds=10)
    system.signal("crm-sync-worker-1", signal.SIGSTOP)
    try:
        changed = await client.patch(f"/api/leads/{lead['id']}", {"first_name": "Newest"})
        assert changed.status_code == 200
        system.spawn(second)
        system.wait_ready(second)
        await account.simulators.latency(0)
        await eventually(lambda: account.in_step(lead["id"], 2), seconds=80)
    finally:
        system.signal("crm-sync-worker-1", signal.SIGCONT)
    await asyncio.sleep(2)
    assert await account.in_step(lead["id"], 2)
    [contact] = await account.contacts_of(lead["id"])
    assert contact["properties"]["firstname"] == "Newest"
    system.terminate(second)
    await eventually(lambda: ready_again(system), seconds=10)


async def is_in_flight(account: Account, lead_id: str) -> bool:
    return (await account.standing(lead_id)).get("state") == "in_flight"


async def ready_again(system: RunningSystem) -> bool:
    await asyncio.to_thread(system.wait_ready, "crm-sync-worker-1")
    return True
