"""The leads process: HTTP and its outbox relay."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from chassis.app import create_app
from chassis.resources import open_resources
from leads import hot_routes, routes
from leads.reading import LeadReader
from leads.service import LeadService
from leads.settings import Settings
from leads.shown import LeadCache
from leads.workspace import WorkspaceSettings
from leads.writer import LeadWriter


def create(settings: Settings) -> FastAPI:
    """The application; nothing is opened before its lifespan begins."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with open_resources(settings) as resources, LeadWriter(resources.database) as writer:
            cache = LeadCache(resources.cache)
            workspace = WorkspaceSettings(resources.database, settings.default_region)
            await resources.wait_to_serve()
            yield {
                "resources": resources,
                "service": LeadService(resources.database, cache, writer, workspace),
                "reader": LeadReader(resources.database, cache, workspace),
                "workspace": workspace,
            }

    routers = [routes.settings_router, hot_routes.router, routes.router]
    return create_app(settings, title="leads", lifespan=lifespan, routers=routers)
