"""What `merge`, `merge_prioritized`, `select`, `concat` and `zip_results` promise."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import math
import weakref
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from aiostream import Stream, stream
from hypothesis import given
from hypothesis import strategies as st
from returns.result import Failure, Result, Success

from returns_pipeline import InvalidArgument
from returns_pipeline._engine.fan_in import BUFFER, FairMerge
from returns_pipeline._engine.reader import Reader
from returns_pipeline.combine import (
    TimedOut,
    concat,
    merge,
    merge_prioritized,
    select,
    zip_results,
)
from returns_pipeline.errors import UnevenSources
from returns_pipeline.testing import (
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

Join = Any  # an operator that takes sources

JOINS: dict[str, Callable[..., AsyncIterator[Any]]] = {
    "merge": merge.raw,
    "merge_prioritized": lambda *sources: merge_prioritized.raw(
        *((len(sources) - at, source) for at, source in enumerate(sources))
    ),
    "select": lambda *sources: select.raw(dict(enumerate(sources)), timeout=math.inf),
    "concat": concat.raw,
    "zip_results": zip_results.raw,
}
TOGETHER = {name: join for name, join in JOINS.items() if name != "concat"}

each_join = pytest.mark.parametrize("join", JOINS.values(), ids=JOINS)
each_together = pytest.mark.parametrize("join", TOGETHER.values(), ids=TOGETHER)


def ok(items: AsyncIterable[Any]) -> Stream[Result[Any, Any]]:
    """Results, so that each operator can read them."""
    return stream.map(items, Success)


def now() -> float:
    return asyncio.get_running_loop().time()


async def endless(name: str, read: Counter[str] | None = None) -> AsyncIterator[Success[str]]:
    """Never suspend, never end."""
    while True:
        if read is not None:
            read[name] += 1
        yield Success(name)


async def collect(source: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in source]


# All of them.


@each_join
def test_nothing_is_read_before_the_first_item_is_requested(join: Join) -> None:
    async def main() -> None:
        source = script("ab|")
        made = join(ok(source), ok(source))
        await asyncio.sleep(1)
        assert source.opened == 0
        await made.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(made)

    run(main())


@each_join
def test_a_source_that_is_none_is_refused_at_the_call(join: Join) -> None:
    with pytest.raises(TypeError):
        join(script("a|"), [1, 2])


@each_join
def test_a_stream_is_repeatable_when_its_sources_are(join: Join) -> None:
    operators = {
        "merge": merge,
        "concat": concat,
        "zip_results": zip_results,
    }
    for op in operators.values():

        async def main(op: Any = op) -> None:
            made = op(ok(script("ab|")), ok(script("cd|")))
            assert isinstance(made, Stream)
            first = await stream.list(made)
            assert first == await stream.list(made) != []

        run(main())


@each_join
def test_closing_early_closes_every_source(join: Join) -> None:
    async def main() -> None:
        first, second = script("ab------|"), script("cd------|")
        made = join(ok(first), ok(second))
        await anext(made)
        await made.aclose()
        assert first.opened == first.closed == 1
        assert second.opened == second.closed
        with pytest.raises(StopAsyncIteration):
            await anext(made)

    run(main())


@each_join
def test_a_reader_that_is_dropped_stops_the_sources(join: Join) -> None:
    async def main() -> None:
        first, second = script("ab------|"), script("cd------|")
        made = join(ok(first), ok(second))
        await anext(made)
        del made
        gc.collect()
        await asyncio.sleep(0.5)
        assert first.opened == first.closed == 1
        assert second.opened == second.closed

    run(main())


@each_together
def test_a_failing_source_ends_the_others_at_once_after_what_was_read(join: Join) -> None:
    async def main() -> None:
        slow = script("a------b|")
        seen = []
        with pytest.raises(ZeroDivisionError):
            async for item in join(ok(script("x-#", error=ZeroDivisionError())), ok(slow)):
                seen.append(item)
        assert now() == 2.0
        assert seen
        assert slow.cancelled == slow.closed == 1

    run(main())


@each_together
def test_what_was_read_before_an_error_is_emitted_before_it(join: Join) -> None:
    async def main() -> None:
        made = join(ok(script("a#", error=ZeroDivisionError())), ok(script("b------|")))
        await anext(made)
        await asyncio.sleep(5)
        items = 1
        with pytest.raises(ZeroDivisionError):
            while True:
                await anext(made)
                items += 1
        assert items == (1 if join is JOINS["zip_results"] else 2)
        with pytest.raises(StopAsyncIteration):
            await anext(made)

    run(main())


@each_together
def test_the_clean_up_of_the_others_is_awaited_and_its_error_noted(join: Join) -> None:
    async def dirty() -> AsyncIterator[Result[str, str]]:
        try:
            yield Success("a")
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(3)
            raise OSError("clean-up")

    async def main() -> None:
        made = join(ok(script("x-#", error=ZeroDivisionError())), dirty())
        with pytest.raises(ZeroDivisionError) as caught:
            await collect(made)
        assert now() == 5.0
        assert "clean-up" in str(caught.value.__notes__)

    run(main())


@each_together
def test_an_error_of_a_clean_up_is_raised_by_aclose(join: Join) -> None:
    async def dirty() -> AsyncIterator[Result[str, str]]:
        try:
            yield Success("a")
            await asyncio.sleep(100)
        finally:
            raise OSError("clean-up")

    async def main() -> None:
        made = join(ok(script("x--|")), dirty())
        await anext(made)
        with pytest.raises(OSError, match="clean-up"):
            await made.aclose()

    run(main())


@each_join
def test_a_cancelled_read_loses_nothing(join: Join) -> None:
    async def main() -> None:
        expected = await collect(join(ok(script("a--b--c|")), ok(script("-d--e--f|"))))
        made = join(ok(script("a--b--c|")), ok(script("-d--e--f|")))
        seen = []
        while True:
            try:
                async with asyncio.timeout(0.4):
                    seen.append(await anext(made))
            except TimeoutError:
                pass
            except StopAsyncIteration:
                break
        assert seen == expected

    run(main())


@each_join
def test_a_source_may_use_timeouts_and_task_groups_around_its_yields(join: Join) -> None:
    async def source() -> AsyncIterator[Result[str, str]]:
        try:
            async with asyncio.timeout(2.5):
                yield Success("a")
                await asyncio.sleep(1)
                yield Success("b")
                await asyncio.sleep(10)
        except TimeoutError:
            yield Success(f"late at {now()}")

    async def main() -> None:
        seen = str(await collect(join(source(), ok(script("xyz|")))))
        assert "late at 2.5" in seen

    run(main())


@each_join
def test_what_a_reader_raises_is_not_thrown_into_the_sources(join: Join) -> None:
    thrown = []

    async def source() -> AsyncIterator[Result[int, str]]:
        for n in range(10):
            try:
                yield Success(n)
            except GeneratorExit:
                raise
            except BaseException as error:
                thrown.append(error)

    async def main() -> None:
        operators: list[Any] = [merge, concat, zip_results]
        for op in operators:
            with pytest.raises(ZeroDivisionError):
                async with op(source(), source()).stream() as items:
                    async for _ in items:
                        raise ZeroDivisionError
        assert thrown == []

    run(main())


@each_together
def test_a_source_that_swallows_its_cancellation_is_waited_for(join: Join) -> None:
    async def stubborn() -> AsyncIterator[Result[str, str]]:
        yield Success("a")
        try:
            await asyncio.sleep(50)
        except asyncio.CancelledError:
            await asyncio.sleep(1)
        yield Success("after all")
        yield Success("and more")

    async def main() -> None:
        made = join(stubborn(), ok(script("x-#", error=ZeroDivisionError())))
        with pytest.raises(ZeroDivisionError):
            await collect(made)
        assert now() == 3.0

    run(main())


@each_together
def test_a_source_that_raises_cancelled_error_ends_the_stream_with_it(join: Join) -> None:
    async def source() -> AsyncIterator[Result[str, str]]:
        yield Success("a")
        raise asyncio.CancelledError("not ours")

    async def main() -> None:
        with pytest.raises(asyncio.CancelledError, match="not ours"):
            await collect(join(source(), ok(script("x----|"))))
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]
        assert now() == 0.0

    run(main())


@each_join
def test_a_slow_reader_slows_the_sources_down(join: Join) -> None:
    async def main() -> None:
        read: Counter[str] = Counter()
        made = join(endless("a", read), endless("b", read))
        taken: Counter[str] = Counter()
        for _ in range(20):
            item = str(await anext(made))
            taken["a"] += "Success: a" in item or "'a'" in item
            taken["b"] += "Success: b" in item or "'b'" in item
            await asyncio.sleep(1)
            assert read["a"] <= taken["a"] + 1
            assert read["b"] <= taken["b"] + 1
        await made.aclose()

    run(main())


@each_join
def test_a_source_gets_ahead_of_a_fast_reader_by_as_much_as_was_taken_of_it_up_to_the_bound(
    join: Join,
) -> None:
    async def main() -> None:
        read: Counter[str] = Counter()
        taken: Counter[str] = Counter()
        made = join(endless("a", read), endless("b", read))
        most = 0
        for _ in range(2000):
            item = repr(await anext(made))
            for name in "ab":
                taken[name] += f"Success: {name}" in item or f"'{name}'" in item
                ahead = read[name] - taken[name]
                assert ahead <= min(taken[name] + 1, BUFFER)
                most = max(most, ahead)
        assert most > 0.9 * BUFFER or join is JOINS["merge_prioritized"]
        await made.aclose()

    run(main())


@each_join
def test_cancelled_at_every_await_point_it_closes_its_sources_and_nothing_is_emitted_twice(
    join: Join,
) -> None:
    async def scenario(injector: FaultInjector) -> None:
        first, second = script("a-b-c|"), script("-d-e-f|")
        seen: list[Any] = []

        async def reader() -> None:
            made = join(ok(first), ok(second))
            try:
                async for item in made:
                    seen.append(item)
            finally:
                await made.aclose()

        try:
            await injector.run(reader())
        except asyncio.CancelledError:
            assert injector.fired
        assert first.opened == first.closed
        assert second.opened == second.closed
        assert len({str(item) for item in seen}) == len(seen)

    assert inject_everywhere(scenario) > 5
    assert inject_everywhere(scenario, times=2) > 5


@each_join
def test_a_stream_of_no_or_one_source(join: Join) -> None:
    async def main() -> None:
        assert await collect(join()) == []
        assert len(await collect(join(ok(script("abc|"))))) == 3

    run(main())


# merge


def test_merge_emits_items_at_the_times_at_which_they_arrive() -> None:
    async def main() -> None:
        assert await timeline(merge(script("a--b|"), script("-1-2--3|"))) == [
            (0.0, "a"),
            (1.0, "1"),
            (3.0, "b"),
            (3.0, "2"),
            (6.0, "3"),
        ]

    run(main())


@pytest.mark.parametrize("count", [10, 100, 1000, 9999])
def test_two_sources_that_are_always_ready_each_get_half(count: int) -> None:
    async def main() -> None:
        made: Any = merge.raw(endless("a"), endless("b"))
        shares = Counter([(await anext(made)).unwrap() for _ in range(count)])
        await made.aclose()
        assert 0.45 * count <= shares["a"] <= 0.55 * count

    run(main())


def test_no_source_waits_for_one_that_has_many_items() -> None:
    async def main() -> None:
        made: Any = merge.raw(endless("busy"), script("a-b-c-d|"))
        seen: list[Any] = []
        while now() < 8:
            seen.append(await anext(made))
            if len(seen) % 100 == 0:
                await asyncio.sleep(1)
        await made.aclose()
        assert [item for item in seen if isinstance(item, str)] == ["a", "b", "c", "d"]

    run(main())


def test_items_of_a_slow_reader_come_in_the_order_in_which_they_arrived() -> None:
    async def main() -> None:
        made: Any = merge.raw(script("a--------|"), script("--c------|"), script("-b-------|"))
        await asyncio.sleep(0)
        assert await anext(made) == "a"
        await asyncio.sleep(5)
        assert [await anext(made), await anext(made)] == ["b", "c"]
        await made.aclose()

    run(main())


def test_the_next_item_is_fetched_while_the_reader_works_on_one() -> None:
    async def source() -> AsyncIterator[int]:
        for n in range(5):
            await asyncio.sleep(1)
            yield n

    async def main() -> None:
        async for _ in merge.raw(source(), source()):
            await asyncio.sleep(0.5)
        assert now() == pytest.approx(6.0)

    run(main())


def test_a_source_continues_when_its_item_is_taken_whatever_waits_of_the_others() -> None:
    async def main() -> None:
        first, second = timed(*"abc"), timed(*"xyz")
        made: Any = merge.raw(first, second)
        assert await anext(made) == "a"
        await asyncio.sleep(1)
        assert (first.given, second.given) == (2, 1)
        await made.aclose()

    run(main())


def test_a_source_with_many_items_waiting_takes_turns_with_one_that_has_few() -> None:
    async def main() -> None:
        pump: FairMerge[str, str] = FairMerge([timed(*"abcde"), timed("x"), timed(*"yz")])
        for input_ in pump.inputs:
            input_.capacity = 8
        assert "".join([item async for item in Reader(pump)]) == "axybzcde"

    run(main())


def test_what_is_drawn_and_not_emitted_counts_as_held() -> None:
    async def main() -> None:
        source = timed(*"abc", Wait(1), *"defghijk")
        pump: FairMerge[str, str] = FairMerge([source])
        pump.inputs[0].capacity = 4
        made = Reader(pump)
        assert await anext(made) == "a"
        await asyncio.sleep(5)
        assert source.given <= 5
        await made.aclose()

    run(main())


@given(
    sources=st.lists(st.lists(st.integers(0, 3), max_size=12), max_size=5),
    pauses=st.lists(st.sampled_from([0, 0, 0, 1, 2.5]), max_size=40),
    buffer=st.integers(1, 4),
)
def test_merge_emits_every_item_once_each_source_in_order(
    sources: list[list[int]], pauses: list[float], buffer: int
) -> None:
    async def source(at: int, gaps: list[int]) -> AsyncIterator[tuple[int, int]]:
        for number, gap in enumerate(gaps):
            if gap:
                await asyncio.sleep(gap - 1)
            yield at, number

    async def main() -> list[tuple[int, int]]:
        rest = iter(pauses)
        seen = []
        parts = [source(at, gaps) for at, gaps in enumerate(sources)]
        async for item in merge.raw(*parts, buffer=buffer):
            seen.append(item)
            await asyncio.sleep(next(rest, 0))
        return seen

    seen = run(main())
    for at, gaps in enumerate(sources):
        assert [n for source_at, n in seen if source_at == at] == list(range(len(gaps)))


@pytest.mark.parametrize("held", [0, 1, 3])
@pytest.mark.parametrize("join", [merge.raw, concat.raw], ids=["merge", "concat"])
def test_a_source_that_may_be_ahead_and_swallows_its_cancellation_ends_at_its_next_item(
    join: Join, held: int
) -> None:
    async def main() -> None:
        given = 0

        async def source() -> AsyncIterator[int]:
            nonlocal given
            for number in range(60):
                given += 1
                yield number
                if number >= 40:
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.sleep(1)

        made = join(source())
        for _ in range(41):
            await anext(made)
        await asyncio.sleep(0.5 + held)
        await made.aclose()
        assert given == 42 + held

    run(main())


@given(buffer=st.integers(1, 9), reads=st.integers(1, 200))
def test_merge_holds_at_most_its_buffer_of_each_source(buffer: int, reads: int) -> None:
    async def main() -> None:
        read: Counter[str] = Counter()
        given: Counter[str] = Counter()
        made: Any = merge.raw(endless("a", read), endless("b", read), buffer=buffer)
        for _ in range(reads):
            given[(await anext(made)).unwrap()] += 1
            assert read["a"] - given["a"] <= buffer
            assert read["b"] - given["b"] <= buffer
        await asyncio.sleep(1)
        assert read["a"] - given["a"] <= buffer
        await made.aclose()

    run(main())


def test_a_source_has_its_own_context_variables() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    async def source(name: str) -> AsyncIterator[str]:
        assert variable.get() == "reader's"
        variable.set(name)
        for _ in range(3):
            await asyncio.sleep(1)
            yield variable.get()

    async def main() -> None:
        variable.set("reader's")
        seen = await collect(merge.raw(source("a"), source("b")))
        assert seen == ["a", "b"] * 3
        assert variable.get() == "reader's"

    run(main())


def test_a_keyboard_interrupt_in_a_source_is_not_kept_for_later() -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        raise KeyboardInterrupt

    async def main() -> None:
        await collect(merge.raw(source(), script("a---|")))

    with pytest.raises(KeyboardInterrupt):
        run(main())


def test_an_exception_holds_no_reference_cycle_to_the_reader() -> None:
    async def failing() -> AsyncIterator[int]:
        yield 1
        raise ZeroDivisionError

    async def main() -> None:
        gc.collect()
        made: Any = merge.raw(failing(), script("a|"))
        with pytest.raises(ZeroDivisionError):
            await collect(made)
        gc.disable()
        try:
            dropped = weakref.ref(made)
            del made
            assert dropped() is None
        finally:
            gc.enable()

    run(main())


# merge_prioritized


def test_an_item_of_high_priority_overtakes_all_that_wait() -> None:
    async def main() -> None:
        records, alarms = script("(abcdef)|"), script("---!|", values={"!": "fire"})
        made = merge_prioritized((1, records), (9, alarms))
        assert await timeline(made, pause=2.0) == [
            (0.0, "a"),
            (2.0, "b"),
            (4.0, "fire"),
            (6.0, "c"),
            (8.0, "d"),
            (10.0, "e"),
            (12.0, "f"),
        ]

    run(main())


def test_an_empty_source_of_high_priority_blocks_no_other() -> None:
    async def main() -> None:
        made = merge_prioritized((9, script("-----|")), (1, script("abc|")))
        assert await timeline(made) == [(0.0, "a"), (1.0, "b"), (2.0, "c")]

    run(main())


@pytest.mark.parametrize(("limit", "lows"), [(1, 50), (4, 20), (9, 10), (None, 0)])
def test_low_priority_gets_its_turn_as_often_as_the_limit_says(
    limit: int | None, lows: int
) -> None:
    async def main() -> None:
        made: Any = merge_prioritized.raw(
            (2, endless("high")), (1, endless("low")), starvation_limit=limit
        )
        given = [(await anext(made)).unwrap() for _ in range(1000)]
        await made.aclose()
        assert given.count("low") == 10 * lows
        if limit is not None:
            assert given == (["high"] * limit + ["low"]) * 10 * lows

    run(main())


def test_what_went_before_an_item_came_does_not_make_its_turn_come_sooner() -> None:
    async def main() -> None:
        high = timed(*"12345", Wait(1), *"6789")
        low = timed("a", Wait(1), "b")
        made = merge_prioritized.raw((2, high), (1, low), starvation_limit=2)
        assert "".join(await collect(made)) == "12a34567b89"

    run(main())


def test_no_source_starves_by_default() -> None:
    async def main() -> None:
        made: Any = merge_prioritized.raw(*((p, endless(str(p))) for p in range(5)))
        shares = Counter([(await anext(made)).unwrap() for _ in range(1000)])
        await made.aclose()
        assert len(shares) == 5
        assert shares["4"] > 800

    run(main())


@pytest.mark.parametrize("suspending", [False, True])
def test_a_source_of_high_priority_that_is_ready_again_at_once_is_not_passed_over(
    suspending: bool,
) -> None:
    async def source(names: str) -> AsyncIterator[str]:
        for name in names:
            if suspending:
                await asyncio.sleep(0)
            yield name

    async def main() -> None:
        made: Any = merge_prioritized.raw(
            (1, source("abc")), (3, source("XYZ")), (2, source("123"))
        )
        assert "".join(await collect(made)) == "XYZ123abc"

    run(main())


def test_equal_priorities_take_turns() -> None:
    async def main() -> None:
        made: Any = merge_prioritized.raw((1, endless("a")), (1.0, endless("b")))
        seen = [(await anext(made)).unwrap() for _ in range(100)]
        await made.aclose()
        assert seen == ["a", "b"] * 50

    run(main())


@given(
    items=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=30),
    limit=st.none() | st.integers(1, 4),
)
def test_merge_prioritized_against_a_model(items: list[tuple[int, int]], limit: int | None) -> None:
    """All items are there when the reader begins: the output follows from the rules alone."""
    queues: list[list[tuple[int, int]]] = [[], [], []]
    for number, (priority, _) in enumerate(items):
        queues[priority].append((priority, number))
    waiting = [list(queue) for queue in queues]
    passed = [0, 0, 0]
    expected = []
    while any(waiting):
        ready = [p for p in (2, 1, 0) if waiting[p]]
        starved = [p for p in ready if limit is not None and passed[p] >= limit]
        chosen = max(starved, key=lambda p: (passed[p], p)) if starved else ready[0]
        for p in ready:
            if p < chosen:
                passed[p] += 1
        passed[chosen] = 0
        expected.append(waiting[chosen].pop(0))

    async def source(priority: int) -> AsyncIterator[tuple[int, int]]:
        for item in queues[priority]:
            yield item

    async def main() -> list[tuple[int, int]]:
        made: Any = merge_prioritized.raw(
            *((p, source(p)) for p in range(3)), starvation_limit=limit, buffer=64
        )
        seen = []
        async for item in made:
            seen.append(item)
            await asyncio.sleep(1)  # so that each source has its next item ready
        return seen

    assert run(main()) == expected


@pytest.mark.parametrize(
    "make",
    [
        lambda: merge(script("a|"), buffer=0),
        lambda: merge_prioritized((1, script("a|")), starvation_limit=0),
        lambda: merge_prioritized((1, script("a|")), buffer=0),
        lambda: merge_prioritized((math.nan, script("a|"))),
        lambda: select({1: script("a|")}, timeout=0),
        lambda: select({1: script("a|")}, timeout=math.nan),
        lambda: select({1: script("a|")}, buffer=0),
        lambda: concat(script("a|"), buffer=0),
    ],
    ids=range(8),
)
def test_arguments_out_of_range_are_refused_at_the_call(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidArgument):
        make()


# select


def test_select_tells_where_each_item_is_from() -> None:
    async def main() -> None:
        assert await timeline(select({"x": script("a-b|"), "y": script("-1|")})) == [
            (0.0, ("x", "a")),
            (1.0, ("y", "1")),
            (2.0, ("x", "b")),
        ]

    run(main())


def test_select_emits_a_timeout_for_each_silence_and_continues() -> None:
    async def main() -> None:
        made = select({"x": script("a--------b|"), "y": script("-1|")}, timeout=3.0)
        assert await timeline(made) == [
            (0.0, ("x", "a")),
            (1.0, ("y", "1")),
            (4.0, TimedOut(3.0)),
            (7.0, TimedOut(3.0)),
            (9.0, ("x", "b")),
        ]

    run(main())


def test_a_slow_reader_of_select_gets_one_silence_not_many() -> None:
    async def main() -> None:
        made: Any = select.raw({"x": script("a---------------b|")}, timeout=2.0)
        assert await anext(made) == ("x", "a")
        await asyncio.sleep(9)
        assert await anext(made) == TimedOut(2.0)
        assert now() == 9.0
        assert await anext(made) == TimedOut(2.0)
        assert now() == 11.0
        await made.aclose()

    run(main())


def test_reads_that_are_cancelled_do_not_put_the_timeout_off() -> None:
    async def main() -> None:
        made: Any = select.raw({"x": script("--------|")}, timeout=5.0)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.5):
                    await anext(made)
        assert await anext(made) == TimedOut(5.0)
        assert now() == 5.0
        await made.aclose()

    run(main())


def test_an_item_that_comes_with_the_timeout_is_not_late() -> None:
    async def main() -> None:
        made = select({"x": timed(Wait(1), "a", Wait(1), "b", Wait(2), "c")}, timeout=1.5)
        assert await timeline(made) == [
            (1.0, ("x", "a")),
            (2.0, ("x", "b")),
            (3.5, TimedOut(1.5)),
            (4.0, ("x", "c")),
        ]

    run(main())


def test_select_sees_no_change_of_the_mapping_later() -> None:
    async def main() -> None:
        sources = {"x": script("a|")}
        made = select(sources)
        sources["y"] = script("b|")
        assert await stream.list(made) == [("x", "a")]

    run(main())


# concat


def test_concat_opens_a_source_when_the_one_before_it_is_closed() -> None:
    async def main() -> None:
        first, second = script("a-b|"), script("c-d|")
        made = concat.raw(first, second)
        assert [await anext(made), await anext(made)] == ["a", "b"]
        assert (first.closed, second.opened) == (0, 0)
        assert await collect(made) == ["c", "d"]
        assert now() == 6.0

    run(main())


def test_concat_does_not_open_what_comes_after_a_failure() -> None:
    async def main() -> None:
        after = script("b|")
        made = concat.raw(script("a#", error=ZeroDivisionError()), after)
        assert await anext(made) == "a"
        with pytest.raises(ZeroDivisionError):
            await anext(made)
        assert after.opened == 0

    run(main())


@given(st.lists(st.lists(st.integers()), max_size=6))
def test_concat_is_the_sum_of_lists(lists: list[list[int]]) -> None:
    async def source(items: list[int]) -> AsyncIterator[int]:
        for item in items:
            yield item

    async def main() -> list[int]:
        return await collect(concat.raw(*map(source, lists)))

    assert run(main()) == [item for items in lists for item in items]


# zip_results


def test_zip_results_pairs_items_by_their_number_and_emits_the_first_failure() -> None:
    async def main() -> None:
        left = timed(Success(1), Failure("left"), Success(3), Failure("both, left"))
        right = timed(Success("a"), Success("b"), Failure("right"), Failure("both, right"))
        assert await stream.list(zip_results(left, right)) == [
            Success((1, "a")),
            Failure("left"),
            Failure("right"),
            Failure("both, left"),
        ]

    run(main())


@pytest.mark.parametrize("ended_first", [True, False])
def test_zip_results_ends_with_the_shortest_and_stops_the_others(ended_first: bool) -> None:
    async def main() -> None:
        short, long = script("a-b|"), script("c-d--e----|" if ended_first else "(cdefgh)----|")
        made = zip_results(ok(short), ok(long))
        assert await timeline(made) == [(0.0, Success(("a", "c"))), (2.0, Success(("b", "d")))]
        assert now() == 3.0
        assert long.closed == 1

    run(main())


@pytest.mark.parametrize("long", ["cde|", "cd----e|", "(cdefg)----|"])
def test_zip_results_says_when_strict_that_sources_are_not_equally_long(long: str) -> None:
    async def main() -> None:
        made = zip_results.raw(ok(script("ab|")), ok(script(long)), strict=True)
        assert await anext(made) == Success(("a", "c"))
        assert await anext(made) == Success(("b", "d"))
        with pytest.raises(UnevenSources) as caught:
            await anext(made)
        assert caught.value == UnevenSources((0,))
        assert str(caught.value) == "source 0 ended before the others"

    run(main())


def test_zip_results_does_not_read_on_a_source_that_is_known_to_be_too_long() -> None:
    """Also if it might be ahead by many items."""
    closed: list[bool] = []

    async def long() -> AsyncIterator[Result[int, Any]]:
        try:
            for n in range(21):
                await asyncio.sleep(1)
                yield Success(n)
            await asyncio.sleep(math.inf)
        finally:
            closed.append(True)

    async def main() -> None:
        short = timed(*[Success(n) for n in range(20)])
        paired = zip_results.raw(short, long(), strict=True)
        for n in range(20):
            assert await anext(paired) == Success((n, n))
        with pytest.raises(UnevenSources):
            await anext(paired)
        assert closed == [True]

    run(main())


def test_zip_results_of_equally_long_sources_is_content_when_strict() -> None:
    async def main() -> None:
        made = zip_results.raw(ok(script("ab|")), ok(script("c--d---|")), strict=True)
        assert len(await collect(made)) == 2

    run(main())


@given(st.lists(st.lists(st.integers(-3, 3)), min_size=1, max_size=4), st.booleans())
def test_zip_results_against_zip(lists: list[list[int]], suspending: bool) -> None:
    def result(n: int) -> Result[int, int]:
        return Failure(n) if n < 0 else Success(n)

    async def source(items: list[int]) -> AsyncIterator[Result[int, int]]:
        for item in items:
            if suspending:
                await asyncio.sleep(abs(item))
            yield result(item)

    async def main() -> list[Any]:
        return await collect(zip_results.raw(*map(source, lists)))

    expected = [
        next((Failure(n) for n in numbers if n < 0), Success(numbers))
        for numbers in zip(*lists, strict=False)
    ]
    assert run(main()) == expected


def test_a_silence_that_began_while_the_reader_was_away_is_reported_at_once() -> None:
    async def main() -> None:
        made: Any = select.raw({"x": script("a-b-----------c|")}, timeout=3.0)
        assert [await anext(made), await anext(made)] == [("x", "a"), ("x", "b")]
        await asyncio.sleep(8)
        assert await anext(made) == TimedOut(3.0)
        assert now() == 10.0
        assert await anext(made) == TimedOut(3.0)
        assert now() == 13.0
        await made.aclose()

    run(main())


@each_together
def test_a_loop_that_ends_with_the_stream_open_closes_the_sources(join: Join) -> None:
    closed = []

    async def source(name: str) -> AsyncIterator[Result[str, str]]:
        try:
            yield Success(name)
            await asyncio.sleep(100)
        finally:
            closed.append(name)

    async def main() -> Any:
        made = join(source("a"), source("b"))
        await anext(made)
        return made

    made = asyncio.run(main())
    assert sorted(closed) == ["a", "b"]
    del made


@pytest.mark.parametrize("fails", [False, True])
def test_no_held_item_is_lost_when_a_priority_has_just_resumed(fails: bool) -> None:
    """The reader comes in the turn in which the higher source ends, and the lower has an item."""

    async def main() -> list[object]:
        reader_go, high_go, other_go, again = (asyncio.Event() for _ in range(4))

        async def high() -> AsyncIterator[str]:
            for n in range(3):
                yield f"h{n}"
                await asyncio.sleep(1)
            await high_go.wait()
            if fails:
                raise OSError("high")

        async def low() -> AsyncIterator[str]:
            yield "l0"
            await asyncio.sleep(2)
            yield "l1"

        got: list[object] = []

        async def reader() -> None:
            items: Any = merge_prioritized.raw((9, high()), (1, low()))
            with contextlib.suppress(OSError):
                for _ in range(3):
                    got.append(await anext(items))
                await reader_go.wait()
                got.append(await anext(items))
                await again.wait()
                async for item in items:
                    got.append(item)

        async def other() -> None:
            await other_go.wait()
            again.set()

        tasks = [asyncio.create_task(reader()), asyncio.create_task(other())]
        await asyncio.sleep(5)
        for event in (reader_go, high_go, other_go):
            event.set()
        await asyncio.gather(*tasks)
        return got

    assert set(run(main())) == {"h0", "h1", "h2", "l0", "l1"}


def test_an_item_that_is_not_a_result_ends_zip_results_with_an_error_that_shows_it() -> None:
    async def main() -> None:
        made: Any = zip_results.raw(timed(Success(1), 2, Success(3)), ok(timed(*"abc")))
        assert (await anext(made)) == Success((1, "a"))
        with pytest.raises(TypeError, match="expected a Success or a Failure, not 2"):
            await anext(made)
        with pytest.raises(StopAsyncIteration):
            await anext(made)

    run(main())


def test_the_time_out_of_select_may_be_a_timedelta() -> None:
    made = select({"a": script("a---|")}, timeout=timedelta(seconds=2))
    assert run(timeline(made)) == [(0.0, ("a", "a")), (2.0, TimedOut(2.0))]
