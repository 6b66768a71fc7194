"""`attempt` and `attempt_async`, source first: listed exceptions become failures."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Any, TypeVar, overload

from returns.result import Result

from returns_pipeline.result_stream import ResultStream

__all__ = ["attempt", "attempt_async"]

A = TypeVar("A")
B = TypeVar("B")
E = TypeVar("E")
F = TypeVar("F")
X1 = TypeVar("X1", bound=Exception)
X2 = TypeVar("X2", bound=Exception)
X3 = TypeVar("X3", bound=Exception)
X4 = TypeVar("X4", bound=Exception)


@overload
def attempt(
    source: AsyncIterable[Result[A, E]], func: Callable[[A], B], x1: type[X1], /
) -> ResultStream[B, E | X1]: ...


@overload
def attempt(
    source: AsyncIterable[Result[A, E]], func: Callable[[A], B], x1: type[X1], x2: type[X2], /
) -> ResultStream[B, E | X1 | X2]: ...


@overload
def attempt(
    source: AsyncIterable[Result[A, E]],
    func: Callable[[A], B],
    x1: type[X1],
    x2: type[X2],
    x3: type[X3],
    /,
) -> ResultStream[B, E | X1 | X2 | X3]: ...


@overload
def attempt(
    source: AsyncIterable[Result[A, E]],
    func: Callable[[A], B],
    x1: type[X1],
    x2: type[X2],
    x3: type[X3],
    /,
    *more: type[X4],
) -> ResultStream[B, E | X1 | X2 | X3 | X4]: ...


def attempt(
    source: AsyncIterable[Result[A, Any]], func: Callable[[A], B], /, *exceptions: type[Exception]
) -> ResultStream[B, Any]:
    """Replace each value by ``func`` of it; a listed exception becomes the failure.

    >>> from returns_pipeline.sources import from_iterable
    >>> from returns_pipeline.testing import run
    >>> s = ResultStream.of(from_iterable(["1", "x"]))
    >>> done = attempt(s, int, ValueError)
    >>> run(done.alt(type).partition())
    <IO: ([1], [<class 'ValueError'>])>
    """
    return ResultStream.from_results(source).attempt(func, *exceptions)


@overload
def attempt_async(
    source: AsyncIterable[Result[A, E]],
    func: Callable[[A], Awaitable[B]],
    x1: type[X1],
    /,
    *,
    concurrency: int = 1,
    ordered: bool = True,
) -> ResultStream[B, E | X1]: ...


@overload
def attempt_async(
    source: AsyncIterable[Result[A, E]],
    func: Callable[[A], Awaitable[B]],
    x1: type[X1],
    x2: type[X2],
    /,
    *,
    concurrency: int = 1,
    ordered: bool = True,
) -> ResultStream[B, E | X1 | X2]: ...


@overload
def attempt_async(
    source: AsyncIterable[Result[A, E]],
    func: Callable[[A], Awaitable[B]],
    x1: type[X1],
    x2: type[X2],
    x3: type[X3],
    /,
    *,
    concurrency: int = 1,
    ordered: bool = True,
) -> ResultStream[B, E | X1 | X2 | X3]: ...


@overload
def attempt_async(
    source: AsyncIterable[Result[A, E]],
    func: Callable[[A], Awaitable[B]],
    x1: type[X1],
    x2: type[X2],
    x3: type[X3],
    /,
    *more: type[X4],
    concurrency: int = 1,
    ordered: bool = True,
) -> ResultStream[B, E | X1 | X2 | X3 | X4]: ...


def attempt_async(
    source: AsyncIterable[Result[A, Any]],
    func: Callable[[A], Awaitable[B]],
    /,
    *exceptions: type[Exception],
    concurrency: int = 1,
    ordered: bool = True,
) -> ResultStream[B, Any]:
    """Do as `attempt`, awaiting ``func``.

    >>> from returns_pipeline.sources import from_iterable
    >>> from returns_pipeline.testing import run
    >>> async def invert(n: int) -> float:
    ...     return 1 / n
    >>> s = ResultStream.of(from_iterable([0, 1]))
    >>> done = attempt_async(s, invert, ZeroDivisionError)
    >>> run(done.partition())
    <IO: ([1.0], [ZeroDivisionError('division by zero')])>
    """
    return ResultStream.from_results(source).attempt_async(
        func, *exceptions, concurrency=concurrency, ordered=ordered
    )
