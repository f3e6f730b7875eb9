"""Error answers in a service's OpenAPI document: one schema, and an example for each status. Nothing here runs while serving."""

from collections.abc import Mapping
from typing import Any

SCHEMA: dict[str, Any] = {
    "title": "Problem",
    "description": "RFC 9457. `errors` is there for 422; single problems add members of their own.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance", "request_id"],
    "properties": {
        **{name: {"type": "string"} for name in ("type", "title", "detail", "instance", "request_id")},
        "status": {"type": "integer"},
        "errors": {
            "type": "array",
            "items": {"type": "object", "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}}},
        },
    },
}

Example = tuple[str, str, str, dict[str, Any]]
"""A problem's code, title, detail, and the members it adds."""

_COMMON: dict[int, Example] = {
    400: ("bad-request", "Bad request", "The body is not valid JSON.", {}),
    401: ("unauthorized", "Not signed in", "The access token has expired.", {}),
    413: ("payload-too-large", "Body too large", "The body may have at most 1048576 bytes.", {}),
    415: (
        "unsupported-media-type",
        "Unsupported media type",
        "The body must be JSON: send Content-Type: application/json.",
        {},
    ),
    503: ("unavailable", "Try again", "The database cannot be reached; try again.", {}),
}
_RETRY_LATER = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}


class ProblemDocs:
    """FastAPI's `responses` for a service's error answers: `problems(404, 422)`, those in `always` among them."""

    def __init__(self, instance: str, *, always: tuple[int, ...], own: Mapping[int, Example]) -> None:
        """`instance` is the example's path; `own` has the service's words for what only it can say."""
        self._instance = instance
        self._always = always
        self._examples = {**_COMMON, **own}

    def __call__(self, *statuses: int) -> dict[int | str, dict[str, Any]]:
        return {status: self._problem(status) for status in sorted({*statuses, *self._always})}

    def _problem(self, status: int) -> dict[str, Any]:
        code, title, detail, members = self._examples[status]
        example = {
            "type": f"/problems/{code}",
            "title": title,
            "status": status,
            "detail": detail,
            "instance": self._instance,
            "request_id": "req_06d3v0c2m5w3f8k1x9q4t7r2ab",
            **members,
        }
        return {
            "description": title,
            "headers": _RETRY_LATER if status in (429, 503) else {},
            "content": {"application/problem+json": {"schema": SCHEMA, "example": example}},
        }
