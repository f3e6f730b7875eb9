"""Connections: CRUD, pause and resume, verify, mapping, signing secret."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from starlette.responses import JSONResponse, Response

from crm_sync.bodies import (
    ConnectionDocument,
    ConnectionPage,
    HubSpotChange,
    MappingDocument,
    MappingInput,
    NewHubSpotConnection,
    NewWebhookConnection,
    SigningSecretDocument,
    Verification,
    WebhookChange,
)
from crm_sync.documents import entity_tag
from crm_sync.models import ConnectionKey
from crm_sync.routes.asking import (
    Administering,
    ChecksOf,
    ConnectionId,
    ConnectionsOf,
    Cursor,
    IfMatch,
    IfNoneMatch,
    Limit,
    Reading,
    Writing,
    json_response,
    page,
    place_of,
    question,
)
from crm_sync.routes.openapi import (
    CONNECTION_EXAMPLE,
    MAPPING_EXAMPLE,
    MAPPING_INPUT_EXAMPLE,
    NEW_CONNECTION_EXAMPLE,
    SECRET_EXAMPLE,
    VERIFICATION_EXAMPLE,
    example,
    json_body,
    problems,
)

router = APIRouter(prefix="/api/crm/connections", tags=["crm"])

NOT_MODIFIED = {"description": "As the reader has it."}
VendorFilter = Annotated[Literal["hubspot", "webhook"] | None, Query()]
StatusFilter = Annotated[Literal["active", "paused", "needs_reauth", "needs_mapping", "disabled"] | None, Query()]


@router.post(
    "",
    operation_id="create_connection",
    summary="Connect a CRM",
    status_code=201,
    response_model=ConnectionDocument,
    responses={
        **example(201, CONNECTION_EXAMPLE, "Created; `Location` names it."),
        **problems(400, 409, 413, 415, 422),
    },
    openapi_extra=json_body(NewHubSpotConnection, NewWebhookConnection, example=NEW_CONNECTION_EXAMPLE),
)
async def create_connection(write: Writing, connections: ConnectionsOf) -> Response:
    """With mode `all` every lead of the workspace is brought over and kept in step; with `selected` only those that a workflow or a
    call to `/api/crm/leads/{lead_id}/sync` sends. Credentials are stored encrypted and never shown. A `mapping` is checked against the
    CRM's properties; without one the defaults hold."""
    return (await connections.create(write)).response()


