"""A shop that takes an order back, and cannot: its bank is closed (a file says so)."""

import asyncio
import logging
from pathlib import Path

from returns.result import Failure, Result

from returns_pipeline import CompensationRegistry, RetryPolicy, StepContext
from returns_pipeline.journal import SqliteJournal

registry = CompensationRegistry()
logging.basicConfig(format="%(levelname)s %(message)s")


def bank_is_closed() -> bool:
    return Path("bank-is-closed").exists()


@registry.compensation("refund", retry=RetryPolicy(attempts=2, wait=0.01))
async def refund(order: int) -> None:
    if bank_is_closed():
        raise ConnectionError("the bank is closed")
    print("refunded order", order)


async def sell(order: int, step: StepContext) -> Result[str, str]:
    await step.register(refund, order)
    return Failure("out of stock")


async def main() -> None:
    async with (
        SqliteJournal("shop.db") as journal,
        StepContext("shop", journal=journal) as ctx,
    ):
        print(await ctx.run(sell(4711, ctx)))


if __name__ == "__main__":
    asyncio.run(main())
