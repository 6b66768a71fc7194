"""`chunks_by_weight`: lists closed by what their items weigh together."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any, Final, TypeVar

from aiostream import Stream

from returns_pipeline._engine import checks, ends
from returns_pipeline._engine.checks import Seconds
from returns_pipeline._engine.operator import Operator
from returns_pipeline._engine.reader import Reader
from returns_pipeline.windows._flushing import FlushOn
from returns_pipeline.windows._single import MarkedSingle, OpenList, SingleWindowPump

__all__ = ["MarkedWeightPump", "WeightPump", "chunks_by_weight"]

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
        flush_on: FlushOn | None = None,
        emit_empty: bool = False,
    ) -> Stream[list[T]]:
        """Group items into lists that together weigh no more than a limit.

        A list is emitted when

        1. the next item would bring it above ``max_weight``; that item begins the next list,
        2. it holds one item that is heavier than ``max_weight`` by itself: such an item is alone,
        3. it holds ``n`` items, if ``n`` is given,
        4. ``timeout`` seconds have passed since its first item,
        5. ``flush_on`` is given, and is set or emits an item, or
        6. the source has ended (or failed) and the list is not empty.

        A list that weighs exactly ``max_weight`` is still open: an item of weight 0 fits into it.
        Every item is emitted exactly once, in order; no list is empty, except for the silences that
        ``emit_empty`` shows, as of `chunks_or_timeout`. The time counts from the list's first item.
        A reader that is late gets everything that has gathered until then, at once, up to the
        limits.

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
            flush_on: An event or a stream, as of `chunks_or_timeout`.
            emit_empty: Whether an empty list is emitted where there was no item, as of
                `chunks_or_timeout`.

        Returns:
            A stream of lists.

        Raises:
            InvalidArgument: At the call, if ``max_weight``, ``timeout`` or ``n`` is out of range,
                or ``emit_empty`` is chosen with no finite ``timeout`` and no ``flush_on``. While
                reading, after the open list, if a weight is negative or not a number.
            TypeError: At the call, if ``source`` or ``flush_on`` is not an async iterable.
            Exception: Any exception of the source, ``weight`` or ``flush_on``, after the last list.

        >>> from returns_pipeline.testing import run, timed, timeline
        >>> s = timed("one", "two", "three", "a much longer line")
        >>> done = chunks_by_weight(s, 10, 5.0, weight=len)
        >>> run(timeline(done))
        [(0.0, ['one', 'two']), (0.0, ['three']), (0.0, ['a much longer line'])]
        """
        return self._stream(
            source,
            max_weight,
            timeout,
            weight=weight,
            n=n,
            flush_on=flush_on,
            emit_empty=emit_empty,
        )

    def pipe(
        self,
        max_weight: float,
        timeout: Seconds,
        *,
        weight: Callable[[T], float],
        n: int | None = None,
        flush_on: FlushOn | None = None,
        emit_empty: bool = False,
    ) -> Callable[[AsyncIterable[T]], Stream[list[T]]]:
        return self._piped(
            max_weight, timeout, weight=weight, n=n, flush_on=flush_on, emit_empty=emit_empty
        )

    def raw(
        self,
        source: AsyncIterable[T],
        max_weight: float,
        timeout: Seconds,
        *,
        weight: Callable[[T], float],
        n: int | None = None,
        flush_on: FlushOn | None = None,
        emit_empty: bool = False,
    ) -> AsyncIterator[list[T]]:
        return Reader(WeightPump(source, max_weight, timeout, weight, n, flush_on, emit_empty))


chunks_by_weight: Final = _ChunksByWeight("returns_pipeline.windows.chunks_by_weight")
"""Group items into lists that together weigh no more than a limit."""


class WeightPump(SingleWindowPump):
    """A single window that is closed by its weight."""

    __slots__ = ("_max_weight", "_weight")

    fill = ends.window(
        "chunks_by_weight",
        "weigh, limit, n = self._weight, self._max_weight, self._n",
        """\
OPEN
weight = weigh(value)
if not weight >= 0:
    raise self._out_of_range(weight)
window = self._open
if window is not None and window.weight + weight > limit:
    waiting = self._begin_next(value, weight)
    WAIT
else:
    if window is None:  # an empty one, which is due, takes the item
        window = self.begin()
    window.append(value)
    window.weight += weight
    if len(window) >= n or window.weight > limit:
        waiting = self.emit_open("weight")
        WAIT
NEXT
""",
        takes_slices=True,
    )

    operator = "chunks_by_weight"

    def __init__(
        self,
        source: AsyncIterable[Any],
        max_weight: float,
        timeout: Seconds,
        weight: Callable[[Any], float],
        n: int | None,
        flush_on: FlushOn | None = None,
        emit_empty: bool = False,
    ) -> None:
        super().__init__(source, timeout, n, flush_on, emit_empty)
        self._max_weight = checks.exact("max_weight", max_weight)
        checks.item_function("weight", weight)
        self._weight = weight

    def bounds(self) -> str:
        return super().bounds() or f"holds up to the weight of {self._max_weight}"

    def weight_of(self, taken: OpenList) -> float | None:
        return taken.weight

    @staticmethod
    def _out_of_range(weight: float) -> Exception:
        return checks.out_of_range("a weight", weight, "at least 0")

    async def _begin_next(self, item: Any, weight: float) -> None:
        """Put an item that is too heavy for the open list into the next one."""
        await self.emit_open("weight")
        window = self.begin()
        window.append(item)
        window.weight = weight
        if self._n == 1 or weight > self._max_weight:
            await self.emit_open("weight")


class MarkedWeightPump(MarkedSingle, WeightPump):
    """A `WeightPump` that carries marks."""
