"""Typed functional streams: errors as values, windows by time or count, compensation.

Where to look:

- `ResultStream`: a stream of Results. ``ResultStream.of(source)`` makes one; steps make others of
  it (``map``, ``bind``, ``bind_async``, ``bind_step``, ``filter``, ``tap``, ``chunks_or_timeout``,
  ...); a terminal ends it (``collect``, ``for_each``, ``run_all``, ...).
- `to_result`, `cases`, `ok`, `err`, `with_item`: Results that are made, awaited, matched exactly.
- `sources`: where streams come from: iterables, queues, callbacks, threads, clocks.
- `returns_pipeline.windows`: items grouped by count, time, weight, key, silence, event time.
- `combine`: several streams to one, one to several.
- `results`, `pipe`: the operators as functions of the source, and for ``source | ...``.
- `StepContext`, `CompensationScope`, `CompensationRegistry`, `Saga`: steps that are undone if a
  later one fails.
- `returns_pipeline.inspection`: streams drawn before they are read: ``stream.diagram()``; and what
  they hold now: ``stream.statistics()``.
- `returns_pipeline.journal`: undo actions that survive a crash; ``recover()``.
- `returns_pipeline.connectors`: messages of brokers, acknowledged when they have been handled.
- `returns_pipeline.worker`: a process around a pipeline: recovers, consumes, drains on SIGTERM.
- `returns_pipeline.policies`: retry, timeout, race, hedge, fallback, limits, circuit breaker.
- `returns_pipeline.errors`: the tree of errors.
- `returns_pipeline.telemetry`: observers of steps.
- `returns_pipeline.testing`: virtual time, scripted sources, faults on demand.
- `returns_pipeline.mypy_plugin`: no failure is dropped.

>>> from returns_pipeline import ResultStream, to_result
>>> from returns_pipeline.testing import run
>>> async def texts():
...     for text in ["1", "2", "three"]:
...         yield text
>>> run(to_result(ResultStream.of(texts()).attempt(int, ValueError).alt(type).collect_all()))
<Failure: FailedItems(successes=[1, 2], errors=[<class 'ValueError'>])>
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from returns_pipeline._engine.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from returns_pipeline import combine, pipe, results, sources
    from returns_pipeline._engine.future_results import cases, err, ok, to_result
    from returns_pipeline._engine.item_errors import with_item
    from returns_pipeline._engine.version import __version__ as __version__
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
        ItemError,
        PipelineError,
        ScopeClosed,
        StepTimeout,
        StreamEmpty,
    )
    from returns_pipeline.result_stream import Counts, FailedItems, ResultStream
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
    "Counts",
    "FailedItems",
    "InvalidArgument",
    "ItemError",
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
    "err",
    "keyed_chunks",
    "ok",
    "pipe",
    "results",
    "sessions",
    "sliding",
    "sources",
    "to_result",
    "with_item",
]


# Tools that need one module of the package, such as mypy with its plugin, load no other.
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "_engine.future_results": ("cases", "err", "ok", "to_result"),
            "_engine.item_errors": ("with_item",),
            "_engine.version": ("__version__",),
            "compensation": (
                "Compensation",
                "CompensationRegistry",
                "CompensationReport",
                "CompensationScope",
                "current_key",
            ),
            "context": ("StepContext",),
            "errors": (
                "CompensationFailed",
                "InvalidArgument",
                "ItemError",
                "PipelineError",
                "ScopeClosed",
                "StepTimeout",
                "StreamEmpty",
            ),
            "result_stream": ("Counts", "FailedItems", "ResultStream"),
            "retry": ("RetryPolicy",),
            "saga": ("Saga",),
            "windows": (
                "chunks_by_weight",
                "chunks_or_timeout",
                "keyed_chunks",
                "sessions",
                "sliding",
            ),
            "combine": (),
            "pipe": (),
            "results": (),
            "sources": (),
        },
    )
