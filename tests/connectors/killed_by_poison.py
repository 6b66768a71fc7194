"""Processes that read a log or a topic, one after the other: some messages kill them at once.

Each is a fork of this one, so that none has to import anything. Run by the tests of poison.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from returns.result import Result, Success
from tansu import FAST

from returns_pipeline.connectors import DeadLetter, Driver, Message, Source
from returns_pipeline.connectors.kafka import KafkaTopic
from returns_pipeline.connectors.postgres import PostgresLog
from returns_pipeline.retry import RetryPolicy

if TYPE_CHECKING:
    from returns_pipeline.errors import TooManyDeliveries

    Letter = DeadLetter[TooManyDeliveries]

SOON = RetryPolicy(attempts=1000, wait=0.1)
MOST = 3


class Reader:
    """What one process does.

    Args:
        file: What becomes of each message is a line of it, which is appended at once.
        count: How many messages there are.
        poison: Those that kill.
    """

    def __init__(self, file: Path, count: int, poison: set[int]) -> None:
        self.file, self.count, self.poison = file, count, poison
        file.touch()

    def record(self, what: str) -> None:
        with self.file.open("a") as file:
            file.write(f"{what}\n")

    def is_done(self) -> bool:
        return len(set(self.file.read_text().splitlines())) >= self.count

    async def handle(self, window: list[Message[bytes]]) -> Result[int, Letter]:
        for message in window:
            if int(message.value) in self.poison:
                os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.sleep(0.001)
        for message in window:
            self.record(f"handled {int(message.value)}")
        return Success(len(window))

    def bury(self, letter: Letter) -> None:
        value = letter.message.value
        assert isinstance(value, bytes)
        self.record(f"dead {int(value)}: {letter.error}")

    async def read(self, driver: Driver) -> None:
        async with Source(driver, max_deliveries=MOST, max_in_flight=40, reconnect=SOON) as source:

            async def stop() -> None:
                while not self.is_done():
                    await asyncio.sleep(0.05)
                source.drain()

            stopping = asyncio.create_task(stop())
            letters = source.messages().tap_failure(self.bury)
            _ = await letters.chunks_or_timeout(20, 0.1).bind_async(self.handle).run_all()
            await stopping


def supervise(reader: Reader, server: str, log: str) -> int:
    """Start a process until one ends by itself; return how many were killed."""
    killed = 0
    while True:
        process = os.fork()
        if not process:
            is_kafka = "://" not in server
            made = KafkaTopic(server, log, **FAST) if is_kafka else PostgresLog(server, log)
            asyncio.run(asyncio.wait_for(reader.read(made.driver("readers")), 30))
            os._exit(0)
        _, status = os.waitpid(process, 0)
        if not os.WIFSIGNALED(status):
            assert status == 0
            return killed
        killed += 1
        assert killed < 20


if __name__ == "__main__":
    place, server, log, count, *poison = sys.argv[1:]
    _ = sys.stdout.write(
        str(supervise(Reader(Path(place), int(count), {*map(int, poison)}), server, log))
    )
