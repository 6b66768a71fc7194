"""Operators on streams of Results, source first: for chains of named functions.

Each is the method of `ResultStream` of the same name, applied to any async iterable of Results; the
promises are in the methods' docstrings. The suffix ``_result`` avoids the name of a builtin or of a
function of aiostream.

>>> from aiostream import stream
>>> from returns_pipeline import ResultStream
>>> from returns.result import Failure, Result, Success
>>> from returns_pipeline.testing import run
>>> def half(n: int) -> Result[int, str]:
...     return Failure(f"{n} is odd") if n % 2 else Success(n // 2)
>>> halves = bind_result(ResultStream.of(stream.range(3)), half)
>>> run(halves.partition())
<IO: ([0, 1], ['1 is odd'])>
"""

from __future__ import annotations

from returns_pipeline.results._attempts import attempt, attempt_async
from returns_pipeline.results._failures import (
    alt,
    bimap,
    failures,
    lash,
    lash_async,
    successes,
    tap_failure,
    tap_failure_async,
)
from returns_pipeline.results._values import (
    bind_async_result,
    bind_future_result,
    bind_result,
    bind_step,
    drain_on,
    ensure,
    filter_result,
    flat_map,
    map_async,
    map_result,
    progress,
    tap,
    tap_async,
    tap_result,
    tap_result_async,
)

__all__ = [
    "alt",
    "attempt",
    "attempt_async",
    "bimap",
    "bind_async_result",
    "bind_future_result",
    "bind_result",
    "bind_step",
    "drain_on",
    "ensure",
    "failures",
    "filter_result",
    "flat_map",
    "lash",
    "lash_async",
    "map_async",
    "map_result",
    "progress",
    "successes",
    "tap",
    "tap_async",
    "tap_failure",
    "tap_failure_async",
    "tap_result",
    "tap_result_async",
]
