"""Templates fill in paths, and do nothing else."""

from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows.engine.paths import LEAD_FIELDS, Path, unknown_name
from workflows.engine.template import MAX_RENDERED_CHARACTERS, JsonTemplate, Template, TemplateError

SCOPE: dict[str, Any] = {
    "lead": {
        "id": "lead_1",
        "email": "ada@example.com",
        "score": 70,
        "company": None,
        "tags": ["vip", "eu"],
        "custom": {"plan": "pro", "a b": 1, "vip": True, "ratio": 1.5},
    },
    "steps": {"call": {"body": {"items": [{"id": 7}]}}},
}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("lead.email", ("lead", "email")),
        (" lead.email ", ("lead", "email")),
        ("lead . email", ("lead", "email")),
        ("lead.tags[0]", ("lead", "tags", 0)),
        ('lead.custom["a b"].c', ("lead", "custom", "a b", "c")),
        ("steps.call.body.items[0].id", ("steps", "call", "body", "items", 0, "id")),
    ],
)
def test_a_path_is_read(text: str, parts: tuple[str | int, ...]) -> None:
    assert Path.parse(text).parts == parts


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ".",
        "lead.",
        ".lead",
        "lead..email",
        "lead email",
        "[0]",
        "lead.[0]",
        "lead[-1]",
        "lead['x']",
        "lead()",
        "a+b",
        "lead.é",
    ],
)
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"path|dot|index"):
        Path.parse(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("", ""),
        ("{{ lead.email }}", "ada@example.com"),
        ("{{lead.score}}", 70),
        ("{{ lead.tags }}", ["vip", "eu"]),
        ("{{ lead.company }}", None),
        ("{{ lead.custom.nothing.at.all }}", None),
        ("{{ lead.tags[5] }}", None),
        ("{{ steps.call.body.items[0].id }}", 7),
        ("{{ steps.other.body }}", None),
        ("Dear {{ lead.email }}, {{ lead.score }}!", "Dear ada@example.com, 70!"),
        ("[{{ lead.company }}]", "[]"),
        ("{{ lead.custom.vip }} {{ lead.custom.ratio }}", "true 1.5"),
        ("tags: {{ lead.tags }}", 'tags: ["vip","eu"]'),
        ("{ lead.email }", "{ lead.email }"),
    ],
)
def test_a_placeholder_gives_its_value_and_within_text_its_text(text: str, value: Any) -> None:
    assert Template(text).value(SCOPE) == value


@pytest.mark.parametrize(
    "text",
    ["{{", "}}", "{{ }}", "{{ lead.email", "lead.email }}", "{{ lead.email | upper }}", "{{ {{ a }} }}", "{{ f(x) }}"],
)
def test_a_broken_placeholder_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"placeholder|path"):
        Template(text)


def test_values_in_a_url_are_percent_encoded() -> None:
    template = Template("https://a.example/x/{{ lead.email }}?q={{ lead.custom.q }}")
    scope = {"lead": {"email": "a/b@c?", "custom": {"q": "x&y=z #1"}}}
    assert template.render_url(scope) == "https://a.example/x/a%2Fb%40c%3F?q=x%26y%3Dz%20%231"


def test_an_empty_value_in_a_url_is_an_error() -> None:
    with pytest.raises(TemplateError, match=r"lead\.company is empty"):
        Template("https://a.example/{{ lead.company }}/delete").render_url(SCOPE)


@pytest.mark.parametrize(
    "value", [".", "..", "...", "/", "/..", "../x", "?a=1", "#x", "\\..", "a b", "%2e%2e", "\r\nx", "é"]
)
def test_a_value_never_becomes_a_part_of_a_urls_structure(value: str) -> None:
    """RFC 3986: dot segments, and the characters that divide a URL, are the template's own only."""
    template = Template("https://a.example/x/{{ lead.custom.v }}/delete?q={{ lead.email }}")
    scope = {"lead": {"email": "e", "custom": {"v": value}}}
    if not value.strip("."):
        with pytest.raises(TemplateError, match=r"lead\.custom\.v is only dots"):
            template.render_url(scope)
        return
    parts = urlsplit(template.render_url(scope))
    _, x, middle, delete = parts.path.split("/")
    assert (x, unquote(middle), delete, parts.query, parts.fragment) == ("x", value, "delete", "q=e", "")
    assert middle.isascii()


