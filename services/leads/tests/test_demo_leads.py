"""The demo leads: put in once."""

import asyncio
from typing import Any

import httpx2
import pytest

from contracts.validation import problems
from leads.seed import DEMO_LEADS, main, seed
from leads.settings import Settings


async def test_the_demo_leads_are_put_in_once_with_their_events(
    api: httpx2.AsyncClient, settings: Settings, events_of: Any
) -> None:
    dsn = settings.database_url.get_secret_value()
    assert await seed(dsn, "ws_1") is True
    for lead_id, first_name, last_name, email in DEMO_LEADS:
        lead = (await api.get(f"/api/leads/{lead_id}")).json()
        assert (lead["id"], lead["first_name"], lead["last_name"], lead["email"]) == (
            lead_id,
            first_name,
            last_name,
            email,
        )
        [event] = await events_of(lead_id)
        assert problems(event) == []
        assert event["data"]["lead"] == lead
    # What became of them since is left alone.
    await api.delete("/api/leads/lead-1")
    await api.patch("/api/leads/lead-2", json={"first_name": "Janet"})
    assert await seed(dsn, "ws_1") is False
    assert (await api.get("/api/leads/lead-1")).status_code == 404
    assert (await api.get("/api/leads/lead-2")).json()["first_name"] == "Janet"
    assert len((await api.get("/api/leads")).json()["items"]) == 2


async def test_a_workspace_that_has_such_a_lead_keeps_its_own(api: httpx2.AsyncClient, settings: Settings) -> None:
    own = (await api.post("/api/leads", json={"email": "john.test@example.com"})).json()
    assert await seed(settings.database_url.get_secret_value(), "ws_1") is True
    emails = {item["email"]: item["id"] for item in (await api.get("/api/leads")).json()["items"]}
    assert emails["john.test@example.com"] == own["id"]
    assert len(emails) == 3


async def test_seeded_events_are_published_by_whichever_relay_is_first(
    api: httpx2.AsyncClient, settings: Settings, worker: Any
) -> None:
    await seed(settings.database_url.get_secret_value(), "ws_1")
    async with asyncio.timeout(8):
        while not (await api.get("/api/leads/lead-3/timeline")).json()["items"]:
            await asyncio.sleep(0.05)


def test_the_seed_says_what_it_needs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("WORKSPACE_ID", raising=False)
    assert main() == 1
    assert "WORKSPACE_ID" in capsys.readouterr().err
