"""`keyed_chunks`: lists closed by their size or their age, one open list for each key.

No heap is needed: lists are kept in the order of their deadlines, which is the order in which they
were opened. So a list costs a dictionary entry, however many there are.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import AsyncIterable, AsyncIterator, Callable
from itertools import chain
from typing import Any, Final, TypeVar

from aiostream import Stream

from returns_pipeline import telemetry
from returns_pipeline._engine import checks, ends
from returns_pipeline._engine.checks import Seconds
from returns_pipeline._engine.marks import BySpan, CarriesMarks, Mark, Span
from returns_pipeline._engine.operator import Operator
from returns_pipeline._engine.reader import Reader
from returns_pipeline.windows._deadlines import DeadlinePump
from returns_pipeline.windows._flushing import FlushOn

__all__ = ["KeyedPump", "MarkedKeyedPump", "keyed_chunks"]

K = TypeVar("K")
T = TypeVar("T")


class _KeyedChunks(Operator):
    def __call__(
        self,
        source: AsyncIterable[T],
        n: int,
        timeout: Seconds,
        *,
        key: Callable[[T], K],
        max_keys: int | None = None,
        flush_on: FlushOn | None = None,
    ) -> Stream[tuple[K, list[T]]]:
        """Group items into lists by key, each emitted with its key by its size or its age.

        A list is emitted when

        1. it holds ``n`` items,
        2. ``timeout`` seconds have passed since its first item,
        3. an item with a new key comes, ``max_keys`` lists are open, and it is the oldest,
        4. ``flush_on`` is given, and is set or emits an item: then all open lists, or
        5. the source has ended (or failed): then all open lists, the oldest first.

        Lists are emitted in the order of their deadlines, those of one instant in the order in
        which they were opened. Every item is emitted exactly once, in order within its key; no list
        is empty. The time counts from each list's own first item. A reader that is late gets
        everything that has gathered in a list until then, at once, up to ``n``.

        Backpressure: at most ``n`` items for each key are held, and at most ``max_keys`` lists are
        open. The source waits while a list that is full, or was evicted by a new key, is not taken;
        and, once it has opened one more, while those that are due hold ``n`` items. Without
        ``max_keys`` the number of keys with an open list is not limited. All keys together have one
        task and one timer.

        Order of events: ``key`` is called once for each item, in the order of the source, in the
        task that runs the source. If it raises, all open lists are emitted and then that exception
        is raised; the source is closed.

        Cancel safety: a cancelled read loses nothing; the next read continues where it was.
        ``aclose()`` stops the source, awaits its clean-up and drops the items held. An exception of
        the reader is not thrown into the source.

        Known elsewhere as ``groupBy``, ``groupedWithin`` and ``mergeSubstreams`` together (Akka and
        Pekko Streams), ``groupByKey`` with ``groupedWithin`` (Effect, ZIO), ``groupBy`` with
        ``bufferTimeOrCount`` (Rx).

        Args:
            source: Read one item at a time, once the first list is requested.
            n: Items in a full list, at least 1.
            timeout: Seconds from a list's first item until it is emitted, above 0; ``math.inf`` for
                no limit. On the running loop's clock.
            key: Returns the key of an item; keys are hashable.
            max_keys: How many lists may be open at a time, at least 1; `None` for no limit.
            flush_on: An event or a stream, as of `chunks_or_timeout`.

        Returns:
            A stream of pairs: a key, and a list of items with that key.

        Raises:
            InvalidArgument: At the call, if ``n``, ``timeout`` or ``max_keys`` is out of range.
            TypeError: At the call, if ``source`` or ``flush_on`` is not an async iterable. While
                reading, after all lists, if a key cannot be hashed.
            Exception: Any exception of the source, ``key`` or ``flush_on``, after the last list.

        >>> from returns_pipeline.testing import run, timed, timeline
        >>> s = timed("apple", "bean", "avocado", "corn")
        >>> done = keyed_chunks(s, 2, 5.0, key=lambda word: word[0])
        >>> run(timeline(done))
        [(0.0, ('a', ['apple', 'avocado'])), (0.0, ('b', ['bean'])), (0.0, ('c', ['corn']))]
        """
        return self._stream(source, n, timeout, key=key, max_keys=max_keys, flush_on=flush_on)

    def pipe(
        self,
        n: int,
        timeout: Seconds,
        *,
        key: Callable[[T], K],
        max_keys: int | None = None,
        flush_on: FlushOn | None = None,
    ) -> Callable[[AsyncIterable[T]], Stream[tuple[K, list[T]]]]:
        return self._piped(n, timeout, key=key, max_keys=max_keys, flush_on=flush_on)

    def raw(
        self,
        source: AsyncIterable[T],
        n: int,
        timeout: Seconds,
        *,
        key: Callable[[T], K],
        max_keys: int | None = None,
        flush_on: FlushOn | None = None,
    ) -> AsyncIterator[tuple[K, list[T]]]:
        return Reader(KeyedPump(source, n, timeout, key, max_keys, flush_on))


keyed_chunks: Final = _KeyedChunks("returns_pipeline.windows.keyed_chunks")
"""Group items into lists by key, each emitted with its key by its size or its age."""


class _Keyed(list[Any]):
    """An open list with its key and its deadline, and, in a marked chain, its span.

    Without an ``__init__``: it would take as long as all else that opening a list does.
    """

    __slots__ = ("deadline", "key", "since", "span", "why")

    key: Any
    deadline: float
    since: float  # when its first item came, if it is observed
    why: telemetry.WindowReason  # it is emitted; set when it is queued
    span: Span


class KeyedPump(DeadlinePump):
    """The lists of all keys. A failure flushes them and is emitted last.

    A list is in one of three places: in ``_open``; in ``due`` and ``_filling`` (its time has come,
    the reader has not, and it is not full); or in ``due`` alone. So a key has one list that takes
    items, and a list that is full or flushed takes none.
    """

    __slots__ = ("_begin", "_filling", "_held", "_key", "_max_keys", "_n", "_open", "_timeout")

    fill = ends.window(
        "keyed_chunks",
        "key_of, n, find = self._key, self._n, self._open.get",
        """\
