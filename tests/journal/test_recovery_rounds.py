"""Several sagas at a time, recovery in the background, and what a scope has left to recovery."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from undoing import leave_open, listed, note, poison, registry, undone

from returns_pipeline.compensation import CompensationRegistry, CompensationScope
from returns_pipeline.errors import InvalidArgument, JournalUnavailable, LeaseLost
from returns_pipeline.journal import (
    RecoveryReport,
    SqliteJournal,
    StoredSaga,
    recover,
    recovering,
)
from returns_pipeline.journal.sqlite import _claims
from returns_pipeline.retry import RetryPolicy
from returns_pipeline.testing import run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from collections.abc import Set as AbstractSet
    from pathlib import Path


def slow(seconds: float, seen: Callable[[str, str], object]) -> CompensationRegistry:
    """Know an undo that takes this long, and says when it begins and ends."""
    made = CompensationRegistry()

    @made.compensation("note", retry=RetryPolicy(attempts=1))
    async def _(name: str) -> None:
        seen("begin", name)
        await asyncio.sleep(seconds)
        seen("end", name)

    return made


# Several at a time.


@pytest.mark.parametrize(("concurrency", "took"), [(1, 60.0), (3, 20.0), (100, 10.0)])
def test_as_many_sagas_are_undone_at_a_time_as_may_be_and_each_in_order(
    path: Path, concurrency: int, took: float
) -> None:
    leave_open(path, **dict.fromkeys("abcdef", "x"))
    under_way: set[str] = set()
    most: list[int] = []

    def seen(what: str, _: str) -> None:
        under_way.add(str(len(most))) if what == "begin" else under_way.pop()
        most.append(len(under_way))

    async def main() -> None:
        began = asyncio.get_running_loop().time()
        async with SqliteJournal(path) as journal:
            reports = await recover(journal, slow(10.0, seen), concurrency=concurrency)
        assert [report.name for report in reports] == list("fedcba")  # the newest first
        assert all(len(report.done) == 1 for report in reports)
        assert asyncio.get_running_loop().time() - began == pytest.approx(took, abs=0.5)

    run(main())
    assert max(most) == min(concurrency, 6)


def test_inside_a_saga_one_action_is_undone_after_the_other_however_many_sagas_there_are(
    path: Path,
) -> None:
    leave_open(path, a="12", b="34")
    seen: list[tuple[str, str]] = []

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            await recover(journal, slow(1.0, lambda *what: seen.append(what)), concurrency=10)

    run(main())
    for names in "12", "34":
        own = [what for what in seen if what[1] in names]
        assert own == [(what, name) for name in reversed(names) for what in ("begin", "end")]


def test_a_cancelled_recovery_finishes_all_attempts_under_way_and_releases_the_rest(
    path: Path,
) -> None:
    leave_open(path, a="12", b="34", c="5")
    seen: list[tuple[str, str]] = []

    async def main() -> None:
        async with SqliteJournal(path) as journal, SqliteJournal(path) as other:
            known = slow(10.0, lambda *what: seen.append(what))
            working = asyncio.create_task(recover(journal, known, concurrency=2))
            await asyncio.sleep(5.0)
            working.cancel()
            await asyncio.wait({working})
            assert working.cancelled()
            assert seen == [("begin", "5"), ("begin", "4"), ("end", "5"), ("end", "4")]
            assert await listed(path) == {"a": "pending pending", "b": "pending done", "c": "done"}
            assert [saga.alive for saga in await other.sagas()] == [True, False, False]
            assert len(await recover(other, registry)) == 2
        assert undone == ["3", "2", "1"]

    run(main())


def test_a_bug_in_a_journal_ends_the_recovery_and_releases_what_it_has(path: Path) -> None:
    leave_open(path, a="1", b="2")

    class Broken(SqliteJournal):
        async def postpone(self, action: str, error: object, until: float) -> None:
            raise ZeroDivisionError

    poison.add("2")

    async def main() -> None:
        async with Broken(path) as journal:
            with pytest.raises(ZeroDivisionError):
                await recover(journal, registry, concurrency=2)
            assert {saga.owner for saga in await journal.sagas() if "pending" in str(saga)} == {""}

    run(main())


@pytest.mark.parametrize("concurrency", [0, -1, 1.5, True, "2"])
def test_an_invalid_concurrency_is_refused(path: Path, concurrency: object) -> None:
    async def main() -> None:
        with pytest.raises(InvalidArgument, match="concurrency"):
            await recover(SqliteJournal(path), registry, concurrency=concurrency)  # type: ignore[arg-type]

    run(main())


# In the background.


def test_what_others_leave_behind_is_undone_while_the_program_runs(path: Path) -> None:
    leave_open(path, a="1")
    reports: list[RecoveryReport] = []

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            background = recovering(
                journal, registry, every=timedelta(seconds=30), on_report=reports.append
            )
            async with background:
                await asyncio.sleep(1.0)
                assert undone == ["1"]  # at once
                async with SqliteJournal(path) as other:
                    scope = CompensationScope("b", journal=other)
                    await scope.register(note, "2")
                    await asyncio.sleep(60.0)
                    assert undone == ["1"]  # its owner lives
                    scope._records.clear()  # it is left to others
                await asyncio.sleep(31.0)
                assert undone == ["1", "2"]
            await asyncio.sleep(100.0)
        assert [report.name for report in reports] == ["a", "b"]

    run(main())


def test_a_background_recovery_continues_after_the_journal_was_away(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    leave_open(path, a="1")

    async def main() -> None:
        async with SqliteJournal(path, patience=0.01) as journal:
            with closing(sqlite3.connect(path, isolation_level=None)) as blocker:
                blocker.execute("BEGIN IMMEDIATE")
                async with recovering(journal, registry, every=5.0):
                    await asyncio.sleep(1.0)
                    assert undone == []
                    blocker.execute("ROLLBACK")
                    await asyncio.sleep(6.0)
                    assert undone == ["1"]

    run(main())
    assert "tried again in 5 s" in caplog.text


def test_leaving_the_block_finishes_the_attempt_that_is_under_way(path: Path) -> None:
    leave_open(path, a="12")
    seen: list[tuple[str, str]] = []

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            known = slow(10.0, lambda *what: seen.append(what))
            with pytest.raises(KeyError):
                async with recovering(journal, known):
                    await asyncio.sleep(5.0)
                    raise KeyError
            assert seen == [("begin", "2"), ("end", "2")]
            assert await listed(path) == {"a": "pending done"}

    run(main())


def test_an_observer_that_fails_does_not_end_the_background_recovery(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    leave_open(path, a="1", b="2")

    def fails(_: RecoveryReport) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        async with (
            SqliteJournal(path) as journal,
            recovering(journal, registry, every=1.0, concurrency=1, on_report=fails),
        ):
            await asyncio.sleep(10.0)

    run(main())
    assert undone == ["2", "1"]
    assert "recovery failed" in caplog.text


def test_the_end_of_each_round_is_told_and_the_waits_differ(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    leave_open(path, a="1")
    ends: list[tuple[float, object]] = []

    async def main() -> None:
        def ended(error: Exception | None) -> None:
            ends.append((asyncio.get_running_loop().time(), error))
            raise ZeroDivisionError

        async with (
            SqliteJournal(path) as journal,
            recovering(journal, registry, every=8.0, on_round=ended),
        ):
            assert ends == []
            await asyncio.sleep(100.0)

    run(main())
    assert undone == ["1"]
    assert {error for _, error in ends} == {None}
    waits = [later - earlier for (earlier, _), (later, _) in pairwise(ends)]
    assert all(6.0 <= wait <= 8.0 for wait in waits)
    assert len(set(waits)) == len(waits) > 11
    assert caplog.text.count("after each recovery failed") == len(ends)


@pytest.mark.parametrize("every", [0, -1.0, float("inf"), float("nan"), "1"])
def test_an_invalid_pause_is_refused_at_the_call(path: Path, every: object) -> None:
    with pytest.raises(InvalidArgument, match="every"):
        recovering(SqliteJournal(path), registry, every=every)  # type: ignore[arg-type]


# What a scope leaves to recovery.


def test_abandoned_actions_are_anybodys_and_the_rest_of_their_saga_is_not(path: Path) -> None:
    async def main() -> None:
        async with SqliteJournal(path) as journal, SqliteJournal(path) as other:
            scope = CompensationScope("a", journal=journal)
            for name in "1234":
                await scope.register(note, name)
            ((saga,),) = [await journal.sagas()]
            by_argument = {action.arguments[-3]: action.id for action in saga.actions}
            journal.abandon([by_argument["2"], by_argument["4"], "no such action"])
            await journal.flush()
            (report,) = await recover(other, registry)
            assert report.name == "a"
            assert undone == ["4", "2"]  # in their order
            states = [(s.alive, [a.state for a in s.actions]) for s in await journal.sagas()]
            assert states == [(True, ["done"] * 2), (True, ["pending"] * 2)]
            with pytest.raises(LeaseLost):
                await scope.commit()  # two of its actions are not its own any more
            scope._records.clear()

    run(main())


def test_what_is_abandoned_while_the_journal_is_locked_is_written_when_it_is_free(
    path: Path,
) -> None:
    async def main() -> None:
        async with SqliteJournal(path, patience=0.01) as journal:
            scope = CompensationScope("a", journal=journal)
            await scope.register(note, "1")
            (saga,) = await journal.sagas()
            with closing(sqlite3.connect(path, isolation_level=None)) as blocker:
                blocker.execute("BEGIN IMMEDIATE")
                journal.abandon([saga.actions[0].id])
                with pytest.raises(JournalUnavailable):
                    await recover(journal, registry)
                blocker.execute("ROLLBACK")
            assert len(await recover(journal, registry)) == 1  # by this process itself
            scope._records.clear()
        assert undone == ["1"]

    run(main())


def test_a_saga_whose_scope_stops_at_a_failure_is_left_from_there_on_after_a_crash(
    path: Path,
) -> None:
    leave_open(path, a="123")
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE saga SET on_failure = 'stop'")
        db.commit()
    poison.add("2")

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            (report,) = await recover(journal, registry)
            assert len(report.done) == 1
            assert [entry.error for entry in report.stuck][1] == "not run"
            assert await listed(path) == {"a": "stuck stuck done"}
            assert await recover(journal, registry) == []
        assert undone == ["3", "2", "2"]

    run(main())


def test_a_recovery_remembers_no_saga_that_it_has_settled(path: Path) -> None:
    """Its memory, and the cost of a claim, depend on what is under way only."""
    leave_open(path, **{f"s{number}": "x" for number in range(60)})
    most = 0

    class Watched(SqliteJournal):
        async def claim(
            self, *, besides: AbstractSet[str], known: Mapping[str, int] | None = None
        ) -> StoredSaga | None:
            nonlocal most
            most = max(most, len(besides))
            return await super().claim(besides=besides, known=known)

    async def main() -> None:
        ended = asyncio.Event()
        seen = 0

        def count(_: object) -> None:
            nonlocal seen
            seen += 1
            if seen == 60:
                ended.set()

        async with Watched(path) as journal:
            async with recovering(journal, registry, concurrency=4, on_report=count):
                await ended.wait()
            assert journal._store.leases._epochs == {}

    asyncio.run(main())
    assert len(undone) == 60
    assert most <= 8


def test_a_round_passes_over_what_was_deferred_until_it_is_known_or_discarded(path: Path) -> None:
    """Rounds of processes that do not know it cost in proportion to what they can do."""
    leave_open(path, a="12", b="3")
    known, seen = CompensationRegistry(), list[str]()
    reports: list[RecoveryReport] = []
    claimed: list[str] = []

    class Watched(SqliteJournal):
        async def claim(
            self, *, besides: AbstractSet[str], known: Mapping[str, int] | None = None
        ) -> StoredSaga | None:
            found = await super().claim(besides=besides, known=known)
            claimed.extend([found.name] if found else [])
            return found

    async def main() -> None:
        async with Watched(path) as journal:
            async with recovering(journal, known, every=10.0, on_report=reports.append):
                await asyncio.sleep(35)
                assert sorted(claimed) == ["a", "b"]  # in the first round, which defers them
                assert sorted(len(report.deferred) for report in reports) == [1, 2]

                @known.compensation("note")
                async def note(name: str) -> None:
                    seen.append(name)

                await asyncio.sleep(10)
                assert seen == ["3", "2", "1"]
            assert await journal.sagas(done=False) == []

    run(main())


def test_a_recovery_on_demand_reports_what_stays_deferred_and_does_not_write_it_again(
    path: Path,
) -> None:
    leave_open(path, a="1")
    deferred: list[str] = []

    class Watched(SqliteJournal):
        async def defer(self, action: str, reason: str) -> None:
            deferred.append(reason)
            await super().defer(action, reason)

    async def main() -> None:
        async with Watched(path) as journal:
            for _ in range(3):
                (report,) = await recover(journal, CompensationRegistry())
                assert len(report.deferred) == 1

    run(main())
    assert deferred == ["unknown name"]


def test_a_claim_does_not_search_all_that_is_open_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list of candidates is made once, so that a recovery costs in proportion to it."""
    leave_open(path, **{f"s{number}": "x" for number in range(40)})
    monkeypatch.setattr(_claims, "_FRESH", 1e9)  # seconds of real time
    look = _claims.Claims.look
    looks: list[int] = []

    def counted(*args: Any) -> int:
        looks.append(look(*args))
        return looks[-1]

    monkeypatch.setattr(_claims.Claims, "look", counted)

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            reports = await recover(journal, registry)
            assert len(reports) == 40

    run(main())
    assert looks == [40, 0]
