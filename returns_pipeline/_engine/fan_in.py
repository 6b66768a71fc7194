"""Several sources read at the same time, each in one task of its own, for one reader.

Everything that puts streams together is built on this: each source has a *lane*, which holds what
was read of it and not yet given out; what reads from the lanes decides what comes out next.

How far a lane runs ahead of the reader is found out while it runs. It starts with one item. Each
time the reader has taken all there was and waits for more, the lanes that it emptied may hold twice
as many, up to their bound, so that the change of tasks is paid once for many items; a reader that
is busy elsewhere when a lane goes on brings it back to one. This is how a congestion window starts
("slow start", RFC 5681): a lane is never ahead by more than one item more than were taken of it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from returns_pipeline._engine.cancellation import add_note
from returns_pipeline._engine.operator import plain_iterator
from returns_pipeline._engine.reader import NOTHING, Pump, Reader, error_of, notify

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Iterable

__all__ = [
    "BUFFER",
    "FairMerge",
    "FanIn",
    "Input",
    "check_source",
    "end_tasks",
    "relay",
]

T = TypeVar("T")
U = TypeVar("U")

# How many items of a source may be held for a reader that keeps up, unless the user says so.
BUFFER = 128


class Input(Generic[T]):
    """One source, and what was read of it.

    Attributes:
        source: What it reads.
        index: Its place among the lanes.
        items: Read and not yet drawn, in order.
        drawn: How many were drawn from it and are not yet given out.
        limit: How many it may hold, drawn or not.
        fixed: Whether that is for good.
        mark: It looks up from its loop when it has that many items.
        room: What it waits for while it is full.
        over: Whether its source has ended, and is closed.
    """

    __slots__ = ("drawn", "fixed", "index", "items", "limit", "mark", "over", "room", "source")

    def __init__(self, source: AsyncIterable[T], index: int) -> None:
        self.source: AsyncIterable[T] = source
        self.index: int = index
        self.items: list[T] = []
        self.drawn: int = 0
        self.limit: int = 1
        self.fixed: bool = False
        self.mark: int = 1
        self.room: asyncio.Future[None] | None = None
        self.over: bool = False

    def emptied(self) -> None:
        """Let the source go on: all its items are given out."""
        self.drawn = 0
        notify(self.room)


class FanIn(Pump[U], Generic[T, U]):
    """What the tasks that read the lanes, and the reader, share."""

    grows = False  # whether lanes are added while it runs

    def __init__(
        self, sources: Iterable[AsyncIterable[T]], buffer: int, out: deque[U] = NOTHING
    ) -> None:
        super().__init__(out)
        self.buffer: int = buffer
        self.lanes: list[Input[T]] = [Input(source, index) for index, source in enumerate(sources)]
        self.over: bool = False  # nothing more is to be read
        self._tasks: set[asyncio.Task[None]] = set()
        self._running = 0
        self._changed: asyncio.Future[None] | None = None

    # For those below to override: all are called between two steps of the loop, so they may not
    # wait, and see a state in which nothing is half done.

    def arrived(self, lane: Input[T]) -> None:
        """Take note of a lane that was empty and has an item now."""

    def left(self, lane: Input[T]) -> None:
        """Take note of a lane whose source has ended; it may still hold items."""

    def finish(self, error: BaseException | None = None) -> None:
        """Read no further; what is held may still come out, and then the error."""
        if not self.over:
            self.over = True
            self.error = error
            for lane in self.lanes:
                lane.mark = 0
            notify(self._changed)

    def discard(self) -> None:
        """Drop what is held: nobody wants it."""
        self.over = True
        for lane in self.lanes:
            lane.mark = 0
            lane.items.clear()

    async def pump(self) -> None:
        """Read all lanes to their ends; when one fails, stop the others.

        One lane alone is read here: its source shares the reader's context where that can be.
        """
        if len(self.lanes) == 1 and not self.grows:
            await self._read(self.lanes[0])
            return
        for lane in self.lanes:
            self.run_lane(lane)
        try:
            while self._running and not self.over:
                self._changed = self.loop.create_future()
                await self._changed
        except BaseException as error:
            if not self.over:
                self.finish(error)  # so that what the sources raise when cancelled is no news
            raise
        finally:
            await end_tasks(self._tasks)

    def run_lane(self, lane: Input[T]) -> None:
        """Read a lane in a task of its own."""
        self._running += 1
        task = self.loop.create_task(self._drive(lane))
        self._tasks.add(task)

    async def _drive(self, lane: Input[T]) -> None:
        try:
            if not self.over:
                await self._read(lane)
        except BaseException as error:
            self._failed(error)
            if self.closed or isinstance(error, KeyboardInterrupt | SystemExit):
                raise  # whoever closes raises it
        else:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.discard(task)
        finally:
            self._running -= 1
            if not self._running:
                notify(self._changed)

    def _failed(self, error: BaseException) -> None:
        """Keep the first error, and note the others on it."""
        if not self.over:
            self.finish(error)
        elif self.error is not None and not isinstance(error, asyncio.CancelledError):
            add_note(self.error, f"while its siblings were being cancelled, one raised {error!r}")
        elif not self.closed and not isinstance(error, asyncio.CancelledError):
            self.error = error  # of a clean-up, after a clean end

    async def _read(self, lane: Input[T]) -> None:
        async with plain_iterator(lane.source) as source:
            await self._fill(lane, source)
        lane.over = True
        if not self.over:
            self.left(lane)
            self.notify_reader()

    async def _fill(self, lane: Input[T], source: AsyncIterator[T]) -> None:
        items = lane.items
        async for item in source:
            items.append(item)
            if len(items) >= lane.mark:
                room = lane.limit - lane.drawn
                if len(items) == 1 < room and not self.over:
                    # What `_look_up` would do, without a coroutine for each item of a source that
                    # is slower than the reader.
                    lane.mark = room
                    self.arrived(lane)
                    notify(self.ready)
                elif not await self._look_up(lane):
                    break

    async def _look_up(self, lane: Input[T]) -> bool:
        """Tell of a first item, or wait for room; say whether to go on."""
        if self.closed:
            lane.items.clear()
            return False
        items = lane.items
        if len(items) == 1:
            self.arrived(lane)
            self.notify_reader()
        if self.reading and self._is_full(lane):
            await self.yield_to_reader()
            if not (items or lane.drawn):
                self._adapt(lane)
        while self._is_full(lane):
            lane.room = self.loop.create_future()
            try:
                await lane.room
            finally:
                lane.room = None
            self._adapt(lane)
        if self.over:
            return False
        lane.mark = max(lane.limit - lane.drawn, 1) if items else 1
        return True

    def _is_full(self, lane: Input[T]) -> bool:
        return len(lane.items) + lane.drawn >= lane.limit and not self.over

    def _adapt(self, lane: Input[T]) -> None:
        """Let a lane be further ahead of a reader that waits, and less of one that does not."""
        if not lane.fixed:
            lane.limit = min(2 * lane.limit, self.buffer) if self.reading else 1


class FairMerge(FanIn[T, U], Generic[T, U]):
    """Gives the items of all lanes out, in turn where several have some."""

    tags = False  # whether what is given out is more than the items

    def __init__(self, sources: Iterable[AsyncIterable[T]], buffer: int = BUFFER) -> None:
        # Drawn and to be given out next is all but the last of them,
        super().__init__(sources, buffer, deque())
        self._last: list[U] = []  # with which the sources go on
        self._drawn: list[Input[T]] = []  # the lanes they are from
        self._ready: list[Input[T]] = []  # with items, the longest waiting first

    def arrived(self, lane: Input[T]) -> None:
        """Put the lane behind those that wait longer."""
        self._ready.append(lane)

    def has_next(self) -> bool:
        """Say whether an item can be given out."""
        return bool(self._ready or self._last)

    def take(self) -> U:
        """Give the next one out, and let the sources go on when it was the last one drawn."""
        if self.out:
            return self.out.popleft()
        if not self._last:
            lane = self._ready[0]
            if len(lane.items) == 1:  # as with a source that is slower than the reader
                del self._ready[0]
                item: Any = lane.items.pop()
                lane.mark = 1
                if lane.room is not None:
                    notify(lane.room)
                return self.tagged(lane, item) if self.tags else item
            if lane.fixed:  # its source is to be ahead by so many all the time
                item = lane.items.pop(0)
                lane.mark = min(lane.mark, lane.limit)
                if lane.room is not None:
                    notify(lane.room)
                return self.tagged(lane, item)
            self._draw()
            if self.out:
                return self.out.popleft()
        for lane in self._drawn:
            lane.emptied()
        self._drawn.clear()
        return self._last.pop()

    def discard(self) -> None:
        """Drop what is held: nobody wants it."""
        super().discard()
        self.out.clear()
        self._last.clear()
        self._ready.clear()

    def tagged(self, lane: Input[T], item: T) -> U:  # noqa: ARG002
        """Make of a lane's item what is given out."""
        return cast("U", item)

    def all_tagged(self, lane: Input[T], items: list[T]) -> Iterable[U]:  # noqa: ARG002
        """Do the same to many at once."""
        return cast("list[U]", items)

    def _draw(self) -> None:
        """Draw items to be given out, the same number from each lane that has some."""
        ready = self._ready
        count = 1
        lanes = ready
        if len(ready) == 1:
            count = len(ready[0].items)
        else:
            count = min([len(lane.items) for lane in ready])
            if count == 1:
                # One at a time, so that its source goes on at once.
                lanes = ready[:1]
        n = len(lanes)
        if n == 1:
            self.out.extend(self.all_tagged(lanes[0], lanes[0].items[:count]))
        else:
            mixed: list[Any] = [None] * (n * count)
            for place, lane in enumerate(lanes):
                mixed[place::n] = self.all_tagged(lane, lane.items[:count])
            self.out.extend(mixed)
        self._last.append(self.out.pop())
        left = ready[len(lanes) :]
        for lane in lanes:
            del lane.items[:count]
            lane.drawn = count
            lane.mark = len(lane.items) + 1
            if lane.items:
                left.append(lane)
        self._drawn = lanes
        self._ready = left


