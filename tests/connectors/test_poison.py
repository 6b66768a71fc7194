"""Messages that kill their processes, for real, on brokers that do not count deliveries."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

asyncpg = pytest.importorskip("asyncpg", reason="needs the package asyncpg")
pytest.importorskip("aiokafka", reason="needs the package aiokafka")

from tansu import Topic, server, within

from returns_pipeline.connectors.postgres import PostgresLog

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["server"]

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("killed_by_poison.py")
SUPPORT = Path(__file__).parent.parent / "support"
COUNT = 200


async def supervised(file: Path, server: str, log: str, poison: Collection[int]) -> int:
    """Read a log of messages, some of which kill; return how many processes were killed."""
    words = [str(file), server, log, str(COUNT), *map(str, poison)]
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        PROGRAM,
        *words,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(SUPPORT)},
    )
    output, _ = await program.communicate()
    assert program.returncode == 0
    return int(output)


def check(file: Path, poison: Collection[int]) -> None:
    """Check that each message that kills is a dead letter, and each other one was handled."""
    lines = file.read_text().splitlines()
    dead = [line for line in lines if line.startswith("dead")]
    reason = "a message was delivered 4 times, more than 3"
    assert sorted(dead) == sorted(f"dead {number}: {reason}" for number in poison)
    handled = {line for line in lines if line.startswith("handled")}
    assert handled == {f"handled {number}" for number in {*range(COUNT)} - {*poison}}


def test_a_message_of_a_log_that_kills_is_a_dead_letter_and_its_partition_continues(
    tmp_path: Path, postgres_dsn: str
) -> None:
    async def main() -> None:
        name, poison, file = f"log_{uuid4().hex[:12]}", [33, 34, 150], tmp_path / "lines"
        log = PostgresLog(postgres_dsn, name)
        await log.create(2)
        connection = await asyncpg.connect(postgres_dsn)
        async with connection.transaction():
            for number in range(COUNT):
                await log.append(connection, str(number).encode(), key=b"%d" % (number % 10))
        killed = await supervised(file, postgres_dsn, name, poison)
        # The first death counts for all that are in flight then.
        assert 3 < killed <= 3 * len(poison)
        check(file, poison)
        left = await connection.fetchval(
            f"SELECT count(*) FROM {name} l JOIN {name}_groups g USING (partition)"
            " WHERE (l.xid, l.id) > (g.xid, g.id)"
        )
        assert left == 0
        await connection.close()

    within(main(), 120)


def test_a_message_of_a_topic_that_kills_is_a_dead_letter_and_its_partition_continues(
    tmp_path: Path, server: str
) -> None:
    async def main() -> None:
        topic = await Topic(server, 2).create()
        await topic.publish([str(number).encode() for number in range(COUNT)])
        poison, file = [73], tmp_path / "lines"
        assert await supervised(file, server, topic.name, poison) == 3
        check(file, poison)
        await topic.remove()

    within(main(), 120)
