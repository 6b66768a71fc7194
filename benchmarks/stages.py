"""Steps of a `ResultStream`, sequential and concurrent ones, against hand-written code."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from aiostream import pipe as aio
from aiostream import stream
from returns.result import Result, Success

from harness import Way, compare, start
from returns_pipeline import ResultStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

_LIMIT = 64
_BATCH = 500


async def source(count: int) -> AsyncIterator[int]:
    """Yield numbers, without a turn of the loop between them."""
    for number in range(count):
        yield number


def add(number: int) -> int:
    """Do next to nothing."""
    return number + 1


def odd_or_even(number: int) -> bool:
    """Return true."""
    return number >= 0


def checked(number: int) -> Result[int, str]:
    """Return a Result."""
    return Success(number)


# Five sequential steps.


async def by_hand(count: int) -> None:
    """Call the five functions in one loop, and make one `Success` for each item."""
    async for number in source(count):
        value = add(add(number))
        if odd_or_even(value):
            _ = Success(add(add(value)))


async def fused(count: int) -> None:
    """Do it with a stream."""
    steps = ResultStream.of(source(count)).map(add).map(add).filter(odd_or_even).map(add).map(add)
    async with steps.stream() as items:
        async for _ in items:
            pass


async def piped(count: int) -> None:
    """Do it with aiostream, on plain values."""
    steps = (
        stream.iterate(source(count))
        | aio.map(add)
        | aio.map(add)
        | aio.filter(odd_or_even)
        | aio.map(add)
        | aio.map(add)
    )
    async with steps.stream() as items:
        async for _ in items:
            pass


async def by_hand_with_results(count: int) -> None:
    """The same with two functions that return Results."""
    async for number in source(count):
        first = checked(add(number))
        if isinstance(first, Success):
            second = checked(add(first.unwrap()))
            if isinstance(second, Success):
                _ = Success(add(second.unwrap()))


async def fused_with_results(count: int) -> None:
    """Do it with a stream."""
    steps = ResultStream.of(source(count)).map(add).bind(checked).map(add).bind(checked).map(add)
    async with steps.stream() as items:
        async for _ in items:
            pass


async def batches(count: int) -> AsyncIterator[list[int]]:
    """Yield the same numbers in batches."""
    for begin in range(0, count, _BATCH):
        yield list(range(begin, min(begin + _BATCH, count)))


async def fused_batches(count: int) -> None:
    """Do the five steps with a stream of batches."""
    lifted = ResultStream.from_batches(batches(count))
    steps = lifted.map(add).map(add).filter(odd_or_even).map(add).map(add)
    async with steps.stream() as items:
        async for _ in items:
            pass


async def run_batches(count: int) -> None:
    """Do the five steps with a stream of batches, read by a terminal."""
    lifted = ResultStream.from_batches(batches(count))
    _ = await lifted.map(add).map(add).filter(odd_or_even).map(add).map(add).run()


async def collect_by_hand(count: int) -> None:
    """Collect the results of five functions."""
    values: list[int] = []
    async for number in source(count):
        value = add(add(number))
        if odd_or_even(value):
            values.append(add(add(value)))


async def collect(count: int) -> None:
    """Do it with a stream."""
    steps = ResultStream.of(source(count)).map(add).map(add).filter(odd_or_even).map(add).map(add)
    _ = await steps.collect()


# Windows over batches.


async def window_by_hand(count: int) -> None:
    """Put single items into lists, without a timer."""
    held: list[int] = []
    async for number in source(count):
        held.append(number)
        if len(held) == _BATCH:
            held = []


async def window_over_batches(count: int) -> None:
    """Do it with a stream of batches."""
    windows = ResultStream.from_batches(batches(count)).chunks_or_timeout(_BATCH, 2.0)
    async with windows.stream() as items:
        async for _ in items:
            pass


# Concurrent steps.


def turn() -> Callable[[int], Awaitable[Result[int, str]]]:
    """Make work that waits for one turn of the loop."""

    async def work(number: int) -> Result[int, str]:
        await asyncio.sleep(0)
        return Success(number)

    return work


def millisecond() -> Callable[[int], Awaitable[Result[int, str]]]:
    """Make work that waits for a millisecond."""

    async def work(number: int) -> Result[int, str]:
        await asyncio.sleep(0.001)
        return Success(number)

    return work


def bounded_pool(
    make: Callable[[], Callable[[int], Awaitable[Result[int, str]]]],
) -> Callable[[int], Awaitable[None]]:
    """By hand, with the same promises: in order, a bounded number begun and not taken."""

    async def work(count: int) -> None:
        step = make()
        tasks: deque[asyncio.Task[Result[int, str]]] = deque()

        async def call(number: int) -> Result[int, str]:
            return await step(number)

        async def results() -> AsyncIterator[Result[int, str]]:
            async for number in source(count):
                tasks.append(asyncio.create_task(call(number)))
                if len(tasks) == _LIMIT:
                    yield await tasks.popleft()
            while tasks:
                yield await tasks.popleft()

        async for _ in results():
            pass

    return work


def free_pool(
    make: Callable[[], Callable[[int], Awaitable[Result[int, str]]]],
) -> Callable[[int], Awaitable[None]]:
    """By hand, with fewer promises: workers on a queue, whose results pile up in a list."""

    async def work(count: int) -> None:
        step = make()
        queue: asyncio.Queue[tuple[int, int] | None] = asyncio.Queue(_LIMIT)
        values: list[Result[int, str] | None] = [None] * count

        async def worker() -> None:
            while (job := await queue.get()) is not None:
                index, number = job
                values[index] = await step(number)

        workers = [asyncio.create_task(worker()) for _ in range(_LIMIT)]
        index = 0
        async for number in source(count):
            await queue.put((index, number))
            index += 1
        for _ in workers:
            await queue.put(None)
        await asyncio.gather(*workers)

    return work


def concurrent(
    make: Callable[[], Callable[[int], Awaitable[Result[int, str]]]], *, ordered: bool = True
) -> Callable[[int], Awaitable[None]]:
    """Do it with a stream."""

    async def work(count: int) -> None:
        steps = ResultStream.of(source(count)).bind_async(
            make(), concurrency=_LIMIT, ordered=ordered
        )
        async with steps.stream() as items:
            async for _ in items:
                pass

    return work


def aiostreams(
    make: Callable[[], Callable[[int], Awaitable[Result[int, str]]]],
) -> Callable[[int], Awaitable[None]]:
    """Do it with aiostream."""

    async def work(count: int) -> None:
        step = make()

        async def call(number: int, *_: object) -> Result[int, str]:
            return await step(number)

        steps = stream.map(source(count), call, task_limit=_LIMIT)
        async with steps.stream() as items:
            async for _ in items:
                pass

    return work


def main() -> None:
    """Compare."""
    start("Steps of a ResultStream")
    compare(
        "five sequential steps, a Result an item",
        30_000,
        Way("one loop by hand", by_hand),
        Way("ResultStream", fused, goal=0.9),
        Way("ResultStream.from_batches()", fused_batches, goal=0.6),
        Way("ResultStream.from_batches(), run()", run_batches, goal=0.6),
        Way("aiostream, plain values", piped, share=0.2, rival_of="ResultStream"),
    )
    compare(
        "five sequential steps, two of them bind()",
        30_000,
        Way("one loop by hand", by_hand_with_results),
        Way("ResultStream", fused_with_results, goal=0.9),
    )
    compare(
        "five sequential steps, collected, against a loop that knows no Result",
        30_000,
        Way("one loop by hand, plain values", collect_by_hand),
        Way("ResultStream.collect()", collect, goal=1.1),
    )
    compare(
        "windows of 500 over batches of 500",
        100_000,
        Way("one loop by hand, single items", window_by_hand),
        Way("from_batches().chunks_or_timeout()", window_over_batches, goal=0.5),
    )
    for what, make in (("one turn of the loop", turn), ("a millisecond", millisecond)):
        compare(
            f"bind_async(concurrency=64), work that waits for {what}",
            5_000,
            Way("bounded pool by hand, in order", bounded_pool(make)),
            Way("ResultStream", concurrent(make), goal=1.2),
            Way("ResultStream, ordered=False", concurrent(make, ordered=False), goal=1.2),
            Way("unbounded pool on a queue", free_pool(make)),
            Way(
                "aiostream.map(task_limit=64)", aiostreams(make), share=0.3, rival_of="ResultStream"
            ),
        )


if __name__ == "__main__":
    main()
