"""Carry flights through a broker into PostgreSQL by two workers, and kill them: nothing is lost.

`consume` is a whole worker. What is around it is elsewhere: `flight_supervisor` publishes flights,
starts and kills workers, `flight_accounts` has the tables, and `flight_brokers` the brokers.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from typing import TypeAlias
from uuid import uuid4

import asyncpg
from returns.future import future_safe
from returns.result import Result, Success

from flight_accounts import SCHEMA, Connection, Item, delete, write
from flight_brokers import ENGINES, Queue
from flight_records import Flight, Rejected, SourceError, parse_csv
from flight_servers import ServerError
from flight_supervisor import Options, WorkerDied, supervise
from returns_pipeline import CompensationRegistry, ResultStream, RetryPolicy, StepContext
from returns_pipeline.connectors import DeadLetter, Message, Source
from returns_pipeline.connectors.postgres import TransactionalSink
from returns_pipeline.errors import PipelineError, TooManyDeliveries
from returns_pipeline.journal import PostgresJournal
from returns_pipeline.worker import WorkerReport, run_worker

Letter: TypeAlias = DeadLetter[Rejected | TooManyDeliveries]


# A worker.


async def consume(options: Options, queue: Queue) -> int:
    """Write windows of 500 flights or 2 seconds, each completely or not at all, until SIGTERM."""
    registry = CompensationRegistry()
    async with (
        asyncpg.create_pool(options.database, min_size=1, max_size=4) as pool,
        PostgresJournal(options.database, schema=SCHEMA) as journal,
    ):

        @registry.compensation("delete-window", retry=RetryPolicy(attempts=5))
        async def delete_window(key: str) -> None:
            async with pool.acquire() as connection, connection.transaction():
                await delete(connection, key)

        @future_safe(exceptions=(asyncpg.PostgresError, OSError))
        async def persist(window: Sequence[Item], step: StepContext) -> int:
            await step.register(delete_window, step.key)  # on record before the effect
            async with pool.acquire() as connection, connection.transaction():
                await write(connection, step.key, os.getpid(), window)
            return len(window)

        def flights(
            messages: ResultStream[Message[Flight], Letter], ctx: StepContext
        ) -> ResultStream[int, Exception]:
            windows = messages.lash(rejected).chunks_or_timeout(options.size, options.seconds)
            return windows.bind_step(persist, ctx)

        driver = queue.driver(journal)  # commits have positions, where messages have
        source = Source(driver, decode=decode, max_in_flight=2000, max_deliveries=100)
        report = await run_worker(
            source, flights, journal=journal, registry=registry, recover_every=2.0
        )
        return reported(report)


async def consume_exactly_once(options: Options, queue: Queue) -> int:
    """Write windows, each with the positions of its messages in the same transaction.

    A worker begins where the positions end. So nothing is written twice, and nothing is undone.
    """
    async with asyncpg.create_pool(options.database, min_size=2, max_size=4) as pool:

        @future_safe(exceptions=(asyncpg.PostgresError, OSError))
        async def persist(connection: Connection, window: Sequence[Item]) -> int:
            await write(connection, uuid4().hex, os.getpid(), window)
            return len(window)

        sink = TransactionalSink(pool, "flights", write=persist)

        def flights(
            messages: ResultStream[Message[Flight], Letter],
        ) -> ResultStream[int, Exception]:
            windows = messages.lash(rejected).chunks_or_timeout(options.size, options.seconds)
            return windows.bind_async(sink)

        await sink.create()
        source = Source(queue.driver(sink), decode=decode, max_in_flight=2000)
        return reported(await run_worker(source, flights))


def reported(report: WorkerReport[Exception]) -> int:
    """Print a failure; return the exit status."""
    if report.failure is not None:
        print(f"flight_worker.py: {report.failure}", file=sys.stderr)
    return report.exit_code


def decode(payload: bytes) -> Result[Flight, Rejected]:
    """Read a message: the number of a line, and the line."""
    number, _, text = payload.partition(b",")
    return parse_csv((int(number), text))


def rejected(letter: Letter) -> Success[Message[Rejected]]:
    """Make a dead letter an item of the window, which is written with it, and not ended by it."""
    error = letter.error
    if isinstance(error, TooManyDeliveries):
        assert isinstance(letter.message.value, bytes)  # it was not decoded
        number, _, text = letter.message.value.partition(b",")
        error = Rejected(int(number), "too many deliveries", str(error), text.decode())
    return Success(letter.message.with_value(error))


EPILOG = f"""\
The flights that left New York City in 2013 are published, and written to PostgreSQL by two
processes. Those that were cancelled, or cannot be read, become dead letters with their reason, in
the same windows. The tables are in the schema {SCHEMA}, which is deleted at the start.

