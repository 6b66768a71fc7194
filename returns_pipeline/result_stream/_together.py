"""The steps of a `ResultStream` from `returns_pipeline.combine`: with other streams, or in time."""

# See _chained.
# pyright: reportImportCycles=false

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, overload

from returns.result import Result

from returns_pipeline import combine
from returns_pipeline._engine import fusion, steps
from returns_pipeline._engine.calls import record_call
from returns_pipeline._engine.chain import Chain, Source
from returns_pipeline._engine.checks import Seconds
from returns_pipeline._engine.fan_in import BUFFER
from returns_pipeline._engine.future_results import AsyncResult, result_of
from returns_pipeline._engine.reader import Reader
from returns_pipeline._engine.steps import Failed
from returns_pipeline._engine.terminals import chain_of
from returns_pipeline._engine.written import written
from returns_pipeline.context import StepContext
from returns_pipeline.errors import InvalidArgument
from returns_pipeline.result_stream._chained import Chained

if TYPE_CHECKING:
    from returns_pipeline.result_stream import ResultStream

__all__ = ["TogetherSteps"]

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
F = TypeVar("F")
G = TypeVar("G")
H = TypeVar("H")
K = TypeVar("K")
L = TypeVar("L")
U = TypeVar("U")
T_co = TypeVar("T_co", covariant=True)
E_co = TypeVar("E_co", covariant=True)


