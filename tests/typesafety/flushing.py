# mypy: disable-error-code="unused-awaitable"
"""Never run. What mypy and pyright infer for windows that are flushed, and late branches."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, assert_type

from aiostream import Stream

from returns_pipeline import ResultStream, combine, pipe
from returns_pipeline.windows import (
    EventWindow,
    FlushOn,
    TumblingWindows,
    chunks_by_weight,
    chunks_or_timeout,
    chunks_until,
    event_windows,
    keyed_chunks,
    sessions,
    sliding,
)

if TYPE_CHECKING:
    import asyncio


def is_last(text: str) -> bool:
    return text.endswith(";")


def size(text: str) -> float:
    return float(len(text))


async def not_awaited(text: str) -> bool:
    return bool(text)


def signals(event: asyncio.Event, ticks: Stream[int], texts: Stream[str], number: int) -> None:
    """A signal is an event or any stream; what it emits does not matter."""
    signal: FlushOn = event
    signal = ticks
    wrong: FlushOn = number  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    del signal, wrong
    assert_type(
        chunks_or_timeout(texts, 2, 1.0, flush_on=event, emit_empty=True), Stream[list[str]]
    )
    assert_type(chunks_by_weight(texts, 2, 1.0, weight=size, flush_on=ticks), Stream[list[str]])
    keyed = keyed_chunks(texts, 2, 1.0, key=len, flush_on=ticks)
    assert_type(keyed, Stream[tuple[int, list[str]]])
    assert_type(sessions(texts, 2, flush_on=event), Stream[list[str]])
    assert_type(sliding(texts, 2, flush_on=event), Stream[list[str]])
    windows = event_windows(
        texts,
        TumblingWindows(10),
        timestamp=size,
        partition=size,
        max_future_skew=5.0,
        flush_on=event,
    )
    assert_type(windows, Stream[EventWindow[None, str]])
    assert_type(texts | pipe.chunks_or_timeout(2, 1.0, flush_on=event), Stream[list[str]])
    assert_type(texts | pipe.sessions(2.0, flush_on=ticks), Stream[list[str]])
    chunks_or_timeout(texts, 2, 1.0, flush_on=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    event_windows(texts, TumblingWindows(10), timestamp=size, partition=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def until(texts: Stream[str], results: ResultStream[str, OSError]) -> None:
    """The predicate's argument is the item, a lambda's too."""
    assert_type(chunks_until(texts, lambda text: text.isdigit()), Stream[list[str]])
    assert_type(chunks_until(texts, is_last, n=5, timeout=2.0), Stream[list[str]])
    assert_type(texts | pipe.chunks_until(is_last), Stream[list[str]])
    assert_type(texts | chunks_until.pipe(is_last, n=3), Stream[list[str]])
    assert_type(chunks_until.raw(texts, is_last), AsyncIterator[list[str]])
    assert_type(
        results.chunks_until(lambda text: text == "", n=3), ResultStream[list[str], OSError]
    )
    chunks_until(texts, not_awaited)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    results.chunks_until(abs)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    chunks_until(texts, is_last, n="3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pipe.chunks_until(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def late_branches(texts: Stream[str], results: ResultStream[str, OSError]) -> None:
    """One more branch has the type of the others."""
    left, right = combine.broadcast(texts, 2, replay=3)
    assert_type(left.subscribe(), combine.Branch[str])
    (one,) = results.broadcast(1, replay=3)
    assert_type(one.subscribe(), ResultStream[str, OSError])
    assert_type(combine.debounce(texts, 1.0, max_wait=5.0), Stream[str])
    assert_type(results.debounce(1.0, max_wait=5.0), ResultStream[str, OSError])
    assert_type(texts | pipe.debounce(1.0, max_wait=5.0), Stream[str])
    right.subscribe(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    one.subscribe(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    combine.broadcast(texts, 2, replay="3")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    combine.debounce(texts, 1.0, max_wait="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
