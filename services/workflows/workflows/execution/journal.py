"""What a worker writes about the run it holds: in one transaction each, conditional on its lease, repeated through trouble."""

import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from chassis.clock import utcnow
from chassis.database import Database, PooledConnection, Transaction
from chassis.leases import Lease, LeaseLost
from chassis.vault import Vault
from workflows import repository
from workflows.catalogue import Plan
from workflows.engine.run import State, StepState
from workflows.events import RunFacts, run_event
from workflows.execution import store
from workflows.execution.patience import through_trouble
from workflows.execution.store import AttemptRow, Claimed, Departure, StepRow
from workflows.metrics import RUNS_LEFT
from workflows.models import LeadSnapshot
from workflows.steps.kinds import LeadNow

QUIET_FOR = timedelta(seconds=1)
"""A run that ends within this time announces its end only."""
SILENT = frozenset({State.QUEUED, State.RETRYING})

_Result = TypeVar("_Result")


class RunCancelled(Exception):
    """Somebody asked for the run's end."""


class Page:
    """One transaction about the held run. Also the Desk of steps that prepare a request."""

    def __init__(self, tx: Transaction, run: Claimed, vault: Vault) -> None:
        self._connection = tx.connection
        self._run = run
        self._vault = vault
        self.lead_id = run.lead_id
        self.run_id = run.id
        self.lead: LeadSnapshot | None = None
        self.departure: Departure | None = None
        self.waiting_step: StepRow | None = None
        self.steps: list[StepRow] = []
        self.attempts: list[AttemptRow] = []

    def note(self, step: StepRow, attempt: AttemptRow | None = None) -> None:
        """Write these rows with this transaction, and only with it."""
        self.steps.append(step)
        if attempt is not None:
            self.attempts.append(attempt)

    async def next_owner(self, step_id: str, user_ids: Sequence[str]) -> str | None:
        return await store.next_owner(self._connection, self._run, step_id, user_ids)

    async def open_secrets(self, secret_ids: frozenset[str]) -> dict[str, str]:
        """Secrets by id, opened."""
        if not secret_ids:
            return {}
        sealed = await repository.sealed_secrets(self._connection, self._run.workspace_id, sorted(secret_ids))
        return {
            secret_id: self._vault.open(text, f"{self._run.workspace_id}/{secret_id}".encode()).decode()
            for secret_id, text in sealed.items()
        }

    async def lead_now(self) -> LeadNow:
        """The lead as it is while its lock is held, and how it stands in the CRMs."""
        crm = await repository.read_crm(self._connection, self._run.workspace_id, self._run.lead_id)
        now = await repository.read_clock(self._connection)
        if self.lead is None:
            return LeadNow({}, deleted=True, at=now, crm=crm)
        return LeadNow(self.lead.lead, self.lead.deleted, now, crm)

    def leave(self, departure: Departure, waiting_step: StepRow | None = None) -> None:
        """Put the run down at the end of the transaction."""
        self.departure = departure
        self.waiting_step = waiting_step
        if waiting_step is not None:
            self.note(waiting_step)


