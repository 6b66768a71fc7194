"""The statements of `SqliteJournal`: what its thread does in the file.

Every saga has an owner and an epoch, which goes up with each change of the owner. Who writes to a
saga must be its owner in the epoch that it knows; and whoever finds an owner dead strikes it off,
so that one which was taken for dead finds out with its next transaction, whatever that is about.
"""

from __future__ import annotations

import contextlib
import heapq
import math
import random
import re
import shutil
import sqlite3
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from returns_pipeline.compensation.protocol import StoredAction, StoredSaga
from returns_pipeline.errors import JournalCorrupt, JournalError, JournalUnavailable, LeaseLost
from returns_pipeline.journal.sqlite import _open_files as open_files
from returns_pipeline.journal.sqlite import _owner_locks as owners

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from returns_pipeline.compensation.protocol import Intent
    from returns_pipeline.journal.sqlite._open_files import FileId

__all__ = ["TIDY_AT_ONCE", "TIDY_EVERY", "SagaUnreadable", "SqliteStore", "inspect"]

_VERSION: Final = 1
_SCHEMA: Final = f"""
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
    epoch INTEGER NOT NULL
) STRICT;
CREATE TABLE action (
    id TEXT PRIMARY KEY,
    saga TEXT NOT NULL,
    place TEXT NOT NULL,
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
CREATE INDEX saga_of_owner ON saga (owner);
CREATE INDEX action_of_saga ON action (saga, place);
CREATE INDEX ended_action ON action (ended) WHERE ended IS NOT NULL;
PRAGMA user_version = {_VERSION};
"""
_COLUMNS: Final = (
    "id, place, path, key, name, version, arguments, state, attempts, next_attempt, error"
)
# Seconds between two attempts to get a lock; of various lengths, or those of two processes meet.
_PAUSE: Final = (0.0005, 0.0015)
_OWNER: Final = re.compile("[0-9a-f]{32}")
# STRICT tables came with 3.37.
_OLDEST: Final = (3, 37, 0)

# Seconds between two looks for what can be tidied away, and how much is at a time.
TIDY_EVERY = 60.0
TIDY_AT_ONCE = 500


class SagaUnreadable(JournalCorrupt):
    """A saga stands on a damaged page. Nothing more can be written in the same transaction."""


