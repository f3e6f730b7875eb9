"""What a connection identifies itself with at this moment: credentials unsealed, an OAuth token refreshed before it ends."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import asyncpg

from chassis.database import Database
from chassis.leases import new_lease_token
from chassis.logs import get_logger
from chassis.queries import load_queries
from chassis.vault import SealBroken, Vault
from crm_sync.calling import VendorCaller
from crm_sync.connectors.protocol import (
    Access,
    Ask,
    Connector,
    Tokens,
    Trouble,
    TroubleKind,
    VendorError,
    VendorTrouble,
)
from crm_sync.credentials import OAuth, seal, unseal
from crm_sync.models import Connection
from crm_sync.records import connection_from

log = get_logger()
queries = load_queries("crm_sync.sync")

EARLY_SECONDS = 60.0
"""A token is replaced this long before it ends."""
REFRESH_LEASE_SECONDS = 20.0
_LOOK_AGAIN_SECONDS = 0.1

_Result = TypeVar("_Result")
Talk = Callable[[Ask, Access], Awaitable[_Result]]


class AccessKeeper:
    """Gives `Access` for a connection. One refresher at a time over all processes; new tokens are stored at once."""

    def __init__(self, database: Database, vault: Vault, caller: VendorCaller) -> None:
        self._database = database
        self.vault = vault
        self._caller = caller

    async def access(self, connection: Connection, connector: Connector, *, refused: bool = False) -> Access:
        """The connection's access, with a fresh token if the held one ends soon or was `refused`.

        VendorTrouble: FORBIDDEN if a person has to give new credentials, UNPREPARED if one just has, else whatever kept the
        token from being refreshed.
        """
        access = self.open(connection)
        credentials = access.credentials
        if isinstance(credentials, OAuth) and (refused or _ends_soon(connection, credentials)):
            return await self._refreshed(connection, connector, credentials)
        return access

    async def converse(self, connection: Connection, connector: Connector, talk: Talk[_Result]) -> _Result:
        """Hold a conversation with the vendor; once more with a fresh token if the held one was refused in it."""
        access = await self.access(connection, connector)
        try:
            return await talk(self._caller.asking(access, connector), access)
        except VendorTrouble as error:
            refused = error.trouble.kind is TroubleKind.UNAUTHORIZED and isinstance(access.credentials, OAuth)
            if not refused:
                raise
        access = await self.access(connection, connector, refused=True)
        return await talk(self._caller.asking(access, connector), access)

    async def first_access(self, access: Access, connector: Connector) -> tuple[Access, float | None]:
        """Access for a connection that is not stored yet, and the seconds its new token lives. See `access` for errors."""
        if not isinstance(access.credentials, OAuth):
            return access, None
        answer = await self._caller.send(connector.refresh_request(access, access.credentials), access.credentials)
        verdict = connector.judge_refresh(answer)
        if isinstance(verdict, Trouble):
            raise VendorTrouble(verdict)
        return replace(access, credentials=_renewed(access.credentials, verdict)), verdict.expires_in

    def open(self, connection: Connection) -> Access:
        """The stored credentials as they are. VendorTrouble if no key of ours opens them."""
        try:
            credentials = unseal(self.vault, connection.workspace_id, connection.id, connection.sealed)
        except SealBroken as error:
            words = VendorError(f"The stored credentials cannot be opened: {error}.")
            raise VendorTrouble(Trouble(TroubleKind.FORBIDDEN, words)) from error
        return Access(connection.workspace_id, connection.id, connection.settings, credentials, connection.account_id)

    async def _refreshed(self, connection: Connection, connector: Connector, held: OAuth) -> Access:
        token = new_lease_token()
        deadline = asyncio.get_running_loop().time() + REFRESH_LEASE_SECONDS
        while asyncio.get_running_loop().time() < deadline:
            async with self._database.acquire() as db:
                claimed = await db.fetchval(
                    queries["claim_refresh"],
                    connection.workspace_id,
                    connection.id,
                    connection.sealed,
                    token,
                    REFRESH_LEASE_SECONDS,
                )
            if claimed is not None:
                return await self._refresh(connection, connector, token)
            newer = await self._reload(connection)
            if newer.credentials_set_at != connection.credentials_set_at:
                # They may be for another account: whoever goes on with them sees first where they lead.
                words = VendorError("The connection was given other credentials meanwhile.")
                raise VendorTrouble(Trouble(TroubleKind.UNPREPARED, words))
            if newer.sealed != connection.sealed:
                access, connection = self.open(newer), newer
                if access.credentials != held:
                    return access
                continue  # the same token, sealed under another key
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        raise VendorTrouble(Trouble(TroubleKind.TRANSIENT, VendorError("The access token is still being refreshed.")))

    async def _refresh(self, connection: Connection, connector: Connector, lease: str) -> Access:
        access = self.open(connection)
        credentials = access.credentials
        if not isinstance(credentials, OAuth):
            raise TypeError("only OAuth grants are refreshed")
        try:
            answer = await self._caller.send(connector.refresh_request(access, credentials), credentials)
            verdict = connector.judge_refresh(answer)
            if isinstance(verdict, Trouble):
                raise VendorTrouble(verdict)
        except VendorTrouble:
            await self._release(connection, lease)
            raise
        renewed = _renewed(credentials, verdict)
        await self._store(connection, lease, renewed, verdict)
        log.info("refresh-token", connection_id=connection.id, expires_in=verdict.expires_in)
        return replace(access, credentials=renewed)

    async def _store(self, connection: Connection, lease: str, renewed: OAuth, tokens: Tokens) -> None:
        """Keep the new grant, unless somebody has given the connection other credentials meanwhile."""
        sealed = seal(self.vault, connection.workspace_id, connection.id, renewed)
        async with self._database.acquire() as db:
            await db.fetchval(
                queries["store_tokens"], connection.workspace_id, connection.id, lease, sealed, tokens.expires_in
            )

    async def _release(self, connection: Connection, lease: str) -> None:
        async with self._database.acquire() as db:
            await db.execute(queries["release_refresh"], connection.workspace_id, connection.id, lease)

    async def _reload(self, connection: Connection) -> Connection:
        async with self._database.acquire() as db:
            row: asyncpg.Record | None = await db.fetchrow(
                queries["read_connection"], connection.workspace_id, connection.id
            )
        if row is None:
            raise VendorTrouble(Trouble(TroubleKind.TRANSIENT, VendorError("The connection was deleted.")))
        return connection_from(row)


def _renewed(credentials: OAuth, tokens: Tokens) -> OAuth:
    return OAuth(credentials.client_id, credentials.client_secret, tokens.refresh_token, tokens.access_token)


def _ends_soon(connection: Connection, credentials: OAuth) -> bool:
    left = connection.token_seconds_left
    return credentials.access_token is None or left is None or left < EARLY_SECONDS
