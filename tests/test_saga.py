"""Sagas: steps in order, undone in reverse, by their own outputs."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from everywhere import everywhere, memory_only
from hypothesis import given
from hypothesis import strategies as st
from returns.io import IOFailure, IOSuccess
from returns.result import Failure, Result, Success

from returns_pipeline._engine.future_results import to_result
from returns_pipeline.compensation import CompensationRegistry, CompensationReport, current_key
from returns_pipeline.context import StepContext
from returns_pipeline.errors import InvalidArgument, StepTimeout
from returns_pipeline.journal import SqliteJournal
from returns_pipeline.retry import RetryEvent, RetryPolicy, Timeout
from returns_pipeline.saga import Saga
from returns_pipeline.testing import run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

pytestmark = everywhere


class World:
    """Effects, and the steps that make and undo them."""

    def __init__(self) -> None:
        self.effects: list[int] = []
        self.log: list[str] = []

    async def add(self, value: int) -> Result[int, str]:
        await asyncio.sleep(1)
        self.effects.append(value)
        self.log.append(f"did {value}")
        return Success(value + 1)

    async def undo(self, value: int) -> None:
        await asyncio.sleep(1)
        self.effects.remove(value - 1)
        self.log.append(f"undid {value - 1}")

    async def fail(self, value: int) -> Result[int, str]:
        await asyncio.sleep(1)
        return Failure(f"no {value}")


def now() -> float:
    return asyncio.get_running_loop().time()


def test_each_step_takes_the_output_of_the_one_before() -> None:
    world = World()
    saga = Saga("s").step("a", world.add, undo=world.undo).step("b", world.add, undo=world.undo)
    assert run(to_result(saga.run(1))) == Success(3)
    assert world.effects == [1, 2]


def test_a_failure_undoes_the_steps_before_it_newest_first_by_their_outputs() -> None:
    world = World()
    saga = (
        Saga("s")
        .step("a", world.add, undo=world.undo)
        .step("b", world.add, undo=world.undo)
        .step("c", world.fail, undo=world.undo)
    )
    assert run(to_result(saga.run(1))) == Failure("no 3")
    assert world.log == ["did 1", "did 2", "undid 2", "undid 1"]


def test_an_exception_propagates_as_the_same_object_when_all_is_undone() -> None:
    world = World()
    bug = ZeroDivisionError()

    async def broken(value: int) -> Result[int, str]:
        raise bug

    async def main() -> None:
        saga = Saga("s").step("a", world.add, undo=world.undo).step("b", broken)
        with pytest.raises(ZeroDivisionError) as caught:
            await saga.run(1)
        assert caught.value is bug
        assert world.effects == []

    run(main())


def test_a_step_without_undo_is_left_as_it_is() -> None:
    world = World()
    saga = Saga("s").step("a", world.add).step("b", world.fail)
    assert run(to_result(saga.run(1))) == Failure("no 2")
    assert world.effects == [1]


def test_an_undo_may_be_a_lambda_and_a_step_a_future_result() -> None:
    from returns.future import future_safe

    world = World()

    @future_safe(exceptions=(KeyError,))
    async def look_up(value: int) -> int:
        return {1: 10}[value]

    saga = Saga("s").step("a", world.add, undo=lambda n: world.undo(n)).step("b", look_up)
    assert repr(run(to_result(saga.run(1)))) == "<Failure: 2>"
    assert world.effects == []


def test_after_the_pivot_nothing_is_undone_and_steps_are_retried() -> None:
    world = World()
    tries: list[float] = []

    async def flaky(value: int) -> Result[int, str]:
        tries.append(now())
        return Success(value) if len(tries) == 3 else Failure("not yet")

    async def main() -> None:
        saga = Saga("s").step("a", world.add, undo=world.undo).pivot().step("b", flaky)
        assert await saga.run(1) == IOSuccess(2)
        assert len(tries) == 3  # by the default policy
        assert tries[1] > tries[0]
        failing = Saga("s").step("a", world.add, undo=world.undo).pivot().step("b", world.fail)
        assert await failing.run(5) == IOFailure("no 6")

    run(main())
    assert world.effects == [1, 5]


def test_a_failure_before_the_pivot_undoes() -> None:
    world = World()
    saga = Saga("s").step("a", world.add, undo=world.undo).step("b", world.fail).pivot()
    assert run(to_result(saga.run(1))) == Failure("no 2")
    assert world.effects == []


def test_a_cancellation_after_the_pivot_undoes_nothing() -> None:
    world = World()

    async def main() -> None:
        saga = Saga("s").step("a", world.add, undo=world.undo).pivot().step("b", world.add)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(saga.run(1), 1.5)

    run(main())
    assert world.effects == [1]


def test_a_pivot_at_the_end_holds_against_the_context() -> None:
    """The context around a saga does not take over actions from before a pivot."""
    world = World()

    async def main() -> None:
        last = Saga("s").step("a", world.add, undo=world.undo).pivot()
        open_ended = Saga("t").step("a", world.add, undo=world.undo)
        with pytest.raises(ZeroDivisionError):
            async with StepContext("outer") as ctx:
                assert await last.run(1, ctx) == IOSuccess(2)
                assert await open_ended.run(7, ctx) == IOSuccess(8)
                assert len(ctx.scope) == 1
                raise ZeroDivisionError

    run(main())
    assert world.effects == [1]


def test_within_a_context_a_failed_saga_undoes_its_own_steps_only() -> None:
    world = World()

    async def main() -> None:
        async with StepContext("outer") as ctx:
            saga = Saga("s").step("a", world.add, undo=world.undo)
            assert await saga.run(1, ctx) == IOSuccess(2)
            assert await saga.step("b", world.fail).run(5, ctx) == IOFailure("no 6")
            assert world.effects == [1]

    run(main())
    assert world.effects == [1]


def test_a_step_is_retried_by_its_policy_and_the_last_failure_counts() -> None:
    times: list[float] = []

    async def flaky(value: int) -> Result[int, str]:
        times.append(now())
        return Failure(f"try {len(times)}")

    saga = Saga("s").step("a", flaky, retry=RetryPolicy(attempts=3, wait=2.0))
    assert run(to_result(saga.run(1))) == Failure("try 3")
    assert times == [0.0, 2.0, 4.0]


def test_a_cancellation_while_a_retry_waits_undoes_the_steps_before() -> None:
    world = World()

    async def main() -> None:
        saga = (
            Saga("s")
            .step("a", world.add, undo=world.undo)
            .step("b", world.fail, retry=RetryPolicy(attempts=9, wait=100.0))
        )
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(saga.run(1), 50)
        assert now() == 51.0  # the undo takes a second

    run(main())
    assert world.effects == []


def test_a_step_that_takes_too_long_has_failed() -> None:
    world = World()

    async def slow(value: int) -> Result[int, str]:
        await asyncio.sleep(10)
        return Success(value)

    async def main() -> None:
        saga = Saga("s").step("a", world.add, undo=world.undo).step("b", slow, timeout=2.0)
        assert await saga.run(1) == IOFailure(StepTimeout("b", 2.0))
        assert now() == 4.0  # a second, two of waiting, and the undo's second

    run(main())
    assert world.effects == []


def test_a_timeout_counts_for_each_attempt() -> None:
    waits = [10.0, 1.0]

    async def slow_once(value: int) -> Result[int, str]:
        await asyncio.sleep(waits.pop(0))
        return Success(value)

    async def main() -> None:
        saga = Saga("s").step("a", slow_once, timeout=2.0, retry=RetryPolicy(attempts=2, wait=0.0))
        assert await saga.run(1) == IOSuccess(1)
        assert now() == 3.0

    run(main())


def test_a_timeout_may_be_a_timedelta() -> None:
    world = World()

    async def main() -> None:
        saga = Saga("s").step("b", world.add, timeout=timedelta(seconds=0.5))
        assert await to_result(saga.run(1)) == Failure(StepTimeout("b", 0.5))

    run(main())


def test_a_timeout_error_of_the_steps_own_is_a_bug_and_not_the_time_limit() -> None:
    async def own(value: int) -> Result[int, str]:
        raise TimeoutError("mine")

    async def main() -> None:
        with pytest.raises(TimeoutError, match="mine"):
            await Saga("s").step("a", own, timeout=2.0).run(1)

    run(main())


def test_what_a_step_raises_when_it_is_cut_off_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def messy(value: int) -> Result[int, str]:
        try:
            await asyncio.sleep(5)
        finally:
            raise TimeoutError("in the clean-up")

    saga = Saga("s").step("a", messy, timeout=2.0)
    assert run(to_result(saga.run(1))) == Failure(StepTimeout("a", 2.0))
    assert "in the clean-up" in caplog.text


def test_an_attempt_that_succeeds_after_its_time_limit_is_undone_before_the_next() -> None:
    world = World()
    tries: list[int] = []

    async def stubborn(value: int) -> Result[int, str]:
        tries.append(value)
        try:
            await asyncio.sleep(5 if len(tries) == 1 else 0)
        except asyncio.CancelledError:
            return await world.add(value)
        return await world.add(value)

    async def main() -> None:
        once = Saga("s").step("a", stubborn, undo=world.undo, timeout=2.0)
        assert await once.run(1) == IOFailure(StepTimeout("a", 2.0))
        assert world.log == ["did 1", "undid 1"]
        tries.clear()
        policy = RetryPolicy(attempts=2, wait=0.0)
        twice = Saga("s").step("a", stubborn, undo=world.undo, timeout=2.0, retry=policy)
        assert await twice.run(5) == IOSuccess(6)

    run(main())
    assert world.log == ["did 1", "undid 1", "did 5", "undid 5", "did 5"]


def test_an_attempt_that_ignores_its_cancellation_is_abandoned_and_undone_when_it_succeeds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()

    async def deaf(value: int) -> Result[int, str]:
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            await asyncio.sleep(60)
        return await world.add(value)

    async def main() -> None:
        saga = (
            Saga("s")
            .step("a", world.add, undo=world.undo)
            .step("b", deaf, undo=world.undo, timeout=Timeout(2.0, grace=1.0))
        )
        assert await saga.run(1) == IOFailure(StepTimeout("b", 2.0))
        assert now() == 5.0  # a second each for "a", the grace and the undo, and two of waiting
        assert world.log == ["did 1", "undid 1"]
        assert "b was abandoned" in caplog.text
        await asyncio.sleep(100)

    run(main())
    assert world.log == ["did 1", "undid 1", "did 2", "undid 2"]
    assert world.effects == []


def test_an_output_that_comes_too_late_is_undone_by_the_journal_too(tmp_path: Path) -> None:
    registry = CompensationRegistry()
    undone: list[int] = []

    @registry.compensation("undo")
    async def undo(value: int) -> None:
        undone.append(value)

    async def deaf(value: int) -> Result[int, str]:
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            await asyncio.sleep(60)
        return Success(value + 1)

    async def main() -> None:
        async with SqliteJournal(tmp_path / "journal.db") as journal:
            saga = Saga("s").step("a", deaf, undo=undo, timeout=Timeout(2.0, grace=1.0))
            ctx = StepContext("outer", journal=journal)
            assert await ctx.run(saga.run(1, ctx)) == IOFailure(StepTimeout("a", 2.0))
            await asyncio.sleep(100)
            assert undone == [2]
            (stored,) = await journal.sagas()
            assert [action.state for action in stored.actions] == ["done"]

    run(main())


def test_an_exception_that_the_policy_names_is_retried_and_in_the_end_propagates() -> None:
    world = World()
    tries: list[float] = []

    async def flaky(value: int) -> Result[int, str]:
        tries.append(now())
        raise ConnectionError(f"try {len(tries)}")

    async def main() -> None:
        policy = RetryPolicy(attempts=3, wait=2.0, retry_on=OSError)
        saga = Saga("s").step("a", world.add, undo=world.undo).step("b", flaky, retry=policy)
        with pytest.raises(ConnectionError, match="try 3"):
            await saga.run(1)
        assert tries == [1.0, 3.0, 5.0]

    run(main())
    assert world.effects == []


@pytest.mark.parametrize("fails", [True, False])
def test_what_the_policy_does_not_name_is_not_retried(fails: bool) -> None:
    tries: list[int] = []

    async def flaky(value: int) -> Result[int, KeyError]:
        tries.append(value)
        if fails:
            return Failure(KeyError("x"))
        raise KeyError("x")

    async def main() -> None:
        policy = RetryPolicy(attempts=3, wait=2.0, retry_on=OSError)
        saga = Saga("s").step("a", flaky, retry=policy)
        if fails:
            assert isinstance((await to_result(saga.run(1))).failure(), KeyError)
        else:
            with pytest.raises(KeyError):
                await saga.run(1)
        assert tries == [1]

    run(main())


def test_a_policys_total_time_and_its_on_retry_hold_for_a_step() -> None:
    world = World()
    told: list[RetryEvent] = []

    async def main() -> None:
        policy = RetryPolicy(attempts=9, wait=1.0, total_timeout=4.0, on_retry=told.append)
        saga = Saga("s").step("a", world.fail, retry=policy)
        assert await saga.run(1) == IOFailure("no 1")
        assert now() == 3.0  # the third attempt would begin at 4

    run(main())
    assert told == [RetryEvent(1, "no 1", 1.0)]


def test_the_deadline_of_the_context_around_it_holds_for_its_steps() -> None:
    """It cuts a time limit short, and no attempt begins after it."""
    world = World()

    async def main() -> None:
        ctx = StepContext("outer", deadline=5.0)

        async def hang(value: int) -> Result[int, str]:
            await asyncio.sleep(99)
            return Success(value)

        saga = Saga("s").step("a", hang, timeout=50.0)
        assert await saga.run(1, ctx) == IOFailure(StepTimeout("a", 5.0))
        assert now() == 5.0
        ctx = StepContext("outer", deadline=10.0)
        policy = RetryPolicy(attempts=9, wait=1.0)
        assert await Saga("s").step("a", world.fail, retry=policy).run(1, ctx) == IOFailure("no 1")
        assert now() == 10.0  # attempts from 5 to 6, from 7 to 8, and from 9 to 10

    run(main())


def test_a_context_may_be_the_value_of_a_step() -> None:
    world = World()

    async def note(ctx: StepContext) -> Result[int, str]:
        await ctx.register(world.undo, 8)
        world.effects.append(7)
        return Success(1)

    async def main() -> None:
        saga = Saga("s").step("a", note, timeout=2.0).step("b", world.fail)
        ctx = StepContext("outer")
        assert await ctx.run(saga.run(ctx, ctx)) == IOFailure("no 1")

    run(main())
    assert world.log == ["undid 7"]


def test_something_else_than_a_result_is_a_type_error_after_the_undo() -> None:
    world = World()

    async def main() -> None:
        wrong: Callable[[int], Awaitable[Result[int, str]]] = asyncio.sleep  # type: ignore[assignment]
        saga = Saga("s").step("a", world.add, undo=world.undo).step("b", wrong)
        with pytest.raises(TypeError, match="and no Result"):
            await saga.run(1)

    run(main())
    assert world.effects == []


def test_a_saga_is_a_value_that_runs_any_number_of_times_side_by_side() -> None:
    world = World()

    async def main() -> None:
        base = Saga("s").step("a", world.add, undo=world.undo)
        failing = base.step("b", world.fail)
        results = await asyncio.gather(base.run(1), failing.run(10), base.run(100))
        assert list(results) == [IOSuccess(2), IOFailure("no 11"), IOSuccess(101)]

    run(main())
    assert sorted(world.effects) == [1, 100]


def test_a_step_may_register_its_own_undo_with_its_context_before_the_effect() -> None:
    effects: list[str] = []
    keys: list[tuple[str, str]] = []
    undos: list[tuple[str, str]] = []

    async def delete(name: str) -> None:
        undos.append((name, current_key()))
        effects.remove(name)

    async def write(value: int, ctx: StepContext) -> Result[str, str]:
        name = f"{ctx.name} {value}"
        await ctx.register(delete, name)
        keys.append((name, ctx.key))
        effects.append(name)
        return Success(name) if len(keys) > 1 else Failure("again")

    async def fail(name: str) -> Result[str, str]:
        return Failure(f"no {name}")

    async def main() -> None:
        retry = RetryPolicy(attempts=2, wait=0.0)
        saga = Saga("s").step("write", write, retry=retry, timeout=9.0).step("fail", fail)
        async with StepContext("job") as ctx:
            result = await to_result(ctx.run(saga.run(1, ctx)))
            assert str(result.failure()).startswith("no write")
        assert await to_result(saga.run(2)) != result

    run(main())
    assert effects == []
    assert undos == keys  # each attempt by its own key
    assert len(keys) == 3


@pytest.mark.parametrize("given", [False, True])
def test_a_caller_is_told_what_could_not_be_undone(
    given: bool, caplog: pytest.LogCaptureFixture
) -> None:
    reports: list[CompensationReport] = []

    async def step(value: int) -> Result[int, str]:
        return Success(value) if value < 3 else Failure("no")

    async def more(value: int) -> Result[int, str]:
        return Success(value + 1)

    async def undo(value: int) -> None:
        if value == 2:
            raise OSError("gone")

    def fails(report: CompensationReport) -> None:
        reports.append(report)
        raise ValueError("the observer's own")

    async def main() -> None:
        saga = Saga("s").step("a", step, undo=undo).step("b", more, undo=undo)
        saga = saga.step("c", more, undo=undo).step("d", step)
        ctx = StepContext("job") if given else None
        assert await to_result(saga.run(0, ctx, on_report=reports.append)) == Success(2)
        assert reports == []
        assert await to_result(saga.run(1, ctx, on_report=fails)) == Failure("no")
        if ctx is not None:
            await ctx.commit()

    run(main())
    (report,) = reports
    assert [entry.args for entry in report.done] == [(3,), (1,)]
    assert [(entry.args, str(entry.error)) for entry in report.failures] == [((2,), "gone")]
    assert "the observer of saga 's' failed" in caplog.text


def test_an_undo_may_take_the_input_and_the_output_of_its_step() -> None:
    calls: list[tuple[object, ...]] = []

    async def undo(value: int, output: str) -> None:
        calls.append((value, output))

    async def with_default(output: str, note: str = "") -> None:
        calls.append((output, note))

    async def more(*given: object) -> None:
        calls.append(given)

    async def step(value: int) -> Result[str, str]:
        return Success(str(value))

    async def same(value: str, ctx: StepContext) -> Result[str, str]:
        return Success(value)

    async def fail(_: str) -> Result[str, str]:
        return Failure("no")

    async def main() -> None:
        saga = Saga("s").step("a", step, undo=undo).step("b", same, undo=with_default)
        await saga.step("c", same, undo=more).step("d", fail).run(1)

    run(main())
    assert calls == [("1",), ("1", ""), (1, "1")]


@memory_only  # it has a journal of its own, and looks at what is recorded
def test_a_compensation_may_take_both_too_and_both_are_on_record(tmp_path: Path) -> None:
    registry = CompensationRegistry()
    calls: list[tuple[int, str]] = []

    @registry.compensation("undo-step")
    async def undo(value: int, output: str) -> None:
        calls.append((value, output))

    async def step(value: int) -> Result[str, str]:
        return Success(str(value))

    async def main() -> None:
        async with SqliteJournal(tmp_path / "j.db") as journal:
            ctx = StepContext("job", journal=journal)
            await Saga("s").step("a", step, undo=undo).run(1, ctx)
            (stored,) = await journal.sagas()
            assert stored.actions[0].arguments == '{"value": 1, "output": "1"}'
            await ctx.scope.compensate()

    run(main())
    assert calls == [(1, "1")]


def test_what_makes_no_saga_is_refused_where_it_is_written() -> None:
    world = World()
    saga = Saga("s").step("a", world.add)
    with pytest.raises(InvalidArgument, match="already"):
        _ = saga.step("a", world.add)
    with pytest.raises(InvalidArgument, match="after the pivot"):
        _ = saga.pivot().step("b", world.add, undo=world.undo)
    with pytest.raises(InvalidArgument, match="one pivot"):
        _ = saga.pivot().pivot()
    with pytest.raises(InvalidArgument, match="one pivot"):
        _ = Saga("s").pivot()
    for timeout in (0.0, -1.0, float("nan"), True, timedelta(0)):
        with pytest.raises(InvalidArgument, match="timeout"):
            _ = saga.step("b", world.add, timeout=timeout)


def test_arguments_of_another_kind_are_refused_at_the_call() -> None:
    step: Any = Saga("s").step  # what a program without a type checker may pass
    add, undo = World().add, World().undo
    called = undo(1)
    with pytest.raises(TypeError, match="a name and then a step, not add"):
        step(add)
    with pytest.raises(TypeError, match="a name and then a step, not add"):
        step(add, "add")
    with pytest.raises(TypeError, match=r"step\(\) takes a function, not None"):
        step("add")
    with pytest.raises(TypeError, match="undo= takes a function, which is called later, not <co"):
        step("add", add, undo=called)
    with pytest.raises(TypeError, match="retry= takes a RetryPolicy, not 3"):
        step("add", add, retry=3)
    called.close()


def test_a_saga_shows_its_steps() -> None:
    world = World()
    saga = Saga("s").step("a", world.add).pivot().step("b", world.add)
    assert repr(saga) == "<Saga 's': a -> | pivot | -> b>"
    assert repr(Saga("s").step("a", world.add)) == "<Saga 's': a>"


@given(
    steps=st.integers(1, 4),
    ending=st.sampled_from(["success", "failure", "exception"]),
    pivot=st.none() | st.integers(1, 4),
    turns=st.none() | st.integers(0, 30),
)
def test_all_or_nothing_whenever_it_is_cancelled(
    steps: int, ending: str, pivot: int | None, turns: int | None
) -> None:
    """All effects are kept or none; those up to a pivot that was reached are kept."""
    effects: list[int] = []

    async def main() -> None:
        async def add(value: int) -> Result[int, str]:
            await asyncio.sleep(0)
            if value == steps:
                if ending == "failure":
                    return Failure("no")
                if ending == "exception":
                    raise ZeroDivisionError
            effects.append(value)
            return Success(value + 1)

        async def undo(value: int) -> None:
            await asyncio.sleep(0)
            effects.remove(value - 1)

        saga = Saga("s").step("0", add, undo=undo)
        for number in range(1, steps + 1):
            if pivot == number:
                saga = saga.pivot()
            after = pivot is not None and pivot <= number
            saga = saga.step(
                str(number),
                add,
                undo=None if after else undo,
                retry=RetryPolicy(attempts=2, wait=0.0),
            )

        async def carry_out() -> object:
            return await saga.run(0)

        task = asyncio.create_task(carry_out())
        if turns is not None:
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            for _ in range(3):
                await asyncio.sleep(0)
            task.cancel()  # also while it is being undone
        await asyncio.wait({task})
        complete = not task.cancelled() and task.exception() is None and ending == "success"
        reached = pivot is not None and len(effects) >= pivot
        if complete:
            assert effects == list(range(steps + 1))
        elif reached:
            assert effects == list(range(len(effects)))
        else:
            assert effects == []

    run(main())
