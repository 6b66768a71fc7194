"""What scripted sources emit, and when; and what the recorder reads back."""

from __future__ import annotations

import asyncio
import contextlib
import math
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from returns_pipeline import InvalidArgument, chunks_or_timeout
from returns_pipeline.testing import (
    Deadlock,
    Scripted,
    ScriptError,
    Wait,
    advance,
    run,
    script,
    timed,
    timeline,
)


def test_timed_emits_items_after_their_pauses_and_then_ends() -> None:
    source = timed(Wait(2), "a", "b", Wait(0.5), "c", Wait(9))
    assert run(timeline(source)) == [(2.0, "a"), (2.0, "b"), (2.5, "c")]


def test_timed_waits_from_the_moment_it_is_asked_so_a_slow_reader_delays_it() -> None:
    assert run(timeline(timed("a", Wait(1), "b", Wait(1), "c"), pause=10)) == [
        (0.0, "a"),
        (11.0, "b"),
        (22.0, "c"),
    ]


def test_a_script_keeps_its_times_so_a_slow_reader_gets_at_once_what_was_due() -> None:
    assert run(timeline(script("ab--------c|"), pause=4)) == [
        (0.0, "a"),
        (4.0, "b"),
        (10.0, "c"),
    ]


def test_the_end_of_a_script_comes_at_its_time() -> None:
    async def main() -> float:
        assert await timeline(script("a---|", step=2)) == [(0.0, "a")]
        return asyncio.get_running_loop().time()

    assert run(main()) == 8.0


def test_a_bracket_is_one_instant_and_takes_one_step() -> None:
    assert run(timeline(script("(ab)(c)-(de|)", step=0.5))) == [
        (0.0, "a"),
        (0.0, "b"),
        (0.5, "c"),
        (1.5, "d"),
        (1.5, "e"),
    ]


def test_spaces_take_no_time() -> None:
    assert run(timeline(script("  a - ( b c ) |"))) == run(timeline(script("a-(bc)|")))


def test_a_script_times_are_exact_wherever_the_clock_stands() -> None:
    async def main() -> None:
        await advance(0.7)
        async for _ in script("--a|", step=0.1):
            assert asyncio.get_running_loop().time() == 0.7 + 2 * 0.1

    run(main())


def test_a_script_without_an_end_stays_silent_forever() -> None:
    with pytest.raises(Deadlock, match="Scripted"):
        run(timeline(script("ab")))
    assert run(timeline(script("ab-"), limit=2)) == [(0.0, "a"), (1.0, "b")]


def test_an_endless_pause_is_a_deadlock_too() -> None:
    with pytest.raises(Deadlock):
        run(timeline(timed("a", Wait(math.inf))))


def test_values_stand_for_the_letters() -> None:
    seen = run(timeline(script("a-b|", values={"a": [1], "b": [2]})))
    assert seen == [(0.0, [1]), (2.0, [2])]


@pytest.mark.parametrize("source", [timed("a", Wait(2), OSError("gone")), script("a-#")])
def test_an_error_is_raised_in_its_place(source: Scripted[str]) -> None:
    error = OSError if "timed" in repr(source) else ScriptError
    with pytest.raises(error):
        run(timeline(source))
    seen = run(timeline(source, error=error))
    assert [time for time, _ in seen] == [0.0, 2.0]
    assert isinstance(seen[-1][1], error)


def test_the_error_of_a_script_can_be_given() -> None:
    error = OSError("gone")
    assert run(timeline(script("-(a#)", error=error), error=OSError)) == [(1.0, "a"), (1.0, error)]


def test_a_cancellation_can_be_scripted_as_a_source_that_awaited_a_cancelled_task() -> None:
    with pytest.raises(asyncio.CancelledError):
        run(timeline(timed("a", asyncio.CancelledError())))


@pytest.mark.parametrize(
    "marbles",
    ["a|b", "a|-", "a#|", "(a|b)", "(a", "a)", "((a))", "()", "(a-)", "a!", "a\n", "(a#|)", "(|a)"],
)
def test_a_script_that_cannot_be_read_is_refused_at_the_call(marbles: str) -> None:
    with pytest.raises(InvalidArgument, match=r"without a meaning|continues|misplaced|not closed"):
        script(marbles)


def test_a_letter_without_a_value_is_refused_at_the_call() -> None:
    with pytest.raises(InvalidArgument, match="'b'"):
        script("ab|", values={"a": 1})


