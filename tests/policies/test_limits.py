"""Limits: how often, how many at a time, and whether at all."""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.result import Failure, Result, Success

from returns_pipeline._engine.future_results import to_result
from returns_pipeline.errors import BulkheadFull, CircuitOpen, InvalidArgument
from returns_pipeline.policies import bulkhead, circuit_breaker, rate_limit
from returns_pipeline.testing import run

if TYPE_CHECKING:
    from collections.abc import Callable


def now() -> float:
    return asyncio.get_running_loop().time()


async def note(times: list[float]) -> Result[int, str]:
    times.append(now())
    return Success(len(times))


async def gather(*steps: object) -> list[object]:
    tasks = [asyncio.ensure_future(step) for step in steps]  # type: ignore[call-overload]
    return [await task for task in tasks]


def test_runs_are_spaced_evenly_behind_a_burst() -> None:
    times: list[float] = []

    async def main() -> None:
        step = rate_limit(2, per=1.0, burst=3)(note)
        await gather(*(to_result(step(times)) for _ in range(6)))
        assert times == [0.0, 0.0, 0.0, 0.5, 1.0, 1.5]

    run(main())


def test_a_pause_gives_the_burst_back_and_no_more() -> None:
    times: list[float] = []

    async def main() -> None:
        step = rate_limit(1, burst=2)(note)
        for pause in (0, 0, 0, 100, 0, 0):
            await asyncio.sleep(pause)
            await to_result(step(times))
        assert times == [0.0, 0.0, 1.0, 101.0, 101.0, 102.0]

    run(main())


def test_steps_of_one_limit_share_it_in_the_order_of_their_calls() -> None:
    order: list[str] = []

    async def main() -> None:
        limit = rate_limit(1)

        async def a() -> Result[int, str]:
            order.append("a")
            return Success(1)

        async def b() -> Result[int, str]:
            order.append("b")
            return Success(1)

        one, other = limit(a), limit(b)
        await gather(*(to_result(step()) for step in (one, other, other, one)))
        assert order == ["a", "b", "b", "a"]
        assert now() == 3.0

    run(main())


def test_a_cancelled_call_gives_its_place_to_the_next() -> None:
    times: list[float] = []

    async def main() -> None:
        step = rate_limit(1)(note)
        calls = [asyncio.ensure_future(to_result(step(times))) for _ in range(4)]
        await asyncio.sleep(0.5)
        calls[1].cancel()
        await asyncio.wait(calls)
        assert times == [0.0, 1.0, 2.0]

    run(main())


def test_a_call_cancelled_in_the_turn_it_was_let_through_gives_its_place_back() -> None:
    times: list[float] = []

    async def main() -> None:
        step = rate_limit(1)(note)
        calls = [asyncio.ensure_future(to_result(step(times))) for _ in range(3)]
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_at(1.0, calls[1].cancel)  # right behind the limit's timer
        await asyncio.wait(calls)
        assert calls[1].cancelled()
        assert times == [0.0, 1.0]

    run(main())


@given(
    rate=st.integers(1, 5),
    burst=st.integers(1, 4),
    pauses=st.lists(st.sampled_from([0.0, 0.1, 0.7, 3.0]), max_size=20),
)
def test_no_stretch_of_time_has_more_than_its_share(
    rate: int, burst: int, pauses: list[float]
) -> None:
    times: list[float] = []

    async def main() -> None:
        step = rate_limit(rate, per=2.0, burst=burst)(note)
        calls = []
        for pause in pauses:
            await asyncio.sleep(pause)
            calls.append(asyncio.ensure_future(to_result(step(times))))
        if calls:
            await asyncio.wait(calls)

    run(main())
    assert len(times) == len(pauses)
    for first in range(len(times)):
        for last in range(first, len(times)):
            stretch = times[last] - times[first]
            assert last - first + 1 <= burst + stretch * rate / 2.0 + 1e-6


def test_a_breaker_opens_after_failures_in_a_row_and_says_when_to_come_back() -> None:
    outcomes: list[Result[int, str]] = [Failure("a"), Success(1), Failure("b"), Failure("c")]
    run_count = 0

    async def step() -> Result[int, str]:
        nonlocal run_count
        run_count += 1
        return outcomes.pop(0)

    async def main() -> None:
        breaker = circuit_breaker(2, reset_after=10.0, name="db")
        guarded = breaker(step)
        for _ in range(4):
            assert breaker.state == "closed"
            await to_result(guarded())
        assert breaker.state == "open"
        await asyncio.sleep(4)
        assert await to_result(guarded()) == Failure(CircuitOpen("db", 6.0))
        assert run_count == 4
        await asyncio.sleep(6)
        assert breaker.state == "half open"
        outcomes[:] = [Success(2), Success(3)]
        assert await to_result(guarded()) == Success(2)
        assert breaker.state == "closed"
        assert await to_result(guarded()) == Success(3)

    run(main())


