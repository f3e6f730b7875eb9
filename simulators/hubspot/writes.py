"""The journal of writes: what was done to which contact, by which request, under which write id."""

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simulators.storage import Storage


@dataclass(frozen=True, slots=True)
class Write:
    """Where a write comes from: the request's number in the journal, and the input's objectWriteTraceId."""

    request_seq: int
    portal_id: int
    write_id: str | None = None


def record(
    storage: Storage,
    write: Write,
    kind: str,
    contact_id: int,
    properties: Mapping[str, str],
    *,
    is_change: bool,
    is_archived: bool = False,
) -> None:
    """Called in the write's own transaction: neither stands in the journal without the other."""
    storage.execute(
        "INSERT INTO writes (at, request_seq, portal_id, contact_id, kind, write_id, is_change, is_archived, properties)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        time.time(),
        write.request_seq,
        write.portal_id,
        contact_id,
        kind,
        write.write_id,
        is_change,
        is_archived,
        json.dumps(dict(properties)),
    )


def listed(storage: Storage, portal_id: int | None, kind: str | None, contact_id: int | None) -> list[dict[str, Any]]:
    """The writes in the order they happened, narrowed by what is given."""
    rows = storage.all(
        "SELECT * FROM writes WHERE (? IS NULL OR portal_id = ?) AND (? IS NULL OR kind = ?)"
        " AND (? IS NULL OR contact_id = ?) ORDER BY seq",
        portal_id,
        portal_id,
        kind,
        kind,
        contact_id,
        contact_id,
    )
    return [
        {
            "seq": row["seq"],
            "at": row["at"],
            "request": row["request_seq"],
            "portal_id": row["portal_id"],
            "contact_id": str(row["contact_id"]),
            "kind": row["kind"],
            "write_id": row["write_id"],
            "changed": bool(row["is_change"]),
            "properties": json.loads(row["properties"]),
        }
        for row in rows
    ]


def creates_by(storage: Storage, portal_id: int | None, key: str) -> dict[str, int]:
    """How many contacts were ever created for each value of `key`: "write_id", "email" or another property's name."""
    counts: Counter[str] = Counter()
    for write in listed(storage, portal_id, "create", None):
        value = write["write_id"] if key == "write_id" else write["properties"].get(key)
        if value:
            counts[value] += 1
    return dict(counts)
