"""Policies that run steps in sequence: `with_retry`, `with_timeout`, `with_policy`, `fallback`."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, TypeVarTuple, cast, overload

from returns.future import FutureResult
from returns.result import Failure, Result, Success
from typing_extensions import ParamSpec

from returns_pipeline._engine import checks
from returns_pipeline._engine.checks import Seconds
from returns_pipeline._engine.frozen import allow_type_arguments
from returns_pipeline._engine.future_results import AsyncResult
from returns_pipeline._engine.names import name_of, shown
from returns_pipeline._engine.retry_loop import run_with_retry
from returns_pipeline._engine.slips import (
    ButAPolicy,
    FirstNameThenStep,
    FirstStepThenPolicy,
    NotANumber,
    OneStepAfterAnother,
)
from returns_pipeline.context._runs import Call, run_with_timeout
from returns_pipeline.errors import (
    AllFailed,
    BulkheadFull,
    CircuitOpen,
    InvalidArgument,
    RetriesExhausted,
    StepTimeout,
)
from returns_pipeline.policies._breaker import CircuitBreaker
from returns_pipeline.policies._decorated import DecoratedStep, check_step
from returns_pipeline.policies._limits import Bulkhead, RateLimit
from returns_pipeline.policies._parallel import grace_argument, run_race
from returns_pipeline.retry import PolicyStack, RetryPolicy, Timeout

__all__ = ["Tier", "TierFailure", "fallback", "with_policy", "with_retry", "with_timeout"]

P = ParamSpec("P")
Ts = TypeVarTuple("Ts")
Us = TypeVarTuple("Us")
A = TypeVar("A")
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


def with_retry(
    step: Callable[P, AsyncResult[T, E]],
    policy: RetryPolicy[E],
    /,
    *,
    key: Literal["attempt", "step"] = "attempt",
) -> Callable[P, FutureResult[T, RetriesExhausted[E]]]:
    """Run a step again when it fails, as a policy says.

    1. A `Success` is returned at once.
    2. After a failure that the policy retries, or an exception that it names, the actions of the
       attempt are undone. After the policy's wait the step runs again, in a new context.
    3. When the attempts or the ``total_timeout`` are used up, or the policy does not retry the
       error, the step fails with `RetriesExhausted`, which holds all errors.
    4. An exception that the policy does not name propagates as soon as the attempt is undone.

    No attempt begins after the deadline of the call's context, nor after the policy's
    ``total_timeout``, which is also a deadline of the attempts' contexts.

    Cancel safety: cancelling an attempt undoes it; during a wait there is nothing to undo.

    Args:
        step: The step.
        policy: Says when another attempt is made.
        key: Which attempts have the same `StepContext.key`. With "attempt" each has a key of its
            own: its undo and the next attempt cannot be taken for one another. With "step" all
            attempts of a call have one: for a service that carries out a request once for each key,
            and may have carried out one whose answer was lost. An undo that buries its key, as a
            tombstone does, would bury the next attempt with it. Attempts of `with_timeout` inside
            keep the key.

    Raises:
        InvalidArgument: At the call, if ``key`` is neither.

    >>> from returns.result import Failure, Result, Success
    >>> from returns_pipeline.testing import run
    >>> answers = [Failure("busy"), Success("fine")]
    >>> async def ask() -> Result[str, str]:
    ...     return answers.pop(0)
    >>> run(with_retry(ask, RetryPolicy(3))())
    <IOResult: <Success: fine>>
    """
    if not isinstance(policy, RetryPolicy):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"with_retry() takes a RetryPolicy, not {policy!r}")
    if key not in {"attempt", "step"}:
        raise InvalidArgument(f"key must be 'attempt' or 'step', not {key!r}")
    run = functools.partial(_run_retried, step, policy, key)
    kwargs = {} if key == "attempt" else {"key": key}
    args = (step, policy)
    return DecoratedStep[P, T, RetriesExhausted[E]](run, with_retry, args, kwargs, wraps=step)


async def _run_retried(
    step: Callable[..., AsyncResult[T, E]],
    policy: RetryPolicy[Any],
    key: Literal["attempt", "step"],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Result[T, RetriesExhausted[E]]:
    errors: list[E | Exception] = []
    call = Call(step, args, kwargs)
    if key == "step":
        call.key = os.urandom(16).hex()
    last = await run_with_retry(
        call.run, policy, deadline=call.deadline, errors=errors, report=call.report_retry
    )
    if isinstance(last, Success):
        return last
    return Failure(RetriesExhausted(tuple(errors)))


def with_timeout(
    step: Callable[P, AsyncResult[T, E]], seconds: Seconds, /, *, grace: Seconds = 5.0
) -> Callable[P, FutureResult[T, E | StepTimeout]]:
    """Limit the time that a step may take.

    At the limit the step is cancelled, awaited and undone; then it has failed with `StepTimeout`.
    If the call's context has an earlier deadline, that is the limit. A `TimeoutError` that the
    step itself raises is an exception like any other. A success at the very moment of the limit is
    undone too.

    The step runs in a task of its own, in a copy of the caller's context variables.

    Args:
        step: The step.
        seconds: From the call on, above 0.
        grace: Seconds that the step may take to respond to its cancellation, 0 or more. After that
            it is abandoned, with an error in the log and a note on the `StepTimeout`.

    Raises:
        InvalidArgument: At the call, if a time is out of range.

    >>> import asyncio
    >>> from returns_pipeline.testing import run
    >>> async def ask() -> Result[str, str]:
    ...     await asyncio.sleep(60.0)
    ...     return Success("fine")
    >>> run(with_timeout(ask, 2.0)())
    <IOResult: <Failure: step 'ask' took longer than 2 s>>
    """
    limit = Timeout(seconds, grace=grace)
    run = functools.partial(_run_timed, step, limit)
    args, kwargs = (step, limit.seconds), grace_argument(limit.grace)
    return DecoratedStep[P, T, E | StepTimeout](run, with_timeout, args, kwargs, wraps=step)


async def _run_timed(
    step: Callable[..., AsyncResult[T, E]],
    limit: Timeout,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Result[T, E | StepTimeout]:
    return await run_with_timeout(Call(step, args, kwargs), limit)


@overload
def with_policy(
    step: Callable[P, AsyncResult[T, E]], policy: RetryPolicy[E], /
) -> Callable[P, FutureResult[T, RetriesExhausted[E]]]: ...
@overload
def with_policy(
    step: Callable[P, AsyncResult[T, E]], policy: Timeout, /
) -> Callable[P, FutureResult[T, E | StepTimeout]]: ...
@overload
def with_policy(
    step: Callable[P, AsyncResult[T, E]],
    policy: PolicyStack[RetryPolicy, Timeout],
    /,
) -> Callable[P, FutureResult[T, RetriesExhausted[E | StepTimeout]]]: ...
@overload
def with_policy(
    step: Callable[P, AsyncResult[T, E]],
    policy: PolicyStack[Timeout, RetryPolicy],
    /,
) -> Callable[P, FutureResult[T, RetriesExhausted[E] | StepTimeout]]: ...
@overload
def with_policy(
    step: Callable[P, AsyncResult[T, E]],
    policy: PolicyStack[Timeout, RetryPolicy, Timeout],
    /,
) -> Callable[P, FutureResult[T, RetriesExhausted[E | StepTimeout] | StepTimeout]]: ...
@overload
def with_policy(
    step: Callable[P, AsyncResult[T, E]], policy: CircuitBreaker, /
) -> Callable[P, FutureResult[T, E | CircuitOpen]]: ...
@overload
def with_policy(
    step: Callable[P, AsyncResult[T, E]], policy: Bulkhead, /
) -> Callable[P, FutureResult[T, E | BulkheadFull]]: ...
@overload
def with_policy(
    step: Callable[P, AsyncResult[T, E]], policy: RateLimit, /
) -> Callable[P, FutureResult[T, E]]: ...
@overload
def with_policy(
    step: Callable[P, AsyncResult[T, E]], policy: PolicyStack[CircuitBreaker, RetryPolicy], /
) -> Callable[P, FutureResult[T, RetriesExhausted[E] | CircuitOpen]]: ...
@overload
def with_policy(
    step: Callable[P, AsyncResult[T, E]], policy: PolicyStack[CircuitBreaker, Timeout], /
) -> Callable[P, FutureResult[T, E | StepTimeout | CircuitOpen]]: ...
@overload
def with_policy(
    step: Callable[P, AsyncResult[T, E]], policy: PolicyStack[Timeout, CircuitBreaker], /
) -> Callable[P, FutureResult[T, E | CircuitOpen | StepTimeout]]: ...
@overload
def with_policy(
    step: Callable[P, AsyncResult[T, E]],
    policy: PolicyStack[CircuitBreaker, RetryPolicy, Timeout],
    /,
) -> Callable[P, FutureResult[T, RetriesExhausted[E | StepTimeout] | CircuitOpen]]: ...
@overload
def with_policy(
    step: Callable[P, AsyncResult[T, E]], policy: PolicyStack[RetryPolicy, CircuitBreaker], /
) -> Callable[P, FutureResult[T, RetriesExhausted[E | CircuitOpen]]]: ...
@overload
def with_policy(
    step: object, policy: Callable[..., FirstStepThenPolicy], /
) -> Callable[..., FutureResult[Any, Any]]: ...
@overload
def with_policy(
    step: Callable[..., object], policy: NotANumber[ButAPolicy], /
) -> Callable[..., FutureResult[Any, Any]]: ...
@overload
def with_policy(
    step: Callable[P, AsyncResult[T, E]],
    policy: PolicyStack[RetryPolicy, CircuitBreaker, Timeout],
    /,
) -> Callable[P, FutureResult[T, RetriesExhausted[E | StepTimeout | CircuitOpen]]]: ...
def with_policy(step: Any, policy: Any, /) -> Any:
    """Apply a policy, or a stack of them, to a step.

    A `RetryPolicy` is applied by `with_retry`, a `Timeout` by `with_timeout`, and a limit (made by
    `circuit_breaker`, `bulkhead` or `rate_limit`) by itself. A stack reads from the outside in,
    and does what the same nesting by hand does:
    ``with_policy(fetch, RetryPolicy(3) | Timeout(2.0))`` is
    ``with_retry(with_timeout(fetch, 2.0), RetryPolicy(3))``.

    Raises:
        TypeError: At the call, if the step is not a function or the policy is not a policy.

    >>> async def fetch(url: str) -> Result[str, OSError]:
    ...     return Success(f"<{url}>")
    >>> with_policy(fetch, RetryPolicy(3) | Timeout(2.0))
    with_retry(with_timeout(fetch, 2.0), RetryPolicy(attempts=3))
    """
    layers: tuple[Any, ...] = (policy,)
    if isinstance(policy, PolicyStack):
        layers = cast("Any", policy).layers
    for layer in reversed(layers):
        if isinstance(layer, RetryPolicy):
            step = with_retry(step, layer)  # pyright: ignore[reportUnknownArgumentType]
        elif isinstance(layer, Timeout):
            step = with_timeout(step, layer.seconds, grace=layer.grace)
        elif isinstance(layer, CircuitBreaker | Bulkhead | RateLimit):
            step = layer(step)
        else:
            raise TypeError(f"with_policy() takes a step and then a policy, not {shown(layer)}")
    return step


class Tier(Generic[*Ts, T_co, E_co]):
    """Equivalent strategies, for `fallback`: they race.

    Args:
        name: For reports; not empty.
        strategies: At least one step. They are called with the same arguments, by position. Up to
            three may have a parameter and then others with a default, which are not passed.

    Raises:
        InvalidArgument: At the call, if there is no name or no strategy.

    >>> async def cache(key: str) -> Result[str, str]:
    ...     return Failure("missing")
    >>> Tier("fast", cache)
    Tier('fast', cache)
    """

    __slots__ = ("name", "strategies")

    # Up to three strategies of one parameter may have further ones with a default, which are left
    # out: `*Us` would count them. For other strategies of one parameter the two types are the same.
    @overload
    def __init__(
        self: Tier[A, T1, E1], name: str, s1: Callable[[A], AsyncResult[T1, E1]], /
    ) -> None: ...
    @overload
    def __init__(
        self: Tier[A, T1 | T2, E1 | E2],
        name: str,
        s1: Callable[[A], AsyncResult[T1, E1]],
        s2: Callable[[A], AsyncResult[T2, E2]],
        /,
    ) -> None: ...
    @overload
    def __init__(
        self: Tier[A, T1 | T2 | T3, E1 | E2 | E3],
        name: str,
        s1: Callable[[A], AsyncResult[T1, E1]],
        s2: Callable[[A], AsyncResult[T2, E2]],
        s3: Callable[[A], AsyncResult[T3, E3]],
        /,
    ) -> None: ...
    @overload
    def __init__(
        self: Tier[*Us, T1, E1],
        name: str,
        s1: Callable[[*Us], AsyncResult[T1, E1]],
        /,
    ) -> None: ...
    @overload
    def __init__(
        self: Tier[*Us, T1 | T2, E1 | E2],
        name: str,
        s1: Callable[[*Us], AsyncResult[T1, E1]],
        s2: Callable[[*Us], AsyncResult[T2, E2]],
        /,
    ) -> None: ...
    @overload
    def __init__(
        self: Tier[*Us, T1 | T2 | T3, E1 | E2 | E3],
        name: str,
        s1: Callable[[*Us], AsyncResult[T1, E1]],
        s2: Callable[[*Us], AsyncResult[T2, E2]],
        s3: Callable[[*Us], AsyncResult[T3, E3]],
        /,
    ) -> None: ...
    @overload
    def __init__(
        self: Tier[*Us, T1 | T2 | T3 | T4, E1 | E2 | E3 | E4],
        name: str,
        s1: Callable[[*Us], AsyncResult[T1, E1]],
        s2: Callable[[*Us], AsyncResult[T2, E2]],
        s3: Callable[[*Us], AsyncResult[T3, E3]],
        s4: Callable[[*Us], AsyncResult[T4, E4]],
        /,
    ) -> None: ...
    @overload
    def __init__(
        self: Tier[*Us, T1 | T2 | T3 | T4 | T5, E1 | E2 | E3 | E4 | E5],
        name: str,
        s1: Callable[[*Us], AsyncResult[T1, E1]],
        s2: Callable[[*Us], AsyncResult[T2, E2]],
        s3: Callable[[*Us], AsyncResult[T3, E3]],
        s4: Callable[[*Us], AsyncResult[T4, E4]],
        s5: Callable[[*Us], AsyncResult[T5, E5]],
        /,
    ) -> None: ...
    @overload
    def __init__(self, name: str, strategies: Sequence[OneStepAfterAnother], /) -> None: ...
    @overload
    def __init__(
        self, step: Callable[..., FirstNameThenStep], /, *strategies: Callable[..., object]
    ) -> None: ...
    @overload
    def __init__(
        self,
        name: str,
        s1: Callable[[*Ts], AsyncResult[T_co, E_co]],
        s2: Callable[[*Ts], AsyncResult[T_co, E_co]],
        s3: Callable[[*Ts], AsyncResult[T_co, E_co]],
        s4: Callable[[*Ts], AsyncResult[T_co, E_co]],
        s5: Callable[[*Ts], AsyncResult[T_co, E_co]],
        s6: Callable[[*Ts], AsyncResult[T_co, E_co]],
        /,
        *strategies: Callable[[*Ts], AsyncResult[T_co, E_co]],
    ) -> None: ...
    def __init__(self, name: Any, /, *strategies: Any) -> None:
        if not name or not strategies:
            raise InvalidArgument("a tier needs a name and at least one strategy")
        for strategy in strategies:
            check_step(strategy, "Tier")
        self.name: str = name
        self.strategies: tuple[Callable[[*Ts], AsyncResult[T_co, E_co]], ...] = strategies

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tier):
            return NotImplemented
        return (self.name, self.strategies) == (other.name, other.strategies)  # pyright: ignore[reportUnknownMemberType]

    def __hash__(self) -> int:
        return hash((self.name, self.strategies))

    def __repr__(self) -> str:
        return f"Tier({self.name!r}, {', '.join(map(name_of, self.strategies))})"


@allow_type_arguments
@dataclass(frozen=True, slots=True)
class TierFailure(Generic[E_co]):
    """How one strategy of a `fallback` failed.

    Attributes:
        tier: The name of its tier.
        index: Its position in the tier, counted from 0.
        strategy: The name of its function.
        error: Its error.

    >>> TierFailure("fast", 0, "cache", "missing").error
    'missing'
    """

    tier: str
    index: int
    strategy: str
    error: E_co


@overload
def fallback(
    t1: Tier[*Ts, T1, E1], /, *, grace: Seconds = 5.0
) -> Callable[[*Ts], FutureResult[T1, AllFailed[TierFailure[E1]]]]: ...
@overload
def fallback(
    t1: Tier[*Ts, T1, E1], t2: Tier[*Ts, T2, E2], /, *, grace: Seconds = 5.0
) -> Callable[[*Ts], FutureResult[T1 | T2, AllFailed[TierFailure[E1 | E2]]]]: ...
@overload
def fallback(
    t1: Tier[*Ts, T1, E1], t2: Tier[*Ts, T2, E2], t3: Tier[*Ts, T3, E3], /, *, grace: Seconds = 5.0
) -> Callable[[*Ts], FutureResult[T1 | T2 | T3, AllFailed[TierFailure[E1 | E2 | E3]]]]: ...
@overload
def fallback(
    t1: Tier[*Ts, T1, E1],
    t2: Tier[*Ts, T2, E2],
    t3: Tier[*Ts, T3, E3],
    t4: Tier[*Ts, T4, E4],
    /,
    *,
    grace: Seconds = 5.0,
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
    grace: Seconds = 5.0,
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
    grace: Seconds = 5.0,
) -> Callable[[*Ts], FutureResult[T, AllFailed[TierFailure[E]]]]: ...
def fallback(*tiers: Tier[*tuple[Any, ...], Any, Any], grace: Seconds = 5.0) -> Callable[..., Any]:
    """Try tiers one after the other, until one succeeds.

    The strategies of a tier `race`. A tier that failed is undone before the next one starts. If
    all fail, it fails with `AllFailed`: a `TierFailure` for each strategy, in order.

    Args:
        tiers: At least one.
        grace: As in `with_timeout`.

    Raises:
        InvalidArgument: At the call, if there is no tier or ``grace`` is out of range.

    >>> from returns_pipeline.testing import run
    >>> async def cache(key: str) -> Result[str, str]:
    ...     return Failure("missing")
    >>> async def database(key: str) -> Result[str, str]:
    ...     return Success(f"row {key}")
    >>> run(fallback(Tier("fast", cache), Tier("slow", database))("a"))
    <IOResult: <Success: row a>>
    """
    if not tiers:
        raise InvalidArgument("fallback() needs at least one tier")
    for tier in tiers:
        if not isinstance(tier, Tier):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"fallback() takes tiers, not {shown(tier)}: put the step in a Tier")
    grace = checks.seconds("grace", grace, zero=True)
    run = functools.partial(_run_fallback, tiers, grace)
    return DecoratedStep[..., Any, Any](run, fallback, tiers, grace_argument(grace))


async def _run_fallback(
    tiers: Sequence[Tier[*tuple[Any, ...], Any, Any]],
    grace: float,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Result[Any, AllFailed[TierFailure[Any]]]:
    failures: list[TierFailure[Any]] = []
    for tier in tiers:
        result = await run_race(tier.strategies, grace, args, kwargs)
        if isinstance(result, Success):
            return result
        for index, error in enumerate(result.failure().errors):
            failures.append(TierFailure(tier.name, index, name_of(tier.strategies[index]), error))
    return Failure(AllFailed(tuple(failures)))
