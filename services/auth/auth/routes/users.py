"""Users, for administrators."""

import hashlib
import hmac
import re
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query
from pydantic import AfterValidator
from starlette.responses import JSONResponse, Response

from auth.errors import UserNotFound
from auth.models import Role, User
from auth.routes.bodies import (
    NewPasswordRequest,
    NewUser,
    UserChange,
    UserDocument,
    UserPage,
    user_document,
)
from auth.routes.openapi import USER_EXAMPLE, example, json_body, problems
from auth.routes.paging import Cursor, Limit, is_id, page, place_of, question
from auth.routes.state import DatabaseOf, PasswordsOf, SettingsOf, UsersOf
from chassis.database import Transaction
from chassis.errors import FieldError, Unprocessable
from chassis.idempotency import Answer, WriteRequest, run_once, write_request
from chassis.parsing import parse_json
from chassis.principal import Principal
from chassis.security import require

router = APIRouter(prefix="/api/auth/users", tags=["auth"])

_TAG = re.compile(r'(W/)?"([^"]*)"')


async def _user_id(user_id: Annotated[str, Path()]) -> str:
    if not is_id(user_id):
        raise UserNotFound
    return user_id


UserId = Annotated[str, Depends(_user_id)]
Administrator = Annotated[Principal, Depends(require("admin"))]
AdministratorsWrite = Annotated[WriteRequest, write_request("admin")]


def _searchable(text: str | None) -> str | None:
    if text is not None and "\0" in text:
        raise ValueError("must not contain NUL")
    return text


@router.post(
    "",
    operation_id="create_user",
    summary="Create a user",
    status_code=201,
    response_model=UserDocument,
    responses={
        **example(201, USER_EXAMPLE, "Created; `Location` names it"),
        **problems(400, 401, 403, 409, 413, 415, 422),
    },
    openapi_extra=json_body(
        NewUser,
        {"email": "ada@example.com", "name": "Ada Lovelace", "role": "agent", "password": "correct horse battery"},
    ),
)
async def create_user(
    write: AdministratorsWrite, database: DatabaseOf, users: UsersOf, passwords: PasswordsOf, settings: SettingsOf
) -> Response:
    """Announced as `user.created`. An e-mail address belongs to one user; if that is one of this workspace, the 409 has
    `existing_id`."""
    body = parse_json(write.body, NewUser, write.content_type)
    password_hash = await passwords.hash(body.password)
    workspace_id = write.principal.workspace_id

    async def effect(tx: Transaction) -> Answer:
        user = await users.create(
            tx, workspace_id, email=body.email, name=body.name, role=body.role, password_hash=password_hash
        )
        headers = {"Location": f"/api/auth/users/{user.id}", "ETag": etag(user)}
        return Answer.json(201, user_document(user), headers)

    return (await run_once(_without_password(write, settings.fingerprint_key), database, effect)).response()


@router.get(
    "",
    operation_id="list_users",
    summary="List users, oldest first",
    response_model=UserPage,
    responses={
        **example(200, {"items": [USER_EXAMPLE], "next_cursor": None}, "Users"),
        **problems(400, 401, 403, 422),
    },
)
async def list_users(
    *,
    principal: Administrator,
    users: UsersOf,
    role: Role | None = None,
    active: bool | None = None,
    q: Annotated[
        str | None, Query(max_length=200, description="Part of a name or address."), AfterValidator(_searchable)
    ] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> dict[str, Any]:
    asked = question("users", role, active, q)
    found = await users.list(
        principal.workspace_id,
        role=role,
        active=active,
        search=q or None,
        after=place_of(cursor, asked),
        limit=limit + 1,
    )
    shown, next_cursor = page(found, limit, asked)
    return {"items": [user_document(user) for user in shown], "next_cursor": next_cursor}


@router.get(
    "/{user_id}",
    operation_id="read_user",
    summary="Read a user",
    response_model=UserDocument,
    responses={
        **example(200, USER_EXAMPLE, "The user; `ETag` names its version"),
        304: {"description": "Not changed since the version that `If-None-Match` names"},
        **problems(401, 403, 404, 422),
    },
)
async def read_user(
    principal: Administrator,
    user_id: UserId,
    users: UsersOf,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    user = await users.read(principal.workspace_id, user_id)
    headers = {"ETag": etag(user)}
    if if_none_match is not None and (
        if_none_match.strip() == "*" or str(user.version) in {tag for _, tag in _TAG.findall(if_none_match)}
    ):
        return Response(status_code=304, headers=headers)
    return JSONResponse(user_document(user), headers=headers)


@router.patch(
    "/{user_id}",
    operation_id="change_user",
    summary="Change a user's name or role, disable or enable a user",
    response_model=UserDocument,
    responses={
        **example(200, USER_EXAMPLE, "The user after the change"),
        **problems(400, 401, 403, 404, 409, 412, 413, 415, 422),
    },
    openapi_extra=json_body(UserChange, {"role": "admin"}, "application/merge-patch+json"),
)
async def change_user(
    write: AdministratorsWrite,
    user_id: UserId,
    database: DatabaseOf,
    users: UsersOf,
    if_match: Annotated[str | None, Header(description="Change it only if it still has this version.")] = None,
) -> Response:
    """A merge patch. Announced as `user.updated` or `user.disabled`. Disabling a user and changing a role end the user's
    sessions. The last active administrator stays one (409)."""
    fields = parse_json(write.body, UserChange, write.content_type).model_dump(exclude_unset=True)
    if not fields:
        raise Unprocessable("Nothing to change.", errors=[FieldError("", "give name, role or active")])

    async def effect(tx: Transaction) -> Answer:
        user = await users.change(tx, write.principal.workspace_id, user_id, fields, versions=seen_versions(if_match))
        return Answer.json(200, user_document(user), {"ETag": etag(user)})

    return (await run_once(write, database, effect)).response()


@router.put(
    "/{user_id}/password",
    operation_id="set_password",
    summary="Set a user's password",
    status_code=204,
    responses=problems(400, 401, 403, 404, 409, 413, 415, 422),
    openapi_extra=json_body(NewPasswordRequest, {"password": "correct horse battery"}),
)
async def set_password(
    *,
    write: AdministratorsWrite,
    user_id: UserId,
    database: DatabaseOf,
    users: UsersOf,
    passwords: PasswordsOf,
    settings: SettingsOf,
) -> Response:
    """Ends the user's sessions, one's own too if it is one's own password."""
    body = parse_json(write.body, NewPasswordRequest, write.content_type)
    password_hash = await passwords.hash(body.password)

    async def effect(tx: Transaction) -> Answer:
        await users.set_password(tx, write.principal.workspace_id, user_id, password_hash)
        return Answer(204)

    return (await run_once(_without_password(write, settings.fingerprint_key), database, effect)).response()


def etag(user: User) -> str:
    """Names the user's representation: it changes with the version only."""
    return f'"{user.version}"'


def seen_versions(if_match: str | None) -> set[str] | None:
    """The versions `If-Match` names (RFC 9110, section 13.1.1: strong tags only); None if any will do."""
    if if_match is None or if_match.strip() == "*":
        return None
    return {tag for weak, tag in _TAG.findall(if_match) if not weak}


def _without_password(write: WriteRequest, key: bytes) -> WriteRequest:
    """The request as it is remembered: a plain digest of a body with a password could be searched faster than its argon2 hash."""
    return replace(write, body=hmac.digest(key, write.body, hashlib.sha256))
