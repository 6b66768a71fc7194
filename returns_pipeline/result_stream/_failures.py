"""The steps of a `ResultStream` that work on its failures, and those that separate them."""

# See _chained.
# pyright: reportImportCycles=false

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Generic, TypeVar, overload

from aiostream import Stream
from typing_extensions import deprecated

from returns_pipeline._engine import checks, fusion, steps
from returns_pipeline._engine.calls import recorded
from returns_pipeline._engine.future_results import AsyncResult, AwaitedLost, Lost, ResultLike
from returns_pipeline._engine.operator import Repeatable
from returns_pipeline._engine.written import written
from returns_pipeline.result_stream._chained import Chained

if TYPE_CHECKING:
    from returns_pipeline.result_stream import ResultStream

__all__ = ["FailureSteps"]

F = TypeVar("F")
U = TypeVar("U")
T_co = TypeVar("T_co", covariant=True)
E_co = TypeVar("E_co", covariant=True)


class FailureSteps(Chained[T_co, E_co], Generic[T_co, E_co]):
    """Those of one failure at a time; values pass them untouched."""

    @written
    def alt(self, func: Callable[[E_co], F], /) -> ResultStream[T_co, F]:
        """Replace each error by ``func`` of it.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> s = ResultStream.of(from_iterable(["1", "x"]))
        >>> run(s.attempt(int, ValueError).alt(type).partition())
        <IO: ([1], [<class 'ValueError'>])>
        """
        checks.function("alt", func, use="lash_async")
        return self._step(steps.ALT, func)

    @written
    def bimap(self, func: Callable[[T_co], U], error: Callable[[E_co], F], /) -> ResultStream[U, F]:
        """Replace each value by ``func`` of it, and each error by ``error`` of it.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> s = ResultStream.of(from_iterable(["1", "x"]))
        >>> run(s.attempt(int, ValueError).bimap(lambda n: n * 10, type).partition())
        <IO: ([10], [<class 'ValueError'>])>
        """
        checks.function("bimap", func, use="map_async")
        checks.function("bimap", error, use="lash_async")
        return self._step(steps.BIMAP, func, error)

    @written
    def lash(self, func: Callable[[E_co], ResultLike[U, F]], /) -> ResultStream[T_co | U, F]:
        """Recover: replace each failure by the Result that ``func`` returns for its error.

        Raises:
            TypeError: At the call, if ``func`` is a coroutine function. While reading, if it
                returns no Result; the error names it, and its place in the chain.

        >>> from returns_pipeline import ResultStream, ok
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> s = ResultStream.of(from_iterable(["1", "x"]))
        >>> run(s.attempt(int, ValueError).lash(lambda error: ok(0)).collect())
        <IOResult: <Success: [1, 0]>>
        """
        checks.function("lash", func, use="lash_async")
        return self._step(steps.LASH, func, self._place("lash", func))

    @written
    def lash_async(
        self,
        func: Callable[[E_co], AsyncResult[U, F]],
        /,
        *,
        concurrency: int = 1,
        ordered: bool = True,
    ) -> ResultStream[T_co | U, F]:
        """Do as `lash`, awaiting ``func``.

        For ``concurrency`` and ``ordered`` see `bind_async`; values count as items, too.

        >>> from returns_pipeline import ResultStream, ok
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> async def zero(error):
        ...     return ok(0)
        >>> s = ResultStream.of(from_iterable(["1", "x"]))
        >>> run(s.attempt(int, ValueError).lash_async(zero).collect())
        <IOResult: <Success: [1, 0]>>
        """
        return self._async_step(steps.LASH_ASYNC, "lash_async", func, concurrency, ordered)

    @overload
    def tap_failure(self, func: Callable[[E_co], None], /) -> ResultStream[T_co, E_co]: ...
    @overload
    @deprecated("its failure would be ignored: use lash() or tap_failure_async()")
    def tap_failure(self, func: Callable[[E_co], Lost], /) -> ResultStream[T_co, E_co]: ...
    @overload
    def tap_failure(self, func: Callable[[E_co], object], /) -> ResultStream[T_co, E_co]: ...
    @written
    def tap_failure(self, func: Callable[[E_co], object], /) -> ResultStream[T_co, E_co]:
        """Call ``func`` with each error for its effect; the item is unchanged.

        Raises:
            TypeError: As `tap`.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> s = ResultStream.of(from_iterable(["1", "x"]))
        >>> run(s.attempt(int, ValueError).alt(type).tap_failure(print).run_all())
        <class 'ValueError'>
        <IO: Counts(successes=1, failures=1)>
        """
        checks.function("tap_failure", func, use="tap_failure_async")
        return self._step(steps.TAP_FAILURE, func, self._place("tap_failure", func))

    @overload
    def tap_failure_async(
        self,
        func: Callable[[E_co], Awaitable[None]],
        /,
        *,
        concurrency: int = 1,
        ordered: bool = True,
    ) -> ResultStream[T_co, E_co]: ...
    @overload
    @deprecated("its failure would be ignored: use lash_async()")
    def tap_failure_async(
        self,
        func: Callable[[E_co], AwaitedLost],
        /,
        *,
        concurrency: int = 1,
        ordered: bool = True,
    ) -> ResultStream[T_co, E_co]: ...
    @overload
    def tap_failure_async(
        self,
        func: Callable[[E_co], Awaitable[object]],
        /,
        *,
        concurrency: int = 1,
        ordered: bool = True,
    ) -> ResultStream[T_co, E_co]: ...
    @written
    def tap_failure_async(
        self,
        func: Callable[[E_co], Awaitable[object]],
        /,
        *,
        concurrency: int = 1,
        ordered: bool = True,
    ) -> ResultStream[T_co, E_co]:
        """Await ``func`` of each error for its effect; the item is emitted afterwards, unchanged.

        For ``concurrency`` and ``ordered`` see `bind_async`; values count as items, too.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> async def show(error):
        ...     print(type(error))
        >>> s = ResultStream.of(from_iterable(["1", "x"]))
        >>> run(s.attempt(int, ValueError).tap_failure_async(show).run_all())
        <class 'ValueError'>
        <IO: Counts(successes=1, failures=1)>
        """
        return self._async_step(
            steps.TAP_FAILURE_ASYNC, "tap_failure_async", func, concurrency, ordered
        )

    @recorded
    def successes(self) -> Stream[T_co]:
        """Emit the values alone; failures are dropped.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> from aiostream import stream
        >>> s = ResultStream.of(from_iterable(["1", "x"])).attempt(int, ValueError)
        >>> run(stream.list(s.successes()))
        [1]
        """
        return Repeatable(lambda: fusion.open_half(self._chain, failed=False))

    @recorded
    def failures(self) -> Stream[E_co]:
        """Emit the errors alone; values are dropped.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> from aiostream import stream
        >>> s = ResultStream.of(from_iterable(["1", "x"])).attempt(int, ValueError)
        >>> run(stream.list(s.failures()))
        [ValueError("invalid literal for int() with base 10: 'x'")]
        """
        return Repeatable(lambda: fusion.open_half(self._chain, failed=True))
