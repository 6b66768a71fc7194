"""Typed functional streams: errors as values, windows by time or count, compensation."""

from returns_pipeline import pipe, results
from returns_pipeline.errors import InvalidArgument, PipelineError, StreamEmpty
from returns_pipeline.outcomes import cases
from returns_pipeline.result_stream import FailedItems, ResultStream
from returns_pipeline.windows import chunks_or_timeout

__all__ = [
    "FailedItems",
    "InvalidArgument",
    "PipelineError",
    "ResultStream",
    "StreamEmpty",
    "cases",
    "chunks_or_timeout",
    "pipe",
    "results",
]
