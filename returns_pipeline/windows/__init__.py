"""Windows: operators that group the items of a stream."""

from returns_pipeline.windows._chunks import chunks_or_timeout
from returns_pipeline.windows._event_time import (
    Assigner,
    EventWindow,
    SessionWindows,
    SlidingWindows,
    TumblingWindows,
    event_windows,
)
from returns_pipeline.windows._keyed import keyed_chunks, sessions
from returns_pipeline.windows._weight import chunks_by_weight, sliding

__all__ = [
    "Assigner",
    "EventWindow",
    "SessionWindows",
    "SlidingWindows",
    "TumblingWindows",
    "chunks_by_weight",
    "chunks_or_timeout",
    "event_windows",
    "keyed_chunks",
    "sessions",
    "sliding",
]