@router.get(
    "",
    operation_id="list_connections",
    summary="List connections",
    response_model=ConnectionPage,
    responses={
        **example(200, {"items": [CONNECTION_EXAMPLE], "next_cursor": None}, "One page, newest first."),
        **problems(400, 422),
    },
)
async def list_connections(
    principal: Reading,
    connections: ConnectionsOf,
    *,
    vendor: VendorFilter = None,
    status: StatusFilter = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """`status` tells at a glance what needs somebody: `needs_reauth`, `needs_mapping`, `disabled`."""
    asked = question("connections", vendor, status)
    found = await connections.list(principal, vendor, status, place_of(cursor, asked), limit)
    return page(found, limit, asked, show=connections.document, place=lambda each: (each.created_at, each.id))


@router.get(
    "/{connection_id}",
    operation_id="read_connection",
    summary="Read a connection",
    response_model=ConnectionDocument,
    responses={**example(200, CONNECTION_EXAMPLE, "The connection."), 304: NOT_MODIFIED, **problems(404)},
)
async def read_connection(
    connection_id: ConnectionId, principal: Reading, connections: ConnectionsOf, if_none_match: IfNoneMatch = None
) -> Response:
    """`paused_until` and `trouble` tell of a rest the connection takes by itself; `status` of a stop that waits for a person."""
    found = await connections.read(ConnectionKey(principal.workspace_id, connection_id))
    document = connections.document(found)
    return json_response(document, tag=entity_tag(found.version, document), if_none_match=if_none_match)


@router.patch(
    "/{connection_id}",
    operation_id="change_connection",
    summary="Change a connection",
    response_model=ConnectionDocument,
    responses={
        **example(200, CONNECTION_EXAMPLE, "As it is now."),
        **problems(400, 404, 409, 412, 413, 415, 422),
    },
    openapi_extra=json_body(
        HubSpotChange,
        WebhookChange,
        example={"mode": "selected", "time_zone": None},
        media_types=("application/merge-patch+json",),
    ),
)
async def change_connection(
    connection_id: ConnectionId, write: Writing, connections: ConnectionsOf, if_match: IfMatch = None
) -> Response:
    """A JSON merge patch (RFC 7396) of `name`, `mode`, `on_delete`, `time_zone`, `settings`, `credentials`; credentials are replaced as
    a whole, and new ones end `needs_reauth`. The vendor stays."""
    return (await connections.change(write, connection_id, if_match)).response()


@router.delete(
    "/{connection_id}",
    operation_id="delete_connection",
    summary="Delete a connection",
    status_code=204,
    responses={204: {"description": "Deleted."}, **problems(404, 412)},
)
async def delete_connection(
    connection_id: ConnectionId, write: Writing, connections: ConnectionsOf, if_match: IfMatch = None
) -> Response:
    """Credentials are forgotten at once. Records in the CRM stay; leads no longer show their ids there."""
    return (await connections.delete(write, connection_id, if_match)).response()


@router.post(
    "/{connection_id}/pause",
    operation_id="pause_connection",
    summary="Pause a connection",
    response_model=ConnectionDocument,
    responses={**example(200, CONNECTION_EXAMPLE | {"status": "paused"}, "As it is now."), **problems(404, 412)},
)
async def pause_connection(
    connection_id: ConnectionId, write: Writing, connections: ConnectionsOf, if_match: IfMatch = None
) -> Response:
    """Nothing is sent until it is resumed. What is wanted meanwhile waits; only the newest version of each lead is sent then."""
    return (await connections.pause(write, connection_id, if_match)).response()


@router.post(
    "/{connection_id}/resume",
    operation_id="resume_connection",
    summary="Resume a connection",
    response_model=ConnectionDocument,
    responses={**example(200, CONNECTION_EXAMPLE, "As it is now."), **problems(404, 412)},
)
async def resume_connection(
    connection_id: ConnectionId, write: Writing, connections: ConnectionsOf, if_match: IfMatch = None
) -> Response:
    """Ends a pause, a stop and a rest alike: what is due is tried at once."""
    return (await connections.resume(write, connection_id, if_match)).response()


@router.post(
    "/{connection_id}/verify",
    operation_id="verify_connection",
    summary="Verify a connection at its CRM",
    response_model=Verification,
    responses={**example(200, VERIFICATION_EXAMPLE, "What was found."), **problems(404)},
)
async def verify_connection(connection_id: ConnectionId, write: Writing, checks: ChecksOf) -> Response:
    """Asks the CRM: do the credentials work, does the mapping fit. Makes the unique property `ao_lead_id` in HubSpot if it is missing and
    learns the account's time zone; sends a webhook receiver a `connection.verified` message. `ok: false` comes with the reasons."""
    return (await checks.verify(write, connection_id)).response()


@router.get(
    "/{connection_id}/mapping",
    operation_id="read_mapping",
    summary="Read a connection's mapping",
    response_model=MappingDocument,
    responses={**example(200, MAPPING_EXAMPLE, "The mapping in use."), 304: NOT_MODIFIED, **problems(404)},
)
async def read_mapping(
    connection_id: ConnectionId, principal: Reading, checks: ChecksOf, if_none_match: IfNoneMatch = None
) -> Response:
    """Which field of a lead goes into which property of the CRM."""
    document, tag = await checks.read_mapping(ConnectionKey(principal.workspace_id, connection_id))
    return json_response(document, tag=tag, if_none_match=if_none_match)


@router.put(
    "/{connection_id}/mapping",
    operation_id="replace_mapping",
    summary="Replace a connection's mapping",
    response_model=MappingDocument,
    responses={
        **example(200, MAPPING_EXAMPLE, "The mapping in use."),
        **problems(400, 404, 409, 412, 413, 415, 422),
    },
    openapi_extra=json_body(MappingInput, example=MAPPING_INPUT_EXAMPLE),
)
async def replace_mapping(
    connection_id: ConnectionId, write: Writing, checks: ChecksOf, if_match: IfMatch = None
) -> Response:
    """Checked against the CRM's properties before it is stored; every lead it changes is brought over again."""
    return (await checks.replace_mapping(write, connection_id, if_match)).response()


@router.post(
    "/{connection_id}/signing-secret",
    operation_id="rotate_signing_secret",
    summary="Make a new signing secret and show it once",
    response_model=SigningSecretDocument,
    responses={**example(200, SECRET_EXAMPLE, "Shown this once."), **problems(404)},
)
async def rotate_signing_secret(
    connection_id: ConnectionId, principal: Administering, connections: ConnectionsOf
) -> Response:
    """For webhook connections. The secret before this one signs along for 24 hours. No `Idempotency-Key` here: an answer that holds a
    secret is not kept, so a repetition makes another secret."""
    document = await connections.rotate_signing_secret(principal, connection_id)
    return JSONResponse(document, headers={"Cache-Control": "no-store"})
