"""Windows that a signal flushes, and silences that are seen, against models of their rules."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from returns_pipeline import ResultStream
from returns_pipeline.testing import run, timeline
from returns_pipeline.windows import (
    EventWindow,
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
    from collections.abc import AsyncIterator, Callable, Sequence

    from aiostream import Stream

Steps = list[tuple[int, int]]
Windows = list[tuple[float, Any]]

# Seconds before an item, and the item. Deadlines and signals have fractions of their own, so that
# no two things come at one instant; those instants have tests of their own.
arrivals = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 7)), max_size=20)
signals = st.lists(st.integers(0, 40).map(lambda at: at + 0.5771), max_size=6, unique=True).map(
    sorted
)
waits = st.integers(1, 6).map(lambda seconds: seconds + 0.1317)
kinds = st.sampled_from(["event", "stream", "method"])


def at_times(steps: Steps) -> list[tuple[float, int]]:
    placed, clock = [], 0.0
    for gap, item in steps:
        clock += gap
        placed.append((clock, item))
    return placed


async def clocked(times: Sequence[tuple[float, Any]]) -> AsyncIterator[Any]:
    loop = asyncio.get_running_loop()
    for at, item in times:
        if at > loop.time():
            await asyncio.sleep(at - loop.time())
        yield item


def merged(steps: Steps, flushes: Sequence[float]) -> list[tuple[float, int | None]]:
    """Items and flushes (None) in their order; those after the last item come too late."""
    items: list[tuple[float, int | None]] = list(at_times(steps))
    end = items[-1][0] if items else 0.0
    items += [(at, None) for at in flushes if at < end]
    return sorted(items, key=lambda each: each[0])


def flushed(
    make: Callable[..., Stream[Any]], steps: Steps, flushes: Sequence[float], kind: str
) -> Windows:
    """Run an operator, given its source and its signal."""

    async def main() -> Windows:
        source = clocked(at_times(steps))
        if kind == "stream":
            return await timeline(make(source, clocked([(at, at) for at in flushes])))
        event = asyncio.Event()
        loop = asyncio.get_running_loop()
        for place, at in enumerate(flushes):
            # Cleared at once, or only before it is set again: both are a flush.
            loop.call_at(at, pulse if place % 2 else set_again, event)
        return await timeline(make(source, event))

    def pulse(event: asyncio.Event) -> None:
        event.clear()
        event.set()
        event.clear()

    def set_again(event: asyncio.Event) -> None:
        event.clear()
        event.set()

    return run(main())


def check(got: Windows, expected: Windows) -> None:
    assert [window for _, window in got] == [window for _, window in expected]
    assert [at for at, _ in got] == pytest.approx([at for at, _ in expected])


def model_of_lists(
    steps: Steps,
    flushes: Sequence[float],
    timeout: float,
    *,
    closes: Callable[[list[int]], bool],
    overflows: Callable[[list[int]], bool] = lambda _: False,
    empty: bool = False,
) -> Windows:
    expected: Windows = []
    held: list[int] = []
    due = timeout if empty else math.inf

    def emit(at: float) -> None:
        nonlocal held, due
        expected.append((at, held))
        held, due = [], at + timeout if empty else math.inf

    clock = 0.0
    for at, item in merged(steps, flushes):
        clock = at
        while due < at:
            emit(due)
        if item is None:
            if held or empty:
                emit(at)
            continue
        if held and overflows([*held, item]):
            emit(at)
        if not held:
            due = at + timeout
        held.append(item)
        if closes(held):
            emit(at)
    if held:
        emit(clock)
    return expected


@given(arrivals, signals, waits, st.integers(1, 5), st.booleans(), kinds)
def test_chunks_or_timeout(
    steps: Steps, flushes: list[float], timeout: float, n: int, empty: bool, kind: str
) -> None:
    def make(source: Any, signal: Any) -> Stream[Any]:
        if kind == "method":
            return (
                ResultStream.of(source)
                .chunks_or_timeout(n, timeout, flush_on=signal, emit_empty=empty)
                .successes()
            )
        return chunks_or_timeout(source, n, timeout, flush_on=signal, emit_empty=empty)

    expected = model_of_lists(
        steps, flushes, timeout, closes=lambda held: len(held) == n, empty=empty
    )
    check(flushed(make, steps, flushes, kind), expected)


@given(arrivals, signals, waits, st.none() | st.integers(1, 5), st.booleans(), kinds)
def test_chunks_until(
    steps: Steps, flushes: list[float], timeout: float, n: int | None, empty: bool, kind: str
) -> None:
    def make(source: Any, signal: Any) -> Stream[Any]:
        options: dict[str, Any] = {"n": n, "timeout": timeout, "flush_on": signal}
        options["emit_empty"] = empty
        if kind == "method":
            return ResultStream.of(source).chunks_until(ends, **options).successes()
        return chunks_until(source, ends, **options)

    def ends(item: int) -> bool:
        return item == 0

    expected = model_of_lists(
        steps,
        flushes,
        timeout,
        closes=lambda held: held[-1] == 0 or len(held) == n,
        empty=empty,
    )
    check(flushed(make, steps, flushes, kind), expected)


@given(arrivals, signals, waits, st.integers(1, 12), st.booleans(), kinds)
def test_chunks_by_weight(
    steps: Steps, flushes: list[float], timeout: float, most: int, empty: bool, kind: str
) -> None:
    def make(source: Any, signal: Any) -> Stream[Any]:
        options: dict[str, Any] = {"weight": float, "flush_on": signal, "emit_empty": empty}
        if kind == "method":
            return ResultStream.of(source).chunks_by_weight(most, timeout, **options).successes()
        return chunks_by_weight(source, most, timeout, **options)

    expected = model_of_lists(
        steps,
        flushes,
        timeout,
        closes=lambda held: sum(held) > most,
        overflows=lambda held: sum(held) > most,
        empty=empty,
    )
    check(flushed(make, steps, flushes, kind), expected)


@given(arrivals, signals, waits, st.integers(1, 4), kinds)
def test_keyed_chunks(
    steps: Steps, flushes: list[float], timeout: float, n: int, kind: str
) -> None:
    def make(source: Any, signal: Any) -> Stream[Any]:
        if kind == "method":
            return (
                ResultStream.of(source)
                .keyed_chunks(n, timeout, key=lambda i: i % 3, flush_on=signal)
                .successes()
            )
        return keyed_chunks(source, n, timeout, key=lambda i: i % 3, flush_on=signal)

    expected: Windows = []
    held: dict[int, tuple[float, list[int]]] = {}

    def emit(at: float, key: int) -> None:
        expected.append((at, (key, held.pop(key)[1])))

    clock = 0.0
    for at, item in merged(steps, flushes):
        clock = at
        for key, (opened, _) in list(held.items()):
            if opened + timeout <= at:
                emit(opened + timeout, key)
        if item is None:
            for key in list(held):
                emit(at, key)
            continue
        held.setdefault(item % 3, (at, []))[1].append(item)
        if len(held[item % 3][1]) == n:
            emit(at, item % 3)
    for key in list(held):
        emit(clock, key)
    check(flushed(make, steps, flushes, kind), expected)


@given(arrivals, signals, waits, st.none() | st.integers(1, 4), kinds)
def test_sessions(steps: Steps, flushes: list[float], gap: float, n: int | None, kind: str) -> None:
    def make(source: Any, signal: Any) -> Stream[Any]:
        if kind == "method":
            return ResultStream.of(source).sessions(gap, n=n, flush_on=signal).successes()
        return sessions(source, gap, n=n, flush_on=signal)

    expected: Windows = []
    held: list[int] = []
    last = clock = 0.0

    def emit(at: float) -> None:
        nonlocal held
        if held:
            expected.append((at, held))
        held = []

    for at, item in merged(steps, flushes):
        clock = at
        if last + gap <= at:
            emit(last + gap)
        if item is None:
            emit(at)
            continue
        held.append(item)
        last = at
        if len(held) == n:
            emit(at)
    emit(clock)
    check(flushed(make, steps, flushes, kind), expected)


@given(arrivals, signals, st.integers(1, 4), st.integers(1, 6), kinds)
def test_sliding(steps: Steps, flushes: list[float], n: int, step: int, kind: str) -> None:
    def make(source: Any, signal: Any) -> Stream[Any]:
        if kind == "method":
            return ResultStream.of(source).sliding(n, step=step, flush_on=signal).successes()
        return sliding(source, n, step=step, flush_on=signal)

    expected: Windows = []
    run_of: list[int] = []  # the items since the last flush
    starts = shown = 0  # of the next list; how many items were in one

    def emit(at: float, until: int) -> None:
        nonlocal starts, shown
        expected.append((at, run_of[starts:until]))
        shown = until
        starts += step

    clock = 0.0
    for at, item in [*merged(steps, flushes), (math.inf, None)]:
        clock = clock if at == math.inf else at
        if item is None:
            if len(run_of) > max(shown, starts):
                emit(clock, len(run_of))
            run_of, starts, shown = [], 0, 0
            continue
        run_of.append(item)
        if len(run_of) == starts + n:
            emit(at, len(run_of))
    check(flushed(make, steps, flushes, kind), expected)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40)), max_size=20),
    signals,
    st.integers(0, 15),
    st.integers(0, 12),
    kinds,
)
def test_event_windows(
    steps: Steps, flushes: list[float], lateness: int, slack: int, kind: str
) -> None:
    """A window that a flush has emitted is emitted again only when it has got other items."""

    def make(source: Any, signal: Any) -> Stream[Any]:
        options: dict[str, Any] = {"timestamp": float, "flush_on": signal}
        options |= {"allowed_lateness": lateness, "max_out_of_orderness": slack}
        if kind == "method":
            return ResultStream.of(source).event_windows(TumblingWindows(10), **options).successes()
        return event_windows(source, TumblingWindows(10), **options)

    expected: Windows = []
    held: dict[int, list[int]] = {}  # the items of a window
    panes: dict[int, int] = {}
    shown: dict[int, int] = {}
    watermark = -math.inf
    clock = 0.0

    def fire(index: int, *, late: bool) -> None:
        if len(held[index]) > shown[index]:
            start = 10.0 * index
            window = EventWindow(None, start, start + 10, held[index][:], panes[index], late)
            expected.append((clock, window))
            panes[index] += 1
            shown[index] = len(held[index])

    def advance(to: float) -> None:
        for index in sorted(held):
            if watermark < 10 * (index + 1) <= to:
                fire(index, late=False)
        for index in list(held):
            if 10 * (index + 1) + lateness <= to:
                del held[index]

    for at, item in merged(steps, flushes):
        clock = at
        if item is None:
            for index in sorted(held):
                if 10 * (index + 1) > watermark:
                    fire(index, late=False)
            continue
        index = item // 10
        end = 10 * (index + 1)
        if end + lateness <= watermark:
            expected.append((at, EventWindow(None, end - 10.0, end, [item], 0, is_late=True)))
        else:
            if index not in held:
                held[index], panes[index], shown[index] = [], 0, 0
            held[index].append(item)
            if end <= watermark:
                fire(index, late=True)
        if item - slack > watermark:
            advance(item - slack)
            watermark = item - slack
    advance(math.inf)
    check(flushed(make, steps, flushes, kind), expected)


@given(arrivals, signals, waits, st.integers(1, 5), st.sampled_from([0.0, 0.7, 3.3, 30.0]))
def test_a_slow_reader_loses_nothing_of_what_is_flushed(
    steps: Steps, flushes: list[float], timeout: float, n: int, pause: float
) -> None:
    async def main(make: Callable[..., Stream[Any]]) -> list[Any]:
        source = clocked(at_times(steps))
        signal = clocked([(at, at) for at in flushes])
        return [window for _, window in await timeline(make(source, signal), pause=pause)]

    makers: list[Callable[..., Stream[Any]]] = [
        lambda source, on: chunks_or_timeout(source, n, timeout, flush_on=on, emit_empty=True),
        lambda source, on: chunks_until(source, bool, n=n, timeout=timeout, flush_on=on),
        lambda source, on: chunks_by_weight(source, 9, timeout, weight=int, n=n, flush_on=on),
        lambda source, on: sessions(source, timeout, n=n, flush_on=on),
        lambda source, on: sliding(source, n, step=n, flush_on=on),
    ]
    for make in makers:
        windows = run(main(make))
        assert [item for window in windows for item in window] == [item for _, item in steps]
        assert all(len(window) <= n for window in windows)
