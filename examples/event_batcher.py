"""The event batcher of docs/tutorial.md: windows of 500 events or 2 seconds, whole or not at all.

``--crash-at N`` kills the process in the middle of its N-th window, as ``kill -9`` would.
"""

import argparse
import asyncio
import json
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Never

from returns.future import future_safe
from returns.result import Failure, Result, Success
from returns.unsafe import unsafe_perform_io

from returns_pipeline import (
    Compensation,
    CompensationRegistry,
    Counts,
    ResultStream,
    RetryPolicy,
    StepContext,
)
from returns_pipeline.journal import SqliteJournal, recover


@dataclass(frozen=True)
class Event:
    """An event, as it is written."""

    number: int
    cents: int


@dataclass(frozen=True)
class BadEvent:
    """A line that is not an event."""

    line: str
    why: str


def validate(line: str) -> Result[Event, BadEvent]:
    """Read a line."""
    try:
        fields = json.loads(line)
        return Success(Event(int(fields["number"]), int(fields["cents"])))
    except (KeyError, TypeError, ValueError) as error:
        return Failure(BadEvent(line, repr(error)))


class Store:
    """A file for each window, and a row that lists it: two places, which must agree."""

    def __init__(self, place: Path, crash_at: int | None = None) -> None:
        self.place = place
        self.crash_at = crash_at
        self.files = 0
        place.mkdir(exist_ok=True)
        with closing(self._index()) as db, db:
            db.execute("CREATE TABLE IF NOT EXISTS batch (key TEXT PRIMARY KEY, events INTEGER)")

    def _index(self) -> sqlite3.Connection:
        return sqlite3.connect(self.place / "index.db")

    async def write_file(self, key: str, window: list[Event]) -> None:
        """Write the events of a window."""
        await asyncio.sleep(0.001)  # stands for a network
        (self.place / f"{key}.batch").write_text("\n".join(map(str, window)))
        self.files += 1
        if self.files == self.crash_at:
            os.kill(os.getpid(), signal.SIGKILL)

    async def write_row(self, key: str, events: int) -> None:
        """List a window."""
        await asyncio.sleep(0.001)
        with closing(self._index()) as db, db:
            db.execute("INSERT INTO batch VALUES (?, ?)", (key, events))

    async def delete(self, key: str) -> None:
        """Delete whatever there is of a window, which may be nothing."""
        await asyncio.sleep(0.001)
        (self.place / f"{key}.batch").unlink(missing_ok=True)
        with closing(self._index()) as db, db:
            db.execute("DELETE FROM batch WHERE key = ?", (key,))

    def kept(self) -> tuple[set[str], dict[str, int]]:
        """Return the windows that have a file, and those that are listed."""
        with closing(self._index()) as db:
            listed = dict(db.execute("SELECT key, events FROM batch").fetchall())
        return {path.stem for path in self.place.glob("*.batch")}, listed


def batches(
    lines: ResultStream[str, Never],
    store: Store,
    delete: Callable[[str], Awaitable[object]],
    ctx: StepContext,
) -> ResultStream[int, BadEvent | OSError]:
    """Validate, group, and write: each window completely or not at all."""

    @future_safe(exceptions=(OSError,))
    async def persist(window: list[Event], step: StepContext) -> int:
        await step.register(delete, step.key)  # on record before the effect
        await store.write_file(step.key, window)
        await store.write_row(step.key, len(window))
        return len(window)

    return lines.bind(validate).chunks_or_timeout(500, 2.0).bind_step(persist, ctx)


def undo_actions(store: Store) -> tuple[CompensationRegistry, Compensation[[str]]]:
    """Return the registry of the undo actions of a store, and the one there is."""
    registry = CompensationRegistry()

    @registry.compensation("delete-batch", retry=RetryPolicy(attempts=3))
    async def delete_batch(key: str) -> None:
        await store.delete(key)

    return registry, delete_batch


async def work(lines: ResultStream[str, Never], store: Store) -> Counts:
    """Undo what a dead process has left, then write windows until the end of the lines."""
    registry, delete = undo_actions(store)
    async with SqliteJournal(store.place / "journal.db") as journal:
        undone = sum(len(report.done) for report in await recover(journal, registry))
        if undone:
            print("undone:", undone, "window of a process that died")
        async with StepContext("batcher", journal=journal) as ctx:
            written = batches(lines, store, delete, ctx)
            told = written.tap(lambda n: print("written:", n)).tap_failure(print)
            return unsafe_perform_io(await told.run_all())


async def generated(count: int) -> AsyncIterator[str]:
    """Emit lines, of which each thousandth is not an event."""
    for number in range(1, count + 1):
        yield json.dumps({"number": number, "cents": 250}) if number % 1000 else f"oops {number}"


async def main(count: int, place: Path, crash_at: int | None) -> None:
    """Write windows until there are no more lines, or SIGTERM or Ctrl-C."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    lines = ResultStream.of(generated(count)).drain_on(stop)
    print(await work(lines, Store(place, crash_at)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1200, help="lines to read (1200)")
    parser.add_argument("--place", type=Path, default=Path("events"), help="directory (events)")
    parser.add_argument("--crash-at", type=int, metavar="N", help="die in the N-th window")
    options = parser.parse_args()
    asyncio.run(main(options.count, options.place, options.crash_at))
