"""`Partition`: the messages of one partition, read apart from those of the others.

`Partitions` iterates over them. Each has a reader of its own, which may wait while others go on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, Final, Generic, Self, TypeVar

from returns_pipeline._engine.calls import Call
from returns_pipeline._engine.task_owner import notify
from returns_pipeline.connectors._consumer import Consumer, Signal
from returns_pipeline.connectors._decode import received_all
from returns_pipeline.connectors._ledger import Ledger
from returns_pipeline.connectors._message import DeadLetter, Message
from returns_pipeline.connectors._messages import Reading, stream_of
from returns_pipeline.errors import PartitionsLost, TooManyDeliveries
from returns_pipeline.result_stream import ResultStream

__all__ = ["Partition", "Partitions"]

T_co = TypeVar("T_co", covariant=True)
E_co = TypeVar("E_co", covariant=True)


class Partition(Generic[T_co, E_co]):
    """One partition, from the arrival of a message until it is lost. See `Source.partitions`.

    If the partition comes back later, that is another object.

    Attributes:
        name: What it is called in `Message.partition`.
        lost: A future that is resolved when the partition is lost while messages of it are in
            flight: what is made of them from then on is in vain, as others get them, too.

    >>> def is_in_vain(partition: Partition[bytes, object]) -> bool:
    ...     return partition.lost.done()
    """

    def __init__(self, name: str, source: Partitions[T_co, E_co]) -> None:
        self.name: Final = name
        self._consumer: Final = source.consumer
        self._ledger: Final = source.ledger
        self._source: Final = source
        self.lost: Final[asyncio.Future[None]] = source.consumer.loop.create_future()
        self._is_fenced = False
        self._must_flush = False
        self._emitted = 0  # the number of its last message
        self._starved_at = -1  # that number when its reader was last told that credit is spent
        self._waiter: asyncio.Future[None] | None = None
        self._reading: object = None  # the latest of `messages`

    @property
    def is_open(self) -> bool:
        """Whether more of its messages may come: not if it moves, or nothing more is read at all.

        >>> def will_go_on(partition: Partition[bytes, object]) -> bool:
        ...     return partition.is_open
        """
        consumer = self._consumer
        return not (
            self._is_fenced
            or consumer.draining
            or consumer.ended
            or consumer.failure is not None
            or self._ledger.is_settling(self.name)
        )

    def messages(self) -> ResultStream[Message[T_co], DeadLetter[E_co | TooManyDeliveries]]:
        """Return its messages as a stream whose terminal acknowledges what it has handled.

        As `Source.messages`, apart from these:

        1. It ends when the partition is about to move to another process, too. What was read is
           handled and acknowledged then, within ``settle_timeout``; open windows are emitted.
        2. After the partition was lost, a read raises `PartitionsLost`. If nothing was in flight,
           the stream ends.
        3. Open windows are emitted when nothing more may be fetched of this partition.

        >>> def keys_of(partition: Partition[bytes, object]) -> object:
        ...     return partition.messages().map(lambda message: message.key)
        """
        call = replace(self._source.call, name=f"{self.name}.messages()")
        return stream_of(self._begin, call, stores=self._source.stores)

    def _begin(self) -> Reading:
        """Begin a reading of `messages`; it ends an earlier one.

        Raises:
            RuntimeError: A message was emitted that no mark has reached.
        """
        if not self._is_fenced and (unreached := self._ledger.unreached(self.name)):
            raise RuntimeError(
                f"{unreached} messages of an earlier reading of {self.name} were not handled, and"
                " this one would acknowledge them"
            )
        this = self._reading = object()

        def take(limit: int) -> list[Any]:
            if self._reading is not this:
                raise RuntimeError(f"another reading of {self.name} has begun")
            return self._take(limit)

        return Reading(take, self._wait, lambda: self._emitted, self._reach)

    def _take(self, limit: int) -> list[Any]:
        """Emit messages that are there, at most ``limit``; none if there is a signal."""
        if not self.is_open or self._must_flush or self._waiter is not None:
            return []
        ledger, name = self._ledger, self.name
        taken = received_all(ledger.next(limit, name), self._source.received)
        if taken:
            ledger.emit(len(taken), name)
            self._emitted = ledger.emitted
        return taken

    async def _wait(self) -> Signal | None:
        """Wait until there is a message, or something comes in its place."""
        if self._waiter is not None:
            raise RuntimeError(f"another task is reading {self.name}")
        while not self._is_ready():
            self._waiter = self._consumer.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self.lost.done():
            raise PartitionsLost(self._source.name, (self.name,))
        if not self.is_open:
            self._source.check_failure()
            return Signal.END
        if self._must_flush:
            self._must_flush = False
            return Signal.FLUSH
        if self._ledger.next(1, self.name):
            return None
        self._starved_at = self._emitted
        return Signal.FLUSH

    def _is_ready(self) -> bool:
        ledger, name = self._ledger, self.name
        if not self.is_open or self._must_flush:
            return True
        if ledger.skip(name):
            self._consumer.on_skip()
        return bool(ledger.next(1, name)) or self._is_starved()

    def _is_starved(self) -> bool:
        """Return whether credit is spent, and the reader was not told yet."""
        return self._starved_at != self._emitted and self._ledger.is_starved(self.name)

    def _reach(self, number: int) -> None:
        """Record that its messages were handled up to a number."""
        if not self._is_fenced:  # else they are another's
            self._consumer.reach(number, self.name)

    # Called by `Partitions`.

    def _look(self) -> None:
        """Wake the reader if there is something for it."""
        if self._waiter is not None and not self._waiter.done() and self._is_ready():
            notify(self._waiter)

    def _flush(self) -> None:
        self._must_flush = True

    def _fence(self) -> None:
        """End: the ledger is about to forget it."""
        if self._ledger.in_flight({self.name}):
            self.lost.set_result(None)
        self._is_fenced = True
        notify(self._waiter)

    def __repr__(self) -> str:
        state = "lost" if self.lost.done() else "open" if self.is_open else "ended"
        return f"<Partition {self.name}, {state}>"


class Partitions(Generic[T_co, E_co]):
    """Iterates over partitions, each when a message of it has arrived: see `Source.partitions`.

    Args:
        name: What the source reads.
        consumer: The consumer of the source.
        ledger: Its ledger, which is split here.
        received: Makes of a message what is emitted; None if that is the message itself.
        stores: What stores positions, if anything does.
        call: The call of `Source.messages`, for drawings.
        on_raise: Is called when the failure of the source is raised.
    """

    def __init__(
        self,
        name: str,
        consumer: Consumer,
        ledger: Ledger,
        *,
        received: Callable[[Message[bytes]], Any] | None,
        stores: object | None,
        call: Call,
        on_raise: Callable[[], None],
    ) -> None:
        self.name = name
        self.consumer = consumer
        self.ledger = ledger
        self.received = received
        self.stores = stores
        self.call = call
        self._on_raise = on_raise
        self._open: dict[str, Partition[T_co, E_co]] = {}
        self._arrived: deque[Partition[T_co, E_co]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        ledger.split(self._on_fence)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Partition[T_co, E_co]:
        """Return the next partition of which a message has arrived.

        Raises:
            StopAsyncIteration: The source was drained.
            RuntimeError: The source was not entered, or another task is iterating.
            Exception: The source has failed.
        """
        consumer = self.consumer
        if not hasattr(consumer, "loop"):
            raise RuntimeError("read a source inside of `async with source:`")
        if self._waiter is not None:
            raise RuntimeError("another task is waiting for partitions")
        while True:
            self.check_failure()
            if consumer.draining or consumer.ended:
                raise StopAsyncIteration
            while self._arrived:
                partition = self._arrived.popleft()
                if partition.is_open:
                    return partition
            self._waiter = consumer.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def check_failure(self) -> None:
        """Raise the failure of the source, if it has failed."""
        if self.consumer.failure is not None:
            self._on_raise()
            raise self.consumer.failure

    def _on_fence(self, partitions: Collection[str] | None) -> None:
        """Partitions, or all, are lost: what is held of them is about to be forgotten."""
        for name in list(self._open) if partitions is None else partitions:
            if (partition := self._open.pop(name, None)) is not None:
                partition._fence()  # pyright: ignore[reportPrivateUsage]

    # Called by the consumer: see `Readers`.

    def on_change(self) -> None:
        for name in self.ledger.waiting():
            if name not in self._open:
                partition = self._open[name] = Partition(name, self)
                self._arrived.append(partition)
        for partition in self._open.values():
            partition._look()  # pyright: ignore[reportPrivateUsage]
        notify(self._waiter)

    def flush(self) -> None:
        for partition in self._open.values():
            partition._flush()  # pyright: ignore[reportPrivateUsage]
        self.on_change()
