"""Claims runs that are due and carries out as many at once as the process may."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from chassis.database import Database
from chassis.leases import Lease, LeaseLost, new_lease_token, renewing
from chassis.logs import get_logger
from chassis.trouble import is_database_trouble
from chassis.vault import Vault
from workflows.catalogue import Catalogue
from workflows.execution import store
from workflows.execution.calling import Caller, Outside
from workflows.execution.journal import Journal
from workflows.execution.leg import Leg
from workflows.execution.patience import through_trouble
from workflows.execution.progress import Progress
from workflows.execution.store import Claimed
from workflows.metrics import LEASES_LOST, RUNS_IN_HAND
from workflows.repository import read_lead

log = get_logger()


@dataclass(frozen=True, slots=True)
class Limits:
    """`concurrency` runs at once; leases of `lease_seconds`; a look for due runs at least every `poll_seconds`."""

    concurrency: int
    lease_seconds: float
    poll_seconds: float


class Executor:
    """A worker's loop. `wake` makes it look at once; without that it looks every `poll_seconds`."""

    name = "executor"

    def __init__(
        self, database: Database, catalogue: Catalogue, outside: Outside, vault: Vault, limits: Limits
    ) -> None:
        self._database = database
        self._catalogue = catalogue
        self._outside = outside
        self._vault = vault
        self._limits = limits
        self._woken = asyncio.Event()
        self._stopping = asyncio.Event()
        self._in_hand: set[asyncio.Task[None]] = set()

    def wake(self) -> None:
        """There may be something to do."""
        self._woken.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until `stopping`; then every run in hand is put down at its next step, and this returns."""
        stop = asyncio.create_task(stopping.wait())
        try:
            while not stopping.is_set():
                self._woken.clear()
                full = await self._claim()
                await self._wait(stop, for_room=full)
        finally:
            stop.cancel()
            self._stopping.set()
        if self._in_hand:
            await asyncio.wait(self._in_hand)

    async def run_once(self) -> int:
        """Claim what there is room for, carry it out, and return how many runs that were: for tests and small tools."""
        await self._claim()
        taken = set(self._in_hand)
        if taken:
            await asyncio.wait(taken)
        return len(taken)

    async def _claim(self) -> bool:
        """Take due runs; True if there was no room for all that may be due."""
        room = self._limits.concurrency - len(self._in_hand)
        if room <= 0:
            return True
        token, asked_at = new_lease_token(), time.monotonic()
        try:
            async with self._database.acquire() as connection:
                claimed = await store.claim_runs(connection, room, token, self._limits.lease_seconds)
        except Exception as error:
            if not is_database_trouble(error):
                raise
            log.warning("wait-for-runs", error=str(error) or type(error).__name__)
            return False
        for run in claimed:
            lease = Lease(token, self._limits.lease_seconds)
            lease.renewed(asked_at)
            task = asyncio.create_task(self._carry_out(run, lease), name=f"run-{run.id}")
            self._in_hand.add(task)
            task.add_done_callback(self._let_go)
        RUNS_IN_HAND.set(len(self._in_hand))
        return len(claimed) == room

    async def _wait(self, stop: "asyncio.Task[Any]", *, for_room: bool) -> None:
        """Until something may have changed: a wake-up, a run put down (if there was no room), the poll, the end."""
        woken = asyncio.create_task(self._woken.wait())
        waits: set[asyncio.Task[Any]] = {stop, *(self._in_hand if for_room else {woken})}
        await asyncio.wait(waits, timeout=self._limits.poll_seconds, return_when=asyncio.FIRST_COMPLETED)
        woken.cancel()

    def _let_go(self, task: "asyncio.Task[None]") -> None:
        self._in_hand.discard(task)
        RUNS_IN_HAND.set(len(self._in_hand))
        if not task.cancelled() and (error := task.exception()) is not None:
            # The run's lease ends by itself, another worker tries, and after some of these the run asks for attention.
            log.error("fail-run", task=task.get_name(), exc_info=error)

    async def _carry_out(self, run: Claimed, lease: Lease) -> None:
        async def renew() -> bool:
            async with self._database.control.acquire(timeout=2) as connection:
                return await store.renew_lease(connection, run, lease.token, lease.seconds)

        try:
            async with renewing(lease, renew):
                leg = await through_trouble(lease, run.id, lambda: self._prepare(run, lease))
                await leg.go()
        except LeaseLost:
            LEASES_LOST.inc()
            log.warning("lose-lease", run_id=run.id)

    async def _prepare(self, run: Claimed, lease: Lease) -> Leg:
        async with self._database.acquire() as connection:
            plan = await self._catalogue.find(connection, run.workspace_id, run.workflow_id, run.version)
            lead = await read_lead(connection, run.workspace_id, run.lead_id)
            rows = await store.load_steps(connection, run)
            attempts = await store.load_attempts(connection, run)
        journal = Journal(self._database, run, plan, lease, self._vault)
        progress = Progress(run, plan, journal, lead=lead, rows=rows, attempts=attempts)
        return Leg(progress, Caller(progress, self._outside), self._stopping)
