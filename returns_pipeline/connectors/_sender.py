"""What is published, and what a broker brings for that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from returns_pipeline._engine.frozen import allow_type_arguments

__all__ = ["Outgoing", "OutgoingBatch", "Sender", "SenderConnection"]

T_co = TypeVar("T_co", covariant=True)


@allow_type_arguments
@dataclass(frozen=True, slots=True)
class Outgoing(Generic[T_co]):
    """A value to be published, and what else the broker is told of it.

    Attributes:
        value: What the publisher encodes.
        key: Messages with equal keys go to one partition, in order. Brokers without partitions keep
            the order anyway, and are not told.
        headers: Whatever its readers should know.
        partition: The number of its partition, where the broker has some; by default the key, or
            the broker, decides.
        destination: Where to, if not where its sender sends: a subject of NATS, a topic of Kafka,
            a stream of Redis, a routing key of RabbitMQ.
        id: Two messages with equal ids are one. NATS keeps only the first of them, as long as it
            remembers it; other brokers pass the id on, as the header ``message-id``.

    >>> Outgoing({"seats": 3}, key=b"customer-7", id="order-42").headers
    {}
    """

    value: T_co
    key: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    partition: int | None = None
    destination: str | None = None
    id: str | None = None


class OutgoingBatch:
    """Messages to be sent together, and what the broker has answered so far.

    It outlives the connection: what was not answered is sent again over the next one.

    Attributes:
        messages: All messages, encoded. Each has an id of its own, or one that the user gave it.
        refused: Why the broker does not take some of them, by their numbers.
        note: Whatever the sender wants to know of it at the next attempt.

    >>> batch = OutgoingBatch([Outgoing(b"a"), Outgoing(b"b"), Outgoing(b"c")])
    >>> batch.confirm(1)
    >>> batch.refuse(2, "too large")
    >>> [number for number, _ in batch.unanswered()]
    [0]
    """

    __slots__ = ("_confirmed", "messages", "note", "refused")

    def __init__(self, messages: Sequence[Outgoing[bytes]]) -> None:
        self.messages: Sequence[Outgoing[bytes]] = messages
        self.refused: dict[int, str] = {}
        self.note: object = None
        self._confirmed = bytearray(len(messages))

    def unanswered(self) -> Iterator[tuple[int, Outgoing[bytes]]]:
        """Return the messages that are yet to be confirmed or refused, with their numbers."""
        for number, message in enumerate(self.messages):
            if not self._confirmed[number] and number not in self.refused:
                yield number, message

    def confirm(self, number: int) -> None:
        """Record that the broker keeps a message."""
        self._confirmed[number] = True

    def confirm_all(self) -> None:
        """Record that the broker keeps all that were not answered."""
        for number, _ in self.unanswered():
            self._confirmed[number] = True

    def refuse(self, number: int, reason: str) -> None:
        """Record that the broker does not have a message, and would not take it again."""
        self.refused[number] = reason

    def refuse_all(self, reason: str) -> None:
        """Record that it has none of those that were not answered."""
        for number, _ in list(self.unanswered()):
            self.refused[number] = reason

    @property
    def confirmed(self) -> int:
        """How many were confirmed."""
        return sum(self._confirmed)


class SenderConnection(Protocol):
    """One connection of a sender. `send` may be called by several tasks at the same time.

    >>> from returns_pipeline.testing import MemoryBroker, run
    >>> async def main() -> int:
    ...     connection: SenderConnection = await MemoryBroker().sender().connect()
    ...     batch = OutgoingBatch([Outgoing(b"a"), Outgoing(b"b")])
    ...     await connection.send(batch)
    ...     await connection.close()
    ...     return batch.confirmed
    >>> run(main())
    2
    """

    async def send(self, batch: OutgoingBatch, /) -> None:
        """Send what is unanswered, in its order; return when the broker has answered all of it.

        An answer that is recorded must be true: a message is confirmed when the broker will keep
        it, and refused when the broker does not have it. Whatever is left may have been taken.

        If the call is cancelled, other calls must be confirmed nevertheless, or lost.

        Raises:
            ConnectionLost: Some were not answered. Another connection may have more luck.
        """

    async def close(self) -> None:
        """Disconnect. Calls of `send` that are under way raise `ConnectionLost`."""


class Sender(Protocol):
    """What a broker brings for `Publisher`. Write one to publish to another broker.

    `returns_pipeline.testing.check_publisher` checks that a sender keeps this contract.

    >>> from returns_pipeline.testing import MemoryBroker
    >>> sender: Sender = MemoryBroker().sender()
    >>> sender.name
    'memory'

    Attributes:
        name: Where to, for messages: ``"nats orders"``.
        deduplicates: Whether the broker keeps only the first of messages with the same id, for some
            time. Then a message that is sent again, because its confirmation was lost, is kept
            once.
    """

    @property
    def name(self) -> str: ...

    @property
    def deduplicates(self) -> bool: ...

    async def connect(self) -> SenderConnection:
        """Connect. A call that is cancelled, or fails, leaves nothing open.

        Raises:
            ConnectionLost: The broker cannot be reached. Other exceptions are the user's to see.
        """
        ...
