"""Events refresh the copies, start workflows and wake runs: each once, in any order, judged on its own data."""

import asyncio
from typing import Any

import asyncpg
import orjson
import pytest

from chassis.context import Context
from chassis.database import Transaction
from services.workflows.tests.conftest import Application, Desk, StartWorker, created
from services.workflows.tests.neighbours import crm_event, lead_event, make_lead, user_event
from tests.support.fixtures import eventually
from workflows.consuming import EventsConsumer

STOP = {"id": "end", "type": "stop"}
ON_CREATED = {"type": "event", "event": "lead.created"}
ON_UPDATED = {"type": "event", "event": "lead.updated"}


async def taken(desk: Desk, count: int) -> None:
    """Wait until so many events have been taken."""

    async def all_taken() -> bool:
        return int(await desk.database.fetchval("SELECT count(*) FROM inbox")) >= count

    await eventually(all_taken, seconds=20)


async def test_a_creation_starts_its_workflow_although_an_update_came_first(desk: Desk, worker: Application) -> None:
    workflow_id = await desk.define(STOP, trigger={**ON_CREATED, "condition": "lead.score < 50"})
    first = make_lead(email="a@example.com", score=10)
    second = {**first, "score": 90, "version": 2}
    await desk.publish(lead_event("lead.updated", second, ["score"], {"score": 10}), created(first))
    await taken(desk, 2)
    [run] = await desk.runs(workflow_id)
    detail = await desk.run(run["id"])
    assert detail["trigger"]["lead"]["score"] == 10
    view = await desk.database.fetchrow("SELECT version, lead FROM lead_view")
    assert view is not None
    assert (view["version"], orjson.loads(view["lead"])["score"]) == (2, 90)


async def test_each_event_has_its_effect_once_however_often_and_in_whatever_order_it_comes(
    desk: Desk, start_worker: StartWorker
) -> None:
    on_created = await desk.define(STOP, trigger=ON_CREATED)
    on_updated = await desk.define(STOP, trigger={**ON_UPDATED, "condition": '"score" in changed'})
    for _ in range(4):
        await start_worker()
    events = []
    for number in range(10):
        first = make_lead(f"lead_{number}", email=f"{number}@example.com")
        second = {**first, "score": 60, "version": 2}
        events += [lead_event("lead.updated", second, ["score"], {"score": 0}), created(first)]
    await asyncio.gather(*(desk.publish(*events[offset:], *events[:offset]) for offset in (0, 7, 13)))
    await taken(desk, 20)

    async def all_ended() -> bool:
        return int(await desk.database.fetchval("SELECT count(*) FROM runs WHERE state = 'completed'")) == 20

    await eventually(all_ended, seconds=20)
    for workflow_id in (on_created, on_updated):
        leads = [run["lead_id"] for run in await desk.runs(workflow_id)]
        assert sorted(leads) == sorted({f"lead_{number}" for number in range(10)})
    versions = await desk.database.fetch("SELECT version FROM lead_view")
    assert {record["version"] for record in versions} == {2}


