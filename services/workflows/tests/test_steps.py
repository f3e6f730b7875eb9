"""Each step type by itself: what it decides, what it sends, and what it makes of every answer."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import httpx2
import pytest
from standardwebhooks import Webhook

from chassis.clock import rfc3339, utcnow
from chassis.errors import Unavailable
from chassis.http import OutboundFailed, OutboundRefused, OutboundResponse
from workflows.engine.retry import RetryPolicy
from workflows.engine.template import TemplateError
from workflows.steps import STEP_TYPES
from workflows.steps.kinds import (
    Call,
    CallingStep,
    Done,
    End,
    Failed,
    ImmediateStep,
    LeadNow,
    Pause,
    PausingStep,
    Resumption,
    StepFailed,
    Succeeded,
    Unknown,
)
from workflows.steps.wait_for_event import WaitForEvent

LEAD: dict[str, Any] = {
    "id": "lead_1",
    "email": "ada@example.com",
    "score": 70,
    "company": None,
    "version": 3,
    "custom": {},
}
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def lead_now(
    lead: dict[str, Any], *, deleted: bool, at: datetime | None = None, crm: Sequence[dict[str, Any]] = ()
) -> LeadNow:
    return LeadNow(lead, deleted, at or utcnow(), crm)


def scope(**lead: Any) -> dict[str, Any]:
    return {
        "lead": {**LEAD, **lead},
        "changed": [],
        "previous": {},
        "trigger": {"type": "manual", "lead": LEAD},
        "steps": {},
        "run": {"id": "run_1"},
        "workflow": {"id": "wf_1", "name": "W", "version": 1},
    }


def make(kind: str, **fields: Any) -> Any:
    return STEP_TYPES[kind].model_validate({"id": "s", "type": kind, **fields})


class Desk:
    lead_id = "lead_1"
    run_id = "run_1"

    async def next_owner(self, step_id: str, user_ids: Sequence[str]) -> str | None:
        return user_ids[0] if step_id == "s" else None


class Outside:
    """Both ways out: answers what it is told to, and remembers what it was asked."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[dict[str, Any]] = []

    async def request(self, method: str, url: str, **details: Any) -> Any:
        self.asked.append({"method": method, "url": url, **details})
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def call(outside: Outside, secrets: Mapping[str, str] | None = None) -> Call:
    return Call("run_1:s:0:0", "ws_1", "lead_1", outside, outside, secrets or {})  # type: ignore[arg-type]


