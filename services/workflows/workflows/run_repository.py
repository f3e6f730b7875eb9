"""SQL about runs as their readers and starters see them; the worker's own is in workflows.execution."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg
import orjson

from chassis.database import PooledConnection
from chassis.queries import load_queries
from workflows.engine.run import State
from workflows.errors import RunNotFound
from workflows.models import Activity, Attempt, NewRun, Run, RunStep
from workflows.repository import as_json

queries = load_queries("workflows", "run_queries.sql")

Start = tuple[str, str, str]
"""Workspace, workflow, lead."""


@dataclass(frozen=True, slots=True)
class WaitingRun:
    """A run that waits for an event about its lead."""

    workspace_id: str
    id: str
    workflow_id: str
    version: int
    lead_id: str
    step_id: str
    iteration: int
    trigger: dict[str, Any]
    waiting_for: str


async def insert_runs(connection: PooledConnection, runs: Sequence[NewRun]) -> None:
    """Insert queued and suspended runs."""
    await connection.executemany(
        queries["insert_run"],
        [
            (
                run.workspace_id,
                run.id,
                run.workflow_id,
                run.version,
                run.lead_id,
                run.state,
                run.error,
                run.step_id,
                as_json(run.trigger),
                run.origin,
                list(run.chain),
                run.request_id,
                run.traceparent,
            )
            for run in runs
        ],
    )


async def count_recent_starts(connection: PooledConnection, starts: Sequence[Start]) -> dict[Start, int]:
    """How many runs each (workspace, workflow, lead) has begun within the last hour, suspended ones not counted."""
    workspaces, workflows, leads = ([start[index] for start in starts] for index in range(3))
    records = await connection.fetch(queries["count_recent_starts"], workspaces, workflows, leads)
    return {(r["workspace_id"], r["workflow_id"], r["lead_id"]): r["starts"] for r in records}


async def waiting_runs(connection: PooledConnection, wanted: Sequence[tuple[str, str, str]]) -> list[WaitingRun]:
    """Runs that wait for one of these (workspace, lead, event type)."""
    workspaces, leads, events = ([want[index] for want in wanted] for index in range(3))
    records = await connection.fetch(queries["waiting_runs"], workspaces, leads, events)
    return [WaitingRun(**{**record, "trigger": orjson.loads(record["trigger"])}) for record in records]


async def wake_run(connection: PooledConnection, run: WaitingRun, wake: Mapping[str, Any]) -> bool:
    """Queue a run whose event came; False if it no longer waits."""
    return await connection.fetchval(queries["wake_run"], run.workspace_id, run.id, as_json(wake)) is not None


async def look_again(connection: PooledConnection, run: WaitingRun) -> None:
    """Queue a waiting run as if its step had yet to begin: a worker looks at the lead and waits anew, or shows what is wrong."""
    await connection.execute(queries["look_again"], run.workspace_id, run.id)


async def read_outputs(connection: PooledConnection, workspace_id: str, run_id: str, iteration: int) -> dict[str, Any]:
    """Outputs of the finished steps of a pass, by step."""
    records = await connection.fetch(queries["read_outputs"], workspace_id, run_id, iteration)
    return {record["step_id"]: _loaded(record["output"]) for record in records}


async def read_run(connection: PooledConnection, workspace_id: str, run_id: str) -> Run:
    """The run; RunNotFound."""
    record = await connection.fetchrow(queries["read_run"], workspace_id, run_id)
    if record is None:
        raise RunNotFound("There is no such run.")
    return _run(record)


async def lock_run(connection: PooledConnection, workspace_id: str, run_id: str) -> Run:
    """The run, locked against its worker and other writers until the transaction ends."""
    await connection.execute(queries["lock_run"], workspace_id, run_id)
    return await read_run(connection, workspace_id, run_id)


async def list_runs(
    connection: PooledConnection,
    workspace_id: str,
    *,
    workflow_id: str | None,
    state: str | None,
    lead_id: str | None,
    before: tuple[datetime, str] | None,
    limit: int,
) -> list[Run]:
    """Newest first; `before` is the last row of the page before."""
    moment, run_id = before or (None, None)
    records = await connection.fetch(
        queries["list_runs"], workspace_id, workflow_id, state, lead_id, moment, run_id, limit
    )
    return [_run(record) for record in records]


async def read_steps(connection: PooledConnection, workspace_id: str, run_id: str) -> list[RunStep]:
    """Every step of every pass, in order."""
    return [
        RunStep(**{**record, "input": _loaded(record["input"]), "output": _loaded(record["output"])})
        for record in await connection.fetch(queries["read_steps"], workspace_id, run_id)
    ]


async def read_attempts(connection: PooledConnection, workspace_id: str, run_id: str) -> list[Attempt]:
    """Every outside call, in order within each step; workers' clocks have no say in it."""
    return [Attempt(**record) for record in await connection.fetch(queries["read_attempts"], workspace_id, run_id)]


async def present_step(connection: PooledConnection, run: Run) -> tuple[str | None, str | None]:
    """State and type of the step at which the run stopped, None if it never began."""
    record = await connection.fetchrow(
        queries["present_step"], run.workspace_id, run.id, run.iteration, run.step_id, run.generation
    )
    return (record["state"], record["type"]) if record is not None else (None, None)


async def read_activity(connection: PooledConnection, workspace_id: str, workflow_id: str) -> Activity:
    """How a workflow's runs stand and how many began and ended lately."""
    states = await connection.fetch(queries["count_by_state"], workspace_id, workflow_id)
    lately = await connection.fetchrow(queries["count_lately"], workspace_id, workflow_id)
    if lately is None:
        raise LookupError("an aggregate gives one row")
    counts = {record["state"]: record["runs"] for record in states}
    return Activity(by_state={state.value: counts.get(state.value, 0) for state in State}, **lately)


async def cancel_run(connection: PooledConnection, run: Run) -> None:
    """Ask for the run's end; its worker, or the next one to look at it, carries that out."""
    await connection.execute(queries["cancel_run"], run.workspace_id, run.id)


async def cancel_open_runs(connection: PooledConnection, workspace_id: str, workflow_id: str) -> int:
    """The same for every run of a workflow that has not ended; returns how many."""
    return len(await connection.fetch(queries["cancel_open_runs"], workspace_id, workflow_id))


async def requeue_run(
    connection: PooledConnection, run: Run, *, version: int, step_id: str, iteration: int, generation: int
) -> None:
    """Queue a run that had stopped, at this step."""
    await connection.execute(queries["requeue_run"], run.workspace_id, run.id, version, step_id, iteration, generation)


async def ring(connection: PooledConnection) -> None:
    """Wake the workers, once this transaction has committed."""
    await connection.execute(queries["ring"])


def _loaded(text: str | None) -> Any:
    return orjson.loads(text) if text is not None else None


def _run(record: asyncpg.Record) -> Run:
    return Run(**{**record, "state": State(record["state"]), "trigger": orjson.loads(record["trigger"])})
