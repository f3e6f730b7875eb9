"""Rows as the rest of the service sees them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from workflows.engine.run import State


@dataclass(frozen=True, slots=True)
class Workflow:
    """A workflow with its current definition."""

    workspace_id: str
    id: str
    version: int
    definition: Mapping[str, Any]
    created_at: datetime
    updated_at: datetime
    archived_at: datetime | None

    @property
    def name(self) -> str:
        return str(self.definition["name"])


@dataclass(frozen=True, slots=True)
class WorkflowVersion:
    """One version's definition, and who wrote it."""

    version: int
    definition: Mapping[str, Any]
    created_by: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class LeadSnapshot:
    """A lead as lead_view holds it."""

    workspace_id: str
    lead_id: str
    version: int
    deleted: bool
    lead: dict[str, Any]


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run about to be inserted, queued or suspended (then `error` says why)."""

    id: str
    workspace_id: str
    workflow_id: str
    version: int
    lead_id: str
    state: State
    error: str | None
    step_id: str
    trigger: Mapping[str, Any]
    origin: str
    chain: tuple[str, ...]
    request_id: str | None
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class Run:
    """A run's row, without what only its worker needs."""

    workspace_id: str
    id: str
    workflow_id: str
    workflow_name: str
    version: int
    lead_id: str
    state: State
    error: str | None
    step_id: str
    iteration: int
    generation: int
    trigger: Mapping[str, Any]
    origin: str
    chain: Sequence[str]
    waiting_for: str | None
    due_at: datetime | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One outside call of a step."""

    step_id: str
    iteration: int
    generation: int
    attempt: int
    purpose: str
    state: str
    status: int | None
    error: str | None
    started_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class RunStep:
    """A step of a run as its row has it."""

    step_id: str
    iteration: int
    generation: int
    type: str
    state: str
    input: Any
    output: Any
    error: str | None
    attempts: int
    due_at: datetime | None
    started_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Activity:
    """How a workflow's runs stand: counts by state, and how many began and ended lately."""

    by_state: Mapping[str, int]
    started_hour: int
    started_day: int
    completed_hour: int
    completed_day: int
    failed_hour: int
    failed_day: int
