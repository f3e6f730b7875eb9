"""The states of a run are drawn once; the database refuses every other step between them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import product

import asyncpg
import pytest

from workflows.engine.guards import MAX_HOPS, MAX_STARTS_PER_HOUR, extend, refusal
from workflows.engine.run import CANCELLABLE, ENDED, FIRST, RETRYABLE, TRANSITIONS, State

STATES = list(State)
RUN = """INSERT INTO runs (workspace_id, id, workflow_id, version, lead_id, state, step_id, trigger, origin, chain, due_at, error,
                           lease_token, finished_at)
         VALUES ('ws_1', $1, 'wf_1', 1, 'lead_1', $2, 'a', '{}', 'system', '{}', now(), 'why', $3, $4::timestamptz)"""


def test_every_state_is_drawn() -> None:
    assert set(TRANSITIONS) == set(STATES)
    assert {state for state, following in TRANSITIONS.items() if not following} == {State.COMPLETED}


def test_what_can_be_retried_or_cancelled_follows_from_the_drawing() -> None:
    for state in STATES:
        assert (state in RETRYABLE) == (
            State.QUEUED in TRANSITIONS[state] and state not in (State.RUNNING, State.WAITING)
        )
        assert (state in CANCELLABLE) == (State.CANCELLING in TRANSITIONS[state])
    assert State.COMPLETED in ENDED
    assert not ENDED & CANCELLABLE


@pytest.fixture
async def database(new_database: Callable[[str], Awaitable[str]]) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(await new_database("workflows"))
    await connection.execute("INSERT INTO workflows (workspace_id, id, name, version) VALUES ('ws_1', 'wf_1', 'w', 1)")
    await connection.execute(
        "INSERT INTO workflow_versions (workspace_id, workflow_id, version, definition, created_by) "
        "VALUES ('ws_1', 'wf_1', 1, '{}', 'system')"
    )
    yield connection
    await connection.close()


async def force(database: asyncpg.Connection, run_id: str, state: State) -> None:
    """Put a run into `state` whatever the drawing says, by the shortest way through it."""
    ways = {first: [first] for first in FIRST}
    while state not in ways:
        ways = {**{after: [*way, after] for at, way in ways.items() for after in TRANSITIONS[at]}, **ways}
    way = ways[state]
    await database.execute(RUN, run_id, way[0], None, None)
    for after in way[1:]:
        await move(database, run_id, after)


async def move(database: asyncpg.Connection, run_id: str, state: State) -> None:
    token = "t" if state is State.RUNNING else None
    await database.execute(
        "UPDATE runs SET state = $2, lease_token = $3, finished_at = CASE WHEN $4 THEN now() END WHERE id = $1",
        run_id,
        state,
        token,
        state in ENDED,
    )


async def test_a_run_begins_queued_or_suspended_only(database: asyncpg.Connection) -> None:
    for state in STATES:
        token = "t" if state is State.RUNNING else None
        finished = "now" if state in ENDED else None
        try:
            await database.execute(
                RUN.replace("$4::timestamptz", f"'{finished}'" if finished else "NULL"), f"run_{state}", state, token
            )
            began = True
        except asyncpg.CheckViolationError:
            began = False
        assert began == (state in FIRST), state


async def test_the_database_allows_exactly_the_drawn_transitions(database: asyncpg.Connection) -> None:
    for number, (before, after) in enumerate(product(STATES, STATES)):
        if before is after:
            continue
        run_id = f"run_{number}"
        await force(database, run_id, before)
        try:
            await move(database, run_id, after)
            moved = True
        except asyncpg.CheckViolationError:
            moved = False
        assert moved == (after in TRANSITIONS[before]), (before, after)


@pytest.mark.parametrize(
    ("chain", "reentry", "starts", "reason"),
    [
        ((), False, 0, None),
        (("wf_2",), False, 0, None),
        (("wf_1",), False, 0, "loop"),
        (("wf_2", "wf_1", "conn_1"), False, 0, "loop"),
        (("wf_1",), True, 0, None),
        (tuple(f"wf_{n}" for n in range(2, 2 + MAX_HOPS)), True, 0, "loop"),
        (("wf_1",) * MAX_HOPS, True, 0, "loop"),
        ((), False, MAX_STARTS_PER_HOUR - 1, None),
        ((), True, MAX_STARTS_PER_HOUR, "rate"),
    ],
)
def test_the_guards_refuse_what_feeds_itself(
    chain: tuple[str, ...], reentry: bool, starts: int, reason: str | None
) -> None:
    found = refusal("wf_1", chain, allow_reentry=reentry, starts_last_hour=starts)
    assert (found or "").partition(":")[0] == (reason or "")


def test_a_chain_keeps_its_newest_links() -> None:
    assert extend(("a", "b"), "wf") == ("a", "b", "wf")
    assert extend(tuple("abcdefgh"), "wf") == (*"bcdefgh", "wf")