def outbound(status: int, body: bytes = b"{}", **headers: str) -> OutboundResponse:
    return OutboundResponse(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def service(status: int, document: Any = None, **headers: str) -> httpx2.Response:
    return httpx2.Response(status, json=document or {}, headers={n.replace("_", "-"): v for n, v in headers.items()})


# --- immediate steps ---


@pytest.mark.parametrize(("score", "way"), [(90, "then"), (10, "else")])
def test_a_condition_goes_one_of_two_ways(score: int, way: str) -> None:
    step: ImmediateStep = make("condition", **{"if": "lead.score > 50"})
    assert step.decide(scope(score=score)) == Done({"result": way == "then"}, way=way)


def test_a_condition_that_cannot_be_evaluated_goes_by_else_and_says_why() -> None:
    decision = make("condition", **{"if": "lead.company > 50"}).decide(scope())
    assert decision.way == "else"
    assert "could not be evaluated" in decision.output["note"]


def test_a_stop_ends_the_run_with_its_reason() -> None:
    assert make("stop").decide(scope()) == End("completed", None)
    assert make("stop", outcome="failed").decide(scope()) == End("failed", "stopped by step s")
    assert make("stop", outcome="failed", reason="no: {{ lead.email }}").decide(scope()) == End(
        "failed", "no: ada@example.com"
    )


# --- pausing steps ---


def test_a_wait_for_a_duration_pauses_and_then_goes_on() -> None:
    step: PausingStep = make("wait", duration="1h")
    assert step.begin(scope(), lead_now(LEAD, deleted=False)) == Pause(seconds=3600)
    due = utcnow()
    assert step.resume(scope(), Resumption(None, due)) == Done({"until": rfc3339(due)})


def test_a_wait_until_a_time_of_the_lead_waits_for_it_and_for_a_later_one() -> None:
    step: PausingStep = make("wait", until="lead.custom.call_at")
    later = utcnow() + timedelta(hours=1)
    pause = step.begin(scope(custom={"call_at": rfc3339(later)}), lead_now(LEAD, deleted=False))
    assert isinstance(pause, Pause)
    assert pause.until == later
    moved = later + timedelta(hours=1)
    again = step.resume(scope(custom={"call_at": rfc3339(moved)}), Resumption(None, later))
    assert isinstance(again, Pause)
    assert again.until == moved


def test_a_wait_ends_by_the_clock_that_counted_it() -> None:
    """The database's clock says when a wait is over; a worker whose clock is behind must not begin it again and again."""
    due = utcnow() + timedelta(seconds=30)
    step: PausingStep = make("wait", until="lead.custom.call_at")
    why = Resumption(None, due)
    assert step.resume(scope(custom={"call_at": rfc3339(due)}), why) == Done({"until": rfc3339(due)})
    # Nor may one whose clock is ahead leave it out, or end it early.
    for ahead in (timedelta(minutes=10), -timedelta(minutes=10)):
        now = utcnow() + ahead
        moment = now + timedelta(seconds=30)
        called = scope(custom={"call_at": rfc3339(moment)})
        assert isinstance(step.begin(called, lead_now(LEAD, deleted=False, at=now)), Pause)
        assert isinstance(step.resume(called, Resumption(None, now)), Pause)


def test_a_wait_until_a_time_gone_by_does_not_wait() -> None:
    decision = make("wait", until="lead.custom.call_at").begin(
        scope(custom={"call_at": "2020-01-01"}), lead_now(LEAD, deleted=False)
    )
    assert decision == Done({"until": "2020-01-01T00:00:00.000Z"})


@pytest.mark.parametrize(
    "value", [None, 5, "soon", "", "9999-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", ["2026-01-01"]]
)
def test_a_wait_until_what_is_no_time_fails_the_step(value: Any) -> None:
    with pytest.raises(StepFailed, match=r"lead\.custom\.call_at"):
        make("wait", until="lead.custom.call_at").begin(scope(custom={"call_at": value}), lead_now(LEAD, deleted=False))


def waiting(event: str, condition: str) -> WaitForEvent:
    step: WaitForEvent = make("wait_for_event", event=event, condition=condition, timeout="1h")
    return step


def test_a_wait_for_an_event_goes_on_at_once_if_the_condition_holds_already() -> None:
    step = waiting("lead.updated", "lead.score >= 50")
    assert step.begin(scope(), lead_now(LEAD, deleted=False)) == Done({"timed_out": False, "event": None})
    assert step.begin(scope(), lead_now({**LEAD, "score": 1}, deleted=False)) == Pause(
        seconds=3600, event="lead.updated"
    )
    assert isinstance(step.begin(scope(), lead_now(LEAD, deleted=True)), Pause)


def test_a_wait_for_a_deletion_goes_on_at_once_if_the_lead_is_deleted() -> None:
    step = waiting("lead.deleted", "true")
    assert isinstance(step.begin(scope(), lead_now(LEAD, deleted=True)), Done)
    assert isinstance(step.begin(scope(), lead_now(LEAD, deleted=False)), Pause)


def test_a_wait_for_a_change_sees_no_change_when_it_begins() -> None:
    step = waiting("lead.updated", '"stage" in changed')
    assert isinstance(step.begin({**scope(), "changed": ["stage"]}, lead_now(LEAD, deleted=False)), Pause)
    event: dict[str, Any] = {
        "type": "lead.updated",
        "id": "evt_1",
        "time": "t",
        "data": {"lead": LEAD, "changed": ["stage"], "previous": {}},
    }
    assert step.accept(scope(), event) == {"type": "lead.updated", "id": "evt_1", "time": "t"}
    assert step.accept(scope(), {**event, "data": {**event["data"], "changed": ["score"]}}) is None


def test_a_wait_for_the_crm_looks_at_what_the_crm_last_said() -> None:
    step = waiting("crm.lead.synced", "event.version >= lead.version")
    outcome = {"type": "crm.lead.synced", "version": 3, "external_id": "42"}
    assert step.begin(scope(), lead_now(LEAD, deleted=False, crm=[outcome])) == Done(
        {"timed_out": False, "event": outcome}
    )
    for other in ({**outcome, "version": 2}, {**outcome, "type": "crm.lead.failed"}):
        assert isinstance(step.begin(scope(), lead_now(LEAD, deleted=False, crm=[other])), Pause)
    data = {"version": 3, "external_id": "42", "attempts": [1]}
    assert step.accept(scope(), {"type": "crm.lead.synced", "id": "e", "time": "t", "data": data}) == outcome


def test_a_wait_for_an_event_tells_an_event_from_a_timeout() -> None:
    step = waiting("lead.updated", "lead.score > 1")
    assert step.resume(scope(), Resumption({"id": "evt_1"}, None)) == Done(
        {"timed_out": False, "event": {"id": "evt_1"}}
    )
    assert step.resume(scope(), Resumption(None, utcnow())) == Done(
        {"timed_out": True, "event": None}, way="on_timeout"
    )


# --- calls to our own services ---


async def test_update_lead_sends_a_patch_under_the_services_key() -> None:
    step: CallingStep = make("update_lead", set={"stage": "contacted", "custom": {"was": "{{ lead.score }}"}})
    request = await step.prepare(scope(), Desk())
    assert request == {"set": {"stage": "contacted", "custom": {"was": 70}}}
    outside = Outside(service(200, {**LEAD, "version": 4}))
    outcome = await step.perform(request, call(outside))
    assert outcome == Succeeded({"version": 4}, status=200, lead={**LEAD, "version": 4})
    [asked] = outside.asked
    assert (asked["method"], asked["url"]) == ("PATCH", "/api/leads/lead_1")
    assert asked["idempotency_key"] == "svc:run_1:s:0:0"
    assert asked["json"] == {"stage": "contacted", "custom": {"was": 70}}


async def test_assign_owner_names_the_user_that_was_chosen_with_the_intent() -> None:
    step: CallingStep = make("assign_owner", users=["user_1", "user_2"])
    request = await step.prepare(scope(), Desk())
    outside = Outside(service(200, {**LEAD, "version": 4, "owner_id": "user_1"}))
    outcome = await step.perform(request, call(outside))
    assert isinstance(outcome, Succeeded)
    assert outcome.output == {"version": 4, "owner_id": "user_1"}
    assert outside.asked[0]["json"] == {"owner_id": "user_1"}


async def test_assign_owner_fails_if_nobody_is_active() -> None:
    step = make("assign_owner", users=["user_1"]).model_copy(update={"id": "other"})
    with pytest.raises(StepFailed, match="none of the users is active"):
        await step.prepare(scope(), Desk())


async def test_sync_to_crm_asks_for_the_version_it_knows() -> None:
    step: CallingStep = make("sync_to_crm", connection_id="conn_1")
    outside = Outside(service(202, {"anything": 1}))
    outcome = await step.perform(await step.prepare(scope(), Desk()), call(outside))
    assert outcome == Succeeded({"version": 3}, status=202)
    assert outside.asked[0]["url"] == "/api/crm/leads/lead_1/sync"
    assert outside.asked[0]["json"] == {"connection_id": "conn_1", "version": 3}
    everywhere = await make("sync_to_crm").prepare(scope(), Desk())
    assert everywhere == {"version": 3}


ANSWERED = "PATCH /api/leads/lead_1 answered "
PROBLEM = {"detail": "Invalid.", "errors": [{"pointer": "/stage", "detail": "no such stage"}]}


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (service(422, PROBLEM), Failed(ANSWERED + "422: Invalid. (/stage: no such stage)", retryable=False, status=422)),
        (service(404, {"detail": "gone"}), Failed(ANSWERED + "404: gone", retryable=False, status=404)),
        (service(409, {"detail": "taken"}), Failed(ANSWERED + "409: taken", retryable=False, status=409)),
        (service(409, {"detail": "busy"}, retry_after="1"), Failed(ANSWERED + "409: busy", retryable=True, status=409, retry_after=1)),
        (service(401, {"detail": "old"}), Failed(ANSWERED + "401: old", retryable=True, status=401)),
        (service(503, {"detail": "later"}, retry_after="7"), Failed(ANSWERED + "503: later", retryable=True, status=503, retry_after=7)),
        (OutboundFailed("cut", sent=True), Unknown("cut")),
        (OutboundFailed("refused", sent=False), Failed("refused", retryable=True)),
        (Unavailable("no token"), Failed("no token", retryable=True)),
    ],
)  # fmt: skip
async def test_what_a_service_answers_is_told_apart(answer: Any, outcome: Any) -> None:
    step: CallingStep = make("update_lead", set={"stage": "contacted"})
    assert await step.perform({"set": {"stage": "contacted"}}, call(Outside(answer))) == outcome
    assert step.unknown_policy == "retry"


