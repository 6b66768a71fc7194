"""The ends of a stream's tasks: whatever closes or cancels it, a clean-up runs to its end."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import itertools
import math
import sys
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from decimal import Decimal, localcontext
from typing import Any

import anyio
import pytest
from returns.result import Result, Success
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
from returns_pipeline._engine import task_owner
from returns_pipeline.testing import VirtualTimeLoop, advance, run

Source = AsyncIterable[int]
Read = Callable[[Source], AsyncIterator[Any]]


async def same(n: int) -> int:
    return n


async def echo(_: object, items: AsyncIterator[int]) -> AsyncGenerator[int, None]:
    async for n in items:
        yield n


async def nothing() -> AsyncGenerator[int, None]:
    await asyncio.sleep(math.inf)
    yield 0


async def ticks() -> AsyncGenerator[int, None]:
    while True:
        yield 0
        await asyncio.sleep(0.001)


async def once(n: int) -> AsyncGenerator[Result[int, str], None]:
    yield Success(n)


def results(source: Source) -> ResultStream[int, Any]:
    return ResultStream.of(source)


# Every way in which a source is run in a task, or several.
FORMS: dict[str, Read] = {
    "chunks_or_timeout": lambda s: chunks_or_timeout.raw(s, 2, math.inf),
    "chunks_by_weight": lambda s: chunks_by_weight.raw(s, 2, math.inf, weight=lambda _: 1),
    "keyed_chunks": lambda s: keyed_chunks.raw(s, 2, math.inf, key=lambda n: n % 2),
    "sliding": lambda s: sliding.raw(s, 2),
    "sessions": lambda s: sessions.raw(s, 9.0, n=2),
    "merge": lambda s: combine.merge.raw(s, nothing()),
    "merge_prioritized": lambda s: combine.merge_prioritized.raw((1, s), (2, nothing())),
    "select": lambda s: combine.select.raw({"a": s, "b": nothing()}),
    "concat": lambda s: combine.concat.raw(s, nothing()),
    "zip": lambda s: aiter(results(s).zip(results(ticks()))),
    "take_until": lambda s: combine.take_until.raw(s, nothing()),
    "broadcast": lambda s: combine.broadcast(s, 1)[0].stream(),
    "split": lambda s: combine.split(s, lambda _: True)[0].stream(),
    "prefetch": lambda s: combine.prefetch.raw(s, 2),
    "scan": lambda s: combine.scan.raw(s, 0, lambda _, n: n),
    "throttle": lambda s: combine.throttle.raw(s, 0.001),
    "debounce": lambda s: combine.debounce.raw(s, 0.0001),
    "route": lambda s: combine.route.raw(s, lambda n: n % 2, echo),
    "map_async": lambda s: aiter(results(s).map_async(same, concurrency=2)),
    "flat_map": lambda s: aiter(results(s).flat_map(once)),
    "flat_map, concurrent": lambda s: aiter(results(s).flat_map(once, concurrency=2)),
    "two segments": lambda s: aiter(results(s).chunks_or_timeout(2, math.inf).prefetch(2)),
}
each_form = pytest.mark.parametrize("read", FORMS.values(), ids=FORMS)


async def close(reader: Any) -> None:
    with contextlib.suppress(AttributeError):
        await reader.aclose()


@each_form
def test_closing_runs_the_clean_up_once_and_to_its_end(read: Read) -> None:
    """Also in the turn in which the reader has just made room for the source."""
    watched = Watched()

    async def main() -> None:
        reader = read(watched)
        await anext(reader)
        await close(reader)
        watched.assert_clean()

    run(main())


@each_form
def test_a_cancelled_closer_waits_for_the_clean_up_however_often_it_is_cancelled(
    read: Read,
) -> None:
    watched = Watched()

    async def main() -> None:
        reader = read(watched)
        await anext(reader)
        closing = asyncio.ensure_future(close(reader))
        for n in range(5):
            await advance(0.1)
            closing.cancel(f"request {n}")
        with pytest.raises(asyncio.CancelledError, match="request 0"):
            await closing
        watched.assert_clean()

    run(main())


@each_form
def test_two_tasks_that_close_both_wait_for_the_clean_up(read: Read) -> None:
    watched = Watched()

    async def main() -> None:
        reader = read(watched)
        await anext(reader)
        await asyncio.gather(close(reader), close(reader))
        watched.assert_clean()

    run(main())


@each_form
def test_a_cancelled_anyio_scope_does_not_cut_the_clean_up_nor_spin(read: Read) -> None:
    """Anyio repeats a cancellation in every turn of the loop."""
    watched = Watched()

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        turns = 0
        one_turn = loop._run_once

        def count() -> None:
            nonlocal turns
            turns += 1
            if turns > 2000:
                raise AssertionError("the loop spins")
            one_turn()

        loop._run_once = count
        with anyio.move_on_after(0.02):
            reader = read(watched)
            try:
                async for _ in reader:
                    pass
            finally:
                await close(reader)
        watched.assert_clean()

    run(main())


@each_form
def test_a_dropped_reader_has_its_source_cleaned_up_to_the_end(read: Read) -> None:
    watched = Watched()

    async def main() -> None:
        reader = read(watched)
        await anext(reader)
        del reader
        gc.collect()
        await advance(3)
        watched.assert_clean()

    run(main())


@each_form
def test_a_reader_in_a_reference_cycle_has_its_source_cleaned_up_too(read: Read) -> None:
    """The loop refers to tasks weakly: all of it could be collected at once, the task included."""
    watched = Watched()

    class Service:
        def __init__(self) -> None:
            self.reader = read(watched)
            self.itself = self

    async def main() -> None:
        service = Service()
        await anext(service.reader)
        await advance(0.01)
        del service
        gc.collect()
        await advance(3)
        watched.assert_clean()

    run(main())


@each_form
@pytest.mark.parametrize("turns", [1, 2, 5])
def test_when_all_other_tasks_are_cancelled_the_read_ends(read: Read, turns: int) -> None:
    """Even if they were cancelled before their first step, which runs no clean-up of theirs."""

    async def main() -> None:
        reader = read(Watched())
        reading = asyncio.ensure_future(anext(reader))
        for _ in range(turns):
            await asyncio.sleep(0)
        current = asyncio.current_task()
        for task in asyncio.all_tasks():
            if task not in {current, reading}:
                task.cancel()
        _ = await asyncio.wait({reading}, timeout=10)
        assert reading.done()
        if not reading.cancelled():
            _ = reading.exception()
        await close(reader)

    run(main())


@each_form
def test_the_end_of_the_loop_does_not_cut_the_clean_up(read: Read) -> None:
    """`asyncio.run` cancels all tasks: the source's, and the reader's, which then closes it."""
    watched = Watched()

    async def consume() -> None:
        reader = read(watched)
        try:
            async for _ in reader:
                pass
        finally:
            await close(reader)

    async def main() -> asyncio.Task[None]:
        task = asyncio.ensure_future(consume())
        await asyncio.sleep(0.05)
        return task

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        task = runner.run(main())
    assert task.cancelled()
    watched.assert_clean()


@each_form
def test_a_source_that_closes_its_own_stream_is_refused(read: Read) -> None:
    """It would wait for itself."""

    async def main() -> None:
        async def source() -> AsyncGenerator[int, None]:
            for n in range(4):
                yield n
                await asyncio.sleep(0.001)
            await reader.aclose()

        reader: Any = read(source())
        with pytest.raises(RuntimeError, match="closed"):
            async for _ in reader:
                pass
        await close(reader)

    run(main())


def test_a_step_that_closes_its_own_stream_is_refused() -> None:
    async def main() -> None:
        async def step(n: int) -> int:
            await asyncio.sleep(0)
            await reader.aclose()
            return n

        reader = aiter(results(chunk()).map_async(step, concurrency=2))
        with pytest.raises(RuntimeError, match="cannot be closed by its own"):
            await anext(reader)

    async def chunk() -> AsyncGenerator[int, None]:
        yield 1
        yield 2

    run(main())


@pytest.mark.parametrize("awaited", [True, False])
def test_a_task_that_the_source_has_made_may_close_the_stream(awaited: bool) -> None:
    """Even if the source waits for it: a task group, or a supervisor."""

    async def main() -> None:
        async def source() -> AsyncGenerator[int, None]:
            task = asyncio.ensure_future(reader.aclose())
            try:
                yield 1
                if awaited:
                    await task
                await asyncio.sleep(math.inf)
            finally:
                await asyncio.wait({task}) if awaited else None

        reader: Any = combine.prefetch.raw(source(), 2)
        with contextlib.suppress(asyncio.CancelledError):
            assert [n async for n in reader] in ([], [1])
        await advance(1)

    run(main())


@each_form
def test_what_the_source_sets_in_its_context_stays_there(read: Read) -> None:
    """A context that two tasks share would leak: they interleave."""
    span = contextvars.ContextVar("span", default="root")

    async def pages() -> AsyncGenerator[int, None]:
        for n in range(5):
            token = span.set(f"fetch {n}")
            with localcontext() as rough:
                rough.prec = 3
                await asyncio.sleep(0.005)
            span.reset(token)
            yield n

    async def main() -> None:
        reader = read(pages())
        seen: set[tuple[str, str]] = set()
        for _ in range(2):
            await anext(reader)
            seen.add((span.get(), str(Decimal(1) / 3)))
            token = span.set("write")
            await asyncio.sleep(0.002)
            seen.add((span.get(), str(Decimal(1) / 3)))
            span.reset(token)
        exact = "0." + 28 * "3"
        assert seen == {("root", exact), ("write", exact)}
        await close(reader)

    run(main())


def test_each_item_of_a_concurrent_step_has_a_context_of_its_own() -> None:
    """It is the source's, as it was when the item was read; and no item sees what another sets."""
    user = contextvars.ContextVar("user", default="nobody")
    trace = contextvars.ContextVar("trace", default=-1)
    boxes: contextvars.ContextVar[list[int]] = contextvars.ContextVar("boxes")
    seen: dict[int, tuple[str, int, list[int]]] = {}

    async def source() -> AsyncGenerator[int, None]:
        for n in range(8):
            if n < 4:
                trace.set(n)
                boxes.set([])  # equal to the one before it, and another
            yield n
            await asyncio.sleep(1)

    async def step(n: int) -> int:
        boxes.get().append(n)
        seen[n] = user.get(), trace.get(), boxes.get()
        if n % 3 == 0:
            user.set("root")
        await asyncio.sleep(0.1)
        return n

    async def main() -> None:
        _ = await results(source()).map_async(step, concurrency=2).run()

    run(main())
    assert {n: (name, number) for n, (name, number, _) in seen.items()} == {
        n: ("nobody", min(n, 3)) for n in range(8)
    }
    assert [seen[n][2] for n in range(3)] == [[0], [1], [2]]


