"""What `PostgresJournal` needs to know of asyncpg: how to connect, and what its errors mean.

No other module imports asyncpg while the program runs. Without the package, importing this module
raises `MissingExtra`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from returns_pipeline.errors import (
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

__all__ = ["FAILURES", "connect", "connection_lost", "ends", "explain", "passes", "spares_others"]

# What a call of asyncpg may raise when it is not the caller's mistake.
# The last is not one of the bug it is named for: it is raised when the server said farewell.
FAILURES: Final = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)

# Errors by SQLSTATE, or the beginning of one.
# Another attempt may succeed: connections (08), the server's end and start (57P), no connection
# free, and transactions that were in each other's way.
_ENDS: Final = ("08", "57P", "53300")
_CONFLICTS: Final = ("40001", "40P01")
# The data's own, not those of the server or the whole table.
_OF_ONE_REQUEST: Final = ("21", "22", "23", "54", "P0", "XX")
# Damaged pages, and tables or functions that are not there.
_CORRUPT: Final = ("XX001", "XX002", "42P01", "42703", "42883", "3F000")


async def connect(
    address: str, *, timeout: float, cached_statements: int, settings: dict[str, str]
) -> Connection[Record]:
    """Make a connection.

    Raises:
        ValueError: The address makes no sense. (So may an `OverflowError`.)
        Exception: Any of `FAILURES`.
    """
    connection: Connection[Record] = await asyncpg.connect(
        address,
        timeout=timeout,
        statement_cache_size=cached_statements,
        max_cached_statement_lifetime=0,  # otherwise each statement has a timer
        server_settings=settings,
    )
    return connection


def connection_lost() -> Exception:
    """Return the error of a request whose connection is not there any more."""
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
    """Return whether an error is the connection's: it may have ended, and what was done is unknown.

    Otherwise it is the server's answer, and nothing was done. The session stays then, with the lock
    in it by which other processes know that its owner lives.
    """
    return passes(error) and not _state(error).startswith(_CONFLICTS)


def spares_others(error: Exception) -> bool:
    """Return whether an error may be of one request of a batch alone."""
    return _state(error).startswith(_OF_ONE_REQUEST)


def explain(error: Exception, name: str) -> JournalError:
    """Return what an error of the driver or the server means for the caller of a journal."""
    if isinstance(error, JournalError):
        return error
    kind = JournalCorrupt if _state(error).startswith(_CORRUPT) else JournalUnavailable
    made = kind(name, str(error) or repr(error))
    made.__cause__ = error
    return made
