"""Asking vendors before something is stored: does the mapping fit, do the credentials work."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chassis.database import Database, Transaction
from chassis.errors import FieldError, Unprocessable
from chassis.idempotency import Answer, WriteRequest, run_once, stored_answer
from chassis.idempotency import queries as key_queries
from chassis.parsing import parse_json
from crm_sync import repository
from crm_sync.access import AccessKeeper
from crm_sync.bodies import MappingInput, to_mapping
from crm_sync.calling import VendorCaller
from crm_sync.connectors.protocol import (
    Access,
    Connector,
    MappingProblem,
    Preparation,
    Trouble,
    TroubleKind,
    VendorTrouble,
)
from crm_sync.documents import check_match, connection_document, credentials_kind, entity_tag, mapping_document
from crm_sync.errors import ConnectionNotFound, CredentialsRefused, VendorUnavailable
from crm_sync.mapping import MappedField
from crm_sync.models import Connection, ConnectionKey
from crm_sync.sync.troubles import describe

_REFUSALS = frozenset((TroubleKind.UNAUTHORIZED, TroubleKind.FORBIDDEN))


async def stored_answer_of(database: Database, write: WriteRequest) -> Answer | None:
    """The answer this write has had already, before anybody outside is asked because of it again."""
    async with database.acquire() as connection:
        record = await connection.fetchrow(key_queries["read_key"], *write.scope)
    return stored_answer(write, dict(record)) if record is not None and record["status"] is not None else None


@dataclass(frozen=True, slots=True)
class VendorChecks:
    """Mappings against the vendors' properties, and connections against their vendors."""

    database: Database
    keeper: AccessKeeper
    caller: VendorCaller
    connectors: Mapping[str, Connector]

    async def check_new(
        self, access: Access, connector: Connector, mapping: Sequence[MappedField]
    ) -> tuple[Access, float | None]:
        """For a connection that is not stored yet; returns its access, and how long a token lives that had to be fetched."""
        _require_distinct(mapping, "/mapping")
        try:
            access, token_seconds = await self.keeper.first_access(access, connector)
            problems = await connector.check_mapping(self.caller.asking(access, connector), access, mapping)
        except VendorTrouble as error:
            if error.trouble.kind in _REFUSALS:
                problem = FieldError("/credentials", describe(error.trouble))
                raise Unprocessable("The CRM refuses the credentials.", errors=[problem]) from error
            raise VendorUnavailable(_unavailable(error.trouble)) from error
        _raise_if_any(problems, "/mapping")
        return access, token_seconds

    async def replace_mapping(self, write: WriteRequest, connection_id: str, if_match: str | None) -> Answer:
        """Another mapping, once the vendor has shown that it fits. One that changes nothing changes nothing."""
        mapping = to_mapping(parse_json(write.body, MappingInput, write.content_type).fields)
        _require_distinct(mapping, "/fields")
        if (answer := await stored_answer_of(self.database, write)) is not None:
            return answer
        key = ConnectionKey(write.principal.workspace_id, connection_id)
        connection = await self._read(key)
        check_match(if_match, connection.mapping_version, "mapping")
        connector = self.connectors[connection.vendor]
        try:
            problems = await self.keeper.converse(
                connection, connector, lambda ask, access: connector.check_mapping(ask, access, mapping)
            )
        except VendorTrouble as error:
            raise _problem(error.trouble) from error
        _raise_if_any(problems, "/fields")

        async def effect(tx: Transaction) -> Answer:
            held = await repository.lock_connection(tx.connection, key)
            if held is None:
                raise ConnectionNotFound
            check_match(if_match, held.mapping_version, "mapping")
            if mapping != held.mapping:
                await repository.replace_mapping(tx.connection, key, mapping)
                await repository.notify_connection(tx.connection, key)
            document, tag = _tagged(await self._reread(tx, key))
            return Answer.json(200, document, {"ETag": tag})

        return await run_once(write, self.database, effect)

    async def verify(self, write: WriteRequest, connection_id: str) -> Answer:
        """Ask the vendor whether the connection works, make what we need there, and note what was found."""
        if (answer := await stored_answer_of(self.database, write)) is not None:
            return answer
        key = ConnectionKey(write.principal.workspace_id, connection_id)
        connection = await self._read(key)
        connector = self.connectors[connection.vendor]
        found, trouble = Preparation(), None
        try:
            found = await self.keeper.converse(
                connection, connector, lambda ask, access: connector.prepare(ask, access, connection.mapping)
            )
        except VendorTrouble as error:
            trouble = error.trouble

        async def effect(tx: Transaction) -> Answer:
            held = await repository.lock_connection(tx.connection, key)
            if held is None:
                raise ConnectionNotFound
            asked = connection.credentials_set_at, connection.mapping_version
            if (held.credentials_set_at, held.mapping_version) == asked:  # else it says nothing about what is there now
                await self._note(tx, held, found, trouble)
            return self._verification(await self._reread(tx, key), found, trouble)

        return await run_once(write, self.database, effect)

    async def _note(self, tx: Transaction, held: Connection, found: Preparation, trouble: Trouble | None) -> None:
        if trouble is not None and trouble.kind in _REFUSALS and held.status == "active":
            await repository.set_status(tx.connection, held.key, "needs_reauth", describe(trouble))
        elif trouble is None and found.mapping_problems and held.status == "active":
            detail = found.mapping_problems[0].detail
            await repository.set_status(
                tx.connection, held.key, "needs_mapping", f"The mapping does not fit: {detail}."
            )
        elif trouble is None and not found.mapping_problems:
            await repository.record_preparation(tx.connection, held, found)
            await repository.notify_connection(tx.connection, held.key)

    def _verification(self, connection: Connection, found: Preparation, trouble: Trouble | None) -> Answer:
        problems = [
            {"pointer": f"/mapping/{each.index}/{each.member}", "detail": each.detail}
            for each in found.mapping_problems
        ]
        if trouble is not None:
            pointer = "/credentials" if trouble.kind in _REFUSALS else ""
            problems.append({"pointer": pointer, "detail": describe(trouble)})
        document = {
            "ok": not problems,
            "account_id": found.account_id,
            "time_zone": found.time_zone,
            "made": list(found.made),
            "problems": problems,
            "connection": connection_document(connection, credentials_kind(self.keeper.vault, connection)),
        }
        return Answer.json(200, document)

    async def read_mapping(self, key: ConnectionKey) -> tuple[dict[str, Any], str]:
        """The mapping in use and its entity tag."""
        return _tagged(await self._read(key))

    async def _read(self, key: ConnectionKey) -> Connection:
        found = await self.database.read(lambda db: repository.read_connection(db, key))
        if found is None:
            raise ConnectionNotFound
        return found

    async def _reread(self, tx: Transaction, key: ConnectionKey) -> Connection:
        found = await repository.read_connection(tx.connection, key)
        if found is None:
            raise ConnectionNotFound
        return found


def _tagged(connection: Connection) -> tuple[dict[str, Any], str]:
    document = mapping_document(connection)
    return document, entity_tag(connection.mapping_version, document)


def _require_distinct(mapping: Sequence[MappedField], prefix: str) -> None:
    names = [mapped.property for mapped in mapping]
    errors = [
        FieldError(f"{prefix}/{index}/property", f"{name!r} is filled twice")
        for index, name in enumerate(names)
        if name in names[:index]
    ]
    if errors:
        raise Unprocessable("A property can be filled from one field only.", errors=errors)


def _raise_if_any(problems: Sequence[MappingProblem], prefix: str) -> None:
    if problems:
        errors = [FieldError(f"{prefix}/{each.index}/{each.member}", each.detail) for each in problems]
        raise Unprocessable("The mapping does not fit the CRM.", errors=errors)


def _problem(trouble: Trouble) -> CredentialsRefused | VendorUnavailable:
    if trouble.kind in _REFUSALS:
        return CredentialsRefused(f"The CRM refuses the connection's credentials: {describe(trouble)}")
    return VendorUnavailable(_unavailable(trouble))


def _unavailable(trouble: Trouble) -> str:
    return f"The CRM cannot be asked now: {describe(trouble)}"