def test_a_failed_trial_opens_it_again() -> None:
    async def step() -> Result[int, str]:
        return Failure("no")

    async def main() -> None:
        breaker = circuit_breaker(1, reset_after=10.0)
        guarded = breaker(step)
        assert await to_result(guarded()) == Failure("no")
        await asyncio.sleep(10)
        assert await to_result(guarded()) == Failure("no")
        assert await to_result(guarded()) == Failure(CircuitOpen("circuit", 10.0))

    run(main())


def test_exceptions_count_and_cancellations_do_not() -> None:
    async def broken() -> Result[int, str]:
        raise ZeroDivisionError

    async def slow() -> Result[int, str]:
        await asyncio.sleep(99)
        return Success(1)

    async def main() -> None:
        breaker = circuit_breaker(2, reset_after=10.0)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(breaker(slow)(), 1.0)
        assert breaker.state == "closed"
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                await breaker(broken)()
        assert breaker.state == "open"

    run(main())


def test_only_so_many_trials_at_a_time_and_a_cancelled_one_makes_room() -> None:
    async def fail() -> Result[int, str]:
        return Failure("no")

    async def slow() -> Result[int, str]:
        await asyncio.sleep(2)
        return Success(1)

    async def main() -> None:
        breaker = circuit_breaker(1, reset_after=10.0, half_open=2)
        await breaker(fail)()
        await asyncio.sleep(10)
        trials = [asyncio.ensure_future(to_result(breaker(slow)())) for _ in range(3)]
        await asyncio.sleep(1)
        assert trials[2].result() == Failure(CircuitOpen("circuit", 0.0))
        trials[0].cancel()
        await asyncio.sleep(0)
        late = asyncio.ensure_future(to_result(breaker(slow)()))
        assert await trials[1] == Success(1)
        assert breaker.state == "closed"
        assert await late == Success(1)

    run(main())


def test_what_began_before_the_state_changed_no_longer_counts() -> None:
    """A slow success of the time before it opened does not close it."""

    async def slow(outcome: Result[int, str]) -> Result[int, str]:
        await asyncio.sleep(5)
        return outcome

    async def broken() -> Result[int, str]:
        await asyncio.sleep(5)
        raise ZeroDivisionError

    async def fail() -> Result[int, str]:
        return Failure("no")

    async def main() -> None:
        breaker = circuit_breaker(1, reset_after=10.0)
        success = asyncio.ensure_future(to_result(breaker(slow)(Success(1))))
        failure = asyncio.ensure_future(to_result(breaker(slow)(Failure("late"))))
        bug = asyncio.ensure_future(to_result(breaker(broken)()))
        await asyncio.sleep(0)
        await breaker(fail)()
        assert await success == Success(1)
        assert await failure == Failure("late")
        with pytest.raises(ZeroDivisionError):
            await bug
        assert breaker.state == "open"
        await asyncio.sleep(5)  # ten since it opened, five since the late ones
        assert breaker.state == "half open"

    run(main())


def test_at_most_limit_run_and_the_others_wait_in_order() -> None:
    times: list[float] = []
    order: list[int] = []

    async def step(number: int) -> Result[int, str]:
        order.append(number)
        times.append(now())
        await asyncio.sleep(1)
        return Success(number)

    async def main() -> None:
        bounded = bulkhead(2)(step)
        await gather(*(to_result(bounded(number)) for number in range(5)))
        assert order == [0, 1, 2, 3, 4]
        assert times == [0.0, 0.0, 1.0, 1.0, 2.0]

    run(main())


def test_beyond_the_queue_a_step_is_turned_away_at_once() -> None:
    async def step() -> Result[int, str]:
        await asyncio.sleep(1)
        return Success(1)

    async def main() -> None:
        bounded = bulkhead(1, queue=1, name="db")(step)
        results = await gather(*(to_result(bounded()) for _ in range(3)))
        assert results == [Success(1), Success(1), Failure(BulkheadFull("db", 1, 1))]
        assert await to_result(bounded()) == Success(1)

    run(main())


def test_an_exception_and_a_cancellation_give_the_place_back() -> None:
    async def broken() -> Result[int, str]:
        raise ZeroDivisionError

    async def slow() -> Result[int, str]:
        await asyncio.sleep(9)
        return Success(1)

    async def main() -> None:
        bound = bulkhead(1, queue=9)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await bound(broken)()
        running = asyncio.ensure_future(to_result(bound(slow)()))
        waiting = [asyncio.ensure_future(to_result(bound(slow)())) for _ in range(3)]
        await asyncio.sleep(1)
        waiting[0].cancel()  # while it waits
        await asyncio.sleep(0)
        running.cancel()
        await asyncio.sleep(0)  # the place is handed to the second
        waiting[1].cancel()  # in the turn in which it was let in
        assert await waiting[2] == Success(1)
        assert now() == 10.0

    run(main())


