"""The statements for scopes: `Journal`, in a transaction of the writer's thread."""

from __future__ import annotations

import sqlite3
import time
from collections import defaultdict
from uuid import uuid4

from returns_pipeline.compensation.protocol import Intent
from returns_pipeline.errors import LeaseLost
from returns_pipeline.journal._face import ActionChange, fenced
from returns_pipeline.journal.sqlite._leases import Leases
from returns_pipeline.journal.sqlite._schema import NO_ACTIONS, OPEN, placeholders, writable

__all__ = ["Ledger"]

# One statement inserts the action and checks its lease: a second one would cost half as much again.
_INSERT = (
    "INSERT INTO action (id, saga, position, path, key, name, version, arguments, state) "
    "SELECT ?, ?, ?, ?, ?, ?, ?, ?, 'pending' "
    "WHERE EXISTS (SELECT 1 FROM saga WHERE id = ? AND owner = ? AND epoch = ?)"
)


class Ledger:
    """Writes for scopes.

    Args:
        leases: The sagas that this process owns.
    """

    # Every method checks the lease of each saga that it changes, in the same transaction: before
    # the change, or after it with an error that rolls it back. So a process that was taken for dead
    # changes nothing. If the row of an action is missing, another process has deleted it, which
    # counts as a lost lease as well.

    def __init__(self, leases: Leases) -> None:
        self._leases = leases

    def insert(self, intent: Intent, arguments: str, db: sqlite3.Connection) -> None:
        """Record an action, and its saga if this is the saga's first action.

        Raises:
            LeaseLost: Another process has taken the saga over.
        """
        saga = intent.saga
        if not self._leases.is_known(saga):
            self._open(db, saga, intent.saga_name, intent.on_failure)
        inserted = db.execute(
            _INSERT,
            (
                intent.id,
                saga,
                intent.position,
                writable(intent.path),
                intent.key,
                intent.undo.name,
                intent.undo.version,
                arguments,
                saga,
                self._leases.owner,
                self._leases.epoch_of(saga),
            ),
        )
        if inserted.rowcount != 1:
            raise fenced(self._leases, saga)

    def _open(self, db: sqlite3.Connection, saga: str, name: str, on_failure: str) -> None:
        """Create a saga, or continue one that was settled here and so removed from memory."""
        try:
            _ = db.execute(
                "INSERT INTO saga (id, name, began, owner, epoch, on_failure) "
                "VALUES (?, ?, ?, ?, 1, ?)",
                (saga, writable(name), time.time(), self._leases.owner, on_failure),
            )
        except sqlite3.IntegrityError:
            self._leases.check(db, saga)
        else:
            self._leases.keep(saga, 1)

    def delete(self, ids: list[str], db: sqlite3.Connection) -> None:
        """Commit actions: delete them, and sagas that have no others.

        Raises:
            LeaseLost: Another process has taken over one of them.
        """
        for saga in self._each(db, "DELETE FROM action WHERE id IN ({})", (), ids):
            self._drop_if_empty(db, saga)

    def move(
        self, ids: list[str], saga: str, name: str, prefix: str, db: sqlite3.Connection
    ) -> None:
        """Move actions into another saga, which may be new.

        Raises:
            LeaseLost: Another process has taken over one of them, or the other saga.
        """
        left: dict[str, str] = {}  # the sagas that the actions leave, with their `on_failure`
        for part in _parts(ids):
            found = (
                "SELECT DISTINCT saga.id, on_failure FROM action JOIN saga ON saga.id = saga "
                f"WHERE action.id IN ({placeholders(part)})"
            )
            left.update(db.execute(found, part))
        if not self._leases.is_known(saga):
            self._open(db, saga, name, next(iter(left.values()), "continue"))
        self._leases.check(db, saga)
        what = "UPDATE action SET saga = ?, position = ? || position WHERE id IN ({})"
        _ = self._each(db, what, (saga, prefix), ids)
        for emptied in left.keys() - {saga}:
            self._drop_if_empty(db, emptied)

    def change(self, action: str, change: ActionChange, db: sqlite3.Connection) -> None:
        """Write the outcome of an attempt.

        Raises:
            LeaseLost: Another process has taken over the action.
        """
        columns: dict[str, object] = {}
        if change.state is not None:
            columns["state"] = change.state
        if change.state == "done":
            columns["ended"] = time.time()
        if change.error is not None:
            columns["error"] = change.error
        if change.next_attempt is not None:
            columns["next_attempt"] = change.next_attempt
        what = [f"{column} = ?" for column in columns]
        if change.begins_attempt:
            what.append("attempts = attempts + 1")
        statement = f"UPDATE action SET {', '.join(what)} WHERE id IN ({{}})"
        for saga in self._each(db, statement, tuple(columns.values()), [action]):
            self._leases.check(db, saga)
            if change.state in {"done", "stuck"}:
                self._leases.drop_if_settled(db, saga)

    def abandon(self, ids: list[str], db: sqlite3.Connection) -> None:
        """Leave actions to `recover`, of this process or another: they have no owner any more.

        They become a saga of their own, in the same order; the other actions of their saga stay.
        Actions that are not open, or that another process owns, are skipped.
        """
        sagas: dict[str, list[str]] = defaultdict(list)
        for part in _parts(ids):
            found = f"SELECT saga, id FROM action WHERE id IN ({placeholders(part)}) AND {OPEN}"
            for saga, action in db.execute(found, part):
                sagas[saga].append(action)
        for saga, actions in sagas.items():
            try:
                self._leases.check(db, saga)
            except LeaseLost:
                continue
            new = uuid4().hex
            _ = db.execute(
                "INSERT INTO saga (id, name, began, owner, epoch, on_failure) "
                "SELECT ?, name, began, '', 1, on_failure FROM saga WHERE id = ?",
                (new, saga),
            )
            for part in _parts(actions):
                what = f"UPDATE action SET saga = ? WHERE id IN ({placeholders(part)})"
                _ = db.execute(what, (new, *part))
            self._drop_if_empty(db, saga)

    def _each(
        self, db: sqlite3.Connection, what: str, values: tuple[object, ...], ids: list[str]
    ) -> set[str]:
        """Run a statement on actions; return the sagas that they are in afterwards.

        Raises:
            LeaseLost: Another process has removed some of the actions.
        """
        found: list[str] = []
        for part in _parts(ids):
            statement = f"{what.format(placeholders(part))} RETURNING saga"
            found += [row[0] for row in db.execute(statement, (*values, *part))]
        if len(found) != len(ids):
            raise fenced(self._leases)
        return set(found)

    def _drop_if_empty(self, db: sqlite3.Connection, saga: str) -> None:
        dropped = db.execute(
            f"DELETE FROM saga WHERE id = ? AND owner = ? AND epoch = ? AND {NO_ACTIONS}",
            (saga, self._leases.owner, self._leases.epoch_of(saga)),
        )
        if dropped.rowcount:
            self._leases.drop(saga)
        else:
            self._leases.check(db, saga)
            self._leases.drop_if_settled(db, saga)


def _parts(ids: list[str]) -> list[list[str]]:
    """Split a list, because a statement takes a limited number of values."""
    return [ids[start : start + 500] for start in range(0, len(ids), 500)]
