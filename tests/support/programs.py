"""The parts of random programs of streams: a source that logs, and every operator in some form.

Each operator makes an iterator of numbers from one, so that they can be chained at random. Most
emit what they read; the model of the others is in four sets.
"""

from __future__ import annotations

import asyncio
import io
import math
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from aiostream import streamcontext
from returns.future import FutureResult
from returns.result import Failure, Result, Success

from returns_pipeline import (
    ResultStream,
    StepContext,
    chunks_by_weight,
    chunks_or_timeout,
    combine,
    keyed_chunks,
    sessions,
    sliding,
)
from returns_pipeline.windows import SessionWindows, SlidingWindows, TumblingWindows, event_windows

__all__ = ["CONCURRENT", "LOSSY", "OPERATORS", "SHORT", "UNORDERED", "Played", "Script", "World"]


@dataclass(frozen=True)
class Script:
    """What a source does: a pause before each item (none at all, a turn, seconds), and its end."""

    pauses: tuple[float | None, ...]
    end: str  # "returns", "raises", "waits"
    clean_up: float
    limits: bool = False  # whether it waits within a time limit that passes, again and again


class World:
    """What is common to one run: how long a second is, the sources, and an event to be set."""

    def __init__(self, second: float = 1.0) -> None:
        self.second = second
        self.sources: list[Played] = []
        self.stop = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds * self.second)

    def play(self, script: Script, first: int = 0) -> Played:
        self.sources.append(Played(self, script, first))
        return self.sources[-1]


class Played:
    """The source of a script, which logs what happens to it."""

    def __init__(self, world: World, script: Script, first: int) -> None:
        self.world = world
        self.script = script
        self.items = [first + n for n in range(len(script.pauses))]
        self.log: list[str] = []

    async def pause(self, seconds: float) -> None:
        if not self.script.limits:
            await self.world.sleep(seconds)
            return
        try:
            async with asyncio.timeout(seconds * self.world.second):
                await asyncio.gather(self.slow_to_leave())
        except TimeoutError:
            pass
        else:
            raise AssertionError("a cancellation was swallowed")

    async def slow_to_leave(self) -> None:
        try:
            await self.world.sleep(math.inf)
        finally:
            await self.world.sleep(0.1)

    async def __aiter__(self) -> AsyncGenerator[int, None]:
        self.log.append("opened")
        try:
            for item, pause in zip(self.items, self.script.pauses, strict=True):
                if pause is not None:
                    await self.pause(pause)
                yield item
            while self.script.end == "waits":
                await self.pause(1.0)
            self.log.append("ends")
            if self.script.end == "raises":
                raise OSError("the source")
        finally:
            self.log.append("clean-up begun")
            try:
                await self.world.sleep(self.script.clean_up)
            except asyncio.CancelledError:
                self.log.append("cut")
                raise
            self.log.append("clean-up done")

    def is_clean(self) -> bool:
        """Return whether nothing was cut, and nothing is left open."""
        log = self.log
        if "ends" in log:
            # It cleans up of its own accord, within a read: nobody can tell that from reading, and
            # a request to stop reaches it as it does a generator that is read without us.
            return log[:3] == ["opened", "ends", "clean-up begun"] and len(log) == 4
        return log in ([], ["opened", "clean-up begun", "clean-up done"])


async def same(n: int) -> int:
    await asyncio.sleep(0)
    return n


async def succeed(n: int) -> Result[int, int]:
    await asyncio.sleep(0)
    return Success(n)


async def nothing() -> AsyncGenerator[int, None]:
    numbers: list[int] = []
    for n in numbers:
        yield n


async def never() -> AsyncGenerator[int, None]:
    await asyncio.sleep(math.inf)
    yield 0


async def once(n: int) -> AsyncGenerator[Result[int, int], None]:
    try:
        yield Success(n)
    finally:
        await asyncio.sleep(0)


async def echo(_: object, items: AsyncIterator[int]) -> AsyncGenerator[int, None]:
    async for n in items:
        yield n


