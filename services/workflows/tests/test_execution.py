"""Runs go from step to step, try again, stop where nobody knows, and can be steered."""

import threading
import time
from typing import Any

from services.workflows.tests.conftest import Application, Desk, StartWorker, created
from services.workflows.tests.neighbours import Reply, make_lead
from tests.support.fixtures import eventually

STOP = {"id": "end", "type": "stop"}
QUICK = {"attempts": 3, "backoff": "1s"}


def hook(desk: Desk, path: str = "a", **fields: Any) -> dict[str, Any]:
    return {"id": "call", "type": "http_request", "url": desk.url(path), "retry": QUICK, **fields}


async def started(desk: Desk, *steps: dict[str, Any], **lead: Any) -> str:
    """A run of these steps for lead_1."""
    await desk.know_lead(**{"email": "a@example.com", "score": 70, **lead})
    return await desk.start(await desk.define(*steps))


def step_of(run: dict[str, Any], step_id: str) -> dict[str, Any]:
    [found] = [step for step in run["steps"] if step["id"] == step_id]
    return dict(found)


async def test_an_event_takes_a_lead_through_every_step(
    desk: Desk, worker: Application, heard: list[dict[str, Any]]
) -> None:
    await desk.know_users("user_a", "user_b")
    workflow_id = await desk.define(
        {"id": "owner", "type": "assign_owner", "users": ["user_a", "user_b"]},
        {"id": "stage", "type": "update_lead", "set": {"stage": "contacted", "custom": {"by": "{{ workflow.name }}"}}},
        {
            "id": "warm",
            "type": "condition",
            "if": 'lead.stage == "contacted" && steps.owner.owner_id == "user_a" && trigger.lead.stage == "new"',
            "then": [
                hook(desk, "new/{{ lead.id }}", body={"email": "{{ lead.email }}", "owner": "{{ lead.owner_id }}"})
            ],
            "else": [STOP],
        },
        {"id": "echo", "type": "update_lead", "set": {"title": "{{ steps.call.body.title }}"}},
        {"id": "sync", "type": "sync_to_crm", "connection_id": "conn_1"},
        trigger={"type": "event", "event": "lead.created", "condition": "lead.score >= 50"},
    )
    desk.neighbours.script("/hooks/new", Reply(body={"title": "Countess"}))
    lead = desk.neighbours.put_lead(make_lead(email="a@example.com", score=70))
    await desk.publish(created(lead))

    async def told() -> Any:
        return heard

    [event] = await eventually(told, seconds=20)
    assert event["type"] == "workflow.run.completed"
    run = await desk.run(event["subject"])
    assert run["workflow_id"] == workflow_id
    assert [step["id"] for step in run["steps"]] == ["owner", "stage", "warm", "call", "echo", "sync"]
    assert {step["state"] for step in run["steps"]} == {"succeeded"}
    [call] = desk.neighbours.received("/hooks/new")
    assert call.path == "/hooks/new/lead_1"
    assert call.json == {"email": "a@example.com", "owner": "user_a"}
    [sync] = desk.neighbours.received("/api/crm")
    assert sync.json == {"connection_id": "conn_1", "version": 4}
    assert sync.headers["idempotency-key"] == f"svc:{run['id']}:sync:0:0"
    final = desk.neighbours.leads["ws_1", "lead_1"]
    assert (final["owner_id"], final["stage"], final["title"], final["version"]) == (
        "user_a",
        "contacted",
        "Countess",
        4,
    )
    assert final["custom"] == {"by": "workflow 0"}
    assert step_of(run, "stage")["input"] == {"set": {"stage": "contacted", "custom": {"by": "workflow 0"}}}


