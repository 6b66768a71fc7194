"""Processes that write windows into a sink, and others that undo what these leave. Run by the soak.

The sink is an SQLite file of its own. It keeps the tombstone rule: an effect that comes after its
undo is refused. It notes what must never be seen as a violation.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sqlite3
import sys
import time
import traceback
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

from returns.result import Failure, Result, Success

from returns_pipeline._engine.future_results import to_result
from returns_pipeline.compensation import CompensationRegistry, current_key
from returns_pipeline.context import StepContext
from returns_pipeline.errors import JournalError
from returns_pipeline.journal import PostgresJournal, SqliteJournal, recover
from returns_pipeline.result_stream import ResultStream
from returns_pipeline.retry import RetryPolicy
from returns_pipeline.testing import FaultyJournal, timed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from returns_pipeline.result_stream import FailedItems
    from returns_pipeline.testing import DurableJournal

SCHEMA = """
CREATE TABLE effect (name TEXT PRIMARY KEY, key TEXT NOT NULL);
CREATE TABLE written (name TEXT PRIMARY KEY);
CREATE TABLE tombstone (name TEXT PRIMARY KEY);
CREATE TABLE undone (name TEXT PRIMARY KEY, by TEXT NOT NULL);
CREATE TABLE running (name TEXT PRIMARY KEY, pid INTEGER NOT NULL, asked REAL NOT NULL);
CREATE TABLE committed (name TEXT PRIMARY KEY);
CREATE TABLE journal_error (what TEXT);
CREATE TABLE violation (what TEXT, asked REAL NOT NULL DEFAULT 0);
"""

LEASE = 6.0  # seconds: longer than a process is ever stopped
registry = CompensationRegistry()
place = Path()
me = ""  # what this process does: "work" or "recover"
dice = random.Random()
asked: ContextVar[float] = ContextVar("asked")  # when the journal was asked whether it may begin


class Planned(Exception):
    """A step may raise, too."""


class Refused(Exception):
    """The sink knows already that this is undone."""


@contextmanager
def sink() -> Iterator[sqlite3.Connection]:
    """Return the sink, in a transaction."""
    db = sqlite3.connect(place / "sink.db", timeout=30.0, isolation_level=None)
    try:
        db.execute("PRAGMA synchronous = OFF")
        db.execute("BEGIN IMMEDIATE")
        yield db
        db.execute("COMMIT")
    finally:
        db.close()


def note(table: str, what: str) -> None:
    with sink() as db:
        db.execute(f"INSERT INTO {table} VALUES (?)", (what,))


def note_time(place: str) -> None:
    if place == "before mark.begin()":
        _ = asked.set(time.time())


def lives(pid: int) -> bool:
    """Whether this process was not killed: one that was loses its locks before it is gone."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.02)
    return True


@registry.compensation("take-back", retry=RetryPolicy(attempts=20, wait=0.005))
async def take_back(name: str) -> None:
    """Take an effect back. One attempt in ten fails, before or after its work."""
    with sink() as db:
        row = db.execute("SELECT pid, asked FROM running WHERE name = ?", (name,)).fetchone()
        if row is not None and row[0] != os.getpid() and lives(row[0]):
            db.execute("INSERT INTO violation VALUES (?, ?)", (f"two undo {name}", row[1]))
        db.execute("REPLACE INTO running VALUES (?, ?, ?)", (name, os.getpid(), asked.get()))
    try:
        if dice.random() < 0.05:
            raise OSError("not now")
        await asyncio.sleep(dice.random() * 0.005)
        with sink() as db:
            db.execute("INSERT OR IGNORE INTO tombstone VALUES (?)", (name,))
            gone = db.execute("DELETE FROM effect WHERE name = ? RETURNING key", (name,)).fetchall()
            for (key,) in gone:
                db.execute("INSERT INTO undone VALUES (?, ?)", (name, me))
                if key != current_key():
                    what = f"{name} was written with {key}, undone with {current_key()}"
                    db.execute("INSERT INTO violation (what) VALUES (?)", (what,))
            late = db.execute("SELECT 1 FROM committed WHERE name = ?", (name[:-1],)).fetchone()
            if late:
                db.execute("INSERT INTO violation (what) VALUES (?)", (f"committed {name} undone",))
        if dice.random() < 0.05:
            raise OSError("no answer")
    finally:
        with sink() as db:
            db.execute("DELETE FROM running WHERE name = ? AND pid = ?", (name, os.getpid()))


