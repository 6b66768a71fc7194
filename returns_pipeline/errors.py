"""The errors of the library, one tree.

```
PipelineError
├── InvalidArgument (also ValueError)   an argument is out of range, raised at the call
├── StreamEmpty                         first() or last() of a stream without items
├── BufferOverflow                      a reader was too slow for the buffer that it was given
├── ItemsRefused                        a worker ended without taking the items that waited for it
├── UnevenSources                       streams that should be equally long are not
├── StepTimeout                         a step or an undo was cut off at its time limit
├── RetriesExhausted                    all attempts of a step failed
├── AllFailed                           of several steps, all failed, or too many
├── CircuitOpen                         a circuit breaker lets nothing through for now
├── BulkheadFull                        as many run and wait as may
├── CompensationFailed                  undo actions that were given up
├── ScopeClosed                         a scope or context is settled: it takes no more actions
├── ScopeBusy                           a context runs a step already
├── MissingExtra (also ImportError)     a part of the library needs another package
└── JournalError                        the journal of undo actions cannot do what was asked
    ├── UnregisteredCompensation        an undo that another process could not find by name
    ├── ArgumentsNotRecordable          arguments that would not come back equal
    ├── LeaseLost                       somebody else has taken over what this process had open
    ├── JournalUnavailable              full, read-only, locked or unreachable
    └── JournalCorrupt                  what is stored makes no sense
```

Facts are attributes, every error can be pickled, and two errors with the same facts are equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, cast

from typing_extensions import TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "AllFailed",
    "ArgumentsNotRecordable",
    "BufferOverflow",
    "BulkheadFull",
    "CircuitOpen",
    "CompensationFailed",
    "InvalidArgument",
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


E_co = TypeVar("E_co", covariant=True)


class PipelineError(Exception):
    """Base of every error that this library raises or gives."""

    def __eq__(self, other: object) -> bool:
        """Equal by class and facts, so that tests can compare whole results.

        Exceptions among the facts are compared in the same way, whosever they are.
        """
        if type(other) is not type(self):
            return NotImplemented
        return _same(self.args, other.args)

    def __hash__(self) -> int:
        """Agree with ``==`` even when a fact itself cannot be hashed."""
        return hash((type(self), len(self.args)))


def _same(one: object, other: object) -> bool:
    """Compare facts. Python itself tells two exceptions apart that say the same."""
    if one == other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, BaseException) and isinstance(other, BaseException):
        knows_better = type(one).__eq__ is not object.__eq__
        return not knows_better and _same(_told_by(one), _told_by(other))
    if isinstance(one, tuple | list):
        # Both are: they are of one type.
        mine, its = cast("Sequence[object]", one), cast("Sequence[object]", other)
        return len(mine) == len(its) and all(map(_same, mine, its))
    return False


def _told_by(error: BaseException) -> tuple[object, ...]:
    """Give all that an exception of any kind says; not where it was raised, nor its notes."""
    state = sorted((name, fact) for name, fact in vars(error).items() if name != "__notes__")
    return (str(error), error.args, *state)


class InvalidArgument(PipelineError, ValueError):
    """An argument is out of range; raised at the call, before anything is read."""


class StreamEmpty(PipelineError):
    """A stream ended without the item that was asked for."""

    def __str__(self) -> str:
        """Say what happened, also when raised bare."""
        return "the stream ended without an item"


class BufferOverflow(PipelineError):
    """A branch of a stream was not read for so long that its buffer overflowed.

    Attributes:
        place: Which branch, from 0.
        limit: How many items its buffer holds.
    """

    def __init__(self, place: int, limit: int) -> None:
        """Keep both facts as data; the message is made from them."""
        super().__init__(place, limit)
        self.place = place
        self.limit = limit

    def __str__(self) -> str:
        """Say which branch, and what it would have taken."""
        return f"branch {self.place} was not read while {self.limit} items waited for it"


class ItemsRefused(PipelineError):
    """The worker of a key ended without taking any of the items that waited for it.

    Attributes:
        key: The key.
    """

    def __init__(self, key: object) -> None:
        """Keep the fact as data; the message is made from it."""
        super().__init__(key)
        self.key: object = key

    def __str__(self) -> str:
        """Say whose worker."""
        return f"the worker of key {self.key!r} ended without taking an item"


class UnevenSources(PipelineError):
    """Streams that were to be combined item by item are not equally long.

    Attributes:
        ended: The places of those that ended while others had more items, from 0.
    """

    def __init__(self, ended: tuple[int, ...]) -> None:
        """Keep the fact as data; the message is made from it."""
        super().__init__(ended)
        self.ended = ended

    def __str__(self) -> str:
        """Say which ended first."""
        places = ", ".join(map(str, self.ended))
        return f"source {places} ended before the others"


class StepTimeout(PipelineError):
    """A step, or an undo, was cut off at its time limit.

    Attributes:
        step: The step's name.
        limit: The limit it ran under, in seconds.
    """

    def __init__(self, step: str, limit: float) -> None:
        """Keep both facts as data; the message is made from them."""
        super().__init__(step, limit)
        self.step = step
        self.limit = limit

    def __str__(self) -> str:
        """Say which step, and after how long."""
        return f"step {self.step!r} took longer than {self.limit:g} s"


class RetriesExhausted(PipelineError, Generic[E_co]):
    """A step failed, and is not tried again.

    Attributes:
        errors: The error of each attempt, in order: of a failure, or an exception that the policy
            says to retry.
        attempts: How many there were.
    """

    def __init__(self, errors: tuple[E_co | Exception, ...]) -> None:
        """Keep the errors; the message is made from them."""
        super().__init__(errors)
        self.errors = errors

    @property
    def attempts(self) -> int:
        """How often the step was tried."""
        return len(self.errors)

    def __str__(self) -> str:
        """Say how often it was tried, and why the last attempt failed."""
        return f"{self.attempts} attempt(s) failed, the last with {self.errors[-1]!r}"


class AllFailed(PipelineError, Generic[E_co]):
    """Steps that ran side by side failed.

    Attributes:
        errors: Their errors, in the order of the steps and not of time.
    """

    def __init__(self, errors: tuple[E_co, ...]) -> None:
        """Keep the errors; the message is made from them."""
        super().__init__(errors)
        self.errors = errors

    def __str__(self) -> str:
        """List them."""
        return f"{len(self.errors)} step(s) failed: " + ", ".join(map(repr, self.errors))


class CircuitOpen(PipelineError):
    """A circuit breaker did not let a step through, because those before it failed.

    Attributes:
        name: The breaker's name.
        retry_after: Seconds until it lets one through to see whether that works again.
    """

    def __init__(self, name: str, retry_after: float) -> None:
        """Keep both facts as data; the message is made from them."""
        super().__init__(name, retry_after)
        self.name = name
        self.retry_after = retry_after

    def __str__(self) -> str:
        """Say which breaker, and when to come back."""
        return f"circuit {self.name!r} is open: come back in {self.retry_after:g} s"


class BulkheadFull(PipelineError):
    """A step was turned away: as many run, and as many wait, as may.

    Attributes:
        name: The bulkhead's name.
        limit: How many may run at a time.
        queue: How many may wait.
    """

    def __init__(self, name: str, limit: int, queue: float) -> None:
        """Keep the facts as data; the message is made from them."""
        super().__init__(name, limit, queue)
        self.name = name
        self.limit = limit
        self.queue = queue

    def __str__(self) -> str:
        """Say which bulkhead, and its bounds."""
        return f"bulkhead {self.name!r} is full: {self.limit} running, {self.queue:g} waiting"


class CompensationFailed(PipelineError):
    """Undo actions were given up: what they should have undone may still be there.

    Attributes:
        scope: The path of the scope that was rolled back.
        actions: The actions that failed or were not run, each as text with its arguments.
    """

    def __init__(self, scope: str, actions: tuple[str, ...]) -> None:
        """Keep the facts as data; the message is made from them."""
        super().__init__(scope, actions)
        self.scope = scope
        self.actions = actions

    def __str__(self) -> str:
        """Say which scope, and list the actions."""
        return (
            f"{len(self.actions)} undo action(s) of {self.scope!r} did not succeed: "
            + "; ".join(self.actions)
        )


class ScopeClosed(PipelineError):
    """A scope has been settled, so it does not accept what was asked of it.

    An action refused like this is *not* on record: its effect must not be carried out.

    Attributes:
        scope: The scope's path.
        how: How it was settled: "committed", "rolled back" or "absorbed".
    """

    def __init__(self, scope: str, how: str) -> None:
        """Keep both facts as data; the message is made from them."""
        super().__init__(scope, how)
        self.scope = scope
        self.how = how

    def __str__(self) -> str:
        """Say which scope, and what became of it."""
        return f"scope {self.scope!r} has been {self.how}"


class ScopeBusy(PipelineError):
    """A context runs a step, and cannot run another at the same time.

    Both would settle the same actions: the success of one would commit those of the other. Give
    each its own context by ``child()``.

    Attributes:
        context: The path of the context.
    """

    def __init__(self, context: str) -> None:
        """Keep the fact as data; the message is made from it."""
        super().__init__(context)
        self.context = context

    def __str__(self) -> str:
        """Say which context, and what to do."""
        return f"context {self.context!r} already runs a step; use child() for steps side by side"


class MissingExtra(PipelineError, ImportError):
    """A part of the library needs a package that is not installed.

    Attributes:
        extra: The extra that brings it.
        package: The package.
    """

    def __init__(self, extra: str, package: str) -> None:
        """Keep both facts as data; the message is made from them."""
        super().__init__(extra, package)
        self.extra = extra
        self.package = package

    def __str__(self) -> str:
        """Say what to install."""
        return f'{self.package} is missing: pip install "returns-pipeline[{self.extra}]"'


class JournalError(PipelineError):
    """The journal of undo actions cannot do what was asked; nothing in it is deleted by that.

    Attributes:
        journal: Which journal: its path or address, without a password.
        reason: What is wrong.
    """

    def __init__(self, journal: str, reason: str) -> None:
        """Keep both facts as data; the message is made from them."""
        super().__init__(journal, reason)
        self.journal = journal
        self.reason = reason

    def __str__(self) -> str:
        """Say which journal, and what is wrong."""
        return f"journal {self.journal}: {self.reason}"


class JournalUnavailable(JournalError):
    """It is full, read-only, locked or cannot be reached. What was asked is not on record."""


class JournalCorrupt(JournalError):
    """What the journal holds makes no sense; nothing of it is carried out."""


class LeaseLost(JournalError):
    """Somebody else took over what this process had open, which must not touch it any more."""


class UnregisteredCompensation(JournalError):
    """An undo has no name in a registry, so that another process could not carry it out."""


class ArgumentsNotRecordable(JournalError):
    """The arguments of an undo would not come back equal; it is not on record."""
