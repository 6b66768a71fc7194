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
- `returns_pipeline.journal`: undo actions that survive a crash; ``recover()``.
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

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from returns_pipeline import combine, pipe, results, sources
    from returns_pipeline._engine.future_results import cases, err, ok, to_result
    from returns_pipeline._engine.item_errors import with_item
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

    __version__: str

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


# Each name is imported when it is first used: tools that need one module of the package, such as
# mypy with its plugin, load no other. Checkers and editors read the imports above.
_NAMES = {
    "_engine.future_results": (
        "cases",
        "err",
        "ok",
        "to_result",
    ),
    "_engine.item_errors": ("with_item",),
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
    "result_stream": (
        "Counts",
        "FailedItems",
        "ResultStream",
    ),
    "retry": ("RetryPolicy",),
    "saga": ("Saga",),
    "windows": (
        "chunks_by_weight",
        "chunks_or_timeout",
        "keyed_chunks",
        "sessions",
        "sliding",
    ),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value: Any = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    elif name in __all__:
        value = import_module(f"{__name__}.{name}")
    elif name == "__version__":
        value = import_module("importlib.metadata").version("returns-pipeline")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, "__version__", *(name for name in globals() if name.startswith("__"))})
