"""`sessions`: lists that end with a silence, one open list for each key.

No heap is needed: the open lists are kept twice, by their last item and by their first, and each
of the two orders changes by moving one entry to the end.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any, Final, TypeVar, overload

from aiostream import Stream

from returns_pipeline import telemetry
from returns_pipeline._engine import checks, ends
from returns_pipeline._engine.checks import Seconds
from returns_pipeline._engine.marks import BySpan, CarriesMarks, Mark, Span
from returns_pipeline._engine.operator import Operator
from returns_pipeline._engine.reader import Reader
from returns_pipeline.windows._deadlines import DeadlinePump
from returns_pipeline.windows._flushing import FlushOn

__all__ = ["MarkedSessionPump", "SessionPump", "sessions"]

T = TypeVar("T")


class _Sessions(Operator):
    def __call__(
        self,
        source: AsyncIterable[T],
        gap: Seconds,
        *,
        max_duration: Seconds = math.inf,
        n: int | None = None,
        key: Callable[[T], object] | None = None,
        max_keys: int | None = None,
        flush_on: FlushOn | None = None,
    ) -> Stream[list[T]]:
        """Group items into lists that a silence ends.

        A list is emitted when

        1. ``gap`` seconds have passed without an item,
        2. ``max_duration`` seconds have passed since its first item,
        3. it holds ``n`` items, if ``n`` is given,
        4. an item with a new key comes, ``max_keys`` lists are open, and it is the one that has
           been silent for longest,
        5. ``flush_on`` is given, and is set or emits an item: then all open lists, or
        6. the source has ended (or failed): then all open lists, the oldest first.

        With a ``key`` each key has a list and a silence of its own; the key of a list is that of
        any of its items. An item that comes exactly ``gap`` seconds after the last one begins a new
        list.

        Lists are emitted in the order of their deadlines, those of one instant in the order in
        which they were opened. Every item is emitted exactly once, in order within its key; no list
        is empty.

        The clock is paused while the source waits for the reader: a slow reader does not make a
        silence, and gets the same lists as a fast one.

        Backpressure: the source waits, with one item in hand, while a list that is due is not
        taken. Open lists are bounded by ``n``, and by ``max_duration`` as far as the source's rate
        is bounded; a session without either lasts as long as its source delivers. At most
        ``max_keys`` lists are open; without it, the number of keys with an open list is not
        limited. All keys together have one task and one timer.

        Order of events: ``key`` is called once for each item, in the order of the source, in the
        task that runs the source. If it raises, all open lists are emitted and then that exception
        is raised; the source is closed.

        Cancel safety: a cancelled read loses nothing; the next read continues where it was.
        ``aclose()`` stops the source, awaits its clean-up and drops the items held. An exception of
        the reader is not thrown into the source.

        Known elsewhere as ``buffer`` closed by ``debounce`` (Rx), session windows (Flink, Beam,
        Kafka Streams); those of event time are `event_windows` with `SessionWindows`.

        Args:
            source: Read one item at a time, once the first list is requested.
            gap: Seconds of silence that end a list, above 0. On the running loop's clock.
            max_duration: Seconds from a list's first item until it is emitted at the latest,
                above 0; ``math.inf`` for no limit.
            n: Items in a full list, at least 1; `None` for no limit.
            key: Returns the key of an item, hashable; `None` if all items belong together.
            max_keys: How many lists may be open at a time, at least 1; `None` for no limit.
            flush_on: An event or a stream, as of `chunks_or_timeout`.

        Returns:
            A stream of lists.

        Raises:
            InvalidArgument: At the call, if ``gap``, ``max_duration``, ``n`` or ``max_keys`` is out
                of range.
            TypeError: At the call, if ``source`` or ``flush_on`` is not an async iterable. While
                reading, after all lists, if a key cannot be hashed.
            Exception: Any exception of the source, ``key`` or ``flush_on``, after the last list.

        >>> from returns_pipeline.testing import run, script, timeline
        >>> s = script("ab-c-----d|")
        >>> done = sessions(s, 3.0)
        >>> run(timeline(done))
        [(6.0, ['a', 'b', 'c']), (10.0, ['d'])]
        """
        return self._stream(
            source,
            gap,
            max_duration=max_duration,
            n=n,
            key=key,
            max_keys=max_keys,
            flush_on=flush_on,
        )

    # In two overloads for pyright: without a key, nothing tells the item's type before the source
    # comes, and an optional function of it would make it unknown.
    @overload
    def pipe(
        self,
        gap: Seconds,
        *,
        max_duration: Seconds = math.inf,
        n: int | None = None,
        flush_on: FlushOn | None = None,
    ) -> Callable[[AsyncIterable[T]], Stream[list[T]]]: ...
    @overload
    def pipe(
        self,
        gap: Seconds,
        *,
        max_duration: Seconds = math.inf,
        n: int | None = None,
        key: Callable[[T], object] | None,
        max_keys: int | None = None,
        flush_on: FlushOn | None = None,
    ) -> Callable[[AsyncIterable[T]], Stream[list[T]]]: ...
    def pipe(
        self,
        gap: Seconds,
        *,
        max_duration: Seconds = math.inf,
        n: int | None = None,
        key: Callable[[T], object] | None = None,
        max_keys: int | None = None,
        flush_on: FlushOn | None = None,
    ) -> Callable[[AsyncIterable[T]], Stream[list[T]]]:
        return self._piped(
            gap, max_duration=max_duration, n=n, key=key, max_keys=max_keys, flush_on=flush_on
        )

    def raw(
        self,
        source: AsyncIterable[T],
        gap: Seconds,
        *,
        max_duration: Seconds = math.inf,
        n: int | None = None,
        key: Callable[[T], object] | None = None,
        max_keys: int | None = None,
        flush_on: FlushOn | None = None,
    ) -> AsyncIterator[list[T]]:
        return Reader(SessionPump(source, gap, max_duration, n, key, max_keys, flush_on))


sessions: Final = _Sessions("returns_pipeline.windows.sessions")
"""Group items into lists that a silence ends."""


def _same_key(_: object) -> None:
    """Return the same key for all items."""


class _Session(list[Any]):
    """An open session: its number in the order of opening, its latest end, its last item's time.

    In a marked chain, its span as well.

    Without an ``__init__``: it would take as long as all else that opening a session does.
    """

    __slots__ = ("end", "key", "last", "number", "since", "span", "why")

    key: object
    number: int
    end: float
    last: float
    since: float  # when its first item came, if it is observed
    span: Span
    why: telemetry.WindowReason  # it is emitted; set when it is queued


class SessionPump(DeadlinePump):
    """The sessions of all keys. A failure flushes them and is emitted last.

    Every open session is in both ``_by_silence`` and ``_by_age``; one that is due is in neither.
    """

    __slots__ = (
        "_by_age",
        "_by_silence",
        "_gap",
        "_key",
        "_max_duration",
        "_max_keys",
        "_n",
        "_opened",
        "_soonest",
    )

    fill = ends.window(
        "sessions",
        "key_of, n, silent = self._key, self._n, self._by_silence",
        """\
