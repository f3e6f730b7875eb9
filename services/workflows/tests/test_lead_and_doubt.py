"""What a run knows of its lead, and what becomes of calls whose outcome is in doubt."""

import threading
from datetime import timedelta
from typing import Any

import pytest

from chassis.clock import rfc3339, utcnow
from services.workflows.tests.conftest import Application, Desk, StartWorker
from services.workflows.tests.neighbours import Reply, lead_event
from tests.support.fixtures import eventually
from workflows.steps.http_request import HttpRequest

STOP = {"id": "end", "type": "stop"}
CONTACT = {"id": "set", "type": "update_lead", "set": {"stage": "contacted"}}


def fails_unless(condition: str) -> dict[str, Any]:
    return {
        "id": "c",
        "type": "condition",
        "if": condition,
        "else": [{"id": "bad", "type": "stop", "outcome": "failed"}],
    }


def wait_for_update(condition: str) -> dict[str, Any]:
    return {"id": "w", "type": "wait_for_event", "event": "lead.updated", "condition": condition, "timeout": "1h"}


def hook(desk: Desk, path: str = "a", **fields: Any) -> dict[str, Any]:
    return {"id": "call", "type": "http_request", "url": desk.url(path), **fields}


async def test_a_wait_sees_the_change_the_run_itself_has_just_made(desk: Desk, worker: Application) -> None:
    await desk.know_lead(email="a@example.com")
    at = rfc3339(utcnow() + timedelta(hours=1))
    run_id = await desk.start(
        await desk.define(
            {"id": "set", "type": "update_lead", "set": {"custom": {"call_at": at}}},
            {"id": "w", "type": "wait", "until": "lead.custom.call_at"},
            STOP,
        )
    )
    run = await desk.until(run_id, "waiting", "failed", "completed")
    assert run["state"] == "waiting", run["error"]


async def test_a_wait_for_an_event_looks_at_the_lead_as_the_run_left_it(desk: Desk, worker: Application) -> None:
    await desk.know_lead(email="a@example.com", stage="new")
    run_id = await desk.start(
        await desk.define(
            CONTACT,
            wait_for_update('lead.stage == "new"'),
            STOP,
        )
    )
    run = await desk.until(run_id, "waiting", "failed", "completed")
    assert run["state"] == "waiting", run


async def test_steps_after_a_wait_see_the_runs_own_change(desk: Desk, worker: Application) -> None:
    await desk.know_lead(email="a@example.com", stage="new")
    run_id = await desk.start(
        await desk.define(
            CONTACT,
            wait_for_update('lead.email != ""'),
            fails_unless('lead.stage == "contacted"'),
            {"id": "sync", "type": "sync_to_crm"},
        )
    )
    run = await desk.until(run_id, "failed", "completed")
    assert run["state"] == "completed", run
    assert desk.neighbours.received("/api/crm")[0].json == {"version": 2}


async def test_steps_after_a_call_see_what_others_changed_meanwhile(desk: Desk, worker: Application) -> None:
    gate = threading.Event()
    desk.neighbours.script("/hooks/a", Reply(hold=gate))
    lead = await desk.know_lead(email="a@example.com", score=1)
    run_id = await desk.start(
        await desk.define(
            hook(desk),
            fails_unless("lead.score > 50"),
            hook(desk, "b", id="tell", body={"score": "{{ lead.score }}"}),
        )
    )

    async def called() -> Any:
        return desk.neighbours.received("/hooks/a")

    await eventually(called)
    await desk.publish(lead_event("lead.updated", {**lead, "version": 2, "score": 90}, ["score"], {"score": 1}))

    async def seen() -> Any:
        return await desk.database.fetchval("SELECT version FROM lead_view") == 2

    await eventually(seen)
    gate.set()
    run = await desk.until(run_id, "failed", "completed")
    assert run["state"] == "completed", run
    assert desk.neighbours.received("/hooks/b")[0].json == {"score": 90}


async def test_a_replayed_older_answer_does_not_turn_the_lead_back(desk: Desk, worker: Application) -> None:
    lead = await desk.know_lead(email="a@example.com", version=5, score=70)
    old = {**lead, "version": 2, "score": 1, "stage": "contacted"}
    desk.neighbours.script("/api/leads/lead_1", Reply(body=old))
    run_id = await desk.start(
        await desk.define(
            CONTACT,
            fails_unless("lead.score > 50"),
        )
    )
    run = await desk.until(run_id, "failed", "completed")
    assert run["state"] == "completed", run


