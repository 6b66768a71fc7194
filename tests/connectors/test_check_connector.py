"""The conformance suite: a broker in memory passes, and each kind of broken driver does not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from returns_pipeline.errors import InvalidArgument
from returns_pipeline.testing import MemoryBroker, check_connector, run
from returns_pipeline.testing._connector_contract import CASES, CONNECTION_CASES
from returns_pipeline.testing._memory_members import Member

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from returns_pipeline.connectors import Driver, Message, Ownership


class InMemory:
    """A queue of a broker in memory, whose drivers may be of another class."""

    def __init__(self, kind: type[Member] = Member, *, shared: bool = False) -> None:
        self.broker = MemoryBroker(3, shared=shared, redeliver_after=1.0)
        self.kind = kind

    def driver(self) -> Driver:
        return self.kind(self.broker, "group", self.broker._group("group"))

    async def publish(self, values: Sequence[bytes], /) -> None:
        self.broker.publish(*values)

    async def remove(self) -> None: ...

    async def disconnect(self) -> None:
        self.broker.disconnect()


def making(kind: type[Member] = Member, *, shared: bool) -> Callable[[], Awaitable[InMemory]]:
    async def make() -> InMemory:
        return InMemory(kind, shared=shared)

    return make


@pytest.mark.parametrize("shared", [False, True])
def test_a_broker_in_memory_passes(*, shared: bool) -> None:
    run(check_connector(making(shared=shared), disconnect=InMemory.disconnect))


class Forgetful(Member):
    """Acknowledges nothing."""

    async def ack(self, messages: Sequence[Message[bytes]], /) -> None: ...


class Eager(Member):
    """Acknowledges what it fetches."""

    async def fetch(self, room: int, /) -> Sequence[Message[bytes]]:
        found = await super().fetch(room)
        await super().ack(found)
        return found


class Greedy(Member):
    """Fetches more than there is room for."""

    async def fetch(self, room: int, /) -> Sequence[Message[bytes]]:
        return await super().fetch(room + 2)


class Dead(Member):
    """Keeps nothing alive."""

    async def extend(self, messages: Sequence[Message[bytes]], /) -> None: ...


class Hasty(Member):
    """Fences before anything is settled."""

    async def watch(self) -> None:
        settled = self._ownership.settled if self._ownership else None

        async def at_once(partitions: Any, /) -> bool:
            return False

        assert settled is not None
        self._ownership.settled = at_once  # type: ignore[union-attr, method-assign]
        try:
            await super().watch()
        finally:
            self._ownership.settled = settled  # type: ignore[union-attr, method-assign]


class Losing(Member):
    """Loses what it has taken when it is cancelled."""

    async def fetch(self, room: int, /) -> Sequence[Message[bytes]]:
        found = await super().fetch(room)
        await super().ack(found)
        await asyncio.sleep(0.001)
        return found


class Once(Member):
    """Can be opened once."""

    opened = False

    async def open(self, ownership: Ownership, /) -> None:
        if self.opened:
            raise RuntimeError("it was opened before")
        self.opened = True
        await super().open(ownership)


class Same(Member):
    """All messages have one position."""

    async def fetch(self, room: int, /) -> Sequence[Message[bytes]]:
        return [
            type(each)(each.value, each.partition, (0,), receipt=each.receipt)
            for each in await super().fetch(room)
        ]


@pytest.mark.parametrize(
    ("kind", "shared", "claim"),
    [
        (Forgetful, False, "what was reached is acknowledged"),
        (Forgetful, True, "what was reached is acknowledged"),
        (Eager, False, "nothing is acknowledged that was not reached"),
        (Eager, True, "nothing is acknowledged that was not reached"),
        (Greedy, False, "at most as many messages as there is room for"),
        (Dead, True, "what is in flight is kept alive"),
        (Hasty, False, "members that join and leave while all are slow"),
        (Losing, True, "a fetch that is cancelled loses no message"),
        (Once, False, "and opened again"),
        (Same, True, "a position of its own"),
    ],
)
def test_a_broken_driver_is_found(kind: type[Member], claim: str, *, shared: bool) -> None:
    check = check_connector(
        making(kind, shared=shared), disconnect=InMemory.disconnect, patience=5, timeout=60
    )
    with pytest.raises(ExceptionGroup, match=claim) as found:
        run(check)
    assert len(found.value.exceptions) <= len(CASES) + len(CONNECTION_CASES)


def test_times_out_of_range_are_refused() -> None:
    for name in ("timeout", "patience", "quiet", "concurrency"):
        wrong: Any = {name: 0}
        with pytest.raises(InvalidArgument, match=name):
            run(check_connector(making(shared=False), **wrong))
