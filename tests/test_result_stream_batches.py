"""What `ResultStream.from_batches` promises, one test each."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from returns.io import IO, IOSuccess
from returns.result import Failure, Success

from returns_pipeline import InvalidArgument, ResultStream, pipe
from returns_pipeline.sources import from_iterable
from returns_pipeline.testing import Wait, run, timed, timeline

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Sequence


class Batches:
    """Batches; tells how many were read, and whether the source was closed."""

    def __init__(self, *batches: Sequence[int], error: Exception | None = None) -> None:
        self.batches = batches
        self.error = error
        self.read = 0
        self.closed = 0

    async def __aiter__(self) -> AsyncGenerator[Sequence[int], None]:
        try:
            for batch in self.batches:
                self.read += 1
                yield batch
            if self.error is not None:
                raise self.error
        finally:
            await asyncio.sleep(1)
            self.closed += 1


def of(*batches: Sequence[int]) -> ResultStream[int, Any]:
    return ResultStream.from_batches(Batches(*batches))


def same(n: Any) -> Any:
    return n


def fail_even(n: int) -> Any:
    return Success(n) if n % 2 else Failure(n)


async def all_of(s: ResultStream[Any, Any]) -> list[Any]:
    seen: list[Any] = []
    async with s.stream() as items:
        async for item in items:
            seen.append(item)
    return seen


def test_items_come_in_order_and_empty_batches_count_for_nothing() -> None:
    s = of([], [1, 2], (), (3,), range(4, 6), [])
    assert run(s.collect()) == IOSuccess([1, 2, 3, 4, 5])
    assert run(all_of(s)) == [Success(n) for n in (1, 2, 3, 4, 5)]
    assert run(all_of(of())) == []
    assert run(of([], []).run()) == IOSuccess(0)


def test_a_batch_is_read_when_its_first_item_is_requested() -> None:
    source = Batches([1, 2], [3, 4])
    read: list[int] = []

    async def main() -> None:
        async with ResultStream.from_batches(source).map(same).stream() as items:
            assert source.read == 0
            async for _ in items:
                read.append(source.read)

    run(main())
    assert read == [1, 1, 2, 2]


def test_a_step_is_called_when_its_item_is_requested() -> None:
    called: list[int] = []

    async def main() -> None:
        async with of(range(9)).tap(called.append).stream() as items:
            for n in range(3):
                await anext(items)
                assert called == list(range(n + 1))

    run(main())


@pytest.mark.parametrize(
    "steps",
    [same, lambda s: s.map(same), lambda s: s.map_async(later), lambda s: s.bind(fail_even)],
    ids=["none", "map", "map_async", "bind"],
)
def test_windows_hold_what_they_would_of_single_items(
    steps: Callable[[ResultStream[int, Any]], ResultStream[int, Any]],
) -> None:
    batches = [[1, 2, 3], [], range(4, 20), [20], (21, 22)]
    items = [n for batch in batches for n in batch]
    for n in (1, 2, 3, 5, 8, 30):
        windows = steps(of(*batches)).chunks_or_timeout(n, 9.0)
        single = steps(of(*[[item] for item in items])).chunks_or_timeout(n, 9.0)
        assert run(all_of(windows)) == run(all_of(single))


def test_a_window_of_results_takes_slices_and_keeps_failures_in_it() -> None:
    """A step that does not wait runs for the slice; one that waits, for one item after another."""
    called: list[int] = []

    def fail_even_and_tell(n: int) -> Any:
        called.append(n)
        return fail_even(n)

    async def main() -> None:
        s = ResultStream.from_batches(timed([1], [3, 2], [], [5, 4, 7])).bind(fail_even_and_tell)
        async with (s | pipe.chunks_or_timeout(4, 9.0)).stream() as windows:
            assert [str(window) async for window in windows] == [
                "[<Success: 1>, <Success: 3>, <Failure: 2>, <Success: 5>]",
                "[<Failure: 4>, <Success: 7>]",
            ]
        called.clear()
        ahead = 0
        s = of(range(99)).map(same).bind(fail_even_and_tell)
        async with (s | pipe.chunks_or_timeout(1, 9.0)).stream() as windows:
            async for window in windows:
                ahead = max(ahead, len(called) - int(str(window[0]).split()[1][:-1]))
        assert ahead <= 3  # windows: the one emitted, the one that a read has got, and a full one
        s = of(range(9)).bind_async(later_failed)
        async with (s | pipe.chunks_or_timeout(9, 1.5)).stream() as windows:
            assert str(await anext(windows)) == "[<Failure: 0>, <Failure: 1>]"

    run(main())


async def later_failed(n: int) -> Any:
    await asyncio.sleep(1)
    return Failure(n)


async def later(n: int) -> int:
    await asyncio.sleep(1)
    return n


def test_the_time_of_a_window_counts_from_the_first_of_its_items() -> None:
    source = timed([1, 2, 3], Wait(1), [4], Wait(9), [5, 6])
    windows = ResultStream.from_batches(source).chunks_or_timeout(2, 4.0).successes()
    assert run(timeline(windows)) == [(0.0, [1, 2]), (1.0, [3, 4]), (10.0, [5, 6])]
    source = timed([1, 2, 3], Wait(6), [4], Wait(9), [5])
    windows = ResultStream.from_batches(source).map(same).chunks_or_timeout(2, 4.0).successes()
    assert run(timeline(windows)) == [(0.0, [1, 2]), (4.0, [3]), (10.0, [4]), (15.0, [5])]


def test_a_batch_of_several_items_starts_the_time_of_a_window() -> None:
    source = timed([1, 2, 3], Wait(6), [4, 5], Wait(6), [6])
    windows = ResultStream.from_batches(source).chunks_or_timeout(9, 4.0).successes()
    assert run(timeline(windows)) == [(4.0, [1, 2, 3]), (10.0, [4, 5]), (12.0, [6])]


def test_a_later_batch_does_not_restart_the_time_of_a_window() -> None:
    source = timed([1], Wait(3), [2, 3], Wait(3), [4])
    windows = ResultStream.from_batches(source).chunks_or_timeout(9, 4.0).successes()
    assert run(timeline(windows)) == [(4.0, [1, 2, 3]), (6.0, [4])]


def test_a_window_is_flushed_by_its_time_while_a_step_waits_for_the_rest_of_a_batch() -> None:
    """A step that waits gets items one by one: none waits for those after it."""

    async def slow(n: int) -> int:
        await asyncio.sleep(3 * n)
        return n

    windows = of([0, 0, 2]).map_async(slow).chunks_or_timeout(9, 4.0).successes()
    assert run(timeline(windows)) == [(4.0, [0, 0]), (7.0, [2])]  # a second for the clean-up


def test_an_exception_of_a_step_comes_after_the_window_of_the_items_before_it() -> None:
    seen: list[Any] = []

    async def main() -> None:
        s = of(range(9)).map(lambda n: 6 // (5 - n)).chunks_or_timeout(2, 9.0)
        async with s.stream() as items:
            async for item in items:
                seen.append(item)

    with pytest.raises(ZeroDivisionError):
        run(main())
    assert seen == [Success([1, 1]), Success([2, 3]), Success([6])]


def test_an_error_of_the_source_comes_after_its_items_or_is_a_failure() -> None:
    source = Batches([1], [2, 3], error=OSError("gone"))
    s = ResultStream.from_batches(source)
    seen: list[Any] = []
    with pytest.raises(OSError, match="gone"):
        run(s.for_each(seen.append))
    assert seen == [1, 2, 3]
    folded = s.or_failure(OSError).map(lambda n: n + 1).alt(str)
    assert run(folded.partition()) == IO(([2, 3, 4], ["gone"]))
    windows = s.or_failure(OSError).chunks_or_timeout(2, 9.0).alt(str)
    assert run(windows.partition()) == IO(([[1, 2], [3]], ["gone"]))
    with pytest.raises(InvalidArgument, match=r"or_failure\(\) must come right after"):
        _ = s.map(same).or_failure(OSError)


def test_drain_on_emits_all_items_of_a_batch_that_was_read_and_reads_no_other() -> None:
    async def main() -> None:
        stop = asyncio.Event()
        source = Batches(range(1000), range(1000))
        s = ResultStream.from_batches(source).tap(lambda n: stop.set() if n == 3 else None)
        assert await s.drain_on(stop).map(same).run() == IOSuccess(1000)
        assert (source.read, source.closed) == (1, 1)

    run(main())


def test_a_terminal_that_stops_early_closes_the_source_and_reads_no_other_batch() -> None:
    source = Batches([1, 3, 4, 5], [7])
    called: list[int] = []
    s = ResultStream.from_batches(source).tap(called.append).bind(fail_even)
    assert run(s.collect()).failure()._inner_value == 4
    assert run(s.first()) == IOSuccess(1)
    assert called == [1, 3, 4, 1]
    assert (source.read, source.closed) == (2, 2)


def test_closing_while_another_task_runs_a_step_drops_the_rest_of_the_batch() -> None:
    source = Batches(range(1, 99))

    async def slow_at_last(n: int) -> int:
        await asyncio.sleep(n // 10)
        return n

    async def main() -> None:
        s = ResultStream.from_batches(source).map_async(slow_at_last)
        seen: list[Any] = []

        async def read() -> None:
            async for item in s:
                seen.append(item)

        reading = asyncio.create_task(read())
        await asyncio.sleep(0.5)
        await s.aclose()
        await reading
        assert seen == [Success(n) for n in range(1, 11)]
        assert source.closed == 1

    run(main())


def test_a_cancelled_read_after_a_window_loses_nothing() -> None:
    async def main() -> None:
        source = timed([1, 2, 3], Wait(5), [4, 5])
        items = aiter(ResultStream.from_batches(source).map(same).chunks_or_timeout(2, 9.0))
        assert await anext(items) == Success([1, 2])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await anext(items)
        assert [item async for item in items] == [Success([3, 4]), Success([5])]

    run(main())


@pytest.mark.parametrize("size", [0, 1, 10_000])
@pytest.mark.parametrize(
    "steps", [same, lambda s: s.map(same), lambda s: s.filter(no)], ids=["none", "map", "dropped"]
)
def test_a_stream_of_a_source_that_never_suspends_can_be_closed(
    size: int, steps: Callable[[Any], Any]
) -> None:
    """Its reader may be anywhere, also where it lets other tasks run; then it sees the end."""
    closed: list[bool] = []

    async def source() -> AsyncGenerator[list[int], None]:
        try:
            async for batch in endless(range(size)):
                yield batch
        finally:
            closed.append(True)

    async def read(s: ResultStream[int, Any]) -> None:
        async for _ in s:
            pass

    async def main() -> None:
        for turns in range(1, 6):
            s = steps(ResultStream.from_batches(source()))
            reading = asyncio.create_task(read(s))
            for _ in range(turns):
                await asyncio.sleep(0)
            await s.aclose()
            await reading
            assert len(closed) == turns

    run(main())


def test_a_batch_that_arrives_after_the_stream_was_closed_is_dropped() -> None:
    class Late:
        """An iterator that can be closed while a read of it waits, unlike a generator."""

        closed = 0

        def __aiter__(self) -> Late:
            return self

        async def __anext__(self) -> list[int]:
            await asyncio.sleep(1)
            return [1, 2, 3]

        async def aclose(self) -> None:
            self.closed += 1

    async def main() -> None:
        late = Late()
        s = ResultStream.from_batches(late)
        seen: list[int] = []

        async def read() -> None:
            async for item in s:
                seen.append(item.unwrap())

        reading = asyncio.create_task(read())
        await asyncio.sleep(1.5)
        await s.aclose()
        await reading
        assert seen == [1, 2, 3]
        assert late.closed == 1

    run(main())


class Blocking:
    """What calls a step blocks the loop for so long, in virtual time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.lag = 0.0

    def __call__(self, n: int) -> int:
        self.lag += self.seconds
        return n


