"""Streams together: the operators that join, share, split or pace streams.

They read each source in one task of its own from its first item to its clean-up, hold a bounded
number of items (backpressure), lose nothing to a cancelled read, and never take a failed end for a
clean one.
"""

from __future__ import annotations

from returns_pipeline.combine._broadcast import Branch, broadcast
from returns_pipeline.combine._merge import concat, merge
from returns_pipeline.combine._prioritized import merge_prioritized
from returns_pipeline.combine._rate import debounce, throttle
from returns_pipeline.combine._route import KeyFailed, route
from returns_pipeline.combine._select import TimedOut, select
from returns_pipeline.combine._split import split
from returns_pipeline.combine._transform import distinct_until_changed, prefetch, scan, take_until
from returns_pipeline.combine._zip import zip_results

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
