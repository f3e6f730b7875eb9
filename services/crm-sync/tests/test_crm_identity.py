"""One lead, one record: changed e-mail, merge, delete, restore, and two leads with one e-mail in the CRM."""

import pytest

from tests.support.fixtures import eventually

UPSERT = "contacts.batch_upsert"
UPDATE = "contacts.batch_update"


def hubspot(crm, method, path, **arguments):
    headers = {"authorization": f"Bearer pat-sim-{crm.portal}"}
    answer = crm.simulators.request(method, f"/crm/v3/objects/contacts{path}", headers=headers, **arguments)
    assert answer.status_code < 300, answer.text
    return answer.json() if answer.content else None


async def test_a_changed_email_stays_the_same_contact(crm):
    connection = await crm.connect()
    await crm.lead("lead_1", email="old@example.com")
    first = await crm.in_step("lead_1", connection)
    await crm.lead("lead_1", 2, email="new@example.com")
    second = await crm.in_step("lead_1", connection, 2)
    assert second["external_id"] == first["external_id"]
    assert [contact["properties"]["email"] for contact in crm.contacts()] == ["new@example.com"]


async def test_a_lead_with_a_phone_only_is_one_contact_through_all_its_changes(crm):
    connection = await crm.connect()
    await crm.lead("lead_1", email=None, phone="+14155550100")
    await crm.in_step("lead_1", connection)
    await crm.lead("lead_1", 2, email="ada@example.com", phone="+14155550100")
    await crm.in_step("lead_1", connection, 2)
    [contact] = crm.contacts()
    assert contact["properties"]["email"] == "ada@example.com"


async def test_a_contact_that_is_nobodys_is_adopted(crm):
    existing = hubspot(crm, "POST", "", json={"properties": {"email": "ada@example.com", "jobtitle": "Countess"}})
    connection = await crm.connect()
    await crm.lead("lead_1", email="ada@example.com", title=None)
    standing = await crm.in_step("lead_1", connection)
    assert standing["external_id"] == existing["id"]
    [contact] = crm.contacts()
    assert contact["properties"]["ao_lead_id"] == "lead_1"
    assert contact["properties"]["jobtitle"] == "Countess"
    [event] = await crm.events("lead_1", connection)
    assert [attempt["outcome"] for attempt in event["data"]["attempts"]] == ["conflict", "ok"]
    assert event["data"]["created"] is False


async def test_of_two_leads_with_one_email_the_second_is_a_dead_letter_that_names_the_first(crm):
    connection = await crm.connect()
    await crm.lead("lead_1", email="shared@example.com")
    first = await crm.in_step("lead_1", connection)
    await crm.lead("lead_2", email="shared@example.com", first_name="Other")
    dead = await crm.until("lead_2", connection, state="dead")
    assert dead["dead_class"] == "duplicate_external"
    assert dead["last_error"]["holder_lead_id"] == "lead_1"
    assert dead["last_error"]["external_id"] == first["external_id"]
    [contact] = crm.contacts()
    assert contact["properties"]["firstname"] == "Ada"
    [event] = await crm.events("lead_2", connection)
    assert event["data"]["kind"] == "duplicate_external"


async def test_a_contact_that_names_a_lead_we_know_nothing_of_is_not_taken_from_it(crm):
    """Say, of another workspace that is connected to the same account."""
    connection = await crm.connect()
    (await crm.client.post(f"/api/crm/connections/{connection['id']}/verify")).raise_for_status()  # makes our property
    theirs = {"email": "shared@example.com", "firstname": "Grace", "ao_lead_id": "lead_of_others"}
    existing = hubspot(crm, "POST", "", json={"properties": theirs})
    await crm.lead("lead_1", email="shared@example.com")
    dead = await crm.until("lead_1", connection, state="dead", dead_class="duplicate_external")
    assert (dead["last_error"]["holder_lead_id"], dead["last_error"]["external_id"]) == (
        "lead_of_others",
        existing["id"],
    )
    assert [contact["properties"]["firstname"] for contact in crm.contacts()] == ["Grace"]


async def test_two_leads_with_one_email_never_go_in_the_same_batch(crm):
    connection = await crm.connect(paused=True)
    await crm.lead("lead_1", email="shared@example.com")
    await crm.lead("lead_2", email="Shared@example.com")
    await crm.taken_in("lead_2")
    await crm.resume(connection)
    await crm.in_step("lead_1", connection)
    await crm.until("lead_2", connection, state="dead", dead_class="duplicate_external")
    assert len(crm.calls(UPSERT)) == 2
    assert crm.simulators.creates(crm.portal) == {"shared@example.com": 1}


