"""Several sources read at the same time, each in a task of its own, for one reader.

Everything that puts streams together is built on this. Each source has an `Input`, which holds what
was read of it and not yet emitted; a `FanIn` decides what is emitted next.

How far an input runs ahead of the reader is found out while it runs. It starts with one item. Each
time the reader has taken all there was and waits for more, the inputs that it emptied may hold
twice as many, up to their bound, so that the change of tasks is paid once for many items. If the
reader is busy elsewhere when an input resumes, its bound is one again. This is how a congestion
window starts ("slow start", RFC 5681): an input never buffers more than (items taken + 1).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Any, Final, Generic, TypeVar, cast

from returns_pipeline._engine import checks
from returns_pipeline._engine.operator import plain_iterator
from returns_pipeline._engine.reader import NO_ITEMS, Pump, notify

__all__ = ["BUFFER", "FairMerge", "FanIn", "Input"]

T = TypeVar("T")
U = TypeVar("U")

# How many items of a source may be held for a reader that keeps up, unless the user says so.
BUFFER: Final = 128


class Input(Generic[T]):
    """One source, and what was read of it.

    Its task appends to ``items``, and looks up from its loop only when there are ``check_at`` of
    them: setting that to 0 is how the others make it look with the next item.

    Attributes:
        source: The stream to read.
        index: Its position among the inputs.
        items: Read and not yet drawn, in order.
        in_flight: How many were drawn from it and are not yet emitted.
        capacity: How many it may hold, drawn or not.
        check_at: With how many items its task is to look up.
        not_full: What its task waits for while it is full.
        ended: Whether its source has ended, and is closed.
    """

    __slots__ = (
        "capacity",
        "check_at",
        "ended",
        "in_flight",
        "index",
        "items",
        "not_full",
        "source",
    )

    def __init__(self, source: AsyncIterable[T], index: int) -> None:
        self.source: AsyncIterable[T] = source
        self.index: int = index
        self.items: deque[T] = deque()
        self.in_flight: int = 0
        self.capacity: int = 1
        self.check_at: int = 1
        self.not_full: asyncio.Future[None] | None = None
        self.ended: bool = False

    def pop(self) -> T:
        """Remove and return the first item; its task resumes with the last one."""
        item = self.items.popleft()
        self.check_at = len(self.items) + 1
        if not self.items:
            self.resume()
        return item

    def resume(self) -> None:
        """Let the source run on: all its items are emitted."""
        self.in_flight = 0
        notify(self.not_full)


class FanIn(Pump[U], Generic[T, U]):
    """What the tasks that read the inputs, and the reader, share.

    When an input fails, the others are stopped at once. What was read may still be taken.

    Attributes:
        buffer: The bound of the capacity of each input.
        inputs: All of them, or those that have not ended if their number changes.
    """

    __slots__ = ("buffer", "inputs")

    def __init__(
        self, sources: Iterable[AsyncIterable[T]], buffer: int, out: deque[U] = NO_ITEMS
    ) -> None:
        super().__init__(out)
        self.buffer: int = checks.count("buffer", buffer)
        self.inputs: list[Input[T]] = [
            Input(checks.source(source), index) for index, source in enumerate(sources)
        ]

    # Hooks: all are called between two steps of the loop, so they may not wait, and see a state in
    # which nothing is half done.

    def on_item(self, input_: Input[T]) -> None:
        """Take note of an input that was empty and has an item now."""

    def on_end(self, input_: Input[T]) -> None:
        """Take note of an input whose source has ended; it may still hold items."""

    def start_tasks(self) -> None:
        """Start a task for each input, until one of them ends all."""
        for input_ in tuple(self.inputs):
            if self.stopping:
                break  # under an eager task factory, before the next source is opened
            self.start_task(self._read, input_)

    def ask_to_stop(self, *, next_turn: bool = False) -> None:
        """Stop the tasks; one that gets an item in spite of that sees it at once."""
        for input_ in self.inputs:
            input_.check_at = 0
        super().ask_to_stop(next_turn=next_turn)

    def discard(self) -> None:
        """Drop what is held: nobody wants it."""
        for input_ in self.inputs:
            input_.items.clear()

    async def _read(self, input_: Input[T]) -> None:
        if self.stopping:
            return  # before the source was opened
        async with plain_iterator(input_.source) as source:
            await self._fill(input_, source)
        input_.ended = True
        if not self.stopping:
            self.on_end(input_)
            self.notify_reader()

    async def _fill(self, input_: Input[T], source: AsyncIterator[T]) -> None:
        items = input_.items
        async for item in source:
            items.append(item)
            if len(items) >= input_.check_at:
                room = input_.capacity - input_.in_flight
                if len(items) == 1 < room and not self.stopping:
                    # What `_hand_over` would do, without a coroutine for each item of a source that
                    # is slower than the reader.
                    input_.check_at = room
                    self.still_reading()
                    self.on_item(input_)
                    notify(self.ready)
                    if input_.check_at == 0:
                        break  # that has ended the stream
                elif not await self._hand_over(input_):
                    break

    async def _hand_over(self, input_: Input[T]) -> bool:
        """Announce a first item, or wait for room; return whether to read on."""
        items = input_.items
        if self.closed:
            items.clear()
            return False
        self.still_reading()
        if len(items) == 1:
            self.on_item(input_)
            self.notify_reader()
        if self.reading and self._is_full(input_):
            await self.yield_to_reader()
            if not (items or input_.in_flight):
                self._adapt(input_)
        while self._is_full(input_):
            input_.not_full = self.loop.create_future()
            try:
                await input_.not_full
            finally:
                input_.not_full = None
            self._adapt(input_)
        if self.stopping:
            return False
        input_.check_at = max(input_.capacity - input_.in_flight, 1) if items else 1
        return True

    def _is_full(self, input_: Input[T]) -> bool:
        return len(input_.items) + input_.in_flight >= input_.capacity and not self.stopping

    def _adapt(self, input_: Input[T]) -> None:
        """Let an input run further ahead of a reader that waits, and less of one that does not."""
        input_.capacity = min(2 * input_.capacity, self.buffer) if self.reading else 1


class FairMerge(FanIn[T, U], Generic[T, U]):
    """Emits the items of all inputs, in turn where several have some.

    Items are *drawn* from the inputs many at a time, into ``out``, from which the reader takes them
    without a call. The last one drawn is kept apart: taking it lets the inputs resume.
    """

    __slots__ = ("_drawn", "_last", "_ready")

    tags = False  # whether what is emitted is more than the items

    def __init__(self, sources: Iterable[AsyncIterable[T]], buffer: int = BUFFER) -> None:
        super().__init__(sources, buffer, deque())
        self._last: list[U] = []  # at most one
        self._drawn: list[Input[T]] = []  # the inputs that ``out`` and it are from
        self._ready: list[Input[T]] = []  # with items, the longest waiting first

    def on_item(self, input_: Input[T]) -> None:
        """Put the input after those that wait longer."""
        self._ready.append(input_)

    def has_next(self) -> bool:
        """Return whether an item can be emitted."""
        return bool(self._ready or self._last)

    def take(self) -> U:
        """Return the next item, and let the sources run on if it was the last one drawn."""
        if self.out:
            return self.out.popleft()
        if not self._last:
            input_ = self._ready[0]
            if len(input_.items) == 1:  # as with a source that is slower than the reader
                del self._ready[0]
                item: Any = input_.items.pop()
                input_.check_at = 1
                if input_.not_full is not None:
                    notify(input_.not_full)
                return self.tagged(input_, item) if self.tags else item
            self._draw()
            if self.out:
                return self.out.popleft()
        for input_ in self._drawn:
            input_.resume()
        self._drawn.clear()
        return self._last.pop()

    def discard(self) -> None:
        """Drop what is held: nobody wants it."""
        super().discard()
        self.out.clear()
        self._last.clear()
        self._ready.clear()

    def tagged(self, input_: Input[T], item: T) -> U:  # noqa: ARG002
        """Return what is emitted for an input's item."""
        return cast("U", item)

    def all_tagged(self, input_: Input[T], items: list[T]) -> Iterable[U]:  # noqa: ARG002
        """Do the same to many at once."""
        return cast("list[U]", items)

    def _draw(self) -> None:
        """Draw items to be emitted, the same number from each input that has some."""
        ready = self._ready
        inputs = ready
        if len(ready) == 1:
            count = len(ready[0].items)
        else:
            count = min([len(input_.items) for input_ in ready])
            if count == 1:
                # One at a time, so that its source runs on at once.
                inputs = ready[:1]
        n = len(inputs)
        if n == 1:
            self.out.extend(self.all_tagged(inputs[0], _first(inputs[0].items, count)))
        else:
            mixed: list[Any] = [None] * (n * count)
            for position, input_ in enumerate(inputs):
                mixed[position::n] = self.all_tagged(input_, _first(input_.items, count))
            self.out.extend(mixed)
        self._last.append(self.out.pop())
        still_ready = ready[n:]
        for input_ in inputs:
            input_.in_flight = count
            input_.check_at = len(input_.items) + 1
            if input_.items:
                still_ready.append(input_)
        self._drawn = inputs
        self._ready = still_ready


def _first(items: deque[T], count: int) -> list[T]:
    """Remove and return the first items. A deque, so that what remains costs nothing."""
    if count == len(items):
        first = list(items)
        items.clear()
        return first
    return [items.popleft() for _ in range(count)]
