"""The errors of the library: one tree.

::

    PipelineError
    ├── InvalidArgument (also ValueError)   an argument is out of range; raised at the call
    ├── StreamEmpty                         first() or last() of a stream without items
    ├── BufferOverflow                      the buffer of a branch that is not read overflowed
    ├── ChannelClosed                       a channel takes no more items
    ├── NotHandled                          a stream ended before it had handled an item
    ├── ItemsRefused                        a worker ended without taking the items of its key
    ├── UnevenSources                       streams to be zipped are not equally long
    ├── StepTimeout                         a step or an undo was cancelled at its time limit
    ├── RetriesExhausted                    a step failed and is not tried again
    ├── ItemError                           a step failed, with the item that it failed for
    ├── AllFailed                           steps that ran side by side failed
    ├── CircuitOpen                         a circuit breaker refused a step
    ├── BulkheadFull                        a bulkhead refused a step
    ├── CompensationFailed                  undo actions failed or were not run
    ├── ScopeClosed                         a scope or context accepts no more actions
    ├── ScopeBusy                           a context is running another step
    ├── MissingExtra (also ImportError)     an optional package is not installed
    ├── ConnectionLost                      a broker cannot be reached
    ├── PartitionsLost                      another process owns partitions now
    ├── PartitionReplaced                   a partition is not the one whose positions are stored
    ├── DecodeError                         a message cannot be read
    ├── PublishError                        a broker has not confirmed messages
    ├── TooManyDeliveries                   a message was delivered too often
    └── JournalError                        a request to the journal of undo actions failed
        ├── UnregisteredCompensation        an undo has no name in a registry
        ├── ArgumentsNotRecordable          an undo's arguments would not be read back as they are
        ├── LeaseLost                       another process has taken over this one's actions
        ├── AlreadyCommitted                an action is not undone: its commit was carried out
        ├── JournalUnavailable              the journal is full, read-only, locked or unreachable
        └── JournalCorrupt                  the contents of the journal cannot be understood

Facts are attributes; every error can be pickled; two errors with the same facts are equal.
"""

from __future__ import annotations

from typing import Generic

from typing_extensions import TypeVar

from returns_pipeline.errors._base import PipelineError
from returns_pipeline.errors._journal import (
    AlreadyCommitted,
    ArgumentsNotRecordable,
    JournalCorrupt,
    JournalError,
    JournalUnavailable,
    LeaseLost,
    UnregisteredCompensation,
)

__all__ = [
    "AllFailed",
    "AlreadyCommitted",
    "ArgumentsNotRecordable",
    "BufferOverflow",
    "BulkheadFull",
    "ChannelClosed",
    "CircuitOpen",
    "CompensationFailed",
    "ConnectionLost",
    "DecodeError",
    "InvalidArgument",
    "ItemError",
    "ItemsRefused",
    "JournalCorrupt",
    "JournalError",
    "JournalUnavailable",
    "LeaseLost",
    "MissingExtra",
    "NotHandled",
    "PartitionReplaced",
    "PartitionsLost",
    "PipelineError",
    "PublishError",
    "RetriesExhausted",
    "ScopeBusy",
    "ScopeClosed",
    "StepTimeout",
    "StreamEmpty",
    "TooManyDeliveries",
    "UnevenSources",
    "UnregisteredCompensation",
]


A_co = TypeVar("A_co", covariant=True)
E_co = TypeVar("E_co", covariant=True)


class InvalidArgument(PipelineError, ValueError):
    """An argument is out of range. It is raised at the call, before anything is read.

    >>> str(InvalidArgument("n must be at least 1, not 0"))
    'n must be at least 1, not 0'
    """


class StreamEmpty(PipelineError):
    """A stream ended without the item that was requested.

    >>> str(StreamEmpty())
    'the stream ended without an item'
    """

    def __str__(self) -> str:
        return "the stream ended without an item"