class Journal:
    """Collects what happened and writes it with the next transaction."""

    def __init__(self, database: Database, run: Claimed, plan: Plan, lease: Lease, vault: Vault) -> None:
        self._database = database
        self._run = run
        self._lease = lease
        self._vault = vault
        self._steps: dict[str, StepRow] = {}
        self._attempts: dict[tuple[str, int, int], AttemptRow] = {}
        self._lead: LeadSnapshot | None = None
        self.facts = RunFacts(
            workspace_id=run.workspace_id,
            run_id=run.id,
            workflow_id=run.workflow_id,
            workflow_name=plan.name,
            version=run.version,
            lead_id=run.lead_id,
            chain=run.chain,
            request_id=run.request_id,
            traceparent=run.traceparent,
        )

    def note_step(self, row: StepRow) -> None:
        self._steps[row.step_id] = row

    def note_attempt(self, row: AttemptRow) -> None:
        self._attempts[row.step_id, row.generation, row.attempt] = row

    def note_lead(self, snapshot: LeadSnapshot) -> None:
        self._lead = snapshot

    async def read_lead(self) -> LeadSnapshot | None:
        """The lead as the view has it now. LeaseLost if the database's trouble outlasts the lease."""

        async def read() -> LeadSnapshot | None:
            async with self._database.acquire() as connection:
                return await repository.read_lead(connection, self._run.workspace_id, self._run.lead_id)

        return await through_trouble(self._lease, self._run.id, read)

    async def write(
        self,
        step_id: str,
        block: Callable[[Page], Awaitable[_Result]],
        *,
        lock_lead: bool = False,
        ending: bool = False,
    ) -> _Result:
        """Run `block` and write what was noted, in one transaction; the run then stands at `step_id` unless the block leaves it.

        LeaseLost: the run is not ours any more, nothing was written. RunCancelled: its end was asked for (not raised when
        `ending`). The database's trouble is waited out for as long as the lease lasts, so that a result is not lost to it.
        """
        return await through_trouble(
            self._lease, self._run.id, lambda: self._write_once(step_id, block, lock_lead, ending)
        )

    async def _write_once(
        self, step_id: str, block: Callable[[Page], Awaitable[_Result]], lock_lead: bool, ending: bool
    ) -> _Result:
        asked_at = time.monotonic()
        async with self._database.transaction() as tx:
            page = Page(tx, self._run, self._vault)
            # The lead before the run: the consumer of events takes the two in this order.
            if self._lead is not None:
                await repository.copy_leads(tx.connection, [self._lead])
            if lock_lead:
                page.lead = await store.lock_lead(tx.connection, self._run)
            held = await store.lock_claimed(tx.connection, self._run, self._lease.token)
            if held is None:
                raise LeaseLost(f"run {self._run.id} is held by another worker")
            state, events = held
            if state is State.CANCELLING and not ending:
                raise RunCancelled
            result = await block(page)
            await self._flush(tx.connection, page)
            if page.departure is not None:
                await self._leave(tx, page, page.departure, events)
            else:
                await store.keep_claimed(tx.connection, self._run, self._lease.token, step_id, self._lease.seconds)
                if events == 0 and utcnow() - self._run.started_at > QUIET_FOR:
                    await self._announce(tx, State.RUNNING, None, None)
        self._lease.renewed(asked_at)
        self._steps.clear()
        self._attempts.clear()
        self._lead = None
        if page.departure is not None:
            RUNS_LEFT.labels(page.departure.state.value).inc()
        return result

    async def _flush(self, connection: PooledConnection, page: Page) -> None:
        if steps := [*self._steps.values(), *page.steps]:
            await store.save_steps(connection, self._run, steps)
        if attempts := [*self._attempts.values(), *page.attempts]:
            await store.save_attempts(connection, self._run, attempts)

    async def _leave(self, tx: Transaction, page: Page, departure: Departure, events: int) -> None:
        due_at = await store.leave_claimed(tx.connection, self._run, self._lease.token, departure)
        if page.waiting_step is not None:
            await store.set_step_due(tx.connection, self._run, page.waiting_step.step_id, due_at)
        if departure.state not in SILENT or (departure.state is State.RETRYING and events == 0):
            await self._announce(tx, departure.state, departure.error, page.waiting_step)

    async def _announce(self, tx: Transaction, state: State, error: str | None, waiting: StepRow | None) -> None:
        steps = await store.announce_steps(tx.connection, self._run)
        if waiting is not None and waiting.state is StepState.WAITING:
            steps.append(_row_as_record(waiting, self._run.iteration))
        number = await store.count_event(tx.connection, self._run)
        tx.emit(run_event(self.facts, state, number, error=error, steps=steps))


def _row_as_record(row: StepRow, iteration: int) -> dict[str, Any]:
    names = ("step_id", "type", "state", "attempts", "started_at", "finished_at", "error", "generation")
    return {**{name: getattr(row, name) for name in names}, "iteration": iteration}