# --- calls to the world ---


async def test_a_request_is_rendered_signed_and_sent_with_its_key() -> None:
    step: CallingStep = make(
        "http_request",
        url="https://a.example/leads/{{ lead.email }}",
        headers={"X-Score": "{{ lead.score }}", "Authorization": {"secret_id": "sec_1"}},
        body={"score": "{{ lead.score }}"},
        sign_with={"secret_id": "sec_2"},
    )
    request = await step.prepare(scope(), Desk())
    assert request == {
        "method": "POST",
        "url": "https://a.example/leads/ada%40example.com",
        "headers": {"X-Score": "70", "Authorization": {"secret_id": "sec_1"}},
        "body": {"score": 70},
        "sign_with": {"secret_id": "sec_2"},
    }
    assert step.secret_ids(request) == {"sec_1", "sec_2"}
    outside = Outside(outbound(200))
    await step.perform(request, call(outside, {"sec_1": "Bearer x", "sec_2": SECRET}))
    [asked] = outside.asked
    headers = asked["headers"]
    assert headers["authorization"] == "Bearer x"
    assert headers["x-score"] == "70"
    assert headers["content-type"] == "application/json"
    assert headers["idempotency-key"] == headers["webhook-id"] == "run_1:s:0:0"
    assert Webhook(SECRET).verify(asked["content"], headers) == {"score": 70}


