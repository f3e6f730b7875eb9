"""All simulators as one application over one SQLite file."""

import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from simulators.control import refused
from simulators.hubspot.control import HubSpotControl
from simulators.hubspot.routes import HubSpot
from simulators.settings import Settings
from simulators.storage import Storage
from simulators.webhook_receiver import WebhookReceiver


def create_app(settings: Settings) -> Starlette:
    storage = Storage(settings.data_dir)
    hubspot = HubSpot(storage)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        storage.close()

    return Starlette(
        routes=[
            *hubspot.routes(),
            *HubSpotControl(hubspot).routes(),
            *WebhookReceiver(storage, settings.webhook_secret).routes(),
            Route("/health/live", _is_healthy),
            Route("/health/ready", _is_healthy),
        ],
        exception_handlers={HTTPException: _refuse},
        lifespan=lifespan,
    )


async def _is_healthy(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _refuse(request: Request, error: Exception) -> Response:
    """An unknown path or method as HubSpot puts it; on the control endpoint, what was wrong."""
    assert isinstance(error, HTTPException)  # noqa: S101 - the only kind this handler is registered for
    if request.url.path.startswith("/_control"):
        return refused(error.status_code, error.detail)
    return JSONResponse({"status": "error", "message": "resource not found"}, error.status_code, error.headers)
