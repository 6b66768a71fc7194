"""What scopes, `recover` and people ask of a journal, and what a journal keeps.

```
Journal             what a `CompensationScope` needs: record, commit, mark
RecoverableJournal  what `recover` needs: claim and release, and notes on attempts
OperableJournal     what the command line needs: that, and a list, retry, discard
DurableJournal      all of it: `returns_pipeline.testing.check_journal` checks that one holds
```

`returns_pipeline.journal.SqliteJournal` and `PostgresJournal` are such journals.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal, Protocol

from returns_pipeline.compensation._registry import Compensation
from returns_pipeline.compensation._report import CompensationEntry
from returns_pipeline.errors import JournalError

__all__ = [
    "ActionRecord",
    "DurableJournal",
    "Intent",
    "Journal",
    "OperableJournal",
    "RecoverableJournal",
    "RecoveryReport",
    "StoredAction",
    "StoredSaga",
]


@dataclass(frozen=True, slots=True)
class Intent:
    """What a `Journal` keeps of an undo action, before its effect.

    Attributes:
        id: Unique.
        saga: What it is undone together with: unique to the outermost scope it is in.
        saga_name: The path of that scope.
        position: Sorts the actions of a saga by text in the order of registration.
        path: The path of its scope.
        key: The idempotency key of its scope.
        undo: What undoes it.
        args: With these.
        kwargs: And with these.
        on_failure: What a failed undo means for those registered before it, as
            `CompensationScope` has it: "continue" with them, or "stop". It holds for the saga.
    """

    id: str
    saga: str
    saga_name: str
    position: str
    path: str
    key: str
    undo: Compensation[...]
    args: tuple[object, ...]
    kwargs: Mapping[str, object]
    on_failure: Literal["continue", "stop"] = "continue"


class Journal(Protocol):
    """Keeps undo actions where a crash cannot reach them.

    What is on record and not forgotten is undone. All of it raises `JournalError`.

    What its methods give may be a coroutine or any other awaitable. Scopes await it to its end,
    also when they are cancelled.
    """

    def record(self, intent: Intent, /) -> Awaitable[None]:
        """Put an action on record. It is durable when this returns, or not there if it raises.

        Its arguments are kept as `returns_pipeline.journal.encode_arguments` gives them.
        """
        ...

    def forget(self, ids: Sequence[str], /) -> Awaitable[None]:
        """Commit: the actions need not be undone.

        It is durable when this returns; or, if the journal was told that commits may be lazy, when
        a later `flush` returns. Order is kept: it is never durable later than what is recorded
        after it.
        """
        ...

    def flush(self) -> Awaitable[None]:
        """Return when all commits that have returned are durable.

        It raises what has kept one of them from it, also when that was a while ago.
        """
        ...

    def move(self, ids: Sequence[str], /, *, saga: str, name: str, prefix: str) -> None:
        """Put actions into another saga, of this name, with ``prefix`` before their positions.

        It takes its turn among the other requests, and is durable when a later one is.
        """

    def abandon(self, ids: Sequence[str], /) -> None:
        """Leave actions to `recover`, of this process or another: nobody owns them any more.

        For a rollback that the journal kept from running them. It returns at once, and is written
        as soon as the journal can be, also if that is away, locked or full now. The actions stay
        pending, in their order, in a saga of their own. Those that are undone, given up or
        another process's are passed over.
        """

    def mark(self, action: str, /) -> ActionRecord:
        """Return the record of an action, for the rollback."""
        ...


class ActionRecord(Protocol):
    """The durable record of an action."""

    async def begin(self) -> None:
        """Note that an attempt begins. If this fails, it does not."""

    def done(self) -> Awaitable[None]:
        """Note that it is undone. This is awaited to its end: see `shielded`."""
        ...

    async def give_up(self, error: object) -> None:
        """Note that it is not, and not tried again without being told to."""


@dataclass(frozen=True, slots=True)
class StoredAction:
    """An undo action as a journal has it.

    Attributes:
        id: Unique.
        position: Sorts the actions of a saga in the order of registration.
        path: The path of its scope.
        key: The idempotency key of its scope.
        name: The name of the compensation.
        version: The version of its parameters.
        arguments: As JSON text.
        state: "pending", "done", "stuck" or "deferred".
        attempts: How often it was begun.
        next_attempt: When it may be tried again, in seconds since 1970; 0 for at once.
        error: Why it failed last.
    """

    id: str
    position: str
    path: str
    key: str
    name: str
    version: int
    arguments: str
    state: str
    attempts: int
    next_attempt: float
    error: str


@dataclass(frozen=True, slots=True)
class StoredSaga:
    """Actions that are undone together.

    Attributes:
        id: Unique.
        name: The path of the scope that opened it.
        began: When, in seconds since 1970.
        owner: Who has it open; empty if nobody.
        alive: Whether that one is still there.
        actions: The last registered first.
        on_failure: What a failed undo means for those registered before it: "continue" with them,
            or "stop".
    """

    id: str
    name: str
    began: float
    owner: str
    alive: bool
    actions: tuple[StoredAction, ...]
    on_failure: Literal["continue", "stop"] = "continue"


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What became of one saga that was left open.

    Attributes:
        saga: Its id.
        name: The path of the scope that opened it.
        done: Actions that were undone.
        stuck: Actions that were given up, until somebody says otherwise.
        deferred: Actions left for a process that knows their name and version, with those
            registered before them.
        error: Why the journal did not let this process go on with the saga; what is not in the
            other three is left as it was.
    """

    saga: str
    name: str
    done: tuple[CompensationEntry, ...] = ()
    stuck: tuple[CompensationEntry, ...] = ()
    deferred: tuple[CompensationEntry, ...] = ()
    error: JournalError | None = None


