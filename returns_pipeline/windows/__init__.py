"""Windows: operators that group the items of a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, TypeVar

from returns_pipeline._engine.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from returns_pipeline.windows import _assigners, _event_time, _flushing
    from returns_pipeline.windows._assigners import (
        SessionWindows,
        SlidingWindows,
        TumblingWindows,
    )
    from returns_pipeline.windows._chunks import chunks_or_timeout
    from returns_pipeline.windows._event_state import EventWindow
    from returns_pipeline.windows._event_time import event_windows
    from returns_pipeline.windows._keyed import keyed_chunks
    from returns_pipeline.windows._sessions import sessions
    from returns_pipeline.windows._sliding import sliding
    from returns_pipeline.windows._until import chunks_until
    from returns_pipeline.windows._weight import chunks_by_weight

    T = TypeVar("T")

    # Assigned, for a docstring here: documentation tools look for it where users import the name.
    Assigner: TypeAlias = _assigners.Assigner
    """Decides which windows an item belongs to."""
    FlushOn: TypeAlias = _flushing.FlushOn
    """An event or a stream, which flushes windows each time that it is set or emits an item."""
    Late: TypeAlias = _event_time.Late[T]
    """A function, plain or asynchronous, or a queue, which gets the items that come too late."""

__all__ = [
    "Assigner",
    "EventWindow",
    "FlushOn",
    "Late",
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

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "_assigners": (
                "Assigner",
                "SessionWindows",
                "SlidingWindows",
                "TumblingWindows",
            ),
            "_chunks": ("chunks_or_timeout",),
            "_event_state": ("EventWindow",),
            "_event_time": ("Late", "event_windows"),
            "_flushing": ("FlushOn",),
            "_keyed": ("keyed_chunks",),
            "_sessions": ("sessions",),
            "_sliding": ("sliding",),
            "_until": ("chunks_until",),
            "_weight": ("chunks_by_weight",),
        },
    )
