"""What it costs to join streams: an item of a merge, of a broadcast, of the others."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiostream import stream

from harness import Way, compare, start
from returns_pipeline import combine

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable

ITEMS = 60_000


async def fast(items: int) -> AsyncIterator[int]:
    """Never suspend: a source whose items are all there."""
    for item in range(items):
        yield item


async def suspending(items: int) -> AsyncIterator[int]:
    """Suspend once for each item, like a source that waits for a socket."""
    for item in range(items):
        await asyncio.sleep(0)
        yield item


async def bursts(items: int) -> AsyncIterator[int]:
    """Suspend once for ten items, like a source that reads pages or packets."""
    for item in range(items):
        if item % 10 == 0:
            await asyncio.sleep(0)
        yield item


async def read(source: AsyncIterable[object], items: int) -> None:
    """Count the items; none may be lost while it is measured."""
    count = 0
    async for _ in source:
        count += 1
    assert count == items, count


def parts(
    source: Callable[[int], AsyncIterator[int]], n: int, items: int
) -> list[AsyncIterator[int]]:
    """Divide the items among ``n`` sources."""
    return [source(items // n + (place < items % n)) for place in range(n)]


def one_after_the_other(
    source: Callable[[int], AsyncIterator[int]], n: int
) -> Callable[[int], Awaitable[None]]:
    """Read the sources in turn, in the reader's own loop: the yardstick."""

    async def work(items: int) -> None:
        count = 0
        for part in parts(source, n, items):
            async for _ in part:
                count += 1
        assert count == items

    return work


def over(
    source: Callable[[int], AsyncIterator[int]],
    n: int,
    join: Callable[[Iterable[AsyncIterator[int]]], AsyncIterable[object]],
) -> Callable[[int], Awaitable[None]]:
    """Read an operator over the sources."""

    async def work(items: int) -> None:
        await read(join(parts(source, n, items)), items)

    return work


def aiostreams(
    source: Callable[[int], AsyncIterator[int]], n: int
) -> Callable[[int], Awaitable[None]]:
    """Read aiostream's merge, in its context, as it requires."""

    async def work(items: int) -> None:
        async with stream.merge(*parts(source, n, items)).stream() as merged:
            await read(merged, items)

    return work


def queued(source: Callable[[int], AsyncIterator[int]], n: int) -> Callable[[int], Awaitable[None]]:
    """Do it in hand-written code: a task for each source and one bounded queue."""

    async def work(items: int) -> None:
        queue: asyncio.Queue[int] = asyncio.Queue(64)

        async def fill(part: AsyncIterator[int]) -> None:
            async for item in part:
                await queue.put(item)

        tasks = [asyncio.create_task(fill(part)) for part in parts(source, n, items)]
        for _ in range(items):
            await queue.get()
        await asyncio.gather(*tasks)

    return work


def merges() -> None:
    """Compare `merge` with reading the sources one after the other, and with others."""
    for kind in (fast, bursts, suspending):
        for n in (2, 100):
            items = ITEMS // (1 if kind is fast else 4)
            compare(
                f"merge of {n} sources, {kind.__name__}",
                items,
                Way("one after the other", one_after_the_other(kind, n)),
                Way("combine.merge.raw", over(kind, n, lambda p: combine.merge.raw(*p)), goal=2.0),
                Way("a task each and a queue, by hand", queued(kind, n)),
                Way(
                    "aiostream merge", aiostreams(kind, n), share=0.05, rival_of="combine.merge.raw"
                ),
            )


async def ten_times(items: int) -> None:
    """Read the source ten times: the yardstick of a broadcast to ten."""
    for _ in range(10):
        await read(fast(items // 10), items // 10)


async def ten_branches(items: int) -> None:
    """Read ten branches, each in a task."""

    async def reader(branch: combine.Branch[int]) -> None:
        async with branch.stream() as opened:
            await read(opened, items // 10)

    await asyncio.gather(*map(reader, combine.broadcast(fast(items // 10), 10)))


async def ten_queues(items: int) -> None:
    """Do it in hand-written code: a bounded queue for each reader."""
    queues: list[asyncio.Queue[int]] = [asyncio.Queue(64) for _ in range(10)]

    async def feed() -> None:
        async for item in fast(items // 10):
            for queue in queues:
                await queue.put(item)

    async def drain(queue: asyncio.Queue[int]) -> None:
        for _ in range(items // 10):
            await queue.get()

    await asyncio.gather(feed(), *map(drain, queues))


def broadcasts() -> None:
    """Compare `broadcast` to ten with reading ten times."""
    compare(
        "broadcast to 10, an item emitted",
        ITEMS,
        Way("read the source ten times", ten_times),
        Way("combine.broadcast", ten_branches),
        Way("a queue for each, by hand", ten_queues),
    )


def relays() -> None:
    """Compare the operators on one stream with doing their work in the reader's loop."""

    async def total(items: int) -> None:
        result = 0
        async for item in fast(items):
            result += item

    def add(before: int, item: int) -> int:
        return before + item

    async def scanned(items: int) -> None:
        sums = combine.scan.raw(fast(items), 0, add)
        await read(sums, items)

    async def prefetched(items: int) -> None:
        await read(combine.prefetch.raw(fast(items), 64), items)

    async def routed(items: int) -> None:
        async def worker(_: int, own: AsyncIterator[int]) -> AsyncIterator[int]:
            async for item in own:
                yield item

        await read(combine.route.raw(fast(items), lambda item: item % 10, worker), items)

    compare(
        "one stream, fast",
        ITEMS,
        Way("a loop that adds", total),
        Way("combine.scan.raw", scanned),
        Way("combine.prefetch.raw, 64", prefetched),
        Way("combine.route.raw, 10 keys", routed),
    )


if __name__ == "__main__":
    start("Streams together")
    merges()
    broadcasts()
    relays()
