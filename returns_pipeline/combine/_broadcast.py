"""One stream read by several: all of it by each, or each item by one of two."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar, overload

from aiostream import Stream, stream

from returns_pipeline._engine.fan_in import BUFFER, check_source
from returns_pipeline._engine.operator import QuickStreamer, check_at_least, plain_iterator
from returns_pipeline._engine.reader import Pump, Reader, error_of, notify, wait_done
from returns_pipeline.errors import BufferOverflow, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable

    from aiostream.core import Streamer
    from typing_extensions import TypeIs

__all__ = ["SPLIT_BUFFER", "Branch", "broadcast", "split"]

A = TypeVar("A")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_log = logging.getLogger("returns_pipeline")

# How many items one side of a split may hold, unless the user says so: enough to read a small
# stream's one side to its end, and then the other.
SPLIT_BUFFER: Final = 1024


class Branch(Stream[T_co], Generic[T_co]):
    """One of the streams that a source was shared out to.

    It can be read once: its items are gone when they are read. ``async with branch.stream()``
    leaves at its end; so does a branch that is dropped.

    Attributes:
        place: Which of the branches it is, from 0.
    """

    def __init__(self, tap: _Tap[T_co]) -> None:
        """Not for callers: `broadcast` and `split` make branches."""
        self.place: int = tap.place
        self._tap = tap
        self._reader: _TapReader[T_co] | None = _TapReader(tap)
        super().__init__(stream.empty)
        # It opens its reader itself. The generator that a stream would open others by refers to
        # the stream: a branch that is dropped has to be noticed at once, not by the collector.
        self._generator = iter(())

    @property
    def dropped(self) -> int:
        """How many items it did not get so far: it was too slow for them, or had left."""
        return self._tap.dropped

    def stream(self) -> Streamer[T_co]:
        """Open the branch for reading: ``async with branch.stream() as items``.

        Raises:
            RuntimeError: It was opened before.
        """
        reader, self._reader = self._reader, None
        if reader is None:
            raise RuntimeError("a branch can be read once; ask for one more branch")
        return QuickStreamer(reader)

    def __aiter__(self) -> Streamer[T_co]:
        return self.stream()

    async def aclose(self) -> None:
        """Leave without reading; if it was opened, whoever reads it closes it.

        The last branch to leave stops the source and awaits its clean-up.
        """
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader.aclose()


class _Tap(Pump[T]):
    """One branch's side of the source: what it is still to get."""

    __slots__ = ("dropped", "gap", "hub", "items", "over", "place", "reached")

    def __init__(self, hub: _Hub[T], place: int) -> None:
        super().__init__()
        self.hub: _Hub[T] = hub
        self.gap: int = 0  # items dropped since the last one that was given out
        self.place: int = place
        self.items: deque[T] = deque()
        self.dropped: int = 0
        self.over: asyncio.Future[None] | None = None
        self.reached: bool = False  # nothing more will come

    def start(self) -> None:
        super().start()
        self.hub.start(self.loop)

    async def pump(self) -> None:
        if not self.reached:
            self.over = self.loop.create_future()
            await self.over
        if self.error is not None:
            raise self.error

    def end(self, error: BaseException | None) -> None:
        """Say that nothing more will come."""
        self.reached = True
        self.error = error
        notify(self.over)

    def has_next(self) -> bool:
        return bool(self.items)

    def take(self) -> T:
        if self.gap:
            gap, self.gap = self.gap, 0
            self.hub.report(self.place, gap)
        item = self.items.popleft()
        notify(self.hub.room)
        self.hub.room = None  # once is enough: the reads that follow find the short way
        return item

    def drop(self, count: int = 1) -> None:
        self.dropped += count
        self.gap += count

    def discard(self) -> None:
        self.items.clear()
        self.gap = 0
        self.hub.leave(self)


