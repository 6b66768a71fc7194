"""`event_windows`: windows of the time in the items, not of the time at which they arrive.

The rules are those of the dataflow model (Akidau et al., "The Dataflow Model", VLDB 2015) as
Apache Flink and Apache Beam document them: windows are half-open, a watermark shows how far event
time has advanced, a window fires when the watermark reaches its end, and again for items that
arrive late but within the allowed lateness. Where the two differ, the docstring of `event_windows`
says which one is followed.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any, Final, TypeAlias

from aiostream import Stream
from typing_extensions import TypeVar

from returns_pipeline import telemetry
from returns_pipeline._engine import checks, ends
from returns_pipeline._engine.checks import Seconds
from returns_pipeline._engine.marks import BySpan, CarriesMarks, Mark, Span
from returns_pipeline._engine.observing import Stage
from returns_pipeline._engine.operator import Operator
from returns_pipeline._engine.reader import Reader
from returns_pipeline.errors import InvalidArgument
from returns_pipeline.windows._assigners import Assigner
from returns_pipeline.windows._deadlines import DeadlinePump
from returns_pipeline.windows._event_state import EventState, EventWindow, marked_state_of, state_of
from returns_pipeline.windows._flushing import FlushOn
from returns_pipeline.windows._watermarks import Watermarks

__all__ = ["EventPump", "Late", "MarkedEventPump", "event_windows"]

K = TypeVar("K", default=None)
T = TypeVar("T")

Late: TypeAlias = Callable[[T], object] | asyncio.Queue[T]


class _EventWindows(Operator):
    def __call__(
        self,
        source: AsyncIterable[T],
        assigner: Assigner,
        *,
        timestamp: Callable[[T], float],
        key: Callable[[T], K] | None = None,
        allowed_lateness: Seconds = 0.0,
        max_out_of_orderness: Seconds = 0.0,
        late: Late[T] | None = None,
        idle_after: Seconds | None = None,
        partition: Callable[[T], object] | None = None,
        max_future_skew: Seconds | None = None,
        flush_on: FlushOn | None = None,
    ) -> Stream[EventWindow[K, T]]:
        """Group items by the time in them, whatever the order in which they come.

        The *watermark* is the greatest timestamp seen so far, less ``max_out_of_orderness``: items
        before it are no longer expected. It never goes back, and all keys share it. A window is
        emitted ("fires") when

        1. the watermark reaches its end: that is its first pane;
        2. an item arrives for it after the watermark has passed its end, but not yet by
           ``allowed_lateness``: it fires again, at once, with the next pane number, ``is_late``;
        3. ``flush_on`` is given, and is set or emits an item: then every window fires early that
           has items in no pane. It stays open. When the watermark reaches its end, it fires again
           if it has got other items since;
        4. the source has ended (or failed): then every window fires that has items in no pane.

        Windows that fire at one moment are emitted in the order of their ends, then of their
        opening. A pane holds all items of its window so far (panes accumulate, they do not
        retract). A window is forgotten when the watermark has passed its end by
        ``allowed_lateness``.

        An item is *too late* if all its windows are forgotten. It is never dropped silently: it is
        sent to ``late``; without one it is emitted at once, alone, in its window with ``is_late``
        and pane 0, as if the window had been empty. (So is an item for each forgotten window, if
        it is too late for some of its windows only.)

        Sessions (assigner `SessionWindows`) merge: an item makes a window from its timestamp to
        ``gap`` after it, and windows of one key that overlap become one; also with a late item, and
        also with one that has fired and is not yet forgotten. If a session grows past the
        watermark, it fires when the watermark reaches its new end, with the next pane number and
        not ``is_late``, else at once. Two windows that only touch do not merge, as in Beam (in
        Flink they do).

        A quiet source holds its watermark back, and with it every open window. With ``idle_after``,
        the watermark follows the running loop's clock once that many seconds have passed without an
        item: an open window fires as soon as the seconds since the last item, added to the
        watermark of that time, reach its end. The watermark only ever moves to the end of an open
        window. Time for which the source was kept waiting does not count.

        Sources that were merged do not advance together. With ``partition`` each one has a
        watermark of its own (a partition of a topic, a device, a file), and the least of them
        counts. One that has had no item for ``idle_after`` seconds is left out, until its next; if
        all have had none, the clock moves the one that is furthest. Without ``idle_after`` a
        partition that falls silent holds all windows back.

        One item with a wrong date, years ahead, would make all others late. With
        ``max_future_skew``, an item that is further ahead is put into its window, and does not move
        the watermark. It is ahead if its timestamp exceeds the greatest one so far by more than
        this, and by more than the time that has passed since, on the running loop's clock. (So the
        items' clock need not be that of this machine, but has to run as fast: for a replay at
        another speed, leave it out.) The first item is taken at its word.

        Backpressure: the items of windows that the watermark has not passed by ``allowed_lateness``
        are held. The source waits while a window that has fired is not taken.

        Order of events: ``timestamp``, ``key`` and ``late`` are called in the order of the source,
        in the task that runs the source. If one raises, all open windows are emitted and then that
        exception is raised; the source is closed.

        Cancel safety: a cancelled read loses nothing; the next read continues where it was.
        ``aclose()`` stops the source, awaits its clean-up and drops the items held. An exception of
        the reader is not thrown into the source.

        Known elsewhere as ``window(TumblingEventTimeWindows)`` with ``allowedLateness`` and
        ``sideOutputLateData`` (Flink), ``Window.into(FixedWindows)`` with accumulating panes
        (Beam), ``windowedBy`` (Kafka Streams), ``collect_window`` (bytewax).

        Args:
            source: Read one item at a time, once the first window is requested.
            assigner: `TumblingWindows`, `SlidingWindows` or `SessionWindows`.
            timestamp: Returns when an item happened, in seconds, from any origin. For a
                ``datetime``, its ``timestamp()``.
            key: Returns the key of an item, hashable; windows of different keys are independent.
            allowed_lateness: Seconds of event time for which a window that has fired is kept, at
                least 0.
            max_out_of_orderness: Seconds of event time by which an item may be older than an item
                before it, at least 0.
            late: Takes items that are too late: a function of the item, awaited if it returns an
                awaitable, or an ``asyncio.Queue``. The source waits for it, also for room in a
                queue.
            idle_after: Seconds on the running loop's clock after which a source without items
                counts as quiet, above 0; `None` for never.
            partition: Returns what an item came from, hashable; `None` if all came from one source.
            max_future_skew: Seconds of event time by which an item may be ahead, at least 0; `None`
                for no limit.
            flush_on: An event or a stream, as of `chunks_or_timeout`.

        Returns:
            A stream of windows. Their ``key`` is `None` without ``key``.

        Raises:
            InvalidArgument: At the call, if a number is out of range. While reading, after the open
                windows, if a timestamp is not finite.
            TypeError: At the call, if ``source`` or ``flush_on`` is not an async iterable, or
                ``assigner`` or ``late`` is of another kind.
            Exception: Any exception of the source, of ``flush_on`` or of a function, after the last
                window.

        >>> from returns_pipeline.testing import run, timed
        >>> from returns_pipeline.windows import TumblingWindows
        >>> s = timed(1.0, 4.0, 2.0, 11.0, 3.0, 30.0)
        >>> done = event_windows(s, TumblingWindows(10), timestamp=float, allowed_lateness=5)
        >>> async def main() -> None:
        ...     async with done.stream() as fired:
        ...         async for window in fired:
        ...             print(window.start, window.items, window.pane, window.is_late)
        >>> run(main())
        0.0 [1.0, 4.0, 2.0] 0 False
        0.0 [1.0, 4.0, 2.0, 3.0] 1 True
        10.0 [11.0] 0 False
        30.0 [30.0] 0 False
        """
        return self._stream(
            source,
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

    def pipe(
        self,
        assigner: Assigner,
        *,
        timestamp: Callable[[T], float],
        key: Callable[[T], K] | None = None,
        allowed_lateness: Seconds = 0.0,
        max_out_of_orderness: Seconds = 0.0,
        late: Late[T] | None = None,
        idle_after: Seconds | None = None,
        partition: Callable[[T], object] | None = None,
        max_future_skew: Seconds | None = None,
        flush_on: FlushOn | None = None,
    ) -> Callable[[AsyncIterable[T]], Stream[EventWindow[K, T]]]:
        return self._piped(
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

    def raw(
        self,
        source: AsyncIterable[T],
        assigner: Assigner,
        *,
        timestamp: Callable[[T], float],
        key: Callable[[T], K] | None = None,
        allowed_lateness: Seconds = 0.0,
        max_out_of_orderness: Seconds = 0.0,
        late: Late[T] | None = None,
        idle_after: Seconds | None = None,
        partition: Callable[[T], object] | None = None,
        max_future_skew: Seconds | None = None,
        flush_on: FlushOn | None = None,
    ) -> AsyncIterator[EventWindow[K, T]]:
        pump = EventPump(
            source,
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
        return Reader(pump)


event_windows: Final = _EventWindows("returns_pipeline.windows.event_windows")
"""Group items by the time in them, whatever the order in which they come."""


class EventPump(DeadlinePump):
    """Feeds an `EventState` with items and watermarks, and emits the windows that fire.

    A failure has no event time: it is emitted at once, in its place among the windows that fired,
    and fires none.
    """

    __slots__ = (
        "_idle_after",
        "_key",
        "_late",
        "_late_items",
        "_partition",
        "_skewed",
        "_slack",
        "_timestamp",
        "_watermark",
        "_watermarks",
        "state",
    )

    fill = ends.window(
        "event_windows",
        """\
