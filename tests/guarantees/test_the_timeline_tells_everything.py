"""The lead's timeline is this system's proof: what every service says of a lead for itself is all there, and nothing else."""

from collections import Counter
from typing import Any

import orjson

from chassis.ids import new_id
from tests.guarantees.calls import SECRET
from tests.guarantees.conftest import Account, Simulators
from tests.support.fixtures import eventually
from tests.support.system import Client, RunningSystem

ANNOUNCED = "SELECT body, published_at FROM outbox WHERE published_at IS NOT NULL OR parked_at IS NULL ORDER BY seq"


def workflow(system: RunningSystem, owner_id: str, receiver: str, connection_id: str, source: str) -> dict[str, Any]:
    """Every kind of step that ends by itself; the receiver refuses twice first, so that a call is tried again."""
    return {
        "name": source,
        "trigger": {"type": "event", "event": "lead.created", "condition": f"lead.source == '{source}'"},
        "steps": [
            {
                "id": "good",
                "type": "condition",
                "if": "lead.score >= 50",
                "then": [{"id": "assign", "type": "assign_owner", "users": [owner_id]}],
                "else": [{"id": "leave", "type": "stop"}],
            },
            {"id": "stage", "type": "update_lead", "set": {"stage": "qualified"}},
            {
                "id": "tell",
                "type": "http_request",
                "url": f"{system.simulator_url}/webhooks/{receiver}",
                "body": {"lead": "{{ lead.id }}"},
                "sign_with": {"secret": SECRET},
                "on_unknown": "retry",
                "retry": {"attempts": 3, "backoff": "1s"},
            },
            {"id": "rest", "type": "wait", "duration": "1s"},
            {"id": "sync", "type": "sync_to_crm", "connection_id": connection_id},
            {"id": "end", "type": "stop"},
        ],
    }


async def announced(system: RunningSystem, lead_id: str) -> list[tuple[dict[str, Any], Any]]:
    """Every event about the lead, from the outboxes of all services, with the time it was marked as published."""
    found = []
    for service in ("leads", "workflows", "crm_sync"):
        for row in await system.sql(service, ANNOUNCED):
            event = orjson.loads(row["body"])
            if lead_id in (event["subject"], event["data"].get("lead_id")):
                found.append((event, row["published_at"]))
    return found


