"""Which errors are the database's trouble (hold, try again) and which are the work's own fault."""

import asyncpg

from chassis.errors import Unavailable


class CommitUnknown(Exception):
    """The connection was lost while COMMIT was under way: the transaction may have happened."""


_TROUBLE: tuple[type[BaseException], ...] = (
    asyncpg.PostgresConnectionError,  # class 08
    asyncpg.InsufficientResourcesError,  # class 53: too many connections, disk full, out of memory
    asyncpg.OperatorInterventionError,  # class 57: shutdown, crash, cannot connect now, statement cancelled
    asyncpg.TransactionRollbackError,  # class 40: deadlock, serialization
    asyncpg.LockNotAvailableError,
    asyncpg.ObjectNotInPrerequisiteStateError,  # the database takes no connections now
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InternalClientError,
    asyncpg.ReadOnlySQLTransactionError,  # a demoted primary
    CommitUnknown,
    Unavailable,  # no connection within the limit
    ConnectionError,
    TimeoutError,
    OSError,
)


def is_database_trouble(error: BaseException) -> bool:
    """True if the same work may succeed later with nothing about it changed."""
    if isinstance(error, asyncpg.InterfaceError):
        # asyncpg reports a connection that closed under a statement, and a closing pool, as interface errors.
        return "clos" in str(error) or "released back to the pool" in str(error) or "in progress" in str(error)
    return isinstance(error, _TROUBLE)


def is_connection_lost(error: BaseException) -> bool:
    """True if the session is gone, so that a statement under way may or may not have been carried out."""
    if isinstance(error, asyncpg.InternalClientError):
        # A session that the server ended while it was idle: asyncpg still has the server's last word to read.
        return "another operation" in str(error) or "cannot switch to state" in str(error)
    if isinstance(error, asyncpg.InterfaceError):
        return "clos" in str(error) or "released back to the pool" in str(error)
    return isinstance(
        error,
        asyncpg.PostgresConnectionError
        | asyncpg.OperatorInterventionError
        | asyncpg.IdleInTransactionSessionTimeoutError
        | ConnectionError,
    ) and not isinstance(error, asyncpg.QueryCanceledError)
