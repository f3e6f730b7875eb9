"""Balancing, retries, and replicas that come, go and die while clients are busy."""

import asyncio
import signal
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from gateway.reload import ReloadRefused, change_replicas
from gateway.render import UPSTREAMS, GatewaySettings, nginx_command, render, upstreams
from gateway.tests.running import Gateway

CREATE = b"POST /api/leads?busy HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"


async def keep_asking(port: int, request: bytes, outcomes: Counter[str], stopping: asyncio.Event) -> None:
    """One request after the other on one connection, as a load generator does: nothing is tried again."""
    while not stopping.is_set():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            is_kept = True
            while is_kept and not stopping.is_set():
                writer.write(request)
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                await reader.readexactly(int(head.partition("content-length: ")[2].split()[0]))
                outcomes[head.split()[1]] += 1
                is_kept = "connection: close" not in head
        except (ConnectionResetError, BrokenPipeError, asyncio.IncompleteReadError) as error:
            outcomes[type(error).__name__] += 1
        finally:
            writer.close()


@asynccontextmanager
async def busy_clients(gateway: Gateway, count: int = 20, request: bytes = CREATE) -> AsyncIterator[Counter[str]]:
    """Clients that ask without a pause while the block runs; counts their outcomes."""
    outcomes: Counter[str] = Counter()
    stopping = asyncio.Event()
    clients = [asyncio.create_task(keep_asking(gateway.port, request, outcomes, stopping)) for _ in range(count)]
    try:
        await asyncio.sleep(0.3)
        yield outcomes
        await asyncio.sleep(0.3)
    finally:
        stopping.set()
        await asyncio.gather(*clients)


async def test_requests_go_to_the_replica_with_the_fewest_in_flight(gateway: Gateway):
    async with gateway.client() as client:
        slow = asyncio.create_task(client.get("/api/leads?sleep=1.5"))
        await asyncio.sleep(0.3)
        quick = [(await client.get("/api/leads")).json()["port"] for _ in range(10)]
        assert set(quick).isdisjoint({(await slow).json()["port"]})
        both = await asyncio.gather(*(client.get("/api/leads?sleep=0.2") for _ in range(20)))
    shares = Counter(answer.json()["port"] for answer in both)
    assert set(shares.values()) == {10}


async def test_connections_to_replicas_are_kept(gateway: Gateway):
    async with gateway.client() as client:
        answers = [(await client.get("/api/workflows")).json() for _ in range(30)]
    assert len({answer["connection"] for answer in answers}) == 1
    assert "connection" not in answers[0]["headers"]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "GET"])
def test_a_request_whose_replica_dies_lands_once_more_with_the_same_id(gateway: Gateway, tmp_path: Path, method: str):
    marker = tmp_path / "died"
    answer = httpx2.request(method, f"{gateway.url}/api/leads?die_once={marker}", content=b'{"a": 1}')
    assert answer.status_code == 200
    first, second = gateway.received(str(marker))
    assert first["port"] != second["port"]
    assert first["headers"]["x-gateway-request"] == second["headers"]["x-gateway-request"]
    assert (first["bytes"], second["bytes"]) == (8, 8)


def test_a_request_that_kills_replicas_kills_three_at_most(gateway: Gateway):
    for replica in gateway.leads:
        replica.signal(signal.SIGKILL)
    marker = f"killing-{uuid.uuid4().hex}"
    refused = httpx2.post(f"{gateway.url}/api/leads", headers={"X-Request-ID": marker})
    assert (refused.status_code, refused.headers["content-type"]) == (502, "application/problem+json")
    assert len(gateway.logged(marker)[0]["upstream"].split(", ")) == 3


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_an_answer_is_an_answer_and_not_tried_elsewhere(gateway: Gateway, status: int):
    marker = uuid.uuid4().hex
    assert httpx2.post(f"{gateway.url}/api/leads?status={status}&{marker}").status_code == status
    assert len(gateway.received(marker)) == 1


async def test_a_killed_replica_costs_no_failed_request(gateway: Gateway):
    async with busy_clients(gateway) as outcomes:
        gateway.leads[0].signal(signal.SIGKILL)
        await asyncio.sleep(3)  # longer than fail_timeout: it is tried again, and again in vain
        await asyncio.to_thread(gateway.leads[0].start)
    assert set(outcomes) == {"200"}


def test_a_replica_that_has_just_come_back_is_asked_when_the_others_die(gateway: Gateway):
    first, second = gateway.leads
    with httpx2.Client(base_url=gateway.url, trust_env=False) as client:
        is_noticed = True
        while is_noticed:  # until it is back so soon that nginx still leaves it out
            first.signal(signal.SIGKILL)
            assert {client.get("/api/leads").json()["port"] for _ in range(6)} == {second.port}
            first.start()
            is_noticed = client.get("/api/leads").json()["port"] == first.port
        second.signal(signal.SIGKILL)
        # The dead one, perhaps its spare entry as well, then the one that lives, though it is still left out.
        assert [client.post("/api/leads").status_code for _ in range(10)] == [200] * 10


