"""A lease stops its holder before it ends."""

import asyncio
import time

import pytest

from chassis.leases import Lease, LeaseLost, new_lease_token, renewing


async def test_a_lease_that_is_renewed_lets_long_work_finish() -> None:
    renewals: list[float] = []

    async def renew() -> bool:
        renewals.append(time.monotonic())
        return True

    async with renewing(Lease(new_lease_token(), 0.3), renew) as lease:
        await asyncio.sleep(0.8)
        lease.check()
    assert len(renewals) >= 4


async def test_work_is_stopped_when_another_has_taken_the_lease() -> None:
    async def renew() -> bool:
        return False

    started = time.monotonic()
    with pytest.raises(LeaseLost):
        async with renewing(Lease(new_lease_token(), 0.6), renew):
            await asyncio.sleep(10)
    assert time.monotonic() - started < 0.4


async def test_work_is_stopped_at_two_thirds_when_the_database_does_not_answer() -> None:
    async def renew() -> bool:
        await asyncio.sleep(60)
        return True

    started = time.monotonic()
    with pytest.raises(LeaseLost):
        async with renewing(Lease(new_lease_token(), 0.6), renew):
            await asyncio.sleep(10)
    assert time.monotonic() - started < 1.0


async def test_a_cancellation_from_outside_stays_one() -> None:
    async def renew() -> bool:
        return True

    async def work() -> None:
        async with renewing(Lease(new_lease_token(), 60), renew):
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_from_outside_that_meets_a_lost_lease_stays_one() -> None:
    async def renew() -> bool:
        return False

    async def work() -> None:
        async with renewing(Lease(new_lease_token(), 0.3), renew):
            try:
                await asyncio.sleep(60)
            finally:
                task.cancel()  # the process stops while the work lets go of what it holds

    task = asyncio.create_task(work())
    with pytest.raises(asyncio.CancelledError):
        await task


def test_every_claim_has_a_token_of_its_own() -> None:
    assert len({new_lease_token() for _ in range(100)}) == 100


def test_a_lease_says_when_its_holder_must_stop() -> None:
    lease = Lease("t", 0.0)
    with pytest.raises(LeaseLost):
        lease.check()
    assert Lease("t", 30).remaining() == pytest.approx(20, abs=0.1)


def test_a_lease_counts_from_when_its_renewal_was_asked_for() -> None:
    """The database has counted from some moment between the question and the answer: the earlier one is safe."""
    lease = Lease("t", 30)
    lease.renewed(time.monotonic() - 5)
    assert lease.remaining() == pytest.approx(15, abs=0.1)
