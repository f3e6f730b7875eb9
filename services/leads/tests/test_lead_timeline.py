"""Timelines and projections: what the worker makes of events."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx2
import pytest

from chassis import events
from chassis.bus import Bus
from chassis.clock import utcnow
from chassis.consumer import Delivery
from chassis.events import Event, MalformedEvent, decode, decode_data, encode
from chassis.ids import new_id
from chassis.parsing import make_cursor
from chassis.resources import Resources
from contracts import events as contracts
from contracts.validation import problems
from leads import service
from leads.consumers import UserData
from leads.projections import ExternalId, show_external_ids
from leads.settings import Settings
from leads.timeline import CrmData, LeadData, RunData, entries_of
from tests.support.fixtures import eventually

Announce = Callable[..., Any]
PUBLISHED_MS = 1_790_000_000_123


@pytest.fixture
def bus(worker: Any) -> Bus:
    resources: Resources = worker.state["resources"]
    return resources.bus


@pytest.fixture
def announce(bus: Bus) -> Announce:
    """`await announce("crm.lead.synced", lead_id, data={...})`: a contract's example, about this lead, as its service would."""

    async def send(event_type: str, lead_id: str, *, version: int = 1, workspace: str = "ws_1", **data: Any) -> Event:
        example = contracts()[event_type].examples[0]
        changed = {**example["data"], **data}
        if "lead_id" in changed:
            changed["lead_id"] = lead_id
        subject = f"{changed['connection_id']}/{lead_id}" if event_type.startswith("crm.") else example["subject"]
        document = {
            **example,
            "id": new_id("evt"),
            "workspaceid": workspace,
            "subject": subject,
            "subjectversion": version,
            "data": changed,
        }
        assert problems(document) == []
        event = Event(**document)
        await bus.publish_event(encode(event), event_id=event.id, event_type=event.type, published_ms=PUBLISHED_MS)
        return event

    return send


async def timeline(api: httpx2.AsyncClient, lead_id: str, count: int) -> list[dict[str, Any]]:
    """The whole timeline, once it has `count` entries."""

    async def enough() -> list[dict[str, Any]] | None:
        items: list[dict[str, Any]] = (await api.get(f"/api/leads/{lead_id}/timeline?limit=200")).json()["items"]
        return items if len(items) >= count else None

    found: list[dict[str, Any]] = await eventually(enough, seconds=30)
    return found


def test_every_example_of_the_contracts_can_be_read() -> None:
    models: dict[str, Any] = {"lead": LeadData, "workflow": RunData, "crm": CrmData, "user": UserData}
    for contract in contracts().values():
        for example in contract.examples:
            decode_data(Event(**example), models[contract.type.split(".")[0]])


