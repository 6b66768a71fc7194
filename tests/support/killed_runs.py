"""Readers that are killed or stopped at points: each message must have its effect exactly once.

The positions are stored with the effects: in a transaction of the sink, or in a commit record of a
journal, whose undo actions take back what has no such record. What is read is a log in PostgreSQL,
or a topic of Kafka.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import aiokafka
import asyncpg
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from returns_pipeline.connectors import Outgoing
from returns_pipeline.connectors.postgres import PostgresLog, TransactionalSink

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable

PROGRAM = Path(__file__).parent.parent / "connectors" / "killed_exactly.py"


class Runs:
    """Runs of the program, each on a log or topic of its own, and in a directory of its own.

    Args:
        top: Where the directories are.
        dsn: The address of PostgreSQL.
        mode: See the program.
        kafka: The address of Kafka, for that mode.
        apart: Whether there are two partitions, and a pipeline for each; else there is one.
        count: How many messages there are.
        pace: Seconds that each effect takes.
    """

    def __init__(
        self,
        top: Path,
        dsn: str,
        mode: str,
        kafka: str = "",
        *,
        apart: bool = False,
        count: int = 4,
        pace: float = 0.0,
    ) -> None:
        self.top, self.dsn, self.mode, self.kafka = top, dsn, mode, kafka
        self.apart, self.partitions = apart, 2 if apart else 1
        self.count, self.pace, self.all = count, pace, [*range(count)]
        # Schemas of journals, and names of sessions, are the whole database's: another test's, too.
        self.tag = uuid4().hex[:8]
        self.numbers = itertools.count()
        self.answers: dict[str, asyncio.Queue[list[str]]] = {}

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[Runs, None]:
        async with asyncpg.create_pool(self.dsn, min_size=0) as pool:
            await pool.execute("CREATE TABLE effect (log text, number int)")

            async def write(*_: object) -> Any: ...

            await TransactionalSink(pool, "sink", write=write).create()
        program = await asyncio.create_subprocess_exec(
            sys.executable, PROGRAM, stdin=PIPE, stdout=PIPE, start_new_session=True
        )
        assert program.stdin is not None
        assert program.stdout is not None
        self.commands, lines = program.stdin, program.stdout

        async def listen() -> None:
            async for line in lines:
                name, *words = line.decode().split()
                self.answers[name].put_nowait(words)

        listening = asyncio.ensure_future(listen())
        try:
            yield self
        finally:
            os.killpg(program.pid, signal.SIGKILL)  # also what is stopped, after a failure
            await program.wait()
            await listening
            await self._drop_schemas()

    async def _drop_schemas(self) -> None:
        """Drop what the journals have made."""
        connection = await asyncpg.connect(self.dsn)
        found = await connection.fetch(
            "SELECT nspname FROM pg_namespace WHERE starts_with(nspname, $1)",
            f"journal_log_{self.mode}_{self.tag}_",
        )
        for (schema,) in found:
            await connection.execute(f"DROP SCHEMA {schema} CASCADE")
        await connection.close()

    async def new(self) -> str:
        """Return the name of a new log, or topic, with its messages."""
        log = f"log_{self.mode}_{self.tag}_{next(self.numbers)}"
        (self.top / log / "effects").mkdir(parents=True)
        (self.top / log / "points").touch()
        values = [str(number).encode() for number in self.all]
        if self.kafka:
            admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka)
            await admin.start()
            await admin.create_topics([NewTopic(log, self.partitions, 1)])
            await admin.close()
            async with aiokafka.AIOKafkaProducer(bootstrap_servers=self.kafka) as producer:
                for number, value in enumerate(values):
                    partition = number % self.partitions
                    await producer.send_and_wait(log, value, partition=partition)
            return log
        made = PostgresLog(self.dsn, log)
        await made.create(self.partitions)
        connection = await asyncpg.connect(self.dsn)
        for number, value in enumerate(values):
            message = Outgoing(value, partition=number % self.partitions)
            await made.append_all(connection, [message])
        await connection.close()
        return log

    async def begin(self, log: str, at: str = "", sent: str = "SIGKILL") -> str:
        """Begin a run, which sends itself a signal at a point; return its id.

        Args:
            log: What it reads.
            at: The name of the point, and how often it is passed; never by default.
            sent: The name of the signal.
        """
        name = f"{log}/{next(self.numbers)}"
        self.answers[name] = asyncio.Queue()
        place = self.top / log
        how = [self.mode, "apart" if self.apart else "", self.dsn, log, self.kafka]
        words = [name, str(place), at, sent, str(self.pace), str(self.count), *how]
        self.commands.write(("\t".join(words) + "\n").encode())
        await self.commands.drain()
        return name

    async def answer(self, name: str) -> list[str]:
        """Return what has become of a run: it is stopped, or has ended."""
        return await self.answers[name].get()

    async def go(self, log: str, at: str = "") -> int:
        what, code = await self.answer(await self.begin(log, at))
        assert what == "ended"
        return int(code)

    def points(self, log: str) -> list[tuple[str, str]]:
        """Return the points that were passed: the process, and the name."""
        lines = (self.top / log / "points").read_text().splitlines()
        return [(words[0], words[2]) for words in [line.partition(" ") for line in lines]]

    def names(self, log: str) -> list[str]:
        return [name for _, name in self.points(log)]

    async def effects(self, log: str) -> list[int]:
        """Return the messages that have effects; one twice if it has two."""
        if self.mode in {"sqlite", "postgres"}:
            names = [path.name for path in (self.top / log / "effects").iterdir()]
            return sorted(int(name.partition(" ")[0]) for name in names)
        connection = await asyncpg.connect(self.dsn)
        rows = await connection.fetch(
            "SELECT number FROM effect WHERE log = $1 ORDER BY number", log
        )
        await connection.close()
        return [row["number"] for row in rows]

    async def end_sessions(self, log: str) -> None:
        """End the sessions of a log's readers, as the server does with those of a dead machine."""
        connection = await asyncpg.connect(self.dsn)
        await connection.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1",
            f"postgres {log}/g",
        )
        await connection.close()


