"""Bad requests: each is the right 4xx problem that says where, and leaves nothing behind."""

from typing import Any

import httpx2
import pytest

JSON = {"Content-Type": "application/json"}
GOOD = b'{"email": "ada@example.com"}'


def nested(depth: int) -> bytes:
    return b'{"email": "ada@example.com", "custom": ' + b'{"a": ' * depth + b"1" + b"}" * depth + b"}"


# name, body, headers, status, pointer of the first error (None: no pointer)
BODIES: list[tuple[str, bytes, dict[str, str], int, str | None]] = [
    ("malformed", b'{"email": ', JSON, 400, None),
    ("empty", b"", JSON, 400, None),
    ("two documents", GOOD + GOOD, JSON, 400, None),
    ("not UTF-8", b'{"email": "\xff@example.com"}', JSON, 400, None),
    ("NaN", b'{"email": "ada@example.com", "custom": {"a": NaN}}', JSON, 400, None),
    ("a number too large for any float", b'{"email": "ada@example.com", "custom": {"a": 1e999}}', JSON, 400, None),
    ("lone surrogate", b'{"email": "ada@example.com", "first_name": "\\ud800"}', JSON, 400, None),
    ("endless nesting", b'{"custom": ' + b"[" * 100_000, JSON, 400, None),
    ("an array", b"[]", JSON, 422, ""),
    ("a text", b'"ada@example.com"', JSON, 422, ""),
    ("null", b"null", JSON, 422, ""),
    ("NUL in a text", b'{"email": "ada@example.com", "first_name": "A\\u0000"}', JSON, 422, "/first_name"),
    ("NUL in a name", b'{"email": "ada@example.com", "custom": {"a\\u0000": 1}}', JSON, 422, "/custom"),
    ("deep nesting", nested(40), JSON, 422, None),
    ("nesting deeper than custom fields may be", nested(7), JSON, 422, "/custom"),
    ("wrong type", b'{"email": 5}', JSON, 422, "/email"),
    ("unknown field", b'{"email": "ada@example.com", "emial": "x"}', JSON, 422, "/emial"),
    ("nothing to reach the lead by", b'{"first_name": "Ada"}', JSON, 422, "/email"),
    ("too long", b'{"email": "ada@example.com", "company": "' + b"x" * 201 + b'"}', JSON, 422, "/company"),
    ("too many digits", b'{"email": "ada@example.com", "custom": {"a": 123456789012345678901}}', JSON, 422, "/custom"),
    ("a form", b"email=ada@example.com", {"Content-Type": "application/x-www-form-urlencoded"}, 415, None),
    ("text", GOOD, {"Content-Type": "text/plain"}, 415, None),
    ("no media type", GOOD, {"Content-Type": ""}, 415, None),
    ("too large", b'{"email": "' + b"x" * 1_048_564 + b'"}', JSON, 413, None),
    ("an endless key", GOOD, {**JSON, "Idempotency-Key": "k" * 256}, 400, None),
    ("an empty key", GOOD, {**JSON, "Idempotency-Key": ""}, 400, None),
    ("the gateway's key", GOOD, {**JSON, "Idempotency-Key": "gw:1"}, 400, None),
]


@pytest.fixture
async def lead(api: httpx2.AsyncClient) -> dict[str, Any]:
    created: dict[str, Any] = (await api.post("/api/leads", json={"email": "eve@example.com"})).json()
    return created


async def test_a_bad_body_is_refused_and_leaves_nothing_behind(
    api: httpx2.AsyncClient, database: Any, lead: dict[str, Any], subtests: pytest.Subtests
) -> None:
    for method in ("POST", "PUT", "PATCH"):
        path = "/api/leads" if method == "POST" else f"/api/leads/{lead['id']}"
        for name, body, headers, status, pointer in BODIES:
            if (method, name) == ("PATCH", "nothing to reach the lead by"):
                continue  # a patch leaves the e-mail as it is
            with subtests.test(f"{method} {name}"):
                answer = await api.request(method, path, content=body, headers=headers)
                assert answer.status_code == status, answer.text
                assert answer.headers["content-type"] == "application/problem+json"
                problem = answer.json()
                assert (problem["status"], problem["instance"]) == (status, path)
                assert problem["request_id"] == answer.headers["x-request-id"]
                if pointer is not None:
                    assert problem["errors"][0]["pointer"] == pointer
                for table in ("leads", "outbox", "idempotency_keys"):
                    assert await database.fetchval(f"SELECT count(*) FROM {table}") == 1, table
                assert (await api.get(f"/api/leads/{lead['id']}")).json() == lead


