"""Failed sign-ins slow down, then have to wait; nobody is locked out for good.

Failures are counted in leaking buckets in PostgreSQL, so that neither a restart nor a lost cache forgives them:
- per account and address: after five, each attempt has to wait twice as long as the last, at most a minute;
- per address, over all accounts: the same after thirty, so that one machine cannot try many accounts;
- per account, over all addresses: answers come later, by at most two seconds. An account never refuses, because then anybody
  could lock its owner out from anywhere.
An attempt that is refused is not counted: waiting always helps, and a correct password from another address always works.
"""

import hashlib
import ipaddress
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["account", "address", "pair"]


@dataclass(frozen=True, slots=True)
class Bucket:
    """How many failures are free, and the seconds in which one leaks away."""

    free: int
    leak_seconds: float


BUCKETS: Mapping[Kind, Bucket] = {
    "account": Bucket(free=3, leak_seconds=60),
    "address": Bucket(free=30, leak_seconds=30),
    "pair": Bucket(free=5, leak_seconds=300),
}
LONGEST_WAIT_SECONDS = 60.0
SLOWER_BY_SECONDS = 0.25
SLOWEST_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Failures:
    """One bucket's content when it last grew, and the seconds since."""

    kind: Kind
    level: float
    age_seconds: float

    @property
    def level_now(self) -> float:
        return max(0.0, self.level - self.age_seconds / BUCKETS[self.kind].leak_seconds)


def bucket_keys(email: str, address: str) -> dict[Kind, bytes]:
    """What is counted for an attempt: digests, since the table need not hold addresses. An IPv6 client is its /64 network."""
    network = _network(address)
    return {
        "account": _digest("account", email),
        "address": _digest("address", network),
        "pair": _digest("pair", email, network),
    }


def wait_seconds(failures: Iterable[Failures]) -> int:
    """Whole seconds until the next attempt is let through; 0: now."""
    waits = [_backoff(each) - each.age_seconds for each in failures if each.kind != "account"]
    return max(0, math.ceil(max(waits, default=0)))


def delay_seconds(failures: Iterable[Failures]) -> float:
    """By how much the answer to an attempt comes later."""
    over = [each.level_now - BUCKETS[each.kind].free for each in failures if each.kind == "account"]
    return min(SLOWEST_SECONDS, max(0.0, SLOWER_BY_SECONDS * max(over, default=0)))


def _backoff(failures: Failures) -> float:
    """Seconds from the last failure to the next attempt: 0, then 2, 4, 8 … by failures above the free ones.

    Rounded, because a little has leaked between failures that followed each other.
    """
    over = round(failures.level) - BUCKETS[failures.kind].free
    return min(LONGEST_WAIT_SECONDS, 2.0 ** min(over + 1, 10)) if over >= 0 else 0.0


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((int(parsed), 64), strict=False))
    return str(parsed)


def _digest(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()
