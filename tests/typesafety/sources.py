# mypy: disable-error-code="unused-awaitable"
"""Never run. What mypy and pyright infer for sources."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Never, assert_type

from aiostream import Stream

from returns_pipeline import ResultStream, RetryPolicy, pipe, sources
from returns_pipeline.errors import ChannelClosed, NotHandled
from returns_pipeline.sources import (
    AsyncQueue,
    Channel,
    SyncIterator,
    from_iterable,
    from_queue,
    from_thread,
    iterate,
    restarting,
    ticks,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


def iterables(numbers: list[int], lines: Iterator[str]) -> None:
    """The items keep their type."""
    assert_type(from_iterable(numbers), Stream[int])
    assert_type(ResultStream.of(from_iterable([1, 2])), ResultStream[int, Never])
    assert_type(sources.from_iterable(lines) | pipe.chunks_or_timeout(2, 1.0), Stream[list[str]])
    from_iterable(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ResultStream.of([1, 2])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(ticks(2.0), Stream[int])
    ticks("2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


class OwnQueue:
    """A queue of one's own."""

    async def get(self) -> bytes:
        return b""

    def get_nowait(self) -> bytes:
        return b""


def queues(
    queue: asyncio.Queue[int], ending: asyncio.Queue[str | None], own: OwnQueue, blocking: list[int]
) -> None:
    """A sentinel of None is not an item."""
    assert_type(from_queue(queue), Stream[int])
    assert_type(from_queue(queue, sentinel=-1), Stream[int])
    assert_type(from_queue(ending, sentinel=None), Stream[str])
    assert_type(from_queue(ending), Stream[str | None])
    assert_type(from_queue(own), Stream[bytes])
    protocol: AsyncQueue[bytes] = own
    wrong: AsyncQueue[str] = own  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    from_queue(blocking)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    del protocol, wrong


async def own_queue(queue: AsyncQueue[int]) -> None:
    """What the protocol asks for."""
    assert_type(await queue.get(), int)
    assert_type(queue.get_nowait(), int)
    await queue.get(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    queue.get_nowait(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def channels(channel: Channel[int], closed: ChannelClosed, left: NotHandled) -> None:
    """What goes in is emitted."""
    assert_type(Channel[str](5), Channel[str])
    assert_type(await channel.send(1), None)
    assert_type(Channel[str](5, acknowledged=True), Channel[str])
    assert_type(await channel.deliver(1), None)
    assert_type(left.item, object)
    await channel.deliver("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    NotHandled()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert_type(channel.send_soon(1), asyncio.Future[None])
    assert_type(channel.send_from_thread(1, timeout=2.0), None)
    assert_type(channel.close(), None)
    assert_type(channel.closed, bool)
    assert_type(channel.unread, list[int])
    assert_type(channel | pipe.chunks_or_timeout(2, 1.0), Stream[list[int]])
    assert_type(ResultStream.of(channel), ResultStream[int, Never])
    async for item in channel:
        assert_type(item, int)
    async with channel as same:
        assert_type(same, Channel[int])
    assert_type(closed.item, object)
    await channel.send("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    channel.send_soon("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    channel.send_from_thread("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    channel.close("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Channel()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    ChannelClosed()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def blocking_iterators(lines: Iterator[str], numbers: list[int]) -> None:
    """Items that are dropped have the items' type."""

    def note(line: str) -> None:
        del line

    assert_type(from_thread(lines), Stream[str])
    assert_type(from_thread(lines, buffer=9, grace=1.0, on_drop=note), Stream[str])
    from_thread(numbers, on_drop=note)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    from_thread(lines, buffer="9")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def restarts(policy: RetryPolicy, stream: Stream[int]) -> None:
    """The factory makes what is emitted."""

    async def feed() -> AsyncIterator[bytes]:
        yield b""

    assert_type(restarting(feed, policy), Stream[bytes])
    assert_type(restarting(lambda: stream, policy), Stream[int])
    restarting(stream, policy)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    restarting(feed)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def synchronous(stream: Stream[int], numbers: list[int]) -> None:
    """A stream as an iterator."""
    assert_type(iterate(stream), SyncIterator[int])
    for item in iterate(stream, blocks_loop=True):
        assert_type(item, int)
    with iterate(stream, loop_factory=asyncio.new_event_loop) as items:
        assert_type(next(items), int)
        assert_type(items.close(), None)
    wider: SyncIterator[float] = items
    narrower: SyncIterator[bool] = items  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    items.close(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    iterate(numbers)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    del wider, narrower
