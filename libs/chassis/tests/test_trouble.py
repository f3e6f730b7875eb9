"""What is the database's trouble is waited out; what is the work's own fault is not."""

import asyncpg
import pytest

from chassis.errors import Conflict, Unavailable
from chassis.trouble import CommitUnknown, is_connection_lost, is_database_trouble


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("all connections are in use"),
        CommitUnknown("lost during COMMIT"),
        ConnectionRefusedError(),
        TimeoutError(),
        asyncpg.AdminShutdownError("shutdown"),
        asyncpg.DeadlockDetectedError("deadlock"),
        asyncpg.ObjectNotInPrerequisiteStateError("takes no connections now"),
        asyncpg.InterfaceError("connection is closed"),
    ],
)
def test_trouble_of_the_database_is_told_apart(error: Exception) -> None:
    assert is_database_trouble(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError(),
        Conflict("there is one"),
        asyncpg.UniqueViolationError("twice"),
        asyncpg.UndefinedTableError("no such table"),
        asyncpg.InterfaceError("the server expects 2 arguments"),
    ],
)
def test_the_works_own_fault_is_told_apart(error: Exception) -> None:
    assert not is_database_trouble(error)


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (asyncpg.ConnectionDoesNotExistError("gone"), True),
        (asyncpg.InternalClientError("cannot switch to state 11; another operation (2) is in progress"), True),
        (asyncpg.InterfaceError("connection has been released back to the pool"), True),
        (asyncpg.QueryCanceledError("statement timeout"), False),
        (Unavailable("all connections are in use"), False),
        (asyncpg.UniqueViolationError("twice"), False),
    ],
)
def test_a_lost_session_is_told_apart(error: Exception, lost: bool) -> None:
    assert is_connection_lost(error) is lost
