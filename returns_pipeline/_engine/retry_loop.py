"""The retry loop: the one place that counts attempts, asks the policy and waits between attempts.

`with_retry`, the steps of a saga and undo actions run in `run_with_retry`. `recover` makes one
attempt at a time, because the wait may outlast the process: it calls `next_delay` alone.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar, cast

from returns.result import Result, Success

from returns_pipeline.errors import InvalidArgument, StepTimeout

__all__ = [
    "Policy",
    "RetryEvent",
    "RetryOn",
    "check_errors",
    "is_one_of",
    "names_exception",
    "next_delay",
    "run_with_retry",
]

T = TypeVar("T")
E = TypeVar("E")

RetryOn: TypeAlias = type | tuple[type, ...] | Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class RetryEvent:
    """A failed attempt that will be repeated, for ``on_retry``.

    Attributes:
        attempt: Which attempt failed, counted from 1.
        error: Why: the error of a failure, or an exception.
        delay: Seconds until the next attempt begins.

    >>> RetryEvent(1, "busy", 0.1).delay
    0.1
    """

    attempt: int
    error: object
    delay: float


class Policy(Protocol):
    """What the loop needs to know: a `returns_pipeline.retry.RetryPolicy`."""

    @property
    def attempts(self) -> int: ...
    @property
    def retry_on(self) -> RetryOn | None: ...
    @property
    def total_timeout(self) -> float: ...
    @property
    def on_retry(self) -> Callable[[RetryEvent], object] | None: ...
    def delay(self, attempt: int, outcome: object, /) -> float: ...


async def run_with_retry(
    attempt: Callable[[float], Awaitable[Result[T, E]]],
    policy: Policy,
    *,
    deadline: float = math.inf,
    errors: list[E | Exception] | None = None,
    final: Callable[[E | Exception], bool] | None = None,
    report: Callable[[int, object, float], None] | None = None,
) -> Result[T, E] | Exception:
    """Run attempts until one succeeds or the policy allows no other.

    Args:
        attempt: Makes one attempt, given the deadline of them all. It has undone what it did when
            it fails, so that no two attempts overlap.
        policy: Says when another attempt is made. It retries every failure and no exception,
            unless it says otherwise; an exception that it does not retry propagates.
        deadline: A time on the loop's clock at which no attempt begins any more.
        errors: Takes the error of each attempt that failed.
        final: Whether this error is the last, whatever the policy says.
        report: Called before each wait with the number of the attempt that failed, its error, and
            the seconds until the next one.

    Returns:
        The outcome of the last attempt: its Result, or an exception that the policy retries.
    """
    loop = asyncio.get_running_loop()
    due = deadline
    if policy.total_timeout < math.inf:
        due = min(due, loop.time() + policy.total_timeout)
    made = 0
    while True:
        last: Result[T, E] | Exception
        error: E | Exception
        try:
            last = await attempt(due)
        except Exception as raised:
            if not names_exception(policy, raised):
                raise
            last = error = raised
            again = final is None or not final(error)
        else:
            if isinstance(last, Success):
                return last  # making another would cost as much as the rest
            error = last.failure()
            again = final is None or not final(error)
            again = again and _is_retried(policy, error, default=True)
        made += 1
        if errors is not None:
            errors.append(error)
        delay = await _delay(policy, made, error, due) if again else None
        if delay is None:
            return last
        if report is not None:
            report(made, error, delay)
        await asyncio.sleep(delay)


async def next_delay(policy: Policy, made: int, error: object, due: float) -> float | None:
    """Return the seconds until the attempt after a failed one, or ``None`` if there is none.

    Args:
        policy: Says when another attempt is made; it retries every error unless it says otherwise.
        made: How many attempts were made.
        error: Why the last one failed.
        due: The time on the loop's clock at which no attempt begins any more.
    """
    if not _is_retried(policy, error, default=True):
        return None
    return await _delay(policy, made, error, due)


def _is_retried(policy: Policy, error: object, *, default: bool) -> bool:
    """Whether the policy retries this error; ``default`` holds if it names none.

    A function that names errors is for those of the step: it may not know that of a time limit.
    """
    if policy.retry_on is None:
        return default
    try:
        return is_one_of(policy.retry_on, error)
    except Exception:
        if isinstance(error, StepTimeout):
            return False
        raise


def names_exception(policy: Policy, raised: Exception) -> bool:
    """Whether the policy retries an exception.

    A function that names errors is for those of the step: it may not know the exception.
    """
    try:
        return _is_retried(policy, raised, default=False)
    except Exception:  # noqa: BLE001  # the step's own exception propagates
        return False


def is_one_of(errors: RetryOn, error: object) -> bool:
    """Whether an error or exception is named by classes, or by a function."""
    return isinstance(error, errors) if isinstance(errors, type | tuple) else errors(error)


def check_errors(name: str, errors: object) -> None:
    """Refuse what names no errors.

    Raises:
        InvalidArgument: It is neither a class, nor a tuple of classes, nor a function.
    """
    if errors is None or callable(errors):
        return
    if not isinstance(errors, tuple) or not all(
        isinstance(each, type) for each in cast("tuple[object, ...]", errors)
    ):
        wanted = f"{name} must be a class, a tuple of classes or a function"
        if isinstance(errors, list):
            wanted += " (write a tuple: (OSError, KeyError))"
        raise InvalidArgument(f"{wanted}, not {errors!r}")


async def _delay(policy: Policy, made: int, error: object, due: float) -> float | None:
    """Return the seconds until the next attempt, or ``None`` if it would not begin before ``due``.

    ``on_retry`` is called, and awaited, as a part of this delay.
    """
    if made >= policy.attempts:
        return None
    loop = asyncio.get_running_loop()
    delay = policy.delay(made, error)
    began = loop.time()
    if began + delay >= due:
        return None
    if policy.on_retry is not None:
        returned = policy.on_retry(RetryEvent(made, error, delay))
        if inspect.isawaitable(returned):
            _ = await returned
            if (now := loop.time()) >= due:
                return None
            return max(0.0, delay - (now - began))
    return delay
