"""Bodies and cursors from outside: every way they can be wrong is a 4xx that says where."""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from chassis.clock import in_utc
from chassis.errors import BadRequest, FieldError, Unprocessable, UnsupportedMediaType

MAX_DEPTH = 32
MAX_ERRORS = 100
"""Wrong places that a problem names: a body of a megabyte can have half a million."""
_Model = TypeVar("_Model", bound=BaseModel)
_JSON = re.compile(r"^application/(?:[\w.+-]+\+)?json$")


def check_media_type(content_type: str) -> None:
    """UnsupportedMediaType unless it is `application/json` or a `+json` type (merge-patch+json among them)."""
    if not _JSON.match(content_type.partition(";")[0].strip().lower()):
        raise UnsupportedMediaType("The body must be JSON: send Content-Type: application/json.")


def parse_document(body: bytes, content_type: str = "application/json") -> dict[str, Any]:
    """The JSON object in `body`. BadRequest for malformed JSON, Unprocessable for what no field can hold (NUL, nesting)."""
    check_media_type(content_type)
    try:
        # orjson refuses NaN, infinities such as 1e999, lone surrogates and invalid UTF-8.
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The body is not valid JSON: {error}.") from error
    if not isinstance(document, dict):
        raise Unprocessable("The body must be a JSON object.", errors=[FieldError("", "must be an object")])
    errors: list[FieldError] = []
    _inspect(document, "", 1, errors)
    if errors:
        raise Unprocessable("The body holds something that cannot be stored.", errors=errors)
    return document


def parse_json(body: bytes, model: type[_Model], content_type: str = "application/json") -> _Model:
    """The body as `model`; Unprocessable lists its wrong fields by their pointers, the first MAX_ERRORS of them."""
    return validate(parse_document(body, content_type), model)


def validate(document: Mapping[str, Any], model: type[_Model]) -> _Model:
    """`document` as `model`; Unprocessable lists its wrong fields by their pointers, the first MAX_ERRORS of them."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise unprocessable(error.errors(include_url=False, include_input=False)) from error


def unprocessable(errors: Sequence[Any], *, skip: int = 0) -> Unprocessable:
    """Pydantic's errors as a problem; `skip` leading parts of each location are not part of the body."""
    return Unprocessable(
        "The request has invalid fields.",
        errors=[FieldError(pointer(error["loc"][skip:]), _sentence(error)) for error in errors[:MAX_ERRORS]],
    )


def pointer(location: Sequence[str | int]) -> str:
    """An RFC 6901 pointer: `("custom", "a/b")` -> `/custom/a~1b`."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in location)


def _sentence(error: Mapping[str, Any]) -> str:
    if error["type"] == "extra_forbidden":
        return f"unknown field {error['loc'][-1]!r}"
    message = str(error["msg"])
    return message.removeprefix("Value error, ")


def _inspect(value: Any, place: str, depth: int, errors: list[FieldError]) -> None:
    if len(errors) == MAX_ERRORS:
        return
    if depth > MAX_DEPTH:
        errors.append(FieldError(place, f"nested more than {MAX_DEPTH} deep"))
    elif isinstance(value, str):
        if "\0" in value:
            errors.append(FieldError(place, "must not contain NUL"))
    elif isinstance(value, dict):
        for key, inner in value.items():
            below = place + pointer((key,))
            if "\0" in key:
                errors.append(FieldError(place, "a name must not contain NUL"))
            else:
                _inspect(inner, below, depth + 1, errors)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            _inspect(inner, f"{place}/{number}", depth + 1, errors)


def make_cursor(values: Sequence[Any], filters: str) -> str:
    """An opaque cursor: where the last page ended, and which question it answered (`filters`, hashed by the caller)."""
    return base64.urlsafe_b64encode(orjson.dumps([filters, *values])).decode().rstrip("=")


def parse_cursor(cursor: str, filters: str, length: int) -> list[Any]:
    """The `length` values of a cursor; BadRequest if it is damaged or belongs to another question."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        parts = orjson.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, orjson.JSONDecodeError, ValueError) as error:
        raise BadRequest("The cursor is damaged: start again without one.") from error
    if not isinstance(parts, list) or len(parts) != length + 1:
        raise BadRequest("The cursor is damaged: start again without one.")
    if parts[0] != filters:
        raise BadRequest(
            "The cursor belongs to another list: keep filters and sort as they were, or start without one."
        )
    return parts[1:]


def cursor_moment(value: Any) -> datetime:
    """A time out of a cursor, in UTC; BadRequest if it is none."""
    try:
        return in_utc(datetime.fromisoformat(value))
    except (TypeError, ValueError) as error:
        raise BadRequest("The cursor is damaged: start again without one.") from error
