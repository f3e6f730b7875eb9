"""What runs announce keeps the contracts; what others announce is read from the contracts' examples; secrets change their key."""

from base64 import b64encode
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import Any

import asyncpg
import msgspec
import pytest

from chassis.events import decode, encode
from chassis.vault import Vault
from contracts import events as contracts
from contracts.validation import problems
from services.workflows.tests.conftest import Application, Desk, StartWorker
from services.workflows.tests.neighbours import Reply, lead_event
from tests.support.fixtures import eventually
from workflows.consuming import _read
from workflows.engine.run import State
from workflows.events import RunFacts, run_event
from workflows.execution import journal
from workflows.rotate_keys import rotate
from workflows.settings import WorkflowsSettings

FACTS = RunFacts("ws_1", "run_1", "wf_1", "Hot leads", 2, "lead_1", ("conn_1", "wf_1"), "req_1", None)
NOW = datetime.now(UTC)
STEP = {
    "step_id": "call",
    "type": "http_request",
    "state": "succeeded",
    "attempts": 1,
    "started_at": NOW,
    "finished_at": NOW,
    "error": None,
    "iteration": 0,
    "generation": 0,
}


@pytest.mark.parametrize(
    "state",
    [
        State.RUNNING,
        State.RETRYING,
        State.WAITING,
        State.NEEDS_ATTENTION,
        State.SUSPENDED,
        State.COMPLETED,
        State.FAILED,
        State.CANCELLED,
    ],
)
def test_every_event_of_a_run_keeps_its_contract(state: State) -> None:
    steps = [STEP, {**STEP, "state": "waiting", "finished_at": None}, {**STEP, "state": "failed", "error": "x" * 900}]
    event = run_event(FACTS, state, 3, error="why", steps=steps)
    assert problems(msgspec.json.decode(encode(event))) == []
    assert [len(step["error"] or "") for step in event.data["steps"]] == [0, 0, 500]
    assert (event.origin, event.chain, event.subjectversion) == ("workflow:wf_1/run_1", "conn_1,wf_1", 3)


@pytest.mark.parametrize("event_type", [name for name in contracts() if name.startswith(("lead.", "crm.lead."))])
def test_the_examples_of_what_is_read_can_be_read(event_type: str) -> None:
    for example in contracts()[event_type].examples:
        happening = _read(decode(msgspec.json.encode(example)))
        assert happening.lead_id
        assert (happening.change is None) == event_type.startswith("crm.")


async def test_each_step_is_told_once_in_order_and_again_only_if_it_was_taken_again(
    desk: Desk, worker: Application, heard: list[dict[str, Any]]
) -> None:
    lead = await desk.know_lead(score=1)
    desk.neighbours.script("/hooks/a", Reply(400))
    wait = {"type": "wait_for_event", "event": "lead.updated", "timeout": "1h"}
    run_id = await desk.start(
        await desk.define(
            {"id": "stage", "type": "update_lead", "set": {"stage": "contacted"}},
            {"id": "one", **wait, "condition": "lead.score > 50"},
            {"id": "two", **wait, "condition": "lead.score > 90"},
            {"id": "call", "type": "http_request", "url": desk.url("a")},
        )
    )

    async def told(state: str, number: int) -> bool:
        return any((e["data"]["state"], e["subjectversion"]) == (state, number) for e in heard)

    for number, score in ((1, 60), (2, 95)):
        await eventually(partial(told, "waiting", number))
        changed = {**lead, "version": 10 + number, "score": score}
        await desk.publish(lead_event("lead.updated", changed, ["score"], {"score": 1}))
    await eventually(partial(told, "failed", 3))
    await desk.steer(run_id, "retry")
    await eventually(partial(told, "completed", 4))
    assert [event["subjectversion"] for event in heard] == [1, 2, 3, 4]
    steps = [[(s["step_id"], s["outcome"], s["generation"]) for s in event["data"]["steps"]] for event in heard]
    assert steps == [
        [("stage", "succeeded", 0), ("one", "waiting", 0)],
        [("one", "succeeded", 0), ("two", "waiting", 0)],
        [("two", "succeeded", 0), ("call", "failed", 0)],
        [("call", "succeeded", 1)],
    ]


async def test_a_step_told_while_the_run_is_under_way_is_not_told_at_its_end(
    desk: Desk, start_worker: StartWorker, heard: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = count(-1, 2)
    monkeypatch.setattr(
        journal, "utcnow", lambda: datetime.now(UTC) + timedelta(hours=next(hours))
    )  # long from the second call on
    await desk.know_lead()
    calls = [{"id": name, "type": "http_request", "url": desk.url(name)} for name in ("one", "two", "three")]
    await desk.start(await desk.define(*calls))
    await start_worker()

    async def told() -> bool:
        return len(heard) == 2

    await eventually(told)
    assert [[step["step_id"] for step in event["data"]["steps"]] for event in heard] == [["one"], ["two", "three"]]


async def test_a_run_that_pauses_before_anything_was_told_tells_that_it_has_started(
    desk: Desk, worker: Application, heard: list[dict[str, Any]]
) -> None:
    desk.neighbours.script("/hooks/a", Reply(503, headers={"retry-after": "600"}))
    await desk.know_lead()
    await desk.start(await desk.define({"id": "call", "type": "http_request", "url": desk.url("a")}))

    async def told() -> list[dict[str, Any]]:
        return heard

    [event] = await eventually(told)
    assert (event["type"], event["data"]["state"]) == ("workflow.run.started", "retrying")


async def test_secrets_are_sealed_anew_under_the_current_key(
    desk: Desk, database: asyncpg.Connection, settings: WorkflowsSettings
) -> None:
    step = {"id": "call", "type": "http_request", "url": "https://a.example/", "headers": {"X-A": {"secret": "abc"}}}
    await desk.define(step)
    keys = settings.secret_keys.get_secret_value()
    vault = Vault(f"k2:{b64encode(b'2' * 32).decode()},{keys}")
    dsn = settings.database_url.get_secret_value()
    assert await rotate(dsn, vault) == 1
    assert await rotate(dsn, vault) == 0
    row = await database.fetchrow("SELECT workspace_id, id, sealed FROM secrets")
    assert row is not None
    assert Vault(f"k2:{b64encode(b'2' * 32).decode()}").open(row["sealed"], f"ws_1/{row['id']}".encode()) == b"abc"
