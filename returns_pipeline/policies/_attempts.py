"""Running one step for a policy: again, with a time limit, or beside others.

A policy wraps a step function. If there is a `StepContext` among the arguments of a call, each run
of the step gets a context of its own in that place: what is registered there is handed to the one
of the call if the run succeeds, and undone if it fails, raises, is cancelled or is not wanted.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import sys
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from returns.result import Failure, Result, Success

from returns_pipeline._engine.cancellation import shielded, stop_within, wait_uncancelled
from returns_pipeline._engine.future_results import given_by, result_of
from returns_pipeline._engine.wrapping import name_of
from returns_pipeline.context import StepContext
from returns_pipeline.errors import AllFailed, StepTimeout

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from returns.future import FutureResult

    from returns_pipeline.retry import Timeout

__all__ = ["Call", "first_success", "run_all", "run_with_timeout"]

T = TypeVar("T")
E = TypeVar("E")

_log = logging.getLogger("returns_pipeline")


class Call(Generic[T, E]):
    """A step and its arguments, to be run any number of times."""

    __slots__ = ("_args", "_kwargs", "_name", "_step", "_where", "context")

    def __init__(
        self,
        step: Callable[..., FutureResult[T, E] | Awaitable[Result[T, E]]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        name: str | None = None,
    ) -> None:
        self._name = name
        self._step = step
        self._args = args
        self._kwargs = kwargs
        self.context: StepContext | None = None
        self._where: int | str = 0
        for index, value in enumerate(args):
            if isinstance(value, StepContext):
                self._found(value, index)
        if kwargs:
            for key, value in kwargs.items():
                if isinstance(value, StepContext):
                    self._found(value, key)

    def _found(self, context: StepContext, where: int | str) -> None:
        if self.context is not None:
            raise TypeError(f"{self.name}() was given two contexts: which is its own?")
        self.context = context
        self._where = where

    @property
    def name(self) -> str:
        """The step's name, for paths and reports."""
        return self._name or name_of(self._step)

    @property
    def deadline(self) -> float:
        """When it must be over, by what is around it."""
        return math.inf if self.context is None else self.context.deadline

    def within(self, context: StepContext | None) -> Call[T, E]:
        """Give the same call in another context."""
        made = cast("Call[T, E]", Call.__new__(Call))  # pyright does not know the class's own type
        made._name, made._step, made._where = self._name, self._step, self._where
        made._args, made._kwargs = self._args, self._kwargs
        made.context = context
        return made

    def begin(self, own: StepContext | None) -> FutureResult[T, E] | Awaitable[Result[T, E]]:
        """Call the step, in a context of its own if it has one."""
        if own is None:
            return self._step(*self._args, **self._kwargs)
        if isinstance(self._where, int):
            before, behind = self._args[: self._where], self._args[self._where + 1 :]
            return self._step(*before, own, *behind, **self._kwargs)
        return self._step(*self._args, **{**self._kwargs, self._where: own})

    async def run(self, deadline: float = math.inf) -> Result[T, E]:
        """Run it in the caller's task."""
        if self.context is None:
            return result_of(await given_by(self.begin(None)))
        own = self.context.attempt(self.name, deadline=deadline)
        return await own.conclude(lambda: self.begin(own), hold=True)


async def run_with_timeout(call: Call[T, E], limit: Timeout) -> Result[T, E | StepTimeout]:
    """Run a step in a task; at the limit, or the deadline of its context, stop and undo it."""
    began = asyncio.get_running_loop().time()
    due = min(began + limit.seconds, call.deadline)
    running = _Running(call, deadline=due)
    try:
        if not running.task.done():
            await _wait_for_one([running.task], due)
    except asyncio.CancelledError:
        _ = await _stop_all([running], limit.grace)
        raise
    if running.task.done():
        return running.task.result()
    cancelled = await _stop_all([running], limit.grace)
    if cancelled is not None:
        raise cancelled
    error = StepTimeout(call.name, max(0.0, due - began))
    if running.abandoned:
        error.add_note(f"it ignored its cancellation for {limit.grace:g} s: left running")
    return Failure(error)


class _Running(Generic[T, E]):
    """A run of a step in a task of its own, which can be stopped.

    Args:
        call: The step.
        deadline: Is put into its context.
        wanted: Says, once it has succeeded, whether that is still of use.
    """

    __slots__ = ("_call", "_context", "_ended", "_stopping", "_wanted", "abandoned", "task")

    def __init__(
        self,
        call: Call[T, E],
        *,
        deadline: float = math.inf,
        wanted: Callable[[], bool] | None = None,
    ) -> None:
        self._call = call
        self._context: StepContext | None = None
        if call.context is not None:
            self._context = call.context.attempt(call.name, deadline=deadline)
        self._wanted = wanted
        self._stopping = False
        self._ended = False  # the step, not its rollback
        self.abandoned = False
        self.task: asyncio.Task[Result[T, E]] = _start(self._run(), call.name)

    async def _run(self) -> Result[T, E]:
        if self._context is None:
            return await self._step()
        return await self._context.conclude(self._step, hold=True, wanted=self._is_wanted)

    def _is_wanted(self) -> bool:
        return not self._stopping and (self._wanted is None or self._wanted())

    async def _step(self) -> Result[T, E]:
        try:
            return result_of(await given_by(self._call.begin(self._context)))
        finally:
            self._ended = True

    @property
    def raised(self) -> bool:
        """Whether it has ended without a Result."""
        return self.task.cancelled() or self.task.exception() is not None

    def stop(self, grace: float) -> asyncio.Future[bool]:
        """Cancel the step; from now on its success is unwanted. True if it ends within ``grace``.

        Its rollback is not cut short: the undo actions have time limits of their own.
        """
        self._stopping = True
        return stop_within(self.task, grace, spared=lambda: self._ended)

    async def give_up(self) -> None:
        """Undo a step that did not stop: it can register nothing more."""
        self.abandoned = True
        if self._context is not None:
            await self._context.give_up()


