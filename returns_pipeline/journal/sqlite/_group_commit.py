"""`GroupCommit`: one thread that writes for all callers, many requests to a transaction.

Requests of one iteration of the event loop, and those that arrive while the thread is at work, go
into its next transaction together: they share one flush to the disk ("group commit").

What is *deferred* has nobody waiting for it. It goes first in the next transaction, whatever asks
for that, and after `LAZY_DELAY` seconds in one of its own. It stays deferred until it is written,
or never can be.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, TypeVar

from returns_pipeline._engine.cancellation import ShieldedFuture, shielded
from returns_pipeline.errors import JournalError, LeaseLost
from returns_pipeline.journal.sqlite import _forks as forks
from returns_pipeline.journal.sqlite._store import SqliteStore
from returns_pipeline.journal.sqlite._transaction import (
    Deferred,
    Outcome,
    Request,
    Work,
    again,
    read,
    transaction,
    write,
)

__all__ = ["LAZY_DELAY", "GroupCommit"]

T = TypeVar("T")

# Seconds that what is deferred waits for a transaction to ride with.
LAZY_DELAY = 0.05
# Seconds until it is tried again if it could not be written.
_RETRY_DELAY: Final = 1.0

_log = logging.getLogger("returns_pipeline")


class GroupCommit:
    """Writes to a store in a thread of its own, which the first request starts.

    The object is idle, running or stopping. A request makes it running; `stop` makes it stopping,
    in which every request is refused, and idle again when the thread has ended. So it can be used
    again, by any event loop of the process that it is running in, and of a forked child if it was
    idle at the fork.

    Event loops, of which there may be several in several threads, call the public methods. The
    thread alone calls the store, and all methods after `_run`. Both sides meet in:

    - ``_inbox``, a queue of batches of requests, and of ``None``, which only wakes the thread;
    - ``_deferred``, to which loops append and from which the thread removes what it has written;
    - ``_lost``, why deferred commits were lost. The thread sets it *before* it removes the lost
      ones from ``_deferred``, so that `flush`, which looks in the other order, cannot miss it.

    Args:
        name: Of the thread.
        store: What it writes to.
    """

    def __init__(self, name: str, store: SqliteStore) -> None:
        self._name = name
        self._store = store
        # Guards the start and the stop of the thread, against requests of other loops.
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._used_in: int | None = None  # the process that has it running; see `_forks.forks`
        self._inbox: queue.SimpleQueue[list[Request] | None] = queue.SimpleQueue()
        # Requests of this iteration of each loop, before they are handed to the thread.
        self._batches: dict[asyncio.AbstractEventLoop, list[Request]] = {}
        self._deferred: deque[Deferred] = deque()
        self._due: float | None = None  # when what is deferred is written alone; the thread's
        self._lost: JournalError | None = None
        self._reported = False  # whether somebody was told of the loss

    # For event loops.

    async def do(self, work: Callable[[sqlite3.Connection], T], *, reads: bool = False) -> T:
        """Carry this out in a transaction, and return its result when that is durable.

        A caller that is cancelled does not learn what comes of it: it may be done all the same.

        Args:
            work: Called in the thread.
            reads: Whether it only reads. It then needs no transaction of its own, but it sees what
                is deferred.

        Raises:
            JournalError: It was not done; or a deferred commit was lost earlier.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._ask(Request(work, future, reads))
        return await future

    def do_shielded(
        self,
        work: Callable[[sqlite3.Connection], T],
        *,
        withdraw: Callable[[], bool] | None = None,
    ) -> ShieldedFuture[T]:
        """Do the same; a caller that is cancelled learns the outcome before that propagates.

        Args:
            work: Called in the thread.
            withdraw: See `ShieldedFuture`.
        """
        outcome: ShieldedFuture[T] = ShieldedFuture(withdraw)
        self._ask(Request(work, outcome.future))
        return outcome

    def _ask(self, request: Request) -> None:
        self._check()
        loop = request.future.get_loop()
        batch = self._batches.get(loop)
        if batch is None:
            # Requests that follow in this iteration of the loop join the batch.
            self._batches[loop] = batch = []
            _ = loop.call_soon(self._hand_over, loop)
        batch.append(request)

    def defer(self, work: Work, *, is_commit: bool = True) -> None:
        """Carry this out with the next transaction, before what is asked for there.

        Args:
            work: Called in the thread.
            is_commit: Whether its loss is reported by every later request. Otherwise it is dropped
                if it can never be written.

        Raises:
            JournalError: A deferred commit was lost earlier.
        """
        self._check()
        with self._guard:
            self._refuse_when_stopping()
            self._start_thread()
            is_first = not self._deferred
            self._deferred.append(Deferred(work, is_commit))
            if is_first:
                self._inbox.put(None)

    async def flush(self) -> None:
        """Return when all that was deferred is durable.

        Raises:
            JournalError: It is not. It is tried again with the next transaction, unless it never
                can be written; then this is raised each time, until the journal is used again after
                it was closed.
        """
        if self._deferred:
            await self.do(_nothing)
        self._check()  # after the look at what is deferred: see the class
        if self._lost is not None:  # of a journal that another task has closed since
            raise again(self._lost)

    async def stop(self) -> None:
        """Write what was asked for and deferred, give up the rest, and end the thread.

        Cancel safety: a cancellation is raised when the thread has ended.

        Raises:
            JournalError: A deferred commit was lost, and nobody was told yet.
        """
        if self._is_inherited():
            return
        # First: what was asked for in this iteration of the loop may be what starts the thread.
        self._hand_over(asyncio.get_running_loop())
        if (thread := self._thread) is None:
            return
        with self._guard:
            if not self._stopping:
                self._stopping = True
                self._inbox.put(None)
        _, cancelled = await shielded(asyncio.to_thread(thread.join))
        try:
            if self._thread is thread:
                self._reset()
        finally:
            if cancelled is not None:
                raise cancelled

    def _reset(self) -> None:
        """Become idle, and raise a loss that was not reported yet."""
        with self._guard:
            lost = None if self._reported else self._lost
            self._reported, self._due = True, None
            self._deferred.clear()
            self._thread, self._stopping, self._used_in = None, False, None
        if lost is not None:
            raise lost

    def _check(self) -> None:
        """Refuse a request in a forked child, and after a loss."""
        if self._is_inherited():
            raise self._store.explain(
                RuntimeError("it was open in the process that this one was forked from")
            )
        if self._lost is not None and self._thread is not None:
            self._reported = True
            raise again(self._lost)

    def _is_inherited(self) -> bool:
        return self._used_in is not None and self._used_in != forks.forks()

    def _refuse_when_stopping(self) -> None:
        if self._stopping:
            raise self._store.explain(RuntimeError("it is being closed"))

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hand the requests of this iteration of the loop to the thread."""
        batch = self._batches.pop(loop, None)
        if not batch:
            return
        try:
            with self._guard:
                self._refuse_when_stopping()
                self._start_thread()
                self._inbox.put(batch)
        except JournalError as error:
            _resolve([Outcome(request.future, None, error) for request in batch])

    def _start_thread(self) -> None:
        if self._thread is not None:
            return
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._lost, self._reported = None, False
        self._used_in = forks.forks()
        try:
            thread.start()
        except RuntimeError as error:  # there are too many, or the interpreter shuts down
            raise self._store.explain(error) from error
        self._thread = thread

    # The thread.

    def _run(self) -> None:
        """Write until told to stop, as much in a transaction as there is.

        All of it is held off from forks, save the wait for something to do.
        """
        db: sqlite3.Connection | None = None
        ending = False
        while not ending:
            requests = self._next()
            ending = self._stopping and self._inbox.empty()
            deferred = list(self._deferred.copy())
            if not requests and not (ending and (db or deferred)) and not self._is_due():
                continue
            logged = self._lost
            with forks.inside():
                try:
                    if db is None:
                        db = self._store.open()
                    outcomes = self._transact(db, deferred, requests, ending=ending)
                except Exception as error:  # noqa: BLE001  # it is the answer to all requests
                    failed = self._store.explain(error)
                    self._fail(failed, deferred, ending=ending, reported=bool(requests))
                    outcomes = [Outcome(asked.future, None, again(failed)) for asked in requests]
            if self._lost is not logged and self._lost is not None:
                _log.error("commits of %s are lost: %s", self._lost.journal, self._lost.reason)
            _deliver(outcomes)
            if db is not None and not ending:
                self._tidy(db)
        if db is not None:
            with forks.inside():
                self._store.close(db)

    def _next(self) -> list[Request]:
        """Wait for something to do, and return what is asked for."""
        timeout: float | None = None
        if self._deferred:
            if self._due is None:
                self._due = time.monotonic() + LAZY_DELAY
            timeout = max(0.0, self._due - time.monotonic())
        requests: list[Request] = []
        with contextlib.suppress(queue.Empty):
            requests += self._inbox.get(timeout=timeout) or ()
            while True:
                requests += self._inbox.get_nowait() or ()
        return requests

    def _is_due(self) -> bool:
        return bool(self._deferred) and self._due is not None and time.monotonic() >= self._due

    def _transact(
        self,
        db: sqlite3.Connection,
        deferred: list[Deferred],
        requests: list[Request],
        *,
        ending: bool,
    ) -> list[Outcome]:
        """Write, then read, and return the outcomes of both."""
        writes = [request for request in requests if not request.reads]
        outcomes: list[Outcome] = []
        if deferred or writes or ending:
            last = self._store.leave if ending else None
            outcomes, lost = write(self._store, db, deferred, writes, last)
            self._store.check_durable()
            if lost is not None:
                self._lose(lost, reported=bool(requests))  # before `_written`: see the class
            self._written(len(deferred))
        reads = [request for request in requests if request.reads]
        return outcomes + [read(self._store, db, request) for request in reads]

    def _written(self, count: int) -> None:
        for _ in range(count):
            _ = self._deferred.popleft()
        self._due = None

    def _fail(
        self, failed: JournalError, deferred: list[Deferred], *, ending: bool, reported: bool
    ) -> None:
        """Nothing was written: keep what is deferred for later, if there is a later."""
        self._due = time.monotonic() + _RETRY_DELAY if deferred else None
        commits = sum(1 for _, is_commit in deferred if is_commit)
        if ending and commits:
            reason = f"{commits} commits were not written, and will be undone: {failed.reason}"
            self._lose(type(failed)(failed.journal, reason), reported=False)
        elif deferred and isinstance(failed, LeaseLost):
            if commits:
                self._lose(failed, reported=reported)
            self._written(len(deferred))

    def _lose(self, failed: JournalError, *, reported: bool) -> None:
        self._lost, self._reported = failed, reported

    def _tidy(self, db: sqlite3.Connection) -> None:
        """Do the housekeeping that is due; what was asked for does not depend on it."""
        try:
            with forks.inside():
                if self._store.is_untidy(db):
                    self._store.lock(db)
                    with transaction(self._store, db):
                        self._store.tidy(db)
        except Exception as error:  # noqa: BLE001  # it may succeed the next time
            _log.warning("housekeeping failed: %s", self._store.explain(error))


def _nothing(_: sqlite3.Connection) -> None:
    pass


def _deliver(outcomes: list[Outcome]) -> None:
    """Resolve the futures in their loops, with one call for each loop."""
    loops: dict[asyncio.AbstractEventLoop, list[Outcome]] = {}
    for outcome in outcomes:
        loops.setdefault(outcome.future.get_loop(), []).append(outcome)
    for loop, own in loops.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            _ = loop.call_soon_threadsafe(_resolve, own)


def _resolve(outcomes: list[Outcome]) -> None:
    for future, result, failed in outcomes:
        if future.done():
            continue  # cancelled
        if failed is None:
            future.set_result(result)
        else:
            future.set_exception(failed)
