"""Faults at every await point: which points there are, and which fault occurs there."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import pytest
from returns.future import FutureResult
from returns.io import IOSuccess

from returns_pipeline import InvalidArgument
from returns_pipeline.testing import (
    FaultInjector,
    LeakedTasks,
    inject_everywhere,
    run,
    script,
)

if TYPE_CHECKING:
    from collections.abc import Callable


async def work(done: list[int]) -> str:
    """Three await points."""
    await asyncio.sleep(0)
    done.append(1)
    await asyncio.sleep(1)
    done.append(2)
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(1, future.set_result, None)
    await future
    done.append(3)
    return "done"


@pytest.mark.parametrize("error", [None, OSError])
def test_each_point_is_struck_once_and_the_last_run_goes_through(
    error: type[OSError] | None,
) -> None:
    async def main() -> None:
        seen: list[tuple[bool, list[int]]] = []
        for injector in FaultInjector.every(error):
            done: list[int] = []
            with contextlib.suppress(asyncio.CancelledError, OSError):
                assert await injector.run(work(done)) == "done"
            seen.append((injector.fired, done))
        assert seen == [(True, []), (True, [1]), (True, [1, 2]), (False, [1, 2, 3])]

    run(main())


def test_the_exception_raised_is_the_injected_error_itself() -> None:
    async def main() -> None:
        injector = FaultInjector(2, OSError)
        with pytest.raises(OSError) as caught:  # noqa: PT011
            await injector.run(work([]))
        assert caught.value is injector.error
        assert injector.where.startswith("work (")

    run(main())


def test_an_exception_given_as_it_is_is_raised_as_it_is() -> None:
    error = OSError("disk full")

    async def main() -> None:
        with pytest.raises(OSError, match="disk full") as caught:
            await FaultInjector(1, error).run(work([]))
        assert caught.value is error

    run(main())


def test_each_round_has_an_error_of_its_own() -> None:
    async def main() -> None:
        errors = []
        for injector in FaultInjector.every(OSError):
            errors.append(injector.error)
            with contextlib.suppress(OSError):
                await injector.run(work([]))
        assert len(set(map(id, errors))) == 4

    run(main())


def test_a_cancelled_task_knows_that_it_was_cancelled() -> None:
    async def asks(seen: list[int]) -> None:
        try:
            await asyncio.sleep(1)
        finally:
            task = asyncio.current_task()
            assert task is not None
            seen.append(task.cancelling())

    async def main() -> None:
        seen: list[int] = []
        with pytest.raises(asyncio.CancelledError):
            await FaultInjector(1).run(asks(seen))
        assert seen == [1]
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0  # the test itself was not

    run(main())


def test_cancelling_looks_to_asyncio_like_the_real_thing() -> None:
    """`timeout()` must not mistake the cancellation for its own, nor a task group lose it."""

    async def grouped() -> None:
        async with asyncio.timeout(100), asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(1))
            group.create_task(asyncio.sleep(2))
            await asyncio.sleep(0)

    async def scenario(injector: FaultInjector) -> None:
        if injector.at <= 4:
            with pytest.raises(asyncio.CancelledError):
                await injector.run(grouped())
        else:
            await injector.run(grouped())

    assert inject_everywhere(scenario) == 4


@pytest.mark.not_eager
def test_the_points_of_child_tasks_count_and_their_errors_strike_there() -> None:
    async def child(done: list[str], name: str) -> None:
        await asyncio.sleep(1)
        done.append(name)

    async def parent(done: list[str]) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(child(done, "a"))
            await asyncio.sleep(0.5)
            group.create_task(child(done, "b"), name="b")

    struck: list[str] = []

    async def scenario(injector: FaultInjector) -> None:
        done: list[str] = []
        with contextlib.suppress(ExceptionGroup, OSError):
            await injector.run(parent(done))
            assert not injector.fired
            assert done == ["a", "b"]
        struck.append(injector.where.split(" ")[0].rpartition(".")[2])

    assert inject_everywhere(scenario, OSError) == 3  # the group's own waiting cannot fail
    assert struck == ["parent", "child", "child", ""]


def test_a_task_cancelled_before_its_first_step_causes_no_warning() -> None:
    async def parent() -> None:
        task = asyncio.create_task(asyncio.sleep(1))
        task.cancel()
        await asyncio.wait({task})

    assert run(FaultInjector(99).run(parent())) is None


@pytest.mark.parametrize(
    "waits",
    [
        lambda task: asyncio.wait({task}),
        lambda task: asyncio.gather(task),
        lambda task: task,
    ],
    ids=["wait", "gather", "await"],
)
def test_an_error_does_not_strike_where_a_task_is_awaited(
    waits: Callable[[asyncio.Task[None]], asyncio.Future[None]],
) -> None:
    async def parent() -> None:
        await waits(asyncio.create_task(asyncio.sleep(1)))

    async def main() -> int:
        injector = FaultInjector(99, OSError)
        await injector.run(parent())
        return injector.points

    assert run(main()) == 1  # the sleep


def test_points_inside_async_generators_are_points() -> None:
    async def read(seen: list[str]) -> None:
        async for item in script("(ab)-c|"):
            seen.append(item)

    async def main() -> None:
        ends = []
        for injector in FaultInjector.every(OSError):
            seen: list[str] = []
            with contextlib.suppress(OSError):
                await injector.run(read(seen))
            ends.append("".join(seen))
        assert ends == ["ab", "abc", "abc"]

    run(main())


def test_several_points_in_a_row_can_be_struck() -> None:
    async def stubborn(log: list[str]) -> None:
        try:
            await asyncio.sleep(1)
        finally:
            try:
                await asyncio.sleep(1)
            finally:
                await asyncio.sleep(1)
                log.append("cleaned up")

    async def main(times: int) -> list[str]:
        log: list[str] = []
        with pytest.raises(asyncio.CancelledError):
            await FaultInjector(1, times=times).run(stubborn(log))
        return log

    assert run(main(2)) == ["cleaned up"]
    assert run(main(3)) == []


def test_an_error_that_strikes_the_handler_of_an_error() -> None:
    async def handler() -> str:
        try:
            await asyncio.sleep(1)
        except OSError:
            await asyncio.sleep(1)
        return "survived"

    async def main(times: int) -> str:
        return await FaultInjector(1, OSError, times=times).run(handler())

    assert run(main(1)) == "survived"
    with pytest.raises(OSError):  # noqa: PT011
        run(main(2))


def test_a_handled_fault_leaves_the_rest_of_the_run_alone() -> None:
    async def retries() -> int:
        for attempt in range(3):
            with contextlib.suppress(OSError):
                await asyncio.sleep(1)
                return attempt
        return -1

    assert run(FaultInjector(1, OSError).run(retries())) == 1


def test_a_future_left_by_an_error_can_be_awaited_by_others() -> None:
    async def main() -> str:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def waits() -> None:
            await future

        with contextlib.suppress(OSError):
            await FaultInjector(1, OSError).run(waits())
        asyncio.get_running_loop().call_later(1, future.set_result, "here")
        return await future

    assert run(main()) == "here"


def test_a_fake_can_place_points_of_its_own() -> None:
    class Store:
        def __init__(self, injector: FaultInjector) -> None:
            self.rows: list[int] = []
            self.injector = injector

        async def write(self, row: int) -> None:
            await self.injector.point(f"write {row}")
            self.rows.append(row)

    async def main() -> None:
        seen = []
        for injector in FaultInjector.every(OSError):
            store = Store(injector)
            with contextlib.suppress(OSError):
                await store.write(1)
                await store.write(2)
            seen.append((injector.where, store.rows))
        assert seen == [("write 1", []), ("write 2", [1]), ("", [1, 2])]

    run(main())


def test_a_sync_fake_can_call_the_injector() -> None:
    for injector in FaultInjector.every(OSError):
        calls: list[str] = []
        with contextlib.suppress(OSError):
            injector("first")
            calls.append("first")
            injector()
            calls.append("second")
        assert len(calls) == min(injector.at, 3) - 1 if injector.fired else 2
    assert injector.at == 3


def test_a_cancelling_point_cancels_the_task_that_calls_it() -> None:
    async def main() -> tuple[str, int]:
        injector = FaultInjector(2)

        async def fake(log: list[str]) -> None:
            await injector.point("one")
            log.append("one")
            await injector.point("two")
            log.append("two")

        log: list[str] = []
        task = asyncio.create_task(fake(log))
        await asyncio.wait({task})
        assert task.cancelled()
        return injector.where, len(log)

    assert run(main()) == ("two", 1)


def test_a_sync_cancelling_point_comes_through_at_the_next_await() -> None:
    async def main() -> list[str]:
        log: list[str] = []

        async def fake() -> None:
            injector()
            log.append("still here")
            await asyncio.sleep(0)
            log.append("not here")

        injector = FaultInjector(1)
        with pytest.raises(asyncio.CancelledError):
            await injector.run(fake())
        return log

    assert run(main()) == ["still here"]


def test_a_cancelling_point_outside_any_task_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        FaultInjector(1)("no loop")

    async def main() -> None:
        asyncio.get_running_loop().call_soon(FaultInjector(1), "a callback")
        await asyncio.sleep(1)
        raise OSError

    with pytest.raises(OSError) as caught:  # noqa: PT011
        run(main())
    assert "nothing to cancel" in caught.value.__notes__[0]


def test_a_placed_point_counts_beside_the_others_in_a_run() -> None:
    async def fake(injector: FaultInjector) -> None:
        await asyncio.sleep(0)
        await injector.point("placed")

    async def main() -> str:
        injector = FaultInjector(2)
        with pytest.raises(asyncio.CancelledError):
            await injector.run(fake(injector))
        return injector.where

    assert run(main()) == "placed"


@pytest.mark.not_eager
def test_tasks_that_outlive_the_run_are_not_struck() -> None:
    async def main() -> int:
        tasks: list[asyncio.Task[None]] = []

        async def starts() -> None:
            tasks.append(asyncio.create_task(asyncio.sleep(1)))

        injector = FaultInjector(1)
        await injector.run(starts())
        await tasks[0]
        return injector.points

    assert run(main()) == 0


def test_what_the_loop_gets_of_a_child_is_still_a_coroutine() -> None:
    """Other code may await it, and reports want its name and its frame."""

    async def child() -> str:
        await asyncio.sleep(0)
        return "here"

    async def main() -> None:
        injector = FaultInjector(99)
        driven: Any = injector._steered(child())
        assert isinstance(driven, Coroutine)
        assert getattr(driven, "__qualname__") == child.__qualname__  # noqa: B009
        assert await driven == "here"
        injector._steered(child()).close()

    run(main())


def test_the_callers_cancellation_is_passed_on_and_waits_for_the_clean_up() -> None:
    async def cleans_up(log: list[str]) -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(1)
            log.append("cleaned up")

    async def main() -> list[str]:
        log: list[str] = []
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await FaultInjector(99).run(cleans_up(log))
        return log

    assert run(main()) == ["cleaned up"]


def test_anything_awaitable_can_be_run() -> None:
    async def main() -> None:
        result: FutureResult[int, OSError] = FutureResult.from_value(1)
        assert await FaultInjector(1).run(result) == IOSuccess(1)

    run(main())


def test_an_injector_works_on_an_ordinary_loop_for_the_coroutine_itself() -> None:
    async def quick() -> None:
        await asyncio.sleep(0)
        await asyncio.create_task(asyncio.sleep(0))

    async def main() -> int:
        injector = FaultInjector(99)
        await injector.run(quick())
        return injector.points

    assert asyncio.run(main()) == 2


def test_an_injector_that_is_not_used_is_an_error_not_an_endless_loop() -> None:
    rounds = FaultInjector.every()
    next(rounds)
    with pytest.raises(RuntimeError, match="not used"):
        next(rounds)


def test_an_injector_runs_one_thing_at_a_time() -> None:
    async def main() -> None:
        injector = FaultInjector(1)
        with pytest.raises(RuntimeError, match="already"):
            await injector.run(injector.run(work([])))

    run(main())


def test_everywhere_says_where_the_fault_was_that_broke_the_scenario() -> None:
    async def scenario(injector: FaultInjector) -> None:
        done: list[int] = []
        with contextlib.suppress(asyncio.CancelledError):
            await injector.run(work(done))
        assert done != [1, 2]

    with pytest.raises(AssertionError) as caught:
        inject_everywhere(scenario)
    assert "cancel at point 3 in work (" in caught.value.__notes__[0]


@pytest.mark.not_eager
def test_everywhere_sees_the_task_that_one_fault_left_running() -> None:
    async def careless() -> None:
        task = asyncio.create_task(asyncio.sleep(100))
        await asyncio.sleep(1)
        await task

    async def scenario(injector: FaultInjector) -> None:
        with contextlib.suppress(OSError):
            await injector.run(careless())

    with pytest.raises(LeakedTasks, match="sleep") as caught:
        inject_everywhere(scenario, OSError)
    assert "OSError() at point 1" in caught.value.__notes__[0]


@pytest.mark.parametrize(("at", "times"), [(0, 1), (1, 0)])
def test_points_are_counted_from_one(at: int, times: int) -> None:
    with pytest.raises(InvalidArgument):
        FaultInjector(at, times=times)


# Tasks of all kinds


async def sleeps_twice() -> None:
    await asyncio.sleep(1)
    await asyncio.sleep(1)


def by_the_loop(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.create_task(coroutine)


def in_an_empty_context(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    loop = asyncio.get_running_loop()
    return loop.create_task(coroutine, context=contextvars.Context())


def by_hand(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.Task(coroutine)


def by_hand_in_an_empty_context(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.Task(coroutine, context=contextvars.Context(), name="by hand")


class OwnTask(asyncio.Task[None]):
    """A user's own class, whose constructor must run once."""

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        super().__init__(coroutine)
        self.made = getattr(self, "made", 0) + 1


