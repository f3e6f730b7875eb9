"""Two workspaces whose rows have the same ids: nothing that is asked, steered or announced in one is seen or moved in the other.

Ids are made up at random, so a query that forgot the workspace would find nothing foreign in any other test.
"""

from typing import Any

import asyncpg
import orjson

from chassis.clock import utcnow
from services.workflows.tests.conftest import TABLES, Application, Desk
from services.workflows.tests.neighbours import Reply, crm_event, lead_event
from tests.support.fixtures import eventually, owner_dsn
from tests.support.identity import TestIdentity
from tests.support.servers import TestServers
from workflows import repository, run_repository
from workflows.catalogue import Catalogue
from workflows.engine.run import State
from workflows.execution import store

STOP = {"id": "end", "type": "stop"}
SHARED = ("outbox", "inbox", "inbox_suspects", "idempotency_keys")
"""Tables of the chassis."""
OWN = tuple(table for table in reversed(TABLES) if table not in SHARED)
CHANGED: dict[str, dict[str, Any]] = {
    "workflows": {"trigger_event": "lead.created"},
    "workflow_versions": {"definition": {"name": "theirs", "trigger": {}, "steps": [], "allow_reentry": True}},
    "secrets": {"sealed": "theirs"},
    "rotations": {"last_user_id": "theirs"},
    "users": {"active": True},
    "lead_view": {"lead": {"stage": "theirs"}, "version": 900},
    "crm_view": {"data": {"external_id": "theirs"}},
    "runs": {"error": "theirs", "origin": "theirs"},
    "run_steps": {"error": "theirs", "output": {"owner_id": "theirs"}, "type": "theirs", "announced": False},
    "step_attempts": {"error": "theirs"},
}


async def make_twin(servers: TestServers, dsn: str) -> None:
    """Copy every row of ws_1 into ws_0, which comes first in every index, under the same ids, with other contents."""
    connection = await asyncpg.connect(owner_dsn(servers, dsn))
    try:
        await connection.execute(
            "SET session_replication_role = replica"
        )  # runs are not born in the states they are copied in
        for table in OWN:
            await connection.execute(
                f"INSERT INTO {table} SELECT (jsonb_populate_record(NULL::{table}, to_jsonb(t) || $1)).* "
                f"FROM {table} t WHERE workspace_id = 'ws_1'",
                orjson.dumps({"workspace_id": "ws_0", **CHANGED[table]}).decode(),
            )
            # Written anew, ours lie behind theirs: a statement that finds both and takes the first shows itself.
            await connection.execute(f"UPDATE {table} SET workspace_id = workspace_id WHERE workspace_id = 'ws_1'")
        more = orjson.dumps({"step_id": "theirs"}).decode()  # a step that ours have not
        await connection.execute(
            "INSERT INTO run_steps SELECT (jsonb_populate_record(NULL::run_steps, to_jsonb(s) || $1)).* "
            "FROM run_steps s WHERE workspace_id = 'ws_0' AND step_id = 'owner'",
            more,
        )
    finally:
        await connection.close()


async def rows(desk: Desk, workspace: str) -> dict[str, list[str]]:
    return {
        table: [
            str(record["line"])
            for record in await desk.database.fetch(
                f"SELECT to_jsonb(t)::text AS line FROM {table} t WHERE workspace_id = $1 ORDER BY 1", workspace
            )
        ]
        for table in OWN
    }


async def shown(desk: Desk, workflows: list[str], runs: list[str]) -> dict[str, bytes]:
    """What every route shows."""
    paths = ["/api/workflows", "/api/runs", "/api/runs?lead_id=lead_1"]
    for workflow_id in workflows:
        paths += [f"/api/workflows/{workflow_id}{end}" for end in ("", "/versions", "/status", "/runs")]
    paths += [f"/api/runs/{run_id}" for run_id in runs]
    answers = {path: await desk.api.get(path) for path in paths}
    assert {answer.status_code for answer in answers.values()} == {200}
    return {path: answer.content for path, answer in answers.items()}


