"""Events on real servers: committed ones are published once the broker takes them, and each has its effect once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aio_pika
import asyncpg
import pytest
from aiormq.abc import FieldTable

from chassis.bus import Bus
from chassis.consumer import Consumer, Delivery, RejectEvent
from chassis.database import Database, Transaction, open_database
from chassis.events import Event, encode, new_event
from tests.support.fixtures import NewDatabase, eventually

QUEUE = "leads.users"


def user_event(user_id: str = "user_1", version: int | None = None) -> Event:
    return new_event(
        "user.created",
        source="/services/auth",
        workspace_id="ws_1",
        subject=user_id,
        subject_version=version,
        data={"user_id": user_id, "name": "Ada", "active": True},
    )


@dataclass
class Process:
    """One process's bus and database."""

    bus: Bus
    database: Database
    dsn: str

    async def count(self, sql: str, *values: Any) -> Any:
        async with self.database.acquire() as connection:
            return await connection.fetchval(sql, *values)


@asynccontextmanager
async def open_process(dsn: str, broker_url: str, *, consumes: bool = True) -> AsyncIterator[Process]:
    async with AsyncExitStack() as stack:
        bus = Bus(broker_url, "leads")
        await bus.start(consumes=consumes)
        stack.push_async_callback(bus.stop)
        database = await stack.enter_async_context(open_database(dsn, bus, service="leads", pool_size=4))
        await asyncio.wait_for(bus.publishing.up.wait(), 10)
        yield Process(bus, database, dsn)


@pytest.fixture
async def process(new_database: NewDatabase, broker_url: str) -> AsyncIterator[Process]:
    async with open_process(await new_database("chassis"), broker_url) as opened:
        yield opened