async def test_a_run_that_ends_at_once_tells_only_its_end(
    desk: Desk, worker: Application, heard: list[dict[str, Any]]
) -> None:
    run_id = await started(
        desk, {"id": "c", "type": "condition", "if": "lead.score > 1", "then": [{**STOP, "reason": "done"}]}
    )
    run = await desk.until(run_id, "completed")

    async def told() -> Any:
        return heard

    [event] = await eventually(told)
    assert (event["type"], event["subjectversion"], event["data"]["error"]) == ("workflow.run.completed", 1, None)
    assert [(step["step_id"], step["outcome"], step["attempts"]) for step in event["data"]["steps"]] == [
        ("c", "succeeded", 0),
        ("end", "succeeded", 0),
    ]
    assert step_of(run, "end")["output"] == {"outcome": "completed", "reason": "done"}


async def test_a_stop_can_fail_the_run(desk: Desk, worker: Application, heard: list[dict[str, Any]]) -> None:
    run_id = await started(desk, {**STOP, "outcome": "failed", "reason": "no budget at {{ lead.email }}"})
    run = await desk.until(run_id, "failed")
    assert run["error"] == "no budget at a@example.com"


async def test_a_failed_call_is_tried_again_after_a_pause_and_then_the_run_goes_on(
    desk: Desk, worker: Application, heard: list[dict[str, Any]]
) -> None:
    desk.neighbours.script("/hooks/a", Reply(503), Reply(500))
    run_id = await started(desk, hook(desk), STOP)
    run = await desk.until(run_id, "completed", seconds=20)
    call = step_of(run, "call")
    assert [(a["attempt"], a["state"], a["status"]) for a in call["attempts"]] == [
        (1, "failed", 503),
        (2, "failed", 500),
        (3, "succeeded", 200),
    ]
    first, second, third = desk.neighbours.received("/hooks/a")
    assert second.at - first.at >= 0.7
    assert third.at - second.at >= 1.4
    assert len({request.headers["idempotency-key"] for request in (first, second, third)}) == 1

    async def told() -> Any:
        return [event["type"] for event in heard] == ["workflow.run.started", "workflow.run.completed"]

    await eventually(told)
    assert [step["attempts"] for step in heard[1]["data"]["steps"]] == [3, 0]


async def test_a_call_that_keeps_failing_fails_the_run_with_the_last_words(
    desk: Desk, worker: Application, heard: list[dict[str, Any]]
) -> None:
    desk.neighbours.script("/hooks/a", *[Reply(500, body={"why": "broken"})] * 9)
    run_id = await started(desk, hook(desk, retry={"attempts": 2, "backoff": "1s"}), STOP)
    run = await desk.until(run_id, "failed", seconds=20)
    assert run["error"] == 'call: answered 500: {"why":"broken"} (after 2 attempts)'
    assert run["finished_at"] is not None
    assert len(desk.neighbours.received("/hooks/a")) == 2


async def test_a_refused_call_fails_the_run_at_once(desk: Desk, worker: Application) -> None:
    desk.neighbours.script("/hooks/a", Reply(422, body="no"))
    run = await desk.until(await started(desk, hook(desk), STOP), "failed")
    assert len(desk.neighbours.received("/hooks/a")) == 1
    assert "answered 422" in run["error"]


async def test_a_step_that_cannot_make_its_request_fails_the_run(desk: Desk, worker: Application) -> None:
    run = await desk.until(await started(desk, hook(desk, "x/{{ lead.company }}"), STOP), "failed")
    assert run["error"] == "call: lead.company is empty, and a URL needs it"
    assert not desk.neighbours.received("/hooks/x")


