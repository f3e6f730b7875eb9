"""One SQLite file that outlives the process: what was committed is still there after a SIGKILL."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FILE_NAME = "simulators.sqlite3"

Row = sqlite3.Row


class Storage:
    """The simulators' database. All of them run on one event loop, so one connection and no locking is enough."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(directory / FILE_NAME, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")  # enough against SIGKILL; power loss may cost the last
        self._connection.executescript((Path(__file__).parent / "schema.sql").read_text())

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        """Run one statement; its rows read by column name."""
        return self._connection.execute(sql, parameters)

    def one(self, sql: str, *parameters: Any) -> Row | None:
        row: Row | None = self._connection.execute(sql, parameters).fetchone()
        return row

    def all(self, sql: str, *parameters: Any) -> list[Row]:
        return self._connection.execute(sql, parameters).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing: commits at the end, rolls back when the block raises."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """The same for a part of a transaction."""
        self._connection.execute("SAVEPOINT part")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK TO part")
            raise
        finally:
            self._connection.execute("RELEASE part")

    def close(self) -> None:
        self._connection.close()
