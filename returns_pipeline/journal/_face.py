"""What the two journals' faces share: entering and leaving, notes on single actions, and texts.

`SqliteJournal` and `PostgresJournal` differ in how they write. A note on one action means the same
in both, so it is put together here (`ActionChange`) and written there (`ActionChanges`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, Self

from returns_pipeline.compensation.protocol import ActionRecord
from returns_pipeline.errors import LeaseLost

__all__ = [
    "ActionChange",
    "ActionChanges",
    "JournalFace",
    "discard_reason",
    "error_text",
    "fenced",
    "storable",
]

# Characters of an error's text that are kept. A driver may put a whole statement into its message.
_MOST_CHARACTERS = 1000


@dataclass(frozen=True, slots=True)
class ActionChange:
    """A change to the row of one action. What is ``None`` stays as it is.

    Attributes:
        state: The new state.
        error: Why the last attempt failed, or why there was none.
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
        """Ask for a change at once; the awaitable waits for it to the end: see `ShieldedFuture`."""
        ...


class JournalFace(ABC):
    """The common part of both journals.

    Args:
        changes: Writes the notes on actions.
    """

    def __init__(self, changes: ActionChanges) -> None:
        self._changes = changes

    @abstractmethod
    async def _open(self) -> None:
        """Open the journal, or raise the `JournalError` that its first request would raise."""

    @abstractmethod
    async def close(self) -> None:
        """Write what is waiting, and let other processes recover what is open."""

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self.close()  # `__aexit__` is not called for what was not entered
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
        """Note that an action waits for a process that knows its name and version."""
        await self._changes.change(action, ActionChange("deferred", error=storable(reason)))

    async def postpone(self, action: str, error: object, until: float) -> None:
        """Note that an attempt failed, and when the next one may begin, in seconds since 1970."""
        change = ActionChange(error=error_text(error), next_attempt=until)
        await self._changes.change(action, change)


class _Record:
    """The record of one action: what `CompensationScope` and `recover` write during a rollback."""

    __slots__ = ("_action", "_changes")

    def __init__(self, changes: ActionChanges, action: str) -> None:
        self._changes = changes
        self._action = action

    async def begin(self) -> None:
        """Count an attempt. If this raises, the attempt must not begin."""
        await self._changes.change(self._action, ActionChange(begins_attempt=True))

    def done(self) -> Awaitable[None]:
        """Note that the action is undone.

        This is asked for at once and shielded: a cancellation must not lose the note, or the action
        would be undone a second time.
        """
        return self._changes.change_shielded(self._action, ActionChange("done"))

    async def give_up(self, error: object) -> None:
        """Park the action until a person retries or discards it."""
        await self._changes.change(self._action, ActionChange("stuck", error=error_text(error)))


def storable(text: str) -> str:
    """Return text that every database stores: no NUL, and no half of a surrogate pair."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


def error_text(error: object) -> str:
    """Return the beginning of an error's ``repr()``, whatever that function does."""
    try:
        text = repr(error)
    except Exception:  # noqa: BLE001  # the record of a failure must not fail
        text = object.__repr__(error)
    return storable(text[:_MOST_CHARACTERS])


def discard_reason(reason: str) -> str:
    """Return what is listed as the error of an action that a person discarded."""
    return storable(f"discarded: {reason}")


def fenced(journal: object, saga: str = "") -> LeaseLost:
    """Return the error of a process whose saga was taken over, if it is known which one it was."""
    what = f"saga {saga} was" if saga else "actions were"
    return LeaseLost(str(journal), f"{what} taken over by another process")
