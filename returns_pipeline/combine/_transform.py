"""Operators that emit the items of one stream: changed, fewer of them, or read ahead of time."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeVar, overload

from aiostream import Stream

from returns_pipeline._engine import checks
from returns_pipeline._engine.budget import Budget
from returns_pipeline._engine.fan_in import BUFFER, FairMerge, Input
from returns_pipeline._engine.marks import CarriesMarks, InOrder, Mark
from returns_pipeline._engine.operator import Operator, plain_iterator
from returns_pipeline._engine.reader import Pump, Reader, notify

__all__ = [
    "MarkedPrefetchPump",
    "PrefetchPump",
    "TakeUntilPump",
    "differing",
    "distinct_until_changed",
    "expand_in_turn",
    "folding",
    "prefetch",
    "scan",
    "take_until",
]

A = TypeVar("A")
F = TypeVar("F")
T = TypeVar("T")
U = TypeVar("U")


# scan and distinct_until_changed


_SKIPPED: Final = object()  # a step returns this for an item that is left out


class _StepPump(FairMerge[Any, Any]):
    """One input, whose items are changed or left out by a function as they are read."""

    def __init__(
        self, source: AsyncIterable[Any], make_step: Callable[[], Callable[[Any], Any]]
    ) -> None:
        super().__init__([source], BUFFER)
        self._make_step = make_step

    async def _fill(self, input_: Input[Any], source: AsyncIterator[Any]) -> None:
        items = input_.items
        step = self._make_step()  # it keeps the last item, and lives no longer than this
        budget = Budget(self.loop)
        async for item in source:
            made = step(item)
            if made is not _SKIPPED:
                items.append(made)
                if len(items) >= input_.check_at and not await self._hand_over(input_):
                    break
            elif self.stopping:
                break  # and the source has swallowed the cancellation
            elif budget.spend():
                await budget.renew()


class _Scan(Operator):
    def __call__(
        self, source: AsyncIterable[T], initial: A, func: Callable[[A, T], A]
    ) -> Stream[A]:
        """Emit the running fold: after each item, the result so far.

        1. For the first item ``func(initial, item)`` is emitted, for each later one ``func`` of the
           result before and the item.
        2. ``initial`` itself is not emitted: there is one result for each item, none for an empty
           source.

        The last one is the result of ``fold`` with the same arguments. An ``initial`` that ``func``
        changes in place is shared by all that is emitted, and by repeated readings.

        Order of events: the source and ``func`` run in one task, in a copy of the first reader's
        context, ahead of the reader by the bounds of `returns_pipeline.combine.merge`
        (backpressure).

        Cancel safety: a read that is cancelled loses nothing; the next one continues where it was.
        ``aclose()`` stops the source, awaits its clean-up to its end, and drops held items. An
        exception of the reader is not thrown into the source.

        Known elsewhere as: ``scan`` (Rx, tokio-stream; those of fs2, Akka and Pekko, and Effect
        emit ``initial`` first), ``accumulate`` (aiostream, itertools).

        Args:
            source: Read one item at a time.
            initial: The result before the first item.
            func: Returns the next result, from the one before and an item.

        Returns:
            A stream of the results after each item.

        Raises:
            TypeError: At the call, if ``source`` is not an async iterable.
            Exception: Any exception of the source or ``func``, after the results before it.

        >>> from returns_pipeline.testing import run, timed, timeline
        >>> s = timed(3, 1, 2)
        >>> done = scan(s, 0, lambda total, n: total + n)
        >>> run(timeline(done))
        [(0.0, 3), (0.0, 4), (0.0, 6)]
        """
        return self._stream(source, initial, func)

    def pipe(
        self, initial: A, func: Callable[[A, T], A]
    ) -> Callable[[AsyncIterable[T]], Stream[A]]:
        return self._piped(initial, func)

    def raw(
        self, source: AsyncIterable[T], initial: A, func: Callable[[A, T], A]
    ) -> AsyncIterator[A]:
        return Reader(_StepPump(source, lambda: folding(initial, func)))


scan: Final = _Scan("returns_pipeline.combine.scan")
"""Emit the running fold: after each item, the result so far."""


def folding(initial: A, func: Callable[[A, T], A]) -> Callable[[T], A]:
    """Return the step of `scan` for one reading of a stream: it keeps the result so far."""
    folded = initial

    def step(item: T) -> A:
        nonlocal folded
        folded = func(folded, item)
        return folded

    return step


class _DistinctUntilChanged(Operator):
    def __call__(
        self, source: AsyncIterable[T], /, key: Callable[[T], object] | None = None
    ) -> Stream[T]:
        """Leave out the items that are equal to the one before them.

        An item is emitted when

        1. it is the first one, or
        2. it, or its ``key``, differs (``!=``) from that of the item before it.

        The others are dropped: that is the purpose. A long run of them does not keep other tasks
        from running, even if the source never suspends.

        Order of events, backpressure and cancel safety: as `scan`.

        Known elsewhere as: ``distinctUntilChanged`` (Rx), ``changes`` (fs2, Effect), ``dedupe``
        (tokio-stream's crates), ``uniq``.

        Args:
            source: Read one item at a time.
            key: What is compared; the item itself by default.

        Returns:
            A stream of the first item of each run of equal ones.

        Raises:
            TypeError: At the call, if ``source`` is not an async iterable.
            Exception: Any exception of the source, ``key`` or a comparison, after what came before.

        >>> from returns_pipeline.testing import run, script, timeline
        >>> s = script("aabbba|")
        >>> done = distinct_until_changed(s)
        >>> run(timeline(done))
        [(0.0, 'a'), (2.0, 'b'), (5.0, 'a')]
        """
        return self._stream(source, key)

    # Without a key, nothing but the source tells the type: pyright needs that spelled out.
    @overload
    def pipe(self) -> Callable[[AsyncIterable[T]], Stream[T]]: ...
    @overload
    def pipe(
        self, key: Callable[[T], object] | None
    ) -> Callable[[AsyncIterable[T]], Stream[T]]: ...
    def pipe(
        self, key: Callable[[T], object] | None = None
    ) -> Callable[[AsyncIterable[T]], Stream[T]]:
        return self._piped(key)

    def raw(
        self, source: AsyncIterable[T], /, key: Callable[[T], object] | None = None
    ) -> AsyncIterator[T]:
        checks.item_function("key", key, optional=True)

        def make_step() -> Callable[[T], object]:
            differs = differing(key)
            return lambda item: item if differs(item) else _SKIPPED

        return Reader(_StepPump(source, make_step))


distinct_until_changed: Final = _DistinctUntilChanged(
    "returns_pipeline.combine.distinct_until_changed"
)
"""Leave out the items that are equal to the one before them."""


def differing(key: Callable[[T], object] | None) -> Callable[[T], bool]:
    """Return the test of `distinct_until_changed` for one reading: it keeps what came last."""
    last: object = _SKIPPED  # no item is this

    def differs(item: T) -> bool:
        nonlocal last
        current = item if key is None else key(item)
        if last is not _SKIPPED and not current != last:  # noqa: SIM202  # as documented
            return False
        last = current
        return True

    return differs


# prefetch


class _Prefetch(Operator):
    def __call__(self, source: AsyncIterable[T], n: int) -> Stream[T]:
        """Read up to ``n`` items ahead of the reader, so that both work at the same time.

        1. From the first read on, the source is read while fewer than ``n`` items are held.
        2. All items are emitted, in order. The reader waits only when none is held.

        Backpressure: ``n`` items are held, however fast the reader is; then the source waits.

        Cancel safety, order of events and contexts: as `scan`.

        Known elsewhere as: ``prefetchN`` (fs2), ``buffer`` (Akka and Pekko, Effect; there also for
        other things), ``observeOn`` (Rx).

        Args:
            source: Read one item at a time.
            n: How many items may be held, at least 1.

        Returns:
            A stream of the same items.

        Raises:
            InvalidArgument: At the call, if ``n`` is out of range.
            TypeError: At the call, if ``source`` is not an async iterable.
            Exception: Any exception of the source, after the items before it.

        >>> from returns_pipeline.testing import run, script, timeline
        >>> s = script("abcd|")
        >>> done = prefetch(s, 2)
        >>> run(timeline(done, pause=3.0))
        [(0.0, 'a'), (3.0, 'b'), (6.0, 'c'), (9.0, 'd')]
        """
        return self._stream(source, n)

    def pipe(self, n: int) -> Callable[[AsyncIterable[T]], Stream[T]]:
        return self._piped(n)

    def raw(self, source: AsyncIterable[T], n: int) -> AsyncIterator[T]:
        return Reader(PrefetchPump(source, n))


prefetch: Final = _Prefetch("returns_pipeline.combine.prefetch")
"""Read up to ``n`` items ahead of the reader, so that both work at the same time."""


class PrefetchPump(Pump[T]):
    """A queue: its task keeps the source ahead by a fixed number of items."""

    def __init__(self, source: AsyncIterable[T], n: int) -> None:
        super().__init__()
        self._source = checks.source(source)
        self._n = checks.count("n", n)
        self._items: deque[T] = deque()
        self._not_full: asyncio.Future[None] | None = None

    def sources(self) -> tuple[AsyncIterable[T]]:
        return (self._source,)

    def bounds(self) -> str:
        return f"holds up to {self._n}"

    def held(self) -> int:
        return len(self._items)

    def has_next(self) -> bool:
        """Return whether an item is held."""
        return bool(self._items)

    def take(self) -> T:
        """Return the first item; the source is read on."""
        item = self._items.popleft()
        if self._not_full is not None:
            notify(self._not_full)
        return item

    def discard(self) -> None:
        """Drop all items."""
        self._items.clear()

    async def pump(self) -> None:
        """Read the source whenever the queue is not full."""
        items = self._items
        budget = Budget(self.loop)
        async with plain_iterator(self._source) as source:
            async for item in self.incoming(source):
                if self.stopping:
                    return  # and the source has swallowed the cancellation
                items.append(item)
                if len(items) == 1:
                    self.notify_reader()
                if len(items) >= self._n:
                    await self._wait_until_not_full()
                elif budget.spend():
                    await budget.renew()

    async def _wait_until_not_full(self) -> None:
        self.still_reading()
        if self.reading:
            await self.yield_to_reader()
        while len(self._items) >= self._n and not self.stopping:
            self._not_full = self.loop.create_future()
            try:
                await self.wait_for_reader(self._not_full, len(self._items))
            finally:
                self._not_full = None


class MarkedPrefetchPump(CarriesMarks[InOrder], PrefetchPump[Any]):
    """Emits a mark after the items that were held when it came. Marks do not count."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.marks = InOrder()

    def keep(self, mark: Mark) -> None:
        self.marks.put(mark, len(self._items))

    def take_item(self) -> Any:
        item = super().take_item()
        self.marks.passed()
        return item


# flat_map


class _ExpandPump(FairMerge[Any, Any]):
    """One input, whose items are replaced by those of streams, one stream after the other."""

    def __init__(
        self,
        source: AsyncIterable[Any],
        expand: Callable[[Any], AsyncIterable[Any]],
        passing: tuple[type[Any], ...],
        unpack: Callable[[Any], Any],
    ) -> None:
        super().__init__([source], BUFFER)
        self._expand = expand
        self._passing = passing
        self._unpack = unpack

    async def _fill(self, input_: Input[Any], source: AsyncIterator[Any]) -> None:
        items = input_.items
        budget = Budget(self.loop)
        async for item in source:
            if item.__class__ in self._passing:
                items.append(item)
                if len(items) >= input_.check_at and not await self._hand_over(input_):
                    break
            elif not await self._fill_from(self._expand(item), input_) and budget.spend():
                await budget.renew()
            if self.stopping:
                break

    async def _fill_from(self, expanded: AsyncIterable[Any], input_: Input[Any]) -> bool:
        """Read one of the streams; return whether it had any items."""
        items, unpack = input_.items, self._unpack
        had_items = False
        async with plain_iterator(expanded) as inner:
            async for item in inner:
                had_items = True
                items.append(unpack(item))
                if len(items) >= input_.check_at and not await self._hand_over(input_):
                    break
        return had_items


def expand_in_turn(
    source: AsyncIterable[A | F],
    expand: Callable[[A], AsyncIterable[T]],
    *,
    passing: tuple[type[F], ...],
    unpack: Callable[[T], U],
) -> AsyncIterator[U | F]:
    """Replace each item by the items of a stream, reading one stream after the other.

    Items of the classes ``passing`` are not expanded; they are emitted as they are. For an item of
    a stream, ``unpack`` of it is emitted.

    Order of events: the source and the streams run in one task, ahead of the reader by the bounds
    of `returns_pipeline.combine.merge`. Cancel safety: as `scan`.
    """
    return Reader(_ExpandPump(source, expand, passing, unpack))


# take_until


class _TakeUntil(Operator):
    def __call__(
        self,
        source: AsyncIterable[T],
        stop: asyncio.Event | AsyncIterable[object] | Awaitable[object],
    ) -> Stream[T]:
        """Emit the items of a source until something else happens.

        1. An item is emitted as it arrives.
        2. When ``stop`` happens, reading ends: a pending read is cancelled, and the source is
           closed. Items that were read before are emitted, then the stream ends.
        3. If ``stop`` has happened before the first read, the source is not opened.
        4. A stream as ``stop`` that ends without an item does not stop anything.

        Errors: when the source fails, or ``stop`` does, the other is stopped at once. Items that
        were read are emitted, then the error is raised.

        Backpressure and cancel safety: as `returns_pipeline.combine.merge`; source and ``stop``
        each run in a task of their own, in a copy of the first reader's context.

        Known elsewhere as: ``takeUntil`` (Rx), ``interruptWhen`` (fs2, Effect), ``KillSwitch``
        (Akka and Pekko), ``take_until`` (futures-rs).

        Args:
            source: Read one item at a time.
            stop: An event that is set, a stream that emits its first item, or an awaitable that is
                done. A coroutine can be awaited only once, so then the stream can be read only
                once.

        Returns:
            A stream of the items.

        Raises:
            TypeError: At the call, if ``source`` or ``stop`` is none of these.
            Exception: Any exception of the source or ``stop``, after the items that were read.

        >>> from returns_pipeline.testing import run, script, timeline
        >>> s = script("ab-cd|")
        >>> done = take_until(s, script("---!", values={"!": "enough"}))
        >>> run(timeline(done))
        [(0.0, 'a'), (1.0, 'b'), (3.0, 'c')]
        """
        return self._stream(source, stop)

    def pipe(
        self, stop: asyncio.Event | AsyncIterable[object] | Awaitable[object]
    ) -> Callable[[AsyncIterable[T]], Stream[T]]:
        return self._piped(stop)

    def raw(
        self,
        source: AsyncIterable[T],
        stop: asyncio.Event | AsyncIterable[object] | Awaitable[object],
    ) -> AsyncIterator[T]:
        return Reader(TakeUntilPump(source, stop))


take_until: Final = _TakeUntil("returns_pipeline.combine.take_until")
"""Emit the items of a source until something else happens."""


class TakeUntilPump(FairMerge[Any, Any]):
    """Two inputs: the first one, started first, ends the second."""

    def __init__(
        self,
        source: AsyncIterable[Any],
        stop: asyncio.Event | AsyncIterable[object] | Awaitable[object],
    ) -> None:
        super().__init__([_signal(stop), source], BUFFER)

    def bounds(self) -> str:
        return f"holds up to {self.buffer}"

    def on_item(self, input_: Input[Any]) -> None:
        """End the stream if the item is the first input's."""
        if input_.index == 0:
            input_.items.clear()
            self.finish()
        else:
            super().on_item(input_)

    def on_end(self, input_: Input[Any]) -> None:
        """Stop waiting for the signal when the source has ended."""
        if input_.index == 1:
            self.finish()


def _signal(
    stop: asyncio.Event | AsyncIterable[object] | Awaitable[object],
) -> AsyncIterable[object]:
    if isinstance(stop, asyncio.Event):
        return _once(stop.wait)
    if isinstance(stop, asyncio.Future):
        return _when_done(stop)
    if isinstance(stop, AsyncIterable):
        return stop
    if inspect.isawaitable(stop):
        awaitable = stop
        return _once(lambda: awaitable)
    raise TypeError(f"cannot wait for a {type(stop).__name__!r} to stop the stream")


async def _once(happening: Callable[[], Awaitable[object]]) -> AsyncGenerator[None, None]:
    await happening()
    yield None


async def _when_done(future: asyncio.Future[Any]) -> AsyncGenerator[Any, None]:
    if not future.done():
        # Not a bare await: closing the stream must not cancel an awaitable that others wait for,
        # too. This suspends in any case, so that the source is opened meanwhile.
        await asyncio.wait([future])
    yield future.result()
