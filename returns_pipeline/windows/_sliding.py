"""`sliding`: lists of neighbouring items, which may overlap."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any, Final, TypeVar

from aiostream import Stream

from returns_pipeline import telemetry
from returns_pipeline._engine import checks, ends
from returns_pipeline._engine.marks import CarriesMarks, InOrder, Mark
from returns_pipeline._engine.operator import Operator
from returns_pipeline._engine.reader import Reader, notify
from returns_pipeline.windows._flushing import FlushOn, WindowPump

__all__ = ["MarkedSlidingPump", "SlidingPump", "sliding"]

T = TypeVar("T")


class _Sliding(Operator):
    def __call__(
        self,
        source: AsyncIterable[T],
        n: int,
        *,
        step: int = 1,
        flush_on: FlushOn | None = None,
    ) -> Stream[list[T]]:
        """Emit every run of ``n`` neighbouring items, each ``step`` items after the one before.

        A list is emitted when

        1. it holds ``n`` items, or
        2. the source has ended (or failed), or ``flush_on`` is given and is set or emits an item,
           and some items were in no list yet: these, and the items that share a list with them, are
           a last, shorter list. After a flush, the items that follow begin again.

        So a source of fewer than ``n`` items makes one list of all of them. A ``step`` above ``n``
        leaves out the items between two lists. In all other cases every item is in at least one
        list. Lists, and the items in them, keep the source's order; no list is empty.

        ========  =========================  ===============================
        n, step   from 1 2 3 4 5             from 1 2 3 4 5 6
        ========  =========================  ===============================
        3, 1      123, 234, 345              123, 234, 345, 456
        3, 2      123, 345                   123, 345, 56
        2, 3      12, 45                     12, 45
        ========  =========================  ===============================

        Backpressure: at most ``n`` items that were in no list yet are held ahead of the reader;
        then the source waits.

        Cancel safety: a cancelled read loses nothing; the next read continues where it was.
        ``aclose()`` stops the source, awaits its clean-up and drops the items held. An exception of
        the reader is not thrown into the source.

        Known elsewhere as ``sliding`` (fs2, Akka and Pekko Streams, Scala), ``bufferCount`` with a
        start (Rx), ``Stream.sliding`` (Effect). The last, shorter list is Scala's rule.

        Args:
            source: Read one item at a time, once the first list is requested.
            n: Items in a list, at least 1.
            step: Items from the start of a list to the start of the next, at least 1; ``n`` for
                lists that do not overlap.
            flush_on: An event or a stream, as of `chunks_or_timeout`.

        Returns:
            A stream of lists.

        Raises:
            InvalidArgument: At the call, if ``n`` or ``step`` is out of range.
            TypeError: At the call, if ``source`` or ``flush_on`` is not an async iterable.
            Exception: Any exception of the source or of ``flush_on``, after the last list.

        >>> from returns_pipeline.testing import run, timed, timeline
        >>> s = timed(*"abcd")
        >>> done = sliding(s, 3)
        >>> run(timeline(done))
        [(0.0, ['a', 'b', 'c']), (0.0, ['b', 'c', 'd'])]
        """
        return self._stream(source, n, step=step, flush_on=flush_on)

    def pipe(
        self, n: int, *, step: int = 1, flush_on: FlushOn | None = None
    ) -> Callable[[AsyncIterable[T]], Stream[list[T]]]:
        return self._piped(n, step=step, flush_on=flush_on)

    def raw(
        self,
        source: AsyncIterable[T],
        n: int,
        *,
        step: int = 1,
        flush_on: FlushOn | None = None,
    ) -> AsyncIterator[list[T]]:
        return Reader(SlidingPump(source, n, step, flush_on))


sliding: Final = _Sliding("returns_pipeline.windows.sliding")
"""Emit every run of ``n`` neighbouring items, each ``step`` items after the one before."""


class SlidingPump(WindowPump):
    """The items of the next list and of those after it; the reader cuts the lists off.

    A failure ends the run as the end of the source would, is emitted after it, and the items after
    it begin again. So does a flush, without a failure.
    """

    __slots__ = (
        "_is_due",
        "_items",
        "_n",
        "_not_full",
        "_passed",
        "_shown",
        "_skip",
        "_step",
        "_why",
    )

    fill = ends.window(
        "sliding",
        "held, before_last = self._items, self._n - 1",
        """\
OPEN
if self._skip:
    self._skip -= 1
elif len(held) < before_last:
    held.append(value)
else:
    waiting = self._add(value)
    WAIT
