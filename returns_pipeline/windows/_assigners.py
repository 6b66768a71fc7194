"""Which windows of event time an item belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

from returns_pipeline._engine import checks
from returns_pipeline._engine.checks import Seconds
from returns_pipeline.errors import InvalidArgument

__all__ = ["Assigner", "SessionWindows", "SlidingWindows", "TumblingWindows", "in_seconds"]


@dataclass(frozen=True, slots=True)
class TumblingWindows:
    """Windows of one size, end to end: each item is in exactly one.

    Attributes:
        size: Seconds of event time in a window, above 0.
        offset: Seconds by which all windows are moved: one starts at this moment.

    Raises:
        InvalidArgument: At the call, if ``size`` or ``offset`` is out of range.

    >>> TumblingWindows(60.0)
    TumblingWindows(size=60.0, offset=0.0)
    """

    size: Seconds
    offset: Seconds = 0.0

    def __post_init__(self) -> None:
        _set_span(self, "size", self.size)
        object.__setattr__(self, "offset", checks.seconds("offset", self.offset, signed=True))


@dataclass(frozen=True, slots=True)
class SlidingWindows:
    """Windows of one size that start at regular distances and overlap: each item is in several.

    Attributes:
        size: Seconds of event time in a window, above 0.
        every: Seconds from the start of a window to the start of the next, above 0 and at most
            ``size``: with gaps between windows, items would be lost.

    Raises:
        InvalidArgument: At the call, if ``size`` or ``every`` is out of range.

    >>> SlidingWindows(60.0, 15.0)
    SlidingWindows(size=60.0, every=15.0)
    """

    size: Seconds
    every: Seconds

    def __post_init__(self) -> None:
        size = _set_span(self, "size", self.size)
        every = _set_span(self, "every", self.every)
        if every > size:
            raise InvalidArgument(
                f"every must be at most the size, {size!r} seconds, not {every!r}"
            )


@dataclass(frozen=True, slots=True)
class SessionWindows:
    """Windows that grow while items come: an item less than a gap away from one joins it.

    An item whose timestamp is exactly ``gap`` after the last one begins the next session.

    Attributes:
        gap: Seconds of event time without an item that end a session, above 0.

    Raises:
        InvalidArgument: At the call, if ``gap`` is out of range.

    >>> SessionWindows(60.0)
    SessionWindows(gap=60.0)
    """

    gap: Seconds

    def __post_init__(self) -> None:
        _set_span(self, "gap", self.gap)


Assigner: TypeAlias = TumblingWindows | SlidingWindows | SessionWindows


def _set_span(assigner: Assigner, name: str, value: Seconds) -> float:
    """Keep a duration as a number of seconds; the dataclass itself is frozen."""
    span = checks.seconds(name, value, finite=True)
    object.__setattr__(assigner, name, span)
    return span


def in_seconds(span: Seconds) -> float:
    """Return a duration that was checked before."""
    return span.total_seconds() if isinstance(span, timedelta) else span
