"""`MemoryBroker`: what real brokers do, on virtual time."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any

import pytest
from scripted_driver import ScriptedDriver

from returns_pipeline.connectors import Message, Source
from returns_pipeline.errors import InvalidArgument
from returns_pipeline.testing import MemoryBroker, run

kinds = pytest.mark.parametrize("shared", [False, True])


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)


def values(first: int, last: int) -> list[bytes]:
    return [str(number).encode() for number in range(first, last + 1)]


class Worker:
    """Reads a group, and counts what it gets."""

    def __init__(
        self, broker: MemoryBroker, seconds: float = 0.0, *, batch: int = 1, **options: Any
    ) -> None:
        self.batch = batch
        self.driver = broker.driver("group")
        self.source = Source(self.driver, **options)
        self.seconds = seconds
        self.seen: Counter[bytes] = Counter()
        self.task = asyncio.ensure_future(self._work())

    async def _work(self) -> None:
        async with self.source:
            async for received in self.source:
                message: Message[bytes] = received.unwrap()
                await asyncio.sleep(self.seconds)
                self.seen[message.value] += 1
                if self.source.mark() % self.batch == 0:
                    self.source.reached(self.source.mark())
            self.source.reached(self.source.mark())

    async def end(self) -> None:
        self.source.drain()
        await self.task


@kinds
def test_every_message_is_delivered_once_in_the_order_of_its_partition(*, shared: bool) -> None:
    broker = MemoryBroker(3, shared=shared)

    async def main() -> None:
        broker.publish(*values(1, 30))
        seen: dict[str, list[tuple[int, ...]]] = {}
        async with Source(broker.driver("group")) as source:
            for _ in range(30):
                message = (await anext(source)).unwrap()
                seen.setdefault(message.partition, []).append(message.position)
            source.reached(20)
        assert seen == {f"memory-{number}": [(each,) for each in range(10)] for number in range(3)}

    run(main())
    assert broker.backlog("group") == 10
    assert broker.backlog("another") == 30


def test_messages_with_equal_keys_are_in_one_partition() -> None:
    async def main() -> None:
        broker = MemoryBroker(5)
        for number in range(40):
            broker.publish(b"", key=f"key {number % 4}".encode(), headers={"n": str(number)})
        async with Source(broker.driver("group")) as source:
            received = [(await anext(source)).unwrap() for _ in range(40)]
        for key in {message.key for message in received}:
            ours = [message for message in received if message.key == key]
            assert len({message.partition for message in ours}) == 1
            assert [int(m.headers["n"]) for m in ours] == sorted(int(m.headers["n"]) for m in ours)

    run(main())


@kinds
def test_members_that_join_and_leave_while_all_is_slow_make_no_duplicate(*, shared: bool) -> None:
    broker = MemoryBroker(4, shared=shared, redeliver_after=5)

    async def main() -> None:
        broker.publish(*values(1, 200))
        workers = [Worker(broker, 0.3)]
        for _ in range(3):
            await asyncio.sleep(4)
            workers.append(Worker(broker, 0.3))
        for worker in workers[:3]:
            await asyncio.sleep(3)
            await worker.end()
        await asyncio.sleep(100)
        await workers[3].end()
        seen: Counter[bytes] = Counter()
        for worker in workers:
            assert worker.seen
            seen += worker.seen
        assert seen == Counter(values(1, 200))

    run(main())
    assert broker.backlog("group") == 0


def test_the_check_above_can_fail_a_driver_that_does_not_settle_makes_duplicates() -> None:
    broker = MemoryBroker(4)

    async def main() -> None:
        broker.publish(*values(1, 200))
        first = Worker(broker, 0.3, batch=10, max_in_flight=20, settle_timeout=0)
        await asyncio.sleep(8)
        second = Worker(broker, 0.3, batch=10, max_in_flight=20, settle_timeout=0)
        await asyncio.sleep(100)
        await first.end()
        await second.end()
        seen = first.seen + second.seen
        assert set(seen) == {*values(1, 200)}
        twice = sum(count - 1 for count in seen.values())
        assert 0 < twice <= first.source.statistics().fenced

    run(main())


def test_a_shared_message_comes_again_if_its_reader_is_silent_and_not_if_it_is_slow() -> None:
    async def main() -> None:
        broker = MemoryBroker(shared=True, redeliver_after=10)
        broker.publish(b"a")
        async with Source(broker.driver("group"), max_hold=25, max_in_flight=1) as source:
            _ = await anext(source)
            other = Worker(broker)
            await asyncio.sleep(25)
            assert not other.seen
            await asyncio.sleep(20)
            assert other.seen == Counter([b"a"])
            await other.end()

    run(main())


def test_a_message_given_back_comes_again_after_its_delay_and_is_counted() -> None:
    async def main() -> None:
        broker = MemoryBroker(shared=True)
        broker.publish(b"a")
        loop = asyncio.get_running_loop()
        async with Source(broker.driver("group"), max_deliveries=2) as source:
            for expected in (0.0, 8.0):
                message = (await anext(source)).unwrap()
                assert loop.time() == expected
                source.nack(message, delay=8)
            assert (await anext(source)).failure().message.deliveries == 3

    run(main())


@kinds
def test_broken_connections_lose_and_double_nothing(*, shared: bool) -> None:
    broker = MemoryBroker(2, shared=shared)

    async def main() -> None:
        broker.publish(*values(1, 100))
        worker = Worker(broker, 0.1)
        for _ in range(4):
            await asyncio.sleep(1.03)
            broker.disconnect()
        broker.stop()
        await asyncio.sleep(60)
        broker.start()
        await asyncio.sleep(120)
        await worker.end()
        assert worker.seen == Counter(values(1, 100))
        assert worker.source.statistics().connections >= 4

    run(main())
    assert broker.backlog("group") == 0


def test_a_partition_that_another_member_had_meanwhile_is_new_when_it_comes_back() -> None:
    broker = MemoryBroker()

    async def main() -> None:
        broker.publish(*values(1, 3))
        async with Source(broker.driver("group")) as source:
            _ = [await anext(source) for _ in range(3)]
            broker.disconnect()
            other = Worker(broker)
            await asyncio.sleep(0.01)
            assert other.seen == Counter(values(1, 3))
            await other.end()
            await asyncio.sleep(60)
            source.reached(3)
            await source.settled()
            assert source.statistics().fenced == 3
            assert source.statistics().acknowledged == 0

    run(main())
    assert broker.backlog("group") == 0


def test_a_member_that_was_evicted_acknowledges_nothing_more_and_learns_of_it() -> None:
    broker = MemoryBroker()

    async def main() -> None:
        broker.publish(*values(1, 3))
        zombie = Source(broker.driver("group"), max_in_flight=3)
        driver = zombie._driver
        async with zombie:
            _ = [await anext(zombie) for _ in range(3)]
            other = Worker(broker, 0.2)
            await asyncio.sleep(0)
            broker.evict(driver)
            zombie.reached(3)
            await asyncio.sleep(2)
            await zombie.settled()
            found = zombie.statistics()
            assert (found.acknowledged, found.refused, found.fenced) == (0, 3, 3)
            assert other.seen == Counter(values(1, 3))
            await other.end()

    run(main())


@kinds
def test_acknowledgements_that_a_server_forgot_are_not_done_again_by_the_same_process(
    *, shared: bool
) -> None:
    broker = MemoryBroker(shared=shared)

    async def main() -> None:
        broker.publish(*values(1, 10))
        worker = Worker(broker)
        await asyncio.sleep(1)
        assert broker.backlog("group") == 0
        broker.stop()
        broker.forget_acks("group", 4)
        assert broker.backlog("group") == 4
        broker.start()
        broker.publish(*values(11, 12))
        await asyncio.sleep(60)
        assert worker.seen == Counter(values(1, 12))
        await worker.end()

    run(main())
    if shared:
        assert broker.backlog("group") == 0


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="partitions"):
        MemoryBroker(0)
    with pytest.raises(InvalidArgument, match="redeliver_after"):
        MemoryBroker(redeliver_after=0)
    shared = MemoryBroker(shared=True)
    with pytest.raises(InvalidArgument, match="not a member"):
        shared.evict(shared.driver("group"))
    with pytest.raises(InvalidArgument, match="not a member"):
        MemoryBroker().evict(ScriptedDriver())
