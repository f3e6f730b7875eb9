"""What HubSpot does that its SDK does not show: conflicts, values, write ids, limits, tokens."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import httpx2
import pytest

from simulators.testing import RunningSimulators

CONTACTS = "/crm/objects/2026-03/contacts"
UNIQUE = {
    "name": "ao_lead_id",
    "label": "Lead id",
    "type": "string",
    "fieldType": "text",
    "groupName": "contactinformation",
    "hasUniqueValue": True,
}

Call = Callable[..., httpx2.Response]


@pytest.fixture
def call(simulators: RunningSimulators, portal: int) -> Call:
    """A request to the test's own portal."""

    def send(method: str, path: str, body: object = None, **arguments: Any) -> httpx2.Response:
        headers = {"Authorization": f"Bearer pat-sim-{portal}"}
        return simulators.request(method, path, json=body, headers=headers, **arguments)

    return send


def create(call: Call, **properties: object) -> dict[str, Any]:
    answer = call("POST", CONTACTS, {"properties": properties})
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json()
    return created


@pytest.mark.parametrize(
    "version", ["/crm/v3/objects", "/crm/objects/v3", "/crm/objects/2026-03", "/crm/objects/2026-09"]
)
@pytest.mark.parametrize("type_name", ["contacts", "0-1"])
def test_every_version_and_name_leads_to_the_same_contacts(call: Call, version: str, type_name: str):
    created = create(call, email="v@example.com")
    assert call("GET", f"{version}/{type_name}/{created['id']}").json()["id"] == created["id"]


def test_unknown_paths_versions_and_types_are_refused(call: Call):
    assert call("GET", "/crm/objects/2027-03/contacts").status_code == 404
    assert call("GET", "/no/such/path").json() == {"status": "error", "message": "resource not found"}
    assert "Unable to infer object type" in call("GET", "/crm/v3/objects/spaceships").json()["message"]


def test_values_are_strings_and_empty_ones_clear(call: Call):
    made = create(call, email="n@example.com", zip=10115, phone="1")
    assert made["properties"]["zip"] == "10115"
    call("PATCH", f"{CONTACTS}/{made['id']}", {"properties": {"phone": ""}})
    read = call("GET", f"{CONTACTS}/{made['id']}?properties=phone,zip").json()["properties"]
    assert (read["phone"], read["zip"]) == (None, "10115")


@pytest.mark.parametrize(
    ("properties", "code"),
    [
        ({"nosuch": "x"}, "PROPERTY_DOESNT_EXIST"),
        ({"email": "no-address"}, "INVALID_EMAIL"),
        ({"lifecyclestage": "guest"}, "INVALID_OPTION"),
        ({"closedate": "soon"}, "INVALID_DATE"),
        ({"hs_object_id": "1"}, "READ_ONLY_VALUE"),
    ],
)
def test_a_refused_value_is_named_in_the_message_and_in_the_errors(
    call: Call, portal: int, properties: dict[str, str], code: str
):
    refused = call("POST", CONTACTS, {"properties": properties})
    body = refused.json()
    assert (refused.status_code, body["category"]) == (400, "VALIDATION_ERROR")
    assert body["message"].startswith('Property values were not valid: [{"isValid":false')
    assert f'"portalId":{portal}' in body["message"]
    assert body["errors"][0]["code"] == code
    assert body["errors"][0]["context"] == {"propertyName": list(properties)}
    assert body["correlationId"] == refused.headers["x-hubspot-correlation-id"]


