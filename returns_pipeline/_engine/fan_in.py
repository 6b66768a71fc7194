"""Several sources, each read in a task of its own, for one reader.

Every operator that joins streams is built on this. Each source has an `Input`, which holds the
items that were read from it and not emitted yet. A `FanIn` decides which item is emitted next.

How far an input may run ahead of the reader adapts to the reader. It starts with one item. When the
reader has taken all items and waits for more, the capacity of each input that it emptied doubles,
up to a bound: then one change of tasks serves many items. If the reader is busy when an input
resumes, the capacity is one again. A congestion window starts in the same way ("slow start", RFC
5681): an input never buffers more than (items taken + 1).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from functools import partial
from typing import Any, Final, Generic, TypeVar, cast

from returns_pipeline._engine import checks
from returns_pipeline._engine.marks import CarriesMarks, InOrder, Mark
from returns_pipeline._engine.operator import plain_iterator
from returns_pipeline._engine.reader import NO_ITEMS, Pump, notify

__all__ = ["BUFFER", "SPLIT_BUFFER", "FairMerge", "FanIn", "Input", "MarkedFanIn"]

T = TypeVar("T")
U = TypeVar("U")

# How many items of a source may be held for a reader that keeps up, unless the user sets it.
BUFFER: Final = 128

# How many items one side of a split may hold, unless the user says so: enough to read a small
# stream's one side to its end, and then the other.
SPLIT_BUFFER: Final = 1024


class Input(Generic[T]):
    """One source, and the items that were read from it.

    Attributes:
        source: The stream to read.
        index: Its position among the inputs.
        items: Items that were read and not drawn yet, in order.
        in_flight: The number of items that were drawn and not emitted yet.
        capacity: The number of items that it may hold, drawn or not.
        check_at: The number of items at which its task leaves the fast loop of `FanIn._fill`. Other
            code sets it to 0 to make the task do so with the next item.
        not_full: The future that its task waits for while it is full.
        ended: Whether its source has ended and is closed.
    """

    # States of its task: reading (it waits for the source), full (it waits for `not_full`), ended.
    #
    # Invariants. The task asks its source for an item only while `len(items) + in_flight` is less
    # than `capacity`. Only the task itself changes `capacity`. `check_at` is never larger than the
    # number of items at which the task has to do more than append: announce a first item, or stop
    # because it is full. It may be smaller, which costs time and nothing else. So only code that
    # makes this happen *earlier* has to set it.

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
        """Remove and return the first item. If it was the last one, the task resumes."""
        item = self.items.popleft()
        self.check_at = len(self.items) + 1
        if not self.items:
            self.resume()
        return item

    def resume(self) -> None:
        """Wake the task: all items of this input were emitted."""
        self.in_flight = 0
        notify(self.not_full)


class FanIn(Pump[U], Generic[T, U]):
    """The state that the tasks of the inputs and the reader share.

    When an input fails, the others are stopped at once. Items that were read may still be taken.

    Backpressure: a full input does not read its source until the reader has taken its items.

    Attributes:
        buffer: The bound of the capacity of each input.
        inputs: All inputs; where their number changes, those that have not ended.
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

    def sources(self) -> Iterable[AsyncIterable[Any]]:
        return [input_.source for input_ in self.inputs]

    def bounds(self) -> str:
        each = " of each source" if len(self.inputs) > 1 else ""
        return f"holds up to {self.buffer}{each}"

    def held(self) -> int:
        return len(self.out) + sum(len(input_.items) for input_ in self.inputs)

    # Hooks. They are called between two steps of the loop, by the task of the input. They must not
    # wait. They see a consistent state: the item is in `items`, the reader is not notified yet.

    def on_item(self, input_: Input[T]) -> None:
        """React to the first item of an input that was empty."""

    def on_end(self, input_: Input[T]) -> None:
        """React to the end of an input's source; the input may still hold items."""

    def incoming_to(self, input_: Input[T], items: AsyncIterator[T]) -> AsyncIterator[T]:  # noqa: ARG002
        """Return the items of an input's open source as they are to be read: a hook for marks."""
        return items

    def start_tasks(self) -> None:
        """Start a task for each input."""
        for input_ in tuple(self.inputs):  # an eager task may add inputs, whose tasks it starts
            self.start_task(self._read, input_)

    def ask_to_stop(self, *, next_turn: bool = False) -> None:
        """Stop the tasks. A task that gets an item nevertheless stops with that item."""
        for input_ in self.inputs:
            input_.check_at = 0
        super().ask_to_stop(next_turn=next_turn)

    def discard(self) -> None:
        """Drop all items."""
        for input_ in self.inputs:
            input_.items.clear()

    async def _read(self, input_: Input[T]) -> None:
        if self.stopping:
            return  # an input before this one has ended the stream: do not open the source
        async with plain_iterator(input_.source) as source:
            await self._fill(input_, self.incoming_to(input_, source))
        input_.ended = True
        self.on_end(input_)

    async def _fill(self, input_: Input[T], source: AsyncIterator[T]) -> None:
        # The fast path of every fan-in: an append and one comparison for most items.
        items = input_.items
        async for item in source:
            items.append(item)
            if len(items) >= input_.check_at:
                room = input_.capacity - input_.in_flight
                if len(items) == 1 < room and not self.stopping:
                    # The same as `_hand_over`, without a coroutine for each item of a source that
                    # is slower than the reader.
                    input_.check_at = room
                    self.on_item(input_)
                    notify(self.ready)
                    if input_.check_at == 0:
                        break  # `on_item` has ended the stream
                elif not await self._hand_over(input_):
                    break

    async def _hand_over(self, input_: Input[T]) -> bool:
        """Announce a first item, or wait until the input is not full; return whether to read on.

        Runs in the task of the input. After each wait the state may be any other: the reader may
        have taken items, changed `in_flight`, or ended the stream.
        """
        items = input_.items
        if self.closed:
            items.clear()
            return False
        self.still_reading()
        if len(items) == 1:
            self.on_item(input_)
            self.notify_reader()
        if self.reading and self._is_full(input_):
            # Most often the reader takes everything in this turn, and no future is needed.
            await self.yield_to_reader()
            if not (items or input_.in_flight):
                self._adapt(input_)
        while self._is_full(input_):
            # Without an await since the check, so no `resume` can come before this future exists.
            input_.not_full = self.loop.create_future()
            if self.stage is None:
                await input_.not_full
            else:
                await self.wait_for_reader(input_.not_full, len(items) + input_.in_flight)
            input_.not_full = None
            self._adapt(input_)
        if self.stopping:
            return False
        input_.check_at = input_.capacity - input_.in_flight if items else 1
        return True

    def _is_full(self, input_: Input[T]) -> bool:
        return len(input_.items) + input_.in_flight >= input_.capacity and not self.stopping

    def _adapt(self, input_: Input[T]) -> None:
        """Raise the capacity of an input if the reader waits; set it to one if it does not."""
        input_.capacity = min(2 * input_.capacity, self.buffer) if self.reading else 1


