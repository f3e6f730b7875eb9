"""The journal of requests: each is written down before anything is done about it, and again when it was answered."""

import time
import uuid
from dataclasses import dataclass
from typing import Any

from simulators.storage import Storage

MAX_BODY_CHARACTERS = 100_000


@dataclass(frozen=True, slots=True)
class Entry:
    seq: int
    correlation_id: str


class Journal:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def begin(
        self, *, portal_id: int | None, operation: str, method: str, path: str, request_id: str | None, body: bytes
    ) -> Entry:
        correlation_id = str(uuid.uuid4())
        seq = self._storage.execute(
            "INSERT INTO requests (at, portal_id, operation, method, path, request_id, correlation_id, body, outcome)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'open')",
            time.time(),
            portal_id,
            operation,
            method,
            path,
            request_id,
            correlation_id,
            body.decode(errors="replace")[:MAX_BODY_CHARACTERS],
        ).lastrowid
        return Entry(seq or 0, correlation_id)

    def finish(self, entry: Entry, status: int | None, outcome: str) -> None:
        """`outcome` is answered, dropped or hung; `status` is what was or would have been sent."""
        self._storage.execute(
            "UPDATE requests SET finished_at = ?, status = ?, outcome = ? WHERE seq = ?",
            time.time(),
            status,
            outcome,
            entry.seq,
        )

    def listed(self, portal_id: int | None, operation: str | None, since: int) -> list[dict[str, Any]]:
        """The requests after number `since`, oldest first. A request cut off by the process's death stays "open"."""
        rows = self._storage.all(
            "SELECT * FROM requests WHERE seq > ? AND (? IS NULL OR portal_id = ?) AND (? IS NULL OR operation = ?)"
            " ORDER BY seq",
            since,
            portal_id,
            portal_id,
            operation,
            operation,
        )
        return [dict(row) for row in rows]
