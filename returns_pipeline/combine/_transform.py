"""Operators that pass the items of one stream on, changed, fewer, or read ahead of time."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, cast, overload

from returns_pipeline._engine.fan_in import BUFFER, FairMerge, check_source, relay
from returns_pipeline._engine.operator import Operator, check_at_least, operator, plain_iterator
from returns_pipeline._engine.reader import Reader, checkpoint

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

    from aiostream import Stream

    from returns_pipeline._engine.fan_in import Input

__all__ = [
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


# How many items in a row may be left out before other tasks get a turn.
_STRIDE = 256

_SKIPPED: Final = object()  # what a step gives for an item that is left out


class _Stepping(FairMerge[Any, Any]):
    """One lane, whose items are changed or left out by a function as they are read."""

    def __init__(
        self, source: AsyncIterable[Any], make_step: Callable[[], Callable[[Any], Any]]
    ) -> None:
        super().__init__([source], BUFFER)
        self._make_step = make_step

    async def _fill(self, lane: Input[Any], source: AsyncIterator[Any]) -> None:
        items = lane.items
        step = self._make_step()  # it keeps the last item, and lives no longer than this
        skipped = 0
        async for item in source:
            made = step(item)
            if made is not _SKIPPED:
                items.append(made)
                if len(items) >= lane.mark and not await self._look_up(lane):
                    break
            elif self.over:
                break  # and the source has swallowed the cancellation
            else:
                skipped += 1
                if skipped % _STRIDE == 0:
                    await checkpoint()


class _Expanding(FairMerge[Any, Any]):
    """One lane, whose items are replaced by those of streams, one stream after the other."""

    def __init__(
        self,
        source: AsyncIterable[Any],
        expand: Callable[[Any], AsyncIterable[Any]],
        passing: type[Any],
        unpack: Callable[[Any], Any],
    ) -> None:
        super().__init__([source], BUFFER)
        self._expand = expand
        self._passing = passing
        self._unpack = unpack

    async def _fill(self, lane: Input[Any], source: AsyncIterator[Any]) -> None:
        items = lane.items
        empty = 0
        async for item in source:
            if item.__class__ is self._passing:
                items.append(item)
                if len(items) >= lane.mark and not await self._look_up(lane):
                    break
            elif not await self._fill_from(self._expand(item), lane):
                empty += 1
                if empty % _STRIDE == 0:
                    await checkpoint()
            if self.over:
                break

    async def _fill_from(self, expanded: AsyncIterable[Any], lane: Input[Any]) -> bool:
        """Read one of the streams; say whether it gave anything."""
        items, unpack = lane.items, self._unpack
        gave = False
        async with plain_iterator(expanded) as inner:
            async for item in inner:
                gave = True
                items.append(unpack(item))
                if len(items) >= lane.mark and not await self._look_up(lane):
                    break
        return gave


def expand_in_turn(
    source: AsyncIterable[A | F],
    expand: Callable[[A], AsyncIterable[T]],
    *,
    passing: type[F],
    unpack: Callable[[T], U],
) -> AsyncIterator[U | F]:
    """Replace each item by the items of a stream, reading one stream after the other.

    Items of the class ``passing`` are not expanded; they come out as they are. ``unpack`` makes of
    an item of a stream what comes out.

    Order of events: the source and the streams run in one task, ahead of the reader by the bounds
    of `returns_pipeline.combine.merge`. Cancel safety: as `scan`.
    """
    return Reader(_Expanding(source, expand, passing, unpack))


@operator
def scan(source: AsyncIterable[T], initial: A, func: Callable[[A, T], A]) -> AsyncIterator[A]:
    """Give the running fold: after each item, what there is so far.

    1. For the first item ``func(initial, item)`` is given out, for each later one ``func`` of what
       was given out last and the item.
    2. ``initial`` itself is not given out: there is one for each item, none for an empty source.

    The last one is what ``fold`` with the same arguments gives. An ``initial`` that ``func``
    changes in place is shared by all that is given out, and by repeated readings.

    Order of events: the source and ``func`` run in one task, ahead of the reader by the bounds of
    `returns_pipeline.combine.merge`. On Python 3.12 and later that task shares the reader's context
    variables both ways; on 3.11 it works on a copy of them.

    Cancel safety: a read that is cancelled loses nothing, the next one goes on where it was.
    ``aclose()`` stops the source, awaits its clean-up and drops what is held. What a reader raises
    is not thrown into the source.

    Known elsewhere as: ``scan`` (Rx, tokio-stream; those of fs2, Akka and Pekko, and Effect give
    ``initial`` first), ``accumulate`` (aiostream, itertools).

    Args:
        source: Read one item at a time.
        initial: What there is before the first item.
        func: Makes what there is, of what there was and an item.

    Returns:
        A stream of what there is after each item.

    Raises:
        TypeError: At the call, if ``source`` is not an async iterable.
        Exception: What the source or ``func`` raised, after what was made before.

    >>> from returns_pipeline.testing import run, timed, timeline
    >>> run(timeline(scan(timed(3, 1, 2), 0, lambda total, n: total + n)))
    [(0.0, 3), (0.0, 4), (0.0, 6)]
    """
    check_source(source)
    return Reader(_Stepping(source, lambda: folding(initial, func)))


def folding(initial: A, func: Callable[[A, T], A]) -> Callable[[T], A]:
    """Make the step of `scan` for one reading of a stream: it keeps what there is so far."""
    folded = initial

    def step(item: T) -> A:
        nonlocal folded
        folded = func(folded, item)
        return folded

    return step


def _distinct_until_changed(
    source: AsyncIterable[T], key: Callable[[T], object] | None = None
) -> AsyncIterator[T]:
    """Leave out the items that are equal to the one before them.

    An item is given out when

    1. it is the first one, or
    2. it, or its ``key``, differs (``!=``) from that of the item before it.

    The others are dropped: that is its purpose. A source that gives nothing but those, without ever
    suspending, lets other tasks have a turn now and then.

    Order of events, bounds and cancel safety: as `scan`.

    Known elsewhere as: ``distinctUntilChanged`` (Rx), ``changes`` (fs2, Effect), ``dedupe``
    (tokio-stream's crates), ``uniq``.

    Args:
        source: Read one item at a time.
        key: What is compared; the item itself by default.

    Returns:
        A stream of the first item of each run of equal ones.

    Raises:
        TypeError: At the call, if ``source`` is not an async iterable.
        Exception: What the source, ``key`` or a comparison raised, after what came before.

    >>> from returns_pipeline.testing import run, script, timeline
    >>> run(timeline(distinct_until_changed(script("aabbba|"))))
    [(0.0, 'a'), (2.0, 'b'), (5.0, 'a')]
    """
    check_source(source)

    def make_step() -> Callable[[T], object]:
        differs = differing(key)
        return lambda item: item if differs(item) else _SKIPPED

    return Reader(_Stepping(source, make_step))


def differing(key: Callable[[T], object] | None) -> Callable[[T], bool]:
    """Make the test of `distinct_until_changed` for one reading: it keeps what came last."""
    last: object = _SKIPPED  # no item is this

    def differs(item: T) -> bool:
        nonlocal last
        current = item if key is None else key(item)
        if last is not _SKIPPED and not current != last:  # noqa: SIM202  # as documented
            return False
        last = current
        return True

    return differs


class _DistinctPipe(Protocol):
    @overload
    def __call__(self) -> Callable[[AsyncIterable[T]], Stream[T]]: ...
    @overload
    def __call__(
        self, key: Callable[[T], object] | None
    ) -> Callable[[AsyncIterable[T]], Stream[T]]: ...


class _DistinctCall(Protocol):
    def __call__(
        self, source: AsyncIterable[T], /, key: Callable[[T], object] | None = None
    ) -> Stream[T]: ...


class _DistinctRaw(Protocol):
    def __call__(
        self, source: AsyncIterable[T], /, key: Callable[[T], object] | None = None
    ) -> AsyncIterator[T]: ...


# Spelled out because no type can be found for ``pipe()``, without a key, from the function alone.
_distinct_until_changed.__name__ = "distinct_until_changed"
_made = operator(_distinct_until_changed)
distinct_until_changed: Operator[_DistinctCall, _DistinctPipe, _DistinctRaw] = Operator(
    _made.__call__,
    cast("_DistinctPipe", _made.pipe),
    _made.raw,
    of=_distinct_until_changed,
)


@operator
def prefetch(source: AsyncIterable[T], n: int) -> AsyncIterator[T]:
    """Read up to ``n`` items ahead of the reader, so that both work at the same time.

    1. The source is asked for items from the first read on, and goes on while less than ``n`` are
       held.
    2. An item is given out when it has come and those before it are out: all come out, in order,
       and the reader waits only when none is held.

    Bounds: ``n`` items are held, whatever the reader takes; then the source waits.

    Cancel safety, order of events and context variables: as `scan`.

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
        Exception: What the source raised, after the items before it.

    >>> from returns_pipeline.testing import run, script, timeline
    >>> run(timeline(prefetch(script("abcd|"), 2), pause=3.0))
    [(0.0, 'a'), (3.0, 'b'), (6.0, 'c'), (9.0, 'd')]
    """
    check_at_least("n", n, 1)
    return relay(source, buffer=n, fixed=True)


class _Stoppable(FairMerge[Any, T]):
    """Two lanes: the second ends the first."""

    def __init__(self, source: AsyncIterable[T], stop: AsyncIterable[object]) -> None:
        super().__init__([stop, source], BUFFER)

    def arrived(self, lane: Input[Any]) -> None:
        if lane.index == 0:
            lane.items.clear()
            self.finish()
        else:
            super().arrived(lane)

    def left(self, lane: Input[Any]) -> None:
        if lane.index == 1:
            self.finish()


@operator
def take_until(
    source: AsyncIterable[T],
    stop: asyncio.Event | AsyncIterable[object] | Awaitable[object],
) -> AsyncIterator[T]:
    """Give the items of a source until something else happens.

    1. An item is given out as it comes.
    2. When ``stop`` happens, the source is read no further: a read of it that is pending is
       cancelled, and it is closed. What was read before comes out, then the stream ends.
    3. If ``stop`` has happened before the first read, the source is not opened.
    4. A stream as ``stop`` that ends without an item does not stop anything.

    Errors: when the source fails, or ``stop`` does, the other is stopped at once. What was read
    comes out, then the error is raised.

    Bounds and cancel safety: as `returns_pipeline.combine.merge`; source and ``stop`` each run in
    a task of their own, on a copy of the reader's context variables.

    Known elsewhere as: ``takeUntil`` (Rx), ``interruptWhen`` (fs2, Effect), ``KillSwitch`` (Akka
    and Pekko), ``take_until`` (futures-rs).

    Args:
        source: Read one item at a time.
        stop: An event that is set, a stream that gives its first item, or an awaitable that is
            done. A coroutine can be awaited only once, and so the stream be read only once.

    Returns:
        A stream of the items.

    Raises:
        TypeError: At the call, if ``source`` or ``stop`` is none of what they may be.
        Exception: What the source or ``stop`` raised, after the items that were read.

    >>> from returns_pipeline.testing import run, script, timeline
    >>> run(timeline(take_until(script("ab-cd|"), script("---!", values={"!": "enough"}))))
    [(0.0, 'a'), (1.0, 'b'), (3.0, 'c')]
    """
    signal: AsyncIterable[object]
    if isinstance(stop, asyncio.Event):
        signal = _once(stop.wait)
    elif isinstance(stop, asyncio.Future):
        signal = _when_done(stop)
    elif isinstance(stop, AsyncIterable):
        signal = stop
    elif inspect.isawaitable(stop):
        awaitable = stop
        signal = _once(lambda: awaitable)
    else:
        raise TypeError(f"cannot wait for a {type(stop).__name__!r} to stop the stream")
    pump: _Stoppable[T] = _Stoppable(source, signal)
    return Reader(pump)


async def _once(happening: Callable[[], Awaitable[object]]) -> AsyncGenerator[None, None]:
    await happening()
    yield None


async def _when_done(future: asyncio.Future[Any]) -> AsyncGenerator[Any, None]:
    # Not a bare await: closing the stream must not cancel what somebody else waits for too.
    await asyncio.wait([future])
    yield future.result()
