"""With Redis stopped, flushed or slow: never wrong, never failing."""

import asyncio

from chassis.ids import new_id
from tests.support.system import Client, RunningSystem


async def edit_and_read(client: Client, lead: dict[str, object], times: int) -> None:
    """Each change is what the next read shows, on whichever replica."""
    path = f"/api/leads/{lead['id']}"
    for number in range(1, times + 1):
        changed = await client.patch(path, {"score": number % 100})
        assert changed.status_code == 200, changed.text
        shown = await asyncio.gather(*(client.get(path) for _ in range(4)))
        assert {answer.json()["version"] for answer in shown} == {changed.json()["version"]}


async def new_lead(client: Client) -> dict[str, object]:
    answer = await client.post("/api/leads", {"email": f"{new_id('cache')}@example.com"})
    assert answer.status_code == 201
    found: dict[str, object] = answer.json()
    return found


async def test_a_read_after_a_change_never_shows_the_older_version(client: Client) -> None:
    await edit_and_read(client, await new_lead(client), 20)


async def test_many_readers_and_writers_never_see_a_lead_go_back(client: Client) -> None:
    lead = await new_lead(client)
    path, done = f"/api/leads/{lead['id']}", asyncio.Event()

    async def write() -> None:
        for number in range(40):
            answer = await client.patch(path, {"score": number + 1})
            assert answer.status_code == 200
        done.set()

    async def read() -> None:
        seen = 0
        while not done.is_set():
            version = (await client.get(path)).json()["version"]
            assert version >= seen
            seen = version

    await asyncio.gather(write(), *(read() for _ in range(6)))


async def test_redis_stopped_and_back_empty_costs_no_request_and_shows_nothing_stale(
    system: RunningSystem, client: Client
) -> None:
    lead = await new_lead(client)
    await edit_and_read(client, lead, 3)
    await asyncio.to_thread(system.kill_server, "redis")
    await edit_and_read(client, lead, 5)
    await asyncio.to_thread(system.launch_server, "redis")
    await edit_and_read(client, lead, 5)
    deleted = await client.delete(f"/api/leads/{lead['id']}")
    assert deleted.status_code == 204
    assert (await client.get(f"/api/leads/{lead['id']}")).status_code == 404
