"""The workflows process: HTTP and its outbox relay."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from chassis.app import create_app
from chassis.resources import open_resources
from chassis.vault import Vault
from workflows import routes, run_routes
from workflows.catalogue import Catalogue
from workflows.checking import DefinitionChecker
from workflows.leads_client import LeadFinder
from workflows.run_service import RunService, RunStarter
from workflows.service import WorkflowService
from workflows.settings import WorkflowsSettings


def create(settings: WorkflowsSettings) -> FastAPI:
    """The application; nothing is opened before its lifespan begins."""
    vault = Vault(settings.secret_keys.get_secret_value())

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with open_resources(settings) as resources:
            database = resources.database
            starter = RunStarter(LeadFinder(database, resources.services))
            await resources.wait_to_serve()
            yield {
                "resources": resources,
                "workflows": WorkflowService(database, DefinitionChecker(vault, resources.outbound), starter),
                "runs": RunService(database, Catalogue(), starter),
            }

    return create_app(settings, title="workflows", lifespan=lifespan, routers=[routes.router, run_routes.router])
