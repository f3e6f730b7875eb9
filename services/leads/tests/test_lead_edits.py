"""Replacing, patching, deleting and restoring leads."""

import asyncio
from itertools import pairwise
from typing import Any

import httpx2
import pytest

from contracts.validation import problems

ADA = {
    "email": "ada@example.com",
    "phone": "+14155550100",
    "first_name": "Ada",
    "score": 5,
    "tags": ["vip"],
    "custom": {"a": 1, "b": {"c": 2}, "zero": 0.0},
    "consent": {"email": True},
}
MERGE = {"Content-Type": "application/merge-patch+json"}


@pytest.fixture
async def lead(api: httpx2.AsyncClient) -> dict[str, Any]:
    created: dict[str, Any] = (await api.post("/api/leads", json=ADA)).json()
    return created


@pytest.fixture
def path(lead: dict[str, Any]) -> str:
    return f"/api/leads/{lead['id']}"


async def test_put_replaces_and_empties_what_is_left_out(
    api: httpx2.AsyncClient, lead: dict[str, Any], path: str, events_of: Any
) -> None:
    answer = await api.put(path, json={"email": "ada@example.com", "custom": {"d": 3}})
    assert answer.status_code == 200
    new = answer.json()
    assert new["custom"] == {"d": 3}
    assert (new["phone"], new["first_name"], new["score"], new["tags"], new["consent"]) == (None, None, 0, [], {})
    assert (new["version"], new["created_at"]) == (2, lead["created_at"])
    assert new["updated_at"] >= lead["updated_at"]
    assert answer.headers["etag"] == '"2.2"'
    event = (await events_of(lead["id"]))[-1]
    assert problems(event) == []
    assert event["type"] == "lead.updated"
    assert event["subjectversion"] == 2
    assert event["data"]["lead"] == new
    assert event["data"]["changed"] == ["phone", "first_name", "score", "tags", "custom", "consent"]
    assert event["data"]["previous"] == {name: lead[name] for name in event["data"]["changed"]}


@pytest.mark.parametrize("headers", [{}, MERGE])
async def test_patch_merges(api: httpx2.AsyncClient, path: str, headers: dict[str, str]) -> None:
    patch = b'{"first_name": null, "custom": {"b": {"c": null, "d": 4}}, "tags": ["new"], "score": null}'
    answer = await api.patch(path, content=patch, headers={"Content-Type": "application/json", **headers})
    assert answer.status_code == 200, answer.text
    new = answer.json()
    assert new["custom"] == {"a": 1, "b": {"d": 4}, "zero": 0.0}
    assert (new["first_name"], new["tags"], new["score"], new["email"]) == (None, ["new"], 0, ADA["email"])


async def test_an_answer_can_be_sent_back_as_it_came(api: httpx2.AsyncClient, lead: dict[str, Any], path: str) -> None:
    assert (await api.put(path, json=lead)).json() == lead
    assert (await api.patch(path, json=lead)).json() == lead


async def test_a_write_that_changes_nothing_changes_nothing(
    api: httpx2.AsyncClient, lead: dict[str, Any], path: str, database: Any, subtests: pytest.Subtests
) -> None:
    writes: list[tuple[str, str, Any]] = [
        ("PATCH", "", {}),
        ("PATCH", "", {"score": 5, "email": "ada@EXAMPLE.com", "custom": {"a": 1}, "tags": ["vip", "vip"]}),
        ("PATCH", "", {"custom": {"nothing": None}}),
        ("PATCH", "", {"custom": {"zero": -0.0}}),
        ("PUT", "", {**ADA, "phone": "(415) 555-0100", "custom": {"zero": 0.0, "b": {"c": 2}, "a": 1}}),
        ("POST", "/restore", None),
    ]
    for method, suffix, body in writes:
        with subtests.test(f"{method} {body}"):
            answer = await api.request(method, path + suffix, json=body)
            assert (answer.status_code, answer.json()) == (200, lead)
            assert answer.headers["etag"] == '"1.1"'
    assert await database.fetchval("SELECT count(*) FROM outbox") == 1
    assert await database.fetchval("SELECT count(*) FROM idempotency_keys") == 1 + len(writes)


async def test_a_lead_cannot_lose_its_last_contact(api: httpx2.AsyncClient, path: str) -> None:
    assert (await api.patch(path, json={"email": None})).status_code == 200
    answer = await api.patch(path, json={"phone": None})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/email"


async def test_a_contact_that_another_lead_has_is_409(api: httpx2.AsyncClient, path: str) -> None:
    other = (await api.post("/api/leads", json={"email": "eve@example.com"})).json()
    for method, body in (("PATCH", {"email": "Eve@example.com"}), ("PUT", {"email": "eve@example.com"})):
        answer = await api.request(method, path, json=body)
        assert answer.status_code == 409
        assert answer.json()["existing_id"] == other["id"]
    assert (await api.get(path)).json()["version"] == 1