async def test_a_call_without_an_answer_stops_the_run_until_somebody_decides(
    desk: Desk, worker: Application, heard: list[dict[str, Any]]
) -> None:
    desk.neighbours.script("/hooks/a", Reply(delay=3))
    run_id = await started(desk, hook(desk, timeout="1s"), STOP)
    run = await desk.until(run_id, "needs_attention")
    assert step_of(run, "call")["state"] == "unknown"
    assert step_of(run, "call")["attempts"][0]["state"] == "unknown"
    assert run["finished_at"] is None

    async def told() -> Any:
        return heard and heard[-1]["data"]["state"] == "needs_attention"

    await eventually(told)
    assert heard[-1]["type"] == "workflow.run.waiting"
    assert heard[-1]["data"]["steps"][-1]["outcome"] == "unknown"
    await desk.steer(run_id, "retry")
    run = await desk.until(run_id, "completed")
    first, second = desk.neighbours.received("/hooks/a")
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert run["generation"] == 0


async def test_a_call_without_an_answer_is_repeated_where_the_receiver_dedupes(desk: Desk, worker: Application) -> None:
    desk.neighbours.script("/hooks/a", Reply(delay=2.5))
    run_id = await started(desk, hook(desk, timeout="1s", on_unknown="retry"), STOP)
    run = await desk.until(run_id, "completed", seconds=20)
    assert [a["state"] for a in step_of(run, "call")["attempts"]] == ["unknown", "succeeded"]


async def test_a_call_that_never_answers_asks_for_somebody_in_the_end(desk: Desk, worker: Application) -> None:
    desk.neighbours.script("/hooks/a", *[Reply(504)] * 9)
    run_id = await started(desk, hook(desk, on_unknown="retry", retry={"attempts": 2, "backoff": "1s"}), STOP)
    run = await desk.until(run_id, "needs_attention", seconds=20)
    assert "after 2 attempts" in run["error"]


async def test_a_call_without_an_answer_is_looked_up_before_it_is_repeated(desk: Desk, worker: Application) -> None:
    verify = {"url": desk.url("orders/{{ run.id }}"), "found": "response.body.found"}
    desk.neighbours.script("/hooks/a", Reply(504), Reply(504))
    desk.neighbours.script(
        "/hooks/orders", Reply(body={"found": False}), Reply(500), Reply(body={"found": True, "n": 7})
    )
    run_id = await started(
        desk, hook(desk, on_unknown="verify", verify=verify, retry={"attempts": 6, "backoff": "1s"}), STOP
    )
    run = await desk.until(run_id, "completed", seconds=30, without_pauses=True)
    call = step_of(run, "call")
    assert [(a["purpose"], a["state"]) for a in call["attempts"]] == [
        ("call", "unknown"),
        ("verify", "failed"),
        ("call", "unknown"),
        ("verify", "unknown"),
        ("verify", "succeeded"),
    ]
    assert call["output"]["body"]["n"] == 7
    assert len(desk.neighbours.received("/hooks/a")) == 2


async def test_a_service_of_ours_that_is_down_is_waited_for(desk: Desk, worker: Application) -> None:
    desk.neighbours.script(
        "/api/leads/lead_1", Reply(503, headers={"retry-after": "1"}), Reply(409, headers={"retry-after": "1"})
    )
    run_id = await started(desk, {"id": "stage", "type": "update_lead", "set": {"stage": "lost"}})
    run = await desk.until(run_id, "completed", seconds=20)
    assert [a["status"] for a in step_of(run, "stage")["attempts"]] == [503, 409, 200]
    keys = {request.headers["idempotency-key"] for request in desk.neighbours.received("/api/leads", "PATCH")}
    assert keys == {f"svc:{run_id}:stage:0:0"}


async def test_a_repeated_call_sends_what_the_first_one_sent(desk: Desk, worker: Application) -> None:
    desk.neighbours.script("/api/leads/lead_1", Reply(503))
    run_id = await started(desk, {"id": "title", "type": "update_lead", "set": {"title": "score {{ lead.score }}"}})
    await desk.until(run_id, "retrying")
    await desk.database.execute("UPDATE lead_view SET version = 2, lead = jsonb_set(lead, '{score}', '99')")
    await desk.until(run_id, "completed", seconds=20)
    first, second = desk.neighbours.received("/api/leads", "PATCH")
    assert first.body == second.body


