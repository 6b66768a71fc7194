"""Windows of event time: the time that stands in the items, not the time at which they come.

The rules are those of the dataflow model (Akidau et al., "The Dataflow Model", VLDB 2015) as
Apache Flink and Apache Beam document them: windows are half-open, a watermark says how far event
time has come, a window fires when the watermark reaches its end, and again for items that come late
but within the allowed lateness. Where the two differ, the docstring of `event_windows` says which
one is followed.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush, merge
from itertools import count
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, Final, Generic, Never, TypeAlias

from typing_extensions import TypeVar

from returns_pipeline._engine.operator import operator
from returns_pipeline._engine.reader import Reader
from returns_pipeline.errors import InvalidArgument
from returns_pipeline.windows._deadlines import DuePump, check_seconds

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator

__all__ = [
    "Assigner",
    "EventWindow",
    "Late",
    "SessionWindows",
    "SlidingWindows",
    "TumblingWindows",
    "check_event_windows",
    "event_windows",
    "passing_event_windows",
]

F = TypeVar("F")
K = TypeVar("K", default=None)
K_co = TypeVar("K_co", covariant=True)
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class EventWindow(Generic[K_co, T_co]):
    """What a window of event time held when it fired.

    Attributes:
        key: The key of its items; `None` if there are no keys.
        start: Its first moment, in seconds of event time.
        end: The moment right after its last, in seconds of event time.
        items: All its items so far, in the order in which they came.
        pane: How many times it has fired before. A later pane holds the items of the earlier
            ones, too, and takes their place.
        is_late: Whether it fired for an item that came after the watermark had passed its end.
    """

    key: K_co
    start: float
    end: float
    items: list[T_co]
    pane: int = 0
    is_late: bool = False


@dataclass(frozen=True, slots=True)
class TumblingWindows:
    """Windows of one size, end to end: each item is in exactly one.

    Attributes:
        size: Seconds of event time in a window, above 0.
        offset: Seconds by which all windows are moved: one starts at this moment.

    Raises:
        InvalidArgument: At the call, if ``size`` or ``offset`` is out of range.
    """

    size: float
    offset: float = 0.0

    def __post_init__(self) -> None:
        _check_span("size", self.size)
        if not math.isfinite(self.offset):
            raise InvalidArgument(f"offset must be finite, not {self.offset!r}")


@dataclass(frozen=True, slots=True)
class SlidingWindows:
    """Windows of one size, of which one starts every so often: each item is in several.

    Attributes:
        size: Seconds of event time in a window, above 0.
        every: Seconds from the start of a window to that of the next, above 0 and at most
            ``size``: between windows further apart, items would be lost.

    Raises:
        InvalidArgument: At the call, if ``size`` or ``every`` is out of range.
    """

    size: float
    every: float

    def __post_init__(self) -> None:
        _check_span("size", self.size)
        _check_span("every", self.every)
        if self.every > self.size:
            raise InvalidArgument(
                f"every must be at most the size, {self.size!r} seconds, not {self.every!r}"
            )


@dataclass(frozen=True, slots=True)
class SessionWindows:
    """Windows that grow while items come: an item less than a gap away from one joins it.

    An item whose timestamp is exactly ``gap`` after the last one begins the next session.

    Attributes:
        gap: Seconds of event time without an item that end a session, above 0.

    Raises:
        InvalidArgument: At the call, if ``gap`` is out of range.
    """

    gap: float

    def __post_init__(self) -> None:
        _check_span("gap", self.gap)


Assigner: TypeAlias = TumblingWindows | SlidingWindows | SessionWindows
"""What says which windows an item belongs to."""

Late: TypeAlias = Callable[[T], object] | asyncio.Queue[T]
"""Where items go that come too late: a function, plain or asynchronous, or a queue."""


def _check_span(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise InvalidArgument(f"{name} must be above 0 seconds and finite, not {value!r}")


@operator
def event_windows(
    source: AsyncIterable[T],
    assigner: Assigner,
    *,
    timestamp: Callable[[T], float],
    key: Callable[[T], K] | None = None,
    allowed_lateness: float = 0.0,
    max_out_of_orderness: float = 0.0,
    late: Late[T] | None = None,
    idle_after: float | None = None,
) -> AsyncIterator[EventWindow[K, T]]:
    """Group items by the time that stands in them, whatever the order they come in.

    The *watermark* is the greatest timestamp seen so far, less ``max_out_of_orderness``: no item
    before it is expected any more. It never goes back, and it is one for all keys. A window is
    given out ("fires") when

    1. the watermark reaches its end: that is its first pane;
    2. an item comes for it although the watermark has passed its end, but not yet by
       ``allowed_lateness``: again, at once, one pane more, ``is_late``;
    3. the source has ended (or failed): then every window that holds items which were in no pane.

    Windows that fire at one moment come in the order of their ends, then of their opening.
    A pane holds all items of its window so far (panes accumulate, they do not take back). A window
    is forgotten when the watermark has passed its end by ``allowed_lateness``.

    An item is *too late* if all its windows are forgotten. It is never dropped in silence: it goes
    to ``late``; without one it comes out at once, alone, in its window with ``is_late`` and pane 0,
    as if nothing had been there before. (Each of several forgotten windows is given out so, then
    also when the item is in time for others.)

    Sessions (assigner `SessionWindows`) merge: an item makes a window from its timestamp to ``gap``
    after it, and windows of one key that overlap become one, also with a late item, and also one
    that has fired and is not yet forgotten. If a session grows past the watermark by that, it fires
    when the watermark reaches its new end, one pane more and not ``is_late``, else at once. Two
    windows that only touch do not merge, as in Beam (in Flink they do).

    A quiet source holds its watermark back, and with it every open window. With ``idle_after``,
    the watermark goes on with the running loop's clock when that many seconds have passed without
    an item: an open window fires as soon as the seconds since the last item, added to the watermark
    then, reach its end. The watermark goes to the ends of open windows only. Time for which the
    source was kept waiting does not count.

    Bounds: what is held is the items of windows the watermark has not passed, by
    ``allowed_lateness``. The source waits while a window that has fired is not taken.

    Order of events: ``timestamp``, ``key`` and ``late`` are called in the order of the source, in
    the task that runs the source. If one raises, all open windows come out and then that
    exception; the source is closed.

    Cancel safety: a read that is cancelled loses nothing, the next one goes on where it was.
    ``aclose()`` stops the source, awaits its clean-up and drops what is held. What a reader
    raises is not thrown into the source.

    Known elsewhere as ``window(TumblingEventTimeWindows)`` with ``allowedLateness`` and
    ``sideOutputLateData`` (Flink), ``Window.into(FixedWindows)`` with accumulating panes (Beam),
    ``windowedBy`` (Kafka Streams), ``collect_window`` (bytewax).

    Args:
        source: Read one item at a time, from the first window asked for.
        assigner: `TumblingWindows`, `SlidingWindows` or `SessionWindows`.
        timestamp: When an item happened, in seconds, from any origin. Of a ``datetime`` give its
            ``timestamp()``.
        key: What an item belongs to, hashable; windows of different keys are apart.
        allowed_lateness: Seconds of event time for which a window that has fired is kept, at
            least 0.
        max_out_of_orderness: Seconds of event time by which an item may lag behind one that came
            before it, at least 0.
        late: Takes items that are too late: a function of the item, awaited if it gives an
            awaitable, or an ``asyncio.Queue``. The source waits for it, also for room in a queue.
        idle_after: Seconds on the running loop's clock after which a source without items is
            taken for quiet, above 0; `None` for never.

    Returns:
        A stream of windows. Its ``key`` is `None` without ``key``.

    Raises:
        InvalidArgument: At the call, if a number is out of range. While reading, after the open
            windows, if a timestamp is not finite.
        TypeError: At the call, if ``source`` is not an async iterable, or ``assigner`` or ``late``
            is of another kind.
        Exception: What the source or one of the functions raised, after the last window.

    >>> from returns_pipeline.testing import run, timed
    >>> async def main() -> None:
    ...     taps = timed(1.0, 4.0, 2.0, 11.0, 3.0, 30.0)
    ...     windows = event_windows(taps, TumblingWindows(10), timestamp=float, allowed_lateness=5)
    ...     async with windows.stream() as fired:
    ...         async for window in fired:
    ...             print(window.start, window.items, window.pane, window.is_late)
    >>> run(main())
    0.0 [1.0, 4.0, 2.0] 0 False
    0.0 [1.0, 4.0, 2.0, 3.0] 1 True
    10.0 [11.0] 0 False
    30.0 [30.0] 0 False
    """
    check_event_windows(assigner, allowed_lateness, max_out_of_orderness, late, idle_after)
    pump: _EventPump[Never] = _EventPump(
        source,
        _opened(assigner, allowed_lateness),
        timestamp,
        key,
        max_out_of_orderness,
        late,
        idle_after,
        None,
    )
    return Reader(pump)


def passing_event_windows(
    source: AsyncIterable[T | F],
    assigner: Assigner,
    *,
    timestamp: Callable[[T], float],
    key: Callable[[T], K] | None,
    allowed_lateness: float,
    max_out_of_orderness: float,
    late: Late[T] | None,
    idle_after: float | None,
    passing: type[F],
) -> AsyncIterator[EventWindow[K, T] | F]:
    """Do as `event_windows`; an item of class ``passing`` comes out as it is, and fires nothing."""
    check_event_windows(assigner, allowed_lateness, max_out_of_orderness, late, idle_after)
    pump: _EventPump[F] = _EventPump(
        source,
        _opened(assigner, allowed_lateness),
        timestamp,
        key,
        max_out_of_orderness,
        late,
        idle_after,
        passing,
    )
    return Reader(pump)


def check_event_windows(
    assigner: object,
    allowed_lateness: float,
    max_out_of_orderness: float,
    late: object,
    idle_after: float | None,
) -> None:
    """Refuse what could not say when a window fires."""
    if not isinstance(assigner, TumblingWindows | SlidingWindows | SessionWindows):
        raise TypeError(
            f"expected TumblingWindows, SlidingWindows or SessionWindows, not {assigner!r}"
        )
    if not (late is None or callable(late) or isinstance(late, asyncio.Queue)):
        raise TypeError(f"late must be a function or an asyncio.Queue, not {late!r}")
    if not allowed_lateness >= 0:
        raise InvalidArgument(
            f"allowed_lateness must be at least 0 seconds, not {allowed_lateness!r}"
        )
    if not 0 <= max_out_of_orderness < math.inf:
        raise InvalidArgument(
            "max_out_of_orderness must be at least 0 seconds and finite, "
            f"not {max_out_of_orderness!r}"
        )
    if idle_after is not None:
        check_seconds("idle_after", idle_after)


def _opened(assigner: Assigner, lateness: float) -> _Windows:
    match assigner:
        case TumblingWindows(size, offset):
            return _Aligned(size, size, offset, lateness)
        case SlidingWindows(size, every):
            return _Aligned(size, every, 0.0, lateness)
        case SessionWindows(gap):
            return _Sessions(gap, lateness)


_NOTHING: Final[list[tuple[float, float]]] = []  # not to be changed


class _Windows(ABC):
    """The windows that are not forgotten, and when they fire. Knows no source and no clock."""

    __slots__ = ("_lateness", "fired", "next_end", "next_move", "recent")

    def __init__(self, lateness: float) -> None:
        self._lateness = lateness
        self.fired: list[EventWindow[Any, Any]] = []  # to be taken from here
        self.next_end = math.inf  # no window that waits for its end has one before this
        self.next_move = math.inf  # no watermark before this fires or forgets anything
        self.recent: dict[object, _Region] = {}  # where each key's last item went

    @abstractmethod
    def add(
        self, at: float, key: object, item: object, watermark: float
    ) -> tuple[bool, list[tuple[float, float]]]:
        """Put an item into its windows.

        Returns:
            Whether there was one for it, and the bounds of those that are forgotten.
        """

    @abstractmethod
    def advance(self, watermark: float) -> None:
        """Fire what ends at or before the watermark, forget what it has left behind."""

    @abstractmethod
    def assigned(self) -> int:
        """Count the windows that are held."""

    @abstractmethod
    def clear(self) -> None:
        """Forget all."""


class _Region:
    """A stretch of event time all of whose items of a key go into the same lists."""

    __slots__ = ("appends", "end", "start", "until")

    def __init__(
        self, start: float, end: float, appends: list[Callable[[Any], None]], until: float
    ) -> None:
        self.start = start
        self.end = end
        self.appends = appends
        self.until = until  # the first of them fires when the watermark is there


class _Held:
    """What a window holds."""

    __slots__ = ("items", "panes", "region")

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.panes = 0
        self.region: _Region | None = None  # the last one of which it is the last window


class _Bucket:
    """One window's bounds, for all keys: they fire together."""

    __slots__ = ("by_key", "end", "start")

    def __init__(self, start: float, end: float) -> None:
        self.start = start
        self.end = end
        self.by_key: dict[object, _Held] = {}  # in the order of their opening


