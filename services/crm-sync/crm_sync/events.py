"""What crm-sync announces: `crm.lead.synced` and `crm.lead.failed` (schemas in libs/contracts)."""

from collections.abc import Mapping, Sequence
from typing import Any

from chassis.clock import rfc3339
from chassis.context import Context
from chassis.events import MAX_CHAIN, Event, new_event
from crm_sync.models import Announcement, Attempt, Connection, Settlement

SOURCE = "/services/crm-sync"


def attempt_document(attempt: Attempt) -> dict[str, Any]:
    """One call as the contracts describe it (crm_attempt.json)."""
    return {
        "started_at": rfc3339(attempt.started_at),
        "finished_at": rfc3339(attempt.finished_at),
        "outcome": attempt.outcome,
        "status": attempt.status,
        "request_id": attempt.request_id,
        "error": attempt.error,
    }


def untold_attempts(settlement: Settlement) -> list[Mapping[str, Any]]:
    """The calls made since the lead's last event, this one included."""
    attempts = list(settlement.claim.attempt_log)
    if settlement.attempt is not None:
        attempts.append(attempt_document(settlement.attempt))
    return attempts


def settlement_event(
    connection: Connection, settlement: Settlement, announcement: Announcement, event_count: int
) -> Event:
    """The event that tells what became of a lead at a connection."""
    claim = settlement.claim
    return lead_event(
        workspace_id=connection.workspace_id,
        connection_id=connection.id,
        connection_name=connection.name,
        vendor=connection.vendor,
        lead_id=claim.lead_id,
        external_id=settlement.record_id,
        version=settlement.version,
        announcement=announcement,
        attempts=untold_attempts(settlement),
        event_count=event_count,
        cause=caused_by(connection.id, claim.chain, claim.request_id, claim.traceparent),
    )


def lead_event(
    *,
    workspace_id: str,
    connection_id: str,
    connection_name: str,
    vendor: str,
    lead_id: str,
    external_id: str | None,
    version: int,
    announcement: Announcement,
    attempts: Sequence[Mapping[str, Any]],
    event_count: int,
    cause: Context,
) -> Event:
    """`crm.lead.failed` if the announcement has a kind, else `crm.lead.synced`. Both name the record the lead is at now."""
    data: dict[str, Any] = {
        "connection_id": connection_id,
        "connection_name": connection_name,
        "vendor": vendor,
        "lead_id": lead_id,
        "external_id": external_id,
        "version": version,
        "operation": announcement.operation,
        "created": announcement.created,
        "request_id": announcement.request_id,
        "attempts": list(attempts),
    }
    if announcement.kind is not None:
        error = announcement.error
        data["kind"] = announcement.kind
        data["error"] = {
            "message": error.message if error else "",
            "category": error.category if error else None,
            "correlation_id": error.correlation_id if error else None,
        }
    return new_event(
        "crm.lead.failed" if announcement.kind is not None else "crm.lead.synced",
        source=SOURCE,
        workspace_id=workspace_id,
        subject=f"{connection_id}/{lead_id}",
        subject_version=event_count,
        data=data,
        context=cause,
    )


def caused_by(connection_id: str, chain: str, request_id: str | None, traceparent: str | None) -> Context:
    """The context of what a connection causes: its id ends the chain of what caused it, unless the chain is full or has it."""
    ids = tuple(filter(None, chain.split(",")))
    if connection_id not in ids and len(ids) < MAX_CHAIN:
        ids = (*ids, connection_id)
    return Context(request_id, f"connection:{connection_id}", ids, traceparent)
