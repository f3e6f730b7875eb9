"""A run whose worker died, or was too slow, goes on elsewhere: no effect twice, no late write."""

import asyncio
import signal
import threading
from typing import Any

import asyncpg
import pytest

from chassis.leases import Lease, LeaseLost
from chassis.vault import Vault
from services.workflows.tests.conftest import SECRET_KEYS, Application, Desk, StartProcess, StartWorker
from services.workflows.tests.neighbours import Reply
from tests.support.fixtures import eventually
from workflows.catalogue import Catalogue
from workflows.engine.run import State
from workflows.execution import store
from workflows.execution.journal import Journal, Page

STOP = {"id": "end", "type": "stop"}
QUICK_LEASE = {"lease_seconds": 3.0}


def hook(desk: Desk, path: str = "a", **fields: Any) -> dict[str, Any]:
    return {"id": "call", "type": "http_request", "url": desk.url(path), **fields}


async def started(desk: Desk, *steps: dict[str, Any]) -> str:
    await desk.know_lead(email="a@example.com")
    return await desk.start(await desk.define(*steps))


@pytest.mark.parametrize(
    ("policy", "calls", "state"),
    [("retry", 2, "completed"), ("stop", 1, "needs_attention"), ("verify", 1, "completed")],
)
async def test_a_crash_between_a_call_and_its_result_follows_the_steps_wish(
    desk: Desk, start_process: StartProcess, start_worker: StartWorker, policy: str, calls: int, state: str
) -> None:
    verify: dict[str, Any] = {"verify": {"url": desk.url("look")}} if policy == "verify" else {}
    run_id = await started(desk, hook(desk, on_unknown=policy, **verify), STOP)
    process = await start_process(failpoint="step.after_call:1", **QUICK_LEASE)
    assert await process.exit_code(30) == -signal.SIGKILL
    await desk.outlive_leases()
    assert len(desk.neighbours.received("/hooks/a")) == 1
    await start_worker(**QUICK_LEASE)
    run = await desk.until(run_id, state, seconds=20)
    requests = desk.neighbours.received("/hooks/a")
    assert len(requests) == calls
    assert {request.headers["idempotency-key"] for request in requests} == {f"{run_id}:call:0:0"}
    assert len(desk.neighbours.received("/hooks/look")) == (policy == "verify")
    assert run["steps"][0]["attempts"][0]["state"] == "unknown"


async def test_a_crash_before_a_services_answer_is_written_down_has_one_effect(
    desk: Desk, start_process: StartProcess, start_worker: StartWorker
) -> None:
    run_id = await started(desk, {"id": "stage", "type": "update_lead", "set": {"stage": "contacted"}}, STOP)
    process = await start_process(failpoint="step.after_call:1", **QUICK_LEASE)
    assert await process.exit_code(30) == -signal.SIGKILL
    await desk.outlive_leases()
    await start_worker(**QUICK_LEASE)
    await desk.until(run_id, "completed", seconds=20)
    assert len(desk.neighbours.received("/api/leads", "PATCH")) == 2
    assert desk.neighbours.leads["ws_1", "lead_1"]["version"] == 2


@pytest.mark.parametrize(
    ("step", "method", "path"),
    [
        ({"type": "sync_to_crm", "connection_id": "conn_1"}, "POST", "/api/crm/leads"),
        (
            {"type": "update_lead", "set": {"stage": "contacted", "score": 7, "custom": {"seats": 1e18, "of": 0.1}}},
            "PATCH",
            "/api/leads",
        ),
    ],
)
async def test_after_a_crash_the_very_same_bytes_are_sent_again(
    desk: Desk, start_process: StartProcess, start_worker: StartWorker, step: dict[str, Any], method: str, path: str
) -> None:
    """A service refuses a key whose second request differs from the first."""
    run_id = await started(desk, {"id": "call", **step}, STOP)
    process = await start_process(failpoint="step.after_call:1", **QUICK_LEASE)
    assert await process.exit_code(30) == -signal.SIGKILL
    await desk.outlive_leases()
    await start_worker(**QUICK_LEASE)
    await desk.until(run_id, "completed", seconds=20)
    first, second = desk.neighbours.received(path, method)
    assert first.body == second.body
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]


