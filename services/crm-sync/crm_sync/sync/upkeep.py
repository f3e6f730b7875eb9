"""What keeps the desired state complete: new connections get every lead, new mappings are brought over, deleted connections let go."""

from chassis.database import Database
from crm_sync.events import caused_by, lead_event
from crm_sync.models import Announcement
from crm_sync.sync.repository import queries

PAGE = 1_000
RETIRE_PAGE = 200


class Upkeep:
    """Duties of any worker; several may do them at once, each takes what the others have not locked."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run_once(self) -> None:
        """Do all there is to do, a page at a time."""
        while await self.backfill_page():
            pass
        while await self.remap_page() == PAGE:
            pass
        while await self.retire_page() == RETIRE_PAGE:
            pass

    async def backfill_page(self) -> bool:
        """Want the next page of leads at a connection that takes all of them; False if there is no such connection."""
        async with self._database.transaction() as tx:
            target = await tx.connection.fetchrow(queries["next_backfill"])
            if target is None:
                return False
            workspace_id, connection_id = target["workspace_id"], target["id"]
            page = await tx.connection.fetchrow(
                queries["backfill_leads"], workspace_id, connection_id, target["backfill_after"], PAGE
            )
            last = page["last"] if page is not None and page["leads"] == PAGE else None
            await tx.connection.execute(queries["advance_backfill"], workspace_id, connection_id, last)
        return True

    async def remap_page(self) -> int:
        """Have leads looked at again that were brought over with an earlier mapping; returns how many."""
        async with self._database.acquire() as connection:
            tag = await connection.execute(queries["want_new_mapping"], PAGE)
        return int(tag.rpartition(" ")[2])

    async def retire_page(self) -> int:
        """Forget where leads stood at deleted connections, and announce that they are there no more."""
        async with self._database.transaction() as tx:
            rows = await tx.connection.fetch(queries["retire_leads"], RETIRE_PAGE)
            for row in rows:
                key = row["workspace_id"], row["connection_id"]
                released = await tx.connection.fetch(queries["release_links"], *key, [row["lead_id"]])
                if not released:
                    continue
                gone = await tx.connection.fetchrow(queries["deleted_connection"], *key)
                if gone is None:
                    raise LookupError("a connection's row outlives its leads' rows")
                tx.emit(
                    lead_event(
                        workspace_id=key[0],
                        connection_id=key[1],
                        connection_name=gone["name"],
                        vendor=gone["vendor"],
                        lead_id=row["lead_id"],
                        external_id=None,
                        version=row["desired_version"],
                        announcement=Announcement("release"),
                        attempts=(),
                        event_count=row["event_count"] + 1,
                        cause=caused_by(key[1], row["chain"], row["request_id"], row["traceparent"]),
                    )
                )
        return len(rows)
