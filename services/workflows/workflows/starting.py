"""How a run begins, whoever starts it: an event or a person."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chassis.context import Context
from chassis.database import Transaction
from chassis.ids import new_id
from workflows.catalogue import Plan
from workflows.engine.guards import extend, refusal
from workflows.engine.run import State
from workflows.events import RunFacts, run_event
from workflows.metrics import RUNS_STARTED, RUNS_SUSPENDED
from workflows.models import NewRun


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a run begins: the trigger as steps read it, and the context it was caused in."""

    workspace_id: str
    lead_id: str
    trigger: Mapping[str, Any]
    context: Context


def begin(tx: Transaction, plan: Plan, cause: Cause, starts_last_hour: int) -> NewRun:
    """A new run, queued; or suspended, which is announced: by the guards, or where nobody here can read what it should do. The caller
    inserts it in the same transaction."""
    context = cause.context
    reason = _unreadable(plan) or refusal(
        plan.workflow_id,
        context.chain,
        allow_reentry=plan.definition.allow_reentry,
        starts_last_hour=starts_last_hour,
    )
    run = NewRun(
        id=new_id("run"),
        workspace_id=cause.workspace_id,
        workflow_id=plan.workflow_id,
        version=plan.version,
        lead_id=cause.lead_id,
        state=State.SUSPENDED if reason else State.QUEUED,
        error=reason,
        step_id=plan.graph.first,
        trigger=cause.trigger,
        origin=context.origin,
        chain=extend(context.chain, plan.workflow_id),
        request_id=context.request_id,
        traceparent=context.traceparent,
    )
    if reason:
        RUNS_SUSPENDED.labels(reason.partition(":")[0]).inc()
        tx.emit(run_event(_facts(run, plan), State.SUSPENDED, 1, error=reason))
    else:
        RUNS_STARTED.labels(str(cause.trigger["type"])).inc()
    return run


def _unreadable(plan: Plan) -> str | None:
    return f"definition: {plan.unreadable}" if plan.unreadable else None


def _facts(run: NewRun, plan: Plan) -> RunFacts:
    return RunFacts(
        workspace_id=run.workspace_id,
        run_id=run.id,
        workflow_id=run.workflow_id,
        workflow_name=plan.name,
        version=run.version,
        lead_id=run.lead_id,
        chain=run.chain,
        request_id=run.request_id,
        traceparent=run.traceparent,
    )
