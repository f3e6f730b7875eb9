"""auth's rows: SQL by name in, frozen values out. Every function takes the caller's connection and commits nothing."""

from collections.abc import Mapping
from datetime import datetime, timedelta

import asyncpg

from auth.models import Account, EndedSession, EndReason, PublishedKey, Role, Session, User
from auth.throttle import BUCKETS, Failures, Kind
from chassis.database import PooledConnection
from chassis.queries import load_queries

queries = load_queries("auth")

Place = tuple[datetime, str]
"""Where a page ended: creation time and id of its last entry."""


def _user(record: asyncpg.Record) -> User:
    return User(**{name: record[name] for name in User.__dataclass_fields__})


async def insert_workspace(connection: PooledConnection, workspace_id: str, name: str) -> None:
    await connection.execute(queries["insert_workspace"], workspace_id, name)


async def workspace_exists(connection: PooledConnection, workspace_id: str) -> bool:
    return bool(await connection.fetchval(queries["workspace_exists"], workspace_id))


async def lock_workspace(connection: PooledConnection, workspace_id: str) -> None:
    """Let changes that concern all of a workspace's users happen one after the other."""
    await connection.execute(queries["lock_workspace"], workspace_id)


async def insert_user(
    connection: PooledConnection,
    *,
    workspace_id: str,
    user_id: str,
    email: str,
    name: str,
    role: Role,
    password_hash: str,
) -> User | None:
    """The new user; None if the address is taken."""
    record = await connection.fetchrow(queries["insert_user"], workspace_id, user_id, email, name, role, password_hash)
    return _user(record) if record else None


async def email_holder(connection: PooledConnection, workspace_id: str, email: str) -> str | None:
    """The id of the workspace's user with this address."""
    holder: str | None = await connection.fetchval(queries["email_holder"], workspace_id, email)
    return holder


async def read_user(connection: PooledConnection, workspace_id: str, user_id: str) -> User | None:
    record = await connection.fetchrow(queries["read_user"], workspace_id, user_id)
    return _user(record) if record else None


async def lock_user(connection: PooledConnection, workspace_id: str, user_id: str) -> User | None:
    record = await connection.fetchrow(queries["lock_user"], workspace_id, user_id)
    return _user(record) if record else None


async def list_users(
    connection: PooledConnection,
    workspace_id: str,
    *,
    role: Role | None,
    active: bool | None,
    search: str | None,
    after: Place | None,
    limit: int,
) -> list[User]:
    """Users by creation time, oldest first; `search` is looked for in name and address."""
    created_at, user_id = after or (None, None)
    records = await connection.fetch(
        queries["list_users"], workspace_id, role, active, search, created_at, user_id, limit
    )
    return [_user(record) for record in records]


async def update_user(
    connection: PooledConnection, workspace_id: str, user_id: str, *, name: str, role: Role, active: bool
) -> User:
    """The user with its next version. The caller holds the row's lock, so the row is there."""
    [record] = await connection.fetch(queries["update_user"], workspace_id, user_id, name, role, active)
    return _user(record)


async def other_administrators_exist(connection: PooledConnection, workspace_id: str, user_id: str) -> bool:
    return bool(await connection.fetchval(queries["other_administrators"], workspace_id, user_id))


async def set_password(connection: PooledConnection, workspace_id: str, user_id: str, password_hash: str) -> bool:
    """False if there is no such user."""
    return await connection.fetchval(queries["set_password"], workspace_id, user_id, password_hash) is not None


async def replace_hash(connection: PooledConnection, user: User, password_hash: str) -> None:
    """Another hash of the same password, unless the password was changed meanwhile."""
    await connection.execute(queries["replace_hash"], user.workspace_id, user.id, user.password_version, password_hash)


async def read_account(connection: PooledConnection, email: str) -> Account | None:
    record = await connection.fetchrow(queries["read_account"], email)
    return Account(_user(record), record["password_hash"]) if record else None


async def open_session(
    connection: PooledConnection, user: User, *, session_id: str, address: str, user_agent: str, idle: timedelta
) -> User | None:
    """The session's owner as of now; None if the user was disabled or got another password since `user` was read."""
    record = await connection.fetchrow(
        queries["open_session"],
        user.workspace_id,
        user.id,
        user.password_version,
        session_id,
        address,
        user_agent,
        idle,
    )
    return _user(record) if record else None


async def insert_refresh_token(
    connection: PooledConnection, workspace_id: str, session_id: str, token_hash: bytes
) -> None:
    await connection.execute(queries["insert_refresh_token"], workspace_id, session_id, token_hash)


