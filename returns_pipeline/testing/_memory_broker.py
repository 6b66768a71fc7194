"""`MemoryBroker`: a broker in memory, on the running loop's clock."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from returns_pipeline._engine import checks
from returns_pipeline._engine.checks import Seconds
from returns_pipeline._engine.reader import notify
from returns_pipeline.compensation.protocol import Positions
from returns_pipeline.connectors import (
    Driver,
    Message,
    OutgoingBatch,
    Ownership,
    Position,
    Sender,
)
from returns_pipeline.errors import (
    ConnectionLost,
    InvalidArgument,
    PartitionReplaced,
    PartitionsLost,
)
from returns_pipeline.testing._memory_sender import MemoryConnection, MemorySender

__all__ = ["MemoryBroker"]

# Seconds that a fetch waits for the first message.
_WAIT: Final = 1.0
# The same, if partitions are left out that may be wanted before.
_WAIT_WITHOUT: Final = 0.05
# By how many seconds a timer may fire early.
_EARLY: Final = 1e-6


class _Stored:
    """A message of the log, and what one group knows of it, if the group shares the log.

    Attributes:
        deliveries: How often it was delivered.
        hidden_until: When it is delivered again, unless it is acknowledged.
        is_acked: Whether it was acknowledged.
    """

    __slots__ = ("deliveries", "hidden_until", "is_acked", "message")

    def __init__(self, message: Message[bytes]) -> None:
        self.message = message
        self.deliveries = 0
        self.hidden_until = -math.inf
        self.is_acked = False


class _Log:
    """What one group knows of a partition.

    Attributes:
        stored: Its messages.
        committed: How many of them are acknowledged, in a group that owns partitions.
        acks: The positions that were acknowledged, in order.
        owner: The member that reads it.
        target: The member that is to read it, when its owner has released it.
        owners: How often another member became its owner.
        last_owner: The last member that owned it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.stored: list[_Stored] = []
        self.committed = 0
        self.acks: list[int] = []
        self.owner: _Member | None = None
        self.target: _Member | None = None
        self.owners = 0
        self.last_owner: _Member | None = None

    def give_to(self, member: _Member) -> None:
        """Make a member its owner."""
        if self.last_owner is not member:
            self.owners += 1
        self.owner = self.last_owner = member


