"""The worker's SQL about runs it claims and holds. Every write to a held run names the lease's token."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from chassis.database import PooledConnection
from chassis.queries import load_queries
from workflows import metrics
from workflows.engine.run import AttemptState, State, StepState
from workflows.models import LeadSnapshot
from workflows.repository import as_json, snapshot

queries = load_queries("workflows.execution")


@dataclass(frozen=True, slots=True)
class Claimed:
    """A run as it was when a worker took it. `state` is `running` or `cancelling`."""

    workspace_id: str
    id: str
    workflow_id: str
    version: int
    lead_id: str
    state: State
    step_id: str
    iteration: int
    generation: int
    trigger: dict[str, Any]
    chain: tuple[str, ...]
    request_id: str | None
    traceparent: str | None
    wake: dict[str, Any] | None
    lost_leases: int
    started_at: datetime


@dataclass(slots=True)
class StepRow:
    """A step of the run's present pass, as it is to be written."""

    step_id: str
    type: str
    generation: int
    place: int
    state: StepState
    started_at: datetime
    input: Any = None
    output: Any = None
    error: str | None = None
    attempts: int = 0
    due_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(slots=True)
class AttemptRow:
    """One outside call of the present step, as it is to be written."""

    step_id: str
    generation: int
    attempt: int
    purpose: str
    state: AttemptState
    started_at: datetime
    status: int | None = None
    error: str | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Departure:
    """How a run is put down: its state, where it stands, and when somebody must look again (a time, or seconds from now)."""

    state: State
    step_id: str
    error: str | None = None
    waiting_for: str | None = None
    due_at: datetime | None = None
    due_seconds: float | None = None


async def claim_runs(connection: PooledConnection, limit: int, token: str, lease_seconds: float) -> list[Claimed]:
    """Take runs that are due, or whose lease is over, under a new token."""
    records = await connection.fetch(queries["claim_runs"], limit, token, lease_seconds)
    return [
        Claimed(
            **{
                **record,
                "state": State(record["state"]),
                "trigger": orjson.loads(record["trigger"]),
                "chain": tuple(record["chain"]),
                "wake": _loaded(record["wake"]),
            }
        )
        for record in records
    ]


async def renew_lease(connection: PooledConnection, run: Claimed, token: str, lease_seconds: float) -> bool:
    """Push the lease's end; False if the run is no longer held under `token`."""
    return await connection.fetchval(queries["renew_lease"], run.workspace_id, run.id, token, lease_seconds) is not None


async def lock_claimed(connection: PooledConnection, run: Claimed, token: str) -> tuple[State, int] | None:
    """The held run's state and how many events it has announced, locked; None if it is held under another token."""
    record = await connection.fetchrow(queries["lock_claimed"], run.workspace_id, run.id, token)
    return (State(record["state"]), record["events"]) if record is not None else None


async def keep_claimed(
    connection: PooledConnection, run: Claimed, token: str, step_id: str, lease_seconds: float
) -> None:
    """Note where the run stands, and renew its lease. Leases lost at this very step stay counted: an intent is no progress."""
    await connection.execute(queries["keep_claimed"], run.workspace_id, run.id, token, step_id, lease_seconds)


async def leave_claimed(
    connection: PooledConnection, run: Claimed, token: str, departure: Departure
) -> datetime | None:
    """Put the run down; returns when it is due."""
    due: datetime | None = await connection.fetchval(
        queries["leave_claimed"],
        run.workspace_id,
        run.id,
        token,
        departure.state,
        departure.step_id,
        departure.error,
        departure.waiting_for,
        departure.due_at,
        departure.due_seconds,
    )
    return due


async def count_event(connection: PooledConnection, run: Claimed) -> int:
    """The number of the run's next event."""
    return int(await connection.fetchval(queries["count_event"], run.workspace_id, run.id))


async def announce_steps(connection: PooledConnection, run: Claimed) -> list[dict[str, Any]]:
    """The steps that finished since the run's last event, in order, marked as told."""
    records = await connection.fetch(queries["announce_steps"], run.workspace_id, run.id)
    return sorted(map(dict, records), key=lambda row: (row["iteration"], row["place"]))


async def save_steps(connection: PooledConnection, run: Claimed, rows: Sequence[StepRow]) -> None:
    """Insert or replace the rows of steps."""
    await connection.executemany(
        queries["save_step"],
        [
            (
                run.workspace_id,
                run.id,
                run.iteration,
                row.step_id,
                row.generation,
                row.type,
                row.state,
                _dumped(row.input),
                _dumped(row.output),
                row.error,
                row.attempts,
                row.place,
                row.due_at,
                row.started_at,
                row.finished_at,
            )
            for row in rows
        ],
    )


