"""How a stream of Results ends: the methods that read it and return one outcome."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

from returns.future import Future, FutureResult
from returns.result import Failure, Result, Success

from returns_pipeline._engine import checks, ends
from returns_pipeline._engine.chain import Chain, Source, end_marks, sources
from returns_pipeline._engine.ends import End
from returns_pipeline._engine.frozen import allow_type_arguments
from returns_pipeline._engine.future_results import AsyncResult
from returns_pipeline._engine.operator import ClosableStream
from returns_pipeline._engine.tracebacks import shortened
from returns_pipeline.errors import StreamEmpty

__all__ = ["Counts", "FailedItems", "Terminals", "chain_of"]

A = TypeVar("A")
F = TypeVar("F")
T_co = TypeVar("T_co", covariant=True)
E_co = TypeVar("E_co", covariant=True)


@allow_type_arguments
@dataclass(frozen=True, slots=True)
class FailedItems(Generic[T_co, E_co]):
    """All items that `ResultStream.collect_all` read, when at least one of them failed.

    Attributes:
        successes: The values, in order.
        errors: The errors, in order; never empty.

    >>> from returns_pipeline import ResultStream, err, ok
    >>> from returns_pipeline.sources import from_iterable
    >>> from returns_pipeline.testing import run
    >>> run(ResultStream.from_results(from_iterable([ok(1), err("no")])).collect_all())
    <IOResult: <Failure: FailedItems(successes=[1], errors=['no'])>>
    """

    successes: list[T_co]
    errors: list[E_co]


@dataclass(frozen=True, slots=True)
class Counts:
    """How many items of each kind `ResultStream.run_all` read.

    Attributes:
        successes: The number of values.
        failures: The number of failures.

    >>> from returns_pipeline import ResultStream, err, ok
    >>> from returns_pipeline.sources import from_iterable
    >>> from returns_pipeline.testing import run
    >>> run(ResultStream.from_results(from_iterable([ok(1), err("no")])).run_all())
    <IO: Counts(successes=1, failures=1)>
    """

    successes: int
    failures: int


class Terminals(ClosableStream[Result[T_co, E_co]], Generic[T_co, E_co]):
    """The methods of `returns_pipeline.ResultStream` that end a chain.

    Nothing runs before a terminal is awaited, and the source is closed before it returns.
    """

    def __init__(self, chain: Chain) -> None:
        """Make a stream. Call `ResultStream.of` or `ResultStream.from_results` instead."""
        self._chain = chain

    async def aclose(self) -> None:
        """Close the iterator that was made last, if it is open.

        Branches of a `broadcast` that the stream would read, and has not opened, then leave. Any
        other source that was not opened is not changed.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> from contextlib import aclosing
        >>> async def main():
        ...     async with aclosing(ResultStream.of(from_iterable([1, 2, 3]))) as items:
        ...         async for item in items:
        ...             return item
        >>> run(main())
        <Success: 1>
        """
        await super().aclose()

    def _sources(self) -> Iterable[AsyncIterable[Any]]:
        return sources(self._chain)

    def _is_marked(self) -> bool:
        return self._chain.marked

    def collect(self) -> FutureResult[list[T_co], E_co]:
        """Read all values into a list; stop at the first failure, close the source, return it.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> run(ResultStream.of(from_iterable([1, 2, 3])).collect())
        <IOResult: <Success: [1, 2, 3]>>
        """
        return FutureResult(self._run_to(ends.COLLECT))

    def collect_all(self) -> FutureResult[list[T_co], FailedItems[T_co, E_co]]:
        """Read to the end: return the list of values, or, if an item failed, both lists.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> s = ResultStream.of(from_iterable(["1", "x"]))
        >>> run(s.attempt(int, ValueError).alt(type).collect_all())
        <IOResult: <Failure: FailedItems(successes=[1], errors=[<class 'ValueError'>])>>
        """
        return FutureResult(self._collect_all())

    async def _collect_all(self) -> Result[list[T_co], FailedItems[T_co, E_co]]:
        values, errors = await self._run_to(ends.PARTITION)
        return Failure(FailedItems(values, errors)) if errors else Success(values)

    def partition(self) -> Future[tuple[list[T_co], list[E_co]]]:
        """Read to the end: return the values and the errors, both in order.

        ``await`` returns them in an ``IO``, which cannot fail: take them out with
        ``unsafe_perform_io()``, of `returns.unsafe`.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> s = ResultStream.of(from_iterable(["1", "x"]))
        >>> run(s.attempt(int, ValueError).alt(type).partition())
        <IO: ([1], [<class 'ValueError'>])>
        >>> from returns.unsafe import unsafe_perform_io
        >>> values, errors = unsafe_perform_io(run(s.attempt(int, ValueError).partition()))
        """
        return Future(self._run_to(ends.PARTITION))

    @overload
    def for_each(
        self, func: Callable[[T_co], Result[object, F] | AsyncResult[object, F]], /
    ) -> FutureResult[int, E_co | F]: ...
    @overload
    def for_each(self, func: Callable[[T_co], object], /) -> FutureResult[int, E_co]: ...
    def for_each(self, func: Callable[[T_co], object], /) -> FutureResult[int, Any]:
        """Call ``func`` with each value, and await its result if that is awaitable.

        One value at a time. Stops at the first failure, of the stream or of ``func``, if that
        returns Results, closes the source and returns the failure.

        Returns:
            How many values were handled.

        Raises:
            TypeError: At the call, if ``func`` is not a function, or an async generator one.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> run(ResultStream.of(from_iterable([1, 2, 3])).for_each(print))
        1
        2
        3
        <IOResult: <Success: 3>>
        """
        checks.async_function("for_each", func)
        return FutureResult(self._run_to(ends.FOR_EACH, func))

    @overload
    def fold(self, initial: A, func: Callable[[A, T_co], A], /) -> FutureResult[A, E_co]: ...
    @overload
    def fold(
        self, initial: A, func: Callable[[A, T_co], Coroutine[Any, Any, A]], /
    ) -> FutureResult[A, E_co]: ...
    def fold(self, initial: A, func: Callable[[A, T_co], Any], /) -> FutureResult[A, E_co]:
        """Combine all values into one: ``func`` of the result so far and the next value.

        A ``func`` that is a coroutine function is awaited, one value at a time. Stops at the first
        failure, closes the source and returns the failure.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> run(ResultStream.of(from_iterable([1, 2, 3])).fold(0, lambda total, n: total + n))
        <IOResult: <Success: 6>>
        """
        checks.callable_only("fold", func)
        return FutureResult(self._run_to(ends.FOLD, initial, func))

    def first(self) -> FutureResult[T_co, E_co | StreamEmpty]:
        """Return the first item, value or failure, and close the source.

        The failure of a stream without items is `StreamEmpty`.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> run(ResultStream.of(from_iterable([1, 2, 3])).first())
        <IOResult: <Success: 1>>
        """
        return FutureResult(self._run_to(ends.FIRST))

    def last(self) -> FutureResult[T_co, E_co | StreamEmpty]:
        """Read to the end and return the last value; stop at the first failure and return it.

        The failure of a stream without items is `StreamEmpty`.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> run(ResultStream.of(from_iterable([1, 2, 3])).last())
        <IOResult: <Success: 3>>
        """
        return FutureResult(self._run_to(ends.LAST))

    def for_each_all(self, func: Callable[[T_co], object], /) -> Future[Counts]:
        """Do as `for_each`, but read to the end, also after failures; keep no item.

        ``await`` returns the counts in an ``IO``, as `partition` does.

        Returns:
            How many values were handled, and how many failures there were, of the stream and of
            ``func`` together.

        Raises:
            TypeError: As `for_each`.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> run(ResultStream.of(from_iterable([1, 2, 3])).for_each_all(print))
        1
        2
        3
        <IO: Counts(successes=3, failures=0)>
        """
        checks.async_function("for_each_all", func)
        return Future(self._count_to(ends.FOR_EACH_ALL, func))

    def run_all(self) -> Future[Counts]:
        """Read to the end for the steps' effects, also after failures; keep no item.

        ``await`` returns the counts in an ``IO``, as `partition` does.

        Raises:
            TypeError: As `run`.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> run(ResultStream.of(from_iterable([1, 2, 3])).run_all())
        <IO: Counts(successes=3, failures=0)>
        """
        return Future(self._count_to(ends.RUN_ALL))

    def run(self) -> FutureResult[int, E_co]:
        """Read to the end for the steps' effects; stop at the first failure and return it.

        Returns:
            How many values there were.

        Raises:
            TypeError: When awaited, if a value is a Result, a `FutureResult` or a coroutine, whose
                failure would be lost: a step was added by `map` that needs `bind`.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> run(ResultStream.of(from_iterable([1, 2, 3])).tap(print).run())
        1
        2
        3
        <IOResult: <Success: 3>>
        """
        return FutureResult(self._run_to(ends.RUN))

    @shortened
    async def _run_to(self, end: End, *args: Any) -> Any:
        try:
            return await self._chain.assemble().run_to(end, *args)
        except (
            StopAsyncIteration
        ) as error:  # an `async for` of the caller's would take it for an end
            raise RuntimeError("a step raised StopAsyncIteration") from error
        finally:
            if self._chain.marked:
                end_marks(self._chain)

    async def _count_to(self, end: End, *args: Any) -> Counts:
        return Counts(*await self._run_to(end, *args))


def chain_of(source: AsyncIterable[Result[Any, Any]]) -> Chain:
    """Return the chain of a stream of Results, whether it is a `ResultStream` or not."""
    if isinstance(source, Terminals):
        return source._chain  # pyright: ignore[reportPrivateUsage]
    return Chain(None, Source(checks.source(source), packed=True))
