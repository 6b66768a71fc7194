# ruff: noqa: ARG002, D102, PLC0415  # clients may be absent; methods are those of `Broker`
"""What a `Source` costs over a consumer by hand that uses the same client.

Both read the same messages in windows of 500, do nothing with them, and acknowledge each window;
`sink` and `journal` copy them into a table, and store the positions with that. The two take turns.
A broker whose server is absent is left out. Kafka is read if `RETURNS_PIPELINE_KAFKA` names one.

    python benchmarks/connectors.py --messages 100000 --rounds 5 nats redis
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

from returns_pipeline import StepContext, ok
from returns_pipeline.connectors import Publisher, Source
from returns_pipeline.testing import MemoryBroker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from returns.result import Result

    from returns_pipeline import ResultStream
    from returns_pipeline.connectors import Driver, Message, Sender

WINDOW = 500
PAYLOAD = b"x" * 100


class Broker(Protocol):
    """A queue of messages, which several groups read from the beginning."""

    def sender(self) -> Sender: ...
    def driver(self, group: str) -> Driver: ...
    async def by_hand(self, group: str, count: int) -> None: ...


class Nats:
    """A stream of NATS JetStream."""

    def __init__(self) -> None:
        self.server = "nats://" + os.environ.get("RETURNS_PIPELINE_NATS", "127.0.0.1:4222")
        self.name = f"bench-{uuid4().hex}"

    async def create(self) -> None:
        import nats

        from returns_pipeline.connectors.nats import NatsStream

        self.client = await nats.connect(self.server, allow_reconnect=False)
        await self.client.jetstream().add_stream(name=self.name, subjects=[self.name])
        self.stream = NatsStream(self.server, self.name)

    def sender(self) -> Sender:
        return self.stream.sender(self.name)

    def driver(self, group: str) -> Driver:
        return self.stream.driver(group)

    async def by_hand(self, group: str, count: int) -> None:
        subscription = await self.client.jetstream().pull_subscribe(self.name, group)
        while count > 0:
            window = await subscription.fetch(WINDOW, timeout=5)
            for message in window[:-1]:
                await message.ack()
            await window[-1].ack_sync()
            count -= len(window)
        await subscription.unsubscribe()

    async def remove(self) -> None:
        await self.client.jetstream().delete_stream(self.name)
        await self.client.close()


class Redis:
    """A stream of Redis."""

    def __init__(self) -> None:
        server = os.environ.get("RETURNS_PIPELINE_REDIS", "127.0.0.1:6379")
        self.url = f"redis://{server}/0"
        self.name = f"bench-{uuid4().hex}"

    async def create(self) -> None:
        from redis.asyncio import Redis as Client

        from returns_pipeline.connectors.redis import RedisStream

        self.client: Any = Client.from_url(self.url, protocol=2)
        await self.client.ping()
        self.stream = RedisStream(self.url, self.name)

    def sender(self) -> Sender:
        return self.stream.sender()

    def driver(self, group: str) -> Driver:
        return self.stream.driver(group)

    async def by_hand(self, group: str, count: int) -> None:
        await self.client.xgroup_create(self.name, group, "0")
        while count > 0:
            reply = await self.client.xreadgroup(
                group, "hand", {self.name: ">"}, count=WINDOW, block=1000
            )
            window = [(number, fields[b"value"]) for number, fields in reply[0][1]]
            await self.client.xack(self.name, group, *[number for number, _ in window])
            count -= len(window)

    async def remove(self) -> None:
        await self.client.delete(self.name)
        await self.client.aclose()


class Postgres:
    """A log in PostgreSQL."""

    def __init__(self) -> None:
        self.dsn = os.environ.get("RETURNS_PIPELINE_POSTGRES", "postgresql://root@127.0.0.1/test")
        self.name = f"bench_{uuid4().hex[:12]}"

    async def create(self) -> None:
        import asyncpg

        from returns_pipeline.connectors.postgres import PostgresLog

        self.client = await asyncpg.connect(self.dsn)
        self.log = PostgresLog(self.dsn, self.name)
        await self.log.create(1)

    def sender(self) -> Sender:
        return self.log.sender()

    def driver(self, group: str) -> Driver:
        return self.log.driver(group)

    async def by_hand(self, group: str, count: int) -> None:
        await self.client.execute(
            f"INSERT INTO {self.name}_groups (name, partition) VALUES ($1, 0)", group
        )
        xid, number = "0", 0
        while count > 0:
            window = await self.client.fetch(
                f"SELECT xid::text, id, key, value, headers, at FROM {self.name}"
                " WHERE partition = 0 AND (xid, id) > ($1::text::xid8, $2)"
                "   AND xid < pg_snapshot_xmin(pg_current_snapshot())"
                f" ORDER BY xid, id LIMIT {WINDOW}",
                xid,
                number,
            )
            xid, number = window[-1]["xid"], window[-1]["id"]
            place = self.client.execute(
                f"UPDATE {self.name}_groups SET xid = $2::text::xid8, id = $3 WHERE name = $1",
                group,
                xid,
                number,
            )
            await self.store_by_hand(window, place)
            count -= len(window)

    async def store_by_hand(self, window: list[Any], place: Awaitable[object]) -> None:
        """Store where a group is after a window."""
        await place

    async def remove(self) -> None:
        await self.client.execute(
            f"DROP TABLE {self.name}_groups, {self.name}, {self.name}_partitions CASCADE"
        )
        await self.client.close()


class Sink(Postgres):
    """A log in PostgreSQL, and a `TransactionalSink`: by hand, a transaction for each window."""

    async def create(self) -> None:
        import asyncpg

        from returns_pipeline.connectors.postgres import TransactionalSink

        await super().create()
        self.made = f"{self.name}_copies"
        await self.client.execute(f"CREATE TABLE {self.made} (value bytea)")
        self.pool = await asyncpg.create_pool(self.dsn, min_size=2, max_size=4)
        self.new_sink = partial(
            TransactionalSink, self.pool, write=self.write, table=f"{self.name}_position"
        )
        self.sink: Any = self.new_sink("any")
        await self.sink.create()

    async def write(self, connection: Any, window: list[Message[bytes]]) -> Result[int, str]:
        await self.copy(connection, [(message.value,) for message in window])
        return ok(len(window))

    async def copy(self, connection: Any, rows: list[tuple[bytes]]) -> None:
        await connection.copy_records_to_table(self.made, records=rows, columns=["value"])

    def driver(self, group: str) -> Driver:
        self.sink = self.new_sink(group)
        return self.log.driver(group, positions=self.sink)

    def handled(self, windows: ResultStream[Any, Any]) -> ResultStream[int, Any]:
        return windows.bind_async(self.sink)

    async def store_by_hand(self, window: list[Any], place: Awaitable[object]) -> None:
        async with self.client.transaction():
            await self.copy(self.client, [(row["value"],) for row in window])
            await place

    async def remove(self) -> None:
        await self.pool.close()
        await self.client.execute(f"DROP TABLE {self.made}, {self.name}_position")
        await super().remove()


class Journal(Sink):
    """The same, and positions in a journal: by hand, an intent before the rows of each window.

    What is by hand takes three transactions: the intent, the rows, and the end of the intent with
    the positions.
    """

    async def create(self) -> None:
        from returns_pipeline.compensation import CompensationRegistry
        from returns_pipeline.journal import PostgresJournal

        await super().create()
        self.intents = f"{self.name}_intents"
        await self.client.execute(f"CREATE TABLE {self.intents} (id bigserial, arguments jsonb)")
        self.journal = PostgresJournal(self.dsn, schema=f"{self.name}_journal")
        self.remove_copies = CompensationRegistry().compensation("remove")(self.no_undo)

    async def no_undo(self, first: int, last: int) -> None: ...

    async def persist(self, window: list[Message[bytes]], step: StepContext) -> Result[int, str]:
        first, last = window[0].position[1], window[-1].position[1]
        await step.register(self.remove_copies, first, last)
        async with self.pool.acquire() as connection:
            return await self.write(connection, window)

    def driver(self, group: str) -> Driver:
        return self.log.driver(group, positions=self.journal)

    def handled(self, windows: ResultStream[Any, Any]) -> ResultStream[int, Any]:
        return windows.bind_step(self.persist, StepContext("bench", journal=self.journal))

    async def store_by_hand(self, window: list[Any], place: Awaitable[object]) -> None:
        number = await self.client.fetchval(
            f"INSERT INTO {self.intents} (arguments) VALUES ($1) RETURNING id",
            f"[{window[0]['id']}, {window[-1]['id']}]",
        )
        await self.copy(self.client, [(row["value"],) for row in window])
        async with self.client.transaction():
            await self.client.execute(f"DELETE FROM {self.intents} WHERE id = $1", number)
            await place

    async def remove(self) -> None:
        await self.journal.close()
        await self.client.execute(f"DROP SCHEMA {self.name}_journal CASCADE")
        await self.client.execute(f"DROP TABLE {self.intents}")
        await super().remove()


class Rabbit:
    """A queue of RabbitMQ for each group, bound to one exchange."""

    def __init__(self) -> None:
        server = os.environ.get("RETURNS_PIPELINE_RABBITMQ", "127.0.0.1:5672")
        self.url = f"amqp://guest:guest@{server}/"
        self.name = f"bench-{uuid4().hex}"
        self.groups: list[str] = []

    async def create(self) -> None:
        import aiormq

        self.client = await aiormq.connect(self.url)
        self.channel = await self.client.channel()
        await self.channel.exchange_declare(exchange=self.name, exchange_type="fanout")

    async def add(self, group: str) -> None:
        queue = f"{self.name}-{group}"
        self.groups.append(queue)
        await self.channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
        await self.channel.queue_bind(queue, self.name)

    def sender(self) -> Sender:
        from returns_pipeline.connectors.rabbitmq import RabbitQueue

        return RabbitQueue(self.url, self.name).sender(exchange=self.name)

    def driver(self, group: str) -> Driver:
        from returns_pipeline.connectors.rabbitmq import RabbitQueue

        return RabbitQueue(self.url, f"{self.name}-{group}").driver()

    async def by_hand(self, group: str, count: int) -> None:
        channel = await self.client.channel()
        done = asyncio.get_running_loop().create_future()
        window: list[Any] = []
        left = count

        async def on_message(message: Any) -> None:
            nonlocal left
            window.append(message)
            left -= 1
            if len(window) == WINDOW or not left:
                last = window[-1]
                window.clear()
                await channel.basic_ack(last.delivery_tag, multiple=True)
                if not left:
                    done.set_result(None)

        await channel.basic_qos(prefetch_count=4 * WINDOW)
        await channel.basic_consume(f"{self.name}-{group}", on_message)
        await done
        await channel.basic_qos(prefetch_count=0)
        await channel.close()

    async def remove(self) -> None:
        for queue in self.groups:
            await self.channel.queue_delete(queue)
        await self.channel.exchange_delete(self.name)
        await self.client.close()


class Kafka:
    """A topic of Kafka with one partition."""

    def __init__(self) -> None:
        self.server = os.environ["RETURNS_PIPELINE_KAFKA"]
        self.name = f"bench-{uuid4().hex}"

    async def create(self) -> None:
        from aiokafka.admin import AIOKafkaAdminClient, NewTopic

        from returns_pipeline.connectors.kafka import KafkaTopic

        admin = AIOKafkaAdminClient(bootstrap_servers=self.server)
        await admin.start()
        await admin.create_topics([NewTopic(self.name, 1, 1)])
        await admin.close()
        self.topic = KafkaTopic(self.server, self.name)

    def sender(self) -> Sender:
        return self.topic.sender(enable_idempotence=False)

    def driver(self, group: str) -> Driver:
        return self.topic.driver(group)

    async def by_hand(self, group: str, count: int) -> None:
        from aiokafka import AIOKafkaConsumer, TopicPartition

        consumer = AIOKafkaConsumer(
            self.name,
            bootstrap_servers=self.server,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        await consumer.start()
        started()
        place = TopicPartition(self.name, 0)
        while count > 0:
            batches = await consumer.getmany(timeout_ms=1000, max_records=WINDOW)
            for window in batches.values():
                await consumer.commit({place: window[-1].offset + 1})
                count -= len(window)
        ended()
        await consumer.stop()

    async def remove(self) -> None: ...


class Memory:
    """A broker in memory: what the source itself costs. By hand: its driver, without a source."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()

    async def create(self) -> None: ...

    def sender(self) -> Sender:
        return self.broker.sender()

    def driver(self, group: str) -> Driver:
        return self.broker.driver(group)

    async def by_hand(self, group: str, count: int) -> None:
        class Alone:
            async def settled(self, partitions: object, /) -> bool:
                return True

            def fence(self, partitions: object = None, /) -> None: ...

            def out_of_credit(self) -> None: ...

            def lag(self, _: object, /) -> None: ...

            def noted(self, *_: object) -> None: ...

            def paused(self) -> tuple[str, ...]:
                return ()

            async def positions(self, _: object, /) -> dict[str, Any]:
                return {}

        driver = self.driver(group)
        await driver.open(Alone())
        while count > 0:
            window = await driver.fetch(WINDOW)
            await driver.ack(window)
            count -= len(window)
        await driver.close()

    async def remove(self) -> None: ...


