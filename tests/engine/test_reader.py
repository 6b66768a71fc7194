"""The base of every operator with a task of its own: the pump, its reader, and the waiting."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import math
import sys
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from returns_pipeline import combine
from returns_pipeline._engine.cancellation import wait_done
from returns_pipeline._engine.operator import plain_iterator
from returns_pipeline._engine.reader import Pump, Reader, checkpoint
from returns_pipeline.testing import VirtualTimeLoop, advance, run

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Coroutine

T = TypeVar("T")


class Through(Pump[T]):
    """The simplest pump: reads as fast as the source yields, emits one by one."""

    def __init__(self, source: AsyncIterable[T], *, turns: bool = False) -> None:
        super().__init__()
        self.source = source
        self.items: deque[T] = deque()
        self.turns = turns

    def sources(self) -> tuple[AsyncIterable[T]]:
        return (self.source,)

    async def pump(self) -> None:
        async with plain_iterator(self.source) as items:
            async for item in items:
                self.items.append(item)
                self.notify_reader()
                if self.turns:
                    self.yielding = True
                    await checkpoint()
                    self.yielding = False

    def has_next(self) -> bool:
        return bool(self.items)

    def take(self) -> T:
        return self.items.popleft()

    def discard(self) -> None:
        self.items.clear()


def now() -> float:
    return asyncio.get_running_loop().time()


async def numbers(count: int, delay: float = 0.0) -> AsyncIterator[int]:
    for number in range(count):
        await asyncio.sleep(delay)
        yield number


@pytest.mark.parametrize("turns", [False, True])
def test_what_the_pump_has_is_emitted_in_order_and_then_the_end_again_and_again(
    turns: bool,
) -> None:
    async def main() -> None:
        reader = Reader(Through(numbers(5), turns=turns))
        assert aiter(reader) is reader
        assert [item async for item in reader] == [0, 1, 2, 3, 4]
        for _ in range(2):
            with pytest.raises(StopAsyncIteration):
                await anext(reader)
        await reader.aclose()

    run(main())


def test_nothing_starts_before_the_first_read() -> None:
    opened = []

    async def source() -> AsyncIterator[int]:
        opened.append(now())
        yield 1

    async def main() -> None:
        reader = Reader(Through(source()))
        await advance(5)
        assert opened == []
        assert await anext(reader) == 1
        assert opened == [5.0]
        await reader.aclose()

    run(main())


def test_a_reader_closed_before_its_first_read_never_opens_its_source() -> None:
    async def main() -> None:
        opened = []

        async def source() -> AsyncIterator[int]:
            opened.append(1)
            yield 1

        reader = Reader(Through(source()))
        await reader.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(reader)
        assert opened == []

    run(main())


def test_the_error_of_the_source_comes_once_after_what_is_held() -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        yield 2
        raise KeyError("source")

    async def main() -> None:
        reader = Reader(Through(source()))
        assert [await anext(reader), await anext(reader)] == [1, 2]
        with pytest.raises(KeyError, match="source"):
            await anext(reader)
        with pytest.raises(StopAsyncIteration):
            await anext(reader)
        await reader.aclose()

    run(main())


def test_an_error_that_was_raised_keeps_nothing_alive() -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        raise KeyError("source")

    async def main() -> None:
        pump = Through(source())
        reader = Reader(pump)
        assert await anext(reader) == 1
        with pytest.raises(KeyError):
            await anext(reader)
        assert pump.error is None
        dropped = weakref.ref(reader)
        del reader
        assert dropped() is None

    gc.disable()  # references alone must do it
    try:
        run(main())
    finally:
        gc.enable()


def test_an_error_of_the_source_that_was_not_read_up_to_is_not_raised_by_closing() -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        raise KeyError("never read up to")

    async def main() -> None:
        reader = Reader(Through(source()))
        assert await anext(reader) == 1
        await advance(1)
        await reader.aclose()

    run(main())


def test_an_error_in_the_clean_up_of_a_closed_source_is_raised_by_the_first_task_that_closes() -> (
    None
):
    async def source() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(math.inf)
        finally:
            raise OSError("clean-up")

    async def main() -> None:
        reader = Reader(Through(source()))
        assert await anext(reader) == 1
        with pytest.raises(OSError, match="clean-up"):
            await reader.aclose()
        await reader.aclose()

    run(main())


class Noting(Through[int]):
    """Has an error of its own, and one more while it cleans up."""

    def __init__(self, first: BaseException, then: BaseException) -> None:
        super().__init__(numbers(0))
        self.errors = first, then

    async def pump(self) -> None:
        first, then = self.errors
        self.finish(first)
        raise then


def test_what_would_look_like_a_clean_end_is_an_error_that_names_it() -> None:
    """As in an async generator: only the source itself ends by `StopAsyncIteration`."""

    class Stepping(Through[int]):
        async def pump(self) -> None:
            await super().pump()
            raise StopAsyncIteration

    async def main() -> None:
        reader = Reader(Stepping(numbers(2)))
        assert [await anext(reader), await anext(reader)] == [0, 1]
        with pytest.raises(RuntimeError, match="a step raised StopAsyncIteration") as caught:
            await anext(reader)
        assert isinstance(caught.value.__cause__, StopAsyncIteration)
        with pytest.raises(StopAsyncIteration):
            await anext(reader)

    run(main())


def test_a_second_error_is_noted_on_the_first() -> None:
    async def main() -> None:
        reader = Reader(Noting(KeyError("first"), OSError("then")))
        with pytest.raises(KeyError, match="first") as caught:
            await anext(reader)
        assert caught.value.__notes__ == [
            "while the stream was being stopped, OSError('then') was raised"
        ]

    run(main())


def test_the_same_error_again_or_a_cancellation_is_not_worth_a_note() -> None:
    async def main() -> None:
        error = KeyError("only")
        for then in error, asyncio.CancelledError():
            with pytest.raises(KeyError, match="only") as caught:
                await anext(Reader(Noting(error, then)))
            assert not hasattr(caught.value, "__notes__")

    run(main())


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_ends_the_loop_at_once(error: type[BaseException]) -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        raise error

    async def main() -> None:
        reader = Reader(Through(source()))
        assert await anext(reader) == 1
        await asyncio.sleep(math.inf)

    with pytest.raises(error):
        run(main())


def test_closing_waits_for_the_clean_up_also_when_another_task_has_begun_it() -> None:
    async def source() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(math.inf)
        finally:
            await asyncio.sleep(3)

    async def main() -> None:
        reader = Reader(Through(source()))
        assert await anext(reader) == 1
        closed_at = []

        async def close() -> None:
            await reader.aclose()
            closed_at.append(now())

        await asyncio.gather(close(), close())
        await reader.aclose()
        assert closed_at == [3.0, 3.0]

    run(main())


@pytest.mark.parametrize("turns", [False, True])
def test_closing_ends_a_read_that_waits_in_another_task(turns: bool) -> None:
    async def main() -> None:
        reader = Reader(Through(numbers(9, delay=5.0), turns=turns))
        read = asyncio.ensure_future(anext(reader, "the end"))
        await advance(1)
        await reader.aclose()
        assert await read == "the end"
        assert now() == 1.0

    run(main())


def test_closing_ends_a_read_whose_pump_has_not_made_its_first_step() -> None:
    async def main() -> None:
        reader = Reader(Through(numbers(9)))
        read = asyncio.ensure_future(anext(reader, "the end"))
        await checkpoint()
        await reader.aclose()
        assert await read == "the end"

    run(main())


def test_closing_ends_a_read_that_waits_for_one_turn_only() -> None:
    async def main() -> None:
        reader = Reader(Through(numbers(9), turns=True))
        assert await anext(reader) == 0
        read = asyncio.ensure_future(anext(reader, "the end"))
        await checkpoint()  # the read has begun, and its pump's turn is not over
        await reader.aclose()
        assert await read in {1, "the end"}
        assert await anext(reader, "the end") == "the end"

    run(main())


@pytest.mark.parametrize("turns", [False, True])
def test_a_second_read_at_once_is_an_error_and_does_no_harm(turns: bool) -> None:
    async def main() -> None:
        reader = Reader(Through(numbers(3, delay=1.0), turns=turns))
        for expected in range(3):
            first = asyncio.ensure_future(anext(reader))
            await checkpoint()
            with pytest.raises(RuntimeError, match="another task is reading"):
                await anext(reader)
            assert await first == expected
        await reader.aclose()

    run(main())


@pytest.mark.parametrize("turns", [False, True])
def test_a_read_cancelled_after_any_number_of_turns_loses_nothing(turns: bool) -> None:
    async def main() -> None:
        for turns_until_cancelled in range(12):
            reader = Reader(Through(numbers(6), turns=turns))
            got = []
            while True:
                read = asyncio.ensure_future(anext(reader, None))
                for _ in range(turns_until_cancelled):
                    await checkpoint()
                read.cancel()
                await asyncio.wait({read})
                if read.cancelled():
                    turns_until_cancelled += 1  # noqa: PLW2901  # a little later each time
                elif (item := read.result()) is None:
                    break
                else:
                    got.append(item)
            assert got == [0, 1, 2, 3, 4, 5]

    run(main())


def test_a_pump_that_runs_on_costs_its_reader_no_future() -> None:
    class Counting(asyncio.SelectorEventLoop):
        futures = 0

        def create_future(self) -> asyncio.Future[Any]:
            self.futures += 1
            return super().create_future()

    async def main() -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Counting)

        async def source() -> AsyncIterator[int]:
            for number in range(1000):
                yield number

        reader = Reader(Through(source(), turns=True))
        before = loop.futures
        assert [item async for item in reader] == list(range(1000))
        return loop.futures - before

    with asyncio.Runner(loop_factory=Counting) as runner:
        assert runner.run(main()) <= 2


def test_a_pump_that_does_not_run_on_after_its_turn_leaves_its_reader_asleep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A reader that kept taking turns would use a whole core until the next item."""

    async def main() -> None:
        async def source() -> AsyncIterator[int]:
            yield 0
            await asyncio.sleep(1000)
            yield 1

        reader = Reader(Through(source(), turns=True))
        assert await anext(reader) == 0
        read = asyncio.ensure_future(anext(reader))
        await advance(1)
        loop = asyncio.get_running_loop()
        scheduled = 0
        call_soon = loop.call_soon

        def counting(*args: Any, **kwargs: Any) -> asyncio.Handle:
            nonlocal scheduled
            scheduled += 1
            return call_soon(*args, **kwargs)

        monkeypatch.setattr(loop, "call_soon", counting)
        await asyncio.sleep(900)
        assert scheduled <= 2  # this test's own
        assert await read == 1
        await reader.aclose()

    run(main())


