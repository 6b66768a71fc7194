"""`connectors.redis`: the conformance suite, and what an entry may be."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import pytest

redis = pytest.importorskip("redis.asyncio", reason="needs the package redis")

from connecting import Proxied, check_lag, within
from servers import absent
from stuck_sink import check_stuck_sink

from returns_pipeline.connectors import Outgoing, Publisher, Source
from returns_pipeline.connectors.redis import RedisStream
from returns_pipeline.errors import InvalidArgument
from returns_pipeline.retry import RetryPolicy
from returns_pipeline.testing import check_connector, check_publisher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from returns_pipeline.connectors import Driver, Sender

SERVER = os.environ.get("RETURNS_PIPELINE_REDIS", "127.0.0.1:6379")


class Stream(Proxied):
    """A stream of its own on the server, reached through a proxy."""

    def __init__(self) -> None:
        super().__init__(SERVER)

    async def create(self, **options: Any) -> Stream:
        self.client = redis.Redis.from_url(f"redis://{SERVER}/0")
        try:
            await self.client.ping()
        except (OSError, redis.ConnectionError) as error:
            absent(f"Redis at {SERVER}: {error}")
        address = f"redis://{await self.open_proxy()}/0"
        chosen: dict[str, Any] = {"lease": 1.0} | options
        self.stream = RedisStream(address, self.name, **chosen)
        return self

    def driver(self) -> Driver:
        return self.stream.driver("group")

    def sender(self) -> Sender:
        return self.stream.sender()

    async def publish(self, values: Sequence[bytes], /) -> None:
        for value in values:
            await self.client.xadd(self.name, {"value": value})

    async def remove(self) -> None:
        await self.client.delete(self.name)
        await self.client.aclose()
        await self.close_proxy()


@pytest.mark.slow
def test_a_stream_keeps_the_contract() -> None:
    async def main() -> None:
        await check_connector(
            lambda: Stream().create(), disconnect=Stream.disconnect, concurrency=10
        )

    asyncio.run(main())


@pytest.mark.slow
def test_publishing_to_a_stream_keeps_the_contract() -> None:
    async def main() -> None:
        await check_publisher(
            lambda: Stream().create(), disconnect=Stream.disconnect, quiet=0.3, concurrency=10
        )

    asyncio.run(main())


def test_a_message_has_its_fields_its_time_and_its_number() -> None:
    async def main() -> None:
        stream = await Stream().create()
        number = await stream.client.xadd(stream.name, {"value": b"a", "n": "1"})
        await stream.client.xadd(stream.name, {"other": b"b"})
        async with Source(stream.driver()) as source:
            message = (await anext(source)).unwrap()
            place = tuple(int(part) for part in number.decode().split("-"))
            assert (message.value, message.partition, message.position) == (
                b"a",
                stream.name,
                place,
            )
            assert message.headers == {"n": "1"}
            assert message.timestamp == place[0] / 1000
            without = (await anext(source)).unwrap()
            assert (without.value, without.headers) == (b"", {"other": "b"})
        await stream.remove()

    within(main())


def test_an_entry_of_a_process_that_was_killed_is_claimed_and_its_deliveries_are_counted() -> None:
    async def main() -> None:
        stream = await Stream().create()
        await stream.publish([b"a"])
        await stream.client.xgroup_create(stream.name, "group", "0")
        _ = await stream.client.xreadgroup("group", "killed", {stream.name: ">"})
        async with Source(stream.driver(), max_deliveries=1) as source:
            letter = (await anext(source)).failure()
            assert letter.message.value == b"a"
            assert letter.message.deliveries == 2
        await stream.remove()

    within(main())


def test_a_consumer_that_has_ended_is_not_left_in_the_group() -> None:
    async def main() -> None:
        stream = await Stream().create()
        await stream.publish([b"a"])
        async with Source(stream.driver()) as source:
            _ = await anext(source)
            source.reached(1)
        assert await stream.client.xinfo_consumers(stream.name, "group") == []
        await stream.remove()

    within(main())


def test_a_stream_that_is_deleted_while_it_is_read_is_read_on() -> None:
    async def main() -> None:
        stream = await Stream().create()
        await stream.publish([b"1"])
        soon = RetryPolicy(attempts=1000, wait=0.1)
        async with Source(stream.driver(), reconnect=soon) as source:
            assert (await anext(source)).unwrap().value == b"1"
            source.reached(source.mark())
            await source.settled()
            await asyncio.sleep(0.2)  # it waits for more
            await stream.client.delete(stream.name)
            await stream.publish([b"2"])
            assert (await anext(source)).unwrap().value == b"2"
        await stream.remove()

    within(main())


def test_the_lag_is_what_the_group_has_not_got(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("returns_pipeline.connectors._lag.EVERY", 0.02)

    async def main() -> None:
        stream = await Stream().create()
        await stream.client.xgroup_create(stream.name, "another", "$", mkstream=True)
        await check_lag(stream, stream.name)

    within(main())


def test_a_user_who_may_not_ask_for_the_lag_reads_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("returns_pipeline.connectors._lag.EVERY", 0.02)

    async def main() -> None:
        stream = await Stream().create()
        rights = ["on", ">secret", "~*", "+@all", "-xinfo"]
        await stream.client.execute_command("ACL", "SETUSER", stream.name, *rights)
        limited = RedisStream(f"redis://{stream.name}:secret@{SERVER}/0", stream.name)
        await stream.publish([b"1", b"2"])
        async with Source(limited.driver("group")) as source:
            _ = await anext(source)
            await asyncio.sleep(0.1)
            assert (await anext(source)).unwrap().value == b"2"
            found = source.statistics()
            assert (dict(found.lag), found.connections) == ({}, 1)
        await stream.client.execute_command("ACL", "DELUSER", stream.name)
        await stream.remove()

    within(main())


def test_a_window_is_one_transaction_and_another_type_refuses_its_entries() -> None:
    async def main() -> None:
        stream = await Stream().create()
        await stream.client.set(f"{stream.name}-text", "a")
        window = [
            Outgoing(b"1", headers={"n": "1"}),
            Outgoing(b"2", headers={"value": "taken"}),
            Outgoing(b"3", destination=f"{stream.name}-text"),
            Outgoing(b"4"),
        ]
        async with Publisher(stream.sender(), encode=bytes) as publisher:
            error = (await publisher.publish_all(window)).failure()
            assert (error.refused, error.unconfirmed) == ((1, 2), ())
            assert error.reason == "the field 'value' has the payload"
            assert "WRONGTYPE" in (await publisher.publish(window[2])).failure().reason
            assert publisher.statistics().connections == 1
        found = [fields for _, fields in await stream.client.xrange(stream.name)]
        assert found == [{b"value": b"1", b"n": b"1"}, {b"value": b"4"}]
        await stream.client.delete(f"{stream.name}-text")
        await stream.remove()

    within(main())


def test_arguments_out_of_range_are_refused_at_the_call() -> None:
    with pytest.raises(InvalidArgument, match="lease"):
        RedisStream("redis://nowhere", "s", lease=0)
    with pytest.raises(InvalidArgument, match="stream"):
        RedisStream("redis://nowhere", "")
    with pytest.raises(InvalidArgument, match="replicas"):
        RedisStream("redis://nowhere", "s").sender(replicas=-1)
    with pytest.raises(InvalidArgument, match="group"):
        RedisStream("redis://nowhere", "s").driver("")


@pytest.mark.slow
def test_memory_is_flat_while_a_sink_is_stuck() -> None:
    async def main() -> None:
        await check_stuck_sink(await Stream().create())

    within(main())
