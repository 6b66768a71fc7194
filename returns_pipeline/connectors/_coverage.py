"""Which positions are stored, and which ones a commit covers: what a source tells what stores them.

That is a journal, or a sink.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, cast

from returns_pipeline._engine.spans import BEGINNING, Spans, Stretch
from returns_pipeline.compensation.protocol import HandledPositions, TakenPartition
from returns_pipeline.connectors._entries import Entry, PartitionState
from returns_pipeline.connectors._message import Message, Position, messages_in
from returns_pipeline.errors import PartitionReplaced, PartitionsLost
from returns_pipeline.windows import EventWindow

__all__ = ["LedgerCoverage"]


class LedgerCoverage:
    """The positions of what a ledger holds, for a journal or a sink: see `Coverage`.

    Args:
        name: What the source reads.
        partitions: What is known of each partition that is owned, as the ledger keeps it.

    Attributes:
        unstored: How many messages were acknowledged, if no position was ever stored.
    """

    def __init__(self, name: str, partitions: Mapping[str, PartitionState]) -> None:
        self._name = name
        self._partitions = partitions
        self._fenced: dict[str, set[Position]] = {}  # what was in flight of lost partitions
        self._has_stored = False
        self.unstored: int = 0

    # Called by the step that commits.

    def covered(self, value: object, /) -> list[HandledPositions]:
        """Return what a commit of the messages in a value covers, by partition.

        Everything up to the last acknowledgement is covered as well: so what was filtered out, or
        failed, leaves no gap in what is stored.

        Raises:
            PartitionsLost: Some are not in flight any more, or an earlier delivery was committed.
            RuntimeError: One was committed, or is there twice, or there are none.
        """
        # Messages come in their order, as a rule: then they are one stretch of each partition.
        runs: dict[str, list[list[Any]]] = {}
        for entry in self._in_flight(messages_in(value), once=True):
            message = entry.message
            name, position = message.partition, message.position
            before = runs.setdefault(name, [])
            if before and before[-1][1] == entry.after:
                before[-1][1:] = position, message.timestamp
            else:
                before.append([entry.after, position, message.timestamp])
        if not runs and not _is_empty(value):
            raise RuntimeError(
                "positions are to be stored, and the step got no messages: pass messages to it, or"
                f" windows of them, not {type(value).__name__!r}"
            )
        return [
            self._handled(name, [Stretch(*run) for run in found]) for name, found in runs.items()
        ]

    def _handled(self, name: str, stretches: list[Stretch]) -> HandledPositions:
        partition = self._partitions[name]
        assert partition.stored is not None
        if partition.acked is not None:
            stretches.append(partition.acked)
        merged = tuple(Spans().with_all(stretches))
        return HandledPositions(self._name, name, partition.key, partition.stored.epoch, merged)

    def committed(self, value: object, /) -> None:
        """Record that the positions of messages are stored."""
        for entry in self._in_flight(messages_in(value), once=False):
            entry.is_committed = True
            self._has_stored, self.unstored = True, 0

    def _in_flight(self, messages: Iterable[Message[object]], *, once: bool) -> list[Entry]:
        """Return the entries of messages; with ``once``, all must be there, and not committed."""
        found: dict[int, Entry] = {}
        lost: set[str] = set()
        for message in messages:
            partition = self._partitions.get(message.partition)
            entry = None if partition is None else partition.emitted.get(message.position)
            # A source of another server may have partitions of the same name.
            if entry is None or entry.message.timestamp != message.timestamp:
                lost.add(message.partition)
            elif once and (entry.is_committed or entry.number in found):
                if entry.is_again:
                    lost.add(message.partition)
                    continue
                raise RuntimeError(
                    f"the message at {message.partition} {message.position} comes a second time: "
                    "once its position is stored, the rest of it would be skipped after a crash"
                )
            else:
                found[entry.number] = entry
        if lost and once:
            raise PartitionsLost(self._name, tuple(sorted(lost)))
        return list(found.values())

    # Called by the source, and its ledger.

    def take(self, name: str, key: str, stored: TakenPartition) -> None:
        """Begin with a partition, of which this is stored."""
        partition = self._partitions[name]
        partition.key, partition.stored = key, stored

    def is_taken(self, name: str) -> bool:
        """Return whether `take` was called for a partition that is owned."""
        return self._partitions[name].stored is not None

    def handled(self, name: str) -> Position | None:
        """Return the position up to which everything of a partition was handled, if it is known."""
        stretch = self._partitions[name].handled()
        return None if stretch is None else stretch.last

    def place(self, entry: Entry) -> None:
        """Compare a message that has arrived with what is stored of its partition.

        Raises:
            PartitionReplaced: Another message was at its position when that was stored.
            RuntimeError: The driver has not asked what is stored.
        """
        message, partition = entry.message, entry.partition
        if partition.stored is None:
            raise RuntimeError(f"{self._name} did not ask for the positions of {message.partition}")
        spans = partition.stored.spans
        # The first is read after what is stored, or where the broker begins: nothing before it is
        # to be handled.
        entry.after = BEGINNING if partition.newest is None else partition.newest
        entry.is_again = message.position in self._fenced.get(message.partition, ())
        if message.position not in spans:
            return
        entry.is_skipped = True
        for stretch in spans:
            if stretch.last == message.position and stretch.stamp != message.timestamp:
                where = f"{message.partition} {message.position}"
                raise PartitionReplaced(self._name, f"another message was handled at {where}")

    def acknowledged(self, entries: Collection[Entry]) -> None:
        """Record that messages are acknowledged."""
        for entry in entries:
            message, partition = entry.message, entry.partition
            self.unstored += not (self._has_stored or entry.is_skipped)
            # `pop`, because a message that was skipped was never emitted.
            _ = partition.emitted.pop(message.position, None)
            if entry.is_again:  # so both deliveries have been handled
                self._fenced[message.partition].discard(message.position)
            partition.acked = Stretch(BEGINNING, message.position, message.timestamp)

    def lost(self, name: str, partition: PartitionState) -> None:
        """Record that a partition was fenced, with what is in flight of it."""
        if partition.emitted:
            self._fenced.setdefault(name, set()).update(partition.emitted)


def _is_empty(value: object) -> bool:
    """Whether this is a window that nothing has come into."""
    items: object = cast("Any", value).items if isinstance(value, EventWindow) else value
    return isinstance(items, list | tuple) and not items
