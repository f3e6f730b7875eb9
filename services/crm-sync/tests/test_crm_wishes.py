"""The desired state is complete: new connections get every lead, whatever happens at the same time or in between."""

import asyncio
import json

import asyncpg
import pytest

from crm_sync.sync.repository import LeadCopy, queries, take_leads
from crm_sync.sync.upkeep import Upkeep
from tests.support.fixtures import eventually

CONNECTIONS = "/api/crm/connections"


@pytest.fixture
def crm(still_crm):
    return still_crm


@pytest.fixture
async def consumer(crm):
    """A session such as a consumer's, in the service's database."""
    connection = await asyncpg.connect(crm.service.settings.database_url.get_secret_value())
    yield connection
    await connection.close()


def upkeep_of(crm):
    return Upkeep(crm.service.http.state["resources"].database)


def copy(crm, lead_id, *, deleted=False):
    lead = json.dumps({"id": lead_id, "email": f"{lead_id}@example.com"})
    return LeadCopy(crm.workspace, lead_id, 1, deleted, lead, chain="", request_id=None, traceparent=None)


async def wanted(crm, connection):
    rows = await crm.database.fetch(
        "SELECT lead_id FROM sync_states WHERE workspace_id = $1 AND connection_id = $2 ORDER BY lead_id",
        crm.workspace,
        connection["id"],
    )
    return [row["lead_id"] for row in rows]


async def until_done_or_waiting(crm, writing):
    """Wait until `writing` is over, or waits for a lock of the workspace."""

    async def check():
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND classid = 727002"
        return writing.done() or await crm.database.fetchval(waiting) > 0

    await eventually(check)


@pytest.mark.parametrize("how", ["created", "changed"])
async def test_no_lead_falls_between_a_consumer_under_way_and_a_backfill(crm, consumer, how):
    """The consumer does not see the connection yet, and a backfill would not see the consumer's lead yet."""
    mode = "selected" if how == "changed" else "all"
    body = {"name": "HubSpot", "vendor": "hubspot", "mode": mode, "credentials": {"access_token": "pat"}}
    if how == "changed":
        made = (await crm.client.post(CONNECTIONS, json=body)).json()
    transaction = consumer.transaction()
    await transaction.start()
    await take_leads(consumer, [copy(crm, "lead_1")])
    if how == "changed":
        writing = asyncio.create_task(crm.client.patch(f"{CONNECTIONS}/{made['id']}", json={"mode": "all"}))
    else:
        writing = asyncio.create_task(crm.client.post(CONNECTIONS, json=body))
    await until_done_or_waiting(crm, writing)
    await upkeep_of(crm).run_once()
    await transaction.commit()
    answer = await writing
    assert answer.status_code < 300, answer.text
    await upkeep_of(crm).run_once()
    assert await wanted(crm, answer.json()) == ["lead_1"]


async def test_a_backfill_goes_on_where_another_process_ended(crm, monkeypatch):
    monkeypatch.setattr("crm_sync.sync.upkeep.PAGE", 2)
    names = [f"lead_{number}" for number in range(5)]
    await take_leads(crm.database, [copy(crm, name) for name in names])
    await take_leads(crm.database, [copy(crm, "lead_deleted", deleted=True)])
    connection = await crm.connect()
    assert await upkeep_of(crm).backfill_page()
    assert await wanted(crm, connection) == names[:2]
    assert (await crm.shown(connection))["backfilling"]
    await upkeep_of(crm).run_once()
    assert await wanted(crm, connection) == names
    assert not (await crm.shown(connection))["backfilling"]


async def test_a_page_that_was_not_finished_is_begun_again(crm, monkeypatch):
    monkeypatch.setattr("crm_sync.sync.upkeep.PAGE", 2)
    names = [f"lead_{number}" for number in range(3)]
    await take_leads(crm.database, [copy(crm, name) for name in names])
    connection = await crm.connect()
    with monkeypatch.context() as broken:
        failing = "SELECT 1 / 0, $1::text, $2::text, $3::text"
        broken.setattr("crm_sync.sync.upkeep.queries", {**queries, "advance_backfill": failing})
        with pytest.raises(asyncpg.DivisionByZeroError):
            await upkeep_of(crm).backfill_page()
    assert await wanted(crm, connection) == []
    await upkeep_of(crm).run_once()
    assert await wanted(crm, connection) == names


async def test_a_backfill_takes_nothing_back_of_what_is_known(crm):
    await take_leads(crm.database, [copy(crm, "lead_1")])
    connection = await crm.connect(mode="selected")
    wish = {"version": 7, "connection_id": connection["id"]}
    (await crm.as_service().post("/api/crm/leads/lead_1/sync", json=wish)).raise_for_status()
    (await crm.client.patch(f"{CONNECTIONS}/{connection['id']}", json={"mode": "all"})).raise_for_status()
    await upkeep_of(crm).run_once()
    assert (await crm.row("lead_1"))["desired_version"] == 7


async def test_two_processes_do_not_take_the_same_page(crm, consumer):
    """Whoever comes while a page is being done leaves that connection to the other."""
    await take_leads(crm.database, [copy(crm, "lead_1")])
    connection = await crm.connect()
    async with consumer.transaction():
        await consumer.fetchrow("SELECT id FROM connections WHERE id = $1 FOR NO KEY UPDATE", connection["id"])
        assert not await asyncio.wait_for(upkeep_of(crm).backfill_page(), 2)
    assert await upkeep_of(crm).backfill_page()


async def test_a_connection_deleted_during_its_backfill_keeps_no_lead_and_sends_none(crm, monkeypatch):
    monkeypatch.setattr("crm_sync.sync.upkeep.PAGE", 2)
    await take_leads(crm.database, [copy(crm, f"lead_{number}") for number in range(5)])
    connection = await crm.connect()
    assert await upkeep_of(crm).backfill_page()
    assert await crm.count("due") == 2
    assert (await crm.client.delete(f"{CONNECTIONS}/{connection['id']}")).status_code == 204
    assert not await upkeep_of(crm).backfill_page()
    await upkeep_of(crm).run_once()
    assert await wanted(crm, connection) == []
    assert crm.calls("") == []
