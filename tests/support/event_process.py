"""A process's event side for tests of the chassis: its bus, its database, and a consumer whose effect a test decides.

`process` and `pipe` are fixtures: import them where they are used.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aio_pika
import pamqp.frame
import pytest
from pamqp.base import Frame

from chassis.bus import Bus
from chassis.consumer import Consumer, Delivery
from chassis.database import Database, Transaction, open_database
from chassis.events import Event, encode, new_event
from chassis.ids import new_id
from tests.support.fixtures import NewDatabase

QUEUE = "leads.users"


def user_event(user_id: str = "user_1", version: int | None = None) -> Event:
    """An event that goes to QUEUE."""
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

    async def value(self, sql: str, *values: Any) -> Any:
        """The first value a statement gives."""
        async with self.database.acquire() as connection:
            return await connection.fetchval(sql, *values)

    async def publish(self, *events: Event) -> None:
        """Publish past the outbox."""
        for event in events:
            await self.bus.publish_event(encode(event), event_id=event.id, event_type=event.type, published_ms=1)

    async def is_published(self, event: Event) -> bool:
        return bool(
            await self.value("SELECT published_at IS NOT NULL FROM outbox WHERE event_id = $1", event.id),
        )


@asynccontextmanager
async def open_process(dsn: str, broker_url: str) -> AsyncIterator[Process]:
    """A process on its own; its links need not be up yet."""
    async with AsyncExitStack() as stack:
        bus = Bus(broker_url, "leads")
        await bus.start(consumes=True)
        stack.push_async_callback(bus.stop)
        database = await stack.enter_async_context(open_database(dsn, bus, service="leads", pool_size=4))
        yield Process(bus, database, dsn)


@pytest.fixture
async def process(emptied_database: NewDatabase, broker_url: str) -> AsyncIterator[Process]:
    async with open_process(await emptied_database("chassis"), broker_url) as opened:
        for link in (opened.bus.publishing, opened.bus.consuming):
            await asyncio.wait_for(link.up.wait(), 10)
        yield opened


@dataclass
class Effects:
    """An `apply` that records what it was given, fails as told, and inserts a row for each event in the inbox's transaction."""

    seen: list[str] = field(default_factory=list)
    batches: list[list[str]] = field(default_factory=list)
    fail: Callable[[Delivery], BaseException | None] = lambda _delivery: None

    async def __call__(self, tx: Transaction, deliveries: Sequence[Delivery]) -> None:
        self.batches.append([delivery.event.id for delivery in deliveries])
        for delivery in deliveries:
            if error := self.fail(delivery):
                raise error
            await tx.connection.execute("INSERT INTO seeds (name) VALUES ($1)", new_id("effect"))
        self.seen += [delivery.event.id for delivery in deliveries]

    async def saw(self, *events: Event) -> bool:
        """True if these, and no others, had their effect, in whatever order."""
        return sorted(self.seen) == sorted(event.id for event in events)


@asynccontextmanager
async def consuming(process: Process, apply: Callable[..., Awaitable[None]]) -> AsyncIterator[None]:
    """A consumer of QUEUE, ended cleanly."""
    stopping = asyncio.Event()
    task = asyncio.create_task(Consumer(process.bus, process.database, queue=QUEUE, apply=apply).run(stopping))
    try:
        yield
    finally:
        stopping.set()
        await asyncio.wait_for(task, 10)


async def dead_letters(broker_url: str) -> list[aio_pika.abc.AbstractIncomingMessage]:
    """Every message in QUEUE's dead-letter queue, taken out of it."""
    connection = await aio_pika.connect(broker_url)
    async with connection:
        channel = await connection.channel()
        queue = await channel.get_queue(f"{QUEUE}.dead")
        found = []
        while (message := await queue.get(fail=False, no_ack=True)) is not None:
            found.append(message)
        return found


class Pipe:
    """The way to the broker, which a test can close, open, let fall silent, and speak on in the broker's name."""

    def __init__(self, broker_url: str) -> None:
        self._to = urlsplit(broker_url)
        self._server: asyncio.Server | None = None
        self._port = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._clients: list[asyncio.StreamWriter] = []
        self._flows = asyncio.Event()
        self._flows.set()

    @property
    def url(self) -> str:
        return self._to._replace(netloc=f"{self._to.username}:{self._to.password}@127.0.0.1:{self._port}").geturl()

    @property
    def connections(self) -> int:
        """How many there have been."""
        return len(self._clients)

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._join, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Refuse new connections and end those there are."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()

    def fall_silent(self) -> None:
        """Take everything and pass nothing on."""
        self._flows.clear()

    def speak_again(self) -> None:
        self._flows.set()

    def send(self, frame: Frame) -> None:
        """A frame of the broker's on channel 0 of every connection, between two of its own."""
        for client in self._clients:
            client.write(pamqp.frame.marshal(frame, 0))

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.append(writer)
        far_reader, far_writer = await asyncio.open_connection(self._to.hostname, self._to.port)
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(self._carry(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while piece := await source.read(65_536):
                await self._flows.wait()
                sink.write(piece)
        except OSError:
            pass
        finally:
            sink.close()


@pytest.fixture
async def pipe(broker_url: str) -> AsyncIterator[Pipe]:
    made = Pipe(broker_url)
    await made.open()
    yield made
    made.close()
