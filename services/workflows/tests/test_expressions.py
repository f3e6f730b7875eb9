"""Conditions are CEL without what could cost time, and never stop a run."""

import sys
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workflows.engine.expression import EVALUATION_ERRORS, MAX_CHARACTERS, Expression, bounded

LEAD: dict[str, Any] = {
    "email": "ada@example.com",
    "company": None,
    "score": 70,
    "stage": "new",
    "tags": ["vip"],
    "custom": {"plan": "pro", "ratio": 1.5},
}
SCOPE: dict[str, Any] = {
    "lead": LEAD,
    "changed": ["stage"],
    "previous": {"stage": "lost"},
    "steps": {"call": {"status": 200, "body": {"ok": True}}},
}


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("lead.score >= 50", True),
        ("lead.score >= 50.5", True),
        ("lead.score > 70", False),
        ('lead.stage == "new" && "vip" in lead.tags', True),
        ('"stage" in changed && previous.stage == "lost"', True),
        ('lead.stage in ["lost", "new"]', True),
        ("lead.company == null", True),
        ("has(lead.custom.plan)", True),
        ("has(lead.custom.nothing)", False),
        ('lead.custom["plan"] == "pro"', True),
        ('lead.email.endsWith("@example.com")', True),
        ('lead.email.matches("^[a-z]+@")', True),
        ("size(lead.tags) == 1", True),
        ("steps.call.body.ok", True),
        ("!steps.call.body.ok", False),
        ("lead.custom.ratio < 2 // comment", True),
        ("true", True),
    ],
)
def test_a_condition_is_judged(text: str, met: bool) -> None:
    verdict = Expression(text).judge(SCOPE)
    assert (verdict.met, verdict.note) == (met, None)


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("lead.company > 50", "could not be evaluated"),
        ("lead.custom.nothing == 1", "could not be evaluated"),
        ("lead.tags[7] == 1", "could not be evaluated"),
        ("steps.other.status == 200", "could not be evaluated"),
        ("lead.score", "gave int instead of true or false"),
        ("lead.stage", "gave str instead of true or false"),
        ("size(5) > 1", "could not be evaluated"),
    ],
)
def test_what_cannot_be_evaluated_is_not_met_and_says_why(text: str, note: str) -> None:
    verdict = Expression(text).judge(SCOPE)
    assert not verdict.met
    assert note in (verdict.note or "")


@pytest.mark.parametrize(
    "text",
    [
        "lead.tags.all(t, t == 'x')",
        "lead.tags.exists(t, t == 'x')",
        "lead.tags.exists_one(t, t == 'x')",
        "lead.tags.map(t, t) == []",
        "lead.tags.filter(t, t == 'x') == []",
        "lead.score + 1 > 2",
        "lead.score * 2 > 2",
        "lead.score > 1 ? true : false",
        "string(lead.score) == '1'",
        "type(lead) == map",
        "timestamp('2020-01-01T00:00:00Z') < now",
        "cel.bind(x, 1, x == 1)",
        "-lead.score < 1",
    ],
)
def test_what_could_be_expensive_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not allowed"):
        Expression(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "lead.",
        "lead.score >",
        "(",
        ")",
        "lead.score = 1",
        "'",
        '"',
        "a b",
        "99999999999999999999 > 1",
        '"\\ud800" == "a"',
    ],
)
def test_what_is_no_cel_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not valid CEL"):
        Expression(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('lead.email.matches("(")', "not a regular expression"),
        ('lead.email.matches("a{30}")', "counted repetition"),
        ("lead.email.matches('a\\x7b30}')", "counted repetition"),
        ('lead.email.matches("a\\u007b30}")', "counted repetition"),
        ('lead.email.matches("a\\17330}")', "counted repetition"),
        ('lead.email.matches(r"a{30}")', "counted repetition"),
        ('lead.email.matches("""a{30}""")', "counted repetition"),
        ('lead.email . matches /* */ ("a")', "not valid CEL"),
        ('lead.email.matches(b"a")', "not a"),
        (" || ".join(['lead.email.matches("' + "a" * 101 + '")'] * 2), "at most"),
        ('lead.email.matches("' + "a" * 300 + '")', "at most"),
        ("lead.email.matches(lead.stage)", "written out in quotes"),
        ("lead.custom{x: 1} == 1", "messages cannot be built"),
        (".lead.score > 1", "begin with a dot"),
        ("lead.score > 1 || " * 100 + "true", f"at most {MAX_CHARACTERS} characters"),
    ],
)
def test_other_refusals_say_why(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Expression(text)


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("lead.score > 1 && lead.custom.plan == 'x'", {"lead.score", "lead.custom.plan"}),
        ('lead.custom["a.b"] == "lead.nope"', {"lead.custom.a.b"}),
        ('lead.email.startsWith("x")', {"lead.email"}),
        ('"changed" in changed', {"changed"}),
        ("has(steps.call.body.x)", {"steps.call.body.x"}),
        ("size(lead.tags) > steps.call.status", {"lead.tags", "steps.call.status"}),
        ("r'lead\\.x' == lead.stage // lead.nope", {"lead.stage"}),
        ('lead.stage in {"lead.x": 1}', {"lead.stage"}),
        ("lead . score > 1", {"lead.score"}),
        ("true && null == null", set()),
    ],
)
def test_the_paths_of_a_condition_are_known(text: str, paths: set[str]) -> None:
    assert {str(path) for path in Expression(text).paths} == paths


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("1 < 2", True), ("1 > 2", False), ("lead.score > 1", None)]
)
def test_a_condition_that_reads_nothing_is_constant(text: str, value: bool | None) -> None:
    assert Expression(text).constant() is value


