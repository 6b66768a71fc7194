"""The rule for several consumers in docs/sagas.md loses no row, whenever one of them is killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from two_consumers import SOURCE, Sink, statements, store

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).parents[1] / "support" / "two_consumers.py"
ROWS = 300 * int(os.environ.get("RETURNS_PIPELINE_LONGER") or 1)


class Consumers:
    """Two consumers, of which one is killed and started again and again."""

    def __init__(self, server: subprocess.Popen[str], address: str, sink: Sink) -> None:
        assert server.stdin is not None
        assert server.stdout is not None
        self._ask, self._answer = server.stdin, server.stdout
        self._address = address
        self._sink = sink
        self._started = 0
        self._running: dict[str, int] = {}

    def start(self) -> None:
        self._started += 1
        name = f"consumer {self._started}"
        print(self._address, name, sep="\t", file=self._ask, flush=True)
        self._running[name] = int(self._answer.readline())

    async def replace_one(self, dice: random.Random) -> None:
        """Kill one; the source delivers what it had again, at once: before any recovery."""
        name = dice.choice(sorted(self._running))
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._running.pop(name), signal.SIGKILL)
        (other,) = self._running
        # Also of those that were killed before: the server may have had their last request then.
        released = "UPDATE message SET reader = '' WHERE reader <> $1 AND acked = 0"
        await self._sink.run((released, (other,)))
        self.start()

    def kill(self) -> None:
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


@pytest.fixture
def server() -> Iterator[subprocess.Popen[str]]:
    root = PROGRAM.parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(
        [sys.executable, PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as server:
        yield server
        assert server.stdin is not None
        server.stdin.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_no_row_is_lost_and_none_is_left_of_a_window_that_was_undone(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, server: subprocess.Popen[str]
) -> None:
    address = str(tmp_path / "sink.db")
    if kind == "postgres":
        address = request.getfixturevalue("postgres_database")

    async def main() -> None:
        sink, journal = store(address)
        await sink.run(*((text, ()) for text in [SOURCE, *statements("tables")]))
        fill = "INSERT INTO message (position, reader, delivery, acked) VALUES ($1, '', 0, 0)"
        await sink.run(*((fill, (position,)) for position in range(ROWS)))
        consumers = Consumers(server, address, sink)
        dice = random.Random(0)
        remaining = ROWS
        pause = 0.15 if kind == "sqlite" else 0.8
        try:
            consumers.start()
            consumers.start()
            while remaining:
                await asyncio.sleep(dice.uniform(0.02, pause))
                await consumers.replace_one(dice)
                before = remaining
                unacked = await sink.run(("SELECT count(*) FROM message WHERE acked = 0", ()))
                remaining = unacked[0][0]
                if remaining == before:  # slow as the machine is, some must live for long enough
                    pause *= 1.2
            # The last ones recover what is left, and end.
            while await journal.sagas(done=False):  # noqa: ASYNC110  # other processes end them
                await asyncio.sleep(0.05)
        finally:
            consumers.kill()
        rows = await sink.run(("SELECT position FROM item ORDER BY position", ()))
        assert [row[0] for row in rows] == list(range(ROWS))
        await journal.close()
        await sink.close()

    asyncio.run(asyncio.wait_for(main(), 600))  # a hang
