"""What the health page says of the work at hand."""

from typing import Any

from chassis.database import Database
from chassis.health import Health
from crm_sync.sync.repository import queries


def add_work_ping(health: Health, database: Database) -> None:
    """Report how much is waiting and how much is dead, for `/health/detailed`."""

    async def work() -> dict[str, Any]:
        async with database.control.acquire(timeout=1) as connection:
            row = await connection.fetchrow(queries["work_state"])
        if row is None:
            raise LookupError("an aggregate gives one row")
        return {
            "waiting": row["waiting"],
            "dead_letters": row["dead"],
            "oldest_seconds": round(max(row["oldest_seconds"], 0.0), 3),
        }

    health.add("crm_work", work, required=False)
