"""What `event_windows` promises: tables of arrivals and panes, worked out by hand."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.result import Failure, Result, Success

from returns_pipeline import InvalidArgument, ResultStream
from returns_pipeline.testing import Wait, run, script, timed, timeline
from returns_pipeline.windows import (
    EventWindow,
    SessionWindows,
    SlidingWindows,
    TumblingWindows,
    event_windows,
)
from returns_pipeline.windows._event_state import _AlignedState, _SessionState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from returns_pipeline.windows import Assigner
    from returns_pipeline.windows._event_time import EventPump

ON_TIME, LATE = False, True

# start, end, timestamps of the items, pane, is_late
Pane = tuple[float, float, list[float], int, bool]


def fired(source: Any, assigner: Assigner, **kwargs: Any) -> list[Pane]:
    """Run a list of timestamps, or a source of them, to its end."""
    if isinstance(source, list):
        source = timed(*source)
    windows = event_windows(source, assigner, timestamp=float, **kwargs)
    return [pane(window) for _, window in run(timeline(windows))]


def pane(window: EventWindow[object, float]) -> Pane:
    return (window.start, window.end, window.items, window.pane, window.is_late)


@pytest.mark.parametrize(
    ("arriving", "assigner", "kwargs", "panes"),
    [
        pytest.param(
            # 10 brings the watermark to the end of the first window: half-open, 10 is in the next.
            [1, 9.5, 10, 19, 20],
            TumblingWindows(10),
            {},
            [
                (0, 10, [1, 9.5], 0, ON_TIME),
                (10, 20, [10, 19], 0, ON_TIME),
                (20, 30, [20], 0, ON_TIME),
            ],
            id="in order",
        ),
        pytest.param(
            # Watermarks: -2, 1, -, 8, 9: nothing ends before the source does, nothing is late.
            [1, 4, 2, 11, 12, 9],
            TumblingWindows(10),
            {"max_out_of_orderness": 3},
            [(0, 10, [1, 4, 2, 9], 0, ON_TIME), (10, 20, [11, 12], 0, ON_TIME)],
            id="out of order within the bound",
        ),
        pytest.param(
            # At 13 the watermark is 10: the window fires, and 9 finds it forgotten.
            [1, 13, 9, 14],
            TumblingWindows(10),
            {"max_out_of_orderness": 3},
            [
                (0, 10, [1], 0, ON_TIME),
                (0, 10, [9], 0, LATE),
                (10, 20, [13, 14], 0, ON_TIME),
            ],
            id="too late, and no one to take it: alone",
        ),
        pytest.param(
            # 12 fires it; 3 and 4 come while the watermark is below 15; at 15 it is forgotten.
            [1, 12, 3, 4, 15, 5],
            TumblingWindows(10),
            {"allowed_lateness": 5},
            [
                (0, 10, [1], 0, ON_TIME),
                (0, 10, [1, 3], 1, LATE),
                (0, 10, [1, 3, 4], 2, LATE),
                (0, 10, [5], 0, LATE),
                (10, 20, [12, 15], 0, ON_TIME),
            ],
            id="late within the allowance: one pane more each",
        ),
        pytest.param(
            # Nothing was in 0..10 before the watermark passed: its first pane is a late one.
            [12, 3, 4],
            TumblingWindows(10),
            {"allowed_lateness": 5},
            [(0, 10, [3], 0, LATE), (0, 10, [3, 4], 1, LATE), (10, 20, [12], 0, ON_TIME)],
            id="a window that opens late",
        ),
        pytest.param(
            [-7, -5, 3, 8],
            TumblingWindows(10, offset=3),
            {},
            [(-7, 3, [-7, -5], 0, ON_TIME), (3, 13, [3, 8], 0, ON_TIME)],
            id="offset, and times before the origin",
        ),
        pytest.param(
            # Each item is in two windows; windows without an item do not exist.
            [1, 6, 11, 30],
            SlidingWindows(10, 5),
            {},
            [
                (-5, 5, [1], 0, ON_TIME),
                (0, 10, [1, 6], 0, ON_TIME),
                (5, 15, [6, 11], 0, ON_TIME),
                (10, 20, [11], 0, ON_TIME),
                (25, 35, [30], 0, ON_TIME),
                (30, 40, [30], 0, ON_TIME),
            ],
            id="sliding",
        ),
        pytest.param(
            # size 5 every 3: 0-5, 3-8, 6-11, ...: 4 is in two, 5 and 2 in one.
            [2, 4, 5, 9],
            SlidingWindows(5, 3),
            {},
            [
                (0, 5, [2, 4], 0, ON_TIME),
                (3, 8, [4, 5], 0, ON_TIME),
                (6, 11, [9], 0, ON_TIME),
                (9, 14, [9], 0, ON_TIME),
            ],
            id="sliding that does not divide",
        ),
        pytest.param(
            # 12 fires -5..5 and 0..10. 4 belonged to both, 7 to 0..10 and 5..15.
            [1, 12, 4, 7],
            SlidingWindows(10, 5),
            {"allowed_lateness": 3},
            [
                (-5, 5, [1], 0, ON_TIME),
                (0, 10, [1], 0, ON_TIME),
                (-5, 5, [4], 0, LATE),
                (0, 10, [1, 4], 1, LATE),
                (0, 10, [1, 4, 7], 2, LATE),
                (5, 15, [12, 7], 0, ON_TIME),
                (10, 20, [12], 0, ON_TIME),
            ],
            id="sliding, late for some",
        ),
        pytest.param(
            # 3 is within 5 of 0, 7.9 within 5 of 3; 12.9 is exactly 5 after 7.9: a new session.
            [0, 3, 7.9, 12.9, 30],
            SessionWindows(5),
            {},
            [
                (0, 12.9, [0, 3, 7.9], 0, ON_TIME),
                (12.9, 17.9, [12.9], 0, ON_TIME),
                (30, 35, [30], 0, ON_TIME),
            ],
            id="sessions",
        ),
        pytest.param(
            # 4 joins 0..5 and 8..13, which have not fired; items stay in the order they came.
            [8, 0, 4, 30],
            SessionWindows(5),
            {"max_out_of_orderness": 20},
            [(0, 13, [8, 0, 4], 0, ON_TIME), (30, 35, [30], 0, ON_TIME)],
            id="an item that bridges two sessions",
        ),
        pytest.param(
            # At 10, 0..6 fires. 5 makes it and 10..16 one, which ends at 16: not late. 20 fires
            # that, and opens 20..26. 12 makes it 0..18, below the watermark: at once.
            [0, 10, 5, 20, 12, 40],
            SessionWindows(6),
            {"allowed_lateness": 100},
            [
                (0, 6, [0], 0, ON_TIME),
                (0, 16, [0, 10, 5], 1, ON_TIME),
                (0, 18, [0, 10, 5, 12], 2, LATE),
                (20, 26, [20], 0, ON_TIME),
                (40, 46, [40], 0, ON_TIME),
            ],
            id="sessions that grow after they fired",
        ),
        pytest.param(
            # At 13 0..5 is forgotten (5 + 7 = 12): 3 finds nothing and is too late itself.
            [0, 13, 3],
            SessionWindows(5),
            {"allowed_lateness": 4},
            [
                (0, 5, [0], 0, ON_TIME),
                (3, 8, [3], 0, LATE),
                (13, 18, [13], 0, ON_TIME),
            ],
            id="a forgotten session does not merge",
        ),
        pytest.param(
            # 6 is too late for a session of its own (6 + 5 + 2 = 13), as nothing is left to join.
            # 9 is not, and does not reach 13..18: 9 + 5 = 14 > 13, so it does join it.
            [0, 13, 6, 9],
            SessionWindows(5),
            {"allowed_lateness": 2},
            [
                (0, 5, [0], 0, ON_TIME),
                (6, 11, [6], 0, LATE),
                (9, 18, [13, 9], 0, ON_TIME),
            ],
            id="a late item in time for the session that is open",
        ),
        pytest.param(
            # 20 fires 0..5 and 7..12. 1 makes the first one longer, at once; 4 makes both one. That
            # is to be forgotten at 12 + 20, but 7.5 and 8 put it off to 33.
            [0, 7, 20, 1, 4, 7.5, 32, 8, 33, 8],
            SessionWindows(5),
            {"allowed_lateness": 20},
            [
                (0, 5, [0], 0, ON_TIME),
                (7, 12, [7], 0, ON_TIME),
                (0, 6, [0, 1], 1, LATE),
                (0, 12, [0, 7, 1, 4], 2, LATE),
                (0, 12.5, [0, 7, 1, 4, 7.5], 3, LATE),
                (20, 25, [20], 0, ON_TIME),
                (0, 13, [0, 7, 1, 4, 7.5, 8], 4, LATE),
                (8, 13, [8], 0, LATE),
                (32, 38, [32, 33], 0, ON_TIME),
            ],
            id="sessions that grow, merge and are forgotten below the watermark",
        ),
        pytest.param(
            # As above, but nothing late comes at 32: what was put off is forgotten nevertheless.
            [0, 7, 20, 4, 7.5, 32, 33, 8],
            SessionWindows(5),
            {"allowed_lateness": 20},
            [
                (0, 5, [0], 0, ON_TIME),
                (7, 12, [7], 0, ON_TIME),
                (0, 12, [0, 7, 4], 1, LATE),
                (0, 12.5, [0, 7, 4, 7.5], 2, LATE),
                (20, 25, [20], 0, ON_TIME),
                (8, 13, [8], 0, LATE),
                (32, 38, [32, 33], 0, ON_TIME),
            ],
            id="sessions that grew are forgotten in time",
        ),
        pytest.param(
            # 8..13 has fired twice when it is merged into 0..5, which has fired once.
            [0, 8, 20, 8.5, 4],
            SessionWindows(5),
            {"allowed_lateness": 50},
            [
                (0, 5, [0], 0, ON_TIME),
                (8, 13, [8], 0, ON_TIME),
                (8, 13.5, [8, 8.5], 1, LATE),
                (0, 13.5, [0, 8, 8.5, 4], 2, LATE),
                (20, 25, [20], 0, ON_TIME),
            ],
            id="the panes of a merged session count on from the greater number",
        ),
        pytest.param([], TumblingWindows(10), {}, [], id="nothing"),
    ],
)
def test_table(
    arriving: list[float], assigner: Assigner, kwargs: dict[str, Any], panes: list[Pane]
) -> None:
    assert fired(arriving, assigner, **kwargs) == panes


def test_keys_have_windows_of_their_own_and_one_watermark() -> None:
    """What fires together comes by its end, then by its opening."""

    async def main() -> None:
        taps = timed((1, "b"), (2, "a"), (3, "b"), (11, "c"), (25, "a"), (4, "b"))
        windows = event_windows(
            taps,
            TumblingWindows(10),
            timestamp=lambda tap: tap[0],
            key=lambda tap: tap[1],
            allowed_lateness=100,
        )
        assert [
            (w.key, w.start, [at for at, _ in w.items]) for _, w in await timeline(windows)
        ] == [
            ("b", 0, [1, 3]),
            ("a", 0, [2]),
            ("c", 10, [11]),
            ("b", 0, [1, 3, 4]),
            ("a", 20, [25]),
        ]

    run(main())


def test_sessions_of_several_keys_fire_by_their_ends() -> None:
    async def main() -> None:
        taps = timed((0, "a"), (1, "b"), (2, "a"), (4, "b"), (9, "c"))
        windows = event_windows(
            taps, SessionWindows(3), timestamp=lambda tap: tap[0], key=lambda tap: tap[1]
        )
        assert [(w.key, w.start, w.end) for _, w in await timeline(windows)] == [
            ("b", 1, 4), ("a", 0, 5), ("b", 4, 7), ("c", 9, 12),
        ]  # fmt: skip

    run(main())


def test_a_merged_session_was_opened_when_its_first_part_was() -> None:
    async def main() -> None:
        taps = timed((8, "a"), (8, "b"), (0, "a"), (4, "a"))
        windows = event_windows(
            taps,
            SessionWindows(5),
            timestamp=lambda tap: tap[0],
            key=lambda tap: tap[1],
            max_out_of_orderness=100,
        )
        assert [(w.key, w.start, w.end) for _, w in await timeline(windows)] == [
            ("a", 0, 13), ("b", 8, 13),
        ]  # fmt: skip

    run(main())


def test_a_pane_emitted_does_not_change_when_the_next_comes() -> None:
    panes = fired([1, 12, 3], TumblingWindows(10), allowed_lateness=5)
    assert [items for _, _, items, _, _ in panes] == [[1], [1, 3], [12]]


@pytest.mark.parametrize(
    "assigner", [TumblingWindows(10), SlidingWindows(10, 10), SessionWindows(10)]
)
def test_what_is_too_late_goes_to_late_and_nowhere_else(assigner: Assigner) -> None:
    taken: list[float] = []
    panes = fired([1, 30, 2, 31], assigner, late=taken.append)
    assert taken == [2]
    assert [items for _, _, items, _, _ in panes] == [[1], [30, 31]]


def test_an_item_in_time_for_one_of_its_windows_is_not_too_late() -> None:
    taken: list[float] = []
    panes = fired([1, 12, 7], SlidingWindows(10, 5), late=taken.append)
    assert taken == []
    assert (5, 15, [12, 7], 0, ON_TIME) in panes


def test_late_may_be_asynchronous_and_the_source_waits_for_it() -> None:
    async def main() -> None:
        taken = []

        async def take(at: float) -> None:
            await asyncio.sleep(5)
            taken.append((asyncio.get_running_loop().time(), at))

        source = timed(1.0, 30.0, 2.0, 3.0, 31.0)
        async with event_windows(
            source, TumblingWindows(10), timestamp=float, late=take
        ).stream() as got:
            assert (await anext(got)).items == [1]
            assert (await anext(got)).items == [30, 31]
        assert taken == [(5, 2.0), (10, 3.0)]

    run(main())


def test_late_may_be_a_queue_and_the_source_waits_for_room() -> None:
    async def main() -> None:
        queue: asyncio.Queue[float] = asyncio.Queue(1)
        source = timed(1.0, 30.0, 2.0, 3.0, 31.0)
        windows = event_windows.raw(source, TumblingWindows(10), timestamp=float, late=queue)
        assert (await anext(windows)).items == [1]
        rest = asyncio.ensure_future(anext(windows))
        await asyncio.sleep(100)
        assert not rest.done()
        assert [await queue.get(), await queue.get()] == [2, 3]
        assert (await rest).items == [30, 31]
        await windows.aclose()  # type: ignore[attr-defined]

    run(main())


def test_closing_while_late_waits_for_room() -> None:
    async def main() -> None:
        queue: asyncio.Queue[float] = asyncio.Queue(1)
        source = timed(1.0, 30.0, 2.0, 3.0, 31.0)
        async with event_windows(
            source, TumblingWindows(10), timestamp=float, late=queue
        ).stream() as got:
            assert (await anext(got)).items == [1]
            await asyncio.sleep(1)
        assert source.opened == source.closed

    run(main())


@pytest.mark.parametrize("failing", ["timestamp", "key", "late"])
def test_what_a_function_raises_comes_after_the_open_windows(failing: str) -> None:
    async def main() -> None:
        def fail(at: float) -> float:
            if at == 2:
                raise ZeroDivisionError
            return at

        kwargs: dict[str, Any] = {"timestamp": float, failing: fail}
        source = timed(1.0, 30.0, 2.0, 31.0)
        given = await timeline(
            event_windows(source, TumblingWindows(10), **kwargs), error=ZeroDivisionError
        )
        assert [w.items for _, w in given if isinstance(w, EventWindow)] == [[1], [30]]
        assert isinstance(given[-1][1], ZeroDivisionError)
        assert source.closed == 1

    run(main())


@pytest.mark.parametrize("at", [math.nan, math.inf, -math.inf])
def test_a_timestamp_that_is_not_finite_is_refused(at: float) -> None:
    async def main() -> None:
        given = await timeline(
            event_windows(timed(1.0, at, 2.0), TumblingWindows(10), timestamp=float),
            error=InvalidArgument,
        )
        assert [type(entry) for _, entry in given] == [EventWindow, InvalidArgument]

    run(main())


# A quiet source.


def quiet(source: Any, assigner: Assigner, idle_after: float | None, **kwargs: Any) -> list[Any]:
    windows = event_windows(source, assigner, timestamp=float, idle_after=idle_after, **kwargs)
    return [(at, w.items) for at, w in run(timeline(windows))]


def test_a_quiet_source_holds_its_windows_back_unless_asked() -> None:
    source = timed(1.0, 4.0, Wait(100), 12.0)
    assert quiet(source, TumblingWindows(10), None) == [(100, [1, 4]), (100, [12])]


def test_the_clock_moves_the_watermark_of_a_quiet_source_from_its_last_item() -> None:
    """The watermark is at 4 when the silence begins, so the window's end is 6 seconds away."""
    source = timed(1.0, Wait(3), 4.0, Wait(100), 12.0)
    assert quiet(source, TumblingWindows(10), 2.0) == [(3 + 6, [1, 4]), (103, [12])]


