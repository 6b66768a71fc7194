"""The figures of a run of the benchmarks, as a file of JSON: one run for each Python."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["Row", "Run", "merged"]


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: a ratio to a yardstick, or a number with a unit.

    Attributes:
        file: The benchmark that it is from.
        title: What was measured.
        name: How: one way of doing it.
        value: The ratio, or the number.
        yardstick: What a ratio is to; empty for a number.
        low: A quarter of the rounds were below.
        high: A quarter of the rounds were above.
        seconds: Processor time an item.
        unit: Of a number.
        goal: What the value must not exceed, if there is a goal.
        rival_of: The name of the row of ours, under the same title, that does the same.
    """

    file: str
    title: str
    name: str
    value: float
    yardstick: str = ""
    low: float = 0.0
    high: float = 0.0
    seconds: float = 0.0
    unit: str = ""
    goal: float | None = None
    rival_of: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """The figures of one Python on one machine.

    Attributes:
        python: Its version, with the name of the implementation.
        machine: The system, the processor, the number of cores.
        date: The day, in UTC.
        rounds: Turns of each way; the least of several files.
        load: The load average of the last minute, when it was highest.
        rows: The figures.
    """

    python: str
    machine: str
    date: str
    rounds: int
    load: float
    rows: list[Row] = field(default_factory=list[Row])

    @classmethod
    def here(cls, rounds: int, rows: list[Row]) -> Run:
        """Describe this process and this moment."""
        return cls(
            f"{platform.python_implementation()} {platform.python_version()}",
            f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            time.strftime("%Y-%m-%d", time.gmtime()),
            rounds,
            os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0,
            rows,
        )

    def write(self, path: Path) -> None:
        """Write the file."""
        text = json.dumps(dataclasses.asdict(self), indent=1)
        path.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Run:
        """Read the file."""
        stored = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**stored, "rows": [Row(**row) for row in stored["rows"]]})


def merged(runs: Iterable[Run]) -> Run:
    """Join the runs of several files by one Python."""
    first, *others = runs
    rows = [row for run in (first, *others) for row in run.rows]
    load = max(run.load for run in (first, *others))
    rounds = min(run.rounds for run in (first, *others))
    return dataclasses.replace(first, rounds=rounds, load=load, rows=rows)
