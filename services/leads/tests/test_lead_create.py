"""Creating leads over HTTP."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import httpx2
import pytest

from contracts.validation import problems
from leads import repository

ADA = {
    "email": "Ada@Example.COM",
    "phone": "(415) 555-0100",
    "first_name": " Ada ",
    "last_name": "Lovelace",
    "company": "Analytical Engines",
    "title": "",
    "score": 70,
    "tags": ["vip", "vip", "london"],
    "custom": {"plan": "pro", "seats": 3, "nothing": None},
    "consent": {"email": True},
}


async def create(api: httpx2.AsyncClient, query: str = "", **fields: Any) -> httpx2.Response:
    return await api.post(f"/api/leads{query}", json={"email": "ada@example.com", **fields})


async def test_a_created_lead_is_answered_normalised_and_reads_the_same(api: httpx2.AsyncClient) -> None:
    answer = await api.post("/api/leads", json=ADA)
    assert answer.status_code == 201, answer.text
    lead = answer.json()
    assert {name: lead[name] for name in ADA} == {
        **ADA,
        "email": "Ada@example.com",
        "phone": "+14155550100",
        "first_name": "Ada",
        "title": None,
        "tags": ["vip", "london"],
        "custom": {"plan": "pro", "seats": 3},
    }
    assert (lead["stage"], lead["version"], lead["external_ids"]) == ("new", 1, {})
    assert lead["created_at"] == lead["updated_at"]
    assert answer.headers["location"] == f"/api/leads/{lead['id']}"
    assert answer.headers["etag"] == '"1.1"'
    read = await api.get(answer.headers["location"])
    assert (read.status_code, read.content, read.headers["etag"]) == (200, answer.content, '"1.1"')


async def test_a_created_lead_is_announced_as_the_contract_says(api: httpx2.AsyncClient, events_of: Any) -> None:
    lead = (await api.post("/api/leads", json=ADA, headers={"X-Request-ID": "req_test"})).json()
    [event] = await events_of(lead["id"])
    assert problems(event) == []
    assert event["type"] == "lead.created"
    assert event["subjectversion"] == 1
    assert event["requestid"] == "req_test"
    assert event["origin"] == "user:user_1"
    assert event["data"]["lead"] == lead
    assert event["data"]["actor"] == "user:user_1"
    assert set(event["data"]["changed"]) == set(ADA) - {"title"}


async def test_a_service_says_on_whose_behalf_it_creates(
    api: httpx2.AsyncClient, database: Any, identity: Any, events_of: Any
) -> None:
    headers = {
        **identity.service_headers("workflows"),
        "X-Origin": "workflow:wf_1/run_1",
        "X-Chain": "wf_1,conn_1",
        "Idempotency-Key": "svc:run_1:step_1:0:0",
    }
    lead = (await api.post("/api/leads", json={"email": "ada@example.com"}, headers=headers)).json()
    [event] = await events_of(lead["id"])
    assert event["data"]["actor"] == event["origin"] == "workflow:wf_1/run_1"
    assert event["chain"] == "wf_1,conn_1"
    kept = await database.fetchval("SELECT expires_at - created_at > interval '29 days' FROM idempotency_keys")
    assert kept is True


async def test_a_second_live_lead_with_the_email_is_409_and_names_the_first(
    api: httpx2.AsyncClient, database: Any
) -> None:
    first = (await create(api)).json()
    for second in ({"email": "ADA@example.com"}, {"email": "ada@EXAMPLE.com", "phone": "+14155550199"}):
        answer = await api.post("/api/leads", json=second)
        assert answer.status_code == 409
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["existing_id"] == first["id"]
    for table in ("leads", "outbox", "idempotency_keys"):
        assert await database.fetchval(f"SELECT count(*) FROM {table}") == 1


async def test_a_phone_is_compared_only_among_leads_without_an_email(api: httpx2.AsyncClient) -> None:
    first = await api.post("/api/leads", json={"phone": "+14155550100"})
    assert first.status_code == 201
    assert (await create(api, phone="+14155550100")).status_code == 201
    again = await api.post("/api/leads", json={"phone": "415-555-0100"})
    assert again.status_code == 409
    assert again.json()["existing_id"] == first.json()["id"]


async def test_on_duplicate_update_changes_the_lead_that_is_there_as_a_patch_would(
    api: httpx2.AsyncClient, events_of: Any
) -> None:
    first = (await create(api, first_name="Ada", custom={"a": 1})).json()
    answer = await create(api, "?on_duplicate=update", score=90, custom={"b": 2})
    assert answer.status_code == 200
    lead = answer.json()
    assert lead["id"] == first["id"]
    assert (lead["first_name"], lead["score"], lead["custom"], lead["version"]) == ("Ada", 90, {"a": 1, "b": 2}, 2)
    assert answer.headers["etag"] == '"2.2"'
    assert [event["type"] for event in await events_of(lead["id"])] == ["lead.created", "lead.updated"]


async def test_on_duplicate_return_answers_the_lead_as_it_is(api: httpx2.AsyncClient, database: Any) -> None:
    first = (await create(api, first_name="Ada")).json()
    answer = await create(api, "?on_duplicate=return", first_name="Eve")
    assert (answer.status_code, answer.json()) == (200, first)
    assert await database.fetchval("SELECT count(*) FROM outbox") == 1


@pytest.mark.parametrize("choice", ["update", "return"])
@pytest.mark.parametrize("leaving", [("DELETE", None), ("PATCH", {"email": "moved@example.com"})])
async def test_on_duplicate_creates_if_the_lead_in_the_way_leaves_before_it_is_taken(
    api: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, choice: str, leaving: tuple[str, Any]
) -> None:
    first = (await create(api)).json()
    find_live_lead = repository.find_live_lead

    async def find_and_lose(*arguments: Any) -> str | None:
        found = await find_live_lead(*arguments)
        monkeypatch.setattr(repository, "find_live_lead", find_live_lead)
        method, body = leaving
        assert (await api.request(method, f"/api/leads/{first['id']}", json=body)).is_success
        return found

    monkeypatch.setattr(repository, "find_live_lead", find_and_lose)
    answer = await create(api, f"?on_duplicate={choice}", score=90)
    assert answer.status_code == 201, answer.text
    lead = answer.json()
    assert (lead["email"], lead["score"]) == ("ada@example.com", 90)
    assert lead["id"] != first["id"]


async def test_on_duplicate_creates_where_there_is_nothing_in_the_way(api: httpx2.AsyncClient) -> None:
    for choice in ("update", "return", "allow", "error"):
        answer = await create(api, f"?on_duplicate={choice}", email=f"{choice}@example.com")
        assert answer.status_code == 201


async def test_on_duplicate_allow_makes_a_second_lead_that_stands_in_nobodys_way(api: httpx2.AsyncClient) -> None:
    first, second = await create(api), await create(api, "?on_duplicate=allow")
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["id"] != second.json()["id"]
    assert (await create(api)).json()["existing_id"] == first.json()["id"]


async def test_an_unknown_on_duplicate_is_422(api: httpx2.AsyncClient) -> None:
    answer = await create(api, "?on_duplicate=merge")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "?on_duplicate"


async def test_an_email_becomes_free_when_its_lead_is_deleted(api: httpx2.AsyncClient) -> None:
    first = (await create(api)).json()
    assert (await api.delete(f"/api/leads/{first['id']}")).status_code == 204
    assert (await create(api)).status_code == 201


async def test_an_owner_must_be_an_active_user_of_the_workspace(
    api: httpx2.AsyncClient, database: Any, add_user: Callable[..., Awaitable[str]], subtests: pytest.Subtests
) -> None:
    disabled = await add_user("user_8", active=False)
    stranger = await add_user("user_9", workspace="ws_2")
    for owner in (disabled, stranger, "user_unknown"):
        with subtests.test(owner):
            answer = await create(api, owner_id=owner)
            assert answer.status_code == 422
            assert answer.json()["errors"][0]["pointer"] == "/owner_id"
            assert await database.fetchval("SELECT count(*) FROM leads") == 0
            assert await database.fetchval("SELECT count(*) FROM outbox") == 0


async def test_an_active_user_may_own_a_lead(api: httpx2.AsyncClient, add_user: Callable[..., Awaitable[str]]) -> None:
    assert (await create(api, owner_id=await add_user("user_9"))).json()["owner_id"] == "user_9"


async def test_national_numbers_are_read_by_the_workspaces_own_region(api: httpx2.AsyncClient, identity: Any) -> None:
    changed = await api.put("/api/leads/settings", json={"default_region": "DE"})
    assert changed.status_code == 200
    assert (await api.post("/api/leads", json={"phone": "030 901820"})).json()["phone"] == "+4930901820"
    elsewhere = identity.headers(workspace="ws_2")
    answer = await api.post("/api/leads", json={"phone": "(415) 555-0100"}, headers=elsewhere)
    assert answer.json()["phone"] == "+14155550100"


async def test_a_viewer_cannot_create(api: httpx2.AsyncClient, identity: Any) -> None:
    answer = await api.post("/api/leads", json={"email": "a@example.com"}, headers=identity.headers(role="viewer"))
    assert answer.status_code == 403
    assert answer.json()["required_scope"] == "leads:write"


async def test_nobody_creates_without_a_token(api: httpx2.AsyncClient) -> None:
    answer = await api.post("/api/leads", json={"email": "a@example.com"}, headers={"Authorization": ""})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_many_at_once_are_each_stored_with_key_and_event(
    api: httpx2.AsyncClient, database: asyncpg.Connection
) -> None:
    answers = await asyncio.gather(
        *(api.post("/api/leads", json={"email": f"a{n % 40}@example.com"}) for n in range(60))
    )
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [201] * 40 + [409] * 20
    created = {answer.json()["id"] for answer in answers if answer.status_code == 201}
    assert {answer.json()["existing_id"] for answer in answers if answer.status_code == 409} <= created
    for table in ("leads", "outbox", "idempotency_keys"):
        assert await database.fetchval(f"SELECT count(*) FROM {table}") == 40
