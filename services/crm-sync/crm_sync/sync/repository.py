"""The worker's statements: claims, leases, settlements, copies of leads. Takes a connection, never commits."""

from collections.abc import Sequence
from dataclasses import dataclass

from chassis.database import PooledConnection
from chassis.ids import new_id
from chassis.queries import load_queries
from crm_sync.events import untold_attempts
from crm_sync.models import Claim, Connection, ConnectionKey, Settlement, State
from crm_sync.records import build, connection_from, error_text, json_text, json_value
from crm_sync.sync.planning import Work

queries = load_queries("crm_sync.sync")


@dataclass(frozen=True, slots=True)
class LeadCopy:
    """A lead's newest version as an event told it, and what caused that event. `lead` is JSON."""

    workspace_id: str
    lead_id: str
    version: int
    deleted: bool
    lead: str
    chain: str
    request_id: str | None
    traceparent: str | None


async def take_leads(connection: PooledConnection, copies: Sequence[LeadCopy]) -> set[ConnectionKey]:
    """Store copies (one per lead) that are newer than ours and want them at every connection concerned; returns those."""
    await connection.execute(queries["share_workspaces"], [copy.workspace_id for copy in copies])
    newer = await connection.fetch(
        queries["take_copies"],
        [copy.workspace_id for copy in copies],
        [copy.lead_id for copy in copies],
        [copy.version for copy in copies],
        [copy.deleted for copy in copies],
        [copy.lead for copy in copies],
    )
    taken = {(row["workspace_id"], row["lead_id"]) for row in newer}
    wanted = [copy for copy in copies if (copy.workspace_id, copy.lead_id) in taken]
    if not wanted:
        return set()
    touched = await connection.fetch(
        queries["want_leads"],
        [copy.workspace_id for copy in wanted],
        [copy.lead_id for copy in wanted],
        [copy.version for copy in wanted],
        [copy.deleted for copy in wanted],
        [copy.chain for copy in wanted],
        [copy.request_id for copy in wanted],
        [copy.traceparent for copy in wanted],
    )
    return {ConnectionKey(row["workspace_id"], row["connection_id"]) for row in touched}


async def due_connections(connection: PooledConnection) -> list[ConnectionKey]:
    """Every usable connection with a lead whose time has come."""
    return [build(ConnectionKey, row) for row in await connection.fetch(queries["due_connections"])]


async def read_connection(connection: PooledConnection, key: ConnectionKey) -> Connection | None:
    """The connection, unless it is deleted."""
    row = await connection.fetchrow(queries["read_connection"], key.workspace_id, key.id)
    return connection_from(row) if row is not None else None


async def claim_leads(
    connection: PooledConnection,
    key: ConnectionKey,
    *,
    limit: int,
    lease_token: str,
    lease_seconds: float,
    looks_up: bool,
) -> list[Claim]:
    """Take up to `limit` leads that are due, under a new lease. With `looks_up` unknown outcomes are to be resolved first."""
    rows = await connection.fetch(
        queries["claim_leads"], key.workspace_id, key.id, limit, lease_token, float(lease_seconds), looks_up
    )
    return [
        build(
            Claim,
            row,
            lead=json_value(row["lead"]),
            sent=json_value(row["sent"]),
            unsettled_lead=json_value(row["unsettled_lead"]),
            attempt_log=json_value(row["attempt_log"]),
        )
        for row in rows
    ]


async def renew_lease(connection: PooledConnection, key: ConnectionKey, lease_token: str, seconds: float) -> bool:
    """Hold what the token still holds for `seconds` more; False if that is nothing."""
    tag = await connection.execute(queries["renew_lease"], key.workspace_id, key.id, lease_token, float(seconds))
    return not tag.endswith(" 0")


async def hand_back(connection: PooledConnection, key: ConnectionKey, lease_token: str, works: Sequence[Work]) -> None:
    """Let go of leads that were claimed and not sent."""
    await connection.execute(
        queries["hand_back"],
        key.workspace_id,
        key.id,
        lease_token,
        [work.lead_id for work in works],
        [work.claim.resolving for work in works],
        [json_text(work.held) for work in works],
    )


async def hold_claims(
    connection: PooledConnection, key: ConnectionKey, lease_token: str, settlements: Sequence[Settlement]
) -> list[Settlement]:
    """Lock the rows that are still ours; what another worker has taken over meanwhile is left out."""
    lead_ids = [settlement.claim.lead_id for settlement in settlements]
    rows = await connection.fetch(queries["hold_claims"], key.workspace_id, key.id, lease_token, lead_ids)
    held = {row["lead_id"] for row in rows}
    return [settlement for settlement in settlements if settlement.claim.lead_id in held]


