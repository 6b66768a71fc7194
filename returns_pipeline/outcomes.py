"""Results as `match` statements and `await` see them, with exact types."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

from returns.io import IOResult
from returns.result import Failure, Result, Success

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from returns.future import FutureResult

__all__ = ["cases", "result_of", "settled", "unpacked"]

T = TypeVar("T")
E = TypeVar("E")


def cases(result: Result[T, E]) -> Success[T] | Failure[E]:
    """Give the same object, typed as what it can be, for a ``match`` that is exact and exhaustive.

    Type checkers do not know that a `Result` is one of two classes: in a bare ``match result``
    mypy makes every value ``Any`` and misses that all cases are there (python/mypy#17589).

    >>> def describe(result: Result[int, str]) -> str:
    ...     match cases(result):
    ...         case Success(number):
    ...             return f"got {number}"
    ...         case Failure(error):
    ...             return f"failed: {error}"
    >>> describe(Success(1)), describe(Failure("no"))
    ('got 1', 'failed: no')
    """
    return cast("Success[T] | Failure[E]", result)


async def settled(step: FutureResult[T, E] | Awaitable[Result[T, E]]) -> Result[T, E]:
    """Await a step of either form, and give its `Result`.

    Awaiting a `FutureResult` gives an ``IOResult``; its public unpacking is typed ``Never``.

    Raises:
        TypeError: What was awaited gave something else.
    """
    return result_of(await step)


def result_of(given: IOResult[T, E] | Result[T, E]) -> Result[T, E]:
    """Give the `Result` that awaiting a step gave in either form.

    Raises:
        TypeError: It gave something else.
    """
    if isinstance(given, Success | Failure):  # the plain form is checked first: it is the faster
        return cast("Result[T, E]", given)
    inner = unpacked(given)
    if isinstance(inner, Success | Failure):
        return cast("Result[T, E]", inner)
    raise TypeError(f"expected a Result, not {given!r}")


def unpacked(given: object) -> object:
    """Give the `Result` inside an ``IOResult``, and anything else as it is."""
    if isinstance(given, IOResult):
        return cast("object", given._inner_value)  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType]
    return given
