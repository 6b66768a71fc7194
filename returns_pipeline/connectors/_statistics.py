"""`SourceStatistics`: what a source says of itself."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from returns_pipeline.connectors._ledger import Ledger

__all__ = ["SourceStatistics", "statistics_of"]


@dataclass(frozen=True, slots=True)
class SourceStatistics:
    """What a source has done, and what it holds. `Source.statistics` makes it.

    Attributes:
        emitted: Messages that its reader has got.
        acknowledged: Messages that were acknowledged.
        buffered: Messages that were fetched and not emitted.
        in_flight: Messages that were emitted and not acknowledged.
        bytes_held: The size of both, in bytes.
        oldest_unacknowledged: Seconds since the oldest of them arrived; 0 if there are none.
        stalled_for: Seconds since that, or since the last acknowledgement, whichever is later: a
            pipeline that is stuck shows here first, and one that is slow does not.
        redelivered: Messages that came again while they were in flight or shortly after their
            acknowledgement, or that an earlier process has handled according to the positions that
            are stored, and were not emitted.
        returned: Messages that were given back to the broker.
        fenced: Messages that were in flight when their partition was lost: others get them, too.
        refused: Acknowledgements that were refused, because another process owns the partition.
        connections: Connections that were made: 1 if none was lost.
        connected: Whether there is one now.
        out_of_credit: Whether nothing can be fetched until messages are acknowledged.
        lag: How many messages of each partition were not fetched, as the broker said last. Kafka
            and NATS say it with the messages; Redis 7, RabbitMQ and a log in PostgreSQL are asked
            every 5 seconds. Redis does not know it after some deletions. Of a partition of a log at
            most 10,000 messages are counted.
        suspects: Messages that are held, and may have been in flight when a process died: see
            ``max_deliveries``.
        stalled_partitions: If partitions are read apart, `stalled_for` of each that holds messages.
            Then `stalled_for` is that of the worst.

    >>> SourceStatistics(emitted=3, acknowledged=2, in_flight=1).redelivered
    0
    """

    emitted: int = 0
    acknowledged: int = 0
    buffered: int = 0
    in_flight: int = 0
    bytes_held: int = 0
    oldest_unacknowledged: float = 0.0
    stalled_for: float = 0.0
    redelivered: int = 0
    returned: int = 0
    fenced: int = 0
    refused: int = 0
    connections: int = 0
    connected: bool = False
    out_of_credit: bool = False
    lag: Mapping[str, int] = field(default_factory=dict[str, int])
    suspects: int = 0
    stalled_partitions: Mapping[str, float] = field(default_factory=dict[str, float])


def statistics_of(ledger: Ledger, connections: int, *, connected: bool) -> SourceStatistics:
    """Return what a source has done, and what it holds now."""
    oldest = ledger.oldest()
    now = asyncio.get_running_loop().time() if oldest is not None else 0.0
    apart = ledger.stalled(now)
    stalled = 0.0 if oldest is None else now - max(oldest, ledger.acked_at)
    return SourceStatistics(
        emitted=ledger.emitted,
        acknowledged=ledger.acknowledged,
        buffered=ledger.buffered,
        in_flight=ledger.in_flight(),
        bytes_held=ledger.size,
        oldest_unacknowledged=0.0 if oldest is None else now - oldest,
        stalled_for=max(apart.values(), default=stalled),
        redelivered=ledger.redelivered,
        returned=ledger.returned,
        fenced=ledger.fenced,
        refused=ledger.refused,
        connections=connections,
        connected=connected,
        out_of_credit=ledger.room() == 0,
        lag=dict(ledger.lag),
        suspects=ledger.suspects.held,
        stalled_partitions=apart,
    )
