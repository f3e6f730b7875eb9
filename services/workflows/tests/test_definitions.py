"""A definition is parsed and checked as a whole; every wrong place is named by its pointer."""

from typing import Any

import cel
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from workflows.engine.definition import MAX_NESTING, MAX_STEPS, DefinitionInvalid, Problem, parse_definition
from workflows.engine.graph import draw
from workflows.engine.secrets import secret_places, take_secrets
from workflows.engine.validation import check_definition
from workflows.steps import STEP_TYPES

STOP = {"id": "end", "type": "stop"}
CALL = {"id": "call", "type": "http_request", "url": "https://a.example/x"}


def definition(*steps: Any, trigger: Any = None) -> dict[str, Any]:
    return {"trigger": trigger or {"type": "manual"}, "steps": list(steps), "allow_reentry": False}


def complaints(document: dict[str, Any]) -> dict[str, str]:
    """Every complaint by its pointer."""
    with pytest.raises(DefinitionInvalid) as refused:
        check_definition(document, STEP_TYPES)
    return {problem.pointer: problem.detail for problem in refused.value.problems}


EVERYTHING = definition(
    {"id": "owner", "type": "assign_owner", "users": ["user_1", "user_2"]},
    {"id": "stage", "type": "update_lead", "set": {"stage": "contacted", "score": "{{ lead.custom.score }}"}},
    {
        "id": "check",
        "type": "condition",
        "if": "lead.score > 50 && steps.owner.owner_id != ''",
        "then": [
            {
                **CALL,
                "body": {"x": "{{ lead.score }}"},
                "retry": {"attempts": 3, "backoff": "2s"},
                "on_unknown": "retry",
            },
            {"id": "nested", "type": "condition", "if": "steps.call.status == 200", "then": [STOP]},
        ],
        "else": [{"id": "pause", "type": "wait", "duration": "1d12h"}],
    },
    {"id": "until", "type": "wait", "until": "lead.custom.call_at"},
    {
        "id": "reply",
        "type": "wait_for_event",
        "event": "lead.updated",
        "condition": 'lead.stage == "qualified"',
        "timeout": "3d",
        "on_timeout": [
            {"id": "give_up", "type": "stop", "outcome": "failed", "reason": "no answer from {{ lead.email }}"}
        ],
    },
    {
        "id": "crm",
        "type": "wait_for_event",
        "event": "crm.lead.synced",
        "condition": "event.version >= lead.version",
        "timeout": "1h",
    },
    {"id": "sync", "type": "sync_to_crm", "connection_id": "conn_1"},
    trigger={"type": "event", "event": "lead.updated", "condition": '"score" in changed && previous.score < 50'},
)


def test_every_kind_of_step_is_understood() -> None:
    parsed, graph = check_definition(EVERYTHING, STEP_TYPES)
    assert parsed.trigger_event == "lead.updated"
    assert {step.type for step in graph.steps.values()} == set(STEP_TYPES)
    assert parsed.pointers["end"] == "/steps/2/then/1/then/0"


def test_the_order_of_steps_is_drawn() -> None:
    _, graph = check_definition(EVERYTHING, STEP_TYPES)
    assert graph.first == "owner"
    assert graph.after("owner") == "stage"
    assert graph.after("check", "then") == "call"
    assert graph.after("check", "else") == "pause"
    assert graph.after("pause") == "until"
    assert graph.after("nested", "then") == "end"
    assert graph.after("nested", "else") == "until"
    assert graph.after("reply") == "crm"
    assert graph.after("reply", "on_timeout") == "give_up"
    assert graph.after("sync") is None
    assert [step.id for step in graph.earlier["pause"]] == ["owner", "stage", "check"]
    assert [step.id for step in graph.earlier["until"]] == ["owner", "stage", "check", "call", "nested", "end", "pause"]


