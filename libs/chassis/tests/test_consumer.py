"""A consumer on real servers: each event has its effect once, and no event's trouble is another's."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import aio_pika
import asyncpg
import pytest

from chassis.consumer import ATTEMPTS, Consumer, Delivery, RejectEvent
from chassis.database import Transaction
from chassis.events import Event, encode, new_event
from tests.support.event_process import QUEUE, Effects, Process, consuming, dead_letters, process, user_event
from tests.support.fixtures import eventually, owner_dsn
from tests.support.servers import TestServers

__all__ = ["process"]


async def test_an_event_delivered_three_times_has_its_effect_once(process: Process) -> None:
    effects, event, last = Effects(), user_event(), user_event("user_2")
    async with consuming(process, effects):
        await process.publish(event, event, event, last)
        await eventually(lambda: effects.saw(event, last))
    assert await process.value("SELECT count(*) FROM seeds") == 2


async def test_two_consumers_of_one_queue_share_the_inbox(process: Process) -> None:
    effects = Effects()
    events = [user_event(f"user_{number}") for number in range(50)]
    async with consuming(process, effects), consuming(process, effects):
        await process.publish(*events * 2)
        await eventually(lambda: effects.saw(*events))


async def test_two_queues_have_their_effect_of_one_event_each(process: Process) -> None:
    """The inbox is a queue's own: in a database with two consumers neither takes the other's event for its own."""
    event, here, there = user_event(), Effects(), Effects()

    async def elsewhere(_tx: Transaction, deliveries: Sequence[Delivery]) -> None:
        there.seen += [delivery.event.id for delivery in deliveries]

    stopping = asyncio.Event()
    other = Consumer(process.bus, process.database, queue="workflows.users", apply=elsewhere)
    task = asyncio.create_task(other.run(stopping))
    async with consuming(process, here):
        await process.publish(event)
        await eventually(lambda: here.saw(event))
        await eventually(lambda: there.saw(event))
    stopping.set()
    await task


async def test_an_event_that_fails_is_retried_later_and_its_neighbours_pass(process: Process) -> None:
    events = [user_event(f"user_{number}") for number in range(20)]
    failures, published = [2], set()

    def fail_twice(delivery: Delivery) -> Exception | None:
        published.add(delivery.published_at)
        if delivery.event.id == events[7].id and failures[0]:
            failures[0] -= 1
            return ValueError("not yet")
        return None

    effects = Effects(fail=fail_twice)
    async with consuming(process, effects):
        await process.publish(*events)
        await eventually(lambda: effects.saw(*events), seconds=15)
    assert published == {datetime.fromtimestamp(0.001, UTC)}  # a retry is as old as its event


async def retry_counts(broker_url: str) -> dict[str, int]:
    """Messages in each of QUEUE's retry queues."""
    connection = await aio_pika.connect(broker_url)
    async with connection:
        channel = await connection.channel()
        names = [f"{QUEUE}.retry.{seconds}s" for seconds in (1, 10, 60)]
        queues = [await channel.declare_queue(name, passive=True) for name in names]
        return {queue.name: queue.declaration_result.message_count or 0 for queue in queues}


@pytest.mark.parametrize(("failures", "queue"), [(0, "1s"), (3, "10s"), (6, "60s")])
async def test_an_event_that_keeps_failing_waits_longer_each_time_and_its_failures_are_counted(
    process: Process, broker_url: str, failures: int, queue: str
) -> None:
    event = user_event()
    effects = Effects(fail=lambda _delivery: ValueError("never"))
    channel = await process.bus.consuming.connection.channel()
    waiting = await channel.get_queue(f"{QUEUE}.retry.{queue}", ensure=False)
    async with consuming(process, effects):
        headers = {"x-attempt": failures} if failures else {}
        await process.bus.publish_to_queue(QUEUE, encode(event), message_id=event.id, headers=headers)
        letter = await eventually(lambda: waiting.get(fail=False, no_ack=True))
    assert (letter.message_id, letter.headers["x-attempt"]) == (event.id, failures + 1)
    assert letter.headers["x-reason"] == "ValueError: never"
    assert await dead_letters(broker_url) == []


