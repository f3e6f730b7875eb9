"""Refresh tokens rotate; a repeated refresh does not sign anybody out, and a stolen token does not live long."""

import asyncio

import jwt

from auth.tokens import read_refresh_token


def sid_of(document):
    return jwt.decode(document["access_token"], options={"verify_signature": False})["sid"]


async def refresh(api, token):
    return await api.post("/api/auth/refresh", json={"refresh_token": token})


async def rotated_earlier(rows, token, seconds):
    """Make the token's rotation lie `seconds` further back."""
    presented = read_refresh_token(token)
    assert presented is not None
    statement = "UPDATE refresh_tokens SET rotated_at = rotated_at - make_interval(secs => $2) WHERE token_hash = $1"
    changed = await rows.execute(statement, presented.token_hash, float(seconds))
    assert changed == "UPDATE 1"


async def test_a_refresh_gives_the_next_pair_of_the_same_session(api, agent):
    answer = await refresh(api, agent.refresh_token)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    document = answer.json()
    assert sid_of(document) == agent.session_id
    assert document["refresh_token"] != agent.refresh_token
    assert document["user"]["id"] == agent.id
    assert (await refresh(api, document["refresh_token"])).status_code == 200


async def test_an_old_token_within_the_grace_yields_another_successor_of_the_same_session(api, agent, rows):
    first = (await refresh(api, agent.refresh_token)).json()
    await rotated_earlier(rows, agent.refresh_token, 29)
    again = await refresh(api, agent.refresh_token)
    assert again.status_code == 200
    assert sid_of(again.json()) == sid_of(first) == agent.session_id
    assert again.json()["refresh_token"] != first["refresh_token"]
    for token in (first["refresh_token"], again.json()["refresh_token"]):
        assert (await refresh(api, token)).status_code == 200


async def test_an_old_token_after_the_grace_ends_the_session(api, agent, rows, auth):
    successor = (await refresh(api, agent.refresh_token)).json()["refresh_token"]
    await rotated_earlier(rows, agent.refresh_token, 31)
    reused = await refresh(api, agent.refresh_token)
    assert reused.status_code == 401
    assert reused.json()["type"] == "/problems/session-over"
    assert (await refresh(api, successor)).status_code == 401
    ended = (await api.get("/internal/sessions/ended")).json()["ended"]
    assert agent.session_id in {each["session_id"] for each in ended}
    reason = await rows.fetchval("SELECT end_reason FROM sessions WHERE id = $1", agent.session_id)
    assert reason == "refresh_token_reused"


async def test_reuse_of_one_session_leaves_the_users_others_alone(api, agent, rows, sign_in):
    other = await sign_in(agent.email)
    await refresh(api, agent.refresh_token)
    await rotated_earlier(rows, agent.refresh_token, 31)
    assert (await refresh(api, agent.refresh_token)).status_code == 401
    assert (await refresh(api, other.refresh_token)).status_code == 200


async def test_twenty_refreshes_at_once_with_one_token_all_stay_signed_in(api, agent):
    answers = await asyncio.gather(*(refresh(api, agent.refresh_token) for _ in range(20)))
    tokens = {answer.json()["refresh_token"] for answer in answers if answer.status_code == 200}
    assert [answer.status_code for answer in answers] == [200] * 20
    assert len(tokens) == 20


async def test_a_made_up_token_of_a_real_session_is_refused_and_ends_nothing(api, agent):
    workspace, session, _ = agent.refresh_token.split(".")
    assert (await refresh(api, f"{workspace}.{session}.{'A' * 43}")).status_code == 401
    assert (await refresh(api, agent.refresh_token)).status_code == 200


async def test_a_token_does_not_work_for_another_workspace_or_session(api, agent, stranger):
    secret = agent.refresh_token.split(".")[2]
    assert (await refresh(api, f"{stranger.workspace_id}.{agent.session_id}.{secret}")).status_code == 401
    assert (await refresh(api, f"{stranger.workspace_id}.{stranger.session_id}.{secret}")).status_code == 401
    assert (await refresh(api, stranger.refresh_token)).status_code == 200


async def test_malformed_refreshes_are_told_what_is_wrong(api):
    assert (await api.post("/api/auth/refresh", json={})).json()["errors"][0]["pointer"] == "/refresh_token"
    assert (await api.post("/api/auth/refresh", json={"refresh_token": 1})).status_code == 422
    assert (await api.post("/api/auth/refresh", json={"refresh_token": "x" * 600})).status_code == 422
    assert (await api.post("/api/auth/refresh", json={"refresh_token": "a", "more": 1})).status_code == 422
    for token in ("a", "a.b.c", "ws_é.sess_.x", "\u2028"):
        assert (await refresh(api, token)).status_code == 401


async def test_a_session_nobody_refreshed_for_thirty_days_is_over(api, agent, rows):
    days = await rows.fetchval("SELECT expires_at - last_used_at FROM sessions WHERE id = $1", agent.session_id)
    assert round(days.total_seconds()) == 30 * 86_400
    await rows.execute("UPDATE sessions SET expires_at = now() - interval '1 second' WHERE id = $1", agent.session_id)
    assert (await refresh(api, agent.refresh_token)).status_code == 401


async def test_each_refresh_prolongs_the_session(api, agent, rows):
    await rows.execute("UPDATE sessions SET expires_at = now() + interval '1 minute' WHERE id = $1", agent.session_id)
    assert (await refresh(api, agent.refresh_token)).status_code == 200
    left = await rows.fetchval("SELECT expires_at - now() FROM sessions WHERE id = $1", agent.session_id)
    assert left.days >= 29


async def test_a_disabled_users_session_is_not_refreshed(api, admin, agent, rows):
    answer = await api.patch(f"/api/auth/users/{agent.id}", json={"active": False}, headers=admin.headers)
    assert answer.status_code == 200
    assert (await refresh(api, agent.refresh_token)).status_code == 401
    # Not even one that the disabling did not end.
    await rows.execute("UPDATE sessions SET ended_at = NULL, end_reason = NULL WHERE id = $1", agent.session_id)
    assert (await refresh(api, agent.refresh_token)).status_code == 401


async def test_a_refresh_takes_the_role_the_user_has_now(api, agent, rows):
    await rows.execute("UPDATE users SET role = 'viewer' WHERE id = $1", agent.id)
    document = (await refresh(api, agent.refresh_token)).json()
    claims = jwt.decode(document["access_token"], options={"verify_signature": False})
    assert claims["role"] == "viewer"
    assert "leads:write" not in claims["scope"]


async def test_no_refresh_token_is_stored_in_clear(api, agent, rows):
    await refresh(api, agent.refresh_token)
    secret = agent.refresh_token.split(".")[2]
    for table in ("sessions", "refresh_tokens", "idempotency_keys", "outbox"):
        found = await rows.fetch(f"SELECT t::text AS row FROM {table} t")
        assert not any(secret in record["row"] for record in found)
    kept = await rows.fetchval("SELECT count(*) FROM refresh_tokens WHERE session_id = $1", agent.session_id)
    assert kept == 2
