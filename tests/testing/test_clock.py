"""The virtual clock, what it waits for, and the leaks that `run` finds."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import logging
import math
import queue
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine
from contextlib import aclosing, contextmanager, suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.future import FutureResult
from returns.io import IOFailure, IOSuccess

import returns_pipeline.testing
from returns_pipeline import InvalidArgument, chunks_or_timeout
from returns_pipeline.testing import (
    Deadlock,
    LeakedTasks,
    VirtualTimeLoop,
    advance,
    pause_clock,
    run,
    script,
)
from returns_pipeline.testing import _clock as clock
from returns_pipeline.testing import _external_io as external_io

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator
    from pathlib import Path


def now() -> float:
    return asyncio.get_running_loop().time()


# The clock


def test_time_starts_at_zero_and_jumps_to_each_timer_exactly() -> None:
    async def main() -> list[float]:
        seen = [now()]
        for seconds in (0.1, 0.2, 3600, 1e-7):
            await asyncio.sleep(seconds)
            seen.append(now())
        return seen

    assert run(main()) == [0.0, 0.1, 0.1 + 0.2, 0.1 + 0.2 + 3600, 0.1 + 0.2 + 3600 + 1e-7]


def test_no_real_time_passes() -> None:
    begun = time.monotonic()
    run(asyncio.sleep(10**7))
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("days", [1, 400, 40_000, 10**9])
def test_the_clock_continues_however_late_it_is(days: int) -> None:
    """A resolution of 1 ns makes no difference to a clock that shows years: it spun forever."""

    async def main() -> float:
        for _ in range(3):
            await asyncio.sleep(days * 86400)
        return now()

    assert run(main()) == days * 86400 * 3


def test_timers_of_one_time_fire_in_the_order_in_which_they_were_set() -> None:
    async def main() -> list[int]:
        seen: list[int] = []
        loop = asyncio.get_running_loop()
        for number in range(20):
            loop.call_at(5, seen.append, number)
        await advance(5)
        return seen

    assert run(main()) == list(range(20))


def test_a_jump_is_time_in_which_nothing_runs() -> None:
    async def main() -> list[float]:
        seen: list[float] = []
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        for when in (1, 2, 30):
            loop.call_at(when, lambda: seen.append(now()))
        loop.jump(10)
        assert (now(), seen) == (10.0, [])
        await asyncio.sleep(100)
        with pytest.raises(InvalidArgument, match="seconds"):
            loop.jump(-1)
        return seen

    assert run(main()) == [10.0, 10.0, 30.0]


def test_a_cancelled_timer_does_not_hold_the_clock_up() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        for number in range(300):
            loop.call_later(number, pytest.fail).cancel()
        await asyncio.sleep(1000)
        return now()

    assert run(main()) == 1000.0


def test_two_runs_have_nothing_to_do_with_each_other() -> None:
    assert run(asyncio.sleep(5, "a")) == "a"

    async def main() -> float:
        return now()

    assert run(main()) == 0.0


@given(st.lists(st.floats(0, 1e6), max_size=20))
def test_any_timers_fire_at_their_own_times_in_their_order(times: list[float]) -> None:
    async def main() -> list[tuple[float, float]]:
        seen: list[tuple[float, float]] = []
        loop = asyncio.get_running_loop()

        def fire(when: float) -> None:
            seen.append((when, now()))

        for when in times:
            loop.call_at(when, fire, when)
        await asyncio.sleep(1e6)
        return seen

    seen = run(main())
    assert [when for when, _ in seen] == sorted(times)
    assert all(at == pytest.approx(when, abs=1e-8) for when, at in seen)


# advance()


def test_advance_runs_all_that_is_due_until_then_with_all_that_it_sets_off() -> None:
    """Also work in hundreds of steps, in new tasks, and timers set for the same instant."""

    async def cascade(log: list[str]) -> None:
        await asyncio.sleep(2)
        for _ in range(500):
            await asyncio.sleep(0)
        await asyncio.create_task(asyncio.sleep(0))
        asyncio.get_running_loop().call_later(0, log.append, "timer")
        log.append("task")
        await asyncio.sleep(1e-3)
        log.append("too late")

    async def main() -> None:
        log: list[str] = []
        task = asyncio.create_task(cascade(log))
        await advance(1.9999)
        assert log == []
        await advance(2 - 1.9999)
        assert (now(), log) == (2.0, ["task", "timer"])
        await task

    run(main())


def test_advance_by_nothing_runs_what_can_run_now() -> None:
    async def main() -> None:
        log: list[int] = []

        async def child() -> None:
            for step in range(50):
                await asyncio.sleep(0)
                log.append(step)

        task = asyncio.create_task(child())
        await advance(0)
        assert (now(), len(log)) == (0.0, 50)
        await task

    run(main())


def test_advance_stops_at_its_time_though_later_timers_wait() -> None:
    async def main() -> None:
        task = asyncio.create_task(asyncio.sleep(10))
        for step in range(1, 10):
            await advance(1)
            assert now() == step
            assert not task.done()
        await advance(1)
        assert task.done()
        await task

    run(main())


def test_several_tasks_can_advance_at_once() -> None:
    async def main() -> list[tuple[str, float]]:
        seen: list[tuple[str, float]] = []

        async def waits(name: str, seconds: float) -> None:
            for _ in range(2):
                await advance(seconds)
                seen.append((name, now()))

        async with asyncio.TaskGroup() as group:
            group.create_task(waits("a", 1))
            group.create_task(waits("b", 2))
        return seen

    seen = run(main())
    assert sorted(seen) == [("a", 1.0), ("a", 2.0), ("b", 2.0), ("b", 4.0)]


def test_a_cancelled_advance_leaves_no_timer_behind() -> None:
    async def main() -> None:
        task = asyncio.create_task(advance(100))
        await advance(1)
        task.cancel()
        await asyncio.wait({task})
        await asyncio.Event().wait()

    with pytest.raises(Deadlock):
        run(main())


def test_an_advance_that_is_cancelled_while_it_waits_for_the_others_is_forgotten() -> None:
    async def main() -> float:
        task = asyncio.create_task(advance(0))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        await advance(1)
        return now()

    assert run(main()) == 1.0


@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf])
def test_advance_refuses_what_is_not_a_future_time(seconds: float) -> None:
    with pytest.raises(InvalidArgument, match="seconds"):
        run(advance(seconds))


@pytest.mark.parametrize("name", ["advance", "pause_clock"])
def test_without_virtual_time_the_error_says_what_to_do(name: str) -> None:
    async def main() -> None:
        if name == "advance":
            await advance(1)
        with pause_clock():
            pass

    with pytest.raises(RuntimeError, match=rf"{name}\(\) needs virtual time: .*run\(\)"):
        asyncio.run(main())
    with pytest.raises(RuntimeError, match="needs virtual time"), pause_clock():
        pass


# run()


def test_run_returns_what_any_awaitable_returns() -> None:
    class Later:
        def __await__(self) -> Generator[Any, None, int]:
            yield from asyncio.sleep(1).__await__()
            return 7

    assert run(Later()) == 7
    assert run(FutureResult[int, str].from_value(1)) == IOSuccess(1)
    assert run(FutureResult[int, str].from_failure("no")) == IOFailure("no")


def test_run_raises_what_the_coroutine_raised() -> None:
    async def main() -> None:
        await asyncio.sleep(1)
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        run(main())


def test_run_says_what_it_wants() -> None:
    async def main() -> None: ...

    with pytest.raises(TypeError, match=r"call it: run\(main\(\)\)"):
        run(main)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="awaitable, not 3"):
        run(3)  # type: ignore[arg-type]


def test_run_inside_a_running_loop_is_refused_and_leaves_no_coroutine() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="use await"):
            run(asyncio.sleep(1))
        with pytest.raises(RuntimeError, match="use await"):
            run(asyncio.get_running_loop().create_future())

    run(main())
    asyncio.run(main())


@pytest.mark.parametrize("patience", [0, -1, math.nan])
def test_patience_out_of_range_is_refused(patience: float) -> None:
    main = asyncio.sleep(1)
    with pytest.raises(InvalidArgument, match="patience"):
        run(main, patience=patience)
    main.close()


def test_context_variables_come_in_and_do_not_go_out() -> None:
    variable = contextvars.ContextVar("variable", default="unset")

    async def main() -> str:
        seen = variable.get()
        variable.set("inside")
        return seen

    token = variable.set("outside")
    assert run(main()) == "outside"
    assert variable.get() == "outside"
    variable.reset(token)


@pytest.mark.parametrize("debug", [True, False])
def test_debug_mode_can_be_chosen(debug: bool) -> None:
    async def main() -> bool:
        await asyncio.sleep(1000)
        return asyncio.get_running_loop().get_debug()

    assert run(main(), debug=debug) is debug


def test_ctrl_c_cancels_and_cleans_up() -> None:
    log: list[str] = []

    async def main() -> None:
        try:
            asyncio.get_running_loop().call_later(5, signal.raise_signal, signal.SIGINT)
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(1)
            log.append(f"cleaned up at {now():g}")

    with pytest.raises(KeyboardInterrupt):
        run(main())
    assert log == ["cleaned up at 6"]


def test_ctrl_c_comes_through_while_the_loop_waits_for_real() -> None:
    to_main = (threading.main_thread().ident, signal.SIGINT)
    timer = threading.Timer(0.02, signal.pthread_kill, to_main)

    async def main() -> None:
        timer.start()
        await asyncio.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        run(main())
    timer.join()


def test_a_runner_of_ones_own_can_use_the_loop() -> None:
    async def main() -> float:
        await asyncio.sleep(60)
        return now()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        assert runner.run(main()) == 60.0
        assert runner.run(main()) == 120.0


# Deadlocks


def test_a_deadlock_names_each_task_and_where_it_waits() -> None:
    async def reader(source: AsyncIterator[str]) -> None:
        async for _ in source:
            pass

    async def silent() -> AsyncIterator[str]:
        await asyncio.Event().wait()
        yield ""

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(reader(silent()), name="the reader")
            group.create_task(asyncio.Queue[int]().get(), name="the queue")

    with pytest.raises(Deadlock) as caught:
        run(main())
    lines = [line.strip() for line in str(caught.value).splitlines()]
    assert lines[0] == "every task waits forever"
    names = ["main:", "the queue:", "the reader:"]
    assert [line for line in lines if line.endswith(":")] == names
    chain = [line.split(" ")[1].split(".")[-1] for line in lines[lines.index("the reader:") + 1 :]]
    assert chain == ["wait", "silent", "reader"]
    assert any(f"({__file__}:" in line for line in lines)


def test_a_report_sees_through_what_is_wrapped_around_a_coroutine() -> None:
    class Plain:
        def __init__(self, inner: Coroutine[Any, Any, None]) -> None:
            self.inner = inner

        def __await__(self) -> Generator[Any, None, None]:
            return self.inner.__await__()

    class Own(Coroutine[Any, Any, None]):
        __slots__ = ("inner",)

        def __init__(self, inner: Coroutine[Any, Any, None]) -> None:
            self.inner = inner

        def __await__(self) -> Generator[Any, None, None]:
            return self.inner.__await__()

        def send(self, value: object) -> Any:
            return self.inner.send(value)

        def throw(self, *error: Any) -> Any:
            return self.inner.throw(*error)

        def close(self) -> None:
            self.inner.close()

    async def innermost() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(Own(innermost()), name="own")
            await Plain(innermost())

    with pytest.raises(Deadlock) as caught:
        run(main())
    report = str(caught.value)
    assert report.count("innermost (") == 2
    assert report.count("main (") == 1


def test_a_timer_at_infinity_is_none() -> None:
    async def main() -> None:
        async with asyncio.timeout(math.inf):
            await asyncio.sleep(math.inf)

    with pytest.raises(Deadlock):
        run(main())


def test_the_tasks_of_a_deadlock_are_cancelled_and_clean_up() -> None:
    log: list[str] = []

    async def main() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(1)
            log.append("cleaned up")

    with pytest.raises(Deadlock):
        run(main())
    assert log == ["cleaned up"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_deadlock_in_the_clean_up_does_not_hide_the_first_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.Event().wait()

    with pytest.raises(Deadlock) as caught:
        run(main())
    assert "while the tasks were being cancelled" in caught.value.__notes__[-1]
    gc.collect()  # asyncio warns about the task that did not end


def test_what_the_loop_could_only_log_is_told_with_the_failure() -> None:
    async def main() -> None:
        event = asyncio.Event()

        def callback() -> None:
            raise OSError("in a timer")

        asyncio.get_running_loop().call_later(1, callback)
        await event.wait()

    with pytest.raises(Deadlock) as caught:
        run(main())
    assert "OSError('in a timer')" in caught.value.__notes__[0]


def test_what_the_loop_logged_without_an_exception_is_only_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_exception_handler({"message": "by the way"})
        raise OSError

    with caplog.at_level(logging.ERROR), pytest.raises(OSError) as caught:  # noqa: PT011
        run(main())
    assert "by the way" in caplog.text
    assert not hasattr(caught.value, "__notes__")


# Leaks


def test_a_task_left_running_is_a_leak_and_is_cancelled() -> None:
    log: list[str] = []

    async def child() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            log.append("cancelled")

    async def main() -> None:
        main.task = asyncio.create_task(child(), name="the child")  # type: ignore[attr-defined]
        await asyncio.sleep(1)

    with pytest.raises(LeakedTasks, match=r"the child:\n    at sleep .*\n    at .*child \("):
        run(main())
    assert log == ["cancelled"]


def test_a_task_that_had_not_begun_is_a_leak() -> None:
    async def main() -> None:
        task = asyncio.create_task(asyncio.sleep(0), name="late")
        assert not task.done()

    with pytest.raises(LeakedTasks, match="late"):
        run(main())


def test_a_task_cancelled_and_not_awaited_is_a_leak() -> None:
    async def main() -> None:
        task = asyncio.create_task(asyncio.sleep(100), name="doomed")
        await asyncio.sleep(1)
        task.cancel()

    with pytest.raises(LeakedTasks, match="doomed"):
        run(main())


def test_a_task_cancelled_and_awaited_is_none() -> None:
    async def main() -> None:
        task = asyncio.create_task(asyncio.sleep(100))
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait({task})

    run(main())


def test_what_main_drops_at_its_end_may_still_stop_its_task() -> None:
    source = script("ab-------c|")

    async def main() -> list[str]:
        return await anext(aiter(chunks_or_timeout.raw(source, 2, 5.0)))

    assert run(main()) == ["a", "b"]
    assert source.closed == 1


def test_an_exception_of_main_comes_before_its_leaks() -> None:
    async def main() -> None:
        main.task = asyncio.create_task(asyncio.sleep(100))  # type: ignore[attr-defined]
        raise OSError("first")

    with pytest.raises(OSError, match="first"):
        run(main())


async def letters() -> AsyncIterator[str]:
    try:
        for letter in "abc":
            yield letter
    finally:
        await asyncio.sleep(0)


def test_an_async_generator_held_open_is_a_leak() -> None:
    held: list[AsyncIterator[str]] = []

    async def main() -> None:
        held.append(letters())
        await anext(held[0])

    with pytest.raises(LeakedTasks, match=r"left open, suspended at\n  letters \(.*test_clock"):
        run(main())


def test_async_generators_closed_exhausted_dropped_or_unused_are_none() -> None:
    unused: list[AsyncIterator[str]] = []

    async def main() -> None:
        async with aclosing(letters()) as items:  # type: ignore[type-var]
            assert await anext(items) == "a"
        assert [letter async for letter in letters()] == ["a", "b", "c"]
        async for _ in letters():
            break
        unused.append(letters())
        cycle = SimpleNamespace(items=letters())
        cycle.itself = cycle
        await anext(cycle.items)

    run(main())


def test_a_generator_that_the_loop_is_just_closing_is_none() -> None:
    async def main() -> None:
        async for _ in letters():
            break
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 2

    run(main())


def test_the_clean_up_of_a_dropped_generator_that_takes_time_is_a_leak() -> None:
    async def slow() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(1)

    async def main() -> None:
        async for _ in slow():
            return

    with pytest.raises(LeakedTasks):
        run(main())


# External work


def test_the_clock_stands_still_while_a_thread_job_runs() -> None:
    async def main() -> float:
        async with asyncio.timeout(0.001):
            await asyncio.to_thread(time.sleep, 0.03)
            await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.03)
            await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 80)
        return now()

    assert run(main()) == 0.0


def test_advance_waits_for_the_thread_job_that_was_due() -> None:
    async def main() -> list[str]:
        log: list[str] = []

        async def job() -> None:
            await asyncio.sleep(5)
            await asyncio.to_thread(time.sleep, 0.02)
            log.append("done")

        task = asyncio.create_task(job())
        await advance(5)
        assert (now(), log) == (5.0, ["done"])
        await task
        return log

    assert run(main()) == ["done"]


def test_an_idle_thread_pool_makes_no_deadlock_slow() -> None:
    async def main() -> None:
        await asyncio.to_thread(int)
        await asyncio.Event().wait()

    begun = time.monotonic()
    with pytest.raises(Deadlock):
        run(main(), patience=30)
    assert time.monotonic() - begun < 15


class Worker:
    """A thread that takes jobs from a queue and resolves futures, like that of aiosqlite."""

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self.work, name="worker", daemon=True)
        self.thread.start()

    def work(self) -> None:
        while (job := self.queue.get()) is not None:
            future, function, *args = job
            result = function(*args)
            with suppress(RuntimeError):  # the loop has given up waiting
                self.tell(future, result)

    def tell(self, future: asyncio.Future[Any], result: object) -> None:
        future.get_loop().call_soon_threadsafe(self.answer, future, result)

    @staticmethod
    def answer(future: asyncio.Future[Any], result: object) -> None:
        if not future.done():
            future.set_result(result)

    async def call(self, *job: Any) -> Any:
        future = asyncio.get_running_loop().create_future()
        self.queue.put((future, *job))
        return await future

    def stop(self) -> None:
        self.queue.put(None)
        self.thread.join()


class Terse(Worker):
    """The same, but the loop calls the future's own method."""

    def tell(self, future: asyncio.Future[Any], result: object) -> None:
        future.get_loop().call_soon_threadsafe(future.set_result, result)

    async def call(self, *job: Any) -> Any:
        future = asyncio.get_running_loop().create_future()
        self.queue.put((future, *job))
        return await future


