"""Windows closed by what they hold: by weight, and sliding by count."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, Generic, Never, TypeVar, cast

from returns_pipeline._engine.operator import operator, plain_iterator
from returns_pipeline._engine.reader import Pump, Reader, notify
from returns_pipeline.errors import InvalidArgument
from returns_pipeline.windows._deadlines import (
    MAX_SLICE,
    MAX_STRIDE,
    DuePump,
    check_count,
    check_seconds,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable

__all__ = [
    "check_sliding",
    "check_weighted",
    "chunks_by_weight",
    "flushing_chunks_by_weight",
    "flushing_sliding",
    "sliding",
]

T = TypeVar("T")
F = TypeVar("F")


@operator
def chunks_by_weight(
    source: AsyncIterable[T],
    max_weight: float,
    timeout: float,
    *,
    weight: Callable[[T], float],
    n: int | None = None,
) -> AsyncIterator[list[T]]:
    """Group items into lists that together weigh no more than a limit.

    A list is given out when

    1. the next item would bring it above ``max_weight``; that item begins the next list,
    2. it holds one item that is heavier than ``max_weight`` by itself: such an item is alone,
    3. it holds ``n`` items, if ``n`` is given,
    4. ``timeout`` seconds have passed since its first item, or
    5. the source has ended (or failed) and it is not empty.

    A list that weighs exactly ``max_weight`` is not over yet: an item of weight 0 still fits.
    Every item comes out exactly once, in order; no list is empty. The time counts from the list's
    first item. A reader that comes late gets at once what has gathered until then, up to the
    limits.

    Bounds: what fits into one list, and one item that does not fit, are held ahead of the reader;
    then the source waits. Items of weight 0 are bounded by ``n`` alone.

    Order of events: ``weight`` is called once for each item, in the order of the source, in the
    task that runs the source. If it raises, the open list comes out and then that exception; the
    source is closed.

    Cancel safety: a read that is cancelled loses nothing, the next one goes on where it was.
    ``aclose()`` stops the source, awaits its clean-up and drops what is held. What a reader
    raises is not thrown into the source.

    Known elsewhere as ``groupedWeightedWithin`` (Akka and Pekko Streams).

    Args:
        source: Read one item at a time, from the first list asked for.
        max_weight: The most that the items of a list weigh together, above 0.
        timeout: Seconds from a list's first item to its giving out, above 0; ``math.inf`` for no
            limit. On the running loop's clock.
        weight: How much an item weighs, at least 0, in any unit.
        n: Items in a full list, at least 1; `None` for no limit.

    Returns:
        A stream of lists.

    Raises:
        InvalidArgument: At the call, if ``max_weight``, ``timeout`` or ``n`` is out of range.
            While reading, after the open list, if a weight is negative or not a number.
        TypeError: At the call, if ``source`` is not an async iterable.
        Exception: What the source or ``weight`` raised, after the last list.

    >>> from returns_pipeline.testing import run, timed
    >>> lines = timed("one", "two", "three", "a much longer line", "four")
    >>> async def main() -> list[list[str]]:
    ...     async with chunks_by_weight(lines, 10, 5.0, weight=len).stream() as chunks:
    ...         return [chunk async for chunk in chunks]
    >>> run(main())
    [['one', 'two'], ['three'], ['a much longer line'], ['four']]
    """
    check_weighted(max_weight, timeout, n)
    pump: _WeightPump[T, Never] = _WeightPump(source, max_weight, timeout, weight, n, None)
    return Reader(pump)


def flushing_chunks_by_weight(
    source: AsyncIterable[T | F],
    max_weight: float,
    timeout: float,
    *,
    weight: Callable[[T], float],
    n: int | None,
    flushed_by: type[F],
) -> AsyncIterator[list[T] | F]:
    """Do as `chunks_by_weight`; an item of class ``flushed_by`` flushes, and comes out as it is."""
    check_weighted(max_weight, timeout, n)
    pump: _WeightPump[T, F] = _WeightPump(source, max_weight, timeout, weight, n, flushed_by)
    return Reader(pump)


def check_weighted(max_weight: float, timeout: float, n: int | None) -> None:
    """Refuse a window that could never hold anything, or never be given out."""
    if not max_weight > 0:
        raise InvalidArgument(f"max_weight must be above 0, not {max_weight!r}")
    check_seconds("timeout", timeout)
    if n is not None:
        check_count("n", n)


class _Weighed(list[T]):
    """An open list, and what it weighs."""

    __slots__ = ("deadline", "weight")

    def __init__(self, deadline: float) -> None:
        super().__init__()
        self.deadline = deadline
        self.weight: float = 0  # whole, so that a Decimal or Fraction can be added to it


class _WeightPump(DuePump["list[T] | F"], Generic[T, F]):
    __slots__ = ("_alone", "_max_weight", "_n", "_open", "_timeout", "_weight")

    def __init__(
        self,
        source: AsyncIterable[Any],
        max_weight: float,
        timeout: float,
        weight: Callable[[T], float],
        n: int | None,
        alone: type[F] | None,
    ) -> None:
        super().__init__(source)
        self._max_weight = max_weight
        self._timeout = timeout
        self._weight = weight
        self._n = math.inf if n is None else n
        self._alone = alone
        self._open: _Weighed[T] | None = None  # it stays while it is due and has room

    def take(self) -> list[T] | F:
        taken: Any = self.due.popleft()
        if taken is self._open:
            self._open = None
        self.make_room()
        if taken.__class__ is not _Weighed:
            return cast("F", taken)  # nothing else stands in the queue
        window: _Weighed[T] = taken
        return window[:]

    def next_deadline(self) -> float:
        return math.inf if self._open is None or self.due else self._open.deadline

    def expire(self, now: float) -> None:
        if self._open is not None and not self.due and self._open.deadline <= now:
            self.due.append(self._open)

    def flush(self) -> None:
        if self._open is not None and not self.due:
            self.due.append(self._open)
        self._open = None

    def discard(self) -> None:
        super().discard()
        self._open = None

    def _begin(self) -> _Weighed[T]:
        window: _Weighed[T] = _Weighed(self.now() + self._timeout)
        self._open = window
        self.arm()
        return window

    async def fill(self, source: AsyncIterator[Any]) -> None:
        # One flat loop: a call per item would double its cost.
        weigh = self._weight
        max_weight = self._max_weight
        n = self._n
        alone = self._alone
        left = 1
        async for item in source:
            if self.closed:
                break
            if item.__class__ is alone:
                await self.give_alone(item)
                continue
            weight = weigh(item)
            if not weight >= 0:
                raise InvalidArgument(f"a weight must be at least 0, not {weight!r}")
            window = self._open
            if window is not None and window.weight + weight > max_weight:
                self.flush()
                await self.wait_until_taken()
                window = None
            if window is None:
                window = self._begin()
            window.append(item)
            window.weight += weight
            if len(window) >= n or window.weight > max_weight:
                self.flush()
                await self.wait_until_taken()
            left -= 1
            if not left:
                left = await self.look_up(self.now())


@operator
def sliding(source: AsyncIterable[T], n: int, *, step: int = 1) -> AsyncIterator[list[T]]:
    """Give every run of ``n`` neighbouring items, each run ``step`` items after the one before.

    A list is given out when

    1. it holds ``n`` items, or
    2. the source has ended (or failed) and there are items that were in no list yet: these, and
       those that would have stood with them, are a last, shorter list.

    So a source of fewer than ``n`` items gives one list of all of them. With a ``step`` above
    ``n``, the items between two lists are left out: that is what such a step says. In all other
    cases every item is in at least one list; lists, and the items in them, keep the source's
    order; no list is empty.

    ========  =========================  ===============================
    n, step   from 1 2 3 4 5             from 1 2 3 4 5 6
    ========  =========================  ===============================
    3, 1      123, 234, 345              123, 234, 345, 456
    3, 2      123, 345                   123, 345, 56
    2, 3      12, 45                     12, 45
    ========  =========================  ===============================

    Bounds: at most ``n`` items that were in no list yet are held ahead of the reader; then the
    source waits.

    Cancel safety: a read that is cancelled loses nothing, the next one goes on where it was.
    ``aclose()`` stops the source, awaits its clean-up and drops what is held. What a reader
    raises is not thrown into the source.

    Known elsewhere as ``sliding`` (fs2, Akka and Pekko Streams, Scala), ``bufferCount`` with a
    start (Rx), ``Stream.sliding`` (Effect). The last, shorter list is Scala's rule.

    Args:
        source: Read one item at a time, from the first list asked for.
        n: Items in a list, at least 1.
        step: Items from the start of a list to the start of the next, at least 1; ``n`` for lists
            that do not overlap.

    Returns:
        A stream of lists.

    Raises:
        InvalidArgument: At the call, if ``n`` or ``step`` is out of range.
        TypeError: At the call, if ``source`` is not an async iterable.
        Exception: What the source raised, after the last list.

    >>> from returns_pipeline.testing import run, timed
    >>> async def main() -> list[list[str]]:
    ...     async with sliding(timed(*"abcd"), 3).stream() as runs:
    ...         return [items async for items in runs]
    >>> run(main())
    [['a', 'b', 'c'], ['b', 'c', 'd']]
    """
    check_sliding(n, step)
    pump: _SlidingPump[T, Never] = _SlidingPump(source, n, step, None)
    return Reader(pump)


def flushing_sliding(
    source: AsyncIterable[T | F], n: int, step: int, *, flushed_by: type[F]
) -> AsyncIterator[list[T] | F]:
    """Do as `sliding`; an item of class ``flushed_by`` comes out as it is, and begins it anew."""
    check_sliding(n, step)
    pump: _SlidingPump[T, F] = _SlidingPump(source, n, step, flushed_by)
    return Reader(pump)


def check_sliding(n: int, step: int) -> None:
    """Refuse a window without items, or one that would stand still."""
    check_count("n", n)
    check_count("step", step)


class _SlidingPump(Pump["list[T] | F"], Generic[T, F]):
    """The items of the next list and of those after it. The reader cuts them off."""

    __slots__ = (
        "_alone",
        "_items",
        "_n",
        "_passing",
        "_room",
        "_shown",
        "_skip",
        "_source",
        "_step",
    )

    def __init__(
        self, source: AsyncIterable[Any], n: int, step: int, alone: type[F] | None
    ) -> None:
        super().__init__()
        self._source = source
        self._n = n
        self._step = step
        self._alone = alone
        self._items: list[T] = []
        self._shown = 0  # how many of them were in a list already
        self._skip = 0  # how many of the next items are in no list
        self._passing: list[F] = []  # at most one, behind the items
        self._room: asyncio.Future[None] | None = None

    def has_next(self) -> bool:
        if len(self._items) >= self._n:
            return True
        return bool(self._passing) or (self.ended and len(self._items) > self._shown)

    def take(self) -> list[T] | F:
        items = self._items
        if len(items) >= self._n:
            taken = items[: self._n]
            self._skip = max(0, self._step - len(items))
            del items[: self._step]
            self._shown = max(0, self._n - self._step)
        elif len(items) > self._shown:  # the end, or an item that passes
            taken = items.copy()
            self._shown = len(items)
            if self.ended:
                items.clear()
        else:
            items.clear()
            self._shown = self._skip = 0
            notify(self._room)
            return self._passing.pop()
        notify(self._room)
        return taken

    def discard(self) -> None:
        self._items.clear()
        self._passing.clear()

    async def pump(self) -> None:
        try:
            async with plain_iterator(self._source) as source:
                await self._fill(source)
        finally:
            if len(self._items) <= self._shown:
                self._items.clear()

    async def _fill(self, source: AsyncIterator[Any]) -> None:
        items = self._items
        n = self._n
        left = MAX_STRIDE
        let = self.loop.time()  # when other tasks were last let run
        async for item in source:
            if self.closed:
                break
            if item.__class__ is self._alone:
                self._passing.append(item)
                await self._wait(lambda: bool(self._passing))
            elif self._skip:
                self._skip -= 1
            else:
                items.append(item)
                if len(items) >= n:
                    await self._wait(lambda: len(items) >= self._shown + n)
            left -= 1
            if not left:  # does it ever suspend?
                left = MAX_STRIDE
                if self.loop.time() - let > MAX_SLICE:
                    await asyncio.sleep(0)
                    let = self.loop.time()

    async def _wait(self, full: Callable[[], bool]) -> None:
        self.notify_reader()
        while full():
            self._room = self.loop.create_future()
            try:
                await self._room
            finally:
                self._room = None
