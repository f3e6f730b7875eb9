"""A replica that dies in the middle of a write: the client repeats it on another one, and it has happened once."""

import asyncio
from typing import Any

import asyncpg
import httpx2
import pytest

from contracts.validation import problems
from deploy.local.servers import free_ports
from leads import repository, writer
from services.leads.tests.conftest import answering_as_auth
from tests.support.fixtures import eventually

KILLED = -9


async def outcome(client: httpx2.AsyncClient, method: str, path: str, body: Any) -> httpx2.Response | None:
    """The answer, or None if the connection broke."""
    try:
        return await client.request(method, path, json=body, headers={"Idempotency-Key": "k1"})
    except httpx2.TransportError:
        return None


@pytest.mark.parametrize(
    "place",
    [
        "leads.before_commit",
        "leads.after_commit",
        "leads.before_response",
        "outbox.before_publish",
        "outbox.after_publish",
    ],
)
async def test_a_create_cut_off_anywhere_is_made_once(
    replica: Any, start_process: Any, database: Any, events_of: Any, place: str
) -> None:
    dying = await start_process(failpoint=place)
    body = {"email": "ada@example.com"}
    first = await outcome(dying.client, "POST", "/api/leads", body)
    assert await dying.exit_code() == KILLED
    again = await outcome(replica.client, "POST", "/api/leads", body)
    assert again is not None
    assert again.status_code == 201
    if first is not None:
        assert first.content == again.content
    assert ("idempotency-replayed" in again.headers) == (place != "leads.before_commit")
    lead_id = again.json()["id"]
    assert await database.fetchval("SELECT count(*) FROM leads") == 1
    [event] = await events_of(lead_id)
    assert problems(event) == []
    assert event["data"]["lead"] == again.json()
    # The event's ten seconds with its dead writer are cut short here; then the other replica's relay takes it over.
    await database.execute("UPDATE outbox SET claimed_until = now()")

    async def published() -> bool:
        return bool(await database.fetchval("SELECT published_at IS NOT NULL FROM outbox WHERE subject = $1", lead_id))

    await eventually(published)


@pytest.mark.parametrize(
    ("place", "method", "suffix", "body"),
    [
        ("leads.before_commit", "PATCH", "", {"score": 9}),
        ("leads.after_commit", "PUT", "", {"email": "ada@example.com", "score": 9}),
        ("leads.before_response", "DELETE", "", None),
        # It passes the place once before: in the create that finds the lead in its way.
        ("leads.after_commit:2", "POST", "?on_duplicate=update", {"email": "ada@example.com", "score": 9}),
    ],
)
async def test_a_change_cut_off_anywhere_is_made_once_and_the_cache_shows_it(
    *, replica: Any, start_process: Any, events_of: Any, place: str, method: str, suffix: str, body: Any
) -> None:
    created = await replica.client.post("/api/leads", json={"email": "ada@example.com"})
    path = created.headers["location"]
    where = f"/api/leads{suffix}" if method == "POST" else path
    dying = await start_process(failpoint=place)
    assert await outcome(dying.client, method, where, body) is None
    assert await dying.exit_code() == KILLED
    again = await outcome(replica.client, method, where, body)
    assert again is not None
    assert again.status_code == (204 if method == "DELETE" else 200)
    read = await replica.client.get(path)
    if method == "DELETE":
        assert read.status_code == 404
    else:
        assert (read.status_code, read.json()["score"], read.json()["version"]) == (200, 9, 2)
    assert len(await events_of(created.json()["id"])) == 2


