"""The HTTP side: connections, mappings, wishes, dead letters; bad input; other workspaces; secrets."""

import asyncio
import base64
import json

import pytest

from chassis.vault import Vault
from crm_sync.credentials import StaticToken, new_signing_secret, seal, unseal
from crm_sync.rotate_keys import rotate
from crm_sync.routes.openapi import NEW_CONNECTION_EXAMPLE
from tests.support.fixtures import eventually

CONNECTIONS = "/api/crm/connections"


async def test_a_connection_is_created_read_changed_listed_and_deleted(crm):
    created = await crm.connect(mode="selected")
    path = f"{CONNECTIONS}/{created['id']}"
    read = await crm.client.get(path)
    assert read.json() == created
    assert (await crm.client.get(path, headers={"If-None-Match": read.headers["etag"]})).status_code == 304
    changed = await crm.client.patch(path, json={"name": "Other", "settings": {"requests_per_10_seconds": 50}})
    assert changed.json()["name"] == "Other"
    assert changed.json()["settings"]["requests_per_10_seconds"] == 50
    assert changed.json()["version"] == 2
    stale = await crm.client.patch(path, json={"name": "Third"}, headers={"If-Match": read.headers["etag"]})
    assert stale.status_code == 412
    assert [each["id"] for each in (await crm.client.get(CONNECTIONS)).json()["items"]] == [created["id"]]
    assert (await crm.client.delete(path)).status_code == 204
    assert (await crm.client.get(path)).status_code == 404
    assert (await crm.connect(name="Other"))["name"] == "Other"


async def test_a_change_that_changes_nothing_keeps_the_version(crm):
    created = await crm.connect()
    answer = await crm.client.patch(f"{CONNECTIONS}/{created['id']}", json={"name": created["name"]})
    assert answer.json() == created


async def test_connections_are_listed_in_pages_and_by_filter(crm):
    for number in range(3):
        await crm.connect(name=f"HubSpot {number}", mode="selected")
    first = (await crm.client.get(CONNECTIONS, params={"limit": 2})).json()
    second = (await crm.client.get(CONNECTIONS, params={"limit": 2, "cursor": first["next_cursor"]})).json()
    names = [each["name"] for each in first["items"] + second["items"]]
    assert names == ["HubSpot 2", "HubSpot 1", "HubSpot 0"]
    assert second["next_cursor"] is None
    other = {"limit": 2, "cursor": first["next_cursor"], "vendor": "hubspot"}
    assert (await crm.client.get(CONNECTIONS, params=other)).status_code == 400
    assert (await crm.client.get(CONNECTIONS, params={"vendor": "webhook"})).json()["items"] == []


async def test_a_name_is_taken_once_per_workspace(crm):
    first = await crm.connect()
    body = {"name": "hubspot", "vendor": "hubspot", "credentials": {"access_token": "x"}}
    answer = await crm.client.post(CONNECTIONS, json=body)
    assert (answer.status_code, answer.json()["existing_id"]) == (409, first["id"])


