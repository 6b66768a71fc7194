"""`all_of`: steps side by side that succeed together, or are undone together."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TypeVar, TypeVarTuple, overload

from returns.future import FutureResult
from returns.result import Result, Success

from returns_pipeline._engine import checks
from returns_pipeline._engine.checks import Seconds
from returns_pipeline._engine.future_results import AsyncResult
from returns_pipeline._engine.slips import OneStepAfterAnother
from returns_pipeline.context import _steps
from returns_pipeline.context._runs import Call
from returns_pipeline.errors import AllFailed, InvalidArgument
from returns_pipeline.policies._attempts import run_all
from returns_pipeline.policies._decorated import DecoratedStep
from returns_pipeline.policies._parallel import (
    DecoratedWithDefault,
    StepWithDefault,
    grace_argument,
)

__all__ = ["all_of"]

Ts = TypeVarTuple("Ts")
A = TypeVar("A")
B = TypeVar("B")
T = TypeVar("T")
E = TypeVar("E")
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

# With more steps than this, it returns a list.
_MOST_TYPED: Final = 8

# The overloads are those of `race`, for the reasons given there.


@overload
def all_of(
    s1: StepWithDefault[A, B, T1, E1],
    s2: StepWithDefault[A, B, T2, E2],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[True] = True,
    grace: Seconds = 5.0,
) -> DecoratedWithDefault[A, B, tuple[T1, T2], E1 | E2]: ...
@overload
def all_of(
    s1: StepWithDefault[A, B, T1, E1],
    s2: StepWithDefault[A, B, T2, E2],
    s3: StepWithDefault[A, B, T3, E3],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[True] = True,
    grace: Seconds = 5.0,
) -> DecoratedWithDefault[A, B, tuple[T1, T2, T3], E1 | E2 | E3]: ...
@overload
def all_of(
    s1: Callable[[A], AsyncResult[T1, E1]],
    s2: Callable[[A], AsyncResult[T2, E2]],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[True] = True,
    grace: Seconds = 5.0,
) -> Callable[[A], FutureResult[tuple[T1, T2], E1 | E2]]: ...
@overload
def all_of(
    s1: Callable[[A], AsyncResult[T1, E1]],
    s2: Callable[[A], AsyncResult[T2, E2]],
    s3: Callable[[A], AsyncResult[T3, E3]],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[True] = True,
    grace: Seconds = 5.0,
) -> Callable[[A], FutureResult[tuple[T1, T2, T3], E1 | E2 | E3]]: ...
@overload
def all_of(
    s1: StepWithDefault[A, B, T1, E1],
    s2: StepWithDefault[A, B, T2, E2],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[False],
    grace: Seconds = 5.0,
) -> DecoratedWithDefault[A, B, tuple[T1, T2], AllFailed[E1 | E2]]: ...
@overload
def all_of(
    s1: StepWithDefault[A, B, T1, E1],
    s2: StepWithDefault[A, B, T2, E2],
    s3: StepWithDefault[A, B, T3, E3],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[False],
    grace: Seconds = 5.0,
) -> DecoratedWithDefault[A, B, tuple[T1, T2, T3], AllFailed[E1 | E2 | E3]]: ...
@overload
def all_of(
    s1: Callable[[A], AsyncResult[T1, E1]],
    s2: Callable[[A], AsyncResult[T2, E2]],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[False],
    grace: Seconds = 5.0,
) -> Callable[[A], FutureResult[tuple[T1, T2], AllFailed[E1 | E2]]]: ...
@overload
def all_of(
    s1: Callable[[A], AsyncResult[T1, E1]],
    s2: Callable[[A], AsyncResult[T2, E2]],
    s3: Callable[[A], AsyncResult[T3, E3]],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[False],
    grace: Seconds = 5.0,
) -> Callable[[A], FutureResult[tuple[T1, T2, T3], AllFailed[E1 | E2 | E3]]]: ...
@overload
def all_of(
    s1: Callable[[*Ts], AsyncResult[T1, E1]],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[True] = True,
    grace: Seconds = 5.0,
) -> Callable[[*Ts], FutureResult[tuple[T1], E1]]: ...
@overload
def all_of(
    s1: Callable[[*Ts], AsyncResult[T1, E1]],
    s2: Callable[[*Ts], AsyncResult[T2, E2]],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[True] = True,
    grace: Seconds = 5.0,
) -> Callable[[*Ts], FutureResult[tuple[T1, T2], E1 | E2]]: ...
@overload
def all_of(
    s1: Callable[[*Ts], AsyncResult[T1, E1]],
    s2: Callable[[*Ts], AsyncResult[T2, E2]],
    s3: Callable[[*Ts], AsyncResult[T3, E3]],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[True] = True,
    grace: Seconds = 5.0,
) -> Callable[[*Ts], FutureResult[tuple[T1, T2, T3], E1 | E2 | E3]]: ...
@overload
def all_of(
    s1: Callable[[*Ts], AsyncResult[T1, E1]],
    s2: Callable[[*Ts], AsyncResult[T2, E2]],
    s3: Callable[[*Ts], AsyncResult[T3, E3]],
    s4: Callable[[*Ts], AsyncResult[T4, E4]],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[True] = True,
    grace: Seconds = 5.0,
) -> Callable[[*Ts], FutureResult[tuple[T1, T2, T3, T4], E1 | E2 | E3 | E4]]: ...
@overload
def all_of(
    s1: Callable[[*Ts], AsyncResult[T1, E1]],
    s2: Callable[[*Ts], AsyncResult[T2, E2]],
    s3: Callable[[*Ts], AsyncResult[T3, E3]],
    s4: Callable[[*Ts], AsyncResult[T4, E4]],
    s5: Callable[[*Ts], AsyncResult[T5, E5]],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[True] = True,
    grace: Seconds = 5.0,
) -> Callable[[*Ts], FutureResult[tuple[T1, T2, T3, T4, T5], E1 | E2 | E3 | E4 | E5]]: ...
@overload
def all_of(
    s1: Callable[[*Ts], AsyncResult[T1, E1]],
    s2: Callable[[*Ts], AsyncResult[T2, E2]],
    s3: Callable[[*Ts], AsyncResult[T3, E3]],
    s4: Callable[[*Ts], AsyncResult[T4, E4]],
    s5: Callable[[*Ts], AsyncResult[T5, E5]],
    s6: Callable[[*Ts], AsyncResult[T6, E6]],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[True] = True,
    grace: Seconds = 5.0,
) -> Callable[[*Ts], FutureResult[tuple[T1, T2, T3, T4, T5, T6], E1 | E2 | E3 | E4 | E5 | E6]]: ...
@overload
def all_of(
    s1: Callable[[*Ts], AsyncResult[T1, E1]],
    s2: Callable[[*Ts], AsyncResult[T2, E2]],
    s3: Callable[[*Ts], AsyncResult[T3, E3]],
    s4: Callable[[*Ts], AsyncResult[T4, E4]],
    s5: Callable[[*Ts], AsyncResult[T5, E5]],
    s6: Callable[[*Ts], AsyncResult[T6, E6]],
    s7: Callable[[*Ts], AsyncResult[T7, E7]],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[True] = True,
    grace: Seconds = 5.0,
) -> Callable[
    [*Ts], FutureResult[tuple[T1, T2, T3, T4, T5, T6, T7], E1 | E2 | E3 | E4 | E5 | E6 | E7]
]: ...
@overload
def all_of(
    s1: Callable[[*Ts], AsyncResult[T1, E1]],
    s2: Callable[[*Ts], AsyncResult[T2, E2]],
    s3: Callable[[*Ts], AsyncResult[T3, E3]],
    s4: Callable[[*Ts], AsyncResult[T4, E4]],
    s5: Callable[[*Ts], AsyncResult[T5, E5]],
    s6: Callable[[*Ts], AsyncResult[T6, E6]],
    s7: Callable[[*Ts], AsyncResult[T7, E7]],
    s8: Callable[[*Ts], AsyncResult[T8, E8]],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[True] = True,
    grace: Seconds = 5.0,
) -> Callable[
    [*Ts],
    FutureResult[tuple[T1, T2, T3, T4, T5, T6, T7, T8], E1 | E2 | E3 | E4 | E5 | E6 | E7 | E8],
]: ...
@overload
def all_of(
    s1: Callable[[*Ts], AsyncResult[T1, E1]],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[False],
    grace: Seconds = 5.0,
) -> Callable[[*Ts], FutureResult[tuple[T1], AllFailed[E1]]]: ...
@overload
def all_of(
    s1: Callable[[*Ts], AsyncResult[T1, E1]],
    s2: Callable[[*Ts], AsyncResult[T2, E2]],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[False],
    grace: Seconds = 5.0,
) -> Callable[[*Ts], FutureResult[tuple[T1, T2], AllFailed[E1 | E2]]]: ...
@overload
def all_of(
    s1: Callable[[*Ts], AsyncResult[T1, E1]],
    s2: Callable[[*Ts], AsyncResult[T2, E2]],
    s3: Callable[[*Ts], AsyncResult[T3, E3]],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[False],
    grace: Seconds = 5.0,
) -> Callable[[*Ts], FutureResult[tuple[T1, T2, T3], AllFailed[E1 | E2 | E3]]]: ...
@overload
def all_of(
    s1: Callable[[*Ts], AsyncResult[T1, E1]],
    s2: Callable[[*Ts], AsyncResult[T2, E2]],
    s3: Callable[[*Ts], AsyncResult[T3, E3]],
    s4: Callable[[*Ts], AsyncResult[T4, E4]],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[False],
    grace: Seconds = 5.0,
) -> Callable[[*Ts], FutureResult[tuple[T1, T2, T3, T4], AllFailed[E1 | E2 | E3 | E4]]]: ...
@overload
def all_of(
    s1: Callable[[*Ts], AsyncResult[T1, E1]],
    s2: Callable[[*Ts], AsyncResult[T2, E2]],
    s3: Callable[[*Ts], AsyncResult[T3, E3]],
    s4: Callable[[*Ts], AsyncResult[T4, E4]],
    s5: Callable[[*Ts], AsyncResult[T5, E5]],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[False],
    grace: Seconds = 5.0,
) -> Callable[
    [*Ts], FutureResult[tuple[T1, T2, T3, T4, T5], AllFailed[E1 | E2 | E3 | E4 | E5]]
]: ...
@overload
def all_of(
    s1: Callable[[*Ts], AsyncResult[T1, E1]],
    s2: Callable[[*Ts], AsyncResult[T2, E2]],
    s3: Callable[[*Ts], AsyncResult[T3, E3]],
    s4: Callable[[*Ts], AsyncResult[T4, E4]],
    s5: Callable[[*Ts], AsyncResult[T5, E5]],
    s6: Callable[[*Ts], AsyncResult[T6, E6]],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[False],
    grace: Seconds = 5.0,
) -> Callable[
    [*Ts], FutureResult[tuple[T1, T2, T3, T4, T5, T6], AllFailed[E1 | E2 | E3 | E4 | E5 | E6]]
]: ...
@overload
def all_of(
    s1: Callable[[*Ts], AsyncResult[T1, E1]],
    s2: Callable[[*Ts], AsyncResult[T2, E2]],
    s3: Callable[[*Ts], AsyncResult[T3, E3]],
    s4: Callable[[*Ts], AsyncResult[T4, E4]],
    s5: Callable[[*Ts], AsyncResult[T5, E5]],
    s6: Callable[[*Ts], AsyncResult[T6, E6]],
    s7: Callable[[*Ts], AsyncResult[T7, E7]],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[False],
    grace: Seconds = 5.0,
) -> Callable[
    [*Ts],
    FutureResult[tuple[T1, T2, T3, T4, T5, T6, T7], AllFailed[E1 | E2 | E3 | E4 | E5 | E6 | E7]],
]: ...
@overload
def all_of(
    s1: Callable[[*Ts], AsyncResult[T1, E1]],
    s2: Callable[[*Ts], AsyncResult[T2, E2]],
    s3: Callable[[*Ts], AsyncResult[T3, E3]],
    s4: Callable[[*Ts], AsyncResult[T4, E4]],
    s5: Callable[[*Ts], AsyncResult[T5, E5]],
    s6: Callable[[*Ts], AsyncResult[T6, E6]],
    s7: Callable[[*Ts], AsyncResult[T7, E7]],
    s8: Callable[[*Ts], AsyncResult[T8, E8]],
    /,
    *,
    limit: int | None = None,
    fail_fast: Literal[False],
    grace: Seconds = 5.0,
) -> Callable[
    [*Ts],
    FutureResult[
        tuple[T1, T2, T3, T4, T5, T6, T7, T8], AllFailed[E1 | E2 | E3 | E4 | E5 | E6 | E7 | E8]
    ],
]: ...
@overload
def all_of(
    s1: Callable[[*Ts], AsyncResult[T, E]],
    s2: Callable[[*Ts], AsyncResult[T, E]],
    s3: Callable[[*Ts], AsyncResult[T, E]],
    s4: Callable[[*Ts], AsyncResult[T, E]],
    s5: Callable[[*Ts], AsyncResult[T, E]],
    s6: Callable[[*Ts], AsyncResult[T, E]],
    s7: Callable[[*Ts], AsyncResult[T, E]],
    s8: Callable[[*Ts], AsyncResult[T, E]],
    s9: Callable[[*Ts], AsyncResult[T, E]],
    /,
    *steps: Callable[[*Ts], AsyncResult[T, E]],
    limit: int | None = None,
    fail_fast: Literal[True] = True,
    grace: Seconds = 5.0,
) -> Callable[[*Ts], FutureResult[list[T], E]]: ...
@overload
def all_of(
    steps: Sequence[OneStepAfterAnother],
    /,
    *,
    limit: int | None = None,
    fail_fast: bool = True,
    grace: Seconds = 5.0,
) -> Callable[..., FutureResult[Any, Any]]: ...
@overload
def all_of(
    s1: Callable[[*Ts], AsyncResult[T, E]],
    s2: Callable[[*Ts], AsyncResult[T, E]],
    s3: Callable[[*Ts], AsyncResult[T, E]],
    s4: Callable[[*Ts], AsyncResult[T, E]],
    s5: Callable[[*Ts], AsyncResult[T, E]],
    s6: Callable[[*Ts], AsyncResult[T, E]],
    s7: Callable[[*Ts], AsyncResult[T, E]],
    s8: Callable[[*Ts], AsyncResult[T, E]],
    s9: Callable[[*Ts], AsyncResult[T, E]],
    /,
    *steps: Callable[[*Ts], AsyncResult[T, E]],
    limit: int | None = None,
    fail_fast: Literal[False],
    grace: Seconds = 5.0,
) -> Callable[[*Ts], FutureResult[list[T], AllFailed[E]]]: ...
def all_of(
    *steps: Any,
    limit: int | None = None,
    fail_fast: bool = True,
    grace: Seconds = 5.0,
) -> Callable[..., Any]:
    """Run steps side by side, and return all their values, or undo all of them.

    1. If all succeed, their values come as a tuple in the order of the steps. With more than eight
       steps they come as a list. A checker cannot count steps that ``*`` unpacks, and assumes more
       than eight.
    2. With ``fail_fast``, the first failure cancels the others, awaits them and undoes all; then
       this failure is returned as it is.
    3. Without it, all steps run to their end. Then all are undone, and the failures come together
       as `AllFailed`, in the order of the steps.
    4. An exception of one step stops the others; all are undone, and the exception propagates.

    Known elsewhere as: ``Promise.all``, ``parTupled`` (Cats), ``Effect.all``.

    Args:
        steps: At least one, as in `race`. Two or three may have parameters with a default.
        limit: How many may run at a time, at least 1; by default all.
        fail_fast: Whether the first failure ends the others.
        grace: As in `with_timeout`.

    Raises:
        InvalidArgument: At the call, if there is no step, or an argument is out of range.

    >>> import asyncio
    >>> from returns_pipeline.testing import run
    >>> async def near(key: str) -> Result[str, str]:
    ...     await asyncio.sleep(1.0)
    ...     return Success(f"near {key}")
    >>> async def far(key: str) -> Result[str, str]:
    ...     await asyncio.sleep(2.0)
    ...     return Success(f"far {key}")
    >>> run(all_of(near, far)("a"))
    <IOResult: <Success: ('near a', 'far a')>>
    """
    if not steps:
        raise InvalidArgument("all_of() needs at least one step")
    kwargs: dict[str, Any] = {}
    if limit is not None:
        kwargs["limit"] = limit = checks.count("limit", limit)
    if not fail_fast:
        kwargs["fail_fast"] = False
    grace = checks.seconds("grace", grace, zero=True)
    kwargs |= grace_argument(grace)
    run = functools.partial(_run_all_of, steps, limit or len(steps), fail_fast, grace)
    return DecoratedStep[..., Any, Any](run, all_of, steps, kwargs)


async def _run_all_of(
    steps: Sequence[Callable[..., Any]],
    limit: int,
    fail_fast: bool,
    grace: float,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Result[Any, Any]:
    calls: list[Call[Any, Any]] = [Call(step, args, kwargs) for step in steps]
    outer = calls[0].context
    if outer is None:
        result = await run_all(calls, limit, grace, fail_fast=fail_fast)
    else:
        # A context around all of them: the actions of successful steps are undone with the rest.
        own = _steps.open_attempt(outer, "all_of")
        inner = [call.within(own) for call in calls]
        result = await _steps.run_and_settle(
            own, lambda: run_all(inner, limit, grace, fail_fast=fail_fast), hold=True
        )
    if isinstance(result, Success) and len(steps) <= _MOST_TYPED:
        return Success(tuple(result.unwrap()))
    return result