@pytest.mark.parametrize(
    ("document", "pointer", "detail"),
    [
        ({"trigger": {"type": "manual"}}, "/steps", "must be a list"),
        (definition(), "/steps", "at least one step"),
        ({"steps": [STOP]}, "/trigger", "a trigger is"),
        (definition(STOP, trigger={"type": "cron"}), "/trigger/type", "a trigger is"),
        (definition(STOP, trigger={"type": ["event"]}), "/trigger/type", "a trigger is"),
        (definition(STOP, trigger={"type": "manual", "event": "lead.created"}), "/trigger/event", "unknown field"),
        (definition(STOP, trigger={"type": "event"}), "/trigger/event", "field required"),
        (definition(STOP, trigger={"type": "event", "event": "lead.merged"}), "/trigger/event", "input should be"),
        (
            definition(STOP, trigger={"type": "event", "event": "lead.created", "condition": "lead.("}),
            "/trigger/condition",
            "not valid CEL",
        ),
        (
            definition(STOP, trigger={"type": "event", "event": "lead.created", "condition": "x == 1"}),
            "/trigger/condition",
            "'x' is not known here",
        ),
        (
            definition(STOP, trigger={"type": "event", "event": "lead.created", "condition": "steps.a.b"}),
            "/trigger/condition",
            "'steps' is not known",
        ),
        (
            definition(STOP, trigger={"type": "event", "event": "lead.created", "condition": "lead.mail == ''"}),
            "/trigger/condition",
            "no field 'mail'",
        ),
        (definition("x"), "/steps/0", "must be an object"),
        (definition({"id": "a"}), "/steps/0/type", "field required"),
        (
            definition({"id": "a", "type": "send_email"}),
            "/steps/0/type",
            "unknown step type; the types are assign_owner",
        ),
        (definition({"id": "a", "type": 5}), "/steps/0/type", "unknown step type"),
        (definition({"type": "stop"}), "/steps/0/id", "field required"),
        (definition({"id": "A b", "type": "stop"}), "/steps/0/id", "lower case"),
        (definition({"id": "in", "type": "stop"}), "/steps/0/id", "no word of CEL"),
        (definition(CALL, CALL), "/steps/1/id", "also the id of /steps/0"),
        (definition({**STOP, "colour": "red"}), "/steps/0/colour", "unknown field"),
        (definition({"id": "c", "type": "condition", "if": "true ==", "then": [STOP]}), "/steps/0/if", "not valid CEL"),
        (definition({"id": "c", "type": "condition", "if": "lead.tags.all(t, true)"}), "/steps/0/if", "not allowed"),
        (definition({"id": "c", "type": "condition", "if": "lead.x == 1"}), "/steps/0/if", "lead has no field 'x'"),
        (
            definition({"id": "c", "type": "condition", "if": "steps.c.result"}),
            "/steps/0/if",
            "no step 'c' runs before",
        ),
        (
            definition({"id": "c", "type": "condition", "if": "event.version > 1"}),
            "/steps/0/if",
            "'event' is not known",
        ),
        (
            definition({"id": "c", "type": "condition", "if": "lead.score > 1", "then": {}}),
            "/steps/0/then",
            "list of steps",
        ),
        (
            definition(
                {
                    "id": "c",
                    "type": "condition",
                    "if": "lead.score > 1",
                    "then": [CALL],
                    "else": [{"id": "s", "type": "stop", "reason": "{{ steps.call.status }}"}],
                }
            ),
            "/steps/0/else/0/reason",
            "no step 'call' runs before",
        ),
        (
            definition(CALL, {"id": "s", "type": "stop", "reason": "{{ steps.call.nothing }}"}),
            "/steps/1/reason",
            "no output 'nothing'",
        ),
        (definition({"id": "u", "type": "update_lead", "set": {}}), "/steps/0/set", "at least one field"),
        (definition({"id": "u", "type": "update_lead", "set": {"id": "x"}}), "/steps/0/set", "cannot set id"),
        (definition({"id": "u", "type": "update_lead", "set": {"stage": "won"}}), "/steps/0/set", "stage is one of"),
        (
            definition({"id": "u", "type": "update_lead", "set": {"score": 101}}),
            "/steps/0/set",
            "score is a whole number",
        ),
        (
            definition({"id": "u", "type": "update_lead", "set": {"score": True}}),
            "/steps/0/set",
            "score is a whole number",
        ),
        (
            definition({"id": "u", "type": "update_lead", "set": {"title": "{{ lead.email }"}}),
            "/steps/0/set",
            "placeholder",
        ),
        (
            definition({"id": "u", "type": "update_lead", "set": {"title": "{{ lead.mail }}"}}),
            "/steps/0/set",
            "no field 'mail'",
        ),
        (definition({"id": "a", "type": "assign_owner", "users": []}), "/steps/0/users", "at least 1"),
        (definition({"id": "a", "type": "assign_owner", "users": ["u", "u"]}), "/steps/0/users", "twice"),
        (definition({"id": "a", "type": "assign_owner", "users": [5]}), "/steps/0/users/0", "valid string"),
        (definition({"id": "w", "type": "wait"}), "/steps/0", "either a duration or until"),
        (
            definition({"id": "w", "type": "wait", "duration": "1h", "until": "lead.custom.x"}),
            "/steps/0",
            "either a duration or until",
        ),
        (definition({"id": "w", "type": "wait", "duration": "soon"}), "/steps/0/duration", "written like"),
        (definition({"id": "w", "type": "wait", "duration": "400d"}), "/steps/0/duration", "at most 365d"),
        (
            definition({"id": "w", "type": "wait", "until": "trigger.time"}),
            "/steps/0/until",
            "names a field of the lead",
        ),
        (definition({"id": "w", "type": "wait", "until": "lead.when"}), "/steps/0/until", "no field 'when'"),
        (
            definition({"id": "w", "type": "wait_for_event", "event": "lead.updated", "timeout": "1h"}),
            "/steps/0/condition",
            "field required",
        ),
        (
            definition(
                {"id": "w", "type": "wait_for_event", "event": "user.created", "condition": "true", "timeout": "1h"}
            ),
            "/steps/0/event",
            "input should be",
        ),
        (
            definition(
                {
                    "id": "w",
                    "type": "wait_for_event",
                    "event": "lead.updated",
                    "condition": "event.version > 1",
                    "timeout": "1h",
                }
            ),
            "/steps/0/condition",
            "'event' is not known",
        ),
        (
            definition(
                {
                    "id": "w",
                    "type": "wait_for_event",
                    "event": "crm.lead.synced",
                    "condition": "event.score > 1",
                    "timeout": "1h",
                }
            ),
            "/steps/0/condition",
            "event has no field 'score'",
        ),
        (definition({**CALL, "url": "ftp://a.example/"}), "/steps/0/url", "begins with https://"),
        (definition({**CALL, "url": "https://{{ lead.company }}/x"}), "/steps/0/url", "behind the host only"),
        (definition({**CALL, "url": "https://a.example{{ lead.company }}/x"}), "/steps/0/url", "behind the host only"),
        (definition({**CALL, "url": "{{ lead.company }}"}), "/steps/0/url", "begins with https://"),
        (definition({**CALL, "url": "https://a.example/" + "x" * 2000}), "/steps/0/url", "at most 2000"),
        (definition({**CALL, "headers": {"Authorization": "Bearer x"}}), "/steps/0/headers", "is a secret"),
        (definition({**CALL, "headers": {"Host": "x"}}), "/steps/0/headers", "set by the system"),
        (definition({**CALL, "headers": {"Webhook-Id": "x"}}), "/steps/0/headers", "set by the system"),
        (definition({**CALL, "headers": {"a b": "x"}}), "/steps/0/headers", "not a header's name"),
        (definition({**CALL, "headers": {"X-A": {"secret": "a\nb"}}}), "/steps/0/headers", "a header cannot have"),
        (definition({**CALL, "headers": {"X-A": {"secret": 5}}}), "/steps/0/headers/X-A/secret", "valid string"),
        (definition({**CALL, "headers": {"X-A": {"secret": "a", "secret_id": "b"}}}), "/steps/0/headers/X-A", "once"),
        (definition({**CALL, "headers": {"X-A": "{{ lead.mail }}"}}), "/steps/0/headers/X-A", "no field 'mail'"),
        (definition({**CALL, "sign_with": {"secret": "whsec_%%%"}}), "/steps/0/sign_with", "signing secret"),
        (definition({**CALL, "timeout": "11s"}), "/steps/0/timeout", "at most 10s"),
        (definition({**CALL, "retry": {"attempts": 0}}), "/steps/0/retry/attempts", "greater than or equal to 1"),
        (definition({**CALL, "retry": {"attempts": 21}}), "/steps/0/retry/attempts", "less than or equal to 20"),
        (definition({**CALL, "retry": {"attempts": 2, "backoff": "1h"}}), "/steps/0/retry/backoff", "at most 5m"),
        (definition({**CALL, "on_unknown": "ignore"}), "/steps/0/on_unknown", "input should be"),
        (definition({**CALL, "on_unknown": "verify"}), "/steps/0", "belong together"),
        (definition({**CALL, "verify": {"url": "https://a.example/"}}), "/steps/0", "belong together"),
        (
            definition(
                {**CALL, "on_unknown": "verify", "verify": {"url": "https://a.example/", "found": "respons.status"}}
            ),
            "/steps/0/verify/found",
            "'respons' is not known",
        ),
        (definition({**CALL, "method": "GET", "body": {}}), "/steps/0", "has no body"),
        (definition({**CALL, "method": "TRACE"}), "/steps/0/method", "input should be"),
    ],
)
def test_a_wrong_place_is_named(document: dict[str, Any], pointer: str, detail: str) -> None:
    found = complaints(document)
    assert pointer in found, found
    assert detail in found[pointer]


