"""A 2xx means committed, with its event; the one who asked sees one answer, whatever dies meanwhile."""

import asyncio
import signal

import pytest

from tests.guarantees.consumers import all_taken
from tests.guarantees.history import History, load
from tests.support.fixtures import eventually
from tests.support.system import Client, RunningSystem

EVERYWHERE = [
    "leads.after_commit",
    "outbox.after_publish",
    *(
        pytest.param(name, marks=pytest.mark.long)
        for name in ("leads.before_commit", "leads.before_response", "outbox.before_publish")
    ),
]


FORGIVEN_SECONDS = 2.1
"""nginx asks no replica that failed in the last second; it counts whole seconds."""


async def until_dead(system: RunningSystem, name: str, act: object) -> None:
    """Do `act` until the process has ended at its failpoint."""
    assert callable(act)
    for _ in range(60):
        await act()
        if system.processes[name].poll() is not None:
            break
        await asyncio.sleep(FORGIVEN_SECONDS / 60)
    assert await system.died(name) == -signal.SIGKILL


@pytest.mark.parametrize("failpoint", EVERYWHERE)
async def test_a_replica_killed_in_the_middle_of_a_post_costs_the_client_nothing(
    system: RunningSystem, client: Client, failpoint: str
) -> None:
    system.respawn("leads-1", FAILPOINT=f"{failpoint}:2")
    history = History()
    await until_dead(system, "leads-1", lambda: history.create(client))
    system.spawn("leads-1")
    system.wait_ready("leads-1")
    assert set(history.statuses) == {201}
    assert not history.unknown
    await history.check(system)
    # What the dead replica did not publish is another's after ten seconds.
    await eventually(lambda: all_taken(system, history.ok.values()), seconds=20)


@pytest.mark.parametrize(
    "method",
    ["PUT", pytest.param("PATCH", marks=pytest.mark.long), "DELETE", pytest.param("restore", marks=pytest.mark.long)],
)
@pytest.mark.parametrize(
    "failpoint", ["leads.after_commit", pytest.param("leads.before_commit", marks=pytest.mark.long)]
)
async def test_a_replica_killed_in_the_middle_of_a_change_has_one_effect(
    system: RunningSystem, client: Client, method: str, failpoint: str
) -> None:
    history = History()
    for _ in range(10):
        await history.create(client)
    leads = list(history.ok.values())
    if method == "restore":
        for lead_id in leads:
            await client.delete(f"/api/leads/{lead_id}")
    system.respawn("leads-1", FAILPOINT=failpoint)
    await asyncio.sleep(FORGIVEN_SECONDS)
    statuses = set()
    for (email, lead_id), number in zip(history.ok.items(), range(10), strict=True):
        path = f"/api/leads/{lead_id}"
        match method:
            case "PUT":
                answer = await client.put(path, {"email": email, "score": number + 1}, If_Match='"1"')
            case "PATCH":
                answer = await client.patch(path, {"score": number + 1}, If_Match='"1"')
            case "DELETE":
                answer = await client.delete(path)
            case _:
                answer = await client.post(f"{path}/restore")
        statuses.add(answer.status_code)
    assert await system.died("leads-1") == -signal.SIGKILL
    system.spawn("leads-1")
    system.wait_ready("leads-1")
    assert statuses == {204 if method == "DELETE" else 200}
    versions = await system.sql("leads", "SELECT version FROM leads WHERE id = ANY($1::text[])", leads)
    assert {row["version"] for row in versions} == {3 if method == "restore" else 2}
    events = await system.sql(
        "leads", "SELECT count(*) AS n FROM outbox WHERE subject = ANY($1::text[]) AND subject_version > 1", leads
    )
    assert events[0]["n"] == (20 if method == "restore" else 10)


@pytest.mark.parametrize("crash", [False, True], ids=["restart", "crash"])
async def test_postgresql_restarted_under_load_keeps_what_was_accepted(
    system: RunningSystem, client: Client, crash: bool
) -> None:
    history = History()
    async with load(client, history, per_second=40):
        await eventually(lambda: accepted(history, 20))
        await asyncio.to_thread(system.kill_server if crash else system.stop_server, "postgresql")
        await asyncio.sleep(0.5)
        await asyncio.to_thread(system.launch_server, "postgresql")
        before = len(history.ok)
        await eventually(lambda: accepted(history, before + 20), seconds=15)
    assert not history.refused
    await history.check(system)
    await eventually(lambda: all_taken(system, history.ok.values()), seconds=30)


async def accepted(history: History, number: int) -> bool:
    """True once so many writes were accepted."""
    return len(history.ok) >= number


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_a_replica_frozen_past_the_gateways_patience_and_thawed_stores_nothing_twice(
    system: RunningSystem, client: Client
) -> None:
    history = History()
    async with load(client, history, per_second=20):
        await asyncio.sleep(0.5)
        system.signal("leads-1", signal.SIGSTOP)
        await asyncio.sleep(20)
        system.signal("leads-1", signal.SIGCONT)
        await asyncio.sleep(2)
    assert set(history.statuses) <= {201, 503}
    await history.check(system)
