"""Windows of which many are open at a time: one for each key.

One task reads the source and one timer serves all keys. No heap is needed for it: windows are kept
in the order of their deadlines, which is the order in which they were opened (or, where silence
closes them, last added to). So a window costs a dictionary entry, however many there are.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, Generic, Never, TypeVar, cast, overload

from returns_pipeline._engine.operator import operator
from returns_pipeline._engine.reader import Reader
from returns_pipeline.windows._deadlines import MAX_SLICE, DuePump, check_count, check_seconds

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable

    from aiostream import Stream

__all__ = [
    "check_keyed",
    "check_sessions",
    "flushing_keyed_chunks",
    "flushing_sessions",
    "keyed_chunks",
    "sessions",
]

F = TypeVar("F")
K = TypeVar("K")
T = TypeVar("T")


@operator
def keyed_chunks(
    source: AsyncIterable[T],
    n: int,
    timeout: float,
    *,
    key: Callable[[T], K],
    max_keys: int | None = None,
) -> AsyncIterator[tuple[K, list[T]]]:
    """Group items into lists by key, each given out with its key by its size or its age.

    A list is given out when

    1. it holds ``n`` items,
    2. ``timeout`` seconds have passed since its first item,
    3. a list for a new key is to be opened, ``max_keys`` are open, and it is the oldest, or
    4. the source has ended (or failed): then all that are open, the oldest first.

    Lists come out in the order in which they become due, of several at one instant the one opened
    first. Every item comes out exactly once, in order within its key; no list is empty. The time
    counts from each list's own first item. A reader that comes late gets at once what has gathered
    in a list until then, up to ``n``.

    Bounds: at most ``n`` items for each key are held, and at most ``max_keys`` lists are open. The
    source waits while a list that is full, or had to go for a new key, is not taken; and, once it
    has opened one more, while those that are due hold ``n`` items. Without ``max_keys`` the number
    of keys that have an open list is not limited. All keys together have one task and one timer.

    Order of events: ``key`` is called once for each item, in the order of the source, in the task
    that runs the source. If it raises, all open lists come out and then that exception; the source
    is closed.

    Cancel safety: a read that is cancelled loses nothing, the next one goes on where it was.
    ``aclose()`` stops the source, awaits its clean-up and drops what is held. What a reader
    raises is not thrown into the source.

    Known elsewhere as ``groupBy`` and ``groupedWithin`` and ``mergeSubstreams`` together (Akka and
    Pekko Streams), ``groupByKey`` with ``groupedWithin`` (Effect, ZIO), ``groupBy`` with
    ``bufferTimeOrCount`` (Rx).

    Args:
        source: Read one item at a time, from the first list asked for.
        n: Items in a full list, at least 1.
        timeout: Seconds from a list's first item to its giving out, above 0; ``math.inf`` for no
            limit. On the running loop's clock.
        key: What an item belongs to; hashable.
        max_keys: How many lists may be open at a time, at least 1; `None` for no limit.

    Returns:
        A stream of pairs: a key, and a list of items that have it.

    Raises:
        InvalidArgument: At the call, if ``n``, ``timeout`` or ``max_keys`` is out of range.
        TypeError: At the call, if ``source`` is not an async iterable. While reading, after all
            lists, if a key cannot be hashed.
        Exception: What the source or ``key`` raised, after the last list.

    >>> from returns_pipeline.testing import run, timed
    >>> words = timed("apple", "bean", "avocado", "beet", "corn")
    >>> async def main() -> list[tuple[str, list[str]]]:
    ...     async with keyed_chunks(words, 2, 5.0, key=lambda word: word[0]).stream() as chunks:
    ...         return [chunk async for chunk in chunks]
    >>> run(main())
    [('a', ['apple', 'avocado']), ('b', ['bean', 'beet']), ('c', ['corn'])]
    """
    check_keyed(n, timeout, max_keys)
    pump: _KeyedPump[K, T, Never] = _KeyedPump(source, n, timeout, key, max_keys, None)
    return Reader(pump)


def flushing_keyed_chunks(
    source: AsyncIterable[T | F],
    n: int,
    timeout: float,
    *,
    key: Callable[[T], K],
    max_keys: int | None,
    flushed_by: type[F],
) -> AsyncIterator[tuple[K, list[T]] | F]:
    """Do as `keyed_chunks`; an item of class ``flushed_by`` flushes all, and comes out as it is."""
    check_keyed(n, timeout, max_keys)
    pump: _KeyedPump[K, T, F] = _KeyedPump(source, n, timeout, key, max_keys, flushed_by)
    return Reader(pump)


def check_keyed(n: int, timeout: float, max_keys: int | None) -> None:
    """Refuse windows that could never hold anything, or never be given out."""
    check_count("n", n)
    check_seconds("timeout", timeout)
    if max_keys is not None:
        check_count("max_keys", max_keys)


# The key of an item that goes alone: no window has it.
_ALONE = object()


def _letting_alone(key: Callable[[T], object], alone: type | None) -> Callable[[Any], Any]:
    """Give a key function that sends the items of a class another way than the others."""
    if alone is None:
        return key
    return lambda item: _ALONE if item.__class__ is alone else key(item)


class _Keyed(list[T]):
    """An open list with its key and the time at which it is due.

    Without an ``__init__``: it would take as long as all else that opening a list does.
    """

    __slots__ = ("deadline", "key")

    key: Any
    deadline: float


class _KeyedPump(DuePump["tuple[K, list[T]] | F"], Generic[K, T, F]):
    __slots__ = ("_alone", "_filling", "_held", "_key", "_max_keys", "_n", "_open", "_timeout")

    def __init__(
        self,
        source: AsyncIterable[Any],
        n: int,
        timeout: float,
        key: Callable[[T], K],
        max_keys: int | None,
        alone: type[F] | None,
    ) -> None:
        super().__init__(source)
        self._n = n
        self._timeout = timeout
        self._key = _letting_alone(key, alone)
        self._max_keys = math.inf if max_keys is None else max_keys
        self._alone = alone
        # In the order of their deadlines. A plain dictionary finds its first entry slowly once
        # many have gone from its front.
        self._open: OrderedDict[object, _Keyed[T]] = OrderedDict()
        self._filling: dict[object, _Keyed[T]] = {}  # due by age and not yet taken, with room
        self._held = 0  # how many items are due

    def take(self) -> tuple[K, list[T]] | F:
        taken: Any = self.due.popleft()
        self.make_room()
        if taken.__class__ is not _Keyed:
            return cast("F", taken)  # nothing else stands in the queue
        window: _Keyed[T] = taken
        self._held -= len(window)
        if self._filling.get(window.key) is window:
            del self._filling[window.key]
        return window.key, window[:]

    def next_deadline(self) -> float:
        return next(iter(self._open.values())).deadline if self._open else math.inf

    def expire(self, now: float) -> None:
        opened = self._open
        while opened and next(iter(opened.values())).deadline <= now:
            key, window = opened.popitem(last=False)
            self._filling[key] = window
            self._put(window)

    def flush(self) -> None:
        for window in self._open.values():
            self._put(window)
        self._open.clear()
        self._filling.clear()

    def discard(self) -> None:
        super().discard()
        self._open.clear()  # so that the next item of the source is looked at
        self._filling.clear()

    def _put(self, window: _Keyed[T]) -> None:
        self.due.append(window)
        self._held += len(window)

    async def fill(self, source: AsyncIterator[Any]) -> None:
        key_of = self._key
        n = self._n
        opened = self._open
        find = opened.get
        left = 1
        async for item in source:
            key = key_of(item)
            window = find(key)
            if window is None:
                if self.closed:
                    break
                await self._admit(key, item)
                continue
            window.append(item)
            if len(window) >= n:
                del opened[key]
                self._put(window)
                await self._wait_for_room()
            left -= 1
            if not left:
                left = await self.look_up(self.now())

    async def _admit(self, key: object, item: Any) -> None:
        """Put an item where no window of its key is open."""
        if key is _ALONE:
            await self.give_alone(item)
            return
        window = self._filling.get(key)
        if window is None and len(self._open) >= self._max_keys:
            self._put(self._open.popitem(last=False)[1])
            await self.wait_until_taken()
        now = self.now()
        if window is not None:  # the reader is late: until it comes, the list goes on filling
            window.append(item)
            self._held += 1
        else:
            opened: _Keyed[T] = _Keyed((item,))
            opened.key = key
            opened.deadline = now + self._timeout
            if self._n == 1:
                self._put(opened)
            else:
                self._open[key] = opened
                self.arm()
        if self._held >= self._n:
            await self._wait_for_room()
        if self.must_pause(now):
            await self.look_up(now)

    async def _wait_for_room(self) -> None:
        if self.reading:
            await self.yield_to_reader()
        while self._held >= self._n:
            await self.wait_for_reader()


@operator
def _sessions(
    source: AsyncIterable[T],
    gap: float,
    *,
    max_duration: float = math.inf,
    n: int | None = None,
    key: Callable[[T], object] | None = None,
    max_keys: int | None = None,
) -> AsyncIterator[list[T]]:
    """Group items into lists that a silence ends.

    A list is given out when

    1. ``gap`` seconds have passed without an item,
    2. ``max_duration`` seconds have passed since its first item,
    3. it holds ``n`` items, if ``n`` is given,
    4. a list for a new key is to be opened, ``max_keys`` are open, and it is the one silent for
       longest, or
    5. the source has ended (or failed): then all that are open, the oldest first.

    With a ``key`` each key has a list and a silence of its own; the key of a list is that of any
    of its items. An item that comes exactly ``gap`` seconds after the last one begins a new list.

    Lists come out in the order in which they become due, of several at one instant the one opened
    first. Every item comes out exactly once, in order within its key; no list is empty.

    The clock stands still while the source waits for the reader: a reader that takes its time does
    not make a silence, and the lists are those that a fast one would get.

    Bounds: the source waits, with one item in hand, while a list that is due is not taken. Open
    lists are bounded by ``n``, and by ``max_duration`` as far as the source's rate is bounded;
    a session without either is as long as its source talks. At most ``max_keys`` are open; without
    it, the number of keys that have an open list is not limited. All keys together have one task
    and one timer.

    Order of events: ``key`` is called once for each item, in the order of the source, in the task
    that runs the source. If it raises, all open lists come out and then that exception; the source
    is closed.

    Cancel safety: a read that is cancelled loses nothing, the next one goes on where it was.
    ``aclose()`` stops the source, awaits its clean-up and drops what is held. What a reader
    raises is not thrown into the source.

    Known elsewhere as ``buffer`` closed by ``debounce`` (Rx), session windows (Flink, Beam, Kafka
    Streams); those of event time are `event_windows` with `SessionWindows`.

    Args:
        source: Read one item at a time, from the first list asked for.
        gap: Seconds of silence that end a list, above 0. On the running loop's clock.
        max_duration: Seconds from a list's first item to its giving out at the latest, above 0;
            ``math.inf`` for no limit.
        n: Items in a full list, at least 1; `None` for no limit.
        key: What an item belongs to, hashable; `None` if all belong together.
        max_keys: How many lists may be open at a time, at least 1; `None` for no limit.

    Returns:
        A stream of lists.

    Raises:
        InvalidArgument: At the call, if ``gap``, ``max_duration``, ``n`` or ``max_keys`` is out of
            range.
        TypeError: At the call, if ``source`` is not an async iterable. While reading, after all
            lists, if a key cannot be hashed.
        Exception: What the source or ``key`` raised, after the last list.

    >>> from returns_pipeline.testing import run, script, timeline
    >>> run(timeline(sessions(script("ab-c-----d|"), 3.0)))
    [(6.0, ['a', 'b', 'c']), (10.0, ['d'])]
    """
    check_sessions(gap, max_duration, n, max_keys)
    pump: _SessionPump[T, Never] = _SessionPump(source, gap, max_duration, n, key, max_keys, None)
    return Reader(pump)


@overload
def _sessions_pipe(
    gap: float, *, max_duration: float = math.inf, n: int | None = None
) -> Callable[[AsyncIterable[T]], Stream[list[T]]]: ...


@overload
def _sessions_pipe(
    gap: float,
    *,
    max_duration: float = math.inf,
    n: int | None = None,
    key: Callable[[T], object] | None,
    max_keys: int | None = None,
) -> Callable[[AsyncIterable[T]], Stream[list[T]]]: ...


def _sessions_pipe(
    gap: float,
    *,
    max_duration: float = math.inf,
    n: int | None = None,
    key: Callable[[T], object] | None = None,
    max_keys: int | None = None,
) -> Callable[[AsyncIterable[T]], Stream[list[T]]]:
    """Give what stands behind ``|``: see `sessions`."""
    return _sessions.pipe(gap, max_duration=max_duration, n=n, key=key, max_keys=max_keys)


sessions: Final = _sessions.with_pipe(_sessions_pipe)


def flushing_sessions(
    source: AsyncIterable[T | F],
    gap: float,
    *,
    max_duration: float,
    n: int | None,
    key: Callable[[T], object] | None,
    max_keys: int | None,
    flushed_by: type[F],
) -> AsyncIterator[list[T] | F]:
    """Do as `sessions`; an item of class ``flushed_by`` flushes all, and comes out as it is."""
    check_sessions(gap, max_duration, n, max_keys)
    pump: _SessionPump[T, F] = _SessionPump(source, gap, max_duration, n, key, max_keys, flushed_by)
    return Reader(pump)


def check_sessions(gap: float, max_duration: float, n: int | None, max_keys: int | None) -> None:
    """Refuse windows that could never hold anything, or have no time."""
    check_seconds("gap", gap)
    check_seconds("max_duration", max_duration)
    if n is not None:
        check_count("n", n)
    if max_keys is not None:
        check_count("max_keys", max_keys)


def _no_key(_: object) -> None:
    """Let all items belong together."""


class _Session(list[T]):
    """An open session: its place among those opened, its latest end, its last item's time.

    Without an ``__init__``: it would take as long as all else that opening a session does.
    """

    __slots__ = ("end", "key", "last", "number")

    key: object
    number: int
    end: float
    last: float


class _SessionPump(DuePump["list[T] | F"], Generic[T, F]):
    __slots__ = (
        "_alone",
        "_by_age",
        "_gap",
        "_key",
        "_max_duration",
        "_max_keys",
        "_n",
        "_opened",
        "_silent",
    )

    def __init__(
        self,
        source: AsyncIterable[Any],
        gap: float,
        max_duration: float,
        n: int | None,
        key: Callable[[T], object] | None,
        max_keys: int | None,
        alone: type[F] | None,
    ) -> None:
        super().__init__(source)
        self._gap = gap
        self._max_duration = max_duration
        self._n = math.inf if n is None else n
        self._max_keys = math.inf if max_keys is None else max_keys
        self._key = _letting_alone(_no_key if key is None else key, alone)
        self._alone = alone
        self._opened = 0
        # All open sessions, twice: the longest silent first, and the oldest first.
        self._silent: OrderedDict[object, _Session[T]] = OrderedDict()
        self._by_age: OrderedDict[object, _Session[T]] = OrderedDict()

    def take(self) -> list[T] | F:
        taken: Any = self.due.popleft()
        if not self.due:
            self.make_room()
        if taken.__class__ is not _Session:
            return cast("F", taken)  # nothing else stands in the queue
        window: _Session[T] = taken
        return window[:]

    def next_deadline(self) -> float:
        if not self._silent:
            return math.inf
        return min(
            next(iter(self._silent.values())).last + self._gap,
            next(iter(self._by_age.values())).end,
        )

    def expire(self, now: float) -> None:
        silent, by_age = self._silent, self._by_age
        over: list[tuple[float, int, _Session[T]]] = []
        while silent and (window := next(iter(silent.values()))).last + self._gap <= now:
            over.append((min(window.last + self._gap, window.end), window.number, window))
            self._close(window)
        while by_age and (window := next(iter(by_age.values()))).end <= now:
            over.append((window.end, window.number, window))
            self._close(window)
        over.sort()
        self.due.extend(window for _, _, window in over)

    def flush(self) -> None:
        self.due.extend(self._by_age.values())
        self._by_age.clear()
        self._silent.clear()

    def discard(self) -> None:
        super().discard()
        self._by_age.clear()
        self._silent.clear()

    def _open(self, key: object, now: float) -> _Session[T]:
        self._opened += 1
        window: _Session[T] = _Session()
        window.key = key
        window.number = self._opened
        window.end = now + self._max_duration
        window.last = now
        self._silent[key] = self._by_age[key] = window
        self.arm()
        return window

    def _close(self, window: _Session[T]) -> None:
        del self._silent[window.key]
        del self._by_age[window.key]

    async def _give_out(self, window: _Session[T]) -> None:
        """Give one out before its time."""
        self._close(window)
        self.due.append(window)
        await self.wait_with_clock_stopped()

    async def fill(self, source: AsyncIterator[Any]) -> None:
        # One flat loop: a call per item would double its cost.
        key_of = self._key
        silent = self._silent
        n = self._n
        looked = self.now()
        soonest = math.inf  # no deadline is before it
        async for item in source:
            key = key_of(item)
            if self.closed:
                break
            if key is _ALONE:
                await self.give_alone(item)
                continue
            now = self.now()
            if now >= soonest or self.due:
                self.expire(now)
                if self.due:
                    await self.wait_with_clock_stopped()
                    looked = now = self.now()
                soonest = self.next_deadline()
            window = silent.get(key)
            if window is None:
                if len(silent) >= self._max_keys:
                    await self._give_out(next(iter(silent.values())))
                    looked = now = self.now()
                window = self._open(key, now)
                soonest = min(soonest, now + self._gap, window.end)
            else:
                window.last = now
                silent.move_to_end(key)
            window.append(item)
            if len(window) >= n:
                await self._give_out(window)
            elif now - looked > MAX_SLICE:
                await asyncio.sleep(0)
                looked = self.now()
