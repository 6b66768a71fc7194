"""How undo actions are carried out: attempts, limits, reports; and that nothing stops them."""

# pyright: reportUnknownLambdaType=false, reportPossiblyUnboundVariable=false

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import math
import sys
import types
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import pytest
import tenacity
from everywhere import everywhere, memory_only
from returns.future import Future, FutureFailure, FutureResult, FutureSuccess, future_safe
from returns.io import IOFailure, IOSuccess
from returns.result import Failure, Result, Success
from scoping import commit_or_roll_back

from returns_pipeline.compensation import (
    CompensationEntry,
    CompensationRegistry,
    CompensationReport,
    CompensationScope,
    current_key,
)
from returns_pipeline.compensation import _rollback as rollback
from returns_pipeline.errors import CompensationFailed, StepTimeout
from returns_pipeline.retry import RetryPolicy
from returns_pipeline.testing import VirtualTimeLoop, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Container, Coroutine, Generator

T = TypeVar("T")

pytestmark = everywhere


def now() -> float:
    return asyncio.get_running_loop().time()


async def interrupted(
    main: Coroutine[Any, Any, T], points: Container[int], *, late: bool = False
) -> T:
    """Run ``main`` in this task, which is cancelled at those of its waits.

    Counted from 0. The cancellation comes as the wait begins or, ``late``, in the turn of the loop
    in which what was waited for is there.
    """
    task = asyncio.current_task()
    assert task is not None
    step: Callable[[Any], Any] = main.send
    value: Any = None
    for n in itertools.count():
        try:
            awaited = step(value)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]  # a coroutine's own value
        if n in points:
            if late and awaited is not None:
                awaited.add_done_callback(lambda _: task.cancel())
            else:
                task.cancel()
        try:
            value = await _passed_on(awaited)
            step = main.send
        except BaseException as error:
            step, value = main.throw, error
    raise AssertionError


@types.coroutine
def _passed_on(awaited: object) -> Generator[Any, Any, Any]:
    return (yield awaited)


class Undone(list[object]):
    """Undo actions that remember what they were called with, when they are through."""

    async def __call__(self, what: object) -> None:
        await asyncio.sleep(1)
        self.append(what)


@pytest.fixture
def undone() -> Undone:
    return Undone()


def entry_of(
    undo: Callable[[], Any], *, retry: RetryPolicy | None = None, timeout: float | None = None
) -> CompensationEntry:
    """Run one undo action in a scope, and return what the report says of it."""
    known = CompensationRegistry().compensation("undo", retry=retry, timeout=timeout)(undo)

    async def main() -> CompensationEntry:
        scope = CompensationScope("s")
        await scope.register(known)
        report = await scope.compensate()
        (entry,) = report.done + report.failures
        assert (entry.error is None) == bool(report.done)
        return entry

    return run(main())


# What counts as a failure


async def raises() -> None:
    raise OSError("gone")


def raises_at_once() -> Awaitable[None]:
    raise OSError("gone")


async def gives_failure() -> Failure[OSError]:
    return Failure(OSError("gone"))


async def gives_io_failure() -> Any:
    return IOFailure(OSError("gone"))


@future_safe(exceptions=(OSError,))
async def is_future_safe() -> None:
    raise OSError("gone")


def gives_future() -> FutureResult[int, OSError]:
    return FutureFailure(OSError("gone"))


async def gives_future_unawaited() -> Any:
    return FutureFailure(OSError("gone"))


def is_sync() -> Any:
    return Failure(OSError("gone"))


@pytest.mark.parametrize(
    "undo",
    [
        raises,
        raises_at_once,
        gives_failure,
        gives_io_failure,
        is_future_safe,
        gives_future,
        gives_future_unawaited,
        is_sync,
    ],
)
def test_a_failed_undo_is_reported_with_its_error(undo: Callable[[], Any]) -> None:
    entry = entry_of(undo)
    assert repr(entry.error) == "OSError('gone')"
    assert entry.attempts == 1
    assert (entry.name, entry.scope) == ("undo", "s")


