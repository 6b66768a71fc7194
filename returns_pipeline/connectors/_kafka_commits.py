"""What a member of a group of Kafka has committed: offsets, and notes as their metadata."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from returns_pipeline._engine.logs import facts
from returns_pipeline.connectors._kafka_sender import start
from returns_pipeline.connectors._message import Message
from returns_pipeline.errors import MissingExtra

try:
    from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.structs import OffsetAndMetadata
except ImportError as _error:
    raise MissingExtra("kafka", "aiokafka") from _error

__all__ = ["Commits", "Offsets", "cluster_id"]

Offsets: TypeAlias = "dict[TopicPartition, OffsetAndMetadata]"

_log = logging.getLogger("returns_pipeline.connectors")


class Commits:
    """What is committed of the partitions of a member.

    Every commit replaces the metadata of the one before. So each has the note of its partition.

    Args:
        name: What is read, for messages.
        topic: The topic.
    """

    def __init__(self, name: str, topic: str) -> None:
        self._name = name
        self._topic = topic
        self._latest: dict[int, OffsetAndMetadata] = {}
        self._begun: set[int] = set()
        self._is_checked = False  # whether the broker was seen to keep a note

    def clear(self) -> None:
        """Forget all partitions."""
        self._latest.clear()
        self._begun.clear()

    def forget(self, partitions: Iterable[int]) -> None:
        """Forget partitions."""
        for number in partitions:
            _ = self._latest.pop(number, None)
            self._begun.discard(number)

    async def read(self, consumer: AIOKafkaConsumer, partitions: Collection[int]) -> None:
        """Read what was committed of partitions that are new."""
        self.forget(partitions)
        found = await self._fetch(consumer, partitions)
        self._latest |= {partition.partition: each for partition, each in found.items()}

    async def _fetch(
        self, consumer: AIOKafkaConsumer, partitions: Iterable[int]
    ) -> Mapping[TopicPartition, OffsetAndMetadata]:
        # `AIOKafkaConsumer.committed` drops the metadata.
        coordinator = consumer._coordinator  # pyright: ignore[reportPrivateUsage]
        return await coordinator.fetch_committed_offsets([self._of(each) for each in partitions])

    def _of(self, number: int) -> TopicPartition:
        return TopicPartition(self._topic, number)

    def begin(self, records: Iterable[ConsumerRecord]) -> list[tuple[int, OffsetAndMetadata]]:
        """Return the partitions of which these messages are the first, with what is committed."""
        new: list[tuple[int, OffsetAndMetadata]] = []
        for record in records:
            number = record.partition
            if number not in self._begun:
                self._begun.add(number)
                latest = self._latest.setdefault(number, OffsetAndMetadata(record.offset, ""))
                new.append((number, latest))
        return new

    def acknowledging(self, messages: Sequence[Message[bytes]]) -> Offsets:
        """Return what to commit to acknowledge messages."""
        newest = {int(str(message.receipt)): message.position[0] for message in messages}
        return {
            self._of(number): OffsetAndMetadata(offset + 1, self._note_of(number))
            for number, offset in newest.items()
        }

    def _note_of(self, number: int) -> str:
        latest = self._latest.get(number)
        return "" if latest is None else latest.metadata

    def noting(self, notes: Mapping[int, str]) -> Offsets:
        """Return what to commit to note something of partitions that are known."""
        return {
            self._of(number): OffsetAndMetadata(self._latest[number].offset, note)
            for number, note in notes.items()
            if number in self._latest
        }

    def done(self, offsets: Offsets) -> None:
        """Record that these are committed."""
        self._latest |= {partition.partition: each for partition, each in offsets.items()}

    async def check(self, consumer: AIOKafkaConsumer, offsets: Offsets) -> None:
        """Warn once if the broker does not keep notes."""
        noted = {partition for partition, each in offsets.items() if each.metadata}
        if self._is_checked or not noted:
            return
        self._is_checked = True
        found = await self._fetch(consumer, [each.partition for each in noted])
        if not any(each.metadata for each in found.values()):
            _log.warning(
                "%s: the broker does not keep the metadata of committed offsets: deliveries are not"
                " counted, and max_deliveries has no effect",
                self._name,
                extra=facts(source=self._name),
            )


async def cluster_id(options: Mapping[str, Any]) -> str:
    """Return what tells a cluster from others; empty if the broker does not say.

    Args:
        options: Those of a consumer.
    """
    known = inspect.signature(AIOKafkaAdminClient).parameters
    admin = AIOKafkaAdminClient(**{key: options[key] for key in known.keys() & options.keys()})
    try:
        await start(admin)
        return str((await admin.describe_cluster()).get("cluster_id") or "")
    finally:
        await admin.close()
