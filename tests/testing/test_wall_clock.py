"""`run(epoch=...)` puts `time.time()` on virtual time, and puts it back."""

from __future__ import annotations

import asyncio
import math
import time
from datetime import UTC, datetime

import pytest

from returns_pipeline import InvalidArgument
from returns_pipeline.testing import VirtualTimeLoop, run


def test_by_default_the_date_is_real() -> None:
    async def main() -> float:
        await asyncio.sleep(10**9)
        return time.time()

    assert abs(run(main()) - time.time()) < 3600


@pytest.mark.parametrize("epoch", [1_000_000.5, datetime.fromtimestamp(1_000_000.5, tz=UTC)])
def test_with_an_epoch_the_date_moves_with_the_clock(epoch: float | datetime) -> None:
    async def main() -> list[float]:
        seen = [time.time()]
        await asyncio.sleep(3600)
        return [*seen, time.time(), time.time_ns() / 1e9]

    assert run(main(), epoch=epoch) == [1_000_000.5, 1_003_600.5, 1_003_600.5]


def test_threads_have_the_same_date() -> None:
    async def main() -> float:
        await asyncio.sleep(5)
        return await asyncio.to_thread(time.time)

    assert run(main(), epoch=100.0) == 105.0


def test_the_real_date_is_back_afterwards_also_after_a_failure() -> None:
    real = time.time, time.time_ns

    async def main() -> None:
        assert time.time() == 0.0
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        run(main(), epoch=0.0)
    assert (time.time, time.time_ns) == real


@pytest.mark.parametrize("epoch", [-1.0, math.nan, math.inf, True])
def test_an_epoch_out_of_range_is_refused_at_the_call(epoch: float) -> None:
    begun: list[int] = []

    async def main() -> None:
        begun.append(1)

    coroutine = main()
    with pytest.raises(InvalidArgument, match="epoch"):
        run(coroutine, epoch=epoch)
    coroutine.close()
    assert begun == []


def test_a_loop_of_a_runner_of_ones_own_leaves_the_date_alone() -> None:
    async def main() -> float:
        await asyncio.sleep(10**9)
        return time.time()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        assert abs(runner.run(main()) - time.time()) < 3600
