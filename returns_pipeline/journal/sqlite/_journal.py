"""`SqliteJournal`: undo actions in a file, durable before their effects.

One thread writes (`group_commit`), in the statements of `sqlite_store`. Who has a saga open holds
a lock on a file beside the journal as long as it lives (`owners`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from returns_pipeline._engine.cancellation import ShieldedFuture, shielded
from returns_pipeline.errors import InvalidArgument, JournalError
from returns_pipeline.journal._arguments import encode_arguments
from returns_pipeline.journal.sqlite._group_commit import GroupCommit
from returns_pipeline.journal.sqlite._store import SagaUnreadable, SqliteStore, inspect

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Awaitable, Callable, Sequence
    from collections.abc import Set as AbstractSet
    from types import TracebackType

    from returns_pipeline.compensation.protocol import Intent, StoredSaga

__all__ = ["SqliteJournal"]

T = TypeVar("T")

_log = logging.getLogger("returns_pipeline")


class SqliteJournal:
    """Keeps undo actions in an SQLite file.

    Write-ahead logging with ``synchronous=FULL``: what `CompensationScope.register` has put on
    record survives the end of the process and of the machine. Requests that come together share
    one flush to the disk. The file may be shared by any number of processes on one machine; it
    must not be on a network file system, and it must be a file of its own. When it is removed or
    replaced, what was on record there is still undone by the processes that have it open, and they
    accept nothing more until they open it anew.

    ``async with SqliteJournal(path) as journal`` opens it at once and closes it; without, it is
    opened by the first request and closed with the process. A child process made by fork may not
    use it, and does not keep it open. It may open the file anew, unless the file was open when it
    was forked and all others have closed it since: its SQLite takes it for open.

    When is a commit durable?

    1. By default before `CompensationScope.commit` returns: a window by itself waits for the disk
       twice, once for its intent and once for its commit.
    2. With ``lazy_commits=True`` a commit returns at once. Its record rides with the next request,
       the intent of the next window for instance, and is written by itself if none comes within
       0.05 seconds: a window waits for the disk once. It is durable when `flush` returns, when
       `StepContext.run` gives its result, when ``async with`` of a scope or context ends without
       an exception, and when `close` returns. Acknowledge a source after one of these, and not
       before. If the process dies earlier, the window is undone by `recover`, and its source
       delivers it again.

    A lazy commit that cannot be written is not lost in silence. While the disk is full or the file
    locked it is tried again, with each request and each second; requests and `flush` raise
    `JournalUnavailable` meanwhile. If it never can be written, because another process has taken
    the window over (`LeaseLost`) or the file is damaged (`JournalCorrupt`), that is raised by
    every request and `flush` from then on, until the journal is closed.

    Args:
        path: The file; made if it is not there. Files beside it begin with its name.
        retention: Seconds that an action which was undone stays listed, 0 or more. What is stuck
            or deferred stays for ever.
        patience: Seconds to wait for another process that writes, 0 or more.
        lazy_commits: Whether a commit returns before it is durable.

    Raises:
        InvalidArgument: At the call, if a time is out of range, or ``path`` is ":memory:".
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        retention: float = 30 * 86_400.0,
        patience: float = 10.0,
        lazy_commits: bool = False,
    ) -> None:
        for name, seconds in (("retention", retention), ("patience", patience)):
            if not seconds >= 0:
                raise InvalidArgument(f"{name} must be 0 seconds or more, not {seconds!r}")
        if patience == math.inf:
            raise InvalidArgument("patience must be finite")
        if os.fspath(path) == ":memory:":
            # SQLite would take it for no file at all, and we for a file of this name.
            raise InvalidArgument("a journal in memory would end with its process: give a file")
        self._path = Path(path).absolute()
        self._patience = patience
        self._lazy = lazy_commits
        self._store = SqliteStore(self._path, retention=retention, patience=patience)
        self._writer = GroupCommit(f"journal {self._path.name}", self._store)

    def __str__(self) -> str:
        return str(self._path)

    async def __aenter__(self) -> Self:
        try:
            await self._do(_check)
        except BaseException:
            await self.close()  # there is no exit from what was not entered
            raise
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
        await self._writer.settle()

    # For scopes.

    def record(self, intent: Intent, /) -> Awaitable[None]:
        """Put an action on record: see `Journal`."""
        work = partial(self._store.insert, intent, encode_arguments(intent))
        return self._writer.do_whole(work)

    def forget(self, ids: Sequence[str], /) -> Awaitable[None]:
        """Commit: see `Journal`, and `SqliteJournal` for when it is durable."""
        work = partial(self._store.delete, list(ids))
        if not self._lazy:
            return self._writer.do_whole(work)
        self._writer.owe(work)
        done: ShieldedFuture[None] = ShieldedFuture()
        done.future.set_result(None)
        return done

    def move(self, ids: Sequence[str], /, *, saga: str, name: str, prefix: str) -> None:
        """Put actions into another saga: see `Journal`."""
        self._writer.owe(partial(self._store.move, list(ids), saga, name, prefix))

    def mark(self, action: str, /) -> _Mark:
        """Give the record of an action."""
        return _Mark(self, action)

    # For recovery.

    async def claim(self, *, besides: AbstractSet[str]) -> StoredSaga | None:
        """Take over the newest saga of a dead owner: see `recover`.

        One that cannot be read is passed over as long as there are others.

        Cancel safety: what was taken over meanwhile is released.

        Raises:
            JournalCorrupt: Only such are left.
        """
        work = partial(self._store.claim, frozenset(besides))
        while True:
            try:
                saga, cancelled = await shielded(self._writer.do_whole(work))
            except SagaUnreadable as error:
                _log.error("%s", error)  # and those that can be read do not wait for it
                continue
            if cancelled is None:
                return saga
            if saga is not None:
                with contextlib.suppress(JournalError):  # it is claimed again by this journal then
                    await self.release(saga.id)
            raise cancelled

    async def release(self, saga: str) -> None:
        """Let go of a saga.

        If that cannot be written, others may have it when this process has ended, and `claim`
        of this journal at once.
        """
        try:
            await self._do(partial(self._store.release, saga))
        except JournalError:
            self._store.abandoned.add(saga)
            raise

    async def defer(self, action: str, reason: str) -> None:
        """Note that an action waits for a process that knows it."""
        await self.change(action, "state = 'deferred', error = ?", _brief_text(reason))

    async def postpone(self, action: str, error: object, until: float) -> None:
        """Note that an attempt failed, and when the next may begin."""
        await self.change(action, "error = ?, next_attempt = ?", _brief(error), until)

    async def change(self, action: str, what: str, *values: object) -> None:
        """Change a few columns of an action, if this process has it."""
        await self._do(partial(self._store.change, action, what, values))

    def change_whole(self, action: str, what: str, *values: object) -> ShieldedFuture[None]:
        """Do so; who is cancelled meanwhile is told when it is done."""
        return self._writer.do_whole(partial(self._store.change, action, what, values))

    # For people.

    async def sagas(self) -> list[StoredSaga]:
        """List what is on record, the newest first.

        It only looks: it takes no lock, makes no file, does not wait for other processes that
        write, and may be asked of a journal that is not open, or that this process could not
        write to. What this journal itself has still to write comes first.

        Raises:
            JournalUnavailable: There is no such file, or it cannot be read.
            JournalCorrupt: It makes no sense.
        """
        with contextlib.suppress(JournalError):  # who waits for it is told; here it is shown
            await self.flush()
        return await asyncio.to_thread(inspect, self._path, self._patience)

    async def retry(self, saga: str) -> int:
        """Let actions of a saga that are stuck or deferred be tried again; give how many.

        The next `recover` takes them, also while their owner lives, which has given up those that
        are stuck: they become a saga of their own then. What a living owner has pending or
        deferred is its own business, and is left alone.
        """
        return await self._do(partial(self._store.retry, saga))

    async def discard(self, saga: str, reason: str) -> int:
        """Give up the actions of a saga that are stuck or deferred; give how many.

        They stay listed as done, with the reason, as long as those that were undone. What a living
        owner has pending or deferred is left alone.
        """
        return await self._do(partial(self._store.discard, saga, reason))

    async def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._writer.do(work)


class _Mark:
    """The record of one action, for a rollback."""

    __slots__ = ("_action", "_journal")

    def __init__(self, journal: SqliteJournal, action: str) -> None:
        self._journal = journal
        self._action = action

    async def begin(self) -> None:
        """Count the attempt; if it cannot be, it does not begin."""
        await self._journal.change(self._action, "attempts = attempts + 1")

    def done(self) -> Awaitable[None]:
        """Note that it is undone."""
        return self._journal.change_whole(self._action, "state = 'done', ended = ?", time.time())

    async def give_up(self, error: object) -> None:
        """Park it until somebody says otherwise."""
        await self._journal.change(self._action, "state = 'stuck', error = ?", _brief(error))


def _brief(error: object) -> str:
    """Show an error in so many words, whatever its own ``repr()`` does."""
    try:
        text = repr(error)
    except Exception:  # noqa: BLE001
        text = object.__repr__(error)
    return _brief_text(text)


def _brief_text(text: str) -> str:
    return text[:1000].encode(errors="backslashreplace").decode()


def _check(db: sqlite3.Connection) -> None:
    _ = db.execute("SELECT 1 FROM saga").fetchone()