async def test_a_write_whose_connection_is_lost_under_it_is_tried_once_more(
    replica: Any, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server ends the session after it has committed and before its answer arrives."""
    lost = 0

    def losing(statement: Any) -> Any:
        async def run(connection: Any, *arguments: Any) -> Any:
            nonlocal lost
            result = await statement(connection, *arguments)
            if lost < 1:
                lost += 1
                raise ConnectionResetError("lost after the commit")
            return result

        return run

    monkeypatch.setattr(writer, "create_leads", losing(repository.create_leads))
    created = await replica.client.post("/api/leads", json={"email": "ada@example.com"})
    assert (created.status_code, created.headers["idempotency-replayed"]) == (201, "true")
    lost = 0
    allowed = await replica.client.post("/api/leads?on_duplicate=allow", json={"email": "ada@example.com"})
    assert (allowed.status_code, allowed.headers["idempotency-replayed"]) == (201, "true")
    lost = 0
    monkeypatch.setattr(repository, "change_lead", losing(repository.change_lead))
    path = created.headers["location"]
    changed = await replica.client.patch(path, json={"score": 4})
    assert (changed.status_code, changed.headers["idempotency-replayed"]) == (200, "true")
    assert (await replica.client.get(path)).content == changed.content
    assert await database.fetchval("SELECT count(*) FROM leads") == 2
    assert await database.fetchval("SELECT count(*) FROM outbox") == 3


async def test_a_replica_takes_no_request_before_it_can_judge_its_token(start_replica: Any, identity: Any) -> None:
    """Another replica, which knows the keys, can answer it meanwhile."""
    [port] = free_ports(1)
    starting = asyncio.create_task(start_replica(internal_url=f"http://127.0.0.1:{port}"))
    started, _ = await asyncio.wait({starting}, timeout=1)
    assert not started
    async with answering_as_auth(identity, port):
        replica = await asyncio.wait_for(starting, 5)
        assert (await replica.client.get("/api/leads")).status_code == 200


async def test_a_change_whose_request_runs_out_of_time_is_carried_out_whole(
    start_replica: Any, database: Any, worker: Any
) -> None:
    replica = await start_replica(request_deadline_seconds=1)
    impatient = replica.client
    await asyncio.wait_for(replica.state["resources"].bus.publishing.up.wait(), 20)
    created = await impatient.post("/api/leads", json={"email": "ada@example.com"})
    path, key = created.headers["location"], {"Idempotency-Key": "k1"}
    async with database.transaction():
        await database.execute("SELECT 1 FROM leads FOR UPDATE")
        changing = asyncio.create_task(impatient.patch(path, json={"score": 4}, headers=key))
        await asyncio.sleep(1.5)
    assert (await changing).status_code == 503
    again = await impatient.patch(path, json={"score": 4}, headers=key)
    assert (again.status_code, again.headers["idempotency-replayed"]) == (200, "true")
    assert (await impatient.get(path)).content == again.content

    async def published() -> bool:
        return bool(await database.fetchval("SELECT count(*) = 0 FROM outbox WHERE published_at IS NULL"))

    await eventually(published, seconds=5)


async def test_a_database_that_stays_away_is_503_and_worth_another_try(
    replica: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lead = (await replica.client.post("/api/leads", json={"email": "ada@example.com"})).json()

    async def lose(*_: Any) -> Any:
        raise ConnectionResetError("gone")

    monkeypatch.setattr(writer, "create_leads", lose)
    monkeypatch.setattr(repository, "change_lead", lose)
    for method, path in (("POST", "/api/leads"), ("PATCH", f"/api/leads/{lead['id']}")):
        answer = await replica.client.request(method, path, json={"email": "eve@example.com"})
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"


async def test_the_session_is_ended_by_the_server_and_the_next_request_does_not_notice(
    replica: Any, database: Any, servers: Any
) -> None:
    lead = (await replica.client.post("/api/leads", json={"email": "ada@example.com"})).json()
    name = await database.fetchval("SELECT current_database()")
    owner = await asyncpg.connect(servers.postgres_dsn)
    try:
        for number in range(5):
            await owner.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND application_name = 'leads'",
                name,
            )
            created = await replica.client.post("/api/leads", json={"email": f"a{number}@example.com"})
            assert created.status_code == 201
            changed = await replica.client.patch(f"/api/leads/{lead['id']}", json={"score": number + 1})
            assert changed.status_code == 200
            listed = await replica.client.get("/api/leads")
            assert len(listed.json()["items"]) == number + 2
    finally:
        await owner.close()
