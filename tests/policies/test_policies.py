"""Policies: what is tried again, stopped, raced, and what is undone on the way."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest
import tenacity
from returns.result import Failure, Result, Success

from returns_pipeline._engine.future_results import to_result
from returns_pipeline.context import StepContext
from returns_pipeline.errors import (
    AllFailed,
    InvalidArgument,
    RetriesExhausted,
    ScopeClosed,
    StepTimeout,
)
from returns_pipeline.policies import (
    RetryEvent,
    RetryPolicy,
    Tier,
    TierFailure,
    all_of,
    fallback,
    hedge,
    race,
    with_policy,
    with_retry,
    with_timeout,
)
from returns_pipeline.retry import Timeout
from returns_pipeline.saga import Saga
from returns_pipeline.testing import run, timed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from returns_pipeline.compensation import CompensationReport


def now() -> float:
    return asyncio.get_running_loop().time()


class World:
    """Effects and what became of them, in order."""

    def __init__(self) -> None:
        self.log: list[str] = []

    async def undo(self, name: str) -> None:
        await asyncio.sleep(0)
        self.log.append(f"undo {name}")

    def step(
        self, name: str, seconds: float, outcome: str = "success", *, stubborn: float = 0.0
    ) -> Callable[[StepContext], Coroutine[None, None, Result[str, str]]]:
        """Make a step that registers, takes its time, and then succeeds, fails or raises."""

        async def step(ctx: StepContext) -> Result[str, str]:
            await ctx.register(self.undo, name)
            self.log.append(f"do {name}")
            try:
                await asyncio.sleep(seconds)
            except asyncio.CancelledError:
                if not stubborn:
                    self.log.append(f"cancelled {name}")
                    raise
                await asyncio.sleep(stubborn)
            if outcome == "raise":
                raise ZeroDivisionError(name)
            return Success(name) if outcome == "success" else Failure(f"{name} failed")

        step.__name__ = name
        return step


def in_context(
    step: Callable[[StepContext], Awaitable[object]],
) -> Callable[[], tuple[object, CompensationReport]]:
    """Run a step in a context that then fails, so that what it held shows in the report."""
    held: list[object] = []

    async def main() -> tuple[object, CompensationReport]:
        ctx = StepContext("test")

        async def body() -> Result[None, str]:
            held.append(await step(ctx))
            return Failure("now undo what is left")

        await ctx.run(body())
        return held[0], ctx.report

    return lambda: run(main())


# with_retry


def test_a_failed_attempt_is_undone_before_the_next_one_begins() -> None:
    world = World()
    tries: list[float] = []

    async def flaky(ctx: StepContext) -> Result[str, str]:
        tries.append(now())
        await ctx.register(world.undo, f"try {len(tries)}")
        world.log.append(f"do try {len(tries)}")
        return Success("done") if len(tries) == 3 else Failure(f"error {len(tries)}")

    async def main() -> None:
        ctx = StepContext("test")
        retried = with_retry(flaky, RetryPolicy(attempts=5, wait=2.0))
        assert await to_result(retried(ctx)) == Success("done")
        assert tries == [0.0, 2.0, 4.0]
        assert world.log == ["do try 1", "undo try 1", "do try 2", "undo try 2", "do try 3"]
        assert len(ctx.scope) == 1  # the success is held by the context of the call
        await ctx.commit()

    run(main())


def test_when_the_attempts_are_used_up_every_error_is_there() -> None:
    errors = iter(["a", "b", "c"])

    async def fail() -> Result[int, str]:
        return Failure(next(errors))

    result = run(to_result(with_retry(fail, RetryPolicy(attempts=3, wait=1.0))()))
    assert result == Failure(RetriesExhausted(("a", "b", "c")))
    assert result.failure().attempts == 3
    assert str(result.failure()) == "3 attempt(s) failed, the last with 'c'"


@pytest.mark.parametrize("retry_on", [KeyError, (OSError, KeyError), lambda e: e.args == ("x",)])
def test_a_named_exception_is_retried_and_others_go_on_at_once(
    retry_on: type[Exception] | tuple[type[Exception], ...] | Callable[[object], bool],
) -> None:
    raised = [KeyError("x"), KeyError("x"), ZeroDivisionError("y")]
    made = list(raised)

    async def flaky() -> Result[int, str]:
        raise made.pop(0)

    async def main() -> None:
        retried = with_retry(flaky, RetryPolicy(attempts=9, wait=1.0, retry_on=retry_on))
        with pytest.raises(ZeroDivisionError):
            await retried()
        assert now() == 2.0
        made[:] = raised[:2]
        short = with_retry(flaky, RetryPolicy(attempts=2, wait=1.0, retry_on=retry_on))
        assert await to_result(short()) == Failure(RetriesExhausted(tuple(raised[:2])))

    run(main())


def test_by_default_no_exception_is_retried() -> None:
    async def broken() -> Result[int, str]:
        raise KeyError("x")

    async def main() -> None:
        with pytest.raises(KeyError):
            await with_retry(broken, RetryPolicy(attempts=3, wait=1.0))()
        assert now() == 0.0

    run(main())


def test_a_failure_that_the_policy_does_not_name_is_not_retried() -> None:
    async def fail() -> Result[int, Exception]:
        return Failure(KeyError("no"))

    async def main() -> None:
        retried = with_retry(fail, RetryPolicy(attempts=3, wait=1.0, retry_on=OSError))
        result = await to_result(retried())
        assert isinstance(result.failure(), RetriesExhausted)
        assert result.failure().attempts == 1
        assert now() == 0.0

    run(main())


def test_no_attempt_begins_after_the_total_time() -> None:
    begun: list[float] = []

    async def slow(ctx: StepContext) -> Result[int, str]:
        begun.append(now())
        assert ctx.deadline == 5.0
        await asyncio.sleep(1)
        return Failure("no")

    async def main() -> None:
        retried = with_retry(slow, RetryPolicy(attempts=99, wait=1.0, total_timeout=5.0))
        result = await to_result(retried(StepContext("test")))
        assert result.failure().attempts == 3
        assert begun == [0.0, 2.0, 4.0]
        assert now() == 5.0  # the attempt under way was not cut off, and no wait came after it

    run(main())


def test_on_retry_is_told_before_each_wait() -> None:
    told: list[tuple[float, RetryEvent]] = []

    async def fail() -> Result[int, str]:
        return Failure("no")

    async def main() -> None:
        policy = RetryPolicy(
            attempts=3,
            wait=tenacity.wait_incrementing(1, 1),
            on_retry=lambda event: told.append((now(), event)),
        )
        await with_retry(fail, policy)()

    run(main())
    assert told == [(0.0, RetryEvent(1, "no", 1.0)), (1.0, RetryEvent(2, "no", 2.0))]


def test_on_retry_may_be_a_coroutine_function_and_is_cancelled_with_the_step() -> None:
    world = World()
    told: list[str] = []

    async def tell(event: RetryEvent) -> None:
        told.append(f"began {event.attempt}")
        await asyncio.sleep(2)
        told.append(f"ended {event.attempt}")

    async def main() -> None:
        ctx = StepContext("test")
        policy = RetryPolicy(attempts=3, wait=3.0, on_retry=tell)
        trying = asyncio.ensure_future(
            to_result(with_retry(world.step("a", 0, "fail"), policy)(ctx))
        )
        await asyncio.sleep(4)
        trying.cancel()
        await asyncio.wait({trying})
        assert trying.cancelled()
        assert told == ["began 1", "ended 1", "began 2"]
        assert world.log == ["do a", "undo a"] * 2

    run(main())


def test_a_cancellation_in_the_back_off_leaves_nothing_to_undo_and_propagates() -> None:
    world = World()

    async def main() -> None:
        ctx = StepContext("test")
        step = with_retry(world.step("a", 1.0, "fail"), RetryPolicy(attempts=3, wait=100.0))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ctx.run(step(ctx)), 50.0)
        assert world.log == ["do a", "undo a"]

    run(main())


def test_a_policy_is_a_value() -> None:
    policy = RetryPolicy(3, 2.0, KeyError, 10.0)
    assert policy == RetryPolicy(3, 2.0, KeyError, 10.0)
    assert pickle.loads(pickle.dumps(policy)) == policy
    assert "attempts=3" in repr(policy)
    for wrong in ({"attempts": 0}, {"wait": -1.0}, {"total_timeout": 0.0}):
        with pytest.raises(InvalidArgument):
            RetryPolicy(**wrong)


# with_timeout


def test_a_step_is_cancelled_awaited_and_undone_at_its_limit() -> None:
    world = World()

    async def main() -> None:
        ctx = StepContext("test")
        result = await to_result(with_timeout(world.step("a", 9.0), 2.0)(ctx))
        assert result == Failure(StepTimeout("a", 2.0))
        assert now() == 2.0
        assert world.log == ["do a", "cancelled a", "undo a"]

    run(main())


def test_a_step_in_time_is_returned_as_it_is_and_its_actions_are_held() -> None:
    world = World()
    given, report = in_context(
        lambda ctx: to_result(with_timeout(world.step("a", 1.0), 2.0)(ctx))
    )()
    assert given == Success("a")
    assert [entry.args for entry in report.done] == [("a",)]


@pytest.mark.parametrize("policy", ["timeout", "race", "all_of"])
def test_a_step_that_does_not_wait_ends_in_the_turn_of_its_caller(policy: str) -> None:
    async def main() -> None:
        turns: list[str] = []

        async def step() -> Result[int, str]:
            return Success(len(turns))

        _ = asyncio.get_running_loop().call_soon(turns.append, "the next one")
        steps = {"timeout": with_timeout(step, 1.0), "race": race(step), "all_of": all_of(step)}
        assert (await to_result(steps[policy]())).unwrap() in (0, [0], (0,))
        assert turns == []

    run(main())


def test_a_step_with_a_limit_is_in_its_own_task_and_context_from_its_first_line() -> None:
    var: ContextVar[str] = ContextVar("var", default="as it was")

    async def main() -> None:
        async def step() -> Result[list[str], str]:
            first = asyncio.current_task()
            assert first is not None
            var.set("set in the step")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):  # which cancels the task that entered it
                    await asyncio.sleep(2.0)
            assert asyncio.current_task() is first
            return Success([first.get_name(), var.get()])

        caller = asyncio.current_task()
        done = await to_result(with_timeout(step, 9.0)())
        assert done == Success(["step", "set in the step"])
        assert (asyncio.current_task(), var.get()) == (caller, "as it was")

    run(main())


def test_a_failure_and_an_exception_in_time_are_the_steps_own() -> None:
    world = World()

    async def main() -> None:
        ctx = StepContext("test")
        result = await to_result(with_timeout(world.step("a", 1.0, "fail"), 2.0)(ctx))
        assert result == Failure("a failed")
        with pytest.raises(ZeroDivisionError):
            await with_timeout(world.step("b", 1.0, "raise"), 2.0)(ctx)
        assert world.log == ["do a", "undo a", "do b", "undo b"]

    run(main())


def test_a_timeout_error_of_the_steps_own_is_not_the_limit() -> None:
    async def own() -> Result[int, str]:
        raise TimeoutError("mine")

    async def main() -> None:
        with pytest.raises(TimeoutError, match="mine"):
            await with_timeout(own, 2.0)()

    run(main())


def test_an_inner_limit_never_outlives_the_outer() -> None:
    """The deadline is the context's, wherever the limits are put on."""
    world = World()

    async def main() -> None:
        async def outer(ctx: StepContext) -> Result[str, str | StepTimeout]:
            assert ctx.deadline == 3.0
            return await to_result(with_timeout(world.step("in", 99.0), 50.0)(ctx))

        ctx = StepContext("test")
        result = await to_result(with_timeout(outer, 3.0)(ctx))
        assert isinstance(result.failure(), StepTimeout)
        assert now() == 3.0
        assert world.log == ["do in", "cancelled in", "undo in"]

    run(main())


