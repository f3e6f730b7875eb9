"""What a service process owns, opened in order and closed in reverse."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import asyncpg
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff

from chassis.bus import Bus
from chassis.cache import VersionedCache
from chassis.database import Database, open_database
from chassis.errors import Unavailable
from chassis.health import Health
from chassis.http import OutboundClient, ServiceClient, make_internal_client
from chassis.logs import get_logger
from chassis.metrics import Observers, watch_loop
from chassis.settings import ServiceSettings
from chassis.tokens import IdentitySource, RemoteIdentity, TokenVerifier
from chassis.trouble import is_database_trouble

log = get_logger()

POOL_DEAD_SECONDS = 30.0
WATCH_SECONDS = 5.0
AUTH_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Resources:
    """One process's database, bus, cache, clients and health."""

    settings: ServiceSettings
    database: Database
    bus: Bus
    redis: Redis
    cache: VersionedCache
    tokens: TokenVerifier
    services: ServiceClient
    outbound: OutboundClient
    health: Health
    observers: Observers

    async def wait_to_serve(self) -> None:
        """Return once tokens can be judged, however long auth stays away.

        A replica that took requests before would answer with 503 what another replica could do.
        """
        while not await self.tokens.wait_ready(AUTH_SECONDS):
            log.warning("wait-for-auth", seconds=AUTH_SECONDS)


def make_redis(url: str) -> Redis:
    """A client that fails fast: a cache that is away must cost milliseconds, not seconds."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=50,
        timeout=0.2,
        socket_timeout=0.3,
        socket_connect_timeout=0.3,
        retry=Retry(ExponentialWithJitterBackoff(base=0.02, cap=0.1), 1),
    )
    return Redis.from_pool(pool)


@asynccontextmanager
async def open_resources(
    settings: ServiceSettings, *, consumes: bool = False, identity: Callable[[Database], IdentitySource] | None = None
) -> AsyncIterator[Resources]:
    """Everything a process needs. It waits for PostgreSQL; RabbitMQ, Redis and auth may come later (but see `wait_to_serve`).

    `consumes` opens the second broker connection. `identity` replaces the calls to auth: auth itself asks its own database.
    """
    async with AsyncExitStack() as stack:
        bus = Bus(settings.broker_url.get_secret_value(), settings.service)
        await bus.start(consumes=consumes)
        stack.push_async_callback(bus.stop)
        database = await stack.enter_async_context(
            open_database(
                settings.database_url.get_secret_value(),
                bus,
                service=settings.service,
                pool_size=settings.database_pool_size,
            )
        )
        redis = make_redis(settings.cache_url.get_secret_value())
        stack.push_async_callback(redis.aclose)
        cache = VersionedCache(redis)
        stack.push_async_callback(cache.close)
        internal = await stack.enter_async_context(make_internal_client(settings))
        outbound = OutboundClient(settings.outbound_allowed_hosts)
        stack.push_async_callback(outbound.close)
        tokens = TokenVerifier(
            identity(database) if identity else RemoteIdentity(internal),
            refresh_seconds=settings.jwks_refresh_seconds,
            poll_seconds=settings.revocation_poll_seconds,
        )
        tokens.start()
        stack.push_async_callback(tokens.stop)
        watchdog = asyncio.create_task(_watch_pool(database, settings), name="pool-watchdog")
        stack.callback(watchdog.cancel)
        resources = Resources(
            settings=settings,
            database=database,
            bus=bus,
            redis=redis,
            cache=cache,
            tokens=tokens,
            services=ServiceClient(settings, internal),
            outbound=outbound,
            health=Health(),
            observers=Observers(),
        )
        _add_pings(resources)
        resources.observers.add("database", database.observe)
        lag = asyncio.create_task(watch_loop(), name="loop-watchdog")
        stack.callback(lag.cancel)
        yield resources


def _add_pings(resources: Resources) -> None:
    health, database, bus = resources.health, resources.database, resources.bus

    async def postgresql() -> dict[str, Any]:
        state = await database.outbox_state()
        return {
            "outbox_waiting": state["waiting"],
            "outbox_parked": state["parked"],
            "outbox_oldest_seconds": round(state["oldest_seconds"], 3),
        }

    async def rabbitmq() -> dict[str, Any]:
        return {"queues": await bus.depths(resources.settings.service)}

    async def redis() -> None:
        await resources.redis.ping()

    async def auth() -> None:
        if not resources.tokens.ready.is_set():
            raise Unavailable("no keys yet")

    health.add("postgresql", postgresql)
    health.add("rabbitmq", rabbitmq, required=False)
    health.add("redis", redis, required=False)
    health.add("auth_keys", auth)


async def _watch_pool(database: Database, settings: ServiceSettings) -> None:
    """End a process whose pool gives nobody a connection for 30 s while the server takes a direct one: a fresh process heals it.

    The seconds count from the first vain try: a process that stood still for longer had nobody to serve meanwhile.
    """
    vain_since: float | None = None
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        asked_at = time.monotonic()
        with suppress(Unavailable):
            async with database.acquire():
                vain_since = None
                continue
        if vain_since is None or database.served_at > vain_since:
            vain_since = asked_at
        seconds = time.monotonic() - vain_since
        if seconds < POOL_DEAD_SECONDS:
            continue
        try:
            connection = await asyncpg.connect(settings.database_url.get_secret_value(), timeout=3)
            await connection.close()
        except Exception as error:
            if not is_database_trouble(error):
                raise
            continue
        log.error("abandon-pool", seconds=seconds)
        os.kill(os.getpid(), signal.SIGTERM)
        return
