"""What `route` promises."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from aiostream import stream
from hypothesis import given
from hypothesis import strategies as st
from returns.future import FutureResult
from returns.io import IO
from returns.result import Failure, Result, Success

from returns_pipeline import (
    InvalidArgument,
    ResultStream,
    StepContext,
    chunks_or_timeout,
)
from returns_pipeline.combine import KeyFailed, route
from returns_pipeline.errors import ItemsRefused
from returns_pipeline.policies import Timeout, with_policy
from returns_pipeline.testing import Wait, inject_everywhere, run, script, timed, timeline

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from returns_pipeline.testing import FaultInjector


def now() -> float:
    return asyncio.get_running_loop().time()


async def collect(source: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in source]


def first(item: str) -> str:
    return item[0]


async def echo(key: str, items: AsyncIterator[str]) -> AsyncIterator[str]:
    async for item in items:
        assert item[0] == key
        yield item


async def whole(key: str, items: AsyncIterator[str]) -> str:
    return f"{key}:" + "".join([item async for item in items])


async def slowly(_: str, items: AsyncIterator[str]) -> AsyncIterator[str]:
    async for item in items:
        await asyncio.sleep(1)
        yield item


class Log:
    """Workers that note their lives."""

    def __init__(self) -> None:
        self.alive: Counter[str] = Counter()
        self.most = 0
        self.started: list[str] = []

    async def __call__(self, key: str, items: AsyncIterator[str]) -> AsyncIterator[str]:
        self.alive[key] += 1
        assert self.alive[key] == 1
        self.most = max(self.most, self.alive.total())
        self.started.append(key)
        try:
            async for item in items:
                yield item
        finally:
            self.alive[key] -= 1


def test_each_key_has_a_worker_that_gets_its_items_in_order() -> None:
    async def main() -> None:
        made = route(timed("a1", "b1", "a2", "c1", "b2", "a3"), first, whole)
        assert sorted(await stream.list(made)) == ["a:a1a2a3", "b:b1b2", "c:c1"]
        assert len(await stream.list(made)) == 3

    run(main())


@given(
    items=st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 9)), max_size=30),
    max_keys=st.integers(1, 4),
    buffer=st.integers(1, 3),
    idle_after=st.sampled_from([0.5, 3.0, float("inf")]),
    pause=st.sampled_from([0.0, 1.0]),
    slow=st.booleans(),
)
def test_every_item_is_worked_on_once_and_each_key_in_order_at_most_so_many_at_a_time(
    items: list[tuple[str, int]],
    max_keys: int,
    buffer: int,
    idle_after: float,
    pause: float,
    slow: bool,
) -> None:
    log = Log()

    async def worker(key: str, own: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for item in log(key, own):
            if slow:
                await asyncio.sleep(int(item[1][1]) / 4)
            yield item

    async def source() -> AsyncIterator[Any]:
        for number, item in enumerate(items):
            if item[1] > 6:
                await asyncio.sleep(item[1] - 6)
            yield number, item

    async def main() -> None:
        made = route(
            source(),
            lambda item: item[1][0],
            worker,
            max_keys=max_keys,
            buffer=buffer,
            idle_after=idle_after,
        )
        seen = [item for _, item in await timeline(made, pause=pause)]
        assert sorted(seen) == list(enumerate(items))
        for key in "abcd":
            mine = [number for number, item in seen if item[0] == key]
            assert mine == sorted(mine)
        assert log.most <= max_keys
        assert log.alive.total() == 0

    run(main())


def test_the_longest_idle_worker_makes_room_for_a_new_key() -> None:
    async def main() -> None:
        log = Log()
        source = timed(*[s for item in "abacab" for s in (item, Wait(1))])
        await collect(route.raw(source, first, log, max_keys=2))
        # c comes while a was used last, so b goes; then b comes while a was used last: c goes
        assert log.started == ["a", "b", "c", "b"]

    run(main())


def test_a_new_key_waits_while_all_workers_are_busy() -> None:
    async def main() -> None:
        source = timed("a", "b", "c")
        assert await timeline(route(source, first, slowly, max_keys=1)) == [
            (1.0, "a"),
            (2.0, "b"),
            (3.0, "c"),
        ]

    run(main())


def test_a_worker_is_retired_when_it_is_idle_for_too_long() -> None:
    async def main() -> None:
        made = route(script("a-b--a----a|"), first, whole, idle_after=3.5)
        assert await timeline(made) == [
            (3.5, "a:a"),
            (5.5, "b:b"),
            (8.5, "a:a"),
            (11.0, "a:a"),
        ]

    run(main())


def test_one_timer_serves_all_idle_workers() -> None:
    async def main() -> None:
        made: Any = route.raw(timed(*map(str, range(50)), Wait(5)), str, echo_any, idle_after=2.0)
        for _ in range(50):
            await anext(made)
        await asyncio.sleep(1)
        loop: Any = asyncio.get_running_loop()
        assert len([timer for timer in loop._scheduled if not timer.cancelled()]) <= 3
        await made.aclose()
        assert not [timer for timer in loop._scheduled if not timer.cancelled()]

    run(main())


def test_a_worker_that_ends_by_itself_is_replaced_for_what_it_left() -> None:
    async def two(key: str, items: AsyncIterator[str]) -> str:
        return key + await anext(items) + await anext(items, "-")

    async def main() -> None:
        made = route(script("(xxxxx)|"), lambda _: "k", two)
        assert await stream.list(made) == ["kxx", "kxx", "kx-"]

    run(main())


def test_a_worker_may_window_its_items() -> None:
    async def pairs(_: str, items: AsyncIterator[str]) -> AsyncIterator[str]:
        async for pair in chunks_or_timeout.raw(items, 2, 100.0):
            yield "".join(pair)

    async def main() -> None:
        made = route(script("abbab|"), first, pairs, max_keys=2)
        assert sorted(await stream.list(made)) == ["aa", "b", "bb"]

    run(main())


def test_the_items_that_may_wait_are_bounded() -> None:
    async def main() -> None:
        for buffer in 1, 3:
            source = timed(*"abaaaaaaabbb")
            made: Any = route.raw(source, first, slowly, buffer=buffer)
            reader = asyncio.ensure_future(anext(made))
            await asyncio.sleep(0.5)
            # one in work for each key, `buffer` waiting for a, and one held
            assert source.given == 2 + buffer + 1
            await reader
            await made.aclose()

    run(main())


def test_a_reader_that_does_not_read_stops_the_workers_and_the_source() -> None:
    async def main() -> None:
        source = timed(*"abc" * 100)
        made: Any = route.raw(source, first, echo, buffer=2)
        await anext(made)
        await asyncio.sleep(10)
        assert source.given < 20
        await made.aclose()

    run(main())


def test_what_a_worker_raises_ends_the_others_at_once() -> None:
    stopped = []

    async def worker(key: str, items: AsyncIterator[str]) -> AsyncIterator[str]:
        try:
            async for item in items:
                yield item
                if key == "b":
                    await asyncio.sleep(0.5)
                    raise ZeroDivisionError
        finally:
            stopped.append((key, now()))

    async def main() -> None:
        source = script("ab-----c|")
        made: Any = route.raw(source, first, worker)
        assert [await anext(made), await anext(made)] == ["a", "b"]
        with pytest.raises(ZeroDivisionError) as caught:
            await anext(made)
        assert now() == 1.5
        assert "key 'b'; not done: 1 items" in caught.value.__notes__[0]
        assert sorted(stopped) == [("a", 1.5), ("b", 1.5)]
        assert source.closed == 1

    run(main())


def test_an_isolated_failure_tells_what_was_not_done_and_the_key_continues() -> None:
    error = ZeroDivisionError()

    async def worker(key: str, items: AsyncIterator[str]) -> AsyncIterator[str]:
        async for item in items:
            await asyncio.sleep(1)
            if item == "a2":
                raise error
            yield item

    async def main() -> None:
        source = timed("a1", "a2", "a3", "a4", "b1", Wait(5), "a5")
        made = route(source, first, worker, failing="isolate")
        assert await timeline(made) == [
            (1.0, "a1"),
            (1.0, "b1"),
            (2.0, KeyFailed("a", error, ("a2", "a3", "a4"))),
            (6.0, "a5"),
        ]

    run(main())


@pytest.mark.parametrize("failing", ["raise", "isolate"])
def test_an_error_of_the_source_or_of_the_key_comes_when_all_that_was_read_is_done(
    failing: Any,
) -> None:
    async def main() -> None:
        for source in timed("a", "ab", "b", ZeroDivisionError()), timed("a", "ab", "b", "", "c"):
            made: Any = route(source, lambda item: "ab"[1 // len(item)], slowly, failing=failing)
            seen = await timeline(made, error=ZeroDivisionError)
            assert [item for _, item in seen[:-1]] == ["a", "ab", "b"]
            assert seen[-1][0] == 2.0
            assert isinstance(seen[-1][1], ZeroDivisionError)

    run(main())


def test_a_worker_that_fails_while_the_others_finish_is_reported_with_the_source_s_error() -> None:
    async def worker(_: str, items: AsyncIterator[str]) -> AsyncIterator[str]:
        async for item in items:
            await asyncio.sleep(1)
            if item == "a":
                raise OSError(item)
            yield item

    async def main() -> None:
        with pytest.raises(OSError, match="a") as caught:
            await collect(route.raw(timed("a", ZeroDivisionError()), first, worker))
        assert "ZeroDivisionError" in str(caught.value.__notes__)

    run(main())


async def echo_any(_: object, items: AsyncIterator[str]) -> AsyncIterator[str]:
    async for item in items:
        yield item


def test_items_that_a_worker_refuses_are_reported_and_no_worker_is_started_forever() -> None:
    async def never(_: str, items: AsyncIterator[str]) -> None:
        del items

    async def main() -> None:
        with pytest.raises(ItemsRefused) as caught:
            await collect(route.raw(timed("a", "a"), first, never))
        assert caught.value == ItemsRefused("a")
        made = route.raw(timed("a", "a"), first, never, failing="isolate")
        assert await collect(made) == [None, KeyFailed("a", ItemsRefused("a"), ("a", "a"))]

    run(main())


def test_a_worker_that_is_not_asynchronous_is_refused() -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match="'list'"):
            await collect(route.raw(timed("a"), first, lambda key, _: [key]))

    run(main())


async def letters(key: str, items: AsyncIterator[str]) -> Result[str, str]:
    found = "".join([item async for item in items])
    if key == "x":
        raise ZeroDivisionError
    return Failure(found) if key == "b" else Success(found)


def future_letters(key: str, items: AsyncIterator[str]) -> FutureResult[str, str]:
    return FutureResult(letters(key, items))


@pytest.mark.parametrize(
    "worker", [future_letters, with_policy(letters, Timeout(9.0))], ids=["made", "with_policy"]
)
def test_a_worker_s_future_result_is_emitted_as_a_result_a_failure_too(
    worker: Callable[[str, AsyncIterator[str]], FutureResult[str, str]],
) -> None:
    async def main() -> None:
        made = route(timed("a", "b", "a"), first, worker)
        assert Counter(await stream.list(made)) == Counter([Success("aa"), Failure("b")])
        values = ResultStream.of(timed("a", "b", "a"))
        assert await values.route(first, worker).partition() == IO((["aa"], ["b"]))
        isolated = await stream.list(route(timed("x", "a"), first, worker, failing="isolate"))
        assert Success("a") in isolated
        [failed] = [item for item in isolated if isinstance(item, KeyFailed)]
        assert failed.items == ("x",)

    run(main())


def test_two_tasks_of_a_worker_cannot_read_its_items_at_once() -> None:
    async def both(_: str, items: AsyncIterator[str]) -> str:
        await anext(items)
        waiting = asyncio.ensure_future(anext(items))
        await asyncio.sleep(0)
        try:
            return await anext(items)
        finally:
            waiting.cancel()
            await asyncio.wait([waiting])

    async def main() -> None:
        with pytest.raises(RuntimeError, match="another task"):
            await collect(route.raw(script("a--a|"), first, both))

    run(main())


def test_a_worker_that_gives_up_waiting_for_an_item_is_not_idle() -> None:
    async def impatient(_: str, items: AsyncIterator[str]) -> AsyncIterator[str]:
        yield await anext(items)
        try:
            async with asyncio.timeout(1):
                await anext(items)
        except TimeoutError:
            await asyncio.sleep(5)
            yield f"gave up at {now()}"

    async def main() -> None:
        made = route(script("a------|"), first, impatient, idle_after=3.0)
        assert await timeline(made) == [(0.0, "a"), (6.0, "gave up at 6.0")]

    run(main())


@pytest.mark.parametrize("how", ["closed", "dropped"])
def test_closing_stops_source_and_workers(how: str) -> None:
    async def main() -> None:
        log, source = Log(), script("abc-------d|")
        made: Any = route.raw(source, first, log, idle_after=100.0)
        assert await anext(made) == "a"
        await asyncio.sleep(3)
        assert log.alive.total() == 3
        if how == "closed":
            await made.aclose()
        else:
            del made
            gc.collect()
            await asyncio.sleep(0.01)
        assert log.alive.total() == 0
        assert source.closed == 1

    run(main())


def test_an_error_of_a_worker_s_clean_up_is_raised_by_aclose_also_if_isolated() -> None:
    async def dirty(_: str, items: AsyncIterator[str]) -> AsyncIterator[str]:
        try:
            async for item in items:
                yield item
        finally:
            raise OSError("clean-up")

    async def main() -> None:
        for failing in "raise", "isolate":
            made: Any = route.raw(script("ab--|"), first, dirty, failing=failing)
            assert await anext(made) == "a"
            assert await anext(made) == "b"
            with pytest.raises(OSError, match="clean-up") as caught:
                await made.aclose()
            assert len(caught.value.__notes__) == 1

    run(main())


def test_a_cancelled_read_loses_nothing() -> None:
    async def main() -> None:
        made = route.raw(script("a-b--ab-a|"), first, echo)
        seen = []
        while True:
            try:
                async with asyncio.timeout(0.3):
                    seen.append(await anext(made))
            except TimeoutError:
                pass
            except StopAsyncIteration:
                break
        assert "".join(seen) == "ababa"

    run(main())


def test_cancelled_at_every_await_point_nothing_is_left_running() -> None:
    async def scenario(injector: FaultInjector) -> None:
        log, source = Log(), script("a-b-a-c|")

        async def reader() -> None:
            made: Any = route.raw(source, first, log, max_keys=2, idle_after=1.5)
            try:
                await collect(made)
            finally:
                await made.aclose()

        try:
            await injector.run(reader())
        except asyncio.CancelledError:
            assert injector.fired
        assert source.opened == source.closed
        assert log.alive.total() == 0

    assert inject_everywhere(scenario) > 5
    assert inject_everywhere(scenario, times=2) > 5


def test_a_source_that_swallows_its_cancellation_is_waited_for() -> None:
    async def stubborn() -> AsyncIterator[str]:
        yield "a"
        try:
            await asyncio.sleep(50)
        except asyncio.CancelledError:
            await asyncio.sleep(1)
        yield "b"
        yield "c"

    async def main() -> None:
        made: Any = route.raw(stubborn(), first, echo)
        assert await anext(made) == "a"
        await made.aclose()
        assert now() == 1.0

    run(main())


@pytest.mark.parametrize(
    "options",
    [{"max_keys": 0}, {"buffer": 0}, {"idle_after": 0}, {"failing": "never"}],
    ids=range(4),
)
def test_arguments_out_of_range_are_refused_at_the_call(options: dict[str, Any]) -> None:
    call: Callable[..., object] = route
    with pytest.raises(InvalidArgument):
        call(script("a|"), first, echo, **options)


def test_memory_stays_flat_however_many_keys_come_and_go() -> None:
    async def main() -> None:
        async def source() -> AsyncIterator[str]:
            for n in range(500):
                yield str(n)

        made: Any = route.raw(source(), str, echo_any, max_keys=3)
        async for _ in made:
            pump = made._pump
            assert len(pump.inputs) <= 4
            assert len(pump._tasks) <= 6
            assert len(pump._inboxes) <= 3

    run(main())


# In contexts of their own.


def test_what_a_worker_registered_is_settled_by_its_outcome() -> None:
    undone: list[str] = []

    async def undo(item: str) -> None:
        await asyncio.sleep(1)
        undone.append(item)

    async def worker(key: str, items: AsyncIterator[str], step: StepContext) -> Result[str, str]:
        async for item in items:
            await step.register(undo, item)
        if key == "x":
            raise ZeroDivisionError
        return Failure(key) if key == "b" else Success(key)

    async def main() -> None:
        async with StepContext("job") as ctx:
            made = route(script("(ababxa)|"), first, worker, ctx=ctx, failing="isolate")
            seen = await timeline(made)
            assert (1.0, Success("a")) in seen
            assert (3.0, Failure("b")) in seen
            [failed] = [item for _, item in seen if isinstance(item, KeyFailed)]
            assert (failed.key, failed.items) == ("x", ("x",))
            assert len(ctx.scope) == 0
        assert sorted(undone) == ["b", "b", "x"]

    run(main())


def test_held_successes_are_undone_when_the_job_fails_later() -> None:
    undone: list[str] = []

    async def undo(item: str) -> None:
        undone.append(item)

    async def worker(key: str, items: AsyncIterator[str], step: StepContext) -> Result[str, str]:
        async for item in items:
            await step.register(undo, item)
        return Success(key)

    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            async with StepContext("job") as ctx:
                made = route(timed("a", "b"), first, worker, ctx=ctx, hold=True)
                assert len(await stream.list(made)) == 2
                raise ZeroDivisionError
        assert undone == ["b", "a"]

    run(main())


def test_a_worker_with_a_context_settles_item_by_item() -> None:
    undone: list[str] = []

    async def undo(item: str) -> None:
        undone.append(item)

    async def one(item: str, step: StepContext) -> Result[str, str]:
        await step.register(undo, item)
        return Failure(item) if item == "a2" else Success(item)

    async def worker(
        _: str, items: AsyncIterator[str], step: StepContext
    ) -> Result[list[bool], str]:
        return Success(
            [isinstance(await step.run(one(item, step)), object) async for item in items]
        )

    async def main() -> None:
        async with StepContext("job") as ctx:
            made = route(timed("a1", "a2", "a3"), first, worker, ctx=ctx)
            assert await stream.list(made) == [Success([True] * 3)]
        assert undone == ["a2"]

    run(main())


def test_an_error_of_the_source_s_clean_up_is_raised_by_aclose() -> None:
    async def dirty() -> AsyncIterator[str]:
        try:
            yield "a"
            await asyncio.sleep(100)
        finally:
            raise OSError("clean-up")

    async def main() -> None:
        made: Any = route.raw(dirty(), first, echo)
        assert await anext(made) == "a"
        with pytest.raises(OSError, match="clean-up"):
            await made.aclose()

    run(main())


@pytest.mark.parametrize("options", [{"max_keys": 2}, {"idle_after": 1.0}])
def test_a_worker_that_ended_while_it_waited_for_an_item_is_not_idle(options: Any) -> None:
    """Its read runs in a task of its own, which it did not cancel."""
    logged: list[Any] = []

    async def worker(key: str, items: AsyncIterator[str]) -> AsyncIterator[str]:
        while True:
            reading = asyncio.ensure_future(anext(items))
            done, _ = await asyncio.wait({reading}, timeout=0.5)
            if not done:
                if key == "a":
                    return
                await asyncio.wait({reading})
            try:
                yield reading.result()
            except StopAsyncIteration:
                return

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: logged.append(context))
        made = route.raw(script("a--bcd--|"), first, worker, **options)
        assert await collect(made) == ["a", "b", "c", "d"]
        await asyncio.sleep(5)
        gc.collect()

    run(main())
    assert not logged


def test_one_new_key_retires_one_worker() -> None:
    ended: list[tuple[str, float]] = []

    async def worker(key: str, items: AsyncIterator[str]) -> AsyncIterator[str]:
        async for item in items:
            yield item
        await asyncio.sleep(2)  # its last words
        ended.append((key, now()))

    async def main() -> None:
        made = route.raw(script("abc-d-------(abc)-|"), first, worker, max_keys=3)
        assert Counter(await collect(made)) == Counter("abcdabc")
        assert [key for key, at in ended if at < 10] == ["a"]

    run(main())


def test_what_a_worker_left_has_an_end_also_for_the_worker_after_it() -> None:
    """The source has ended while the first one had items: the next one must not wait for more."""
    calls: list[str] = []

    async def one_each(key: str, items: AsyncIterator[str]) -> AsyncIterator[str]:
        calls.append(key)
        async for item in items:
            await asyncio.sleep(1)
            yield item
            if len(calls) == 1:
                return

    async def main() -> None:
        assert await collect(route.raw(timed("a1", "a2", "a3"), first, one_each)) == [
            "a1",
            "a2",
            "a3",
        ]
        assert calls == ["a", "a"]

    run(main())
