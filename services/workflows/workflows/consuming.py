"""What events do here: they refresh the slim copies, start workflows and wake runs, all in the transaction of their inbox rows.

Copies take the newest version only; triggers and waits take every event once, in any order, and judge it by its own data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chassis.consumer import Delivery
from chassis.database import Transaction
from chassis.events import Event, decode_data
from workflows import repository, run_repository
from workflows.catalogue import Catalogue, Plan
from workflows.engine.definition import EventTrigger
from workflows.engine.expression import bounded
from workflows.events import CrmOutcome, LeadChange, UserStanding
from workflows.models import LeadSnapshot, NewRun
from workflows.run_repository import WaitingRun
from workflows.starting import Cause, begin
from workflows.steps.wait_for_event import WaitForEvent


@dataclass(frozen=True, slots=True)
class Happening:
    """An event about a lead, read. `change` is set for lead.*, not for crm.lead.*."""

    event: Event
    lead_id: str
    version: int
    change: LeadChange | None
    connection_id: str | None


async def copy_users(tx: Transaction, deliveries: Sequence[Delivery]) -> None:
    """Queue workflows.users: who may own leads, and who left."""
    newest: dict[tuple[str, str], tuple[str, str, str, bool, int]] = {}
    for event in (delivery.event for delivery in deliveries):
        user = decode_data(event, UserStanding)
        row = (event.workspaceid, user.user_id, user.name, user.active, event.subjectversion or 0)
        key = row[:2]
        if key not in newest or newest[key][4] < row[4]:
            newest[key] = row
    await repository.copy_users(tx.connection, [newest[key] for key in sorted(newest)])


class EventsConsumer:
    """Queue workflows.events."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    async def apply(self, tx: Transaction, deliveries: Sequence[Delivery]) -> None:
        happenings = [_read(delivery.event) for delivery in deliveries]
        await _refresh_copies(tx, happenings)
        await self._start_runs(tx, [happening for happening in happenings if happening.change is not None])
        await self._wake_runs(tx, happenings)

    async def _start_runs(self, tx: Transaction, happenings: Sequence[Happening]) -> None:
        if not happenings:
            return
        matches = await self._matches(tx, happenings)
        if not matches:
            return
        live = await repository.hold_live_workflows(
            tx.connection, ((cause.workspace_id, plan.workflow_id) for plan, cause in matches)
        )
        starts = [(plan, cause) for plan, cause in matches if (cause.workspace_id, plan.workflow_id) in live]
        keys = [(cause.workspace_id, plan.workflow_id, cause.lead_id) for plan, cause in starts]
        recent = await run_repository.count_recent_starts(tx.connection, sorted(set(keys)))
        runs: list[NewRun] = []
        for key, (plan, cause) in zip(keys, starts, strict=True):
            run = begin(tx, plan, cause, recent[key])
            recent[key] += run.error is None
            runs.append(run)
        await run_repository.insert_runs(tx.connection, runs)

    async def _matches(self, tx: Transaction, happenings: Sequence[Happening]) -> list[tuple[Plan, Cause]]:
        workspaces = sorted({happening.event.workspaceid for happening in happenings})
        types = sorted({happening.event.type for happening in happenings})
        triggered = await repository.triggered_workflows(tx.connection, workspaces, types)
        matches = []
        for happening in happenings:
            event = happening.event
            for workflow_id, version in triggered.get((event.workspaceid, event.type), ()):
                plan = await self._catalogue.find(tx.connection, event.workspaceid, workflow_id, version)
                if _is_met(plan, happening):
                    cause = Cause(event.workspaceid, happening.lead_id, _trigger(happening), event.context())
                    matches.append((plan, cause))
        return matches

    async def _wake_runs(self, tx: Transaction, happenings: Sequence[Happening]) -> None:
        by_key: dict[tuple[str, str, str], list[Happening]] = {}
        for happening in happenings:
            key = happening.event.workspaceid, happening.lead_id, happening.event.type
            by_key.setdefault(key, []).append(happening)
        for run in await run_repository.waiting_runs(tx.connection, sorted(by_key)):
            plan = await self._catalogue.find(tx.connection, run.workspace_id, run.workflow_id, run.version)
            step = plan.graph.steps.get(run.step_id)
            if not isinstance(step, WaitForEvent):  # nobody here can judge the event: other runs must not pay for that
                await run_repository.look_again(tx.connection, run)
                continue
            for happening in by_key[run.workspace_id, run.lead_id, run.waiting_for]:
                if (wake := await self._accepts(tx, run, plan, step, happening)) is not None:
                    await run_repository.wake_run(tx.connection, run, wake)
                    break

    @staticmethod
    async def _accepts(
        tx: Transaction, run: WaitingRun, plan: Plan, step: WaitForEvent, happening: Happening
    ) -> dict[str, Any] | None:
        known = await repository.read_lead(tx.connection, run.workspace_id, run.lead_id)
        outputs = await run_repository.read_outputs(tx.connection, run.workspace_id, run.id, run.iteration)
        scope = {
            "lead": known.lead if known else {},
            "trigger": run.trigger,
            "steps": outputs,
            "run": {"id": run.id},
            "workflow": {"id": plan.workflow_id, "name": plan.name, "version": plan.version},
        }
        event = happening.event
        return step.accept(scope, {"type": event.type, "id": event.id, "time": event.time, "data": event.data})


