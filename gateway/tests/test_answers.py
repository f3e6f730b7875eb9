"""Ids, headers, limits and error bodies: what every client can rely on."""

import asyncio
import gzip
import json
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from gateway.tests.running import Gateway

MIB = 1024 * 1024


def problem(answer: httpx2.Response, status: int) -> dict[str, object]:
    """The answer's body, checked to be a problem of the gateway's own with the id in its header."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, object] = answer.json()
    assert body["status"] == status
    assert body["request_id"] == answer.headers["x-request-id"]
    assert {"type", "title", "detail", "instance"} <= set(body)
    return body


def test_each_request_gets_an_id_of_the_gateways_own(gateway: Gateway):
    forged = {"X-Gateway-Request": "forged"}
    seen = [httpx2.get(f"{gateway.url}/api/leads", headers=forged).json()["headers"] for _ in range(5)]
    ids = {headers["x-gateway-request"] for headers in seen}
    assert len(ids) == 5
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in ids)


@pytest.mark.parametrize("given", ["order-7.a_B", "x" * 128])
def test_a_well_formed_request_id_passes(gateway: Gateway, given: str):
    answer = httpx2.get(f"{gateway.url}/api/leads", headers={"X-Request-ID": given})
    assert answer.json()["headers"]["x-request-id"] == given
    assert answer.headers.get_list("x-request-id") == [given]


@pytest.mark.parametrize("given", [None, "", "two words", 'quote"', "x" * 129, "line\tfeed"])
def test_any_other_request_id_is_replaced(gateway: Gateway, given: str | None):
    answer = httpx2.get(f"{gateway.url}/api/leads", headers={} if given is None else {"X-Request-ID": given})
    made = answer.json()["headers"]["x-request-id"]
    assert re.fullmatch("req_[0-9a-f]{32}", made)
    assert answer.headers.get_list("x-request-id") == [made]


def test_a_client_can_not_say_who_it_is(gateway: Gateway):
    forged = {"X-Forwarded-For": "10.9.8.7", "X-Real-IP": "10.9.8.7", "Forwarded": "for=10.9.8.7"}
    seen = httpx2.get(f"{gateway.url}/api/leads", headers=forged).json()["headers"]
    assert (seen["x-forwarded-for"], seen["x-real-ip"]) == ("127.0.0.1", "127.0.0.1")
    assert "forwarded" not in seen


def test_a_request_without_a_host_is_served(gateway: Gateway):
    assert gateway.raw(b"GET /api/leads HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200")


def test_a_service_s_own_answer_is_never_replaced(gateway: Gateway):
    for status in (400, 404, 413, 422, 429, 500, 502, 503, 504):
        answer = httpx2.get(f"{gateway.url}/api/leads?problem=1&status={status}")
        assert (answer.status_code, answer.json()) == (status, {"title": "own"})


def test_unknown_paths_and_methods_are_problems(gateway: Gateway):
    body = problem(httpx2.get(f"{gateway.url}/nothing/here?secret=1"), 404)
    assert (body["type"], body["instance"]) == ("/problems/not-found", "/nothing/here")
    assert problem(httpx2.get(f"{gateway.url}/a'b", headers={"X-Request-ID": "mine"}), 404)["request_id"] == "mine"
    refused = httpx2.request("FROBNICATE", f"{gateway.url}/api/leads")
    problem(refused, 405)
    assert "PATCH" in refused.headers["allow"]
    assert httpx2.request("TRACE", f"{gateway.url}/api/leads").status_code == 405


def test_what_a_static_file_can_not_answer_is_a_problem_too(gateway: Gateway):
    problem(httpx2.post(f"{gateway.url}/api/openapi.json"), 405)
    problem(httpx2.get(f"{gateway.url}/api/openapi.json", headers={"If-Match": '"another"'}), 412)
    for path in ("/api/docs/none.js", "/api/docs/vendor", "/api/docs/vendor/"):
        assert problem(httpx2.get(gateway.url + path), 404)["type"] == "/problems/not-found"


def test_a_quote_in_a_path_does_not_break_the_problem(gateway: Gateway):
    answer = gateway.raw(b'GET /no"such\\path HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
    body = json.loads(answer.split(b"\r\n\r\n", 1)[1])
    assert (body["status"], body["instance"]) == (404, "")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET /api/leads HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX-Big: " + b"a" * 70_000 + b"\r\n\r\n", 431),
        (b"POST /api/leads HTTP/1.1\r\nHost: x\r\nContent-Length: no\r\n\r\n", 400),
        (b"POST /api/leads HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: odd\r\nConnection: close\r\n\r\n", 501),
    ],
)
def test_what_is_no_http_is_a_problem_too(gateway: Gateway, request_bytes: bytes, status: int):
    head, _, body = gateway.raw(request_bytes).partition(b"\r\n\r\n")
    assert head.split()[1] == str(status).encode()
    assert b"application/problem+json" in head
    assert json.loads(body)["status"] == status


def test_a_body_may_have_one_mebibyte(gateway: Gateway):
    allowed = httpx2.post(f"{gateway.url}/api/leads", content=b"x" * MIB)
    assert (allowed.status_code, allowed.json()["bytes"]) == (200, MIB)
    marker = uuid.uuid4().hex
    body = problem(httpx2.post(f"{gateway.url}/api/leads?{marker}", content=b"x" * (MIB + 1)), 413)
    assert body["type"] == "/problems/payload-too-large"

    def pieces() -> Iterator[bytes]:
        yield from (b"x" * 65536 for _ in range(17))

    problem(httpx2.post(f"{gateway.url}/api/leads?{marker}", content=pieces()), 413)
    assert gateway.received(marker) == []


def test_a_service_without_a_replica_is_a_502_that_may_be_tried_again(gateway: Gateway):
    answer = httpx2.post(f"{gateway.url}/api/crm/connections", json={})
    assert problem(answer, 502)["type"] == "/problems/bad-gateway"
    assert answer.headers["retry-after"] == "1"


@contextmanager
def changed(gateway: Gateway, part: str, before: str, after: str) -> Iterator[None]:
    """The gateway with one line of its configuration changed."""
    file = gateway.configuration / part
    text = file.read_text()
    assert before in text
    try:
        file.write_text(text.replace(before, after))
        gateway.change_leads(2)
        yield
    finally:
        file.write_text(text)
        gateway.change_leads(2)


def test_a_service_that_is_too_slow_is_a_504(gateway: Gateway):
    with changed(gateway, "snippets/proxy.conf", "proxy_read_timeout 15s;", "proxy_read_timeout 300ms;"):
        answer = httpx2.post(f"{gateway.url}/api/workflows?sleep=1")
    assert problem(answer, 504)["type"] == "/problems/gateway-timeout"
    assert answer.headers["retry-after"] == "1"


def test_a_503_of_the_gateways_own_is_a_problem_that_may_be_tried_again(gateway: Gateway):
    # Nothing makes nginx answer 503 by itself today; whoever adds something finds its answer in form.
    with changed(gateway, "conf.d/public.conf", "location / { return 404; }", "location / { return 503; }"):
        answer = httpx2.get(f"{gateway.url}/closed")
    assert problem(answer, 503)["type"] == "/problems/unavailable"
    assert answer.headers["retry-after"] == "1"


async def test_a_client_that_asks_too_often_is_told_to_wait(tmp_path: Path):
    limited = Gateway(tmp_path, requests_per_second=1, request_burst=3, unlimited_networks=())
    try:
        limited.start()
        async with limited.client() as client:
            answers = await asyncio.gather(*(client.get("/api/leads") for _ in range(40)))
        allowed = [answer for answer in answers if answer.status_code == 200]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert 4 <= len(allowed) < 20
        assert len(allowed) + len(refused) == 40
        assert problem(refused[0], 429)["type"] == "/problems/too-many-requests"
        assert refused[0].headers["retry-after"] == "1"
        assert httpx2.get(f"{limited.internal_url}/api/leads").status_code == 200
    finally:
        limited.stop()


async def test_a_client_that_asks_for_too_much_at_once_is_told_to_wait(tmp_path: Path):
    limited = Gateway(tmp_path, connections_per_client=3, unlimited_networks=())
    try:
        limited.start()
        async with limited.client() as client:
            answers = await asyncio.gather(*(client.get("/api/leads?sleep=1") for _ in range(9)))
        refused = [answer for answer in answers if answer.status_code == 429]
        assert (len(answers) - len(refused), len(refused)) == (3, 6)
        assert problem(refused[0], 429)["type"] == "/problems/too-many-requests"
    finally:
        limited.stop()


async def test_a_load_test_from_this_machine_is_not_limited(tmp_path: Path):
    limited = Gateway(tmp_path, requests_per_second=1, request_burst=3, connections_per_client=3)
    try:
        limited.start()
        async with limited.client() as client:
            answers = await asyncio.gather(*(client.get("/api/leads") for _ in range(40)))
        assert {answer.status_code for answer in answers} == {200}
    finally:
        limited.stop()


@pytest.mark.parametrize("path", ["/api/leads", "/health", "/nothing", "/api/crm/x", "/api/docs", "/api/openapi.json"])
def test_every_answer_has_the_security_headers_once(gateway: Gateway, path: str):
    headers = httpx2.get(gateway.url + path).headers
    assert headers.get_list("x-content-type-options") == ["nosniff"]
    assert headers.get_list("x-frame-options") == ["DENY"]
    assert headers.get_list("referrer-policy") == ["no-referrer"]
    (policy,) = headers.get_list("content-security-policy")
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert headers["server"] == "nginx"  # and no version


def test_long_answers_are_compressed(gateway: Gateway):
    ask = {"Accept-Encoding": "gzip"}
    with httpx2.stream("GET", f"{gateway.url}/api/leads?size=5000", headers=ask) as answer:
        raw = b"".join(answer.iter_raw())
    assert answer.headers["content-encoding"] == "gzip"
    assert "accept-encoding" in answer.headers["vary"].lower()
    assert len(raw) < 2000
    assert json.loads(gzip.decompress(raw))["filler"] == "x" * 5000
    weak = answer.headers["etag"]
    assert weak == 'W/"5"'
    changed = httpx2.put(f"{gateway.url}/api/leads/lead_1", headers={"If-Match": weak})
    assert changed.json()["headers"]["if-match"] == '"5"'  # a service's If-Match takes strong tags only
    plain = httpx2.get(f"{gateway.url}/api/leads", headers=ask)
    assert "content-encoding" not in plain.headers
    assert "if-match" not in plain.json()["headers"]
    assert plain.headers["etag"] == '"5"'


def test_no_log_holds_a_query_string_though_its_request_failed(gateway: Gateway):
    marker = f"personal-{uuid.uuid4().hex}"
    request_id = f"log-{uuid.uuid4().hex}"
    problem(httpx2.get(f"{gateway.url}/api/crm/leads?email={marker}", headers={"X-Request-ID": request_id}), 502)
    assert gateway.logged(request_id)[0]["status"] == 502
    for log in (gateway.folder / "log").iterdir():
        assert marker not in log.read_text(), log.name


def test_the_access_log_is_json_without_query_strings(gateway: Gateway):
    marker = f"log-{uuid.uuid4().hex}"
    agent = 'quote" and back\\slash'
    headers = {"X-Request-ID": marker, "User-Agent": agent}
    httpx2.get(f"{gateway.url}/api/leads/lead_1?email=secret@example.com", headers=headers)
    httpx2.get(f"{gateway.url}/nothing", headers=headers)
    served, refused = gateway.logged(marker, 2)
    assert (served["path"], served["status"], served["listener"]) == ("/api/leads/lead_1", 200, "public")
    assert served["upstream"] in {replica.address for replica in gateway.leads}
    assert (served["upstream_status"], served["user_agent"]) == ("200", agent)
    assert isinstance(served["seconds"], float)
    assert float(served["upstream_seconds"]) >= 0
    assert (refused["status"], refused["upstream"]) == (404, "")
    assert "secret" not in (gateway.folder / "log" / "access.log").read_text()
