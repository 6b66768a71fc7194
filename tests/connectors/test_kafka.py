"""`connectors.kafka`: the conformance suite, on a broker that speaks the protocol of Kafka."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

aiokafka = pytest.importorskip("aiokafka", reason="needs the package aiokafka")

from apart import join_while_one_is_stuck
from connecting import within
from stuck_sink import check_stuck_sink
from tansu import Topic, server

from returns_pipeline.connectors import Outgoing, Publisher, Source, _kafka_sender
from returns_pipeline.connectors.kafka import KafkaTopic
from returns_pipeline.errors import InvalidArgument
from returns_pipeline.retry import RetryPolicy
from returns_pipeline.testing import check_connector, check_publisher

if TYPE_CHECKING:
    from returns_pipeline.connectors import Driver

__all__ = ["server"]

IS_OLD = tuple(map(int, aiokafka.__version__.split(".")[:2])) < (0, 13)


@pytest.mark.slow
def test_a_topic_keeps_the_contract(server: str) -> None:
    check = check_connector(lambda: Topic(server).create(), patience=60, quiet=1.0, concurrency=5)
    asyncio.run(check)


@pytest.mark.slow
def test_publishing_to_a_topic_keeps_the_contract(server: str) -> None:
    check = check_publisher(lambda: Topic(server).create(), patience=60, quiet=0.3, concurrency=5)
    asyncio.run(check)


def test_a_message_has_its_key_its_headers_its_time_and_its_offset(server: str) -> None:
    async def main() -> None:
        topic = await Topic(server, 1).create()
        await topic.producer.send_and_wait(topic.name, b"a", key=b"k", headers=[("n", b"1")])
        async with Source(topic.driver()) as source:
            message = (await anext(source)).unwrap()
            assert (message.value, message.partition, message.position) == (
                b"a",
                f"{topic.name}-0",
                (0,),
            )
            assert (message.key, message.headers) == (b"k", {"n": "1"})
            assert source.statistics().lag == {message.partition: 0}
            assert (message.timestamp or 0) > 1_700_000_000
        await topic.remove()

    within(main())


def test_what_arrives_while_its_partition_is_assigned_is_emitted(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fetch that began before a rebalance may return messages of what it has assigned."""
    real = aiokafka.AIOKafkaConsumer.getmany
    rebalances = iter(range(2))

    async def main() -> None:
        topic = await Topic(server, 1).create()
        await topic.publish([str(number).encode() for number in range(5)])
        driver: Any = topic.driver()

        async def getmany(consumer: Any, **options: Any) -> Any:
            for _ in rebalances:
                await driver.on_revoked({0})
                driver.on_assigned({0})
            return await real(consumer, **options)

        monkeypatch.setattr(aiokafka.AIOKafkaConsumer, "getmany", getmany)
        async with Source(driver, max_in_flight=3) as source:
            for number in range(5):
                assert (await anext(source)).unwrap().position == (number,)
                source.reached(source.mark())
        await topic.remove()

    within(main())


def test_what_a_topic_does_not_take_is_refused_and_the_rest_is_there(server: str) -> None:
    async def main() -> None:
        topic = await Topic(server, 2).create()
        window = [
            Outgoing(b"1", partition=0),
            Outgoing(b"2", partition=7),
            Outgoing(b"x" * 2_000_000, partition=0),
            Outgoing(b"4", key=b"k", partition=0, headers={"n": "1"}),
        ]
        async with Publisher(topic.sender(), encode=bytes) as publisher:
            error = (await publisher.publish_all(window)).failure()
            assert (error.refused, error.unconfirmed) == ((1, 2), ())
            assert publisher.statistics().connections == 1
        async with Source(topic.driver()) as source:
            found = [(await anext(source)).unwrap() for _ in range(2)]
            assert [message.value for message in found] == [b"1", b"4"]
            assert (found[1].key, found[1].headers) == (b"k", {"n": "1"})
        await topic.remove()

    within(main())