async def endless(batch: Iterable[int]) -> AsyncGenerator[list[int], None]:
    items = [*batch]
    while True:
        yield items


def no(_: object) -> bool:
    return False


STARVING: dict[str, Callable[[ResultStream[int, Any]], Any]] = {
    "run": lambda s: s.run(),
    "for_each": lambda s: s.for_each(same),
    "filter": lambda s: s.filter(no).run(),
    "window": lambda s: s.filter(no).chunks_or_timeout(5, 9.0).run(),
    "window of all": lambda s: s.chunks_or_timeout(5, 9.0).run(),
    "prefetch": lambda s: s.filter(no).prefetch(5).run(),
    "errors": lambda s: s.filter(no).failures(),
}


@pytest.mark.parametrize("name", STARVING)
@pytest.mark.parametrize("size", [0, 1, 10_000])
def test_a_source_that_never_suspends_lets_other_tasks_run(name: str, size: int) -> None:
    """Also between the items of one batch, however large it is, and between empty ones."""

    async def main() -> None:
        made = STARVING[name](ResultStream.from_batches(endless(range(size))))

        async def read() -> None:
            if isinstance(made, asyncio.Future) or hasattr(made, "__await__"):
                await made

        reading = asyncio.create_task(read())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not reading.done()
        reading.cancel()
        await asyncio.wait({reading})

    run(main())


