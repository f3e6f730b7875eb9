"""Pieces of the OpenAPI document: what is answered, examples, and error answers. Nothing here runs while a request is served."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from chassis.problem_docs import ProblemDocs
from leads.fields import LeadInput
from leads.models import Stage

# FastAPI leaves null members out of the document, so the examples have none.
LEAD_EXAMPLE: dict[str, Any] = {
    "id": "lead_06d3v0c2m5w3f8k1x9q4t7r2ab",
    "email": "ada@example.com",
    "phone": "+14155550100",
    "first_name": "Ada",
    "last_name": "Lovelace",
    "company": "Analytical Engines",
    "title": "Countess",
    "source": "web",
    "stage": "new",
    "score": 70,
    "owner_id": "user_06d3v0c2m5w3f8k1x9q4t7r2ab",
    "tags": ["vip"],
    "custom": {"plan": "pro"},
    "consent": {"email": True},
    "external_ids": {"conn_06d3v0c2m5w3f8k1x9q4t7r2ab": "37765128953"},
    "version": 1,
    "created_at": "2026-11-25T08:30:00.123Z",
    "updated_at": "2026-11-25T08:30:00.123Z",
}
CURSOR_EXAMPLE = "WyI1ZTNkYjA2YyIsIjIwMjYtMTEtMjVUMDg6MzA6MDAuMTIzWiIsImxlYWRfMDZkIl0"
INPUT_EXAMPLE: dict[str, Any] = {name: LEAD_EXAMPLE[name] for name in LeadInput.model_fields if name != "owner_id"}
TIMELINE_EXAMPLE: dict[str, Any] = {
    "items": [
        {
            "at": "2026-11-25T08:30:00.123Z",
            "kind": "change",
            "action": "updated",
            "actor": "user:user_06d3v0c2m5w3f8k1x9q4t7r2ab",
            "version": 2,
            "changes": [{"field": "stage", "old": "new", "new": "contacted"}],
        },
        {
            "at": "2026-11-25T08:30:00.123Z",
            "kind": "event",
            "event_id": "evt_06d3v0c2m5w3f8k1x9q4t7r2ab",
            "type": "lead.updated",
            "source": "/services/leads",
            "origin": "user:user_06d3v0c2m5w3f8k1x9q4t7r2ab",
            "chain": [],
            "request_id": "req_06d3v0c2m5w3f8k1x9q4t7r2ab",
            "accepted_at": "2026-11-25T08:30:00.123Z",
            "published_at": "2026-11-25T08:30:00.127Z",
        },
    ],
    "next_cursor": CURSOR_EXAMPLE,
}


class LeadDocument(BaseModel):
    """A lead."""

    id: str
    email: str | None
    phone: str | None
    first_name: str | None
    last_name: str | None
    company: str | None
    title: str | None
    source: str | None
    stage: Stage
    score: int = Field(ge=0, le=100)
    owner_id: str | None
    tags: list[str]
    custom: dict[str, Any]
    consent: dict[str, Any]
    external_ids: dict[str, str] = Field(
        description="The lead's id in the CRM behind each connection. Read-only; it arrives without a new `version`."
    )
    version: int
    created_at: datetime
    updated_at: datetime


class LeadPage(BaseModel):
    """One page of leads."""

    items: list[LeadDocument]
    next_cursor: str | None


class TimelineItem(BaseModel):
    """One thing that happened; what else it holds depends on `kind`."""

    model_config = ConfigDict(extra="allow")

    at: datetime
    kind: Literal["change", "event", "run", "step", "crm_attempt", "crm"]


class TimelinePage(BaseModel):
    """One page of a lead's timeline, oldest first."""

    items: list[TimelineItem]
    next_cursor: str | None


problems = ProblemDocs(
    "/api/leads",
    always=(401, 403, 422, 503),
    own={
        403: ("forbidden", "Not allowed", "This needs the scope leads:write.", {"required_scope": "leads:write"}),
        404: ("not-found", "Not found", "There is no such lead.", {}),
        409: (
            "duplicate-lead",
            "Lead exists",
            "Another lead has this e-mail, or this phone and no e-mail.",
            {"existing_id": "lead_06d3v0c2m5w3f8k1x9q4t7r2ab"},
        ),
        412: ("precondition-failed", "Changed meanwhile", "The lead is at version 4 now.", {"version": 4}),
        422: (
            "unprocessable",
            "Invalid input",
            "The request has invalid fields.",
            {"errors": [{"pointer": "/score", "detail": "Input should be less than or equal to 100"}]},
        ),
    },
)
NOT_MODIFIED: dict[str, Any] = {"description": "`If-None-Match` names what would be answered."}
_ETAG = {"ETag": {"schema": {"type": "string"}, "description": 'Strong: `"<version>.<revision>"`.'}}


def answer(status: int, description: str, example: Any, *, tagged: bool = True) -> dict[int | str, dict[str, Any]]:
    """FastAPI's `responses` entry of a success answer: its example, and its ETag if it is `tagged`."""
    content = {"application/json": {"example": example}}
    return {status: {"description": description, "headers": _ETAG if tagged else {}, "content": content}}


def json_body(model: type[BaseModel], example: Any, *media_types: str) -> dict[str, Any]:
    """`openapi_extra` of a route that reads its JSON body itself."""
    content = {"schema": model.model_json_schema(), "example": example}
    return {"requestBody": {"required": True, "content": dict.fromkeys(("application/json", *media_types), content)}}