async def test_a_leads_timeline_is_complete(
    api: httpx2.AsyncClient, worker: Any, announce: Announce, identity: Any, add_user: Any
) -> None:
    """Everything that was done to a lead, through every kind of event, is told once, in order, with who, what and when."""
    await add_user("user_9")
    lead_id = (await api.post("/api/leads", json={"email": "ada@example.com", "score": 70})).json()["id"]
    path = f"/api/leads/{lead_id}"
    workflow = {**identity.service_headers("workflows"), "X-Origin": "workflow:wf_1/run_1", "X-Chain": "wf_1"}
    await api.patch(path, json={"owner_id": "user_9", "stage": "contacted"}, headers=workflow)
    await api.patch(path, json={"score": 70})  # changes nothing, so there is nothing to tell
    await api.delete(path)
    await api.post(f"{path}/restore")
    day = "2027-01-01T00:00:"
    step = {"attempts": 2, "error": None, "iteration": 0, "generation": 0, "started_at": f"{day}00.100Z"}
    asking = {"step_id": "ask", "type": "http_request", "outcome": "failed", "error": "timeout"}
    checking = {"step_id": "check", "type": "condition", "outcome": "succeeded"}
    # Told in another order than they happened in.
    steps = [{**step, **asking, "finished_at": f"{day}00.300Z"}, {**step, **checking, "finished_at": f"{day}00.200Z"}]
    await announce("workflow.run.started", lead_id, run_id="run_1", state="running", steps=[])
    await announce("workflow.run.failed", lead_id, run_id="run_1", state="failed", error="no route", steps=steps)
    refused = {"outcome": "rate_limited", "status": 429, "request_id": "hs-1", "error": "slow down"}
    taken = {"outcome": "ok", "status": 200, "request_id": "hs-2", "error": None}
    first = {**refused, "started_at": f"{day}01Z", "finished_at": f"{day}02Z"}
    second = {**taken, "started_at": f"{day}03Z", "finished_at": f"{day}04Z"}
    await announce("crm.lead.failed", lead_id, kind="retrying", attempts=[first])
    await announce("crm.lead.synced", lead_id, version=2, external_id="701", attempts=[second])
    items = await timeline(api, lead_id, 20)
    told = [
        (item["kind"], item.get("action") or item.get("type") or item.get("state") or item.get("outcome"))
        for item in items
    ]
    expected = {
        ("change", "created"): 1,
        ("change", "updated"): 1,
        ("change", "deleted"): 1,
        ("change", "restored"): 1,
        ("event", "lead.created"): 1,
        ("event", "lead.updated"): 1,
        ("event", "lead.deleted"): 1,
        ("event", "lead.restored"): 1,
        ("event", "workflow.run.started"): 1,
        ("event", "workflow.run.failed"): 1,
        ("event", "crm.lead.failed"): 1,
        ("event", "crm.lead.synced"): 1,
        ("run", "running"): 1,
        ("run", "failed"): 1,
        ("step", "http_request"): 1,
        ("step", "condition"): 1,
        ("crm", "retrying"): 1,
        ("crm", "synced"): 1,
        ("crm_attempt", "rate_limited"): 1,
        ("crm_attempt", "ok"): 1,
    }
    assert {one: told.count(one) for one in told} == expected
    assert [item["at"] for item in items] == sorted(item["at"] for item in items)

    def only(kind: str, word: str) -> dict[str, Any]:
        return items[told.index((kind, word))]

    assert only("change", "created")["actor"] == "user:user_1"
    assert {change["field"]: change["new"] for change in only("change", "created")["changes"]} == {
        "email": "ada@example.com",
        "score": 70,
    }
    updated = only("change", "updated")
    assert (updated["actor"], updated["version"]) == ("workflow:wf_1/run_1", 2)
    assert updated["changes"] == [
        {"field": "stage", "old": "new", "new": "contacted"},
        {"field": "owner_id", "old": None, "new": "user_9"},
    ]
    for item in items:
        if item["kind"] == "event":
            assert item["accepted_at"] == item["at"]
            published_at = datetime.fromisoformat(item["published_at"])
            if item["source"] != "/services/leads":
                assert published_at == datetime.fromtimestamp(PUBLISHED_MS / 1000, UTC)
            else:
                assert datetime.fromisoformat(item["at"]) <= published_at <= utcnow()
    assert only("event", "lead.updated")["chain"] == ["wf_1"]
    assert only("run", "failed")["error"] == "no route"
    asked = only("step", "http_request")
    assert (asked["run_id"], asked["step_id"], asked["outcome"], asked["attempts"], asked["error"]) == (
        "run_1",
        "ask",
        "failed",
        2,
        "timeout",
    )
    assert (asked["started_at"], asked["finished_at"]) == ("2027-01-01T00:00:00.100Z", "2027-01-01T00:00:00.300Z")
    assert told.index(("step", "condition")) < told.index(("step", "http_request"))
    limited = only("crm_attempt", "rate_limited")
    assert (limited["vendor"], limited["status"], limited["request_id"], limited["error"]) == (
        "hubspot",
        429,
        "hs-1",
        "slow down",
    )
    assert only("crm", "synced")["external_id"] == "701"


