"""`recover`: what it does not wait for, what does not stop it, and how it is cancelled."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import pytest
from scoping import commit_or_roll_back
from undoing import in_child, leave_open, listed, note, poison, registry, undone

from returns_pipeline.compensation import CompensationRegistry, CompensationScope
from returns_pipeline.compensation import _undo as undo_module
from returns_pipeline.errors import (
    InvalidArgument,
    JournalUnavailable,
    LeaseLost,
    StepTimeout,
)
from returns_pipeline.journal import SqliteJournal, StoredSaga, recover
from returns_pipeline.retry import RetryPolicy
from returns_pipeline.testing import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def edit(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as db:
        assert db.execute(statement, values).rowcount
        db.commit()


def patient(wait: float, *, attempts: int = 3) -> CompensationRegistry:
    """Know the same name, and wait so long between attempts."""
    made = CompensationRegistry()
    made.compensation("note", retry=RetryPolicy(attempts=attempts, wait=wait))(note.func)
    return made


def test_a_saga_that_waits_does_not_hold_up_others(path: Path) -> None:
    """The newest fails at first. What was registered before it waits with it, the others do not."""
    leave_open(path, older="12", newest="ab")
    poison.add("b")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(50.0, poison.clear)
        began = loop.time()
        async with SqliteJournal(path) as journal:
            newest, older = await recover(journal, patient(60.0))
        assert undone == ["b", "2", "1", "b", "a"]
        assert loop.time() - began == pytest.approx(60.0, abs=0.1)
        assert [entry.attempts for entry in newest.done] == [2, 1]
        assert len(older.done) == 2

    run(main())


@pytest.mark.parametrize("jump", [-365 * 86_400.0, 365 * 86_400.0])
def test_no_jump_of_the_clock_makes_a_wait_longer_than_the_policys(path: Path, jump: float) -> None:
    leave_open(path, a="x")
    # As a process has left it that had another time.
    edit(path, "UPDATE action SET attempts = 1, next_attempt = ?", time.time() + 60.0 - jump)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with SqliteJournal(path) as journal:
            (report,) = await recover(journal, patient(60.0))
            assert [entry.attempts for entry in report.done] == [2]
        # Back: it is as if the wait began again. Forward: it has ended.
        assert loop.time() - began == pytest.approx(60.0 if jump < 0 else 0.0, abs=0.1)

    run(main())


def test_liveness_does_not_ask_the_clock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        real = time.time
        async with SqliteJournal(path) as mine, SqliteJournal(path) as other:
            scope = CompensationScope("a", journal=mine)
            await scope.register(note, "x")
            for jump in (-365 * 86_400.0, 365 * 86_400.0):
                monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
                assert await recover(other, registry) == []
                await scope.register(note, "y")
            await scope.commit()

    asyncio.run(main())


def test_the_log_numbers_the_attempts_over_all_processes(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    leave_open(path, a="x")
    edit(path, "UPDATE action SET attempts = 1")
    broken = CompensationRegistry()

    @broken.compensation("note", retry=RetryPolicy(attempts=3, wait=1.0))
    async def _(name: str) -> None:
        raise OSError("the store is down")

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            (report,) = await recover(journal, broken)
            assert [entry.attempts for entry in report.stuck] == [3]

    run(main())
    logged = [record.getMessage() for record in caplog.records]
    assert [text[text.index("attempt") :] for text in logged if "attempt" in text] == [
        "attempt 2: OSError('the store is down')",
        "attempt 3: OSError('the store is down')",
    ]


def test_a_wait_that_raises_does_not_replace_the_error_of_the_undo(path: Path) -> None:
    leave_open(path, a="x")
    broken = CompensationRegistry()

    def wait(_: object) -> float:
        raise ZeroDivisionError("no such wait")

    @broken.compensation("note", retry=RetryPolicy(attempts=3, wait=wait))
    async def _(name: str) -> None:
        raise OSError("the store is down")

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            (report,) = await recover(journal, broken)
            (entry,) = report.stuck
            assert repr(entry.error) == "OSError('the store is down')"
            (saga,) = await journal.sagas()
            assert "the store is down" in saga.actions[0].error

    run(main())


def test_waits_continue_where_the_process_before_had_been(path: Path) -> None:
    leave_open(path, a="x")
    edit(path, "UPDATE action SET attempts = 1, next_attempt = ?", time.time() + 20.0)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with SqliteJournal(path) as journal:
            await recover(journal, patient(60.0))
        assert loop.time() - began == pytest.approx(20.0, abs=1.0)

    run(main())


def test_an_undo_without_a_time_of_its_own_cannot_hang_recovery(path: Path) -> None:
    leave_open(path, a="x", b="y")
    hung = CompensationRegistry()

    @hung.compensation("note")
    async def hang(name: str) -> None:
        undone.append(name)
        if name == "y":
            await asyncio.Event().wait()

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            b, _ = await recover(journal, hung, timeout=7.0)
            assert b.stuck[0].error == StepTimeout("note", 7.0)
            assert undone == ["y", "x"]
            with pytest.raises(InvalidArgument):
                await recover(journal, hung, timeout=0.0)

    run(main())


def test_an_attempt_that_cannot_be_stopped_is_not_made_again_beside_itself(path: Path) -> None:
    leave_open(path, a="x")
    stubborn = CompensationRegistry()
    running = most = 0

    @stubborn.compensation("note", retry=RetryPolicy(3, wait=1.0), timeout=5.0)
    async def hang(name: str) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        undone.append(name)
        end = asyncio.get_running_loop().time() + 60.0
        while (left := end - asyncio.get_running_loop().time()) > 0:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(left)
        running -= 1

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            (report,) = await recover(journal, stubborn)
            assert isinstance(report.stuck[0].error, StepTimeout)
            assert running == 1  # it is still at it
            assert await recover(journal, stubborn) == []  # a person decides
            await asyncio.sleep(60.0)

    run(main())
    assert (most, undone) == (1, ["x"])


def test_a_policy_that_fails_leaves_the_action_stuck_and_the_others_go_on(path: Path) -> None:
    leave_open(path, a="x", b="y")
    poison.add("y")

    def refuses(_: object) -> bool:
        raise ZeroDivisionError

    odd = CompensationRegistry()
    odd.compensation("note", retry=RetryPolicy(retry_on=refuses))(note.func)

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            b, a = await recover(journal, odd)
            assert isinstance(b.stuck[0].error, OSError)
            assert len(a.done) == 1

    asyncio.run(main())


def test_log_lines_escape_the_names_on_record(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Another program may have written them, or an operator who reads the log be misled."""
    leave_open(path, a="x", b="y")
    edit(path, "UPDATE saga SET name = ? WHERE name = 'b'", "b\nERROR \x1b[2J")
    edit(path, "UPDATE action SET name = ?, arguments = 'no' WHERE path = 'a'", "note\r")

    poison.add("y")
    odd = CompensationRegistry()
    for name in "note", "note\r":
        odd.compensation(name, retry=RetryPolicy(2, wait=0.0))(note.func)

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            failing = Failing(journal, "postpone", lambda: True)
            b, a = await recover(failing, odd)  # type: ignore[arg-type]
            assert b.error is not None
            assert len(a.stuck) == 1

    asyncio.run(main())
    assert "(b\\nERROR \\x1b[2J) is left as it is" in caplog.text
    assert "undo note\\r of saga" in caplog.text


