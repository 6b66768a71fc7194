"""Everything `PostgresJournal` knows about asyncpg: how to connect, and what its errors mean.

No other module imports asyncpg while the program runs. Without the package, importing this module
raises `MissingExtra`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from returns_pipeline.errors import (
    ArgumentsNotRecordable,
    JournalCorrupt,
    JournalError,
    JournalUnavailable,
    MissingExtra,
)

try:
    import asyncpg
except ImportError as _error:
    raise MissingExtra("postgres", "asyncpg") from _error

if TYPE_CHECKING:
    from asyncpg import Connection, Record

__all__ = [
    "FAILURES",
    "ReadOnlyServer",
    "connect",
    "connection_lost",
    "ends",
    "explain",
    "is_answer",
    "passes",
    "spares_others",
    "swapped",
]

# What a call of asyncpg may raise that is not the caller's mistake. The last one, in spite of its
# name, is raised when the server closed the connection properly.
FAILURES: Final = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)

# Errors by SQLSTATE, or by the first characters of one.
# The connection has ended: a broken connection (08), a server that stops or starts (57P).
_LOST: Final = ("08", "57P")
# Another connection may succeed. Besides the above: no connection was free (53300), or the server
# is read-only (25006), because it has become a standby; the name may soon lead to another server.
_ENDS: Final = (*_LOST, "53300", "25006")
# A conflict of two transactions: another attempt may succeed.
_CONFLICTS: Final = ("40001", "40P01")
# Errors in the data of one request, not of the server or of a whole table.
_OF_ONE_REQUEST: Final = ("0A", "21", "22", "23", "54", "P0", "XX")
# Damaged pages; missing tables or functions.
_CORRUPT: Final = ("XX001", "XX002", "42P01", "42703", "42883", "3F000")
# The encoding of the database has no such character, or none at all beyond ASCII.
_NOT_ENCODABLE: Final = ("22P05", "22021", "0A000")
# A session answered that was not set up by this connection. ``apply`` raises RP001; the other two
# mean that the session has other prepared statements.
_SWAPPED: Final = ("RP001", "26000", "42P05")


class ReadOnlyServer(OSError):
    """No server of the address accepts writes: each is a standby, or set to read-only."""


async def connect(
    dsn: str,
    *,
    password: str | None,
    timeout: float,
    cached_statements: int,
) -> Connection[Record]:
    """Make a connection.

    Raises:
        ValueError: The address cannot be read.
        OverflowError: The address cannot be read, either.
        Exception: Any of `FAILURES`.
    """
    try:
        connection: Connection[Record] = await asyncpg.connect(
            dsn,
            password=password,
            timeout=timeout,
            statement_cache_size=cached_statements,
            max_cached_statement_lifetime=0,  # otherwise each statement has a timer
        )
    except asyncpg.TargetServerAttributeNotMatched as error:
        raise ReadOnlyServer("the server is read-only, or a standby") from error
    return connection


def connection_lost() -> Exception:
    """Return the error of a request whose connection has ended."""
    return asyncpg.InterfaceError("the connection was lost")


def _state(error: BaseException) -> str:
    state: object = getattr(error, "sqlstate", None)
    return state if isinstance(state, str) else ""


def passes(error: Exception) -> bool:
    """Return whether another attempt, perhaps with another connection, may succeed."""
    if isinstance(error, asyncpg.PostgresError):
        return _state(error).startswith((*_ENDS, *_CONFLICTS))
    return not isinstance(error, JournalError | ValueError)


def ends(error: Exception) -> bool:
    """Return whether an error means that another connection is needed.

    If not, the session is kept, and with it the lock that shows that the owner is alive.
    """
    return passes(error) and not _state(error).startswith(_CONFLICTS)


def is_answer(error: Exception) -> bool:
    """Return whether an error is the server's answer: then nothing was done."""
    return isinstance(error, asyncpg.PostgresError) and not _state(error).startswith(_LOST)


def spares_others(error: Exception) -> bool:
    """Return whether an error may concern only one request of a batch."""
    return _state(error).startswith(_OF_ONE_REQUEST)


def swapped(name: str) -> JournalUnavailable:
    """Return the error of a journal that cannot rely on its session."""
    reason = "a pooler before the server changes sessions: use liveness='lease'"
    return JournalUnavailable(name, reason)


def explain(error: Exception, name: str) -> JournalError:
    """Return the `JournalError` for an error of the driver or the server."""
    if isinstance(error, JournalError):
        return error
    state = _state(error)
    made: JournalError
    if state.startswith(_SWAPPED):
        made = swapped(name)
    elif state.startswith(_NOT_ENCODABLE):
        made = ArgumentsNotRecordable(name, str(error))
    elif state.startswith(_CORRUPT):
        made = JournalCorrupt(name, str(error))
    else:
        made = JournalUnavailable(name, str(error) or repr(error))
    made.__cause__ = error
    return made
