"""Every operator in the form that stands behind ``|``, for chains of named functions.

``source | pipe.bind_result(validate) | pipe.chunks_or_timeout(500, 2.0)``: what the operators of
`returns_pipeline.results`, `returns_pipeline.windows` and `returns_pipeline.combine` do to a
source, as a function of it.

A window piped onto a stream of Results windows the *Results*, failures among them; the method of
`ResultStream` windows the values. Type checkers read the right side of ``|`` before they see the
left, so a lambda's argument stays unknown here: give a named function, or use the methods.

>>> from aiostream import stream
>>> from returns.result import Failure, Result, Success
>>> from returns_pipeline import ResultStream, pipe
>>> from returns_pipeline.testing import run
>>> def half(n: int) -> Result[int, str]:
...     return Failure(f"{n} is odd") if n % 2 else Success(n // 2)
>>> halves = ResultStream.of(stream.range(3)) | pipe.bind_result(half)
>>> run(halves.partition())
<IO: ([0, 1], ['1 is odd'])>
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, overload

from returns_pipeline import combine, windows
from returns_pipeline._engine.fan_in import BUFFER
from returns_pipeline._engine.operator import NO_SOURCE
from returns_pipeline.combine._broadcast import SPLIT_BUFFER
from returns_pipeline.result_stream import ResultStream

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterable, Awaitable, Callable

    from aiostream import Stream
    from returns.future import FutureResult
    from returns.result import Result

    from returns_pipeline.context import StepContext

__all__ = [
    "alt",
    "attempt",
    "attempt_async",
    "bimap",
    "bind_async_result",
    "bind_future_result",
    "bind_result",
    "bind_step",
    "broadcast",
    "chunks_by_weight",
    "chunks_or_timeout",
    "concat",
    "debounce",
    "distinct_until_changed",
    "drain_on",
    "ensure",
    "event_windows",
    "failures",
    "filter_result",
    "flat_map",
    "keyed_chunks",
    "lash",
    "lash_async",
    "map_async",
    "map_result",
    "merge",
    "prefetch",
    "route",
    "scan",
    "sessions",
    "sliding",
    "split",
    "successes",
    "take_until",
    "tap",
    "tap_async",
    "tap_failure",
    "tap_failure_async",
    "throttle",
    "zip_results",
]

A = TypeVar("A")
B = TypeVar("B")
E = TypeVar("E")
F = TypeVar("F")
X1 = TypeVar("X1", bound=Exception)
X2 = TypeVar("X2", bound=Exception)
X3 = TypeVar("X3", bound=Exception)
X4 = TypeVar("X4", bound=Exception)
S = TypeVar("S")

# What a step is tried on, so that a bad argument is refused before the source has come.
_NOTHING: Final[ResultStream[Any, Any]] = ResultStream.from_results(NO_SOURCE)

chunks_by_weight: Final = windows.chunks_by_weight.pipe
chunks_or_timeout: Final = windows.chunks_or_timeout.pipe
event_windows: Final = windows.event_windows.pipe
keyed_chunks: Final = windows.keyed_chunks.pipe
sessions: Final = windows.sessions.pipe
sliding: Final = windows.sliding.pipe
concat: Final = combine.concat.pipe
debounce: Final = combine.debounce.pipe
distinct_until_changed: Final = combine.distinct_until_changed.pipe
merge: Final = combine.merge.pipe
prefetch: Final = combine.prefetch.pipe
route: Final = combine.route.pipe
scan: Final = combine.scan.pipe
take_until: Final = combine.take_until.pipe
throttle: Final = combine.throttle.pipe
zip_results: Final = combine.zip_results.pipe


def broadcast(
    n: int,
    *,
    buffer: int = BUFFER,
    overflow: Literal["backpressure", "drop_oldest", "fail"] = "backpressure",
    on_drop: Callable[[int, int], object] | None = None,
) -> Callable[[AsyncIterable[A]], tuple[combine.Branch[A], ...]]:
    """Give every item of the source to each of ``n`` branches."""
    _ = combine.broadcast(NO_SOURCE, n, buffer=buffer, overflow=overflow, on_drop=on_drop)
    return lambda source: combine.broadcast(
        source, n, buffer=buffer, overflow=overflow, on_drop=on_drop
    )


def split(
    predicate: Callable[[A], object],
    *,
    buffer: int = SPLIT_BUFFER,
    overflow: Literal["backpressure", "fail"] = "backpressure",
) -> Callable[[AsyncIterable[A]], tuple[combine.Branch[A], combine.Branch[A]]]:
    """Give the items for which ``predicate`` is true to one branch, the others to another."""
    _ = combine.split(NO_SOURCE, predicate, buffer=buffer, overflow=overflow)
    return lambda source: combine.split(source, predicate, buffer=buffer, overflow=overflow)


def map_result(
    func: Callable[[A], B], /
) -> Callable[[AsyncIterable[Result[A, E]]], ResultStream[B, E]]:
    """Replace each value by ``func`` of it."""
    return _behind(lambda source: source.map(func))


def filter_result(
    predicate: Callable[[A], object], /
) -> Callable[[AsyncIterable[Result[A, E]]], ResultStream[A, E]]:
    """Keep the values for which ``predicate`` is true, and every failure."""
    return _behind(lambda source: source.filter(predicate))


def bind_result(
    func: Callable[[A], Result[B, F]], /
) -> Callable[[AsyncIterable[Result[A, E]]], ResultStream[B, E | F]]:
    """Replace each value by the Result that ``func`` gives for it."""
    return _behind(lambda source: source.bind(func))


def bind_async_result(
    func: Callable[[A], FutureResult[B, F] | Awaitable[Result[B, F]]],
    /,
    *,
    concurrency: int = 1,
    ordered: bool = True,
) -> Callable[[AsyncIterable[Result[A, E]]], ResultStream[B, E | F]]:
    """Replace each value by the Result that ``func`` of it gives when awaited."""
    return _behind(lambda source: source.bind_async(func, concurrency=concurrency, ordered=ordered))


def bind_future_result(
    func: Callable[[A], FutureResult[B, F]], /, *, concurrency: int = 1, ordered: bool = True
) -> Callable[[AsyncIterable[Result[A, E]]], ResultStream[B, E | F]]:
    """Do as `bind_async_result`, for functions that give a `FutureResult`."""
    return _behind(
        lambda source: source.bind_future_result(func, concurrency=concurrency, ordered=ordered)
    )


def bind_step(
    func: Callable[[A, StepContext], FutureResult[B, F] | Awaitable[Result[B, F]]],
    /,
    ctx: StepContext,
    *,
    concurrency: int = 1,
    ordered: bool = True,
    hold: bool = False,
) -> Callable[[AsyncIterable[Result[A, E]]], ResultStream[B, E | F]]:
    """Replace each value by what a step makes of it, in a context of the step's own."""
    return _behind(
        lambda source: source.bind_step(
            func, ctx, concurrency=concurrency, ordered=ordered, hold=hold
        )
    )


