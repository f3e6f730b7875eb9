"""What tests do with crm-sync: connect, announce leads, and look at what became of them."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx2

from chassis.context import Context
from chassis.events import Event, encode, new_event
from contracts.validation import problems
from simulators.testing import RunningSimulators
from tests.support.fixtures import eventually

from .crm_service import Service

# Wide enough that only the tests about limits meet one; the first call of a connection still waits for its bucket to fill.
ROOMY = {"requests_per_10_seconds": 10_000, "requests_per_day": 100_000_000}

LEAD: dict[str, Any] = {
    "phone": None,
    "first_name": "Ada",
    "last_name": "Lovelace",
    "company": "Analytical Engines",
    "title": "Countess",
    "source": "web",
    "stage": "new",
    "score": 70,
    "owner_id": None,
    "tags": [],
    "custom": {},
    "consent": {},
    "external_ids": {},
    "created_at": "2026-11-25T08:30:00.000Z",
    "updated_at": "2026-11-25T08:30:00.000Z",
}


def lead_event(lead_id: str, version: int, *, kind: str = "", chain: tuple[str, ...] = (), **fields: Any) -> Event:
    """An event of leads: created at version 1, updated after that, unless `kind` says otherwise."""
    workspace = fields.pop("workspace", "ws_1")
    lead = {"id": lead_id, "email": f"{lead_id}@example.com", **LEAD, **fields, "version": version}
    event_type = f"lead.{kind or ('created' if version == 1 else 'updated')}"
    return new_event(
        event_type,
        source="/services/leads",
        workspace_id=workspace,
        subject=lead_id,
        subject_version=version,
        data={"lead": lead, "changed": [], "previous": {}, "actor": "user:user_1"},
        context=Context("req_of_lead", "user:user_1", chain),
    )


@dataclass
class Crm:
    """What tests do with the service: connect, announce leads, and look at what became of them."""

    service: Service
    client: httpx2.AsyncClient
    workspace: str
    simulators: RunningSimulators
    portal: int

    @property
    def database(self) -> asyncpg.Connection:
        return self.service.database

    def other(self, workspace: str, role: str = "admin") -> httpx2.AsyncClient:
        """A client of another workspace, or of another role in this one."""
        headers = self.service.neighbours.identity.headers(workspace=workspace, role=role)
        return self.service.http.client(headers)

    def as_service(self, name: str = "workflows") -> httpx2.AsyncClient:
        headers = self.service.neighbours.identity.service_headers(name, workspace=self.workspace)
        return self.service.http.client(headers)

    async def pause(self, connection: dict[str, Any]) -> None:
        assert (await self.client.post(f"/api/crm/connections/{connection['id']}/pause")).status_code == 200

    async def resume(self, connection: dict[str, Any]) -> None:
        assert (await self.client.post(f"/api/crm/connections/{connection['id']}/resume")).status_code == 200

    async def connect(self, **given: Any) -> dict[str, Any]:
        """A HubSpot connection to the test's portal; `paused=True` lets leads gather before the first call."""
        paused = given.pop("paused", False)
        body = {
            "name": "HubSpot",
            "vendor": "hubspot",
            "credentials": {"access_token": f"pat-sim-{self.portal}"},
            "settings": ROOMY,
            **given,
        }
        answer = await self.client.post("/api/crm/connections", json=body)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        if paused:
            await self.pause(made)
        return made

    async def connect_webhook(self, name: str, secret: str, **given: Any) -> dict[str, Any]:
        """A webhook connection to the simulated receiver of that name."""
        body = {
            "name": name,
            "vendor": "webhook",
            "credentials": {"secret": secret},
            "settings": {"url": f"{self.simulators.url}/webhooks/{name}", "requests_per_second": 1000},
            **given,
        }
        answer = await self.client.post("/api/crm/connections", json=body)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def announce(self, *events: Event) -> None:
        """Publish events as leads would."""
        bus = self.service.http.state["resources"].bus
        await asyncio.wait_for(bus.publishing.up.wait(), 10)
        for event in events:
            assert problems(json.loads(encode(event))) == []
            await bus.publish_event(encode(event), event_id=event.id, event_type=event.type, published_ms=0)

    def event(self, lead_id: str, version: int = 1, **fields: Any) -> Event:
        """An event about a lead of this workspace."""
        return lead_event(lead_id, version, workspace=self.workspace, **fields)

    async def lead(self, lead_id: str, version: int = 1, **fields: Any) -> None:
        """Publish an event about a lead."""
        await self.announce(self.event(lead_id, version, **fields))

    async def taken_in(self, lead_id: str, version: int = 1) -> None:
        """Wait until the worker's consumer has this version of the lead."""

        async def is_there() -> bool:
            held = await self.database.fetchval(
                "SELECT version FROM lead_copies WHERE workspace_id = $1 AND lead_id = $2", self.workspace, lead_id
            )
            return held is not None and held >= version

        await eventually(is_there)

    async def standing(self, lead_id: str, connection: dict[str, Any]) -> dict[str, Any] | None:
        answer = await self.client.get(f"/api/crm/leads/{lead_id}")
        items = answer.json()["items"] if answer.status_code == 200 else []
        found = [each for each in items if each["connection_id"] == connection["id"]]
        return found[0] if found else None

    async def until(
        self, lead_id: str, connection: dict[str, Any], *, seconds: float = 10.0, **wanted: Any
    ) -> dict[str, Any]:
        """Wait until the lead's standing has these values, and return it."""
        last: dict[str, Any] | None = None

        async def check() -> dict[str, Any] | None:
            nonlocal last
            last = await self.standing(lead_id, connection)
            return last if last and all(last[name] == value for name, value in wanted.items()) else None

        try:
            return await eventually(check, seconds=seconds)  # type: ignore[no-any-return]
        except AssertionError as error:
            raise AssertionError(f"{lead_id} is {last}, not {wanted}") from error

    async def in_step(self, lead_id: str, connection: dict[str, Any], version: int = 1, **more: Any) -> dict[str, Any]:
        return await self.until(lead_id, connection, synced_version=version, state="in_step", **more)

    async def outlive_leases(self) -> None:
        """As if the time were over for which a dead worker's claims are kept for it."""
        await self.database.execute(
            "UPDATE sync_states SET next_try_at = now() WHERE workspace_id = $1 AND state = 'in_flight'", self.workspace
        )

    async def shown(self, connection: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = (await self.client.get(f"/api/crm/connections/{connection['id']}")).json()
        return found

    async def resting(self, connection: dict[str, Any], least: int = 1) -> dict[str, Any]:
        """Wait until the connection has met trouble that often in a row, and return it."""

        async def check() -> dict[str, Any] | None:
            shown = await self.shown(connection)
            return shown if shown["trouble"] is not None and shown["trouble"]["count"] >= least else None

        return await eventually(check)  # type: ignore[no-any-return]

    async def dead_letters(self, **filters: str) -> list[dict[str, Any]]:
        answer = await self.client.get("/api/crm/dead-letters", params=filters)
        assert answer.status_code == 200, answer.text
        items: list[dict[str, Any]] = answer.json()["items"]
        return items

    async def count(self, state: str) -> int:
        """How many leads are in that state, all connections together."""
        return int(
            await self.database.fetchval(
                "SELECT count(*) FROM sync_states WHERE workspace_id = $1 AND state = $2", self.workspace, state
            )
        )

    async def events(self, lead_id: str, connection: dict[str, Any]) -> list[dict[str, Any]]:
        """What was announced about a lead at a connection, in order, each kept to its contract."""
        rows = await self.database.fetch(
            "SELECT body FROM outbox WHERE workspace_id = $1 AND subject = $2 ORDER BY subject_version",
            self.workspace,
            f"{connection['id']}/{lead_id}",
        )
        found = [json.loads(row["body"]) for row in rows]
        for event in found:
            assert problems(event) == []
        return found

    async def row(self, lead_id: str) -> asyncpg.Record:
        found = await self.database.fetchrow(
            "SELECT * FROM sync_states WHERE workspace_id = $1 AND lead_id = $2", self.workspace, lead_id
        )
        assert found is not None
        return found

    def contacts(self) -> list[dict[str, Any]]:
        return self.simulators.contacts(self.portal)

    def calls(self, operation: str = "contacts.batch_upsert") -> list[dict[str, Any]]:
        return self.simulators.requests(self.portal, operation)

    def fault(self, operation: str, effect: dict[str, Any], **rule: Any) -> int:
        return self.simulators.add_fault(operation, effect, portal_id=self.portal, **rule)