def test_the_clock_moves_nothing_before_the_silence_is_long_enough() -> None:
    source = timed(1.0, Wait(3), 4.0, Wait(100), 12.0)
    assert quiet(source, TumblingWindows(10), 20.0) == [(23, [1, 4]), (103, [12])]


def test_slack_is_waited_for_also_while_it_is_quiet() -> None:
    source = timed(4.0, Wait(100), 12.0)
    assert quiet(source, TumblingWindows(10), 2.0, max_out_of_orderness=3) == [
        (9, [4]),
        (100, [12]),
    ]


def test_items_that_keep_coming_are_not_silence() -> None:
    source = timed(*(step for at in range(9) for step in (at / 10, Wait(1.75))))
    assert quiet(source, TumblingWindows(10), 2.0) == [(9 * 1.75, [at / 10 for at in range(9)])]


def test_the_clock_reaches_several_ends_one_after_the_other() -> None:
    source = timed(1.0, Wait(0.5), 4.0, Wait(100))
    assert quiet(source, SlidingWindows(10, 5), 1.0) == [(1.5, [1, 4]), (6.5, [1, 4])]


def test_the_clock_goes_no_further_than_open_windows_need() -> None:
    """An item after a long silence is not late because of it."""
    source = timed(4.0, Wait(1000), 11.0, 12.0)
    assert fired(source, TumblingWindows(10), idle_after=1.0) == [
        (0, 10, [4], 0, ON_TIME),
        (10, 20, [11, 12], 0, ON_TIME),
    ]


