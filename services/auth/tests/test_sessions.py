"""Sessions are listed and ended; an ended one is refused by every replica, by one that has just started too."""

import time

import pytest

from auth.main import own_pruning
from chassis.ids import new_id
from tests.support.fixtures import eventually


async def ended_sessions(api):
    return {each["session_id"]: each["until"] for each in (await api.get("/internal/sessions/ended")).json()["ended"]}


async def test_ones_own_sessions_are_listed_newest_first(api, auth, agent, sign_in):
    async with auth.client("192.0.2.9") as elsewhere:
        elsewhere.headers["user-agent"] = "x" * 300
        other = await sign_in(agent.email, client=elsewhere)
    items = (await api.get("/api/auth/sessions", headers=agent.headers)).json()["items"]
    assert [item["id"] for item in items] == [other.session_id, agent.session_id]
    assert [item["current"] for item in items] == [False, True]
    assert items[0]["address"] == "192.0.2.9"
    assert items[0]["user_agent"] == "x" * 256
    assert set(items[0]) == {
        "id", "user_id", "current", "address", "user_agent", "created_at", "last_used_at", "expires_at"
    }  # fmt: skip


async def test_sessions_are_listed_page_by_page(api, agent, sign_in):
    expected = [agent.session_id] + [(await sign_in(agent.email)).session_id for _ in range(4)]
    found, cursor = [], None
    for _ in range(3):
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await api.get("/api/auth/sessions", params=params, headers=agent.headers)).json()
        found += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert cursor is None
    assert found == expected[::-1]


async def test_an_administrator_lists_and_ends_another_users_sessions(api, admin, agent):
    params = {"user_id": agent.id}
    items = (await api.get("/api/auth/sessions", params=params, headers=admin.headers)).json()["items"]
    assert [item["id"] for item in items] == [agent.session_id]
    assert (await api.delete("/api/auth/sessions", params=params, headers=admin.headers)).status_code == 204
    assert agent.session_id in await ended_sessions(api)
    assert admin.session_id not in await ended_sessions(api)


async def test_nobody_else_lists_or_ends_another_users_sessions(api, admin, agent):
    params = {"user_id": admin.id}
    assert (await api.get("/api/auth/sessions", params=params, headers=agent.headers)).status_code == 403
    assert (await api.delete("/api/auth/sessions", params=params, headers=agent.headers)).status_code == 403
    assert (await api.delete(f"/api/auth/sessions/{admin.session_id}", headers=agent.headers)).status_code == 404
    assert admin.session_id not in await ended_sessions(api)


async def test_sessions_of_another_workspace_do_not_exist(api, admin, stranger):
    params = {"user_id": admin.id}
    assert (await api.get("/api/auth/sessions", params=params, headers=stranger.headers)).status_code == 404
    assert (await api.delete("/api/auth/sessions", params=params, headers=stranger.headers)).status_code == 404
    assert (await api.delete(f"/api/auth/sessions/{admin.session_id}", headers=stranger.headers)).status_code == 404
    assert admin.session_id not in await ended_sessions(api)


@pytest.mark.parametrize("session_id", ["sess_00000000000000000000000000", "nonsense", "%00", "x" * 300])
async def test_ending_an_unknown_session_is_404(api, admin, session_id):
    assert (await api.delete(f"/api/auth/sessions/{session_id}", headers=admin.headers)).status_code == 404


@pytest.mark.parametrize("params", [{"limit": 0}, {"limit": 201}, {"limit": "many"}, {"user_id": "x" * 100}])
async def test_a_list_that_cannot_be_is_422(api, admin, params):
    answer = await api.get("/api/auth/sessions", params=params, headers=admin.headers)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == f"?{next(iter(params))}"


async def test_a_cursor_that_is_damaged_or_of_another_list_is_400(api, admin, agent, sign_in):
    await sign_in(agent.email)
    params = {"limit": 1, "user_id": agent.id}
    cursor = (await api.get("/api/auth/sessions", params=params, headers=admin.headers)).json()["next_cursor"]
    for wrong in ("nonsense", "%%%", "bnVsbA", cursor[:-3], cursor):
        answer = await api.get("/api/auth/sessions", params={"cursor": wrong}, headers=admin.headers)
        assert answer.status_code == 400, wrong


