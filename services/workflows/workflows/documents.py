"""Pieces of the OpenAPI document: what is answered, examples, error answers. Nothing here runs while a request is served."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

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


class WorkflowDocument(DefinitionBody):
    """A workflow with its current definition; secrets are shown by id."""

    id: str
    version: int
    created_at: datetime
    updated_at: datetime
    archived_at: datetime | None


class WorkflowPage(BaseModel):
    """One page of workflows, newest first."""

    items: list[WorkflowDocument]
    next_cursor: str | None


class VersionDocument(DefinitionBody):
    """One version of a workflow."""

    version: int
    created_by: str
    created_at: datetime


class VersionPage(BaseModel):
    """One page of versions, newest first."""

    items: list[VersionDocument]
    next_cursor: str | None


class RunDocument(BaseModel):
    """A run. `iteration` counts passes from the start, `generation` an operator's retries of a step that was known to fail."""

    id: str
    workflow_id: str
    workflow_name: str
    version: int
    lead_id: str
    state: State
    error: str | None
    step_id: str = Field(description="Where the run stands.")
    iteration: int
    generation: int
    trigger: dict[str, Any]
    origin: str
    chain: list[str] = Field(
        description="The workflows and connections the run's cause came through, then the workflow itself."
    )
    waiting_for: str | None
    due_at: datetime | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class StartedWorkflowDocument(WorkflowDocument):
    """A new workflow, and its first run if `start` was given."""

    run: RunDocument | None = None


class RunPage(BaseModel):
    """One page of runs, newest first."""

    items: list[RunDocument]
    next_cursor: str | None


class AttemptDocument(BaseModel):
    """One outside call, or one look-up of what an earlier call did."""

    generation: int
    attempt: int
    purpose: str
    state: str
    status: int | None
    error: str | None
    started_at: datetime
    finished_at: datetime | None


class StepDocument(BaseModel):
    """A step of a run."""

    id: str
    type: str
    state: str
    iteration: int
    generation: int
    input: Any
    output: Any
    error: str | None
    due_at: datetime | None
    started_at: datetime
    finished_at: datetime | None
    attempts: list[AttemptDocument]


class RunDetail(RunDocument):
    """A run with its whole trigger and every step."""

    steps: list[StepDocument]


class Rates(BaseModel):
    """Runs begun and ended within a time."""

    started: int
    completed: int
    failed: int
    success_rate: float | None


class StatusDocument(BaseModel):
    """How a workflow is doing."""

    workflow_id: str
    name: str
    version: int
    archived_at: datetime | None
    runs: dict[str, Any]
    rates: dict[str, Rates]
    latest_run: RunDocument | None


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
