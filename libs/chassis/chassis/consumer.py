"""Taking events from a queue: each has its effect once, its own faults cost nobody else, and trouble at home holds it.

- What is there is taken together (at most BATCH) in one transaction: inbox rows and effect, then one acknowledgement.
- A batch that fails is redone one by one. An event's own failure sends a copy to a retry queue, and after ATTEMPTS to the
  dead-letter queue with the reason in its headers; what cannot be parsed goes there at once.
- Trouble with the own database or the broker holds the deliveries and tries again in place: nothing healthy is counted as failed.
- An event that was being worked on when its process died is worked on alone, and parked if that happens again and again.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from aio_pika.abc import AbstractIncomingMessage

from chassis.bus import BrokerUnavailable, Bus, MessageRefused, calling_broker
from chassis.clock import utcnow
from chassis.context import current, use
from chassis.database import Database, Transaction
from chassis.events import MAX_EVENT_BYTES, Event, MalformedEvent, decode
from chassis.failpoints import failpoint
from chassis.logs import get_logger
from chassis.metrics import EVENTS_CONSUMED
from chassis.queries import load_queries
from chassis.trouble import is_database_trouble
from contracts import events as event_contracts

log = get_logger()
_Result = TypeVar("_Result")
queries = load_queries("chassis")

BATCH = 100
PREFETCH = 300
ATTEMPTS = 8
CRASHES_UNTIL_PARKED = 3


async def _either(work: Coroutine[Any, Any, Any], stopping: asyncio.Event) -> bool:
    """Wait for `work` or for `stopping`; True if it was `work`."""
    wanted, stop = asyncio.ensure_future(work), asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({wanted, stop}, return_when=asyncio.FIRST_COMPLETED)
        return wanted.done()
    finally:
        wanted.cancel()
        stop.cancel()


class RejectEvent(Exception):
    """Raised by a consumer for an event that can never work here: dead-lettered at once, with this reason."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event and when it was published (the publisher's clock) and received."""

    event: Event
    published_at: datetime | None
    received_at: datetime


@dataclass(frozen=True, slots=True)
class _Parcel:
    """A message and, if it could be parsed, what is in it."""

    message: AbstractIncomingMessage
    delivery: Delivery

    @property
    def attempt(self) -> int:
        value = self.message.headers.get("x-attempt", 0)
        return value if isinstance(value, int) else 0

    @property
    def crashes(self) -> int:
        """How often the broker has handed it out again without an answer."""
        value = self.message.headers.get("x-delivery-count", 0)
        return value if isinstance(value, int) else 0


def _published_at(message: AbstractIncomingMessage) -> datetime | None:
    """What the publisher's header says; None if it says nothing that is a time."""
    milliseconds = message.headers.get("x-published-ms")
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC) if isinstance(milliseconds, int) else None
    except (ValueError, OverflowError):
        return None


Apply = Callable[[Transaction, Sequence[Delivery]], Awaitable[None]]
AfterCommit = Callable[[Sequence[Delivery]], Awaitable[None]]


