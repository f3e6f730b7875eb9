"""HubSpot's answers by class, without any server: docs/crm-hubspot.md, row by row."""

import json
from dataclasses import asdict

import pytest

from crm_sync.calling import without_secrets
from crm_sync.connectors.answers import document_of
from crm_sync.connectors.hubspot import HubSpotConnector, Paths
from crm_sync.connectors.hubspot_answers import judge, judge_refresh
from crm_sync.connectors.protocol import (
    Call,
    Conflicting,
    Failed,
    Found,
    Gone,
    Judged,
    Missing,
    Operation,
    Record,
    Refused,
    Split,
    Tokens,
    Trouble,
    TroubleKind,
    Unsure,
    VendorAnswer,
    Written,
)
from crm_sync.credentials import SigningSecret, SigningSecrets


def record(number, record_id=None, **properties):
    return Record(f"lead_{number}", 1, record_id, properties)


def call(count=2, operation=Operation.UPSERT):
    linked = operation in (Operation.UPDATE, Operation.ARCHIVE)
    return Call(operation, tuple(record(number, f"{number}" if linked else None) for number in range(count)))


def answer(status, body=None, **headers):
    content = json.dumps(body).encode() if body is not None else b"<html></html>"
    return VendorAnswer(status, {name.replace("_", "-"): value for name, value in headers.items()}, content)


def error(message="no", category="VALIDATION_ERROR", **more):
    return {"status": "error", "message": message, "category": category, "correlationId": "c-1", **more}


@pytest.mark.parametrize(
    ("given", "kind", "wait"),
    [
        (answer(401, error(category="EXPIRED_AUTHENTICATION")), TroubleKind.UNAUTHORIZED, None),
        (answer(403, error(category="MISSING_SCOPES")), TroubleKind.FORBIDDEN, None),
        (answer(423, error()), TroubleKind.TRANSIENT, 2.0),
        (answer(477, error(), retry_after="7"), TroubleKind.TRANSIENT, 7.0),
        (answer(429, error("You have reached your secondly limit.", "RATE_LIMITS")), TroubleKind.RATE_LIMITED, 1.0),
        (answer(429, {"message": "x", "policyName": "TEN_SECONDLY_ROLLING"}), TroubleKind.RATE_LIMITED, 10.0),
        (answer(429, {"message": "x", "policyName": "SECONDLY"}, retry_after="3"), TroubleKind.RATE_LIMITED, 3.0),
        (answer(429, {"message": "x", "policyName": "DAILY"}), TroubleKind.DAILY_LIMIT, None),
        (answer(500, error()), TroubleKind.TRANSIENT, None),
        (answer(503), TroubleKind.TRANSIENT, None),
        (answer(502), TroubleKind.UNANSWERED, None),
        (answer(504), TroubleKind.UNANSWERED, None),
        (answer(524), TroubleKind.UNANSWERED, None),
        (answer(301), TroubleKind.TRANSIENT, None),
        (answer(404, {"message": "resource not found"}), TroubleKind.TRANSIENT, None),
        (answer(404, error("resource not found", "OBJECT_NOT_FOUND")), TroubleKind.TRANSIENT, None),
        (answer(410), TroubleKind.TRANSIENT, None),
        (answer(400, error('Property "plan" does not exist: PROPERTY_DOESNT_EXIST')), TroubleKind.UNMAPPED, None),
        (
            answer(400, error('Property "ao_lead_id" does not exist: PROPERTY_DOESNT_EXIST')),
            TroubleKind.UNPREPARED,
            None,
        ),
    ],
)
def test_answers_that_are_about_the_connection(given, kind, wait):
    verdict = judge(call(), given)
    assert isinstance(verdict, Trouble)
    assert (verdict.kind, verdict.retry_after) == (kind, wait)


@pytest.mark.parametrize("status", [400, 409, 413, 422])
def test_a_refusal_of_several_records_is_split_and_of_one_is_its_own(status):
    assert isinstance(judge(call(2), answer(status, error())), Split)
    verdict = judge(call(1), answer(status, error()))
    assert isinstance(verdict, Judged)
    assert isinstance(verdict.outcomes["lead_0"], Refused)


