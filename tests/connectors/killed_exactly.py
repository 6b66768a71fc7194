"""Reads messages with stored positions, and kills or stops itself at a point. Run by tests.

Each line of standard input is a run, in a process that is forked for it: its id, and a `Run`. A
point is before and after each request to the database or the journal, each effect and each
acknowledgement, and after the source was opened.

Each line of standard output has the id of a run, ``stopped`` or ``ended``, and the process id or
the exit code: 9 if it was refused, as others own its partitions, or its saga.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg

from returns_pipeline import ok
from returns_pipeline.compensation import CompensationRegistry
from returns_pipeline.connectors import Source
from returns_pipeline.connectors.kafka import KafkaTopic
from returns_pipeline.connectors.postgres import PostgresLog, TransactionalSink
from returns_pipeline.errors import LeaseLost, PartitionsLost
from returns_pipeline.journal import PostgresJournal, SqliteJournal
from returns_pipeline.testing import FaultyJournal
from returns_pipeline.worker import run_worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from returns.result import Result

    from returns_pipeline import StepContext
    from returns_pipeline.connectors import Driver, Message

SIZE = 2
REFUSED = 9
registry = CompensationRegistry()
FAST = {
    "session_timeout_ms": 1000,
    "heartbeat_interval_ms": 200,
    "retry_backoff_ms": 50,
    "metadata_max_age_ms": 2000,
}


@dataclass(frozen=True)
class Run:
    """What a line of standard input asks for.

    Attributes:
        place: A directory for the names of the points, and for effects.
        end_at: The point at which it sends a signal to itself, and how often that was passed then.
        sent: The name of the signal.
        pace: The seconds that each effect takes.
        count: How many messages there are.
        mode: What stores the positions: ``sink``, ``sqlite``, ``postgres``; ``kafka`` is a sink for
            a topic.
        apart: Not empty if each partition has a pipeline of its own.
        dsn: The address of PostgreSQL.
        log: The log or topic.
        servers: The address of Kafka.
    """

    place: str
    end_at: str
    sent: str
    pace: str
    count: str
    mode: str
    apart: str
    dsn: str
    log: str
    servers: str


this: Run
place: Path
passed: Counter[str] = Counter()


def point(name: str) -> None:
    """Write the name of a point down; at the chosen one, die, or be stopped."""
    with (place / "points").open("a") as points:
        points.write(f"{os.getpid()} {name}\n")
    passed[name] += 1
    if f"{name} {passed[name]}" == this.end_at:
        os.kill(os.getpid(), signal.Signals[this.sent])


def pointed(driver: Any) -> Driver:
    """Return the driver, with points around each acknowledgement, and after it was opened."""
    ack, open_it = driver.ack, driver.open

    async def ack_with_points(messages: Sequence[Message[bytes]], /) -> None:
        point("before ack()")
        await ack(messages)
        point("after ack()")

    async def open_with_point(ownership: Any, /) -> None:
        await open_it(ownership)
        point("after open()")

    driver.ack, driver.open = ack_with_points, open_with_point
    return driver  # type: ignore[no-any-return]


# Whether everything is acknowledged; of a topic, whether everything is written.
LOG_IS_DONE = """
    SELECT NOT EXISTS (SELECT FROM {log} l JOIN {log}_groups g USING (partition)
                       WHERE (l.xid, l.id) > (g.xid, g.id) AND g.name = 'g')