class SqliteStore:
    """One process's part in the file. All of it but the constructor runs in the one thread.

    Args:
        path: The file, absolute.
        retention: Seconds that an action which was undone stays.
        patience: Seconds to wait for another process that writes.
    """

    def __init__(self, path: Path, *, retention: float, patience: float) -> None:
        self._path = path
        self._real = path  # without symbolic links, once it is open
        self._retention = retention
        self._patience = patience
        self._owner = ""  # a new one each time it is opened
        self._file: FileId | None = None  # which one is open, whatever has its name
        # Sagas that were opened here and the epoch of each. They stay when the journal is closed:
        # their scopes shall learn that the lease is lost.
        self._sagas: dict[str, int] = {}
        self._back: list[Callable[[], object]] = []  # takes back what this transaction has changed
        self._checked: set[str] = set()  # sagas whose lease this transaction has seen
        self._is_named: bool | None = None  # the file, once this transaction has looked
        self._next_tidy = -math.inf
        self._unreadable: set[str] = set()  # sagas that a claim has found to be so
        self.abandoned: set[str] = set()  # claimed here, and to be claimed again by whoever comes

    def __str__(self) -> str:
        return str(self._path)

    # For the thread.

    def open(self) -> sqlite3.Connection:
        """Open the file, make its tables, and take the lock of a new owner."""
        if sqlite3.sqlite_version_info < _OLDEST:
            raise JournalUnavailable(str(self), f"SQLite {sqlite3.sqlite_version} is too old")
        # Owners are known by files beside the file itself, whatever link it is opened by.
        self._real = self._path.resolve()
        db = sqlite3.connect(
            self._real, timeout=self._patience, isolation_level=None, check_same_thread=False
        )
        # At once: it may be replaced while we wait for others.
        self._file = open_files.opened(self._real)
        db.text_factory = _readable
        self._owner = uuid4().hex
        self.abandoned.clear()  # by the one before, which is no longer there
        try:
            open_files.take_part(self._real)
            _ = db.execute("BEGIN")  # one state of the file: another process may be making it
            _ = _version(db, str(self))
            _ = db.execute("COMMIT")
            _ = db.execute("PRAGMA busy_timeout = 0")  # see `_patiently`
            self._use_wal(db)
            _ = db.execute("PRAGMA synchronous = FULL")
            self.lock(db)
            if not _version(db, str(self)):  # another process may have been quicker
                for statement in _SCHEMA.split(";\n")[:-1]:
                    _ = db.execute(statement)
            self._remove_strays(db)
            owners.take(self._lock(self._owner))
            _ = db.execute("INSERT INTO owner VALUES (?, ?)", (self._owner, time.time()))
            _ = db.execute("COMMIT")
        except BaseException:
            db.close()
            self.closed()
            raise
        return db

    def _use_wal(self, db: sqlite3.Connection) -> None:
        (mode,) = self._patiently(db, "PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise JournalUnavailable(str(self), f"no write-ahead log here, but {mode!r}")

    def lock(self, db: sqlite3.Connection) -> None:
        """Begin a transaction that writes, when no other process is in one."""
        _ = self._patiently(db, "BEGIN IMMEDIATE")

    def _patiently(self, db: sqlite3.Connection, statement: str) -> sqlite3.Cursor:
        """Ask for a lock until it is given or the patience is at an end.

        Not with SQLite's own timeout. It asks ten times a second in the end: beside a process that
        writes without a pause, when the lock is free for a moment only, it never meets one. And
        it does not hold for the first change of the mode, which reads before it writes and is
        refused at once while another process makes the same file.
        """
        until = time.monotonic() + self._patience
        while True:
            try:
                return db.execute(statement)
            except sqlite3.OperationalError as error:
                if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                    raise
            time.sleep(random.uniform(*_PAUSE))  # noqa: S311

    def closed(self) -> None:
        """Give the lock back."""
        open_files.was_closed(self._file)
        self._file = None
        owners.give_back(self._lock(self._owner))

    def begin(self, db: sqlite3.Connection) -> None:
        """Refuse to write if this process was taken for dead."""
        self._back.clear()
        self._checked.clear()
        self._is_named = None
        if not db.execute("SELECT 1 FROM owner WHERE id = ?", (self._owner,)).fetchone():
            raise LeaseLost(str(self), "this process was taken for dead by another")

    def position(self) -> int:
        """Say how much this transaction has changed in memory."""
        return len(self._back)

    def take_back(self, to: int) -> None:
        """Take back in memory what was changed since."""
        while len(self._back) > to:
            _ = self._back.pop()()
        self._checked.clear()

    def _keep(self, saga: str, epoch: int) -> None:
        self._back.append(partial(self._set, saga, self._sagas.get(saga)))
        self._sagas[saga] = epoch
        self._checked.add(saga)

    def _drop(self, saga: str) -> None:
        self._back.append(partial(self._set, saga, self._sagas.pop(saga, None)))
        self._checked.discard(saga)

    def _set(self, saga: str, epoch: int | None) -> None:
        if epoch is None:
            _ = self._sagas.pop(saga, None)
        else:
            self._sagas[saga] = epoch

    def explain(self, error: Exception) -> JournalError:
        """Say what an error means for the caller."""
        return explained(error, str(self))

    def leave(self, db: sqlite3.Connection) -> None:
        """Give up what is open, and strike this owner off."""
        settled = db.execute(
            "SELECT id FROM saga WHERE owner = ? AND NOT EXISTS "
            "(SELECT 1 FROM action WHERE saga = saga.id AND state = 'pending')",
            (self._owner,),
        )
        for (saga,) in settled.fetchall():
            self._drop(saga)  # a scope that uses it again finds it taken over, or begins it anew
        _ = db.execute(
            "UPDATE saga SET owner = '', epoch = epoch + 1 WHERE owner = ?", (self._owner,)
        )
        _ = db.execute("DELETE FROM owner WHERE id = ?", (self._owner,))

    # For scopes.

    def insert(self, intent: Intent, arguments: str, db: sqlite3.Connection) -> None:
        """Put an action on record, and its saga, if it is the first of it.

        Not in a file that has lost its name: it can be written to, and nobody will ever read it.
        What is on record there can still be undone by this process.
        """
        if self._is_named is None:
            named = open_files.file_at(self._path)
            self._is_named = named is not None and named == self._file
        if not self._is_named:
            raise JournalUnavailable(str(self), "its file was removed or replaced")
        saga = intent.saga
        if saga not in self._sagas:
            self._open_saga(db, saga, intent.saga_name)
        inserted = db.execute(
            # The lease is checked by the same statement: a second one costs half as much again.
            "INSERT INTO action (id, saga, place, path, key, name, version, arguments, state) "
            "SELECT ?, ?, ?, ?, ?, ?, ?, ?, 'pending' "
            "WHERE EXISTS (SELECT 1 FROM saga WHERE id = ? AND owner = ? AND epoch = ?)",
            (
                intent.id,
                saga,
                intent.position,
                _writable(intent.path),
                intent.key,
                intent.undo.name,
                intent.undo.version,
                arguments,
                saga,
                self._owner,
                self._sagas[saga],
            ),
        )
        if inserted.rowcount != 1:
            raise self._taken_over(saga)

    def _open_saga(self, db: sqlite3.Connection, saga: str, name: str) -> None:
        try:
            _ = db.execute(
                "INSERT INTO saga (id, name, began, owner, epoch) VALUES (?, ?, ?, ?, 1)",
                (saga, _writable(name), time.time(), self._owner),
            )
        except sqlite3.IntegrityError as error:
            raise LeaseLost(str(self), f"saga {saga} was taken over") from error
        self._keep(saga, 1)

    def delete(self, ids: list[str], db: sqlite3.Connection) -> None:
        """Commit actions: they and sagas that have no others are gone."""
        for saga in self._each(db, "DELETE FROM action WHERE id IN ({})", (), ids):
            self._drop_if_empty(db, saga)

    def move(
        self, ids: list[str], saga: str, name: str, prefix: str, db: sqlite3.Connection
    ) -> None:
        """Put actions into another saga, which may be new."""
        if saga not in self._sagas:
            self._open_saga(db, saga, name)
        self._check_lease(db, saga)
        old: set[str] = set()
        for part in _parts(ids):
            found = f"SELECT DISTINCT saga FROM action WHERE id IN ({_marks(part)})"
            old.update(row[0] for row in db.execute(found, part))
        what = "UPDATE action SET saga = ?, place = ? || place WHERE id IN ({})"
        _ = self._each(db, what, (saga, prefix), ids)
        for emptied in old - {saga}:
            self._drop_if_empty(db, emptied)

    def change(
        self, action: str, what: str, values: tuple[object, ...], db: sqlite3.Connection
    ) -> None:
        """Change a few columns of an action."""
        statement = f"UPDATE action SET {what} WHERE id IN ({{}})"
        for saga in self._each(db, statement, values, [action]):
            self._check_lease(db, saga)

    def _each(
        self, db: sqlite3.Connection, what: str, values: tuple[object, ...], ids: list[str]
    ) -> set[str]:
        """Carry a statement out on actions; give the sagas that they are in behind it."""
        found: list[str] = []
        for part in _parts(ids):
            statement = f"{what.format(_marks(part))} RETURNING saga"
            found += [row[0] for row in db.execute(statement, (*values, *part))]
        if len(found) != len(ids):
            raise LeaseLost(str(self), "actions are gone: another process took them over")
        return set(found)

    def _check_lease(self, db: sqlite3.Connection, saga: str) -> None:
        if saga in self._checked:
            return
        row = db.execute("SELECT owner, epoch FROM saga WHERE id = ?", (saga,)).fetchone()
        if row != (self._owner, self._sagas.get(saga)):
            raise self._taken_over(saga)
        self._checked.add(saga)

    def _taken_over(self, saga: str) -> LeaseLost:
        return LeaseLost(str(self), f"saga {saga} was taken over by another process")

    def _drop_if_empty(self, db: sqlite3.Connection, saga: str) -> None:
        dropped = db.execute(
            "DELETE FROM saga WHERE id = ? AND owner = ? AND epoch = ? "
            "AND NOT EXISTS (SELECT 1 FROM action WHERE saga = ?)",
            (saga, self._owner, self._sagas.get(saga), saga),
        )
        if dropped.rowcount:
            self._drop(saga)
        else:
            self._check_lease(db, saga)

    # For recovery.

    def claim(self, besides: frozenset[str], db: sqlite3.Connection) -> StoredSaga | None:
        """Take over the newest saga of the dead that has something to do.

        Raises:
            SagaUnreadable: One was in the way. Asking again passes it over.
            JournalCorrupt: Only such are left.
        """
        dead = [
            owner
            for (owner,) in db.execute("SELECT DISTINCT owner FROM saga").fetchall()
            if (owner == self._owner and self.abandoned) or not self._lives(owner)
        ]
        found: StoredSaga | None = None
        for number, saga, name, began, owner, epoch in self._of(db, dead):
            if (
                saga in besides
                or saga in self._unreadable
                or (owner == self._owner and saga not in self.abandoned)
            ):
                continue
            try:
                actions = _actions(db, saga)
            except sqlite3.DatabaseError as error:
                if not isinstance(self.explain(error), JournalCorrupt):
                    raise
                self._unreadable.add(saga)
                raise SagaUnreadable(str(self), f"saga {saga} cannot be read") from error
            if not any(action.state in {"pending", "deferred"} for action in actions):
                continue
            if saga in self._sagas and saga not in self.abandoned:
                saga, actions = self._renamed(db, saga)  # noqa: PLW2901
            _ = db.execute(
                "UPDATE saga SET owner = ?, epoch = ? WHERE number = ?",
                (self._owner, epoch + 1, number),
            )
            self._strike_off(db, owner)
            self._keep(saga, epoch + 1)
            if saga in self.abandoned:
                self.abandoned.discard(saga)
                self._back.append(partial(self.abandoned.add, saga))
            found = StoredSaga(saga, name, began, self._owner, True, actions)
            break
        if found is None and self._unreadable:
            names = ", ".join(sorted(self._unreadable))
            self._unreadable.clear()
            raise JournalCorrupt(str(self), f"sagas cannot be read: {names}")
        if found is None:
            self.tidy(db)
        return found

    def _renamed(self, db: sqlite3.Connection, saga: str) -> tuple[str, tuple[StoredAction, ...]]:
        """Give a saga, and its actions, other names.

        By the old ones a scope of this process may still have it, from before the journal was
        closed: what is the recovery's from now on must not be the scope's again.
        """
        new = uuid4().hex
        _ = db.execute("UPDATE saga SET id = ? WHERE id = ?", (new, saga))
        what = "UPDATE action SET saga = ?, id = id || ? WHERE saga = ?"
        _ = db.execute(what, (new, f".{new}", saga))
        return new, _actions(db, new)

    def _of(
        self, db: sqlite3.Connection, dead: list[str]
    ) -> Iterator[tuple[int, str, str, float, str, int]]:
        """Give the sagas of these owners, the newest first, no more of them than are asked for."""
        statement = (
            "SELECT number, id, name, began, owner, epoch FROM saga WHERE owner = ? "
            "ORDER BY number DESC"
        )
        return heapq.merge(*(db.execute(statement, (owner,)) for owner in dead), reverse=True)

    def _strike_off(self, db: sqlite3.Connection, owner: str) -> None:
        if owner not in {"", self._owner}:
            _ = db.execute("DELETE FROM owner WHERE id = ?", (owner,))
            owners.remove(self._lock(owner))

    def release(self, saga: str, db: sqlite3.Connection) -> None:
        """Let go of a saga: whoever comes may claim it."""
        self._check_lease(db, saga)
        _ = db.execute("UPDATE saga SET owner = '', epoch = epoch + 1 WHERE id = ?", (saga,))
        self._drop(saga)

    # For people.

    def retry(self, saga: str, db: sqlite3.Connection) -> int:
        """Let actions that were given up be tried again: see `SqliteJournal.retry`."""
        alive, states = self._given_up(db, saga)
        into = uuid4().hex if alive else saga
        count = db.execute(
            "UPDATE action SET state = 'pending', attempts = 0, next_attempt = 0, saga = ? "
            f"WHERE saga = ? AND state IN ({states})",
            (into, saga),
        ).rowcount
        if alive and count:
            _ = db.execute(
                "INSERT INTO saga (id, name, began, owner, epoch) "
                "SELECT ?, name, began, '', 1 FROM saga WHERE id = ?",
                (into, saga),
            )
        return count

    def discard(self, saga: str, reason: str, db: sqlite3.Connection) -> int:
        """Never try actions that were given up again: see `SqliteJournal.discard`."""
        _, states = self._given_up(db, saga)
        return db.execute(
            "UPDATE action SET state = 'done', error = ?, ended = ? "
            f"WHERE saga = ? AND state IN ({states})",
            (_writable(f"discarded: {reason}"), time.time(), saga),
        ).rowcount

    def _given_up(self, db: sqlite3.Connection, saga: str) -> tuple[bool, str]:
        """Say whether somebody has it open, and which states are then nobody's business.

        A recoverer that lives may be about to go on with what is deferred, or with what comes
        behind it; what is stuck it never touches again.
        """
        row = db.execute("SELECT owner FROM saga WHERE id = ?", (saga,)).fetchone()
        alive = row is not None and self._lives(row[0])
        return alive, "'stuck'" if alive else "'stuck', 'deferred'"

    # Housekeeping.

    def is_untidy(self, db: sqlite3.Connection) -> bool:
        """Say whether there is something to tidy away; look once in `TIDY_EVERY` seconds."""
        if time.monotonic() < self._next_tidy:
            return False
        self._next_tidy = time.monotonic() + TIDY_EVERY
        until = (time.time() - self._retention,)
        old = db.execute("SELECT 1 FROM action WHERE ended < ? LIMIT 1", until).fetchone()
        return old is not None or bool(self._empty(db) or self._dead_owners(db))

    def tidy(self, db: sqlite3.Connection) -> None:
        """Forget what was undone long ago, and dead owners that have nothing open any more."""
        old = db.execute(
            "DELETE FROM action WHERE id IN (SELECT id FROM action WHERE ended < ? LIMIT ?)",
            (time.time() - self._retention, TIDY_AT_ONCE),
        )
        for saga in self._empty(db):
            _ = db.execute("DELETE FROM saga WHERE id = ?", (saga,))
            self._drop(saga)
        for owner in self._dead_owners(db):
            self._strike_off(db, owner)
        if old.rowcount == TIDY_AT_ONCE:
            self._next_tidy = -math.inf  # there may be more

    def _empty(self, db: sqlite3.Connection) -> list[str]:
        """Find sagas without actions that no other process may still put some into."""
        found: list[str] = []
        for (owner,) in db.execute("SELECT DISTINCT owner FROM saga").fetchall():
            if owner == self._owner or not self._lives(owner):
                rows = db.execute(
                    "SELECT id FROM saga WHERE owner = ? "
                    "AND NOT EXISTS (SELECT 1 FROM action WHERE saga = saga.id) LIMIT ?",
                    (owner, TIDY_AT_ONCE - len(found)),
                )
                found += [saga for (saga,) in rows]
        return found

    def _dead_owners(self, db: sqlite3.Connection) -> list[str]:
        rows = db.execute(
            "SELECT id FROM owner WHERE NOT EXISTS (SELECT 1 FROM saga WHERE owner = owner.id) "
            "LIMIT ?",
            (TIDY_AT_ONCE,),
        )
        return [owner for (owner,) in rows.fetchall() if not self._lives(owner)]

    def _remove_strays(self, db: sqlite3.Connection) -> None:
        """Remove the locks of owners that died before they were on record, or after they left."""
        known = {owner for (owner,) in db.execute("SELECT id FROM owner")}
        prefix = self._lock("").name
        with contextlib.suppress(OSError):  # a directory that may not be listed
            for file in self._real.parent.iterdir():
                of_us, _, owner = file.name.rpartition("-")
                if f"{of_us}-" != prefix or not _OWNER.fullmatch(owner) or owner in known:
                    continue
                if not self._lives(owner):  # nor does one begin: it would be in a transaction
                    owners.remove(file)

    # Liveness.

    def _lock(self, owner: str) -> Path:
        return lock_of(self._real, owner)

    def _lives(self, owner: str) -> bool:
        return bool(owner) and owners.lives(self._lock(owner))


# Looking without touching.


def inspect(path: Path, patience: float) -> list[StoredSaga]:
    """List what is on record, the newest first, and change nothing.

    Raises:
        JournalUnavailable: There is no file, or it cannot be read.
        JournalCorrupt: It is no journal, or damaged.
    """
    if not path.is_file():
        raise JournalUnavailable(str(path), "there is no such file")
    try:
        real = path.resolve()  # its log and the locks of owners are beside that
        try:
            open_files.take_part(real)
        except OSError:  # SQLite would read an index that is not in use any more
            return _inspect_copy(real, patience)
        try:
            return _inspect(real, real, patience)
        except sqlite3.OperationalError as error:
            # A write-ahead log cannot be read where its index cannot be made.
            if _code(error) not in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}:
                raise
            # Nor may it be copied if it is open here: with the first descriptor of a file that
            # a process closes, it lets go of all locks on it (POSIX), those of SQLite too.
            if open_files.is_open(open_files.file_at(real)):
                raise
            return _inspect_copy(real, patience)
    except (sqlite3.Error, OSError) as error:
        raise explained(error, str(path)) from error


