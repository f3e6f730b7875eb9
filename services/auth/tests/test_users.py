"""Administrators create, list and read the users of their workspace, and nobody else does."""

import asyncio
import hashlib

import pytest

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
