"""Several streams made into one."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast, overload

from aiostream import Stream
from aiostream.core import sources_operator
from returns.result import Failure, Result, Success

from returns_pipeline._engine.fan_in import BUFFER, FairMerge, FanIn, Input, check_source, relay
from returns_pipeline._engine.future_results import cases
from returns_pipeline._engine.operator import Combiner, Operator, check_at_least, plain_iterator
from returns_pipeline._engine.reader import Reader
from returns_pipeline.errors import InvalidArgument, UnevenSources

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping

    from returns_pipeline.combine._signatures import (
        JoinCall,
        JoinPipe,
        JoinRaw,
        PrioritizedCall,
        PrioritizedRaw,
        ZipCall,
        ZipPipe,
        ZipRaw,
    )

__all__ = ["TimedOut", "concat", "merge", "merge_prioritized", "select", "zip_items", "zip_results"]

K = TypeVar("K")
T = TypeVar("T")
U = TypeVar("U")


def _merge(*sources: AsyncIterable[T], buffer: int = BUFFER) -> AsyncIterator[T]:
    """Give the items of several sources as they come.

    An item is given out when

    1. it has come, before those that came after it to a reader that keeps up;
    2. several sources have items waiting: one of each in turn, so that two sources that are always
       ready each get half.

    Each source's items keep their order. It ends when all sources have ended.

    Bounds: of each source at most ``buffer`` items are held. It begins with one; only for a reader
    that takes everything and waits for more does it double, so that no source is ever ahead by
    more than one item more than were taken of it. A reader that is slower than the sources brings
    it back to one.

    Order of events: the sources are opened at the first read. Each runs in one task of its own
    from its first item to its clean-up, on a copy of the reader's context variables.

    Errors: when a source fails, the others are stopped at once. What was read of all of them
    comes out, then the error is raised. A clean end therefore says that all have ended cleanly.

    Cancel safety: a read that is cancelled loses nothing, the next one goes on where it was.
    ``aclose()`` stops the sources, awaits their clean-up and drops what is held. What a reader
    raises is not thrown into a source.

    Known elsewhere as: ``merge`` (Rx, fs2, Akka and Pekko, Effect, tokio-stream), fan-in.

    Args:
        sources: Any number; of differing types, the result has the union. None at all is an empty
            stream.
        buffer: How many items of each source may be held, at least 1.

    Returns:
        A stream of their items.

    Raises:
        InvalidArgument: At the call, if ``buffer`` is out of range.
        TypeError: At the call, if a source is not an async iterable.
        Exception: What a source raised, after the items that were read.

    >>> from returns_pipeline.testing import run, script, timeline
    >>> run(timeline(merge(script("a--b|"), script("-1-2--3|"))))
    [(0.0, 'a'), (1.0, '1'), (3.0, 'b'), (3.0, '2'), (6.0, '3')]
    """
    check_at_least("buffer", buffer, 1)
    pump: FairMerge[T, T] = FairMerge(sources, buffer)
    return Reader(pump)


def _operator(func: Callable[..., AsyncIterator[Any]]) -> Operator[Any, Any, Any]:
    """Make the three forms; what the protocols above say of them is not checked against it."""
    func.__name__ = func.__name__.removeprefix("_")
    made = sources_operator(func)
    return Operator(made, made.pipe, made.raw, of=func)


merge: Operator[JoinCall, JoinPipe, JoinRaw] = _operator(_merge)


# concat


def _concat(*sources: AsyncIterable[T], buffer: int = BUFFER) -> AsyncIterator[T]:
    """Give the items of the first source, then those of the second, and so on.

    1. A source is opened when the one before it has ended and is closed.
    2. A source that fails ends the stream with its error; the following are not opened.

    Order of events: the sources run in one task, which on Python 3.12 and later shares the
    reader's context variables both ways; on 3.11 it works on a copy of them.

    Bounds and cancel safety: as `merge`.

    Known elsewhere as: ``concat`` (Rx, Akka and Pekko, Effect), ``++`` (fs2), ``chain``
    (tokio-stream, aiostream).

    Args:
        sources: Any number; of differing types, the result has the union.
        buffer: How many items may be held, at least 1.

    Returns:
        A stream of their items.

    Raises:
        InvalidArgument: At the call, if ``buffer`` is out of range.
        TypeError: At the call, if a source is not an async iterable.
        Exception: What a source raised, after the items that were read.

    >>> from returns_pipeline.testing import run, script, timeline
    >>> run(timeline(concat(script("a--b|"), script("-1|"))))
    [(0.0, 'a'), (3.0, 'b'), (5.0, '1')]
    """
    check_at_least("buffer", buffer, 1)

    async def one_after_the_other() -> AsyncIterator[T]:
        for source in sources:
            async with plain_iterator(source) as items:
                async for item in items:
                    yield item

    return relay(one_after_the_other(), buffer=buffer)


concat: Operator[JoinCall, JoinPipe, JoinRaw] = _operator(_concat)


# merge_prioritized


# How many turns of the loop a source that was just emptied has, to give its next item before those
# of lower priority: one if it does not suspend, and one for a ``sleep(0)``.
_TURNS = 1


class _Level(Generic[T]):
    """The lanes of one priority."""

    __slots__ = ("passed_over", "priority", "ready", "settling")

    def __init__(self, priority: float) -> None:
        self.priority = priority
        self.ready: deque[Input[T]] = deque()  # with items, the next one first
        self.passed_over = 0  # items of higher levels given out while it had some, or soon might
        self.settling = 0  # sources that were let go on and had no chance yet to give an item


class _Prioritized(FanIn[T, T]):
    def __init__(
        self, sources: tuple[tuple[float, AsyncIterable[T]], ...], limit: float, buffer: int
    ) -> None:
        super().__init__([source for _, source in sources], buffer)
        self._limit = limit
        levels: dict[float, _Level[T]] = {}
        self._level_of: list[_Level[T]] = []
        for priority, _ in sources:
            level = levels.setdefault(priority, _Level(priority))
            self._level_of.append(level)
        self._levels = sorted(levels.values(), key=lambda level: -level.priority)

    def arrived(self, lane: Input[T]) -> None:
        self._level_of[lane.index].ready.append(lane)

    def has_next(self) -> bool:
        # A level whose source may have its next item at once is not to be passed over: neither by
        # lower ones nor, if it is its turn, by higher ones.
        if any(level.passed_over >= self._limit and not level.ready for level in self._levels):
            return False
        settling = False
        for level in self._levels:
            if level.ready and (not settling or level.passed_over >= self._limit):
                return True
            settling = settling or level.settling > 0
        return False

    def take(self) -> T:
        waiting = [level for level in self._levels if level.ready]
        # The one passed over most often among those that are due; of two alike, the higher one.
        level = max(waiting, key=lambda level: level.passed_over)
        if level.passed_over < self._limit:
            level = waiting[0]
        for lower in self._levels[self._levels.index(level) + 1 :]:
            if lower.ready or lower.settling:
                lower.passed_over += 1
        level.passed_over = 0
        lane = level.ready.popleft()
        item = lane.items.pop(0)
        lane.mark = len(lane.items) + 1
        if lane.items:
            level.ready.append(lane)
        elif not (lane.over or self.over):
            lane.emptied()
            level.settling += 1
            self.loop.call_soon(self._settled, level, _TURNS)
        return item

    def _settled(self, level: _Level[T], turns: int) -> None:
        if turns:
            self.loop.call_soon(self._settled, level, turns - 1)
        else:
            level.settling -= 1
            if not (level.settling or level.ready):
                level.passed_over = 0  # it had nothing after all
            self.notify_reader()

    def discard(self) -> None:
        super().discard()
        for level in self._levels:
            level.ready.clear()


def _merge_prioritized(
    *sources: tuple[float, AsyncIterable[T]],
    starvation_limit: int | None = 32,
    buffer: int = BUFFER,
) -> AsyncIterator[T]:
    """Give the items of several sources, those of a higher priority first.

    Of the items that wait, the next one given out is

    1. one of a priority that was passed over ``starvation_limit`` times in a row, if there is one;
    2. else one of the highest priority that has an item waiting. An item overtakes all those of
       lower priority that are not given out yet, whenever they came.
    3. Sources of equal priority take turns.

    A source that has nothing is not waited for, whatever its priority; one that was just let go on
    has a turn of the loop to give its next item, and counts as waiting until then. Each source's
    items keep their order. It ends when all sources have ended.

    Bounds, order of events, errors and cancel safety: as `merge`; after an error, what was read
    still comes out by priority.

    Known elsewhere as: ``MergePrioritized`` (Akka and Pekko, where priorities are weights),
    ``MergePreferred``.

    Args:
        sources: Pairs of a priority and a source. The higher number goes first.
        starvation_limit: How often in a row items of higher priority may be preferred to one
            priority that has items waiting, at least 1; then it has its turn. `None` for no limit.
        buffer: How many items of each source may be held, at least 1.

    Returns:
        A stream of their items.

    Raises:
        InvalidArgument: At the call, if ``starvation_limit`` or ``buffer`` is out of range, or a
            priority is not a number.
        TypeError: At the call, if a source is not an async iterable.
        Exception: What a source raised, after the items that were read.

    >>> from returns_pipeline.testing import run, script, timeline
    >>> alarms, records = script("---!|", values={"!": "fire"}), script("(abc)|")
    >>> run(timeline(merge_prioritized((1, records), (9, alarms)), pause=2.0))
    [(0.0, 'a'), (2.0, 'b'), (4.0, 'fire'), (6.0, 'c')]
    """
    if starvation_limit is not None:
        check_at_least("starvation_limit", starvation_limit, 1)
    check_at_least("buffer", buffer, 1)
    for priority, source in sources:
        if math.isnan(priority):
            raise InvalidArgument("a priority must be a number, not nan")
        check_source(source)
    limit = math.inf if starvation_limit is None else starvation_limit
    return Reader(_Prioritized(sources, limit, buffer))


def _prioritized_stream(
    *sources: tuple[float, AsyncIterable[Any]],
    starvation_limit: int | None = 32,
    buffer: int = BUFFER,
) -> Stream[Any]:
    return Stream(
        lambda: _merge_prioritized(*sources, starvation_limit=starvation_limit, buffer=buffer)
    )


merge_prioritized: Combiner[PrioritizedCall, PrioritizedRaw] = Combiner(
    _prioritized_stream, _merge_prioritized, of=_merge_prioritized
)


# select


@dataclass(frozen=True, slots=True)
class TimedOut:
    """What `select` gives when no source gave anything for too long.

    Attributes:
        after: For how many seconds.
    """

    after: float


class _Selecting(FairMerge[T, "tuple[K, T] | TimedOut"], Generic[K, T]):
    tags = True

    def __init__(self, sources: Mapping[K, AsyncIterable[T]], timeout: float, buffer: int) -> None:
        super().__init__(sources.values(), buffer)
        self._keys = list(sources)
        self._timeout = timeout
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = math.inf
        self._silent = False

    def tagged(self, lane: Input[T], item: T) -> tuple[K, T]:
        return self._keys[lane.index], item

    def all_tagged(self, lane: Input[T], items: list[T]) -> Iterable[tuple[K, T]]:
        return zip(repeat(self._keys[lane.index]), items)

    def start(self) -> None:
        super().start()
        self._deadline = self.loop.time() + self._timeout

    def has_next(self) -> bool:
        if super().has_next():
            return True
        if self.over or self.ended or self._deadline == math.inf:
            return False
        if not self._silent and self._timer is None:
            if self.loop.time() >= self._deadline:
                self._silent = True
            else:
                self._timer = self.loop.call_at(self._deadline, self._on_timer, self._deadline)
        return self._silent

    def take(self) -> tuple[K, T] | TimedOut:
        self._deadline = self.loop.time() + self._timeout
        if super().has_next():
            self._silent = False
            return super().take()
        self._silent = False
        return TimedOut(self._timeout)

    def _on_timer(self, when: float) -> None:
        # One handle serves all reads: it is moved on when it fires for a silence that has ended.
        self._timer = None
        if self._deadline <= when:
            self._silent = True
            self.notify_reader()
        elif self.ready is not None:
            self._timer = self.loop.call_at(self._deadline, self._on_timer, self._deadline)

    def discard(self) -> None:
        super().discard()
        self._disarm()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def pump(self) -> None:
        try:
            await super().pump()
        finally:
            self._disarm()


def _select(
    sources: Mapping[K, AsyncIterable[T]],
    *,
    timeout: float | None = None,
    buffer: int = BUFFER,
) -> AsyncIterator[tuple[K, T] | TimedOut]:
    """Give the items of several sources as they come, each with its source's key.

    1. A pair of key and item is given out by the rules of `merge`.
    2. With a ``timeout``, a `TimedOut` is given out when none is waiting and that many seconds
       have passed since the last pair, or the last `TimedOut`, was given out, or since the first
       read. It does not end anything.

    Bounds, order of events, errors and cancel safety: as `merge`. A read that is cancelled and made
    again does not start the time-out again.

    Known elsewhere as: ``select!`` (tokio, where the losers of each round are dropped),
    ``StreamMap`` (tokio-stream), ``select`` (Go).

    Args:
        sources: The sources by their keys.
        timeout: Seconds of silence, above 0; `None` for no limit. On the running loop's clock.
        buffer: How many items of each source may be held, at least 1.

    Returns:
        A stream of pairs; with a ``timeout``, of `TimedOut` also.

    Raises:
        InvalidArgument: At the call, if ``timeout`` or ``buffer`` is out of range.
        TypeError: At the call, if a source is not an async iterable.
        Exception: What a source raised, after the items that were read.

    >>> from returns_pipeline.testing import run, script, timeline
    >>> run(timeline(select({"x": script("a----b|"), "y": script("-1|")}, timeout=3.0)))
    [(0.0, ('x', 'a')), (1.0, ('y', '1')), (4.0, TimedOut(after=3.0)), (5.0, ('x', 'b'))]
    """
    check_at_least("buffer", buffer, 1)
    if timeout is not None and not timeout > 0:
        raise InvalidArgument(f"timeout must be above 0 seconds, not {timeout!r}")
    for source in sources.values():
        check_source(source)
    limit = math.inf if timeout is None else timeout
    pump: _Selecting[K, T] = _Selecting(sources, limit, buffer)
    return Reader(pump)


class _SelectCall(Protocol):
    @overload
    def __call__(
        self,
        sources: Mapping[K, AsyncIterable[T]],
        /,
        *,
        timeout: None = None,
        buffer: int = BUFFER,
    ) -> Stream[tuple[K, T]]: ...
    @overload
    def __call__(
        self, sources: Mapping[K, AsyncIterable[T]], /, *, timeout: float, buffer: int = BUFFER
    ) -> Stream[tuple[K, T] | TimedOut]: ...


class _SelectRaw(Protocol):
    @overload
    def __call__(
        self,
        sources: Mapping[K, AsyncIterable[T]],
        /,
        *,
        timeout: None = None,
        buffer: int = BUFFER,
    ) -> AsyncIterator[tuple[K, T]]: ...
    @overload
    def __call__(
        self, sources: Mapping[K, AsyncIterable[T]], /, *, timeout: float, buffer: int = BUFFER
    ) -> AsyncIterator[tuple[K, T] | TimedOut]: ...


def _select_stream(
    sources: Mapping[Any, AsyncIterable[Any]],
    *,
    timeout: float | None = None,
    buffer: int = BUFFER,
) -> Stream[Any]:
    sources = dict(sources)
    return Stream(lambda: _select(sources, timeout=timeout, buffer=buffer))


select: Combiner[_SelectCall, _SelectRaw] = Combiner(
    _select_stream, cast("_SelectRaw", _select), of=_select
)


# zip_results


class _Zipping(FanIn[T, U], Generic[T, U]):
    def __init__(
        self,
        sources: Iterable[AsyncIterable[T]],
        combine: Callable[[list[T]], U],
        *,
        strict: bool,
    ) -> None:
        super().__init__(sources, BUFFER)
        self._combine = combine
        self._strict = strict

    def has_next(self) -> bool:
        return bool(self.lanes) and all(lane.items for lane in self.lanes)

    def take(self) -> U:
        taken: list[T] = []
        for lane in self.lanes:
            taken.append(lane.items.pop(0))
            lane.mark = len(lane.items) + 1
            if not lane.items:
                lane.emptied()
        self._judge()
        return self._combine(taken)

    def arrived(self, lane: Input[Any]) -> None:  # noqa: ARG002
        if self._strict:
            self._judge()

    def left(self, lane: Input[Any]) -> None:  # noqa: ARG002
        self._judge()

    def _judge(self) -> None:
        """See whether another tuple can come."""
        if self.over or not any(lane.over and not lane.items for lane in self.lanes):
            return
        if not self._strict:
            self.finish()
        elif any(lane.items for lane in self.lanes):
            lanes = self.lanes
            ended = tuple(lane.index for lane in lanes if lane.over and not lane.items)
            self.finish(UnevenSources(ended))


def _zip_results(
    *sources: AsyncIterable[Result[Any, Any]], strict: bool = False
) -> AsyncIterator[Result[tuple[Any, ...], Any]]:
    """Combine the first items of several streams of Results, then the second, and so on.

    1. A tuple is given out when each source has an item: a `Success` of the values if all of them
       are, else the failure that comes first by the order of the sources.
    2. It ends when a source has ended and all tuples that it took part in are out; the others are
       then stopped, and what was read of them is dropped. With ``strict``, they must have ended as
       well: else `UnevenSources` is raised.

    A failure takes its place in a tuple like a value: items with the same number stay together.

    Bounds: of each source at most 128 items are held, counted like those of `merge`.

    Order of events, errors and cancel safety: as `merge`.

    Known elsewhere as: ``zip`` (Rx, fs2, Akka and Pekko, Effect, tokio-stream).

    Args:
        sources: Streams of Results; their values' types become the tuple's, their errors' a union.
        strict: Whether sources of different lengths are an error.

    Returns:
        A stream of Results of tuples.

    Raises:
        TypeError: At the call, if a source is not an async iterable.
        UnevenSources: After the last tuple, if ``strict`` and a source has more items.
        Exception: What a source raised, after the tuples that could still be made.

    >>> from returns.result import Failure, Success
    >>> from returns_pipeline.testing import run, timed, timeline
    >>> prices = timed(Success(5), Failure("no price"), Success(7))
    >>> run(timeline(zip_results(prices, timed(Success("a"), Success("b")))))
    [(0.0, <Success: (5, 'a')>), (0.0, <Failure: no price>)]
    """
    return zip_items(sources, _combined, strict=strict)


def zip_items(
    sources: Iterable[AsyncIterable[T]], combine: Callable[[list[T]], U], *, strict: bool
) -> AsyncIterator[U]:
    """Do as `zip_results`, with a function of the items that stand together."""
    pump: _Zipping[T, U] = _Zipping(sources, combine, strict=strict)
    return Reader(pump)


def _combined(results: list[Result[Any, Any]]) -> Result[tuple[Any, ...], Any]:
    values: list[Any] = []
    for result in results:
        match cases(result):
            case Success(value):
                values.append(value)
            case Failure():
                return result
    return Success(tuple(values))


zip_results: Operator[ZipCall, ZipPipe, ZipRaw] = _operator(_zip_results)
