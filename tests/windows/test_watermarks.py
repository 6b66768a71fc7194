"""`event_windows(partition=, max_future_skew=, flush_on=)`, against a plain model and by hand."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from returns_pipeline import ResultStream
from returns_pipeline.errors import InvalidArgument
from returns_pipeline.testing import Wait, run, timed, timeline
from returns_pipeline.windows import EventWindow, SessionWindows, TumblingWindows, event_windows

Tap = tuple[str, float]


def when(tap: Tap) -> float:
    return tap[1]


def source(tap: Tap) -> str:
    return tap[0]


def fired(*steps: Any, **options: Any) -> list[tuple[float, list[Any], int]]:
    """Run it, and return when each window fired, its items and its pane."""
    windows = event_windows(timed(*steps), TumblingWindows(10), timestamp=when, **options)
    return [(at, window.items, window.pane) for at, window in run(timeline(windows))]


def test_the_slowest_partition_holds_the_windows_back() -> None:
    steps: list[Any] = [
        ("a", 1.0),
        ("b", 2.0),
        ("a", 25.0),
        ("a", 38.0),
        Wait(1),
        ("b", 3.0),
        ("b", 11.0),
    ]
    assert fired(*steps, partition=source) == [
        (1.0, [("a", 1.0), ("b", 2.0), ("b", 3.0)], 0),
        (1.0, [("b", 11.0)], 0),
        (1.0, [("a", 25.0)], 0),
        (1.0, [("a", 38.0)], 0),
    ]
    # Without it, b's items are too late.
    late = event_windows(timed(*steps[:4], steps[5]), TumblingWindows(10), timestamp=when)
    assert any(window.is_late for _, window in run(timeline(late)))


def test_a_partition_that_falls_silent_is_left_out_and_windows_fire_by_the_clock() -> None:
    steps: list[Any] = [
        ("a", 1.0),
        ("b", 2.0),
        Wait(1),
        ("a", 21.0),
        Wait(1),
        ("a", 22.0),
        Wait(100),
    ]
    assert fired(*steps, partition=source, idle_after=5.0) == [
        (5.0, [("a", 1.0), ("b", 2.0)], 0),  # b's last item came at 0
        (10.0, [("a", 21.0), ("a", 22.0)], 0),  # all are silent: 22 and 8 seconds since
    ]


def test_a_silent_partition_is_left_out_when_another_has_an_item() -> None:
    steps: list[Any] = [("b", 2.0), Wait(4), ("a", 8.0), Wait(4), ("a", 12.0)]
    assert fired(*steps, partition=source, idle_after=5.0) == [
        (8.0, [("b", 2.0), ("a", 8.0)], 0),
        (8.0, [("a", 12.0)], 0),
    ]
    assert fired(*steps, partition=source)[0][0] == 8.0


def test_the_others_move_the_watermark_at_once_when_one_is_left_out() -> None:
    steps: list[Any] = [("a", 2.0), Wait(1), ("b", 8.0), Wait(3), ("b", 9.0)]
    steps += [Wait(4), ("b", 25.0), Wait(3), ("b", 26.0)]
    assert fired(*steps, partition=source, idle_after=5.0) == [
        (8.0, [("a", 2.0), ("b", 8.0), ("b", 9.0)], 0),
        (11.0, [("b", 25.0), ("b", 26.0)], 0),
    ]


def test_a_partition_that_returns_holds_windows_back_and_the_watermark_never_goes_back() -> None:
    async def main() -> None:
        steps: list[Any] = [
            ("a", 5.0), ("b", 5.0), Wait(6), ("a", 35.0), Wait(1),
            ("b", 36.0), ("b", 8.0), Wait(1), ("a", 47.0), Wait(1), ("b", 48.0),
        ]  # fmt: skip
        windows = event_windows(
            timed(*steps), TumblingWindows(10), timestamp=when, partition=source, idle_after=5.0
        )
        seen = await timeline(windows)
        assert [(at, window.items, window.is_late) for at, window in seen] == [
            (5.0, [("a", 5.0), ("b", 5.0)], False),  # both are silent
            (7.0, [("b", 8.0)], True),
            (9.0, [("a", 35.0), ("b", 36.0)], False),
            (9.0, [("a", 47.0), ("b", 48.0)], False),
        ]

    run(main())


def test_an_item_from_the_future_makes_no_other_late() -> None:
    steps = [
        ("a", 1.0),
        Wait(1),
        ("a", 1e9),
        ("a", 3.0),
        Wait(9),
        ("a", 11.0),
        Wait(9),
        ("a", 21.0),
    ]
    assert fired(*steps, max_future_skew=5.0) == [
        (10.0, [("a", 1.0), ("a", 3.0)], 0),
        (19.0, [("a", 11.0)], 0),
        (19.0, [("a", 21.0)], 0),
        (19.0, [("a", 1e9)], 0),
    ]
    assert fired(*steps)[0] == (1.0, [("a", 1.0)], 0)


def test_the_future_is_what_is_ahead_of_the_time_that_has_passed() -> None:
    # 60 seconds of silence: an item that is 60 seconds later is not an item of the future.
    assert fired(("a", 1.0), Wait(60), ("a", 63.0), ("a", 12.0), max_future_skew=3.0) == [
        (60.0, [("a", 1.0)], 0),
        (60.0, [("a", 12.0)], 0),
        (60.0, [("a", 63.0)], 0),
    ]
    held = fired(("a", 1.0), Wait(60), ("a", 64.5), ("a", 12.0), max_future_skew=3.0)
    assert held[0] == (60.0, [("a", 1.0)], 0)
    assert held == [
        (60.0, [("a", 1.0)], 0),
        (60.0, [("a", 12.0)], 0),
        (60.0, [("a", 64.5)], 0),
    ]


def test_a_partition_with_nothing_but_the_future_holds_nobody_back() -> None:
    steps: list[Any] = [("a", 1.0), ("b", 1e9), ("a", 11.0)]
    assert fired(*steps, partition=source, max_future_skew=20.0)[0] == (
        0.0,
        [("a", 1.0)],
        0,
    )


def test_time_that_the_reader_takes_is_not_silence_of_a_partition() -> None:
    async def main() -> None:
        steps: list[Any] = [
            ("a", 1.0),
            ("b", 1.0),
            ("a", 11.0),
            ("b", 12.0),
            Wait(1),
            ("b", 13.0),
            ("a", 14.0),
        ]
        windows = event_windows(
            timed(*steps), TumblingWindows(10), timestamp=when, partition=source, idle_after=5.0
        )
        given = await timeline(windows, pause=30.0)
        assert [window.items for _, window in given] == [
            [("a", 1.0), ("b", 1.0)],
            [("a", 11.0), ("b", 12.0), ("b", 13.0), ("a", 14.0)],
        ]

    run(main())


def test_sessions_are_shown_early_and_again_when_they_have_grown() -> None:
    async def main() -> None:
        flush = asyncio.Event()
        loop = asyncio.get_running_loop()
        for at in (1.5, 2.5, 3.5):
            loop.call_at(at, flush.set)
            loop.call_at(at, flush.clear)
        steps: list[Any] = [1.0, 30.0, Wait(3), 2.0, Wait(1), 3.0, 60.0]
        windows = event_windows(
            timed(*steps),
            SessionWindows(5),
            timestamp=float,
            max_out_of_orderness=40,
            flush_on=flush,
        )
        seen = [
            (at, w.start, w.end, w.items, w.pane, w.is_late) for at, w in await timeline(windows)
        ]
        assert seen == [
            (1.5, 1.0, 6.0, [1.0], 0, False),
            (1.5, 30.0, 35.0, [30.0], 0, False),
            (3.5, 1.0, 7.0, [1.0, 2.0], 1, False),
            (4.0, 1.0, 8.0, [1.0, 2.0, 3.0], 2, False),
            (4.0, 60.0, 65.0, [60.0], 0, False),
        ]

    run(main())


def test_bad_arguments_are_refused_at_the_call() -> None:
    options: list[dict[str, Any]] = [{"max_future_skew": -1}, {"max_future_skew": "1"}]
    for bad in options:
        with pytest.raises(InvalidArgument, match="max_future_skew"):
            _ = event_windows(timed(1.0), TumblingWindows(1), timestamp=float, **bad)
        with pytest.raises(InvalidArgument, match="max_future_skew"):
            _ = ResultStream.of(timed(1.0)).event_windows(
                TumblingWindows(1), timestamp=float, **bad
            )


def test_an_error_of_partition_is_raised_after_the_windows_with_the_item_in_them() -> None:
    def fail(tap: Tap) -> object:
        raise ZeroDivisionError

    async def main() -> None:
        seen: list[EventWindow[None, Tap]] = []
        windows = event_windows(
            timed(("a", 1.0), ("a", 2.0)), TumblingWindows(10), timestamp=when, partition=fail
        )
        with pytest.raises(ZeroDivisionError):
            async with windows.stream() as opened:
                async for window in opened:
                    seen.append(window)
        assert [window.items for window in seen] == [[("a", 1.0)]]

    run(main())


@given(
    taps=st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 60), st.integers(0, 3)), max_size=25
    ),
    idle=st.none() | st.just(4.3),
    skew=st.none() | st.integers(5, 30),
    slack=st.integers(0, 10),
)
def test_each_item_is_in_one_window_as_a_plain_model_says(
    taps: list[tuple[str, int, int]], idle: float | None, skew: int | None, slack: int
) -> None:
    """The watermark by its definition, looked at after each item and at each tenth of a second."""
    expected: list[list[Tap]] = []
    held: dict[int, list[Tap]] = {}
    marks: dict[str, tuple[float, float]] = {}  # the greatest timestamp, and when the last came
    watermark, newest, newest_at, clock = -math.inf, -math.inf, 0.0, 0.0

    def candidate() -> float:
        known = {name: mark for name, mark in marks.items() if mark[0] > -math.inf}
        active = [mark for mark in known.values() if idle is None or clock < mark[1] + idle - 1e-6]
        if active:
            return min(mark[0] for mark in active) - slack
        if idle is None:
            return -math.inf
        return max(
            [mark[0] - slack + clock - mark[1] for mark in known.values()], default=-math.inf
        )

    def advance(to: float, *, by_clock: bool = False) -> None:
        nonlocal watermark
        for index in sorted(held):
            if (end := 10 * (index + 1)) <= to + (1e-6 if by_clock else 0):
                expected.append(held.pop(index))
                watermark = max(watermark, end)
        if not by_clock:
            watermark = max(watermark, to)

    steps: list[Any] = []
    for place, (name, second, gap) in enumerate(taps):
        for _ in range(gap * 10):
            clock = round(clock + 0.1, 6)
            if idle is not None:
                advance(candidate(), by_clock=True)
        steps += [Wait(gap), (name, float(second), place)]
        tap: Any = (name, float(second), place)
        if idle is not None:
            advance(candidate(), by_clock=True)
        if 10 * (second // 10 + 1) <= watermark:
            expected.append([tap])
        else:
            held.setdefault(second // 10, []).append(tap)
        ahead = (
            skew is not None and newest > -math.inf and second > newest + clock - newest_at + skew
        )
        if not ahead and second > newest:
            newest, newest_at = float(second), clock
        before = marks.get(name, (-math.inf, 0.0))[0]
        marks[name] = (before if ahead else max(before, float(second)), clock)
        advance(candidate())
    advance(math.inf)

    def at_second(tap: Any) -> float:
        return float(tap[1])

    windows = event_windows(
        timed(*steps),
        TumblingWindows(10),
        timestamp=at_second,
        partition=lambda tap: tap[0],
        idle_after=idle,
        max_future_skew=skew,
        max_out_of_orderness=slack,
    )
    assert [window.items for _, window in run(timeline(windows))] == expected
