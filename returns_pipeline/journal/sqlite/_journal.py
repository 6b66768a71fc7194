"""`SqliteJournal`: undo actions in a file, durable before their effects.

The public class of this folder. One thread writes (`_group_commit`), many requests in a transaction
(`_transaction`), into one file (`_store`). The statements for scopes are in `_ledger`, those for
recovery in `_claims`. A process that has the journal open holds a lock on a file beside it until
the process ends (`_owner_locks`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import sqlite3
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from pathlib import Path
from typing import TypeVar

from returns_pipeline._engine import checks
from returns_pipeline._engine.cancellation import ShieldedFuture, shielded
from returns_pipeline.compensation.protocol import (
    HandledPositions,
    Intent,
    StoredPositions,
    StoredSaga,
    TakenPartition,
)
from returns_pipeline.errors import InvalidArgument, JournalError, JournalUnavailable
from returns_pipeline.journal._arguments import encode_arguments
from returns_pipeline.journal._face import ActionChange, JournalFace
from returns_pipeline.journal._statistics import JournalStatistics
from returns_pipeline.journal.sqlite import _owner_locks as owner_locks
from returns_pipeline.journal.sqlite._claims import SagaUnreadable
from returns_pipeline.journal.sqlite._group_commit import GroupCommit
from returns_pipeline.journal.sqlite._inspect import inspect, inspect_positions
from returns_pipeline.journal.sqlite._ledger import Forget
from returns_pipeline.journal.sqlite._store import SqliteStore
from returns_pipeline.telemetry import Observer

__all__ = ["SqliteJournal"]

T = TypeVar("T")

_log = logging.getLogger("returns_pipeline.journal")


class SqliteJournal(JournalFace):
    """Keeps undo actions in an SQLite file.

    The file has a write-ahead log with ``synchronous=FULL``: actions recorded by
    `CompensationScope.register` survive the end of the process and of the machine. Requests that
    arrive together share one flush to the disk (*group commit*). Any number of processes on one
    machine may share the file. It must not be on a network file system, and must hold nothing else.
    If it is removed or replaced, the processes that have it open still undo the actions on record,
    but accept no new ones until they have closed and reopened it.

    ``async with SqliteJournal(path) as journal`` opens it at once and closes it at the end.
    Otherwise the first request opens it, and the end of the process closes it.

    **Processes.** While a process has the journal open, no other process takes over its sagas,
    whether it is busy, stopped or unreachable. When it ends, even by ``kill -9``, others may take
    over at once. On Linux a process may copy or read the files of its own journal, for example for
    a backup. On macOS and the BSDs it must not do so while the journal is open, because closing any
    descriptor of an SQLite file releases SQLite's locks on it: make backups from another process
    there. Windows lacks these locks altogether; use `PostgresJournal` there.

    **Fork.** A journal that was created but not opened before a fork works in the child: create it
    in the module that gunicorn preloads, or that Celery imports before it forks its pool. A file
    that was open at the fork is refused in the child, by this object and any other. Open it after
    the fork, close it before, or start children with ``multiprocessing.get_context("spawn")`` (or
    ``"forkserver"``). The fork itself waits for the transaction that is under way.

    **Users.** The file is readable and writable by its owner alone, unless ``mode`` says otherwise.
    The files beside it get its mode and group: with ``mode=0o660`` another user of the group can
    recover.

    When is a commit durable?

    1. By default, before `CompensationScope.commit` returns. A single window waits for the disk
       twice: for its intent and for its commit.
    2. With ``lazy_commits=True`` a commit returns at once. It is written together with the next
       request, for instance the intent of the next window, or by itself if none follows within 0.05
       seconds. So a window waits for the disk once. The commit is durable when `flush` returns,
       when `StepContext.run` returns its result, when ``async with`` of a scope or context ends
       without an exception, and when `close` returns. Acknowledge a source only after one of these.
       If the process dies earlier, `recover` undoes the window, and its source delivers it again.

    A lazy commit that cannot be written is not lost silently. While the disk is full or the file is
    locked, it is tried again with each request and each second, and requests and `flush` raise
    `JournalUnavailable`. If it can never be written, because another process has taken over the
    window (`LeaseLost`) or the file is damaged (`JournalCorrupt`), every later request and `flush`
    raises that error until the journal is closed and used again.

    Args:
        path: The file, which is created if it is missing. The names of files beside it begin with
            its name.
        mode: Permissions of a file that is created here.
        retention: Seconds that an undone action stays listed, 0 or more. Stuck and deferred actions
            stay forever.
        patience: Seconds to wait for another process that writes, 0 or more.
        lazy_commits: Whether a commit returns before it is durable.
        observer: Gets an event for each transaction, besides the observers of `telemetry.use`
            where the journal is opened.

    Raises:
        InvalidArgument: At the call, if an argument is out of range, or ``path`` is ":memory:".
        JournalUnavailable: At the call, on a platform without the file locks of POSIX.

    >>> import tempfile
    >>> from returns_pipeline import CompensationRegistry, CompensationScope
    >>> from returns_pipeline.testing import run
    >>> registry = CompensationRegistry()
    >>> @registry.compensation("delete")
    ... async def delete(name: str) -> None:
    ...     print("deleted", name)
    >>> async def main() -> None:
    ...     with tempfile.TemporaryDirectory() as folder:
    ...         async with SqliteJournal(f"{folder}/shop.db") as journal:
    ...             scope = CompensationScope("shop", journal=journal)
    ...             await scope.register(delete, "order 7")  # on disk from here on
    ...             await scope.compensate()
    >>> run(main())
    deleted order 7
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        mode: int = 0o600,
        retention: checks.Seconds = 30 * 86_400.0,
        patience: checks.Seconds = 10.0,
        lazy_commits: bool = False,
        observer: Observer | None = None,
    ) -> None:
        if os.fspath(path) == ":memory:":
            # SQLite would use no file at all, and this class a file of this name.
            raise InvalidArgument("a journal in memory would end with its process: pass a file")
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
        self._writer = GroupCommit(f"journal {self._path.name}", self._store, observer)
        self._lazy = lazy_commits
        super().__init__(_Changes(self._writer, self._store))

    def __str__(self) -> str:
        return str(self._path)

    async def _open(self) -> None:
        await self._do(_look)

    async def close(self) -> None:
        """Carry out the waiting requests, stop the thread and release the lock.

        From then on other processes may recover what this journal had open. It can be used again.

        Cancel safety: a cancellation is raised once the journal is closed.

        Raises:
            JournalError: Commits that had returned could not be written, and no request has raised
                that yet: their actions will be undone. The journal is closed nevertheless.
        """
        await self._writer.stop()

    def statistics(self) -> JournalStatistics:
        """Return what this object has written, and what waits. It may be called at any time.

        >>> SqliteJournal("journal.db").statistics().waiting
        0
        """
        return self._writer.statistics()

    async def flush(self) -> None:
        """Return when all commits that have returned are durable.

        Raises:
            JournalError: One is not durable. `SqliteJournal` says whether it may still become so.
        """
        await self._writer.flush()

    # For scopes.

    def record(self, intent: Intent, /) -> Awaitable[None]:
        """Record an action: see `Journal`."""
        work = partial(self._store.insert, intent, encode_arguments(intent))
        return self._writer.do_shielded(work, kind="record")

    def forget(
        self, ids: Sequence[str], /, positions: Sequence[HandledPositions] = ()
    ) -> Awaitable[None]:
        """Commit: see `Journal`, and `SqliteJournal` for when it is durable.

        A caller that is cancelled before the thread has begun to write it has not committed.
        """
        work = Forget(self._store.ledger, list(ids), positions)
        if not self._lazy:
            return self._writer.do_shielded(work, withdraw=work.withdraw, kind="forget")
        self._writer.defer(work, kind="forget")
        done: ShieldedFuture[None] = ShieldedFuture()
        done.future.set_result(None)
        return done

    def forget_later(
        self, ids: Sequence[str], on_lost: Callable[[JournalError], object], /
    ) -> None:
        """Commit as soon as possible: see `Journal`.

        While the file is locked or the disk full, it is tried again with each request and each
        second. `flush` and `close` try it, too. If `close` cannot write it, it raises the error.
        """
        work = partial(self._store.ledger.delete_rest, list(ids), on_lost)
        self._writer.defer(work, on_lost=on_lost, kind="forget")

    def move(self, ids: Sequence[str], /, *, saga: str, name: str, prefix: str) -> None:
        """Move actions into another saga: see `Journal`."""
        self._writer.defer(partial(self._store.ledger.move, list(ids), saga, name, prefix))

    def abandon(self, ids: Sequence[str], /) -> None:
        """Leave actions to `recover`, of this process or another: see `Journal`."""
        with contextlib.suppress(JournalError):  # it is being closed, which releases all sagas
            work = partial(self._store.ledger.abandon, list(ids))
            self._writer.defer(work, is_commit=False)

    # For a source.

    async def take(self, source: str, partitions: Sequence[str], /) -> Mapping[str, TakenPartition]:
        """Take partitions over: see `Positions`."""
        return await self._do(partial(self._store.ledger.take, source, list(partitions)))

    # For recovery.

    async def claim(
        self, *, besides: AbstractSet[str], known: Mapping[str, int] | None = None
    ) -> StoredSaga | None:
        """Take over the newest saga of a dead owner: see `recover`.

        A saga that cannot be read is skipped as long as there are others. When there is nothing to
        claim, some expired rows are deleted.

        Cancel safety: a saga that was taken over meanwhile is released.

        Raises:
            JournalCorrupt: Only sagas that cannot be read are left.
        """
        claims, skipped = self._store.claims, frozenset(besides)
        candidates: float = math.inf
        while True:
            if claims.must_look(known):
                before = candidates
                look = partial(claims.look, skipped, known)
                candidates = await self._writer.do(look, reads=True)
                if not 0 < candidates < before:  # none, or the same ones, still not available
                    claims.end_round()
                    await self._do(self._store.tidy)
                    return None
            try:
                work = partial(claims.claim, skipped)
                saga, cancelled = await shielded(self._writer.do_shielded(work))
            except SagaUnreadable as error:
                _log.error("%s", error)  # continue with sagas that can be read
                continue
            if saga is not None and cancelled is not None:
                with contextlib.suppress(JournalError):  # in that case it is released later
                    await self.release(saga.id)
            if cancelled is not None:
                raise cancelled
            if saga is not None:
                return saga

    async def release(self, saga: str) -> None:
        """Release a saga: any process may claim it.

        If that cannot be written now, it is written as soon as possible.
        """
        work = partial(self._store.claims.release, saga)
        try:
            await self._do(work)
        except JournalUnavailable:
            with contextlib.suppress(JournalError):  # it is being closed, which releases all sagas
                self._writer.defer(work, is_commit=False)
            raise

    # For people.

    async def sagas(self, *, done: bool = True) -> list[StoredSaga]:
        """Return the sagas on record, the newest first.

        This takes no lock, creates no file, needs no permission to write, does not wait for other
        processes that write, and works on a journal that is not open. Deferred work of this journal
        is written first.

        Raises:
            JournalUnavailable: The file does not exist, or cannot be read.
            JournalCorrupt: The file is damaged, or is not a journal.
        """
        with contextlib.suppress(JournalError):  # the next request raises it
            await self.flush()
        return await asyncio.to_thread(inspect, self._path, self._patience, done=done)

    async def retry(self, saga: str) -> int:
        """Make the stuck and deferred actions of a saga pending again; return how many.

        The next `recover` tries them. If their owner is alive, only stuck actions are taken, which
        the owner has given up: they become a saga of their own. The owner keeps its pending and
        deferred actions.
        """
        return await self._do(partial(self._store.claims.retry, saga))

    async def discard(self, saga: str, reason: str) -> int:
        """Discard the stuck and deferred actions of a saga; return how many.

        They stay listed as done, with the reason, for as long as undone actions. A living owner
        keeps its pending and deferred actions.
        """
        return await self._do(partial(self._store.claims.discard, saga, reason))

    async def stored_positions(self) -> list[StoredPositions]:
        """Return which positions of sources are stored, by source and partition.

        It reads as `sagas` does, and raises what that raises.
        """
        with contextlib.suppress(JournalError):  # the next request raises it
            await self.flush()
        return await asyncio.to_thread(inspect_positions, self._path, self._patience)

    async def forget_positions(
        self, source: str, partitions: Collection[str] | None = None
    ) -> list[str]:
        """Forget the positions of partitions of a source, or of all; return of which there were.

        A process that reads them is refused at its next commit. The next one reads on where the
        broker has it begin, and what it is given again is done again.

        >>> from returns_pipeline.testing import run
        >>> async def begin_again(journal: SqliteJournal) -> None:
        ...     print(await journal.forget_positions("kafka orders/billing", ["orders-3"]))
        """
        return await self._do(partial(self._store.ledger.forget_positions, source, partitions))

    async def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._writer.do(work)


class _Changes:
    """Writes changes to single actions: see `ActionChanges`."""

    def __init__(self, writer: GroupCommit, store: SqliteStore) -> None:
        self._writer = writer
        self._store = store

    async def change(self, action: str, change: ActionChange, /) -> None:
        await self._writer.do(partial(self._store.ledger.change, action, change))

    def change_shielded(self, action: str, change: ActionChange, /) -> Awaitable[None]:
        return self._writer.do_shielded(partial(self._store.ledger.change, action, change))


def _look(db: sqlite3.Connection) -> None:
    _ = db.execute("SELECT 1 FROM saga").fetchone()