class _Aligned(_Windows):
    """Tumbling and sliding windows: they lie at whole multiples, the same for all keys."""

    __slots__ = ("_buckets", "_ends", "_every", "_kept", "_offset", "_size")

    def __init__(self, size: float, every: float, offset: float, lateness: float) -> None:
        super().__init__(lateness)
        self._size = size
        self._every = every
        self._offset = offset
        self._buckets: dict[int, _Bucket] = {}
        self._ends: list[tuple[float, int]] = []  # heap of those that have not fired
        self._kept: list[tuple[float, int]] = []  # heap of those that have, by their last moment

    def _start(self, index: int) -> float:
        return self._offset + index * self._every

    def _end(self, index: int) -> float:
        # As the next window's start is computed, so that no moment falls between the two.
        if self._size == self._every:
            return self._start(index + 1)
        return self._start(index) + self._size

    def _last_index(self, at: float) -> int:
        index = math.floor((at - self._offset) / self._every)
        if at < self._start(index):  # the division was rounded
            return index - 1
        return index + 1 if at >= self._start(index + 1) else index

    def add(
        self, at: float, key: object, item: object, watermark: float
    ) -> tuple[bool, list[tuple[float, float]]]:
        last = first = self._last_index(at)
        region = self._region_of(last, at, key, watermark)
        if region is not None:
            for append in region.appends:
                append(item)
            self.recent[key] = region
            return True, _NOTHING
        while self._end(first - 1) > at:
            first -= 1
        forgotten: list[tuple[float, float]] = []
        appends: list[Callable[[Any], None]] = []
        for index in range(first, last + 1):
            end = self._end(index)
            if end + self._lateness <= watermark:
                forgotten.append((self._start(index), end))
                continue
            bucket = self._buckets.get(index)
            if bucket is None:
                bucket = self._open(index, end, watermark)
            held = bucket.by_key.get(key)
            if held is None:
                held = bucket.by_key[key] = _Held()
            held.items.append(item)
            if end <= watermark:
                self._fire(bucket, key, held, is_late=True)
            else:
                appends.append(held.items.append)
        if len(appends) == last - first + 1:
            start = max(self._start(last), self._end(first - 1))
            end = min(self._start(last + 1), self._end(first))
            region = _Region(start, end, appends, self._end(first))
            self.recent[key] = self._buckets[last].by_key[key].region = region
        return len(forgotten) <= last - first, forgotten

    def _region_of(self, last: int, at: float, key: object, watermark: float) -> _Region | None:
        """Give the stretch that an item of this key was in before, if none of it has fired."""
        bucket = self._buckets.get(last)
        held = None if bucket is None else bucket.by_key.get(key)
        region = None if held is None else held.region
        if region is None or region.until <= watermark or not region.start <= at < region.end:
            return None
        return region

    def _open(self, index: int, end: float, watermark: float) -> _Bucket:
        bucket = self._buckets[index] = _Bucket(self._start(index), end)
        if end <= watermark:
            heappush(self._kept, (end + self._lateness, index))
        else:
            heappush(self._ends, (end, index))
        self._look_ahead()
        return bucket

    def _look_ahead(self) -> None:
        self.next_end = self._ends[0][0] if self._ends else math.inf
        self.next_move = min(self.next_end, self._kept[0][0]) if self._kept else self.next_end

    def _fire(self, bucket: _Bucket, key: object, held: _Held, *, is_late: bool) -> None:
        # A window that is kept goes on with a list of its own.
        items = held.items.copy() if self._lateness else held.items
        self.fired.append(EventWindow(key, bucket.start, bucket.end, items, held.panes, is_late))
        held.panes += 1

    def advance(self, watermark: float) -> None:
        while self._ends and self._ends[0][0] <= watermark:
            end, index = heappop(self._ends)
            bucket = self._buckets[index]
            for key, held in bucket.by_key.items():
                self._fire(bucket, key, held, is_late=False)
            heappush(self._kept, (end + self._lateness, index))
            self.recent.clear()
        while self._kept and self._kept[0][0] <= watermark:
            del self._buckets[heappop(self._kept)[1]]
        self._look_ahead()

    def assigned(self) -> int:
        return sum(len(bucket.by_key) for bucket in self._buckets.values())

    def clear(self) -> None:
        self.recent.clear()
        self._buckets.clear()
        self._ends.clear()
        self._kept.clear()
        self._look_ahead()


