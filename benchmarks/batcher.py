"""The main job of `examples/flight_batcher.py` against hand-written code on the same driver."""

from __future__ import annotations

import asyncio
import csv
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import asyncpg
import msgspec

from harness import Way, compare, start

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

from flight_batcher import Options, run_batches
from flight_records import CSV_COLUMNS, Flight, Parsed, departures, parse_csv
from flight_stores import Batch, Row, Store, StoreError, open_store
from flight_tally import Tally

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SERVER = "postgresql://127.0.0.1:5432/test"


async def ours(lines: int, store: Store) -> None:
    """Run the example's pipeline."""
    source = departures()
    source.limit = lines
    done = await run_batches(source, store, Tally(), Options(), asyncio.Event(), print)
    done.unwrap()


async def by_hand(lines: int, store: Store) -> None:  # noqa: C901  # it is what is compared
    """Do the same with `asyncio` alone: the example's source, records and store, and a loop.

    A task reads, so that a window is closed, and the reading stopped, even while the source is
    silent.
    """
    source, tally = departures(), Tally()
    source.limit = lines
    loop = asyncio.get_running_loop()
    items: list[Parsed] = []
    due = asyncio.Event()  # the open window is to be written
    room = asyncio.Event()

    async def read() -> None:
        try:
            timer: asyncio.TimerHandle | None = None
            async for lines in source:
                for line in lines:
                    tally.saw(line)
                    items.append(source.parse(line))
                    if len(items) == 1:
                        timer = loop.call_later(2.0, due.set)
                    elif len(items) == 500:
                        if timer is not None:
                            timer.cancel()
                        due.set()
                        room.clear()
                        await room.wait()
        finally:
            due.set()

    async def write() -> None:
        window = tally.open(items, 500, ended=source.ended)
        items.clear()
        due.clear()
        room.set()
        try:
            await store.write(window.written(tally.run_id))
        except StoreError as error:
            await store.delete(window.batch_id)
            await store.write(window.set_aside(tally.run_id, "write failed", str(error)))
            tally.rolled_back(window)
        else:
            tally.wrote(window)

    reader = asyncio.create_task(read())  # to stop it is to cancel it
    while not reader.done():
        await due.wait()
        if items:
            await write()
        elif source.ended:
            await reader
    while items:
        await write()


async def least(lines: int, store: Store) -> None:
    """Fill the same tables with as little code as possible.

    No time limit, no stopping, no counts, no undo; the file is read in the loop's own thread.
    """
    run = Tally().run_id
    number = 0
    key = ""
    flights: list[Row] = []
    letters: list[Row] = []

    async def flush() -> None:
        await store.write(Batch(key, run, number, "size", None, flights, letters))
        flights.clear()
        letters.clear()

    with departures().open() as file:
        next(file)
        for at, text in enumerate(islice(file, lines), 2):
            if not flights and not letters:
                number += 1
                key = f"{run}/{number}"
            fields: dict[str, object] = dict(
                zip(CSV_COLUMNS, next(csv.reader((text.decode(),))), strict=True)
            )
            fields["line"] = at
            try:
                flight = msgspec.convert(fields, Flight, strict=False)
                flights.append((key, *msgspec.structs.astuple(flight)))
            except msgspec.ValidationError:
                letters.append((key, *parse_csv((at, text)).failure()))
            if len(flights) + len(letters) == 500:
                await flush()
    if flights or letters:
        await flush()


def into_sqlite(
    way: Callable[[int, Store], Awaitable[None]],
) -> Callable[[int], Awaitable[float]]:
    """Use a new file for each turn; only the time of the way itself counts."""

    async def work(lines: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            async with open_store(f"{folder}/flights.db") as store:
                begun = time.process_time()
                await way(lines, store)
                return time.process_time() - begun

    return work


def into_postgres(
    way: Callable[[int, Store], Awaitable[None]],
) -> Callable[[int], Awaitable[float]]:
    """Use a new schema for each turn. The server's work is not in this process's time."""

    async def work(lines: int) -> float:
        schema = f"batcher_{uuid4().hex[:12]}"
        admin = await asyncpg.connect(SERVER)
        try:
            await admin.execute(f"CREATE SCHEMA {schema}")
            async with open_store(f"{SERVER}?search_path={schema}") as store:
                begun = time.process_time()
                await way(lines, store)
                return time.process_time() - begun
        finally:
            await admin.execute(f"DROP SCHEMA {schema} CASCADE")
            await admin.close()

    return work


def main() -> None:
    """Compare, with each database."""
    start("Departures in windows of 500 records or 2 seconds, a line of the file each")
    for name, into in (("SQLite", into_sqlite), ("PostgreSQL", into_postgres)):
        compare(
            name,
            20_000,
            Way("by hand", into(by_hand)),
            Way("flight_batcher", into(ours), goal=1.0),
            Way("the least that fills the same tables", into(least)),
        )


if __name__ == "__main__":
    main()