@pytest.mark.parametrize(
    "result",
    [
        None,
        0,
        Success(None),
        IOSuccess(1),
        FutureSuccess(1),
        Future.from_value(1),
        ValueError("given and not raised"),
    ],
)
def test_anything_that_is_not_a_failure_is_a_success(result: Any) -> None:
    async def undo() -> Any:
        return result

    assert entry_of(undo).error is None


@pytest.mark.parametrize("result", [Failure(None), IOFailure(None), FutureFailure(None)])
def test_a_failure_without_an_error_is_a_failure(result: Any) -> None:
    async def undo() -> Any:
        return result

    entry = entry_of(undo)
    assert entry.error is not None
    assert repr(entry.error) == "Failure(None)"


class Unusual(BaseException):
    """Neither an Exception nor one that ends the loop, like those of test frameworks."""


@pytest.mark.parametrize("error", [asyncio.CancelledError("by itself"), Unusual("odd")])
def test_whatever_an_undo_raises_the_others_are_run(undone: Undone, error: BaseException) -> None:
    async def undo() -> None:
        raise error

    async def main() -> None:
        scope = CompensationScope()
        await scope.register(undone, 1)
        await scope.register(undo)
        await scope.register(undone, 2)
        report = await scope.compensate()
        assert [entry.error for entry in report.failures] == [error]

    run(main())
    assert undone == [2, 1]


def test_an_undo_that_awaits_a_cancelled_task_has_failed_and_may_try_again() -> None:
    attempts = 0

    async def undo() -> None:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            task = asyncio.create_task(asyncio.sleep(1))
            task.cancel()
            await task

    entry = entry_of(undo, retry=RetryPolicy(attempts=3, wait=1))
    assert (entry.attempts, entry.error) == (3, None)


