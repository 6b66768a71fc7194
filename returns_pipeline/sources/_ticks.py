"""`ticks`: a clock as a stream."""

from __future__ import annotations

import asyncio
import math

from aiostream import Stream

from returns_pipeline._engine import checks
from returns_pipeline._engine.calls import recorded
from returns_pipeline._engine.checks import Seconds
from returns_pipeline._engine.deadlines import DeadlineTimer
from returns_pipeline._engine.operator import Repeatable
from returns_pipeline._engine.reader import notify

__all__ = ["ticks"]


@recorded
def ticks(seconds: Seconds) -> Stream[int]:
    """Emit 1, 2, 3, ... at regular intervals, counted from the first read.

    1. Tick ``k`` is due exactly ``k * seconds`` after the first read: time that the reader takes
       for one tick does not delay the next, so delays do not add up.
    2. A reader that is late gets the latest tick that is due, at once. The ticks that it missed are
       left out, as the numbers show: ticks do not queue up.
    3. The stream never ends by itself.

    It has no task, and a timer only while it is read.

    Cancel safety: a cancelled read loses nothing.

    Known elsewhere as: ``interval`` (Rx, tokio), ``awakeEvery`` (fs2), ``Source.tick`` (Akka and
    Pekko), ``time.Tick`` (Go).

    Args:
        seconds: Between two ticks, above 0 and finite. On the running loop's clock.

    Returns:
        A stream of the numbers of the ticks.

    Raises:
        InvalidArgument: At the call, if ``seconds`` is out of range.

    >>> from returns_pipeline.testing import run, timeline
    >>> run(timeline(ticks(2.0)[:3]))
    [(2.0, 1), (4.0, 2), (6.0, 3)]
    >>> run(timeline(ticks(2.0)[:3], pause=5.0))
    [(2.0, 1), (7.0, 3), (12.0, 6)]
    """
    period = checks.seconds("seconds", seconds, finite=True)
    return Repeatable(lambda: _Ticks(period))


class _Ticks:
    """States: new; running, from the first read; closed."""

    __slots__ = ("_closed", "_last", "_loop", "_period", "_ready", "_started_at", "_timer")

    _loop: asyncio.AbstractEventLoop

    def __init__(self, period: float) -> None:
        self._period = period
        self._started_at: float | None = None
        self._last = 0  # the number of the last tick that was emitted
        self._timer = DeadlineTimer()
        self._ready: asyncio.Future[None] | None = None  # a reader waits for it
        self._closed = False

    def __aiter__(self) -> _Ticks:
        return self

    async def __anext__(self) -> int:
        if self._closed:
            raise StopAsyncIteration
        if self._ready is not None:
            raise RuntimeError("another task is reading this iterator")
        if self._started_at is None:
            self._loop = asyncio.get_running_loop()
            self._started_at = self._loop.time()
        due = self._started_at + (self._last + 1) * self._period
        if self._loop.time() < due:
            self._ready = self._loop.create_future()
            self._timer.set(self._loop, due, self._on_due)
            try:
                await self._ready
            finally:
                self._ready = None
                self._timer.cancel()
            if self._closed:
                raise StopAsyncIteration
        # Some loops fire a timer a little early; its tick counts as reached.
        passed = math.floor((self._loop.time() - self._started_at) / self._period)
        self._last = max(passed, self._last + 1)
        return self._last

    def _on_due(self, _: float) -> None:
        notify(self._ready)

    async def aclose(self) -> None:
        """End the stream, also for a reader that waits."""
        self._closed = True
        self._timer.cancel()
        notify(self._ready)
