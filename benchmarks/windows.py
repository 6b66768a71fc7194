"""What a window costs: an item, a late delivery, ten thousand silent ones, a slow reader."""

from __future__ import annotations

import asyncio
import gc
import math
import statistics
import time
import tracemalloc
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import streamable
from aiostream import stream
from batchit import async_batcher
from reactivex import operators
from reactivex.scheduler.eventloop import AsyncIOScheduler
from reactivex.subject import Subject

from harness import Way, compare, section, show, start
from returns_pipeline import chunks_or_timeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine

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


async def by_hand(source: AsyncIterable[int], n: int) -> int:
    """Append and slice in the reader's own loop: no timer, no task, the least possible."""
    held: list[int] = []
    read = 0
    async for item in source:
        held.append(item)
        if len(held) >= n:
            chunk, held = held[:n], held[n:]
            read += len(chunk)
    return read + len(held)


async def ours(source: AsyncIterable[int], n: int) -> int:
    """Read as a user does, from the stream."""
    read = 0
    async with chunks_or_timeout(source, n, TIMEOUT).stream() as chunks:
        async for chunk in chunks:
            read += len(chunk)
    return read


async def ours_raw(source: AsyncIterable[int], n: int) -> int:
    """Read the bare iterator, as another operator does."""
    read = 0
    async for chunk in chunks_or_timeout.raw(source, n, TIMEOUT):
        read += len(chunk)
    return read


async def task_per_item(source: AsyncIterable[int], n: int) -> int:
    """Race each read against the clock with ``asyncio.wait``, as the recipes on the web do."""
    iterator = aiter(source)
    loop = asyncio.get_running_loop()
    held: list[int] = []
    read = 0
    due = math.inf
    pending: asyncio.Task[int] | None = None
    while True:
        if pending is None:
            pending = asyncio.ensure_future(anext(iterator))
        done, _ = await asyncio.wait({pending}, timeout=None if not held else due - loop.time())
        if done:
            try:
                held.append(pending.result())
            except StopAsyncIteration:
                return read + len(held)
            pending = None
            if len(held) == 1:
                due = loop.time() + TIMEOUT
        if len(held) >= n or not done:
            read += len(held)
            held = []


async def with_aiostream(source: AsyncIterable[int], n: int) -> int:
    """Group by count alone: aiostream has no operator that uses the clock."""
    read = 0
    async with stream.chunks(source, n).stream() as chunks:
        async for chunk in chunks:
            read += len(chunk)
    return read


async def with_batchit(source: AsyncIterable[int], n: int) -> int:
    """Bound its queue as ours is, or it would hold the whole source."""
    read = 0
    async for chunk in async_batcher(source, size=n, timeout=TIMEOUT, maxsize=n):
        read += len(chunk)
    return read


async def with_streamable(source: AsyncIterable[int], n: int) -> int:
    """Group up to a number, within a time."""
    read = 0
    chunks = streamable.stream(source).group(n, within=timedelta(seconds=TIMEOUT))
    async for chunk in chunks:
        read += len(chunk)
    return read


async def with_reactivex(source: AsyncIterable[int], n: int) -> int:
    """Push into a subject: RxPY has no backpressure, so its reader is a callback."""
    read = 0

    def count(chunk: list[int]) -> None:
        nonlocal read
        read += len(chunk)

    subject: Subject[int] = Subject()
    scheduler = AsyncIOScheduler(asyncio.get_running_loop())
    window = operators.buffer_with_time_or_count(TIMEOUT, n, scheduler)
    with subject.pipe(window).subscribe(count):
        async for item in source:
            subject.on_next(item)
        subject.on_completed()
    return read


def over(
    source: Callable[[int], AsyncIterable[int]],
    group: Callable[[AsyncIterable[int], int], Awaitable[int]],
    n: int,
) -> Callable[[int], Awaitable[None]]:
    """Return what groups a number of items of a source, and checks that each is emitted."""

    async def work(items: int) -> None:
        assert await group(source(items), n) == items

    return work


def compare_rivals(
    title: str, items: int, source: Callable[[int], AsyncIterable[int]], goal: float
) -> None:
    """Compare all libraries that can do the work, or half of it, with the hand-written loop."""
    rival = partial(Way, rival_of="chunks_or_timeout")
    compare(
        f"{title}, n = 500, timeout = 2 s",
        items,
        Way("by hand: append and slice, no timer", over(source, by_hand, 500)),
        Way("chunks_or_timeout", over(source, ours, 500), goal),
        rival("aiostream chunks (count alone)", over(source, with_aiostream, 500), share=0.2),
        rival("streamable group", over(source, with_streamable, 500), share=0.05),
        rival("batchit async_batcher", over(source, with_batchit, 500), share=0.05),
        rival("RxPY buffer_with_time_or_count", over(source, with_reactivex, 500), share=0.05),
        Way("by hand: asyncio.wait for each item", over(source, task_per_item, 500), share=0.05),
    )