async def test_a_lead_that_is_gone_fails_the_run(desk: Desk, worker: Application) -> None:
    await desk.know_lead()
    desk.neighbours.leads.clear()
    run_id = await desk.start(await desk.define({"id": "stage", "type": "update_lead", "set": {"stage": "lost"}}))
    run = await desk.until(run_id, "failed")
    assert run["error"] == "stage: PATCH /api/leads/lead_1 answered 404: There is no such lead."


async def test_a_signed_call_carries_its_secrets_and_shows_none(desk: Desk, worker: Application) -> None:
    from standardwebhooks import Webhook

    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    desk.neighbours.script("/hooks/a", Reply(body={"you_sent": "Bearer topsecret1"}))
    step = hook(
        desk, body={"x": 1}, sign_with={"secret": secret}, headers={"Authorization": {"secret": "Bearer topsecret1"}}
    )
    run_id = await started(desk, step)
    run = await desk.until(run_id, "completed")
    [request] = desk.neighbours.received("/hooks/a")
    assert request.headers["authorization"] == "Bearer topsecret1"
    assert Webhook(secret).verify(request.body, dict(request.headers)) == {"x": 1}
    shown = (await desk.api.get(f"/api/runs/{run_id}")).text
    assert "topsecret1" not in shown
    assert secret.removeprefix("whsec_") not in shown
    assert step_of(run, "call")["output"]["body"] == {"you_sent": "[redacted]"}
    for table in ("run_steps", "step_attempts", "runs", "outbox", "workflow_versions"):
        rows = await desk.database.fetch(f"SELECT t::text AS line FROM {table} t")
        assert not any("topsecret1" in row["line"] for row in rows), table


# --- cancelling ---


async def test_a_waiting_run_is_cancelled(desk: Desk, worker: Application, heard: list[dict[str, Any]]) -> None:
    run_id = await started(desk, {"id": "w", "type": "wait", "duration": "1h"}, STOP)
    await desk.until(run_id, "waiting")
    assert (await desk.steer(run_id, "cancel"))["state"] == "cancelling"
    run = await desk.until(run_id, "cancelled")
    assert step_of(run, "w")["state"] == "cancelled"

    async def told() -> Any:
        return heard and heard[-1]["type"] == "workflow.run.cancelled"

    await eventually(told)
    assert heard[-1]["data"]["steps"][0]["outcome"] == "cancelled"


async def test_a_call_under_way_is_recorded_before_the_run_is_cancelled(desk: Desk, worker: Application) -> None:
    gate = threading.Event()
    desk.neighbours.script("/hooks/a", Reply(body={"n": 1}, hold=gate))
    run_id = await started(desk, hook(desk), {"id": "later", "type": "update_lead", "set": {"stage": "lost"}})

    async def called() -> Any:
        return desk.neighbours.received("/hooks/a")

    await eventually(called)
    await desk.steer(run_id, "cancel")
    assert (await desk.run(run_id))["state"] == "cancelling"
    assert (await desk.steer(run_id, "cancel"))["state"] == "cancelling"
    gate.set()
    run = await desk.until(run_id, "cancelled")
    assert step_of(run, "call")["state"] == "succeeded"
    assert step_of(run, "call")["output"]["body"] == {"n": 1}
    assert not desk.neighbours.received("/api/leads", "PATCH")
    await desk.steer(run_id, "retry")
    run = await desk.until(run_id, "completed")
    assert len(desk.neighbours.received("/hooks/a")) == 1
    assert len(desk.neighbours.received("/api/leads", "PATCH")) == 1


async def test_a_run_nobody_works_on_is_cancelled_without_any_call(desk: Desk, start_worker: StartWorker) -> None:
    run_id = await started(desk, hook(desk), STOP)
    await desk.steer(run_id, "cancel")
    await start_worker()
    await desk.until(run_id, "cancelled")
    assert not desk.neighbours.received("/hooks/a")


