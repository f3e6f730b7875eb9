"""One key, one effect, one answer: at once, afterwards, and when the first attempt died."""

import asyncio
import signal

from chassis.ids import new_id
from tests.guarantees.history import History
from tests.support.system import Client, RunningSystem


async def test_twenty_connections_with_one_key_make_one_lead_and_get_equal_answers(
    system: RunningSystem, client: Client
) -> None:
    key, email = new_id("key"), f"{new_id('twenty')}@example.com"
    clients = [await system.sign_in_as(client) for _ in range(20)]
    answers = await asyncio.gather(
        *(each.post("/api/leads", {"email": email, "score": 5}, Idempotency_Key=key) for each in clients)
    )
    for each in clients:
        await each.close()
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    rows = await system.sql("leads", "SELECT count(*) AS n FROM leads WHERE email = $1", email)
    assert rows[0]["n"] == 1


async def test_a_key_for_another_body_is_refused_and_a_repetition_is_marked(client: Client) -> None:
    key, email = new_id("key"), f"{new_id('body')}@example.com"
    first = await client.post("/api/leads", {"email": email}, Idempotency_Key=key)
    again = await client.post("/api/leads", {"email": email}, Idempotency_Key=f'"{key}"')
    other = await client.post("/api/leads", {"email": email, "score": 1}, Idempotency_Key=key)
    assert (first.status_code, again.status_code, other.status_code) == (201, 201, 422)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.content == first.content


async def test_a_repeated_change_with_a_stale_tag_and_a_repeated_delete_get_their_first_answers(client: Client) -> None:
    lead = (await client.post("/api/leads", {"email": f"{new_id('stale')}@example.com"})).json()
    path, key = f"/api/leads/{lead['id']}", new_id("key")
    first = await client.put(path, {"email": lead["email"], "score": 9}, If_Match='"1"', Idempotency_Key=key)
    again = await client.put(path, {"email": lead["email"], "score": 9}, If_Match='"1"', Idempotency_Key=key)
    stale = await client.put(path, {"email": lead["email"], "score": 8}, If_Match='"1"')
    assert (first.status_code, again.status_code, stale.status_code) == (200, 200, 412)
    deletion = new_id("key")
    assert [(await client.delete(path, Idempotency_Key=deletion)).status_code for _ in range(2)] == [204, 204]
    assert (await client.delete(path)).status_code == 404


async def test_a_clients_own_retry_after_both_replicas_died_finds_the_first_attempts_lead(
    system: RunningSystem, client: Client
) -> None:
    """Killed after the commit on both tries: the gateway gives up, the client repeats with its key."""
    for name in ("leads-1", "leads-2"):
        system.respawn(name, FAILPOINT="leads.after_commit")
    history, key, email = History(), new_id("key"), f"{new_id('both')}@example.com"
    first = await client.post("/api/leads", {"email": email}, Idempotency_Key=key)
    for name in ("leads-1", "leads-2"):
        if system.processes[name].poll() is None:
            await history.create(client)
        assert await system.died(name) == -signal.SIGKILL
        system.spawn(name)
    system.wait_ready("leads-1", "leads-2")
    second = await client.post("/api/leads", {"email": email}, Idempotency_Key=key)
    assert first.status_code in {201, 502, 504}
    assert second.status_code == 201
    rows = await system.sql("leads", "SELECT id FROM leads WHERE email = $1", email)
    assert [row["id"] for row in rows] == [second.json()["id"]]


async def test_the_same_request_id_twice_is_two_requests(client: Client) -> None:
    request_id = new_id("req")
    answers = [
        await client.post("/api/leads", {"email": f"{new_id('rid')}@example.com"}, X_Request_ID=request_id)
        for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json()["id"] != answers[1].json()["id"]
    assert {answer.headers["x-request-id"] for answer in answers} == {request_id}