def compare_sizes() -> None:
    """Make the lists smaller: the cost of each list shows more and more."""
    for n, items, goal in ((100, 200_000, 1.6), (10, 100_000, 4.0)):
        compare(
            f"fast source, n = {n}",
            items,
            Way("by hand: append and slice, no timer", over(fast, by_hand, n)),
            Way("chunks_or_timeout", over(fast, ours, n), goal),
        )
    figures = compare(
        "fast source, n = 1",
        20_000,
        Way("by hand: append and slice, no timer", over(fast, by_hand, 1)),
        Way("chunks_or_timeout", over(fast, ours, 1)),
        Way("chunks_or_timeout.raw", over(fast, ours_raw, 1)),
    )
    show("chunks_or_timeout, an item", figures["chunks_or_timeout"].seconds * 1e6, "us", 3.5)


async def measure_delay(rounds: int = 100, timeout: float = 0.01) -> None:
    """Take turns: a window that only its time can close, a bare ``call_at``."""
    loop = asyncio.get_running_loop()
    begun = 0.0

    async def source() -> AsyncIterator[int]:
        nonlocal begun
        while True:
            begun = loop.time()
            yield 0
            await asked.wait()
            asked.clear()

    asked = asyncio.Event()
    late: list[float] = []
    bare: list[float] = []
    async with chunks_or_timeout(source(), 500, timeout).stream() as chunks:
        for _ in range(rounds):
            asked.set()
            await anext(chunks)
            late.append(loop.time() - begun - timeout)
            called = loop.create_future()
            due = loop.time() + timeout
            loop.call_at(due, called.set_result, None)
            await called
            bare.append(loop.time() - due)
    section(f"delivery of a window closed by its time, after {timeout * 1000:g} ms of silence")
    ours_late, bare_late = statistics.median(late) * 1e3, statistics.median(bare) * 1e3
    show("chunks_or_timeout, late by", ours_late, "ms")
    show("a bare call_at, late by", bare_late, "ms")
    show("later than a bare call_at by", ours_late - bare_late, "ms", 0.3)


async def measure_silent(count: int = 10_000, seconds: float = 2.0) -> None:
    """Open many windows on sources that emit one item and then nothing."""
    silence = asyncio.Event()

    async def source() -> AsyncIterator[int]:
        yield 0
        await silence.wait()

    async def with_window(seen: list[int]) -> None:
        async with chunks_or_timeout(source(), 500, 0.5).stream() as chunks:
            async for chunk in chunks:
                seen[0] += len(chunk)

    async def without(seen: list[int]) -> None:
        async for _ in source():
            seen[0] += 1

    section(f"{count} readers of silent sources")
    _, _, base = await _keep(without, count, seconds)
    cpu, cancelled, kib = await _keep(with_window, count, seconds)
    show("each, with reader and source", kib, "KiB")
    show("each, the window alone", kib - base, "KiB", 5.0)
    show("processor", cpu, "s a second", 0.001)
    show("all cancelled and cleaned up in", cancelled, "s", 0.25)


async def _keep(
    read: Callable[[list[int]], Coroutine[None, None, None]], count: int, seconds: float
) -> tuple[float, float, float]:
    # Give the processor's share while all are silent, the time to cancel all, KiB for each.
    gc.collect()
    tracemalloc.start()
    seen = [0]
    readers = [asyncio.create_task(read(seen)) for _ in range(count)]
    while seen[0] < count:  # noqa: ASYNC110  # an event would be one more thing to pay for
        await asyncio.sleep(0.1)
    kib = tracemalloc.get_traced_memory()[0] / count / 1024
    tracemalloc.stop()
    gc.collect()
    await asyncio.sleep(0.1)
    begun = time.process_time()
    await asyncio.sleep(seconds)
    share = (time.process_time() - begun) / seconds
    begun = time.process_time()
    for reader in readers:
        reader.cancel()
    await asyncio.wait(readers)
    return share, time.process_time() - begun, kib


async def measure_memory(n: int = 500) -> None:
    """Read ten times more slowly than the source, and measure what is held."""
    delivered = 0

    async def source(items: int) -> AsyncIterator[int]:
        nonlocal delivered
        for delivered in range(items):
            yield delivered

    async def lead(items: int, pause: float) -> int:
        read = furthest = 0
        async with chunks_or_timeout(source(items), n, TIMEOUT).stream() as chunks:
            async for chunk in chunks:
                read += len(chunk)
                await asyncio.sleep(pause)
                furthest = max(furthest, delivered + 1 - read)
        assert read == items
        return furthest

    begun = time.process_time()
    await lead(1_000_000, 0)
    pause = 10 * (time.process_time() - begun) / 1_000_000 * n
    items = 10_000_000
    section(f"{items} items, n = {n}, a reader that takes ten times as long as the source")
    show("delivered ahead of the reader at most", await lead(items, pause), "items", n + 1)
    tracemalloc.start()
    await lead(100_000, 0)
    gc.collect()
    early = tracemalloc.get_traced_memory()[0]
    await lead(1_000_000, 0)
    gc.collect()
    grown = (tracemalloc.get_traced_memory()[0] - early) / 1024
    tracemalloc.stop()
    show("memory grown after a tenth", grown, "KiB", 16)


def main() -> None:
    """Measure everything."""
    start(f"Windows: {__doc__}")
    compare_rivals("fast source", 1_000_000, fast, 1.2)
    compare_rivals("source that suspends for each item", 50_000, suspending, 1.1)
    compare_sizes()
    asyncio.run(measure_delay())
    asyncio.run(measure_silent())
    asyncio.run(measure_memory())


if __name__ == "__main__":
    main()
