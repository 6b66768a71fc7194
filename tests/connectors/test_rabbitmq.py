"""`connectors.rabbitmq`: the conformance suite, and tags of old connections."""

from __future__ import annotations

import asyncio
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

aiormq = pytest.importorskip("aiormq", reason="needs the package aiormq")

from connecting import SOON, Proxied, check_lag, within
from own_brokers import OwnRabbit
from servers import absent
from stuck_sink import check_stuck_sink

from returns_pipeline.connectors import Outgoing, Publisher, Source, rabbitmq
from returns_pipeline.connectors._sender import OutgoingBatch
from returns_pipeline.connectors.rabbitmq import (
    RabbitQueue,
    _translated,  # pyright: ignore[reportPrivateUsage]
)
from returns_pipeline.errors import ConnectionLost, InvalidArgument
from returns_pipeline.testing import check_connector, check_publisher

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from returns_pipeline.connectors import Driver, Sender

SERVER = os.environ.get("RETURNS_PIPELINE_RABBITMQ", "127.0.0.1:5672")


class Queue(Proxied):
    """A queue of its own on the server, reached through a proxy."""

    def __init__(self) -> None:
        super().__init__(SERVER)

    async def create(self) -> Queue:
        try:
            self.connection = await aiormq.connect(f"amqp://guest:guest@{SERVER}/")
        except OSError as error:
            absent(f"RabbitMQ at {SERVER}: {error}")
        self.channel = await self.connection.channel()
        arguments = {"x-queue-type": "quorum"}
        await self.channel.queue_declare(self.name, durable=True, arguments=arguments)
        address = f"amqp://guest:guest@{await self.open_proxy()}/"
        self.queue = RabbitQueue(address, self.name)
        return self

    def driver(self) -> Driver:
        return self.queue.driver()

    def sender(self) -> Sender:
        return self.queue.sender()

    async def publish(self, values: Sequence[bytes], /) -> None:
        for value in values:
            await self.channel.basic_publish(value, routing_key=self.name)

    async def remove(self) -> None:
        await self.channel.queue_delete(self.name)
        await self.connection.close()
        await self.close_proxy()


@pytest.mark.slow
def test_a_queue_keeps_the_contract() -> None:
    async def main() -> None:
        await check_connector(lambda: Queue().create(), disconnect=Queue.disconnect, concurrency=10)

    asyncio.run(main())


@pytest.mark.slow
def test_publishing_to_a_queue_keeps_the_contract() -> None:
    async def main() -> None:
        await check_publisher(
            lambda: Queue().create(), disconnect=Queue.disconnect, quiet=0.3, concurrency=10
        )

    asyncio.run(main())


def test_a_message_has_its_headers_and_its_deliveries() -> None:
    async def main() -> None:
        queue = await Queue().create()
        properties = aiormq.spec.Basic.Properties(headers={"n": 1, "s": "x"})
        await queue.channel.basic_publish(b"a", routing_key=queue.name, properties=properties)
        async with Source(queue.driver()) as source:
            for deliveries in (1, 2, 3):
                message = (await anext(source)).unwrap()
                assert (message.value, message.partition) == (b"a", queue.name)
                assert message.headers == {"n": "1", "s": "x"}
                assert message.deliveries == deliveries
                source.nack(message)
        await queue.remove()

    within(main())


def test_a_tag_of_a_lost_connection_acknowledges_nothing_on_the_next() -> None:
    async def main() -> None:
        queue = await Queue().create()
        await queue.publish([b"1", b"2", b"3", b"4"])
        async with Source(queue.driver(), reconnect=SOON) as source:
            _ = [await anext(source) for _ in range(4)]
            mark = source.mark()
            await queue.disconnect()
            while source.statistics().connections < 2:
                await asyncio.sleep(0.01)
            again = [(await anext(source)).unwrap().value for _ in range(4)]
            source.reached(mark)  # of the old connection
            await asyncio.sleep(0.3)
            found = source.statistics()
            assert sorted(again) == [b"1", b"2", b"3", b"4"]
            assert (found.fenced, found.acknowledged) == (4, 0)
            source.reached(source.mark())
            await source.settled()
            assert source.statistics().connections == 2
        await queue.remove()

    within(main())


