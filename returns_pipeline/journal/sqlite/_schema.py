"""The tables of a journal, how their rows are read, and what the errors of SQLite mean."""

from __future__ import annotations

import sqlite3
from typing import Final

from returns_pipeline.compensation.protocol import StoredAction
from returns_pipeline.errors import JournalCorrupt, JournalError, JournalUnavailable

__all__ = [
    "CREATE",
    "NOT_DONE",
    "NO_ACTIONS",
    "OLDEST_SQLITE",
    "OPEN",
    "actions_of",
    "explained",
    "placeholders",
    "primary_code",
    "readable",
    "version_of",
    "writable",
]

# STRICT tables came with 3.37, in November 2021.
OLDEST_SQLITE: Final = (3, 37, 0)
_VERSION: Final = 1

# The condition of open actions. Every statement uses this text: SQLite uses a partial index only
# for the condition with which the index was created.
OPEN: Final = "state IN ('pending', 'deferred')"
_CLOSED: Final = "state IN ('stuck', 'done')"
_STUCK: Final = "state = 'stuck'"
# The ids of sagas of which not all actions are done, by partial indexes.
NOT_DONE: Final = (
    f"SELECT saga FROM action WHERE {OPEN} UNION SELECT saga FROM action WHERE {_STUCK}"
)
# Of a row of `saga`. No numbered parameters: Python 3.12.0 to 3.12.3 warns of them.
NO_ACTIONS: Final = (
    f"NOT EXISTS (SELECT 1 FROM action WHERE action.saga = saga.id AND {OPEN}) "
    f"AND NOT EXISTS (SELECT 1 FROM action WHERE action.saga = saga.id AND {_CLOSED})"
)

# Each action is in one of two partial indexes. So open actions are found without reading those that
# were ever undone, and yet an insert writes to one index only. The indexes have the state as well;
# otherwise SQLite would read the table for it.
CREATE: Final = f"""
CREATE TABLE owner (
    id TEXT PRIMARY KEY,
    since REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE saga (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    began REAL NOT NULL,
    owner TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    on_failure TEXT NOT NULL DEFAULT 'continue'
) STRICT;
CREATE TABLE action (
    id TEXT PRIMARY KEY,
    saga TEXT NOT NULL,
    position TEXT NOT NULL,
    path TEXT NOT NULL,
    key TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    arguments TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_attempt REAL NOT NULL DEFAULT 0,
    error TEXT NOT NULL DEFAULT '',
    ended REAL
) STRICT, WITHOUT ROWID;
CREATE TABLE taken_partition (
    source TEXT NOT NULL,
    partition TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    spans TEXT NOT NULL,
    PRIMARY KEY (source, partition)
) STRICT, WITHOUT ROWID;
CREATE INDEX open_action ON action (saga, position, state) WHERE {OPEN};
CREATE INDEX closed_action ON action (saga, position, state) WHERE {_CLOSED};
CREATE INDEX stuck_action ON action (saga) WHERE {_STUCK};
CREATE INDEX ended_action ON action (ended) WHERE ended IS NOT NULL;
PRAGMA user_version = {_VERSION};
"""
_COLUMNS: Final = (
    "id, position, path, key, name, version, arguments, state, attempts, next_attempt, error"
)
_ACTIONS: Final = (
    f"SELECT {_COLUMNS} FROM action WHERE saga = ? AND {OPEN} UNION ALL "
    f"SELECT {_COLUMNS} FROM action WHERE saga = ? AND {_CLOSED} ORDER BY position DESC"
)


def version_of(db: sqlite3.Connection, journal: str) -> int:
    """Return the version of the tables, 0 if they do not exist yet.

    Raises:
        JournalError: The version is newer than this program, or the file is not a journal.
    """
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > _VERSION:
        raise JournalError(journal, f"version {version} is newer than this program knows")
    known = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if not version and known:
        raise JournalCorrupt(journal, "it is a database of another program")
    if version and not known >= {"owner", "saga", "action", "taken_partition"}:
        raise JournalCorrupt(journal, "tables are missing")
    return int(version)


def actions_of(db: sqlite3.Connection, saga: str) -> tuple[StoredAction, ...]:
    """Return the actions of a saga, the last registered first."""
    return tuple(StoredAction(*row) for row in db.execute(_ACTIONS, (saga, saga)))


def explained(error: Exception, journal: str) -> JournalError:
    """Return the `JournalError` for an error of SQLite or of the system."""
    if isinstance(error, JournalError):
        return error
    kind = JournalError
    if isinstance(error, sqlite3.Error | OSError):
        kind = JournalUnavailable
    if primary_code(error) in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        kind = JournalCorrupt
    made = kind(journal, str(error))
    made.__cause__ = error
    return made


def primary_code(error: Exception) -> int | None:
    """Return the primary code of an error of SQLite; ``None`` for another error."""
    code = getattr(error, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else None


def readable(text: bytes) -> str:
    """Decode a stored text, even one that a person or a broken disk has written."""
    return text.decode(errors="replace")


def writable(text: str) -> str:
    """Escape characters that UTF-8 cannot encode, such as half of a surrogate pair."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def placeholders(values: list[str]) -> str:
    """Return a question mark for each value, for ``IN (...)``."""
    return "?" if len(values) == 1 else ", ".join("?" * len(values))
