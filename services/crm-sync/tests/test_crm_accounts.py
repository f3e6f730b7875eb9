"""Credentials lead to one account: another one's are refused, and nothing is learned from those that were replaced meanwhile."""

import asyncio

import pytest

from crm_sync.connectors.protocol import Preparation, TroubleKind, VendorTrouble
from crm_sync.credentials import reseal
from crm_sync.models import ConnectionKey
from crm_sync.repository import read_connection, record_preparation
from simulators.testing import grant_of
from tests.support.fixtures import eventually

CONNECTIONS = "/api/crm/connections"
ACCOUNT = "account.details"
PROPERTIES = "properties.batch_read"
UPSERT = "contacts.batch_upsert"
UPDATE = "contacts.batch_update"


async def give_credentials(crm, connection, credentials):
    answer = await crm.client.patch(f"{CONNECTIONS}/{connection['id']}", json={"credentials": credentials})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def is_out(crm, operation, times=1):
    """Wait until HubSpot has been asked that often."""

    async def check():
        return len(crm.calls(operation)) >= times

    await eventually(check)


async def test_credentials_of_another_account_are_not_used_for_a_connections_records(crm, portal_of_others):
    connection = await crm.connect()
    await crm.lead("lead_1")
    await crm.in_step("lead_1", connection)
    path = f"{CONNECTIONS}/{connection['id']}"
    changed = await give_credentials(crm, connection, {"access_token": f"pat-sim-{portal_of_others}"})
    assert changed["account_id"] == str(crm.portal)
    await crm.lead("lead_1", version=2, score=43)
    standing = await crm.until("lead_1", connection, connection_status="needs_reauth", state="due")
    assert (standing["attempts"], standing["synced_version"]) == (0, 1)
    assert f"for account {portal_of_others}," in (await crm.shown(connection))["status_reason"]
    verified = (await crm.client.post(f"{path}/verify")).json()
    assert (verified["ok"], verified["made"], verified["problems"][0]["pointer"]) == (False, [], "/credentials")
    (await crm.client.post(f"{path}/resume")).raise_for_status()
    await crm.until("lead_1", connection, connection_status="needs_reauth", state="due")
    asked = {call["operation"] for call in crm.simulators.requests(portal_of_others)}
    assert asked == {ACCOUNT}
    changed = await give_credentials(crm, connection, {"access_token": f"pat-sim-{crm.portal}"})
    assert changed["status"] == "active"
    await crm.in_step("lead_1", connection, 2)


async def test_a_call_under_way_does_not_go_on_with_another_accounts_credentials(crm, portal_of_others):
    """Its token is refused while a person gives the connection another account's."""
    connection = await crm.connect(credentials=grant_of(crm.portal))
    await crm.lead("lead_1")
    await crm.in_step("lead_1", connection)
    crm.fault(UPDATE, {"do": "expire_token"}, times=1)
    crm.simulators.control("PUT", "hubspot/behaviour", {"latency_min_seconds": 0.3})
    try:
        await crm.lead("lead_1", 2, company="Engines Ltd")
        await is_out(crm, UPDATE)
        await give_credentials(crm, connection, grant_of(portal_of_others))
        await crm.lead("lead_1", 3, company="Engines & Sons")
        refused = {"connection_status": "needs_reauth", "state": "due"}
        standing = await crm.until("lead_1", connection, desired_version=3, **refused)
    finally:
        crm.simulators.control("PUT", "hubspot/behaviour", {})
    assert standing["attempts"] == 0
    assert {call["operation"] for call in crm.simulators.requests(portal_of_others)} <= {ACCOUNT, "oauth.token"}


