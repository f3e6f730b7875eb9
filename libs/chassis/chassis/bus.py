"""RabbitMQ: one connection to publish on, one to consume on, each kept open and each declaring the whole topology first."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange
from aio_pika.exceptions import AMQPError, ChannelInvalidStateError, DeliveryError

from chassis.logs import get_logger
from contracts import Topology, topology

log = get_logger()

PUBLISH_TIMEOUT_SECONDS = 5.0
HEARTBEAT_SECONDS = 15
_TROUBLE = (AMQPError, ChannelInvalidStateError, ConnectionError, TimeoutError, OSError)


class BrokerUnavailable(Exception):
    """There is no usable connection to the broker now."""


class MessageRefused(Exception):
    """The broker took the message and refused it, or found no queue for it."""


@contextmanager
def calling_broker() -> Iterator[None]:
    """BrokerUnavailable for a broken connection, a closed channel or a broker that does not answer.

    The client library ends calls under way by whatever ended the connection: a cancellation that nobody asked for, or, after an
    orderly close, an Exception of no kind (aiormq, `FutureStore.reject_all`).
    """
    try:
        yield
    except DeliveryError:  # a message's own trouble
        raise
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise BrokerUnavailable("the connection ended under a call") from error
    except _TROUBLE as error:
        raise BrokerUnavailable(str(error) or type(error).__name__) from error
    except Exception as error:
        if type(error) is not Exception:
            raise
        raise BrokerUnavailable("the connection was closed under a call") from error


async def declare_topology(channel: AbstractChannel, plan: Topology) -> AbstractExchange:
    """Declare the exchange, every queue, its retry delay queues and its dead-letter queue; the same on every call.

    Retry queues hand their messages back to the work queue by time-to-live; dead-lettering is at-least-once, which
    needs `reject-publish` (RabbitMQ, "Quorum Queues: Dead Lettering").
    """
    exchange = await channel.declare_exchange(plan.exchange, aio_pika.ExchangeType.TOPIC, durable=True)
    handover = {"x-queue-type": "quorum", "x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
    for contract in plan.queues:
        await channel.declare_queue(contract.dead, durable=True, arguments={"x-queue-type": "quorum"})
        work = await channel.declare_queue(
            contract.name,
            durable=True,
            arguments={
                **handover,
                "x-delivery-limit": plan.delivery_limit,
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": contract.dead,
            },
        )
        for seconds in plan.retry_seconds:
            await channel.declare_queue(
                contract.retry(seconds),
                durable=True,
                arguments={
                    **handover,
                    "x-message-ttl": seconds * 1000,
                    "x-dead-letter-exchange": "",
                    "x-dead-letter-routing-key": contract.name,
                },
            )
        for pattern in contract.binds:
            await work.bind(exchange, pattern)
    return exchange


class Link:
    """One connection with one channel, opened again for as long as the process lives."""

    def __init__(self, url: str, name: str, opened: Callable[[AbstractChannel], Awaitable[None]]) -> None:
        self._url = url
        self._name = name
        self._opened = opened
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None
        self._task: asyncio.Task[None] | None = None
        self.up = asyncio.Event()

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep_open(), name=f"broker-link-{self._name}")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    @property
    def channel(self) -> AbstractChannel:
        """The open channel; BrokerUnavailable while there is none."""
        if self._channel is None or not self.up.is_set():
            raise BrokerUnavailable(f"no {self._name} connection to the broker")
        return self._channel

    @property
    def connection(self) -> AbstractConnection:
        """The open connection, for a further channel; BrokerUnavailable while there is none."""
        if self._connection is None or not self.up.is_set():
            raise BrokerUnavailable(f"no {self._name} connection to the broker")
        return self._connection

    async def usable(self) -> None:
        """Wait until the link is up and no resource alarm of the broker holds it (RabbitMQ, "Blocked Connections")."""
        while True:
            await self.up.wait()
            connection = self._connection
            if connection is None or connection.transport is None:
                await asyncio.sleep(0)  # it ended just now
                continue
            unblocked = asyncio.ensure_future(connection.transport.ready())
            ended = asyncio.ensure_future(connection.closed())
            try:
                done, _ = await asyncio.wait({unblocked, ended}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                unblocked.cancel()
                ended.cancel()
            if ended not in done and self.up.is_set():
                return

    async def reopen(self) -> None:
        """Give the connection up: the next one declares everything anew."""
        self.up.clear()
        if self._connection is not None:
            with suppress(BrokerUnavailable), calling_broker():
                await asyncio.wait_for(self._connection.close(), 2)

    async def _keep_open(self) -> None:
        failures = 0
        while True:
            try:
                with calling_broker():
                    await self._open_once()
                failures = 0
            except BrokerUnavailable as error:
                failures += 1
                log.warning("lose-broker", link=self._name, error=str(error))
            finally:
                await self._close()
            await asyncio.sleep(min(0.2 * 2**failures, 3.0) * random.uniform(0.7, 1.0))  # noqa: S311 - jitter

    async def _open_once(self) -> None:
        self._connection = await aio_pika.connect(
            self._url, heartbeat=HEARTBEAT_SECONDS, timeout=5, client_properties={"connection_name": self._name}
        )
        self._channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
        await self._opened(self._channel)
        self.up.set()
        log.info("open-broker", link=self._name)
        waits = [asyncio.ensure_future(self._connection.closed()), asyncio.ensure_future(self._channel.closed())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _close(self) -> None:
        self.up.clear()
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            with suppress(BrokerUnavailable), calling_broker():
                await asyncio.wait_for(connection.close(), 2)


class Bus:
    """The process's two links. Publishing waits for the broker's confirm; consumers take their channel from `consuming`."""

    def __init__(self, url: str, service: str) -> None:
        self.topology = topology()
        self.publishing = Link(url, f"{service} publishing", self._declare)
        self.consuming = Link(url, f"{service} consuming", self._declare_only)
        self._exchange: AbstractExchange | None = None
        self._consumes = False

    async def start(self, *, consumes: bool) -> None:
        """Begin to connect; returns at once, so that a process starts without its broker."""
        self._consumes = consumes
        self.publishing.start()
        if consumes:
            self.consuming.start()

    async def stop(self) -> None:
        await self.publishing.stop()
        await self.consuming.stop()

    async def _declare(self, channel: AbstractChannel) -> None:
        self._exchange = await declare_topology(channel, self.topology)

    async def _declare_only(self, channel: AbstractChannel) -> None:
        await declare_topology(channel, self.topology)

    async def publish_event(self, body: bytes, *, event_id: str, event_type: str, published_ms: int) -> None:
        """Publish to the exchange and wait for the confirm. MessageRefused: this message's trouble. BrokerUnavailable: the broker's."""
        message = aio_pika.Message(
            body,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            content_type="application/cloudevents+json",
            message_id=event_id,
            type=event_type,
            headers={"x-published-ms": published_ms},
        )
        channel = self.publishing.channel
        exchange = self._exchange
        if exchange is None or channel.is_closed:
            raise BrokerUnavailable("the topology is not declared")
        await self._confirmed(exchange, message, event_type, mandatory=self.topology.is_consumed(event_type))

    async def publish_to_queue(self, queue: str, body: bytes, *, message_id: str, headers: Mapping[str, Any]) -> None:
        """Put a message straight into one queue (a retry delay or a dead-letter queue) and wait for the confirm."""
        message = aio_pika.Message(
            body,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            content_type="application/cloudevents+json",
            message_id=message_id,
            headers=dict(headers),
        )
        await self._confirmed(self.publishing.channel.default_exchange, message, queue, mandatory=True)

    @staticmethod
    async def _confirmed(
        exchange: AbstractExchange, message: aio_pika.Message, routing_key: str, *, mandatory: bool
    ) -> None:
        try:
            with calling_broker():
                await exchange.publish(message, routing_key, mandatory=mandatory, timeout=PUBLISH_TIMEOUT_SECONDS)
        except DeliveryError as error:
            raise MessageRefused(f"{type(error).__name__} for {routing_key}") from error

    async def depths(self, service: str) -> dict[str, int]:
        """Messages ready in each queue of `service`, dead letters included; BrokerUnavailable without a connection."""
        found = {}
        # A channel of its own: a call that is given up, or a queue that is gone, closes its channel and what is under way on it.
        with calling_broker():
            async with await self.publishing.connection.channel(publisher_confirms=False) as channel:
                for contract in self.topology.queues:
                    if contract.service == service:
                        for name in (contract.name, contract.dead):
                            queue = await channel.declare_queue(name, passive=True, timeout=2)
                            found[name] = queue.declaration_result.message_count or 0
        return found
