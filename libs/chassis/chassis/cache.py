"""The shared cache: bodies by key and revision in Redis. An accelerator, never a source.

A value is replaced only by one of a higher revision, by compare-and-set in a script; nothing is ever deleted, a deleted thing is a
tombstone (an empty body). So a reader that was slow between database and cache cannot put an old value over a new one.

Calls go to Redis together: what is asked for while one is under way goes into the next, without a timer.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError

from chassis.metrics import CACHE_READS

TTL_SECONDS = 60
TOGETHER = 100
OWED_ENTRIES = 10_000
REPAY_SECONDS = 0.25
_TROUBLE = (RedisError, OSError, TimeoutError)

_PUT_IF_NEWER = """
for i, key in ipairs(KEYS) do
  local revision, value = ARGV[2 * i], ARGV[2 * i + 1]
  local held = redis.call('GET', key)
  local held_revision = held and tonumber(string.match(held, '^(%d+)\\n'))
  if not (held_revision and held_revision >= tonumber(revision)) then
    redis.call('SET', key, revision .. '\\n' .. value, 'EX', ARGV[1])
  end
end
"""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class CachedBody:
    """A body and the revision it shows; an empty body says that the thing is deleted."""

    revision: int
    body: bytes


@dataclass(frozen=True, slots=True)
class _Entry:
    key: str
    revision: int
    body: bytes
    put_at: float


class _Together(Generic[_Item, _Result]):
    """One call at a time; whoever comes while it is under way goes into the next one."""

    def __init__(self, call: Callable[[Sequence[_Item]], Awaitable[Sequence[_Result]]]) -> None:
        self._call = call
        self._waiting: list[tuple[_Item, asyncio.Future[_Result]]] = []
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, item: _Item) -> _Result:
        future: asyncio.Future[_Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        batch: list[tuple[_Item, asyncio.Future[_Result]]] = []
        try:
            while batch := self._waiting[:TOGETHER]:
                del self._waiting[: len(batch)]
                results = await self._call([item for item, _ in batch])
                for (_, future), result in zip(batch, results, strict=True):
                    if not future.done():
                        future.set_result(result)
        finally:
            self._task = None
            for _, future in batch:  # a call that raised, or was cancelled with the process: nobody waits for ever
                if not future.done():
                    future.cancel()


class VersionedCache:
    """Never raises for Redis's trouble: a read is then a miss, and a write is made up for as long as something older may be held."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._put_if_newer = redis.register_script(_PUT_IF_NEWER)
        self._get_together = _Together(self._read)
        self._put_together = _Together(self._write)
        self._owed: dict[str, _Entry] = {}
        self._repaying: asyncio.Task[None] | None = None
        self._hit = CACHE_READS.labels("hit")
        self._miss = CACHE_READS.labels("miss")
        self._trouble = CACHE_READS.labels("trouble")

    async def get(self, key: str) -> CachedBody | None:
        """What is held, or None."""
        held = await self._get_together(key)
        if held is None:
            return None
        revision, _, body = held.partition(b"\n")
        return CachedBody(int(revision), body)

    async def fill(self, key: str, revision: int, body: bytes) -> None:
        """For readers: hold `body` for a minute unless a revision as high is held already."""
        await self._put_together(_Entry(key, revision, body, time.monotonic()))

    async def put(self, key: str, revision: int, body: bytes) -> None:
        """For writers: as `fill`; if Redis does not take it now, it is tried again until whatever it held before has ended."""
        entry = _Entry(key, revision, body, time.monotonic())
        if not await self._put_together(entry):
            self._owe(entry)

    async def close(self) -> None:
        """Stop making up for writes."""
        if self._repaying is not None:
            self._repaying.cancel()
            with suppress(asyncio.CancelledError):
                await self._repaying

    async def _read(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        try:
            found = await self._redis.mget(keys)
        except _TROUBLE:
            self._trouble.inc(len(keys))
            return [None] * len(keys)
        hits = sum(held is not None for held in found)
        self._hit.inc(hits)
        self._miss.inc(len(keys) - hits)
        return [held if isinstance(held, bytes) else None for held in found]

    async def _write(self, entries: Sequence[_Entry]) -> Sequence[bool]:
        arguments: list[str | int | bytes] = [TTL_SECONDS]
        for entry in entries:
            arguments += (entry.revision, entry.body)
        try:
            await self._put_if_newer(keys=[entry.key for entry in entries], args=arguments)
        except _TROUBLE:
            self._trouble.inc(len(entries))
            return [False] * len(entries)
        return [True] * len(entries)

    def _owe(self, entry: _Entry) -> None:
        owed = self._owed.get(entry.key)
        if owed is None or owed.revision < entry.revision:
            self._owed[entry.key] = entry
        if len(self._owed) > OWED_ENTRIES:
            self._owed.pop(next(iter(self._owed)))
        if self._repaying is None or self._repaying.done():
            self._repaying = asyncio.create_task(self._repay(), name="cache-repay")

    async def _repay(self) -> None:
        while self._owed:
            await asyncio.sleep(REPAY_SECONDS)
            oldest = time.monotonic() - TTL_SECONDS
            entries = list(self._owed.values())[:TOGETHER]
            taken = await self._write(entries)
            for entry, done in zip(entries, taken, strict=True):
                if (done or entry.put_at < oldest) and self._owed.get(entry.key) is entry:
                    del self._owed[entry.key]
