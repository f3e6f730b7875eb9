"""A CRM that hangs, or answers only errors, slows nobody else down and costs no lead an attempt."""

import asyncio
import time
from typing import Any

import pytest

from tests.guarantees.conftest import Account
from tests.guarantees.history import History
from tests.support.fixtures import eventually
from tests.support.system import Client


@pytest.mark.parametrize(
    "effect",
    [
        {"do": "hang", "work_first": False, "seconds": 30},
        {"do": "status", "status": 503},
        {"do": "rate_limit", "policy": "TEN_SECONDLY_ROLLING"},
    ],
    ids=["hangs", "fails", "limits"],
)
async def test_a_crm_in_trouble_parks_its_connection_and_everything_else_goes_on(
    client: Client, account: Account, effect: dict[str, Any]
) -> None:
    await account.simulators.fault(account.portal, "contacts.*", effect, times=None)
    history, slowest = History(), 0.0
    for _ in range(20):
        started = time.monotonic()
        await history.create(client, score=10)
        slowest = max(slowest, time.monotonic() - started)
        await asyncio.sleep(0.05)
    assert set(history.statuses) == {201}
    assert slowest < 2
    await eventually(lambda: is_parked(client, account), seconds=20)
    leads = list(history.ok.values())
    assert {(await account.standing(lead))["attempts"] for lead in leads} <= {0, 1}
    await account.simulators.clear()
    for lead in leads:
        await eventually(lambda lead=lead: account.in_step(lead, 1), seconds=60)  # type: ignore[misc]
    dead = await client.get(f"/api/crm/dead-letters?connection_id={account.connection_id}")
    assert dead.json()["items"] == []


async def is_parked(client: Client, account: Account) -> bool:
    """True while the connection rests for a time, with a reason."""
    connection = (await client.get(f"/api/crm/connections/{account.connection_id}")).json()
    return bool(connection["paused_until"] and connection["trouble"]["reason"])
