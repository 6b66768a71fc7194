"""Policies around a step that succeeds at once, against a bare await and other libraries."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiolimiter
import stamina
import tenacity
from returns.future import FutureResult
from returns.result import Result, Success

from harness import Way, compare, start
from returns_pipeline.policies import (
    RetryPolicy,
    Tier,
    all_of,
    bulkhead,
    circuit_breaker,
    fallback,
    hedge,
    race,
    rate_limit,
    with_retry,
    with_timeout,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_DONE: Result[int, str] = Success(1)


async def step() -> Result[int, str]:
    """Succeed at once."""
    return _DONE


def calls(made: Callable[[], Awaitable[Any]]) -> Callable[[int], Awaitable[None]]:
    """Await it again and again."""

    async def work(count: int) -> None:
        for _ in range(count):
            await made()

    return work


async def in_timeout() -> Result[int, str]:
    """Do what one writes without a library."""
    async with asyncio.timeout(5.0):
        return await step()


async def in_task() -> Result[int, str]:
    """Run in a task, as everything that can be left behind must."""
    return await asyncio.create_task(step())


def main() -> None:
    """Compare."""
    start("Policies around a step that succeeds at once")
    limiter = aiolimiter.AsyncLimiter(1e9, 1.0)

    async def limited() -> Result[int, str]:
        async with limiter:
            return await step()

    compare(
        "an await each",
        5_000,
        Way("await step()", calls(step), share=10.0),
        Way("await FutureResult(step())", calls(lambda: FutureResult(step()))),
        Way("with_retry", calls(with_retry(step, RetryPolicy()))),
        Way("  tenacity.retry", calls(tenacity.retry(stop=tenacity.stop_after_attempt(3))(step))),
        Way("  stamina.retry", calls(stamina.retry(on=OSError, attempts=3)(step))),
        Way("with_timeout", calls(with_timeout(step, 5.0))),
        Way("  asyncio.timeout, which cannot leave behind", calls(in_timeout)),
        Way("  asyncio.create_task, without a limit", calls(in_task)),
        Way("race of two", calls(race(step, step))),
        Way("hedge", calls(hedge(step, after=1.0))),
        Way("all_of two", calls(all_of(step, step))),
        Way("fallback", calls(fallback(Tier("a", step), Tier("b", step)))),
        Way("rate_limit", calls(rate_limit(1e9, burst=10**9)(step))),
        Way("  aiolimiter", calls(limited)),
        Way("circuit_breaker", calls(circuit_breaker(3, 1.0)(step))),
        Way("bulkhead", calls(bulkhead(3)(step))),
    )


if __name__ == "__main__":
    main()
