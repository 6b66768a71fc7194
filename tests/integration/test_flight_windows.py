"""Windows by carrier or airport and by scheduled time, and the chart: no line is lost in any."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import signal
import subprocess
import sys
import threading
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("msgspec", reason="the examples group is not installed")

from flight_program import (
    PROGRAM,
    Memory,
    Program,
    batch_all,
    flight,
    lines_of,
    needs_flights,
    query,
    reasons,
    source_of,
    stored,
)
from hypothesis import given
from hypothesis import strategies as st

import flight_batcher
from flight_batcher import Options, duration
from flight_chart import chart
from flight_stores import Batch, open_store
from flight_windows import Windows
from returns_pipeline.testing import run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

MIXED = "SELECT batch_id FROM flights GROUP BY batch_id HAVING count(DISTINCT {}) > 1"


def hour_of(database: str) -> tuple[int, int, int]:
    """Return the rows of departures, the flights in them, and the flights there are."""
    [row] = query(
        database,
        "SELECT (SELECT count(*) FROM departures), (SELECT coalesce(sum(flights), 0) FROM "
        "departures), (SELECT count(*) FROM flights)",
    )
    hours, counted, flights = row
    return hours, counted, flights


def at(time: str, **changes: object) -> dict[str, object]:
    """Return a flight scheduled for this time of a day, in UTC."""
    hour, _, minute = time.partition(":")
    stamp = f"2013-01-01T{hour}:00:00Z"
    return flight(time_hour=stamp, hour=int(hour), minute=int(minute), **changes)


# By carrier or airport.


@needs_flights
@pytest.mark.parametrize("by", ["carrier", "origin", "dest"])
def test_a_window_holds_flights_of_one_key_and_every_line_is_accounted_for(
    by: str, path: str
) -> None:
    program = Program(path, "--by", by, "--limit", "3000", "--size", "50").end()
    program.check()
    assert program.status == 0
    assert query(path, MIXED.format(by)) == []
    assert program.table["by size"] > 10
    keys = query(path, f"SELECT count(DISTINCT {by}) FROM flights")[0][0]
    # The tails: at most one for each key, and one for what was rejected.
    assert program.table["by the end"] + program.table["by time"] <= keys + 1
    assert query(path, "SELECT count(*) FROM departures") == [(0,)]


@needs_flights
def test_windows_of_carriers_are_written_into_either_database(database: str) -> None:
    program = Program(database, "--by", "carrier", "--limit", "2000", "--fail-at", "2").end()
    program.check()
    assert (program.status, program.table["rolled back"]) == (0, 1)
    assert reasons(database)["write failed"] == program.table["rows in them"]
    assert query(database, MIXED.format("carrier")) == []


@needs_flights
def test_ctrl_c_has_the_open_windows_of_all_carriers_written(path: str) -> None:
    program = Program(path, "--by", "carrier", "--rate", "400", "--seconds", "0.1")
    program.wait_for_rows(60)
    program.process.send_signal(signal.SIGINT)
    program.end().check()
    assert program.status == 130
    assert program.table["by time"] > 3
    assert program.table["rolled back"] == 0
    assert "in no table" not in program.table


@needs_flights
@pytest.mark.parametrize("mode", [("--by", "dest"), ("--event-time", "1h")])
def test_ctrl_c_twice_makes_dead_letters_of_all_that_was_read(
    mode: tuple[str, str], path: str
) -> None:
    """The open windows hold lines from all over what was read."""
    program = Program(path, *mode, "--size", "100")
    program.wait_for_rows(1000)
    program.process.send_signal(signal.SIGINT)
    program.process.send_signal(signal.SIGINT)
    program.end().check()
    assert program.status == 130
    assert "in no table" not in program.table


def test_each_carrier_has_a_window_and_a_clock_of_its_own() -> None:
    """On virtual time: one line a second, windows of three records or four and a half seconds."""
    codes = ["AA", "UA", "AA", "DL", "AA", "UA", "AA"]
    source = source_of(lines_of(*[flight(carrier=code) for code in codes]))
    source.rate = 1
    store = Memory()

    async def main() -> None:
        options = Options(size=3, seconds=4.5, by="carrier")
        tally, _, problems = await batch_all(source, store, options)
        assert problems == []
        assert tally.windows == {"size": 1, "time": 1, "end": 2}

    run(main())
    lines = [[row[1] for row in batch.flights] for batch in store.batches.values()]
    assert lines == [[1, 3, 5], [2, 6], [4], [7]]


def test_what_was_rejected_has_a_window_of_its_own() -> None:
    store = Memory()
    lines = lines_of(flight(), b"?", flight(carrier="AA"), flight(dep_time=None), b"?")
    tally, _, problems = asyncio.run(
        batch_all(source_of(lines), store, Options(size=3, by="carrier"))
    )
    assert problems == []
    assert tally.windows == {"size": 1, "end": 2}
    shapes = [
        (len(batch.flights), [row[1] for row in batch.dead_letters])
        for batch in store.batches.values()
    ]
    assert shapes == [(0, [2, 4, 5]), (1, []), (1, [])]


@given(
    codes=st.lists(st.sampled_from(["AA", "UA", "DL", "?"]), max_size=40),
    size=st.integers(1, 5),
    failing=st.sets(st.integers(1, 9)),
    how=st.sampled_from(["plain", "carrier", "hours"]),
)
def test_the_accounts_hold_whatever_window_fails(
    codes: list[str], size: int, failing: set[int], how: str
) -> None:
    """Every line is in one batch, once, though windows are not consecutive and some fail."""
    store = Memory()
    store.failing = lambda batch: batch.number in failing and bool(batch.flights)
    records = [
        b"?" if code == "?" else at(f"{(3 * n) % 20 + 2:02}:30", carrier=code)
        for n, code in enumerate(codes)
    ]
    options = Options(
        size=size,
        by="carrier" if how == "carrier" else None,
        event_time=3600 if how == "hours" else None,
        out_of_order=4 * 3600,
    )

    async def main() -> None:
        tally, _, problems = await batch_all(source_of(lines_of(*records)), store, options)
        assert problems == []
        assert tally.unsettled == {}
        assert tally.read == tally.written + tally.dead_letters == len(codes)
        assert tally.read == tally.valid + tally.rejected.total()
        assert tally.by_hour.total() == (tally.written if how == "hours" else 0)

    run(main())
    kept = [
        row[1] for batch in store.batches.values() for row in (*batch.flights, *batch.dead_letters)
    ]
    assert sorted(map(str, kept)) == sorted(str(n) for n in range(1, len(codes) + 1))
    for batch in store.batches.values():
        assert sum(row[4] for row in batch.departures if isinstance(row[4], int)) == (
            len(batch.flights) if how == "hours" else 0
        )


# By scheduled time.


@needs_flights
def test_hours_of_airports_are_counted_with_their_flights_in_either_database(
    database: str,
) -> None:
    program = Program(database, "--event-time", "1h", "--limit", "3000").end()
    program.check()
    assert program.status == 0
    hours, counted, flights = hour_of(database)
    assert hours > 100
    assert counted == flights == program.table["written"]
    assert (
        query(database, "SELECT airport, start FROM departures GROUP BY 1, 2 HAVING count(*) > 1")
        == []
    )
    by_airport = query(database, "SELECT airport, sum(flights) FROM departures GROUP BY 1")
    assert dict(by_airport) == dict(
        query(database, "SELECT origin, count(*) FROM flights GROUP BY 1")
    )
    shown = Counter[str]()
    for name, count in program.table.items():
        if name[:3] in {"EWR", "JFK", "LGA"}:
            shown[name[:3]] += count
    assert dict(shown) == dict(by_airport)


@needs_flights
def test_each_flight_is_counted_in_the_hour_it_was_scheduled_for(path: str) -> None:
    Program(path, "--event-time", "1h", "--limit", "3000").end().check()
    assert (
        query(
            path,
            "SELECT airport, start, flights FROM departures EXCEPT "
            "SELECT origin, time_hour, count(*) FROM flights GROUP BY origin, time_hour",
        )
        == []
    )


@needs_flights
def test_no_flight_is_late_when_the_year_is_in_the_order_of_the_calendar(path: str) -> None:
    """The first 30,000 lines: with January and February, which in the file is ten months away."""
    program = Program(path, "--event-time", "1h", "--limit", "30000").end()
    program.check()
    assert "late" not in program.table
    assert query(path, "SELECT DISTINCT month FROM flights ORDER BY 1") == [(1,), (2,)]


@needs_flights
def test_flights_that_come_too_late_are_dead_letters_that_say_so(path: str) -> None:
    program = Program(path, "--event-time", "1h", "--out-of-order", "6h", "--limit", "3000").end()
    program.check()
    assert program.status == 0
    assert program.table["late"] > 100
    assert reasons(path)["late"] == program.table["late"]
    assert hour_of(path)[1:] == (program.table["written"],) * 2


def test_a_late_flight_is_told_from_one_that_is_only_out_of_order() -> None:
    """With two hours of patience: 10:15 may arrive after 11:50 and 12:10, but not after 13:00."""
    store = Memory()
    times = ["10:00", "11:50", "10:15", "12:10", "10:59", "13:00", "10:16", "11:20"]
    tally, _, problems = asyncio.run(
        batch_all(
            source_of(lines_of(*[at(time) for time in times])),
            store,
            Options(event_time=3600, out_of_order=2 * 3600),
        )
    )
    assert problems == []
    assert tally.rejected == {"late": 1}
    [batch] = store.batches.values()
    [letter] = batch.dead_letters
    assert letter[1:4] == (7, "late", "its hour ended at 2013-01-01 11:00:00")
    rows = [(f"{row[2]:%H}", row[3], row[4]) for row in batch.departures]
    assert rows == [("10", 3600, 3), ("11", 3600, 2), ("12", 3600, 1), ("13", 3600, 1)]


def test_a_late_flight_can_be_read_again(path: str, tmp_path: Path) -> None:
    first = Program(path, "--event-time", "1h", "--out-of-order", "0s", "--input", "-", stdin=-1)
    first.end(lines_of(at("10:00"), at("12:00"), at("10:30"))).check()
    [(payload,)] = query(path, "SELECT payload FROM dead_letters WHERE reason = 'late'")
    again = Program(str(tmp_path / "again.db"), "--input", "-", stdin=-1)
    again.end(f"{payload}\n".encode()).check()
    assert again.table["written"] == 1


def test_an_hour_is_never_in_two_windows_and_full_ones_are_told_from_tails() -> None:
    store = Memory()
    times = [f"{hour:02}:{minute:02}" for hour in (8, 9, 10) for minute in (0, 20, 40)]
    tally, _, problems = asyncio.run(
        batch_all(
            source_of(lines_of(*[at(time) for time in times])),
            store,
            Options(size=4, event_time=3600, out_of_order=0),
        )
    )
    assert problems == []
    assert [len(batch.flights) for batch in store.batches.values()] == [3, 3, 3]
    assert tally.windows == {"size": 2, "end": 1}


def test_hours_whose_time_has_ended_are_written_two_seconds_later_at_the_latest() -> None:
    """On virtual time: a line a second, an hour every three."""
    store = Memory()
    times = [f"{hour:02}:{minute:02}" for hour in (8, 9, 10) for minute in (0, 20, 40)]
    source = source_of(lines_of(*[at(time) for time in times]))
    source.rate = 1

    async def main() -> None:
        tally, _, _ = await batch_all(source, store, Options(event_time=3600, out_of_order=0))
        assert tally.windows == {"time": 2, "end": 1}

    run(main())


def test_a_window_that_fails_takes_its_counts_along(database: str) -> None:
    lines = lines_of(*[at(time) for time in ("08:00", "08:30", "09:00", "09:30", "10:00")])
    program = Program(
        database, "--event-time", "30m", "--out-of-order", "0s", "--size", "2", "--fail-at", "1",
        "--input", "-", stdin=subprocess.PIPE,
    )  # fmt: skip
    program.end(lines).check()
    assert hour_of(database) == (3, 3, 3)
    assert program.table["rows in them"] == 2


def test_deleting_a_window_deletes_its_counts(database: str) -> None:
    start = datetime(2013, 1, 1, tzinfo=UTC)
    batch = Batch("r/1", "r", 1, "size", None, [], [], [("r/1", "EWR", start, 3600, 0)])

    async def main(*, deleted: bool) -> None:
        async with open_store(database) as store:
            await (store.delete("r/1") if deleted else store.write(batch))

    asyncio.run(main(deleted=False))
    assert hour_of(database)[0] == 1
    asyncio.run(main(deleted=True))
    assert hour_of(database)[0] == 0


def test_a_time_at_the_end_of_what_can_be_counted_is_an_invalid_record(database: str) -> None:
    lines = lines_of(
        flight(time_hour="0001-01-01T00:00:00+05:00"),
        flight(time_hour="9999-12-31T23:00:00-05:00"),
        flight(time_hour="0002-01-01T00:00:00Z"),
        flight(time_hour="9998-12-31T23:00:00Z", minute=59),
    )
    program = Program(database, "--event-time", "8784h", "--input", "-", stdin=subprocess.PIPE)
    program.end(lines).check()
    assert (program.table["invalid record"], program.table["written"]) == (2, 2)


# The command line.


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1h", 3600), ("30m", 1800), ("90s", 90), ("1h30m", 5400), ("0s", 0), ("8784h", 31_622_400)],
)
def test_a_duration_is_hours_minutes_and_seconds(text: str, seconds: int) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--by", "tailnum"], "--by"),
        (["--by", "carrier", "--event-time", "1h"], "--by"),
        (["--event-time", "0s"], "--event-time"),
        (["--event-time", ""], "--event-time"),
        (["--event-time", "1"], "--event-time"),
        (["--event-time", "1d"], "--event-time"),
        (["--event-time", "m"], "--event-time"),
        (["--event-time", "-1h"], "--event-time"),
        (["--event-time", "8785h"], "longer than a year"),
        (["--event-time", "\u0661h"], "--event-time"),
        (["--event-time", "1h", "--out-of-order", "soon"], "--out-of-order"),
        (["--out-of-order", "1h"], "--event-time"),
    ],
)
def test_invalid_arguments_are_refused_in_one_line(
    arguments: list[str], said: str, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        flight_batcher.main(["--database", path, "--input", os.devnull, *arguments])
    assert left.value.code == 2
    shown = capsys.readouterr()
    [line] = shown.err.splitlines()
    assert said in line


def test_what_the_help_says_is_so_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        flight_batcher.main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for word in ("--by {carrier,origin,dest}", "--event-time TIME", "--out-of-order", '"late"'):
        assert word in shown
    assert f"({Windows().out_of_order // 3600}h)" in shown
    assert f"({Windows().size})" in shown


# The chart.

BUSY = Counter({("EWR", 6): 10_928, ("EWR", 23): 2, ("JFK", 6): 6184, ("LGA", 8): 305})


def test_bars_are_to_scale_and_fill_the_width() -> None:
    lines = list(chart(BUSY, 80, ascii_only=False))
    assert lines[2] == "    EWR 10,930                JFK 6,184                 LGA 305"
    assert lines[3] == (
        "06  \u2588\u2588\u2588\u2588\u2588\u2588\u2588\u2588\u2588\u2588\u2588\u2588\u2588\u2588"
        "\u2588\u2588\u2588 10,928  \u2588\u2588\u2588\u2588\u2588\u2588\u2588\u2588\u2588\u258b"
        " 6,184"
    )
    assert lines[4] == "07"
    assert lines[5].split() == ["08", "\u258c", "305"]
    assert lines[-1].split() == ["23", "\u258f", "2"]  # a few are not nothing
    assert max(map(len, lines)) <= 80


def test_a_terminal_without_blocks_gets_signs_that_every_one_has() -> None:
    lines = list(chart(BUSY, 80, ascii_only=True))
    assert all(line.isascii() for line in lines)
    assert lines[3] == f"06  {'#' * 17} 10,928  {'#' * 10} 6,184"
    assert lines[-1].split() == ["23", "#", "2"]


@given(
    counts=st.dictionaries(
        st.tuples(st.text("ABC", min_size=1, max_size=16), st.integers(0, 23)),
        st.integers(1, 10**6),
        min_size=1,
        max_size=40,
    ),
    width=st.integers(1, 200),
    ascii_only=st.booleans(),
)
def test_at_any_width_all_counts_are_there_and_no_line_is_too_long(
    counts: dict[tuple[str, int], int], width: int, *, ascii_only: bool
) -> None:
    lines = list(chart(Counter(counts), width, ascii_only=ascii_only))
    if width >= 40:
        assert max(map(len, lines)) <= width
        if len({airport for airport, _ in counts}) <= 12:
            text = " ".join(lines)
            assert all(f" {count:,}" in text for count in counts.values())
    assert lines == list(chart(Counter(counts), width, ascii_only=ascii_only))


def test_the_busiest_of_many_airports_are_drawn_and_the_others_counted() -> None:
    counts = Counter({(f"A{n:02}", 6): 100 - n for n in range(15)})
    lines = list(chart(counts, 80, ascii_only=False))
    assert lines[-1] == "and 261 from 3 more airports"
    assert "A11 89" in " ".join(lines)
    assert "A12" not in " ".join(lines)


def test_a_name_that_is_none_does_no_harm_to_a_terminal() -> None:
    counts = Counter({("\x1b[2J", 6): 1, ("K\u00f6ln", 6): 1, ("A\nB", 6): 1})
    text = "\n".join(chart(counts, 80, ascii_only=True))
    assert text.isascii()
    assert "\x1b" not in text
    assert len(text.splitlines()) == 4


def terminal_output(path: str, *, width: int, encoding: str) -> str:
    """Run the example in a terminal of this width, and return what it shows."""
    terminal, theirs = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}
    environment |= {"COLUMNS": str(width), "PYTHONIOENCODING": encoding, "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, PROGRAM, "--database", path, "--event-time", "1h", "--input", "-"],
        stdin=subprocess.PIPE,
        stdout=theirs,
        stderr=subprocess.PIPE,
        env=environment,
    )
    os.close(theirs)
    shown = bytearray()

    def read() -> None:
        with contextlib.suppress(OSError):  # which is how a terminal ends
            while block := os.read(terminal, 4096):
                shown.extend(block)

    reader = threading.Thread(target=read)
    reader.start()
    lines = [at(f"{hour:02}:00", origin=code) for hour in (8, 9) for code in ("EWR", "JFK", "LGA")]
    _, err = process.communicate(lines_of(*lines), timeout=60)
    reader.join()
    os.close(terminal)
    assert process.returncode == 0, err
    assert b"Traceback" not in err
    assert stored(path) == (6, 0)
    return shown.decode(encoding)


@pytest.mark.parametrize(
    ("width", "encoding"),
    [(80, "utf-8"), (80, "ascii"), (40, "latin-1"), (20, "utf-8"), (3, "utf-8"), (3, "ascii")],
)
def test_a_terminal_gets_a_chart_it_can_show(width: int, encoding: str, path: str) -> None:
    shown = terminal_output(path, width=width, encoding=encoding)
    lines = shown.replace("\r", "").split("\n")
    if width > 3:
        assert ("\u2588" in shown) == (encoding == "utf-8")
        assert ("#" in shown) == (encoding != "utf-8")
    # A command, and the answer to expect, are lines that the terminal wraps: they can be pasted.
    long = [line for line in lines if len(line) > width]
    assert {line.partition(" ")[0] for line in long} <= {"sqlite3", "rows"}
    if width == 80:
        [names] = [line.split() for line in lines if "EWR" in line]
        assert names == ["EWR", "2", "JFK", "2", "LGA", "2"]


def test_without_a_terminal_the_chart_is_plain_text(path: str) -> None:
    program = Program(path, "--event-time", "1h", "--input", "-", stdin=subprocess.PIPE)
    program.end(
        lines_of(
            at("09:00"),
            at("08:00"),
            at("08:10"),
            at("08:10", origin="JFK"),
            at("08:30", origin="\n"),
        )
    )
    assert program.out.splitlines()[:4] == ["'\\n' 08 1", "EWR 08 2", "EWR 09 1", "JFK 08 1"]
    assert program.out.isascii()
