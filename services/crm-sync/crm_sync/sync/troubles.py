"""What a connection's trouble leads to: a rest with a reason and a time, or a stop until a person has acted."""

import random
from datetime import datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from chassis.clock import utcnow
from chassis.database import Database
from chassis.logs import get_logger
from crm_sync.connectors.protocol import Trouble, TroubleKind
from crm_sync.models import Connection
from crm_sync.settings import CrmSyncSettings
from crm_sync.sync import repository
from crm_sync.sync.metrics import RESTS

log = get_logger()

_STOPS = {
    TroubleKind.UNAUTHORIZED: "needs_reauth",
    TroubleKind.FORBIDDEN: "needs_reauth",
    TroubleKind.UNMAPPED: "needs_mapping",
    TroubleKind.DISABLED: "disabled",
}
_MIDNIGHT_SPREAD_SECONDS = 300.0
_MAX_DOUBLINGS = 20


async def act_on(database: Database, settings: CrmSyncSettings, connection: Connection, trouble: Trouble) -> None:
    """Rest or stop the connection; the leads it was met with are settled after that."""
    reason = describe(trouble)
    status = _STOPS.get(trouble.kind)
    async with database.acquire() as db:
        if status is not None:
            if not await repository.stop_connection(db, connection, status, reason):
                return
        else:
            if trouble.kind is TroubleKind.UNPREPARED:
                await repository.forget_preparation(db, connection.key)
            kind, seconds = rest(settings, connection, trouble)
            await repository.rest_connection(db, connection.key, kind=kind, reason=reason, seconds=seconds)
    RESTS.labels(connection.vendor, trouble.kind.value).inc()
    log.warning(
        "stop-connection" if status else "rest-connection",
        connection_id=connection.id,
        workspace_id=connection.workspace_id,
        kind=trouble.kind.value,
        status=trouble.error.status,
        correlation_id=trouble.error.correlation_id,
    )


def rest(
    settings: CrmSyncSettings, connection: Connection, trouble: Trouble
) -> tuple[Literal["transient", "rate_limited"], float]:
    """How the trouble is noted and for how many seconds the connection rests; always a little more than asked."""
    if trouble.kind is TroubleKind.DAILY_LIMIT:
        spread = random.uniform(1, _MIDNIGHT_SPREAD_SECONDS)  # noqa: S311 - jitter
        return "rate_limited", seconds_until_midnight(utcnow(), connection.time_zone) + spread
    jitter = random.uniform(1.0, 1.25)  # noqa: S311
    if trouble.kind is TroubleKind.RATE_LIMITED:
        asked = trouble.retry_after or settings.pause_base_seconds
        longer = min(asked * (connection.trouble_count + 1), settings.pause_cap_seconds)
        return "rate_limited", max(longer, asked) * jitter
    doublings = min(connection.trouble_count, _MAX_DOUBLINGS)
    usual = min(settings.pause_base_seconds * 2**doublings, settings.pause_cap_seconds)
    return "transient", max(usual, trouble.retry_after or 0.0) * jitter


def seconds_until_midnight(now: datetime, time_zone: str | None) -> float:
    """From `now` to the next midnight in the account's time zone; UTC if we do not know it."""
    try:
        zone = ZoneInfo(time_zone or "UTC")
    except (ZoneInfoNotFoundError, ValueError):
        zone = ZoneInfo("UTC")
    local = now.astimezone(zone)
    midnight = datetime.combine(local.date() + timedelta(days=1), datetime.min.time(), tzinfo=zone)
    return midnight.timestamp() - now.timestamp()


def describe(trouble: Trouble) -> str:
    """The trouble in the vendor's words, with its id for them."""
    error = trouble.error
    return f"{error.message} (correlation id {error.correlation_id})" if error.correlation_id else error.message
