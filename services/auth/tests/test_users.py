"""Administrators manage the users of their workspace; each change is announced, and takes away what it must."""

import asyncio
import hashlib

import jwt
import pytest

from auth.passwords import Passwords
from chassis.ids import new_id

USERS = "/api/auth/users"


def new_user(**fields):
    body = {
        "email": f"{new_id('new')}@example.com",
        "name": "Ada Lovelace",
        "role": "agent",
        "password": "a long password",
    }
    return body | fields


async def is_signed_in(api, somebody):
    answer = await api.post("/api/auth/refresh", json={"refresh_token": somebody.refresh_token})
    return answer.status_code == 200


async def test_a_created_user_is_answered_located_and_announced(api, admin, announced):
    body = new_user(name="  Ada Lovelace ")
    answer = await api.post(USERS, json=body, headers=admin.headers)
    assert answer.status_code == 201
    user = answer.json()
    assert set(user) == {"id", "email", "name", "role", "active", "version", "created_at", "updated_at"}
    assert (user["name"], user["role"], user["active"], user["version"]) == ("Ada Lovelace", "agent", True, 1)
    assert answer.headers["location"] == f"{USERS}/{user['id']}"
    assert answer.headers["etag"] == '"1"'
    assert (await api.get(answer.headers["location"], headers=admin.headers)).json() == user
    [event] = await announced()
    assert event["type"] == "user.created"
    assert (event["subject"], event["subjectversion"]) == (user["id"], 1)
    assert event["origin"] == f"user:{admin.id}"
    assert event["data"] == {"user_id": user["id"], "name": "Ada Lovelace", "active": True}


async def test_a_repeated_create_makes_one_user_and_gets_the_same_answer(api, admin, rows):
    body, headers = new_user(), admin.headers | {"Idempotency-Key": "once"}
    answers = await asyncio.gather(*(api.post(USERS, json=body, headers=headers) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert await rows.fetchval("SELECT count(*) FROM users WHERE workspace_id = $1", admin.workspace_id) == 2
    assert await rows.fetchval("SELECT count(*) FROM outbox WHERE workspace_id = $1", admin.workspace_id) == 1
    other = await api.post(USERS, json=body | {"password": "another password"}, headers=headers)
    assert other.status_code == 422


async def test_a_stored_answer_and_its_fingerprint_give_no_password_away(api, admin, rows):
    headers = admin.headers | {"Idempotency-Key": "secretive", "Content-Type": "application/json"}
    content = (
        b'{"email":"%s@example.com","name":"A","role":"agent","password":"a long password"}' % new_id("x").encode()
    )
    assert (await api.post(USERS, content=content, headers=headers)).status_code == 201
    stored = await rows.fetchrow(
        "SELECT fingerprint, body FROM idempotency_keys WHERE workspace_id = $1", admin.workspace_id
    )
    parts = (b"POST", USERS.encode(), b"", content)
    guessable = hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).digest()
    assert stored["fingerprint"] != guessable
    assert b"password" not in stored["body"]


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"email": "no address"}, "/email"),
        ({"email": "a@localhost"}, "/email"),
        ({"email": None}, "/email"),
        ({"email": "a" * 400 + "@example.com"}, "/email"),
        ({"name": " "}, "/name"),
        ({"name": "x" * 201}, "/name"),
        ({"name": "a\0b"}, "/name"),
        ({"role": "owner"}, "/role"),
        ({"role": ["admin"]}, "/role"),
        ({"password": "elevenchars"}, "/password"),
        ({"password": "x" * 257}, "/password"),
        ({"password": 123456789012}, "/password"),
        ({"active": False}, "/active"),
        ({"workspace_id": "ws_other"}, "/workspace_id"),
    ],
)
async def test_a_user_that_cannot_be_is_refused_by_field_and_nothing_is_stored(api, admin, announced, fields, pointer):
    answer = await api.post(USERS, json=new_user(**fields), headers=admin.headers)
    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert "elevenchars" not in answer.text
    assert await announced() == []
    assert len((await api.get(USERS, headers=admin.headers)).json()["items"]) == 1


async def test_missing_fields_are_each_named(api, admin):
    answer = await api.post(USERS, json={}, headers=admin.headers)
    assert {error["pointer"] for error in answer.json()["errors"]} == {"/email", "/name", "/role", "/password"}


@pytest.mark.parametrize("password", ["twelve chars", "x" * 256, "ä" * 12])
async def test_passwords_from_12_to_256_characters_are_taken(api, admin, sign_in, password):
    body = new_user(password=password)
    assert (await api.post(USERS, json=body, headers=admin.headers)).status_code == 201
    assert (await sign_in(body["email"], password)).email == body["email"]


