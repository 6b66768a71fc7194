"""`from_thread`: a blocking iterator, read in a thread of its own."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import queue
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from returns.result import Success

from returns_pipeline import ResultStream, to_result
from returns_pipeline.errors import InvalidArgument
from returns_pipeline.sources import from_thread
from returns_pipeline.testing import VirtualTimeLoop, run, timeline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aiostream import Stream


def threads() -> set[str]:
    return {each.name for each in threading.enumerate() if "from_thread" in each.name}


async def listed(stream: Stream[Any]) -> list[Any]:
    return [item for _, item in await timeline(stream)]


class Blocking:
    """An iterator that blocks until it is interrupted."""

    def __init__(self) -> None:
        self.given: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self.waits = threading.Event()
        self.calls = 0

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        self.calls += 1
        self.waits.set()
        item = self.given.get()
        if item is None:
            raise StopIteration
        return item


async def until(condition: Callable[[], object]) -> None:
    """Wait until a thread has come this far, and the loop has what it has sent."""

    def wait() -> None:
        while not condition():
            time.sleep(0.005)

    await asyncio.to_thread(wait)
    await asyncio.sleep(0.01)


async def all_taken(blocking: Blocking) -> None:
    """Wait until the thread has taken all there is."""
    await until(lambda: not blocking.given.qsize())


async def stop_once_asked(blocking: Blocking, stop: asyncio.Event, calls: int = 2) -> None:
    """Stop when the loop has the items before this one, and the thread waits for it."""
    await until(lambda: blocking.calls >= calls)
    stop.set()


@pytest.mark.parametrize("buffer", [1, 2, 7, 64])
def test_every_item_is_emitted_in_order_and_no_more_than_buffer_are_read_ahead(buffer: int) -> None:
    read = 0

    def numbers() -> Iterator[int]:
        nonlocal read
        for number in range(100):
            read = number + 1
            yield number

    async def main() -> None:
        got = []
        async with from_thread(numbers(), buffer=buffer).stream() as items:
            async for item in items:
                got.append(item)
                await asyncio.sleep(0.1)
                assert read - len(got) <= buffer
        assert got == [*range(100)]

    run(main())
    assert not threads()


def test_the_clock_of_tests_stands_still_while_the_thread_reads_and_moves_while_it_does_not() -> (
    None
):
    def slow() -> Iterator[str]:
        for item in "abc":
            time.sleep(0.02)
            yield item

    assert run(timeline(from_thread(slow()), pause=2.0)) == [(0.0, "a"), (2.0, "b"), (4.0, "c")]


def test_the_iterator_runs_in_one_thread_and_in_a_copy_of_the_readers_context() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    seen = set()

    class Numbers:
        def __iter__(self) -> Iterator[int]:
            seen.add((threading.get_ident(), variable.get()))
            variable.set("changed")
            try:
                yield 1
                seen.add((threading.get_ident(), "reader"))
                assert variable.get() == "changed"
                yield 2
            finally:
                seen.add((threading.get_ident(), "reader"))

    async def main() -> None:
        variable.set("reader")
        assert await listed(from_thread(Numbers())) == [1, 2]
        assert variable.get() == "reader"
        assert len(seen) == 1
        assert threading.get_ident() not in {ident for ident, _ in seen}
        assert await listed(from_thread(Numbers())) == [1, 2]

    run(main())


def test_a_cursor_that_has_to_stay_in_its_thread_works() -> None:
    def rows() -> Iterator[int]:
        connection = sqlite3.connect(":memory:")
        try:
            for (number,) in connection.execute("VALUES (1), (2), (3)"):
                yield number
        finally:
            connection.close()

    async def main() -> None:
        given = ResultStream.of(from_thread(rows())).map(lambda n: n * 10)
        assert await to_result(given.collect()) == Success([10, 20, 30])

    run(main())


def test_an_error_is_raised_after_the_items_before_it() -> None:
    def numbers() -> Iterator[int]:
        yield 1
        yield 2
        raise ZeroDivisionError

    async def main() -> None:
        got = []
        with pytest.raises(ZeroDivisionError):
            async with from_thread(numbers(), buffer=9).stream() as items:
                async for item in items:
                    got.append(item)
        assert got == [1, 2]

    run(main())
    assert not threads()


def test_closing_waits_for_the_thread_and_its_clean_up() -> None:
    ended = []

    def endless() -> Iterator[int]:
        try:
            while True:
                time.sleep(0.01)
                yield 1
        finally:
            time.sleep(0.05)
            ended.append(True)

    async def main() -> None:
        async with from_thread(endless()).stream() as items:
            async for _ in items:
                break
        assert ended == [True]
        assert not threads()

    asyncio.run(main())


def test_an_error_of_its_clean_up_is_raised_by_closing() -> None:
    def numbers() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            raise ZeroDivisionError

    async def main() -> None:
        streamer = from_thread(numbers()).stream()
        assert await anext(streamer._aiterator) == 1
        with pytest.raises(ZeroDivisionError):
            await streamer._aiterator.aclose()  # type: ignore[attr-defined]

    asyncio.run(main())


@pytest.mark.parametrize("how", ["aclose", "cancel", "cancel twice", "drop"])
def test_a_thread_that_blocks_is_interrupted_when_the_stream_is_closed(how: str) -> None:
    async def main() -> None:
        blocking = Blocking()
        told = []

        def interrupt() -> None:
            told.append(threading.get_ident())
            asyncio.get_running_loop().call_later(0.05, blocking.given.put, None)

        reading = from_thread(blocking, interrupt=interrupt).stream()._aiterator
        task = asyncio.ensure_future(anext(reading))
        await asyncio.to_thread(blocking.waits.wait)
        assert not told
        task.cancel()
        await asyncio.wait({task})
        assert not told  # a cancelled read closes nothing
        if how == "aclose":
            await reading.aclose()  # type: ignore[attr-defined]
        elif how.startswith("cancel"):
            closing = asyncio.ensure_future(reading.aclose())  # type: ignore[attr-defined]
            await asyncio.sleep(0.01)
            closing.cancel()
            if how == "cancel twice":
                await asyncio.sleep(0.01)
                closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
        else:
            del reading, task
            gc.collect()
            await asyncio.sleep(0.2)
        assert told == [threading.get_ident()]
        assert not threads()

    asyncio.run(main())


def test_a_thread_that_never_ends_is_abandoned_after_its_grace_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    blocking = Blocking()
    dropped: list[int] = []

    async def main() -> None:
        reading = from_thread(blocking, grace=0.05, on_drop=dropped.append).stream()._aiterator
        task = asyncio.ensure_future(anext(reading))
        await asyncio.to_thread(blocking.waits.wait)
        task.cancel()
        await asyncio.wait({task})
        with caplog.at_level(logging.ERROR):
            await reading.aclose()  # type: ignore[attr-defined]
        assert "was abandoned" in caplog.text
        assert len(threads()) == 1
        blocking.given.put(7)  # it comes back late: even then its item is delivered
        await asyncio.sleep(0.05)
        assert dropped == [7]
        assert not threads()

    asyncio.run(main())


def test_items_that_closing_drops_are_passed_to_on_drop() -> None:
    dropped: list[int] = []

    async def main() -> None:
        blocking = Blocking()
        for number in range(3):
            blocking.given.put(number)
        reading = (
            from_thread(
                blocking, buffer=5, on_drop=dropped.append, interrupt=lambda: blocking.given.put(3)
            )
            .stream()
            ._aiterator
        )
        assert await anext(reading) == 0
        await all_taken(blocking)
        await reading.aclose()  # type: ignore[attr-defined]
        assert dropped == [1, 2, 3]

    asyncio.run(main())


def test_an_error_of_on_drop_or_interrupt_is_raised_by_closing() -> None:
    async def main(**hooks: Any) -> None:
        blocking = Blocking()
        blocking.given.put(0)
        blocking.given.put(1)
        reading = from_thread(blocking, buffer=5, **hooks).stream()._aiterator
        assert await anext(reading) == 0
        await all_taken(blocking)
        asyncio.get_running_loop().call_later(0.02, blocking.given.put, None)
        with pytest.raises(ZeroDivisionError):
            await reading.aclose()  # type: ignore[attr-defined]
        assert not threads()

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    asyncio.run(main(on_drop=fail))
    asyncio.run(main(interrupt=fail))


def test_draining_emits_what_the_thread_has_read_and_is_reading() -> None:
    async def main() -> None:
        blocking = Blocking()
        stop = asyncio.Event()
        dropped: list[int] = []
        for number in range(3):
            blocking.given.put(number)

        async def stop_it() -> None:
            await stop_once_asked(blocking, stop, calls=4)
            await asyncio.sleep(0.05)
            blocking.given.put(3)
            blocking.given.put(4)

        source = from_thread(blocking, buffer=9, on_drop=dropped.append)
        drained = ResultStream.of(source).drain_on(stop).chunks_or_timeout(10, 100.0)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(stop_it())
            assert await to_result(drained.collect()) == Success([[0, 1, 2, 3]])
        assert not dropped
        assert blocking.given.get() == 4

    asyncio.run(main())


def test_a_drain_does_not_wait_longer_than_the_grace_time(caplog: pytest.LogCaptureFixture) -> None:
    blocking = Blocking()

    async def main() -> None:
        stop = asyncio.Event()
        blocking.given.put(0)
        source = from_thread(blocking, buffer=9, grace=0.05)
        drained = ResultStream.of(source).drain_on(stop)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(stop_once_asked(blocking, stop))
            assert await to_result(drained.collect()) == Success([0])
        assert "was abandoned" in caplog.text

    asyncio.run(main())
    blocking.given.put(None)


def test_an_item_of_a_thread_that_a_drain_has_abandoned_is_passed_to_on_drop() -> None:
    async def main() -> None:
        blocking = Blocking()
        stop = asyncio.Event()
        dropped: list[int] = []
        blocking.given.put(0)
        source = from_thread(blocking, grace=0.02, on_drop=dropped.append)
        drained = ResultStream.of(source).drain_on(stop)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(stop_once_asked(blocking, stop))
            assert await to_result(drained.collect()) == Success([0])
        blocking.given.put(1)
        await until(lambda: dropped)
        assert dropped == [1]

    asyncio.run(main())


def test_the_end_of_the_program_waits_for_the_thread_too() -> None:
    ended = []

    def endless() -> Iterator[int]:
        try:
            while True:
                time.sleep(0.01)
                yield 1
        finally:
            ended.append(True)

    async def main() -> None:
        leaked.append(from_thread(endless()).stream()._aiterator)
        await anext(leaked[0])

    leaked: list[Any] = []
    asyncio.run(main())
    assert ended == [True]
    assert not threads()


def test_a_blocked_thread_does_not_keep_the_clock_of_tests_forever() -> None:
    blocking = Blocking()

    async def main() -> None:
        reading = from_thread(blocking, grace=3.0).stream()._aiterator
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await anext(reading)
        await reading.aclose()  # type: ignore[attr-defined]
        assert asyncio.get_running_loop().time() == 63

    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(patience=0.05)) as runner:
        runner.run(main())
    blocking.given.put(None)


def test_what_cannot_be_read_is_refused_at_the_call() -> None:
    good: list[int] = []
    for bad in ({"buffer": 0}, {"grace": -1}, {"interrupt": 5}, {"on_drop": 5}):
        with pytest.raises(InvalidArgument, match=next(iter(bad))):
            _ = from_thread(good, **bad)  # type: ignore[arg-type]
    nothing: Any = 5
    with pytest.raises(TypeError, match="expected an iterable"):
        _ = from_thread(nothing)


def test_stop_iteration_from_iter_is_an_error_and_no_end() -> None:
    class Empty:
        def __iter__(self) -> Iterator[int]:
            return iter([next(iter([]))])

    with pytest.raises(RuntimeError, match="raised StopIteration") as caught:
        _ = run(listed(from_thread(Empty())))
    assert isinstance(caught.value.__cause__, StopIteration)
    assert threads() == set()
