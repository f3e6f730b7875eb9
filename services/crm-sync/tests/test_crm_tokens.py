"""OAuth tokens of connections: refreshed early, by one at a time, once more if refused, and never over newer credentials."""

import asyncio

from crm_sync.access import AccessKeeper
from crm_sync.models import ConnectionKey
from crm_sync.repository import read_connection
from simulators.testing import grant_of
from tests.support.fixtures import eventually

CONNECTIONS = "/api/crm/connections"
UPSERT = "contacts.batch_upsert"


def refreshes(crm):
    """How often the account's grant has been used."""
    listed = crm.simulators.control("GET", "hubspot/requests?operation=oauth.token")["requests"]
    return sum(f"refresh-sim-{crm.portal}" in call["body"] for call in listed)


async def test_an_oauth_connection_refreshes_its_token_and_keeps_it(crm):
    connection = await crm.connect(credentials=grant_of(crm.portal))
    await crm.lead("lead_1")
    await crm.in_step("lead_1", connection)
    await crm.lead("lead_2")
    await crm.in_step("lead_2", connection)
    assert refreshes(crm) == 1
    crm.simulators.control("POST", "hubspot/expire-tokens", {"portal_id": crm.portal})
    await crm.lead("lead_3")
    await crm.in_step("lead_3", connection)
    assert (await crm.shown(connection))["status"] == "active"


async def test_a_token_that_ends_soon_is_replaced_before_it_does(crm):
    connection = await crm.connect(credentials=grant_of(crm.portal))
    await crm.lead("lead_1")
    await crm.in_step("lead_1", connection)
    for left, used in ((70, 1), (50, 2)):
        ending = "UPDATE connections SET token_expires_at = now() + $2 * interval '1 second' WHERE id = $1"
        await crm.database.execute(ending, connection["id"], left)
        await crm.lead(f"lead_of_{left}")
        await crm.in_step(f"lead_of_{left}", connection)
        assert refreshes(crm) == used
    assert {call["status"] for call in crm.calls()} == {200}


async def test_a_token_refused_again_right_after_its_refresh_needs_a_person(crm):
    connection = await crm.connect(credentials=grant_of(crm.portal))
    await crm.lead("lead_0")
    await crm.in_step("lead_0", connection)
    crm.fault(UPSERT, {"do": "expire_token"}, times=None)
    await crm.lead("lead_1")
    standing = await crm.until("lead_1", connection, connection_status="needs_reauth", state="due")
    assert standing["attempts"] == 0
    assert (len(crm.calls(UPSERT)), refreshes(crm)) == (1 + 2, 2)


async def test_one_of_many_refreshes_the_token_and_the_others_take_it(crm):
    """Keepers of their own, as in processes of their own; the token endpoint is slow, so that all come while it is asked."""
    made = await crm.connect(mode="selected", credentials=grant_of(crm.portal))
    checks = crm.service.http.state["checks"]
    connector = checks.connectors["hubspot"]
    connection = await checks.database.read(lambda db: read_connection(db, ConnectionKey(crm.workspace, made["id"])))
    keepers = [AccessKeeper(checks.database, checks.keeper.vault, checks.caller) for _ in range(4)]

    crm.simulators.control("PUT", "hubspot/behaviour", {"latency_min_seconds": 0.3})
    try:
        found = await asyncio.gather(*(keeper.access(connection, connector) for keeper in keepers))
    finally:
        crm.simulators.control("PUT", "hubspot/behaviour", {})
    assert refreshes(crm) == 1
    assert all(access.credentials == found[0].credentials for access in found)
    newer = await checks.database.read(lambda db: read_connection(db, connection.key))
    assert checks.keeper.open(newer).credentials == found[0].credentials
    assert newer.token_seconds_left > 1700


async def test_a_refresh_does_not_undo_credentials_given_meanwhile(crm):
    made = await crm.connect(mode="selected", credentials=grant_of(crm.portal))
    path = f"{CONNECTIONS}/{made['id']}"
    before = crm.simulators.control("GET", "hubspot/requests?operation=oauth.token")["requests"]
    crm.simulators.control("PUT", "hubspot/behaviour", {"latency_min_seconds": 0.3})
    try:
        verifying = asyncio.ensure_future(crm.client.post(f"{path}/verify"))

        async def is_asked():
            listed = crm.simulators.control("GET", "hubspot/requests?operation=oauth.token")["requests"]
            return len(listed) > len(before)

        await eventually(is_asked)
        token = {"credentials": {"access_token": f"pat-sim-{crm.portal}"}}
        assert (await crm.client.patch(path, json=token)).status_code == 200
        await verifying
    finally:
        crm.simulators.control("PUT", "hubspot/behaviour", {})
    assert (await crm.client.get(path)).json()["credentials"]["kind"] == "access_token"
