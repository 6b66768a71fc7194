"""What policies report: attempts, limits, and the states of breakers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from returns.result import Failure, Result, Success

from returns_pipeline import ResultStream, StepContext, telemetry, to_result
from returns_pipeline.policies import (
    RetryPolicy,
    bulkhead,
    circuit_breaker,
    rate_limit,
    with_retry,
    with_timeout,
)
from returns_pipeline.saga import Saga
from returns_pipeline.telemetry import (
    BreakerChanged,
    LimiterWaited,
    StepBegun,
    StepEnded,
    StepRetried,
    StepTimedOut,
)
from returns_pipeline.testing import Recorder, run, timed

if TYPE_CHECKING:
    from collections.abc import Callable

BUSY = OSError("busy")


def flaky(failures: int) -> Callable[..., Any]:
    left = [failures]

    async def pay(value: int, step: StepContext | None = None) -> Result[int, Any]:
        await asyncio.sleep(1.0)
        left[0] -= 1
        return Failure(BUSY) if left[0] >= 0 else Success(value)

    return pay


@pytest.mark.parametrize("where", ["use", "context", "bind_step"])
def test_a_retry_is_reported_before_its_wait(where: str) -> None:
    recorder = Recorder()

    async def main() -> None:
        pay = with_retry(flaky(2), RetryPolicy(3, wait=2.0))
        if where == "use":
            with telemetry.use(recorder, pipeline="shop"):
                assert await to_result(pay(1)) == Success(1)
            return
        ctx = StepContext("shop", observer=recorder)
        if where == "context":
            assert await to_result(pay(1, ctx)) == Success(1)
            await ctx.commit()
        else:
            await ResultStream.of(timed(1)).bind_step(pay, ctx).run()

    run(main())
    found = [(e.at, e.pipeline, e.stage, e.attempt, e.delay) for e in recorder.of(StepRetried)]
    assert found == [(1.0, "shop", "pay", 1, 2.0), (4.0, "shop", "pay", 2, 2.0)]
    assert all(e.error is BUSY for e in recorder.of(StepRetried))
    attempts = [e.attempt for e in recorder.of(StepEnded) if e.duration == 1.0]
    assert attempts == ([] if where == "use" else [1, 2, 3])


def test_steps_of_a_saga_report_their_retries() -> None:
    recorder = Recorder()

    async def main() -> None:
        ctx = StepContext("shop", observer=recorder)
        saga = Saga("order").step("pay", flaky(1), retry=RetryPolicy(2))
        await ctx.run(saga.run(1, ctx))

    run(main())
    assert [(e.stage, e.attempt) for e in recorder.of(StepRetried)] == [("pay", 1)]
    assert [e.stage for e in recorder.of(StepBegun)] == ["shop", "order", "pay", "pay"]


@pytest.mark.parametrize("ignores", [False, True])
def test_a_timeout_is_reported_when_the_step_has_been_stopped(ignores: bool) -> None:
    recorder = Recorder()
    forever = asyncio.Event()

    async def ask(step: StepContext) -> Result[int, str]:
        while True:
            try:
                _ = await forever.wait()
            except asyncio.CancelledError:
                if not ignores or forever.is_set():
                    raise
            else:
                return Success(1)

    async def main() -> None:
        ctx = StepContext("shop", observer=recorder)
        assert isinstance(await to_result(with_timeout(ask, 2.0, grace=3.0)(ctx)), Failure)
        await ctx.commit()
        forever.set()
        await asyncio.sleep(1.0)  # a step that was abandoned ends

    run(main())
    found = [(e.at, e.stage, e.limit, e.abandoned) for e in recorder.of(StepTimedOut)]
    assert found == [(5.0 if ignores else 2.0, "ask", 2.0, ignores)]


def test_a_breaker_reports_each_change_of_its_state() -> None:
    recorder = Recorder()

    async def main() -> None:
        breaker = circuit_breaker(2, 10.0, name="bank")
        pay = breaker(flaky(2))
        ctx = StepContext("shop", observer=recorder)
        s = ResultStream.of(timed(1, 2)).bind_step(pay, ctx)
        await s.run_all()
        await asyncio.sleep(20.0)
        await ResultStream.of(timed(3)).bind_step(pay, ctx).run_all()
        breaker.reset()  # it is closed

    run(main())
    found = [(e.at, e.pipeline, e.breaker, e.before, e.state) for e in recorder.of(BreakerChanged)]
    assert found == [
        (2.0, "shop", "bank", "closed", "open"),
        (22.0, "shop", "bank", "open", "half open"),
        (23.0, "shop", "bank", "half open", "closed"),
    ]


def test_limiters_report_only_those_that_waited() -> None:
    recorder = Recorder()

    async def main() -> None:
        with telemetry.use(recorder, pipeline="shop"):
            limited = rate_limit(1, per=4.0)(flaky(0))
            await asyncio.gather(*[to_result(limited(n)) for n in range(3)])
            few = bulkhead(1, name="database")
            narrow = few(flaky(0))
            await asyncio.gather(*[to_result(narrow(n)) for n in range(2)])
            async with few.acquire():
                pass

    run(main())
    found = [(e.limiter, e.name, e.stage, e.waited) for e in recorder.of(LimiterWaited)]
    assert found == [
        ("rate_limit", "", "pay", 4.0),
        ("rate_limit", "", "pay", 8.0),
        ("bulkhead", "database", "pay", 1.0),
    ]


def test_what_is_opened_inside_a_step_reports_to_the_observers_of_the_step() -> None:
    recorder, other = Recorder(), Recorder()

    async def main() -> None:
        ctx = StepContext("shop", observer=recorder)

        async def work() -> Result[int, str]:
            await ResultStream.of(timed(1)).chunks_or_timeout(1, 9.0).run()
            return Success(1)

        with telemetry.use(other):
            await ctx.run(work())
        await ResultStream.of(timed(1)).chunks_or_timeout(1, 9.0).run()

    run(main())
    for each in (recorder, other):
        assert [e.pipeline for e in each.of(telemetry.WindowEmitted)] == ["shop"]
