"""HubSpot's way of writing times: ISO 8601 in UTC with milliseconds, as in 2026-03-10T23:04:41.164Z."""

from datetime import UTC, datetime


def iso(seconds: float) -> str:
    """`seconds` since 1970."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
