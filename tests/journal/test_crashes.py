"""A process is killed at every point, forward and backward; what is left is what was committed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROGRAM = Path(__file__).with_name("program.py")


@pytest.fixture(scope="module")
def go() -> Iterator[Callable[[Path, int, str], bool]]:
    """Run the program: say whether it was killed."""
    with subprocess.Popen(
        [sys.executable, PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROGRAM.parents[2],
        env={**os.environ, "PYTHONPATH": str(PROGRAM.parents[2])},
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        ask, answer = server.stdin, server.stdout

        def go(place: Path, points: int, what: str) -> bool:
            print(place, points, what, file=ask, flush=True)
            status = int(answer.readline())
            assert status in {0, -9}
            return status == -9

        yield go
        ask.close()


def lines(place: Path, file: str) -> list[str]:
    path = place / file
    return path.read_text().splitlines() if path.exists() else []


def check(place: Path, *, whole: bool) -> None:
    """Each window is there whole or not at all; what was told to be committed is there."""
    effects = {path.name for path in (place / "effects").iterdir()}
    windows = {int(name[:-1]) for name in effects}
    assert effects == {f"{window}{part}" for window in windows for part in "ab"}
    assert {int(line) for line in lines(place, "committed")} <= windows
    assert not windows & {2}  # it failed, or never came so far
    if whole:  # all windows together stand or fall: this run fails
        assert windows == set()


@pytest.mark.parametrize("what", ["each", "hold"])
def test_killed_at_any_point_and_recovered(
    tmp_path: Path, what: str, go: Callable[[Path, int, str], bool]
) -> None:
    points = 1
    killed = True
    while killed:
        place = tmp_path / str(points)
        (place / "effects").mkdir(parents=True)
        killed = go(place, points, what)
        assert not go(place, -1, "backward")
        check(place, whole=what == "hold")
        undone = Counter(lines(place, "undone"))
        # Only one killed between the undo and the record of it comes again, with the same key.
        assert sum(undone.values()) - len(undone) <= 1
        assert not go(place, -1, "backward")
        assert Counter(lines(place, "undone")) == undone  # and never once more
        points += 1
    assert points > 20


def test_a_recovery_killed_at_any_point_and_recovered(
    tmp_path: Path, go: Callable[[Path, int, str], bool]
) -> None:
    points = 1
    killed = True
    while killed:
        place = tmp_path / str(points)
        (place / "effects").mkdir(parents=True)
        assert go(place, 38, "hold")  # four effects or so
        killed = go(place, points, "backward")
        assert not go(place, -1, "backward")
        check(place, whole=True)
        undone = Counter(lines(place, "undone"))
        assert sum(undone.values()) - len(undone) <= 1
        points += 1
    assert points > 10