async def test_a_header_cannot_be_split_by_what_a_lead_holds() -> None:
    step: CallingStep = make("http_request", url="https://a.example/", headers={"X-Name": "{{ lead.email }}"})
    with pytest.raises(StepFailed, match="X-Name"):
        await step.prepare(scope(email="a\r\nX-Evil: 1"), Desk())


async def test_an_empty_value_in_a_url_fails_the_step() -> None:
    step: CallingStep = make("http_request", method="DELETE", url="https://a.example/companies/{{ lead.company }}")
    with pytest.raises(TemplateError, match=r"lead\.company"):
        await step.prepare(scope(), Desk())


@pytest.mark.parametrize(
    ("method", "answer", "kind", "retryable"),
    [
        ("POST", outbound(200), Succeeded, None),
        ("POST", outbound(204, b""), Succeeded, None),
        ("POST", outbound(301), Failed, False),
        ("POST", outbound(400), Failed, False),
        ("POST", outbound(404), Failed, False),
        ("POST", outbound(408), Failed, True),
        ("POST", outbound(429, retry_after="3"), Failed, True),
        ("POST", outbound(500), Failed, True),
        ("POST", outbound(503), Failed, True),
        ("POST", outbound(502), Unknown, None),
        ("POST", outbound(504), Unknown, None),
        ("PUT", outbound(504), Failed, True),
        ("POST", OutboundRefused("private"), Failed, False),
        ("POST", OutboundFailed("no connection", sent=False), Failed, True),
        ("POST", OutboundFailed("timeout", sent=True), Unknown, None),
        ("PUT", OutboundFailed("timeout", sent=True), Unknown, None),
        ("GET", OutboundFailed("timeout", sent=True), Failed, True),
    ],
)
async def test_what_the_world_answers_is_told_apart(
    method: str, answer: Any, kind: type, retryable: bool | None
) -> None:
    step: CallingStep = make("http_request", method=method, url="https://a.example/")
    outcome = await step.perform(await step.prepare(scope(), Desk()), call(Outside(answer)))
    assert isinstance(outcome, kind)
    if isinstance(outcome, Failed):
        assert outcome.retryable is retryable
        assert outcome.retry_after == (3 if outcome.status == 429 else None)


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize("policy", ["stop", "verify"])
async def test_a_gateways_answer_is_unknown_where_the_step_says_that_repeating_matters(
    method: str, policy: str
) -> None:
    verify = {"verify": {"url": "https://a.example/"}} if policy == "verify" else {}
    step: CallingStep = make("http_request", method=method, url="https://a.example/", on_unknown=policy, **verify)
    for status in (502, 504):
        outcome = await step.perform(await step.prepare(scope(), Desk()), call(Outside(outbound(status))))
        assert isinstance(outcome, Unknown)