# The clock runs from the first message to the last acknowledgement: not while a group is joined.
_marks: list[tuple[float, float]] = []


def started() -> None:
    """Start the clock again."""
    _marks[:1] = [(time.perf_counter(), time.process_time())]


def ended() -> None:
    """Stop the clock."""
    _marks.append((time.perf_counter(), time.process_time()))


def with_nothing(windows: ResultStream[Any, Any]) -> ResultStream[int, Any]:
    """Handle windows, and emit how many messages each had."""

    async def nothing(window: list[Message[bytes]]) -> Result[int, str]:
        return ok(len(window))

    return windows.bind_async(nothing)


async def by_source(broker: Any, group: str, count: int) -> None:
    """Read as a user does."""
    seen = 0
    handled = getattr(broker, "handled", with_nothing)
    async with Source(broker.driver(group), max_in_flight=4 * WINDOW) as source:

        def begin(_: object) -> None:
            if not seen:
                started()

        def add(handled: int) -> None:
            nonlocal seen
            seen += handled
            if seen >= count:
                source.drain()

        windows = source.messages().chunks_or_timeout(WINDOW, 2.0)
        _ = await handled(windows.tap(begin)).tap(add).run()
        await source.settled()
        ended()


async def measure(work: Callable[[], Awaitable[None]]) -> tuple[float, float]:
    """Return seconds of the wall clock, and of the processor."""
    _marks.clear()
    started()
    await work()
    if len(_marks) == 1:
        ended()
    (wall, cpu), (wall_end, cpu_end) = _marks[0], _marks[-1]
    return wall_end - wall, cpu_end - cpu