async def test_what_has_ended_cannot_be_cancelled_and_what_runs_cannot_be_retried(
    desk: Desk, start_worker: StartWorker
) -> None:
    run_id = await started(desk, STOP)
    refused = await desk.api.post(f"/api/runs/{run_id}/retry", json={})
    assert (refused.status_code, refused.json()["state"]) == (409, "queued")
    await start_worker()
    await desk.until(run_id, "completed")
    for verb in ("cancel", "retry"):
        refused = await desk.api.post(f"/api/runs/{run_id}/{verb}", json={} if verb == "retry" else None)
        assert (refused.status_code, refused.json()["state"]) == (409, "completed")


async def test_archiving_can_cancel_what_runs(desk: Desk, worker: Application) -> None:
    await desk.know_lead()
    workflow_id = await desk.define({"id": "w", "type": "wait", "duration": "1h"})
    runs = [await desk.start(workflow_id) for _ in range(3)]
    for run_id in runs:
        await desk.until(run_id, "waiting")
    assert (await desk.api.delete(f"/api/workflows/{workflow_id}?runs=cancel")).status_code == 204
    for run_id in runs:
        await desk.until(run_id, "cancelled")


async def test_archiving_lets_what_waits_finish(desk: Desk, worker: Application) -> None:
    await desk.know_lead()
    workflow_id = await desk.define({"id": "w", "type": "wait", "duration": "1s"}, STOP)
    run_id = await desk.start(workflow_id)
    assert (await desk.api.delete(f"/api/workflows/{workflow_id}")).status_code == 204
    await desk.until(run_id, "completed")


# --- retrying ---


async def test_a_known_failure_is_retried_with_a_new_key_from_the_failed_step(desk: Desk, worker: Application) -> None:
    desk.neighbours.script("/hooks/a", Reply(400))
    run_id = await started(desk, {"id": "stage", "type": "update_lead", "set": {"stage": "contacted"}}, hook(desk))
    await desk.until(run_id, "failed")
    queued = await desk.steer(run_id, "retry", **{"from": "step"})
    assert (queued["generation"], queued["iteration"], queued["error"]) == (1, 0, None)
    run = await desk.until(run_id, "completed")
    first, second = desk.neighbours.received("/hooks/a")
    assert first.headers["idempotency-key"] == f"{run_id}:call:0:0"
    assert second.headers["idempotency-key"] == f"{run_id}:call:0:1"
    assert len(desk.neighbours.received("/api/leads", "PATCH")) == 1
    assert [(a["generation"], a["state"]) for a in step_of(run, "call")["attempts"]] == [
        (0, "failed"),
        (1, "succeeded"),
    ]


async def test_a_retry_from_the_start_takes_every_step_again(desk: Desk, worker: Application) -> None:
    desk.neighbours.script("/hooks/b", Reply(400))
    run_id = await started(desk, hook(desk), hook(desk, "b", id="second"))
    await desk.until(run_id, "failed")
    assert (await desk.steer(run_id, "retry", **{"from": "start"}))["iteration"] == 1
    run = await desk.until(run_id, "completed")
    keys = [request.headers["idempotency-key"] for request in desk.neighbours.received("/hooks/a")]
    assert keys == [f"{run_id}:call:0:0", f"{run_id}:call:1:0"]
    assert [(step["iteration"], step["id"], step["state"]) for step in run["steps"]] == [
        (0, "call", "succeeded"),
        (0, "second", "failed"),
        (1, "call", "succeeded"),
        (1, "second", "succeeded"),
    ]


