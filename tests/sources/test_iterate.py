"""`iterate`: a stream read from synchronous code."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from returns.result import Success

from returns_pipeline import ResultStream
from returns_pipeline.sources import from_iterable, iterate, ticks
from returns_pipeline.testing import VirtualTimeLoop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Numbers:
    """A source that notes what becomes of it."""

    def __init__(self, until: int = 10, pause: float = 0.0, clean_up: float = 0.0) -> None:
        self.until = until
        self.pause = pause
        self.clean_up = clean_up
        self.asked = 0
        self.opened = 0
        self.closed = 0

    async def __aiter__(self) -> AsyncIterator[int]:
        self.opened += 1
        try:
            for number in range(self.until):
                self.asked += 1
                await asyncio.sleep(self.pause)
                yield number
        finally:
            await asyncio.sleep(self.clean_up)
            self.closed += 1


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "iterate"]


def test_all_items_come_in_order_and_the_thread_ends_with_the_stream() -> None:
    source = Numbers()
    items = iterate(ResultStream.of(source).map(str))
    assert source.opened == 0
    assert list(items) == [Success(str(number)) for number in range(10)]
    assert (source.opened, source.closed) == (1, 1)
    assert threads() == []
    assert list(items) == []
    items.close()


def test_nothing_is_read_that_was_not_asked_for() -> None:
    source = Numbers()
    with iterate(source) as items:
        assert next(items) == 0
        time.sleep(0.05)
        assert source.asked == 1
        assert next(items) == 1
    assert source.closed == 1
    assert list(items) == []


def test_closing_waits_for_the_clean_up_and_the_thread() -> None:
    source = Numbers(clean_up=0.05)
    with iterate(source) as items:
        assert next(items) == 0
    assert source.closed == 1
    assert threads() == []
    unread = iterate(source)
    unread.close()
    assert source.opened == 1


def test_an_iteration_that_is_dropped_is_closed() -> None:
    source = Numbers()
    for item in iterate(source):
        assert item == 0
        break
    gc.collect()
    for thread in threads():
        thread.join(5)
    assert source.closed == 1


def test_an_error_is_raised_once_and_that_of_the_clean_up_by_close() -> None:
    async def failing() -> AsyncIterator[int]:
        yield 1
        raise ZeroDivisionError

    items = iterate(failing())
    assert next(items) == 1
    with pytest.raises(ZeroDivisionError):
        next(items)
    assert list(items) == []
    assert threads() == []

    async def unclean() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            raise ValueError("in the clean-up")

    cleaning = iterate(unclean())
    assert next(cleaning) == 1
    with pytest.raises(ValueError, match="in the clean-up"):
        cleaning.close()
    cleaning.close()


def test_closing_from_another_thread_ends_a_call_that_waits() -> None:
    source = Numbers(pause=60)
    items = iterate(source)
    timer = threading.Timer(0.05, items.close)
    timer.start()
    assert list(items) == []
    timer.join()
    assert source.closed == 1


def test_closing_while_the_thread_starts_ends_both() -> None:
    starts = threading.Event()

    def slow_to_make() -> asyncio.AbstractEventLoop:
        starts.set()
        time.sleep(0.05)
        return asyncio.new_event_loop()

    def close() -> None:
        starts.wait()
        items.close()

    source = Numbers(until=3)
    items = iterate(source, loop_factory=slow_to_make)
    closing = threading.Thread(target=close, daemon=True)
    closing.start()
    assert list(items) in ([], [0], [0, 1], [0, 1, 2])
    closing.join(10)
    assert not closing.is_alive()
    assert source.opened == source.closed
    assert threads() == []


def test_a_clean_up_that_has_begun_is_not_cut_off_by_closing_again() -> None:
    source = Numbers(clean_up=0.1)
    items = iterate(source)
    assert next(items) == 0
    timers = [threading.Timer(0.03 * n, items.close) for n in range(3)]
    for timer in timers:
        timer.start()
    items.close()
    assert source.closed == 1
    for timer in timers:
        timer.join()


def test_the_stream_runs_in_a_copy_of_the_callers_context() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    async def source() -> AsyncIterator[str]:
        yield variable.get()
        variable.set("changed")
        yield variable.get()

    variable.set("caller")
    assert list(iterate(source())) == ["caller", "changed"]
    assert variable.get() == "caller"


def test_a_thread_with_a_running_loop_has_to_say_that_it_may_be_blocked() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="use `async for`, or pass iterate"):
            iterate(from_iterable([1]))
        assert list(iterate(from_iterable([1, 2]), blocks_loop=True)) == [1, 2]
        assert list(await asyncio.to_thread(lambda: list(iterate(from_iterable([3]))))) == [3]
        with pytest.raises(RuntimeError, match="would block the event loop"):
            next(made_outside)

    made_outside = iterate(from_iterable([1]))
    asyncio.run(main())
    assert list(made_outside) == [1]


def test_a_second_thread_is_refused_while_one_reads() -> None:
    items = iterate(Numbers(until=1, pause=0.2))
    reading = threading.Thread(target=next, args=(items,))
    reading.start()
    time.sleep(0.05)
    with pytest.raises(RuntimeError, match="another thread is reading"):
        next(items)
    reading.join()
    items.close()


def test_a_stream_that_closes_itself_gets_an_error() -> None:
    async def source() -> AsyncIterator[int]:
        with pytest.raises(RuntimeError, match="closed by its own source"):
            items.close()
        yield 1

    items: Any = iterate(source())
    assert next(items) == 1
    items.close()


def test_its_loop_may_be_one_of_virtual_time() -> None:
    began = time.monotonic()
    hours = iterate(ticks(3600)[:24], loop_factory=VirtualTimeLoop)
    assert list(hours) == [*range(1, 25)]
    assert time.monotonic() - began < 60


def test_a_loop_that_cannot_be_made_is_an_error_of_the_first_call() -> None:
    def no_loop() -> asyncio.AbstractEventLoop:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        next(iterate(from_iterable([1]), loop_factory=no_loop))


def test_what_is_not_a_stream_is_refused_at_the_call() -> None:
    with pytest.raises(TypeError, match="expected an async iterable"):
        iterate([1])  # type: ignore[arg-type]


PROGRAM = """
import asyncio, sys
from returns_pipeline.sources import iterate

