"""Real processes that are killed or stopped while they read: no message is lost, no effect stays.

Each worker has a journal on SQLite, whose commits are lazy, and reads a log in PostgreSQL.
"""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

asyncpg = pytest.importorskip("asyncpg", reason="needs the package asyncpg")

from returns_pipeline.connectors import Source
from returns_pipeline.connectors.postgres import PostgresLog
from returns_pipeline.journal import SqliteJournal

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("killed_worker.py")
LOG = "killed"
COUNT = 400


class Files:
    """The log, the files that workers write, and the workers."""

    def __init__(self, place: Path, dsn: str) -> None:
        self.files = place / "files"
        self.files.mkdir()
        self.place = place
        self.dsn = dsn
        self.workers: list[subprocess.Popen[str]] = []

    async def fill(self, count: int) -> None:
        log = PostgresLog(self.dsn, LOG)
        await log.create(2)
        connection = await asyncpg.connect(self.dsn)
        async with connection.transaction():
            for number in range(count):
                await log.append(connection, str(number).encode())
        await connection.close()

    def start(self, journal: str) -> subprocess.Popen[str]:
        worker = subprocess.Popen(
            [sys.executable, PROGRAM, self.files, self.place / journal, self.dsn, LOG],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.workers.append(worker)
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        return worker

    def written(self) -> list[int]:
        """Return the messages that have files; twice if two windows have written one."""
        return [int(file.name.partition(" ")[0]) for file in self.files.iterdir()]

    def wait_for(self, done: Callable[[], bool]) -> None:
        for _ in range(1200):
            if done():
                return
            time.sleep(0.05)
        pytest.fail(f"only {len(set(self.written()))} messages were written")

    def wait_for_progress(self) -> None:
        before = set(self.written())
        self.wait_for(lambda: not before.issuperset(self.written()))

    def stop(self, worker: subprocess.Popen[str]) -> None:
        """Ask a worker to end, and check that nothing is left for another one."""
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0

    async def left(self) -> list[object]:
        """Return what is not acknowledged: messages that come within two seconds."""
        found: list[object] = []
        async with Source(PostgresLog(self.dsn, LOG).driver("files")) as source:
            asyncio.get_running_loop().call_later(2, source.drain)
            async for received in source:
                found.append(received)
        return found

    async def open_actions(self, journal: str) -> list[object]:
        """Return the undo actions that are still to be carried out."""
        stored = SqliteJournal(self.place / journal)
        sagas = await stored.sagas()
        await stored.close()
        return [action for saga in sagas for action in saga.actions if action.state != "done"]

    def end(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.kill()
                _ = worker.wait()
            assert worker.stdout is not None
            worker.stdout.close()


def test_a_worker_that_is_killed_five_times_loses_no_message(
    tmp_path: Path, postgres_dsn: str
) -> None:
    files = Files(tmp_path, postgres_dsn)
    dice = random.Random(5)
    try:
        asyncio.run(files.fill(COUNT))
        for _ in range(5):
            worker = files.start("journal.db")
            files.wait_for_progress()
            time.sleep(dice.random() / 4)
            worker.kill()
            assert worker.wait() == -signal.SIGKILL
        assert 0 < len(set(files.written())) < COUNT
        last = files.start("journal.db")
        files.wait_for(lambda: len(set(files.written())) == COUNT)
        files.stop(last)
        assert set(files.written()) == set(range(COUNT))
        assert asyncio.run(files.left()) == []
        # What was written twice was in flight, and handled, when a worker was killed.
        assert len(files.written()) <= COUNT + 5 * 50
        assert asyncio.run(files.open_actions("journal.db")) == []
    finally:
        files.end()


def test_a_worker_that_wakes_up_after_its_partitions_were_taken_does_no_harm(
    tmp_path: Path, postgres_dsn: str
) -> None:
    files = Files(tmp_path, postgres_dsn)
    try:
        asyncio.run(files.fill(COUNT))
        zombie = files.start("zombie.db")
        files.wait_for(lambda: len(files.written()) > 20)
        zombie.send_signal(signal.SIGSTOP)
        asyncio.run(_end_sessions(postgres_dsn))
        other = files.start("other.db")
        files.wait_for(lambda: len(set(files.written())) > COUNT // 2)
        zombie.send_signal(signal.SIGCONT)
        files.wait_for(lambda: len(set(files.written())) == COUNT)
        for worker in (zombie, other):
            files.stop(worker)
        assert set(files.written()) == set(range(COUNT))
        assert asyncio.run(files.left()) == []
    finally:
        files.end()


async def _end_sessions(dsn: str) -> None:
    """End the sessions of the log's readers, as the server does with those of a dead machine."""
    connection = await asyncpg.connect(dsn)
    ended = await connection.fetch(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1",
        f"postgres {LOG}/files",
    )
    assert ended
    await connection.close()
