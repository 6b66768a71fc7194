"""Brokers that are killed while a publisher writes: what they have confirmed is there."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

nats = pytest.importorskip("nats", reason="needs the package nats-py")
redis = pytest.importorskip("redis.asyncio", reason="needs the package redis")
aiormq = pytest.importorskip("aiormq", reason="needs the package aiormq")

from own_brokers import OwnBroker, OwnNats, OwnRabbit, OwnRedis
from returns.result import Failure

from returns_pipeline.connectors import Publisher, Sender, Source
from returns_pipeline.connectors.nats import NatsStream
from returns_pipeline.connectors.rabbitmq import RabbitQueue
from returns_pipeline.connectors.redis import RedisStream
from returns_pipeline.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from returns_pipeline.connectors import Driver

pytestmark = pytest.mark.slow

SOON = RetryPolicy(attempts=1000, wait=0.1, total_timeout=60)


async def on_nats(port: int) -> tuple[Sender, Driver]:
    client = await nats.connect(f"nats://127.0.0.1:{port}")
    await client.jetstream().add_stream(name="orders", subjects=["orders.>"])
    await client.close()
    stream = NatsStream(f"nats://127.0.0.1:{port}", "orders")
    return stream.sender("orders.new"), stream.driver("group")


async def on_redis(port: int) -> tuple[Sender, Driver]:
    stream = RedisStream(f"redis://127.0.0.1:{port}/0", "orders")
    return stream.sender(), stream.driver("group")


async def on_rabbit(port: int) -> tuple[Sender, Driver]:
    # Quorum queues of one node were seen to find no leader when RabbitMQ 3.10 started again.
    queue = RabbitQueue(f"amqp://guest:guest@127.0.0.1:{port}/", "orders", kind="classic")
    return queue.sender(), queue.driver()


async def read_all(driver: Driver, quiet: float = 1.5) -> Counter[bytes]:
    found: Counter[bytes] = Counter()
    async with Source(driver, max_in_flight=100_000) as source:
        try:
            while True:
                async with asyncio.timeout(quiet):
                    found[(await anext(source)).unwrap().value] += 1
        except TimeoutError:
            return found


@pytest.mark.parametrize(
    ("kind", "open_one"), [(OwnNats, on_nats), (OwnRedis, on_redis), (OwnRabbit, on_rabbit)]
)
def test_what_a_broker_has_confirmed_is_there_after_it_was_killed(
    kind: type[OwnBroker], open_one: Callable[[int], Awaitable[tuple[Sender, Any]]], tmp_path: Path
) -> None:
    confirmed: list[bytes] = []

    async def publish(publisher: Publisher[bytes], worker: int, is_over: asyncio.Event) -> None:
        number = 0
        while not is_over.is_set():
            window = [f"{worker}-{number + n}".encode() for n in range(20)]
            number += 20
            outcome = await publisher.publish_all(window)
            left: set[int] = set()
            if isinstance(outcome, Failure):
                left = {*outcome.failure().unconfirmed}
                assert not outcome.failure().refused
            confirmed.extend(each for n, each in enumerate(window) if n not in left)

    async def progress(more: int) -> None:
        wanted = len(confirmed) + more
        while len(confirmed) < wanted:
            await asyncio.sleep(0.01)

    async def main(broker: OwnBroker) -> None:
        sender, driver = await open_one(broker.port)
        is_over = asyncio.Event()
        impatient = RetryPolicy(attempts=1)
        if isinstance(broker, OwnRabbit):
            # One that was killed within its first seconds was once seen to come back without the
            # queue: what is tested is what becomes of messages, so the queue is stored by then.
            async with Publisher(sender, encode=bytes) as publisher:
                await publisher.publish(b"first")
            await asyncio.to_thread(broker.restart)
        async with (
            Publisher(sender, encode=bytes, reconnect=SOON, request_timeout=10) as patient,
            Publisher(sender, encode=bytes, reconnect=impatient, request_timeout=10) as hasty,
            asyncio.TaskGroup() as tasks,
        ):
            for worker in range(3):
                tasks.create_task(publish(patient, worker, is_over))
            tasks.create_task(publish_hastily(hasty, is_over))
            await progress(200)
            broker.kill()
            await asyncio.sleep(0.3)
            await asyncio.to_thread(broker.start)
            await progress(200)
            is_over.set()
        assert patient.statistics().connections >= 2
        assert not patient.statistics().unconfirmed
        found = await read_all(driver)
        lost = {*confirmed} - found.keys()
        assert not lost, f"of {len(confirmed)} these {len(lost)} are lost: {sorted(lost)}"
        twice = sum(found.values()) - len(found)
        assert sender.deduplicates is False or not twice

    async def publish_hastily(publisher: Publisher[bytes], is_over: asyncio.Event) -> None:
        """Publish with a policy that allows no other attempt."""
        number = 0
        while not is_over.is_set():
            number += 1
            value = f"hasty-{number}".encode()
            if not isinstance(await publisher.publish(value), Failure):
                confirmed.append(value)
            await asyncio.sleep(0.01)

    with kind(tmp_path) as broker:
        asyncio.run(asyncio.wait_for(main(broker), 100))


def test_redis_confirms_what_its_replica_has_and_nothing_without_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()

    async def main(master: OwnRedis, replica: OwnRedis) -> None:
        client = redis.Redis(port=master.port)
        stream = RedisStream(f"redis://127.0.0.1:{master.port}/0", "orders")
        sender = stream.sender(replicas=1)
        async with Publisher(sender, encode=bytes, request_timeout=30) as publisher:
            assert (await publisher.publish(b"1")).unwrap() == 1
        other = redis.Redis(port=replica.port)
        assert await other.xlen("orders") == 1
        await other.aclose()
        replica.kill()
        never = RetryPolicy(attempts=1)
        async with Publisher(
            sender, encode=bytes, reconnect=never, request_timeout=1.5
        ) as publisher:
            error = (await publisher.publish(b"2")).failure()
            assert (error.refused, error.unconfirmed) == ((), (0,))
        assert await client.xlen("orders") == 2  # the master has it, and may lose it
        await client.aclose()

    with (
        OwnRedis(tmp_path / "a") as master,
        OwnRedis(tmp_path / "b", master=master.port) as replica,
    ):
        asyncio.run(asyncio.wait_for(main(master, replica), 60))
