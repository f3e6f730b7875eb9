"""What the health page and Prometheus are told of the work at hand."""

from typing import Any

from chassis.database import Database
from chassis.health import Health
from chassis.metrics import Observers
from crm_sync.sync.metrics import RESTING, UNSETTLED
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


def add_work_observer(observers: Observers, database: Database) -> None:
    """Show Prometheus how many leads of each connection are not in step, and which connections rest."""

    async def observe() -> None:
        async with database.control.acquire(timeout=1) as connection:
            unsettled = await connection.fetch(queries["unsettled_leads"])
            connections = await connection.fetch(queries["resting_connections"])
        UNSETTLED.clear()
        for row in unsettled:
            UNSETTLED.labels(row["connection_id"], row["state"]).set(row["leads"])
        RESTING.clear()
        for row in connections:
            RESTING.labels(row["id"], row["vendor"]).set(row["resting"])

    observers.add("crm_work", observe)
