"""What `throttle` and `debounce` promise."""

from __future__ import annotations

import asyncio
import gc
import math
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from returns_pipeline import InvalidArgument
from returns_pipeline.combine import debounce, throttle
from returns_pipeline.testing import (
    VirtualTimeLoop,
    Wait,
    inject_everywhere,
    run,
    script,
    timed,
    timeline,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable

    from returns_pipeline.testing import FaultInjector

PACERS: dict[str, Callable[[AsyncIterable[Any]], AsyncIterator[Any]]] = {
    "throttle": lambda source: throttle.raw(source, 2.0),
    "debounce": lambda source: debounce.raw(source, 0.5),
}
each_pacer = pytest.mark.parametrize("pacer", PACERS.values(), ids=PACERS)

gaps = st.lists(st.sampled_from([0.0, 0.0, 0.25, 1.0, 2.75, 7.5]), max_size=12)


def now() -> float:
    return asyncio.get_running_loop().time()


async def after(waits: list[float]) -> AsyncIterator[int]:
    """Yield the numbers, each after its wait, paced by the clock."""
    due = now()
    for number, wait in enumerate(waits):
        due += wait
        if due > now():
            await asyncio.sleep(due - now())
        yield number


@each_pacer
def test_a_cancelled_read_loses_nothing(pacer: Any) -> None:
    async def main() -> None:
        expected = [item for _, item in await timeline(pacer(script("a-b--(cd)-e|")))]
        made = pacer(script("a-b--(cd)-e|"))
        seen = []
        while True:
            try:
                async with asyncio.timeout(0.3):
                    seen.append(await anext(made))
            except TimeoutError:
                pass
            except StopAsyncIteration:
                break
        assert seen == expected

    run(main())


@each_pacer
def test_closing_or_dropping_stops_source_and_timer(pacer: Any) -> None:
    async def main() -> None:
        for dropped in False, True:
            source = script("a-(bc)-d----e|")
            made = pacer(source)
            await anext(made)
            await asyncio.sleep(2.1)
            if dropped:
                del made
                gc.collect()
                await asyncio.sleep(0.01)
            else:
                await made.aclose()
            assert source.opened == source.closed == 1
            loop: Any = asyncio.get_running_loop()
            assert not [timer for timer in loop._scheduled if not timer.cancelled()]

    run(main())


@each_pacer
def test_cancelled_at_every_await_point_it_closes_its_source(pacer: Any) -> None:
    async def scenario(injector: FaultInjector) -> None:
        source = script("a-b-c|")

        async def reader() -> None:
            made = pacer(source)
            try:
                async for _ in made:
                    pass
            finally:
                await made.aclose()

        try:
            await injector.run(reader())
        except asyncio.CancelledError:
            assert injector.fired
        assert source.opened == source.closed

    assert inject_everywhere(scenario) > 3


@pytest.mark.parametrize(
    "make",
    [
        lambda: throttle(script("a|"), 0),
        lambda: throttle(script("a|"), math.inf),
        lambda: throttle(script("a|"), math.nan),
        lambda: throttle(script("a|"), 1.0, burst=0),
        lambda: debounce(script("a|"), 0),
        lambda: debounce(script("a|"), math.nan),
    ],
    ids=range(6),
)
def test_arguments_out_of_range_are_refused_at_the_call(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidArgument):
        make()


def test_throttle_counts_the_time_that_the_reader_takes() -> None:
    async def main() -> None:
        made = throttle(script("(abcd)|"), 2.0)
        assert await timeline(made, pause=1.5) == [(0.0, "a"), (2.0, "b"), (4.0, "c"), (6.0, "d")]
        assert await timeline(made, pause=3.0) == [(0.0, "a"), (3.0, "b"), (6.0, "c"), (9.0, "d")]

    run(main())


@given(waits=gaps, interval=st.sampled_from([0.5, 1.0, 3.0]), burst=st.integers(1, 3))
def test_throttle_emits_each_item_as_early_as_its_bucket_allows(
    waits: list[float], interval: float, burst: int
) -> None:
    expected = []
    tokens, filled_at, arrival = float(burst), 0.0, 0.0
    for number, wait in enumerate(waits):
        arrival += wait
        at = max(arrival, filled_at)
        tokens = min(burst, tokens + (at - filled_at) / interval)
        if tokens < 1:
            at += (1 - tokens) * interval
            tokens = 1.0
        tokens -= 1
        filled_at = at
        expected.append((at, number))

    async def main() -> None:
        seen = await timeline(throttle(after(waits), interval, burst=burst))
        assert [number for _, number in seen] == [number for _, number in expected]
        assert [at for at, _ in seen] == pytest.approx([at for at, _ in expected])

    run(main())


def test_throttle_keeps_the_source_waiting() -> None:
    async def main() -> None:
        source = timed(*range(100))
        made: Any = throttle.raw(source, 1.0)
        for n in range(10):
            await anext(made)
            assert source.given <= n + 2
        await made.aclose()

    run(main())


def test_throttle_emits_what_it_holds_before_an_error_and_ends_at_once_after_it() -> None:
    async def main() -> None:
        made = throttle(timed(1, 2, ZeroDivisionError()), 2.0)
        seen = await timeline(made, error=ZeroDivisionError)
        assert [at for at, _ in seen] == [0.0, 2.0, 2.0]

    run(main())


@given(waits=gaps, quiet=st.sampled_from([0.5, 2.0, 5.0]), fails=st.booleans())
def test_debounce_against_a_model(waits: list[float], quiet: float, fails: bool) -> None:
    arrivals, clock = [], 0.0
    for wait in waits:
        clock += wait
        arrivals.append(clock)
    expected = []
    for number, at in enumerate(arrivals):
        following = arrivals[number + 1] if number + 1 < len(arrivals) else math.inf
        if number + 1 == len(arrivals):
            expected.append((clock, number))
        elif following - at > quiet:
            expected.append((at + quiet, number))

    async def source() -> AsyncIterator[int]:
        async for number in after(waits):
            yield number
        if fails:
            raise ZeroDivisionError

    async def main() -> None:
        seen: Any = await timeline(debounce(source(), quiet), error=ZeroDivisionError)
        if fails:
            assert isinstance(seen.pop()[1], ZeroDivisionError)
        assert seen == expected

    run(main())


def test_a_slow_reader_of_debounce_gets_each_item_that_outlived_its_silence() -> None:
    async def main() -> None:
        source = script("ab---c---d---e|")
        seen = await timeline(debounce(source, 1.5), pause=20.0)
        assert [item for _, item in seen] == ["b", "c", "d", "e"]

    run(main())


def test_debounce_holds_three_items_at_most() -> None:
    async def main() -> None:
        source = timed(*[step for n in range(50) for step in (n, Wait(2))])
        made: Any = debounce.raw(source, 1.0)
        for n in range(5):
            assert await anext(made) == n
            await asyncio.sleep(100)
            assert source.given <= n + 4
        await made.aclose()

    run(main())


def test_debounce_forever_emits_the_last_item_alone() -> None:
    async def main() -> None:
        assert await timeline(debounce(script("a------b|"), math.inf)) == [(8.0, "b")]
        assert await timeline(debounce(script("--|"), math.inf)) == []

    run(main())


def test_debounce_of_a_source_that_never_suspends_lets_others_run() -> None:
    async def main() -> None:
        async def source() -> AsyncIterator[int]:
            n = 0
            while True:
                yield n
                n += 1

        made: Any = debounce.raw(source(), 1.0)
        reader = asyncio.ensure_future(anext(made))
        for _ in range(10):
            await asyncio.sleep(0)
        reader.cancel()
        await asyncio.wait([reader])
        await made.aclose()

    run(main())


def test_debounce_stops_a_source_that_swallows_its_cancellation() -> None:
    async def stubborn() -> AsyncIterator[int]:
        yield 1
        try:
            await asyncio.sleep(50)
        except asyncio.CancelledError:
            await asyncio.sleep(1)
        yield 2
        yield 3

    async def main() -> None:
        made: Any = debounce.raw(stubborn(), 1.0)
        assert await anext(made) == 1
        await made.aclose()
        assert now() == 2.0

    run(main())


def test_throttle_closed_while_an_item_waits_for_its_time_leaves_no_timer() -> None:
    async def main() -> None:
        made: Any = throttle.raw(script("(ab)--|"), 5.0)
        assert await anext(made) == "a"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await anext(made)
        await made.aclose()
        loop: Any = asyncio.get_running_loop()
        assert not [timer for timer in loop._scheduled if not timer.cancelled()]

    run(main())


@pytest.mark.parametrize("early", [0.0005, 0.0])
def test_a_timer_that_fires_a_little_early_is_in_time(early: float) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        call_at, armed = loop.call_at, []

        def hasty(when: float, callback: Any, *args: Any) -> Any:
            class Handle:
                def when(self) -> float:
                    return when

                def cancel(self) -> None:
                    timer.cancel()

            timer = call_at(when - early, callback, *args)
            armed.append(when)
            return Handle()

        made = throttle(timed("a", "b", "c"), 2.0)
        loop.call_at = hasty
        try:
            seen = await timeline(made)
        finally:
            loop.call_at = call_at
        assert [item for _, item in seen] == ["a", "b", "c"]
        assert len(armed) == 2

    run(main())


def test_debounce_keeps_an_item_that_outlived_its_silence_while_the_loop_was_busy() -> None:
    """Its timer could not fire before the next item came."""

    async def busy() -> AsyncIterator[str]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        for item in "abc":
            yield item
            loop.jump(60)  # as when a callback blocks the loop

    async def main() -> None:
        assert [item async for item in debounce.raw(busy(), 1.0)] == ["a", "b", "c"]

    run(main())


def test_throttle_emits_the_held_item_before_the_cancellation_of_its_source() -> None:
    async def main() -> None:
        made: Any = throttle.raw(timed("a", "b", Wait(math.inf)), 5.0)
        assert await anext(made) == "a"
        await asyncio.sleep(1)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        assert await anext(made) == "b"
        assert now() == 5.0
        with pytest.raises(asyncio.CancelledError):
            await anext(made)

    run(main())


@pytest.mark.parametrize("two", [timedelta(seconds=2), Decimal(2), Fraction(4, 2)])
def test_times_of_other_types_are_taken(two: Any) -> None:
    assert run(timeline(throttle(script("(ab)|"), two))) == [(0.0, "a"), (2.0, "b")]
    assert run(timeline(debounce(script("ab---c|"), two))) == [(3.0, "b"), (6.0, "c")]
