"""The common part of the two journal classes: entering, leaving, changes of actions, and texts.

`SqliteJournal` and `PostgresJournal` differ in how they write. A change of one action means the
same in both, so it is composed here (`ActionChange`) and written there (`ActionChanges`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, Self

from returns_pipeline.compensation.protocol import ActionRecord, Coverage
from returns_pipeline.errors import AlreadyCommitted, InvalidArgument, LeaseLost

__all__ = [
    "ActionChange",
    "ActionChanges",
    "JournalFace",
    "committed",
    "discard_reason",
    "error_text",
    "fenced",
    "partition_lost",
    "storable",
]

# Characters of an error's text that are kept. A driver may put a whole statement into its message.
_MOST_CHARACTERS = 1000


@dataclass(frozen=True, slots=True)
class ActionChange:
    """A change to the row of one action. A column that is ``None`` does not change.

    Attributes:
        state: The new state.
        error: Why the last attempt failed, or why none was made.
        next_attempt: When the action may be tried again, in seconds since 1970.
        begins_attempt: Whether one more attempt is counted.
    """

    state: Literal["done", "stuck", "deferred"] | None = None
    error: str | None = None
    next_attempt: float | None = None
    begins_attempt: bool = False


class ActionChanges(Protocol):
    """Writes changes to actions. It fails with `LeaseLost` if another process owns the action."""

    async def change(self, action: str, change: ActionChange, /) -> None:
        """Write a change. A cancelled caller does not know whether it was written."""

    def change_shielded(self, action: str, change: ActionChange, /) -> Awaitable[None]:
        """Request a change at once; the awaitable waits to the end: see `ShieldedFuture`."""
        ...


class JournalFace(ABC):
    """The common part of both journals.

    Args:
        changes: Writes the changes to actions.
    """

    def __init__(self, changes: ActionChanges) -> None:
        self._changes = changes
        self._coverage: Coverage | None = None

    @property
    def coverage(self) -> Coverage | None:
        """The source whose positions are stored here with the commits of its steps."""
        return self._coverage

    def attach(self, coverage: Coverage, /) -> None:
        """Store the positions of a source: see `Positions`."""
        if self._coverage is not None:
            raise InvalidArgument(f"another source stores its positions in {self}: open it twice")
        self._coverage = coverage

    def detach(self) -> None:
        """Forget the source."""
        self._coverage = None

    @abstractmethod
    async def _open(self) -> None:
        """Open the journal, or raise the `JournalError` that its first request would raise."""

    @abstractmethod
    async def close(self) -> None:
        """Carry out the waiting requests; other processes may then recover what is open."""

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self.close()  # `__aexit__` is not called if `__aenter__` raises
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def mark(self, action: str, /) -> ActionRecord:
        """Return the record of an action, for its rollback."""
        return _Record(self._changes, action)

    async def defer(self, action: str, reason: str) -> None:
        """Record that an action waits for a process that knows its name and version."""
        await self._changes.change(action, ActionChange("deferred", error=storable(reason)))

    async def postpone(self, action: str, error: object, until: float) -> None:
        """Record that an attempt failed, and when the next one may begin, in seconds since 1970."""
        change = ActionChange(error=error_text(error), next_attempt=until)
        await self._changes.change(action, change)


class _Record:
    """The record of one action, which a rollback or `recover` writes to."""

    __slots__ = ("_action", "_changes")

    def __init__(self, changes: ActionChanges, action: str) -> None:
        self._changes = changes
        self._action = action

    async def begin(self) -> None:
        """Count an attempt. If this raises, the attempt must not begin."""
        await self._changes.change(self._action, ActionChange(begins_attempt=True))

    def done(self) -> Awaitable[None]:
        """Record that the action is undone.

        The request is made at once, and shielded: if a cancellation lost it, the action would be
        undone a second time.
        """
        return self._changes.change_shielded(self._action, ActionChange("done"))

    async def give_up(self, error: object) -> None:
        """Make the action stuck, until a person retries or discards it."""
        await self._changes.change(self._action, ActionChange("stuck", error=error_text(error)))


def storable(text: str) -> str:
    """Return text that every database can store: without NUL, or half of a surrogate pair."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


def error_text(error: object) -> str:
    """Return the beginning of an error's ``repr()``, even if that raises."""
    try:
        text = repr(error)
    except Exception:  # noqa: BLE001  # the record of a failure must not fail
        text = object.__repr__(error)
    return storable(text[:_MOST_CHARACTERS])


def discard_reason(reason: str) -> str:
    """Return the text that is listed as the error of a discarded action."""
    return storable(f"discarded: {reason}")


def fenced(journal: object, saga: str = "") -> LeaseLost:
    """Return the error of a process whose saga, if known, was taken over."""
    what = f"saga {saga} was" if saga else "actions were"
    return LeaseLost(str(journal), f"{what} taken over by another process")


def committed(journal: object, saga: str) -> AlreadyCommitted:
    """Return the error of a rollback that learns of a commit whose answer was lost."""
    return AlreadyCommitted(str(journal), f"an action of saga {saga} was committed")


def partition_lost(journal: object, partition: str) -> LeaseLost:
    """Return the error of a process that commits messages of a partition that was taken over."""
    return LeaseLost(str(journal), f"another process has taken over partition {partition}")
