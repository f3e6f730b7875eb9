"""What these tests need of the outside world: a CRM account of their own, and the simulators' control."""

import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from chassis.ids import new_id
from tests.guarantees.consumers import missing_events
from tests.support.fixtures import eventually
from tests.support.system import Client, RunningSystem

_portals = itertools.count(100)

QUICK_CRM = {
    "CRM_SYNC_LEASE_SECONDS": "2",
    "CRM_SYNC_CALL_TIMEOUT_SECONDS": "1",
    "CRM_SYNC_VENDOR_TIMEOUT_SECONDS": "1.6",
}
"""For a crm-sync worker that a test kills: what it has claimed is free again after two seconds."""


@dataclass
class Simulators:
    """The control side of the vendor simulators."""

    http: httpx2.AsyncClient

    async def fault(self, portal: int, operation: str, effect: dict[str, Any], **more: Any) -> None:
        """Make HubSpot answer `operation` otherwise; `times=None` for good."""
        body = {"portal_id": portal, "operation": operation, "effect": effect, **more}
        answer = await self.http.post("/_control/hubspot/faults", json=body)
        assert answer.status_code < 300, answer.text

    async def clear(self) -> None:
        """No faults, no latency."""
        await self.http.delete("/_control/hubspot/faults")
        await self.latency(0)

    async def latency(self, seconds: float) -> None:
        body = {"latency_min_seconds": seconds, "latency_max_seconds": seconds}
        assert (await self.http.put("/_control/hubspot/behaviour", json=body)).status_code < 300

    async def contacts(self, portal: int) -> list[dict[str, Any]]:
        """The account's live contacts."""
        answer = await self.http.get("/_control/hubspot/contacts", params={"portal_id": portal, "archived": "false"})
        assert answer.status_code == 200, answer.text
        found = answer.json()
        return list(found if isinstance(found, list) else found[next(k for k in found if isinstance(found[k], list))])

    async def receive(self, name: str, secret: str) -> None:
        """Give the webhook receiver `name` its secret."""
        assert (await self.http.put(f"/_control/webhooks/{name}", json={"secret": secret})).status_code < 300

    async def deliveries(self, name: str) -> list[dict[str, Any]]:
        """What the webhook receiver `name` got, by webhook-id."""
        answer = await self.http.get("/_control/webhooks", params={"name": name})
        assert answer.status_code == 200, answer.text
        found = answer.json()
        return list(found if isinstance(found, list) else found[next(k for k in found if isinstance(found[k], list))])


@pytest.fixture
async def simulators(system: RunningSystem) -> AsyncIterator[Simulators]:
    async with httpx2.AsyncClient(base_url=system.simulator_url, trust_env=False, timeout=10) as http:
        made = Simulators(http)
        yield made
        await made.clear()


@dataclass
class Account:
    """A HubSpot account and our connection to it, which keeps every lead in step."""

    portal: int
    connection_id: str
    client: Client
    simulators: Simulators

    async def standing(self, lead_id: str) -> dict[str, Any]:
        """Where the lead stands in this CRM."""
        answer = await self.client.get(f"/api/crm/leads/{lead_id}")
        if answer.status_code != 200:
            return {}
        items = [each for each in answer.json()["items"] if each["connection_id"] == self.connection_id]
        return items[0] if items else {}

    async def in_step(self, lead_id: str, version: int) -> bool:
        """True once the CRM holds that version."""
        found = await self.standing(lead_id)
        return found.get("state") == "in_step" and found["synced_version"] >= version

    async def contacts_of(self, lead_id: str) -> list[dict[str, Any]]:
        """The CRM's records that carry this lead's id."""
        contacts = await self.simulators.contacts(self.portal)
        return [each for each in contacts if each["properties"].get("ao_lead_id") == lead_id]


@pytest.fixture
async def account(system: RunningSystem, client: Client, simulators: Simulators) -> AsyncIterator[Account]:
    await eventually(lambda: nothing_to_sync(system), seconds=30)
    # Leads that were there before would be put into this account too, some time: a call that a failpoint takes for its test's.
    await system.sql("crm-sync", "DELETE FROM lead_copies")
    portal = next(_portals)
    body = {
        "name": new_id("crm"),
        "vendor": "hubspot",
        "mode": "all",
        "credentials": {"access_token": f"pat-sim-{portal}"},
    }
    made = await client.post("/api/crm/connections", body)
    assert made.status_code == 201, made.text
    found = Account(portal, made.json()["id"], client, simulators)
    lead = (await client.post("/api/leads", {"email": f"{new_id('warm')}@example.com"})).json()
    await eventually(lambda: found.in_step(lead["id"], 1), seconds=20)
    await eventually(lambda: nothing_to_sync(system), seconds=20)
    yield found
    await simulators.clear()
    assert (await client.delete(f"/api/crm/connections/{found.connection_id}")).status_code == 204


async def nothing_to_sync(system: RunningSystem) -> bool:
    """True while crm-sync has had every event, and every lead is in step, or dead, in every CRM there is."""
    recent = await system.sql(
        "leads", "SELECT DISTINCT subject FROM outbox WHERE created_at > now() - interval '3 minutes'"
    )
    if recent and await missing_events(system, [row["subject"] for row in recent]):
        return False
    return not await system.sql(
        "crm-sync",
        """SELECT FROM sync_states JOIN connections ON (connections.workspace_id, id) = (sync_states.workspace_id, connection_id)
        WHERE state NOT IN ('idle', 'dead') AND deleted_at IS NULL LIMIT 1""",
    )
