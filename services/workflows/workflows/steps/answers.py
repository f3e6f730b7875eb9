"""What another system answered: as an outcome, and as data that can be stored and read by later steps."""

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import orjson

from chassis.http import OutboundResponse
from chassis.redaction import redact
from workflows.steps.kinds import Failed, Outcome, Succeeded, Unknown
from workflows.steps.service_call import retry_after_seconds

MAX_BODY_CHARACTERS = 32 * 1024
MAX_DEPTH = 32
_KEPT_HEADERS = ("content-type", "location", "etag", "retry-after", "x-request-id")
_BUSY = frozenset({408, 425, 429})
_FROM_A_GATEWAY = frozenset({502, 504})


def to_outcome(answer: OutboundResponse, secrets: Mapping[str, str], *, may_have_worked: bool) -> Outcome:
    """2xx succeeded. A gateway's 502 or 504 does not say whether what is behind it did the work: unknown if repeating matters."""
    output = read_answer(answer, secrets)
    if 200 <= answer.status < 300:
        return Succeeded(output, status=answer.status)
    excerpt = output["body"] if isinstance(output["body"], str) else orjson.dumps(output["body"]).decode()
    error = f"answered {answer.status}: {excerpt[:300]}"
    if may_have_worked and answer.status in _FROM_A_GATEWAY:
        return Unknown(error, status=answer.status)
    return Failed(
        error,
        retryable=answer.status >= 500 or answer.status in _BUSY,
        status=answer.status,
        retry_after=retry_after_seconds(answer.headers.get("retry-after")),
    )


def read_answer(answer: OutboundResponse, secrets: Mapping[str, str]) -> dict[str, Any]:
    """`status`, some `headers`, and the `body` as JSON if it is, else as text; without our secrets, should it echo them."""
    text = answer.body.decode("utf-8", errors="replace")
    truncated = len(text) > MAX_BODY_CHARACTERS
    text = redact(text, secrets.values(), MAX_BODY_CHARACTERS)
    body: Any = text.replace("\0", "\ufffd")
    if not truncated:
        with suppress(orjson.JSONDecodeError):  # what is no JSON stays text
            body = _storable(orjson.loads(text), MAX_DEPTH) if text else None
    headers = {
        name: redact(answer.headers[name], secrets.values()).replace("\0", "")
        for name in _KEPT_HEADERS
        if name in answer.headers
    }
    return {"status": answer.status, "headers": headers, "body": body, "truncated": truncated}


def _storable(value: Any, depth: int) -> Any:
    """JSON that PostgreSQL's jsonb and our own answers can hold: no NUL, nothing endless or bottomless."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict | list) and depth == 0:
        return None
    if isinstance(value, dict):
        return {key.replace("\0", "\ufffd"): _storable(item, depth - 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_storable(item, depth - 1) for item in value]
    return value
