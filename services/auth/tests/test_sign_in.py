"""Signing in by JSON and by the OAuth 2.0 form, and what is refused there."""

import base64
import time

import jwt
import pytest

from chassis.ids import new_id

CLAIMS = {"iss", "aud", "sub", "sid", "ws", "role", "scope", "iat", "exp"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def claims_of(token):
    return jwt.decode(token, options={"verify_signature": False})


async def test_a_sign_in_gives_tokens_that_name_user_session_workspace_role_and_scopes(api, admin):
    answer = await api.post("/api/auth/login", json={"email": admin.email, "password": admin.password})
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    document = answer.json()
    assert document["token_type"] == "bearer"
    assert document["expires_in"] == 900
    claims = claims_of(document["access_token"])
    assert set(claims) == CLAIMS
    assert claims["sub"] == admin.id == document["user"]["id"]
    assert claims["ws"] == admin.workspace_id
    assert claims["role"] == "admin"
    assert set(claims["scope"].split()) >= {"admin", "crm:write", "leads:write", "workflows:write"}
    assert claims["exp"] - claims["iat"] == 900
    assert abs(claims["iat"] - time.time()) < 5
    assert claims["sid"].startswith("sess_")
    assert jwt.get_unverified_header(document["access_token"])["alg"] == "EdDSA"


@pytest.mark.parametrize(
    ("role", "scopes"),
    [
        ("viewer", {"leads:read", "workflows:read", "crm:read"}),
        ("agent", {"leads:read", "workflows:read", "crm:read", "leads:write", "workflows:write"}),
    ],
)
async def test_a_role_bundles_its_scopes_and_no_more(api, admin, add_user, role, scopes):
    somebody = await add_user(admin, role)
    assert set(claims_of(somebody.access_token)["scope"].split()) == scopes


async def test_an_address_is_the_same_however_it_is_written(sign_in, admin):
    assert (await sign_in(admin.email.upper())).id == admin.id
    assert (await sign_in(admin.email.replace("user", "uSer"))).id == admin.id


async def test_an_international_domain_is_the_same_in_either_form(api, admin, sign_in):
    name = new_id("joerg")
    body = {"email": f"{name}@B\u00dcCHER.example", "name": "J", "role": "agent", "password": admin.password}
    assert (await api.post("/api/auth/users", json=body, headers=admin.headers)).status_code == 201
    assert (await sign_in(f"{name}@xn--bcher-kva.example")).email == f"{name}@b\u00fccher.example"


async def test_a_password_is_the_same_composed_or_decomposed(api, admin, sign_in):
    email = f"{new_id('zoe')}@example.com"
    body = {"email": email, "name": "Zoe", "role": "agent", "password": "Zoe\u0308 has a password"}
    assert (await api.post("/api/auth/users", json=body, headers=admin.headers)).status_code == 201
    assert (await sign_in(email, "Zo\u00eb has a password")).email == email


async def test_wrong_password_and_unknown_address_are_answered_alike(api, admin):
    wrong = await api.post("/api/auth/login", json={"email": admin.email, "password": "not the password"})
    unknown = await api.post("/api/auth/login", json={"email": "nobody@example.com", "password": "not the password"})
    malformed = await api.post("/api/auth/login", json={"email": "no address", "password": "not the password"})
    for answer in (wrong, unknown, malformed):
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"] == "/problems/wrong-credentials"
    strip = {"request_id"}
    documents = [{k: v for k, v in each.json().items() if k not in strip} for each in (wrong, unknown, malformed)]
    assert documents[0] == documents[1] == documents[2]


async def test_a_disabled_user_cannot_sign_in(api, admin, agent):
    await api.patch(f"/api/auth/users/{agent.id}", json={"active": False}, headers=admin.headers)
    answer = await api.post("/api/auth/login", json={"email": agent.email, "password": agent.password})
    assert answer.status_code == 401
    assert answer.json()["type"] == "/problems/wrong-credentials"


@pytest.mark.parametrize(
    ("content", "status", "pointer"),
    [
        (b"{", 400, None),
        (b"", 400, None),
        (b"[]", 422, ""),
        (b"{}", 422, "/email"),
        (b'{"email": "a@example.com"}', 422, "/password"),
        (b'{"email": 1, "password": "x"}', 422, "/email"),
        (b'{"email": "a@example.com", "password": null}', 422, "/password"),
        (b'{"email": "a@example.com", "password": "x", "remember": true}', 422, "/remember"),
        (b'{"email": "a\\u0000@example.com", "password": "x"}', 422, "/email"),
        (b'{"email": "a@example.com", "password": "\\ud800"}', 400, None),
        (b'{"email": "a@example.com", "password": 1e999}', 400, None),
        (b'{"email": "a@example.com", "password": "' + b"x" * 1025 + b'"}', 422, "/password"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400, None),
        (b'{"email": "' + b"x" * 1_100_000 + b'"}', 413, None),
    ],
    ids=range(14),
)
async def test_a_malformed_sign_in_is_told_what_is_wrong(api, admin, content, status, pointer):
    answer = await api.post("/api/auth/login", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    if pointer is not None:
        assert answer.json()["errors"][0]["pointer"] == pointer


async def test_a_sign_in_that_is_not_json_is_415(api):
    answer = await api.post("/api/auth/login", content=b"email=a", headers=FORM)
    assert answer.status_code == 415


# The token endpoint ---------------------------------------------------------------------------------------------------


async def test_the_password_grant_signs_in(api, admin):
    form = {"grant_type": "password", "username": admin.email, "password": admin.password, "scope": ""}
    answer = await api.post("/api/auth/token", data=form, headers={"Authorization": "Basic Og=="})
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert claims_of(answer.json()["access_token"])["sub"] == admin.id
    assert answer.json()["scope"] == claims_of(answer.json()["access_token"])["scope"]


async def test_the_refresh_token_grant_refreshes(api, admin):
    form = {"grant_type": "refresh_token", "refresh_token": admin.refresh_token}
    answer = await api.post("/api/auth/token", data=form)
    assert answer.status_code == 200
    assert claims_of(answer.json()["access_token"])["sid"] == admin.session_id


async def test_a_service_gets_a_token_for_a_workspace(api, auth, admin):
    secret = auth.settings.clients()["leads"]
    form = {
        "grant_type": "client_credentials",
        "client_id": "leads",
        "client_secret": secret,
        "workspace_id": admin.workspace_id,
    }
    document = (await api.post("/api/auth/token", data=form)).json()
    claims = claims_of(document["access_token"])
    assert claims["sub"] == "service:leads"
    assert claims["ws"] == admin.workspace_id
    assert set(claims) == CLAIMS - {"sid", "role"}
    assert set(claims["scope"].split()) == {"leads:read", "leads:write", "crm:read", "crm:write", "workflows:read"}
    assert document["expires_in"] == 900
    assert "refresh_token" not in document


async def test_a_service_may_authenticate_by_http_basic(api, auth, admin):
    secret = auth.settings.clients()["crm-sync"]
    basic = base64.b64encode(f"crm-sync:{secret}".encode()).decode()
    form = {"grant_type": "client_credentials", "workspace_id": admin.workspace_id}
    answer = await api.post("/api/auth/token", data=form, headers={"Authorization": f"Basic {basic}"})
    assert answer.status_code == 200
    assert claims_of(answer.json()["access_token"])["sub"] == "service:crm-sync"


@pytest.mark.parametrize("client_id", ["leads", "nobody", ""])
@pytest.mark.parametrize("secret", ["wrong", "", "é"])
async def test_a_client_with_a_wrong_name_or_secret_is_refused(api, admin, client_id, secret):
    basic = base64.b64encode(f"{client_id}:{secret}".encode()).decode()
    form = {"grant_type": "client_credentials", "workspace_id": admin.workspace_id}
    answer = await api.post("/api/auth/token", data=form, headers={"Authorization": f"Basic {basic}"})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Basic")
    assert answer.json()["error"] == "invalid_client"


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({}, "invalid_request"),
        ({"grant_type": ""}, "invalid_request"),
        ({"grant_type": "authorization_code"}, "unsupported_grant_type"),
        ({"grant_type": "password", "username": "admin@example.com"}, "invalid_request"),
        ({"grant_type": "password", "username": "admin@example.com", "password": "not the password"}, "invalid_grant"),
        ({"grant_type": "password", "username": "x" * 400, "password": "not the password"}, "invalid_request"),
        ({"grant_type": "password", "username": "a\0b", "password": "not the password"}, "invalid_request"),
        ({"grant_type": "refresh_token"}, "invalid_request"),
        ({"grant_type": "refresh_token", "refresh_token": "made up"}, "invalid_grant"),
        ({"grant_type": "client_credentials", "client_id": "leads"}, "invalid_request"),
    ],
)
async def test_the_token_endpoint_names_its_error_as_oauth_does(api, form, error):
    answer = await api.post("/api/auth/token", data=form, headers=FORM)
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert (document["error"], document["error_description"]) == (error, document["detail"])


