"""What is delivered, and when it is acknowledged."""

from __future__ import annotations

import asyncio
from typing import Final

from returns_pipeline.connectors import Position
from returns_pipeline.testing._connector_harness import (
    ConnectorCheck,
    ConnectorHarness,
    case,
    expect,
    numbers,
    sorted_values,
    values_of,
)

__all__ = ["CASES"]

CASES: Final[dict[str, ConnectorCheck]] = {}


@case(CASES, "every message is delivered once, with its value, and has a position of its own")
async def _delivered(harness: ConnectorHarness) -> None:
    await harness.publish(1, 30)
    async with harness.source() as source:
        found = await harness.read(source, 30)
        expect("the values", values_of(found), numbers(1, 30))
        places = {(message.partition, message.position) for message in found}
        expect("the number of places", len(places), 30)
        expect("the deliveries", {message.deliveries for message in found}, {1})
        source.reached(source.mark())
        await harness.publish(31, 40)
        expect("later values", values_of(await harness.read(source, 10)), numbers(31, 40))


@case(CASES, "positions grow in each partition, if the driver says that it has such")
async def _positions(harness: ConnectorHarness) -> None:
    await harness.publish(1, 30)
    if not harness.queue.driver().positioned:
        return
    newest: dict[str, Position] = {}
    async with harness.source() as source:
        for message in await harness.read(source, 30):
            if message.partition in newest and message.position <= newest[message.partition]:
                raise AssertionError(f"{message.position} follows {newest[message.partition]}")
            newest[message.partition] = message.position


@case(CASES, "values of any bytes, headers aside, are delivered as they are")
async def _bytes(harness: ConnectorHarness) -> None:
    odd = [b"", b"\x00\xff\x00", "naïve ☃ 🐍".encode(), bytes(range(256)) * 200]
    await harness.queue.publish(odd)
    async with harness.source() as source:
        found = await harness.read(source, len(odd))
    expect("the values", sorted(message.value for message in found), sorted(odd))


@case(CASES, "nothing is acknowledged that was not reached")
async def _not_reached(harness: ConnectorHarness) -> None:
    await harness.publish(1, 10)
    async with harness.source() as source:
        _ = await harness.read(source, 7)
    rest = await harness.rest(wanted=numbers(1, 10))
    expect("what comes again", rest, numbers(1, 10))


@case(CASES, "what was reached is acknowledged, and nothing else")
async def _reached(harness: ConnectorHarness) -> None:
    await harness.publish(1, 20)
    async with harness.source() as source:
        found = await harness.read(source, 6)
        source.reached(source.mark())
        _ = await harness.read(source, 8)
    wanted = sorted_values({*numbers(1, 20)} - {message.value for message in found})
    rest = await harness.rest(wanted=wanted)
    expect("what comes again", rest, wanted)
    expect("what comes after that", await harness.rest(), [])


@case(CASES, "acknowledgements one by one add up")
async def _one_by_one(harness: ConnectorHarness) -> None:
    await harness.publish(1, 20)
    async with harness.source() as source:
        for _ in range(20):
            _ = await harness.read(source, 1)
            source.reached(source.mark())
        await source.settled()
        expect("acknowledged", source.statistics().acknowledged, 20)
    expect("what comes again", await harness.rest(), [])


@case(CASES, "a source holds no more messages than it may")
async def _credit(harness: ConnectorHarness) -> None:
    await harness.publish(1, 20)
    async with harness.source(max_in_flight=3) as source:
        _ = await harness.read(source, 3)
        expect("the fourth", await harness.read_all(source), [])
        for _ in range(17):
            source.reached(source.mark())
            _ = await harness.read(source, 1)
        source.reached(source.mark())
    expect("what comes again", await harness.rest(), [])


@case(CASES, "what is in flight is kept alive, and is not delivered again")
async def _kept_alive(harness: ConnectorHarness) -> None:
    await harness.publish(1, 5)
    driver = harness.queue.driver()
    async with harness.source() as source:
        _ = await harness.read(source, 3)
        if driver.keep_alive < float("inf"):
            await asyncio.sleep(6 * driver.keep_alive)
        if not driver.positioned:
            async with harness.source() as other:
                expect("what another member gets", await harness.read_all(other), [])
        _ = await harness.read(source, 2)
        source.reached(source.mark())
        await source.settled()
        expect("redelivered", source.statistics().redelivered, 0)
    expect("what comes again", await harness.rest(), [])


@case(CASES, "a message that is given back comes again, if the driver has no positions")
async def _given_back(harness: ConnectorHarness) -> None:
    if harness.queue.driver().positioned:
        return
    await harness.publish(1, 3)
    async with harness.source() as source:
        found = await harness.read(source, 3)
        source.nack(found[1])
        source.reached(source.mark())
        (again,) = await harness.read(source, 1)
        expect("the value", again.value, found[1].value)
        if again.deliveries not in (1, 2):
            raise AssertionError(f"it was delivered {again.deliveries} times")
        source.reached(source.mark())
    expect("what comes again", await harness.rest(), [])
