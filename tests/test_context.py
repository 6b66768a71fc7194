"""What contexts promise: what a step's outcome means for its undo actions, one test each."""

# pyright: reportPrivateUsage=false, reportPossiblyUnboundVariable=false

from __future__ import annotations

import asyncio
import functools
import gc
import math
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from everywhere import everywhere
from returns.future import FutureFailure, FutureResult, FutureSuccess, future_safe
from returns.io import IOFailure, IOSuccess
from returns.result import Failure, Result, Success
from scoping import commit_or_roll_back

from returns_pipeline._engine.future_results import to_result
from returns_pipeline.compensation import CompensationReport, CompensationScope, current_key
from returns_pipeline.context import StepContext, _steps
from returns_pipeline.errors import InvalidArgument, ScopeBusy, ScopeClosed
from returns_pipeline.telemetry import ScopeRolledBack, StepBegun, StepEnded
from returns_pipeline.testing import Recorder, inject_everywhere, run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from returns_pipeline.telemetry import Event
    from returns_pipeline.testing import FaultInjector

pytestmark = everywhere


def now() -> float:
    return asyncio.get_running_loop().time()


class Undone(list[object]):
    """Undo actions that remember what they were called with, when they are through."""

    async def __call__(self, what: object) -> None:
        await asyncio.sleep(1)
        self.append(what)


@pytest.fixture
def undone() -> Undone:
    return Undone()


async def gone(what: object = None) -> None:
    raise OSError(f"gone {what}")


# run()


def test_a_success_commits(undone: Undone) -> None:
    async def main() -> None:
        ctx = StepContext("job")

        async def step() -> Result[int, str]:
            await ctx.register(undone, 1)
            await ctx.child("part").register(undone, 2)
            assert len(ctx.scope) == 2
            return Success(7)

        assert await ctx.run(step()) == IOSuccess(7)
        assert len(ctx.scope) == 0
        assert ctx.report == CompensationReport()
        assert now() == 0

    run(main())
    assert undone == []


def test_a_failure_is_returned_when_all_is_undone(undone: Undone) -> None:
    async def main() -> None:
        ctx = StepContext("job")
        error = LookupError("no")

        async def step() -> Result[int, LookupError]:
            await ctx.register(undone, 1)
            await ctx.child("part").register(undone, 2)
            return Failure(error)

        result = await ctx.run(step())
        assert result == IOFailure(error)
        assert result.failure()._inner_value is error
        assert now() == 2
        assert [entry.args for entry in ctx.report.done] == [(2,), (1,)]
        assert ctx.report.scope == "job"
        assert not hasattr(error, "__notes__")

    run(main())
    assert undone == [2, 1]


@pytest.mark.parametrize("kind", [ValueError, asyncio.CancelledError])
def test_an_exception_propagates_when_all_is_undone(
    undone: Undone, kind: type[BaseException]
) -> None:
    async def main() -> None:
        error = kind("told so")
        ctx = StepContext("job")

        async def step() -> Result[int, str]:
            await ctx.register(undone, 1)
            await ctx.register(gone, "for good")
            raise error

        with pytest.raises(type(error)) as raised:
            await ctx.run(step())
        assert raised.value is error
        assert now() == 1
        note = "undo gone('for good') failed, attempt 1: OSError('gone for good')"
        where = [] if isinstance(error, asyncio.CancelledError) else ["in step job"]
        assert error.__notes__ == [*where, note]
        assert ctx.report.notes() == [note]
        assert not ctx.scope.closed  # it may be used again
        with pytest.raises(type(error)):
            async with ctx:  # leaving with the same exception repeats nothing
                raise error
        assert error.__notes__ == [*where, note]
        assert ctx.report.notes() == [note]

    run(main())
    assert undone == [1]


def test_steps_of_every_form_are_run() -> None:
    @future_safe(exceptions=(OSError,))
    async def safe() -> int:
        raise OSError("no")

    async def coroutine() -> Result[int, str]:
        return Success(2)

    async def main() -> None:
        ctx = StepContext("job")
        assert await ctx.run(coroutine()) == IOSuccess(2)
        assert await ctx.run(FutureResult(coroutine())) == IOSuccess(2)
        assert await ctx.run(asyncio.create_task(coroutine())) == IOSuccess(2)
        assert isinstance((await ctx.run(safe())).failure()._inner_value, OSError)

    run(main())