class _TapReader(Reader[T]):
    """A reader that can leave without ever having read."""

    __slots__ = ("_hub", "_items", "_tap")

    def __init__(self, tap: _Tap[T]) -> None:
        super().__init__(tap)
        self._tap = tap
        self._items = tap.items
        self._hub = tap.hub

    async def __anext__(self) -> T:
        if self._items and self._hub.room is None and not self._tap.gap:
            return self._items.popleft()
        return await super().__anext__()

    async def aclose(self) -> None:
        try:
            await super().aclose()
        finally:
            self._hub.leave(self._tap)
            await self._hub.close()

    def __del__(self) -> None:
        super().__del__()
        if not self._started and not self._closed:
            hub = self._hub
            if hub.loop is None:
                hub.leave(self._tap)
            else:
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    hub.loop.call_soon_threadsafe(hub.leave, self._tap)


class _Hub(Generic[T]):
    """The source, and the task that reads it for all branches."""

    def __init__(
        self,
        source: AsyncIterable[T],
        n: int,
        buffer: int,
        overflow: str,
        on_drop: Callable[[int, int], object] | None,
    ) -> None:
        self._source = source
        self._buffer = buffer
        self._overflow = overflow
        self._on_drop = on_drop
        self.taps: list[_Tap[T]] = [
            _Tap(self, place) for place in range(n)
        ]  # of those that have not left
        self.loop: asyncio.AbstractEventLoop | None = None
        self.room: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the task that reads the source, for the first who reads."""
        if self._task is None:
            self.loop = loop
            self._task = loop.create_task(self._run())

    def leave(self, tap: _Tap[T]) -> None:
        """Give a branch no more items; without any, stop the source."""
        if tap not in self.taps:
            return
        self.taps.remove(tap)
        tap.items.clear()
        notify(self.room)
        if not self.taps and self._task is not None and not self._task.done():
            self._closing = True
            self._task.cancel()

    async def close(self) -> None:
        """Wait for the clean-up of the source if no branch is left, and raise its error."""
        task = self._task
        if not self._closing or task is None:
            return
        self._task = None  # one raises it
        await wait_done(task)
        if (error := error_of(task)) is not None:
            raise error

    def report(self, place: int, gap: int) -> None:
        """Tell of dropped items."""
        if self._on_drop is not None:
            self._on_drop(place, gap)
        else:
            _log.warning(
                "a slow reader, branch %d of a broadcast, did not get %d items", place, gap
            )

    async def _run(self) -> None:
        error: BaseException | None = None
        try:
            async with plain_iterator(self._source) as items:
                await self._read(items)
        except BaseException as raised:
            if self._closing:
                raise  # whoever closes raises it
            error = raised
            if isinstance(raised, KeyboardInterrupt | SystemExit):
                raise
        finally:
            for tap in self.taps:
                if not tap.reached:
                    tap.end(error)

    async def _read(self, items: Any) -> None:
        async for item in items:
            if self._closing or not await self._deliver(item):
                return

    async def _deliver(self, item: T) -> bool:
        """Hand an item to the branches that are to get it, and see to it that there is room."""
        buffer = self._buffer
        crowded = False  # whether one is full now, or has failed
        for tap in self.taps:
            waiting = tap.items
            if len(waiting) >= buffer:  # it had its chance
                if self._overflow == "fail":
                    if not tap.reached:
                        tap.end(BufferOverflow(tap.place, buffer))
                    crowded = True
                    continue
                waiting.popleft()
                tap.drop()
            elif tap.reached:
                crowded = True
                continue
            waiting.append(item)
            held = len(waiting)
            if held == 1 and tap.ready is not None:
                tap.notify_reader()
            if held >= buffer:
                crowded = True
        if not crowded:
            return True
        if self._overflow == "backpressure":
            await self._wait_for_room(self.taps)
        else:
            await asyncio.sleep(0)  # readers that are ready to go on do so now
        return any(not tap.reached for tap in self.taps)

    async def _wait_for_room(self, taps: list[_Tap[T]]) -> None:
        while any(len(tap.items) >= self._buffer for tap in taps):
            self.room = asyncio.get_running_loop().create_future()
            try:
                await self.room
            finally:
                self.room = None


@overload
def broadcast(
    source: AsyncIterable[T],
    n: Literal[2],
    *,
    buffer: int = BUFFER,
    overflow: Literal["backpressure", "drop_oldest", "fail"] = "backpressure",
    on_drop: Callable[[int, int], object] | None = None,
) -> tuple[Branch[T], Branch[T]]: ...
@overload
def broadcast(
    source: AsyncIterable[T],
    n: Literal[3],
    *,
    buffer: int = BUFFER,
    overflow: Literal["backpressure", "drop_oldest", "fail"] = "backpressure",
    on_drop: Callable[[int, int], object] | None = None,
) -> tuple[Branch[T], Branch[T], Branch[T]]: ...
@overload
def broadcast(
    source: AsyncIterable[T],
    n: int,
    *,
    buffer: int = BUFFER,
    overflow: Literal["backpressure", "drop_oldest", "fail"] = "backpressure",
    on_drop: Callable[[int, int], object] | None = None,
) -> tuple[Branch[T], ...]: ...
def broadcast(
    source: AsyncIterable[T],
    n: int,
    *,
    buffer: int = BUFFER,
    overflow: Literal["backpressure", "drop_oldest", "fail"] = "backpressure",
    on_drop: Callable[[int, int], object] | None = None,
) -> tuple[Branch[T], ...]:
    """Give every item of a source to each of ``n`` branches.

    1. A branch gives an item out when the source has given it, in order. All branches are there
       from the start: one that is read later finds what has been held for it.
    2. The source is opened when the first branch is read, and is read once.
    3. When it has ended or failed, each branch gives out what is held for it and then ends, or
       raises the same error: a failed source is no clean end for anybody.
    4. A branch that is closed or dropped has left; the others go on. The last one to leave stops
       the source; closing awaits its clean-up.

    Bounds: ``buffer`` items are held for each branch. When one of them holds that many,

    - ``"backpressure"``: the source is not read until it has room. A branch that nobody reads stops
      the others: close it.
    - ``"drop_oldest"``: its oldest item makes room for the next. The branch counts them in
      ``dropped``, and when it is read again, ``on_drop`` is told its place and how many are gone;
      without one, a warning is logged.
    - ``"fail"``: the branch gives out what it holds and then raises `BufferOverflow`; it has left.

    A branch whose reader is ready to go on is given the chance to, before it counts as slow, also
    if the source never suspends.

    Order of events: the source runs in one task from its first item to its clean-up, on a copy of
    the context variables of the first reader.

    Cancel safety: a read that is cancelled loses nothing. What a reader raises is not thrown into
    the source, nor into other branches.

    Known elsewhere as: ``broadcastThrough``, ``Topic`` (fs2), ``BroadcastHub`` (Akka and Pekko),
    ``broadcast`` (Effect; tokio's ``sync::broadcast``, which drops the oldest), ``share``,
    ``publish`` (Rx), ``tee``.

    Args:
        source: Read one item at a time.
        n: How many branches, at least 1.
        buffer: How many items are held for each, at least 1.
        overflow: What becomes of a branch that is too slow.
        on_drop: Called with the place of a branch and a number of items that it did not get, in
            the task that reads it, before the next item that it gets. What it raises, the read
            raises.

    Returns:
        The branches. Each is a stream that can be read once.

    Raises:
        InvalidArgument: At the call, if ``n``, ``buffer`` or ``overflow`` is out of range.
        TypeError: At the call, if ``source`` is not an async iterable.
        BufferOverflow: From a branch that was too slow, if so chosen.
        Exception: From every branch, what the source raised, after the items held.

    >>> import asyncio
    >>> from returns_pipeline.testing import run, script, timeline
    >>> async def main() -> None:
    ...     left, right = broadcast(script("a-b|"), 2)
    ...     for seen in await asyncio.gather(timeline(left), timeline(right, pause=3.0)):
    ...         print(seen)
    >>> run(main())
    [(0.0, 'a'), (2.0, 'b')]
    [(0.0, 'a'), (3.0, 'b')]
    """
    check_source(source)
    check_at_least("n", n, 1)
    check_at_least("buffer", buffer, 1)
    if overflow not in {"backpressure", "drop_oldest", "fail"}:
        raise InvalidArgument(
            f"overflow must be 'backpressure', 'drop_oldest' or 'fail', not {overflow!r}"
        )
    hub: _Hub[T] = _Hub(source, n, buffer, overflow, on_drop)
    return tuple([Branch(tap) for tap in hub.taps])


class _Splitter(_Hub[T]):
    """Gives each item to one of two."""

    def __init__(
        self, source: AsyncIterable[T], predicate: Callable[[T], object], buffer: int, overflow: str
    ) -> None:
        super().__init__(source, 2, buffer, overflow, None)
        self._predicate = predicate
        self._sides = tuple(self.taps)

    async def _deliver(self, item: T) -> bool:
        tap = self._sides[0 if self._predicate(item) else 1]
        if tap not in self.taps:
            tap.dropped += 1
            return True
        if len(tap.items) >= self._buffer:  # only if a full side is to fail: it had its chance
            raise BufferOverflow(tap.place, self._buffer)
        tap.items.append(item)
        if len(tap.items) == 1:
            tap.notify_reader()
        if len(tap.items) >= self._buffer:
            if self._overflow == "backpressure":
                await self._wait_for_room([tap])
            else:
                await asyncio.sleep(0)
        return True


@overload
def split(
    source: AsyncIterable[T],
    predicate: Callable[[T], TypeIs[A]],
    *,
    buffer: int = SPLIT_BUFFER,
    overflow: Literal["backpressure", "fail"] = "backpressure",
) -> tuple[Branch[A], Branch[T]]: ...
@overload
def split(
    source: AsyncIterable[T],
    predicate: Callable[[T], object],
    *,
    buffer: int = SPLIT_BUFFER,
    overflow: Literal["backpressure", "fail"] = "backpressure",
) -> tuple[Branch[T], Branch[T]]: ...
def split(
    source: AsyncIterable[Any],
    predicate: Callable[[Any], object],
    *,
    buffer: int = SPLIT_BUFFER,
    overflow: Literal["backpressure", "fail"] = "backpressure",
) -> tuple[Branch[Any], Branch[Any]]:
    """Give the items for which ``predicate`` is true to one branch, the others to a second one.

    1. A branch gives an item out when the source has given it, in order. What comes for the other
       branch meanwhile is held for it, so the two may be read in any order, also one after the
       other, while no more than ``buffer`` items have to be held.
    2. The source is opened when the first branch is read, and is read once.
    3. When it has ended or failed, or ``predicate`` has, both branches give out what is held for
       them and then end, or raise the same error.
    4. A branch that is closed or dropped has left; the other goes on. Items for a branch that has
       left are counted in its ``dropped``. When both have left, the source is stopped.

    Bounds: ``buffer`` items are held for each branch. When one of them holds that many,

    - ``"backpressure"``: the source is not read until it has room: the other branch waits for this
      one to be read. Do not read one to its end first if that many items may come for the other.
    - ``"fail"``: when the next item comes for it, both give out what they hold and then raise
      `BufferOverflow`.

    Order of events and cancel safety: as `broadcast`.

    Known elsewhere as: ``split`` (Rx, Effect, Akka and Pekko), ``Either``'s ``separate``.

    Args:
        source: Read one item at a time.
        predicate: Says where an item belongs. With one that is typed as a ``TypeIs``, the first
            branch has the narrower type.
        buffer: How many items are held for each branch, at least 1.
        overflow: What happens when a branch is too slow.

    Returns:
        The branch of the items for which it is true, and the other one. Each can be read once.

    Raises:
        InvalidArgument: At the call, if ``buffer`` or ``overflow`` is none of what it may be.
        TypeError: At the call, if ``source`` is not an async iterable.
        BufferOverflow: From both branches, when one was too slow, if so chosen.
        Exception: From both branches, what the source or ``predicate`` raised, after the items
            held.

    >>> from aiostream import stream
    >>> from returns_pipeline.testing import run
    >>> async def main() -> None:
    ...     even, odd = split(stream.range(5), lambda n: n % 2 == 0)
    ...     print(await stream.list(odd), await stream.list(even))
    >>> run(main())
    [1, 3] [0, 2, 4]
    """
    check_source(source)
    check_at_least("buffer", buffer, 1)
    if overflow not in {"backpressure", "fail"}:
        raise InvalidArgument(f"overflow must be 'backpressure' or 'fail', not {overflow!r}")
    left, right = _Splitter(source, predicate, buffer, overflow).taps
    return Branch(left), Branch(right)