class BufferOverflow(PipelineError):
    """A branch of a stream was not read for so long that its buffer overflowed.

    Attributes:
        branch: The number of the branch, counted from 0.
        limit: How many items its buffer holds.

    >>> str(BufferOverflow(1, 16))
    'branch 1 was not read while 16 items waited for it'
    """

    def __init__(self, branch: int, limit: int) -> None:
        super().__init__(branch, limit)
        self.branch = branch
        self.limit = limit

    def __str__(self) -> str:
        return f"branch {self.branch} was not read while {self.limit} items waited for it"


class ChannelClosed(PipelineError):
    """A channel takes no more items: it was closed, or its reader has stopped.

    Attributes:
        item: The item that was not accepted.

    >>> str(ChannelClosed(7))
    'the channel is closed: the item was not accepted'
    """

    def __init__(self, item: object) -> None:
        super().__init__(item)
        self.item: object = item

    def __str__(self) -> str:
        return "the channel is closed: the item was not accepted"


class NotHandled(PipelineError):
    """The stream that reads a channel ended before it had handled an item.

    A part of what was made of the item may have been handled.

    Attributes:
        item: The item.

    >>> str(NotHandled(7))
    'the stream ended before it had handled the item'
    """

    def __init__(self, item: object) -> None:
        """Keep the fact as data."""
        super().__init__(item)
        self.item: object = item

    def __str__(self) -> str:
        """Return what happened, without the item: it may be large."""
        return "the stream ended before it had handled the item"


class ItemsRefused(PipelineError):
    """The worker of a key ended without taking any of the items that waited for it.

    Attributes:
        key: The key.

    >>> str(ItemsRefused("berlin"))
    "the worker of key 'berlin' ended without taking an item"
    """

    def __init__(self, key: object) -> None:
        super().__init__(key)
        self.key: object = key

    def __str__(self) -> str:
        return f"the worker of key {self.key!r} ended without taking an item"


class UnevenSources(PipelineError):
    """Streams to be combined item by item are not equally long.

    Attributes:
        ended: The positions of those that ended while others had more items, counted from 0.

    >>> str(UnevenSources((0,)))
    'source 0 ended before the others'
    """

    def __init__(self, ended: tuple[int, ...]) -> None:
        super().__init__(ended)
        self.ended = ended

    def __str__(self) -> str:
        places = ", ".join(map(str, self.ended))
        return f"source {places} ended before the others"


class StepTimeout(PipelineError):
    """A step, or an undo, was cancelled at its time limit.

    Attributes:
        step: The step's name.
        limit: The limit it ran under, in seconds.

    >>> str(StepTimeout("fetch", 2.0))
    "step 'fetch' took longer than 2 s"
    """

    def __init__(self, step: str, limit: float) -> None:
        super().__init__(step, limit)
        self.step = step
        self.limit = limit

    def __str__(self) -> str:
        return f"step {self.step!r} took longer than {self.limit:g} s"


class RetriesExhausted(PipelineError, Generic[E_co]):
    """A step failed and is not tried again.

    Attributes:
        errors: The error of each attempt, in order: the error of a failure, or an exception that
            the policy retries.
        attempts: How many attempts there were.

    >>> str(RetriesExhausted(("busy", "gone")))
    "2 attempt(s) failed, the last with 'gone'"
    """

    def __init__(self, errors: tuple[E_co | Exception, ...]) -> None:
        super().__init__(errors)
        self.errors = errors

    @property
    def attempts(self) -> int:
        """How many attempts there were."""
        return len(self.errors)

    def __str__(self) -> str:
        return f"{self.attempts} attempt(s) failed, the last with {self.errors[-1]!r}"


class ItemError(PipelineError, Generic[A_co, E_co]):
    """A step made by `returns_pipeline.with_item` failed.

    Attributes:
        item: What the step was given.
        error: Its own error.

    >>> str(ItemError("order 7", "sold out"))
    "'sold out' for 'order 7'"
    """

    def __init__(self, item: A_co, error: E_co) -> None:
        super().__init__(item, error)
        self.item = item
        self.error = error

    def __str__(self) -> str:
        return f"{self.error!r} for {self.item!r}"


