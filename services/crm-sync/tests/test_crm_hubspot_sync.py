"""Leads on their way to HubSpot: each class of answer, and what becomes of the leads it is about."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from tests.support.fixtures import eventually

UPSERT = "contacts.batch_upsert"
UPDATE = "contacts.batch_update"


async def test_a_new_lead_becomes_one_contact(crm):
    connection = await crm.connect()
    await crm.lead("lead_1", email="ada@example.com", stage="qualified")
    standing = await crm.in_step("lead_1", connection)
    [contact] = crm.contacts()
    assert standing["external_id"] == contact["id"]
    assert contact["properties"]["email"] == "ada@example.com"
    assert contact["properties"]["hs_lead_status"] == "IN_PROGRESS"
    assert contact["properties"]["ao_lead_id"] == "lead_1"


async def test_a_synced_lead_is_announced_with_its_attempts_and_chain(crm):
    connection = await crm.connect()
    await crm.lead("lead_1", chain=("wf_1",))
    standing = await crm.in_step("lead_1", connection)
    [event] = await crm.events("lead_1", connection)
    assert event["type"] == "crm.lead.synced"
    assert event["subjectversion"] == 1
    assert event["origin"] == f"connection:{connection['id']}"
    assert event["chain"] == f"wf_1,{connection['id']}"
    assert event["requestid"] == "req_of_lead"
    data = event["data"]
    assert (data["external_id"], data["version"], data["created"]) == (standing["external_id"], 1, True)
    [attempt] = data["attempts"]
    assert (attempt["outcome"], attempt["status"]) == ("ok", 200)
    [call] = crm.calls()
    assert attempt["request_id"] == data["request_id"] == call["correlation_id"]


async def test_a_change_goes_to_the_same_contact_by_its_record_id(crm):
    connection = await crm.connect()
    await crm.lead("lead_1")
    first = await crm.in_step("lead_1", connection)
    await crm.lead("lead_1", 2, company="Engines Ltd")
    second = await crm.in_step("lead_1", connection, 2)
    assert second["external_id"] == first["external_id"]
    [contact] = crm.contacts()
    assert contact["properties"]["company"] == "Engines Ltd"
    assert len(crm.calls(UPSERT)) == 1
    assert len(crm.calls(UPDATE)) == 1


async def test_a_payload_equal_to_the_last_one_sent_is_not_sent(crm):
    connection = await crm.connect()
    await crm.lead("lead_1")
    await crm.in_step("lead_1", connection)
    await crm.lead("lead_1", 2, score=99, tags=["vip"])
    await crm.in_step("lead_1", connection, 2)
    assert crm.calls(UPDATE) == []
    assert [event["data"]["attempts"] != [] for event in await crm.events("lead_1", connection)] == [True, False]


async def test_a_field_the_lead_lost_is_cleared_and_one_it_never_had_is_left_alone(crm):
    connection = await crm.connect()
    await crm.lead("lead_1", company="Engines", title=None)
    standing = await crm.in_step("lead_1", connection)
    path = f"/crm/objects/2026-03/contacts/{standing['external_id']}"
    headers = {"authorization": f"Bearer pat-sim-{crm.portal}"}
    typed = {"properties": {"jobtitle": "entered in the CRM"}}
    assert crm.simulators.request("PATCH", path, json=typed, headers=headers).status_code == 200
    await crm.lead("lead_1", 2, company=None, title=None)
    await crm.in_step("lead_1", connection, 2)
    [contact] = crm.contacts()
    assert not contact["properties"].get("company")
    assert contact["properties"]["jobtitle"] == "entered in the CRM"


async def test_versions_that_come_in_between_are_sent_as_one(crm):
    connection = await crm.connect(paused=True)
    for version in range(1, 6):
        await crm.lead("lead_1", version, company=f"Company {version}")
    await crm.taken_in("lead_1", 5)
    await crm.resume(connection)
    await crm.in_step("lead_1", connection, 5)
    assert len(crm.calls(UPSERT)) == 1
    [contact] = crm.contacts()
    assert contact["properties"]["company"] == "Company 5"


async def test_many_leads_go_in_batches_of_a_hundred_with_a_write_id_each(crm):
    connection = await crm.connect(paused=True)
    for number in range(130):
        await crm.lead(f"lead_{number}")
    await crm.taken_in("lead_129")
    await crm.resume(connection)
    await crm.in_step("lead_129", connection, seconds=20)

    async def all_idle():
        return await crm.count("idle") == 130

    await eventually(all_idle)
    assert len(crm.contacts()) == 130
    assert len(crm.calls(UPSERT)) == 2
    assert set(crm.simulators.creates(crm.portal, "write_id").values()) == {1}
    assert "lead_5:1" in crm.simulators.creates(crm.portal, "write_id")


@pytest.mark.parametrize("status", [423, 477, 500, 503])
async def test_a_transient_answer_rests_the_connection_and_costs_no_attempt(crm, status):
    connection = await crm.connect()
    crm.fault(UPSERT, {"do": "status", "status": status, "headers": {"Retry-After": "1"}}, times=1)
    await crm.lead("lead_1")
    shown = await crm.resting(connection)
    assert shown["paused_until"] is not None
    assert shown["trouble"]["kind"] == "transient"
    standing = await crm.standing("lead_1", connection)
    assert (standing["attempts"], standing["synced_version"]) == (0, 0)
    await crm.in_step("lead_1", connection)
    [event] = await crm.events("lead_1", connection)
    assert [attempt["outcome"] for attempt in event["data"]["attempts"]] == ["transient", "ok"]

    async def is_well():
        return (await crm.shown(connection))["trouble"] is None

    await eventually(is_well)


@pytest.mark.parametrize("status", [502, 504, 524])
async def test_an_answer_of_a_gateway_that_gave_up_is_looked_up_before_anything_is_sent_again(crm, status):
    connection = await crm.connect()
    crm.fault(UPSERT, {"do": "status", "status": status}, times=1)
    await crm.lead("lead_1")
    await crm.until("lead_1", connection, state="unknown", attempts=0)
    await crm.in_step("lead_1", connection)
    operations = [call["operation"] for call in crm.calls("") if call["operation"].startswith("contacts.")]
    assert operations == [UPSERT, "contacts.batch_read", UPSERT]


async def test_an_unreachable_crm_rests_the_connection_and_costs_no_attempt(crm):
    connection = await crm.connect()
    nowhere = json.dumps({"base_url": "https://no-such-host.invalid"})
    await crm.database.execute(
        "UPDATE connections SET settings = settings || $2::jsonb WHERE workspace_id = $1", crm.workspace, nowhere
    )
    await crm.lead("lead_1")
    await crm.resting(connection, 3)
    standing = await crm.standing("lead_1", connection)
    assert (standing["state"], standing["attempts"]) == ("due", 0)
    assert await crm.dead_letters() == []


@pytest.mark.parametrize("older_shape", [False, True])
async def test_a_burst_limit_is_a_short_rest(crm, older_shape):
    connection = await crm.connect()
    crm.fault(UPSERT, {"do": "rate_limit", "policy": "SECONDLY", "older_shape": older_shape}, times=1)
    await crm.lead("lead_1")
    shown = await crm.resting(connection)
    assert shown["trouble"]["kind"] == "rate_limited"
    until = datetime.fromisoformat(shown["paused_until"]) - datetime.now(UTC)
    assert timedelta(0) < until < timedelta(seconds=2)
    await crm.in_step("lead_1", connection)
    [event] = await crm.events("lead_1", connection)
    assert [attempt["outcome"] for attempt in event["data"]["attempts"]] == ["rate_limited", "ok"]


async def test_a_daily_limit_rests_until_the_accounts_own_midnight(crm):
    zone = "Pacific/Auckland"
    crm.simulators.control("PUT", f"hubspot/accounts/{crm.portal}", {"time_zone": zone})
    connection = await crm.connect()
    crm.fault("contacts.*", {"do": "rate_limit", "policy": "DAILY"}, times=None)
    await crm.lead("lead_1")
    await crm.lead("lead_2")
    shown = await crm.resting(connection)
    assert shown["time_zone"] == zone
    local = datetime.fromisoformat(shown["paused_until"]).astimezone(ZoneInfo(zone))
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    assert timedelta(0) < local - midnight < timedelta(minutes=6)
    assert midnight.date() == datetime.now(ZoneInfo(zone)).date() + timedelta(days=1)
    assert await crm.dead_letters() == []
    calls = len(crm.calls())
    await asyncio.sleep(0.3)
    assert len(crm.calls()) == calls == 1


async def test_one_record_that_is_refused_is_dead_and_the_rest_of_its_batch_is_not(crm):
    connection = await crm.connect(paused=True)
    for number in range(5):
        await crm.lead(f"lead_{number}")
    await crm.lead("lead_bad", email="not@an@address")
    await crm.taken_in("lead_bad")
    await crm.resume(connection)
    dead = await crm.until("lead_bad", connection, state="dead")
    assert dead["dead_class"] == "permanent"
    assert "Email address not@an@address is invalid" in dead["last_error"]["message"]
    for number in range(5):
        await crm.in_step(f"lead_{number}", connection)
    [letter] = await crm.dead_letters()
    assert (letter["lead_id"], letter["class"], letter["attempts"]) == ("lead_bad", "permanent", 1)
    assert letter["error"]["correlation_id"] == crm.calls()[0]["correlation_id"]
    [event] = await crm.events("lead_bad", connection)
    assert event["type"] == "crm.lead.failed"
    assert (event["data"]["kind"], event["data"]["error"]["category"]) == ("permanent", "VALIDATION_ERROR")


async def test_a_batch_refused_as_a_whole_is_halved_until_the_culprit_is_alone(crm):
    crm.simulators.control("PUT", "hubspot/behaviour", {"multi_status": False})
    try:
        connection = await crm.connect(paused=True)
        for number in range(7):
            await crm.lead(f"lead_{number}")
        await crm.lead("lead_bad", email="not@an@address")
        await crm.taken_in("lead_bad")
        await crm.resume(connection)
        await crm.until("lead_bad", connection, state="dead", dead_class="permanent")
        for number in range(7):
            await crm.in_step(f"lead_{number}", connection)
        assert len(await crm.dead_letters()) == 1
    finally:
        crm.simulators.control("PUT", "hubspot/behaviour", {"multi_status": True})


async def test_a_whole_batch_409_harms_nobody_but_the_lead_in_conflict(crm):
    crm.simulators.control("PUT", "hubspot/behaviour", {"multi_status": False})
    try:
        connection = await crm.connect(paused=True)
        headers = {"authorization": f"Bearer pat-sim-{crm.portal}"}
        body = {"properties": {"email": "taken@example.com"}}
        existing = crm.simulators.request("POST", "/crm/v3/objects/contacts", json=body, headers=headers).json()
        for number in range(4):
            await crm.lead(f"lead_{number}")
        await crm.lead("lead_taken", email="taken@example.com")
        await crm.taken_in("lead_taken")
        await crm.resume(connection)
        adopted = await crm.in_step("lead_taken", connection)
        assert adopted["external_id"] == existing["id"]
        for number in range(4):
            await crm.in_step(f"lead_{number}", connection)
        assert await crm.dead_letters() == []
        assert crm.simulators.creates(crm.portal)["taken@example.com"] == 1
    finally:
        crm.simulators.control("PUT", "hubspot/behaviour", {"multi_status": True})


async def test_success_without_the_records_id_is_looked_up_and_then_ok(crm):
    connection = await crm.connect()
    crm.fault(UPSERT, {"do": "silent", "work": True, "lose": "results"}, times=1)
    await crm.lead("lead_1")
    await crm.until("lead_1", connection, state="unknown")
    await crm.in_step("lead_1", connection)
    assert len(crm.contacts()) == 1
    assert len(crm.calls(UPSERT)) == 1
    kinds = [(event["type"], event["data"].get("kind")) for event in await crm.events("lead_1", connection)]
    assert kinds == [("crm.lead.failed", "retrying"), ("crm.lead.synced", None)]


async def test_success_that_never_takes_is_dead_after_three_times_and_never_ok(crm):
    connection = await crm.connect()
    crm.fault(UPSERT, {"do": "silent", "work": False}, times=None)
    await crm.lead("lead_1")
    dead = await crm.until("lead_1", connection, state="dead", seconds=20)
    assert dead["dead_class"] == "unknown"
    assert dead["synced_version"] == 0
    assert len(crm.calls(UPSERT)) == 3
    assert len(crm.calls("contacts.batch_read")) == 3
    assert (await crm.events("lead_1", connection))[-1]["data"]["kind"] == "unknown"


async def test_a_record_read_back_with_other_values_than_were_sent_is_written_again(crm):
    connection = await crm.connect()
    await crm.lead("lead_1", company="first")
    await crm.in_step("lead_1", connection)
    crm.fault(UPDATE, {"do": "silent", "work": False}, times=1)
    await crm.lead("lead_1", 2, company="second")
    await crm.in_step("lead_1", connection, 2)
    [contact] = crm.contacts()
    assert contact["properties"]["company"] == "second"
    assert (len(crm.calls("contacts.batch_read")), len(crm.calls(UPDATE))) == (1, 2)


async def test_only_the_leads_missing_from_a_success_are_looked_up(crm):
    connection = await crm.connect(paused=True)
    crm.fault(UPSERT, {"do": "silent", "work": True, "lose": [1]}, times=1)
    for number in range(3):
        await crm.lead(f"lead_{number}")
    await crm.taken_in("lead_2")
    await crm.resume(connection)
    for number in range(3):
        await crm.in_step(f"lead_{number}", connection)
    [look_up] = crm.calls("contacts.batch_read")
    assert len(crm.calls(UPSERT)) == 1
    assert len(crm.contacts()) == 3
    assert look_up["status"] == 200


async def test_nothing_is_sent_again_before_a_slow_crm_has_given_up(crm, shared):
    """The work of the first call comes late, after our time-out: were the lead sent again before, there would be two."""
    connection = await crm.connect()
    crm.fault(UPSERT, {"do": "hang", "work_first": False, "seconds": 1.8}, times=1)
    await crm.lead("lead_1", phone="+14155550100", email=None)
    await crm.until("lead_1", connection, state="unknown", attempts=0)
    await crm.in_step("lead_1", connection, seconds=15)
    assert len(crm.contacts()) == 1
    first, *others = [call for call in crm.calls("") if call["operation"].startswith("contacts.batch")]
    assert first["operation"] == UPSERT
    assert others[0]["operation"] == "contacts.batch_read"
    assert (
        others[0]["at"] - first["at"] >= shared.settings.call_timeout_seconds + shared.settings.vendor_timeout_seconds
    )
    assert len(crm.calls(UPSERT)) == 1


async def test_a_refused_token_stops_the_connection_until_there_is_another(crm):
    connection = await crm.connect(credentials={"access_token": "pat-wrong"})
    await crm.lead("lead_1")
    standing = await crm.until("lead_1", connection, connection_status="needs_reauth")
    assert (standing["state"], standing["attempts"]) == ("due", 0)
    change = {"credentials": {"access_token": f"pat-sim-{crm.portal}"}}
    answer = await crm.client.patch(f"/api/crm/connections/{connection['id']}", json=change)
    assert answer.json()["status"] == "active"
    await crm.in_step("lead_1", connection)


async def test_a_missing_scope_stops_the_connection_and_costs_no_attempt(crm):
    connection = await crm.connect()
    crm.fault(UPSERT, {"do": "status", "status": 403}, times=1)
    await crm.lead("lead_1")
    standing = await crm.until("lead_1", connection, connection_status="needs_reauth", state="due")
    assert standing["attempts"] == 0
    shown = await crm.shown(connection)
    assert "hasn't been granted all required scopes" in shown["status_reason"]
    await crm.client.post(f"/api/crm/connections/{connection['id']}/resume")
    await crm.in_step("lead_1", connection)


async def test_a_property_that_vanished_stops_the_connection_instead_of_killing_every_lead(crm):
    connection = await crm.connect(paused=True)
    headers = {"authorization": f"Bearer pat-sim-{crm.portal}"}
    plan = {"name": "plan", "label": "Plan", "type": "string", "fieldType": "text", "groupName": "contactinformation"}
    assert crm.simulators.request("POST", "/crm/v3/properties/contacts", json=plan, headers=headers).status_code == 201
    fields = {"fields": [{"property": "email", "field": "email"}, {"property": "plan", "field": "custom.plan"}]}
    path = f"/api/crm/connections/{connection['id']}/mapping"
    assert (await crm.client.put(path, json=fields)).status_code == 200
    assert (await crm.client.post(f"/api/crm/connections/{connection['id']}/verify")).json()["ok"]
    crm.simulators.request("DELETE", "/crm/v3/properties/contacts/plan", headers=headers)
    for number in range(5):
        await crm.lead(f"lead_{number}", custom={"plan": "pro"})
    await crm.taken_in("lead_4")
    await crm.resume(connection)
    await crm.until("lead_0", connection, connection_status="needs_mapping", state="due")
    assert await crm.dead_letters() == []


async def test_our_own_property_is_made_again_if_somebody_deleted_it(crm):
    connection = await crm.connect()
    await crm.lead("lead_1")
    await crm.in_step("lead_1", connection)
    headers = {"authorization": f"Bearer pat-sim-{crm.portal}"}
    crm.simulators.request("DELETE", "/crm/v3/properties/contacts/ao_lead_id", headers=headers)
    await crm.lead("lead_2")
    await crm.in_step("lead_2", connection)
    assert await crm.dead_letters() == []


async def test_a_record_hubspot_fails_on_again_and_again_is_blamed_itself_in_the_end(crm, monkeypatch):
    monkeypatch.setattr("crm_sync.connectors.hubspot.HubSpotConnector.retry_delays", (0.05, 0.05))
    connection = await crm.connect()
    crm.fault(UPSERT, {"do": "status", "status": 500}, times=None, containing="poison@example.com")
    await crm.lead("lead_poison", email="poison@example.com")
    for number in range(20):
        await crm.lead(f"lead_{number}")
    for number in range(20):
        await crm.in_step(f"lead_{number}", connection, seconds=20)
    for version in range(2, 60):
        await crm.lead("lead_0", version, company=f"Company {version}")
        if (await crm.standing("lead_poison", connection))["state"] == "dead":
            break
        await asyncio.sleep(0.15)
    dead = await crm.until("lead_poison", connection, state="dead", dead_class="permanent")
    assert dead["last_error"]["status"] == 500
    assert len(await crm.dead_letters()) == 1


@pytest.mark.parametrize("company", ["first", None], ids=["back-to-the-old", "emptied"])
async def test_a_value_that_may_have_been_written_is_written_over(crm, company):
    """What the record was last given for sure says nothing while a later write's outcome is unknown."""
    connection = await crm.connect()
    await crm.lead("lead_1", company=company)
    await crm.in_step("lead_1", connection)
    crm.fault(UPDATE, {"do": "drop", "work": True}, times=1)
    await crm.lead("lead_1", 2, company="second")
    await crm.until("lead_1", connection, state="unknown")
    await crm.lead("lead_1", 3, company=company)
    await crm.in_step("lead_1", connection, 3)
    [contact] = crm.contacts()
    assert (contact["properties"].get("company") or None) == company


