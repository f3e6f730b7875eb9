"""What this service takes from the bus: users into its slim copy, everything about leads into their timelines.

Consumers only write rows, in the inbox's transaction, many events at once.
"""

from collections.abc import Sequence

import msgspec

from chassis.consumer import Delivery, RejectEvent
from chassis.database import Database, Transaction
from chassis.events import MalformedEvent, decode_data
from leads import projections
from leads.projections import ExternalId, User
from leads.shown import LeadCache
from leads.timeline import CrmData, entries_of


class UserData(msgspec.Struct, frozen=True):
    """What is kept of a user.* event."""

    user_id: str
    name: str
    active: bool


async def copy_users(tx: Transaction, deliveries: Sequence[Delivery]) -> None:
    """Keep each user's newest state."""
    users = []
    for event in (delivery.event for delivery in deliveries):
        if event.subjectversion is None:
            raise MalformedEvent(f"{event.type} without subjectversion")
        data = decode_data(event, UserData)
        users.append(User(event.workspaceid, data.user_id, data.name, data.active, event.subjectversion))
    await projections.copy_users(tx.connection, users)


class TimelineConsumer:
    """Writes timelines and the CRMs' ids that leads show; afterwards, and only then, touches the cache."""

    def __init__(self, database: Database, cache: LeadCache) -> None:
        self._database = database
        self._cache = cache

    async def apply(self, tx: Transaction, deliveries: Sequence[Delivery]) -> None:
        """RejectEvent if an event names a lead that this service does not have."""
        entries = [entry for delivery in deliveries for entry in entries_of(delivery)]
        named = {(entry.workspace_id, entry.lead_id) for entry in entries}
        unknown = named - await projections.known_leads(tx.connection, named)
        if unknown:
            raise RejectEvent(f"no such lead: {', '.join(sorted(lead_id for _, lead_id in unknown))}")
        await projections.write_timeline(tx.connection, entries)
        if ids := _external_ids(deliveries):
            await projections.show_external_ids(tx.connection, ids)

    async def refresh_cache(self, deliveries: Sequence[Delivery]) -> None:
        """Hold the leads whose CRM ids changed as they are shown now."""
        for workspace_id, lead_id in sorted(
            {(found.workspace_id, found.lead_id) for found in _external_ids(deliveries)}
        ):
            async with self._database.acquire() as connection:
                lead = await projections.read_lead(connection, workspace_id, lead_id)
            if lead is not None:
                await self._cache.put(lead)


def _external_ids(deliveries: Sequence[Delivery]) -> list[ExternalId]:
    """The record each lead is at: a failure names it too, for a lead may lose its record to another one."""
    found = []
    for event in (delivery.event for delivery in deliveries if delivery.event.type.startswith("crm.lead.")):
        if event.subjectversion is None:
            raise MalformedEvent(f"{event.type} without subjectversion")
        data = decode_data(event, CrmData)
        found.append(
            ExternalId(event.workspaceid, data.lead_id, data.connection_id, data.external_id, event.subjectversion)
        )
    return found