async def test_an_ended_session_cannot_be_refreshed_and_is_announced_to_verifiers(api, admin, agent):
    before = time.time()
    answer = await api.delete(f"/api/auth/sessions/{agent.session_id}", headers=admin.headers)
    assert answer.status_code == 204
    assert (await api.post("/api/auth/refresh", json={"refresh_token": agent.refresh_token})).status_code == 401
    until = (await ended_sessions(api))[agent.session_id]
    # Until the last access token is over: 15 minutes and the leeway that verifiers allow.
    assert before + 929 < until < time.time() + 931


async def test_ending_a_session_twice_is_no_error_and_a_key_replays(api, admin, agent):
    headers = admin.headers | {"Idempotency-Key": "end-it"}
    path = f"/api/auth/sessions/{agent.session_id}"
    first = await api.delete(path, headers=headers)
    second = await api.delete(path, headers=headers)
    third = await api.delete(path, headers=admin.headers)
    assert [first.status_code, second.status_code, third.status_code] == [204, 204, 204]
    assert second.headers["idempotency-replayed"] == "true"
    other = await api.delete("/api/auth/sessions", headers=headers)
    assert other.status_code == 422


async def test_ending_all_ones_sessions_ends_the_current_one_too(api, agent, sign_in):
    other = await sign_in(agent.email)
    assert (await api.delete("/api/auth/sessions", headers=agent.headers)).status_code == 204
    assert {agent.session_id, other.session_id} <= set(await ended_sessions(api))


async def test_logout_ends_the_session_and_only_that(api, agent, sign_in):
    other = await sign_in(agent.email)
    assert (await api.post("/api/auth/logout", headers=agent.headers)).status_code == 204
    assert (await api.post("/api/auth/refresh", json={"refresh_token": agent.refresh_token})).status_code == 401
    assert (await api.post("/api/auth/refresh", json={"refresh_token": other.refresh_token})).status_code == 200


async def test_every_replica_refuses_an_ended_session_within_five_seconds_a_new_one_at_once(
    api, auth, agent, settings, start
):
    second = await start(settings)
    async with second.client() as there:
        assert (await there.get("/api/auth/me", headers=agent.headers)).status_code == 200
        assert (await api.post("/api/auth/logout", headers=agent.headers)).status_code == 204

        async def refused():
            answers = [await client.get("/api/auth/me", headers=agent.headers) for client in (api, there)]
            return all(answer.status_code == 401 for answer in answers)

        await eventually(refused, seconds=5)
    third = await start(settings)
    async with third.client() as there:
        assert (await there.get("/api/auth/me", headers=agent.headers)).status_code == 401


async def test_over_sessions_and_old_tokens_are_pruned_and_living_ones_stay(auth, api, agent, sign_in, rows):
    over, idle = await sign_in(agent.email), await sign_in(agent.email)
    await api.post("/api/auth/refresh", json={"refresh_token": agent.refresh_token})
    await rows.execute(
        "UPDATE sessions SET ended_at = now() - interval '25 hours', end_reason = 'logout' WHERE id = $1",
        over.session_id,
    )
    await rows.execute("UPDATE sessions SET expires_at = now() - interval '25 hours' WHERE id = $1", idle.session_id)
    await rows.execute(
        "UPDATE refresh_tokens SET rotated_at = now() - interval '31 days' WHERE session_id = $1 AND rotated_at IS NOT NULL",
        agent.session_id,
    )
    await rows.execute(
        "INSERT INTO login_failures VALUES ('pair', $1, 3, now() - interval '2 days')", new_id("x").encode()
    )
    for prune in own_pruning(auth.state["resources"].database):
        await prune.run_once()
    left = await rows.fetch("SELECT id FROM sessions WHERE user_id = $1", agent.id)
    assert {record["id"] for record in left} == {agent.session_id}
    tokens = "SELECT count(*) FROM refresh_tokens WHERE session_id = $1"
    assert [await rows.fetchval(tokens, each.session_id) for each in (agent, over, idle)] == [1, 0, 0]
    old = "SELECT count(*) FROM login_failures WHERE last_failed_at < now() - interval '1 day'"
    assert await rows.fetchval(old) == 0
