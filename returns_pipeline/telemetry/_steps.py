"""Events of steps and of the policies around them."""

from __future__ import annotations

from typing import ClassVar, Literal, TypeAlias

from returns_pipeline._engine.records import PartlyShown, Record

__all__ = [
    "BreakerChanged",
    "BreakerState",
    "LimiterWaited",
    "Outcome",
    "PolicyEvent",
    "StepBegun",
    "StepEnded",
    "StepEvent",
    "StepRetried",
    "StepTimedOut",
]

Outcome: TypeAlias = Literal["succeeded", "failed", "raised", "cancelled"]
"""How a step ended: "failed" if it returned a `Failure`, "raised" after any other exception than a
cancellation."""

BreakerState: TypeAlias = Literal["closed", "open", "half open"]
"""The states of a circuit breaker."""


class StepBegun(PartlyShown, frozen=True, kw_only=True, eq=False):
    """A step has begun: `StepContext.run`, an item of `bind_step`, an attempt of a policy.

    It is reported in the task that runs the step, directly before it. So a context variable that an
    observer sets here is visible inside the step; the observer resets it at `StepEnded`, which is
    reported in the same task.

    Attributes:
        pipeline: The name of the pipeline.
        stage: The name of the step, without a number.
        number: Which run of this step inside its context it is, from 0; ``None`` for a context that
            the user has opened.
        attempt: The number of the attempt, from 1.
        key: The idempotency key of the step.
        run: A number unique in the process: `StepEnded` has the same.
        parent: The ``run`` of the step around this one; ``None`` if there is none.
        at: The time in seconds, on the loop's clock.
        item: What `bind_step` calls the step with: for an observer that reads the trace context out
            of the headers of messages. An observer should not keep it; ``repr`` and ``==`` leave it
            out.

    >>> StepBegun(pipeline="shop", stage="persist", number=0, key="7f3a", run=1, at=2.0).stage
    'persist'
    """

    pipeline: str
    stage: str
    number: int | None
    attempt: int = 1
    key: str
    run: int
    parent: int | None = None
    at: float
    item: object = None
    left_out: ClassVar[str] = "item"


class StepEnded(Record, frozen=True, kw_only=True):
    """A step has ended, and its undo actions are settled.

    For the other attributes see `StepBegun`.

    Attributes:
        duration: Seconds since `StepBegun`, with the undo of what it had registered.
        outcome: How it ended.
        error: The error of its `Failure`, or the exception; ``None`` if it succeeded.

    >>> StepEnded(
    ...     pipeline="shop", stage="persist", number=0, key="7f3a", run=1, at=2.5,
    ...     duration=0.5, outcome="succeeded",
    ... ).duration
    0.5
    """

    pipeline: str
    stage: str
    number: int | None
    attempt: int = 1
    key: str
    run: int
    parent: int | None = None
    at: float
    duration: float
    outcome: Outcome
    error: object = None


class StepRetried(Record, frozen=True, kw_only=True):
    """An attempt of a step has failed, and another one follows.

    Attributes:
        pipeline: The name of the pipeline.
        stage: The name of the step.
        attempt: The number of the attempt that failed, from 1.
        delay: Seconds until the next attempt.
        error: The error of its `Failure`, or the exception.
        at: The time in seconds, on the loop's clock.

    >>> StepRetried(pipeline="shop", stage="pay", attempt=1, delay=0.5, error="busy", at=2.0).delay
    0.5
    """

    pipeline: str
    stage: str
    attempt: int
    delay: float
    error: object
    at: float


class StepTimedOut(Record, frozen=True, kw_only=True):
    """A step has reached its time limit and was stopped.

    Attributes:
        pipeline: The name of the pipeline.
        stage: The name of the step.
        limit: The limit in seconds.
        abandoned: Whether it ignored its cancellation and is still running.
        at: The time in seconds, on the loop's clock.

    >>> StepTimedOut(pipeline="shop", stage="pay", limit=2.0, abandoned=False, at=9.0).limit
    2.0
    """

    pipeline: str
    stage: str
    limit: float
    abandoned: bool
    at: float


class BreakerChanged(Record, frozen=True, kw_only=True):
    """A circuit breaker has changed its state.

    Attributes:
        pipeline: The name of the pipeline of the step that changed it.
        breaker: The name of the breaker.
        before: The state before.
        state: The state from now on.
        at: The time in seconds, on the loop's clock.

    >>> BreakerChanged(pipeline="shop", breaker="bank", before="closed", state="open", at=9.0).state
    'open'
    """

    pipeline: str
    breaker: str
    before: BreakerState
    state: BreakerState
    at: float


class LimiterWaited(Record, frozen=True, kw_only=True):
    """A step has waited for a limiter; one that need not wait reports nothing.

    Attributes:
        pipeline: The name of the pipeline of the step.
        stage: The name of the step; empty for `Bulkhead.acquire` and `RateLimit.acquire`.
        limiter: The kind of limiter.
        name: The name of the bulkhead; empty for a rate limit.
        waited: Seconds.
        at: The time in seconds, on the loop's clock.

    >>> LimiterWaited(pipeline="shop", stage="pay", limiter="bulkhead", waited=2.0, at=9.0).waited
    2.0
    """

    pipeline: str
    stage: str
    limiter: Literal["rate_limit", "bulkhead"]
    name: str = ""
    waited: float
    at: float


StepEvent: TypeAlias = StepBegun | StepEnded
"""Events of steps."""

PolicyEvent: TypeAlias = StepRetried | StepTimedOut | BreakerChanged | LimiterWaited
"""Events of policies."""
