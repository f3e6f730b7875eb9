"""JSON lines on standard output. A log line is an event: a fixed verb-noun `action`, the ids of what it concerns, no personal data."""

import logging
import re
import sys
from typing import Any, cast

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from chassis.context import current

_DETAIL = re.compile(r"\nDETAIL: .*")


def _add_context(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    context = current()
    if context.request_id is not None:
        line.setdefault("request_id", context.request_id)
    return line


def _leave_out_rows(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """Without PostgreSQL's DETAIL lines, which quote rows."""
    if "exception" in line:
        line["exception"] = _DETAIL.sub("", line["exception"])
    return line


def configure_logs(service: str, level: str = "info") -> None:
    """Send structlog and the standard library's loggers to stdout as JSON, each line naming the service."""

    def add_service(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
        line["service"] = service
        return line

    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_service,
        _add_context,
        structlog.processors.format_exc_info,
        _leave_out_rows,
    ]
    structlog.configure(
        processors=[
            *shared,
            structlog.processors.EventRenamer("action"),
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.BytesLoggerFactory(sys.stdout.buffer),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.EventRenamer("message"),
                structlog.processors.JSONRenderer(serializer=lambda line, **_: orjson.dumps(line).decode()),
            ],
            foreign_pre_chain=shared,
        )
    )
    logging.basicConfig(handlers=[handler], level=max(threshold, logging.WARNING), force=True)


def get_logger() -> FilteringBoundLogger:
    """`log.info("publish-events", count=3)`."""
    return cast(FilteringBoundLogger, structlog.get_logger())
