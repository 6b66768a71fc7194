"""`chunks_or_timeout`: lists closed by their size or by their age."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any, Final, TypeVar

from aiostream import Stream

from returns_pipeline import telemetry
from returns_pipeline._engine import checks, ends
from returns_pipeline._engine.checks import Seconds
from returns_pipeline._engine.deadlines import DeadlineTimer
from returns_pipeline._engine.marks import CarriesMarks, InOrder, Mark
from returns_pipeline._engine.operator import Operator
from returns_pipeline._engine.reader import Reader, checkpoint, notify
from returns_pipeline.windows._flushing import FlushOn, WindowPump
from returns_pipeline.windows._single import check_emit_empty

__all__ = ["ChunksPump", "MarkedChunksPump", "chunks_or_timeout"]

T = TypeVar("T")


class _ChunksOrTimeout(Operator):
    def __call__(
        self,
        source: AsyncIterable[T],
        n: int,
        timeout: Seconds,
        *,
        flush_on: FlushOn | None = None,
        emit_empty: bool = False,
    ) -> Stream[list[T]]:
        """Group items into lists, each emitted by its size or its age, whichever comes first.

        A list is emitted when

        1. it holds ``n`` items,
        2. ``timeout`` seconds have passed since its first item,
        3. ``flush_on`` is given, and is set or emits an item, or
        4. the source has ended (or failed) and the list is not empty.

        Every item is emitted exactly once, in order; no list is empty. With ``emit_empty`` silence
        is seen as well: an empty list is emitted when ``timeout`` seconds have passed since the
        list before it (or the first read) without an item, or at a flush. The time counts from the
        list's first item: it does not restart with each item, nor does it run while the list is
        empty. A reader that is late gets everything that has gathered until then, at once: under
        load, lists fill up to ``n``.

        Backpressure: at most ``n`` items are held ahead of the reader; then the source waits. A
        list that a waiting read is about to return is not among them, even if that read is then
        cancelled and leaves the list to the next one.

        Order of events: the source is opened at the first read and runs in one task of its own from
        its first item to its clean-up, in a copy of the first reader's context.

        Cancel safety: a cancelled read loses nothing; the next read continues where it was.
        ``aclose()`` stops the source, awaits its clean-up and drops the items held. An exception of
        the reader is not thrown into the source.

        Known elsewhere as ``groupWithin`` (fs2), ``groupedWithin`` (Akka and Pekko Streams),
        ``bufferTimeout`` (Reactor), ``bufferWithTimeOrCount`` (Rx), ``chunks_timeout``
        (tokio-stream), ``aggregateWithin`` (Effect, ZIO).

        Args:
            source: Read one item at a time, once the first list is requested.
            n: Items in a full list, at least 1.
            timeout: Seconds from a list's first item until it is emitted, above 0; ``math.inf`` to
                close lists by size alone. On the running loop's clock.
            flush_on: An ``asyncio.Event``: what is open is emitted each time that it is set (one
                that stays set flushes once). Or a stream: what is open is emitted with each of its
                items, whatever they are; its end ends nothing, its error is raised after the open
                list. It is opened and closed with the source.
            emit_empty: Whether an empty list is emitted where there was no item. At most one waits
                for a slow reader.

        Returns:
            A stream of lists.

        Raises:
            InvalidArgument: At the call, if ``n`` or ``timeout`` is out of range, or
                ``emit_empty`` is chosen with no finite ``timeout`` and no ``flush_on``.
            TypeError: At the call, if ``source`` or ``flush_on`` is not an async iterable.
            Exception: Any exception of the source or of ``flush_on``, after the last list.

        >>> from returns_pipeline.testing import Wait, run, timed, timeline
        >>> s = timed("a", "b", "c", Wait(9.0), "d")
        >>> done = chunks_or_timeout(s, 2, 5.0)
        >>> run(timeline(done))
        [(0.0, ['a', 'b']), (5.0, ['c']), (9.0, ['d'])]
        >>> done = chunks_or_timeout(s, 9, 5.0, emit_empty=True)
        >>> run(timeline(done))
        [(5.0, ['a', 'b', 'c']), (9.0, ['d'])]
        """
        return self._stream(source, n, timeout, flush_on=flush_on, emit_empty=emit_empty)

    def pipe(
        self,
        n: int,
        timeout: Seconds,
        *,
        flush_on: FlushOn | None = None,
        emit_empty: bool = False,
    ) -> Callable[[AsyncIterable[T]], Stream[list[T]]]:
        return self._piped(n, timeout, flush_on=flush_on, emit_empty=emit_empty)

    def raw(
        self,
        source: AsyncIterable[T],
        n: int,
        timeout: Seconds,
        *,
        flush_on: FlushOn | None = None,
        emit_empty: bool = False,
    ) -> AsyncIterator[list[T]]:
        return Reader(ChunksPump(source, n, timeout, flush_on, emit_empty))


chunks_or_timeout: Final = _ChunksOrTimeout("returns_pipeline.windows.chunks_or_timeout")
"""Group items into lists, each emitted by its size or its age, whichever comes first."""


class ChunksPump(WindowPump):
    """The open list, its deadline, and the loop that fills it.

    A failure closes the open list, and is emitted after it. At most one is held.

    The loop that reads the source touches nothing but the list until the list is ``_check_at``
    long: that is how a fast source costs little more than an ``append``. Everything that must
    interrupt the loop (a reader that took the list, a stop) therefore lowers ``_check_at``.

    `take` and `discard` run in the reader's task, `_on_due` in the loop, `flush_now` in the task of
    the signal, all others in the pump's task; none of them waits halfway through a change, so each
    sees a whole state.

    The items are ``Any`` here: the callers' signatures have the types.
    """

    __slots__ = (
        "_began",
        "_check_at",
        "_emit_empty",
        "_handed",
        "_is_due",
        "_items",
        "_n",
        "_not_full",
        "_passed",
        "_since",
        "_timeout",
        "_timer",
        "_why",
    )

    fill = ends.window(
        "chunks_or_timeout",
        "held = self._items",
        """\
