"""The shared cache: bodies by key and revision in Redis. An accelerator, never a source.

A value is replaced only by one of a higher revision, by compare-and-set in a script; nothing is ever deleted, a deleted thing is a
tombstone (an empty body). So a reader that was slow between database and cache cannot put an old value over a new one.
"""

from dataclasses import dataclass

from redis.asyncio import Redis
from redis.exceptions import RedisError

from chassis.metrics import CACHE_READS

TTL_SECONDS = 60
_TROUBLE = (RedisError, OSError, TimeoutError)

_PUT_IF_NEWER = """
local held = redis.call('GET', KEYS[1])
if held then
  local revision = tonumber(string.match(held, '^(%d+)\\n'))
  if revision and revision >= tonumber(ARGV[1]) then return 0 end
end
redis.call('SET', KEYS[1], ARGV[1] .. '\\n' .. ARGV[2], 'EX', ARGV[3])
return 1
"""


@dataclass(frozen=True, slots=True)
class CachedBody:
    """A body and the revision it shows; an empty body says that the thing is deleted."""

    revision: int
    body: bytes


class VersionedCache:
    """Never raises for Redis's trouble: a read is then a miss, a write is not made."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._put_if_newer = redis.register_script(_PUT_IF_NEWER)
        self._hit = CACHE_READS.labels("hit")
        self._miss = CACHE_READS.labels("miss")
        self._trouble = CACHE_READS.labels("trouble")

    async def get(self, key: str) -> CachedBody | None:
        try:
            held = await self._redis.get(key)
        except _TROUBLE:
            self._trouble.inc()
            return None
        if not isinstance(held, bytes):
            self._miss.inc()
            return None
        self._hit.inc()
        revision, _, body = held.partition(b"\n")
        return CachedBody(int(revision), body)

    async def put(self, key: str, revision: int, body: bytes) -> None:
        """Hold `body` for a minute unless a revision as high is held already."""
        try:
            await self._put_if_newer(keys=[key], args=[revision, body, TTL_SECONDS])
        except _TROUBLE:
            self._trouble.inc()
