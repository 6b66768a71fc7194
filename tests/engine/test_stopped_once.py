"""A task of a stream is asked to stop once, and not while it cleans up."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
from typing import TYPE_CHECKING, Any

import pytest
from returns.io import IOSuccess
from watched import Watched

from returns_pipeline import ResultStream, chunks_or_timeout, combine
from returns_pipeline.testing import VirtualTimeLoop, advance, run

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable


async def echo(_: object, items: AsyncIterator[int]) -> AsyncGenerator[int, None]:
    async for n in items:
        yield n


async def silence() -> AsyncGenerator[int, None]:
    await asyncio.sleep(math.inf)
    yield 0


async def same(n: int) -> int:
    return n


FORMS: dict[str, Callable[[Any], Any]] = {
    "chunks_or_timeout": lambda s: chunks_or_timeout.raw(s, 2, math.inf),
    "merge": lambda s: combine.merge.raw(s, silence()),
    "concat": lambda s: combine.concat.raw(s, silence()),
    "broadcast": lambda s: combine.broadcast(s, 1)[0].stream(),
    "route": lambda s: combine.route.raw(s, lambda n: n % 2, echo),
    "map_async": lambda s: aiter(ResultStream.of(s).map_async(same, concurrency=2)),
    "a drained source": lambda s: aiter(
        ResultStream.of(s).drain_on(asyncio.Event()).merge(ResultStream.of(silence()))
    ),
}
each_form = pytest.mark.parametrize("read", FORMS.values(), ids=FORMS)


@each_form
def test_the_end_of_the_loop_does_not_cut_a_clean_up_that_closing_has_begun(
    read: Callable[[Any], Any],
) -> None:
    """`asyncio.run` cancels all tasks: the source's a second time."""
    watched = Watched()

    async def main() -> None:
        reader = read(watched)
        await anext(reader)
        closing.append(asyncio.ensure_future(reader.aclose()))
        await asyncio.sleep(0.5)

    closing: list[asyncio.Future[None]] = []
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())
    watched.assert_clean()


@each_form
def test_the_end_of_the_loop_does_not_cut_the_clean_up_after_a_dropped_reader(
    read: Callable[[Any], Any],
) -> None:
    watched = Watched()

    async def main() -> None:
        reader = read(watched)
        await anext(reader)
        del reader
        gc.collect()
        await asyncio.sleep(0.5)

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())
    watched.assert_clean()


@each_form
def test_a_task_that_cancels_all_others_does_not_cut_a_clean_up(
    read: Callable[[Any], Any],
) -> None:
    """As programs do when they get the signal to stop."""
    watched = Watched()

    async def main() -> None:
        reader = read(watched)
        await anext(reader)
        closing = asyncio.ensure_future(reader.aclose())
        await advance(0.5)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for _ in range(3):
            for task in others:
                task.cancel()
            await asyncio.sleep(0)
        await asyncio.wait(others)
        watched.assert_clean()
        assert closing.cancelled()

    run(main())


class Part:
    """It has ended, and takes a second to close."""

    def __init__(self, log: list[str]) -> None:
        self.log = log

    def __aiter__(self) -> AsyncIterator[int]:
        return self

    async def __anext__(self) -> int:
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.log.append("begun")
        await asyncio.sleep(1)
        self.log.append("done")


def test_the_end_of_the_loop_ends_a_task_after_the_part_that_it_cleans_up() -> None:
    """It does not cut the clean-up off, and is not forgotten: what follows would wait forever."""
    log: list[str] = []

    async def main() -> None:
        reader = combine.concat.raw(Part(log), silence())
        reading.append(asyncio.ensure_future(anext(reader)))
        readers.append(reader)
        await asyncio.sleep(0.5)

    reading: list[asyncio.Future[int]] = []
    readers: list[object] = []
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())
    assert log == ["begun", "done"]


def test_a_request_that_comes_in_a_clean_up_within_another_one_is_made_up_for() -> None:
    """A stream of a stream is broken off: the task closes one while it closes the other."""
    log: list[str] = []

    class Endless(Part):
        async def __anext__(self) -> int:
            return 1

    async def outer() -> AsyncGenerator[int, None]:
        async with ResultStream.of(ResultStream.of(Endless(log))).stream() as results:
            async for _ in results:
                break
        await asyncio.sleep(math.inf)
        yield 0

    async def main() -> None:
        reader = combine.prefetch.raw(outer(), 2)
        reading.append(asyncio.ensure_future(anext(reader)))
        readers.append(reader)
        await asyncio.sleep(0.5)

    reading: list[asyncio.Future[int]] = []
    readers: list[object] = []
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())
    assert log == ["begun", "done"]


async def cancel_all_but(*spared: asyncio.Future[Any]) -> None:
    """Cancel all other tasks from this one."""
    for task in asyncio.all_tasks() - {asyncio.current_task(), *spared}:
        task.cancel()
    for _ in range(5):
        await asyncio.sleep(0)