def _inspect_copy(path: Path, patience: float) -> list[StoredSaga]:
    """Read a copy: nobody writes here, or the index would be there."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / path.name
        for suffix in ("", "-wal"):
            source = path.with_name(path.name + suffix)
            with contextlib.suppress(FileNotFoundError):
                _ = shutil.copyfile(source, copy.with_name(copy.name + suffix))
        return _inspect(copy, path, patience)


def _inspect(file: Path, path: Path, patience: float) -> list[StoredSaga]:
    uri = f"{file.as_uri()}?mode=ro"
    with (
        contextlib.closing(
            sqlite3.connect(uri, uri=True, timeout=patience, isolation_level=None)
        ) as db,
        open_files.noted(file),
    ):
        db.text_factory = _readable
        _ = db.execute("BEGIN")  # one state of the file for all that is read
        if not _version(db, str(path)):
            return []  # its maker has died before the first request
        sagas = db.execute("SELECT id, name, began, owner FROM saga ORDER BY number DESC")
        alive: dict[str, bool] = {"": False}
        listed: list[StoredSaga] = []
        for saga, name, began, owner in sagas:
            if owner not in alive:
                alive[owner] = owners.lives(lock_of(path, owner))
            if actions := _actions(db, saga):
                listed.append(StoredSaga(saga, name, began, owner, alive[owner], actions))
        return listed


def lock_of(path: Path, owner: str) -> Path:
    """Give the file that an owner has locked."""
    return path.with_name(f"{path.name}-owner-{owner}")


def _version(db: sqlite3.Connection, journal: str) -> int:
    """Give the version of the tables, 0 if they are not there yet.

    Raises:
        JournalError: It is newer than this program, or the file is no journal.
    """
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > _VERSION:
        raise JournalError(journal, f"version {version} is newer than this program knows")
    known = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if not version and known:
        raise JournalCorrupt(journal, "it is a database of another program")
    if version and not known >= {"owner", "saga", "action"}:
        raise JournalCorrupt(journal, "tables are missing")
    return int(version)


def _actions(db: sqlite3.Connection, saga: str) -> tuple[StoredAction, ...]:
    rows = db.execute(f"SELECT {_COLUMNS} FROM action WHERE saga = ? ORDER BY place DESC", (saga,))
    return tuple(StoredAction(*row) for row in rows)


def explained(error: Exception, journal: str) -> JournalError:
    """Say what an error means for who asked."""
    if isinstance(error, JournalError):
        return error
    kind = JournalError
    if isinstance(error, sqlite3.Error | OSError):
        kind = JournalUnavailable
    if _code(error) in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        kind = JournalCorrupt
    made = kind(journal, str(error))
    made.__cause__ = error
    return made


def _code(error: Exception) -> int | None:
    """Give the primary code of an error of SQLite."""
    code = getattr(error, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else None


def _readable(text: bytes) -> str:
    """Read also what a hand or a broken disk has written."""
    return text.decode(errors="replace")


def _writable(text: str) -> str:
    """Show what cannot be written, such as half a surrogate pair, as an escape."""
    return text.encode(errors="backslashreplace").decode()


def _parts(ids: list[str]) -> list[list[str]]:
    return [ids[start : start + 500] for start in range(0, len(ids), 500)]


def _marks(part: list[str]) -> str:
    return ", ".join("?" * len(part))