async def test_replicas_come_and_go_without_a_failed_request(gateway: Gateway):
    try:
        async with busy_clients(gateway) as outcomes:
            for count in (1, 2, 1):
                assert await asyncio.to_thread(gateway.change_leads, count)
            await asyncio.to_thread(gateway.leads[1].signal, signal.SIGTERM)
            await asyncio.sleep(0.3)
            await asyncio.to_thread(gateway.leads[1].start)
            assert await asyncio.to_thread(gateway.change_leads, 2)
            await asyncio.sleep(0.3)
        assert set(outcomes) == {"200"}
        assert {line["port"] for line in gateway.received("busy")[-50:]} == {one.port for one in gateway.leads}
    finally:
        gateway.change_leads(2)


@pytest.mark.parametrize("path", ["/health", "/health/detailed?x=1"])
async def test_a_health_check_does_not_fail_when_replicas_change(gateway: Gateway, path: str):
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    try:
        async with busy_clients(gateway, request=request) as outcomes:
            assert await asyncio.to_thread(gateway.change_leads, 1)
    finally:
        gateway.change_leads(2)
    assert set(outcomes) == {"200"}


def test_a_list_nginx_refuses_leaves_the_old_one(gateway: Gateway, monkeypatch: pytest.MonkeyPatch):
    before = (gateway.configuration / "upstreams.conf").read_text()
    monkeypatch.setattr("gateway.reload.upstreams", lambda replicas: "no configuration;")
    with pytest.raises(ReloadRefused, match="unknown directive"):
        gateway.change_leads(1)
    assert (gateway.configuration / "upstreams.conf").read_text() == before
    assert httpx2.get(f"{gateway.url}/api/leads").status_code == 200


def test_without_a_running_nginx_the_list_is_only_written(tmp_path: Path):
    (tmp_path / "upstreams.conf").write_text("")
    assert not change_replicas(tmp_path, tmp_path / "none.pid", {"leads": ["127.0.0.1:1"]})
    assert "server 127.0.0.1:1 " in (tmp_path / "upstreams.conf").read_text()


def test_a_configuration_without_any_replica_is_valid(tmp_path: Path):
    settings = GatewaySettings(
        public_listen="127.0.0.1:18999",
        internal_listen="127.0.0.1:18998",
        replicas={},
        static_dir=tmp_path / "with a space",
        log_dir=tmp_path / "log",
        pid_path=tmp_path / "nginx.pid",
        temp_dir=tmp_path / "temp",
    )
    render(tmp_path / "conf", settings)
    checked = subprocess.run(nginx_command(tmp_path / "conf", "-t"), capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert "warn" not in checked.stderr


def test_upstreams_are_listed_by_name():
    text = upstreams({"leads": ["127.0.0.1:18111", "leads-2:8000"]})
    assert "server 127.0.0.1:18111 max_fails=2 fail_timeout=1s;" in text
    assert "server leads-2:8000 " in text
    assert [line.split()[1] for line in text.splitlines() if line.startswith("upstream")] == list(UPSTREAMS)
    with pytest.raises(ValueError, match="unknown upstream: lead"):
        upstreams({"lead": []})
    with pytest.raises(ValueError, match="not host:port"):
        upstreams({"leads": ["127.0.0.1:1; root /"]})


@pytest.mark.long
def test_a_silent_replica_is_given_up_after_15_seconds(gateway: Gateway):
    marker = uuid.uuid4().hex
    frozen = gateway.leads[0]
    frozen.signal(signal.SIGSTOP)
    try:
        started = time.monotonic()
        with httpx2.Client(timeout=60, trust_env=False) as client:
            answers = [client.post(f"{gateway.url}/api/leads?{marker}") for _ in range(2)]
            assert [answer.status_code for answer in answers] == [200, 200]
            assert 14 < time.monotonic() - started < 20
            slow = client.post(f"{gateway.url}/api/workflows?sleep=16")
        assert (slow.status_code, slow.json()["type"]) == (504, "/problems/gateway-timeout")
    finally:
        frozen.signal(signal.SIGCONT)
    deadline = time.monotonic() + 10
    while len(received := gateway.received(marker)) < 3:  # the frozen one wakes up and does it as well
        assert time.monotonic() < deadline
        time.sleep(0.1)
    twice = Counter(line["headers"]["x-gateway-request"] for line in received)
    assert sorted(twice.values()) == [1, 2]
