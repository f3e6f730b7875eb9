"""A lead's timeline: what each event adds to it. Pure: events in, rows out.

Entries are `change` (who, which fields, old and new), `event` (accepted, published), `run` (a workflow run's state), `step` (outcome,
attempts, times), `crm_attempt` (one call: answer class, the vendor's request id) and `crm` (what came of it). Their order is the time
they tell of, then the event, then the position within it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import msgspec

from chassis.clock import rfc3339
from chassis.consumer import Delivery
from chassis.events import Event, MalformedEvent, decode_data

_Moment = Annotated[datetime, msgspec.Meta(tz=True)]


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a timeline; `document` is what the API shows of it."""

    workspace_id: str
    lead_id: str
    at: datetime
    event_id: str
    position: int
    kind: str
    document: dict[str, Any]


class LeadData(msgspec.Struct, frozen=True):
    """What the timeline reads of a lead.* event."""

    lead: dict[str, Any]
    changed: list[str]
    previous: dict[str, Any]
    actor: str


class StepData(msgspec.Struct, frozen=True):
    """A step that finished, as a workflow.run.* event tells of it."""

    step_id: str
    type: str
    outcome: str
    attempts: int
    started_at: _Moment | None
    finished_at: _Moment | None
    error: str | None
    iteration: int
    generation: int


class RunData(msgspec.Struct, frozen=True):
    """What the timeline reads of a workflow.run.* event."""

    run_id: str
    workflow_id: str
    workflow_name: str
    workflow_version: int
    lead_id: str | None
    state: str
    error: str | None
    steps: list[StepData]


class AttemptData(msgspec.Struct, frozen=True):
    """A call to a CRM, as a crm.lead.* event tells of it."""

    started_at: _Moment
    finished_at: _Moment | None
    outcome: str
    status: int | None
    request_id: str | None
    error: str | None


class CrmData(msgspec.Struct, frozen=True):
    """What the timeline reads of a crm.lead.* event; `kind` and `error` are there for failures only."""

    connection_id: str
    connection_name: str
    vendor: str
    lead_id: str
    external_id: str | None
    version: int
    operation: str
    attempts: list[AttemptData]
    created: bool | None
    request_id: str | None
    kind: str | None = None
    error: dict[str, Any] | None = None


_Draft = tuple[datetime, str, dict[str, Any]]


def entries_of(delivery: Delivery) -> list[Entry]:
    """The rows that this event adds, for the one lead it is about; none if it is about no lead. MalformedEvent if it does not fit."""
    event = delivery.event
    read = _READERS.get(event.type.split(".")[0])
    if read is None:
        raise MalformedEvent(f"{event.type} has no place in a timeline")
    try:
        lead_id, drafts = read(event)
        drafts = [*drafts, (_time(event), "event", _event_document(delivery))]
    except ValueError as error:
        raise MalformedEvent(f"{event.type}: {error}") from error
    if lead_id is None:
        return []
    return [
        Entry(
            workspace_id=event.workspaceid,
            lead_id=lead_id,
            at=at,
            event_id=event.id,
            position=position,
            kind=kind,
            document={"at": rfc3339(at), "kind": kind, **document},
        )
        for position, (at, kind, document) in enumerate(drafts)
    ]


def _event_document(delivery: Delivery) -> dict[str, Any]:
    event = delivery.event
    return {
        "event_id": event.id,
        "type": event.type,
        "source": event.source,
        "origin": event.origin,
        "chain": list(event.chain_ids),
        "request_id": event.requestid,
        "accepted_at": event.time,
        "published_at": rfc3339(delivery.published_at) if delivery.published_at else None,
    }


def _of_lead(event: Event) -> tuple[str, list[_Draft]]:
    data = decode_data(event, LeadData)
    document = {
        "action": event.type.removeprefix("lead."),
        "actor": data.actor,
        "version": event.subjectversion,
        "changes": [
            {"field": name, "old": data.previous.get(name), "new": data.lead.get(name)} for name in data.changed
        ],
    }
    return event.subject, [(_time(event), "change", document)]


def _of_run(event: Event) -> tuple[str | None, list[_Draft]]:
    data = decode_data(event, RunData)
    run = {
        "run_id": data.run_id,
        "workflow_id": data.workflow_id,
        "workflow_name": data.workflow_name,
        "workflow_version": data.workflow_version,
    }
    drafts = [
        (step.finished_at or step.started_at or _time(event), "step", {**run, **_with_text_times(step)})
        for step in data.steps
    ]
    return data.lead_id, [*drafts, (_time(event), "run", {**run, "state": data.state, "error": data.error})]


def _of_crm(event: Event) -> tuple[str, list[_Draft]]:
    data = decode_data(event, CrmData)
    about = {
        "connection_id": data.connection_id,
        "connection_name": data.connection_name,
        "vendor": data.vendor,
        "operation": data.operation,
        "version": data.version,
        "external_id": data.external_id,
    }
    drafts = [
        (attempt.finished_at or attempt.started_at, "crm_attempt", {**about, **_with_text_times(attempt)})
        for attempt in data.attempts
    ]
    result = {
        "state": data.kind or "synced",
        "created": data.created,
        "request_id": data.request_id,
        "error": data.error,
    }
    return data.lead_id, [*drafts, (_time(event), "crm", {**about, **result})]


def _time(event: Event) -> datetime:
    moment = event.occurred_at
    if moment.tzinfo is None:
        raise ValueError("a time without an offset")
    return moment


def _with_text_times(record: StepData | AttemptData) -> dict[str, Any]:
    fields = msgspec.structs.asdict(record)
    return {name: rfc3339(value) if isinstance(value, datetime) else value for name, value in fields.items()}


_READERS: dict[str, Callable[[Event], tuple[str | None, list[_Draft]]]] = {
    "lead": _of_lead,
    "workflow": _of_run,
    "crm": _of_crm,
}
