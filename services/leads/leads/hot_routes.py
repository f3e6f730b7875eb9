"""The routes that carry the load: create, read one, list, replace, change. Bytes in, bytes out.

They are declared like any other route and stand in the OpenAPI document, but FastAPI's dependency machinery, which costs more than the
rest of the request, is left out: the endpoint gets the bare request. What a caller may send is declared by `dependencies` that only
the document reads.
"""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from chassis.errors import FieldError, Unprocessable
from chassis.idempotency import WriteRequest, read_write_request
from chassis.security import authorise, require
from leads.answering import shown_response
from leads.documents import (
    CURSOR_EXAMPLE,
    INPUT_EXAMPLE,
    LEAD_EXAMPLE,
    NOT_MODIFIED,
    LeadDocument,
    LeadPage,
    answer,
    json_body,
    problems,
)
from leads.fields import LeadChange, LeadInput
from leads.listing import ListQuery
from leads.reading import LeadReader
from leads.service import ON_DUPLICATE, LeadService, OnDuplicate


class BytesRoute(APIRoute):
    """A route whose endpoint is called with the request alone."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return handler


LeadId = Annotated[str, Path()]
IdempotencyKey = Annotated[
    str | None,
    Header(description="Repeats with this key have their effect once and get the first answer, for 24 hours."),
]


async def _create_parameters(
    _principal: Annotated[None, Depends(require("leads:write"))],
    idempotency_key: IdempotencyKey = None,
    on_duplicate: Annotated[
        OnDuplicate,
        Query(
            description="If a live lead has this e-mail (or phone): answer 409, update it, return it, or allow a second one."
        ),
    ] = "error",
) -> None:
    """Read by the OpenAPI document only."""


async def _read_parameters(
    _principal: Annotated[None, Depends(require("leads:read"))],
    lead_id: LeadId,
    if_none_match: Annotated[str | None, Header(description="Entity tags that need not be sent again: 304.")] = None,
) -> None:
    """Read by the OpenAPI document only."""


async def _change_parameters(
    _principal: Annotated[None, Depends(require("leads:write"))],
    lead_id: LeadId,
    idempotency_key: IdempotencyKey = None,
    if_match: Annotated[
        str | None, Header(description="The lead must be at the version of this entity tag; weak tags never match.")
    ] = None,
) -> None:
    """Read by the OpenAPI document only."""


async def _list_parameters(
    _principal: Annotated[None, Depends(require("leads:read"))], query: Annotated[ListQuery, Query()]
) -> None:
    """Read by the OpenAPI document only."""


async def _read_write(request: Request) -> tuple[WriteRequest, LeadService]:
    principal = await authorise(request, "leads:write")
    write = await read_write_request(request, principal, request.headers.get("idempotency-key"))
    return write, request.state.service


router = APIRouter(prefix="/api/leads", tags=["leads"], route_class=BytesRoute)


@router.post(
    "",
    operation_id="create_lead",
    summary="Create a lead",
    status_code=201,
    response_model=LeadDocument,
    dependencies=[Depends(_create_parameters)],
    responses={
        **answer(201, "Created; `Location` names it.", LEAD_EXAMPLE),
        **answer(200, "With `on_duplicate`: the lead that was there, updated or as it is.", LEAD_EXAMPLE),
        **problems(400, 409, 413, 415),
    },
    openapi_extra=json_body(LeadInput, INPUT_EXAMPLE),
)
async def create_lead(request: Request) -> Response:
    """One of `email` and `phone` is needed. E-mail, or without one the phone, is unique among the workspace's live leads."""
    write, service = await _read_write(request)
    on_duplicate = ON_DUPLICATE.get(request.query_params.get("on_duplicate", "error"))
    if on_duplicate is None:
        wrong = FieldError("?on_duplicate", f"must be one of {', '.join(ON_DUPLICATE)}")
        raise Unprocessable("The query has invalid parameters.", errors=[wrong])
    return (await service.create(write, on_duplicate)).response()


@router.get(
    "/{lead_id}",
    operation_id="read_lead",
    summary="Read a lead",
    response_model=LeadDocument,
    dependencies=[Depends(_read_parameters)],
    responses={
        **answer(200, "The lead.", LEAD_EXAMPLE),
        304: NOT_MODIFIED,
        **problems(404),
    },
)
async def read_lead(request: Request) -> Response:
    """The lead as the last successful write left it, on every replica."""
    principal = await authorise(request, "leads:read")
    reader: LeadReader = request.state.reader
    shown = await reader.read(principal.workspace_id, request.path_params["lead_id"])
    return shown_response(shown, request.headers.get("if-none-match"))


@router.get(
    "",
    operation_id="list_leads",
    summary="List leads",
    response_model=LeadPage,
    dependencies=[Depends(_list_parameters)],
    responses={
        **answer(200, "One page.", {"items": [LEAD_EXAMPLE], "next_cursor": CURSOR_EXAMPLE}, tagged=False),
        **problems(400),
    },
)
async def list_leads(request: Request) -> Response:
    """Live leads, newest first unless `sort` says otherwise. A cursor belongs to its filters and sort. While leads change,
    only an order by `created_at` shows each of them once."""
    principal = await authorise(request, "leads:read")
    reader: LeadReader = request.state.reader
    body = await reader.list(principal.workspace_id, request.query_params)
    return Response(body, media_type="application/json")


@router.put(
    "/{lead_id}",
    operation_id="replace_lead",
    summary="Replace a lead",
    response_model=LeadDocument,
    dependencies=[Depends(_change_parameters)],
    responses={**answer(200, "As it is now.", LEAD_EXAMPLE), **problems(400, 404, 409, 412, 413, 415)},
    openapi_extra=json_body(LeadChange, INPUT_EXAMPLE),
)
async def replace_lead(request: Request) -> Response:
    """Fields that are left out become empty. Without `If-Match` the last write wins."""
    write, service = await _read_write(request)
    lead_id, if_match = request.path_params["lead_id"], request.headers.get("if-match")
    return (await service.replace(write, lead_id, if_match)).response()


@router.patch(
    "/{lead_id}",
    operation_id="change_lead",
    summary="Change some fields of a lead",
    response_model=LeadDocument,
    dependencies=[Depends(_change_parameters)],
    responses={**answer(200, "As it is now.", LEAD_EXAMPLE), **problems(400, 404, 409, 412, 413, 415)},
    openapi_extra=json_body(
        LeadChange, {"stage": "qualified", "custom": {"plan": "enterprise"}}, "application/merge-patch+json"
    ),
)
async def change_lead(request: Request) -> Response:
    """A JSON merge patch (RFC 7396): null empties a field, `custom` and `consent` merge, `tags` are replaced. A patch that changes
    nothing leaves the lead at its version."""
    write, service = await _read_write(request)
    lead_id, if_match = request.path_params["lead_id"], request.headers.get("if-match")
    return (await service.patch(write, lead_id, if_match)).response()
