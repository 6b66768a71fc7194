"""The table of the README, made from runs: what, yardstick, goal, today, best rival."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runs import Row, Run

__all__ = ["BEGIN", "END", "insert", "table"]

BEGIN = "<!-- made by `python benchmarks --table`: do not edit -->"
END = "<!-- end of what is made -->"


def table(runs: Sequence[Run]) -> str:
    """Return a table of all figures that have a goal, with a column for each run."""
    pythons = " | ".join(run.python for run in runs)
    lines = [
        f"| what | yardstick | goal | {pythons} | best rival |",
        "|---" * (4 + len(runs)) + "|",
    ]
    for row in _with_goals(runs):
        found = [_same(run, row) for run in runs]
        cells = " | ".join("not measured" if each is None else _value(each) for each in found)
        goal = f"{row.goal:g} {row.unit}".strip()
        what = f"{row.title}: `{row.name}`".replace("|", r"\|")
        lines.append(f"| {what} | {row.yardstick} | {goal} | {cells} | {_best_rival(runs, row)} |")
    lines.append("")
    lines.extend(
        f"{run.python}: {run.date}, {run.machine}, median of at least {run.rounds} rounds, "
        f"load up to {run.load:.1f}."
        for run in runs
    )
    return "\n".join(lines)


def insert(page: str, made: str) -> str:
    """Return a page with what was made between its two marks.

    Raises:
        ValueError: The page has not each mark once, in this order.
    """
    before, begin, rest = page.partition(BEGIN)
    old, end, after = rest.partition(END)
    if not begin or not end or BEGIN in old + after or END in after:
        raise ValueError(f"the page needs {BEGIN} and then {END}, once each")
    return f"{before}{BEGIN}\n\n{made}\n\n{END}{after}"


def _with_goals(runs: Sequence[Run]) -> list[Row]:
    found: dict[tuple[str, str, str], Row] = {}
    for run in runs:
        for row in run.rows:
            if row.goal is not None:
                _ = found.setdefault((row.file, row.title, row.name), row)
    return list(found.values())


def _same(run: Run, row: Row) -> Row | None:
    for other in run.rows:
        if (other.file, other.title, other.name) == (row.file, row.title, row.name):
            return other
    return None


def _value(row: Row) -> str:
    if row.yardstick:
        text = f"{row.value:.2f} ({_time(row.seconds)})"
    else:
        text = f"{row.value:.3g} {row.unit}".strip()
    missed = row.value > (math.inf if row.goal is None else row.goal)
    return f"{text}, **missed**" if missed else text


def _time(seconds: float) -> str:
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "us")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def _best_rival(runs: Sequence[Run], row: Row) -> str:
    """Name the rival with the least ratio, of the first run that has measured one."""
    for run in runs:
        rivals = [
            other
            for other in run.rows
            if (other.file, other.title, other.rival_of) == (row.file, row.title, row.name)
        ]
        if rivals:
            best = min(rivals, key=lambda other: other.value)
            return f"{best.name.strip()}: {best.value:.3g}"
    return ""
