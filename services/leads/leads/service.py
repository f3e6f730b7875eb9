"""Writing leads. Each write is one statement that holds the lead's new state, its idempotency key with the answer, and its event.

Creating goes through the writer, which puts concurrent requests into one statement. Changing reads the lead, computes what it becomes,
and writes that on the condition that nobody else has changed it meanwhile; if somebody has, it starts again from what is there now.
A repetition of a request is answered from its key before anything else is judged.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Literal, get_args

import asyncpg
import orjson

from chassis.clock import utcnow
from chassis.database import Database, PooledConnection, finish
from chassis.errors import ProblemError, Unavailable
from chassis.failpoints import failpoint
from chassis.idempotency import Answer, WriteRequest, hold_key, still_running, stored_answer
from chassis.ids import new_id
from chassis.outbox import outbox_rows
from chassis.parsing import parse_json
from chassis.trouble import is_connection_lost
from leads import changes, repository
from leads.changes import Change
from leads.contact import NO_REGION
from leads.errors import DuplicateLead, LeadNotFound, OwnerUnknown
from leads.etags import check_match
from leads.events import Kind, lead_event
from leads.fields import (
    LeadChange,
    LeadInput,
    check_read_only,
    needs_region,
    new_fields,
    patched_fields,
    replaced_fields,
)
from leads.models import Lead, is_lead_id
from leads.repository import ContactTaken, KeyTaken, Known, LeadWrite
from leads.shown import LeadCache
from leads.workspace import WorkspaceSettings
from leads.writer import LeadWriter, Outcome

OnDuplicate = Literal["error", "update", "return", "allow"]
ON_DUPLICATE: Final[Mapping[str, OnDuplicate]] = {name: name for name in get_args(OnDuplicate)}

CREATE_ATTEMPTS: Final = 5
CHANGE_ATTEMPTS: Final = 50

Compute = Callable[[Lead], Awaitable[Change | None]]
"""What a write makes of the lead it finds: a change, or None if there is nothing to change. Raises problems."""


class LeadService:
    """The writes of one process."""

    def __init__(self, database: Database, cache: LeadCache, writer: LeadWriter, workspace: WorkspaceSettings) -> None:
        self._database = database
        self._cache = cache
        self._writer = writer
        self._workspace = workspace

    # --- creating ---

    async def create(self, write: WriteRequest, on_duplicate: OnDuplicate) -> Answer:
        """201 with a new lead; or what `on_duplicate` says about the live lead that has its e-mail or phone already."""
        async with hold_key(write.scope) as waited:
            if waited and (repeated := await self._repeated(write)):
                return repeated
            try:
                given = parse_json(write.body, LeadInput, write.content_type)
                fields = new_fields(given, await self._region_for(write, given))
            except ProblemError:
                if repeated := await self._repeated(write):
                    return repeated
                raise
            return await self._create(write, given, fields, on_duplicate)

    async def _create(
        self, write: WriteRequest, given: LeadInput, fields: dict[str, object], on_duplicate: OnDuplicate
    ) -> Answer:
        workspace_id = write.principal.workspace_id
        unique = on_duplicate != "allow"
        for _ in range(CREATE_ATTEMPTS):
            change = changes.created(workspace_id, new_id("lead"), fields, utcnow(), unique=unique)
            answer = _shown_answer(201, change.lead, {"Location": f"/api/leads/{change.lead.id}"})
            [event] = outbox_rows([lead_event("lead.created", change)])
            outcome = await self._stored(write, LeadWrite(change, write, answer, event))
            if outcome is Outcome.CREATED:
                await self._cache.put(change.lead)
                failpoint("leads.before_response")
                return answer
            if repeated := await self._repeated(write, drop_expired=outcome is Outcome.KEY_TAKEN):
                return repeated
            if outcome is Outcome.LEFT_OUT:
                existing_id = await self._lead_in_the_way(change.lead)
                if existing_id is not None:
                    with suppress(LeadNotFound):  # it is gone by now: the way is free
                        return await self._instead(write, given, existing_id, change.lead.dedupe_key, on_duplicate)
        raise Unavailable("Other requests for this lead came in between, again and again; try again.")

    async def _stored(self, write: WriteRequest, row: LeadWrite) -> Outcome:
        try:
            return await self._writer.create(row)
        except asyncpg.LockNotAvailableError as error:
            raise still_running(write) from error

    async def _lead_in_the_way(self, lead: Lead) -> str | None:
        """Why it was left out: the live lead that has its e-mail or phone, OwnerUnknown, or None if the way is free by now."""
        async with self._database.acquire() as connection:
            if lead.dedupe_key is not None:
                existing = await repository.find_live_lead(connection, lead.workspace_id, lead.dedupe_key)
                if existing is not None:
                    return existing
            owner = lead.fields["owner_id"]
            if owner is not None and not await repository.owner_is_active(connection, lead.workspace_id, owner):
                raise OwnerUnknown
        return None

    async def _instead(
        self, write: WriteRequest, given: LeadInput, lead_id: str, dedupe_key: str | None, on_duplicate: OnDuplicate
    ) -> Answer:
        """What `on_duplicate` asks for; LeadNotFound if the lead is deleted or has another e-mail or phone by now."""

        async def compute(lead: Lead) -> Change | None:
            if lead.dedupe_key != dedupe_key:
                raise LeadNotFound
            return await self._patched(write, lead, given) if on_duplicate == "update" else None

        if on_duplicate in ("update", "return"):
            return await self._change(write, lead_id, "lead.updated", None, compute)
        raise DuplicateLead(lead_id)

    # --- changing ---

    async def replace(self, write: WriteRequest, lead_id: str, if_match: str | None) -> Answer:
        """Every field as given, the rest empty."""

        async def compute(lead: Lead) -> Change | None:
            given = parse_json(write.body, LeadChange, write.content_type)
            check_read_only(lead, given)
            return changes.edited(lead, replaced_fields(lead, given, await self._region_for(write, given)), utcnow())

        async with hold_key(write.scope):
            return await self._change(write, lead_id, "lead.updated", if_match, compute)

    async def patch(self, write: WriteRequest, lead_id: str, if_match: str | None) -> Answer:
        """The fields that are given (RFC 7396)."""

        async def compute(lead: Lead) -> Change | None:
            given = parse_json(write.body, LeadChange, write.content_type)
            check_read_only(lead, given)
            return await self._patched(write, lead, given)

        async with hold_key(write.scope):
            return await self._change(write, lead_id, "lead.updated", if_match, compute)

    async def delete(self, write: WriteRequest, lead_id: str, if_match: str | None) -> Answer:
        """Put the lead away; its e-mail and phone become free."""

        async def compute(lead: Lead) -> Change | None:
            return changes.deleted(lead, utcnow())

        async with hold_key(write.scope):
            return await self._change(write, lead_id, "lead.deleted", if_match, compute)

    async def restore(self, write: WriteRequest, lead_id: str, if_match: str | None) -> Answer:
        """Bring a deleted lead back; a live one stays as it is."""

        async def compute(lead: Lead) -> Change | None:
            return changes.restored(lead, utcnow())

        async with hold_key(write.scope):
            return await self._change(write, lead_id, "lead.restored", if_match, compute)

    async def _patched(self, write: WriteRequest, lead: Lead, given: LeadInput) -> Change | None:
        return changes.edited(lead, patched_fields(lead, given, await self._region_for(write, given)), utcnow())

    async def _region_for(self, write: WriteRequest, given: LeadInput) -> str:
        return await self._workspace.region(write.principal.workspace_id) if needs_region(given) else NO_REGION

    async def _change(
        self, write: WriteRequest, lead_id: str, kind: Kind, if_match: str | None, compute: Compute
    ) -> Answer:
        """Read, compute, write on the condition that nothing came between; again if something did."""
        if not is_lead_id(lead_id):
            raise LeadNotFound
        losses = 0
        for attempt in range(CHANGE_ATTEMPTS):
            try:
                known = await self._known(write, lead_id)
                lead = known.lead
                if known.stored is not None:
                    return await self._replayed(write, known.stored, lead)
                if lead is None or (lead.deleted_at and kind != "lead.restored"):
                    raise LeadNotFound
                check_match(if_match, lead)
                change = await compute(lead)
                answer = await finish(self._carry_out(write, kind, lead, change))
            except Exception as error:
                if not is_connection_lost(error):
                    raise
                losses += 1
                if losses > 1:
                    raise Unavailable("The database cannot be reached; try again.") from error
                continue
            if answer is not None:
                failpoint("leads.before_response")
                return answer
            await asyncio.sleep(random.uniform(0, 0.002 * min(attempt + 1, 10)))  # noqa: S311 - jitter
        raise Unavailable("Other requests changed this lead in between, again and again; try again.")

    async def _carry_out(self, write: WriteRequest, kind: Kind, lead: Lead, change: Change | None) -> Answer | None:
        """The statement; None if somebody was faster. It is the transaction: it runs to its end whatever becomes of the request."""
        try:
            async with self._database.acquire() as connection:
                if change is None:
                    return await self._keep_answer(connection, write, lead)
                answer = Answer(204) if kind == "lead.deleted" else _shown_answer(200, change.lead)
                [event] = outbox_rows([lead_event(kind, change)])
                failpoint("leads.before_commit")
                done, owner_is_active = await repository.change_lead(
                    connection, lead, LeadWrite(change, write, answer, event)
                )
        except KeyTaken:
            await self._drop_expired_key(write)
            return None
        except ContactTaken:
            await self._refuse_duplicate(change.lead if change else lead)
            return None
        except asyncpg.LockNotAvailableError as error:
            raise still_running(write) from error
        if not owner_is_active:
            raise OwnerUnknown
        if not done:
            return None
        failpoint("leads.after_commit")
        # First the cache, then the event: who is told of the change must find it.
        await self._cache.put(change.lead)
        self._database.announce([event])
        return answer

    @staticmethod
    async def _keep_answer(connection: PooledConnection, write: WriteRequest, lead: Lead) -> Answer:
        answer = _shown_answer(200, lead)
        await repository.keep_answer(connection, write, answer)
        return answer

    async def _refuse_duplicate(self, lead: Lead) -> None:
        """DuplicateLead, naming the lead that has the e-mail or phone; nothing if it has let go of it meanwhile."""
        existing_id = await self._lead_in_the_way(lead)
        if existing_id is not None:
            raise DuplicateLead(existing_id)

    # --- repetitions ---

    async def _known(self, write: WriteRequest, lead_id: str) -> Known:
        return await self._database.read(lambda connection: repository.read_for_write(connection, write, lead_id))

    async def _repeated(self, write: WriteRequest, *, drop_expired: bool = False) -> Answer | None:
        """The answer that this key has got already."""
        known = await self._known(write, "")
        if known.stored is not None:
            return await self._replayed(write, known.stored, None)
        if drop_expired:
            await self._drop_expired_key(write)
        return None

    async def _replayed(self, write: WriteRequest, stored: Mapping[str, Any], lead: Lead | None) -> Answer:
        """The stored answer. The first attempt may have died before it reached the cache, so the cache is brought up to date."""
        answer = stored_answer(write, stored)
        if lead is None:
            workspace_id, lead_id = write.principal.workspace_id, orjson.loads(answer.body)["id"]
            lead = await self._database.read(lambda connection: repository.read_lead(connection, workspace_id, lead_id))
        if lead is not None:
            await self._cache.put(lead)
        return answer

    async def _drop_expired_key(self, write: WriteRequest) -> None:
        async with self._database.acquire() as connection:
            await repository.drop_expired_key(connection, write)


def _shown_answer(status: int, lead: Lead, headers: dict[str, str] | None = None) -> Answer:
    return Answer(status, lead.body, {"ETag": lead.etag, **(headers or {})})