NATS, Redis, RabbitMQ and Kafka (Tansu) are run by the program itself, unless --broker is the
address of a server; "postgres" is a log in the same database.

With --chaos, one of the processes is killed by SIGKILL, soon after it has written something, and
replaced; so often. Halfway, and at the last, the broker is killed, too, if it is the program's own;
of Kafka, which is in memory here, all connections are cut, and of "postgres" those of the readers.
Halfway, both processes are restarted by SIGTERM. In the end every line must be in one of the two
tables, once, and in no window that was undone; and the broker must have nothing left to deliver.

"written again" counts lines that were delivered again although their window had been committed:
their worker, or the broker, had died before it was acknowledged. Each is there once nevertheless:
the later window takes the row over. Kafka and "postgres" have none, because the positions of their
messages are stored with the commit: in the journal, or, with --exactly-once, by a sink that writes
them and the rows in one transaction, and needs no journal. But a batch that was being published
when a connection was cut may be in the topic twice: Tansu does not know idempotent producers.

exit status: 0 if everything adds up, 1 if not, 2 if something cannot be started or has failed

examples:
  flight_worker.py                                         all flights of 2013, through NATS
  flight_worker.py --rows 100000 --chaos                   kill 20 workers, and NATS twice
  flight_worker.py --engine kafka --exactly-once --rows 20000 --chaos 5
  flight_worker.py --engine rabbitmq --broker amqp://guest:guest@queue.example/
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program, or one of its workers."""
    parser = argparse.ArgumentParser(
        description="Carry flights through a broker into PostgreSQL by two workers, and kill them.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--engine", choices=ENGINES, default="nats", help="the kind of broker (%(default)s)")
    add("--broker", metavar="ADDRESS", help="a broker that runs already")
    add(
        "--database", metavar="ADDRESS", default="postgresql://localhost/test", help="(%(default)s)"
    )
    add("--rows", type=int, default=336_776, help="how many lines to publish (%(default)s)")
    add("--size", type=int, default=500, help="items in a full window (%(default)s)")
    add("--seconds", type=float, default=2.0, help="the longest time of a window (%(default)s)")
    add(
        "--chaos",
        type=int,
        nargs="?",
        const=20,
        default=0,
        metavar="KILLS",
        help="kill workers (20)",
    )
    add(
        "--lease",
        type=float,
        default=5.0,
        help="seconds until NATS or Redis take a worker for dead",
    )
    once = "positions in the transactions of windows, and no journal: for kafka and postgres"
    add("--exactly-once", action="store_true", help=once)
    add("--patience", type=float, default=120.0, help="seconds without progress, to give up after")
    add("--name", default=f"flights_{uuid4().hex[:8]}", help=argparse.SUPPRESS)
    add("--worker", metavar="ADDRESS", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments, Options())
    mark = "&" if "?" in options.database else "?"
    options.database += f"{mark}options=-csearch_path%3D{SCHEMA}"
    if options.chaos:  # lost connections are expected
        logging.basicConfig(level=logging.CRITICAL)
    status = 2
    try:
        if options.worker is None:
            status = asyncio.run(supervise(options))
        else:
            queue = ENGINES[options.engine].queue(options.worker, options.name, options.lease)
            work = consume_exactly_once if options.exactly_once else consume
            status = asyncio.run(work(options, queue))
    except* (
        SourceError,
        ServerError,
        WorkerDied,
        PipelineError,
        OSError,
        asyncpg.PostgresError,
    ) as failed:
        for error in failed.exceptions:
            print(f"flight_worker.py: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
