"""Killed at any point, the example leaves no window that is not complete, once it is run again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("msgspec", reason="the examples group is not installed")

from flight_program import (
    PROGRAM,
    Memory,
    Program,
    flight,
    lines_of,
    needs_flights,
    query,
    source_of,
    stored,
)

import flight_batcher
from flight_batcher import Options, run_batches, settle_accounts
from flight_stores import SqliteStore, open_journal, open_store
from flight_tally import Tally
from returns_pipeline.errors import JournalError
from returns_pipeline.journal import SqliteJournal

if TYPE_CHECKING:
    from returns_pipeline.journal import StoredSaga

pytestmark = pytest.mark.slow

KILLED = Path(__file__).with_name("killed_batcher.py")


def killed(point: str, *arguments: str, cwd: Path | None = None) -> None:
    """Run on ten lines, in windows of two, until it dies at a point."""
    call, where = point.split()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}
    environment["PYTHONPATH"] = str(PROGRAM.parent)
    done = subprocess.run(
        [sys.executable, KILLED, call, where, *arguments, "--size", "2", "--input", "-"],
        input=lines_of(*[flight()] * 10),
        capture_output=True,
        timeout=60,
        check=False,
        cwd=cwd,
        env=environment,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def run_again(*arguments: str) -> int:
    """Run on no lines, in this process."""
    return flight_batcher.main([*arguments, "--input", os.devnull])


def pending(journal: str) -> list[StoredSaga]:
    """Return what is on record and not undone."""

    async def look() -> list[StoredSaga]:
        async with open_journal(journal) as opened:
            return [
                saga
                for saga in await opened.sagas()
                if any(action.state != "done" for action in saga.actions)
            ]

    return asyncio.run(look())


def windows(database: str) -> list[tuple[str, int]]:
    """Return the id of each window and how many lines it has, by its number."""
    rows = query(
        database,
        "SELECT batches.batch_id, (SELECT count(*) FROM flights WHERE flights.batch_id = "
        "batches.batch_id) + (SELECT count(*) FROM dead_letters WHERE dead_letters.batch_id = "
        "batches.batch_id) FROM batches ORDER BY run_id, number",
    )
    return [(batch_id, count) for batch_id, count in rows]


def strays(database: str) -> list[tuple[object, ...]]:
    """Return rows of windows that are not there."""
    return query(
        database,
        "SELECT batch_id FROM flights WHERE batch_id NOT IN (SELECT batch_id FROM batches) UNION "
        "SELECT batch_id FROM dead_letters WHERE batch_id NOT IN (SELECT batch_id FROM batches) "
        "UNION SELECT batch_id FROM departures WHERE batch_id NOT IN (SELECT batch_id FROM "
        "batches)",
    )


POINTS = [
    ("record before", 2, 0),
    ("record after", 2, 1),
    ("write before", 2, 1),
    ("write in", 2, 1),
    ("write after", 2, 1),
    ("forget before", 2, 1),
    ("forget after", 3, 0),
    ("delete before", 0, 1),
    ("delete in", 0, 1),
    ("delete after", 0, 1),
]


@pytest.mark.parametrize(("point", "complete", "left"), POINTS)
def test_killed_at_any_point_a_run_leaves_only_complete_windows_for_the_next(
    point: str, complete: int, left: int, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    check_killed(point, complete, left, path, f"{path}.journal", capsys)


@pytest.mark.parametrize(
    ("point", "complete", "left"), [p for p in POINTS if p[0] in {"write after", "delete in"}]
)
def test_killed_while_it_writes_to_a_server_it_leaves_only_complete_windows(
    point: str,
    complete: int,
    left: int,
    postgres_dsn: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    check_killed(point, complete, left, postgres_dsn, f"{tmp_path}/journal", capsys)


@pytest.mark.parametrize(
    ("point", "complete", "left"), [p for p in POINTS if p[0] in {"write after", "forget before"}]
)
def test_killed_with_its_journal_in_the_database_it_leaves_only_complete_windows(
    point: str, complete: int, left: int, postgres_database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    check_killed(point, complete, left, postgres_database, postgres_database, capsys)


def check_killed(
    point: str,
    complete: int,
    left: int,
    database: str,
    journal: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Kill a run and run again; see that it says so, where there was something to delete."""
    options = ["--database", database, "--journal", journal]
    # A window that fails is deleted.
    killed(point, *options, *(["--fail-at", "1"] if point.startswith("delete") else []))
    assert len(pending(journal)) == left
    before = windows(database)
    # After its third write, but for a commit record, the window is there.
    assert len(before) == (3 if point in {"write after", "forget before"} else complete)
    assert run_again(*options) == 0
    assert windows(database) == before[:complete]
    assert [count for _, count in before] == [2] * len(before)
    assert strays(database) == []
    assert pending(journal) == []
    said = f"{journal}: windows of a killed run that were not complete, now deleted: 1\n"
    assert capsys.readouterr().err == (said if left else "")


