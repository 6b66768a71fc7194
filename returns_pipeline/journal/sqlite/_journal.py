"""`SqliteJournal`: undo actions in a file, durable before their effects.

The face of the folder. One thread writes (`_group_commit`), many requests to a transaction
(`_transaction`), into one file (`_store`): the statements of scopes are in `_ledger`, those of
recovery in `_claims`. A process that has the journal open holds a lock beside it for as long as it
lives (`_owner_locks`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from pathlib import Path
from typing import TypeVar

from returns_pipeline._engine import checks
from returns_pipeline._engine.cancellation import ShieldedFuture, shielded
from returns_pipeline.compensation.protocol import Intent, StoredSaga
from returns_pipeline.errors import InvalidArgument, JournalError, JournalUnavailable
from returns_pipeline.journal._arguments import encode_arguments
from returns_pipeline.journal._face import ActionChange, JournalFace
from returns_pipeline.journal.sqlite import _owner_locks as owner_locks
from returns_pipeline.journal.sqlite._claims import SagaUnreadable
from returns_pipeline.journal.sqlite._group_commit import GroupCommit
from returns_pipeline.journal.sqlite._inspect import inspect
from returns_pipeline.journal.sqlite._store import SqliteStore

__all__ = ["SqliteJournal"]

T = TypeVar("T")

_log = logging.getLogger("returns_pipeline")


class SqliteJournal(JournalFace):
    """Keeps undo actions in an SQLite file.

    The file has a write-ahead log with ``synchronous=FULL``: what `CompensationScope.register` has
    put on record survives the end of the process and of the machine. Requests that arrive together
    share one flush to the disk ("group commit"). Any number of processes on one machine may share
    the file. It must not be on a network file system, and it must hold nothing else. If it is
    removed or replaced, the processes that have it open still undo what is on record there, and
    accept nothing more until they open it anew.

    ``async with SqliteJournal(path) as journal`` opens it at once, and closes it. Otherwise the
    first request opens it, and the end of the process closes it.

    **Processes.** While a process has the journal open, no other takes over what it has open there,
    whether it is busy, stopped or unreachable. When it ends, by ``kill -9`` too, others may at
    once. On Linux a process may copy or read the files of its own journal, for a backup say. On
    macOS and the BSDs it must not, as long as it has the journal open: there, closing any
    descriptor of an SQLite file releases SQLite's locks on it. Back up from another process.
    Windows lacks these locks altogether; use `PostgresJournal` there.

    **Fork.** A journal that is made before a fork, and not opened, works in the child: make it in
    the module that gunicorn preloads, or Celery imports before it forks its pool. A file that was
    open at the fork is refused in the child, under this object and any other: open it after the
    fork, close it before, or start children by ``multiprocessing.get_context("spawn")`` (or
    ``"forkserver"``). The fork itself waits for the transaction that is under way.

    **Users.** The file is readable and writable for its owner alone, unless ``mode`` says
    otherwise. The files beside it get its mode and group, so that with ``mode=0o660`` a second user
    of the group can recover.

    When is a commit durable?

    1. By default before `CompensationScope.commit` returns: a window by itself waits for the disk
       twice, once for its intent and once for its commit.
    2. With ``lazy_commits=True`` a commit returns at once. Its record rides with the next request,
       the intent of the next window for instance, and is written by itself if none comes within
       0.05 seconds: a window waits for the disk once. It is durable when `flush` returns, when
       `StepContext.run` returns its result, when ``async with`` of a scope or context ends without
       an exception, and when `close` returns. Acknowledge a source after one of these, and not
       before. If the process dies earlier, the window is undone by `recover`, and its source
       delivers it again.

    A lazy commit that cannot be written is not lost in silence. While the disk is full or the file
    locked it is tried again, with each request and each second; requests and `flush` raise
    `JournalUnavailable` meanwhile. If it never can be written, because another process has taken
    the window over (`LeaseLost`) or the file is damaged (`JournalCorrupt`), every request and
    `flush` raises that from then on, until the journal is closed and used again.

    Args:
        path: The file; made if it is not there. Files beside it begin with its name.
        mode: Permissions of a file that is made here.
        retention: Seconds that an action which was undone stays listed, 0 or more. What is stuck
            or deferred stays for ever.
        patience: Seconds to wait for another process that writes, 0 or more.
        lazy_commits: Whether a commit returns before it is durable.

    Raises:
        InvalidArgument: At the call, if an argument is out of range, or ``path`` is ":memory:".
        JournalUnavailable: At the call, on a platform without the file locks of POSIX.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        mode: int = 0o600,
        retention: checks.Seconds = 30 * 86_400.0,
        patience: checks.Seconds = 10.0,
        lazy_commits: bool = False,
    ) -> None:
        if os.fspath(path) == ":memory:":
            # SQLite would take it for no file at all, and we for a file of this name.
            raise InvalidArgument("a journal in memory would end with its process: give a file")
        self._path = Path(path).absolute()
        self._patience = checks.seconds("patience", patience, zero=True, finite=True)
        if checks.count("mode", mode, least=0) & ~0o777 or mode & 0o600 != 0o600:
            raise InvalidArgument(f"mode must be permissions with 0o600 among them, not {mode:#o}")
        if not owner_locks.is_supported():
            raise JournalUnavailable(
                str(self._path),
                "SqliteJournal needs the file locks of POSIX, which this platform lacks: "
                "use PostgresJournal",
            )
        self._store = SqliteStore(
            self._path,
            mode=mode,
            retention=checks.seconds("retention", retention, zero=True),
            patience=self._patience,
        )
        self._writer = GroupCommit(f"journal {self._path.name}", self._store)
        self._lazy = lazy_commits
        super().__init__(_Changes(self._writer, self._store))

    def __str__(self) -> str:
        return str(self._path)

    async def _open(self) -> None:
        await self._do(_look)

    async def close(self) -> None:
        """Write what is waiting, stop the thread and release the lock.

        Others may from then on recover what this journal has open. It can be used again.

        Cancel safety: a cancellation is raised when it is closed.

        Raises:
            JournalError: Commits that had returned could not be written, and nobody was told yet:
                what they covered will be undone. It is closed all the same.
        """
        await self._writer.stop()

    async def flush(self) -> None:
        """Return when all commits that have returned are durable.

        Raises:
            JournalError: They are not; see `SqliteJournal` for whether they may still be.
        """
        await self._writer.flush()

    # For scopes.

    def record(self, intent: Intent, /) -> Awaitable[None]:
        """Put an action on record: see `Journal`."""
        work = partial(self._store.insert, intent, encode_arguments(intent))
        return self._writer.do_shielded(work)

    def forget(self, ids: Sequence[str], /) -> Awaitable[None]:
        """Commit: see `Journal`, and `SqliteJournal` for when it is durable.

        A caller that is cancelled before the thread has begun to write it has not committed.
        """
        work = partial(self._store.ledger.delete, list(ids))
        if not self._lazy:
            # The loop and the thread may decide at the same time: the first entry counts, and
            # `setdefault` is one step.
            decided: dict[str, bool] = {}

            def unless_withdrawn(db: sqlite3.Connection) -> None:
                if decided.setdefault("begins", True):
                    work(db)

            return self._writer.do_shielded(
                unless_withdrawn, withdraw=lambda: not decided.setdefault("begins", False)
            )
        self._writer.defer(work)
        done: ShieldedFuture[None] = ShieldedFuture()
        done.future.set_result(None)
        return done

    def move(self, ids: Sequence[str], /, *, saga: str, name: str, prefix: str) -> None:
        """Put actions into another saga: see `Journal`."""
        self._writer.defer(partial(self._store.ledger.move, list(ids), saga, name, prefix))

    def abandon(self, ids: Sequence[str], /) -> None:
        """Leave actions to `recover`, of this process or another: see `Journal`."""
        with contextlib.suppress(JournalError):  # it is being closed, which releases all
            work = partial(self._store.ledger.abandon, list(ids))
            self._writer.defer(work, is_commit=False)

    # For recovery.

    async def claim(self, *, besides: AbstractSet[str]) -> StoredSaga | None:
        """Take over the newest saga of a dead owner: see `recover`.

        A saga that cannot be read is passed over as long as there are others. When there is nothing
        to claim, a part of what is out of date is dropped.

        Cancel safety: what was taken over meanwhile is released.

        Raises:
            JournalCorrupt: Only sagas that cannot be read are left.
        """
        claims, skipped = self._store.claims, frozenset(besides)
        candidates: float = math.inf
        while True:
            if claims.must_look():
                before = candidates
                look = partial(claims.look, skipped)
                candidates = await self._writer.do(look, reads=True)
                if not 0 < candidates < before:  # none, or the same ones are again not to be had
                    claims.end_round()
                    await self._do(self._store.tidy)
                    return None
            try:
                work = partial(claims.claim, skipped)
                saga, cancelled = await shielded(self._writer.do_shielded(work))
            except SagaUnreadable as error:
                _log.error("%s", error)  # and those that can be read do not wait for it
                continue
            if saga is not None and cancelled is not None:
                with contextlib.suppress(JournalError):  # then it is released later
                    await self.release(saga.id)
            if cancelled is not None:
                raise cancelled
            if saga is not None:
                return saga

    async def release(self, saga: str) -> None:
        """Release a saga: any process may claim it.

        If that cannot be written now, it is written as soon as it can be.
        """
        work = partial(self._store.claims.release, saga)
        try:
            await self._do(work)
        except JournalUnavailable:
            with contextlib.suppress(JournalError):  # it is being closed, which releases all
                self._writer.defer(work, is_commit=False)
            raise

    # For people.

    async def sagas(self) -> list[StoredSaga]:
        """List what is on record, the newest first.

        This only looks: it takes no lock, makes no file, needs no permission to write, does not
        wait for other processes that write, and works on a journal that is not open. What this
        journal itself has still to write comes first.

        Raises:
            JournalUnavailable: There is no such file, or it cannot be read.
            JournalCorrupt: What it holds makes no sense.
        """
        with contextlib.suppress(JournalError):  # the next request raises it; here it is shown
            await self.flush()
        return await asyncio.to_thread(inspect, self._path, self._patience)

    async def retry(self, saga: str) -> int:
        """Have actions of a saga that are stuck or deferred tried again; return how many.

        The next `recover` takes them, also while their owner lives, which has given up those that
        are stuck: they become a saga of their own then. What a living owner has pending or
        deferred is its own business, and is left alone.
        """
        return await self._do(partial(self._store.claims.retry, saga))

    async def discard(self, saga: str, reason: str) -> int:
        """Discard the stuck and deferred actions of a saga; return how many.

        They stay listed as done, with the reason, as long as those that were undone. What a living
        owner has pending or deferred is left alone.
        """
        return await self._do(partial(self._store.claims.discard, saga, reason))

    async def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._writer.do(work)


class _Changes:
    """Writes what becomes of single actions."""

    def __init__(self, writer: GroupCommit, store: SqliteStore) -> None:
        self._writer = writer
        self._store = store

    async def change(self, action: str, change: ActionChange, /) -> None:
        await self._writer.do(partial(self._store.ledger.change, action, change))

    def change_shielded(self, action: str, change: ActionChange, /) -> Awaitable[None]:
        return self._writer.do_shielded(partial(self._store.ledger.change, action, change))


def _look(db: sqlite3.Connection) -> None:
    _ = db.execute("SELECT 1 FROM saga").fetchone()