async def test_a_retry_can_go_on_with_the_latest_version(desk: Desk, worker: Application) -> None:
    desk.neighbours.script("/hooks/a", Reply(400), Reply(400))
    await desk.know_lead(email="a@example.com")
    workflow_id = await desk.define(hook(desk))
    run_id = await desk.start(workflow_id)
    await desk.until(run_id, "failed")
    repaired = {"name": "x", "trigger": {"type": "manual"}, "steps": [hook(desk, "better"), STOP]}
    assert (await desk.api.put(f"/api/workflows/{workflow_id}", json=repaired)).status_code == 200
    await desk.steer(run_id, "retry")
    await desk.until(run_id, "failed")
    await desk.steer(run_id, "retry", version="latest")
    run = await desk.until(run_id, "completed")
    assert run["version"] == 2
    assert len(desk.neighbours.received("/hooks/better")) == 1


async def test_a_step_that_the_latest_version_lacks_cannot_be_retried_there(desk: Desk, worker: Application) -> None:
    desk.neighbours.script("/hooks/a", Reply(400))
    await desk.know_lead()
    workflow_id = await desk.define(hook(desk))
    run_id = await desk.start(workflow_id)
    await desk.until(run_id, "failed")
    path = f"/api/workflows/{workflow_id}"
    for steps in ([STOP], [{"id": "call", "type": "wait", "duration": "1s"}]):
        assert (
            await desk.api.put(path, json={"name": "x", "trigger": {"type": "manual"}, "steps": steps})
        ).status_code == 200
        refused = await desk.api.post(f"/api/runs/{run_id}/retry", json={"version": "latest"})
        assert refused.status_code == 422
    await desk.steer(run_id, "retry", **{"from": "start", "version": "latest"})
    await desk.until(run_id, "completed")


async def test_a_wrong_retry_is_refused_with_its_place(desk: Desk) -> None:
    run_id = await started(desk, STOP)
    for body, pointer in (({"from": "middle"}, "/from"), ({"version": 2}, "/version"), ({"step": "x"}, "/step")):
        refused = await desk.api.post(f"/api/runs/{run_id}/retry", json=body)
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["pointer"] == pointer


async def test_a_repeated_retry_or_cancel_has_its_effect_once(desk: Desk, worker: Application) -> None:
    desk.neighbours.script("/hooks/a", Reply(400), Reply(400))
    run_id = await started(desk, hook(desk))
    await desk.until(run_id, "failed")
    key = {"Idempotency-Key": "again"}
    answers = [await desk.api.post(f"/api/runs/{run_id}/retry", json={}, headers=key) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {202}
    await desk.until(run_id, "failed")
    answer = await desk.api.post(f"/api/runs/{run_id}/retry", json={}, headers=key)
    assert answer.headers["idempotency-replayed"] == "true"
    assert (await desk.run(run_id))["generation"] == 1


# --- speed and stopping ---


async def test_a_run_started_by_hand_is_taken_at_once(desk: Desk, start_worker: StartWorker) -> None:
    await start_worker(poll_seconds=30)
    await desk.know_lead()
    workflow_id = await desk.define(STOP)
    await desk.until(await desk.start(workflow_id), "completed")
    began = time.monotonic()
    await desk.until(await desk.start(workflow_id), "completed")
    assert time.monotonic() - began < 5


async def test_a_worker_that_stops_puts_its_runs_down_for_another(
    desk: Desk, settings: Any, start_worker: StartWorker
) -> None:
    from chassis.worker import create_worker_app
    from services.workflows.tests.conftest import running
    from workflows.worker import build_loops

    gate = threading.Event()
    desk.neighbours.script("/hooks/a", Reply(hold=gate))
    async with running(create_worker_app(settings, lambda resources: build_loops(settings, resources))):
        run_id = await started(desk, hook(desk), hook(desk, "b", id="second"))

        async def called() -> Any:
            return desk.neighbours.received("/hooks/a")

        await eventually(called)
        gate.set()
    run = await desk.run(run_id)
    assert run["state"] in ("queued", "completed")
    await start_worker()
    await desk.until(run_id, "completed")
    assert len(desk.neighbours.received("/hooks/a")) == len(desk.neighbours.received("/hooks/b")) == 1
