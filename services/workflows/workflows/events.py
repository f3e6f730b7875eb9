"""The events of runs, and the slim models of the events this service reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from chassis.clock import rfc3339
from chassis.context import Context
from chassis.events import Event, new_event
from workflows.engine.run import State, StepState

SOURCE = "/services/workflows"
MAX_ERROR = 500

_TYPES = {
    State.RUNNING: "workflow.run.started",
    State.RETRYING: "workflow.run.started",
    State.WAITING: "workflow.run.waiting",
    State.NEEDS_ATTENTION: "workflow.run.waiting",
    State.SUSPENDED: "workflow.run.suspended",
    State.COMPLETED: "workflow.run.completed",
    State.FAILED: "workflow.run.failed",
    State.CANCELLED: "workflow.run.cancelled",
}


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What every event of a run says."""

    workspace_id: str
    run_id: str
    workflow_id: str
    workflow_name: str
    version: int
    lead_id: str
    chain: tuple[str, ...]
    request_id: str | None
    traceparent: str | None

    @property
    def origin(self) -> str:
        return f"workflow:{self.workflow_id}/{self.run_id}"

    def context(self) -> Context:
        """The context of everything the run does: its writes, its events."""
        return Context(self.request_id, self.origin, self.chain, self.traceparent)


def run_event(
    facts: RunFacts, state: State, number: int, *, error: str | None, steps: Sequence[Mapping[str, Any]] = ()
) -> Event:
    """What became of a run. `number` counts the run's events; `steps` are those finished since its last one."""
    return new_event(
        _TYPES[state],
        source=SOURCE,
        workspace_id=facts.workspace_id,
        subject=facts.run_id,
        subject_version=number,
        context=facts.context(),
        data={
            "run_id": facts.run_id,
            "workflow_id": facts.workflow_id,
            "workflow_name": facts.workflow_name,
            "workflow_version": facts.version,
            "lead_id": facts.lead_id,
            "state": state.value,
            "error": error,
            "steps": [step_outcome(step) for step in steps],
        },
    )


def step_outcome(step: Mapping[str, Any]) -> dict[str, Any]:
    """A row of run_steps as events tell it."""
    finished, error = step["finished_at"], step["error"]
    return {
        "step_id": step["step_id"],
        "type": step["type"],
        "outcome": StepState(step["state"]).value,
        "attempts": step["attempts"],
        "started_at": rfc3339(step["started_at"]),
        "finished_at": rfc3339(finished) if finished else None,
        "error": error[:MAX_ERROR] if error else None,
        "iteration": step["iteration"],
        "generation": step["generation"],
    }


class LeadChange(msgspec.Struct):
    """lead.*: the lead after the change, what changed, and the old values."""

    lead: dict[str, Any]
    changed: list[str]
    previous: dict[str, Any]


class CrmOutcome(msgspec.Struct):
    """crm.lead.*: which lead, in which connection. The rest is kept as it is."""

    connection_id: str
    lead_id: str


class UserStanding(msgspec.Struct):
    """user.*"""

    user_id: str
    name: str
    active: bool
