"""How one process uses the file of a journal: opening it, transactions, and closing it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path
from uuid import uuid4

from returns_pipeline.compensation.protocol import Intent
from returns_pipeline.errors import JournalError, JournalUnavailable
from returns_pipeline.journal.sqlite import _forks as forks
from returns_pipeline.journal.sqlite._busy import patiently
from returns_pipeline.journal.sqlite._claims import Claims
from returns_pipeline.journal.sqlite._connection_locks import ConnectionLocks
from returns_pipeline.journal.sqlite._housekeeping import Housekeeping
from returns_pipeline.journal.sqlite._inspect import INHERITED
from returns_pipeline.journal.sqlite._leases import Leases
from returns_pipeline.journal.sqlite._ledger import Ledger
from returns_pipeline.journal.sqlite._owner_locks import OwnerLock, share_access
from returns_pipeline.journal.sqlite._schema import (
    CREATE,
    OLDEST_SQLITE,
    explained,
    readable,
    version_of,
)

__all__ = ["SqliteStore"]

# Bytes to which the log is truncated once all of it is in the file: after one burst it must not
# fill the disk forever.
_LOG_SIZE = 16 * 1024 * 1024


class SqliteStore:
    """The file that `GroupCommit` writes to. Only its thread calls the methods.

    States: *closed*, *open*, *in a transaction*. `open` and `lock` lead to the next one; `commit`
    or `roll_back`, and `close`, lead back.

    Args:
        path: The file, absolute.
        mode: Permissions of the file, if it is created here.
        retention: Seconds that an undone action stays listed.
        patience: Seconds to wait for another process that writes.

    Attributes:
        leases: The sagas that are owned here.
        ledger: The statements for scopes.
        claims: The statements for recovery and for people.
    """

    # Locks. Only the second is ever waited for, so they cannot deadlock.
    #
    #   1. `_locks.hold`: this process has the file open. From `open` to `close`, in addition to the
    #      same lock of SQLite: see `_connection_locks`.
    #   2. `_locks.try_to_write`, then SQLite's own (BEGIN IMMEDIATE): this process writes. From
    #      `lock` to the end of the transaction.
    #   3. `_owner_lock`: this owner is alive. From `open` to `close`. It is taken in the same
    #      transaction that inserts the owner, so no process sees an owner without its lock.

    def __init__(self, path: Path, *, mode: int, retention: float, patience: float) -> None:
        self._path = path
        self._mode = mode
        self._patience = patience
        self.leases = Leases(path)
        self.ledger = Ledger(self.leases)
        self.claims = Claims(self.leases)
        self._housekeeping = Housekeeping(self.leases, retention)
        self._locks = ConnectionLocks()
        self._owner_lock: OwnerLock | None = None
        # The open files themselves; other files may have their names by now.
        self._file: forks.FileId | None = None
        self._log: forks.FileId | None = None
        self._names = ("", "")  # of the file and its log
        self._is_named: bool | None = None  # None until this transaction has checked

    def __str__(self) -> str:
        return str(self._path)

    def explain(self, error: Exception) -> JournalError:
        """Return the `JournalError` for an error."""
        return explained(error, str(self))

    # Closed and open.

    def open(self) -> sqlite3.Connection:
        """Open the file, create missing tables, and become a new owner."""
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise JournalUnavailable(str(self), f"SQLite {sqlite3.sqlite_version} is too old")
        if forks.is_inherited(self._path):
            raise JournalUnavailable(str(self), INHERITED)
        # Lock files are in the directory of the file itself, not of a link to it.
        path = self.leases.path = self._path.resolve()
        self._make(path)
        db = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        # At once, because the file may be replaced while this thread waits for others.
        self._file = forks.opened(path)
        db.text_factory = readable
        try:
            self._set_up(db, path)
        except BaseException:
            self.close(db)
            raise
        return db

    def _make(self, path: Path) -> None:
        """Create the file with the right mode: SQLite would apply the umask."""
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            # The file is new, so closing this descriptor releases no lock of another connection.
            try:
                os.fchmod(descriptor, self._mode)
            finally:
                os.close(descriptor)

    def _set_up(self, db: sqlite3.Connection, path: Path) -> None:
        # First, because the file may belong to another program: nothing was written yet.
        patiently(lambda: self._check_version(db), self._patience)
        (mode,) = patiently(
            lambda: db.execute("PRAGMA journal_mode = WAL").fetchone(), self._patience
        )
        if mode != "wal":
            raise JournalUnavailable(str(self), f"no write-ahead log here, but {mode!r}")
        # Each commit is on the disk when it returns. Otherwise a machine that dies could lose the
        # last ones, although their effects had begun.
        _ = db.execute("PRAGMA synchronous = FULL")
        _ = db.execute(f"PRAGMA journal_size_limit = {_LOG_SIZE}")
        patiently(lambda: self._check_version(db), self._patience)  # reading creates the index
        self._locks.hold(path)
        self.lock(db)
        try:
            if not version_of(db, str(self)):  # another process may have been quicker
                for statement in CREATE.split(";\n")[:-1]:
                    _ = db.execute(statement)
            self._housekeeping.remove_strays(db)
            self.leases.owner = uuid4().hex
            self._owner_lock = OwnerLock(path, self.leases.owner)
            _ = db.execute("INSERT INTO owner VALUES (?, ?)", (self.leases.owner, time.time()))
            _ = db.execute("COMMIT")
        finally:
            self._locks.stop_writing()
        log, index = (path.with_name(f"{path.name}-{part}") for part in ("wal", "shm"))
        self._names = (str(self._path), str(log))
        self._log = forks.file_at(log)
        for file in (log, index):
            share_access(file, path.stat())

    def _check_version(self, db: sqlite3.Connection) -> None:
        _ = db.execute("BEGIN")  # to see one state: another process may be creating the tables
        try:
            _ = version_of(db, str(self))
        finally:
            if db.in_transaction:  # after some errors, SQLite has rolled it back by itself
                _ = db.execute("ROLLBACK")

    def close(self, db: sqlite3.Connection) -> None:
        """Close the file and release all locks. Then any process may recover what is open here."""
        self._locks.release()  # first: SQLite removes its log only if no other lock is held
        db.close()
        self._locks.put_back()
        forks.closed(self._file)
        self._file = self._log = None
        if self._owner_lock is not None:
            self._owner_lock.release()
            self._owner_lock = None

    # Transactions.

    def lock(self, db: sqlite3.Connection) -> None:
        """Begin a transaction that writes, once no other process is in one."""

        def attempt() -> None:
            if not self._locks.try_to_write():
                raise _busy()
            try:
                _ = db.execute("BEGIN IMMEDIATE")
            except BaseException:
                self._locks.stop_writing()
                raise

        patiently(attempt, self._patience)

    def begin(self, db: sqlite3.Connection) -> None:
        """Check, before anything is written, that this owner may write at all.

        Raises:
            LeaseLost: Another process took this one for dead.
        """
        self._is_named = None
        self.leases.begin(db)

    def commit(self, db: sqlite3.Connection) -> None:
        """Commit, durably."""
        _ = db.execute("COMMIT")
        self._locks.stop_writing()

    def roll_back(self, db: sqlite3.Connection) -> None:
        """Roll back, in the file and in memory."""
        self.leases.undo_in_memory(0)
        if db.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                _ = db.execute("ROLLBACK")
        self._locks.stop_writing()

    def insert(self, intent: Intent, arguments: str, db: sqlite3.Connection) -> None:
        """Record an action, unless no process would find it.

        Raises:
            JournalUnavailable: The file, or its log, was removed or replaced. Writing to it would
                succeed, and nothing would ever read it.
        """
        if self._is_named is None:
            self._is_named = self._has_names()
        if not self._is_named:
            raise self._nameless()
        self.ledger.insert(intent, arguments, db)

    def check_durable(self) -> None:
        """Check, after a commit, that other processes can find what it wrote.

        Raises:
            JournalUnavailable: The file or its log was removed meanwhile: see `insert`.
        """
        if self._is_named and not self._has_names():
            raise self._nameless()

    def _has_names(self) -> bool:
        return (
            self._file is not None
            and forks.file_at(self._names[0]) == self._file
            and forks.file_at(self._names[1]) == self._log
        )

    def _nameless(self) -> JournalUnavailable:
        return JournalUnavailable(str(self), "its file, or its log, was removed or replaced")

    def leave(self, db: sqlite3.Connection) -> None:
        """Release all sagas, and delete this owner, in the last transaction."""
        self.claims.release_all(db)
        _ = db.execute("DELETE FROM owner WHERE id = ?", (self.leases.owner,))

    # Housekeeping.

    def may_be_untidy(self) -> bool:
        """Return whether it is time to search for what housekeeping has to delete."""
        return self._housekeeping.is_time()

    def is_untidy(self, db: sqlite3.Connection) -> bool:
        """Return whether housekeeping is due."""
        return self._housekeeping.is_due(db)

    def tidy(self, db: sqlite3.Connection) -> None:
        """Do a bounded part of it."""
        self._housekeeping.run(db)


def _busy() -> sqlite3.OperationalError:
    """Return the error with which SQLite refuses a lock."""
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY
    return error
