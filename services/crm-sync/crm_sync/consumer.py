"""Events of leads become copies and wishes. Only rows are written; who brings the leads over is woken afterwards."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from chassis.consumer import Delivery
from chassis.database import Transaction
from chassis.events import decode_data
from crm_sync.mapping import KEYED_FIELDS, LEAD_FIELDS
from crm_sync.models import ConnectionKey
from crm_sync.sync.repository import LeadCopy, take_leads

QUEUE = "crm-sync.leads"
_KEPT = (*LEAD_FIELDS, *KEYED_FIELDS, "updated_at")


class _Lead(msgspec.Struct):
    """The part of a lead we must understand; the rest is kept as it is."""

    id: str
    version: int


class _LeadChanged(msgspec.Struct):
    lead: _Lead


class LeadConsumer:
    """`apply` and `after_commit` of the consumer of lead events."""

    def __init__(self, wake: Callable[[Iterable[ConnectionKey]], None]) -> None:
        self._wake = wake
        self._touched: set[ConnectionKey] = set()

    async def apply(self, tx: Transaction, deliveries: Sequence[Delivery]) -> None:
        """Store the newest of each lead. Older ones, and the same one again, change nothing."""
        newest: dict[tuple[str, str], LeadCopy] = {}
        for delivery in deliveries:
            copy = copy_of(delivery)
            key = copy.workspace_id, copy.lead_id
            if key not in newest or newest[key].version < copy.version:
                newest[key] = copy
        self._touched |= await take_leads(tx.connection, [newest[key] for key in sorted(newest)])

    async def after_commit(self, _deliveries: Sequence[Delivery]) -> None:
        touched, self._touched = self._touched, set()
        self._wake(touched)


def copy_of(delivery: Delivery) -> LeadCopy:
    """What an event says of a lead. MalformedEvent if it does not say it."""
    event = delivery.event
    slim = decode_data(event, _LeadChanged).lead
    lead: dict[str, Any] = event.data["lead"]
    kept = {name: lead[name] for name in _KEPT if lead.get(name) not in (None, "", [], {})}
    return LeadCopy(
        workspace_id=event.workspaceid,
        lead_id=slim.id,
        version=slim.version,
        deleted=event.type == "lead.deleted",
        lead=msgspec.json.encode(kept).decode(),
        chain=event.chain,
        request_id=event.requestid,
        traceparent=event.traceparent,
    )
