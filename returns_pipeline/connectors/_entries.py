"""What a `Ledger` is made of: messages that are held, what is known of partitions, lasting keys."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import TypeAlias

import msgspec

from returns_pipeline._engine.spans import BEGINNING, Stretch
from returns_pipeline.compensation.protocol import TakenPartition
from returns_pipeline.connectors._message import Message, Position

__all__ = ["Entry", "Key", "PartitionState", "Raw", "RecentKeys", "key_of"]

Raw: TypeAlias = Message[bytes]
# A queue that was deleted and made again uses its positions again, at another time.
Key: TypeAlias = tuple[str, Position, float | None]


def key_of(message: Message[object]) -> Key:
    """Return what all deliveries of a message have in common."""
    return message.partition, message.position, message.timestamp


# A struct of msgspec is made in C, as a `Message` is.
class Entry(msgspec.Struct, eq=False):
    """A message that is held.

    Attributes:
        message: As it was delivered last: a redelivery replaces it, for its receipt.
        since: When it arrived.
        partition: What is known of its partition, until that is fenced.
        key: What its deliveries have in common, of a driver without positions.
        number: Its place in the order of emission; 0 while it is buffered.
        gone: Whether it is not held any more. Queues drop such an entry when they meet it.
        after: The position before it in its partition, where positions are stored.
        is_skipped: Whether it was handled by an earlier process: it is not emitted, and is
            acknowledged in its turn.
        is_committed: Whether its position is stored.
        is_again: Whether it was in flight when its partition was lost: it may be handled twice.
        is_suspect: Whether it may have been in flight when a process died.
    """

    message: Raw
    since: float
    partition: PartitionState
    key: Key | None = None
    number: int = 0
    gone: bool = False
    after: Position = BEGINNING
    is_skipped: bool = False
    is_committed: bool = False
    is_again: bool = False
    is_suspect: bool = False


class RecentKeys:
    """A set that forgets: it has at least the last ``size`` keys, and at most twice as many.

    Two generations: when the young one is full, it becomes the old one. (A dict from which the
    oldest key is removed each time takes quadratic time.)
    """

    __slots__ = ("_old", "_size", "_young")

    def __init__(self, size: int) -> None:
        self._size = size
        self._young: set[Key] = set()
        self._old: set[Key] = set()

    def __contains__(self, key: Key) -> bool:
        return key in self._young or key in self._old

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def add(self, key: Key) -> None:
        """Remember a key."""
        if len(self._young) >= self._size:
            self._old, self._young = self._young, set()
        self._young.add(key)

    def discard(self, key: Key) -> None:
        """Forget a key."""
        self._young.discard(key)
        self._old.discard(key)

    def forget(self, partitions: Collection[str] | None) -> None:
        """Forget the keys of partitions, or all."""
        if partitions is None:
            self._young, self._old = set(), set()
        else:
            self._young = {key for key in self._young if key[0] not in partitions}
            self._old = {key for key in self._old if key[0] not in partitions}


class PartitionState:
    """What is known of a partition.

    Attributes:
        in_flight: Emitted and not acknowledged, in the order of emission.
        newest: The newest position that was accepted, of a driver with positions.
        settling: Whether it is about to be lost: nothing more of it is accepted.
        stored: What was stored of it when it was taken, if positions are stored.
        key: What it is called there.
        emitted: What is in flight, by position, if positions are stored.
        acked: The last that was acknowledged, if positions are stored.
        buffer: Its messages that wait to be emitted; that of the ledger, unless it is split.
        reached: As `Ledger.reached`, if that is split.
        acked_at: When something of it was acknowledged last.
        count: How many messages it holds.
        size: The bytes of their values.
    """

    __slots__ = (
        "acked",
        "acked_at",
        "buffer",
        "count",
        "emitted",
        "in_flight",
        "key",
        "newest",
        "reached",
        "settling",
        "size",
        "stored",
    )

    def __init__(self, buffer: deque[Entry]) -> None:
        self.buffer: deque[Entry] = buffer
        self.reached: int = 0
        self.count: int = 0
        self.size: int = 0
        self.acked_at: float = float("-inf")
        self.in_flight: deque[Entry] = deque()
        self.newest: Position | None = None
        self.settling: bool = False
        self.stored: TakenPartition | None = None
        self.key: str = ""
        self.emitted: dict[Position, Entry] = {}
        self.acked: Stretch | None = None

    def handled(self) -> Stretch | None:
        """Return up to where everything was handled, by what is stored and acknowledged."""
        mark = None if self.stored is None else self.stored.spans.mark
        if mark is None or (self.acked is not None and self.acked.last > mark.last):
            return self.acked
        return mark
