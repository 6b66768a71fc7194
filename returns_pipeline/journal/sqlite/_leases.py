"""What one opening of a journal owns: its id, and the epoch of each saga that it has open.

Every saga has an owner and an epoch, which goes up with each change of the owner. A process writes
to a saga only as its owner, in the epoch that it knows. A process that finds an owner dead removes
that owner; so an owner that was taken for dead finds out with its next transaction, whatever that
is about.

A `Leases` mirrors in memory what the transactions of its process have written. Each change of the
mirror is noted, so that it can be undone together with the transaction, or the savepoint, that made
it: a lease that was remembered but never written would fence nobody.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path

from returns_pipeline.errors import LeaseLost
from returns_pipeline.journal._face import fenced
from returns_pipeline.journal.sqlite import _owner_locks as owner_locks
from returns_pipeline.journal.sqlite._schema import OPEN

__all__ = ["Leases"]


class Leases:
    """The sagas that are owned here. Everything is called in the writer's thread.

    Args:
        journal: The file, absolute.

    Attributes:
        path: The file without symbolic links, once it is open: lock files are beside that.
        owner: The id under which this process owns sagas, another one each time it opens the file.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self.path = journal
        self.owner = ""
        # The epoch of each saga that has something open here. Those of earlier openings stay,
        # although their owner is no more: their scopes must learn that the lease is lost.
        self._epochs: dict[str, int] = {}
        self._changes: list[Callable[[], object]] = []  # each undoes one change of this transaction
        self._checked: set[str] = set()  # sagas whose lease was seen in this transaction

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
            _ = self._changes.pop()()
        self._checked.clear()  # some of the leases may have been written in what was rolled back

    def on_undo(self, change: Callable[[], object]) -> None:
        """Have this called if the transaction, or the savepoint, is rolled back."""
        self._changes.append(change)

    def is_known(self, saga: str) -> bool:
        """Return whether this process has had the saga open, under this owner or an earlier one."""
        return saga in self._epochs

    def keep(self, saga: str, epoch: int) -> None:
        """Remember a lease that this transaction has written."""
        self._changes.append(partial(self._set, saga, self._epochs.get(saga)))
        self._epochs[saga] = epoch
        self._checked.add(saga)

    def drop(self, saga: str) -> None:
        """Forget a lease: the saga is gone, is settled, or belongs to another process."""
        self._changes.append(partial(self._set, saga, self._epochs.pop(saga, None)))
        self._checked.discard(saga)

    def _set(self, saga: str, epoch: int | None) -> None:
        if epoch is None:
            _ = self._epochs.pop(saga, None)
        else:
            self._epochs[saga] = epoch

    # In the file.

    def epoch_of(self, saga: str) -> int | None:
        """Return the epoch in which this process has a saga, if it has."""
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
        """Forget a saga in which nothing is open, so that memory holds only what is open."""
        found = f"SELECT 1 FROM action WHERE saga = ? AND {OPEN} LIMIT 1"
        if db.execute(found, (saga,)).fetchone() is None:
            self.drop(saga)

    def is_alive(self, owner: str) -> bool:
        """Return whether an owner's process lives and has the journal open; "" is nobody."""
        return bool(owner) and owner_locks.is_alive(owner_locks.lock_path(self.path, owner))

    def remove_owner(self, db: sqlite3.Connection, owner: str) -> None:
        """Delete a dead owner from the record, and its lock file."""
        if owner and owner != self.owner:
            _ = db.execute("DELETE FROM owner WHERE id = ?", (owner,))
            owner_locks.remove(owner_locks.lock_path(self.path, owner))
