"""One timer that serves deadline after deadline."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

__all__ = ["DeadlineTimer"]


class DeadlineTimer:
    """Calls a function when the current deadline has come, with one handle of the loop at most.

    A deadline that moves back costs nothing: the handle stays, and is set again when it fires too
    early. So an operator may move its deadline with every item or window, and the loop's heap of
    timers sees one entry for all of them. Only a deadline that moves *forward* replaces the handle.

    States: idle (no handle), or armed for a time at or before `deadline`. All methods must be
    called in the loop's thread. While it is armed, the loop refers to the function, and so to
    its owner: the code that sets a timer cancels it at the end.

    Attributes:
        deadline: The current one, on the loop's clock; infinity if there is none. It may be set to
            infinity: then nothing comes, and the handle stays for the next deadline.
    """

    __slots__ = ("_armed_for", "_handle", "deadline")

    def __init__(self) -> None:
        self.deadline = math.inf
        self._handle: asyncio.TimerHandle | None = None
        self._armed_for = math.inf

    @property
    def is_armed(self) -> bool:
        """Whether the loop holds a handle, for this deadline or for an earlier one."""
        return self._handle is not None

    def set(
        self, loop: asyncio.AbstractEventLoop, deadline: float, on_due: Callable[[float], None]
    ) -> None:
        """Replace the deadline. An infinite one never comes.

        ``on_due`` gets the deadline that was reached. It must compare with that, not with the
        clock: uvloop fires up to half a millisecond early, and a callback that compares with the
        clock would arm the timer again and again. It may call `set`.
        """
        self.deadline = deadline
        if self._handle is None:
            if deadline != math.inf:
                self._arm(loop, on_due)
        elif deadline < self._armed_for:
            self._handle.cancel()
            self._arm(loop, on_due)

    def cancel(self) -> None:
        """Forget the deadline, and cancel the handle."""
        self.deadline = math.inf
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self, loop: asyncio.AbstractEventLoop, on_due: Callable[[float], None]) -> None:
        # The time is kept here, because uvloop rounds `TimerHandle.when()`.
        self._armed_for = self.deadline
        self._handle = loop.call_at(self.deadline, self._on_timer, loop, on_due)

    def _on_timer(self, loop: asyncio.AbstractEventLoop, on_due: Callable[[float], None]) -> None:
        self._handle = None
        deadline = self.deadline
        if deadline <= self._armed_for:
            self.deadline = math.inf
            on_due(deadline)
        elif deadline != math.inf:
            self._arm(loop, on_due)
