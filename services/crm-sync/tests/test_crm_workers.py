"""Workers that die, stop, come back late or are two: what is sent, how often, and how fast."""

import asyncio
import json
import signal
import time
from collections import defaultdict

import pytest
from redis.asyncio import Redis

from crm_sync.sync.repository import LeadCopy, take_leads
from tests.support.fixtures import eventually

UPSERT = "contacts.batch_upsert"
UPDATE = "contacts.batch_update"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"email": "old@example.com"}, {"email": "new@example.com"}),
        ({"email": None, "phone": "+14155550100"}, {"email": "now@example.com", "phone": "+14155550199"}),
    ],
    ids=["email-changed", "phone-only"],
)
async def test_a_crash_between_the_crms_accept_and_our_result_leaves_one_contact(
    own_crm, start_process, start_worker, first, second
):
    connection = await own_crm.connect()
    dying = await start_process(failpoint="sync.after_call")
    await own_crm.lead("lead_1", **first)
    assert await dying.exit_code() == -signal.SIGKILL
    await own_crm.outlive_leases()
    assert len(own_crm.contacts()) == 1
    await own_crm.lead("lead_1", 2, **second)
    await start_worker()
    await own_crm.in_step("lead_1", connection, 2, seconds=20)
    [contact] = own_crm.contacts()
    assert contact["properties"]["email"] == second["email"]
    operations = [call["operation"] for call in own_crm.calls("") if "batch" in call["operation"]]
    assert operations[-3:] == [UPSERT, "contacts.batch_read", UPDATE]


async def test_what_a_dead_workers_call_may_have_filled_is_cleared_if_the_lead_has_lost_it(
    own_crm, start_process, start_worker
):
    connection = await own_crm.connect()
    dying = await start_process(failpoint="sync.after_call")
    await own_crm.lead("lead_1", company="Engines", title=None)
    assert await dying.exit_code() == -signal.SIGKILL
    await own_crm.outlive_leases()
    [contact] = own_crm.contacts()
    path = f"/crm/v3/objects/contacts/{contact['id']}"
    headers = {"authorization": f"Bearer pat-sim-{own_crm.portal}"}
    own_crm.simulators.request("PATCH", path, json={"properties": {"jobtitle": "typed in"}}, headers=headers)
    await own_crm.lead("lead_1", 2, company=None, title=None)
    await start_worker()
    await own_crm.in_step("lead_1", connection, 2, seconds=20)
    [contact] = own_crm.contacts()
    assert not contact["properties"].get("company")
    assert contact["properties"]["jobtitle"] == "typed in"


@pytest.mark.parametrize("failpoint", ["sync.before_call", "sync.before_settle", "database.after_commit"])
async def test_a_worker_killed_anywhere_on_the_way_leaves_one_contact_and_one_event(
    own_crm, start_process, start_worker, failpoint
):
    connection = await own_crm.connect()
    dying = await start_process(failpoint=failpoint)
    await own_crm.lead("lead_1")
    assert await dying.exit_code() == -signal.SIGKILL
    await own_crm.outlive_leases()
    await start_worker()
    await own_crm.in_step("lead_1", connection, seconds=20)
    assert len(own_crm.contacts()) == 1
    synced = [event for event in await own_crm.events("lead_1", connection) if event["type"] == "crm.lead.synced"]
    assert [event["data"]["version"] for event in synced] == [1]