@dataclass
class Effects:
    """An `apply` that records what it was given, fails as told, and counts rows in the inbox's own transaction."""

    seen: list[str] = field(default_factory=list)
    fail: Callable[[Delivery], Exception | None] = lambda _delivery: None

    async def __call__(self, tx: Transaction, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            if error := self.fail(delivery):
                raise error
            await tx.connection.execute("INSERT INTO seeds (name) VALUES ($1)", delivery.event.id)
        self.seen += [delivery.event.id for delivery in deliveries]


@asynccontextmanager
async def consuming(process: Process, apply: Callable[..., Awaitable[None]]) -> AsyncIterator[None]:
    stopping = asyncio.Event()
    task = asyncio.create_task(Consumer(process.bus, process.database, queue=QUEUE, apply=apply).run(stopping))
    try:
        yield
    finally:
        stopping.set()
        await asyncio.wait_for(task, 10)


async def dead_letters(broker_url: str) -> list[aio_pika.abc.AbstractIncomingMessage]:
    connection = await aio_pika.connect(broker_url)
    async with connection:
        channel = await connection.channel()
        queue = await channel.get_queue(f"{QUEUE}.dead")
        found = []
        while (message := await queue.get(fail=False, no_ack=True)) is not None:
            found.append(message)
        return found


async def test_a_committed_event_is_published_and_marked(process: Process) -> None:
    effects = Effects()
    async with consuming(process, effects):
        async with process.database.transaction() as tx:
            event = user_event()
            tx.emit(event)
        await eventually(lambda: _is(effects.seen == [event.id]))
    assert await eventually(
        lambda: process.count("SELECT count(*) FROM outbox WHERE event_id = $1 AND published_at IS NOT NULL", event.id)
    )


async def _is(value: bool) -> bool:
    return value


async def emit_then_fail(database: Database) -> None:
    async with database.transaction() as tx:
        tx.emit(user_event())
        raise ZeroDivisionError


async def test_an_event_of_a_rolled_back_transaction_is_never_announced(process: Process) -> None:
    effects = Effects()
    async with consuming(process, effects):
        with pytest.raises(ZeroDivisionError):
            await emit_then_fail(process.database)
        async with process.database.transaction() as tx:
            kept = user_event("user_2")
            tx.emit(kept)
        await eventually(lambda: _is(len(effects.seen) > 0))
    assert effects.seen == [kept.id]
    assert await process.count("SELECT count(*) FROM outbox") == 1


async def test_an_event_delivered_three_times_has_its_effect_once(process: Process) -> None:
    effects, event, last = Effects(), user_event(), user_event("user_2")
    async with consuming(process, effects):
        for body in (event, event, event, last):
            await process.bus.publish_event(encode(body), event_id=body.id, event_type=body.type, published_ms=1)
        await eventually(lambda: _is(last.id in effects.seen))
    assert effects.seen == [event.id, last.id]
    assert await process.count("SELECT count(*) FROM seeds") == 2


async def test_two_consumers_of_one_queue_share_the_inbox(process: Process) -> None:
    effects = Effects()
    events = [user_event(f"user_{number}") for number in range(50)]
    async with consuming(process, effects), consuming(process, effects):
        for event in events * 2:
            await process.bus.publish_event(encode(event), event_id=event.id, event_type=event.type, published_ms=1)
        await eventually(lambda: _is(len(effects.seen) >= 50))
    assert sorted(effects.seen) == sorted(event.id for event in events)


async def test_an_event_that_fails_is_retried_later_and_its_neighbours_pass(process: Process) -> None:
    events = [user_event(f"user_{number}") for number in range(20)]
    failures = [2]

    def fail_twice(delivery: Delivery) -> Exception | None:
        if delivery.event.id == events[7].id and failures[0]:
            failures[0] -= 1
            return ValueError("not yet")
        return None

    effects = Effects(fail=fail_twice)
    async with consuming(process, effects):
        for event in events:
            await process.bus.publish_event(encode(event), event_id=event.id, event_type=event.type, published_ms=1)
        await eventually(lambda: _is(len(effects.seen) == 20), seconds=15)
    assert sorted(effects.seen) == sorted(event.id for event in events)


async def test_what_is_not_an_event_goes_to_the_dead_queue_with_its_reason_and_blocks_nothing(
    process: Process, broker_url: str
) -> None:
    good = user_event()
    unknown = new_event("user.vanished", source="/services/auth", workspace_id="ws_1", subject="user_1", data={})
    bodies = [b"not json", b"{}", encode(unknown), b'"' + b"x" * 300_000 + b'"', encode(good)]
    effects = Effects()
    async with consuming(process, effects):
        for number, body in enumerate(bodies):
            await process.bus.publish_event(body, event_id=f"m{number}", event_type="user.created", published_ms=1)
        await eventually(lambda: _is(effects.seen == [good.id]))
    reasons = {message.message_id: str(message.headers["x-reason"]) for message in await dead_letters(broker_url)}
    assert set(reasons) == {"m0", "m1", "m2", "m3"}
    assert "unknown event type 'user.vanished'" in reasons["m2"]
    assert "262144 are allowed" in reasons["m3"]


async def test_an_event_its_consumer_rejects_is_dead_lettered_at_once(process: Process, broker_url: str) -> None:
    event = user_event()
    effects = Effects(fail=lambda _delivery: RejectEvent("no such thing"))
    async with consuming(process, effects):
        await process.bus.publish_event(encode(event), event_id=event.id, event_type=event.type, published_ms=1)
        found: list[Any] = []

        async def arrived() -> bool:
            found.extend(await dead_letters(broker_url))
            return bool(found)

        await eventually(arrived)
    assert [message.headers["x-reason"] for message in found] == ["no such thing"]


async def test_events_left_by_a_dead_writer_are_swept_when_its_time_is_over(process: Process) -> None:
    effects, event = Effects(), user_event()
    async with process.database.acquire() as connection:
        await connection.execute(
            "INSERT INTO outbox (event_id, workspace_id, type, subject, body, claimed_until)"
            " VALUES ($1, 'ws_1', $2, 'user_1', $3, now() - interval '1 second')",
            event.id,
            event.type,
            encode(event),
        )
    async with consuming(process, effects):
        await eventually(lambda: _is(effects.seen == [event.id]))
    assert await process.count("SELECT published_at IS NOT NULL FROM outbox WHERE event_id = $1", event.id)


@asynccontextmanager
async def full_queue(broker_url: str, routing_key: str) -> AsyncIterator[None]:
    """A queue that takes nothing, bound to one type: the broker refuses every message of it."""
    connection = await aio_pika.connect(broker_url)
    async with connection:
        channel = await connection.channel()
        full: FieldTable = {"x-max-length": 0, "x-overflow": "reject-publish"}
        queue = await channel.declare_queue("full", durable=True, arguments=full)
        await queue.bind("events", routing_key)
        yield
        await queue.delete(if_empty=False)


async def test_a_row_the_broker_refuses_is_parked_and_others_pass(process: Process, broker_url: str) -> None:
    refused, good = user_event(), user_event("user_2")
    async with full_queue(broker_url, "user.disabled"):
        async with process.database.acquire() as connection:
            await connection.execute(
                "INSERT INTO outbox (event_id, workspace_id, type, subject, body, claimed_until, attempts)"
                " VALUES ($1, 'ws_1', 'user.disabled', 'user_1', $2, now() - interval '1 second', 4)",
                refused.id,
                encode(refused),
            )
        await eventually(lambda: process.count("SELECT parked_reason FROM outbox WHERE event_id = $1", refused.id))
        async with process.database.transaction() as tx:
            tx.emit(good)
        assert await eventually(
            lambda: process.count("SELECT published_at IS NOT NULL FROM outbox WHERE event_id = $1", good.id),
            seconds=15,
        )
    assert await process.count("SELECT published_at IS NULL FROM outbox WHERE event_id = $1", refused.id)


async def test_the_database_refuses_an_event_above_the_limit(process: Process) -> None:
    event = user_event()
    with pytest.raises(asyncpg.CheckViolationError):
        async with process.database.acquire() as connection:
            await connection.execute(
                "INSERT INTO outbox (event_id, workspace_id, type, subject, body) VALUES ($1, 'ws', 't', 's', $2)",
                event.id,
                b"x" * 262_145,
            )
