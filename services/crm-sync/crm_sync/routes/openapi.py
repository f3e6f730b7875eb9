"""Pieces of the OpenAPI document: bodies that routes parse themselves, examples, and error answers."""

from typing import Any

from pydantic import BaseModel, TypeAdapter

from chassis.problem_docs import ProblemDocs

CONNECTION_EXAMPLE = {
    "id": "conn_06d3v0c2m5w3f8k1x9q4t7r2ab",
    "name": "HubSpot",
    "vendor": "hubspot",
    "mode": "all",
    "on_delete": "keep",
    "time_zone": "Europe/Berlin",
    "settings": {"requests_per_10_seconds": 100, "requests_per_day": 250000},
    "credentials": {"kind": "access_token", "set_at": "2026-11-25T08:30:00.123Z"},
    "status": "active",
    "status_reason": None,
    "paused_until": None,
    "trouble": None,
    "account_id": "2519445",
    "verified_at": "2026-11-25T08:30:02.456Z",
    "backfilling": False,
    "mapping_version": 1,
    "version": 1,
    "created_at": "2026-11-25T08:30:00.123Z",
    "updated_at": "2026-11-25T08:30:00.123Z",
}
NEW_CONNECTION_EXAMPLE = {
    "name": "HubSpot",
    "vendor": "hubspot",
    "mode": "all",
    "credentials": {"access_token": "pat-eu1-00000000-0000-0000-0000-000000000000"},
}
MAPPING_INPUT_EXAMPLE = {
    "fields": [
        {"property": "email", "field": "email"},
        {"property": "plan", "field": "custom.plan"},
        {"property": "hs_lead_status", "field": "stage", "values": {"new": "NEW", "qualified": "IN_PROGRESS"}},
    ]
}
MAPPING_EXAMPLE = {"connection_id": "conn_06d3v0c2m5w3f8k1x9q4t7r2ab", "version": 2, **MAPPING_INPUT_EXAMPLE}
VERIFICATION_EXAMPLE = {
    "ok": True,
    "account_id": "2519445",
    "time_zone": "Europe/Berlin",
    "made": ["ao_lead_id"],
    "problems": [],
    "connection": CONNECTION_EXAMPLE,
}
SECRET_EXAMPLE = {
    "secret": "whsec_c2hvd24gb25jZSwgbmV2ZXIgYWdhaW4sIGFuZCBub3QgdGhpcyBvbmU=",
    "previous_valid_until": "2026-11-26T08:30:00.123Z",
}
ERROR_EXAMPLE = {
    "message": "Contact already exists. Existing ID: 37765128953",
    "category": "CONFLICT",
    "correlation_id": "2dea5219-07f2-40ce-82ec-9c2e302317a4",
    "status": 409,
    "external_id": "37765128953",
    "holder_lead_id": "lead_06d3v0c2m5w3f8k1x9q4t7r2cd",
}
STANDING_EXAMPLE = {
    "connection_id": "conn_06d3v0c2m5w3f8k1x9q4t7r2ab",
    "connection_name": "HubSpot",
    "vendor": "hubspot",
    "connection_status": "active",
    "paused_until": None,
    "lead_id": "lead_06d3v0c2m5w3f8k1x9q4t7r2ab",
    "desired_version": 3,
    "synced_version": 3,
    "state": "in_step",
    "external_id": "37765128953",
    "attempts": 0,
    "next_try_at": None,
    "last_error": None,
    "dead_letter_id": None,
    "dead_class": None,
    "updated_at": "2026-11-25T08:30:00.200Z",
}
DEAD_LETTER_EXAMPLE = {
    "id": "dl_06d3v0c2m5w3f8k1x9q4t7r2ab",
    "connection_id": "conn_06d3v0c2m5w3f8k1x9q4t7r2ab",
    "connection_name": "HubSpot",
    "vendor": "hubspot",
    "lead_id": "lead_06d3v0c2m5w3f8k1x9q4t7r2ab",
    "version": 3,
    "class": "duplicate_external",
    "error": ERROR_EXAMPLE,
    "attempts": 1,
    "dead_at": "2026-11-25T08:30:00.200Z",
}

problems = ProblemDocs(
    "/api/crm/connections",
    always=(401, 403, 503),
    own={
        403: ("forbidden", "Not allowed", "This needs the scope crm:write.", {}),
        404: ("not-found", "Not found", "There is no such connection in this workspace.", {}),
        409: ("conflict", "Conflict", "Another connection of this workspace has that name.", {}),
        412: ("precondition-failed", "Changed meanwhile", "The connection is at version 4 now.", {}),
        422: (
            "unprocessable",
            "Invalid input",
            "The request has invalid fields.",
            {"errors": [{"pointer": "/mapping/0/property", "detail": "HubSpot has no contact property 'plann'"}]},
        ),
    },
)


def example(status: int, document: Any, description: str) -> dict[int | str, dict[str, Any]]:
    """FastAPI's `responses` entry that gives the success answer an example."""
    return {status: {"description": description, "content": {"application/json": {"example": document}}}}


def json_body(
    *models: type[BaseModel], example: Any, media_types: tuple[str, ...] = (), required: bool = True
) -> dict[str, Any]:
    """`openapi_extra` of a route that reads its JSON body itself: one of `models`."""
    schemas = [TypeAdapter(model).json_schema() for model in models]
    schema = schemas[0] if len(schemas) == 1 else {"oneOf": schemas}
    content = {"schema": schema, "example": example}
    return {
        "requestBody": {"required": required, "content": dict.fromkeys(("application/json", *media_types), content)}
    }
