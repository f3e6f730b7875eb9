"""How the OpenAPI document describes operations: examples, bodies, error answers. Nothing here runs while a request is served."""

from typing import Any

from pydantic import BaseModel

from chassis.problem_docs import ProblemDocs
from workflows.bodies import DefinitionBody
from workflows.engine.run import State
from workflows.steps import STEP_TYPES

DEFINITION_EXAMPLE: dict[str, Any] = {
    "name": "Hot leads",
    "trigger": {"type": "event", "event": "lead.created", "condition": "lead.score >= 50"},
    "steps": [
        {
            "id": "owner",
            "type": "assign_owner",
            "users": ["user_06d3v0c2m5w3f8k1x9q4t7r2ab", "user_06d3v0c2m5w3f8k1x9q4t7r2ac"],
        },
        {"id": "stage", "type": "update_lead", "set": {"stage": "contacted"}},
        {
            "id": "notify",
            "type": "http_request",
            "url": "https://hooks.example.com/leads/{{ lead.id }}",
            "body": {"email": "{{ lead.email }}", "owner": "{{ steps.owner.owner_id }}"},
            "sign_with": {"secret_id": "sec_06d3v0c2m5w3f8k1x9q4t7r2ab"},
            "on_unknown": "retry",
        },
        {"id": "sync", "type": "sync_to_crm"},
    ],
    "allow_reentry": False,
}
WORKFLOW_EXAMPLE: dict[str, Any] = {
    "id": "wf_06d3v0c2m5w3f8k1x9q4t7r2ab",
    "version": 1,
    **DEFINITION_EXAMPLE,
    "created_at": "2026-11-25T08:30:00.123Z",
    "updated_at": "2026-11-25T08:30:00.123Z",
    "archived_at": None,
}
VERSION_EXAMPLE: dict[str, Any] = {
    "version": 1,
    **DEFINITION_EXAMPLE,
    "created_by": "user:user_06d3v0c2m5w3f8k1x9q4t7r2ab",
    "created_at": "2026-11-25T08:30:00.123Z",
}
RUN_EXAMPLE: dict[str, Any] = {
    "id": "run_06d3v0c2m5w3f8k1x9q4t7r2ab",
    "workflow_id": "wf_06d3v0c2m5w3f8k1x9q4t7r2ab",
    "workflow_name": "Hot leads",
    "version": 1,
    "lead_id": "lead_06d3v0c2m5w3f8k1x9q4t7r2ab",
    "state": "completed",
    "error": None,
    "step_id": "sync",
    "iteration": 0,
    "generation": 0,
    "trigger": {
        "type": "event",
        "event": "lead.created",
        "event_id": "evt_06d3v0c2m5w3f8k1x9q4t7r2ab",
        "time": "2026-11-25T08:30:00.123Z",
    },
    "origin": "user:user_06d3v0c2m5w3f8k1x9q4t7r2ab",
    "chain": ["wf_06d3v0c2m5w3f8k1x9q4t7r2ab"],
    "waiting_for": None,
    "due_at": None,
    "created_at": "2026-11-25T08:30:00.130Z",
    "started_at": "2026-11-25T08:30:00.132Z",
    "finished_at": "2026-11-25T08:30:00.190Z",
}
RUN_DETAIL_EXAMPLE: dict[str, Any] = {
    **RUN_EXAMPLE,
    "steps": [
        {
            "id": "stage",
            "type": "update_lead",
            "state": "succeeded",
            "iteration": 0,
            "generation": 0,
            "input": {"set": {"stage": "contacted"}},
            "output": {"version": 3},
            "error": None,
            "due_at": None,
            "started_at": "2026-11-25T08:30:00.140Z",
            "finished_at": "2026-11-25T08:30:00.152Z",
            "attempts": [
                {
                    "generation": 0,
                    "attempt": 1,
                    "purpose": "call",
                    "state": "succeeded",
                    "status": 200,
                    "error": None,
                    "started_at": "2026-11-25T08:30:00.140Z",
                    "finished_at": "2026-11-25T08:30:00.152Z",
                }
            ],
        }
    ],
}
_NO_RUNS = {state.value: 0 for state in State}
STATUS_EXAMPLE: dict[str, Any] = {
    "workflow_id": "wf_06d3v0c2m5w3f8k1x9q4t7r2ab",
    "name": "Hot leads",
    "version": 1,
    "archived_at": None,
    "runs": {"total": 13, "by_state": {**_NO_RUNS, "completed": 12, "waiting": 1}},
    "rates": {
        "last_hour": {"started": 2, "completed": 2, "failed": 0, "success_rate": 1.0},
        "last_24_hours": {"started": 13, "completed": 12, "failed": 0, "success_rate": 1.0},
    },
    "latest_run": RUN_EXAMPLE,
}

problems = ProblemDocs(
    "/api/workflows",
    always=(401, 403, 422, 503),
    own={
        403: (
            "forbidden",
            "Not allowed",
            "This needs the scope workflows:write.",
            {"required_scope": "workflows:write"},
        ),
        404: ("workflow-not-found", "No such workflow", "There is no such workflow.", {}),
        409: (
            "workflow-name-taken",
            "Name taken",
            "A workflow with this name exists.",
            {"existing_id": "wf_06d3v0c2m5w3f8k1x9q4t7r2ab"},
        ),
        412: ("version-stale", "Changed meanwhile", "The workflow is at version 4 now.", {"version": 4}),
        422: (
            "definition-invalid",
            "The definition cannot be saved",
            "One place in the definition must be put right.",
            {"errors": [{"pointer": "/steps/1/set", "detail": "lead has no field 'scores'"}]},
        ),
    },
)
NOT_MODIFIED: dict[str, Any] = {"description": "`If-None-Match` names what would be answered."}
_ETAG = {"ETag": {"schema": {"type": "string"}, "description": 'Strong: `"<version>"`, `"<version>.archived"`.'}}


def answer(status: int, description: str, example: Any, *, tagged: bool = False) -> dict[int | str, dict[str, Any]]:
    """FastAPI's `responses` entry of a success answer: its example, and its ETag if it is `tagged`."""
    content = {"application/json": {"example": example}}
    return {status: {"description": description, "headers": _ETAG if tagged else {}, "content": content}}


def json_body(model: type[BaseModel], example: Any, *, required: bool = True) -> dict[str, Any]:
    """`openapi_extra` of a route that reads its JSON body itself."""
    content = {"application/json": {"schema": _schema(model), "example": example}}
    return {"requestBody": {"required": required, "content": content}}


def definition_body(model: type[DefinitionBody], example: Any) -> dict[str, Any]:
    """The same for a definition: its steps described type by type."""
    body = json_body(model, example)
    steps = body["requestBody"]["content"]["application/json"]["schema"]["properties"]["steps"]
    steps["items"] = {"oneOf": [_schema(step) for step in STEP_TYPES.values()]}
    return body


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    """The model's JSON schema without references: one inside an operation has no place of its own to refer to."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def resolved(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return resolved(definitions[node["$ref"].rpartition("/")[2]])
            return {key: resolved(value) for key, value in node.items()}
        return [resolved(item) for item in node] if isinstance(node, list) else node

    found: dict[str, Any] = resolved(schema)
    return found
