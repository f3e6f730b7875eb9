"""What a consumer leaves in its queue, moves to another, and does when somebody takes the queue away."""

import asyncio
from collections.abc import Sequence
from typing import Any

import aio_pika
import pytest

from chassis.bus import Bus
from chassis.consumer import PREFETCH, Consumer, Delivery
from chassis.context import Context, current, use
from chassis.database import Transaction
from chassis.events import encode
from tests.support.event_process import QUEUE, Effects, Process, consuming, dead_letters, process, user_event
from tests.support.fixtures import eventually

__all__ = ["process"]


async def take_one(channel: aio_pika.abc.AbstractChannel) -> Any:
    """The next message of QUEUE, not acknowledged; None if there is none."""
    return await (await channel.get_queue(QUEUE, ensure=False)).get(fail=False)


async def test_a_consumer_holds_no_more_than_its_prefetch_and_leaves_the_rest_to_others(process: Process) -> None:
    busy = asyncio.Event()

    async def never_done(_tx: Transaction, _deliveries: Sequence[Delivery]) -> None:
        busy.set()
        await asyncio.Event().wait()

    await asyncio.gather(*(process.publish(user_event(f"user_{number}")) for number in range(PREFETCH + 50)))
    consumer = Consumer(process.bus, process.database, queue=QUEUE, apply=never_done)
    task = asyncio.create_task(consumer.run(asyncio.Event()))
    await busy.wait()

    async def waiting() -> bool:
        return (await process.bus.depths("leads"))[QUEUE] <= 50

    await eventually(waiting)
    await asyncio.sleep(0.2)
    assert (await process.bus.depths("leads"))[QUEUE] == 50
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_had_its_effect_is_gone_from_its_queue(process: Process) -> None:
    """Acknowledged, together or each for itself: a queue that only grows would be delivered again and again."""
    events = [user_event(f"user_{number}") for number in range(20)]
    failing = [True]

    def fail_together(_delivery: Delivery) -> Exception | None:
        return ValueError("not together") if failing and failing.pop() else None

    for effects in (Effects(), Effects(fail=fail_together)):
        await asyncio.gather(*(process.publish(event) for event in events))
        consumer = Consumer(process.bus, process.database, queue=QUEUE, apply=effects)
        channel = await process.bus.consuming.connection.channel()
        messages = [await eventually(lambda: take_one(channel)) for _ in events]  # noqa: B023 - called at once
        await consumer._take(messages)
        await channel.close()
        channel = await process.bus.consuming.connection.channel()
        assert await take_one(channel) is None
        await channel.close()
        assert await effects.saw(*events)
        events = [user_event(f"user_{number}") for number in range(20)]


