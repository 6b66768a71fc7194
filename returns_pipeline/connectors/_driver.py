"""What a broker brings, and what its driver may ask of the source that uses it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from returns_pipeline.compensation.protocol import Positions
from returns_pipeline.connectors._message import Message, Position

__all__ = ["Driver", "Ownership"]


class Ownership(Protocol):
    """What a driver tells its source about partitions that it loses: first settle, then fence.

    A broker that shares a queue among its consumers has no such partitions, and does not need it.

    >>> async def lose(ownership: Ownership, partition: str) -> None:
    ...     if not await ownership.settled([partition]):
    ...         print("some messages will be delivered twice")
    ...     ownership.fence([partition])
    """

    async def settled(self, partitions: Collection[str], /) -> bool:
        """Stop emitting messages of partitions, and wait until those in flight are acknowledged.

        The wait is limited by the source. `fence` must follow. Acknowledgements go through
        `Driver.ack` meanwhile, so the driver must still own the partitions.

        Returns:
            Whether nothing is in flight any more.
        """
        ...

    def fence(self, partitions: Collection[str] | None = None, /) -> None:
        """Forget all messages of partitions, or of all: they belong to another process now.

        They are not acknowledged any more. If they are delivered to this process again, they count
        as new.
        """
        ...

    async def positions(self, partitions: Mapping[str, str], /) -> Mapping[str, Position]:
        """Take partitions: return up to which position everything of each was handled.

        A driver with `Driver.positions` calls it whenever it begins to read partitions, before it
        returns a message of them, and reads on after these positions, wherever the broker would
        have it begin. From then on, what another process commits of them is refused.

        Args:
            partitions: The names, each with an identity that differs if another partition gets this
                name, in another server or after it was deleted; empty if the broker has none.

        Returns:
            The positions. A partition for which none is stored is not among them, nor is any if the
            driver has no `Driver.positions`.

        Raises:
            ConnectionLost: What stores them cannot be reached, or partitions were fenced meanwhile.
        """
        ...

    def noted(self, partition: str, note: str, after: Position, end: Position, /) -> None:
        """Report what is noted of a partition, see `Driver.note`, before a message is returned.

        A driver calls it whenever it begins to read a partition, after `positions`. Deliveries are
        counted only for a partition of which it was called.

        Args:
            partition: The name.
            note: The latest note of any owner; empty if there is none.
            after: The position that the group has acknowledged; before that of the first message if
                there is none. Reading may begin earlier, or later, by `positions`.
            end: A position: all messages after it have arrived there since the partition was taken.
        """

    def out_of_credit(self) -> None:
        """Report that the broker delivers nothing more until something is acknowledged.

        Open windows are emitted then. A driver need not report it when it holds all that it may
        fetch: that is known. It may do so as often as it likes.
        """
        ...

    def lag(self, partitions: Mapping[str, int], /) -> None:
        """Report how many messages of partitions the broker has after the newest one fetched.

        It is for `SourceStatistics`. A driver whose broker does not say so does not call it.
        """
        ...

    def paused(self) -> Collection[str]:
        """Return the partitions of which `Driver.fetch` is to return nothing now.

        There are some only if partitions are read apart, see `Source.partitions`: those whose
        readers are slow, or stuck. A driver asks at each fetch, and if there are some, it returns
        within 0.05 seconds, as that may change. One that never asks still works, but one partition
        that is stuck may use up what may be in flight, and the others wait for it.
        """
        ...


class Driver(Protocol):
    """What a broker brings; `Source` does the rest. Write one to connect to another broker.

    A source has one task that opens and closes its driver, and never two connections at a time:

    1. ``open`` is called first, and again after each lost connection.
    2. Then ``fetch``, ``ack`` (or ``nack``, or ``note``), ``extend`` and ``watch`` are called, each
       by one task, so at most one call of each is under way.
    3. If any of them raises `ConnectionLost`, the others are cancelled. When all have ended,
       ``close`` is called, and after a wait, ``open``.
    4. ``close`` is called last, also if ``open`` has failed.

    Any call may raise `ConnectionLost`. Other exceptions end the source, and its reader gets them.
    A call that takes too long is cancelled by the source, and counts as a lost connection.

    What is in flight stays in flight when a connection is lost. If the broker delivers it again,
    it is recognised by its position and its timestamp, and gets the new receipt. A driver whose
    receipts, or partitions, are not valid on a new connection calls `Ownership.fence` in ``open``.

    `returns_pipeline.testing.check_connector` checks that a driver keeps this contract.

    >>> from returns_pipeline.testing import MemoryBroker
    >>> driver: Driver = MemoryBroker(shared=True).driver("billing")
    >>> driver.positioned
    False

    Attributes:
        name: What is read, for messages: ``"nats orders/billing"``.
        positioned: Whether the messages of a partition come in the order of their positions, and
            only one process reads it at a time. Then an acknowledgement covers all messages before
            it, and a message that is not newer than the newest counts as redelivered.
        positions: What stores positions together with their effects, if anything does. Only a
            driver that is ``positioned`` may have it: it calls `Ownership.positions`.
        keep_alive: Seconds between two calls of ``extend``: at most a third of the time after which
            the broker delivers a message again. Infinity if it never does.
    """

    @property
    def name(self) -> str: ...

    @property
    def positioned(self) -> bool: ...

    @property
    def positions(self) -> Positions | None: ...

    @property
    def keep_alive(self) -> float: ...

    async def open(self, ownership: Ownership, /) -> None:
        """Connect."""

    async def fetch(self, room: int, /) -> Sequence[Message[bytes]]:
        """Return messages, at most ``room``; wait for the first of them for up to a second.

        Messages of a partition that was fenced while this call was under way must not be among
        them. If the call is cancelled, no message may be lost: the broker delivers it again.
        """
        ...

    async def ack(self, messages: Sequence[Message[bytes]], /) -> None:
        """Acknowledge messages, in the order in which they were fetched; return when that is done.

        It may be called again for the same messages, after a connection was lost.

        Raises:
            PartitionsLost: Another process owns some of the partitions; what was acknowledged of
                others stands.
        """

    async def note(self, notes: Mapping[str, str], /) -> None:
        """Store a note for each of these partitions, in place of the one before it.

        It is stored next to the position that the group has acknowledged, and is durable when this
        returns. `ack` leaves it as it is. By notes the source counts deliveries, for brokers that
        do not. They have at most 2,000 characters, and are written when the messages of a partition
        begin and end, not for each message. Only a driver that calls `Ownership.noted` needs it;
        the task that calls ``ack`` calls it, too.

        Raises:
            PartitionsLost: Another process owns some of the partitions.
        """

    async def extend(self, messages: Sequence[Message[bytes]], /) -> None:
        """Make the broker wait longer before it delivers these messages again.

        Some may have been acknowledged meanwhile: that must do no harm.
        """

    async def nack(self, message: Message[bytes], delay: float, /) -> None:
        """Return a message: the broker delivers it again, after ``delay`` seconds if it can.

        A driver with positions has nothing to do: what is not acknowledged comes again.
        """

    async def watch(self) -> None:
        """Run beside the others as long as the connection lasts, to follow its partitions.

        A driver that has nothing to do returns.
        """

    async def close(self) -> None:
        """Disconnect, and release what ``open`` has begun, also if it has failed."""