async def test_a_linked_lead_whose_new_email_is_another_contacts_is_a_dead_letter(crm):
    hubspot(crm, "POST", "", json={"properties": {"email": "taken@example.com"}})
    connection = await crm.connect()
    await crm.lead("lead_1", email="ada@example.com")
    linked = await crm.in_step("lead_1", connection)
    await crm.lead("lead_1", 2, email="taken@example.com")
    dead = await crm.until("lead_1", connection, state="dead", dead_class="duplicate_external")
    assert dead["external_id"] == linked["external_id"]
    assert dead["synced_version"] == 1
    await crm.lead("lead_1", 3, email="free@example.com")
    await crm.in_step("lead_1", connection, 3)
    assert await crm.dead_letters() == []


async def test_a_contact_merged_in_the_crm_is_followed_to_its_new_id(crm):
    connection = await crm.connect()
    await crm.lead("lead_1")
    first = await crm.in_step("lead_1", connection)
    other = hubspot(crm, "POST", "", json={"properties": {"email": "other@example.com"}})
    merging = {"primaryObjectId": first["external_id"], "objectIdToMerge": other["id"]}
    merged = hubspot(crm, "POST", "/merge", json=merging)
    assert merged["id"] != first["external_id"]
    await crm.lead("lead_1", 2, company="Engines Ltd")
    second = await crm.in_step("lead_1", connection, 2)
    assert second["external_id"] == merged["id"]
    assert len(crm.contacts()) == 1


async def test_of_two_leads_whose_contacts_were_merged_one_holds_the_record_with_its_own_data(crm):
    connection = await crm.connect()
    for name in ("lead_1", "lead_2"):
        await crm.lead(name, company=name)
    ids = [(await crm.in_step(name, connection))["external_id"] for name in ("lead_1", "lead_2")]
    merged = hubspot(crm, "POST", "/merge", json={"primaryObjectId": ids[0], "objectIdToMerge": ids[1]})
    await crm.lead("lead_1", 2, company="the holder")
    held = await crm.in_step("lead_1", connection, 2)
    assert held["external_id"] == merged["id"]
    await crm.lead("lead_2", 2, company="the other")
    dead = await crm.until("lead_2", connection, state="dead", dead_class="duplicate_external")
    assert dead["external_id"] is None
    assert dead["last_error"]["holder_lead_id"] == "lead_1"
    failed = (await crm.events("lead_2", connection))[-1]
    assert (failed["type"], failed["data"]["external_id"]) == ("crm.lead.failed", None)
    # What the second lead's call wrote before it was known whose record that is, is put right.
    await crm.in_step("lead_1", connection, 2)

    async def is_right():
        return crm.contacts()[0]["properties"]["company"] == "the holder"

    await eventually(is_right)
    assert len(crm.contacts()) == 1


async def test_of_two_leads_of_one_batch_whose_contacts_were_merged_the_holders_data_is_there_in_the_end(crm):
    connection = await crm.connect()
    for name in ("lead_1", "lead_2"):
        await crm.lead(name, company=name)
    ids = [(await crm.in_step(name, connection))["external_id"] for name in ("lead_1", "lead_2")]
    hubspot(crm, "POST", "/merge", json={"primaryObjectId": ids[0], "objectIdToMerge": ids[1]})
    await crm.pause(connection)
    await crm.lead("lead_1", 2, company="of lead_1")
    await crm.lead("lead_2", 2, company="of lead_2")
    await crm.taken_in("lead_2", 2)
    await crm.resume(connection)

    async def settled():
        return (await crm.count("idle"), await crm.count("dead")) == (1, 1)

    await eventually(settled)
    [letter] = await crm.dead_letters()
    holder = letter["error"]["holder_lead_id"]
    assert {letter["lead_id"], holder} == {"lead_1", "lead_2"}
    [contact] = crm.contacts()
    assert (contact["properties"]["company"], contact["properties"]["ao_lead_id"]) == (f"of {holder}", holder)
    assert (await crm.in_step(holder, connection, 2))["external_id"] == contact["id"]


async def test_a_deleted_lead_is_released_and_its_contact_kept(crm):
    connection = await crm.connect()
    await crm.lead("lead_1")
    await crm.in_step("lead_1", connection)
    await crm.lead("lead_1", 2, kind="deleted")
    released = await crm.in_step("lead_1", connection, 2)
    assert released["external_id"] is None
    assert len(crm.contacts()) == 1
    event = (await crm.events("lead_1", connection))[-1]
    assert (event["type"], event["data"]["operation"]) == ("crm.lead.synced", "release")
    assert event["data"]["external_id"] is None