def test_a_jump_in_event_time_brings_the_timer_forward() -> None:
    """Armed for an end an hour away, it is wanted much earlier once time has jumped."""
    source = timed(0.0, Wait(5), 3597.0, Wait(10_000))
    assert quiet(source, TumblingWindows(3600), 2.0) == [(8, [0, 3597])]


def test_time_for_which_the_source_was_kept_waiting_is_not_silence() -> None:
    async def main() -> None:
        source = timed(1.0, 12.0, 13.0, Wait(1), 14.0, Wait(100), 50.0)
        windows = event_windows(source, TumblingWindows(10), timestamp=float, idle_after=2.0)
        given = await timeline(windows, pause=60.0)
        assert [w.items for _, w in given] == [[1], [12, 13, 14], [50]]

    run(main())


def test_a_quiet_source_of_sessions() -> None:
    source = timed(1.0, Wait(1), 3.0, Wait(100), 50.0)
    assert quiet(source, SessionWindows(5), 2.0) == [(6, [1, 3]), (101, [50])]


# State.


class Counting:
    """A source that looks at what its windows hold."""

    def __init__(self, stamps: Sequence[float]) -> None:
        self.stamps = stamps
        self.held: list[int] = []
        self.pump: EventPump | None = None

    async def __aiter__(self) -> AsyncIterator[float]:
        for at in self.stamps:
            yield at
            assert self.pump
            self.held.append(self.pump.state.assigned())


