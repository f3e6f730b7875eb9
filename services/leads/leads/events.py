"""What this service announces: one event for each change of a lead, written with it."""

from typing import Final, Literal

import msgspec

from chassis.clock import rfc3339
from chassis.context import current
from chassis.events import Event, new_event
from leads.changes import Change

SOURCE: Final = "/services/leads"
Kind = Literal["lead.created", "lead.updated", "lead.deleted", "lead.restored"]


def lead_event(kind: Kind, change: Change) -> Event:
    """The event of `change`, caused by whoever the running task works for. Its time is the lead's `updated_at`, so that one lead's
    events follow each other in time whichever replicas they come from."""
    lead = change.lead
    event = new_event(
        kind,
        source=SOURCE,
        workspace_id=lead.workspace_id,
        subject=lead.id,
        subject_version=lead.version,
        data={
            "lead": msgspec.Raw(lead.body),
            "changed": list(change.changed),
            "previous": dict(change.previous),
            "actor": current().origin,
        },
    )
    return msgspec.structs.replace(event, time=rfc3339(lead.updated_at))