def test_what_returns_no_result_is_a_type_error_and_undone(undone: Undone) -> None:
    async def main() -> None:
        ctx = StepContext("job")

        async def step() -> Any:
            await ctx.register(undone, 1)
            return 7

        with pytest.raises(TypeError, match="a step returned 7 and no Result"):
            await ctx.run(step())

    run(main())
    assert undone == [1]


def test_nothing_runs_before_it_is_awaited(undone: Undone) -> None:
    async def main() -> None:
        ctx = StepContext("job")

        async def step() -> Result[int, str]:
            undone.append("run")
            return Success(1)

        job = ctx.run(step()).map(lambda n: n + 1)
        await asyncio.sleep(1)
        assert undone == []
        assert await job == IOSuccess(2)

    run(main())


def test_each_run_settles_what_was_registered_since_the_last(undone: Undone) -> None:
    async def main() -> None:
        ctx = StepContext("job")
        for n in range(4):
            await ctx.register(undone, f"before {n}")

            async def step(n: int = n) -> Result[int, int]:
                await ctx.register(undone, f"in {n}")
                return Success(n) if n % 2 else Failure(n)

            await ctx.run(step())
            assert len(ctx.scope) == 0
            assert len(ctx.report.done) == (0 if n % 2 else 2)  # of the last run alone
        await ctx.register(undone, "left over")
        await ctx.scope.commit()

    run(main())
    assert undone == ["in 0", "before 0", "in 2", "before 2"]


def test_the_report_is_that_of_the_last_run(undone: Undone) -> None:
    """Also of one that raised and had nothing to undo."""
    recorder = Recorder()

    async def main() -> None:
        ctx = StepContext("job", observer=recorder)

        async def step(error: Exception | None) -> Result[int, str]:
            if error is not None:
                raise error
            await ctx.register(gone)
            return Failure("no")

        await ctx.run(step(None))
        assert len(ctx.report.failures) == 1
        error = ValueError("no")
        with pytest.raises(ValueError, match="no"):
            await ctx.run(step(error))
        assert ctx.report == CompensationReport()
        assert error.__notes__ == ["in step job"]

    run(main())
    assert [kind for _, _, kind in seen(recorder)] == [
        "begun",
        "rolled back",
        "failed",
        "begun",
        "raised",
    ]


def test_a_step_is_not_run_in_a_busy_context(undone: Undone) -> None:
    async def main() -> None:
        ctx = StepContext("job")

        async def other() -> Result[int, str]:
            undone.append("run")
            return Success(1)

        async def step() -> Result[int, str]:
            await ctx.register(undone, 1)
            with pytest.raises(ScopeBusy) as refused:
                await ctx.run(other())
            assert refused.value.context == "job"
            with pytest.raises(ScopeBusy):
                await ctx.run(FutureResult(other()))
            future: asyncio.Future[Result[int, str]] = asyncio.get_running_loop().create_future()
            with pytest.raises(ScopeBusy):
                await ctx.run(future)
            assert not future.done()
            with pytest.raises(ScopeBusy):  # another context, the same actions
                await StepContext("twin", scope=ctx.scope).run(other())
            inner = ctx.child("part")
            assert await inner.run(other()) == IOSuccess(1)
            return Failure("no")

        assert await ctx.run(step()) == IOFailure("no")
        assert await ctx.run(other()) == IOSuccess(1)  # it is free again

    run(main())
    assert undone == ["run", 1, "run"]


def test_a_step_is_not_run_in_a_closed_context(undone: Undone) -> None:
    async def main() -> None:
        async def step() -> Result[int, str]:
            undone.append("run")
            return Success(1)

        async with StepContext("job") as ctx:
            child = ctx.child("part")
        for closed, path in (ctx, "job"), (child, "job/part"):
            with pytest.raises(ScopeClosed) as refused:
                await closed.run(step())
            assert (refused.value.scope, refused.value.state) == (path, "committed")
            with pytest.raises(ScopeClosed):
                closed.child("more")
            with pytest.raises(ScopeClosed):
                await closed.register(undone, 1)

    run(main())
    assert undone == []