def test_an_undo_that_kills_its_process_is_stuck_in_the_end(path: Path) -> None:
    leave_open(path, a="x", b="y")
    deadly = CompensationRegistry()

    @deadly.compensation("note")
    async def die(name: str) -> None:
        if name == "y":
            os._exit(1)
        undone.append(name)

    async def recovers() -> None:
        async with SqliteJournal(path) as journal:
            await recover(journal, deadly)

    tries = 0
    while in_child(recovers) != 0:
        tries += 1
    assert tries == 21
    assert asyncio.run(listed(path)) == {"b": "stuck", "a": "done"}


class Failing:
    """A journal that fails when a saga's n-th write of some kind comes."""

    def __init__(self, journal: SqliteJournal, name: str, when: Callable[[], bool]) -> None:
        self._journal, self._name, self._when = journal, name, when

    def __getattr__(self, name: str) -> object:
        inner = getattr(self._journal, name)
        if name != self._name:
            return inner

        async def call(*args: object, **kwargs: object) -> object:
            if self._when():
                raise JournalUnavailable("test", "full")
            return await inner(*args, **kwargs)

        return call


def test_an_error_of_the_journal_in_one_saga_stands_in_its_report_and_others_go_on(
    path: Path,
) -> None:
    leave_open(path, a="x", b="y")
    poison.add("y")

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            failing = Failing(journal, "postpone", lambda: True)
            b, a = await recover(failing, registry)  # type: ignore[arg-type]
            assert b.error == JournalUnavailable("test", "full")
            assert b.done == b.stuck == ()
            assert len(a.done) == 1
            poison.clear()
            (b,) = await recover(journal, registry)  # it was released
            assert len(b.done) == 1

    asyncio.run(main())