async def bench(kind: type[Any], count: int, rounds: int) -> None:
    """Print the line of one broker."""
    name = kind.__name__.lower()
    broker = kind()
    try:
        await broker.create()
    except (OSError, ImportError, KeyError) as error:
        print(f"{name:9} is left out: {error!r}")
        return
    groups = [f"{way}{n}" for n in range(rounds) for way in ("hand", "ours")]
    if isinstance(broker, Rabbit):
        for group in groups:
            await broker.add(group)
    began = time.perf_counter()
    async with Publisher(broker.sender(), encode=bytes) as publisher:
        for sent in range(0, count, 1000):
            outcome = await publisher.publish_all([PAYLOAD] * min(1000, count - sent))
            _ = outcome.unwrap()
    published = count / (time.perf_counter() - began)
    hand: list[tuple[float, float]] = []
    ours: list[tuple[float, float]] = []
    for n in range(rounds):
        hand.append(await measure(partial(broker.by_hand, f"hand{n}", count)))
        ours.append(await measure(partial(by_source, broker, f"ours{n}", count)))
    wall = statistics.median(o[0] / h[0] for o, h in zip(ours, hand, strict=True))
    cpu = statistics.median(o[1] / h[1] for o, h in zip(ours, hand, strict=True))
    of_hand = statistics.median(h[1] for h in hand) / count * 1e6
    of_ours = statistics.median(o[1] for o in ours) / count * 1e6
    rate = count / statistics.median(o[0] for o in ours)
    print(
        f"{name:9} {wall:5.2f} {cpu:5.2f} {of_hand:8.1f} {of_ours:8.1f}"
        f" {of_ours - of_hand:7.1f} {rate:9,.0f} {published:9,.0f}",
        flush=True,
    )
    await broker.remove()


KINDS = (Memory, Nats, Redis, Postgres, Sink, Journal, Rabbit, Kafka)


async def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    _ = parser.add_argument("names", nargs="*")
    _ = parser.add_argument("--messages", type=int, default=100_000)
    _ = parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    print(f"{given.messages:,} messages of {len(PAYLOAD)} bytes, windows of {WINDOW}")
    print("          wall   cpu  by hand     ours    more  ours a s published")
    print("                     us each  us each us each")
    for kind in KINDS:
        if not given.names or kind.__name__.lower() in given.names:
            await bench(kind, given.messages, given.rounds)


if __name__ == "__main__":
    asyncio.run(main())