NEXT
""",
        takes_slices=True,
    )

    operator = "sliding"

    def __init__(
        self,
        source: AsyncIterable[Any],
        n: int,
        step: int,
        flush_on: FlushOn | None = None,
    ) -> None:
        super().__init__(source, flush_on)
        self._n = checks.count("n", n)
        self._step = checks.count("step", step)
        self._is_due = False  # what is held is to be emitted, though it is not a full list
        self._why: telemetry.WindowReason = "flush"  # why it is due
        self._items: list[Any] = []
        self._shown = 0  # how many of them were in a list already
        self._skip = 0  # how many of the next items are in no list
        self._passed: list[Any] = []  # at most one failure, which follows the items
        self._not_full: asyncio.Future[None] | None = None  # the pump waits for the reader

    def bounds(self) -> str:
        return f"holds up to {self._n}"

    def room(self) -> int:
        return self._n

    def held(self) -> int:
        return len(self._items) + len(self._passed)

    def open_windows(self) -> tuple[int, float | None]:
        return int(len(self._items) > self._shown), None

    def has_next(self) -> bool:
        if len(self._items) >= self._n:
            return True
        if self._passed:
            return True
        return len(self._items) > self._shown and (self._is_due or self.ended)

    def take(self) -> Any:
        items = self._items
        if len(items) >= self._n:
            taken = items[: self._n]
            self._skip = max(0, self._step - len(items))
            del items[: self._step]
            self._shown = max(0, self._n - self._step)
            self._is_due = False  # it has what a flush was for
            if self.stage is not None:
                self.report(len(taken), "size")
        elif len(items) > self._shown:  # the end, a flush, or a failure
            taken = items.copy()
            if self.stage is not None:
                self.report(len(taken), self._why if self._is_due else "failure")
            self._begin_anew()
        else:
            self._begin_anew()
            notify(self._not_full)
            return self._passed.pop()
        notify(self._not_full)
        return taken

    def _begin_anew(self) -> None:
        self._items.clear()
        self._shown = self._skip = 0
        self._is_due = False

    def discard(self) -> None:
        self._items.clear()
        self._passed.clear()
        notify(self._not_full)

    def end(self) -> None:
        if not self._is_due:
            self._why = self.end_reason
        self._is_due = True
        if len(self._items) <= self._shown:
            self._items.clear()

    def flush_now(self) -> None:
        if len(self._items) > self._shown:
            if not self._is_due:
                self._why = self.flush_reason
            self._is_due = True
            self.notify_reader()
        elif not self._passed:
            self._begin_anew()

    async def emit_failure(self, failure: object) -> None:
        self._passed.append(failure)
        await self._wait_while(lambda: bool(self._passed))

    async def _add(self, item: Any) -> None:
        """Add an item that fills a list, and wait until there is room for the next one."""
        self._items.append(item)
        await self._wait_while(lambda: len(self._items) >= self._shown + self._n)

    async def _wait_while(self, is_full: Callable[[], bool]) -> None:
        self.still_reading()
        self.notify_reader()
        while is_full():
            self._not_full = self.loop.create_future()
            stage, held = self.stage, len(self._items)
            began = 0.0 if stage is None else self.loop.time()
            try:
                await self._not_full
            finally:
                self._not_full = None
                if stage is not None:
                    stage.waited(began, self.loop.time(), held)


class MarkedSlidingPump(CarriesMarks[InOrder], SlidingPump):
    """Emits a mark after the last list that has an item from before it.

    Items leave the run in their order, so marks wait for their number.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.marks = InOrder()
        self._must_flush = False  # a mark waits for the run to be emptied

    def keep(self, mark: Mark) -> None:
        if mark.flushes:
            self._must_flush = True
            self.flush_for_credit()
        self.marks.put(mark, len(self._items) + len(self._passed))

    def take_item(self) -> Any:
        item = self._counting(super().take_item)
        if self._must_flush:
            self.flush_for_credit()  # items of a full list remain
        return item

    def end(self) -> None:
        self._counting(super().end)

    def flush_now(self) -> None:
        self._counting(super().flush_now)
        if not self._items:
            self._must_flush = False

    def _counting(self, change: Callable[[], Any]) -> Any:
        """Call what may take items out of the run, and count those."""
        held = len(self._items) + len(self._passed)
        made = change()
        self.marks.passed(held - len(self._items) - len(self._passed))
        if self.source_ended and not SlidingPump.has_next(self):
            self.marks.all_passed()  # the items that stay in the run are in no other list
        return made
