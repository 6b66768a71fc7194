"""The common base of all windows: the source's task, and the signal that flushes them."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from collections.abc import AsyncIterable
from typing import Any, ClassVar, Final, TypeAlias

from returns_pipeline import telemetry
from returns_pipeline._engine import checks
from returns_pipeline._engine.budget import MAX_STRIDE, Budget
from returns_pipeline._engine.ends import End
from returns_pipeline._engine.fusion import part_of
from returns_pipeline._engine.operator import plain_iterator
from returns_pipeline._engine.reader import Pump

__all__ = ["FlushOn", "WindowPump"]

FlushOn: TypeAlias = asyncio.Event | AsyncIterable[object]


# Seconds after which an event is checked again that does not show who waits for it.
_LOOK_EVERY: Final = 0.01


class WindowPump(Pump[Any]):
    """Reads the source in one task and, if there is a signal, waits for that in another.

    What puts items into windows is compiled with the steps before them: see `ends.window`. Their
    failures are in no window, but emitted in their places.

    The signal ends with the source: its stream is closed then. If it fails, the source is stopped,
    open windows are emitted, and the error of the signal is raised.
    """

    __slots__ = ("_flush_on", "_source", "budget", "end_reason", "flush_reason", "source_ended")

    fill: ClassVar[End]

    operator: ClassVar[str]
    budget: Budget

    def __init__(self, source: AsyncIterable[Any], flush_on: FlushOn | None) -> None:
        super().__init__()
        self._source = checks.source(source)
        if flush_on is not None and not isinstance(flush_on, asyncio.Event):
            _ = checks.source(flush_on)
        self._flush_on = flush_on
        self.source_ended: bool = False  # or was stopped
        self.end_reason: telemetry.WindowReason = "end"  # why the last windows are emitted
        self.flush_reason: telemetry.WindowReason = "flush"  # why `flush_now` emits windows

    def sources(self) -> list[AsyncIterable[Any]]:
        """Return the source, and the stream of signals."""
        flush_on = self._flush_on
        if flush_on is None or isinstance(flush_on, asyncio.Event):
            return [self._source]
        return [self._source, flush_on]

    @abstractmethod
    async def emit_failure(self, failure: object) -> None:
        """Emit a failure, which is in no window, after what is open before it."""

    def room(self) -> int:
        """Return how many items of a slice there is room for now."""
        return MAX_STRIDE

    async def renew(self) -> int:
        """Yield to other tasks, as the loop would if the source ever suspended.

        Returns:
            How many items may be read until the next call; 0 if the source was stopped, and has
            swallowed the cancellation.
        """
        left = await self.budget.renew()
        return 0 if self.stopping else left

    @abstractmethod
    def end(self) -> None:
        """Queue the open windows, and cancel timers: the source has ended, or was stopped."""

    @abstractmethod
    def flush_now(self) -> None:
        """Queue the open windows, as if their time had come; between two steps of the loop."""

    def flush_for_credit(self) -> None:
        """Do as `flush_now`, for a mark that flushes."""
        self.flush_reason = "credit"
        self.flush_now()
        self.flush_reason = "flush"

    def start_tasks(self) -> None:
        """Start the task of the source, then that of the signal."""
        super().start_tasks()
        if self._flush_on is not None and not self.stopping:
            self.start_task(self._watch, self._flush_on)

    async def pump(self) -> None:
        """Read the source to its end, clean it up, and emit the open windows."""
        self.budget = Budget(self.loop)
        try:
            await part_of(self._source).run_to(self.fill, self, owned=True, room=self.room)
        except BaseException:
            self.end_reason = "failure"
            raise
        finally:
            self.source_ended = True
            self.end()
            self.notify_reader()
        if self._flush_on is not None:
            self.finish()

    def report(
        self,
        size: int,
        reason: telemetry.WindowReason,
        since: float | None = None,
        weight: float | None = None,
    ) -> None:
        """Report that a window is emitted.

        Args:
            size: The number of its items.
            reason: Why.
            since: When its first item came, on the loop's clock; None if it is not known.
            weight: What they weigh together, if they have a weight.
        """
        stage = self.stage
        if stage is None:
            return
        at = self.loop.time()
        event = telemetry.WindowEmitted(
            pipeline=stage.pipeline,
            stage=stage.name,
            operator=stage.operator,
            size=size,
            weight=weight,
            reason=reason,
            age=None if since is None else at - since,
            at=at,
        )
        stage.report(event)

    async def _watch(self, flush_on: FlushOn) -> None:
        if isinstance(flush_on, asyncio.Event):
            while True:
                await _next_set(flush_on, self.loop)
                if self.stopping:
                    return
                self.flush_now()
        budget = Budget(self.loop)
        async with plain_iterator(flush_on) as signals:
            async for _ in signals:
                if self.stopping:
                    break
                self.flush_now()
                if budget.spend():
                    await budget.renew()


async def _next_set(event: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
    """Wait until an event is set; if it is set now, until it is cleared and set again."""
    if not event.is_set():
        _ = await event.wait()
        return
    # There is no public way to wait for that. All Pythons keep the waiting futures in this deque,
    # and `set()` resolves them if the event was clear.
    waiters: deque[asyncio.Future[bool]] | None = getattr(event, "_waiters", None)
    if waiters is None:  # an event of a class that works in another way
        while event.is_set():  # noqa: ASYNC110  # there is nothing else to wait for
            await asyncio.sleep(_LOOK_EVERY)
        _ = await event.wait()
        return
    waiter: asyncio.Future[bool] = loop.create_future()
    waiters.append(waiter)
    try:
        _ = await waiter
    finally:
        waiters.remove(waiter)
