"""What `scan`, `distinct_until_changed`, `prefetch` and `take_until` promise."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import itertools
import sys
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest
from aiostream import stream
from hypothesis import given
from hypothesis import strategies as st

from returns_pipeline import InvalidArgument
from returns_pipeline.combine import distinct_until_changed, prefetch, scan, take_until
from returns_pipeline.testing import Wait, inject_everywhere, run, script, timed, timeline

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable

    from returns_pipeline.testing import FaultInjector


def now() -> float:
    return asyncio.get_running_loop().time()


async def collect(source: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in source]


def joined(before: str, item: str) -> str:
    return before + item


RELAYS: dict[str, Callable[[AsyncIterable[str]], AsyncIterator[str]]] = {
    "scan": lambda source: scan.raw(source, "", joined),
    "distinct_until_changed": distinct_until_changed.raw,
    "prefetch": lambda source: prefetch.raw(source, 2),
    "take_until": lambda source: take_until.raw(source, asyncio.Event()),
}
each_relay = pytest.mark.parametrize("relay", RELAYS.values(), ids=RELAYS)


@each_relay
def test_nothing_is_read_before_the_first_item_is_requested(relay: Any) -> None:
    async def main() -> None:
        source = script("ab|")
        made = relay(source)
        await asyncio.sleep(1)
        assert source.opened == 0
        await made.aclose()

    run(main())


@each_relay
def test_a_source_that_is_none_is_refused_at_the_call(relay: Any) -> None:
    with pytest.raises(TypeError):
        relay([1])


@each_relay
def test_a_cancelled_read_loses_nothing(relay: Any) -> None:
    async def main() -> None:
        expected = await collect(relay(script("a--b--cd|")))
        assert len(expected) == 4
        made = relay(script("a--b--cd|"))
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


@each_relay
def test_closing_or_dropping_stops_the_source(relay: Any) -> None:
    async def main() -> None:
        for dropped in False, True:
            source = script("a--b|")
            made = relay(source)
            assert await anext(made) == "a"
            if dropped:
                del made
                gc.collect()
                await asyncio.sleep(0)
                await asyncio.sleep(0.5)
            else:
                await made.aclose()
            assert source.opened == source.closed == 1

    run(main())


@each_relay
def test_what_was_read_is_emitted_before_the_error_of_the_source(relay: Any) -> None:
    async def main() -> None:
        made = relay(script("(ab)#", error=ZeroDivisionError()))
        assert await anext(made) == "a"
        await asyncio.sleep(5)
        assert await anext(made) in ("b", "ab")
        with pytest.raises(ZeroDivisionError):
            await anext(made)
        with pytest.raises(StopAsyncIteration):
            await anext(made)

    run(main())


@each_relay
def test_cancelled_at_every_await_point_it_closes_its_source(relay: Any) -> None:
    async def scenario(injector: FaultInjector) -> None:
        source = script("a-b-c|")
        seen: list[str] = []

        async def reader() -> None:
            made = relay(source)
            try:
                async for item in made:
                    seen.append(item)
            finally:
                await made.aclose()

        try:
            await injector.run(reader())
        except asyncio.CancelledError:
            assert injector.fired
        assert source.opened == source.closed
        assert seen == ["a", seen[1:2] and seen[1], seen[2:3] and seen[2]][: len(seen)]

    assert inject_everywhere(scenario) > 3


@pytest.mark.parametrize("name", ["scan", "distinct_until_changed", "prefetch"])
def test_the_source_runs_in_a_copy_of_the_reader_s_context(name: str) -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)

    async def source() -> AsyncIterator[str]:
        for n in range(3):
            variable.set(n)
            yield str(n)
            await asyncio.sleep(1)

    async def main() -> None:
        await collect(RELAYS[name](source()))
        assert variable.get() == 0

    run(main())


@given(st.lists(st.integers()))
def test_scan_is_accumulate(items: list[int]) -> None:
    async def main() -> None:
        made = scan(timed(*items), 10, lambda total, n: total - n)
        expected = list(itertools.accumulate(items, lambda total, n: total - n, initial=10))[1:]
        assert await collect(scan.raw(timed(*items), 10, lambda total, n: total - n)) == expected
        assert await stream.list(made) == expected
        assert await stream.list(made) == expected

    run(main())


def test_what_scan_s_function_raises_comes_after_what_was_made() -> None:
    async def main() -> None:
        made = scan.raw(timed(1, 2, 0, 4), 8.0, lambda before, n: before / n)
        assert await anext(made) == 8.0
        assert await anext(made) == 4.0
        with pytest.raises(ZeroDivisionError):
            await anext(made)

    run(main())


@given(st.lists(st.integers(0, 2)))
def test_distinct_until_changed_is_groupby(items: list[int]) -> None:
    async def main() -> None:
        expected = [key for key, _ in itertools.groupby(items)]
        assert await collect(distinct_until_changed.raw(timed(*items))) == expected
        by_parity = [next(group) for _, group in itertools.groupby(items, lambda n: n % 2)]
        made = distinct_until_changed.raw(timed(*items), lambda n: n % 2)
        assert await collect(made) == by_parity

    run(main())


def test_equal_items_without_end_let_others_run_and_end_when_the_reader_leaves() -> None:
    async def main() -> None:
        stopped = False

        async def source() -> AsyncIterator[int]:
            nonlocal stopped
            try:
                for _ in range(1_000_000):
                    yield 1
            finally:
                stopped = True

        made: Any = distinct_until_changed.raw(source())
        assert await anext(made) == 1
        others = 0
        reading = asyncio.ensure_future(anext(made))
        for _ in range(10):
            await asyncio.sleep(0)
            others += 1
        assert not reading.done()
        reading.cancel()
        await asyncio.wait([reading])
        await made.aclose()
        assert (others, stopped) == (10, True)

    run(main())


def test_a_source_that_swallows_its_cancellation_ends_at_an_equal_item() -> None:
    async def main() -> None:
        given = 0

        async def source() -> AsyncIterator[int]:
            nonlocal given
            for _ in range(50):
                given += 1
                yield 1
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(1)

        made: Any = distinct_until_changed.raw(source())
        assert await anext(made) == 1
        await asyncio.sleep(2.5)
        await made.aclose()
        assert given == 4

    run(main())


def test_an_item_that_is_none_is_an_item() -> None:
    async def main() -> None:
        assert await collect(distinct_until_changed.raw(timed(None, None, 1))) == [None, 1]

    run(main())


@pytest.mark.parametrize("n", [1, 2, 5])
def test_prefetch_holds_n_items_and_no_more(n: int) -> None:
    async def main() -> None:
        source = timed(*range(20))
        made: Any = prefetch.raw(source, n)
        for taken in range(1, 10):
            await anext(made)
            await asyncio.sleep(1)
            assert taken <= source.given - (1 if n == 1 else 0) <= taken + n
        await asyncio.sleep(1)
        assert source.given <= 9 + n
        await made.aclose()

    run(main())


def test_prefetch_lets_source_and_reader_work_at_the_same_time() -> None:
    async def source() -> AsyncIterator[int]:
        for n in range(10):
            await asyncio.sleep(1)
            yield n

    async def main() -> None:
        async for _ in prefetch.raw(source(), 1):
            await asyncio.sleep(1)
        assert now() == 11.0

    run(main())


def test_prefetch_stays_ahead_while_the_reader_works_through_a_burst() -> None:
    async def main() -> None:
        source = timed(1, 2, 3, Wait(1), *range(4, 20))
        made: Any = prefetch.raw(source, 4)
        for taken in range(1, 10):
            assert await anext(made) == taken
            await asyncio.sleep(5)
            assert source.given == taken + 4
        await made.aclose()

    run(main())


def test_prefetch_evens_bursts_out() -> None:
    async def main() -> None:
        source = timed(1, 2, 3, 4, Wait(4), 5, 6, 7, 8, Wait(4), 9)
        assert await timeline(prefetch(source, 8), pause=1.0) == [
            (float(n - 1), n) for n in range(1, 10)
        ]

    run(main())


def test_prefetch_refuses_to_hold_nothing() -> None:
    with pytest.raises(InvalidArgument):
        _ = prefetch(script("a|"), 0)


def stops() -> dict[str, Callable[[], Any]]:
    def event() -> asyncio.Event:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(2.5, stop.set)
        return stop

    def future() -> asyncio.Future[None]:
        stop = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(2.5, stop.set_result, None)
        return stop

    return {
        "event": event,
        "future": future,
        "coroutine": lambda: asyncio.sleep(2.5),
        "stream": lambda: timed(Wait(2.5), "stop"),
    }


@pytest.mark.parametrize("stop", stops().values(), ids=stops())
def test_take_until_ends_when_the_other_thing_happens(stop: Callable[[], Any]) -> None:
    async def main() -> None:
        source = script("ab-------c|")
        assert await timeline(take_until(source, stop())) == [(0.0, "a"), (1.0, "b")]
        assert now() == 2.5
        assert source.cancelled == 1

    run(main())


def test_take_until_emits_what_was_read_before() -> None:
    async def main() -> None:
        made = take_until.raw(script("(ab)----c|"), timed(Wait(2), "stop"))
        assert await anext(made) == "a"
        await asyncio.sleep(5)
        assert await collect(made) == ["b"]

    run(main())


def test_take_until_does_not_open_the_source_when_it_is_too_late() -> None:
    async def main() -> None:
        source, stop = script("a|"), asyncio.Event()
        stop.set()
        assert await collect(take_until.raw(source, stop)) == []
        assert source.opened == 0

    run(main())


def test_a_stream_that_ends_without_an_item_stops_nothing() -> None:
    async def main() -> None:
        assert len(await collect(take_until.raw(script("a-b|"), script("-|")))) == 2

    run(main())


def test_the_end_of_the_source_stops_the_wait_for_the_other() -> None:
    async def main() -> None:
        never = script("------")
        assert await collect(take_until.raw(script("a-b|"), never)) == ["a", "b"]
        assert never.closed == 1
        future = asyncio.get_running_loop().create_future()
        assert await collect(take_until.raw(script("a|"), future)) == ["a"]
        assert not future.cancelled()

    run(main())


def test_the_error_of_what_should_stop_it_is_not_a_clean_end() -> None:
    async def main() -> None:
        made = take_until.raw(script("a----b|"), script("--#", error=ZeroDivisionError()))
        assert await anext(made) == "a"
        with pytest.raises(ZeroDivisionError):
            await anext(made)
        assert now() == 2.0
        failing = asyncio.get_running_loop().create_future()
        failing.set_exception(OSError("no"))
        with pytest.raises(OSError, match="no"):
            await collect(take_until.raw(script("-a|"), failing))

    run(main())


def test_take_until_refuses_what_cannot_happen() -> None:
    with pytest.raises(TypeError, match="'int'"):
        _ = take_until(script("a|"), 3)  # type: ignore[arg-type]


def test_a_relay_is_repeatable_when_its_source_is() -> None:
    async def main() -> None:
        stop = asyncio.Event()
        for made in (
            distinct_until_changed(script("aab|")),
            prefetch(script("ab|"), 1),
            take_until(script("ab|"), stop),
            stream.iterate("ab") | take_until.pipe(stop),
        ):
            assert await stream.list(made) == await stream.list(made) == ["a", "b"]

    run(main())


def test_the_examples_of_the_operators_run() -> None:
    import doctest

    from returns_pipeline import combine
    from returns_pipeline._engine.operator import Operator

    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
    for name in combine.__all__:
        thing = getattr(combine, name)
        documented = type(thing) if isinstance(thing, Operator) else thing
        module = sys.modules[documented.__module__]
        examples = 0
        for test in finder.find(documented, name, module, vars(module)):
            examples += len(test.examples)
            assert runner.run(test).failed == 0, name
        assert examples or isinstance(thing, type), name


def test_an_error_of_the_clean_up_of_what_was_stopped_is_raised_after_the_items() -> None:
    async def dirty() -> AsyncIterator[str]:
        try:
            yield "a"
            await asyncio.sleep(100)
        finally:
            raise OSError("clean-up")

    async def main() -> None:
        made = take_until.raw(dirty(), timed(Wait(2), "stop"))
        assert await anext(made) == "a"
        with pytest.raises(OSError, match="clean-up"):
            await anext(made)
        assert now() == 2.0

    run(main())


def test_a_future_that_is_done_stops_the_stream_before_the_source_is_opened() -> None:
    async def main() -> None:
        future = asyncio.get_running_loop().create_future()
        future.set_result(None)
        task = asyncio.ensure_future(asyncio.sleep(0))
        await task
        for stop in (future, task):
            source = timed(*"abc")
            assert await collect(take_until.raw(source, stop)) == []
            assert source.opened == 0

    run(main())


def test_prefetch_costs_the_same_for_each_item_however_many_it_holds() -> None:
    """No item is moved: of a list, all that are held would be, for each one taken."""
    made: Any = prefetch.raw(timed(*range(10)), 5)
    assert isinstance(made._pump._items, deque)


def test_prefetch_over_a_source_that_never_suspends_lets_others_run() -> None:
    async def endless() -> AsyncIterator[int]:
        n = 0
        while True:
            yield n
            n += 1

    async def main() -> None:
        made: Any = prefetch.raw(endless(), 10**9)
        async with asyncio.timeout(5):
            assert await anext(made) == 0
        await made.aclose()

    asyncio.run(main())
