"""Typed result streams: time-or-count windows, errors as values, compensation never forgotten."""

from returns_pipeline.errors import InvalidArgument, PipelineError, StreamEmpty
from returns_pipeline.windows import chunks_or_timeout

__all__ = ["InvalidArgument", "PipelineError", "StreamEmpty", "chunks_or_timeout"]
