"""What a client may put into a lead, checked field by field, and the same in the form in which it is stored."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from chassis.clock import rfc3339
from chassis.errors import FieldError, Unprocessable
from leads.changes import merge_patch
from leads.contact import ContactInvalid, normalise_email, normalise_phone
from leads.models import CLIENT_FIELDS, EMPTY_FIELDS, Lead, Stage

MAX_TAGS = 50
MAX_CUSTOM_BYTES = 16_384
MAX_CONSENT_BYTES = 4_096
MAX_MEMBERS = 100
MAX_DEPTH = 5
MAX_NUMBER: Final = 2**53
"""Beyond it JSON numbers lose digits in most readers (RFC 7493, section 2.2)."""
MIN_NUMBER: Final = 1e-30
"""PostgreSQL writes numbers without an exponent: what is nearer to zero takes hundreds of digits in every list."""


def _bounded(value: dict[str, Any], max_bytes: int) -> dict[str, Any]:
    stored: dict[str, Any] = _as_stored(value, 1)
    if len(orjson.dumps(stored)) > max_bytes:
        raise ValueError(f"has more than {max_bytes} bytes as JSON")
    return stored


def _as_stored(value: Any, depth: int) -> Any:
    """What PostgreSQL gives back for it: the same, but for minus zero. ValueError if it is out of bounds."""
    if depth > MAX_DEPTH:
        raise ValueError(f"is nested more than {MAX_DEPTH} deep")
    if isinstance(value, dict):
        if len(value) > MAX_MEMBERS:
            raise ValueError(f"has more than {MAX_MEMBERS} members in one object")
        if not all(1 <= len(name) <= 100 for name in value):
            raise ValueError("has a name that is empty or longer than 100 characters")
        return {name: _as_stored(inner, depth + 1) for name, inner in value.items()}
    if isinstance(value, list):
        return [_as_stored(inner, depth + 1) for inner in value]
    if isinstance(value, int | float) and abs(value) > MAX_NUMBER:
        raise ValueError("has a number beyond 2^53, which would lose digits: send it as text")
    if isinstance(value, float):
        if 0 < abs(value) < MIN_NUMBER:
            raise ValueError(f"has a number nearer to zero than {MIN_NUMBER}: send it as text")
        return value + 0.0
    return value


def _none_if_empty(value: str | None) -> str | None:
    return value or None


def _each_once(value: list[str] | None) -> list[str] | None:
    return value if value is None else list(dict.fromkeys(value))


_Line = Annotated[
    Annotated[str, StringConstraints(strip_whitespace=True, max_length=200)] | None, AfterValidator(_none_if_empty)
]
_Tag = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64)]


class LeadInput(BaseModel):
    """What a client sends about a lead. One of `email` and `phone` is needed; null, or "" for a text, empties a field."""

    model_config = ConfigDict(extra="forbid", strict=True)

    email: _Line = Field(
        None, description="Stored with its domain in lower case; compared in lower case.", examples=["ada@example.com"]
    )
    phone: _Line = Field(
        None,
        description="Stored in E.164; without a leading + it is read as a number of the workspace's default region.",
        examples=["+14155550100"],
    )
    first_name: _Line = Field(None, examples=["Ada"])
    last_name: _Line = Field(None, examples=["Lovelace"])
    company: _Line = Field(None, examples=["Analytical Engines"])
    title: _Line = Field(None, description="What the person does there.", examples=["Countess"])
    source: _Line = Field(None, description="Where the lead came from.", examples=["web"])
    stage: Stage | None = Field(None, description="`new` if not given.", examples=["new"])
    score: Annotated[int, Field(ge=0, le=100)] | None = Field(None, description="0 if not given.", examples=[70])
    owner_id: _Line = Field(None, description="An active user of the workspace.", examples=[None])
    tags: Annotated[list[_Tag], Field(max_length=MAX_TAGS)] | None = Field(None, examples=[["vip"]])
    custom: dict[str, Any] | None = Field(
        None,
        description=f"Your own fields: at most {MAX_CUSTOM_BYTES} bytes as JSON, {MAX_DEPTH} deep.",
        examples=[{"plan": "pro"}],
    )
    consent: dict[str, Any] | None = Field(
        None, description="What the person agreed to, by purpose or channel.", examples=[{"email": True}]
    )


class LeadChange(LeadInput):
    """What a client sends to change a lead. What the system sets may come along, as it does when an answer is sent back."""

    id: str | None = Field(None, description="Ignored if equal.")
    version: int | None = Field(None, description="Ignored if equal.")
    created_at: str | None = Field(None, description="Ignored if equal.")
    updated_at: str | None = Field(None, description="Ignored if equal.")
    external_ids: dict[str, str] | None = Field(None, description="Read-only: ignored if the lead has these ids.")


def new_fields(given: LeadInput, region: str) -> dict[str, Any]:
    """All of CLIENT_FIELDS: what was given, normalised, and the rest empty."""
    return _complete(EMPTY_FIELDS, _normalised(given, {}, region))


def replaced_fields(lead: Lead, given: LeadInput, region: str) -> dict[str, Any]:
    """What was given and the rest empty. A contact that is the lead's already is not judged again."""
    contact = {name: lead.fields[name] for name in ("email", "phone")}
    return _complete(EMPTY_FIELDS, _normalised(given, contact, region))


