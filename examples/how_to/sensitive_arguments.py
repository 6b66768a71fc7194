"""Keep a secret out of logs and listings, and know where it is stored nevertheless."""

import asyncio
import logging
import sys

from returns.result import Failure, Result

from returns_pipeline import CompensationRegistry, StepContext
from returns_pipeline.journal import SqliteJournal

registry = CompensationRegistry()
logging.basicConfig(stream=sys.stdout, format="log: %(message)s", force=True)


@registry.compensation("refund", sensitive={"card"})
async def refund(order: int, card: str) -> None:
    if card.startswith("4242"):
        raise ConnectionError(f"the bank is closed, order {order}")  # no secret in this text


async def pay(step: StepContext) -> Result[str, str]:
    await step.register(refund, 7, "4242 4242 4242 4242")
    return Failure("out of stock")


async def main() -> None:
    async with SqliteJournal("secrets.db") as journal:
        async with StepContext("shop", journal=journal) as ctx:
            print(await ctx.run(pay(ctx)))
            print("report:", *ctx.report.failures)
        (saga,) = await journal.sagas()
        print("stored:", saga.actions[0].arguments)


if __name__ == "__main__":
    asyncio.run(main())
