"""A sink that does not return for a while, and memory that stays the same meanwhile."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from typing import TYPE_CHECKING, Any

from returns.result import Result, Success

from returns_pipeline import to_result
from returns_pipeline.connectors import Source

if TYPE_CHECKING:
    from returns_pipeline.connectors import Message
    from returns_pipeline.testing._connector_harness import QueueUnderTest

__all__ = ["check_stuck_sink"]

PAYLOAD = bytes(50_000)
MOST = 50
# Kafka's client reads one megabyte of each partition ahead.
ALLOWED = 5_000_000


async def check_stuck_sink(queue: QueueUnderTest) -> None:
    """Check that no more is held than may be in flight, and that reading continues afterwards.

    25 megabytes are published while the sink is stuck. Memory is that of Python's objects.
    """
    go_on, handled = asyncio.Event(), 0

    async def write(window: list[Message[bytes]]) -> Result[int, str]:
        nonlocal handled
        await go_on.wait()
        handled += len(window)
        return Success(len(window))

    tracemalloc.start()
    try:
        await queue.publish([PAYLOAD] * 100)
        async with Source(queue.driver(), max_in_flight=MOST) as source:
            written = source.messages().chunks_or_timeout(10, 0.1).bind_async(write)
            reading = asyncio.create_task(to_result(written.run()))
            while _held(source) < MOST * 3 // 4:  # noqa: ASYNC110  # then it fetches no more
                await asyncio.sleep(0.02)
            before = _allocated()
            for _ in range(10):
                await queue.publish([PAYLOAD] * 50)
                await asyncio.sleep(0.1)
            grown = _allocated() - before
            assert grown < ALLOWED, f"memory has grown by {grown:,} bytes"
            assert _held(source) <= MOST
            assert handled == 0
            go_on.set()
            while handled < 600:  # noqa: ASYNC110  # of the sink
                await asyncio.sleep(0.02)
            source.drain()
            assert isinstance(await reading, Success)
        assert handled == 600
        assert source.statistics().connections == 1
    finally:
        tracemalloc.stop()
    await queue.remove()


def _held(source: Source[bytes, Any]) -> int:
    found = source.statistics()
    return found.in_flight + found.buffered


def _allocated() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]