async def echo_results(
    _: object, items: AsyncIterator[int]
) -> AsyncGenerator[Result[int, Any], None]:
    async for n in items:
        yield Success(n)


async def flat(lists: Any) -> AsyncGenerator[int, None]:
    """Stand for an async generator of the user's."""
    try:
        async for items in lists:
            for item in items:
                yield item
    finally:
        await lists.aclose()


async def bare(results: Any) -> AsyncGenerator[Any, None]:
    async with results.stream() as opened:
        async for result in opened:
            yield result.unwrap()


async def second_of(pairs: Any) -> AsyncGenerator[Any, None]:
    """Emit what each pair holds, and pass over the signs of silence."""
    try:
        async for pair in pairs:
            if not isinstance(pair, combine.TimedOut):
                yield pair[1]
    finally:
        await pairs.aclose()


async def items_of(windows: Any) -> AsyncGenerator[int, None]:
    try:
        async for window in windows:
            for item in window.items:
                yield item
    finally:
        await windows.aclose()


def ahead(items: AsyncIterable[int]) -> AsyncIterator[int]:
    """Read a generator, which a cancelled read would end."""
    return combine.prefetch.raw(items, 2)


def of(source: Any) -> ResultStream[int, Any]:
    return ResultStream.of(source)


def in_batches(source: Any) -> ResultStream[int, Any]:
    """Read batches of one item, which come when the items do, and empty ones between them."""

    async def batches() -> AsyncGenerator[tuple[int, ...], None]:
        async with streamcontext(source) as items:
            async for n in items:
                yield (n,)
                yield ()

    return ResultStream.from_batches(batches())


def results(made: Any) -> AsyncIterator[int]:
    return ahead(bare(made))


def lists(made: Any) -> AsyncIterator[int]:
    return ahead(flat(made))


def result_lists(made: Any) -> AsyncIterator[int]:
    return ahead(flat(bare(made)))


def one_of_two(source: AsyncIterable[int], overflow: Any = "backpressure") -> AsyncIterator[int]:
    left, right = combine.broadcast(
        source, 2, buffer=2, overflow=overflow, on_drop=lambda place, gap: None
    )
    del right
    return left.stream()


def left_of_results(source: AsyncIterable[int]) -> AsyncIterator[int]:
    left, right = of(source).broadcast(2, buffer=2)
    del right
    return results(left)


def parted_and_merged(source: AsyncIterable[int]) -> AsyncIterator[int]:
    """Send the items two ways, which meet again."""
    even, odd = combine.split(source, lambda n: n % 2 == 0, buffer=2)
    return combine.merge.raw(even, odd, buffer=2)


def third_of(m: int) -> Callable[[int], bool]:
    return lambda n: n % 3 == m


def shared_and_merged(source: AsyncIterable[int]) -> AsyncIterator[int]:
    branches = of(source).broadcast(3, buffer=2)
    first, second, third = [branch.filter(third_of(m)) for m, branch in enumerate(branches)]
    return results(first.merge(second, third, buffer=2))


def fail(n: int) -> Result[int, int]:
    return Failure(n)


def lashed(source: AsyncIterable[int]) -> AsyncIterator[int]:
    return results(of(source).bind(fail).lash_async(succeed, concurrency=2))


def in_steps(source: AsyncIterable[int]) -> AsyncIterator[int]:
    """Run each item as a step with undo actions."""

    def step(n: int, _: StepContext) -> FutureResult[int, Any]:
        return FutureResult(succeed(n))

    ctx = StepContext("law")
    return results(of(source).bind_step(step, ctx, concurrency=2))


def unwindowed(source: AsyncIterable[int], assigner: Any) -> AsyncIterator[int]:
    return ahead(items_of(event_windows.raw(source, assigner, timestamp=float)))


def zipped(source: AsyncIterable[int], world: World) -> AsyncIterator[int]:
    """Put each item together with one of a source that has more."""
    longer = of(world.play(Script((0.0,) * 30, "waits", 1.0)))
    return results(of(source).zip(longer).map(lambda pair: pair[0]))


