"""Where leads stand, wishes for them, and dead letters."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from starlette.responses import Response

from crm_sync.bodies import DeadLetterPage, Replayed, ReplayRequest, StandingList, SyncRequest
from crm_sync.documents import dead_letter_document
from crm_sync.routes.asking import (
    Cursor,
    DeadLetterId,
    LeadId,
    LeadsOf,
    Limit,
    Reading,
    Writing,
    json_response,
    page,
    place_of,
    question,
)
from crm_sync.routes.openapi import DEAD_LETTER_EXAMPLE, STANDING_EXAMPLE, example, json_body, problems

router = APIRouter(prefix="/api/crm", tags=["crm"])

_IdFilter = Annotated[str | None, Query(max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]
_ClassFilter = Annotated[Literal["permanent", "unknown", "duplicate_external"] | None, Query(alias="class")]


@router.get(
    "/leads/{lead_id}",
    operation_id="read_lead_standings",
    summary="Read where a lead stands in each CRM",
    response_model=StandingList,
    responses={**example(200, {"items": [STANDING_EXAMPLE]}, "One entry per connection."), **problems(404)},
)
async def read_standings(lead_id: LeadId, principal: Reading, leads: LeadsOf) -> Response:
    """Per connection the wanted and the synced version, the state, the record's id, the last error in the CRM's words and the next try.
    Moments after a lead is created it may not be known here yet: 404."""
    return json_response({"items": await leads.standings(principal, lead_id)})


@router.post(
    "/leads/{lead_id}/sync",
    operation_id="sync_lead",
    summary="Bring a lead over to a CRM",
    status_code=202,
    response_model=StandingList,
    responses={
        **example(202, {"items": [STANDING_EXAMPLE | {"state": "due", "synced_version": 2}]}, "Where it stands now."),
        **problems(400, 404, 413, 415, 422),
    },
    openapi_extra=json_body(
        SyncRequest, example={"connection_id": "conn_06d3v0c2m5w3f8k1x9q4t7r2ab", "version": 3}, required=False
    ),
)
async def sync_lead(lead_id: LeadId, write: Writing, leads: LeadsOf) -> Response:
    """From then on the connection keeps the lead in step, whatever its mode. What is in step already is not sent again; a dead letter is
    tried again. The outcome comes as `crm.lead.synced` or `crm.lead.failed`."""
    return (await leads.sync(write, lead_id)).response()


@router.get(
    "/dead-letters",
    operation_id="list_dead_letters",
    summary="List dead letters",
    response_model=DeadLetterPage,
    responses={
        **example(200, {"items": [DEAD_LETTER_EXAMPLE], "next_cursor": None}, "One page, newest first."),
        **problems(400, 422),
    },
)
async def list_dead_letters(
    principal: Reading,
    leads: LeadsOf,
    *,
    connection_id: _IdFilter = None,
    kind: _ClassFilter = None,
    lead_id: _IdFilter = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """Leads a CRM will not take until something changes: in the lead (a newer version is tried by itself), in the CRM, or here. The error
    has the CRM's own words and its correlation id."""
    asked = question("dead-letters", connection_id, kind, lead_id)
    found = await leads.dead_letters(
        principal,
        connection_id=connection_id,
        kind=kind,
        lead_id=lead_id,
        after=place_of(cursor, asked),
        limit=limit,
    )
    return page(found, limit, asked, show=dead_letter_document, place=lambda each: (each.dead_at, each.id))


@router.post(
    "/dead-letters/replay",
    operation_id="replay_dead_letters",
    summary="Try dead letters again",
    status_code=202,
    response_model=Replayed,
    responses={**example(202, {"replayed": 12}, "How many are due again."), **problems(400, 404, 413, 415, 422)},
    openapi_extra=json_body(ReplayRequest, example={"class": "permanent"}, required=False),
)
async def replay_dead_letters(write: Writing, leads: LeadsOf) -> Response:
    """Those of a connection, of a class, of both, or all of the workspace."""
    return (await leads.replay_many(write)).response()


@router.post(
    "/dead-letters/{dead_letter_id}/replay",
    operation_id="replay_dead_letter",
    summary="Try a dead letter again",
    status_code=202,
    response_model=Replayed,
    responses={**example(202, {"replayed": 1}, "It is due again."), **problems(404)},
)
async def replay_dead_letter(dead_letter_id: DeadLetterId, write: Writing, leads: LeadsOf) -> Response:
    """Its attempts are counted anew."""
    return (await leads.replay(write, dead_letter_id)).response()
