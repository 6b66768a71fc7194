"""`MemoryBroker`: a broker in memory, on the running loop's clock."""

from __future__ import annotations

import math
from collections.abc import Mapping

from returns_pipeline._engine import checks
from returns_pipeline._engine.checks import Seconds
from returns_pipeline.compensation.protocol import Positions
from returns_pipeline.connectors import Driver, Message, OutgoingBatch, Position, Sender
from returns_pipeline.errors import InvalidArgument
from returns_pipeline.testing._memory_members import Group, Member, Stored
from returns_pipeline.testing._memory_sender import MemoryConnection, MemorySender

__all__ = ["MemoryBroker"]


class MemoryBroker:
    """A broker in memory, for tests of pipelines that read one: no server, and on virtual time.

    By default it is like Kafka. Each partition is read by one member of a group, positions are
    acknowledged in order, and partitions move when members join and leave. With ``shared=True`` it
    is like NATS, Redis and RabbitMQ. All members of a group share each partition, messages are
    acknowledged one by one, and a message is delivered again if that takes too long.

    A group begins with the first message, whenever it is first used. Nothing is ever deleted.

    It may be used in one event loop after the other. Time is the running loop's.

    Args:
        partitions: How many partitions it has, at least 1.
        shared: Whether the members of a group share each partition.
        redeliver_after: Seconds, above 0, until a message that was delivered and not acknowledged
            is delivered again, if it is shared. Sources keep alive what they hold.

    Raises:
        InvalidArgument: At the call, if an argument is out of range.

    >>> from returns_pipeline.connectors import Source
    >>> from returns_pipeline.testing import run
    >>> broker = MemoryBroker()
    >>> broker.publish(b"a", b"b", b"c")
    >>> async def main() -> None:
    ...     async with Source(broker.driver("readers")) as source:
    ...         first = await anext(aiter(source))
    ...         source.reached(source.mark())
    >>> run(main())
    >>> broker.backlog("readers")
    2
    """

    def __init__(
        self, partitions: int = 1, *, shared: bool = False, redeliver_after: Seconds = 30.0
    ) -> None:
        count = checks.count("partitions", partitions)
        self.shared: bool = shared
        self.redeliver_after: float = checks.seconds("redeliver_after", redeliver_after)
        self.is_running: bool = True
        self._names = [f"memory-{number}" for number in range(count)]
        self._published: dict[str, list[Message[bytes]]] = {name: [] for name in self._names}
        self._groups: dict[str, Group] = {}
        self._turn = 0
        self._ids: set[str] = set()
        self._sending: set[MemoryConnection] = set()

    def publish(
        self,
        *values: bytes,
        key: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Add messages. Those with equal keys go to one partition; others take turns.

        >>> MemoryBroker().publish(b"a", b"b", headers={"origin": "test"})
        """
        for value in values:
            self._append(self._name_for(key), value, key, headers or {})
        self._wake()

    def _name_for(self, key: bytes | None) -> str:
        if key is not None:
            return self._names[sum(key) % len(self._names)]
        self._turn += 1
        return self._names[(self._turn - 1) % len(self._names)]

    def _append(
        self, name: str, value: bytes, key: bytes | None, headers: Mapping[str, str]
    ) -> None:
        published = self._published[name]
        position: Position = (len(published),)
        message = Message(value, name, position, 1, dict(headers), key)
        published.append(message)
        for group in self._groups.values():
            group.logs[name].stored.append(Stored(message))

    def _wake(self) -> None:
        for group in self._groups.values():
            group.wake()

    def _keep(self, batch: OutgoingBatch) -> None:
        """Keep the messages of a sender, which may have sent some of them before."""
        for number, message in list(batch.unanswered()):
            if message.destination is not None:
                batch.refuse(number, f"there is no {message.destination!r}")
                continue
            name = self._name_for(message.key)
            if message.partition is not None:
                if not 0 <= message.partition < len(self._names):
                    batch.refuse(number, f"there is no partition {message.partition}")
                    continue
                name = self._names[message.partition]
            if message.id is None or message.id not in self._ids:
                self._append(name, message.value, message.key, message.headers)
            if message.id is not None:
                self._ids.add(message.id)
        self._wake()

    def sender(self) -> Sender:
        """Return a sender for a `Publisher`.

        Messages are kept at once, and confirmed a turn of the loop later. If the connection breaks
        between the two, they are sent again, and recognised by their ids.

        >>> MemoryBroker().sender().name
        'memory'
        """
        return MemorySender(lambda: self.is_running, self._keep, self._sending)

    def driver(self, group: str, *, positions: Positions | None = None) -> Driver:
        """Return the driver of a new member of a group, for one `Source`.

        Args:
            group: The name of the group.
            positions: A journal, or a sink, that stores positions together with their effects.

        Raises:
            InvalidArgument: Positions, and ``shared``: no member owns a partition.

        >>> MemoryBroker().driver("readers").name
        'memory readers'
        """
        if positions is not None and self.shared:
            raise InvalidArgument("a group that shares its partitions has no positions to store")
        return Member(self, group, self._group(group), positions)

    def backlog(self, group: str) -> int:
        """Return how many messages are not acknowledged by a group.

        >>> broker = MemoryBroker()
        >>> broker.publish(b"a")
        >>> broker.backlog("readers")
        1
        """
        logs = self._group(group).logs.values()
        if self.shared:
            return sum(not stored.is_acked for log in logs for stored in log.stored)
        return sum(len(log.stored) - log.committed for log in logs)

    def disconnect(self) -> None:
        """Break all connections: each call under way, and the next of each, is lost.

        Sources connect again after a wait.

        >>> MemoryBroker().disconnect()
        """
        for group in self._groups.values():
            for member in list(group.members):
                member.lose("the connection was broken")
        for connection in list(self._sending):
            connection.lose("the connection was broken")

    def stop(self) -> None:
        """Break all connections, and accept none, until `start`.

        >>> MemoryBroker().stop()
        """
        self.is_running = False
        self.disconnect()

    def start(self) -> None:
        """Accept connections again.

        >>> MemoryBroker().start()
        """
        self.is_running = True

    def evict(self, driver: Driver) -> None:
        """Move the partitions of a member to others, as if it had been silent for too long.

        It does not know yet: what it acknowledges is refused. It learns of it when it fetches
        next, and joins the group again. To the others it looks as if its process had died, which
        counts for ``max_deliveries``.

        >>> broker = MemoryBroker()
        >>> broker.evict(broker.driver("readers"))

        Raises:
            InvalidArgument: It is not a driver of this broker, or ``shared`` is set.
        """
        if not isinstance(driver, Member) or driver.broker is not self or self.shared:
            raise InvalidArgument(f"not a member that owns partitions here: {driver!r}")
        driver.evict()

    def forget_acks(self, group: str, count: int) -> None:
        """Forget the last acknowledgements in each partition, as a server may that has crashed.

        The messages are delivered again to the members that connect after this.

        >>> MemoryBroker().forget_acks("readers", 2)
        """
        for log in self._group(group).logs.values():
            forgotten = log.acks[len(log.acks) - count :] if count else []
            del log.acks[len(log.acks) - len(forgotten) :]
            for number in forgotten:
                log.stored[number].is_acked = False
                log.stored[number].hidden_until = -math.inf
                log.committed = min(log.committed, number)

    def _group(self, name: str) -> Group:
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = Group(self._names, shared=self.shared)
            for partition, published in self._published.items():
                group.logs[partition].stored = [Stored(message) for message in published]
        return group
