"""Operators that use the clock: `throttle` spreads items out, `debounce` waits for silence."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any, Final, TypeVar

from aiostream import Stream

from returns_pipeline._engine import checks
from returns_pipeline._engine.budget import Budget
from returns_pipeline._engine.checks import Seconds
from returns_pipeline._engine.deadlines import DeadlineTimer
from returns_pipeline._engine.fan_in import FanIn, MarkedFanIn
from returns_pipeline._engine.marks import CarriesMarks, InOrder, Mark
from returns_pipeline._engine.operator import Operator, plain_iterator
from returns_pipeline._engine.reader import Pump, Reader, notify

__all__ = ["DebouncePump", "ThrottlePump", "debounce", "throttle"]

T = TypeVar("T")


class _Throttle(Operator):
    def __call__(self, source: AsyncIterable[T], interval: Seconds, *, burst: int = 1) -> Stream[T]:
        """Emit at most one item per ``interval``; the source waits, nothing is dropped.

        An item is emitted when it arrives, if

        1. fewer than ``burst`` items were emitted shortly before: time that passes without an item
           is saved up, for at most ``burst`` items;
        2. else as soon as ``interval`` seconds per item have passed.

        So in any ``t`` seconds at most ``burst + t / interval`` items are emitted. The time that
        the reader takes for an item counts. The end of the source, or its error, follows the last
        item at once.

        The rule is the "generic cell rate algorithm" of ITU-T I.371.

        Backpressure: one item is held; then the source waits.

        Order of events: the source runs in one task from its first item to its clean-up, in a copy
        of the first reader's context.

        Cancel safety: a read that is cancelled loses nothing; the next one continues where it was.
        ``aclose()`` stops the source, awaits its clean-up to its end, and drops held items. An
        exception of the reader is not thrown into the source.

        Known elsewhere as: ``throttle`` (tokio-stream, Akka and Pekko, Effect), ``metered`` (fs2),
        ``spaceout`` (aiostream). Those of Rx drop items: see `debounce`.

        Args:
            source: Read one item at a time.
            interval: Seconds per item, above 0. On the running loop's clock.
            burst: How many may be emitted at once after a pause, at least 1.

        Returns:
            A stream of the same items.

        Raises:
            InvalidArgument: At the call, if ``interval`` or ``burst`` is out of range.
            TypeError: At the call, if ``source`` is not an async iterable.
            Exception: Any exception of the source, after the items before it.

        >>> from returns_pipeline.testing import run, script, timeline
        >>> s = script("(abc)-----(de)|")
        >>> done = throttle(s, 2.0)
        >>> run(timeline(done))
        [(0.0, 'a'), (2.0, 'b'), (4.0, 'c'), (6.0, 'd'), (8.0, 'e')]
        >>> s = script("(abcd)|")
        >>> done = throttle(s, 2.0, burst=2)
        >>> run(timeline(done))
        [(0.0, 'a'), (0.0, 'b'), (2.0, 'c'), (4.0, 'd')]
        """
        return self._stream(source, interval, burst=burst)

    def pipe(self, interval: Seconds, *, burst: int = 1) -> Callable[[AsyncIterable[T]], Stream[T]]:
        return self._piped(interval, burst=burst)

    def raw(
        self, source: AsyncIterable[T], interval: Seconds, *, burst: int = 1
    ) -> AsyncIterator[T]:
        return Reader(ThrottlePump(source, interval, burst))


throttle: Final = _Throttle("returns_pipeline.combine.throttle")
"""Emit at most one item per interval; the source waits, nothing is dropped."""


class ThrottlePump(FanIn[T, T]):
    """One input that holds one item, and the time from which it may be emitted.

    Items of the class ``passing`` neither wait for themselves nor count.
    """

    def __init__(
        self,
        source: AsyncIterable[T],
        interval: Seconds,
        burst: int = 1,
        passing: type[Any] | None = None,
    ) -> None:
        super().__init__([source], 1)
        self._passing: type[Any] | tuple[()] = () if passing is None else passing
        self._interval = checks.seconds("interval", interval, finite=True)
        self._credit = (checks.count("burst", burst) - 1) * self._interval
        # When the next item would be due if none had come early: the "theoretical arrival time".
        self._expected = -math.inf
        self._timer = DeadlineTimer()
        self._reached = -math.inf  # the latest time at which the timer fired

    def has_next(self) -> bool:
        """Return whether the item that is held is due; else the timer is set."""
        items = self.inputs[0].items
        if not items:
            return False
        due = self._expected - self._credit
        # Some loops fire a timer a little early: the deadline counts as reached.
        if isinstance(items[0], self._passing) or due <= self._reached or due <= self.loop.time():
            return True
        self._timer.set(self.loop, due, self._on_due)
        return False

    def is_drained(self) -> bool:
        """Return whether no item waits for its time."""
        return not self.inputs[0].items

    def take(self) -> T:
        """Emit the item, and count it."""
        item = self.inputs[0].pop()
        if not isinstance(item, self._passing):
            self._expected = max(self._expected, self.loop.time()) + self._interval
        return item

    def _on_due(self, deadline: float) -> None:
        self._reached = deadline
        self.notify_reader()

    def discard(self) -> None:
        """Drop the item and the timer."""
        super().discard()
        self._timer.cancel()


class MarkedThrottlePump(MarkedFanIn, ThrottlePump[Any]):
    """Emits a mark after the item that was held when it came; marks neither wait nor count."""


class _Debounce(Operator):
    def __call__(
        self, source: AsyncIterable[T], quiet: Seconds, *, max_wait: Seconds = math.inf
    ) -> Stream[T]:
        """Emit an item when nothing has come after it for a while; drop those that it replaces.

        1. An item is emitted when ``quiet`` seconds have passed since it came and no other came.
        2. With ``max_wait``, the latest one is also emitted when ``max_wait`` seconds have passed
           without such a silence, counted from the first item after the last emission. So a
           source that never falls silent is not hidden.
        3. The last one is emitted when the source ends, or before its error is raised.
        4. An item after which another one came sooner is dropped: that is the purpose.

        Backpressure: three items are held at most. An item that has outlived its silence is never
        replaced, even if the loop was busy at that time: it waits for the reader. When the one
        after it has outlived its own, too, the source waits.

        Order of events and cancel safety: as `throttle`. A source that never suspends lets other
        tasks run now and then.

        Known elsewhere as: ``debounceTime`` (Rx), ``debounce`` (fs2, Effect), ``debounced``
        (tokio-stream's crates).

        Args:
            source: Read one item at a time.
            quiet: Seconds of silence, above 0; ``math.inf`` for the last item alone. On the running
                loop's clock.
            max_wait: The longest time, in seconds, that an emission waits for a silence, above 0;
                ``math.inf`` for as long as it takes.

        Returns:
            A stream of the items that were not replaced.

        Raises:
            InvalidArgument: At the call, if ``quiet`` or ``max_wait`` is out of range.
            TypeError: At the call, if ``source`` is not an async iterable.
            Exception: Any exception of the source, after the last item.

        >>> from returns_pipeline.testing import run, script, timeline
        >>> s = script("abc----d----e|")
        >>> done = debounce(s, 2.0)
        >>> run(timeline(done))
        [(4.0, 'c'), (9.0, 'd'), (13.0, 'e')]
        >>> s = script("abcdefg|")
        >>> done = debounce(s, 2.0, max_wait=3.0)
        >>> run(timeline(done))
        [(3.0, 'c'), (6.0, 'f'), (7.0, 'g')]
        """
        return self._stream(source, quiet, max_wait=max_wait)

    def pipe(
        self, quiet: Seconds, *, max_wait: Seconds = math.inf
    ) -> Callable[[AsyncIterable[T]], Stream[T]]:
        return self._piped(quiet, max_wait=max_wait)

    def raw(
        self, source: AsyncIterable[T], quiet: Seconds, *, max_wait: Seconds = math.inf
    ) -> AsyncIterator[T]:
        return Reader(DebouncePump(source, quiet, max_wait))


debounce: Final = _Debounce("returns_pipeline.combine.debounce")
"""Emit an item when nothing has come after it for a while; drop those that it replaces."""


class DebouncePump(Pump[T]):
    """The last item, which may still be replaced, and one that has outlived its silence.

    An item of the class ``passing`` ends the silence before it: the item before it is emitted at
    once, and then it is. Neither replaces the other.

    The last item has a deadline. It has outlived its silence when the timer fires, or when the next
    item comes and finds that the deadline has passed. If the reader has not taken the one before it
    by then, it is *due*: it stays where it is, and the source waits.
    """

    def __init__(
        self,
        source: AsyncIterable[T],
        quiet: Seconds,
        max_wait: Seconds = math.inf,
        passing: type[Any] | None = None,
    ) -> None:
        super().__init__()
        self._source = checks.source(source)
        self._quiet = checks.seconds("quiet", quiet)
        self._max_wait = checks.seconds("max_wait", max_wait)
        self._latest_at = math.inf  # when the last item is due, silence or not
        self._passing: type[Any] | tuple[()] = () if passing is None else passing
        self._last: list[T] = []  # at most one
        self._settled: list[T] = []  # at most one
        self._is_due = False
        self._timer = DeadlineTimer()  # of the last item
        self._not_full: asyncio.Future[None] | None = None

    def sources(self) -> tuple[AsyncIterable[T]]:
        return (self._source,)

    def bounds(self) -> str:
        return "holds 1 that may still be replaced, and 1 for the reader"

    def held(self) -> int:
        return len(self._last) + len(self._settled)

    def has_next(self) -> bool:
        """Return whether an item has outlived its silence, or is the last of all."""
        return bool(self._settled) or (self.ended and bool(self._last))

    def take(self) -> T:
        """Emit it."""
        if not self._settled:
            return self._last.pop()
        item = self._settled.pop()
        if self._is_due:
            self._settle()
        notify(self._not_full)
        return item

    def discard(self) -> None:
        """Drop both items, and the timer."""
        self._last.clear()
        self._settled.clear()
        self._is_due = False
        self._timer.cancel()

    async def pump(self) -> None:
        """Read the source, and keep the last item."""
        budget = Budget(self.loop)
        try:
            async with plain_iterator(self._source) as items:
                async for item in self.incoming(items):
                    passing = isinstance(item, self._passing)
                    if self._last and (passing or self._timer.deadline <= self.loop.time()):
                        self._end_silence()  # the last item must not be replaced, nor overtaken
                    if self._is_due or passing:
                        await self._wait_until_not_full(passing=passing)
                    if self.stopping:
                        break
                    now = self.loop.time()
                    if not self._last:
                        self._latest_at = now + self._max_wait
                    self._last[:] = [item]
                    if passing:
                        self._settle()
                    else:
                        deadline = now + self._quiet
                        if deadline > self._latest_at:
                            deadline = self._latest_at
                        self._timer.set(self.loop, deadline, self._on_deadline)
                    if budget.spend():
                        await budget.renew()
        finally:
            self._timer.cancel()

    async def _wait_until_not_full(self, *, passing: bool) -> None:
        self.still_reading()
        while (self._is_due or (passing and self._settled)) and not self.stopping:
            self._not_full = self.loop.create_future()
            await self._not_full

    def _on_deadline(self, _: float) -> None:
        if self._last and not self._is_due:
            self._end_silence()

    def _end_silence(self) -> None:
        if self._settled:
            self._is_due = True
        else:
            self._settle()

    def _settle(self) -> None:
        self._is_due = False
        self._settled.append(self._last.pop())
        self._timer.deadline = math.inf
        self.notify_reader()


class MarkedDebouncePump(CarriesMarks[InOrder], DebouncePump[Any]):
    """Emits a mark when the last item before it, or the one that replaced it, is emitted."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.marks = InOrder()

    def keep(self, mark: Mark) -> None:
        if mark.flushes and self._last and not self._is_due:
            self._end_silence()
        self.marks.put(mark, len(self._settled) + len(self._last))

    def take_item(self) -> Any:
        item = super().take_item()
        self.marks.passed()
        return item