def test_json_keeps_its_shape_and_the_values_their_types() -> None:
    template = JsonTemplate(
        {"a": ["{{ lead.score }}", {"b": "{{ lead.custom.vip }}"}], "n": 1, "t": "x{{ lead.score }}", "z": None}
    )
    assert template.value(SCOPE) == {"a": [70, {"b": True}], "n": 1, "t": "x70", "z": None}
    assert {str(path) for path in template.paths} == {"lead.score", "lead.custom.vip"}


@pytest.mark.parametrize("source", [{"{{ lead.email }}": 1}, ["{{"], {"a": {"b": "{{ 1x }}"}}])
def test_json_with_a_broken_template_is_refused(source: Any) -> None:
    with pytest.raises(ValueError, match=r"placeholder|path"):
        JsonTemplate(source)


def test_the_place_of_a_broken_template_is_named() -> None:
    with pytest.raises(ValueError, match="at /a/1/b: "):
        JsonTemplate({"a": [1, {"b": "{{ lead. }}"}]})


def test_json_nested_too_deep_is_refused() -> None:
    source: Any = "x"
    for _ in range(20):
        source = [source]
    with pytest.raises(ValueError, match="nested"):
        JsonTemplate(source)


@pytest.mark.parametrize("source", [["{{ lead.custom.big }}"] * 200, "{{ lead.custom.big }} " * 200])
def test_a_template_cannot_multiply_a_large_value(source: Any) -> None:
    scope = {"lead": {"custom": {"big": "x" * (MAX_RENDERED_CHARACTERS // 100)}}}
    with pytest.raises(TemplateError, match="more than"):
        JsonTemplate(source).value(scope)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_any_value_survives_a_placeholder(value: Any) -> None:
    assert Template("{{ lead.custom.x }}").value({"lead": {"custom": {"x": value}}}) == value


@given(st.text(max_size=60))
def test_any_text_is_a_template_or_a_value_error(text: str) -> None:
    try:
        template = Template(text)
    except ValueError:
        assert "{{" in text or "}}" in text
    else:
        assert isinstance(template.render(SCOPE), str)


@given(json_values)
def test_any_json_is_a_template_or_a_value_error(value: Any) -> None:
    try:
        template = JsonTemplate(value)
    except ValueError as error:
        assert any(word in str(error) for word in ("placeholder", "path", "nested"))  # noqa: PT017
    else:
        template.value(SCOPE)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("lead.email", None),
        ("lead", None),
        ("lead.custom.anything.below", None),
        ("previous.stage", None),
        ("trigger.lead.score", None),
        ("trigger.event_id", None),
        ("run.id", None),
        ("steps.call.body.x", None),
        ("steps.open.whatever", None),
        ("leads.email", "'leads' is not known here"),
        ("lead.mail", "lead has no field 'mail'"),
        ("previous.mail", "previous has no field 'mail'"),
        ("trigger.lead.mail", "lead has no field 'mail'"),
        ("trigger.who", "trigger has no field 'who'"),
        ("steps.later.body", "no step 'later' runs before this one"),
        ("steps.call.nothing", "step 'call' has no output 'nothing'"),
    ],
)
def test_a_name_that_does_not_exist_at_a_place_is_told(text: str, complaint: str | None) -> None:
    roots = frozenset({"lead", "previous", "trigger", "run", "steps"})
    found = unknown_name(Path.parse(text), roots, {"call": frozenset({"status", "body"}), "open": None})
    assert found is None if complaint is None else found is not None and complaint in found


def test_the_lead_fields_are_those_of_the_contract() -> None:
    from contracts import schemas

    assert set(schemas()["lead.json"]["properties"]) == LEAD_FIELDS