async def test_a_finished_call_is_not_made_again_after_a_crash(
    desk: Desk, start_process: StartProcess, start_worker: StartWorker
) -> None:
    run_id = await started(desk, hook(desk), hook(desk, "b", id="second", on_unknown="retry"), STOP)
    process = await start_process(failpoint="step.before_call:2", **QUICK_LEASE)
    assert await process.exit_code(30) == -signal.SIGKILL
    await desk.outlive_leases()
    await start_worker(**QUICK_LEASE)
    await desk.until(run_id, "completed", seconds=20)
    assert len(desk.neighbours.received("/hooks/a")) == 1


async def test_a_worker_paused_past_its_lease_writes_nothing_when_it_comes_back(
    desk: Desk, start_process: StartProcess, start_worker: StartWorker
) -> None:
    gate = threading.Event()
    desk.neighbours.script("/hooks/a", Reply(body={"who": "slow"}, hold=gate), Reply(body={"who": "fast"}))
    run_id = await started(desk, hook(desk, on_unknown="retry"), STOP)
    slow = await start_process(**QUICK_LEASE)

    async def called() -> Any:
        return desk.neighbours.received("/hooks/a")

    await eventually(called, seconds=30)
    slow.send_signal(signal.SIGSTOP)
    await start_worker(**QUICK_LEASE)
    run = await desk.until(run_id, "completed", seconds=20)
    assert run["steps"][0]["output"]["body"] == {"who": "fast"}
    gate.set()
    slow.send_signal(signal.SIGCONT)
    await asyncio.sleep(1.5)
    assert await desk.run(run_id) == run


async def test_a_run_that_kills_its_workers_is_shown_instead_of_tried_for_ever(
    desk: Desk, start_worker: StartWorker
) -> None:
    run_id = await started(desk, hook(desk), STOP)
    await desk.database.execute(
        "UPDATE runs SET state = 'running', lease_token = 'dead', lost_leases = 4, due_at = now() WHERE id = $1", run_id
    )
    await start_worker()
    run = await desk.until(run_id, "needs_attention")
    assert "ended 5 times" in run["error"]
    assert not desk.neighbours.received("/hooks/a")
    await desk.steer(run_id, "retry")
    await desk.until(run_id, "completed")


async def test_leases_lost_at_one_place_do_not_count_at_the_next(desk: Desk, start_worker: StartWorker) -> None:
    gate = threading.Event()
    desk.neighbours.script("/hooks/b", Reply(hold=gate))
    run_id = await started(
        desk, hook(desk), hook(desk, "b", id="second"), {"id": "w", "type": "wait", "duration": "1h"}
    )

    async def lost() -> int:
        return int(await desk.database.fetchval("SELECT lost_leases FROM runs WHERE id = $1", run_id))

    await desk.database.execute(
        "UPDATE runs SET state = 'running', lease_token = 'dead', lost_leases = 3, due_at = now()"
    )
    await start_worker()

    async def at_the_second() -> Any:
        return desk.neighbours.received("/hooks/b")

    await eventually(at_the_second)
    assert await lost() == 0
    await desk.database.execute("UPDATE runs SET lost_leases = 3")
    gate.set()
    await desk.until(run_id, "waiting")
    assert await lost() == 0