@pytest.mark.parametrize("order", ["reverse", "parallel"])
@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_what_ends_the_loop_ends_it_and_the_others_are_run(
    undone: Undone, error: BaseException, order: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The loop raises it at once; the runner then lets all tasks end, and so the rollback."""
    reports: list[CompensationReport] = []

    async def undo() -> None:
        await asyncio.sleep(0.5)
        raise error

    async def main() -> None:
        scope = CompensationScope(order=order)
        await scope.register(undone, 1)
        await scope.register(undo)
        try:
            reports.append(await scope.compensate())
        finally:
            reports.append(scope.report)

    with pytest.raises(type(error)) as raised:
        run(main())
    assert raised.value is error
    (report,) = reports
    assert report.failures[0].error is error
    if order == "reverse":
        assert undone == [1]
    else:  # it was running, and was cancelled by the runner
        assert isinstance(report.failures[1].error, asyncio.CancelledError)
    gc.collect()
    assert {record.name for record in caplog.records} == {
        "returns_pipeline.compensation"
    }  # asyncio has no say


def test_on_failure_stop_leaves_the_rest(undone: Undone) -> None:
    async def main() -> None:
        scope = CompensationScope("s", on_failure="stop")
        await scope.register(undone, 1)
        await scope.child().register(undone, 2)
        await scope.register(raises)
        await scope.register(undone, 3)
        report = await scope.compensate()
        assert [entry.args for entry in report.done] == [(3,)]
        assert [entry.name for entry in report.failures] == ["raises"]
        assert [(e.args, e.attempts, e.error) for e in report.not_run] == [
            ((2,), 0, None),
            ((1,), 0, None),
        ]
        with pytest.raises(CompensationFailed) as failed:
            report.check()
        assert failed.value.scope == "s"
        assert failed.value.actions == (
            "undo raises() failed, attempt 1: OSError('gone')",
            "undo Undone(2) was not run",
            "undo Undone(1) was not run",
        )

    run(main())
    assert undone == [3]


def test_a_report_without_failures_checks(undone: Undone) -> None:
    async def main() -> None:
        scope = CompensationScope("s")
        await scope.register(undone, 1)
        report = await scope.compensate()
        report.check()
        assert report.notes() == []
        assert report.scope == "s"
        CompensationReport().check()

    run(main())


# Attempts


def test_attempts_are_made_at_exact_times() -> None:
    times: list[float] = []

    async def undo() -> Any:
        times.append(now())
        await asyncio.sleep(1)
        if len(times) == 2:
            return Failure("not yet")
        if len(times) < 4:
            raise OSError
        return None

    wait = tenacity.wait_chain(*[tenacity.wait_fixed(n) for n in (2, 5, 10)])
    entry = entry_of(undo, retry=RetryPolicy(attempts=9, wait=wait))
    assert times == [0, 3, 9, 20]
    assert (entry.attempts, entry.error) == (4, None)


def test_attempts_end_with_the_last_error() -> None:
    errors = iter([OSError(1), OSError(2), OSError(3)])

    async def undo() -> None:
        raise next(errors)

    entry = entry_of(undo, retry=RetryPolicy(attempts=3, wait=1))
    assert (entry.attempts, repr(entry.error)) == (3, "OSError(3)")


def test_a_wait_strategy_that_fails_ends_the_attempts() -> None:
    def wait(state: tenacity.RetryCallState) -> float:
        raise LookupError(state.attempt_number)

    entry = entry_of(raises, retry=RetryPolicy(attempts=3, wait=wait))
    assert (entry.attempts, repr(entry.error)) == (1, "OSError('gone')")


def test_the_time_limit_cuts_attempts_off() -> None:
    times: list[float] = []

    async def undo() -> None:
        times.append(now())
        raise OSError(len(times))

    entry = entry_of(undo, retry=RetryPolicy(attempts=99, wait=4), timeout=10)
    assert times == [0, 4, 8]
    assert entry.attempts == 3
    assert entry.error == StepTimeout("undo", 10)
    assert isinstance(entry.error, StepTimeout)
    assert repr(entry.error.__cause__) == "OSError(3)"  # why it was still trying


def test_the_time_limit_does_not_hide_the_failure_before_it() -> None:
    async def undo() -> Any:
        return Failure("locked")

    entry = entry_of(undo, retry=RetryPolicy(attempts=9, wait=60), timeout=10)
    assert isinstance(entry.error, StepTimeout)
    assert entry.error.__notes__ == ["the attempt before failed: 'locked'"]


# Time limits


def test_an_undo_that_outlasts_its_time_is_cancelled_and_the_others_run(undone: Undone) -> None:
    cancelled: list[float] = []

    async def hang() -> None:
        try:
            await asyncio.sleep(math.inf)
        finally:
            cancelled.append(now())
            await asyncio.sleep(2)  # its clean-up has time

    async def main() -> None:
        scope = CompensationScope(timeout=20)
        await scope.register(undone, 1)
        await scope.register(hang)
        await scope.register(undone, 2)
        report = await scope.compensate()
        assert cancelled == [21]
        assert now() == 24
        (failed,) = report.failures
        assert (failed.error, failed.attempts) == (StepTimeout(hang.__qualname__, 20), 1)
        assert isinstance(failed.error, StepTimeout)
        assert failed.error.__cause__ is None

    run(main())
    assert undone == [2, 1]


def test_a_compensation_s_own_time_goes_before_the_scope_s() -> None:
    registry = CompensationRegistry()

    @registry.compensation("quick", timeout=1)
    async def quick() -> None:
        await asyncio.sleep(math.inf)

    @registry.compensation("slow", timeout=math.inf)
    async def slow() -> None:
        await asyncio.sleep(1000)

    async def main() -> None:
        scope = CompensationScope(timeout=5)
        await scope.register(quick)
        await scope.register(slow)
        report = await scope.compensate()
        assert [entry.name for entry in report.failures] == ["quick"]
        assert now() == 1001

    run(main())


def test_a_rollback_leaves_no_timer_behind(undone: Undone) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        for scope in CompensationScope(), CompensationScope(order="parallel"):
            await scope.register(undone, 1)
            await scope.register(raises)
            await scope.compensate()
        assert [timer for timer in loop._scheduled if not timer.cancelled()] == []

    run(main())


def test_times_run_side_by_side_in_parallel() -> None:
    async def hang() -> None:
        await asyncio.sleep(math.inf)

    async def main() -> None:
        scope = CompensationScope(order="parallel", timeout=7)
        for _ in range(3):
            await scope.register(hang)
        assert len((await scope.compensate()).failures) == 3
        assert now() == 7

    run(main())


def test_an_undo_that_ends_well_while_it_is_cut_off_is_done() -> None:
    async def undo() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(math.inf)
        await asyncio.sleep(1)

    entry = entry_of(undo, timeout=3)
    assert (entry.error, entry.attempts) == (None, 1)


@pytest.mark.parametrize("error", [None, OSError("at last")])
def test_an_undo_that_ends_in_the_very_moment_is_not_late(error: Exception | None) -> None:
    async def undo() -> None:
        await asyncio.sleep(3)
        if error is not None:
            raise error

    assert entry_of(undo, timeout=3).error in (error, StepTimeout("undo", 3))
    # One turn of the loop before the limit, it is not cut off whatever it does.
    assert entry_of(undo, timeout=3.001).error is error


@pytest.mark.parametrize("held_up_until", [5, 10])
def test_an_undo_that_is_through_when_its_time_is_noticed_keeps_its_outcome(
    held_up_until: float,
) -> None:
    """The loop was held up: the last step of the task and its timer come in the same turn."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        ready = loop.create_future()

        def hold_up() -> None:
            ready.set_result(None)
            loop.jump(1)

        async def undo() -> None:
            loop.call_at(held_up_until - 1, hold_up)
            if held_up_until > 5:
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(math.inf)
            await ready
            raise OSError("gone")

        scope = CompensationScope(timeout=5)
        await scope.register(undo)
        (failed,) = (await scope.compensate()).failures
        if held_up_until == 5:
            assert repr(failed.error) == "OSError('gone')"
        else:  # it was late already, and had ignored its cancellation until now
            assert isinstance(failed.error, StepTimeout)
            assert repr(failed.error.__cause__) == "OSError('gone')"
            assert not hasattr(failed.error, "__notes__")

    run(main())


def test_what_the_clean_up_raises_is_the_cause() -> None:
    async def undo() -> None:
        try:
            await asyncio.sleep(math.inf)
        finally:
            raise OSError("connection lost")

    entry = entry_of(undo, retry=RetryPolicy(attempts=5, wait=0), timeout=3)
    assert isinstance(entry.error, StepTimeout)
    assert repr(entry.error.__cause__) == "OSError('connection lost')"
    assert entry.attempts == 1  # its time has passed: no further attempt


def test_an_undo_that_ignores_its_cancellation_is_abandoned_and_reported(
    undone: Undone, caplog: pytest.LogCaptureFixture
) -> None:
    async def stubborn() -> None:
        while now() < 60:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(60 - now())
        raise OSError("nothing asks any more")

    async def main() -> None:
        scope = CompensationScope(timeout=10)
        await scope.register(undone, 1)
        await scope.register(stubborn)
        report = await scope.compensate()
        assert now() == 16  # 10 to its limit, 5 of grace, 1 for the other
        (failed,) = report.failures
        assert failed.error == StepTimeout(stubborn.__qualname__, 10)
        assert isinstance(failed.error, StepTimeout)
        assert failed.error.__notes__ == ["it ignored its cancellation for 5 s: left running"]
        gc.collect()  # the loop holds tasks weakly; this one is held nevertheless
        assert "has ended" not in caplog.text
        await asyncio.sleep(60)
        name = f"undo {stubborn.__qualname__}"
        assert f"{name} was abandoned: it ignored its cancellation for 5 s" in caplog.text
        assert f"{name}, which had been abandoned, has ended" in caplog.text
        assert scope.report is report  # its late end changes nothing
        names = {record.name for record in caplog.records}
        assert names == {"returns_pipeline.compensation", "returns_pipeline.engine"}

    run(main())
    assert undone == [1]


def test_what_was_abandoned_may_end_well_and_is_still_reported(undone: Undone) -> None:
    """In parallel it ends while the others are still waited for."""

    async def stubborn() -> None:
        while now() < 18:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(18 - now())

    async def hang() -> None:
        try:
            await asyncio.sleep(math.inf)
        finally:
            await asyncio.sleep(4)

    registry = CompensationRegistry()

    async def main() -> None:
        scope = CompensationScope(order="parallel", timeout=10)
        await scope.register(stubborn)
        await scope.register(registry.compensation("slow", timeout=20)(hang))
        report = await scope.compensate()
        assert now() == 24
        assert [entry.error for entry in report.failures] == [
            StepTimeout("slow", 20),
            StepTimeout(stubborn.__qualname__, 10),
        ]

    run(main())


def test_an_undo_that_waits_for_its_own_rollback_is_abandoned() -> None:
    """It can never end by itself; its time limit ends the rollback."""

    async def main() -> None:
        scope = CompensationScope(timeout=10)
        await scope.register(scope.compensate)
        report = await scope.compensate()
        assert now() == 15
        assert isinstance(report.failures[0].error, StepTimeout)
        await asyncio.sleep(1)

    run(main())


# Reports and logs


def test_what_could_not_be_undone_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    entry_of(raises)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("returns_pipeline.compensation", logging.ERROR)
    assert record.getMessage() == "scope 's': undo undo() failed, attempt 1: OSError('gone')"


class Unprintable(OSError):
    def __repr__(self) -> str:
        raise RuntimeError("detached from its session")


@memory_only  # such arguments cannot be put on record
def test_lines_are_short_and_survive_what_cannot_be_shown() -> None:
    async def undo(batch: object, *, other: object) -> None:
        raise Unprintable

    async def main() -> None:
        scope = CompensationScope()
        await scope.register(undo, list(range(100_000)), other=Unprintable())
        await scope.register(undo, "x" * 100_000, other="batch-0123456789-0123456789-0123456789")
        report = await scope.compensate()
        assert len(report.failures) == 2
        for note in report.notes():
            assert len(note) < 600
        assert "batch-0123456789-0123456789-0123456789" in report.notes()[0]  # ids are kept

    run(main())


def test_entries_show_the_call() -> None:
    entry = CompensationEntry("delete", (1, "a"), {"force": True})
    assert str(entry) == "delete(1, 'a', force=True)"
    assert (entry.attempts, entry.error, entry.scope) == (0, None, "")


def test_the_key_in_an_undo_is_the_one_of_its_scope() -> None:
    seen: list[str] = []

    async def undo() -> None:
        seen.append(current_key())
        await asyncio.create_task(inside())

    async def inside() -> None:
        seen.append(current_key())

    async def main() -> None:
        with pytest.raises(LookupError):
            current_key()
        root = CompensationScope()
        child = root.child()
        await root.register(undo)
        await child.register(undo)
        await root.compensate()
        assert seen == [child.key, child.key, root.key, root.key]
        with pytest.raises(LookupError):
            current_key()

    run(main())


# Cancellation of the caller


async def rolled_back(undone: Undone) -> None:
    async with CompensationScope() as scope:
        for n in 1, 2, 3:
            await scope.register(undone, n)
        raise ValueError("no")


@memory_only  # on a journal the registering waits too, and would be what is cancelled
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("points", [range(n, n + k) for n in range(4) for k in (1, 2, 7)])
def test_cancellations_neither_stop_nor_hurry_a_rollback(points: range, late: bool) -> None:
    undone = Undone()

    async def main() -> None:
        task = asyncio.create_task(interrupted(rolled_back(undone), points, late=late))
        await asyncio.wait({task})
        assert undone == [3, 2, 1]
        assert now() == 3
        if task.cancelling():
            assert task.cancelled()
        else:
            with pytest.raises(ValueError, match="no"):
                task.result()
            assert points.start > 0  # there is one wait only, unless it is interrupted

    run(main())


def test_a_cancellation_during_the_rollback_follows_the_exception() -> None:
    """It is raised instead; the exception, with its notes, is its context."""

    async def fails() -> None:
        await asyncio.sleep(1)
        raise OSError("gone")

    async def main() -> None:
        error = ValueError("no")

        async def work() -> None:
            async with CompensationScope() as scope:
                await scope.register(fails)
                raise error

        task = asyncio.create_task(work())
        for n in range(3):
            await asyncio.sleep(0.1)
            assert task.cancel(f"number {n}")
        await asyncio.wait({task})
        with pytest.raises(asyncio.CancelledError, match="number 0") as raised:
            await task
        assert raised.value.__context__ is error
        assert len(error.__notes__) == 1
        assert task.cancelling() == 3

    run(main())


def test_the_first_cancellation_is_the_one_that_propagates(undone: Undone) -> None:
    async def main() -> None:
        async def work() -> None:
            async with CompensationScope() as scope:
                await scope.register(undone, 1)
                await asyncio.sleep(math.inf)

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        for n in range(5):
            assert task.cancel(f"number {n}")
            await asyncio.sleep(0.1)
        await asyncio.wait({task})
        with pytest.raises(asyncio.CancelledError, match="number 0"):
            await task
        assert task.cancelling() == 5
        assert now() == 1

    run(main())
    assert undone == [1]


@pytest.mark.parametrize("ask", ["compensate", "settle"])
def test_a_cancelled_question_leaves_its_answer(undone: Undone, ask: str) -> None:
    async def main() -> None:
        scope = CompensationScope()
        await scope.register(undone, 1)
        task = asyncio.create_task(
            scope.compensate() if ask == "compensate" else commit_or_roll_back(scope, keep=False)
        )
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert undone == [1]
        assert [entry.args for entry in scope.report.done] == [(1,)]
        assert scope.closed == (ask == "compensate")

    run(main())


def test_a_timeout_around_a_rollback_is_still_a_timeout(undone: Undone) -> None:
    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        for body in asyncio.sleep(math.inf), rolled_back(Undone()):
            begun = now()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5), CompensationScope() as scope:
                    await scope.register(undone, 1)
                    await body
            assert task.cancelling() == 0
            assert now() > begun + 1.4
        await asyncio.sleep(1)  # the task works as before

    run(main())
    assert undone == [1, 1]