@pytest.mark.parametrize("how", ["limit", "limit within another", "policy", "saga"])
def test_the_limit_of_the_error_is_the_number_that_was_given(how: str) -> None:
    """Not what the clock says: 0.7 + 0.1 - 0.7 is less than 0.1."""

    async def hang(_: int = 0) -> Result[int, str]:
        await asyncio.sleep(99)
        return Success(1)

    def outcome() -> Awaitable[Result[int, Any]]:
        if how == "saga":
            return to_result(Saga("s").step("hang", hang, timeout=0.1).run(1))
        if how == "policy":
            return to_result(with_policy(hang, Timeout(0.1))())
        limited = with_timeout(hang, 0.1)
        return to_result(limited() if how == "limit" else with_timeout(limited, 2.0)())

    async def main() -> None:
        await asyncio.sleep(0.7)
        error = (await outcome()).failure()
        assert isinstance(error, StepTimeout)
        assert (error.step, error.limit) == ("hang", 0.1)

    run(main())


def test_a_deadline_that_has_passed_leaves_no_time() -> None:
    world = World()

    async def main() -> None:
        await asyncio.sleep(5)
        ctx = StepContext("test", deadline=3.0)
        result = await to_result(with_timeout(world.step("a", 1.0), 2.0)(ctx))
        assert result == Failure(StepTimeout("a", 0.0))
        assert now() == 5.0

    run(main())


