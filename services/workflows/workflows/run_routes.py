"""Routes of runs: look, cancel, retry."""

from typing import Annotated

import orjson
from fastapi import APIRouter, Query
from starlette.responses import Response

from workflows.bodies import RetryBody
from workflows.documents import RunDetail, RunDocument, RunPage
from workflows.openapi import (
    RUN_DETAIL_EXAMPLE,
    RUN_EXAMPLE,
    answer,
    json_body,
    problems,
)
from workflows.requests import Reading, RunId, RunQuery, Runs, Writing, page, place_of
from workflows.views import run_document

router = APIRouter(prefix="/api/runs", tags=["workflows"])


@router.get(
    "",
    operation_id="list_runs",
    summary="List runs",
    response_model=RunPage,
    responses={**answer(200, "One page.", {"items": [RUN_EXAMPLE], "next_cursor": None}), **problems(400)},
)
async def list_runs(principal: Reading, runs: Runs, query: Annotated[RunQuery, Query()]) -> Response:
    """Of every workflow, newest first; `state=suspended` and `state=needs_attention` are what somebody should look at."""
    question = query.question("all runs")
    found = await runs.find(
        principal.workspace_id,
        workflow_id=query.workflow_id,
        must_exist=False,
        state=query.state,
        lead_id=query.lead_id,
        before=place_of(query.cursor, question),
        limit=query.limit + 1,
    )
    return page(found, query.limit, question, show=run_document, place=lambda run: (run.created_at.isoformat(), run.id))


@router.get(
    "/{run_id}",
    operation_id="read_run",
    summary="Read a run step by step",
    response_model=RunDetail,
    responses={**answer(200, "The run.", RUN_DETAIL_EXAMPLE), **problems(404)},
)
async def read_run(run_id: RunId, principal: Reading, runs: Runs) -> Response:
    """Every step with what it sent, what came back, each attempt and its times. Secrets are named by id."""
    return Response(orjson.dumps(await runs.read(principal.workspace_id, run_id)), media_type="application/json")


@router.post(
    "/{run_id}/cancel",
    operation_id="cancel_run",
    summary="Cancel a run",
    status_code=202,
    response_model=RunDocument,
    responses={
        **answer(202, "It ends as soon as a worker sees it.", {**RUN_EXAMPLE, "state": "cancelling"}),
        **problems(404, 409),
    },
)
async def cancel_run(run_id: RunId, write: Writing, runs: Runs) -> Response:
    """A call under way is not interrupted: its result is recorded, then the run is `cancelled`."""
    return (await runs.cancel(write, run_id)).response()


@router.post(
    "/{run_id}/retry",
    operation_id="retry_run",
    summary="Retry a run that stopped",
    status_code=202,
    response_model=RunDocument,
    responses={
        **answer(202, "Queued again.", {**RUN_EXAMPLE, "state": "queued"}),
        **problems(400, 404, 409, 413, 415),
    },
    openapi_extra=json_body(RetryBody, {"from": "step", "version": "same"}, required=False),
)
async def retry_run(run_id: RunId, write: Writing, runs: Runs) -> Response:
    """For runs that failed, were cancelled or suspended, or need attention. `from: step` goes on where the run stopped: a call whose
    outcome is unknown is repeated under its old key, one that is known to have failed is made anew. `from: start` begins again."""
    return (await runs.retry(write, run_id)).response()