timestamp, key_of, slack, idle_after = self._timestamp, self._key, self._slack, self._idle_after
state, marks, find = self.state, self._watermarks, self.state.recent.get
key, newest, now = None, -float("inf"), 0.0  # the greatest timestamp; when the item came
""",
        """\
OPEN
at = timestamp(value)
if key_of is not None:
    key = key_of(value)
if idle_after is not None:
    now = self.now()
    if now >= marks.idle_from:  # else the items alone move the watermark
        self.expire(now)
region = find(key)
if region is not None and region.start <= at < region.end:
    is_late = False
    for append in region.appends:
        append(value)
else:
    is_late = self._add(at, key, value)
if marks is not None or at > newest:
    newest = at
    watermark = at - slack if marks is None else self._moved_by(marks, value, at, now)
    if watermark > self._watermark:
        self._watermark = watermark
        if watermark >= state.next_move:
            self._advance(watermark)
if is_late or self.due:
    waiting = self._settle(value, is_late=is_late)
    WAIT
NEXT
""",
    )

    operator = "event_windows"

    def __init__(
        self,
        source: AsyncIterable[Any],
        assigner: Assigner,
        *,
        timestamp: Callable[[Any], float],
        key: Callable[[Any], object] | None,
        allowed_lateness: Seconds,
        max_out_of_orderness: Seconds,
        late: Late[Any] | None,
        idle_after: Seconds | None,
        partition: Callable[[Any], object] | None = None,
        max_future_skew: Seconds | None = None,
        flush_on: FlushOn | None = None,
    ) -> None:
        super().__init__(source, flush_on)
        lateness = checks.seconds("allowed_lateness", allowed_lateness, zero=True)
        self.state: EventState = self._state_of(assigner, lateness)
        checks.item_function("timestamp", timestamp)
        checks.item_function("key", key, optional=True)
        checks.item_function("partition", partition, optional=True)
        self._timestamp = timestamp
        self._key = key
        self._slack = checks.seconds(
            "max_out_of_orderness", max_out_of_orderness, zero=True, finite=True
        )
        self._late = _taker(late)
        self._idle_after = None if idle_after is None else checks.seconds("idle_after", idle_after)
        self._partition = partition
        self._skewed = max_future_skew is not None
        skew = math.inf
        if max_future_skew is not None:
            skew = checks.seconds("max_future_skew", max_future_skew, zero=True)
        # One source without a clock needs only the greatest timestamp, which `fill` has.
        self._watermarks: Watermarks | None = None
        if partition is not None or self._skewed or self._idle_after is not None:
            idle = math.inf if self._idle_after is None else self._idle_after
            self._watermarks = Watermarks(self._slack, idle, skew)
        self._watermark = -math.inf
        self._late_items = 0  # that were not reported yet

    def _state_of(self, assigner: Assigner, lateness: float) -> EventState:
        return state_of(assigner, lateness)

    def held(self) -> int:
        return sum(len(each.items) if each.__class__ is EventWindow else 1 for each in self.due)

    def open_windows(self) -> tuple[int, float | None]:
        return self.state.assigned(), None

    def take(self) -> Any:
        taken = self.due.popleft()
        if not self.due:
            self.resume()
        return taken

    def discard(self) -> None:
        super().discard()
        self.state.clear()

    def flush(self, why: telemetry.WindowReason) -> None:
        self._advance(math.inf, why)
        self.state.clear()

    def _advance(self, watermark: float, why: telemetry.WindowReason = "watermark") -> None:
        self._watermark = watermark
        self.state.advance(watermark)
        if self.stage is not None:
            self._report_watermark(self.stage)
        self._queue_fired(why)

    def _queue_fired(self, why: telemetry.WindowReason) -> None:
        if self.stage is not None:
            for window in self.state.fired:
                self.report(len(window.items), "late" if window.is_late else why)
        self.due.extend(self.state.fired)
        self.state.fired.clear()

    def _report_watermark(self, stage: Stage) -> None:
        at = self.loop.time()
        advanced = telemetry.WatermarkAdvanced(
            pipeline=stage.pipeline, stage=stage.name, watermark=self._watermark, at=at
        )
        stage.report(advanced)
        if self._late_items:
            late = telemetry.LateItems(
                pipeline=stage.pipeline, stage=stage.name, count=self._late_items, at=at
            )
            self._late_items = 0
            stage.report(late)

    def flush_now(self) -> None:
        self.state.fire_open()
        if self.state.fired:
            self._queue_fired(self.flush_reason)
            self.notify_reader()

    # The clock, for a quiet source.

    def next_deadline(self) -> float:
        marks = self._watermarks
        if marks is None or self._idle_after is None or self.state.next_end == math.inf:
            return math.inf
        quiet = marks.idle_at(self.now())
        # Once all are idle, and only then, the clock moves the watermark.
        return quiet if quiet < math.inf else marks.reaches_at(self.state.first_end())

    def expire(self, now: float, why: telemetry.WindowReason = "watermark") -> None:
        marks = self._watermarks
        if marks is None or self._idle_after is None:
            return
        # To the ends of windows, and not beyond: later items must not become late by it.
        while (end := self.state.first_end()) < math.inf and marks.has_reached(end, now):
            self._advance(end, why)

    def _moved_by(self, marks: Watermarks, item: Any, at: float, now: float) -> float:
        """Move the watermark by an item, if need be, and return it."""
        partition = None if self._partition is None else self._partition(item)
        ahead = self._skewed and marks.is_ahead(at, self.loop.time())
        watermark = marks.note(partition, at, now, ahead=ahead)
        if self._idle_after is not None and self._timer_deadline > now + self._idle_after:
            self.arm_for(now + self._idle_after)
        return watermark

    # The source.

    async def emit_failure(self, failure: object) -> None:
        """Emit the failure at once: it fires no window."""
        self.due.append(failure)
        await self.wait_with_clock_paused()

    def _add(self, at: float, key: object, item: Any) -> bool:
        """Put an item into its windows; return whether it is too late, and ``late`` takes it."""
        if not math.isfinite(at):
            raise InvalidArgument(f"a timestamp must be finite, not {at!r}")
        accepted, forgotten = self.state.add(at, key, item, self._watermark)
        if not (forgotten or self.state.fired):
            return False
        self._late_items += 1
        if self._late is None:
            if self.stage is not None:
                for _ in forgotten:
                    self.report(1, "late")
            for start, end in forgotten:
                self.due.append(EventWindow(key, start, end, [item], 0, is_late=True))
        self._queue_fired("late")
        return self._late is not None and not accepted

    async def _settle(self, item: Any, *, is_late: bool) -> None:
        """Hand an item that is too late to ``late``, and wait until all that is due was taken."""
        if is_late and self._late is not None:
            await self.with_clock_paused(_hand_over(self._late, item))
        if self.due:
            await self.wait_with_clock_paused()


class MarkedEventPump(CarriesMarks[BySpan], EventPump):
    """Emits a mark when the windows have fired that had items of before it in no pane."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.marks = BySpan()
        super().__init__(*args, **kwargs)
        self._taken = 0
        self._let_go: deque[tuple[int, Span]] = deque()  # with the number of the last pane

    def _state_of(self, assigner: Assigner, lateness: float) -> EventState:
        return marked_state_of(assigner, lateness, self.marks)

    def keep(self, mark: Mark) -> None:
        if mark.flushes:
            self.flush_for_credit()
        self.marks.put(mark)

    def take_item(self) -> Any:
        item = super().take_item()
        self._taken += 1
        self._free_spans()
        return item

    def _queue_fired(self, why: telemetry.WindowReason) -> None:
        super()._queue_fired(why)
        state: Any = self.state
        last = self._taken + len(self.due)
        self._let_go.extend((last, span) for span in state.let_go)
        state.let_go.clear()
        self._free_spans()

    def _free_spans(self) -> None:
        while self._let_go and self._let_go[0][0] <= self._taken:
            self.marks.gone(self._let_go.popleft()[1])

    def discard(self) -> None:
        super().discard()
        self._let_go.clear()


def _taker(late: Late[T] | None) -> Callable[[T], object] | None:
    if late is None or callable(late):
        return late
    if isinstance(late, asyncio.Queue):  # pyright: ignore[reportUnnecessaryIsInstance]
        return late.put
    raise TypeError(f"late must be a function or an asyncio.Queue, not {late!r}")


async def _hand_over(late: Callable[[Any], object], item: Any) -> None:
    given = late(item)
    if inspect.isawaitable(given):
        await given
