"""What operators are shown of the sync: how long leads take, what is not in step, which connections rest."""

import pytest
from prometheus_client import REGISTRY

from chassis.clock import rfc3339, utcnow
from tests.support.fixtures import eventually

from .crm_service import running, worker_app


def value(name, **labels):
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.fixture
async def scrape(shared):
    """`await scrape()`: what Prometheus gets of one more worker."""
    async with running(worker_app(shared.settings)) as worker, worker.client({}) as client:

        async def ask():
            answer = await client.get("/metrics")
            assert answer.status_code == 200
            return answer.text

        yield ask


async def test_a_new_leads_way_is_measured_once_and_one_from_before_the_connection_is_not(crm):
    await crm.lead("lead_old", created_at="2020-01-01T00:00:00.000Z")
    connection = await crm.connect()
    before = value("crm_lead_to_record_seconds_count", vendor="hubspot")
    await crm.in_step("lead_old", connection)
    now = rfc3339(utcnow())
    await crm.lead("lead_new", created_at=now)
    await crm.in_step("lead_new", connection)
    await crm.lead("lead_new", 2, company="Engines", created_at=now)
    await crm.in_step("lead_new", connection, 2)
    assert value("crm_lead_to_record_seconds_count", vendor="hubspot") == before + 1


async def test_what_is_not_in_step_and_who_rests_is_shown_and_forgotten_again(crm, scrape):
    connection = await crm.connect()
    await crm.lead("lead_1")
    await crm.in_step("lead_1", connection)
    dead = f'crm_leads_unsettled{{connection="{connection["id"]}",state="dead"}}'
    due = f'crm_leads_unsettled{{connection="{connection["id"]}",state="due"}}'
    resting = f'crm_connection_resting{{connection="{connection["id"]}",vendor="hubspot"}}'
    assert dead not in await scrape()
    assert f"{resting} 0.0" in await scrape()
    await crm.pause(connection)
    await crm.lead("lead_2")
    await crm.taken_in("lead_2")
    shown = await scrape()
    assert f"{due} 1.0" in shown
    assert f"{resting} 1.0" in shown
    crm.fault("contacts.*", {"do": "status", "status": 400}, times=None)
    await crm.resume(connection)

    async def is_dead():
        return f"{dead} 1.0" in await scrape()

    await eventually(is_dead, seconds=20)
    assert due not in await scrape()
