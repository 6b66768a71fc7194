"""Windows: operators that group the items of a stream."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Generic, Never, TypeVar

from returns_pipeline._engine.deadlines import DeadlineTimer
from returns_pipeline._engine.operator import operator, plain_iterator
from returns_pipeline._engine.reader import Pump, Reader, checkpoint, notify
from returns_pipeline.windows._deadlines import MAX_SLICE, MAX_STRIDE, check_count, check_seconds

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterable, AsyncIterator

__all__ = ["check_window", "chunks_or_timeout", "flushing_chunks"]

T = TypeVar("T")
F = TypeVar("F")


@operator
def chunks_or_timeout(source: AsyncIterable[T], n: int, timeout: float) -> AsyncIterator[list[T]]:
    """Group items into lists, each given out by whichever comes first: its size or its age.

    A list is given out when

    1. it holds ``n`` items,
    2. ``timeout`` seconds have passed since its first item, or
    3. the source has ended (or failed) and it is not empty.

    Every item comes out exactly once, in order; no list is empty. The time counts from the list's
    first item: it does not restart with each item, nor run on while there is none. A reader that
    comes late gets at once what has gathered until then: lists fill up to ``n`` under load.

    Bounds: at most ``n`` items are held ahead of the reader; then the source waits.

    Order of events: the source is opened at the first read and runs in one task of its own from
    its first item to its clean-up. On Python 3.12 and later that task shares the reader's context
    variables both ways; on 3.11 it works on a copy of them.

    Cancel safety: a read that is cancelled loses nothing, the next one goes on where it was.
    ``aclose()`` stops the source, awaits its clean-up and drops what is held. What a reader
    raises is not thrown into the source.

    Known elsewhere as ``groupWithin`` (fs2), ``groupedWithin`` (Akka and Pekko Streams),
    ``bufferTimeout`` (Reactor), ``bufferWithTimeOrCount`` (Rx), ``chunks_timeout``
    (tokio-stream), ``aggregateWithin`` (Effect, ZIO).

    Args:
        source: Read one item at a time, from the first list asked for.
        n: Items in a full list, at least 1.
        timeout: Seconds from a list's first item to its giving out, above 0; ``math.inf`` to
            close by size alone. On the running loop's clock.

    Returns:
        A stream of lists.

    Raises:
        InvalidArgument: At the call, if ``n`` or ``timeout`` is out of range.
        TypeError: At the call, if ``source`` is not an async iterable.
        Exception: What the source raised, after the last list.

    >>> from returns_pipeline.testing import Wait, run, timed, timeline
    >>> source = timed("a", "b", "c", Wait(9.0), "d")
    >>> run(timeline(chunks_or_timeout(source, 2, 5.0)))
    [(0.0, ['a', 'b']), (5.0, ['c']), (9.0, ['d'])]
    """
    check_window(n, timeout)
    pump: _ChunksPump[T, Never] = _ChunksPump(source, n, timeout)
    return Reader(pump)


def flushing_chunks(
    source: AsyncIterable[T | F], n: int, timeout: float, *, flushed_by: type[F]
) -> AsyncIterator[list[T] | F]:
    """Do as `chunks_or_timeout`, but let the items of class ``flushed_by`` through as they are.

    Such an item first has the open list given out, and then comes out itself, in its place. One
    of them is held at a time, besides the ``n`` items.
    """
    check_window(n, timeout)
    pump: _ChunksPump[T, F] = _ChunksPump(source, n, timeout, flushed_by)
    return Reader(pump)


def check_window(n: int, timeout: float) -> None:
    """Refuse a window that could never be given out, or never hold anything."""
    check_count("n", n)
    check_seconds("timeout", timeout)


class _ChunksPump(Pump["list[T] | F"], Generic[T, F]):
    """The open list, its clock, and the loop that fills it.

    The source is ``Any``: the functions above say what goes in and what comes out.
    """

    __slots__ = (
        "_alone",
        "_due",
        "_flushed_by",
        "_items",
        "_let",
        "_looked",
        "_mark",
        "_n",
        "_room",
        "_source",
        "_stride",
        "_timeout",
        "_timer",
    )

    def __init__(
        self, source: AsyncIterable[Any], n: int, timeout: float, flushed_by: type[F] | None = None
    ) -> None:
        super().__init__()
        self._source = source
        self._n = n
        self._timeout = float(timeout)  # a Decimal or Fraction cannot be added to the time
        self._flushed_by = flushed_by
        self._items: list[T] = []
        self._alone: list[F] = []  # what flushed the list, behind it: at most one
        self._due = False  # the open list's time has passed
        self._room: asyncio.Future[None] | None = None  # the task, waiting for the reader
        self._timer = DeadlineTimer()
        self._looked = 0.0
        self._let = 0.0  # when other tasks were last let run
        self._stride = 1
        # The pump looks up from its loop when the list is this long. An empty list has 1, so that
        # its first item starts the clock; -1 while closed, so that any item ends the loop.
        self._mark = 1

    def has_next(self) -> bool:
        held = len(self._items)
        if held >= self._n or self._alone:
            return True
        return held > 0 and (self._due or self.ended)

    def take(self) -> list[T] | F:
        if self._room is not None:
            notify(self._room)
        if not self._items:
            return self._alone.pop()
        taken = self._items.copy()
        self._items.clear()  # in place: the running loop below appends to this very list
        self._due = False
        self._timer.deadline = math.inf  # the handle stays, for the next list
        self._mark = 1
        return taken

    def discard(self) -> None:
        self._mark = -1
        self._items.clear()
        self._alone.clear()

    async def pump(self) -> None:
        try:
            async with plain_iterator(self._source) as source:
                await self._fill(source)
        finally:
            self._timer.cancel()

    async def _fill(self, source: AsyncIterator[Any]) -> None:
        items = self._items
        n = self._n
        flushed_by = self._flushed_by
        async for item in source:
            if flushed_by is not None and isinstance(item, flushed_by):
                self._alone.append(item)
            else:
                items.append(item)
                if len(items) < self._mark:
                    continue
            if self.closed:
                break  # the source has swallowed the cancellation
            if len(items) < n and not self._alone:
                if self._must_pause():
                    await checkpoint()  # the reader, if it was woken, is scheduled and goes first
                    self._looked = self._let = self.loop.time()
                continue
            if self.reading:
                self.notify_reader()
                self.yielding = True
                await checkpoint()
                self.yielding = False
            while len(items) >= n or self._alone:
                await self._wait_for_reader()

    async def _wait_for_reader(self) -> None:
        self._room = self.loop.create_future()
        try:
            await self._room
        finally:
            self._room = None

    def _must_pause(self) -> bool:
        """Start the clock, or look at it; say whether others must run."""
        now = self.loop.time()
        held = len(self._items)
        pause = False
        if held == 1:
            self._timer.set(self.loop, now + self._timeout, self._on_due)
        else:
            if now - self._looked > MAX_SLICE:
                self._stride = 1
            elif self._stride < MAX_STRIDE:
                self._stride *= 2
            if now >= self._timer.deadline and not self._due:
                # The source did not let the timer's callback run.
                self._due = pause = True
                self.notify_reader()
            else:
                pause = now - self._let > MAX_SLICE
        self._looked = now
        self._mark = min(held + self._stride, self._n)
        return pause

    def _on_due(self, _deadline: float) -> None:
        self._due = True
        self.notify_reader()
