"""The idempotency keys of the attempts of a step."""

from __future__ import annotations

from typing import Literal

import pytest
from returns.result import Failure, Result, Success

from returns_pipeline import to_result
from returns_pipeline.compensation import current_key
from returns_pipeline.context import StepContext
from returns_pipeline.errors import InvalidArgument
from returns_pipeline.policies import with_retry, with_timeout
from returns_pipeline.retry import RetryPolicy
from returns_pipeline.testing import run


@pytest.mark.parametrize("key", ["attempt", "step"])
def test_attempts_have_keys_of_their_own_or_share_one(key: Literal["attempt", "step"]) -> None:
    calls: list[list[str]] = []
    undone: list[str] = []

    async def undo() -> None:
        undone.append(current_key())

    async def step(ctx: StepContext) -> Result[str, str]:
        await ctx.register(undo)
        calls[-1].append(ctx.key)
        return Failure("again")

    async def main() -> None:
        timed = with_timeout(step, 9.0)
        for again in (step, timed):
            retried = with_retry(again, RetryPolicy(3, wait=0.0), key=key)
            async with StepContext("job") as ctx:
                for _ in range(2):
                    calls.append([])
                    await to_result(retried(ctx))
                assert ctx.key not in calls[-1]

    run(main())
    keys = [set(call) for call in calls]
    assert [len(call) for call in keys] == ([3] * 4 if key == "attempt" else [1] * 4)
    assert len(set.union(*keys)) == sum(map(len, keys))  # no two calls share one
    assert undone == [each for call in calls for each in call]


def test_a_policy_says_which_keys_its_attempts_have() -> None:
    async def step() -> Result[str, str]:
        return Success("")

    assert "key" not in repr(with_retry(step, RetryPolicy(2)))
    kept = with_retry(step, RetryPolicy(2), key="step")
    assert repr(kept).endswith("RetryPolicy(attempts=2), key='step')")
    assert kept != with_retry(step, RetryPolicy(2))
    with pytest.raises(InvalidArgument, match="key must be"):
        with_retry(step, RetryPolicy(2), key="call")  # type: ignore[arg-type]
