"""What statements promise of copies, claims, leases and settlements, with transactions held open where two of them meet."""

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime

import asyncpg
import pytest

from chassis.consumer import Delivery
from chassis.leases import Lease, LeaseLost
from crm_sync.connectors.hubspot import HubSpotConnector
from crm_sync.connectors.webhook import WebhookConnector
from crm_sync.consumer import LeadConsumer
from crm_sync.credentials import new_signing_secret
from crm_sync.models import Announcement, ConnectionKey, Settlement, State
from crm_sync.sync import repository, settling
from crm_sync.sync.batch import Batch, Tools
from crm_sync.sync.planning import plan
from crm_sync.sync.repository import LeadCopy, take_leads

SECONDS = 60.0
HUBSPOT = HubSpotConnector("https://api.hubapi.com", "2026-03")


def copy(crm, lead_id="lead_1", version=1, *, deleted=False, **fields):
    lead = json.dumps({"id": lead_id, "email": f"{lead_id}@example.com", **fields})
    return LeadCopy(crm.workspace, lead_id, version, deleted, lead, chain="", request_id=None, traceparent=None)


def database_of(crm):
    return crm.service.http.state["resources"].database


async def connection_of(crm, key):
    found = await repository.read_connection(crm.database, key)
    assert found is not None
    return found


async def batch_of(crm, key, lease):
    checks = crm.service.http.state["checks"]
    tools = Tools(crm.service.settings, database_of(crm), checks.caller, checks.keeper)
    connection = await connection_of(crm, key)
    return Batch(tools, connection, HUBSPOT, checks.keeper.open(connection), lease)


async def claim(connection, key, token, limit=100, *, looks_up=True):
    return await repository.claim_leads(
        connection, key, limit=limit, lease_token=token, lease_seconds=SECONDS, looks_up=looks_up
    )


def settled(claimed, state=State.IDLE, **changed):
    return Settlement(
        claimed,
        state,
        claimed.in_flight_version,
        is_synced=state is State.IDLE,
        sent={"email": claimed.lead["email"]},
        announcement=Announcement("upsert", created=True),
        **changed,
    )


@pytest.fixture
def crm(still_crm):
    return still_crm


@pytest.fixture
async def held(crm):
    """A connection with one lead due, no worker, and the connection's key."""
    made = await crm.connect()
    await take_leads(crm.database, [copy(crm)])
    return made, ConnectionKey(crm.workspace, made["id"])


@pytest.fixture
async def second(crm):
    """A second session in the service's database."""
    connection = await asyncpg.connect(crm.service.settings.database_url.get_secret_value())
    yield connection
    await connection.close()


async def test_a_copy_never_goes_back_and_the_same_version_wakes_nobody(crm):
    made = await crm.connect()
    key = ConnectionKey(crm.workspace, made["id"])
    assert await take_leads(crm.database, [copy(crm, version=3, deleted=True)]) == set()
    await crm.connect(name="later")
    for version in (3, 2):
        assert await take_leads(crm.database, [copy(crm, version=version, company="old")]) == set()
    held = await crm.database.fetchrow(
        "SELECT version, deleted, lead FROM lead_copies WHERE workspace_id = $1", crm.workspace
    )
    assert (held["version"], held["deleted"], "old" in held["lead"]) == (3, True, False)
    assert await crm.database.fetchval("SELECT count(*) FROM sync_states WHERE workspace_id = $1", crm.workspace) == 0
    assert key in await take_leads(crm.database, [copy(crm, version=4)])


async def test_a_wish_never_goes_back(crm):
    """A workflow wanted version 3 before the events of 1 and 2 were heard."""
    made = await crm.connect(mode="selected")
    wished = {"connection_id": made["id"], "version": 3}
    answer = await crm.as_service().post("/api/crm/leads/lead_1/sync", json=wished)
    assert answer.status_code == 202, answer.text
    assert await take_leads(crm.database, [copy(crm, version=2)]) == set()
    assert (await crm.row("lead_1"))["desired_version"] == 3


@pytest.mark.parametrize("order", [(1, 3, 2), (3, 2, 1)])
async def test_of_several_versions_in_one_batch_the_newest_is_kept(crm, order):
    await crm.connect()
    events = [crm.event("lead_1", version) for version in order]
    consumer = LeadConsumer(lambda _: None)
    async with database_of(crm).transaction() as tx:
        await consumer.apply(tx, [Delivery(event, None, datetime.now(UTC)) for event in events])
    assert await crm.database.fetchval("SELECT version FROM lead_copies WHERE workspace_id = $1", crm.workspace) == 3
    assert (await crm.row("lead_1"))["desired_version"] == 3


