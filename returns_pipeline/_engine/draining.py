"""A source that ends when an event is set: `ResultStream.drain_on`."""

from __future__ import annotations

import asyncio
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from typing import Any

from returns_pipeline._engine.budget import Budget
from returns_pipeline._engine.cancellation import wait_done
from returns_pipeline._engine.operator import plain_iterator

__all__ = ["Drainable", "until"]


class Drainable(ABC):
    """An iterator over items that are there before they are asked for, as in a queue."""

    __slots__ = ()

    @abstractmethod
    def drain(self) -> None:
        """Accept no more items: those that are there are still emitted, then the stream ends.

        No read waits after this, except for an item that is on its way already.
        """


async def until(  # noqa: C901  # one flat loop, for its speed
    source: AsyncIterable[Any], stops: Sequence[asyncio.Event]
) -> AsyncGenerator[Any, None]:
    """End the stream when one of ``stops`` is set, also while the source is silent.

    A source that is `Drainable` emits what it has before the end.

    The pending read is then cancelled the way `asyncio.timeout` does it: cancellations are
    counted, so one that came from elsewhere at the same time still propagates.

    An error that the source is raising, or handling, at that moment is raised: the cancellation has
    taken its place, and it must not look like an end.
    """
    reader: asyncio.Task[Any] | None = None  # while it waits for the source
    interrupted = False
    loop = asyncio.get_running_loop()
    budget = Budget(loop)

    async def watch(stop: asyncio.Event) -> None:
        nonlocal interrupted
        _ = await stop.wait()
        if reader is not None and not interrupted:
            interrupted = True
            _ = reader.cancel()

    first, *more = stops
    watchers = [asyncio.create_task(watch(stop)) for stop in stops]
    try:
        async with plain_iterator(source) as items:
            while not (first.is_set() or (more and any(stop.is_set() for stop in more))):
                reader = asyncio.current_task(loop)  # to look the loop up would double the cost
                assert reader is not None
                cancelled_before = reader.cancelling()
                cancelled: asyncio.CancelledError | None = None
                try:
                    item = await anext(items)
                except StopAsyncIteration:
                    return
                except asyncio.CancelledError as error:
                    if not interrupted:
                        raise
                    item, cancelled = None, error
                finally:
                    # Also if the source has swallowed the cancellation, or raised something else:
                    # the count of the task must be what it was.
                    if interrupted:
                        interrupted = False
                        left = reader.uncancel()
                        if cancelled is not None and left > cancelled_before:
                            raise cancelled  # it came from elsewhere, too
                    reader = None
                if cancelled is not None:
                    _raise_hidden(cancelled)
                    break
                yield item
                if budget.spend():
                    await budget.renew()
            if isinstance(items, Drainable):
                items.drain()
                async for item in items:
                    yield item
    finally:
        for watcher in watchers:
            _ = watcher.cancel()
        await wait_done(asyncio.gather(*watchers, return_exceptions=True))


def _raise_hidden(cancelled: asyncio.CancelledError) -> None:
    """Raise the error of the source that a cancellation has replaced, if there is one."""
    hidden = cancelled.__context__
    # Code that reads the stream while it handles an exception of its own is no part of the source.
    if isinstance(hidden, Exception) and hidden is not sys.exception():
        try:
            raise hidden
        finally:
            del cancelled, hidden  # its traceback holds this frame