def test_what_is_no_json_or_no_batch_is_refused(call: Call, simulators: RunningSimulators, portal: int):
    broken = simulators.request(
        "POST", CONTACTS, content=b'{"properties": ', headers={"Authorization": f"Bearer pat-sim-{portal}"}
    )
    assert (broken.status_code, broken.json()["category"]) == (400, "VALIDATION_ERROR")
    too_many = [{"properties": {"email": f"{number}@example.com"}} for number in range(101)]
    assert call("POST", f"{CONTACTS}/batch/create", {"inputs": too_many}).status_code == 400
    twice = [{"id": "1", "properties": {"phone": "1"}}, {"id": "1", "properties": {"phone": "2"}}]
    duplicate = call("POST", f"{CONTACTS}/batch/update", {"inputs": twice}).json()
    assert duplicate["message"] == "Duplicate IDs found in batch input: [1]. IDs must be unique"
    assert simulators.contacts(portal) == []


def test_one_bad_input_fails_the_batch_unless_every_input_has_its_write_id(
    call: Call, simulators: RunningSimulators, portal: int
):
    inputs: list[dict[str, Any]] = [
        {"properties": {"email": "good@example.com"}},
        {"properties": {"email": "bad@example.com", "nosuch": "x"}},
    ]
    whole = call("POST", f"{CONTACTS}/batch/create", {"inputs": inputs})
    assert whole.status_code == 400
    assert simulators.contacts(portal) == []
    for number, item in enumerate(inputs):
        item["objectWriteTraceId"] = f"w{number}"
    parts = call("POST", f"{CONTACTS}/batch/create", {"inputs": inputs})
    assert (parts.status_code, parts.json()["numErrors"]) == (207, 1)
    assert parts.json()["results"][0]["objectWriteTraceId"] == "w0"
    assert parts.json()["errors"][0]["context"] == {"objectWriteTraceId": ["w1"]}
    assert len(simulators.contacts(portal)) == 1


def test_a_conflict_in_a_batch_names_the_existing_contact(call: Call):
    held = create(call, email="held@example.com")
    inputs = [{"properties": {"email": "held@example.com"}}]
    whole = call("POST", f"{CONTACTS}/batch/create", {"inputs": inputs})
    assert (whole.status_code, whole.json()["message"]) == (409, f"Contact already exists. Existing ID: {held['id']}")
    parts = call("POST", f"{CONTACTS}/batch/create", {"inputs": [inputs[0] | {"objectWriteTraceId": "w"}]})
    assert parts.json()["errors"][0]["context"] == {"existingId": [held["id"]], "objectWriteTraceId": ["w"]}


def test_an_upsert_by_email_never_succeeds_in_part(call: Call, simulators: RunningSimulators, portal: int):
    inputs = [
        {"id": "e1@example.com", "idProperty": "email", "objectWriteTraceId": "1", "properties": {"phone": "1"}},
        {"id": "e2@example.com", "idProperty": "email", "objectWriteTraceId": "2", "properties": {"nosuch": "1"}},
    ]
    assert call("POST", f"{CONTACTS}/batch/upsert", {"inputs": inputs}).status_code == 400
    assert simulators.contacts(portal) == []
    done = call("POST", f"{CONTACTS}/batch/upsert", {"inputs": inputs[:1]}).json()
    assert [(result["new"], result["properties"]["email"]) for result in done["results"]] == [(True, "e1@example.com")]


def test_a_unique_value_has_one_holder(call: Call):
    assert call("POST", "/crm/properties/2026-03/contacts", UNIQUE).status_code == 201
    holder = create(call, email="u1@example.com", ao_lead_id="lead_1")
    taken = call("POST", CONTACTS, {"properties": {"email": "u2@example.com", "ao_lead_id": "lead_1"}}).json()
    assert taken["errors"][0]["code"] == "CONFLICTING_UNIQUE_VALUE"
    assert f"{holder['id']} already has that value" in taken["message"]
    found = call("GET", f"{CONTACTS}/lead_1?idProperty=ao_lead_id").json()
    assert found["id"] == holder["id"]
    refused = call("GET", f"{CONTACTS}/Ada?idProperty=firstname").json()
    assert "non-unique 0-1 property firstname" in refused["message"]


