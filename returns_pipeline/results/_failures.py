"""The operators on the failures of a stream of Results, source first."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Any, TypeVar

from aiostream import Stream
from returns.result import Result

from returns_pipeline._engine.future_results import AsyncResult, ResultLike
from returns_pipeline.result_stream import ResultStream

__all__ = [
    "alt",
    "bimap",
    "failures",
    "lash",
    "lash_async",
    "successes",
    "tap_failure",
    "tap_failure_async",
]

A = TypeVar("A")
B = TypeVar("B")
E = TypeVar("E")
F = TypeVar("F")
X1 = TypeVar("X1", bound=Exception)
X2 = TypeVar("X2", bound=Exception)
X3 = TypeVar("X3", bound=Exception)
X4 = TypeVar("X4", bound=Exception)


def alt(source: AsyncIterable[Result[A, E]], func: Callable[[E], F], /) -> ResultStream[A, F]:
    """Replace each error by ``func`` of it.

    >>> from returns.result import Failure, Success
    >>> from returns_pipeline.sources import from_iterable
    >>> from returns_pipeline.testing import run
    >>> s = ResultStream.from_results(from_iterable([Success(1), Failure("no")]))
    >>> done = alt(s, str.upper)
    >>> run(done.partition())
    <IO: ([1], ['NO'])>
    """
    return ResultStream.from_results(source).alt(func)


def bimap(
    source: AsyncIterable[Result[A, E]], func: Callable[[A], B], error: Callable[[E], F], /
) -> ResultStream[B, F]:
    """Replace each value by ``func`` of it, and each error by ``error`` of it.

    >>> from returns.result import Failure, Success
    >>> from returns_pipeline.sources import from_iterable
    >>> from returns_pipeline.testing import run
    >>> s = ResultStream.from_results(from_iterable([Success(1), Failure("no")]))
    >>> done = bimap(s, float, str.upper)
    >>> run(done.partition())
    <IO: ([1.0], ['NO'])>
    """
    return ResultStream.from_results(source).bimap(func, error)


def lash(
    source: AsyncIterable[Result[A, E]], func: Callable[[E], ResultLike[B, F]], /
) -> ResultStream[A | B, F]:
    """Replace each failure by the Result that ``func`` returns for its error.

    >>> from returns.result import Failure, Result, Success
    >>> from returns_pipeline.sources import from_iterable
    >>> from returns_pipeline.testing import run
    >>> def recover(error: str) -> Result[int, str]:
    ...     return Success(0)
    >>> s = ResultStream.from_results(from_iterable([Success(1), Failure("no")]))
    >>> done = lash(s, recover)
    >>> run(done.collect())
    <IOResult: <Success: [1, 0]>>
    """
    return ResultStream.from_results(source).lash(func)


def lash_async(
    source: AsyncIterable[Result[A, E]],
    func: Callable[[E], AsyncResult[B, F]],
    /,
    *,
    concurrency: int = 1,
    ordered: bool = True,
) -> ResultStream[A | B, F]:
    """Do as `lash`, awaiting ``func``.

    >>> from returns.result import Failure, Result, Success
    >>> from returns_pipeline.sources import from_iterable
    >>> from returns_pipeline.testing import run
    >>> async def recover(error: str) -> Result[int, str]:
    ...     return Success(0)
    >>> s = ResultStream.from_results(from_iterable([Success(1), Failure("no")]))
    >>> done = lash_async(s, recover)
    >>> run(done.collect())
    <IOResult: <Success: [1, 0]>>
    """
    return ResultStream.from_results(source).lash_async(
        func, concurrency=concurrency, ordered=ordered
    )


def tap_failure(
    source: AsyncIterable[Result[A, E]], func: Callable[[E], object], /
) -> ResultStream[A, E]:
    """Call ``func`` with each error for its effect; the item is unchanged.

    >>> from returns.result import Failure, Success
    >>> from returns_pipeline.sources import from_iterable
    >>> from returns_pipeline.testing import run
    >>> s = ResultStream.from_results(from_iterable([Success(1), Failure("no")]))
    >>> done = tap_failure(s, print)
    >>> run(done.run_all())
    no
    <IO: Counts(successes=1, failures=1)>
    """
    return ResultStream.from_results(source).tap_failure(func)


def tap_failure_async(
    source: AsyncIterable[Result[A, E]],
    func: Callable[[E], Awaitable[object]],
    /,
    *,
    concurrency: int = 1,
    ordered: bool = True,
) -> ResultStream[A, E]:
    """Await ``func`` of each error for its effect; the item is unchanged.

    >>> from returns.result import Failure, Success
    >>> from returns_pipeline.sources import from_iterable
    >>> from returns_pipeline.testing import run
    >>> async def note(thing: object) -> None:
    ...     print(thing)
    >>> s = ResultStream.from_results(from_iterable([Success(1), Failure("no")]))
    >>> done = tap_failure_async(s, note)
    >>> run(done.run_all())
    no
    <IO: Counts(successes=1, failures=1)>
    """
    return ResultStream.from_results(source).tap_failure_async(
        func, concurrency=concurrency, ordered=ordered
    )


def successes(source: AsyncIterable[Result[A, Any]], /) -> Stream[A]:
    """Emit the values alone; failures are dropped.

    >>> from returns.result import Failure, Success
    >>> from returns_pipeline.sources import from_iterable
    >>> from returns_pipeline.testing import run
    >>> s = ResultStream.from_results(from_iterable([Success(1), Failure("no")]))
    >>> done = successes(s)
    >>> async def main() -> object:
    ...     return await done
    >>> run(main())
    1
    """
    return ResultStream.from_results(source).successes()


def failures(source: AsyncIterable[Result[Any, E]], /) -> Stream[E]:
    """Emit the errors alone; values are dropped.

    >>> from returns.result import Failure, Success
    >>> from returns_pipeline.sources import from_iterable
    >>> from returns_pipeline.testing import run
    >>> s = ResultStream.from_results(from_iterable([Success(1), Failure("no")]))
    >>> done = failures(s)
    >>> async def main() -> object:
    ...     return await done
    >>> run(main())
    'no'
    """
    return ResultStream.from_results(source).failures()