held.append(value)
if len(held) >= self._check_at:
    waiting = self._continue()
    WAIT
""",
        add_all="waiting = self._add_all(batch)\nWAIT",
        takes_slices=True,
    )

    operator = "chunks_or_timeout"

    def __init__(
        self,
        source: AsyncIterable[Any],
        n: int,
        timeout: Seconds,
        flush_on: FlushOn | None = None,
        emit_empty: bool = False,
    ) -> None:
        self._n = checks.count("n", n)
        self._items: list[Any] = []
        super().__init__(source, flush_on)
        self._timeout = checks.seconds("timeout", timeout)
        self._emit_empty = check_emit_empty(emit_empty, self._timeout, flush_on)
        self._began = math.inf  # when the first item of the open list came
        self._passed: list[Any] = []  # what closed the list, and follows it: at most one item
        self._handed: list[Any] | None = None  # a full list, for the read that waits now
        self._is_due = False  # the open list, which may be empty, has reached its deadline
        self._why: telemetry.WindowReason = "time"  # why it is due
        self._since: float | None = None  # when its first item came, if it is observed
        self._not_full: asyncio.Future[None] | None = None  # the pump waits for the reader
        self._timer = DeadlineTimer()
        # An empty list has 1, so that its first item starts the clock. A pump that was stopped has
        # -1, so that any item ends the loop.
        self._check_at = 1

    def bounds(self) -> str:
        return f"holds up to {self._n}"

    def held(self) -> int:
        return len(self._items) + len(self._handed or ()) + len(self._passed)

    def open_windows(self) -> tuple[int, float | None]:
        if not self._items:
            return 0, None
        return 1, None if self._began == math.inf else self.loop.time() - self._began

    def has_next(self) -> bool:
        if self._handed is not None:
            return True
        held = len(self._items)
        if held >= self._n or self._passed:
            return True
        if held:
            return self._is_due or self.ended
        return self._is_due and self._emit_empty

    def take(self) -> Any:
        if self._handed is not None:
            handed, self._handed = self._handed, None
            return handed
        if self._not_full is not None:
            notify(self._not_full)
        if not self._items and not (self._is_due and self._emit_empty):
            return self._passed.pop()
        return self._close_list()

    def _close_list(self) -> list[Any]:
        taken = self._items.copy()
        if self.stage is not None:
            self._report_list(len(taken))
        self._items.clear()  # in place: the running loop below appends to this very list
        self._is_due = False
        self._began = math.inf
        self._timer.deadline = math.inf  # the handle stays, for the next list
        self._check_at = 1
        if self._emit_empty and not self.source_ended:
            self._timer.set(self.loop, self.loop.time() + self._timeout, self._on_due)
        return taken

    def _report_list(self, held: int) -> None:
        reason: telemetry.WindowReason = "failure"  # one that follows it
        if held >= self._n:
            reason = "size"
        elif self._is_due:
            reason = self._why
        elif self.ended:
            reason = self.end_reason
        self.report(held, reason, self.loop.time() if self._since is None else self._since)
        self._since = None
        self._why = "time"

    def discard(self) -> None:
        self._check_at = -1
        self._is_due = False
        self._handed = None
        self._items.clear()
        self._passed.clear()
        notify(self._not_full)

    def start_tasks(self) -> None:
        if self._emit_empty:
            self._timer.set(self.loop, self.loop.time() + self._timeout, self._on_due)
        super().start_tasks()

    def end(self) -> None:
        self._timer.cancel()
        if self.closed:
            self.discard()  # what the source has emitted nevertheless
        elif self._items:
            self._make_due(self.end_reason)

    def _make_due(self, why: telemetry.WindowReason) -> None:
        if not self._is_due:
            self._is_due = True
            self._why = why

    def flush_now(self) -> None:
        if self._items or self._emit_empty:
            self._make_due(self.flush_reason)
            self.notify_reader()

    def room(self) -> int:
        return self._n - len(self._items)

    async def emit_failure(self, failure: object) -> None:
        self._passed.append(failure)
        await self._continue()

    async def _add_all(self, batch: list[Any]) -> None:
        begin = 0
        while begin < len(batch) and not self.stopping:
            end = begin + self._n - len(self._items)
            self._items += batch[begin:end]
            begin = end
            await self._continue()

    async def _continue(self) -> None:
        """Start or check the list's time, or wait for the reader."""
        items, n = self._items, self._n
        if self.stopping:
            return  # the source has swallowed the cancellation
        if len(items) < n and not self._passed:
            if self._check_clock():
                await checkpoint()  # a notified reader is scheduled, and goes first
                self.budget.restart(self.loop.time())
            return
        if self.reading:
            self.notify_reader()
            if self._handed is None and not self._passed and not self._is_slow():
                # While the reader is on its way the next list is filled: it saves a turn of the
                # loop, which costs more than a short list.
                self._handed = self._close_list()
                return
            self.yielding = True
            await checkpoint()
            self.yielding = False
            self.budget.restart(self.loop.time())
        while len(items) >= n or self._passed:
            await self._wait_for_reader()

    async def _wait_for_reader(self) -> None:
        self.still_reading()
        if self._began == math.inf:
            self._began = self.loop.time()  # all its items have come just now
        self._not_full = self.loop.create_future()
        stage = self.stage
        held = len(self._items) + len(self._passed)
        began = 0.0 if stage is None else self.loop.time()
        try:
            await self._not_full
        finally:
            self._not_full = None
            if stage is not None:
                stage.waited(began, self.loop.time(), held)

    def _check_clock(self) -> bool:
        """Start the list's time, or check whether it has passed; return whether others must run.

        A source that never suspends keeps the loop, and with it the timer, from running. So the
        clock is read here: after ever more items while they come fast, else after each item.
        """
        now = self.loop.time()
        held = len(self._items)
        must_yield = False
        if self._check_at == 1:  # the list was empty
            self._began = now
            if self.stage is not None:
                self._since = now
            self._timer.set(self.loop, now + self._timeout, self._on_due)
        else:
            must_yield = self.budget.look(now)
            if now >= self._timer.deadline and not self._is_due:
                self._is_due = must_yield = True
                self.notify_reader()
        self._check_at = min(held + self.budget.stride, self._n)
        return must_yield

    def _is_slow(self) -> bool:
        """Return whether the source has kept other tasks waiting for a while."""
        return self.budget.is_spent(self.loop.time())

    def _on_due(self, _deadline: float) -> None:
        self._is_due = True
        self.notify_reader()


class MarkedChunksPump(CarriesMarks[InOrder], ChunksPump):
    """Emits a mark after the list that was open when it came."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.marks = InOrder()

    def keep(self, mark: Mark) -> None:
        if mark.flushes:
            self.flush_for_credit()
        held = (self._handed is not None) + bool(self._items) + len(self._passed)
        self.marks.put(mark, held)

    def take_item(self) -> Any:
        item = super().take_item()
        self.marks.passed()
        return item