async def test_an_address_belongs_to_one_user_however_it_is_written(api, admin, stranger):
    body = new_user()
    first = (await api.post(USERS, json=body, headers=admin.headers)).json()
    taken = await api.post(USERS, json=body | {"email": body["email"].upper()}, headers=admin.headers)
    assert taken.status_code == 409
    assert taken.json()["existing_id"] == first["id"]
    elsewhere = await api.post(USERS, json=body, headers=stranger.headers)
    assert elsewhere.status_code == 409
    assert "existing_id" not in elsewhere.json()


async def test_of_creates_of_one_address_at_once_one_succeeds(api, admin, announced):
    body = new_user()
    answers = await asyncio.gather(*(api.post(USERS, json=body, headers=admin.headers) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    assert len(await announced()) == 1


async def test_only_administrators_see_and_change_users(api, admin, add_user):
    for role in ("viewer", "agent"):
        somebody = await add_user(admin, role)
        one = f"{USERS}/{somebody.id}"
        answers = [
            await api.get(USERS, headers=somebody.headers),
            await api.post(USERS, json=new_user(), headers=somebody.headers),
            await api.get(one, headers=somebody.headers),
            await api.patch(one, json={"role": "admin"}, headers=somebody.headers),
            await api.put(f"{one}/password", json={"password": "a long password"}, headers=somebody.headers),
        ]
        assert [answer.status_code for answer in answers] == [403] * 5
        assert answers[0].json()["required_scope"] == "admin"


async def test_users_of_another_workspace_do_not_exist(api, agent, stranger, announced):
    one = f"{USERS}/{agent.id}"
    answers = [
        await api.get(one, headers=stranger.headers),
        await api.patch(one, json={"active": False}, headers=stranger.headers),
        await api.put(f"{one}/password", json={"password": "a long password"}, headers=stranger.headers),
    ]
    assert [answer.status_code for answer in answers] == [404] * 3
    listed = (await api.get(USERS, headers=stranger.headers)).json()["items"]
    assert [user["id"] for user in listed] == [stranger.id]
    assert await is_signed_in(api, agent)
    assert [event["type"] for event in await announced()] == ["user.created"]


@pytest.mark.parametrize("user_id", ["user_00000000000000000000000000", "nonsense", "%00", "x" * 300])
async def test_an_unknown_user_is_404(api, admin, user_id):
    one = f"{USERS}/{user_id}"
    assert (await api.get(one, headers=admin.headers)).status_code == 404
    assert (await api.patch(one, json={"name": "N"}, headers=admin.headers)).status_code == 404
    body = {"password": "a long password"}
    assert (await api.put(f"{one}/password", json=body, headers=admin.headers)).status_code == 404


async def test_users_are_listed_filtered_and_searched_page_by_page(api, admin):
    made = []
    for number, (name, role) in enumerate([("Ada", "agent"), ("Bob", "viewer"), ("Ada Two", "agent")]):
        body = new_user(name=name, role=role, email=f"{number}.{new_id('p')}@example.com")
        made.append((await api.post(USERS, json=body, headers=admin.headers)).json())
    await api.patch(f"{USERS}/{made[1]['id']}", json={"active": False}, headers=admin.headers)

    async def ids(**params):
        answer = await api.get(USERS, params=params, headers=admin.headers)
        return [user["id"] for user in answer.json()["items"]]

    everybody = [admin.id] + [user["id"] for user in made]
    assert await ids() == everybody
    assert await ids(role="agent") == [made[0]["id"], made[2]["id"]]
    assert await ids(active=False) == [made[1]["id"]]
    assert await ids(q="ADA") == [made[0]["id"], made[2]["id"]]
    assert await ids(q=made[1]["email"][:12]) == [made[1]["id"]]
    assert await ids(q="%") == []
    found, cursor = [], None
    for _ in range(2):
        params = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = (await api.get(USERS, params=params, headers=admin.headers)).json()
        found += [user["id"] for user in page["items"]]
        cursor = page["next_cursor"]
    assert (found, cursor) == (everybody, None)


@pytest.mark.parametrize(
    "params", [{"role": "owner"}, {"active": "perhaps"}, {"q": "a\0"}, {"q": "x" * 201}, {"limit": 201}]
)
async def test_a_list_of_users_that_cannot_be_is_422(api, admin, params):
    answer = await api.get(USERS, params=params, headers=admin.headers)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == f"?{next(iter(params))}"


async def test_a_cursor_with_other_filters_is_400(api, admin, agent):
    cursor = (await api.get(USERS, params={"limit": 1}, headers=admin.headers)).json()["next_cursor"]
    answer = await api.get(USERS, params={"cursor": cursor, "role": "agent"}, headers=admin.headers)
    assert answer.status_code == 400


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
    for tag in ('W/"2"', "nonsense", '"²"'):
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
