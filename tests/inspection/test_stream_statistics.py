"""Statistics of streams: true at any moment, for any task, and without an effect on the stream."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import pytest
from returns.result import Result, Success

from returns_pipeline import ResultStream, StepContext, combine, windows
from returns_pipeline._engine.operator import Operator
from returns_pipeline.context import ContextStatistics
from returns_pipeline.inspection import OperatorStatistics, StreamStatistics, statistics
from returns_pipeline.sources import Channel, from_iterable, ticks
from returns_pipeline.testing import VirtualTimeLoop, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable

Stream = ResultStream[Any, Any]


async def after(seconds: float, *streams: AsyncIterable[Any]) -> list[StreamStatistics]:
    """Read the last of some streams for a while; then return the statistics of all."""

    async def read() -> None:
        async for _ in streams[-1]:
            await asyncio.sleep(math.inf)

    reading = asyncio.create_task(read())
    await asyncio.sleep(seconds)
    try:
        return [statistics(stream) for stream in streams]
    finally:
        reading.cancel()
        await asyncio.wait([reading])
        for stream in streams:
            await stream.aclose()  # type: ignore[attr-defined]


def last(stream: AsyncIterable[Any], seconds: float) -> OperatorStatistics:
    """Return the statistics of the last operator, with a reader that takes one item."""
    [found] = run(after(seconds, stream))
    return found.operators[-1]


async def slow(item: Any) -> Any:
    await asyncio.sleep(100.0)
    return item


async def work(_: object, items: AsyncIterator[Any]) -> AsyncIterator[Result[Any, Any]]:
    async for item in items:
        await asyncio.sleep(100.0)
        yield Success(item)


def of(found: OperatorStatistics) -> tuple[Any, ...]:
    return found.tasks, found.buffered, found.in_flight, found.waiting_readers


def test_a_stream_that_is_not_read_holds_nothing() -> None:
    s = ResultStream.of(ticks(1.0)).prefetch(5)
    assert s.statistics() == StreamStatistics((OperatorStatistics("prefetch(n=5)"),))
    assert (s.statistics().tasks, s.statistics().buffered) == (0, 0)


def test_sequential_steps_have_no_line_of_their_own() -> None:
    assert ResultStream.of(ticks(1.0)).map(str).statistics() == StreamStatistics(())


def test_a_reader_that_is_busy_lets_the_buffer_fill() -> None:
    assert of(last(ResultStream.of(ticks(1.0)).prefetch(5), 3.5)) == (1, 2, 0, 0)
    assert of(last(ResultStream.of(ticks(1.0)).prefetch(5), 99.5)) == (1, 5, 0, 0)


def test_a_reader_waits_for_a_source_that_is_slow() -> None:
    assert of(last(ResultStream.of(ticks(1.0)).prefetch(5), 0.5)) == (1, 0, 0, 1)


def test_an_open_window_has_its_fill_and_its_age() -> None:
    found = last(ResultStream.of(ticks(1.0)).chunks_or_timeout(10, 60.0), 4.25)
    assert (found.windows, found.buffered, found.oldest) == (1, 4, 3.25)


def test_the_age_is_that_of_the_window_that_is_open() -> None:
    async def numbers() -> AsyncIterator[int]:
        for n in range(9):
            await asyncio.sleep(1.0)
            yield n

    s = ResultStream.of(numbers()).chunks_or_timeout(2, 60.0)
    found = last(s, 3.5)
    assert (found.windows, found.buffered, found.oldest) == (1, 1, 0.5)


def test_a_window_that_came_full_at_once_has_an_age() -> None:
    async def batches() -> AsyncIterator[list[int]]:
        yield [1]
        await asyncio.sleep(1.0)
        yield [2]
        await asyncio.sleep(1.0)
        yield [3, 4]
        await asyncio.sleep(math.inf)

    found = last(ResultStream.from_batches(batches()).chunks_or_timeout(2, 60.0), 3.0)
    assert (found.windows, found.buffered, found.oldest) == (1, 2, 1.0)
    found = last(ResultStream.of(from_iterable(range(9))).chunks_or_timeout(1, 60.0), 3.0)
    assert (found.windows, found.buffered, found.oldest) == (1, 1, 3.0)


WINDOWS: dict[str, Callable[[Stream], Stream]] = {
    "chunks_by_weight": lambda s: s.chunks_by_weight(99.0, 60.0, weight=lambda _: 1.0),
    "chunks_until": lambda s: s.chunks_until(lambda _: False, timeout=60.0),
    "keyed_chunks": lambda s: s.keyed_chunks(9, 60.0, key=lambda _: 0),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_each_window_has_its_fill_and_its_age(name: str) -> None:
    found = last(WINDOWS[name](ResultStream.of(ticks(1.0))), 4.25)
    assert (found.windows, found.buffered, found.oldest) == (1, 4, 3.25)


def test_windows_by_key_are_counted() -> None:
    found = last(ResultStream.of(ticks(1.0)).keyed_chunks(9, 60.0, key=lambda n: n % 3), 7.5)
    assert (found.windows, found.buffered, found.oldest) == (3, 7, 6.5)
    found = last(ResultStream.of(ticks(1.0)).sessions(60.0, key=lambda n: n % 3), 7.5)
    assert (found.windows, found.buffered, found.oldest) == (3, 7, None)
    s: Stream = ResultStream.of(ticks(1.0))
    found = last(s.event_windows(windows.TumblingWindows(3.0), timestamp=float), 4.5)
    assert found.windows == 1


def test_a_sliding_window_counts_what_was_in_no_list() -> None:
    found = last(ResultStream.of(ticks(1.0)).sliding(3), 2.5)
    assert (found.windows, found.buffered, found.oldest) == (1, 2, None)


def test_concurrent_steps_are_in_flight_and_those_that_are_done_are_held() -> None:
    async def but_for_the_first(n: int) -> int:
        await asyncio.sleep(100.0 if n == 1 else 0.0)
        return n

    s = ResultStream.of(from_iterable([1, 2, 3, 4]))
    assert of(last(s.map_async(slow, concurrency=3), 1.0)) == (4, 0, 3, 1)
    assert of(last(s.map_async(but_for_the_first, concurrency=3), 1.0))[1:] == (2, 1, 1)


def test_the_inputs_of_a_merge_are_held_together() -> None:
    s = ResultStream.of(from_iterable([1, 2])).merge(ResultStream.of(from_iterable([3, 4])))
    assert last(s, 1.0).buffered == 2


def test_a_broadcast_shows_what_all_its_branches_hold() -> None:
    async def main() -> list[StreamStatistics]:
        left, right = ResultStream.of(ticks(1.0)).broadcast(2, buffer=5)
        return await after(3.5, right, left)

    right, left = run(main())
    assert right == left
    assert of(left.operators[0]) == (1, 2 + 3, 0, 0)


def test_a_branch_has_its_own() -> None:
    async def main() -> None:
        left, right = combine.broadcast(ticks(1.0), 2, buffer=2, overflow="drop_oldest")
        reading = asyncio.ensure_future(anext(aiter(left.stream())))
        await asyncio.sleep(4.5)
        found = left.statistics(), right.statistics()
        assert (found[1].buffered, found[1].dropped) == (2, 2)
        await left.aclose()
        await right.aclose()
        await asyncio.wait([reading])

    run(main())


def test_workers_of_a_route_are_in_flight() -> None:
    found = last(ResultStream.of(from_iterable(range(6))).route(lambda n: n % 2, work), 1.0)
    assert (found.in_flight, found.buffered) == (2, 4)


def test_each_operator_of_a_chain_has_its_line() -> None:
    s = ResultStream.of(ticks(1.0)).chunks_or_timeout(2, 60.0).map_async(slow, concurrency=2)
    found = run(after(5.5, s))[0]
    assert [each.operator.partition("(")[0] for each in found.operators] == [
        "chunks_or_timeout",
        "map_async",
    ]
    assert found.tasks == 1 + 1 + 2


def test_a_stream_shows_a_reading_by_what_was_made_of_it() -> None:
    first = ResultStream.of(ticks(1.0)).prefetch(9)
    both = run(after(4.5, first, first.map(str).sliding(99)))
    assert both[0].operators[0] == both[1].operators[0]
    assert both[0].tasks == 1


def test_the_latest_reading_counts_and_none_is_left_after_the_end() -> None:
    async def main() -> None:
        s = ResultStream.of(from_iterable(range(3))).prefetch(2)
        for _ in range(2):
            async with s.stream() as items:
                _ = await anext(items)
                await asyncio.sleep(1.0)
                assert s.statistics().buffered == 2
            assert (s.statistics().tasks, s.statistics().buffered) == (0, 0)
        _ = await s.run()
        assert (s.statistics().tasks, s.statistics().buffered) == (0, 0)

    run(main())


OPERATORS = {
    each.__name__: each
    for room in (windows, combine)
    for each in [getattr(room, name) for name in room.__all__]
    if isinstance(each, Operator)
}
ARGUMENTS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "chunks_or_timeout": ((9, 60.0), {}),
    "chunks_by_weight": ((9.0, 60.0), {"weight": float}),
    "chunks_until": ((lambda _: False,), {}),
    "keyed_chunks": ((9, 60.0), {"key": str}),
    "sliding": ((9,), {}),
    "sessions": ((60.0,), {}),
    "event_windows": ((windows.TumblingWindows(1000.0),), {"timestamp": float}),
    "scan": ((0, max), {}),
    "prefetch": ((9,), {}),
    "take_until": ((ticks(1000.0),), {}),
    "throttle": ((1000.0,), {}),
    "debounce": ((1000.0,), {}),
    "route": ((str, work), {}),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_has_statistics_before_while_and_after_it_is_read(name: str) -> None:
    async def main() -> None:
        args, kwargs = ARGUMENTS.get(name, ((), {}))
        source: Any = ticks(1.0)
        sources = {"select": ({"a": source},), "merge_prioritized": ((1, source),)}
        if name == "zip_results":
            source = ResultStream.of(source)
        stream = OPERATORS[name](*sources.get(name, (source,)), *args, **kwargs)
        assert statistics(stream).tasks == 0
        while_read = (await after(3.5, stream))[0].operators[-1]
        assert while_read.operator.startswith(name)
        assert while_read.tasks > 0
        assert while_read.buffered or while_read.waiting_readers or while_read.in_flight
        assert statistics(stream).tasks == statistics(stream).buffered == 0

    run(main())


def test_an_acknowledged_channel_has_statistics() -> None:
    async def main() -> None:
        channel: Channel[int] = Channel(2, acknowledged=True)
        sending = [asyncio.create_task(channel.send(n)) for n in range(3)]
        await asyncio.sleep(0)
        found = channel.statistics()
        assert (found.buffered, found.waiting_senders, found.is_open) == (2, 1, True)
        channel.close()
        await asyncio.wait(sending)
        assert not channel.statistics().is_open

    run(main())


def test_statistics_change_nothing() -> None:
    async def read(*, asks: bool) -> list[Any]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        s = ResultStream.of(ticks(1.0)).chunks_or_timeout(3, 5.0).map_async(passed, concurrency=2)
        seen: list[Any] = []
        async with s.stream() as items:
            async for item in items:
                seen.append((loop.time(), item))
                for _ in range(3 if asks else 0):
                    _ = s.statistics()
                if len(seen) == 5:
                    return seen
        return seen

    async def passed(item: Any) -> Any:
        await asyncio.sleep(0.5)
        return item

    assert run(read(asks=True)) == run(read(asks=False))


def test_a_context_counts_actions_and_steps() -> None:
    async def undo() -> None: ...

    async def step(_: int, inside: StepContext) -> Result[int, str]:
        await inside.register(undo)
        assert inside.statistics().actions == 1
        await asyncio.sleep(1.0)
        return Success(1)

    async def main() -> None:
        async with StepContext("shop") as ctx:
            numbers = ResultStream.of(from_iterable(range(3)))
            s = numbers.bind_step(step, ctx, concurrency=2, hold=True)
            reading = asyncio.ensure_future(ctx.run(s.run()).awaitable())
            await asyncio.sleep(0.5)
            assert ctx.statistics() == ContextStatistics(actions=0, begun=2, running=2)
            await asyncio.sleep(1.0)
            assert ctx.statistics() == ContextStatistics(actions=2, begun=3, running=1)
            await reading
            assert ctx.statistics() == ContextStatistics(actions=0, begun=3, running=0)

    run(main())


def test_to_ask_a_context_makes_no_scope_for_it() -> None:
    async def step(_: int, inside: StepContext) -> Result[int, str]:
        assert inside.statistics() == ContextStatistics(0, 0, 0)
        assert inside._scope is None
        return Success(1)

    async def main() -> None:
        async with StepContext("shop") as ctx:
            _ = await ResultStream.of(from_iterable([1])).bind_step(step, ctx).run()

    run(main())


def test_the_age_of_a_list_is_not_that_of_the_one_before_it() -> None:
    async def main() -> None:
        s = ResultStream.of(from_iterable(range(9))).chunks_or_timeout(1, 60.0)
        async with s.stream() as items:
            for _ in range(2):
                _ = await anext(items)
                await asyncio.sleep(1.0)
            await asyncio.sleep(0.5)
            assert s.statistics().operators[-1].oldest == 1.5

    run(main())
