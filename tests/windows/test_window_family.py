"""What the windows by weight, by key, by silence and by place promise, beyond the battery."""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import pytest
from returns.result import Failure, Result, Success

from returns_pipeline import InvalidArgument, ResultStream, pipe
from returns_pipeline import windows as family
from returns_pipeline.testing import VirtualTimeLoop, Wait, run, script, timed, timeline
from returns_pipeline.windows import (
    TumblingWindows,
    chunks_by_weight,
    chunks_or_timeout,
    keyed_chunks,
    sessions,
    sliding,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

first = itemgetter(0)


def given(windows: Any, *, pause: float = 0.0) -> list[Any]:
    return [window for _, window in run(timeline(windows, pause=pause))]


# By weight.


def test_the_item_that_does_not_fit_begins_the_next_list() -> None:
    assert given(chunks_by_weight(timed(3, 3, 5, 9, 1, 1), 10, 1.0, weight=float)) == [
        [3, 3], [5], [9, 1], [1],
    ]  # fmt: skip


def test_an_item_heavier_than_any_list_is_alone_and_does_not_wait() -> None:
    source = timed(1, 30, Wait(5), 2, math.inf, Wait(5), 1)
    windows = chunks_by_weight(source, 10, 100.0, weight=float)
    assert run(timeline(windows)) == [
        (0, [1]), (0, [30]), (5, [2]), (5, [math.inf]), (10, [1]),
    ]  # fmt: skip


def test_a_list_of_exactly_the_limit_still_takes_what_weighs_nothing() -> None:
    source = timed(5, 5, 0, Wait(1), 0, 1, 0)
    assert run(timeline(chunks_by_weight(source, 10, 3.0, weight=float))) == [
        (1, [5, 5, 0, 0]),
        (1, [1, 0]),
    ]


def test_a_list_by_weight_is_emitted_at_its_deadline() -> None:
    source = timed(1, Wait(1.5), 2, Wait(1.5), 3, Wait(9), 4)
    assert run(timeline(chunks_by_weight(source, 100, 2.0, weight=float))) == [
        (2, [1, 2]),
        (5, [3]),
        (12, [4]),
    ]


def test_a_late_reader_gets_what_has_gathered_up_to_the_weight() -> None:
    source = timed(1, Wait(3), 2, Wait(3), 3, Wait(3), 9, Wait(30))
    windows = chunks_by_weight(source, 10, 1.0, weight=float)
    assert run(timeline(windows, pause=8.5)) == [(1, [1]), (9.5, [2, 3]), (18, [9])]


@pytest.mark.parametrize("weight", [Decimal, Fraction, lambda price: int(price) * 10**400])
def test_weights_may_be_any_numbers_that_add_up(weight: Callable[[str], Any]) -> None:
    windows = chunks_by_weight(timed("1", "2", "3"), weight("3"), 1.0, weight=weight)
    assert run(timeline(windows)) == [(0.0, ["1", "2"]), (0.0, ["3"])]


def test_weight_without_a_limit_closes_by_age_and_count_alone() -> None:
    windows = chunks_by_weight(timed(1, math.inf, 3), math.inf, math.inf, weight=float, n=2)
    assert given(windows) == [[1, math.inf], [3]]


@pytest.mark.parametrize("weight", [-1, math.nan, -math.inf])
def test_a_weight_that_is_none_ends_the_stream_after_the_open_list(weight: float) -> None:
    windows = chunks_by_weight(timed(1, weight, 3), 10, 1.0, weight=float)
    read = run(timeline(windows, error=InvalidArgument))
    assert [type(entry) for _, entry in read] == [list, InvalidArgument]
    assert read[0] == (0, [1])


# By key.


def test_each_key_has_a_clock_of_its_own() -> None:
    source = timed("a1", Wait(1), "b1", Wait(1), "a2", Wait(1.5), "b2", Wait(9), "b3")
    assert run(timeline(keyed_chunks(source, 9, 3.0, key=first))) == [
        (3, ("a", ["a1", "a2"])),
        (4, ("b", ["b1", "b2"])),
        (12.5, ("b", ["b3"])),
    ]


def test_lists_due_at_one_instant_come_in_the_order_of_their_opening() -> None:
    source = timed("b1", "c1", "a1", "c2", Wait(9), "d1")
    assert [key for key, _ in given(keyed_chunks(source, 9, 3.0, key=first))] == [*"bcad"]


def test_the_source_waits_until_a_list_that_made_room_for_a_new_key_is_taken() -> None:
    async def main() -> None:
        source = timed(*"abcdefgh")
        reading: Any = keyed_chunks.raw(source, 100, 99.0, key=first, max_keys=2)
        for taken in range(1, 5):
            await anext(reading)
            await asyncio.sleep(9)
            assert source.given == taken + 3  # two are open, and the next one has to wait
        await reading.aclose()

    run(main())


def test_at_max_keys_the_oldest_list_makes_room() -> None:
    source = timed("a1", "b1", "a2", "c1", "a3", "b2")
    assert given(keyed_chunks(source, 9, 3.0, key=first, max_keys=2)) == [
        ("a", ["a1", "a2"]),
        ("b", ["b1"]),
        ("c", ["c1"]),
        ("a", ["a3"]),
        ("b", ["b2"]),
    ]


def test_a_list_that_is_due_and_not_taken_continues_filling() -> None:
    source = timed("a1", Wait(2), "a2", Wait(2), "a3", Wait(2), "a4", Wait(2), "a5")
    windows = keyed_chunks(source, 3, 1.0, key=first)
    assert run(timeline(windows, pause=4.5)) == [
        (1, ("a", ["a1"])), (5.5, ("a", ["a2", "a3"])), (10, ("a", ["a4", "a5"])),
    ]  # fmt: skip


def test_no_list_is_opened_while_those_that_are_due_hold_n_items() -> None:
    async def main() -> None:
        source = timed(*(step for key in "abcdefgh" for step in (key, Wait(2))))
        windows = keyed_chunks.raw(source, 3, 1.0, key=str)
        assert await anext(windows) == ("a", ["a"])
        await asyncio.sleep(100)
        assert source.given == 5  # b, c and d are due; e is in hand
        assert [await anext(windows) for _ in range(7)] == [(key, [key]) for key in "bcdefgh"]
        await windows.aclose()  # type: ignore[attr-defined]

    run(main())


def test_a_hundred_thousand_open_keys_have_one_timer() -> None:
    async def main() -> None:
        async def source() -> AsyncIterator[int]:
            for key in range(100_000):
                yield key
            await asyncio.sleep(1)
            yield -1
            await asyncio.get_running_loop().create_future()

        loop = asyncio.get_running_loop()
        windows = keyed_chunks.raw(source(), 10, 2.0, key=int)
        reading = asyncio.ensure_future(anext(windows))
        await asyncio.sleep(1.5)
        assert [h for h in loop._scheduled if not h.cancelled()] != []  # type: ignore[attr-defined]
        assert len(loop._scheduled) == 1  # type: ignore[attr-defined]
        assert await reading == (0, [0])
        assert loop.time() == 2.0
        assert [key for key, _ in [await anext(windows) for _ in range(99_999)]] == [
            *range(1, 100_000)
        ]
        assert loop.time() == 2.0
        assert await anext(windows) == (-1, [-1])
        assert loop.time() == 3.0
        await windows.aclose()  # type: ignore[attr-defined]

    run(main())


def test_a_key_that_cannot_be_hashed_is_a_type_error_after_the_open_lists() -> None:
    def key(item: int) -> Any:
        return [] if item == 3 else item

    read = run(timeline(keyed_chunks(timed(1, 2, 3), 9, 1.0, key=key), error=TypeError))
    assert [entry for _, entry in read[:-1]] == [(1, [1]), (2, [2])]
    assert isinstance(read[-1][1], TypeError)


# By silence.


def test_a_session_ends_when_it_has_been_silent_for_the_gap() -> None:
    assert run(timeline(sessions(script("a-b-c----d-|"), 3.0))) == [
        (7, [*"abc"]),
        (11, ["d"]),
    ]


def test_an_item_at_the_end_of_the_gap_begins_the_next_session() -> None:
    assert given(sessions(timed("a", Wait(3), "b", Wait(2.9), "c"), 3.0)) == [["a"], ["b", "c"]]


def test_a_gap_in_which_the_source_held_the_loop_up_is_a_gap() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)

        async def source() -> AsyncIterator[str]:
            yield "a"
            loop._now += 5  # a blocking call
            yield "b"
            loop._now += 1
            yield "c"

        assert [session async for session in sessions.raw(source(), 2.0)] == [["a"], ["b", "c"]]

    run(main())


