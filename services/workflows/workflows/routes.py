"""Routes of workflows: definitions, versions, status, and the runs of one workflow."""

from typing import Annotated, Literal

import orjson
from fastapi import APIRouter, Query
from starlette.responses import Response

from workflows.bodies import NewWorkflowBody, StartBody, WorkflowBody
from workflows.documents import (
    RunDocument,
    RunPage,
    StartedWorkflowDocument,
    StatusDocument,
    VersionPage,
    WorkflowDocument,
    WorkflowPage,
)
from workflows.etags import etag, none_match
from workflows.openapi import (
    DEFINITION_EXAMPLE,
    NOT_MODIFIED,
    RUN_EXAMPLE,
    STATUS_EXAMPLE,
    VERSION_EXAMPLE,
    WORKFLOW_EXAMPLE,
    answer,
    definition_body,
    json_body,
    problems,
)
from workflows.requests import (
    IfMatch,
    IfNoneMatch,
    PageQuery,
    Reading,
    Runs,
    WorkflowId,
    WorkflowQuery,
    WorkflowRunsQuery,
    Workflows,
    Writing,
    page,
    place_of,
    version_of,
)
from workflows.views import run_document, version_document, workflow_document

router = APIRouter(prefix="/api/workflows", tags=["workflows"])

_LIST_EXAMPLE = {"items": [WORKFLOW_EXAMPLE], "next_cursor": None}
_START_EXAMPLE = {**DEFINITION_EXAMPLE, "start": {"lead_id": "lead-1"}}


@router.post(
    "",
    operation_id="create_workflow",
    summary="Create a workflow, and run it at once if asked to",
    status_code=201,
    response_model=StartedWorkflowDocument,
    responses={
        **answer(201, "Created.", {**WORKFLOW_EXAMPLE, "run": RUN_EXAMPLE}, tagged=True),
        **problems(400, 409, 413, 415),
    },
    openapi_extra=definition_body(NewWorkflowBody, _START_EXAMPLE),
)
async def create_workflow(write: Writing, workflows: Workflows) -> Response:
    """With `start` it also starts a run for that lead. Secrets in the body are stored sealed and shown by id from then on."""
    return (await workflows.create(write)).response()


@router.get(
    "",
    operation_id="list_workflows",
    summary="List workflows",
    response_model=WorkflowPage,
    responses={**answer(200, "One page.", _LIST_EXAMPLE), **problems(400)},
)
async def list_workflows(
    principal: Reading, workflows: Workflows, query: Annotated[WorkflowQuery, Query()]
) -> Response:
    """Newest first."""
    question = query.question("workflows")
    found = await workflows.find(
        principal.workspace_id,
        archived=query.archived,
        event=query.event,
        name_contains=query.q,
        before=place_of(query.cursor, question),
        limit=query.limit + 1,
    )
    return page(
        found,
        query.limit,
        question,
        show=workflow_document,
        place=lambda workflow: (workflow.created_at.isoformat(), workflow.id),
    )


