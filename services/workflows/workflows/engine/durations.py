"""Durations as definitions write them: `90s`, `15m`, `2h`, `3d`, `1d12h`."""

import re
from datetime import timedelta

_PATTERN = re.compile(r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,8})s)?", re.ASCII)

LONGEST = timedelta(days=365)


def parse_duration(text: str) -> timedelta:
    """The duration in days, hours, minutes and seconds, largest unit first; ValueError if it is not one from 1s to 365d."""
    match = _PATTERN.fullmatch(text)
    if match is None or not text:
        raise ValueError("a duration is written like 90s, 15m, 2h, 3d or 1d12h")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    duration = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    if not timedelta(seconds=1) <= duration <= LONGEST:
        raise ValueError("a duration is at least 1s and at most 365d")
    return duration