class Grouping(Worker):
    """The same, but one message has several answers."""

    def tell(self, future: asyncio.Future[Any], result: object) -> None:
        future.get_loop().call_soon_threadsafe(functools.partial(self.settle, [(future, result)]))

    def settle(self, answers: list[tuple[asyncio.Future[Any], object]]) -> None:
        for future, result in answers:
            self.answer(future, result)

    async def call(self, *job: Any) -> Any:
        future = asyncio.get_running_loop().create_future()
        self.queue.put((future, *job))
        return await future


@contextmanager
def working(make: Callable[[], Worker] = Worker) -> Iterator[Worker]:
    worker = make()
    try:
        yield worker
    finally:
        worker.stop()


@pytest.fixture
def nothing_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget which lines of code are answered by threads."""
    monkeypatch.setattr(external_io, "_RESOLVED_BY_THREADS", set())
    monkeypatch.setattr(external_io, "_RESOLVED_HERE", set())


@pytest.mark.usefixtures("nothing_learned")
@pytest.mark.parametrize("make", [Worker, Terse, Grouping])
def test_the_clock_stands_still_while_a_thread_works_for_a_task(make: Callable[[], Worker]) -> None:
    async def main(worker: Worker) -> float:
        for _ in range(5):
            async with asyncio.timeout(0.001):
                await worker.call(time.sleep, 0.01)
            assert now() == 0.0
        async with asyncio.timeout(0.001):
            calls = [worker.call(time.sleep, 0.005) for _ in range(4)]
            await asyncio.gather(*calls)
        return now()

    with working(make) as worker:
        assert run(main(worker)) == 0.0


@pytest.mark.usefixtures("nothing_learned")
@pytest.mark.parametrize("make", [Worker, Terse, Grouping])
def test_what_was_learned_of_a_line_of_code_holds_for_every_later_loop(
    make: Callable[[], Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(worker: Worker) -> float:
        async with asyncio.timeout(0.001):
            await worker.call(time.sleep, 0.02)
        return now()

    with working(make) as worker:
        assert run(main(worker)) == 0.0
        monkeypatch.setattr(clock, "_CLASSIFICATION", 0.0)  # new lines get no time any more
        assert run(main(worker)) == 0.0


@pytest.mark.usefixtures("nothing_learned")
def test_a_line_of_code_that_is_answered_here_is_not_waited_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Among other threads, each line has to be classified once."""

    async def main(worker: Worker) -> float:
        await worker.call(int)
        for _ in range(50):
            future = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_later(60, future.set_result, None)
            await future
        return now()

    begun = time.monotonic()
    with working() as worker:
        assert run(main(worker), patience=30) == 3000.0
        assert 0.4 < time.monotonic() - begun < 15
        monkeypatch.setattr(clock, "_CLASSIFICATION", 30)
        assert run(main(worker), patience=30) == 3000.0
    assert time.monotonic() - begun < 15


