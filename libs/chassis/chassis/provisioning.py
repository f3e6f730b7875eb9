"""Databases and roles, made where they are missing, then migrated. Roles own nothing: the server's owner owns and migrates.

`python -m chassis.provisioning auth leads` reads OWNER_DATABASE_URL, and for each package its LEADS_DATABASE_URL (whose database,
role and password are made so) and LEADS_CONNECTION_LIMIT (how many connections the role may have). Two at once: the second waits.
"""

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import asyncpg

from chassis.migrations import migrate

_LOCK = 727_000
_SERVER_SECONDS = 10
_SPARE_CONNECTIONS = 10
"""For people who look, and for what keeps the server."""


class ProvisioningRefused(Exception):
    """One line that says what to do."""


@dataclass(frozen=True)
class Service:
    """A package's database as its processes use it."""

    package: str
    database: str
    role: str
    password: str
    connection_limit: int

    @classmethod
    def of(cls, package: str, environment: Mapping[str, str]) -> "Service":
        """Refused when a variable is missing or makes no sense."""
        prefix = package.upper()
        try:
            parts = urlsplit(environment[f"{prefix}_DATABASE_URL"])
            limit = int(environment[f"{prefix}_CONNECTION_LIMIT"])
        except KeyError as error:
            raise ProvisioningRefused(f"set {error.args[0]}") from error
        except ValueError as error:
            raise ProvisioningRefused(f"{prefix}_CONNECTION_LIMIT must be a number") from error
        database, role, password = parts.path.lstrip("/"), parts.username, parts.password
        if not (database and role and password):
            raise ProvisioningRefused(f"{prefix}_DATABASE_URL must name a role, its password and a database")
        return cls(package, database, unquote(role), unquote(password), limit)


async def provision(owner_dsn: str, services: list[Service]) -> None:
    """Make what is missing, set passwords and limits, migrate. Refused when the server has too few connections for the limits."""
    connection = await asyncpg.connect(owner_dsn, timeout=_SERVER_SECONDS)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        for service in services:
            await _make(connection, service)
        await _check_connections(connection)
    finally:
        await connection.close()
    for service in services:
        dsn = urlsplit(owner_dsn)._replace(path=f"/{service.database}").geturl()
        await migrate(dsn, service.package, role=service.role)


async def _make(connection: "asyncpg.Connection[asyncpg.Record]", service: Service) -> None:
    role, database = _quoted(service.role), _quoted(service.database)
    if await connection.fetchrow("SELECT FROM pg_roles WHERE rolname = $1", service.role) is None:
        await connection.execute(f"CREATE ROLE {role}")
    password = await connection.fetchval("SELECT quote_literal($1::text)", service.password)
    await connection.execute(
        f"ALTER ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE"
        f" CONNECTION LIMIT {service.connection_limit} PASSWORD {password}"
    )
    if await connection.fetchrow("SELECT FROM pg_database WHERE datname = $1", service.database) is None:
        await connection.execute(f"CREATE DATABASE {database}")
    await connection.execute(f"REVOKE ALL ON DATABASE {database} FROM PUBLIC")
    await connection.execute(f"GRANT CONNECT ON DATABASE {database} TO {role}")


async def _check_connections(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    wanted = await connection.fetchval("SELECT sum(rolconnlimit) FROM pg_roles WHERE rolconnlimit > 0")
    there = int(await connection.fetchval("SHOW max_connections"))
    if wanted + _SPARE_CONNECTIONS > there:
        raise ProvisioningRefused(
            f"the services may open {wanted} connections, the server takes {there}: raise its max_connections to"
            f" {wanted + _SPARE_CONNECTIONS}, or allow fewer replicas"
        )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def main() -> int:
    if len(sys.argv) < 2:
        sys.stderr.write("usage: python -m chassis.provisioning PACKAGE...\n")
        return 2
    try:
        owner_dsn = os.environ.get("OWNER_DATABASE_URL")
        if not owner_dsn:
            raise ProvisioningRefused("set OWNER_DATABASE_URL to the connection of the server's owner")
        services = [Service.of(package, os.environ) for package in sys.argv[1:]]
        asyncio.run(provision(owner_dsn, services))
    except (ProvisioningRefused, OSError, asyncpg.PostgresError) as error:
        sys.stderr.write(f"{error or type(error).__name__}\n")
        return 1
    sys.stdout.write(f"databases are up to date: {', '.join(service.package for service in services)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