def test_a_reader_does_not_spin_while_a_pump_that_was_to_run_on_is_stopped_instead() -> None:
    class Limited(VirtualTimeLoop):
        rounds = 0

        def _run_once(self) -> None:
            self.rounds += 1
            assert self.rounds < 1000, "the loop spins"
            super()._run_once()  # type: ignore[misc]

    async def main(turns: int) -> None:
        async def source() -> AsyncIterator[int]:
            try:
                while True:
                    yield 0
            finally:
                await asyncio.sleep(3)

        async def read(reader: Reader[int]) -> None:
            async for _ in reader:
                pass

        reader = Reader(Through(source(), turns=True))
        reading = asyncio.create_task(read(reader))
        for _ in range(turns):
            await checkpoint()
        await reader.aclose()
        await reading

    for turns in range(12):
        with asyncio.Runner(loop_factory=Limited) as runner:
            runner.run(main(turns))


def dropped_source(closed: list[int]) -> AsyncIterator[int]:
    async def source() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
                await asyncio.sleep(10)
        finally:
            closed.append(1)

    return source()


def test_a_dropped_reader_stops_its_pump() -> None:
    async def main() -> None:
        closed: list[int] = []
        reader = Reader(Through(dropped_source(closed)))
        assert await anext(reader) == 1
        del reader
        gc.collect()
        await advance(0.1)
        assert closed == [1]

    run(main())


