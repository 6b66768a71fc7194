"""Items of a channel that are acknowledged: `Channel.deliver` waits until they are handled."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from returns_pipeline._engine.calls import Call
from returns_pipeline._engine.draining import Drainable
from returns_pipeline._engine.marks import Mark, MarkedItems
from returns_pipeline._engine.reader import Reader
from returns_pipeline.sources._channel_pump import ChannelPump

__all__ = ["Deliveries", "DeliveryPump"]

T = TypeVar("T")


class DeliveryPump(ChannelPump[T]):
    """A pump whose items are numbered, from 1, so that they can be acknowledged.

    Attributes:
        accepted: How many items were accepted.
        taken: How many of them the reader has taken.
        receipts: What waits for items to be handled, by their numbers, in order. The result says
            whether that has happened.
    """

    __slots__ = ("accepted", "receipts", "taken")

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.accepted = 0
        self.taken = 0
        self.receipts: dict[int, asyncio.Future[bool]] = {}

    def accept(self, item: T) -> int:
        self.accepted += 1
        _ = super().accept(item)
        return self.accepted

    def take(self) -> T:
        self.taken += 1
        return super().take()

    def close(self) -> None:
        """Fail the items that the reader has left: whether another will follow is not known."""
        super().close()
        for number in list(self.receipts):
            if number > self.taken:
                self.settle(number, is_handled=False)

    def settle_all(self, last: int, *, is_handled: bool) -> None:
        """Settle the receipts up to a number."""
        while self.receipts and (number := next(iter(self.receipts))) <= last:
            self.settle(number, is_handled=is_handled)

    def settle(self, number: int, *, is_handled: bool) -> None:
        receipt = self.receipts.pop(number)
        if not receipt.done():  # its caller may have been cancelled
            receipt.set_result(is_handled)


class Deliveries(MarkedItems):
    """The items of a channel with marks.

    Args:
        open_reader: Opens the reader of the channel.
        is_read: Returns whether that reader is still open.
        pump: Its pump.
        call: The call that made the channel.
    """

    def __init__(
        self,
        open_reader: Callable[[], Reader[Any]],
        is_read: Callable[[], bool],
        pump: DeliveryPump[Any],
        call: Call,
    ) -> None:
        self._call = call
        self._open_reader = open_reader
        self._is_read = is_read
        self._pump = pump
        self._readings: list[weakref.ref[_Delivered]] = []  # that no terminal has ended

    def __aiter__(self) -> AsyncIterator[Any]:
        reader = self._open_reader()
        delivered = _Delivered(self._pump)
        self._readings.append(weakref.ref(delivered))
        return _DeliveryReader(reader, self._pump, delivered)

    def terminal_ended(self) -> None:
        """Fail what a terminal has not handled, whose readers are closed.

        It may be one that was refused while another one reads, or has not handled all yet: it has
        begun the latest reading that is closed. If it has begun none, as it failed before it came
        to this channel, what waits for a reader has waited for this one.
        """
        is_read = self._is_read()
        closed = len(self._readings) - is_read
        if closed > 0:
            if (delivered := self._readings.pop(closed - 1)()) is not None:
                delivered.end()
        elif not is_read:
            self._pump.settle_all(self._pump.accepted, is_handled=False)


class _Delivered:
    """What was delivered by one reading. Its marks refer to it, and its reader.

    If the terminal is that of another stream, such as a branch of a broadcast, none of them is left
    when no mark can be reached any more: then this is collected.
    """

    __slots__ = ("__weakref__", "_pump", "last")

    def __init__(self, pump: DeliveryPump[Any]) -> None:
        self._pump = pump
        self.last = 0

    def reached(self, number: int) -> None:
        self._pump.settle_all(number, is_handled=True)

    def end(self) -> None:
        self._pump.settle_all(self.last, is_handled=False)

    def __del__(self) -> None:
        # This may run in any thread, whichever runs the collector.
        if self._pump.receipts:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                pump, last = self._pump, self.last
                _ = pump.loop.call_soon_threadsafe(lambda: pump.settle_all(last, is_handled=False))


class _DeliveryReader(Drainable):
    """Each item, and a mark after one that is waited for. A cancelled read loses neither."""

    __slots__ = ("_delivered", "_mark", "_pump", "_reader")

    def __init__(self, reader: Reader[Any], pump: DeliveryPump[Any], delivered: _Delivered) -> None:
        self._reader = reader
        self._pump = pump
        self._delivered = delivered
        self._mark: Mark | None = None

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        mark, self._mark = self._mark, None
        if mark is not None:
            return mark
        item = await self._reader.__anext__()
        number = self._delivered.last = self._pump.taken
        if number in self._pump.receipts:
            self._mark = Mark(self._delivered.reached, number)
        return item

    def drain(self) -> None:
        self._pump.shut(None)

    async def aclose(self) -> None:
        await self._reader.aclose()