async def test_a_timeline_is_paged_oldest_first(api: httpx2.AsyncClient, worker: Any) -> None:
    lead_id = (await api.post("/api/leads", json={"email": "ada@example.com"})).json()["id"]
    for score in range(1, 6):
        await api.patch(f"/api/leads/{lead_id}", json={"score": score})
    whole = await timeline(api, lead_id, 12)
    paged: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = (await api.get(f"/api/leads/{lead_id}/timeline?limit=5{cursor}")).json()
        paged += page["items"]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert paged == whole
    assert [item["kind"] for item in whole] == ["change", "event"] * 6
    assert [item["version"] for item in whole if item["kind"] == "change"] == list(range(1, 7))
    assert (await api.get(f"/api/leads/{lead_id}/timeline?limit=201")).status_code == 422


async def test_a_timelines_cursor_that_is_another_leads_or_made_up_is_400(
    api: httpx2.AsyncClient, subtests: pytest.Subtests
) -> None:
    lead_id = (await api.post("/api/leads", json={"email": "ada@example.com"})).json()["id"]
    last = ["2026-11-25T08:30:00Z", "evt_1", 0]
    good = make_cursor(last, lead_id)
    assert (await api.get(f"/api/leads/{lead_id}/timeline?cursor={good}")).status_code == 200
    cursors = ["x", make_cursor(last, "lead_2"), make_cursor(last[:2], lead_id)]
    wrong: list[list[Any]] = [
        ["2026-11-25T08:30:00", "yesterday", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", 5, None],
        [5, None, "\0"],
        [-1, 2**15, 0.5, "0", True, None],
    ]
    for position, values in enumerate(wrong):
        cursors += [make_cursor([*last[:position], value, *last[position + 1 :]], lead_id) for value in values]
    for cursor in cursors:
        with subtests.test(cursor):
            answer = await api.get(f"/api/leads/{lead_id}/timeline?cursor={cursor}")
            assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")


async def test_changes_are_told_in_their_order_although_a_replicas_clock_is_slow(
    api: httpx2.AsyncClient, worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lead = (await api.post("/api/leads", json={"email": "ada@example.com"})).json()
    for module in (service, events):  # whichever of them tells the time
        monkeypatch.setattr(module, "utcnow", lambda: utcnow() - timedelta(seconds=3))
    for score in range(1, 4):
        assert (await api.patch(f"/api/leads/{lead['id']}", json={"score": score})).status_code == 200
    monkeypatch.undo()
    items = await timeline(api, lead["id"], 8)
    assert [item["kind"] for item in items] == ["change", "event"] * 4
    assert [item["version"] for item in items if item["kind"] == "change"] == [1, 2, 3, 4]
    assert items[-1]["at"] == (await api.get(f"/api/leads/{lead['id']}")).json()["updated_at"]


async def test_a_lead_without_entries_yet_has_an_empty_timeline(api: httpx2.AsyncClient) -> None:
    lead_id = (await api.post("/api/leads", json={"email": "ada@example.com"})).json()["id"]
    answer = await api.get(f"/api/leads/{lead_id}/timeline")
    assert (answer.status_code, answer.json()) == (200, {"items": [], "next_cursor": None})


async def test_an_event_delivered_three_times_is_told_once(
    api: httpx2.AsyncClient, worker: Any, bus: Bus, database: Any
) -> None:
    lead_id = (await api.post("/api/leads", json={"email": "ada@example.com"})).json()["id"]
    await timeline(api, lead_id, 2)
    body = await database.fetchval("SELECT body FROM outbox WHERE subject = $1", lead_id)
    event = decode(body)
    for forget in (False, True):
        if forget:  # as when the inbox was pruned and everything is announced again
            await database.execute("DELETE FROM inbox")
        await bus.publish_event(body, event_id=event.id, event_type=event.type, published_ms=1)

    async def taken() -> bool:
        return bool(await database.fetchval("SELECT count(*) FROM inbox WHERE event_id = $1", event.id))

    await eventually(taken)
    await api.patch(f"/api/leads/{lead_id}", json={"score": 1})
    items = await timeline(api, lead_id, 4)
    assert [item["kind"] for item in items] == ["change", "event"] * 2


async def test_external_ids_are_shown_without_a_new_version_or_an_event(
    api: httpx2.AsyncClient, start_replica: Any, announce: Announce, database: Any
) -> None:
    created = await api.post("/api/leads", json={"email": "ada@example.com"})
    before, path = created.json(), created.headers["location"]
    other = (await start_replica()).client
    await other.get(path)
    await announce("crm.lead.synced", before["id"], connection_id="conn_1", external_id="701")

    async def shown() -> httpx2.Response | None:
        answer = await other.get(path)
        return answer if answer.json()["external_ids"] else None

    answer = await eventually(shown)
    assert answer.json() == {**before, "external_ids": {"conn_1": "701"}}
    assert answer.headers["etag"] == '"1.2"'
    assert (await api.get(path, headers={"If-None-Match": '"1.1"'})).status_code == 200
    assert (await api.get("/api/leads")).json()["items"][0]["external_ids"] == {"conn_1": "701"}
    assert await database.fetchval("SELECT count(*) FROM outbox") == 1
    # An edit that was begun before the id came is not refused for it, and keeps it.
    edited = await api.patch(path, json={**before, "score": 9}, headers={"If-Match": created.headers["etag"]})
    assert (edited.status_code, edited.json()["external_ids"]) == (200, {"conn_1": "701"})
    assert edited.headers["etag"] == '"2.3"'


async def test_an_id_is_gone_once_a_connection_says_that_the_record_is_another_leads(
    api: httpx2.AsyncClient, announce: Announce
) -> None:
    lead_id = (await api.post("/api/leads", json={"email": "ada@example.com"})).json()["id"]

    async def shown() -> Any:
        return (await api.get(f"/api/leads/{lead_id}")).json()["external_ids"]

    await announce("crm.lead.synced", lead_id, version=1, external_id="701")
    await eventually(shown)
    await announce("crm.lead.failed", lead_id, version=2, external_id="701", kind="permanent")
    await announce("crm.lead.failed", lead_id, version=3, external_id=None, kind="duplicate_external")

    async def is_gone() -> bool:
        return not await shown()

    await eventually(is_gone)


async def test_of_a_connections_ids_the_newest_counts_in_whatever_order_they_come(
    api: httpx2.AsyncClient, announce: Announce, database: Any
) -> None:
    lead_id = (await api.post("/api/leads", json={"email": "ada@example.com"})).json()["id"]
    about = {"connection_id": "conn_1"}
    await announce("crm.lead.synced", lead_id, version=3, external_id="703", **about)

    async def first() -> bool:
        return bool((await api.get(f"/api/leads/{lead_id}")).json()["external_ids"])

    await eventually(first)
    await announce("crm.lead.synced", lead_id, version=2, external_id="702", **about)
    await announce("crm.lead.synced", lead_id, version=1, external_id="9", connection_id="conn_2")

    async def ids() -> Any:
        held = (await api.get(f"/api/leads/{lead_id}")).json()["external_ids"]
        return held if "conn_2" in held else None

    assert await eventually(ids) == {"conn_1": "703", "conn_2": "9"}
    await announce("crm.lead.synced", lead_id, version=4, external_id=None, operation="release", **about)

    async def released() -> bool:
        return bool((await api.get(f"/api/leads/{lead_id}")).json()["external_ids"] == {"conn_2": "9"})

    await eventually(released)


async def test_ids_that_two_workers_write_at_once_are_both_shown(
    api: httpx2.AsyncClient, database: Any, settings: Settings
) -> None:
    lead_id = (await api.post("/api/leads", json={"email": "ada@example.com"})).json()["id"]
    other: Any = await asyncpg.connect(settings.database_url.get_secret_value())
    try:
        async with database.transaction():
            await show_external_ids(database, [ExternalId("ws_1", lead_id, "conn_1", "701", 1)])
            second = asyncio.create_task(show_external_ids(other, [ExternalId("ws_1", lead_id, "conn_2", "9", 1)]))
            await asyncio.sleep(0.2)  # it waits for the first by now
            assert not second.done()
        await second
    finally:
        await other.close()
    lead = await database.fetchrow("SELECT external_ids, version, revision FROM leads")
    assert (json.loads(lead["external_ids"]), lead["version"], lead["revision"]) == (
        {"conn_1": "701", "conn_2": "9"},
        1,
        3,
    )


async def test_an_event_about_a_lead_of_another_workspace_goes_to_the_dead_queue_and_holds_nobody_up(
    api: httpx2.AsyncClient, announce: Announce, bus: Bus
) -> None:
    lead_id = (await api.post("/api/leads", json={"email": "ada@example.com"})).json()["id"]
    await announce("crm.lead.synced", lead_id, workspace="ws_2", external_id="701")
    await announce("crm.lead.synced", "lead_unknown", external_id="701")
    await announce("workflow.run.completed", lead_id, run_id="run_1")

    async def dead() -> bool:
        return (await bus.depths("leads"))["leads.timeline.dead"] == 2

    await eventually(dead)
    items = await timeline(api, lead_id, 5)
    assert {item["kind"] for item in items} == {"change", "event", "run", "step"}
    assert (await api.get(f"/api/leads/{lead_id}")).json()["external_ids"] == {}


async def test_a_run_without_a_lead_leaves_no_trace_and_no_dead_letter(
    api: httpx2.AsyncClient, announce: Announce, bus: Bus, database: Any
) -> None:
    lead_id = (await api.post("/api/leads", json={"email": "ada@example.com"})).json()["id"]
    example = contracts()["workflow.run.completed"].examples[0]
    event = Event(
        **{**example, "id": new_id("evt"), "workspaceid": "ws_1", "data": {**example["data"], "lead_id": None}}
    )
    await bus.publish_event(encode(event), event_id=event.id, event_type=event.type, published_ms=1)
    await announce("workflow.run.completed", lead_id)
    await timeline(api, lead_id, 5)
    assert (await bus.depths("leads"))["leads.timeline.dead"] == 0
    assert await database.fetchval("SELECT count(*) FROM timeline WHERE event_id = $1", event.id) == 0


async def test_users_are_copied_and_the_newer_state_wins(
    api: httpx2.AsyncClient, announce: Announce, database: Any
) -> None:
    await announce("user.updated", "", version=3, user_id="user_7", name="Ada L.", active=True)
    await announce("user.created", "", version=1, user_id="user_7", name="Ada", active=True)
    await announce("user.created", "", version=1, user_id="user_8", name="Bob", active=True)

    async def both() -> Any:
        rows = await database.fetch("SELECT id, name, active, version FROM users ORDER BY id")
        return [tuple(row) for row in rows] if len(rows) == 2 else None

    assert await eventually(both) == [("user_7", "Ada L.", True, 3), ("user_8", "Bob", True, 1)]
    assert (await api.post("/api/leads", json={"email": "a@example.com", "owner_id": "user_7"})).status_code == 201
    await announce("user.disabled", "", version=4, user_id="user_7", name="Ada L.", active=False)

    async def gone() -> bool:
        return not await database.fetchval("SELECT active FROM users WHERE id = 'user_7'")

    await eventually(gone)
    assert (await api.post("/api/leads", json={"email": "b@example.com", "owner_id": "user_7"})).status_code == 422


@pytest.mark.parametrize(
    "broken",
    [{"time": "yesterday"}, {"data": {}}, {"data": {"lead_id": 5}}, {"time": "2026-11-25T08:30:00"}],
)
def test_an_event_that_does_not_fit_is_malformed(broken: dict[str, Any]) -> None:
    for kind in ("lead.created", "workflow.run.completed", "crm.lead.synced"):
        event = Event(**{**contracts()[kind].examples[0], **broken})
        with pytest.raises(MalformedEvent):
            entries_of(Delivery(event, None, utcnow()))
