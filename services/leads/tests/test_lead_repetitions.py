"""A request that is repeated has its effect once, for every write method."""

import asyncio
from collections import Counter
from typing import Any

import httpx2
import pytest

KEY = {"Idempotency-Key": "k1"}
ADA = {"email": "ada@example.com", "first_name": "Ada"}


async def test_a_repeated_create_is_answered_again_and_not_made_again(api: httpx2.AsyncClient, database: Any) -> None:
    first = await api.post("/api/leads", json=ADA, headers=KEY)
    again = await api.post("/api/leads", json=ADA, headers={"Idempotency-Key": '"k1"'})
    assert again.status_code == 201
    assert again.content == first.content
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    for name in ("location", "etag"):
        assert again.headers[name] == first.headers[name]
    assert await database.fetchval("SELECT count(*) FROM outbox") == 1


async def test_every_write_method_answers_its_repetition_as_the_first_time(
    api: httpx2.AsyncClient, events_of: Any, subtests: pytest.Subtests
) -> None:
    lead = (await api.post("/api/leads", json=ADA)).json()
    path = f"/api/leads/{lead['id']}"
    # Each would fail if its repetition were judged as a new request: If-Match names the version before, the deleted lead is gone.
    writes: list[tuple[str, str, dict[str, Any] | None, str]] = [
        ("PUT", path, {**ADA, "score": 5}, '"1.1"'),
        ("PATCH", path, {"score": 6}, '"2.2"'),
        ("PATCH", path, {"score": 6}, '"3.3"'),  # changes nothing
        ("DELETE", path, None, '"3.3"'),
        ("POST", f"{path}/restore", None, '"4.4"'),
    ]
    for number, (method, where, body, tag) in enumerate(writes):
        with subtests.test(f"{number} {method}"):
            headers = {"Idempotency-Key": f"k{number}", "If-Match": tag}
            first = await api.request(method, where, json=body, headers=headers)
            assert first.is_success, first.text
            again = await api.request(method, where, json=body, headers=headers)
            assert (again.status_code, again.content) == (first.status_code, first.content)
            assert again.headers.get("etag") == first.headers.get("etag")
            assert again.headers["idempotency-replayed"] == "true"
    types = [event["type"] for event in await events_of(lead["id"])]
    assert types == ["lead.created", "lead.updated", "lead.updated", "lead.deleted", "lead.restored"]


async def test_a_repetition_comes_before_every_other_check(
    api: httpx2.AsyncClient, database: Any, add_user: Any
) -> None:
    owner = await add_user("user_9")
    first = await api.post("/api/leads", json={**ADA, "owner_id": owner}, headers=KEY)
    # What was right the first time is wrong by now: the owner has left, the lead is gone, another has its e-mail.
    await database.execute("UPDATE users SET active = false")
    await api.delete(first.headers["location"])
    await api.post("/api/leads", json=ADA)
    again = await api.post("/api/leads", json={**ADA, "owner_id": owner}, headers=KEY)
    assert (again.status_code, again.content) == (201, first.content)


async def test_a_repetition_is_answered_although_its_body_would_be_refused_by_now(
    api: httpx2.AsyncClient, database: Any
) -> None:
    national = {"phone": "(415) 555-0100"}
    first = await api.post("/api/leads", json=national, headers=KEY)
    await database.execute("INSERT INTO workspace_settings VALUES ('ws_1', 'LI')")
    assert (await api.post("/api/leads", json=national)).status_code == 422
    again = await api.post("/api/leads", json=national, headers=KEY)
    assert (again.status_code, again.content) == (201, first.content)