def test_nested_timeouts_end_as_themselves(undone: Undone) -> None:
    async def main() -> None:
        inner = asyncio.timeout(0.5)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10) as outer:
                with pytest.raises(TimeoutError):
                    async with inner:
                        await rolled_back(undone)
                assert inner.expired()
                assert not outer.expired()
                assert now() == 3
                await asyncio.sleep(math.inf)
        assert now() == 10

    run(main())


def test_wait_for_waits_for_the_rollback(undone: Undone) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(rolled_back(undone), 0.5)
        assert now() == 3

    run(main())
    assert undone == [3, 2, 1]


def test_a_task_group_ends_with_its_members_rolled_back(undone: Undone) -> None:
    async def main() -> None:
        async def member(n: int) -> None:
            async with CompensationScope() as scope:
                await scope.register(undone, n)
                await asyncio.sleep(math.inf)

        with pytest.raises(ExceptionGroup) as raised:
            async with asyncio.TaskGroup() as group:
                group.create_task(member(1))
                group.create_task(member(2))
                await asyncio.sleep(1)
                raise ValueError("no")
        assert raised.group_contains(ValueError, match="no")
        assert sorted(undone, key=str) == [1, 2]
        assert now() == 2

    run(main())


def test_a_task_group_inside_a_scope_has_ended_before_the_rollback(undone: Undone) -> None:
    async def main() -> None:
        async def member(scope: CompensationScope) -> None:
            try:
                await asyncio.sleep(math.inf)
            finally:
                await scope.register(undone, "late")  # still taken
                await asyncio.sleep(1)

        async def fails() -> None:
            await asyncio.sleep(1)
            raise ValueError("no")

        with pytest.raises(ExceptionGroup):
            async with CompensationScope() as scope, asyncio.TaskGroup() as group:
                group.create_task(member(scope))
                group.create_task(fails())
        assert now() == 3

    run(main())
    assert undone == ["late"]


