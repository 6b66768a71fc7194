"""Policies around a step that succeeds at once, against a bare await and other libraries."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import aiobreaker
import aiolimiter
import stamina
import tenacity
from returns.future import FutureResult
from returns.result import Result, Success

from harness import Way, compare, start
from returns_pipeline.policies import (
    RetryPolicy,
    Tier,
    Timeout,
    all_of,
    bulkhead,
    circuit_breaker,
    fallback,
    hedge,
    race,
    rate_limit,
    with_policy,
    with_retry,
    with_timeout,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# Three microseconds more than an await that takes a tenth of one.
_GOAL = 31.0
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
    """Do what a user writes without a library."""
    async with asyncio.timeout(5.0):
        return await step()


async def in_task() -> Result[int, str]:
    """Run in a task, as everything that can be abandoned must."""
    return await asyncio.create_task(step())


def main() -> None:
    """Compare."""
    start("Policies around a step that succeeds at once")
    limiter = aiolimiter.AsyncLimiter(1e9, 1.0)

    async def limited() -> Result[int, str]:
        async with limiter:
            return await step()

    breaker = aiobreaker.CircuitBreaker(fail_max=3, timeout_duration=timedelta(seconds=1))
    stack = RetryPolicy() | Timeout(5.0)

    def ours(name: str, made: Callable[[], Awaitable[Any]]) -> Way:
        return Way(name, calls(made), goal=_GOAL)

    def rival(of: str, name: str, made: Callable[[], Awaitable[Any]]) -> Way:
        return Way(f"  {name}", calls(made), rival_of=of)

    compare(
        "an await each",
        5_000,
        Way("await step()", calls(step), share=10.0),
        Way("await FutureResult(step())", calls(lambda: FutureResult(step()))),
        ours("with_retry", with_retry(step, RetryPolicy())),
        rival(
            "with_retry",
            "tenacity.retry",
            tenacity.retry(stop=tenacity.stop_after_attempt(3))(step),
        ),
        rival("with_retry", "stamina.retry", stamina.retry(on=OSError, attempts=3)(step)),
        ours("with_timeout", with_timeout(step, 5.0)),
        Way("  asyncio.timeout, which cannot abandon", calls(in_timeout)),
        Way("  asyncio.create_task, without a limit", calls(in_task)),
        ours("with_policy, retry | timeout", with_policy(step, stack)),
        ours("race of two", race(step, step)),
        ours("hedge", hedge(step, after=1.0)),
        ours("all_of two", all_of(step, step)),
        ours("fallback", fallback(Tier("a", step), Tier("b", step))),
        ours("rate_limit", rate_limit(1e9, burst=10**9)(step)),
        rival("rate_limit", "aiolimiter", limited),
        ours("circuit_breaker", circuit_breaker(3, 1.0)(step)),
        rival("circuit_breaker", "aiobreaker", lambda: breaker.call_async(step)),
        ours("bulkhead", bulkhead(3)(step)),
    )


if __name__ == "__main__":
    main()
