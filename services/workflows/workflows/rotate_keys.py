"""`python -m workflows.rotate_keys`: seal every secret anew under the current key, so that older keys can be dropped."""

import asyncio
import sys

import asyncpg

from chassis.vault import Vault
from workflows.repository import queries
from workflows.settings import WorkflowsSettings


async def rotate(dsn: str, vault: Vault) -> int:
    """Reseal what an older key sealed; returns how many. May be run again, and while the service works."""
    connection = await asyncpg.connect(dsn, timeout=10)
    resealed, last = 0, ("", "")
    try:
        while records := await connection.fetch(queries["secrets_after"], *last):
            for record in records:
                last = workspace_id, secret_id = record["workspace_id"], record["id"]
                if vault.needs_rotation(record["sealed"]):
                    owner = f"{workspace_id}/{secret_id}".encode()
                    sealed = vault.seal(vault.open(record["sealed"], owner), owner)
                    await connection.execute(
                        queries["reseal_secret"], workspace_id, secret_id, record["sealed"], sealed
                    )
                    resealed += 1
    finally:
        await connection.close()
    return resealed


def main() -> None:
    settings = WorkflowsSettings()
    vault = Vault(settings.secret_keys.get_secret_value())
    count = asyncio.run(rotate(settings.database_url.get_secret_value(), vault))
    sys.stdout.write(f"{count} secrets sealed anew\n")


if __name__ == "__main__":
    main()
