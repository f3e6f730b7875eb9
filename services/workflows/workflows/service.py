"""Definitions: create, replace, archive, read. Each write is one transaction with its idempotency key."""

from typing import Any

import orjson

from chassis.clock import utcnow
from chassis.database import Database, PooledConnection, Transaction
from chassis.errors import FieldError, ProblemError, Unprocessable
from chassis.idempotency import Answer, WriteRequest, run_once
from chassis.ids import new_id
from chassis.parsing import parse_document, validate
from workflows import repository, run_repository
from workflows.bodies import NewWorkflowBody, WorkflowBody
from workflows.catalogue import Plan
from workflows.checking import Checked, DefinitionChecker
from workflows.errors import WorkflowArchived
from workflows.etags import check_match, etag
from workflows.models import LeadSnapshot, Workflow, WorkflowVersion
from workflows.run_service import RunStarter
from workflows.views import definition_document, run_document, status_document, workflow_document


class WorkflowService:
    """What can be done with workflows."""

    def __init__(self, database: Database, checker: DefinitionChecker, starter: RunStarter) -> None:
        self._database = database
        self._checker = checker
        self._starter = starter

    async def create(self, write: WriteRequest) -> Answer:
        """201; with `start` in the body also a run. NameTaken, DefinitionRefused, LeadUnknown."""
        lead = await self._starter.find_lead(write, _start_lead_id(write))

        async def effect(tx: Transaction) -> Answer:
            document = parse_document(write.body, write.content_type)
            body = validate(document, NewWorkflowBody)
            workspace_id, workflow_id = write.principal.workspace_id, new_id("wf")
            checked = await self._checker.check(tx.connection, workspace_id, workflow_id, body.definition())
            await repository.insert_workflow(
                tx.connection, workspace_id, workflow_id, body.name, checked.definition.trigger_event
            )
            await self._insert_version(tx, write, workflow_id, 1, checked)
            workflow = await repository.read_workflow(tx.connection, workspace_id, workflow_id)
            shown = workflow_document(workflow)
            if body.start is not None:
                plan = Plan(workflow_id, body.name, 1, checked.definition, checked.graph)
                shown["run"] = await self._start(tx, plan, write, lead)
            headers = {"Location": f"/api/workflows/{workflow_id}", "ETag": etag(workflow)}
            return Answer.json(201, shown, headers)

        return await run_once(write, self._database, effect)

    async def replace(self, write: WriteRequest, workflow_id: str, if_match: str | None) -> Answer:
        """200 with the new version, or with the current one if nothing differs. VersionStale, WorkflowArchived, NameTaken."""

        async def effect(tx: Transaction) -> Answer:
            workspace_id = write.principal.workspace_id
            current = await repository.lock_workflow(tx.connection, workspace_id, workflow_id)
            check_match(if_match, current)
            if current.archived_at is not None:
                raise WorkflowArchived("The workflow is archived: it cannot be changed any more.")
            body = validate(parse_document(write.body, write.content_type), WorkflowBody)
            _check_read_only(body, current)
            checked = await self._checker.check(tx.connection, workspace_id, workflow_id, body.definition())
            if _canonical(checked.document) != _canonical(definition_document(current.definition)):
                event = checked.definition.trigger_event
                await repository.replace_definition(tx.connection, workspace_id, workflow_id, body.name, event)
                await self._insert_version(tx, write, workflow_id, current.version + 1, checked)
            workflow = await repository.read_workflow(tx.connection, workspace_id, workflow_id)
            return Answer.json(200, workflow_document(workflow), {"ETag": etag(workflow)})

        return await run_once(write, self._database, effect)

    async def archive(
        self, write: WriteRequest, workflow_id: str, if_match: str | None, *, cancel_runs: bool
    ) -> Answer:
        """204. The workflow starts no more runs; those under way finish, unless they are to be cancelled."""

        async def effect(tx: Transaction) -> Answer:
            workspace_id = write.principal.workspace_id
            await repository.wait_for_starts(tx.connection, workspace_id, workflow_id)
            current = await repository.lock_workflow(tx.connection, workspace_id, workflow_id)
            check_match(if_match, current)
            await repository.archive_workflow(tx.connection, workspace_id, workflow_id)
            if cancel_runs and await run_repository.cancel_open_runs(tx.connection, workspace_id, workflow_id):
                await run_repository.ring(tx.connection)
            return Answer(204)

        return await run_once(write, self._database, effect)

    async def read(self, workspace_id: str, workflow_id: str) -> Workflow:
        """The workflow, archived or not."""
        return await self._database.read(lambda c: repository.read_workflow(c, workspace_id, workflow_id))

    async def find(self, workspace_id: str, **filters: Any) -> list[Workflow]:
        """One page, newest first; filters as repository.list_workflows takes them."""
        return await self._database.read(lambda c: repository.list_workflows(c, workspace_id, **filters))

    async def versions(
        self, workspace_id: str, workflow_id: str, *, below: int | None, limit: int
    ) -> list[WorkflowVersion]:
        """One page of a workflow's versions, newest first."""

        async def work(connection: PooledConnection) -> list[WorkflowVersion]:
            await repository.read_workflow(connection, workspace_id, workflow_id)
            return await repository.list_versions(connection, workspace_id, workflow_id, below=below, limit=limit)

        return await self._database.read(work)

    async def status(self, workspace_id: str, workflow_id: str) -> dict[str, Any]:
        """Counts by state, rates, latest run."""

        async def work(connection: PooledConnection) -> dict[str, Any]:
            workflow = await repository.read_workflow(connection, workspace_id, workflow_id)
            activity = await run_repository.read_activity(connection, workspace_id, workflow_id)
            latest = await run_repository.list_runs(
                connection, workspace_id, workflow_id=workflow_id, state=None, lead_id=None, before=None, limit=1
            )
            return status_document(workflow, activity, latest[0] if latest else None)

        return await self._database.read(work)

    async def _start(
        self, tx: Transaction, plan: Plan, write: WriteRequest, lead: LeadSnapshot | None
    ) -> dict[str, Any]:
        run_id = await self._starter.start(tx, plan, write, lead, pointer="/start/lead_id")
        return run_document(await run_repository.read_run(tx.connection, write.principal.workspace_id, run_id))

    @staticmethod
    async def _insert_version(
        tx: Transaction, write: WriteRequest, workflow_id: str, version: int, checked: Checked
    ) -> None:
        workspace_id = write.principal.workspace_id
        new = WorkflowVersion(version, checked.document, write.principal.origin, utcnow())
        await repository.insert_version(tx.connection, workspace_id, workflow_id, new)
        await repository.insert_secrets(tx.connection, workspace_id, workflow_id, checked.sealed)


def _start_lead_id(write: WriteRequest) -> str | None:
    """The lead that a body asks to start with; what is wrong with the body is said later, after a look for a repetition."""
    try:
        start = parse_document(write.body, write.content_type).get("start")
    except ProblemError:
        return None
    lead_id = start.get("lead_id") if isinstance(start, dict) else None
    return lead_id if isinstance(lead_id, str) else None


def _canonical(document: dict[str, Any]) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)


def _check_read_only(body: WorkflowBody, current: Workflow) -> None:
    """Unprocessable if the body names a read-only field with another value than it has."""
    shown = workflow_document(current)
    given = body.model_dump(include={"id", "version", "created_at", "updated_at", "archived_at"}, exclude_unset=True)
    errors = [
        FieldError(f"/{name}", f"is read-only and is {shown[name]!r}")
        for name, value in given.items()
        if value != shown[name]
    ]
    if errors:
        raise Unprocessable("Read-only fields cannot be changed.", errors=errors)