def test_every_wrong_place_is_named_at_once() -> None:
    found = complaints(definition({"id": "a", "type": "x"}, {"id": "B", "type": "stop"}, 5, trigger={"type": "x"}))
    assert set(found) == {"/steps/0/type", "/steps/1/id", "/steps/2", "/trigger/type"}


@pytest.mark.parametrize(
    ("steps", "pointer"),
    [
        ([STOP, CALL], "/steps/1"),
        (
            [
                {
                    "id": "c",
                    "type": "condition",
                    "if": "lead.score > 1",
                    "then": [STOP],
                    "else": [{**STOP, "id": "e2"}],
                },
                CALL,
            ],
            "/steps/1",
        ),
        ([{"id": "c", "type": "condition", "if": "lead.score > 1", "then": [STOP, CALL]}], "/steps/0/then/1"),
        ([{"id": "c", "type": "condition", "if": "1 < 2", "then": [CALL], "else": [STOP]}], "/steps/0/else/0"),
        ([{"id": "c", "type": "condition", "if": "1 > 2", "then": [CALL]}], "/steps/0/then/0"),
        ([{"id": "c", "type": "condition", "if": "1 < 2", "then": [STOP]}, CALL], "/steps/1"),
    ],
)
def test_a_step_that_can_never_be_reached_is_told(steps: list[Any], pointer: str) -> None:
    found = complaints(definition(*steps))
    assert "never be reached" in found[pointer]