def test_a_place_that_kafka_does_not_have_is_refused_and_the_connection_stays(server: str) -> None:
    async def main() -> None:
        topic = await Topic(server, 1).create()
        places: list[dict[str, Any]] = [
            {},
            {"destination": ""},
            {"destination": "."},
            {"destination": ".."},
            {"destination": "a b"},
            {"destination": "x" * 250},
            {"partition": -1},
            {"partition": 1},
            {"destination": f"{topic.name}", "partition": 0},
        ]
        async with Publisher(topic.sender(), encode=bytes) as publisher:
            others = asyncio.ensure_future(publisher.publish_all([b"other"] * 100))
            window = [Outgoing(b"%d" % number, **place) for number, place in enumerate(places)]
            error = (await publisher.publish_all(window)).failure()
            assert (error.refused, error.unconfirmed) == (tuple(range(1, 8)), ())
            assert error.reason.startswith("'' cannot name a topic: 1 to 249 letters")
            error = (await publisher.publish(window[6])).failure()
            assert error.reason == f"there is no partition -1 of {topic.name!r}"
            assert (await others).unwrap() == 100
            assert publisher.statistics().connections == 1
        async with Source(topic.driver()) as source:
            found = [(await anext(source)).unwrap().value for _ in range(102)]
            assert {*found} == {b"0", b"other", b"8"}
        await topic.remove()

    within(main())


def test_a_partition_that_is_new_is_found(server: str) -> None:
    async def main() -> None:
        topic = await Topic(server, 1).create()
        async with Publisher(topic.sender(), encode=bytes) as publisher:
            assert (await publisher.publish(b"1")).unwrap() == 1
            topic.partitions = 3
            await topic.create_again()  # Tansu adds none to a topic
            assert (await publisher.publish(Outgoing(b"2", partition=2))).unwrap() == 1
            assert publisher.statistics().connections == 1
        await topic.remove()

    within(main())


