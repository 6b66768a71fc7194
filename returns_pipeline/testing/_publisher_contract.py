"""The guarantees of a publisher, as cases: functions, each under the claim that it checks."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final, Protocol

from returns.result import Failure, Success

from returns_pipeline.connectors import Message, Outgoing, Publisher, Sender
from returns_pipeline.retry import RetryPolicy
from returns_pipeline.testing._connector_harness import (
    Check,
    ConnectorHarness,
    QueueUnderTest,
    case,
    expect,
    numbers,
    sorted_values,
)

__all__ = ["CASES", "CONNECTION_CASES", "PublisherHarness", "PublisherQueue"]

_SOON: Final = RetryPolicy(attempts=1000, wait=0.1)
# Seconds between two windows: virtual time would stand still without them.
_PAUSE: Final = 0.002


class PublisherQueue(QueueUnderTest, Protocol):
    """A queue, topic, stream or log that is new and empty, with a sender.

    Its drivers read what was published: they must be good ones.

    >>> from returns_pipeline.testing import MemoryBroker
    >>> hasattr(PublisherQueue, "sender")
    True
    """

    def sender(self) -> Sender:
        """Return another sender that publishes to it."""
        ...


class PublisherHarness(ConnectorHarness):
    """The queue of one case, with publishers that write it, and sources that read it."""

    queue: PublisherQueue

    def publisher(self, reconnect: RetryPolicy = _SOON) -> Publisher[bytes]:
        """Return a publisher of its own."""
        return Publisher(self.queue.sender(), encode=bytes, reconnect=reconnect)

    async def messages(self, wanted: int) -> list[Message[bytes]]:
        """Return everything that was published, in order, and wait with patience for so many."""
        async with self.source(max_in_flight=100_000) as source:
            found = await self.read(source, wanted)
            return found + await self.read_all(source)

    async def values(self, wanted: int) -> list[bytes]:
        """Return the values of everything that was published, in the order of their numbers."""
        return sorted_values(message.value for message in await self.messages(wanted))


CASES: Final[dict[str, Check[PublisherHarness]]] = {}
# Those that need a way to break connections.
CONNECTION_CASES: Final[dict[str, Check[PublisherHarness]]] = {}


@case(CASES, "what is confirmed is there once, one by one or as a window, of several publishers")
async def _there(harness: PublisherHarness) -> None:
    async with harness.publisher() as first, harness.publisher() as second:
        for value in numbers(1, 5):
            expect("the outcome", await first.publish(value), Success(1))
        expect("the outcome", await second.publish_all(numbers(6, 400)), Success(395))
        expect("the outcome of an empty window", await first.publish_all([]), Success(0))
        expect("what was counted", first.statistics().confirmed, 5)
    async with harness.publisher():
        pass
    async with harness.publisher() as third:
        expect("the outcome", await third.publish_all(numbers(401, 405)), Success(5))
    expect("the values", await harness.values(405), numbers(1, 405))


@case(CASES, "values of any bytes, and headers, are there as they were published")
async def _as_they_were(harness: PublisherHarness) -> None:
    odd = [b"", b"\x00\xff\x00", "naïve ☃ 🐍".encode(), bytes(range(256)) * 200]
    headers = {"origin": "test", "Content-Type": "text/plain; charset=utf-8"}
    async with harness.publisher() as publisher:
        window = [Outgoing(value, headers=headers) for value in odd]
        expect("the outcome", await publisher.publish_all(window), Success(4))
    found = await harness.messages(4)
    expect("the values", sorted(message.value for message in found), sorted(odd))
    for message in found:
        expect("the headers", headers.items() <= dict(message.headers).items(), wanted=True)


@case(CASES, "messages with one key are there in the order in which they were published")
async def _in_order(harness: PublisherHarness) -> None:
    values = numbers(1, 120)
    async with harness.publisher() as publisher:
        for start in range(0, 120, 40):
            _ = await publisher.publish(Outgoing(values[start], key=b"k"))
            window = [Outgoing(value, key=b"k") for value in values[start + 1 : start + 40]]
            _ = await publisher.publish_all(window)
    found = await harness.messages(120)
    expect("the partitions", len({message.partition for message in found}), 1)
    expect("the values", [message.value for message in found], values)


@case(CASES, "calls at the same time are all confirmed")
async def _together(harness: PublisherHarness) -> None:
    async with harness.publisher() as publisher:
        calls = [publisher.publish(value) for value in numbers(1, 50)]
        calls += [publisher.publish_all(numbers(51 + n * 10, 60 + n * 10)) for n in range(5)]
        outcomes = await asyncio.gather(*calls)
    expect("the outcomes", outcomes, [Success(1)] * 50 + [Success(10)] * 5)
    expect("the values", await harness.values(100), numbers(1, 100))


@case(CASES, "calls that are cancelled disturb no other")
async def _cancelled(harness: PublisherHarness) -> None:
    async with harness.publisher() as publisher:
        _ = await publisher.publish(b"0")
        for turns in range(10):
            first = 1000 * (turns + 1)
            call = asyncio.create_task(publisher.publish_all(numbers(first, first + 19)))
            kept = asyncio.create_task(publisher.publish_all(numbers(turns * 2 + 1, turns * 2 + 2)))
            for _ in range(turns):
                await asyncio.sleep(0)
            _ = call.cancel()
            _ = await asyncio.wait({call, kept})
            outcome = None if kept.cancelled() else kept.result()
            expect("the outcome of another", outcome, Success(2))
    found = Counter(message.value for message in await harness.messages(21))
    expect("what comes twice", [value for value, count in found.items() if count > 1], [])
    lost = set(numbers(1, 20)) - found.keys()
    expect("what was confirmed and is not there", sorted_values(lost), [])


@case(CASES, "of messages with one id the first is kept, or the id is passed on")
async def _ids(harness: PublisherHarness) -> None:
    deduplicates = harness.queue.sender().deduplicates
    async with harness.publisher() as publisher:
        for value in (b"1", b"2"):
            outcome = await publisher.publish(Outgoing(value, id="the same"))
            expect("the outcome", outcome, Success(1))
    found = await harness.messages(1 if deduplicates else 2)
    if deduplicates:
        expect("the values", [message.value for message in found], [b"1"])
    else:
        ids = [message.headers.get("message-id") for message in found]
        expect("the ids", ids, ["the same"] * 2)


@case(CONNECTION_CASES, "a publisher that has nothing to do connects again after a loss")
async def _idle(harness: PublisherHarness) -> None:
    async with harness.publisher() as publisher:
        for value in numbers(1, 4):
            expect("the outcome", await publisher.publish(value), Success(1))
            await harness.break_connections()
    found = await harness.values(4)
    expect("the values", sorted_values(set(found)), numbers(1, 4))


@case(CONNECTION_CASES, "what is confirmed while connections are lost is there")
async def _lost(harness: PublisherHarness) -> None:
    confirmed: list[bytes] = []
    is_over = False

    async def publish(worker: int) -> None:
        for n in range(1000):
            first = worker * 1_000_000 + n * 20
            window = numbers(first, first + 19)
            expect("the outcome", await publisher.publish_all(window), Success(20))
            confirmed.extend(window)
            if is_over and n >= 2:
                return
            await asyncio.sleep(_PAUSE)

    async with harness.publisher() as publisher, asyncio.TaskGroup() as tasks:
        for worker in range(3):
            _ = tasks.create_task(publish(worker))
        for _ in range(5):
            await asyncio.sleep(0.03)
            await harness.break_connections()
        is_over = True
    found = await harness.values(len(confirmed))
    lost = set(confirmed) - set(found)
    expect("what was confirmed and is not there", sorted_values(lost), [])
    if harness.queue.sender().deduplicates:
        expect("how many are there", len(found), len(confirmed))


@case(CONNECTION_CASES, "what fails with its connection says what is there, and what may be")
async def _failed(harness: PublisherHarness) -> None:
    sure: list[bytes] = []
    never: list[bytes] = []

    async def publish(publisher: Publisher[bytes]) -> None:
        first = 1
        while first < 20_000 and not is_over.done():
            window = numbers(first, first + 99)
            first += 100
            outcome = await publisher.publish_all(window)
            unsure: set[int] = set()
            if isinstance(outcome, Failure):
                error = outcome.failure()
                unsure = {*error.unconfirmed, *error.refused}
                never.extend(window[number] for number in error.refused)
            sure.extend(value for n, value in enumerate(window) if n not in unsure)
            await asyncio.sleep(_PAUSE)

    is_over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with harness.publisher(RetryPolicy(attempts=1)) as publisher:
        async with asyncio.TaskGroup() as tasks:
            _ = tasks.create_task(publish(publisher))
            for _ in range(5):
                await asyncio.sleep(0.03)
                await harness.break_connections()
            is_over.set_result(None)
        expect("the outcome of the next", await _next(publisher), Success(1))
    found = set(await harness.values(len(sure) + 1))
    expect("what was confirmed and is not there", sorted_values({*sure} - found), [])
    expect("what was refused and is there", sorted_values({*never} & found), [])


async def _next(publisher: Publisher[bytes]) -> object:
    """Publish until the connection is there again: the policy allows one attempt."""
    outcome: object = None
    for _ in range(50):
        outcome = await publisher.publish(b"20000")
        if isinstance(outcome, Success):
            break
        await asyncio.sleep(0.1)
    return outcome