def test_cancelling_all_tasks_does_not_lose_actions(undone: Undone) -> None:
    """The usual end of a program; it may hit a rollback in any turn of the loop."""

    async def main(turns: int) -> None:
        scope = CompensationScope()
        await scope.register(undone, 1)
        await scope.register(undone, 2)
        asking = asyncio.create_task(scope.compensate())
        for _ in range(turns):
            await asyncio.sleep(0)
        me = asyncio.current_task()
        for task in asyncio.all_tasks():
            if task is not me:
                task.cancel()
        await asyncio.wait({asking})
        report = scope.report
        assert [e.args for e in report.done] == [(n,) for n in undone]
        # One that was running has failed by it; the others are run.
        assert [type(e.error) for e in report.failures] in ([], [asyncio.CancelledError])
        assert len(report.done) + len(report.failures) == 2
        assert all(entry.attempts == 1 for entry in report.done + report.failures)

    for turns in range(1, 12):
        undone.clear()
        run(main(turns))


def test_a_cancelled_wait_between_attempts_ends_them() -> None:
    async def main() -> None:
        scope = CompensationScope()
        registry = CompensationRegistry()
        policy = RetryPolicy(attempts=9, wait=100)
        await scope.register(registry.compensation("u", retry=policy, timeout=200)(raises))
        asking = asyncio.create_task(scope.compensate())
        await asyncio.sleep(1)
        for task in asyncio.all_tasks():
            if task.get_name() == "undo u":
                task.cancel()
        report = await asking
        assert (report.failures[0].attempts, now()) == (1, 1)
        assert repr(report.failures[0].error) == "OSError('gone')"

    run(main())


