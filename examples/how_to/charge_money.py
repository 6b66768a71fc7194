"""A saga that charges money: reserve, charge, and only then send; undone also after a crash."""

import asyncio
from dataclasses import dataclass

from returns.result import Failure, Result, Success

from returns_pipeline import CompensationRegistry, RetryPolicy, Saga, StepContext, current_key
from returns_pipeline.journal import SqliteJournal, recover

registry = CompensationRegistry()


@dataclass(frozen=True)
class Order:
    number: int
    cents: int


@dataclass(frozen=True)
class Booking:
    order: Order
    seat: str


class Bank:
    """Stands for a payment service with idempotency keys."""

    def __init__(self) -> None:
        self.charges: dict[str, int] = {}

    async def charge(self, key: str, cents: int) -> bool:
        if cents > 10_000:
            return False
        self.charges[key] = cents  # the same key again changes nothing
        if cents == 666:
            await asyncio.sleep(3600)  # it is charged, and the answer is lost
        return True

    async def refund(self, key: str) -> None:
        print("  refund", self.charges.pop(key, "nothing"))


bank = Bank()
seats = ["1A", "1B", "1C"]
offline = [OSError("no connection")]  # for the first attempt to send


@registry.compensation("release")
async def release(booking: Booking) -> None:
    seats.append(booking.seat)
    print("  release", booking.seat)


@registry.compensation("refund", retry=RetryPolicy(attempts=5, wait=1.0))
async def refund() -> None:
    await bank.refund(current_key())  # the key of the step that is undone


async def reserve(order: Order) -> Result[Booking, str]:
    return Success(Booking(order, seats.pop())) if seats else Failure("sold out")


async def charge(booking: Booking, step: StepContext) -> Result[Booking, str]:
    await step.register(refund)  # before the effect: its answer may be lost
    if not await bank.charge(step.key, booking.order.cents):
        return Failure("card declined")
    return Success(booking)


async def send(booking: Booking) -> Result[str, OSError]:
    if offline:
        return Failure(offline.pop())
    return Success(f"ticket for {booking.seat}")


sell = (
    Saga("sell")
    .step("reserve", reserve, undo=release)
    .step("charge", charge, timeout=0.5)
    .pivot()  # from here on nothing is undone
    .step("send", send, retry=RetryPolicy(attempts=10, wait=0.1))
)


async def main() -> None:
    async with SqliteJournal("sales.db") as journal:
        await recover(journal, registry)  # what a process that died has left
        for order in (Order(1, 2_500), Order(2, 99_000), Order(3, 666)):
            async with StepContext("shop", journal=journal) as ctx:
                print(order.number, await sell.run(order, ctx))
    print("free:", sorted(seats), "charged:", list(bank.charges.values()))


if __name__ == "__main__":
    asyncio.run(main())
