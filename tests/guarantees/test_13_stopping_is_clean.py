"""A process that is told to stop fails no request and leaves nothing half done."""

import asyncio
import signal

import asyncpg

from chassis.ids import new_id
from tests.guarantees.calls import SECRET, run_to_receiver
from tests.guarantees.conftest import Account, Simulators
from tests.guarantees.consumers import all_taken
from tests.guarantees.history import History, load
from tests.support.fixtures import eventually
from tests.support.system import Client, RunningSystem


async def test_replicas_restarted_one_after_the_other_under_load_fail_no_request(
    system: RunningSystem, client: Client
) -> None:
    history = History()
    async with load(client, history, per_second=40):
        for name in ("leads-1", "leads-2"):
            code = await asyncio.to_thread(system.terminate, name)
            assert code == 0
            system.spawn(name)
            await asyncio.to_thread(system.wait_ready, name)
    assert set(history.statuses) == {201}
    assert not history.unknown
    await history.check(system)


async def test_workers_restarted_under_load_lose_and_repeat_nothing(system: RunningSystem, client: Client) -> None:
    history = History()
    async with load(client, history, per_second=20):
        for name in ("leads-worker-1", "workflows-worker-1", "crm-sync-worker-1"):
            code = await asyncio.to_thread(system.terminate, name)
            assert code == 0
            system.spawn(name)
            await asyncio.to_thread(system.wait_ready, name)
    await eventually(lambda: all_taken(system, history.ok.values()), seconds=30)
    for lead_id in list(history.ok.values())[:5]:
        items = (await client.get(f"/api/leads/{lead_id}/timeline")).json()["items"]
        assert len([item for item in items if item["kind"] == "change"]) == 1


async def test_a_request_under_way_is_answered_by_the_replica_that_was_told_to_stop(
    system: RunningSystem, client: Client
) -> None:
    """Asked directly: the gateway would ask another replica."""
    lead = (await client.post("/api/leads", {"email": f"{new_id('stop')}@example.com"})).json()
    port = system.programs["leads-1"].port
    replica = Client(f"http://127.0.0.1:{port}")
    replica.http.headers.update(client.http.headers)
    other = await asyncpg.connect(system.system.postgresql.dsn("leads"))
    try:
        async with other.transaction():
            await other.execute("SELECT FROM leads WHERE id = $1 FOR UPDATE", lead["id"])
            answer = asyncio.create_task(replica.patch(f"/api/leads/{lead['id']}", {"score": 7}))
            await eventually(lambda: waits_for_a_lock(system))
            system.signal("leads-1", signal.SIGTERM)
            await asyncio.sleep(0.5)
            assert not answer.done()
        assert (await answer).status_code == 200
        assert await system.died("leads-1") == 0
    finally:
        await other.close()
        await replica.close()
        system.revive("leads-1")
    assert (await client.get(f"/api/leads/{lead['id']}")).json()["score"] == 7


async def waits_for_a_lock(system: RunningSystem) -> bool:
    rows = await system.sql(
        "leads", "SELECT FROM pg_stat_activity WHERE datname = 'leads' AND wait_event_type = 'Lock'"
    )
    return bool(rows)


async def test_a_worker_told_to_stop_during_a_call_keeps_the_answer(
    system: RunningSystem, client: Client, simulators: Simulators
) -> None:
    receiver = new_id("receiver")
    planned = {"secret": SECRET, "answers": [{"body": {}, "delay_seconds": 1.0}]}
    assert (await simulators.http.put(f"/_control/webhooks/{receiver}", json=planned)).status_code < 300
    run_id = await run_to_receiver(system, client, receiver, "stop")
    await eventually(lambda: simulators.deliveries(receiver))
    try:
        assert await asyncio.to_thread(system.terminate, "workflows-worker-1") == 0
        run = (await client.get(f"/api/runs/{run_id}")).json()
        assert [step["state"] for step in run["steps"]] == ["succeeded"]
    finally:
        system.revive("workflows-worker-1")

    async def state() -> bool:
        return bool((await client.get(f"/api/runs/{run_id}")).json()["state"] == "completed")

    await eventually(state, seconds=4)  # nobody waits for a lease
    assert [each["count"] for each in await simulators.deliveries(receiver)] == [1]


async def test_a_sync_worker_told_to_stop_during_the_crms_call_notes_its_result(
    system: RunningSystem, client: Client, account: Account
) -> None:
    await account.simulators.latency(1.0)
    lead = (await client.post("/api/leads", {"email": f"{new_id('stop')}@example.com"})).json()

    async def is_in_flight() -> bool:
        return (await account.standing(lead["id"])).get("state") == "in_flight"

    await eventually(is_in_flight)
    try:
        assert await asyncio.to_thread(system.terminate, "crm-sync-worker-1") == 0
        assert await account.in_step(lead["id"], 1)
    finally:
        await account.simulators.latency(0)
        system.revive("crm-sync-worker-1")
    assert len(await account.contacts_of(lead["id"])) == 1