def merged_with_a_silent_one(source: AsyncIterable[int], world: World) -> AsyncIterator[int]:
    return combine.merge.raw(source, world.play(Script((), "returns", 1.0)), buffer=2)


Operator = Callable[[Any, World], AsyncIterator[int]]

# What these emit is in another order; or lacks what they worked on, or had not put together, when
# the source failed; or lacks some items; or may end before its source does.
UNORDERED = {
    "route",
    "route results",
    "map_async unordered",
    "flat_map concurrent",
    "parted and merged",
    "shared and merged",
    "keyed_chunks",
    "keyed sessions",
    "sessions of event time",
}
CONCURRENT = {
    "map_async concurrent",
    "map_async unordered",
    "bind_async",
    "bind_async over batches",
    "attempt_async",
    "tap_result_async",
    "lash_async",
    "bind_step",
    "flat_map concurrent",
    "parted and merged",
    "shared and merged",
    "zip",
}
LOSSY = {"debounce", "debounce results", "drop oldest"}
SHORT = {
    "slice",
    "window slice",
    "take_until stop",
    "drain_on",
    "drain before a window",
    "drain batches",
    "head",
}

OPERATORS: dict[str, Operator] = {
    # combine
    "prefetch": lambda s, w: combine.prefetch.raw(s, 3),
    "scan": lambda s, w: combine.scan.raw(s, 0, lambda _, n: n),
    "distinct": lambda s, w: combine.distinct_until_changed.raw(s),
    "merge": lambda s, w: combine.merge.raw(s, nothing(), buffer=2),
    "merge a silent one": merged_with_a_silent_one,
    "prioritized": lambda s, w: combine.merge_prioritized.raw((1, s), (2, nothing())),
    "concat": lambda s, w: combine.concat.raw(nothing(), s),
    "take_until": lambda s, w: combine.take_until.raw(s, never()),
    "take_until stop": lambda s, w: combine.take_until.raw(s, w.stop),
    "throttle": lambda s, w: combine.throttle.raw(s, 0.1 * w.second, burst=2),
    "debounce": lambda s, w: combine.debounce.raw(s, 0.1 * w.second),
    "broadcast": lambda s, w: one_of_two(s),
    "drop oldest": lambda s, w: one_of_two(s, "drop_oldest"),
    "split": lambda s, w: combine.split(s, lambda _: True, buffer=2)[0].stream(),
    "parted and merged": lambda s, w: parted_and_merged(s),
    "select": lambda s, w: ahead(second_of(combine.select.raw({"a": s}))),
    "select with a time-out": lambda s, w: ahead(
        second_of(combine.select.raw({"a": s, "b": nothing()}, timeout=0.5 * w.second))
    ),
    "route": lambda s, w: combine.route.raw(
        s, lambda n: n % 3, echo, max_keys=2, buffer=2, idle_after=0.5 * w.second
    ),
    # windows
    "chunks": lambda s, w: lists(chunks_or_timeout.raw(s, 2, w.second)),
    "weight": lambda s, w: lists(chunks_by_weight.raw(s, 2, w.second, weight=lambda _: 1)),
    "sliding": lambda s, w: lists(sliding.raw(s, 1)),
    "keyed_chunks": lambda s, w: lists(
        second_of(keyed_chunks.raw(s, 2, w.second, key=lambda n: n % 2, max_keys=2))
    ),
    "sessions": lambda s, w: lists(sessions.raw(s, 0.5 * w.second, n=3)),
    "keyed sessions": lambda s, w: lists(sessions.raw(s, 0.5 * w.second, key=lambda n: n % 2)),
    "event windows": lambda s, w: unwindowed(s, TumblingWindows(2.0)),
    "sliding of event time": lambda s, w: unwindowed(s, SlidingWindows(1.0, 1.0)),
    "sessions of event time": lambda s, w: unwindowed(s, SessionWindows(0.5)),
    # ResultStream
    "steps": lambda s, w: results(of(s).map(int).filter(lambda _: True).tap(lambda _: None)),
    "steps over batches": lambda s, w: results(in_batches(s).map(int).filter(lambda _: True)),
    "map_async over batches": lambda s, w: results(in_batches(s).map_async(same)),
    "bind_async over batches": lambda s, w: results(
        in_batches(s).bind_async(succeed, concurrency=2)
    ),
    "window over batches": lambda s, w: result_lists(in_batches(s).chunks_or_timeout(2, w.second)),
    "steps and window over batches": lambda s, w: result_lists(
        in_batches(s).map(int).bind(Success).chunks_or_timeout(2, w.second)
    ),
    "window of results over batches": lambda s, w: result_lists(
        ResultStream.of(chunks_or_timeout(in_batches(s).map(int).bind(Success), 2, w.second)).map(
            lambda results: [result.unwrap() for result in results]
        )
    ),
    "progress": lambda s, w: results(of(s).progress(9, file=io.StringIO())),
    "progress over batches": lambda s, w: results(in_batches(s).progress(file=io.StringIO())),
    "progress after a window": lambda s, w: result_lists(
        of(s).chunks_or_timeout(2, w.second).progress(file=io.StringIO())
    ),
    "drain batches": lambda s, w: results(in_batches(s).drain_on(w.stop)),
    "map_async": lambda s, w: results(of(s).map_async(same)),
    "map_async concurrent": lambda s, w: results(of(s).map_async(same, concurrency=2)),
    "map_async unordered": lambda s, w: results(
        of(s).map_async(same, concurrency=3, ordered=False)
    ),
    "bind_async": lambda s, w: results(of(s).bind_async(succeed, concurrency=2)),
    "attempt_async": lambda s, w: results(of(s).attempt_async(same, OSError, concurrency=2)),
    "tap_result_async": lambda s, w: results(of(s).tap_result_async(succeed, concurrency=2)),
    "lash_async": lambda s, w: lashed(s),
    "bind_step": lambda s, w: in_steps(s),
    "flat_map": lambda s, w: results(of(s).flat_map(once)),
    "flat_map concurrent": lambda s, w: results(of(s).flat_map(once, concurrency=2)),
    "shared": lambda s, w: left_of_results(s),
    "shared and merged": lambda s, w: shared_and_merged(s),
    "zip": zipped,
    "sum": lambda s, w: results(of(nothing()) + of(s).prefetch(1)),
    "concat results": lambda s, w: results(of(s).concat(of(nothing()))),
    "merge results": lambda s, w: results(of(s).merge(of(nothing()))),
    "route results": lambda s, w: results(
        of(s).route(lambda n: n % 3, echo_results, max_keys=2, buffer=1)
    ),
    "throttle results": lambda s, w: results(of(s).throttle(0.1 * w.second)),
    "debounce results": lambda s, w: results(of(s).debounce(0.1 * w.second)),
    "window": lambda s, w: result_lists(of(s).chunks_or_timeout(2, w.second)),
    "weight of results": lambda s, w: result_lists(
        of(s).chunks_by_weight(2, w.second, weight=lambda _: 1)
    ),
    "sessions of results": lambda s, w: result_lists(of(s).sessions(0.5 * w.second, n=3)),
    "or_failure": lambda s, w: results(of(s).or_failure(KeyError)),
    "successes": lambda s, w: ahead(of(s).sliding(1).successes() | lists_of),
    "drain_on": lambda s, w: results(of(s).drain_on(w.stop)),
    "drain before a window": lambda s, w: result_lists(
        of(s).drain_on(w.stop).chunks_or_timeout(2, w.second)
    ),
    "slice": lambda s, w: results(of(s)[:3]),
    "window slice": lambda s, w: result_lists(of(s).sliding(1)[:3]),
    "head": lambda s, w: ahead(head(s)),
}


def lists_of(made: Any) -> AsyncGenerator[int, None]:
    return flat(aiter(made))


async def head(source: Any) -> AsyncGenerator[int, None]:
    """Break off after two items, as a user's code does, and read no further."""
    left = 2
    async with of(source).prefetch(1).stream() as opened:
        async for result in opened:
            yield result.unwrap()
            left -= 1
            if not left:
                break