def test_a_session_that_never_falls_silent_ends_by_its_duration() -> None:
    source = timed(*(step for item in "abcdefg" for step in (item, Wait(1))))
    assert run(timeline(sessions(source, 2.0, max_duration=2.5))) == [
        (2.5, [*"abc"]), (5.5, [*"def"]), (7, ["g"]),
    ]  # fmt: skip


def test_sessions_of_several_keys_end_each_by_its_own_silence() -> None:
    source = timed("a1", "b1", Wait(2), "b2", Wait(2), "b3", Wait(9), "a2")
    assert run(timeline(sessions(source, 3.0, key=first))) == [
        (3, ["a1"]), (7, ["b1", "b2", "b3"]), (13, ["a2"]),
    ]  # fmt: skip


def test_sessions_that_end_at_one_instant_come_in_the_order_of_their_opening() -> None:
    source = timed("a1", "b1", "c1", Wait(1), "c2", "b2", "a2", Wait(9))
    assert [session[0] for session in given(sessions(source, 3.0, key=first))] == [
        "a1", "b1", "c1",
    ]  # fmt: skip


def test_a_session_ended_by_its_duration_and_one_by_silence_come_by_their_ends() -> None:
    # a: 0..5 by duration; b: silent from 1, at 5 by silence; c: silent from 0.5, at 4.5.
    source = timed("a1", Wait(0.5), "c1", Wait(0.5), "b1", Wait(1), "a2", Wait(2), "a3", Wait(9))
    windows = sessions(source, 4.0, max_duration=5.0, key=first)
    assert run(timeline(windows)) == [
        (4.5, ["c1"]), (5, ["a1", "a2", "a3"]), (5, ["b1"]),
    ]  # fmt: skip


