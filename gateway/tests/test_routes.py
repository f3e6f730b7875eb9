"""Which path leads where, and what does not exist from outside."""

import uuid

import httpx2
import pytest

from gateway.tests.running import Gateway


@pytest.mark.parametrize(
    ("path", "service", "seen"),
    [
        ("/api/leads", "leads", "/api/leads"),
        ("/api/leads/lead_1/timeline", "leads", "/api/leads/lead_1/timeline"),
        ("/api/auth/login", "auth", "/api/auth/login"),
        ("/.well-known/jwks.json", "auth", "/.well-known/jwks.json"),
        ("/api/workflows/wf_1/status", "workflows", "/api/workflows/wf_1/status"),
        ("/api/runs/run_1", "workflows", "/api/runs/run_1"),
        ("/health/detailed", "auth", "/health/system"),
        ("/api/leads/a%20b", "leads", "/api/leads/a%20b"),
    ],
)
def test_a_path_leads_to_its_service(gateway: Gateway, path: str, service: str, seen: str):
    answer = httpx2.get(gateway.url + path + "?q=a%2Bb").json()
    assert (answer["service"], answer["path"], answer["query"]) == (service, seen, "q=a%2Bb")


def test_nginx_itself_says_that_it_is_up(gateway: Gateway):
    answer = httpx2.get(f"{gateway.url}/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/metrics",
        "/internal/auth/jwks.json",
        "/internal/jwks.json",
        "/health/live",
        "/health/ready",
        "/health/system",
        "/api",
        "/api/leadsandmore",
        "//metrics",
        "/api//leads",
        "/API/leads",
    ],
)
def test_other_paths_do_not_exist_from_outside(gateway: Gateway, path: str):
    answer = gateway.raw(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 404")
    assert b"application/problem+json" in answer


@pytest.mark.parametrize(
    "path",
    [
        "/api/leads/../../internal/x",
        "/api/leads/%2e%2e/%2e%2e/metrics",
        "/api/leads/..%2f..%2fmetrics",
        "/api/leads/%2E%2E%2Fmetrics",
        "/internal/../api/leads",
        "/api/leads/./x",
        "/api/leads/..",
        "/api/leads/x%2f..",
        "/internal/x%2f..%2F..%2fapi/leads",
        "/metrics%2F%2e%2E%2fapi%2fleads",
    ],
)
def test_no_path_climbs_out_of_its_route(gateway: Gateway, path: str):
    marker = uuid.uuid4().hex
    answer = gateway.raw(f"GET {path}?{marker} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert answer.split()[1] == b"404"
    assert gateway.received(marker) == []


def test_the_internal_listener_reaches_the_services_internal_routes(gateway: Gateway):
    for service in ("auth", "leads", "workflows"):
        answer = httpx2.get(f"{gateway.internal_url}/internal/{service}/sessions/ended?x=1").json()
        assert (answer["service"], answer["path"], answer["query"]) == (service, "/internal/sessions/ended", "x=1")
    assert httpx2.get(f"{gateway.internal_url}/api/leads/lead_1").json()["service"] == "leads"
    assert httpx2.get(f"{gateway.internal_url}/metrics").status_code == 404


@pytest.mark.parametrize("header", ["X-Chain", "X-Origin", "X-Workspace", "X_Chain"])
def test_only_services_may_say_where_a_change_comes_from(gateway: Gateway, header: str):
    sent = {header: "forged"}
    outside = httpx2.get(f"{gateway.url}/api/leads", headers=sent).json()
    assert "forged" not in outside["headers"].values()
    inside = httpx2.get(f"{gateway.internal_url}/api/leads", headers=sent).json()
    assert inside["headers"].get(header.lower()) == (None if "_" in header else "forged")


def test_the_docs_are_static(gateway: Gateway):
    page = httpx2.get(f"{gateway.url}/api/docs")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    document = httpx2.get(f"{gateway.url}/api/openapi.json")
    assert document.headers["content-type"] == "application/json"