def test_a_step_that_ignores_its_cancellation_is_abandoned_and_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()

    async def main() -> None:
        ctx = StepContext("test")
        step = with_timeout(world.step("a", 9.0, stubborn=60.0), 2.0, grace=3.0)
        result = await to_result(step(ctx))
        assert result == Failure(StepTimeout("a", 2.0))
        error = result.failure()
        assert isinstance(error, StepTimeout)
        assert error.__notes__ == ["it ignored its cancellation for 3 s: left running"]
        assert now() == 5.0
        assert world.log == ["do a", "undo a"]  # although it still runs
        assert "was abandoned" in caplog.text
        await asyncio.sleep(100)
        assert len(ctx.scope) == 0  # and its late success was not accepted
        assert world.log == ["do a", "undo a"]

    with caplog.at_level(logging.WARNING):
        run(main())
    assert "has ended" in caplog.text


def test_a_success_after_the_limit_is_undone() -> None:
    world = World()

    async def main() -> None:
        ctx = StepContext("test")
        result = await to_result(with_timeout(world.step("a", 9.0, stubborn=1.0), 2.0)(ctx))
        assert result == Failure(StepTimeout("a", 2.0))
        assert world.log == ["do a", "undo a"]

    run(main())


def test_what_a_step_raises_when_it_is_stopped_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def messy() -> Result[int, str]:
        try:
            await asyncio.sleep(9)
        finally:
            raise ZeroDivisionError("in the clean-up")

    assert run(to_result(with_timeout(messy, 2.0)())) == Failure(StepTimeout("messy", 2.0))
    assert "in the clean-up" in caplog.text