# anyio cancels a scope by level: again in each turn of the loop, until it is left.


class Turns:
    """Count the turns of the loop."""

    def __init__(self) -> None:
        self.count = 0
        self._loop = asyncio.get_running_loop()
        self._run_once: Callable[[], None] = self._loop._run_once  # type: ignore[attr-defined]
        self._loop._run_once = self._turn  # type: ignore[attr-defined]

    def _turn(self) -> None:
        self.count += 1
        self._run_once()


async def turns_from_now(undone: Undone) -> Turns:
    """Count when the journal is open: connecting to a server takes turns, too."""
    async with CompensationScope() as scope:
        await scope.register(undone, -1)
    return Turns()


async def in_anyio_scope(undone: Undone, *, nested: bool, cancel: str) -> None:
    async def work() -> None:
        async with CompensationScope() as scope:
            for n in range(3):
                await scope.register(undone, n)
            await asyncio.sleep(0.5)
            if cancel == "by itself":
                anyio_scope.cancel()
            elif cancel == "later":
                asyncio.get_running_loop().call_later(1, anyio_scope.cancel)
                raise ValueError("no")
            await asyncio.sleep(math.inf)

    deadline = 1 if cancel == "deadline" else math.inf
    with anyio.move_on_after(deadline) as anyio_scope:
        if nested:
            with anyio.CancelScope():
                async with anyio.create_task_group() as group:
                    group.start_soon(asyncio.sleep, math.inf)
                    await work()
        else:
            await work()
    assert anyio_scope.cancelled_caught


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("cancel", ["deadline", "by itself"])
def test_an_anyio_cancel_scope_waits_for_the_rollback_without_spinning(
    undone: Undone, nested: bool, cancel: str
) -> None:
    async def main() -> None:
        turns = await turns_from_now(undone)
        await in_anyio_scope(undone, nested=nested, cancel=cancel)
        assert undone == [2, 1, 0]
        assert now() == (4 if cancel == "deadline" else 3.5)
        assert turns.count < 100
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(1)  # the task works as before

    run(main())