async def lock_session(connection: PooledConnection, workspace_id: str, session_id: str) -> str | None:
    """The id of the user of a session that is not over; None if it is over or its user is disabled."""
    user_id: str | None = await connection.fetchval(queries["lock_session"], workspace_id, session_id)
    return user_id


async def rotate_refresh_token(
    connection: PooledConnection, workspace_id: str, session_id: str, token_hash: bytes, grace: timedelta
) -> bool | None:
    """True: it is rotated now, or was within `grace`. False: it was rotated before that. None: it was never issued."""
    accepted: bool | None = await connection.fetchval(
        queries["rotate_refresh_token"], workspace_id, session_id, token_hash, grace
    )
    return accepted


async def prolong_session(connection: PooledConnection, workspace_id: str, session_id: str, idle: timedelta) -> None:
    await connection.execute(queries["prolong_session"], workspace_id, session_id, idle)


async def list_sessions(
    connection: PooledConnection, workspace_id: str, user_id: str, *, after: Place | None, limit: int
) -> list[Session]:
    """The user's sessions that are not over, newest first."""
    created_at, session_id = after or (None, None)
    records = await connection.fetch(queries["list_sessions"], workspace_id, user_id, created_at, session_id, limit)
    return [Session(**record) for record in records]


async def session_owner(connection: PooledConnection, workspace_id: str, session_id: str) -> str | None:
    """The user of a session, over or not; None if there is no such session."""
    owner: str | None = await connection.fetchval(queries["session_owner"], workspace_id, session_id)
    return owner


async def end_session(connection: PooledConnection, workspace_id: str, session_id: str, reason: EndReason) -> None:
    """End it; one that is over already keeps its own reason."""
    await connection.execute(queries["end_session"], workspace_id, session_id, reason)


async def end_sessions_of_user(connection: PooledConnection, workspace_id: str, user_id: str, reason: EndReason) -> int:
    """How many were ended."""
    return len(await connection.fetch(queries["end_sessions_of_user"], workspace_id, user_id, reason))


async def ended_sessions(connection: PooledConnection, token_seconds: float) -> list[EndedSession]:
    """Sessions that ended less than `token_seconds` ago, of all workspaces."""
    records = await connection.fetch(queries["ended_sessions"], token_seconds)
    return [EndedSession(record["id"], record["until"]) for record in records]


async def read_login_failures(connection: PooledConnection, keys: Mapping[Kind, bytes]) -> list[Failures]:
    records = await connection.fetch(queries["read_login_failures"], list(keys), list(keys.values()))
    return [Failures(**record) for record in records]


async def count_login_failure(connection: PooledConnection, keys: Mapping[Kind, bytes]) -> None:
    leaks = [BUCKETS[kind].leak_seconds for kind in keys]
    await connection.execute(queries["count_login_failure"], list(keys), list(keys.values()), leaks)


async def forget_login_failures(connection: PooledConnection, keys: Mapping[Kind, bytes]) -> None:
    await connection.execute(queries["forget_login_failures"], list(keys), list(keys.values()))


async def published_keys(connection: PooledConnection, kept_seconds: float) -> list[PublishedKey]:
    """Keys in the order in which they sign; those superseded for longer than `kept_seconds` are left out."""
    return [PublishedKey(**record) for record in await connection.fetch(queries["published_keys"], kept_seconds)]


async def lock_signing_keys(connection: PooledConnection) -> None:
    """Let one transaction at a time add keys."""
    await connection.execute(queries["lock_signing_keys"])


async def signing_key_exists(connection: PooledConnection) -> bool:
    return bool(await connection.fetchval(queries["signing_key_exists"]))


async def insert_signing_key(
    connection: PooledConnection, kid: str, public_key: bytes, sealed_private: str, activates_in_seconds: float
) -> None:
    await connection.execute(queries["insert_signing_key"], kid, public_key, sealed_private, activates_in_seconds)


async def drop_superseded_keys(connection: PooledConnection, kept_seconds: float) -> None:
    """Delete keys that were superseded longer than `kept_seconds` ago."""
    await connection.execute(queries["drop_superseded_keys"], kept_seconds)


async def plant_seed(connection: PooledConnection, name: str) -> bool:
    """True if this seed was not put here before."""
    return await connection.fetchval(queries["plant_seed"], name) is not None


async def seeded_user(connection: PooledConnection) -> tuple[str, str] | None:
    """Workspace and id of the first user there was."""
    record = await connection.fetchrow(queries["seeded_user"])
    return (record["workspace_id"], record["id"]) if record else None


async def release_event(connection: PooledConnection, event_id: str) -> None:
    """Let any relay publish this event at once: its writer is about to leave."""
    await connection.execute(queries["release_event"], event_id)