@each_form
def test_a_second_request_of_other_code_does_not_cut_the_clean_up_that_its_first_has_begun(
    read: Callable[[Any], Any],
) -> None:
    watched = Watched()

    async def main() -> None:
        reader = read(watched)
        await anext(reader)
        await advance(0.1)
        for _ in range(3):
            await advance(0.2)
            await cancel_all_but()
            assert watched.log == ["opened", "clean-up begun"]  # at once
        await advance(2)
        watched.assert_clean()
        await reader.aclose()

    run(main())


def test_a_request_of_other_code_that_meets_a_time_limit_of_the_source_is_made_up_for() -> None:
    """It is not passed on while the limit ends what the source waits for; and once, after that."""
    log: list[str] = []

    async def source() -> AsyncGenerator[int, None]:
        yield 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.gather(slow_to_leave())
        log.append("reads on")
        for _ in range(2):
            try:
                await asyncio.sleep(5)
            except asyncio.CancelledError:
                log.append("cancelled")
                task = asyncio.current_task()
                assert task is not None
                task.uncancel()
                await ResultStream.of(Part(log)).run()
        yield 1

    async def main() -> None:
        reader: Any = combine.prefetch.raw(source(), 2)
        await anext(reader)
        await advance(0.5)
        child = [task for task in asyncio.all_tasks() if "slow_to_leave" in repr(task)]
        await advance(0.7)
        await cancel_all_but(*child)
        assert await anext(reader) == 1
        assert log == ["reads on", "cancelled", "begun", "done"]
        await reader.aclose()

    run(main())


# A time limit within the source cancels its task, too.


async def slow_to_leave() -> None:
    try:
        await asyncio.sleep(math.inf)
    finally:
        await asyncio.sleep(0.5)


@each_form
def test_closing_waits_for_a_time_limit_of_the_source_that_has_just_passed(
    read: Callable[[Any], Any],
) -> None:
    """The limit ends one wait of the source, which reads on: it must be asked to stop then."""
    log: list[str] = []

    async def source() -> AsyncGenerator[int, None]:
        try:
            for n in range(3):
                yield n
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        await asyncio.gather(slow_to_leave())
        finally:
            await asyncio.sleep(1)
            log.append("closed")

    async def main() -> None:
        reader = read(source())
        await anext(reader)
        await advance(1.2)
        await asyncio.wait({asyncio.ensure_future(reader.aclose())}, timeout=9)
        assert log == ["closed"]

    run(main())