def map_async(
    func: Callable[[A], Awaitable[B]], /, *, concurrency: int = 1, ordered: bool = True
) -> Callable[[AsyncIterable[Result[A, E]]], ResultStream[B, E]]:
    """Replace each value by what ``func`` of it gives when awaited."""
    return _behind(lambda source: source.map_async(func, concurrency=concurrency, ordered=ordered))


@overload
def attempt(
    func: Callable[[A], B], x1: type[X1], /
) -> Callable[[AsyncIterable[Result[A, E]]], ResultStream[B, E | X1]]: ...


@overload
def attempt(
    func: Callable[[A], B], x1: type[X1], x2: type[X2], /
) -> Callable[[AsyncIterable[Result[A, E]]], ResultStream[B, E | X1 | X2]]: ...


@overload
def attempt(
    func: Callable[[A], B], x1: type[X1], x2: type[X2], x3: type[X3], /
) -> Callable[[AsyncIterable[Result[A, E]]], ResultStream[B, E | X1 | X2 | X3]]: ...


@overload
def attempt(
    func: Callable[[A], B], x1: type[X1], x2: type[X2], x3: type[X3], /, *more: type[X4]
) -> Callable[[AsyncIterable[Result[A, E]]], ResultStream[B, E | X1 | X2 | X3 | X4]]: ...


def attempt(
    func: Callable[[A], B], /, *exceptions: type[Exception]
) -> Callable[[AsyncIterable[Result[A, Any]]], ResultStream[B, Any]]:
    """Replace each value by ``func`` of it; a listed exception becomes the failure."""
    return _behind(lambda source: source.attempt(func, *exceptions))


@overload
def attempt_async(
    func: Callable[[A], Awaitable[B]],
    x1: type[X1],
    /,
    *,
    concurrency: int = 1,
    ordered: bool = True,
) -> Callable[[AsyncIterable[Result[A, E]]], ResultStream[B, E | X1]]: ...


@overload
def attempt_async(
    func: Callable[[A], Awaitable[B]],
    x1: type[X1],
    x2: type[X2],
    /,
    *,
    concurrency: int = 1,
    ordered: bool = True,
) -> Callable[[AsyncIterable[Result[A, E]]], ResultStream[B, E | X1 | X2]]: ...


@overload
def attempt_async(
    func: Callable[[A], Awaitable[B]],
    x1: type[X1],
    x2: type[X2],
    x3: type[X3],
    /,
    *,
    concurrency: int = 1,
    ordered: bool = True,
) -> Callable[[AsyncIterable[Result[A, E]]], ResultStream[B, E | X1 | X2 | X3]]: ...


