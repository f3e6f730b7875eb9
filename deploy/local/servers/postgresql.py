"""A private PostgreSQL. Root may not run it, so root hands it to the account `postgres` that its package made."""

import os
import pwd
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from deploy.local.servers.launch import (
    Command,
    ServerFailed,
    base_environment,
    private_file,
    private_folder,
    shared_settings,
)

SUPERUSER = "ao_owner"
ACCOUNT = "postgres"
INSTALLED = Path("/usr/lib/postgresql")

SETTINGS = """\
# Written at every start; changes here are lost.
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
max_connections = {max_connections}
superuser_reserved_connections = 5
"""

ACCESS = """\
# type  database  user  address       method
host    all       all   127.0.0.1/32  scram-sha-256
"""


def program_folder() -> Path | None:
    """The `bin` of the newest PostgreSQL server installed by Debian's packages, or None."""
    versions = [
        path for path in INSTALLED.glob("*") if re.fullmatch(r"\d+", path.name) and (path / "bin/postgres").exists()
    ]
    return max(versions, key=lambda path: int(path.name)) / "bin" if versions else None


def as_account() -> tuple[str, ...]:
    """The words before a command that must not run as root: none for an ordinary user.

    The account keeps one capability of root's, to walk through folders that only root may enter (a state folder below
    /root): the alternative would be to open those folders to everybody.
    """
    if os.geteuid() != 0:
        return ()
    return (
        "setpriv",
        f"--reuid={ACCOUNT}",
        f"--regid={ACCOUNT}",
        "--init-groups",
        "--inh-caps=+dac_override",
        "--ambient-caps=+dac_override",
    )


@dataclass(frozen=True)
class PostgreSQL:
    """One cluster. `password` is that of its superuser; databases and roles are made by those who use it."""

    folder: Path
    port: int
    password: str
    max_connections: int = 120

    name = "postgresql"
    stop_signal = signal.SIGINT  # "fast": ends sessions, checkpoints, leaves

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def dsn(self, database: str = "postgres") -> str:
        """The superuser's connection string."""
        return f"postgresql://{SUPERUSER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def prepare(self) -> None:
        private_folder(self.folder)
        if not (self.data / "PG_VERSION").exists():
            self._create_cluster()
        settings = SETTINGS.format(port=self.port, max_connections=self.max_connections) + shared_settings("postgresql")
        for name, text in (("postgresql.auto.conf", ""), ("postgresql.conf", settings), ("pg_hba.conf", ACCESS)):
            private_file(self.data / name, text)
            self._give(self.data / name)

    def command(self) -> Command:
        version = (self.data / "PG_VERSION").read_text().strip()
        program = INSTALLED / version / "bin/postgres"
        if not program.exists():
            raise ServerFailed(f"the data in {self.data} needs PostgreSQL {version}: install postgresql-{version}")
        return Command((*as_account(), str(program), "-D", str(self.data)), self.data, base_environment(self.folder))

    def is_ready(self) -> bool:
        words = (str(self._programs() / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port))
        return subprocess.run(words, env=base_environment(self.folder), check=False).returncode == 0

    def _programs(self) -> Path:
        programs = program_folder()
        if programs is None:
            raise ServerFailed(f"no PostgreSQL server below {INSTALLED}: install the package postgresql")
        return programs

    def _create_cluster(self) -> None:
        """Makes the data folder beside its place and moves it there whole: a half-made one is never used."""
        draft = self.folder / "data.new"
        shutil.rmtree(draft, ignore_errors=True)
        secret = self.folder / "superuser.password"
        private_file(secret, self.password + "\n")
        draft.mkdir(mode=0o700)
        self._give(draft)
        words = [*as_account(), str(self._programs() / "initdb"), "-D", str(draft), f"--username={SUPERUSER}"]
        words += ["--auth=scram-sha-256", f"--pwfile={secret}", "--encoding=UTF8", "--locale=C.UTF-8"]
        try:
            done = subprocess.run(
                words, cwd=draft, env=base_environment(self.folder), capture_output=True, text=True, check=False
            )
        finally:
            secret.unlink()
        if done.returncode != 0:
            raise ServerFailed(f"initdb failed: {(done.stderr or done.stdout).strip()}")
        draft.rename(self.data)

    @staticmethod
    def _give(path: Path) -> None:
        if os.geteuid() == 0:
            account = pwd.getpwnam(ACCOUNT)
            os.chown(path, account.pw_uid, account.pw_gid)