@router.get(
    "/{workflow_id}",
    operation_id="read_workflow",
    summary="Read a workflow",
    response_model=WorkflowDocument,
    responses={**answer(200, "The workflow.", WORKFLOW_EXAMPLE, tagged=True), 304: NOT_MODIFIED, **problems(404)},
)
async def read_workflow(
    workflow_id: WorkflowId, principal: Reading, workflows: Workflows, if_none_match: IfNoneMatch = None
) -> Response:
    """The current version; archived workflows can be read too."""
    workflow = await workflows.read(principal.workspace_id, workflow_id)
    headers = {"ETag": etag(workflow)}
    if none_match(if_none_match, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(orjson.dumps(workflow_document(workflow)), media_type="application/json", headers=headers)


@router.put(
    "/{workflow_id}",
    operation_id="replace_workflow",
    summary="Put a new version in a workflow's place",
    response_model=WorkflowDocument,
    responses={
        **answer(200, "As it is now.", WORKFLOW_EXAMPLE, tagged=True),
        **problems(400, 404, 409, 412, 413, 415),
    },
    openapi_extra=definition_body(WorkflowBody, DEFINITION_EXAMPLE),
)
async def replace_workflow(
    workflow_id: WorkflowId, write: Writing, workflows: Workflows, if_match: IfMatch = None
) -> Response:
    """Runs under way keep the version they started on. A definition equal to the current one makes no new version."""
    return (await workflows.replace(write, workflow_id, if_match)).response()


@router.delete(
    "/{workflow_id}",
    operation_id="archive_workflow",
    summary="Archive a workflow",
    status_code=204,
    responses={204: {"description": "It starts no more runs; its name is free."}, **problems(404, 412)},
)
async def archive_workflow(
    workflow_id: WorkflowId,
    write: Writing,
    workflows: Workflows,
    runs: Annotated[Literal["finish", "cancel"], Query(description="What becomes of runs under way.")] = "finish",
    if_match: IfMatch = None,
) -> Response:
    """Runs that wait or work finish, unless `runs=cancel`. Its runs can still be read."""
    return (await workflows.archive(write, workflow_id, if_match, cancel_runs=runs == "cancel")).response()


@router.get(
    "/{workflow_id}/versions",
    operation_id="list_workflow_versions",
    summary="List a workflow's versions",
    response_model=VersionPage,
    responses={
        **answer(200, "One page.", {"items": [VERSION_EXAMPLE], "next_cursor": None}),
        **problems(400, 404),
    },
)
async def list_versions(
    workflow_id: WorkflowId, principal: Reading, workflows: Workflows, query: Annotated[PageQuery, Query()]
) -> Response:
    """Newest first, with their definitions and who wrote them."""
    question = query.question("versions", workflow_id)
    below = version_of(query.cursor, question)
    found = await workflows.versions(principal.workspace_id, workflow_id, below=below, limit=query.limit + 1)
    return page(found, query.limit, question, show=version_document, place=lambda version: (version.version,))


@router.get(
    "/{workflow_id}/status",
    operation_id="read_workflow_status",
    summary="Read how a workflow is doing",
    response_model=StatusDocument,
    responses={**answer(200, "Counts, rates, latest run.", STATUS_EXAMPLE), **problems(404)},
)
async def read_status(workflow_id: WorkflowId, principal: Reading, workflows: Workflows) -> Response:
    """How many runs are in each state, how many began and ended lately, and the latest one."""
    return Response(
        orjson.dumps(await workflows.status(principal.workspace_id, workflow_id)), media_type="application/json"
    )


@router.get(
    "/{workflow_id}/runs",
    operation_id="list_workflow_runs",
    summary="List a workflow's runs",
    response_model=RunPage,
    responses={**answer(200, "One page.", {"items": [RUN_EXAMPLE], "next_cursor": None}), **problems(400, 404)},
)
async def list_workflow_runs(
    workflow_id: WorkflowId, principal: Reading, runs: Runs, query: Annotated[WorkflowRunsQuery, Query()]
) -> Response:
    """Newest first."""
    question = query.question("runs", workflow_id)
    found = await runs.find(
        principal.workspace_id,
        workflow_id=workflow_id,
        must_exist=True,
        state=query.state,
        lead_id=query.lead_id,
        before=place_of(query.cursor, question),
        limit=query.limit + 1,
    )
    return page(found, query.limit, question, show=run_document, place=lambda run: (run.created_at.isoformat(), run.id))


@router.post(
    "/{workflow_id}/runs",
    operation_id="start_run",
    summary="Start a run for a lead",
    status_code=201,
    response_model=RunDocument,
    responses={**answer(201, "Started.", {**RUN_EXAMPLE, "state": "queued"}), **problems(400, 404, 409, 413, 415)},
    openapi_extra=json_body(StartBody, {"lead_id": "lead-1"}),
)
async def start_run(workflow_id: WorkflowId, write: Writing, runs: Runs) -> Response:
    """On the current version, whatever its trigger. Too many for one lead within an hour: the run is `suspended` and says why."""
    return (await runs.start(write, workflow_id)).response()