def test_cancelling_the_caller_stops_the_step_and_undoes_it() -> None:
    world = World()

    async def main() -> None:
        ctx = StepContext("test")

        async def call() -> None:
            await with_timeout(world.step("a", 99.0), 50.0)(ctx)

        task = asyncio.create_task(call())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert now() == 1.0
        assert world.log == ["do a", "cancelled a", "undo a"]

    run(main())


# race and hedge


def test_the_first_success_wins_and_the_others_are_cancelled_and_undone() -> None:
    world = World()
    steps = race(world.step("slow", 9.0), world.step("fast", 1.0), world.step("bad", 0.5, "fail"))
    given, report = in_context(lambda ctx: to_result(steps(ctx)))()
    assert given == Success("fast")
    assert world.log == [
        "do slow",
        "do fast",
        "do bad",
        "undo bad",
        "cancelled slow",
        "undo slow",
        "undo fast",  # by the context, which held it
    ]
    assert [entry.args for entry in report.done] == [("fast",)]


def test_a_success_in_the_same_turn_is_undone_too() -> None:
    world = World()
    given, report = in_context(
        lambda ctx: to_result(race(world.step("a", 1.0), world.step("b", 1.0))(ctx))
    )()
    assert given == Success("a")
    assert world.log == ["do a", "do b", "undo b", "undo a"]
    assert len(report.done) == 1


def test_if_all_fail_the_errors_come_in_the_order_of_the_steps() -> None:
    world = World()

    async def main() -> None:
        ctx = StepContext("test")
        steps = race(world.step("a", 3.0, "fail"), world.step("b", 1.0, "fail"))
        assert await to_result(steps(ctx)) == Failure(AllFailed(("a failed", "b failed")))
        assert len(ctx.scope) == 0

    run(main())


def test_an_exception_of_one_stops_the_others_and_propagates() -> None:
    world = World()

    async def main() -> None:
        ctx = StepContext("test")
        with pytest.raises(ZeroDivisionError):
            await race(world.step("a", 9.0), world.step("b", 1.0, "raise"))(ctx)
        assert world.log == ["do a", "do b", "undo b", "cancelled a", "undo a"]

    run(main())


def test_without_a_context_there_is_still_one_winner() -> None:
    async def wait(seconds: float) -> Result[float, str]:
        await asyncio.sleep(seconds)
        return Success(seconds)

    async def main() -> None:
        result = await to_result(race(lambda s: wait(s + 1), lambda s: wait(s))(1.0))
        assert result == Success(1.0)
        assert now() == 1.0

    run(main())


def test_a_losers_failed_undo_is_reported_and_the_winner_still_wins() -> None:
    async def refuse(name: str) -> None:
        raise OSError(name)

    async def loser(ctx: StepContext) -> Result[str, str]:
        await ctx.register(refuse, "loser")
        await asyncio.sleep(9)
        return Success("never")

    async def winner(ctx: StepContext) -> Result[str, str]:
        await asyncio.sleep(1)
        return Success("winner")

    async def main() -> None:
        ctx = StepContext("test")
        assert await to_result(ctx.run(race(loser, winner)(ctx))) == Success("winner")
        assert [entry.args for entry in ctx.report.failures] == [("loser",)]

    run(main())


def test_a_hedge_starts_another_copy_of_a_slow_step() -> None:
    waits = [9.0, 1.0]
    begun: list[float] = []

    async def fetch() -> Result[float, str]:
        begun.append(now())
        seconds = waits.pop(0)
        await asyncio.sleep(seconds)
        return Success(seconds)

    async def main() -> None:
        assert await to_result(hedge(fetch, after=3.0, copies=3)()) == Success(1.0)
        assert begun == [0.0, 3.0]
        assert now() == 4.0

    run(main())


