"""Compare this checkout with another revision, and fail if anything costs a tenth more.

For the developer, before a commit that touches a hot path: it needs minutes, and a machine that is
not too busy. Both revisions run the same work in processes of their own, which take turns (there,
here, here, there, ...). A figure is processor time an item, the best of a few runs in one process;
each is divided by that of the other revision in the same round, and the median of these ratios
counts. A ratio above the limit, with three quarters of the rounds above 1, is a regression.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["LIMIT", "ROUNDS", "compare", "is_regression", "main", "report"]

LIMIT: Final = 1.10
ROUNDS: Final = 7

_HERE = Path(__file__).parent
_CHECKOUT = _HERE.parent

# What one process has measured: seconds an item by the name of the work.
_Costs = dict[str, float]


def compare(
    here: Path, there: Path, rounds: int, measure: Callable[[Path], _Costs]
) -> dict[str, list[float]]:
    """Measure two checkouts in turns; return the ratios of this one to the other, by round.

    Work that one of the two cannot do, because it is older, is left out.
    """
    ratios: dict[str, list[float]] = {}
    for number in range(rounds):
        # Which one is first changes each time: a machine that slows down favours neither.
        order = (there, here) if number % 2 == 0 else (here, there)
        found = {root: measure(root) for root in order}
        for name in found[here].keys() & found[there].keys():
            ratios.setdefault(name, []).append(found[here][name] / found[there][name])
    return ratios


def is_regression(ratios: Sequence[float], limit: float = LIMIT) -> bool:
    """Return whether it costs more than ``limit`` times as much, beyond the noise."""
    worse = sum(ratio > 1.0 for ratio in ratios)
    return statistics.median(ratios) > limit and worse >= 0.75 * len(ratios)


def report(ratios: Mapping[str, Sequence[float]]) -> str:
    """Return a line for each work: the median, its quartiles, and a word if it is a regression."""
    lines: list[str] = []
    for name, found in sorted(ratios.items()):
        low, high = found[0], found[0]
        with contextlib.suppress(statistics.StatisticsError):  # one round has no quartiles
            low, _, high = statistics.quantiles(found, n=4, method="inclusive")
        verdict = "  REGRESSION" if is_regression(found) else ""
        median = statistics.median(found)
        lines.append(f"  {name:<44} {median:5.2f} ({low:.2f}-{high:.2f}){verdict}")
    return "\n".join(lines)


def main(against: str, names: Sequence[str], rounds: int) -> int:
    """Compare with a revision of git, or a directory that contains the package."""
    with _checked_out(against) as there:
        print(f"the cost here, as a ratio to {against}, median of {rounds} rounds (quartiles)")
        ratios = compare(_CHECKOUT, there, rounds, lambda root: _measured(root, names))
    if not ratios:
        print("nothing to compare: no work has that name")
        return 2
    print(report(ratios))
    return int(any(map(is_regression, ratios.values())))


@contextlib.contextmanager
def _checked_out(against: str) -> Iterator[Path]:
    """Make a worktree of a revision, for a while."""
    if Path(against, "returns_pipeline").is_dir():
        yield Path(against).resolve()
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "checkout")
        git = ("git", "-C", str(_CHECKOUT), "worktree")
        _ = subprocess.run([*git, "add", "--quiet", "--detach", str(root), against], check=True)
        try:
            yield root
        finally:
            _ = subprocess.run([*git, "remove", "--force", str(root)], check=True)


def _measured(root: Path, names: Sequence[str]) -> _Costs:
    """Measure a checkout in a process of its own."""
    command = [sys.executable, "-P", str(_HERE / "hot_paths.py"), *names]
    settings = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=settings)
    answer = json.loads(done.stdout)
    if Path(answer["package"]) != root / "returns_pipeline":
        raise RuntimeError(f"{answer['package']} was measured, which is not in {root}")
    costs: _Costs = answer["costs"]
    return costs