def test_an_anyio_scope_cancelled_during_the_rollback_raises_the_exception_afterwards(
    undone: Undone,
) -> None:
    async def main() -> None:
        turns = await turns_from_now(undone)
        with pytest.raises(ValueError, match="no"):
            await in_anyio_scope(undone, nested=False, cancel="later")
        assert undone == [2, 1, 0]
        assert turns.count < 100

    run(main())


def test_an_anyio_scope_around_the_tasks_that_ask(undone: Undone) -> None:
    """``compensate()`` finishes; the cancellation comes with the next wait in the scope."""

    async def main() -> None:
        turns = await turns_from_now(undone)
        scope = CompensationScope()
        await scope.register(undone, 1)
        with anyio.move_on_after(0.5) as anyio_scope:
            report = await scope.compensate()
            assert len(report.done) == 1
            await asyncio.sleep(math.inf)
        assert anyio_scope.cancelled_caught
        assert now() == 1
        assert turns.count < 100

    run(main())


def test_native_cancellations_in_a_cancelled_anyio_scope(undone: Undone) -> None:
    async def main() -> None:
        turns = await turns_from_now(undone)
        task = asyncio.create_task(in_anyio_scope(undone, nested=False, cancel="by itself"))
        for _ in range(6):
            await asyncio.sleep(0.3)
            task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert undone == [2, 1, 0]
        assert turns.count < 200

    run(main())


