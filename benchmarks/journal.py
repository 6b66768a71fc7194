"""What a durable log of undo actions costs, against hand-written code with one transaction each.

Time here is wall-clock time, because the work waits for the disk. The load of a shared machine's
disk varies, so only ratios within a round are meaningful. `--postgres DSN` adds the same
for `PostgresJournal`; `--directory` chooses the disk.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import multiprocessing
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from uuid import uuid4

from returns.result import Result, Success

from harness import Way, compare, section, show, start
from returns_pipeline import CompensationScope, ResultStream, StepContext
from returns_pipeline.compensation import CompensationRegistry
from returns_pipeline.journal import PostgresJournal, SqliteJournal, recover

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from multiprocessing.queues import SimpleQueue
    from multiprocessing.synchronize import Event

    from returns_pipeline.compensation import Journal

registry = CompensationRegistry()


@registry.compensation("delete-batch")
async def delete_batch(batch_id: str) -> None:
    """Undo an effect that never happened."""


class Disk(NamedTuple):
    """A directory for files of one run each."""

    place: Path

    def file(self) -> Path:
        """Return a new one."""
        return self.place / uuid4().hex


# By hand: a table, and a transaction for each line.


def open_by_hand(path: Path) -> sqlite3.Connection:
    """Open a file as durable as the journal's."""
    db = sqlite3.connect(path, isolation_level=None)
    _ = db.execute("PRAGMA journal_mode = WAL")
    _ = db.execute("PRAGMA synchronous = FULL")
    _ = db.execute("CREATE TABLE intent (id TEXT PRIMARY KEY, name TEXT, arguments TEXT)")
    return db


def insert_by_hand(db: sqlite3.Connection, batch_id: str) -> None:
    """Insert a line."""
    _ = db.execute("INSERT INTO intent VALUES (?, 'delete-batch', ?)", (batch_id, batch_id))


