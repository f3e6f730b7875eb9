"""Worker processes: loops that run until the process is told to stop, and a small HTTP side for health and metrics."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from fastapi import FastAPI

from chassis.app import create_app
from chassis.logs import get_logger
from chassis.pruning import common_pruning
from chassis.resources import Resources, open_resources
from chassis.server import serve
from chassis.settings import ServiceSettings
from chassis.trouble import is_database_trouble

log = get_logger()


class Loop(Protocol):
    """A duty of a worker: `run` returns soon after `stopping` is set, with its work finished or released."""

    name: str

    async def run(self, stopping: asyncio.Event) -> None: ...


class Periodic:
    """Calls `run_once` every `seconds`, and at once when woken. Its database's trouble is waited out; a fault is logged."""

    def __init__(self, name: str, seconds: float, run_once: Callable[[], Awaitable[Any]]) -> None:
        self.name = name
        self._seconds = seconds
        self._run_once = run_once
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Run again without waiting for the period to end."""
        self._woken.set()

    async def run(self, stopping: asyncio.Event) -> None:
        stop = asyncio.ensure_future(stopping.wait())
        try:
            while not stopping.is_set():
                self._woken.clear()
                try:
                    await self._run_once()
                except Exception as error:
                    if not is_database_trouble(error):
                        log.exception("fail-duty", duty=self.name)
                    else:
                        log.warning("wait-duty", duty=self.name, error=str(error) or type(error).__name__)
                woken = asyncio.ensure_future(self._woken.wait())
                await asyncio.wait({woken, stop}, timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED)
                woken.cancel()
        finally:
            stop.cancel()


Build = Callable[[Resources], Sequence[Loop]]


def create_worker_app(settings: ServiceSettings, build: Build) -> FastAPI:
    """The worker as an application: its lifespan starts the loops and, at the end, waits until they have let go."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with open_resources(settings, consumes=True) as resources:
            loops = [*build(resources), *common_pruning(resources.database)]
            async with running(loops, drain_seconds=settings.drain_seconds):
                yield {"resources": resources}
                resources.health.draining = True

    return create_app(settings, title=f"{settings.service} worker", lifespan=lifespan, routers=[])


@asynccontextmanager
async def running(loops: Sequence[Loop], *, drain_seconds: float) -> AsyncIterator[None]:
    """Run duties beside the block; at its end tell them to stop and wait until they have let go, at most `drain_seconds`."""
    stopping = asyncio.Event()
    tasks = [asyncio.create_task(loop.run(stopping), name=loop.name) for loop in loops]
    for task in tasks:
        task.add_done_callback(_end_process_if_failed)
    try:
        yield
    finally:
        stopping.set()
        _, late = await asyncio.wait(tasks, timeout=drain_seconds)
        for task in late:
            log.warning("abandon-duty", duty=task.get_name())
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


def _end_process_if_failed(task: asyncio.Task[None]) -> None:
    """A duty that ends by an exception must not leave a process that looks alive: the supervisor starts a fresh one."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("lose-duty", duty=task.get_name(), exc_info=error)
        os.kill(os.getpid(), signal.SIGTERM)


def run_worker(settings: ServiceSettings, build: Build) -> None:
    """Run a worker process until SIGTERM."""
    serve(lambda: create_worker_app(settings, build), settings)
