"""What the routes share: who asks, which ids may stand in a path, pages."""

import hashlib
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

import orjson
from fastapi import Depends, Header, Path, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from chassis.errors import BadRequest
from chassis.idempotency import WriteRequest, write_request
from chassis.parsing import cursor_moment, make_cursor, parse_cursor
from chassis.principal import Principal
from chassis.security import require
from workflows.bodies import IDENTIFIER, Identifier
from workflows.engine.run import State
from workflows.errors import RunNotFound, WorkflowNotFound
from workflows.run_service import RunService
from workflows.service import WorkflowService

MAX_LIMIT = 200
_ID = re.compile(IDENTIFIER)
_Item = TypeVar("_Item")


async def _workflow_id(workflow_id: Annotated[str, Path()]) -> str:
    if not _ID.fullmatch(workflow_id):
        raise WorkflowNotFound("There is no such workflow.")
    return workflow_id


async def _run_id(run_id: Annotated[str, Path()]) -> str:
    if not _ID.fullmatch(run_id):
        raise RunNotFound("There is no such run.")
    return run_id


async def _workflow_service(request: Request) -> WorkflowService:
    found: WorkflowService = request.state.workflows
    return found


async def _run_service(request: Request) -> RunService:
    found: RunService = request.state.runs
    return found


WorkflowId = Annotated[str, Depends(_workflow_id)]
RunId = Annotated[str, Depends(_run_id)]
Workflows = Annotated[WorkflowService, Depends(_workflow_service)]
Runs = Annotated[RunService, Depends(_run_service)]
Reading = Annotated[Principal, Depends(require("workflows:read"))]
Writing = Annotated[WriteRequest, write_request("workflows:write")]
IfMatch = Annotated[
    str | None, Header(description="The workflow must be as this entity tag says; weak tags never match.")
]
IfNoneMatch = Annotated[str | None, Header(description="Entity tags that need not be sent again: 304.")]


class PageQuery(BaseModel):
    """The query of a list. Only `created_at` is an order that stays the same while you page."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=50, ge=1, le=MAX_LIMIT)
    cursor: str | None = Field(default=None, max_length=2000, description="`next_cursor` of the page before.")

    def question(self, *context: str) -> str:
        """What a cursor is bound to: the list, its filters and order, hashed."""
        filters = self.model_dump(mode="json", exclude={"limit", "cursor"})
        return hashlib.sha256(orjson.dumps([filters, *context])).hexdigest()[:16]


class WorkflowQuery(PageQuery):
    """Filters of the list of workflows."""

    q: str | None = Field(
        default=None, max_length=200, pattern=r"^[^\x00]*$", description="Part of the name, in any case."
    )
    event: Literal["lead.created", "lead.updated", "lead.deleted", "lead.restored"] | None = Field(
        default=None, description="Started by this event."
    )
    archived: bool = Field(default=False, description="true: the archived ones instead of the live ones.")
    sort: Literal["-created_at"] = "-created_at"


class WorkflowRunsQuery(PageQuery):
    """Filters of the list of a workflow's runs."""

    state: State | None = None
    lead_id: Identifier | None = None
    sort: Literal["-created_at"] = "-created_at"


class RunQuery(WorkflowRunsQuery):
    """Filters of the list of runs."""

    workflow_id: Identifier | None = None


def place_of(cursor: str | None, question: str) -> tuple[datetime, str] | None:
    """The (created_at, id) a cursor stands for; BadRequest if it is damaged or another list's."""
    if cursor is None:
        return None
    moment, identifier = parse_cursor(cursor, question, 2)
    if not isinstance(identifier, str) or "\0" in identifier:
        raise BadRequest("The cursor is damaged: start again without one.")
    return cursor_moment(moment), identifier


def version_of(cursor: str | None, question: str) -> int | None:
    """The version a cursor stands for; BadRequest if it is damaged or another list's."""
    if cursor is None:
        return None
    [version] = parse_cursor(cursor, question, 1)
    if type(version) is not int or not 0 < version < 2**31:
        raise BadRequest("The cursor is damaged: start again without one.")
    return version


def page(
    items: Sequence[_Item],
    limit: int,
    question: str,
    *,
    show: Callable[[_Item], dict[str, Any]],
    place: Callable[[_Item], tuple[Any, ...]],
) -> Response:
    """The answer of a list: `items` were asked for one more than `limit`, to know whether there is a next page."""
    shown = items[:limit]
    has_more = len(items) > limit
    cursor = make_cursor(place(shown[-1]), question) if has_more else None
    body = orjson.dumps({"items": [show(item) for item in shown], "next_cursor": cursor})
    return Response(body, media_type="application/json")
