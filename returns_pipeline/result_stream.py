"""`ResultStream`: a stream of Results, and the methods that add steps to it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Generic, Literal, Never, cast, overload

from aiostream import Stream
from typing_extensions import TypeVar

from returns_pipeline import combine
from returns_pipeline._engine import fusion as stages
from returns_pipeline._engine.concurrent_map import (
    expand_concurrently,
    map_concurrently,
    map_only_concurrently,
)
from returns_pipeline._engine.fan_in import BUFFER, FairMerge
from returns_pipeline._engine.fusion import Chain, Failed, Joint, Root, Stateful
from returns_pipeline._engine.future_results import result_of, to_result
from returns_pipeline._engine.operator import QuickStreamer, check_at_least
from returns_pipeline._engine.reader import Reader
from returns_pipeline._engine.terminals import FailedItems, Terminals
from returns_pipeline.combine._merge import zip_items
from returns_pipeline.combine._rate import debounced, throttled
from returns_pipeline.combine._route import KeyFailed, check_route, passing_route
from returns_pipeline.combine._transform import differing, expand_in_turn, folding
from returns_pipeline.errors import InvalidArgument
from returns_pipeline.windows._chunks import check_window, flushing_chunks
from returns_pipeline.windows._event_time import check_event_windows, passing_event_windows
from returns_pipeline.windows._keyed import (
    check_keyed,
    check_sessions,
    flushing_keyed_chunks,
    flushing_sessions,
)
from returns_pipeline.windows._weight import (
    check_sliding,
    check_weighted,
    flushing_chunks_by_weight,
    flushing_sliding,
)

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine

    from aiostream.core import Streamer
    from returns.future import FutureResult
    from returns.result import Result

    from returns_pipeline._engine.fusion import Segment, Step
    from returns_pipeline.context import StepContext
    from returns_pipeline.windows._event_time import Assigner, EventWindow, Late

__all__ = ["FailedItems", "ResultStream"]

A = TypeVar("A")
E = TypeVar("E")
F = TypeVar("F")
T = TypeVar("T")
U = TypeVar("U")
T_co = TypeVar("T_co", covariant=True)
E_co = TypeVar("E_co", covariant=True)
KeyT = TypeVar("KeyT", default=None)
X1 = TypeVar("X1", bound=Exception)
X2 = TypeVar("X2", bound=Exception)
X3 = TypeVar("X3", bound=Exception)
X4 = TypeVar("X4", bound=Exception)


class ResultStream(Terminals[T_co, E_co], Generic[T_co, E_co]):
    """A stream whose items are Results: values that may have failed, with typed errors.

    Methods add a step and give a new stream; the error type widens as steps are added. A failure
    passes every step untouched unless the step is about failures. Nothing runs before the stream
    is iterated or a terminal (`collect`, `for_each`, ...) is awaited. A stream may be read again
    when its source may.

    It is an `aiostream.Stream` of Results: ``|``, slices, ``+``, ``async with s.stream()`` and
    ``await s`` work as there. A slice, and what ``+`` makes of two, is a `ResultStream` again.

    Where no stream comes first there is no method: ``combine.merge_prioritized((9, a), (1, b))``
    and ``combine.select({"a": a, "b": b})`` read streams of Results as they are, as does
    ``combine.split(s, predicate)``, for two sides to be read on; `partition` here reads to the
    end. `from_results` makes a `ResultStream` of what they give.

    Sequential steps run in the reader's task, in one generator. An exception that a step did not
    declare is a bug: it propagates, after the source is closed.

    Cancel safety: a read that is cancelled in a sequential step, or in a source that is read by
    none but those, is over with the stream, as with any async generator. Behind a step with a task
    of its own (a window, `prefetch`, `flat_map`, a ``concurrency`` above 1) a read that waits for
    items loses nothing, and the next one goes on.

    >>> from aiostream import stream
    >>> from returns.result import Failure, Result, Success
    >>> from returns_pipeline.testing import run
    >>> def half(n: int) -> Result[int, str]:
    ...     return Failure(f"{n} is odd") if n % 2 else Success(n // 2)
    >>> numbers = ResultStream.of(stream.range(4)).bind(half).alt(str.upper)
    >>> run(numbers.partition())
    <IO: ([0, 1], ['1 IS ODD', '3 IS ODD'])>
    """

    def __init__(self, chain: Chain) -> None:
        """Not for callers: `of` and `from_results` make streams."""
        super().__init__(chain)

    def stream(self) -> Streamer[Result[T_co, E_co]]:
        """Open the stream for reading: ``async with s.stream() as items``."""
        return QuickStreamer(stages.open_results(self._chain))

    def __aiter__(self) -> Streamer[Result[T_co, E_co]]:
        return self.stream()

    def __getitem__(self, value: int | slice) -> ResultStream[T_co, E_co]:
        return ResultStream.from_results(super().__getitem__(value))

    @overload
    def __add__(self, value: ResultStream[U, F]) -> ResultStream[T_co | U, E_co | F]: ...
    @overload
    def __add__(self, value: AsyncIterable[U]) -> Stream[Result[T_co, E_co] | U]: ...
    def __add__(self, value: AsyncIterable[Any]) -> Stream[Any]:
        chained = super().__add__(value)
        return ResultStream.from_results(chained) if isinstance(value, ResultStream) else chained

    # Where streams come from.

    @staticmethod
    def of(source: AsyncIterable[T]) -> ResultStream[T, Never]:
        """Lift plain values: each is a success.

        Raises:
            TypeError: At the call, if ``source`` is not an async iterable.
        """
        _check_source(source)
        return ResultStream(Chain(None, Root(source, packed=False)))

    @staticmethod
    def from_results(source: AsyncIterable[Result[T, E]]) -> ResultStream[T, E]:
        """Take an async iterable of Results as it is.

        A `ResultStream` is given back unchanged.

        Raises:
            TypeError: At the call, if ``source`` is not an async iterable.
        """
        _check_source(source)
        if isinstance(source, ResultStream):
            return cast("ResultStream[T, E]", source)  # isinstance cannot tell T and E
        return ResultStream(Chain(None, Root(source, packed=True)))

    @overload
    def or_failure(self, x1: type[X1], /) -> ResultStream[T_co, E_co | X1]: ...
    @overload
    def or_failure(self, x1: type[X1], x2: type[X2], /) -> ResultStream[T_co, E_co | X1 | X2]: ...
    @overload
    def or_failure(
        self, x1: type[X1], x2: type[X2], x3: type[X3], /
    ) -> ResultStream[T_co, E_co | X1 | X2 | X3]: ...
    @overload
    def or_failure(
        self, x1: type[X1], x2: type[X2], x3: type[X3], /, *more: type[X4]
    ) -> ResultStream[T_co, E_co | X1 | X2 | X3 | X4]: ...
    def or_failure(self, *exceptions: type[Exception]) -> ResultStream[T_co, Any]:
        """Give the listed exceptions of the *source* out as a failure, the last item.

        It stands right behind `of` or `from_results`. Exceptions of steps, and others of the
        source, propagate as ever; a cancellation is no exception that could be listed.

        Raises:
            InvalidArgument: At the call, if there is a step before it, or no exception is listed.
        """
        _check_exceptions(exceptions)
        root = self._chain.link
        if not isinstance(root, Root):
            raise InvalidArgument("or_failure() must come right after of() or from_results()")
        return ResultStream(Chain(None, Root(root.source, root.packed, root.folded + exceptions)))

    def drain_on(self, stop: asyncio.Event) -> ResultStream[T_co, E_co]:
        """Drain when ``stop`` is set: read the source no further, let everything out.

        It may stand anywhere in the chain; what stops is the source. A read of the source that
        is pending then is cancelled, and the source closed. Items already read come out, open
        windows are given out, and the stream ends as if the source had.

        Setting the event again, or before the first read, does no harm.
        """
        return ResultStream(Chain(self._chain, stop))

    # Steps about values.

    def map(self, func: Callable[[T_co], U], /) -> ResultStream[U, E_co]:
        """Replace each value by ``func`` of it."""
        return self._step(stages.MAP, func)

    def bind(self, func: Callable[[T_co], Result[U, F]], /) -> ResultStream[U, E_co | F]:
        """Replace each value by the Result that ``func`` gives for it."""
        return self._step(stages.BIND, func)

    def filter(self, predicate: Callable[[T_co], object], /) -> ResultStream[T_co, E_co]:
        """Keep the values for which ``predicate`` is true, and every failure."""
        return self._step(stages.FILTER, predicate)

    def ensure(
        self, predicate: Callable[[T_co], object], /, error: Callable[[T_co], F]
    ) -> ResultStream[T_co, E_co | F]:
        """Turn the values for which ``predicate`` is false into a failure: ``error`` of them."""
        return self._step(stages.ENSURE, predicate, error)

    def tap(self, func: Callable[[T_co], object], /) -> ResultStream[T_co, E_co]:
        """Call ``func`` with each value for its effect; the item is unchanged."""
        return self._step(stages.TAP, func)

    def tap_async(
        self,
        func: Callable[[T_co], Awaitable[object]],
        /,
        *,
        concurrency: int = 1,
        ordered: bool = True,
    ) -> ResultStream[T_co, E_co]:
        """Await ``func`` of each value for its effect; the item is unchanged, and waits for it.

        For ``concurrency`` and ``ordered`` see `bind_async`.
        """
        return self._async_step(stages.TAP_ASYNC, func, None, concurrency, ordered)

    @overload
    def attempt(self, func: Callable[[T_co], U], x1: type[X1], /) -> ResultStream[U, E_co | X1]: ...
    @overload
    def attempt(
        self, func: Callable[[T_co], U], x1: type[X1], x2: type[X2], /
    ) -> ResultStream[U, E_co | X1 | X2]: ...
    @overload
    def attempt(
        self, func: Callable[[T_co], U], x1: type[X1], x2: type[X2], x3: type[X3], /
    ) -> ResultStream[U, E_co | X1 | X2 | X3]: ...
    @overload
    def attempt(
        self,
        func: Callable[[T_co], U],
        x1: type[X1],
        x2: type[X2],
        x3: type[X3],
        /,
        *more: type[X4],
    ) -> ResultStream[U, E_co | X1 | X2 | X3 | X4]: ...
    def attempt(
        self, func: Callable[[T_co], U], /, *exceptions: type[Exception]
    ) -> ResultStream[U, Any]:
        """Replace each value by ``func`` of it; a listed exception becomes the failure.

        Others propagate.

        Raises:
            InvalidArgument: At the call, if no exception is listed.
        """
        _check_exceptions(exceptions)
        return self._step(stages.ATTEMPT, func, exceptions)

    def map_async(
        self,
        func: Callable[[T_co], Awaitable[U]],
        /,
        *,
        concurrency: int = 1,
        ordered: bool = True,
    ) -> ResultStream[U, E_co]:
        """Replace each value by what ``func`` of it gives when awaited; it cannot fail by value.

        For ``concurrency`` and ``ordered`` see `bind_async`.
        """
        return self._async_step(stages.MAP_ASYNC, func, None, concurrency, ordered)

    def bind_async(
        self,
        func: Callable[[T_co], FutureResult[U, F] | Awaitable[Result[U, F]]],
        /,
        *,
        concurrency: int = 1,
        ordered: bool = True,
    ) -> ResultStream[U, E_co | F]:
        """Replace each value by the Result that ``func`` of it gives when awaited.

        It is a coroutine function, or gives a `FutureResult`, as what a policy makes of one does.

        With a ``concurrency`` of 1, one at a time, in the reader's task, and only when the reader
        asks for an item. With more, up to that many at a time, each in a task of its own; then

        1. items come out in the order of the source, or, if not ``ordered``, as they are done;
        2. at most ``concurrency`` items are read and not yet given out: a slow reader stops the
           work;
        3. the first exception cancels and awaits the others, and is raised after what was done
           before it;
        4. a read that is cancelled loses nothing; closing cancels the work and awaits it.

        Raises:
            InvalidArgument: At the call, if ``concurrency`` is below 1.
        """
        return self._async_step(stages.BIND_ASYNC, func, None, concurrency, ordered)

    def bind_future_result(
        self,
        func: Callable[[T_co], FutureResult[U, F]],
        /,
        *,
        concurrency: int = 1,
        ordered: bool = True,
    ) -> ResultStream[U, E_co | F]:
        """Do as `bind_async`, for functions that give a `FutureResult` and nothing else."""
        return self._async_step(
            stages.BIND_ASYNC, _awaiting_future(func), None, concurrency, ordered
        )

    def bind_step(
        self,
        func: Callable[[T_co, StepContext], FutureResult[U, F] | Awaitable[Result[U, F]]],
        /,
        ctx: StepContext,
        *,
        concurrency: int = 1,
        ordered: bool = True,
        hold: bool = False,
    ) -> ResultStream[U, E_co | F]:
        """Replace each value by what a step makes of it, in a context of the step's own.

        The step, which gives a `FutureResult` or is a coroutine of a Result, gets the value and
        a child of ``ctx``, to register its undo actions with. When it ends, they are settled
        before anything goes downstream:

        1. a `Success` commits them, so that an endless stream keeps none in memory;
        2. a `Failure` has them undone first, and then comes out;
        3. an exception or a cancellation has them undone first, and then goes on;
        4. with ``hold``, a `Success` hands them to ``ctx`` instead: what runs the stream, usually
           ``ctx.run(stream.collect())``, undoes those of all held steps, newest first, when
           anything fails later, and commits them at its end.

        What must stand or fall together belongs into one step:

        ```python
        @future_safe(exceptions=(WriteError, PublishError))
        async def persist_and_publish(batch: list[Event], step: StepContext) -> BatchId:
            batch_id = BatchId(step.key)
            await step.register(delete_batch, batch_id)  # on record before the effect
            await repository.write(batch_id, batch)
            await publisher.publish(batch_id)  # if this fails, the batch is deleted
            return batch_id
        ```

        Retries, time limits and the other `returns_pipeline.policies` are put around the step:
        ``bind_step(with_policy(persist, RetryPolicy(3) | Timeout(2.0)), ctx)``. Each attempt then
        has a child of its own, and is undone before the next.

        For ``concurrency`` and ``ordered`` see `bind_async`. Held steps that ran side by side are
        undone by the order in which they were started.

        Cancel safety: as `bind_async`; a cancellation goes on when all is undone.

        Raises:
            InvalidArgument: At the call, if ``concurrency`` is below 1.
            ScopeClosed: When read, if ``ctx`` is settled for good.
        """
        step = ctx.in_own_step(func, hold=hold)
        return self._async_step(stages.BIND_ASYNC, step, None, concurrency, ordered)

    @overload
    def attempt_async(
        self,
        func: Callable[[T_co], Awaitable[U]],
        x1: type[X1],
        /,
        *,
        concurrency: int = 1,
        ordered: bool = True,
    ) -> ResultStream[U, E_co | X1]: ...
    @overload
    def attempt_async(
        self,
        func: Callable[[T_co], Awaitable[U]],
        x1: type[X1],
        x2: type[X2],
        /,
        *,
        concurrency: int = 1,
        ordered: bool = True,
    ) -> ResultStream[U, E_co | X1 | X2]: ...
    @overload
    def attempt_async(
        self,
        func: Callable[[T_co], Awaitable[U]],
        x1: type[X1],
        x2: type[X2],
        x3: type[X3],
        /,
        *,
        concurrency: int = 1,
        ordered: bool = True,
    ) -> ResultStream[U, E_co | X1 | X2 | X3]: ...
    @overload
    def attempt_async(
        self,
        func: Callable[[T_co], Awaitable[U]],
        x1: type[X1],
        x2: type[X2],
        x3: type[X3],
        /,
        *more: type[X4],
        concurrency: int = 1,
        ordered: bool = True,
    ) -> ResultStream[U, E_co | X1 | X2 | X3 | X4]: ...
    def attempt_async(
        self,
        func: Callable[[T_co], Awaitable[U]],
        /,
        *exceptions: type[Exception],
        concurrency: int = 1,
        ordered: bool = True,
    ) -> ResultStream[U, Any]:
        """Do as `attempt`, awaiting ``func``.

        For ``concurrency`` and ``ordered`` see `bind_async`.
        """
        _check_exceptions(exceptions)
        return self._async_step(stages.ATTEMPT_ASYNC, func, exceptions, concurrency, ordered)

    def flat_map(
        self, func: Callable[[T_co], AsyncIterable[Result[U, F]]], /, *, concurrency: int = 1
    ) -> ResultStream[U, E_co | F]:
        """Replace each value by the items of the stream that ``func`` gives for it.

        1. With a ``concurrency`` of 1, one stream after the other, all of them in one task, which
           the steps before run in, too. It is ahead of a slow reader by one item, of one that
           waits by those of `merge`.
        2. With more, up to that many are read at a time, each in a task of its own: items of one
           keep their order, those of several come as they are ready, and each has at most one
           item waiting for the reader.

        Cancel safety: a read that is cancelled loses nothing. Closing stops the streams that are
        open, and awaits their clean-up.

        Raises:
            InvalidArgument: At the call, if ``concurrency`` is below 1.
        """
        check_at_least("concurrency", concurrency, 1)

        def expand(value: Any) -> AsyncIterable[Any]:
            source = func(value)
            _check_source(source)
            return source

        def expand_bare(value: Any) -> AsyncIterable[Any]:
            return stages.read(Chain(None, Root(expand(value), packed=True)))

        def segment(part: AsyncIterable[Any]) -> AsyncIterable[Any]:
            if concurrency == 1:
                return expand_in_turn(part, expand, passing=Failed, unpack=stages.split)
            return expand_concurrently(part, expand_bare, concurrency, passing=Failed)

        return self._segment(segment)

    def chunks_or_timeout(self, n: int, timeout: float) -> ResultStream[list[T_co], E_co]:
        """Group values into lists, each given out by whichever comes first: its size or its age.

        As `returns_pipeline.chunks_or_timeout`, for the values of this stream: a list is given out
        when it holds ``n`` values, when ``timeout`` seconds have passed since its first one, when
        the stream before it ends or fails, and *before a failure*. The failure then comes out in
        its place: nothing is dropped, order is kept.

        Bounds: at most ``n`` values, or those and one failure, are held ahead of the reader.

        Cancel safety: a read that is cancelled loses nothing. The steps before it and the source
        run in a task of their own.

        Raises:
            InvalidArgument: At the call, if ``n`` or ``timeout`` is out of range.
        """
        check_window(n, timeout)
        return self._segment(lambda part: flushing_chunks(part, n, timeout, flushed_by=Failed))

    def chunks_by_weight(
        self,
        max_weight: float,
        timeout: float,
        *,
        weight: Callable[[T_co], float],
        n: int | None = None,
    ) -> ResultStream[list[T_co], E_co]:
        """Group values into lists that together weigh no more than ``max_weight``.

        As `returns_pipeline.chunks_by_weight`, for the values of this stream. A failure first has
        the open list given out, and then comes out in its place.

        Raises:
            InvalidArgument: At the call, if ``max_weight``, ``timeout`` or ``n`` is out of range.
        """
        check_weighted(max_weight, timeout, n)
        return self._segment(
            lambda part: flushing_chunks_by_weight(
                part, max_weight, timeout, weight=weight, n=n, flushed_by=Failed
            )
        )

    def keyed_chunks(
        self,
        n: int,
        timeout: float,
        *,
        key: Callable[[T_co], A],
        max_keys: int | None = None,
    ) -> ResultStream[tuple[A, list[T_co]], E_co]:
        """Group values into lists by key, each given out with its key by its size or its age.

        As `returns_pipeline.keyed_chunks`, for the values of this stream. A failure first has all
        open lists given out, the oldest first, and then comes out in its place.

        Raises:
            InvalidArgument: At the call, if ``n``, ``timeout`` or ``max_keys`` is out of range.
        """
        check_keyed(n, timeout, max_keys)
        return self._segment(
            lambda part: flushing_keyed_chunks(
                part, n, timeout, key=key, max_keys=max_keys, flushed_by=Failed
            )
        )

    def sliding(self, n: int, *, step: int = 1) -> ResultStream[list[T_co], E_co]:
        """Give every run of ``n`` neighbouring values, each ``step`` values after the one before.

        As `returns_pipeline.sliding`, for the values of this stream. A failure ends the run as
        the end of the stream would: values that were in no list come out in a shorter one, then
        the failure in its place. What comes behind it begins anew.

        Raises:
            InvalidArgument: At the call, if ``n`` or ``step`` is out of range.
        """
        check_sliding(n, step)
        return self._segment(lambda part: flushing_sliding(part, n, step, flushed_by=Failed))

    def sessions(
        self,
        gap: float,
        *,
        max_duration: float = math.inf,
        n: int | None = None,
        key: Callable[[T_co], object] | None = None,
        max_keys: int | None = None,
    ) -> ResultStream[list[T_co], E_co]:
        """Group values into lists that a silence of ``gap`` seconds ends.

        As `returns_pipeline.sessions`, for the values of this stream. A failure first has all
        open lists given out, the oldest first, and then comes out in its place.

        Raises:
            InvalidArgument: At the call, if ``gap``, ``max_duration``, ``n`` or ``max_keys`` is out
                of range.
        """
        check_sessions(gap, max_duration, n, max_keys)
        return self._segment(
            lambda part: flushing_sessions(
                part,
                gap,
                max_duration=max_duration,
                n=n,
                key=key,
                max_keys=max_keys,
                flushed_by=Failed,
            )
        )

    def event_windows(
        self,
        assigner: Assigner,
        *,
        timestamp: Callable[[T_co], float],
        key: Callable[[T_co], KeyT] | None = None,
        allowed_lateness: float = 0.0,
        max_out_of_orderness: float = 0.0,
        late: Late[T_co] | None = None,
        idle_after: float | None = None,
    ) -> ResultStream[EventWindow[KeyT, T_co], E_co]:
        """Group values by the time that stands in them, whatever the order they come in.

        As `returns_pipeline.windows.event_windows`, for the values of this stream. A failure has no
        event time: it comes out at once, in its place among what has fired, and fires nothing. The
        windows that were open stay open, and none is cut in two by it.

        Raises:
            InvalidArgument: At the call, if a number is out of range.
            TypeError: At the call, if ``assigner`` or ``late`` is of another kind.
        """
        check_event_windows(assigner, allowed_lateness, max_out_of_orderness, late, idle_after)
        return self._segment(
            lambda part: passing_event_windows(
                part,
                assigner,
                timestamp=timestamp,
                key=key,
                allowed_lateness=allowed_lateness,
                max_out_of_orderness=max_out_of_orderness,
                late=late,
                idle_after=idle_after,
                passing=Failed,
            )
        )

    # Steps that read other streams too, or give the items to several.

    def merge(
        self, *others: AsyncIterable[Result[U, F]], buffer: int = BUFFER
    ) -> ResultStream[T_co | U, E_co | F]:
        """Give the items of other streams of Results as well, all as they come.

        As `combine.merge`. Streams of different types are merged one after the other.
        """
        check_at_least("buffer", buffer, 1)
        return self._joint(others, lambda parts: Reader(FairMerge(parts, buffer)))

    def concat(self, *others: AsyncIterable[Result[U, F]]) -> ResultStream[T_co | U, E_co | F]:
        """Give the items of other streams of Results when those before have ended."""
        return self._joint(others, lambda parts: combine.concat.raw(*parts))

    def zip(
        self, other: AsyncIterable[Result[U, F]], /, *, strict: bool = False
    ) -> ResultStream[tuple[T_co, U], E_co | F]:
        """Pair each item with the one of the same number, as `combine.zip_results`."""
        return self._joint(
            (other,), lambda parts: zip_items(parts, stages.tuple_or_failed, strict=strict)
        )

    def broadcast(
        self,
        n: int,
        *,
        buffer: int = BUFFER,
        overflow: Literal["backpressure", "drop_oldest", "fail"] = "backpressure",
        on_drop: Callable[[int, int], object] | None = None,
    ) -> tuple[ResultStream[T_co, E_co], ...]:
        """Give every item to each of ``n`` streams that can be read once: `combine.broadcast`."""
        branches = combine.broadcast(self, n, buffer=buffer, overflow=overflow, on_drop=on_drop)
        return tuple([ResultStream.from_results(branch) for branch in branches])

    @overload
    def route(
        self,
        key: Callable[[T_co], A],
        worker: Callable[
            [A, AsyncIterator[T_co]],
            AsyncIterable[Result[U, F]] | FutureResult[U, F] | Awaitable[Result[U, F]],
        ],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: float = math.inf,
        failing: Literal["raise"] = "raise",
    ) -> ResultStream[U, E_co | F]: ...
    @overload
    def route(
        self,
        key: Callable[[T_co], A],
        worker: Callable[
            [A, AsyncIterator[T_co]],
            AsyncIterable[Result[U, F]] | FutureResult[U, F] | Awaitable[Result[U, F]],
        ],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: float = math.inf,
        failing: Literal["isolate"],
    ) -> ResultStream[U, E_co | F | KeyFailed[A, T_co]]: ...
    @overload
    def route(
        self,
        key: Callable[[T_co], A],
        worker: Callable[
            [A, AsyncIterator[T_co], StepContext], FutureResult[U, F] | Awaitable[Result[U, F]]
        ],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: float = math.inf,
        failing: Literal["raise"] = "raise",
        ctx: StepContext,
        hold: bool = False,
    ) -> ResultStream[U, E_co | F]: ...
    @overload
    def route(
        self,
        key: Callable[[T_co], A],
        worker: Callable[
            [A, AsyncIterator[T_co], StepContext], FutureResult[U, F] | Awaitable[Result[U, F]]
        ],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: float = math.inf,
        failing: Literal["isolate"],
        ctx: StepContext,
        hold: bool = False,
    ) -> ResultStream[U, E_co | F | KeyFailed[A, T_co]]: ...
    def route(
        self,
        key: Callable[[T_co], A],
        worker: Callable[..., Any],
        *,
        max_keys: int = 1000,
        buffer: int = 16,
        idle_after: float = math.inf,
        failing: Literal["raise", "isolate"] = "raise",
        ctx: StepContext | None = None,
        hold: bool = False,
    ) -> ResultStream[Any, Any]:
        """Give the values of each key to a worker of its own, whose Results come out.

        As `combine.route`, for the values of this stream: a worker is an async generator of
        Results, or a coroutine of one; with a ``ctx`` it gets a context, and what it registered is
        settled as `bind_step` does it.

        1. A Result comes out when its worker has made it.
        2. A failure of this stream has no key: it goes by the workers and comes out as it comes,
           before what they still have to do. It ends nothing, like a failure that a worker gives.
        3. What a worker raises is raised when all that was made before is out, or, if failing keys
           are to be isolated, comes out as the failure `KeyFailed`, with the values not done.

        Cancel safety: a read that is cancelled loses nothing.

        Raises:
            InvalidArgument: At the call, if a number is out of range.
        """
        check_route(max_keys, buffer, idle_after, failing)
        return self._segment(
            lambda part: passing_route(
                part,
                key,
                worker,
                max_keys=max_keys,
                buffer=buffer,
                idle_after=idle_after,
                failing=failing,
                ctx=ctx,
                hold=hold,
                passing=Failed,
                unpack=_routed,
            )
        )

    # Steps that pass values on: a failure goes by, in its place.

    def scan(self, initial: A, func: Callable[[A, T_co], A], /) -> ResultStream[A, E_co]:
        """Replace each value by the fold so far, as `combine.scan`, but in the reader's own task.

        Like `map` it costs no task of its own, reads nothing ahead, and is ended by a read that is
        cancelled unless a step before it loses nothing to one.
        """
        return self._remembering(lambda: (stages.MAP, folding(initial, func), None))

    def distinct_until_changed(
        self, key: Callable[[T_co], object] | None = None
    ) -> ResultStream[T_co, E_co]:
        """Leave out values equal to the value before them, as `combine.distinct_until_changed`.

        In the reader's own task, like `scan`.
        """
        return self._remembering(lambda: (stages.FILTER, differing(key), None))

    def prefetch(self, n: int) -> ResultStream[T_co, E_co]:
        """Run what is before this step up to ``n`` items ahead, as `combine.prefetch`."""
        check_at_least("n", n, 1)
        return self._segment(lambda part: combine.prefetch.raw(part, n))

    def take_until(
        self, stop: asyncio.Event | AsyncIterable[object] | Awaitable[object]
    ) -> ResultStream[T_co, E_co]:
        """End here when something else happens, as `combine.take_until`.

        To drain what was read of the source instead, windows included, see `drain_on`.
        """
        _ = combine.take_until(self, stop)  # checks the argument
        return self._segment(lambda part: combine.take_until.raw(part, stop))

    def throttle(self, interval: float, *, burst: int = 1) -> ResultStream[T_co, E_co]:
        """Let at most one value out per ``interval`` seconds, as `combine.throttle`."""
        _ = combine.throttle(self, interval, burst=burst)  # checks the arguments
        return self._segment(lambda part: throttled(part, interval, burst, passing=Failed))

    def debounce(self, quiet: float) -> ResultStream[T_co, E_co]:
        """Give a value out when ``quiet`` seconds of silence have followed it: `combine.debounce`.

        A failure first has the value before it given out, and then comes out in its place.
        """
        _ = combine.debounce(self, quiet)  # checks the argument
        return self._segment(lambda part: debounced(part, quiet, passing=Failed))

    # Steps about failures.

    def alt(self, func: Callable[[E_co], F], /) -> ResultStream[T_co, F]:
        """Replace each error by ``func`` of it."""
        return self._step(stages.ALT, func)

    def bimap(self, func: Callable[[T_co], U], error: Callable[[E_co], F], /) -> ResultStream[U, F]:
        """Replace each value by ``func`` of it, and each error by ``error`` of it."""
        return self._step(stages.BIMAP, func, error)

    def lash(self, func: Callable[[E_co], Result[U, F]], /) -> ResultStream[T_co | U, F]:
        """Replace each failure by the Result that ``func`` gives for its error: recover."""
        return self._step(stages.LASH, func)

    def lash_async(
        self,
        func: Callable[[E_co], FutureResult[U, F] | Awaitable[Result[U, F]]],
        /,
        *,
        concurrency: int = 1,
        ordered: bool = True,
    ) -> ResultStream[T_co | U, F]:
        """Do as `lash`, awaiting ``func``.

        For ``concurrency`` and ``ordered`` see `bind_async`; values count as items, too.
        """
        return self._async_step(stages.LASH_ASYNC, func, None, concurrency, ordered)

    def tap_failure(self, func: Callable[[E_co], object], /) -> ResultStream[T_co, E_co]:
        """Call ``func`` with each error for its effect; the item is unchanged."""
        return self._step(stages.TAP_FAILURE, func)

    def tap_failure_async(
        self,
        func: Callable[[E_co], Awaitable[object]],
        /,
        *,
        concurrency: int = 1,
        ordered: bool = True,
    ) -> ResultStream[T_co, E_co]:
        """Await ``func`` of each error for its effect; the item is unchanged, and waits for it.

        For ``concurrency`` and ``ordered`` see `bind_async`; values count as items, too.
        """
        return self._async_step(stages.TAP_FAILURE_ASYNC, func, None, concurrency, ordered)

    # The two halves, as plain streams.

    def successes(self) -> Stream[T_co]:
        """Give the values alone; failures are left out."""
        return Stream(lambda: stages.open_half(self._chain, failed=False))

    def failures(self) -> Stream[E_co]:
        """Give the errors alone; values are left out."""
        return Stream(lambda: stages.open_half(self._chain, failed=True))

    # How the chain grows. What comes out of the engine is untyped; the callers' signatures say it.

    def _step(
        self, code: int, func: Callable[[Any], Any], extra: object = None
    ) -> ResultStream[Any, Any]:
        return ResultStream(Chain(self._chain, (code, func, extra)))

    def _remembering(self, make: Callable[[], Step]) -> ResultStream[Any, Any]:
        return ResultStream(Chain(self._chain, Stateful(make)))

    def _segment(self, segment: Segment) -> ResultStream[Any, Any]:
        return ResultStream(Chain(self._chain, segment))

    def _joint(
        self,
        others: tuple[AsyncIterable[Result[Any, Any]], ...],
        join: Callable[[list[AsyncIterable[Any]]], AsyncIterable[Any]],
    ) -> ResultStream[Any, Any]:
        chains = tuple([ResultStream.from_results(other)._chain for other in others])
        return ResultStream(Chain(self._chain, Joint(chains, join)))

    def _async_step(
        self,
        code: int,
        func: Callable[[Any], Awaitable[Any]],
        extra: object,
        concurrency: int,
        ordered: bool,  # handed on
    ) -> ResultStream[Any, Any]:
        check_at_least("concurrency", concurrency, 1)
        if concurrency == 1:
            return self._step(code, func, extra)
        work, after = stages.on_its_own(code, func, extra)
        if code in {stages.LASH_ASYNC, stages.TAP_FAILURE_ASYNC}:
            return self._segment(
                lambda part: map_only_concurrently(
                    part, work, concurrency, ordered=ordered, only=Failed, after=after
                )
            )
        return self._segment(
            lambda part: map_concurrently(
                part, work, concurrency, ordered=ordered, passing=Failed, after=after
            )
        )


def _awaiting_future(
    func: Callable[[T], FutureResult[U, F]],
) -> Callable[[T], Coroutine[Any, Any, Result[U, F]]]:
    async def call(value: T) -> Result[U, F]:
        return await to_result(func(value))

    return call


def _routed(made: Any) -> Any:
    """Turn what a worker made into a bare value or a `Failed`."""
    if isinstance(made, KeyFailed):
        return Failed(cast("object", made))
    return stages.split(result_of(made))


def _check_source(source: object) -> None:
    if not hasattr(source, "__aiter__"):
        raise TypeError(f"expected an async iterable, not {type(source).__name__!r}")


def _check_exceptions(exceptions: tuple[object, ...]) -> None:
    if not exceptions:
        raise InvalidArgument("name at least one exception")
    for exception in exceptions:
        if not (isinstance(exception, type) and issubclass(exception, Exception)):
            raise InvalidArgument(f"expected a class of exceptions, not {exception!r}")
