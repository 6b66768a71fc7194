"""A source that ends when an event is set: `ResultStream.drain_on`."""

from __future__ import annotations

import asyncio
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Sequence
from typing import Any

from returns_pipeline._engine.budget import Budget
from returns_pipeline._engine.operator import plain_iterator
from returns_pipeline._engine.task_owner import TaskOwner, interrupt, is_leaving, next_look

__all__ = ["Drainable", "until"]


class Drainable(ABC):
    """An iterator over items that exist before they are requested, as in a queue."""

    __slots__ = ()

    @abstractmethod
    def drain(self) -> None:
        """Accept no more items: those that it holds are still emitted, then the stream ends.

        No read waits after this, except for an item that is on its way already.
        """


async def until(  # noqa: C901  # one flat loop, for its speed
    source: AsyncIterable[Any], stops: Sequence[asyncio.Event]
) -> AsyncGenerator[Any, None]:
    """End the stream when one of ``stops`` is set, even while the source is silent.

    A source that is `Drainable` emits its held items before the end.

    The pending read is then cancelled the way `asyncio.timeout` does it: cancellations are
    counted, so one that came from elsewhere at the same time still propagates. A read that is being
    cancelled already, or in which something is cleaned up, is not: that would cut the clean-up off.

    An error that the source is raising, or handling, at that moment is raised: the cancellation has
    taken its place, and it must not look like an end.
    """
    loop = asyncio.get_running_loop()
    budget = Budget(loop)
    left = 1
    watch = _Watch(stops)
    watch.start()
    reader: asyncio.Task[Any] | None = None
    cancelled: asyncio.CancelledError | None = None
    first, *more = stops
    try:
        async with plain_iterator(source) as items:
            watch.source = items
            while not (first.is_set() or (more and any(stop.is_set() for stop in more))):
                reader = asyncio.current_task(loop)  # to look the loop up would double the cost
                assert reader is not None
                watch.survived = reader.cancelling()
                watch.reader = reader
                try:
                    item = await anext(items)
                except StopAsyncIteration:
                    return
                except asyncio.CancelledError as error:
                    if not watch.has_interrupted:
                        raise
                    item, cancelled = None, error
                finally:
                    watch.reader = None
                    # Even if the source has swallowed the cancellation, or raised something else:
                    # the count of the task must be what it was.
                    if watch.has_interrupted:
                        watch.has_interrupted = False
                        if reader.uncancel() > watch.survived and cancelled is not None:
                            raise cancelled  # it came from elsewhere, too
                if cancelled is not None:
                    _raise_hidden(cancelled)
                    break
                yield item
                left -= 1
                if not left:
                    left = await budget.renew()
            if isinstance(items, Drainable):
                items.drain()
                async for item in items:
                    yield item
                    if budget.spend():
                        await budget.renew()
    finally:
        reader = cancelled = None  # their exception's traceback holds this frame
        watch.ask_to_stop()
        await watch.wait_ended()


class _Watch(TaskOwner):
    """Tasks that wait for an event each; the first one cancels the read that waits for the source.

    Attributes:
        reader: The task that reads, while it does.
        source: What it reads.
        survived: How many cancellations it had survived when the read began.
        has_interrupted: Whether the read was cancelled, and the reader has not seen it yet.
    """

    __slots__ = ("_stops", "has_interrupted", "reader", "source", "survived")

    source: AsyncIterator[Any]

    def __init__(self, stops: Sequence[asyncio.Event]) -> None:
        super().__init__()
        self._stops = stops
        self.reader: asyncio.Task[Any] | None = None
        self.survived: int = 0
        self.has_interrupted: bool = False

    def start_tasks(self) -> None:
        for stop in self._stops:
            self.start_task(self._interrupt, stop)

    async def _interrupt(self, stop: asyncio.Event) -> None:
        _ = await stop.wait()
        waited = 0.0
        while self.reader is not None and is_leaving(
            self.reader, self.survived, waited, self.source
        ):
            delay = next_look(waited)
            await asyncio.sleep(delay)
            waited += delay
        if self.reader is not None:
            self.has_interrupted = True
            _ = interrupt(self.reader)


def _raise_hidden(cancelled: asyncio.CancelledError) -> None:
    """Raise the error of the source that a cancellation has replaced, if there is one."""
    hidden = cancelled.__context__
    # Code that reads the stream while it handles an exception of its own is not part of the source.
    if isinstance(hidden, Exception) and hidden is not sys.exception():
        try:
            raise hidden
        finally:
            del cancelled, hidden  # its traceback holds this frame
