"""The protocols of journals, and the records that they keep.

::

    Journal             for a `CompensationScope`: record, commit, mark
    RecoverableJournal  for `recover`: claim, release, and the outcome of attempts
    OperableJournal     for the command line: the same, and list, retry, discard, positions
    DurableJournal      all of it: `returns_pipeline.testing.check_journal` tests an implementation
    Positions           for a `Source`: how far the committed steps have come

`returns_pipeline.journal.SqliteJournal` and `PostgresJournal` implement all five.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from returns_pipeline._engine.pydantic_fields import PydanticField
from returns_pipeline._engine.spans import Spans, Stretch
from returns_pipeline.compensation._registry import Compensation
from returns_pipeline.compensation._report import CompensationEntry
from returns_pipeline.errors import JournalError

__all__ = [
    "ActionRecord",
    "Coverage",
    "DurableJournal",
    "HandledPositions",
    "Intent",
    "Journal",
    "OperableJournal",
    "Positions",
    "RecoverableJournal",
    "RecoveryReport",
    "StoredAction",
    "StoredPositions",
    "StoredSaga",
    "TakenPartition",
]


class TakenPartition(NamedTuple):
    """What is stored of a partition, for the process that reads it from now on.

    Attributes:
        epoch: How often the partition was taken. What is committed with an older one is refused.
        spans: The positions that were handled.

    >>> TakenPartition(1, Spans()).spans.mark is None
    True
    """

    epoch: int
    spans: Spans


class HandledPositions(NamedTuple):
    """The positions of one partition that a commit covers.

    Attributes:
        source: What is read, as in ``"kafka orders/billing"``.
        name: The partition, as messages have it.
        partition: What it is called where positions are stored: which one of that name.
        epoch: That of the `TakenPartition`.
        stretches: The positions.

    >>> where = ("kafka orders/billing", "orders-3", "orders-3")
    >>> HandledPositions(*where, 1, (Stretch((), (41,)),)).epoch
    1
    """

    source: str
    name: str
    partition: str
    epoch: int
    stretches: tuple[Stretch, ...]


@dataclass(frozen=True, slots=True)
class StoredPositions:
    """The positions of one partition that are stored, for people.

    Attributes:
        source: What is read, as in ``"kafka orders/billing"``.
        partition: What it is called there: see `HandledPositions`.
        epoch: How often it was taken by a process, or forgotten.
        spans: The positions.

    >>> StoredPositions("kafka orders/billing", "orders-3", 1, Spans()).spans.mark is None
    True
    """

    source: str
    partition: str
    epoch: int
    spans: Spans


class Coverage(Protocol):
    """Returns which positions a step has handled: a `Source` does.

    Both methods take the value that the step got: a message, or windows and tuples of messages.

    >>> def newest(coverage: Coverage, value: object) -> list[int]:
    ...     return [stretch.last[-1] for p in coverage.covered(value) for stretch in p.stretches]
    """

    def covered(self, value: object, /) -> Sequence[HandledPositions]:
        """Return the positions of the messages in a value, and those handled before them.

        Raises:
            PartitionsLost: Another process owns the partition of a message now.
            RuntimeError: There is no message; or one was committed before, or is there twice. To
                store its position would skip it when only a part of it was handled.
        """
        ...

    def committed(self, value: object, /) -> None:
        """Record that this value was committed."""
        ...


class Positions(Protocol):
    """Keeps the positions of messages together with their effects: a journal, or a sink.

    `returns_pipeline.connectors.Source` uses it, if its driver was given one: it asks what to skip,
    and says what a commit covers. One source at a time may use it.

    >>> from returns_pipeline.journal import SqliteJournal
    >>> positions: Positions = SqliteJournal("journal.db")
    """

    def attach(self, coverage: Coverage, /) -> None:
        """Ask this source from now on.

        Raises:
            InvalidArgument: Another source uses it.
        """
        ...

    def detach(self) -> None:
        """Forget the source: it has ended."""
        ...

    async def take(self, source: str, partitions: Sequence[str], /) -> Mapping[str, TakenPartition]:
        """Return what is stored of these partitions, and refuse what others commit of them now.

        Commits that are under way have ended when this returns, and are in what it returns, or they
        fail.
        """
        ...


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

    def forget(
        self, ids: Sequence[str], /, positions: Sequence[HandledPositions] = ()
    ) -> Awaitable[None]:
        """Commit: the actions will not be undone.

        With ``positions``, the positions of messages are stored in the same transaction: either
        both are durable, or neither. If another process has taken one of their partitions, this
        raises `LeaseLost`. It is called with positions only by a step of a `Source` that was given
        this journal (see `Positions`), and perhaps without actions.

        The commit is durable when this returns; or, in a journal with lazy commits, when a later
        `flush` returns. Order is kept: a commit is never durable later than an action that was
        recorded after it.

        If the answer to a commit is lost, this raises `JournalUnavailable`, although the actions
        may be committed. If they are, a repeated commit of them succeeds, and `ActionRecord.begin`
        raises `AlreadyCommitted`.
        """
        ...

    def flush(self) -> Awaitable[None]:
        """Return when all commits that have returned are durable.

        If one of them failed, also a while ago, its error is raised.
        """
        ...

    def forget_later(
        self, ids: Sequence[str], on_lost: Callable[[JournalError], object], /
    ) -> None:
        """Commit as soon as possible: for a commit that must not be undone although it was refused.

        This returns at once. While the journal is unreachable, locked or full, the commit is tried
        again, by itself and with each request; `flush` and ``close`` try it, too, and raise if it
        could not be written. If the process ends before, the actions are undone by `recover`.
        Actions that are not open any more are skipped.

        ``on_lost`` is called if the commit, or a part of it, can never be written: another process
        owns the actions (`LeaseLost`), or the journal was closed first. It is called before the
        next `flush` returns, in any thread, and perhaps more than once.

        Raises:
            JournalError: The commit can never be written.
        """

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
        """Record that an attempt begins. If this raises, no attempt is made.

        Raises:
            AlreadyCommitted: A commit of the action was carried out, although it raised
                `JournalUnavailable`. The action is not undone, and counts as committed.
            JournalError: It is not on record.
        """

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

    async def claim(
        self, *, besides: AbstractSet[str], known: Mapping[str, int] | None = None
    ) -> StoredSaga | None:
        """Take over the newest saga that has pending or deferred actions and no living owner.

        No other process can claim it at the same time.

        Args:
            besides: Ids of sagas that are not claimed.
            known: The names of actions that the caller knows, with their newest version. A saga is
                passed over if its newest open action was deferred, and the caller does not know it
                either. ``None`` if no saga is passed over.
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

    async def stored_positions(self) -> list[StoredPositions]:
        """Return which positions of sources are stored, by source and partition.

        It takes no lock, and changes nothing.
        """
        ...

    async def forget_positions(
        self, source: str, partitions: Collection[str] | None = None
    ) -> list[str]:
        """Forget the positions of partitions of a source, or of all; return of which there were.

        A process that reads them is refused at its next commit. The next one reads on where the
        broker has it begin, and what it is given again is done again.
        """
        ...

    async def close(self) -> None:
        """Close the journal: other processes may recover what it has open."""


class DurableJournal(Journal, RecoverableJournal, Positions, Protocol):
    """A complete journal: for scopes, for `recover`, for the positions of a source, and for people.

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

    @property
    def coverage(self) -> Coverage | None:
        """What `Positions.attach` was given, until `Positions.detach`."""
        ...

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
