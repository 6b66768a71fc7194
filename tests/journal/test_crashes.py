"""A process is killed at every point, forward and backward; what is left is what was committed.

A point is before and after each request to the journal, each effect and each undo. In PostgreSQL,
where each costs a tenth of a second, the first and the last of each kind are taken; all of them
with ``RETURNS_PIPELINE_CRASHES=all``.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("program.py")


class Crashes:
    """Runs the program, each time in a place of its own."""

    def __init__(self, server: subprocess.Popen[str], top: Path, store: str) -> None:
        assert server.stdin is not None
        assert server.stdout is not None
        self._ask, self._answer = server.stdin, server.stdout
        self._top = top
        self._store = store
        self._numbers = itertools.count()

    def place(self) -> Path:
        made = self._top / str(next(self._numbers))
        (made / "effects").mkdir(parents=True)
        return made

    def go(self, place: Path, points: int, what: str) -> bool:
        """Return whether it was killed."""
        print(place, points, what, self._store, sep="\t", file=self._ask, flush=True)
        status = int(self._answer.readline())
        assert status in {0, -9}
        return status == -9

    def recover(self, place: Path) -> None:
        """Undo what is left; a second time, there is nothing to be undone."""
        assert not self.go(place, -1, "backward")
        undone = lines(place, "undone")
        (place / "left").unlink(missing_ok=True)
        assert not self.go(place, -1, "backward")
        assert lines(place, "undone") == undone
        assert [line for line in lines(place, "left") if not line.endswith(" done")] == []

    def points(self, what: str, *, before: str = "") -> list[int]:
        """Return the numbers of the points at which it is to be killed."""
        place = self.place()
        if before:
            assert self.go(place, -1, before)
            (place / "points").unlink()
        assert not self.go(place, -1, what)
        names = lines(place, "points")
        self.recover(place)  # all places share a database
        if self._store == "sqlite" or os.environ.get("RETURNS_PIPELINE_CRASHES") == "all":
            return list(range(1, len(names) + 1))
        firsts = [names.index(name) + 1 for name in set(names)]
        lasts = [len(names) - names[::-1].index(name) for name in set(names)]
        return sorted({*firsts, *lasts})


@pytest.fixture(scope="module")
def server() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROGRAM.parents[2],
        env={**os.environ, "PYTHONPATH": str(PROGRAM.parents[2])},
    ) as server:
        yield server
        assert server.stdin is not None
        server.stdin.close()


@pytest.fixture(params=["sqlite", "postgres"])
def crashes(
    tmp_path: Path, request: pytest.FixtureRequest, server: subprocess.Popen[str]
) -> Crashes:
    store = "sqlite"
    if request.param == "postgres":
        pytest.importorskip("asyncpg", reason="needs the package asyncpg")
        dsn = request.getfixturevalue("postgres_dsn")
        (schema,) = re.findall(r"test_\w+", dsn)
        store = f"{dsn}#{schema}"
    return Crashes(server, tmp_path, store)


def lines(place: Path, file: str) -> list[str]:
    path = place / file
    return path.read_text().splitlines() if path.exists() else []


def check_undone(place: Path, *killed: str) -> None:
    """Only one killed between the undo and the record of it comes again, with the same key."""
    undone = Counter(lines(place, "undone"))
    assert len({line.split()[0] for line in undone}) == len(undone)
    allowed = sum(where in {"after undo", "before mark.done()"} for where in killed)
    assert sum(undone.values()) - len(undone) == allowed


@pytest.mark.parametrize(
    ("crashes", "what"),
    [
        (store, what)
        for store in ("sqlite", "postgres")
        for what in ("each", "lazy", "hold", "keep", "saga")
        if (store, what) != ("postgres", "lazy")  # there no commit is
    ],
    indirect=["crashes"],
)
def test_killed_at_any_point_and_recovered(crashes: Crashes, what: str) -> None:
    points = crashes.points(what)
    assert len(points) > 12
    for point in points:
        place = crashes.place()
        assert crashes.go(place, point, what)
        killed = lines(place, "points")[-1]
        committed = lines(place, "committed")
        written = lines(place, "points").count("after effect")
        crashes.recover(place)
        effects = {path.name for path in (place / "effects").iterdir()}
        check_undone(place, killed)
        if what == "saga":
            # Its undo is made of its output: the effect comes first, and may be without a record.
            unknown = killed in {"after effect", "before record()"}
            effects -= {["0a", "0b", "1a"][written - 1]} if unknown and written else set()
        whole = {name[0] for name in effects}
        assert effects == {f"{window}{part}" for window in whole for part in "ab"}
        assert set(committed) <= whole
        assert "2" not in whole  # it failed, or never came so far
        more = len(whole) - len(committed)
        if what == "each":
            assert more == (killed == "after forget()")
        elif what == "lazy":
            # What is not known to be durable may be, from the oldest to the newest.
            assert sorted(whole) == ["0", "1", "3", "4"][: len(whole)]
        elif what == "hold":
            assert not whole
        elif what == "keep":
            durable = {"after forget()", "before flush()", "after flush()"}
            assert len(whole) == (2 if killed in durable or committed else 0)


def test_a_recovery_killed_at_any_point_and_recovered(crashes: Crashes) -> None:
    what = "backward with what is known"
    points = crashes.points(what, before="leave")
    assert len(points) > 12
    kinds = set[str]()
    for point in points:
        place = crashes.place()
        assert crashes.go(place, -1, "leave")
        assert len(lines(place, "undone")) == 0
        assert crashes.go(place, point, what)
        killed = lines(place, "points")[-1]
        kinds.add(killed)
        crashes.recover(place)
        assert list((place / "effects").iterdir()) == []
        check_undone(place, killed)
        # The newest first; in each the last first.
        order = list(dict.fromkeys(line.split()[0] for line in lines(place, "undone")))
        assert [name for name in order if name[0] == "2"] == ["2b", "2a"]
        assert order.index("2a") < order.index("1b") < order.index("1a")
        assert order.index("0b") < order.index("0a")
    requests = ("claim()", "mark.begin()", "mark.done()", "postpone()", "defer()", "release()")
    both = {f"{side} {request}" for side in ("before", "after") for request in requests}
    assert kinds == both | {"before undo", "after undo"}