@pytest.mark.parametrize(
    "read",
    [
        lambda s: s.filter(no).prefetch(1),
        lambda s: s.chunks_or_timeout(99, 99.0),
        lambda s: s.bind(Failure).alt(same).filter(no).chunks_or_timeout(99, 99.0).successes(),
    ],
    ids=["dropped", "window", "failures"],
)
def test_a_stream_ends_although_the_source_swallows_a_cancellation(
    read: Callable[[ResultStream[int, Any]], Any],
) -> None:
    async def stubborn() -> AsyncGenerator[list[int], None]:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(1)
            yield [1, 2]

    async def main() -> None:
        items = aiter(read(ResultStream.from_batches(stubborn())))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(9):
                await anext(items)
        async with asyncio.timeout(99):
            await items.aclose()

    run(main())


def test_a_clean_up_may_read_batches_to_their_end() -> None:
    """It runs in a task that was asked to stop, which ends no stream that the clean-up reads."""
    read: list[Any] = []

    async def source() -> AsyncGenerator[int, None]:
        try:
            while True:
                yield 0
                await asyncio.sleep(1)
        finally:
            read.append(await of(range(9), range(9)).run())

    async def main() -> None:
        items = aiter(ResultStream.of(source()).prefetch(1))
        await anext(items)
        await items.aclose()

    run(main())
    assert read == [IOSuccess(18)]


