"""What concurrent steps promise, one test each."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.io import IOFailure, IOSuccess
from returns.result import Failure, Result, Success

from returns_pipeline import ResultStream
from returns_pipeline._engine.concurrent_map import map_concurrently
from returns_pipeline.testing import run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def now() -> float:
    return asyncio.get_running_loop().time()


async def count_up(n: int, read: list[int] | None = None) -> AsyncIterator[int]:
    for i in range(n):
        if read is not None:
            read.append(i)
        yield i


class Work:
    """Sleeps a given time for each item; remembers what was started, finished, cancelled."""

    def __init__(self, *times: float) -> None:
        self.times = times
        self.started: list[int] = []
        self.finished: list[int] = []
        self.cancelled: list[int] = []
        self.running = 0
        self.most = 0

    async def __call__(self, n: int) -> int:
        self.started.append(n)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(self.times[n % len(self.times)])
        except asyncio.CancelledError:
            await asyncio.sleep(0.1)  # a clean-up that takes its time
            self.cancelled.append(n)
            raise
        finally:
            self.running -= 1
        self.finished.append(n)
        return n


class Passing:
    """Items that are not worked on."""


def test_items_are_worked_on_side_by_side_and_are_emitted_in_order() -> None:
    work = Work(3, 1, 2)

    async def main() -> None:
        s = ResultStream.of(count_up(6)).map_async(work, concurrency=3)
        assert await s.collect() == IOSuccess([0, 1, 2, 3, 4, 5])
        assert now() == 6.0

    run(main())
    assert work.most == 3
    assert work.finished[:3] == [1, 2, 0]


def test_unordered_items_are_emitted_as_they_are_done() -> None:
    async def main() -> None:
        s = ResultStream.of(count_up(3)).map_async(Work(3, 1, 2), concurrency=3, ordered=False)
        seen = []
        async with s.stream() as items:
            async for item in items:
                seen.append((now(), item.unwrap()))
        assert seen == [(1.0, 1), (2.0, 2), (3.0, 0)]

    run(main())


@pytest.mark.parametrize("ordered", [True, False])
def test_a_slow_reader_stops_the_work(ordered: bool) -> None:
    """Never more than ``concurrency`` items started beyond those that were requested."""
    work = Work(0.01)
    read: list[int] = []

    async def main() -> None:
        s = ResultStream.of(count_up(100, read)).map_async(work, concurrency=4, ordered=ordered)
        async with s.stream() as items:
            assert (read, work.started) == ([], [])
            for asked in range(1, 5):
                await anext(items)
                await asyncio.sleep(60)
                assert len(work.started) <= asked + 4
                assert len(read) <= asked + 4

    run(main())


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("concurrency", [1, 4])
def test_the_first_exception_cancels_and_awaits_the_siblings(
    concurrency: int, ordered: bool
) -> None:
    work = Work(1, 2, 30, 40, 50)
    closed: list[float] = []

    async def source() -> AsyncIterator[int]:
        try:
            for n in range(100):
                yield n
        finally:
            closed.append(now())

    async def failing(n: int) -> int:
        if n == 1:
            await asyncio.sleep(2)
            raise ZeroDivisionError
        return await work(n)

    async def main() -> None:
        seen: list[object] = []
        s = ResultStream.of(source()).map_async(failing, concurrency=concurrency, ordered=ordered)
        with pytest.raises(ZeroDivisionError):
            async with s.stream() as items:
                async for item in items:
                    seen.append(item)
        assert seen == [Success(0)]
        assert work.running == 0
        assert len(closed) == 1
        assert now() < 5

    run(main())
    assert work.finished == [0]
    assert sorted(work.cancelled) == sorted(set(work.started) - {0})


def test_what_was_done_before_the_exception_is_emitted_before_it() -> None:
    async def work(n: int) -> int:
        await asyncio.sleep(1 if n < 2 else 2)
        if n == 2:
            raise ZeroDivisionError
        return n

    async def main() -> None:
        s = ResultStream.of(count_up(9)).map_async(work, concurrency=4)
        async with s.stream() as items:
            await asyncio.sleep(0)
            assert await anext(items) == Success(0)
            await asyncio.sleep(60)  # meanwhile 2 has failed
            assert await anext(items) == Success(1)
            with pytest.raises(ZeroDivisionError):
                await anext(items)

    run(main())


def test_an_error_of_the_source_comes_after_the_work_that_was_done() -> None:
    work = Work(1)

    async def source() -> AsyncIterator[int]:
        yield 0
        yield 1
        await asyncio.sleep(1.5)
        yield 2
        await asyncio.sleep(0.5)
        raise KeyError

    async def main() -> None:
        seen = []
        s = ResultStream.of(source()).map_async(work, concurrency=4)
        with pytest.raises(KeyError):
            async with s.stream() as items:
                async for item in items:
                    seen.append(item)
        assert seen == [Success(0), Success(1)]

    run(main())
    assert work.cancelled == [2]


def test_later_errors_of_siblings_are_notes_on_the_first() -> None:
    async def work(n: int) -> int:
        try:
            await asyncio.sleep(1 + n)
        except asyncio.CancelledError:
            raise OSError("clean-up failed") from None
        raise ZeroDivisionError

    async def main() -> None:
        s = ResultStream.of(count_up(3)).map_async(work, concurrency=3)
        with pytest.raises(ZeroDivisionError) as caught:
            await s.collect()
        assert len(caught.value.__notes__) == 2
        assert "clean-up failed" in caught.value.__notes__[0]

    run(main())


@pytest.mark.parametrize("ordered", [True, False])
def test_a_read_that_is_cancelled_loses_nothing(ordered: bool) -> None:
    async def main() -> None:
        s = map_concurrently(
            count_up(6), Work(3, 1, 2), 3, ordered=ordered, passing=Passing, after=int
        )
        seen = []
        while True:
            try:
                async with asyncio.timeout(0.7):
                    seen.append(await anext(s))
            except TimeoutError:
                continue
            except StopAsyncIteration:
                break
        assert sorted(map(int, map(str, seen))) == [0, 1, 2, 3, 4, 5]
        if ordered:
            assert seen == [0, 1, 2, 3, 4, 5]

    run(main())


@pytest.mark.parametrize("concurrency", [1, 3])
def test_closing_early_cancels_the_work_and_awaits_it(concurrency: int) -> None:
    work = Work(1, 20, 30)

    async def main() -> None:
        s = ResultStream.of(count_up(99)).map_async(work, concurrency=concurrency)
        async with s.stream() as items:
            assert await anext(items) == Success(0)
            await asyncio.sleep(0)
        assert work.running == 0

    run(main())
    assert sorted(work.cancelled) == sorted(set(work.started) - {0})


def test_a_terminal_that_is_cancelled_awaits_the_work() -> None:
    work = Work(20)

    async def main() -> None:
        s = ResultStream.of(count_up(99)).map_async(work, concurrency=3)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await s.collect()
        assert work.running == 0

    run(main())
    assert sorted(work.cancelled) == [0, 1, 2]


def test_an_iterator_dropped_unread_stops_its_work() -> None:
    work = Work(20)

    async def main() -> None:
        s: Any = map_concurrently(count_up(9), work, 3, ordered=True, passing=Passing, after=int)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await anext(s)
        del s
        gc.collect()
        await asyncio.sleep(1)
        assert work.running == 0

    run(main())
    assert sorted(work.cancelled) == [0, 1, 2]


def test_failures_pass_without_work_and_keep_their_place() -> None:
    work = Work(2, 1)

    def even(n: int) -> Result[int, str]:
        return Failure(str(n)) if n % 2 else Success(n // 2)

    async def main() -> None:
        s = ResultStream.of(count_up(6)).bind(even).map_async(work, concurrency=3)
        async with s.stream() as items:
            seen = []
            async for item in items:
                seen.append(item)
        assert seen == [
            Success(0), Failure("1"), Success(1), Failure("3"), Success(2), Failure("5"),
        ]  # fmt: skip

    run(main())
    assert work.started == [0, 1, 2]


def odd_fails(n: int) -> Result[int, int]:
    return Failure(n) if n % 2 else Success(n)


@pytest.mark.parametrize("ordered", [True, False])
def test_steps_about_failures_work_on_them_alone_and_keep_every_item(ordered: bool) -> None:
    async def main() -> None:
        for name, made in ("tap_failure_async", Failure), ("lash_async", Success):
            work = Work(5, 3, 1)

            async def recover(
                n: int, work: Work = work, made: type = made
            ) -> Result[int, int] | None:
                await work(n // 2)
                return Success(n) if made is Success else None

            step = getattr(ResultStream.of(count_up(6)).bind(odd_fails), name)
            async with step(recover, concurrency=6, ordered=ordered).stream() as items:
                seen = [item async for item in items]
            expected = [Success(0), made(1), Success(2), made(3), Success(4), made(5)]
            unordered = [*expected[::2], *expected[5:0:-2]]
            assert seen == (expected if ordered else unordered)
            assert work.started == [0, 1, 2]

    run(main())


def test_side_effects_run_side_by_side_and_leave_the_items_as_they_are() -> None:
    work = Work(2, 1, 3)

    async def see(n: int) -> str:
        return f"{await work(n)} was seen"

    async def main() -> None:
        s = ResultStream.of(count_up(3)).tap_async(see, concurrency=3)
        assert await s.collect() == IOSuccess([0, 1, 2])
        assert asyncio.get_running_loop().time() == 3

    run(main())
    assert sorted(work.started) == [0, 1, 2]


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_step_that_runs_into_the_end_of_another_iterator_does_not_end_the_stream(
    concurrency: int,
) -> None:
    async def main() -> None:
        others = count_up(2)
        s = ResultStream.of(count_up(4)).map_async(lambda _: anext(others), concurrency=concurrency)
        with pytest.raises(RuntimeError, match="raised StopAsyncIteration"):
            await s.collect()
        await others.aclose()  # type: ignore[attr-defined]  # it is a generator

    run(main())


def test_a_failure_stops_a_terminal_and_the_work_under_way() -> None:
    work = Work(2, 1, 30, 40)

    async def refuse(n: int) -> Result[int, str]:
        await work(n)
        return Failure("no") if n == 1 else Success(n)

    async def main() -> None:
        s = ResultStream.of(count_up(99)).bind_async(refuse, concurrency=3)
        assert await s.collect() == IOFailure("no")
        assert work.running == 0
        assert now() < 3

    run(main())


def test_the_source_runs_in_one_task_and_may_use_timeouts_and_context_variables() -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)

    async def source() -> AsyncIterator[int]:
        tasks = set()
        for n in range(3):
            variable.set(variable.get() + 1)
            tasks.add(asyncio.current_task())
            try:
                async with asyncio.timeout(1):
                    await asyncio.sleep(9)
            except TimeoutError:
                yield n
        assert variable.get() == 3
        assert len(tasks) == 1

    async def main() -> None:
        s = ResultStream.of(source()).map_async(Work(5), concurrency=2)
        assert await s.collect() == IOSuccess([0, 1, 2])

    run(main())


def test_work_that_never_suspends_does_not_starve_the_reader() -> None:
    async def at_once(n: int) -> int:
        return n

    async def main() -> None:
        s = ResultStream.of(count_up(1000)).map_async(at_once, concurrency=8)
        assert await s.collect() == IOSuccess(list(range(1000)))

    run(main())


def test_a_source_that_swallows_the_cancellation_cannot_make_more_work() -> None:
    work = Work(1)

    async def stubborn() -> AsyncIterator[int]:
        n = 0
        while n < 50:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(10)
            yield n
            n += 1

    async def main() -> None:
        s = ResultStream.of(stubborn()).map_async(work, concurrency=2)
        async with s.stream() as items:
            assert await anext(items) == Success(0)
        before = len(work.started)
        await asyncio.sleep(100)
        assert len(work.started) == before

    run(main())


def test_streams_are_expanded_side_by_side_each_in_its_own_order() -> None:
    async def each(n: int) -> AsyncIterator[Result[tuple[int, int], str]]:
        for i in range(3):
            await asyncio.sleep((1.0, 1.75, 5.0)[n])
            yield Success((n, i))

    async def main() -> None:
        s = ResultStream.of(count_up(3)).flat_map(each, concurrency=2)
        seen = []
        async with s.stream() as items:
            async for item in items:
                seen.append((now(), item.unwrap()))
        assert seen == [
            (1.0, (0, 0)), (1.75, (1, 0)), (2.0, (0, 1)), (3.0, (0, 2)), (3.5, (1, 1)),
            (5.25, (1, 2)), (8.0, (2, 0)), (13.0, (2, 1)), (18.0, (2, 2)),
        ]  # fmt: skip

    run(main())


def test_each_expanded_stream_holds_one_item_for_a_slow_reader() -> None:
    read: list[int] = []

    async def each(n: int) -> AsyncIterator[Result[int, str]]:
        for i in range(100):
            read.append(i)
            yield Success(i)

    async def main() -> None:
        s = ResultStream.of(count_up(10)).flat_map(each, concurrency=2)
        async with s.stream() as items:
            await anext(items)
            await asyncio.sleep(60)
            assert len(read) <= 3

    run(main())


def test_an_exception_in_one_expanded_stream_closes_the_others() -> None:
    closed: list[int] = []

    async def each(n: int) -> AsyncIterator[Result[int, str]]:
        try:
            await asyncio.sleep(1 + n)
            yield Success(n)
            await asyncio.sleep(1)
            if n == 0:
                raise ZeroDivisionError
            await asyncio.sleep(60)
        finally:
            closed.append(n)

    async def main() -> None:
        s = ResultStream.of(count_up(3)).flat_map(each, concurrency=3)
        with pytest.raises(ZeroDivisionError):
            await s.collect()
        assert sorted(closed) == [0, 1, 2]
        assert now() < 5

    run(main())


@given(
    times=st.lists(st.floats(0, 5), min_size=1, max_size=12),
    concurrency=st.integers(2, 5),
    ordered=st.booleans(),
    impatience=st.one_of(st.none(), st.floats(0.1, 2)),
)
def test_every_item_is_emitted_once_whatever_the_timing(
    times: list[float], concurrency: int, ordered: bool, impatience: float | None
) -> None:
    work = Work(*times)

    async def main() -> list[Any]:
        source = count_up(len(times))
        s = map_concurrently(source, work, concurrency, ordered=ordered, passing=Passing, after=int)
        seen: list[Any] = []
        while True:
            try:
                async with asyncio.timeout(impatience):
                    seen.append(await anext(s))
            except TimeoutError:
                continue
            except StopAsyncIteration:
                return seen

    seen = run(main())
    assert sorted(seen) == list(range(len(times)))
    assert work.most <= concurrency
    assert seen == (sorted(seen) if ordered else work.finished)


def test_an_error_in_the_clean_up_of_the_work_is_raised_in_the_task_that_closes() -> None:
    async def work(n: int) -> int:
        try:
            await asyncio.sleep(99)
        finally:
            raise ZeroDivisionError(n) from None

    async def main() -> None:
        items = map_concurrently(
            count_up(9), work, 2, ordered=True, passing=Passing, after=lambda n: n
        )
        read = asyncio.ensure_future(anext(items))
        await asyncio.sleep(1)
        read.cancel()
        await asyncio.wait({read})
        with pytest.raises(ZeroDivisionError) as caught:
            await items.aclose()  # type: ignore[attr-defined]
        assert caught.value.args == (0,)
        assert caught.value.__notes__ == [
            "while the stream was being stopped, ZeroDivisionError(1) was raised"
        ]

    run(main())


def test_a_second_cancellation_does_not_reach_the_clean_up_of_the_work() -> None:
    work = Work(99)

    async def main() -> None:
        s = ResultStream.of(count_up(9)).map_async(work, concurrency=3)
        task = asyncio.ensure_future(s.collect().awaitable())
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()  # while the work, cancelled, still cleans up
        with pytest.raises(asyncio.CancelledError):
            await task
        assert work.running == 0
        assert work.cancelled == [0, 1, 2]
        assert now() == 1.1

    run(main())


def test_a_keyboard_interrupt_in_the_work_ends_the_loop() -> None:
    async def work(n: int) -> int:
        await asyncio.sleep(1)
        raise KeyboardInterrupt

    async def main() -> None:
        await ResultStream.of(count_up(9)).map_async(work, concurrency=3).collect()

    with pytest.raises(KeyboardInterrupt):
        run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")
def test_expanding_to_nothing_by_eager_tasks_lets_others_run() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009  # of 3.12
        read: list[int] = []
        read_at_turn: list[int] = []
        _ = loop.call_soon(lambda: loop.call_soon(lambda: read_at_turn.append(len(read))))

        async def nothing(_: int) -> AsyncIterator[Result[int, str]]:
            for n in range(0):
                yield Success(n)

        stream = ResultStream.of(count_up(20_000, read)).flat_map(nothing, concurrency=2)
        assert await stream.run() == IOSuccess(0)
        return read_at_turn[0]

    assert run(main()) < 20_000
