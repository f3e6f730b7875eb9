"""Signing in, refreshing, signing out, and who one is."""

import base64
import binascii
from typing import Annotated, Any
from urllib.parse import parse_qsl, unquote

from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response

from auth.errors import ClientRefused, SessionOver, TokenRefused, WrongCredentials
from auth.models import Client
from auth.routes.bodies import Credentials, Me, RefreshRequest, TokenDocument, token_document, user_document
from auth.routes.openapi import TOKEN_EXAMPLE, USER_EXAMPLE, example, json_body, problems
from auth.routes.state import ClientOf, IdentityOf, UsersOf
from auth.service import Identity, SignedIn
from chassis.errors import Forbidden, UnsupportedMediaType
from chassis.parsing import parse_json
from chassis.principal import Principal
from chassis.security import require

router = APIRouter(prefix="/api/auth", tags=["auth"])

_NO_STORE = {"Cache-Control": "no-store"}
_FORM = "application/x-www-form-urlencoded"
_SERVICE_TOKEN_EXAMPLE = {
    "access_token": TOKEN_EXAMPLE["access_token"],
    "token_type": "bearer",
    "expires_in": 900,
    "scope": "leads:read leads:write crm:read crm:write workflows:read",
}


@router.post(
    "/login",
    operation_id="login",
    summary="Sign in with e-mail address and password",
    response_model=TokenDocument,
    responses={**example(200, TOKEN_EXAMPLE, "Signed in"), **problems(400, 401, 413, 415, 422, 429)},
    openapi_extra=json_body(Credentials, {"email": "ada@example.com", "password": "correct horse battery"}),
)
async def login(request: Request, identity: IdentityOf, client: ClientOf) -> Response:
    """Opens a session. The access token lives 15 minutes; the refresh token is exchanged for the next pair at `/refresh`."""
    body = parse_json(await request.body(), Credentials, request.headers.get("content-type", ""))
    return _tokens(await identity.sign_in(body.email, body.password, client))


@router.post(
    "/refresh",
    operation_id="refresh",
    summary="Exchange a refresh token for the next pair of tokens",
    response_model=TokenDocument,
    responses={**example(200, TOKEN_EXAMPLE, "Refreshed"), **problems(400, 401, 413, 415, 422)},
    openapi_extra=json_body(RefreshRequest, {"refresh_token": TOKEN_EXAMPLE["refresh_token"]}),
)
async def refresh(request: Request, identity: IdentityOf) -> Response:
    """A refresh token is exchanged once. Again within 30 seconds (the answer was lost) it yields another successor; later, its
    use ends the session."""
    body = parse_json(await request.body(), RefreshRequest, request.headers.get("content-type", ""))
    return _tokens(await identity.refresh(body.refresh_token))


@router.post(
    "/token",
    operation_id="token",
    summary="OAuth 2.0 token endpoint (RFC 6749)",
    response_model=TokenDocument,
    responses={**example(200, TOKEN_EXAMPLE, "Token issued"), **problems(400, 401, 413, 415, 429)},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                _FORM: {
                    "schema": {
                        "type": "object",
                        "required": ["grant_type"],
                        "properties": {
                            "grant_type": {"enum": ["password", "refresh_token", "client_credentials"]},
                            "username": {"type": "string", "description": "password: the e-mail address"},
                            "password": {"type": "string", "format": "password"},
                            "refresh_token": {"type": "string"},
                            "client_id": {"type": "string", "description": "client_credentials: the service's name"},
                            "client_secret": {"type": "string", "format": "password"},
                            "workspace_id": {"type": "string", "description": "client_credentials: where it acts"},
                        },
                    },
                    "examples": {
                        "password": {
                            "value": {"grant_type": "password", "username": "ada@example.com", "password": "…"}
                        },
                        "refresh_token": {"value": {"grant_type": "refresh_token", "refresh_token": "…"}},
                    },
                }
            },
        }
    },
)
async def token(request: Request, identity: IdentityOf, client: ClientOf) -> Response:
    """Grants `password` and `refresh_token` for users, `client_credentials` (form or HTTP Basic) for services. Errors are problem
    documents that also have RFC 6749's `error` and `error_description`."""
    form = _read_form(await request.body(), request.headers.get("content-type", ""))
    match form.get("grant_type"):
        case "password":
            return _tokens(await _with_password(identity, form, client))
        case "refresh_token":
            return _tokens(await _with_refresh_token(identity, form))
        case "client_credentials":
            name, secret = _read_client(form, request.headers.get("authorization"))
            issued = await identity.service_token(name, secret, _needed(form, "workspace_id"))
            document = _SERVICE_TOKEN_EXAMPLE | {
                "access_token": issued.token,
                "expires_in": issued.expires_in,
                "scope": issued.scope,
            }
            return JSONResponse(document, headers=_NO_STORE)
        case None:
            raise TokenRefused("invalid_request", "grant_type is missing.")
        case _:
            raise TokenRefused("unsupported_grant_type", "Use password, refresh_token or client_credentials.")