@overload
def attempt_async(
    func: Callable[[A], Awaitable[B]],
    x1: type[X1],
    x2: type[X2],
    x3: type[X3],
    /,
    *more: type[X4],
    concurrency: int = 1,
    ordered: bool = True,
) -> Callable[[AsyncIterable[Result[A, E]]], ResultStream[B, E | X1 | X2 | X3 | X4]]: ...


def attempt_async(
    func: Callable[[A], Awaitable[B]],
    /,
    *exceptions: type[Exception],
    concurrency: int = 1,
    ordered: bool = True,
) -> Callable[[AsyncIterable[Result[A, Any]]], ResultStream[B, Any]]:
    """Do as `attempt`, awaiting ``func``."""
    return _behind(
        lambda source: source.attempt_async(
            func, *exceptions, concurrency=concurrency, ordered=ordered
        )
    )


def flat_map(
    func: Callable[[A], AsyncIterable[Result[B, F]]], /, *, concurrency: int = 1
) -> Callable[[AsyncIterable[Result[A, E]]], ResultStream[B, E | F]]:
    """Replace each value by the items of the stream that ``func`` gives for it."""
    return _behind(lambda source: source.flat_map(func, concurrency=concurrency))


def ensure(
    predicate: Callable[[A], object], /, error: Callable[[A], F]
) -> Callable[[AsyncIterable[Result[A, E]]], ResultStream[A, E | F]]:
    """Turn the values for which ``predicate`` is false into a failure: ``error`` of them."""
    return _behind(lambda source: source.ensure(predicate, error))


def tap(
    func: Callable[[A], object], /
) -> Callable[[AsyncIterable[Result[A, E]]], ResultStream[A, E]]:
    """Call ``func`` with each value for its effect; the item is unchanged."""
    return _behind(lambda source: source.tap(func))


def tap_async(
    func: Callable[[A], Awaitable[object]], /, *, concurrency: int = 1, ordered: bool = True
) -> Callable[[AsyncIterable[Result[A, E]]], ResultStream[A, E]]:
    """Await ``func`` of each value for its effect; the item is unchanged."""
    return _behind(lambda source: source.tap_async(func, concurrency=concurrency, ordered=ordered))


def alt(func: Callable[[E], F], /) -> Callable[[AsyncIterable[Result[A, E]]], ResultStream[A, F]]:
    """Replace each error by ``func`` of it."""
    return _behind(lambda source: source.alt(func))


def bimap(
    func: Callable[[A], B], error: Callable[[E], F], /
) -> Callable[[AsyncIterable[Result[A, E]]], ResultStream[B, F]]:
    """Replace each value by ``func`` of it, and each error by ``error`` of it."""
    return _behind(lambda source: source.bimap(func, error))


def lash(
    func: Callable[[E], Result[B, F]], /
) -> Callable[[AsyncIterable[Result[A, E]]], ResultStream[A | B, F]]:
    """Replace each failure by the Result that ``func`` gives for its error."""
    return _behind(lambda source: source.lash(func))


def lash_async(
    func: Callable[[E], FutureResult[B, F] | Awaitable[Result[B, F]]],
    /,
    *,
    concurrency: int = 1,
    ordered: bool = True,
) -> Callable[[AsyncIterable[Result[A, E]]], ResultStream[A | B, F]]:
    """Do as `lash`, awaiting ``func``."""
    return _behind(lambda source: source.lash_async(func, concurrency=concurrency, ordered=ordered))


def tap_failure(
    func: Callable[[E], object], /
) -> Callable[[AsyncIterable[Result[A, E]]], ResultStream[A, E]]:
    """Call ``func`` with each error for its effect; the item is unchanged."""
    return _behind(lambda source: source.tap_failure(func))


def tap_failure_async(
    func: Callable[[E], Awaitable[object]], /, *, concurrency: int = 1, ordered: bool = True
) -> Callable[[AsyncIterable[Result[A, E]]], ResultStream[A, E]]:
    """Await ``func`` of each error for its effect; the item is unchanged."""
    return _behind(
        lambda source: source.tap_failure_async(func, concurrency=concurrency, ordered=ordered)
    )


def drain_on(
    stop: asyncio.Event,
) -> Callable[[AsyncIterable[Result[A, E]]], ResultStream[A, E]]:
    """End the stream when ``stop`` is set; what was read before comes out."""
    return _behind(lambda source: source.drain_on(stop))


def successes() -> Callable[[AsyncIterable[Result[A, Any]]], Stream[A]]:
    """Give the values alone; failures are left out."""
    return _behind(lambda source: source.successes())


def failures() -> Callable[[AsyncIterable[Result[Any, E]]], Stream[E]]:
    """Give the errors alone; values are left out."""
    return _behind(lambda source: source.failures())


def _behind(apply: Callable[[ResultStream[Any, Any]], S]) -> Callable[[AsyncIterable[Any]], S]:
    """Give a step the form that stands behind ``|``; refuse a bad argument right away."""
    _ = apply(_NOTHING)
    return lambda source: apply(ResultStream.from_results(source))
