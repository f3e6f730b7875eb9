"""Sessions: one's own, and for administrators everybody's in the workspace."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from starlette.responses import Response

from auth.errors import SessionNotFound, UserNotFound
from auth.routes.bodies import SessionPage, session_document
from auth.routes.openapi import SESSION_EXAMPLE, example, problems
from auth.routes.paging import Cursor, Limit, is_id, page, place_of, question
from auth.routes.sign_in import session_of
from auth.routes.state import DatabaseOf, IdentityOf, UsersOf
from auth.users import Users
from chassis.database import Transaction
from chassis.idempotency import Answer, WriteRequest, run_once, write_request
from chassis.principal import Principal
from chassis.security import require

router = APIRouter(prefix="/api/auth/sessions", tags=["auth"])

OfUser = Annotated[str | None, Query(description="Another user's, for administrators.", max_length=64)]


@router.get(
    "",
    operation_id="list_sessions",
    summary="List sessions, newest first",
    response_model=SessionPage,
    responses={
        **example(200, {"items": [SESSION_EXAMPLE], "next_cursor": None}, "Sessions that are not over"),
        **problems(400, 401, 403, 404, 422),
    },
)
async def list_sessions(
    *,
    principal: Annotated[Principal, Depends(require())],
    identity: IdentityOf,
    users: UsersOf,
    user_id: OfUser = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> dict[str, Any]:
    owner = await _owner(principal, user_id, users)
    asked = question("sessions", owner)
    found = await identity.list_sessions(principal.workspace_id, owner, after=place_of(cursor, asked), limit=limit + 1)
    shown, next_cursor = page(found, limit, asked)
    items = [session_document(each, current=each.id == principal.session_id) for each in shown]
    return {"items": items, "next_cursor": next_cursor}


@router.delete(
    "",
    operation_id="end_sessions",
    summary="End all sessions of a user, the current one among them",
    status_code=204,
    responses=problems(401, 403, 404, 409, 422),
)
async def end_sessions(
    *,
    write: Annotated[WriteRequest, write_request()],
    database: DatabaseOf,
    identity: IdentityOf,
    users: UsersOf,
    user_id: OfUser = None,
) -> Response:
    principal = write.principal
    owner = await _owner(principal, user_id, users)

    async def effect(tx: Transaction) -> Answer:
        await identity.end_sessions(tx, principal.workspace_id, owner)
        return Answer(204)

    return (await run_once(write, database, effect)).response()


@router.delete(
    "/{session_id}",
    operation_id="end_session",
    summary="End one session",
    status_code=204,
    responses=problems(401, 403, 404, 409, 422),
)
async def end_session(
    write: Annotated[WriteRequest, write_request()],
    session_id: Annotated[str, Path()],
    database: DatabaseOf,
    identity: IdentityOf,
) -> Response:
    """One's own, or as an administrator any of the workspace. A session that is over already is no error."""
    principal = write.principal
    session_of(principal)
    if not is_id(session_id):
        raise SessionNotFound
    owner = None if "admin" in principal.scopes else principal.subject

    async def effect(tx: Transaction) -> Answer:
        await identity.end_session(tx, principal.workspace_id, session_id, owner=owner)
        return Answer(204)

    return (await run_once(write, database, effect)).response()


async def _owner(principal: Principal, user_id: str | None, users: Users) -> str:
    """Whose sessions are meant: one's own, or, for an administrator, those of a user of the workspace."""
    session_of(principal)
    if user_id is None or user_id == principal.subject:
        return principal.subject
    principal.require("admin")
    if not is_id(user_id):
        raise UserNotFound
    return (await users.read(principal.workspace_id, user_id)).id