@pytest.mark.parametrize(
    ("assigner", "lateness", "most"),
    [
        (TumblingWindows(10), 0.0, 1),
        (TumblingWindows(10), 30.0, 4),
        (SlidingWindows(10, 5), 0.0, 2),
        (SlidingWindows(10, 5), 10.0, 4),
        (SessionWindows(0.5), 0.0, 1),
        (SessionWindows(0.5), 10.0, 11),
    ],
)
def test_state_is_freed_below_the_watermark(assigner: Assigner, lateness: float, most: int) -> None:
    async def main() -> None:
        source = Counting(range(1000))
        windows: Any = event_windows.raw(
            source, assigner, timestamp=float, allowed_lateness=lateness
        )
        source.pump = windows._pump
        async for _ in windows:
            pass
        assert max(source.held) <= most
        held = source.pump.state
        assert held.assigned() == 0
        assert not held.recent
        assert isinstance(held, _AlignedState | _SessionState)
        assert not held._ends
        assert not held._kept

    run(main())


def test_state_of_many_keys_is_freed_too() -> None:
    async def main() -> None:
        source = Counting(range(5000))
        windows: Any = event_windows.raw(
            source,
            SessionWindows(1.5),
            timestamp=float,
            key=lambda at: at % 1000,
            allowed_lateness=3.0,
        )
        source.pump = windows._pump
        async for _ in windows:
            pass
        assert max(source.held) <= 5
        assert windows._pump.state._by_key == {}

    run(main())