@pytest.mark.usefixtures("nothing_learned")
def test_the_waits_of_asyncios_own_code_and_those_for_tasks_need_no_acquaintance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> float:
        event = asyncio.Event()
        waiting = asyncio.create_task(event.wait())
        await asyncio.sleep(60)
        event.set()
        await asyncio.gather(asyncio.sleep(60), waiting)
        return now()

    monkeypatch.setattr(clock, "_CLASSIFICATION", 30)
    begun = time.monotonic()
    with working():
        assert run(main()) == 120.0
    assert time.monotonic() - begun < 15


def test_an_idle_thread_does_not_keep_the_clock_from_jumping() -> None:
    async def main(worker: Worker) -> float:
        for _ in range(10):
            await worker.call(int)
            await asyncio.sleep(3600)
        return now()

    begun = time.monotonic()
    with working() as worker:
        assert run(main(worker), patience=30) == 36000.0
    assert time.monotonic() - begun < 15


@contextmanager
def stuck() -> Iterator[tuple[Worker, threading.Event]]:
    release = threading.Event()
    with working() as worker:
        try:
            run(worker.call(int))  # so that its line is classified
            yield worker, release
        finally:
            release.set()


def test_a_thread_that_does_not_answer_is_given_up_after_the_patience() -> None:
    async def main(worker: Worker, release: threading.Event) -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await worker.call(release.wait)
        await asyncio.sleep(60)
        return now()

    with stuck() as (worker, release):
        assert run(main(worker, release), patience=0.02) == 120.0