@pytest.mark.parametrize("workspace", ["ws_00000000000000000000000000", "no workspace"])
async def test_a_service_token_for_no_workspace_is_refused(api, auth, workspace):
    secret = auth.settings.clients()["leads"]
    form = {
        "grant_type": "client_credentials",
        "client_id": "leads",
        "client_secret": secret,
        "workspace_id": workspace,
    }
    answer = await api.post("/api/auth/token", data=form)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    "content", [b"grant_type=password&grant_type=password", b"username=%ff&grant_type=password", b"a=1&" * 30]
)
async def test_a_form_that_cannot_be_read_is_an_invalid_request(api, content):
    answer = await api.post("/api/auth/token", content=content, headers=FORM)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


async def test_the_token_endpoint_takes_only_forms(api):
    answer = await api.post("/api/auth/token", json={"grant_type": "password"})
    assert answer.status_code == 415


# Who one is -----------------------------------------------------------------------------------------------------------


async def test_me_is_the_user_of_the_token(api, agent):
    document = (await api.get("/api/auth/me", headers=agent.headers)).json()
    assert document["id"] == agent.id
    assert document["email"] == agent.email
    assert document["role"] == "agent"
    assert document["workspace_id"] == agent.workspace_id
    assert document["session_id"] == agent.session_id
    assert document["scopes"] == sorted(document["scopes"])
    assert "password_hash" not in document


@pytest.mark.parametrize(
    "authorization", [None, "Bearer", "Bearer nonsense", "Basic YTpi", "Bearer eyJhbGciOiJub25lIn0.e30."]
)
@pytest.mark.parametrize("path", ["/api/auth/me", "/api/auth/sessions", "/api/auth/users"])
async def test_without_a_valid_token_one_is_nobody(api, path, authorization):
    answer = await api.get(path, headers={"Authorization": authorization} if authorization else {})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_a_service_is_no_user(api, auth, admin):
    secret = auth.settings.clients()["leads"]
    form = {
        "grant_type": "client_credentials",
        "client_id": "leads",
        "client_secret": secret,
        "workspace_id": admin.workspace_id,
    }
    token = (await api.post("/api/auth/token", data=form)).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    assert (await api.get("/api/auth/me", headers=headers)).status_code == 403
    assert (await api.get("/api/auth/sessions", headers=headers)).status_code == 403
    assert (await api.get("/api/auth/users", headers=headers)).status_code == 403
    assert (await api.post("/api/auth/logout", headers=headers)).status_code == 403
