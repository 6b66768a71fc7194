# ruff: noqa: D102  # the methods are those of a driver
"""The work that `regression.py` compares: it runs in a process with one of two revisions.

It uses long-standing names of the package only, so that an older revision can run it, too.
"""

from __future__ import annotations

import asyncio
import gc
import json
import math
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from returns.future import FutureResult
from returns.result import Result, Success

import returns_pipeline
from returns_pipeline import (
    CompensationScope,
    ResultStream,
    StepContext,
    chunks_or_timeout,
    combine,
    windows,
)
from returns_pipeline.connectors import Message, Source

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence

    Work = Callable[[int], Awaitable[None]]

_REPEATS = 4


async def numbers(count: int) -> AsyncIterator[int]:
    """Yield numbers, without a turn of the loop between them."""
    for number in range(count):
        yield number


async def waiting(count: int) -> AsyncIterator[int]:
    """Wait for one turn of the loop before each number."""
    for number in range(count):
        await asyncio.sleep(0)
        yield number


def add(number: int) -> int:
    """Do next to nothing."""
    return number + 1


def positive(number: int) -> bool:
    """Keep all."""
    return number > 0


def checked(number: int) -> Result[int, str]:
    """Return a Result."""
    return Success(number)


async def at_once(number: int) -> Result[int, str]:
    """Return a Result without waiting."""
    return Success(number)


async def after_a_turn(number: int) -> Result[int, str]:
    """Return a Result after a turn of the loop."""
    await asyncio.sleep(0)
    return Success(number)


def future(number: int) -> FutureResult[int, str]:
    """Return a `FutureResult`."""
    return FutureResult(at_once(number))


async def undo(_: int) -> None:
    """Undo nothing."""


async def registering(number: int, ctx: StepContext) -> Result[int, str]:
    """Register an action."""
    await ctx.register(undo, number)
    return Success(number)


async def read(source: AsyncIterable[object]) -> None:
    """Read to the end."""
    async for _ in source:
        pass


def lists_of(n: int, source: Callable[[int], AsyncIterator[int]] = numbers) -> Work:
    """Read lists of n items."""
    return lambda count: read(chunks_or_timeout.raw(source(count), n, 2.0))


async def by_key(count: int) -> None:
    """Read lists of ten keys."""
    await read(windows.keyed_chunks.raw(numbers(count), 500, 2.0, key=lambda number: number % 10))


