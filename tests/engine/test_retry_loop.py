"""The retry loop makes the attempts that the policy allows, in time, and no other."""

from __future__ import annotations

import asyncio

import pytest
from returns.result import Failure, Result, Success

from returns_pipeline._engine.retry_loop import next_delay, run_with_retry
from returns_pipeline.retry import RetryEvent, RetryPolicy
from returns_pipeline.testing import run


def now() -> float:
    return asyncio.get_running_loop().time()


def is_timeout(error: object) -> bool:
    return isinstance(error, TimeoutError)


def test_a_next_attempt_has_to_begin_before_the_deadline() -> None:
    events: list[RetryEvent] = []
    policy = RetryPolicy(attempts=3, wait=2.0, on_retry=events.append)
    error = OSError("gone")

    async def main() -> None:
        assert await next_delay(policy, 1, error, now() + 10.0) == 2.0
        assert await next_delay(policy, 2, error, now() + 2.1) == 2.0
        assert events == [RetryEvent(1, error, 2.0), RetryEvent(2, error, 2.0)]
        # There is no event for an attempt that will not be made.
        assert await next_delay(policy, 2, error, now() + 2.0) is None
        assert await next_delay(policy, 3, error, now() + 10.0) is None
        assert len(events) == 2

    run(main())


def test_on_retry_is_awaited_as_a_part_of_the_delay() -> None:
    times = iter([0.0, 0.5, 3.0, 5.0])

    async def pause(_: RetryEvent) -> None:
        await asyncio.sleep(next(times))

    async def main() -> None:
        policy = RetryPolicy(attempts=9, wait=2.0, on_retry=pause)
        delays = [await next_delay(policy, 1, OSError(), now() + 5.0) for _ in range(4)]
        # None: it took so long that the next attempt would begin at the deadline.
        assert delays == [2.0, 1.5, 0.0, None]

    run(main())


@pytest.mark.parametrize(
    ("policy", "retried", "others"),
    [
        (RetryPolicy(wait=0), [OSError(), "a text", None], []),
        (RetryPolicy(wait=0, retry_on=OSError), [ConnectionError()], [KeyError(), "a text"]),
        (RetryPolicy(wait=0, retry_on=(OSError, str)), [OSError(), "a text"], [KeyError(), None]),
        (RetryPolicy(wait=0, retry_on=is_timeout), [TimeoutError()], [OSError()]),
    ],
)
def test_what_is_retried(policy: RetryPolicy, retried: list[object], others: list[object]) -> None:
    async def attempts(error: object) -> int:
        made = 0

        async def fail(_: float) -> Result[int, object]:
            nonlocal made
            made += 1
            return Failure(error)

        assert await run_with_retry(fail, policy) == Failure(error)
        assert (await next_delay(policy, 1, error, now() + 1.0) is not None) is (made > 1)
        return made

    async def main() -> None:
        assert [await attempts(error) for error in retried] == [3] * len(retried)
        assert [await attempts(error) for error in others] == [1] * len(others)

    run(main())


def test_an_exception_is_retried_only_if_the_policy_says_so() -> None:
    errors: list[OSError | Exception] = []

    async def broken(_: float) -> Result[int, OSError]:
        raise OSError(len(errors))

    async def main() -> None:
        with pytest.raises(OSError, match="0"):
            await run_with_retry(broken, RetryPolicy(wait=0))
        last = await run_with_retry(broken, RetryPolicy(2, 0, OSError), errors=errors)
        assert last is errors[-1]
        assert [str(error) for error in errors] == ["0", "1"]

    run(main())


def test_a_final_error_ends_the_loop_whatever_the_policy_says() -> None:
    made: list[int] = []

    async def count(_: float) -> Result[int, int]:
        made.append(len(made))
        return Failure(made[-1])

    async def main() -> None:
        policy = RetryPolicy(9, 0)
        last = await run_with_retry(count, policy, final=lambda error: error == 2)
        assert last == Failure(2)

    run(main())


def test_no_attempt_begins_at_the_deadline_and_each_one_knows_it() -> None:
    deadlines: list[float] = []

    async def fail(deadline: float) -> Result[int, str]:
        deadlines.append(deadline)
        return Failure("no")

    async def main() -> None:
        policy = RetryPolicy(99, 1.0, total_timeout=3.0)
        assert await run_with_retry(fail, policy) == Failure("no")
        assert now() == 2.0
        assert deadlines == [3.0] * 3
        assert await run_with_retry(fail, policy, deadline=4.0) == Failure("no")
        assert deadlines[3:] == [4.0] * 2
        assert await run_with_retry(fail, RetryPolicy(2, 1.0)) == Failure("no")

    run(main())


def test_a_success_is_returned_at_once_and_as_it_is() -> None:
    success: Result[int, str] = Success(1)

    async def succeed(_: float) -> Result[int, str]:
        return success

    async def main() -> None:
        assert await run_with_retry(succeed, RetryPolicy()) is success

    run(main())
