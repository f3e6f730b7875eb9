"""crm-sync's applications in this process, with times that a test can wait for."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx2
from starlette.types import Receive, Scope, Send

from chassis.worker import create_worker_app
from crm_sync.main import create
from crm_sync.settings import CrmSyncSettings
from crm_sync.worker import build
from simulators.testing import RunningSimulators

from .crm_neighbours import Neighbours

KEYS = f"k1:{base64.b64encode(b'1' * 32).decode()}"


def quick(simulators: RunningSimulators, neighbours: Neighbours) -> dict[str, Any]:
    """Settings with times that let a test wait for them."""
    return {
        "internal_url": neighbours.url,
        "outbound_allowed_hosts": f"127.0.0.1:{simulators.port}",
        "credential_keys": KEYS,
        "hubspot_base_url": simulators.url,
        "call_timeout_seconds": 1.0,
        "vendor_timeout_seconds": 1.2,
        "lease_seconds": 3.0,
        "poll_seconds": 0.05,
        "pause_base_seconds": 0.2,
        "pause_cap_seconds": 1.0,
    }


@dataclass
class Running:
    """A running application and what it owns."""

    app: Any
    state: dict[str, Any]

    def client(self, headers: dict[str, str]) -> httpx2.AsyncClient:
        async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
            scope["state"] = dict(self.state)
            await self.app(scope, receive, send)

        transport = httpx2.ASGITransport(app=with_state)
        return httpx2.AsyncClient(transport=transport, base_url="http://crm-sync", headers=headers)


@asynccontextmanager
async def running(app: Any) -> AsyncIterator[Running]:
    """Run an application's lifespan in this process."""
    async with app.router.lifespan_context(app) as state:
        yield Running(app, state)


def worker_app(settings: CrmSyncSettings) -> Any:
    return create_worker_app(settings, lambda found: build(settings, found))


@dataclass
class Service:
    """The HTTP process and what it runs on."""

    settings: CrmSyncSettings
    http: Running
    neighbours: Neighbours
    database: asyncpg.Connection


@asynccontextmanager
async def open_service(settings: CrmSyncSettings, neighbours: Neighbours) -> AsyncIterator[Service]:
    database = await asyncpg.connect(settings.database_url.get_secret_value())
    try:
        async with running(create(settings)) as http:
            yield Service(settings, http, neighbours, database)
    finally:
        await database.close()
