"""A version counts real changes; whoever keeps a copy keeps the newest, in whatever order it hears of them."""

import asyncio
from typing import Any

from chassis.events import Event, new_event
from chassis.ids import new_id
from tests.guarantees.conftest import Account
from tests.guarantees.consumers import all_taken, has_taken, publish, publisher, workspace_of
from tests.support.fixtures import eventually
from tests.support.system import Client, RunningSystem


async def test_a_version_that_comes_late_changes_no_copy_and_no_crm_but_starts_what_it_triggers(
    system: RunningSystem, client: Client, account: Account
) -> None:
    """The event of the lead's first version, once more and under another id, after everybody has the third."""
    source, email = new_id("late"), f"{new_id('late')}@example.com"
    lead = (await client.post("/api/leads", {"email": email, "first_name": "First", "source": source})).json()
    for name in ("Second", "Third"):
        changed = await client.patch(f"/api/leads/{lead['id']}", {"first_name": name})
        assert changed.status_code == 200
    await eventually(lambda: account.in_step(lead["id"], 3), seconds=20)
    await eventually(lambda: all_taken(system, [lead["id"]]))
    defined = await client.post(
        "/api/workflows",
        {
            "name": source,
            "trigger": {"type": "event", "event": "lead.created", "condition": f'lead.source == "{source}"'},
            "steps": [{"id": "end", "type": "stop"}],
        },
    )
    assert defined.status_code == 201, defined.text
    late = new_event(
        "lead.created",
        source="/services/leads",
        workspace_id=await workspace_of(system),
        subject=lead["id"],
        subject_version=1,
        data={"lead": lead, "changed": [], "previous": {}, "actor": "system"},
    )
    async with publisher(system) as exchange:
        await publish(exchange, late)
    await eventually(lambda: has_taken(system, late))

    for owner, table in (("workflows", "lead_view"), ("crm-sync", "lead_copies")):
        [row] = await system.sql(
            owner, f"SELECT version, lead::jsonb ->> 'first_name' AS name FROM {table} WHERE lead_id = $1", lead["id"]
        )
        assert (row["version"], row["name"]) == (3, "Third")
    assert await account.in_step(lead["id"], 3)  # and nothing else is wanted there
    [contact] = await account.contacts_of(lead["id"])
    assert contact["properties"]["firstname"] == "Third"
    runs = (await client.get(f"/api/workflows/{defined.json()['id']}/runs")).json()["items"]
    assert len(runs) == 1


async def test_a_users_newer_standing_stays_whatever_comes_after_it(system: RunningSystem) -> None:
    user, workspace = new_id("user"), await workspace_of(system)

    def standing(version: int, *, active: bool) -> Event:
        return new_event(
            "user.updated",
            source="/services/auth",
            workspace_id=workspace,
            subject=user,
            subject_version=version,
            data={"user_id": user, "name": f"Version {version}", "active": active},
        )

    newer, older = standing(7, active=False), standing(6, active=True)
    async with publisher(system) as exchange:
        for event in (newer, older):
            await publish(exchange, event)
            await eventually(lambda event=event: has_taken(system, event))  # type: ignore[misc]
    for owner in ("leads", "workflows"):
        [row] = await system.sql(owner, "SELECT version, name, active FROM users WHERE id = $1", user)
        assert tuple(row) == (7, "Version 7", False)


async def test_a_version_grows_by_one_per_real_change_and_a_change_to_an_older_one_is_refused(
    system: RunningSystem, client: Client
) -> None:
    created = await client.post("/api/leads", {"email": f"{new_id('version')}@example.com", "score": 1})
    path, tag = f"/api/leads/{created.json()['id']}", created.headers["etag"]

    nothing = await client.patch(path, {"score": 1}, If_Match=tag)
    assert (nothing.status_code, nothing.json(), nothing.headers["etag"]) == (200, created.json(), tag)

    answers = await asyncio.gather(*(client.patch(path, {"score": 2 + number}, If_Match=tag) for number in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412, 412]
    [changed] = [answer for answer in answers if answer.status_code == 200]
    assert changed.json()["version"] == 2

    shown: dict[str, Any] = (await client.get(path)).json()
    assert (shown["version"], shown["score"]) == (2, changed.json()["score"])
    events = await system.sql(
        "leads", "SELECT subject_version FROM outbox WHERE subject = $1 ORDER BY 1", created.json()["id"]
    )
    assert [row["subject_version"] for row in events] == [1, 2]
