"""`SqliteJournal`: undo actions in a file, durable before their effects.

One thread writes. Requests that come while it is at work go into its next transaction together,
each behind a savepoint of its own, so that one which fails does not take the others with it: many
scopes share one flush to the disk.

Who has a saga open holds a lock on a file beside the journal as long as it lives. The kernel lets
go of it when the process ends, in whatever way, and at no other time: no clock is involved, a
stopped process is not taken for a dead one, and a number that the system gives to a new process
means nothing. A child process made by fork does not inherit the lock, nor may it use the journal.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import queue
import sqlite3
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar
from uuid import uuid4

from returns_pipeline.errors import (
    JournalCorrupt,
    JournalError,
    JournalUnavailable,
    LeaseLost,
)
from returns_pipeline.journal.arguments import encode
from returns_pipeline.journal.recovery import StoredAction, StoredSaga

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from collections.abc import Set as AbstractSet
    from types import TracebackType

    from returns_pipeline.compensation import Intent

__all__ = ["SqliteJournal"]

T = TypeVar("T")

_VERSION: Final = 1
_SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS owner (
    id TEXT PRIMARY KEY,
    since REAL NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS saga (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    began REAL NOT NULL,
    number INTEGER NOT NULL,
    owner TEXT NOT NULL,
    epoch INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS action (
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
) STRICT;
CREATE INDEX IF NOT EXISTS action_of_saga ON action (saga, place);
CREATE INDEX IF NOT EXISTS saga_of_owner ON saga (owner, number);
PRAGMA user_version = {_VERSION};
"""

# Paths of the lock files that this process holds. A second descriptor for one of them must never
# be opened here: closing it would let go of the lock (POSIX). Also, a process never conflicts with
# itself, so a lock cannot tell that an owner lives in this very process.
_held: dict[str, int] = {}
_held_guard = threading.Lock()
os.register_at_fork(after_in_child=_held.clear)  # a child does not inherit them

_STOP: Final = None
_Job = tuple["Callable[[sqlite3.Connection], Any]", "asyncio.Future[Any] | None"]


