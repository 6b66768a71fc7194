"""How far event time has come, by the items of several partitions and by the clock.

It knows no loop: the times that it is given are seconds on whatever clock its caller has.
"""

from __future__ import annotations

import math

__all__ = ["Watermarks"]


class _Partition:
    """Where one partition is.

    Attributes:
        newest: Its greatest timestamp.
        seen_at: When its last item came.
    """

    __slots__ = ("newest", "seen_at")

    def __init__(self) -> None:
        self.newest = -math.inf
        self.seen_at = -math.inf


class Watermarks:
    """The watermark of several partitions.

    It is the least of their greatest timestamps, less the slack. A partition without an item for
    ``idle_after`` seconds is *idle*, and left out. When all are idle, the clock moves each one's
    timestamp on, and the greatest counts: there is nothing to wait for.

    An item that is further ahead than ``max_skew`` moves nothing. *Ahead* means: of the greatest
    timestamp so far, and of the time that has passed since that came.
    """

    __slots__ = (
        "_idle_after",
        "_low",
        "_max_skew",
        "_newest",
        "_newest_at",
        "_partitions",
        "_slack",
        "idle_from",
    )

    def __init__(self, slack: float, idle_after: float, max_skew: float) -> None:
        self._slack = slack
        self._idle_after = idle_after
        self._max_skew = max_skew
        self._newest = -math.inf  # of all partitions
        self._newest_at = 0.0  # when it came, on the clock of `is_ahead`
        self._partitions: dict[object, _Partition] = {}
        self._low = -math.inf  # the least timestamp of the active ones, when it was last looked at
        self.idle_from = math.inf  # no active one is idle before this; it may be later

    def is_ahead(self, at: float, clock: float) -> bool:
        """Return whether a timestamp is too far in the future; the first one never is.

        Args:
            at: The timestamp.
            clock: Seconds on a clock that never stands still.
        """
        limit = self._newest + (clock - self._newest_at) + self._max_skew
        if at > limit > -math.inf:
            return True
        if at > self._newest:
            self._newest = at
            self._newest_at = clock
        return False

    def note(self, partition: object, at: float, now: float, *, ahead: bool) -> float:
        """Move the watermark by an item, if need be, and return it."""
        mark = self._partitions.get(partition)
        if mark is None:
            mark = self._partitions[partition] = _Partition()
        before = mark.newest
        was_idle = before == -math.inf or now >= mark.seen_at + self._idle_after
        mark.seen_at = now
        if at > before and not ahead:
            mark.newest = at
        if len(self._partitions) == 1:
            self._low = mark.newest
            self.idle_from = now + self._idle_after
        # Only then can the least one have changed.
        elif was_idle or before <= self._low or now >= self.idle_from:
            self._low = min([each.newest for each in self._active(now)], default=-math.inf)
            self.idle_from = self.idle_at(now)
        return self._low - self._slack

    def has_reached(self, end: float, now: float) -> bool:
        """Return whether the items, or the clock, have brought the watermark to ``end``."""
        active = self._active(now)
        if active:
            return end <= min([each.newest for each in active]) - self._slack
        return self.reaches_at(end) <= now

    def reaches_at(self, end: float) -> float:
        """Return when the clock brings the watermark to ``end``, if all partitions are idle."""
        return min(
            [
                each.seen_at + (end - (each.newest - self._slack))
                for each in self._partitions.values()
            ],
            default=math.inf,
        )

    def idle_at(self, now: float) -> float:
        """Return when the next partition is left out; infinity if all are."""
        active = self._active(now)
        return min([each.seen_at for each in active], default=math.inf) + self._idle_after

    def _is_idle(self, mark: _Partition, now: float) -> bool:
        # One that has had nothing but items too far ahead says nothing.
        return now >= mark.seen_at + self._idle_after or mark.newest == -math.inf

    def _active(self, now: float) -> list[_Partition]:
        return [each for each in self._partitions.values() if not self._is_idle(each, now)]
