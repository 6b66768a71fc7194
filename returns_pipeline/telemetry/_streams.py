"""Events of the stages of a stream."""

from __future__ import annotations

from typing import Literal, TypeAlias

from returns_pipeline._engine.backpressure import Backpressure
from returns_pipeline._engine.records import Record

__all__ = [
    "Backpressure",
    "ItemsDropped",
    "LateItems",
    "StreamEvent",
    "WatermarkAdvanced",
    "WindowEmitted",
    "WindowReason",
]

WindowReason: TypeAlias = Literal[
    "size",
    "time",
    "weight",
    "marker",
    "gap",
    "watermark",
    "late",
    "evicted",
    "flush",
    "credit",
    "failure",
    "end",
]
"""Why a window was emitted.

- "size": it held as many items as it may; "weight": the next item would have made it too heavy;
  "marker": an item has closed it.
- "time": its time had passed; "gap": no item came for a session.
- "watermark": event time had passed its end; "late": an item came for it after that.
- "evicted": another key needed its place.
- "flush": ``flush_on`` asked for it; "credit": a source asked for it that can deliver nothing more
  until what it has delivered is acknowledged, or that gives up partitions.
- "failure": a failure came after it, or the source raised an exception; "end": the source ended, or
  was drained.
"""


class WindowEmitted(Record, frozen=True, kw_only=True):
    """A window was emitted.

    Attributes:
        pipeline: The name of the pipeline; empty if the stream has none.
        stage: The name of the stage: the operator, with a number if the stream has several.
        operator: The operator, such as "chunks_or_timeout".
        size: The number of items.
        weight: What they weigh together, in `chunks_by_weight`; else ``None``.
        reason: Why it was emitted.
        age: Seconds since its first item came; ``None`` in `sliding` and `event_windows`.
        at: The time in seconds, on the loop's clock.

    >>> WindowEmitted(
    ...     pipeline="shop", stage="chunks_or_timeout", operator="chunks_or_timeout",
    ...     size=17, reason="time", age=2.0, at=9.0,
    ... ).reason
    'time'
    """

    pipeline: str
    stage: str
    operator: str
    size: int
    weight: float | None = None
    reason: WindowReason
    age: float | None
    at: float


class WatermarkAdvanced(Record, frozen=True, kw_only=True):
    """The watermark of `event_windows` has passed the end of a window.

    Attributes:
        pipeline: The name of the pipeline; empty if the stream has none.
        stage: The name of the stage.
        watermark: The watermark, in seconds of event time; infinity at the end of the source.
        at: The time in seconds, on the loop's clock.

    >>> WatermarkAdvanced(pipeline="shop", stage="event_windows", watermark=60.0, at=9.0).watermark
    60.0
    """

    pipeline: str
    stage: str
    watermark: float
    at: float


class LateItems(Record, frozen=True, kw_only=True):
    """Items came after the watermark had passed the end of their window.

    It is reported with the next `WatermarkAdvanced`, and at the end.

    Attributes:
        pipeline: The name of the pipeline; empty if the stream has none.
        stage: The name of the stage.
        count: How many came since the last event of this kind.
        at: The time in seconds, on the loop's clock.

    >>> LateItems(pipeline="shop", stage="event_windows", count=3, at=9.0).count
    3
    """

    pipeline: str
    stage: str
    count: int
    at: float


class ItemsDropped(Record, frozen=True, kw_only=True):
    """A branch of a broadcast did not get items, as it is slow: see ``overflow="drop_oldest"``.

    It is reported when the branch is read again, or leaves.

    Attributes:
        pipeline: The name of the pipeline; empty if the stream has none.
        stage: The name of the stage.
        branch: The place of the branch, from 0.
        count: How many items it did not get, one after the other.
        at: The time in seconds, on the loop's clock.

    >>> ItemsDropped(pipeline="shop", stage="broadcast", branch=1, count=3, at=9.0).count
    3
    """

    pipeline: str
    stage: str
    branch: int
    count: int
    at: float


StreamEvent: TypeAlias = WindowEmitted | Backpressure | WatermarkAdvanced | LateItems | ItemsDropped
"""Events of the stages of a stream."""
