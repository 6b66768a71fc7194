"""The main job, on real files, a real server and real signals: every line read is accounted for."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import math
import os
import pty
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("msgspec", reason="the examples group is not installed")

import asyncpg
from flight_program import (
    PROGRAM,
    SERVER,
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

import flight_batcher
import flight_records
from flight_batcher import Options, run_batches, settle_accounts
from flight_records import MAX_LINE, Source, in_daemon_thread, parse_csv, parse_json
from flight_stores import Batch, StoreError, open_store
from flight_tally import Tally
from returns_pipeline.testing import run

pytestmark = pytest.mark.slow

# The whole program.


@needs_flights
@pytest.mark.skipif(not os.environ.get("CI"), reason="the whole year takes a while: set CI")
@pytest.mark.parametrize("mode", [(), ("--by", "carrier"), ("--event-time", "1h")])
def test_all_departures_of_2013_are_written_or_rejected_with_their_reason(
    mode: tuple[str, ...], path: str
) -> None:
    program = Program(path, *mode).end()
    program.check()
    assert program.status == 0
    assert (
        program.table.items()
        >= {
            "read": 336_776,
            "valid": 327_346,
            "rejected": 9430,
            "rolled back": 0,
            "cancelled": 8255,
            "diverted": 717,
            "no arrival time": 458,
        }.items()
    )
    assert reasons(path) == {"cancelled": 8255, "diverted": 717, "no arrival time": 458}
    assert query(path, "SELECT count(*), sum(distance), min(time_hour) FROM flights") == [
        (327_346, 343_180_156, "2013-01-01T10:00:00+00:00")
    ]
    [counted] = query(path, "SELECT count(*), sum(flights) FROM departures")
    assert counted == ((19_432, 327_346) if mode[:1] == ("--event-time",) else (0, None))


@needs_flights
def test_a_run_into_either_database_accounts_for_every_line(database: str) -> None:
    program = Program(database, "--limit", "2750").end()
    program.check()
    assert program.status == 0
    assert program.table["read"] == 2750
    windows = query(database, "SELECT number, closed_by, error FROM batches ORDER BY number")
    assert [number for number, _, _ in windows] == list(range(1, len(windows) + 1))
    assert windows[-1][1:] == ("end", None)
    assert query(database, "SELECT min(line), max(line) FROM flights")[0] == (2, 2751)
    [(payload,)] = query(
        database, "SELECT payload FROM dead_letters WHERE reason = 'cancelled' LIMIT 1"
    )
    assert json.loads(payload)["dep_time"] == "NA"


@needs_flights
def test_a_window_that_fails_half_way_is_rolled_back_and_kept_as_dead_letters(
    database: str,
) -> None:
    program = Program(database, "--limit", "2000", "--fail-at", "3").end()
    program.check()
    assert program.status == 0
    assert program.table["rolled back"] == 1
    rows = program.table["rows in them"]
    [(batch, error)] = query(database, "SELECT batch_id, error FROM batches WHERE error <> ''")
    assert "unique" in error.lower()  # the database's own words
    assert query(database, f"SELECT count(*) FROM flights WHERE batch_id = '{batch}'") == [(0,)]
    assert query(database, f"SELECT count(*) FROM dead_letters WHERE batch_id = '{batch}'") == [
        (rows,)
    ]
    assert reasons(database)["write failed"] > rows / 2
    assert "window 3" in program.err
    assert "rolled back" in program.err


@needs_flights
def test_another_run_is_added_under_an_id_of_its_own(path: str) -> None:
    first = Program(path, "--limit", "700").end()
    first.check()
    second = Program(path, "--limit", "300").end()
    assert second.status == 0
    second.check(earlier=700)
    assert query(path, "SELECT count(DISTINCT run_id), count(*) FROM batches") == [(2, 3)]


def test_the_database_is_a_file_in_the_working_directory_by_default(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, PROGRAM, "--input", "-"], cwd=tmp_path, input=b"", check=True, timeout=60
    )
    assert stored(str(tmp_path / "flights.db")) == (0, 0)


@needs_flights
def test_ctrl_c_has_the_open_window_written(path: str) -> None:
    program = Program(path, "--rate", "300", "--size", "20", "--seconds", "0.05")
    program.wait_for_rows(30)
    program.process.send_signal(signal.SIGINT)
    program.end().check()
    assert program.status == 130
    assert program.table["by time"] > 0
    assert program.table["rolled back"] == 0


@needs_flights
def test_a_termination_is_taken_as_ctrl_c(path: str) -> None:
    program = Program(path, "--rate", "300", "--size", "20")
    program.wait_for_rows(20)
    program.process.terminate()
    program.end().check()
    assert program.status == 143
    assert program.table["rolled back"] == 0


@needs_flights
def test_ctrl_c_twice_leaves_no_line_unaccounted_for(path: str) -> None:
    program = Program(path)
    program.wait_for_rows(1000)
    program.process.send_signal(signal.SIGINT)
    program.process.send_signal(signal.SIGINT)
    program.end().check()
    assert program.status == 130


def test_ctrl_c_twice_rolls_back_a_window_whose_write_hangs(postgres_dsn: str) -> None:
    name = uuid4().hex
    address = f"{postgres_dsn}&application_name={name}"
    program = Program(address, "--input", "-", "--size", "2", stdin=subprocess.PIPE)
    assert program.process.stdin is not None
    assert program.process.stderr is not None

    def feed() -> None:
        assert program.process.stdin is not None
        program.process.stdin.write(lines_of(flight(), flight()))
        program.process.stdin.flush()

    async def main() -> None:
        connection = await asyncpg.connect(postgres_dsn)
        waiting = (
            f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}' "
            "AND wait_event_type = 'Lock'"
        )
        assert program.process.stderr is not None
        try:
            async with connection.transaction():
                await connection.execute("LOCK TABLE flights IN SHARE MODE")  # for reading only
                feed()
                while not await connection.fetchval(waiting):
                    assert program.process.poll() is None
                program.process.send_signal(signal.SIGINT)
                assert program.process.stderr.readline().startswith(b"stopping")
                program.process.send_signal(signal.SIGINT)
                assert program.process.stderr.readline().startswith(b"stopping at once")
        finally:
            await connection.close()

    feed()
    program.wait_for_rows(2)
    asyncio.run(main())
    program.end().check()
    assert program.status == 130
    assert program.table["rolled back"] == 1
    assert reasons(postgres_dsn) == {"interrupted": 2}


def test_ctrl_c_drains_also_while_the_standard_input_is_silent(path: str) -> None:
    program = Program(path, "--input", "-", "--size", "2", "--seconds", "60", stdin=subprocess.PIPE)
    assert program.process.stdin is not None
    program.process.stdin.write(lines_of(flight(), flight(), flight()))
    program.process.stdin.flush()
    program.wait_for_rows(2)  # the third is in the open window
    program.process.send_signal(signal.SIGINT)
    assert program.process.stdout is not None
    assert program.process.wait(timeout=30) == 130  # with the standard input still open
    program.end().check()
    assert program.table["written"] == 3
    assert program.table["by the end"] == 1


def test_ctrl_c_drains_also_while_a_pipe_has_no_writer(path: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    program = Program(path, "--input", str(tmp_path / "pipe"))
    while not Path(path).exists():
        threading.Event().wait(0.01)
    threading.Event().wait(0.2)
    program.process.send_signal(signal.SIGINT)
    program.end()
    assert program.status == 130
    assert program.table.get("read", 0) == 0


def test_lines_of_ones_own_are_read_from_a_file_and_malformed_ones_rejected(
    database: str, tmp_path: Path
) -> None:
    lines = tmp_path / "events.jsonl"
    lines.write_bytes(
        lines_of(
            flight(),
            b"{not json",
            b"",
            flight(dep_time="NA"),
            b"\xff\x00\xfe",
            {**flight(), "flight": "1545", "more": [1, {}]},
            [1, 2],
            flight(carrier="A\0B"),
            flight(month=13),
        )
        + json.dumps(flight()).encode()  # without a newline
    )
    program = Program(database, "--input", str(lines)).end()
    program.check()
    assert program.status == 0
    assert program.table["read"] == 10
    assert program.table["written"] == 3
    assert query(database, "SELECT line, reason FROM dead_letters ORDER BY line") == [
        (2, "malformed line"),
        (3, "malformed line"),
        (4, "cancelled"),
        (5, "malformed line"),
        (7, "malformed line"),
        (8, "malformed line"),
        (9, "invalid record"),
    ]
    assert program.err.splitlines()[0].startswith("line 2: malformed line: ")


def test_at_most_twenty_malformed_lines_are_shown(path: str) -> None:
    program = Program(path, "--input", "-", "--size", "7", stdin=subprocess.PIPE).end(b"?\n" * 99)
    program.check()
    assert len(program.err.splitlines()) == 20
    assert program.table["malformed line"] == 99


def test_a_dead_letter_can_be_read_again(path: str, tmp_path: Path) -> None:
    first = Program(path, "--input", "-", "--fail-at", "1", stdin=subprocess.PIPE)
    first.end(lines_of(flight(), flight())).check()
    assert first.table["rolled back"] == 1
    payloads = query(path, "SELECT payload FROM dead_letters ORDER BY line")
    again = Program(str(tmp_path / "again.db"), "--input", "-", stdin=subprocess.PIPE)
    again.end("".join(f"{payload}\n" for (payload,) in payloads).encode()).check()
    assert again.table["written"] == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--database", "postgresql://127.0.0.1:1/test"], "127.0.0.1:1/test"),
        (["--database", "postgresql://me:secret@127.0.0.1:port/test"], "127.0.0.1:port/test"),
        (["--database", "mysql://127.0.0.1/test"], "mysql://127.0.0.1/test"),
        (["--database", "/no/such/folder/flights.db"], "/no/such/folder/flights.db"),
        (["--database", "."], "unable to open"),
        (["--database", __file__], "not a database"),
        (["--database", ""], "without a name"),
        (["--input", "/no/such/file.jsonl"], "/no/such/file.jsonl"),
        (["--input", "."], "directory"),
        (["--rate", "0"], "--rate"),
        (["--rate", "nan"], "--rate"),
        (["--rate", "fast"], "--rate"),
        (["--fail-at", "0"], "--fail-at"),
        (["--fail-at", "1.5"], "--fail-at"),
        (["--size", "-1"], "--size"),
        (["--seconds", "0"], "--seconds"),
        (["--limit", "many"], "--limit"),
        (["--frobnicate"], "--frobnicate"),
    ],
)
def test_what_the_user_got_wrong_is_one_line_and_status_2(
    arguments: list[str], said: str, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status: object
    try:
        status = flight_batcher.main(["--database", path, "--input", os.devnull, *arguments])
    except SystemExit as left:  # as argparse does it
        status = left.code
    assert status == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    [line] = shown.err.splitlines()
    assert said in line
    assert "secret" not in line


def test_an_unreachable_server_is_one_line_and_status_2() -> None:
    program = Program("postgresql://127.0.0.1:1/test", "--input", "-").end()
    assert (program.status, program.out) == (2, "")
    assert len(program.err.splitlines()) == 1


def test_another_program_s_table_is_not_written_to(
    database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def make() -> None:
        async with open_store(database):
            pass

    asyncio.run(make())
    query_or_run(database, "DROP TABLE flights")
    query_or_run(database, "CREATE TABLE flights (number INTEGER)")
    assert flight_batcher.main(["--database", database, "--input", os.devnull]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "batch_id" in line


def query_or_run(database: str, sql: str) -> None:
    if database.startswith("postgresql:"):
        query(database, sql)
        return
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute(sql)


def test_the_help_names_every_option_and_every_exit_status(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as left:
        flight_batcher.main(["--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    for word in ("--database", "--input", "--rate", "--fail-at", "--limit", "--size", "--seconds"):
        assert word in shown
    for word in ("exit status", "130", "postgresql://", "dead_letters", "Ctrl-C", "time_hour"):
        assert word in shown


def test_a_summary_without_a_reader_shows_no_traceback(path: str) -> None:
    program = Program(path, "--input", "-")
    assert program.process.stdout is not None
    program.process.stdout.close()
    assert program.process.stderr is not None
    assert program.process.stderr.read() == b""
    program.process.stderr.close()
    program.process.wait(timeout=60)
    assert stored(path) == (0, 0)


def test_a_terminal_gets_a_progress_bar(path: str) -> None:
    terminal, theirs = pty.openpty()
    program = Program(path, "--input", "-", stdin=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    program.end(lines_of(flight(), b"?"))
    shown = b""
    with contextlib.suppress(OSError):  # which is how a terminal ends
        while block := os.read(terminal, 4096):
            shown += block
    os.close(terminal)
    assert b"2 read, 1 written, 1 dead letters, 1 windows" in shown
    assert b"line 2: malformed line" in shown
    program.check()


# The pipeline, in this process.


def test_a_window_that_is_never_reached_cannot_fail(
    path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "events.jsonl").write_bytes(lines_of(flight()))
    arguments = ["--database", path, "--input", str(tmp_path / "events.jsonl"), "--fail-at"]
    assert flight_batcher.main([*arguments, "1"]) == 0
    assert "never reached" not in capsys.readouterr().err
    assert flight_batcher.main([*arguments, "2"]) == 0
    assert capsys.readouterr().err == "window 2 was never reached: nothing failed\n"


def test_a_window_is_written_two_seconds_after_its_first_record() -> None:
    """The clock is virtual: 100 lines a second fill no window of 500."""
    source = source_of(lines_of(flight()) * 450)
    source.rate = 100
    store = Memory()

    async def main() -> None:
        tally, said, problems = await batch_all(source, store)
        assert (said, problems) == ([], [])
        assert tally.windows == {"time": 2, "end": 1}

    run(main())
    sizes = [len(batch.flights) for batch in store.batches.values()]
    assert sum(sizes) == 450
    assert sizes[:2] == [pytest.approx(200, abs=1), pytest.approx(200, abs=1)]


def test_a_rejected_record_does_not_close_the_window() -> None:
    store = Memory()
    lines = lines_of(flight(), b"?", flight()) * 200
    tally, _, problems = asyncio.run(batch_all(source_of(lines), store))
    assert problems == []
    assert tally.windows == {"size": 1, "end": 1}
    [first, second] = store.batches.values()
    assert (len(first.flights), len(first.dead_letters)) == (333, 167)
    assert (len(second.flights), len(second.dead_letters)) == (67, 33)


def test_a_failed_write_is_undone_before_its_records_become_dead_letters() -> None:
    store = Memory()
    store.failing = lambda batch: batch.number == 2 and bool(batch.flights)
    tally, said, problems = asyncio.run(
        batch_all(source_of(lines_of(flight()) * 5), store, Options(size=2))
    )
    assert problems == []
    assert store.deleted == [f"{tally.run_id}/2"]
    assert [len(batch.flights) for batch in store.batches.values()] == [2, 0, 1]
    assert said == ["window 2: the disk is full: rolled back, 2 dead letters"]
    assert (tally.windows_rolled_back, tally.rows_rolled_back, tally.written) == (1, 2, 3)


def test_a_database_that_takes_nothing_any_more_ends_the_run() -> None:
    store = Memory()
    store.failing = lambda batch: batch.number >= 2
    tally, _, problems = asyncio.run(
        batch_all(source_of(lines_of(flight()) * 9), store, Options(size=2))
    )
    assert problems[0] == "the database failed: the disk is full"
    assert tally.written == 2
    assert tally.read == 2 + len(tally.unsettled)


def test_a_batch_that_cannot_be_deleted_is_not_counted_twice() -> None:
    store = Memory()
    store.failing = lambda batch: bool(batch.flights)
    store.failing_deletes = 3
    tally, _, problems = asyncio.run(batch_all(source_of(lines_of(flight())), store))
    assert "could not be deleted" in problems[0]
    assert len(store.deleted) == 3
    assert (tally.dead_letters, len(tally.unsettled)) == (0, 1)
    assert store.batches == {}


def test_a_delete_that_fails_is_tried_again() -> None:
    store = Memory()
    store.failing = lambda batch: bool(batch.flights)
    store.failing_deletes = 2
    tally, _, problems = asyncio.run(batch_all(source_of(lines_of(flight())), store))
    assert problems == []
    assert (tally.dead_letters, len(tally.unsettled)) == (1, 0)


@pytest.mark.parametrize("reached", ["before", "after", "set aside"])
def test_an_abandoned_write_is_deleted_whether_or_not_it_was_committed(
    reached: str, database: str
) -> None:
    """What a cancelled write has done is not known: the compensation makes it nothing."""

    async def main() -> None:
        async with open_store(database) as store:
            writing = asyncio.Event()

            class Slow:
                place, delete, count = store.place, store.delete, store.count

                async def write(self, batch: Batch) -> None:
                    if batch.number != 2:
                        await store.write(batch)
                        return
                    if reached == "set aside" and batch.flights:
                        raise StoreError("the disk is full")
                    if reached != "before":
                        await store.write(batch)
                    writing.set()
                    await asyncio.Event().wait()

            source, tally, slow = source_of(lines_of(flight()) * 9), Tally(), Slow()
            work = asyncio.create_task(
                run_batches(source, slow, tally, Options(size=2), asyncio.Event(), print)
            )
            await writing.wait()
            work.cancel()
            await asyncio.wait({work})
            assert work.cancelled()
            if reached != "set aside":
                assert await store.count(tally.run_id) == (2, 0)
            assert await settle_accounts(work, source, slow, tally) == []
            assert await store.count(tally.run_id) == (2, tally.read - 2)
            assert tally.unsettled == {}

    asyncio.run(main())
    assert reasons(database) == {"interrupted": sum(stored(database)) - 2}


def test_cancelling_a_write_at_any_point_leaves_the_store_usable(database: str) -> None:
    batch = Batch("r/1", "r", 1, "size", None, [], [("r/1", n, "x", "x", "x") for n in range(500)])

    async def main() -> None:
        async with open_store(database) as store:
            for turns in range(12):
                write = asyncio.create_task(store.write(batch))
                for _ in range(turns):
                    await asyncio.sleep(0.0002)
                write.cancel()
                await asyncio.wait({write})
                await store.delete("r/1")
                assert await store.count("r") == (0, 0)
            await store.write(batch)
            assert await store.count("r") == (0, 500)

    asyncio.run(main())


def test_a_write_that_fails_leaves_nothing_behind(database: str) -> None:
    twice = ("r/1", 1, "x", "x", "x")

    async def main() -> None:
        async with open_store(database) as store:
            with pytest.raises(StoreError, match=r"(?i)unique"):
                await store.write(Batch("r/1", "r", 1, "size", None, [], [twice, twice]))
            assert await store.count("r") == (0, 0)

    asyncio.run(main())
    assert query(database, "SELECT * FROM batches") == []


def test_a_server_that_dropped_the_connection_is_connected_to_again(postgres_dsn: str) -> None:
    batch = Batch("r/1", "r", 1, "size", None, [], [("r/1", 1, "x", "x", "x")])
    name = uuid4().hex

    async def main() -> None:
        async with open_store(f"{postgres_dsn}&application_name={name}") as store:
            others = f"FROM pg_stat_activity WHERE application_name = '{name}'"
            killer = await asyncpg.connect(SERVER)
            try:
                await killer.execute(f"SELECT pg_terminate_backend(pid) {others}")
                while await killer.fetchval(f"SELECT count(*) {others}"):
                    pass
            finally:
                await killer.close()
            with contextlib.suppress(StoreError):  # it may learn of it here only
                await store.write(batch)
            await store.delete("r/1")
            await store.write(batch)
            assert await store.count("r") == (0, 1)

    asyncio.run(main())


def test_an_input_that_breaks_off_keeps_what_was_read() -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell():
                raise OSError(5, "Input/output error")
            return super().read(size)

    source = Source(lambda: Broken(lines_of(flight()) * 3), parse_json)
    store = Memory()
    tally, _, problems = asyncio.run(batch_all(source, store))
    assert problems == ["the input failed: Input/output error"]
    assert (tally.read, tally.written) == (3, 3)


# Lines and records.


@given(st.lists(st.binary(max_size=30), max_size=20))
def test_lines_are_the_same_however_they_come_in_blocks(blocks: list[bytes]) -> None:
    async def main() -> list[tuple[int, bytes]]:
        return [line async for lines in source_of(*blocks) for line in lines]

    blocks = [block for block in blocks if block]
    lines = b"".join(blocks).split(b"\n")
    if not lines[-1]:
        lines.pop()
    assert run(main()) == list(enumerate(lines, 1))


def test_only_the_beginning_of_an_endless_line_is_kept() -> None:
    async def main() -> list[tuple[int, bytes]]:
        blocks = source_of(*[b"x" * 500_000] * 9, b"\nshort\n")
        return [line async for lines in blocks for line in lines]

    [(_, endless), (number, short)] = run(main())
    assert MAX_LINE < len(endless) < MAX_LINE + 500_100
    assert (number, short) == (2, b"short")
    assert parse_json((1, endless)).failure().detail == "longer than 1,048,576 bytes"


def test_a_source_is_read_no_further_than_requested() -> None:
    source = source_of(*[lines_of(flight())] * 50)

    async def main() -> None:
        async with contextlib.aclosing(aiter(source)) as lines:
            assert await anext(lines)
        assert source.position == len(lines_of(flight()))

    run(main())


@given(
    st.one_of(
        st.binary(),
        st.text().map(str.encode),
        st.builds(
            lines_of,
            st.dictionaries(
                st.text(max_size=9),
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            ),
        ),
    )
)
def test_no_line_is_fatal_and_its_dead_letter_can_be_stored(text: bytes) -> None:
    letter = parse_json((7, text)).failure()
    assert letter.line == 7
    assert letter.reason in {"malformed line", "invalid record"}
    assert letter.detail
    assert "\0" not in letter.payload
    assert letter.payload.encode().decode() == letter.payload
    assert parse_csv((7, text)).failure().line == 7


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dep_time": None}, "cancelled"),
        ({"dep_time": "", "arr_time": None, "air_time": "NA", "tailnum": ""}, "cancelled"),
        ({"arr_time": "NA"}, "no arrival time"),
        ({"arr_delay": "NA", "air_time": "NA"}, "diverted"),
        ({"dep_time": "soon"}, "invalid record"),
        ({"dep_time": 2401}, "invalid record"),
        ({"dep_time": None, "month": 13}, "invalid record"),
        ({"time_hour": "yesterday"}, "invalid record"),
        ({"time_hour": "2013-01-01T10:00:00"}, "invalid record"),
        ({"flight": 10**30}, "invalid record"),
        ({"carrier": ""}, "invalid record"),
        ({"carrier": "x" * 99}, "invalid record"),
        ({"origin": "\0"}, "malformed line"),
    ],
)
def test_a_record_is_rejected_for_the_first_thing_that_is_wrong_with_it(
    changes: dict[str, object], reason: str
) -> None:
    line = json.dumps(flight(**changes)).encode()
    assert parse_json((1, line)).failure().reason == reason


def test_both_formats_yield_the_same_flight() -> None:
    text = (
        b"2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z"
    )
    [from_csv, from_json] = parse_csv((3, text)), parse_json((3, json.dumps(flight()).encode()))
    assert from_csv == from_json
    assert from_csv.unwrap().time_hour.isoformat() == "2013-01-01T10:00:00+00:00"
    columns = b",".join([b"2013"] * 18)
    assert parse_csv((3, columns)).failure().reason == "malformed line"


def test_a_source_can_be_slowed_down_and_cut_short() -> None:
    source = source_of(lines_of(flight()) * 1000)
    source.rate, source.limit = 50, 100

    async def main() -> float:
        count = 0
        async for lines in source:
            count += len(lines)
        assert count == 100
        return asyncio.get_running_loop().time()

    assert run(main()) == pytest.approx(99 / 50, abs=0.05)
    assert source.ended


def test_a_slow_source_is_not_made_up_for_by_a_rush() -> None:
    """After a pause of the input at most a tenth of a second's lines come at once."""
    source = source_of(lines_of(flight()) * 1000)
    source.rate = 100

    async def main() -> None:
        times: list[float] = []
        async for [_] in source:
            times.append(asyncio.get_running_loop().time())
            if len(times) == 10:
                await asyncio.sleep(60)
        rush = sum(1 for time in times if 60 <= time - times[9] < 60.001)
        assert rush <= 12

    run(main())


def test_a_thread_that_blocks_forever_does_not_keep_the_program() -> None:
    """And one that is done when no caller waits any more does no harm."""
    free = threading.Event()

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await in_daemon_thread(free.wait)

    asyncio.run(main())
    free.set()
    assert math.isinf(flight_records.Source(io.BytesIO, parse_json).rate)
