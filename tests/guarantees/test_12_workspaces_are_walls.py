"""Somebody of another workspace finds nothing here, by no path."""

from collections.abc import AsyncIterator

import httpx2
import pytest

from tests.support.system import Client, RunningSystem


@pytest.fixture
async def stranger(system: RunningSystem) -> AsyncIterator[Client]:
    """A service's client that acts in another workspace, with every scope a service has."""
    await system.sql(
        "auth", "INSERT INTO workspaces (id, name) VALUES ('ws_of_strangers', 'Strangers') ON CONFLICT DO NOTHING"
    )
    client = Client(system.url)
    answer = await client.http.post(
        "/api/auth/token",
        data={
            "grant_type": "client_credentials",
            "client_id": "workflows",
            "client_secret": system.system.secrets.password("client:workflows"),
            "workspace_id": "ws_of_strangers",
        },
    )
    assert answer.status_code == 200, answer.text
    client.authorise(answer.json()["access_token"])
    yield client
    await client.close()


async def test_a_lead_of_another_workspace_is_404_for_every_method(client: Client, stranger: Client) -> None:
    assert (await client.get("/api/leads/lead-1")).status_code == 200
    answers: list[httpx2.Response] = [
        await stranger.get("/api/leads/lead-1"),
        await stranger.put("/api/leads/lead-1", {"email": "stranger@example.com"}),
        await stranger.patch("/api/leads/lead-1", {"score": 1}),
        await stranger.delete("/api/leads/lead-1"),
        await stranger.post("/api/leads/lead-1/restore"),
        await stranger.get("/api/leads/lead-1/timeline"),
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert (await client.get("/api/leads/lead-1")).status_code == 200


async def test_lists_and_searches_show_nothing_of_another_workspace(stranger: Client) -> None:
    for path in ("/api/leads", "/api/leads?q=john", "/api/workflows", "/api/crm/connections"):
        answer = await stranger.get(path)
        assert answer.status_code == 200, answer.text
        assert answer.json()["items"] == []


async def test_one_workspaces_key_and_email_mean_nothing_in_another(client: Client, stranger: Client) -> None:
    body = {"email": "both-workspaces@example.com"}
    ours = await client.post("/api/leads", body, Idempotency_Key="shared-key")
    theirs = await stranger.post("/api/leads", body, Idempotency_Key="shared-key")
    assert (ours.status_code, theirs.status_code) == (201, 201)
    assert "idempotency-replayed" not in theirs.headers
    assert ours.json()["id"] != theirs.json()["id"]