class Registers:
    """A number of registrations, by a number of scopes at a time."""

    def __init__(self, disk: Disk, scopes: int) -> None:
        self._disk = disk
        self._scopes = scopes

    async def by_hand(self, items: int) -> float:
        """One transaction each, one after the other: SQLite has one writer at a time."""
        with closing(open_by_hand(self._disk.file())) as db:
            begun = time.perf_counter()
            for _ in range(items):
                _ = db.execute("BEGIN IMMEDIATE")
                insert_by_hand(db, uuid4().hex)
                _ = db.execute("COMMIT")
            return time.perf_counter() - begun

    async def sqlite(self, items: int) -> float:
        """By a journal in a file."""
        async with SqliteJournal(self._disk.file()) as journal:
            return await self.journal(journal, items)

    async def journal(self, journal: Journal, items: int) -> float:
        """By any journal."""
        scopes = [CompensationScope("job", journal=journal) for _ in range(self._scopes)]
        each = max(1, items // self._scopes)

        async def register(scope: CompensationScope) -> None:
            for _ in range(each):
                await scope.register(delete_batch, uuid4().hex)

        begun = time.perf_counter()
        _ = await asyncio.gather(*map(register, scopes))
        seconds = (time.perf_counter() - begun) * items / (each * self._scopes)
        for scope in scopes:
            await scope.commit()
        return seconds


class Windows:
    """The full cycle of one pipeline: register, effect, commit, window by window."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    async def two_flushes(self, items: int) -> float:
        """By hand: a transaction for the intent, and one for the commit."""
        with closing(open_by_hand(self._disk.file())) as db:
            begun = time.perf_counter()
            for _ in range(items):
                batch_id = uuid4().hex
                _ = db.execute("BEGIN IMMEDIATE")
                insert_by_hand(db, batch_id)
                _ = db.execute("COMMIT")
                _ = db.execute("BEGIN IMMEDIATE")
                _ = db.execute("DELETE FROM intent WHERE id = ?", (batch_id,))
                _ = db.execute("COMMIT")
            return time.perf_counter() - begun

    async def one_flush(self, items: int) -> float:
        """By hand: the commit in the transaction of the next intent."""
        with closing(open_by_hand(self._disk.file())) as db:
            begun = time.perf_counter()
            before = ""
            for _ in range(items):
                batch_id = uuid4().hex
                _ = db.execute("BEGIN IMMEDIATE")
                _ = db.execute("DELETE FROM intent WHERE id = ?", (before,))
                insert_by_hand(db, batch_id)
                _ = db.execute("COMMIT")
                before = batch_id
            return time.perf_counter() - begun

    async def eager(self, items: int) -> float:
        """By a journal whose commits are durable at once."""
        async with SqliteJournal(self._disk.file()) as journal:
            return await self.journal(journal, items)

    async def lazy(self, items: int) -> float:
        """By a journal whose commits are written with the next intent."""
        async with SqliteJournal(self._disk.file(), lazy_commits=True) as journal:
            return await self.journal(journal, items)

    async def unjournaled(self, items: int) -> float:
        """The same stream in memory."""
        return await self.journal(None, items)

    async def journal(self, journal: Journal | None, items: int) -> float:
        """By any journal, or none."""
        ctx = StepContext("job", journal=journal)
        begun = time.perf_counter()
        _ = await ctx.run(ResultStream.of(numbers(items)).bind_step(write, ctx).run())
        return time.perf_counter() - begun


async def numbers(items: int) -> AsyncIterator[int]:
    """Yield all numbers without ever suspending."""
    for item in range(items):
        yield item


async def write(window: int, step: StepContext) -> Result[int, str]:
    """Register an undo, and have no effect."""
    await step.register(delete_batch, str(window))
    return Success(window)


class Recovered(NamedTuple):
    """What a recovery cost: seconds of the wall, of the processor, and the longest wait beside."""

    wall: float
    cpu: float
    longest: float


Opens: TypeAlias = "Callable[[], SqliteJournal | PostgresJournal]"


async def recovery(opens: Opens, sagas: int, *, concurrency: int = 1) -> Recovered:
    """Return what it costs to undo what a dead process left.

    Another process registers and commits meanwhile, every hundredth of a second.
    """
    spawn = multiprocessing.get_context("spawn")
    ready, ended, waits = spawn.Event(), spawn.Event(), spawn.SimpleQueue()
    beside = spawn.Process(target=write_beside, args=(opens, ready, ended, waits))
    beside.start()
    _ = ready.wait()
    async with opens() as journal:
        begun, cpu = time.perf_counter(), time.process_time()
        reports = await recover(journal, registry, concurrency=concurrency)
        wall, cpu = time.perf_counter() - begun, time.process_time() - cpu
    ended.set()
    longest = waits.get()
    beside.join()
    assert len(reports) >= sagas
    return Recovered(wall, cpu, longest)


def write_beside(opens: Opens, ready: Event, ended: Event, waits: SimpleQueue[float]) -> None:
    """Write until the event is set, in a process of its own; then send the longest wait."""

    async def main() -> float:
        longest = 0.0
        async with opens() as journal:
            ready.set()
            while not ended.is_set():
                begun = time.perf_counter()
                async with CompensationScope("beside", journal=journal) as scope:
                    await scope.register(delete_batch, "x")
                longest = max(longest, time.perf_counter() - begun)
                await asyncio.sleep(0.01)
        return longest

    waits.put(asyncio.run(main()))


def show_recovery(what: str, found: Recovered) -> None:
    """Print what a recovery cost."""
    show(what, found.cpu, "s of CPU")
    show("and on the wall", found.wall, "s")
    show("the longest that another process waited to register and commit", found.longest, "s")


def orphaned(disk: Disk, sagas: int, *, done: int = 0) -> Opens:
    """Return what opens a file with some orphaned sagas, among others that are done."""
    path = disk.file()

    async def make() -> None:
        async with SqliteJournal(path):
            pass

    asyncio.run(make())
    fill(path, sagas, done)
    return functools.partial(SqliteJournal, path)


def fill(path: Path, orphans: int, done: int) -> None:
    """Put sagas without an owner into a journal, with one action each; the first ones are done."""
    now, states = time.time(), ["done"] * done + ["pending"] * orphans
    with closing(sqlite3.connect(path)) as db:
        _ = db.executemany(
            "INSERT INTO saga (id, name, began, owner, epoch) VALUES (?, 'job', ?, '', 2)",
            ((f"{number:032x}", now) for number in range(len(states))),
        )
        _ = db.executemany(
            "INSERT INTO action "
            "(id, saga, position, path, key, name, version, arguments, state, ended) "
            "VALUES (?, ?, '0', 'job', 'k', 'delete-batch', 1, '{\"batch_id\": \"x\"}', ?, ?)",
            (
                (f"a{number:032x}", f"{number:032x}", state, now if state == "done" else None)
                for number, state in enumerate(states)
            ),
        )
        db.commit()


async def postgres(dsn: str, disk: Disk) -> None:
    """Print the figures of `PostgresJournal`, in the same minute."""
    section("PostgreSQL")
    async with PostgresJournal(dsn) as journal:
        for scopes in SCOPES:
            seconds = await Registers(disk, scopes).journal(journal, 20 * scopes)
            show(f"registers, {scopes} scopes", 20 * scopes / seconds, "a second")
        seconds = await Windows(disk).journal(journal, 200)
        show("windows, one pipeline", 200 / seconds, "a second")
    journal = PostgresJournal(dsn)
    orphans = [CompensationScope(str(number), journal=journal) for number in range(10_000)]
    _ = await asyncio.gather(*(scope.register(delete_batch, scope.name) for scope in orphans))
    await journal.close()  # which leaves them to other processes, as if this one had died
    for scope in orphans:
        scope._records.clear()  # so no scope warns of them
    found = await recovery(functools.partial(PostgresJournal, dsn), 10_000, concurrency=32)
    show_recovery("10,000 orphaned sagas of one action, 32 at a time, the client", found)


SCOPES = (1, 8, 32, 128)


def arguments() -> argparse.Namespace:
    """Parse this module's options, and leave the others on the command line for the harness."""
    parser = argparse.ArgumentParser(add_help=False)
    _ = parser.add_argument("--postgres", default="")
    _ = parser.add_argument("--directory", default=None)
    given, sys.argv[1:] = parser.parse_known_args()
    return given


def main() -> None:
    """Print all figures."""
    given = arguments()
    start("journals")
    with tempfile.TemporaryDirectory(dir=given.directory) as name:
        disk = Disk(Path(name))
        for scopes in SCOPES:
            registers = Registers(disk, scopes)
            goal = 0.1 if scopes == 32 else float("inf")
            _ = compare(
                f"durable registers, {scopes} scopes at a time, each",
                max(100, 20 * scopes),
                Way("by hand: a transaction each", registers.by_hand, share=100 / (20 * scopes)),
                Way("SqliteJournal", registers.sqlite, goal=goal),
            )
        windows = Windows(disk)
        _ = compare(
            "register, effect and commit, one pipeline, a window",
            200,
            Way("by hand: two flushes", windows.two_flushes),
            Way("by hand: one flush", windows.one_flush),
            Way("bind_step, SqliteJournal", windows.eager),
            Way("bind_step, SqliteJournal(lazy_commits=True)", windows.lazy),
            Way("bind_step, no journal", windows.unjournaled),
        )
        section("recovery")
        few = [asyncio.run(recovery(orphaned(disk, 1000), 1000)) for _ in range(3)]
        show("1,000 orphaned sagas, one at a time", min(each.wall for each in few), "s")
        for done in 0, 1_000_000:
            opens = orphaned(disk, 10_000, done=done)
            found = asyncio.run(recovery(opens, 10_000, concurrency=16))
            show_recovery(f"10,000, 16 at a time, beside {done:,} that are done", found)
        if given.postgres:
            asyncio.run(postgres(given.postgres, disk))


if __name__ == "__main__":
    main()