@pytest.mark.parametrize(
    "steps",
    [
        [{"id": "c", "type": "condition", "if": "lead.score > 1", "then": [STOP]}, CALL],
        [{"id": "c", "type": "condition", "if": "lead.score > 1", "then": [], "else": [STOP]}, CALL],
        [
            {
                "id": "w",
                "type": "wait_for_event",
                "event": "lead.updated",
                "condition": "lead.score > 1",
                "timeout": "1h",
                "on_timeout": [STOP],
            },
            CALL,
        ],
    ],
)
def test_a_step_that_some_way_reaches_is_fine(steps: list[Any]) -> None:
    _, graph = check_definition(definition(*steps), STEP_TYPES)
    assert graph.after(steps[0]["id"]) == "call"


def test_too_many_steps_are_refused() -> None:
    steps = [{"id": f"s{number}", "type": "wait", "duration": "1s"} for number in range(MAX_STEPS + 1)]
    assert f"at most {MAX_STEPS} steps" in complaints(definition(*steps))["/steps"]


def test_steps_beyond_the_limit_are_not_even_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    compile_text = cel.compile

    def count(text: str) -> Any:
        compiled.append(text)
        return compile_text(text)

    monkeypatch.setattr(cel, "compile", count)
    many = [{"id": f"s{number}", "type": "condition", "if": f"lead.score > {number}0001"} for number in range(200)]
    for steps in (many, [{**many[0], "then": many[1:]}]):
        compiled.clear()
        assert f"at most {MAX_STEPS} steps" in complaints(definition(*steps))["/steps"]
        assert len(compiled) <= MAX_STEPS


