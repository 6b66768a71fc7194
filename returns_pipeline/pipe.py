"""Every operator in the form that comes after ``|``, for chains of named functions.

``source | pipe.bind_result(validate) | pipe.chunks_or_timeout(500, 2.0)``: what the operators of
`returns_pipeline.results`, `returns_pipeline.windows` and `returns_pipeline.combine` do to a
source, as a function of it.

A window piped onto a stream of Results windows the *Results*, failures among them; the method of
`ResultStream` windows the values. Type checkers read the right side of ``|`` before they see the
left, so a lambda's argument stays unknown here: use a named function, or the methods.

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

import functools
import inspect
import re
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Any, Concatenate, Final, Literal, TypeVar, cast, overload

from returns.result import Result
from typing_extensions import ParamSpec, TypeIs

from returns_pipeline import combine, results, windows
from returns_pipeline._engine.fan_in import BUFFER, SPLIT_BUFFER
from returns_pipeline._engine.operator import NO_SOURCE
from returns_pipeline.result_stream import ResultStream

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
    "chunks_until",
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
    "progress",
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
    "tap_result",
    "tap_result_async",
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
P = ParamSpec("P")
S = TypeVar("S")
PipeT = TypeVar("PipeT", bound=Callable[..., Any])

# A step is tried on this, so that a bad argument is refused before the source has come.
_NOTHING: Final[ResultStream[Any, Any]] = ResultStream.from_results(NO_SOURCE)


def _piped(
    func: Callable[Concatenate[AsyncIterable[Result[A, E]], P], S],
) -> Callable[P, Callable[[AsyncIterable[Result[A, E]]], S]]:
    """Derive the form that comes after ``|`` from the source-first form of an operator."""
    source, *parameters = inspect.signature(func).parameters.values()

    @functools.wraps(func)
    def call(*args: P.args, **kwargs: P.kwargs) -> Callable[[AsyncIterable[Result[A, E]]], S]:
        _ = func(_NOTHING, *args, **kwargs)
        return lambda source: func(source, *args, **kwargs)

    call.__doc__ = _piped_doc(func)
    returned = f"Callable[[{source.annotation}], {func.__annotations__['return']}]"
    call.__signature__ = inspect.Signature(parameters, return_annotation=returned)  # type: ignore[attr-defined]
    call.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": returned}
    call.__module__ = __name__
    return call


def _piped_doc(func: Callable[..., object]) -> str:
    """Return the documentation of an operator, with its example in the piped form."""
    return _in_piped_form(inspect.getdoc(func) or "", "s")


def _in_piped_form(doc: str, source: str) -> str:
    call = r">>> done = (\w+)\(s(?:, )?(.*)\)$"
    doc = re.sub(call, rf">>> done = {source} | pipe.\1(\2)", doc, flags=re.MULTILINE)
    return doc.replace("\n\n>>> ", "\n\n>>> from returns_pipeline import pipe\n>>> ", 1)


def _named(pipe: PipeT) -> PipeT:
    """Return the piped form of an operator as a function with its name, and its documentation."""
    operator: Any = getattr(pipe, "__self__", None)

    @functools.wraps(pipe)
    def call(*args: Any, **kwargs: Any) -> Any:
        return pipe(*args, **kwargs)

    doc = inspect.getdoc(operator) or ""
    doc = re.sub(r"^    source: .*\n(?:     +.*\n)*", "", doc, flags=re.MULTILINE)
    doc = re.sub(
        r"^    sources: .*\n(?:     +.*\n)*",
        "    more: Sources, besides the one before ``|``.\n",
        doc,
        flags=re.MULTILINE,
    )
    returned = "Returns:\n    A function of the source, for ``|``. It returns a "
    doc = doc.replace("Returns:\n    A ", returned)
    doc = _in_piped_form(doc, "stream.iterate(s)")
    call.__doc__ = doc.replace(">>> from ", ">>> from aiostream import stream\n>>> from ", 1)
    call.__name__ = call.__qualname__ = operator.__name__
    call.__module__ = __name__
    return cast("PipeT", call)


chunks_by_weight: Final = _named(windows.chunks_by_weight.pipe)
chunks_or_timeout: Final = _named(windows.chunks_or_timeout.pipe)
chunks_until: Final = _named(windows.chunks_until.pipe)
event_windows: Final = _named(windows.event_windows.pipe)
keyed_chunks: Final = _named(windows.keyed_chunks.pipe)
sessions: Final = _named(windows.sessions.pipe)
sliding: Final = _named(windows.sliding.pipe)
concat: Final = _named(combine.concat.pipe)
debounce: Final = _named(combine.debounce.pipe)
distinct_until_changed: Final = _named(combine.distinct_until_changed.pipe)
merge: Final = _named(combine.merge.pipe)
prefetch: Final = _named(combine.prefetch.pipe)
route: Final = _named(combine.route.pipe)
scan: Final = _named(combine.scan.pipe)
take_until: Final = _named(combine.take_until.pipe)
throttle: Final = _named(combine.throttle.pipe)
zip_results: Final = _named(combine.zip_results.pipe)


def broadcast(
    n: int,
    *,
    buffer: int = BUFFER,
    overflow: Literal["backpressure", "drop_oldest", "fail"] = "backpressure",
    on_drop: Callable[[int, int], object] | None = None,
    replay: int = 0,
) -> Callable[[AsyncIterable[A]], tuple[combine.Branch[A], ...]]:
    """Copy every item of the source to each of ``n`` branches.

    >>> from returns_pipeline import pipe
    >>> from returns_pipeline.sources import from_iterable
    >>> left, right = from_iterable([1, 2]) | pipe.broadcast(2)
    >>> left.place, right.place
    (0, 1)
    """
    _ = combine.broadcast(
        NO_SOURCE, n, buffer=buffer, overflow=overflow, on_drop=on_drop, replay=replay
    )
    return lambda source: combine.broadcast(
        source, n, buffer=buffer, overflow=overflow, on_drop=on_drop, replay=replay
    )


def split(
    predicate: Callable[[A], bool],
    *,
    buffer: int = SPLIT_BUFFER,
    overflow: Literal["backpressure", "fail"] = "backpressure",
) -> Callable[[AsyncIterable[A]], tuple[combine.Branch[A], combine.Branch[A]]]:
    """Send the items for which ``predicate`` is true to one branch, the others to another.

    >>> from returns_pipeline import pipe
    >>> from returns_pipeline.sources import from_iterable
    >>> from returns_pipeline.testing import run, timeline
    >>> nothing, other = from_iterable([0, 1]) | pipe.split(lambda n: n == 0)
    >>> run(timeline(other))
    [(0.0, 1)]
    """
    _ = combine.split(NO_SOURCE, predicate, buffer=buffer, overflow=overflow)
    return lambda source: combine.split(source, predicate, buffer=buffer, overflow=overflow)


alt: Final = _piped(results.alt)
bimap: Final = _piped(results.bimap)
bind_async_result: Final = _piped(results.bind_async_result)
bind_future_result: Final = _piped(results.bind_future_result)
bind_result: Final = _piped(results.bind_result)
bind_step: Final = _piped(results.bind_step)
drain_on: Final = _piped(results.drain_on)
failures: Final = _piped(results.failures)
flat_map: Final = _piped(results.flat_map)
lash: Final = _piped(results.lash)
lash_async: Final = _piped(results.lash_async)
map_async: Final = _piped(results.map_async)
map_result: Final = _piped(results.map_result)
progress: Final = _piped(results.progress)
successes: Final = _piped(results.successes)
tap_async: Final = _piped(results.tap_async)
tap_failure_async: Final = _piped(results.tap_failure_async)
tap_result: Final = _piped(results.tap_result)
tap_result_async: Final = _piped(results.tap_result_async)


# Spelled out, because `_piped` keeps only the first overload.
_ensure: Final[Callable[..., Callable[[AsyncIterable[Any]], Any]]] = _piped(results.ensure)
_filter: Final[Callable[..., Callable[[AsyncIterable[Any]], Any]]] = _piped(results.filter_result)
_tap: Final[Callable[..., Callable[[AsyncIterable[Any]], Any]]] = _piped(results.tap)
_tap_failure: Final[Callable[..., Callable[[AsyncIterable[Any]], Any]]] = _piped(
    results.tap_failure
)
_attempt: Final[Callable[..., Callable[[AsyncIterable[Any]], Any]]] = _piped(results.attempt)
_attempt_async: Final[Callable[..., Callable[[AsyncIterable[Any]], Any]]] = _piped(
    results.attempt_async
)


# Mypy names the first overload when none fits: not the narrowing one, which few have in mind.
@overload
def filter_result(
    predicate: Callable[[A], Literal[True]], /
) -> Callable[[AsyncIterable[Result[A, E]]], ResultStream[A, E]]: ...


@overload
def filter_result(
    predicate: Callable[[A], TypeIs[B]], /
) -> Callable[[AsyncIterable[Result[A, E]]], ResultStream[B, E]]: ...


@overload
def filter_result(
    predicate: Callable[[A], bool], /
) -> Callable[[AsyncIterable[Result[A, E]]], ResultStream[A, E]]: ...


def filter_result(
    predicate: Callable[[A], bool], /
) -> Callable[[AsyncIterable[Result[A, Any]]], ResultStream[Any, Any]]:
    """Keep the values for which ``predicate`` is true, and every failure."""
    return _filter(predicate)


@overload
def ensure(
    predicate: Callable[[A], Literal[True]], /, error: Callable[[A], F]
) -> Callable[[AsyncIterable[Result[A, E]]], ResultStream[A, E | F]]: ...


@overload
def ensure(
    predicate: Callable[[A], TypeIs[B]], /, error: Callable[[A], F]
) -> Callable[[AsyncIterable[Result[A, E]]], ResultStream[B, E | F]]: ...


@overload
def ensure(
    predicate: Callable[[A], bool], /, error: Callable[[A], F]
) -> Callable[[AsyncIterable[Result[A, E]]], ResultStream[A, E | F]]: ...


def ensure(
    predicate: Callable[[A], bool], /, error: Callable[[A], F]
) -> Callable[[AsyncIterable[Result[A, Any]]], ResultStream[Any, Any]]:
    """Turn the values for which ``predicate`` is false into a failure: ``error`` of them."""
    return _ensure(predicate, error)


# A function of any object, such as `print`, says nothing about the values: the source does.


@overload
def tap(
    func: Callable[[object], object], /
) -> Callable[[AsyncIterable[Result[A, E]]], ResultStream[A, E]]: ...


@overload
def tap(
    func: Callable[[A], object], /
) -> Callable[[AsyncIterable[Result[A, E]]], ResultStream[A, E]]: ...


def tap(
    func: Callable[[Any], object], /
) -> Callable[[AsyncIterable[Result[Any, Any]]], ResultStream[Any, Any]]:
    """Call ``func`` with each value for its effect; the item is unchanged."""
    return _tap(func)


@overload
def tap_failure(
    func: Callable[[object], object], /
) -> Callable[[AsyncIterable[Result[A, E]]], ResultStream[A, E]]: ...


@overload
def tap_failure(
    func: Callable[[E], object], /
) -> Callable[[AsyncIterable[Result[A, E]]], ResultStream[A, E]]: ...


def tap_failure(
    func: Callable[[Any], object], /
) -> Callable[[AsyncIterable[Result[Any, Any]]], ResultStream[Any, Any]]:
    """Call ``func`` with each error for its effect; the item is unchanged."""
    return _tap_failure(func)


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
    return _attempt(func, *exceptions)


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
    return _attempt_async(func, *exceptions, concurrency=concurrency, ordered=ordered)


for _operator in (attempt, attempt_async, ensure, filter_result, tap, tap_failure):
    _operator.__doc__ = _piped_doc(getattr(results, _operator.__name__))
