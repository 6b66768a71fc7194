"""Several runs of steps at once: the first success, or all of them."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
from collections import deque
from collections.abc import Sequence
from typing import Any, TypeVar

from returns.result import Failure, Result, Success

from returns_pipeline.context._runs import Call, Run, stop_all, wait_for_one
from returns_pipeline.errors import AllFailed

__all__ = ["first_success", "run_all"]

T = TypeVar("T")
E = TypeVar("E")

_log = logging.getLogger("returns_pipeline.policies")


async def first_success(
    calls: Sequence[Call[T, E]], delay: float, grace: float
) -> Result[T, AllFailed[E]]:
    """Start calls ``delay`` seconds apart, and return the first success.

    A call is started early when all before it have failed. When one succeeds, the others are
    stopped and undone before it is returned.
    """
    loop = asyncio.get_running_loop()
    waiting = deque(enumerate(calls))
    running: dict[int, Run[T, E]] = {}
    errors: dict[int, E] = {}
    winner: int | None = None
    next_start = loop.time()

    def wanted(index: int) -> bool:
        # Called in the task of a run that has succeeded, before its actions pass to the call's
        # context. The first call wins; a run that succeeds in the same turn of the loop is undone
        # like any other.
        nonlocal winner
        if winner is None:
            winner = index
        return winner == index

    try:
        while waiting or running:
            while waiting and winner is None and (not running or loop.time() >= next_start):
                index, call = waiting.popleft()
                running[index] = Run(call, wanted=functools.partial(wanted, index))
                next_start = loop.time() + delay
            ended = await _next_ended(running, next_start if waiting else math.inf, winner)
            # Of those that end in one turn of the loop, a success counts before an exception.
            for index in sorted(ended, key=lambda index: running[index].raised):
                result = running.pop(index).task.result()
                if isinstance(result, Success):
                    await _stop_rest(running, grace)
                    return result
                errors[index] = result.failure()
    except BaseException as error:
        await _stop_rest(running, grace, error)
        raise
    return Failure(AllFailed(tuple(errors[index] for index in sorted(errors))))


async def _next_ended(
    running: dict[int, Run[T, E]], due: float, winner: int | None = None
) -> list[int]:
    """Wait until a run has ended, or until ``due``; return those that have.

    Once there is a winner, only its own end counts.
    """
    while True:
        awaited = [index for index in running if winner in {None, index}]
        ended = [index for index in awaited if running[index].task.done()]
        if ended or asyncio.get_running_loop().time() >= due:
            return ended
        await wait_for_one([running[index].task for index in awaited], due)


async def _stop_rest(
    running: dict[int, Run[T, E]], grace: float, error: BaseException | None = None
) -> None:
    """Stop the runs that are not done. A cancellation of the caller meanwhile propagates.

    If the caller is about to raise ``error``, a cancellation replaces it, unless the error is a
    cancellation itself.
    """
    runs = list(running.values())
    running.clear()
    cancelled = await stop_all(runs, grace)
    if cancelled is not None and not isinstance(error, asyncio.CancelledError):
        raise cancelled


async def run_all(
    calls: Sequence[Call[Any, Any]], limit: int, grace: float, *, fail_fast: bool
) -> Result[list[Any], Any]:
    """Run calls, ``limit`` at a time; return their values, the first failure, or all of them."""
    waiting = deque(enumerate(calls))
    running: dict[int, Run[Any, Any]] = {}
    values: dict[int, Any] = {}
    errors: dict[int, Any] = {}
    try:
        while waiting or running:
            while waiting and len(running) < limit:
                index, call = waiting.popleft()
                running[index] = Run(call)
            for index in await _next_ended(running, math.inf):
                result = running.pop(index).task.result()
                if isinstance(result, Success):
                    values[index] = result.unwrap()
                    continue
                errors[index] = result.failure()
                if fail_fast:
                    await _stop_rest(running, grace)
                    return result
    except BaseException as error:
        await _stop_rest(running, grace, error)
        raise
    if errors:
        return Failure(AllFailed(tuple(errors[index] for index in sorted(errors))))
    return Success([values[index] for index in sorted(values)])
