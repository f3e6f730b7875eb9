"""Connections: what there is, what may be changed, and what follows from it."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from chassis.clock import rfc3339, utcnow
from chassis.database import Database, Transaction
from chassis.errors import Conflict, FieldError, NotFound, Unprocessable
from chassis.http import OutboundClient, OutboundRefused
from chassis.idempotency import Answer, WriteRequest, run_once
from chassis.ids import new_id
from chassis.parsing import parse_document, validate
from chassis.principal import Principal
from chassis.vault import SealBroken, Vault
from crm_sync import repository
from crm_sync.access import AccessKeeper
from crm_sync.bodies import (
    CONNECTION_CHANGE,
    NEW_CONNECTION,
    NewHubSpotConnection,
    NewWebhookConnection,
    VendorNamed,
    to_mapping,
)
from crm_sync.connectors.protocol import Access, Connector
from crm_sync.credentials import SigningSecret, SigningSecrets, new_signing_secret, seal, unseal
from crm_sync.documents import check_match, connection_document, credentials_kind, entity_tag
from crm_sync.errors import ConnectionNotFound, NameTaken
from crm_sync.models import Connection, ConnectionKey
from crm_sync.service.checking import VendorChecks, stored_answer_of

SECRET_OVERLAP = timedelta(hours=24)
_HUBSPOT_SUFFIX = ".hubapi.com"


@dataclass(frozen=True, slots=True)
class Connections:
    """The rules of connections."""

    database: Database
    vault: Vault
    outbound: OutboundClient
    keeper: AccessKeeper
    connectors: Mapping[str, Connector]
    checks: VendorChecks
    allowed_hosts: frozenset[str]
    """`host:port` of vendors' stand-ins that a connection may name."""

    def document(self, connection: Connection) -> dict[str, Any]:
        return connection_document(connection, credentials_kind(self.vault, connection))

    def shown(self, connection: Connection, status: int = 200, **headers: str) -> Answer:
        document = self.document(connection)
        return Answer.json(status, document, {"ETag": entity_tag(connection.version, document), **headers})

    async def read(self, key: ConnectionKey) -> Connection:
        """ConnectionNotFound unless this workspace has it."""
        found = await self.database.read(lambda db: repository.read_connection(db, key))
        if found is None:
            raise ConnectionNotFound
        return found

    async def list(
        self, principal: Principal, vendor: str | None, status: str | None, after: repository.Place | None, limit: int
    ) -> list[Connection]:
        """One more than `limit`, if there are more."""
        return await self.database.read(
            lambda db: repository.list_connections(
                db, principal.workspace_id, vendor=vendor, status=status, after=after, limit=limit + 1
            )
        )

    async def create(self, write: WriteRequest) -> Answer:
        """A new connection. Its mapping, if one is given, is checked at the vendor's before anything is stored."""
        given = self._parse_new(write)
        connector = self.connectors[given.vendor]
        key = ConnectionKey(write.principal.workspace_id, new_id("conn"))
        settings = given.settings.model_dump(exclude_none=True)
        self._check_settings(given.vendor, settings)
        access = Access(key.workspace_id, key.id, settings, given.credentials.to_credentials())
        mapping, token_seconds = tuple(connector.default_mapping()), None
        if given.mapping is not None:
            if (answer := await stored_answer_of(self.database, write)) is not None:
                return answer
            mapping = to_mapping(given.mapping)
            access, token_seconds = await self.checks.check_new(access, connector, mapping)
        new = repository.NewConnection(
            key=key,
            name=given.name,
            vendor=given.vendor,
            mode=given.mode,
            on_delete=given.on_delete,
            settings=settings,
            time_zone=given.time_zone,
            sealed=seal(self.vault, key.workspace_id, key.id, access.credentials),
            token_seconds=token_seconds,
            mapping=mapping,
        )

        async def effect(tx: Transaction) -> Answer:
            await repository.lock_workspace(tx.connection, key.workspace_id)
            await self._require_free_name(tx, key, given.name)
            await repository.insert_connection(tx.connection, new)
            stored = await self._reread(tx, key)
            return self.shown(stored, 201, Location=f"/api/crm/connections/{key.id}")

        return await run_once(write, self.database, effect)

    async def change(self, write: WriteRequest, connection_id: str, if_match: str | None) -> Answer:
        """A JSON merge patch (RFC 7396); credentials are replaced as a whole."""
        document = parse_document(write.body, write.content_type)

        async def change(tx: Transaction, held: Connection) -> None:
            body = validate(document, CONNECTION_CHANGE[held.vendor])
            given = body.model_fields_set
            settings = {**held.settings, **body.settings.model_dump(exclude_unset=True)}
            settings = {name: value for name, value in settings.items() if value is not None}
            self._check_settings(held.vendor, settings)
            changed = replace(
                held,
                name=body.name if "name" in given else held.name,
                mode=body.mode if "mode" in given else held.mode,
                on_delete=body.on_delete if "on_delete" in given else held.on_delete,
                time_zone=body.time_zone if "time_zone" in given else held.time_zone,
                settings=settings,
            )
            if changed.name.lower() != held.name.lower():
                await self._require_free_name(tx, held.key, changed.name)
            if "credentials" in given:
                sealed = seal(self.vault, held.workspace_id, held.id, body.credentials.to_credentials())
                await repository.replace_credentials(tx.connection, held.key, sealed)
            if changed != held or "credentials" in given:
                backfill = changed.mode == "all" and held.mode != "all"
                await repository.update_connection(tx.connection, changed, backfill=backfill)
                await repository.notify_connection(tx.connection, held.key)

        return await self._write(write, connection_id, if_match, change)

    async def pause(self, write: WriteRequest, connection_id: str, if_match: str | None) -> Answer:
        """Nothing is sent until it is resumed; what is wanted meanwhile waits."""

        async def pause(tx: Transaction, held: Connection) -> None:
            if held.status != "paused":
                await repository.set_status(tx.connection, held.key, "paused", "paused by a user")

        return await self._write(write, connection_id, if_match, pause)

    async def resume(self, write: WriteRequest, connection_id: str, if_match: str | None) -> Answer:
        """Use it again, whatever it had stopped for; a rest it is taking ends."""

        async def resume(tx: Transaction, held: Connection) -> None:
            if held.status != "active" or held.trouble_count > 0:
                await repository.set_status(tx.connection, held.key, "active", None)
                await repository.notify_connection(tx.connection, held.key)

        return await self._write(write, connection_id, if_match, resume)

    async def delete(self, write: WriteRequest, connection_id: str, if_match: str | None) -> Answer:
        """Its credentials are forgotten at once; records in the CRM stay as they are."""
        key = ConnectionKey(write.principal.workspace_id, connection_id)

        async def effect(tx: Transaction) -> Answer:
            held = await self._hold(tx, key, if_match)
            await repository.delete_connection(tx.connection, held.key)
            return Answer(204)

        return await run_once(write, self.database, effect)

    async def rotate_signing_secret(self, principal: Principal, connection_id: str) -> dict[str, str]:
        """A new signing secret, shown this once. The one before signs along for a day. NotFound unless it is a webhook."""
        key = ConnectionKey(principal.workspace_id, connection_id)
        secret, until = new_signing_secret(), utcnow() + SECRET_OVERLAP
        async with self.database.transaction() as tx:
            held = await self._hold(tx, key, None)
            if held.vendor != "webhook":
                raise NotFound("Only webhook connections have a signing secret.")
            secrets = SigningSecrets((SigningSecret(secret),))
            with suppress(SealBroken):  # a secret that we cannot read ourselves any more signs nothing
                credentials = unseal(self.vault, key.workspace_id, key.id, held.sealed)
                if isinstance(credentials, SigningSecrets):
                    secrets = credentials.rotated(secret, until)
            await repository.replace_credentials(
                tx.connection, key, seal(self.vault, key.workspace_id, key.id, secrets)
            )
        return {"secret": secret, "previous_valid_until": rfc3339(until)}

    async def _write(
        self,
        write: WriteRequest,
        connection_id: str,
        if_match: str | None,
        change: Callable[[Transaction, Connection], Awaitable[None]],
    ) -> Answer:
        key = ConnectionKey(write.principal.workspace_id, connection_id)

        async def effect(tx: Transaction) -> Answer:
            if write.method == "PATCH":
                # A connection that begins to take all leads must not miss the one that is being fanned out now.
                await repository.lock_workspace(tx.connection, key.workspace_id)
            held = await self._hold(tx, key, if_match)
            await change(tx, held)
            return self.shown(await self._reread(tx, key))

        return await run_once(write, self.database, effect)

    async def _hold(self, tx: Transaction, key: ConnectionKey, if_match: str | None) -> Connection:
        held = await repository.lock_connection(tx.connection, key)
        if held is None:
            raise ConnectionNotFound
        check_match(if_match, held.version, "connection")
        return held

    async def _reread(self, tx: Transaction, key: ConnectionKey) -> Connection:
        found = await repository.read_connection(tx.connection, key)
        if found is None:
            raise Conflict("The connection was deleted meanwhile.")
        return found

    async def _require_free_name(self, tx: Transaction, key: ConnectionKey, name: str) -> None:
        existing = await repository.find_by_name(tx.connection, key.workspace_id, name)
        if existing is not None and existing != key.id:
            raise NameTaken(existing)

    def _parse_new(self, write: WriteRequest) -> NewHubSpotConnection | NewWebhookConnection:
        document = parse_document(write.body, write.content_type)
        named = validate(document, VendorNamed)
        return validate(document, NEW_CONNECTION[named.vendor])

    def _check_settings(self, vendor: str, settings: Mapping[str, Any]) -> None:
        """Unprocessable for an address this vendor cannot have, or that we never call."""
        name = "url" if vendor == "webhook" else "base_url"
        url = settings.get(name)
        if url is None:
            return
        pointer = f"/settings/{name}"
        try:
            self.outbound.check_url(url)
            parts = urlsplit(url)
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except (OutboundRefused, ValueError) as error:
            problem = FieldError(pointer, str(error))
            raise Unprocessable("The address cannot be called.", errors=[problem]) from error
        host = (parts.hostname or "").lower()
        if vendor == "hubspot" and not host.endswith(_HUBSPOT_SUFFIX) and f"{host}:{port}" not in self.allowed_hosts:
            raise Unprocessable(
                "The address is not HubSpot's.",
                errors=[FieldError(pointer, f"must be a host of {_HUBSPOT_SUFFIX[1:]}")],
            )
