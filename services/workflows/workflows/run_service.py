"""Runs as people steer them: start, look, cancel, retry."""

import re
from typing import Any

from chassis.clock import rfc3339, utcnow
from chassis.context import current
from chassis.database import Database, PooledConnection, Transaction
from chassis.errors import FieldError, ProblemError
from chassis.idempotency import Answer, WriteRequest, run_once
from chassis.parsing import parse_document, validate
from workflows import repository, run_repository
from workflows.bodies import IDENTIFIER, RetryBody, StartBody
from workflows.catalogue import Catalogue, Plan
from workflows.engine.run import CANCELLABLE, RETRYABLE, State, StepState
from workflows.errors import LeadUnknown, RunNotReady, StepGone, WorkflowArchived
from workflows.leads_client import LeadFinder
from workflows.models import LeadSnapshot, Run
from workflows.starting import Cause, begin
from workflows.views import run_detail, run_document


class RunStarter:
    """Starts runs that a person asks for, within the asker's transaction."""

    def __init__(self, finder: LeadFinder) -> None:
        self._finder = finder

    async def find_lead(self, write: WriteRequest, lead_id: str | None) -> LeadSnapshot | None:
        """The lead to start with, looked up before the transaction; None if there is none, which `start` refuses."""
        if lead_id is None or not re.fullmatch(IDENTIFIER, lead_id) or not lead_id.strip("."):
            return None
        return await self._finder.find(write.principal.workspace_id, lead_id)

    async def start(
        self, tx: Transaction, plan: Plan, write: WriteRequest, lead: LeadSnapshot | None, *, pointer: str
    ) -> str:
        """Insert a run and wake the workers; returns its id. LeadUnknown points at `pointer`."""
        if lead is None:
            raise LeadUnknown("There is no such lead.", errors=[FieldError(pointer, "there is no such lead")])
        workspace_id = write.principal.workspace_id
        trigger: dict[str, Any] = {
            "type": "manual",
            "event": None,
            "event_id": None,
            "time": rfc3339(utcnow()),
            "lead": lead.lead,
            "changed": [],
            "previous": {},
        }
        await repository.lock_leads(tx.connection, [(workspace_id, lead.lead_id)])
        key = workspace_id, plan.workflow_id, lead.lead_id
        recent = await run_repository.count_recent_starts(tx.connection, [key])
        run = begin(tx, plan, Cause(workspace_id, lead.lead_id, trigger, current()), recent[key])
        await run_repository.insert_runs(tx.connection, [run])
        await run_repository.ring(tx.connection)
        return run.id


