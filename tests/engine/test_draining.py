"""`drain_on` interrupts one read of the source, cuts no clean-up, and hides no cancellation."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
from typing import TYPE_CHECKING, Any

import pytest
from returns.io import IOSuccess
from watched import Watched

from returns_pipeline import ResultStream, combine, results
from returns_pipeline.testing import advance, run

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator


async def silent() -> AsyncGenerator[int, None]:
    """Emit one item, then nothing."""
    yield 0
    await asyncio.sleep(math.inf)


async def one_late() -> AsyncGenerator[int, None]:
    await asyncio.sleep(1)
    yield 1


def drained(source: Any, stop: asyncio.Event) -> Any:
    return ResultStream.of(source).drain_on(stop)


def test_a_reader_that_was_cancelled_before_drains_nevertheless() -> None:
    """It has survived that: no other cancellation has come meanwhile."""

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(1, stop.set)
        assert await drained(silent(), stop).collect() == IOSuccess([0])
        assert task.cancelling() == 1
        task.uncancel()

    run(main())


@pytest.mark.parametrize("is_set", [False, True])
def test_a_reader_that_is_cancelled_is_cancelled(is_set: bool) -> None:
    """Its cancellation is not a drain, even if the event is set in the same turn."""

    async def main() -> None:
        stop = asyncio.Event()
        reading = asyncio.ensure_future(drained(silent(), stop).collect().awaitable())
        await advance(1)
        reading.cancel("enough")
        if is_set:
            stop.set()
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await reading

    run(main())


def test_a_cancellation_that_comes_during_the_drain_is_raised() -> None:
    async def main() -> None:
        stop = asyncio.Event()
        reading = asyncio.ensure_future(drained(Watched(), stop).collect().awaitable())
        await advance(0.5)
        stop.set()
        await advance(0.5)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    run(main())


def test_a_drain_that_the_source_has_swallowed_ends_when_the_event_is_cleared() -> None:
    """What cancels the reader later is not a drain."""

    async def source() -> AsyncGenerator[int, None]:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(math.inf)
        yield 1
        await asyncio.sleep(math.inf)

    async def main() -> None:
        stop = asyncio.Event()
        got: list[Any] = []

        async def read() -> None:
            async with drained(source(), stop).successes().stream() as items:
                async for item in items:
                    got.append(item)
                    stop.clear()

        reading = asyncio.ensure_future(read())
        await advance(1)
        stop.set()
        await advance(1)
        assert got == [1]
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    run(main())


def test_an_exception_that_the_reader_is_handling_is_not_raised_by_the_drain() -> None:
    """It is the context of every exception that the source raises after it has suspended again."""

    async def source() -> AsyncGenerator[int, None]:
        yield 0
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(math.inf)
        await asyncio.sleep(1)
        raise asyncio.CancelledError("as some libraries do")

    async def main() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(1.5, stop.set)
        try:
            raise KeyError("of the reader")
        except KeyError:
            assert await drained(source(), stop).collect() == IOSuccess([0])

    run(main())


def test_an_error_that_a_drain_raises_is_freed_with_its_last_reference() -> None:
    """Its traceback has frames that must not refer to it: they would keep what they held."""

    class Held:
        """What the source has open."""

        freed = 0

        def __del__(self) -> None:
            Held.freed += 1

    async def source(*, fails: bool) -> AsyncGenerator[int, None]:
        held = Held()
        yield 1
        if not fails:
            await asyncio.sleep(math.inf)
        try:
            raise OSError("the disk is full")
        finally:
            await asyncio.sleep(1)
            del held

    async def main() -> None:
        for fails in (True, False):
            stop = asyncio.Event()
            asyncio.get_running_loop().call_later(0.5, stop.set)
            with contextlib.suppress(OSError):
                await drained(source(fails=fails), stop).collect()
        reading = asyncio.ensure_future(
            drained(source(fails=False), asyncio.Event()).collect().awaitable()
        )
        await advance(1)
        reading.cancel()
        await asyncio.wait({reading})
        del reading

    gc.collect()
    gc.disable()
    try:
        run(main())
        assert Held.freed == 3
    finally:
        gc.enable()


# A clean-up that has begun is not cut off by the drain.


def test_a_drain_does_not_cut_the_clean_up_of_a_stream_that_is_being_closed() -> None:
    watched = Watched()

    async def main() -> None:
        stop = asyncio.Event()
        async with drained(watched, stop).prefetch(2).stream() as items:
            await anext(items)
            asyncio.get_running_loop().call_later(0.5, stop.set)
        watched.assert_clean()

    run(main())


def test_a_drain_does_not_cut_the_clean_up_that_a_cancelled_reader_has_begun() -> None:
    watched = Watched()

    async def main() -> None:
        stop = asyncio.Event()
        reading = asyncio.ensure_future(drained(watched, stop).collect().awaitable())
        await advance(0.5)
        reading.cancel()
        await advance(0.5)
        stop.set()
        with pytest.raises(asyncio.CancelledError):
            await reading
        watched.assert_clean()

    run(main())


@pytest.mark.parametrize("has_task", [False, True])
def test_a_drain_does_not_cut_the_clean_up_of_a_part_that_has_ended(has_task: bool) -> None:
    """The reader, or the task that reads, closes a part while the drained stream waits for it."""
    log: list[str] = []

    class Part:
        """It has ended, and takes a second to close."""

        def __aiter__(self) -> AsyncIterator[Any]:
            return self

        async def __anext__(self) -> Any:
            raise StopAsyncIteration

        async def aclose(self) -> None:
            await asyncio.sleep(1)
            log.append("closed")

    async def main() -> None:
        stop = asyncio.Event()
        stream: Any = drained(results.map_result(Part(), str), stop)
        asyncio.get_running_loop().call_later(0.5, stop.set)
        if has_task:  # it reads on after the part that was drained
            assert [n async for n in combine.concat(stream, one_late())] == [1]
        else:
            assert await stream.collect() == IOSuccess([])
        assert log == ["closed"]

    run(main())


def test_a_drain_waits_for_a_time_limit_of_the_source_that_has_just_passed() -> None:
    """That limit ends one wait of the source, and not the source: the drain ends the next one."""

    async def source() -> AsyncGenerator[int, None]:
        yield 1
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await asyncio.gather(slow_to_leave())

    async def main() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(1.2, stop.set)
        assert await drained(source(), stop).collect() == IOSuccess([1])

    run(main())


async def slow_to_leave() -> None:
    try:
        await asyncio.sleep(math.inf)
    finally:
        await asyncio.sleep(0.5)


def test_closing_after_a_drain_has_begun_ends_the_stream() -> None:
    """The source is in its clean-up, and is not cut off; what comes after it is not waited for."""
    watched = Watched()

    async def main() -> None:
        stop = asyncio.Event()
        reader: Any = combine.concat.raw(drained(watched, stop), silent())
        await anext(reader)
        await advance(0.5)
        stop.set()
        await advance(0.5)
        await asyncio.wait_for(reader.aclose(), 9)
        watched.assert_clean()

    run(main())
