"""A process that reads a log in PostgreSQL into files, until it is killed. Run by the crash tests.

An effect is a file for each message, named after the message and the key of its window.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from returns.result import Result, Success

from returns_pipeline import StepContext
from returns_pipeline.compensation import CompensationRegistry
from returns_pipeline.connectors import Source
from returns_pipeline.connectors.postgres import PostgresLog
from returns_pipeline.journal import SqliteJournal, recover
from returns_pipeline.retry import RetryPolicy

if TYPE_CHECKING:
    from returns_pipeline.connectors import Message

registry = CompensationRegistry()
place = Path()


@registry.compensation("remove")
async def remove(names: list[str]) -> None:
    """Take effects back that may not have happened."""
    for name in names:
        (place / name).unlink(missing_ok=True)


async def write(window: list[Message[int]], step: StepContext) -> Result[int, str]:
    """Write the files of a window, on record before."""
    names = [f"{message.value} {step.key.replace('/', ' ')}" for message in window]
    await step.register(remove, names)
    for name in names:
        (place / name).touch()
        await asyncio.sleep(0.002)
    return Success(len(window))


async def work(journal_file: str, dsn: str, log: str) -> None:
    """Undo what an earlier process has left, then read until SIGTERM."""
    journal = SqliteJournal(journal_file, lazy_commits=True)
    _ = await recover(journal, registry)
    soon = RetryPolicy(attempts=1000, wait=0.1)
    driver = PostgresLog(dsn, log).driver("files")
    async with Source(
        driver, decode=int, before_ack=journal.flush, reconnect=soon, max_in_flight=50
    ) as source:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, source.drain)
        _ = sys.stdout.write("ready\n")
        sys.stdout.flush()
        async with StepContext("files", journal=journal) as ctx:
            windows = source.messages().chunks_or_timeout(5, 0.1).bind_step(write, ctx)
            _ = await ctx.run(windows.run())
    await journal.close()


if __name__ == "__main__":
    place = Path(sys.argv[1])
    asyncio.run(work(*sys.argv[2:]))
