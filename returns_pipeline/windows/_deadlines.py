"""Windows with deadlines, many at a time, served by one timer.

The base of all windows but `chunks_or_timeout` and `sliding`. Whatever their number, there is one
task for the source and one timer handle, which is set for the earliest deadline and set again when
it fires.
"""

from __future__ import annotations

import asyncio
import math
from abc import abstractmethod
from collections import deque
from collections.abc import AsyncIterable, Awaitable
from typing import Any

from returns_pipeline import telemetry
from returns_pipeline._engine.deadlines import DeadlineTimer
from returns_pipeline._engine.reader import checkpoint, notify
from returns_pipeline._engine.steps import Failed
from returns_pipeline.windows._flushing import FlushOn, WindowPump

__all__ = ["DeadlinePump"]


class DeadlinePump(WindowPump):
    """A pump whose windows queue for the reader in the order of their deadlines.

    Windows in ``due`` are emitted by `take`, which each operator defines. A window there may still
    be filled: it is closed only when the reader takes it.

    Time is the loop's, less ``lag``: the time for which the source was kept waiting, where that
    must not count (a slow reader must not look like a silence of the source).

    `take` and `discard` run in the reader's task, `_on_due` and `expire` also in the loop,
    `flush_now` in the task of the signal; all others run in the pump's task. Between two awaits
    every window is either open or in ``due`` (or, where `take` allows it, both), so none of them
    can lose one.
    """

    __slots__ = (
        "_is_paused",
        "_not_full",
        "_timer",
        "_timer_deadline",
        "due",
        "lag",
    )

    yielding: bool

    def __init__(self, source: AsyncIterable[Any], flush_on: FlushOn | None) -> None:
        super().__init__(source, flush_on)
        self.due: deque[Any] = deque()
        self.lag: float = 0.0
        self._is_paused = False  # the clock, while the source waits
        self._not_full: asyncio.Future[None] | None = None  # the pump waits for the reader
        self._timer = DeadlineTimer()
        self._timer_deadline = math.inf  # the time it is set for, on the pump's own clock

    @abstractmethod
    def next_deadline(self) -> float:
        """Return the earliest deadline of an open window; infinity if there is none."""

    @abstractmethod
    def expire(self, now: float, why: telemetry.WindowReason = "time") -> None:
        """Queue each open window whose deadline has come, by deadline and then by age.

        Args:
            now: The time.
            why: Why they are due, to be reported.
        """

    @abstractmethod
    def flush(self, why: telemetry.WindowReason) -> None:
        """Queue all open windows, the oldest first."""

    def held(self) -> int:
        return sum(1 if each.__class__ is Failed else len(each) for each in self.due)

    def age(self, began: float) -> float | None:
        """Return the seconds since a time on the clock of the deadlines; None if it is infinite."""
        return max(0.0, self.now() - began) if math.isfinite(began) else None

    def has_next(self) -> bool:
        """Return whether a window is due."""
        return bool(self.due)

    def discard(self) -> None:
        """Drop all windows that are due, and the timer; wake a source that was stopped before."""
        self.due.clear()
        self._disarm()
        self.resume()

    def end(self) -> None:
        """Flush the open windows."""
        self._disarm()
        if not self.closed:
            self.flush(self.end_reason)

    def flush_now(self) -> None:
        """Do as if the deadlines of all open windows had come."""
        self.expire(math.inf, self.flush_reason)
        if self.due:
            self.notify_reader()

    # The clock.

    def now(self) -> float:
        """Return the time, in seconds, on the clock of the deadlines."""
        return self.loop.time() - self.lag

    def arm(self) -> None:
        """Set the timer for the earliest deadline.

        A timer that is set stays: a new window's deadline is never before that of an older one.
        """
        if not self._timer.is_armed:
            self._timer_deadline = self.next_deadline()
            self._set_timer()

    def arm_for(self, deadline: float) -> None:
        """Set the timer, or set it forward, if something may be due at ``deadline``."""
        if self._timer_deadline > deadline:
            self._disarm()
        self.arm()

    def _set_timer(self) -> None:
        self._timer.set(self.loop, self._timer_deadline + self.lag, self._on_due)

    def _disarm(self) -> None:
        self._timer.cancel()
        self._timer_deadline = math.inf

    def _on_due(self, _: float) -> None:
        if self._is_paused:
            return  # the timer is set again when the clock is resumed
        # The deadline counts as reached, even if the loop fires a little early.
        self.expire(max(self._timer_deadline, self.now()))
        self._timer_deadline = math.inf
        if self.due:
            self.notify_reader()
        self.arm()

    async def renew(self) -> int:
        """Expire windows, and let other tasks run, as the loop would."""
        if self.stopping:
            return 0
        now = self.now()
        must_yield = self.budget.look(now + self.lag)
        if now >= self.next_deadline():
            self.expire(now)
            self.notify_reader()
            await self.yield_to_others()  # the reader was scheduled first, so it goes first
        elif must_yield:
            await self.yield_to_others()
        return self.budget.stride

    async def yield_to_others(self) -> None:
        """Yield to all other tasks, once."""
        await checkpoint()
        self.budget.restart(self.loop.time())

    # The reader.

    async def wait_until_taken(self) -> None:
        """Make the source wait until the reader has taken all that is due."""
        self.still_reading()
        if self.reading:
            await self.yield_to_reader()
        while self.due:
            await self.wait_until_resumed()

    async def emit_failure(self, failure: object) -> None:
        """Flush, then emit the failure."""
        self.flush("failure")
        self.due.append(failure)
        await self.wait_with_clock_paused()

    async def wait_with_clock_paused(self) -> None:
        """Do as `wait_until_taken`; the time does not count as a silence of the source."""
        await self.with_clock_paused(self.wait_until_taken())

    async def with_clock_paused(self, waiting: Awaitable[None]) -> None:
        """Await something; the time does not count."""
        started = self.loop.time()
        self._is_paused = True
        try:
            await waiting
        finally:
            self._is_paused = False
            self.lag += self.loop.time() - started
            if not self.closed:
                if self._timer.is_armed:
                    self._set_timer()  # later, by the time that does not count
                else:
                    self.arm()

    async def wait_until_resumed(self) -> None:
        """Make the source wait until the reader takes something."""
        self._not_full = self.loop.create_future()
        stage = self.stage
        began, held = (0.0, 0) if stage is None else (self.loop.time(), self.held())
        try:
            await self._not_full
        finally:
            self._not_full = None
            if stage is not None:
                stage.waited(began, self.loop.time(), held)

    def resume(self) -> None:
        """Wake the source, if it waits for the reader."""
        notify(self._not_full)
