"""The senders of a `MemoryBroker`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from returns_pipeline.connectors import OutgoingBatch, SenderConnection
from returns_pipeline.errors import ConnectionLost

__all__ = ["MemoryConnection", "MemorySender"]


class MemorySender:
    """A sender."""

    name: str = "memory"
    deduplicates: bool = True

    def __init__(
        self,
        is_running: Callable[[], bool],
        keep: Callable[[OutgoingBatch], None],
        open_ones: set[MemoryConnection],
    ) -> None:
        self._is_running = is_running
        self._keep = keep
        self._open_ones = open_ones

    async def connect(self) -> SenderConnection:
        await asyncio.sleep(0)
        if not self._is_running():
            raise ConnectionLost(self.name, "the broker is stopped")
        connection = MemoryConnection(self._keep, self._open_ones)
        self._open_ones.add(connection)
        return connection


class MemoryConnection:
    """A connection of a sender."""

    def __init__(
        self, keep: Callable[[OutgoingBatch], None], open_ones: set[MemoryConnection]
    ) -> None:
        self._keep = keep
        self._open_ones = open_ones
        self._loss: str | None = None

    async def send(self, batch: OutgoingBatch, /) -> None:
        self._check()
        self._keep(batch)
        await asyncio.sleep(0)
        self._check()
        batch.confirm_all()

    def _check(self) -> None:
        if self._loss is not None:
            raise ConnectionLost("memory", self._loss)

    async def close(self) -> None:
        self.lose("it is closed")

    def lose(self, why: str) -> None:
        """End the connection."""
        self._loss = self._loss or why
        self._open_ones.discard(self)
