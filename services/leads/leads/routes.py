"""The other routes: deleting and restoring a lead, its timeline, and the workspace's settings for leads."""

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query, Request
from starlette.responses import Response

from chassis.idempotency import WriteRequest, write_request
from chassis.principal import Principal
from chassis.security import require
from leads.answering import shown_response
from leads.documents import (
    LEAD_EXAMPLE,
    NOT_MODIFIED,
    TIMELINE_EXAMPLE,
    LeadDocument,
    TimelinePage,
    answer,
    json_body,
    problems,
)
from leads.listing import MAX_LIMIT
from leads.reading import LeadReader
from leads.service import LeadService
from leads.workspace import REGION_EXAMPLE, SettingsDocument, WorkspaceSettings

settings_router = APIRouter(prefix="/api/leads", tags=["leads"])
"""Goes before the routes that take any lead's id."""
router = APIRouter(prefix="/api/leads", tags=["leads"])


async def _service(request: Request) -> LeadService:
    found: LeadService = request.state.service
    return found


async def _reader(request: Request) -> LeadReader:
    found: LeadReader = request.state.reader
    return found


async def _workspace(request: Request) -> WorkspaceSettings:
    found: WorkspaceSettings = request.state.workspace
    return found


Service = Annotated[LeadService, Depends(_service)]
Reader = Annotated[LeadReader, Depends(_reader)]
Workspace = Annotated[WorkspaceSettings, Depends(_workspace)]
Administering = Annotated[WriteRequest, write_request("admin")]
Writing = Annotated[WriteRequest, write_request("leads:write")]
Reading = Annotated[Principal, Depends(require("leads:read"))]
LeadId = Annotated[str, Path()]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT)]
Cursor = Annotated[str | None, Query(max_length=2000, description="`next_cursor` of the page before.")]
IfNoneMatch = Annotated[str | None, Header(description="Entity tags that need not be sent again: 304.")]
IfMatch = Annotated[
    str | None, Header(description="The lead must be at the version of this entity tag; weak tags never match.")
]


@settings_router.get(
    "/settings",
    operation_id="read_lead_settings",
    summary="Read the settings for leads",
    response_model=SettingsDocument,
    responses={**answer(200, "The settings.", REGION_EXAMPLE), 304: NOT_MODIFIED, **problems()},
)
async def read_settings(principal: Reading, workspace: Workspace, if_none_match: IfNoneMatch = None) -> Response:
    """`default_region` is the country whose phone numbers are understood without a country's code."""
    return shown_response(await workspace.read(principal.workspace_id), if_none_match)


@settings_router.put(
    "/settings",
    operation_id="replace_lead_settings",
    summary="Set the settings for leads",
    response_model=SettingsDocument,
    responses={**answer(200, "As they are now.", REGION_EXAMPLE), **problems(400, 412, 413, 415)},
    openapi_extra=json_body(SettingsDocument, REGION_EXAMPLE),
)
async def replace_settings(write: Administering, workspace: Workspace, if_match: IfMatch = None) -> Response:
    """For what is read from now on; numbers that are stored stay as they are."""
    return (await workspace.replace(write, if_match)).response()


@router.delete(
    "/{lead_id}",
    operation_id="delete_lead",
    summary="Delete a lead",
    status_code=204,
    responses={204: {"description": "Deleted; it can be restored."}, **problems(400, 404, 409, 412)},
)
async def delete_lead(lead_id: LeadId, write: Writing, service: Service, if_match: IfMatch = None) -> Response:
    """Its e-mail and phone become free for another lead."""
    return (await service.delete(write, lead_id, if_match)).response()


@router.post(
    "/{lead_id}/restore",
    operation_id="restore_lead",
    summary="Restore a deleted lead",
    response_model=LeadDocument,
    responses={**answer(200, "As it is now.", LEAD_EXAMPLE), **problems(400, 404, 409, 412)},
)
async def restore_lead(lead_id: LeadId, write: Writing, service: Service, if_match: IfMatch = None) -> Response:
    """409 if another live lead has its e-mail or phone by now. A lead that is not deleted stays as it is."""
    return (await service.restore(write, lead_id, if_match)).response()


@router.get(
    "/{lead_id}/timeline",
    operation_id="read_lead_timeline",
    summary="Read what happened to a lead",
    response_model=TimelinePage,
    responses={**answer(200, "One page.", TIMELINE_EXAMPLE, tagged=False), **problems(400, 404)},
)
async def read_timeline(
    lead_id: LeadId, principal: Reading, reader: Reader, limit: Limit = 50, cursor: Cursor = None
) -> Response:
    """Oldest first: every change, event, workflow step and CRM attempt. Entries are written within moments of what they tell of, each
    at its own time, so one that was slow can come in before the end. Deleted leads keep theirs."""
    body = await reader.timeline(principal.workspace_id, lead_id, cursor, limit)
    return Response(body, media_type="application/json")
