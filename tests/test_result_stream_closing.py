# mypy: disable-error-code="unused-awaitable"
"""How a `ResultStream` ends: closed, dropped, drained, cut into slices, read by two tasks."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from returns.io import IOSuccess
from returns.result import Failure, Result, Success

from returns_pipeline import ResultStream
from returns_pipeline.sources import from_iterable
from returns_pipeline.testing import run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


class Source:
    """Numbers, one a second; tells how its clean-up, which takes a second, came along."""

    def __init__(self, count: int = 9) -> None:
        self.count = count
        self.log: list[str] = []

    async def __aiter__(self) -> AsyncIterator[int]:
        self.log.append("opened")
        try:
            for n in range(self.count):
                await asyncio.sleep(1)
                yield n
        finally:
            self.log.append("closing")
            await asyncio.sleep(1)
            self.log.append("closed")


async def slow(value: Any) -> Any:
    await asyncio.sleep(10)
    return value


async def even(n: int) -> Result[int, str]:
    return Failure(f"{n} is odd") if n % 2 else Success(n)


def now() -> float:
    return asyncio.get_running_loop().time()


FORMS: dict[str, Callable[[ResultStream[int, Any]], Any]] = {
    "a step": lambda s: s.map_async(slow),
    "two steps": lambda s: s.map_async(slow).tap(str),
    "a step on the values alone": lambda s: s.map_async(slow).successes(),
    "a step after a drain": lambda s: s.drain_on(asyncio.Event()).map_async(slow),
    "a step after a window": lambda s: s.chunks_or_timeout(2, 60.0).map_async(slow),
    "a step after a window, its values alone": lambda s: (
        s.chunks_or_timeout(2, 60.0).map_async(slow).successes()
    ),
    "concurrent steps": lambda s: s.map_async(slow, concurrency=2),
    "concurrent steps after a window": lambda s: s.chunks_or_timeout(2, 60.0).map_async(
        slow, concurrency=2
    ),
    "a slice": lambda s: s.prefetch(2).map_async(slow)[:5],
    "a sum": lambda s: s.prefetch(2).map_async(slow) + s.prefetch(2),
}

each_form = pytest.mark.parametrize("made", FORMS.values(), ids=FORMS)


@each_form
def test_closing_while_a_step_runs_closes_the_source_and_leaves_no_task(
    made: Callable[[ResultStream[int, Any]], Any],
) -> None:
    source = Source()

    async def main() -> None:
        items = made(ResultStream.of(source)).stream()
        await items.__aenter__()
        reading = asyncio.ensure_future(anext(items))
        await asyncio.sleep(3.5)  # an item has come, and a step is busy with it
        await items.aclose()
        assert source.log == ["opened", "closing", "closed"]
        await asyncio.wait({reading})
        if reading.exception() is None:  # a step in the reader's own task runs to its end
            with pytest.raises(StopAsyncIteration):
                await anext(items)

    run(main())  # which fails on a task left behind


@each_form
def test_a_reader_sees_the_end_after_another_task_has_closed_the_stream_while_a_step_runs(
    made: Callable[[ResultStream[int, Any]], Any],
) -> None:
    async def main() -> None:
        s = made(ResultStream.of(from_iterable(range(9))))
        seen: list[Any] = []

        async def read() -> None:
            async for item in s:
                seen.append(item)

        reading = asyncio.create_task(read())
        await asyncio.sleep(5)
        await s.aclose()  # at once: there is no clean-up to wait for
        await reading
        assert len(seen) <= 1  # a step in the reader's own task runs to its end

    run(main())


def test_a_source_that_another_task_waits_for_cannot_be_closed_as_of_any_async_generator() -> None:
    source = Source()

    async def main() -> None:
        items = ResultStream.of(source).map(str).stream()
        await items.__aenter__()
        reading = asyncio.ensure_future(anext(items))
        await asyncio.sleep(0.5)
        with pytest.raises(RuntimeError, match="already running"):
            await items.aclose()
        assert await reading == Success("0")
        await items.aclose()
        assert source.log == ["opened", "closing", "closed"]

    run(main())


@each_form
def test_a_stream_can_be_closed_itself_as_an_async_generator_can(
    made: Callable[[ResultStream[int, Any]], Any],
) -> None:
    source = Source()

    async def main() -> None:
        async with contextlib.aclosing(made(ResultStream.of(source))) as s:
            async for _ in s:
                break
        assert source.log[:3] == ["opened", "closing", "closed"]
        await s.aclose()

    run(main())


def test_a_stream_that_was_never_read_is_closed_by_doing_nothing() -> None:
    source = Source()

    async def main() -> None:
        async with contextlib.aclosing(ResultStream.of(source).chunks_or_timeout(2, 1.0)):
            pass

    run(main())
    assert source.log == []


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Keep the garbage collector from running: what is freed is freed by its last reference."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@each_form
def test_leaving_the_loop_closes_the_source_without_the_collector(
    made: Callable[[ResultStream[int, Any]], Any],
) -> None:
    source = Source()

    async def main() -> None:
        async for _ in made(ResultStream.of(source)):
            break
        left = now()
        await asyncio.sleep(5)
        assert source.log[:3] == ["opened", "closing", "closed"]
        assert now() == left + 5

    run(main())


@pytest.mark.usefixtures("no_collector")
@each_form
def test_a_stream_does_not_refer_to_itself(made: Callable[[ResultStream[int, Any]], Any]) -> None:
    s = made(ResultStream.of(Source()))
    alive = weakref.ref(s)
    del s
    assert alive() is None

    async def main() -> weakref.ref[Any]:
        s = made(ResultStream.of(Source(1)))
        async with s.stream() as items:
            async for _ in items:
                pass
        return weakref.ref(s)

    alive = run(main())
    assert alive() is None


# Cancelled reads.

CANCEL_SAFE: dict[str, Callable[[ResultStream[int, Any]], ResultStream[Any, Any]]] = {
    "whole": lambda s: s.prefetch(2),
    "a slice": lambda s: s.prefetch(2)[:4],
    "a slice with a step": lambda s: s.prefetch(2)[1::2],
    "a slice counted from the end": lambda s: s.prefetch(2)[-2:],
    "an item": lambda s: s.prefetch(2)[1],
    "a slice of a slice": lambda s: s.prefetch(2)[1:][:2],
    "a sum": lambda s: s.prefetch(2) + s.prefetch(2),
    "a sum with the second prefetched": lambda s: s + s.prefetch(2),
    "concat": lambda s: s.prefetch(2).concat(s),
    "a slice after a step": lambda s: s.prefetch(2).bind_async(even)[:3],
}


@pytest.mark.parametrize("made", CANCEL_SAFE.values(), ids=CANCEL_SAFE)
def test_a_read_that_times_out_loses_nothing(
    made: Callable[[ResultStream[int, Any]], ResultStream[Any, Any]],
) -> None:
    async def read(*, cut: bool) -> list[Any]:
        given: list[Any] = []
        async with made(ResultStream.of(Source(4))).stream() as items:
            while True:
                try:
                    async with asyncio.timeout(0.3 if cut else None):
                        given.append(await anext(items))
                except TimeoutError:
                    continue
                except StopAsyncIteration:
                    break
        return given

    expected = run(read(cut=False))
    assert expected
    assert run(read(cut=True)) == expected


def test_a_slice_with_a_bad_index_is_refused_at_the_call() -> None:
    for s in (ResultStream.of(Source()), ResultStream.of(Source()).prefetch(2)):
        with pytest.raises(ValueError, match="step"):
            s[1:2:-1]


# A second reader.


@pytest.mark.parametrize(
    "made",
    [
        lambda s: s.prefetch(2),
        lambda s: s.chunks_or_timeout(1, 9.0),
        lambda s: s.prefetch(2).map_async(slow),
        lambda s: s.prefetch(2).failures(),
        lambda s: s.map_async(slow, concurrency=3),
    ],
    ids=["prefetch", "window", "step after prefetch", "a half", "concurrent steps"],
)
def test_a_second_reader_is_refused_and_the_first_misses_nothing(
    made: Callable[[ResultStream[int, Any]], Any],
) -> None:
    async def main() -> None:
        async def read() -> list[Any]:
            return [item async for item in items]

        async with made(ResultStream.of(Source(4))).stream() as expected:
            whole = [item async for item in expected]
        async with made(ResultStream.of(Source(4))).stream() as items:
            reading = asyncio.create_task(read())
            for _ in range(3):
                await asyncio.sleep(1.1)
                with pytest.raises(RuntimeError, match="another task is reading"):
                    await anext(items)
            assert await reading == whole

    run(main())


# Draining.


def test_an_error_that_the_source_is_raising_when_it_is_drained_is_raised() -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        try:
            raise OSError("the disk is full")
        finally:
            await asyncio.sleep(1)

    async def main() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(0.5, stop.set)
        with pytest.raises(OSError, match="the disk is full"):
            await ResultStream.of(source()).drain_on(stop).collect()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    run(main())


@pytest.mark.parametrize("another", [False, True])
def test_an_exception_that_the_reader_is_handling_is_not_an_error_of_the_source(
    another: bool,
) -> None:
    async def source() -> AsyncIterator[int]:
        yield 0
        if not another:
            await asyncio.sleep(60)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        raise asyncio.CancelledError("as some libraries do")

    async def main() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(1.5, stop.set)
        try:
            raise KeyError("of the reader")
        except KeyError:
            assert await ResultStream.of(source()).drain_on(stop).collect() == IOSuccess([0])

    run(main())


@pytest.mark.parametrize("gives", ["an item", "the end", "an error"])
def test_a_source_that_swallows_the_drain_leaves_the_reader_uncancelled(gives: str) -> None:
    """Else the next `asyncio.timeout` of the reader would take its own end for a cancellation."""

    async def source() -> AsyncIterator[int]:
        yield 1
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if gives == "an error":
                raise OSError(gives) from None
            if gives == "an item":
                yield 2

    async def main() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(0.5, stop.set)
        with contextlib.suppress(OSError):
            expected = [1, 2] if gives == "an item" else [1]
            assert await ResultStream.of(source()).drain_on(stop).collect() == IOSuccess(expected)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.sleep(9)

    run(main())


@pytest.mark.parametrize("stop", [1.5, None, lambda n: n > 2, "stop"])
def test_only_an_event_can_drain(stop: Any) -> None:
    with pytest.raises(TypeError, match=r"stop must be an asyncio\.Event"):
        ResultStream.of(Source()).drain_on(stop)


# Sources that never suspend.


async def endless() -> AsyncIterator[int]:
    n = 0
    while True:
        yield n
        n += 1


def no(_: object) -> bool:
    return False


STARVING: dict[str, Callable[[ResultStream[int, Any]], Any]] = {
    "filter": lambda s: s.filter(no),
    "filter after a filter": lambda s: s.filter(bool).filter(no),
    "distinct_until_changed": lambda s: s.map(no).distinct_until_changed(),
    "filter before a window": lambda s: s.filter(no).chunks_or_timeout(2, 9.0),
    "filter before prefetch": lambda s: s.filter(no).prefetch(2),
    "filter before a merge": lambda s: s.filter(no).merge(s.filter(no)),
    "filter before a route": lambda s: s.filter(no).flat_map(lambda n: ResultStream.of(endless())),
    "failures": lambda s: s.failures(),
    "successes": lambda s: s.filter(no).successes(),
    "successes of failures": lambda s: s.bind(Failure).successes(),
    "errors that were recovered": lambda s: s.bind(Failure).lash(Success).failures(),
}


@pytest.mark.parametrize("made", STARVING.values(), ids=STARVING)
def test_a_step_that_drops_all_items_lets_other_tasks_run(
    made: Callable[[ResultStream[int, Any]], Any],
) -> None:
    async def main() -> None:
        async def read() -> None:
            async with made(ResultStream.of(endless())).stream() as items:
                async for _ in items:
                    pass

        reading = asyncio.create_task(read())
        for _ in range(20):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait({reading})

    run(main())


def test_a_source_that_never_suspends_can_be_drained() -> None:
    async def main() -> None:
        stop = asyncio.Event()
        for _ in range(2):
            asyncio.get_running_loop().call_soon(stop.set)
            count = await ResultStream.of(endless()).drain_on(stop).run()
            assert isinstance(count, IOSuccess)

    run(main())
