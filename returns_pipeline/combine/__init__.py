"""Streams together: the public home of the operators that join, share, split or pace streams.

They read each source in one task of its own for its whole life, hold a bounded number of items,
lose nothing to a cancelled read, and tell a failed end from a clean one.
"""

from __future__ import annotations

from returns_pipeline.combine._broadcast import Branch, broadcast, split
from returns_pipeline.combine._merge import (
    TimedOut,
    concat,
    merge,
    merge_prioritized,
    select,
    zip_results,
)
from returns_pipeline.combine._rate import debounce, throttle
from returns_pipeline.combine._route import KeyFailed, route
from returns_pipeline.combine._transform import distinct_until_changed, prefetch, scan, take_until

__all__ = [
    "Branch",
    "KeyFailed",
    "TimedOut",
    "broadcast",
    "concat",
    "debounce",
    "distinct_until_changed",
    "merge",
    "merge_prioritized",
    "prefetch",
    "route",
    "scan",
    "select",
    "split",
    "take_until",
    "throttle",
    "zip_results",
]
