# mypy: disable-error-code="unused-awaitable, unused-coroutine"
# pyright: reportUnusedCoroutine=false
"""Never run. What mypy and pyright infer for messages of brokers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Never, assert_type

from returns.result import Failure, Result, Success

from returns_pipeline import ResultStream, RetryPolicy, cases
from returns_pipeline.compensation.protocol import (
    Coverage,
    HandledPositions,
    Positions,
    TakenPartition,
)
from returns_pipeline.connectors import (
    DeadLetter,
    Driver,
    Message,
    Outgoing,
    OutgoingBatch,
    Ownership,
    Partition,
    Position,
    Publisher,
    PublisherStatistics,
    Sender,
    SenderConnection,
    Source,
    SourceStatistics,
    json_decoder,
)
from returns_pipeline.connectors.kafka import KafkaTopic
from returns_pipeline.connectors.nats import NatsStream
from returns_pipeline.connectors.postgres import PostgresLog, SqlConnection, TransactionalSink
from returns_pipeline.connectors.rabbitmq import RabbitQueue
from returns_pipeline.connectors.redis import RedisStream
from returns_pipeline.errors import DecodeError, PartitionsLost, PublishError, TooManyDeliveries


@dataclass
class Order:
    """What is sold."""

    seats: int


def parse(value: bytes) -> Result[int, OSError]:
    return Success(int(value))


def messages(
    raw: Message[bytes], order: Message[Order], parse_text: Callable[[str], Result[int, OSError]]
) -> None:
    """A message keeps its place, whatever its value becomes."""
    assert_type(order.value, Order)
    assert_type((raw.partition, raw.position, raw.deliveries), tuple[str, Position, int])
    assert_type(raw.with_value("a"), Message[str])
    assert_type(raw.bind(parse), Result[Message[int], DeadLetter[OSError]])
    wider: Message[object] = order
    Message("a", "p", (1,)).bind(parse_text)
    raw.bind(parse_text)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    raw.with_value()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    narrower: Message[bool] = wider  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    raw.value = b""  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    Message(b"", "p", 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    position: Position = "1"  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    del narrower, position


def letters(letter: DeadLetter[OSError]) -> None:
    """Why, and which."""
    assert_type(letter.error, OSError)
    assert_type(letter.message, Message[object])
    DeadLetter("why", "a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def decoders() -> None:
    """A class is read from JSON."""
    assert_type(json_decoder(Order), Callable[[bytes], Result[Order, DecodeError]])
    assert_type(json_decoder(list[int])(b"[1]"), Result[list[int], DecodeError])
    json_decoder(Order)("{}")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    json_decoder(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def sources(driver: Driver, flush: Callable[[], object]) -> None:
    """Its items are Results, and the error type is that of decoding, and poison."""
    assert_type(Source(driver), Source[bytes, Never])
    assert_type(Source(driver, decode=Order, max_in_flight=9), Source[Order, DecodeError])
    assert_type(Source(driver, decode=list[int]), Source[list[int], DecodeError])
    source = Source(driver, decode=parse, max_deliveries=5, reconnect=RetryPolicy(3))
    assert_type(source, Source[int, OSError])
    stream = source.messages()
    assert_type(stream, ResultStream[Message[int], DeadLetter[OSError | TooManyDeliveries]])
    source.messages(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    async with source as same:
        assert_type(same, Source[int, OSError])
        async for received in source:
            match cases(received):
                case Success(message):
                    assert_type(message, Message[int])
                    source.nack(message, delay=5)
                case Failure(letter):
                    assert_type(letter, DeadLetter[OSError | TooManyDeliveries])
            assert_type(source.mark(), int)
            assert_type(source.reached(source.mark()), None)
    assert_type(source.statistics(), SourceStatistics)
    assert_type(source.statistics().oldest_unacknowledged, float)
    assert_type(source.drain(), None)
    assert_type(source.drain(within=timedelta(seconds=9)), None)
    assert_type(source.name, str)
    assert_type(source.flush_before_ack(source.settled), None)
    assert_type(source.reopen(PartitionsLost("orders", ("orders-0",))), None)
    assert_type(await source.settled(["p"]), None)
    async for partition in source.partitions():
        assert_type(partition, Partition[int, OSError])
        apart = partition.messages()
        assert_type(apart, ResultStream[Message[int], DeadLetter[OSError | TooManyDeliveries]])
        assert_type((partition.name, partition.is_open), tuple[str, bool])
        assert_type(partition.lost, asyncio.Future[None])
        partition.messages(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        other: Partition[int, Never] = partition  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
        del other
    assert_type(source.statistics().stalled_partitions, Mapping[str, float])
    source.partitions(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    wider: Source[float, Exception] = source
    narrower: Source[bool, OSError] = source  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    Source(5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    Source(driver, decode=5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    Source(driver, before_ack=flush)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    source.mark(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    source.reached()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    source.nack(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    source.reopen("orders-0")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    source.flush_before_ack(flush)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    source.drain(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    source.settled(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    source.statistics(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    SourceStatistics("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    del wider, narrower


def nats_streams() -> None:
    """A stream, and the drivers of its consumers."""
    stream = NatsStream(["nats://a", "nats://b"], "orders", subject="orders.*", ack_wait=60)
    assert_type(stream.driver("billing"), Driver)
    NatsStream("nats://a")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    stream.driver(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def kafka_topics() -> None:
    """A topic, and the drivers of its groups."""
    topic = KafkaTopic("localhost:9092", "orders", rebalance_timeout=30)
    assert_type(topic.driver("billing"), Driver)
    KafkaTopic("localhost:9092")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    topic.driver(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def rabbitmq_queues() -> None:
    """A queue, and its drivers."""
    queue = RabbitQueue("amqp://localhost", "orders", kind="classic")
    assert_type(queue.driver(), Driver)
    RabbitQueue("amqp://localhost")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    queue.driver("billing")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def redis_streams() -> None:
    """A stream, and the drivers of its groups."""
    stream = RedisStream("redis://localhost", "orders", field="json", lease=60)
    assert_type(stream.driver("billing"), Driver)
    RedisStream("redis://localhost")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    stream.driver(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


class Pool:
    """Not a pool of asyncpg."""


async def sinks(
    connection: SqlConnection,
    sink: TransactionalSink[Order, int, OSError],
    orders: Source[Order, DecodeError],
    texts: Source[bytes, Never],
    message: Message[Order],
) -> None:
    """A sink takes what its function takes, and fails as that does; it is given to a driver."""
    assert_type(await sink([message]), Result[int, OSError])
    windows = orders.messages().chunks_or_timeout(500, 2.0)
    stored = windows.bind_async(sink)
    assert_type(stored, ResultStream[int, DeadLetter[DecodeError | TooManyDeliveries] | OSError])
    assert_type(
        orders.messages().bind_async(sink),
        ResultStream[int, DeadLetter[DecodeError | TooManyDeliveries] | OSError],
    )
    texts.messages().bind_async(sink)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(PostgresLog("p://h/d", "o").driver("g", positions=sink), Driver)
    assert_type(KafkaTopic("h:1", "o").driver("g", positions=sink), Driver)
    # Nobody owns a partition there.
    NatsStream("h:1", "o").driver("g", positions=sink)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    RedisStream("h", "o").driver("g", positions=sink)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    RabbitQueue("h", "o").driver(positions=sink)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

    async def write(
        connection: SqlConnection, orders: list[Message[Order]]
    ) -> Result[str, OSError]:
        return Success("done")

    # Where asyncpg is not installed, its pool is `Any` for mypy.
    TransactionalSink(Pool(), "billing", write=write)  # type: ignore[arg-type, unused-ignore]  # pyright: ignore[reportArgumentType]
    sink(message.value)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def postgres(connection: SqlConnection) -> None:
    """A log is written in a transaction of one's own."""
    log = PostgresLog("postgresql://localhost/shop", "orders")
    assert_type(await log.create(partitions=4), None)
    assert_type(await log.append(connection, b"1", key=b"k", headers={"h": "v"}), None)
    assert_type(log.driver("billing"), Driver)
    assert_type(await connection.execute("SELECT 1"), object)
    PostgresLog("postgresql://localhost/shop")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    log.create("4")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    log.append(connection, "1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    log.driver(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    connection.execute(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    other: SqlConnection = log  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    del other


class OwnDriver:
    """A driver of one's own."""

    name = "own"
    positioned = False
    positions = None
    keep_alive = 10.0

    async def open(self, ownership: Ownership, /) -> None: ...
    async def fetch(self, room: int, /) -> list[Message[bytes]]:
        return []

    async def ack(self, messages: Sequence[Message[bytes]], /) -> None: ...
    async def note(self, notes: Mapping[str, str], /) -> None: ...
    async def extend(self, messages: Sequence[Message[bytes]], /) -> None: ...
    async def nack(self, message: Message[bytes], delay: float, /) -> None: ...
    async def watch(self) -> None: ...
    async def close(self) -> None: ...


class Poor:
    """Cannot fetch."""

    name = "poor"


async def drivers(
    driver: Driver, ownership: Ownership, message: Message[bytes], own: OwnDriver
) -> None:
    """What the protocols ask for."""
    same: Driver = own
    assert_type((driver.name, driver.positioned, driver.keep_alive), tuple[str, bool, float])
    assert_type(await driver.open(ownership), None)
    assert_type(await driver.fetch(5), Sequence[Message[bytes]])
    assert_type(await driver.ack([message]), None)
    assert_type(await driver.note({"p": "1"}), None)
    assert_type(await driver.extend([message]), None)
    assert_type(await driver.nack(message, 1.0), None)
    assert_type(await driver.watch(), None)
    assert_type(await driver.close(), None)
    assert_type(await ownership.settled(["p"]), bool)
    assert_type(ownership.out_of_credit(), None)
    assert_type(ownership.lag({"p": 5}), None)
    assert_type(ownership.noted("p", "1", (5,), (7,)), None)
    assert_type(ownership.fence(["p"]), None)
    ownership.fence()
    poor: Driver = Poor()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    other: Ownership = own  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    driver.open(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    driver.fetch("5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    driver.ack(message)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    driver.note({"p": 1})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    driver.extend(message)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    driver.nack([message], 1.0)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    driver.watch(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    driver.close(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    ownership.settled(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ownership.noted("p", 1, (5,), (7,))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ownership.lag("p")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ownership.out_of_credit(5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    ownership.fence(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    del same, poor, other


async def publishers(
    sender: Sender,
    orders: ResultStream[Order, OSError],
    read: ResultStream[Message[Order], OSError],
    write: Callable[[Order], bytes],
    letter: DeadLetter[DecodeError],
) -> None:
    """A publisher takes values of its type, with or without what else the broker is told."""
    any_value = Publisher(sender)
    assert_type(any_value, Publisher[object])
    publisher = Publisher(sender, encode=Order, request_timeout=5)
    assert_type(publisher, Publisher[Order])
    assert_type(Publisher(sender, encode=write), Publisher[Order])
    assert_type(await publisher.publish(Order(1)), Result[int, PublishError])
    assert_type(await publisher.publish_all([Outgoing(Order(1))]), Result[int, PublishError])
    await any_value.publish_all(["a", 1, Outgoing(Order(1), key=b"k")])
    await publisher.publish_all([Order(1), letter])
    assert_type(orders.bind_async(publisher.publish), ResultStream[int, OSError | PublishError])
    windows = read.chunks_or_timeout(500, 2.0)
    assert_type(
        windows.bind_async(publisher.publish_all), ResultStream[int, OSError | PublishError]
    )
    assert_type(publisher.statistics(), PublisherStatistics)
    async with publisher as entered:
        assert_type(entered, Publisher[Order])
    await publisher.publish("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await publisher.publish(Outgoing(1))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await publisher.publish_all(Order(1))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Publisher("nats://")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    Outgoing(1, key="k")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    PublisherStatistics(confirmed="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def senders(
    sender: Sender, connection: SenderConnection, batch: OutgoingBatch, sql: SqlConnection
) -> None:
    """Each broker has a sender; a sender answers by the numbers of messages."""
    log = PostgresLog("postgresql://here", "orders")
    redis, rabbit = RedisStream("redis://here", "orders"), RabbitQueue("amqp://here", "orders")
    nats, kafka = NatsStream("nats://here", "orders"), KafkaTopic("here:9092", "orders")
    assert_type(nats.sender("orders.new"), Sender)
    assert_type(kafka.sender(linger_ms=5), Sender)
    assert_type(redis.sender(replicas=1), Sender)
    assert_type(rabbit.sender(exchange="sales"), Sender)
    assert_type(log.sender(), Sender)
    assert_type(await log.append_all(sql, [Outgoing(b"1")]), None)
    for number, message in batch.unanswered():
        assert_type((number, message), tuple[int, Outgoing[bytes]])
        batch.refuse(number, "too large")
        batch.confirm(number)
    batch.confirm_all()
    batch.refuse_all("full")
    assert_type(OutgoingBatch([Outgoing(b"a")]).refused, dict[int, str])
    assert_type(await sender.connect(), SenderConnection)
    assert_type(await connection.send(batch), None)
    assert_type(await connection.close(), None)
    batch.confirm("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    batch.refuse("1", "")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    batch.refuse_all(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    batch.confirm_all(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    batch.unanswered(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    OutgoingBatch([Outgoing("a")])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await sender.connect(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await connection.send([])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    redis.sender(replicas="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nats.sender()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    kafka.sender("orders")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    rabbit.sender("sales")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    log.sender("orders")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await log.append_all(sql, [b"1"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    connector: SenderConnection = sender  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    own: Sender = connection  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    del connector, own


async def stored_positions(
    positions: Positions,
    coverage: Coverage,
    ownership: Ownership,
    sink: TransactionalSink[Order, int, OSError],
    window: list[Message[Order]],
) -> None:
    """What stores positions, and the source that says which."""
    same: Positions = sink
    assert_type(positions.attach(coverage), None)
    assert_type(positions.detach(), None)
    assert_type(sink.attach(coverage), None)
    assert_type(sink.detach(), None)
    taken = await positions.take("kafka orders/billing", ["orders-0"])
    assert_type(taken, Mapping[str, TakenPartition])
    assert_type(taken["orders-0"].epoch, int)
    assert_type(coverage.covered(window), Sequence[HandledPositions])
    assert_type(coverage.covered(window)[0].name, str)
    assert_type(coverage.committed(window), None)
    assert_type(await ownership.positions({"orders-0": ""}), Mapping[str, Position])
    assert_type(ownership.paused(), Collection[str])
    ownership.paused("orders-0")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    other: Positions = coverage  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    wrong: Coverage = positions  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    positions.attach(window)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    positions.detach(coverage)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    sink.attach(window)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    sink.detach(coverage)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    coverage.covered()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    coverage.committed()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    ownership.positions("orders-0")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    TakenPartition("1", taken["orders-0"].spans)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    HandledPositions("kafka orders/billing", "orders-0")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    del same, other, wrong