def test_a_message_that_no_queue_takes_is_returned_and_refused() -> None:
    async def main() -> None:
        queue = await Queue().create()
        window = [Outgoing(b"1"), Outgoing(b"2", destination=f"{queue.name}-not"), Outgoing(b"3")]
        async with Publisher(queue.sender(), encode=bytes) as publisher:
            error = (await publisher.publish_all(window)).failure()
            assert (error.refused, error.unconfirmed) == ((1,), ())
            assert error.reason.startswith("no queue takes it: ")
            assert publisher.statistics().connections == 1
        async with Source(queue.driver()) as source:
            found = [(await anext(source)).unwrap() for _ in range(2)]
            assert [message.value for message in found] == [b"1", b"3"]
            assert (found[0].timestamp or 0) > 1_700_000_000
        await queue.remove()

    within(main())


def test_what_the_protocol_cannot_carry_is_refused_and_the_connection_stays() -> None:
    async def main() -> None:
        queue = await Queue().create()
        most = {f"{number}".rjust(128, "n"): "y" * 12_900 for number in range(10)}
        window = [
            Outgoing(b"1", headers={"n" * 129: "x"}),
            Outgoing(b"2", headers={"n": "x" * 131_000}),
            Outgoing(b"3", destination="d" * 256),
            Outgoing(b"4", headers=most),
            Outgoing(b"5"),
            Outgoing(b"6", headers={"CC": "x"}),
            Outgoing(b"7", headers={"BCC": "x"}),
        ]
        async with Publisher(queue.sender(), encode=bytes) as publisher:
            error = (await publisher.publish_all(window)).failure()
            assert (error.refused, error.unconfirmed) == ((0, 1, 2, 5, 6), ())
            assert error.reason == "the name of a header has at most 128 bytes"
            assert publisher.statistics().connections == 1
        async with Source(queue.driver()) as source:
            found = [(await anext(source)).unwrap() for _ in range(2)]
            assert [message.value for message in found] == [b"4", b"5"]
            assert found[0].headers == most
        await queue.remove()

    within(main())


@pytest.mark.slow
def test_what_is_too_large_for_the_server_is_refused_and_disturbs_nobody(tmp_path: Path) -> None:
    async def main(url: str) -> None:
        queue = RabbitQueue(url, "orders")
        sizes = [*range(1, 12), 20, 1001, 5, 1000, 999, 1200, 1000, 3, 1002, 7]
        others = [b"other-%d" % number for number in range(300)]
        async with Publisher(queue.sender(), encode=bytes) as publisher:
            calls = [publisher.publish(each) for each in others[:150]]
            window = publisher.publish_all([b"x" * size for size in sizes])
            calls += [publisher.publish(each) for each in others[150:]]
            failed, *done = await asyncio.gather(window, *calls)
            assert {each.unwrap() for each in done} == {1}
            error = failed.failure()
            refused = tuple(number for number, size in enumerate(sizes) if size > 1000)
            assert (error.refused, error.unconfirmed) == (refused, ())
            assert "1001 is larger than configured max size 1000" in error.reason
            error = (await publisher.publish(b"x" * 1001)).failure()
            assert error.reason == "a message of 1001 bytes was too large for the server"
            found = publisher.statistics()
            assert (found.connections, found.refused) == (1, 4)
        wanted = [size for size in sizes if size <= 1000]
        async with Source(queue.driver()) as source:
            read = [(await anext(source)).unwrap().value for _ in range(300 + len(wanted))]
            assert sorted(value for value in read if value[0] == ord("o")) == sorted(others)
            assert [len(value) for value in read if value[0] == ord("x")] == wanted
            source.reached(source.mark())
            await source.settled()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    _ = await anext(source)

    with OwnRabbit(tmp_path, "max_message_size = 1000") as server:
        within(main(f"amqp://guest:guest@127.0.0.1:{server.port}/"))


def test_a_queue_that_is_full_refuses() -> None:
    async def main() -> None:
        queue = await Queue().create()
        name = f"{queue.name}-full"
        arguments = {"x-max-length": 2, "x-overflow": "reject-publish"}
        await queue.channel.queue_declare(name, durable=True, arguments=arguments)
        exchange = f"{queue.name}-exchange"
        await queue.channel.exchange_declare(exchange=exchange, exchange_type="topic")
        await queue.channel.queue_bind(name, exchange, routing_key="full.#")
        full = RabbitQueue(f"amqp://guest:guest@{SERVER}/", "full.up")
        async with Publisher(full.sender(exchange=exchange), encode=bytes) as publisher:
            error = (await publisher.publish_all([b"1", b"2", b"3"])).failure()
            assert (error.refused, error.unconfirmed) == ((2,), ())
            assert error.reason == "the queue does not take it"
        await queue.channel.queue_delete(name)
        await queue.channel.exchange_delete(exchange)
        await queue.remove()

    within(main())


