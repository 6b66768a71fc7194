"""What a stream is made of: drawings of its operators, its tasks, and the types of its failures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from returns_pipeline._engine.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from returns_pipeline.inspection._diagram import Diagram, diagram
    from returns_pipeline.inspection._statistics import (
        OperatorStatistics,
        StreamStatistics,
        statistics,
    )

__all__ = ["Diagram", "OperatorStatistics", "StreamStatistics", "diagram", "statistics"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "_diagram": ("Diagram", "diagram"),
            "_statistics": ("OperatorStatistics", "StreamStatistics", "statistics"),
        },
    )
