"""Workflows and runs as the API shows them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from chassis.clock import rfc3339
from workflows.models import Activity, Attempt, Run, RunStep, Workflow, WorkflowVersion


def _time(moment: datetime | None) -> str | None:
    return rfc3339(moment) if moment is not None else None


def workflow_document(workflow: Workflow) -> dict[str, Any]:
    """A workflow with its current definition; secrets by id."""
    return {
        "id": workflow.id,
        "version": workflow.version,
        **definition_document(workflow.definition),
        "created_at": rfc3339(workflow.created_at),
        "updated_at": rfc3339(workflow.updated_at),
        "archived_at": _time(workflow.archived_at),
    }


def definition_document(definition: Mapping[str, Any]) -> dict[str, Any]:
    """name, trigger, steps, allow_reentry."""
    return {name: definition[name] for name in ("name", "trigger", "steps", "allow_reentry")}


def version_document(version: WorkflowVersion) -> dict[str, Any]:
    """One version, and who wrote it when."""
    return {
        "version": version.version,
        **definition_document(version.definition),
        "created_by": version.created_by,
        "created_at": rfc3339(version.created_at),
    }


def run_document(run: Run) -> dict[str, Any]:
    """A run without its steps, as lists show it."""
    is_waiting = run.state.value in ("waiting", "retrying")
    return {
        "id": run.id,
        "workflow_id": run.workflow_id,
        "workflow_name": run.workflow_name,
        "version": run.version,
        "lead_id": run.lead_id,
        "state": run.state.value,
        "error": run.error,
        "step_id": run.step_id,
        "iteration": run.iteration,
        "generation": run.generation,
        "trigger": {name: run.trigger.get(name) for name in ("type", "event", "event_id", "time")},
        "origin": run.origin,
        "chain": list(run.chain),
        "waiting_for": run.waiting_for,
        "due_at": _time(run.due_at) if is_waiting else None,
        "created_at": rfc3339(run.created_at),
        "started_at": _time(run.started_at),
        "finished_at": _time(run.finished_at),
    }


def run_detail(run: Run, steps: Sequence[RunStep], attempts: Sequence[Attempt]) -> dict[str, Any]:
    """A run with the whole trigger, and every step with its input, output, attempts and times."""
    by_step: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for attempt in attempts:
        by_step.setdefault((attempt.iteration, attempt.step_id), []).append(_attempt_document(attempt))
    return {
        **run_document(run),
        "trigger": run.trigger,
        "steps": [_step_document(step, by_step.get((step.iteration, step.step_id), [])) for step in steps],
    }


def _step_document(step: RunStep, attempts: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": step.step_id,
        "type": step.type,
        "state": step.state,
        "iteration": step.iteration,
        "generation": step.generation,
        "input": step.input,
        "output": step.output,
        "error": step.error,
        "due_at": _time(step.due_at),
        "started_at": rfc3339(step.started_at),
        "finished_at": _time(step.finished_at),
        "attempts": attempts,
    }


def _attempt_document(attempt: Attempt) -> dict[str, Any]:
    return {
        "generation": attempt.generation,
        "attempt": attempt.attempt,
        "purpose": attempt.purpose,
        "state": attempt.state,
        "status": attempt.status,
        "error": attempt.error,
        "started_at": rfc3339(attempt.started_at),
        "finished_at": _time(attempt.finished_at),
    }


def status_document(workflow: Workflow, activity: Activity, latest: Run | None) -> dict[str, Any]:
    """How a workflow is doing: counts, rates, latest run."""
    return {
        "workflow_id": workflow.id,
        "name": workflow.name,
        "version": workflow.version,
        "archived_at": _time(workflow.archived_at),
        "runs": {"total": sum(activity.by_state.values()), "by_state": dict(activity.by_state)},
        "rates": {
            "last_hour": _rates(activity.started_hour, activity.completed_hour, activity.failed_hour),
            "last_24_hours": _rates(activity.started_day, activity.completed_day, activity.failed_day),
        },
        "latest_run": run_document(latest) if latest is not None else None,
    }


def _rates(started: int, completed: int, failed: int) -> dict[str, Any]:
    ended = completed + failed
    return {
        "started": started,
        "completed": completed,
        "failed": failed,
        "success_rate": round(completed / ended, 4) if ended else None,
    }