async def whole_timeline(client: Client, lead_id: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = (await client.get(f"/api/leads/{lead_id}/timeline?limit=10{cursor}")).json()
        items += page["items"]
        if page["next_cursor"] is None:
            return items
        cursor = f"&cursor={page['next_cursor']}"


async def live_a_full_life(
    system: RunningSystem, client: Client, account: Account, simulators: Simulators
) -> tuple[str, dict[str, Any]]:
    """A lead that is created, worked on by a workflow and people, deleted, restored, and refused by the CRM now and then."""
    receiver, source = new_id("receiver"), new_id("source")
    email = f"{new_id('life')}@example.com"
    answers = [{"status": 500, "times": 2}]
    made = await simulators.http.put(f"/_control/webhooks/{receiver}", json={"secret": SECRET, "answers": answers})
    assert made.status_code < 300, made.text
    for effect in (
        {"do": "rate_limit", "policy": "TEN_SECONDLY_ROLLING"},
        {"do": "status", "status": 500},
    ):
        # Only calls about this lead: the account is still being given the workspace's other leads.
        await simulators.fault(account.portal, "contacts.*", effect, times=1, containing=email)
    me = (await client.get("/api/auth/me")).json()
    definition = workflow(system, me["id"], receiver, account.connection_id, source)
    defined = await client.post("/api/workflows", definition)
    assert defined.status_code == 201, defined.text
    body = {"email": email, "source": source, "score": 80, "custom": {"plan": "pro"}}
    created = await client.post("/api/leads", body)
    assert created.status_code == 201, created.text
    lead_id = created.json()["id"]
    path = f"/api/leads/{lead_id}"
    workflow_id = defined.json()["id"]

    async def ended() -> Any:
        run = (await client.get(f"/api/workflows/{workflow_id}/status")).json()["latest_run"]
        return run if run and run["state"] == "completed" else None

    run = (await client.get(f"/api/runs/{(await eventually(ended, seconds=60))['id']}")).json()
    assert (await client.patch(path, {"custom": {"plan": None, "seats": 3}, "tags": ["vip"]})).status_code == 200
    assert (await client.patch(path, {"tags": ["vip"]})).status_code == 200  # changes nothing: nothing to tell
    assert (await client.delete(path)).status_code == 204
    assert (await client.post(f"{path}/restore")).status_code == 200
    version = (await client.get(path)).json()["version"]
    await eventually(lambda: account.in_step(lead_id, version), seconds=60)
    return lead_id, run


async def test_a_timeline_holds_every_change_event_step_and_crm_attempt_exactly_once(
    system: RunningSystem, client: Client, account: Account, simulators: Simulators
) -> None:
    lead_id, run = await live_a_full_life(system, client, account, simulators)

    async def settled() -> Any:
        """All events published, and as many on the timeline."""
        events = await announced(system, lead_id)
        items = await whole_timeline(client, lead_id)
        told = sum(item["kind"] == "event" for item in items)
        return (events, items) if all(at for _, at in events) and told == len(events) else None

    events, items = await eventually(settled, seconds=30)
    by_kind = {kind: [item for item in items if item["kind"] == kind] for kind in {item["kind"] for item in items}}

    # Oldest first.
    assert [item["at"] for item in items] == sorted(item["at"] for item in items)

    # Every event that any service has written about the lead, with when it was accepted and published.
    told = {item["event_id"]: item for item in by_kind["event"]}
    assert set(told) == {event["id"] for event, _ in events}
    assert len(told) == len(by_kind["event"])
    for event, marked_at in events:
        item = told[event["id"]]
        assert (item["type"], item["origin"], item["request_id"]) == (
            event["type"],
            event["origin"],
            event["requestid"],
        )
        assert item["accepted_at"] == event["time"]
        assert event["time"] <= item["published_at"] <= marked_at.isoformat(timespec="milliseconds")

    # Every change: who, which fields, old and new, as the lead was before and after it.
    of_lead = [event for event, _ in events if event["type"].startswith("lead.")]
    assert len(by_kind["change"]) == len(of_lead) == of_lead[-1]["data"]["lead"]["version"]
    assert {"lead.created", "lead.updated", "lead.deleted", "lead.restored"} == {event["type"] for event in of_lead}
    before: dict[str, Any] = {}
    for item, event in zip(by_kind["change"], of_lead, strict=True):
        after = event["data"]["lead"]
        assert (item["action"], item["version"]) == (event["type"].removeprefix("lead."), after["version"])
        assert item["actor"] == event["origin"]
        if before:
            differing = {name for name in after if after[name] != before.get(name)} - {
                "version",
                "updated_at",
                "external_ids",
            }
            assert {change["field"] for change in item["changes"]} == differing
            assert all(
                (change["old"], change["new"]) == (before[change["field"]], after[change["field"]])
                for change in item["changes"]
            )
        before = after
    assert {item["actor"].split(":")[0] for item in by_kind["change"]} == {"user", "workflow"}

    # Every step of the run as workflows itself shows it: outcome, attempts, times. A wait is told when it begins, too.
    finished = [item for item in by_kind["step"] if item["outcome"] != "waiting"]
    assert {item["run_id"] for item in by_kind["run"]} == {run["id"]}
    assert sorted(
        (i["step_id"], i["type"], i["outcome"], i["attempts"], i["started_at"], i["finished_at"]) for i in finished
    ) == sorted(
        (s["id"], s["type"], s["state"], len(s["attempts"]), s["started_at"], s["finished_at"]) for s in run["steps"]
    )
    assert {"assign", "stage", "tell", "rest", "sync", "good", "end"} == {item["step_id"] for item in finished}

    # Every request that the CRM has in its own journal about this lead: its id there, its status, its class.
    journal = (await simulators.http.get("/_control/hubspot/requests", params={"portal_id": account.portal})).json()[
        "requests"
    ]
    record_id = (await account.standing(lead_id))["external_id"]
    about = [
        r
        for r in journal
        if lead_id in r["body"] or f'"{record_id}"' in r["body"] or r["path"].endswith(f"/{record_id}")
    ]
    attempts = Counter((item["request_id"], item["status"]) for item in by_kind["crm_attempt"])
    assert attempts == Counter((r["correlation_id"], r["status"]) for r in about)
    assert {item["outcome"] for item in by_kind["crm_attempt"]} >= {"ok", "rate_limited", "transient"}
    assert {item["vendor"] for item in by_kind["crm_attempt"]} == {"hubspot"}