async def source():
    try:
        yield 1
        print("waits", flush=True)
        await asyncio.sleep({pause})
        yield 2
    finally:
        await asyncio.sleep(0.05)
        print("cleaned up", flush=True)

items = iterate(source())
try:
    for item in items:
        print(item, flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    {then}
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(
    ("pause", "then", "after"),
    [
        (60, "pass", ["interrupted", "cleaned up"]),
        (60, "items.close(); print('closed')", ["interrupted", "cleaned up", "closed"]),
        (0.6, "print(*items)", ["interrupted", "cleaned up", "2"]),
        (60, "raise", ["interrupted", "cleaned up"]),
    ],
    ids=["end", "close", "continue", "raise"],
)
def test_an_interrupt_loses_nothing_and_the_clean_up_runs(
    pause: float, then: str, after: list[str]
) -> None:
    command = [sys.executable, "-c", PROGRAM.format(pause=pause, then=then)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as made:
        assert made.stdout
        assert [made.stdout.readline() for _ in range(2)] == ["1\n", "waits\n"]
        time.sleep(0.1)
        made.send_signal(signal.SIGINT)
        out, _ = made.communicate(timeout=30)
    assert out.splitlines() == after


def test_close_ends_although_the_source_swallows_the_cancellation_and_continues() -> None:
    waiting = threading.Event()

    async def stubborn() -> AsyncIterator[int]:
        yield 0
        while True:
            waiting.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                yield 1

    items = iterate(stubborn())
    assert next(items) == 0
    reading = threading.Thread(target=list, args=(items,))
    reading.start()
    assert waiting.wait(30)
    closing = threading.Thread(target=items.close, daemon=True)
    closing.start()
    closing.join(30)
    assert not closing.is_alive()
    reading.join()


def test_a_stream_that_tries_to_close_its_own_iterator_is_not_cut_short() -> None:
    refused: list[str] = []

    async def source() -> AsyncIterator[int]:
        for number in range(4):
            if number == 2:
                try:
                    items.close()
                except RuntimeError as error:
                    refused.append(str(error))
            yield number

    items = iterate(source())
    assert list(items) == [0, 1, 2, 3]
    assert refused == ["a stream cannot be closed by its own source or step"]