async def save_attempts(connection: PooledConnection, run: Claimed, rows: Sequence[AttemptRow]) -> None:
    """Insert attempts, or their results."""
    await connection.executemany(
        queries["save_attempt"],
        [
            (
                run.workspace_id,
                run.id,
                run.iteration,
                row.step_id,
                row.generation,
                row.attempt,
                row.purpose,
                row.state,
                row.status,
                row.error,
                row.started_at,
                row.finished_at,
            )
            for row in rows
        ],
    )


async def set_step_due(connection: PooledConnection, run: Claimed, step_id: str, due_at: datetime | None) -> None:
    """Note until when a waiting step waits."""
    await connection.execute(queries["set_step_due"], run.workspace_id, run.id, run.iteration, step_id, due_at)


async def load_steps(connection: PooledConnection, run: Claimed) -> dict[str, StepRow]:
    """The steps of the present pass so far, by id."""
    records = await connection.fetch(queries["load_steps"], run.workspace_id, run.id, run.iteration)
    return {
        record["step_id"]: StepRow(
            **{
                **record,
                "state": StepState(record["state"]),
                "input": _loaded(record["input"]),
                "output": _loaded(record["output"]),
            }
        )
        for record in records
    }


async def load_attempts(connection: PooledConnection, run: Claimed) -> list[AttemptRow]:
    """The outside calls of the present step in its present generation, in order."""
    records = await connection.fetch(
        queries["load_attempts"], run.workspace_id, run.id, run.iteration, run.step_id, run.generation
    )
    return [
        AttemptRow(step_id=run.step_id, generation=run.generation, **{**record, "state": AttemptState(record["state"])})
        for record in records
    ]


async def lock_lead(connection: PooledConnection, run: Claimed) -> LeadSnapshot | None:
    """The run's lead in the view, locked against the consumer of its events."""
    record = await connection.fetchrow(queries["lock_lead"], run.workspace_id, run.lead_id)
    return snapshot(record) if record is not None else None


async def next_owner(connection: PooledConnection, run: Claimed, step_id: str, user_ids: Sequence[str]) -> str | None:
    """The next active user after the last one, None if nobody is active. Concurrent runs take turns by the row's lock."""
    place = run.workspace_id, run.workflow_id, step_id
    last = await connection.fetchval(queries["take_turn"], *place)
    records = await connection.fetch(queries["active_users"], run.workspace_id, user_ids)
    active = {record["id"] for record in records}
    begin = user_ids.index(last) + 1 if last in user_ids else 0
    chosen = next((user for user in (*user_ids[begin:], *user_ids[:begin]) if user in active), None)
    if chosen is not None:
        await connection.execute(queries["end_turn"], *place, chosen)
    return chosen


async def release_timers(
    connection: PooledConnection, *, batch: int, per_workspace: int, late_seconds: float, spread_seconds: float
) -> int:
    """Queue waiting runs whose time has come; those that are late are spread over up to `spread_seconds`. Returns how many."""
    records = await connection.fetch(queries["release_timers"], batch, per_workspace, late_seconds, spread_seconds)
    return len(records)


async def work_ahead(connection: PooledConnection) -> dict[str, float]:
    """How many runs are due and not taken, and for how long the oldest of them."""
    record = await connection.fetchrow(queries["work_ahead"])
    return {"runs_due": record["due"], "oldest_due_seconds": round(record["oldest_seconds"], 3)} if record else {}


async def observe(connection: PooledConnection) -> None:
    """Set the gauges of runs and timers."""
    ahead = await work_ahead(connection)
    metrics.RUNS_DUE.set(ahead.get("runs_due", 0))
    metrics.OLDEST_DUE.set(max(0.0, ahead.get("oldest_due_seconds", 0.0)))
    metrics.RUNS.clear()
    for row in await connection.fetch(queries["runs_now"]):
        metrics.RUNS.labels(row["state"]).set(row["runs"])
        if row["state"] == "waiting":
            metrics.TIMERS_LATE.set(row["late"])
            metrics.TIMERS_LATE_SECONDS.set(row["late_seconds"])


def _dumped(value: Any) -> str | None:
    return as_json(value) if value is not None else None


def _loaded(text: str | None) -> Any:
    return orjson.loads(text) if text is not None else None
