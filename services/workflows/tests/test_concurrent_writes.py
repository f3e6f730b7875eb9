"""Writes to one workflow or one run that come at once: each is made on what the one before it left."""

import asyncio
from typing import Any

from services.workflows.tests.conftest import Desk, StartWorker
from tests.support.fixtures import eventually

STOP = {"id": "end", "type": "stop"}


def body(number: int) -> dict[str, Any]:
    return {"name": "raced", "trigger": {"type": "manual"}, "steps": [{**STOP, "reason": f"{number}"}]}


async def test_versions_put_at_once_are_all_kept(desk: Desk) -> None:
    path = f"/api/workflows/{await desk.define(STOP)}"
    answers = await asyncio.gather(*(desk.api.put(path, json=body(number)) for number in range(5)))
    assert [answer.status_code for answer in answers] == [200] * 5
    versions = (await desk.api.get(f"{path}/versions")).json()["items"]
    assert [version["version"] for version in versions] == [6, 5, 4, 3, 2, 1]
    assert {version["steps"][0].get("reason") for version in versions} == {*map(str, range(5)), None}


async def test_of_versions_put_on_the_same_one_the_first_is_taken(desk: Desk) -> None:
    path = f"/api/workflows/{await desk.define(STOP)}"
    on_the_first = {"If-Match": '"1"'}
    answers = await asyncio.gather(*(desk.api.put(path, json=body(n), headers=on_the_first) for n in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412, 412]
    assert (await desk.api.get(path)).json()["version"] == 2


async def test_of_retries_that_come_at_once_one_is_made(desk: Desk) -> None:
    await desk.know_lead()
    run_id = await desk.start(await desk.define(STOP))
    await desk.database.execute("UPDATE runs SET state = 'running', lease_token = 't', started_at = now()")
    await desk.database.execute(
        "UPDATE runs SET state = 'failed', lease_token = NULL, error = 'x', finished_at = now()"
    )
    path = f"/api/runs/{run_id}/retry"
    async with desk.pool() as other, other.transaction():
        await other.execute("SELECT 1 FROM runs FOR UPDATE")  # until all of them are there
        asked = [asyncio.create_task(desk.api.post(path, json={"from": "start"})) for _ in range(3)]

        async def all_wait() -> bool:
            waiting = "wait_event_type = 'Lock' AND datname = current_database()"
            return int(await desk.database.fetchval(f"SELECT count(*) FROM pg_stat_activity WHERE {waiting}")) == 3

        await eventually(all_wait)
    answers = await asyncio.gather(*asked)
    assert sorted(answer.status_code for answer in answers) == [202, 409, 409]
    assert (await desk.run(run_id))["iteration"] == 1


async def test_a_repeated_write_gives_the_first_answer_and_has_no_other_effect(
    desk: Desk, start_worker: StartWorker
) -> None:
    """Whatever has happened in between: without its key each of these would be refused or have an effect of its own."""
    await desk.know_lead()
    workflow_id = await desk.define({"id": "w", "type": "wait", "duration": "1h"})
    path = f"/api/workflows/{workflow_id}"
    first = {"Idempotency-Key": "put", "If-Match": '"1"'}
    put = await desk.api.put(path, json=body(1), headers=first)
    assert (await desk.api.put(path, json=body(2))).json()["version"] == 3
    again = await desk.api.put(path, json=body(1), headers=first)
    assert (put.status_code, again.status_code, again.json()) == (200, 200, put.json())
    start = [
        await desk.api.post(f"{path}/runs", json={"lead_id": "lead_1"}, headers={"Idempotency-Key": "start"})
        for _ in range(2)
    ]
    assert [answer.status_code for answer in start] == [201, 201]
    [run] = await desk.runs(workflow_id)
    cancel = {"Idempotency-Key": "cancel"}
    cancelled = await desk.api.post(f"/api/runs/{run['id']}/cancel", headers=cancel)
    await start_worker()
    await desk.until(run["id"], "cancelled")
    again = await desk.api.post(f"/api/runs/{run['id']}/cancel", headers=cancel)
    assert (cancelled.status_code, again.status_code, again.json()) == (202, 202, cancelled.json())
    assert [version["version"] for version in (await desk.api.get(f"{path}/versions")).json()["items"]] == [3, 2, 1]