async def test_a_key_used_for_another_request_is_422_and_changes_nothing(
    api: httpx2.AsyncClient, database: Any, subtests: pytest.Subtests
) -> None:
    lead = (await api.post("/api/leads", json=ADA, headers=KEY)).json()
    path = f"/api/leads/{lead['id']}"
    others: list[tuple[str, str, Any]] = [
        ("POST", "/api/leads", {**ADA, "score": 1}),
        ("POST", "/api/leads", {"email": "eve@example.com"}),
        ("POST", "/api/leads?on_duplicate=allow", ADA),
        ("POST", "/api/leads?on_duplicate=update", {**ADA, "score": 1}),
        ("POST", "/api/leads", {"email": "nobody"}),
        ("PUT", path, ADA),
        ("PATCH", path, {"score": 1}),
        ("DELETE", path, None),
        ("POST", f"{path}/restore", None),
        ("PUT", "/api/leads/settings", {"default_region": "DE"}),
    ]
    for method, where, body in others:
        with subtests.test(f"{method} {where} {body}"):
            answer = await api.request(method, where, json=body, headers=KEY)
            assert answer.status_code == 422
            assert "Idempotency-Key" in answer.json()["detail"]
    assert await database.fetchval("SELECT count(*) FROM leads") == 1
    assert await database.fetchval("SELECT count(*) FROM outbox") == 1
    assert (await api.get(path)).json() == lead


async def test_only_a_success_uses_up_a_key(api: httpx2.AsyncClient) -> None:
    await api.post("/api/leads", json=ADA)
    assert (await api.post("/api/leads", json=ADA, headers=KEY)).status_code == 409
    assert (await api.post("/api/leads", json={"email": "x"}, headers=KEY)).status_code == 422
    assert (await api.patch("/api/leads/lead_unknown", json={}, headers=KEY)).status_code == 404
    assert (await api.post("/api/leads", json={"email": "eve@example.com"}, headers=KEY)).status_code == 201


async def test_a_key_belongs_to_its_workspace_and_principal(api: httpx2.AsyncClient, identity: Any) -> None:
    first = await api.post("/api/leads", json=ADA, headers=KEY)
    colleague = {**KEY, **identity.headers(sub="user_2", sid="sess_2")}
    elsewhere = {**KEY, **identity.headers(workspace="ws_2")}
    assert (await api.post("/api/leads", json={"email": "eve@example.com"}, headers=colleague)).status_code == 201
    other = await api.post("/api/leads", json=ADA, headers=elsewhere)
    assert other.status_code == 201
    assert other.json()["id"] != first.json()["id"]


async def test_without_a_key_the_gateways_own_id_counts(api: httpx2.AsyncClient) -> None:
    sent = {"X-Gateway-Request": "gwr_1"}
    first = await api.post("/api/leads", json=ADA, headers=sent)
    again = await api.post("/api/leads", json=ADA, headers=sent)
    assert (again.status_code, again.content) == (201, first.content)
    assert (await api.post("/api/leads", json=ADA, headers={"X-Gateway-Request": "gwr_2"})).status_code == 409


@pytest.mark.parametrize("query", ["", "?on_duplicate=allow", "?on_duplicate=update"])
async def test_a_key_that_was_kept_long_enough_is_free_again(
    api: httpx2.AsyncClient, database: Any, query: str
) -> None:
    first = (await api.post("/api/leads", json=ADA, headers=KEY)).json()
    await database.execute("UPDATE idempotency_keys SET expires_at = now() - interval '1 second'")
    answer = await api.post(f"/api/leads{query}", json={"email": "eve@example.com"}, headers=KEY)
    assert answer.status_code == 201
    assert answer.json()["id"] != first["id"]


async def test_the_same_key_from_20_connections_at_once_gives_one_lead_and_20_equal_answers(
    start_process: Any, database: Any, subtests: pytest.Subtests
) -> None:
    replicas = [await start_process() for _ in range(2)]
    for query in ("", "?on_duplicate=allow", "?on_duplicate=return"):
        with subtests.test(query):
            email = {"email": f"ada{len(query)}@example.com"}
            key = {"Idempotency-Key": f"k{query}"}
            answers = await asyncio.gather(
                *(replicas[n % 2].client.post(f"/api/leads{query}", json=email, headers=key) for n in range(20))
            )
            assert Counter(answer.status_code for answer in answers) == {201: 20}
            assert len({answer.content for answer in answers}) == 1
            fresh = [answer for answer in answers if "idempotency-replayed" not in answer.headers]
            assert len(fresh) == 1
            lead_id = answers[0].json()["id"]
            assert await database.fetchval("SELECT count(*) FROM leads WHERE email = $1", email["email"]) == 1
            assert await database.fetchval("SELECT count(*) FROM outbox WHERE subject = $1", lead_id) == 1