async def two_merged(count: int) -> None:
    """Merge two sources that wait."""
    await read(combine.merge.raw(waiting(count // 2), waiting(count // 2)))


def five(count: int) -> ResultStream[int, str]:
    """Return a chain of five steps."""
    numbered = ResultStream.of(numbers(count))
    return numbered.map(add).bind(checked).filter(positive).map(add).map(add)


async def results(count: int) -> None:
    """Read the Results of five steps."""
    async with five(count).stream() as items:
        await read(items)


async def collected(count: int) -> None:
    """Collect the values of five steps."""
    _ = await five(count).collect()


async def concurrent(count: int) -> None:
    """Run a step on 64 items at a time."""
    _ = await ResultStream.of(numbers(count)).bind_async(after_a_turn, concurrency=64).run()


async def future_results(count: int) -> None:
    """Run a step that returns a `FutureResult`."""
    _ = await ResultStream.of(numbers(count)).bind_future_result(future).run()


async def contexts(count: int) -> None:
    """Run a step that registers an action."""
    _ = await ResultStream.of(numbers(count)).bind_step(registering, StepContext("job")).run()


async def draining(count: int) -> None:
    """Watch for an event that does not come."""
    _ = await ResultStream.of(numbers(count)).drain_on(asyncio.Event()).run()


async def small_streams(count: int) -> None:
    """Open and close a stream for each item."""
    for _ in range(count):
        await read(chunks_or_timeout.raw(numbers(1), 5, 2.0))


async def silent(count: int) -> None:
    """Cancel the readers of sources that emit one item and then nothing."""
    silence, seen = asyncio.Event(), [0]

    async def source() -> AsyncIterator[int]:
        yield 0
        _ = await silence.wait()

    async def reader() -> None:
        async with chunks_or_timeout(source(), 500, 0.01).stream() as lists:
            async for _ in lists:
                seen[0] += 1

    readers = [asyncio.create_task(reader()) for _ in range(count)]
    while seen[0] < count:  # noqa: ASYNC110  # an event would be one more thing to pay for
        await asyncio.sleep(0.01)
    for task in readers:
        _ = task.cancel()
    _ = await asyncio.wait(readers)


async def scopes(count: int) -> None:
    """Register and commit an action in a scope of its own."""
    root = CompensationScope("root")
    for number in range(count):
        scope = root.child("step")
        await scope.register(undo, number)
        await scope.commit()


class Log:
    """A driver of a log in memory, which is read once."""

    name = "log"
    positioned = True
    positions = None
    keep_alive = math.inf

    def __init__(self, count: int) -> None:
        self.left = count

    async def open(self, _: object, /) -> None: ...
    async def ack(self, _: object, /) -> None: ...
    async def note(self, _: object, /) -> None: ...
    async def extend(self, _: object, /) -> None: ...
    async def nack(self, _: object, __: float, /) -> None: ...
    async def watch(self) -> None: ...
    async def close(self) -> None: ...

    async def fetch(self, room: int, /) -> list[Message[bytes]]:
        """Return messages until all were read."""
        await asyncio.sleep(0)
        count = min(room, self.left)
        first, self.left = self.left, self.left - count
        return [Message(b"x", "log", (-number,)) for number in range(first, first - count, -1)]


async def messages(count: int, n: int | None) -> None:
    """Handle messages one by one, or in lists, and acknowledge them."""
    async with Source(Log(count), max_in_flight=2000) as source:
        stream = source.messages()

        async def sink(handled: object) -> Result[object, str]:
            if source.mark() >= count:
                source.drain()
            return Success(handled)

        if n is None:
            _ = await stream.bind_async(sink).run()
        else:
            _ = await stream.chunks_or_timeout(n, 2.0).bind_async(sink).run()


WORK: dict[str, tuple[Work, int]] = {
    "chunks_or_timeout, n = 500": (lists_of(500), 200_000),
    "chunks_or_timeout, n = 10": (lists_of(10), 40_000),
    "chunks_or_timeout, n = 1": (lists_of(1), 10_000),
    "chunks_or_timeout, source that waits": (lists_of(500, waiting), 20_000),
    "keyed_chunks, 10 keys": (by_key, 100_000),
    "merge of 2": (two_merged, 10_000),
    "five steps, results": (results, 50_000),
    "five steps, collect()": (collected, 50_000),
    "bind_async, 64 at a time": (concurrent, 5_000),
    "bind_future_result": (future_results, 20_000),
    "bind_step, one action": (contexts, 10_000),
    "drain_on": (draining, 50_000),
    "a stream of one window": (small_streams, 2_000),
    "silent windows, cancelled": (silent, 1_000),
    "a scope, one action": (scopes, 20_000),
    "messages, one by one": (partial(messages, n=None), 20_000),
    "messages, windows of 500": (partial(messages, n=500), 50_000),
}
"""What is compared, with the number of items that take a tenth of a second or less."""


def measured(names: Sequence[str]) -> dict[str, float]:
    """Return seconds an item, for the work that has one of these words in its name, or for all."""
    with asyncio.Runner() as runner:
        return {
            name: _cost(runner, work, items)
            for name, (work, items) in WORK.items()
            if not names or any(word in name for word in names)
        }


def _cost(runner: asyncio.Runner, work: Work, items: int) -> float:
    async def call(count: int) -> None:
        await work(count)

    runner.run(call(max(1, items // 5)))
    costs: list[float] = []
    for _ in range(_REPEATS):
        _ = gc.collect()
        begun = time.process_time()
        runner.run(call(items))
        costs.append((time.process_time() - begun) / items)
    return min(costs)


if __name__ == "__main__":
    package = str(Path(returns_pipeline.__file__).parent)
    print(json.dumps({"package": package, "costs": measured(sys.argv[1:])}))
