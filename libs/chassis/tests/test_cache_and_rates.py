"""The cache never goes back, the rate budget is never exceeded, and neither fails with Redis."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from chassis.cache import CachedBody, VersionedCache
from chassis.ratelimit import RateBudget
from chassis.resources import make_redis
from tests.support.fixtures import eventually


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = make_redis(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
async def lost_redis() -> AsyncIterator[Redis]:
    client = make_redis("redis://127.0.0.1:9/0")
    yield client
    await client.aclose()


async def test_an_older_revision_never_replaces_a_newer_one(redis: Redis) -> None:
    cache = VersionedCache(redis)
    await cache.put("lead:ws:1", 10, b"ten")
    await cache.put("lead:ws:1", 9, b"nine")
    assert await cache.get("lead:ws:1") == CachedBody(10, b"ten")
    await cache.put("lead:ws:1", 11, b"eleven")
    assert await cache.get("lead:ws:1") == CachedBody(11, b"eleven")


async def test_a_tombstone_keeps_a_slow_reader_from_bringing_a_deleted_thing_back(redis: Redis) -> None:
    cache = VersionedCache(redis)
    await cache.put("lead:ws:1", 3, b"")
    await cache.put("lead:ws:1", 2, b"alive")
    assert await cache.get("lead:ws:1") == CachedBody(3, b"")


async def test_what_is_held_ends_after_a_minute(redis: Redis) -> None:
    await VersionedCache(redis).put("lead:ws:1", 1, b"one\nline")
    assert 0 < await redis.ttl("lead:ws:1") <= 60
    assert await VersionedCache(redis).get("lead:ws:1") == CachedBody(1, b"one\nline")


async def test_a_write_that_redis_does_not_take_in_time_is_made_up_for(redis: Redis, redis_url: str) -> None:
    """Redis stands still for a moment while a writer commits: what it held before does not stay."""
    writing = make_redis(redis_url)
    cache = VersionedCache(writing)
    await cache.put("lead:ws:1", 1, b"one")
    await redis.execute_command("CLIENT", "PAUSE", "1500", "ALL")
    async with asyncio.timeout(1.3):  # and nobody waits for it that long
        await cache.put("lead:ws:1", 2, b"two")
    await eventually(lambda: holds(cache, CachedBody(2, b"two")), seconds=10)
    await cache.close()
    await writing.aclose()


class Cut:
    """The way to Redis for writes, which a test can cut; `reached` is set when a write is under way on it."""

    def __init__(self, cache: VersionedCache, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_cut = True
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()
        self.go_on.set()
        write = cache._put_if_newer

        async def put_if_newer(**arguments: Any) -> None:
            self.reached.set()
            if self.is_cut:
                raise ConnectionError("Redis is away")
            await self.go_on.wait()
            await write(**arguments)

        monkeypatch.setattr(cache, "_put_if_newer", put_if_newer)


async def test_of_what_is_made_up_for_the_newest_revision_counts(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when a newer one joins while an older one is being made up for."""
    cache = VersionedCache(redis)
    cut = Cut(cache, monkeypatch)
    await cache.put("lead:ws:1", 2, b"two")
    await cache.put("lead:ws:1", 1, b"one")
    cut.is_cut = False
    await eventually(lambda: holds(cache, CachedBody(2, b"two")))
    cut.is_cut = True
    await cache.put("lead:ws:1", 3, b"three")
    cut.is_cut = False
    cut.go_on.clear()
    cut.reached.clear()
    await cut.reached.wait()
    cut.is_cut = True
    await cache.put("lead:ws:1", 4, b"four")
    cut.is_cut = False
    cut.go_on.set()
    await eventually(lambda: holds(cache, CachedBody(4, b"four")))
    await cache.close()


