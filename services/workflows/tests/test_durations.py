"""Durations are written like 90s, 15m, 2h, 3d or 1d12h, and stay within a year."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows.engine.durations import LONGEST, parse_duration


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("1s", timedelta(seconds=1)),
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("2h", timedelta(hours=2)),
        ("3d", timedelta(days=3)),
        ("1d12h", timedelta(days=1, hours=12)),
        ("1d2h3m4s", timedelta(days=1, hours=2, minutes=3, seconds=4)),
        ("365d", LONGEST),
    ],
)
def test_a_duration_is_read(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    "text", ["", "0s", "s", "5", "5x", "-5s", "1.5h", "5s ", "1h1d", "366d", "999999d", "1H", "٣s", "1 h", "5s\n"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@given(st.integers(min_value=1, max_value=365 * 24 * 3600))
def test_seconds_survive(seconds: int) -> None:
    assert parse_duration(f"{seconds}s").total_seconds() == seconds


@given(st.text(max_size=20))
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    try:
        assert timedelta(0) < parse_duration(text) <= LONGEST
    except ValueError as error:
        assert "duration" in str(error)  # noqa: PT017 - either outcome is right, a third is not
