"""`python -m auth.rotate_keys`: publish a new signing key now, let it sign once every verifier has it.

Safe while any number of replicas run: each reads the keys from the database every few seconds.
"""

import asyncio
import sys

import asyncpg

from auth import repository
from auth.keys import add_key, published_seconds
from auth.settings import Settings
from chassis.vault import Vault


async def rotate(settings: Settings) -> str:
    """Insert the next key, drop those whose last token is long over, and return the new one's id."""
    vault = Vault(settings.key_encryption_keys.get_secret_value())
    async with (
        asyncpg.create_pool(settings.database_url.get_secret_value(), min_size=1, max_size=1) as pool,
        pool.acquire() as connection,
        connection.transaction(),
    ):
        await repository.lock_signing_keys(connection)
        await repository.drop_superseded_keys(connection, published_seconds(settings.access_token_seconds))
        return await add_key(connection, vault, activates_in_seconds=settings.key_activation_seconds)


def main() -> int:
    settings = Settings()
    try:
        kid = asyncio.run(rotate(settings))
    except (OSError, asyncpg.PostgresError, ValueError) as error:
        sys.stderr.write(f"The keys were not rotated: {error}\n")
        return 1
    sys.stdout.write(
        f"New signing key {kid}: published now, signs in {settings.key_activation_seconds} s; "
        f"the old one stays published until its last token is over.\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
