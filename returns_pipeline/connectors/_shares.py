"""The room of a ledger, shared fairly among partitions that are read apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

__all__ = ["Shares"]


class _Holder(Protocol):
    """What is known of a partition.

    Attributes:
        count: How many messages it holds.
        size: The bytes of their values.
        settling: Whether it is about to be lost: nothing more of it is fetched.
    """

    count: int
    size: int
    settling: bool


class Shares:
    """How much may be fetched of each partition, so that one that is stuck leaves room for others.

    Each partition may hold the same: the limits of the ledger, divided by the number of partitions.
    If their number grows, some may hold more than their share for a while; that is not taken from
    the new ones.

    Not one message is fetched for each that is acknowledged: a partition is *paused* until a
    quarter of its share is free. A driver may return messages of one partition only, so the room of
    a fetch is what the fullest of the others may still hold.

    Args:
        partitions: Those that are owned, as the ledger knows them.
        max_in_flight: How many messages they may hold together.
        max_bytes: How many bytes these may have.

    Attributes:
        mean_size: The bytes that a message is expected to have.
        are_kept: Whether the driver leaves out what is paused: it has asked.
    """

    def __init__(
        self,
        partitions: Mapping[str, _Holder],
        max_in_flight: int,
        max_bytes: int,
        mean_size: float,
    ) -> None:
        self._partitions = partitions
        self._max_in_flight = max_in_flight
        self._max_bytes = max_bytes
        self.mean_size = mean_size
        self.are_kept = False

    def _share(self) -> int:
        """Return how many messages each partition may hold, at least 1."""
        bounds = self._max_in_flight, self._max_bytes / self.mean_size
        return max(1, int(min(bounds) / max(1, len(self._partitions))))

    def _left(self, partition: _Holder, share: int) -> int:
        """Return how many messages more a partition may hold; 0 if it is paused."""
        left = share - max(partition.count, int(partition.size / self.mean_size))
        return 0 if partition.settling or left < max(1, share // 4) else left

    def room(self) -> int:
        """Return how many messages may be fetched now: 0 if all partitions are paused."""
        share = self._share()
        left = [self._left(each, share) for each in self._partitions.values()]
        # While no partition is known, one message: to read it, drivers say which they own.
        room = min(filter(None, left), default=0) if left else 1
        if not self.are_kept:  # then one partition may take what is there for all
            held = sum(each.count for each in self._partitions.values())
            room = min(room, self._max_in_flight - held)
        return max(0, room)

    def paused(self) -> frozenset[str]:
        """Return the partitions that the driver is to leave out."""
        self.are_kept = True
        share = self._share()
        parts = self._partitions.items()
        return frozenset(name for name, each in parts if not self._left(each, share))

    def is_paused(self, partition: _Holder) -> bool:
        """Return whether nothing more of a partition is fetched now."""
        return not self._left(partition, self._share()) or self.room() == 0
