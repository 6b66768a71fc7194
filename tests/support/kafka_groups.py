"""Groups of Kafka's consumers, as its brokers coordinate them: the classic protocol.

Tansu's own are not used. It answers who joins while others have not given up their partitions yet,
so that a message is read twice; and a group whose leader leaves while it forms never has another.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from itertools import count
from typing import Final, Literal

__all__ = [
    "ILLEGAL_GENERATION",
    "MEMBER_ID_REQUIRED",
    "NONE",
    "REBALANCING",
    "UNKNOWN_MEMBER",
    "Groups",
    "Joined",
]

NONE: Final = 0
ILLEGAL_GENERATION: Final = 22
UNKNOWN_MEMBER: Final = 25
REBALANCING: Final = 27
MEMBER_ID_REQUIRED: Final = 79


@dataclass(frozen=True)
class Joined:
    """The answer to a member that joins."""

    error: int
    member: str
    generation: int = -1
    protocol: str = ""
    leader: str = ""
    members: tuple[tuple[str, bytes], ...] = ()


@dataclass
class _Member:
    session: float
    rebalance: float
    protocol: str
    metadata: bytes
    assignment: bytes = b""
    joining: asyncio.Future[Joined] | None = None
    syncing: asyncio.Future[tuple[int, bytes]] | None = None
    expiry: asyncio.TimerHandle | None = None


@dataclass
class _Group:
    """A group: *joining* until all members have, *syncing* until all are assigned partitions."""

    members: dict[str, _Member] = field(default_factory=dict[str, _Member])
    expected: set[str] = field(
        default_factory=set[str]
    )  # were told their name, and have not joined
    state: Literal["joining", "syncing", "stable"] = "stable"
    generation: int = 0
    leader: str = ""
    limit: asyncio.TimerHandle | None = None


class Groups:
    """All groups of a broker; used in one event loop."""

    def __init__(self) -> None:
        self._groups: dict[str, _Group] = {}
        self._numbers = count(1)

    def _group(self, name: str) -> _Group:
        return self._groups.setdefault(name, _Group())

    async def join(
        self, name: str, member: str, timeouts: tuple[float, float], protocol: tuple[str, bytes]
    ) -> Joined:
        """Wait until all members of a group have asked to join, or their time has passed.

        Args:
            name: Of the group.
            member: Its id; empty if it has none yet.
            timeouts: Seconds without a heartbeat, and to join again, that a member has.
            protocol: How partitions are assigned, and what the member says to that.
        """
        group = self._group(name)
        if not member:
            member = f"member-{next(self._numbers)}"
            group.expected.add(member)
            return Joined(MEMBER_ID_REQUIRED, member)
        if member not in group.members | dict.fromkeys(group.expected):
            return Joined(UNKNOWN_MEMBER, member)
        group.expected.discard(member)
        it = group.members.get(member)
        if it is None:
            it = group.members[member] = _Member(*timeouts, *protocol)
        elif group.state == "syncing" and it.metadata == protocol[1]:
            return self._answer(group, member)  # it has not heard the answer
        it.session, it.rebalance = timeouts
        it.protocol, it.metadata = protocol
        self._stop_expiry(it)
        self._answer_join(it, Joined(REBALANCING, member))  # to a connection that was lost
        joining: asyncio.Future[Joined]
        joining = it.joining = asyncio.get_running_loop().create_future()
        self._begin(group)
        return await joining

    def _begin(self, group: _Group) -> None:
        """Begin to assign partitions, if that is not under way; end it if all have joined."""
        if group.state != "joining":
            group.state = "joining"
            for each in group.members.values():
                self._synced(each, REBALANCING)
            limit = max((each.rebalance for each in group.members.values()), default=0.0)
            group.limit = asyncio.get_running_loop().call_later(limit, self._joined, group)
        if all(each.joining is not None for each in group.members.values()):
            self._joined(group)

    def _joined(self, group: _Group) -> None:
        """Answer those that have joined; forget the others."""
        assert group.limit is not None
        group.limit.cancel()
        for name in [name for name, each in group.members.items() if each.joining is None]:
            self._stop_expiry(group.members.pop(name))
        group.generation += 1
        group.state = "syncing" if group.members else "stable"
        if group.leader not in group.members:
            group.leader = next(iter(group.members), "")
        for name, each in group.members.items():
            each.assignment = b""
            self._answer_join(each, self._answer(group, name))
            self._expire_later(group, name)

    def _answer_join(self, member: _Member, answer: Joined) -> None:
        waiting, member.joining = member.joining, None
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def _answer(self, group: _Group, member: str) -> Joined:
        found = group.members.items() if member == group.leader else ()
        members = tuple((name, each.metadata) for name, each in found)
        protocol = group.members[member].protocol
        return Joined(NONE, member, group.generation, protocol, group.leader, members)

    async def sync(
        self, name: str, member: str, generation: int, assigned: dict[str, bytes]
    ) -> tuple[int, bytes]:
        """Wait for the leader; return an error, or what the member is assigned."""
        group = self._group(name)
        if error := self._error(group, member, generation):
            return error, b""
        it = group.members[member]
        if group.state == "stable":
            return NONE, it.assignment
        self._synced(it, REBALANCING)
        syncing: asyncio.Future[tuple[int, bytes]]
        syncing = it.syncing = asyncio.get_running_loop().create_future()
        if member == group.leader:
            group.state = "stable"
            for each, other in group.members.items():
                other.assignment = assigned.get(each, b"")
                self._synced(other, NONE)
        return await syncing

    def _synced(self, member: _Member, error: int) -> None:
        waiting, member.syncing = member.syncing, None
        if waiting is not None and not waiting.done():
            waiting.set_result((error, b"" if error else member.assignment))

    def _error(self, group: _Group, member: str, generation: int) -> int:
        if member not in group.members:
            return UNKNOWN_MEMBER
        self._expire_later(group, member)
        if generation != group.generation:
            return ILLEGAL_GENERATION
        return REBALANCING if group.state == "joining" else NONE

    def heartbeat(self, name: str, member: str, generation: int) -> int:
        """Keep a member alive; return whether it has to join again."""
        return self._error(self._group(name), member, generation)

    def may_commit(self, name: str, member: str, generation: int) -> int:
        """Return an error if a member may not commit: it may while it gives partitions up."""
        group = self._group(name)
        if generation < 0 and not group.members:
            return NONE
        error = self._error(group, member, generation)
        if error in {NONE, REBALANCING}:
            return REBALANCING if group.state == "syncing" else NONE
        return error

    def leave(self, name: str, member: str) -> int:
        """Take a member out of its group, whose partitions are assigned again."""
        group = self._group(name)
        group.expected.discard(member)
        it = group.members.pop(member, None)
        if it is None:
            return UNKNOWN_MEMBER
        self._stop_expiry(it)
        self._synced(it, UNKNOWN_MEMBER)
        self._answer_join(it, Joined(UNKNOWN_MEMBER, member))
        self._begin(group)
        return NONE

    def _expire_later(self, group: _Group, name: str) -> None:
        it = group.members[name]
        self._stop_expiry(it)
        if it.joining is None:
            found = next(key for key, each in self._groups.items() if each is group)
            loop = asyncio.get_running_loop()
            it.expiry = loop.call_later(it.session, self.leave, found, name)

    def _stop_expiry(self, member: _Member) -> None:
        if member.expiry is not None:
            member.expiry.cancel()
        member.expiry = None
