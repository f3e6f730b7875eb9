"""What the HTTP side reads and writes. Takes a connection, never commits."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from chassis.context import Context
from chassis.database import PooledConnection
from chassis.queries import load_queries
from crm_sync.connectors.protocol import Preparation
from crm_sync.mapping import MappedField, encode_mapping
from crm_sync.models import Connection, ConnectionKey, DeadLetter, Mode, OnDelete, Standing, State, Vendor
from crm_sync.records import build, connection_from, error_from, json_text

queries = load_queries("crm_sync")

Place = tuple[datetime, str]
"""Where a page begins: the last one's time and id."""


@dataclass(frozen=True, slots=True)
class NewConnection:
    """What a connection begins with. `token_seconds` is what is left of an access token that came with it."""

    key: ConnectionKey
    name: str
    vendor: Vendor
    mode: Mode
    on_delete: OnDelete
    settings: dict[str, object]
    time_zone: str | None
    sealed: str
    token_seconds: float | None
    mapping: Sequence[MappedField]


async def insert_connection(connection: PooledConnection, new: NewConnection) -> None:
    """Add a connection; one that takes all leads gets those that are there by backfill."""
    await connection.execute(
        queries["insert_connection"],
        new.key.workspace_id,
        new.key.id,
        new.name,
        new.vendor,
        new.mode,
        new.on_delete,
        json_text(new.settings),
        new.time_zone,
        new.sealed,
        new.token_seconds,
        encode_mapping(new.mapping),
        "" if new.mode == "all" else None,
    )


async def find_by_name(connection: PooledConnection, workspace_id: str, name: str) -> str | None:
    """The id of the connection with this name, whatever its case."""
    found: str | None = await connection.fetchval(queries["find_connection_by_name"], workspace_id, name)
    return found


async def read_connection(connection: PooledConnection, key: ConnectionKey) -> Connection | None:
    """The connection, unless it is deleted or another workspace's."""
    row = await connection.fetchrow(queries["read_connection"], key.workspace_id, key.id)
    return connection_from(row) if row is not None else None


async def lock_connection(connection: PooledConnection, key: ConnectionKey) -> Connection | None:
    """The connection, held against other changes until the transaction ends."""
    if await connection.fetchval(queries["lock_connection"], key.workspace_id, key.id) is None:
        return None
    return await read_connection(connection, key)


async def list_connections(
    connection: PooledConnection,
    workspace_id: str,
    *,
    vendor: str | None,
    status: str | None,
    after: Place | None,
    limit: int,
) -> list[Connection]:
    """Newest first."""
    moment, last_id = after or (None, None)
    rows = await connection.fetch(queries["list_connections"], workspace_id, vendor, status, moment, last_id, limit)
    return [connection_from(row) for row in rows]


async def update_connection(connection: PooledConnection, changed: Connection, *, backfill: bool) -> None:
    """Store what an editor may change; with `backfill` every lead is looked at again."""
    await connection.execute(
        queries["update_connection"],
        changed.workspace_id,
        changed.id,
        changed.name,
        changed.mode,
        changed.on_delete,
        json_text(dict(changed.settings)),
        changed.time_zone,
        backfill,
    )


async def replace_credentials(connection: PooledConnection, key: ConnectionKey, sealed: str) -> None:
    """Other credentials: what was refused is to be tried again."""
    await connection.execute(queries["replace_credentials"], key.workspace_id, key.id, sealed)


async def store_sealed(connection: PooledConnection, key: ConnectionKey, sealed: str) -> None:
    """The same connection's credentials in another form; nothing else changes."""
    await connection.execute(queries["reseal_credentials"], key.workspace_id, key.id, sealed)


async def set_status(connection: PooledConnection, key: ConnectionKey, status: str, reason: str | None) -> None:
    await connection.execute(queries["set_status"], key.workspace_id, key.id, status, reason)


async def replace_mapping(connection: PooledConnection, key: ConnectionKey, mapping: Sequence[MappedField]) -> None:
    """Another mapping: workers bring every lead over again that it changes."""
    await connection.execute(queries["replace_mapping"], key.workspace_id, key.id, encode_mapping(mapping))


