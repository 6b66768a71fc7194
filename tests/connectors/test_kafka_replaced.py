"""Topics of Kafka that are not what they were: deleted and made again, or so it seems."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

aiokafka = pytest.importorskip("aiokafka", reason="needs the package aiokafka")

from connecting import received, values, within
from stored_positions import Storage, StoredPositions
from tansu import Topic, server

from returns_pipeline._engine.spans import Spans, Stretch
from returns_pipeline.compensation.protocol import TakenPartition
from returns_pipeline.connectors import Source, kafka
from returns_pipeline.errors import PartitionReplaced

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["server"]

pytestmark = pytest.mark.slow


class ThreeHandled(StoredPositions):
    """All up to offset 3 was handled of each partition, in whatever cluster it is."""

    async def take(self, source: str, partitions: Sequence[str], /) -> Mapping[str, TakenPartition]:
        spans = Spans().with_all([Stretch((), (3,), 1.0)])
        self.storage.taken.update(dict.fromkeys(partitions, TakenPartition(1, spans)))
        return await super().take(source, partitions)


def test_a_topic_that_is_shorter_than_what_was_handled_is_noticed(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "_SHORT", 0.2)

    async def read(count: int, match: str) -> None:
        topic = await Topic(server, 1).create()
        await topic.publish(values(count))
        with pytest.raises(PartitionReplaced, match=match):
            async with Source(topic.driver(positions=ThreeHandled(Storage()))) as source:
                await anext(source)
        await topic.remove()

    async def main() -> None:
        await asyncio.gather(
            read(3, "ends before offset 3, and 3 was read or handled"),
            read(4, "another message"),  # it has grown
        )

    within(main())


def test_a_restart_is_not_refused_for_an_end_that_is_too_early_for_a_moment(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of several messages: asked for the end, Tansu answers with its second offset."""
    real = aiokafka.AIOKafkaConsumer.highwater
    answers: list[int | None] = []

    def highwater(consumer: Any, partition: Any) -> int | None:
        end: int | None = real(consumer, partition)
        if end is not None and len(answers) < 2:  # as from a leader that is new
            end = 1
        answers.append(end)
        return end

    monkeypatch.setattr(aiokafka.AIOKafkaConsumer, "highwater", highwater)

    async def main() -> None:
        topic = await Topic(server, 1).create()
        await topic.publish_together(values(5))
        storage = Storage()
        for number in (0, 5):
            store = StoredPositions(storage)
            async with Source(topic.driver(group=f"{number}", positions=store)) as source:
                if number:
                    await topic.publish_together(values(5, number))
                found = await received(source, 5)
                assert [each.value for each in found] == values(5, number)
                store.commit(found)
        assert 1 in answers
        await topic.remove()

    within(main())


def test_a_partition_that_is_made_again_while_it_is_read_is_noticed(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its messages have offsets that were handled: they would be dropped as redelivered."""
    monkeypatch.setattr(kafka, "_SHORT", 0.5)

    async def create_again(topic: Topic, driver: Any) -> None:
        await topic.create_again()
        await topic.publish(values(2))

    async def begin_again(topic: Topic, driver: Any) -> None:
        # As aiokafka does, when Kafka answers that the offset is out of range.
        await driver._consumer.seek_to_beginning()

    async def read(happen: Any, positions: StoredPositions | None, match: str) -> None:
        topic = await Topic(server, 1).create()
        await topic.publish(values(5))
        driver = topic.driver(positions=positions)
        with pytest.raises(PartitionReplaced, match=match):
            async with Source(driver) as source:
                _ = await received(source, 5)
                await happen(topic, driver)
                await anext(source)
        await topic.remove()

    async def main() -> None:
        ends, begins = "ends before offset [02], and 4 was read", "begins again with offset 0, and"
        await asyncio.gather(
            read(create_again, None, ends),
            read(create_again, StoredPositions(Storage()), ends),
            read(begin_again, None, begins),
        )

    within(main())
