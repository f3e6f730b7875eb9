"""SQL about definitions and the slim copies. Takes a connection, never commits, gives frozen dataclasses."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg
import orjson

from chassis.database import PooledConnection
from chassis.queries import load_queries
from workflows.errors import NameTaken, WorkflowNotFound
from workflows.models import LeadSnapshot, Workflow, WorkflowVersion

queries = load_queries("workflows")


def as_json(value: Any) -> str:
    """JSON for a jsonb parameter."""
    return orjson.dumps(value).decode()


async def insert_workflow(
    connection: PooledConnection, workspace_id: str, workflow_id: str, name: str, event: str | None
) -> None:
    """NameTaken (with the holder's id) if a live workflow of that name exists."""
    created = await connection.fetchval(queries["insert_workflow"], workspace_id, workflow_id, name, event)
    if created is None:
        raise await _name_taken(connection, workspace_id, name)


async def insert_version(
    connection: PooledConnection, workspace_id: str, workflow_id: str, new: WorkflowVersion
) -> None:
    """Add a version."""
    await connection.execute(
        queries["insert_version"],
        workspace_id,
        workflow_id,
        new.version,
        as_json(new.definition),
        new.created_by,
        new.created_at,
    )


async def replace_definition(
    connection: PooledConnection, workspace_id: str, workflow_id: str, name: str, event: str | None
) -> None:
    """Count the version up and rename; NameTaken if a live workflow of that name exists."""
    try:
        async with connection.transaction():
            await connection.execute(queries["replace_definition"], workspace_id, workflow_id, name, event)
    except asyncpg.UniqueViolationError as error:
        raise await _name_taken(connection, workspace_id, name) from error


async def _name_taken(connection: PooledConnection, workspace_id: str, name: str) -> NameTaken:
    existing = await connection.fetchval(queries["workflow_named"], workspace_id, name)
    return NameTaken("A workflow with this name exists.", existing_id=existing)


async def read_workflow(connection: PooledConnection, workspace_id: str, workflow_id: str) -> Workflow:
    """The workflow, archived or not; WorkflowNotFound."""
    return _found(await connection.fetchrow(queries["read_workflow"], workspace_id, workflow_id))


async def lock_workflow(connection: PooledConnection, workspace_id: str, workflow_id: str) -> Workflow:
    """The same, locked against other writers until the transaction ends.

    Locked first, then read: a statement that waited for the lock would join the new version's number with the old version's row.
    """
    await connection.execute(queries["lock_workflow"], workspace_id, workflow_id)
    return await read_workflow(connection, workspace_id, workflow_id)


async def list_workflows(
    connection: PooledConnection,
    workspace_id: str,
    *,
    archived: bool,
    event: str | None,
    name_contains: str | None,
    before: tuple[datetime, str] | None,
    limit: int,
) -> list[Workflow]:
    """Newest first; `before` is the last row of the page before."""
    moment, workflow_id = before or (None, None)
    records = await connection.fetch(
        queries["list_workflows"], workspace_id, archived, event, name_contains, moment, workflow_id, limit
    )
    return [_workflow(record) for record in records]


async def archive_workflow(connection: PooledConnection, workspace_id: str, workflow_id: str) -> None:
    await connection.execute(queries["archive_workflow"], workspace_id, workflow_id)


async def list_versions(
    connection: PooledConnection, workspace_id: str, workflow_id: str, *, below: int | None, limit: int
) -> list[WorkflowVersion]:
    """Newest first; `below` is the last version of the page before."""
    records = await connection.fetch(queries["list_versions"], workspace_id, workflow_id, below, limit)
    return [
        WorkflowVersion(
            version=record["version"],
            definition=orjson.loads(record["definition"]),
            created_by=record["created_by"],
            created_at=record["created_at"],
        )
        for record in records
    ]


async def read_definition(
    connection: PooledConnection, workspace_id: str, workflow_id: str, version: int
) -> dict[str, Any]:
    """The JSON of one version; WorkflowNotFound."""
    definition = await connection.fetchval(queries["read_version"], workspace_id, workflow_id, version)
    if definition is None:
        raise WorkflowNotFound("There is no such version of a workflow.")
    return dict(orjson.loads(definition))


async def triggered_workflows(
    connection: PooledConnection, workspace_ids: Sequence[str], events: Sequence[str]
) -> dict[tuple[str, str], list[tuple[str, int]]]:
    """Live workflows, as (id, version), by workspace and the event that starts them."""
    found: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for record in await connection.fetch(queries["triggered_workflows"], workspace_ids, events):
        key = record["workspace_id"], record["trigger_event"]
        found.setdefault(key, []).append((record["id"], record["version"]))
    return found


async def hold_live_workflows(connection: PooledConnection, keys: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those of the (workspace, id) that are not archived, and will not be until the transaction ends: whoever archives one
    finds every run that was started. Their leads are locked already."""
    wanted = sorted(set(keys))
    columns = [workspace_id for workspace_id, _ in wanted], [workflow_id for _, workflow_id in wanted]
    await connection.execute(queries["keep_from_archive"], *columns)
    records = await connection.fetch(queries["live_workflows"], *columns)
    return {(record["workspace_id"], record["id"]) for record in records}


async def wait_for_starts(connection: PooledConnection, workspace_id: str, workflow_id: str) -> None:
    """Let runs that are being started be there, and start no more until the transaction ends."""
    await connection.execute(queries["wait_for_starts"], workspace_id, workflow_id)


async def insert_secrets(
    connection: PooledConnection, workspace_id: str, workflow_id: str, sealed: Mapping[str, str]
) -> None:
    """Store sealed secrets by id."""
    if sealed:
        await connection.execute(
            queries["insert_secrets"], workspace_id, workflow_id, list(sealed), list(sealed.values())
        )


async def known_secrets(
    connection: PooledConnection, workspace_id: str, workflow_id: str, secret_ids: Sequence[str]
) -> set[str]:
    """Which of these are secrets of this workflow."""
    records = await connection.fetch(queries["known_secrets"], workspace_id, workflow_id, secret_ids)
    return {record["id"] for record in records}


async def sealed_secrets(connection: PooledConnection, workspace_id: str, secret_ids: Sequence[str]) -> dict[str, str]:
    """Sealed secrets by id."""
    records = await connection.fetch(queries["sealed_secrets"], workspace_id, secret_ids)
    return {record["id"]: record["sealed"] for record in records}


async def known_users(connection: PooledConnection, workspace_id: str, user_ids: Sequence[str]) -> dict[str, bool]:
    """Which of these users exist, and whether each is active."""
    records = await connection.fetch(queries["known_users"], workspace_id, user_ids)
    return {record["id"]: record["active"] for record in records}


async def copy_users(connection: PooledConnection, users: Sequence[tuple[str, str, str, bool, int]]) -> None:
    """Take down (workspace, id, name, active, version); an older version changes nothing. No user twice."""
    columns = [list(column) for column in zip(*users, strict=True)]
    await connection.execute(queries["copy_users"], *columns)


async def lock_leads(connection: PooledConnection, leads: Sequence[tuple[str, str]]) -> None:
    """Lock these (workspace, lead) of the view, in the order given."""
    await connection.execute(queries["lock_leads"], *(list(column) for column in zip(*leads, strict=True)))


async def copy_leads(connection: PooledConnection, leads: Sequence[LeadSnapshot]) -> None:
    """Take down the newest known state of leads; an older version changes nothing. No lead twice."""
    if leads:
        await connection.execute(
            queries["copy_leads"],
            [snapshot.workspace_id for snapshot in leads],
            [snapshot.lead_id for snapshot in leads],
            [snapshot.version for snapshot in leads],
            [snapshot.deleted for snapshot in leads],
            [as_json(snapshot.lead) for snapshot in leads],
        )


async def copy_crm(
    connection: PooledConnection, rows: Sequence[tuple[str, str, str, int, str, Mapping[str, Any]]]
) -> None:
    """Take down (workspace, lead, connection, version, type, data); an older version changes nothing. No such row twice."""
    if rows:
        *columns, data = (list(column) for column in zip(*rows, strict=True))
        await connection.execute(queries["copy_crm"], *columns, [as_json(item) for item in data])


async def read_lead(connection: PooledConnection, workspace_id: str, lead_id: str) -> LeadSnapshot | None:
    """The lead as the view has it, None if no event about it has come."""
    record = await connection.fetchrow(queries["read_lead"], workspace_id, lead_id)
    return snapshot(record) if record is not None else None


async def read_crm(connection: PooledConnection, workspace_id: str, lead_id: str) -> list[dict[str, Any]]:
    """The newest outcome per CRM connection: what the event said, and its `type`."""
    records = await connection.fetch(queries["read_crm"], workspace_id, lead_id)
    return [{"type": record["type"], **orjson.loads(record["data"])} for record in records]


async def read_clock(connection: PooledConnection) -> datetime:
    """The database's time: the one by which waits are counted."""
    now: datetime = await connection.fetchval(queries["read_clock"])
    return now


def snapshot(record: asyncpg.Record) -> LeadSnapshot:
    """A row of lead_view."""
    return LeadSnapshot(
        record["workspace_id"],
        record["lead_id"],
        record["version"],
        record["deleted"],
        orjson.loads(record["lead"]),
    )


def _found(record: asyncpg.Record | None) -> Workflow:
    if record is None:
        raise WorkflowNotFound("There is no such workflow.")
    return _workflow(record)


def _workflow(record: asyncpg.Record) -> Workflow:
    return Workflow(
        workspace_id=record["workspace_id"],
        id=record["id"],
        version=record["version"],
        definition=orjson.loads(record["definition"]),
        created_at=record["created_at"],
        updated_at=record["updated_at"],
        archived_at=record["archived_at"],
    )