class AllFailed(PipelineError, Generic[E_co]):
    """Steps that ran side by side failed.

    Attributes:
        errors: Their errors, in the order of the steps, not in the order of time.

    >>> str(AllFailed(("no", "gone")))
    "2 step(s) failed: 'no', 'gone'"
    """

    def __init__(self, errors: tuple[E_co, ...]) -> None:
        super().__init__(errors)
        self.errors = errors

    def __str__(self) -> str:
        return f"{len(self.errors)} step(s) failed: " + ", ".join(map(repr, self.errors))


class CircuitOpen(PipelineError):
    """A circuit breaker refused to run a step, because steps before it failed.

    Attributes:
        name: The breaker's name.
        retry_after: Seconds until it runs a step as a trial.

    >>> str(CircuitOpen("database", 30.0))
    "circuit 'database' is open: try again in 30 s"
    """

    def __init__(self, name: str, retry_after: float) -> None:
        super().__init__(name, retry_after)
        self.name = name
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"circuit {self.name!r} is open: try again in {self.retry_after:g} s"


class BulkheadFull(PipelineError):
    """A bulkhead refused a step: as many as allowed are running and waiting.

    Attributes:
        name: The bulkhead's name.
        limit: How many steps may run at a time.
        queue: How many may wait.

    >>> str(BulkheadFull("database", 3, 10))
    "bulkhead 'database' is full: 3 running, 10 waiting"
    """

    def __init__(self, name: str, limit: int, queue: float) -> None:
        super().__init__(name, limit, queue)
        self.name = name
        self.limit = limit
        self.queue = queue

    def __str__(self) -> str:
        return f"bulkhead {self.name!r} is full: {self.limit} running, {self.queue:g} waiting"


class CompensationFailed(PipelineError):
    """Undo actions failed or were not run: their effects may still be there.

    Attributes:
        scope: The path of the scope that was rolled back.
        actions: The actions that failed or were not run, each as text with its arguments.

    >>> str(CompensationFailed("shop", ("refund(7)",)))
    "1 undo action(s) of 'shop' did not succeed: refund(7)"
    """

    def __init__(self, scope: str, actions: tuple[str, ...]) -> None:
        super().__init__(scope, actions)
        self.scope = scope
        self.actions = actions

    def __str__(self) -> str:
        return (
            f"{len(self.actions)} undo action(s) of {self.scope!r} did not succeed: "
            + "; ".join(self.actions)
        )


class ScopeClosed(PipelineError):
    """A scope does not accept a request in its present state.

    An action refused like this is *not* on record: its effect must not begin.

    Attributes:
        scope: The scope's path.
        state: The state: "committing", "committed", "rolling back", "rolled back", "absorbed" or
            "lost".

    >>> str(ScopeClosed("shop", "committed"))
    "scope 'shop' has been committed"
    """

    def __init__(self, scope: str, state: str) -> None:
        state = str(state)  # not the member of an enum: messages and pickles stay plain
        super().__init__(scope, state)
        self.scope = scope
        self.state = state

    def __str__(self) -> str:
        verb = "is" if self.state in {"committing", "rolling back"} else "has been"
        return f"scope {self.scope!r} {verb} {self.state}"


class ScopeBusy(PipelineError):
    """A context is running a step, and cannot run another at the same time.

    Both would settle the same actions: the success of one would commit those of the other. Use a
    ``child()`` context for each.

    Attributes:
        context: The path of the context.

    >>> str(ScopeBusy("shop"))
    "context 'shop' already runs a step; use child() for steps side by side"
    """

    def __init__(self, context: str) -> None:
        super().__init__(context)
        self.context = context

    def __str__(self) -> str:
        return f"context {self.context!r} already runs a step; use child() for steps side by side"


class MissingExtra(PipelineError, ImportError):
    """A part of the library needs a package that is not installed.

    Attributes:
        extra: The extra that installs the package.
        package: The package.

    >>> str(MissingExtra("postgres", "asyncpg"))
    'asyncpg is missing: pip install "returns-pipeline[postgres]"'
    """

    def __init__(self, extra: str, package: str) -> None:
        super().__init__(extra, package)
        self.extra = extra
        self.package = package

    def __str__(self) -> str:
        return f'{self.package} is missing: pip install "returns-pipeline[{self.extra}]"'