def test_a_stop_that_comes_while_a_part_is_cleaned_up_is_not_forgotten() -> None:
    """The task reads on after that part: the next stream would never end."""
    log: list[str] = []

    class Empty:
        def __aiter__(self) -> AsyncIterator[int]:
            return self

        async def __anext__(self) -> int:
            raise StopAsyncIteration

        async def aclose(self) -> None:
            await asyncio.sleep(1)
            log.append("cleaned up")

    async def main() -> None:
        reader: Any = combine.concat.raw(Empty(), nothing())
        reading = asyncio.ensure_future(anext(reader))
        await advance(0.5)
        await reader.aclose()
        assert log == ["cleaned up"]
        with pytest.raises(StopAsyncIteration):
            await reading

    run(main())


@each_form
def test_a_source_that_has_swallowed_a_cancellation_can_be_closed(read: Read) -> None:
    """As one does that has a time limit written by hand: that one does not count as a request."""

    async def source() -> AsyncGenerator[int, None]:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_later(0.001, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(math.inf)
        for n in range(6):
            yield n
            await asyncio.sleep(0.001)
        await asyncio.sleep(math.inf)

    async def main() -> None:
        reader = read(source())
        for _ in range(2):
            await anext(reader)
        await advance(1)
        closing = asyncio.ensure_future(close(reader))
        await asyncio.wait({closing}, timeout=10)  # `wait_for` would wait for as long as it does
        assert closing.done()

    run(main())


def test_the_error_of_a_clean_up_without_a_waiting_task_is_reported_to_the_loop() -> None:
    async def dirty() -> AsyncGenerator[int, None]:
        try:
            yield 1
            await asyncio.sleep(math.inf)
        finally:
            raise OSError("dirty")

    async def main() -> None:
        reported: list[Any] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
        reads: list[Read] = [FORMS["prefetch"], FORMS["broadcast"]]
        for read in reads:
            reader: Any = read(dirty())
            await anext(reader)
            del reader
            gc.collect()
            await advance(1)
        assert [str(error) for error in reported] == ["dirty", "dirty"]

    run(main())


# A part of what such a task held is closed without a loop.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_tasks_of_loops_that_were_closed_under_them_do_not_pile_up() -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(ignore)
        kept.append(asyncio.ensure_future(anext(combine.prefetch.raw(nothing(), 2))))
        await asyncio.sleep(0)

    def ignore(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        pass

    kept: list[Any] = []
    owners: dict[Any, Any] = vars(task_owner)["_owners"]
    vars(task_owner)["_forget_closed_loops"]()  # those of tests before this one
    for _ in range(200):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        loop.close()
        kept.clear()
        assert len(owners) < 150
    vars(task_owner)["_forget_closed_loops"]()
    gc.collect()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")
@each_form
def test_every_operator_works_with_eager_tasks(read: Read) -> None:
    """`create_task` then runs a task before it returns."""

    async def at_once() -> AsyncGenerator[int, None]:
        for n in range(6):
            yield n

    async def main() -> None:
        loop = asyncio.get_running_loop()
        expected = await first(read(Watched()))
        loop.set_task_factory(vars(asyncio)["eager_task_factory"])
        watched = Watched()
        assert await first(read(watched)) == expected
        watched.assert_clean()
        assert await first(read(at_once())) is not None

    async def first(reader: AsyncIterator[Any]) -> object:
        try:
            return await anext(reader)
        finally:
            await close(reader)

    run(main())


def refuse(n: int) -> int:
    if n == 1:
        raise ValueError("a step")
    return n


async def refuse_async(n: int) -> int:
    return refuse(n)


FAILING: dict[str, Read] = {
    "chunks_by_weight": lambda s: chunks_by_weight.raw(s, 2, math.inf, weight=refuse),
    "keyed_chunks": lambda s: keyed_chunks.raw(s, 1, math.inf, key=refuse),
    "scan": lambda s: combine.scan.raw(s, 0, lambda _, n: refuse(n)),
    "distinct": lambda s: combine.distinct_until_changed.raw(s, refuse),
    "route": lambda s: combine.route.raw(s, refuse, echo),
    "split": lambda s: combine.split(s, lambda n: refuse(n) > 0)[0].stream(),
    "map_async": lambda s: aiter(results(s).map_async(refuse_async, concurrency=2)),
    "before a window": lambda s: combine.prefetch.raw(results(s).map(refuse), 2),
}


@pytest.mark.parametrize("read", FAILING.values(), ids=FAILING)
def test_closing_does_not_cut_the_clean_up_that_a_failing_step_has_begun(read: Read) -> None:
    watched = Watched()

    async def main() -> None:
        reader = read(watched)
        reading = asyncio.ensure_future(read_all(reader))
        await advance(0.5)
        assert watched.log == ["opened", "clean-up begun"]
        with contextlib.suppress(ValueError):
            await close(reader)
        watched.assert_clean()
        with contextlib.suppress(ValueError):
            await reading

    async def read_all(reader: AsyncIterator[Any]) -> None:
        async for _ in reader:
            pass

    run(main())


# Over a source that never suspends.
STARVED = ["chunks_or_timeout", "keyed_chunks", "sliding", "merge", "prefetch", "scan"]


@pytest.mark.parametrize("name", STARVED)
def test_a_pump_that_waits_for_nothing_but_its_reader_is_not_collected(name: str) -> None:
    """No timer refers to it: without its owner, the task would be destroyed with the reader."""
    log: list[str] = []

    async def endless() -> AsyncGenerator[int, None]:
        try:
            for n in itertools.count():
                yield n
        finally:
            log.append("clean-up begun")
            await asyncio.sleep(0.1)
            log.append("clean-up done")

    class Service:
        def __init__(self) -> None:
            self.reader = FORMS[name](endless())
            self.itself = self

    async def main() -> None:
        service = Service()
        await anext(service.reader)
        await advance(0.01)
        del service
        gc.collect()
        await advance(3)
        assert log == ["clean-up begun", "clean-up done"]

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")
def test_an_eager_task_that_ends_at_once_does_not_end_the_stream() -> None:
    async def empty() -> AsyncGenerator[int, None]:
        for n in list[int]():
            yield n

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(vars(asyncio)["eager_task_factory"])
        assert [n async for n in combine.merge.raw(empty(), once_plain())] == [1]

    async def once_plain() -> AsyncGenerator[int, None]:
        await asyncio.sleep(1)
        yield 1

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")
def test_an_eager_source_cannot_close_its_own_stream_while_that_is_started() -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(vars(asyncio)["eager_task_factory"])

        async def source() -> AsyncGenerator[int, None]:
            with pytest.raises(RuntimeError, match="closed by its own source"):
                await reader.aclose()
            yield 1

        reader: Any = combine.merge.raw(source())
        assert [n async for n in reader] == [1]

    run(main())


def test_the_source_is_closed_after_the_work_even_if_some_workers_are_idle() -> None:
    """The work may use what the source has open: a session, a connection."""
    log: list[str] = []

    class Numbers:
        def __init__(self) -> None:
            self.left = [2, 1, 0]

        def __aiter__(self) -> AsyncIterator[int]:
            return self

        async def __anext__(self) -> int:
            if not self.left:
                await asyncio.sleep(1)
                raise OSError("the source")
            return self.left.pop()

        async def aclose(self) -> None:
            log.append("source closed")

    async def step(n: int) -> int:
        if n == 2:
            try:
                await asyncio.sleep(math.inf)
            finally:
                await asyncio.sleep(1)
                log.append("work cleaned up")
        return n

    async def main() -> None:
        with pytest.raises(OSError, match="the source"):
            await results(Numbers()).map_async(step, concurrency=4).run()

    run(main())
    assert log == ["work cleaned up", "source closed"]
