"""Waiting the own database's trouble out for as long as a lease lasts: what a worker has done must not be lost to a restart."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from chassis.leases import Lease
from chassis.logs import get_logger
from chassis.trouble import is_database_trouble

log = get_logger()

_Result = TypeVar("_Result")


async def through_trouble(lease: Lease, run_id: str, work: Callable[[], Awaitable[_Result]]) -> _Result:
    """Do `work`, again and again while the database is in trouble; LeaseLost once the lease does not allow another try."""
    delay = 0.05
    while True:
        lease.check()
        try:
            return await work()
        except Exception as error:
            if not is_database_trouble(error):
                raise
            log.warning("hold-run", run_id=run_id, error=str(error) or type(error).__name__)
        await asyncio.sleep(delay)
        delay = min(delay * 2, 1.0)