def test_a_saga_that_cannot_be_released_is_claimed_again_by_the_same_process(path: Path) -> None:
    leave_open(path, a="x")

    async def main() -> None:
        async with SqliteJournal(path, patience=0.01) as journal, SqliteJournal(path) as other:
            saga = await journal.claim(besides=set())
            assert saga is not None
            with closing(sqlite3.connect(path, isolation_level=None)) as db:
                db.execute("BEGIN IMMEDIATE")
                with pytest.raises(JournalUnavailable):
                    await journal.release(saga.id)
                db.execute("ROLLBACK")
            assert await other.claim(besides=set()) is None  # which sees an owner that lives
            assert len(await recover(journal, registry)) == 1

    asyncio.run(main())


@pytest.mark.slow
def test_recovery_cancelled_at_any_moment_keeps_nothing(tmp_path: Path) -> None:
    """Cancel it at the n-th step of its task, for every n; another process then finds the rest."""

    async def main(path: Path, steps: int) -> bool:
        undone.clear()
        async with SqliteJournal(path) as journal, SqliteJournal(path) as other:
            task = asyncio.create_task(recover(journal, patient(0.0)))
            taken = 0

            def step() -> None:
                nonlocal taken
                taken += 1
                if taken >= steps:
                    task.cancel()
                elif not task.done():
                    loop.call_soon(step)

            loop = asyncio.get_running_loop()
            loop.call_soon(step)
            done, _ = await asyncio.wait({task})
            assert done
            rest = await recover(other, patient(0.0))
            assert all(report.error is None for report in rest)
            assert set((await listed(path)).values()) == {"done done"}
            # What was begun was finished, and put on record: nothing is done twice.
            assert undone == ["4", "3", "2", "1"]
            return task.cancelled()

    steps, turns = 1, 0
    cancelled = True
    while cancelled:
        path = tmp_path / f"{steps}.db"
        leave_open(path, older="12", newer="34")
        cancelled = asyncio.run(main(path, steps))
        turns += cancelled
        steps += 1 if steps < 30 else steps // 4  # turns of the loop pass while the thread writes
    assert turns > 10


