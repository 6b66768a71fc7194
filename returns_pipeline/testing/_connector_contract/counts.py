"""Deliveries that the broker does not count: the source does, by what a driver notes for it."""

from __future__ import annotations

import asyncio
from typing import Final

from returns.result import Failure, Success

from returns_pipeline._engine.future_results import cases
from returns_pipeline.connectors import Source
from returns_pipeline.errors import TooManyDeliveries
from returns_pipeline.retry import RetryPolicy
from returns_pipeline.testing._connector_contract.calls import fetch, opened
from returns_pipeline.testing._connector_harness import (
    ConnectorCheck,
    ConnectorHarness,
    Mortal,
    NoOwnership,
    case,
    expect,
    numbers,
    sorted_values,
)

__all__ = ["CASES"]

CASES: Final[dict[str, ConnectorCheck]] = {}

_MOST: Final = 2


@case(
    CASES,
    "what is noted of a partition stays there, whatever is acknowledged, until it is replaced",
)
async def _noted(harness: ConnectorHarness) -> None:
    await harness.publish(1, 40)
    told = NoOwnership()
    async with opened(harness.queue.driver(), told) as driver:
        found = await fetch(harness, driver, 40)
        if not told.notes:
            return  # the broker counts, or nobody does
        expect("the first notes", set(told.notes.values()), {""})
        expect("partitions with notes", {*told.notes}, {message.partition for message in found})
        notes = {name: f"noted of {name}" for name in told.notes}
        await driver.note(dict.fromkeys(notes, "to be replaced"))
        await driver.note(notes)
        # The last of each partition is left, so that there is something to be read.
        last = {message.partition: message for message in found}
        await driver.ack([message for message in found if message is not last[message.partition]])
    later = NoOwnership()
    async with opened(harness.queue.driver(), later) as driver:
        _ = await fetch(harness, driver, len(notes))
        expect("what the next owner is told", later.notes, notes)
        await driver.note(dict.fromkeys(notes, ""))
    latest = NoOwnership()
    async with opened(harness.queue.driver(), latest) as driver:
        _ = await fetch(harness, driver, len(notes))
        expect("what the one after it is told", latest.notes, dict.fromkeys(notes, ""))


@case(CASES, "a message that kills its readers is a dead letter in the end, and no other one is")
async def _poison(harness: ConnectorHarness) -> None:
    await harness.publish(1, 20)
    told = NoOwnership()
    async with opened(harness.queue.driver(), told) as driver:
        _ = await fetch(harness, driver, 1)
    if not told.notes:
        return
    poison, handled = b"7", set[bytes]()
    for _ in range(_MOST):
        expect("dead letters before that", await _live(harness, poison, handled), [])
    letters = await _live(harness, poison, handled)
    expect("dead letters", letters, [(poison, TooManyDeliveries(_MOST + 1, _MOST))])
    expect("what was handled", sorted_values({*handled, poison}), numbers(1, 20))
    expect("what comes again", await harness.rest(), [])


async def _live(
    harness: ConnectorHarness, poison: bytes, handled: set[bytes]
) -> list[tuple[bytes, TooManyDeliveries]]:
    """Read until the poison kills the process, or is a dead letter and nothing more comes."""
    mortal = Mortal(harness.queue.driver())
    policy = RetryPolicy(attempts=1000, wait=0.1)
    source = Source(mortal, max_deliveries=_MOST, reconnect=policy, drain_timeout=1.0)
    letters: list[tuple[bytes, TooManyDeliveries]] = []
    async with source, asyncio.timeout(harness.patience):
        while not mortal.is_dead and len(handled) + len(letters) < 20:
            match cases(await anext(source)):
                case Failure(letter):
                    value = letter.message.value
                    assert isinstance(value, bytes)
                    letters.append((value, letter.error))
                case Success(message):
                    if message.value == poison:
                        mortal.is_dead = True
                        break
                    handled.add(message.value)
            source.reached(source.mark())
        if not mortal.is_dead:
            await source.settled()
    return letters