def test_a_404_is_about_a_record_only_if_it_names_one():
    gone = answer(404, error("Object not found.", "OBJECT_NOT_FOUND", context={"id": ["0"]}))
    verdict = judge(call(1, Operation.UPDATE), gone)
    assert isinstance(verdict, Judged)
    assert isinstance(verdict.outcomes["lead_0"], Gone)
    for operation in (Operation.UPSERT, Operation.UPDATE):
        verdict = judge(call(1, operation), answer(404, error("resource not found", "OBJECT_NOT_FOUND")))
        assert isinstance(verdict, Trouble)
        assert "check the API version" in verdict.error.message


@pytest.mark.parametrize("status", [200, 207, 400, 429])
@pytest.mark.parametrize(
    "body",
    [
        {"results": 5, "errors": 3},
        {"results": [7, {"id": "77", "properties": "x"}]},
        {"errors": [{"context": ["x"]}, {"context": {"objectWriteTraceId": 5, "ids": 5}}]},
        {"errors": [{"message": 5, "category": [], "correlationId": {}, "status": "²", "context": {"id": [[]]}}]},
        {"message": 5, "category": {}, "correlationId": 5, "policyName": []},
    ],
)
def test_an_answer_of_another_shape_is_read_as_far_as_it_goes(status, body):
    for operation in (Operation.UPSERT, Operation.UPDATE, Operation.LOOK_UP):
        verdict = judge(call(2, operation), answer(status, body))
        if isinstance(verdict, Judged):
            assert set(verdict.outcomes) == {"lead_0", "lead_1"}
            assert not [each for each in verdict.outcomes.values() if isinstance(each, Written)]


def test_an_errors_write_id_may_come_without_a_list():
    errors = [error("bad", context={"objectWriteTraceId": "lead_0:1"})]
    verdict = judge(call(1), answer(200, {"results": [], "errors": errors}))
    assert isinstance(verdict, Judged)
    assert isinstance(verdict.outcomes["lead_0"], Refused)


def test_a_conflict_names_the_record_in_the_way():
    verdict = judge(call(1), answer(409, error("Contact already exists. Existing ID: 37765128953", "CONFLICT")))
    assert isinstance(verdict, Judged)
    outcome = verdict.outcomes["lead_0"]
    assert isinstance(outcome, Conflicting)
    assert outcome.existing_id == "37765128953"
    assert outcome.error.correlation_id == "c-1"


def test_only_a_record_whose_id_comes_back_is_written():
    results = [{"id": "7", "new": True, "objectWriteTraceId": "lead_0:1"}, {"objectWriteTraceId": "lead_1:1"}]
    verdict = judge(call(3), answer(200, {"status": "COMPLETE", "results": results}))
    assert isinstance(verdict, Judged)
    assert verdict.outcomes["lead_0"] == Written("7", True)
    assert isinstance(verdict.outcomes["lead_1"], Unsure)
    assert isinstance(verdict.outcomes["lead_2"], Unsure)


@pytest.mark.parametrize("body", [{}, {"results": []}, {"results": [], "errors": []}, None])
def test_an_empty_success_is_never_ok(body):
    verdict = judge(call(2), answer(200, body))
    assert isinstance(verdict, Judged)
    assert {type(outcome) for outcome in verdict.outcomes.values()} == {Unsure}


def test_a_207_is_told_apart_by_write_ids_and_by_ids():
    errors = [
        error("bad", context={"objectWriteTraceId": ["lead_0:1"]}),
        error("gone", "OBJECT_NOT_FOUND", context={"ids": ["1"]}),
        error("busy", "INTERNAL_ERROR", context={"objectWriteTraceId": ["lead_2:1"]}),
    ]
    body = {"results": [{"id": "33", "objectWriteTraceId": "lead_3:1"}], "numErrors": 3, "errors": errors}
    verdict = judge(call(5, Operation.UPDATE), answer(207, body))
    assert isinstance(verdict, Judged)
    kinds = [type(verdict.outcomes[f"lead_{number}"]) for number in range(5)]
    assert kinds == [Refused, Gone, Failed, Written, Unsure]


def test_what_a_look_up_does_not_find_is_missing():
    found = {"id": "9", "properties": {"ao_lead_id": "lead_0"}}
    verdict = judge(call(2, Operation.LOOK_UP), answer(207, {"results": [found], "errors": []}))
    assert isinstance(verdict, Judged)
    assert verdict.outcomes["lead_0"] == Found("9", {"ao_lead_id": "lead_0"})
    assert verdict.outcomes["lead_1"] == Missing()


