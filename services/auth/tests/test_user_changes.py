"""A changed user is versioned and announced, and loses what the change takes away."""

import asyncio

import jwt
import pytest

from auth.passwords import Passwords

USERS = "/api/auth/users"


async def is_signed_in(api, somebody):
    answer = await api.post("/api/auth/refresh", json={"refresh_token": somebody.refresh_token})
    return answer.status_code == 200


async def test_an_unchanged_user_is_304(api, admin, agent):
    one = f"{USERS}/{agent.id}"
    tag = (await api.get(one, headers=admin.headers)).headers["etag"]
    assert (await api.get(one, headers=admin.headers | {"If-None-Match": f'"0", W/{tag}'})).status_code == 304
    await api.patch(one, json={"name": "Other"}, headers=admin.headers)
    assert (await api.get(one, headers=admin.headers | {"If-None-Match": tag})).status_code == 200


async def test_a_renamed_user_gets_a_version_and_is_announced_and_stays_signed_in(api, admin, agent, announced):
    answer = await api.patch(
        f"{USERS}/{agent.id}",
        json={"name": "Other Name"},
        headers=admin.headers | {"Content-Type": "application/merge-patch+json"},
    )
    assert (answer.status_code, answer.json()["version"], answer.headers["etag"]) == (200, 2, '"2"')
    event = (await announced())[-1]
    assert (event["type"], event["subjectversion"]) == ("user.updated", 2)
    assert event["data"] == {"user_id": agent.id, "name": "Other Name", "active": True}
    assert await is_signed_in(api, agent)


async def test_a_change_that_changes_nothing_changes_nothing(api, admin, agent, announced):
    before = (await api.get(f"{USERS}/{agent.id}", headers=admin.headers)).json()
    same = {"name": before["name"], "role": "agent", "active": True}
    answer = await api.patch(f"{USERS}/{agent.id}", json=same, headers=admin.headers)
    assert (answer.status_code, answer.json()) == (200, before)
    assert len(await announced()) == 1
    assert await is_signed_in(api, agent)


@pytest.mark.parametrize(
    ("patch", "pointer"),
    [
        ({}, ""),
        ({"name": None}, "/name"),
        ({"name": ""}, "/name"),
        ({"role": "owner"}, "/role"),
        ({"active": "no"}, "/active"),
        ({"active": 0}, "/active"),
        ({"email": "b@example.com"}, "/email"),
        ({"password": "a long password"}, "/password"),
    ],
)
async def test_a_change_that_cannot_be_is_refused_by_field(api, admin, agent, patch, pointer):
    answer = await api.patch(f"{USERS}/{agent.id}", json=patch, headers=admin.headers)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert (await api.get(f"{USERS}/{agent.id}", headers=admin.headers)).json()["version"] == 1


async def test_a_change_of_a_version_one_has_not_seen_is_412_and_its_repetition_is_replayed(api, admin, agent):
    one = f"{USERS}/{agent.id}"
    headers = admin.headers | {"If-Match": '"1"', "Idempotency-Key": "rename"}
    first = await api.patch(one, json={"name": "First"}, headers=headers)
    repeated = await api.patch(one, json={"name": "First"}, headers=headers)
    assert (first.status_code, repeated.status_code) == (200, 200)
    assert repeated.headers["idempotency-replayed"] == "true"
    late = await api.patch(one, json={"name": "Late"}, headers=admin.headers | {"If-Match": '"1"'})
    assert (late.status_code, late.headers["etag"], late.json()["version"]) == (412, '"2"', 2)
    for tag in ('W/"2"', "nonsense", '"²"', '"02"', f'"{"1" * 5000}"'):
        answer = await api.patch(one, json={"name": "L"}, headers=admin.headers | {"If-Match": tag.encode("latin-1")})
        assert answer.status_code == 412
    assert (
        await api.patch(one, json={"name": "L"}, headers=admin.headers | {"If-Match": '"7", "2"'})
    ).status_code == 200


async def test_disabling_a_user_is_announced_and_ends_all_sessions(api, admin, agent, announced, sign_in):
    other = await sign_in(agent.email)
    answer = await api.patch(f"{USERS}/{agent.id}", json={"active": False}, headers=admin.headers)
    assert (answer.status_code, answer.json()["active"]) == (200, False)
    event = (await announced())[-1]
    assert (event["type"], event["subjectversion"], event["data"]["active"]) == ("user.disabled", 2, False)
    ended = {each["session_id"] for each in (await api.get("/internal/sessions/ended")).json()["ended"]}
    assert {agent.session_id, other.session_id} <= ended
    assert not await is_signed_in(api, agent)


