"""`python -m auth.seed`: the first workspace and its administrator, once.

Takes ADMIN_EMAIL and ADMIN_PASSWORD from the environment and prints `{"workspace_id", "user_id", "created"}`. A second run changes
nothing, whatever has become of the administrator since.
"""

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import asyncpg
import orjson

from auth import repository
from auth.events import user_event
from auth.models import PASSWORD_MAX_LENGTH, PASSWORD_MIN_LENGTH, normalise_email, normalise_password
from auth.passwords import Passwords
from auth.settings import Settings
from chassis.ids import new_id
from chassis.outbox import insert_events

SEED = "administrator"
WORKSPACE_NAME = "Default workspace"
ADMINISTRATOR_NAME = "Administrator"


class SeedRefused(Exception):
    """What is wrong with the environment, in one line."""


def read_administrator(environment: Mapping[str, str]) -> tuple[str, str]:
    """The normalised address and the password."""
    email = normalise_email(environment.get("ADMIN_EMAIL", ""))
    if email is None:
        raise SeedRefused("ADMIN_EMAIL is not an e-mail address")
    password = normalise_password(environment.get("ADMIN_PASSWORD", ""))
    if not PASSWORD_MIN_LENGTH <= len(password) <= PASSWORD_MAX_LENGTH:
        raise SeedRefused(f"ADMIN_PASSWORD must have {PASSWORD_MIN_LENGTH} to {PASSWORD_MAX_LENGTH} characters")
    return email, password


@dataclass(frozen=True, slots=True)
class Seeded:
    """The first workspace and user there were; `created`: just now."""

    workspace_id: str
    user_id: str
    created: bool


async def seed(dsn: str, email: str, password: str) -> Seeded:
    """Workspace, administrator, `user.created` and the marker in one transaction."""
    with Passwords(threads=1, waiting_limit=1) as passwords:
        password_hash = await passwords.hash(password)
    async with (
        asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool,
        pool.acquire() as connection,
        connection.transaction(),
    ):
        created = await repository.plant_seed(connection, SEED)
        if created:
            workspace_id = new_id("ws")
            await repository.insert_workspace(connection, workspace_id, WORKSPACE_NAME)
            user = await repository.insert_user(
                connection,
                workspace_id=workspace_id,
                user_id=new_id("user"),
                email=email,
                name=ADMINISTRATOR_NAME,
                role="admin",
                password_hash=password_hash,
            )
            if user is None:
                raise SeedRefused("a user with ADMIN_EMAIL exists already")
            event = user_event("created", user)
            await insert_events(connection, [event])
            await repository.release_event(connection, event.id)
        seeded = await repository.seeded_user(connection)
    if seeded is None:
        raise SeedRefused("the seed is marked as done but there is no user")
    return Seeded(*seeded, created)


def main() -> int:
    try:
        email, password = read_administrator(os.environ)
        made = asyncio.run(seed(Settings().database_url.get_secret_value(), email, password))
    except (SeedRefused, OSError, asyncpg.PostgresError, ValueError) as error:
        sys.stderr.write(f"Nothing was seeded: {error}\n")
        return 1
    sys.stdout.write(orjson.dumps(made).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
