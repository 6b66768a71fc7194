"""`chunks_by_weight`: lists closed by what their items weigh together."""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any, Final, TypeVar

from aiostream import Stream

from returns_pipeline._engine import checks
from returns_pipeline._engine.checks import Seconds
from returns_pipeline._engine.operator import Operator
from returns_pipeline._engine.reader import Reader
from returns_pipeline.errors import InvalidArgument
from returns_pipeline.windows._deadlines import DeadlinePump

__all__ = ["WeightPump", "chunks_by_weight"]

T = TypeVar("T")


class _ChunksByWeight(Operator):
    def __call__(
        self,
        source: AsyncIterable[T],
        max_weight: float,
        timeout: Seconds,
        *,
        weight: Callable[[T], float],
        n: int | None = None,
    ) -> Stream[list[T]]:
        """Group items into lists that together weigh no more than a limit.

        A list is emitted when

        1. the next item would bring it above ``max_weight``; that item begins the next list,
        2. it holds one item that is heavier than ``max_weight`` by itself: such an item is alone,
        3. it holds ``n`` items, if ``n`` is given,
        4. ``timeout`` seconds have passed since its first item, or
        5. the source has ended (or failed) and the list is not empty.

        A list that weighs exactly ``max_weight`` is still open: an item of weight 0 fits into it.
        Every item is emitted exactly once, in order; no list is empty. The time counts from the
        list's first item. A reader that comes late gets everything that has gathered until then, at
        once, up to the limits.

        Backpressure: the items of one list, and one item that does not fit into it, are held ahead
        of the reader; then the source waits. Items of weight 0 are bounded by ``n`` alone.

        Order of events: ``weight`` is called once for each item, in the order of the source, in the
        task that runs the source. If it raises, the open list is emitted and then that exception
        is raised; the source is closed.

        Cancel safety: a cancelled read loses nothing; the next read continues where it was.
        ``aclose()`` stops the source, awaits its clean-up and drops the items held. An exception of
        the reader is not thrown into the source.

        Known elsewhere as ``groupedWeightedWithin`` (Akka and Pekko Streams).

        Args:
            source: Read one item at a time, once the first list is requested.
            max_weight: The most that the items of a list weigh together, above 0.
            timeout: Seconds from a list's first item until it is emitted, above 0; ``math.inf`` for
                no limit. On the running loop's clock.
            weight: How much an item weighs, at least 0, in any unit.
            n: Items in a full list, at least 1; `None` for no limit.

        Returns:
            A stream of lists.

        Raises:
            InvalidArgument: At the call, if ``max_weight``, ``timeout`` or ``n`` is out of range.
                While reading, after the open list, if a weight is negative or not a number.
            TypeError: At the call, if ``source`` is not an async iterable.
            Exception: Any exception of the source or of ``weight``, after the last list.

        >>> from returns_pipeline.testing import run, timed
        >>> lines = timed("one", "two", "three", "a much longer line", "four")
        >>> async def main() -> list[list[str]]:
        ...     async with chunks_by_weight(lines, 10, 5.0, weight=len).stream() as chunks:
        ...         return [chunk async for chunk in chunks]
        >>> run(main())
        [['one', 'two'], ['three'], ['a much longer line'], ['four']]
        """
        return self._stream(source, max_weight, timeout, weight=weight, n=n)

    def pipe(
        self,
        max_weight: float,
        timeout: Seconds,
        *,
        weight: Callable[[T], float],
        n: int | None = None,
    ) -> Callable[[AsyncIterable[T]], Stream[list[T]]]:
        return self._piped(max_weight, timeout, weight=weight, n=n)

    def raw(
        self,
        source: AsyncIterable[T],
        max_weight: float,
        timeout: Seconds,
        *,
        weight: Callable[[T], float],
        n: int | None = None,
    ) -> AsyncIterator[list[T]]:
        return Reader(WeightPump(source, max_weight, timeout, weight, n))


chunks_by_weight: Final = _ChunksByWeight("returns_pipeline.windows.chunks_by_weight")
"""Group items into lists that together weigh no more than a limit."""


class _Weighed(list[Any]):
    """An open list, and the weight of its items."""

    __slots__ = ("deadline", "weight")

    def __init__(self, deadline: float) -> None:
        super().__init__()
        self.deadline = deadline
        self.weight: float = 0  # an int, so that a Decimal or Fraction can be added to it


class WeightPump(DeadlinePump):
    """The open list, if any. An item of the class ``passing`` flushes it and is emitted after it.

    A list that is due by its age stays open, and in ``due``, until the reader takes it.
    """

    __slots__ = ("_max_weight", "_n", "_open", "_passing", "_timeout", "_weight")

    def __init__(
        self,
        source: AsyncIterable[Any],
        max_weight: float,
        timeout: Seconds,
        weight: Callable[[Any], float],
        n: int | None,
        passing: type | None = None,
    ) -> None:
        super().__init__(source)
        # Not by `checks`: it stays as it is. A Decimal of 0.3 is not the float of 0.3, and an int
        # may be larger than any float.
        if isinstance(max_weight, bool | str) or not max_weight > 0:
            raise InvalidArgument(f"max_weight must be above 0, not {max_weight!r}")
        self._max_weight = max_weight
        self._timeout = checks.seconds("timeout", timeout)
        self._weight = weight
        self._n = math.inf if n is None else checks.count("n", n)
        self._passing = passing
        self._open: _Weighed | None = None

    def take(self) -> Any:
        taken = self.due.popleft()
        if taken is self._open:
            self._open = None
        self.resume()
        return taken[:] if taken.__class__ is _Weighed else taken  # an item that passes

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

    def _begin(self) -> _Weighed:
        window = _Weighed(self.now() + self._timeout)
        self._open = window
        self.arm()
        return window

    async def fill(self, source: AsyncIterator[Any]) -> None:
        # One flat loop: a call per item would double its cost.
        weigh = self._weight
        max_weight = self._max_weight
        n = self._n
        passing = self._passing
        left = 1
        async for item in source:
            if self.closed:
                break
            if item.__class__ is passing:
                await self.emit_after_flush(item)
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
                left = await self.check_clock(self.now())
