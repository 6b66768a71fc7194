"""A message of a broker, and a message that could not be handled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar, cast

import msgspec
from returns.result import Failure, Result, Success

from returns_pipeline._engine.frozen import allow_type_arguments
from returns_pipeline.windows import EventWindow

__all__ = ["DeadLetter", "Message", "Position", "messages_in", "with_deliveries"]

T_co = TypeVar("T_co", covariant=True)
E_co = TypeVar("E_co", covariant=True)
U = TypeVar("U")
F = TypeVar("F")

# A place in a partition. Positions of one partition can be compared; the later one is greater.
Position: TypeAlias = tuple[int, ...]


# A struct of msgspec is made in C: a message costs a third of what a slotted class would.
class Message(msgspec.Struct, Generic[T_co], frozen=True, eq=False):
    """A message, as a broker delivered it.

    Two messages are equal if all they say is equal; the ``receipt`` is not compared.

    Attributes:
        value: The payload: bytes, or what they were decoded to.
        partition: The partition, stream or queue it was read from.
        position: Its place there. It is unique in its partition, and grows: a number for Kafka and
            NATS, two for an entry of Redis or of a log in PostgreSQL.
        deliveries: How often it was delivered, 1 the first time. Kafka and a log in PostgreSQL do
            not count: there the source does, if it has ``max_deliveries``, and it is how often the
            message was in flight, or may have been, when a process died, and 1 more.
        headers: What the sender has added.
        key: What the sender has chosen the partition by, if it has.
        timestamp: When it was sent, in seconds since 1970, if the broker says so.
        receipt: What its driver acknowledges it by.

    >>> order = Message(b"17", "orders-0", (42,))
    >>> order.with_value(17).value
    17
    """

    value: T_co
    partition: str
    position: Position
    deliveries: int = 1
    headers: Mapping[str, str] = {}  # msgspec copies it
    key: bytes | None = None
    timestamp: float | None = None
    receipt: object = None

    def with_value(self, value: U, /) -> Message[U]:
        """Return the same message with another value."""
        return Message(
            value,
            self.partition,
            self.position,
            self.deliveries,
            self.headers,
            self.key,
            self.timestamp,
            self.receipt,
        )

    def bind(self, func: Callable[[T_co], Result[U, F]], /) -> Result[Message[U], DeadLetter[F]]:
        """Replace the value by what a function makes of it; its error becomes a `DeadLetter`.

        >>> from returns_pipeline import err
        >>> Message(b"", "orders-0", (42,)).bind(lambda value: err("empty")).failure().error
        'empty'
        """
        done = func(self.value)
        if isinstance(done, Success):
            return Success(self.with_value(done.unwrap()))
        return Failure(DeadLetter(done.failure(), self))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message):
            return NotImplemented
        return self._facts() == other._facts()

    def __hash__(self) -> int:
        return hash((self.partition, self.position))

    def _facts(self) -> tuple[object, ...]:
        return (
            self.value,
            self.partition,
            self.position,
            self.deliveries,
            dict(self.headers),
            self.key,
            self.timestamp,
        )


@allow_type_arguments
@dataclass(frozen=True, slots=True)
class DeadLetter(Generic[E_co]):
    """A message that could not be handled, and why.

    It holds everything that is needed to send the message elsewhere, or again.

    Attributes:
        error: Why.
        message: The message, with the value that could not be handled.

    >>> DeadLetter("no such customer", Message(b"17", "orders-0", (42,))).message.position
    (42,)
    """

    error: E_co
    message: Message[object]


def with_deliveries(message: Message[bytes], deliveries: int) -> Message[bytes]:
    """Return the same message with another count."""
    return msgspec.structs.replace(message, deliveries=deliveries)


def messages_in(value: object) -> Iterator[Message[object]]:
    """Iterate over the messages in an item of a stream, in their order.

    That is a message, a window of `returns_pipeline.windows` that holds some, with its key or not,
    or a tuple or list of these.
    """
    todo = [value]
    while todo:
        each = todo.pop()
        if isinstance(each, Message):
            yield each
        elif isinstance(each, list | tuple):
            todo += reversed(cast("Sequence[object]", each))
        elif isinstance(each, EventWindow):
            todo += reversed(cast("Sequence[object]", each.items))
