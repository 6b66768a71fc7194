"""A task that meets a commit or a rollback under way waits for its outcome, then looks again."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from returns.result import Failure, Result, Success

from returns_pipeline._engine.future_results import to_result
from returns_pipeline.compensation import (
    CompensationRegistry,
    CompensationScope,
    ScopeState,
    _internals,
)
from returns_pipeline.compensation.protocol import HandledPositions
from returns_pipeline.context import StepContext
from returns_pipeline.errors import (
    JournalError,
    JournalUnavailable,
    LeaseLost,
    ScopeClosed,
    StepTimeout,
)
from returns_pipeline.policies import with_timeout
from returns_pipeline.retry import RetryPolicy, Timeout
from returns_pipeline.saga import Saga
from returns_pipeline.testing import run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from returns_pipeline.compensation import ActionRecord, Intent

registry = CompensationRegistry()
undone: list[int] = []


@registry.compensation("undo", timeout=5.0)
async def undo(n: int) -> None:
    """Record the call."""
    undone.append(n)


@pytest.fixture(autouse=True)
def _clean() -> None:
    undone.clear()


class LateJournal:
    """A journal that answers a commit after 10 seconds, and an attempt after ``begin`` seconds."""

    def __init__(self, *, refuses: bool = False, begin: float = 0.0) -> None:
        self.refuses = refuses
        self.seconds = begin
        self.intents: list[Intent] = []
        self.left: list[str] = []
        self.later: list[str] = []
        self.given_up: list[object] = []

    async def record(self, intent: Intent, /) -> None:
        self.intents.append(intent)

    async def forget(self, ids: Sequence[str], /, positions: object = ()) -> None:
        await asyncio.sleep(10)
        if self.refuses:
            raise JournalUnavailable("late", "locked")

    def forget_later(
        self, ids: Sequence[str], on_lost: Callable[[JournalError], object], /
    ) -> None:
        self.later += ids

    async def flush(self) -> None:
        if self.later and self.refuses:
            raise JournalUnavailable("late", "locked")

    def move(self, ids: Sequence[str], /, *, saga: str, name: str, prefix: str) -> None: ...

    def abandon(self, ids: Sequence[str], /) -> None:
        self.left += ids

    def mark(self, action: str, /) -> ActionRecord:
        return self

    async def begin(self) -> None:
        await asyncio.sleep(abs(self.seconds))
        if self.seconds < 0:
            raise JournalUnavailable("late", "away")

    async def done(self) -> None: ...

    async def give_up(self, error: object) -> None:
        self.given_up.append(error)


@pytest.mark.parametrize("refuses", [False, True])
def test_a_second_committer_learns_the_outcome_of_the_first(refuses: bool) -> None:
    async def main() -> None:
        scope = CompensationScope("s", journal=LateJournal(refuses=refuses))
        await scope.register(undo, 1)

        async def leaves() -> None:
            async with scope:
                pass

        first, second = await asyncio.gather(leaves(), scope.commit(), return_exceptions=True)
        if refuses:
            assert isinstance(first, JournalUnavailable)
            assert isinstance(second, ScopeClosed)
        else:
            assert first is second is None

    run(main())
    assert undone == ([1] if refuses else [])


@pytest.mark.parametrize("refuses", [False, True])
def test_a_rollback_waits_for_a_commit_and_undoes_what_was_refused(refuses: bool) -> None:
    async def main() -> None:
        scope = CompensationScope("s", journal=LateJournal(refuses=refuses))
        await scope.register(undo, 1)
        committing = asyncio.create_task(scope.commit())
        await asyncio.sleep(1)
        assert scope.state is ScopeState.COMMITTING
        report = await scope.compensate()
        assert len(report.done) == (1 if refuses else 0)
        assert scope.state == ("rolled back" if refuses else "committed")
        await asyncio.wait({committing})
        assert (committing.exception() is not None) is refuses

    run(main())
    assert undone == ([1] if refuses else [])


@pytest.mark.parametrize("refuses", [False, True])
def test_a_parent_s_rollback_takes_a_child_s_refused_commit_in_and_runs_it_once(
    refuses: bool,
) -> None:
    async def main() -> None:
        root = CompensationScope("root", journal=LateJournal(refuses=refuses))
        child = root.child("child")
        await root.register(undo, 1)
        await child.register(undo, 2)

        async def leaves() -> None:
            async with child:
                pass

        leaving = asyncio.create_task(leaves())
        await asyncio.sleep(1)
        report = await root.compensate()
        assert not report.failures
        await asyncio.wait({leaving})
        assert (leaving.exception() is not None) is refuses

    run(main())
    assert undone == ([2, 1] if refuses else [1])


def test_a_registration_waits_for_a_commit_after_which_the_scope_stays_open() -> None:
    async def main() -> None:
        async with StepContext("job", journal=LateJournal()) as ctx:
            await ctx.register(undo, 1)
            committing = asyncio.create_task(ctx.commit())
            await asyncio.sleep(1)
            await ctx.register(undo, 2)
            assert asyncio.get_running_loop().time() == 10
            await committing
            await ctx.scope.compensate()

    run(main())
    assert undone == [2]


@pytest.mark.parametrize("refuses", [False, True])
def test_a_cancellation_during_a_commit_tells_whether_the_effect_stands(refuses: bool) -> None:
    async def main() -> None:
        ctx = StepContext("job", journal=LateJournal(refuses=refuses))

        async def step() -> Result[int, str]:
            await ctx.register(undo, 1)
            return Success(1)

        running = asyncio.ensure_future(ctx.run(step()).awaitable())
        await asyncio.sleep(1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await running
        assert ctx.outcome == ("rolled back" if refuses else "committed")
        notes = getattr(cancelled.value, "__notes__", [])
        assert ("scope 'job' was committed before this was raised" in notes) is not refuses

    run(main())
    assert undone == ([1] if refuses else [])


@pytest.mark.parametrize("refuses", [False, True])
@pytest.mark.parametrize("how", ["context", "scope", "scope committed by hand"])
def test_a_cancellation_while_a_commit_is_flushed_tells_that_it_stands(
    how: str, refuses: bool
) -> None:
    class Flushing(LateJournal):
        async def forget(self, ids: Sequence[str], /, positions: object = ()) -> None: ...

        async def flush(self) -> None:
            await asyncio.sleep(10)
            if self.refuses:
                raise JournalUnavailable("late", "locked")

    async def main() -> None:
        ctx = StepContext("job", journal=Flushing(refuses=refuses))

        async def step() -> Result[int, str]:
            await ctx.register(undo, 1)
            return Success(1)

        async def leaves() -> None:
            async with ctx.scope as scope:
                await scope.register(undo, 1)
                if how == "scope committed by hand":
                    await scope.commit()

        running: asyncio.Future[object] = asyncio.ensure_future(
            ctx.run(step()).awaitable() if how == "context" else leaves()
        )
        await asyncio.sleep(1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await running
        assert ctx.outcome == "committed"
        notes = getattr(cancelled.value, "__notes__", [])
        # Without the flush it is committed, but nobody may rely on that yet: the cause says so.
        assert ("scope 'job' was committed before this was raised" in notes) is not refuses
        assert isinstance(cancelled.value.__cause__, JournalUnavailable) is refuses

    run(main())
    assert undone == []


def test_a_flush_that_is_cancelled_says_nothing_of_actions_that_are_open() -> None:
    class Flushing(LateJournal):
        async def flush(self) -> None:
            await asyncio.sleep(10)

    async def main() -> None:
        scope = CompensationScope("job", journal=Flushing())
        await scope.register(undo, 1)
        flushing = asyncio.create_task(scope.flush())
        await asyncio.sleep(1)
        flushing.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await flushing
        assert getattr(cancelled.value, "__notes__", []) == []
        await scope.compensate()

    run(main())
    assert undone == [1]


def test_a_step_at_its_limit_is_not_stopped_in_the_middle_of_a_commit() -> None:
    async def main() -> None:
        async def step(ctx: StepContext) -> Result[int, str]:
            await ctx.register(undo, 1)
            await ctx.commit()
            return Success(1)

        async with StepContext("job", journal=LateJournal()) as ctx:
            result: Any = await with_timeout(step, 2.0, grace=0.1)(ctx)
            assert result.unwrap()._inner_value == 1

    run(main())


def test_an_undo_s_time_passes_only_while_it_runs() -> None:
    async def main() -> None:
        journal = LateJournal(begin=60)
        scope = CompensationScope("s", journal=journal)
        await scope.register(undo, 1)
        assert len((await scope.compensate()).done) == 1
        assert journal.given_up == []

    run(main())
    assert undone == [1]


def test_what_the_journal_kept_from_running_is_left_to_recover() -> None:
    async def main() -> None:
        journal = LateJournal(begin=-1)
        scope = CompensationScope("s", journal=journal, on_failure="stop")
        await scope.register(undo, 1)
        await scope.register(undo, 2)
        assert len((await scope.compensate()).not_run) == 1
        assert journal.left == [intent.id for intent in reversed(journal.intents)]
        assert journal.given_up == []
        assert journal.intents[0].on_failure == "stop"

    run(main())
    assert undone == []


def test_steps_in_flight_are_of_the_saga_of_their_root() -> None:
    async def main() -> None:
        journal = LateJournal()
        ctx = StepContext("job", journal=journal)

        async def part(n: int) -> Result[int, str]:
            await ctx.child("part").register(undo, n)
            return Success(n)

        await ctx.register(undo, 1)
        await part(2)
        assert len({intent.saga for intent in journal.intents}) == 1
        await ctx.scope.compensate()

    run(main())
    assert undone == [2, 1]


@pytest.mark.parametrize("turns", range(1, 12))
def test_what_comes_before_a_pivot_stands_once_the_step_before_it_has_succeeded(turns: int) -> None:
    captured: list[int] = []

    async def reserve(order: int) -> Result[int, str]:
        return Success(order)

    async def capture(order: int) -> Result[int, str]:
        await asyncio.sleep(0)
        captured.append(order)
        return Success(order)

    async def main() -> None:
        saga = Saga("s").step("reserve", reserve, undo=undo)
        run_it = saga.step("capture", capture, timeout=5.0).pivot().run(1)
        task = asyncio.ensure_future(run_it.awaitable())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})

    run(main())
    assert not (captured and undone)


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_commit_that_is_refused_after_a_pivot_undoes_nothing(
    cancelled: bool, caplog: pytest.LogCaptureFixture
) -> None:
    mailed: list[int] = []

    async def pay(order: int) -> Result[int, str]:
        return Success(order)

    async def mail(order: int) -> Result[int, str]:
        mailed.append(order)
        return Success(order)

    async def main() -> None:
        journal = LateJournal(refuses=True)
        ctx = StepContext("job", journal=journal)
        saga = Saga("s").step("reserve", pay, undo=undo).step("pay", pay).pivot().step("mail", mail)
        running = asyncio.ensure_future(ctx.run(saga.run(1, ctx)).awaitable())
        await asyncio.sleep(5)
        if cancelled:
            running.cancel()
        await asyncio.wait({running})
        assert running.cancelled() is cancelled
        if not cancelled:  # the commit is presumed, and the end waits until it is durable
            assert isinstance(running.exception(), JournalUnavailable)
        assert mailed == ([] if cancelled else [1])
        assert len(ctx.scope) == 0
        assert journal.later == [intent.id for intent in journal.intents]
        assert journal.left == journal.given_up == []
        await asyncio.sleep(100)

    run(main())
    assert undone == []
    assert "is past its pivot, and not committed" in caplog.text


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("settles", ["commit", "absorb", "compensate"])
def test_a_step_that_fails_after_its_scope_was_settled_has_that_outcome(
    settles: str, fails: bool
) -> None:
    async def main() -> ScopeState:
        ctx, other = StepContext("job"), CompensationScope("other")

        async def step() -> Result[int, str]:
            await ctx.register(undo, 1)
            if settles == "absorb":
                other.absorb(ctx.scope)
            elif settles == "commit":
                await ctx.scope.commit()
            else:
                await ctx.scope.compensate()
            if fails:
                return Failure("late")
            raise KeyError

        with suppress(KeyError):
            await ctx.run(step())
        await other.commit()
        return ctx.outcome

    outcomes = {"commit": "committed", "absorb": "absorbed", "compensate": "rolled back"}
    assert run(main()) == outcomes[settles]
    assert undone == ([1] if settles == "compensate" else [])


async def _reserve_and_pay(ctx: StepContext, *, ships: bool = False) -> Result[int, str]:
    async def pay(order: int) -> Result[int, str]:
        return Success(order)

    async def ship(order: int) -> Result[int, str]:
        raise AssertionError(f"{order} is shipped")

    saga = Saga("s").step("reserve", pay, undo=undo).step("pay", pay).pivot()
    saga = saga.step("ship", ship) if ships else saga
    return await to_result(ctx.run(saga.run(1, ctx)))


async def _reserve_and_pay_inside(ctx: StepContext) -> Result[int, str]:
    async def pay(order: int, own: StepContext) -> Result[int, str]:
        await own.register(undo, order)
        return Success(order)

    return await to_result(Saga("s").step("pay", pay).pivot().run(1, ctx))


def test_the_end_of_a_loop_that_cancels_all_tasks_undoes_nothing_after_a_pivot() -> None:
    async def main() -> None:
        ctx = StepContext("job", journal=LateJournal())
        running = asyncio.create_task(_reserve_and_pay(ctx))
        for _ in range(3):  # the tasks of the commit, too
            await asyncio.sleep(1)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
        await asyncio.wait({running})
        assert running.cancelled()
        assert len(ctx.scope) == 0

    run(main())
    assert undone == []


def test_a_saga_ends_at_a_pivot_whose_commit_can_never_be_written() -> None:
    class Closing(LateJournal):
        def forget_later(self, *_: object) -> None:
            raise JournalUnavailable("late", "closing")

    class Fenced(LateJournal):
        async def forget(self, ids: Sequence[str], /, positions: object = ()) -> None:
            raise LeaseLost("late", "taken over")

    async def main(journal: LateJournal, error: type[Exception]) -> None:
        with pytest.raises(error) as caught:
            await _reserve_and_pay(StepContext("job", journal=journal), ships=True)
        assert "is past its pivot: nothing of it is undone here" in str(caught.value.__notes__)

    run(main(Closing(refuses=True), JournalUnavailable))
    run(main(Fenced(), LeaseLost))
    assert undone == []


class LosingJournal(LateJournal):
    """A journal that loses every commit at a pivot, when `lose` is called."""

    def __init__(self, *, seconds: float = 0.0) -> None:
        super().__init__(refuses=True)
        self.told: list[Callable[[JournalError], object]] = []
        self._seconds = seconds

    async def forget(self, ids: Sequence[str], /, positions: object = ()) -> None:
        raise JournalUnavailable("losing", "locked")

    def forget_later(
        self, ids: Sequence[str], on_lost: Callable[[JournalError], object], /
    ) -> None:
        self.told.append(on_lost)

    async def flush(self) -> None:
        await asyncio.sleep(self._seconds)

    def lose(self, error: JournalError) -> None:
        for on_lost in self.told:
            on_lost(error)


class CommittingJournal(LosingJournal):
    """A journal that refuses commits of the first scope alone."""

    async def forget(self, ids: Sequence[str], /, positions: object = ()) -> None:
        if self.intents[0].id in ids:
            raise JournalUnavailable("losing", "locked")


def test_a_commit_at_a_pivot_that_is_lost_is_reported_to_its_own_run_alone() -> None:
    async def main() -> None:
        journal = CommittingJournal()
        ctx = StepContext("shop", journal=journal)
        may_end = asyncio.Event()

        async def pay(order: int, own: StepContext) -> Result[int, str]:
            await own.register(undo, order)
            return Success(order)

        async def mail(order: int) -> Result[int, str]:
            await may_end.wait()
            return Success(order)

        saga = Saga("s").step("pay", pay).pivot().step("mail", mail)
        first = ctx.child("first")
        selling = asyncio.ensure_future(first.run(saga.run(1, first)).awaitable())
        await asyncio.sleep(1)
        journal.lose(LeaseLost("losing", "taken over"))
        second = ctx.child("second")
        assert await to_result(second.run(pay(2, second))) == Success(2)
        may_end.set()
        with pytest.raises(LeaseLost):
            await selling
        assert (first.outcome, second.outcome) == ("lost", "committed")
        await ctx.scope.flush()  # it is reported once

    run(main())
    assert undone == []


@pytest.mark.parametrize("how", ["run", "scope"])
def test_a_commit_at_a_pivot_that_is_lost_inside_is_reported_to_what_encloses_it(how: str) -> None:
    async def main() -> None:
        journal = LosingJournal()
        ctx = StepContext("shop", journal=journal)

        async def step() -> Result[int, str]:
            result = await _reserve_and_pay_inside(ctx)
            journal.lose(JournalUnavailable("losing", "1 commits were not written"))
            return result

        with pytest.raises(JournalUnavailable, match="were not written"):
            if how == "run":
                await to_result(ctx.run(step()))
            else:
                async with ctx.scope:
                    await step()
        if how == "run":
            assert ctx.outcome == "lost"

    run(main())
    assert undone == []


@pytest.mark.parametrize("lost_first", [False, True])
@pytest.mark.parametrize("left", [0, 1])
@pytest.mark.parametrize("rounds", [1, 2])
def test_a_commit_at_a_pivot_that_is_lost_is_reported_to_what_has_absorbed_it(
    rounds: int, left: int, *, lost_first: bool
) -> None:
    async def main() -> None:
        journal = LosingJournal()
        ctx = StepContext("shop", journal=journal)
        _ = await _reserve_and_pay_inside(ctx)
        scope = ctx.scope
        for n in range(left):
            await scope.register(undo, n)
        if lost_first:
            journal.lose(JournalUnavailable("losing", "1 commits were not written"))
        for n in range(rounds):
            outer = CompensationScope(f"outer {n}", journal=journal)
            outer.absorb(scope)
            scope = outer
        if not lost_first:
            journal.lose(JournalUnavailable("losing", "1 commits were not written"))
        async with CompensationScope("another", journal=journal):
            pass
        with pytest.raises(JournalUnavailable, match="were not written"):
            await scope.flush()
        await scope.flush()  # it is reported once
        await scope.compensate()

    run(main())
    assert undone == list(range(left))


def test_a_commit_at_a_pivot_under_way_is_reported_to_what_has_absorbed_its_scope_meanwhile() -> (
    None
):
    class Slow(LosingJournal):
        async def forget(self, ids: Sequence[str], /, positions: object = ()) -> None:
            await asyncio.sleep(10)
            raise JournalUnavailable("losing", "locked")

    async def main() -> None:
        journal = Slow()
        scope, outer = (CompensationScope(name, journal=journal) for name in ("shop", "outer"))
        inner = scope.child("inner")
        await inner.register(undo, 1)
        committing = asyncio.create_task(_internals.presume_committed(inner))
        await asyncio.sleep(1)
        outer.absorb(scope)
        await committing
        journal.lose(LeaseLost("losing", "taken over"))
        with pytest.raises(LeaseLost):
            await outer.flush()

    run(main())
    assert undone == []


def test_no_positions_are_stored_before_the_commit_at_a_pivot_of_what_was_absorbed() -> None:
    class Away(LosingJournal):
        async def flush(self) -> None:
            raise JournalUnavailable("losing", "away")

    async def main() -> None:
        journal = Away()
        ctx = StepContext("shop", journal=journal)
        _ = await _reserve_and_pay_inside(ctx)
        outer = CompensationScope("outer", journal=journal)
        outer.absorb(ctx.scope)
        with pytest.raises(JournalUnavailable, match="away"):
            await _internals.commit_covering(outer, [HandledPositions("s", "p", "p", 1, ())])
        await outer.compensate()

    run(main())
    assert undone == []


def test_a_commit_that_is_lost_after_two_scopes_have_absorbed_parts_of_each_other() -> None:
    async def main() -> None:
        journal = LosingJournal()
        shops = [StepContext(f"shop {n}", journal=journal) for n in range(2)]
        for n in range(2):
            inner = shops[n].child("inner")
            _ = await _reserve_and_pay_inside(inner)
            shops[1 - n].scope.absorb(inner.scope)
        journal.told[0](LeaseLost("losing", "taken over"))
        await shops[0].scope.flush()  # it is not its own any more
        with pytest.raises(LeaseLost):
            await shops[1].scope.flush()

    run(main())
    assert undone == []


def test_a_cancellation_while_the_loss_of_a_commit_is_found_has_it_as_its_cause() -> None:
    async def main() -> None:
        journal = LosingJournal(seconds=10)
        ctx = StepContext("shop", journal=journal)
        selling = asyncio.ensure_future(_reserve_and_pay(ctx))
        await asyncio.sleep(1)
        journal.lose(LeaseLost("losing", "taken over"))
        selling.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await selling
        assert isinstance(cancelled.value.__cause__, LeaseLost)
        assert ctx.outcome == "lost"
        assert "was committed" not in str(getattr(cancelled.value, "__notes__", ""))

    run(main())
    assert undone == []


def test_a_cancellation_while_a_lost_commit_is_refused_has_the_refusal_as_its_cause() -> None:
    class Fenced(LateJournal):
        async def forget(self, ids: Sequence[str], /, positions: object = ()) -> None:
            await asyncio.sleep(10)
            raise LeaseLost("late", "taken over")

    async def main() -> None:
        ctx = StepContext("job", journal=Fenced())
        selling = asyncio.ensure_future(_reserve_and_pay(ctx))
        await asyncio.sleep(1)
        selling.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await selling
        assert isinstance(cancelled.value.__cause__, LeaseLost)
        assert ctx.outcome == "lost"

    run(main())
    assert undone == []


@pytest.mark.parametrize("when", ["commit", "undo"])
def test_the_outcome_of_what_another_process_has_taken_over_is_lost(when: str) -> None:
    class Fenced(LateJournal):
        async def forget(self, ids: Sequence[str], /, positions: object = ()) -> None:
            raise LeaseLost("late", "taken over")

        async def begin(self) -> None:
            raise LeaseLost("late", "taken over")

    async def main() -> None:
        ctx = StepContext("job", journal=Fenced())

        async def step() -> Result[int, str]:
            await ctx.register(undo, 1)
            return Success(1) if when == "commit" else Failure("no")

        if when == "commit":
            with pytest.raises(LeaseLost):
                await to_result(ctx.run(step()))
        else:
            assert await to_result(ctx.run(step())) == Failure("no")
        assert ctx.outcome == "lost"

    run(main())
    assert undone == []


def test_a_fault_of_the_journal_at_a_pivot_undoes_nothing() -> None:
    class Faulty(LateJournal):
        async def forget(self, ids: Sequence[str], /, positions: object = ()) -> None:
            raise OSError("a journal of one's own may raise anything")

    async def main() -> None:
        journal = Faulty()
        assert await _reserve_and_pay(StepContext("job", journal=journal)) == Success(1)
        assert len(journal.later) == 1

    run(main())
    assert undone == []


@pytest.mark.parametrize("how", ["fails", "raises"])
def test_what_steps_after_a_pivot_register_is_kept_when_a_later_one_fails(how: str) -> None:
    async def pay(order: int, own: StepContext) -> Result[int, str]:
        await own.register(undo, order)
        return Success(order + 1)

    async def end(_: int) -> Result[int, str]:
        if how == "raises":
            raise KeyError
        return Failure("no")

    async def main() -> None:
        saga = Saga("s").step("pay", pay).pivot().step("ship", pay)
        saga = saga.step("end", end, retry=RetryPolicy(1))
        with suppress(KeyError):
            assert await to_result(saga.run(1)) == Failure("no")

    run(main())
    assert undone == []


@pytest.mark.parametrize("settles", ["late", "abandoned"])
def test_what_the_step_before_a_pivot_registers_stands_or_falls_with_it(settles: str) -> None:
    async def pay(order: int, own: StepContext) -> Result[int, str]:
        await own.register(undo, order)
        while settles == "late":  # it succeeds although it was asked to stop
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                break
        else:
            await to_result(own.run(_ignore(60)))
        return Success(order)

    async def main() -> object:
        saga = Saga("s").step("pay", pay, timeout=Timeout(5.0, grace=20.0)).pivot()
        given = await to_result(saga.run(1))
        await asyncio.sleep(100)
        return given

    given = run(main())
    if settles == "late":
        assert (given, undone) == (Success(1), [])
    else:
        assert isinstance(given, Failure)
        assert undone == [1]


async def _ignore(seconds: float) -> Result[int, str]:
    sleeping = asyncio.ensure_future(asyncio.sleep(seconds))
    while not sleeping.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({sleeping})
    return Success(0)


def test_several_committers_wait_for_a_child_s_commit_and_then_for_one_another() -> None:
    async def main() -> None:
        scope = CompensationScope("s", journal=LateJournal())
        child = scope.child("c")
        await scope.register(undo, 1)
        await child.register(undo, 2)

        async def leaves() -> None:
            async with scope:
                pass

        commits = [child.commit(), scope.commit(), leaves(), scope.commit()]
        assert await asyncio.gather(*commits, return_exceptions=True) == [None] * 4
        assert scope.state is ScopeState.COMMITTED

    run(main())
    assert undone == []


@pytest.mark.parametrize("before", [0, 1])
def test_an_action_on_its_way_to_the_journal_is_accepted_after_a_checkpoint(before: int) -> None:
    class Slow(LateJournal):
        async def record(self, intent: Intent, /) -> None:
            self.intents.append(intent)
            await asyncio.sleep(5)

    async def main() -> None:
        ctx = StepContext("job", journal=Slow())
        for n in range(before):
            await ctx.register(undo, n)
        await asyncio.gather(ctx.register(undo, 7), ctx.commit())
        assert len(ctx.scope) == 1
        await ctx.scope.compensate()

    run(main())
    assert undone == [7]


def test_a_policy_that_does_not_know_a_timeout_does_not_replace_the_exception() -> None:
    def is_busy(error: Any) -> bool:
        return bool(error.busy)  # a StepTimeout has no such attribute

    async def hangs(n: int) -> None:
        await asyncio.sleep(60)

    retry = RetryPolicy(attempts=3, retry_on=is_busy)
    slow = CompensationRegistry().compensation("hangs", retry=retry, timeout=1.0)(hangs)

    async def main() -> None:
        journal = LateJournal()
        scope = CompensationScope("s", journal=journal)
        with pytest.raises(KeyError):
            async with scope:
                await scope.register(undo, 1)
                await scope.register(slow, 2)
                raise KeyError
        assert scope.state is ScopeState.ROLLED_BACK
        (failure,) = scope.report.failures
        assert journal.given_up == [failure.error]
        assert isinstance(failure.error, StepTimeout)

    run(main())
    assert undone == [1]


def test_an_argument_that_cannot_be_shown_does_not_replace_the_exception() -> None:
    async def fails(n: int) -> None:
        raise OSError(n)

    async def main() -> None:
        error = KeyError("original")
        with pytest.raises(KeyError) as raised:
            async with CompensationScope("s") as scope:
                await scope.register(fails, 10**5000)
                raise error
        assert raised.value is error
        cannot_be_shown = (
            r"repr\(\) raised|instance with roughly 5001 digits"  # the latter from 3.14 on
        )
        assert re.search(cannot_be_shown, error.__notes__[0])
        assert re.search(cannot_be_shown, repr(scope.report))

    run(main())


def test_a_rollback_cancelled_while_it_gives_an_action_up_still_reports_the_failure() -> None:
    class Slow(LateJournal):
        async def give_up(self, error: object) -> None:
            self.given_up.append(error)
            await asyncio.sleep(1)

    @registry.compensation("breaks")
    async def breaks(_: int) -> None:
        raise OSError("the store is down")

    async def main() -> None:
        journal = Slow()
        scope = CompensationScope("s", journal=journal)
        await scope.register(undo, 1)
        await scope.register(breaks, 2)
        compensating = asyncio.create_task(scope.compensate())
        await asyncio.sleep(0.5)
        assert journal.given_up
        (rollback,) = (t for t in asyncio.all_tasks() if t.get_name() == "roll back s")
        rollback.cancel()
        report = await compensating
        assert [entry.name for entry in report.done] == ["undo"]
        assert [entry.name for entry in report.failures] == ["breaks"]
        assert len(journal.left) == 1  # nobody knows whether it was given up: recover() finds out

    run(main())
