"""Prometheus metrics of every process, made once; label children are kept where a hot path needs them."""

from prometheus_client import Counter, Histogram

REQUESTS = Counter("http_requests_total", "HTTP requests answered.", ["method", "route", "status"])
REQUEST_SECONDS = Histogram(
    "http_request_duration_seconds",
    "Time from the first byte of a request to the last of its answer.",
    ["method", "route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
OUTBOX_PUBLISHED = Counter("outbox_events_published_total", "Events confirmed by the broker.")
OUTBOX_PARKED = Counter("outbox_events_parked_total", "Events the broker refused until they were parked.")
EVENTS_CONSUMED = Counter("events_consumed_total", "Events taken from a queue.", ["queue", "outcome"])
CACHE_READS = Counter("cache_reads_total", "Reads of the shared cache.", ["outcome"])
OUTBOUND_CALLS = Counter("outbound_calls_total", "Calls to other systems.", ["outcome"])
POOL_WAITS = Counter("database_pool_exhausted_total", "Times no connection became free within the limit.")
