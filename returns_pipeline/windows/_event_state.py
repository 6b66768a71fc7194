"""The open windows of event time, and when they fire, without a source or a clock.

Everything here depends only on the items added and on the watermarks; nothing waits.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush, merge
from itertools import count
from operator import attrgetter, itemgetter
from typing import Any, Final, Generic, TypeVar

from returns_pipeline._engine.frozen import allow_type_arguments
from returns_pipeline._engine.marks import BySpan, Span
from returns_pipeline.windows._assigners import (
    Assigner,
    SessionWindows,
    SlidingWindows,
    TumblingWindows,
    in_seconds,
)

__all__ = ["EventState", "EventWindow", "marked_state_of", "state_of"]

K_co = TypeVar("K_co", covariant=True)
T_co = TypeVar("T_co", covariant=True)


@allow_type_arguments
@dataclass(frozen=True, slots=True)
class EventWindow(Generic[K_co, T_co]):
    """The contents of a window of event time when it fired.

    Attributes:
        key: The key of its items; `None` if there are no keys.
        start: Its first moment, in seconds of event time.
        end: The moment right after its last, in seconds of event time.
        items: All its items so far, in the order in which they arrived.
        pane: How many times it has fired before. A later pane holds the items of the earlier
            ones, too, and takes their place.
        is_late: Whether it fired for an item that came after the watermark had passed its end.

    >>> EventWindow("berlin", 0.0, 60.0, [1, 2]).items
    [1, 2]
    """

    key: K_co
    start: float
    end: float
    items: list[T_co]
    pane: int = 0
    is_late: bool = False


_NOTHING: Final[list[tuple[float, float]]] = []  # not to be changed


class EventState(ABC):
    """The windows that are held, and when they fire.

    A window waits for the watermark to reach its end; it then fires, is kept for the allowed
    lateness, and is forgotten. ``next_end`` and ``next_move`` let a caller skip `advance` cheaply:
    they are lower bounds, never too late.
    """

    __slots__ = ("_lateness", "fired", "next_end", "next_move", "recent")

    def __init__(self, lateness: float) -> None:
        self._lateness = lateness
        self.fired: list[EventWindow[Any, Any]] = []  # the caller takes them from here
        self.next_end = math.inf  # no window that waits for its end ends before this
        self.next_move = math.inf  # no watermark before this fires or forgets a window
        self.recent: dict[object, _Region] = {}  # where each key's last item was put

    @abstractmethod
    def add(
        self, at: float, key: object, item: object, watermark: float
    ) -> tuple[bool, list[tuple[float, float]]]:
        """Put an item into its windows.

        Returns:
            Whether there was a window for it, and the bounds of those already forgotten.
        """

    @abstractmethod
    def advance(self, watermark: float) -> None:
        """Fire the windows that end at or before the watermark, forget those kept long enough.

        A window that was fired early, and has got no item since, does not fire again.
        """

    @abstractmethod
    def fire_open(self) -> None:
        """Fire those that wait for their end early, if they have items that were in no pane."""

    def first_end(self) -> float:
        """Return the end of the first window that waits for its end, exactly."""
        return self.next_end

    @abstractmethod
    def assigned(self) -> int:
        """Count the windows that are held."""

    @abstractmethod
    def clear(self) -> None:
        """Forget all windows."""


class _Region:
    """A range of event time: all items of one key in it go into the same lists."""

    __slots__ = ("appends", "end", "start", "until")

    def __init__(
        self, start: float, end: float, appends: list[Callable[[Any], None]], until: float
    ) -> None:
        self.start = start
        self.end = end
        self.appends = appends
        self.until = until  # the watermark at which the first of them fires


class _Held:
    """The items of one key in one window."""

    __slots__ = ("items", "panes", "region", "shown")

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.panes = 0
        self.shown = 0  # how many items the last pane had
        self.region: _Region | None = None  # the last one that ends with this window


class _Window:
    """The bounds of one window, for all keys: they fire together."""

    __slots__ = ("by_key", "end", "span", "start")

    span: Span | None  # in a marked chain, while it has items that were in no pane

    def __init__(self, start: float, end: float) -> None:
        self.start = start
        self.end = end
        self.by_key: dict[object, _Held] = {}  # in the order in which they were opened


class _AlignedState(EventState):
    """Tumbling and sliding windows: at whole multiples of ``every``, the same for all keys."""

    __slots__ = ("_ends", "_every", "_kept", "_offset", "_size", "_windows")

    def __init__(self, size: float, every: float, offset: float, lateness: float) -> None:
        super().__init__(lateness)
        self._size = size
        self._every = every
        self._offset = offset
        self._windows: dict[int, _Window] = {}
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
            window = self._windows.get(index)
            if window is None:
                window = self._open(index, end, watermark)
            held = window.by_key.get(key)
            if held is None:
                held = window.by_key[key] = _Held()
            held.items.append(item)
            if end <= watermark:
                self._fire(window, key, held, is_late=True, is_kept=bool(self._lateness))
            else:
                appends.append(held.items.append)
                self._on_filled(window)
        if len(appends) == last - first + 1:
            start = max(self._start(last), self._end(first - 1))
            end = min(self._start(last + 1), self._end(first))
            region = _Region(start, end, appends, self._end(first))
            self.recent[key] = self._windows[last].by_key[key].region = region
        return len(forgotten) <= last - first, forgotten

    def _on_filled(self, window: _Window) -> None:
        """React to a first item that is in no pane: a hook for marks."""

    def _on_fired(self, window: _Window) -> None:
        """React when a window has no item that is in no pane: a hook for marks."""

    def _region_of(self, last: int, at: float, key: object, watermark: float) -> _Region | None:
        """Return the range of an earlier item of this key, if none of its windows has fired."""
        window = self._windows.get(last)
        held = None if window is None else window.by_key.get(key)
        region = None if held is None else held.region
        if region is None or region.until <= watermark or not region.start <= at < region.end:
            return None
        return region

    def _open(self, index: int, end: float, watermark: float) -> _Window:
        window = self._windows[index] = _Window(self._start(index), end)
        if end <= watermark:
            heappush(self._kept, (end + self._lateness, index))
        else:
            heappush(self._ends, (end, index))
        self._look_ahead()
        return window

    def _look_ahead(self) -> None:
        self.next_end = self._ends[0][0] if self._ends else math.inf
        self.next_move = min(self.next_end, self._kept[0][0]) if self._kept else self.next_end

    def _fire(
        self, window: _Window, key: object, held: _Held, *, is_late: bool, is_kept: bool
    ) -> None:
        # A window that is kept needs a list of its own.
        items = held.items.copy() if is_kept else held.items
        self.fired.append(EventWindow(key, window.start, window.end, items, held.panes, is_late))
        held.panes += 1
        held.shown = len(items)

    def advance(self, watermark: float) -> None:
        while self._ends and self._ends[0][0] <= watermark:
            end, index = heappop(self._ends)
            window = self._windows[index]
            for key, held in window.by_key.items():
                if len(held.items) > held.shown:
                    self._fire(window, key, held, is_late=False, is_kept=bool(self._lateness))
            self._on_fired(window)
            heappush(self._kept, (end + self._lateness, index))
            self.recent.clear()
        while self._kept and self._kept[0][0] <= watermark:
            del self._windows[heappop(self._kept)[1]]
        self._look_ahead()

    def fire_open(self) -> None:
        for _, index in sorted(self._ends):
            window = self._windows[index]
            for key, held in window.by_key.items():
                if len(held.items) > held.shown:
                    self._fire(window, key, held, is_late=False, is_kept=True)
            self._on_fired(window)

    def assigned(self) -> int:
        return sum(len(window.by_key) for window in self._windows.values())

    def clear(self) -> None:
        self.recent.clear()
        self._windows.clear()
        self._ends.clear()
        self._kept.clear()
        self._look_ahead()


class _Session(_Held):
    """A session, from its first item until it is forgotten."""

    __slots__ = (
        "end",
        "is_kept",
        "is_queued",
        "key",
        "number",
        "order",
        "spans",
        "start",
        "waits",
    )

    def __init__(self, key: object, number: int, start: float, end: float) -> None:
        super().__init__()
        self.key = key
        self.number = number  # its place in the order of opening
        self.start = start
        self.end = end
        self.order: list[int] = []  # the place of each item among all
        self.waits = False  # for its end: it holds items that were in no pane
        self.is_queued = False  # among those that wait
        self.is_kept = False  # among those that have fired
        self.spans: Sequence[Span] = ()  # in a marked chain


_start_of: Final = attrgetter("start")


class _SessionState(EventState):
    """Windows of each key that grow and merge."""

    __slots__ = ("_by_key", "_ends", "_gap", "_kept", "_number", "_pushed")

    def __init__(self, gap: float, lateness: float) -> None:
        super().__init__(lateness)
        self._gap = gap
        self._number = 0
        self._by_key: dict[object, list[_Session]] = {}  # by start; they do not overlap
        # Heaps. An entry is not moved when its session grows: it is put back when it comes up.
        self._ends: list[tuple[float, int, int, _Session]] = []
        self._kept: list[tuple[float, int, _Session]] = []
        self._pushed = count()  # no two entries are equal: sessions cannot be compared

    def add(
        self, at: float, key: object, item: object, watermark: float
    ) -> tuple[bool, list[tuple[float, float]]]:
        self._number += 1
        end = at + self._gap
        mine = self._by_key.get(key)
        if mine is None:
            mine = []
        place = bisect_right(mine, at, key=_start_of)
        # Each is at least a gap long, so at most one before and one after can overlap.
        before = mine[place - 1] if place and mine[place - 1].end > at else None
        after = mine[place] if place < len(mine) and mine[place].start < end else None
        session = before or after
        if session is None:
            if end + self._lateness <= watermark:
                return False, [(at, end)]
            session = _Session(key, self._number, at, end)
            mine.insert(place, session)
            self._by_key[key] = mine
        elif before is not None and after is not None:
            self._merge(before, after)
            del mine[place]
        session.start = min(session.start, at)
        session.end = max(session.end, end)
        session.items.append(item)
        session.order.append(self._number)
        if session.end > watermark:
            self._on_filled(session)
            session.waits = True
            self._queue(session)
        else:
            self._fire(session, is_late=True)
        self._look_ahead()
        return True, _NOTHING

    def _on_filled(self, session: _Session) -> None:
        """React to an item that is in no pane: a hook for marks."""

    def _merge(self, session: _Session, other: _Session) -> None:
        small, large = sorted((session, other), key=lambda held: len(held.items))
        # In the order of arrival: items older than all of the smaller one stay where they are.
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

    def _queue(self, session: _Session) -> None:
        if not session.is_queued:
            session.is_queued = True
            heappush(self._ends, (session.end, session.number, next(self._pushed), session))

    def _keep(self, session: _Session) -> None:
        if not session.is_kept:
            session.is_kept = True
            heappush(self._kept, (session.end + self._lateness, next(self._pushed), session))

    def _look_ahead(self) -> None:
        self.next_end = self._ends[0][0] if self._ends else math.inf
        self.next_move = min(self.next_end, self._kept[0][0]) if self._kept else self.next_end

    def first_end(self) -> float:
        while self._ends:
            end, _, _, session = self._ends[0]
            if session.waits and session.end == end:
                break
            _ = heappop(self._ends)  # it has grown since, or was merged into another
            session.is_queued = False
            if session.waits:
                self._queue(session)
        self._look_ahead()
        return self.next_end

    def _fire(self, session: _Session, *, is_late: bool) -> None:
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

    def fire_open(self) -> None:
        waiting = [entry[-1] for entry in self._ends if entry[-1].waits]
        for session in sorted(waiting, key=lambda each: (each.end, each.number)):
            self._fire(session, is_late=False)
        self._look_ahead()

    def _forget(self, session: _Session) -> None:
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


class _MarkedAligned(_AlignedState):
    """A window belongs to a span from its first item that is in no pane until it fires."""

    __slots__ = ("_marks", "let_go")

    def __init__(self, marks: BySpan, *args: float) -> None:
        super().__init__(*args)
        self._marks = marks
        self.let_go: list[Span] = []

    def _open(self, index: int, end: float, watermark: float) -> _Window:
        window = super()._open(index, end, watermark)
        window.span = None
        return window

    def _on_filled(self, window: _Window) -> None:
        if window.span is None:
            window.span = self._marks.begun()

    def _on_fired(self, window: _Window) -> None:
        if window.span is not None:
            self.let_go.append(window.span)
            window.span = None

    def fire_open(self) -> None:
        super().fire_open()
        # The next item of each window must be noticed.
        self.recent.clear()
        for window in self._windows.values():
            for held in window.by_key.values():
                held.region = None


class _MarkedSessions(_SessionState):
    """A session belongs to spans from its first item that is in no pane until it fires.

    To several, if it was merged.
    """

    __slots__ = ("_marks", "let_go")

    def __init__(self, marks: BySpan, gap: float, lateness: float) -> None:
        super().__init__(gap, lateness)
        self._marks = marks
        self.let_go: list[Span] = []

    def _on_filled(self, session: _Session) -> None:
        if not session.waits:
            session.spans = [*session.spans, self._marks.begun()]

    def _merge(self, session: _Session, other: _Session) -> None:
        super()._merge(session, other)
        session.spans = [*session.spans, *other.spans]

    def _fire(self, session: _Session, *, is_late: bool) -> None:
        super()._fire(session, is_late=is_late)
        self.let_go.extend(session.spans)
        session.spans = []


def state_of(assigner: Assigner, lateness: float) -> EventState:
    """Return the empty state for an assigner.

    Raises:
        TypeError: It is not one of the three kinds.
    """
    match assigner:
        case SessionWindows(gap):
            return _SessionState(in_seconds(gap), lateness)
        case _:
            return _AlignedState(*_size_every_offset(assigner), lateness)


def marked_state_of(
    assigner: Assigner, lateness: float, marks: BySpan
) -> _MarkedAligned | _MarkedSessions:
    """Do as `state_of` for a marked chain.

    The ``let_go`` of the state has the spans of windows that fired: the caller takes them.
    """
    match assigner:
        case SessionWindows(gap):
            return _MarkedSessions(marks, in_seconds(gap), lateness)
        case _:
            return _MarkedAligned(marks, *_size_every_offset(assigner), lateness)


def _size_every_offset(assigner: Assigner) -> tuple[float, float, float]:
    match assigner:
        case TumblingWindows(size, offset):
            return in_seconds(size), in_seconds(size), in_seconds(offset)
        case SlidingWindows(size, every):
            return in_seconds(size), in_seconds(every), 0.0
        case _:
            raise TypeError(
                f"expected TumblingWindows, SlidingWindows or SessionWindows, not {assigner!r}"
            )
