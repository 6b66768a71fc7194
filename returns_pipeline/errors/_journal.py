"""The errors of a journal of undo actions."""

from __future__ import annotations

from returns_pipeline.errors._base import PipelineError

__all__ = [
    "AlreadyCommitted",
    "ArgumentsNotRecordable",
    "JournalCorrupt",
    "JournalError",
    "JournalUnavailable",
    "LeaseLost",
    "UnregisteredCompensation",
]


class JournalError(PipelineError):
    """A request to the journal of undo actions failed. Nothing in it has been deleted.

    Attributes:
        journal: The path or address of the journal, without a password.
        reason: What is wrong.

    >>> str(JournalError("file:a.db", "cannot do this"))
    'journal file:a.db: cannot do this'
    """

    def __init__(self, journal: str, reason: str) -> None:
        """Keep both facts as data; the message is made from them."""
        super().__init__(journal, reason)
        self.journal = journal
        self.reason = reason

    def __str__(self) -> str:
        """Name the journal, and say what is wrong."""
        return f"journal {self.journal}: {self.reason}"


class JournalUnavailable(JournalError):
    """The journal is full, read-only, locked or unreachable. The request is not on record.

    >>> str(JournalUnavailable("file:a.db", "the disk is full"))
    'journal file:a.db: the disk is full'
    """


class JournalCorrupt(JournalError):
    """The contents of the journal cannot be understood. Nothing in it is carried out.

    >>> str(JournalCorrupt("file:a.db", "no table of actions"))
    'journal file:a.db: no table of actions'
    """


class LeaseLost(JournalError):
    """Another process has taken over the actions; this one must not touch them.

    >>> str(LeaseLost("file:a.db", "another process recovers"))
    'journal file:a.db: another process recovers'
    """


class AlreadyCommitted(JournalError):
    """The action was committed: it must not be undone.

    A commit whose answer was lost raises `JournalUnavailable`, although it was carried out. A
    rollback learns of it by this error: see `CompensationReport.committed`.

    >>> str(AlreadyCommitted("file:a.db", "the action was committed"))
    'journal file:a.db: the action was committed'
    """


class UnregisteredCompensation(JournalError):
    """An undo has no name in a registry, so another process could not carry it out.

    >>> str(UnregisteredCompensation("file:a.db", "delete is not registered"))
    'journal file:a.db: delete is not registered'
    """


class ArgumentsNotRecordable(JournalError):
    """The arguments of an undo would not be read back as they are. It is not on record.

    >>> str(ArgumentsNotRecordable("file:a.db", "a set has no order"))
    'journal file:a.db: a set has no order'
    """
