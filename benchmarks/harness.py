"""Compare ways of doing the same work: the ratio of each to a yardstick, in the same run.

The load of a shared machine varies, so a time alone says little. Here the ways take turns
(yardstick, ours, rival, yardstick, ours, ...), each time is divided by the yardstick's time in the
same round, and the median of these ratios is printed, with its quartiles. Times are processor time
of the whole process: other programs do not count, all threads of this one do.

A file of benchmarks is a module with `main()`; ``python benchmarks/windows.py`` runs one file,
``python benchmarks`` all of them. ``--rounds 5`` is quick, ``--rounds 51`` settles a doubt.
``--json FILE`` writes the figures to a file, from which ``python benchmarks --table`` makes the
table of the README.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import math
import os
import platform
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runs import Row, Run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Figure", "Way", "compare", "section", "show", "start"]

_ROUNDS = 15


@dataclass(frozen=True, slots=True)
class Way:
    """One way of doing the work.

    Attributes:
        name: What the table calls it.
        work: Does the work for a number of items, on a running loop. It returns nothing; or, where
            the work must be prepared or is done elsewhere, the seconds that count.
        goal: The ratio to the yardstick that it must not exceed.
        share: The part of the items that it is run with. With all of them, a way that is a hundred
            times slower would only take long; costs are compared per item.
        rival_of: The name of the way of ours that does the same as this other library.
    """

    name: str
    work: Callable[[int], Awaitable[float | None]]
    goal: float = math.inf
    share: float = 1.0
    rival_of: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """The measurements of one way: its cost an item, and the ratios to the yardstick.

    Attributes:
        name: Of the way.
        seconds: Processor time an item, the median.
        ratio: To the yardstick, the median of all rounds.
        low: A quarter of the rounds were below.
        high: A quarter of the rounds were above.
    """

    name: str
    seconds: float
    ratio: float
    low: float
    high: float


def start(about: str) -> None:
    """Read the command line; print what is measured, and where it runs. Call it first."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument(
        "--rounds", type=int, default=_ROUNDS, help="turns of each way (%(default)s)"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    global _rounds, _file  # the command line is the process's
    given = parser.parse_args()
    _rounds, _file = given.rounds, given.json
    print(
        f"{about}\n{platform.python_implementation()} {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"median of {_rounds} rounds (quartiles)"
    )


_rounds = _ROUNDS
_file: Path | None = None
_title = ""
_rows: list[Row] = []


def section(title: str) -> None:
    """Print what the following figures are about."""
    global _title  # noqa: PLW0603  # as what is printed
    _title = title
    print(f"\n{title}")


def compare(title: str, items: int, yardstick: Way, *ways: Way) -> dict[str, Figure]:
    """Run all in turns, print a line for each, and return the figures by name.

    Each is run once before anything is measured. The collector is emptied before each turn and on
    during it, as it is in a program.
    """
    everyone = (yardstick, *ways)
    costs: dict[str, list[float]] = {way.name: [] for way in everyone}
    with asyncio.Runner() as runner:
        for way in everyone:
            runner.run(_cost(way, max(1, items // 10)))
        for _ in range(_rounds):
            for way in everyone:
                costs[way.name].append(runner.run(_cost(way, items)))
    figures = {way.name: _figure(way, costs[way.name], costs[yardstick.name]) for way in everyone}
    section(title)
    for way in everyone:
        figure = figures[way.name]
        _print_row(way, figure, is_yardstick=way is yardstick)
        if way is not yardstick:
            _record(
                Row(
                    _group(), title, way.name, figure.ratio,
                    yardstick=yardstick.name, low=figure.low, high=figure.high,
                    seconds=figure.seconds, goal=_finite(way.goal), rival_of=way.rival_of,
                )
            )  # fmt: skip
    return figures


def show(what: str, value: float, unit: str, goal: float = math.inf) -> None:
    """Print a figure that is not a ratio, with its goal."""
    print(f"  {what:<44} {value:8.3g} {unit:<12}{_verdict(value, goal)}")
    _record(Row(_group(), _title, what, value, unit=unit, goal=_finite(goal)))


def _group() -> str:
    """Return the name of the file that is run."""
    return Path(sys.argv[0]).stem


def _finite(goal: float) -> float | None:
    return None if goal == math.inf else goal


def _record(row: Row) -> None:
    """Write the figure, with all before it: a run that fails later has written so much."""
    _rows.append(row)
    if _file is not None:
        Run.here(_rounds, _rows).write(_file)


async def _cost(way: Way, items: int) -> float:
    given = max(1, round(items * way.share))
    gc.collect()
    begun = time.process_time()
    seconds = await way.work(given)
    if seconds is None:
        seconds = time.process_time() - begun
    return seconds / given


def _figure(way: Way, costs: list[float], yardstick: list[float]) -> Figure:
    ratios = [cost / base for cost, base in zip(costs, yardstick, strict=True)]
    low, high = ratios[0], ratios[0]
    with contextlib.suppress(statistics.StatisticsError):  # one round has no quartiles
        low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return Figure(way.name, statistics.median(costs), statistics.median(ratios), low, high)


def _print_row(way: Way, figure: Figure, *, is_yardstick: bool) -> None:
    each = _time(figure.seconds)
    if is_yardstick:
        print(f"  {way.name:<44} {1:8.2f} {'':13} {each}")
        return
    spread = f"({figure.low:.2f}-{figure.high:.2f})"
    print(
        f"  {way.name:<44} {figure.ratio:8.2f} {spread:<13} {each}"
        f"{_verdict(figure.ratio, way.goal)}"
    )


def _time(seconds: float) -> str:
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "us")):
        if seconds * factor >= 1:
            return f"{seconds * factor:6.3g} {unit:<3}"
    return f"{seconds * 1e9:6.3g} ns "


def _verdict(value: float, goal: float) -> str:
    if goal == math.inf:
        return ""
    return f" goal {goal:g}: {'held' if value <= goal else 'MISSED'}"
