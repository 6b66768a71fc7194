"""A driver that plays a script, and writes down what its source asks of it."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from returns_pipeline.connectors import Message, Ownership
from returns_pipeline.errors import ConnectionLost

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from returns_pipeline.compensation.protocol import Positions


def message(number: int, partition: str = "p", **other: object) -> Message[bytes]:
    return Message(str(number).encode(), partition, (number,), **other)  # type: ignore[arg-type]


class ScriptedDriver:
    """Delivers what is in `queue`; everything else can be set by a test.

    Attributes:
        queue: What `fetch` returns next.
        calls: What was called, in order: its name, and the numbers of the messages.
        hanging: Names of calls that wait forever.
        acked: The numbers that were acknowledged, in order.
        notes: What is noted of partitions.
        epoch: How often it was opened; calls of an older epoch fail.
        lost: Whether every call fails until `open`.
        refused: How many calls of `open` are yet to fail.
        running: How many calls are under way, by name.
    """

    name = "scripted"

    def __init__(
        self,
        *messages: Message[bytes],
        positioned: bool = False,
        keep_alive: float = math.inf,
        positions: Positions | None = None,
    ) -> None:
        self.positions = positions
        self.positioned = positioned
        self.keep_alive = keep_alive
        self.queue: list[Message[bytes]] = list(messages)
        self.calls: list[tuple[str, list[int]]] = []
        self.hanging: set[str] = set()
        self.acked: list[int] = []
        self.notes: dict[str, str] = {}
        self.epoch = 0
        self.lost = True
        self.refused = 0
        self.running: dict[str, int] = {}
        self.most_running: dict[str, int] = {}
        self.latency: dict[str, float] = {}
        self.failures: dict[str, list[Exception]] = {}
        self.opened_at: list[float] = []
        self.ownership: Ownership | None = None
        self._arrived: asyncio.Event | None = None

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def times(self, name: str) -> int:
        return self.names().count(name)

    def deliver(self, *messages: Message[bytes]) -> None:
        self.queue += messages
        if self._arrived is not None:
            self._arrived.set()

    def break_connection(self) -> None:
        self.lost = True
        if self._arrived is not None:
            self._arrived.set()

    async def _call(self, name: str, messages: Sequence[Message[bytes]] = ()) -> None:
        self.calls.append((name, [each.position[0] for each in messages]))
        self.running[name] = self.running.get(name, 0) + 1
        self.most_running[name] = max(self.most_running.get(name, 0), self.running[name])
        try:
            epoch = self.epoch
            if name in self.hanging:
                await asyncio.get_running_loop().create_future()
            await asyncio.sleep(self.latency.get(name, 0.0))
            if failures := self.failures.get(name):
                raise failures.pop(0)
            if name not in {"open", "close"} and (self.lost or epoch != self.epoch):
                raise ConnectionLost(self.name, "lost")
        finally:
            self.running[name] -= 1

    async def open(self, ownership: Ownership, /) -> None:
        assert self.lost, "it is open already"
        self.opened_at.append(asyncio.get_running_loop().time())
        self._arrived = asyncio.Event()
        await self._call("open")
        if self.refused:
            self.refused -= 1
            raise ConnectionLost(self.name, "refused")
        self.ownership = ownership
        self.epoch += 1
        self.lost = False

    async def fetch(self, room: int, /) -> Sequence[Message[bytes]]:
        assert room > 0
        await self._call("fetch")
        assert self._arrived is not None
        if not self.queue:
            self._arrived.clear()
            try:
                async with asyncio.timeout(1.0):
                    await self._arrived.wait()
            except TimeoutError:
                return []
            if self.lost:
                raise ConnectionLost(self.name, "lost")
        found, self.queue = self.queue[:room], self.queue[room:]
        return found

    async def ack(self, messages: Sequence[Message[bytes]], /) -> None:
        await self._call("ack", messages)
        self.acked += [each.position[0] for each in messages]

    async def note(self, notes: Mapping[str, str], /) -> None:
        await self._call("note")
        self.notes |= notes

    async def extend(self, messages: Sequence[Message[bytes]], /) -> None:
        await self._call("extend", messages)

    async def nack(self, message: Message[bytes], delay: float, /) -> None:
        await self._call("nack", [message])

    async def watch(self) -> None:
        await self._call("watch")

    async def close(self) -> None:
        self.lost = True
        await self._call("close")
