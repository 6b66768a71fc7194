"""What `chunks_or_timeout` promises, one test each."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import math
import sys
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeVarTuple

import pytest
from aiostream import stream
from returns.result import Failure, Result, Success

from returns_pipeline import InvalidArgument, ResultStream, chunks_or_timeout, pipe
from returns_pipeline.testing import VirtualTimeLoop, advance, run, timeline

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

Ts = TypeVarTuple("Ts")


async def timed(*steps: str | float) -> AsyncIterator[str]:
    """Yield the strings; sleep the numbers, in seconds."""
    for step in steps:
        if isinstance(step, str):
            yield step
        else:
            await asyncio.sleep(step)


def now() -> float:
    return asyncio.get_running_loop().time()


def test_a_list_is_emitted_at_its_deadline_not_at_the_next_item() -> None:
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


def test_the_tail_is_emitted_before_the_error_of_the_source() -> None:
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


@pytest.mark.parametrize("n", [1, 2, 10])
def test_a_reader_that_waits_is_given_a_list_while_the_next_one_fills_up(n: int) -> None:
    async def main() -> None:
        read = 0

        async def source() -> AsyncIterator[int]:
            nonlocal read
            while True:
                read += 1
                yield read

        chunks = chunks_or_timeout.raw(source(), n, 1.0)
        leads = []
        for given in range(n, 10 * n, n):
            assert await anext(chunks) == list(range(given - n + 1, given + 1))
            leads.append(read - given)
            if len(leads) % 3 == 0:
                await asyncio.sleep(50)
                assert read - given == n
        assert max(leads) == n
        await chunks.aclose()  # type: ignore[attr-defined]

    run(main())


@pytest.mark.parametrize("n", [1, 2, 10])
def test_a_read_that_is_cancelled_as_it_is_given_a_list_loses_nothing(n: int) -> None:
    async def main() -> None:
        reads: list[asyncio.Future[list[int]]] = []

        async def source() -> AsyncIterator[int]:
            for item in range(5 * n):
                if item % n == 0 and reads and not any(read.cancelled() for read in reads):
                    reads[-1].cancel()  # if it waits, and is scheduled with a list
                yield item

        chunks = chunks_or_timeout.raw(source(), n, 1.0)
        seen = []
        while not reads or not reads[-1].cancelled():
            reads.append(asyncio.ensure_future(anext(chunks)))
            if not reads[-1].done():
                await asyncio.wait(reads[-1:])
            if not reads[-1].cancelled():
                seen.append(reads[-1].result())
        seen.extend([chunk async for chunk in chunks])
        assert seen == [list(range(first, first + n)) for first in range(0, 5 * n, n)]

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


def test_context_variables_reach_the_source_and_none_leaks_from_it() -> None:
    var = contextvars.ContextVar("var", default="unset")

    async def source() -> AsyncIterator[str]:
        yield var.get()
        var.set("by the source")

    async def main() -> None:
        var.set("by the reader")
        assert [c async for c in chunks_or_timeout.raw(source(), 5, 1.0)] == [["by the reader"]]
        assert var.get() == "by the reader"

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


def test_a_thousand_idle_windows_cost_one_timer_each_and_then_none() -> None:
    async def main() -> None:
        async def source() -> AsyncIterator[int]:
            yield 1
            await asyncio.sleep(1000)

        loop = asyncio.get_running_loop()
        all_chunks = [chunks_or_timeout.raw(source(), 9, 2.0) for _ in range(1000)]
        for chunk in await asyncio.gather(*map(anext, all_chunks)):
            assert chunk == [1]
        await asyncio.sleep(10)
        assert len(loop._scheduled) <= 1000 + 1  # type: ignore[attr-defined]  # the sources' own
        for chunks in all_chunks:
            await chunks.aclose()  # type: ignore[attr-defined]

    run(main())


def every_form(n: Any, timeout: Any) -> list[Callable[[], object]]:
    return [
        lambda: chunks_or_timeout(timed("a"), n, timeout),
        lambda: chunks_or_timeout.raw(timed("a"), n, timeout),
        lambda: stream.range(3) | chunks_or_timeout.pipe(n, timeout),
        lambda: chunks_or_timeout.pipe(n, timeout),
        lambda: pipe.chunks_or_timeout(n, timeout),
        lambda: ResultStream.of(timed("a")).chunks_or_timeout(n, timeout),
    ]


@pytest.mark.parametrize("n", [0, -1, -(10**30), False, 0.5, 2.0, math.nan, math.inf, "2", None])
def test_a_size_that_is_below_one_or_not_whole_is_refused_at_the_call(n: object) -> None:
    for call in every_form(n, 1.0):
        with pytest.raises(InvalidArgument, match="n must be"):
            call()


@pytest.mark.parametrize("timeout", [0, 0.0, -1.0, -math.inf, math.nan, False])
def test_a_time_that_is_not_above_zero_is_refused_at_the_call(timeout: float) -> None:
    for call in every_form(1, timeout):
        with pytest.raises(InvalidArgument, match="timeout must be above 0 seconds"):
            call()


def test_a_time_beyond_all_floats_is_refused_at_the_call() -> None:
    for call in every_form(1, 10**400):
        with pytest.raises(InvalidArgument, match=r"timeout is too large: math\.inf"):
            call()


@pytest.mark.parametrize("timeout", ["1", None, True, 1j])
def test_a_time_that_is_not_a_number_is_refused_at_the_call(timeout: object) -> None:
    for call in every_form(1, timeout):
        with pytest.raises(InvalidArgument, match="timeout must be above 0 seconds"):
            call()


@pytest.mark.parametrize(
    ("n", "timeout"),
    [
        (10**30, 1e300),
        (sys.maxsize, math.inf),
        (10, 1e-9),
        (10, Decimal("1.5")),
        (10, Fraction(3, 2)),
        (10, timedelta(seconds=1)),
    ],
)
def test_extreme_and_exact_numbers_are_taken(n: int, timeout: Any) -> None:
    async def main() -> None:
        assert [c async for c in chunks_or_timeout.raw(timed("a", "b"), n, timeout)] == [["a", "b"]]

    run(main())


def test_true_is_not_a_size() -> None:
    for call in every_form(True, 1.0):
        with pytest.raises(InvalidArgument, match="n must be a whole number, not True"):
            call()


def test_a_source_that_is_not_async_is_a_type_error_at_the_call() -> None:
    with pytest.raises(TypeError):
        _ = chunks_or_timeout([1, 2], 1, 1.0)  # type: ignore[arg-type]


def test_the_stream_is_repeatable_when_its_source_is() -> None:
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


def test_what_is_made_can_be_sliced_joined_piped_and_awaited() -> None:
    async def main() -> None:
        chunks = chunks_or_timeout(stream.range(7), 2, 1.0)
        assert await stream.list(chunks[1:3]) == [[2, 3], [4, 5]]
        assert await stream.list(chunks + chunks_or_timeout(stream.range(1), 2, 1.0)) == [
            *([0, 1], [2, 3], [4, 5], [6]),
            [0],
        ]
        assert await stream.list(chunks | chunks_or_timeout.pipe(3, 1.0)) == [
            [[0, 1], [2, 3], [4, 5]],
            [[6]],
        ]
        assert await chunks == [6]
        assert await chunks[0] == [0, 1]

    run(main())


def test_no_list_is_empty_and_no_source_gives_none() -> None:
    async def main() -> None:
        assert await stream.list(chunks_or_timeout(timed(), 2, 1.0)) == []
        assert await stream.list(chunks_or_timeout(timed(100), 2, 1.0)) == []
        assert await stream.list(chunks_or_timeout(timed("a", "b", 100), 2, 1.0)) == [["a", "b"]]

    run(main())


# Late readers.


def test_a_list_that_is_due_continues_filling_until_its_reader_comes() -> None:
    """It is not cut where its time ended: under load, lists grow instead of piling up."""

    async def main() -> None:
        chunks = chunks_or_timeout.raw(timed("a", 3, "b", 3, "c", 3, "d", 3, "e"), 4, 2.0)
        read = asyncio.ensure_future(anext(chunks))
        await advance(1)
        read.cancel()
        await advance(6)
        assert await anext(chunks) == ["a", "b", "c"]
        assert now() == 7.0
        await advance(30)
        assert await anext(chunks) == ["d", "e"]
        assert now() == 37.0

    run(main())


def test_the_time_of_the_next_list_counts_from_its_own_first_item_however_late_the_reader() -> None:
    async def main() -> None:
        seen = []
        async for chunk in chunks_or_timeout.raw(timed(*"abc", 4, "d", 0.5, "e", 9, "f"), 3, 2.0):
            seen.append((now(), chunk))
            await asyncio.sleep(5)
        # "d" came while the reader was away, 2 seconds before it was back at 5
        assert seen == [(0.0, [*"abc"]), (6.0, ["d", "e"]), (13.5, ["f"])]

    run(main())


@pytest.mark.not_eager  # the read would begin before it is cancelled
def test_a_full_list_whose_time_has_ended_as_well_is_emitted_once() -> None:
    async def main() -> None:
        chunks = chunks_or_timeout.raw(timed("a", "b", "c"), 2, 1.0)
        read = asyncio.ensure_future(anext(chunks))
        await asyncio.sleep(0)
        read.cancel()
        await advance(5)
        assert [(now(), chunk) async for chunk in chunks] == [(5.0, ["a", "b"]), (5.0, ["c"])]

    run(main())


def test_the_tail_and_then_the_error_wait_for_a_late_reader() -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        yield 2
        yield 3
        raise KeyError("source")

    async def main() -> None:
        chunks = chunks_or_timeout.raw(source(), 2, 1.0)
        assert await anext(chunks) == [1, 2]
        await advance(10)
        assert await anext(chunks) == [3]
        await advance(10)
        with pytest.raises(KeyError, match="source"):
            await anext(chunks)

    run(main())


# Cancelled reads.


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("pause", [None, 0.0, 0.7])
def test_a_read_cancelled_after_any_number_of_turns_loses_nothing(
    n: int, pause: float | None
) -> None:
    """Each read is cancelled at its first turn of the loop, then its second, and so on."""

    async def source() -> AsyncIterator[int]:
        for item in range(13):
            if pause is not None and item % 2:
                await asyncio.sleep(pause)
            yield item

    async def main() -> None:
        chunks = chunks_or_timeout.raw(source(), n, 1.0)
        got: list[int] = []
        patience = 0
        while True:
            read = asyncio.ensure_future(anext(chunks, None))
            for _ in range(patience):
                await asyncio.sleep(0)
            read.cancel()
            await asyncio.wait({read})
            if read.cancelled():
                patience += 1
                await advance(0.3)
                continue
            patience = 0
            chunk = read.result()
            if chunk is None:
                break
            assert 1 <= len(chunk) <= n
            got += chunk
        assert got == [*range(13)]

    run(main())


def test_a_read_that_is_cut_off_just_when_its_list_is_due_loses_nothing() -> None:
    async def main() -> None:
        chunks = chunks_or_timeout.raw(timed("a", 10, "b"), 9, 2.0)
        got = []
        for _ in range(3):
            try:
                async with asyncio.timeout(2.0):
                    got.append(await anext(chunks))
            except TimeoutError:
                got.append(["cut off"])
        assert [chunk for chunk in got if chunk != ["cut off"]] == [["a"]]
        assert await anext(chunks) == ["b"]

    run(main())


# Sources that do what they should not, or need what others forget.


def test_a_stubborn_source_is_stopped_at_its_next_item_also_when_that_fills_a_list() -> None:
    async def source() -> AsyncIterator[int]:
        yield 0
        for item in range(1, 100):
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                await asyncio.sleep(1)
            yield item

    async def main() -> None:
        async with chunks_or_timeout(source(), 1, 1.0).stream() as chunks:
            assert await anext(chunks) == [0]
            await advance(1)
        assert now() == 2.0

    run(main())


def test_a_source_that_awaits_a_cancelled_task_emits_its_tail_and_then_that() -> None:
    async def main() -> None:
        other = asyncio.create_task(asyncio.sleep(math.inf))

        async def source() -> AsyncIterator[int]:
            yield 1
            yield 2
            await other

        chunks = chunks_or_timeout.raw(source(), 10, 60.0)
        read = asyncio.ensure_future(anext(chunks))
        await advance(5)
        other.cancel("by other code")
        assert await read == [1, 2]
        assert now() == 5.0
        with pytest.raises(asyncio.CancelledError):
            await anext(chunks)
        with pytest.raises(StopAsyncIteration):
            await anext(chunks)

    run(main())


def test_a_task_group_in_the_source_fails_there_and_in_time() -> None:
    async def source() -> AsyncIterator[str]:
        async def fail() -> None:
            await asyncio.sleep(3)
            raise KeyError("child")

        yield "a"
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(fail())
                await asyncio.sleep(100)
        except* KeyError:
            yield "the child failed"

    async def main() -> None:
        seen = await timeline(chunks_or_timeout(source(), 10, 2.0))
        assert seen == [(2.0, ["a"]), (3.0, ["the child failed"])]

    run(main())


class Busy:
    """A source that never suspends: each item costs CPU time, and no other task runs."""

    def __init__(self, cost: float) -> None:
        self.cost = cost
        self.delivered = 0

    async def __aiter__(self) -> AsyncIterator[int]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        while True:
            loop.jump(self.cost)
            self.delivered += 1
            yield self.delivered


@pytest.mark.parametrize("cost", [0.00001, 0.0007, 0.3])
def test_a_busy_source_is_flushed_in_time(cost: float) -> None:
    """The clock is looked at often enough, whether items are quick or slow to make."""

    async def main() -> None:
        source = Busy(cost)
        chunks = chunks_or_timeout.raw(source, 10**9, 0.25)
        for _ in range(5):
            started = now()
            chunk = await anext(chunks)
            took = now() - started
            assert chunk[-1] == source.delivered
            assert took <= 0.25 + 0.01 + 2 * cost
            assert len(chunk) == 1 or took >= 0.25
        await chunks.aclose()  # type: ignore[attr-defined]

    run(main())


@pytest.mark.parametrize("timeout", [0.5, math.inf])
def test_a_busy_source_lets_others_run(timeout: float) -> None:
    """Even while its list has no reader, or no time limit."""

    async def main() -> None:
        chunks = chunks_or_timeout.raw(Busy(0.0001), 10**4, timeout)
        read = asyncio.ensure_future(anext(chunks))
        gaps = []
        last = now()
        while not read.done():
            await asyncio.sleep(0)
            gaps.append(now() - last)
            last = now()
        assert 40 < len(gaps) < 300
        assert max(gaps) < 0.05
        await chunks.aclose()  # type: ignore[attr-defined]

    run(main())


@pytest.mark.parametrize(("cost", "ahead"), [(0.0001, 10), (0.006, 0)])
def test_a_reader_that_waits_goes_before_a_source_that_is_slow_and_never_suspends(
    cost: float, ahead: int
) -> None:
    async def main() -> None:
        source = Busy(cost)
        chunks = chunks_or_timeout.raw(source, 10, math.inf)
        leads = []
        for given in range(10, 50, 10):
            assert len(await anext(chunks)) == 10
            leads.append(source.delivered - given)
        assert max(leads) == ahead
        await chunks.aclose()  # type: ignore[attr-defined]

    run(main())


# Timers and wake-ups.


class Counting(VirtualTimeLoop):
    """Counts the timers that are set and the rounds that the loop makes."""

    def __init__(self) -> None:
        super().__init__()
        self.timers = self.rounds = self.futures = 0
        self.slack = 0.0  # how early, in seconds, a timer fires if the loop is awake

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        self.timers += 1
        return super().call_at(when, callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        self.futures += 1
        return super().create_future()

    def _run_once(self) -> None:
        self.rounds += 1
        super()._run_once()  # type: ignore[misc]

    def _jump_to(self, when: float) -> None:
        super()._jump_to(when)
        self._clock_resolution = max(self._clock_resolution, self.slack)


def counted(main: Callable[[Counting], Any]) -> None:
    with asyncio.Runner(loop_factory=Counting) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, Counting)
        runner.run(main(loop))


def test_a_thousand_lists_closed_by_their_size_cost_one_timer() -> None:
    async def main(loop: Counting) -> None:
        async def source() -> AsyncIterator[int]:
            for item in range(10_000):
                yield item

        chunks = chunks_or_timeout.raw(source(), 10, 2.0)
        assert [len(chunk) async for chunk in chunks] == [10] * 1000
        assert loop.timers <= 1
        assert live_timers(loop) == []

    counted(main)


def test_two_lists_closed_by_their_size_cost_one_round_of_the_loop_and_no_future() -> None:
    async def main(loop: Counting) -> None:
        async def source() -> AsyncIterator[int]:
            for item in range(1000):
                yield item

        rounds, futures = loop.rounds, loop.futures
        assert [len(chunk) async for chunk in chunks_or_timeout.raw(source(), 1, 2.0)] == [1] * 1000
        assert loop.rounds - rounds <= 505
        assert loop.futures - futures <= 5

    counted(main)


def test_a_list_closed_by_its_time_costs_one_timer_and_no_wake_up_between() -> None:
    async def main(loop: Counting) -> None:
        async def source() -> AsyncIterator[int]:
            for item in range(100):
                yield item
                await asyncio.sleep(1000)

        chunks = chunks_or_timeout.raw(source(), 10, 2.0)
        for item in range(100):
            timers, rounds = loop.timers, loop.rounds
            assert await anext(chunks) == [item]
            assert loop.timers - timers <= 2  # one of the source's own
            assert loop.rounds - rounds <= 6
        await chunks.aclose()  # type: ignore[attr-defined]
        assert live_timers(loop) == []

    counted(main)


def test_one_timer_serves_lists_that_fill_up_while_it_runs() -> None:
    """It is moved on when it fires: every 2 seconds, however many lists there were."""

    async def main(loop: Counting) -> None:
        async def source() -> AsyncIterator[int]:
            for item in range(1000):
                yield item
                await asyncio.sleep(0.25)

        before = loop.timers
        chunks = chunks_or_timeout.raw(source(), 4, 2.0)
        assert [len(chunk) async for chunk in chunks] == [4] * 250
        assert loop.timers - before <= 1000 + 250 / 2 + 1  # the source's own, and ours

    counted(main)


@pytest.mark.parametrize("early", [0.0004, 0.0])
def test_a_timer_that_fires_a_little_early_emits_the_list_and_does_not_spin(
    early: float,
) -> None:
    """Some loops do so: a wait that insists on the clock would re-arm again and again."""

    async def main(loop: Counting) -> None:
        loop.slack = 0.001
        chunks = chunks_or_timeout.raw(timed("a", 9, "b"), 10, 2.0)
        read = asyncio.ensure_future(anext(chunks))
        await advance(1)
        loop.call_at(2.0 - early, lambda: None)
        rounds, timers = loop.rounds, loop.timers
        assert await read == ["a"]
        assert now() == 2.0 - early
        assert loop.timers == timers
        assert loop.rounds - rounds <= 4
        await chunks.aclose()  # type: ignore[attr-defined]

    counted(main)


def live_timers(loop: asyncio.AbstractEventLoop) -> list[asyncio.TimerHandle]:
    scheduled: list[asyncio.TimerHandle] = loop._scheduled  # type: ignore[attr-defined]
    return [handle for handle in scheduled if not handle.cancelled()]


def test_on_uvloop_lists_are_emitted_by_size_and_by_time() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        async def source() -> AsyncIterator[int]:
            for item in range(5):
                yield item
            await gate.wait()
            yield 5

        gate = asyncio.Event()
        chunks = chunks_or_timeout.raw(source(), 2, 0.005)
        started = now()
        assert [await anext(chunks) for _ in range(3)] == [[0, 1], [2, 3], [4]]
        assert now() - started > 0.003
        read = asyncio.ensure_future(anext(chunks))
        await asyncio.sleep(0)
        gate.set()
        assert await read == [5]
        with pytest.raises(StopAsyncIteration):
            await anext(chunks)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_a_reader_in_a_cancelled_anyio_scope_closes_cleanly() -> None:
    anyio = pytest.importorskip("anyio")
    cleaned = []

    async def source() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
                await asyncio.sleep(1)
        finally:
            cleaned.append(now())

    async def main() -> None:
        got: list[list[int]] = []
        with anyio.move_on_after(3.5):
            async with chunks_or_timeout(source(), 2, 60.0).stream() as chunks:
                async for chunk in chunks:
                    got.append(chunk)
        assert got == [[1, 1], [1, 1]]
        assert cleaned == [3.5]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


# On streams of results.


async def results(*steps: str | float) -> AsyncIterator[Result[int, str]]:
    """Yield the whole numbers as successes, the strings as failures; sleep the rest."""
    for step in steps:
        if isinstance(step, int):
            yield Success(step)
        elif isinstance(step, str):
            yield Failure(step)
        else:
            await asyncio.sleep(step)


def test_as_a_method_it_groups_values_and_a_failure_flushes_and_keeps_its_place() -> None:
    async def main() -> None:
        s = ResultStream.from_results(results("x", 1, 2, 3, "y", "z", 4, 1.5, 5, "w", 5.0, 6))
        assert await timeline(s.chunks_or_timeout(2, 2.0)) == [
            (0.0, Failure("x")),
            (0.0, Success([1, 2])),
            (0.0, Success([3])),
            (0.0, Failure("y")),
            (0.0, Failure("z")),
            (1.5, Success([4, 5])),
            (1.5, Failure("w")),
            (6.5, Success([6])),
        ]

    run(main())


def test_a_list_flushed_by_a_failure_leaves_no_deadline_to_the_next_one() -> None:
    async def main() -> None:
        s = ResultStream.from_results(results(1, 1.5, "x", 0.1, 2, 9.0))
        assert await timeline(s.chunks_or_timeout(9, 2.0)) == [
            (1.5, Success([1])),
            (1.5, Failure("x")),
            (3.6, Success([2])),
        ]

    run(main())


def test_while_a_failure_waits_for_its_reader_the_source_waits_too() -> None:
    async def main() -> None:
        read: list[object] = []

        async def source() -> AsyncIterator[Result[int, str]]:
            async for item in results(1, "x", 2, "y", "z"):
                read.append(item)
                yield item

        s = ResultStream.from_results(source()).chunks_or_timeout(9, 1.0)
        seen = []
        async with s.stream() as reading:
            async for item in reading:
                seen.append(item)
                await advance(10)
                assert len(read) <= 2 + len(seen)
        assert seen == [
            *(Success([1]), Failure("x"), Success([2]), Failure("y"), Failure("z")),
        ]

    run(main())


def test_closing_while_a_failure_waits_for_its_reader() -> None:
    async def main() -> None:
        s = ResultStream.from_results(results(1, "x", 2)).chunks_or_timeout(9, 1.0)
        async with s.stream() as reading:
            assert await anext(reading) == Success([1])
            await advance(1)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


def test_a_stubborn_source_is_stopped_also_when_its_next_item_is_a_failure() -> None:
    async def source() -> AsyncIterator[Result[int, str]]:
        yield Success(0)
        while True:
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                await asyncio.sleep(1)
            yield Failure("late")

    async def main() -> None:
        s = ResultStream.from_results(source()).chunks_or_timeout(9, 1.0)
        async with s.stream() as reading:
            assert await anext(reading) == Success([0])
        assert now() == 2.0

    run(main())


def test_piped_onto_a_stream_of_results_it_groups_the_results_themselves() -> None:
    async def main() -> None:
        for operator in pipe.chunks_or_timeout, chunks_or_timeout.pipe:
            s = ResultStream.from_results(results(1, "x", 2)) | operator(2, 1.0)
            assert await stream.list(s) == [[Success(1), Failure("x")], [Success(2)]]

    run(main())
