"""Windows: operators that group the items of a stream."""

from returns_pipeline.windows._assigners import (
    Assigner,
    SessionWindows,
    SlidingWindows,
    TumblingWindows,
)
from returns_pipeline.windows._chunks import chunks_or_timeout
from returns_pipeline.windows._event_state import EventWindow
from returns_pipeline.windows._event_time import event_windows
from returns_pipeline.windows._flushing import FlushOn
from returns_pipeline.windows._keyed import keyed_chunks
from returns_pipeline.windows._sessions import sessions
from returns_pipeline.windows._sliding import sliding
from returns_pipeline.windows._until import chunks_until
from returns_pipeline.windows._weight import chunks_by_weight

__all__ = [
    "Assigner",
    "EventWindow",
    "FlushOn",
    "SessionWindows",
    "SlidingWindows",
    "TumblingWindows",
    "chunks_by_weight",
    "chunks_or_timeout",
    "chunks_until",
    "event_windows",
    "keyed_chunks",
    "sessions",
    "sliding",
]
