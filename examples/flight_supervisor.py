"""What is around the workers of `flight_worker`: it publishes, kills, and does the accounts.

`supervise` is the program without its workers.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

import asyncpg
from returns.result import Failure

from flight_accounts import (
    NEW_SCHEMA,
    SCHEMA,
    TABLES,
    Accounts,
    Connection,
    Outcome,
    accounts,
    progress,
)
from flight_brokers import ENGINES, Queue
from flight_records import Line, departures, parse_csv
from flight_servers import Server, ServerError
from returns_pipeline import ResultStream, to_result
from returns_pipeline.connectors import Outgoing, Publisher, Source
from returns_pipeline.journal import PostgresJournal


class Options(argparse.Namespace):
    """The command line."""

    engine: str
    broker: str | None
    database: str
    rows: int
    size: int
    seconds: float
    chaos: int
    exactly_once: bool
    lease: float
    patience: float
    name: str
    worker: str | None


BATCH = 100


async def publish(queue: Queue, rows: int, gate: asyncio.Semaphore) -> Counter[str | None]:
    """Publish lines of the file; return how many, by the reason why they are to be rejected.

    Args:
        queue: Where to.
        rows: How many.
        gate: Is passed before each batch.
    """
    expected = Counter[str | None]()
    source = departures()
    source.limit = rows

    def outgoing(line: Line) -> Outgoing[bytes]:
        parsed = parse_csv(line)
        expected[parsed.failure().reason if isinstance(parsed, Failure) else None] += 1
        return Outgoing(b"%d,%b" % line, id=str(line[0]))

    async def in_turn(_: object) -> None:
        await gate.acquire()

    async with Publisher(queue.sender(), encode=bytes) as publisher:
        lines = ResultStream.from_batches(source).map(outgoing)
        batches = lines.chunks_or_timeout(BATCH, 2.0).tap_async(in_turn)
        published = await to_result(batches.bind_async(publisher.publish_all).run())
    if isinstance(published, Failure):
        raise published.failure()
    return expected


# A worker that was still importing had nothing to drain.
_DRAINED = (0, -signal.SIGTERM)


class WorkerDied(Exception):
    """A worker has ended by itself, or with another status than it should."""

    def __init__(self, worker: Process) -> None:
        super().__init__(f"worker {worker.pid} has ended with status {worker.returncode}")


class Workers:
    """Processes, each of which is replaced when it is killed.

    Attributes:
        killed: How many were.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._running: list[Process] = []
        self.killed = 0

    async def start(self) -> None:
        """Start one more."""
        self._running.append(await asyncio.create_subprocess_exec(*self._command))

    def running(self) -> Sequence[Process]:
        """Return those that run.

        Raises:
            WorkerDied: One has ended by itself.
        """
        for worker in self._running:
            if worker.returncode is not None:
                raise WorkerDied(worker)
        return self._running

    async def kill(self, worker: Process) -> None:
        """Kill one by SIGKILL, and start another one.

        Raises:
            WorkerDied: It had ended before.
        """
        worker.kill()
        await self._end(worker, -signal.SIGKILL)
        self.killed += 1
        await self.start()

    async def restart(self, worker: Process) -> Process:
        """End one by SIGTERM, and start another one, which is returned.

        Raises:
            WorkerDied: It has not drained.
        """
        worker.terminate()
        await self._end(worker, *_DRAINED)
        await self.start()
        return self._running[-1]

    async def stop(self) -> None:
        """End all by SIGTERM.

        Raises:
            WorkerDied: One has not drained.
        """
        for worker in self._running:
            worker.terminate()
        for worker in list(self._running):
            await self._end(worker, *_DRAINED)

    async def _end(self, worker: Process, *expected: int) -> None:
        if await worker.wait() not in expected:
            raise WorkerDied(worker)
        self._running.remove(worker)

    async def abandon(self) -> None:
        """Kill those that are left."""
        for worker in self._running:
            if worker.returncode is None:
                worker.kill()
                await worker.wait()


async def until(
    reached: Callable[[], Awaitable[bool]],
    workers: Workers,
    connection: Connection,
    patience: float,
) -> bool:
    """Wait for something; give up when nothing was written for ``patience`` seconds.

    At the beginning, for a minute at least: workers have to start.

    Raises:
        WorkerDied: One has ended by itself.
    """
    loop = asyncio.get_running_loop()
    last, since = -1, loop.time()
    while not await reached():
        _ = workers.running()
        total = (await progress(connection)).total()
        if total != last:
            last, since = total, loop.time()
        elif loop.time() > since + (patience if total else max(patience, 60)):
            return False
        await asyncio.sleep(0.02)
    return True


async def until_it_writes(
    worker: Process,
    workers: Workers,
    connection: Connection,
    patience: float,
    publish: Callable[[int], None],
) -> None:
    """Publish until a worker writes: then it has its share, and another one may leave.

    Raises:
        WorkerDied: One has ended by itself.
    """
    for _ in range(int(patience)):
        if (await progress(connection))[worker.pid] or not workers.running():
            return
        publish(BATCH)
        await asyncio.sleep(1)


