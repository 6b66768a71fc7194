"""Commits that ride with the next intent: one flush a window, nothing lost in silence."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from returns.result import Failure, Result, Success
from undoing import in_child, listed, note, registry, undone

from returns_pipeline._engine.future_results import to_result
from returns_pipeline.compensation import CompensationScope
from returns_pipeline.context import StepContext
from returns_pipeline.errors import JournalError, JournalUnavailable, LeaseLost
from returns_pipeline.journal import SqliteJournal, recover
from returns_pipeline.journal.sqlite import _group_commit as group_commit
from returns_pipeline.result_stream import ResultStream
from returns_pipeline.testing import timed

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep commits from being written by themselves while the test looks."""
    monkeypatch.setattr(group_commit, "LAZY_DELAY", 3600.0)


async def counted(journal: SqliteJournal) -> list[str]:
    """Return a list that grows with each transaction of the journal that was made durable."""
    commits: list[str] = []

    def seen(statement: str) -> None:
        if statement == "COMMIT":
            commits.append(statement)

    await journal._do(lambda db: db.set_trace_callback(seen))
    commits.clear()
    return commits


async def write(window: int, step: StepContext) -> Result[int, str]:
    await step.register(note, str(window))
    return Success(window)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(("lazy", "expected"), [(True, 10 + 1), (False, 2 * 10)])
def test_a_window_waits_for_the_disk_once_if_commits_are_lazy(
    path: Path, lazy: bool, expected: int
) -> None:
    async def main() -> None:
        async with SqliteJournal(path, lazy_commits=lazy) as journal:
            commits = await counted(journal)
            ctx = StepContext("job", journal=journal)
            windows = ResultStream.of(timed(*range(10))).bind_step(write, ctx)
            assert await to_result(ctx.run(windows.run())) == Success(10)
            assert len(commits) == expected  # with the last one's commit, before run() returned it
            assert await listed(path) == {}

    asyncio.run(main())


@pytest.mark.usefixtures("alone")
def test_a_commit_that_is_not_flushed_is_undone_if_the_process_dies(path: Path) -> None:
    async def dies(*, flushed: bool) -> None:
        journal = SqliteJournal(path, lazy_commits=True)
        scope = CompensationScope("flushed" if flushed else "not", journal=journal)
        await scope.register(note, scope.name)
        await scope.commit()
        if flushed:
            await journal.flush()

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            assert [report.name for report in await recover(journal, registry)] == ["not"]
        assert undone == ["not"]

    assert in_child(lambda: dies(flushed=True)) == 0
    assert in_child(lambda: dies(flushed=False)) == 0
    asyncio.run(main())


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("how", ["scope", "context", "run", "failed run", "close", "next"])
def test_a_lazy_commit_is_durable_when_the_whole_has_ended(path: Path, how: str) -> None:
    """Each way runs in a process that is killed at once; then the file is read."""

    async def dies() -> None:
        journal = SqliteJournal(path, lazy_commits=True)
        if how == "scope":
            async with CompensationScope("a", journal=journal) as scope:
                await scope.register(note, "x")
            return
        ctx = StepContext("a", journal=journal)
        if how == "context":
            async with ctx:
                await ctx.register(note, "x")
            return
        windows = ResultStream.of(timed(1)).bind_step(write, ctx)
        if how == "run":
            await ctx.run(windows.run())
        elif how == "failed run":  # which does not undo what a step inside has committed
            await ctx.run(windows.bind(lambda _: Failure("no")).run())
        else:
            await windows.run()
        if how == "close":
            await journal.close()
        if how == "next":
            await CompensationScope("next", journal=journal).register(note, "y")

    assert in_child(dies) == 0
    expected = {"next": "pending"} if how == "next" else {}
    assert asyncio.run(listed(path)) == expected


def test_a_commit_that_no_request_follows_is_written_by_itself(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "LAZY_DELAY", 0.001)

    async def main() -> None:
        async with SqliteJournal(path, lazy_commits=True) as journal:
            commits = await counted(journal)
            scope = CompensationScope("a", journal=journal)
            await scope.register(note, "x")
            await scope.commit()
            async with asyncio.timeout(10):
                while await listed(path):  # real input and output, in another thread
                    pass
            assert len(commits) == 2

    asyncio.run(main())


