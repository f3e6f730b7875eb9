"""Running a process: one uvicorn, tuned for what runs behind the gateway."""

import gc
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from chassis.logs import configure_logs, get_logger
from chassis.settings import ServiceSettings
from chassis.whole_answers import WholeAnswers

log = get_logger()

# Longer than the gateway keeps an idle connection (60 s), so that it never reuses one that is being closed here.
KEEP_ALIVE_SECONDS = 75


class _Server(uvicorn.Server):
    """uvicorn, except that a process still waiting for its database (nothing accepted, nothing claimed) leaves at once."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.started:
            os._exit(0)
        super().handle_exit(sig, frame)


def serve(create: Callable[[], ASGIApp], settings: ServiceSettings) -> None:
    """Serve until SIGTERM, finish what is in flight (at most `drain_seconds`), leave. Exit code 3 if the start fails."""
    configure_logs(settings.service, settings.log_level)
    app = create()
    # Long-lived objects out of the collector's way: fewer and shorter pauses under load.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=WholeAnswers,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(settings.drain_seconds),
        backlog=2048,
        forwarded_allow_ips=os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1"),
    )
    server = _Server(config)
    log.info("start-process", port=settings.port)
    # uvicorn raises the signal once more when it has stopped; a clean stop is exit code 0.
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    server.run()
    if not server.started:
        sys.exit(3)
