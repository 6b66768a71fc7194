"""One transaction for many requests: without savepoints if all succeed, else with one for each.

Most transactions succeed. If a request fails, everything is rolled back and done again with a
savepoint for each request, so that the failure of one does not affect the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple, TypeAlias

from returns_pipeline.errors import JournalError, JournalUnavailable
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
    """

    work: Work
    future: asyncio.Future[Any]
    reads: bool = False


class Deferred(NamedTuple):
    """Work without a waiting caller.

    Attributes:
        work: Called in the writer's thread.
        is_commit: Whether its loss must be reported: a commit that has returned would be undone.
    """

    work: Work
    is_commit: bool


class Outcome(NamedTuple):
    """The outcome of a request: a result, or an error."""

    future: asyncio.Future[Any]
    result: Any
    failed: JournalError | None


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
            for work, _ in deferred:
                work(db)
            outcomes = [Outcome(future, work(db), None) for work, future, _ in requests]
            if last is not None:
                last(db)
    except Exception as error:  # noqa: BLE001  # the request gets it
        if not deferred and last is None and len(requests) == 1:
            return Written([Outcome(requests[0].future, None, store.explain(error))])
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
        for work, is_commit in deferred:
            _, failed = _try(store, db, work)
            if isinstance(failed, JournalUnavailable):
                raise failed  # it may pass: all deferred work is tried again later
            if is_commit:
                lost = lost or failed
        for work, future, _ in requests:
            # After a lost commit no request is accepted until the loss was reported.
            done = (None, again(lost)) if lost else _try(store, db, work)
            outcomes.append(Outcome(future, *done))
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


@contextlib.contextmanager
def transaction(store: SqliteStore, db: sqlite3.Connection) -> Generator[None, None, None]:
    """Commit the block, or roll it back. `SqliteStore.lock` has begun the transaction."""
    try:
        store.begin(db)
        yield
        store.commit(db)
    except BaseException:
        store.roll_back(db)
        raise


def read(store: SqliteStore, db: sqlite3.Connection, request: Request) -> Outcome:
    """Carry out a request that only reads, outside of any transaction."""
    try:
        return Outcome(request.future, request.work(db), None)
    except Exception as error:  # noqa: BLE001  # the request gets it
        return Outcome(request.future, None, store.explain(error))


def again(error: JournalError) -> JournalError:
    """Return a copy of an error, to be raised again without the first traceback."""
    made = type(error)(error.journal, error.reason)
    made.__cause__ = error.__cause__
    return made