def test_a_deadlock_names_what_it_waited_for() -> None:
    async def main(worker: Worker, release: threading.Event) -> None:
        await worker.call(release.wait)

    with (
        stuck() as (worker, release),
        pytest.raises(
            Deadlock, match=r"0\.02 s of silence from the thread that answers Worker\.call"
        ),
    ):
        run(main(worker, release), patience=0.02)


def test_what_was_given_up_is_waited_for_again_when_it_has_shown_life() -> None:
    async def main(worker: Worker, release: threading.Event) -> float:
        with suppress(TimeoutError):
            async with asyncio.timeout(60):
                await worker.call(release.wait)
        assert now() == 60.0
        release.set()
        async with asyncio.timeout(0.001):
            await worker.call(time.sleep, 0.01)
        return now()

    with stuck() as (worker, release):
        assert run(main(worker, release), patience=0.5) == 60.0


def test_the_pool_is_joined_without_its_time_limit_running_out(
    recwarn: pytest.WarningsRecorder,
) -> None:
    """Since 3.12 asyncio gives it 300 s, which would pass at once."""

    async def main() -> None:
        job = asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.05)
        assert not job.done()

    run(main())
    assert not recwarn.list


def test_a_message_from_a_thread_that_was_not_foreseen_comes_in_time() -> None:
    async def main() -> str:
        loop, event = asyncio.get_running_loop(), asyncio.Event()
        timer = threading.Timer(0.02, lambda: loop.call_soon_threadsafe(event.set))
        timer.start()
        await event.wait()
        await asyncio.to_thread(timer.join)
        return f"at {now():g}"

    assert run(main()) == "at 0"


