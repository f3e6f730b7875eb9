"""The receiver verifies signatures, records every delivery, and answers as planned."""

import json
import secrets
import time
from base64 import b64encode
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest
from standardwebhooks import Webhook

from simulators.testing import RunningSimulators

SECRET = "whsec_" + b64encode(b"a secret of thirty-two bytes len").decode()


def deliver(
    simulators: RunningSimulators, name: str, body: object, *, webhook_id: str = "msg_1", secret: str = SECRET
) -> httpx2.Response:
    content = json.dumps(body)
    now = datetime.now(UTC)
    headers = {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(webhook_id, now, content),
        "content-type": "application/json",
    }
    return simulators.request("POST", f"/webhooks/{name}", content=content, headers=headers)


@pytest.fixture
def name() -> str:
    return f"receiver-{secrets.token_hex(4)}"


def test_a_signed_delivery_is_verified_and_recorded(simulators: RunningSimulators, name: str):
    simulators.control("PUT", f"webhooks/{name}", {"secret": SECRET})
    assert deliver(simulators, name, {"type": "lead.created"}).json() == {"received": True}
    deliver(simulators, name, {"type": "lead.created"})
    deliver(simulators, name, {"type": "lead.updated"}, webhook_id="msg_2")
    first, second = simulators.deliveries(name)
    assert (first["webhook_id"], first["count"], json.loads(first["body"])) == ("msg_1", 2, {"type": "lead.created"})
    assert [attempt["verified"] for attempt in first["attempts"]] == [True, True]
    assert (second["webhook_id"], second["count"]) == ("msg_2", 1)


def test_a_wrong_or_missing_signature_is_refused(simulators: RunningSimulators, name: str):
    simulators.control("PUT", f"webhooks/{name}", {"secret": SECRET})
    other = "whsec_" + b64encode(secrets.token_bytes(32)).decode()
    assert deliver(simulators, name, {}, secret=other).status_code == 401
    assert simulators.request("POST", f"/webhooks/{name}", content=b"{}").status_code == 401
    nonsense = {"webhook-id": "m", "webhook-timestamp": str(int(time.time())), "webhook-signature": "v1,@@ nonsense"}
    assert simulators.request("POST", f"/webhooks/{name}", content=b"\xff", headers=nonsense).status_code == 401
    verified = [attempt["verified"] for delivery in simulators.deliveries(name) for attempt in delivery["attempts"]]
    assert verified == [False, False, False]


def test_answers_follow_the_plan(simulators: RunningSimulators, name: str):
    answers = [
        {"status": 503, "times": 2, "headers": {"Retry-After": "1"}},
        {"drop": True},
        {"status": 202, "body": {"ticket": 7}, "delay_seconds": 0.2},
    ]
    simulators.control("PUT", f"webhooks/{name}", {"secret": SECRET, "answers": answers})
    first, second = deliver(simulators, name, {}), deliver(simulators, name, {})
    assert (first.status_code, first.headers["retry-after"], second.status_code) == (503, "1", 503)
    with pytest.raises((httpx2.ReadError, httpx2.RemoteProtocolError)):
        deliver(simulators, name, {})
    started = time.monotonic()
    assert deliver(simulators, name, {}).json() == {"ticket": 7}
    assert time.monotonic() - started >= 0.2
    assert deliver(simulators, name, {}).status_code == 200
    (delivery,) = simulators.deliveries(name)
    outcomes = [(attempt["status"], attempt["outcome"]) for attempt in delivery["attempts"]]
    assert outcomes == [(503, "answered"), (503, "answered"), (200, "dropped"), (202, "answered"), (200, "answered")]


def test_a_receiver_without_a_secret_uses_the_processs_own(tmp_path: Path):
    with RunningSimulators(tmp_path, webhook_secret=SECRET) as simulators:
        assert deliver(simulators, "any", {}).status_code == 200
        assert simulators.request("POST", "/webhooks/any", content=b"{}").status_code == 401
        simulators.kill()
        simulators.start()
        assert [delivery["count"] for delivery in simulators.deliveries("any")] == [1, 1]
        simulators.control("DELETE", "webhooks")
        assert simulators.deliveries("any") == []
