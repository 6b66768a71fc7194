"""Reads messages with stored positions, and kills or stops itself at a point. Run by tests.

Each line of standard input is a run, in a process that is forked for it: its id, the place, the
number of the point, the signal that it sends to itself there, the mode (``sink``, ``sqlite``,
``postgres``; ``kafka``: the sink, and a topic), the DSN, the log or topic, the address of Kafka. A
point is before and after each request to the database or the journal, each effect and each
acknowledgement.

Each line of standard output has the id of a run, ``stopped`` or ``ended``, and the process id or
the exit code: 3 if it was refused, as others own its partitions, or its saga.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg

from returns_pipeline import StepContext, ok
from returns_pipeline.compensation import CompensationRegistry
from returns_pipeline.connectors import Source
from returns_pipeline.connectors.kafka import KafkaTopic
from returns_pipeline.connectors.postgres import PostgresLog, TransactionalSink
from returns_pipeline.errors import LeaseLost, PartitionsLost
from returns_pipeline.journal import PostgresJournal, SqliteJournal, recover
from returns_pipeline.testing import FaultyJournal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from returns.result import Result

    from returns_pipeline.connectors import Driver, Message

SIZE = 2
REFUSED = 3
place = Path()
end_at = 0
sent = signal.SIGKILL
registry = CompensationRegistry()
FAST = {
    "session_timeout_ms": 1000,
    "heartbeat_interval_ms": 200,
    "retry_backoff_ms": 50,
    "metadata_max_age_ms": 2000,
}


def point(name: str) -> None:
    """Write the name of a point down; at the chosen one, die, or be stopped."""
    with (place / "points").open("a") as points:
        points.write(f"{name}\n")
    if len((place / "points").read_text().splitlines()) == end_at:
        os.kill(os.getpid(), sent)


def pointed(driver: Any) -> Driver:
    """Return the driver, with points around each acknowledgement."""
    ack = driver.ack

    async def with_points(messages: Sequence[Message[bytes]], /) -> None:
        point("before ack()")
        await ack(messages)
        point("after ack()")

    driver.ack = with_points
    return driver  # type: ignore[no-any-return]


# Whether everything is acknowledged; of a topic, whether everything is written.
LOG_IS_DONE = """
    SELECT NOT EXISTS (SELECT FROM {log} l, {log}_groups g
                       WHERE (l.xid, l.id) > (g.xid, g.id) AND g.name = 'g')
"""
TOPIC_IS_DONE = "SELECT count(*) = 4 FROM effect WHERE log = '{log}'"


async def read(
    source: Source[int, Any], step: Callable[[Any], Any], dsn: str, is_done: str
) -> None:
    """Read windows until everything is done."""
    connection = await asyncpg.connect(dsn)

    async def drain() -> None:
        while not source.statistics().connections or not await connection.fetchval(is_done):
            await asyncio.sleep(0.01)
        source.drain()

    async with source:
        draining = asyncio.ensure_future(drain())
        await step(source.messages().chunks_or_timeout(SIZE, 0.02)).run()
        await draining
        await source.settled()
    await connection.close()


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


async def by_sink(dsn: str, log: str, servers: str) -> None:
    async with asyncpg.create_pool(dsn, min_size=0, max_size=4) as real:

        class Pool:
            @asynccontextmanager
            async def acquire(self) -> AsyncIterator[Any]:
                async with real.acquire() as connection:
                    yield Statements(connection)

        async def write(connection: Any, window: list[Message[int]]) -> Result[int, str]:
            for message in window:
                await connection.execute("INSERT INTO effect VALUES ($1, $2)", log, message.value)
            return ok(len(window))

        pool: Any = Pool()
        sink = TransactionalSink(pool, "sink", write=write, patience=0.3)
        if servers:
            topic = KafkaTopic(servers, log, **FAST)
            driver, is_done = topic.driver(f"group-{log}", positions=sink), TOPIC_IS_DONE
        else:
            driver, is_done = PostgresLog(dsn, log).driver("g", positions=sink), LOG_IS_DONE
        source = Source(pointed(driver), decode=int)
        await read(source, lambda s: s.bind_async(sink), dsn, is_done.format(log=log))


# The journals.


@registry.compensation("remove")
async def remove(names: list[str]) -> None:
    for name in names:
        (place / "effects" / name).unlink(missing_ok=True)


async def effect(window: list[Message[int]], step: StepContext) -> Result[int, str]:
    names = [f"{message.value} {step.key}" for message in window]
    await step.register(remove, names)
    for name in names:
        (place / "effects" / name).touch()
        point("in the effect")
    return ok(len(names))


async def by_journal(mode: str, dsn: str, log: str) -> None:
    real: SqliteJournal | PostgresJournal
    if mode == "sqlite":
        real = SqliteJournal(place / "journal.db", lazy_commits=True)
    else:
        real = PostgresJournal(dsn, schema=f"journal_{log}")
    journal = FaultyJournal(real, point)
    _ = await recover(real, registry)

    driver = pointed(PostgresLog(dsn, log).driver("g", positions=journal))
    source = Source(driver, decode=int, before_ack=journal.flush)
    ctx = StepContext("s", journal=journal)
    await read(source, lambda s: s.bind_step(effect, ctx), dsn, LOG_IS_DONE.format(log=log))
    await real.close()


def say(*words: object) -> None:
    _ = os.write(1, ("\t".join(map(str, words)) + "\n").encode())


def run(where: str, number: str, signal_sent: str, mode: str, *sources: str) -> None:
    """Read, in this process."""
    global place, end_at, sent
    place, end_at, sent = Path(where), int(number), signal.Signals[signal_sent]
    dsn, log, servers = sources
    by_a_sink = mode in {"sink", "kafka"}
    work = by_sink(dsn, log, servers) if by_a_sink else by_journal(mode, dsn, log)
    asyncio.run(asyncio.wait_for(work, 60))


def forked(work: Callable[[], None]) -> int:
    """Carry out work in a process of its own; return its id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except (PartitionsLost, LeaseLost):
        status = REFUSED
    finally:
        sys.stderr.flush()
        os._exit(status)


def watch(line: str) -> None:
    """Carry out a run, and report what becomes of it."""
    _ = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    name, *arguments = line.split("\t")
    child = forked(lambda: run(*arguments))
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
