"""What operators are shown of runs and timers."""

from prometheus_client import REGISTRY

from services.workflows.tests.conftest import Application, Desk
from workflows.execution import store

STOP = {"id": "end", "type": "stop"}


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


async def observe(desk: Desk) -> None:
    """As a worker does when Prometheus asks it."""
    async with desk.pool() as connection:
        await store.observe(connection)


async def test_a_worker_shows_its_runs_to_prometheus(desk: Desk, worker: Application) -> None:
    await desk.know_lead(email="a@example.com")
    run_id = await desk.start(await desk.define({"id": "w", "type": "wait", "duration": "2h"}, STOP))
    await desk.until(run_id, "waiting")
    answer = await worker.client.get("/metrics")
    assert 'workflow_runs{state="waiting"} 1.0' in answer.text
    assert "workflow_timers_late 0.0" in answer.text


async def test_runs_that_are_due_and_timers_that_are_late_are_shown_until_somebody_takes_them(desk: Desk) -> None:
    """Without a worker, nobody takes them."""
    await desk.know_lead(email="a@example.com")
    workflow_id = await desk.define(STOP)
    queued, late = [await desk.start(workflow_id) for _ in range(2)]
    ago = "now() - interval '90 seconds'"
    await desk.database.execute(f"UPDATE runs SET due_at = {ago} WHERE id = $1", queued)
    await desk.database.execute("UPDATE runs SET state = 'running', lease_token = 'mine' WHERE id = $1", late)
    await desk.database.execute(
        f"UPDATE runs SET state = 'waiting', lease_token = NULL, due_at = {ago} WHERE id = $1", late
    )
    await observe(desk)
    assert (value("workflow_runs", state="queued"), value("workflow_runs", state="waiting")) == (1, 1)
    assert (value("workflow_runs_due"), value("workflow_timers_late")) == (1, 1)
    for name in ("workflow_oldest_due_seconds", "workflow_timers_late_seconds"):
        seconds = value(name)
        assert seconds is not None
        assert 90 <= seconds < 120
    await desk.database.execute("DELETE FROM runs")
    await observe(desk)
    assert (value("workflow_runs", state="queued"), value("workflow_runs", state="waiting")) == (None, 0)
    assert (value("workflow_runs_due"), value("workflow_timers_late")) == (0, 0)