class RecoverableJournal(Protocol):
    """What `recover` needs of a journal."""

    async def claim(self, *, besides: AbstractSet[str]) -> StoredSaga | None:
        """Take over the newest saga whose owner is dead, with something to do; no other can."""

    async def release(self, saga: str) -> None:
        """Release a saga: another process may claim it."""

    async def defer(self, action: str, reason: str) -> None:
        """Note that an action waits for a process that knows it."""

    async def postpone(self, action: str, error: object, until: float) -> None:
        """Note that an attempt failed, and when the next may begin."""

    def mark(self, action: str, /) -> ActionRecord:
        """Return the record of an action."""
        ...


class OperableJournal(RecoverableJournal, Protocol):
    """What the command needs of a journal."""

    async def sagas(self) -> list[StoredSaga]:
        """List what is on record, the newest first."""
        ...

    async def retry(self, saga: str) -> int:
        """Make the stuck and deferred actions of a saga pending again; return how many."""
        ...

    async def discard(self, saga: str, reason: str) -> int:
        """Discard the stuck and deferred actions of a saga; return how many."""
        ...

    async def close(self) -> None:
        """Release everything."""


class DurableJournal(Journal, RecoverableJournal, Protocol):
    """All that a journal is asked for: by scopes, by `recover`, and by people.

    Each object is an owner: what was recorded through it is its own until it is closed, or until
    its process ends. All of it raises `JournalError` and nothing else; `LeaseLost` where another
    owner has taken over. Arguments are kept as `returns_pipeline.journal.encode_arguments` gives
    them.
    """

    async def sagas(self) -> list[StoredSaga]:
        """List what is on record, the newest saga first; in each the last registered action."""
        ...

    async def retry(self, saga: str) -> int:
        """Make the stuck and deferred actions of a saga pending again; return how many."""
        ...

    async def discard(self, saga: str, reason: str) -> int:
        """Discard the stuck and deferred actions of a saga; return how many."""
        ...

    async def close(self) -> None:
        """Release everything: others may recover what is open."""
