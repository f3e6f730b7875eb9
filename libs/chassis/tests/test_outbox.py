"""The outbox on real servers: what is committed is published as soon as the broker takes it, by its writer or whoever is left."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aio_pika
import asyncpg
import pytest
from aiormq.abc import FieldTable
from pamqp import commands

from chassis import outbox
from chassis.bus import BrokerUnavailable
from chassis.database import Database
from chassis.events import EventTooLarge, encode, new_event
from tests.support.event_process import Effects, Pipe, Process, consuming, open_process, pipe, process, user_event
from tests.support.fixtures import NewDatabase, eventually, owner_dsn
from tests.support.servers import TestServers

__all__ = ["pipe", "process"]

UNPUBLISHED = "SELECT count(*) FROM outbox WHERE published_at IS NULL"


async def insert_row(
    process: Process, event_id: str, event_type: str, body: bytes, *, born: str, attempts: int = 0
) -> None:
    """A row as a dead writer left it; `born` is an interval before now."""
    async with process.database.acquire() as connection:
        await connection.execute(
            "INSERT INTO outbox (event_id, workspace_id, type, subject, body, attempts, created_at, claimed_until) VALUES"
            " ($1, 'ws_1', $2, 'user_1', $3, $4, now() - $5::text::interval, now() - $5::text::interval + interval '10 seconds')",
            event_id,
            event_type,
            body,
            attempts,
            born,
        )


async def test_a_committed_event_is_published_and_marked(process: Process) -> None:
    effects, event = Effects(), user_event()
    async with consuming(process, effects):
        async with process.database.transaction() as tx:
            tx.emit(event)
        await eventually(lambda: effects.saw(event))
    assert await eventually(lambda: process.is_published(event))
    await process.value("UPDATE outbox SET claimed_until = now() RETURNING 1")
    assert await process.database.outbox.sweep_once() == 0  # nor is it ever published again


async def emit_then_fail(database: Database) -> None:
    async with database.transaction() as tx:
        tx.emit(user_event())
        raise ZeroDivisionError


async def test_an_event_of_a_rolled_back_transaction_is_never_announced(process: Process) -> None:
    effects, kept = Effects(), user_event("user_2")
    async with consuming(process, effects):
        with pytest.raises(ZeroDivisionError):
            await emit_then_fail(process.database)
        async with process.database.transaction() as tx:
            tx.emit(kept)
        await eventually(lambda: effects.saw(kept))
    assert await process.value("SELECT count(*) FROM outbox") == 1


async def test_a_process_that_stops_publishes_what_it_has_committed(
    emptied_database: NewDatabase, broker_url: str, servers: TestServers
) -> None:
    """Nothing is left to the relay of another process, which would take it ten seconds later only."""
    async with open_process(await emptied_database("chassis"), broker_url) as process:
        await asyncio.wait_for(process.bus.publishing.up.wait(), 10)
        async with process.database.transaction() as tx:
            for number in range(300):
                tx.emit(user_event(f"user_{number}"))
    left = await asyncpg.connect(owner_dsn(servers, process.dsn))
    assert await left.fetchval("SELECT count(*) FROM outbox WHERE published_at IS NULL") == 0
    await left.close()


async def test_a_fault_while_publishing_ends_neither_the_publisher_nor_the_sweep(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, old, good, later = (user_event(f"user_{number}") for number in range(4))
    publish = process.bus.publish_event
    broken = {bad.id, old.id}

    async def publish_some(body: bytes, *, event_id: str, **more: Any) -> None:
        if event_id in broken:
            raise ValueError("a fault of ours")
        await publish(body, event_id=event_id, **more)

    monkeypatch.setattr(process.bus, "publish_event", publish_some)
    async with process.database.transaction() as tx:
        tx.emit(bad)
    await insert_row(process, old.id, old.type, encode(old), born="11 seconds")
    claimed = "SELECT claimed_until > now() FROM outbox WHERE event_id = $1"
    await eventually(lambda: process.value(claimed, old.id))
    async with process.database.transaction() as tx:
        tx.emit(good)
    await insert_row(process, later.id, later.type, encode(later), born="11 seconds")
    for event in (good, later):
        await eventually(lambda event=event: process.is_published(event), seconds=5)  # type: ignore[misc]
    broken.clear()
    await process.value("UPDATE outbox SET claimed_until = now() RETURNING 1")
    for event in (bad, old):
        await eventually(lambda event=event: process.is_published(event), seconds=5)  # type: ignore[misc]


async def test_events_go_out_while_requests_hold_every_connection(process: Process) -> None:
    async with AsyncExitStack() as held:
        event = user_event()
        direct = await asyncpg.connect(process.dsn)
        for _ in range(4):
            await held.enter_async_context(process.database.acquire())
        await direct.execute(
            "INSERT INTO outbox (event_id, workspace_id, type, subject, body, claimed_until)"
            " VALUES ($1, 'ws_1', $2, 'user_1', $3, now())",
            event.id,
            event.type,
            encode(event),
        )
        await eventually(lambda: direct.fetchval("SELECT published_at IS NOT NULL FROM outbox"), seconds=5)
        await direct.close()


async def test_what_has_waited_longest_is_swept_first(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "BATCH", 2)
    await process.bus.publishing.stop()  # the process's own sweep waits for it
    events = [user_event(f"user_{number}") for number in range(4)]
    for event in events:
        await insert_row(process, event.id, event.type, encode(event), born="11 seconds")
    assert await process.database.outbox.sweep_once() == 2
    claimed = "SELECT array_agg(event_id ORDER BY seq) FROM outbox WHERE claimed_until > now()"
    assert await process.value(claimed) == [event.id for event in events[:2]]


async def test_a_pile_of_events_is_swept_without_a_pause(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "BATCH", 2)
    for number in range(13):
        event = user_event(f"user_{number}")
        await insert_row(process, event.id, event.type, encode(event), born="11 seconds")
    await eventually(lambda: _is_none_left(process, UNPUBLISHED), seconds=4)


async def test_an_event_that_finds_its_queues_gone_has_them_declared_again(process: Process) -> None:
    channel = await process.bus.publishing.connection.channel()
    for name in ("leads.users", "workflows.users"):
        await channel.queue_delete(name)
    event = user_event()
    async with process.database.transaction() as tx:
        tx.emit(event)
    refused = "UPDATE outbox SET claimed_until = now() WHERE attempts > 0 RETURNING 1"
    await eventually(lambda: process.value(refused))
    await eventually(lambda: process.is_published(event))
    assert (await process.bus.depths("leads"))["leads.users"] == 1


async def test_events_left_by_a_dead_writer_are_swept_when_its_time_is_over(process: Process) -> None:
    effects, event = Effects(), user_event()
    await insert_row(process, event.id, event.type, encode(event), born="11 seconds")
    async with consuming(process, effects):
        await eventually(lambda: effects.saw(event))
    assert await eventually(lambda: process.is_published(event))


async def test_a_row_is_its_writers_for_ten_seconds(process: Process) -> None:
    """Born claimed: no relay takes it while its writer may be publishing it."""
    event = user_event()
    async with process.database.acquire() as connection:
        await connection.execute(
            "INSERT INTO outbox (event_id, workspace_id, type, subject, body) VALUES ($1, 'ws_1', $2, 'user_1', $3)",
            event.id,
            event.type,
            encode(event),
        )
    assert await process.database.outbox.sweep_once() == 0
    seconds = await process.value("SELECT extract(epoch FROM claimed_until - now())::float8 FROM outbox")
    assert 9 < seconds <= 10


async def test_a_row_that_another_relay_is_claiming_is_left_to_it_without_waiting(process: Process) -> None:
    event = user_event()
    await process.bus.publishing.stop()  # the process's own sweep waits for it
    await insert_row(process, event.id, event.type, encode(event), born="11 seconds")
    other = await asyncpg.connect(process.dsn)
    async with other.transaction():
        claimed = await other.fetch(outbox.queries["claim_outbox"], outbox.BATCH)
        assert [record["event_id"] for record in claimed] == [event.id]
        assert await asyncio.wait_for(process.database.outbox.sweep_once(), 2) == 0
    assert await process.database.outbox.sweep_once() == 0  # it has ten seconds for it
    await other.close()


async def test_relays_that_sweep_at_once_share_the_rows(process: Process, broker_url: str) -> None:
    events = [user_event(f"user_{number}") for number in range(450)]
    for event in events:
        await insert_row(process, event.id, event.type, encode(event), born="9.5 seconds")
    async with open_process(process.dsn, broker_url) as other:
        await asyncio.wait_for(other.bus.publishing.up.wait(), 10)
        await asyncio.sleep(0.6)
        relays = [process.database.outbox, other.database.outbox]
        await asyncio.gather(*(relay.sweep_once() for relay in relays * 3))
        await eventually(lambda: _is_none_left(process, UNPUBLISHED))
    assert (await process.bus.depths("leads"))["leads.users"] == len(events)


async def _is_none_left(process: Process, query: str) -> bool:
    return bool(await process.value(query) == 0)


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
        await insert_row(process, refused.id, "user.disabled", encode(refused), born="11 seconds", attempts=4)
        reason = "SELECT parked_reason FROM outbox WHERE event_id = $1"
        assert await eventually(lambda: process.value(reason, refused.id)) == "refused by the broker"
        async with process.database.transaction() as tx:
            tx.emit(good)
        # Sooner than any sweep would: the link that the refusal ended took its writer's events along when it came back.
        await eventually(lambda: process.is_published(good), seconds=5)
    assert not await process.is_published(refused)
    parked = "UPDATE outbox SET claimed_until = now() WHERE event_id = $1 RETURNING parked_at IS NOT NULL"
    assert await process.value(parked, refused.id)
    assert await process.database.outbox.sweep_once() == 0


async def test_an_event_above_the_limit_is_refused_where_it_is_written(process: Process) -> None:
    big = new_event("user.created", source="/services/auth", workspace_id="ws", subject="s", data={"x": "x" * 262_144})

    async def emit() -> None:
        async with process.database.transaction() as tx:
            tx.emit(big)

    with pytest.raises(EventTooLarge):
        await emit()
    with pytest.raises(asyncpg.CheckViolationError):
        await insert_row(process, big.id, big.type, b"x" * 262_145, born="0 seconds")
    assert await process.value("SELECT count(*) FROM outbox") == 0


async def test_events_committed_while_the_broker_is_away_are_published_once_it_is_back(
    emptied_database: NewDatabase, pipe: Pipe
) -> None:
    """By their writer and at once: not when its ten seconds are over and a relay takes them."""
    pipe.close()
    async with open_process(await emptied_database("chassis"), pipe.url) as process:
        event = user_event()
        async with process.database.transaction() as tx:
            tx.emit(event)
        await asyncio.sleep(0.3)
        assert not await process.is_published(event)
        await pipe.open()
        await eventually(lambda: process.is_published(event), seconds=5)


async def test_events_whose_link_was_lost_under_them_are_published_again_by_their_writer(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, losses = process.bus.publish_event, [2]

    async def lose_first(body: bytes, **more: Any) -> None:
        if losses[0]:
            losses[0] -= 1
            raise BrokerUnavailable("the connection ended under a call")
        await publish(body, **more)

    monkeypatch.setattr(process.bus, "publish_event", lose_first)
    event = user_event()
    async with process.database.transaction() as tx:
        tx.emit(event)
    await eventually(lambda: process.is_published(event), seconds=3)


async def test_events_whose_writer_lost_its_link_for_too_long_are_left_to_the_sweep(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "OWN_SECONDS", 0.0)
    event = user_event()
    async with process.database.transaction() as tx:
        tx.emit(event)
    await asyncio.sleep(0.3)
    assert not await process.is_published(event)
    await process.value("UPDATE outbox SET claimed_until = now() RETURNING 1")
    await eventually(lambda: process.is_published(event), seconds=5)


async def test_of_more_events_than_may_wait_the_newest_are_kept(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_WAITING", 3)
    waiting = outbox.Outbox(process.database.control, process.bus)
    rows = outbox.outbox_rows([user_event(f"user_{number}") for number in range(5)])
    waiting.announce(rows)
    assert [waiting._waiting.get_nowait() for _ in range(3)] == rows[2:]


async def test_a_broker_with_an_alarm_is_sent_nothing_until_it_is_over(
    emptied_database: NewDatabase, pipe: Pipe
) -> None:
    async with open_process(await emptied_database("chassis"), pipe.url) as process:
        await asyncio.wait_for(process.bus.publishing.up.wait(), 10)
        pipe.send(commands.Connection.Blocked("low on memory"))
        await asyncio.sleep(0.1)
        own, left = user_event(), user_event("user_2")
        await insert_row(process, left.id, left.type, encode(left), born="11 seconds")
        async with process.database.transaction() as tx:
            tx.emit(own)
        with pytest.raises(TimeoutError):  # as the process's own health asks, in vain
            await asyncio.wait_for(process.bus.depths("leads"), 1.2)
        unclaimed = "SELECT count(*) FROM outbox WHERE published_at IS NULL AND claimed_until <= now()"
        assert await process.value(unclaimed) == 1
        assert not await process.is_published(own)
        pipe.send(commands.Connection.Unblocked())
        await eventually(lambda: process.is_published(own), seconds=3)
        await eventually(lambda: process.is_published(left), seconds=3)
        assert pipe.connections == 2  # nobody has opened the links anew
