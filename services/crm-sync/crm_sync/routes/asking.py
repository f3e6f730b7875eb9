"""What the routes have in common: who asks, ids, pages, and the service objects of the process."""

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import Depends, Header, Path, Query, Request
from starlette.responses import Response

from chassis.errors import BadRequest
from chassis.idempotency import WriteRequest, write_request
from chassis.parsing import cursor_moment, make_cursor, parse_cursor
from chassis.principal import Principal
from chassis.security import require
from crm_sync.documents import none_match
from crm_sync.errors import ConnectionNotFound, DeadLetterNotFound, LeadNotFound
from crm_sync.repository import Place
from crm_sync.service.checking import VendorChecks
from crm_sync.service.connections import Connections
from crm_sync.service.leads import Leads

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_Entry = TypeVar("_Entry")

Limit = Annotated[int, Query(ge=1, le=200, description="Entries per page.")]
Cursor = Annotated[str | None, Query(max_length=2000, description="`next_cursor` of the page before.")]
IfMatch = Annotated[str | None, Header(description="The thing must be at the version of this entity tag, else 412.")]
IfNoneMatch = Annotated[str | None, Header(description="Entity tags that need not be sent again: 304.")]
Reading = Annotated[Principal, Depends(require("crm:read"))]
Writing = Annotated[WriteRequest, write_request("crm:write")]
Administering = Annotated[Principal, Depends(require("crm:write"))]


async def _connections(request: Request) -> Connections:
    found: Connections = request.state.service
    return found


async def _checks(request: Request) -> VendorChecks:
    found: VendorChecks = request.state.checks
    return found


async def _leads(request: Request) -> Leads:
    found: Leads = request.state.leads
    return found


ConnectionsOf = Annotated[Connections, Depends(_connections)]
ChecksOf = Annotated[VendorChecks, Depends(_checks)]
LeadsOf = Annotated[Leads, Depends(_leads)]


async def _connection_id(connection_id: Annotated[str, Path()]) -> str:
    if not is_id(connection_id):
        raise ConnectionNotFound
    return connection_id


async def _lead_id(lead_id: Annotated[str, Path()]) -> str:
    if not is_id(lead_id):
        raise LeadNotFound
    return lead_id


async def _dead_letter_id(dead_letter_id: Annotated[str, Path()]) -> str:
    if not is_id(dead_letter_id):
        raise DeadLetterNotFound
    return dead_letter_id


ConnectionId = Annotated[str, Depends(_connection_id)]
LeadId = Annotated[str, Depends(_lead_id)]
DeadLetterId = Annotated[str, Depends(_dead_letter_id)]


def is_id(text: str) -> bool:
    """True if `text` has the form of an id: anything else names nothing."""
    return _ID.fullmatch(text) is not None


def json_response(document: Any, *, tag: str | None = None, if_none_match: str | None = None) -> Response:
    """200 with `document`, or 304 if the reader has it."""
    headers = {"ETag": tag} if tag is not None else {}
    if tag is not None and none_match(if_none_match, tag):
        return Response(status_code=304, headers=headers)
    return Response(orjson.dumps(document), media_type="application/json", headers=headers)


def question(*filters: Any) -> str:
    """What a cursor is bound to: the list's filters, in short."""
    return hashlib.sha256(orjson.dumps(filters)).hexdigest()[:16]


def place_of(cursor: str | None, asked: str) -> Place | None:
    """Where the page begins; BadRequest for a damaged cursor or one of another question."""
    if cursor is None:
        return None
    text, last_id = parse_cursor(cursor, asked, 2)
    if not isinstance(last_id, str) or not is_id(last_id):
        raise BadRequest("The cursor is damaged: start again without one.")
    return cursor_moment(text), last_id


def page(
    entries: Sequence[_Entry],
    limit: int,
    asked: str,
    *,
    show: Callable[[_Entry], dict[str, Any]],
    place: Callable[[_Entry], Place],
) -> Response:
    """One page of a list; `entries` were asked for with one more than `limit`."""
    shown = entries[:limit]
    cursor = None
    if len(entries) > limit:
        moment, last_id = place(shown[-1])
        cursor = make_cursor([moment.isoformat(), last_id], asked)
    return json_response({"items": [show(each) for each in shown], "next_cursor": cursor})