def test_no_identity_comes_twice_in_a_batch_and_none_is_longer_than_a_hundred():
    connector = HubSpotConnector("https://api.hubapi.com", "2026-03")
    many = [record(number, email=f"{number}@example.com") for number in range(130)]
    assert [len(each.records) for each in connector.calls(many)] == [100, 30]
    twins = [record(1, email="a@example.com"), record(2, email="A@Example.com"), record(3, "5"), record(4, "5")]
    batches = [[each.lead_id for each in batch.records] for batch in connector.calls(twins)]
    assert batches == [["lead_3"], ["lead_4"], ["lead_1"], ["lead_2"]]


def test_the_version_is_one_setting():
    assert Paths("https://h/", "2026-03").contacts == "https://h/crm/objects/2026-03/contacts"
    assert Paths("https://h", "v3").contacts == "https://h/crm/v3/objects/contacts"
    assert Paths("https://h", "v3").properties == "https://h/crm/v3/properties/contacts"


def test_a_refused_refresh_token_needs_a_person_and_all_else_may_pass():
    grant = {"access_token": "a", "refresh_token": "r", "expires_in": 1800}
    assert judge_refresh(answer(200, grant)) == Tokens("a", "r", 1800.0)
    kinds = []
    for status in (400, 401, 500, 502):
        verdict = judge_refresh(answer(status, error()))
        assert isinstance(verdict, Trouble)
        kinds.append(verdict.kind)
    assert kinds[:2] == [TroubleKind.FORBIDDEN] * 2
    assert TroubleKind.FORBIDDEN not in kinds[2:]


def test_archiving_is_done_for_the_records_that_no_error_names():
    archived = judge(call(operation=Operation.ARCHIVE), answer(204))
    assert archived == Judged({"lead_0": Written("0"), "lead_1": Written("1")})
    gone = error("gone", "OBJECT_NOT_FOUND", context={"ids": ["1"]})
    judged = judge(call(operation=Operation.ARCHIVE), answer(207, {"results": [], "errors": [gone]}))
    assert isinstance(judged, Judged)
    assert judged.outcomes["lead_0"] == Written("0")
    assert isinstance(judged.outcomes["lead_1"], Gone)


def test_an_error_that_names_no_record_leaves_an_archiving_open():
    answered = answer(
        207, {"results": [], "errors": [error("busy", "INTERNAL_ERROR"), error("x", context={"ids": ["1"]})]}
    )
    judged = judge(call(3, Operation.ARCHIVE), answered)
    assert isinstance(judged, Judged)
    assert [type(judged.outcomes[f"lead_{number}"]) for number in range(3)] == [Unsure, Refused, Unsure]


def test_what_is_kept_of_an_error_can_be_stored_and_announced():
    """PostgreSQL takes no NUL, an event has a limit, and an answer may have both: a lead must not hang on that."""
    given = answer(400, error("no\0body", "C" * 300_000, correlationId="c\0" * 300_000))
    verdict = judge(call(1), given)
    assert isinstance(verdict, Judged)
    refused = verdict.outcomes["lead_0"]
    assert isinstance(refused, Refused)
    assert refused.error.message == "no\ufffdbody"
    assert len(refused.error.category or "") == 200
    assert "\0" not in (refused.error.correlation_id or "\0")
    errors = [
        error("x" * 300_000, "C" * 300_000, id="i" * 300_000, context={"ids": ["lead_0"]}) | {"correlationId": None}
    ]
    verdict = judge(call(1), answer(207, {"results": [], "errors": errors}))
    assert isinstance(verdict, Judged)
    assert len(json.dumps(asdict(verdict.outcomes["lead_0"]))) < 2_000


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 300 + b"]" * 300,
        b'{"a":' * 600 + b'"\\u0000whsec_ab/cdefgh"' + b"}" * 600,
        b'{"message": "whsec_ab\\/cdefgh"}',
        b"<p>whsec_ab/cdefgh</p>",
        b"\xff whsec_ab/cdefgh",
        b'{"message": "whsec_ab/cdefgh' + b"\\n" * 40_000 + b'"}',
    ],
)
def test_a_secret_is_taken_out_of_an_answer_however_it_is_written(body):
    secrets = SigningSecrets((SigningSecret("whsec_ab/cdefgh"),))
    shown = without_secrets(body, secrets)
    assert "cdefgh" not in str(document_of(VendorAnswer(400, {}, shown))) + shown.decode(errors="replace")
