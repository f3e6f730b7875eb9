"""What is answered, as the OpenAPI document describes it. Nothing here runs while a request is served."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from workflows.bodies import DefinitionBody
from workflows.engine.run import State


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
