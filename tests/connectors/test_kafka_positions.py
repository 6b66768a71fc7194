"""Offsets of Kafka that are stored with their effects: where reading begins, what is refused."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

aiokafka = pytest.importorskip("aiokafka", reason="needs the package aiokafka")

from connecting import received, values, within
from stored_positions import Storage, StoredPositions
from tansu import Topic, running, server

from returns_pipeline.connectors import Source
from returns_pipeline.errors import PartitionsLost

if TYPE_CHECKING:
    from pathlib import Path

    from returns_pipeline.connectors import Message

__all__ = ["server"]

pytestmark = pytest.mark.slow


def test_reading_begins_after_what_is_stored_whatever_is_committed(server: str) -> None:
    async def main() -> None:
        topic = await Topic(server, 1).create()
        await topic.publish(values(6))
        storage = Storage()
        store = StoredPositions(storage)
        async with Source(topic.driver(positions=store)) as source:
            window = await received(source, 4)
            store.commit(window[:1])
            store.commit(window[2:])
            source.reached(3)  # so a part is committed that is not stored: 1
            while source.statistics().acknowledged < 3:
                await asyncio.sleep(0.02)
        again = StoredPositions(storage)
        async with Source(topic.driver(positions=again)) as source:
            found = await received(source, 3)
            assert [each.value for each in found] == [b"1", b"4", b"5"]
            again.commit(found)
            source.reached(source.mark())
            await source.settled()
        assert sorted(map(str, storage.effects)) == [str(each) for each in values(6)]
        assert [len(each.spans) for each in storage.taken.values()] == [1]
        await topic.remove()

    within(main())


def test_members_that_come_and_go_neither_lose_nor_double_anything(server: str) -> None:
    async def main() -> None:
        topic = await Topic(server, 4).create()
        await topic.publish(values(120))
        storage = Storage()

        done, left = asyncio.Event(), asyncio.Event()

        async def read(until: asyncio.Event) -> None:
            while not until.is_set():
                store = StoredPositions(storage)
                driver = topic.driver(positions=store)
                source = Source(driver, settle_timeout=0.05, max_in_flight=12)

                async def write(window: list[Message[bytes]]) -> int:
                    await asyncio.sleep(0.1)
                    store.commit(window)  # noqa: B023
                    if len(storage.effects) >= 120:
                        done.set()
                        left.set()
                    return len(window)

                async def drain() -> None:
                    await until.wait()
                    source.drain()  # noqa: B023

                draining = asyncio.ensure_future(drain())
                with contextlib.suppress(PartitionsLost):
                    async with source:
                        windows = source.messages().chunks_or_timeout(3, 0.05)
                        await windows.map_async(write, concurrency=2).run()
                draining.cancel()

        members = [asyncio.ensure_future(read(done))]
        await asyncio.sleep(1)
        members.append(asyncio.ensure_future(read(left)))
        await asyncio.sleep(4)
        left.set()
        await asyncio.gather(*members)
        assert sorted(int(str(each)[2:-1]) for each in storage.effects) == [*range(120)]
        await topic.remove()

    within(main())


def test_two_clusters_with_a_topic_of_one_name_do_not_share_positions(tmp_path: Path) -> None:
    async def main(servers: list[str]) -> None:
        storage = Storage()
        name = Topic(servers[0]).name
        for number, address in enumerate(servers):
            topic = Topic(address, 1)
            topic.name = name
            await topic.create()
            await topic.publish(values(3, start=10 * number))
            store = StoredPositions(storage)
            async with Source(topic.driver(positions=store)) as source:
                found = await received(source, 3)
                assert [each.value for each in found] == values(3, start=10 * number)
                store.commit(found)
                source.reached(source.mark())
                await source.settled()
            await topic.remove()
        assert sorted(storage.taken) == [f"{name}-0 one", f"{name}-0 two"]

    with (
        running(tmp_path / "one", "--cluster-id", "one") as one,
        running(tmp_path / "two", "--cluster-id", "two") as two,
    ):
        within(main([one, two]))
