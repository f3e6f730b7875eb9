"""What all vendors' answers have in common."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from crm_sync.connectors.protocol import VendorAnswer, VendorError

MAX_MESSAGE = 500
MAX_TEXT = 200
MAX_RETRY_AFTER_SECONDS = 86_400.0
_ESCAPED_NUL = b"\\u0000"


def document_of(answer: VendorAnswer) -> dict[str, Any]:
    """The JSON object in an answer's body; empty if there is none, or one too deep to be walked through."""
    try:
        document = orjson.loads(answer.body)
        return object_of(_storable(document) if _ESCAPED_NUL in answer.body else document)
    except (orjson.JSONDecodeError, RecursionError):
        return {}


def _storable(value: Any) -> Any:
    """The same without NUL characters, which PostgreSQL holds in no text and no jsonb."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, dict):
        return {_storable(name): _storable(each) for name, each in value.items()}
    return [_storable(each) for each in value] if isinstance(value, list) else value


def object_of(value: Any) -> dict[str, Any]:
    """A member of an answer that should be an object; empty if it is something else."""
    return value if isinstance(value, dict) else {}


def objects_of(value: Any) -> list[dict[str, Any]]:
    """The objects in a member of an answer that should be a list of them."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def texts_of(value: Any) -> set[str]:
    """The texts in a member of an answer that should be a text or a list of them; numbers are taken as text."""
    listed = value if isinstance(value, list) else [value]
    return {str(each) for each in listed if isinstance(each, str | int)}


def retry_after(answer: VendorAnswer) -> float | None:
    """Seconds of a Retry-After header (RFC 9110, 10.2.3: a number or a date); None without a usable one."""
    text = answer.headers.get("retry-after", "").strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = parsedate_to_datetime(text)
        except ValueError:
            return None
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        seconds = (aware - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS) if seconds == seconds else None  # noqa: PLR0124 - NaN


def error_of(answer: VendorAnswer, otherwise: str) -> VendorError:
    """The error an answer describes, in its own words if it is JSON with a `message`, else in `otherwise`."""
    document = document_of(answer)
    message = document.get("message")
    words = message if isinstance(message, str) and message else f"{otherwise} (HTTP {answer.status})."
    return VendorError(
        message=words[:MAX_MESSAGE],
        category=text_of(document.get("category")) or text_of(document.get("errorType")),
        correlation_id=correlation_id(answer, document),
        status=answer.status,
    )


def text_of(value: Any) -> str | None:
    """A member of an answer that should be a short text, cut to MAX_TEXT; None if it is empty or something else."""
    return value[:MAX_TEXT] if isinstance(value, str) and value else None


def correlation_id(answer: VendorAnswer, document: dict[str, Any]) -> str | None:
    """The vendor's own id of this request, from the body or from the headers that usually carry one."""
    for candidate in (
        document.get("correlationId"),
        document.get("requestId"),
        answer.headers.get("x-hubspot-correlation-id"),
        answer.headers.get("x-request-id"),
    ):
        if isinstance(candidate, str) and candidate:
            return candidate[:128]
    return None
