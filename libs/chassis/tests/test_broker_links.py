"""A link to the broker comes back from whatever ends it, and a call under way says that the broker was lost."""

import asyncio

import aiormq.connection
import pytest
from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import AMQPError

from chassis import bus
from chassis.bus import BrokerUnavailable, Link, MessageRefused, calling_broker
from chassis.events import encode
from tests.support.event_process import Pipe, Process, open_process, pipe, process, user_event
from tests.support.fixtures import NewDatabase, eventually

__all__ = ["pipe", "process"]


async def test_publishing_while_the_link_is_given_up_says_that_the_broker_is_lost(process: Process) -> None:
    events = [user_event(f"user_{number}") for number in range(300)]
    tasks = [
        asyncio.create_task(
            process.bus.publish_event(encode(event), event_id=event.id, event_type=event.type, published_ms=1)
        )
        for event in events
    ]
    await asyncio.sleep(0.01)
    await process.bus.publishing.reopen()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} <= {type(None), BrokerUnavailable}
    assert BrokerUnavailable in {type(result) for result in results}
    await asyncio.wait_for(process.bus.publishing.up.wait(), 10)


async def test_a_process_consumes_on_another_connection_than_it_publishes_on(process: Process) -> None:
    """A broker with an alarm reads nothing more, acknowledgements neither, from a connection that publishes
    (RabbitMQ, "Memory and Disk Alarms")."""
    consuming = process.bus.consuming.connection
    await process.bus.publishing.reopen()
    await asyncio.wait_for(process.bus.publishing.up.wait(), 10)
    assert process.bus.consuming.connection is consuming
    assert not consuming.is_closed


async def test_a_broker_that_falls_silent_while_a_link_is_opened_is_connected_to_anew(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus, "HEARTBEAT_SECONDS", 1)
    monkeypatch.setattr(aiormq.connection.Connection, "HEARTBEAT_GRACE_MULTIPLIER", 0.5)
    opened = []
    silent = asyncio.Event()

    async def declare(channel: AbstractChannel) -> None:
        opened.append(channel)
        if not silent.is_set():
            pipe.fall_silent()
            silent.set()
        await channel.declare_queue("any", durable=True)

    link = Link(pipe.url, "test", declare)
    link.start()
    try:
        async with asyncio.timeout(10):
            await silent.wait()
            await asyncio.sleep(2.5)  # longer than the heartbeats that a client waits for
            pipe.speak_again()
            await link.up.wait()
        assert len(opened) == 2
    finally:
        await link.stop()


async def test_a_broker_that_never_confirms_is_not_waited_for(
    emptied_database: NewDatabase, pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who publishes is told so, long before the heartbeats end the connection."""
    monkeypatch.setattr(bus, "PUBLISH_TIMEOUT_SECONDS", 0.3)
    async with open_process(await emptied_database("chassis"), pipe.url) as process:
        await asyncio.wait_for(process.bus.publishing.up.wait(), 10)
        pipe.fall_silent()
        with pytest.raises(BrokerUnavailable):
            await asyncio.wait_for(process.publish(user_event()), 3)
        pipe.speak_again()


async def test_a_channel_that_the_broker_closes_is_opened_again(process: Process) -> None:
    with pytest.raises(AMQPError):
        await process.bus.publishing.channel.declare_exchange("nowhere", passive=True)
    event = user_event()
    async with process.database.transaction() as tx:
        tx.emit(event)
    await eventually(lambda: process.is_published(event), seconds=5)


async def test_publishing_and_consuming_have_a_connection_each(process: Process) -> None:
    """An alarm of the broker holds every frame of a connection that publishes: acknowledgements must not be among them."""
    assert process.bus.publishing.connection is not process.bus.consuming.connection


async def test_a_message_nobody_takes_is_refused_and_nothing_else(process: Process) -> None:
    with pytest.raises(MessageRefused):
        await process.bus.publish_to_queue("no.such.queue", b"{}", message_id="m", headers={})
    await process.publish(user_event())


async def test_a_cancellation_stays_one() -> None:
    async def wait() -> None:
        with calling_broker():
            await asyncio.sleep(60)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("ended_by", [asyncio.CancelledError(), Exception(), ConnectionResetError(), TimeoutError()])
async def test_whatever_the_client_library_ends_a_call_by_is_the_brokers_trouble(ended_by: BaseException) -> None:
    with pytest.raises(BrokerUnavailable), calling_broker():
        raise ended_by


async def test_a_fault_of_ours_is_not_the_brokers_trouble() -> None:
    with pytest.raises(ValueError, match="ours"), calling_broker():
        raise ValueError("ours")
