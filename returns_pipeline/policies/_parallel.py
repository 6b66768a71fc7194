"""Policies of which the first success counts: `race`, `hedge`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeVar, TypeVarTuple, overload

from returns.future import FutureResult
from returns.result import Result
from typing_extensions import ParamSpec

from returns_pipeline._engine import checks
from returns_pipeline._engine.checks import Seconds
from returns_pipeline._engine.future_results import AsyncResult
from returns_pipeline._engine.slips import OneStepAfterAnother
from returns_pipeline.context._runs import Call
from returns_pipeline.errors import AllFailed, InvalidArgument
from returns_pipeline.policies._attempts import first_success
from returns_pipeline.policies._decorated import DecoratedStep

__all__ = [
    "DecoratedWithDefault",
    "StepWithDefault",
    "grace_argument",
    "hedge",
    "race",
    "run_race",
]

P = ParamSpec("P")
Ts = TypeVarTuple("Ts")
A = TypeVar("A")
B = TypeVar("B")
A_contra = TypeVar("A_contra", contravariant=True)
B_contra = TypeVar("B_contra", contravariant=True)
T_co = TypeVar("T_co", covariant=True)
E_co = TypeVar("E_co", covariant=True)
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

# Overloads for one step, two steps, and so on: mypy would join the types of `*steps` to a common
# base class. No two of them fit the same call: if they did, a lambda among the steps, which mypy
# first takes for a function of Any, would silently make all of it Any.

_GRACE: Final = 5.0  # as in the signatures, where a reader looks for it

# The first four overloads of `race` are for two and three steps of which some have parameters with
# a default. A checker would count those among `*Ts`, and find steps with different parameters.
# They fit steps of unknown parameters, too: mypy takes a race of `Callable[..., X]` for Any. Where
# they fit other steps of one parameter, the type of the race is the same.


class StepWithDefault(Protocol[A_contra, B_contra, T_co, E_co]):
    """A step whose second parameter has a default."""

    def __call__(self, a: A_contra, b: B_contra = ..., /) -> AsyncResult[T_co, E_co]: ...


class DecoratedWithDefault(Protocol[A_contra, B_contra, T_co, E_co]):
    """A race of two such steps, which has the default too."""

    def __call__(self, a: A_contra, b: B_contra = ..., /) -> FutureResult[T_co, E_co]: ...


@overload
def race(
    s1: StepWithDefault[A, B, T1, E1], s2: StepWithDefault[A, B, T2, E2], /, *, grace: Seconds = 5.0
) -> DecoratedWithDefault[A, B, T1 | T2, AllFailed[E1 | E2]]: ...
@overload
def race(
    s1: StepWithDefault[A, B, T1, E1],
    s2: StepWithDefault[A, B, T2, E2],
    s3: StepWithDefault[A, B, T3, E3],
    /,
    *,
    grace: Seconds = 5.0,
) -> DecoratedWithDefault[A, B, T1 | T2 | T3, AllFailed[E1 | E2 | E3]]: ...
@overload
def race(
    s1: Callable[[A], AsyncResult[T1, E1]],
    s2: Callable[[A], AsyncResult[T2, E2]],
    /,
    *,
    grace: Seconds = 5.0,
) -> Callable[[A], FutureResult[T1 | T2, AllFailed[E1 | E2]]]: ...
@overload
def race(
    s1: Callable[[A], AsyncResult[T1, E1]],
    s2: Callable[[A], AsyncResult[T2, E2]],
    s3: Callable[[A], AsyncResult[T3, E3]],
    /,
    *,
    grace: Seconds = 5.0,
) -> Callable[[A], FutureResult[T1 | T2 | T3, AllFailed[E1 | E2 | E3]]]: ...
@overload
def race(
    s1: Callable[[*Ts], AsyncResult[T1, E1]],
    /,
    *,
    grace: Seconds = 5.0,
) -> Callable[[*Ts], FutureResult[T1, AllFailed[E1]]]: ...
@overload
def race(
    s1: Callable[[*Ts], AsyncResult[T1, E1]],
    s2: Callable[[*Ts], AsyncResult[T2, E2]],
    /,
    *,
    grace: Seconds = 5.0,
) -> Callable[[*Ts], FutureResult[T1 | T2, AllFailed[E1 | E2]]]: ...
@overload
def race(
    s1: Callable[[*Ts], AsyncResult[T1, E1]],
    s2: Callable[[*Ts], AsyncResult[T2, E2]],
    s3: Callable[[*Ts], AsyncResult[T3, E3]],
    /,
    *,
    grace: Seconds = 5.0,
) -> Callable[[*Ts], FutureResult[T1 | T2 | T3, AllFailed[E1 | E2 | E3]]]: ...
@overload
def race(
    s1: Callable[[*Ts], AsyncResult[T1, E1]],
    s2: Callable[[*Ts], AsyncResult[T2, E2]],
    s3: Callable[[*Ts], AsyncResult[T3, E3]],
    s4: Callable[[*Ts], AsyncResult[T4, E4]],
    /,
    *,
    grace: Seconds = 5.0,
) -> Callable[[*Ts], FutureResult[T1 | T2 | T3 | T4, AllFailed[E1 | E2 | E3 | E4]]]: ...
@overload
def race(
    s1: Callable[[*Ts], AsyncResult[T1, E1]],
    s2: Callable[[*Ts], AsyncResult[T2, E2]],
    s3: Callable[[*Ts], AsyncResult[T3, E3]],
    s4: Callable[[*Ts], AsyncResult[T4, E4]],
    s5: Callable[[*Ts], AsyncResult[T5, E5]],
    /,
    *,
    grace: Seconds = 5.0,
) -> Callable[[*Ts], FutureResult[T1 | T2 | T3 | T4 | T5, AllFailed[E1 | E2 | E3 | E4 | E5]]]: ...
@overload
def race(
    steps: Sequence[OneStepAfterAnother], /, *, grace: Seconds = 5.0
) -> Callable[..., FutureResult[Any, Any]]: ...
@overload
def race(
    s1: Callable[[*Ts], AsyncResult[T, E]],
    s2: Callable[[*Ts], AsyncResult[T, E]],
    s3: Callable[[*Ts], AsyncResult[T, E]],
    s4: Callable[[*Ts], AsyncResult[T, E]],
    s5: Callable[[*Ts], AsyncResult[T, E]],
    s6: Callable[[*Ts], AsyncResult[T, E]],
    /,
    *steps: Callable[[*Ts], AsyncResult[T, E]],
    grace: Seconds = 5.0,
) -> Callable[[*Ts], FutureResult[T, AllFailed[E]]]: ...
def race(*steps: Any, grace: Seconds = 5.0) -> Callable[..., Any]:
    """Run steps side by side; the first success wins.

    1. The first step that succeeds wins. The others are cancelled, awaited and undone; a success
       that comes second is undone too. If one of their undo actions fails, it is in the context's
       report, and the winner still wins.
    2. If all steps fail, the race fails with `AllFailed`, which has the errors in the order of the
       steps.
    3. An exception of one step stops the others and propagates.

    Known elsewhere as: ``Promise.any``, ``firstSuccessOf`` (Effect), ``race`` (cats-effect).

    Args:
        steps: At least one. All are called with the same arguments, by position. In a race of two
            or three steps of one argument, some may have further parameters with a default.
            Elsewhere a checker counts those: put such a step in a lambda.
        grace: As in `with_timeout`.

    Raises:
        InvalidArgument: At the call, if there is no step or ``grace`` is out of range.

    >>> import asyncio
    >>> from returns.result import Result, Success
    >>> from returns_pipeline.testing import run
    >>> async def near(key: str) -> Result[str, str]:
    ...     await asyncio.sleep(1.0)
    ...     return Success(f"near {key}")
    >>> async def far(key: str) -> Result[str, str]:
    ...     await asyncio.sleep(2.0)
    ...     return Success(f"far {key}")
    >>> run(race(near, far)("a"))
    <IOResult: <Success: near a>>
    """
    if not steps:
        raise InvalidArgument("race() needs at least one step")
    grace = checks.seconds("grace", grace, zero=True)
    run = functools.partial(run_race, steps, grace)
    return DecoratedStep[..., Any, Any](run, race, steps, grace_argument(grace))


async def run_race(
    steps: Sequence[Callable[..., Any]], grace: float, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Result[Any, AllFailed[Any]]:
    """Run one race."""
    return await first_success([Call(step, args, kwargs) for step in steps], 0.0, grace)


def grace_argument(grace: float) -> dict[str, Any]:
    """Return the keyword argument for a ``repr()``, which leaves the default out."""
    return {} if grace == _GRACE else {"grace": grace}


def hedge(
    step: Callable[P, AsyncResult[T, E]],
    /,
    *,
    after: Seconds,
    copies: int = 2,
    grace: Seconds = 5.0,
) -> Callable[P, FutureResult[T, AllFailed[E]]]:
    """Start another copy of a slow step, and take the first success.

    A copy is started ``after`` seconds after the last one was, or at once when all running copies
    have failed; at most ``copies`` run in all. The rest is as in `race`. The step must tolerate
    being run twice. See Dean and Barroso, "The Tail at Scale" (2013).

    Args:
        step: The step.
        after: Seconds, above 0.
        copies: Runs in all, at least 2.
        grace: As in `with_timeout`.

    Raises:
        InvalidArgument: At the call, if an argument is out of range.

    >>> from returns.result import Result, Success
    >>> from returns_pipeline.testing import run
    >>> async def ask(key: str) -> Result[str, str]:
    ...     return Success(f"row {key}")
    >>> run(hedge(ask, after=0.5)("a"))
    <IOResult: <Success: row a>>
    """
    after = checks.seconds("after", after)
    copies = checks.count("copies", copies, least=2)
    grace = checks.seconds("grace", grace, zero=True)
    run = functools.partial(_run_hedge, step, after, copies, grace)
    kwargs = {"after": after, "copies": copies, **grace_argument(grace)}
    return DecoratedStep[P, T, AllFailed[E]](run, hedge, (step,), kwargs, wraps=step)


async def _run_hedge(
    step: Callable[..., AsyncResult[T, E]],
    after: float,
    copies: int,
    grace: float,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Result[T, AllFailed[E]]:
    return await first_success([Call(step, args, kwargs)] * copies, after, grace)
