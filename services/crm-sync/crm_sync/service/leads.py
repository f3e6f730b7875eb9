"""Leads as connections know them: wishes, standings, dead letters."""

from dataclasses import dataclass
from typing import Any

from chassis.context import current
from chassis.database import Database, Transaction
from chassis.errors import FieldError, Unavailable, Unprocessable
from chassis.http import OutboundFailed, ServiceClient
from chassis.idempotency import Answer, WriteRequest, run_once
from chassis.parsing import parse_json
from chassis.principal import Principal
from crm_sync import repository
from crm_sync.bodies import ReplayRequest, SyncRequest
from crm_sync.documents import standing_document
from crm_sync.errors import ConnectionNotFound, DeadLetterNotFound, LeadNotFound
from crm_sync.models import ConnectionKey, DeadLetter


@dataclass(frozen=True, slots=True)
class Leads:
    """What may be asked of crm-sync about leads."""

    database: Database
    services: ServiceClient

    async def sync(self, write: WriteRequest, lead_id: str) -> Answer:
        """Want a lead, in a version or in its newest, at one connection or at all of the workspace.

        A lead we have not heard of yet is taken on a service's word; a user's is asked after at leads.
        """
        request = parse_json(write.body, SyncRequest, write.content_type) if write.body else SyncRequest()
        workspace_id = write.principal.workspace_id
        if not write.principal.is_service:
            await self._require_lead(workspace_id, lead_id, request.version)

        async def effect(tx: Transaction) -> Answer:
            if request.connection_id is not None:
                key = ConnectionKey(workspace_id, request.connection_id)
                if await repository.read_connection(tx.connection, key) is None:
                    raise ConnectionNotFound
            copy = await repository.read_copy(tx.connection, workspace_id, lead_id)
            if copy is not None and copy[1]:
                raise LeadNotFound
            version = max(request.version or 0, copy[0] if copy is not None else 0)
            await repository.want_lead(
                tx.connection,
                workspace_id,
                lead_id,
                version=version,
                connection_id=request.connection_id,
                cause=current(),
            )
            standings = await repository.read_standings(tx.connection, workspace_id, lead_id, request.connection_id)
            return Answer.json(202, {"items": [standing_document(each) for each in standings]})

        return await run_once(write, self.database, effect)

    async def _require_lead(self, workspace_id: str, lead_id: str, version: int | None) -> None:
        """LeadNotFound unless the workspace has the lead; Unprocessable for a version it has not reached."""
        async with self.database.acquire() as connection:
            copy = await repository.read_copy(connection, workspace_id, lead_id)
        if copy is not None and not copy[1] and (version or 0) <= copy[0]:
            return
        try:
            answer = await self.services.request("GET", f"/api/leads/{lead_id}", workspace_id=workspace_id)
        except OutboundFailed as error:
            raise Unavailable("leads cannot be asked after this lead; try again.") from error
        if answer.status_code == 404:
            raise LeadNotFound
        if answer.status_code != 200:
            raise Unavailable("leads cannot be asked after this lead; try again.")
        newest = int(answer.json()["version"])
        if version is not None and version > newest:
            problem = FieldError("/version", f"the lead is at version {newest}")
            raise Unprocessable("The lead has no such version.", errors=[problem])

    async def standings(self, principal: Principal, lead_id: str) -> list[dict[str, Any]]:
        """Where the lead stands at each connection that knows it; LeadNotFound for a lead we have not heard of."""

        async def read(connection: Any) -> list[dict[str, Any]]:
            found = await repository.read_standings(connection, principal.workspace_id, lead_id)
            if not found and not await repository.lead_is_known(connection, principal.workspace_id, lead_id):
                raise LeadNotFound
            return [standing_document(each) for each in found]

        return await self.database.read(read)

    async def dead_letters(
        self,
        principal: Principal,
        *,
        connection_id: str | None,
        kind: str | None,
        lead_id: str | None,
        after: repository.Place | None,
        limit: int,
    ) -> list[DeadLetter]:
        """One more than `limit`, if there are more."""
        return await self.database.read(
            lambda db: repository.list_dead_letters(
                db,
                principal.workspace_id,
                connection_id=connection_id,
                kind=kind,
                lead_id=lead_id,
                after=after,
                limit=limit + 1,
            )
        )

    async def replay(self, write: WriteRequest, dead_letter_id: str) -> Answer:
        """One dead lead is tried again as if nothing had happened."""

        async def effect(tx: Transaction) -> Answer:
            count, lead_id = await repository.replay_dead_letters(
                tx.connection,
                write.principal.workspace_id,
                dead_letter_id=dead_letter_id,
                request_id=current().request_id,
            )
            if count == 0 or lead_id is None:
                raise DeadLetterNotFound
            return Answer.json(202, {"replayed": count})

        return await run_once(write, self.database, effect)

    async def replay_many(self, write: WriteRequest) -> Answer:
        """All dead leads, or those of a connection, a class, or both."""
        request = parse_json(write.body, ReplayRequest, write.content_type) if write.body else ReplayRequest()
        workspace_id = write.principal.workspace_id

        async def effect(tx: Transaction) -> Answer:
            if request.connection_id is not None:
                key = ConnectionKey(workspace_id, request.connection_id)
                if await repository.read_connection(tx.connection, key) is None:
                    raise ConnectionNotFound
            count, _ = await repository.replay_dead_letters(
                tx.connection,
                workspace_id,
                connection_id=request.connection_id,
                kind=request.kind,
                request_id=current().request_id,
            )
            return Answer.json(202, {"replayed": count})

        return await run_once(write, self.database, effect)
