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
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import aiokafka
import asyncpg
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from returns_pipeline.connectors.postgres import PostgresLog, TransactionalSink

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

COUNT = 4
PROGRAM = Path(__file__).parent.parent / "connectors" / "killed_exactly.py"


class Runs:
    """Runs of the program, each on a log or topic of its own, and in a directory of its own."""

    def __init__(self, top: Path, dsn: str, mode: str, kafka: str = "") -> None:
        self.top, self.dsn, self.mode, self.kafka = top, dsn, mode, kafka
        # Schemas of journals, and names of sessions, are the whole database's: another test's, too.
        self.tag = uuid4().hex[:8]
        self.numbers = itertools.count()
        self.answers: dict[str, asyncio.Queue[list[str]]] = {}
        self.stopped: set[int] = set()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Runs]:
        async with asyncpg.create_pool(self.dsn, min_size=0) as pool:
            await pool.execute("CREATE TABLE effect (log text, number int)")

            async def write(*_: object) -> Any: ...

            await TransactionalSink(pool, "sink", write=write).create()
        program = await asyncio.create_subprocess_exec(
            sys.executable, PROGRAM, stdin=PIPE, stdout=PIPE
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
            self.commands.close()
            for process in self.stopped:
                os.kill(process, signal.SIGKILL)
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
        values = [str(number).encode() for number in range(COUNT)]
        if self.kafka:
            admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka)
            await admin.start()
            await admin.create_topics([NewTopic(log, 1, 1)])
            await admin.close()
            async with aiokafka.AIOKafkaProducer(bootstrap_servers=self.kafka) as producer:
                for value in values:
                    await producer.send_and_wait(log, value)
            return log
        made = PostgresLog(self.dsn, log)
        await made.create(1)
        connection = await asyncpg.connect(self.dsn)
        for value in values:
            await made.append(connection, value)
        await connection.close()
        return log

    async def begin(self, log: str, at: int = -1, sent: str = "SIGKILL") -> str:
        """Begin a run, which sends itself a signal at a point; return its id."""
        name = f"{log}/{next(self.numbers)}"
        self.answers[name] = asyncio.Queue()
        place = self.top / log
        words = [name, str(place), str(at), sent, self.mode, self.dsn, log, self.kafka]
        self.commands.write(("\t".join(words) + "\n").encode())
        await self.commands.drain()
        return name

    async def answer(self, name: str) -> list[str]:
        """Return what has become of a run: it is stopped, or has ended."""
        return await self.answers[name].get()

    async def go(self, log: str, at: int = -1) -> int:
        what, code = await self.answer(await self.begin(log, at))
        assert what == "ended"
        return int(code)

    def points(self, log: str) -> list[str]:
        return (self.top / log / "points").read_text().splitlines()

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
    runs: Runs, numbers: Sequence[int], check: Callable[[str, int], Awaitable[None]]
) -> None:
    """Check points side by side: those of Kafka wait for it most of the time."""
    limit = asyncio.Semaphore(12 if runs.kafka else 2)

    async def one(number: int) -> None:
        async with limit:
            await check(await runs.new(), number)

    async with asyncio.TaskGroup() as tasks:
        for number in numbers:
            tasks.create_task(one(number))


async def kill_at_each_point(top: Path, dsn: str, mode: str, kafka: str = "") -> None:
    """Kill a reader at each point, and read on: no effect is lost or doubled."""
    async with Runs(top, dsn, mode, kafka).opened() as runs:
        await _kill(runs)


async def _kill(runs: Runs) -> None:
    log = await runs.new()
    assert await runs.go(log) == 0
    names = runs.points(log)
    assert await runs.effects(log) == [*range(COUNT)]
    by_a_sink = runs.mode in {"sink", "kafka"}
    wanted = {"before ack()", "after ack()"}
    wanted |= {"before commit()", "after execute()"} if by_a_sink else {"in the effect"}
    wanted |= set() if by_a_sink else {"after record()", "before forget()", "before flush()"}
    assert wanted <= set(names)
    killed: set[str] = set()

    async def kill(log: str, number: int) -> None:
        if await runs.go(log, number) == 0:
            return  # acknowledgements were sent together: there were fewer points
        killed.add(runs.points(log)[-1])
        assert await runs.go(log) == 0
        assert await runs.effects(log) == [*range(COUNT)], runs.points(log)[number - 1]

    await each_at_once(runs, chosen(names), kill)
    assert wanted <= killed


def chosen(names: list[str]) -> list[int]:
    """Return the numbers of the first and the last point of each name; of all, if that is asked."""
    if os.environ.get("RETURNS_PIPELINE_CRASHES") == "all":
        return [*range(1, len(names) + 1)]
    firsts = [names.index(name) + 1 for name in set(names)]
    return sorted({*firsts, *(len(names) - names[::-1].index(name) for name in set(names))})


async def stop_at_points(top: Path, dsn: str, mode: str, kafka: str = "") -> None:
    """Stop a reader in a window until another one has done its work: it does no harm then."""
    async with Runs(top, dsn, mode, kafka).opened() as runs:
        await _stop(runs)


async def _stop(runs: Runs) -> None:
    log = await runs.new()
    assert await runs.go(log) == 0
    names = runs.points(log)
    by_a_sink = runs.mode != "postgres"
    # What is expected of those that stand before their commit. A transaction that is open is ended
    # by the server, as the new owner has to wait for it.
    where = {"before start()": "3", "before commit()": "1", "before ack()": ""}
    if not by_a_sink:
        where = {"before record()": "3", "in the effect": "3", "before forget()": "3"}
    ends: dict[str, str] = {}

    async def stop(log: str, number: int) -> None:
        point = names[number - 1]
        zombie = await runs.begin(log, number, "SIGSTOP")
        what, process = await runs.answer(zombie)
        assert what == "stopped"
        runs.stopped.add(int(process))
        if not runs.kafka:
            await runs.end_sessions(log)
        assert await runs.go(log) == 0, point
        if by_a_sink:  # what a journal has to undo, a living process undoes
            assert await runs.effects(log) == [*range(COUNT)], point
        os.kill(int(process), signal.SIGCONT)
        what, ends[point] = await runs.answer(zombie)
        assert what == "ended"
        runs.stopped.remove(int(process))
        assert await runs.effects(log) == [*range(COUNT)], point

    await each_at_once(runs, [names.index(point) + 1 for point in where], stop)
    assert {point: end for point, end in ends.items() if where[point]} == {
        point: end for point, end in where.items() if end
    }
