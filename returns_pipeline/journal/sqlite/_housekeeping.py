"""Housekeeping: deletes actions undone long ago, sagas without actions, and dead owners.

Every process does it for all, a bounded part at a time, so that other processes do not wait long.
No request depends on it.
"""

from __future__ import annotations

import contextlib
import math
import re
import sqlite3
import time
from collections.abc import Iterable
from typing import Final

from returns_pipeline.journal.sqlite import _owner_locks as owner_locks
from returns_pipeline.journal.sqlite._leases import Leases
from returns_pipeline.journal.sqlite._schema import NO_ACTIONS

__all__ = ["Housekeeping"]

# Seconds between two searches for rows to delete, and the most rows of each kind at a time.
EVERY = 60.0
AT_ONCE = 500

_OWNER: Final = re.compile("[0-9a-f]{32}")


class Housekeeping:
    """Deletes a bounded number of rows now and then. It runs in the writer's thread.

    It goes through sagas and owners in rounds, in the order of their ids, `AT_ONCE` of them at a
    time. So each is checked before long, and the cost of a search does not depend on their number.

    Args:
        leases: The sagas that this process owns.
        retention: Seconds that an undone action stays listed.
    """

    def __init__(self, leases: Leases, retention: float) -> None:
        self._leases = leases
        self._retention = retention
        self._next = -math.inf
        self._last_saga = -1  # the position of the round: the number of a saga
        self._last_owner = ""  # and the id of an owner

    def is_time(self) -> bool:
        """Return whether the last search was `EVERY` seconds ago."""
        return time.monotonic() >= self._next

    def is_due(self, db: sqlite3.Connection) -> bool:
        """Return whether there is anything to delete. This searches once in `EVERY` seconds."""
        if not self.is_time():
            return False
        self._next = time.monotonic() + EVERY
        old = db.execute("SELECT 1 FROM action WHERE ended < ? LIMIT 1", (self._until(),))
        if old.fetchone() or self._empty(db, self._part(db)) or self._dead_owners(db):
            return True
        self._go_on(db)
        return False

    def run(self, db: sqlite3.Connection) -> None:
        """Delete a bounded number of rows."""
        expired = db.execute(
            "DELETE FROM action WHERE id IN (SELECT id FROM action WHERE ended < ? LIMIT ?) "
            "RETURNING saga",
            (self._until(), AT_ONCE),
        ).fetchall()
        sagas = {saga for (saga,) in expired}.union(self._part(db))
        for saga in self._empty(db, sagas):
            _ = db.execute("DELETE FROM saga WHERE id = ?", (saga,))
            self._leases.drop(saga)
        for owner in self._dead_owners(db):
            self._leases.remove_owner(db, owner)
        if len(expired) == AT_ONCE:
            self._next = -math.inf  # there may be more

    def _until(self) -> float:
        return time.time() - self._retention

    def _part(self, db: sqlite3.Connection) -> list[str]:
        """Return the sagas that are next in the round."""
        part = "SELECT id FROM saga WHERE number > ? ORDER BY number LIMIT ?"
        return [saga for (saga,) in db.execute(part, (self._last_saga, AT_ONCE))]

    def _empty(self, db: sqlite3.Connection, sagas: Iterable[str]) -> list[str]:
        """Return the sagas without actions to which no other process can add any."""
        found: list[str] = []
        for saga in sagas:
            row = db.execute(
                f"SELECT owner FROM saga WHERE id = ? AND {NO_ACTIONS}", (saga,)
            ).fetchone()
            if row and (row[0] == self._leases.owner or not self._leases.is_alive(row[0])):
                found.append(saga)
        return found

    def _dead_owners(self, db: sqlite3.Connection) -> list[str]:
        rows = db.execute(
            "SELECT id FROM owner WHERE id > ? ORDER BY id LIMIT ?", (self._last_owner, AT_ONCE)
        ).fetchall()
        return [owner for (owner,) in rows if not self._leases.is_alive(owner)]

    def _go_on(self, db: sqlite3.Connection) -> None:
        """Advance each round, or begin it again."""
        part = "SELECT number FROM saga WHERE number > ? ORDER BY number LIMIT 1 OFFSET ?"
        row = db.execute(part, (self._last_saga, AT_ONCE - 1)).fetchone()
        self._last_saga = -1 if row is None else row[0]
        part = "SELECT id FROM owner WHERE id > ? ORDER BY id LIMIT 1 OFFSET ?"
        row = db.execute(part, (self._last_owner, AT_ONCE - 1)).fetchone()
        self._last_owner = "" if row is None else row[0]

    def remove_strays(self, db: sqlite3.Connection) -> None:
        """Remove lock files of owners that died before they were in the table, or after they left.

        This runs in a transaction, so no other owner begins meanwhile.
        """
        known = {owner for (owner,) in db.execute("SELECT id FROM owner")}
        prefix = owner_locks.lock_path(self._leases.path, "").name
        with contextlib.suppress(OSError):  # a directory that may not be listed
            for file in self._leases.path.parent.iterdir():
                of_us, _, owner = file.name.rpartition("-")
                if f"{of_us}-" != prefix or not _OWNER.fullmatch(owner) or owner in known:
                    continue
                if not self._leases.is_alive(owner):
                    owner_locks.remove(file)
