"""A stopped task has a grace time to end, and is abandoned after it."""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import TYPE_CHECKING

import pytest

from returns_pipeline._engine.cancellation import stop_within
from returns_pipeline.testing import run

if TYPE_CHECKING:
    from collections.abc import Callable


async def stubborn(seconds: float) -> None:
    """Sleep on for some seconds after each cancellation."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(math.inf)
    await asyncio.sleep(seconds)


@pytest.mark.parametrize(
    ("seconds", "grace", "spared", "ended", "at"),
    [
        (0.0, 5.0, None, True, 0.0),
        (4.0, 5.0, None, True, 4.0),
        (6.0, 5.0, None, False, 5.0),
        (60.0, math.inf, None, True, 60.0),
        (6.0, 5.0, lambda: True, True, 6.0),
        (6.0, 5.0, lambda: False, False, 5.0),
    ],
)
def test_a_task_is_abandoned_when_its_grace_time_has_ended_unless_it_is_spared(
    seconds: float,
    grace: float,
    spared: Callable[[], bool] | None,
    ended: bool,
    at: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        task = asyncio.create_task(stubborn(seconds), name="stubborn")
        await asyncio.sleep(0)
        assert await stop_within(task, grace, spared=spared) is ended
        assert asyncio.get_running_loop().time() == at
        assert task.cancelling() == 1
        assert task.done() is ended
        await asyncio.wait({task})

    run(main())
    assert ("it ignored its cancellation for 5 s" in caplog.text) is not ended


def test_a_task_that_is_spared_for_a_while_is_abandoned_when_its_grace_time_has_passed_again() -> (
    None
):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(stubborn(60.0), name="stubborn")
        await asyncio.sleep(0)
        assert not await stop_within(task, 5.0, spared=lambda: loop.time() < 12.0)
        assert loop.time() == 15.0
        await asyncio.wait({task})

    run(main())


@pytest.mark.parametrize("begun", [True, False])
def test_the_end_of_a_stopped_task_needs_no_first_step(begun: bool) -> None:
    async def main() -> None:
        task = asyncio.create_task(asyncio.sleep(math.inf))
        if begun:
            await asyncio.sleep(0)
        assert await stop_within(task, 5.0)
        assert task.cancelled()
        assert await stop_within(task, 5.0)  # it has ended already

    run(main())
