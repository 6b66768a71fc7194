"""The leases of one opening of a journal: the owner's id, and the epoch of each open saga.

Every saga has an owner and an epoch, which rises with each change of the owner. A process writes to
a saga only as its owner, in the epoch that it knows (a *fencing token*). A process that finds an
owner dead removes that owner from the table. So the next transaction of an owner that was wrongly
found dead fails, whatever that transaction is about.

A `Leases` mirrors in memory what the transactions of its process have written. Each change of the
mirror is recorded, so that it can be undone together with the transaction, or the savepoint, that
made it. A lease in memory that was never written would let a fenced process continue.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from returns_pipeline.errors import LeaseLost
from returns_pipeline.journal._face import fenced
from returns_pipeline.journal.sqlite import _owner_locks as owner_locks
from returns_pipeline.journal.sqlite._schema import OPEN

__all__ = ["Leases"]


class Leases:
    """The sagas that are owned here. Only the writer's thread calls the methods.

    Args:
        journal: The file, absolute.

    Attributes:
        path: The file without symbolic links, once it is open. Lock files are in its directory.
        owner: The id under which this process owns sagas, a new one each time it opens the file.
    """

    # A saga is in `_epochs` if it may have open actions here. It is removed when it is settled, so
    # memory grows with what is open only. `check` puts it back if it is written to again.

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self.path = journal
        self.owner = ""
        # The epoch of each saga with open actions. Sagas of earlier openings stay, although their
        # owner is gone: their scopes must get `LeaseLost`.
        self._epochs: dict[str, int] = {}
        # Each undoes one change of this transaction: a saga with its epoch before, or a function.
        self._changes: list[tuple[str, int | None] | Callable[[], object]] = []
        self._checked: set[str] = set()  # sagas whose lease this transaction has checked

    def __str__(self) -> str:
        return str(self._journal)

    def begin(self, db: sqlite3.Connection) -> None:
        """Begin a transaction.

        Raises:
            LeaseLost: Another process took this one for dead.
        """
        self._changes.clear()
        self._checked.clear()
        if not db.execute("SELECT 1 FROM owner WHERE id = ?", (self.owner,)).fetchone():
            raise LeaseLost(str(self), "this process was taken for dead by another")

    # The mirror in memory.

    def position(self) -> int:
        """Return how many changes this transaction has made in memory."""
        return len(self._changes)

    def undo_in_memory(self, to: int) -> None:
        """Undo the changes made since `position` returned this: they were rolled back."""
        while len(self._changes) > to:
            change = self._changes.pop()
            if callable(change):
                _ = change()
            elif change[1] is None:
                _ = self._epochs.pop(change[0], None)
            else:
                self._epochs[change[0]] = change[1]
        self._checked.clear()  # some of the leases may have been written in what was rolled back

    def on_undo(self, change: Callable[[], object]) -> None:
        """Register a function to be called if the transaction, or savepoint, is rolled back."""
        self._changes.append(change)

    def is_known(self, saga: str) -> bool:
        """Return whether this process has had the saga open, under this owner or an earlier one."""
        return saga in self._epochs

    def keep(self, saga: str, epoch: int) -> None:
        """Remember a lease that this transaction has written."""
        self._changes.append((saga, self._epochs.get(saga)))
        self._epochs[saga] = epoch
        self._checked.add(saga)

    def drop(self, saga: str) -> None:
        """Forget a lease: the saga is gone, is settled, or belongs to another process."""
        self._changes.append((saga, self._epochs.pop(saga, None)))
        self._checked.discard(saga)

    # In the file.

    def epoch_of(self, saga: str) -> int | None:
        """Return the epoch in which this process owns a saga; None if it does not."""
        return self._epochs.get(saga)

    def check(self, db: sqlite3.Connection, saga: str) -> None:
        """Refuse to write to a saga that is not owned here.

        Raises:
            LeaseLost: Another process has taken the saga over.
        """
        if saga in self._checked:
            return
        row = db.execute("SELECT owner, epoch FROM saga WHERE id = ?", (saga,)).fetchone()
        if row is not None and saga not in self._epochs and row[0] == self.owner:
            self.keep(saga, row[1])  # it was dropped when it was settled
        if row is None or row != (self.owner, self._epochs.get(saga)):
            raise fenced(self, saga)
        self._checked.add(saga)

    def drop_if_settled(self, db: sqlite3.Connection, saga: str) -> None:
        """Forget a saga without open actions, so that memory holds only open sagas."""
        found = f"SELECT 1 FROM action WHERE saga = ? AND {OPEN} LIMIT 1"
        if db.execute(found, (saga,)).fetchone() is None:
            self.drop(saga)

    def is_alive(self, owner: str) -> bool:
        """Return whether an owner is alive and has the journal open; "" means no owner."""
        return bool(owner) and owner_locks.is_alive(owner_locks.lock_path(self.path, owner))

    def remove_owner(self, db: sqlite3.Connection, owner: str) -> None:
        """Delete a dead owner from the table, and its lock file."""
        if owner and owner != self.owner:
            _ = db.execute("DELETE FROM owner WHERE id = ?", (owner,))
            owner_locks.remove(owner_locks.lock_path(self.path, owner))
