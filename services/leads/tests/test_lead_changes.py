"""What a write makes of a lead, without any server."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leads.changes import created, deleted, edited, merge_patch, restored
from leads.models import CLIENT_FIELDS, EMPTY_FIELDS, Lead

NOW = datetime(2026, 11, 25, 8, 30, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


# RFC 7396, appendix A.
RFC_CASES: list[tuple[Any, Any, Any]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "result"), RFC_CASES)
def test_merge_patches_are_those_of_the_rfc(target: Any, patch: Any, result: Any) -> None:
    assert merge_patch(target, patch) == result


@given(st.dictionaries(st.text(), JSON, max_size=4), st.dictionaries(st.text(), JSON, max_size=4))
def test_a_patch_applied_twice_is_a_patch_applied_once(target: dict[str, Any], patch: dict[str, Any]) -> None:
    before = repr(target), repr(patch)
    once = merge_patch(target, patch)
    assert merge_patch(once, patch) == once
    assert (repr(target), repr(patch)) == before


def test_a_new_lead_names_the_fields_that_are_not_empty() -> None:
    change = created("ws_1", "lead_1", {**EMPTY_FIELDS, "phone": "+14155550100", "score": 5}, NOW, unique=True)
    assert change.changed == ("phone", "score")
    assert change.previous == {}
    assert (change.lead.version, change.lead.revision) == (1, 1)
    assert change.lead.dedupe_key == "+14155550100"


def test_an_edit_names_what_differs_and_keeps_the_old_values(make_lead: Callable[..., Lead]) -> None:
    before = make_lead(score=5, tags=["a"])
    change = edited(before, {**before.fields, "score": 6, "stage": "lost"}, LATER)
    assert change is not None
    assert change.changed == ("stage", "score")
    assert change.previous == {"stage": "new", "score": 5}
    assert (change.lead.version, change.lead.revision) == (2, 2)
    assert change.lead.updated_at == LATER
    assert change.lead.created_at == NOW


@pytest.mark.parametrize("name", CLIENT_FIELDS)
def test_an_edit_that_changes_nothing_is_none(name: str, make_lead: Callable[..., Lead]) -> None:
    before = make_lead(custom={"a": 1, "b": {"c": [1]}}, tags=["a"])
    same = {**before.fields, name: before.fields[name]}
    assert edited(before, same, LATER) is None


def test_the_order_of_members_is_no_change_but_true_for_one_is(make_lead: Callable[..., Lead]) -> None:
    before = make_lead(custom={"a": 1, "b": 2})
    assert edited(before, {**before.fields, "custom": {"b": 2, "a": 1}}, LATER) is None
    change = edited(before, {**before.fields, "custom": {"a": True, "b": 2}}, LATER)
    assert change is not None
    assert change.changed == ("custom",)


def test_an_allowed_duplicate_stays_one_until_its_contact_changes() -> None:
    before = created("ws_1", "lead_1", {**EMPTY_FIELDS, "email": "ada@example.com"}, NOW, unique=False).lead
    assert before.dedupe_key is None
    kept = edited(before, {**before.fields, "score": 1}, LATER)
    moved = edited(before, {**before.fields, "email": "eve@example.com"}, LATER)
    assert kept is not None
    assert moved is not None
    assert kept.lead.dedupe_key is None
    assert moved.lead.dedupe_key == "eve@example.com"


def test_a_later_change_is_never_shown_as_an_earlier_one(make_lead: Callable[..., Lead]) -> None:
    change = edited(make_lead(), {**make_lead().fields, "score": 1}, NOW - timedelta(seconds=3))
    assert change is not None
    assert change.lead.updated_at == NOW + timedelta(milliseconds=1)


def test_deleting_and_restoring_count_as_changes_and_a_live_lead_is_not_restored(
    make_lead: Callable[..., Lead],
) -> None:
    gone = deleted(make_lead(), LATER)
    assert gone.lead.deleted_at == LATER
    assert gone.lead.version == 2
    back = restored(gone.lead, LATER)
    assert back is not None
    assert back.lead.deleted_at is None
    assert back.lead.version == 3
    assert restored(back.lead, LATER) is None


@given(free=st.dictionaries(st.sampled_from(["custom", "consent"]), st.dictionaries(st.text(), JSON, max_size=3)))
def test_equal_leads_give_equal_bytes_whatever_order_their_members_came_in(
    free: Mapping[str, Any], make_lead: Callable[..., Lead]
) -> None:
    turned = {name: dict(reversed(list(value.items()))) for name, value in free.items()}
    assert make_lead(**free).body == make_lead(**turned).body
