"""A process that is told to stop fails no request and leaves nothing half done."""

import asyncio

from tests.guarantees.consumers import all_taken
from tests.guarantees.history import History, load
from tests.support.fixtures import eventually
from tests.support.system import Client, RunningSystem


async def test_replicas_restarted_one_after_the_other_under_load_fail_no_request(
    system: RunningSystem, client: Client
) -> None:
    history = History()
    async with load(client, history, per_second=60):
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