def test_the_clock_can_be_held_for_what_cannot_be_seen() -> None:
    async def main() -> float:
        loop, event = asyncio.get_running_loop(), asyncio.Event()
        timer = threading.Timer(0.02, lambda: loop.call_soon_threadsafe(event.set))
        with pause_clock():
            timer.start()
            async with asyncio.timeout(1):
                await event.wait()
        await asyncio.to_thread(timer.join)
        return now()

    assert run(main()) == 0.0


def serve(answer: Callable[[socket.socket], None]) -> tuple[threading.Thread, tuple[str, int]]:
    """Serve one connection in a thread without asyncio."""
    listener = socket.create_server(("127.0.0.1", 0))

    def work() -> None:
        with listener, listener.accept()[0] as connection:
            answer(connection)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, listener.getsockname()


def test_the_clock_stands_still_until_a_connection_is_answered() -> None:
    def slowly(connection: socket.socket) -> None:
        while data := connection.recv(100):
            time.sleep(0.01)
            connection.sendall(data.upper())

    async def main(address: tuple[str, int]) -> float:
        async with asyncio.timeout(0.001):
            reader, writer = await asyncio.open_connection(*address)
            for _ in range(5):
                writer.write(b"hello\n")
                assert await reader.readline() == b"HELLO\n"
            writer.writelines([b"good", b"bye\n"])
            assert await reader.readline() == b"GOODBYE\n"
        assert now() == 0.0
        await asyncio.sleep(60)  # an idle connection is not waited for
        async with asyncio.timeout(1):
            writer.write(b"again\n")
            assert await reader.readline() == b"AGAIN\n"
        writer.close()
        await writer.wait_closed()
        return now()

    thread, address = serve(slowly)
    assert run(main(address)) == 60.0
    thread.join()


