"""One rate budget shared by all processes: token buckets in Redis that all have to grant.

A limit of `count` in any `seconds` is kept by a bucket of a fifth of `count` that refills at four fifths of the rate: in no
window of that length can more than `count` be granted, as long as the Redis server's clock, which is the one that counts, runs
evenly. A bucket that is not there starts empty, so that a flushed Redis cannot grant a second burst; one of an hour or more starts
with a five hundredth of its count, lest the first call of a new connection wait for it.
"""

import time
from collections.abc import Sequence

from redis.asyncio import Redis
from redis.exceptions import RedisError

_BURST_SHARE = 0.2
_START_SHARE = 0.002
_LONG_SECONDS = 3600
_KEEP_SECONDS = 172_800

_TAKE = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local wait = 0
local left = {}
for i, key in ipairs(KEYS) do
  local size, rate, start = tonumber(ARGV[i * 3 - 1]), tonumber(ARGV[i * 3]), tonumber(ARGV[i * 3 + 1])
  local wanted = math.min(tonumber(ARGV[1]), size)
  local held = redis.call('HMGET', key, 'tokens', 'at')
  local tokens = start
  if held[1] then
    local since = now - tonumber(held[2])
    if since < 0 then  -- the clock was put back: count from now on, not from when it gets there again
      since = 0
      redis.call('HSET', key, 'at', string.format('%.6f', now))
    end
    tokens = math.min(size, tonumber(held[1]) + since * rate)
  else
    redis.call('HSET', key, 'tokens', tostring(start), 'at', string.format('%.6f', now))
    redis.call('EXPIRE', key, ARGV[#ARGV])
  end
  left[i] = tokens - wanted
  if left[i] < 0 then wait = math.max(wait, -left[i] / rate) end
end
if wait > 0 then return string.format('%.6f', wait) end
for i, key in ipairs(KEYS) do
  redis.call('HSET', key, 'tokens', string.format('%.6f', left[i]), 'at', string.format('%.6f', now))
  redis.call('EXPIRE', key, ARGV[#ARGV])
end
return '0'
"""


class RateBudget:
    """`limits` are (count, seconds) pairs, say `[(100, 10)]`. Without Redis each process grants itself a tenth."""

    def __init__(
        self, redis: Redis, name: str, limits: Sequence[tuple[float, float]], *, fallback_divisor: float = 10
    ) -> None:
        self._script = redis.register_script(_TAKE)
        self._keys = [f"rate:{name}:{seconds:g}" for _, seconds in limits]
        self._buckets = [_Bucket(count, seconds) for count, seconds in limits]
        self._fallback = [_LocalBucket(_Bucket(count / fallback_divisor, seconds)) for count, seconds in limits]

    async def take(self, count: float = 1) -> float:
        """0 if `count` was granted by every limit and taken; else the seconds after which to ask again."""
        arguments = [part for bucket in self._buckets for part in (bucket.size, bucket.rate, bucket.start)]
        try:
            answer = await self._script(keys=self._keys, args=[count, *arguments, _KEEP_SECONDS])
        except (RedisError, OSError, TimeoutError):
            return self._take_locally(count)
        return float(answer)

    def _take_locally(self, count: float) -> float:
        wait = max(bucket.wait(count) for bucket in self._fallback)
        if wait == 0:
            for bucket in self._fallback:
                bucket.tokens -= min(count, bucket.size)
        return wait


class _Bucket:
    """How many tokens fit, and how many come back a second."""

    def __init__(self, count: float, seconds: float) -> None:
        self.size = max(1.0, count * _BURST_SHARE)
        self.start = min(self.size, count * _START_SHARE) if seconds >= _LONG_SECONDS else 0.0
        self.rate = max(count - self.size, count * _BURST_SHARE) / seconds


class _LocalBucket:
    def __init__(self, bucket: _Bucket) -> None:
        self.size, self._rate = bucket.size, bucket.rate
        self.tokens, self._at = bucket.start, time.monotonic()

    def wait(self, count: float) -> float:
        now = time.monotonic()
        self.tokens = min(self.size, self.tokens + (now - self._at) * self._rate)
        self._at = now
        return max(0.0, (min(count, self.size) - self.tokens) / self._rate)
