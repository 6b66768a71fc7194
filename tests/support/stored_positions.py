"""Positions and effects that change together, in memory: what a sink or a journal has to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from returns_pipeline._engine.spans import Spans
from returns_pipeline.compensation.protocol import TakenPartition
from returns_pipeline.connectors._message import messages_in
from returns_pipeline.errors import PartitionsLost

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from returns_pipeline.compensation.protocol import Coverage


class Storage:
    """What survives a crash.

    Attributes:
        effects: The values that were committed, in order.
        taken: What is stored of each partition.
    """

    def __init__(self) -> None:
        self.effects: list[object] = []
        self.taken: dict[str, TakenPartition] = {}


class StoredPositions:
    """One process that uses a storage."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.coverage: Coverage | None = None

    def attach(self, coverage: Coverage, /) -> None:
        assert self.coverage is None
        self.coverage = coverage

    def detach(self) -> None:
        self.coverage = None

    async def take(self, source: str, partitions: Sequence[str], /) -> Mapping[str, TakenPartition]:
        for name in partitions:
            epoch, spans = self.storage.taken.get(name, (0, Spans()))
            self.storage.taken[name] = TakenPartition(epoch + 1, spans)
        return {name: self.storage.taken[name] for name in partitions}

    def commit(self, value: object) -> None:
        """Store effects and positions of the messages in a value, or nothing."""
        assert self.coverage is not None
        handled = self.coverage.covered(value)
        taken = self.storage.taken
        for each in handled:
            if taken[each.partition].epoch != each.epoch:
                raise PartitionsLost(each.source, (each.name,))
        for each in handled:
            spans = taken[each.partition].spans.with_all(each.stretches)
            taken[each.partition] = TakenPartition(each.epoch, spans)
        self.storage.effects += [message.value for message in messages_in(value)]
        self.coverage.committed(value)