BAD_QUERIES = [
    ("limit=0", 422, "?limit"),
    ("limit=201", 422, "?limit"),
    ("limit=many", 422, "?limit"),
    ("limit=1&limit=2", 422, "?limit"),
    ("sort=email", 422, "?sort"),
    ("stage=hot", 422, "?stage"),
    ("score_min=101", 422, "?score_min"),
    ("created_after=yesterday", 422, "?created_after"),
    ("created_after=2026-11-25T08:30:00", 422, "?created_after"),
    ("created_after=0001-01-01T00:00:00%2B14:00", 422, "?created_after"),
    ("updated_before=9999-12-31T23:59:59-14:00", 422, "?updated_before"),
    ("email=nobody", 422, "?email"),
    ("phone=12", 422, "?phone"),
    ("colour=red", 422, "?colour"),
    ("q=a%00b", 422, "?q"),
    ("source=a%00b", 422, "?source"),
    ("q=" + "x" * 201, 422, "?q"),
    ("q=" + "+".join("abcdefghi"), 422, "?q"),
    ("cursor=hello", 400, None),
    ("cursor=%00", 422, "?cursor"),
    ("cursor=WyJhIl0", 400, None),
    ("cursor=" + "x" * 2_001, 422, "?cursor"),
]


async def test_a_bad_query_is_refused_by_its_parameter(api: httpx2.AsyncClient, subtests: pytest.Subtests) -> None:
    for query, status, pointer in BAD_QUERIES:
        with subtests.test(query[:40]):
            answer = await api.get(f"/api/leads?{query}")
            assert answer.status_code == status, answer.text
            if pointer is not None:
                assert answer.json()["errors"][0]["pointer"] == pointer


OPERATIONS = [("GET", ""), ("PUT", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/restore"), ("GET", "/timeline")]


async def test_an_id_that_is_nobodys_is_404_for_every_operation(
    api: httpx2.AsyncClient, subtests: pytest.Subtests
) -> None:
    for method, suffix in OPERATIONS:
        for lead_id in ("lead_unknown", "lead%00", "x" * 65, "lead_%F0%9F%98%80", "..%2Fleads", "%22"):
            with subtests.test(f"{method} {lead_id}{suffix}"):
                answer = await api.request(method, f"/api/leads/{lead_id}{suffix}", json={"email": "a@example.com"})
                assert answer.status_code == 404
                assert answer.headers["content-type"] == "application/problem+json"


async def test_another_workspaces_lead_is_404_for_every_operation(
    api: httpx2.AsyncClient, identity: Any, lead: dict[str, Any], subtests: pytest.Subtests
) -> None:
    path = f"/api/leads/{lead['id']}"
    await api.get(path)  # so that the cache holds it
    stranger = identity.headers(workspace="ws_2")
    for method, suffix in OPERATIONS:
        with subtests.test(f"{method} {suffix}"):
            answer = await api.request(method, path + suffix, json={"email": "a@example.com"}, headers=stranger)
            assert answer.status_code == 404
            assert (await api.get(path)).json() == lead


async def test_another_workspaces_leads_are_not_listed_and_stand_in_nobodys_way(
    api: httpx2.AsyncClient, identity: Any, lead: dict[str, Any]
) -> None:
    elsewhere = identity.headers(workspace="ws_2")
    assert (await api.get("/api/leads", headers=elsewhere)).json() == {"items": [], "next_cursor": None}
    answer = await api.post("/api/leads", json={"email": lead["email"]}, headers=elsewhere)
    assert answer.status_code == 201


async def test_bad_settings_are_422(api: httpx2.AsyncClient, subtests: pytest.Subtests) -> None:
    for body in ({"default_region": "XX"}, {"default_region": "us"}, {"default_region": None}, {}, {"region": "US"}):
        with subtests.test(str(body)):
            assert (await api.put("/api/leads/settings", json=body)).status_code == 422
            assert (await api.get("/api/leads/settings")).json() == {"default_region": "US"}


async def test_settings_are_an_administrators_and_keep_to_their_tag(api: httpx2.AsyncClient, identity: Any) -> None:
    refused = await api.put(
        "/api/leads/settings", json={"default_region": "DE"}, headers=identity.headers(role="agent")
    )
    assert refused.status_code == 403
    before = await api.get("/api/leads/settings")
    assert (await api.get("/api/leads/settings", headers={"If-None-Match": before.headers["etag"]})).status_code == 304
    match = {"If-Match": before.headers["etag"]}
    assert (await api.put("/api/leads/settings", json={"default_region": "DE"}, headers=match)).status_code == 200
    stale = await api.put("/api/leads/settings", json={"default_region": "FR"}, headers=match)
    assert stale.status_code == 412
    assert stale.headers["etag"] == '"DE"'