@pytest.mark.parametrize("outcome", ["success", "failure", "exception"])
@pytest.mark.parametrize("settles", ["commit", "compensate"])
def test_a_step_may_settle_its_context_itself(undone: Undone, settles: str, outcome: str) -> None:
    async def main() -> None:
        ctx = StepContext("job")

        async def step() -> Result[int, str]:
            await ctx.register(undone, 1)
            await getattr(ctx.scope, settles)()
            if outcome == "exception":
                raise ValueError("no")
            return Success(1) if outcome == "success" else Failure("no")

        if outcome == "exception":
            with pytest.raises(ValueError, match="no"):
                await ctx.run(step())
        elif outcome == "failure":
            assert await ctx.run(step()) == IOFailure("no")
        elif settles == "commit":
            assert await ctx.run(step()) == IOSuccess(1)
        else:
            with pytest.raises(ScopeClosed, match="rolled back"):
                await ctx.run(step())

    run(main())
    assert undone == ([] if settles == "commit" else [1])


def test_a_success_whose_work_was_undone_from_outside_is_none(undone: Undone) -> None:
    async def main() -> None:
        outer = StepContext("outer")
        ctx = outer.child("part")

        async def step() -> Result[int, str]:
            await ctx.register(undone, 1)
            await asyncio.sleep(10)
            return Success(1)

        running = asyncio.ensure_future(ctx.run(step()).awaitable())
        await asyncio.sleep(5)
        await commit_or_roll_back(outer.scope, keep=False)
        assert undone == [1]
        with pytest.raises(ScopeClosed, match="'outer/part' has been rolled back"):
            await running
        assert now() == 10

    run(main())
    assert undone == [1]


def test_a_step_may_commit_its_first_half(undone: Undone) -> None:
    async def main() -> None:
        ctx = StepContext("job")

        async def step() -> Result[int, str]:
            await ctx.register(undone, 1)
            await ctx.commit()
            await ctx.register(undone, 2)
            return Failure("no")

        assert await ctx.run(step()) == IOFailure("no")

    run(main())
    assert undone == [2]


def test_a_late_registration_is_refused_during_the_rollback(undone: Undone) -> None:
    """A task that the step left running must not begin effects that are never undone."""

    async def main() -> None:
        ctx = StepContext("job")
        refused = asyncio.Event()

        async def straggler() -> None:
            await asyncio.sleep(0.5)
            with pytest.raises(ScopeClosed):
                await ctx.register(undone, "late")
            refused.set()

        async def step() -> Result[int, str]:
            await ctx.register(undone, 1)
            tasks.append(asyncio.create_task(straggler()))
            return Failure("no")

        tasks: list[asyncio.Task[None]] = []
        assert await ctx.run(step()) == IOFailure("no")
        assert refused.is_set()
        await tasks[0]

    run(main())
    assert undone == [1]


# Cancellation


def test_a_cancellation_during_the_rollback_of_a_failure_is_raised_after_it(
    undone: Undone,
) -> None:
    async def main() -> None:
        ctx = StepContext("job")

        async def step() -> Result[int, str]:
            await ctx.register(undone, 1)
            return Failure("no")

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await ctx.run(step())
        assert now() == 1
        assert len(ctx.report.done) == 1

    run(main())
    assert undone == [1]


@pytest.mark.parametrize("outcome", ["success", "failure", "exception"])
@pytest.mark.parametrize("times", [1, 3, 100])
def test_every_action_is_committed_or_undone_wherever_it_is_cancelled(
    outcome: str, times: int
) -> None:
    async def scenario(injector: FaultInjector) -> None:
        undone = Undone()
        registered: list[int] = []
        ctx = StepContext("job")

        async def step() -> Result[int, str]:
            for n in range(3):
                await ctx.register(undone, n)
                registered.append(n)
                await asyncio.sleep(0.1)
            if outcome == "exception":
                raise ValueError("no")
            return Success(1) if outcome == "success" else Failure("no")

        result: object = None
        try:
            result = await injector.run(ctx.run(step()))
        except (asyncio.CancelledError, ValueError) as error:
            result = error
        if result == IOSuccess(1):
            assert not undone
            return
        reported = [e.args[0] for e in ctx.report.done]
        assert reported == undone
        cut = [e.args[0] for e in ctx.report.failures]
        # The injector cancels the whole of it: never an undo, which has a task of its own.
        assert cut == []
        assert undone == registered[::-1]
        assert not ctx.scope.closed

    assert inject_everywhere(scenario, times=times) >= 3


