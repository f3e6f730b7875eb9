"""A process from its start to its end: it leaves when it is told to, and nobody's answer is cut off by that."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import httpx2
import pytest

from deploy.local.servers import free_ports
from tests.support.fixtures import eventually

PROGRAM = """
import asyncio, sys
from contextlib import asynccontextmanager
from typing import ClassVar
from fastapi import APIRouter
from chassis.app import create_app
from chassis.server import serve
from chassis.settings import ServiceSettings

class Settings(ServiceSettings):
    service: ClassVar[str] = "leads"

router = APIRouter()

@router.get("/slow/{seconds}")
async def slow(seconds: float) -> dict[str, bool]:
    print("inside", flush=True)
    await asyncio.sleep(seconds)
    return {"done": True}

@asynccontextmanager
async def lifespan(_app):
    print("starting", flush=True)
    if sys.argv[2] == "waits":
        await asyncio.Event().wait()
    if sys.argv[2] == "fails":
        raise RuntimeError("no database of that name")
    yield {}
    print("ended", flush=True)

url = "redis://127.0.0.1:9"
settings = Settings(port=int(sys.argv[1]), internal_url=url, database_url=url, broker_url=url, cache_url=url,
                    service_client_secret="x", drain_seconds=1)
serve(lambda: create_app(settings, title="t", lifespan=lifespan, routers=[router]), settings)
"""


@dataclass
class Running:
    """The program as a process."""

    process: asyncio.subprocess.Process
    url: str

    async def says(self, line: str) -> None:
        """Wait until it has printed that line."""
        assert self.process.stdout is not None
        async with asyncio.timeout(10):
            while (found := await self.process.stdout.readline()) != f"{line}\n".encode():
                assert found, f"it ended without {line!r}"

    async def leaves(self, within: float) -> int:
        return await asyncio.wait_for(self.process.wait(), within)


@pytest.fixture
async def start() -> AsyncIterator[Callable[[str], Awaitable[Running]]]:
    """Starts the program; `start("serves")`, or with a start that waits or fails."""
    started: list[Running] = []

    async def begin(how: str) -> Running:
        [port] = free_ports(1)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, str(port), how, stdout=asyncio.subprocess.PIPE
        )
        running = Running(process, f"http://127.0.0.1:{port}")
        started.append(running)
        await running.says("starting")
        return running

    yield begin
    for each in started:
        if each.process.returncode is None:
            each.process.kill()
        await each.process.wait()


async def test_answers_under_way_leave_whole_and_new_requests_go_elsewhere_for_no_longer_than_the_drain_time(
    start: Callable[[str], Awaitable[Running]],
) -> None:
    running = await start("serves")
    async with httpx2.AsyncClient(base_url=running.url, trust_env=False) as client:
        await is_up(client)
        short, endless = (asyncio.create_task(client.get(f"/slow/{seconds}")) for seconds in (0.5, 8))
        for _ in range(2):
            await running.says("inside")
        running.process.send_signal(signal.SIGTERM)
        async with httpx2.AsyncClient(base_url=running.url, trust_env=False) as other:

            async def is_closed() -> bool:
                try:
                    await other.get("/health/live", headers={"Connection": "close"})
                except httpx2.ConnectError:
                    return True
                return False

            await eventually(is_closed, seconds=0.4)  # before the first answer is there
        answer = await short
        assert (answer.status_code, answer.json()) == (200, {"done": True})
        await running.says("ended")  # what it owns is given up in order all the same
        assert await running.leaves(within=4) == 0
        await asyncio.gather(endless, return_exceptions=True)


async def test_a_process_that_waits_for_its_database_leaves_at_once_and_one_that_cannot_start_says_so(
    start: Callable[[str], Awaitable[Running]],
) -> None:
    waiting, failing = await asyncio.gather(start("waits"), start("fails"))
    waiting.process.send_signal(signal.SIGTERM)
    assert await waiting.leaves(within=2) == 0
    assert await failing.leaves(within=5) == 3


async def is_up(client: httpx2.AsyncClient) -> None:
    """Return once it takes connections."""
    deadline = time.monotonic() + 5
    while True:
        try:
            await client.get("/health/live")
        except httpx2.ConnectError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        else:
            return
