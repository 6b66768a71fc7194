"""Deadlines nest: whatever is around a step, it sees the earliest, and no limit outlives it."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.result import Failure, Result, Success

from returns_pipeline._engine.future_results import to_result
from returns_pipeline.context import StepContext
from returns_pipeline.errors import RetriesExhausted, StepTimeout
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
from returns_pipeline.result_stream import ResultStream
from returns_pipeline.saga import Saga
from returns_pipeline.testing import run, timed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Step = Callable[[StepContext], Awaitable[Any]]


def now() -> float:
    return asyncio.get_running_loop().time()


async def fail(ctx: StepContext) -> Result[int, str]:
    return Failure("no")


def in_saga(step: Step) -> Step:
    """Run it within a saga's step, by the context of the saga."""

    async def body(ctx: StepContext) -> Result[Any, Any]:
        return await to_result(step(ctx))

    return lambda ctx: to_result(Saga("s").step("a", body, timeout=99.0).run(ctx, ctx))


def in_stream(step: Step, *, concurrency: int) -> Step:
    async def each(ctx: StepContext) -> Result[Any, Any]:
        async def one(_: int, own: StepContext) -> Result[Any, Any]:
            return await to_result(step(own))

        stream = ResultStream.of(timed(1)).bind_step(one, ctx, concurrency=concurrency)
        return await to_result(stream.collect())

    return each


def in_run(step: Step) -> Step:
    return lambda ctx: to_result(ctx.child("in").run(to_result(step(ctx.child("in2")))))


AROUND: dict[str, Callable[[Step], Step]] = {
    "nothing": lambda step: step,
    "with_timeout": lambda step: with_timeout(step, 99.0),
    "with_retry": lambda step: with_retry(step, RetryPolicy(1, total_timeout=99.0)),
    "with_policy": lambda step: with_policy(step, Timeout(99.0) | RetryPolicy(1) | Timeout(98.0)),
    "race": lambda step: race(step, fail),
    "hedge": lambda step: hedge(step, after=99.0),
    "all_of": lambda step: all_of(step, step),
    "all_of, one at a time": lambda step: all_of(step, step, limit=1),
    "fallback": lambda step: fallback(Tier("a", fail), Tier("b", step)),
    "rate_limit": lambda step: rate_limit(9.0)(step),
    "circuit_breaker": lambda step: circuit_breaker(3, 9.0)(step),
    "bulkhead": lambda step: bulkhead(3)(step),
    "bind_step": lambda step: in_stream(step, concurrency=1),
    "bind_step, side by side": lambda step: in_stream(step, concurrency=4),
    "ctx.run": in_run,
    "child": lambda step: lambda ctx: step(ctx.child("later", deadline=99.0)),
}
around = pytest.mark.parametrize("name", AROUND)


@around
def test_a_step_sees_the_earliest_deadline_around_it(name: str) -> None:
    seen: list[float] = []

    async def look(ctx: StepContext) -> Result[int, str]:
        seen.append(ctx.deadline)
        return Success(1)

    async def main() -> None:
        ctx = StepContext("test", deadline=5.0)
        await AROUND[name](look)(ctx)
        await with_timeout(AROUND[name](look), 3.0)(ctx)
        retried = with_retry(AROUND[name](look), RetryPolicy(1, total_timeout=2.0))
        await retried(ctx)

    run(main())
    assert sorted(set(seen)) == [2.0, 3.0, 5.0]


@around
def test_a_limit_inside_is_cut_short_by_a_deadline_outside(name: str) -> None:
    ended: list[float] = []

    async def hang(ctx: StepContext) -> Result[int, str]:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append(now())
        return Success(1)

    async def main() -> None:
        ctx = StepContext("test", deadline=5.0)
        await AROUND[name](with_timeout(hang, 50.0))(ctx)
        assert now() == 5.0
        assert set(ended) == {5.0}

    run(main())


@pytest.mark.parametrize("total", [99.0, math.inf])
@around
def test_no_attempt_inside_begins_behind_a_deadline_outside(name: str, total: float) -> None:
    begun: list[float] = []

    async def flaky(ctx: StepContext) -> Result[int, str]:
        begun.append(now())
        return Failure("no")

    async def main() -> None:
        ctx = StepContext("test", deadline=5.0)
        policy = RetryPolicy(99, wait=2.0, total_timeout=total)
        await AROUND[name](with_retry(flaky, policy))(ctx)
        assert now() <= 5.0

    run(main())
    assert sorted(set(begun)) == [0.0, 2.0, 4.0]


def test_in_a_saga_too_and_also_by_a_limit_of_the_sagas_own() -> None:
    seen: list[float] = []

    async def look(ctx: StepContext) -> Result[int, str]:
        seen.append(ctx.deadline)
        return Success(1)

    async def hang(ctx: StepContext) -> Result[int, str]:
        await asyncio.sleep(1000)
        return Success(1)

    async def main() -> None:
        ctx = StepContext("test", deadline=5.0)
        await in_saga(look)(ctx)
        result = await to_result(in_saga(with_timeout(hang, 50.0))(ctx))
        assert isinstance(result.failure(), StepTimeout)
        assert now() == 5.0

    run(main())
    assert seen == [5.0]


def test_a_deadline_that_cuts_a_wait_short_fails_at_once_with_the_errors_so_far() -> None:
    """There is nothing to be gained by waiting for a time at which nothing may begin."""

    async def main() -> None:
        ctx = StepContext("test", deadline=5.0)
        result = await to_result(with_retry(fail, RetryPolicy(9, wait=100.0))(ctx))
        assert result == Failure(RetriesExhausted(("no",)))
        assert now() == 0.0

    run(main())


@given(limits=st.lists(st.sampled_from([1.0, 2.0, 3.0, 5.0, math.inf]), min_size=1, max_size=6))
def test_however_deep_limits_are_nested_the_shortest_holds(limits: list[float]) -> None:
    async def hang(ctx: StepContext) -> Result[int, str]:
        assert ctx.deadline == min(9.0, *limits)
        await asyncio.sleep(1000)
        return Success(1)

    step: Step = hang
    for limit in limits:
        step = with_timeout(step, limit)

    async def main() -> None:
        await step(StepContext("test", deadline=9.0))
        assert now() == min(9.0, *limits)

    run(main())
