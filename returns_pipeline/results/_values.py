"""The operators on the values of a stream of Results, source first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Any, Literal, TextIO, TypeVar, overload

from returns.future import FutureResult
from returns.result import Result
from typing_extensions import TypeIs

from returns_pipeline._engine.future_results import AsyncResult, ResultLike
from returns_pipeline.context import StepContext
from returns_pipeline.result_stream import ResultStream

__all__ = [
    "bind_async_result",
    "bind_future_result",
    "bind_result",
    "bind_step",
    "drain_on",
    "ensure",
    "filter_result",
    "flat_map",
    "map_async",
    "map_result",
    "progress",
    "tap",
    "tap_async",
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
    """Replace each value by ``func`` of it.

    >>> from returns_pipeline.sources import from_iterable
    >>> from returns_pipeline.testing import run
    >>> s = ResultStream.of(from_iterable([1, 2]))
    >>> done = map_result(s, str)
    >>> run(done.collect())
    <IOResult: <Success: ['1', '2']>>
    """
    return ResultStream.from_results(source).map(func)


# Mypy names the first overload when none fits: not the narrowing one, which few have in mind.
@overload
def filter_result(
    source: AsyncIterable[Result[A, E]], predicate: Callable[[A], Literal[True]], /
) -> ResultStream[A, E]: ...


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
    """Keep the values for which ``predicate`` is true, and every failure.

    >>> from returns_pipeline.sources import from_iterable
    >>> from returns_pipeline.testing import run
    >>> s = ResultStream.of(from_iterable([0, 1]))
    >>> done = filter_result(s, bool)
    >>> run(done.collect())
    <IOResult: <Success: [1]>>
    """
    return ResultStream.from_results(source).filter(predicate)


def bind_result(
    source: AsyncIterable[Result[A, E]], func: Callable[[A], ResultLike[B, F]], /
) -> ResultStream[B, E | F]:
    """Replace each value by the Result that ``func`` returns for it.

    >>> from returns.result import Failure, Result, Success
    >>> from returns_pipeline.sources import from_iterable
    >>> from returns_pipeline.testing import run
    >>> def half(n: int) -> Result[int, str]:
    ...     return Failure("odd") if n % 2 else Success(n // 2)
    >>> s = ResultStream.of(from_iterable([2, 3]))
    >>> done = bind_result(s, half)
    >>> run(done.partition())
    <IO: ([1], ['odd'])>
    """
    return ResultStream.from_results(source).bind(func)


def bind_async_result(
    source: AsyncIterable[Result[A, E]],
    func: Callable[[A], AsyncResult[B, F]],
    /,
    *,
    concurrency: int = 1,
    ordered: bool = True,
) -> ResultStream[B, E | F]:
    """Replace each value by the Result that ``func`` returns when awaited.

    >>> from returns.result import Failure, Result, Success
    >>> from returns_pipeline.sources import from_iterable
    >>> from returns_pipeline.testing import run
    >>> async def half(n: int) -> Result[int, str]:
    ...     return Failure("odd") if n % 2 else Success(n // 2)
    >>> s = ResultStream.of(from_iterable([2, 3]))
    >>> done = bind_async_result(s, half, concurrency=2)
    >>> run(done.partition())
    <IO: ([1], ['odd'])>
    """
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
    """Do as `bind_async_result`, for functions that return a `FutureResult`.

    >>> from returns.future import FutureResult
    >>> from returns_pipeline.sources import from_iterable
    >>> from returns_pipeline.testing import run
    >>> s = ResultStream.of(from_iterable([1, 2]))
    >>> done = bind_future_result(s, FutureResult.from_value)
    >>> run(done.collect())
    <IOResult: <Success: [1, 2]>>
    """
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
    """Replace each value by the Result of a step that runs in a context of its own.

    >>> from returns_pipeline import StepContext
    >>> from returns.result import Result, Success
    >>> from returns_pipeline.sources import from_iterable
    >>> from returns_pipeline.testing import run
    >>> async def path(n: int, step: StepContext) -> Result[str, str]:
    ...     return Success(step.path)
    >>> s = ResultStream.of(from_iterable([1, 2]))
    >>> done = bind_step(s, path, StepContext("shop"))
    >>> run(done.collect())
    <IOResult: <Success: ['shop/path[0]', 'shop/path[1]']>>
    """
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
    """Replace each value by the awaited result of ``func``.

    >>> from returns_pipeline.sources import from_iterable
    >>> from returns_pipeline.testing import run
    >>> async def invert(n: int) -> float:
    ...     return 1 / n
    >>> s = ResultStream.of(from_iterable([1, 2]))
    >>> done = map_async(s, invert)
    >>> run(done.collect())
    <IOResult: <Success: [1.0, 0.5]>>
    """
    return ResultStream.from_results(source).map_async(
        func, concurrency=concurrency, ordered=ordered
    )


def flat_map(
    source: AsyncIterable[Result[A, E]],
    func: Callable[[A], AsyncIterable[Result[B, F]]],
    /,
    *,
    concurrency: int = 1,
) -> ResultStream[B, E | F]:
    """Replace each value by the items of the stream that ``func`` returns for it.

    >>> from typing import Never
    >>> from returns_pipeline.sources import from_iterable
    >>> from returns_pipeline.testing import run
    >>> def up_to(n: int) -> ResultStream[int, Never]:
    ...     return ResultStream.of(from_iterable(range(n)))
    >>> s = ResultStream.of(from_iterable([1, 2]))
    >>> done = flat_map(s, up_to)
    >>> run(done.collect())
    <IOResult: <Success: [0, 0, 1]>>
    """
    return ResultStream.from_results(source).flat_map(func, concurrency=concurrency)


@overload
def ensure(
    source: AsyncIterable[Result[A, E]],
    predicate: Callable[[A], Literal[True]],
    /,
    error: Callable[[A], F],
) -> ResultStream[A, E | F]: ...


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
    """Turn the values for which ``predicate`` is false into a failure: ``error`` of them.

    >>> from returns_pipeline.sources import from_iterable
    >>> from returns_pipeline.testing import run
    >>> s = ResultStream.of(from_iterable([0, 1]))
    >>> done = ensure(s, bool, str)
    >>> run(done.partition())
    <IO: ([1], ['0'])>
    """
    return ResultStream.from_results(source).ensure(predicate, error)


def tap(source: AsyncIterable[Result[A, E]], func: Callable[[A], object], /) -> ResultStream[A, E]:
    """Call ``func`` with each value for its effect; the item is unchanged.

    >>> from returns_pipeline.sources import from_iterable
    >>> from returns_pipeline.testing import run
    >>> s = ResultStream.of(from_iterable([1, 2]))
    >>> done = tap(s, print)
    >>> run(done.run())
    1
    2
    <IOResult: <Success: 2>>
    """
    return ResultStream.from_results(source).tap(func)


def tap_async(
    source: AsyncIterable[Result[A, E]],
    func: Callable[[A], Awaitable[object]],
    /,
    *,
    concurrency: int = 1,
    ordered: bool = True,
) -> ResultStream[A, E]:
    """Await ``func`` of each value for its effect; the item is unchanged.

    >>> from returns_pipeline.sources import from_iterable
    >>> from returns_pipeline.testing import run
    >>> async def note(thing: object) -> None:
    ...     print(thing)
    >>> s = ResultStream.of(from_iterable([1, 2]))
    >>> done = tap_async(s, note)
    >>> run(done.run())
    1
    2
    <IOResult: <Success: 2>>
    """
    return ResultStream.from_results(source).tap_async(
        func, concurrency=concurrency, ordered=ordered
    )


def tap_result(
    source: AsyncIterable[Result[A, E]], func: Callable[[A], ResultLike[object, F]], /
) -> ResultStream[A, E | F]:
    """Call ``func`` with each value for an effect; its failure replaces the value.

    >>> from returns.result import Failure, Result, Success
    >>> from returns_pipeline.sources import from_iterable
    >>> from returns_pipeline.testing import run
    >>> def half(n: int) -> Result[int, str]:
    ...     return Failure("odd") if n % 2 else Success(n // 2)
    >>> s = ResultStream.of(from_iterable([2, 3]))
    >>> done = tap_result(s, half)
    >>> run(done.partition())
    <IO: ([2], ['odd'])>
    """
    return ResultStream.from_results(source).tap_result(func)


def tap_result_async(
    source: AsyncIterable[Result[A, E]],
    func: Callable[[A], AsyncResult[object, F]],
    /,
    *,
    concurrency: int = 1,
    ordered: bool = True,
) -> ResultStream[A, E | F]:
    """Do as `tap_result`, awaiting ``func``.

    >>> from returns.result import Failure, Result, Success
    >>> from returns_pipeline.sources import from_iterable
    >>> from returns_pipeline.testing import run
    >>> async def half(n: int) -> Result[int, str]:
    ...     return Failure("odd") if n % 2 else Success(n // 2)
    >>> s = ResultStream.of(from_iterable([2, 3]))
    >>> done = tap_result_async(s, half)
    >>> run(done.partition())
    <IO: ([2], ['odd'])>
    """
    return ResultStream.from_results(source).tap_result_async(
        func, concurrency=concurrency, ordered=ordered
    )


def drain_on(source: AsyncIterable[Result[A, E]], /, stop: asyncio.Event) -> ResultStream[A, E]:
    """Drain when ``stop`` is set: read the source no further, emit everything already read.

    >>> import asyncio
    >>> from returns_pipeline.sources import from_iterable
    >>> from returns_pipeline.testing import run
    >>> s = ResultStream.of(from_iterable([1, 2]))
    >>> done = drain_on(s, asyncio.Event())
    >>> run(done.collect())
    <IOResult: <Success: [1, 2]>>
    """
    return ResultStream.from_results(source).drain_on(stop)


def progress(
    source: AsyncIterable[Result[A, E]],
    /,
    total: int | None = None,
    *,
    description: str = "",
    file: TextIO | None = None,
) -> ResultStream[A, E]:
    """Show a progress bar of the items that pass. Needs the extra ``live``.

    >>> import sys
    >>> from returns_pipeline.sources import from_iterable
    >>> from returns_pipeline.testing import run
    >>> s = ResultStream.of(from_iterable([1, 2]))
    >>> done = progress(s, 2, file=sys.stdout)
    >>> run(done.collect())  # doctest: +ELLIPSIS
     ━━━... 100% 2/2 0:00:0... 0:00:00
    <IOResult: <Success: [1, 2]>>
    """
    return ResultStream.from_results(source).progress(total, description=description, file=file)
