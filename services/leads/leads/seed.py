"""`python -m leads.seed`: three leads to try things on, once.

Takes WORKSPACE_ID from the environment and prints `{"workspace_id", "created"}`. A second run changes nothing: a demo lead that was
changed or deleted stays so.
"""

import asyncio
import os
import sys

import asyncpg
import orjson

from chassis.clock import utcnow
from chassis.outbox import insert_events
from leads import changes, repository
from leads.events import lead_event
from leads.models import EMPTY_FIELDS
from leads.settings import Settings

DEMO_LEADS = (
    ("lead-1", "John", "Test", "john.test@example.com"),
    ("lead-2", "Jane", "Demo", "jane.demo@example.com"),
    ("lead-3", "Bob", "Sample", "bob.sample@example.com"),
)


async def seed(dsn: str, workspace_id: str) -> bool:
    """The leads, their events and the marker in one transaction; False if the marker was there."""
    async with (
        asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool,
        pool.acquire() as connection,
        connection.transaction(),
    ):
        if not await repository.plant_seed(connection, f"demo-leads:{workspace_id}"):
            return False
        now = utcnow()
        events = []
        for lead_id, first_name, last_name, email in DEMO_LEADS:
            fields = {**EMPTY_FIELDS, "first_name": first_name, "last_name": last_name, "email": email}
            change = changes.created(workspace_id, lead_id, {**fields, "source": "demo"}, now, unique=True)
            if await repository.insert_seed_lead(connection, change.lead):
                events.append(lead_event("lead.created", change))
        await insert_events(connection, events)
        # Nobody here will publish them: any relay may at once.
        await repository.release_events(connection, [event.id for event in events])
    return True


def main() -> int:
    workspace_id = os.environ.get("WORKSPACE_ID", "")
    if not workspace_id:
        sys.stderr.write("Nothing was seeded: set WORKSPACE_ID to the workspace that is to have the demo leads\n")
        return 1
    try:
        created = asyncio.run(seed(Settings().database_url.get_secret_value(), workspace_id))
    except (OSError, asyncpg.PostgresError, ValueError) as error:
        sys.stderr.write(f"Nothing was seeded: {error}\n")
        return 1
    sys.stdout.write(orjson.dumps({"workspace_id": workspace_id, "created": created}).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
