"""Events of undo actions and of the scopes that have them."""

from __future__ import annotations

from typing import TypeAlias

from returns_pipeline._engine.records import Record

__all__ = [
    "ScopeCommitted",
    "ScopeRolledBack",
    "UndoBegun",
    "UndoDone",
    "UndoEvent",
    "UndoFailed",
    "UndoRegistered",
    "UndoStuck",
]


class UndoRegistered(Record, frozen=True, kw_only=True):
    """An undo action is on record; its effect may begin.

    Attributes:
        pipeline: The name of the pipeline.
        scope: The name of the scope: that of the step, with its number in a stream.
        undo: The name of the undo action.
        key: The idempotency key of the step.
        saga: The id of the saga in the journal; empty without a journal.
        at: The time in seconds, on the loop's clock.

    >>> UndoRegistered(pipeline="shop", scope="pay[0]", undo="refund", key="7f3a", at=2.0).undo
    'refund'
    """

    pipeline: str
    scope: str
    undo: str
    key: str
    saga: str = ""
    at: float


class UndoBegun(Record, frozen=True, kw_only=True):
    """The first attempt of an undo action begins.

    It is reported in the task that makes the attempts, directly before the first one. So a context
    variable that an observer sets here is visible inside the action. `UndoDone`, `UndoFailed` or
    `UndoStuck` follows, in another task.

    Attributes:
        pipeline: The name of the pipeline.
        scope: The name of the scope in which it was registered.
        undo: The name of the undo action.
        key: The idempotency key of the step.
        saga: The id of the saga in the journal; empty without a journal.
        run: A number unique in the process: the event that follows has the same.
        at: The time in seconds, on the loop's clock.

    >>> UndoBegun(pipeline="shop", scope="pay[0]", undo="refund", key="7f3a", run=1, at=2.0).undo
    'refund'
    """

    pipeline: str
    scope: str
    undo: str
    key: str
    saga: str = ""
    run: int
    at: float


class UndoDone(Record, frozen=True, kw_only=True):
    """An action was undone.

    Attributes:
        pipeline: The name of the pipeline.
        scope: The name of the scope.
        undo: The name of the undo action.
        key: The idempotency key of the step.
        saga: The id of the saga in the journal; empty without a journal.
        run: The number that `UndoBegun` had; ``None`` if it was not reported, as no attempt began.
        attempt: The number of the attempt that succeeded, from 1.
        duration: Seconds that all attempts of this process took.
        at: The time in seconds, on the loop's clock.

    >>> UndoDone(
    ...     pipeline="shop", scope="pay[0]", undo="refund", key="7f3a",
    ...     attempt=1, duration=0.5, at=2.5,
    ... ).attempt
    1
    """

    pipeline: str
    scope: str
    undo: str
    key: str
    saga: str = ""
    run: int | None = None
    attempt: int
    duration: float
    at: float


class UndoFailed(Record, frozen=True, kw_only=True):
    """An action was not undone this time: a later recovery, or a later attempt of it, will try.

    For the other attributes see `UndoDone`.

    Attributes:
        error: The error of the last attempt.

    >>> UndoFailed(
    ...     pipeline="shop", scope="pay[0]", undo="refund", key="7f3a",
    ...     attempt=1, duration=0.5, error=OSError("down"), at=2.5,
    ... ).error
    OSError('down')
    """

    pipeline: str
    scope: str
    undo: str
    key: str
    saga: str = ""
    run: int | None = None
    attempt: int
    duration: float
    error: object
    at: float


class UndoStuck(Record, frozen=True, kw_only=True):
    """An action was not undone, and nothing will try it again: a person must act.

    Its policy allows no further attempt, or no journal has it. For the other attributes see
    `UndoDone`.

    Attributes:
        attempt: The number of attempts; 0 if it was not tried.
        error: The error of the last attempt; ``None`` if it was not tried.

    >>> UndoStuck(
    ...     pipeline="shop", scope="pay[0]", undo="refund", key="7f3a",
    ...     attempt=5, duration=9.0, error=OSError("down"), at=11.0,
    ... ).attempt
    5
    """

    pipeline: str
    scope: str
    undo: str
    key: str
    saga: str = ""
    run: int | None = None
    attempt: int
    duration: float
    error: object
    at: float


class ScopeCommitted(Record, frozen=True, kw_only=True):
    """The actions of a scope were committed: they will not be undone.

    A commit of a scope that has none is not reported.

    Attributes:
        pipeline: The name of the pipeline.
        scope: The name of the scope.
        key: The idempotency key of the step.
        saga: The id of the saga in the journal; empty without a journal.
        actions: The number of actions.
        at: The time in seconds, on the loop's clock.

    >>> ScopeCommitted(pipeline="shop", scope="pay[0]", key="7f3a", actions=1, at=2.5).actions
    1
    """

    pipeline: str
    scope: str
    key: str
    saga: str = ""
    actions: int
    at: float


class ScopeRolledBack(Record, frozen=True, kw_only=True):
    """A rollback has ended. One that had nothing to undo is not reported.

    Attributes:
        pipeline: The name of the pipeline.
        scope: The name of the scope that was rolled back.
        key: The idempotency key of the step.
        saga: The id of the saga in the journal; empty without a journal.
        undone: The number of actions that were undone.
        failed: The number of those that were tried and given up here.
        not_run: The number of those that were not tried, because ``on_failure="stop"``.
        duration: Seconds.
        at: The time in seconds, on the loop's clock.

    >>> ScopeRolledBack(
    ...     pipeline="shop", scope="pay[0]", key="7f3a",
    ...     undone=1, failed=0, not_run=0, duration=0.5, at=2.5,
    ... ).undone
    1
    """

    pipeline: str
    scope: str
    key: str
    saga: str = ""
    undone: int
    failed: int
    not_run: int
    duration: float
    at: float


UndoEvent: TypeAlias = (
    UndoRegistered
    | UndoBegun
    | UndoDone
    | UndoFailed
    | UndoStuck
    | ScopeCommitted
    | ScopeRolledBack
)
"""Events of undo actions and of scopes."""
