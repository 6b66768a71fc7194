"""The statements for scopes: `Journal`, in a transaction of the writer's thread."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from uuid import uuid4

from returns_pipeline._engine.spans import Spans
from returns_pipeline.compensation.protocol import HandledPositions, Intent, TakenPartition
from returns_pipeline.errors import JournalError, LeaseLost
from returns_pipeline.journal._face import ActionChange, fenced, partition_lost
from returns_pipeline.journal.sqlite._leases import Leases
from returns_pipeline.journal.sqlite._schema import NO_ACTIONS, OPEN, placeholders, writable

__all__ = ["Forget", "Ledger"]

_log = logging.getLogger("returns_pipeline.journal")

_INSERT = (
    "INSERT INTO action (id, saga, position, path, key, name, version, arguments, state) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'pending')"
)
_EMPTY_AND_OWN = f"owner = ? AND epoch = ? AND {NO_ACTIONS} RETURNING id"


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
        saga, leases = intent.saga, self._leases
        if not leases.is_known(saga):
            self._open(db, saga, intent.saga_name, intent.on_failure)
        leases.check(db, saga)  # free, if this transaction has created the saga
        _ = db.execute(
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
            ),
        )

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
        sagas = self._each(db, "DELETE FROM action WHERE id IN ({})", (), ids)
        self._drop_empty(db, sagas)

    def delete_rest(
        self,
        ids: list[str],
        on_lost: Callable[[JournalError], object],
        db: sqlite3.Connection,
    ) -> None:
        """Commit those actions that are open and owned here: see `Journal.forget_later`."""
        owned, others = self._sorted_by_owner(db, ids)
        for actions in owned.values():
            for part in _parts(actions):
                what = f"DELETE FROM action WHERE id IN ({placeholders(part)})"
                _ = db.execute(what, part)
        self._drop_empty(db, owned)
        for saga, actions in others.items():
            lost = fenced(self._leases, saga)
            _log.error("%s: %d were past their pivot", lost, len(actions))
            _ = on_lost(lost)

    def take(
        self, source: str, partitions: Sequence[str], db: sqlite3.Connection
    ) -> dict[str, TakenPartition]:
        """Take partitions: what other processes commit of them is refused from now on."""
        taken: dict[str, TakenPartition] = {}
        for partition in partitions:
            ((epoch, spans),) = db.execute(
                "INSERT INTO taken_partition VALUES (?, ?, 1, '[]') "
                "ON CONFLICT (source, partition) DO UPDATE SET epoch = epoch + 1 "
                "RETURNING epoch, spans",
                (writable(source), writable(partition)),
            ).fetchall()
            taken[partition] = TakenPartition(epoch, Spans.from_json(spans))
        return taken

    def forget_positions(
        self, source: str, partitions: Collection[str] | None, db: sqlite3.Connection
    ) -> list[str]:
        """Forget what is stored of partitions; what is committed of them now is refused."""
        forget = "UPDATE taken_partition SET epoch = epoch + 1, spans = '[]' WHERE source = ?"
        which: list[tuple[str, ...]]
        if partitions is None:
            which = [(writable(source),)]
        else:
            forget += " AND partition = ?"
            which = [(writable(source), writable(partition)) for partition in partitions]
        forget += " RETURNING partition"
        return sorted(row[0] for each in which for row in db.execute(forget, each).fetchall())

    def cover(self, positions: Sequence[HandledPositions], db: sqlite3.Connection) -> None:
        """Store positions, in the transaction of the commit that covers them.

        Raises:
            LeaseLost: Another process has taken one of the partitions.
        """
        for each in positions:
            which = (writable(each.source), writable(each.partition))
            row = db.execute(
                "SELECT epoch, spans FROM taken_partition WHERE source = ? AND partition = ?", which
            ).fetchone()
            if row is None or row[0] != each.epoch:
                raise partition_lost(self._leases, each.name)
            spans = Spans.from_json(row[1]).with_all(each.stretches)
            _ = db.execute(
                "UPDATE taken_partition SET spans = ? WHERE source = ? AND partition = ?",
                (spans.to_json(), *which),
            )

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
        self._drop_empty(db, left.keys() - {saga})

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
        owned, _others = self._sorted_by_owner(db, ids)
        for saga, actions in owned.items():
            new = uuid4().hex
            _ = db.execute(
                "INSERT INTO saga (id, name, began, owner, epoch, on_failure) "
                "SELECT ?, name, began, '', 1, on_failure FROM saga WHERE id = ?",
                (new, saga),
            )
            for part in _parts(actions):
                what = f"UPDATE action SET saga = ? WHERE id IN ({placeholders(part)})"
                _ = db.execute(what, (new, *part))
        self._drop_empty(db, owned)

    def _sorted_by_owner(
        self, db: sqlite3.Connection, ids: list[str]
    ) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """Return open actions of sagas that are owned here, and all actions of others, by saga."""
        owned: dict[str, list[str]] = defaultdict(list)
        others: dict[str, list[str]] = defaultdict(list)
        for part in _parts(ids):
            found = f"SELECT saga, id, {OPEN} FROM action WHERE id IN ({placeholders(part)})"
            for saga, action, is_open in db.execute(found, part).fetchall():
                try:
                    self._leases.check(db, saga)
                except LeaseLost:
                    others[saga].append(action)
                else:
                    if is_open:
                        owned[saga].append(action)
        return owned, others

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

    def _drop_empty(self, db: sqlite3.Connection, sagas: Iterable[str]) -> None:
        """Delete those sagas that have no actions, and forget those without open ones.

        Raises:
            LeaseLost: Another process has taken over one of them.
        """
        by_epoch: dict[int | None, list[str]] = {}
        for saga in sagas:
            by_epoch.setdefault(self._leases.epoch_of(saga), []).append(saga)
        for epoch, some in by_epoch.items():
            dropped: set[str] = set()
            for part in _parts(some):
                what = f"DELETE FROM saga WHERE id IN ({placeholders(part)}) AND {_EMPTY_AND_OWN}"
                rows = db.execute(what, (*part, self._leases.owner, epoch))
                dropped.update(row[0] for row in rows)
            for saga in some:
                if saga in dropped:
                    self._leases.drop(saga)
                else:
                    self._leases.check(db, saga)
                    self._leases.drop_if_settled(db, saga)


class Forget:
    """A commit. Its caller may withdraw it until the thread begins it.

    The commits of a transaction are carried out together: see `together`. Called alone, it is one
    of several that are tried one by one.
    """

    # The loop and the thread may decide at the same time: the first entry counts, and `setdefault`
    # is one step.

    __slots__ = ("_decided", "_ids", "_ledger", "_positions")

    def __init__(
        self, ledger: Ledger, ids: list[str], positions: Sequence[HandledPositions] = ()
    ) -> None:
        self._decided: dict[str, bool] = {}
        self._ids = ids
        self._ledger = ledger
        self._positions = positions

    def __call__(self, db: sqlite3.Connection) -> None:
        Forget.together([self], self._ledger, db)

    def _begins(self) -> bool:
        """Begin it, and return whether it was not withdrawn."""
        return self._decided.setdefault("begins", True)

    def withdraw(self) -> bool:
        """Take it back; return whether it had not begun."""
        return not self._decided.setdefault("begins", False)

    @staticmethod
    def together(commits: list[Forget], ledger: Ledger, db: sqlite3.Connection) -> None:
        """Carry out several commits by as few statements as for one.

        Raises:
            LeaseLost: Another process has taken over some of the actions, or partitions.
        """
        begun = [commit for commit in commits if commit._begins()]
        if ids := [action for commit in begun for action in commit._ids]:
            ledger.delete(ids, db)
        for commit in begun:
            if commit._positions:
                ledger.cover(commit._positions, db)


def _parts(ids: list[str]) -> list[list[str]]:
    """Split a list, because a statement takes a limited number of values."""
    if len(ids) <= 500:
        return [ids]
    return [ids[start : start + 500] for start in range(0, len(ids), 500)]
