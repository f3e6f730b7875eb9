"""What a client may put into a lead."""

from collections.abc import Callable
from typing import Any

import pytest

from chassis.errors import Unprocessable
from chassis.parsing import validate
from leads.fields import LeadChange, LeadInput, check_read_only, new_fields, patched_fields, replaced_fields
from leads.models import Lead

CONTACT = {"email": "ada@example.com"}


def read(document: dict[str, Any]) -> dict[str, Any]:
    return new_fields(validate(document, LeadInput), "US")


def nested(depth: int) -> Any:
    return {"a": nested(depth - 1)} if depth > 1 else 1


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"score": 101}, "/score"),
    ({"score": -1}, "/score"),
    ({"score": "70"}, "/score"),
    ({"score": 70.5}, "/score"),
    ({"score": True}, "/score"),
    ({"stage": "hot"}, "/stage"),
    ({"email": "not an address"}, "/email"),
    ({"email": 5}, "/email"),
    ({"email": "a" * 250 + "@example.com"}, "/email"),
    ({"phone": "12"}, "/phone"),
    ({"first_name": "x" * 201}, "/first_name"),
    ({"tags": "vip"}, "/tags"),
    ({"tags": [""]}, "/tags/0"),
    ({"tags": ["x" * 65]}, "/tags/0"),
    ({"tags": [1]}, "/tags/0"),
    ({"tags": [f"t{n}" for n in range(51)]}, "/tags"),
    ({"custom": []}, "/custom"),
    ({"custom": {"a": "x" * 17_000}}, "/custom"),
    ({"custom": nested(7)}, "/custom"),
    ({"custom": {"": 1}}, "/custom"),
    ({"custom": {"a": 2**53 + 1}}, "/custom"),
    ({"custom": {"a": 1e300}}, "/custom"),
    ({"custom": {"a": [-1e-31]}}, "/custom"),
    ({"custom": {"x" * 101: 1}}, "/custom"),
    ({"custom": {"a": [{"": 1}]}}, "/custom"),
    ({"custom": {f"k{n}": 1 for n in range(101)}}, "/custom"),
    ({"consent": {"a": "x" * 5_000}}, "/consent"),
    ({"nickname": "ada"}, "/nickname"),
    ({"id": "lead_1"}, "/id"),
    ({"external_ids": {}}, "/external_ids"),
]


@pytest.mark.parametrize(("document", "pointer"), REFUSED)
def test_a_wrong_field_is_refused_by_its_pointer(document: dict[str, Any], pointer: str) -> None:
    with pytest.raises(Unprocessable) as caught:
        read({**CONTACT, **document})
    assert [error.pointer for error in caught.value.errors] == [pointer]


def test_every_wrong_field_is_named_at_once() -> None:
    with pytest.raises(Unprocessable) as caught:
        read({"score": 101, "stage": "hot", "nickname": 1})
    assert {error.pointer for error in caught.value.errors} == {"/score", "/stage", "/nickname"}


@pytest.mark.parametrize("document", [{}, {"first_name": "Ada"}, {"email": None, "phone": ""}, {"email": "  "}])
def test_one_of_email_and_phone_is_needed(document: dict[str, Any]) -> None:
    with pytest.raises(Unprocessable) as caught:
        read(document)
    assert caught.value.errors[0].pointer == "/email"


def test_null_and_empty_text_mean_empty() -> None:
    fields = read(
        {**CONTACT, "first_name": "", "company": None, "stage": None, "score": None, "tags": None, "custom": None}
    )
    assert fields["first_name"] is None
    assert (fields["stage"], fields["score"], fields["tags"], fields["custom"]) == ("new", 0, [], {})


def test_a_patch_judges_only_what_it_gives(make_lead: Callable[..., Lead]) -> None:
    # As if the rules had become stricter since the lead was stored.
    before = make_lead(phone="+1", custom={"a": {"b": 1, "c": 2}, "d": 3}, score=5)
    given = validate({"custom": {"a": {"b": None}, "e": 4}, "first_name": "Ada", "score": None}, LeadChange)
    fields = patched_fields(before, given, "US")
    assert fields["custom"] == {"a": {"c": 2}, "d": 3, "e": 4}
    assert fields["phone"] == "+1"
    assert fields["score"] == 0
    assert fields["first_name"] == "Ada"


def test_custom_fields_that_grow_too_large_by_merging_are_refused(make_lead: Callable[..., Lead]) -> None:
    before = make_lead(custom={"a": "x" * 16_000})
    with pytest.raises(Unprocessable) as caught:
        patched_fields(before, validate({"custom": {"b": "y" * 1_000}}, LeadChange), "US")
    assert caught.value.errors[0].pointer == "/custom"


def test_replacing_empties_what_is_left_out_and_removes_nothing_else(make_lead: Callable[..., Lead]) -> None:
    before = make_lead(first_name="Ada", custom={"a": 1}, tags=["vip"])
    fields = replaced_fields(before, validate({**CONTACT, "custom": {"b": 2}}, LeadChange), "US")
    assert fields["first_name"] is None
    assert fields["custom"] == {"b": 2}
    assert fields["tags"] == []


def test_what_the_system_sets_may_come_along_unchanged(make_lead: Callable[..., Lead]) -> None:
    before = make_lead()
    document = {**before.document(), "external_ids": {}}
    check_read_only(before, validate(document, LeadChange))
    offset = {"created_at": "2026-11-25T09:30:00+01:00"}
    check_read_only(before, validate(offset, LeadChange))


@pytest.mark.parametrize(
    ("document", "pointer"),
    [
        ({"id": "lead_2"}, "/id"),
        ({"version": 2}, "/version"),
        ({"created_at": "2026-11-25T08:30:01Z"}, "/created_at"),
        ({"updated_at": "yesterday"}, "/updated_at"),
        ({"updated_at": "2026-11-25T08:30:00"}, "/updated_at"),
        ({"external_ids": {"conn_1": "7"}}, "/external_ids"),
    ],
)
def test_what_the_system_sets_cannot_be_set(
    document: dict[str, Any], pointer: str, make_lead: Callable[..., Lead]
) -> None:
    with pytest.raises(Unprocessable) as caught:
        check_read_only(make_lead(), validate(document, LeadChange))
    assert [error.pointer for error in caught.value.errors] == [pointer]