async def test_mixed_keys_and_emails_at_once_give_one_lead_each_and_no_error(start_replica: Any, database: Any) -> None:
    replicas = [await start_replica() for _ in range(2)]
    requests = [(f"a{n % 12}@example.com", f"key-{n % 20}-{n % 12}") for n in range(120)]
    answers = await asyncio.gather(
        *(
            replicas[n % 2].client.post("/api/leads", json={"email": email}, headers={"Idempotency-Key": key})
            for n, (email, key) in enumerate(requests)
        )
    )
    assert {answer.status_code for answer in answers} == {201, 409}
    ids_by_key: dict[str, set[str]] = {}
    for (_, key), answer in zip(requests, answers, strict=True):
        if answer.status_code == 201:
            ids_by_key.setdefault(key, set()).add(answer.json()["id"])
    assert all(len(ids) == 1 for ids in ids_by_key.values())
    assert len(ids_by_key) == 12
    for table in ("leads", "outbox", "idempotency_keys"):
        assert await database.fetchval(f"SELECT count(*) FROM {table}") == 12


async def test_a_repetition_among_new_leads_spoils_nothing_for_them(api: httpx2.AsyncClient, database: Any) -> None:
    first = await api.post("/api/leads?on_duplicate=allow", json=ADA, headers=KEY)

    async def create(number: int) -> httpx2.Response:
        if number == 5:
            return await api.post("/api/leads?on_duplicate=allow", json=ADA, headers=KEY)
        return await api.post("/api/leads", json={"email": f"a{number}@example.com"})

    answers = await asyncio.gather(*(create(number) for number in range(10)))
    assert {answer.status_code for answer in answers} == {201}
    assert answers[5].content == first.content
    assert answers[5].headers["idempotency-replayed"] == "true"
    for table in ("leads", "outbox", "idempotency_keys"):
        assert await database.fetchval(f"SELECT count(*) FROM {table}") == 10


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(("headers", "status"), [(KEY, 409), ({"X-Gateway-Request": "gwr_1"}, 503)])
async def test_a_key_whose_first_request_is_still_running_is_told_to_come_back(
    *,
    replica: Any,
    database: Any,
    monkeypatch: pytest.MonkeyPatch,
    headers: dict[str, str],
    status: int,
    method: str,
) -> None:
    lead = (await replica.client.post("/api/leads", json={"email": "lea@example.com"})).json()
    path = "/api/leads" if method == "POST" else f"/api/leads/{lead['id']}"
    pool = replica.state["resources"].database
    key = headers.get("Idempotency-Key") or f"gw:{headers['X-Gateway-Request']}"
    original = pool.acquire

    def impatient() -> Any:
        return _Impatient(original())

    monkeypatch.setattr(pool, "acquire", impatient)
    async with database.transaction():
        # Another process is in the middle of a transaction with this key.
        await database.execute(
            "INSERT INTO idempotency_keys (workspace_id, principal, key, fingerprint, expires_at)"
            " VALUES ('ws_1', 'user_1', $1, '', now() + interval '1 day')",
            key,
        )
        answer = await replica.client.request(method, path, json=ADA, headers=headers)
        assert answer.status_code == status, answer.text
        assert "still running" in answer.json()["detail"]
        assert answer.headers["retry-after"] == "1"
        # Others are not held up by it.
        other = await replica.client.post("/api/leads", json={"email": "eve@example.com"})
        assert other.status_code == 201
    assert await database.fetchval("SELECT count(*) FROM leads") == 2
    assert (await replica.client.get(f"/api/leads/{lead['id']}")).json() == lead


class _Impatient:
    """A connection that waits for locks for 0.2 s instead of 5."""

    def __init__(self, acquiring: Any) -> None:
        self._acquiring = acquiring

    async def __aenter__(self) -> Any:
        connection = await self._acquiring.__aenter__()
        await connection.execute("SET lock_timeout = '200ms'")
        return connection

    async def __aexit__(self, *raised: Any) -> None:
        await self._acquiring.__aexit__(*raised)
