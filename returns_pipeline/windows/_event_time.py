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
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any, Final, TypeAlias

from aiostream import Stream
from typing_extensions import TypeVar

from returns_pipeline._engine import checks
from returns_pipeline._engine.checks import Seconds
from returns_pipeline._engine.operator import Operator
from returns_pipeline._engine.reader import Reader
from returns_pipeline.errors import InvalidArgument
from returns_pipeline.windows._assigners import Assigner
from returns_pipeline.windows._deadlines import DeadlinePump
from returns_pipeline.windows._event_state import EventWindow, state_of

__all__ = ["EventPump", "Late", "event_windows"]

K = TypeVar("K", default=None)
T = TypeVar("T")

Late: TypeAlias = Callable[[T], object] | asyncio.Queue[T]
"""Where items that come too late are sent: a function, plain or asynchronous, or a queue."""


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
    ) -> Stream[EventWindow[K, T]]:
        """Group items by the time in them, whatever the order in which they come.

        The *watermark* is the greatest timestamp seen so far, less ``max_out_of_orderness``: items
        before it are no longer expected. It never goes back, and all keys share it. A window is
        emitted ("fires") when

        1. the watermark reaches its end: that is its first pane;
        2. an item arrives for it after the watermark has passed its end, but not yet by
           ``allowed_lateness``: it fires again, at once, with the next pane number, ``is_late``;
        3. the source has ended (or failed): then every window fires that has items in no pane.

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

        Returns:
            A stream of windows. Their ``key`` is `None` without ``key``.

        Raises:
            InvalidArgument: At the call, if a number is out of range. While reading, after the open
                windows, if a timestamp is not finite.
            TypeError: At the call, if ``source`` is not an async iterable, or ``assigner`` or
                ``late`` is of another kind.
            Exception: Any exception of the source or of a function, after the last window.

        >>> from returns_pipeline.testing import run, timed
        >>> from returns_pipeline.windows import TumblingWindows
        >>> async def main() -> None:
        ...     taps = timed(1.0, 4.0, 2.0, 11.0, 3.0, 30.0)
        ...     windows = event_windows(
        ...         taps, TumblingWindows(10), timestamp=float, allowed_lateness=5
        ...     )
        ...     async with windows.stream() as fired:
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
    ) -> Callable[[AsyncIterable[T]], Stream[EventWindow[K, T]]]:
        return self._piped(
            assigner,
            timestamp=timestamp,
            key=key,
            allowed_lateness=allowed_lateness,
            max_out_of_orderness=max_out_of_orderness,
            late=late,
            idle_after=idle_after,
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
        )
        return Reader(pump)


event_windows: Final = _EventWindows("returns_pipeline.windows.event_windows")
"""Group items by the time in them, whatever the order in which they come."""


class EventPump(DeadlinePump):
    """Feeds an `EventState` with items and watermarks, and emits the windows that fire.

    An item of the class ``passing`` has no event time: it is emitted at once, in its place among
    the windows that fired, and fires none.
    """

    __slots__ = (
        "_idle_after",
        "_key",
        "_late",
        "_newest",
        "_passing",
        "_seen_at",
        "_slack",
        "_timestamp",
        "_watermark",
        "state",
    )

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
        passing: type | None = None,
    ) -> None:
        super().__init__(source)
        lateness = checks.seconds("allowed_lateness", allowed_lateness, zero=True)
        self.state = state_of(assigner, lateness)
        self._timestamp = timestamp
        self._key = key
        self._slack = checks.seconds(
            "max_out_of_orderness", max_out_of_orderness, zero=True, finite=True
        )
        self._late = _taker(late)
        self._idle_after = None if idle_after is None else checks.seconds("idle_after", idle_after)
        self._passing = passing
        self._newest = -math.inf  # the greatest timestamp
        self._watermark = -math.inf
        self._seen_at = 0.0  # when the last item came

    def take(self) -> Any:
        taken = self.due.popleft()
        if not self.due:
            self.resume()
        return taken

    def discard(self) -> None:
        super().discard()
        self.state.clear()

    def flush(self) -> None:
        self._advance(math.inf)
        self.state.clear()

    def _advance(self, watermark: float) -> None:
        self._watermark = watermark
        self.state.advance(watermark)
        self.due.extend(self.state.fired)
        self.state.fired.clear()

    # The clock, for a quiet source.

    def next_deadline(self) -> float:
        quiet = self._quiet_at()
        if quiet == math.inf or self.now() < quiet:
            return quiet  # only then can the clock move the watermark
        return self._end_at()

    def _quiet_at(self) -> float:
        if self._idle_after is None or self.state.next_end == math.inf:
            return math.inf
        return self._seen_at + self._idle_after

    def _end_at(self) -> float:
        """Return when the clock brings the watermark to the end of the next open window."""
        return self._seen_at + (self.state.first_end() - (self._newest - self._slack))

    def expire(self, now: float) -> None:
        if self._idle_after is None or now < self._seen_at + self._idle_after:
            return
        # To the ends of windows, and not beyond: this must not make later items late.
        while self._end_at() <= now:
            self._advance(self.state.next_end)

    def _note_time(self, idle_after: float) -> None:
        """Take note that an item arrived: the source is not quiet."""
        now = self.now()
        self.expire(now)
        self._seen_at = now
        self.arm_for(now + idle_after)

    # The source.

    async def fill(  # noqa: C901  # one flat loop: a call per item would double its cost
        self, source: AsyncIterator[Any]
    ) -> None:
        timestamp = self._timestamp
        key_of = self._key
        key: object = None
        slack = self._slack
        idle_after = self._idle_after
        passing = self._passing
        state = self.state
        find = state.recent.get
        newest = self._newest
        left = 1
        async for item in source:
            if item.__class__ is passing:
                self.due.append(item)
                await self.wait_with_clock_paused()
                continue
            at = timestamp(item)
            if key_of is not None:
                key = key_of(item)
            if idle_after is not None:
                self._note_time(idle_after)
            region = find(key)
            if region is not None and region.start <= at < region.end:
                for append in region.appends:
                    append(item)
            elif self.closed:
                break
            elif math.isfinite(at):
                accepted, forgotten = state.add(at, key, item, self._watermark)
                if forgotten or state.fired:
                    await self._settle(key, item, forgotten, accepted=accepted)
                if idle_after is not None:
                    self.arm_for(self._seen_at + idle_after)
            else:
                raise InvalidArgument(f"a timestamp must be finite, not {at!r}")
            if at > newest:
                newest = self._newest = at
                watermark = at - slack
                if watermark > self._watermark:
                    self._watermark = watermark
                    if watermark >= state.next_move:
                        self._advance(watermark)
            if self.due:
                await self.wait_with_clock_paused()
            left -= 1
            if not left:
                left = await self.check_clock(self.now())

    async def _settle(
        self, key: object, item: Any, forgotten: list[tuple[float, float]], *, accepted: bool
    ) -> None:
        """Emit the windows that a late item made fire, or the item itself if it is too late."""
        if self._late is None:
            for start, end in forgotten:
                self.due.append(EventWindow(key, start, end, [item], 0, is_late=True))
        elif not accepted:
            await self.with_clock_paused(_hand_over(self._late, item))
        self.due.extend(self.state.fired)
        self.state.fired.clear()


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
