"""A shop whose workers are killed: run by `test_processes` in processes of their own.

An effect is a row with the number of a message and the key of its window. ``SHOP_HANGS`` names a
number after whose row a window never ends; ``SHOP_WINDOW`` is the size of a window.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
from returns.result import Result, Success

from returns_pipeline import CompensationRegistry, ResultStream, Saga, StepContext
from returns_pipeline.connectors import Message, Source
from returns_pipeline.connectors.nats import NatsStream
from returns_pipeline.connectors.postgres import PostgresLog
from returns_pipeline.journal import PostgresJournal
from returns_pipeline.worker import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DSN = os.environ["SHOP_DSN"]
NAME = os.environ.get("SHOP_NAME", "shop")
# Not that of another test, whose workers would undo what this one has left, in their own tables.
JOURNAL = f"journal_{NAME}"
HANGS = int(os.environ.get("SHOP_HANGS", "-1"))
WINDOW = int(os.environ.get("SHOP_WINDOW", "5"))

registry = CompensationRegistry()


async def execute(statement: str, *arguments: object) -> None:
    connection = await asyncpg.connect(DSN)
    try:
        await connection.execute(statement, *arguments)
    finally:
        await connection.close()


@registry.compensation("remove")
async def remove(key: str) -> None:
    """Take back what a window, or a reservation, has written."""
    await execute("DELETE FROM effect WHERE key = $1", key)


async def write(number: int, key: str) -> None:
    await execute("INSERT INTO effect VALUES ($1, $2)", number, key)
    if number == HANGS:
        await asyncio.sleep(3600)


async def persist(window: list[Message[int]], step: StepContext) -> Result[int, str]:
    await step.register(remove, step.key)
    for message in window:
        await write(message.value, step.key)
    return Success(len(window))


def shop(messages: ResultStream[Message[int], Any], ctx: StepContext) -> ResultStream[int, Any]:
    timeout = 3600.0 if WINDOW > 50 else 0.1
    return messages.chunks_or_timeout(WINDOW, timeout).bind_step(persist, ctx)


@asynccontextmanager
async def worker() -> AsyncIterator[Worker[Any]]:
    if nats := os.environ.get("SHOP_NATS"):
        driver = NatsStream(f"nats://{nats}", NAME, ack_wait=3.0).driver("shop")
    else:
        driver = PostgresLog(DSN, NAME).driver("shop")
    async with PostgresJournal(DSN, schema=JOURNAL) as journal:
        yield Worker(
            Source(driver, decode=int),
            shop,
            journal=journal,
            registry=registry,
            recover_every=1.0,
        )


async def reserve(number: int, step: StepContext) -> Result[int, str]:
    await step.register(remove, step.key)
    await write(number, step.key)
    return Success(number)


async def handle_request(number: int) -> None:
    """Do what a web handler does, and hang in the second step of its saga."""

    async def pay(_: int) -> Result[str, str]:
        _ = sys.stdout.write("paying\n")
        sys.stdout.flush()
        await asyncio.sleep(3600)
        return Success("paid")

    saga = Saga("order").step("reserve", reserve).step("pay", pay)
    async with (
        PostgresJournal(DSN, schema=JOURNAL) as journal,
        StepContext("web", journal=journal) as ctx,
    ):
        _ = await saga.run(number, ctx)


if __name__ == "__main__":
    asyncio.run(handle_request(int(sys.argv[1])))
