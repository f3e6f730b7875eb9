"""Leads in PostgreSQL. Takes a connection, never commits, gives back frozen dataclasses; knows the names of the constraints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg
import orjson

from chassis.database import PooledConnection
from chassis.idempotency import Answer, WriteRequest
from chassis.outbox import OutboxRow
from chassis.queries import load_queries
from leads.changes import Change
from leads.listing import Statement
from leads.models import CLIENT_FIELDS, Lead

queries = load_queries("leads")

DEDUPE_INDEX = "leads_dedupe_key"
KEYS_CONSTRAINT = "idempotency_keys_pkey"
ID_CONSTRAINT = "leads_pkey"

_JSON_FIELDS = ("tags", "custom", "consent")


class KeyTaken(Exception):
    """The idempotency key is in the table already, so that nothing of the statement happened."""


class ContactTaken(Exception):
    """Another live lead has the e-mail or phone, so that nothing of the statement happened."""


@dataclass(frozen=True, slots=True)
class LeadWrite:
    """What one write stores: a lead's new state, and with it the key, the answer and the event."""

    change: Change
    write: WriteRequest
    answer: Answer
    event: OutboxRow


@dataclass(frozen=True, slots=True)
class Known:
    """What a write finds: the row of its idempotency key, if it has one, and the lead as it is, deleted or not."""

    stored: Mapping[str, Any] | None
    lead: Lead | None


@dataclass(frozen=True, slots=True)
class Page:
    """One page of the list: `items` is a JSON array; the last two are where the page ended, None on an empty one."""

    items: bytes
    has_more: bool
    last_value: Any
    last_id: str


@dataclass(frozen=True, slots=True)
class TimelineRow:
    """One entry of a timeline as JSON, and its place in the order."""

    at: datetime
    event_id: str
    position: int
    entry: bytes


async def create_leads(connection: PooledConnection, rows: Sequence[LeadWrite]) -> set[str]:
    """Store the leads whose e-mail or phone is free and whose owner is active; returns their ids.

    KeyTaken if one of the keys is in the table: then none of them is stored.
    """
    columns = zip(*(_new_row(row) for row in rows), strict=True)
    try:
        records = await connection.fetch(queries["create_leads"], *columns)
    except asyncpg.UniqueViolationError as error:
        raise _taken(error) from error
    return {record["id"] for record in records}


def _new_row(row: LeadWrite) -> tuple[Any, ...]:
    lead, write = row.change.lead, row.write
    return (
        lead.workspace_id,
        lead.id,
        *_field_values(lead),
        lead.dedupe_key,
        lead.created_at,
        write.principal.subject,
        write.key,
        write.fingerprint,
        write.lifetime,
        _json(row.answer.headers),
        row.answer.body,
        row.event.event_id,
        row.event.body,
    )


async def change_lead(connection: PooledConnection, before: Lead, row: LeadWrite) -> tuple[bool, bool]:
    """Put the new state in the place of `before`: (done, the new owner is active). Not done if another revision is there by now.

    KeyTaken or ContactTaken: nothing happened.
    """
    lead, write, answer, event = row.change.lead, row.write, row.answer, row.event
    try:
        record = await connection.fetchrow(
            queries["change_lead"],
            lead.workspace_id,
            lead.id,
            before.revision,
            *_field_values(lead),
            lead.dedupe_key,
            lead.version,
            lead.revision,
            lead.updated_at,
            lead.deleted_at,
            write.principal.subject,
            write.key,
            write.fingerprint,
            answer.status,
            _json(answer.headers),
            lead.fields["owner_id"] if "owner_id" in row.change.changed else None,
            answer.body,
            write.lifetime,
            event.event_id,
            event.type,
            event.body,
        )
    except asyncpg.UniqueViolationError as error:
        raise _taken(error) from error
    if record is None:
        raise LookupError("the statement always gives a row")
    return record["changed"], record["owner_is_active"]


async def keep_answer(connection: PooledConnection, write: WriteRequest, answer: Answer) -> None:
    """Store the answer to a write that changed nothing; KeyTaken if this key has one."""
    try:
        await connection.execute(
            queries["keep_answer"],
            *write.scope,
            write.fingerprint,
            answer.status,
            _json(answer.headers),
            answer.body,
            write.lifetime,
        )
    except asyncpg.UniqueViolationError as error:
        raise KeyTaken from error


async def drop_expired_key(connection: PooledConnection, write: WriteRequest) -> None:
    """Make room for a key that was kept long enough and has not been pruned yet."""
    await connection.execute(queries["drop_expired_key"], *write.scope)