key = key_of(value)
window = find(key)
if window is None:
    OPEN
    waiting = self._admit(key, value)
    WAIT
else:
    window.append(value)
    if len(window) >= n:
        waiting = self._close(window)
        WAIT
NEXT
""",
        takes_slices=True,
    )

    operator = "keyed_chunks"

    def __init__(
        self,
        source: AsyncIterable[Any],
        n: int,
        timeout: Seconds,
        key: Callable[[Any], object],
        max_keys: int | None,
        flush_on: FlushOn | None = None,
    ) -> None:
        super().__init__(source, flush_on)
        self._n = checks.count("n", n)
        self._timeout = checks.seconds("timeout", timeout)
        checks.item_function("key", key)
        self._key = key
        self._max_keys = math.inf if max_keys is None else checks.count("max_keys", max_keys)
        # In the order of their deadlines. A plain dictionary finds its first entry slowly once
        # many were removed from its front.
        self._open: OrderedDict[object, _Keyed] = OrderedDict()
        self._filling: dict[object, _Keyed] = {}
        self._held = 0  # how many items are due
        self._begin: Callable[[tuple[Any]], _Keyed] = _Keyed

    def bounds(self) -> str:
        keys = "" if self._max_keys == math.inf else f", of {self._max_keys} keys"
        return f"holds up to {self._n} of each key{keys}"

    def room(self) -> int:
        return self._n

    def held(self) -> int:
        return self._held + sum(map(len, self._open.values()))

    def open_windows(self) -> tuple[int, float | None]:
        oldest = next(chain(self._filling.values(), self._open.values()), None)
        age = None if oldest is None else self.age(oldest.deadline - self._timeout)
        return len(self._open) + len(self._filling), age

    def take(self) -> Any:
        taken: Any = self.due.popleft()
        self.resume()
        if taken.__class__ is not _Keyed:
            return taken  # a failure
        window: _Keyed = taken
        self._held -= len(window)
        if self._filling.get(window.key) is window:
            del self._filling[window.key]
        if self.stage is not None:
            self.report(len(window), window.why, window.since)
        return window.key, window[:]

    def next_deadline(self) -> float:
        return next(iter(self._open.values())).deadline if self._open else math.inf

    def expire(self, now: float, why: telemetry.WindowReason = "time") -> None:
        opened = self._open
        while opened and next(iter(opened.values())).deadline <= now:
            key, window = opened.popitem(last=False)
            self._filling[key] = window
            self._put(window, why)

    def flush(self, why: telemetry.WindowReason) -> None:
        for window in self._open.values():
            self._put(window, why)
        self._open.clear()
        self._filling.clear()

    def discard(self) -> None:
        self._held = 0
        super().discard()
        self._open.clear()  # so that `fill` looks at `closed` with its next item
        self._filling.clear()

    def _put(self, window: _Keyed, why: telemetry.WindowReason) -> None:
        window.why = why
        self.due.append(window)
        self._held += len(window)

    async def _close(self, window: _Keyed) -> None:
        del self._open[window.key]
        self._put(window, "size")
        await self._wait_until_not_full()

    async def _admit(self, key: object, item: Any) -> None:
        """Put an item where no window of its key is open."""
        window = self._filling.get(key)
        if window is None and len(self._open) >= self._max_keys:
            self._put(self._open.popitem(last=False)[1], "evicted")
            await self.wait_until_taken()
        if window is not None:  # the reader is late: until it comes, the list is filled further
            window.append(item)
            self._held += 1
        else:
            opened = self._begin((item,))
            opened.key = key
            opened.deadline = self.now() + self._timeout
            if self.stage is not None:
                opened.since = self.loop.time()
            if self._n == 1:
                self._put(opened, "size")
            else:
                self._open[key] = opened
                self.arm()
        if self._held >= self._n:
            await self._wait_until_not_full()

    async def _wait_until_not_full(self) -> None:
        self.still_reading()
        if self.reading:
            await self.yield_to_reader()
        while self._held >= self._n:
            await self.wait_until_resumed()


class MarkedKeyedPump(CarriesMarks[BySpan], KeyedPump):
    """Emits a mark when all lists that were open when it came have been emitted."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.marks = BySpan()
        self._begin = self._begin_in_span

    def _begin_in_span(self, items: tuple[Any]) -> _Keyed:
        window = _Keyed(items)
        window.span = self.marks.begun()
        return window

    def keep(self, mark: Mark) -> None:
        if mark.flushes:
            self.flush_for_credit()
        self.marks.put(mark)

    def take_item(self) -> Any:
        window = self.due[0]
        item = super().take_item()
        if window.__class__ is _Keyed:
            self.marks.gone(window.span)
        return item
