"""`from_queue`: what is put into a queue, as a stream."""

from __future__ import annotations

import asyncio
import queue as threads
import sys
from typing import Any

import pytest
from returns.result import Success

from returns_pipeline import ResultStream, to_result
from returns_pipeline.sources import from_queue
from returns_pipeline.testing import FaultInjector, run, timeline

culsans = pytest.importorskip("culsans")
janus = pytest.importorskip("janus")

has_shutdown = pytest.mark.skipif(sys.version_info < (3, 13), reason="Queue.shutdown is of 3.13")


def filled(*items: Any, maxsize: int = 0) -> asyncio.Queue[Any]:
    queue: asyncio.Queue[Any] = asyncio.Queue(maxsize)
    for item in items:
        queue.put_nowait(item)
    return queue


@pytest.mark.parametrize("sentinel", [None, "end", object(), 0, (1, 2)])
def test_the_stream_ends_at_the_sentinel_and_takes_nothing_after_it(sentinel: object) -> None:
    async def main() -> None:
        queue = filled(7, "b", sentinel, "c")
        assert [item for _, item in await timeline(from_queue(queue, sentinel=sentinel))] == [
            7,
            "b",
        ]
        assert queue.get_nowait() == "c"

    run(main())


def test_an_equal_sentinel_ends_it_and_none_is_compared_by_identity_alone() -> None:
    class Odd:
        def __eq__(self, other: object) -> bool:
            raise AssertionError("arrays return no bool")

        __hash__ = None  # type: ignore[assignment]

    async def main() -> None:
        made_at_run_time = "".join(["e", "nd"])
        queue = filled("a", made_at_run_time, "b")
        assert [item for _, item in await timeline(from_queue(queue, sentinel="end"))] == ["a"]
        odd = Odd()
        assert [
            item for _, item in await timeline(from_queue(filled(odd, None), sentinel=None))
        ] == [odd]
        assert len(await timeline(from_queue(filled(None, None, 1), sentinel=1))) == 2

    run(main())


@has_shutdown
@pytest.mark.parametrize("immediate", [False, True])
def test_the_stream_ends_when_the_queue_is_shut_down(immediate: bool) -> None:
    async def main() -> None:
        queue: Any = filled("a", "b")
        asyncio.get_running_loop().call_later(3, lambda: queue.shutdown(immediate=immediate))
        assert await timeline(from_queue(queue)) == [(0.0, "a"), (0.0, "b")]
        assert asyncio.get_running_loop().time() == 3
        other: Any = filled("a", "b")
        other.shutdown(immediate=immediate)
        assert len(await timeline(from_queue(other))) == (0 if immediate else 2)

    run(main())


@pytest.mark.parametrize("make", [culsans.Queue, janus.Queue], ids=["culsans", "janus"])
def test_queues_between_threads_are_read_and_end_when_they_are_shut_down(make: Any) -> None:
    async def main() -> None:
        queue = make()

        def work() -> None:
            for number in range(50):
                queue.sync_q.put(number)
            queue.sync_q.shutdown()

        working = asyncio.create_task(asyncio.to_thread(work))
        given = await to_result(ResultStream.of(from_queue(queue.async_q)).collect())
        assert given == Success([*range(50)])
        await working

    asyncio.run(main())


def test_nothing_is_taken_from_the_queue_that_is_not_emitted() -> None:
    """It is closed, and a new stream continues with the next item."""

    async def main() -> None:
        queue = filled(*range(6))
        stream = from_queue(queue)
        async with stream.stream() as items:
            assert await anext(items) == 0
            assert queue.qsize() == 5
        async with stream.stream() as items:
            assert [await anext(items), await anext(items)] == [1, 2]
        assert queue.qsize() == 3

    run(main())


def test_a_read_cancelled_at_any_time_loses_nothing() -> None:
    async def main() -> None:
        queue: asyncio.Queue[int] = asyncio.Queue(1)

        async def put() -> None:
            for number in range(20):
                await asyncio.sleep(0.3)
                await queue.put(number)
            await queue.put(-1)

        putting = asyncio.create_task(put())
        seen, cuts = [], 0
        async with from_queue(queue, sentinel=-1).stream() as items:
            while True:
                try:
                    async with asyncio.timeout(0.07 + cuts % 3 * 0.05):
                        seen.append(await anext(items._aiterator))
                except TimeoutError:
                    cuts += 1
                except StopAsyncIteration:
                    break
        await putting
        assert seen == [*range(20)]
        assert cuts > 10

    run(main())