def test_the_first_part_of_an_answer_is_not_taken_for_all_of_it() -> None:
    """A busy server may stop for any time between two parts: only the client knows the end."""

    def in_parts(connection: socket.socket) -> None:
        for pause in 0.7, 0.1:  # the first one is longer than a thread is waited for: rule 5
            connection.recv(64)
            connection.sendall(b"an ")
            time.sleep(pause)
            connection.sendall(b"answer\n")

    class Client(asyncio.Protocol):
        def __init__(self) -> None:
            self.answer = asyncio.get_running_loop().create_future()
            self._got = b""

        def data_received(self, data: bytes) -> None:
            self._got += data
            if self._got.endswith(b"\n"):
                self.answer.set_result(self._got)

    async def main(address: tuple[str, int]) -> None:
        loop = asyncio.get_running_loop()
        transport, client = await loop.create_connection(Client, *address)
        for _ in range(2):
            client.__init__()  # type: ignore[misc]
            transport.write(b"a question")
            async with asyncio.timeout(1.0):
                assert await client.answer == b"an answer\n"
            assert loop.time() == 0.0
        transport.close()

    thread, address = serve(in_parts)
    run(main(address))
    thread.join()


def test_a_connection_that_does_not_answer_is_given_up_after_the_patience() -> None:
    def never(connection: socket.socket) -> None:
        while connection.recv(100):
            pass

    async def main(address: tuple[str, int]) -> float:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"hello\n")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await reader.readline()
        writer.close()
        await writer.wait_closed()
        return now()

    thread, address = serve(never)
    assert run(main(address), patience=0.02) == 60.0
    thread.join()


