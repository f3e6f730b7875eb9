"""A lead as it is answered: its bytes and their tag, held for a minute in the cache that all replicas share.

The cache holds `"<etag>"` and the JSON in one value, under the revision that orders them; a deleted lead is held as nothing,
so that no slow reader brings it back. Redis may lose everything or be away: then PostgreSQL is read.
"""

from dataclasses import dataclass
from typing import Final

from chassis.cache import VersionedCache
from leads.models import Lead


@dataclass(frozen=True, slots=True)
class Shown:
    """One representation."""

    etag: str
    body: bytes


DELETED: Final = Shown("", b"")


class LeadCache:
    """Leads by workspace and id. A value is replaced by a higher revision only, never deleted."""

    def __init__(self, cache: VersionedCache) -> None:
        self._cache = cache

    async def get(self, workspace_id: str, lead_id: str) -> Shown | None:
        """What is held; DELETED for a lead that is known to be; None if nothing is known."""
        held = await self._cache.get(f"lead:{workspace_id}:{lead_id}")
        if held is None:
            return None
        if not held.body:
            return DELETED
        etag, _, body = held.body.partition(b"\n")
        return Shown(etag.decode("ascii"), body)

    async def put(self, lead: Lead) -> Shown:
        """Hold this state of the lead, unless a later one is held; returns how it is shown."""
        shown = _shown(lead)
        await self._cache.put(_key(lead), lead.revision, _value(shown))
        return shown

    async def fill(self, lead: Lead) -> Shown:
        """As `put`, for a reader: nobody was told yet that this state holds, so it need not be made up for."""
        shown = _shown(lead)
        await self._cache.fill(_key(lead), lead.revision, _value(shown))
        return shown


def _key(lead: Lead) -> str:
    return f"lead:{lead.workspace_id}:{lead.id}"


def _shown(lead: Lead) -> Shown:
    return DELETED if lead.deleted_at else Shown(lead.etag, lead.body)


def _value(shown: Shown) -> bytes:
    return shown.etag.encode("ascii") + b"\n" + shown.body if shown.body else b""