async def test_a_call_that_a_dead_worker_left_open_is_unknown_when_the_run_is_cancelled(
    desk: Desk, start_worker: StartWorker
) -> None:
    run_id = await started(desk, hook(desk, on_unknown="retry"), STOP)
    await desk.database.execute("UPDATE runs SET state = 'running', lease_token = 'dead', due_at = now()")
    await desk.database.execute(
        """INSERT INTO run_steps (workspace_id, run_id, iteration, step_id, generation, type, state, place, attempts, started_at)
           VALUES ('ws_1', $1, 0, 'call', 0, 'http_request', 'running', 0, 1, now())""",
        run_id,
    )
    await desk.database.execute(
        """INSERT INTO step_attempts (workspace_id, run_id, iteration, step_id, generation, attempt, purpose, state, started_at)
           VALUES ('ws_1', $1, 0, 'call', 0, 1, 'call', 'calling', now())""",
        run_id,
    )
    await desk.steer(run_id, "cancel")
    await start_worker()
    run = await desk.until(run_id, "cancelled")
    assert [attempt["state"] for attempt in run["steps"][0]["attempts"]] == ["unknown"]
    assert run["steps"][0]["state"] == "unknown"
    assert not desk.neighbours.received("/hooks/a")


async def test_a_secret_that_was_moved_to_another_row_is_never_sent(desk: Desk, start_worker: StartWorker) -> None:
    """The seal is tied to workspace and id: who can write the table cannot make a workflow send another one's secret."""
    others = hook(desk, headers={"X-Key": {"secret": "secret of others"}})
    await desk.define(others)
    run_id = await started(desk, hook(desk, headers={"X-Key": {"secret": "own secret"}}, on_unknown="retry"))
    moved = "UPDATE secrets SET sealed = (SELECT s.sealed FROM secrets s WHERE s.id <> secrets.id)"
    await desk.database.execute(moved)
    await desk.database.execute(
        "UPDATE runs SET state = 'running', lease_token = 'dead', lost_leases = 3, due_at = now()"
    )
    await start_worker(lease_seconds=1.0)
    await desk.until(run_id, "needs_attention")
    assert not desk.neighbours.received("/hooks/a")


async def test_a_write_under_an_older_lease_is_refused(desk: Desk, session_application: Application) -> None:
    """The fence by itself: the old holder believes in its lease, but another worker has claimed the run meanwhile."""
    run_id = await started(desk, STOP)
    own = session_application.state["resources"].database
    async with own.acquire() as connection:
        [old] = await store.claim_runs(connection, 10, "old", 30)
        await connection.execute("UPDATE runs SET due_at = now()")
        [new] = await store.claim_runs(connection, 10, "new", 30)
        plan = await Catalogue().plan(connection, old.workspace_id, old.workflow_id, old.version)
        assert not await store.renew_lease(connection, old, "old", 30)
        assert await store.renew_lease(connection, new, "new", 30)
        assert await store.leave_claimed(connection, old, "old", store.Departure(State.COMPLETED, "end")) is None
        await store.keep_claimed(connection, old, "old", "elsewhere", 300)
    journal = Journal(own, old, plan, Lease("old", 30), Vault(SECRET_KEYS))

    async def finish(page: Page) -> None:
        page.leave(store.Departure(State.COMPLETED, "end"))

    with pytest.raises(LeaseLost):
        await journal.write("end", finish)
    row = await desk.database.fetchrow(
        "SELECT state, lease_token, lost_leases, step_id FROM runs WHERE id = $1", run_id
    )
    assert row is not None
    assert tuple(row) == ("running", "new", 1, "end")

    async def look_at_the_lock(_page: Page) -> None:
        with pytest.raises(asyncpg.LockNotAvailableError):
            await desk.database.execute("SELECT 1 FROM runs WHERE id = $1 FOR UPDATE NOWAIT", run_id)

    await Journal(own, new, plan, Lease("new", 30), Vault(SECRET_KEYS)).write("end", look_at_the_lock)


async def test_workers_that_claim_at_once_share_the_runs_without_waiting_for_each_other(desk: Desk) -> None:
    await desk.know_lead()
    workflow_id = await desk.define(STOP)
    runs = {await desk.start(workflow_id) for _ in range(4)}
    async with desk.pool() as one, desk.pool() as two, one.transaction():
        first = await store.claim_runs(one, 3, "one", 30)
        async with asyncio.timeout(2):  # the first claim is not committed yet
            second = await store.claim_runs(two, 3, "two", 30)
    assert [len(first), len(second)] == [3, 1]
    assert {run.id for run in (*first, *second)} == runs
