"""Prometheus metrics of every process, made once; label children are kept where a hot path needs them.

Counters count what happens. What is a state (how many wait, how many connections are in use) is a gauge that an observer sets
when Prometheus asks: see `Observers`. Every replica of a service shows the same state of their database: take the maximum of them.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from prometheus_client import Counter, Gauge, Histogram

from chassis.logs import get_logger

log = get_logger()

REQUESTS = Counter("http_requests_total", "HTTP requests answered.", ["method", "route", "status"])
REQUEST_SECONDS = Histogram(
    "http_request_duration_seconds",
    "Time from the first byte of a request to the last of its answer.",
    ["method", "route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
EVENT_LOOP_LAG = Histogram(
    "event_loop_lag_seconds",
    "How much later than it wanted a task was woken: everything in the process waits that long.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
OUTBOX_WAITING = Gauge("outbox_waiting_events", "Events that are not published yet, without the parked ones.")
OUTBOX_OLDEST = Gauge("outbox_oldest_seconds", "Age of the oldest event that is not published yet.")
OUTBOX_PARKED_NOW = Gauge("outbox_parked_events", "Events that the broker refuses, set aside.")
OUTBOX_PUBLISHED = Counter("outbox_events_published_total", "Events confirmed by the broker.", ["type"])
OUTBOX_PARKED = Counter("outbox_events_parked_total", "Events the broker refused until they were parked.")
EVENTS_CONSUMED = Counter("events_consumed_total", "Events taken from a queue.", ["queue", "type", "outcome"])
CACHE_READS = Counter("cache_reads_total", "Reads of the shared cache.", ["outcome"])
OUTBOUND_CALLS = Counter("outbound_calls_total", "Calls to other systems.", ["outcome"])
POOL_WAITS = Counter("database_pool_exhausted_total", "Times no connection became free within the limit.")
POOL_CONNECTIONS = Gauge(
    "database_pool_connections", "Connections of the pool: used, idle, and free to be opened.", ["state"]
)
POOL_WAITING = Gauge("database_pool_waiting", "Who waits for a connection now.")
MISSED_OBSERVATIONS = Counter(
    "observations_missed_total", "Times a state could not be looked at within a second.", ["observer"]
)

OBSERVE_SECONDS = 1.0
LAG_SECONDS = 0.5

Observe = Callable[[], Awaitable[None]]


class Observers:
    """What is looked at when Prometheus asks. One that fails or takes too long is counted and logged, and holds nobody up."""

    def __init__(self) -> None:
        self._observers: dict[str, Observe] = {}

    def add(self, name: str, observe: Observe) -> None:
        """`observe` sets gauges of its own."""
        self._observers[name] = observe

    async def observe(self) -> None:
        """Bring every gauge up to date."""
        await asyncio.gather(*map(self._observe, self._observers))

    async def _observe(self, name: str) -> None:
        try:
            await asyncio.wait_for(self._observers[name](), OBSERVE_SECONDS)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other gauges are wanted all the same
            MISSED_OBSERVATIONS.labels(name).inc()
            log.warning("miss-observation", observer=name, error=repr(error))


async def watch_loop() -> None:
    """Measure the event loop's lag until cancelled."""
    while True:
        wanted = time.perf_counter() + LAG_SECONDS
        await asyncio.sleep(LAG_SECONDS)
        EVENT_LOOP_LAG.observe(max(0.0, time.perf_counter() - wanted))