def test_a_reader_dropped_in_another_thread_stops_its_pump() -> None:
    async def main() -> None:
        closed: list[int] = []
        readers = [Reader(Through(dropped_source(closed)))]
        assert await anext(readers[0]) == 1
        asyncio.get_running_loop().set_debug(True)  # so that it minds the thread
        thread = threading.Thread(target=readers.clear)
        thread.start()
        thread.join()
        gc.collect()
        await advance(0.1)
        assert closed == [1]

    run(main())


def test_a_reader_dropped_unread_or_at_its_end_is_silent() -> None:
    async def main() -> None:
        unread = Reader(Through(numbers(1)))
        del unread
        read = Reader(Through(numbers(1)))
        assert [item async for item in read] == [0]
        del read
        gc.collect()

    run(main())


def test_a_reader_that_outlives_its_loop_is_dropped_silently() -> None:
    async def main() -> Reader[int]:
        async def source() -> AsyncIterator[int]:
            yield 0
            await asyncio.sleep(1000)

        reader = Reader(Through(source()))
        assert await anext(reader) == 0
        return reader

    with asyncio.Runner() as runner:
        readers = [runner.get_loop().run_until_complete(main())]
    readers.clear()
    gc.collect()


def test_the_source_runs_in_a_copy_of_the_context_of_its_first_reader() -> None:
    var = contextvars.ContextVar("var", default="unset")

    async def source() -> AsyncIterator[str]:
        yield var.get()
        var.set("by the source")
        yield var.get()

    async def main() -> None:
        var.set("by the reader")
        assert [item async for item in Reader(Through(source()))] == [
            "by the reader",
            "by the source",
        ]
        assert var.get() == "by the reader"

    run(main())