def test_the_clock_stands_still_until_a_connection_with_tls_is_answered(
    certificate: Certificate,
) -> None:
    def slowly(connection: socket.socket) -> None:
        with certificate.server.wrap_socket(connection, server_side=True) as encrypted:
            while data := encrypted.recv(100):
                time.sleep(0.01)
                encrypted.sendall(data.upper())

    async def main(address: tuple[str, int]) -> float:
        async with asyncio.timeout(0.001):
            reader, writer = await asyncio.open_connection(
                *address, ssl=certificate.client, server_hostname="localhost"
            )
            for _ in range(3):
                writer.write(b"hello\n")
                assert await reader.readline() == b"HELLO\n"
        writer.close()
        await writer.wait_closed()
        return now()

    thread, address = serve(slowly)
    assert run(main(address)) == 0.0
    thread.join()


class Certificate:
    """A certificate for localhost that signs itself, valid for a hundred years."""

    PEM = """-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgRQOEqmSgIV57zYuX
iX1YzO91UeQ4Pikc81OylSFllwehRANCAARm2X7r76odZVmKer3vrH9GW4/3WwQk
mYeLCqlx5KnPZxxjaM00MyQyqM6pFE9tghk25xLtwGDYMp2XM+Wv345s
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBlDCCATugAwIBAgIUOQHj+I/K0ye3RxR8kSJhOhwbdocwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyNDIyMDIxNloYDzIxMjYxMDMx
MjIwMjE2WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAARm2X7r76odZVmKer3vrH9GW4/3WwQkmYeLCqlx5KnPZxxjaM00MyQy
qM6pFE9tghk25xLtwGDYMp2XM+Wv345so2kwZzAdBgNVHQ4EFgQUWTR/zAa5rjW2
oOjR/IdVK+1QkoUwHwYDVR0jBBgwFoAUWTR/zAa5rjW2oOjR/IdVK+1QkoUwDwYD
VR0TAQH/BAUwAwEB/zAUBgNVHREEDTALgglsb2NhbGhvc3QwCgYIKoZIzj0EAwID
RwAwRAIgbN3TSA6zhoIxd7a7RbEtyCXjVYIzJr2V4er62Ye4D3MCIFs2TKlAri6T
smEhZCDoItUGn9qXrDq2hNTEoVp1XqJO
-----END CERTIFICATE-----
"""

    def __init__(self, path: Path) -> None:
        path.write_text(self.PEM)
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.load_cert_chain(path)
        self.server.num_tickets = 0  # they come late, and look like an answer
        self.client = ssl.create_default_context(cafile=str(path))


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return Certificate(tmp_path / "localhost.pem")


def test_a_connection_that_was_given_up_is_waited_for_again_when_it_has_answered() -> None:
    release = threading.Event()

    def late(connection: socket.socket) -> None:
        assert connection.recv(100) == b"hello\n"
        release.wait()
        connection.sendall(b"HELLO\n")
        assert connection.recv(100) == b"again\n"
        time.sleep(0.05)
        connection.sendall(b"AGAIN\n")
        assert connection.recv(100) == b""

    async def main(address: tuple[str, int]) -> float:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"hello\n")
        await asyncio.sleep(60)
        release.set()
        with pause_clock():
            assert await reader.readline() == b"HELLO\n"
        async with asyncio.timeout(0.001):
            writer.write(b"again\n")
            assert await reader.readline() == b"AGAIN\n"
        writer.close()
        await writer.wait_closed()
        return now()

    thread, address = serve(late)
    assert run(main(address), patience=0.5) == 60.0
    thread.join()