# Failures.


def test_a_failure_is_emitted_at_once_and_fires_nothing() -> None:
    async def source() -> AsyncIterator[Result[float, str]]:
        for result in (Success(1.0), Failure("bad"), Success(4.0), Success(12.0), Failure("worse")):
            yield result

    got: list[Any] = []

    async def read() -> None:
        results = ResultStream.from_results(source()).event_windows(
            TumblingWindows(10), timestamp=float
        )
        async with results.stream() as items:
            got.extend([item.map(lambda w: w.items) async for item in items])

    run(read())
    assert got == [Failure("bad"), Success([1, 4]), Failure("worse"), Success([12])]


# Arguments.


@pytest.mark.parametrize(
    "make",
    [
        lambda: TumblingWindows(0),
        lambda: TumblingWindows(-1.0),
        lambda: TumblingWindows(math.nan),
        lambda: TumblingWindows(math.inf),
        lambda: TumblingWindows(10, offset=math.nan),
        lambda: SlidingWindows(0, 1),
        lambda: SlidingWindows(1, 0),
        lambda: SlidingWindows(5, 6),
        lambda: SessionWindows(0),
        lambda: SessionWindows(math.inf),
        lambda: event_windows(timed(1.0), TumblingWindows(1), timestamp=float, allowed_lateness=-1),
        lambda: event_windows(
            timed(1.0), TumblingWindows(1), timestamp=float, allowed_lateness=math.nan
        ),
        lambda: event_windows(
            timed(1.0), TumblingWindows(1), timestamp=float, max_out_of_orderness=-1
        ),
        lambda: event_windows(
            timed(1.0), TumblingWindows(1), timestamp=float, max_out_of_orderness=math.inf
        ),
        lambda: event_windows(timed(1.0), TumblingWindows(1), timestamp=float, idle_after=0),
        lambda: ResultStream.of(timed(1.0)).event_windows(
            TumblingWindows(1), timestamp=float, idle_after=-1
        ),
    ],
    ids=map(str, range(16)),
)
def test_numbers_out_of_range_are_refused_at_the_call(make: Any) -> None:
    with pytest.raises(InvalidArgument):
        make()