# async with


@pytest.mark.parametrize("child", [False, True])
def test_leaving_a_context_commits_or_undoes(undone: Undone, child: bool) -> None:
    async def main() -> None:
        outer = StepContext("outer")

        def make() -> StepContext:
            return outer.child("ctx") if child else StepContext("ctx")

        async with make() as ctx:
            await ctx.register(undone, 1)
        assert ctx.scope.state == "committed"
        error = ValueError("no")
        with pytest.raises(ValueError, match="no") as raised:
            async with make() as ctx:
                await ctx.register(undone, 2)
                await ctx.register(gone)
                raise error
        assert raised.value is error
        assert len(error.__notes__) == 1
        assert ctx.scope.state == "rolled back"
        assert len(ctx.report.failures) == 1
        await outer.scope.compensate()

    run(main())
    assert undone == [2]


def test_leaving_a_context_that_is_closed_already(undone: Undone) -> None:
    async def main() -> None:
        async with StepContext("ctx") as ctx:
            await ctx.register(undone, 1)
            await ctx.scope.compensate()
        async with StepContext("ctx") as ctx:
            await ctx.register(undone, 2)
            await ctx.scope.commit()

    run(main())
    assert undone == [1]


# A scope from elsewhere


def test_a_scope_that_is_given_is_left_open_and_uncommitted(undone: Undone) -> None:
    async def main() -> None:
        scope = CompensationScope("theirs")
        async with StepContext("ctx", scope=scope) as ctx:
            assert ctx.scope is scope
            assert (ctx.name, ctx.path) == ("ctx", "ctx")
            assert ctx.key == scope.key
            await ctx.register(undone, 1)
        assert len(scope) == 1
        with pytest.raises(ValueError, match="no"):
            async with StepContext("ctx", scope=scope) as ctx:
                await ctx.register(undone, 2)
                raise ValueError("no")
        assert not scope.closed
        assert undone == [2, 1]
        await scope.register(undone, 3)
        assert await ctx.run(FutureSuccess(1)) == IOSuccess(1)  # which settles it
        assert len(scope) == 0
        await scope.register(undone, 4)
        await scope.compensate()

    run(main())
    assert undone == [2, 1, 4]


def test_an_empty_scope_that_is_given_is_the_one_that_is_used() -> None:
    scope = CompensationScope()  # its len() is 0
    assert StepContext("ctx", scope=scope).scope is scope


# Children


def test_a_child_succeeds_or_fails_on_its_own(undone: Undone) -> None:
    async def main() -> None:
        ctx = StepContext("job")

        async def part(ctx: StepContext, *, fails: bool) -> Result[str, str]:
            await ctx.register(undone, ctx.path)
            return Failure(ctx.name) if fails else Success(ctx.name)

        async def step() -> Result[int, str]:
            await ctx.register(undone, "job")
            a, b = ctx.child("a"), ctx.child("b")
            assert await a.run(part(a, fails=True)) == IOFailure("a")
            assert undone == ["job/a"]
            assert await b.run(part(b, fails=False)) == IOSuccess("b")
            return Failure("no")

        assert await ctx.run(step()) == IOFailure("no")

    run(main())
    assert undone == ["job/a", "job"]


def test_paths_keys_and_deadlines_of_children() -> None:
    ctx = StepContext("a", deadline=100)
    assert ctx.deadline == 100
    assert ctx.child("b").deadline == 100
    assert ctx.child("b", deadline=50).child("c", deadline=70).deadline == 50
    assert StepContext("a").deadline == math.inf
    inner = ctx.child("b").child("c")
    assert inner.path == inner.scope.path == "a/b/c"
    assert inner.parent is not None
    assert len({ctx.key, inner.key, inner.parent.key, StepContext("a").key}) == 4
    assert repr(inner) == "<StepContext 'a/b/c': <CompensationScope 'a/b/c': 0 to undo>>"
    with pytest.raises(InvalidArgument, match="deadline"):
        StepContext("a", deadline=math.nan)
    with pytest.raises(InvalidArgument, match="deadline"):
        ctx.child("a", deadline=math.nan)