async def test_a_message_is_let_go_only_when_its_copy_in_another_queue_is_confirmed(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    moving = asyncio.Event()

    async def never_confirmed(*_: Any, **__: Any) -> None:
        moving.set()
        await asyncio.Event().wait()

    publish = process.bus.publish_to_queue
    monkeypatch.setattr(process.bus, "publish_to_queue", never_confirmed)
    await process.bus.publish_event(b"no event", event_id="bad", event_type="user.created", published_ms=1)
    channel = await process.bus.consuming.connection.channel()
    message = await eventually(lambda: take_one(channel))
    consumer = Consumer(process.bus, process.database, queue=QUEUE, apply=Effects())
    task = asyncio.create_task(consumer._take([message]))
    await moving.wait()
    task.cancel()  # the process dies here
    await asyncio.gather(task, return_exceptions=True)
    await channel.close()
    channel = await process.bus.consuming.connection.channel()
    again = await eventually(lambda: take_one(channel))
    assert again.message_id == "bad"
    monkeypatch.setattr(process.bus, "publish_to_queue", publish)
    await consumer._take([again])
    await channel.close()
    channel = await process.bus.consuming.connection.channel()
    assert await take_one(channel) is None


async def test_who_waits_for_an_event_is_woken_once_and_after_the_commit(process: Process) -> None:
    event, effects, woken = user_event(), Effects(), []

    async def wake(deliveries: Sequence[Delivery]) -> None:
        stored = await process.value("SELECT count(*) FROM inbox WHERE queue = $1", QUEUE)
        woken.append(([delivery.event.id for delivery in deliveries], stored))

    consumer = Consumer(process.bus, process.database, queue=QUEUE, apply=effects, after_commit=wake)
    stopping = asyncio.Event()
    task = asyncio.create_task(consumer.run(stopping))
    last = user_event("user_2")
    await process.publish(event)
    await eventually(lambda: effects.saw(event))
    await process.publish(event, last)
    await eventually(lambda: effects.saw(event, last))
    stopping.set()
    await task
    assert woken == [([event.id], 1), ([last.id], 2)]


async def test_an_events_consequences_are_caused_by_what_caused_it(process: Process) -> None:
    cause = Context("req_1", "user:user_7", ("wf_1", "conn_2"))
    seen: list[Context] = []

    async def apply(_tx: Transaction, _deliveries: Sequence[Delivery]) -> None:
        seen.append(current())

    with use(cause):
        event = user_event()
    async with consuming(process, apply):
        await process.publish(event)

        async def has_seen() -> bool:
            return bool(seen)

        await eventually(has_seen)
    assert seen == [cause]


async def test_a_message_the_broker_hands_out_in_vain_without_end_gets_into_the_dead_queue(
    process: Process, broker_url: str
) -> None:
    """Whatever kills its reader before the reader can even note it."""
    event = user_event()
    await process.publish(event)
    for _ in range(process.bus.topology.delivery_limit + 2):
        channel = await process.bus.consuming.connection.channel()

        async def is_handed_out(channel: aio_pika.abc.AbstractChannel = channel) -> bool:
            return await take_one(channel) is not None or await is_dead(process)

        await eventually(is_handed_out)
        await channel.close()
        if await is_dead(process):
            break
    assert [letter.message_id for letter in await dead_letters(broker_url)] == [event.id]


async def is_dead(process: Process) -> bool:
    return (await process.bus.depths("leads"))[f"{QUEUE}.dead"] == 1


async def delete_queue(process: Process, name: str) -> None:
    channel = await process.bus.publishing.connection.channel()
    await channel.queue_delete(name)


async def test_a_queue_that_somebody_deletes_is_declared_and_consumed_again(process: Process) -> None:
    first, second, effects = user_event(), user_event("user_2"), Effects()
    async with consuming(process, effects):
        await process.publish(first)
        await eventually(lambda: effects.saw(first))
        link = process.bus.consuming
        before = link.connection
        await delete_queue(process, QUEUE)

        async def is_declared_again() -> bool:
            return link.up.is_set() and link.connection is not before

        await eventually(is_declared_again)
        await process.publish(second)
        await eventually(lambda: effects.saw(first, second))


async def test_a_dead_letter_queue_that_somebody_deletes_is_declared_again_and_blocks_nothing(
    process: Process, broker_url: str
) -> None:
    good, effects = user_event(), Effects()
    await delete_queue(process, f"{QUEUE}.dead")
    async with consuming(process, effects):
        await process.bus.publish_event(b"x", event_id="bad", event_type="user.created", published_ms=1)
        async with process.database.transaction() as tx:
            tx.emit(good)
        await eventually(lambda: effects.saw(good))
    assert [message.message_id for message in await dead_letters(broker_url)] == ["bad"]


async def test_the_whole_topology_is_declared_before_the_first_event_is_published(virtual_host: str) -> None:
    """On an empty broker: an event of a process that consumes nothing waits in every queue that will want it."""
    connection = await aio_pika.connect(virtual_host)
    async with connection:
        channel = await connection.channel()
        for queue in Bus(virtual_host, "auth").topology.queues:
            await channel.queue_delete(queue.name)
        await channel.exchange_delete("events")
        bus, event = Bus(virtual_host, "auth"), user_event()
        await bus.start(consumes=False)
        await asyncio.wait_for(bus.publishing.up.wait(), 10)
        await bus.publish_event(encode(event), event_id=event.id, event_type=event.type, published_ms=1)
        await bus.stop()
        for name in ("leads.users", "workflows.users"):
            waiting = await channel.get_queue(name, ensure=False)
            message = await eventually(lambda waiting=waiting: waiting.get(fail=False, no_ack=True))  # type: ignore[misc]
            assert message.message_id == event.id