def test_a_chain_of_several_parts_reads_batches_in_the_first() -> None:
    s = of(range(5), range(5))
    for _ in range(450):
        s = s.map(lambda n: n + 1)
    assert run(s.filter(lambda n: n != 452).collect()) == IOSuccess([450, 451, 453, 454] * 2)
    windows = s.bind(fail_even).chunks_or_timeout(9, 9.0)
    assert run(windows.partition()) == IO(([[451], [453], [451], [453]], [450, 452, 454] * 2))


def test_other_tasks_run_within_a_large_batch() -> None:
    turns: list[int] = []

    async def main() -> None:
        counted = 0

        def count(_: int) -> None:
            nonlocal counted
            counted += 1

        async def other() -> None:
            while True:
                turns.append(counted)
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        s = ResultStream.from_batches(from_iterable([range(50_000)]))
        assert await s.tap(count).run() == IOSuccess(50_000)
        task.cancel()
        await asyncio.wait({task})

    run(main())
    steps = [later - before for before, later in itertools.pairwise(turns)]
    assert len(turns) > 50
    assert max(steps) <= 1024


def test_the_source_may_use_its_list_again() -> None:
    async def source() -> AsyncGenerator[list[int], None]:
        batch: list[int] = []
        for n in range(3):
            batch[:] = [n, n + 10]
            yield batch

    expected = [0, 10, 1, 11, 2, 12]
    assert run(ResultStream.from_batches(source()).collect()) == IOSuccess(expected)
    windows = ResultStream.from_batches(source()).chunks_or_timeout(6, 9.0)
    assert run(windows.collect()) == IOSuccess([expected])