def test_a_hedge_starts_the_next_copy_at_once_when_all_have_failed() -> None:
    begun: list[float] = []

    async def fail() -> Result[float, str]:
        begun.append(now())
        await asyncio.sleep(1)
        return Failure(f"copy {len(begun)}")

    async def main() -> None:
        result = await to_result(hedge(fail, after=3.0, copies=3)())
        assert result == Failure(AllFailed(("copy 1", "copy 2", "copy 3")))
        assert begun == [0.0, 1.0, 2.0]

    run(main())


def test_a_fast_step_is_not_hedged() -> None:
    world = World()
    hedged = hedge(world.step("a", 1.0), after=3.0)
    given, _ = in_context(lambda ctx: to_result(hedged(ctx)))()
    assert given == Success("a")
    assert world.log == ["do a", "undo a"]


def test_losers_are_stopped_at_the_same_time() -> None:
    world = World()

    async def main() -> None:
        ctx = StepContext("test")
        steps = race(
            world.step("a", 99.0, stubborn=2.0),
            world.step("b", 99.0, stubborn=2.0),
            world.step("c", 1.0),
        )
        assert await to_result(steps(ctx)) == Success("c")
        assert now() == 3.0
        await ctx.commit()

    run(main())


async def slow_undo(log: list[str], seconds: float) -> None:
    await asyncio.sleep(seconds)
    log.append("undone")


