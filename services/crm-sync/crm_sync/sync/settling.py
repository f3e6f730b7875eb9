"""Storing what became of claimed leads: states, links, events, in one transaction and behind the lease's fence."""

from collections.abc import Collection, Sequence
from datetime import datetime

from chassis.clock import utcnow
from chassis.database import Database
from chassis.logs import get_logger
from crm_sync.events import settlement_event
from crm_sync.models import Connection, Settlement
from crm_sync.sync import policy, repository
from crm_sync.sync.metrics import LEAD_TO_RECORD, SETTLED

log = get_logger()


async def settle_all(
    database: Database, connection: Connection, lease_token: str, settlements: Sequence[Settlement]
) -> None:
    """Store the settlements of the leads that are still held under `lease_token`; the others are somebody else's by now."""
    key = connection.key
    async with database.transaction() as tx:
        held = await repository.hold_claims(tx.connection, key, lease_token, settlements)
        if len(held) < len(settlements):
            log.warning("lose-claims", connection_id=connection.id, leads=len(settlements) - len(held))
        if not held:
            return
        leaving = sorted(each.claim.lead_id for each in held if each.release or each.link is not None)
        if leaving:
            await repository.release_links(tx.connection, key, leaving)
        links = [(each.claim.lead_id, each.link) for each in held if each.link is not None]
        holders = await repository.insert_links(tx.connection, key, links) if links else {}
        overwritten = set(holders.values())
        if overwritten:
            # The call went to a record that is another lead's by now: that lead's own data goes over it again.
            await repository.write_again(tx.connection, key, sorted(overwritten), lease_token)
        final = [_final(each, holders.get(each.claim.lead_id), overwritten) for each in held]
        counts = await repository.settle(tx.connection, key, lease_token, connection.mapping_version, final)
        for each in final:
            if each.announcement is not None:
                tx.emit(settlement_event(connection, each, each.announcement, counts[each.claim.lead_id]))
    for each in final:
        SETTLED.labels(connection.vendor, connection.id, each.dead_kind or each.state.value).inc()
        _measure_way(connection, each)


def _measure_way(connection: Connection, settlement: Settlement) -> None:
    """How long a new lead took to its record; one that was there before the connection has waited for somebody else."""
    claim = settlement.claim
    told = claim.lead.get("created_at")
    if settlement.link is None or claim.record_id is not None or not settlement.is_synced or told is None:
        return
    created_at = datetime.fromisoformat(told)
    if created_at >= connection.created_at:
        LEAD_TO_RECORD.labels(connection.vendor).observe(max(0.0, (utcnow() - created_at).total_seconds()))


def _final(settlement: Settlement, holder: str | None, overwritten: Collection[str]) -> Settlement:
    """A settlement in the light of the others': its record may be `holder`'s, or another lead's data may have gone over it."""
    if holder is not None:
        return policy.settle_taken(settlement, str(settlement.link), holder)
    return policy.settle_overwritten(settlement) if settlement.claim.lead_id in overwritten else settlement