def of_a_class_of_its_own(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    task = OwnTask(coroutine)
    assert task.made == 1
    return task


WAYS = [
    by_the_loop,
    in_an_empty_context,
    by_hand,
    by_hand_in_an_empty_context,
    of_a_class_of_its_own,
]


@pytest.mark.parametrize("error", [None, OSError])
@pytest.mark.parametrize("start", WAYS)
@pytest.mark.parametrize("then", WAYS)
def test_the_points_of_every_task_count_however_it_was_made(
    start: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    then: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    error: type[OSError] | None,
) -> None:
    """Also those of the tasks that such a task starts."""

    async def child() -> None:
        await then(sleeps_twice())

    async def main() -> None:
        await start(child())

    async def scenario(injector: FaultInjector) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await injector.run(main())

    # A cancellation can also be injected where a task waits for another one.
    assert inject_everywhere(scenario, error) == (4 if error is None else 2)


def test_a_task_made_by_hand_keeps_its_name_its_context_and_its_result() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")

    async def child() -> str:
        await asyncio.sleep(1)
        return variable.get()

    async def main() -> tuple[str, str]:
        context = contextvars.Context()
        context.run(variable.set, "set")
        task = asyncio.Task(child(), name="the child", context=context)
        assert task in asyncio.all_tasks()
        return task.get_name(), await task

    async def scenario() -> tuple[str, str]:
        return await FaultInjector(100).run(main())

    assert run(scenario()) == ("the child", "set")


def test_a_callback_of_a_task_from_outside_does_not_make_it_one_of_the_run() -> None:
    """Before its first step, a bound method of it could be taken for that step."""

    async def outsider(log: list[str]) -> None:
        log.append("begun")
        await asyncio.sleep(1)
        log.append("ended")

    async def main(log: list[str]) -> None:
        task = contextvars.Context().run(asyncio.Task, outsider(log))
        asyncio.get_running_loop().call_soon(task.get_name)
        await task

    async def scenario() -> list[str]:
        log: list[str] = []
        injector = FaultInjector(2, OSError)
        await injector.run(main(log))
        assert injector.points == 0
        return log

    assert run(scenario()) == ["begun", "ended"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")
def test_a_task_that_was_made_by_hand_and_started_eagerly_is_left_alone() -> None:
    """It has taken its first step before the loop knows of it."""

    async def child(log: list[int]) -> None:
        for n in range(3):
            log.append(n)
            await asyncio.sleep(0)

    async def main(log: list[int]) -> None:
        make: Any = asyncio.Task
        await make(child(log), loop=asyncio.get_running_loop(), eager_start=True)

    async def scenario() -> list[int]:
        log: list[int] = []
        await FaultInjector(1, OSError).run(main(log))
        return log

    assert run(scenario()) == [0, 1, 2]