"""
TOPIC_IS_DONE = "SELECT count(*) = {count} FROM effect WHERE log = '{log}'"


async def read(driver: Any, step: Callable[..., Any], journal: FaultyJournal | None = None) -> int:
    """Run a worker until everything is done; return its exit code."""
    source = Source(pointed(driver), decode=int)
    connection = await asyncpg.connect(this.dsn)
    text = TOPIC_IS_DONE if this.servers else LOG_IS_DONE
    is_done = text.format(log=this.log, count=this.count)

    async def done() -> None:
        while not source.statistics().connections or not await connection.fetchval(is_done):
            await asyncio.sleep(0.01)

    def pipeline(messages: Any, ctx: StepContext) -> Any:
        return step(messages.chunks_or_timeout(SIZE, 0.02), ctx)

    report = await run_worker(
        source,
        pipeline,
        journal=journal,
        registry=None if journal is None else registry,
        per_partition=bool(this.apart),
        stop=done(),
    )
    await connection.close()
    return report.exit_code


# The sink.


class Statements:
    """A connection, or a transaction of it, with points around each statement."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)
        if name == "transaction":
            return lambda **options: Statements(real(**options))
        if name not in {"execute", "fetch", "start", "commit"}:
            return real

        async def with_points(*arguments: Any) -> Any:
            point(f"before {name}()")
            answer = await real(*arguments)
            point(f"after {name}()")
            return answer

        return with_points

    async def __aenter__(self) -> Any:
        return await self._real.__aenter__()

    async def __aexit__(self, *error: object) -> Any:
        return await self._real.__aexit__(*error)


async def by_sink() -> int:
    async with asyncpg.create_pool(this.dsn, min_size=0, max_size=4) as real:

        class Pool:
            @asynccontextmanager
            async def acquire(self) -> AsyncIterator[Any]:
                async with real.acquire() as connection:
                    yield Statements(connection)

        async def write(connection: Any, window: list[Message[int]]) -> Result[int, str]:
            for message in window:
                await asyncio.sleep(float(this.pace))
                values = this.log, message.value
                await connection.execute("INSERT INTO effect VALUES ($1, $2)", *values)
            return ok(len(window))

        pool: Any = Pool()
        sink = TransactionalSink(pool, "sink", write=write, patience=0.3)
        if this.servers:
            topic = KafkaTopic(this.servers, this.log, **FAST)
            driver = topic.driver(f"group-{this.log}", positions=sink)
        else:
            driver = PostgresLog(this.dsn, this.log).driver("g", positions=sink)
        return await read(driver, lambda windows, _: windows.bind_async(sink))


# The journals.


@registry.compensation("remove")
async def remove(names: list[str]) -> None:
    for name in names:
        (place / "effects" / name).unlink(missing_ok=True)


async def effect(window: list[Message[int]], step: StepContext) -> Result[int, str]:
    names = [f"{message.value} {step.key}" for message in window]
    await step.register(remove, names)
    for name in names:
        await asyncio.sleep(float(this.pace))
        (place / "effects" / name).touch()
        point("in the effect")
    return ok(len(names))


async def by_journal() -> int:
    real: SqliteJournal | PostgresJournal
    if this.mode == "sqlite":
        real = SqliteJournal(place / "journal.db", lazy_commits=True)
    else:
        real = PostgresJournal(this.dsn, schema=f"journal_{this.log}")
    async with real:
        journal = FaultyJournal(real, point)
        driver = PostgresLog(this.dsn, this.log).driver("g", positions=journal)
        return await read(driver, lambda windows, ctx: windows.bind_step(effect, ctx), journal)


def say(*words: object) -> None:
    _ = os.write(1, ("\t".join(map(str, words)) + "\n").encode())


def run(words: list[str]) -> int:
    """Read, in this process; return the exit code."""
    global this, place  # noqa: PLW0603  # the process's own
    this = Run(*words)
    place = Path(this.place)
    work = by_journal() if this.mode in {"sqlite", "postgres"} else by_sink()
    return asyncio.run(asyncio.wait_for(work, 60))


def forked(work: Callable[[], int | None]) -> int:
    """Carry out work in a process of its own; return its id."""
    child = os.fork()
    if child:
        return child
    status: int | None = 1
    try:
        status = work()
    except (PartitionsLost, LeaseLost):
        status = REFUSED
    finally:
        sys.stderr.flush()
        os._exit(status or 0)


def watch(line: str) -> None:
    """Carry out a run, and report what becomes of it."""
    _ = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    name, *words = line.split("\t")
    child = forked(lambda: run(words))
    while True:
        _, status = os.waitpid(child, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            say(name, "ended", os.waitstatus_to_exitcode(status))
            return
        say(name, "stopped", child)


def main() -> None:
    _ = signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that watch
    for line in sys.stdin:
        _ = forked(lambda: watch(line.rstrip("\n")))  # noqa: B023


if __name__ == "__main__":
    main()