async def test_equal_keys_make_one_connection(crm):
    body = {"name": "One", "vendor": "hubspot", "credentials": {"access_token": "pat-secret-token"}}
    headers = {"Idempotency-Key": "k1"}
    answers = await asyncio.gather(*(crm.client.post(CONNECTIONS, json=body, headers=headers) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    other = await crm.client.post(CONNECTIONS, json={**body, "name": "Two"}, headers=headers)
    assert other.status_code == 422


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/vendor"),
        ({"vendor": "salesforce"}, "/vendor"),
        ({"vendor": "hubspot", "name": "", "credentials": {"access_token": "x"}}, "/name"),
        ({"vendor": "hubspot", "name": "n" * 101, "credentials": {"access_token": "x"}}, "/name"),
        ({"vendor": "hubspot", "name": "n"}, "/credentials"),
        ({"vendor": "hubspot", "name": "n", "credentials": {"client_id": "x"}}, "/credentials"),
        ({"vendor": "hubspot", "name": "n", "credentials": {"secret": "x"}}, "/credentials/secret"),
        (
            {"vendor": "hubspot", "name": "n", "credentials": {"access_token": "pat-\u2026"}},
            "/credentials/access_token",
        ),
        ({"vendor": "hubspot", "name": "n", "credentials": {"access_token": "a\nb"}}, "/credentials/access_token"),
        ({"vendor": "hubspot", "name": "n", "credentials": {"access_token": "x"}, "color": "red"}, "/color"),
        ({"vendor": "hubspot", "name": "n", "credentials": {"access_token": "x"}, "mode": "some"}, "/mode"),
        ({"vendor": "hubspot", "name": "n", "credentials": {"access_token": "x"}, "time_zone": "Mars"}, "/time_zone"),
        (
            {
                "vendor": "hubspot",
                "name": "n",
                "credentials": {"access_token": "x"},
                "settings": {"base_url": "https://evil.example.com"},
            },
            "/settings/base_url",
        ),
        ({"vendor": "webhook", "name": "n", "settings": {"url": "http://example.com/hook"}}, "/settings/url"),
        ({"vendor": "webhook", "name": "n", "settings": {"url": "https://u:p@example.com/"}}, "/settings/url"),
        (
            {"vendor": "webhook", "name": "n", "settings": {"url": "https://a.b"}, "credentials": {"secret": "weak"}},
            "/credentials/secret",
        ),
        (
            {
                "vendor": "hubspot",
                "name": "n",
                "credentials": {"access_token": "x"},
                "mapping": [{"property": "email", "field": "no_such_field"}],
            },
            "/mapping/0",
        ),
        ({"vendor": "hubspot", "name": "a\0b", "credentials": {"access_token": "x"}}, "/name"),
    ],
)
async def test_what_is_wrong_with_a_new_connection_is_named_and_nothing_is_stored(crm, body, pointer):
    answer = await crm.client.post(CONNECTIONS, json=body)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert pointer in [error["pointer"] for error in answer.json()["errors"]]
    assert (await crm.client.get(CONNECTIONS)).json()["items"] == []


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b'{"name": 1e999}', "application/json", 400),
        (b'{"name": "\\ud800"}', "application/json", 400),
        (b"[]", "application/json", 422),
        (b"name=x", "application/x-www-form-urlencoded", 415),
        (b"[" * 2000, "application/json", 400),
        (b'{"a":' + b"[" * 40 + b"]" * 40 + b"}", "application/json", 422),
        (b'{"name": "' + b"x" * 1_048_577 + b'"}', "application/json", 413),
    ],
)
async def test_bad_bodies_are_client_errors(crm, content, kind, status):
    answer = await crm.client.post(CONNECTIONS, content=content, headers={"content-type": kind})
    assert answer.status_code == status, answer.text


async def test_who_may_do_what(crm):
    viewer = crm.other(crm.workspace, role="viewer")
    connection = await crm.connect(mode="selected")
    assert (await viewer.get(f"{CONNECTIONS}/{connection['id']}")).status_code == 200
    assert (await viewer.post(CONNECTIONS, json={})).status_code == 403
    assert (await viewer.post("/api/crm/leads/lead_1/sync", json={})).status_code == 403
    anonymous = crm.service.http.client({})
    assert (await anonymous.get(CONNECTIONS)).status_code == 401