OPEN
key = key_of(value)
now = self.now()
window = silent.get(key)
if window is None or now >= self._soonest or self.due:
    waiting = self._admit(key, value, now)
    WAIT
else:
    window.last = now
    silent.move_to_end(key)
    window.append(value)
    if len(window) >= n:
        waiting = self._emit(window, "size")
        WAIT
NEXT
""",
        takes_slices=True,
    )

    operator = "sessions"

    def __init__(
        self,
        source: AsyncIterable[Any],
        gap: Seconds,
        max_duration: Seconds,
        n: int | None,
        key: Callable[[Any], object] | None,
        max_keys: int | None,
        flush_on: FlushOn | None = None,
    ) -> None:
        super().__init__(source, flush_on)
        self._gap = checks.seconds("gap", gap)
        self._max_duration = checks.seconds("max_duration", max_duration)
        self._n = math.inf if n is None else checks.count("n", n)
        self._max_keys = math.inf if max_keys is None else checks.count("max_keys", max_keys)
        checks.item_function("key", key, optional=True)
        self._key = _same_key if key is None else key
        self._opened = 0
        self._by_silence: OrderedDict[object, _Session] = OrderedDict()  # longest silent first
        self._by_age: OrderedDict[object, _Session] = OrderedDict()  # oldest first
        self._soonest = math.inf  # no deadline is before it

    def bounds(self) -> str:
        return "" if self._n == math.inf else f"holds up to {self._n} of each session"

    def room(self) -> int:
        return int(min(self._n, super().room()))

    def held(self) -> int:
        return super().held() + sum(map(len, self._by_age.values()))

    def open_windows(self) -> tuple[int, float | None]:
        return len(self._by_age), None

    def take(self) -> Any:
        taken = self.due.popleft()
        if not self.due:
            self.resume()
        if taken.__class__ is not _Session:
            return taken  # a failure
        if self.stage is not None:
            self.report(len(taken), taken.why, taken.since)
        return taken[:]

    def next_deadline(self) -> float:
        if not self._by_silence:
            return math.inf
        return min(
            next(iter(self._by_silence.values())).last + self._gap,
            next(iter(self._by_age.values())).end,
        )

    def expire(self, now: float, why: telemetry.WindowReason = "time") -> None:
        silent, by_age = self._by_silence, self._by_age
        over: list[tuple[float, int, _Session]] = []
        while silent and (window := next(iter(silent.values()))).last + self._gap <= now:
            over.append((min(window.last + self._gap, window.end), window.number, window))
            is_silent = why == "time" and window.last + self._gap <= window.end
            self._close(window, "gap" if is_silent else why)
        while by_age and (window := next(iter(by_age.values()))).end <= now:
            over.append((window.end, window.number, window))
            self._close(window, why)
        over.sort()
        self.due.extend(window for _, _, window in over)

    def flush(self, why: telemetry.WindowReason) -> None:
        for window in self._by_age.values():
            window.why = why
            self.due.append(window)
        self._by_age.clear()
        self._by_silence.clear()

    def discard(self) -> None:
        super().discard()
        self._by_age.clear()
        self._by_silence.clear()

    def _open(self, key: object, now: float) -> _Session:
        self._opened += 1
        window = _Session()
        window.key = key
        window.number = self._opened
        window.end = now + self._max_duration
        window.last = now
        if self.stage is not None:
            window.since = self.loop.time()
        self._by_silence[key] = self._by_age[key] = window
        self.arm()
        return window

    def _close(self, window: _Session, why: telemetry.WindowReason) -> None:
        window.why = why
        del self._by_silence[window.key]
        del self._by_age[window.key]

    async def _emit(self, window: _Session, why: telemetry.WindowReason) -> None:
        """Emit a session before its deadline."""
        self._close(window, why)
        self.due.append(window)
        await self.wait_with_clock_paused()

    async def _admit(self, key: object, item: Any, now: float) -> None:
        """Put an item where no session of its key is open, or where one may be due."""
        self.expire(now)
        if self.due:
            await self.wait_with_clock_paused()
        window = self._by_silence.get(key)
        if window is None:
            if len(self._by_silence) >= self._max_keys:
                await self._emit(next(iter(self._by_silence.values())), "evicted")
            window = self._open(key, now)
        else:
            window.last = now
            self._by_silence.move_to_end(key)
        self._soonest = self.next_deadline()
        window.append(item)
        if len(window) >= self._n:
            await self._emit(window, "size")


class MarkedSessionPump(CarriesMarks[BySpan], SessionPump):
    """Emits a mark when all sessions that were open when it came have been emitted."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.marks = BySpan()

    def _open(self, key: object, now: float) -> _Session:
        window = super()._open(key, now)
        window.span = self.marks.begun()
        return window

    def keep(self, mark: Mark) -> None:
        if mark.flushes:
            self.flush_for_credit()
        self.marks.put(mark)

    def take_item(self) -> Any:
        window = self.due[0]
        item = super().take_item()
        if window.__class__ is _Session:
            self.marks.gone(window.span)
        return item
