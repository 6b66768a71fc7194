"""What `chunks_or_timeout` promises, one test each."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import math
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from returns_pipeline import InvalidArgument, chunks_or_timeout
from returns_pipeline.testing import run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def timed(*steps: str | float) -> AsyncIterator[str]:
    """Give the strings; sleep the numbers, in seconds."""
    for step in steps:
        if isinstance(step, str):
            yield step
        else:
            await asyncio.sleep(step)


def now() -> float:
    return asyncio.get_running_loop().time()


def test_a_list_is_given_out_at_its_deadline_not_at_the_next_item() -> None:
    async def main() -> None:
        seen = []
        async for chunk in chunks_or_timeout.raw(timed("a", 1, "b", 60, "c"), 10, 5.0):
            seen.append((now(), chunk))
        assert seen == [(5.0, ["a", "b"]), (61.0, ["c"])]

    run(main())


def test_the_timer_neither_restarts_per_item_nor_runs_free() -> None:
    async def main() -> None:
        seen = []
        source = timed("a", 1.5, "b", 1.5, "c", 100, "d", 1.9, "e", 1, "f")
        async for chunk in chunks_or_timeout.raw(source, 500, 2.0):
            seen.append((now(), chunk))
        assert seen == [(2.0, ["a", "b"]), (5.0, ["c"]), (105.0, ["d", "e"]), (105.9, ["f"])]

    run(main())


def test_a_timer_armed_for_a_list_that_filled_up_does_not_cut_the_next_one_short() -> None:
    async def main() -> None:
        seen = []
        source = timed("a", 1, "b", 0.5, "c", 1, "d", 9)
        async for chunk in chunks_or_timeout.raw(source, 2, 2.0):
            seen.append((now(), chunk))
        assert seen == [(1.0, ["a", "b"]), (2.5, ["c", "d"])]

    run(main())


@given(gaps=st.lists(st.integers(0, 5)), n=st.integers(1, 5), timeout=st.integers(1, 9))
def test_against_a_model_under_random_arrivals(gaps: list[int], n: int, timeout: int) -> None:
    """Times are halves against whole deadlines, so that no two events coincide."""
    arrivals, clock = [], 0.0
    for index, gap in enumerate(gaps):
        clock += gap + (0.25 if gap else 0)
        arrivals.append((clock, index))
    expected: list[tuple[float, list[int]]] = []
    held: list[int] = []
    due = math.inf
    limit = timeout + 0.1
    for at, index in arrivals:
        if at >= due:
            expected.append((due, held))
            held, due = [], math.inf
        if not held:
            due = at + limit
        held.append(index)
        if len(held) == n:
            expected.append((at, held))
            held, due = [], math.inf
    if held:
        expected.append((clock, held))

    async def source() -> AsyncIterator[int]:
        for at, index in arrivals:
            delay = at - now()
            if delay > 0:
                await asyncio.sleep(delay)
            yield index

    async def main() -> list[tuple[float, list[int]]]:
        return [(now(), c) async for c in chunks_or_timeout.raw(source(), n, limit)]

    got = run(main())
    assert [chunk for _, chunk in got] == [chunk for _, chunk in expected]
    assert [at for at, _ in got] == pytest.approx([at for at, _ in expected])


def test_the_tail_comes_out_before_the_error_of_the_source() -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        yield 2
        raise KeyError("source")

    async def main() -> None:
        chunks = chunks_or_timeout.raw(source(), 10, 1.0)
        assert await anext(chunks) == [1, 2]
        with pytest.raises(KeyError):
            await anext(chunks)
        with pytest.raises(StopAsyncIteration):
            await anext(chunks)

    run(main())


def test_a_source_that_raises_cancelled_error_ends_the_stream_with_it() -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        raise asyncio.CancelledError("not ours")

    async def main() -> None:
        chunks = chunks_or_timeout.raw(source(), 10, 1.0)
        assert await anext(chunks) == [1]
        with pytest.raises(asyncio.CancelledError, match="not ours"):
            await anext(chunks)

    run(main())


def test_a_cancelled_read_loses_nothing() -> None:
    async def main() -> None:
        chunks = chunks_or_timeout.raw(timed("a", 1, "b", 1, "c", 9, "d"), 3, math.inf)
        cut = 0
        while True:
            try:
                async with asyncio.timeout(0.3):
                    assert await anext(chunks) == ["a", "b", "c"]
                break
            except TimeoutError:
                cut += 1
        assert cut == 6
        assert await anext(chunks) == ["d"]
        with pytest.raises(StopAsyncIteration):
            await anext(chunks)

    run(main())


@pytest.mark.parametrize("n", [1, 3, 10])
def test_a_slow_reader_makes_the_source_wait(n: int) -> None:
    async def main() -> None:
        read = 0
        given_out = 0

        async def source() -> AsyncIterator[int]:
            nonlocal read
            for item in range(100):
                read += 1
                assert read - given_out <= n + 1
                yield item
                await asyncio.sleep(0)

        async for chunk in chunks_or_timeout.raw(source(), n, 0.5):
            given_out += len(chunk)
            await asyncio.sleep(10)
            assert read - given_out <= n
        assert read == given_out == 100

    run(main())


def test_closing_stops_the_source_and_awaits_its_clean_up() -> None:
    cleaned = []

    async def source() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(math.inf)
        finally:
            await asyncio.sleep(3)
            cleaned.append(now())

    async def main() -> None:
        async with chunks_or_timeout(source(), 10, 1.0).stream() as chunks:
            assert await anext(chunks) == [1]
        assert cleaned == [4.0]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


def test_closing_while_a_full_list_waits_for_its_reader() -> None:
    cleaned = []

    async def source() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        except BaseException as error:
            cleaned.append(type(error))
            raise

    async def main() -> None:
        chunks = chunks_or_timeout.raw(source(), 2, 1.0)
        assert await anext(chunks) == [1, 1]
        await asyncio.sleep(5)
        await chunks.aclose()  # type: ignore[attr-defined]
        assert cleaned == [GeneratorExit]  # and not the cancellation, nor a reader's exception

    run(main())


def test_a_source_that_swallows_the_cancellation_is_stopped_at_its_next_item() -> None:
    async def source() -> AsyncIterator[int]:
        yield 0
        for item in range(1, 100):
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                await asyncio.sleep(1)
            yield item

    async def main() -> None:
        async with chunks_or_timeout(source(), 10, 1.0).stream() as chunks:
            assert await anext(chunks) == [0]
        assert now() == 2.0

    run(main())


def test_an_iterator_dropped_unread_stops_its_task() -> None:
    closed = []

    async def source() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(math.inf)
        finally:
            closed.append(True)

    async def main() -> None:
        chunks = chunks_or_timeout.raw(source(), 10, 1.0)
        assert await anext(chunks) == [1]
        del chunks
        gc.collect()
        await asyncio.sleep(0.1)
        assert closed == [True]

    run(main())


def test_the_source_runs_in_one_task_where_timeouts_work() -> None:
    async def main() -> None:
        tasks = set()

        async def source() -> AsyncIterator[int]:
            tasks.add(asyncio.current_task())
            try:
                async with asyncio.timeout(2):  # what some sources do
                    while True:
                        yield 1
                        tasks.add(asyncio.current_task())
                        await asyncio.sleep(0.9)
            except TimeoutError:
                yield 2
            tasks.add(asyncio.current_task())

        chunks = [chunk async for chunk in chunks_or_timeout.raw(source(), 10, 50.0)]
        assert chunks == [[1, 1, 1, 2]]
        assert len(tasks) == 1

    run(main())


def test_context_variables_reach_the_source_and_come_back_where_python_can() -> None:
    var = contextvars.ContextVar("var", default="unset")

    async def source() -> AsyncIterator[str]:
        yield var.get()
        var.set("by the source")

    async def main() -> None:
        var.set("by the reader")
        assert [c async for c in chunks_or_timeout.raw(source(), 5, 1.0)] == [["by the reader"]]
        shared = sys.version_info >= (3, 12)
        assert var.get() == ("by the source" if shared else "by the reader")

    run(main())


def test_a_source_that_never_suspends_is_flushed_in_time_and_lets_others_run() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def source() -> AsyncIterator[int]:
            while True:
                yield 0

        ticks = 0

        async def other() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0)
                ticks += 1

        task = asyncio.create_task(other())
        async with chunks_or_timeout(source(), 10**9, 0.05).stream() as chunks:
            started = loop.time()
            first = await anext(chunks)
            assert 0 < len(first) < 10**9
            assert loop.time() - started >= 0.05
        assert ticks > 2
        task.cancel()

    asyncio.run(main())  # real time: on virtual time it would not pass


def test_ten_thousand_idle_windows_cost_one_timer_each_and_then_none() -> None:
    async def main() -> None:
        async def source() -> AsyncIterator[int]:
            yield 1
            await asyncio.sleep(1000)

        loop = asyncio.get_running_loop()
        all_chunks = [chunks_or_timeout.raw(source(), 9, 2.0) for _ in range(10_000)]
        for chunk in await asyncio.gather(*map(anext, all_chunks)):
            assert chunk == [1]
        await asyncio.sleep(10)
        assert len(loop._scheduled) <= 10_000 + 1  # type: ignore[attr-defined]  # the sources' own
        for chunks in all_chunks:
            await chunks.aclose()  # type: ignore[attr-defined]

    run(main())


@pytest.mark.parametrize(
    ("n", "timeout"), [(0, 1.0), (-1, 1.0), (1, 0.0), (1, -1.0), (1, math.nan)]
)
def test_arguments_out_of_range_are_refused_at_the_call(n: int, timeout: float) -> None:
    with pytest.raises(InvalidArgument):
        _ = chunks_or_timeout(timed("a"), n, timeout)


def test_a_source_that_is_not_async_is_a_type_error_at_the_call() -> None:
    with pytest.raises(TypeError):
        _ = chunks_or_timeout([1, 2], 1, 1.0)  # type: ignore[arg-type]


def test_the_stream_is_repeatable_when_its_source_is() -> None:
    from aiostream import stream

    async def main() -> None:
        chunks = chunks_or_timeout(stream.range(3), 2, 1.0)
        for _ in range(2):
            async with chunks.stream() as reading:
                assert [chunk async for chunk in reading] == [[0, 1], [2]]
        piped = stream.range(3) | chunks_or_timeout.pipe(2, 1.0)
        assert await piped == [2]

    run(main())


def test_two_readers_at_once_are_an_error() -> None:
    async def main() -> None:
        chunks = chunks_or_timeout.raw(timed("a", 5, "b"), 10, math.inf)
        first = asyncio.ensure_future(anext(chunks))
        await asyncio.sleep(1)
        with pytest.raises(RuntimeError, match="another task"):
            await anext(chunks)
        assert await first == ["a", "b"]
        await chunks.aclose()  # type: ignore[attr-defined]

    run(main())