def test_a_slow_reader_makes_no_silence() -> None:
    """While the source waits, the clock of the sessions does not move."""
    steps = ["a", Wait(9), "b", Wait(1), "c", Wait(1), "d", Wait(9), "e"]
    expected = [["a"], ["b", "c", "d"], ["e"]]
    for pause in (0.0, 3.0, 50.0):
        assert given(sessions(timed(*steps), 2.0), pause=pause) == expected


@pytest.mark.parametrize("pause", [0.0, 2.3, 10.0])
def test_a_reader_slow_for_one_key_cuts_no_session_of_another(pause: float) -> None:
    """b1 waits for the reader when b2 comes; for that long, c's silence does not count."""
    source = timed("a1", Wait(1), "b1", Wait(1.5), "c1", Wait(1.5), "b2", Wait(0.4), "c2", Wait(9))
    assert given(sessions(source, 2.0, key=first), pause=pause) == [
        ["a1"], ["b1"], ["b2"], ["c1", "c2"],
    ]  # fmt: skip


def test_at_max_keys_the_session_silent_for_longest_makes_room() -> None:
    source = timed("a1", Wait(1), "b1", Wait(1), "a2", "c1", Wait(1), "a3", "b2", Wait(9))
    assert run(timeline(sessions(source, 5.0, key=first, max_keys=2))) == [
        (2.0, ["b1"]),
        (3.0, ["c1"]),
        (8.0, ["a1", "a2", "a3"]),
        (8.0, ["b2"]),
    ]


@pytest.mark.parametrize("pause", [0.0, 1.5, 30.0])
def test_a_session_that_has_to_make_room_waits_for_the_reader_and_cuts_no_other(
    pause: float,
) -> None:
    source = timed("a1", "b1", "c1", "d1", Wait(1), "c2", "e1", Wait(2), "c3", Wait(9))
    windows = sessions(source, 2.5, key=first, max_keys=2)
    assert given(windows, pause=pause) == [["a1"], ["b1"], ["d1"], ["e1"], ["c1", "c2", "c3"]]