async def impatient() -> AsyncGenerator[int, None]:
    """Swallow a cancellation of its own, as a time limit written by hand does, then wait."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_later(0.1, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(math.inf)
    for n in range(3):
        yield n
        await asyncio.sleep(0.1)
    await asyncio.sleep(math.inf)


def test_a_source_whose_items_are_dropped_can_be_closed_after_it_swallowed_a_cancellation() -> None:
    async def main() -> None:
        reader: Any = aiter(ResultStream.of(impatient()).filter(lambda _: False).prefetch(2))
        reading = asyncio.ensure_future(anext(reader))
        await advance(1)
        closing = asyncio.ensure_future(reader.aclose())
        await asyncio.wait({closing}, timeout=9)
        assert closing.done()
        assert isinstance(reading.exception(), StopAsyncIteration)

    run(main())


async def deaf() -> AsyncGenerator[int, None]:
    """Swallow a cancellation, and wait on without an item."""
    yield 0
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(math.inf)
    await asyncio.sleep(math.inf)


@pytest.mark.parametrize("drains", [False, True])
def test_a_source_that_swallows_a_cancellation_and_waits_on_is_cancelled_in_the_end(
    drains: bool,
) -> None:
    """Until then it cannot be told from one that cleans up."""

    async def main() -> None:
        stop = asyncio.Event()
        s = ResultStream.of(deaf()).drain_on(stop).prefetch(2)
        reader: Any = aiter(s)
        await anext(reader)
        reading = asyncio.ensure_future(anext(reader))
        await advance(1)
        for task in reader._aiterator._segment.items._pump._tasks:
            task.cancel()
        if drains:
            stop.set()
            with pytest.raises(asyncio.CancelledError):  # it is the one that was swallowed, too
                await reading
        else:
            await reader.aclose()
            await asyncio.wait({reading})
            assert isinstance(reading.exception(), StopAsyncIteration)
        assert 100 < asyncio.get_running_loop().time() < 1000

    run(main())


def test_the_loop_can_end_though_a_source_swallows_a_cancellation() -> None:
    async def main() -> None:
        readers.append(combine.prefetch.raw(deaf(), 2))
        await anext(readers[0])
        reading.append(asyncio.ensure_future(anext(readers[0])))
        await asyncio.sleep(1)
        await cancel_all_but(*reading)

    reading: list[asyncio.Future[int]] = []
    readers: list[Any] = []
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())


def test_a_source_that_has_swallowed_a_cancellation_can_be_drained() -> None:
    async def main() -> None:
        stop = asyncio.Event()
        s = ResultStream.of(impatient()).drain_on(stop).filter(lambda _: False).prefetch(2)
        collecting = asyncio.ensure_future(s.collect().awaitable())
        await advance(1)
        stop.set()
        await asyncio.wait({collecting}, timeout=9)
        assert collecting.done()
        assert collecting.result() == IOSuccess([])

    run(main())


def test_a_clean_up_may_have_a_time_limit_of_its_own() -> None:
    """It cancels the task from a callback of the loop, like a task group: not a request."""
    log: list[str] = []

    async def source() -> AsyncGenerator[int, None]:
        try:
            yield 1
            await asyncio.sleep(math.inf)
        finally:
            try:
                async with asyncio.timeout(1):
                    await asyncio.sleep(math.inf)
            except TimeoutError:
                log.append("given up")
            with contextlib.suppress(ExceptionGroup):
                async with asyncio.TaskGroup() as group:
                    group.create_task(fail())
                    await asyncio.sleep(math.inf)
            log.append("closed")

    async def fail() -> None:
        raise OSError

    async def main() -> None:
        reader: Any = combine.prefetch.raw(source(), 2)
        await anext(reader)
        await asyncio.wait_for(reader.aclose(), 9)
        assert log == ["given up", "closed"]

    run(main())


def test_no_timer_is_left_when_work_was_looked_at_again() -> None:
    """It has no source to close, after which it would be looked at."""

    async def work(n: int) -> int:
        try:
            await asyncio.sleep(math.inf)
        finally:
            await asyncio.sleep(1.6)
        return n

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        reader: Any = aiter(ResultStream.of(Watched()).map_async(work, concurrency=2))
        reading = asyncio.ensure_future(anext(reader))
        await advance(0.1)
        await cancel_all_but(reading)
        await advance(0.1)
        await reader.aclose()
        assert not [timer for timer in loop._scheduled if not timer.cancelled()]
        await asyncio.wait({reading})
        _ = reading.exception()

    run(main())


def test_no_timer_is_left_when_a_task_was_looked_at_again() -> None:
    async def source() -> AsyncGenerator[int, None]:
        try:
            yield 1
            await asyncio.sleep(math.inf)
        finally:
            await asyncio.sleep(1.6)

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        reader: Any = combine.prefetch.raw(source(), 2)
        await anext(reader)
        await advance(0.1)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await advance(0.1)
        closing = [asyncio.ensure_future(reader.aclose()) for _ in range(3)]
        reader._pump.ask_to_stop()
        await advance(0.5)
        assert len([timer for timer in loop._scheduled if "_cancel_tasks" in repr(timer)]) == 1
        await asyncio.gather(*closing)
        assert not [timer for timer in loop._scheduled if not timer.cancelled()]

    run(main())


def test_a_closer_that_was_cancelled_is_freed_with_its_last_reference() -> None:
    """The cancellation that it raises must not refer to itself by its traceback."""

    class Held:
        """What the closer has in hand."""

        freed = False

        def __del__(self) -> None:
            Held.freed = True

    async def close(reader: Any, held: Held) -> None:
        await reader.aclose()

    async def main() -> None:
        reader: Any = combine.prefetch.raw(Watched(), 2)
        await anext(reader)
        closing = asyncio.ensure_future(close(reader, Held()))
        await advance(0.5)
        closing.cancel()
        await asyncio.wait({closing})
        assert closing.cancelled()

    gc.collect()
    gc.disable()
    try:
        run(main())
        assert Held.freed
    finally:
        gc.enable()


@pytest.mark.parametrize("closes", [False, True])
def test_a_task_that_has_ended_refers_to_nothing_of_its_own(closes: bool) -> None:
    """Else only the collector would free it, and all that its exception holds."""

    class Held:
        """What the source has open."""

        freed = False

        def __del__(self) -> None:
            Held.freed = True

    async def source() -> AsyncGenerator[int, None]:
        held = Held()
        yield 1
        if closes:
            await asyncio.sleep(math.inf)
        raise OSError("the disk is full", held)

    async def main() -> None:
        reader: Any = combine.prefetch.raw(source(), 2)
        await anext(reader)
        if closes:
            await reader.aclose()
        else:
            with pytest.raises(OSError, match="the disk is full"):
                await anext(reader)

    gc.collect()
    gc.disable()
    try:
        run(main())
        tasks = [found for found in gc.get_objects() if isinstance(found, asyncio.Task)]
        assert not [task for task in tasks if "TaskOwner" in repr(task)]
        assert Held.freed
    finally:
        gc.enable()
