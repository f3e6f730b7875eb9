"""Calls to this house's own services: repeated with the same key until there is an answer, which is safe because they dedupe by it."""

from typing import Any

import orjson

from chassis.errors import Unavailable
from chassis.http import OutboundFailed
from workflows.engine.retry import RetryPolicy
from workflows.steps.kinds import Call, Failed, Outcome, Succeeded, Unknown

SERVICE_RETRY = RetryPolicy(attempts=14, backoff="1s")
"""About half an hour: a service of ours that restarts, or is overloaded, must not end a run."""

TIMEOUT_SECONDS = 10.0


async def call_service(call: Call, method: str, path: str, body: dict[str, Any]) -> Outcome:
    """The answer as an Outcome; a 2xx body is the output. The key is the effect's, prefixed as services' keys are."""
    try:
        answer = await call.services.request(
            method,
            path,
            workspace_id=call.workspace_id,
            json=body,
            idempotency_key=f"svc:{call.key}",
            timeout=TIMEOUT_SECONDS,
        )
    except Unavailable as error:
        return Failed(error.detail, retryable=True)
    except OutboundFailed as error:
        return Unknown(str(error)) if error.sent else Failed(str(error), retryable=True)
    if answer.is_success:
        return Succeeded(_json_object(answer.content), status=answer.status_code)
    return Failed(
        f"{method} {path} answered {answer.status_code}: {_reason(answer.content)}",
        # 409 with Retry-After: the first request with our key is still running. 401: a token that just ran out.
        retryable=answer.status_code >= 500 or answer.status_code in (401, 408, 425, 429) or _is_busy(answer),
        status=answer.status_code,
        retry_after=retry_after_seconds(answer.headers.get("retry-after")),
    )


def _is_busy(answer: Any) -> bool:
    return answer.status_code == 409 and "retry-after" in answer.headers


def retry_after_seconds(header: str | None) -> float | None:
    """Retry-After in its seconds form (RFC 9110, 10.2.3); the date form is treated as not given."""
    return float(header) if header is not None and header.isdecimal() else None


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def _reason(body: bytes) -> str:
    """The problem's own words, with the fields it complains about."""
    problem = _json_object(body)
    fields = "; ".join(
        f"{error.get('pointer')}: {error.get('detail')}"
        for error in problem.get("errors", [])
        if isinstance(error, dict)
    )
    text = str(problem.get("detail") or body[:200].decode(errors="replace"))
    return f"{text} ({fields})"[:500] if fields else text[:500]