def test_the_source_waits_until_a_session_that_made_room_is_taken() -> None:
    async def main() -> None:
        source = timed(*"abcdefgh")
        reading: Any = sessions.raw(source, 99.0, key=first, max_keys=2)
        for taken in range(1, 5):
            assert await anext(reading) == ["abcdefgh"[taken - 1]]
            await asyncio.sleep(9)
            assert source.given == taken + 3  # two are open, and the next one has to wait
        await reading.aclose()

    run(main())


def test_a_hundred_thousand_open_sessions_have_one_timer() -> None:
    async def main() -> None:
        async def source() -> AsyncIterator[int]:
            for key in range(100_000):
                yield key
            await asyncio.sleep(1.5)
            yield 0
            await asyncio.get_running_loop().create_future()

        loop = asyncio.get_running_loop()
        windows = sessions.raw(source(), 2.0, key=int)
        assert await anext(windows) == [1]
        assert loop.time() == 2.0
        assert len(loop._scheduled) <= 1  # type: ignore[attr-defined]
        for key in range(2, 100_000):
            assert await anext(windows) == [key]
        assert await anext(windows) == [0, 0]
        assert loop.time() == 3.5
        await windows.aclose()  # type: ignore[attr-defined]

    run(main())


# By place.


@pytest.mark.parametrize(
    ("n", "step", "expected"),
    [
        (3, 1, ["123", "234", "345"]),
        (3, 2, ["123", "345"]),
        (3, 3, ["123", "45"]),
        (2, 3, ["12", "45"]),
        (2, 5, ["12"]),
        (4, 3, ["1234", "45"]),
        (9, 1, ["12345"]),
        (1, 1, ["1", "2", "3", "4", "5"]),
        (1, 2, ["1", "3", "5"]),
    ],
)
@pytest.mark.parametrize("pause", [0.0, 1.0])
def test_runs_of_neighbours(n: int, step: int, expected: list[str], pause: float) -> None:
    windows = sliding(timed(*"12345"), n, step=step)
    assert ["".join(window) for window in given(windows, pause=pause)] == expected


def test_a_run_is_emitted_with_its_last_item() -> None:
    assert run(timeline(sliding(script("a-b-c-d-|"), 3))) == [(4, [*"abc"]), (6, [*"bcd"])]


def test_a_run_emitted_is_the_readers_own() -> None:
    async def main() -> None:
        runs = sliding.raw(timed(1, 2, 3), 2)
        taken = await anext(runs)
        taken.clear()
        assert await anext(runs) == [2, 3]
        await runs.aclose()  # type: ignore[attr-defined]

    run(main())


def test_items_that_are_in_no_run_let_other_tasks_run_too() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        ticks = 0

        async def other() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        async def source() -> AsyncIterator[int]:
            for item in range(100_000):
                loop._now += 1e-5  # what its work takes
                yield item

        running = asyncio.create_task(other())
        runs = sliding.raw(source(), 1, step=90_000)
        assert [run async for run in runs] == [[0], [90_000]]
        running.cancel()
        await asyncio.wait({running})
        assert 100 <= ticks <= 300

    run(main())


# Functions that raise, and arguments.


@pytest.mark.parametrize(
    "make",
    [
        lambda source, fail: chunks_by_weight(source, 10, 1.0, weight=fail),
        lambda source, fail: keyed_chunks(source, 9, 1.0, key=fail),
        lambda source, fail: sessions(source, 1.0, key=fail),
    ],
    ids=["weight", "key", "session key"],
)
def test_what_a_function_raises_comes_after_what_is_open(make: Callable[..., Any]) -> None:
    def fail(item: int) -> int:
        return 1 // (3 - item)

    source = timed(1, 2, 3, 4)
    read = run(timeline(make(source, fail), error=ZeroDivisionError))
    assert isinstance(read[-1][1], ZeroDivisionError)
    items = [entry[1] if isinstance(entry, tuple) else entry for _, entry in read[:-1]]
    assert items in ([[1, 2]], [[1], [2]])
    assert source.opened == source.closed == 1
    assert source.given == 3