@needs_flights
@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        ("sqlite", ()),
        ("sqlite", ("--by", "carrier")),
        ("sqlite", ("--event-time", "1h")),
        ("postgres", ()),
    ],
)
def test_killed_in_full_flight_it_leaves_whole_windows(
    kind: str, mode: tuple[str, ...], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """At three points that only the machine knows; then a run that is not killed."""
    database = str(request.getfixturevalue("postgres_dsn" if kind == "postgres" else "path"))
    journal = str(tmp_path / "journal")
    options = [*mode, "--journal", journal, "--size", "20"]
    rows = 0
    for more in (1, 100, 500):
        program = Program(database, *options)
        program.wait_for_rows(rows + more)
        program.process.kill()
        program.process.communicate(timeout=60)
        rows = sum(stored(database))
    last = Program(database, *options, "--limit", "50").end()
    assert last.status == 0
    assert pending(journal) == []
    assert strays(database) == []
    counts = windows(database)
    assert sum(count for _, count in counts) == sum(stored(database))
    assert all(0 < count <= 20 for _, count in counts) or mode[:1] == ("--event-time",)
    if not mode:
        runs = [batch_id.partition("/")[0] for batch_id, _ in counts]
        ends = {run: count for run, (_, count) in zip(runs, counts, strict=True)}
        # The first run may have been killed inside its first window; ten are the tail of the last.
        assert sorted(ends.values()) in ([10, 20, 20, 20], [10, 20, 20])
    [(flights,)] = query(database, "SELECT coalesce(sum(flights), 0) FROM departures")
    assert flights == (stored(database)[0] if mode[:1] == ("--event-time",) else 0)


def test_a_window_in_another_database_is_left_for_a_run_into_that_one(
    database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = str(tmp_path / "journal")
    options = ["--journal", journal]
    killed("write after", "--database", database, *options)
    assert run_again("--database", str(tmp_path / "other.db"), *options) == 0
    said = f"{journal}: windows of other databases, left alone: 1\n"
    assert capsys.readouterr().err == said
    assert len(windows(database)) == 3
    assert run_again("--database", database, *options) == 0
    assert len(windows(database)) == 2
    assert pending(journal) == []


def test_a_file_is_the_same_database_by_whatever_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A relative one, or a link."""
    options = ["--journal", str(tmp_path / "journal")]
    killed("write after", "--database", "it.db", *options, cwd=tmp_path)
    (tmp_path / "link.db").symlink_to(tmp_path / "it.db")
    assert run_again("--database", str(tmp_path / "link.db"), *options) == 0
    assert "now deleted: 1" in capsys.readouterr().err


def test_a_database_on_a_server_is_known_by_its_name_and_schema(postgres_dsn: str) -> None:
    [(name, schema)] = query(postgres_dsn, "SELECT current_database(), current_schema()")

    async def main() -> None:
        async with open_store(postgres_dsn) as store:
            assert store.place.endswith(f"/{name}/{schema}")

    asyncio.run(main())


@pytest.mark.parametrize(("durable", "level"), [(False, 1), (True, 2)])
def test_with_a_journal_what_is_written_to_a_file_survives_the_machine(
    path: str, *, durable: bool, level: int
) -> None:
    """A commit record must not outlive its window."""

    async def main() -> None:
        async with open_store(path, durable=durable) as store:
            assert isinstance(store, SqliteStore)
            rows = await store._connection.execute_fetchall("PRAGMA synchronous")
            assert list(rows) == [(level,)]

    asyncio.run(main())


def test_a_living_run_keeps_its_saga(path: str, tmp_path: Path) -> None:
    journal = str(tmp_path / "journal")
    options = ["--journal", journal, "--input", "-", "--size", "2"]
    first = Program(path, *options, stdin=subprocess.PIPE)
    assert first.process.stdin is not None
    first.process.stdin.write(lines_of(flight(), flight()))
    first.process.stdin.flush()
    first.wait_for_rows(2)
    second = Program(path, *options, stdin=subprocess.PIPE).end(lines_of(flight()))
    assert "killed" not in second.err
    first.end(lines_of(flight())).check(earlier=1)
    assert first.status == second.status == 0


def test_a_window_that_is_rolled_back_is_off_the_record(
    path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = str(tmp_path / "journal")
    program = Program(
        path, "--journal", journal, "--input", "-", "--fail-at", "1", stdin=subprocess.PIPE
    )
    program.end(lines_of(flight(), flight())).check()
    assert program.table["rolled back"] == 1
    assert run_again("--database", path, "--journal", journal) == 0
    assert capsys.readouterr().err == ""
    assert stored(path) == (0, 2)


@pytest.mark.parametrize(
    ("journal", "said"),
    [
        ("/no/such/folder/journal", "/no/such/folder/journal"),
        (__file__, "not a database"),
        ("", "unable to open"),
        ("postgresql://me:secret@127.0.0.1:1/test", "127.0.0.1:1/test"),
        ("mysql://me:secret@host/test", "mysql://"),
    ],
)
def test_a_journal_that_cannot_be_opened_is_one_line_and_status_2(
    journal: str, said: str, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_again("--database", path, "--journal", journal) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    [line] = shown.err.splitlines()
    assert said in line
    assert "secret" not in line
    assert stored(path) == (0, 0)


def test_the_file_of_the_database_is_not_a_journal(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_again("--database", path, "--journal", path) == 2
    assert "database of another program" in capsys.readouterr().err


def test_an_address_of_a_file_is_its_path(tmp_path: Path) -> None:
    assert str(open_journal("postgres://me:secret@host/test")) == "postgres://me@host/test"
    assert str(open_journal(f"sqlite:///{tmp_path}/j")) == f"{tmp_path}/j"
    assert str(open_journal(f"{tmp_path}/j")) == f"{tmp_path}/j"


@pytest.mark.parametrize("call", ["record", "forget"])
def test_a_journal_that_fails_on_the_way_ends_the_run_and_says_so(call: str, path: str) -> None:
    """What it did not take on record was not done; what was done is undone."""
    store = Memory()
    calls = 0

    class Failing(SqliteJournal):
        pass

    real = getattr(SqliteJournal, call)

    async def instead(self: SqliteJournal, *given: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise JournalError("the journal", "the disk is full")
        await real(self, *given)

    setattr(Failing, call, instead)

    async def main() -> None:
        tally = Tally()
        async with Failing(path) as journal:
            source = source_of(lines_of(*[flight()] * 9))
            work = asyncio.create_task(
                run_batches(source, store, tally, Options(size=2), asyncio.Event(), print, journal)
            )
            await asyncio.wait({work})
            problems = await settle_accounts(work, source, store, tally)
        assert problems[0] == "the journal failed: journal the journal: the disk is full"
        assert "are not" in problems[1]
        assert tally.read == 2 + len(tally.unsettled)

    asyncio.run(main())
    assert [len(batch.flights) for batch in store.batches.values()] == [2]


def test_a_window_that_cannot_be_deleted_is_a_problem_and_stays_on_record(
    path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table that refuses stands in for a database that is out of order."""
    journal = str(tmp_path / "journal")
    options = ["--database", path, "--journal", journal]
    killed("write after", *options)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TRIGGER locked BEFORE DELETE ON flights "
            "BEGIN SELECT RAISE(ABORT, 'out of order'); END;"
        )
    assert run_again(*options) == 1
    assert "a window of a killed run is not undone: out of order" in capsys.readouterr().err
    [saga] = pending(journal)
    assert [action.state for action in saga.actions] == ["stuck"]
    assert len(windows(path)) == 3
