"""Typed functional streams: errors as values, windows by time or count, compensation."""

from returns_pipeline import combine, pipe, results
from returns_pipeline._engine.future_results import cases, to_result
from returns_pipeline.compensation import (
    Compensation,
    CompensationRegistry,
    CompensationReport,
    CompensationScope,
    current_key,
)
from returns_pipeline.context import StepContext
from returns_pipeline.errors import (
    CompensationFailed,
    InvalidArgument,
    PipelineError,
    ScopeClosed,
    StepTimeout,
    StreamEmpty,
)
from returns_pipeline.result_stream import FailedItems, ResultStream
from returns_pipeline.retry import RetryPolicy
from returns_pipeline.saga import Saga
from returns_pipeline.windows import (
    chunks_by_weight,
    chunks_or_timeout,
    keyed_chunks,
    sessions,
    sliding,
)

__all__ = [
    "Compensation",
    "CompensationFailed",
    "CompensationRegistry",
    "CompensationReport",
    "CompensationScope",
    "FailedItems",
    "InvalidArgument",
    "PipelineError",
    "ResultStream",
    "RetryPolicy",
    "Saga",
    "ScopeClosed",
    "StepContext",
    "StepTimeout",
    "StreamEmpty",
    "cases",
    "chunks_by_weight",
    "chunks_or_timeout",
    "combine",
    "current_key",
    "keyed_chunks",
    "pipe",
    "results",
    "sessions",
    "sliding",
    "to_result",
]
