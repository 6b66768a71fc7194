"""`JournalStatistics`: what a journal says of its requests."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["JournalStatistics"]


@dataclass(frozen=True, slots=True)
class JournalStatistics:
    """What a journal has written, and what waits. `SqliteJournal.statistics` makes it.

    They are of this object, since it was made: what other processes do is in the database.

    Attributes:
        waiting: Requests that were made and not answered.
        deferred: Commits and other changes without a waiting caller that are not written: they go
            into the next transaction.
        answered: Requests that were answered, also by an error.
        transactions: The transactions that they needed, successful or not.
        last_transaction: Seconds that the latest one took; 0 before the first.

    >>> JournalStatistics().waiting
    0
    """

    waiting: int = 0
    deferred: int = 0
    answered: int = 0
    transactions: int = 0
    last_transaction: float = 0.0