def results() -> ResultStream[int, str]:
    return ResultStream.from_results(timed(Success(1), Success(2)))


refused: dict[str, Callable[[], object]] = {
    "max_weight 0": lambda: chunks_by_weight(timed(1), 0, 1.0, weight=float),
    "max_weight nan": lambda: chunks_by_weight(timed(1), math.nan, 1.0, weight=float),
    "weight timeout": lambda: chunks_by_weight(timed(1), 1, 0.0, weight=float),
    "weight n": lambda: chunks_by_weight(timed(1), 1, 1.0, weight=float, n=0),
    "keyed n": lambda: keyed_chunks(timed(1), 0, 1.0, key=str),
    "keyed timeout": lambda: keyed_chunks(timed(1), 1, math.nan, key=str),
    "keyed max_keys": lambda: keyed_chunks(timed(1), 1, 1.0, key=str, max_keys=0),
    "sliding n": lambda: sliding(timed(1), 0),
    "sliding step": lambda: sliding(timed(1), 1, step=0),
    "gap": lambda: sessions(timed(1), 0.0),
    "gap nan": lambda: sessions(timed(1), math.nan),
    "max_duration": lambda: sessions(timed(1), 1.0, max_duration=0),
    "sessions n": lambda: sessions(timed(1), 1.0, n=0),
    "sessions max_keys": lambda: sessions(timed(1), 1.0, key=str, max_keys=0),
    "gap too large": lambda: sessions(timed(1), 10**400),
    "piped": lambda: sessions.pipe(0.0),
    "piped by weight": lambda: pipe.chunks_by_weight(0, 1.0, weight=float),
    "piped by key": lambda: pipe.keyed_chunks(0, 1.0, key=str),
    "piped sliding": lambda: pipe.sliding(0),
    "piped event time": lambda: pipe.event_windows(
        TumblingWindows(1), timestamp=float, allowed_lateness=-1
    ),
    "raw": lambda: sliding.raw(timed(1), 0),
    "method by weight": lambda: results().chunks_by_weight(0, 1.0, weight=float),
    "method by key": lambda: results().keyed_chunks(0, 1.0, key=str),
    "method sliding": lambda: results().sliding(0),
    "method sessions": lambda: results().sessions(0),
}


@pytest.mark.parametrize("make", refused.values(), ids=refused)
def test_arguments_out_of_range_are_refused_at_the_call(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidArgument):
        make()


# Methods: values are grouped, a failure flushes.

NO = Failure("no")


def of_results(*steps: Any) -> ResultStream[str, str]:
    wrapped = [step if isinstance(step, Wait | Result) else Success(step) for step in steps]
    return ResultStream.from_results(timed(*wrapped))


def test_a_failure_flushes_the_list_by_weight_and_keeps_its_place() -> None:
    stream = of_results("aa", "b", NO, "c", NO, NO, "dddddd", NO).chunks_by_weight(
        4, 1.0, weight=len
    )
    assert given(stream) == [
        Success(["aa", "b"]), NO, Success(["c"]), NO, NO, Success(["dddddd"]), NO,
    ]  # fmt: skip


def test_a_failure_flushes_the_lists_of_all_keys_the_oldest_first() -> None:
    stream = of_results("b1", "a1", "b2", NO, "a2", NO).keyed_chunks(9, 1.0, key=first)
    assert given(stream) == [
        Success(("b", ["b1", "b2"])), Success(("a", ["a1"])), NO, Success(("a", ["a2"])), NO,
    ]  # fmt: skip


def test_a_failure_flushes_all_sessions_the_oldest_first() -> None:
    stream = of_results("b1", "a1", Wait(1), "b2", NO, "b3").sessions(2.0, key=first)
    assert run(timeline(stream)) == [
        (1, Success(["b1", "b2"])), (1, Success(["a1"])), (1, NO), (1, Success(["b3"])),
    ]  # fmt: skip