class TogetherSteps(Chained[T_co, E_co], Generic[T_co, E_co]):
    """The operators of `returns_pipeline.combine`, for a stream of Results."""

    @overload
    def merge(
        self,
        b: AsyncIterable[Result[B, F]],
        /,
        *,
        buffer: int = BUFFER,
    ) -> ResultStream[T_co | B, E_co | F]: ...
    @overload
    def merge(
        self,
        b: AsyncIterable[Result[B, F]],
        c: AsyncIterable[Result[C, G]],
        /,
        *,
        buffer: int = BUFFER,
    ) -> ResultStream[T_co | B | C, E_co | F | G]: ...
    @overload
    def merge(
        self,
        b: AsyncIterable[Result[B, F]],
        c: AsyncIterable[Result[C, G]],
        d: AsyncIterable[Result[D, H]],
        /,
        *,
        buffer: int = BUFFER,
    ) -> ResultStream[T_co | B | C | D, E_co | F | G | H]: ...
    @overload
    def merge(
        self,
        b: AsyncIterable[Result[B, F]],
        c: AsyncIterable[Result[C, G]],
        d: AsyncIterable[Result[D, H]],
        e: AsyncIterable[Result[K, L]],
        /,
        *,
        buffer: int = BUFFER,
    ) -> ResultStream[T_co | B | C | D | K, E_co | F | G | H | L]: ...
    @overload
    def merge(
        self, *others: AsyncIterable[Result[U, F]], buffer: int = BUFFER
    ) -> ResultStream[T_co | U, E_co | F]: ...
    @written
    def merge(
        self, *others: AsyncIterable[Result[Any, Any]], buffer: int = BUFFER
    ) -> ResultStream[Any, Any]:
        """Emit the items of other streams of Results as well, all as they come.

        As `combine.merge`. More than four others have to agree in one type.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> s = ResultStream.of(from_iterable([1, 2, 3]))
        >>> run(s.merge(ResultStream.of(from_iterable("ab"))).run())
        <IOResult: <Success: 5>>
        """
        return self._fan_in(
            tuple([chain_of(other) for other in others]),
            lambda parts: combine.merge.raw(*parts, buffer=buffer),
            carries_marks=True,
        )

    @overload
    def concat(
        self,
        b: AsyncIterable[Result[B, F]],
        /,
    ) -> ResultStream[T_co | B, E_co | F]: ...
    @overload
    def concat(
        self,
        b: AsyncIterable[Result[B, F]],
        c: AsyncIterable[Result[C, G]],
        /,
    ) -> ResultStream[T_co | B | C, E_co | F | G]: ...
    @overload
    def concat(
        self,
        b: AsyncIterable[Result[B, F]],
        c: AsyncIterable[Result[C, G]],
        d: AsyncIterable[Result[D, H]],
        /,
    ) -> ResultStream[T_co | B | C | D, E_co | F | G | H]: ...
    @overload
    def concat(
        self,
        b: AsyncIterable[Result[B, F]],
        c: AsyncIterable[Result[C, G]],
        d: AsyncIterable[Result[D, H]],
        e: AsyncIterable[Result[K, L]],
        /,
    ) -> ResultStream[T_co | B | C | D | K, E_co | F | G | H | L]: ...
    @overload
    def concat(self, *others: AsyncIterable[Result[U, F]]) -> ResultStream[T_co | U, E_co | F]: ...
    @written
    def concat(self, *others: AsyncIterable[Result[Any, Any]]) -> ResultStream[Any, Any]:
        """Emit the items of other streams of Results after the streams before them have ended.

        More than four others have to agree in one type.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> s = ResultStream.of(from_iterable([1, 2, 3]))
        >>> run(s.concat(ResultStream.of(from_iterable("ab"))).collect())
        <IOResult: <Success: [1, 2, 3, 'a', 'b']>>
        """
        return self._fan_in(
            tuple([chain_of(other) for other in others]),
            lambda parts: combine.concat.raw(*parts),
            carries_marks=True,
        )

    @written
    def zip(
        self, other: AsyncIterable[Result[U, F]], /, *, strict: bool = False
    ) -> ResultStream[tuple[T_co, U], E_co | F]:
        """Pair each item with the one of the same number, as `combine.zip_results`.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> s = ResultStream.of(from_iterable([1, 2, 3]))
        >>> run(s.zip(ResultStream.of(from_iterable("abc"))).collect())
        <IOResult: <Success: [(1, 'a'), (2, 'b'), (3, 'c')]>>
        """
        from returns_pipeline.combine._zip import MarkedZipPump, ZipPump

        second = chain_of(other)
        pump = MarkedZipPump if self._chain.marked or second.marked else ZipPump[Any, Any]
        return self._fan_in(
            (second,),
            lambda parts: Reader(pump(parts, steps.tuple_or_failed, strict=strict)),
            carries_marks=True,
        )

    @overload
    def broadcast(
        self,
        n: Literal[2],
        *,
        buffer: int = BUFFER,
        overflow: Literal["backpressure", "drop_oldest", "fail"] = "backpressure",
        on_drop: Callable[[int, int], object] | None = None,
        replay: int = 0,
    ) -> tuple[ResultStream[T_co, E_co], ResultStream[T_co, E_co]]: ...
    @overload
    def broadcast(
        self,
        n: Literal[3],
        *,
        buffer: int = BUFFER,
        overflow: Literal["backpressure", "drop_oldest", "fail"] = "backpressure",
        on_drop: Callable[[int, int], object] | None = None,
        replay: int = 0,
    ) -> tuple[ResultStream[T_co, E_co], ResultStream[T_co, E_co], ResultStream[T_co, E_co]]: ...
    @overload
    def broadcast(
        self,
        n: Literal[4],
        *,
        buffer: int = BUFFER,
        overflow: Literal["backpressure", "drop_oldest", "fail"] = "backpressure",
        on_drop: Callable[[int, int], object] | None = None,
        replay: int = 0,
    ) -> tuple[
        ResultStream[T_co, E_co],
        ResultStream[T_co, E_co],
        ResultStream[T_co, E_co],
        ResultStream[T_co, E_co],
    ]: ...
    @overload
    def broadcast(
        self,
        n: int,
        *,
        buffer: int = BUFFER,
        overflow: Literal["backpressure", "drop_oldest", "fail"] = "backpressure",
        on_drop: Callable[[int, int], object] | None = None,
        replay: int = 0,
    ) -> tuple[ResultStream[T_co, E_co], ...]: ...
    def broadcast(
        self,
        n: int,
        *,
        buffer: int = BUFFER,
        overflow: Literal["backpressure", "drop_oldest", "fail"] = "backpressure",
        on_drop: Callable[[int, int], object] | None = None,
        replay: int = 0,
    ) -> tuple[ResultStream[T_co, E_co], ...]:
        """Copy every item to ``n`` streams that can be read once: `combine.broadcast`.

        One more can join late: see `subscribe`.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> import asyncio
        >>> async def main():
        ...     left, right = ResultStream.of(from_iterable([1, 2, 3])).broadcast(2)
        ...     return await asyncio.gather(left.collect(), right.map(str).collect())
        >>> run(main())
        [<IOResult: <Success: [1, 2, 3]>>, <IOResult: <Success: ['1', '2', '3']>>]
        """
        if not self._chain.marked:
            branches = combine.broadcast(
                self, n, buffer=buffer, overflow=overflow, on_drop=on_drop, replay=replay
            )
            return tuple([self._from_chain(chain_of(branch)) for branch in branches])

        from returns_pipeline.combine._marked_broadcast import marked_broadcast

        self._refuse_repeats("broadcast")
        branches = marked_broadcast(
            fusion.with_marks(self._chain),
            n,
            buffer=buffer,
            overflow=overflow,
            on_drop=on_drop,
            replay=replay,
        )
        record_call(branches, combine.broadcast, self, n, buffer=buffer, overflow=overflow)
        links = [Source(branch, packed=True, marked=True) for branch in branches]
        return tuple([self._from_chain(Chain(None, link)) for link in links])

    def subscribe(self) -> ResultStream[T_co, E_co]:
        """Return one more stream of the same `broadcast`, which joins now.

        It emits the last ``replay`` items first, and then what comes, as `combine.Branch.subscribe`
        does. It comes right after `broadcast`, before any step; the stream that it is called on may
        be being read, or closed.

        Raises:
            InvalidArgument: This stream was not returned by `broadcast`.
            RuntimeError: The last of the streams was closed, so the source was stopped.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> async def main():
        ...     (first,) = ResultStream.of(from_iterable([1, 2, 3])).broadcast(1, replay=2)
        ...     _ = await first.collect()
        ...     return await first.subscribe().collect()
        >>> run(main())
        <IOResult: <Success: [2, 3]>>
        """
        link = self._chain.link
        if not isinstance(link, Source) or not isinstance(link.items, combine.Branch):
            raise InvalidArgument("subscribe() must come right after broadcast()")
        branch: combine.Branch[Result[T_co, E_co]] = link.items
        return self._from_chain(Chain(None, replace(link, items=branch.subscribe())))

    @overload
    def route(
        self,
        key: Callable[[T_co], A],
        worker: Callable[
            [A, AsyncIterator[T_co]],
            AsyncIterable[Result[U, F]] | AsyncResult[U, F],
        ],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: Seconds = math.inf,
        failing: Literal["raise"] = "raise",
    ) -> ResultStream[U, E_co | F]: ...
    @overload
    def route(
        self,
        key: Callable[[T_co], A],
        worker: Callable[
            [A, AsyncIterator[T_co]],
            AsyncIterable[Result[U, F]] | AsyncResult[U, F],
        ],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: Seconds = math.inf,
        failing: Literal["isolate"],
    ) -> ResultStream[U, E_co | F | combine.KeyFailed[A, T_co]]: ...
    @overload
    def route(
        self,
        key: Callable[[T_co], A],
        worker: Callable[[A, AsyncIterator[T_co], StepContext], AsyncResult[U, F]],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: Seconds = math.inf,
        failing: Literal["raise"] = "raise",
        ctx: StepContext,
        hold: bool = False,
    ) -> ResultStream[U, E_co | F]: ...
    @overload
    def route(
        self,
        key: Callable[[T_co], A],
        worker: Callable[[A, AsyncIterator[T_co], StepContext], AsyncResult[U, F]],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: Seconds = math.inf,
        failing: Literal["isolate"],
        ctx: StepContext,
        hold: bool = False,
    ) -> ResultStream[U, E_co | F | combine.KeyFailed[A, T_co]]: ...
    @written
    def route(
        self,
        key: Callable[[T_co], A],
        worker: Callable[..., Any],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: Seconds = math.inf,
        failing: Literal["raise", "isolate"] = "raise",
        ctx: StepContext | None = None,
        hold: bool = False,
    ) -> ResultStream[Any, Any]:
        """Send the values of each key to a worker of its own, and emit the workers' Results.

        As `combine.route`, for the values of this stream: a worker is an async generator of
        Results, or a coroutine of one; with a ``ctx`` it gets a context, and the actions it
        registered are settled as by `bind_step`.

        1. A Result is emitted when its worker has made it.
        2. A failure of this stream has no key: it passes the workers and is emitted at once, before
           the Results of values still being worked on. Like a failure of a worker, it ends nothing.
        3. An exception of a worker is raised after all Results made before it; or, if failing keys
           are isolated, it is emitted as the failure `KeyFailed`, with the unhandled values.
        4. A message of a connector is acknowledged when the worker that got it has ended: whether
           it holds a value back cannot be told before. So choose an ``idle_after``. When the source
           is out of credit, or drained, the values of all workers end; a key that comes back gets a
           worker again.

        Cancel safety: a cancelled read loses nothing.

        Raises:
            InvalidArgument: At the call, if a number is out of range.

        >>> from returns_pipeline import ResultStream, ok
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> async def numbered(key, items):
        ...     async for n in items:
        ...         yield ok((key, n))
        >>> s = ResultStream.of(from_iterable([1, 2, 3]))
        >>> run(s.route(lambda n: n % 2, numbered).collect())
        <IOResult: <Success: [(1, 1), (0, 2), (1, 3)]>>
        """
        from returns_pipeline.combine._route import RoutePump

        self._refuse_held("route", hold=hold)
        how: dict[str, Any] = {
            "max_keys": max_keys,
            "buffer": buffer,
            "idle_after": idle_after,
            "failing": failing,
            "ctx": ctx,
            "hold": hold,
            "passing": Failed,
            "unpack": _routed,
        }
        if not self._chain.marked:
            return self._segment(lambda part: Reader(RoutePump(part, key, worker, **how)))

        from returns_pipeline.combine._marked_route import MarkedRoutePump, MarkedRouteReader

        return self._segment(
            lambda part: MarkedRouteReader(MarkedRoutePump(part, key, worker, **how)),
            carries_marks=True,
        )

    @written
    def prefetch(self, n: int) -> ResultStream[T_co, E_co]:
        """Run the steps before this one up to ``n`` items ahead, as `combine.prefetch`.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> run(ResultStream.of(from_iterable([1, 2, 3])).prefetch(2).collect())
        <IOResult: <Success: [1, 2, 3]>>
        """
        from returns_pipeline.combine._transform import MarkedPrefetchPump, PrefetchPump

        pump = MarkedPrefetchPump if self._chain.marked else PrefetchPump[Any]
        return self._segment(lambda part: Reader(pump(part, n)), carries_marks=True)

    @written
    def take_until(
        self, stop: asyncio.Event | AsyncIterable[object] | Awaitable[object]
    ) -> ResultStream[T_co, E_co]:
        """End here when something else happens, as `combine.take_until`.

        To drain the items already read from the source instead, windows included, see `drain_on`.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.testing import run
        >>> from returns_pipeline.sources import ticks
        >>> import asyncio
        >>> run(ResultStream.of(ticks(1.0)).take_until(asyncio.sleep(3.5)).run())
        <IOResult: <Success: 3>>
        """
        return self._segment(lambda part: combine.take_until.raw(part, stop), carries_marks=True)

    @written
    def throttle(self, interval: Seconds, *, burst: int = 1) -> ResultStream[T_co, E_co]:
        """Emit at most one value per ``interval`` seconds, as `combine.throttle`.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> run(ResultStream.of(from_iterable([1, 2, 3])).throttle(1.0).collect())
        <IOResult: <Success: [1, 2, 3]>>
        """
        from returns_pipeline.combine._rate import MarkedThrottlePump, ThrottlePump

        pump = MarkedThrottlePump if self._chain.marked else ThrottlePump[Any]
        return self._segment(
            lambda part: Reader(pump(part, interval, burst, passing=Failed)), carries_marks=True
        )

    @written
    def debounce(self, quiet: Seconds, *, max_wait: Seconds = math.inf) -> ResultStream[T_co, E_co]:
        """Emit a value once ``quiet`` seconds of silence have followed it, as `combine.debounce`.

        With ``max_wait`` the latest is emitted after ``max_wait`` seconds without such a silence.
        A failure is emitted in its place, after the value before it.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> run(ResultStream.of(from_iterable([1, 2, 3])).debounce(1.0).collect())
        <IOResult: <Success: [3]>>
        """
        from returns_pipeline.combine._rate import DebouncePump, MarkedDebouncePump

        pump = MarkedDebouncePump if self._chain.marked else DebouncePump[Any]
        return self._segment(
            lambda part: Reader(pump(part, quiet, max_wait, Failed)), carries_marks=True
        )


def _routed(made: Any) -> Any:
    """Turn an item of a worker into a bare value or a `Failed`."""
    if isinstance(made, combine.KeyFailed):
        return Failed(cast("object", made))
    return steps.split(result_of(made))
