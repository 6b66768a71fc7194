"""What tests of connectors share: a limit, a proxy to cut, and ways to read a source."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import uuid4

from cut_proxy import CutProxy

from returns_pipeline.connectors import Source
from returns_pipeline.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from returns_pipeline.connectors import Message
    from returns_pipeline.testing._connector_harness import QueueUnderTest

T = TypeVar("T")

SOON: Final = RetryPolicy(attempts=1000, wait=0.1)


def within(main: Coroutine[Any, Any, None], seconds: float = 60) -> None:
    """Run a test, which fails if it takes too long."""
    asyncio.run(asyncio.wait_for(main, seconds))


def values(count: int, start: int = 0) -> list[bytes]:
    """Return numbers to publish."""
    return [str(number).encode() for number in range(start, start + count)]


async def received(source: Source[T, Any], count: int) -> list[Message[T]]:
    """Return the next messages of a source."""
    return [(await anext(source)).unwrap() for _ in range(count)]


async def check_lag(queue: QueueUnderTest, partition: str) -> None:
    """Check that a source knows how much is left of a queue, which is new and has one partition."""

    async def becomes(left: int) -> None:
        async with asyncio.timeout(10):
            while source.statistics().lag != {partition: left}:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    await queue.publish(values(5))
    async with Source(queue.driver(), max_in_flight=2) as source:
        _ = await received(source, 2)
        await becomes(3)
        await queue.publish(values(1))
        await becomes(4)
        for _ in range(4):
            source.reached(source.mark())
            _ = await anext(source)
        await becomes(0)
        assert source.statistics().connections == 1
    await queue.remove()


class Proxied:
    """Something of its own on a server, reached through a proxy whose connections can be cut.

    Attributes:
        name: What it is called.
        server: The address of the server itself.
    """

    def __init__(self, server: str) -> None:
        self.name = f"test-{uuid4().hex}"
        self.server = server

    async def open_proxy(self) -> str:
        """Return the address of the proxy."""
        host, _, port = self.server.partition(":")
        self._proxy = await CutProxy(host, int(port)).start()
        return f"127.0.0.1:{self._proxy.port}"

    async def disconnect(self) -> None:
        """Cut all connections."""
        await self._proxy.cut()

    async def close_proxy(self) -> None:
        await self._proxy.stop()
