"""`ResultStream`: a stream of Results, and the methods that add steps to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Generator, Sequence
from dataclasses import replace
from typing import Any, Generic, Never, TextIO, TypeVar, cast, overload

from aiostream import Stream, stream
from returns.result import Result

from returns_pipeline import combine, inspection
from returns_pipeline._engine import checks, fusion, steps
from returns_pipeline._engine.calls import Call
from returns_pipeline._engine.chain import Chain, Source
from returns_pipeline._engine.future_results import StreamWithoutTerminal
from returns_pipeline._engine.marks import marked_items
from returns_pipeline._engine.names import index_text
from returns_pipeline._engine.observing import observed_by
from returns_pipeline._engine.operator import Deferred, QuickStreamer
from returns_pipeline._engine.terminals import Counts, FailedItems, chain_of
from returns_pipeline._engine.written import chain_text, written
from returns_pipeline.errors import InvalidArgument
from returns_pipeline.result_stream import (
    _async_values,
    _chained,
    _failures,
    _together,
    _values,
    _windows,
)
from returns_pipeline.result_stream._async_values import AsyncValueSteps
from returns_pipeline.result_stream._failures import FailureSteps
from returns_pipeline.result_stream._together import TogetherSteps
from returns_pipeline.result_stream._values import ValueSteps, check_exceptions
from returns_pipeline.result_stream._windows import WindowSteps
from returns_pipeline.telemetry import Observer

__all__ = ["Counts", "FailedItems", "ResultStream"]

E = TypeVar("E")
F = TypeVar("F")
T = TypeVar("T")
U = TypeVar("U")
T_co = TypeVar("T_co", covariant=True)
E_co = TypeVar("E_co", covariant=True)
X1 = TypeVar("X1", bound=Exception)
X2 = TypeVar("X2", bound=Exception)
X3 = TypeVar("X3", bound=Exception)
X4 = TypeVar("X4", bound=Exception)


class ResultStream(
    ValueSteps[T_co, E_co],
    AsyncValueSteps[T_co, E_co],
    FailureSteps[T_co, E_co],
    WindowSteps[T_co, E_co],
    TogetherSteps[T_co, E_co],
    Generic[T_co, E_co],
):
    """A stream whose items are Results: values that may have failed, with typed errors.

    Methods add a step and return a new stream; the error type widens as steps are added. A failure
    passes every step untouched unless the step is about failures. Nothing runs before the stream
    is iterated or a terminal (`collect`, `for_each`, ...) is awaited. A stream may be read again
    if its source may.

    It is an `aiostream.Stream` of Results: ``|``, slices, ``+`` and ``async with s.stream()`` work
    as there. A slice, and the sum of two, is a `ResultStream` again. ``await s`` gives what it
    gives there, the *last item* alone, so a stream is taken nowhere for the outcome of a step: end
    it in a terminal.

    ``repr()`` shows the chain as it was written.

    Operators without a first stream are not methods: ``combine.merge_prioritized((9, a), (1, b))``
    and ``combine.select({"a": a, "b": b})`` read streams of Results as they are. So does
    ``combine.split(s, predicate)``, which returns two streams (the terminal `partition` reads to
    the end instead). `from_results` makes a `ResultStream` of the streams that they return.

    Sequential steps run in the reader's task, in one generator. An exception that a step did not
    declare is a bug: it propagates, after the source is closed.

    Cancel safety: a read that is cancelled in a sequential step, or in a source that only such
    steps read, ends the stream, as with any async generator. After a step with a task of its own (a
    window, `prefetch`, `flat_map`, a ``concurrency`` above 1) a cancelled read that waits for items
    loses nothing, and the next read continues.

    >>> from aiostream import stream
    >>> from returns.result import Failure, Result, Success
    >>> from returns_pipeline.testing import run
    >>> def half(n: int) -> Result[int, str]:
    ...     return Failure(f"{n} is odd") if n % 2 else Success(n // 2)
    >>> numbers = ResultStream.of(stream.range(4)).bind(half).alt(str.upper)
    >>> numbers
    ResultStream.of(<Stream>).bind(half).alt(str.upper)
    >>> run(numbers.partition())
    <IO: ([0, 1], ['1 IS ODD', '3 IS ODD'])>
    """

    def __init__(self, chain: Chain) -> None:
        """Not for callers: `of` and `from_results` make streams."""
        super().__init__(chain)

    def _open(self) -> QuickStreamer[Result[T_co, E_co]]:
        return fusion.open_results(self._chain)

    def through(self, stage: Callable[[ResultStream[T_co, E_co]], U], /) -> U:
        """Apply a stage of one's own: any function of a stream, as ``s | stage`` does.

        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> def pairs(s):
        ...     return s.chunks_or_timeout(2, timeout=9.0)
        >>> s = ResultStream.of(from_iterable([1, 2, 3]))
        >>> run(s.through(pairs).collect())
        <IOResult: <Success: [[1, 2], [3]]>>
        """
        return stage(self)

    def diagram(self, *others: AsyncIterable[object]) -> inspection.Diagram:
        """Draw the stream, as text or for Mermaid, without reading it: see `inspection.Diagram`.

        Args:
            others: Other streams to be drawn beside it, such as those of the same `broadcast`.

        >>> from returns_pipeline.sources import from_iterable
        >>> s = ResultStream.of(from_iterable([1, 2])).map(str).chunks_or_timeout(2, 9.0)
        >>> print(s.diagram())
        task 1
          1  from_iterable(<list>)
          2  map(str)
        the reader's task
          3  chunks_or_timeout(n=2, timeout=9.0)
                 holds up to 2
        """
        return inspection.diagram(self, *others)

    def statistics(self) -> inspection.StreamStatistics:
        """Return what its operators hold at this moment: see `inspection.statistics`.

        It may be called by any task, also while the stream is read. Streams that were made of this
        one are read with it: its own operators show their latest reading.

        >>> from returns_pipeline.sources import ticks
        >>> from returns_pipeline.testing import run
        >>> import asyncio
        >>> async def main():
        ...     windows = ResultStream.of(ticks(1.0)).chunks_or_timeout(5, 60.0)
        ...     reading = asyncio.ensure_future(windows.first().awaitable())
        ...     await asyncio.sleep(3.5)
        ...     [window] = windows.statistics().operators
        ...     print(window.buffered, window.oldest)
        ...     await reading
        >>> run(main())
        3 2.5
        """
        return inspection.statistics(self)

    def __repr__(self) -> str:
        return chain_text(self._chain)

    # For type checkers it takes what no event loop sends: see `StepAwaitable`.
    def __await__(self) -> Generator[Any, StreamWithoutTerminal, Result[T_co, E_co]]:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        last: Generator[Any, Any, Result[T_co, E_co]] = super().__await__()
        return last

    def __or__(self, stage: Callable[[ResultStream[T_co, E_co]], U]) -> U:
        return stage(self)

    def __getitem__(self, value: int | slice) -> ResultStream[T_co, E_co]:
        _ = stream.getitem.raw(stream.empty.raw(), value)  # a bad index is refused at the call
        self._refuse_marks("a slice")
        method = vars(ResultStream)["__getitem__"]
        call = Call(method, (value,), is_method=True, name=index_text(value))
        if self._chain.segmented:  # a generator of aiostream would be ended by a cancelled read
            made = self._linked(lambda part: combine.merge.raw(_sliced(part, value)))
            made._chain.written = call
            return made
        return ResultStream.from_results(_sliced(self, value, call))

    @overload
    def __add__(self, value: ResultStream[U, F]) -> ResultStream[T_co | U, E_co | F]: ...
    @overload
    def __add__(self, value: AsyncIterable[U]) -> Stream[Result[T_co, E_co] | U]: ...
    def __add__(self, value: AsyncIterable[Any]) -> Stream[Any]:
        if not isinstance(value, ResultStream):
            return super().__add__(value)
        other: ResultStream[Any, Any] = value  # pyright: ignore[reportUnknownVariableType]
        chains = self._chain, other._chain
        if any(chain.segmented or chain.marked for chain in chains):
            return self.concat(other)
        both = self, other
        call = Call(vars(ResultStream)["__add__"], is_method=True, name="+")
        joined = Deferred(lambda: stream.chain.raw(*both), lambda: both, call)
        return ResultStream.from_results(joined)

    @staticmethod
    def of(source: AsyncIterable[T]) -> ResultStream[T, Never]:
        """Lift plain values: each is a success.

        For anything but an async iterable see `returns_pipeline.sources`: for ``[1, 2]`` write
        ``ResultStream.of(sources.from_iterable([1, 2]))``; for a queue, a callback or a blocking
        iterator there are ``from_queue()``, ``Channel`` and ``from_thread()``.

        Raises:
            TypeError: At the call, if ``source`` is not an async iterable. The message names the
                function that converts it.

        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> run(ResultStream.of(from_iterable([1, 2])).collect())
        <IOResult: <Success: [1, 2]>>
        """
        if (marked := marked_items(checks.source(source))) is not None:
            return ResultStream(Chain(None, Source(marked, packed=False, marked=True)))
        return ResultStream(Chain(None, Source(source, packed=False)))

    @staticmethod
    def from_results(source: AsyncIterable[Result[T, E]]) -> ResultStream[T, E]:
        """Take an async iterable of Results as it is. A `ResultStream` is returned unchanged.

        Raises:
            TypeError: At the call, if ``source`` is not an async iterable.

        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> from returns_pipeline import err, ok
        >>> run(ResultStream.from_results(from_iterable([ok(1), err("no")])).partition())
        <IO: ([1], ['no'])>
        """
        if isinstance(source, ResultStream):
            return cast("ResultStream[T, E]", source)  # isinstance cannot tell T and E
        return ResultStream(chain_of(source))

    @staticmethod
    def from_batches(source: AsyncIterable[Sequence[T]]) -> ResultStream[T, Never]:
        """Lift the items of batches: lists, tuples or other sequences of values.

        The stream is that of the items: all methods see single values, in order, and an empty batch
        counts for nothing. But the sequential steps after it, and the windows or the terminal after
        these, run in a plain loop over the batch. So do windows by operators, such as
        `chunks_or_timeout`, whose lists hold Results.

        A batch is read when its first item is requested, and copied. Backpressure: one batch is
        held besides what each step holds.

        With `drain_on`, all items of a batch that was read are emitted.

        Cancel safety: as with `of`. Closing drops the rest of the batch.

        Raises:
            TypeError: At the call, if ``source`` is not an async iterable. While reading, if it
                emits something that is not a sequence, or a text or mapping, which is one item.

        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> s = ResultStream.from_batches(from_iterable([[1, 2], [], (3,)]))
        >>> run(s.map(lambda n: n * 10).collect())
        <IOResult: <Success: [10, 20, 30]>>
        """
        return ResultStream(Chain(None, Source(checks.source(source), packed=False, batched=True)))

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
        """Turn the listed exceptions of the *source* into a failure, the last item.

        This method comes right after `of`, `from_results` or `from_batches`. Exceptions of steps,
        and others of the source, propagate as always; a cancellation cannot be listed.

        Raises:
            InvalidArgument: At the call, if a step comes before it, or no exception is listed.

        >>> from returns_pipeline.testing import run
        >>> async def read():
        ...     yield 1
        ...     raise OSError("gone")
        >>> run(ResultStream.of(read()).or_failure(OSError).partition())
        <IO: ([1], [OSError('gone')])>
        """
        check_exceptions(exceptions)
        source = self._chain.link
        if not isinstance(source, Source):
            raise InvalidArgument("or_failure() must come right after of() or from_...()")
        return ResultStream(Chain(None, replace(source, folded=source.folded + exceptions)))

    @written
    def drain_on(self, stop: asyncio.Event) -> ResultStream[T_co, E_co]:
        """Drain when ``stop`` is set: read the source no further, emit everything already read.

        It may come anywhere in the chain; it is the source that stops. A pending read of the source
        is cancelled, and the source is closed. Items already read are emitted, open windows too,
        and the stream ends as if the source had ended.

        Setting the event again, or before the first read, does no harm. An error that the source is
        raising, or handling, at that moment is raised, and not taken for its end.

        Raises:
            TypeError: At the call, if ``stop`` is not an `asyncio.Event`.

        >>> from returns_pipeline.testing import run
        >>> import asyncio
        >>> from returns_pipeline.sources import ticks
        >>> async def main():
        ...     stop = asyncio.Event()
        ...     asyncio.get_running_loop().call_later(3.5, stop.set)
        ...     numbers = ResultStream.of(ticks(1.0)).chunks_or_timeout(99, 60.0)
        ...     return await numbers.drain_on(stop).collect()
        >>> run(main())
        <IOResult: <Success: [[1, 2, 3]]>>
        """
        if not isinstance(stop, asyncio.Event):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"stop must be an asyncio.Event, not {stop!r}")
        return self._linked(stop)

    @written
    def observed(self, *observers: Observer, name: str = "") -> ResultStream[T_co, E_co]:
        """Report what happens in this stream to observers: see `returns_pipeline.telemetry`.

        It may come anywhere in the chain, and is about all of it: windows and other stages, and
        the streams that are merged into it. Steps of `bind_step` report to the observers of their
        context. A second call adds observers; those of `telemetry.use` are added when the stream
        is first read.

        Items pass unchanged. An observer that raises an exception is logged, and harms nothing.

        Args:
            observers: The observers. None are needed to give the stream a name.
            name: The name of the pipeline, for events.

        Raises:
            InvalidArgument: At the call, if there is neither an observer nor a name.
            TypeError: At the call, if an observer has no method ``on_event``.

        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import Recorder, run
        >>> from returns_pipeline.telemetry import WindowEmitted
        >>> recorder = Recorder()
        >>> s = ResultStream.of(from_iterable([1, 2, 3])).chunks_or_timeout(2, 9.0)
        >>> _ = run(s.observed(recorder, name="shop").collect())
        >>> [(event.pipeline, event.size, event.reason) for event in recorder.of(WindowEmitted)]
        [('shop', 2, 'size'), ('shop', 1, 'end')]
        """
        added = observed_by(None, observers, name)
        if added is None:
            raise InvalidArgument("observed() takes an observer, or a name")
        return self._linked(added)

    @written
    def progress(
        self, total: int | None = None, *, description: str = "", file: TextIO | None = None
    ) -> ResultStream[T_co, E_co]:
        """Show a progress bar of the items that pass here. Needs the extra ``live``.

        1. The bar appears when the stream is first read, and counts values and failures alike.
        2. It is drawn ten times a second, by a thread. An item costs an addition.
        3. At the end of the stream, and after a failure, an exception, a cancellation or
           ``aclose()``, it is drawn for the last time, and stays. The cursor is visible again.

        Items pass unchanged, and so do the marks of sources that are acknowledged to. Nothing is
        held, and nothing waits for the terminal. What fails in drawing is logged, and harms
        nothing. If the output is not a terminal, the bar is printed once, at the end.

        Bars of several streams that are read at once stand below each other. A stream that is read
        again has a new bar. A `telemetry.live.LiveView` on the same terminal would be drawn over.

        Cancel safety: as without the bar.

        Args:
            total: How many items are expected, at least 0; if it is not given, the bar moves to and
                fro, and shows the speed.
            description: What stands before the bar.
            file: Where it is drawn; by default the standard error.

        Raises:
            InvalidArgument: At the call, if ``total`` is out of range.
            MissingExtra: At the call, if rich is not installed.

        >>> import sys
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> orders = ResultStream.of(from_iterable([1, 2, 3])).progress(3, file=sys.stdout)
        >>> run(orders.collect())  # doctest: +ELLIPSIS
         ━━━... 100% 3/3 0:00:0... 0:00:00
        <IOResult: <Success: [1, 2, 3]>>
        """
        if total is not None:
            _ = checks.count("total", total, least=0)
        from returns_pipeline.result_stream._bars import Bar  # it imports rich

        return self._stateful(lambda: (steps.COUNT, cast("Any", Bar(total, description, file)), 0))

    def _from_chain(self, chain: Chain) -> ResultStream[Any, Any]:
        return ResultStream(chain)


def _sliced(
    part: AsyncIterable[Any], value: int | slice, call: Call | None = None
) -> AsyncIterable[Any]:
    # Not a `Stream` of aiostream, which refers to itself: only the collector would drop the part.
    return Deferred(lambda: stream.getitem.raw(part, value), lambda: (part,), call)


# The bases' annotations name this class: `typing.get_type_hints()` finds it in their modules.
for _module in (_async_values, _chained, _failures, _together, _values, _windows):
    vars(_module)["ResultStream"] = ResultStream
