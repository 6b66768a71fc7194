"""Windows that become due one after the other, and the one timer that makes them so.

The base of the windows that can be several at a time. Whatever their number, there is one task for
the source and one timer handle: it is set for the earliest deadline and moved on when it fires.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeVar

from returns_pipeline._engine.deadlines import DeadlineTimer
from returns_pipeline._engine.operator import check_at_least, plain_iterator
from returns_pipeline._engine.reader import Pump, checkpoint, notify
from returns_pipeline.errors import InvalidArgument

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable

__all__ = ["MAX_SLICE", "MAX_STRIDE", "DuePump", "check_count", "check_seconds"]

T = TypeVar("T")

# How many items a source that never suspends may deliver between two looks at the clock.
MAX_STRIDE: Final = 256
# How long, in seconds, such a source may keep the event loop from its other tasks.
MAX_SLICE: Final = 0.005


class DuePump(Pump[T]):
    """A pump whose windows wait in the order in which they became due.

    What stands in ``due`` is given out by `take`, which each operator defines. A window may stand
    there and still be filled: it is the reader's coming that closes it.

    Time is the loop's, less `lag`: the time for which the source was kept waiting, where that
    shall not count.
    """

    __slots__ = (
        "_check_at",
        "_let",
        "_looked",
        "_room",
        "_source",
        "_stopped",
        "_stride",
        "_timer",
        "due",
        "lag",
    )

    yielding: bool

    def __init__(self, source: AsyncIterable[Any]) -> None:
        super().__init__()
        self.due: deque[Any] = deque()
        self.lag: float = 0.0
        self._stopped = False  # the clock, while the source waits
        self._source = source
        self._room: asyncio.Future[None] | None = None  # the task, waiting for the reader
        self._timer = DeadlineTimer()
        self._check_at = math.inf  # the deadline that the timer is set for, without the lag
        self._looked = 0.0
        self._let = 0.0  # when other tasks were last let run
        self._stride = 1

    @abstractmethod
    async def fill(self, source: AsyncIterator[Any]) -> None:
        """Put each item of the source where it belongs."""

    @abstractmethod
    def next_deadline(self) -> float:
        """Give the earliest deadline of an open window; infinity if there is none."""

    @abstractmethod
    def expire(self, now: float) -> None:
        """Make due, by deadline and then by age, each open window whose deadline is not after."""

    @abstractmethod
    def flush(self) -> None:
        """Make all open windows due, the oldest first."""

    def has_next(self) -> bool:
        """Say whether a window is due."""
        return bool(self.due)

    def discard(self) -> None:
        """Drop what is due, and the timer."""
        self.due.clear()
        self._disarm()

    async def pump(self) -> None:
        """Read the source to its end, clean it up, and flush what is open."""
        try:
            async with plain_iterator(self._source) as source:
                await self.fill(source)
        finally:
            self._disarm()
            if not self.closed:
                self.flush()

    # The clock.

    def now(self) -> float:
        """Give the time in seconds that deadlines are in."""
        return self.loop.time() - self.lag

    def must_pause(self, now: float) -> bool:
        """Say whether it is time to `look_up`; cheaper than that, and early rather than late."""
        return now >= self._check_at or now - self._let > MAX_SLICE

    def arm(self) -> None:
        """Set the timer for the earliest deadline.

        If it is set, it stays: a new window's deadline is never before that of an older one.
        """
        if not self._timer.is_armed:
            self._check_at = self.next_deadline()
            self._set_timer()

    def arm_for(self, deadline: float) -> None:
        """Set the timer, or set it forward, if something may be due then."""
        if self._check_at > deadline:
            self._disarm()
        self.arm()

    def _set_timer(self) -> None:
        self._timer.set(self.loop, self._check_at + self.lag, self._on_due)

    def _disarm(self) -> None:
        self._timer.cancel()
        self._check_at = math.inf

    def _on_due(self, _: float) -> None:
        if self._stopped:
            return  # it is armed when the clock runs on
        # What the timer was set for is due, also by a loop that fires a little early.
        self.expire(max(self._check_at, self.now()))
        self._check_at = math.inf
        if self.due:
            self.notify_reader()
        self.arm()

    async def look_up(self, now: float) -> int:
        """Do what the loop would, had the source let it: flush in time, let other tasks run.

        Returns:
            How many items may be read before the next look.
        """
        if now - self._looked > MAX_SLICE:
            self._stride = 1
        else:
            self._stride = min(2 * self._stride, MAX_STRIDE)
        self._looked = now
        if now >= self.next_deadline():
            self.expire(now)
            self.notify_reader()
            await self.let_others_run()  # the reader was scheduled first, so it goes first
        elif now - self._let > MAX_SLICE:
            await self.let_others_run()
        return self._stride

    async def let_others_run(self) -> None:
        """Give the event loop a turn."""
        await checkpoint()
        self._looked = self._let = self.now()

    # The reader.

    async def wait_until_taken(self) -> None:
        """Let the source wait until the reader has taken all that is due."""
        if self.reading:
            await self.yield_to_reader()
        while self.due:
            await self.wait_for_reader()

    async def give_alone(self, item: object) -> None:
        """Flush, and let an item out that goes into no window."""
        self.flush()
        self.due.append(item)
        await self.wait_with_clock_stopped()

    async def wait_with_clock_stopped(self) -> None:
        """Do so, and do not count the time: it is no silence of the source."""
        await self.with_clock_stopped(self.wait_until_taken())

    async def with_clock_stopped(self, waiting: Awaitable[None]) -> None:
        """Await something, and do not count the time."""
        started = self.loop.time()
        self._stopped = True
        try:
            await waiting
        finally:
            self._stopped = False
            self.lag += self.loop.time() - started
            if not self.closed:
                if self._timer.is_armed:
                    self._set_timer()  # it comes later, by the time that is not counted
                else:
                    self.arm()

    async def wait_for_reader(self) -> None:
        """Let the source wait until the reader has made room."""
        self._room = self.loop.create_future()
        try:
            await self._room
        finally:
            self._room = None

    def make_room(self) -> None:
        """Let the source go on, if it waits."""
        notify(self._room)


def check_count(name: str, value: int) -> None:
    """Refuse a number of items, or of keys, that is not whole or below 1."""
    check_at_least(name, value, 1)


def check_seconds(name: str, value: float) -> None:
    """Refuse a time in seconds that is not above 0; infinity is."""
    if not value > 0:
        raise InvalidArgument(f"{name} must be above 0 seconds, not {value!r}")
    try:
        _ = float(value)  # what deadlines are made of
    except OverflowError:
        raise InvalidArgument(f"{name} is too large: math.inf means no limit") from None