async def test_a_lead_another_worker_is_claiming_is_passed_over_without_waiting(crm, held, second):
    _, key = held
    await take_leads(crm.database, [copy(crm, "lead_2")])
    async with second.transaction():
        [first] = await claim(second, key, "lease_a", limit=1)
        others = await asyncio.wait_for(claim(crm.database, key, "lease_b"), 2)
    assert {first.lead_id, *(each.lead_id for each in others)} == {"lead_1", "lead_2"}
    assert len(others) == 1


@pytest.mark.parametrize(
    ("first_due", "claimed"),
    [("lead_1", [["lead_1"], ["lead_0", "lead_2"]]), ("lead_0", [["lead_0", "lead_2"], ["lead_1"]])],
)
async def test_a_lead_whose_call_failed_as_a_whole_goes_alone(crm, first_due, claimed):
    made = await crm.connect()
    key = ConnectionKey(crm.workspace, made["id"])
    await take_leads(crm.database, [copy(crm, f"lead_{number}") for number in range(3)])
    await crm.database.execute(
        """UPDATE sync_states SET suspect = lead_id = 'lead_1', next_try_at = now() - (lead_id = $2)::int * interval '1 second'
        WHERE workspace_id = $1""",
        crm.workspace,
        first_due,
    )
    found = [await claim(crm.database, key, token) for token in ("lease_a", "lease_b")]
    assert [sorted(each.lead_id for each in claims) for claims in found] == claimed


async def test_what_a_call_is_about_is_on_file_before_it_and_stays_until_its_outcome_is_known(crm, held):
    _, key = held
    await crm.database.execute(
        "INSERT INTO links (workspace_id, connection_id, lead_id, external_id) VALUES ($1, $2, 'lead_1', '7')",
        key.workspace_id,
        key.id,
    )
    await claim(crm.database, key, "lease_a")
    row = await crm.row("lead_1")
    assert (row["in_flight_version"], row["in_flight_record"], "lead_1@" in row["in_flight_lead"]) == (1, "7", True)
    await crm.database.execute("UPDATE links SET external_id = '8' WHERE workspace_id = $1", crm.workspace)
    await take_leads(crm.database, [copy(crm, version=2, email="new@example.com")])
    for lease in (
        "lease_b",
        "lease_c",
        "lease_d",
    ):  # the worker of lease_b dies as well, that of lease_c learns nothing
        await crm.database.execute("UPDATE sync_states SET next_try_at = now() WHERE workspace_id = $1", crm.workspace)
        [taken_over] = await claim(crm.database, key, lease)
        assert taken_over.resolving
        assert (taken_over.in_flight_version, taken_over.copy_version) == (1, 2)
        assert (taken_over.addressed_record, taken_over.record_id) == ("7", "8")
        assert taken_over.unsettled_lead["email"] == "lead_1@example.com"
        if lease == "lease_c":
            connection = await connection_of(crm, key)
            await settling.settle_all(database_of(crm), connection, lease, [settled(taken_over, State.UNKNOWN)])


async def test_whoever_lost_a_lease_changes_nothing_any_more(crm, held):
    made, key = held
    database = database_of(crm)
    [late] = await claim(crm.database, key, "lease_a")
    await crm.database.execute("UPDATE sync_states SET next_try_at = now() WHERE workspace_id = $1", crm.workspace)
    [current] = await claim(crm.database, key, "lease_b")
    before = dict(await crm.row("lead_1"))
    assert not await repository.renew_lease(crm.database, key, "lease_a", SECONDS)
    connection = await connection_of(crm, key)
    await repository.hand_back(crm.database, key, "lease_a", plan(connection, HUBSPOT, [late]).write)
    assert await repository.hold_claims(crm.database, key, "lease_a", [settled(late)]) == []
    assert await repository.settle(crm.database, key, "lease_a", 1, [settled(late)]) == {}
    await settling.settle_all(database, connection, "lease_a", [settled(late)])
    assert dict(await crm.row("lead_1")) == before
    assert await crm.events("lead_1", made) == []
    assert await repository.renew_lease(crm.database, key, "lease_b", 2 * SECONDS)
    await settling.settle_all(database, connection, "lease_b", [settled(current)])
    assert (await crm.row("lead_1"))["state"] == "idle"


