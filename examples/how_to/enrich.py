"""Look each order up in a service: eight at a time, in order, retried, within its rate limit."""

import asyncio

from returns.result import Failure, Result, Success

from returns_pipeline import ResultStream
from returns_pipeline.policies import RetryPolicy, Timeout, rate_limit, with_policy
from returns_pipeline.sources import from_iterable

running: list[int] = []  # how many look-ups were under way when one began
under_way: set[int] = set()
busy = {7, 21}


async def look_up(order: int) -> Result[str, str]:
    """Ask a service, which takes its time and fails now and then."""
    under_way.add(order)
    running.append(len(under_way))
    await asyncio.sleep(0.01 + order % 3 / 100)
    under_way.discard(order)
    if order in busy:
        busy.discard(order)
        return Failure("busy")
    return Success(f"{order}: customer {order % 10}")


limit = rate_limit(1000, per=1.0, burst=100)
patient = with_policy(limit(look_up), RetryPolicy(3, wait=0.05) | Timeout(1.0))


async def main() -> None:
    orders = ResultStream.of(from_iterable(range(40)))
    enriched = orders.bind_async(patient, concurrency=8)  # emitted in the order of the orders
    print((await enriched.collect()).map(lambda names: (len(names), names[:2], names[-1])))
    print("at most", max(running), "at a time,", len(running), "look-ups for 40 orders")


if __name__ == "__main__":
    asyncio.run(main())
