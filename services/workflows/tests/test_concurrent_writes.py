"""Writes to one workflow or one run that come at once: each is made on what the one before it left."""

import asyncio
from typing import Any

from services.workflows.tests.conftest import Desk

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
    answers = await asyncio.gather(*(desk.api.post(path, json={"from": "start"}) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [202, 409, 409, 409, 409]
    assert (await desk.run(run_id))["iteration"] == 1
