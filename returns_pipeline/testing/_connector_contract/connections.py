"""Connections that are lost."""

from __future__ import annotations

import asyncio
from typing import Final

from returns_pipeline.testing._connector_harness import (
    ConnectorCheck,
    ConnectorHarness,
    case,
    expect,
    numbers,
    sorted_values,
)

__all__ = ["CASES"]

CASES: Final[dict[str, ConnectorCheck]] = {}


@case(CASES, "a source that waits for messages gets them after its connection was lost")
async def _idle(harness: ConnectorHarness) -> None:
    async with harness.source() as source:
        while not source.statistics().connections:  # noqa: ASYNC110  # no event tells of it
            await asyncio.sleep(0.02)
        await harness.break_connections()
        await harness.publish(1, 5)
        _ = await harness.read(source, 5)
        source.reached(source.mark())
        await source.settled()
    expect("what comes again", await harness.rest(), [])


@case(CASES, "what is handled after its connection was lost is acknowledged, or comes again")
async def _in_flight(harness: ConnectorHarness) -> None:
    await harness.publish(1, 10)
    async with harness.source() as source:
        found = {message.value for message in await harness.read(source, 6)}
        await harness.break_connections()
        source.reached(source.mark())
        await source.settled()
        acknowledged = source.statistics().acknowledged
        async with asyncio.timeout(harness.patience):
            while len(found) < 10 or source.statistics().acknowledged < 10:
                found |= {message.value for message in await harness.read_all(source)}
                source.reached(source.mark())
                await source.settled()
        expect("the values", sorted_values(found), numbers(1, 10))
        expect("acknowledged before", acknowledged in (0, 6), wanted=True)
    expect("what comes again", await harness.rest(), [])


@case(CASES, "connections that are lost again and again lose no message")
async def _again_and_again(harness: ConnectorHarness) -> None:
    await harness.publish(1, 60)
    found: set[bytes] = set()
    async with harness.source(max_in_flight=10) as source:
        for _ in range(5):
            for message in await harness.read(source, 5):
                found.add(message.value)
            source.reached(source.mark())
            await harness.break_connections()
        async with asyncio.timeout(harness.patience):
            while len(found) < 60:
                if (received := await harness.next(source)) is not None:
                    found.add(received.value)
                    source.reached(source.mark())
        source.reached(source.mark())
        await source.settled()
    expect("the values", sorted_values(found), numbers(1, 60))
    expect("what comes again", await harness.rest(), [])