def test_a_rollback_may_take_longer_than_the_grace_and_is_awaited(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log: list[str] = []

    async def step(ctx: StepContext) -> Result[int, str]:
        await ctx.register(slow_undo, log, 20.0)
        await asyncio.sleep(99)
        return Success(1)

    async def main() -> None:
        result = await to_result(with_timeout(step, 2.0, grace=1.0)(StepContext("test")))
        assert result == Failure(StepTimeout("step", 2.0))
        assert now() == 22.0
        assert log == ["undone"]

    run(main())
    assert "abandoned" not in caplog.text


@pytest.mark.parametrize("policy", ["timeout", "race"])
def test_a_cancellation_while_a_step_is_being_undone_propagates_when_it_is(policy: str) -> None:
    log: list[str] = []

    async def slow(ctx: StepContext) -> Result[int, str]:
        await ctx.register(slow_undo, log, 20.0)
        await asyncio.sleep(99)
        return Success(1)

    async def fast(ctx: StepContext) -> Result[int, str]:
        await ctx.register(slow_undo, log, 5.0)
        await asyncio.sleep(2)
        return Success(2)

    async def main() -> None:
        ctx = StepContext("test")

        async def call() -> object:
            if policy == "timeout":
                return await ctx.run(with_timeout(slow, 2.0)(ctx))
            return await ctx.run(race(slow, fast)(ctx))

        task = asyncio.create_task(call())
        await asyncio.sleep(3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # With a winner: the loser's, and then its own, because the whole was cancelled.
        assert log == ["undone"] if policy == "timeout" else ["undone", "undone"]
        assert now() == 22.0 if policy == "timeout" else 27.0

    run(main())


# all_of


def test_all_values_come_in_the_order_of_the_steps() -> None:
    world = World()
    together = all_of(world.step("a", 3.0), world.step("b", 1.0))

    async def main() -> None:
        ctx = StepContext("test")
        assert await to_result(together(ctx)) == Success(("a", "b"))
        assert now() == 3.0
        assert len(ctx.scope) == 2
        await ctx.commit()

    run(main())


def test_the_first_failure_undoes_all_of_them_newest_first() -> None:
    world = World()

    async def main() -> None:
        ctx = StepContext("test")
        together = all_of(world.step("a", 1.0), world.step("b", 2.0, "fail"), world.step("c", 9.0))
        assert await to_result(together(ctx)) == Failure("b failed")
        assert world.log == ["do a", "do b", "do c", "undo b", "cancelled c", "undo c", "undo a"]
        assert now() == 2.0

    run(main())


def test_steps_that_ran_side_by_side_are_undone_by_the_order_of_registration() -> None:
    world = World()

    def twice(
        name: str, first: float, second: float
    ) -> Callable[[StepContext], Awaitable[Result[str, str]]]:
        async def step(ctx: StepContext) -> Result[str, str]:
            for seconds in first, second:
                await asyncio.sleep(seconds)
                await ctx.child("part").register(world.undo, f"{name} at {now():g}")
            return Success(name)

        return step

    async def main() -> None:
        ctx = StepContext("test")
        a, b, c = twice("a", 2, 4), twice("b", 1, 2), twice("c", 0, 5)
        both = all_of(with_retry(a, RetryPolicy(2)), with_timeout(b, 9.0))
        after = all_of(both, race(c), world.step("d", 20, "fail"))
        assert await to_result(ctx.run(after(ctx))) == Failure("d failed")
        assert world.log[2:] == [
            "undo a at 6",
            "undo c at 5",
            "undo b at 3",
            "undo a at 2",
            "undo b at 1",
            "undo c at 0",
        ]

    run(main())


def test_without_fail_fast_all_are_run_and_all_are_undone() -> None:
    world = World()

    async def main() -> None:
        ctx = StepContext("test")
        together = all_of(
            world.step("a", 2.0, "fail"),
            world.step("b", 3.0),
            world.step("c", 1.0, "fail"),
            fail_fast=False,
        )
        assert await to_result(together(ctx)) == Failure(AllFailed(("a failed", "c failed")))
        assert now() == 3.0
        assert world.log[-1] == "undo b"
        assert len(ctx.scope) == 0

    run(main())


def test_at_most_limit_run_at_a_time() -> None:
    running = 0
    most = 0

    async def count() -> Result[int, str]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(1)
        running -= 1
        return Success(1)

    async def main() -> None:
        result = await to_result(all_of(*[count] * 10, limit=3)())
        assert result == Success([1] * 10)  # a list beyond eight
        assert now() == 4.0
        assert most == 3

    run(main())


def test_an_exception_in_one_of_all_undoes_all_and_propagates() -> None:
    world = World()

    async def main() -> None:
        ctx = StepContext("test")
        with pytest.raises(ZeroDivisionError):
            await all_of(world.step("a", 1.0), world.step("b", 2.0, "raise"))(ctx)
        assert world.log == ["do a", "do b", "undo b", "undo a"]

    run(main())


def test_without_a_context_the_first_failure_cancels_the_others() -> None:
    async def fail() -> Result[int, str]:
        return Failure("no")

    async def wait() -> Result[int, str]:
        await asyncio.sleep(99)
        return Success(1)

    async def main() -> None:
        assert await to_result(all_of(wait, fail)()) == Failure("no")
        assert now() == 0.0

    run(main())


# fallback


def test_a_failed_tier_is_undone_before_the_next_one_starts() -> None:
    world = World()
    steps = fallback(
        Tier("primary", world.step("a", 1.0, "fail")),
        Tier("regional", world.step("b", 9.0), world.step("c", 1.0)),
    )
    given, _ = in_context(lambda ctx: to_result(steps(ctx)))()
    assert given == Success("c")
    assert world.log == ["do a", "undo a", "do b", "do c", "cancelled b", "undo b", "undo c"]


def test_failures_carry_tier_index_and_strategy_in_order() -> None:
    world = World()
    steps = fallback(
        Tier("primary", world.step("a", 1.0, "fail")),
        Tier("regional", world.step("b", 2.0, "fail"), world.step("c", 1.0, "fail")),
    )

    async def main() -> None:
        result = await to_result(steps(StepContext("test")))
        assert result == Failure(
            AllFailed(
                (
                    TierFailure("primary", 0, "a", "a failed"),
                    TierFailure("regional", 0, "b", "b failed"),
                    TierFailure("regional", 1, "c", "c failed"),
                )
            )
        )

    run(main())


def test_a_tier_shows_its_strategies() -> None:
    world = World()
    assert repr(Tier("t", world.step("a", 1.0), world.step("b", 1.0))) == "Tier('t', a, b)"


# All of them


def test_what_could_never_work_is_refused_at_the_call() -> None:
    world = World()
    step = world.step("a", 1.0)
    refused: list[Callable[[], object]] = [
        lambda: with_timeout(step, 0.0),
        lambda: with_timeout(step, float("nan")),
        lambda: with_timeout(step, 1.0, grace=-1.0),
        lambda: hedge(step, after=0.0),
        lambda: hedge(step, after=1.0, copies=1),
        lambda: hedge(step, after=1.0, copies=2.5),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        lambda: hedge(step, after=float("nan")),
        lambda: with_timeout(step, True),
        lambda: race(grace=1.0),  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
        lambda: race(step, grace=-1.0),
        lambda: all_of(limit=1),  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
        lambda: all_of(step, limit=0),
        lambda: all_of(step, limit=1.5),  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
        lambda: fallback(grace=1.0),  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
        lambda: Tier("", step),
        lambda: Tier("t"),  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    ]
    for wrong in refused:
        with pytest.raises(InvalidArgument):
            wrong()


def test_a_step_with_two_contexts_is_refused() -> None:
    async def two(a: StepContext, b: StepContext) -> Result[int, str]:
        return Success(1)

    async def main() -> None:
        with pytest.raises(TypeError, match="two contexts"):
            await with_timeout(two, 1.0)(StepContext("a"), b=StepContext("b"))

    run(main())


def test_the_context_may_stand_anywhere_and_have_a_name() -> None:
    world = World()

    async def step(value: int, ctx: StepContext, factor: int = 1) -> Result[int, str]:
        await ctx.register(world.undo, "x")
        return Success(value * factor)

    async def main() -> None:
        ctx = StepContext("test")
        timed = with_timeout(step, 1.0)
        assert await to_result(timed(2, ctx, 3)) == Success(6)
        assert await to_result(timed(2, factor=4, ctx=ctx)) == Success(8)
        assert len(ctx.scope) == 2
        assert timed.__name__ == "step"
        await ctx.commit()

    run(main())


def test_they_go_wherever_a_step_goes() -> None:
    """On a stream, in a saga, in each other."""
    from returns_pipeline.result_stream import ResultStream
    from returns_pipeline.saga import Saga

    world = World()
    tries: list[int] = []

    async def flaky(value: int, ctx: StepContext) -> Result[int, str]:
        tries.append(value)
        await ctx.register(world.undo, str(value))
        if len(tries) == 1:
            await asyncio.sleep(99)
        return Success(value)

    patient = with_retry(with_timeout(flaky, 2.0), RetryPolicy(attempts=2, wait=1.0))

    async def main() -> None:
        async with StepContext("test") as ctx:
            collected = ResultStream.of(timed(1, 2)).bind_step(patient, ctx).collect()
            assert await to_result(ctx.run(collected)) == Success([1, 2])
        assert tries == [1, 1, 2]
        assert world.log == ["undo 1"]

        async def simple(value: int) -> Result[int, str]:
            return Success(value + 1)

        saga = Saga("s").step("a", with_timeout(simple, 1.0))
        assert await to_result(saga.run(1)) == Success(2)

    run(main())


@pytest.mark.parametrize("inner", ["retry", "race", "all_of", "stream", "saga"])
def test_what_steps_inside_did_is_undone_too_when_a_step_is_abandoned(inner: str) -> None:
    """And they can register nothing more."""
    from returns_pipeline.result_stream import ResultStream
    from returns_pipeline.saga import Saga

    world = World()
    refused: list[str] = []

    async def deaf(ctx: StepContext) -> Result[str, str]:
        await ctx.register(world.undo, "first")
        for _ in range(2):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(100)
        try:
            await ctx.register(world.undo, "late")
        except ScopeClosed:
            refused.append("late")
            raise
        return Success("late")

    async def in_stream(ctx: StepContext) -> Result[list[str], str]:
        async def one(_: int, own: StepContext) -> Result[str, str]:
            return await deaf(own)

        return await to_result(ResultStream.of(timed(1)).bind_step(one, ctx).collect())

    async def in_saga(ctx: StepContext) -> Result[str, str]:
        saga = Saga("s").step("a", give, undo=world.undo).step("b", deaf_in_saga)
        return await to_result(saga.run("output", ctx))

    async def give(value: str) -> Result[str, str]:
        return Success(value)

    async def deaf_in_saga(value: str) -> Result[str, str]:
        for _ in range(2):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(100)
        return Success(value)

    steps: dict[str, Callable[[StepContext], Awaitable[object]]] = {
        "retry": with_retry(deaf, RetryPolicy(2)),
        "race": race(deaf),
        "all_of": all_of(deaf),
        "stream": in_stream,
        "saga": in_saga,
    }

    async def main() -> None:
        ctx = StepContext("test")

        async def step(own: StepContext) -> Result[object, object]:
            await own.register(world.undo, "outer")
            with contextlib.suppress(asyncio.CancelledError):
                await steps[inner](own)
            await asyncio.sleep(300)
            return Success("never")

        limited = with_timeout(step, 2.0, grace=1.0)
        assert await to_result(limited(ctx)) == Failure(StepTimeout("step", 2.0))
        assert now() == 3.0
        undone = ["undo output", "undo outer"] if inner == "saga" else ["undo first", "undo outer"]
        assert world.log == undone
        await asyncio.sleep(1000)
        assert world.log == undone

    run(main())
    assert refused == ([] if inner == "saga" else ["late"])


def test_steps_side_by_side_in_one_that_is_abandoned_are_undone_newest_first() -> None:
    world = World()
    together = all_of(world.step("a", 99.0, stubborn=99.0), world.step("b", 99.0, stubborn=99.0))

    async def main() -> None:
        ctx = StepContext("test")
        limited = with_timeout(together, 2.0, grace=1.0)
        assert await to_result(limited(ctx)) == Failure(StepTimeout("all_of", 2.0))
        assert world.log == ["do a", "do b", "undo b", "undo a"]
        await asyncio.sleep(1000)

    run(main())


def test_the_grace_is_one_for_all_that_are_stopped() -> None:
    world = World()
    stubborn = [world.step(name, 99.0, stubborn=99.0) for name in "abc"]

    async def main() -> None:
        ctx = StepContext("test")
        assert await to_result(race(*stubborn, world.step("d", 1.0), grace=3.0)(ctx)) == Success(
            "d"
        )
        assert now() == 4.0
        await ctx.commit()
        await asyncio.sleep(1000)

    run(main())


def test_a_success_that_comes_while_others_are_stopped_is_undone() -> None:
    world = World()
    steps = race(
        world.step("a", 99.0, stubborn=99.0),
        world.step("b", 99.0, stubborn=1.0),
        world.step("c", 1.0, "raise"),
        grace=3.0,
    )

    async def main() -> None:
        ctx = StepContext("test")
        with pytest.raises(ZeroDivisionError):
            await steps(ctx)
        assert len(ctx.scope) == 0
        assert sorted(world.log[3:]) == ["undo a", "undo b", "undo c"]
        await asyncio.sleep(1000)

    run(main())


def test_a_success_in_the_turn_in_which_the_limit_is_noticed_is_undone() -> None:
    world = World()

    async def close(ctx: StepContext) -> Result[str, str]:
        await ctx.register(world.undo, "close")
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        # Two turns after the limit: when the step is about to be stopped.
        loop.call_at(2.0, loop.call_soon, waiter.set_result, None)
        with contextlib.suppress(asyncio.CancelledError):
            await waiter
        return Success("close")

    async def main() -> None:
        ctx = StepContext("test")
        result = await to_result(with_timeout(close, 2.0)(ctx))
        assert (result == Success("close")) == (len(ctx.scope) == 1)
        assert (result == Success("close")) == (world.log == [])
        await ctx.commit()

    run(main())


def test_the_winner_counts_also_if_another_raises_in_the_same_turn() -> None:
    async def broken(*ctx: StepContext) -> Result[int, str]:
        await asyncio.sleep(1)
        raise ZeroDivisionError

    async def good(*ctx: StepContext) -> Result[int, str]:
        await asyncio.sleep(1)
        return Success(1)

    async def main() -> None:
        races: list[Callable[..., Any]] = [race(broken, good), race(good, broken)]
        for steps in races:
            assert await to_result(steps(StepContext("test"))) == Success(1)
            assert await to_result(steps()) == Success(1)

    run(main())


def test_a_step_that_succeeds_right_after_the_winner_does_not_disturb_it() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        doors: dict[str, asyncio.Future[str]] = {
            "a": loop.create_future(),
            "b": loop.create_future(),
        }

        def wait_for(name: str) -> Callable[[StepContext], Coroutine[None, None, Result[str, str]]]:
            async def step(ctx: StepContext) -> Result[str, str]:
                return Success(await doors[name])

            return step

        def open_all() -> None:
            doors["b"].set_result("b")
            doors["a"].set_result("a")

        loop.call_later(1, open_all)
        steps = race(wait_for("a"), wait_for("b"))
        assert await to_result(steps(StepContext("test"))) == Success("b")

    run(main())


def test_the_limit_in_a_step_timeout_is_the_number_that_was_given() -> None:
    """Not what is left of it by the arithmetic of the clock."""

    async def main() -> None:
        for _ in range(5):
            await asyncio.sleep(1e6 / 7)
            result = await to_result(with_timeout(forever, 0.1)())
            assert result == Failure(StepTimeout("forever", 0.1))
        ctx = StepContext("test", deadline=now() + 2.0)
        result = await to_result(with_timeout(forever, 5.0)(ctx))
        assert result == Failure(StepTimeout("forever", 2.0))
        await ctx.commit()

    run(main())


async def forever(*_: object) -> Result[int, str]:
    await asyncio.sleep(1e9)
    return Success(1)


def test_what_is_not_a_step_or_not_a_policy_is_refused_at_the_call() -> None:
    called = forever()
    refused: list[tuple[Callable[..., object], tuple[object, ...], str]] = [
        (with_policy, (RetryPolicy(3), forever), "takes a step and then a policy"),
        (with_policy, (forever, 3.0), "takes a step and then a policy, not 3.0"),
        (with_policy, ("forever", RetryPolicy(3)), "takes a step, a function, not 'forever'"),
        (with_retry, (forever, 3), "takes a RetryPolicy, not 3"),
        (with_retry, (called, RetryPolicy(3)), "which is a step that was called"),
        (race, (forever, called), "which is a step that was called"),
        (all_of, (forever, 3), "takes a step, a function, not 3"),
        (Tier, ("far", called), "which is a step that was called"),
        (fallback, (forever,), "takes tiers, not forever: put the step in a Tier"),
    ]
    for policy, arguments, message in refused:
        with pytest.raises(TypeError, match=message):
            policy(*arguments)
    called.close()
