"""One database and one role per service, made where they are missing, and migrated."""

import subprocess

from deploy.local.errors import Refused
from deploy.local.log_files import last_words
from deploy.local.programs import OWNERS, System, connection_limit, database_of
from deploy.local.settings import REPOSITORY

SECONDS = 120


def bring_up_to_date(system: System) -> None:
    """Refused with the reason when it fails or takes too long."""
    packages = [database_of(owner) for owner in OWNERS]
    variables = {**system.base_environment(), "OWNER_DATABASE_URL": system.postgresql.dsn()}
    for owner, package in zip(OWNERS, packages, strict=True):
        variables[f"{package.upper()}_DATABASE_URL"] = system.database_url(owner)
        variables[f"{package.upper()}_CONNECTION_LIMIT"] = str(connection_limit(owner))
    log = system.settings.logs / "databases.log"
    words = [str(system.environment.python), "-m", "chassis.provisioning", *packages]
    with log.open("ab") as output:
        try:
            done = subprocess.run(
                words, cwd=REPOSITORY, env=variables, stdout=output, stderr=output, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise Refused(f"bringing the databases up to date took more than {SECONDS} s: see {log}") from None
    if done.returncode != 0:
        raise Refused(f"bringing the databases up to date failed ({last_words(log)})")
