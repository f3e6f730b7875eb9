"""The crm-sync process: HTTP and its outbox relay."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from chassis.app import create_app
from chassis.resources import Resources, open_resources
from chassis.vault import Vault
from crm_sync.access import AccessKeeper
from crm_sync.calling import VendorCaller
from crm_sync.connectors import all_connectors
from crm_sync.routes import connections, leads
from crm_sync.service.checking import VendorChecks
from crm_sync.service.connections import Connections
from crm_sync.service.leads import Leads
from crm_sync.settings import CrmSyncSettings


def create(settings: CrmSyncSettings, **replaced: Any) -> FastAPI:
    """The application; nothing is opened before its lifespan begins. `replaced` goes to `open_resources`."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with open_resources(settings, **replaced) as resources:
            await resources.wait_to_serve()
            yield {"resources": resources, **services(settings, resources)}

    return create_app(settings, title="crm-sync", lifespan=lifespan, routers=[connections.router, leads.router])


def services(settings: CrmSyncSettings, resources: Resources) -> dict[str, Any]:
    """The objects the routes call."""
    database, vault = resources.database, Vault(settings.credential_keys.get_secret_value())
    caller = VendorCaller(resources.outbound, resources.redis, timeout_seconds=settings.call_timeout_seconds)
    keeper = AccessKeeper(database, vault, caller)
    connectors = all_connectors(
        hubspot_base_url=settings.hubspot_base_url, hubspot_api_version=settings.hubspot_api_version
    )
    checks = VendorChecks(database, keeper, caller, connectors)
    allowed = frozenset(host.strip().lower() for host in settings.outbound_allowed_hosts.split(",") if host.strip())
    return {
        "service": Connections(database, vault, resources.outbound, keeper, connectors, checks, allowed),
        "checks": checks,
        "leads": Leads(database, resources.services),
    }