@pytest.mark.parametrize("wrong", [{"assigner": 5.0}, {"assigner": TumblingWindows(1), "late": 3}])
def test_things_of_another_kind_are_refused_at_the_call(wrong: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        _ = event_windows(timed(1.0), timestamp=float, **wrong)


def test_windows_lie_without_gaps_or_overlaps_however_numbers_are_rounded() -> None:
    aligned = _AlignedState(0.1, 0.1, 0.0, 0.0)
    for index in range(-1000, 1000):
        assert aligned._end(index) == aligned._start(index + 1)
        at = aligned._start(index)
        assert aligned._last_index(at) == index
        assert aligned._last_index(math.nextafter(at, -math.inf)) == index - 1


# Laws.

stamps = st.lists(st.integers(0, 60).map(float), max_size=25)
lateness = st.sampled_from([0.0, 4.0, 1000.0])
slack = st.sampled_from([0.0, 3.0, 1000.0])


@given(
    at=stamps,
    size=st.integers(1, 20),
    every=st.integers(1, 20),
    lateness=lateness,
    slack=slack,
)
def test_aligned_windows_against_their_definition(
    at: list[float], size: int, every: int, lateness: float, slack: float
) -> None:
    """Item by item, with lists for everything and nothing remembered that could be worked out."""
    every = min(size, every)
    held: dict[int, list[float]] = {}
    count: dict[int, int] = {}
    expected: list[Pane] = []
    watermark = -math.inf

    def give(start: int, *, late: bool) -> None:
        expected.append((start, start + size, list(held[start]), count.get(start, 0), late))
        count[start] = count.get(start, 0) + 1

    for stamp in [*at, math.inf]:
        if stamp != math.inf:
            for start in range(-60 * every, 100 * every, every):
                if not start <= stamp < start + size:
                    continue
                if start + size + lateness <= watermark:
                    expected.append((start, start + size, [stamp], 0, LATE))
            for start in range(-60 * every, 100 * every, every):
                if start <= stamp < start + size and start + size + lateness > watermark:
                    held.setdefault(start, []).append(stamp)
                    if start + size <= watermark:
                        give(start, late=LATE)
        moved = max(watermark, stamp - slack)
        for start in sorted(held):
            if watermark < start + size <= moved:
                give(start, late=ON_TIME)
        watermark = moved
    assert fired(
        at, SlidingWindows(size, every), allowed_lateness=lateness, max_out_of_orderness=slack
    ) == (expected)


@given(at=stamps, gap=st.integers(1, 9).map(float), lateness=lateness, slack=slack)
def test_sessions_lose_nothing_and_end_as_if_all_had_been_sorted(
    at: list[float], gap: float, lateness: float, slack: float
) -> None:
    panes = fired(at, SessionWindows(gap), allowed_lateness=lateness, max_out_of_orderness=slack)
    for start, end, items, number, _ in panes:
        assert items
        assert start == min(items)
        assert end == max(items) + gap
        assert number == 0 or lateness
    if slack >= 60 or lateness >= 1000:  # nothing was forgotten: the last panes hold all, once
        last: dict[float, Pane] = {}
        for one in panes:
            for other in list(last.values()):
                if set(other[2]) <= set(one[2]):
                    del last[other[0]]
            last[one[0]] = one
        assert sorted(item for one in last.values() for item in one[2]) == sorted(at)
        sessions: list[list[float]] = []
        for stamp in sorted(at):
            if sessions and stamp - sessions[-1][-1] < gap:
                sessions[-1].append(stamp)
            else:
                sessions.append([stamp])
        assert [sorted(one[2]) for one in sorted(last.values())] == sessions


@given(at=stamps, gap=st.integers(1, 9).map(float))
def test_every_item_is_in_a_pane_whatever_comes_when(at: list[float], gap: float) -> None:
    for assigner in (TumblingWindows(gap), SessionWindows(gap)):
        got = sorted(item for _, _, items, _, _ in fired(at, assigner) for item in items)
        assert got == sorted(at)


def test_script_paced_by_the_clock() -> None:
    """Windows fire when the item comes that passes their end, at its time."""

    async def main() -> None:
        source = script("a-b--c|", values={"a": 1.0, "b": 9.0, "c": 10.0})
        windows = event_windows(source, TumblingWindows(10), timestamp=float)
        assert [(at, w.items) for at, w in await timeline(windows)] == [
            (5.0, [1, 9]), (6.0, [10]),
        ]  # fmt: skip

    run(main())


@pytest.mark.parametrize("merged", [False, True])
def test_a_quiet_clock_goes_to_the_end_a_session_has_not_to_the_one_it_had(merged: bool) -> None:
    async def source() -> AsyncIterator[tuple[str, float]]:
        yield "a", 0.0
        if merged:
            yield "a", 6.0
        yield "a", 3.0  # the session is [0, 8) now, or [0, 11); the watermark is 3, or 4
        await asyncio.sleep(3)
        yield "b", -0.5  # [-0.5, 4.5): in time

    async def main() -> None:
        late: list[object] = []
        windows = event_windows(
            source(),
            SessionWindows(5),
            timestamp=lambda item: item[1],
            key=lambda item: item[0],
            max_out_of_orderness=2.0 if merged else 0.0,
            idle_after=1.0,
            late=late.append,
        )
        async with windows.stream() as items:
            found = [(w.key, w.start, w.end) async for w in items]
        assert late == []
        assert sorted(found) == [("a", 0.0, 11.0 if merged else 8.0), ("b", -0.5, 4.5)]

    run(main())
