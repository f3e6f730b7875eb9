"""Slim copies and timelines in PostgreSQL: what the worker writes of other services' events. Never commits."""

from collections.abc import Collection, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import orjson

from chassis.database import PooledConnection
from leads.repository import queries, read_lead
from leads.timeline import Entry

__all__ = ["ExternalId", "User", "copy_users", "known_leads", "read_lead", "show_external_ids", "write_timeline"]


@dataclass(frozen=True, slots=True)
class User:
    """A user as auth last told of it."""

    workspace_id: str
    id: str
    name: str
    active: bool
    version: int


@dataclass(frozen=True, slots=True)
class ExternalId:
    """A lead's id in the CRM behind a connection, or None if that CRM holds it no longer; `version` counts the tellings."""

    workspace_id: str
    lead_id: str
    connection_id: str
    external_id: str | None
    version: int


async def copy_users(connection: PooledConnection, users: Sequence[User]) -> None:
    """Keep each user's newest version."""
    await connection.execute(queries["copy_users"], *_columns([astuple(user) for user in users]))


async def known_leads(connection: PooledConnection, named: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those of the (workspace, lead) pairs that there are, deleted ones too."""
    records = await connection.fetch(queries["known_leads"], [one for one, _ in named], [other for _, other in named])
    return {(record["workspace_id"], record["id"]) for record in records}


async def write_timeline(connection: PooledConnection, entries: Sequence[Entry]) -> None:
    """Add the rows that are not there yet."""
    rows = [
        (
            entry.workspace_id,
            entry.lead_id,
            entry.at,
            entry.event_id,
            entry.position,
            entry.kind,
            orjson.dumps(entry.document).decode(),
        )
        for entry in entries
    ]
    if rows:
        await connection.execute(queries["write_timeline"], *_columns(rows))


async def show_external_ids(connection: PooledConnection, found: Sequence[ExternalId]) -> None:
    """Keep each connection's newest id and show them in their leads; the leads' `revision` grows, their `version` does not."""
    leads = sorted({(each.workspace_id, each.lead_id) for each in found})
    pairs = [one for one, _ in leads], [other for _, other in leads]
    await connection.execute(queries["lock_leads"], *pairs)
    await connection.execute(queries["copy_external_ids"], *_columns([astuple(each) for each in found]))
    await connection.execute(queries["show_external_ids"], *pairs)


def _columns(rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return list(zip(*rows, strict=True))