async def test_a_run_begins_with_the_inbox_row_of_its_event_or_not_at_all(
    desk: Desk, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What follows in the transaction fails after the run was inserted: by the database's trouble, then by the event's own fault."""
    troubles: list[Exception] = [asyncpg.ConnectionDoesNotExistError("cut"), LookupError("a fault")]
    wake_runs = EventsConsumer._wake_runs

    async def fail_at_first(consumer: EventsConsumer, tx: Transaction, happenings: Any) -> None:
        if troubles:
            raise troubles.pop(0)
        await wake_runs(consumer, tx, happenings)

    monkeypatch.setattr(EventsConsumer, "_wake_runs", fail_at_first)
    workflow_id = await desk.define(STOP, trigger=ON_CREATED)
    await start_worker()
    await desk.publish(created(make_lead(email="a@example.com")))
    await taken(desk, 1)
    assert troubles == []
    [run] = await desk.runs(workflow_id)
    await desk.until(run["id"], "completed")


async def test_only_the_events_that_match_start_a_run(desk: Desk, worker: Application) -> None:
    matching = await desk.define(
        STOP, trigger={**ON_UPDATED, "condition": '"stage" in changed && previous.stage == "new" && lead.score > 50'}
    )
    archived = await desk.define(STOP, trigger=ON_UPDATED)
    assert (await desk.api.delete(f"/api/workflows/{archived}")).status_code == 204
    manual = await desk.define(STOP)
    lead = make_lead(score=70, stage="contacted", version=2)
    await desk.publish(
        lead_event("lead.updated", lead, ["stage"], {"stage": "new"}),
        lead_event("lead.updated", {**lead, "version": 3}, ["score"], {"score": 60}),
        lead_event("lead.updated", {**lead, "version": 4, "score": 10}, ["stage"], {"stage": "new"}),
        lead_event("lead.deleted", {**lead, "version": 5}),
        lead_event("lead.updated", {**lead, "version": 2}, ["stage"], {"stage": "new"}, workspace="ws_2"),
    )
    await taken(desk, 5)
    assert len(await desk.runs(matching)) == 1
    assert await desk.runs(archived) == await desk.runs(manual) == []


async def test_conditions_are_judged_over_a_bounded_lead(desk: Desk, worker: Application) -> None:
    """What a condition costs depends on what it reads: lists are cut at 1,000 items, for triggers and for steps."""
    condition = "size(lead.custom.big) == 1000"
    check = {"id": "c", "type": "condition", "if": condition, "else": [{**STOP, "outcome": "failed"}]}
    workflow_id = await desk.define(check, trigger={**ON_CREATED, "condition": condition})
    await desk.publish(created(make_lead(email="a@example.com", custom={"big": list(range(1500))})))
    await taken(desk, 1)
    [run] = await desk.runs(workflow_id)
    await desk.until(run["id"], "completed")


async def test_an_old_event_still_starts_its_workflow(desk: Desk, worker: Application) -> None:
    await desk.know_lead(version=9)
    workflow_id = await desk.define(STOP, trigger=ON_CREATED)
    await desk.publish(created(make_lead(email="a@example.com")))
    await taken(desk, 1)
    assert len(await desk.runs(workflow_id)) == 1
    assert await desk.database.fetchval("SELECT version FROM lead_view") == 9


async def test_a_run_keeps_the_version_it_started_on(desk: Desk, worker: Application) -> None:
    """Both versions have the same steps by name: what they wait for and send tells which one a run goes by."""

    def steps(version: int, stage: str) -> list[dict[str, Any]]:
        wait = {"id": "w", "type": "wait_for_event", "event": "lead.updated", "timeout": "1h"}
        call = {"id": "call", "type": "http_request", "url": desk.url("a"), "body": {"version": version}}
        return [{**wait, "condition": f'lead.stage == "{stage}"'}, call]

    workflow_id = await desk.define(*steps(1, "contacted"), trigger=ON_CREATED)
    lead = make_lead(email="a@example.com")
    await desk.publish(created(lead))
    await taken(desk, 1)
    [old] = await desk.runs(workflow_id)
    await desk.until(old["id"], "waiting")
    body = {"name": "workflow 0", "trigger": ON_CREATED, "steps": steps(2, "lost")}
    assert (await desk.api.put(f"/api/workflows/{workflow_id}", json=body)).json()["version"] == 2
    await desk.publish(created(make_lead("lead_2", email="b@example.com")))
    await taken(desk, 2)
    assert [run["version"] for run in await desk.runs(workflow_id)] == [2, 1]
    await desk.publish(
        lead_event("lead.updated", {**lead, "version": 2, "stage": "contacted"}, ["stage"], {"stage": "new"})
    )
    await desk.until(old["id"], "completed")
    assert [call.json for call in desk.neighbours.received("/hooks/a")] == [{"version": 1}]


async def test_a_deletion_and_a_restoration_are_seen(desk: Desk, worker: Application) -> None:
    deleted = await desk.define(STOP, trigger={"type": "event", "event": "lead.deleted"})
    restored = await desk.define(STOP, trigger={"type": "event", "event": "lead.restored"})
    lead = make_lead(email="a@example.com")
    await desk.publish(created(lead), lead_event("lead.deleted", {**lead, "version": 2}))
    await taken(desk, 2)
    assert await desk.database.fetchval("SELECT deleted FROM lead_view")
    await desk.publish(lead_event("lead.restored", {**lead, "version": 3}))
    await taken(desk, 3)
    assert not await desk.database.fetchval("SELECT deleted FROM lead_view")
    assert len(await desk.runs(deleted)) == len(await desk.runs(restored)) == 1


async def test_users_are_copied_and_the_newest_version_wins(desk: Desk, worker: Application) -> None:
    await desk.publish(
        user_event("user.disabled", "user_a", 3, active=False),
        user_event("user.created", "user_a", 1),
        user_event("user.updated", "user_a", 2),
        user_event("user.created", "user_b", 1),
        user_event("user.created", "user_b", 1, workspace="ws_2"),
    )
    await taken(desk, 5)
    rows = await desk.database.fetch("SELECT workspace_id, id, active FROM users ORDER BY 1, 2")
    assert [tuple(row) for row in rows] == [
        ("ws_1", "user_a", False),
        ("ws_1", "user_b", True),
        ("ws_2", "user_b", True),
    ]


async def test_what_comes_late_never_turns_a_copy_back(desk: Desk, worker: Application) -> None:
    """Each event by itself, so that the database's own order of versions is what decides."""
    lead = make_lead(email="a@example.com", score=1)
    newest = (
        lead_event("lead.deleted", {**lead, "version": 3, "score": 3}),
        user_event("user.disabled", "user_a", 3, active=False),
        crm_event("crm.lead.synced", "lead_1", 3, version=3),
    )
    late = (
        lead_event("lead.updated", {**lead, "version": 2, "score": 2}, ["score"], {"score": 1}),
        user_event("user.updated", "user_a", 2),
        crm_event("crm.lead.failed", "lead_1", 2, version=2),
    )
    await desk.publish(*newest)
    await taken(desk, 3)
    await desk.publish(*late)
    await taken(desk, 6)
    view = await desk.database.fetchrow("SELECT version, deleted, lead ->> 'score' FROM lead_view")
    user = await desk.database.fetchrow("SELECT version, active FROM users")
    crm = await desk.database.fetchrow("SELECT version, type FROM crm_view")
    assert [tuple(row) for row in (view, user, crm) if row is not None] == [
        (3, True, "3"),
        (3, False),
        (3, "crm.lead.synced"),
    ]


async def test_what_a_crm_said_last_is_kept(desk: Desk, worker: Application) -> None:
    await desk.publish(
        crm_event("crm.lead.synced", "lead_1", 2, version=5),
        crm_event(
            "crm.lead.failed",
            "lead_1",
            1,
            kind="retrying",
            error={"message": "x", "category": None, "correlation_id": None},
        ),
        crm_event("crm.lead.synced", "lead_1", 1, version=4, connection_id="conn_2"),
    )
    await taken(desk, 3)
    rows = await desk.database.fetch("SELECT connection_id, type, data FROM crm_view ORDER BY 1")
    assert [(row["connection_id"], row["type"], orjson.loads(row["data"])["version"]) for row in rows] == [
        ("conn_1", "crm.lead.synced", 5),
        ("conn_2", "crm.lead.synced", 4),
    ]
    assert "attempts" not in orjson.loads(rows[0]["data"])


async def test_an_event_that_lacks_its_data_goes_to_the_dead_queue_and_holds_nobody_up(
    desk: Desk, worker: Application
) -> None:
    workflow_id = await desk.define(STOP, trigger=ON_CREATED)
    lead = make_lead(email="a@example.com")
    broken = created(make_lead("lead_2"))
    broken.data.pop("changed")
    await desk.publish(broken, created(lead))
    await taken(desk, 1)
    assert [run["lead_id"] for run in await desk.runs(workflow_id)] == ["lead_1"]

    async def dead() -> bool:
        depths = await worker.state["resources"].bus.depths("workflows")
        return bool(depths["workflows.events.dead"] == 1)

    await eventually(dead)


async def test_the_context_of_an_event_travels_through_the_run_into_every_call(
    desk: Desk, worker: Application, heard: list[dict[str, Any]]
) -> None:
    workflow_id = await desk.define(
        {"id": "stage", "type": "update_lead", "set": {"stage": "contacted"}}, trigger=ON_CREATED
    )
    lead = desk.neighbours.put_lead(make_lead(email="a@example.com"))
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    context = Context(request_id="req_7", origin="connection:conn_1", chain=("conn_1",), traceparent=trace)
    await desk.publish(created(lead, context=context))

    async def told() -> Any:
        return heard

    [event] = await eventually(told)
    run_id = event["subject"]
    [call] = desk.neighbours.received("/api/leads", "PATCH")
    assert call.headers["x-origin"] == event["origin"] == f"workflow:{workflow_id}/{run_id}"
    assert call.headers["x-chain"] == event["chain"] == f"conn_1,{workflow_id}"
    assert call.headers["x-request-id"] == event["requestid"] == "req_7"
    assert call.headers["traceparent"] == event["traceparent"] == trace
    assert (await desk.run(run_id))["origin"] == "connection:conn_1"