def test_an_undo_may_use_anyio_in_a_cancelled_scope(undone: Undone) -> None:
    async def undo(n: int) -> None:
        with anyio.fail_after(2):
            await anyio.sleep(1)
        await undone(n)

    async def main() -> None:
        with anyio.CancelScope() as anyio_scope:
            async with CompensationScope() as scope:
                await scope.register(undo, 1)
                anyio_scope.cancel()
                await anyio.sleep(1)
        assert len(scope.report.done) == 1

    run(main())
    assert undone == [1]


def test_without_anyio_it_is_not_loaded(undone: Undone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "anyio")
    run_with = pytest.raises(ValueError, match="no")

    async def main() -> None:
        with run_with:
            await rolled_back(undone)

    run(main())
    assert "anyio" not in sys.modules
    assert undone == [3, 2, 1]


def test_a_fault_in_the_rollback_itself_reaches_the_tasks_that_wait(
    undone: Undone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(action: object) -> None:
        raise MemoryError

    async def main() -> None:
        scope = CompensationScope()
        await scope.register(undone, 1)
        monkeypatch.setattr(rollback, "Undo", broken)
        with pytest.raises(MemoryError):
            await scope.compensate()

    run(main())


@pytest.mark.parametrize("fails", ["raises", "returns"])
def test_a_wait_that_raises_does_not_replace_the_error_of_the_undo(
    fails: str, caplog: pytest.LogCaptureFixture
) -> None:
    def wait(_: object) -> float:
        raise ZeroDivisionError("no such wait")

    async def undo() -> Result[None, OSError]:
        if fails == "raises":
            raise OSError("the store is down")
        return Failure(OSError("the store is down"))

    async def main() -> None:
        scope = CompensationScope("s")
        registry = CompensationRegistry()
        policy = RetryPolicy(attempts=3, wait=wait)
        await scope.register(registry.compensation("undo", retry=policy)(undo))
        (entry,) = (await scope.compensate()).failures
        assert repr(entry.error) == "OSError('the store is down')"
        assert isinstance(entry.error, OSError)
        assert "its retry policy failed: ZeroDivisionError" in entry.error.__notes__[-1]

    run(main())
    assert "its retry policy failed: ZeroDivisionError" in caplog.text


@memory_only  # no journal stores such a name
def test_the_name_of_an_undo_that_no_stream_can_write_is_escaped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def undo(*, path: str) -> None:
        raise OSError(path)

    undo.__qualname__ = "un\ud800do"

    async def main() -> None:
        with pytest.raises(KeyError) as caught:
            async with CompensationScope("s\ud800") as scope:
                await scope.register(undo, path="\udfff")
                raise KeyError
        assert "un\\ud800do(path=" in caught.value.__notes__[-1]
        assert "\ud800" not in "".join(caught.value.__notes__)

    run(main())
    assert "un\\ud800do(path=" in caplog.text
    _ = caplog.text.encode()


async def _yields(log: list[str]) -> AsyncIterator[None]:
    log.append("undone")
    yield


def _returns_a_function(log: list[str]) -> Any:
    return lambda: log.append("undone")


@pytest.mark.parametrize("undo", [_yields, _returns_a_function])
def test_an_undo_of_which_nothing_was_run_has_failed(undo: Any) -> None:
    """A slip that type checkers find; a report that it was done would hide it."""
    log: list[str] = []

    async def main() -> None:
        scope = CompensationScope("upload")
        await scope.register(undo, log)
        report = await scope.compensate()
        assert (log, report.done) == ([], ())
        [failure] = report.failures
        assert "of which nothing was run" in str(failure.error)

    run(main())