async def record_preparation(connection: PooledConnection, prepared: Connection, found: Preparation) -> None:
    """The vendor's side of the connection, as it was `prepared`, holds what we need there; known trouble is over."""
    await connection.execute(
        queries["record_preparation"],
        prepared.workspace_id,
        prepared.id,
        prepared.credentials_set_at,
        found.time_zone,
        found.account_id,
        prepared.mapping_version,
    )


async def delete_connection(connection: PooledConnection, key: ConnectionKey) -> None:
    """Forget the credentials at once; workers let go of the leads."""
    await connection.execute(queries["delete_connection"], key.workspace_id, key.id)


async def lock_workspace(connection: PooledConnection, workspace_id: str) -> None:
    """Wait for consumers that are fanning leads out, and keep new ones waiting until the transaction ends."""
    await connection.execute(queries["lock_workspace"], workspace_id)


async def notify_connection(connection: PooledConnection, key: ConnectionKey) -> None:
    """Wake the workers for this connection when the transaction commits."""
    await connection.execute(queries["notify_connection"], key.workspace_id, key.id)


async def read_copy(connection: PooledConnection, workspace_id: str, lead_id: str) -> tuple[int, bool] | None:
    """Version and whether it is deleted, of the copy of a lead, held as it is until the transaction ends."""
    row = await connection.fetchrow(queries["read_copy"], workspace_id, lead_id)
    return (row["version"], row["deleted"]) if row is not None else None


async def want_lead(
    connection: PooledConnection,
    workspace_id: str,
    lead_id: str,
    *,
    version: int,
    connection_id: str | None,
    cause: Context,
) -> None:
    """Want `version` of a lead at one connection or at all, and wake the workers when the transaction commits."""
    arguments = (
        workspace_id,
        lead_id,
        version,
        connection_id,
        ",".join(cause.chain),
        cause.request_id,
        cause.traceparent,
    )
    await connection.execute(queries["enrol_lead"], *arguments)
    await connection.execute(queries["raise_desired"], *arguments)
    await connection.execute(queries["notify_workers"], workspace_id, lead_id)


async def read_standings(
    connection: PooledConnection, workspace_id: str, lead_id: str, connection_id: str | None = None
) -> list[Standing]:
    """Where a lead stands at each connection that knows it."""
    rows = await connection.fetch(queries["read_standings"], workspace_id, lead_id, connection_id)
    return [build(Standing, row, state=State(row["state"]), last_error=error_from(row["last_error"])) for row in rows]


async def lead_is_known(connection: PooledConnection, workspace_id: str, lead_id: str) -> bool:
    return bool(await connection.fetchval(queries["lead_is_known"], workspace_id, lead_id))


async def list_dead_letters(
    connection: PooledConnection,
    workspace_id: str,
    *,
    connection_id: str | None,
    kind: str | None,
    lead_id: str | None,
    after: Place | None,
    limit: int,
) -> list[DeadLetter]:
    """Newest first."""
    moment, last_id = after or (None, None)
    rows = await connection.fetch(
        queries["list_dead_letters"], workspace_id, connection_id, kind, lead_id, moment, last_id, limit
    )
    return [build(DeadLetter, row, error=error_from(row["error"])) for row in rows]


async def replay_dead_letters(
    connection: PooledConnection,
    workspace_id: str,
    *,
    dead_letter_id: str | None = None,
    connection_id: str | None = None,
    kind: str | None = None,
    request_id: str | None = None,
) -> tuple[int, str | None]:
    """Make dead leads due again; returns how many, and one of them. Workers are woken when the transaction commits."""
    rows = await connection.fetch(
        queries["replay_dead_letters"], workspace_id, dead_letter_id, connection_id, kind, request_id
    )
    for row in rows:
        await notify_connection(connection, ConnectionKey(workspace_id, row["connection_id"]))
    return sum(row["leads"] for row in rows), (rows[0]["lead_id"] if rows else None)
