"""Leads on their way to a webhook receiver, by Standard Webhooks."""

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook

from crm_sync.credentials import new_signing_secret
from tests.support.fixtures import eventually


async def connect(crm, *answers, **given):
    name = f"receiver-{crm.portal}"
    secret = new_signing_secret()
    crm.simulators.control("PUT", f"webhooks/{name}", {"secret": secret, "answers": list(answers)})
    return name, await crm.connect_webhook(name, secret, **given)


async def test_each_version_is_one_signed_message_and_repetitions_share_its_id(crm):
    name, connection = await connect(crm, {"status": 503, "times": 1})
    await crm.lead("lead_1", company="v1")
    await crm.in_step("lead_1", connection)
    await crm.lead("lead_1", 2, company="v2")
    standing = await crm.in_step("lead_1", connection, 2)
    assert standing["external_id"] is None
    first, second = crm.simulators.deliveries(name)
    assert (first["count"], second["count"]) == (2, 1)
    assert all(attempt["verified"] for delivery in (first, second) for attempt in delivery["attempts"])
    [event, _] = await crm.events("lead_1", connection)
    assert [attempt["outcome"] for attempt in event["data"]["attempts"]] == ["transient", "ok"]
    assert event["data"]["created"] is None


async def test_410_disables_the_connection_and_costs_no_attempt(crm):
    _, connection = await connect(crm, {"status": 410, "times": 1})
    await crm.lead("lead_1")
    standing = await crm.until("lead_1", connection, connection_status="disabled", state="due")
    assert standing["attempts"] == 0
    await crm.resume(connection)
    await crm.in_step("lead_1", connection)


@pytest.mark.parametrize("status", [429, 502, 504])
async def test_a_receiver_that_is_overloaded_gets_a_rest(crm, status):
    _, connection = await connect(crm, {"status": status, "times": 1, "headers": {"Retry-After": "1"}})
    await crm.lead("lead_1")
    await crm.resting(connection)
    assert (await crm.standing("lead_1", connection))["attempts"] == 0
    await crm.in_step("lead_1", connection)


async def test_a_receiver_that_refuses_a_lead_gets_it_again_later_and_in_the_end_it_is_dead(crm, monkeypatch):
    monkeypatch.setattr("crm_sync.connectors.webhook.WebhookConnector.retry_delays", (0.1, 0.1))
    name, connection = await connect(crm, {"status": 400, "times": 3})
    await crm.lead("lead_1")
    dead = await crm.until("lead_1", connection, state="dead", dead_class="permanent")
    assert dead["attempts"] == 3
    [delivery] = crm.simulators.deliveries(name)
    assert delivery["count"] == 3
    kinds = [event["data"].get("kind") for event in await crm.events("lead_1", connection)]
    assert kinds == ["retrying", "permanent"]


async def test_a_rotated_secret_is_shown_once_and_both_sign_meanwhile(crm):
    name, connection = await connect(crm)
    answer = await crm.client.post(f"/api/crm/connections/{connection['id']}/signing-secret")
    assert answer.headers["cache-control"] == "no-store"
    secret = answer.json()["secret"]
    until = datetime.fromisoformat(answer.json()["previous_valid_until"]) - datetime.now(UTC)
    assert timedelta(hours=23, minutes=59) < until <= timedelta(hours=24)
    assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32
    await crm.lead("lead_1")
    await crm.in_step("lead_1", connection)
    [delivery] = crm.simulators.deliveries(name)
    assert delivery["attempts"][0]["verified"]  # by the old secret
    assert Webhook(secret)
    shown = (await crm.client.get(f"/api/crm/connections/{connection['id']}")).text
    assert secret not in shown


async def test_a_deleted_lead_is_told_only_where_it_is_asked_for(crm):
    name, connection = await connect(crm, on_delete="archive")
    await crm.lead("lead_1")
    await crm.in_step("lead_1", connection)
    await crm.lead("lead_1", 2, kind="deleted")
    await crm.in_step("lead_1", connection, 2)
    assert len(crm.simulators.deliveries(name)) == 2
    assert (await crm.events("lead_1", connection))[-1]["data"]["operation"] == "archive"


@pytest.mark.parametrize("answer", [{"drop": True}, {"status": 500}, {"status": 503}])
async def test_a_lead_that_is_as_before_is_told_again_if_the_message_between_may_have_arrived(crm, answer):
    name, connection = await connect(crm, {"status": 200}, answer)
    await crm.lead("lead_1", company="first")
    await crm.in_step("lead_1", connection)
    await crm.lead("lead_1", 2, company="second")

    async def is_told():
        return len(crm.simulators.deliveries(name)) == 2

    await eventually(is_told)
    await crm.lead("lead_1", 3, company="first")
    await crm.in_step("lead_1", connection, 3)
    last = json.loads(crm.simulators.deliveries(name)[-1]["body"])
    assert (last["data"]["version"], last["data"]["properties"]["company"]) == (3, "first")


@pytest.mark.parametrize("url", ["https://" + "a" * 64 + ".com/", "https://a..b.com/"])
async def test_an_address_that_cannot_be_written_is_said_by_verify(crm, url):
    body = {"name": "hook", "vendor": "webhook", "mode": "selected", "settings": {"url": url}}
    created = await crm.client.post("/api/crm/connections", json=body)
    assert created.status_code == 201, created.text
    found = (await crm.client.post(f"/api/crm/connections/{created.json()['id']}/verify")).json()
    assert found["ok"] is False
    assert "Not called" in found["problems"][0]["detail"]


@pytest.mark.parametrize("status", [400, 503])
async def test_an_answer_with_characters_that_cannot_be_stored_is_stored_without_them(crm, monkeypatch, status):
    monkeypatch.setattr("crm_sync.connectors.webhook.WebhookConnector.retry_delays", (0.1, 0.1))
    body = {"message": "no\0body", "errorType": "a\0b", "requestId": "c\0d"}
    _, connection = await connect(crm, {"status": status, "body": body, "times": 1})
    await crm.lead("lead_1")
    await crm.in_step("lead_1", connection)
    first, *_ = await crm.events("lead_1", connection)
    assert first["data"]["attempts"][0]["error"] == "no\ufffdbody"