async def release_links(connection: PooledConnection, key: ConnectionKey, lead_ids: Sequence[str]) -> None:
    """These leads are at no record any more; the records are free."""
    await connection.fetch(queries["release_links"], key.workspace_id, key.id, list(lead_ids))


async def insert_links(
    connection: PooledConnection, key: ConnectionKey, links: Sequence[tuple[str, str]]
) -> dict[str, str]:
    """Tie leads to records, given as (lead id, record id). Returns, by lead, the holder of each record that is taken."""
    inserted = await connection.fetch(
        queries["insert_links"],
        key.workspace_id,
        key.id,
        [lead_id for lead_id, _ in links],
        [external_id for _, external_id in links],
    )
    done = {row["lead_id"] for row in inserted}
    missed = {lead_id: external_id for lead_id, external_id in links if lead_id not in done}
    if not missed:
        return {}
    rows = await connection.fetch(queries["link_holders"], key.workspace_id, key.id, list(missed.values()))
    holders = {row["external_id"]: row["lead_id"] for row in rows}
    # A record that was let go of in this very moment has no holder; the lead is found by our own property next time.
    return {lead_id: holders[external_id] for lead_id, external_id in missed.items() if external_id in holders}


async def write_again(
    connection: PooledConnection, key: ConnectionKey, lead_ids: Sequence[str], lease_token: str
) -> None:
    """Bring these leads over once more although nothing about them has changed, but for those held under `lease_token`."""
    await connection.execute(queries["write_again"], key.workspace_id, key.id, sorted(lead_ids), lease_token)


async def settle(
    connection: PooledConnection,
    key: ConnectionKey,
    lease_token: str,
    mapping_version: int,
    settlements: Sequence[Settlement],
) -> dict[str, int]:
    """Store what became of claimed leads and let go of them; returns each one's event number."""
    ordered = sorted(settlements, key=lambda settlement: settlement.claim.lead_id)
    rows = await connection.fetch(
        queries["settle_leads"],
        key.workspace_id,
        key.id,
        lease_token,
        mapping_version,
        [each.claim.lead_id for each in ordered],
        [each.state.value for each in ordered],
        [each.version for each in ordered],
        [each.delay_seconds for each in ordered],
        [each.is_synced for each in ordered],
        [each.attempts for each in ordered],
        [each.unknowns for each in ordered],
        [each.suspect for each in ordered],
        [json_text(each.sent) for each in ordered],
        [error_text(each.error) for each in ordered],
        [json_text([] if each.announcement else untold_attempts(each)) for each in ordered],
        [new_id("dl") if each.state is State.DEAD else None for each in ordered],
        [each.dead_kind for each in ordered],
        [each.announcement is not None for each in ordered],
    )
    return {row["lead_id"]: row["event_count"] for row in rows}


async def living_holders(connection: PooledConnection, key: ConnectionKey, lead_ids: Sequence[str]) -> set[str]:
    """Which of these leads, named by records in a CRM, still stand in the way of another one."""
    rows = await connection.fetch(queries["living_holders"], key.workspace_id, key.id, list(lead_ids))
    return {row["lead_id"] for row in rows}


async def rest_connection(
    connection: PooledConnection, key: ConnectionKey, *, kind: str, reason: str, seconds: float
) -> None:
    """Open the breaker for `seconds`."""
    await connection.fetch(queries["rest_connection"], key.workspace_id, key.id, kind, reason, float(seconds))


async def recover_connection(connection: PooledConnection, key: ConnectionKey, trouble_count: int) -> None:
    """Close the breaker, if it has not opened again since `trouble_count` was read."""
    await connection.execute(queries["recover_connection"], key.workspace_id, key.id, trouble_count)


async def stop_connection(connection: PooledConnection, used: Connection, status: str, reason: str) -> bool:
    """Stop using the connection, as it was `used`, until a person has done something about `reason`.

    False if it is stopped already, or is not what it was.
    """
    tag = await connection.execute(
        queries["stop_connection"],
        used.workspace_id,
        used.id,
        used.credentials_set_at,
        used.mapping_version,
        status,
        reason,
    )
    return not tag.endswith(" 0")


async def forget_preparation(connection: PooledConnection, key: ConnectionKey) -> None:
    """The vendor's side lacks something we had seen there: look again before the next call."""
    await connection.execute(queries["forget_preparation"], key.workspace_id, key.id)