async def test_another_workspaces_things_are_not_there(crm):
    crm.simulators.add_fault("contacts.batch_upsert", {"do": "status", "status": 400}, portal_id=crm.portal, times=None)
    connection = await crm.connect()
    await crm.lead("lead_1")
    dead = await crm.until("lead_1", connection, state="dead")
    stranger = crm.other("ws_stranger")
    path = f"{CONNECTIONS}/{connection['id']}"
    fields = {"fields": [{"property": "email", "field": "email"}]}
    answers = [
        await stranger.get(path),
        await stranger.patch(path, json={"name": "mine"}),
        await stranger.delete(path),
        await stranger.post(f"{path}/pause"),
        await stranger.post(f"{path}/resume"),
        await stranger.post(f"{path}/verify"),
        await stranger.post(f"{path}/signing-secret"),
        await stranger.get(f"{path}/mapping"),
        await stranger.put(f"{path}/mapping", json=fields),
        await stranger.get("/api/crm/leads/lead_1"),
        await stranger.post("/api/crm/leads/lead_1/sync", json={"connection_id": connection["id"]}),
        await stranger.post("/api/crm/leads/lead_1/sync", json={}),
        await stranger.post(f"/api/crm/dead-letters/{dead['dead_letter_id']}/replay"),
        await stranger.post("/api/crm/dead-letters/replay", json={"connection_id": connection["id"]}),
    ]
    assert [answer.status_code for answer in answers] == [404] * len(answers)
    assert (await stranger.get("/api/crm/dead-letters")).json()["items"] == []
    assert (await stranger.get(CONNECTIONS)).json()["items"] == []
    assert (await stranger.post("/api/crm/dead-letters/replay", json={})).json() == {"replayed": 0}
    identity = crm.service.neighbours.identity
    their_service = crm.service.http.client(identity.service_headers("workflows", workspace="ws_stranger"))
    wished = await their_service.post("/api/crm/leads/lead_1/sync", json={"version": 9})
    assert (wished.status_code, wished.json()) == (202, {"items": []})
    standing = await crm.standing("lead_1", connection)
    assert (standing["state"], standing["desired_version"]) == ("dead", 1)
    body = {"name": connection["name"], "vendor": "hubspot", "credentials": {"access_token": "x"}}
    assert (await stranger.post(CONNECTIONS, json=body)).status_code == 201


@pytest.mark.parametrize("identifier", ["%00", "x" * 65, "conn_1%2F..", "ü"])
async def test_what_cannot_be_an_id_names_nothing(crm, identifier):
    for path in (f"{CONNECTIONS}/{identifier}", f"/api/crm/leads/{identifier}"):
        assert (await crm.client.get(path)).status_code == 404


async def test_verify_makes_our_property_and_learns_the_time_zone(crm):
    crm.simulators.control("PUT", f"hubspot/accounts/{crm.portal}", {"time_zone": "Europe/Berlin"})
    connection = await crm.connect(mode="selected")
    found = (await crm.client.post(f"{CONNECTIONS}/{connection['id']}/verify")).json()
    assert (found["ok"], found["made"], found["account_id"]) == (True, ["ao_lead_id"], str(crm.portal))
    assert found["connection"]["time_zone"] == "Europe/Berlin"
    again = (await crm.client.post(f"{CONNECTIONS}/{connection['id']}/verify")).json()
    assert (again["ok"], again["made"]) == (True, [])


async def test_verify_says_that_credentials_are_refused(crm):
    connection = await crm.connect(mode="selected", credentials={"access_token": "pat-nobody"})
    found = (await crm.client.post(f"{CONNECTIONS}/{connection['id']}/verify")).json()
    assert (found["ok"], found["problems"][0]["pointer"]) == (False, "/credentials")
    assert found["connection"]["status"] == "needs_reauth"


async def test_a_mapping_is_checked_against_hubspots_properties_and_brought_over(crm):
    connection = await crm.connect()
    await crm.lead("lead_1", score=42)
    await crm.in_step("lead_1", connection)
    path = f"{CONNECTIONS}/{connection['id']}/mapping"
    wrong = {
        "fields": [
            {"property": "email", "field": "email"},
            {"property": "no_such_property", "field": "score"},
            {"property": "hs_lead_status", "field": "stage", "values": {"new": "NO_SUCH_OPTION"}},
            {"property": "ao_lead_id", "field": "source"},
        ]
    }
    answer = await crm.client.put(path, json=wrong)
    assert answer.status_code == 422
    assert [each["pointer"] for each in answer.json()["errors"]] == [
        "/fields/1/property",
        "/fields/2/values/new",
        "/fields/3/property",
    ]
    twice = {"fields": [{"property": "email", "field": "email"}, {"property": "email", "field": "phone"}]}
    assert (await crm.client.put(path, json=twice)).json()["errors"][0]["pointer"] == "/fields/1/property"
    right = {"fields": [{"property": "email", "field": "email"}, {"property": "jobtitle", "field": "source"}]}
    stored = await crm.client.put(path, json=right)
    assert (stored.status_code, stored.json()["version"]) == (200, 2)
    assert (await crm.client.get(path)).json() == stored.json()

    async def brought_over():
        return crm.contacts()[0]["properties"].get("jobtitle") == "web"

    await eventually(brought_over)
    assert crm.contacts()[0]["properties"]["company"] == "Analytical Engines"  # mapped no longer: left as it is