async def test_workspaces_with_the_same_ids_do_not_meet(desk: Desk, worker: Application, servers: TestServers) -> None:
    lead = await desk.know_lead()
    await desk.know_users("user_a", "user_b")
    await desk.know_users("user_gone", active=False)
    secret = {"X-Key": {"secret": "topsecret-1"}}
    wait = {"id": "w", "type": "wait_for_event", "event": "lead.updated", "timeout": "1h"}
    long = await desk.define(
        {"id": "owner", "type": "assign_owner", "users": ["user_a", "user_gone", "user_b"]},
        {"id": "call", "type": "http_request", "url": desk.url("a"), "headers": secret},
        {**wait, "condition": 'lead.stage == "qualified" && steps.owner.owner_id == "user_a"'},
        STOP,
        trigger={"type": "event", "event": "lead.updated"},
    )
    desk.neighbours.script("/hooks/b", Reply(400))
    failing = await desk.define({"id": "call", "type": "http_request", "url": desk.url("b")})
    pausing, archived = [await desk.define({"id": "w", "type": "wait", "duration": "1h"}) for _ in range(2)]
    workflows = [long, failing, pausing, archived]
    runs = [await desk.start(workflow_id) for workflow_id in workflows]
    for run_id in runs:
        await desk.until(run_id, "waiting", "failed")

    await desk.publish(crm_event("crm.lead.synced", "lead_1", 1))

    async def heard_of_the_crm() -> bool:
        return bool(await desk.database.fetchval("SELECT count(*) FROM crm_view"))

    await eventually(heard_of_the_crm)
    before = await shown(desk, workflows, runs)
    await make_twin(servers, desk.dsn)
    theirs = await rows(desk, "ws_0")
    assert all(theirs[table] for table in OWN)
    assert await shown(desk, workflows, runs) == before
    async with (
        desk.pool() as connection
    ):  # what no route shows: a worker's look at a definition, the lead, the CRMs, the limit of starts
        assert (await Catalogue().plan(connection, "ws_1", long, 1)).name == "workflow 0"
        seen = await repository.read_lead(connection, "ws_1", "lead_1")
        assert seen is not None
        assert seen.lead["stage"] == "new"
        crm = await repository.read_crm(connection, "ws_1", "lead_1")
        assert [outcome["external_id"] for outcome in crm] == ["42"]
        failed = await run_repository.read_run(connection, "ws_1", runs[1])
        assert await run_repository.present_step(connection, failed) == ("failed", "http_request")
        outputs = await run_repository.read_outputs(connection, "ws_1", runs[0], 0)
        assert set(outputs) == {"owner", "call"}
        held = store.Claimed(
            "ws_1", runs[0], long, 1, "lead_1", State.RUNNING, "call", 0, 0, {}, (), None, None, None, 0, utcnow()
        )
        assert set(await store.load_steps(connection, held)) == {"owner", "call", "w"}
        assert len(await store.load_attempts(connection, held)) == 1
        locked = await store.lock_lead(connection, held)
        assert locked is not None
        assert locked.lead["stage"] == "new"
        start = ("ws_1", long, "lead_1")
        assert await run_repository.count_recent_starts(connection, [start]) == {start: 1}

    document = (await desk.api.get(f"/api/workflows/{long}")).json()
    document["steps"][3]["reason"] = "another version"
    assert (await desk.api.put(f"/api/workflows/{long}", json=document)).status_code == 200
    await desk.steer(runs[1], "retry")
    await desk.steer(runs[2], "cancel")
    assert (await desk.api.delete(f"/api/workflows/{archived}?runs=cancel")).status_code == 204
    await desk.publish(
        lead_event("lead.updated", {**lead, "version": 9, "stage": "qualified"}, ["stage"], {"stage": "new"})
    )
    ends = [(await desk.until(run_id, "completed", "cancelled"))["state"] for run_id in runs]
    assert ends == ["completed", "completed", "cancelled", "cancelled"]

    async def second_run() -> Any:
        return [run for run in await desk.runs(long) if run["version"] == 2]

    [second] = await eventually(second_run)
    await desk.until(second["id"], "waiting")  # user_b has its turn, which the condition does not wait for
    assert [call.headers["x-key"] for call in desk.neighbours.received("/hooks/a")] == ["topsecret-1"] * 2
    assert desk.neighbours.leads["ws_1", "lead_1"]["owner_id"] == "user_b"
    assert await rows(desk, "ws_0") == theirs


async def test_a_name_is_taken_in_its_own_workspace_only(desk: Desk, identity: TestIdentity) -> None:
    body = {"name": "Hot leads", "trigger": {"type": "manual"}, "steps": [STOP]}
    made: dict[str, str] = {}
    for workspace in ("ws_2", "ws_1", "ws_0"):
        answer = await desk.api.post("/api/workflows", json=body, headers=identity.headers(workspace=workspace))
        assert answer.status_code == 201
        made[workspace] = answer.json()["id"]
    for workspace, workflow_id in made.items():
        taken = await desk.api.post("/api/workflows", json=body, headers=identity.headers(workspace=workspace))
        assert (taken.status_code, taken.json()["existing_id"]) == (409, workflow_id)
