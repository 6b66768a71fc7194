"""Limits: how often, how many at a time, and whether at all."""

from __future__ import annotations

import asyncio
import gc
import math
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.io import IOFailure
from returns.result import Failure, Result, Success

from returns_pipeline._engine.future_results import to_result
from returns_pipeline.errors import BulkheadFull, CircuitOpen, InvalidArgument
from returns_pipeline.policies import (
    Bulkhead,
    BulkheadStatistics,
    CircuitBreaker,
    CircuitEvent,
    CircuitStatistics,
    RateLimitStatistics,
    RetryPolicy,
    Timeout,
    bulkhead,
    circuit_breaker,
    rate_limit,
    with_policy,
    with_timeout,
)
from returns_pipeline.testing import run

if TYPE_CHECKING:
    from collections.abc import Callable


def now() -> float:
    return asyncio.get_running_loop().time()


async def note(times: list[float]) -> Result[int, str]:
    times.append(now())
    return Success(len(times))


def state_of(breaker: CircuitBreaker) -> str:
    """Its state, which a checker believes to stay what it was compared with."""
    return breaker.state


async def gather(*steps: object) -> list[object]:
    tasks = [asyncio.ensure_future(step) for step in steps]  # type: ignore[call-overload]
    return [await task for task in tasks]


def test_runs_are_spaced_evenly_after_a_burst() -> None:
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
        asyncio.get_running_loop().call_at(1.0, calls[1].cancel)  # right after the limit's timer
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


def test_a_breaker_opens_after_failures_in_a_row_and_says_when_to_try_again() -> None:
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
            assert state_of(breaker) == "closed"
            await to_result(guarded())
        assert state_of(breaker) == "open"
        await asyncio.sleep(4)
        assert await to_result(guarded()) == Failure(CircuitOpen("db", 6.0))
        assert run_count == 4
        await asyncio.sleep(6)
        assert state_of(breaker) == "half open"
        outcomes[:] = [Success(2), Success(3)]
        assert await to_result(guarded()) == Success(2)
        assert state_of(breaker) == "closed"
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
        assert state_of(breaker) == "closed"
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                await breaker(broken)()
        assert state_of(breaker) == "open"

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
        # When the trials under way are given up, if they do not end before.
        assert trials[2].result() == Failure(CircuitOpen("circuit", 10.0))
        trials[0].cancel()
        await asyncio.sleep(0)
        late = asyncio.ensure_future(to_result(breaker(slow)()))
        assert await trials[1] == Success(1)
        assert state_of(breaker) == "closed"
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
        assert state_of(breaker) == "open"
        await asyncio.sleep(5)  # ten since it opened, five since the late ones
        assert state_of(breaker) == "half open"

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


def test_beyond_the_queue_a_step_is_refused_at_once() -> None:
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


def test_a_call_cancelled_in_the_turn_its_place_became_free_is_skipped() -> None:
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


def test_a_cancelled_call_no_longer_counts_as_waiting() -> None:
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
    assert repr(circuit_breaker(2, 9, failure_rate=0.5, counts=(OSError,), name="db")) == (
        "circuit_breaker(2, 9, half_open=1, counts=(<class 'OSError'>,), failure_rate=0.5, "
        "window=60.0, name='db')"
    )
    assert repr(bulkhead(2, 5)) == "bulkhead(2, queue=5, name='bulkhead')"