class Broken(list[int]):
    """A batch that cannot be read."""

    def __iter__(self) -> Any:
        raise StopAsyncIteration


def test_a_batch_that_cannot_be_read_does_not_look_like_the_end() -> None:
    source = Batches([1], Broken([2]))
    seen: list[int] = []
    with pytest.raises(RuntimeError, match="a batch raised StopAsyncIteration"):
        run(ResultStream.from_batches(source).for_each(seen.append))
    assert (seen, source.closed) == ([1], 1)


@pytest.mark.parametrize(
    "batch",
    [
        1,
        None,
        "text",
        b"bytes",
        bytearray(b"bytes"),
        Success([1]),
        {"a": "row"},
        {1, 2},
        (n for n in [1]),
        list,
    ],
    ids=lambda batch: type(batch).__name__,
)
def test_what_is_not_a_sequence_of_items_is_refused(batch: Any) -> None:
    async def source() -> AsyncGenerator[Any, None]:
        yield batch

    for s in (
        ResultStream.from_batches(source()),
        ResultStream.from_batches(source()).chunks_or_timeout(2, 9.0),
    ):
        with pytest.raises(TypeError, match=r"from_batches\(\) reads sequences of items, not"):
            run(s.run())
    with pytest.raises(TypeError, match="expected an async iterable"):
        _ = ResultStream.from_batches([[1]])  # type: ignore[arg-type]


def test_the_chain_is_shown_as_it_was_written() -> None:
    assert repr(of([1]).map(same)) == "ResultStream.from_batches(<Batches>).map(same)"
    assert repr(of([1]).or_failure(OSError)) == (
        "ResultStream.from_batches(<Batches>).or_failure(OSError)"
    )


@pytest.mark.parametrize("size", [1, 3, 600])
@pytest.mark.parametrize(
    "read",
    [
        lambda s: s.chunks_or_timeout(2, 0.5),
        lambda s: s.map(same).chunks_or_timeout(2, 0.5),
        lambda s: s.ensure(odd, same).chunks_or_timeout(2, 0.5),
        lambda s: ResultStream.of(s.ensure(odd, same) | pipe.chunks_or_timeout(2, 0.5)),
        lambda s: s,
        lambda s: s.filter(no),
    ],
    ids=[
        "window",
        "steps and window",
        "failures and window",
        "results and window",
        "loop",
        "dropped",
    ],
)
def test_only_the_last_value_and_error_are_held_while_the_source_waits(
    size: int, read: Callable[[Any], Any]
) -> None:
    made: list[weakref.ref[Any]] = []

    class Item:
        def __init__(self, number: int) -> None:
            self.number = number
            made.append(weakref.ref(self))

    async def source() -> AsyncGenerator[list[Item], None]:
        yield [Item(n) for n in range(size)]
        await asyncio.sleep(9)

    async def main() -> None:
        async def drop_all() -> None:
            async with read(ResultStream.from_batches(source())).stream() as items:
                async for item in items:
                    del item

        reading = asyncio.create_task(drop_all())
        await asyncio.sleep(5)
        assert len(made) == size
        assert sum(item() is not None for item in made) <= 2
        await reading

    run(main())


def odd(item: Any) -> bool:
    return bool(item.number % 2)


def test_a_dropped_stream_closes_its_source_and_keeps_no_item() -> None:
    class Item:
        pass

    source_closed: list[bool] = []

    async def source() -> AsyncGenerator[list[Item], None]:
        try:
            yield [Item(), Item()]
        finally:
            source_closed.append(True)

    async def main() -> None:
        s = ResultStream.from_batches(source()).map(same).chunks_or_timeout(1, 9.0)
        items = aiter(s)
        gone = weakref.ref((await anext(items)).unwrap()[0])
        del s, items
        gc.collect()
        await asyncio.sleep(1)
        assert source_closed == [True]
        gc.collect()
        assert gone() is None

    run(main())