def test_now_is_the_time_of_the_loop() -> None:
    async def main() -> None:
        ctx = StepContext("job")
        assert ctx.now() == 0
        await asyncio.sleep(1.5)
        assert ctx.now() == 1.5

    run(main())


def test_the_report_has_what_failed_inside() -> None:
    """In children of children too: the outermost context shows all of it."""

    async def main() -> None:
        ctx = StepContext("job")

        async def fails(ctx: StepContext) -> Result[int, str]:
            await ctx.register(gone, ctx.name)
            return Failure(ctx.name)

        async def recovers(value: int, ctx: StepContext) -> Result[int, str]:
            inner = ctx.child("inner")
            await inner.run(fails(inner))
            assert [e.args for e in ctx.report.failures] == [("inner",)]
            return Success(value)

        async def step(*, fail: bool) -> Result[int, str]:
            await _steps.with_child(ctx, recovers)(1)
            return (await fails(ctx)) if fail else Success(1)

        assert await ctx.run(step(fail=True)) == IOFailure("job")
        assert [e.args for e in ctx.report.failures] == [("inner",), ("job",)]
        assert ctx.report.scope == "job"
        with pytest.raises(Exception, match="2 undo action"):
            ctx.report.check()
        assert await ctx.run(step(fail=False)) == IOSuccess(1)
        assert [e.args for e in ctx.report.failures] == [("inner",)]
        assert ctx.report.scope == "job"
        assert await ctx.run(FutureSuccess(1)) == IOSuccess(1)
        assert ctx.report == CompensationReport()

    run(main())


# Keys


def test_the_key_of_a_step_is_the_same_in_its_undo_and_new_in_the_next_run() -> None:
    keys: list[str] = []

    async def undo() -> None:
        keys.append(current_key())

    async def main() -> None:
        ctx = StepContext("job")

        async def step(result: Result[int, str]) -> Result[int, str]:
            await ctx.register(undo)
            keys.append(ctx.key)
            return result

        keys.append(ctx.key)
        await ctx.run(step(Failure("no")))
        keys.append(ctx.key)
        assert len(set(keys)) == 1
        for _ in range(3):  # a retry: what was done under the last key has been undone
            keys.clear()
            before = ctx.key
            await ctx.run(step(Failure("no")))
            assert keys == [ctx.key, ctx.key]
            assert ctx.key != before

    run(main())


def test_what_is_registered_between_two_runs_has_the_key_of_the_second() -> None:
    keys: list[str] = []

    async def undo() -> None:
        keys.append(current_key())

    async def fail() -> Result[int, str]:
        keys.append(ctx.key)
        return Failure("no")

    async def main() -> None:
        await ctx.run(fail())
        await ctx.register(undo)
        keys.append(ctx.key)  # of its effect
        await ctx.run(fail())

    ctx = StepContext("job")
    run(main())
    first, between, second, undone = keys
    assert between == second == undone != first


# Steps in contexts of their own


def test_a_step_of_its_own_is_settled_by_its_outcome(undone: Undone) -> None:
    async def main() -> None:
        ctx = StepContext("job")

        async def step(n: int, own: StepContext) -> Result[int, str]:
            await own.register(undone, (own.path, n))
            if n == 2:
                raise ValueError("no")
            return Success(n) if n else Failure("none")

        run_step = _steps.with_child(ctx, step)
        assert await run_step(1) == Success(1)
        assert await run_step(0) == Failure("none")
        with pytest.raises(ValueError, match="no"):
            await run_step(2)
        held = _steps.with_child(ctx, functools.partial(step), hold=True)
        assert await held(3) == Success(3)
        assert await held(0) == Failure("none")
        assert len(ctx.scope) == 1
        assert await ctx.run(FutureFailure("later")) == IOFailure("later")

    run(main())
    assert undone == [
        ("job/step[1]", 0),
        ("job/step[2]", 2),
        ("job/step[4]", 0),
        ("job/step[3]", 3),
    ]