async def test_an_event_that_failed_too_often_is_dead_lettered_with_its_reason(
    process: Process, broker_url: str
) -> None:
    event, good = user_event(), user_event("user_2")
    effects = Effects(fail=lambda delivery: ValueError("never") if delivery.event.id == event.id else None)
    async with consuming(process, effects):
        headers = {"x-attempt": ATTEMPTS - 1}
        await process.bus.publish_to_queue(QUEUE, encode(event), message_id=event.id, headers=headers)
        await process.publish(good)
        await eventually(lambda: effects.saw(good))
        [letter] = await eventually(lambda: dead_letters(broker_url))
    assert (letter.message_id, letter.headers["x-reason"]) == (event.id, "ValueError: never")
    assert await process.value("SELECT count(*) FROM inbox WHERE event_id = $1", event.id) == 0


async def test_what_the_database_says_of_the_row_stays_out_of_logs_and_headers(
    process: Process, broker_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """PostgreSQL's DETAIL quotes rows: names and addresses of people."""

    async def store_twice(tx: Transaction, _deliveries: Sequence[Delivery]) -> None:
        for _ in range(2):
            await tx.connection.execute("INSERT INTO seeds (name) VALUES ('ada@example.com')")

    event = user_event()
    async with consuming(process, store_twice):
        headers = {"x-attempt": ATTEMPTS - 1}
        await process.bus.publish_to_queue(QUEUE, encode(event), message_id=event.id, headers=headers)
        [letter] = await eventually(lambda: dead_letters(broker_url))
    assert str(letter.headers["x-reason"]).startswith("UniqueViolationError: duplicate key value")
    assert "ada@example.com" not in str(letter.headers["x-reason"])
    assert "ada@example.com" not in capsys.readouterr().out


async def test_what_is_not_an_event_goes_to_the_dead_queue_with_its_reason_and_blocks_nothing(
    process: Process, broker_url: str
) -> None:
    good = user_event()
    unknown = new_event("user.vanished", source="/services/auth", workspace_id="ws_1", subject="user_1", data={})
    whole = encode(good).replace(b'"name":"Ada"', b'"name":' + b"[" * 50_000 + b"]" * 50_000)
    bodies = [b"not json", b"{}", encode(unknown), b'"' + b"x" * 300_000 + b'"', whole, encode(good)]
    effects = Effects()
    async with consuming(process, effects):
        for number, body in enumerate(bodies):
            await process.bus.publish_event(body, event_id=f"m{number}", event_type="user.created", published_ms=1)
        await eventually(lambda: effects.saw(good))
    reasons = {message.message_id: str(message.headers["x-reason"]) for message in await dead_letters(broker_url)}
    assert set(reasons) == {"m0", "m1", "m2", "m3", "m4"}
    assert "unknown event type 'user.vanished'" in reasons["m2"]
    assert "262144 are allowed" in reasons["m3"]
    assert "nested too deep" in reasons["m4"]


@pytest.mark.parametrize("milliseconds", [10**18, -(10**18)])
async def test_an_event_published_at_no_possible_time_is_taken_without_one(process: Process, milliseconds: int) -> None:
    event, effects = user_event(), Effects()
    async with consuming(process, effects):
        await process.bus.publish_event(
            encode(event), event_id=event.id, event_type=event.type, published_ms=milliseconds
        )
        await eventually(lambda: effects.saw(event))


@pytest.mark.parametrize("reason", ["no such thing", "no such thing" * 20_000], ids=["short", "long"])
async def test_an_event_its_consumer_rejects_is_dead_lettered_at_once(
    process: Process, broker_url: str, reason: str
) -> None:
    """A reason of any length: what does not fit into a message's headers would end the connection again and again."""
    effects = Effects(fail=lambda _delivery: RejectEvent(reason))
    async with consuming(process, effects):
        await process.publish(user_event())
        found = await eventually(lambda: dead_letters(broker_url))
    assert [message.headers["x-reason"] for message in found] == [reason[:500]]


async def test_trouble_with_the_own_database_holds_events_and_counts_as_nobodys_failure(
    process: Process, broker_url: str, servers: TestServers
) -> None:
    """Nothing is sent to a retry queue or buried, and the broker is not asked to deliver again."""
    events, effects = [user_event(f"user_{number}") for number in range(5)], Effects()
    owner = await asyncpg.connect(servers.postgres_dsn)
    name = owner_dsn(servers, process.dsn).rpartition("/")[2]
    try:
        async with consuming(process, effects):
            await owner.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
            await owner.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
            await process.publish(*events)
            await asyncio.sleep(0.5)
            assert effects.seen == []
            assert not any((await retry_counts(broker_url)).values())
            await owner.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
            await eventually(lambda: effects.saw(*events))
        assert await dead_letters(broker_url) == []
    finally:
        await owner.close()


class Died(BaseException):
    """What a test takes for the death of the consumer's process."""


async def handed_out(process: Process, *counts: tuple[Event, int]) -> list[aio_pika.abc.AbstractIncomingMessage]:
    """The events as messages of one channel, each handed out so often without an answer before."""
    messages = []
    for event, before in counts:
        await process.publish(event)
        for _ in range(before):
            channel = await process.bus.consuming.connection.channel()
            await eventually(lambda channel=channel: _get(channel))  # type: ignore[misc]
            await channel.close()
    channel = await process.bus.consuming.connection.channel()
    for _ in counts:
        messages.append(await eventually(lambda: _get(channel)))
    return messages


async def _get(channel: aio_pika.abc.AbstractChannel) -> Any:
    return await (await channel.get_queue(QUEUE, ensure=False)).get(fail=False)


async def test_an_event_that_was_handed_out_twice_in_vain_is_worked_on_alone(process: Process) -> None:
    suspect, *others = [user_event(f"user_{number}") for number in range(4)]
    messages = await handed_out(process, (suspect, 2), *((event, 0) for event in others))
    effects = Effects()
    consumer = Consumer(process.bus, process.database, queue=QUEUE, apply=effects)
    await consumer._take(messages)
    assert [sorted(batch) for batch in effects.batches] == [sorted(event.id for event in others), [suspect.id]]
    assert await process.value("SELECT count(*) FROM inbox_suspects") == 0


async def test_an_event_that_kills_its_consumer_stays_in_its_queue_although_its_neighbours_are_done(
    process: Process,
) -> None:
    """It came before them: their acknowledgement must not be its own."""
    poison, *others = [user_event(f"user_{number}") for number in range(3)]
    messages = await handed_out(process, (poison, 2), *((event, 0) for event in others))
    effects = Effects(fail=lambda delivery: Died() if delivery.event.id == poison.id else None)
    consumer = Consumer(process.bus, process.database, queue=QUEUE, apply=effects)
    with pytest.raises(Died):
        await consumer._take(messages)
    assert await effects.saw(*others)
    await process.bus.consuming.reopen()
    await asyncio.wait_for(process.bus.consuming.up.wait(), 10)
    channel = await process.bus.consuming.connection.channel()
    again = await eventually(lambda: _get(channel))
    assert again.message_id == poison.id
    assert await _get(channel) is None


async def test_an_event_that_kills_its_consumer_again_and_again_is_dead_lettered(
    process: Process, broker_url: str
) -> None:
    poison = user_event()
    consumer = Consumer(process.bus, process.database, queue=QUEUE, apply=Effects(fail=lambda _delivery: Died()))
    [message] = await handed_out(process, (poison, 2))
    for _ in range(3):
        with pytest.raises(Died):
            await consumer._take([message])
        await message.channel.close()
        channel = await process.bus.consuming.connection.channel()
        message = await eventually(lambda channel=channel: _get(channel))  # type: ignore[misc]
    await channel.close()
    async with consuming(process, Effects()):
        [letter] = await eventually(lambda: dead_letters(broker_url))
    assert letter.headers["x-reason"] == "its consumer died 3 times while working on it"
