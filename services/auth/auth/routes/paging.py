"""Lists in pages: by creation time and id, so that a page begins where the last one ended whatever was added meanwhile."""

import hashlib
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Protocol, TypeVar

import orjson
from fastapi import Query

from auth.repository import Place
from chassis.clock import rfc3339
from chassis.errors import BadRequest
from chassis.parsing import cursor_moment, make_cursor, parse_cursor

_ID = re.compile(r"[a-z]+_[0-9a-z]{26}")

Limit = Annotated[int, Query(ge=1, le=200, description="Entries per page.")]
Cursor = Annotated[str | None, Query(max_length=512, description="`next_cursor` of the page before.")]


class Listed(Protocol):
    @property
    def id(self) -> str: ...

    @property
    def created_at(self) -> datetime: ...


_Entry = TypeVar("_Entry", bound=Listed)


def is_id(text: str) -> bool:
    """True if `text` has the form of an id: anything else names nothing."""
    return _ID.fullmatch(text) is not None


def question(*filters: Any) -> str:
    """What a cursor is bound to: the list's filters, in short."""
    return hashlib.sha256(orjson.dumps(filters)).hexdigest()[:16]


def place_of(cursor: str | None, asked: str) -> Place | None:
    """Where the page begins; BadRequest for a damaged cursor or one of another question."""
    if cursor is None:
        return None
    created_at, entry_id = parse_cursor(cursor, asked, 2)
    if not isinstance(entry_id, str) or not is_id(entry_id):
        raise BadRequest("The cursor is damaged: start again without one.")
    return cursor_moment(created_at), entry_id


def page(entries: Sequence[_Entry], limit: int, asked: str) -> tuple[Sequence[_Entry], str | None]:
    """The page's entries and the cursor of the next; `entries` were asked for with one more than `limit`."""
    shown = entries[:limit]
    if len(entries) <= limit:
        return shown, None
    return shown, make_cursor([rfc3339(shown[-1].created_at), shown[-1].id], asked)