def _start(work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
    """Run in a task; where Python can, begin at once: a step that does not wait costs no turn."""
    loop = asyncio.get_running_loop()
    if sys.version_info >= (3, 12) and loop.get_task_factory() is None:
        return asyncio.Task(work, loop=loop, name=name, eager_start=True)
    return loop.create_task(work, name=name)


async def _stop_all(
    running: list[_Running[Any, Any]], grace: float
) -> asyncio.CancelledError | None:
    """Stop runs, all at the same time; return the cancellation of the caller meanwhile, if any.

    What a stopped run raises instead of its cancellation has no reader, so it is logged.
    """
    # All are stopped before anything is awaited: one of them might succeed meanwhile.
    stopping = [(run, run.stop(grace)) for run in running if not run.task.done()]
    cancelled: asyncio.CancelledError | None = None
    for run, ended in stopping:
        first = await wait_uncancelled(ended)
        cancelled = cancelled or first
        if not ended.result():
            _, later = await shielded(run.give_up())  # before anything else is started
            cancelled = cancelled or later
    for task in [run.task for run in running]:
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            _log.error("%s raised while it was being stopped", task.get_name(), exc_info=error)
    return cancelled


async def _wait_for_one(tasks: list[asyncio.Task[Any]], due: float) -> None:
    """Wait until one of the tasks is done, or until a time on the loop's clock."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def wake(_: object = None) -> None:
        if not waiter.done():
            waiter.set_result(None)

    timer = None if due == math.inf else loop.call_at(due, wake)
    for task in tasks:
        task.add_done_callback(wake)
    try:
        await waiter
    finally:
        if timer is not None:
            timer.cancel()
        for task in tasks:
            _ = task.remove_done_callback(wake)


async def first_success(
    calls: Sequence[Call[T, E]], delay: float, grace: float
) -> Result[T, AllFailed[E]]:
    """Start one call after the other, ``delay`` seconds apart; give the first success."""
    loop = asyncio.get_running_loop()
    waiting = deque(enumerate(calls))
    running: dict[int, _Running[T, E]] = {}
    errors: dict[int, E] = {}
    winner: int | None = None
    next_start = loop.time()

    def wanted(index: int) -> bool:
        # Asked in the task of a run that has succeeded. The first one wins; one that succeeds in
        # the same turn of the loop is undone like any other.
        nonlocal winner
        if winner is None:
            winner = index
        return winner == index

    try:
        while waiting or running:
            while waiting and winner is None and (not running or loop.time() >= next_start):
                index, call = waiting.popleft()
                running[index] = _Running(call, wanted=functools.partial(wanted, index))
                next_start = loop.time() + delay
            finished = await _finished(running, next_start if waiting else math.inf, winner)
            # Of those that end in one turn of the loop, a success counts before an exception.
            for index in sorted(finished, key=lambda index: running[index].raised):
                result = running.pop(index).task.result()
                if isinstance(result, Success):
                    await _abandon(running, grace)
                    return result
                errors[index] = result.failure()
    except BaseException as error:
        await _abandon(running, grace, error)
        raise
    return Failure(AllFailed(tuple(error for _, error in sorted(errors.items(), key=_by_index))))


async def _finished(
    running: dict[int, _Running[T, E]], due: float, winner: int | None = None
) -> list[int]:
    """Give the runs that are done, when there is one, or none when it is time to start another.

    Once there is a winner, what becomes of the others is of no interest.
    """
    while True:
        of_interest = [index for index in running if winner in {None, index}]
        finished = [index for index in of_interest if running[index].task.done()]
        if finished or asyncio.get_running_loop().time() >= due:
            return finished
        await _wait_for_one([running[index].task for index in of_interest], due)


async def _abandon(
    running: dict[int, _Running[T, E]], grace: float, error: BaseException | None = None
) -> None:
    """Stop what still runs. A cancellation that comes meanwhile goes on."""
    runs = list(running.values())
    running.clear()
    cancelled = await _stop_all(runs, grace)
    if cancelled is not None and not isinstance(error, asyncio.CancelledError):
        raise cancelled


def _by_index(item: tuple[int, object]) -> int:
    return item[0]


async def run_all(
    calls: Sequence[Call[Any, Any]], limit: int, grace: float, *, fail_fast: bool
) -> Result[list[Any], Any]:
    """Run all calls, ``limit`` at a time; give their values, the first failure, or all failures."""
    waiting = deque(enumerate(calls))
    running: dict[int, _Running[Any, Any]] = {}
    values: dict[int, Any] = {}
    errors: dict[int, Any] = {}
    try:
        while waiting or running:
            while waiting and len(running) < limit:
                index, call = waiting.popleft()
                running[index] = _Running(call)
            for index in await _finished(running, math.inf):
                result = running.pop(index).task.result()
                if isinstance(result, Success):
                    values[index] = result.unwrap()
                    continue
                errors[index] = result.failure()
                if fail_fast:
                    await _abandon(running, grace)
                    return result
    except BaseException as error:
        await _abandon(running, grace, error)
        raise
    if errors:
        return Failure(AllFailed(tuple(errors[index] for index in sorted(errors))))
    return Success([values[index] for index in sorted(values)])