async def test_a_new_connection_gets_the_leads_that_are_there_and_a_selected_one_does_not(crm):
    await crm.lead("lead_1")
    await crm.lead("lead_2")
    await crm.lead("lead_3", 2, kind="deleted")
    await crm.taken_in("lead_3", 2)
    everything = await crm.connect()
    chosen = await crm.connect(name="chosen", mode="selected")
    await crm.in_step("lead_1", everything)
    await crm.in_step("lead_2", everything)
    assert await crm.standing("lead_3", everything) is None
    assert await crm.standing("lead_1", chosen) is None
    assert (await crm.client.patch(f"{CONNECTIONS}/{chosen['id']}", json={"mode": "all"})).status_code == 200
    await crm.until("lead_1", chosen)


async def test_a_workflow_sends_a_lead_before_its_event_was_heard(crm):
    connection = await crm.connect(mode="selected")
    workflows = crm.as_service()
    answer = await workflows.post("/api/crm/leads/lead_1/sync", json={"connection_id": connection["id"], "version": 2})
    assert answer.status_code == 202
    assert answer.json()["items"][0]["state"] == "waiting_for_lead"
    await crm.lead("lead_1", 1)
    await crm.lead("lead_1", 2)
    await crm.in_step("lead_1", connection, 2)
    await crm.lead("lead_1", 3, company="kept in step from then on")
    await crm.in_step("lead_1", connection, 3)


async def test_a_users_wish_for_a_lead_nobody_knows_is_404_and_for_a_version_it_has_not_is_422(crm):
    await crm.connect(mode="selected")
    assert (await crm.client.post("/api/crm/leads/lead_1/sync", json={})).status_code == 404
    crm.service.neighbours.leads[crm.workspace, "lead_1"] = {"id": "lead_1", "version": 3}
    assert (await crm.client.post("/api/crm/leads/lead_1/sync")).status_code == 202
    too_high = await crm.client.post("/api/crm/leads/lead_1/sync", json={"version": 4})
    assert (too_high.status_code, too_high.json()["errors"][0]["pointer"]) == (422, "/version")


async def test_dead_letters_are_listed_by_class_and_replayed_one_or_all(crm):
    crm.fault("contacts.batch_upsert", {"do": "status", "status": 400}, times=None)
    connection = await crm.connect()
    for number in range(3):
        await crm.lead(f"lead_{number}")
        await crm.until(f"lead_{number}", connection, state="dead")
    page = (await crm.client.get("/api/crm/dead-letters", params={"limit": 2, "class": "permanent"})).json()
    rest = await crm.dead_letters(limit="2", cursor=page["next_cursor"], **{"class": "permanent"})
    assert [each["lead_id"] for each in page["items"] + rest] == ["lead_2", "lead_1", "lead_0"]
    assert await crm.dead_letters(**{"class": "unknown"}) == []
    crm.simulators.control("DELETE", "hubspot/faults")
    one = page["items"][0]
    assert (await crm.client.post(f"/api/crm/dead-letters/{one['id']}/replay")).json() == {"replayed": 1}
    await crm.in_step(one["lead_id"], connection)
    assert (await crm.client.post(f"/api/crm/dead-letters/{one['id']}/replay")).status_code == 404
    nothing = await crm.client.post("/api/crm/dead-letters/replay", json={"class": "unknown"})
    assert nothing.json() == {"replayed": 0}
    everything = await crm.client.post("/api/crm/dead-letters/replay", json={"class": "permanent"})
    assert everything.json() == {"replayed": 2}
    for number in range(3):
        await crm.in_step(f"lead_{number}", connection)
    assert await crm.dead_letters() == []


async def test_a_newer_version_tries_a_dead_letter_again_by_itself(crm):
    connection = await crm.connect()
    await crm.lead("lead_1", email="not@an@address")
    await crm.until("lead_1", connection, state="dead")
    await crm.lead("lead_1", 2, email="right@example.com")
    await crm.in_step("lead_1", connection, 2)
    assert await crm.dead_letters() == []