class RunService:
    """What can be done with runs."""

    def __init__(self, database: Database, catalogue: Catalogue, starter: RunStarter) -> None:
        self._database = database
        self._catalogue = catalogue
        self._starter = starter

    async def start(self, write: WriteRequest, workflow_id: str) -> Answer:
        """201 with the run, on the workflow's current version. LeadUnknown, WorkflowArchived."""
        lead = await self._starter.find_lead(write, _lead_id(write))

        async def effect(tx: Transaction) -> Answer:
            workspace_id = write.principal.workspace_id
            if lead is not None:
                await repository.lock_leads(tx.connection, [(workspace_id, lead.lead_id)])
            live = await repository.hold_live_workflows(tx.connection, [(workspace_id, workflow_id)])
            workflow = await repository.read_workflow(tx.connection, workspace_id, workflow_id)
            if not live:
                raise WorkflowArchived("The workflow is archived: it starts no more runs.")
            validate(parse_document(write.body, write.content_type), StartBody)
            plan = await self._catalogue.plan(tx.connection, workspace_id, workflow_id, workflow.version)
            run_id = await self._starter.start(tx, plan, write, lead, pointer="/lead_id")
            run = await run_repository.read_run(tx.connection, workspace_id, run_id)
            return Answer.json(201, run_document(run), {"Location": f"/api/runs/{run_id}"})

        return await run_once(write, self._database, effect)

    async def find(self, workspace_id: str, *, workflow_id: str | None, must_exist: bool, **filters: Any) -> list[Run]:
        """One page, newest first; filters as run_repository.list_runs takes them. WorkflowNotFound if the workflow `must_exist`."""

        async def work(connection: PooledConnection) -> list[Run]:
            if must_exist and workflow_id is not None:
                await repository.read_workflow(connection, workspace_id, workflow_id)
            return await run_repository.list_runs(connection, workspace_id, workflow_id=workflow_id, **filters)

        return await self._database.read(work)

    async def read(self, workspace_id: str, run_id: str) -> dict[str, Any]:
        """The run with every step and attempt."""

        async def work(connection: PooledConnection) -> dict[str, Any]:
            run = await run_repository.read_run(connection, workspace_id, run_id)
            steps = await run_repository.read_steps(connection, workspace_id, run_id)
            return run_detail(run, steps, await run_repository.read_attempts(connection, workspace_id, run_id))

        return await self._database.read(work)

    async def cancel(self, write: WriteRequest, run_id: str) -> Answer:
        """202: the run ends as soon as a worker sees it; the result of a call under way is still recorded. RunNotReady."""

        async def effect(tx: Transaction) -> Answer:
            run = await run_repository.lock_run(tx.connection, write.principal.workspace_id, run_id)
            if run.state is not State.CANCELLING:
                if run.state not in CANCELLABLE:
                    raise RunNotReady(
                        f"The run is {run.state.value}: there is nothing to cancel.", state=run.state.value
                    )
                await run_repository.cancel_run(tx.connection, run)
                await run_repository.ring(tx.connection)
            return await self._shown(tx, 202, run)

        return await run_once(write, self._database, effect)

    async def retry(self, write: WriteRequest, run_id: str) -> Answer:
        """202 with the run, queued again. RunNotReady, StepGone (on the latest version)."""

        async def effect(tx: Transaction) -> Answer:
            run = await run_repository.lock_run(tx.connection, write.principal.workspace_id, run_id)
            document = parse_document(write.body, write.content_type) if write.body else {}
            wish = validate(document, RetryBody)
            if run.state not in RETRYABLE:
                raise RunNotReady(f"The run is {run.state.value}: there is nothing to retry.", state=run.state.value)
            await self._requeue(tx, run, wish)
            await run_repository.ring(tx.connection)
            return await self._shown(tx, 202, run)

        return await run_once(write, self._database, effect)

    async def _requeue(self, tx: Transaction, run: Run, wish: RetryBody) -> None:
        version = run.version
        if wish.version == "latest":
            workflow = await repository.read_workflow(tx.connection, run.workspace_id, run.workflow_id)
            version = workflow.version
        plan = await self._catalogue.plan(tx.connection, run.workspace_id, run.workflow_id, version)
        state, recorded_type = await run_repository.present_step(tx.connection, run)
        step_id, iteration, generation = run.step_id, run.iteration, run.generation
        if wish.from_ == "start":
            step_id = plan.graph.first
            iteration, generation = (iteration + 1, 0) if run.started_at is not None else (iteration, generation)
        elif state == StepState.FAILED:
            # Only a failure that is known lets the call be made anew; one of unknown outcome is repeated under its old key.
            generation += 1
        if wish.from_ == "step" and version != run.version:
            await self._check_same_step(tx, run, plan, recorded_type)
        await run_repository.requeue_run(
            tx.connection, run, version=version, step_id=step_id, iteration=iteration, generation=generation
        )

    async def _check_same_step(self, tx: Transaction, run: Run, plan: Plan, recorded_type: str | None) -> None:
        """StepGone if the other version lacks the step the run stands at, or has one of another type under its id."""
        own = await self._catalogue.find(tx.connection, run.workspace_id, run.workflow_id, run.version)
        step, own_step = plan.graph.steps.get(run.step_id), own.graph.steps.get(run.step_id)
        own_type = own_step.type if own_step is not None else recorded_type
        if step is None or own_type not in (None, step.type):
            raise StepGone(f"Version {plan.version} has no such step {run.step_id!r}: retry from the start.")

    @staticmethod
    async def _shown(tx: Transaction, status: int, run: Run) -> Answer:
        changed = await run_repository.read_run(tx.connection, run.workspace_id, run.id)
        return Answer.json(status, run_document(changed))


def _lead_id(write: WriteRequest) -> str | None:
    """The lead a body names; what is wrong with the body is said later, after a look for a repetition."""
    try:
        lead_id = parse_document(write.body, write.content_type).get("lead_id")
    except ProblemError:
        return None
    return lead_id if isinstance(lead_id, str) else None
