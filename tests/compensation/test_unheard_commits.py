"""Commits that the journal has carried out, although their answers were lost, are not undone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal

import pytest
from returns.result import Failure, Result, Success

from returns_pipeline._engine.future_results import to_result
from returns_pipeline.compensation import (
    CompensationRegistry,
    CompensationReport,
    CompensationScope,
)
from returns_pipeline.context import StepContext
from returns_pipeline.errors import AlreadyCommitted, JournalError, JournalUnavailable, LeaseLost
from returns_pipeline.result_stream import ResultStream
from returns_pipeline.retry import RetryPolicy
from returns_pipeline.saga import Saga
from returns_pipeline.sources import from_iterable
from returns_pipeline.telemetry import ScopeRolledBack
from returns_pipeline.testing import Recorder, run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from returns.future import FutureResult

    from returns_pipeline.compensation import ActionRecord, Intent

registry = CompensationRegistry()
undone: list[str] = []


@registry.compensation("undo", retry=RetryPolicy(3, wait=1.0))
async def undo(name: str) -> None:
    """Record the call."""
    undone.append(name)


@pytest.fixture(autouse=True)
def _clean() -> None:
    undone.clear()


class UnheardJournal:
    """A journal that carries commits out ``late`` seconds later, and does not answer them.

    A commit is not carried out if it has one of the actions in ``lost``, by name: another process
    has taken them over.
    """

    def __init__(self, *lost: str, late: float = 0.0) -> None:
        self.names: dict[str, str] = {}
        self.committed: set[str] = set()
        self.given_up: list[str] = []
        self.left: list[str] = []
        self.begun: list[str] = []
        self.lost = lost
        self.answers = False
        self._late = late

    async def record(self, intent: Intent, /) -> None:
        self.names[intent.id] = str(intent.args[0])

    async def forget(self, ids: Sequence[str], /, positions: object = ()) -> None:
        await asyncio.sleep(self._late)
        if not any(self.names[action] in self.lost for action in ids):
            self.committed.update(ids)
        if not self.answers:
            raise JournalUnavailable("unheard", "no answer")

    def forget_later(
        self, ids: Sequence[str], on_lost: Callable[[JournalError], object], /
    ) -> None: ...

    async def flush(self) -> None: ...

    def move(self, ids: Sequence[str], /, *, saga: str, name: str, prefix: str) -> None: ...

    def abandon(self, ids: Sequence[str], /) -> None:
        self.left += [self.names[action] for action in ids]

    def mark(self, action: str, /) -> ActionRecord:
        return _Record(self, action)


class _Record:
    def __init__(self, journal: UnheardJournal, action: str) -> None:
        self._journal = journal
        self._action = action

    async def begin(self) -> None:
        self._journal.begun.append(self._journal.names[self._action])
        if self._action in self._journal.committed:
            raise AlreadyCommitted("unheard", "it was committed")
        if self._journal.names[self._action] in self._journal.lost:
            raise LeaseLost("unheard", "taken over")

    async def done(self) -> None: ...

    async def give_up(self, error: object) -> None:
        self._journal.given_up.append(self._journal.names[self._action])


def names(entries: Sequence[Any]) -> list[str]:
    return [entry.args[0] for entry in entries]


def refused() -> Any:
    return pytest.raises(JournalUnavailable, match="no answer")


@pytest.mark.parametrize("order", ["reverse", "parallel"])
def test_a_scope_whose_commit_was_carried_out_is_committed_when_it_is_rolled_back(
    order: Literal["reverse", "parallel"],
) -> None:
    async def main() -> None:
        journal = UnheardJournal()
        scope = CompensationScope("s", journal=journal, order=order)
        child, empty = scope.child("child"), scope.child("empty")
        for each, name in [(scope, "a"), (child, "b"), (scope, "c")]:
            await each.register(undo, name)
        with refused():
            await scope.commit()
        assert scope.state == "open"
        report = await scope.compensate()
        assert (names(report.committed), report.all_committed) == (["c", "b", "a"], True)
        assert (report.done, report.failures, report.not_run) == ((), (), ())
        assert {(entry.attempts, entry.error) for entry in report.committed} == {(0, None)}
        report.check()
        assert {scope.state, child.state, empty.state} == {"committed"}
        assert sorted(journal.begun) == ["a", "b", "c"]  # one question each
        assert await scope.compensate() is report  # as after any rollback
        await scope.commit()
        assert journal.left == journal.given_up == []

    run(main())
    assert undone == []


def test_the_end_of_a_block_tells_that_the_refused_commit_was_carried_out() -> None:
    async def main() -> None:
        scope = CompensationScope("s", journal=UnheardJournal())
        with pytest.raises(JournalUnavailable) as caught:
            async with scope:
                await scope.register(undo, "a")
        assert caught.value.__notes__ == [
            "undo undo('a') was not run: it was committed",
            "scope 's' was committed before this was raised",
        ]
        assert scope.state == "committed"

    run(main())
    assert undone == []


@pytest.mark.parametrize("how", ["run", "step", "saga"])
def test_the_outcome_of_a_run_whose_commit_was_carried_out_is_committed(how: str) -> None:
    recorder = Recorder()

    async def work(name: str, own: StepContext) -> Result[str, str]:
        await own.register(undo, name)
        return Success(name)

    async def main() -> None:
        journal = UnheardJournal()
        ctx = StepContext("shop", journal=journal, observer=recorder)
        running: FutureResult[str, Any]
        if how == "run":
            running = ctx.run(work("a", ctx))
        elif how == "saga":
            running = ctx.run(Saga("s").step("a", work).run("a", ctx))
        else:
            stream = ResultStream.of(from_iterable(["a"])).bind_step(work, ctx)
            running = ctx.run(stream.last())
        with pytest.raises(JournalUnavailable) as caught:
            await running
        assert any("was committed" in note for note in caught.value.__notes__)
        if how != "step":
            assert ctx.outcome == "committed"
            assert names(ctx.report.committed) == ["a"]
        assert recorder.of(ScopeRolledBack) == []
        journal.answers = True
        assert await to_result(ctx.run(work("b", ctx))) == Success("b")  # it can be used again
        assert (ctx.outcome, ctx.report) == ("committed", CompensationReport())

    run(main())
    assert undone == []


def test_a_cancellation_during_a_commit_without_an_answer_is_told_that_it_was_carried_out() -> None:
    async def main() -> None:
        ctx = StepContext("shop", journal=UnheardJournal(late=10.0))

        async def work() -> Result[str, str]:
            await ctx.register(undo, "a")
            return Success("a")

        task = asyncio.ensure_future(to_result(ctx.run(work())))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert "scope 'shop' was committed before this was raised" in caught.value.__notes__
        assert ctx.outcome == "committed"

    run(main())
    assert undone == []


def test_a_rollback_undoes_what_was_not_committed_beside_a_commit_that_was_carried_out() -> None:
    async def main() -> None:
        scope = CompensationScope("s", journal=UnheardJournal(), on_failure="stop")
        first, second = scope.child("first"), scope.child("second")
        for each, name in [(scope, "a"), (first, "b"), (second, "c")]:
            await each.register(undo, name)
        with refused():
            await first.commit()
        with refused():
            await second.commit()
        await second.register(undo, "d")
        report = await scope.compensate()
        assert (names(report.done), names(report.committed)) == (["d", "a"], ["c", "b"])
        assert not report.all_committed
        states = scope.state, first.state, second.state
        assert states == ("rolled back", "committed", "rolled back")

    run(main())
    assert undone == ["d", "a"]


def test_what_another_process_has_taken_over_is_lost_and_not_committed() -> None:
    async def main() -> None:
        ctx = StepContext("shop", journal=UnheardJournal("b"))

        async def work() -> Result[str, str]:
            for name in "abc":
                await ctx.register(undo, name)
                if name != "c":
                    with refused():
                        await ctx.commit()
            return Failure("no")

        assert await to_result(ctx.run(work())) == Failure("no")
        assert ctx.outcome == "lost"
        assert names(ctx.report.committed) == ["a"]
        assert names(ctx.report.failures) == ["b"]

    run(main())
    assert undone == ["c"]


def test_a_reopened_scope_is_open_after_a_rollback_that_found_a_commit() -> None:
    async def main() -> None:
        journal = UnheardJournal()
        ctx = StepContext("shop", journal=journal)

        async def work() -> Result[str, str]:
            await ctx.register(undo, "a")
            with refused():
                await ctx.commit()
            return Failure("no")

        assert await to_result(ctx.run(work())) == Failure("no")
        assert (ctx.scope.state, ctx.outcome) == ("open", "committed")

    run(main())
    assert undone == []