async def read_for_write(connection: PooledConnection, write: WriteRequest, lead_id: str) -> Known:
    """The answer that this key has got already, and the lead, in one look."""
    record = await connection.fetchrow(queries["read_for_write"], *write.scope, lead_id)
    if record is None:
        raise LookupError("the statement always gives a row")
    return Known(
        stored=dict(record) if record["fingerprint"] is not None else None,
        lead=_lead(write.principal.workspace_id, record) if record["id"] is not None else None,
    )


async def read_lead(connection: PooledConnection, workspace_id: str, lead_id: str) -> Lead | None:
    """The lead, deleted or not."""
    record = await connection.fetchrow(queries["read_lead"], workspace_id, lead_id)
    return _lead(workspace_id, record) if record is not None else None


async def find_live_lead(connection: PooledConnection, workspace_id: str, dedupe_key: str) -> str | None:
    """The id of the live lead that has this e-mail or phone."""
    found: str | None = await connection.fetchval(queries["find_live_lead"], workspace_id, dedupe_key)
    return found


async def owner_is_active(connection: PooledConnection, workspace_id: str, user_id: str) -> bool:
    """True if the slim copy holds an active user of this id."""
    return bool(await connection.fetchval(queries["owner_is_active"], workspace_id, user_id))


async def read_region(connection: PooledConnection, workspace_id: str) -> str | None:
    """The workspace's own default region, if it has set one."""
    found: str | None = await connection.fetchval(queries["read_region"], workspace_id)
    return found


async def lock_region(connection: PooledConnection, workspace_id: str, without: str) -> str:
    """The region that holds (`without`, if the workspace has set none), locked until the transaction ends."""
    found: str = await connection.fetchval(queries["lock_region"], workspace_id, without)
    return found


async def set_region(connection: PooledConnection, workspace_id: str, region: str) -> None:
    """Set the workspace's default region, which `lock_region` has locked."""
    await connection.execute(queries["set_region"], workspace_id, region)


async def list_leads(connection: PooledConnection, statement: Statement) -> Page:
    """One page of the list."""
    record = await connection.fetchrow(statement.sql, *statement.parameters)
    if record is None:
        raise LookupError("an aggregate gives one row")
    return Page(record["items"].encode(), record["has_more"], record["last_value"], record["last_id"])


async def lead_exists(connection: PooledConnection, workspace_id: str, lead_id: str) -> bool:
    """True if the lead is there, deleted or not."""
    return bool(await connection.fetchval(queries["lead_exists"], workspace_id, lead_id))


async def read_timeline(
    connection: PooledConnection, workspace_id: str, lead_id: str, after: tuple[datetime, str, int], limit: int
) -> list[TimelineRow]:
    """The rows after a place in the timeline, in order."""
    records = await connection.fetch(queries["read_timeline"], workspace_id, lead_id, *after, limit)
    return [TimelineRow(r["at"], r["event_id"], r["position"], r["entry"].encode()) for r in records]


async def plant_seed(connection: PooledConnection, name: str) -> bool:
    """True if this seed was not there yet; from now on it is."""
    return await connection.fetchval(queries["plant_seed"], name) is not None


async def insert_seed_lead(connection: PooledConnection, lead: Lead) -> bool:
    """Store a new lead without a key; False if its id or e-mail is taken."""
    values = (lead.workspace_id, lead.id, *_field_values(lead), lead.dedupe_key, lead.created_at)
    return await connection.fetchval(queries["insert_seed_lead"], *values) is not None


async def release_events(connection: PooledConnection, event_ids: Sequence[str]) -> None:
    """Give events of this transaction to whichever relay is first."""
    await connection.execute(queries["release_events"], event_ids)


def _field_values(lead: Lead) -> tuple[Any, ...]:
    """The values of CLIENT_FIELDS, in their order, as the driver takes them."""
    return tuple(_json(lead.fields[name]) if name in _JSON_FIELDS else lead.fields[name] for name in CLIENT_FIELDS)


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _lead(workspace_id: str, record: asyncpg.Record) -> Lead:
    return Lead(
        workspace_id=workspace_id,
        id=record["id"],
        fields={name: orjson.loads(record[name]) if name in _JSON_FIELDS else record[name] for name in CLIENT_FIELDS},
        dedupe_key=record["dedupe_key"],
        version=record["version"],
        revision=record["revision"],
        created_at=record["created_at"],
        updated_at=record["updated_at"],
        external_ids=orjson.loads(record["external_ids"]),
        deleted_at=record["deleted_at"],
    )


def _taken(error: asyncpg.UniqueViolationError) -> Exception:
    # A new id is there already only if this very write was carried out and its connection lost before the answer.
    if error.constraint_name in (KEYS_CONSTRAINT, ID_CONSTRAINT):
        return KeyTaken()
    if error.constraint_name == DEDUPE_INDEX:
        return ContactTaken()
    return error