def test_what_is_neither_a_count_nor_a_time_is_refused() -> None:
    refused: list[tuple[Callable[..., object], tuple[Any, ...], dict[str, Any], str]] = [
        (rate_limit, (math.nan,), {}, "rate"),
        (rate_limit, (True,), {}, "rate"),
        (rate_limit, ("1",), {}, "rate"),
        (rate_limit, (1,), {"per": math.nan}, "per"),
        (rate_limit, (1,), {"burst": 1.5}, "burst"),
        (circuit_breaker, (math.nan, 1), {}, "failures"),
        (circuit_breaker, (1, math.nan), {}, "reset_after"),
        (circuit_breaker, (1, 1), {"half_open": 1.5}, "half_open"),
        (circuit_breaker, (1, 1), {"failure_rate": 1.1}, "failure_rate"),
        (circuit_breaker, (1, 1), {"failure_rate": 0}, "failure_rate"),
        (circuit_breaker, (1, 1), {"failure_rate": 0.5, "window": 0}, "window"),
        (circuit_breaker, (1, 1), {"counts": [OSError]}, "counts"),
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


def cancelled() -> int:
    """Return how many futures there are that were cancelled."""
    gc.collect()
    found = gc.get_objects()
    return len([o for o in found if isinstance(o, asyncio.Future) and o.cancelled()])


@pytest.mark.parametrize("kind", ["bulkhead", "rate_limit"])
def test_cancelled_calls_leave_no_trace_in_a_queue_that_does_not_move(kind: str) -> None:
    async def hang() -> Result[int, str]:
        await asyncio.sleep(1000.0)
        return Success(1)

    async def main() -> None:
        limit = bulkhead(1, queue=500) if kind == "bulkhead" else rate_limit(1, per=3600)
        limited: Callable[[], Any] = limit(hang)
        running = asyncio.ensure_future(to_result(limited()))
        await asyncio.sleep(0)
        earlier = cancelled()  # errors that modules of tests keep may hold some
        for _ in range(3):
            await gather(*(to_result(with_timeout(limited, 0.1)()) for _ in range(100)))
        assert cancelled() - earlier < 50
        await running

    run(main())


def test_several_permits_are_taken_at_once_and_in_order() -> None:
    times: list[tuple[str, float]] = []

    async def main() -> None:
        limit = rate_limit(1, burst=3)

        async def take(name: str, amount: int) -> None:
            await limit.acquire(amount)
            times.append((name, now()))

        await asyncio.gather(take("a", 2), take("b", 3), take("c", 1))
        assert times == [("a", 0.0), ("b", 2.0), ("c", 3.0)]
        for wrong in (0, 4, 1.5):
            with pytest.raises(InvalidArgument, match="amount"):
                await limit.acquire(wrong)  # type: ignore[arg-type]

    run(main())


def test_a_large_amount_that_is_cancelled_lets_a_smaller_one_go_earlier() -> None:
    async def main() -> None:
        limit = rate_limit(1, burst=10)
        await limit.acquire(10)
        large = asyncio.ensure_future(limit.acquire(10))
        small = asyncio.ensure_future(limit.acquire(2))
        await asyncio.sleep(1.0)
        large.cancel()
        await small
        assert now() == 2.0

        gate = bulkhead(3)
        async with gate.acquire(2):
            waiting = asyncio.ensure_future(hold(gate, 3, 1.0))
            after = asyncio.ensure_future(hold(gate, 1, 1.0))
            await asyncio.sleep(1.0)
            assert not after.done()
            waiting.cancel()
            await after
            assert now() == 4.0

    run(main())


async def hold(gate: Bulkhead, amount: int, seconds: float) -> None:
    async with gate.acquire(amount):
        await asyncio.sleep(seconds)


def test_places_of_a_bulkhead_can_be_held_by_work_that_is_not_a_step() -> None:
    async def step() -> Result[int, str]:
        return Success(1)

    async def main() -> None:
        gate = bulkhead(2, queue=0, name="db")
        async with gate.acquire(2):
            with pytest.raises(BulkheadFull):
                await hold(gate, 1, 0.0)
            assert await to_result(gate(step)()) == Failure(BulkheadFull("db", 2, 0))
        assert await to_result(gate(step)()) == Success(1)
        with pytest.raises(ZeroDivisionError):
            async with gate.acquire():
                raise ZeroDivisionError
        await hold(gate, 2, 0.0)
        for wrong in (0, 3):
            with pytest.raises(InvalidArgument, match="amount"):
                gate.acquire(wrong)

    run(main())


@given(
    steps=st.lists(
        st.tuples(st.integers(1, 3), st.sampled_from([0.0, 1.0, 2.0]), st.sampled_from([0.5, 9.0])),
        max_size=15,
    )
)
def test_a_bulkhead_never_has_more_than_its_limit_and_never_forgets_a_place(
    steps: list[tuple[int, float, float]],
) -> None:
    """With amounts, pauses and cancellations at random."""
    running = most = 0

    async def main() -> None:
        gate = bulkhead(3)

        async def one(amount: int) -> None:
            nonlocal running, most
            async with gate.acquire(amount):
                running += amount
                most = max(most, running)
                try:
                    await asyncio.sleep(1.0)
                finally:
                    running -= amount

        tasks: list[asyncio.Task[None]] = []
        for amount, pause, patience in steps:
            await asyncio.sleep(pause)
            tasks.append(asyncio.create_task(one(amount)))
            asyncio.get_running_loop().call_later(patience, tasks[-1].cancel)
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.wait_for(hold(gate, 3, 0.0), 1.0)  # all places are free again

    run(main())
    assert most <= 3


def test_a_trial_that_never_ends_is_given_up_and_another_may_go() -> None:
    end = asyncio.Event()
    answers = iter([Failure("down"), None])

    async def step() -> Result[int, str]:
        answer = next(answers, Success(1))
        while answer is None and not end.is_set():
            with suppress(asyncio.CancelledError):  # as a library that swallows it
                await end.wait()
        return answer or Failure("late")

    async def main() -> None:
        breaker = circuit_breaker(1, reset_after=10.0)
        guarded = with_timeout(breaker(step), 1.0, grace=1.0)
        await guarded()
        await asyncio.sleep(10.0)
        await guarded()  # the trial, which is abandoned
        assert await to_result(guarded()) == Failure(CircuitOpen("circuit", 8.0))
        await asyncio.sleep(8.0)
        assert await to_result(guarded()) == Success(1)
        assert state_of(breaker) == "closed"
        end.set()
        await asyncio.sleep(1.0)
        assert state_of(breaker) == "closed"  # its late failure no longer counts

    run(main())


def test_a_late_trial_that_was_given_up_does_not_count_while_another_is_under_way() -> None:
    seconds = iter([0.0, 15.0, 15.0])
    answers = iter([Failure("down"), Success(1), Failure("down")])

    async def step() -> Result[int, str]:
        answer = next(answers)
        await asyncio.sleep(next(seconds))
        return answer

    async def main() -> None:
        breaker = circuit_breaker(1, reset_after=10.0)
        await breaker(step)()
        await asyncio.sleep(10.0)
        first = asyncio.ensure_future(to_result(breaker(step)()))
        await asyncio.sleep(10.0)
        second = asyncio.ensure_future(to_result(breaker(step)()))
        assert await first == Success(1)
        assert state_of(breaker) == "half open"
        assert await second == Failure("down")
        assert state_of(breaker) == "open"

    run(main())


def test_failures_that_do_not_count_are_answers() -> None:
    outcomes: list[Result[int, object]] = []

    async def step() -> Result[int, object]:
        return outcomes.pop(0)

    async def main() -> None:
        breaker = circuit_breaker(2, reset_after=10.0, counts=(OSError, KeyError))
        guarded = breaker(step)
        outcomes[:] = [Failure("declined")] * 5 + [Failure(OSError()), Failure("declined")]
        outcomes[7:] = [Failure(ConnectionError())]
        for _ in range(8):
            await guarded()
        assert not outcomes
        assert state_of(breaker) == "closed"  # the declined one ended the row
        outcomes[:] = [Failure(KeyError("k"))]
        await guarded()
        assert state_of(breaker) == "open"
        await asyncio.sleep(10.0)
        outcomes[:] = [Failure("declined")]
        await guarded()
        assert state_of(breaker) == "closed"
        only = circuit_breaker(1, 10.0, counts=lambda error: error == "down")
        for text, state in (("declined", "closed"), ("down", "open")):
            outcomes[:] = [Failure(text)]
            await only(step)()
            assert state_of(only) == state

    run(main())


def test_a_function_of_what_counts_that_fails_does_not_replace_the_step_s_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    raised = KeyError("the step's own")

    async def step(raises: bool) -> Result[int, str]:
        if raises:
            raise raised
        return Failure("the step's own")

    def is_busy(error: Any) -> bool:
        return bool(error.busy)  # neither has such an attribute

    async def main() -> None:
        for raises in (False, True):
            breaker = circuit_breaker(1, 10.0, counts=is_busy)
            (outcome,) = await asyncio.gather(breaker(step)(raises), return_exceptions=True)
            assert outcome == (raised if raises else IOFailure("the step's own"))
            assert state_of(breaker) == "open"  # what is not known to be an answer counts

    run(main())
    assert caplog.text.count("so the error counts") == 2


def test_a_rate_of_failures_in_a_sliding_window_opens_it() -> None:
    async def answer(failed: bool) -> Result[int, str]:
        return Failure("no") if failed else Success(1)

    async def main() -> None:
        breaker = circuit_breaker(3, 10.0, failure_rate=0.5, window=10.0)
        guarded = breaker(answer)
        for failed in (False, False, False, False, True, True, True):
            await guarded(failed)
        assert state_of(breaker) == "closed"  # 3 of 7
        await asyncio.sleep(20.0)
        await guarded(True)
        await guarded(True)
        assert state_of(breaker) == "closed"  # all of 2, but fewer than 3
        await asyncio.sleep(9.5)
        await guarded(False)
        assert state_of(breaker) == "closed"
        await asyncio.sleep(1.0)
        await guarded(True)
        await guarded(True)
        assert state_of(breaker) == "closed"  # the first two are past the window
        await guarded(True)
        assert state_of(breaker) == "open"  # 3 of 4

    run(main())


def test_a_change_of_state_is_reported_and_a_reset_closes_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    events: list[CircuitEvent] = []

    async def answer(failed: bool) -> Result[int, str]:
        return Failure("no") if failed else Success(1)

    def report(event: CircuitEvent) -> None:
        events.append(event)
        raise RuntimeError("the pager is broken")

    async def main() -> None:
        breaker = circuit_breaker(1, 10.0, on_state_change=report, name="db")
        guarded = breaker(answer)
        slow = asyncio.ensure_future(to_result(breaker(with_timeout(never, 5.0))()))
        await asyncio.sleep(0)
        assert await to_result(guarded(True)) == Failure("no")
        await asyncio.sleep(10.0)
        await guarded(True)
        await asyncio.sleep(10.0)
        await guarded(False)
        await guarded(True)
        breaker.reset()
        assert await to_result(guarded(False)) == Success(1)
        breaker.reset()
        await slow

    run(main())
    assert [(event.state, event.error) for event in events] == [
        ("open", "no"),
        ("half open", None),
        ("open", "no"),
        ("half open", None),
        ("closed", None),
        ("open", "no"),
        ("closed", None),
    ]
    assert {event.name for event in events} == {"db"}
    assert "the pager is broken" in caplog.text


async def never() -> Result[int, str]:
    await asyncio.sleep(1000.0)
    return Success(1)


def test_a_breaker_is_a_layer_of_a_stack() -> None:
    made = 0

    async def fail() -> Result[int, str]:
        nonlocal made
        made += 1
        return Failure("no")

    async def main() -> None:
        outer = circuit_breaker(2, 10.0)
        guarded = with_policy(fail, outer | RetryPolicy(3, wait=0) | Timeout(1.0))
        await guarded()
        assert (made, state_of(outer)) == (3, "closed")
        await guarded()
        assert (made, state_of(outer)) == (6, "open")
        inner = circuit_breaker(2, 10.0)
        await with_policy(fail, RetryPolicy(3, wait=0) | inner)()
        assert (made, state_of(inner)) == (8, "open")
        for layers in (inner | Timeout(1.0), Timeout(1.0) | inner, inner):
            guarded = with_policy(fail, layers)  # type: ignore[arg-type]
            result: object = await to_result(guarded())
            assert result == Failure(CircuitOpen("circuit", 10.0))
        assert repr(inner | Timeout(1.0)) == f"{inner!r} | Timeout(1.0)"
        assert made == 8
        assert await to_result(with_policy(fail, bulkhead(1))()) == Failure("no")
        assert await to_result(with_policy(fail, rate_limit(1))()) == Failure("no")
        with pytest.raises(InvalidArgument, match="cannot be combined"):
            inner | inner | RetryPolicy()  # type: ignore[operator]

    run(main())


def test_statistics_of_a_rate_limit_tell_what_may_begin_and_what_waits() -> None:
    async def main() -> None:
        limit = rate_limit(1, per=2.0, burst=3)
        assert limit.statistics() == RateLimitStatistics(waiting=0, available=3)
        await limit.acquire(2)
        assert limit.statistics() == RateLimitStatistics(waiting=0, available=1)
        await asyncio.sleep(2.0)
        assert limit.statistics() == RateLimitStatistics(waiting=0, available=2)
        waiting = [asyncio.create_task(limit.acquire()) for _ in range(4)]
        await asyncio.sleep(0)
        assert limit.statistics() == RateLimitStatistics(waiting=2, available=0)
        waiting[-1].cancel()
        await asyncio.sleep(0)
        assert limit.statistics() == RateLimitStatistics(waiting=1, available=0)
        await asyncio.wait(waiting)
        await asyncio.sleep(99.0)
        assert limit.statistics() == RateLimitStatistics(waiting=0, available=3)

    run(main())


@given(
    rate=st.floats(0.01, 1000.0),
    burst=st.integers(1, 9),
    waits=st.lists(st.floats(0.0, 3.0), max_size=9),
)
def test_as_many_runs_as_are_available_begin_at_once(
    rate: float, burst: int, waits: list[float]
) -> None:
    async def main() -> None:
        limit = rate_limit(rate, burst=burst)
        for wait in waits:
            await asyncio.sleep(wait)
            began = now()
            for _ in range(limit.statistics().available):
                await limit.acquire()
            assert now() == began
            assert limit.statistics().available == 0

    run(main())


def test_statistics_of_a_bulkhead_tell_what_runs_and_what_waits() -> None:
    async def main() -> None:
        limit = bulkhead(2)

        async def hold() -> None:
            async with limit.acquire():
                await asyncio.sleep(1.0)

        tasks = [asyncio.create_task(hold()) for _ in range(5)]
        await asyncio.sleep(0.5)
        assert limit.statistics() == BulkheadStatistics(running=2, waiting=3)
        tasks[-1].cancel()
        await asyncio.sleep(1.0)
        assert limit.statistics() == BulkheadStatistics(running=2, waiting=0)
        await asyncio.wait(tasks)
        assert limit.statistics() == BulkheadStatistics(running=0, waiting=0)

    run(main())


@pytest.mark.parametrize("options", [{}, {"failure_rate": 0.1, "window": 60.0}])
def test_statistics_of_a_breaker_tell_its_state_and_what_it_has_counted(
    options: dict[str, float],
) -> None:
    async def fail() -> Result[int, str]:
        await asyncio.sleep(1.0)
        return Failure("no")

    async def main() -> None:
        breaker = circuit_breaker(3, 10.0, failure_rate=options.get("failure_rate"), window=60.0)
        step = breaker(fail)
        for failures in range(3):
            assert breaker.statistics() == CircuitStatistics("closed", failures, 0, 0.0)
            await step()
        assert breaker.statistics() == CircuitStatistics("open", 0, 0, 10.0)
        await asyncio.sleep(4.0)
        assert breaker.statistics().open_for == 6.0
        await asyncio.sleep(6.0)
        assert breaker.statistics() == CircuitStatistics("half open", 0, 0, 0.0)
        trial = asyncio.ensure_future(step().awaitable())
        await asyncio.sleep(0.5)
        assert breaker.statistics() == CircuitStatistics("half open", 0, 1, 0.0)
        await trial

    run(main())


def test_failures_that_left_the_window_are_not_counted() -> None:
    async def fail() -> Result[int, str]:
        return Failure("no")

    async def main() -> None:
        breaker = circuit_breaker(9, 10.0, failure_rate=1.0, window=60.0)
        await breaker(fail)()
        await asyncio.sleep(30.0)
        await breaker(fail)()
        assert breaker.statistics().failures == 2
        await asyncio.sleep(45.0)
        assert breaker.statistics().failures == 1

    run(main())