class SqliteJournal:
    """Keeps undo actions in an SQLite file.

    Write-ahead logging with ``synchronous=FULL``: what `CompensationScope.register` has put on
    record survives the end of the process and of the machine. The file may be shared by any number
    of processes on one machine; it must not be on a network file system.

    ``async with SqliteJournal(path) as journal`` opens it at once and closes it; without, it is
    opened by the first request and closed with the process.

    Args:
        path: The file; made if it is not there. Files beside it begin with its name.
        retention: Seconds that an action which was undone stays listed.
        patience: Seconds to wait for another process that writes.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        retention: float = 30 * 86_400.0,
        patience: float = 10.0,
    ) -> None:
        self._path = Path(path).absolute()
        self._retention = retention
        self._patience = patience
        self._owner = uuid4().hex
        self._process = os.getpid()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sagas: dict[str, int] = {}  # that are open here, and the epoch of each

    def __str__(self) -> str:
        return str(self._path)

    async def __aenter__(self) -> Self:
        await self._do(_check)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Write what is waiting, stop the thread and give the lock back.

        What this journal has open may from then on be recovered by others.
        """
        thread = self._thread
        if thread is None:
            return
        with contextlib.suppress(JournalError):
            # It may never have been opened, or not be writable now. The lock goes with the thread,
            # and whatever it still has open may then be recovered.
            await self._do(self._leave)
        self._jobs.put(_STOP)
        await asyncio.to_thread(thread.join)
        self._thread = None

    # For scopes.

    async def record(self, intent: Intent, /) -> None:
        """Put an action on record: see `Journal`."""
        arguments = encode(intent.undo, intent.args, dict(intent.kwargs))
        await self._do(partial(self._insert, intent, arguments))

    async def forget(self, ids: Sequence[str], /) -> None:
        """Commit: see `Journal`."""
        await self._do(partial(self._delete, list(ids)))

    def move(self, ids: Sequence[str], /, *, saga: str, name: str, prefix: str) -> None:
        """Put actions into another saga: see `Journal`."""
        self._send(partial(self._move, list(ids), saga, name, prefix), None)

    def mark(self, action: str, /) -> _Mark:
        """Give the record of an action."""
        return _Mark(self, action)

    # For recovery.

    async def claim(self, *, besides: AbstractSet[str]) -> StoredSaga | None:
        """Take over the newest saga of a dead owner: see `recover`."""
        return await self._do(partial(self._claim, frozenset(besides)))

    async def release(self, saga: str) -> None:
        """Let go of a saga."""
        await self._do(partial(self._release, saga))

    async def defer(self, action: str, reason: str) -> None:
        """Note that an action waits for a process that knows it."""
        await self.change(action, "state = 'deferred', error = ?", reason)

    async def postpone(self, action: str, error: object, until: float) -> None:
        """Note that an attempt failed, and when the next may begin."""
        await self.change(action, "error = ?, next_attempt = ?", repr(error), until)

    # For people.

    async def sagas(self) -> list[StoredSaga]:
        """List what is on record, the newest first. It takes no lock and changes nothing."""
        return await self._do(self._list)

    async def retry(self, saga: str) -> int:
        """Let actions of a saga that are stuck or deferred be tried again; give how many."""
        return await self._do(partial(self._retry, saga))

    async def discard(self, saga: str, reason: str) -> int:
        """Give up the actions of a saga that are stuck or deferred; give how many.

        They stay listed as done, with the reason.
        """
        return await self._do(partial(self._discard, saga, reason))

    # The work itself, in the thread.

    def _insert(self, intent: Intent, arguments: str, db: sqlite3.Connection) -> None:
        if intent.saga in self._sagas:
            self._check_lease(db, intent.saga)
        else:
            if db.execute("SELECT 1 FROM saga WHERE id = ?", (intent.saga,)).fetchone():
                raise LeaseLost(str(self), f"saga {intent.saga} was taken over")
            (number,) = db.execute("SELECT coalesce(max(number), 0) + 1 FROM saga").fetchone()
            _ = db.execute(
                "INSERT INTO saga VALUES (?, ?, ?, ?, ?, 1)",
                (intent.saga, intent.saga_name, time.time(), number, self._owner),
            )
            self._sagas[intent.saga] = 1
        _ = db.execute(
            "INSERT INTO action (id, saga, place, path, key, name, version, arguments, state) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'pending')",
            (
                intent.id,
                intent.saga,
                intent.place,
                intent.path,
                intent.key,
                intent.undo.name,
                intent.undo.version,
                arguments,
            ),
        )

    def _delete(self, ids: list[str], db: sqlite3.Connection) -> None:
        sagas = self._sagas_of(db, ids, expected=len(ids))
        for saga in sagas:
            self._check_lease(db, saga)
        for part in _parts(ids):
            _ = db.execute(f"DELETE FROM action WHERE id IN ({_marks(part)})", part)
        self._drop_empty(db, sagas)

    def _move(
        self, ids: list[str], saga: str, name: str, prefix: str, db: sqlite3.Connection
    ) -> None:
        olds = self._sagas_of(db, ids, expected=len(ids))
        for old in olds:
            self._check_lease(db, old)
        if saga in self._sagas:
            self._check_lease(db, saga)
        else:
            _ = db.execute(
                "INSERT INTO saga SELECT ?, ?, began, number, owner, 1 FROM saga WHERE id = "
                "(SELECT saga FROM action WHERE id = ?)",
                (saga, name, ids[0]),
            )
            self._sagas[saga] = 1
        for part in _parts(ids):
            _ = db.execute(
                f"UPDATE action SET saga = ?, place = ? || place WHERE id IN ({_marks(part)})",
                (saga, prefix, *part),
            )
        self._drop_empty(db, olds)

    def _sagas_of(self, db: sqlite3.Connection, ids: list[str], *, expected: int) -> set[str]:
        found = 0
        sagas: set[str] = set()
        for part in _parts(ids):
            for (saga,) in db.execute(
                f"SELECT saga FROM action WHERE id IN ({_marks(part)})", part
            ):
                found += 1
                sagas.add(saga)
        if found != expected:
            raise LeaseLost(str(self), "actions are gone: another process took them over")
        return sagas

    def _check_lease(self, db: sqlite3.Connection, saga: str) -> None:
        row = db.execute("SELECT owner, epoch FROM saga WHERE id = ?", (saga,)).fetchone()
        if row != (self._owner, self._sagas.get(saga)):
            raise LeaseLost(str(self), f"saga {saga} was taken over by another process")

    def _drop_empty(self, db: sqlite3.Connection, sagas: set[str]) -> None:
        """Forget sagas of ours that have no actions left.

        Their scopes may be open still, and open them anew: what is gone here was not taken over.
        """
        for saga in sagas:
            dropped = db.execute(
                "DELETE FROM saga WHERE id = ? AND NOT EXISTS "
                "(SELECT 1 FROM action WHERE action.saga = saga.id)",
                (saga,),
            )
            if dropped.rowcount:
                del self._sagas[saga]

    async def change(self, action: str, what: str, *values: object) -> None:
        """Change a few columns of an action, if this process has it."""
        await self._do(partial(self._change, action, what, values))

    def _change(
        self, action: str, what: str, values: tuple[object, ...], db: sqlite3.Connection
    ) -> None:
        for saga in self._sagas_of(db, [action], expected=1):
            self._check_lease(db, saga)
        _ = db.execute(f"UPDATE action SET {what} WHERE id = ?", (*values, action))

    def _claim(self, besides: frozenset[str], db: sqlite3.Connection) -> StoredSaga | None:
        _ = db.execute(
            "DELETE FROM action WHERE state = 'done' AND ended < ?",
            (time.time() - self._retention,),
        )
        _ = db.execute(
            "DELETE FROM saga WHERE NOT EXISTS (SELECT 1 FROM action WHERE saga = saga.id)"
        )
        alive: dict[str, bool] = {}
        for saga, name, began, owner, epoch in db.execute(
            "SELECT id, name, began, owner, epoch FROM saga WHERE EXISTS (SELECT 1 FROM action "
            "WHERE saga = saga.id AND state IN ('pending', 'deferred')) ORDER BY number DESC"
        ).fetchall():
            if owner not in alive:
                alive[owner] = self._lives(owner)
            if saga in besides or alive[owner]:
                continue
            _ = db.execute(
                "UPDATE saga SET owner = ?, epoch = epoch + 1 WHERE id = ?", (self._owner, saga)
            )
            self._sagas[saga] = epoch + 1
            return StoredSaga(saga, name, began, self._owner, True, self._actions(db, saga))
        self._tidy(db)
        return None

    def _tidy(self, db: sqlite3.Connection) -> None:
        """Forget dead owners that have nothing open any more."""
        for (owner,) in db.execute(
            "SELECT id FROM owner WHERE NOT EXISTS (SELECT 1 FROM saga WHERE owner = owner.id)"
        ).fetchall():
            if not self._lives(owner):
                _ = db.execute("DELETE FROM owner WHERE id = ?", (owner,))
                with contextlib.suppress(OSError):
                    self._lock_path(owner).unlink()

    def _release(self, saga: str, db: sqlite3.Connection) -> None:
        self._check_lease(db, saga)
        _ = db.execute("UPDATE saga SET owner = '', epoch = epoch + 1 WHERE id = ?", (saga,))
        del self._sagas[saga]

    def _actions(self, db: sqlite3.Connection, saga: str) -> tuple[StoredAction, ...]:
        rows = db.execute(
            "SELECT id, place, path, key, name, version, arguments, state, attempts, next_attempt, "
            "error FROM action WHERE saga = ? ORDER BY place DESC",
            (saga,),
        )
        return tuple(StoredAction(*row) for row in rows)

    def _list(self, db: sqlite3.Connection) -> list[StoredSaga]:
        rows = db.execute("SELECT id, name, began, owner FROM saga ORDER BY number DESC").fetchall()
        return [
            StoredSaga(saga, name, began, owner, self._lives(owner), self._actions(db, saga))
            for saga, name, began, owner in rows
        ]

    def _retry(self, saga: str, db: sqlite3.Connection) -> int:
        return db.execute(
            "UPDATE action SET state = 'pending', attempts = 0, next_attempt = 0 "
            "WHERE saga = ? AND state IN ('stuck', 'deferred')",
            (saga,),
        ).rowcount

    def _discard(self, saga: str, reason: str, db: sqlite3.Connection) -> int:
        return db.execute(
            "UPDATE action SET state = 'done', error = ?, ended = ? "
            "WHERE saga = ? AND state IN ('stuck', 'deferred')",
            (f"discarded: {reason}", time.time(), saga),
        ).rowcount

    def _leave(self, db: sqlite3.Connection) -> None:
        _ = db.execute("UPDATE saga SET owner = '' WHERE owner = ?", (self._owner,))
        _ = db.execute("DELETE FROM owner WHERE id = ?", (self._owner,))
        self._sagas.clear()

    # Liveness.

    def _lock_path(self, owner: str) -> Path:
        return self._path.with_name(f"{self._path.name}-owner-{owner}")

    def _lives(self, owner: str) -> bool:
        if not owner:
            return False
        path = self._lock_path(owner)
        with _held_guard:
            if str(path) in _held:
                return True
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                return False
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return True
            finally:
                os.close(descriptor)
        return False

    def _take_lock(self) -> None:
        path = self._lock_path(self._owner)
        with _held_guard:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _held[str(path)] = descriptor

    def _give_lock_back(self) -> None:
        path = self._lock_path(self._owner)
        with _held_guard:
            descriptor = _held.pop(str(path), None)
            if descriptor is not None:
                with contextlib.suppress(OSError):
                    path.unlink()
                os.close(descriptor)

    # The thread.

    async def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._send(work, future)
        return await future

    def _send(
        self, work: Callable[[sqlite3.Connection], Any], future: asyncio.Future[Any] | None
    ) -> None:
        if os.getpid() != self._process:
            raise JournalError(str(self), "it belongs to the process that this one was forked from")
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, name=f"journal {self._path.name}", daemon=True
            )
            self._thread.start()
        self._jobs.put((work, future))

    def _run(self) -> None:
        """Carry out requests until told to stop, as many in a transaction as there are."""
        db: sqlite3.Connection | None = None
        stopping = False
        while not stopping:
            batch: list[_Job] = []
            job = self._jobs.get()
            while job is not None:
                batch.append(job)
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
            else:
                stopping = True
            outcomes: list[tuple[asyncio.Future[Any], Any, BaseException | None]]
            try:
                if db is None:
                    db = self._open()
                outcomes = self._transact(db, batch)
            except (sqlite3.Error, OSError, JournalError) as error:
                failed = self._explain(error)
                outcomes = [(future, None, failed) for _, future in batch if future is not None]
            _tell(outcomes)
        if db is not None:
            db.close()
        self._give_lock_back()

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            self._path, timeout=self._patience, isolation_level=None, check_same_thread=False
        )
        try:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            self._check_version(version)
            _ = db.execute("PRAGMA journal_mode = WAL")
            _ = db.execute("PRAGMA synchronous = FULL")
            if version < _VERSION:
                _ = db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
            self._take_lock()
            _ = db.execute("INSERT INTO owner VALUES (?, ?)", (self._owner, time.time()))
        except BaseException:
            self._give_lock_back()
            db.close()
            raise
        return db

    def _check_version(self, version: int) -> None:
        if version > _VERSION:
            raise JournalError(str(self), f"version {version} is newer than this program knows")

    def _transact(
        self, db: sqlite3.Connection, batch: list[_Job]
    ) -> list[tuple[asyncio.Future[Any], Any, BaseException | None]]:
        outcomes: list[tuple[asyncio.Future[Any], Any, BaseException | None]] = []
        known = dict(self._sagas)
        _ = db.execute("BEGIN IMMEDIATE")
        try:
            for work, future in batch:
                result, failed = None, None
                _ = db.execute("SAVEPOINT request")
                before = dict(self._sagas)
                try:
                    result = work(db)
                except (sqlite3.Error, JournalError) as error:
                    if not db.in_transaction:
                        raise  # the disk is full or broken: nothing of the batch is there
                    _ = db.execute("ROLLBACK TO request")
                    self._sagas = before
                    failed = self._explain(error)
                _ = db.execute("RELEASE request")
                if future is not None:
                    outcomes.append((future, result, failed))
            _ = db.execute("COMMIT")
        except BaseException:
            self._sagas = known
            if db.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    _ = db.execute("ROLLBACK")
            raise
        return outcomes

    def _explain(self, error: Exception) -> JournalError:
        """Say what an error of SQLite means for the caller."""
        if isinstance(error, JournalError):
            return error
        code = getattr(error, "sqlite_errorcode", None)
        corrupt = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
        kind: type[JournalError] = JournalUnavailable
        if isinstance(code, int) and code & 0xFF in corrupt:
            kind = JournalCorrupt
        made = kind(str(self), str(error))
        made.__cause__ = error
        return made