def test_a_server_and_its_client_in_one_loop_live_in_virtual_time() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.readline():
                await asyncio.sleep(10)
                writer.write(data.upper())
        writer.close()
        await writer.wait_closed()

    async def main() -> float:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for _ in range(3):
            writer.write(b"hello\n")
            assert await reader.readline() == b"HELLO\n"
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        await advance(1)  # the handler's task ends
        return now()

    begun = time.monotonic()
    assert run(main(), patience=60) == 31.0
    assert time.monotonic() - begun < 30


def test_a_client_in_another_thread_can_talk_to_a_server_here() -> None:
    def client(address: tuple[str, int]) -> bytes:
        with socket.create_connection(address) as connection:
            connection.sendall(b"hello\n")
            return connection.recv(100)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.readline()
        writer.write(data.upper())
        writer.close()
        await writer.wait_closed()

    async def main() -> bytes:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            got = await asyncio.to_thread(client, server.sockets[0].getsockname())
            await advance(1)
            return got

    assert run(main()) == b"HELLO\n"


def test_a_client_elsewhere_owes_no_answer_to_a_server_here() -> None:
    """It may keep its connection, and say nothing more for a long time."""
    release = threading.Event()

    def client(address: tuple[str, int]) -> None:
        with socket.create_connection(address) as connection:
            connection.sendall(b"hello\n")
            connection.recv(100)
            release.wait()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.readline():
            writer.write(data.upper())
            answered.set()
        writer.close()
        await writer.wait_closed()

    async def main() -> float:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            thread = threading.Thread(target=client, args=[server.sockets[0].getsockname()])
            thread.start()
            with pause_clock():
                await answered.wait()
            await asyncio.sleep(60)
            release.set()
            await asyncio.to_thread(thread.join)
            await advance(1)
            return now()

    answered = asyncio.Event()
    begun = time.monotonic()
    assert run(main(), patience=30) == 61.0
    assert time.monotonic() - begun < 15


def test_the_clock_stands_still_while_a_child_process_runs() -> None:
    async def main() -> float:
        async with asyncio.timeout(0.001):
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-c", "print('hello')", stdout=subprocess.PIPE
            )
            out, _ = await child.communicate()
            assert out.strip() == b"hello"
            child = await asyncio.create_subprocess_shell("exit 3")
            assert await child.wait() == 3
        return now()

    assert run(main()) == 0.0


def test_anyio_threads_work_on_virtual_time() -> None:
    to_thread = pytest.importorskip("anyio.to_thread")

    async def main() -> float:
        async with asyncio.timeout(0.001):
            for _ in range(3):
                await to_thread.run_sync(time.sleep, 0.02)
        return now()

    assert run(main()) == 0.0


def test_aiosqlite_works_on_virtual_time() -> None:
    aiosqlite = pytest.importorskip("aiosqlite")

    async def main() -> float:
        async with aiosqlite.connect(":memory:") as database:
            await database.create_function("slow", 1, lambda seconds: time.sleep(seconds))
            async with asyncio.timeout(0.001):
                await database.execute("select slow(0.02)")
                await database.commit()
            await asyncio.sleep(3600)
            # Its awaitables are objects around coroutines.
            calls = (database.execute("select slow(0.01)") for _ in range(5))
            await asyncio.gather(*(asyncio.wait_for(call, 0.001) for call in calls))
        return now()

    assert run(main()) == 3600.0


def test_what_a_thread_has_sent_before_it_ended_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> str:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[str] = loop.create_future()

        def send_and_end() -> bool:
            """Do what a thread may do while the loop looks whether there is one."""
            send = functools.partial(loop.call_soon_threadsafe, answer.set_result, "sent")
            thread = threading.Thread(target=send)
            thread.start()
            thread.join()
            return False

        monkeypatch.setattr(clock, "has_other_threads", send_and_end)
        return await answer

    assert run(main()) == "sent"


# The names


def test_the_public_names_are_those_of_the_modules() -> None:
    assert sorted(returns_pipeline.testing.__all__) == [
        "Deadlock",
        "DurableJournal",
        "FaultInjector",
        "FaultyJournal",
        "LeakedTasks",
        "MemoryBroker",
        "PublisherQueue",
        "QueueUnderTest",
        "Recorder",
        "ScriptError",
        "Scripted",
        "VirtualTimeLoop",
        "Wait",
        "advance",
        "check_connector",
        "check_journal",
        "check_publisher",
        "inject_everywhere",
        "pause_clock",
        "run",
        "script",
        "timed",
        "timeline",
    ]