@pytest.mark.parametrize("hold", [False, True])
@pytest.mark.parametrize("settles", ["commit", "compensate"])
def test_a_step_of_its_own_may_settle_itself(undone: Undone, settles: str, hold: bool) -> None:
    async def main() -> None:
        ctx = StepContext("job")

        async def step(n: int, own: StepContext) -> Result[int, str]:
            await own.register(undone, n)
            await getattr(own.scope, settles)()
            return Success(n) if n else Failure("none")

        own_step = _steps.with_child(ctx, step, hold=hold)
        assert await own_step(1) == Success(1)
        assert await own_step(0) == Failure("none")
        assert len(ctx.scope) == 0

    run(main())
    assert undone == ([] if settles == "commit" else [1, 0])


def test_a_step_that_cannot_even_begin_is_settled(undone: Undone) -> None:
    async def main() -> None:
        ctx = StepContext("job")

        def step(n: int, own: StepContext) -> FutureResult[int, str]:
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            await _steps.with_child(ctx, step)(1)

    run(main())


def test_a_running_step_is_not_rolled_back_under_its_feet(undone: Undone) -> None:
    """And when it is through, no scope takes over its actions: it is undone."""

    async def main() -> None:
        ctx = StepContext("job")

        async def step(n: int, own: StepContext) -> Result[int, str]:
            await own.register(undone, n)
            await asyncio.sleep(10)
            assert undone == ["outer"]
            return Success(n)

        running = asyncio.create_task(_steps.with_child(ctx, step, hold=True)(1))
        await ctx.register(undone, "outer")
        await asyncio.sleep(1)
        await ctx.scope.compensate()
        with pytest.raises(ScopeClosed):
            await running
        with pytest.raises(ScopeClosed):  # nor does another begin
            await _steps.with_child(ctx, step)(2)

    run(main())
    assert undone == ["outer", 1]


def test_a_success_that_is_no_longer_wanted_is_undone(undone: Undone) -> None:
    async def main() -> None:
        ctx = StepContext("job")
        own = _steps.open_attempt(ctx, "try", deadline=5)
        assert (own.path, own.deadline) == ("job/try[0]", 5)

        async def step() -> Result[int, str]:
            await own.register(undone, 1)
            return Success(1)

        with pytest.raises(asyncio.CancelledError, match="no longer wanted"):
            await _steps.run_and_settle(own, step, hold=False, wanted=lambda: False)
        assert undone == [1]
        own = _steps.open_attempt(ctx, "try")
        assert await _steps.run_and_settle(own, step, hold=False, wanted=lambda: True) == Success(1)

    run(main())
    assert undone == [1]


# Observers


def seen(recorder: Recorder) -> list[tuple[float, str, str]]:
    """Show the events of steps, and those of rollbacks."""
    found: list[tuple[float, str, str]] = []
    for event in recorder.events:
        match event:
            case StepBegun() | StepEnded():
                number = "" if event.number is None else f"[{event.number}]"
                kind = event.outcome if isinstance(event, StepEnded) else "begun"
                found.append((event.at, f"{event.stage}{number}", kind))
            case ScopeRolledBack():
                found.append((event.at, event.scope, "rolled back"))
            case _:
                pass
    return found


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (Success(1), "succeeded"),
        (Failure("no"), "failed"),
        (ValueError("no"), "raised"),
        (asyncio.CancelledError(), "cancelled"),
    ],
)
def test_an_observer_gets_events_in_order_and_in_time(
    undone: Undone, outcome: Any, kind: str
) -> None:
    recorder = Recorder()

    async def main() -> None:
        ctx = StepContext("job", observer=recorder)

        async def step() -> Result[int, str]:
            await ctx.register(undone, 1)
            await asyncio.sleep(5)
            if isinstance(outcome, BaseException):
                raise outcome
            result: Result[int, str] = outcome
            return result

        with suppress(ValueError, asyncio.CancelledError):
            await ctx.run(step())
        key = ctx.key
        rollback = [] if kind == "succeeded" else [(6, "job", "rolled back")]
        end = 5 if kind == "succeeded" else 6
        assert seen(recorder) == [(0, "job", "begun"), *rollback, (end, "job", kind)]
        (begun,), (ended,) = recorder.of(StepBegun), recorder.of(StepEnded)
        assert begun.key == ended.key == key
        assert begun.run == ended.run
        assert (ended.pipeline, ended.attempt, ended.duration) == ("job", 1, end)
        assert ended.error == {"succeeded": None, "failed": "no"}.get(kind, outcome)
        for rolled_back in recorder.of(ScopeRolledBack):
            assert (rolled_back.key, rolled_back.duration) == (key, 1)
            assert (rolled_back.undone, rolled_back.failed, rolled_back.not_run) == (1, 0, 0)

    run(main())