@pytest.mark.skipif(IS_OLD, reason="aiokafka before 0.13 always has topics made")
def test_a_topic_that_does_not_exist_is_refused_unless_it_is_made_soon(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = aiokafka.client.MetadataRequest
    makes_none = partial(request, allow_auto_topic_creation=False)
    monkeypatch.setattr(aiokafka.client, "MetadataRequest", makes_none)

    async def main() -> None:
        topic = await Topic(server, 1).create()
        late = Topic(server, 1)
        window = [Outgoing(b"1"), Outgoing(b"2", destination=late.name, partition=0)]
        async with Publisher(topic.sender(), encode=bytes) as publisher:
            publishing = asyncio.ensure_future(publisher.publish_all(window))
            await asyncio.sleep(0.3)
            assert (await publisher.publish(b"other")).unwrap() == 1
            assert not publishing.done()
            _ = await late.create()
            assert (await publishing).unwrap() == 2

            monkeypatch.setattr(_kafka_sender, "_MADE", 0.3)
            nowhere = Outgoing(b"3", destination=f"{topic.name}-not")
            error = (await publisher.publish_all([b"4", nowhere])).failure()
            assert error.refused == (1,)
            assert error.reason == f"there is no topic {nowhere.destination!r}"
            assert publisher.statistics().connections == 1
        async with Source(late.driver()) as source:
            assert (await anext(source)).unwrap().value == b"2"
        await topic.remove()
        await late.remove()

    within(main())


@pytest.mark.slow
def test_a_reader_that_is_slower_than_the_poll_interval_keeps_its_partitions(server: str) -> None:
    async def main() -> None:
        topic = await Topic(server, 2).create()
        await topic.publish([str(number).encode() for number in range(8)])
        driver: Any = topic.driver(max_poll_interval_ms=2000)
        async with Source(driver, max_in_flight=2) as source:
            found = [(await anext(source)).unwrap().value for _ in range(2)]
            await asyncio.sleep(4)
            for _ in range(6):
                source.reached(source.mark())
                found.append((await anext(source)).unwrap().value)
            source.reached(source.mark())
            await source.settled()
            assert driver._revocations == 0
            assert Counter(found) == Counter(str(number).encode() for number in range(8))
            assert source.statistics().fenced == 0
            assert source.statistics().connections == 1
        await topic.remove()

    within(main())


@pytest.mark.slow
def test_a_commit_that_is_refused_fences_and_begins_at_what_is_committed(server: str) -> None:
    async def main() -> None:
        topic = await Topic(server, 1).create()
        await topic.publish([b"a", b"b", b"c"])
        driver: Any = topic.driver()
        soon = RetryPolicy(attempts=100, wait=0.1)
        async with Source(driver, reconnect=soon) as source:
            _ = [await anext(source) for _ in range(3)]

            async def refuse(offsets: object) -> None:
                raise aiokafka.errors.CommitFailedError

            driver._consumer.commit = refuse
            source.reached(2)
            again = [(await anext(source)).unwrap().value for _ in range(3)]
            assert again == [b"a", b"b", b"c"]
            assert source.statistics().refused == 2
            source.reached(source.mark())
            await source.settled()
        await topic.remove()

    within(main())


def test_arguments_out_of_range_are_refused_at_the_call() -> None:
    with pytest.raises(InvalidArgument, match="rebalance_timeout"):
        KafkaTopic("nowhere", "t", rebalance_timeout=0)
    for name in ("", ".", "..", "a b", "a/b", "ü", "x" * 250, "a\n"):
        with pytest.raises(InvalidArgument, match="cannot name a topic: 1 to 249 letters"):
            KafkaTopic("nowhere", name)
    assert KafkaTopic("nowhere", "x" * 249).sender().name == "kafka " + "x" * 249
    with pytest.raises(InvalidArgument, match="group"):
        KafkaTopic("nowhere", "t").driver("")


@pytest.mark.slow
def test_partitions_are_read_apart_while_another_worker_joins(server: str) -> None:
    async def main() -> None:
        topic = await Topic(server, 4).create()
        await join_while_one_is_stuck(topic)
        await topic.remove()

    within(main())


@pytest.mark.slow
def test_a_rebalance_that_takes_long_is_not_taken_for_a_lost_connection(server: str) -> None:
    """One member has messages in flight; one that had joined waits for it, and one that joins."""

    async def main() -> None:
        topic = await Topic(server, 3).create()
        await topic.publish([str(number).encode() for number in range(12)])
        options: dict[str, Any] = {"request_timeout": 1.5, "settle_timeout": 50}
        found: list[bytes] = []

        async def read(source: Source[bytes, Any]) -> None:
            async for message in source:
                found.append(message.unwrap().value)
                source.reached(source.mark())
                if len(found) == 12:
                    everything.set()

        async with Source(topic.driver(), max_in_flight=1, **options) as slow:
            everything = asyncio.Event()
            found.append((await anext(slow)).unwrap().value)
            async with Source(topic.driver(), **options) as second:
                tasks = [asyncio.ensure_future(read(second))]
                await asyncio.sleep(2.5)
                async with Source(topic.driver(), **options) as third:
                    tasks.append(asyncio.ensure_future(read(third)))
                    await asyncio.sleep(2.5)
                    assert len(found) == 1
                    slow.reached(slow.mark())
                    tasks.append(asyncio.ensure_future(read(slow)))
                    await asyncio.wait_for(everything.wait(), 20)
                    for source in (slow, second, third):
                        assert source.statistics().connections == 1
                        assert source.statistics().fenced == 0
                    for task in tasks:
                        task.cancel()
                    await asyncio.wait(tasks)
        assert sorted(found, key=int) == [str(number).encode() for number in range(12)]
        await topic.remove()

    within(main())


@pytest.mark.slow
def test_a_member_that_ends_while_others_delay_its_joining_leaves_nothing_open(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_kafka_sender, "LEAVE", 0.1)

    async def main() -> None:
        topic = await Topic(server, 1).create()
        await topic.publish([b"1", b"2"])
        async with Source(topic.driver(), max_in_flight=1, settle_timeout=50) as slow:
            _ = await anext(slow)
            before = asyncio.all_tasks()
            async with Source(topic.driver()) as joining:
                while joining.statistics().connections == 0:
                    await asyncio.sleep(0.02)
                await asyncio.sleep(0.2)
            left = {repr(task.get_coro()) for task in asyncio.all_tasks() - before}
            assert not [each for each in left if "Client" in each or "Fetcher" in each], left
            slow.reached(slow.mark())
            assert (await anext(slow)).unwrap().value == b"2"
        await topic.remove()

    within(main())


class Frugal(Topic):
    """A topic of which not much is read ahead. Tansu ignores the limit of each partition."""

    def driver(self, **options: Any) -> Driver:
        chosen: dict[str, Any] = {"fetch_max_bytes": 500_000} | options
        return super().driver(**chosen)


@pytest.mark.slow
def test_memory_is_flat_while_a_sink_is_stuck(server: str) -> None:
    async def main() -> None:
        await check_stuck_sink(await Frugal(server).create())

    within(main())
