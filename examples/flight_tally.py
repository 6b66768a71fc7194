"""The outcome of every line: windows, their counts, and how both are shown."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from secrets import token_hex
from time import monotonic
from typing import Literal, TypeAlias

import msgspec
from returns.result import Failure, Success
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

from flight_records import Flight, Line, Parsed, Reason, Rejected, Source
from flight_stores import Batch, Departures

ClosedBy: TypeAlias = Literal["size", "time", "end"]


@dataclass(frozen=True, slots=True)
class Window:
    """Records that are written together or not at all.

    Attributes:
        number: The number of the window in the run, counted from 1.
        batch_id: The key of its rows.
        closed_by: Its size, its time, or the end of the input.
        flights: Its valid records.
        rejected: The others.
        departures: How its flights were counted, if they were, by airport and time.
    """

    number: int
    batch_id: str
    closed_by: ClosedBy
    flights: list[Flight]
    rejected: list[Rejected]
    departures: Sequence[Departures] = ()

    def __len__(self) -> int:
        return len(self.flights) + len(self.rejected)

    def written(self, run_id: str) -> Batch:
        """Return the batch as rows, each record in its table."""
        key = (self.batch_id,)
        return Batch(
            self.batch_id,
            run_id,
            self.number,
            self.closed_by,
            None,
            [key + msgspec.structs.astuple(flight) for flight in self.flights],
            [key + rejected for rejected in self.rejected],
            [key + counted for counted in self.departures],
        )

    def set_aside(self, run_id: str, reason: Reason, error: str) -> Batch:
        """Return the batch as dead letters; each flight has this reason."""
        letters = self.rejected + [
            Rejected(flight.line, reason, error, msgspec.json.encode(flight).decode())
            for flight in self.flights
        ]
        rows = [(self.batch_id, *letter) for letter in letters]
        return Batch(self.batch_id, run_id, self.number, self.closed_by, error, [], rows)


@dataclass(slots=True)
class Tally:
    """The outcome of every line: read = written + dead letters + unsettled, at any time."""

    run_id: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{token_hex(3)}")
    began: float = field(default_factory=monotonic)
    read: int = 0
    valid: int = 0
    written: int = 0
    dead_letters: int = 0
    windows_rolled_back: int = 0
    rows_rolled_back: int = 0
    rejected: Counter[Reason] = field(default_factory=Counter[Reason])
    windows: Counter[ClosedBy] = field(default_factory=Counter[ClosedBy])
    printed: int = 0  # how many invalid lines were printed
    under_way: Window | None = None
    # Of windows open or under way, by their numbers: windows are not always consecutive.
    unsettled: dict[int, Line] = field(default_factory=dict[int, Line])
    by_hour: Counter[tuple[str, int]] = field(default_factory=Counter[tuple[str, int]])

    def saw(self, line: Line) -> None:
        """Count a line that was read."""
        self.read += 1
        self.unsettled[line[0]] = line

    def open(self, items: list[Parsed], size: int, *, ended: bool) -> Window:
        """Make the next window of some records."""
        flights = [item.unwrap() for item in items if isinstance(item, Success)]
        rejected = [item.failure() for item in items if isinstance(item, Failure)]
        return self.begin(flights, rejected, full=len(items) == size, ended=ended)

    def begin(
        self,
        flights: list[Flight],
        rejected: list[Rejected],
        departures: Sequence[Departures] = (),
        *,
        full: bool,
        ended: bool,
    ) -> Window:
        """Make the next window, of these flights and these rejected lines."""
        closed_by: ClosedBy = "size" if full else "end" if ended else "time"
        self.windows[closed_by] += 1
        number = self.windows.total()
        batch_id = f"{self.run_id}/{number}"
        self.under_way = Window(number, batch_id, closed_by, flights, rejected, departures)
        return self.under_way

    def wrote(self, window: Window) -> None:
        """Count a window that was written."""
        self.written += len(window.flights)
        self.dead_letters += len(window.rejected)
        if window.departures:
            self.by_hour.update((flight.origin, flight.hour % 24) for flight in window.flights)
        self._settle(window)

    def rolled_back(self, window: Window) -> None:
        """Count a window all of whose records are dead letters now."""
        self.windows_rolled_back += 1
        self.rows_rolled_back += len(window)
        self.dead_letters += len(window)
        self._settle(window)

    def _settle(self, window: Window) -> None:
        self.valid += len(window.flights)
        self.rejected.update(letter.reason for letter in window.rejected)
        self.under_way = None
        for record in window.flights:
            del self.unsettled[record.line]
        for letter in window.rejected:
            del self.unsettled[letter.line]

    def __str__(self) -> str:
        """Return the tally in one line, for the progress bar."""
        return (
            f"{self.read:,} read, {self.written:,} written, {self.dead_letters:,} dead letters, "
            f"{self.windows.total():,} windows, {self.rate:,.0f}/s"
        )

    @property
    def rate(self) -> float:
        """Lines read in a second, so far."""
        return self.read / max(monotonic() - self.began, 1e-9)


async def show_progress(console: Console, source: Source, tally: Tally) -> None:
    """Show the progress until it is cancelled: a bar, or a line now and then."""
    if not console.is_terminal:
        while True:
            await asyncio.sleep(2.0)
            console.print(str(tally), soft_wrap=True, highlight=False)
    columns = SpinnerColumn("line"), BarColumn(), TextColumn("{task.description}")
    with Progress(*columns, console=console, auto_refresh=False) as progress:
        limited = source.limit < math.inf
        bar = progress.add_task("", total=source.limit if limited else source.size)
        try:
            while True:
                done = tally.read if limited else source.position
                progress.update(bar, completed=done, description=str(tally), refresh=True)
                await asyncio.sleep(0.1)
        finally:
            progress.update(bar, description=str(tally), refresh=True)


def summary(tally: Tally, *, plain: bool) -> Table:
    """Make the table that is printed at the end."""
    table = Table(show_header=False, pad_edge=False, box=None if plain else SIMPLE)
    table.add_column()
    table.add_column(justify="right")

    def add(name: str, count: float) -> None:
        table.add_row(name, f"{count:.0f}" if plain else f"{count:,.0f}")

    add("read", tally.read)
    add("valid", tally.valid)
    add("rejected", tally.rejected.total())
    for reason, count in tally.rejected.most_common():
        add(f"  {reason}", count)
    add("windows", tally.windows.total())
    add("  by size", tally.windows["size"])
    add("  by time", tally.windows["time"])
    add("  by the end", tally.windows["end"])
    add("written", tally.written)
    add("dead letters", tally.dead_letters)
    add("rolled back", tally.windows_rolled_back)
    add("  rows in them", tally.rows_rolled_back)
    if tally.unsettled:
        add("in no table", len(tally.unsettled))
    add("events per second", tally.rate)
    return table
