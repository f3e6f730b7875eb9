"""`python -m crm_sync.rotate_keys`: seal every connection's credentials under the current key (the first in CRM_SYNC_CREDENTIAL_KEYS).

Processes that know both keys may run meanwhile. Afterwards the older key can be taken out.
"""

import asyncio
import sys

import asyncpg

from chassis.queries import load_queries
from chassis.vault import Vault
from crm_sync.credentials import reseal
from crm_sync.settings import CrmSyncSettings

queries = load_queries("crm_sync")


async def rotate(dsn: str, vault: Vault) -> int:
    """Reseal what is under an older key, a page in a transaction; returns how many. SealBroken if a key is missing."""
    connection = await asyncpg.connect(dsn, timeout=10)
    changed, after = 0, ("", "")
    try:
        while True:
            async with connection.transaction():
                rows = await connection.fetch(queries["sealed_credentials"], *after)
                for row in rows:
                    if vault.needs_rotation(row["credentials"]):
                        sealed = reseal(vault, row["workspace_id"], row["id"], row["credentials"])
                        await connection.execute(queries["reseal_credentials"], row["workspace_id"], row["id"], sealed)
                        changed += 1
            if not rows:
                return changed
            after = rows[-1]["workspace_id"], rows[-1]["id"]
    finally:
        await connection.close()


def main() -> None:
    settings = CrmSyncSettings()
    vault = Vault(settings.credential_keys.get_secret_value())
    changed = asyncio.run(rotate(settings.database_url.get_secret_value(), vault))
    sys.stdout.write(f"{changed} connections sealed under the current key\n")


if __name__ == "__main__":
    main()
