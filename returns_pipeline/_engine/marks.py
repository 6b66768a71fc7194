"""Marks: where a source that is acknowledged to learns how far a pipeline has come.

Such a source puts a `Mark` after each message. A mark is not an item: steps do not see it. Items
carry nothing. Each part of a chain emits a mark after everything made of what came before it.
When a terminal has handled all that, it calls `Mark.reached`. (Flink's barriers are marks, after
Chandy and Lamport's snapshots.)

The law, for every chain: when a mark is reached, everything made of what went in before it has been
handled; marks of one source do not overtake one another; at the end of the source the last one is
reached. A mark stands for the earlier ones of its source, so a part that holds several keeps the
latest. An operator that cannot obey the law refuses a marked stream at the call.

A part that emits its items in the order in which they came, one by one, carries marks like items.
All others take them out of their source (`Unmarked`), and keep them in one of two orders: `InOrder`
if what they hold is emitted in the order in which it came, else `BySpan`.

A source that has several items at once may emit them in a `MarkedSlice`, which knows the mark after
each. What reads slices emits the marks at the places where it emits something else in between: at
the end of a slice, before a failure, after the item that fills a window.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from functools import partial
from operator import length_hint
from typing import Any, Final, Generic, TypeVar

from returns_pipeline._engine.budget import Budget
from returns_pipeline._engine.reader import Pump
from returns_pipeline.errors import InvalidArgument

__all__ = [
    "BySpan",
    "CarriesMarks",
    "InOrder",
    "Mark",
    "Markable",
    "MarkedItems",
    "MarkedSlice",
    "MarksRefused",
    "Sliced",
    "Span",
    "Unmarked",
    "marked_items",
]


M = TypeVar("M", bound="InOrder | BySpan")


class Mark:
    """A place in a stream: everything before it has come from the source already.

    Args:
        source: Is told when the mark is reached, in the order of the marks, perhaps not of each. It
            also tells the marks of one source from those of another.
        number: What it is told.
        flushes: Whether open windows are to be emitted before the mark, as by ``flush_on``: the
            source emits nothing more until it is reached.
    """

    __slots__ = ("flushes", "number", "source")

    def __init__(
        self, source: Callable[[int], object], number: int, *, flushes: bool = False
    ) -> None:
        self.source: Callable[[int], object] = source
        self.number: int = number
        self.flushes: bool = flushes

    def reached(self) -> None:
        """Report to the source that everything before the mark has been handled."""
        _ = self.source(self.number)

    def __repr__(self) -> str:
        return f"<mark {self.number}{' that flushes' if self.flushes else ''}>"


class MarkedItems(ABC):
    """The items of a source with marks among them, for one chain to read."""

    __slots__ = ()

    @abstractmethod
    def __aiter__(self) -> AsyncIterator[Any]: ...

    @abstractmethod
    def terminal_ended(self) -> None:
        """Record that no mark of a reading that has begun will be reached any more."""


class MarkedSlice(list[Any]):
    """Items of one source with a mark after each, not empty, for a loop that does not suspend.

    Args:
        items: The items.
        source: As for `Mark`.
        before: The number of the mark before the first item. They are numbered without gaps.
    """

    __slots__ = ("before", "source")

    def __init__(self, items: Iterable[Any], source: Callable[[int], object], before: int) -> None:
        super().__init__(items)
        self.source: Callable[[int], object] = source
        self.before: int = before

    def begun(self, items: Iterator[Any]) -> int:
        """Return how many items a loop over the iterator of this list has begun with."""
        return len(self) - length_hint(items)

    def after(self, count: int) -> Mark:
        """Return the mark after ``count`` items."""
        return Mark(self.source, self.before + count)

    def reached(self, count: int) -> None:
        """Report to the source that ``count`` items have been handled, if any."""
        if count > 0:
            _ = self.source(self.before + count)


class Sliced(ABC):
    """A source with marks that may also be read in slices."""

    __slots__ = ()

    @abstractmethod
    def slices(self, room: Callable[[], int]) -> AsyncIterable[MarkedSlice | Mark]:
        """Return its items in slices, and marks that come without an item.

        Args:
            room: Returns how many items a slice may have that is read now, at least 1.
        """


class Markable:
    """An async iterable that a chain may read with marks.

    Attributes:
        _marked: Its items with marks; None if it has no marks.
    """

    __slots__ = ()

    _marked: MarkedItems | None


def marked_items(source: AsyncIterable[Any]) -> MarkedItems | None:
    """Return the items of a source with marks; None if it has none."""
    if isinstance(source, Markable):
        return source._marked  # pyright: ignore[reportPrivateUsage]
    return None


class MarksRefused(InvalidArgument):
    """An operator that does not carry marks was added to a marked chain.

    Args:
        operator: What was added; empty if it is to be named by the method that adds it.
        reason: Why it does not carry marks.
    """

    def __init__(
        self,
        operator: str = "",
        reason: str = "it does not tell when all that was made of a message has been handled",
    ) -> None:
        super().__init__(f"{operator} cannot follow a source that is acknowledged to: {reason}")
        self.operator: str = operator


class Latest(dict[Callable[[int], object], Mark]):
    """The latest mark of each source."""

    __slots__ = ()

    def add(self, mark: Mark) -> None:
        """Put a mark in the place of the earlier one of its source, which may have to flush."""
        earlier = self.get(mark.source)
        if earlier is not None and earlier.flushes and not mark.flushes:
            mark = Mark(mark.source, mark.number, flushes=True)
        self[mark.source] = mark

    def add_all(self, marks: Latest) -> None:
        """Put the later marks of another part in the places of these."""
        for mark in marks.values():
            self.add(mark)


class InOrder:
    """Marks of a part that emits, or drops, what it holds in the order in which it came.

    The part counts what it has emitted, in any unit, and says at which count a mark is due.

    Attributes:
        ready: Marks to be emitted now, before anything else.
    """

    __slots__ = ("_passed", "_waiting", "ready")

    def __init__(self, ready: Latest | None = None) -> None:
        self.ready: Latest = Latest() if ready is None else ready  # which several may share
        self._passed = 0
        self._waiting: deque[tuple[int, Latest]] = deque()  # the first due first

    def put(self, mark: Mark, held: int) -> None:
        """Keep a mark until ``held`` more have passed."""
        due = self._passed + held
        if not held:
            self.ready.add(mark)
        elif self._waiting and self._waiting[-1][0] == due:
            self._waiting[-1][1].add(mark)
        else:
            marks = Latest()
            marks.add(mark)
            self._waiting.append((due, marks))

    def passed(self, count: int = 1) -> None:
        """Record that something was emitted, or dropped."""
        self._passed += count
        waiting = self._waiting
        while waiting and waiting[0][0] <= self._passed:
            self.ready.add_all(waiting.popleft()[1])

    def all_passed(self) -> None:
        """Record that nothing is held any more."""
        for _, marks in self._waiting:
            self.ready.add_all(marks)
        self._waiting.clear()

    def clear(self) -> None:
        """Drop all marks."""
        self._waiting.clear()
        self.ready.clear()


class Span:
    """What came between two marks and is still held.

    Attributes:
        count: How many things these are.
        marks: The marks after it.
        older: The span before it that still holds something.
        newer: The span after it.
    """

    __slots__ = ("count", "marks", "newer", "older")

    def __init__(self, older: Span | None) -> None:
        self.count = 0
        self.marks = Latest()
        self.older: Span | None = older
        self.newer: Span | None = None


class BySpan:
    """Marks of a part that emits what it holds in another order than that in which it came.

    Each thing that the part holds (a window, an item that is worked on) belongs to the span in
    which it was begun. A mark is ready when its span, and all before it, hold nothing.

    A span that holds nothing hands its marks to the one before it. So there are never more spans
    than things held, and each call takes constant time.

    Attributes:
        ready: Marks to be emitted now, before anything else.
    """

    __slots__ = ("_last", "ready")

    def __init__(self) -> None:
        self.ready = Latest()
        self._last = Span(None)

    def begun(self, span: Span | None = None) -> Span:
        """Record that something more is held, and return its span: the last one by default."""
        span = span or self._last
        span.count += 1
        return span

    def put(self, mark: Mark) -> None:
        """Keep a mark until all that is held now has gone."""
        span = self._last
        span.marks.add(mark)
        if span.count:
            self._last = span.newer = Span(span)
        else:
            self._hand_on(span)

    def gone(self, span: Span) -> None:
        """Record that something of a span was emitted, or dropped."""
        span.count -= 1
        if span.count or span is self._last:
            return
        self._hand_on(span)
        older, newer = span.older, span.newer
        assert newer is not None
        newer.older = older
        if older is not None:
            older.newer = newer

    def _hand_on(self, span: Span) -> None:
        """Hand the marks of a span that holds nothing to the one before it."""
        taken_by = self.ready if span.older is None else span.older.marks
        taken_by.add_all(span.marks)
        span.marks = Latest()

    def clear(self) -> None:
        """Drop all marks."""
        self._last = Span(None)
        self.ready.clear()


class Unmarked:
    """The items of a source without its marks: a function is called with those.

    Args:
        items: The source, open for reading. It is not closed here.
        on_mark: Called when everything before the mark was taken by the reader, and the reader asks
            for the next item.
    """

    __slots__ = ("_anext", "_budget", "_on_mark")

    _budget: Budget

    def __init__(self, items: AsyncIterator[Any], on_mark: Callable[[Mark], object]) -> None:
        self._anext: Final = items.__anext__
        self._on_mark = on_mark

    def __aiter__(self) -> Unmarked:
        return self

    async def __anext__(self) -> Any:
        while True:
            # The one place at which this waits for the source: see `progress`.
            item = await self._anext()
            if item.__class__ is not Mark:
                return item
            _ = self._on_mark(item)
            # A source of which everything is dropped may emit nothing but marks.
            if not hasattr(self, "_budget"):
                self._budget = Budget(asyncio.get_running_loop())
            if self._budget.spend():
                _ = await self._budget.renew()


class CarriesMarks(Pump[Any], Generic[M]):
    """Mixed into a pump that reads a marked source: it has marks to emit besides its items.

    The other class has the items, and comes after this one in the list of bases.

    Attributes:
        marks: The marks that are held.
    """

    __slots__ = ()

    marks: M

    @abstractmethod
    def keep(self, mark: Mark) -> None:
        """Put a mark where it waits for what is held now."""

    def incoming(self, items: AsyncIterator[Any]) -> AsyncIterator[Any]:
        return self.without_marks(items, self.keep)

    def without_marks(
        self, items: AsyncIterator[Any], keep: Callable[[Mark], None]
    ) -> AsyncIterator[Any]:
        """Return the items of a source without its marks, which ``keep`` takes."""
        return Unmarked(items, partial(self.on_mark, keep=keep))

    def on_mark(self, mark: Mark, keep: Callable[[Mark], None] | None = None) -> None:
        """Keep a mark, or emit it, unless the reader has gone."""
        if not self.closed:
            (keep or self.keep)(mark)
            if self.marks.ready:
                self.notify_reader()

    def on_mark_after(self, batch: MarkedSlice, count: int) -> None:
        """Do so with the mark after ``count`` items of a slice, if there is one."""
        if count > 0:
            self.on_mark(batch.after(count))

    def has_next(self) -> bool:
        """Return whether a mark or an item can be emitted now."""
        # Each class that this is mixed into has its own.
        return bool(self.marks.ready) or super().has_next()  # type: ignore[safe-super]

    def take(self) -> Any:
        """Remove and return the next mark, else the next item."""
        if self.marks.ready:
            return self.marks.ready.popitem()[1]
        return self.take_item()

    def take_item(self) -> Any:
        """Remove and return the next item, and let the marks that waited for it become ready."""
        return super().take()  # type: ignore[safe-super]  # as in `has_next`

    def discard(self) -> None:
        """Drop everything."""
        self.marks.clear()
        super().discard()
