"""Registers, commits and undoes, and says each time before and after. Traced by test_power_cuts."""

from __future__ import annotations

import asyncio
import os
import sys

from returns_pipeline.compensation import CompensationRegistry, CompensationScope
from returns_pipeline.journal import SqliteJournal

registry = CompensationRegistry()


@registry.compensation("undo")
async def undo(n: int) -> None:
    """Be undone."""


def say(what: str, n: int) -> None:
    """Emit words, which the trace has in the order of the writes to the disk."""
    _ = os.write(1, f"told {what} {n}\n".encode())


async def one(n: int, journal: SqliteJournal) -> None:
    scope = CompensationScope("job", journal=journal)
    say("records", n)
    await scope.register(undo, n)
    say("recorded", n)
    if n % 3 == 0:
        scope._records = []  # it is left open
    elif n % 3 == 1:
        say("commits", n)
        await scope.commit()
        say("committed", n)
    else:
        say("undoes", n)
        _ = await scope.compensate()
        say("undone", n)


async def main(path: str) -> None:
    number = 0
    for _ in range(3):  # opened again each time: what is left in the log goes into the file
        async with SqliteJournal(path) as journal:
            for together in (1, 4, 2):
                numbers = range(number, number + together)
                await asyncio.gather(*(one(n, journal) for n in numbers))
                number += together


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
