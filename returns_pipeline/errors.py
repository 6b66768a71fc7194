"""The errors of the library: one tree.

```
PipelineError
├── InvalidArgument (also ValueError)   an argument is out of range; raised at the call
├── StreamEmpty                         first() or last() of a stream without items
├── BufferOverflow                      a branch was not read for so long that its buffer overflowed
├── ChannelClosed                       a channel takes no more items
├── ItemsRefused                        a worker ended without taking the items of its key
├── UnevenSources                       streams to be zipped are not equally long
├── StepTimeout                         a step or an undo was cancelled at its time limit
├── RetriesExhausted                    a step failed and is not tried again
├── ItemError                           a step failed, with the item that it failed for
├── AllFailed                           steps that ran side by side failed
├── CircuitOpen                         a circuit breaker refused a step
├── BulkheadFull                        a bulkhead refused a step
├── CompensationFailed                  undo actions failed or were not run
├── ScopeClosed                         a scope or context is settled and accepts no more actions
├── ScopeBusy                           a context is running another step
├── MissingExtra (also ImportError)     a part of the library needs a package that is not installed
└── JournalError                        a request to the journal of undo actions failed
    ├── UnregisteredCompensation        an undo has no name in a registry
    ├── ArgumentsNotRecordable          an undo's arguments would not be read back as they are
    ├── LeaseLost                       another process has taken over this one's actions
    ├── JournalUnavailable              the journal is full, read-only, locked or unreachable
    └── JournalCorrupt                  the contents of the journal cannot be understood
```

Facts are attributes; every error can be pickled; two errors with the same facts are equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, cast

from typing_extensions import TypeVar

__all__ = [
    "AllFailed",
    "ArgumentsNotRecordable",
    "BufferOverflow",
    "BulkheadFull",
    "ChannelClosed",
    "CircuitOpen",
    "CompensationFailed",
    "InvalidArgument",
    "ItemError",
    "ItemsRefused",
    "JournalCorrupt",
    "JournalError",
    "JournalUnavailable",
    "LeaseLost",
    "MissingExtra",
    "PipelineError",
    "RetriesExhausted",
    "ScopeBusy",
    "ScopeClosed",
    "StepTimeout",
    "StreamEmpty",
    "UnevenSources",
    "UnregisteredCompensation",
]


A_co = TypeVar("A_co", covariant=True)
E_co = TypeVar("E_co", covariant=True)


class PipelineError(Exception):
    """Base of every error that this library raises or returns in a `Failure`.

    >>> issubclass(StepTimeout, PipelineError)
    True
    """

    def __eq__(self, other: object) -> bool:
        """Compare class and facts, so that tests can compare whole results.

        Exceptions among the facts are compared in the same way, also those of other libraries.
        """
        if type(other) is not type(self):
            return NotImplemented
        return _same(self.args, other.args)

    def __hash__(self) -> int:
        """Agree with ``==`` even when a fact itself cannot be hashed."""
        return hash((type(self), len(self.args)))


def _same(one: object, other: object) -> bool:
    """Compare facts. For Python, two exceptions with the same facts are not equal."""
    if one == other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, BaseException) and isinstance(other, BaseException):
        if type(one).__eq__ is not object.__eq__:
            return False  # the class compares by its own rule, which found them different
        return _same(_facts_of(one), _facts_of(other))
    if isinstance(one, tuple | list):
        ours, theirs = cast("Sequence[object]", one), cast("Sequence[object]", other)
        return len(ours) == len(theirs) and all(map(_same, ours, theirs))
    return False


def _facts_of(error: BaseException) -> tuple[object, ...]:
    """Return the class and message of an exception, without its traceback and notes."""
    state = sorted((name, fact) for name, fact in vars(error).items() if name != "__notes__")
    return (str(error), error.args, *state)


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
        """Return what happened: the error has no facts."""
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
        """Keep both facts as data; the message is made from them."""
        super().__init__(branch, limit)
        self.branch = branch
        self.limit = limit

    def __str__(self) -> str:
        """Name the branch and the size of its buffer."""
        return f"branch {self.branch} was not read while {self.limit} items waited for it"


class ChannelClosed(PipelineError):
    """A channel takes no more items: it was closed, or its reader has stopped.

    Attributes:
        item: The item that was not accepted.

    >>> str(ChannelClosed(7))
    'the channel is closed: the item was not accepted'
    """

    def __init__(self, item: object) -> None:
        """Keep the fact as data."""
        super().__init__(item)
        self.item: object = item

    def __str__(self) -> str:
        """Return what happened, without the item: it may be large."""
        return "the channel is closed: the item was not accepted"


class ItemsRefused(PipelineError):
    """The worker of a key ended without taking any of the items that waited for it.

    Attributes:
        key: The key.

    >>> str(ItemsRefused("berlin"))
    "the worker of key 'berlin' ended without taking an item"
    """

    def __init__(self, key: object) -> None:
        """Keep the fact as data; the message is made from it."""
        super().__init__(key)
        self.key: object = key

    def __str__(self) -> str:
        """Name the key."""
        return f"the worker of key {self.key!r} ended without taking an item"


class UnevenSources(PipelineError):
    """Streams to be combined item by item are not equally long.

    Attributes:
        ended: The positions of those that ended while others had more items, counted from 0.

    >>> str(UnevenSources((0,)))
    'source 0 ended before the others'
    """

    def __init__(self, ended: tuple[int, ...]) -> None:
        """Keep the fact as data; the message is made from it."""
        super().__init__(ended)
        self.ended = ended

    def __str__(self) -> str:
        """Name those that ended first."""
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
        """Keep both facts as data; the message is made from them."""
        super().__init__(step, limit)
        self.step = step
        self.limit = limit

    def __str__(self) -> str:
        """Name the step and the limit."""
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
        """Keep the errors; the message is made from them."""
        super().__init__(errors)
        self.errors = errors

    @property
    def attempts(self) -> int:
        """How many attempts there were."""
        return len(self.errors)

    def __str__(self) -> str:
        """Return how many attempts there were, and why the last one failed."""
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
        """Keep both facts as data; the message is made from them."""
        super().__init__(item, error)
        self.item = item
        self.error = error

    def __str__(self) -> str:
        """Show the error and the item."""
        return f"{self.error!r} for {self.item!r}"


class AllFailed(PipelineError, Generic[E_co]):
    """Steps that ran side by side failed.

    Attributes:
        errors: Their errors, in the order of the steps, not in the order of time.

    >>> str(AllFailed(("no", "gone")))
    "2 step(s) failed: 'no', 'gone'"
    """

    def __init__(self, errors: tuple[E_co, ...]) -> None:
        """Keep the errors; the message is made from them."""
        super().__init__(errors)
        self.errors = errors

    def __str__(self) -> str:
        """List the errors."""
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
        """Keep both facts as data; the message is made from them."""
        super().__init__(name, retry_after)
        self.name = name
        self.retry_after = retry_after

    def __str__(self) -> str:
        """Name the breaker, and say when to try again."""
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
        """Keep the facts as data; the message is made from them."""
        super().__init__(name, limit, queue)
        self.name = name
        self.limit = limit
        self.queue = queue

    def __str__(self) -> str:
        """Name the bulkhead and its limits."""
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
        """Keep the facts as data; the message is made from them."""
        super().__init__(scope, actions)
        self.scope = scope
        self.actions = actions

    def __str__(self) -> str:
        """Name the scope and list the actions."""
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
        """Keep both facts as data; the message is made from them."""
        state = str(state)  # not the member of an enum: messages and pickles stay plain
        super().__init__(scope, state)
        self.scope = scope
        self.state = state

    def __str__(self) -> str:
        """Name the scope and its state."""
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
        """Keep the fact as data; the message is made from it."""
        super().__init__(context)
        self.context = context

    def __str__(self) -> str:
        """Name the context, and say what to do."""
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
        """Keep both facts as data; the message is made from them."""
        super().__init__(extra, package)
        self.extra = extra
        self.package = package

    def __str__(self) -> str:
        """Return what to install."""
        return f'{self.package} is missing: pip install "returns-pipeline[{self.extra}]"'


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
