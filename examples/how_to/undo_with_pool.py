"""Undo actions that need a pool: a function makes the registry, also for the command line."""

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from returns.result import Result, Success

from returns_pipeline import CompensationRegistry, StepContext
from returns_pipeline.journal import SqliteJournal, recover


class Pool:
    """Stands for a pool of a database, or a client with connections to close."""

    def __init__(self) -> None:
        self.db = sqlite3.connect("rows.db", isolation_level=None)
        self.db.execute("CREATE TABLE IF NOT EXISTS item (batch TEXT, value INTEGER)")

    async def execute(self, statement: str, *values: object) -> None:
        self.db.execute(statement, values)


@asynccontextmanager
async def opened_pool() -> AsyncGenerator[Pool]:
    pool = Pool()
    try:
        yield pool
    finally:
        pool.db.close()


class Undo:
    """The undo actions of the program, which share what they need."""

    def __init__(self, pool: Pool) -> None:
        self.registry = CompensationRegistry()

        @self.registry.compensation("delete-batch")
        async def delete_batch(key: str) -> None:
            await pool.execute("DELETE FROM item WHERE batch = ?", key)
            print("deleted a batch")

        self.delete_batch = delete_batch


@asynccontextmanager
async def registry() -> AsyncGenerator[CompensationRegistry]:
    """For ``--registry undo_with_pool:registry``: the pool is open while the recovery runs."""
    async with opened_pool() as pool:
        yield Undo(pool).registry


async def main() -> None:
    async with opened_pool() as pool, SqliteJournal("undo.db") as journal:
        undo = Undo(pool)

        async def persist(step: StepContext) -> Result[str, str]:
            await step.register(undo.delete_batch, step.key)
            for value in (1, 2, 3):
                await pool.execute("INSERT INTO item VALUES (?, ?)", step.key, value)
                if "--crash" in sys.argv:
                    os.kill(os.getpid(), signal.SIGKILL)
            return Success("written")

        await recover(journal, undo.registry)
        async with StepContext("shop", journal=journal) as ctx:
            print(await ctx.run(persist(ctx)))


if __name__ == "__main__":
    asyncio.run(main())