@pytest.mark.parametrize(
    ("fields", "policy"),
    [
        ({}, "stop"),
        ({"method": "PATCH"}, "stop"),
        ({"method": "GET"}, "retry"),
        ({"method": "PUT"}, "retry"),
        ({"method": "DELETE"}, "retry"),
        ({"on_unknown": "retry"}, "retry"),
        ({"method": "PUT", "on_unknown": "stop"}, "stop"),
        ({"on_unknown": "verify", "verify": {"url": "https://a.example/"}}, "verify"),
    ],
)
def test_what_follows_an_unknown_outcome_depends_on_method_and_wish(fields: dict[str, Any], policy: str) -> None:
    assert make("http_request", url="https://a.example/", **fields).unknown_policy == policy


@pytest.mark.parametrize(
    ("found", "answer", "kind"),
    [
        (None, outbound(200), Succeeded),
        (None, outbound(404), Failed),
        ("size(response.body.items) > 0", outbound(200, b'{"items": [1]}'), Succeeded),
        ("size(response.body.items) > 0", outbound(200, b'{"items": []}'), Failed),
        (None, outbound(410), Failed),
        (None, outbound(204, b""), Failed),
        ("size(response.body.items) > 0", outbound(404, b'{"detail": "none"}'), Failed),
        ("response.status == 302", outbound(302), Succeeded),
        (None, outbound(302), Unknown),
        (None, outbound(401), Unknown),
        (None, outbound(403), Unknown),
        ("size(response.body.items) > 0", outbound(403, b'{"items": []}'), Unknown),
        ("size(response.body.items) > 0", outbound(200, b'{"detail": "another shape"}'), Unknown),
        ("size(response.body.items) > 0", outbound(200, b"<html>"), Unknown),
        (None, outbound(500), Unknown),
        (None, outbound(429), Unknown),
        (None, OutboundFailed("cut", sent=True), Unknown),
        (None, OutboundRefused("gone"), Unknown),
    ],
)
async def test_a_look_up_says_arrived_or_not_or_cannot_tell(found: str | None, answer: Any, kind: type) -> None:
    verify = {"url": "https://a.example/{{ run.id }}", "headers": {"X-Api-Key": {"secret_id": "sec_1"}}}
    step: CallingStep = make(
        "http_request",
        url="https://a.example/",
        on_unknown="verify",
        verify={**verify, **({"found": found} if found else {})},
    )
    request = await step.prepare(scope(), Desk())
    assert step.secret_ids(request) == {"sec_1"}
    outside = Outside(answer)
    outcome = await step.verify(request, call(outside, {"sec_1": "key"}))
    assert isinstance(outcome, kind)
    assert isinstance(outcome, Succeeded | Unknown) or outcome.retryable
    assert outside.asked[0] | {"method": "GET", "url": "https://a.example/run_1"} == outside.asked[0]
    assert outside.asked[0]["headers"] == {"x-api-key": "key"}


# --- trying again ---


def test_retries_back_off_up_to_five_minutes_and_end() -> None:
    policy = RetryPolicy(attempts=12, backoff="1s")
    delays = [policy.delay_seconds(failed) for failed in range(1, 13)]
    assert delays[-1] is None
    for index, delay in enumerate(delays[:-1]):
        full = min(2**index, 300)
        assert delay is not None
        assert full * 0.8 <= delay <= full
    assert len({policy.delay_seconds(3) for _ in range(20)}) > 10  # runs that failed together come back apart


def test_a_retry_waits_as_long_as_it_was_asked_to() -> None:
    assert RetryPolicy(attempts=3, backoff="1s").delay_seconds(1, 30) == 30
    assert RetryPolicy(attempts=3, backoff="1s").delay_seconds(1, 10**9) == 3600
    assert RetryPolicy(attempts=1).delay_seconds(1, 30) is None
