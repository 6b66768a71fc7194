"""The windows of a `ResultStream`: they group its values; failures are emitted in their place."""

# See _chained.
# pyright: reportImportCycles=false

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic

from typing_extensions import TypeVar

from returns_pipeline import windows
from returns_pipeline._engine.checks import Seconds
from returns_pipeline._engine.reader import Reader
from returns_pipeline._engine.written import written
from returns_pipeline.result_stream._chained import Chained

if TYPE_CHECKING:
    from returns_pipeline.result_stream import ResultStream

__all__ = ["WindowSteps"]

A = TypeVar("A")
T_co = TypeVar("T_co", covariant=True)
E_co = TypeVar("E_co", covariant=True)
KeyT = TypeVar("KeyT", default=None)


class WindowSteps(Chained[T_co, E_co], Generic[T_co, E_co]):
    """The operators of `returns_pipeline.windows`, for the values of a stream of Results."""

    @written
    def chunks_or_timeout(
        self,
        n: int,
        timeout: Seconds,
        *,
        flush_on: windows.FlushOn | None = None,
        emit_empty: bool = False,
    ) -> ResultStream[list[T_co], E_co]:
        """Group values into lists, each emitted by its size or its age, whichever comes first.

        As `returns_pipeline.chunks_or_timeout`, for the values of this stream: a list is emitted
        when it holds ``n`` values, when ``timeout`` seconds have passed since its first one, at a
        signal of ``flush_on``, when the stream before it ends or fails, and *before a failure*. The
        failure is then emitted in its place: nothing is dropped, order is kept.

        Backpressure: at most ``n`` values, or those and one failure, are held ahead of the reader.

        Cancel safety: a cancelled read loses nothing. The steps before this one and the source run
        in a task of their own.

        Raises:
            InvalidArgument: At the call, if ``n`` or ``timeout`` is out of range.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> run(ResultStream.of(from_iterable([1, 2, 3])).chunks_or_timeout(2, 9.0).collect())
        <IOResult: <Success: [[1, 2], [3]]>>
        """
        from returns_pipeline.windows._chunks import ChunksPump, MarkedChunksPump

        pump = MarkedChunksPump if self._chain.marked else ChunksPump

        return self._segment(
            lambda part: Reader(pump(part, n, timeout, flush_on, emit_empty)),
            carries_marks=True,
        )

    @written
    def chunks_by_weight(
        self,
        max_weight: float,
        timeout: Seconds,
        *,
        weight: Callable[[T_co], float],
        n: int | None = None,
        flush_on: windows.FlushOn | None = None,
        emit_empty: bool = False,
    ) -> ResultStream[list[T_co], E_co]:
        """Group values into lists that together weigh no more than ``max_weight``.

        As `returns_pipeline.chunks_by_weight`, for the values of this stream. A failure is
        emitted in its place, after the open list.

        Raises:
            InvalidArgument: At the call, if ``max_weight``, ``timeout`` or ``n`` is out of range.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> s = ResultStream.of(from_iterable([1, 2, 3]))
        >>> run(s.chunks_by_weight(3, 9.0, weight=float).collect())
        <IOResult: <Success: [[1, 2], [3]]>>
        """
        from returns_pipeline.windows._weight import MarkedWeightPump, WeightPump

        pump = MarkedWeightPump if self._chain.marked else WeightPump

        return self._segment(
            lambda part: Reader(pump(part, max_weight, timeout, weight, n, flush_on, emit_empty)),
            carries_marks=True,
        )

    @written
    def chunks_until(
        self,
        predicate: Callable[[T_co], bool],
        *,
        n: int | None = None,
        timeout: Seconds = math.inf,
        flush_on: windows.FlushOn | None = None,
        emit_empty: bool = False,
    ) -> ResultStream[list[T_co], E_co]:
        """Group values into lists, each closed by a value for which ``predicate`` is true.

        As `returns_pipeline.windows.chunks_until`, for the values of this stream. A failure is
        emitted in its place, after the open list.

        Raises:
            InvalidArgument: At the call, if ``n`` or ``timeout`` is out of range.
            TypeError: At the call, if ``predicate`` is not a plain function. While reading, if it
                returns no ``bool``.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> s = ResultStream.of(from_iterable([1, 2, 3]))
        >>> run(s.chunks_until(lambda n: n == 2).collect())
        <IOResult: <Success: [[1, 2], [3]]>>
        """
        from returns_pipeline.windows._until import MarkedUntilPump, UntilPump

        pump = MarkedUntilPump if self._chain.marked else UntilPump

        return self._segment(
            lambda part: Reader(pump(part, predicate, n, timeout, flush_on, emit_empty)),
            carries_marks=True,
        )

    @written
    def keyed_chunks(
        self,
        n: int,
        timeout: Seconds,
        *,
        key: Callable[[T_co], A],
        max_keys: int | None = None,
        flush_on: windows.FlushOn | None = None,
    ) -> ResultStream[tuple[A, list[T_co]], E_co]:
        """Group values into lists by key, each emitted with its key by its size or its age.

        As `returns_pipeline.keyed_chunks`, for the values of this stream. A failure is emitted in
        its place, after all open lists, the oldest first.

        Raises:
            InvalidArgument: At the call, if ``n``, ``timeout`` or ``max_keys`` is out of range.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> s = ResultStream.of(from_iterable([1, 2, 3]))
        >>> run(s.keyed_chunks(2, 9.0, key=lambda n: n % 2).collect())
        <IOResult: <Success: [(1, [1, 3]), (0, [2])]>>
        """
        from returns_pipeline.windows._keyed import KeyedPump, MarkedKeyedPump

        pump = MarkedKeyedPump if self._chain.marked else KeyedPump

        return self._segment(
            lambda part: Reader(pump(part, n, timeout, key, max_keys, flush_on)),
            carries_marks=True,
        )

    @written
    def sliding(
        self, n: int, *, step: int = 1, flush_on: windows.FlushOn | None = None
    ) -> ResultStream[list[T_co], E_co]:
        """Emit every run of ``n`` neighbouring values, each ``step`` values after the one before.

        As `returns_pipeline.sliding`, for the values of this stream. A failure ends the run as
        the end of the stream would: values that were in no list are emitted in a shorter one, then
        the failure in its place. The values after it begin again.

        Raises:
            InvalidArgument: At the call, if ``n`` or ``step`` is out of range.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> run(ResultStream.of(from_iterable([1, 2, 3])).sliding(2).collect())
        <IOResult: <Success: [[1, 2], [2, 3]]>>
        """
        from returns_pipeline.windows._sliding import MarkedSlidingPump, SlidingPump

        self._refuse_repeats("sliding")
        pump = MarkedSlidingPump if self._chain.marked else SlidingPump

        return self._segment(lambda part: Reader(pump(part, n, step, flush_on)), carries_marks=True)

    @written
    def sessions(
        self,
        gap: Seconds,
        *,
        max_duration: Seconds = math.inf,
        n: int | None = None,
        key: Callable[[T_co], object] | None = None,
        max_keys: int | None = None,
        flush_on: windows.FlushOn | None = None,
    ) -> ResultStream[list[T_co], E_co]:
        """Group values into lists that a silence of ``gap`` seconds ends.

        As `returns_pipeline.sessions`, for the values of this stream. A failure is emitted in
        its place, after all open lists, the oldest first.

        Raises:
            InvalidArgument: At the call, if ``gap``, ``max_duration``, ``n`` or ``max_keys`` is out
                of range.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> run(ResultStream.of(from_iterable([1, 2, 3])).sessions(9.0).collect())
        <IOResult: <Success: [[1, 2, 3]]>>
        """
        from returns_pipeline.windows._sessions import MarkedSessionPump, SessionPump

        pump = MarkedSessionPump if self._chain.marked else SessionPump

        return self._segment(
            lambda part: Reader(pump(part, gap, max_duration, n, key, max_keys, flush_on)),
            carries_marks=True,
        )

    @written
    def event_windows(
        self,
        assigner: windows.Assigner,
        *,
        timestamp: Callable[[T_co], float],
        key: Callable[[T_co], KeyT] | None = None,
        allowed_lateness: Seconds = 0.0,
        max_out_of_orderness: Seconds = 0.0,
        late: windows.Late[T_co] | None = None,
        idle_after: Seconds | None = None,
        partition: Callable[[T_co], object] | None = None,
        max_future_skew: Seconds | None = None,
        flush_on: windows.FlushOn | None = None,
    ) -> ResultStream[windows.EventWindow[KeyT, T_co], E_co]:
        """Group values by the time in them, whatever the order in which they come.

        As `returns_pipeline.windows.event_windows`, for the values of this stream. A failure has no
        event time: it is emitted at once, in its place among the windows that fired, and fires
        none. Open windows stay open; none is cut in two by it.

        Raises:
            InvalidArgument: At the call, if a number is out of range.
            TypeError: At the call, if ``assigner`` or ``late`` is of another kind.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> from returns_pipeline.windows import TumblingWindows
        >>> s = ResultStream.of(from_iterable([1, 2, 13]))
        >>> windows = s.event_windows(TumblingWindows(10.0), timestamp=float)
        >>> run(windows.map(lambda window: window.items).collect())
        <IOResult: <Success: [[1, 2], [13]]>>
        """
        from returns_pipeline.windows._event_time import EventPump, MarkedEventPump

        # A window that is flushed, for credit, may fire again, with all its items.
        self._refuse_repeats("event_windows")
        pump = MarkedEventPump if self._chain.marked else EventPump

        return self._segment(
            lambda part: Reader(
                pump(
                    part,
                    assigner,
                    timestamp=timestamp,
                    key=key,
                    allowed_lateness=allowed_lateness,
                    max_out_of_orderness=max_out_of_orderness,
                    late=late,
                    idle_after=idle_after,
                    partition=partition,
                    max_future_skew=max_future_skew,
                    flush_on=flush_on,
                )
            ),
            carries_marks=True,
        )