@pytest.mark.parametrize("step", [0, -1, math.nan, math.inf])
def test_a_step_out_of_range_is_refused_at_the_call(step: float) -> None:
    with pytest.raises(InvalidArgument, match="step"):
        script("a|", step=step)


@pytest.mark.parametrize("seconds", [-1, math.nan])
def test_a_pause_out_of_range_is_refused_at_the_call(seconds: float) -> None:
    with pytest.raises(InvalidArgument, match="seconds"):
        Wait(seconds)


def test_steps_behind_an_exception_are_refused_at_the_call() -> None:
    with pytest.raises(InvalidArgument, match="gone"):
        timed("a", OSError("gone"), "b")


def test_a_source_can_be_iterated_again_and_counts_what_was_done_with_it() -> None:
    source = script("abc|")
    assert run(timeline(source)) == run(timeline(source))
    assert (source.opened, source.reads, source.given) == (2, 8, 6)
    assert (source.closed, source.cancelled) == (2, 0)


def test_a_source_that_was_not_read_has_not_been_opened() -> None:
    async def main() -> None:
        await aiter(source).aclose()

    source = timed("a")
    run(main())
    assert (source.opened, source.reads, source.closed) == (0, 0, 0)


def test_a_source_closed_early_counts_as_closed_not_as_cancelled() -> None:
    source = script("abc|")
    assert run(timeline(source, limit=1)) == [(0.0, "a")]
    assert (source.opened, source.reads, source.given) == (1, 1, 1)
    assert (source.closed, source.cancelled) == (1, 0)


def test_a_cancelled_read_is_counted_and_ends_the_iteration() -> None:
    async def main() -> None:
        async with aclosing(aiter(source)) as items:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(anext(items), 1)
            assert [item async for item in items] == []

    source = script("--a|")
    run(main())
    assert (source.opened, source.closed, source.cancelled) == (1, 1, 1)


def test_a_cancelled_wait_leaves_no_timer_behind() -> None:
    async def main() -> None:
        async with aclosing(aiter(timed(Wait(100), "a"))) as items:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(anext(items), 1)
        try:
            await asyncio.Event().wait()
        finally:
            ends.append(asyncio.get_running_loop().time())

    ends: list[float] = []
    with pytest.raises(Deadlock):
        run(main())
    assert ends == [1.0]


def test_a_failed_source_is_closed() -> None:
    source = timed("a", OSError())
    run(timeline(source, error=OSError))
    assert (source.opened, source.closed, source.cancelled) == (1, 1, 0)


def test_timeline_counts_from_its_call() -> None:
    async def main() -> list[tuple[float, str]]:
        await advance(100)
        return await timeline(timed("a", Wait(1), "b"))

    assert run(main()) == [(0.0, "a"), (1.0, "b")]


def test_timeline_raises_other_errors_than_the_one_it_is_told() -> None:
    with pytest.raises(OSError, match="gone"):
        run(timeline(timed("a", OSError("gone")), error=ValueError))


def test_timeline_does_not_throw_its_cancellation_into_the_source() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await timeline(source, pause=10)

    source = script("abc|")
    run(main())
    assert (source.closed, source.cancelled) == (1, 0)


@pytest.mark.parametrize(("limit", "pause"), [(0, 0.0), (None, -1.0), (None, math.nan)])
def test_timeline_refuses_arguments_out_of_range(limit: int | None, pause: float) -> None:
    with pytest.raises(InvalidArgument):
        run(timeline(timed("a"), limit=limit, pause=pause))


def test_a_diagram_reads_like_the_windows_it_makes() -> None:
    chunks = chunks_or_timeout(script("ab--c|"), 10, 3.0)
    assert run(timeline(chunks)) == [(3.0, ["a", "b"]), (5.0, ["c"])]


@given(st.text("ab- ").map(lambda text: text + "|"), st.integers(1, 8))
def test_each_letter_comes_at_its_place_times_the_step(marbles: str, eighths: int) -> None:
    step = eighths / 8  # exact in binary
    places = enumerate(marbles.replace(" ", "")[:-1])
    expected = [(place * step, sign) for place, sign in places if sign != "-"]
    assert run(timeline(script(marbles, step=step))) == expected


def test_sources_say_what_they_play() -> None:
    assert repr(script("ab|")) == "script('ab|')"
    assert repr(timed("a", Wait(1))) == "timed('a', Wait(seconds=1.0))"