def test_draining_emits_what_is_queued_and_waits_for_no_more() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        queue = filled("a", "b")

        def put_and_stop() -> None:
            for item in "cde":
                queue.put_nowait(item)
            stop.set()
            queue.put_nowait("f")  # before any task has seen the event

        loop.call_later(2.0, put_and_stop)
        loop.call_later(3.0, queue.put_nowait, "too late")
        drained = ResultStream.of(from_queue(queue)).drain_on(stop).chunks_or_timeout(4, 100.0)
        assert await to_result(drained.collect()) == Success([["a", "b", "c", "d"], ["e", "f"]])
        assert loop.time() == 2.0
        await asyncio.sleep(2)
        assert queue.get_nowait() == "too late"

    run(main())


def test_draining_ends_although_items_are_still_put_in() -> None:
    async def main() -> None:
        stop = asyncio.Event()
        queue = filled(*range(5))
        stop.set()
        drained = ResultStream.of(from_queue(queue)).drain_on(stop).tap(queue.put_nowait)
        assert await to_result(drained.collect()) == Success([*range(5)])
        assert queue.qsize() == 5

    run(main())


def test_closing_it_ends_a_read_of_another_task_and_takes_nothing() -> None:
    async def main() -> None:
        queue: asyncio.Queue[int] = asyncio.Queue()
        reading = from_queue(queue).stream()._aiterator
        waiting = asyncio.ensure_future(anext(reading))
        await asyncio.sleep(1)
        await reading.aclose()  # type: ignore[attr-defined]
        queue.put_nowait(1)
        with pytest.raises(StopAsyncIteration):
            await waiting
        assert not waiting.cancelled()
        assert queue.qsize() == 1

        again = from_queue(queue).stream()._aiterator
        assert await anext(again) == 1
        waiting = asyncio.ensure_future(anext(again))
        await asyncio.sleep(1)
        waiting.cancel()  # and closing does not swallow it
        await again.aclose()  # type: ignore[attr-defined]
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run(main())


@pytest.mark.parametrize("first", [True, False])
def test_either_of_two_events_drains(first: bool) -> None:
    async def main() -> None:
        stops = asyncio.Event(), asyncio.Event()
        queue = filled(1, 2)
        loop = asyncio.get_running_loop()

        def put_and_stop() -> None:
            queue.put_nowait(3)
            stops[0 if first else 1].set()

        loop.call_later(1.0, put_and_stop)
        stream = ResultStream.of(from_queue(queue)).drain_on(stops[0]).drain_on(stops[1])
        assert await to_result(stream.collect()) == Success([1, 2, 3])
        stops[0].set()
        assert await to_result(stream.collect()) == Success([])

    run(main())


def test_a_drain_stops_at_the_sentinel_too() -> None:
    async def main() -> None:
        stop = asyncio.Event()
        stop.set()
        queue = filled(1, None, 2)
        stream = ResultStream.of(from_queue(queue, sentinel=None)).drain_on(stop)
        assert await to_result(stream.collect()) == Success([1])
        assert queue.qsize() == 1

    run(main())


@pytest.mark.parametrize("times", [1, 2])
def test_wherever_it_is_cancelled_each_item_is_emitted_or_still_queued(times: int) -> None:
    async def main() -> None:
        for injector in FaultInjector.every(times=times):
            queue = filled(*range(8))
            handled: list[int] = []

            async def consume(
                queue: asyncio.Queue[int] = queue, handled: list[int] = handled
            ) -> None:
                async with from_queue(queue, sentinel=7).stream() as items:
                    async for item in items:
                        handled.append(item)
                        await asyncio.sleep(0.1)

            try:
                await injector.run(consume())
            except asyncio.CancelledError:
                left = [queue.get_nowait() for _ in range(queue.qsize())]
                assert handled + left == [*range(8)]
            if not injector.fired:
                break

    run(main())


def test_what_is_not_an_asynchronous_queue_is_refused() -> None:
    blocking: Any = threads.Queue[int]()
    with pytest.raises(TypeError, match="not asynchronous: use from_thread"):
        _ = from_queue(blocking)
    nothing: Any = [1]
    with pytest.raises(TypeError, match="expected a queue, not 'list'"):
        _ = from_queue(nothing)


def test_an_error_of_the_queue_that_is_not_a_shutdown_is_raised() -> None:
    class Broken(asyncio.Queue[int]):
        async def get(self) -> int:
            raise OSError("gone")

    async def main() -> None:
        with pytest.raises(OSError, match="gone"):
            await timeline(from_queue(Broken()))

    run(main())
