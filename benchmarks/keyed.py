"""What windows by key cost: a few keys, ten thousand, and as many that are open at once."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from reactivex import operators
from reactivex.scheduler.eventloop import AsyncIOScheduler
from reactivex.subject import Subject

from harness import Way, compare, start
from returns_pipeline import keyed_chunks, sessions

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable

    from reactivex import GroupedObservable, Observable

    Group = Callable[[AsyncIterable[int], int, Callable[[int], int]], Awaitable[int]]

TIMEOUT = 2.0


async def fast(items: int) -> AsyncIterator[int]:
    """Never suspend: a source whose items are all there."""
    for item in range(items):
        yield item


async def suspending(items: int) -> AsyncIterator[int]:
    """Suspend once for each item, like a source that waits for a socket."""
    for item in range(items):
        await asyncio.sleep(0)
        yield item


async def by_hand(source: AsyncIterable[int], n: int, key: Callable[[int], int]) -> int:
    """A dict of lists in the reader's own loop: no timer, no task."""
    held: dict[int, list[int]] = {}
    read = 0
    async for item in source:
        of = key(item)
        mine = held.get(of)
        if mine is None:
            mine = held[of] = []
        mine.append(item)
        if len(mine) >= n:
            del held[of]
            read += len(mine)
    return read + sum(map(len, held.values()))


async def ours(source: AsyncIterable[int], n: int, key: Callable[[int], int]) -> int:
    """Read as a user does, from the stream."""
    read = 0
    async with keyed_chunks(source, n, TIMEOUT, key=key).stream() as chunks:
        async for _, chunk in chunks:
            read += len(chunk)
    return read


async def by_silence(source: AsyncIterable[int], n: int, key: Callable[[int], int]) -> int:
    """Read the clock for each item, as a silence must be noticed."""
    read = 0
    async with sessions(source, TIMEOUT, n=n, key=key).stream() as chunks:
        async for chunk in chunks:
            read += len(chunk)
    return read


async def with_reactivex(source: AsyncIterable[int], n: int, key: Callable[[int], int]) -> int:
    """Use a subject and a timer for each key."""
    read = 0

    def count(chunk: list[int]) -> None:
        nonlocal read
        read += len(chunk)

    scheduler = AsyncIOScheduler(asyncio.get_running_loop())

    def window(group: GroupedObservable[int, int]) -> Observable[list[int]]:
        return group.pipe(operators.buffer_with_time_or_count(TIMEOUT, n, scheduler))

    subject: Subject[int] = Subject()
    grouped = subject.pipe(operators.group_by(key), operators.flat_map(window))
    with grouped.subscribe(count):
        async for item in source:
            subject.on_next(item)
        subject.on_completed()
    return read


def over(
    source: Callable[[int], AsyncIterable[int]], group: Group, n: int, keys: int
) -> Callable[[int], Awaitable[None]]:
    """Return what groups a number of items of a source, and checks that each is emitted."""

    async def work(items: int) -> None:
        assert await group(source(items), n, lambda item: item % keys) == items

    return work


def compare_keys(
    source: Callable[[int], AsyncIterable[int]], items: int, n: int, keys: int, goal: float
) -> None:
    """Compare all libraries that can do the work with the dict of lists."""
    compare(
        f"{keys} keys, {source.__name__} source, n = {n}, timeout = {TIMEOUT:g} s",
        items,
        Way("by hand: a dict of lists, no timer", over(source, by_hand, n, keys)),
        Way("keyed_chunks", over(source, ours, n, keys), goal),
        Way("sessions by key", over(source, by_silence, n, keys)),
        Way(
            "RxPY group_by and buffer",
            over(source, with_reactivex, n, keys),
            share=0.05,
            rival_of="keyed_chunks",
        ),
    )


def main() -> None:
    """Measure everything."""
    start(f"Windows by key: {__doc__}")
    compare_keys(fast, 500_000, 500, 10, 1.5)
    compare_keys(fast, 1_000_000, 100, 10_000, 1.5)
    compare_keys(fast, 200_000, 20, 200_000, math.inf)
    compare_keys(suspending, 50_000, 500, 10, 1.5)


if __name__ == "__main__":
    main()
