"""A claim on work that ends by itself. The token fences: every later write of the holder is conditional on it.

The database's clock decides when a lease is over; the holder stops itself at two thirds by its own monotonic clock, and renews
at one third.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from chassis.ids import new_id
from chassis.logs import get_logger
from chassis.trouble import is_database_trouble

log = get_logger()


class LeaseLost(Exception):
    """The lease is over or another worker's: stop, write nothing more."""


def new_lease_token() -> str:
    """A token that no earlier claim has had."""
    return new_id("lease")


@dataclass(slots=True)
class Lease:
    """`token` goes into every write's WHERE; `seconds` is the lease's length."""

    token: str
    seconds: float
    _since: float = field(default_factory=time.monotonic)

    def remaining(self) -> float:
        """Seconds in which the holder may still act: until two thirds of the lease are over."""
        return self._since + self.seconds * 2 / 3 - time.monotonic()

    def renewed(self, asked_at: float) -> None:
        """Count from `asked_at` (monotonic), the moment before the renewal was sent."""
        self._since = asked_at

    def check(self) -> None:
        """LeaseLost if the holder must not act any more."""
        if self.remaining() <= 0:
            raise LeaseLost("the lease ran out")


@asynccontextmanager
async def renewing(lease: Lease, renew: Callable[[], Awaitable[bool]]) -> AsyncIterator[Lease]:
    """Renew while the block runs. The block is cancelled, and LeaseLost raised, once the lease cannot be kept."""
    owner = asyncio.current_task()
    if owner is None:
        raise RuntimeError("a lease is held by a task")
    lost = False

    async def keep() -> None:
        nonlocal lost
        while True:
            await asyncio.sleep(max(0.0, min(lease.seconds / 3, lease.remaining())))
            asked_at = time.monotonic()
            try:
                if not await asyncio.wait_for(renew(), max(0.05, lease.remaining())):
                    lost = True
                else:
                    lease.renewed(asked_at)
            except Exception as error:
                if not is_database_trouble(error):
                    log.exception("fail-renewing")
                await asyncio.sleep(0.2)
            if lost or lease.remaining() <= 0:
                lost = True
                owner.cancel("lease lost")
                return

    keeper = asyncio.create_task(keep(), name="lease-keeper")
    try:
        yield lease
    except asyncio.CancelledError as error:
        if lost and owner.uncancel() == 0:
            raise LeaseLost("the lease could not be kept") from error
        raise
    finally:
        keeper.cancel()
        with suppress(asyncio.CancelledError):
            await keeper
