"""Several members of a group."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final

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


@case(CASES, "members that join and leave while all are slow lose and double nothing")
async def _join_and_leave(harness: ConnectorHarness) -> None:
    await harness.publish(1, 120)
    done = Counter[bytes]()
    loop = asyncio.get_running_loop()
    latest = loop.time()

    def is_due(count: int) -> bool:
        """Return whether so many messages are done, or no member was given one for long."""
        return len(done) >= count or loop.time() > latest + harness.patience

    async def work(*, begin: int, until: int) -> None:
        """Join when so much is done, and leave when so much is done."""
        nonlocal latest
        while not is_due(begin):  # noqa: ASYNC110  # members know nothing of each other
            await asyncio.sleep(0.02)
        async with harness.source(max_in_flight=15) as source:
            while not is_due(until):
                message = await harness.next(source)
                if message is not None:
                    await asyncio.sleep(0.01)
                    done[message.value] += 1
                    latest = loop.time()
                if message is None or source.mark() % 4 == 0:
                    source.reached(source.mark())
            source.reached(source.mark())

    async with asyncio.TaskGroup() as tasks:
        _ = tasks.create_task(work(begin=0, until=60))
        _ = tasks.create_task(work(begin=20, until=90))
        _ = tasks.create_task(work(begin=40, until=120))
    expect("what was done twice", sorted_values(done - Counter(set(done))), [])
    expect("what was done", sorted_values(done), numbers(1, 120))
    expect("what comes again", await harness.rest(), [])


@case(CASES, "what a member has fetched and not emitted goes to others when it leaves")
async def _passed_on(harness: ConnectorHarness) -> None:
    await harness.publish(1, 12)
    async with harness.source() as first:
        found = await harness.read(first, 4)
        first.reached(first.mark())
    async with harness.source() as second:
        found += await harness.read(second, 8)
        second.reached(second.mark())
    expect("the values", values_of(found), numbers(1, 12))
    expect("what comes again", await harness.rest(), [])
