"""One batch: claimed leads on their way through a connector's calls to their settlements."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from chassis.clock import utcnow
from chassis.database import Database
from chassis.failpoints import failpoint
from chassis.leases import Lease, LeaseLost
from chassis.logs import get_logger
from chassis.trouble import is_database_trouble
from crm_sync.access import AccessKeeper
from crm_sync.calling import BudgetSpent, VendorCaller
from crm_sync.connectors.answers import correlation_id, document_of
from crm_sync.connectors.protocol import (
    Access,
    Call,
    Conflicting,
    Connector,
    Found,
    Judged,
    Missing,
    Operation,
    Split,
    Trouble,
    VendorAnswer,
    VendorTrouble,
    Verdict,
)
from crm_sync.credentials import OAuth
from crm_sync.models import Claim, Connection, Settlement
from crm_sync.settings import CrmSyncSettings
from crm_sync.sync import policy, repository
from crm_sync.sync.metrics import CALLS
from crm_sync.sync.planning import Plan, Work, mapped_names, plan
from crm_sync.sync.settlements import Rules, Timing
from crm_sync.sync.settling import settle_all
from crm_sync.sync.troubles import act_on

log = get_logger()


@dataclass(frozen=True, slots=True)
class Tools:
    """What batches are worked on with."""

    settings: CrmSyncSettings
    database: Database
    caller: VendorCaller
    keeper: AccessKeeper


@dataclass(frozen=True, slots=True)
class Sent:
    """A call that was made, and what came of it."""

    call: Call
    verdict: Judged | Trouble
    timing: Timing


@dataclass(slots=True)
class Batch:
    """Claimed leads of one connection. `run` leaves none of them claimed unless the lease was lost."""

    tools: Tools
    connection: Connection
    connector: Connector
    access: Access
    lease: Lease
    trouble: Trouble | None = None
    """What the connection as a whole has met; nothing is sent after it."""
    wait_seconds: float = 0.0
    """How long the connection's own budget grants nothing."""
    succeeded: bool = False
    _works: dict[str, Work] = field(default_factory=dict)

    async def run(self, claims: Sequence[Claim]) -> None:
        """Look up, archive and write what `claims` need. LeaseLost if the leads are no longer ours."""
        todo: Plan = plan(self.connection, self.connector, claims)
        settled = [policy.settle_equal(claim) for claim in todo.equal]
        settled += [policy.settle_release(claim) for claim in todo.release]
        await self._settle(settled)
        await self._work(todo.look_up, self._calls(todo.look_up, look_up=True))
        await self._work(todo.archive, self._calls(todo.archive, archive=True))
        await self._work(todo.write, self._calls(todo.write))

    @property
    def _rules(self) -> Rules:
        return Rules(
            retry_delays=self.connector.retry_delays,
            looks_up=self.connector.looks_up,
            vendor_timeout_seconds=self.tools.settings.vendor_timeout_seconds,
            was_healthy=self.connection.trouble_count == 0,
        )

    def _calls(self, works: Sequence[Work], *, archive: bool = False, look_up: bool = False) -> Sequence[Call]:
        return self.connector.calls([work.record for work in works], archive=archive, look_up=look_up) if works else []

    async def _work(self, works: Sequence[Work], calls: Sequence[Call]) -> None:
        """Make the calls, as many at a time as the vendor likes; what is left over after trouble is handed back."""
        self._works = {work.lead_id: work for work in works}
        size = self.connector.parallel_calls
        for start in range(0, len(calls), size):
            group = calls[start : start + size]
            if self.trouble is not None or self.wait_seconds > 0:
                await self._hand_back(record.lead_id for call in calls[start:] for record in call.records)
                return
            results = await asyncio.gather(*(self._carry_out(call) for call in group), return_exceptions=True)
            whole = [result for result in results if not isinstance(result, BaseException)]
            await self._conclude([sent for done, _ in whole for sent in done])
            await self._hand_back(lead_id for _, unsent in whole for lead_id in unsent)
            for result in results:
                if isinstance(result, BaseException):
                    raise result

    async def _carry_out(self, call: Call) -> tuple[list[Sent], list[str]]:
        """Make a call, in ever smaller parts while it is refused as a whole. Also returns the leads not sent."""
        waiting, done = [call], []
        while waiting:
            current = waiting.pop(0)
            try:
                verdict, timing = await self._send(current)
            except BudgetSpent as error:
                self.wait_seconds = max(self.wait_seconds, error.seconds)
                waiting.insert(0, current)
                break
            if isinstance(verdict, Split):
                waiting[:0] = current.halves()
                continue
            done.append(Sent(current, verdict, timing))
            if isinstance(verdict, Trouble):
                break
        return done, [record.lead_id for left in waiting for record in left.records]

    async def _send(self, call: Call) -> tuple[Verdict, Timing]:
        await self._admit()
        failpoint("sync.before_call")
        started = utcnow()
        try:
            answer = await self._ask(call)
        except VendorTrouble as error:
            verdict: Verdict = error.trouble
            timing = Timing(started, utcnow(), error.trouble.error.status, error.trouble.error.correlation_id)
        else:
            failpoint("sync.after_call")
            verdict = self.connector.judge(call, answer)
            timing = Timing(started, utcnow(), answer.status, correlation_id(answer, document_of(answer)))
        CALLS.labels(self.connector.vendor, call.operation.value, _word(verdict)).inc()
        return verdict, timing

    async def _admit(self) -> None:
        """Wait until a call may begin: BudgetSpent if the limits grant none soon, LeaseLost if the lease may end before it does."""
        await self.tools.caller.grant(self.access, self.connector)
        if self.lease.remaining() <= self.tools.settings.call_timeout_seconds:
            raise LeaseLost("too little of the lease is left for a call")

    async def _ask(self, call: Call) -> VendorAnswer:
        """Send the call; once more with a fresh token if the held one was refused, for then nothing was done."""
        names = mapped_names(self.connection.mapping) if call.operation is Operation.LOOK_UP else ()
        answer = await self._send_with(self.access, call, names)
        if answer.status == 401 and isinstance(self.access.credentials, OAuth):
            self.access = await self.tools.keeper.access(self.connection, self.connector, refused=True)
            await self._admit()
            answer = await self._send_with(self.access, call, names)
        return answer

    async def _send_with(self, access: Access, call: Call, names: Sequence[str]) -> VendorAnswer:
        return await self.tools.caller.send(self.connector.request(access, call, names), access.credentials)

    async def _conclude(self, sent: Sequence[Sent]) -> None:
        """Settle what a group of calls has brought, and take note of what it says of the connection."""
        others_got_through = any(isinstance(each.verdict, Judged) for each in sent)
        met: Trouble | None = None
        settlements: list[Settlement] = []
        conflicts: list[tuple[Work, Conflicting, Timing]] = []
        for each in sent:
            if isinstance(each.verdict, Trouble):
                met = met or self._connections_own(each, others_got_through)
                settlements += self._settle_trouble(each, others_got_through)
                continue
            self.succeeded = True
            met = met or each.verdict.trouble
            for lead_id, outcome in each.verdict.outcomes.items():
                work = self._works[lead_id]
                if isinstance(outcome, Conflicting):
                    conflicts.append((work, outcome, each.timing))
                elif each.call.operation is Operation.LOOK_UP and isinstance(outcome, Found | Missing):
                    settlements.append(policy.settle_look_up(work, outcome, each.timing))
                else:
                    archiving = each.call.operation is Operation.ARCHIVE
                    settlements.append(
                        policy.settle_outcome(self._rules, work, outcome, each.timing, archiving=archiving)
                    )
        await self._meet(met)
        await self._settle(settlements)
        if conflicts:
            await self._settle_conflicts(conflicts)

    def _is_alone(self, call: Call, others_got_through: bool) -> bool:
        return len(call.records) == 1 and (others_got_through or self._works[call.records[0].lead_id].claim.suspect)

    def _connections_own(self, sent: Sent, others_got_through: bool) -> Trouble | None:
        """A call's trouble, unless everything speaks for its one lead being the cause."""
        if not isinstance(sent.verdict, Trouble):
            return None
        of_record = policy.is_record_specific(sent.verdict) and self._is_alone(sent.call, others_got_through)
        return None if of_record and self._rules.was_healthy else sent.verdict

    def _settle_trouble(self, sent: Sent, others_got_through: bool) -> list[Settlement]:
        if not isinstance(sent.verdict, Trouble):
            return []
        works = [self._works[record.lead_id] for record in sent.call.records]
        alone = self._is_alone(sent.call, others_got_through)
        return [policy.settle_trouble(self._rules, work, sent.verdict, sent.timing, alone=alone) for work in works]

    async def _meet(self, trouble: Trouble | None) -> None:
        """Rest or stop the connection before its leads are let go of, so that no other worker runs into the same."""
        if trouble is None or self.trouble is not None:
            return
        self.trouble = trouble
        tools, connection = self.tools, self.connection
        await self._persist(lambda: act_on(tools.database, tools.settings, connection, trouble))

    async def _settle_conflicts(self, conflicts: Sequence[tuple[Work, Conflicting, Timing]]) -> None:
        """See whose record stands in the way: nobody's is adopted, another living lead's is left alone."""
        by_lead = {work.lead_id: (work, conflict, timing) for work, conflict, timing in conflicts}
        records = [replace(work.record, record_id=conflict.existing_id) for work, conflict, _ in conflicts]
        for call in self.connector.calls(records, look_up=True):
            done, unsent = await self._carry_out(call)
            await self._hand_back(unsent)
            for sent in done:
                if isinstance(sent.verdict, Trouble):
                    await self._meet(self._connections_own(sent, False))
                    await self._settle(self._settle_trouble(sent, False))
                    continue
                found = {lead_id: each for lead_id, each in sent.verdict.outcomes.items() if isinstance(each, Found)}
                owners = {lead_id: str(each.properties.get(self._identity) or "") for lead_id, each in found.items()}
                living = await self._living(owners)
                settlements = []
                for lead_id, outcome in sent.verdict.outcomes.items():
                    work, conflict, timing = by_lead[lead_id]
                    owner = owners.get(lead_id)
                    holder = owner if owner and owner in living else None
                    settlements.append(
                        policy.settle_conflict(self._rules, work, conflict, outcome, timing, holder=holder)
                    )
                await self._settle(settlements)

    @property
    def _identity(self) -> str:
        return self.connector.identity_property or ""

    async def _living(self, owners: dict[str, str]) -> set[str]:
        names = sorted(filter(None, owners.values()))
        if not names:
            return set()
        async with self.tools.database.acquire() as connection:
            return await repository.living_holders(connection, self.connection.key, names)

    async def _settle(self, settlements: Sequence[Settlement]) -> None:
        if settlements:
            failpoint("sync.before_settle")
            await self._persist(lambda: settle_all(self.tools.database, self.connection, self.lease.token, settlements))

    async def _hand_back(self, lead_ids: Iterable[str]) -> None:
        works = [self._works[lead_id] for lead_id in lead_ids]
        if not works:
            return

        async def hand_back() -> None:
            async with self.tools.database.acquire() as connection:
                await repository.hand_back(connection, self.connection.key, self.lease.token, works)

        await self._persist(hand_back)

    async def _persist(self, write: Callable[[], Awaitable[None]]) -> None:
        """Write, again and again through the database's trouble, for as long as the lease lasts.

        Doing it twice does nothing: the first time has given the lease back.
        """
        while True:
            try:
                await write()
            except Exception as error:
                if not is_database_trouble(error):
                    raise
                log.warning("hold-settlement", connection_id=self.connection.id, error=repr(error))
            else:
                return
            self.lease.check()
            await asyncio.sleep(0.2)


def _word(verdict: Verdict) -> str:
    match verdict:
        case Trouble(kind):
            return kind.value
        case Split():
            return "split"
        case _:
            return "answered"