async def test_a_refused_token_that_was_sealed_anew_meanwhile_is_refreshed_all_the_same(crm):
    """The rotation of keys writes the credentials as well, and must not pass for a refresh."""
    made = await crm.connect(mode="selected", credentials=grant_of(crm.portal))
    checks = crm.service.http.state["checks"]
    connector, key = checks.connectors["hubspot"], ConnectionKey(crm.workspace, made["id"])
    read = await checks.database.read(lambda db: read_connection(db, key))
    first = await checks.keeper.access(read, connector)
    read = await checks.database.read(lambda db: read_connection(db, key))
    sealed = reseal(checks.keeper.vault, key.workspace_id, key.id, read.sealed)
    await crm.database.execute("UPDATE connections SET credentials = $2 WHERE id = $1", key.id, sealed)
    second = await checks.keeper.access(read, connector, refused=True)
    assert second.credentials.access_token != first.credentials.access_token


async def test_credentials_given_meanwhile_are_not_handed_out_before_their_account_was_seen(crm):
    made = await crm.connect(mode="selected", credentials=grant_of(crm.portal))
    checks = crm.service.http.state["checks"]
    connector, key = checks.connectors["hubspot"], ConnectionKey(crm.workspace, made["id"])
    read = await checks.database.read(lambda db: read_connection(db, key))
    await give_credentials(crm, made, {"access_token": f"pat-sim-{crm.portal}"})
    with pytest.raises(VendorTrouble) as met:
        await checks.keeper.access(read, connector, refused=True)
    assert met.value.trouble.kind is TroubleKind.UNPREPARED


async def test_an_account_seen_with_credentials_that_were_replaced_meanwhile_is_not_the_connections(
    crm, portal_of_others
):
    crm.fault(ACCOUNT, {"do": "hang", "work_first": True, "seconds": 0.8}, times=1)
    connection = await crm.connect()
    await crm.lead("lead_1")
    await is_out(crm, ACCOUNT)
    await give_credentials(crm, connection, {"access_token": f"pat-sim-{portal_of_others}"})
    await crm.in_step("lead_1", connection)
    assert (await crm.shown(connection))["account_id"] == str(portal_of_others)
    assert len(crm.simulators.contacts(portal_of_others)) == 1
    assert crm.contacts() == []


@pytest.mark.parametrize("meanwhile", ["credentials", "mapping", "account"])
async def test_what_was_seen_of_an_account_counts_only_while_nothing_it_rests_on_has_changed(crm, meanwhile):
    made = await crm.connect(mode="selected")
    read = await read_connection(crm.database, ConnectionKey(crm.workspace, made["id"]))
    assert read is not None
    if meanwhile == "credentials":
        await give_credentials(crm, made, {"access_token": f"pat-sim-{crm.portal}"})
    elif meanwhile == "mapping":
        fields = {"fields": [{"property": "email", "field": "email"}]}
        (await crm.client.put(f"{CONNECTIONS}/{made['id']}/mapping", json=fields)).raise_for_status()
    else:
        await crm.database.execute("UPDATE connections SET account_id = '7' WHERE id = $1", made["id"])
    await record_preparation(crm.database, read, Preparation(account_id=str(crm.portal)))
    shown = await crm.shown(made)
    assert (shown["verified_at"], shown["account_id"]) == (None, "7" if meanwhile == "account" else None)


async def test_an_account_that_was_not_seen_yet_is_learned_before_the_next_call(crm):
    """Say, of a connection from before accounts were noted."""
    connection = await crm.connect()
    await crm.lead("lead_1")
    await crm.in_step("lead_1", connection)
    await crm.database.execute("UPDATE connections SET account_id = NULL WHERE id = $1", connection["id"])
    await crm.lead("lead_1", 2, company="Engines Ltd")
    await crm.in_step("lead_1", connection, 2)
    assert (await crm.shown(connection))["account_id"] == str(crm.portal)


async def test_an_answer_that_names_no_account_is_no_leave_to_write_there(crm):
    crm.fault(ACCOUNT, {"do": "status", "status": 200, "body": {}}, times=1)
    connection = await crm.connect()
    await crm.lead("lead_1")
    shown = await crm.resting(connection)
    assert "which account" in shown["trouble"]["reason"]
    assert crm.calls(UPSERT) == []
    await crm.in_step("lead_1", connection)
    assert (await crm.shown(connection))["account_id"] == str(crm.portal)


