"""Users of a workspace, as its administrators manage them. Each change is one transaction with its event and what it ends."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from auth import repository
from auth.errors import EmailTaken, LastAdministrator, UserNotFound, UserVersionPassed
from auth.events import user_event
from auth.models import Role, User
from auth.repository import Place
from chassis.database import Database, Transaction
from chassis.ids import new_id
from chassis.logs import get_logger

log = get_logger()


class Users:
    """Reads stand alone; writes take the transaction that `run_once` opened, so that a repeated request has its effect once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, workspace_id: str, user_id: str) -> User:
        """UserNotFound if the workspace has no such user."""
        user = await self._database.read(lambda connection: repository.read_user(connection, workspace_id, user_id))
        if user is None:
            raise UserNotFound
        return user

    async def list(
        self,
        workspace_id: str,
        *,
        role: Role | None,
        active: bool | None,
        search: str | None,
        after: Place | None,
        limit: int,
    ) -> list[User]:
        """Users by creation time, oldest first."""
        return await self._database.read(
            lambda connection: repository.list_users(
                connection, workspace_id, role=role, active=active, search=search, after=after, limit=limit
            )
        )

    @staticmethod
    async def create(
        tx: Transaction, workspace_id: str, *, email: str, name: str, role: Role, password_hash: str
    ) -> User:
        """A new active user, announced as `user.created`. EmailTaken if the address (normalised) is in use."""
        user = await repository.insert_user(
            tx.connection,
            workspace_id=workspace_id,
            user_id=new_id("user"),
            email=email,
            name=name,
            role=role,
            password_hash=password_hash,
        )
        if user is None:
            raise EmailTaken(await repository.email_holder(tx.connection, workspace_id, email))
        tx.emit(user_event("created", user))
        log.info("create-user", user_id=user.id, role=user.role)
        return user

    @staticmethod
    async def change(
        tx: Transaction, workspace_id: str, user_id: str, fields: Mapping[str, Any], *, versions: set[str] | None
    ) -> User:
        """Change `name`, `role` or `active`; what changes nothing announces nothing. `versions`: those the caller has seen.

        A disabled user's sessions end, and so do those of a user with another role, because tokens carry the role.
        Raises UserNotFound, UserVersionPassed, and LastAdministrator rather than leave a workspace nobody can administer.
        """
        # Changes to a workspace's users come one after the other: of two administrators disabling each other one must stay.
        await repository.lock_workspace(tx.connection, workspace_id)
        user = await repository.lock_user(tx.connection, workspace_id, user_id)
        if user is None:
            raise UserNotFound
        if versions is not None and str(user.version) not in versions:
            raise UserVersionPassed(user.version)
        wanted = replace(user, **fields)
        if wanted == user:
            return user
        steps_down = _administers(user) and not _administers(wanted)
        if steps_down and not await repository.other_administrators_exist(tx.connection, workspace_id, user_id):
            raise LastAdministrator
        changed = await repository.update_user(
            tx.connection, workspace_id, user_id, name=wanted.name, role=wanted.role, active=wanted.active
        )
        await _end_sessions(tx, user, changed)
        tx.emit(user_event("disabled" if user.active and not changed.active else "updated", changed))
        log.info("change-user", user_id=user_id, fields=sorted(fields))
        return changed

    @staticmethod
    async def set_password(tx: Transaction, workspace_id: str, user_id: str, password_hash: str) -> None:
        """Give a user another password and end the user's sessions. UserNotFound if there is none."""
        if not await repository.set_password(tx.connection, workspace_id, user_id, password_hash):
            raise UserNotFound
        await repository.end_sessions_of_user(tx.connection, workspace_id, user_id, "password_changed")
        log.info("set-password", user_id=user_id)


def _administers(user: User) -> bool:
    return user.active and user.role == "admin"


async def _end_sessions(tx: Transaction, before: User, after: User) -> None:
    if before.active and not after.active:
        await repository.end_sessions_of_user(tx.connection, after.workspace_id, after.id, "user_disabled")
    elif before.role != after.role:
        await repository.end_sessions_of_user(tx.connection, after.workspace_id, after.id, "role_changed")
