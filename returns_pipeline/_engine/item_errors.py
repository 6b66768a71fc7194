"""`with_item`: failures that carry the item they are about."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, TypeVar, overload

from returns.future import FutureResult
from returns.result import Failure, Result, Success
from typing_extensions import ParamSpec

from returns_pipeline._engine.checks import callable_only
from returns_pipeline._engine.future_results import (
    AsyncResult,
    ResultLike,
    future_result,
    no_result,
    outcome_of,
)
from returns_pipeline._engine.names import name_of
from returns_pipeline.errors import ItemError

__all__ = ["with_item"]

P = ParamSpec("P")
A = TypeVar("A")
T = TypeVar("T")
E = TypeVar("E")


@overload
def with_item(
    step: Callable[Concatenate[A, P], AsyncResult[T, E]], /
) -> Callable[Concatenate[A, P], FutureResult[T, ItemError[A, E]]]: ...
@overload
def with_item(
    step: Callable[Concatenate[A, P], ResultLike[T, E]], /
) -> Callable[Concatenate[A, P], Result[T, ItemError[A, E]]]: ...
def with_item(step: Callable[..., Any], /) -> Callable[..., Any]:
    """Return the same step, with the item in its failures: `ItemError` of the item and the error.

    The item is the step's first argument. Successes and exceptions stay as they are.

    So a failure can be stored for a person to read later, with all that is needed to try it
    again (*dead letters*), while the stream continues:

    .. code-block:: python

        stored = orders.bind_step(with_item(persist), ctx)  # fails with ItemError[Order, E]
        dead = stored.tap_failure(lambda failed: letters.append((failed.item, failed.error)))
        counts = await dead.run_all()  # Counts(successes=..., failures=...)

    Policies go inside, ``with_item(with_retry(persist, policy))``, where the error is that of all
    attempts.

    Raises:
        TypeError: At the call, if ``step`` is not a function.

    >>> from aiostream import stream
    >>> from returns_pipeline import ResultStream, err, ok
    >>> from returns_pipeline.testing import run
    >>> halves = ResultStream.of(stream.range(3)).bind(
    ...     with_item(lambda n: err("odd") if n % 2 else ok(n // 2))
    ... )
    >>> run(halves.partition())
    <IO: ([0, 1], [ItemError(1, 'odd')])>
    """
    callable_only("with_item", step)

    @functools.wraps(step)
    def call(item: Any, /, *args: Any, **kwargs: Any) -> Any:
        made = step(item, *args, **kwargs)
        if isinstance(made, Result):
            return _named(made, item)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        if not hasattr(made, "__await__"):
            raise no_result(f"{name_of(step)}()", made)

        async def settle() -> Result[Any, Any]:
            return _named(await outcome_of(made), item)

        return future_result(settle())

    return call


def _named(result: Result[T, E], item: A) -> Result[T, ItemError[A, E]]:
    if isinstance(result, Success):
        return result
    return Failure(ItemError(item, result.failure()))
