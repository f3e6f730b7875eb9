"""The list of leads: which filters and orders there are, and the statement and cursor that belong to them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from chassis.clock import in_utc, rfc3339
from chassis.errors import BadRequest
from chassis.parsing import cursor_moment, make_cursor, parse_cursor
from chassis.queries import load_queries
from leads.contact import normalise_email, normalise_phone
from leads.models import Stage

queries = load_queries("leads", "listing.sql")

MAX_LIMIT: Final = 200
MAX_WORDS: Final = 8
UNOWNED: Final = "none"
Moment = Annotated[AwareDatetime, AfterValidator(in_utc)]


def _few_words(text: str) -> str:
    if len(text.split()) > MAX_WORDS:
        raise ValueError(f"must be {MAX_WORDS} words or fewer")
    return text


Sort = Literal["created_at", "-created_at", "updated_at", "-updated_at", "score", "-score", "last_name", "-last_name"]


class ListQuery(BaseModel):
    """The query of `GET /api/leads`. A filter that may be repeated lists leads that have any of its values; `tag`, all of them."""

    model_config = ConfigDict(extra="forbid")

    q: Annotated[str, AfterValidator(_few_words)] | None = Field(
        None,
        max_length=200,
        description="Up to eight words, each of which name, e-mail, phone or company must contain.",
    )
    stage: list[Stage] = Field([], max_length=5)
    source: list[str] = Field([], max_length=20)
    owner_id: list[str] = Field([], max_length=20, description="`none` alone lists leads without an owner.")
    tag: list[str] = Field([], max_length=10)
    email: str | None = Field(None, max_length=320)
    phone: str | None = Field(
        None, max_length=64, description="As for a lead: E.164, or national in the default region."
    )
    company: str | None = Field(None, max_length=200, description="The whole name, in any case.")
    score_min: int | None = Field(None, ge=0, le=100)
    score_max: int | None = Field(None, ge=0, le=100)
    created_after: Moment | None = Field(None, description="Created then or later.")
    created_before: Moment | None = Field(None, description="Created earlier than that.")
    updated_after: Moment | None = Field(None, description="Changed then or later.")
    updated_before: Moment | None = Field(None, description="Not changed since that.")
    sort: Sort = Field("-created_at", description="`-` is descending. Only `created_at` never changes while you page.")
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] = 50
    cursor: str | None = Field(None, max_length=2000, description="`next_cursor` of the page before.")

    @property
    def key(self) -> str:
        """What a cursor is bound to: the filters and the order, hashed."""
        question = self.model_dump(mode="json", exclude={"limit", "cursor"})
        return hashlib.sha256(orjson.dumps(question)).hexdigest()[:16]


REPEATABLE: Final = frozenset(("stage", "source", "owner_id", "tag"))
_PLAIN: Final = (
    "score_min",
    "score_max",
    "created_after",
    "created_before",
    "updated_after",
    "updated_before",
)


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL and its parameters. `$1` is the workspace, `$2` the limit."""

    sql: str
    parameters: Sequence[Any]


def list_statement(query: ListQuery, workspace_id: str, region: str) -> Statement:
    """The statement of one page. BadRequest for a cursor that is damaged or of another list; ContactInvalid for a filter
    that is no e-mail or phone."""
    parameters: list[Any] = [workspace_id, query.limit]
    blocks = [_numbered(name, values, parameters) for name, values in _conditions(query, region)]
    field, way = query.sort.removeprefix("-"), "DESC" if query.sort.startswith("-") else "ASC"
    if query.cursor is not None:
        blocks.append(_numbered(f"after_{way.lower()}", _read_cursor(query), parameters))
    sql = (
        queries["list_leads"]
        .replace(":conditions", "\n".join(blocks))
        .replace(":sort", queries[f"sort_{field}"])
        .replace(":way", way)
    )
    return Statement(sql, parameters)


def next_cursor(query: ListQuery, last_value: Any, last_id: str) -> str:
    """The cursor after the page that ended with this sort value and id."""
    value = rfc3339(last_value) if isinstance(last_value, datetime) else last_value
    return make_cursor((value, last_id), query.key)


def _read_cursor(query: ListQuery) -> tuple[Any, str]:
    damaged = BadRequest("The cursor is damaged: start again without one.")
    value, lead_id = parse_cursor(query.cursor or "", query.key, 2)
    if not isinstance(lead_id, str) or "\0" in lead_id:
        raise damaged
    match query.sort.removeprefix("-"), value:
        case "score", int() if type(value) is int and 0 <= value <= 100:
            return value, lead_id
        case "last_name", str() if "\0" not in value:
            return value, lead_id
        case "created_at" | "updated_at", _:
            return cursor_moment(value), lead_id
    raise damaged


def _numbered(name: str, values: Sequence[Any], parameters: list[Any]) -> str:
    """The block `name` with its `$?` numbered on from `parameters`, which take up `values`."""
    text = queries[name]
    for value in values:
        parameters.append(value)
        text = text.replace("$?", f"${len(parameters)}", 1)
    return text


def _conditions(query: ListQuery, region: str) -> list[tuple[str, tuple[Any, ...]]]:
    """The blocks that apply and their values."""
    found: list[tuple[str, tuple[Any, ...]]] = []
    if query.owner_id == [UNOWNED]:
        found.append(("where_unowned", ()))
    elif query.owner_id:
        found.append(("where_owner_id", (query.owner_id,)))
    for name in ("stage", "source"):
        if values := getattr(query, name):
            found.append((f"where_{name}", (values,)))
    if query.tag:
        found.append(("where_tag", (orjson.dumps(query.tag).decode(),)))
    if query.email is not None:
        email = normalise_email(query.email).lower()
        found.append(("where_email", (email, _pattern(email))))
    if query.phone is not None:
        # A plus sign that was not percent-encoded arrives as a space.
        text = "+" + query.phone[1:] if query.phone.startswith(" ") else query.phone
        phone = normalise_phone(text, region)
        found.append(("where_phone", (phone, _pattern(phone))))
    if query.company is not None:
        found.append(("where_company", (query.company, f"%{_escaped(query.company)}%")))
    found += [(f"where_{name}", (getattr(query, name),)) for name in _PLAIN if getattr(query, name) is not None]
    found += [("where_word", (_pattern(word),)) for word in (query.q or "").split()]
    return found


def _pattern(word: str) -> str:
    """A word as an ILIKE pattern: its own `%`, `_` and backslash stand for themselves; a phone is searched by its digits."""
    digits = "".join(filter(str.isdigit, word))
    if len(digits) >= 3 and not word.strip("+-().0123456789"):
        word = digits
    return f"%{_escaped(word)}%"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