async def test_an_enabled_user_may_sign_in_again(api, admin, agent, announced, sign_in):
    for active in (False, True):
        await api.patch(f"{USERS}/{agent.id}", json={"active": active}, headers=admin.headers)
    event = (await announced())[-1]
    assert (event["type"], event["subjectversion"], event["data"]["active"]) == ("user.updated", 3, True)
    assert not await is_signed_in(api, agent)
    assert (await sign_in(agent.email)).id == agent.id


async def test_another_role_is_announced_and_ends_the_sessions_of_the_old_one(api, admin, agent, announced, sign_in):
    await api.patch(f"{USERS}/{agent.id}", json={"role": "viewer"}, headers=admin.headers)
    assert (await announced())[-1]["type"] == "user.updated"
    assert not await is_signed_in(api, agent)
    claims = jwt.decode((await sign_in(agent.email)).access_token, options={"verify_signature": False})
    assert claims["role"] == "viewer"


async def test_another_password_ends_the_sessions_and_is_the_only_one_from_then_on(
    api, admin, agent, sign_in, announced
):
    body = {"password": "quite another one"}
    answer = await api.put(f"{USERS}/{agent.id}/password", json=body, headers=admin.headers)
    assert (answer.status_code, answer.content) == (204, b"")
    assert not await is_signed_in(api, agent)
    assert (await sign_in(agent.email, "quite another one")).id == agent.id
    old = await api.post("/api/auth/login", json={"email": agent.email, "password": agent.password})
    assert old.status_code == 401
    assert len(await announced()) == 1


async def test_a_repeated_set_password_does_not_end_the_session_opened_with_it(api, admin, agent, sign_in):
    headers = admin.headers | {"Idempotency-Key": "set-it"}
    body = {"password": "quite another one"}
    path = f"{USERS}/{agent.id}/password"
    await api.put(path, json=body, headers=headers)
    again = await sign_in(agent.email, "quite another one")
    assert (await api.put(path, json=body, headers=headers)).headers["idempotency-replayed"] == "true"
    assert await is_signed_in(api, again)


@pytest.mark.parametrize(
    "body", [{}, {"password": "short"}, {"password": None}, {"password": "a long password", "x": 1}]
)
async def test_a_password_that_cannot_be_is_refused(api, admin, agent, body):
    answer = await api.put(f"{USERS}/{agent.id}/password", json=body, headers=admin.headers)
    assert answer.status_code == 422
    assert await is_signed_in(api, agent)


async def test_the_last_active_administrator_stays_one(api, admin, announced):
    for patch in ({"active": False}, {"role": "agent"}):
        answer = await api.patch(f"{USERS}/{admin.id}", json=patch, headers=admin.headers)
        assert (answer.status_code, answer.json()["type"]) == (409, "/problems/last-administrator")
    assert await announced() == []
    assert await is_signed_in(api, admin)


async def test_of_two_administrators_who_disable_each_other_at_once_one_stays(api, admin, add_user):
    for _ in range(3):
        other = await add_user(admin, "admin")
        answers = await asyncio.gather(
            api.patch(f"{USERS}/{other.id}", json={"role": "viewer"}, headers=admin.headers),
            api.patch(f"{USERS}/{admin.id}", json={"role": "viewer"}, headers=other.headers),
        )
        assert sorted(answer.status_code for answer in answers) == [200, 409]
        if answers[1].status_code == 200:
            admin = other


async def test_a_sign_in_that_verified_the_old_password_is_refused_after_the_new_one(
    api, admin, agent, rows, monkeypatch
):
    verify = Passwords.verify

    async def verify_then_change(self, stored, password):
        matches = await verify(self, stored, password)
        answer = await api.put(
            f"{USERS}/{agent.id}/password", json={"password": "quite another one"}, headers=admin.headers
        )
        assert answer.status_code == 204
        return matches

    monkeypatch.setattr(Passwords, "verify", verify_then_change)
    answer = await api.post("/api/auth/login", json={"email": agent.email, "password": agent.password})
    assert answer.status_code == 401
    living = "SELECT count(*) FROM sessions WHERE user_id = $1 AND ended_at IS NULL"
    assert await rows.fetchval(living, agent.id) == 0
