"""Delivered again, out of order, or to a consumer that dies: one effect."""

import asyncio
import signal

import aio_pika
import pytest

from chassis.events import new_event
from chassis.ids import new_id
from tests.guarantees.consumers import (
    all_taken,
    dead_letter_counts,
    has_taken,
    publish,
    publisher,
    retry_counts,
    workspace_of,
)
from tests.guarantees.history import History
from tests.support.fixtures import eventually
from tests.support.system import Client, RunningSystem


@pytest.mark.parametrize(
    "worker",
    [
        "leads-worker-1",
        pytest.param("workflows-worker-1", marks=pytest.mark.long),
        pytest.param("crm-sync-worker-1", marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("failpoint", ["consumer.before_commit", "consumer.after_commit"])
async def test_a_consumer_killed_around_its_commit_has_each_effect_once(
    system: RunningSystem, client: Client, worker: str, failpoint: str
) -> None:
    system.respawn(worker, FAILPOINT=failpoint)
    history = History()
    for _ in range(5):
        await history.create(client)
    assert await system.died(worker) == -signal.SIGKILL
    system.spawn(worker)
    system.wait_ready(worker)
    await eventually(lambda: all_taken(system, history.ok.values()), seconds=30)
    for lead_id in history.ok.values():
        items = (await client.get(f"/api/leads/{lead_id}/timeline")).json()["items"]
        assert len([item for item in items if item["kind"] == "change"]) == 1


def lead_document(lead_id: str, version: int) -> dict[str, object]:
    return {
        "id": lead_id,
        "email": f"{lead_id}@example.com",
        "phone": None,
        "first_name": "Order",
        "last_name": None,
        "company": None,
        "title": None,
        "source": "order-test",
        "stage": "new",
        "score": version,
        "owner_id": None,
        "tags": [],
        "custom": {},
        "consent": {},
        "external_ids": {},
        "version": version,
        "created_at": "2026-11-25T08:30:00.123Z",
        "updated_at": "2026-11-25T08:30:00.123Z",
    }


async def test_an_update_before_its_creation_each_three_times(system: RunningSystem, client: Client) -> None:
    """The workflow for new leads has run once, on the first version's own data."""
    defined = await client.post(
        "/api/workflows",
        {
            "name": new_id("order"),
            "trigger": {"type": "event", "event": "lead.created", "condition": 'lead.source == "order-test"'},
            "steps": [{"id": "end", "type": "stop"}],
        },
    )
    assert defined.status_code == 201, defined.text
    workspace = await workspace_of(system)
    lead_id = (await client.post("/api/leads", {"email": f"{new_id('order')}@example.com"})).json()["id"]
    first, second, last = (
        new_event(
            kind,
            source="/services/leads",
            workspace_id=workspace,
            subject=lead_id,
            subject_version=version,
            data={"lead": lead_document(lead_id, version), "changed": ["score"], "previous": {}, "actor": "system"},
        )
        for version, kind in ((2, "lead.created"), (3, "lead.updated"), (4, "lead.updated"))
    )
    async with publisher(system) as exchange:
        for event in (second, second, first, second, first, first):
            await publish(exchange, event)
            await asyncio.sleep(0.05)  # not all in one batch
        # Behind them in every queue: once this one is taken, so are the six.
        await publish(exchange, last)
    await eventually(lambda: has_taken(system, last))
    runs = (await client.get(f"/api/workflows/{defined.json()['id']}/runs")).json()["items"]
    assert len(runs) == 1
    run = (await client.get(f"/api/runs/{runs[0]['id']}")).json()
    assert run["trigger"]["lead"]["score"] == 2


@pytest.mark.parametrize("seconds", [3, pytest.param(120, marks=[pytest.mark.long, pytest.mark.timeout(240)])])
async def test_a_consumers_database_away_sends_nothing_healthy_to_the_dead_queue(
    system: RunningSystem, client: Client, seconds: int
) -> None:
    before = await dead_letter_counts(system)
    await system.sql("auth", "ALTER DATABASE workflows ALLOW_CONNECTIONS false")
    history = History()
    try:
        await system.sql("auth", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'workflows'")
        for _ in range(20):
            await history.create(client)
        await asyncio.sleep(seconds)
        assert not any((await retry_counts(system, "workflows.events")).values())  # held, not counted as failed
    finally:
        await system.sql("auth", "ALTER DATABASE workflows ALLOW_CONNECTIONS true")
    await eventually(lambda: all_taken(system, history.ok.values()), seconds=30)
    assert await dead_letter_counts(system) == before


async def test_malformed_unknown_and_oversized_messages_block_nothing(system: RunningSystem, client: Client) -> None:
    before = await dead_letter_counts(system)
    async with publisher(system) as exchange:
        for body in (b"\xff\x00", b"[]", b'{"specversion":"1.0"}', b'"' + b"x" * 300_000 + b'"'):
            await exchange.publish(aio_pika.Message(body, message_id=new_id("bad")), "lead.created")
    history = History()
    await history.create(client)
    await eventually(lambda: all_taken(system, history.ok.values()))

    async def buried() -> bool:
        after = await dead_letter_counts(system)
        return all(
            after[f"{queue}.dead"] - before[f"{queue}.dead"] == 4
            for queue in ("leads.timeline", "workflows.events", "crm-sync.leads")
        )

    await eventually(buried)