class ConnectionLost(PipelineError):
    """The connection to a broker was lost, or cannot be made.

    Attributes:
        source: What is read there, as in ``"nats orders/billing"``.
        reason: What happened.

    >>> str(ConnectionLost("nats orders/billing", "connection refused"))
    'nats orders/billing: connection refused'
    """

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(source, reason)
        self.source = source
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}"


class PartitionsLost(PipelineError):
    """Messages cannot be acknowledged, or committed: another process owns their partitions now.

    Attributes:
        source: What is read, as in ``"kafka orders/billing"``.
        partitions: The names of these partitions.

    >>> str(PartitionsLost("kafka orders/billing", ("orders-3",)))
    'kafka orders/billing: other processes own orders-3 now'
    """

    def __init__(self, source: str, partitions: tuple[str, ...]) -> None:
        super().__init__(source, partitions)
        self.source = source
        self.partitions = partitions

    def __str__(self) -> str:
        return f"{self.source}: other processes own {', '.join(self.partitions)} now"


class PartitionReplaced(PipelineError):
    """Positions are stored of another partition with this name: to go by them would lose messages.

    It was made again, or is on another server. Use another group, or delete what is stored.

    Attributes:
        source: What is read, as in ``"kafka orders/billing"``.
        reason: Which partition it is, and how that was noticed.

    >>> str(PartitionReplaced("kafka orders/billing", "orders-3 ends before offset 7"))
    'kafka orders/billing: orders-3 ends before offset 7'
    """

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(source, reason)
        self.source = source
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}"


class DecodeError(PipelineError):
    """The bytes of a message cannot be read as the type that was requested.

    Attributes:
        wanted: The name of the type.
        reason: What is wrong with the bytes, and where.

    >>> str(DecodeError("Order", "Expected `int`, got `str` - at `$.seats`"))
    'a message cannot be read as Order: Expected `int`, got `str` - at `$.seats`'
    """

    def __init__(self, wanted: str, reason: str) -> None:
        super().__init__(wanted, reason)
        self.wanted = wanted
        self.reason = reason

    def __str__(self) -> str:
        return f"a message cannot be read as {self.wanted}: {self.reason}"


class PublishError(PipelineError):
    """A broker has not confirmed some messages of a call; all others have arrived.

    Attributes:
        target: Where they were sent, as in ``"nats orders"``.
        reason: What happened to the first of them.
        count: How many messages the call had.
        refused: The numbers of those that have not arrived, counted from 0: the broker would not
            take them again either.
        unconfirmed: The numbers of those that may have arrived.

    >>> str(PublishError("nats orders", "connection refused", 500, unconfirmed=(498, 499)))
    'nats orders: 498 of 500 messages were confirmed: connection refused'
    """

    def __init__(
        self,
        target: str,
        reason: str,
        count: int,
        refused: tuple[int, ...] = (),
        unconfirmed: tuple[int, ...] = (),
    ) -> None:
        super().__init__(target, reason, count, refused, unconfirmed)
        self.target = target
        self.reason = reason
        self.count = count
        self.refused = refused
        self.unconfirmed = unconfirmed

    def __str__(self) -> str:
        confirmed = self.count - len(self.refused) - len(self.unconfirmed)
        return f"{self.target}: {confirmed} of {self.count} messages were confirmed: {self.reason}"


class TooManyDeliveries(PipelineError):
    """A message was delivered more often than allowed: it may be what kills its readers.

    Attributes:
        deliveries: How often it was delivered.
        limit: How often it may be.

    >>> str(TooManyDeliveries(6, 5))
    'a message was delivered 6 times, more than 5'
    """

    def __init__(self, deliveries: int, limit: int) -> None:
        super().__init__(deliveries, limit)
        self.deliveries = deliveries
        self.limit = limit

    def __str__(self) -> str:
        return f"a message was delivered {self.deliveries} times, more than {self.limit}"