async def test_an_owner_is_checked_when_it_changes_and_only_then(
    api: httpx2.AsyncClient, path: str, database: Any, add_user: Any
) -> None:
    refused = await api.patch(path, json={"owner_id": "user_9"})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/owner_id"
    assert await database.fetchval("SELECT owner_id IS NULL AND version = 1 FROM leads")
    assert await database.fetchval("SELECT count(*) FROM outbox") == 1
    await add_user("user_9")
    assert (await api.patch(path, json={"owner_id": "user_9"})).json()["owner_id"] == "user_9"
    await database.execute("UPDATE users SET active = false")
    assert (await api.patch(path, json={"score": 50})).status_code == 200
    assert (await api.patch(path, json={"owner_id": "user_9", "score": 51})).status_code == 200
    assert (await api.patch(path, json={"owner_id": None})).json()["owner_id"] is None
    assert (await api.patch(path, json={"owner_id": "user_9"})).status_code == 422


async def test_delete_hides_the_lead_and_restore_brings_it_back(
    api: httpx2.AsyncClient, lead: dict[str, Any], path: str, events_of: Any, subtests: pytest.Subtests
) -> None:
    answer = await api.delete(path)
    assert (answer.status_code, answer.content) == (204, b"")
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        with subtests.test(method):
            assert (await api.request(method, path, json=ADA)).status_code == 404
    assert (await api.get("/api/leads")).json()["items"] == []
    back = await api.post(f"{path}/restore")
    assert back.status_code == 200
    assert back.json() == {**lead, "version": 3, "updated_at": back.json()["updated_at"]}
    assert (await api.get(path)).content == back.content
    events = await events_of(lead["id"])
    assert [(event["type"], event["subjectversion"]) for event in events] == [
        ("lead.created", 1),
        ("lead.deleted", 2),
        ("lead.restored", 3),
    ]
    assert [problems(event) for event in events] == [[], [], []]


async def test_restoring_onto_a_taken_email_is_409(api: httpx2.AsyncClient, path: str) -> None:
    await api.delete(path)
    taken = (await api.post("/api/leads", json={"email": "ada@example.com"})).json()
    answer = await api.post(f"{path}/restore")
    assert answer.status_code == 409
    assert answer.json()["existing_id"] == taken["id"]
    await api.delete(f"/api/leads/{taken['id']}")
    assert (await api.post(f"{path}/restore")).status_code == 200


async def test_a_stale_if_match_is_412_for_every_write_and_changes_nothing(
    api: httpx2.AsyncClient, path: str, subtests: pytest.Subtests
) -> None:
    current = (await api.patch(path, json={"score": 6})).json()
    for method, suffix, stale in (
        ("PUT", "", '"1.1"'),
        ("PATCH", "", '"1.1"'),
        ("DELETE", "", '"1.1"'),
        ("POST", "/restore", '"1.1"'),
        ("PATCH", "", 'W/"2.2"'),
        ("PATCH", "", "nonsense"),
    ):
        with subtests.test(f"{method} {stale}"):
            answer = await api.request(method, path + suffix, json={**ADA, "score": 7}, headers={"If-Match": stale})
            assert answer.status_code == 412
            assert answer.headers["etag"] == '"2.2"'
            assert (await api.get(path)).json() == current
    assert (await api.patch(path, json={"score": 8}, headers={"If-Match": '"1.1", "2.2"'})).status_code == 200
    assert (await api.patch(path, json={"score": 9}, headers={"If-Match": "*"})).status_code == 200


async def test_of_many_edits_of_one_version_exactly_one_succeeds(
    start_replica: Any, api: httpx2.AsyncClient, path: str
) -> None:
    other = (await start_replica()).client
    answers = await asyncio.gather(
        *((api, other)[n % 2].patch(path, json={"score": 10 + n}, headers={"If-Match": '"1.1"'}) for n in range(12))
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 11
    assert (await api.get(path)).json()["version"] == 2


async def test_edits_that_race_lose_nothing(
    start_replica: Any, api: httpx2.AsyncClient, path: str, lead: dict[str, Any], events_of: Any
) -> None:
    other = (await start_replica()).client
    answers = await asyncio.gather(*((api, other)[n % 2].patch(path, json={"custom": {f"k{n}": n}}) for n in range(24)))
    assert {answer.status_code for answer in answers} == {200}
    final = (await api.get(path)).json()
    assert final["custom"] == {**lead["custom"], **{f"k{n}": n for n in range(24)}}
    assert final["version"] == 25
    events = await events_of(lead["id"])
    assert [event["subjectversion"] for event in events] == list(range(1, 26))
    # Each event tells of exactly the step from the one before it.
    for before, after in pairwise(events):
        assert after["data"]["previous"]["custom"] == before["data"]["lead"]["custom"]
