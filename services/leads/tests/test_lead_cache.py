"""The cache: right under concurrency, never needed."""

import asyncio
from typing import Any

import httpx2
import pytest
from redis.asyncio import Redis

from leads import repository


@pytest.fixture
async def lead(api: httpx2.AsyncClient) -> dict[str, Any]:
    created: dict[str, Any] = (await api.post("/api/leads", json={"email": "ada@example.com"})).json()
    return created


@pytest.fixture
async def redis(redis_url: str) -> Any:
    client = Redis.from_url(redis_url)
    yield client
    await client.aclose()


async def test_a_read_is_answered_from_the_cache_without_the_database(
    replica: Any, lead: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> None:
        raise AssertionError("the database was asked")

    monkeypatch.setattr(repository, "read_lead", fail)
    answer = await replica.client.get(f"/api/leads/{lead['id']}")
    assert answer.json() == lead


async def test_a_read_fills_the_cache_with_the_same_bytes_and_tag(
    api: httpx2.AsyncClient, lead: dict[str, Any], redis: Redis
) -> None:
    path = f"/api/leads/{lead['id']}"
    written = await api.patch(path, json={"custom": {"b": 1.5, "a": {"z": 1, "y": [1, 2.0]}}, "tags": ["x"]})
    await redis.flushdb()
    filled, cached = await api.get(path), await api.get(path)
    assert written.content == filled.content == cached.content
    assert written.headers["etag"] == filled.headers["etag"] == cached.headers["etag"]
    assert 0 < await redis.ttl(f"lead:ws_1:{lead['id']}") <= 60


async def test_if_none_match_is_304_until_the_lead_changes(api: httpx2.AsyncClient, lead: dict[str, Any]) -> None:
    path = f"/api/leads/{lead['id']}"
    same = await api.get(path, headers={"If-None-Match": '"1.1"'})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", '"1.1"')
    await api.patch(path, json={"score": 1})
    changed = await api.get(path, headers={"If-None-Match": '"1.1"'})
    assert (changed.status_code, changed.headers["etag"]) == (200, '"2.2"')


async def test_no_replica_shows_an_older_state_after_a_2xx_of_another(
    start_replica: Any, api: httpx2.AsyncClient, lead: dict[str, Any]
) -> None:
    other = (await start_replica()).client
    path = f"/api/leads/{lead['id']}"
    for score in range(1, 30):
        writer, reader = (api, other) if score % 2 else (other, api)
        answer = await writer.patch(path, json={"score": score})
        seen = await asyncio.gather(*(reader.get(path) for _ in range(3)))
        assert all(one.content == answer.content for one in seen)
    assert (await other.delete(path)).status_code == 204
    assert (await api.get(path)).status_code == 404
    back = await other.post(f"{path}/restore")
    assert (await api.get(path)).content == back.content


async def test_under_concurrent_writes_no_read_ever_goes_back_in_time(
    start_replica: Any, api: httpx2.AsyncClient, lead: dict[str, Any], redis: Redis
) -> None:
    """Readers note the newest version that was answered to anybody before they asked; none may see an older one."""
    other = (await start_replica()).client
    path = f"/api/leads/{lead['id']}"
    answered = 1
    done = False

    async def write(client: httpx2.AsyncClient, first: int) -> None:
        nonlocal answered
        for score in range(first, 60, 2):
            version = (await client.patch(path, json={"score": score})).json()["version"]
            answered = max(answered, version)

    async def read(client: httpx2.AsyncClient) -> int:
        reads = 0
        while not done:
            least = answered
            assert (await client.get(path)).json()["version"] >= least
            reads += 1
        return reads

    readers = [asyncio.create_task(read(client)) for client in (api, other, api, other)]
    await asyncio.gather(write(api, 1), write(other, 2))
    done = True
    assert min(await asyncio.gather(*readers)) > 10


async def held_reader(
    client: httpx2.AsyncClient, path: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[asyncio.Task[httpx2.Response], asyncio.Event]:
    """A GET that has read the database and waits for the event before it goes on to the cache."""
    has_read, go_on = asyncio.Event(), asyncio.Event()
    with monkeypatch.context() as patch:
        read_lead = repository.read_lead

        async def slow(*arguments: Any) -> Any:
            found = await read_lead(*arguments)
            has_read.set()
            await go_on.wait()
            return found

        patch.setattr(repository, "read_lead", slow)
        reading = asyncio.create_task(client.get(path))
        await has_read.wait()
    return reading, go_on


async def test_a_slow_reader_cannot_put_an_old_state_over_a_new_one(
    replica: Any, start_replica: Any, lead: dict[str, Any], redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = (await start_replica()).client
    path = f"/api/leads/{lead['id']}"
    await redis.flushdb()
    reading, go_on = await held_reader(replica.client, path, monkeypatch)
    written = await other.patch(path, json={"score": 77})
    go_on.set()
    assert (await reading).json() == lead  # it asked before the write was answered
    assert (await replica.client.get(path)).content == written.content
    assert (await other.get(path)).content == written.content


async def test_a_slow_reader_cannot_bring_a_deleted_lead_back(
    replica: Any, start_replica: Any, lead: dict[str, Any], redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = (await start_replica()).client
    path = f"/api/leads/{lead['id']}"
    await redis.flushdb()
    reading, go_on = await held_reader(replica.client, path, monkeypatch)
    await other.delete(path)
    go_on.set()
    await reading
    assert (await replica.client.get(path)).status_code == 404


async def test_without_redis_everything_works_from_the_database(start_replica: Any) -> None:
    api = (await start_replica(cache_url="redis://127.0.0.1:9/0")).client
    created = await api.post("/api/leads", json={"email": "ada@example.com"})
    assert created.status_code == 201
    path = created.headers["location"]
    assert (await api.get(path)).content == created.content
    changed = await api.patch(path, json={"score": 9})
    assert (await api.get(path)).content == changed.content
    assert (await api.delete(path)).status_code == 204
    assert (await api.get(path)).status_code == 404
