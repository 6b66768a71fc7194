"""`from_iterable` and `ticks`: plain iterables and the clock as streams."""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING, Any

import pytest

from returns_pipeline import ResultStream, chunks_or_timeout
from returns_pipeline.errors import InvalidArgument
from returns_pipeline.sources import from_iterable, ticks
from returns_pipeline.testing import Wait, run, timed, timeline

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_the_error_for_a_list_or_a_queue_names_the_function_that_makes_a_stream_of_it() -> None:
    not_a_stream: Any = [1, 2]
    with pytest.raises(TypeError, match=r"not 'list': use sources\.from_iterable\(\)"):
        _ = ResultStream.of(not_a_stream)
    with pytest.raises(TypeError, match=r"not 'list': use sources\.from_iterable\(\)"):
        _ = chunks_or_timeout(not_a_stream, 2, 1.0)
    queue: Any = asyncio.Queue[int]()
    with pytest.raises(TypeError, match=r"not 'Queue': use sources\.from_queue\(\)"):
        _ = ResultStream.of(queue)
    nothing: Any = 5
    with pytest.raises(TypeError, match=r"expected an async iterable, not 'int'$"):
        _ = ResultStream.of(nothing)
    assert "from_iterable" in (ResultStream.of.__doc__ or "")


def test_a_list_can_be_read_again_and_a_generator_continues_where_it_is() -> None:
    async def main() -> None:
        twice = ResultStream.of(from_iterable([1, 2]))
        assert await timeline(twice.successes()) == await timeline(twice.successes())
        counting = from_iterable(iter(range(5)))
        assert await anext(counting.stream()._aiterator) == 0
        assert [item for _, item in await timeline(counting)] == [1, 2, 3, 4]

    run(main())


def test_what_is_not_an_iterable_is_refused_at_the_call() -> None:
    no_iterable: Any = 5
    with pytest.raises(TypeError, match="expected an iterable, not 'int'"):
        _ = from_iterable(no_iterable)
    stream: Any = from_iterable([1])
    with pytest.raises(TypeError, match="async iterable: use it as it is"):
        _ = from_iterable(stream)


def test_a_generator_is_closed_with_the_stream_and_a_file_is_not() -> None:
    closed = []

    def numbers() -> Iterator[int]:
        try:
            yield from range(5)
        finally:
            closed.append(True)

    async def main() -> None:
        async with from_iterable(numbers()).stream() as items:
            assert await anext(items) == 0
            assert not closed
        assert closed
        lines = io.StringIO("a\nb\n")
        async with from_iterable(lines).stream() as texts:
            assert await anext(texts) == "a\n"
        assert lines.read() == "b\n"

    run(main())


def test_its_error_is_raised_after_the_items_before_it_and_ends_the_stream() -> None:
    def numbers() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError

    async def main() -> None:
        reading = from_iterable(numbers()).stream()
        async with reading as items:
            assert await anext(items) == 1
            with pytest.raises(ZeroDivisionError):
                await anext(items)
            with pytest.raises(StopAsyncIteration):
                await anext(items)

    run(main())


def test_other_tasks_run_while_it_is_read_and_a_read_cancelled_then_loses_nothing() -> None:
    async def main() -> None:
        seen: list[int] = []
        stop = asyncio.Event()
        asyncio.get_running_loop().call_soon(stop.set)
        async with from_iterable(range(10_000)).stream() as items:
            async for item in items:
                seen.append(item)
                if stop.is_set():
                    break
            assert len(seen) < 1000

            async def read_on() -> None:
                while True:
                    seen.append(await anext(items._aiterator))

            reader = asyncio.create_task(read_on())
            await asyncio.sleep(0)
            reader.cancel()
            await asyncio.wait({reader})
            assert not reader.done() or len(seen) < 10_000
            seen += [item async for item in items]
        assert seen == [*range(10_000)]

    run(main())


def test_ticks_do_not_drift_and_leave_out_what_the_reader_missed() -> None:
    async def main() -> None:
        ticking = ticks(0.1)[:3]
        seen = await timeline(ticking, pause=0.07)
        assert [number for _, number in seen] == [1, 2, 3]
        assert [at for at, _ in seen] == pytest.approx([0.1, 0.2, 0.3])

    run(main())
    assert [n for _, n in run(timeline(ticks(3)[:4], pause=7.0))] == [1, 3, 5, 8]
    hundred = run(timeline(ticks(0.1)[:1000]))
    assert [n for _, n in hundred] == [*range(1, 1001)]
    assert all(at == pytest.approx(0.1 * n, abs=1e-9) for at, n in hundred)


def test_a_tick_is_not_lost_to_a_cancelled_read_and_closing_ends_one_that_waits() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with ticks(2.0).stream() as ticking:
            for _ in range(5):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(ticking._aiterator), 0.3)
            assert await anext(ticking) == 1
            assert loop.time() == 2.0
            waiting = asyncio.ensure_future(anext(ticking._aiterator))
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="another task is reading"):
                await anext(ticking._aiterator)
        with pytest.raises(StopAsyncIteration):
            await waiting
        assert loop.time() == 2.0

    run(main())


@pytest.mark.parametrize("bad", [0, -1, float("inf"), float("nan"), "1", True])
def test_ticks_refuse_what_is_not_a_time(bad: Any) -> None:
    with pytest.raises(InvalidArgument, match="seconds must be above 0"):
        _ = ticks(bad)


def test_ticks_flush_and_drain() -> None:
    async def main() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(7, stop.set)
        drained = ResultStream.of(ticks(2)).drain_on(stop).collect()
        assert (await drained)._inner_value.unwrap() == [1, 2, 3]
        assert asyncio.get_running_loop().time() == 7

    run(main())
    assert run(timeline(timed(Wait(1.0), "a"))) == [(1.0, "a")]


def test_an_iterable_that_raises_the_exception_of_an_end_has_not_ended() -> None:
    class Empty:
        def __iter__(self) -> Iterator[int]:
            return iter([next(iter([]))])

    def step(number: int) -> int:
        if number == 2:
            raise StopAsyncIteration
        return number

    with pytest.raises(RuntimeError, match="raised StopIteration"):
        _ = run(timeline(from_iterable(Empty())))
    with pytest.raises(RuntimeError, match="raised StopAsyncIteration") as caught:
        _ = run(timeline(from_iterable(map(step, range(5)))))
    assert isinstance(caught.value.__cause__, StopAsyncIteration)
