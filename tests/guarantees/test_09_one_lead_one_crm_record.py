"""Whatever changes between two tries, the CRM has one record of a lead."""

import signal
from typing import Any

import pytest

from chassis.ids import new_id
from tests.guarantees.conftest import QUICK_CRM, Account
from tests.support.fixtures import eventually
from tests.support.system import Client, RunningSystem

WORKER = "crm-sync-worker-1"


@pytest.mark.parametrize("first", ["email", "phone"])
async def test_a_crash_after_the_crms_accept_and_an_identity_changed_before_the_retry(
    system: RunningSystem, client: Client, account: Account, first: str
) -> None:
    email = f"{new_id('identity')}@example.com"
    body: dict[str, Any] = {"email": email} if first == "email" else {"phone": f"+1415555{account.portal:04d}"}
    system.respawn(WORKER, FAILPOINT="sync.after_call", **QUICK_CRM)
    lead = (await client.post("/api/leads", body)).json()
    assert await system.died(WORKER) == -signal.SIGKILL
    changed = await client.patch(f"/api/leads/{lead['id']}", {"email": f"new-{email}"})
    assert changed.status_code == 200
    system.spawn(WORKER)
    system.wait_ready(WORKER)
    await eventually(lambda: account.in_step(lead["id"], 2), seconds=40)
    [contact] = await account.contacts_of(lead["id"])
    assert contact["properties"]["email"] == f"new-{email}"
    emails = {each["properties"].get("email") for each in await account.simulators.contacts(account.portal)}
    assert email not in emails


async def test_a_changed_email_changes_the_same_record(client: Client, account: Account) -> None:
    email = f"{new_id('same')}@example.com"
    lead = (await client.post("/api/leads", {"email": email})).json()
    await eventually(lambda: account.in_step(lead["id"], 1), seconds=20)
    before = (await account.standing(lead["id"]))["external_id"]
    await client.patch(f"/api/leads/{lead['id']}", {"email": f"other-{email}"})
    await eventually(lambda: account.in_step(lead["id"], 2), seconds=20)
    assert (await account.standing(lead["id"]))["external_id"] == before
    assert len(await account.contacts_of(lead["id"])) == 1
