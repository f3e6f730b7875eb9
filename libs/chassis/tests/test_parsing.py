"""Every way a body or a cursor can be wrong is a 4xx that says where."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from chassis.errors import BadRequest, ProblemError, Unprocessable, UnsupportedMediaType
from chassis.parsing import cursor_moment, make_cursor, parse_cursor, parse_document, parse_json
from chassis.vault import SealBroken, Vault

KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
OTHER = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY="


class Thing(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=5)
    size: int = 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{'a':1}",
        b'{"a":1}}',
        b"\xff\xfe",
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\\ud800"}',
        b'{"a":1e999}',
        b'{"a":-1e999}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b"[" * 100_000,
    ],
)
def test_what_is_not_json_is_400(body: bytes) -> None:
    with pytest.raises(BadRequest):
        parse_document(body)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b"[]", ""),
        (b"1", ""),
        (b'{"a":"x\\u0000y"}', "/a"),
        (b'{"a":{"b":["ok","\\u0000"]}}', "/a/b/1"),
        (b'{"a~/":"\\u0000"}', "/a~0~1"),
        (b'{"a":{"b\\u0000":1}}', "/a"),
        (b'{"a":' + b"[" * 40 + b"]" * 40 + b"}", "/a" + "/0" * 31),
    ],
)
def test_what_no_field_can_hold_is_422_with_a_pointer(body: bytes, pointer: str) -> None:
    with pytest.raises(Unprocessable) as refused:
        parse_document(body)
    assert [error.pointer for error in refused.value.errors] == [pointer]


def test_each_wrong_field_is_named() -> None:
    with pytest.raises(Unprocessable) as refused:
        parse_json(b'{"name":"too long","size":"x","colour":"red"}', Thing)
    assert {error.pointer: error.detail for error in refused.value.errors}.keys() == {"/name", "/size", "/colour"}
    assert "unknown field 'colour'" in [error.detail for error in refused.value.errors]


@pytest.mark.parametrize(
    "body",
    [
        b"{" + b",".join(b'"a%d":1' % number for number in range(5_000)) + b"}",
        b'{"a":[' + b",".join([b'"\\u0000"'] * 5_000) + b"]}",
    ],
)
def test_of_very_many_wrong_places_the_first_hundred_are_named(body: bytes) -> None:
    with pytest.raises(Unprocessable) as refused:
        parse_json(body, Thing)
    assert len(refused.value.errors) == 100


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonp"])
def test_another_media_type_is_415(content_type: str) -> None:
    with pytest.raises(UnsupportedMediaType):
        parse_document(b"{}", content_type)


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/merge-patch+json", "Application/JSON; charset=utf-8"]
)
def test_json_media_types_are_taken(content_type: str) -> None:
    assert parse_document(b"{}", content_type) == {}


@given(st.binary(max_size=200))
def test_no_body_makes_it_fail_otherwise(body: bytes) -> None:
    status = 200
    try:
        parse_document(body)
    except ProblemError as problem:
        status = problem.status
    assert status < 500


@given(st.text(max_size=80))
def test_no_cursor_makes_it_fail_otherwise(cursor: str) -> None:
    try:
        parse_cursor(cursor, "filters", 2)
    except BadRequest:
        return
    raise AssertionError("a random text passed for a cursor")


def test_a_cursor_comes_back_as_it_was_made_and_only_for_its_own_question() -> None:
    cursor = make_cursor(["2026-11-25T08:30:00.123Z", "lead_1"], "f1")
    assert parse_cursor(cursor, "f1", 2) == ["2026-11-25T08:30:00.123Z", "lead_1"]
    for filters, length in (("f2", 2), ("f1", 1), ("f1", 3)):
        with pytest.raises(BadRequest):
            parse_cursor(cursor, filters, length)


def test_a_sealed_secret_opens_for_its_owner_only_and_survives_a_new_key() -> None:
    sealed = Vault(f"k1:{KEY}").seal(b"secret", b"conn_1")
    rotated = Vault(f"k2:{OTHER},k1:{KEY}")
    assert b"secret" not in sealed.encode()
    assert rotated.open(sealed, b"conn_1") == b"secret"
    assert rotated.needs_rotation(sealed)
    assert not rotated.needs_rotation(rotated.seal(b"secret", b"conn_1"))
    assert Vault(f"k1:{KEY}").seal(b"secret", b"conn_1") != sealed  # no nonce is used twice
    for broken, aad in (
        (sealed, b"conn_2"),
        (sealed.replace("v1.", "v2."), b"conn_1"),
        (sealed[:-4] + "AAAA", b"conn_1"),
        ("v1.k9.AAAA", b"conn_1"),
        ("x", b""),
        ("v1.k1.A", b"conn_1"),
        ("v1.k1.é", b"conn_1"),
        ("v1.k1.", b"conn_1"),
    ):
        with pytest.raises(SealBroken):
            rotated.open(broken, aad)


@pytest.mark.parametrize("keys", ["", "k1", "k1:notbase64!", "k1:AAAA", f"k1:{KEY[:32]}"])
def test_wrong_keys_are_refused_at_the_start(keys: str) -> None:
    with pytest.raises(ValueError, match="key"):
        Vault(keys)


@pytest.mark.parametrize(
    "value",
    [None, 5, "", "yesterday", "2026-11-25T08:30:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"],
)
def test_a_cursors_time_that_is_none_or_that_no_database_takes_is_400(value: object) -> None:
    with pytest.raises(BadRequest):
        cursor_moment(value)


def test_a_cursors_time_is_in_utc() -> None:
    assert cursor_moment("2026-11-25T09:30:00+01:00").isoformat() == "2026-11-25T08:30:00+00:00"