def test_an_observer_gets_the_events_of_the_steps_inside(undone: Undone) -> None:
    recorder = Recorder()

    async def main() -> None:
        ctx = StepContext("job", observer=recorder)

        async def part(n: int, own: StepContext) -> Result[int, str]:
            if n:
                await own.register(undone, n)
            await asyncio.sleep(n)
            return Success(n) if n == 1 else Failure("no")

        async def step() -> Result[int, str]:
            for n in range(3):
                await _steps.with_child(ctx, part)(n)
            inner = ctx.child("child")
            return await to_result(inner.run(part(1, inner)))

        await ctx.run(step())

    run(main())
    assert seen(recorder) == [
        (0, "job", "begun"),
        (0, "part[0]", "begun"),
        (0, "part[0]", "failed"),  # there was nothing to undo
        (0, "part[1]", "begun"),
        (1, "part[1]", "succeeded"),
        (1, "part[2]", "begun"),
        (4, "part[2]", "rolled back"),
        (4, "part[2]", "failed"),
        (4, "child", "begun"),
        (5, "child", "succeeded"),
        (5, "job", "succeeded"),
    ]
    begun = recorder.of(StepBegun)
    assert {event.pipeline for event in begun} == {"job"}
    assert len({event.key for event in begun}) == len({event.run for event in begun}) == 5
    assert [event.parent for event in begun] == [None, *[begun[0].run] * 4]
    assert [event.item for event in begun] == [None, 0, 1, 2, None]


def test_an_observer_that_fails_changes_nothing(
    undone: Undone, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing:
        def on_event(self, event: Event) -> None:
            raise RuntimeError(type(event).__name__)

    async def main() -> None:
        ctx = StepContext("job", observer=Failing())

        async def step() -> Result[int, str]:
            await ctx.register(undone, 1)
            return Failure("no")

        assert await ctx.run(step()) == IOFailure("no")

    run(main())
    assert undone == [1]
    assert [record.exc_text or str(record.exc_info) for record in caplog.records] != []
    undo = ["UndoRegistered", "UndoBegun", "UndoDone"]
    kinds = ["StepBegun", *undo, "ScopeRolledBack", "StepEnded"]
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        f"the observer 'Failing' raised at {kind}: later ones are not logged" for kind in kinds
    ]


# Memory


@pytest.mark.parametrize("outcome", ["success", "failure", "exception"])
def test_a_step_of_its_own_leaves_nothing_behind(undone: Undone, outcome: str) -> None:
    """Nor a cycle: it is gone at once, and not when cycles are collected."""
    seen: list[weakref.ref[StepContext]] = []

    async def main() -> None:
        ctx = StepContext("job")

        async def step(n: int, own: StepContext) -> Result[int, str]:
            seen.append(weakref.ref(own))
            await own.register(undone, n)
            if outcome == "exception":
                raise ValueError("no")
            return Success(n) if outcome == "success" else Failure("no")

        gc.collect()
        gc.disable()
        try:
            call: Callable[[int], Awaitable[Result[int, str]]] = _steps.with_child(ctx, step)
            for n in range(3):
                with suppress(ValueError):
                    await call(n)
            await asyncio.sleep(0)
            assert [ref() for ref in seen] == [None] * 3
        finally:
            gc.enable()

    run(main())


@pytest.mark.parametrize("succeeds", [True, False])
def test_the_outcome_of_a_step_stands_when_its_scope_is_closed_by_the_one_around_it(
    succeeds: bool,
) -> None:
    """What closes it then has nothing to commit or to undo."""

    async def main() -> None:
        async def work(child: StepContext) -> Result[int, str]:
            await child.register(undo)
            return Success(1) if succeeds else Failure("no")

        async def undo() -> None: ...

        for fails in (True, False):
            with suppress(KeyError):
                async with StepContext("outer") as outer:
                    child = outer.child("inner")
                    await child.run(work(child))
                    if fails:
                        raise KeyError
            assert child.scope.closed
            assert child.outcome == ("committed" if succeeds else "rolled back")

    run(main())
