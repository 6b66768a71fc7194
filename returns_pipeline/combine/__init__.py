"""Streams together: the operators that join, share, split or pace streams.

They read each source in one task of its own from its first item to its clean-up, hold a bounded
number of items (backpressure), lose nothing to a cancelled read, and never take a failed end for a
clean one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from returns_pipeline._engine.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from returns_pipeline.combine._broadcast import broadcast
    from returns_pipeline.combine._hub import Branch, BranchStatistics
    from returns_pipeline.combine._merge import concat, merge
    from returns_pipeline.combine._prioritized import merge_prioritized
    from returns_pipeline.combine._rate import debounce, throttle
    from returns_pipeline.combine._route import KeyFailed, route
    from returns_pipeline.combine._select import TimedOut, select
    from returns_pipeline.combine._split import split
    from returns_pipeline.combine._transform import (
        distinct_until_changed,
        prefetch,
        scan,
        take_until,
    )
    from returns_pipeline.combine._zip import zip_results

__all__ = [
    "Branch",
    "BranchStatistics",
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

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "_broadcast": ("broadcast",),
            "_hub": (
                "Branch",
                "BranchStatistics",
            ),
            "_merge": (
                "concat",
                "merge",
            ),
            "_prioritized": ("merge_prioritized",),
            "_rate": (
                "debounce",
                "throttle",
            ),
            "_route": (
                "KeyFailed",
                "route",
            ),
            "_select": (
                "TimedOut",
                "select",
            ),
            "_split": ("split",),
            "_transform": (
                "distinct_until_changed",
                "prefetch",
                "scan",
                "take_until",
            ),
            "_zip": ("zip_results",),
        },
    )
