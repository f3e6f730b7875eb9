"""Reading leads: one from the cache or the database, many from the database, as the bytes that are answered."""

from datetime import UTC, datetime
from typing import Any, Final

import orjson
from pydantic import ValidationError
from starlette.datastructures import QueryParams

from chassis.database import Database
from chassis.errors import BadRequest, FieldError, Unprocessable
from chassis.parsing import cursor_moment, make_cursor, parse_cursor
from leads import repository
from leads.contact import NO_REGION, ContactInvalid
from leads.errors import LeadNotFound
from leads.listing import REPEATABLE, ListQuery, list_statement, next_cursor
from leads.models import is_lead_id
from leads.shown import DELETED, LeadCache, Shown
from leads.workspace import WorkspaceSettings

_BEGINNING: Final = (datetime(1, 1, 1, tzinfo=UTC), "", 0)


class LeadReader:
    """The reads of one process."""

    def __init__(self, database: Database, cache: LeadCache, workspace: WorkspaceSettings) -> None:
        self._database = database
        self._cache = cache
        self._workspace = workspace

    async def read(self, workspace_id: str, lead_id: str) -> Shown:
        """The lead as it is shown; LeadNotFound if it is not there, or no longer."""
        if not is_lead_id(lead_id):
            raise LeadNotFound
        shown = await self._cache.get(workspace_id, lead_id)
        if shown is None:
            lead = await self._database.read(lambda connection: repository.read_lead(connection, workspace_id, lead_id))
            if lead is None:
                raise LeadNotFound
            shown = await self._cache.fill(lead)
        if shown is DELETED:
            raise LeadNotFound
        return shown

    async def list(self, workspace_id: str, parameters: QueryParams) -> bytes:
        """`{"items": […], "next_cursor": …}`; Unprocessable or BadRequest for a query that cannot be answered."""
        query = read_query(parameters)
        region = await self._workspace.region(workspace_id) if query.phone else NO_REGION
        try:
            statement = list_statement(query, workspace_id, region)
        except ContactInvalid as error:
            wrong = FieldError(f"?{error.field}", str(error))
            raise Unprocessable("The query has invalid parameters.", errors=[wrong]) from error
        page = await self._database.read(lambda connection: repository.list_leads(connection, statement))
        cursor = next_cursor(query, page.last_value, page.last_id) if page.has_more else None
        return _page(page.items, cursor)

    async def timeline(self, workspace_id: str, lead_id: str, cursor: str | None, limit: int) -> bytes:
        """What happened to the lead, oldest first; deleted ones have theirs too."""
        if not is_lead_id(lead_id):
            raise LeadNotFound
        after = _read_timeline_cursor(cursor, lead_id) if cursor is not None else _BEGINNING
        rows = await self._database.read(
            lambda connection: repository.read_timeline(connection, workspace_id, lead_id, after, limit + 1)
        )
        if not rows and not await self._database.read(
            lambda connection: repository.lead_exists(connection, workspace_id, lead_id)
        ):
            raise LeadNotFound
        following = None
        if len(rows) > limit:
            rows = rows[:limit]
            last = rows[-1]
            following = make_cursor((last.at.isoformat(), last.event_id, last.position), lead_id)
        return _page(b"[" + b",".join(row.entry for row in rows) + b"]", following)


def read_query(parameters: QueryParams) -> ListQuery:
    """The query string as ListQuery; Unprocessable names each wrong parameter."""
    given: dict[str, Any] = {}
    wrong: list[FieldError] = []
    for name, value in parameters.multi_items():
        if "\0" in value:
            wrong.append(FieldError(f"?{name}", "must not contain NUL"))
        elif name in REPEATABLE:
            given.setdefault(name, []).append(value)
        elif name in given:
            wrong.append(FieldError(f"?{name}", "is given more than once"))
        else:
            given[name] = value
    query = None
    try:
        query = ListQuery.model_validate(given)
    except ValidationError as error:
        for found in error.errors(include_url=False, include_input=False):
            known = found["type"] != "extra_forbidden"
            sentence = found["msg"].removeprefix("Value error, ") if known else "there is no such parameter"
            wrong.append(FieldError(f"?{found['loc'][0]}", sentence))
    if wrong or query is None:
        raise Unprocessable("The query has invalid parameters.", errors=wrong)
    return query


def _read_timeline_cursor(cursor: str, lead_id: str) -> tuple[datetime, str, int]:
    at, event_id, position = parse_cursor(cursor, lead_id, 3)
    if not isinstance(event_id, str) or "\0" in event_id or type(position) is not int or not 0 <= position < 2**15:
        raise BadRequest("The cursor is damaged: start again without one.")
    return cursor_moment(at), event_id, position


def _page(items: bytes, cursor: str | None) -> bytes:
    return b'{"items":' + items + b',"next_cursor":' + orjson.dumps(cursor) + b"}"
