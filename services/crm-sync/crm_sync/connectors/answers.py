"""What all vendors' answers have in common."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from crm_sync.connectors.protocol import VendorAnswer, VendorError

MAX_MESSAGE = 500
MAX_RETRY_AFTER_SECONDS = 86_400.0


def document_of(answer: VendorAnswer) -> dict[str, Any]:
    """The JSON object in an answer's body; empty if there is none."""
    try:
        document = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}


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
    category = document.get("category") or document.get("errorType")
    return VendorError(
        message=words[:MAX_MESSAGE],
        category=category if isinstance(category, str) else None,
        correlation_id=correlation_id(answer, document),
        status=answer.status,
    )


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
