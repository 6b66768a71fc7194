"""Three processes write, four undo what is left, and all are killed and stopped at random.

Five seconds for each journal, or as many as ``RETURNS_PIPELINE_SOAK`` says; 20 where `CI` is set. A
failure tells the seed; ``RETURNS_PIPELINE_SOAK_SEED`` takes it.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from returns_pipeline.journal import PostgresJournal, SqliteJournal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from returns_pipeline.journal import StoredSaga
    from returns_pipeline.testing import DurableJournal

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("soaking.py")
SECONDS = float(os.environ.get("RETURNS_PIPELINE_SOAK") or (20 if os.environ.get("CI") else 5))
SEED = int(os.environ.get("RETURNS_PIPELINE_SOAK_SEED") or random.SystemRandom().getrandbits(32))


class Soak:
    """Processes at work, and what befalls them."""

    def __init__(self, server: subprocess.Popen[str], place: Path, store: str) -> None:
        assert server.stdin is not None
        assert server.stdout is not None
        self._ask, self._answer = server.stdin, server.stdout
        self._place = place
        self._store = store
        self.dice = random.Random(SEED)
        self.running: dict[str, int] = {}
        self.kills = 0
        self.stopped: dict[int, float] = {}  # since when

    def start(self, who: str) -> None:
        """Start a process of this name, "work 0" for instance."""
        what = who.partition(" ")[0]
        self.kills += 1
        name = f"{who.replace(' ', '')}.{self.kills}"
        seed = str(self.dice.getrandbits(32))
        self.running[who] = self._do(what, self._store, str(self._place), seed, name)

    def kill(self, who: str) -> None:
        process = self.running.pop(who)
        os.kill(process, signal.SIGKILL)
        self.stopped.pop(process, None)
        assert self._do("wait", str(process)) == -9

    def wait(self, who: str) -> int:
        """Wait for its end; return the status."""
        return self._do("wait", str(self.running.pop(who)))

    def _do(self, *words: str) -> int:
        print(*words, sep="\t", file=self._ask, flush=True)
        return int(self._answer.readline())

    def disturb(self) -> None:
        """Make something happen to one of them."""
        if any(time.monotonic() - since > 2.0 for since in self.stopped.values()):
            self.wake()  # it may hold what the others wait for
        who = self.dice.choice(sorted(self.running))
        process = self.running[who]
        what = self.dice.random()
        if what < 0.6:
            self.kill(who)
            self.start(who)
        elif process in self.stopped or what < 0.7:
            self.wake()
        else:
            os.kill(process, signal.SIGSTOP)
            self.stopped[process] = time.monotonic()

    def wake(self) -> None:
        for process in self.stopped:
            os.kill(process, signal.SIGCONT)
        self.stopped.clear()


@pytest.fixture
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


def soak(soak: Soak, place: Path, restart: Callable[[], None], *, lease: float = 0.0) -> None:
    """Run and disturb them for a while, restart the store in the middle, and end."""
    with closing(sqlite3.connect(place / "sink.db")) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(_schema())
    all_of_them = [f"work {n}" for n in range(3)] + [f"recover {n}" for n in range(4)]
    try:
        for each in all_of_them:
            soak.start(each)
        begun = time.monotonic()
        restarted = False
        while (gone := time.monotonic() - begun) < SECONDS:
            time.sleep(soak.dice.uniform(0.02, 0.2))
            soak.disturb()
            if not restarted and gone > SECONDS / 2:
                restart()
                restarted = True
        soak.wake()
        (place / "stop").touch()
        assert [soak.wait(each) for each in all_of_them[:3]] == [0, 0, 0]
        time.sleep(lease)  # until the last that was killed is known to be dead
        (place / "last").touch()
        assert [soak.wait(each) for each in all_of_them[3:]] == [0, 0, 0, 0]
    finally:
        for each in list(soak.running):
            soak.kill(each)


def say(line: str) -> None:
    """Write what is shown with a failure."""
    _ = sys.stdout.write(f"{line}\n")


def _schema() -> str:
    text = PROGRAM.read_text()
    return text.partition('SCHEMA = """')[2].partition('"""')[0]


def column(place: Path, query: str) -> list[str]:
    with closing(sqlite3.connect(place / "sink.db")) as db:
        return [row[0] for row in db.execute(query)]


def check(place: Path, sagas: list[StoredSaga], *, kills: int, until: float = 0.0) -> None:
    """See that what is left is what was committed, and all else was undone once."""
    overlaps = f"SELECT what FROM violation WHERE asked NOT BETWEEN 1 AND {until}"
    assert column(place, overlaps) == []
    effects = set(column(place, "SELECT name FROM effect"))
    written = set(column(place, "SELECT name FROM written"))
    undone = column(place, "SELECT name FROM undone")  # the table refuses a second time
    windows = {name[:-1] for name in effects}
    assert effects == {f"{window}{part}" for window in windows for part in "ab"}
    assert effects | set(undone) == written
    assert not effects & set(undone)
    # In the journal, all has ended; what was committed is not there.
    states = [action.state for saga in sagas for action in saga.actions]
    assert set(states) <= {"done"}
    listed = {action.arguments for saga in sagas for action in saga.actions}
    assert not {f'{{"name": "{name}"}}' for name in effects} & listed
    assert {f'{{"name": "{name}"}}' for name in undone} <= listed
    # An effect that a process saw committed is kept; the process may be killed before it sees that.
    committed = set(column(place, "SELECT name FROM committed"))
    assert committed <= windows
    untold = 3 * (kills + len(column(place, "SELECT what FROM journal_error")))
    assert len(windows - committed) <= untold
    assert len(windows) > 10
    by = column(place, "SELECT by FROM undone")
    assert {"work", "recover"} == set(by)
    say(f"{len(windows)} windows, {kills} processes")
    say(f"undone by owners {by.count('work')}, by recoverers {by.count('recover')}")


async def listed(journal: DurableJournal) -> list[StoredSaga]:
    found = await journal.sagas()
    await journal.close()
    return found


def test_soak_sqlite(tmp_path: Path, server: subprocess.Popen[str]) -> None:
    say(f"RETURNS_PIPELINE_SOAK_SEED={SEED}")
    case = Soak(server, tmp_path, "sqlite")
    soak(case, tmp_path, lambda: None)
    # Nothing was taken from a living process: none ever reported that.
    assert column(tmp_path, "SELECT what FROM journal_error") == []
    sagas = asyncio.run(listed(SqliteJournal(tmp_path / "journal.db")))
    check(tmp_path, sagas, kills=case.kills)


def test_soak_postgres(
    tmp_path: Path, server: subprocess.Popen[str], request: pytest.FixtureRequest
) -> None:
    say(f"RETURNS_PIPELINE_SOAK_SEED={SEED}")
    pytest.importorskip("asyncpg", reason="needs the package asyncpg")
    cluster = request.getfixturevalue("postgres_cluster")
    back = 0.0

    def restart() -> None:
        nonlocal back
        cluster.stop("immediate")
        cluster.start()
        back = time.time()

    case = Soak(server, tmp_path, cluster.dsn)
    soak(case, tmp_path, restart)
    sagas = asyncio.run(listed(PostgresJournal(cluster.dsn)))
    # The restart ends all sessions: a process that was allowed to begin an undo before it can be
    # fenced in the middle of it, or before, if it was stopped. One that asked later cannot be.
    check(tmp_path, sagas, kills=case.kills, until=back)


def test_soak_lease(
    tmp_path: Path, server: subprocess.Popen[str], request: pytest.FixtureRequest
) -> None:
    """No session shows who lives, as behind a transaction pooler: only the leases do."""
    say(f"RETURNS_PIPELINE_SOAK_SEED={SEED}")
    pytest.importorskip("asyncpg", reason="needs the package asyncpg")
    address = request.getfixturevalue("postgres_database")
    case = Soak(server, tmp_path, f"lease {address}")
    soak(case, tmp_path, lambda: None, lease=8.0)
    # No process was stopped for as long as a lease: nothing was taken from a living one.
    assert column(tmp_path, "SELECT what FROM journal_error") == []
    sagas = asyncio.run(listed(PostgresJournal(address, liveness="lease")))
    check(tmp_path, sagas, kills=case.kills)
