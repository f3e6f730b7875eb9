"""Faults do what they say, to the requests they name, as often as they were told; what was done outlives the process."""

import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from simulators.testing import RunningSimulators

CONTACTS = "/crm/objects/2026-03/contacts"


def headers(portal: int) -> dict[str, str]:
    return {"Authorization": f"Bearer pat-sim-{portal}"}


def create(simulators: RunningSimulators, portal: int, email: str, **arguments: Any) -> httpx2.Response:
    body = {"properties": {"email": email}}
    return simulators.request("POST", CONTACTS, json=body, headers=headers(portal), **arguments)


def fault(
    simulators: RunningSimulators, portal: int, do: str, operation: str = "contacts.create", **effect: Any
) -> None:
    simulators.add_fault(operation, {"do": do} | effect, portal_id=portal)


@pytest.mark.parametrize("status", [400, 401, 403, 423, 477, 500])
def test_a_status_is_answered_once_in_hubspots_shape(simulators: RunningSimulators, portal: int, status: int):
    fault(simulators, portal, "status", status=status)
    refused = create(simulators, portal, "once@example.com")
    assert (refused.status_code, refused.json()["status"]) == (status, "error")
    assert refused.json()["correlationId"]
    assert ("retry-after" in refused.headers) == (status == 477)
    assert simulators.contacts(portal) == []
    assert create(simulators, portal, "once@example.com").status_code == 201


@pytest.mark.parametrize("status", [502, 503, 504, 524])
def test_the_network_in_front_answers_with_a_page(simulators: RunningSimulators, portal: int, status: int):
    fault(simulators, portal, "status", status=status)
    answer = create(simulators, portal, "page@example.com")
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/html")


def test_429_comes_in_both_shapes(simulators: RunningSimulators, portal: int):
    fault(simulators, portal, "rate_limit", policy="SECONDLY", older_shape=True)
    fault(simulators, portal, "rate_limit", policy="DAILY")
    older, newer = create(simulators, portal, "a@example.com"), create(simulators, portal, "a@example.com")
    assert (older.status_code, newer.status_code) == (429, 429)
    assert (older.json()["category"], "policyName" in older.json()) == ("RATE_LIMITS", False)
    assert (newer.json()["errorType"], newer.json()["policyName"]) == ("RATE_LIMIT", "DAILY")
    assert newer.json()["requestId"]


@pytest.mark.parametrize("work", [True, False])
def test_a_connection_is_dropped_after_the_work_or_without_it(simulators: RunningSimulators, portal: int, work: bool):
    fault(simulators, portal, "drop", work=work)
    with pytest.raises((httpx2.ReadError, httpx2.RemoteProtocolError)):
        create(simulators, portal, "cut@example.com")
    assert len(simulators.contacts(portal)) == (1 if work else 0)
    assert [request["outcome"] for request in simulators.requests(portal)] == ["dropped"]
    assert create(simulators, portal, "cut@example.com").status_code == (409 if work else 201)


@pytest.mark.parametrize("work_first", [True, False])
def test_a_hanging_request_is_done_early_or_late(simulators: RunningSimulators, portal: int, work_first: bool):
    fault(simulators, portal, "hang", work_first=work_first, seconds=1)
    with pytest.raises(httpx2.ReadTimeout):
        create(simulators, portal, "slow@example.com", timeout=0.3)
    assert len(simulators.contacts(portal)) == (1 if work_first else 0)
    deadline = time.monotonic() + 10
    while not simulators.contacts(portal):  # the client is gone, the work is done all the same
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(("lose", "seen"), [("results", []), ("ids", [None, None]), ([0], ["second"])])
def test_success_can_be_silent(simulators: RunningSimulators, portal: int, lose: object, seen: list[str | None]):
    fault(simulators, portal, "silent", "contacts.batch_create", work=True, lose=lose)
    inputs = [
        {"objectWriteTraceId": name, "properties": {"email": f"{name}@example.com"}} for name in ("first", "second")
    ]
    answer = simulators.request("POST", f"{CONTACTS}/batch/create", json={"inputs": inputs}, headers=headers(portal))
    assert answer.status_code == 201
    assert "errors" not in answer.json()
    results = answer.json()["results"]
    assert [result["objectWriteTraceId"] if "id" in result else None for result in results] == seen
    assert len(simulators.contacts(portal)) == 2