def test_a_recovery_cancelled_while_a_saga_waits_lets_it_go(path: Path) -> None:
    leave_open(path, a="x")
    poison.add("x")

    async def main() -> None:
        async with SqliteJournal(path) as journal, SqliteJournal(path) as other:
            task = asyncio.create_task(recover(journal, patient(1000.0)))
            await asyncio.sleep(500.0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            poison.clear()
            (report,) = await recover(other, patient(1000.0))
            assert [entry.attempts for entry in report.done] == [2]

    run(main())


async def give_up(journal: SqliteJournal, name: str) -> CompensationScope:
    """Roll a scope back whose undo fails; its owner lives on."""
    poison.add(name)
    scope = CompensationScope(name, journal=journal)
    await scope.register(note, name)
    await scope.compensate()
    return scope


def test_what_a_living_owner_gave_up_may_be_retried_or_discarded(path: Path) -> None:
    async def main() -> None:
        async with SqliteJournal(path) as mine, SqliteJournal(path) as other:
            for name in "xy":
                await give_up(mine, name)
            y, x = await other.sagas()
            assert x.alive
            assert await recover(other, registry) == []
            undone.clear()
            poison.clear()
            assert await other.discard(x.id, "by hand") == 1
            assert await other.retry(y.id) == 1
            assert await other.retry(y.id) == 0
            (report,) = await recover(other, registry)
            assert undone == ["y"]
            assert report.name == "y"
            states = [action.state for saga in await other.sagas() for action in saga.actions]
            assert states == ["done", "done"]

    asyncio.run(main())


def test_what_a_living_owner_has_pending_is_left_to_it(path: Path) -> None:
    """A child that could not be undone, inside of a scope that continues."""

    async def main() -> None:
        async with SqliteJournal(path) as mine, SqliteJournal(path) as other:
            poison.add("child")
            scope = CompensationScope("a", journal=mine)
            await scope.register(note, "before")
            child = scope.child("part")
            await child.register(note, "child")
            await child.compensate()
            (saga,) = await other.sagas()
            assert [action.state for action in saga.actions] == ["stuck", "pending"]
            poison.clear()
            undone.clear()
            assert await other.retry(saga.id) == 1
            assert len(await recover(other, registry)) == 1
            assert undone == ["child"]
            await scope.register(note, "after")  # its lease is as it was
            await scope.commit()
            assert list((await listed(path)).values()) == ["done"]
            assert await other.discard(saga.id, "no") == 0

    asyncio.run(main())


def test_what_a_living_recoverer_has_deferred_or_before_it_is_left_to_it(path: Path) -> None:
    leave_open(path, a="12")

    async def main() -> None:
        async with SqliteJournal(path) as mine, SqliteJournal(path) as other:
            saga = await mine.claim(besides=set())
            assert saga is not None
            await mine.defer(saga.actions[0].id, "unknown name")
            assert await other.retry(saga.id) == 0
            assert await other.discard(saga.id, "no") == 0
            await mine.release(saga.id)
            assert await other.discard(saga.id, "now") == 1
            assert await listed(path) == {"a": "pending done"}

    asyncio.run(main())


def test_what_is_retried_keeps_its_place_among_the_others(path: Path) -> None:
    leave_open(path, a="123")
    poison.add("2")

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            (report,) = await recover(journal, registry)
            poison.clear()
            undone.clear()
            assert await journal.retry(report.saga) == 1
            assert [report.saga for report in await recover(journal, registry)] == [report.saga]
            assert undone == ["2"]
            assert await journal.retry("unknown") == 0

    asyncio.run(main())


def test_a_saga_may_be_used_again_when_all_in_it_was_committed_or_undone(path: Path) -> None:
    async def main() -> None:
        async with SqliteJournal(path, retention=0.0) as journal:
            scope = CompensationScope("a", journal=journal)
            for _ in range(2):
                await scope.register(note, "x")
                await commit_or_roll_back(scope, keep=True)
                await scope.register(note, "y")
                await commit_or_roll_back(scope, keep=False)
                await recover(journal, registry)  # which tidies
                assert await listed(path) == {}
            assert undone == ["y", "y"]

    asyncio.run(main())


def test_an_undo_that_cannot_be_marked_as_done_is_not_taken_for_failed(path: Path) -> None:
    """It stays as it was, and comes again: that is why it must be idempotent."""
    leave_open(path, a="x")
    once = patient(0.0, attempts=1)

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            change = journal._changes.change_shielded

            async def fails(*_: object) -> None:
                raise JournalUnavailable("test", "full")

            journal._changes.change_shielded = fails  # type: ignore[method-assign]
            (report,) = await recover(journal, once)
            assert report.error == JournalUnavailable("test", "full")
            assert report.stuck == ()
            assert await listed(path) == {"a": "pending"}
            journal._changes.change_shielded = change  # type: ignore[method-assign]
            (report,) = await recover(journal, once)
            assert [entry.attempts for entry in report.done] == [2]
            assert undone == ["x", "x"]

    asyncio.run(main())


@pytest.mark.parametrize("way", ["recover", "compensate"])
@pytest.mark.parametrize("what", ["its time has passed", "all tasks are cancelled"])
def test_what_is_undone_is_marked_whatever_happens_meanwhile(
    path: Path, monkeypatch: pytest.MonkeyPatch, what: str, way: str
) -> None:
    """Another process writes, so that the mark has to wait."""
    known = CompensationRegistry()

    @known.compensation("undo", retry=RetryPolicy(attempts=2, wait=0.0), timeout=0.02)
    async def undo(name: str) -> None:
        undone.append(name)
        if len(undone) == 1:
            loop = asyncio.get_running_loop()
            other.append(db := sqlite3.connect(path, isolation_level=None))
            db.execute("BEGIN IMMEDIATE")
            if what == "all tasks are cancelled":
                loop.call_later(0.005, cancel_all)
            loop.call_later(0.1, db.execute, "ROLLBACK")

    def cancel_all() -> None:
        for task in asyncio.all_tasks():
            if task.get_name() != "test":
                task.cancel()

    async def dies() -> None:
        await CompensationScope("a", journal=SqliteJournal(path)).register(undo, "x")

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            if way == "recover":
                work = asyncio.create_task(recover(journal, known))
            else:
                scope = CompensationScope("a", journal=journal)
                await scope.register(undo, "x")
                work = asyncio.create_task(scope.compensate())  # type: ignore[arg-type]
            await asyncio.wait({work})
            assert work.cancelled() or "done=(CompensationEntry" in repr(work.result())
        assert await listed(path) == {"a": "done"}

    async def named() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.set_name("test")
        await main()

    other: list[sqlite3.Connection] = []
    monkeypatch.setattr(undo_module, "_GRACE", 0.02)
    if way == "recover":
        assert in_child(dies) == 0
    asyncio.run(named())
    other[0].close()
    assert undone == ["x"]


def test_a_release_is_finished_and_not_asked_for_twice(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Asked for again, it would release what another recovery has claimed in between."""
    leave_open(path, a="x")
    others: list[asyncio.Task[object]] = []

    class Journal(SqliteJournal):
        async def release(self, saga: str) -> None:
            if not others:  # the first
                others.append(asyncio.create_task(self.claim(besides=set())))
                others.append(asyncio.create_task(cancels()))
            await super().release(saga)

    async def cancels() -> None:
        await asyncio.sleep(0)
        recovering[0].cancel()

    recovering: list[asyncio.Task[object]] = []

    async def main() -> None:
        async with Journal(path) as journal:
            recovering.append(asyncio.create_task(recover(journal, CompensationRegistry())))
            await asyncio.wait(recovering)
            assert recovering[0].cancelled()
            assert await others[0] is not None
            (saga,) = await journal.sagas()
            assert saga.alive  # the other recovery has it

    asyncio.run(main())
    assert "cannot be released" not in caplog.text


def test_a_saga_that_could_not_be_released_is_not_forgotten_by_a_claim_that_fails(
    path: Path,
) -> None:
    leave_open(path, a="x")

    def broken(_: sqlite3.Connection) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        async with SqliteJournal(path, patience=0.01) as journal:
            saga = await journal.claim(besides=set())
            assert saga is not None
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                with pytest.raises(JournalUnavailable):
                    await journal.release(saga.id)
            # All of a transaction is done again if one of its requests fails.
            again, _ = await asyncio.gather(
                journal.claim(besides=set()), journal._do(broken), return_exceptions=True
            )
            assert isinstance(again, StoredSaga)

    asyncio.run(main())


@pytest.mark.parametrize("what", ["register", "absorb", "commit", "compensate"])
def test_what_a_journal_that_was_closed_recovers_itself_is_no_longer_its_scopes(
    path: Path, what: str
) -> None:
    async def main() -> None:
        journal = SqliteJournal(path)
        scope = CompensationScope("a", journal=journal)
        for name in "xy":
            await scope.register(note, name)
        await journal.close()
        (report,) = await recover(journal, registry)
        assert len(report.done) == 2
        if what == "compensate":
            failures = (await scope.compensate()).failures
            assert [type(entry.error) for entry in failures] == [LeaseLost] * 2
        elif what == "absorb":
            around = CompensationScope("around", journal=journal)
            around.absorb(scope)
            with pytest.raises(LeaseLost):
                await around.commit()
            around._records.clear()
        else:
            with pytest.raises(LeaseLost):
                await (scope.commit() if what == "commit" else scope.register(note, "z"))
            scope._records.clear()
        assert undone == ["y", "x"]
        assert await listed(path) == {"a": "done done"}
        await journal.close()

    asyncio.run(main())


@pytest.mark.parametrize("by", ["recover", "claim"])
def test_a_claim_that_is_cancelled_keeps_nothing(path: Path, by: str) -> None:
    """All tasks are, as `asyncio.run` does it at its end; the journal may be used again."""
    leave_open(path, a="x")

    async def main() -> None:
        async with SqliteJournal(path) as journal, SqliteJournal(path) as another:
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                before = asyncio.all_tasks()
                claims = journal.claim(besides=set()) if by == "claim" else None
                task = asyncio.create_task(recover(journal, registry) if claims is None else claims)
                for _ in range(10):
                    await asyncio.sleep(0)
                for one in asyncio.all_tasks() - before:
                    one.cancel()
                for _ in range(10):
                    await asyncio.sleep(0)
            await asyncio.wait({task})
            assert task.cancelled()
            await journal.flush()
            await journal._do(lambda _: None)
            assert len(await recover(another, registry)) == 1

    asyncio.run(main())


def test_what_is_released_may_not_be_changed_in_the_same_transaction(path: Path) -> None:
    leave_open(path, a="x")

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            saga = await journal.claim(besides=set())
            assert saga is not None
            _, late = await asyncio.gather(
                journal.release(saga.id),
                journal.defer(saga.actions[0].id, "late"),
                return_exceptions=True,
            )
            assert isinstance(late, LeaseLost)
            assert await listed(path) == {"a": "pending"}

    asyncio.run(main())
