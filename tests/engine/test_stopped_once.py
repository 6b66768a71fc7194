"""A task of a stream is asked to stop once, and not while it cleans up."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import weakref
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
from returns.io import IOSuccess
from watched import Watched

from returns_pipeline import (
    ResultStream,
    chunks_by_weight,
    chunks_or_timeout,
    combine,
    keyed_chunks,
    sessions,
    sliding,
)
from returns_pipeline.testing import VirtualTimeLoop, advance, run
from returns_pipeline.windows import TumblingWindows, chunks_until, event_windows

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable


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


async def spends_a_cancellation(before: int, after: int) -> AsyncGenerator[int, None]:
    """Swallow a cancellation after some items; emit more, then wait."""
    task = asyncio.current_task()
    assert task is not None
    for n in range(before):
        yield n
    asyncio.get_running_loop().call_later(0.1, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(math.inf)
    for n in range(after):
        yield before + n
        await asyncio.sleep(0.1)
    await asyncio.sleep(math.inf)


async def cancels_itself(before: int, after: int) -> AsyncGenerator[int, None]:
    """As `spends_a_cancellation`, but while its task runs."""
    task = asyncio.current_task()
    assert task is not None
    for n in range(before):
        yield n
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(math.inf)
    for n in range(after):
        yield before + n
        await asyncio.sleep(0.1)
    await asyncio.sleep(math.inf)


IMPATIENT: dict[str, Callable[[Any], Any]] = {
    **FORMS,
    "a window of one": lambda s: chunks_or_timeout.raw(s, 1, math.inf),
    "a window of three": lambda s: chunks_or_timeout.raw(s, 3, math.inf),
    "a window of a window": lambda s: aiter(
        ResultStream.of(s).chunks_or_timeout(1, math.inf).chunks_or_timeout(1, math.inf)
    ),
    "chunks_by_weight": lambda s: chunks_by_weight.raw(s, 2, math.inf, weight=lambda _: 1),
    "keyed_chunks": lambda s: keyed_chunks.raw(s, 2, math.inf, key=lambda _: 0),
    "sessions": lambda s: sessions.raw(s, 0.5, n=2),
    "sliding": lambda s: sliding.raw(s, 2),
    "chunks_until": lambda s: chunks_until.raw(s, lambda n: n % 2 == 0),
    "event_windows": lambda s: event_windows.raw(s, TumblingWindows(1.0), timestamp=float),
    "a signal": lambda s: chunks_or_timeout.raw(silence(), 9, math.inf, flush_on=s),
    "prefetch": lambda s: combine.prefetch.raw(s, 2),
    "scan": lambda s: combine.scan.raw(s, 0, max),
    "debounce": lambda s: combine.debounce.raw(s, 0.5),
    "throttle": lambda s: combine.throttle.raw(s, 0.5),
    "flat_map": lambda s: aiter(
        ResultStream.of(s).flat_map(lambda n: ResultStream.of(combine.concat(only(n))))
    ),
    "a filter": lambda s: aiter(ResultStream.of(s).filter(lambda n: n > 3).prefetch(2)),
}


async def only(n: int) -> AsyncGenerator[int, None]:
    yield n


@pytest.mark.parametrize("after", [1, 2, 9])
@pytest.mark.parametrize("before", [0, 1, 2])
@pytest.mark.parametrize("source", [spends_a_cancellation, cancels_itself])
@pytest.mark.parametrize("read", IMPATIENT.values(), ids=IMPATIENT)
def test_a_source_that_reads_on_after_a_cancellation_of_its_own_is_closed_at_once(
    read: Callable[[Any], Any],
    source: Callable[[int, int], AsyncGenerator[int, None]],
    before: int,
    after: int,
) -> None:
    async def main() -> float:
        reader = read(source(before, after))

        async def read_all() -> None:
            async for _ in reader:
                pass

        reading = asyncio.ensure_future(read_all())
        await advance(2)
        await reader.aclose()
        await reading
        return asyncio.get_running_loop().time()

    assert run(main()) < 4


@pytest.mark.parametrize("closes", [True, False])
@pytest.mark.parametrize(
    "read",
    [
        lambda s: combine.broadcast(s, 1, buffer=2)[0].stream(),
        lambda s: combine.route.raw(s, lambda _: 0, echo, buffer=1),
        lambda s: chunks_or_timeout.raw(s, 2, math.inf),
        lambda s: combine.prefetch.raw(s, 2),
        lambda s: combine.merge.raw(s, silence()),
    ],
    ids=["broadcast", "route", "chunks_or_timeout", "prefetch", "merge"],
)
def test_a_source_that_waits_for_its_reader_after_a_cancellation_of_its_own_is_stopped_at_once(
    read: Callable[[Any], Any], closes: bool
) -> None:
    async def main() -> float:
        reader = read(spends_a_cancellation(1, 9))
        reading = asyncio.ensure_future(anext(reader))
        await advance(2)
        await reading
        if closes:
            await reader.aclose()
        else:
            await cancel_all_but()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        await reader.aclose()
        return asyncio.get_running_loop().time()

    assert run(main()) < 4


def test_closing_does_not_cut_a_clean_up_that_drain_on_has_begun() -> None:
    """Its source has swallowed another cancellation before."""
    log: list[str] = []

    async def source() -> AsyncGenerator[int, None]:
        try:
            async for n in spends_a_cancellation(1, 2):
                yield n
        except asyncio.CancelledError:
            log.append("begun")
            await asyncio.sleep(1)
            log.append("done")
            raise

    async def main() -> None:
        stop = asyncio.Event()
        reader: Any = aiter(ResultStream.of(source()).drain_on(stop).prefetch(9))
        reading = asyncio.ensure_future(anext(reader))
        await advance(2)
        await reading
        stop.set()
        await advance(0.5)
        assert log == ["begun"]
        await reader.aclose()
        assert log == ["begun", "done"]

    run(main())


def test_a_cancelled_task_and_what_it_waited_for_are_not_held_after_its_end() -> None:
    held: list[weakref.ref[Any]] = []

    class Source(AsyncIterator[int]):
        n = 0

        async def next(self) -> int:
            self.n += 1
            task = asyncio.current_task()
            assert task is not None
            if self.n == 3:
                task.cancel()
                raise StopAsyncIteration
            if self.n == 1:
                held.append(weakref.ref(task))
                asyncio.get_running_loop().call_later(0.1, task.cancel)
            else:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(1)
            return self.n

        def __anext__(self) -> Any:
            waiting = self.next()
            held.append(weakref.ref(waiting))
            return waiting

    async def main() -> None:
        reader = combine.prefetch.raw(Source(), 9)
        assert [n async for n in reader] == [1, 2]
        await asyncio.sleep(1)
        gc.collect()
        assert [each() for each in held] == [None] * 4

    run(main())


def test_a_step_that_swallows_a_cancellation_of_its_own_is_closed_at_once() -> None:
    """Its chain waits for the next item, not for the step, when it is closed."""

    async def swallow(n: int) -> int:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_later(0.1, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(math.inf)
        return n

    async def one_item() -> AsyncGenerator[int, None]:
        yield 1
        await asyncio.sleep(math.inf)

    async def main() -> float:
        chain = ResultStream.of(one_item()).map_async(swallow).filter(lambda _: False)
        reader: Any = aiter(chain.prefetch(2))
        reading = asyncio.ensure_future(anext(reader, None))
        await advance(1)
        await reader.aclose()
        await reading
        return asyncio.get_running_loop().time()

    assert run(main()) < 2


@each_form
def test_a_clean_up_in_an_except_suite_is_not_cut_although_its_source_has_read_on_before(
    read: Callable[[Any], Any],
) -> None:
    """It has swallowed one cancellation, and ends at the second one."""
    log: list[str] = []

    async def source() -> AsyncGenerator[int, None]:
        async with contextlib.aclosing(spends_a_cancellation(1, 1)) as numbers:
            yield await anext(numbers)
            yield await anext(numbers)
        try:
            await asyncio.sleep(math.inf)
        except asyncio.CancelledError:
            log.append("begun")
            await asyncio.sleep(1)
            log.append("done")
            raise

    async def main() -> None:
        reader = read(source())

        async def read_all() -> None:
            async for _ in reader:
                pass

        reading = asyncio.ensure_future(read_all())
        await advance(1)
        await cancel_all_but(reading)
        assert log == ["begun"]
        await cancel_all_but(reading)
        await reader.aclose()
        assert log == ["begun", "done"]
        await asyncio.wait({reading})
        reading.cancelled() or reading.exception()

    run(main())


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

    def owned() -> list[object]:
        tasks = [found for found in gc.get_objects() if isinstance(found, asyncio.Task)]
        return [task for task in tasks if "TaskOwner" in repr(task)]

    gc.collect()
    earlier = owned()  # an exception that a module of tests keeps may hold some
    gc.disable()
    try:
        run(main())
        assert owned() == earlier
        assert Held.freed
    finally:
        gc.enable()


async def with_a_limit_by_hand() -> AsyncGenerator[int, None]:
    """Emit many items, swallow a cancellation of its own, emit one more."""
    for n in range(41):
        yield n
    await asyncio.sleep(1)
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_later(1, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(math.inf)
    yield 41
    await asyncio.sleep(math.inf)


FULL: dict[str, Callable[[Any], Any]] = {
    "chunks_or_timeout": lambda s: chunks_or_timeout.raw(s, 42, 600.0),
    "chunks_by_weight": lambda s: chunks_by_weight.raw(s, 99, 600.0, weight=lambda _: 1, n=42),
    "chunks_until": lambda s: chunks_until.raw(s, lambda n: n == 41),
    "keyed_chunks": lambda s: keyed_chunks.raw(s, 42, 600.0, key=lambda _: ""),
    "sessions": lambda s: sessions.raw(s, 600.0, n=42),
    "sliding": lambda s: sliding.raw(s, 42),
    "event_windows": lambda s: event_windows.raw(s, TumblingWindows(41.0), timestamp=float),
    "prefetch": lambda s: combine.prefetch.raw(s, 41),
    "merge": lambda s: combine.merge.raw(s),
}


@pytest.mark.parametrize("read", FULL.values(), ids=FULL)
def test_closing_does_not_wait_for_a_source_that_has_read_on_and_waits_for_the_reader(
    read: Callable[[Any], Any],
) -> None:
    """It has survived its cancellation, as the item shows that made the window full."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        reader = read(with_a_limit_by_hand())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await anext(reader)
        await advance(10)
        before = loop.time()
        await reader.aclose()
        assert loop.time() == before

    run(main())