def test_a_condition_sees_a_bounded_world() -> None:
    deep: Any = "end"
    for _ in range(30):
        deep = {"x": deep}
    seen = bounded(
        {
            "text": "x" * 50_000,
            "items": list(range(5_000)),
            "fields": dict.fromkeys(map(str, range(5_000))),
            "deep": deep,
            "nan": float("nan"),
            "when": object(),
        }
    )
    assert len(seen["text"]) == 10_000
    assert len(seen["items"]) == len(seen["fields"]) == 1_000
    assert seen["nan"] is None
    assert seen["when"] is None
    depth = 0
    while isinstance(seen, dict):
        seen, depth = seen.get("deep", seen.get("x")), depth + 1
    assert depth <= 12


def test_the_dearest_condition_allowed_takes_milliseconds() -> None:
    big = bounded({"a": ["x" * 10_000] * 1_000, "b": ["x" * 10_000] * 1_000})
    expression = Expression(" && ".join(["lead.a == lead.b"] * 50))
    began = time.perf_counter()
    assert expression.judge({"lead": big}).met
    assert time.perf_counter() - began < 2


FRAGMENTS = st.sampled_from(
    [
        "lead.score", "lead.custom", "lead", "changed", "previous.stage", "'x'", "1", "1.5", "null", "true", "[", "]", "(", ")",
        "{", "}", ".", ",", ":", "&&", "||", "!", ">", "<", "==", "!=", "in", "has(", "size(", ".matches(", ".all(x,", "-", "+", "?",
        "\\", '"', "'''", "r'", "b'", "//", "\n", "0x1F", "1u", "\x00", "é", "😀",
    ]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(FRAGMENTS, max_size=14).map(" ".join) | st.text(max_size=40))
def test_any_text_is_a_condition_or_a_value_error(text: str) -> None:
    try:
        expression = Expression(text)
    except ValueError:
        return
    verdict = expression.judge(SCOPE)
    assert isinstance(verdict.met, bool)
    assert {path.root for path in expression.paths} >= set()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(value=json_values, operator=st.sampled_from(["==", "!=", ">", "<", ">=", "<=", "in"]), other=json_values)
def test_no_values_break_a_comparison(value: Any, operator: str, other: Any) -> None:
    expression = Expression(f"lead.custom.a {operator} lead.custom.b")
    verdict = expression.judge(bounded({"lead": {"custom": {"a": value, "b": other}}}))
    assert isinstance(verdict.met, bool)


def test_the_errors_that_are_caught_are_named_ones() -> None:
    assert BaseException not in EVALUATION_ERRORS
    assert Exception not in EVALUATION_ERRORS


def test_the_interpreter_comes_without_its_command_line() -> None:
    assert "cel.cel" in sys.modules
    assert "prompt_toolkit" not in sys.modules