def relay(
    source: AsyncIterable[T], *, buffer: int = BUFFER, fixed: bool = False
) -> AsyncIterator[T]:
    """Read a source in one task, from its first item to its clean-up.

    Args:
        source: Usually an async generator that does an operator's work.
        buffer: How many items may be held.
        fixed: Whether that many are held from the start; else it is found out while it runs.
    """
    pump: FairMerge[T, T] = FairMerge([source], buffer)
    if fixed:
        pump.lanes[0].limit = buffer
        pump.lanes[0].fixed = True
    return Reader(pump)


async def end_tasks(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until all have cleaned up; raise the first error, note the others.

    A cancellation meanwhile is passed on to them, and raised when they are done.
    """
    tasks = list(tasks)
    cancelled: asyncio.CancelledError | None = None
    for task in tasks:
        task.cancel()
    while pending := [task for task in tasks if not task.done()]:
        try:
            await asyncio.wait(pending)
        except asyncio.CancelledError as error:
            cancelled = error
            for task in pending:
                task.cancel()
    first: BaseException | None = None
    for task in tasks:
        if (raised := error_of(task)) is None:
            continue
        if first is None:
            first = raised
        else:
            add_note(first, f"while its siblings were being cancelled, one raised {raised!r}")
    if first is not None:
        raise first
    if cancelled is not None:
        raise cancelled


def check_source(source: object) -> None:
    """Refuse what cannot be read, at the call."""
    if not hasattr(source, "__aiter__"):
        raise TypeError(f"expected an async iterable, not {type(source).__name__!r}")
