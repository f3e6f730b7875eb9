"""What a client was told, and whether the system holds it: ok means exactly one, unknown at most one, refused none."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx2

from chassis.ids import new_id
from tests.support.system import Client, RunningSystem


@dataclass
class History:
    """Creates by e-mail, and how each was answered."""

    ok: dict[str, str] = field(default_factory=dict)
    """E-mail → lead id, for every 201."""
    unknown: set[str] = field(default_factory=set)
    """No answer, or a 5xx: it may or may not be stored."""
    refused: set[str] = field(default_factory=set)
    """4xx: not stored."""
    statuses: list[int] = field(default_factory=list)

    async def create(self, client: Client, *, key: str | None = None, **fields: object) -> httpx2.Response | None:
        """Post one lead with an e-mail of its own and note the answer."""
        email = f"{new_id('h')}@example.com"
        headers = {"Idempotency-Key": key} if key else {}
        try:
            answer = await client.http.post("/api/leads", json={"email": email, **fields}, headers=headers)
        except httpx2.HTTPError:
            self.unknown.add(email)
            return None
        self.statuses.append(answer.status_code)
        if answer.status_code == 201:
            self.ok[email] = answer.json()["id"]
        elif answer.status_code >= 500:
            self.unknown.add(email)
        else:
            self.refused.add(email)
        return answer

    async def check(self, system: RunningSystem) -> None:
        """Every 2xx is one lead with that id, every unknown at most one, every refusal none; each with one event."""
        emails = [*self.ok, *self.unknown, *self.refused]
        rows = await system.sql("leads", "SELECT id, email FROM leads WHERE email = ANY($1::text[])", emails)
        stored: dict[str, list[str]] = {email: [] for email in emails}
        for row in rows:
            stored[row["email"]].append(row["id"])
        lost = {email for email, lead_id in self.ok.items() if lead_id not in stored[email]}
        doubled = {email for email, ids in stored.items() if len(ids) > 1}
        leaked = {email for email in self.refused if stored[email]}
        assert (lost, doubled, leaked) == (set(), set(), set())
        events = await system.sql(
            "leads", "SELECT subject, count(*) AS n FROM outbox WHERE type = 'lead.created' GROUP BY subject"
        )
        counts = {row["subject"]: row["n"] for row in events}
        assert {counts.get(row["id"]) for row in rows} <= {1}


@asynccontextmanager
async def load(client: Client, history: History, *, per_second: float = 50) -> AsyncIterator[None]:
    """A steady open rate of creates while the block runs; every answer is awaited at its end."""
    stop = asyncio.Event()

    async def offer() -> None:
        async with asyncio.TaskGroup() as group:
            while not stop.is_set():
                group.create_task(history.create(client))
                await asyncio.sleep(1 / per_second)

    task = asyncio.create_task(offer())
    try:
        yield
    finally:
        stop.set()
        await task
