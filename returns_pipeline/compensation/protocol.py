"""The protocols of journals, and the records that they keep.

```
Journal             for a `CompensationScope`: record, commit, mark
RecoverableJournal  for `recover`: claim, release, and the outcome of attempts
OperableJournal     for the command line: the same, and list, retry, discard
DurableJournal      all of it: `returns_pipeline.testing.check_journal` tests an implementation
```

`returns_pipeline.journal.SqliteJournal` and `PostgresJournal` implement all four.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal, Protocol

from returns_pipeline._engine.pydantic_fields import PydanticField
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
class Intent(PydanticField):
    """An undo action, as a `Journal` records it before its effect.

    Attributes:
        id: Unique.
        saga: The id of its saga: all actions that are undone together. It is unique to the
            outermost scope.
        saga_name: The path of the outermost scope.
        position: A text that sorts the actions of a saga in the order of registration.
        path: The path of the scope it was registered in.
        key: The idempotency key of that scope.
        undo: The compensation that is called.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        on_failure: What a failed undo means for the actions registered before it: "continue" with
            them, or "stop". It is the same for the whole saga: see `CompensationScope`.

    >>> from returns_pipeline.compensation import CompensationRegistry
    >>> registry = CompensationRegistry()
    >>> @registry.compensation("delete")
    ... async def delete(path: str) -> None: ...
    >>> where = {"saga": "1", "saga_name": "shop", "position": "0", "path": "shop", "key": "k"}
    >>> Intent("1", **where, undo=delete, args=("a.txt",), kwargs={}).undo
    <compensation 'delete'>
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
    """Keeps undo actions where a crash cannot destroy them.

    An action that is recorded and not forgotten is undone. Every method raises `JournalError`, and
    nothing else.

    Methods may be coroutine functions, or return any other awaitable. A scope awaits it to its end,
    even when the scope's caller is cancelled.

    >>> import tempfile
    >>> from returns_pipeline.journal import SqliteJournal
    >>> from returns_pipeline.testing import run
    >>> from returns_pipeline import CompensationScope
    >>> async def shop(journal: Journal) -> str:
    ...     async with CompensationScope("shop", journal=journal) as scope:
    ...         return scope.path
    >>> async def main() -> None:
    ...     with tempfile.TemporaryDirectory() as folder:
    ...         async with SqliteJournal(f"{folder}/journal.db") as journal:
    ...             print(await shop(journal))
    >>> run(main())
    shop
    """

    def record(self, intent: Intent, /) -> Awaitable[None]:
        """Record an action. It is durable when this returns, and absent when this raises.

        Its arguments are stored as `returns_pipeline.journal.encode_arguments` returns them.
        """
        ...

    def forget(self, ids: Sequence[str], /) -> Awaitable[None]:
        """Commit: the actions will not be undone.

        The commit is durable when this returns; or, in a journal with lazy commits, when a later
        `flush` returns. Order is kept: a commit is never durable later than an action that was
        recorded after it.
        """
        ...

    def flush(self) -> Awaitable[None]:
        """Return when all commits that have returned are durable.

        If one of them failed, also a while ago, its error is raised.
        """
        ...

    def move(self, ids: Sequence[str], /, *, saga: str, name: str, prefix: str) -> None:
        """Move actions into another saga, of this name, with ``prefix`` before their positions.

        The move is carried out in the order of requests, and is durable when a later request is.
        """

    def abandon(self, ids: Sequence[str], /) -> None:
        """Leave actions to `recover`, of this process or another: they have no owner any more.

        For a rollback that could not run them, because the journal failed. This returns at once.
        The record is written as soon as possible, even if the journal is unreachable, locked or
        full now. The actions stay pending, in their order, in a saga of their own. Actions that
        were undone or given up, or that another process owns, are skipped.
        """

    def mark(self, action: str, /) -> ActionRecord:
        """Return the record of an action, for the rollback."""
        ...


class ActionRecord(Protocol):
    """The durable record of an action.

    >>> from returns_pipeline.testing import run
    >>> class Printed:
    ...     async def begin(self) -> None:
    ...         print("an attempt begins")
    ...     async def done(self) -> None:
    ...         print("undone")
    ...     async def give_up(self, error: object) -> None:
    ...         print(f"stuck: {error}")
    >>> record: ActionRecord = Printed()
    >>> run(record.give_up("gone"))
    stuck: gone
    """

    async def begin(self) -> None:
        """Record that an attempt begins. If this raises, no attempt is made."""

    def done(self) -> Awaitable[None]:
        """Record that the action is undone. The caller awaits this to its end."""
        ...

    async def give_up(self, error: object) -> None:
        """Record that the action is stuck: no attempt is made until a person retries it."""


@dataclass(frozen=True, slots=True)
class StoredAction:
    """An undo action, as a journal stores it.

    Attributes:
        id: Unique.
        position: A text that sorts the actions of a saga in the order of registration.
        path: The path of its scope.
        key: The idempotency key of its scope.
        name: The name of the compensation.
        version: The version of its parameters.
        arguments: Its arguments, as JSON.
        state: "pending", "done", "stuck" or "deferred".
        attempts: How many attempts have begun.
        next_attempt: When it may be tried again, in seconds since 1970; 0 for at once.
        error: The last error, as text.

    >>> place = {"position": "0", "path": "shop/write", "key": "k"}
    >>> what = {"name": "delete", "version": 1, "arguments": '{"path": "a.txt"}'}
    >>> how = {"state": "stuck", "attempts": 3, "next_attempt": 0.0, "error": "gone"}
    >>> action = StoredAction("1", **place, **what, **how)
    >>> f"{action.name} is {action.state} after {action.attempts} attempts"
    'delete is stuck after 3 attempts'
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
        began: When it was opened, in seconds since 1970.
        owner: The id of the open journal that owns it; empty if it has no owner.
        alive: Whether that owner is alive.
        actions: Its actions, the last registered first.
        on_failure: What a failed undo means for the actions registered before it: "continue" with
            them, or "stop".

    >>> saga = StoredSaga("1", "shop", began=0.0, owner="", alive=False, actions=())
    >>> saga.on_failure
    'continue'
    """

    id: str
    name: str
    began: float
    owner: str
    alive: bool
    actions: tuple[StoredAction, ...]
    on_failure: Literal["continue", "stop"] = "continue"