def patched_fields(lead: Lead, given: LeadInput, region: str) -> dict[str, Any]:
    """The lead's fields with what was given merged in (RFC 7396). What was not given is not judged again."""
    return _complete(lead.fields, _normalised(given, lead.fields, region))


def needs_region(given: LeadInput) -> bool:
    """True if the phone was not given in international form."""
    return given.phone is not None and not given.phone.startswith("+")


def check_read_only(lead: Lead, given: LeadChange) -> None:
    """Unprocessable if a field that the system sets was given with another value than the lead's."""
    wrong = [
        FieldError(f"/{name}", "is set by the system; leave it out or send it as it is")
        for name, current in (("id", lead.id), ("version", lead.version))
        if getattr(given, name) not in (None, current)
    ]
    for name, moment in (("created_at", lead.created_at), ("updated_at", lead.updated_at)):
        text = getattr(given, name)
        if text is not None and not _same_moment(text, moment):
            wrong.append(FieldError(f"/{name}", f"is set by the system and is {rfc3339(moment)}"))
    if not (given.external_ids or {}).items() <= lead.external_ids.items():
        wrong.append(FieldError("/external_ids", "is read-only: it shows where the CRMs hold the lead"))
    if wrong:
        raise Unprocessable("The request sets what the system sets.", errors=wrong)


def _normalised(given: LeadInput, before: Mapping[str, Any], region: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    wrong: list[FieldError] = []
    for name in CLIENT_FIELDS:
        if name not in given.model_fields_set:
            continue
        value = getattr(given, name)
        try:
            fields[name] = EMPTY_FIELDS[name] if value is None else _normalise(name, value, before.get(name), region)
        except (ContactInvalid, ValueError) as error:
            wrong.append(FieldError(f"/{name}", str(error)))
    if wrong:
        raise Unprocessable("The request has invalid fields.", errors=wrong)
    return fields


def _normalise(name: str, value: Any, before: Any, region: str) -> Any:
    match name:
        case "email":
            return value if value == before else normalise_email(value)
        case "phone":
            return value if value == before else normalise_phone(value, region)
        case "tags":
            return _each_once(value)
        case "custom":
            return _bounded(merge_patch(before, value), MAX_CUSTOM_BYTES)
        case "consent":
            return _bounded(merge_patch(before, value), MAX_CONSENT_BYTES)
    return value


def _complete(base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    fields = {**base, **given}
    if fields["email"] is None and fields["phone"] is None:
        raise Unprocessable(
            "A lead needs an e-mail or a phone.", errors=[FieldError("/email", "an e-mail or a phone is needed")]
        )
    return fields


def _same_moment(text: str, moment: datetime) -> bool:
    try:
        return datetime.fromisoformat(text) == moment
    except (ValueError, TypeError):
        return False