async def test_a_restored_lead_finds_its_contact_again(crm):
    connection = await crm.connect()
    await crm.lead("lead_1")
    first = await crm.in_step("lead_1", connection)
    await crm.lead("lead_1", 2, kind="deleted")
    await crm.in_step("lead_1", connection, 2)
    await crm.lead("lead_1", 3, kind="restored")
    again = await crm.in_step("lead_1", connection, 3)
    assert again["external_id"] == first["external_id"]
    assert len(crm.contacts()) == 1


async def test_with_on_delete_archive_the_contact_goes_into_the_recycling_bin(crm):
    connection = await crm.connect(on_delete="archive")
    await crm.lead("lead_1")
    await crm.in_step("lead_1", connection)
    await crm.lead("lead_1", 2, kind="deleted")
    archived = await crm.in_step("lead_1", connection, 2)
    assert archived["external_id"] is None
    assert crm.contacts() == []
    assert (await crm.events("lead_1", connection))[-1]["data"]["operation"] == "archive"
    await crm.lead("lead_1", 3, kind="restored")
    again = await crm.in_step("lead_1", connection, 3)
    assert [contact["id"] for contact in crm.contacts()] == [again["external_id"]]


async def test_the_contact_of_a_deleted_lead_is_free_for_the_next_one_with_its_email(crm):
    connection = await crm.connect()
    await crm.lead("lead_1", email="ada@example.com")
    first = await crm.in_step("lead_1", connection)
    await crm.lead("lead_1", 2, kind="deleted", email="ada@example.com")
    await crm.in_step("lead_1", connection, 2)
    await crm.lead("lead_2", email="ada@example.com")
    second = await crm.in_step("lead_2", connection)
    assert second["external_id"] == first["external_id"]
    [contact] = crm.contacts()
    assert contact["properties"]["ao_lead_id"] == "lead_2"


async def test_an_update_that_comes_after_the_delete_does_not_bring_the_lead_back(crm):
    connection = await crm.connect()
    await crm.lead("lead_1")
    await crm.in_step("lead_1", connection)
    await crm.lead("lead_1", 3, kind="deleted")
    await crm.in_step("lead_1", connection, 3)
    await crm.lead("lead_1", 2, company="too late")
    await crm.lead("lead_9")
    await crm.in_step("lead_9", connection)
    standing = await crm.standing("lead_1", connection)
    assert (standing["desired_version"], standing["external_id"]) == (3, None)
    assert crm.calls(UPDATE) == []


async def test_a_contact_deleted_in_the_crm_is_made_again_while_its_lead_lives(crm):
    connection = await crm.connect()
    await crm.lead("lead_1")
    first = await crm.in_step("lead_1", connection)
    hubspot(crm, "DELETE", f"/{first['external_id']}")
    await crm.lead("lead_1", 2, company="Engines Ltd")
    second = await crm.in_step("lead_1", connection, 2)
    assert second["external_id"] != first["external_id"]
    assert [contact["id"] for contact in crm.contacts()] == [second["external_id"]]


async def test_a_lead_created_and_deleted_before_its_first_call_is_never_sent(crm):
    connection = await crm.connect(paused=True)
    await crm.lead("lead_1")
    await crm.lead("lead_1", 2, kind="deleted")
    await crm.taken_in("lead_1", 2)
    await crm.resume(connection)
    await crm.in_step("lead_1", connection, 2)
    assert crm.contacts() == []


@pytest.mark.parametrize("keeps_primary_id", [False, True])
async def test_a_record_has_one_holder_whatever_merges_do_to_ids(crm, keeps_primary_id):
    settings = {"keeps_primary_id": keeps_primary_id, "burst": 100_000}
    crm.simulators.control("PUT", f"hubspot/accounts/{crm.portal}", settings)
    connection = await crm.connect()
    for name in ("lead_1", "lead_2"):
        await crm.lead(name)
    ids = [(await crm.in_step(name, connection))["external_id"] for name in ("lead_1", "lead_2")]
    hubspot(crm, "POST", "/merge", json={"primaryObjectId": ids[0], "objectIdToMerge": ids[1]})
    await crm.lead("lead_2", 2, company="Engines")
    await crm.lead("lead_1", 2, company="Engines")
    await crm.until("lead_1", connection, desired_version=2)

    async def settled():
        return await crm.count("idle") + await crm.count("dead") == 2

    await eventually(settled)
    held = await crm.database.fetch(
        "SELECT external_id FROM links WHERE workspace_id = $1 AND released_at IS NULL", crm.workspace
    )
    assert len({row["external_id"] for row in held}) == len(held)
    assert len(crm.contacts()) == 1