async def test_a_value_of_a_write_that_failed_is_written_over(crm):
    """A server error may come after the work: the simulator does it, and then answers 500."""
    connection = await crm.connect()
    await crm.lead("lead_1", company="first")
    standing = await crm.in_step("lead_1", connection)
    crm.fault(UPDATE, {"do": "status", "status": 500}, times=1)
    path = f"/crm/objects/2026-03/contacts/{standing['external_id']}"
    headers = {"authorization": f"Bearer pat-sim-{crm.portal}"}
    crm.simulators.request("PATCH", path, json={"properties": {"company": "second"}}, headers=headers)
    await crm.lead("lead_1", 2, company="second")
    await crm.resting(connection)
    await crm.lead("lead_1", 3, company="first")
    await crm.in_step("lead_1", connection, 3)
    [contact] = crm.contacts()
    assert contact["properties"]["company"] == "first"


@pytest.mark.parametrize("linked", [False, True])
async def test_an_address_hubspot_does_not_have_is_no_leads_fault(crm, linked):
    connection = await crm.connect()
    await crm.lead("lead_0")
    first = await crm.in_step("lead_0", connection)
    crm.fault("contacts.*", {"do": "status", "status": 404}, times=None)
    for number in range(0 if linked else 1, 1 if linked else 4):
        await crm.lead(f"lead_{number}", 2 if linked else 1, company="Engines Ltd")
    shown = await crm.resting(connection, 3)
    assert "HubSpot does not have this address" in shown["trouble"]["reason"]
    assert await crm.dead_letters() == []
    assert (await crm.standing("lead_0", connection))["external_id"] == first["external_id"]


async def test_a_raised_limit_is_used_while_the_old_one_still_waits(crm, monkeypatch):
    monkeypatch.setattr("crm_sync.sync.syncer.LONGEST_WAIT_SECONDS", 0.3)
    connection = await crm.connect()
    await crm.lead("lead_1")
    await crm.in_step("lead_1", connection)
    path = f"/api/crm/connections/{connection['id']}"
    slow = {"settings": {"requests_per_10_seconds": 1}}
    assert (await crm.client.patch(path, json=slow)).status_code == 200
    await crm.lead("lead_2")
    await crm.in_step("lead_2", connection)
    await crm.lead("lead_3")
    await crm.taken_in("lead_3")
    await asyncio.sleep(0.3)
    assert (await crm.standing("lead_3", connection))["synced_version"] == 0
    fast = {"settings": {"requests_per_10_seconds": 10_000}}
    assert (await crm.client.patch(path, json=fast)).status_code == 200
    await crm.in_step("lead_3", connection)
