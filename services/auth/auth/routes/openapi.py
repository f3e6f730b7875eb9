"""Pieces of the OpenAPI document: request bodies that routes parse themselves, examples, and error answers."""

from typing import Any

from pydantic import BaseModel

from chassis.problem_docs import ProblemDocs

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

problems = ProblemDocs(
    "/api/auth/…",
    always=(503,),
    own={
        403: ("forbidden", "Not allowed", "This needs the scope admin.", {}),
        404: ("not-found", "Not found", "There is no such user in this workspace.", {}),
        409: ("conflict", "Conflict", "A user with this e-mail address exists.", {}),
        412: ("precondition-failed", "Changed meanwhile", "The user is at version 4 now.", {}),
        422: (
            "unprocessable",
            "Invalid input",
            "The request has invalid fields.",
            {"errors": [{"pointer": "/email", "detail": "must be an e-mail address"}]},
        ),
        429: (
            "too-many-attempts",
            "Too many failed sign-ins",
            "Too many failed sign-ins: wait 8 seconds before the next.",
            {},
        ),
    },
)


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
