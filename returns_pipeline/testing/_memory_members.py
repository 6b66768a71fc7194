"""The members of groups that read a `MemoryBroker`, and what a group knows of its messages."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, Never, Protocol

from returns_pipeline._engine.reader import notify
from returns_pipeline.compensation.protocol import Positions
from returns_pipeline.connectors import Message, Ownership
from returns_pipeline.errors import ConnectionLost, PartitionReplaced, PartitionsLost

__all__ = ["Group", "Member", "Stored"]

# Seconds that a fetch waits for the first message.
_WAIT: Final = 1.0
# The same, if partitions are left out that may be wanted before.
_WAIT_WITHOUT: Final = 0.05
# By how many seconds a timer may fire early.
_EARLY: Final = 1e-6


class _Broker(Protocol):
    """What a member asks of its broker: see `MemoryBroker`."""

    shared: bool
    redeliver_after: float
    is_running: bool


class Stored:
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
        note: What its owner has noted: see `Driver.note`.
        last_owner: The last member that owned it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.stored: list[Stored] = []
        self.committed = 0
        self.acks: list[int] = []
        self.owner: Member | None = None
        self.target: Member | None = None
        self.owners = 0
        self.note = ""
        self.last_owner: Member | None = None

    def give_to(self, member: Member) -> None:
        """Make a member its owner."""
        if self.last_owner is not member:
            self.owners += 1
        self.owner = self.last_owner = member


class Group:
    """The members of a group, and its partitions."""

    def __init__(self, names: Iterable[str], *, shared: bool) -> None:
        self._shared = shared
        self.logs: dict[str, _Log] = {name: _Log(name) for name in names}
        self.members: list[Member] = []

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

    def release(self, names: Collection[str], member: Member) -> None:
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


class Member:
    """A driver: a member of a group, while it is connected.

    Attributes:
        broker: Its broker.
        positions: What stores positions.
        loss: Why its connection is lost.
        starts: Where it continues to read each partition that it owns.
    """

    def __init__(
        self,
        broker: _Broker,
        group_name: str,
        group: Group,
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
        self._placed: set[str] = set()  # those whose positions were requested on this connection
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
        self._placed.clear()  # the source may have forgotten them
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
        while new := [log for log in self._readable() if not self._is_placed(log)]:
            # Those that were lost, and have come back.
            back = [log.name for log in new if self._known.get(log.name, log.owners) != log.owners]
            self._fence(back)
            owners = {log.name: log.owners for log in new}
            found = await self._ownership.positions(dict.fromkeys(owners, ""))
            for log in new:
                if log.owner is self and log.owners == owners[log.name]:
                    self._known[log.name] = log.owners
                    self._placed.add(log.name)
                    after, end = (log.committed - 1,), (len(log.stored) - 1,)
                    if log.name in found:
                        log.committed = found[log.name][0] + 1
                        if log.committed > len(log.stored):
                            reason = f"{log.name} has {len(log.stored)}, not {log.committed}"
                            raise PartitionReplaced(self.name, reason)
                    self.starts[log.name] = log.committed
                    self._ownership.noted(log.name, log.note, after, end)

    def _is_placed(self, log: _Log) -> bool:
        return log.name in self._placed and self._known.get(log.name) == log.owners

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
            elif not self._owns(log):
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
            self._forget(lost)

    async def note(self, notes: Mapping[str, str], /) -> None:
        await asyncio.sleep(0)
        self._check()
        logs = self._group.logs
        lost = [name for name in notes if not self._owns(logs[name])]
        for name in notes.keys() - lost:
            logs[name].note = notes[name]
        if lost:
            self._forget(lost)

    def _owns(self, log: _Log) -> bool:
        """Return whether this member has owned a partition without a break."""
        return log.owner is self and self._known.get(log.name) == log.owners

    def _forget(self, lost: Collection[str]) -> Never:
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


def _delivered(stored: Stored) -> Message[bytes]:
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
