"""The example dies on demand, and says where to look at what it has written."""

from __future__ import annotations

import os
import shlex
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("msgspec", reason="the examples group is not installed")
pytest.importorskip("aiosqlite", reason="the examples group is not installed")
pytest.importorskip("asyncpg", reason="the examples group is not installed")
pytest.importorskip("rich", reason="the examples group is not installed")

import flight_batcher
from flight_tally import Tally

if TYPE_CHECKING:
    from collections.abc import Iterable

PROGRAM = Path(flight_batcher.__file__)
FLIGHT = (
    '{"year": 2013, "month": 1, "day": 1, "carrier": "UA", "flight": 1545, "tailnum": "N14228", '
    '"origin": "EWR", "dest": "IAH", "distance": 1400, "hour": 5, "minute": 15, '
    '"time_hour": "2013-01-01T10:00:00Z", "sched_dep_time": 515, "sched_arr_time": 819, '
    '"dep_time": 517, "dep_delay": 2, "arr_time": 830, "arr_delay": 11, "air_time": 227}\n'
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lines.jsonl").write_text(FLIGHT * 6 + "nonsense\n")
    return tmp_path


def query(statement: str) -> Iterable[tuple[object, ...]]:
    with closing(sqlite3.connect("my flights.db")) as db:
        return db.execute(statement).fetchall()


OPTIONS = ["--database", "my flights.db", "--input", "lines.jsonl", "--size", "2"]


@pytest.mark.slow
@pytest.mark.usefixtures("place")
def test_a_run_that_dies_on_demand_is_undone_by_the_next(
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = [*OPTIONS, "--journal", "j.db"]
    command = [sys.executable, str(PROGRAM), *options, "--crash-at", "2"]
    died = subprocess.run(command, capture_output=True, text=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert query("SELECT count(*) FROM batches") == [(2,)]  # the second one is there as a whole
    assert flight_batcher.main([*options, "--input", os.devnull]) == 0
    assert (
        "windows of a killed run that were not complete, now deleted: 1" in capsys.readouterr().err
    )
    assert query("SELECT number FROM batches") == [(1,)]


@pytest.mark.usefixtures("place")
def test_a_window_that_is_never_reached_kills_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert flight_batcher.main([*OPTIONS, "--journal", "j.db", "--crash-at", "9"]) == 0
    assert "window 9 was never reached: nothing crashed" in capsys.readouterr().err


def test_dying_on_demand_needs_a_journal(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        flight_batcher.main([*OPTIONS, "--crash-at", "2"])
    assert left.value.code == 2
    assert "--crash-at shows what --journal is for" in capsys.readouterr().err


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("terminal", [False, True])
def test_the_summary_has_commands_to_paste_that_answer_what_it_says(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *, terminal: bool
) -> None:
    """In a narrow terminal, too: each one is a line of its own, that the terminal may wrap."""
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", "30")
    for _ in range(2):  # two runs in one database
        assert flight_batcher.main(OPTIONS) == 0
        said_flights, flights, said_letters, letters = capsys.readouterr().out.splitlines()[-4:]
        assert said_flights == "rows of this run in flights: 6"
        assert said_letters == "rows of this run in dead_letters: 1"
        for command, count in ((flights, 6), (letters, 1)):
            program, database, statement = shlex.split(command)
            assert (program, database) == ("sqlite3", "my flights.db")
            assert query(statement) == [(count,)]  # of this run alone


def test_a_password_is_not_shown() -> None:
    for address in (
        "postgresql://me:hush@host/db?sslmode=on",
        "postgresql://host/db?password=hush",
    ):
        shown = flight_batcher.queries(address, Tally())
        assert "hush" not in str(shown)
        assert shlex.split(shown[1])[:3] == ["psql", "postgresql://host/db", "-tc"]