def test_success_can_mean_that_nothing_was_done(simulators: RunningSimulators, portal: int):
    fault(simulators, portal, "silent", "contacts.batch_upsert", work=False)
    item = {"id": "x@example.com", "idProperty": "email", "properties": {"phone": "1"}}
    answer = simulators.request("POST", f"{CONTACTS}/batch/upsert", json={"inputs": [item]}, headers=headers(portal))
    assert (answer.status_code, answer.json()["results"]) == (200, [])
    assert simulators.contacts(portal) == []


def test_a_fault_hits_only_what_it_names(simulators: RunningSimulators, portal: int):
    effect = {"do": "status", "status": 500}
    simulators.add_fault("contacts.*", effect, portal_id=portal, containing="victim", skip=1, times=2)
    answers = [create(simulators, portal, f"victim{number}@example.com").status_code for number in range(4)]
    assert answers == [201, 500, 500, 201]
    assert create(simulators, portal, "other@example.com").status_code == 201
    assert create(simulators, portal + 500_000, "victim@example.com").status_code == 201


def test_a_rate_hits_some_until_it_is_taken_away(simulators: RunningSimulators, portal: int):
    simulators.control("PUT", f"hubspot/accounts/{portal}", {"burst": 1000})
    fault_id = simulators.add_fault("*", {"do": "status", "status": 503}, portal_id=portal, times=None, rate=0.5)
    answers = [create(simulators, portal, f"r{number}@example.com").status_code for number in range(100)]
    assert 10 < answers.count(503) < 90
    assert answers.count(503) + answers.count(201) == 100
    simulators.control("DELETE", f"hubspot/faults/{fault_id}")
    assert create(simulators, portal, "after@example.com").status_code == 201


def test_latency_is_added(simulators: RunningSimulators, portal: int):
    simulators.control("PUT", "hubspot/behaviour", {"latency_min_seconds": 0.2, "latency_max_seconds": 0.3})
    try:
        started = time.monotonic()
        create(simulators, portal, "latency@example.com")
        assert time.monotonic() - started >= 0.2
    finally:
        simulators.control("PUT", "hubspot/behaviour", {})


def test_without_multi_status_a_batch_fails_as_a_whole(simulators: RunningSimulators, portal: int):
    simulators.control("PUT", "hubspot/behaviour", {"multi_status": False})
    try:
        inputs = [{"objectWriteTraceId": str(number), "properties": {"nosuch": "x"}} for number in range(2)]
        body = {"inputs": inputs}
        answer = simulators.request("POST", f"{CONTACTS}/batch/create", json=body, headers=headers(portal))
        assert answer.status_code == 400
    finally:
        simulators.control("PUT", "hubspot/behaviour", {})


def test_a_word_the_control_endpoint_does_not_know_is_an_error(simulators: RunningSimulators):
    for path, body in (
        ("hubspot/faults", {"operation": "*", "effect": {"do": "explode"}}),
        ("hubspot/faults", {"operation": "*", "tims": 1, "effect": {"do": "expire_token"}}),
    ):
        assert simulators.request("POST", f"/_control/{path}", json=body).status_code == 422
    assert simulators.request("PUT", "/_control/hubspot/accounts/1", json={"time_zone": "Mars/Base"}).status_code == 422


def test_contacts_and_journal_outlive_a_kill(tmp_path: Path):
    with RunningSimulators(tmp_path) as simulators:
        made = create(simulators, 7, "kept@example.com").json()
        simulators.kill()
        simulators.start()
        read = simulators.request("GET", f"{CONTACTS}/{made['id']}", headers=headers(7))
        assert read.json()["properties"]["email"] == "kept@example.com"
        assert create(simulators, 7, "kept@example.com").status_code == 409
        assert create(simulators, 7, "next@example.com").json()["id"] != made["id"]
        assert simulators.creates(7) == {"kept@example.com": 1, "next@example.com": 1}
        assert [request["status"] for request in simulators.requests(7)] == [201, 200, 409, 201]
        simulators.control("POST", "hubspot/reset", {"portal_id": 7})
        assert (simulators.contacts(7), simulators.requests(7)) == ([], [])