async def test_a_call_that_ends_the_process_each_time_is_given_up_for_somebody_to_look_at(
    desk: Desk, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    async def die(self: Any, request: Any, call: Any) -> Any:
        calls.append(1)
        raise RuntimeError("as if the process had died")

    monkeypatch.setattr(HttpRequest, "perform", die)
    await desk.know_lead(email="a@example.com")
    run_id = await desk.start(await desk.define(hook(desk, on_unknown="retry"), STOP))
    await start_worker(lease_seconds=1.0)
    await desk.until(run_id, "needs_attention", seconds=15)
    assert len(calls) == 5


async def test_a_call_that_may_have_worked_is_asked_about_and_repeated_with_its_own_key(
    desk: Desk, worker: Application
) -> None:
    desk.neighbours.script("/hooks/a", Reply(504), Reply(503))
    await desk.know_lead(email="a@example.com")
    run_id = await desk.start(
        await desk.define(hook(desk, on_unknown="retry", retry={"attempts": 2, "backoff": "1s"}), STOP)
    )
    await desk.until(run_id, "needs_attention", seconds=20)
    await desk.steer(run_id, "retry")
    await desk.until(run_id, "completed")
    keys = {r.headers["idempotency-key"] for r in desk.neighbours.received("/hooks/a")}
    assert len(keys) == 1


async def test_a_call_that_was_looked_up_and_had_not_arrived_can_be_known_to_have_failed(
    desk: Desk, worker: Application
) -> None:
    desk.neighbours.script("/hooks/a", Reply(504), Reply(503))
    desk.neighbours.script("/hooks/look", Reply(404))
    await desk.know_lead(email="a@example.com")
    doubt: dict[str, Any] = {
        "on_unknown": "verify",
        "verify": {"url": desk.url("look")},
        "retry": {"attempts": 3, "backoff": "1s"},
    }
    run = await desk.until(await desk.start(await desk.define(hook(desk, **doubt))), "failed", "needs_attention")
    assert (run["state"], len(desk.neighbours.received("/hooks/a"))) == ("failed", 2)


async def test_a_look_up_added_in_a_later_version_serves_the_call_that_was_made_before(
    desk: Desk, start_worker: StartWorker
) -> None:
    await start_worker(lease_seconds=1.0)
    desk.neighbours.script("/hooks/a", Reply(504))
    await desk.know_lead(email="a@example.com")
    workflow_id = await desk.define(hook(desk), STOP)
    run_id = await desk.start(workflow_id)
    await desk.until(run_id, "needs_attention")
    better = hook(desk, on_unknown="verify", verify={"url": desk.url("orders")})
    put = await desk.api.put(
        f"/api/workflows/{workflow_id}", json={"name": "x", "trigger": {"type": "manual"}, "steps": [better, STOP]}
    )
    assert put.status_code == 200
    await desk.steer(run_id, "retry", version="latest")
    run = await desk.until(run_id, "completed", "failed", "needs_attention", seconds=8)
    assert run["state"] == "completed", run


async def test_an_id_that_no_lead_can_have_is_refused(desk: Desk) -> None:
    workflow_id = await desk.define(STOP)
    for lead_id in ("a" * 70_000, "a" * 65, "é", "²"):
        answer = await desk.api.post(f"/api/workflows/{workflow_id}/runs", json={"lead_id": lead_id})
        assert answer.status_code == 422, (lead_id[:10], answer.status_code, answer.text)
        answer = await desk.api.post(
            "/api/workflows",
            json={"name": "x", "trigger": {"type": "manual"}, "steps": [STOP], "start": {"lead_id": lead_id}},
        )
        assert answer.status_code == 422, (lead_id[:10], answer.status_code, answer.text)


async def test_a_header_that_ends_in_an_empty_value_is_sent_without_the_space(desk: Desk, worker: Application) -> None:
    await desk.know_lead(email="a@example.com", first_name="Ada")
    run_id = await desk.start(
        await desk.define(hook(desk, headers={"X-Name": "{{ lead.first_name }} {{ lead.last_name }}"}), STOP)
    )
    run = await desk.until(run_id, "completed", "failed", "needs_attention", "retrying", seconds=8)
    assert run["state"] == "completed", run


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "[::1]", "[::ffff:10.0.0.1]", "localhost"]
)
async def test_a_private_address_is_never_called(desk: Desk, worker: Application, host: str) -> None:
    await desk.know_lead()
    step = {"id": "call", "type": "http_request", "url": f"https://{host}/", "on_unknown": "retry"}
    run = await desk.until(await desk.start(await desk.define(step)), "failed", "retrying", "needs_attention")
    assert (run["state"], "is not a public address" in run["error"]) == ("failed", True)


async def test_a_retry_after_that_is_no_number_counts_as_none(desk: Desk, start_worker: StartWorker) -> None:
    await start_worker(lease_seconds=1.0)
    desk.neighbours.script("/hooks/a", Reply(503, headers={"retry-after": "²"}))
    await desk.know_lead(email="a@example.com")
    run_id = await desk.start(await desk.define(hook(desk), STOP))
    run = await desk.until(run_id, "completed", "failed", "needs_attention", seconds=8)
    assert run["state"] == "completed", run


@pytest.mark.parametrize(
    "url",
    [
        "https://" + "a" * 70 + ".example/",
        "https://a..example/",
        "https://xn--.example/",
        "https://[::1",
        "https://ex\u2488ample.com/",
        "https://nothing.invalid/",
    ],
)
async def test_a_host_that_cannot_be_called_ends_the_step_and_not_the_worker(
    desk: Desk, start_worker: StartWorker, url: str
) -> None:
    await start_worker(lease_seconds=1.0)
    await desk.know_lead(email="a@example.com")
    step = {"id": "call", "type": "http_request", "url": url, "retry": {"attempts": 1}}
    body = {"name": "x", "trigger": {"type": "manual"}, "steps": [step], "start": {"lead_id": "lead_1"}}
    answer = await desk.api.post("/api/workflows", json=body)
    assert answer.status_code in {201, 422}
    if answer.status_code == 201:
        run = await desk.until(answer.json()["run"]["id"], "failed", "needs_attention", seconds=4)
        assert run["error"]