def _read(event: Event) -> Happening:
    """MalformedEvent if the event lacks what its contract promises."""
    if event.type.startswith("crm."):
        outcome = decode_data(event, CrmOutcome)
        return Happening(event, outcome.lead_id, event.subjectversion or 0, None, outcome.connection_id)
    change = decode_data(event, LeadChange)
    return Happening(event, event.subject, event.subjectversion or 0, change, None)


async def _refresh_copies(tx: Transaction, happenings: Sequence[Happening]) -> None:
    """Lock every lead concerned, in one order, then take down what is newer."""
    await repository.lock_leads(tx.connection, sorted({(h.event.workspaceid, h.lead_id) for h in happenings}))
    leads: dict[tuple[str, str], Happening] = {}
    outcomes: dict[tuple[str, str, str], Happening] = {}
    for happening in happenings:
        place: Any = (happening.event.workspaceid, happening.lead_id)
        copies: dict[Any, Happening] = leads
        if happening.connection_id is not None:
            place, copies = (*place, happening.connection_id), outcomes
        if place not in copies or copies[place].version < happening.version:
            copies[place] = happening
    await repository.copy_leads(tx.connection, [_snapshot(leads[key]) for key in sorted(leads)])
    await repository.copy_crm(tx.connection, [_crm_row(outcomes[key]) for key in sorted(outcomes)])


def _snapshot(happening: Happening) -> LeadSnapshot:
    lead = happening.change.lead if happening.change else {}
    return LeadSnapshot(
        workspace_id=happening.event.workspaceid,
        lead_id=happening.lead_id,
        version=happening.version,
        deleted=happening.event.type == "lead.deleted",
        lead=lead,
    )


def _crm_row(happening: Happening) -> tuple[str, str, str, int, str, Mapping[str, Any]]:
    data = {key: value for key, value in happening.event.data.items() if key != "attempts"}
    connection_id = happening.connection_id or ""
    return happening.event.workspaceid, happening.lead_id, connection_id, happening.version, happening.event.type, data


def _is_met(plan: Plan, happening: Happening) -> bool:
    trigger, change = plan.definition.trigger, happening.change
    if change is None:
        return False
    if not isinstance(trigger, EventTrigger):  # one that cannot be read might be met: somebody has to see that
        return plan.unreadable is not None
    if trigger.condition is None:
        return True
    scope = bounded({"lead": change.lead, "changed": change.changed, "previous": change.previous})
    return trigger.condition.judge(scope).met


def _trigger(happening: Happening) -> dict[str, Any]:
    event, change = happening.event, happening.change
    return {
        "type": "event",
        "event": event.type,
        "event_id": event.id,
        "time": event.time,
        "lead": change.lead if change else {},
        "changed": change.changed if change else [],
        "previous": change.previous if change else {},
    }
