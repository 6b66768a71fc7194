"""One transaction for many requests: without savepoints if all succeed, else with one for each.

Most transactions succeed. If a request fails, everything is rolled back and done again with a
savepoint for each request, so that the failure of one does not affect the others.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from returns_pipeline import telemetry
from returns_pipeline.errors import JournalError, JournalUnavailable
from returns_pipeline.journal.sqlite._ledger import Forget
from returns_pipeline.journal.sqlite._store import SqliteStore

__all__ = [
    "Deferred",
    "Outcome",
    "Request",
    "Work",
    "Written",
    "again",
    "read",
    "transaction",
    "write",
]

# Uses the connection. Its result (hence `Any`) goes to the future of the same request.
Work: TypeAlias = "Callable[[sqlite3.Connection], Any]"


class Request(NamedTuple):
    """Work with a waiting caller.

    Attributes:
        work: Called in the writer's thread.
        future: Takes the outcome, in the loop of the caller.
        reads: Whether the work only reads: then it runs after the transaction, without its lock.
        kind: What it is, for observers.
    """

    work: Work
    future: asyncio.Future[Any]
    reads: bool = False
    kind: telemetry.RequestKind = "other"


class Deferred(NamedTuple):
    """Work without a waiting caller.

    Attributes:
        work: Called in the writer's thread.
        is_commit: Whether its loss must be reported: a commit that has returned would be undone.
        on_lost: Called if it is a commit and can never be written.
        kind: What it is, for observers.
    """

    work: Work
    is_commit: bool
    on_lost: Callable[[JournalError], object] = bool
    kind: telemetry.RequestKind = "other"


# The outcome of a request: its future, and a result or an error. Bare tuples: two for each window.
Outcome: TypeAlias = "tuple[asyncio.Future[Any], Any, JournalError | None]"


class Written(NamedTuple):
    """The outcome of a transaction.

    Attributes:
        outcomes: The outcomes of its requests.
        lost: The error of a deferred commit that can never be written, if there is one.
    """

    outcomes: list[Outcome]
    lost: JournalError | None = None


def write(
    store: SqliteStore,
    db: sqlite3.Connection,
    deferred: Sequence[Deferred],
    requests: Sequence[Request],
    last: Work | None,
) -> Written:
    """Carry out all of this in one transaction: deferred work, then requests, then ``last``.

    Args:
        store: The store that is written to.
        db: Its connection.
        deferred: Comes first, so that a commit is never durable later than a request after it.
        requests: In the order in which they were made.
        last: Ends the journal, if this is its last transaction.

    Raises:
        Exception: Nothing was written. All requests get this error.
    """
    store.lock(db)  # outside of `try`: after one timeout, do not wait for the lock a second time
    try:
        with transaction(store, db):
            for late in deferred:
                _ = late.work(db)
            outcomes: list[Outcome] = []
            commits: list[Forget] = []
            for work, future, *_ in requests:
                if isinstance(work, Forget):
                    commits.append(work)
                    outcomes.append((future, None, None))
                else:
                    outcomes.append((future, work(db), None))
            # Last and together. No request of the same transaction depends on a commit: the saga
            # of a new action stays, instead of being deleted and created again.
            Forget.together(commits, store.ledger, db)
            if last is not None:
                last(db)
    except Exception as error:  # noqa: BLE001  # the request gets it
        if not deferred and last is None and len(requests) == 1:
            return Written([(requests[0].future, None, store.explain(error))])
    else:
        return Written(outcomes)
    store.lock(db)
    return _one_by_one(store, db, deferred, requests, last)


def _one_by_one(
    store: SqliteStore,
    db: sqlite3.Connection,
    deferred: Sequence[Deferred],
    requests: Sequence[Request],
    last: Work | None,
) -> Written:
    """Carry out everything with a savepoint for each, so that the failing ones are left out."""
    lost: JournalError | None = None
    outcomes: list[Outcome] = []
    with transaction(store, db):
        for work, is_commit, on_lost, _ in deferred:
            _, failed = _try(store, db, work)
            if isinstance(failed, JournalUnavailable):
                raise failed  # it may pass: all deferred work is tried again later
            if is_commit and failed is not None:
                lost = lost or failed
                _ = on_lost(failed)
        for work, future, *_ in requests:
            # After a lost commit no request is accepted until the loss was reported.
            result, failed = (None, again(lost)) if lost else _try(store, db, work)
            outcomes.append((future, result, failed))
        if last is not None:
            _ = _try(store, db, last)
    return Written(outcomes, lost)


def _try(store: SqliteStore, db: sqlite3.Connection, work: Work) -> tuple[Any, JournalError | None]:
    """Carry out one request after a savepoint, and roll back to that if the request fails."""
    before = store.leases.position()
    failed: JournalError | None = None
    result: Any = None
    _ = db.execute("SAVEPOINT request")
    try:
        result = work(db)
    except Exception as error:
        if not db.in_transaction:
            raise  # the disk is full or broken: SQLite has rolled the whole transaction back
        _ = db.execute("ROLLBACK TO request")
        store.leases.undo_in_memory(before)
        failed = store.explain(error)
    _ = db.execute("RELEASE request")
    return result, failed


class transaction:  # noqa: N801  # it is used as a function
    """Commit the block, or roll it back. `SqliteStore.lock` has begun the transaction."""

    # Not a generator, which is entered and left more slowly.

    __slots__ = ("_db", "_store")

    def __init__(self, store: SqliteStore, db: sqlite3.Connection) -> None:
        self._store = store
        self._db = db

    def __enter__(self) -> None:
        try:
            self._store.begin(self._db)
        except BaseException:
            self._store.roll_back(self._db)
            raise

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._store.commit(self._db)
                return
        except BaseException:
            self._store.roll_back(self._db)
            raise
        self._store.roll_back(self._db)


def read(store: SqliteStore, db: sqlite3.Connection, request: Request) -> Outcome:
    """Carry out a request that only reads, outside of any transaction."""
    try:
        return request.future, request.work(db), None
    except Exception as error:  # noqa: BLE001  # the request gets it
        return request.future, None, store.explain(error)


def again(error: JournalError) -> JournalError:
    """Return a copy of an error, to be raised again without the first traceback."""
    made = type(error)(error.journal, error.reason)
    made.__cause__ = error.__cause__
    return made
