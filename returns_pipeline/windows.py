"""Windows: operators that group the items of a stream."""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
from typing import TYPE_CHECKING, Generic, TypeVar

from returns_pipeline.errors import InvalidArgument
from returns_pipeline.operators import operator, plain_iterator

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator
    from contextvars import Context

__all__ = ["chunks_or_timeout"]

T = TypeVar("T")

# How many items a source that never suspends may deliver between two looks at the clock.
_MAX_STRIDE = 256
# How long, in seconds, such a source may keep the event loop from its other tasks.
_MAX_SLICE = 0.005


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
    """
    if n < 1:
        raise InvalidArgument(f"n must be at least 1, not {n!r}")
    if not timeout > 0:
        raise InvalidArgument(f"timeout must be above 0 seconds, not {timeout!r}")
    return _Chunks(source, n, timeout)


class _Pump(Generic[T]):
    """What the pump task and its reader share.

    It holds no reference to the reader's iterator, so an iterator that is dropped can be noticed
    and stop the task.
    """

    __slots__ = (
        "_armed",
        "_deadline",
        "_looked",
        "_mark",
        "_room",
        "_source",
        "_stride",
        "_timeout",
        "closed",
        "due",
        "ended",
        "error",
        "items",
        "loop",
        "n",
        "ready",
        "task",
    )

    def __init__(self, source: AsyncIterable[T], n: int, timeout: float) -> None:
        self._source = source
        self.n = n
        self._timeout = timeout
        self.items: list[T] = []
        self.due = False  # the open list's time has passed
        self.ended = False  # nothing more will come from the source
        self.closed = False  # nothing more is wanted
        self.error: BaseException | None = None
        self.ready: asyncio.Future[None] | None = None  # the reader, waiting for a list
        self._room: asyncio.Future[None] | None = None  # the task, waiting for the reader
        self._armed: asyncio.TimerHandle | None = None
        self._deadline = math.inf
        self._looked = 0.0
        self._stride = 1
        # The pump looks up from its loop when the list is this long. An empty list has 1, so that
        # its first item starts the clock; -1 while closed, so that any item ends the loop.
        self._mark = 1

    def start(self) -> None:
        """Start the task that runs the source."""
        self.loop = asyncio.get_running_loop()
        self.task = self.loop.create_task(self._run(), context=_shared_context(self.loop))

    def wake_reader(self) -> None:
        """Let a waiting reader look again."""
        if self.ready is not None and not self.ready.done():
            self.ready.set_result(None)

    def take(self) -> list[T]:
        """Hand the open list over and make room for the next."""
        taken = self.items.copy()
        self.items.clear()  # in place: the running loop below appends to this very list
        self.due = False
        self._mark = 1
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        return taken

    def stop(self) -> None:
        """End the task; it cleans the source up on its way out."""
        self.closed = True
        self._mark = -1
        self.items.clear()
        self.disarm()
        self.task.cancel()

    def disarm(self) -> None:
        """Leave no timer behind."""
        if self._armed is not None:
            self._armed.cancel()
            self._armed = None

    async def _run(self) -> None:
        try:
            async with plain_iterator(self._source) as source:
                items = self.items
                async for item in source:
                    items.append(item)
                    if len(items) >= self._mark and not await self._look_up():
                        break
        except BaseException as error:
            if self.closed:
                raise  # whoever closed awaits the task and sees it
            self.error = error
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
        finally:
            self.ended = True
            self.disarm()
            self.wake_reader()

    async def _look_up(self) -> bool:
        """Start the clock, look at it, or wait for room; say whether to go on."""
        if self.closed:
            return False
        held = len(self.items)
        if held >= self.n:
            self.wake_reader()
            while len(self.items) >= self.n:
                self._room = self.loop.create_future()
                try:
                    await self._room
                finally:
                    self._room = None
            return not self.closed
        now = self.loop.time()
        if held == 1:
            self._deadline = now + self._timeout
            if self._armed is None and self._deadline != math.inf:
                self._armed = self.loop.call_at(self._deadline, self._on_timer)
        elif now >= self._deadline and not self.due:
            # The source did not let the timer's callback run.
            self.due = True
            self.wake_reader()
            await asyncio.sleep(0)  # the reader was scheduled first, so it goes first
            now = self.loop.time()
        elif now - self._looked > _MAX_SLICE:
            self._stride = 1
            await asyncio.sleep(0)
            now = self.loop.time()
        else:
            self._stride = min(2 * self._stride, _MAX_STRIDE)
        self._looked = now
        if self.items:
            self._mark = min(self.n, len(self.items) + self._stride)
        return not self.closed

    def _on_timer(self) -> None:
        # One handle serves list after list: it is moved on when it fires for one that has been
        # handed out, so that a list closed by its size costs no timer. Deadlines are compared to
        # the handle's own time, not to the clock: some loops fire a little early.
        assert self._armed is not None
        when = self._armed.when()
        self._armed = None
        if not self.items:
            return
        if self._deadline <= when:
            self.due = True
            self.wake_reader()
        else:
            self._armed = self.loop.call_at(self._deadline, self._on_timer)


class _Chunks(Generic[T]):
    """The reader's side. Not an async generator: one that is cancelled once is over for good."""

    __slots__ = ("__weakref__", "_closed", "_pump", "_started")

    def __init__(self, source: AsyncIterable[T], n: int, timeout: float) -> None:
        self._pump = _Pump(source, n, timeout)
        self._started = False
        self._closed = False

    def __aiter__(self) -> _Chunks[T]:
        return self

    async def __anext__(self) -> list[T]:
        pump = self._pump
        if self._closed:
            raise StopAsyncIteration
        if pump.ready is not None:
            raise RuntimeError("another task is waiting for the next list of this iterator")
        if not self._started:
            self._started = True
            pump.start()
        while True:
            if pump.items and (pump.due or pump.ended or len(pump.items) >= pump.n):
                return pump.take()
            if pump.ended:
                self._closed = True
                if pump.error is None:
                    raise StopAsyncIteration
                error, pump.error = pump.error, None
                try:
                    raise error
                finally:
                    del error  # its traceback holds this frame
            pump.ready = pump.loop.create_future()
            try:
                await pump.ready
            finally:
                pump.ready = None

    async def aclose(self) -> None:
        """Stop the source and wait for its clean-up, whose error is raised here."""
        if self._closed or not self._started:
            self._closed = True
            return
        self._closed = True
        pump = self._pump
        if not pump.ended:
            pump.stop()
        await _wait_done(pump.task)
        pump.items.clear()
        if not pump.task.cancelled() and (error := pump.task.exception()) is not None:
            raise error

    def __del__(self) -> None:
        if self._started and not self._closed and not self._pump.ended:
            # No one can read on. The collector may run in any thread.
            with contextlib.suppress(RuntimeError):  # the loop is closed, and the task with it
                self._pump.loop.call_soon_threadsafe(self._pump.stop)


async def _wait_done(task: asyncio.Task[None]) -> None:
    """Wait until a cancelled task has cleaned up.

    A cancellation of the waiting task is passed on, as it would be if the clean-up ran in it, and
    raised only when the other is done: nothing stays behind.
    """
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
            task.cancel()
    if cancelled is not None:
        raise cancelled


def _shared_context(loop: asyncio.AbstractEventLoop) -> Context | None:
    """Give the reader's own context, where the pump may run in it."""
    if sys.version_info >= (3, 12) and loop.get_task_factory() is None:
        # An eager task factory would enter it while it is already entered.
        reader = asyncio.current_task()
        if reader is not None:
            return reader.get_context()
    return None
