"""Time as the API writes it: RFC 3339, UTC, milliseconds."""

from datetime import UTC, datetime


def utcnow() -> datetime:
    """The process's clock, in whole milliseconds, so that a time read back from JSON equals the one stored."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def in_utc(moment: datetime) -> datetime:
    """The same moment in UTC; ValueError if it has no offset or is outside the years 1 to 9999 there."""
    if moment.tzinfo is None:
        raise ValueError("has no offset from UTC")
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("is outside the years 1 to 9999") from error


def rfc3339(moment: datetime) -> str:
    """`2026-11-25T08:30:00.123Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