async def chaos(
    kills: int,
    workers: Workers,
    connection: Connection,
    patience: float,
    owned: bool,
    portion: int,
    publish: Callable[[int], None],
    break_broker: Callable[[], Awaitable[None]],
) -> None:
    """Kill workers, and break the broker at half of them and at the last; halfway restart all.

    A worker is killed after some more rows were written, by that worker among others: a program
    that kills by the clock kills workers that have not begun.

    Args:
        kills: How many workers to kill.
        workers: Them.
        connection: To look at what was written.
        patience: As for `until`.
        owned: Whether workers have partitions of their own; if they share a queue, one of them may
            read all that is published for a while.
        portion: How many rows to publish between two kills.
        publish: Lets so many more rows be published.
        break_broker: Kills it, or cuts connections to it.

    Raises:
        WorkerDied: A worker has ended by itself.
    """
    dice = random.Random()  # noqa: S311

    async def written() -> Counter[int]:
        """Wait until half of what is published now is written; return by whom."""
        before = await progress(connection)
        goal = before.total() + portion // 2
        publish(portion)

        async def reached() -> bool:
            return (await progress(connection)).total() >= goal

        _ = await until(reached, workers, connection, patience)
        await asyncio.sleep(dice.random() * 0.05)  # anywhere in a window
        return await progress(connection) - before

    for number in range(1, kills + 1):
        by = await written()
        victims = [worker for worker in workers.running() if by[worker.pid] > 0]
        if not victims:
            break  # nothing is written any more
        await workers.kill(dice.choice(victims))
        half = (kills + 1) // 2
        if number in (half, kills):
            await asyncio.sleep(dice.random() * 0.05)
            await break_broker()
        if number == half:
            # One after the other, and each when the group of the readers has settled: Tansu does
            # not elect a leader if the last one has left while it did.
            for worker in list(workers.running()):
                _ = await written()
                fresh = await workers.restart(worker)
                if owned:
                    await until_it_writes(fresh, workers, connection, patience, publish)


CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE $1"


class Run:
    """One run: a queue, the tables, and two workers between them."""

    def __init__(
        self,
        options: Options,
        queue: Queue,
        server: Server | None,
        connection: asyncpg.Connection[asyncpg.Record],
        journal: PostgresJournal,
        workers: Workers,
    ) -> None:
        self._options = options
        self._queue = queue
        self._server = server
        self._connection = connection
        self._journal = journal
        self._workers = workers
        self._gate = asyncio.Semaphore(0)
        self._broken = 0

    async def outcome(self) -> Outcome:
        """Publish, kill, wait until all is written, stop the workers, and do the accounts."""
        options = self._options
        for _ in range(2):
            await self._workers.start()
        async with asyncio.TaskGroup() as tasks:
            publishing = tasks.create_task(publish(self._queue, options.rows, self._gate))
            await chaos(
                options.chaos,
                self._workers,
                self._connection,
                options.patience,
                ENGINES[options.engine].positioned,
                options.rows // (options.chaos + 4),
                self._publish,
                self._break_broker,
            )
            self._publish(options.rows)
        await self._until_written()
        if options.chaos:  # what killed workers had not acknowledged is delivered until then
            await asyncio.sleep(options.lease + 1)
            await self._until_written()
        await self._workers.stop()
        return Outcome(
            await self._accounts(),
            publishing.result(),
            await unread(self._queue),
            len(await self._journal.sagas(done=False)),
            self._workers.killed,
            self._broken,
        )

    async def _accounts(self) -> Accounts:
        last = self._options.rows + 1  # the first line is the header
        return await accounts(self._connection, 2, last)

    async def _until_written(self) -> None:
        await until(self._is_written, self._workers, self._connection, self._options.patience)

    async def _is_written(self) -> bool:
        if (await progress(self._connection)).total() < self._options.rows:
            return False
        return not (await self._accounts()).lost and not await self._journal.sagas(done=False)

    def _publish(self, rows: int) -> None:
        for _ in range(-(-rows // BATCH)):
            self._gate.release()

    async def _break_broker(self) -> None:
        if self._server is not None:
            await self._server.break_down()
        elif self._options.engine == "postgres":  # which has the tables, too
            await self._connection.execute(CUT, f"postgres {self._options.name}/%")
        else:
            return
        self._broken += 1


async def supervise(options: Options) -> int:
    """Start everything, print the accounts of a run, and return the exit status."""
    engine = ENGINES[options.engine]
    address, server = options.broker or engine.address or options.database, None
    if options.exactly_once and not engine.positioned:
        raise ServerError(f"the messages of {options.engine} have no positions to go by")
    async with AsyncExitStack() as opened:
        if engine.command and not options.broker:
            server = await opened.enter_async_context(Server(engine))
            address = server.address
        connection = await asyncpg.connect(options.database)
        opened.push_async_callback(connection.close)
        await connection.execute(NEW_SCHEMA + TABLES)
        journal = await opened.enter_async_context(PostgresJournal(options.database, schema=SCHEMA))
        queue = engine.queue(address, options.name, options.lease)
        await queue.create()
        opened.push_async_callback(queue.delete)
        own = ["--worker", address, "--name", options.name]
        workers = Workers([sys.executable, *sys.argv, *own])
        opened.push_async_callback(workers.abandon)
        run = Run(options, queue, server, connection, journal, workers)
        outcome = await run.outcome()
    print(outcome)
    for problem in outcome.problems():
        print(f"flight_worker.py: {problem}", file=sys.stderr)
    return 1 if outcome.problems() else 0


async def unread(queue: Queue) -> int:
    """Count what is delivered within two seconds, and give it back."""
    if queue.unread is not None:
        return await queue.unread()
    count = 0
    async with Source(queue.driver(None), max_in_flight=100_000) as source:
        asyncio.get_running_loop().call_later(2, source.drain)
        async for _ in source:
            count += 1
    return count
