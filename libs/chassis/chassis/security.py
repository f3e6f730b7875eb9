"""Who may do what, as a FastAPI dependency; binds who acts for the rest of the request."""

from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.security import OAuth2PasswordBearer
from starlette.requests import HTTPConnection

from chassis.context import Context, bind, current
from chassis.errors import BadRequest
from chassis.events import MAX_CHAIN
from chassis.principal import Principal

_bearer = OAuth2PasswordBearer(
    "/api/auth/token",
    refreshUrl="/api/auth/token",
    scopes={
        "leads:read": "Read leads",
        "leads:write": "Change leads",
        "workflows:read": "Read workflows and runs",
        "workflows:write": "Change workflows, start and steer runs",
        "crm:read": "Read CRM connections and where leads stand",
        "crm:write": "Change CRM connections, replay dead letters",
        "admin": "Administer the workspace",
    },
    auto_error=False,
)


async def authenticate(request: HTTPConnection) -> Principal:
    """The request's principal, bound as the origin of what it causes. A service may say on whose behalf it acts."""
    principal: Principal = await request.state.resources.tokens.verify(request.headers.get("authorization"))
    context = current()
    origin, chain = principal.origin, context.chain
    if principal.is_service:
        origin = request.headers.get("x-origin", origin)[:255]
        chain = tuple(filter(None, request.headers.get("x-chain", "").split(",")))
        if len(chain) > MAX_CHAIN:
            raise BadRequest(f"X-Chain holds more than {MAX_CHAIN} ids.")
    bind(Context(context.request_id, origin, chain, context.traceparent))
    return principal


async def authorise(request: HTTPConnection, scope: str | None) -> Principal:
    """The request's principal if it holds `scope` (None: any valid token will do); Unauthorized or Forbidden otherwise."""
    principal = await authenticate(request)
    if scope is not None:
        principal.require(scope)
    return principal


def require(scope: str | None = None) -> Any:
    """`principal: Annotated[Principal, Depends(require("leads:read"))]`: 401 without a valid token, 403 without `scope`."""

    async def dependency(request: Request) -> Principal:
        return await authorise(request, scope)

    async def documented(
        principal: Annotated[Principal, Depends(dependency)],
        _token: Annotated[str | None, Security(_bearer, scopes=[scope] if scope else [])],
    ) -> Principal:
        return principal

    return documented