def test_a_read_that_a_callback_begins_outside_of_any_task_works_too() -> None:
    async def main() -> None:
        reader = Reader(Through(numbers(2)))
        asyncio.get_running_loop().call_soon(begin_and_give_up, reader)
        await advance(1)
        assert [item async for item in reader] == [0, 1]

    def begin_and_give_up(reader: Reader[int]) -> None:
        read = reader.__anext__()
        read.send(None)
        read.close()

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")
def test_eager_tasks_work_on_a_copy_of_the_context() -> None:
    var = contextvars.ContextVar("var", default="unset")

    async def source() -> AsyncIterator[str]:
        yield var.get()
        var.set("by the source")
        await asyncio.sleep(1)
        yield var.get()

    async def main() -> None:
        factory: Any = getattr(asyncio, "eager_task_factory", None)
        asyncio.get_running_loop().set_task_factory(factory)
        var.set("by the reader")
        assert [item async for item in Reader(Through(source()))] == [
            "by the reader",
            "by the source",
        ]
        assert var.get() == "by the reader"

    run(main())


def test_a_turn_lets_everything_that_is_ready_run_once() -> None:
    async def main() -> None:
        seen: list[str] = []
        loop = asyncio.get_running_loop()
        loop.call_soon(seen.append, "ready")
        loop.call_soon(loop.call_soon, seen.append, "made ready by it")
        await checkpoint()
        assert seen == ["ready"]
        await checkpoint()
        assert seen == ["ready", "made ready by it"]

    run(main())


@pytest.mark.not_eager  # the first turn would end at once
def test_a_turn_can_be_cancelled() -> None:
    async def main() -> None:
        seen = []

        async def take_turns() -> None:
            for count in range(9):
                seen.append(count)
                await checkpoint()

        task = asyncio.create_task(take_turns())
        await checkpoint()
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert seen == [0]

    run(main())


async def cleaning_up(log: list[str], seconds: float) -> None:
    """Take time to end; a second cancellation cuts it short."""
    try:
        await asyncio.sleep(math.inf)
    finally:
        try:
            await asyncio.sleep(seconds)
            log.append("clean")
        except asyncio.CancelledError:
            log.append("cut short")
            raise