class FairMerge(FanIn[T, U], Generic[T, U]):
    """Emits the items of all inputs, in turn if several have items.

    Items are *drawn* from the inputs many at a time, into ``out``, from which the reader takes them
    without a call. The last one drawn is kept apart: taking it lets the inputs resume.
    """

    # Invariants. `_ready` has each input that has items and is not drawn from, once; `on_item` adds
    # an input when it was empty, `_draw` puts it back if items remain. While `out` or `_last` has
    # items, `_drawn` has the inputs that they are from, which have `in_flight` of them. `_last` is
    # empty only if `out` is: so as soon as the reader calls `take` again with `out` empty, all
    # drawn items but one were emitted.

    __slots__ = ("_drawn", "_last", "_ready")

    tags = False  # whether `tagged` returns anything but the item itself

    def __init__(self, sources: Iterable[AsyncIterable[T]], buffer: int = BUFFER) -> None:
        super().__init__(sources, buffer, deque())
        self._last: list[U] = []  # the last item drawn; at most one
        self._drawn: list[Input[T]] = []  # the inputs that were drawn from last
        self._ready: list[Input[T]] = []  # inputs with items, the longest waiting first

    def on_item(self, input_: Input[T]) -> None:
        """Put the input after those that wait longer."""
        self._ready.append(input_)

    def has_next(self) -> bool:
        """Return whether an item can be emitted."""
        return bool(self._ready or self._last)

    def take(self) -> U:
        """Return the next item. If it was the last one drawn, the sources are read on."""
        if self.out:
            return self.out.popleft()
        if not self._last:
            input_ = self._ready[0]
            if len(input_.items) == 1:  # the usual case if the source is slower than the reader
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
        return self._last.pop()

    def discard(self) -> None:
        """Drop all items."""
        super().discard()
        self.out.clear()
        self._last.clear()
        self._ready.clear()

    def tagged(self, input_: Input[T], item: T) -> U:  # noqa: ARG002
        """Return the item that is emitted for an input's item."""
        return cast("U", item)

    def all_tagged(self, input_: Input[T], items: list[T]) -> Iterable[U]:  # noqa: ARG002
        """Return the items that are emitted for several items of an input."""
        return cast("list[U]", items)

    def _draw(self) -> None:
        """Draw items to be emitted, the same number from each input that has items."""
        ready = self._ready
        inputs = ready
        if len(ready) == 1:
            count = len(ready[0].items)
        else:
            count = min([len(input_.items) for input_ in ready])
            if count == 1:
                # From one input only, so that its source is read on as soon as that item is taken.
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
    """Remove and return the first items. With a deque, the items that remain cost nothing."""
    if count == len(items):
        first = list(items)
        items.clear()
        return first
    return [items.popleft() for _ in range(count)]


class MarkedFanIn(CarriesMarks[InOrder], FanIn[Any, Any]):
    """Emits a mark of an input when what the input held is emitted.

    For pumps that take one item of each input at a time.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.marks = InOrder()
        self._by_input = [InOrder(self.marks.ready) for _ in self.inputs]

    def incoming_to(self, input_: Input[Any], items: AsyncIterator[Any]) -> AsyncIterator[Any]:
        return self.without_marks(items, partial(self._keep_for, input_))

    def keep(self, mark: Mark) -> None:
        self._keep_for(self.inputs[0], mark)

    def _keep_for(self, input_: Input[Any], mark: Mark) -> None:
        self._by_input[input_.index].put(mark, len(input_.items))

    def take_item(self) -> Any:
        item = super().take_item()
        for marks in self._by_input:
            marks.passed()
        return item

    def discard(self) -> None:
        super().discard()
        for marks in self._by_input:
            marks.clear()