@dataclass(frozen=True, slots=True)
class RecoveryReport(PydanticField):
    """The outcome of one saga that a dead process left open.

    Attributes:
        saga: Its id.
        name: The path of the scope that opened it.
        done: Actions that were undone.
        stuck: Actions that were given up, until a person retries or discards them.
        deferred: Actions left for a process that knows their name and version, and the actions
            registered before them.
        error: The error of the journal that stopped this process. Actions that are in none of the
            three tuples are as they were.

    >>> report = RecoveryReport("1", "shop")
    >>> report.stuck, report.error
    ((), None)
    """

    saga: str
    name: str
    done: tuple[CompensationEntry, ...] = ()
    stuck: tuple[CompensationEntry, ...] = ()
    deferred: tuple[CompensationEntry, ...] = ()
    error: JournalError | None = None


class RecoverableJournal(Protocol):
    """The part of a journal that `recover` uses.

    >>> import tempfile
    >>> from returns_pipeline.journal import SqliteJournal
    >>> from returns_pipeline.testing import run
    >>> async def has_work(journal: RecoverableJournal) -> bool:
    ...     return await journal.claim(besides=set()) is not None
    >>> async def main() -> None:
    ...     with tempfile.TemporaryDirectory() as folder:
    ...         async with SqliteJournal(f"{folder}/journal.db") as journal:
    ...             print(await has_work(journal))
    >>> run(main())
    False
    """

    async def claim(self, *, besides: AbstractSet[str]) -> StoredSaga | None:
        """Take over the newest saga that has pending actions and no living owner.

        No other process can claim it at the same time.

        Args:
            besides: Ids of sagas that are not claimed.
        """

    async def release(self, saga: str) -> None:
        """Release a saga: another process may claim it."""

    async def defer(self, action: str, reason: str) -> None:
        """Record that an action waits for a process that knows its name and version."""

    async def postpone(self, action: str, error: object, until: float) -> None:
        """Record that an attempt failed, and when the next one may begin, in seconds since 1970."""

    def mark(self, action: str, /) -> ActionRecord:
        """Return the record of an action."""
        ...


class OperableJournal(RecoverableJournal, Protocol):
    """The part of a journal that the command line uses.

    >>> import tempfile
    >>> from returns_pipeline.journal import SqliteJournal
    >>> from returns_pipeline.testing import run
    >>> async def unfinished(journal: OperableJournal) -> int:
    ...     return len(await journal.sagas(done=False))
    >>> async def main() -> None:
    ...     with tempfile.TemporaryDirectory() as folder:
    ...         async with SqliteJournal(f"{folder}/journal.db") as journal:
    ...             print(await unfinished(journal))
    >>> run(main())
    0
    """

    async def sagas(self, *, done: bool = True) -> list[StoredSaga]:
        """Return what is on record, the newest saga first: see `DurableJournal.sagas`."""
        ...

    async def retry(self, saga: str) -> int:
        """Make the stuck and deferred actions of a saga pending again; return how many."""
        ...

    async def discard(self, saga: str, reason: str) -> int:
        """Discard the stuck and deferred actions of a saga; return how many."""
        ...

    async def close(self) -> None:
        """Close the journal: other processes may recover what it has open."""


class DurableJournal(Journal, RecoverableJournal, Protocol):
    """A complete journal: for scopes, for `recover`, and for people.

    Each object is an *owner*: it owns what was recorded through it until it is closed or its
    process ends. Every method raises `JournalError` and nothing else; if another owner has taken
    over, `LeaseLost`. Arguments are stored as `returns_pipeline.journal.encode_arguments` returns
    them.

    >>> import tempfile
    >>> from returns_pipeline.journal import SqliteJournal
    >>> from returns_pipeline.testing import run
    >>> async def shut_down(journal: DurableJournal) -> None:
    ...     await journal.flush()  # commits that are not yet written
    ...     await journal.close()
    >>> async def main() -> None:
    ...     with tempfile.TemporaryDirectory() as folder:
    ...         async with SqliteJournal(f"{folder}/journal.db") as journal:
    ...             await shut_down(journal)
    >>> run(main())
    """

    async def sagas(self, *, done: bool = True) -> list[StoredSaga]:
        """Return what is on record: the newest saga first, in it the last registered action.

        Args:
            done: Whether to include sagas of which all actions are done. What the others cost to
                read must not depend on how many of those there are.
        """
        ...

    async def retry(self, saga: str) -> int:
        """Make the stuck and deferred actions of a saga pending again; return how many."""
        ...

    async def discard(self, saga: str, reason: str) -> int:
        """Discard the stuck and deferred actions of a saga; return how many."""
        ...

    async def close(self) -> None:
        """Close the journal: other owners may recover what it has open."""