class _Group:
    """The members of a group, and its partitions."""

    def __init__(self, names: Iterable[str], *, shared: bool) -> None:
        self._shared = shared
        self.logs: dict[str, _Log] = {name: _Log(name) for name in names}
        self.members: list[_Member] = []

    def rebalance(self) -> None:
        """Share the partitions among the members; those that move wait until they are released."""
        members = self.members
        for number, log in enumerate(() if self._shared else self.logs.values()):
            if log.owner not in members:
                log.owner = None
            log.target = members[number % len(members)] if members else None
            if log.owner is None and log.target is not None:
                log.give_to(log.target)
        self.wake()

    def release(self, names: Collection[str], member: _Member) -> None:
        """Pass the partitions that a member has fenced to the members that are to have them."""
        for name in names:
            log = self.logs[name]
            if log.owner is member:
                log.owner = None
        self.rebalance()

    def wake(self) -> None:
        """Make every member look again."""
        for member in self.members:
            member.wake()


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
        self._groups: dict[str, _Group] = {}
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
            group.logs[name].stored.append(_Stored(message))

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
        return _Member(self, group, self._group(group), positions)

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
        next, and joins the group again.

        >>> broker = MemoryBroker()
        >>> broker.evict(broker.driver("readers"))

        Raises:
            InvalidArgument: It is not a driver of this broker, or ``shared`` is set.
        """
        if not isinstance(driver, _Member) or driver.broker is not self or self.shared:
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

    def _group(self, name: str) -> _Group:
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = _Group(self._names, shared=self.shared)
            for partition, published in self._published.items():
                group.logs[partition].stored = [_Stored(message) for message in published]
        return group


class _Member:
    """A driver: a member of a group, while it is connected.

    Attributes:
        broker: Its broker.
        positions: What stores positions.
        loss: Why its connection is lost.
        starts: Where it continues to read each partition that it owns.
    """

    def __init__(
        self,
        broker: MemoryBroker,
        group_name: str,
        group: _Group,
        positions: Positions | None = None,
    ) -> None:
        self.broker = broker
        self.positions = positions
        self._group_name = group_name
        self._group = group
        self._ownership: Ownership | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._turn = -1
        self._known: dict[str, int] = {}  # how often each partition that it reads changed owners
        self.loss: str | None = "it is not connected"
        self.starts: dict[str, int] = {}

    @property
    def name(self) -> str:
        return f"memory {self._group_name}"

    @property
    def positioned(self) -> bool:
        return not self.broker.shared

    @property
    def keep_alive(self) -> float:
        return self.broker.redeliver_after / 3 if self.broker.shared else math.inf

    async def open(self, ownership: Ownership, /) -> None:
        await asyncio.sleep(0)
        if not self.broker.is_running:
            raise ConnectionLost(self.name, "the broker is stopped")
        self._ownership = ownership
        self.loss = None
        self.starts = {}
        self._group.members.append(self)
        self._group.rebalance()
        self._fence_what_others_had()

    def _fence_what_others_had(self) -> None:
        """Fence the partitions that this member has not owned without a break."""
        logs = self._group.logs
        self._fence(
            [
                name
                for name, owners in self._known.items()
                if logs[name].owner is not self or logs[name].owners != owners
            ]
        )

    def _fence(self, names: list[str]) -> None:
        assert self._ownership is not None
        for name in names:
            _ = self._known.pop(name, None)
        self._ownership.fence(names)

    async def fetch(self, room: int, /) -> Sequence[Message[bytes]]:
        loop = asyncio.get_running_loop()
        until = loop.time() + _WAIT
        while True:
            self._check()
            if self not in self._group.members:  # it was evicted, and learns of it now
                self._fence(list(self._known))
                self._group.members.append(self)
                self._group.rebalance()
            await self._read_positions()
            now = loop.time() + _EARLY
            assert self._ownership is not None
            paused = self._ownership.paused()
            found = self._take(room, now, paused)
            if paused:
                until = min(until, now + _WAIT_WITHOUT)
            # What is paused since the connection was made has not begun yet.
            lag = {
                log.name: len(log.stored) - self.starts.get(log.name, log.committed)
                for log in self._readable()
            }
            self._ownership.lag(lag)
            if found or now >= until:
                return found
            await self._wait(min(until, self._next_visible()))

    async def _read_positions(self) -> None:
        """Begin with the partitions that are new here: by what is stored, not what is committed."""
        assert self._ownership is not None
        while new := [log for log in self._readable() if self._known.get(log.name) != log.owners]:
            # Those that were lost, and have come back.
            self._fence([log.name for log in new if log.name in self._known])
            owners = {log.name: log.owners for log in new}
            found = await self._ownership.positions(dict.fromkeys(owners, ""))
            for log in new:
                if log.owner is self and log.owners == owners[log.name]:
                    self._known[log.name] = log.owners
                    if log.name in found:
                        log.committed = found[log.name][0] + 1
                        if log.committed > len(log.stored):
                            reason = f"{log.name} has {len(log.stored)}, not {log.committed}"
                            raise PartitionReplaced(self.name, reason)
                    self.starts[log.name] = log.committed

    def _readable(self) -> list[_Log]:
        """Return the partitions that this member owns, and is to keep."""
        if self.broker.shared:
            return []
        logs = self._group.logs.values()
        return [log for log in logs if log.owner is self and log.target is self]

    def _take(self, room: int, now: float, paused: Collection[str]) -> list[Message[bytes]]:
        found: list[Message[bytes]] = []
        logs = list(self._group.logs.values())
        self._turn += 1  # otherwise a long partition would keep the others waiting
        first = self._turn % len(logs)
        for log in logs[first:] + logs[:first]:
            if self.broker.shared:
                for stored in log.stored:
                    if len(found) < room and not stored.is_acked and stored.hidden_until <= now:
                        stored.deliveries += 1
                        stored.hidden_until = now + self.broker.redeliver_after
                        found.append(_delivered(stored))
            elif log in self._readable() and log.name not in paused:
                start = self.starts.setdefault(log.name, log.committed)
                taken = log.stored[start : start + room - len(found)]
                self.starts[log.name] = start + len(taken)
                found += [stored.message for stored in taken]
        return found

    def _next_visible(self) -> float:
        if not self.broker.shared:
            return math.inf
        hidden = [
            stored.hidden_until
            for log in self._group.logs.values()
            for stored in log.stored
            if not stored.is_acked
        ]
        return min(hidden, default=math.inf)

    async def ack(self, messages: Sequence[Message[bytes]], /) -> None:
        await asyncio.sleep(0)
        self._check()
        lost: list[str] = []
        newest: dict[str, int] = {}
        for message in messages:
            log = self._group.logs[message.partition]
            (number,) = message.position
            if self.broker.shared:
                if not log.stored[number].is_acked:
                    log.acks.append(number)
                log.stored[number].is_acked = True
            elif log.owner is not self or self._known.get(log.name) != log.owners:
                lost.append(log.name)
            else:
                newest[log.name] = number + 1
        for name, committed in newest.items():
            log = self._group.logs[name]
            if committed < log.committed:
                raise AssertionError(f"{name} was acknowledged up to {log.committed} before")
            log.acks += range(log.committed, committed)
            log.committed = committed
        if lost:
            for name in lost:
                _ = self._known.pop(name, None)
            raise PartitionsLost(self.name, tuple(sorted(set(lost))))

    async def extend(self, messages: Sequence[Message[bytes]], /) -> None:
        self._check()
        until = asyncio.get_running_loop().time() + self.broker.redeliver_after
        for message in messages:
            stored = self._group.logs[message.partition].stored[message.position[0]]
            if message.receipt == stored.deliveries:
                stored.hidden_until = until

    async def nack(self, message: Message[bytes], delay: float, /) -> None:
        self._check()
        stored = self._group.logs[message.partition].stored[message.position[0]]
        if message.receipt == stored.deliveries:
            stored.hidden_until = asyncio.get_running_loop().time() + delay
            self._group.wake()

    async def watch(self) -> None:
        """Release the partitions that are to move to another member."""
        assert self._ownership is not None
        while True:
            moving = [
                log.name
                for log in self._group.logs.values()
                if log.owner is self and log.target is not self
            ]
            if moving:
                _ = await self._ownership.settled(moving)
                self._fence(moving)
                self._group.release(moving, self)
            else:
                await self._wait(math.inf)
                self._check()

    async def close(self) -> None:
        await asyncio.sleep(0)
        self.lose("it is closed")

    def lose(self, why: str) -> None:
        """End the connection."""
        self.loss = self.loss or why
        if self in self._group.members:
            self._group.members.remove(self)
            self._group.rebalance()
        self.wake()

    def evict(self) -> None:
        """Take the partitions away."""
        for log in self._group.logs.values():
            if log.owner is self:
                log.owner = log.last_owner = None
        if self in self._group.members:
            self._group.members.remove(self)
        self._group.rebalance()

    def _check(self) -> None:
        if self.loss is not None:
            raise ConnectionLost(self.name, self.loss)

    async def _wait(self, until: float) -> None:
        """Wait until something changes, or a time."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters.append(waiter)
        timer = None if until == math.inf else loop.call_at(until, notify, waiter)
        try:
            await waiter
        finally:
            self._waiters.remove(waiter)
            if timer is not None:
                timer.cancel()

    def wake(self) -> None:
        """Make its calls look again."""
        for waiter in self._waiters:
            notify(waiter)


def _delivered(stored: _Stored) -> Message[bytes]:
    message = stored.message
    return Message(
        message.value,
        message.partition,
        message.position,
        stored.deliveries,
        message.headers,
        message.key,
        message.timestamp,
        receipt=stored.deliveries,
    )
