"""One of several consumers of a source, which is killed at any moment. Run by its test.

The source and the sink are tables of one database. The statements of the sink are those of
docs/sagas.md. An effect takes two transactions, so that it can be left half-written.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import sqlite3
import sys
from pathlib import Path
from typing import Any, Protocol

from returns.result import Failure, Result, Success

from returns_pipeline import to_result
from returns_pipeline.compensation import CompensationRegistry, current_key
from returns_pipeline.context import StepContext
from returns_pipeline.journal import PostgresJournal, SqliteJournal, recover
from returns_pipeline.result_stream import ResultStream
from returns_pipeline.testing import timed

PAGE = (Path(__file__).parents[2] / "docs" / "sagas.md").read_text(encoding="utf-8")
SOURCE = """
CREATE TABLE message (
    position BIGINT PRIMARY KEY,
    reader TEXT NOT NULL,
    delivery INTEGER NOT NULL,
    acked INTEGER NOT NULL
)
"""


def statements(title: str) -> list[str]:
    """Return the statements below a title in the page."""
    found = re.search(
        rf"^-- {title} of several consumers.*\n((?:(?!-- |```).*\n)*)", PAGE, re.MULTILINE
    )
    assert found is not None
    return [part.strip() for part in found[1].split(";") if part.strip()]


class Sink(Protocol):
    """Runs statements in transactions."""

    async def run(self, *batch: tuple[str, tuple[Any, ...]]) -> list[Any]:
        """Run statements in one transaction; return the rows of the last."""
        ...

    async def close(self) -> None: ...


class InSqlite:
    def __init__(self, path: str) -> None:
        self._path = path

    async def run(self, *batch: tuple[str, tuple[Any, ...]]) -> list[Any]:
        db = sqlite3.connect(self._path, timeout=30.0, isolation_level=None)
        try:
            db.execute("PRAGMA synchronous = OFF")
            db.execute("BEGIN IMMEDIATE")
            rows: list[Any] = []
            for statement, values in batch:
                rows = db.execute(re.sub(r"\$(\d)", r"?\1", statement), values).fetchall()
            db.execute("COMMIT")
        finally:
            db.close()
        return rows

    async def close(self) -> None:
        pass


class InPostgres:
    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: Any = None

    async def run(self, *batch: tuple[str, tuple[Any, ...]]) -> list[Any]:
        import asyncpg

        if self._connection is None:
            self._connection = await asyncpg.connect(self._dsn)
        rows: list[Any] = []
        async with self._connection.transaction():
            for statement, values in batch:
                rows = await self._connection.fetch(statement, *values)
        return [tuple(row) for row in rows]

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()


def store(address: str) -> tuple[Sink, SqliteJournal | PostgresJournal]:
    """Return the sink, and a journal beside it."""
    if "://" in address:
        return InPostgres(address), PostgresJournal(address, patience=30.0)
    journal = SqliteJournal(f"{address}.journal", patience=30.0)
    return InSqlite(address), journal


async def consume(address: str, me: str) -> None:
    """Read windows, write them, acknowledge them, until all is acknowledged."""
    dice = random.Random(me)
    sink, journal = store(address)
    registry = CompensationRegistry()
    (effect,), (undo,) = statements("effect"), statements("undo")

    @registry.compensation("delete-window")
    async def delete_window(key: str) -> None:
        assert key == current_key()
        await sink.run((undo, (key,)))

    async def write(window: list[tuple[int, int]], step: StepContext) -> Result[list[int], str]:
        await step.register(delete_window, step.key)
        rows = [(effect, (position, step.key, count, "x")) for position, count in sorted(window)]
        half = dice.randint(0, len(rows))
        for part in (rows[:half], rows[half:]):
            if part:
                await sink.run(*part)
            await asyncio.sleep(dice.random() * 0.005)
        return Failure("no") if dice.random() < 0.1 else Success([row[0] for row in window])

    lock = " FOR UPDATE SKIP LOCKED" if "://" in address else ""
    fetch = (
        "UPDATE message SET reader = $1, delivery = delivery + 1 WHERE position IN ("
        "SELECT position FROM message WHERE acked = 0 AND reader = '' "
        f"ORDER BY position LIMIT $2{lock}) RETURNING position, delivery"
    )
    async with journal:
        while True:
            if dice.random() < 0.3:  # not always first: what was left half-written is delivered
                await recover(journal, registry)
            found = await sink.run((fetch, (me, dice.randint(1, 9))))
            window = [(int(position), int(delivery)) for position, delivery in found]
            if not window:
                left = await sink.run(("SELECT count(*) FROM message WHERE acked = 0", ()))
                if not left[0][0]:
                    await recover(journal, registry)
                    await sink.close()
                    return
                await asyncio.sleep(0.01)
                continue
            ctx = StepContext(me, journal=journal)
            stream = ResultStream.of(timed(window)).bind_step(write, ctx)
            result = await to_result(ctx.run(stream.collect()))
            await asyncio.sleep(dice.random() * 0.003)
            what = "acked = 1" if isinstance(result, Success) else "reader = ''"
            await sink.run(
                *[(f"UPDATE message SET {what} WHERE position = $1", (row[0],)) for row in window]
            )


if __name__ == "__main__":
    with contextlib.suppress(ImportError):
        import asyncpg  # noqa: F401  # before it forks, not in each child
    for line in sys.stdin:  # one process is forked for each line: imports take longer than it lives
        address, name = line.rstrip("\n").split("\t")
        process = os.fork()
        if process == 0:
            asyncio.run(consume(address, name))
            os._exit(0)
        _ = sys.stdout.write(f"{process}\n")
        _ = sys.stdout.flush()
        while True:  # those that have ended, or were killed
            try:
                ended, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not ended:
                break
