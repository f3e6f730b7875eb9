"""Secrets are gone from what others send back, however they are written there."""

import json
import time

import pytest

from chassis.redaction import redact


@pytest.mark.parametrize(
    "secret", ["plain-secret", "a/b+c/d", 'with"quote', "ends-with-\\", "two\nlines", "gr\u00fc\u00dfe-\U0001f511"]
)
@pytest.mark.parametrize("is_ascii", [True, False])
def test_a_secret_in_json_is_gone_and_json_stays_json(secret: str, is_ascii: bool) -> None:
    text = json.dumps({"said": f"no {secret} here", "and": [1, "else"]}, ensure_ascii=is_ascii)
    assert json.loads(redact(text, [secret])) == {"said": "no [redacted] here", "and": [1, "else"]}
    assert redact(f"no {secret} here", [secret]) == "no [redacted] here"


def test_text_without_secrets_stays_as_it_is() -> None:
    text = 'C:\\temp\\new and "\\u0041"'
    assert redact(text, ["plain-secret", "short"]) == text
    assert redact(text, []) == text
    assert redact("short", ["short"]) == "short"  # five characters occur by chance


def test_a_limit_keeps_no_part_of_a_secret() -> None:
    assert redact("x" * 10 + "plain-secret" + "y", ["plain-secret"], 15) == "x" * 10 + "[redacted]"


def test_64_kilobytes_of_escapes_are_looked_through_at_once() -> None:
    began = time.perf_counter()
    redact("\\n" * 32_000, ["plain-secret"])
    assert time.perf_counter() - began < 1
