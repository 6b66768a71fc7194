"""A program that is killed and leaves sagas behind, for the tests of the command."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from returns_pipeline import journal as journals
from returns_pipeline.compensation import CompensationRegistry, CompensationScope, Journal
from returns_pipeline.journal import SqliteJournal
from returns_pipeline.retry import RetryPolicy

registry = CompensationRegistry()
others = CompensationRegistry()  # what a newer release of the program knows
twice = CompensationRegistry()  # has a name that `registry` has, too


def log(line: str) -> None:
    """Write down what was undone."""
    with Path("undone").open("a") as lines:
        _ = lines.write(f"{line}\n")


def is_forbidden() -> bool:
    """Whether the test wants that."""
    return Path("forbidden").exists()


@registry.compensation("delete-batch")
async def delete_batch(batch_id: str) -> None:
    """Delete it, unless that is forbidden by a file."""
    print("deleting", batch_id)  # noqa: T201  # where does it go?
    if batch_id == "slow":
        # The test opens the other end when it has seen enough.
        _ = await asyncio.to_thread(Path("gate").read_text)
    if batch_id == "b2" and is_forbidden():
        raise OSError("the store is down\n\x1b[31mred")
    log(batch_id)


@others.compensation("refund", version=3, retry=RetryPolicy(attempts=2, wait=0.0))
async def refund(order: int, amount: float, note: str = "") -> None:
    """Pay it back."""
    log(f"refund {order}")


@twice.compensation("refund")
async def other_refund() -> None:
    """Do something else under the same name."""


async def old(journal: Journal) -> None:
    """Leave two sagas for a recovery."""
    payments = CompensationScope("payments", journal=journal)
    await payments.register(delete_batch, "b0")
    await payments.child("charge").register(refund, 4711, 2.5, note="für Öre, danke schön")
    batches = CompensationScope("batcher", journal=journal)
    for number in "123":
        await batches.child(f"persist[{number}]").register(delete_batch, f"b{number}")


async def new(journal: Journal) -> None:
    """Leave one that no person has looked at, and one that is done."""
    done = CompensationScope("nightly", journal=journal)
    await done.register(delete_batch, "n1")
    _ = await done.compensate()
    pending = CompensationScope("batcher", journal=journal)
    await pending.register(delete_batch, "b4")


async def slow(journal: Journal) -> None:
    """Leave one whose newest action waits for a gate."""
    pending = CompensationScope("batcher", journal=journal)
    await pending.register(delete_batch, "b5")
    await pending.register(delete_batch, "slow")


async def hostile(journal: Journal) -> None:
    """Leave one that wants to play tricks on a terminal."""
    scope = CompensationScope("evil\x1b[2J\r\nname\u202e", journal=journal)
    await scope.register(delete_batch, "\x1b]0;owned\x07\n\x7f\x9b31m\u202e" + "\u8868" * 100)


def open_journal(dsn: str = "", schema: str = "") -> Journal:
    """Open a journal in a database, or else in a file."""
    if not dsn:
        return SqliteJournal("journal.db")
    # Not every version has it.
    made: Journal = vars(journals)["PostgresJournal"](dsn, schema=schema)
    return made


if __name__ == "__main__":
    leave = {"old": old, "new": new, "slow": slow, "hostile": hostile}[sys.argv[1]]
    journal = open_journal(*sys.argv[2:])  # never closed

    async def main() -> None:
        """Leave something and die."""
        await leave(journal)
        os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(main())
