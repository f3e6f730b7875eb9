"""Pieces of the OpenAPI document: request bodies that routes parse themselves, examples, and error answers."""

from typing import Any

from pydantic import BaseModel

USER_EXAMPLE = {
    "id": "user_06d3v0c2m5w3f8k1x9q4t7r2ab",
    "email": "ada@example.com",
    "name": "Ada Lovelace",
    "role": "agent",
    "active": True,
    "version": 1,
    "created_at": "2026-11-25T08:30:00.123Z",
    "updated_at": "2026-11-25T08:30:00.123Z",
}
SESSION_EXAMPLE = {
    "id": "sess_06d3v0c2m5w3f8k1x9q4t7r2ab",
    "user_id": "user_06d3v0c2m5w3f8k1x9q4t7r2ab",
    "current": True,
    "address": "203.0.113.7",
    "user_agent": "curl/8.5.0",
    "created_at": "2026-11-25T08:30:00.123Z",
    "last_used_at": "2026-11-25T08:45:00.456Z",
    "expires_at": "2026-12-25T08:45:00.456Z",
}
TOKEN_EXAMPLE = {
    "access_token": "eyJhbGciOiJFZERTQSIsImtpZCI6Ii4uLiJ9.eyJzdWIiOiJ1c2VyXzA2ZCJ9.c2lnbmF0dXJl",
    "token_type": "bearer",
    "expires_in": 900,
    "scope": "leads:read workflows:read crm:read leads:write workflows:write",
    "refresh_token": "ws_06d3v0c2m5w3f8k1x9q4t7r2ab.sess_06d3v0c2m5w3f8k1x9q4t7r2ab.Zm9yLWV4YW1wbGUtb25seQ",
    "user": USER_EXAMPLE,
}

_PROBLEM_SCHEMA: dict[str, Any] = {
    "title": "Problem",
    "description": "RFC 9457. `errors` is there for 422; single problems add members of their own.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}
_PROBLEMS: dict[int, tuple[str, str, str]] = {
    400: ("bad-request", "Bad request", "The body is not valid JSON."),
    401: ("unauthorized", "Not signed in", "The access token has expired."),
    403: ("forbidden", "Not allowed", "This needs the scope admin."),
    404: ("not-found", "Not found", "There is no such user in this workspace."),
    409: ("conflict", "Conflict", "A user with this e-mail address exists."),
    412: ("precondition-failed", "Changed meanwhile", "The user is at version 4 now."),
    413: ("payload-too-large", "Body too large", "The body may have at most 1048576 bytes."),
    415: (
        "unsupported-media-type",
        "Unsupported media type",
        "The body must be JSON: send Content-Type: application/json.",
    ),
    422: ("unprocessable", "Invalid input", "The request has invalid fields."),
    429: ("too-many-attempts", "Too many failed sign-ins", "Too many failed sign-ins: wait 8 seconds before the next."),
    503: ("unavailable", "Try again", "The database cannot be reached; try again."),
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """FastAPI's `responses` for these error answers, 503 always among them, each with an example."""
    return {status: _problem(status) for status in sorted({*statuses, 503})}


def _problem(status: int) -> dict[str, Any]:
    code, title, detail = _PROBLEMS[status]
    example: dict[str, Any] = {
        "type": f"/problems/{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": "/api/auth/…",
        "request_id": "req_06d3v0c2m5w3f8k1x9q4t7r2ab",
    }
    if status == 422:
        example["errors"] = [{"pointer": "/email", "detail": "must be an e-mail address"}]
    headers = (
        {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}} if status in (429, 503) else {}
    )
    return {
        "description": title,
        "headers": headers,
        "content": {"application/problem+json": {"schema": _PROBLEM_SCHEMA, "example": example}},
    }


def example(status: int, document: Any, description: str) -> dict[int | str, dict[str, Any]]:
    """FastAPI's `responses` entry that gives the success answer an example."""
    return {status: {"description": description, "content": {"application/json": {"example": document}}}}


def json_body(model: type[BaseModel], document: Any, *media_types: str) -> dict[str, Any]:
    """`openapi_extra` of a route that reads its JSON body itself."""
    content = {"schema": model.model_json_schema(), "example": document}
    return {
        "requestBody": {
            "required": True,
            "content": dict.fromkeys(("application/json", *media_types), content),
        }
    }
