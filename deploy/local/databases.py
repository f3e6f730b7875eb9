"""One database and one role per service. Roles own nothing: the superuser owns the databases and migrates them."""

import subprocess

from deploy.local.errors import Refused
from deploy.local.log_files import last_words
from deploy.local.programs import OWNERS, System, connection_limit, database_of
from deploy.local.settings import REPOSITORY

MIGRATION_SECONDS = 120

STATEMENTS = """\
SELECT 'CREATE ROLE {name} LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{name}') \\gexec
ALTER ROLE {name} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE CONNECTION LIMIT {limit} PASSWORD '{password}';
SELECT 'CREATE DATABASE {name}' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{name}') \\gexec
REVOKE ALL ON DATABASE {name} FROM PUBLIC;
GRANT CONNECT ON DATABASE {name} TO {name};
"""


def create(system: System) -> None:
    """Makes the databases and roles that are missing; sets passwords and connection limits."""
    system.postgresql.run_sql(
        "".join(
            STATEMENTS.format(
                name=database_of(owner),
                limit=connection_limit(owner),
                password=system.secrets.password(f"database:{owner}"),
            )
            for owner in OWNERS
        )
    )


def migrate(system: System) -> None:
    """Brings every service's schema up to date, all at once. Refused with the log's place when one fails."""
    processes = []
    for owner in OWNERS:
        package = database_of(owner)
        variables = {
            **system.base_environment(),
            f"{package.upper()}_MIGRATION_DATABASE_URL": system.postgresql.dsn(package),
        }
        log = system.settings.logs / f"migrate-{owner}.log"
        with log.open("ab") as output:
            words = [str(system.environment.python), "-m", "chassis.migrations", package]
            process = subprocess.Popen(words, cwd=REPOSITORY, env=variables, stdout=output, stderr=output)
            processes.append((owner, log, process))
    for owner, log, process in processes:
        try:
            code = process.wait(MIGRATION_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise Refused(f"migrating {owner} took more than {MIGRATION_SECONDS} s: see {log}") from None
        if code != 0:
            raise Refused(f"migrating {owner} failed ({last_words(log)})")
