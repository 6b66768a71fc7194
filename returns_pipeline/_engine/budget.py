"""How long a source that never suspends may keep the event loop to itself."""

from __future__ import annotations

import asyncio
from typing import Final

from returns_pipeline._engine.task_owner import checkpoint

__all__ = ["MAX_STRIDE", "Budget"]

# How many items a source that never suspends may deliver between two looks at the clock.
MAX_STRIDE: Final = 256
# How long, in seconds, such a source may keep the event loop from its other tasks.
MAX_SLICE: Final = 0.005


class Budget:
    """What one task may do before others run: a few milliseconds' work, and a number of items.

    A source that never suspends, read by a loop that never waits, keeps timers, stop events and all
    other tasks from running. Such a loop calls `spend` for each item that it does not wait for, and
    awaits `renew` when that returns true. (tokio calls the same thing a budget, in ``coop``.) A
    loop that also reads the clock for other reasons counts by itself: it calls `look` after
    `stride` items, and `restart` when other tasks have run.

    The clock is read after one item, then two, four and so on: a cheap item costs a decrement, and
    an expensive one is noticed at once. If the clock does not move between two checks, as in tests
    on virtual time, the number of items decides. All times are the loop's.

    Attributes:
        stride: After how many items the clock is to be read again.
    """

    __slots__ = ("_left", "_looked_at", "_loop", "_restarted_at", "stride")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.stride: int = 1
        self._loop = loop
        self._left = 1
        self._looked_at = self._restarted_at = loop.time()

    def spend(self) -> bool:
        """Count an item, and return whether it is time to `renew`."""
        self._left -= 1
        return self._left <= 0

    async def renew(self) -> int:
        """Yield to other tasks, if it is time.

        Returns:
            The number of items until the next call, for a loop that counts them itself.
        """
        if self.look(self._loop.time()):
            await checkpoint()
            self.restart(self._loop.time())
        self._left = self.stride
        return self.stride

    def look(self, now: float) -> bool:
        """Adapt the stride to the time since the last call; return whether other tasks must run."""
        passed, self._looked_at = now - self._looked_at, now
        if passed > MAX_SLICE:
            self.stride = 1
        elif self.stride < MAX_STRIDE:
            self.stride *= 2
        elif not passed:
            return True
        return now - self._restarted_at > MAX_SLICE

    def is_spent(self, now: float) -> bool:
        """Return whether the time has passed, without counting an item."""
        return now - self._restarted_at > MAX_SLICE

    def restart(self, now: float) -> None:
        """Note that other tasks have run."""
        self._looked_at = self._restarted_at = now
