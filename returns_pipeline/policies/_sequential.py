"""Policies that make a step of steps: see the package."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, TypeVarTuple, overload

from returns.result import Failure, Result, Success
from typing_extensions import ParamSpec

from returns_pipeline._engine.retry_loop import run_with_retry
from returns_pipeline._engine.wrapping import Wrapped, name_of
from returns_pipeline.errors import AllFailed, InvalidArgument, RetriesExhausted, StepTimeout
from returns_pipeline.policies._attempts import Call, first_success, run_all, run_with_timeout
from returns_pipeline.retry import PolicyStack, RetryPolicy, Timeout

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from returns.future import FutureResult

__all__ = [
    "Tier",
    "TierFailure",
    "all_of",
    "fallback",
    "hedge",
    "race",
    "with_policy",
    "with_retry",
    "with_timeout",
]

P = ParamSpec("P")
Ts = TypeVarTuple("Ts")
Us = TypeVarTuple("Us")
T = TypeVar("T")
E = TypeVar("E")
T_co = TypeVar("T_co", covariant=True)
E_co = TypeVar("E_co", covariant=True)
T1 = TypeVar("T1")
E1 = TypeVar("E1")
T2 = TypeVar("T2")
E2 = TypeVar("E2")
T3 = TypeVar("T3")
E3 = TypeVar("E3")
T4 = TypeVar("T4")
E4 = TypeVar("E4")
T5 = TypeVar("T5")
E5 = TypeVar("E5")
T6 = TypeVar("T6")
E6 = TypeVar("E6")
T7 = TypeVar("T7")
E7 = TypeVar("E7")
T8 = TypeVar("T8")
E8 = TypeVar("E8")

# Overloads for one step, two steps, and so on: mypy would join the types of `*steps` to a common
# base class. No two of them fit the same call: if they did, a lambda among the steps, which mypy
# first takes for a function of Any, would make all of it Any without a word.

# Beyond this many steps `all_of` gives a list.
_MOST_TYPED = 8
_GRACE = 5.0  # as in the signatures, where a reader looks for it


def with_retry(
    step: Callable[P, FutureResult[T, E] | Awaitable[Result[T, E]]], policy: RetryPolicy, /
) -> Callable[P, FutureResult[T, RetriesExhausted[E]]]:
    """Try a step again when it fails, as a policy says.

    1. A `Success` is given at once.
    2. A failure that the policy retries, or an exception that it names, is undone; then comes the
       policy's wait; then the step is run again, in a context of its own.
    3. When the attempts or the ``total_timeout`` are used up, or the policy does not retry the
       error, it fails with `RetriesExhausted`, which holds all errors.
    4. An exception that the policy does not name goes on at once, when the attempt is undone.

    No attempt begins after the deadline of the call's context, nor after the policy's
    ``total_timeout``, which is a deadline of the attempts' contexts too.

    Cancel safety: cancelling an attempt undoes it; cancelling the wait has nothing left to undo.
    """
    run = functools.partial(_retried, step, policy)
    return Wrapped[P, T, RetriesExhausted[E]](run, with_retry, (step, policy), {}, like=step)


async def _retried(
    step: Callable[..., FutureResult[T, E] | Awaitable[Result[T, E]]],
    policy: RetryPolicy,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Result[T, RetriesExhausted[E]]:
    errors: list[E | Exception] = []
    call = Call(step, args, kwargs)
    last = await run_with_retry(call.run, policy, deadline=call.deadline, errors=errors)
    if isinstance(last, Success):
        return last
    return Failure(RetriesExhausted(tuple(errors)))


def with_timeout(
    step: Callable[P, FutureResult[T, E] | Awaitable[Result[T, E]]],
    seconds: float,
    /,
    *,
    grace: float = 5.0,
) -> Callable[P, FutureResult[T, E | StepTimeout]]:
    """Give a step a time limit.

    At the limit the step is cancelled, awaited and undone; then it has failed with `StepTimeout`.
    If the call's context has a deadline that comes first, that is the limit. A `TimeoutError` of
    the step's own is an exception like any other. A success in the very moment of the limit is
    undone too.

    The step runs in a task of its own, with a copy of the context variables.

    Args:
        step: The step.
        seconds: From the call on, above 0.
        grace: Seconds that the step may take to heed its cancellation. It is then left behind,
            with an error in the log and a note on the `StepTimeout`.

    Raises:
        InvalidArgument: At the call, if a time is out of range.
    """
    limit = Timeout(seconds, grace=grace)
    run = functools.partial(_timed, step, limit)
    args, kwargs = (step, seconds), _unless_usual(grace)
    return Wrapped[P, T, E | StepTimeout](run, with_timeout, args, kwargs, like=step)


async def _timed(
    step: Callable[..., FutureResult[T, E] | Awaitable[Result[T, E]]],
    limit: Timeout,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Result[T, E | StepTimeout]:
    return await run_with_timeout(Call(step, args, kwargs), limit)


@overload
def with_policy(
    step: Callable[P, FutureResult[T, E] | Awaitable[Result[T, E]]], policy: RetryPolicy, /
) -> Callable[P, FutureResult[T, RetriesExhausted[E]]]: ...
@overload
def with_policy(
    step: Callable[P, FutureResult[T, E] | Awaitable[Result[T, E]]], policy: Timeout, /
) -> Callable[P, FutureResult[T, E | StepTimeout]]: ...
@overload
def with_policy(
    step: Callable[P, FutureResult[T, E] | Awaitable[Result[T, E]]],
    policy: PolicyStack[RetryPolicy, Timeout],
    /,
) -> Callable[P, FutureResult[T, RetriesExhausted[E | StepTimeout]]]: ...
@overload
def with_policy(
    step: Callable[P, FutureResult[T, E] | Awaitable[Result[T, E]]],
    policy: PolicyStack[Timeout, RetryPolicy],
    /,
) -> Callable[P, FutureResult[T, RetriesExhausted[E] | StepTimeout]]: ...
@overload
def with_policy(
    step: Callable[P, FutureResult[T, E] | Awaitable[Result[T, E]]],
    policy: PolicyStack[Timeout, RetryPolicy, Timeout],
    /,
) -> Callable[P, FutureResult[T, RetriesExhausted[E | StepTimeout] | StepTimeout]]: ...
def with_policy(
    step: Callable[..., Any], policy: RetryPolicy | Timeout | PolicyStack[*tuple[Any, ...]], /
) -> Callable[..., Any]:
    """Put a policy, or a stack of them, around a step: `with_retry` and `with_timeout` by value.

    A stack reads from the outside in, and gives what the same nesting by hand gives:
    ``with_policy(fetch, RetryPolicy(3) | Timeout(2.0))`` is
    ``with_retry(with_timeout(fetch, 2.0), RetryPolicy(3))``.

    >>> async def fetch(url: str) -> Result[str, OSError]:
    ...     return Success(f"<{url}>")
    >>> with_policy(fetch, RetryPolicy(3) | Timeout(2.0))
    with_retry(with_timeout(fetch, 2.0), RetryPolicy(attempts=3))
    """
    layers = policy.layers if isinstance(policy, PolicyStack) else (policy,)
    for layer in reversed(layers):
        if isinstance(layer, RetryPolicy):
            step = with_retry(step, layer)
        else:
            step = with_timeout(step, layer.seconds, grace=layer.grace)
    return step


@overload
def race(
    s1: Callable[[*Ts], FutureResult[T1, E1] | Awaitable[Result[T1, E1]]], /, *, grace: float = 5.0
) -> Callable[[*Ts], FutureResult[T1, AllFailed[E1]]]: ...
@overload
def race(
    s1: Callable[[*Ts], FutureResult[T1, E1] | Awaitable[Result[T1, E1]]],
    s2: Callable[[*Ts], FutureResult[T2, E2] | Awaitable[Result[T2, E2]]],
    /,
    *,
    grace: float = 5.0,
) -> Callable[[*Ts], FutureResult[T1 | T2, AllFailed[E1 | E2]]]: ...
@overload
def race(
    s1: Callable[[*Ts], FutureResult[T1, E1] | Awaitable[Result[T1, E1]]],
    s2: Callable[[*Ts], FutureResult[T2, E2] | Awaitable[Result[T2, E2]]],
    s3: Callable[[*Ts], FutureResult[T3, E3] | Awaitable[Result[T3, E3]]],
    /,
    *,
    grace: float = 5.0,
) -> Callable[[*Ts], FutureResult[T1 | T2 | T3, AllFailed[E1 | E2 | E3]]]: ...
@overload
def race(
    s1: Callable[[*Ts], FutureResult[T1, E1] | Awaitable[Result[T1, E1]]],
    s2: Callable[[*Ts], FutureResult[T2, E2] | Awaitable[Result[T2, E2]]],
    s3: Callable[[*Ts], FutureResult[T3, E3] | Awaitable[Result[T3, E3]]],
    s4: Callable[[*Ts], FutureResult[T4, E4] | Awaitable[Result[T4, E4]]],
    /,
    *,
    grace: float = 5.0,
) -> Callable[[*Ts], FutureResult[T1 | T2 | T3 | T4, AllFailed[E1 | E2 | E3 | E4]]]: ...
@overload
def race(
    s1: Callable[[*Ts], FutureResult[T1, E1] | Awaitable[Result[T1, E1]]],
    s2: Callable[[*Ts], FutureResult[T2, E2] | Awaitable[Result[T2, E2]]],
    s3: Callable[[*Ts], FutureResult[T3, E3] | Awaitable[Result[T3, E3]]],
    s4: Callable[[*Ts], FutureResult[T4, E4] | Awaitable[Result[T4, E4]]],
    s5: Callable[[*Ts], FutureResult[T5, E5] | Awaitable[Result[T5, E5]]],
    /,
    *,
    grace: float = 5.0,
) -> Callable[[*Ts], FutureResult[T1 | T2 | T3 | T4 | T5, AllFailed[E1 | E2 | E3 | E4 | E5]]]: ...
@overload
def race(
    s1: Callable[[*Ts], FutureResult[T, E] | Awaitable[Result[T, E]]],
    s2: Callable[[*Ts], FutureResult[T, E] | Awaitable[Result[T, E]]],
    s3: Callable[[*Ts], FutureResult[T, E] | Awaitable[Result[T, E]]],
    s4: Callable[[*Ts], FutureResult[T, E] | Awaitable[Result[T, E]]],
    s5: Callable[[*Ts], FutureResult[T, E] | Awaitable[Result[T, E]]],
    s6: Callable[[*Ts], FutureResult[T, E] | Awaitable[Result[T, E]]],
    /,
    *steps: Callable[[*Ts], FutureResult[T, E] | Awaitable[Result[T, E]]],
    grace: float = 5.0,
) -> Callable[[*Ts], FutureResult[T, AllFailed[E]]]: ...
def race(*steps: Callable[..., Any], grace: float = 5.0) -> Callable[..., Any]:
    """Run steps side by side; the first success wins.

    The others are then cancelled, awaited and undone; a success that comes second is undone too.
    If an undo of theirs fails, that is in the report of the context, and the winner still wins.
    If all fail, it fails with `AllFailed`, in the order of the steps. An exception of one stops
    the others, and goes on.

    Args:
        steps: At least one; each is given the arguments.
        grace: As in `with_timeout`.

    Raises:
        InvalidArgument: At the call, if there is no step or ``grace`` is out of range.

    Known elsewhere as: ``Promise.any``, ``firstSuccessOf`` (Effect), ``race`` (cats-effect).
    """
    if not steps:
        raise InvalidArgument("race() needs at least one step")
    _check_grace(grace)
    run = functools.partial(_raced, steps, grace)
    return Wrapped[..., Any, Any](run, race, steps, _unless_usual(grace))


async def _raced(
    steps: Sequence[Callable[..., Any]], grace: float, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Result[Any, AllFailed[Any]]:
    return await first_success([Call(step, args, kwargs) for step in steps], 0.0, grace)


def hedge(
    step: Callable[P, FutureResult[T, E] | Awaitable[Result[T, E]]],
    /,
    *,
    after: float,
    copies: int = 2,
    grace: float = 5.0,
) -> Callable[P, FutureResult[T, AllFailed[E]]]:
    """Start another run of a slow step, and take the success that comes first.

    A copy is started when ``after`` seconds have passed since the last one was, or at once when
    all that run have failed; at most ``copies`` in all. For the rest, see `race`. The step must
    bear to be run twice. See Dean and Barroso, "The Tail at Scale" (2013).

    Args:
        step: The step.
        after: Seconds, above 0.
        copies: Runs in all, at least 2.
        grace: As in `with_timeout`.

    Raises:
        InvalidArgument: At the call, if an argument is out of range.
    """
    _check_grace(grace)
    if not after > 0:
        raise InvalidArgument(f"after must be above 0 seconds, not {after!r}")
    if copies < 2:
        raise InvalidArgument(f"copies must be at least 2, not {copies!r}")

    run = functools.partial(_hedged, step, after, copies, grace)
    given = {"after": after, "copies": copies, **_unless_usual(grace)}
    return Wrapped[P, T, AllFailed[E]](run, hedge, (step,), given, like=step)


async def _hedged(
    step: Callable[..., FutureResult[T, E] | Awaitable[Result[T, E]]],
    after: float,
    copies: int,
    grace: float,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Result[T, AllFailed[E]]:
    return await first_success([Call(step, args, kwargs)] * copies, after, grace)


@overload
def all_of(
    s1: Callable[[*Ts], FutureResult[T1, E1] | Awaitable[Result[T1, E1]]],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[True] = True,
    grace: float = 5.0,
) -> Callable[[*Ts], FutureResult[tuple[T1], E1]]: ...
@overload
def all_of(
    s1: Callable[[*Ts], FutureResult[T1, E1] | Awaitable[Result[T1, E1]]],
    s2: Callable[[*Ts], FutureResult[T2, E2] | Awaitable[Result[T2, E2]]],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[True] = True,
    grace: float = 5.0,
) -> Callable[[*Ts], FutureResult[tuple[T1, T2], E1 | E2]]: ...
@overload
def all_of(
    s1: Callable[[*Ts], FutureResult[T1, E1] | Awaitable[Result[T1, E1]]],
    s2: Callable[[*Ts], FutureResult[T2, E2] | Awaitable[Result[T2, E2]]],
    s3: Callable[[*Ts], FutureResult[T3, E3] | Awaitable[Result[T3, E3]]],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[True] = True,
    grace: float = 5.0,
) -> Callable[[*Ts], FutureResult[tuple[T1, T2, T3], E1 | E2 | E3]]: ...
@overload
def all_of(
    s1: Callable[[*Ts], FutureResult[T1, E1] | Awaitable[Result[T1, E1]]],
    s2: Callable[[*Ts], FutureResult[T2, E2] | Awaitable[Result[T2, E2]]],
    s3: Callable[[*Ts], FutureResult[T3, E3] | Awaitable[Result[T3, E3]]],
    s4: Callable[[*Ts], FutureResult[T4, E4] | Awaitable[Result[T4, E4]]],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[True] = True,
    grace: float = 5.0,
) -> Callable[[*Ts], FutureResult[tuple[T1, T2, T3, T4], E1 | E2 | E3 | E4]]: ...
@overload
def all_of(
    s1: Callable[[*Ts], FutureResult[T1, E1] | Awaitable[Result[T1, E1]]],
    s2: Callable[[*Ts], FutureResult[T2, E2] | Awaitable[Result[T2, E2]]],
    s3: Callable[[*Ts], FutureResult[T3, E3] | Awaitable[Result[T3, E3]]],
    s4: Callable[[*Ts], FutureResult[T4, E4] | Awaitable[Result[T4, E4]]],
    s5: Callable[[*Ts], FutureResult[T5, E5] | Awaitable[Result[T5, E5]]],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[True] = True,
    grace: float = 5.0,
) -> Callable[[*Ts], FutureResult[tuple[T1, T2, T3, T4, T5], E1 | E2 | E3 | E4 | E5]]: ...
@overload
def all_of(
    s1: Callable[[*Ts], FutureResult[T1, E1] | Awaitable[Result[T1, E1]]],
    s2: Callable[[*Ts], FutureResult[T2, E2] | Awaitable[Result[T2, E2]]],
    s3: Callable[[*Ts], FutureResult[T3, E3] | Awaitable[Result[T3, E3]]],
    s4: Callable[[*Ts], FutureResult[T4, E4] | Awaitable[Result[T4, E4]]],
    s5: Callable[[*Ts], FutureResult[T5, E5] | Awaitable[Result[T5, E5]]],
    s6: Callable[[*Ts], FutureResult[T6, E6] | Awaitable[Result[T6, E6]]],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[True] = True,
    grace: float = 5.0,
) -> Callable[[*Ts], FutureResult[tuple[T1, T2, T3, T4, T5, T6], E1 | E2 | E3 | E4 | E5 | E6]]: ...
@overload
def all_of(
    s1: Callable[[*Ts], FutureResult[T1, E1] | Awaitable[Result[T1, E1]]],
    s2: Callable[[*Ts], FutureResult[T2, E2] | Awaitable[Result[T2, E2]]],
    s3: Callable[[*Ts], FutureResult[T3, E3] | Awaitable[Result[T3, E3]]],
    s4: Callable[[*Ts], FutureResult[T4, E4] | Awaitable[Result[T4, E4]]],
    s5: Callable[[*Ts], FutureResult[T5, E5] | Awaitable[Result[T5, E5]]],
    s6: Callable[[*Ts], FutureResult[T6, E6] | Awaitable[Result[T6, E6]]],
    s7: Callable[[*Ts], FutureResult[T7, E7] | Awaitable[Result[T7, E7]]],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[True] = True,
    grace: float = 5.0,
) -> Callable[
    [*Ts], FutureResult[tuple[T1, T2, T3, T4, T5, T6, T7], E1 | E2 | E3 | E4 | E5 | E6 | E7]
]: ...
@overload
def all_of(
    s1: Callable[[*Ts], FutureResult[T1, E1] | Awaitable[Result[T1, E1]]],
    s2: Callable[[*Ts], FutureResult[T2, E2] | Awaitable[Result[T2, E2]]],
    s3: Callable[[*Ts], FutureResult[T3, E3] | Awaitable[Result[T3, E3]]],
    s4: Callable[[*Ts], FutureResult[T4, E4] | Awaitable[Result[T4, E4]]],
    s5: Callable[[*Ts], FutureResult[T5, E5] | Awaitable[Result[T5, E5]]],
    s6: Callable[[*Ts], FutureResult[T6, E6] | Awaitable[Result[T6, E6]]],
    s7: Callable[[*Ts], FutureResult[T7, E7] | Awaitable[Result[T7, E7]]],
    s8: Callable[[*Ts], FutureResult[T8, E8] | Awaitable[Result[T8, E8]]],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[True] = True,
    grace: float = 5.0,
) -> Callable[
    [*Ts],
    FutureResult[tuple[T1, T2, T3, T4, T5, T6, T7, T8], E1 | E2 | E3 | E4 | E5 | E6 | E7 | E8],
]: ...
@overload
def all_of(
    s1: Callable[[*Ts], FutureResult[T1, E1] | Awaitable[Result[T1, E1]]],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[False],
    grace: float = 5.0,
) -> Callable[[*Ts], FutureResult[tuple[T1], AllFailed[E1]]]: ...
@overload
def all_of(
    s1: Callable[[*Ts], FutureResult[T1, E1] | Awaitable[Result[T1, E1]]],
    s2: Callable[[*Ts], FutureResult[T2, E2] | Awaitable[Result[T2, E2]]],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[False],
    grace: float = 5.0,
) -> Callable[[*Ts], FutureResult[tuple[T1, T2], AllFailed[E1 | E2]]]: ...
@overload
def all_of(
    s1: Callable[[*Ts], FutureResult[T1, E1] | Awaitable[Result[T1, E1]]],
    s2: Callable[[*Ts], FutureResult[T2, E2] | Awaitable[Result[T2, E2]]],
    s3: Callable[[*Ts], FutureResult[T3, E3] | Awaitable[Result[T3, E3]]],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[False],
    grace: float = 5.0,
) -> Callable[[*Ts], FutureResult[tuple[T1, T2, T3], AllFailed[E1 | E2 | E3]]]: ...
@overload
def all_of(
    s1: Callable[[*Ts], FutureResult[T1, E1] | Awaitable[Result[T1, E1]]],
    s2: Callable[[*Ts], FutureResult[T2, E2] | Awaitable[Result[T2, E2]]],
    s3: Callable[[*Ts], FutureResult[T3, E3] | Awaitable[Result[T3, E3]]],
    s4: Callable[[*Ts], FutureResult[T4, E4] | Awaitable[Result[T4, E4]]],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[False],
    grace: float = 5.0,
) -> Callable[[*Ts], FutureResult[tuple[T1, T2, T3, T4], AllFailed[E1 | E2 | E3 | E4]]]: ...
@overload
def all_of(
    s1: Callable[[*Ts], FutureResult[T1, E1] | Awaitable[Result[T1, E1]]],
    s2: Callable[[*Ts], FutureResult[T2, E2] | Awaitable[Result[T2, E2]]],
    s3: Callable[[*Ts], FutureResult[T3, E3] | Awaitable[Result[T3, E3]]],
    s4: Callable[[*Ts], FutureResult[T4, E4] | Awaitable[Result[T4, E4]]],
    s5: Callable[[*Ts], FutureResult[T5, E5] | Awaitable[Result[T5, E5]]],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[False],
    grace: float = 5.0,
) -> Callable[
    [*Ts], FutureResult[tuple[T1, T2, T3, T4, T5], AllFailed[E1 | E2 | E3 | E4 | E5]]
]: ...
@overload
def all_of(
    s1: Callable[[*Ts], FutureResult[T1, E1] | Awaitable[Result[T1, E1]]],
    s2: Callable[[*Ts], FutureResult[T2, E2] | Awaitable[Result[T2, E2]]],
    s3: Callable[[*Ts], FutureResult[T3, E3] | Awaitable[Result[T3, E3]]],
    s4: Callable[[*Ts], FutureResult[T4, E4] | Awaitable[Result[T4, E4]]],
    s5: Callable[[*Ts], FutureResult[T5, E5] | Awaitable[Result[T5, E5]]],
    s6: Callable[[*Ts], FutureResult[T6, E6] | Awaitable[Result[T6, E6]]],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[False],
    grace: float = 5.0,
) -> Callable[
    [*Ts], FutureResult[tuple[T1, T2, T3, T4, T5, T6], AllFailed[E1 | E2 | E3 | E4 | E5 | E6]]
]: ...
@overload
def all_of(
    s1: Callable[[*Ts], FutureResult[T1, E1] | Awaitable[Result[T1, E1]]],
    s2: Callable[[*Ts], FutureResult[T2, E2] | Awaitable[Result[T2, E2]]],
    s3: Callable[[*Ts], FutureResult[T3, E3] | Awaitable[Result[T3, E3]]],
    s4: Callable[[*Ts], FutureResult[T4, E4] | Awaitable[Result[T4, E4]]],
    s5: Callable[[*Ts], FutureResult[T5, E5] | Awaitable[Result[T5, E5]]],
    s6: Callable[[*Ts], FutureResult[T6, E6] | Awaitable[Result[T6, E6]]],
    s7: Callable[[*Ts], FutureResult[T7, E7] | Awaitable[Result[T7, E7]]],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[False],
    grace: float = 5.0,
) -> Callable[
    [*Ts],
    FutureResult[tuple[T1, T2, T3, T4, T5, T6, T7], AllFailed[E1 | E2 | E3 | E4 | E5 | E6 | E7]],
]: ...
@overload
def all_of(
    s1: Callable[[*Ts], FutureResult[T1, E1] | Awaitable[Result[T1, E1]]],
    s2: Callable[[*Ts], FutureResult[T2, E2] | Awaitable[Result[T2, E2]]],
    s3: Callable[[*Ts], FutureResult[T3, E3] | Awaitable[Result[T3, E3]]],
    s4: Callable[[*Ts], FutureResult[T4, E4] | Awaitable[Result[T4, E4]]],
    s5: Callable[[*Ts], FutureResult[T5, E5] | Awaitable[Result[T5, E5]]],
    s6: Callable[[*Ts], FutureResult[T6, E6] | Awaitable[Result[T6, E6]]],
    s7: Callable[[*Ts], FutureResult[T7, E7] | Awaitable[Result[T7, E7]]],
    s8: Callable[[*Ts], FutureResult[T8, E8] | Awaitable[Result[T8, E8]]],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[False],
    grace: float = 5.0,
) -> Callable[
    [*Ts],
    FutureResult[
        tuple[T1, T2, T3, T4, T5, T6, T7, T8], AllFailed[E1 | E2 | E3 | E4 | E5 | E6 | E7 | E8]
    ],
]: ...
@overload
def all_of(
    s1: Callable[[*Ts], FutureResult[T, E] | Awaitable[Result[T, E]]],
    s2: Callable[[*Ts], FutureResult[T, E] | Awaitable[Result[T, E]]],
    s3: Callable[[*Ts], FutureResult[T, E] | Awaitable[Result[T, E]]],
    s4: Callable[[*Ts], FutureResult[T, E] | Awaitable[Result[T, E]]],
    s5: Callable[[*Ts], FutureResult[T, E] | Awaitable[Result[T, E]]],
    s6: Callable[[*Ts], FutureResult[T, E] | Awaitable[Result[T, E]]],
    s7: Callable[[*Ts], FutureResult[T, E] | Awaitable[Result[T, E]]],
    s8: Callable[[*Ts], FutureResult[T, E] | Awaitable[Result[T, E]]],
    s9: Callable[[*Ts], FutureResult[T, E] | Awaitable[Result[T, E]]],
    /,
    *steps: Callable[[*Ts], FutureResult[T, E] | Awaitable[Result[T, E]]],
    limit: int | None = None,
    fail_fast: Literal[True] = True,
    grace: float = 5.0,
) -> Callable[[*Ts], FutureResult[list[T], E]]: ...
@overload
def all_of(
    s1: Callable[[*Ts], FutureResult[T, E] | Awaitable[Result[T, E]]],
    s2: Callable[[*Ts], FutureResult[T, E] | Awaitable[Result[T, E]]],
    s3: Callable[[*Ts], FutureResult[T, E] | Awaitable[Result[T, E]]],
    s4: Callable[[*Ts], FutureResult[T, E] | Awaitable[Result[T, E]]],
    s5: Callable[[*Ts], FutureResult[T, E] | Awaitable[Result[T, E]]],
    s6: Callable[[*Ts], FutureResult[T, E] | Awaitable[Result[T, E]]],
    s7: Callable[[*Ts], FutureResult[T, E] | Awaitable[Result[T, E]]],
    s8: Callable[[*Ts], FutureResult[T, E] | Awaitable[Result[T, E]]],
    s9: Callable[[*Ts], FutureResult[T, E] | Awaitable[Result[T, E]]],
    /,
    *steps: Callable[[*Ts], FutureResult[T, E] | Awaitable[Result[T, E]]],
    limit: int | None = None,
    fail_fast: Literal[False],
    grace: float = 5.0,
) -> Callable[[*Ts], FutureResult[list[T], AllFailed[E]]]: ...
def all_of(
    *steps: Callable[..., Any],
    limit: int | None = None,
    fail_fast: bool = True,
    grace: float = 5.0,
) -> Callable[..., Any]:
    """Run steps side by side, and give all their values, or undo all of them.

    1. If all succeed, their values come as a tuple in the order of the steps (as a list, for more
       than eight; a checker cannot count those that ``*`` unpacks, and takes them for that many).
    2. With ``fail_fast`` the first failure cancels the others, awaits them and undoes all; then it
       is given as it is.
    3. Without, all are run to their end; then all are undone, and the failures come together as
       `AllFailed`, in the order of the steps.
    4. An exception of one stops the others; all are undone, and it goes on.

    Args:
        steps: At least one; each is given the arguments.
        limit: How many may run at a time, at least 1; by default all.
        fail_fast: Whether the first failure ends it.
        grace: As in `with_timeout`.

    Raises:
        InvalidArgument: At the call, if there is no step, or an argument is out of range.

    Known elsewhere as: ``Promise.all``, ``parTupled`` (Cats), ``Effect.all``.
    """
    if not steps:
        raise InvalidArgument("all_of() needs at least one step")
    if limit is not None and limit < 1:
        raise InvalidArgument(f"limit must be at least 1, not {limit!r}")
    _check_grace(grace)
    given: dict[str, Any] = {} if limit is None else {"limit": limit}
    if not fail_fast:
        given["fail_fast"] = False
    given |= _unless_usual(grace)
    run = functools.partial(_together, steps, limit or len(steps), fail_fast, grace)
    return Wrapped[..., Any, Any](run, all_of, steps, given)


async def _together(
    steps: Sequence[Callable[..., Any]],
    at_once: int,
    fail_fast: bool,
    grace: float,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Result[Any, Any]:
    calls: list[Call[Any, Any]] = [Call(step, args, kwargs) for step in steps]
    outer = calls[0].context
    if outer is None:
        result = await run_all(calls, at_once, grace, fail_fast=fail_fast)
    else:
        # What the steps that succeeded hand over is undone with the rest: it needs a place.
        own = outer.attempt("all_of")
        inner = [call.within(own) for call in calls]
        result = await own.conclude(
            lambda: run_all(inner, at_once, grace, fail_fast=fail_fast), hold=True
        )
    if isinstance(result, Success) and len(steps) <= _MOST_TYPED:
        return Success(tuple(result.unwrap()))
    return result


class Tier(Generic[*Ts, T_co, E_co]):
    """Strategies of equal worth, for `fallback`: they race.

    Args:
        name: For reports; not empty.
        strategies: At least one step; they are given the same arguments.

    Raises:
        InvalidArgument: At the call, if there is no name or no strategy.
    """

    __slots__ = ("name", "strategies")

    @overload
    def __init__(
        self: Tier[*Us, T1, E1],
        name: str,
        s1: Callable[[*Us], FutureResult[T1, E1] | Awaitable[Result[T1, E1]]],
        /,
    ) -> None: ...
    @overload
    def __init__(
        self: Tier[*Us, T1 | T2, E1 | E2],
        name: str,
        s1: Callable[[*Us], FutureResult[T1, E1] | Awaitable[Result[T1, E1]]],
        s2: Callable[[*Us], FutureResult[T2, E2] | Awaitable[Result[T2, E2]]],
        /,
    ) -> None: ...
    @overload
    def __init__(
        self: Tier[*Us, T1 | T2 | T3, E1 | E2 | E3],
        name: str,
        s1: Callable[[*Us], FutureResult[T1, E1] | Awaitable[Result[T1, E1]]],
        s2: Callable[[*Us], FutureResult[T2, E2] | Awaitable[Result[T2, E2]]],
        s3: Callable[[*Us], FutureResult[T3, E3] | Awaitable[Result[T3, E3]]],
        /,
    ) -> None: ...
    @overload
    def __init__(
        self: Tier[*Us, T1 | T2 | T3 | T4, E1 | E2 | E3 | E4],
        name: str,
        s1: Callable[[*Us], FutureResult[T1, E1] | Awaitable[Result[T1, E1]]],
        s2: Callable[[*Us], FutureResult[T2, E2] | Awaitable[Result[T2, E2]]],
        s3: Callable[[*Us], FutureResult[T3, E3] | Awaitable[Result[T3, E3]]],
        s4: Callable[[*Us], FutureResult[T4, E4] | Awaitable[Result[T4, E4]]],
        /,
    ) -> None: ...
    @overload
    def __init__(
        self: Tier[*Us, T1 | T2 | T3 | T4 | T5, E1 | E2 | E3 | E4 | E5],
        name: str,
        s1: Callable[[*Us], FutureResult[T1, E1] | Awaitable[Result[T1, E1]]],
        s2: Callable[[*Us], FutureResult[T2, E2] | Awaitable[Result[T2, E2]]],
        s3: Callable[[*Us], FutureResult[T3, E3] | Awaitable[Result[T3, E3]]],
        s4: Callable[[*Us], FutureResult[T4, E4] | Awaitable[Result[T4, E4]]],
        s5: Callable[[*Us], FutureResult[T5, E5] | Awaitable[Result[T5, E5]]],
        /,
    ) -> None: ...
    @overload
    def __init__(
        self,
        name: str,
        s1: Callable[[*Ts], FutureResult[T_co, E_co] | Awaitable[Result[T_co, E_co]]],
        s2: Callable[[*Ts], FutureResult[T_co, E_co] | Awaitable[Result[T_co, E_co]]],
        s3: Callable[[*Ts], FutureResult[T_co, E_co] | Awaitable[Result[T_co, E_co]]],
        s4: Callable[[*Ts], FutureResult[T_co, E_co] | Awaitable[Result[T_co, E_co]]],
        s5: Callable[[*Ts], FutureResult[T_co, E_co] | Awaitable[Result[T_co, E_co]]],
        s6: Callable[[*Ts], FutureResult[T_co, E_co] | Awaitable[Result[T_co, E_co]]],
        /,
        *strategies: Callable[[*Ts], FutureResult[T_co, E_co] | Awaitable[Result[T_co, E_co]]],
    ) -> None: ...
    def __init__(self, name: str, /, *strategies: Any) -> None:
        if not name or not strategies:
            raise InvalidArgument("a tier needs a name and at least one strategy")
        self.name: str = name
        self.strategies: tuple[
            Callable[[*Ts], FutureResult[T_co, E_co] | Awaitable[Result[T_co, E_co]]], ...
        ] = strategies

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tier):
            return NotImplemented
        return (self.name, self.strategies) == (other.name, other.strategies)  # pyright: ignore[reportUnknownMemberType]

    def __hash__(self) -> int:
        return hash((self.name, self.strategies))

    def __repr__(self) -> str:
        return f"Tier({self.name!r}, {', '.join(map(name_of, self.strategies))})"


@dataclass(frozen=True, slots=True)
class TierFailure(Generic[E_co]):
    """How one strategy of a `fallback` failed.

    Attributes:
        tier: The name of its tier.
        index: Its place in the tier, counted from 0.
        strategy: The name of its function.
        error: Its error.
    """

    tier: str
    index: int
    strategy: str
    error: E_co


@overload
def fallback(
    t1: Tier[*Ts, T1, E1], /, *, grace: float = 5.0
) -> Callable[[*Ts], FutureResult[T1, AllFailed[TierFailure[E1]]]]: ...
@overload
def fallback(
    t1: Tier[*Ts, T1, E1], t2: Tier[*Ts, T2, E2], /, *, grace: float = 5.0
) -> Callable[[*Ts], FutureResult[T1 | T2, AllFailed[TierFailure[E1 | E2]]]]: ...
@overload
def fallback(
    t1: Tier[*Ts, T1, E1], t2: Tier[*Ts, T2, E2], t3: Tier[*Ts, T3, E3], /, *, grace: float = 5.0
) -> Callable[[*Ts], FutureResult[T1 | T2 | T3, AllFailed[TierFailure[E1 | E2 | E3]]]]: ...
@overload
def fallback(
    t1: Tier[*Ts, T1, E1],
    t2: Tier[*Ts, T2, E2],
    t3: Tier[*Ts, T3, E3],
    t4: Tier[*Ts, T4, E4],
    /,
    *,
    grace: float = 5.0,
) -> Callable[
    [*Ts], FutureResult[T1 | T2 | T3 | T4, AllFailed[TierFailure[E1 | E2 | E3 | E4]]]
]: ...
@overload
def fallback(
    t1: Tier[*Ts, T1, E1],
    t2: Tier[*Ts, T2, E2],
    t3: Tier[*Ts, T3, E3],
    t4: Tier[*Ts, T4, E4],
    t5: Tier[*Ts, T5, E5],
    /,
    *,
    grace: float = 5.0,
) -> Callable[
    [*Ts], FutureResult[T1 | T2 | T3 | T4 | T5, AllFailed[TierFailure[E1 | E2 | E3 | E4 | E5]]]
]: ...
@overload
def fallback(
    t1: Tier[*Ts, T, E],
    t2: Tier[*Ts, T, E],
    t3: Tier[*Ts, T, E],
    t4: Tier[*Ts, T, E],
    t5: Tier[*Ts, T, E],
    t6: Tier[*Ts, T, E],
    /,
    *tiers: Tier[*Ts, T, E],
    grace: float = 5.0,
) -> Callable[[*Ts], FutureResult[T, AllFailed[TierFailure[E]]]]: ...
def fallback(*tiers: Tier[*tuple[Any, ...], Any, Any], grace: float = 5.0) -> Callable[..., Any]:
    """Try tiers one after the other, until one succeeds.

    The strategies of a tier `race`. A tier that failed is undone before the next one starts. If
    all fail, it fails with `AllFailed`: a `TierFailure` for each strategy, in order.

    Args:
        tiers: At least one.
        grace: As in `with_timeout`.

    Raises:
        InvalidArgument: At the call, if there is no tier or ``grace`` is out of range.
    """
    if not tiers:
        raise InvalidArgument("fallback() needs at least one tier")
    _check_grace(grace)

    run = functools.partial(_fallen_back, tiers, grace)
    return Wrapped[..., Any, Any](run, fallback, tiers, _unless_usual(grace))


async def _fallen_back(
    tiers: Sequence[Tier[*tuple[Any, ...], Any, Any]],
    grace: float,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Result[Any, AllFailed[TierFailure[Any]]]:
    failures: list[TierFailure[Any]] = []
    for tier in tiers:
        result = await _raced(tier.strategies, grace, args, kwargs)
        if isinstance(result, Success):
            return result
        for index, error in enumerate(result.failure().errors):
            failures.append(TierFailure(tier.name, index, name_of(tier.strategies[index]), error))
    return Failure(AllFailed(tuple(failures)))


def _check_grace(grace: float) -> None:
    if not grace >= 0:
        raise InvalidArgument(f"grace must be 0 seconds or more, not {grace!r}")


def _unless_usual(grace: float) -> dict[str, Any]:
    return {} if grace == _GRACE else {"grace": grace}