async def write(window: str, step: StepContext) -> Result[str, str]:
    """Write two parts, each on record before."""
    for part in "ab":
        name = f"{window}{part}"
        await step.register(take_back, name)
        with sink() as db:
            if db.execute("SELECT 1 FROM tombstone WHERE name = ?", (name,)).fetchone():
                raise Refused(name)
            db.execute("INSERT INTO effect VALUES (?, ?)", (name, step.key))
            db.execute("INSERT INTO written VALUES (?)", (name,))
        await asyncio.sleep(dice.random() * 0.003)
    return Failure("no good") if dice.random() < 0.15 else Success(window)


async def work(journal: DurableJournal, who: str, *, lazy: bool) -> None:
    """Write windows, three to a run, until the signal to stop."""
    number = 0
    while not (place / "stop").exists():
        names = [f"{who}-{number + n}-" for n in range(3)]
        number += 3
        try:
            async with StepContext(who, journal=journal) as ctx:
                if dice.random() < 0.4:
                    await all_together(ctx, names)
                else:
                    await each_by_itself(ctx, names, lazy=lazy)
        except Planned:
            pass
        except (JournalError, Refused) as error:
            note("journal_error", repr(error))


async def each_by_itself(ctx: StepContext, names: list[str], *, lazy: bool) -> None:
    """Write windows; those that fail are undone alone."""
    windows = steps(ctx, names, hold=False)
    if not lazy:
        windows = windows.tap(lambda name: note("committed", name))
    result = await to_result(ctx.run(windows.collect_all()))
    for name in list_of(result) if lazy else ():
        note("committed", name)  # only now it is certain


def list_of(result: Result[list[str], FailedItems[str, str]]) -> Sequence[str]:
    return result.unwrap() if isinstance(result, Success) else result.failure().successes


async def all_together(ctx: StepContext, names: list[str]) -> None:
    """Write windows; if one fails, or something after them, all are undone."""

    async def all_or_none() -> Result[list[str], str]:
        result = await to_result(steps(ctx, names, hold=True).collect())
        if dice.random() < 0.1:
            raise Planned
        return result

    if isinstance(await to_result(ctx.run(all_or_none())), Success):
        for name in names:
            note("committed", name)


def steps(ctx: StepContext, names: list[str], *, hold: bool) -> ResultStream[str, str]:
    together = dice.choice([1, 3])
    return ResultStream.of(timed(*names)).bind_step(write, ctx, hold=hold, concurrency=together)


async def undo_all(journal: DurableJournal) -> None:
    """Recover again and again, until the signal to stop, and nothing is left."""
    while True:
        last = (place / "last").exists()
        try:
            for report in await recover(journal, registry):
                if report.error is not None:
                    note("journal_error", repr(report.error))
                for entry in (*report.stuck, *report.deferred):
                    with sink() as db:
                        db.execute("INSERT INTO violation (what) VALUES (?)", (repr(entry),))
        except JournalError as error:
            note("journal_error", repr(error))
        if last:
            return
        await asyncio.sleep(0.02)


async def main(what: str, store: str, who: str) -> None:
    journal: DurableJournal
    lazy = store == "sqlite" and dice.random() < 0.5
    if store == "sqlite":
        journal = SqliteJournal(place / "journal.db", lazy_commits=lazy, patience=30.0)
    elif store.startswith("lease "):
        address = store.removeprefix("lease ")
        journal = PostgresJournal(address, patience=20.0, liveness="lease", lease=LEASE)
    else:
        journal = PostgresJournal(store, patience=20.0)
    journal = FaultyJournal(journal, note_time)
    await (work(journal, who, lazy=lazy) if what == "work" else undo_all(journal))
    await journal.close()


def answer(number: int) -> None:
    _ = sys.stdout.write(f"{number}\n")
    _ = sys.stdout.flush()


def serve() -> None:
    """Fork a process for each "what store place seed who", and say its number; or wait for one."""
    global place, me  # the process's own
    for line in sys.stdin:
        what, *words = line.rstrip("\n").split("\t")
        if what == "wait":
            _, status = os.waitpid(int(words[0]), 0)
            answer(os.waitstatus_to_exitcode(status))
            continue
        process = os.fork()
        if process == 0:
            store, where, seed, who = words
            place, me = Path(where), what
            dice.seed(seed)
            try:
                asyncio.run(main(what, store, who))
            except BaseException:
                with sink() as db:
                    db.execute("INSERT INTO violation (what) VALUES (?)", (traceback.format_exc(),))
                os._exit(1)
            os._exit(0)
        answer(process)


if __name__ == "__main__":
    with contextlib.suppress(ImportError):
        import asyncpg  # noqa: F401  # before it forks, not in each child
    serve()