async def test_a_refusal_of_credentials_that_were_replaced_meanwhile_stops_nothing(crm):
    connection = await crm.connect()
    await crm.lead("lead_0")
    await crm.in_step("lead_0", connection)
    crm.fault(UPSERT, {"do": "status", "status": 403}, times=1)
    crm.simulators.control("PUT", "hubspot/behaviour", {"latency_min_seconds": 0.3})
    try:
        await crm.lead("lead_1")
        await is_out(crm, UPSERT, 2)
        await give_credentials(crm, connection, {"access_token": f"pat-sim-{crm.portal}"})
    finally:
        crm.simulators.control("PUT", "hubspot/behaviour", {})
    await crm.in_step("lead_1", connection)
    assert (await crm.shown(connection))["status"] == "active"


async def with_a_property_that_is_gone(crm):
    """A connection whose mapping fills a property that HubSpot has had; the path of the mapping, and one without it."""
    headers = {"authorization": f"Bearer pat-sim-{crm.portal}"}
    plan = {"name": "plan", "label": "Plan", "type": "string", "fieldType": "text", "groupName": "contactinformation"}
    crm.simulators.request("POST", "/crm/v3/properties/contacts", json=plan, headers=headers)
    email = {"property": "email", "field": "email"}
    connection = await crm.connect(mapping=[email, {"property": "plan", "field": "custom.plan"}])
    await crm.lead("lead_0", custom={"plan": "pro"})
    await crm.in_step("lead_0", connection)
    crm.simulators.request("DELETE", "/crm/v3/properties/contacts/plan", headers=headers)
    return connection, f"{CONNECTIONS}/{connection['id']}/mapping", {"fields": [email]}


async def test_a_misfit_of_a_mapping_that_was_replaced_meanwhile_stops_nothing(crm):
    connection, path, fitting = await with_a_property_that_is_gone(crm)
    crm.fault(UPSERT, {"do": "hang", "work_first": True, "seconds": 0.4}, times=1)
    await crm.lead("lead_1", custom={"plan": "pro"})
    await is_out(crm, UPSERT, 2)
    assert (await crm.client.put(path, json=fitting)).status_code == 200
    await crm.in_step("lead_1", connection)
    assert (await crm.shown(connection))["status"] == "active"


async def test_verify_says_nothing_of_a_mapping_that_was_replaced_meanwhile(crm):
    connection, path, fitting = await with_a_property_that_is_gone(crm)
    crm.fault(PROPERTIES, {"do": "hang", "work_first": True, "seconds": 0.4}, containing='"plan"', times=1)
    before = len(crm.calls(PROPERTIES))
    verifying = asyncio.create_task(crm.client.post(f"{CONNECTIONS}/{connection['id']}/verify"))
    await is_out(crm, PROPERTIES, before + 1)
    assert (await crm.client.put(path, json=fitting)).status_code == 200
    assert (await verifying).json()["ok"] is False
    assert (await crm.shown(connection))["status"] == "active"


async def test_verify_says_nothing_of_credentials_that_were_replaced_meanwhile(crm):
    connection = await crm.connect(mode="selected")
    crm.fault(ACCOUNT, {"do": "status", "status": 403}, times=1)
    crm.simulators.control("PUT", "hubspot/behaviour", {"latency_min_seconds": 0.3})
    try:
        verifying = asyncio.create_task(crm.client.post(f"{CONNECTIONS}/{connection['id']}/verify"))
        await is_out(crm, ACCOUNT)
        await give_credentials(crm, connection, {"access_token": f"pat-sim-{crm.portal}"})
        assert (await verifying).json()["ok"] is False
    finally:
        crm.simulators.control("PUT", "hubspot/behaviour", {})
    assert (await crm.shown(connection))["status"] == "active"
