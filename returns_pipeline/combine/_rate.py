"""Operators that look at the clock: `throttle` spreads items out, `debounce` waits for silence."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, TypeVar

from returns_pipeline._engine.fan_in import FanIn
from returns_pipeline._engine.operator import check_at_least, operator, plain_iterator
from returns_pipeline._engine.reader import Pump, Reader, notify
from returns_pipeline.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator

__all__ = ["debounce", "debounced", "throttle", "throttled"]

T = TypeVar("T")

# How many items a source that never suspends may deliver before other tasks get a turn.
_STRIDE = 256


class _Nothing:
    """No item is of this class."""


class _Throttling(FanIn[T, T]):
    """One lane that holds one item, and the time from which it may be given out."""

    def __init__(
        self, source: AsyncIterable[T], interval: float, burst: int, passing: type[Any]
    ) -> None:
        super().__init__([source], 1)
        self._passing = passing
        self._interval = interval
        self._credit = (burst - 1) * interval
        # When the next item would be due if none had come early: the "theoretical arrival time".
        self._expected = -math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._reached = -math.inf  # the latest time at which the timer fired

    def has_next(self) -> bool:
        items = self.lanes[0].items
        if not items:
            return False
        if isinstance(items[0], self._passing):
            return True
        due = self._expected - self._credit
        # Some loops fire a timer a little early; its time has come all the same.
        if due <= self.loop.time() or due <= self._reached:
            return True
        if self._timer is None:
            self._timer = self.loop.call_at(due, self._on_timer, due)
        return False

    def take(self) -> T:
        lane = self.lanes[0]
        item = lane.items.pop()
        lane.mark = 1
        lane.emptied()
        if not isinstance(item, self._passing):
            self._expected = max(self._expected, self.loop.time()) + self._interval
        return item

    def _on_timer(self, when: float) -> None:
        self._reached = when
        self._timer = None
        self.notify_reader()

    def discard(self) -> None:
        super().discard()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


@operator
def throttle(source: AsyncIterable[T], interval: float, *, burst: int = 1) -> AsyncIterator[T]:
    """Let at most one item out per ``interval``; the source waits, nothing is dropped.

    An item is given out when it has come and

    1. less than ``burst`` items were given out shortly before: each second of an ``interval`` that
       passes without an item is saved up, for at most ``burst`` items;
    2. else as soon as ``interval`` seconds per item have passed.

    So in any ``t`` seconds at most ``burst + t / interval`` items come out. Time that the reader
    takes for an item counts. The end, or an error, of the source follows the last item at once.

    The rule is the "generic cell rate algorithm" of ITU-T I.371.

    Bounds: one item is held; then the source waits.

    Order of events: the source runs in one task from its first item to its clean-up. On Python
    3.12 and later that task shares the reader's context variables both ways; on 3.11 it works on
    a copy of them.

    Cancel safety: a read that is cancelled loses nothing, the next one goes on where it was.
    ``aclose()`` stops the source, awaits its clean-up and drops what is held. What a reader raises
    is not thrown into the source.

    Known elsewhere as: ``throttle`` (tokio-stream, Akka and Pekko, Effect), ``metered`` (fs2),
    ``spaceout`` (aiostream). Those of Rx drop items: see `debounce`.

    Args:
        source: Read one item at a time.
        interval: Seconds per item, above 0. On the running loop's clock.
        burst: How many may come out at once after a pause, at least 1.

    Returns:
        A stream of the same items.

    Raises:
        InvalidArgument: At the call, if ``interval`` or ``burst`` is out of range.
        TypeError: At the call, if ``source`` is not an async iterable.
        Exception: What the source raised, after the items before it.

    >>> from returns_pipeline.testing import run, script, timeline
    >>> run(timeline(throttle(script("(abc)-----(de)|"), 2.0)))
    [(0.0, 'a'), (2.0, 'b'), (4.0, 'c'), (6.0, 'd'), (8.0, 'e')]
    >>> run(timeline(throttle(script("(abcd)|"), 2.0, burst=2)))
    [(0.0, 'a'), (0.0, 'b'), (2.0, 'c'), (4.0, 'd')]
    """
    return throttled(source, interval, burst, passing=_Nothing)


def throttled(
    source: AsyncIterable[T], interval: float, burst: int, *, passing: type[Any]
) -> AsyncIterator[T]:
    """Do as `throttle`; items of the class ``passing`` neither wait for themselves nor count."""
    if not 0 < interval < math.inf:
        raise InvalidArgument(f"interval must be above 0 seconds and finite, not {interval!r}")
    check_at_least("burst", burst, 1)
    return Reader(_Throttling(source, interval, burst, passing))


class _Debouncing(Pump[T]):
    """The last item, which may still be replaced, and one that has outlived its silence."""

    def __init__(self, source: AsyncIterable[T], quiet: float, passing: type[Any]) -> None:
        super().__init__()
        self._passing = passing
        self._source = source
        self._quiet = quiet
        self._last: list[T] = []  # at most one
        self._settled: list[T] = []  # at most one
        self._due = False  # the last one would be settled, had the reader taken the one before
        self._deadline = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._room: asyncio.Future[None] | None = None

    def has_next(self) -> bool:
        return bool(self._settled) or (self.ended and bool(self._last))

    def take(self) -> T:
        if not self._settled:
            return self._last.pop()
        item = self._settled.pop()
        if self._due:
            self._settle()
        notify(self._room)
        return item

    def _settle(self) -> None:
        self._due = False
        self._settled.append(self._last.pop())
        self.notify_reader()

    def discard(self) -> None:
        self._last.clear()
        self._settled.clear()
        self._due = False
        self._disarm()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def pump(self) -> None:
        count = 0
        try:
            async with plain_iterator(self._source) as items:
                async for item in items:
                    passing = isinstance(item, self._passing)
                    if passing and self._last and not self.closed:
                        self._on_silence()  # nothing before it may come after it
                    await self._wait_for_room(passing=passing)
                    if self.closed:
                        break
                    if passing:
                        self._last[:] = [item]
                        self._settle()
                    else:
                        self._replace(item)
                    count += 1
                    if count % _STRIDE == 0:
                        await asyncio.sleep(0)
        finally:
            self._disarm()

    async def _wait_for_room(self, *, passing: bool) -> None:
        while (self._due or (passing and self._settled)) and not self.closed:
            self._room = self.loop.create_future()
            await self._room

    def _replace(self, item: T) -> None:
        self._last[:] = [item]
        self._deadline = self.loop.time() + self._quiet
        if self._timer is None and self._deadline != math.inf:
            self._timer = self.loop.call_at(self._deadline, self._on_timer, self._deadline)

    def _on_timer(self, when: float) -> None:
        # One handle serves item after item: it is moved on when it fires for one that was replaced.
        self._timer = None
        if not self._last:
            return
        if when < self._deadline:
            self._timer = self.loop.call_at(self._deadline, self._on_timer, self._deadline)
        else:
            self._on_silence()

    def _on_silence(self) -> None:
        if self._settled:
            self._due = True
        else:
            self._settle()


@operator
def debounce(source: AsyncIterable[T], quiet: float) -> AsyncIterator[T]:
    """Give an item out when nothing has come after it for a while; drop those that it replaces.

    1. An item is given out when ``quiet`` seconds have passed since it came and no other came.
    2. The last one is given out when the source ends, or before its error is raised.
    3. An item after which another one came sooner is dropped: that is the purpose.

    Bounds: three items are held at most. An item that has outlived its silence is never replaced:
    it waits for the reader. When the one after it has, too, the source waits.

    Order of events and cancel safety: as `throttle`. A source that never suspends lets other tasks
    have a turn now and then.

    Known elsewhere as: ``debounceTime`` (Rx), ``debounce`` (fs2, Effect), ``debounced``
    (tokio-stream's crates).

    Args:
        source: Read one item at a time.
        quiet: Seconds of silence, above 0; ``math.inf`` for the last item alone. On the running
            loop's clock.

    Returns:
        A stream of the items that were not replaced.

    Raises:
        InvalidArgument: At the call, if ``quiet`` is out of range.
        TypeError: At the call, if ``source`` is not an async iterable.
        Exception: What the source raised, after the last item.

    >>> from returns_pipeline.testing import run, script, timeline
    >>> run(timeline(debounce(script("abc----d----e|"), 2.0)))
    [(4.0, 'c'), (9.0, 'd'), (13.0, 'e')]
    """
    return debounced(source, quiet, passing=_Nothing)


def debounced(source: AsyncIterable[T], quiet: float, *, passing: type[Any]) -> AsyncIterator[T]:
    """Do as `debounce`; an item of the class ``passing`` ends the silence before it, and comes out.

    The item before it is then given out at once: it is not replaced by it.
    """
    if not quiet > 0:
        raise InvalidArgument(f"quiet must be above 0 seconds, not {quiet!r}")
    return Reader(_Debouncing(source, quiet, passing))