async def test_a_deleted_connection_forgets_its_secret_and_its_leads_their_ids_there(crm):
    connection = await crm.connect()
    await crm.lead("lead_1")
    await crm.in_step("lead_1", connection)
    assert (await crm.client.delete(f"{CONNECTIONS}/{connection['id']}")).status_code == 204
    held = await crm.database.fetchval("SELECT credentials FROM connections WHERE id = $1", connection["id"])
    assert held is None

    async def told():
        return [event["data"]["operation"] for event in await crm.events("lead_1", connection)][-1] == "release"

    await eventually(told)
    assert (await crm.client.get("/api/crm/leads/lead_1")).json() == {"items": []}
    assert len(crm.contacts()) == 1


async def test_secrets_are_never_shown_nor_stored_in_the_clear(crm, capfd):
    token = f"pat-sim-{crm.portal}"
    crm.fault("contacts.batch_upsert", {"do": "status", "status": 400, "body": {"message": f"bad token {token}"}})
    created = await crm.connect()
    await crm.lead("lead_1")
    dead = await crm.until("lead_1", created, state="dead")
    assert "[redacted]" in dead["last_error"]["message"]
    texts = [json.dumps(created), json.dumps(dead), json.dumps(await crm.shown(created))]
    tables = ("connections", "sync_states", "outbox", "idempotency_keys")
    for table in tables:
        rows = await crm.database.fetch(f"SELECT * FROM {table} WHERE workspace_id = $1", crm.workspace)
        assert rows
        texts += [repr(tuple(row.values())) for row in rows]
    texts += list(capfd.readouterr())
    assert [text for text in texts if token in text] == []


async def test_credentials_move_to_a_new_key_and_the_old_one_can_go(crm):
    connection = await crm.connect(mode="selected")
    old = crm.service.settings.credential_keys.get_secret_value()
    new = f"k2:{base64.b64encode(b'2' * 32).decode()}"
    dsn = crm.service.settings.database_url.get_secret_value()
    try:
        assert await rotate(dsn, Vault(f"{new},{old}")) >= 1
        assert await rotate(dsn, Vault(f"{new},{old}")) == 0
        sealed = await crm.database.fetchval("SELECT credentials FROM connections WHERE id = $1", connection["id"])
        assert unseal(Vault(new), crm.workspace, connection["id"], sealed) == StaticToken(f"pat-sim-{crm.portal}")
    finally:
        await rotate(dsn, Vault(f"{old},{new}"))


async def test_credentials_that_no_key_opens_any_more_are_said_so_and_can_be_given_again(crm):
    hubspot, webhook = await crm.connect(), await crm.connect_webhook("keyless", new_signing_secret())
    lost = f"k0:{base64.b64encode(b'0' * 32).decode()}"
    for made in (hubspot, webhook):
        sealed = seal(Vault(lost), crm.workspace, made["id"], StaticToken("pat"))
        await crm.database.execute("UPDATE connections SET credentials = $2 WHERE id = $1", made["id"], sealed)
    listed = (await crm.client.get(CONNECTIONS)).json()["items"]
    assert {each["credentials"]["kind"] for each in listed} == {"unreadable"}
    path = f"{CONNECTIONS}/{hubspot['id']}"
    found = (await crm.client.post(f"{path}/verify")).json()
    assert (found["ok"], found["problems"][0]["pointer"]) == (False, "/credentials")
    assert found["connection"]["status"] == "needs_reauth"
    token = {"credentials": {"access_token": f"pat-sim-{crm.portal}"}}
    changed = (await crm.client.patch(path, json=token)).json()
    assert (changed["status"], changed["credentials"]["kind"]) == ("active", "access_token")
    path = f"{CONNECTIONS}/{webhook['id']}"
    assert (await crm.client.post(f"{path}/signing-secret")).status_code == 200
    assert (await crm.client.get(path)).json()["credentials"]["kind"] == "secret"


async def test_the_documents_example_is_taken(crm):
    answer = await crm.client.post(CONNECTIONS, json=NEW_CONNECTION_EXAMPLE)
    assert answer.status_code == 201, answer.text


async def test_the_document_describes_every_operation(crm):
    document = crm.service.http.app.openapi()
    operations = [each for path in document["paths"].values() for each in path.values()]
    assert len(operations) == 16
    assert len({each["operationId"] for each in operations}) == 16
    for each in operations:
        assert each["summary"]
        assert {"401", "403", "503"} <= set(each["responses"])
