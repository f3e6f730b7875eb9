"""Schema migrations: plain SQL files in order, once each, under a lock.

Applied are the chassis' own files, then `services/leads/migrations/*.sql`; the service's role is granted what it needs: rows, never
the schema. chassis/provisioning.py is the command.
A file whose first line is `-- migrate: no-transaction` runs outside a transaction (for CREATE INDEX CONCURRENTLY).
"""

import asyncio
import importlib
from dataclasses import dataclass
from pathlib import Path

import asyncpg

_LOCK = 727_001
_LOCK_TRIES = 60
_LOCK_TIMEOUT_SECONDS = 2.0
_LOCK_PAUSE_SECONDS = 1.0
_GRANTS = """
GRANT USAGE ON SCHEMA public TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role};
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role};
REVOKE ALL ON schema_migrations FROM {role};
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: `version` is its owner and name, `chassis/0001_chassis`."""

    version: str
    sql: str

    @property
    def in_transaction(self) -> bool:
        return not self.sql.startswith("-- migrate: no-transaction")


def find_migrations(package: str) -> list[Migration]:
    """The chassis' files, then the package's, each in the order of their names."""
    chassis = Path(__file__).parent
    module = importlib.import_module(package)
    if module.__file__ is None:
        raise ValueError(f"{package} is not a package with files")
    service = Path(module.__file__).parent.parent / "migrations"
    return [
        Migration(f"{owner}/{path.stem}", path.read_text(encoding="utf-8"))
        for owner, folder in (("chassis", chassis), (package, service))
        for path in sorted(folder.glob("*.sql"))
    ]


async def migrate(dsn: str, package: str, *, role: str) -> list[str]:
    """Apply what is missing and grant `role` its rights; returns the versions applied. Two at once: the second waits."""
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations (version text PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())"
        )
        done = {record["version"] for record in await connection.fetch("SELECT version FROM schema_migrations")}
        applied = []
        for migration in find_migrations(package):
            if migration.version not in done:
                await _apply(connection, migration)
                applied.append(migration.version)
        quoted = '"' + role.replace('"', '""') + '"'
        await connection.execute(_GRANTS.format(role=quoted))
        return applied
    finally:
        await connection.close()


async def _apply(connection: "asyncpg.Connection[asyncpg.Record]", migration: Migration) -> None:
    """Apply one file; a lock that live traffic holds is waited for in short tries, so that traffic is not held up behind us."""
    for attempt in range(1, _LOCK_TRIES + 1):
        try:
            if migration.in_transaction:
                async with connection.transaction():
                    await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT_SECONDS * 1000:.0f}ms'")
                    await connection.execute(migration.sql)
                    await connection.execute("INSERT INTO schema_migrations (version) VALUES ($1)", migration.version)
            else:
                await connection.execute(migration.sql)
                await connection.execute("INSERT INTO schema_migrations (version) VALUES ($1)", migration.version)
        except asyncpg.LockNotAvailableError:
            if attempt == _LOCK_TRIES:
                raise
            await asyncio.sleep(_LOCK_PAUSE_SECONDS)
        else:
            return
