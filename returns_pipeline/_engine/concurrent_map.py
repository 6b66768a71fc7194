"""Run one step on several items of a stream at once: ``mapAsync``, ``parEvalMap``."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from contextvars import Context, copy_context
from gc import get_referents
from operator import is_
from typing import Any, TypeAlias, TypeVar

from returns_pipeline._engine.budget import Budget
from returns_pipeline._engine.marks import BySpan, CarriesMarks, Mark, Span
from returns_pipeline._engine.operator import plain_iterator
from returns_pipeline._engine.reader import Pump, Reader, notify

__all__ = ["expand_concurrently", "map_concurrently", "map_only_concurrently"]

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
F = TypeVar("F")


def map_concurrently(
    source: AsyncIterable[A | F],
    work: Callable[[A], Awaitable[B]],
    limit: int,
    *,
    ordered: bool,
    passing: type[F],
    after: Callable[[B], C],
    marked: bool = False,
) -> AsyncIterator[C | F]:
    """Replace each item by ``after`` of the outcome of ``work``, for ``limit`` items at a time.

    Items of the class ``passing`` are emitted as they are.

    Order: that of the source, or, if not ``ordered``, that of completion.

    Bounds: at most ``limit`` items are read and not yet emitted, whether they are still worked on
    or done: a slow reader stops the work (backpressure).

    Errors: an exception of ``work`` or of the source cancels the work under way, which is awaited
    before the source is closed. Items that are done, and whose turn it is, are still emitted; then
    the exception is raised.

    Cancel safety: a read that is cancelled loses nothing. ``aclose()`` cancels the work under way
    and the source, and awaits both.

    Contexts: the source runs in one task. The work on each item runs in a task of its own, in a
    copy of the source's context as it was when the item was read. No item sees what the work on
    another one has set.

    Marks: with ``marked``, the source has some; each is emitted when all items before it are.
    """
    operator = _class(marked)(
        source, limit, ordered=ordered, passing=passing, work=work, after=after
    )
    return Reader(operator)


def map_only_concurrently(
    source: AsyncIterable[A | F],
    work: Callable[[F], Awaitable[B]],
    limit: int,
    *,
    ordered: bool,
    only: type[F],
    after: Callable[[B], C],
    marked: bool = False,
) -> AsyncIterator[A | C]:
    """Do as `map_concurrently` with the items of one class; the others are emitted as they are."""
    operator = _class(marked)(source, limit, ordered=ordered, passing=only, work=work, after=after)
    operator.passes = False
    return Reader(operator)


def expand_concurrently(
    source: AsyncIterable[A | F],
    expand: Callable[[A], AsyncIterable[B]],
    limit: int,
    *,
    passing: type[F],
    marked: bool = False,
) -> AsyncIterator[B | F]:
    """Replace each item by the stream that ``expand`` returns for it, reading ``limit`` at a time.

    Items of one stream keep their order; those of streams that are read at the same time are
    emitted as they are ready. Each stream has at most one item waiting for the reader. For the
    rest, see `map_concurrently`.
    """
    return Reader(_class(marked)(source, limit, ordered=False, passing=passing, expand=expand))


def _class(marked: bool) -> type[_ConcurrentMap]:
    return _MarkedMap if marked else _ConcurrentMap


class _Slot:
    """The place of one item among those that were not emitted.

    Attributes:
        done: Whether the outcome is known.
        outcome: The item that is worked on; then the one to be emitted.
        taken: For an item of an expanded stream: resolved when it is emitted.
        span: Of an item of the source, in a marked chain.
    """

    __slots__ = ("done", "outcome", "span", "taken")

    span: Span

    def __init__(self, item: Any) -> None:
        self.done = False
        self.outcome = item  # an A, then a B or an F: the engine does not look
        self.taken: asyncio.Future[None] | None = None


# A task without work waits for this: the slot of the next item, or None if it is to end.
_Given: TypeAlias = "asyncio.Future[_Slot | None]"
# That, and the context that the last work of the task has left.
_Idle: TypeAlias = "tuple[_Given, Context]"


def _reuse(idle: _Idle, slot: _Slot) -> bool:
    """Pass an item to a task without work, if its context is what that of a new task would be.

    Otherwise the task ends.
    """
    given, left = idle
    if given.done():
        return False  # other code has cancelled the task
    fresh = copy_context()
    # A context refers to one immutable map, which its copies share until a variable is set. Where
    # they do, which is nearly always, there is no need to compare all variables.
    maps = get_referents(left, fresh)
    same = (len(maps) == 2 and maps[0] is maps[1]) or _is_same(left, fresh)
    given.set_result(slot if same else None)
    return same


def _is_same(left: Context, right: Context) -> bool:
    """Return whether two contexts hold the same objects. Equal ones are not enough."""
    return (
        len(left) == len(right)
        and all(map(is_, left.values(), right.values()))
        and all(map(is_, left, right))
    )


class _ConcurrentMap(Pump[Any]):
    """The state that the reading task, the working tasks and the reader share.

    The first task reads the source and passes each item to a working task. The class is untyped
    inside: the functions above have the types.

    The loops of `pump` and `_work_on` run once for each item, so they call few functions.

    Attributes:
        passes: Whether the items of the class ``passing`` are emitted as they are; else, all
            others are.
    """

    def __init__(
        self,
        source: AsyncIterable[Any],
        limit: int,
        *,
        ordered: bool,
        passing: type[Any],
        work: Callable[[Any], Awaitable[Any]] | None = None,
        after: Callable[[Any], Any] | None = None,
        expand: Callable[[Any], AsyncIterable[Any]] | None = None,
    ) -> None:
        super().__init__()
        self.passes = True
        self._source = source
        self._limit = limit
        self._ordered = ordered
        self._passing = passing
        self._work = work
        self._after = after
        self._expand = expand
        self._slots: deque[_Slot] = deque()  # in the order in which they are to be emitted
        self._begin: Callable[[Any], _Slot] = _Slot
        self._held = 0  # items read whose slot is not free again
        self._not_full: asyncio.Future[None] | None = None
        self._idle: asyncio.Future[None] | None = None
        self._waiting: list[_Idle] = []  # tasks without work

    def sources(self) -> Iterable[AsyncIterable[Any]]:
        return (self._source,)

    def bounds(self) -> str:
        return f"up to {self._limit} at a time, each in a task of its own"

    def held(self) -> int:
        return sum(slot.done for slot in self._slots)

    def in_flight(self) -> int:
        return max(0, len(self._tasks) - 1 - len(self._waiting))  # one of them reads the source

    def has_next(self) -> bool:
        """Return whether an item can be emitted."""
        slots = self._slots
        return slots[0].done if slots else False

    def take(self) -> Any:
        """Emit the next item."""
        slot = self._slots.popleft()
        if slot.taken is not None:
            notify(slot.taken)
        else:
            self._held -= 1
            notify(self._not_full)
        return slot.outcome

    def discard(self) -> None:
        """Drop all items."""
        self._slots.clear()

    def _free(self, read: _Slot) -> None:  # noqa: ARG002  # the slot of an item of the source
        self._held -= 1
        notify(self._not_full)

    async def pump(self) -> None:  # noqa: C901  # one flat loop, for its speed
        """Read the source, and keep it open until all work is done."""
        budget = Budget(self.loop)
        slots, waiting, ordered, expand = self._slots, self._waiting, self._ordered, self._expand
        begin = self._begin
        async with plain_iterator(self._source) as items:
            try:
                async for item in self.incoming(items):
                    if self.stopping:  # and the source has swallowed the cancellation
                        break
                    self._held += 1
                    slot = begin(item)
                    if ordered:
                        slots.append(slot)
                    if isinstance(item, self._passing) is self.passes:
                        self._fill(slot)
                    elif expand is not None:
                        self.start_task(self._emit_all_of, expand, slot)
                    elif not waiting or not _reuse(waiting.pop(), slot):
                        self.start_task(self._work_on, slot)
                    while self._held >= self._limit:
                        self.still_reading()
                        self._not_full = self.loop.create_future()
                        if self.stage is None:
                            await self._not_full
                        else:
                            await self.wait_for_reader(self._not_full, self._held)
                    # A stream without items has ended by now if its task was started eagerly.
                    if expand is not None and budget.spend():
                        await budget.renew()
                await self._wait_for_work()
                for given, _ in self._waiting:
                    notify(given)
                self._waiting.clear()
            except BaseException as error:
                self.finish(error)  # which cancels the work
                raise
            finally:
                while self._is_working():
                    try:
                        await self._wait_for_work()
                    except asyncio.CancelledError:
                        continue  # other code's: the source must not be closed before the work ends

    def _is_working(self) -> bool:
        return len(self._tasks) - 1 > len(self._waiting)  # one of them reads the source

    async def _wait_for_work(self) -> None:
        while self._is_working():
            self._idle = self.loop.create_future()
            await self._idle

    def ask_to_stop(self, *, next_turn: bool = False) -> None:
        """Cancel the work, and the tasks that wait for some."""
        self._waiting.clear()
        super().ask_to_stop(next_turn=next_turn)

    def on_task_ended(self) -> None:
        """Wake the reading task when the last work has ended, so that it closes the source."""
        if self._idle is not None and not self._is_working():
            notify(self._idle)

    def _fill(self, slot: _Slot) -> None:
        slot.done = True
        if not self._ordered:
            self._slots.append(slot)
            self.notify_reader()
        elif self._slots and self._slots[0] is slot:
            self.notify_reader()

    async def _work_on(self, slot: _Slot) -> None:
        """Work on an item, and on those that are passed to this task later.

        A task costs more than a short piece of work, so it is used again. But it is used only for
        an item whose context would be the same in a new task: the source has set nothing since this
        task was made, and the work has left nothing set.
        """
        work, after, slots, ordered = self._work, self._after, self._slots, self._ordered
        create_future, waiting = self.loop.create_future, self._waiting
        assert work is not None
        assert after is not None
        while True:
            slot.outcome = after(await work(slot.outcome))
            slot.done = True
            if not ordered:
                slots.append(slot)
                self.notify_reader()
            elif slots and slots[0] is slot:
                self.notify_reader()
            if self.stopping:
                return  # and the work has swallowed the cancellation
            given: _Given = create_future()
            waiting.append((given, copy_context()))
            if self._idle is not None and not self._is_working():
                notify(self._idle)
            del slot  # it refers to the item, and this task may wait for long
            following = await given
            if following is None:
                return
            slot = following

    async def _emit_all_of(self, expand: Callable[[Any], AsyncIterable[Any]], read: _Slot) -> None:
        async with plain_iterator(expand(read.outcome)) as opened:
            async for outcome in opened:
                slot = _Slot(outcome)
                slot.taken = self.loop.create_future()
                self._fill(slot)
                if self.stopping:
                    return  # and the stream has swallowed the cancellation
                await slot.taken
        self._free(read)


class _MarkedMap(CarriesMarks[BySpan], _ConcurrentMap):
    """Emits a mark when all items that were read before it are done, and emitted."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.marks = BySpan()
        self._begin = self._begin_in_span

    def _begin_in_span(self, item: Any) -> _Slot:
        slot = _Slot(item)
        slot.span = self.marks.begun()
        return slot

    def keep(self, mark: Mark) -> None:
        self.marks.put(mark)

    def take_item(self) -> Any:
        slot = self._slots[0]
        item = super().take_item()
        if slot.taken is None:
            self.marks.gone(slot.span)
        return item

    def _free(self, read: _Slot) -> None:
        super()._free(read)
        self.marks.gone(read.span)
        if self.marks.ready:
            self.notify_reader()