async def test_a_worker_paused_past_its_lease_cannot_write_over_what_happened_meanwhile(
    own_crm, start_process, start_worker
):
    connection = await own_crm.connect()
    own_crm.fault(UPSERT, {"do": "hang", "work_first": True, "seconds": 0.6}, times=1)
    slow = await start_process(call_timeout_seconds=0.9)
    await own_crm.lead("lead_1", company="v1")

    async def is_out():
        return len(own_crm.calls(UPSERT)) == 1

    await eventually(is_out)
    slow.send_signal(signal.SIGSTOP)
    # The stopped process still holds the queue's deliveries: the newer version is put where its consumer would put it.
    lead = json.dumps({"id": "lead_1", "email": "lead_1@example.com", "company": "v2"})
    copy = LeadCopy(
        own_crm.workspace, "lead_1", 2, deleted=False, lead=lead, chain="", request_id=None, traceparent=None
    )
    await take_leads(own_crm.database, [copy])
    await start_worker()
    await own_crm.in_step("lead_1", connection, 2, seconds=20)
    token_before = (await own_crm.row("lead_1"))["event_count"]
    slow.send_signal(signal.SIGCONT)
    await asyncio.sleep(1.5)
    row = await own_crm.row("lead_1")
    assert (row["synced_version"], row["state"], row["event_count"]) == (2, "idle", token_before)
    [contact] = own_crm.contacts()
    assert contact["properties"]["company"] == "v2"


async def test_a_lead_changed_while_its_call_is_out_ends_at_the_newest_version(own_crm, start_worker):
    connection = await own_crm.connect()
    own_crm.fault(UPSERT, {"do": "hang", "work_first": True, "seconds": 0.5}, times=1)
    await start_worker()
    await own_crm.lead("lead_1", company="v1")

    async def is_out():
        return len(own_crm.calls(UPSERT)) == 1

    await eventually(is_out)
    await own_crm.lead("lead_1", 2, company="v2")
    await own_crm.in_step("lead_1", connection, 2)
    [contact] = own_crm.contacts()
    assert contact["properties"]["company"] == "v2"
    versions = [event["data"]["version"] for event in await own_crm.events("lead_1", connection)]
    assert versions == [1, 2]


async def test_a_holder_whose_call_was_out_when_its_record_was_written_over_has_its_data_in_the_end(
    own_crm, start_worker
):
    await start_worker()
    await start_worker()
    connection = await own_crm.connect()
    for name in ("lead_1", "lead_2"):
        await own_crm.lead(name)
    ids = [(await own_crm.in_step(name, connection))["external_id"] for name in ("lead_1", "lead_2")]
    merging = {"primaryObjectId": ids[0], "objectIdToMerge": ids[1]}
    headers = {"authorization": f"Bearer pat-sim-{own_crm.portal}"}
    own_crm.simulators.request("POST", "/crm/v3/objects/contacts/merge", json=merging, headers=headers)
    await own_crm.lead("lead_1", 2, company="of lead_1")
    await own_crm.in_step("lead_1", connection, 2)
    own_crm.fault(UPDATE, {"do": "hang", "work_first": True, "seconds": 0.8}, containing="again of lead_1", times=1)
    await own_crm.lead("lead_1", 3, company="again of lead_1")

    async def is_out():
        return own_crm.contacts()[0]["properties"]["company"] == "again of lead_1"

    await eventually(is_out)
    await own_crm.lead("lead_2", 2, company="of lead_2")
    await own_crm.until("lead_2", connection, state="dead", dead_class="duplicate_external")
    await own_crm.in_step("lead_1", connection, 3)
    [contact] = own_crm.contacts()
    assert contact["properties"]["company"] == "again of lead_1"


async def test_a_call_whose_connection_breaks_after_the_work_is_looked_up(own_crm, start_worker):
    connection = await own_crm.connect()
    own_crm.fault(UPSERT, {"do": "drop", "work": True}, times=1)
    await start_worker()
    await own_crm.lead("lead_1")
    await own_crm.in_step("lead_1", connection)
    assert len(own_crm.contacts()) == 1
    assert len(own_crm.calls(UPSERT)) == 1
    assert (await own_crm.standing("lead_1", connection))["attempts"] == 0


