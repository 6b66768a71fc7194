"""The windows against pure models of their rules, under random arrivals and readers."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from returns_pipeline.testing import Wait, run, timed, timeline
from returns_pipeline.windows import chunks_by_weight, keyed_chunks, sessions, sliding

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

# Seconds before an item, and the item. Deadlines have a fraction of their own, so that no item
# comes at the very instant of a deadline; those instants have tests of their own.
arrivals = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7)), max_size=25)
waits = st.integers(1, 9).map(lambda seconds: seconds + 0.1)

Windows = list[tuple[float, Any]]


def at_times(steps: Sequence[tuple[int, int]]) -> list[tuple[float, int]]:
    placed, clock = [], 0.0
    for gap, item in steps:
        clock += gap
        placed.append((clock, item))
    return placed


async def clocked(steps: Sequence[tuple[int, int]]) -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()
    for at, item in at_times(steps):
        if at > loop.time():
            await asyncio.sleep(at - loop.time())
        yield item


def check(got: Windows, expected: Windows) -> None:
    assert [window for _, window in got] == [window for _, window in expected]
    assert [at for at, _ in got] == pytest.approx([at for at, _ in expected])


@given(
    steps=arrivals,
    most=st.integers(1, 12),
    timeout=waits,
    n=st.none() | st.integers(1, 4),
)
def test_chunks_by_weight(
    steps: list[tuple[int, int]], most: int, timeout: float, n: int | None
) -> None:
    expected: Windows = []
    held: list[int] = []
    due = math.inf

    def give(at: float) -> None:
        nonlocal held, due
        expected.append((at, held))
        held, due = [], math.inf

    for at, item in at_times(steps):
        if held and at >= due:
            give(due)
        if held and sum(held) + item > most:
            give(at)
        if not held:
            due = at + timeout
        held.append(item)
        if len(held) == n or sum(held) > most:
            give(at)
    if held:
        give(at_times(steps)[-1][0])
    given = run(timeline(chunks_by_weight(clocked(steps), most, timeout, weight=float, n=n)))
    check(given, expected)
    assert all(sum(window) <= most or len(window) == 1 for _, window in given)


@given(
    steps=arrivals,
    n=st.integers(1, 4),
    timeout=waits,
    max_keys=st.none() | st.integers(1, 3),
)
def test_keyed_chunks(
    steps: list[tuple[int, int]], n: int, timeout: float, max_keys: int | None
) -> None:
    expected: Windows = []
    held: dict[int, tuple[float, list[int]]] = {}  # by age

    def give(at: float, key: int) -> None:
        expected.append((at, (key, held.pop(key)[1])))

    clock = 0.0
    for at, item in at_times(steps):
        clock = at
        for key, (opened, _) in list(held.items()):
            if opened + timeout <= at:
                give(opened + timeout, key)
        if item % 4 not in held:
            if len(held) == max_keys:
                give(at, next(iter(held)))
            held[item % 4] = (at, [])
        held[item % 4][1].append(item)
        if len(held[item % 4][1]) == n:
            give(at, item % 4)
    for key in list(held):
        give(clock, key)
    check(
        run(
            timeline(
                keyed_chunks(clocked(steps), n, timeout, key=lambda i: i % 4, max_keys=max_keys)
            )
        ),
        expected,
    )


def model_of_sessions(
    steps: Sequence[tuple[int, int]], gap: float, longest: float, n: int | None, keys: int
) -> Windows:
    expected: Windows = []
    held: dict[int, list[tuple[float, int]]] = {}

    def due(key: int) -> float:
        return min(held[key][-1][0] + gap, held[key][0][0] + longest)

    def give(at: float, key: int) -> None:
        expected.append((at, [item for _, item in held.pop(key)]))

    clock = 0.0
    for at, item in at_times(steps):
        clock = at
        for key in sorted(held, key=due):  # sorting keeps the order of opening
            if due(key) <= at:
                give(due(key), key)
        held.setdefault(item % keys, []).append((at, item))
        if len(held[item % keys]) == n:
            give(at, item % keys)
    for key in list(held):
        give(clock, key)
    return expected


@given(
    steps=arrivals,
    gap=st.integers(1, 6).map(lambda seconds: seconds + 0.1),
    longest=st.just(math.inf) | st.integers(1, 12).map(lambda seconds: seconds + 0.3),
    n=st.none() | st.integers(1, 5),
    keys=st.integers(1, 3),
)
def test_sessions(
    steps: list[tuple[int, int]], gap: float, longest: float, n: int | None, keys: int
) -> None:
    expected = model_of_sessions(steps, gap, longest, n, keys)
    grouped = sessions(clocked(steps), gap, max_duration=longest, n=n, key=lambda i: i % keys)
    check(run(timeline(grouped)), expected)


@given(
    steps=arrivals,
    gap=st.integers(1, 6),
    longest=st.just(math.inf) | st.integers(1, 12),
    n=st.none() | st.integers(1, 5),
    pause=st.sampled_from([0.0, 0.7, 3.0, 20.0]),
    keys=st.integers(1, 3),
)
def test_sessions_are_the_same_for_every_reader(
    steps: list[tuple[int, int]], gap: float, longest: float, n: int | None, pause: float, keys: int
) -> None:
    """Even where an item arrives at the very end of a gap: it begins the next session."""
    source = timed(*(step for wait, item in steps for step in (Wait(wait), item)))
    grouped = sessions(source, gap, max_duration=longest, n=n, key=lambda i: i % keys)
    assert [window for _, window in run(timeline(grouped, pause=pause))] == [
        window for _, window in model_of_sessions(steps, gap, longest, n, keys)
    ]


@given(
    items=st.lists(st.integers(), max_size=20),
    n=st.integers(1, 6),
    step=st.integers(1, 8),
    pause=st.sampled_from([0.0, 1.0]),
)
def test_sliding(items: list[int], n: int, step: int, pause: float) -> None:
    expected = []
    seen = 0
    for start in range(0, len(items), step):
        if min(start + n, len(items)) > seen:
            expected.append(items[start : start + n])
            seen = start + n
    given = run(timeline(sliding(timed(*items), n, step=step), pause=pause))
    assert [window for _, window in given] == expected