def test_an_exchange_that_does_not_exist_is_refused_unless_it_is_made_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        queue = await Queue().create()
        exchange = f"{queue.name}-exchange"
        sender = queue.queue.sender(exchange=exchange)
        async with Publisher(sender, encode=bytes) as publisher:
            publishing = asyncio.ensure_future(publisher.publish_all([b"1", b"2"]))
            await asyncio.sleep(0.3)
            assert not publishing.done()
            await queue.channel.exchange_declare(exchange=exchange, exchange_type="fanout")
            await queue.channel.queue_bind(queue.name, exchange)
            assert (await publishing).unwrap() == 2

            monkeypatch.setattr(rabbitmq, "_MADE", 0.3)
            await queue.channel.exchange_delete(exchange)
            calls = [publisher.publish_all([b"%d" % number, b"x"]) for number in range(3)]
            for outcome in await asyncio.gather(*calls):
                error = outcome.failure()
                assert (error.refused, error.unconfirmed) == ((0, 1), ())
                assert error.reason == f"there is no exchange {exchange!r}"
            assert publisher.statistics().connections == 2  # the channel was closed with it
            await queue.channel.exchange_declare(exchange=exchange, exchange_type="fanout")
            await queue.channel.queue_bind(queue.name, exchange)
            assert (await publisher.publish(b"3")).unwrap() == 1
            assert publisher.statistics().connections == 2
        await queue.channel.exchange_delete(exchange)
        await queue.remove()

    within(main())


def test_the_lag_is_what_the_queue_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("returns_pipeline.connectors._lag.EVERY", 0.02)

    async def main() -> None:
        queue = await Queue().create()
        await check_lag(queue, queue.name)

    within(main())


def test_a_queue_of_another_type_is_refused() -> None:
    async def main() -> None:
        queue = await Queue().create()
        other = RabbitQueue(f"amqp://guest:guest@{SERVER}/", queue.name, kind="classic")
        async with Source(other.driver()) as source:
            with pytest.raises(InvalidArgument, match="another queue"):
                _ = await anext(source)
        await queue.remove()

    within(main())


def test_arguments_out_of_range_are_refused_at_the_call() -> None:
    with pytest.raises(InvalidArgument, match="queue"):
        RabbitQueue("amqp://nowhere", "")
    with pytest.raises(InvalidArgument, match="kind"):
        RabbitQueue("amqp://nowhere", "q", kind="stream")


def test_a_connection_that_has_ended_before_a_message_is_tried_is_lost() -> None:
    async def main() -> None:
        queue = await Queue().create()
        connection: Any = await queue.sender().connect()
        await connection.send(OutgoingBatch([Outgoing(b"1")]))
        await connection._connection.close()
        with pytest.raises(ConnectionLost, match="the connection was closed"):
            await connection._try(Outgoing(b"22"))
        await connection.close()
        await queue.remove()

    within(main())


def test_an_exception_without_a_class_of_its_own_is_a_lost_connection() -> None:
    # aiormq raises it where a call meets the end of the connection.
    with pytest.raises(ConnectionLost, match="connection has ended"), _translated("rabbitmq shop"):
        raise Exception
    with pytest.raises(KeyError), _translated("rabbitmq shop"):
        raise KeyError


def test_a_fetch_returns_what_arrives_within_a_few_turns_of_the_loop() -> None:
    async def main() -> None:
        driver: Any = RabbitQueue("amqp://nowhere", "q").driver()
        driver._is_consuming = True
        driver._connection = driver._channel = SimpleNamespace(is_closed=False)

        async def deliver() -> None:
            for tag in range(1, 6):
                for _ in range(3):  # as when aiormq reads from its socket
                    await asyncio.sleep(0)
                header = SimpleNamespace(properties=SimpleNamespace(headers=None, timestamp=None))
                message = {"body": b"x", "redelivered": False, "header": header}
                driver._arrived.append(SimpleNamespace(delivery_tag=tag, **message))
                driver._changed.set()

        delivering = asyncio.ensure_future(deliver())
        assert [each.receipt for each in await driver.fetch(4)] == [1, 2, 3, 4]
        assert [each.receipt for each in await driver.fetch(4)] == [5]
        await delivering

    within(main())


@pytest.mark.slow
def test_memory_is_flat_while_a_sink_is_stuck() -> None:
    async def main() -> None:
        await check_stuck_sink(await Queue().create())

    within(main())
