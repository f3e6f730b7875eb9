"""How long a connection rests, and how it is used afterwards."""

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from redis.asyncio import Redis

from chassis.clock import utcnow
from chassis.ids import new_id
from crm_sync.calling import BudgetSpent, VendorCaller
from crm_sync.connectors.hubspot import HubSpotConnector
from crm_sync.connectors.protocol import Access, Trouble, TroubleKind, VendorError
from crm_sync.credentials import StaticToken
from crm_sync.sync import troubles
from crm_sync.sync.repository import LeadCopy, take_leads
from crm_sync.sync.troubles import rest
from tests.support.fixtures import eventually

UPSERT = "contacts.batch_upsert"
SETTINGS: Any = SimpleNamespace(pause_base_seconds=1.0, pause_cap_seconds=300.0)


@pytest.fixture(params=[min, max], ids=["shortest", "longest"])
def seconds(request, monkeypatch):
    """A function that says how a rest is noted and how long it is, the jitter (a quarter) taken out."""
    monkeypatch.setattr("random.uniform", lambda *bounds: request.param(bounds))

    def found(kind, count=0, retry_after=None):
        connection: Any = SimpleNamespace(trouble_count=count, time_zone="UTC")
        name, length = rest(SETTINGS, connection, Trouble(kind, VendorError("no"), retry_after))
        return name, length / request.param(1.0, 1.25)

    return found


@pytest.mark.parametrize("kind", [TroubleKind.TRANSIENT, TroubleKind.UNANSWERED, TroubleKind.UNPREPARED])
def test_a_rest_doubles_up_to_the_cap(kind, seconds):
    lengths = [seconds(kind, count) for count in (0, 1, 2, 3, 8, 9, 500)]
    assert lengths == [("transient", length) for length in (1, 2, 4, 8, 256, 300, 300)]


def test_a_rest_is_never_shorter_than_the_vendor_asked_for(seconds):
    assert seconds(TroubleKind.TRANSIENT, retry_after=7.0) == ("transient", 7)
    assert seconds(TroubleKind.TRANSIENT, 5, retry_after=7.0) == ("transient", 32)
    assert seconds(TroubleKind.TRANSIENT, retry_after=900.0) == ("transient", 900)


def test_a_rest_for_a_limit_grows_with_the_times_in_a_row_up_to_the_cap(seconds):
    lengths = [seconds(TroubleKind.RATE_LIMITED, count, 10.0) for count in (0, 1, 2, 29, 30, 500)]
    assert lengths == [("rate_limited", length) for length in (10, 20, 30, 300, 300, 300)]
    assert seconds(TroubleKind.RATE_LIMITED, 3, 900.0) == ("rate_limited", 900)


def test_a_rest_for_the_daily_limit_ends_a_little_after_midnight(monkeypatch):
    monkeypatch.setattr(troubles, "utcnow", lambda: datetime(2026, 11, 25, 23, 0, tzinfo=UTC))
    connection: Any = SimpleNamespace(trouble_count=3, time_zone="Asia/Tokyo")
    for _ in range(20):
        name, length = rest(SETTINGS, connection, Trouble(TroubleKind.DAILY_LIMIT, VendorError("no")))
        assert name == "rate_limited"
        assert timedelta(hours=16) < timedelta(seconds=length) <= timedelta(hours=16, minutes=5)


async def test_after_trouble_one_lead_is_risked_and_then_all_others(own_crm, start_worker):
    connection = await own_crm.connect()
    (await own_crm.client.post(f"/api/crm/connections/{connection['id']}/verify")).raise_for_status()
    await own_crm.database.execute(
        "UPDATE connections SET trouble_kind = 'transient', trouble_reason = 'away', trouble_count = 3, paused_until = now()"
    )
    for number in range(5):
        lead = json.dumps({"id": f"lead_{number}", "email": f"{number}@example.com"})
        copy = LeadCopy(own_crm.workspace, f"lead_{number}", 1, False, lead, "", None, None)
        await take_leads(own_crm.database, [copy])
    await start_worker()

    async def all_there():
        return await own_crm.count("idle") == 5

    await eventually(all_there)
    assert [len(json.loads(call["body"])["inputs"]) for call in own_crm.calls(UPSERT)] == [1, 4]
    assert (await own_crm.shown(connection))["trouble"] is None


async def test_a_days_limit_holds_for_all_processes_together(redis_url):
    """Callers of their own, as in processes of their own. A new day's bucket starts with a five hundredth."""
    settings = {"requests_per_10_seconds": 1_000_000, "requests_per_day": 2_500}
    connector = HubSpotConnector("https://api.hubapi.com", "2026-03")
    access = Access("ws_1", new_id("conn"), settings, StaticToken("pat"))
    outbound: Any = None
    async with Redis.from_url(redis_url) as redis:
        callers = [VendorCaller(outbound, redis, timeout_seconds=1) for _ in range(2)]
        for number in range(5):
            await callers[number % 2].grant(access, connector)
        for caller in callers:
            with pytest.raises(BudgetSpent):
                await caller.grant(access, connector)


@pytest.mark.parametrize("hours", [-1, 1])
async def test_rests_and_leases_do_not_go_by_a_processes_own_clock(own_crm, start_worker, monkeypatch, hours):
    for module in ("batch", "troubles"):
        monkeypatch.setattr(f"crm_sync.sync.{module}.utcnow", lambda: utcnow() + timedelta(hours=hours))
    connection = await own_crm.connect()
    own_crm.fault(UPSERT, {"do": "status", "status": 503, "headers": {"Retry-After": "1"}}, times=1)
    await start_worker()
    await own_crm.lead("lead_1")
    await own_crm.resting(connection)
    left = await own_crm.database.fetchval("SELECT extract(epoch FROM paused_until - now()) FROM connections")
    assert left is None or left < 60  # None: over already
    await own_crm.in_step("lead_1", connection)
    first, second = own_crm.calls(UPSERT)
    assert second["at"] - first["at"] >= 1
