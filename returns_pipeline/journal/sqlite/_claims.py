"""The statements for recovery and for people. They run inside a transaction of the thread."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Mapping
from functools import partial
from uuid import uuid4

from returns_pipeline.compensation.protocol import StoredAction, StoredSaga
from returns_pipeline.errors import JournalCorrupt
from returns_pipeline.journal._face import discard_reason
from returns_pipeline.journal.sqlite._leases import Leases
from returns_pipeline.journal.sqlite._schema import OPEN, actions_of, explained

__all__ = ["Claims", "SagaUnreadable"]

# Seconds for which a list of candidates is used, and its greatest length. The cost of making it
# grows with everything that is open, so it must not be made for each claim.
_FRESH = 1.0
_MOST_CANDIDATES = 10_000


class SagaUnreadable(JournalCorrupt):
    """A saga is on a damaged page. Nothing more can be written in the same transaction."""


class Claims:
    """Takes sagas over from dead owners, and releases them.

    A claim has two halves. `look` lists candidates. It only reads, so other processes may write
    meanwhile, however long it takes. `claim` takes the first candidate that is still available, at
    a cost that does not depend on their number.

    Args:
        leases: The sagas that this process owns.
    """

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._candidates: list[str] = []  # ids of sagas, the newest last
        self._last_look_at = -math.inf
        self._known: Mapping[str, int] | None = None  # at the last look
        self._unreadable: set[str] = set()  # sagas that the claims of this round could not read

    def must_look(self, known: Mapping[str, int] | None) -> bool:
        """Return whether there is no list of candidates, or only an old or unsuitable one."""
        is_old = time.monotonic() - self._last_look_at > _FRESH
        return not self._candidates or is_old or self._known != known

    def look(
        self, besides: frozenset[str], known: Mapping[str, int] | None, db: sqlite3.Connection
    ) -> int:
        """List the newest sagas of dead owners that have open actions; return how many.

        The query begins with open actions, in a partial index: settled ones cost nothing, however
        many are kept. If several callers found the list too old, only the first makes a new one.
        """
        if not self.must_look(known):
            return len(self._candidates)
        passed = set[str]() if known is None else self._passed_over(known, db)
        alive: dict[str, bool] = {self._leases.owner: True}
        found: list[str] = []
        rows = db.execute(
            f"SELECT saga.id, owner FROM (SELECT DISTINCT saga FROM action WHERE {OPEN}) AS o "
            "JOIN saga ON saga.id = o.saga ORDER BY number DESC"
        )
        for saga, owner in rows:
            if saga in besides or saga in self._unreadable or saga in passed:
                continue
            if owner not in alive:
                alive[owner] = self._leases.is_alive(owner)
            if not alive[owner]:
                found.append(saga)
                if len(found) == _MOST_CANDIDATES:
                    break
        rows.close()
        self._candidates = found[::-1]
        self._known = known
        self._last_look_at = time.monotonic()
        return len(found)

    def _passed_over(self, known: Mapping[str, int], db: sqlite3.Connection) -> set[str]:
        """Return the sagas whose newest open action was deferred, and is not known here either."""
        rows = db.execute(
            "SELECT saga, name, version FROM action AS a WHERE state = 'deferred' "
            f"AND {OPEN} AND NOT EXISTS (SELECT 1 FROM action WHERE {OPEN} AND saga = a.saga "
            "AND position > a.position)"
        )
        return {saga for saga, name, version in rows if known.get(name, -math.inf) < version}

    def claim(self, besides: frozenset[str], db: sqlite3.Connection) -> StoredSaga | None:
        """Take over the newest candidate that is still available.

        Raises:
            SagaUnreadable: The next candidate cannot be read. The next call skips it.
        """
        while self._candidates:
            saga = self._candidates.pop()
            self._leases.on_undo(partial(self._candidates.append, saga))
            if saga in besides or saga in self._unreadable:
                continue
            found = db.execute(
                "SELECT number, name, began, owner, epoch, on_failure FROM saga WHERE id = ?",
                (saga,),
            ).fetchone()
            if found is None:
                continue  # another process has claimed, undone and dropped it
            number, name, began, owner, epoch, on_failure = found
            if owner == self._leases.owner or self._leases.is_alive(owner):
                continue
            actions = self._read(db, saga)
            if not any(action.state in {"pending", "deferred"} for action in actions):
                continue
            if self._leases.is_known(saga):
                saga, actions = self._rename(db, saga)
            _ = db.execute(
                "UPDATE saga SET owner = ?, epoch = ? WHERE number = ?",
                (self._leases.owner, epoch + 1, number),
            )
            self._leases.remove_owner(db, owner)
            self._leases.keep(saga, epoch + 1)
            return StoredSaga(saga, name, began, self._leases.owner, True, actions, on_failure)
        return None

    def end_round(self) -> None:
        """End a round of claims: nothing more can be claimed.

        Raises:
            JournalCorrupt: Sagas were skipped because they cannot be read.
        """
        if self._unreadable:
            names = ", ".join(sorted(self._unreadable))
            self._unreadable.clear()
            raise JournalCorrupt(str(self._leases), f"sagas cannot be read: {names}")

    def _read(self, db: sqlite3.Connection, saga: str) -> tuple[StoredAction, ...]:
        try:
            return actions_of(db, saga)
        except sqlite3.DatabaseError as error:
            if not isinstance(explained(error, str(self._leases)), JournalCorrupt):
                raise
            self._unreadable.add(saga)
            raise SagaUnreadable(str(self._leases), f"saga {saga} cannot be read") from error

    def _rename(self, db: sqlite3.Connection, saga: str) -> tuple[str, tuple[StoredAction, ...]]:
        """Change the ids of a saga and its actions.

        A scope of this process may still know the saga by the old ids, from before the journal was
        closed. It must get `LeaseLost`, because the saga belongs to the recovery now.
        """
        new = uuid4().hex
        _ = db.execute("UPDATE saga SET id = ? WHERE id = ?", (new, saga))
        what = "UPDATE action SET saga = ?, id = id || ? WHERE saga = ?"
        _ = db.execute(what, (new, f".{new}", saga))
        return new, actions_of(db, new)

    def release(self, saga: str, db: sqlite3.Connection) -> None:
        """Release a saga: any process may claim it.

        Raises:
            LeaseLost: Another process has claimed it already.
        """
        self._leases.check(db, saga)
        _ = db.execute("UPDATE saga SET owner = '', epoch = epoch + 1 WHERE id = ?", (saga,))
        self._leases.drop(saga)

    def release_all(self, db: sqlite3.Connection) -> None:
        """Release all sagas that are open here, before the journal is closed.

        Settled sagas keep the id of their owner: to change it would take time in proportion to all
        sagas that were ever rolled back.
        """
        _ = db.execute(
            "UPDATE saga SET owner = '', epoch = epoch + 1 WHERE owner = ? "
            f"AND id IN (SELECT DISTINCT saga FROM action WHERE {OPEN})",
            (self._leases.owner,),
        )

    # For people.

    def retry(self, saga: str, db: sqlite3.Connection) -> int:
        """Make actions that were given up pending again: see `SqliteJournal.retry`."""
        alive, states = self._given_up(db, saga)
        into = uuid4().hex if alive else saga
        count = db.execute(
            "UPDATE action SET state = 'pending', attempts = 0, next_attempt = 0, saga = ? "
            f"WHERE saga = ? AND state IN ({states})",
            (into, saga),
        ).rowcount
        if alive and count:
            _ = db.execute(
                "INSERT INTO saga (id, name, began, owner, epoch, on_failure) "
                "SELECT ?, name, began, '', 1, on_failure FROM saga WHERE id = ?",
                (into, saga),
            )
        return count

    def discard(self, saga: str, reason: str, db: sqlite3.Connection) -> int:
        """Discard actions that were given up: see `SqliteJournal.discard`."""
        _, states = self._given_up(db, saga)
        return db.execute(
            "UPDATE action SET state = 'done', error = ?, ended = ? "
            f"WHERE saga = ? AND state IN ({states})",
            (discard_reason(reason), time.time(), saga),
        ).rowcount

    def _given_up(self, db: sqlite3.Connection, saga: str) -> tuple[bool, str]:
        """Return whether the saga has a living owner, and the states that a person may change.

        A living recoverer may be about to continue with a deferred action, or with those registered
        before it. It never touches a stuck action again.
        """
        row = db.execute("SELECT owner FROM saga WHERE id = ?", (saga,)).fetchone()
        alive = row is not None and self._leases.is_alive(row[0])
        return alive, "'stuck'" if alive else "'stuck', 'deferred'"