class Consumer:
    """One queue's consumer. `apply` only writes rows; `after_commit` may wake whoever works on them."""

    def __init__(
        self, bus: Bus, database: Database, *, queue: str, apply: Apply, after_commit: AfterCommit | None = None
    ) -> None:
        self.name = queue
        self._bus = bus
        self._database = database
        self._contract = bus.topology.queue(queue)
        self._apply = apply
        self._after_commit = after_commit

    async def run(self, stopping: asyncio.Event) -> None:
        """Consume until `stopping`; the batch in hand is finished first, the rest goes back to the broker."""
        while not stopping.is_set():
            link = self._bus.consuming
            if not await _either(link.up.wait(), stopping):
                return
            try:
                with calling_broker():
                    await self._consume(stopping)
            except BrokerUnavailable as error:
                log.warning("lose-queue", queue=self.name, error=str(error))
                await asyncio.sleep(0.5)

    async def _consume(self, stopping: asyncio.Event) -> None:
        link = self._bus.consuming
        connection = link.connection
        inbound: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        channel = await connection.channel(publisher_confirms=False)
        dismissed = asyncio.Event()
        try:
            (await channel.get_underlay_channel()).on_consumer_cancel_callbacks.add(lambda _frame: dismissed.set())
            await channel.set_qos(prefetch_count=PREFETCH)
            queue = await channel.get_queue(self.name, ensure=False)
            tag = await queue.consume(inbound.put)
            log.info("consume-queue", queue=self.name)
            while not stopping.is_set():
                waiting = asyncio.ensure_future(inbound.get())
                ends = [asyncio.ensure_future(end) for end in (channel.closed(), dismissed.wait(), stopping.wait())]
                await asyncio.wait({waiting, *ends}, return_when=asyncio.FIRST_COMPLETED)
                for end in ends:
                    end.cancel()
                if not waiting.done():
                    waiting.cancel()
                    if dismissed.is_set():  # the queue is gone: a new link declares it again
                        await link.reopen()
                        raise BrokerUnavailable("the broker ended the consumer")
                    if channel.is_closed:
                        raise BrokerUnavailable("the channel was closed")
                    break
                messages = [waiting.result()]
                while len(messages) < BATCH and not inbound.empty():
                    messages.append(inbound.get_nowait())
                await self._take(messages)
            with suppress(BrokerUnavailable), calling_broker():
                await queue.cancel(tag, timeout=2)
        finally:
            with suppress(BrokerUnavailable), calling_broker():
                await channel.close()

    async def _take(self, messages: list[AbstractIncomingMessage]) -> None:
        parcels = []
        for message in messages:
            parcel = await self._open(message)
            if parcel is not None:
                parcels.append(parcel)
        alone = [parcel for parcel in parcels if parcel.crashes >= 2]
        together = [parcel for parcel in parcels if parcel.crashes < 2]
        if together and not await self._work_together(together, others_wait=bool(alone)):
            for parcel in together:
                await self._work_alone(parcel)
        for parcel in alone:
            await self._work_suspect(parcel)

    async def _open(self, message: AbstractIncomingMessage) -> _Parcel | None:
        """Parse a message; one that is not an event we know goes to the dead-letter queue."""
        try:
            if len(message.body) > MAX_EVENT_BYTES:
                raise MalformedEvent(f"{len(message.body)} bytes; {MAX_EVENT_BYTES} are allowed")
            event = decode(message.body)
            if event.type not in event_contracts():
                raise MalformedEvent(f"unknown event type {event.type!r}")
        except MalformedEvent as error:
            await self._bury(message, str(error))
            return None
        return _Parcel(message, Delivery(event, _published_at(message), utcnow()))

    async def _work_together(self, parcels: Sequence[_Parcel], *, others_wait: bool) -> bool:
        """One transaction for all; False if it failed by some event's own fault. `others_wait`: messages that came before the last
        of these are still to be worked on, and must not be acknowledged with them."""
        try:
            await self._hold_through_trouble(parcels)
        except Exception as error:  # noqa: BLE001 - whatever one event causes is found by working on each alone
            if len(parcels) > 1:
                log.warning("split-batch", queue=self.name, events=len(parcels), error=repr(error))
            return False
        if others_wait:
            for parcel in parcels:
                await parcel.message.ack()
        else:
            await parcels[-1].message.ack(multiple=len(parcels) > 1)
        return True

    async def _work_alone(self, parcel: _Parcel) -> None:
        try:
            await self._hold_through_trouble([parcel])
        except RejectEvent as error:
            await self._bury(parcel.message, str(error))
        except MalformedEvent as error:
            await self._bury(parcel.message, str(error))
        except Exception as error:  # noqa: BLE001 - any failure of one event is retried, then dead-lettered with its reason
            await self._retry_later(parcel, error)
        else:
            await parcel.message.ack()

    async def _work_suspect(self, parcel: _Parcel) -> None:
        """Work alone on an event that was in a dead process's hands, with a committed note that it is being tried."""
        event_id = parcel.delivery.event.id
        tries = await self._hold(lambda: self._note_suspect(event_id))
        if tries > CRASHES_UNTIL_PARKED:
            await self._bury(parcel.message, f"its consumer died {tries - 1} times while working on it")
        else:
            await self._work_alone(parcel)
        await self._hold(lambda: self._clear_suspect(event_id))

    async def _note_suspect(self, event_id: str) -> int:
        async with self._database.acquire() as connection:
            return int(await connection.fetchval(queries["suspect_event"], self.name, event_id))

    async def _clear_suspect(self, event_id: str) -> int:
        async with self._database.acquire() as connection:
            await connection.execute(queries["clear_suspect"], self.name, event_id)
            return 0

    async def _hold_through_trouble(self, parcels: Sequence[_Parcel]) -> None:
        fresh = await self._hold(lambda: self._effect(parcels))
        taken = Counter(delivery.event.type for delivery in fresh)
        for event_type, count in Counter(parcel.delivery.event.type for parcel in parcels).items():
            EVENTS_CONSUMED.labels(self.name, event_type, "taken").inc(taken[event_type])
            EVENTS_CONSUMED.labels(self.name, event_type, "repeated").inc(count - taken[event_type])
        if fresh and self._after_commit is not None:
            await self._after_commit(fresh)

    async def _effect(self, parcels: Sequence[_Parcel]) -> list[Delivery]:
        """Inbox rows and effect in one transaction; returns the deliveries that were new."""
        unique = {parcel.delivery.event.id: parcel.delivery for parcel in parcels}
        async with self._database.transaction() as tx:
            taken = await tx.connection.fetch(queries["take_events"], self.name, sorted(unique))
            new = {record["event_id"] for record in taken}
            fresh = [delivery for event_id, delivery in unique.items() if event_id in new]
            if fresh:
                with use(fresh[0].event.context() if len(fresh) == 1 else current()):
                    await self._apply(tx, fresh)
                failpoint("consumer.before_commit")
        failpoint("consumer.after_commit")
        return fresh

    async def _hold(self, work: Callable[[], Awaitable[_Result]]) -> _Result:
        """Do `work`, again and again while the own database is in trouble; the deliveries stay unanswered meanwhile."""
        delay = 0.05
        while True:
            try:
                return await work()
            except Exception as error:
                if not is_database_trouble(error):
                    raise
                log.warning("hold-queue", queue=self.name, error=str(error) or type(error).__name__)
            await asyncio.sleep(delay)
            delay = min(delay * 2, 2.0)

    async def _retry_later(self, parcel: _Parcel, error: Exception) -> None:
        attempt = parcel.attempt + 1
        # The first line: what follows is PostgreSQL's DETAIL, which quotes rows.
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        if attempt >= ATTEMPTS:
            await self._bury(parcel.message, reason)
            return
        delays = self._bus.topology.retry_seconds
        delay = delays[min((attempt - 1) // 2, len(delays) - 1)]
        log.warning(
            "retry-event",
            queue=self.name,
            event_id=parcel.delivery.event.id,
            attempt=attempt,
            delay_seconds=delay,
            error=reason,
        )
        EVENTS_CONSUMED.labels(self.name, parcel.delivery.event.type, "retried").inc()
        await self._move(parcel.message, self._contract.retry(delay), {"x-attempt": attempt, "x-reason": reason[:500]})

    async def _bury(self, message: AbstractIncomingMessage, reason: str) -> None:
        log.error("bury-event", queue=self.name, event_id=message.message_id, reason=reason)
        known = message.type in event_contracts()
        EVENTS_CONSUMED.labels(self.name, message.type if known else "unknown", "dead").inc()
        await self._move(message, self._contract.dead, {"x-reason": reason[:500], "x-queue": self.name})

    async def _move(self, message: AbstractIncomingMessage, queue: str, headers: dict[str, int | str]) -> None:
        """Put a copy into another queue, confirmed, and only then let go of the message."""
        kept = {key: value for key, value in message.headers.items() if key in ("x-published-ms", "x-attempt")}
        while True:
            await self._bus.publishing.usable()
            try:
                await self._bus.publish_to_queue(
                    queue, message.body, message_id=message.message_id or "", headers={**kept, **headers}
                )
                break
            except (BrokerUnavailable, MessageRefused) as error:
                log.warning("hold-event", queue=self.name, error=str(error))
                if isinstance(error, MessageRefused):  # the other queue may be gone: a new link declares it again
                    await self._bus.publishing.reopen()
                await asyncio.sleep(0.5)
                if message.channel.is_closed:
                    raise BrokerUnavailable("the channel was closed") from error
        await message.ack()
