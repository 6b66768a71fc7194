"""Operators on streams of Results, source first: for chains of named functions.

Each is the method of `ResultStream` of the same name, applied to any async iterable of Results; the
promises are in the methods' docstrings. The suffix ``_result`` avoids the name of a builtin or of a
function of aiostream.

>>> from aiostream import stream
>>> from returns.result import Failure, Result, Success
>>> from returns_pipeline.testing import run
>>> def half(n: int) -> Result[int, str]:
...     return Failure(f"{n} is odd") if n % 2 else Success(n // 2)
>>> halves = bind_result(ResultStream.of(stream.range(3)), half)
>>> run(halves.partition())
<IO: ([0, 1], ['1 is odd'])>
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Any, TypeVar, overload

from aiostream import Stream
from returns.future import FutureResult
from returns.result import Result
from typing_extensions import TypeIs

from returns_pipeline._engine.future_results import AsyncResult, ResultLike
from returns_pipeline.context import StepContext
from returns_pipeline.result_stream import ResultStream

__all__ = [
    "alt",
    "attempt",
    "attempt_async",
    "bimap",
    "bind_async_result",
    "bind_future_result",
    "bind_result",
    "bind_step",
    "drain_on",
    "ensure",
    "failures",
    "filter_result",
    "flat_map",
    "lash",
    "lash_async",
    "map_async",
    "map_result",
    "successes",
    "tap",
    "tap_async",
    "tap_failure",
    "tap_failure_async",
    "tap_result",
    "tap_result_async",
]

A = TypeVar("A")
B = TypeVar("B")
E = TypeVar("E")
F = TypeVar("F")
X1 = TypeVar("X1", bound=Exception)
X2 = TypeVar("X2", bound=Exception)
X3 = TypeVar("X3", bound=Exception)
X4 = TypeVar("X4", bound=Exception)


def map_result(
    source: AsyncIterable[Result[A, E]], func: Callable[[A], B], /
) -> ResultStream[B, E]:
    """Replace each value by ``func`` of it."""
    return ResultStream.from_results(source).map(func)


@overload
def filter_result(
    source: AsyncIterable[Result[A, E]], predicate: Callable[[A], TypeIs[B]], /
) -> ResultStream[B, E]: ...


@overload
def filter_result(
    source: AsyncIterable[Result[A, E]], predicate: Callable[[A], bool], /
) -> ResultStream[A, E]: ...


def filter_result(
    source: AsyncIterable[Result[A, E]], predicate: Callable[[A], bool], /
) -> ResultStream[Any, E]:
    """Keep the values for which ``predicate`` is true, and every failure."""
    return ResultStream.from_results(source).filter(predicate)


def bind_result(
    source: AsyncIterable[Result[A, E]], func: Callable[[A], ResultLike[B, F]], /
) -> ResultStream[B, E | F]:
    """Replace each value by the Result that ``func`` returns for it."""
    return ResultStream.from_results(source).bind(func)


def bind_async_result(
    source: AsyncIterable[Result[A, E]],
    func: Callable[[A], AsyncResult[B, F]],
    /,
    *,
    concurrency: int = 1,
    ordered: bool = True,
) -> ResultStream[B, E | F]:
    """Replace each value by the Result that ``func`` returns when awaited."""
    return ResultStream.from_results(source).bind_async(
        func, concurrency=concurrency, ordered=ordered
    )


def bind_future_result(
    source: AsyncIterable[Result[A, E]],
    func: Callable[[A], FutureResult[B, F]],
    /,
    *,
    concurrency: int = 1,
    ordered: bool = True,
) -> ResultStream[B, E | F]:
    """Do as `bind_async_result`, for functions that return a `FutureResult`."""
    return ResultStream.from_results(source).bind_future_result(
        func, concurrency=concurrency, ordered=ordered
    )


def bind_step(
    source: AsyncIterable[Result[A, E]],
    func: Callable[[A, StepContext], AsyncResult[B, F]],
    /,
    ctx: StepContext,
    *,
    concurrency: int = 1,
    ordered: bool = True,
    hold: bool = False,
    name: str | None = None,
) -> ResultStream[B, E | F]:
    """Replace each value by the Result of a step that runs in a context of its own."""
    return ResultStream.from_results(source).bind_step(
        func, ctx, concurrency=concurrency, ordered=ordered, hold=hold, name=name
    )


def map_async(
    source: AsyncIterable[Result[A, E]],
    func: Callable[[A], Awaitable[B]],
    /,
    *,
    concurrency: int = 1,
    ordered: bool = True,
) -> ResultStream[B, E]:
    """Replace each value by the awaited result of ``func``."""
    return ResultStream.from_results(source).map_async(
        func, concurrency=concurrency, ordered=ordered
    )


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
    """Replace each value by ``func`` of it; a listed exception becomes the failure."""
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
    """Do as `attempt`, awaiting ``func``."""
    return ResultStream.from_results(source).attempt_async(
        func, *exceptions, concurrency=concurrency, ordered=ordered
    )


def flat_map(
    source: AsyncIterable[Result[A, E]],
    func: Callable[[A], AsyncIterable[Result[B, F]]],
    /,
    *,
    concurrency: int = 1,
) -> ResultStream[B, E | F]:
    """Replace each value by the items of the stream that ``func`` returns for it."""
    return ResultStream.from_results(source).flat_map(func, concurrency=concurrency)


@overload
def ensure(
    source: AsyncIterable[Result[A, E]],
    predicate: Callable[[A], TypeIs[B]],
    /,
    error: Callable[[A], F],
) -> ResultStream[B, E | F]: ...


@overload
def ensure(
    source: AsyncIterable[Result[A, E]],
    predicate: Callable[[A], bool],
    /,
    error: Callable[[A], F],
) -> ResultStream[A, E | F]: ...


def ensure(
    source: AsyncIterable[Result[A, E]],
    predicate: Callable[[A], bool],
    /,
    error: Callable[[A], F],
) -> ResultStream[Any, E | F]:
    """Turn the values for which ``predicate`` is false into a failure: ``error`` of them."""
    return ResultStream.from_results(source).ensure(predicate, error)


def tap(source: AsyncIterable[Result[A, E]], func: Callable[[A], object], /) -> ResultStream[A, E]:
    """Call ``func`` with each value for its effect; the item is unchanged."""
    return ResultStream.from_results(source).tap(func)


def tap_async(
    source: AsyncIterable[Result[A, E]],
    func: Callable[[A], Awaitable[object]],
    /,
    *,
    concurrency: int = 1,
    ordered: bool = True,
) -> ResultStream[A, E]:
    """Await ``func`` of each value for its effect; the item is unchanged."""
    return ResultStream.from_results(source).tap_async(
        func, concurrency=concurrency, ordered=ordered
    )


def tap_result(
    source: AsyncIterable[Result[A, E]], func: Callable[[A], ResultLike[object, F]], /
) -> ResultStream[A, E | F]:
    """Call ``func`` with each value for an effect; its failure replaces the value."""
    return ResultStream.from_results(source).tap_result(func)


def tap_result_async(
    source: AsyncIterable[Result[A, E]],
    func: Callable[[A], AsyncResult[object, F]],
    /,
    *,
    concurrency: int = 1,
    ordered: bool = True,
) -> ResultStream[A, E | F]:
    """Do as `tap_result`, awaiting ``func``."""
    return ResultStream.from_results(source).tap_result_async(
        func, concurrency=concurrency, ordered=ordered
    )


def alt(source: AsyncIterable[Result[A, E]], func: Callable[[E], F], /) -> ResultStream[A, F]:
    """Replace each error by ``func`` of it."""
    return ResultStream.from_results(source).alt(func)


def bimap(
    source: AsyncIterable[Result[A, E]], func: Callable[[A], B], error: Callable[[E], F], /
) -> ResultStream[B, F]:
    """Replace each value by ``func`` of it, and each error by ``error`` of it."""
    return ResultStream.from_results(source).bimap(func, error)


def lash(
    source: AsyncIterable[Result[A, E]], func: Callable[[E], ResultLike[B, F]], /
) -> ResultStream[A | B, F]:
    """Replace each failure by the Result that ``func`` returns for its error."""
    return ResultStream.from_results(source).lash(func)


def lash_async(
    source: AsyncIterable[Result[A, E]],
    func: Callable[[E], AsyncResult[B, F]],
    /,
    *,
    concurrency: int = 1,
    ordered: bool = True,
) -> ResultStream[A | B, F]:
    """Do as `lash`, awaiting ``func``."""
    return ResultStream.from_results(source).lash_async(
        func, concurrency=concurrency, ordered=ordered
    )


def tap_failure(
    source: AsyncIterable[Result[A, E]], func: Callable[[E], object], /
) -> ResultStream[A, E]:
    """Call ``func`` with each error for its effect; the item is unchanged."""
    return ResultStream.from_results(source).tap_failure(func)


def tap_failure_async(
    source: AsyncIterable[Result[A, E]],
    func: Callable[[E], Awaitable[object]],
    /,
    *,
    concurrency: int = 1,
    ordered: bool = True,
) -> ResultStream[A, E]:
    """Await ``func`` of each error for its effect; the item is unchanged."""
    return ResultStream.from_results(source).tap_failure_async(
        func, concurrency=concurrency, ordered=ordered
    )


def drain_on(source: AsyncIterable[Result[A, E]], /, stop: asyncio.Event) -> ResultStream[A, E]:
    """Drain when ``stop`` is set: read the source no further, emit everything already read."""
    return ResultStream.from_results(source).drain_on(stop)


def successes(source: AsyncIterable[Result[A, Any]], /) -> Stream[A]:
    """Emit the values alone; failures are dropped."""
    return ResultStream.from_results(source).successes()


def failures(source: AsyncIterable[Result[Any, E]], /) -> Stream[E]:
    """Emit the errors alone; values are dropped."""
    return ResultStream.from_results(source).failures()