def test_one_cancelled_in_the_turn_the_place_became_free_is_passed_over() -> None:
    async def slow() -> Result[int, str]:
        await asyncio.sleep(9)
        return Success(1)

    async def main() -> None:
        bound = bulkhead(1, queue=2)
        running, first, second = (asyncio.ensure_future(to_result(bound(slow)())) for _ in range(3))
        await asyncio.sleep(1)
        running.cancel()
        first.cancel()
        assert await second == Success(1)
        assert now() == 10.0
        assert first.cancelled()

    run(main())


def test_who_is_cancelled_no_longer_counts_as_waiting() -> None:
    async def slow() -> Result[int, str]:
        await asyncio.sleep(9)
        return Success(1)

    async def main() -> None:
        bound = bulkhead(1, queue=1)
        running, first = (asyncio.ensure_future(to_result(bound(slow)())) for _ in range(2))
        await asyncio.sleep(1)
        first.cancel()
        await asyncio.sleep(0)
        second = asyncio.ensure_future(to_result(bound(slow)()))
        assert await running == Success(1)
        assert await second == Success(1)
        assert (await to_result(bound(slow)())) == Success(1)

    run(main())


def test_a_cancelled_call_at_the_head_takes_no_turn() -> None:
    times: list[float] = []

    async def main() -> None:
        step = rate_limit(1)(note)
        calls = [asyncio.ensure_future(to_result(step(times))) for _ in range(3)]
        # Before the limit's own timer, in the same turn of the loop.
        asyncio.get_running_loop().call_at(1.0, calls[1].cancel)
        await asyncio.wait(calls)
        assert times == [0.0, 1.0]

    run(main())


def test_what_could_never_work_is_refused_at_the_call() -> None:
    nan, inf = float("nan"), float("inf")
    for make in (
        lambda: rate_limit(0),
        lambda: rate_limit(nan),
        lambda: rate_limit(inf),
        lambda: rate_limit(1, per=0),
        lambda: rate_limit(1, burst=0),
        lambda: circuit_breaker(0, 1.0),
        lambda: circuit_breaker(1, 0.0),
        lambda: circuit_breaker(1, inf),
        lambda: circuit_breaker(1, 1.0, 0),
        lambda: bulkhead(0),
        lambda: bulkhead(1, -1),
        lambda: bulkhead(1, nan),
    ):
        with pytest.raises(InvalidArgument):
            make()


def test_they_show_how_they_were_made() -> None:
    assert repr(rate_limit(2, burst=3)) == "rate_limit(2, per=1.0, burst=3)"
    assert repr(circuit_breaker(2, 9.0)) == "circuit_breaker(2, 9.0, half_open=1, name='circuit')"
    assert repr(bulkhead(2, 5)) == "bulkhead(2, queue=5, name='bulkhead')"


def test_what_is_no_count_and_no_time_is_refused() -> None:
    refused: list[tuple[Callable[..., object], tuple[Any, ...], dict[str, Any], str]] = [
        (rate_limit, (math.nan,), {}, "rate"),
        (rate_limit, (True,), {}, "rate"),
        (rate_limit, ("1",), {}, "rate"),
        (rate_limit, (1,), {"per": math.nan}, "per"),
        (rate_limit, (1,), {"burst": 1.5}, "burst"),
        (circuit_breaker, (math.nan, 1), {}, "failures"),
        (circuit_breaker, (1, math.nan), {}, "reset_after"),
        (circuit_breaker, (1, 1), {"half_open": 1.5}, "half_open"),
        (bulkhead, (1.5,), {}, "limit"),
        (bulkhead, (1,), {"queue": 0.5}, "queue"),
        (bulkhead, (1,), {"queue": math.nan}, "queue"),
    ]
    for make, args, kwargs, name in refused:
        with pytest.raises(InvalidArgument, match=name):
            make(*args, **kwargs)


def test_a_time_may_be_a_timedelta() -> None:
    minute = timedelta(minutes=1)

    async def main() -> None:
        limit = rate_limit(1, per=minute)
        await limit.acquire()
        await limit.acquire()
        assert asyncio.get_running_loop().time() == 60.0

    run(main())
    assert repr(circuit_breaker(1, minute)).startswith("circuit_breaker(1, datetime.timedelta(")
