"""What HubSpot says when it does not do what it was asked. Statuses: developers.hubspot.com/docs/api-reference/error-handling."""

import time
from typing import Any

from simulators.faults import AnswerRateLimit, AnswerStatus, ExpireToken, Silent
from simulators.hubspot.calls import Answer
from simulators.hubspot.errors import HubSpotError, RateLimited, TokenExpired
from simulators.hubspot.times import iso

# Answered by the network in front of HubSpot, not by HubSpot: a page, no JSON.
_PAGES = {502: "Bad gateway", 503: "Service unavailable", 504: "Gateway time-out", 524: "A timeout occurred"}

_WORDS = {
    400: ("VALIDATION_ERROR", "Invalid input (details will vary based on the error)"),
    401: (
        "INVALID_AUTHENTICATION",
        "Authentication credentials not found. This API supports OAuth 2.0 authentication and you can find more details "
        "at https://developers.hubspot.com/docs/methods/auth/oauth-overview",
    ),
    403: (
        "MISSING_SCOPES",
        "This app hasn't been granted all required scopes to make this call. "
        "Read more about required scopes here: https://developers.hubspot.com/scopes.",
    ),
    404: ("OBJECT_NOT_FOUND", "resource not found"),
    423: ("LOCKED", "The resource is locked; wait at least 2 seconds."),
    477: ("MIGRATION_IN_PROGRESS", "This account is being migrated to another data center."),
    500: ("INTERNAL_ERROR", "internal error"),
}


def refusal(effect: AnswerStatus | AnswerRateLimit | ExpireToken, correlation_id: str) -> Answer:
    """The answer to a request that was not carried out."""
    if isinstance(effect, AnswerRateLimit):
        return failed(RateLimited(effect.policy, in_older_shape=effect.older_shape), correlation_id)
    if isinstance(effect, ExpireToken):
        return failed(TokenExpired(1, iso(time.time() - 1)), correlation_id)
    if effect.body is not None:
        return Answer(effect.status, effect.body, effect.headers)
    if effect.status in _PAGES:
        page = f"<html><head><title>{effect.status}: {_PAGES[effect.status]}</title></head><body></body></html>"
        return Answer(effect.status, page, {"Content-Type": "text/html; charset=UTF-8"} | dict(effect.headers))
    category, message = _WORDS.get(effect.status, ("ERROR", "an error on demand"))
    body = {"status": "error", "message": message, "correlationId": correlation_id, "category": category}
    wait = {"Retry-After": "2"} if effect.status == 477 else {}
    return Answer(effect.status, body, wait | dict(effect.headers))


def failed(error: HubSpotError, correlation_id: str) -> Answer:
    return Answer(error.status, error.body(correlation_id), error.headers)


def silenced(effect: Silent, answer: Answer) -> Answer:
    """The same 2xx with less in it. A single record's answer loses everything, or its id."""
    if not isinstance(answer.body, dict):
        return answer
    if "results" not in answer.body:
        left = {name: value for name, value in answer.body.items() if name != "id"} if effect.lose == "ids" else {}
        return Answer(answer.status, left, answer.headers)
    results: list[dict[str, Any]] = answer.body["results"]
    if effect.lose == "results":
        kept = []
    elif effect.lose == "ids":
        kept = [{name: value for name, value in result.items() if name != "id"} for result in results]
    else:
        kept = [result for position, result in enumerate(results) if position not in effect.lose]
    return Answer(answer.status, answer.body | {"results": kept}, answer.headers)


def nothing_done(operation: str) -> Answer:
    """The 2xx of work that was never begun."""
    if "batch" not in operation and operation != "contacts.search":
        return Answer(200, {})
    now = iso(time.time())
    return Answer(200, {"status": "COMPLETE", "results": [], "startedAt": now, "completedAt": now})