@router.post(
    "/logout",
    operation_id="logout",
    summary="End the session of the access token",
    status_code=204,
    responses=problems(401, 403),
)
async def logout(principal: Annotated[Principal, Depends(require())], identity: IdentityOf) -> Response:
    """Every service refuses the session's tokens within 5 seconds; its refresh token is worth nothing from now on."""
    await identity.sign_out(principal.workspace_id, session_of(principal))
    return Response(status_code=204)


@router.get(
    "/me",
    operation_id="read_me",
    summary="The user of the access token",
    response_model=Me,
    responses={
        **example(
            200,
            USER_EXAMPLE
            | {
                "workspace_id": "ws_06d3v0c2m5w3f8k1x9q4t7r2ab",
                "session_id": "sess_06d3v0c2m5w3f8k1x9q4t7r2ab",
                "scopes": ["crm:read", "leads:read", "leads:write", "workflows:read", "workflows:write"],
            },
            "The user, and what the token allows",
        ),
        **problems(401, 403),
    },
)
async def read_me(principal: Annotated[Principal, Depends(require())], users: UsersOf) -> dict[str, Any]:
    session_id = session_of(principal)
    user = await users.read(principal.workspace_id, principal.subject)
    return user_document(user) | {
        "workspace_id": principal.workspace_id,
        "session_id": session_id,
        "scopes": sorted(principal.scopes),
    }


def session_of(principal: Principal) -> str:
    """The session's id; Forbidden for a service, which has none."""
    if principal.session_id is None:
        raise Forbidden("Only a signed-in user can do this.")
    return principal.session_id


def _tokens(signed_in: SignedIn) -> Response:
    return JSONResponse(token_document(signed_in), headers=_NO_STORE)


async def _with_password(identity: Identity, form: dict[str, str], client: Client) -> SignedIn:
    email, password = _needed(form, "username"), _needed(form, "password")
    if len(email) > 320 or len(password) > 1024:
        raise TokenRefused("invalid_request", "username or password is too long.")
    try:
        return await identity.sign_in(email, password, client)
    except WrongCredentials as error:
        raise TokenRefused("invalid_grant", error.detail) from error


async def _with_refresh_token(identity: Identity, form: dict[str, str]) -> SignedIn:
    try:
        return await identity.refresh(_needed(form, "refresh_token"))
    except SessionOver as error:
        raise TokenRefused("invalid_grant", error.detail) from error


def _read_form(body: bytes, content_type: str) -> dict[str, str]:
    """The parameters that have a value; TokenRefused for what is no form, or names one twice (RFC 6749, section 3.2)."""
    if content_type.partition(";")[0].strip().lower() != _FORM:
        raise UnsupportedMediaType(f"The body must be a form: send Content-Type: {_FORM}.")
    try:
        pairs = parse_qsl(body.decode("utf-8"), keep_blank_values=True, errors="strict", max_num_fields=20)
    except ValueError as error:
        raise TokenRefused("invalid_request", "The body is not a form in UTF-8 with at most 20 parameters.") from error
    form = dict(pairs)
    if len(form) != len(pairs):
        raise TokenRefused("invalid_request", "A parameter is given twice.")
    if any("\0" in value for value in form.values()):
        raise TokenRefused("invalid_request", "A parameter contains NUL.")
    return {name: value for name, value in form.items() if value}


def _needed(form: dict[str, str], name: str) -> str:
    if name not in form:
        raise TokenRefused("invalid_request", f"{name} is missing.")
    return form[name]


def _read_client(form: dict[str, str], authorization: str | None) -> tuple[str, str]:
    """Name and secret from HTTP Basic (each form-encoded, RFC 6749, section 2.3.1) or from the form."""
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() == "basic":
        try:
            name, _, secret = base64.b64decode(encoded, validate=True).decode("utf-8").partition(":")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise ClientRefused from error
        return unquote(name), unquote(secret)
    return _needed(form, "client_id"), _needed(form, "client_secret")
