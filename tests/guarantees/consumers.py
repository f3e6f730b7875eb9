"""Whether every consumer has had the events of some leads, whether a queue's dead letters grew, and events from behind their backs."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import aio_pika

from chassis.events import Event, encode
from contracts import topology
from tests.support.system import RunningSystem


async def missing_events(system: RunningSystem, lead_ids: Iterable[str]) -> dict[str, int]:
    """Per queue: how many of these leads' announced events it has not taken yet; queues that have all are left out."""
    announced = await system.sql(
        "leads", "SELECT event_id, type FROM outbox WHERE subject = ANY($1::text[])", list(lead_ids)
    )
    assert announced, "these leads have no events"
    missing = {}
    for queue in topology().queues:
        wanted = {row["event_id"] for row in announced if queue.takes(row["type"])}
        if wanted:
            taken = await system.sql(
                queue.service,
                "SELECT event_id FROM inbox WHERE queue = $1 AND event_id = ANY($2)",
                queue.name,
                list(wanted),
            )
            if left := len(wanted) - len(taken):
                missing[queue.name] = left
    return missing


async def all_taken(system: RunningSystem, lead_ids: Iterable[str]) -> bool:
    """True once every consumer has had every event of these leads."""
    return not await missing_events(system, lead_ids)


async def has_taken(system: RunningSystem, *events: Event) -> bool:
    """True once every queue that takes these events has had them."""
    for queue in topology().queues:
        wanted = [event.id for event in events if queue.takes(event.type)]
        taken = await system.sql(
            queue.service, "SELECT event_id FROM inbox WHERE queue = $1 AND event_id = ANY($2)", queue.name, wanted
        )
        if len(taken) < len(wanted):
            return False
    return True


@asynccontextmanager
async def publisher(system: RunningSystem) -> AsyncIterator[aio_pika.abc.AbstractExchange]:
    """The broker's exchange, to publish on behind the services' backs."""
    connection = await aio_pika.connect(system.system.rabbitmq.url())
    async with connection:
        channel = await connection.channel()
        yield await channel.get_exchange("events")


async def publish(exchange: aio_pika.abc.AbstractExchange, event: Event) -> None:
    await exchange.publish(aio_pika.Message(encode(event), message_id=event.id), event.type)


async def workspace_of(system: RunningSystem) -> str:
    """The workspace that everything here happens in."""
    rows = await system.sql("leads", "SELECT workspace_id FROM leads WHERE id = 'lead-1'")
    return str(rows[0]["workspace_id"])


async def dead_letter_counts(system: RunningSystem) -> dict[str, int]:
    """Messages in each dead-letter queue."""
    return await _counts(system, [queue.dead for queue in topology().queues])


async def retry_counts(system: RunningSystem, queue: str) -> dict[str, int]:
    """Messages of that queue that wait for their next try."""
    contract = topology().queue(queue)
    return await _counts(system, [contract.retry(seconds) for seconds in topology().retry_seconds])


async def _counts(system: RunningSystem, names: Iterable[str]) -> dict[str, int]:
    connection = await aio_pika.connect(system.system.rabbitmq.url())
    async with connection:
        channel = await connection.channel()
        counts = {}
        for name in names:
            found = await channel.declare_queue(name, passive=True)
            counts[name] = found.declaration_result.message_count or 0
        return counts