@pytest.mark.long  # as long as the limit's ten seconds
async def test_two_workers_share_one_rate_budget_and_lose_no_lead(own_crm, start_worker, redis_url):
    limit = 10
    settings = {"requests_per_10_seconds": limit, "requests_per_day": 100_000_000}
    connection = await own_crm.connect(settings=settings)
    await start_worker()
    await start_worker()
    began = time.time()
    for number in range(14):
        await own_crm.lead(f"lead_{number}")
        await asyncio.sleep(0.25)
        if number == 7:
            redis = Redis.from_url(redis_url)
            await redis.flushdb()
            await redis.aclose()

    async def all_there():
        return await own_crm.count("idle") == 14

    await eventually(all_there, seconds=30)
    assert len(own_crm.contacts()) == 14
    times = [call["at"] for call in own_crm.calls("") if call["at"] >= began - 1]
    busiest = max(sum(1 for other in times if 0 <= other - start < 10) for start in times)
    assert busiest <= limit
    assert [call["status"] for call in own_crm.calls("")].count(429) == 0
    assert connection["status"] == "active"


async def test_from_the_wish_to_the_request_nobody_waits_for_the_next_look(own_crm, start_worker):
    connection = await own_crm.connect()
    await start_worker(poll_seconds=30)
    await own_crm.lead("lead_0")
    await own_crm.in_step("lead_0", connection)
    delays = []
    for number in range(1, 12):
        await own_crm.lead(f"lead_{number}")
        await own_crm.in_step(f"lead_{number}", connection)
        row = await own_crm.row(f"lead_{number}")
        sent_at = own_crm.calls(UPSERT)[-1]["at"]
        delays.append(sent_at - row["created_at"].timestamp())
    assert sorted(delays)[len(delays) // 2] < 0.5


async def test_a_wish_of_the_http_process_wakes_the_worker(own_crm, start_worker):
    connection = await own_crm.connect(mode="selected")
    await start_worker(poll_seconds=30)
    await own_crm.lead("lead_1")
    await own_crm.taken_in("lead_1")
    await asyncio.sleep(0.3)
    began = time.monotonic()
    answer = await own_crm.as_service().post("/api/crm/leads/lead_1/sync", json={"version": 1})
    assert answer.status_code == 202, answer.text
    await own_crm.in_step("lead_1", connection)
    assert time.monotonic() - began < 5


async def test_hubspots_v3_paths_work_as_the_dated_ones_do(own_crm, start_worker):
    await start_worker(hubspot_api_version="v3")
    connection = await own_crm.connect()
    await own_crm.lead("lead_1")
    await own_crm.in_step("lead_1", connection)
    assert {call["path"].split("/")[2] for call in own_crm.calls()} == {"v3"}


async def test_a_stopping_worker_finishes_the_call_in_its_hands(own_crm, start_process):
    connection = await own_crm.connect()
    own_crm.fault(UPSERT, {"do": "hang", "work_first": True, "seconds": 0.6}, times=1)
    worker = await start_process()
    await own_crm.lead("lead_1")

    async def is_out():
        return len(own_crm.calls(UPSERT)) == 1

    await eventually(is_out)
    worker.send_signal(signal.SIGTERM)
    await worker.exit_code()
    standing = await own_crm.standing("lead_1", connection)
    assert (standing["state"], standing["synced_version"]) == ("in_step", 1)


async def test_a_lease_is_renewed_while_its_call_is_out(own_crm, start_worker):
    await own_crm.connect()
    own_crm.fault("contacts.batch_upsert", {"do": "hang", "work_first": True, "seconds": 0.9}, times=1)
    await start_worker(lease_seconds=1.8)
    await own_crm.lead("lead_1")
    ends = defaultdict(set)

    async def is_renewed():
        row = await own_crm.database.fetchrow("SELECT * FROM sync_states WHERE state = 'in_flight'")
        if row is not None:
            ends[row["lease_token"]].add(row["next_try_at"])
        return any(len(seen) > 1 for seen in ends.values())

    await eventually(is_renewed)