async def each_at_once(
    runs: Runs, points: Iterable[str], check: Callable[[str, str], Awaitable[None]]
) -> None:
    """Check points side by side: those of Kafka wait for it most of the time."""
    limit = asyncio.Semaphore(12 if runs.kafka else 2)

    async def one(point: str) -> None:
        async with limit:
            await check(await runs.new(), point)

    async with asyncio.TaskGroup() as tasks:
        for point in points:
            tasks.create_task(one(point))


async def kill_at_each_point(runs: Runs) -> None:
    """Kill a reader at each point, and read on: no effect is lost or doubled."""
    async with runs.opened():
        await _kill(runs)


async def _kill(runs: Runs) -> None:
    log = await runs.new()
    assert await runs.go(log) == 0
    names = runs.names(log)
    assert await runs.effects(log) == runs.all
    by_a_sink = runs.mode in {"sink", "kafka"}
    wanted = {"after open()", "before ack()", "after ack()"}
    wanted |= {"before commit()", "after execute()"} if by_a_sink else {"in the effect"}
    wanted |= set() if by_a_sink else {"after record()", "before forget()", "before flush()"}
    assert wanted <= set(names)
    killed: set[str] = set()

    async def kill(log: str, point: str) -> None:
        if await runs.go(log, point) == 0:
            return  # acknowledgements were sent together: there were fewer points
        killed.add(point.rpartition(" ")[0])
        assert await runs.go(log) == 0
        assert await runs.effects(log) == runs.all, point

    await each_at_once(runs, chosen(names, lasts=not runs.apart), kill)
    assert wanted <= killed


def chosen(names: list[str], *, lasts: bool) -> list[str]:
    """Return the first and perhaps the last point of each name; all of them, if that is asked."""
    points: list[str] = []
    for name, count in Counter(names).items():
        if os.environ.get("RETURNS_PIPELINE_CRASHES") == "all":
            numbers = {*range(1, count + 1)}
        else:
            numbers = {1, count} if lasts else {1}
        points += [f"{name} {number}" for number in sorted(numbers)]
    return points


async def stop_at_points(runs: Runs, zombies: int = 1) -> None:
    """Stop readers in a window until another one has done its work: they do no harm then."""
    async with runs.opened():
        await _stop(runs, zombies)


async def _stop(runs: Runs, zombies: int) -> None:
    by_a_sink = runs.mode != "postgres"
    # How those end that stand before their commit. What is refused is read again by its owner, and
    # there is nothing left for the others. A transaction that is open is ended by the server, as
    # the new owner has to wait for it.
    where = {"before start()": "0", "before commit()": "1", "before ack()": ""}
    if not by_a_sink:
        where = {"before record()": "9", "in the effect": "9", "before forget()": "9"}

    async def stop(log: str, point: str) -> None:
        stopped: list[tuple[str, int]] = []
        for _ in range(zombies):
            zombie = await runs.begin(log, f"{point} 1", "SIGSTOP")
            what, process = await runs.answer(zombie)
            if what == "ended" and stopped and point == "before ack()":
                break  # the first one has written everything
            assert what == "stopped"
            stopped.append((zombie, int(process)))
            if not runs.kafka:
                await runs.end_sessions(log)
        assert await runs.go(log) == 0, point
        if by_a_sink:  # what a journal has to undo, a living process undoes
            assert await runs.effects(log) == runs.all, point
        for zombie, number in stopped:
            os.kill(number, signal.SIGCONT)
            what, code = await runs.answer(zombie)
            assert what == "ended"
            # One that reads its partitions apart may learn of their loss first, and read on.
            assert code == where[point] or not where[point] or (runs.apart and code == "0"), point
        assert await runs.effects(log) == runs.all, point

    await each_at_once(runs, where, stop)


async def kill_while_partitions_move(runs: Runs, *points: str) -> None:
    """Kill a reader at points, and one that has joined it; read on: no effect is lost or doubled.

    Args:
        runs: Two partitions, and effects that take longer than it takes to join.
        points: Of the first reader.
    """
    async with runs.opened():
        await _move(runs, *points)


async def _move(runs: Runs, *points: str) -> None:
    moved: list[str] = []

    async def kill(log: str, point: str) -> None:
        first = await runs.begin(log, point)
        while "after ack()" not in runs.names(log):  # noqa: ASYNC110  # another process's
            await asyncio.sleep(0.01)
        second = await runs.begin(log, "before ack() 3")
        for reader in (first, second):
            assert (await runs.answer(reader))[0] == "ended"
        if len({process for process, name in runs.points(log) if name == "after ack()"}) == 2:
            moved.append(point)
        assert await runs.go(log) == 0
        assert await runs.effects(log) == runs.all, point

    await each_at_once(runs, points, kill)
    assert moved, "the second one has handled nothing before the first one died"
