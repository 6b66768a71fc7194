"""`GroupCommit`: one thread that writes for all callers, many requests to a transaction.

Requests of one iteration of the event loop, and those that arrive while the thread is at work, go
into its next transaction together: they share one flush to the disk (*group commit*).

*Deferred* work has no waiting caller. It goes first in the next transaction, whichever request
starts that; if none comes, it gets a transaction of its own after `LAZY_DELAY` seconds. It stays
deferred until it is written, or can never be written.
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
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar

from returns_pipeline import telemetry
from returns_pipeline._engine.cancellation import ShieldedFuture, shielded
from returns_pipeline._engine.logs import Repeats, facts
from returns_pipeline.errors import JournalError, JournalUnavailable, LeaseLost
from returns_pipeline.journal._events import JournalEvents
from returns_pipeline.journal._statistics import JournalStatistics
from returns_pipeline.journal.sqlite import _forks as forks
from returns_pipeline.journal.sqlite._inspect import INHERITED
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

# Seconds that deferred work waits for a transaction that it can join.
LAZY_DELAY = 0.05
# Seconds until deferred work that could not be written is tried again.
_RETRY_DELAY: Final = 1.0

_log = logging.getLogger("returns_pipeline.journal")


class GroupCommit:
    """Writes to a store in a thread of its own, which the first request starts.

    States: *idle*; *running*, from the first request on; *stopping*, from `stop` on, in which every
    request is refused; idle again when the thread has ended. So it can be used again: by any event
    loop of the process that it is running in, and, if it was idle at a fork, by the child.

    Event loops call the public methods; there may be several, in several threads. Only the thread
    calls the store and the methods from `_run` on. The two sides share:

    - ``_inbox``, a queue of batches of requests, and of ``None``, which only wakes the thread;
    - ``_deferred``, to which loops append, and from which the thread removes what it has written;
    - ``_lost``, the reason why deferred commits were lost. The thread sets it *before* it removes
      the lost ones from ``_deferred``. `flush` checks in the other order, so it cannot miss a loss.

    Args:
        name: The name of the thread.
        store: The store that is written to.
        observer: Gets events, besides the observers of `telemetry.use`.
    """

    # Why no request hangs or is lost:
    #
    #   - A batch enters `_inbox` only under `_guard`, while not stopping and with a thread started;
    #     `_stopping` is set under `_guard` too. So the thread ends only after it has taken every
    #     batch: `_run` reads `_stopping` before it finds `_inbox` empty.
    #   - Every batch that is taken gets outcomes, even if the store raises, and they are delivered
    #     before the thread ends.
    #
    # Why a commit is never durable later than a request after it: deferred work goes first in each
    # transaction, in its order, and is removed from `_deferred` only once it is written or lost.
    # After a loss `_check` refuses every request, so no effect begins that relies on that order.

    def __init__(self, name: str, store: SqliteStore, observer: telemetry.Observer | None) -> None:
        self._name = name
        self._store = store
        self._observer = observer
        # Set before the thread starts. It reports in the loop that has started it.
        self._events: tuple[JournalEvents, asyncio.AbstractEventLoop] | None = None
        # Held while the thread is started or stopped, because several loops may do that.
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._used_in: int | None = None  # the process it is running in: see `_forks.forks`
        self._inbox: queue.SimpleQueue[list[Request] | None] = queue.SimpleQueue()
        # For each loop, the requests of its current iteration, which the thread does not have yet.
        self._batches: dict[asyncio.AbstractEventLoop, list[Request]] = {}
        self._deferred: deque[Deferred] = deque()
        self._repeats = Repeats(_log)
        self._due: float | None = None  # when deferred work is written by itself; for the thread
        self._lost: JournalError | None = None
        self._reported = False  # whether a caller got the loss
        # For statistics, counted for each batch: what loops have passed on, under `_guard`, and
        # what the thread has done.
        self._handed = 0
        self._done = JournalStatistics()

    # For event loops.

    def statistics(self) -> JournalStatistics:
        """Return what it has written, and what waits."""
        done = self._done
        waiting = self._handed - done.answered + sum(map(len, list(self._batches.values())))
        return replace(done, waiting=waiting, deferred=len(self._deferred))

    async def do(self, work: Callable[[sqlite3.Connection], T], *, reads: bool = False) -> T:
        """Carry work out in a transaction, and return its result once that is durable.

        If the caller is cancelled, the work may be carried out or not.

        Args:
            work: Called in the thread.
            reads: Whether it only reads. Then it runs outside of the transaction, and sees deferred
                work that was written.

        Raises:
            JournalError: The work was not done; or a deferred commit was lost earlier.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._ask(Request(work, future, reads))
        return await future

    def do_shielded(
        self,
        work: Callable[[sqlite3.Connection], T],
        *,
        withdraw: Callable[[], bool] | None = None,
        kind: telemetry.RequestKind = "other",
    ) -> ShieldedFuture[T]:
        """Do as `do`, but raise a cancellation of the caller only when the outcome is known.

        Args:
            work: Called in the thread.
            withdraw: See `ShieldedFuture`.
            kind: What it is, for observers.
        """
        outcome: ShieldedFuture[T] = ShieldedFuture(withdraw)
        self._ask(Request(work, outcome.future, kind=kind))
        return outcome

    def _ask(self, request: Request) -> None:
        self._check()
        loop = request.future.get_loop()
        batch = self._batches.get(loop)
        if batch is None:
            # Later requests of this iteration of the loop join the batch.
            self._batches[loop] = batch = []
            _ = loop.call_soon(self._hand_over, loop)
        batch.append(request)

    def defer(
        self,
        work: Work,
        *,
        is_commit: bool = True,
        on_lost: Callable[[JournalError], object] = bool,
        kind: telemetry.RequestKind = "other",
    ) -> None:
        """Carry work out in the next transaction, before the requests there. This does not wait.

        Args:
            work: Called in the thread.
            is_commit: Whether every later request raises an error if the work is lost. Otherwise
                work that can never be written is dropped.
            on_lost: Called in the thread if it is a commit and is lost.
            kind: What it is, for observers.

        Raises:
            JournalError: A deferred commit was lost earlier.
        """
        self._check()
        with self._guard:
            self._refuse_when_stopping()
            self._start_thread()
            is_first = not self._deferred
            self._deferred.append(Deferred(work, is_commit, on_lost, kind))
            if is_first:
                self._inbox.put(None)

    async def flush(self) -> None:
        """Return when all deferred work is durable.

        Raises:
            JournalError: It is not durable. It is tried again with the next transaction. If it can
                never be written, every call raises this, until the journal was closed and is used
                again.
        """
        if self._deferred:
            await self.do(_nothing)
        self._check()  # after reading `_deferred`: see the class
        if self._lost is not None:  # another task has closed the journal meanwhile
            raise again(self._lost)

    async def stop(self) -> None:
        """Write all requests and deferred work, give up what cannot be written, end the thread.

        Cancel safety: a cancellation is raised when the thread has ended.

        Raises:
            JournalError: A deferred commit was lost, and no caller got that error yet.
        """
        if self._used_in is not None and self._used_in != forks.forks():
            return
        # First, because a request of this iteration of the loop may be the one that starts it.
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
        """Become idle, and raise a loss that no caller got yet."""
        with self._guard:
            lost = None if self._reported else self._lost
            self._reported, self._due = True, None
            self._deferred.clear()
            self._thread, self._stopping, self._used_in = None, False, None
        if lost is not None:
            raise lost

    def _check(self) -> None:
        """Refuse a request in a forked child, and after a loss."""
        if self._used_in is not None and self._used_in != forks.forks():
            raise JournalUnavailable(str(self._store), INHERITED)
        if self._lost is not None and self._thread is not None:
            self._reported = True
            raise again(self._lost)

    def _refuse_when_stopping(self) -> None:
        if self._stopping:
            raise self._store.explain(RuntimeError("it is being closed"))

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        """Pass the requests of this iteration of the loop to the thread."""
        batch = self._batches.pop(loop, None)
        if not batch:
            return
        try:
            with self._guard:
                self._refuse_when_stopping()
                self._start_thread()
                self._handed += len(batch)
                self._inbox.put(batch)
        except JournalError as error:
            _resolve([(request.future, None, error) for request in batch])

    def _start_thread(self) -> None:
        if self._thread is not None:
            return
        events = JournalEvents.opened("SqliteJournal", self._observer)
        self._events = None if events is None else (events, asyncio.get_running_loop())
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
        """Carry out requests until `stop`, all that have arrived in one transaction.

        No fork can happen meanwhile, except while the thread waits for requests.
        """
        db: sqlite3.Connection | None = None
        ending = False
        while not ending:
            requests = self._next()
            ending = self._stopping and self._inbox.empty()  # in this order: see the class
            deferred = list(self._deferred.copy())
            if not requests and not (ending and (db or deferred)) and not self._is_due():
                continue
            logged = self._lost
            began = time.monotonic()
            refused = False
            outcomes: list[Outcome]
            with forks.inside():
                try:
                    if db is None:
                        db = self._store.open()
                    outcomes = self._transact(db, deferred, requests, ending=ending)
                except Exception as error:  # noqa: BLE001  # all requests get it
                    refused = True
                    failed = self._store.explain(error)
                    self._fail(failed, deferred, ending=ending, reported=bool(requests))
                    outcomes = [(asked.future, None, again(failed)) for asked in requests]
            if self._lost is not logged and self._lost is not None:
                _log.error(
                    "commits of %s are lost: %s",
                    self._lost.journal,
                    self._lost.reason,
                    extra=facts(journal=str(self._lost.journal), reason=str(self._lost.reason)),
                )
            self._done = JournalStatistics(
                answered=self._done.answered + len(requests),
                transactions=self._done.transactions + 1,
                last_transaction=time.monotonic() - began,
            )
            if self._events is not None:
                self._report(*self._events, requests, deferred, began, failed=refused)
            _deliver(outcomes)
            if db is not None and not ending:
                self._tidy(db)
        if db is not None:
            with forks.inside():
                self._store.close(db)

    def _report(
        self,
        events: JournalEvents,
        loop: asyncio.AbstractEventLoop,
        requests: list[Request],
        deferred: list[Deferred],
        began: float,
        *,
        failed: bool,
    ) -> None:
        """Report a batch, before its callers get their outcomes."""
        kinds = [asked.kind for asked in requests] + [late.kind for late in deferred]
        took, queued = time.monotonic() - began, self._inbox.qsize()
        report = partial(events.answered, kinds, len(kinds), took, queued, failed=failed)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            _ = loop.call_soon_threadsafe(report)

    def _next(self) -> list[Request]:
        """Wait until there are requests or deferred work is due; return the requests."""
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
        """Carry out the writing requests, then the reading ones; return the outcomes."""
        reads = [request for request in requests if request.reads]
        writes = [request for request in requests if not request.reads] if reads else requests
        outcomes: list[Outcome] = []
        if deferred or writes or ending:
            last = self._store.leave if ending else None
            outcomes, lost = write(self._store, db, deferred, writes, last)
            self._store.check_durable()
            if lost is not None:
                self._lose(lost, reported=bool(requests))  # before `_written`: see the class
            self._written(len(deferred))
        return outcomes + [read(self._store, db, request) for request in reads]

    def _written(self, count: int) -> None:
        for _ in range(count):
            _ = self._deferred.popleft()
        self._due = None

    def _fail(
        self, failed: JournalError, deferred: list[Deferred], *, ending: bool, reported: bool
    ) -> None:
        """Record that nothing was written: deferred work is tried again, or lost."""
        self._due = time.monotonic() + _RETRY_DELAY if deferred else None
        commits = [late for late in deferred if late.is_commit]
        if ending and commits:
            count = len(commits)
            reason = f"{count} commits were not written, and will be undone: {failed.reason}"
            failed, reported = type(failed)(failed.journal, reason), False
        elif not deferred or not isinstance(failed, LeaseLost):
            return
        if commits:
            self._lose(failed, reported=reported)  # before `_written`: see the class
        for late in commits:
            _ = late.on_lost(failed)
        if not ending:
            self._written(len(deferred))

    def _lose(self, failed: JournalError, *, reported: bool) -> None:
        self._lost, self._reported = failed, reported

    def _tidy(self, db: sqlite3.Connection) -> None:
        """Do the housekeeping that is due. No request depends on it."""
        if not self._store.may_be_untidy():
            return
        try:
            with forks.inside():
                if self._store.is_untidy(db):
                    self._store.lock(db)
                    with transaction(self._store, db):
                        self._store.tidy(db)
        except Exception as error:  # noqa: BLE001  # it may succeed the next time
            self._repeats.warning(
                "housekeeping failed: %s",
                self._store.explain(error),
                extra=facts(journal=str(self._name)),
            )


def _nothing(_: sqlite3.Connection) -> None:
    pass


def _deliver(outcomes: list[Outcome]) -> None:
    """Resolve the futures in their loops, with one call for each loop."""
    loops: dict[asyncio.AbstractEventLoop, list[Outcome]] = {}
    for outcome in outcomes:
        loops.setdefault(outcome[0].get_loop(), []).append(outcome)
    for loop, own in loops.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: no caller waits
            _ = loop.call_soon_threadsafe(_resolve, own)


def _resolve(outcomes: list[Outcome]) -> None:
    for future, result, failed in outcomes:
        if future.done():
            continue  # cancelled
        if failed is None:
            future.set_result(result)
        else:
            future.set_exception(failed)
