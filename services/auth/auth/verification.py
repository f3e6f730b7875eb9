"""auth verifies tokens as every service does, but asks its own database for keys and ended sessions."""

from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg

from auth import repository
from auth.keys import KeyRing
from auth.models import EndedSession
from chassis.database import Database
from chassis.errors import Unavailable
from chassis.tokens import LEEWAY_SECONDS


class OwnIdentity:
    """The `IdentitySource` of auth's own processes. Raises ConnectionError while the database cannot be asked."""

    def __init__(self, database: Database, keys: KeyRing, *, access_token_seconds: int) -> None:
        self._database = database
        self.ring = keys
        self._token_seconds = access_token_seconds + LEEWAY_SECONDS

    async def keys(self) -> Mapping[str, Any]:
        try:
            return await self.ring.document()
        except Unavailable as error:
            raise ConnectionError(error.detail) from error

    async def ended_sessions(self) -> Sequence[Mapping[str, Any]]:
        try:
            ended = await self.list_ended()
        except (Unavailable, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise ConnectionError(str(error)) from error
        return [{"session_id": each.session_id, "until": each.until} for each in ended]

    async def list_ended(self) -> Sequence[EndedSession]:
        """Sessions that ended while an access token of theirs may still live, of all workspaces."""
        return await self._database.read(lambda connection: repository.ended_sessions(connection, self._token_seconds))