def test_a_flush_with_nothing_to_write_begins_no_transaction(path: Path) -> None:
    async def main() -> None:
        journal = SqliteJournal(path, lazy_commits=True)
        await journal.flush()
        await journal.close()

    asyncio.run(main())
    assert not path.exists()


@pytest.mark.usefixtures("alone")
def test_while_a_commit_cannot_be_written_every_request_says_so_and_then_it_is(path: Path) -> None:
    async def main() -> None:
        async with SqliteJournal(path, lazy_commits=True, patience=0.01) as journal:
            scope = CompensationScope("a", journal=journal)
            await scope.register(note, "x")
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                await scope.commit()
                with pytest.raises(JournalUnavailable, match="locked"):
                    await journal.flush()
                with pytest.raises(JournalUnavailable, match="locked"):
                    await CompensationScope("b", journal=journal).register(note, "y")
                ctx = StepContext("c", journal=journal)

                async def nothing() -> Result[int, str]:
                    return Success(1)

                with pytest.raises(JournalUnavailable, match="locked"):
                    await ctx.run(nothing())
                assert await listed(path) == {"a": "pending"}
                other.execute("ROLLBACK")
            await journal.flush()
            assert await listed(path) == {}
            assert undone == []

    asyncio.run(main())


@pytest.mark.usefixtures("alone")
def test_closing_a_journal_that_cannot_be_written_says_what_is_lost(path: Path) -> None:
    async def main() -> None:
        journal = SqliteJournal(path, lazy_commits=True, patience=0.01)
        scope = CompensationScope("a", journal=journal)
        await scope.register(note, "x")
        await scope.commit()
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(JournalUnavailable, match="1 commits were not written"):
                await journal.close()
        await journal.close()
        async with SqliteJournal(path) as next_one:
            assert len(await recover(next_one, registry)) == 1

    asyncio.run(main())


def test_a_commit_that_came_too_late_is_reported_by_everything_until_the_journal_is_used_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "LAZY_DELAY", 3600.0)

    async def main() -> None:
        journal = SqliteJournal(path, lazy_commits=True)
        scope = CompensationScope("a", journal=journal)
        await scope.register(note, "x")
        other = CompensationScope("other", journal=journal)
        await other.register(note, "y")
        take_over(path, "a")
        await scope.commit()
        with pytest.raises(LeaseLost, match="taken over"):
            await other.register(note, "z")
        for _ in range(2):
            with pytest.raises(LeaseLost):
                await journal.flush()
            with pytest.raises(LeaseLost):
                await other.register(note, "z")
            with pytest.raises(LeaseLost):
                await other.commit()
        report = await other.compensate()
        assert isinstance(report.failures[0].error, LeaseLost)
        assert undone == []  # a process that lost the saga does not carry it out
        await journal.close()
        with pytest.raises(LeaseLost):  # also of a task that had committed before another closed it
            await journal.flush()
        async with journal:
            await journal.flush()

    asyncio.run(main())


@pytest.mark.usefixtures("alone")
def test_a_loss_that_was_not_reported_is_raised_by_close(path: Path) -> None:
    async def main() -> None:
        journal = SqliteJournal(path, lazy_commits=True)
        scope = CompensationScope("a", journal=journal)
        await scope.register(note, "x")
        take_over(path, "a")
        await scope.commit()
        with pytest.raises(JournalError):
            await journal.close()

    asyncio.run(main())


def take_over(path: Path, saga: str) -> None:
    """Do what another process does which takes this one for dead."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE saga SET owner = 'other', epoch = epoch + 1 WHERE name = ?", (saga,))
        db.commit()


@pytest.mark.usefixtures("alone")
def test_the_commits_of_others_are_written_when_one_is_lost(path: Path) -> None:
    async def main() -> None:
        journal = SqliteJournal(path, lazy_commits=True)
        scopes = [CompensationScope(name, journal=journal) for name in "abc"]
        for scope in scopes:
            await scope.register(note, scope.name)
        take_over(path, "b")
        for scope in scopes:
            await scope.commit()
        with pytest.raises(LeaseLost):
            await journal.flush()
        assert await listed(path) == {"b": "pending"}
        await journal.close()

    asyncio.run(main())
