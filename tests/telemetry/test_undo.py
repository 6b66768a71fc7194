"""What scopes, journals and recoveries report: each action from its record to its end."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from returns.result import Failure, Result, Success

from returns_pipeline import (
    CompensationRegistry,
    CompensationScope,
    ResultStream,
    RetryPolicy,
    StepContext,
    telemetry,
)
from returns_pipeline.journal import SqliteJournal, recover
from returns_pipeline.telemetry import (
    Event,
    JournalRequest,
    Recovered,
    ScopeCommitted,
    ScopeRolledBack,
    StepEnded,
    UndoBegun,
    UndoDone,
    UndoEvent,
    UndoFailed,
    UndoRegistered,
    UndoStuck,
)
from returns_pipeline.testing import Recorder, run, timed

if TYPE_CHECKING:
    from pathlib import Path

registry = CompensationRegistry()
GONE = OSError("gone")


@registry.compensation("refund", retry=RetryPolicy(2, wait=3.0))
async def refund(order: str) -> None:
    """Take a second, and fail for some."""
    await asyncio.sleep(1.0)
    if order == "lost":
        raise GONE


def names(events: list[Event]) -> list[str]:
    return [type(event).__name__ for event in events]


def undo_events(recorder: Recorder) -> list[Event]:
    return [event for event in recorder.events if isinstance(event, UndoEvent)]


async def pay(order: str, step: StepContext) -> Result[str, str]:
    await step.register(refund, order)
    await asyncio.sleep(1.0)
    return Failure("no") if order != "fine" else Success(order)


def test_a_commit_is_reported_with_the_number_of_its_actions() -> None:
    recorder = Recorder()

    async def main() -> None:
        ctx = StepContext("shop", observer=recorder)
        await ResultStream.of(timed("fine")).bind_step(pay, ctx).run()

    run(main())
    registered, committed = recorder.of(UndoRegistered), recorder.of(ScopeCommitted)
    (ended,) = recorder.of(StepEnded)
    assert names(recorder.events) == ["StepBegun", "UndoRegistered", "ScopeCommitted", "StepEnded"]
    assert [(e.at, e.pipeline, e.scope, e.undo, e.saga) for e in registered] == [
        (0.0, "shop", "pay[0]", "refund", "")
    ]
    assert [(e.at, e.scope, e.actions) for e in committed] == [(1.0, "pay[0]", 1)]
    assert {registered[0].key, committed[0].key} == {ended.key}


def test_a_rollback_reports_each_action_then_the_whole() -> None:
    recorder = Recorder()

    async def main() -> None:
        scope = CompensationScope("shop", observer=recorder)
        for order in ("fine", "lost", "fine"):
            await scope.register(refund, order)
        await scope.compensate()

    run(main())
    done, stuck = recorder.of(UndoDone), recorder.of(UndoStuck)
    assert [(e.at, e.attempt, e.duration) for e in done] == [(1.0, 1, 1.0), (7.0, 1, 1.0)]
    assert [(e.undo, e.attempt, e.duration, e.error) for e in stuck] == [("refund", 2, 5.0, GONE)]
    (whole,) = recorder.of(ScopeRolledBack)
    assert (whole.pipeline, whole.scope, whole.at, whole.duration) == ("shop", "shop", 7.0, 7.0)
    assert (whole.undone, whole.failed, whole.not_run) == (2, 1, 0)
    assert recorder.events[-1] is whole


def test_actions_that_are_undone_at_the_same_time_are_reported_too() -> None:
    recorder = Recorder()

    async def main() -> None:
        scope = CompensationScope("shop", order="parallel", observer=recorder)
        for _ in range(2):
            await scope.register(refund, "fine")
        await scope.compensate()

    run(main())
    assert [(e.at, e.duration) for e in recorder.of(UndoDone)] == [(1.0, 1.0)] * 2


def test_an_action_that_was_not_run_is_stuck() -> None:
    recorder = Recorder()

    async def main() -> None:
        scope = CompensationScope("shop", on_failure="stop", observer=recorder)
        await scope.register(refund, "fine")
        await scope.register(refund, "lost")
        await scope.compensate()

    run(main())
    assert [(e.attempt, e.error) for e in recorder.of(UndoStuck)] == [(2, GONE), (0, None)]
    assert [(e.failed, e.not_run) for e in recorder.of(ScopeRolledBack)] == [(1, 1)]


def test_what_has_nothing_to_settle_is_not_reported() -> None:
    recorder = Recorder()

    async def main() -> None:
        async with CompensationScope("shop", observer=recorder):
            pass
        await CompensationScope("shop", observer=recorder).compensate()

    run(main())
    assert recorder.events == []


def test_a_journal_reports_its_batches_and_gives_events_the_id_of_the_saga(tmp_path: Path) -> None:
    recorder = Recorder()

    async def main() -> str:
        with telemetry.use(recorder, pipeline="shop"):
            async with SqliteJournal(tmp_path / "j.db") as journal:
                async with CompensationScope("order", journal=journal) as scope:
                    await scope.register(refund, "fine")
                    (saga,) = await journal.sagas()
                return saga.id

    saga = run(main())
    requests = recorder.of(JournalRequest)
    assert {(e.pipeline, e.journal, e.failed) for e in requests} == {
        ("shop", "SqliteJournal", False)
    }
    assert [(e.kind, e.size) for e in requests if e.kind != "other"] == [
        ("record", 1),
        ("forget", 1),
    ]
    assert all(e.duration > 0 and e.queued == 0 for e in requests)
    assert {e.saga for e in recorder.of(UndoRegistered)} == {saga}
    assert {e.saga for e in recorder.of(ScopeCommitted)} == {saga}
    assert names(recorder.events).index("JournalRequest") == 0


def test_an_undo_that_the_journal_keeps_for_later_has_failed_and_is_not_stuck(
    tmp_path: Path,
) -> None:
    recorder = Recorder()

    async def main() -> None:
        async with SqliteJournal(tmp_path / "j.db", observer=recorder) as journal:
            scope = CompensationScope("shop", journal=journal, observer=recorder, timeout=2.0)
            await scope.register(refund, "lost")  # its time ends in its first wait
            await scope.compensate()

    run(main())
    assert [(e.attempt, e.duration) for e in recorder.of(UndoFailed)] == [(1, 2.0)]
    assert recorder.of(UndoStuck) == []
    assert recorder.of(JournalRequest) != []


def test_a_recovery_reports_what_it_has_undone_and_what_is_stuck(tmp_path: Path) -> None:
    recorder = Recorder()

    async def leave_open() -> None:
        journal = SqliteJournal(tmp_path / "j.db")
        for order in ("fine", "lost"):
            scope = CompensationScope(f"order {order}", journal=journal)
            await scope.register(refund, order)
            scope._records = []
        await journal.close()

    async def main() -> None:
        async with SqliteJournal(tmp_path / "j.db") as journal:
            with telemetry.use(recorder):
                await recover(journal, registry)

    run(leave_open())
    run(main())
    others = {"JournalRequest", "UndoBegun"}
    kinds = [name for name in names(recorder.events) if name not in others]
    assert kinds == ["UndoFailed", "UndoStuck", "Recovered", "UndoDone", "Recovered"] or kinds == [
        "UndoFailed",
        "UndoDone",
        "Recovered",
        "UndoStuck",
        "Recovered",
    ]
    found = {e.pipeline: (e.undone, e.stuck, e.deferred, e.failed) for e in recorder.of(Recovered)}
    assert found == {"order fine": (1, 0, 0, False), "order lost": (0, 1, 0, False)}
    (done,), (stuck,) = recorder.of(UndoDone), recorder.of(UndoStuck)
    began = {e.run: (e.pipeline, e.scope, e.undo, e.key, e.saga) for e in recorder.of(UndoBegun)}
    ended: list[UndoDone | UndoFailed | UndoStuck] = [*recorder.of(UndoFailed), done, stuck]
    assert {e.run: (e.pipeline, e.scope, e.undo, e.key, e.saga) for e in ended} == began
    assert len(began) == 3
    assert (done.pipeline, done.undo, done.attempt, done.duration) == (
        "order fine",
        "refund",
        1,
        1.0,
    )
    assert (stuck.attempt, stuck.duration, stuck.scope) == (2, 1.0, "order lost")
    assert {e.saga for e in recorder.of(Recovered)} == {done.saga, stuck.saga}


@pytest.mark.parametrize("lazy", [False, True])
def test_a_journal_that_no_one_observes_reports_nothing(tmp_path: Path, lazy: bool) -> None:
    recorder = Recorder()

    async def main() -> None:
        async with SqliteJournal(tmp_path / "j.db", lazy_commits=lazy) as journal:
            with telemetry.use(recorder):  # it is open already
                async with CompensationScope("order", journal=journal) as scope:
                    await scope.register(refund, "fine")

    run(main())
    assert names(recorder.events) == ["UndoRegistered", "ScopeCommitted"]
