"""What `SqliteJournal` and `recover` promise, beside what the crash tests show."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import sqlite3
import stat
import threading
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import pytest
from returns.result import Failure, Result, Success
from undoing import leave_open

from returns_pipeline._engine.future_results import to_result
from returns_pipeline.compensation import CompensationRegistry, CompensationScope, current_key
from returns_pipeline.context import StepContext
from returns_pipeline.errors import (
    ArgumentsNotRecordable,
    InvalidArgument,
    JournalCorrupt,
    JournalError,
    JournalUnavailable,
    LeaseLost,
    ScopeClosed,
    UnregisteredCompensation,
)
from returns_pipeline.journal import SqliteJournal, recover
from returns_pipeline.journal.sqlite._schema import CREATE, NOT_DONE
from returns_pipeline.retry import RetryPolicy
from returns_pipeline.saga import Saga

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

registry = CompensationRegistry()
undone: list[str] = []
poison: set[str] = set()


@registry.compensation("undo", retry=RetryPolicy(attempts=2, wait=0.0))
async def undo(name: str) -> None:
    """Record the call, or fail."""
    undone.append(name)
    if name in poison:
        raise OSError(name)


@pytest.fixture(autouse=True)
def _clean() -> None:
    undone.clear()
    poison.clear()


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("journal")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def forked(work: Callable[[], Coroutine[None, None, None]]) -> None:
    """Do work in a process that is then killed."""
    process = os.fork()
    if process == 0:
        try:
            asyncio.run(work())
        finally:
            os.kill(os.getpid(), 9)
    os.waitpid(process, 0)


async def states(journal: SqliteJournal) -> dict[str, list[tuple[str, str, int]]]:
    return {
        saga.name: [(action.arguments, action.state, action.attempts) for action in saga.actions]
        for saga in await journal.sagas()
    }


def test_an_action_is_there_before_register_returns_and_gone_when_committed(path: Path) -> None:
    async def main() -> None:
        async with SqliteJournal(path) as journal:
            async with CompensationScope("a", journal=journal) as scope:
                await scope.register(undo, "x")
                assert await states(journal) == {"a": [('{"name": "x"}', "pending", 0)]}
            assert await states(journal) == {}

    asyncio.run(main())


def test_a_rollback_marks_each_action(path: Path) -> None:
    async def main() -> None:
        poison.add("y")
        async with SqliteJournal(path) as journal:
            scope = CompensationScope("a", journal=journal)
            for name in "xyz":
                await scope.register(undo, name)
            report = await scope.compensate()
            assert [entry.args for entry in report.failures] == [("y",)]
            assert undone == ["z", "y", "y", "x"]
            assert await states(journal) == {
                "a": [
                    ('{"name": "z"}', "done", 1),
                    ('{"name": "y"}', "stuck", 2),
                    ('{"name": "x"}', "done", 1),
                ]
            }

    asyncio.run(main())


def test_what_was_not_run_is_kept_for_a_person_to_look_at(path: Path) -> None:
    async def main() -> None:
        poison.add("y")
        async with SqliteJournal(path) as journal:
            scope = CompensationScope("a", journal=journal, on_failure="stop")
            for name in "xy":
                await scope.register(undo, name)
            await scope.compensate()
            assert [state for _, state, _ in (await states(journal))["a"]] == ["stuck", "stuck"]

    asyncio.run(main())


def test_children_steps_and_sagas_are_on_record_too(path: Path) -> None:
    async def main() -> None:
        async with SqliteJournal(path) as journal, StepContext("job", journal=journal) as ctx:

            async def body() -> Result[int, str]:
                child = ctx.child("part")
                await child.register(undo, "child")
                saga = Saga("ship").step("reserve", reserve, undo=undo)
                assert await to_result(saga.run("r", ctx)) == Success("r")
                found = await states(journal)
                assert sorted(argument for argument, _, _ in found["job"]) == [
                    '{"name": "child"}',
                    '{"name": "r"}',
                ]
                return Failure("no")

            await ctx.run(body())
            assert undone == ["r", "child"]
            assert {state for _, state, _ in (await states(journal))["job"]} == {"done"}

    async def reserve(name: str) -> Result[str, str]:
        return Success(name)

    asyncio.run(main())


def test_a_scope_that_has_settled_all_begins_again(path: Path) -> None:
    """What was committed is gone; that it is gone does not mean that a process took it over."""

    async def main() -> None:
        async with SqliteJournal(path) as journal, StepContext("job", journal=journal) as ctx:

            async def body(name: str) -> Result[str, str]:
                await ctx.register(undo, name)
                return Success(name) if name != "bad" else Failure(name)

            assert await to_result(ctx.run(body("a"))) == Success("a")
            assert await to_result(ctx.run(body("b"))) == Success("b")
            assert await to_result(ctx.run(body("bad"))) == Failure("bad")
            assert await to_result(ctx.run(body("c"))) == Success("c")
            for child in ctx.child("1"), ctx.child("2"):
                await child.register(undo, "d")
                await child.scope.commit()
        assert undone == ["bad"]

    asyncio.run(main())


def test_a_partial_is_on_record_as_the_whole_call(path: Path) -> None:
    async def main() -> None:
        async with SqliteJournal(path) as journal:
            scope = CompensationScope("a", journal=journal)
            await scope.register(functools.partial(undo, "x"))
            await scope.register(functools.partial(functools.partial(undo), name="y"))
            assert [argument for argument, _, _ in (await states(journal))["a"]] == [
                '{"name": "y"}',
                '{"name": "x"}',
            ]
            await scope.compensate()
            assert undone == ["y", "x"]

    asyncio.run(main())


def test_only_what_another_process_can_find_is_accepted(path: Path) -> None:
    async def stranger(name: str) -> None:
        """Be in no registry."""

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            scope = CompensationScope("a", journal=journal)
            with pytest.raises(UnregisteredCompensation, match="stranger"):
                await scope.register(stranger, "x")
            with pytest.raises(ArgumentsNotRecordable):
                await scope.register(undo, 3)  # type: ignore[arg-type]
            assert len(scope) == 0
            assert await states(journal) == {}

    asyncio.run(main())


def test_a_cancelled_register_is_on_record_and_undone(path: Path) -> None:
    async def main() -> None:
        async with SqliteJournal(path) as journal:

            async def work() -> None:
                async with CompensationScope("a", journal=journal) as scope:
                    await scope.register(undo, "x")

            task = asyncio.create_task(work())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert undone == ["x"]

    asyncio.run(main())


def test_a_register_that_comes_too_late_leaves_nothing_on_record(path: Path) -> None:
    async def main() -> None:
        async with SqliteJournal(path) as journal:
            scope = CompensationScope("a", journal=journal)
            late = asyncio.create_task(_register(scope, "x"))
            await asyncio.sleep(0)
            await scope.compensate()
            with pytest.raises(ScopeClosed):
                await late
            assert await states(journal) == {}
            assert undone == []

    asyncio.run(main())


def test_a_register_that_comes_too_late_raises_its_own_cancellation_first(path: Path) -> None:
    async def main() -> None:
        async with SqliteJournal(path) as journal:
            scope = CompensationScope("a", journal=journal)
            late = asyncio.create_task(_register(scope, "x"))
            await asyncio.sleep(0)
            late.cancel()
            await scope.compensate()
            await asyncio.wait({late})
            assert late.cancelled()
            assert await states(journal) == {}
            assert undone == []

    asyncio.run(main())


async def _register(scope: CompensationScope, name: str) -> None:
    await scope.register(undo, name)


def test_scopes_of_different_journals_do_not_mix(path: Path) -> None:
    async def main() -> None:
        async with SqliteJournal(path) as journal:
            with pytest.raises(InvalidArgument, match="same journal"):
                CompensationScope("a").absorb(CompensationScope("b", journal=journal))
            with pytest.raises(InvalidArgument, match="journal of its own"):
                StepContext("c", scope=CompensationScope("d"), journal=journal)

    asyncio.run(main())


def test_the_newest_saga_of_the_dead_is_undone_first_and_the_key_is_the_same(path: Path) -> None:
    keys: list[str] = []

    async def dead() -> None:
        journal = SqliteJournal(path)
        for name in "ab":
            scope = CompensationScope(name, journal=journal)
            for number in "12":
                await scope.register(note_key, name + number)
            (path.parent / name).write_text(scope.key)

    @registry.compensation("note-key")
    async def note_key(name: str) -> None:
        undone.append(name)
        keys.append(current_key())

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            reports = await recover(journal, registry)
            assert [report.name for report in reports] == ["b", "a"]
            assert undone == ["b2", "b1", "a2", "a1"]
            a, b = ((path.parent / name).read_text() for name in "ab")
            assert keys == [b, b, a, a]
            assert await recover(journal, registry) == []

    forked(dead)
    asyncio.run(main())


def test_nothing_is_taken_from_a_living_process(path: Path) -> None:
    async def main() -> None:
        async with SqliteJournal(path) as mine, SqliteJournal(path) as other:
            scope = CompensationScope("a", journal=mine)
            await scope.register(undo, "x")
            assert await recover(other, registry) == []
            await scope.commit()
            (saga,) = await _listed(other, scope) or [None]
            assert saga is None

    async def _listed(journal: SqliteJournal, _: CompensationScope) -> list[object]:
        return list(await journal.sagas())

    asyncio.run(main())


def test_what_is_open_when_a_journal_is_closed_may_be_recovered(path: Path) -> None:
    async def main() -> None:
        journal = SqliteJournal(path)
        scope = CompensationScope("a", journal=journal)
        await scope.register(undo, "x")
        await journal.close()
        async with SqliteJournal(path) as other:
            assert len(await recover(other, registry)) == 1
            assert undone == ["x"]
            # and the first owner, should it come back, may do nothing more about it
            with pytest.raises(LeaseLost):
                await scope.register(undo, "y")
            with pytest.raises(LeaseLost):
                await scope.commit()
            report = await scope.compensate()
            assert isinstance(report.failures[0].error, LeaseLost)
            assert undone == ["x"]
        await journal.close()

    asyncio.run(main())


def test_an_unknown_name_and_all_before_it_are_left_for_a_process_that_knows_it(path: Path) -> None:
    others = CompensationRegistry()

    @others.compensation("theirs")
    async def theirs(name: str) -> None:
        undone.append(f"theirs {name}")

    @others.compensation("undo", version=2)
    async def newer(name: str, more: int) -> None:
        undone.append(name)

    async def dead() -> None:
        journal = SqliteJournal(path)
        scope = CompensationScope("a", journal=journal)
        await scope.register(undo, "1")
        await scope.register(theirs, "2")
        await scope.register(undo, "3")
        newest = CompensationScope("b", journal=journal)
        await newest.register(newer, "n", 1)

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            newest, older = await recover(journal, registry)
            assert [entry.name for entry in newest.deferred] == ["undo"]
            assert newest.deferred[0].error == "version 2 is newer"
            assert [entry.name for entry in older.deferred] == ["theirs", "undo"]
            assert undone == ["3"]
            everything = CompensationRegistry()
            everything.compensation("undo")(undo.func)
            everything.compensation("theirs")(theirs.func)
            reports = await recover(journal, everything)
            assert undone == ["3", "theirs 2", "1"]
            assert [len(report.done) for report in reports] == [0, 2]
            assert (await states(journal))["b"][0][1] == "deferred"

    forked(dead)
    asyncio.run(main())


def test_poison_is_parked_and_attempts_count_on_over_restarts(path: Path) -> None:
    async def dead() -> None:
        scope = CompensationScope("a", journal=SqliteJournal(path))
        for name in "xyz":
            await scope.register(undo, name)

    async def dies_in_the_middle() -> None:
        poison.add("y")
        journal = SqliteJournal(path)
        postpone = journal.postpone

        async def once(*args: object) -> None:
            await postpone(*args)  # type: ignore[arg-type]
            os.kill(os.getpid(), 9)

        journal.postpone = once  # type: ignore[method-assign, assignment]
        await recover(journal, registry)

    async def main() -> None:
        poison.add("y")
        async with SqliteJournal(path) as journal:
            (report,) = await recover(journal, registry)
            assert undone == ["y", "x"]  # z was done, and y had one attempt of two left
            assert [entry.args for entry in report.stuck] == [("y",)]
            assert await recover(journal, registry) == []
            poison.clear()
            saga = report.saga
            assert await journal.retry(saga) == 1
            assert len(await recover(journal, registry)) == 1
            assert undone == ["y", "x", "y"]

    forked(dead)
    forked(dies_in_the_middle)
    asyncio.run(main())


def test_what_is_discarded_is_not_undone_and_keeps_the_reason(path: Path) -> None:
    async def main() -> None:
        poison.add("x")
        async with SqliteJournal(path) as journal:
            scope = CompensationScope("a", journal=journal)
            await scope.register(undo, "x")
            await scope.compensate()
            (saga,) = await journal.sagas()
            assert await journal.discard(saga.id, "done by hand") == 1
            (saga,) = await journal.sagas()
            assert saga.actions[0].error == "discarded: done by hand"
            assert await recover(journal, registry) == []

    asyncio.run(main())


def test_what_was_undone_is_forgotten_after_its_time(path: Path) -> None:
    async def main() -> None:
        poison.add("x")
        async with SqliteJournal(path, retention=0.0) as journal:
            for name in "xy":
                scope = CompensationScope(name, journal=journal)
                await scope.register(undo, name)
                await scope.compensate()
            assert set(await states(journal)) == {"x", "y"}
            await recover(journal, registry)
            assert set(await states(journal)) == {"x"}  # stuck stays forever

    asyncio.run(main())


def test_hand_edited_arguments_are_parked_and_nothing_is_called(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def dead() -> None:
        scope = CompensationScope("a", journal=SqliteJournal(path))
        for name in "xy":
            await scope.register(undo, name)

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            (report,) = await recover(journal, registry)
            assert isinstance(report.stuck[0].error, JournalCorrupt)
            assert undone == ["x"]

    forked(dead)
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE action SET arguments = '{\"name\": 7}' WHERE arguments LIKE '%y%'")
        db.commit()
    with caplog.at_level(logging.ERROR):
        asyncio.run(main())
    assert "stuck" in caplog.text


def test_several_recoverers_share_the_work_and_each_undo_runs_once(path: Path) -> None:
    async def dead() -> None:
        journal = SqliteJournal(path)
        for number in range(20):
            scope = CompensationScope(str(number), journal=journal)
            await scope.register(slowly, str(number))

    @registry.compensation("slowly")
    async def slowly(name: str) -> None:
        await asyncio.sleep(0)
        undone.append(name)

    async def main() -> None:
        journals = [SqliteJournal(path) for _ in range(4)]
        reports = await asyncio.gather(*(recover(journal, registry) for journal in journals))
        assert sum(map(len, reports)) == 20
        assert sorted(undone, key=int) == [str(number) for number in range(20)]
        for journal in journals:
            await journal.close()

    forked(dead)
    asyncio.run(main())


def test_many_scopes_share_a_transaction_and_a_failing_one_fails_alone(path: Path) -> None:
    async def main() -> None:
        async with SqliteJournal(path) as journal:
            scope = CompensationScope("a", journal=journal)
            calls = [scope.register(undo, str(number)) for number in range(50)]
            calls.insert(25, scope.register(undo, 3))  # type: ignore[arg-type]
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert [r for r in results if r is not None] == [results[25]]
            assert isinstance(results[25], ArgumentsNotRecordable)
            assert len((await states(journal))["a"]) == 50
            await scope.commit()

    asyncio.run(main())


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of what fork() may break
def test_a_forked_process_may_not_use_it(path: Path) -> None:
    async def main() -> None:
        journal = SqliteJournal(path)
        scope = CompensationScope("a", journal=journal)
        await scope.register(undo, "x")

        async def child() -> None:
            with pytest.raises(JournalError, match="forked"):
                await scope.register(undo, "y")
            with pytest.raises(JournalError, match="forked"):
                await scope.commit()
            await journal.close()  # which is not its to close
            with pytest.raises(JournalError, match="forked"):
                await journal.sagas()
            (path.parent / "child").touch()

        await asyncio.to_thread(forked, child)
        assert (path.parent / "child").exists()
        async with SqliteJournal(path) as other:
            assert await recover(other, registry) == []  # it did not release the lock either
        await scope.commit()
        await journal.close()

    asyncio.run(main())


def test_a_journal_that_cannot_be_written_refuses_before_the_effect(path: Path) -> None:
    async def main() -> None:
        nowhere, nonsense = SqliteJournal(path.parent / "no" / "j.db"), SqliteJournal(path)
        missing = CompensationScope("a", journal=nowhere)
        with pytest.raises(JournalUnavailable, match="No such file"):
            await missing.register(undo, "x")
        assert len(missing) == 0

        broken = CompensationScope("a", journal=nonsense)
        with pytest.raises(JournalCorrupt, match="not a database"):
            await broken.register(undo, "x")
        for journal in (nowhere, nonsense):
            await journal.close()  # which stops its thread nevertheless
        assert not [t for t in threading.enumerate() if t.name.startswith("journal")]

    path.write_text("this is not a database, but it is long enough to be looked at" * 20)
    asyncio.run(main())
    assert path.read_text().startswith("this is not")


def test_a_journal_that_is_locked_or_full_says_so_and_loses_nothing(path: Path) -> None:
    async def main() -> None:
        journal = SqliteJournal(path, patience=0.01)
        scope = CompensationScope("a", journal=journal)
        await scope.register(undo, "x")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(JournalUnavailable, match="locked"):
                await scope.register(undo, "y")
            with pytest.raises(JournalUnavailable, match="locked"):
                await scope.commit()
            other.execute("ROLLBACK")
        assert len(scope) == 1
        await journal._do(lambda db: db.execute("PRAGMA max_page_count = 1").fetchone())
        with pytest.raises(JournalUnavailable, match="full"):
            for _ in range(200):
                await scope.register(undo, "y" * 1000)
        await journal._do(lambda db: db.execute("PRAGMA max_page_count = 100000").fetchone())
        found = (await states(journal))["a"]
        assert len(found) == len(scope)
        await scope.commit()
        assert await states(journal) == {}
        await journal.close()

    asyncio.run(main())


def test_a_process_that_writes_without_a_pause_does_not_keep_others_from_writing(
    path: Path,
) -> None:
    done = threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=5.0)) as other:
            while not done.is_set():
                other.execute("BEGIN IMMEDIATE")
                done.wait(0.05)
                other.execute("COMMIT")
                done.wait(0.0003)

    async def main() -> None:
        async with SqliteJournal(path, patience=2.0) as journal:
            writer = threading.Thread(target=write)
            writer.start()
            try:
                for number in range(5):
                    async with CompensationScope(str(number), journal=journal) as scope:
                        await scope.register(undo, "x")
            finally:
                done.set()
                writer.join()

    asyncio.run(main())


def test_a_newer_journal_is_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")

    async def main() -> None:
        journal = SqliteJournal(path)
        scope = CompensationScope("a", journal=journal)
        with pytest.raises(JournalError, match="newer"):
            await scope.register(undo, "x")
        await journal.close()

    asyncio.run(main())


def test_a_file_that_another_process_is_making_is_not_taken_for_another_program_s(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks at the version first, and then at the tables: between the two they may be made."""

    class Racing(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            if "sqlite_schema" in sql and others:
                # It may have to wait for us; then it comes too late to be in between.
                with closing(others.pop()) as other, suppress(sqlite3.OperationalError):
                    other.executescript("CREATE TABLE owner (id)")
            return super().execute(sql, *parameters)

    others = [sqlite3.connect(path, timeout=0.0, check_same_thread=False)]
    connect = sqlite3.connect

    def racing(*arguments: Any, **options: Any) -> sqlite3.Connection:
        return connect(*arguments, **options, factory=Racing)

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            assert await journal.sagas() == []

    monkeypatch.setattr(sqlite3, "connect", racing)
    asyncio.run(main())
    assert others == []


def test_a_journal_in_memory_is_none(path: Path) -> None:
    with pytest.raises(InvalidArgument, match="pass a file"):
        SqliteJournal(":memory:")
    assert not (path.parent / ":memory:").exists()


def test_a_lock_file_is_for_its_owner_only_and_a_journal_shows_its_path(path: Path) -> None:
    async def main() -> None:
        async with SqliteJournal(path) as journal:
            assert str(journal) == str(path)
            locks = list(path.parent.glob("journal.db-owner-*"))
            assert [stat.S_IMODE(lock.stat().st_mode) for lock in locks] == [0o600]
        assert list(path.parent.glob("journal.db-owner-*")) == []

    asyncio.run(main())


def test_a_list_of_what_is_not_done_does_not_read_what_is(path: Path) -> None:
    """Nor does it read the table of sagas, save for the rows that it lists."""
    with closing(sqlite3.connect(path)) as db:
        db.executescript(CREATE)
        plan = db.execute(f"EXPLAIN QUERY PLAN SELECT 1 FROM saga WHERE id IN ({NOT_DONE})")
        steps = [row[3] for row in plan]
    assert [step for step in steps if step.startswith("SCAN")] == [
        "SCAN action USING COVERING INDEX open_action",
        "SCAN action USING INDEX stuck_action",
    ]
    assert any(step.startswith("SEARCH saga") for step in steps)


def test_a_claim_does_not_read_what_was_done_before(path: Path) -> None:
    """Its cost, in instructions of SQLite's machine, depends on what is open only."""

    async def claim() -> int:
        async with SqliteJournal(path) as journal:
            connections: list[sqlite3.Connection] = []
            steps = 0

            def count() -> int:
                nonlocal steps
                steps += 1
                return 0

            def watch(db: sqlite3.Connection) -> None:
                connections.append(db)
                db.set_progress_handler(count, 1)

            await journal._writer.do(watch)
            stored = await journal.claim(besides=frozenset())
            assert stored is not None
            await journal._writer.do(lambda db: db.set_progress_handler(None, 0))
            return steps

    def fill(done: int, where: int) -> None:
        with closing(sqlite3.connect(path)) as db:
            for n in range(where, where + done):
                db.execute(
                    "INSERT INTO saga (id, name, began, owner, epoch) VALUES (?, 'a', 0, '', 2)",
                    (f"{n:032x}",),
                )
                db.execute(
                    "INSERT INTO action "
                    "(id, saga, position, path, key, name, version, arguments, state, ended) "
                    "VALUES (?, ?, '0', 'a', 'k', 'undo', 1, '{}', 'done', ?)",
                    (f"a{n:032x}", f"{n:032x}", time.time()),
                )
            db.commit()

    leave_open(path, a="x", b="y", c="z")
    fill(10, 0)
    few = asyncio.run(claim())
    fill(5_000, 10)
    assert asyncio.run(claim()) <= 1.5 * few


@pytest.mark.parametrize("stolen", [False, True])
def test_commits_made_together_are_written_together_and_one_that_is_lost_fails_alone(
    path: Path, stolen: bool
) -> None:
    async def main() -> None:
        async with SqliteJournal(path) as journal:
            scopes = [CompensationScope(str(n), journal=journal) for n in range(10)]
            for scope in scopes:
                await scope.register(undo, "a")
                await scope.register(undo, "b")
            if stolen:
                with closing(sqlite3.connect(path, isolation_level=None)) as database:
                    statement = "UPDATE saga SET owner = '', epoch = epoch + 1 WHERE name = '4'"
                    database.execute(statement)
            statements: list[str] = []
            await journal._do(lambda db: db.set_trace_callback(statements.append))
            outcomes = await asyncio.gather(
                *(scope.commit() for scope in scopes), return_exceptions=True
            )
            await journal._do(lambda db: db.set_trace_callback(None))
            lost = [n for n, outcome in enumerate(outcomes) if outcome is not None]
            if not stolen:
                assert lost == []
                assert sum(text.startswith("DELETE FROM") for text in statements) == 2
                assert await journal.sagas() == []
                return
            assert lost == [4]
            assert isinstance(outcomes[4], LeaseLost)
            assert [saga.name for saga in await journal.sagas()] == ["4"]
            scopes[4]._records = []  # otherwise it warns when it is collected

    asyncio.run(main())


def test_a_commit_beside_a_new_action_of_its_saga_leaves_that_on_record(path: Path) -> None:
    async def main() -> None:
        async with SqliteJournal(path) as journal:
            outer = CompensationScope("outer", journal=journal)
            inner = outer.child("inner")
            await inner.register(undo, "a")
            await asyncio.gather(inner.commit(), outer.register(undo, "b"))
            assert [len(saga.actions) for saga in await journal.sagas()] == [1]
            await asyncio.gather(outer.commit(), journal.retry("none"))
            assert await journal.sagas() == []

    asyncio.run(main())