async def cancelled(steps: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    task = asyncio.create_task(steps)
    await checkpoint()
    task.cancel()
    return task


def test_waiting_ends_with_the_clean_up_and_raises_nothing_of_the_task() -> None:
    async def main() -> None:
        log: list[str] = []
        task = await cancelled(cleaning_up(log, 3.0))
        await wait_done(task)
        assert (log, now(), task.cancelled()) == (["clean"], 3.0, True)
        await wait_done(task)  # at once

    run(main())


def test_waiting_keeps_a_cancellation_from_the_clean_up_and_raises_it_when_the_task_is_done() -> (
    None
):
    async def main() -> None:
        log: list[str] = []
        task = await cancelled(cleaning_up(log, 10.0))
        waiting = asyncio.create_task(wait_done(task))
        await advance(2)
        waiting.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await waiting
        assert (log, now()) == (["clean"], 10.0)
        assert task.done()

    run(main())


def test_waiting_withstands_any_number_of_cancellations() -> None:
    async def stubborn() -> None:
        for _ in range(4):
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                await asyncio.sleep(0)

    async def main() -> None:
        task = asyncio.create_task(stubborn())
        waiting = asyncio.create_task(wait_done(task))
        for _ in range(3):
            await advance(1)
            waiting.cancel()
            assert not waiting.done()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert task.done()
        assert now() == 40.0

    run(main())


def test_waiting_leaves_no_callback_on_a_task_that_outlasts_it() -> None:
    """Each cancelled wait takes its callback back, or they would pile up."""

    async def main() -> None:
        async def stubborn() -> None:
            for _ in range(100):
                try:
                    await asyncio.sleep(10)
                except asyncio.CancelledError:
                    continue

        task: Any = asyncio.create_task(stubborn())
        waiting = asyncio.create_task(wait_done(task))
        for _ in range(50):
            await advance(0.1)
            waiting.cancel()
        await advance(0.1)
        assert len(task._callbacks) == 1
        for _ in range(60):
            task.cancel()
            await advance(0.1)
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run(main())


async def fails_to_close(after: float) -> AsyncGenerator[int, None]:
    try:
        yield 0
        await asyncio.sleep(math.inf)
    finally:
        await asyncio.sleep(after)
        raise OSError(after)


async def closes_late() -> AsyncGenerator[int, None]:
    try:
        yield 0
        await asyncio.sleep(math.inf)
    finally:
        await asyncio.sleep(1)


def test_a_second_close_does_not_drop_the_error_that_a_clean_up_has_raised_before_it() -> None:
    async def main() -> None:
        reader: Any = combine.merge.raw(fails_to_close(0.2), closes_late())
        await anext(reader)
        await anext(reader)
        first = asyncio.ensure_future(reader.aclose())
        await advance(0.5)
        await reader.aclose()
        with pytest.raises(OSError, match=r"0\.2"):
            await first

    run(main())


@pytest.mark.parametrize("cancels_second", [True, False])
def test_the_error_of_a_clean_up_is_the_first_closers_whichever_of_two_continues_first(
    cancels_second: bool,
) -> None:
    """A closer that is cancelled is notified after those that are not."""

    async def main() -> None:
        reader: Any = combine.merge.raw(fails_to_close(1))
        await anext(reader)
        first = asyncio.ensure_future(reader.aclose())
        await advance(0.1)
        second = asyncio.ensure_future(reader.aclose())
        await advance(0.1)
        if cancels_second:
            second.cancel()
            await advance(0.1)
        first.cancel()
        _ = await asyncio.wait({first, second})
        with pytest.raises(asyncio.CancelledError) as cancelled:
            first.result()
        assert isinstance(cancelled.value.__cause__, OSError)
        if cancels_second:
            with pytest.raises(asyncio.CancelledError) as cancelled:
                second.result()
            assert cancelled.value.__cause__ is None
        else:
            second.result()

    run(main())
