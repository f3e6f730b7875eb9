"""One document says how every process and everything it depends on is doing, and gives nothing else away."""

import asyncio
import json
import socket
import time

import httpx2
import pytest

from auth.health import SystemHealth, public_part, resolve

GOOD = {"status": "ok", "dependencies": {"postgresql": {"status": "ok", "latency_ms": 0.8, "outbox_waiting": 3}}}


async def nobody_at(_host):
    return []


def health_of(answers, targets=None, addresses_of=nobody_at):
    """SystemHealth over processes that answer as `answers` says, by host."""
    asked = []

    async def answer(request):
        asked.append(str(request.url))
        found = answers[request.url.host]
        if isinstance(found, Exception):
            raise found
        if callable(found):
            return await found()
        return httpx2.Response(200, json=found)

    client = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    named = {name: f"http://{name}/" for name in answers} if targets is None else targets
    return SystemHealth(lambda: named, client, addresses_of), asked


async def test_all_well_is_ok_and_shows_latencies_and_queue_depths():
    busy = {
        "status": "ok",
        "dependencies": {"rabbitmq": {"status": "ok", "latency_ms": 2.1, "queues": {"leads.users": 7}}},
    }
    health, asked = health_of({"leads-1": busy, "auth": GOOD})
    found = await health.check()
    assert found["status"] == "ok"
    assert set(found) == {"status", "checked_at", "services"}
    assert found["services"]["leads-1"]["dependencies"]["rabbitmq"]["queues"] == {"leads.users": 7}
    assert found["services"]["auth"]["dependencies"]["postgresql"]["outbox_waiting"] == 3
    assert found["services"]["auth"]["latency_ms"] >= 0
    assert sorted(asked) == ["http://auth/health/detailed", "http://leads-1/health/detailed"]


@pytest.mark.parametrize(
    "bad",
    [
        httpx2.ConnectError("refused"),
        {"status": "failing", "dependencies": {}},
        {"status": "ok"},
        {"hello": "world"},
        ["ok"],
    ],
)
async def test_one_process_that_fails_or_is_not_ours_makes_the_system_failing(bad):
    health, _ = health_of({"auth": GOOD, "leads-1": bad})
    found = await health.check()
    assert found["status"] == "failing"
    assert found["services"]["leads-1"]["status"] == "failing"
    assert found["services"]["auth"]["status"] == "ok"


async def test_a_process_without_something_it_can_do_without_makes_the_system_degraded():
    degraded = {"status": "degraded", "dependencies": {"redis": {"status": "failing", "error": "ConnectionError"}}}
    health, _ = health_of({"auth": GOOD, "leads-1": degraded})
    found = await health.check()
    assert found["status"] == "degraded"
    assert found["services"]["leads-1"]["dependencies"]["redis"]["error"] == "ConnectionError"


async def test_silent_processes_are_waited_for_together_and_not_long():
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never says a word
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        async with httpx2.AsyncClient(trust_env=False) as client:
            started = time.monotonic()
            found = await SystemHealth(lambda: {f"leads-{number}": url for number in range(5)}, client).check()
            assert time.monotonic() - started < 3
    assert {service["status"] for service in found["services"].values()} == {"failing"}


async def test_many_who_ask_at_once_cost_one_round():
    health, asked = health_of({"auth": GOOD})
    await asyncio.gather(*(health.check() for _ in range(50)))
    assert len(asked) == 1


async def test_a_name_stands_for_a_process_at_each_of_its_addresses_which_are_not_shown():
    async def addresses_of(host):
        return {"leads": ["10.0.0.7", "10.0.0.12"], "gone": []}.get(host, [])

    answers = {"10.0.0.7": GOOD, "10.0.0.12": httpx2.ConnectError("refused"), "gone": httpx2.ConnectError("unknown")}
    targets = {"leads": "http://leads:8000", "gone": "http://gone:8000"}
    health, asked = health_of(answers, targets, addresses_of)
    found = await health.check()
    assert {name: each["status"] for name, each in found["services"].items()} == {
        "leads-1": "failing",
        "leads-2": "ok",
        "gone": "failing",
    }
    assert "http://10.0.0.7:8000/health/detailed" in asked
    assert "10.0.0" not in json.dumps(found)


async def test_addresses_of_names_are_looked_up_and_an_address_is_itself():
    assert "127.0.0.1" in await resolve("localhost")
    assert await resolve("127.0.0.1") == []
    assert await resolve("nobody.invalid") == []


def test_hosts_and_secrets_in_a_report_are_left_out():
    report = {
        "status": "ok",
        "host": "10.0.0.1",
        "dependencies": {
            "postgresql": {"status": "failing", "error": "OSError", "dsn": "postgresql://u:p@h/d", "list": ["x"]}
        },
    }
    assert public_part(report) == {
        "status": "ok",
        "dependencies": {"postgresql": {"status": "failing", "error": "OSError"}},
    }


async def test_targets_in_a_file_may_change_while_the_process_runs(own_settings, start, tmp_path, monkeypatch):
    path = tmp_path / "targets.json"
    path.write_text("{}")
    monkeypatch.setattr("auth.health.KEEP_SECONDS", 0)
    replica = await start(own_settings, health_targets=str(path))
    async with replica.client() as client:
        answer = await client.get("/health/system")
        assert (answer.status_code, answer.json()["services"]) == (200, {})
        path.write_text(json.dumps({"leads-1": "http://127.0.0.1:9"}))
        answer = await client.get("/health/system")
        assert (answer.status_code, answer.json()["status"]) == (503, "failing")
        assert list(answer.json()["services"]) == ["leads-1"]
        assert "127.0.0.1" not in answer.text
        path.write_text("[]")
        assert (await client.get("/health/system")).status_code == 503


async def test_auth_reports_its_own_health(api):
    answer = await api.get("/health/detailed")
    assert answer.status_code == 200
    assert set(answer.json()["dependencies"]) >= {"postgresql", "rabbitmq", "redis"}