class _OpenSession(_Held):
    """A session that is not forgotten."""

    __slots__ = ("end", "is_kept", "is_queued", "key", "number", "order", "start", "waits")

    def __init__(self, key: object, number: int, start: float, end: float) -> None:
        super().__init__()
        self.key = key
        self.number = number  # its place in the order of opening
        self.start = start
        self.end = end
        self.order: list[int] = []  # the place of each item among all
        self.waits = False  # for its end, with items that were in no pane
        self.is_queued = False  # among those that wait
        self.is_kept = False  # among those that have fired


_start_of: Final = attrgetter("start")


class _Sessions(_Windows):
    """Windows of each key that grow and merge."""

    __slots__ = ("_by_key", "_ends", "_gap", "_kept", "_number", "_pushed")

    def __init__(self, gap: float, lateness: float) -> None:
        super().__init__(lateness)
        self._gap = gap
        self._number = 0
        self._by_key: dict[object, list[_OpenSession]] = {}  # by start; they do not overlap
        # Heaps. A session may have grown since it was put there: it is put back when it comes up.
        self._ends: list[tuple[float, int, int, _OpenSession]] = []
        self._kept: list[tuple[float, int, _OpenSession]] = []
        self._pushed = count()  # so that no two entries are equal: sessions have no order

    def add(
        self, at: float, key: object, item: object, watermark: float
    ) -> tuple[bool, list[tuple[float, float]]]:
        self._number += 1
        end = at + self._gap
        mine = self._by_key.get(key)
        if mine is None:
            mine = []
        place = bisect_right(mine, at, key=_start_of)
        # Each is a gap long at least, so that one before and one behind can overlap at most.
        before = mine[place - 1] if place and mine[place - 1].end > at else None
        behind = mine[place] if place < len(mine) and mine[place].start < end else None
        session = before or behind
        if session is None:
            if end + self._lateness <= watermark:
                return False, [(at, end)]
            session = _OpenSession(key, self._number, at, end)
            mine.insert(place, session)
            self._by_key[key] = mine
        elif before is not None and behind is not None:
            self._merge(before, behind)
            del mine[place]
        session.start = min(session.start, at)
        session.end = max(session.end, end)
        session.items.append(item)
        session.order.append(self._number)
        if session.end > watermark:
            session.waits = True
            self._queue(session)
        else:
            self._fire(session, is_late=True)
        self._look_ahead()
        return True, _NOTHING

    def _merge(self, session: _OpenSession, other: _OpenSession) -> None:
        small, large = sorted((session, other), key=lambda held: len(held.items))
        # In the order they came: what came before all of the smaller one stays where it is.
        cut = bisect_right(large.order, small.order[0])
        tails = merge(
            zip(large.order[cut:], large.items[cut:], strict=True),
            zip(small.order, small.items, strict=True),
            key=itemgetter(0),
        )
        order, items = map(list, zip(*tails, strict=True))
        large.order[cut:] = order
        large.items[cut:] = items
        session.order, session.items = large.order, large.items
        session.number = min(session.number, other.number)
        session.panes = max(session.panes, other.panes)
        session.end = other.end
        other.waits = False

    def _queue(self, session: _OpenSession) -> None:
        if not session.is_queued:
            session.is_queued = True
            heappush(self._ends, (session.end, session.number, next(self._pushed), session))

    def _keep(self, session: _OpenSession) -> None:
        if not session.is_kept:
            session.is_kept = True
            heappush(self._kept, (session.end + self._lateness, next(self._pushed), session))

    def _look_ahead(self) -> None:
        self.next_end = self._ends[0][0] if self._ends else math.inf
        self.next_move = min(self.next_end, self._kept[0][0]) if self._kept else self.next_end

    def _fire(self, session: _OpenSession, *, is_late: bool) -> None:
        self.fired.append(
            EventWindow(
                session.key,
                session.start,
                session.end,
                session.items.copy(),
                session.panes,
                is_late,
            )
        )
        session.panes += 1
        session.waits = False
        self._keep(session)

    def advance(self, watermark: float) -> None:
        while self._ends and self._ends[0][0] <= watermark:
            *_, session = heappop(self._ends)
            session.is_queued = False
            if not session.waits:
                continue  # it was merged into another
            if session.end > watermark or (
                self._ends and (session.end, session.number) > self._ends[0][:2]
            ):
                self._queue(session)
                continue
            self._fire(session, is_late=False)
        while self._kept and self._kept[0][0] <= watermark:
            _, _, session = heappop(self._kept)
            session.is_kept = False
            if session.end + self._lateness <= watermark:
                self._forget(session)
            else:
                self._keep(session)
        self._look_ahead()

    def _forget(self, session: _OpenSession) -> None:
        mine = self._by_key.get(session.key, [])
        if session in mine:
            mine.remove(session)
            if not mine:
                del self._by_key[session.key]

    def assigned(self) -> int:
        return sum(map(len, self._by_key.values()))

    def clear(self) -> None:
        self._by_key.clear()
        self._ends.clear()
        self._kept.clear()
        self._look_ahead()