def test_a_failure_ends_a_run_of_neighbours_and_the_next_begins_again() -> None:
    stream = of_results("a", "b", "c", NO, "d", NO, "e", "f", "g", "h").sliding(3, step=2)
    assert given(stream) == [
        Success(["a", "b", "c"]), NO, Success(["d"]), NO, Success(["e", "f", "g"]),
        Success(["g", "h"]),
    ]  # fmt: skip


def test_what_a_run_leaves_out_begins_again_after_a_failure() -> None:
    stream = of_results("a", NO, "b", "c", "d").sliding(1, step=3)
    assert given(stream) == [Success(["a"]), NO, Success(["b"])]


@pytest.mark.parametrize("pause", [0.0, 5.0])
def test_failures_lose_and_move_nothing_whatever_the_reader_takes(pause: float) -> None:
    def fresh() -> ResultStream[str, str]:
        return of_results(
            "a1", Wait(1), NO, "a2", "b1", Wait(3), NO, "b2", "b3", "b4", "a3", NO, NO
        )

    windows: list[ResultStream[Any, str]] = [
        fresh().chunks_or_timeout(2, 1.0),
        fresh().chunks_by_weight(4, 1.0, weight=len),
        fresh().keyed_chunks(2, 1.0, key=first),
        fresh().sliding(2, step=2),
        fresh().sessions(1.0, n=2),
    ]
    for stream in windows:
        order: list[str] = []
        for result in given(stream, pause=pause):
            if isinstance(result, Failure):
                order.append(result.failure())
            else:
                value = result.unwrap()
                order.extend(value[1] if isinstance(value, tuple) else value)
        assert len(order) == 11
        parts = " ".join(order).split(" no")
        assert [sorted(part.split()) for part in parts] == [
            ["a1"], ["a2", "b1"], ["a3", "b2", "b3", "b4"], [], [],
        ]  # fmt: skip


def test_until_flushes_what_is_open() -> None:
    async def main() -> None:
        stop = asyncio.Event()
        stream = (
            of_results("a", "b", Wait(1000), "c").keyed_chunks(9, 900.0, key=first).drain_on(stop)
        )
        asyncio.get_running_loop().call_later(5, stop.set)
        assert await timeline(stream) == [(5, Success(("a", ["a"]))), (5, Success(("b", ["b"])))]

    run(main())


def test_the_windows_agree_where_they_can_do_the_same() -> None:
    def source() -> Any:
        return timed(*(step for item in range(30) for step in (item, Wait(item % 7 / 2))))

    expected = run(timeline(chunks_or_timeout(source(), 4, 3.25)))
    assert run(timeline(chunks_by_weight(source(), 9, 3.25, weight=bool, n=4))) == expected
    keyed = run(timeline(keyed_chunks(source(), 4, 3.25, key=lambda _: None)))
    assert [(at, window) for at, (_, window) in keyed] == expected
    assert run(timeline(sessions(source(), math.inf, max_duration=3.25, n=4))) == expected


@pytest.mark.parametrize("two", [Decimal(2), Fraction(2), timedelta(seconds=2)], ids=repr)
def test_a_time_may_be_given_exactly_or_as_a_timedelta(two: Any) -> None:
    def source() -> Any:
        return timed(1, Wait(1.0), 2, Wait(9.0), 3)

    expected = [(2.0, [1, 2]), (10.0, [3])]
    assert run(timeline(chunks_by_weight(source(), 9, two, weight=lambda _: 1))) == expected
    keyed = run(timeline(keyed_chunks(source(), 9, two, key=bool)))
    assert [(at, items) for at, (_, items) in keyed] == expected
    assert run(timeline(sessions(source(), two, max_duration=two))) == expected
    windows = family.event_windows(
        source(),
        family.TumblingWindows(two, offset=two),
        timestamp=float,
        max_out_of_orderness=two,
    )
    assert [window.items for _, window in run(timeline(windows))] == [[1], [2, 3]]
    methods = ResultStream.of(source()).sessions(two).map(list)
    assert [at for at, _ in run(timeline(methods))] == [3.0, 10.0]