async def test_what_is_made_up_for_is_bounded_in_number_and_in_time(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis forgets what it held after a minute: from then on nothing can be stale any more."""
    monkeypatch.setattr("chassis.cache.OWED_ENTRIES", 3)
    monkeypatch.setattr("chassis.cache.TTL_SECONDS", 0.5)
    cache = VersionedCache(redis)
    Cut(cache, monkeypatch)
    for number in range(5):
        await cache.put(f"lead:ws:{number}", 1, b"one")
    assert list(cache._owed) == ["lead:ws:2", "lead:ws:3", "lead:ws:4"]

    async def owes_nothing() -> bool:
        return not cache._owed

    await eventually(owes_nothing, seconds=3)
    await cache.close()


async def holds(cache: VersionedCache, expected: CachedBody) -> bool:
    return await cache.get("lead:ws:1") == expected


async def test_a_fault_under_a_shared_call_leaves_nobody_waiting_for_ever(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = VersionedCache(redis)
    await cache.put("lead:ws:1", 1, b"one")
    with monkeypatch.context() as broken:
        broken.setattr(redis, "mget", lambda _keys: 1 / 0)
        waiting = [asyncio.create_task(cache.get("lead:ws:1")) for _ in range(3)]
        done, _ = await asyncio.wait(waiting, timeout=1)
        assert len(done) == 3
    assert await cache.get("lead:ws:1") == CachedBody(1, b"one")


async def test_without_redis_a_read_is_a_miss_within_half_a_second(lost_redis: Redis) -> None:
    cache = VersionedCache(lost_redis)
    started = time.monotonic()
    assert await cache.get("lead:ws:1") is None
    await cache.fill("lead:ws:1", 1, b"one")
    assert time.monotonic() - started < 1


async def test_several_workers_together_never_exceed_the_limit_in_any_window(redis: Redis) -> None:
    limit, seconds = 50, 1.0
    granted: list[float] = []

    async def worker() -> None:
        budget = RateBudget(redis, "conn_1", [(limit, seconds)])
        while time.monotonic() < end:
            wait = await budget.take()
            if wait:
                await asyncio.sleep(wait)
            else:
                granted.append(time.monotonic())

    end = time.monotonic() + 3
    await asyncio.gather(*(worker() for _ in range(4)))
    granted.sort()
    most = max(sum(1 for other in granted if at <= other < at + seconds) for at in granted)
    assert most <= limit
    assert len(granted) > limit  # the budget is used, not only kept


async def test_a_flushed_redis_grants_no_second_burst(redis: Redis) -> None:
    budget = RateBudget(redis, "conn_1", [(1000, 10)])
    await budget.take()
    await redis.flushdb()
    assert await budget.take(100) > 0


async def test_a_redis_whose_clock_is_put_back_stops_nobody(redis: Redis) -> None:
    budget = RateBudget(redis, "conn_1", [(20, 1.0)])
    assert await budget.take() > 0  # a new bucket is empty
    await redis.hset("rate:conn_1:1", "at", str(time.time() + 3600))
    async with asyncio.timeout(2):
        while wait := await budget.take():
            await asyncio.sleep(min(wait, 0.1))


async def test_more_than_a_bucket_holds_is_granted_when_it_is_full(redis: Redis, lost_redis: Redis) -> None:
    """A batch of any size has its turn; it would wait for ever for what the bucket never holds."""
    for client, limit in ((redis, (20, 1.0)), (lost_redis, (200, 1.0))):
        budget = RateBudget(client, "conn_1", [limit])
        async with asyncio.timeout(2):
            while wait := await budget.take(1000):
                await asyncio.sleep(wait)


async def test_without_redis_a_process_grants_itself_a_tenth(lost_redis: Redis) -> None:
    budget = RateBudget(lost_redis, "conn_1", [(100, 1)])
    end, granted = time.monotonic() + 2, 0
    while time.monotonic() < end:
        wait = await budget.take()
        granted += wait == 0
        await asyncio.sleep(min(wait, 0.1))
    assert 1 <= granted <= 25


async def test_a_daily_limit_lets_a_new_connection_begin_at_once(redis: Redis) -> None:
    budget = RateBudget(redis, "conn_1", [(250_000, 86_400)])
    assert await budget.take() == 0
    assert await budget.take(1000) > 0


async def test_of_two_limits_the_tighter_one_holds(redis: Redis) -> None:
    budget = RateBudget(redis, "conn_1", [(1000, 1), (10, 100)])
    await budget.take()
    assert await budget.take() > 5
