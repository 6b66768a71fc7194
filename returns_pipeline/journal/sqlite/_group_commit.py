"""`GroupCommit`: one thread that writes for all who ask, many requests to a transaction.

Requests of one turn of the event loop, and those that come while the thread is at work, go into
its next transaction together: they share one flush to the disk. Most transactions succeed as they
stand. If a request fails, all is rolled back and done again with a savepoint for each, so that the
one that fails does not take the others with it.

What is *owed* has nobody waiting for it. It goes first in the next transaction, whoever asks for
that, and after `COMPANY` seconds in one of its own. It stays owed until it is written.
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
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeAlias, TypeVar

from returns_pipeline._engine.cancellation import ShieldedFuture, shielded
from returns_pipeline.errors import JournalError, JournalUnavailable, LeaseLost
from returns_pipeline.journal.sqlite._owner_locks import forks

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

__all__ = ["COMPANY", "GroupCommit", "Store"]

T = TypeVar("T")

# Seconds that what is owed waits for a transaction to ride with.
COMPANY = 0.05
# Seconds until it is tried again when it could not be written.
_AGAIN: Final = 1.0

_log = logging.getLogger("returns_pipeline")

_Work: TypeAlias = "Callable[[sqlite3.Connection], Any]"


class _Request(NamedTuple):
    work: _Work
    future: asyncio.Future[Any]


class _Outcome(NamedTuple):
    future: asyncio.Future[Any]
    result: Any
    failed: JournalError | None


_Hand: TypeAlias = "list[_Request] | None"  # None only wakes the thread


class Store(Protocol):
    """What is written to; all of it is called in the thread."""

    def open(self) -> sqlite3.Connection:
        """Open the file."""
        ...

    def lock(self, db: sqlite3.Connection) -> None:
        """Begin a transaction that writes."""

    def begin(self, db: sqlite3.Connection) -> None:
        """Check, at the beginning of a transaction, that it may be written to at all."""

    def position(self) -> int:
        """Say how much this transaction has changed in memory."""
        ...

    def take_back(self, to: int) -> None:
        """Take back in memory what was changed since `position` gave this."""

    def explain(self, error: Exception) -> JournalError:
        """Say what an error means for the caller."""
        ...

    def is_untidy(self, db: sqlite3.Connection) -> bool:
        """Say whether housekeeping is due."""
        ...

    def tidy(self, db: sqlite3.Connection) -> None:
        """Do a bounded part of it."""

    def leave(self, db: sqlite3.Connection) -> None:
        """Give up what is open."""

    def closed(self) -> None:
        """The connection is closed, or was never opened."""


class GroupCommit:
    """Writes to a store in a thread of its own, which begins with the first request.

    Args:
        name: Of the thread.
        store: What it writes to.
    """

    def __init__(self, name: str, store: Store) -> None:
        self._name = name
        self._store = store
        self._born = forks()
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._hands: queue.SimpleQueue[_Hand] = queue.SimpleQueue()
        self._turns: dict[asyncio.AbstractEventLoop, list[_Request]] = {}
        self._owed: deque[_Work] = deque()
        self._due: float | None = None  # when what is owed is written alone; the thread's
        self._broken: JournalError | None = None
        self._told = False  # somebody knows that it is broken

    # For event loops.

    async def do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do this in a transaction, and give its result when that is durable.

        Who is cancelled meanwhile does not learn what comes of it: it may be done all the same.

        Raises:
            JournalError: It is not there; or what was owed before can never be written.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._ask(work, future)
        return await future

    def do_whole(self, work: Callable[[sqlite3.Connection], T]) -> ShieldedFuture[T]:
        """Do the same; who is cancelled meanwhile is told when it is done."""
        whole: ShieldedFuture[T] = ShieldedFuture()
        self._ask(work, whole.future)
        return whole

    def _ask(self, work: _Work, future: asyncio.Future[Any]) -> None:
        self._check()
        loop = future.get_loop()
        turn = self._turns.get(loop)
        if turn is None:
            # What others ask for in this turn of the loop goes along.
            self._turns[loop] = turn = []
            _ = loop.call_soon(self._hand_over, loop)
        turn.append(_Request(work, future))

    def owe(self, work: _Work) -> None:
        """Do this with the next transaction, before what is asked for there.

        Raises:
            JournalError: What was owed before can never be written.
        """
        self._check()
        with self._guard:
            self._refuse_when_stopping()
            self._need_thread()
            first = not self._owed
            self._owed.append(work)
            if first:
                self._hands.put(None)

    async def settle(self) -> None:
        """Return when all that is owed is durable.

        Raises:
            JournalError: It is not. It is tried again with the next transaction, unless it never
                can be written; then this is raised each time.
        """
        self._check()
        if self._owed:
            await self.do(_nothing)

    async def stop(self) -> None:
        """Write what is asked for and owed, give up the rest, and end the thread.

        Cancel safety: a cancellation is raised when the thread has ended.

        Raises:
            JournalError: What was owed could not be written.
        """
        if self._born != forks():
            return
        # First: what was asked for in this turn of the loop may be what begins the thread.
        self._hand_over(asyncio.get_running_loop())
        if (thread := self._thread) is None:
            return
        with self._guard:
            if not self._stopping:
                self._stopping = True
                self._hands.put(None)
        _, cancelled = await shielded(asyncio.to_thread(thread.join))
        try:
            if self._thread is thread:
                self._begin_anew()
        finally:
            if cancelled is not None:
                raise cancelled

    def _begin_anew(self) -> None:
        """Be as new, and say once what could not be written."""
        broken = None if self._told else self._broken
        with self._guard:  # what another loop owes from now on is not what is given up here
            self._broken, self._told, self._due = None, False, None
            self._owed.clear()
            self._thread, self._stopping = None, False
        if broken is not None:
            raise broken

    def _check(self) -> None:
        if self._born != forks():
            raise self._store.explain(
                RuntimeError("it belongs to the process that this one was forked from")
            )
        if self._broken is not None:
            self._told = True
            raise _again(self._broken)

    def _refuse_when_stopping(self) -> None:
        if self._stopping:
            raise self._store.explain(RuntimeError("it is being closed"))

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        turn = self._turns.pop(loop, None)
        if not turn:
            return
        try:
            with self._guard:
                self._refuse_when_stopping()
                self._need_thread()
                self._hands.put(turn)
        except JournalError as error:
            _settle([_Outcome(request.future, None, error) for request in turn])

    def _need_thread(self) -> None:
        if self._thread is not None:
            return
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # there are too many, or the interpreter shuts down
            raise self._store.explain(error) from error
        self._thread = thread

    # The thread.

    def _run(self) -> None:
        """Write until told to stop, as much in a transaction as there is."""
        db: sqlite3.Connection | None = None
        ending = False
        while not ending:
            requests = self._next()
            ending = self._stopping and self._hands.empty()
            owed = list(self._owed.copy())
            if not requests and not (ending and (db or owed)) and not self._is_due():
                continue
            try:
                if db is None:
                    db = self._store.open()
                outcomes = self._write(db, owed, requests, ending=ending)
                self._pay(len(owed))
            except Exception as error:  # noqa: BLE001  # whoever waits must be told
                failed = self._store.explain(error)
                self._fail(failed, len(owed), ending=ending, told=bool(requests))
                outcomes = [_Outcome(request.future, None, _again(failed)) for request in requests]
            _tell(outcomes)
            if db is not None and not ending:
                self._tidy(db)
        if db is not None:
            db.close()
        self._store.closed()

    def _next(self) -> list[_Request]:
        """Wait for something to do, and give what is asked for."""
        timeout: float | None = None
        if self._owed:
            if self._due is None:
                self._due = time.monotonic() + COMPANY
            timeout = max(0.0, self._due - time.monotonic())
        requests: list[_Request] = []
        with contextlib.suppress(queue.Empty):
            requests += self._hands.get(timeout=timeout) or ()
            while True:
                requests += self._hands.get_nowait() or ()
        return requests

    def _is_due(self) -> bool:
        return bool(self._owed) and self._due is not None and time.monotonic() >= self._due

    def _pay(self, count: int) -> None:
        for _ in range(count):
            _ = self._owed.popleft()
        self._due = None

    def _fail(self, failed: JournalError, owed: int, *, ending: bool, told: bool) -> None:
        """Nothing was written: keep what is owed for later, if there is a later."""
        self._due = time.monotonic() + _AGAIN if owed else None
        if owed and ending:
            reason = f"{owed} commits were not written, and will be undone: {failed.reason}"
            self._break(type(failed)(failed.journal, reason), told=False)
        elif owed and isinstance(failed, LeaseLost):
            self._pay(owed)
            self._break(failed, told=told)

    def _break(self, failed: JournalError, *, told: bool) -> None:
        self._broken, self._told = failed, told
        _log.error("commits of journal %s are lost: %s", failed.journal, failed.reason)

    def _write(
        self,
        db: sqlite3.Connection,
        owed: list[_Work],
        requests: list[_Request],
        *,
        ending: bool,
    ) -> list[_Outcome]:
        last: list[_Work] = [self._store.leave] if ending else []
        self._store.lock(db)  # if it is not given, nobody has the patience to wait for it twice
        try:
            return self._at_once(db, owed, requests, last)
        except Exception as error:  # noqa: BLE001  # whoever waits must be told
            if not owed and not last and len(requests) == 1:
                return [_Outcome(requests[0].future, None, self._store.explain(error))]
        # Which of them it was, the second turn tells.
        self._store.lock(db)
        return self._one_by_one(db, owed, requests, last)

    def _at_once(
        self,
        db: sqlite3.Connection,
        owed: list[_Work],
        requests: list[_Request],
        last: list[_Work],
    ) -> list[_Outcome]:
        with self._transaction(db):
            for work in owed:
                work(db)
            outcomes = [_Outcome(future, work(db), None) for work, future in requests]
            for work in last:
                work(db)
        return outcomes

    def _one_by_one(
        self,
        db: sqlite3.Connection,
        owed: list[_Work],
        requests: list[_Request],
        last: list[_Work],
    ) -> list[_Outcome]:
        broken: JournalError | None = None
        outcomes: list[_Outcome] = []
        with self._transaction(db):
            for work in owed:
                _, failed = self._try(db, work)
                if isinstance(failed, JournalUnavailable):
                    raise failed  # for now: it is tried again
                broken = broken or failed
            for work, future in requests:
                done = (None, _again(broken)) if broken else self._try(db, work)
                outcomes.append(_Outcome(future, *done))
            for work in last:
                _ = self._try(db, work)
        if broken is not None:
            self._break(broken, told=bool(requests))
        return outcomes

    def _try(self, db: sqlite3.Connection, work: _Work) -> tuple[Any, JournalError | None]:
        """Do one request behind a savepoint."""
        before = self._store.position()
        failed: JournalError | None = None
        _ = db.execute("SAVEPOINT request")
        try:
            result = work(db)
        except Exception as error:
            if not db.in_transaction:
                raise  # the disk is full or broken: nothing of the transaction is there
            _ = db.execute("ROLLBACK TO request")
            self._store.take_back(before)
            result, failed = None, self._store.explain(error)
        _ = db.execute("RELEASE request")
        return result, failed

    @contextlib.contextmanager
    def _transaction(self, db: sqlite3.Connection) -> Generator[None, None, None]:
        """End what `Store.lock` has begun."""
        try:
            self._store.begin(db)
            yield
            _ = db.execute("COMMIT")
        except BaseException:
            self._store.take_back(0)
            if db.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    _ = db.execute("ROLLBACK")
            raise

    def _tidy(self, db: sqlite3.Connection) -> None:
        """Do the housekeeping that is due; what was asked for does not depend on it."""
        try:
            if self._store.is_untidy(db):
                self._store.lock(db)
                with self._transaction(db):
                    self._store.tidy(db)
        except Exception as error:  # noqa: BLE001  # it may go better the next time
            _log.warning("housekeeping failed: %s", self._store.explain(error))


def _nothing(_: sqlite3.Connection) -> None:
    pass


def _again(error: JournalError) -> JournalError:
    """Give an error that can be raised anew, without the history of the first time."""
    made = type(error)(error.journal, error.reason)
    made.__cause__ = error.__cause__
    return made


def _tell(outcomes: list[_Outcome]) -> None:
    """Wake those who wait, each loop once."""
    loops: dict[asyncio.AbstractEventLoop, list[_Outcome]] = {}
    for outcome in outcomes:
        loops.setdefault(outcome.future.get_loop(), []).append(outcome)
    for loop, its in loops.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            _ = loop.call_soon_threadsafe(_settle, its)


def _settle(outcomes: list[_Outcome]) -> None:
    for future, result, failed in outcomes:
        if future.done():
            continue  # cancelled
        if failed is None:
            future.set_result(result)
        else:
            future.set_exception(failed)