def test_nested_steps_count_too() -> None:
    nested = [{"id": f"s{number}", "type": "wait", "duration": "1s"} for number in range(MAX_STEPS)]
    document = definition({"id": "c", "type": "condition", "if": "lead.score > 1", "then": nested})
    assert f"at most {MAX_STEPS} steps" in complaints(document)["/steps"]


def test_steps_nested_too_deep_are_refused() -> None:
    inner: dict[str, Any] = {"id": "leaf", "type": "stop"}
    for number in range(MAX_NESTING + 1):
        inner = {"id": f"c{number}", "type": "condition", "if": "lead.score > 1", "then": [inner]}
    found = complaints(definition(inner))
    assert any("nested more than" in detail for detail in found.values())


def test_secrets_are_taken_out_and_replaced_by_ids() -> None:
    document = definition(
        {
            "id": "c",
            "type": "condition",
            "if": "lead.score > 1",
            "then": [{**CALL, "headers": {"Authorization": {"secret": "Bearer x"}, "X-~Y": {"secret_id": "sec_old"}}}],
        },
        {**CALL, "id": "signed", "sign_with": {"secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}},
    )
    parsed = parse_definition(document, STEP_TYPES)
    places = list(secret_places(parsed, draw(parsed).steps))
    assert {place.pointer for place in places} == {
        "/steps/0/then/0/headers/Authorization",
        "/steps/0/then/0/headers/X-~0Y",
        "/steps/1/sign_with",
    }
    numbers = iter(range(9))
    cleaned, taken = take_secrets(document, places, lambda: f"sec_{next(numbers)}")
    assert taken == {"sec_0": "Bearer x", "sec_1": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}
    assert cleaned["steps"][0]["then"][0]["headers"] == {
        "Authorization": {"secret_id": "sec_0"},
        "X-~Y": {"secret_id": "sec_old"},
    }
    assert cleaned["steps"][1]["sign_with"] == {"secret_id": "sec_1"}
    assert "secret" in document["steps"][1]["sign_with"]
    check_definition(cleaned, STEP_TYPES)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12)
    | st.sampled_from(["condition", "stop", "http_request", "wait", "wait_for_event", "update_lead", "manual", "event", "{{ lead.x }}"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(["id", "type", "if", "then", "else", "steps", "trigger", "event", "url", "headers", "secret", "set", "users", "x"]),
        inner,
        max_size=6,
    ),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.fixed_dictionaries(
        {}, optional={"trigger": json_values, "steps": st.lists(json_values, max_size=4) | json_values}
    )
)
def test_any_json_is_a_definition_or_is_refused_with_pointers(document: dict[str, Any]) -> None:
    problems: tuple[Problem, ...] = ()
    try:
        check_definition(document, STEP_TYPES)
    except DefinitionInvalid as refused:
        problems = refused.problems
        event("refused")
    assert all(problem.pointer == "" or problem.pointer.startswith("/") for problem in problems)
    assert all(problem.detail for problem in problems)
