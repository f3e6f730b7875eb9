"""What is kept of an answer: JSON or text that can be stored and read by later steps, never too much, never one of our secrets."""

import time
from typing import Any

import orjson
import pytest

from chassis.http import OutboundResponse
from workflows.steps.answers import MAX_BODY_CHARACTERS, read_answer


def answer(status: int, body: bytes, **headers: str) -> OutboundResponse:
    return OutboundResponse(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def test_an_answer_is_kept_as_json_where_it_is_and_small_enough() -> None:
    seen = read_answer(
        answer(200, orjson.dumps({"a": [1, None, "x"]}), content_type="application/json", set_cookie="s"), {}
    )
    assert seen == {
        "status": 200,
        "headers": {"content-type": "application/json"},
        "body": {"a": [1, None, "x"]},
        "truncated": False,
    }
    assert read_answer(answer(200, b"plain"), {})["body"] == "plain"
    assert read_answer(answer(204, b""), {})["body"] is None
    long = read_answer(answer(200, b"x" * (MAX_BODY_CHARACTERS + 1)), {})
    assert (len(long["body"]), long["truncated"]) == (MAX_BODY_CHARACTERS, True)


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (b'{"a\\u0000b": "c\\u0000d"}', {"a\ufffdb": "c\ufffdd"}),
        (b"a\x00b", "a\ufffdb"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b'"\\ud800"', '"\\ud800"'),
        (b'{"a": 1e999}', '{"a": 1e999}'),
        (b"[" * 500 + b"]" * 500, None),
    ],
)
def test_an_odd_answer_can_be_stored(raw: bytes, body: Any) -> None:
    seen = read_answer(answer(200, raw), {})["body"]
    if body is None:
        depth = 0
        while isinstance(seen, list):
            seen, depth = (seen[0] if seen else None), depth + 1
        assert depth <= 32
    else:
        assert seen == body


def test_secrets_that_a_receiver_echoes_are_not_kept() -> None:
    secrets = {"sec_1": "Bearer abcdefgh", "sec_2": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}
    raw = orjson.dumps({"got": "abcdefgh", "all": "Bearer abcdefgh", "signed": secrets["sec_2"]})
    seen = read_answer(answer(200, raw, location="https://x/?t=abcdefgh"), secrets)
    assert seen["body"] == {"got": "[redacted]", "all": "[redacted]", "signed": "[redacted]"}
    assert seen["headers"]["location"] == "https://x/?t=[redacted]"


ECHOED = {"sec_1": "Token a/b+c/d+e", "sec_2": 'with"quote\\and', "sec_3": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}


@pytest.mark.parametrize("padding", [0, MAX_BODY_CHARACTERS])
def test_secrets_echoed_with_escapes_are_not_kept_either(padding: int) -> None:
    echo = orjson.dumps({"inner": orjson.dumps({"all": list(ECHOED.values())}).decode()}).decode()
    head = '{"a/b+c\\/d\\u002Be":"x a\\/b\\u002bc\\/d+e y","half":"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",'
    raw = f'{head}"echo":{echo},"padding":"{"x" * padding}"}}'.encode()
    seen = read_answer(answer(200, raw), ECHOED)
    whole = seen["body"] if padding else orjson.dumps(seen["body"]).decode()
    assert seen["truncated"] is (padding > 0)
    gone = '{"inner":"{\\"all\\":[\\"[redacted]\\",\\"[redacted]\\",\\"[redacted]\\"]}"}'
    assert whole.startswith(f'{{"[redacted]":"x [redacted] y","half":"[redacted]","echo":{gone},"padding":"')


def test_a_secret_within_another_leaves_nothing_of_the_longer_one() -> None:
    secrets = {"sec_1": "abcdef", "sec_2": "abcdefghijkl"}
    assert read_answer(answer(200, b"abcdefghijkl abcdefg"), secrets)["body"] == "[redacted] [redacted]g"


@pytest.mark.parametrize("before", range(MAX_BODY_CHARACTERS - 20, MAX_BODY_CHARACTERS + 1, 5))
def test_a_secret_that_is_cut_by_the_limit_is_not_kept_in_part(before: int) -> None:
    seen = read_answer(
        answer(200, b"x" * before + b"topsecret-topsecret" + b"y" * 99), {"sec_1": "topsecret-topsecret"}
    )
    assert seen["body"].lstrip("x") in ("", "[redacted]", "[redacted]y")
    assert seen["truncated"]


@pytest.mark.parametrize("item", [b'"a",', b'{"a":1},', b"\\\\\\\\", b"\\u0041"])
def test_a_large_answer_is_read_without_holding_up_other_runs(item: bytes) -> None:
    raw = b"[" + item * (1_000_000 // len(item)) + b"1]"
    began = time.perf_counter()
    assert read_answer(answer(200, raw), {f"sec_{n}": f"topsecret-{n}" for n in range(5)})["truncated"]
    assert time.perf_counter() - began < 0.3
