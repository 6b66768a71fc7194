"""The conformance suite: a broker in memory passes, and each kind of broken sender does not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from returns_pipeline.connectors import Outgoing, OutgoingBatch
from returns_pipeline.errors import InvalidArgument
from returns_pipeline.testing import MemoryBroker, check_publisher, run
from returns_pipeline.testing._memory_sender import MemoryConnection
from returns_pipeline.testing._publisher_contract import CASES, CONNECTION_CASES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from returns_pipeline.connectors import Driver, Sender, SenderConnection


class InMemory:
    """A queue of a broker in memory, whose senders' connections may be of another class."""

    def __init__(self, kind: type[MemoryConnection]) -> None:
        self.broker = MemoryBroker(3)
        self.kind = kind

    def driver(self) -> Driver:
        return self.broker.driver("group")

    def sender(self) -> Sender:
        return OfKind(self.broker, self.kind)

    async def publish(self, values: Sequence[bytes], /) -> None:
        self.broker.publish(*values)

    async def remove(self) -> None: ...

    async def disconnect(self) -> None:
        self.broker.disconnect()


class OfKind:
    name = "memory"

    def __init__(self, broker: MemoryBroker, kind: type[MemoryConnection]) -> None:
        self.broker = broker
        self.kind = kind
        self.deduplicates = kind is not Forgetting

    async def connect(self) -> SenderConnection:
        await asyncio.sleep(0)
        made = self.kind(self.broker._keep, self.broker._sending)
        self.broker._sending.add(made)
        return made


def making(kind: type[MemoryConnection]) -> Callable[[], Awaitable[InMemory]]:
    async def make() -> InMemory:
        return InMemory(kind)

    return make


def test_a_broker_in_memory_passes() -> None:
    run(check_publisher(making(MemoryConnection), disconnect=InMemory.disconnect))


class Forgetting(MemoryConnection):
    """Sends again, without ids, what was sent before."""

    async def send(self, batch: OutgoingBatch, /) -> None:
        messages = [
            Outgoing(each.value, each.key, each.headers, each.partition) for each in batch.messages
        ]
        await super().send(sent := OutgoingBatch(messages))
        assert not list(sent.unanswered())
        batch.confirm_all()


def test_a_broker_that_knows_no_ids_passes() -> None:
    run(check_publisher(making(Forgetting), disconnect=InMemory.disconnect))


class Lying(MemoryConnection):
    """Confirms, and sends nothing."""

    async def send(self, batch: OutgoingBatch, /) -> None:
        batch.confirm_all()


class Hopeful(MemoryConnection):
    """Confirms before it sends."""

    async def send(self, batch: OutgoingBatch, /) -> None:
        copy = OutgoingBatch(list(batch.messages))
        batch.confirm_all()
        await asyncio.sleep(0)
        await super().send(copy)


class Careless(MemoryConnection):
    """Confirms what it has sent, though the connection was lost meanwhile."""

    async def send(self, batch: OutgoingBatch, /) -> None:
        await asyncio.sleep(0.001)
        if not self._loss:
            self._keep(batch)
        batch.confirm_all()


class Short(MemoryConnection):
    """Sends all but the last."""

    async def send(self, batch: OutgoingBatch, /) -> None:
        await super().send(OutgoingBatch(batch.messages[:-1]))
        batch.confirm_all()


class Backward(MemoryConnection):
    """Sends the last first."""

    async def send(self, batch: OutgoingBatch, /) -> None:
        await super().send(OutgoingBatch(batch.messages[::-1]))
        batch.confirm_all()


class Twice(MemoryConnection):
    """Sends each twice."""

    async def send(self, batch: OutgoingBatch, /) -> None:
        for n in range(2):
            messages = [
                Outgoing(each.value, each.key, each.headers, id=f"{each.id}{n}")
                for each in batch.messages
            ]
            await super().send(OutgoingBatch(messages))
        batch.confirm_all()


class Plain(MemoryConnection):
    """Leaves headers out."""

    async def send(self, batch: OutgoingBatch, /) -> None:
        messages = [Outgoing(each.value, each.key, id=each.id) for each in batch.messages]
        await super().send(OutgoingBatch(messages))
        batch.confirm_all()


class Keyless(MemoryConnection):
    """Leaves keys out."""

    async def send(self, batch: OutgoingBatch, /) -> None:
        messages = [Outgoing(each.value, None, each.headers, id=each.id) for each in batch.messages]
        await super().send(OutgoingBatch(messages))
        batch.confirm_all()


class Silent(MemoryConnection):
    """Never answers."""

    async def send(self, batch: OutgoingBatch, /) -> None:
        self._keep(batch)


class Selfish(MemoryConnection):
    """Confirms calls together, and none of them if one is cancelled."""

    confirming: asyncio.Future[None] | None = None

    async def send(self, batch: OutgoingBatch, /) -> None:
        self._keep(batch)
        if self.confirming is None or self.confirming.done():
            self.confirming = asyncio.ensure_future(asyncio.sleep(0.001))
        await self.confirming
        batch.confirm_all()


class Exact(MemoryConnection):
    """Knows what was lost, and says that it was refused; but it was not lost."""

    async def send(self, batch: OutgoingBatch, /) -> None:
        self._keep(batch)
        await asyncio.sleep(0.001)
        if self._loss:
            batch.refuse_all("lost")
        else:
            batch.confirm_all()


BROKEN = (
    Lying,
    Hopeful,
    Careless,
    Short,
    Backward,
    Twice,
    Plain,
    Keyless,
    Silent,
    Selfish,
    Exact,
)


@pytest.mark.parametrize("kind", BROKEN)
def test_each_broken_sender_is_found(kind: type[MemoryConnection]) -> None:
    with pytest.raises(ExceptionGroup, match="claims of the publisher contract are violated"):
        run(check_publisher(making(kind), disconnect=InMemory.disconnect, timeout=60, patience=5))


@pytest.mark.slow
def test_each_case_finds_a_broken_sender() -> None:
    """No case is left out: each is violated by one of the above."""
    found: set[str] = set()
    for kind in (*BROKEN, NotIdentified):
        try:
            run(
                check_publisher(
                    making(kind), disconnect=InMemory.disconnect, timeout=60, patience=5
                )
            )
        except* Exception as group:
            found |= {
                note.removeprefix("violated claim: ")
                for error in group.exceptions
                for note in error.__notes__
            }
    assert found == {*CASES, *CONNECTION_CASES}


class NotIdentified(MemoryConnection):
    """Claims to know ids, and does not."""

    async def send(self, batch: OutgoingBatch, /) -> None:
        messages = [
            Outgoing(each.value, each.key, each.headers, each.partition) for each in batch.messages
        ]
        await super().send(OutgoingBatch(messages))
        batch.confirm_all()


@pytest.mark.parametrize("name", ["patience", "quiet", "timeout"])
def test_times_out_of_range_are_refused_at_the_call(name: str) -> None:
    with pytest.raises(InvalidArgument, match=name):
        wrong: dict[str, Any] = {name: 0}
        run(check_publisher(making(MemoryConnection), **wrong))