class _EventPump(DuePump[Any], Generic[F]):
    __slots__ = (
        "_idle_after",
        "_key",
        "_late",
        "_newest",
        "_passing",
        "_seen",
        "_slack",
        "_timestamp",
        "_watermark",
        "windows",
    )

    def __init__(
        self,
        source: AsyncIterable[Any],
        windows: _Windows,
        timestamp: Callable[[Any], float],
        key: Callable[[Any], object] | None,
        slack: float,
        late: Late[Any] | None,
        idle_after: float | None,
        passing: type[F] | None,
    ) -> None:
        super().__init__(source)
        self.windows = windows
        self._timestamp = timestamp
        self._key = key
        self._slack = slack
        self._late = _taker(late)
        self._idle_after = idle_after
        self._passing = passing
        self._newest = -math.inf  # the greatest timestamp
        self._watermark = -math.inf
        self._seen = 0.0  # when the last item came

    def take(self) -> Any:
        taken = self.due.popleft()
        if not self.due:
            self.make_room()
        return taken

    def discard(self) -> None:
        super().discard()
        self.windows.clear()

    def flush(self) -> None:
        self._advance(math.inf)
        self.windows.clear()

    def _advance(self, watermark: float) -> None:
        self._watermark = watermark
        self.windows.advance(watermark)
        self.due.extend(self.windows.fired)
        self.windows.fired.clear()

    # The clock, for a quiet source.

    def next_deadline(self) -> float:
        quiet = self._quiet_at()
        if quiet == math.inf or self.now() < quiet:
            return quiet  # then it will be seen how long it has to go on so
        return self._end_at()

    def _quiet_at(self) -> float:
        if self._idle_after is None or self.windows.next_end == math.inf:
            return math.inf
        return self._seen + self._idle_after

    def _end_at(self) -> float:
        """Say when the clock brings the watermark to the next end."""
        return self._seen + (self.windows.next_end - (self._newest - self._slack))

    def expire(self, now: float) -> None:
        if self._idle_after is None or now < self._seen + self._idle_after:
            return
        # To the ends of windows, and not beyond: an item that comes after all is not made late.
        while self._end_at() <= now:
            self._advance(self.windows.next_end)

    def _note_time(self, idle_after: float) -> None:
        """An item has come: the source is not quiet."""
        now = self.now()
        self.expire(now)
        self._seen = now
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
        windows = self.windows
        find = windows.recent.get
        newest = self._newest
        left = 1
        async for item in source:
            if item.__class__ is passing:
                self.due.append(item)
                await self.wait_with_clock_stopped()
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
                accepted, forgotten = windows.add(at, key, item, self._watermark)
                if forgotten or windows.fired:
                    await self._settle(key, item, forgotten, accepted=accepted)
                if idle_after is not None:
                    self.arm_for(self._seen + idle_after)
            else:
                raise InvalidArgument(f"a timestamp must be finite, not {at!r}")
            if at > newest:
                newest = self._newest = at
                watermark = at - slack
                if watermark > self._watermark:
                    self._watermark = watermark
                    if watermark >= windows.next_move:
                        self._advance(watermark)
            if self.due:
                await self.wait_with_clock_stopped()
            left -= 1
            if not left:
                left = await self.look_up(self.now())

    async def _settle(
        self, key: object, item: Any, forgotten: list[tuple[float, float]], *, accepted: bool
    ) -> None:
        """Give out what a late item made fire, or the item where it is too late."""
        if self._late is None:
            for start, end in forgotten:
                self.due.append(EventWindow(key, start, end, [item], 0, is_late=True))
        elif not accepted:
            await self.with_clock_stopped(_hand_over(self._late, item))
        self.due.extend(self.windows.fired)
        self.windows.fired.clear()


def _taker(late: Late[T] | None) -> Callable[[T], object] | None:
    if late is None or callable(late):
        return late
    return late.put


async def _hand_over(late: Callable[[Any], object], item: Any) -> None:
    given = late(item)
    if inspect.isawaitable(given):
        await given
