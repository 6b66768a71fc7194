"""How long a source that never suspends may keep the event loop to itself."""

from __future__ import annotations

import asyncio
from typing import Final

from returns_pipeline._engine.task_owner import checkpoint

__all__ = ["MAX_SLICE", "MAX_STRIDE", "Budget"]

# How many items a source that never suspends may deliver before other tasks run.
MAX_STRIDE: Final = 256
# How long, in seconds, such a source may keep the event loop from its other tasks.
MAX_SLICE: Final = 0.005


class Budget:
    """What one task may do before others run: a few milliseconds' work, and a number of items.

    A source that never suspends, read by a loop that never waits, keeps timers, stop events and all
    other tasks from running. Such a loop calls `spend` for each item that it does not wait for, and
    awaits `renew` when that is true. (tokio has the same, by the same name, in its ``coop``.)

    The clock is read after one item, then two, four and so on: a cheap item costs a decrement, and
    an expensive one is noticed at once. The number counts as well as the time, because a clock may
    not move at all, such as the one for tests.
    """

    __slots__ = ("_last_check_at", "_last_yield_at", "_left", "_loop", "_stride")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._left = self._stride = 1
        self._last_check_at = self._last_yield_at = loop.time()

    def spend(self) -> bool:
        """Count an item, and return whether it is time to `renew`."""
        self._left -= 1
        return self._left <= 0

    async def renew(self) -> int:
        """Yield to other tasks, if it is time.

        Returns:
            The number of items until the next call, for a loop that counts them itself.
        """
        now = self._loop.time()
        if now - self._last_check_at > MAX_SLICE:
            self._stride = 1
        elif self._stride < MAX_STRIDE:
            self._stride *= 2
        if self._stride == MAX_STRIDE or now - self._last_yield_at > MAX_SLICE:
            await checkpoint()
            now = self._last_yield_at = self._loop.time()
        self._last_check_at = now
        self._left = self._stride
        return self._stride