def test_an_address_given_up_may_be_taken_by_another(call: Call):
    first = create(call, email="old@example.com")
    call("PATCH", f"{CONTACTS}/old@example.com?idProperty=email", {"properties": {"email": "new@example.com"}})
    second = create(call, email="old@example.com")
    assert second["id"] != first["id"]
    conflict = call("PATCH", f"{CONTACTS}/{second['id']}", {"properties": {"email": "new@example.com"}})
    assert (conflict.status_code, conflict.json()["category"]) == (409, "CONFLICT")
    call("DELETE", f"{CONTACTS}/{first['id']}")
    assert create(call, email="new@example.com")["id"] != first["id"]


async def test_parallel_creates_with_one_address_make_one_contact(simulators: RunningSimulators, portal: int):
    headers = {"Authorization": f"Bearer pat-sim-{portal}"}
    async with httpx2.AsyncClient(base_url=simulators.url, headers=headers, trust_env=False) as client:
        body = {"properties": {"email": "race@example.com"}}
        answers = await asyncio.gather(*(client.post(CONTACTS, json=body) for _ in range(40)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 39
    assert simulators.creates(portal) == {"race@example.com": 1}


def test_the_journal_shows_a_double(call: Call, simulators: RunningSimulators, portal: int):
    call("POST", "/crm/properties/2026-03/contacts", UNIQUE)
    for phone in ("1", "2"):
        item = {"objectWriteTraceId": "same", "properties": {"phone": phone}}
        assert call("POST", f"{CONTACTS}/batch/create", {"inputs": [item]}).status_code == 201
    assert simulators.creates(portal, by="write_id") == {"same": 2}
    counted = simulators.control("GET", f"hubspot/creates?portal_id={portal}&by=write_id")
    assert counted["doubles"] == {"same": 2}
    operations = [request["operation"] for request in simulators.requests(portal)]
    assert operations == ["properties.create", "contacts.batch_create", "contacts.batch_create"]


def test_a_write_that_changes_nothing_is_told_apart(call: Call, simulators: RunningSimulators, portal: int):
    made = create(call, email="same@example.com")
    call("PATCH", f"{CONTACTS}/{made['id']}", {"properties": {"email": "same@example.com"}})
    writes = simulators.control("GET", f"hubspot/writes?portal_id={portal}")["writes"]
    assert [(write["kind"], write["changed"]) for write in writes] == [("create", True), ("update", False)]


def test_the_daily_limit_ends_with_the_accounts_day(call: Call, simulators: RunningSimulators, portal: int):
    simulators.control("PUT", f"hubspot/accounts/{portal}", {"daily": 2, "used_today": 1})
    assert call("GET", CONTACTS).headers["x-hubspot-ratelimit-daily-remaining"] == "0"
    limited = call("GET", CONTACTS)
    assert (limited.status_code, limited.json()["policyName"]) == (429, "DAILY")
    # Somewhere it is another day already, or still: the count of that day is a new one.
    today = datetime.now(ZoneInfo("America/New_York")).date()
    zone = next(zone for zone in ("Pacific/Kiritimati", "Etc/GMT+12") if datetime.now(ZoneInfo(zone)).date() != today)
    simulators.control("PUT", f"hubspot/accounts/{portal}", {"time_zone": zone})
    assert call("GET", CONTACTS).status_code == 200
    assert call("GET", "/account-info/2026-03/details").json()["timeZone"] == zone


def test_searches_have_their_own_limit_and_no_headers(call: Call, simulators: RunningSimulators, portal: int):
    simulators.control("PUT", f"hubspot/accounts/{portal}", {"search_per_second": 1})
    allowed = call("POST", f"{CONTACTS}/search", {})
    limited = call("POST", f"{CONTACTS}/search", {})
    assert (allowed.status_code, limited.status_code) == (200, 429)
    assert not [name for name in allowed.headers if "ratelimit" in name]
    assert limited.json()["message"] == "You have reached your secondly limit."
    assert limited.json()["category"] == "RATE_LIMITS"


def test_search_lags_behind(call: Call, simulators: RunningSimulators, portal: int):
    create(call, email="late@example.com")
    simulators.control("PUT", "hubspot/behaviour", {"index_delay_seconds": 30})
    try:
        assert call("POST", f"{CONTACTS}/search", {"query": "late"}).json()["total"] == 0
    finally:
        simulators.control("PUT", "hubspot/behaviour", {})
    assert call("POST", f"{CONTACTS}/search", {"query": "late"}).json()["total"] == 1


@pytest.mark.parametrize("version", ["v1", "v3", "2026-03", "2026-09"])
def test_tokens_expire_and_are_refreshed(simulators: RunningSimulators, portal: int, version: str):
    form = {
        "grant_type": "refresh_token",
        "client_id": "sim-client-id",
        "client_secret": "sim-client-secret",
        "refresh_token": f"refresh-sim-{portal}",
    }

    def read(token: str) -> httpx2.Response:
        return simulators.request("GET", CONTACTS, headers={"Authorization": f"Bearer {token}"})

    granted = simulators.request("POST", f"/oauth/{version}/token", data=form).json()
    answer = read(granted["access_token"])
    assert (answer.status_code, answer.headers["x-hubspot-ratelimit-max"]) == (200, "110")
    assert simulators.control("POST", "hubspot/expire-tokens", {"portal_id": portal}) == {"expired": 1}
    expired = read(granted["access_token"])
    assert (expired.status_code, expired.json()["category"]) == (401, "EXPIRED_AUTHENTICATION")
    renewed = simulators.request("POST", f"/oauth/{version}/token", data=form).json()
    assert read(renewed["access_token"]).status_code == 200

    in_query = simulators.request("POST", f"/oauth/{version}/token", params=form)
    assert in_query.status_code == (200 if version == "v1" else 400)
    simulators.control("PUT", f"hubspot/accounts/{portal}", {"accepts_refresh": False})
    refused = simulators.request("POST", f"/oauth/{version}/token", data=form)
    assert (refused.status_code, refused.json()["status"]) == (400, "BAD_REFRESH_TOKEN")


def test_a_missing_unknown_or_revoked_token_opens_nothing(simulators: RunningSimulators, portal: int, call: Call):
    assert simulators.request("GET", CONTACTS).status_code == 401
    unknown = simulators.request("GET", CONTACTS, headers={"Authorization": "Bearer pat-na1-nobody"})
    assert unknown.json()["category"] == "INVALID_AUTHENTICATION"
    simulators.control("PUT", f"hubspot/accounts/{portal}", {"tokens": [f"pat-na1-{portal}"]})
    named = simulators.request("GET", CONTACTS, headers={"Authorization": f"Bearer pat-na1-{portal}"})
    assert named.status_code == 200
    simulators.control("PUT", f"hubspot/accounts/{portal}", {"accepts_tokens": False})
    assert call("GET", CONTACTS).status_code == 401


def test_portals_do_not_see_each_other(call: Call, simulators: RunningSimulators, portal: int):
    created = create(call, email="mine@example.com")
    other = {"Authorization": f"Bearer pat-sim-{portal + 500_000}"}
    assert simulators.request("GET", f"{CONTACTS}/{created['id']}", headers=other).status_code == 404
    made = simulators.request("POST", CONTACTS, json={"properties": {"email": "mine@example.com"}}, headers=other)
    assert made.status_code == 201


def test_a_merge_can_keep_the_primary_id(call: Call, simulators: RunningSimulators, portal: int):
    simulators.control("PUT", f"hubspot/accounts/{portal}", {"keeps_primary_id": True})
    first, second = create(call, email="m1@example.com"), create(call, email="m2@example.com")
    ids = {"primaryObjectId": first["id"], "objectIdToMerge": second["id"]}
    assert call("POST", f"{CONTACTS}/merge", ids).json()["id"] == first["id"]
    assert call("GET", f"{CONTACTS}/{second['id']}").json()["id"] == first["id"]