class _Mark:
    """The record of one action, for a rollback."""

    __slots__ = ("_action", "_journal")

    def __init__(self, journal: SqliteJournal, action: str) -> None:
        self._journal = journal
        self._action = action

    async def begin(self) -> None:
        """Count the attempt; if it cannot be, it does not begin."""
        await self._journal.change(self._action, "attempts = attempts + 1")

    async def done(self) -> None:
        """Note that it is undone."""
        await self._journal.change(self._action, "state = 'done', ended = ?", time.time())

    async def give_up(self, error: object) -> None:
        """Park it until somebody says otherwise."""
        await self._journal.change(self._action, "state = 'stuck', error = ?", _brief(error))


def _brief(error: object) -> str:
    return repr(error)[:1000]


def _check(db: sqlite3.Connection) -> None:
    _ = db.execute("SELECT 1 FROM saga").fetchone()


def _parts(ids: list[str]) -> list[list[str]]:
    return [ids[start : start + 500] for start in range(0, len(ids), 500)]


def _marks(part: list[str]) -> str:
    return ", ".join("?" * len(part))


def _tell(outcomes: list[tuple[asyncio.Future[Any], Any, BaseException | None]]) -> None:
    """Wake those who wait, in their own loops."""

    def settle(future: asyncio.Future[Any], result: Any, failed: BaseException | None) -> None:
        if future.done():
            return
        if failed is None:
            future.set_result(result)
        else:
            future.set_exception(failed)

    for future, result, failed in outcomes:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            _ = future.get_loop().call_soon_threadsafe(settle, future, result, failed)
