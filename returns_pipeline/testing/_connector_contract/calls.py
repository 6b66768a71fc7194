"""The calls of a driver, one by one, without a source."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Final

from returns_pipeline.connectors import Driver, Message
from returns_pipeline.testing._connector_harness import (
    ConnectorCheck,
    ConnectorHarness,
    NoOwnership,
    case,
    expect,
    numbers,
    values_of,
)

__all__ = ["CASES", "fetch", "opened"]

CASES: Final[dict[str, ConnectorCheck]] = {}


@contextlib.asynccontextmanager
async def opened(
    driver: Driver, ownership: NoOwnership | None = None
) -> AsyncGenerator[Driver, None]:
    """Open a driver, and close it."""
    await driver.open(ownership or NoOwnership())
    watching = asyncio.ensure_future(driver.watch())
    try:
        yield driver
    finally:
        _ = watching.cancel()
        _ = await asyncio.wait({watching})
        await driver.close()


async def fetch(harness: ConnectorHarness, driver: Driver, count: int) -> list[Message[bytes]]:
    """Fetch a number of messages that must come."""
    found: list[Message[bytes]] = []
    async with asyncio.timeout(harness.patience):
        while len(found) < count:
            found += await driver.fetch(count - len(found))
    return found


@case(CASES, "fetch returns at most as many messages as there is room for, and soon if none")
async def _room(harness: ConnectorHarness) -> None:
    async with opened(harness.queue.driver()) as driver:
        async with asyncio.timeout(5.0):
            expect("messages of an empty queue", list(await driver.fetch(10)), [])
        await harness.publish(1, 10)
        found: list[Message[bytes]] = []
        async with asyncio.timeout(harness.patience):
            while len(found) < 10:
                fetched = await driver.fetch(3)
                expect("no more than the room", len(fetched) <= 3, wanted=True)
                found += fetched
        await driver.ack(found)
    expect("the values", values_of(found), numbers(1, 10))
    expect("what comes again", await harness.rest(), [])


@case(CASES, "a fetch that is cancelled loses no message")
async def _cancelled(harness: ConnectorHarness) -> None:
    async with opened(harness.queue.driver()) as driver:
        for number in range(1, 13):
            fetching = asyncio.ensure_future(driver.fetch(10))
            if number % 2:
                await harness.publish(number, number)
            for _ in range(number):
                await asyncio.sleep(0)
            if number % 2 == 0:
                await harness.publish(number, number)
            _ = fetching.cancel()
            _ = await asyncio.wait({fetching})
    # Nothing was acknowledged. Those that were taken may have to wait for their deadline.
    rest = await harness.rest(wanted=numbers(1, 12))
    expect("what comes again", rest, numbers(1, 12))


@case(CASES, "an acknowledgement may be repeated")
async def _repeated(harness: ConnectorHarness) -> None:
    await harness.publish(1, 4)
    async with opened(harness.queue.driver()) as driver:
        found = await fetch(harness, driver, 4)
        await driver.ack(found)
        await driver.ack(found)
        await driver.extend(found)
    expect("what comes again", await harness.rest(), [])


@case(CASES, "a driver may be closed twice, or without having been opened, and opened again")
async def _reopened(harness: ConnectorHarness) -> None:
    driver = harness.queue.driver()
    await driver.close()
    for number in range(1, 4):
        await harness.publish(number, number)
        async with opened(driver):
            await driver.ack(await fetch(harness, driver, 1))
        await driver.close()
    expect("what comes again", await harness.rest(), [])