async def test_what_a_message_may_have_said_is_not_forgotten_when_its_lead_is_handed_back(crm):
    """A worker died while it told version 2, whoever took over could not send: version 3, equal to 1, has to be told."""
    made = await crm.connect_webhook("receiver", new_signing_secret())
    key, receiver = ConnectionKey(crm.workspace, made["id"]), WebhookConnector()
    connection = await connection_of(crm, key)
    for version, company in ((1, "first"), (2, "second"), (3, "first")):
        await take_leads(crm.database, [copy(crm, version=version, company=company)])
        lease = f"lease_{version}"
        claims = await claim(crm.database, key, lease, looks_up=False)
        [work] = plan(connection, receiver, claims).write
        if version == 1:
            told = replace(settled(work.claim), sent=work.holds)
            await settling.settle_all(database_of(crm), connection, lease, [told])
        elif version == 2:
            late = "UPDATE sync_states SET next_try_at = now() WHERE workspace_id = $1"
            await crm.database.execute(late, crm.workspace)
        else:
            await repository.hand_back(crm.database, key, lease, [work])
    [work] = plan(connection, receiver, await claim(crm.database, key, "lease_4", looks_up=False)).write
    assert work.holds["company"] == "first"


async def test_no_call_begins_that_the_lease_may_not_outlive(crm, held):
    """Whoever takes the lead over after the lease must not meet a call that is still out."""
    _, key = held
    claims = await claim(crm.database, key, "lease_a")
    batch = await batch_of(crm, key, Lease("lease_a", crm.service.settings.call_timeout_seconds))
    with pytest.raises(LeaseLost, match="too little"):
        await batch.run(claims)
    assert crm.calls("") == []


@pytest.mark.parametrize("status", [503, 429, 403])
async def test_a_connection_in_trouble_rests_before_its_leads_are_let_go_of(crm, held, monkeypatch, status):
    """Else another worker claims them at once and runs into the same."""
    made, key = held
    crm.fault("contacts.*", {"do": "status", "status": status}, times=1)
    usable = []

    async def settle(*arguments):
        shown = await crm.shown(made)
        usable.append(shown["status"] == "active" and shown["paused_until"] is None)
        await settling.settle_all(*arguments)

    monkeypatch.setattr("crm_sync.sync.batch.settle_all", settle)
    await crm.database.execute(
        "UPDATE connections SET settings = settings || $2::jsonb WHERE id = $1",
        key.id,
        json.dumps({"base_url": crm.simulators.url}),
    )
    batch = await batch_of(crm, key, Lease("lease_a", SECONDS))
    await batch.run(await claim(crm.database, key, "lease_a"))
    assert usable == [False]
    assert (await crm.row("lead_1"))["state"] == "due"


async def test_a_settlement_is_announced_once_however_often_it_is_stored(crm, held):
    made, key = held
    [claimed] = await claim(crm.database, key, "lease_a")
    connection = await connection_of(crm, key)
    for _ in range(2):
        await settling.settle_all(database_of(crm), connection, "lease_a", [settled(claimed)])
    [event] = await crm.events("lead_1", made)
    assert event["subjectversion"] == (await crm.row("lead_1"))["event_count"] == 1


async def test_a_settlement_that_cannot_be_announced_is_not_stored(crm, held, monkeypatch):
    _, key = held
    [claimed] = await claim(crm.database, key, "lease_a")
    connection = await connection_of(crm, key)

    def fail(*_arguments):
        raise ValueError("no event")

    monkeypatch.setattr(settling, "settlement_event", fail)
    with pytest.raises(ValueError, match="no event"):
        await settling.settle_all(database_of(crm), connection, "lease_a", [replace(settled(claimed), link="7")])
    row = await crm.row("lead_1")
    assert (row["state"], row["synced_version"]) == ("in_flight", 0)
    assert await crm.database.fetchval("SELECT count(*) FROM links WHERE workspace_id = $1", crm.workspace) == 0


@pytest.mark.parametrize("state", [State.IDLE, State.DEAD])
async def test_a_version_wanted_while_the_call_was_out_is_due_when_it_comes_back(crm, held, state):
    made, key = held
    [claimed] = await claim(crm.database, key, "lease_a")
    wished = {"connection_id": made["id"], "version": 2}
    answer = await crm.as_service().post("/api/crm/leads/lead_1/sync", json=wished)
    assert answer.status_code == 202, answer.text
    row = await crm.row("lead_1")
    assert (row["desired_version"], row["state"], row["lease_token"]) == (2, "in_flight", "lease_a")
    connection = await connection_of(crm, key)
    settlement = settled(claimed, state, dead_kind="permanent" if state is State.DEAD else None)
    await settling.settle_all(database_of(crm), connection, "lease_a", [settlement])
    row = await crm.row("lead_1")
    assert (row["state"], row["dead_letter_id"]) == ("due", None)
    assert row["synced_version"] == (1 if state is State.IDLE else 0)
