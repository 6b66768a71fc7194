"""`Call` and `Run`: a step that is run in the caller's task, or in one that can be stopped.

If there is a `StepContext` among the arguments of a call, each run of the step gets a context of
its own in its place. If the run succeeds, its actions pass to the call's own context. They are
undone if the run fails, raises, is cancelled or is not wanted any more.

Policies and sagas are built on these.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, Generic, TypeVar, cast

from returns.result import Failure, Result

from returns_pipeline import telemetry
from returns_pipeline._engine import observing
from returns_pipeline._engine.cancellation import shielded, stop_within, wait_uncancelled
from returns_pipeline._engine.future_results import AsyncResult, awaitable_of, result_of
from returns_pipeline._engine.logs import facts
from returns_pipeline._engine.names import name_of
from returns_pipeline._engine.observing import Observed
from returns_pipeline._engine.tracebacks import note_step
from returns_pipeline.context import _steps
from returns_pipeline.context._context import StepContext
from returns_pipeline.errors import StepTimeout
from returns_pipeline.retry import Timeout

__all__ = ["Call", "Run", "run_with_timeout", "stop_all", "wait_for_one"]

T = TypeVar("T")
E = TypeVar("E")

_log = logging.getLogger("returns_pipeline.context")


class Call(Generic[T, E]):
    """A step and its arguments, to be run any number of times.

    Attributes:
        context: The `StepContext` among the arguments, if there is one.
        key: The idempotency key of every attempt; ``None`` if each has its own.
    """

    __slots__ = ("_args", "_kwargs", "_made", "_name", "_position", "_step", "context", "key")

    def __init__(
        self,
        step: Callable[..., AsyncResult[T, E]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        name: str | None = None,
    ) -> None:
        self._name = name
        self._made = 0  # attempts by `run`
        self._step = step
        self._args = args
        self._kwargs = kwargs
        self.key: str | None = None
        self.context: StepContext | None = None
        self._position: int | str = 0  # of the context: an index of `args`, or a key of `kwargs`
        for index, value in enumerate(args):
            if isinstance(value, StepContext):
                self._set_context(value, index)
        if kwargs:
            for key, value in kwargs.items():
                if isinstance(value, StepContext):
                    self._set_context(value, key)

    def _set_context(self, context: StepContext, position: int | str) -> None:
        if self.context is not None:
            raise TypeError(f"{self.name}() was given two contexts: which is its own?")
        self.context = context
        self._position = position

    @property
    def name(self) -> str:
        """The step's name, for paths and reports."""
        return self._name or name_of(self._step)

    @property
    def deadline(self) -> float:
        """The deadline of its context, on the loop's clock; infinity if there is none."""
        return math.inf if self.context is None else self.context.deadline

    def report_retry(self, attempt: int, error: object, delay: float) -> None:
        """Report that an attempt has failed, and another one follows."""
        if (observed := self._observed()) is None:
            return
        event = telemetry.StepRetried(
            pipeline=observed.pipeline,
            stage=self.name,
            attempt=attempt,
            delay=delay,
            error=error,
            at=asyncio.get_running_loop().time(),
        )
        observed.report(event)

    def report_timeout(self, limit: float, *, abandoned: bool) -> None:
        """Report that the step was stopped at its time limit."""
        if (observed := self._observed()) is None:
            return
        event = telemetry.StepTimedOut(
            pipeline=observed.pipeline,
            stage=self.name,
            limit=limit,
            abandoned=abandoned,
            at=asyncio.get_running_loop().time(),
        )
        observed.report(event)

    def _observed(self) -> Observed | None:
        """Return who observes it: its context's observers, or else those of the running step."""
        own = None if self.context is None else _steps.observed(self.context)
        return observing.opened() if own is None else own

    def within(self, context: StepContext | None) -> Call[T, E]:
        """Return the same call in another context."""
        made = cast("Call[T, E]", Call.__new__(Call))  # pyright does not know the class's own type
        made._name, made._step, made._position = self._name, self._step, self._position
        made._args, made._kwargs, made._made = self._args, self._kwargs, 0
        made.context, made.key = context, self.key
        return made

    def begin(self, own: StepContext | None) -> AsyncResult[T, E]:
        """Call the step, with its own context in place of the call's."""
        if own is None:
            return self._step(*self._args, **self._kwargs)
        if isinstance(self._position, int):
            before, after = self._args[: self._position], self._args[self._position + 1 :]
            return self._step(*before, own, *after, **self._kwargs)
        return self._step(*self._args, **{**self._kwargs, self._position: own})

    def _note(self) -> str:
        attempt = f", attempt {self._made}" if self._made > 1 else ""
        return f"in step {self.name}{attempt}"

    async def run(self, deadline: float = math.inf) -> Result[T, E]:
        """Make an attempt of the step in the caller's task."""
        self._made += 1
        if self.context is None:
            try:
                return result_of(await awaitable_of(self.begin(None)))
            except Exception as error:
                note_step(error, self._note)
                raise
        own = _steps.open_attempt(self.context, self.name, deadline=deadline, attempt=self._made)
        if self.key is not None:
            _steps.keep_key(own, self.key)
        return await _steps.run_and_settle(own, lambda: self.begin(own), hold=True)


async def run_with_timeout(call: Call[T, E], limit: Timeout) -> Result[T, E | StepTimeout]:
    """Run a step in a task; at the limit, or the deadline of its context, stop and undo it."""
    began = asyncio.get_running_loop().time()
    seconds = min(limit.seconds, max(0.0, call.deadline - began))
    due = began + seconds
    key = None if call.context is None else _steps.kept_key(call.context)
    run = Run(call, deadline=due, key=key)
    try:
        if not run.task.done():
            await wait_for_one([run.task], due)
        if not run.task.done():
            await run.commits_ended()  # it may have ended well and in time
    except asyncio.CancelledError:
        _ = await stop_all([run], limit.grace)
        raise
    if run.task.done():
        return run.task.result()
    cancelled = await stop_all([run], limit.grace)
    if cancelled is not None:
        raise cancelled
    error = StepTimeout(call.name, seconds)
    call.report_timeout(seconds, abandoned=run.abandoned)
    if run.abandoned:
        error.add_note(f"it ignored its cancellation for {limit.grace:g} s: left running")
    return Failure(error)


class Run(Generic[T, E]):
    """One run of a step, in a task of its own that can be stopped.

    The task runs the step, then settles its context. Until it has done both, the run is under way.
    A run that is stopped can no longer succeed: the task calls `_is_wanted` after the step has
    succeeded and before its actions are passed on, without an await between the two.

    Args:
        call: The step.
        deadline: The deadline of its context.
        key: The idempotency key of its context; by default one of its own.
        wanted: Returns whether a success is still wanted; called once, when the step has succeeded.

    Attributes:
        task: Returns the step's Result.
        abandoned: Whether the step ignored its cancellation and is still running.
    """

    __slots__ = ("_call", "_context", "_step_ended", "_stopping", "_wanted", "abandoned", "task")

    def __init__(
        self,
        call: Call[T, E],
        *,
        deadline: float = math.inf,
        key: str | None = None,
        wanted: Callable[[], bool] | None = None,
    ) -> None:
        self._call = call
        self._context: StepContext | None = None
        if call.context is not None:
            self._context = _steps.open_attempt(call.context, call.name, deadline=deadline)
            if key is not None:
                _steps.keep_key(self._context, key)
        self._wanted = wanted
        self._stopping = False
        self._step_ended = False  # its rollback may still be under way
        self.abandoned = False
        # Last, because an eager task uses all of the above before this returns.
        self.task: asyncio.Task[Result[T, E]] = _start(self._run(), call.name)

    async def _run(self) -> Result[T, E]:
        if self._context is None:
            return await self._run_step()
        return await _steps.run_and_settle(
            self._context, self._run_step, hold=True, wanted=self._is_wanted
        )

    def _is_wanted(self) -> bool:
        return not self._stopping and (self._wanted is None or self._wanted())

    async def _run_step(self) -> Result[T, E]:
        try:
            return result_of(await awaitable_of(self._call.begin(self._context)))
        finally:
            self._step_ended = True

    @property
    def raised(self) -> bool:
        """Whether it has ended without a Result."""
        return self.task.cancelled() or self.task.exception() is not None

    def stop(self, grace: float) -> asyncio.Future[bool]:
        """Cancel the step; the future is true when the run has ended, false if it is abandoned.

        A rollback is not cut short: undo actions have time limits of their own. Nor does the grace
        time pass while the step waits for the journal, which answers within its patience.
        """
        self._stopping = True
        return stop_within(self.task, grace, spared=self._is_spared)

    def _is_spared(self) -> bool:
        return self._step_ended or (
            self._context is not None and _steps.awaits_journal(self._context)
        )

    async def commits_ended(self) -> None:
        """Wait until the journal has answered a commit that the step is waiting for."""
        if self._context is not None:
            await _steps.commits_ended(self._context)

    async def give_up(self) -> None:
        """Undo a step that was abandoned; it can register nothing more."""
        self.abandoned = True
        if self._context is not None:
            await _steps.abandon(self._context)


def _start(work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
    """Run in a task that begins at once: a step that does not wait ends here."""
    loop = asyncio.get_running_loop()
    if loop.get_task_factory() is not None:
        return loop.create_task(work, name=name)
    if sys.version_info >= (3, 12):
        task = asyncio.Task(work, loop=loop, name=name, eager_start=True)
    else:
        task = _begun(loop, work, name)
    return task


def _begun(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], name: str
) -> asyncio.Task[T]:
    """Do what ``eager_start`` does, before Python 3.12.

    A new task asks its loop to call its first step. It is called here instead, in the context of
    the task, and while that is the current one.
    """
    current = asyncio.current_task(loop)
    attributes: dict[str, object] | None = getattr(loop, "__dict__", None)
    if current is None or attributes is None or "call_soon" in attributes:
        return loop.create_task(work, name=name)
    own = copy_context()
    first_steps: list[Callable[..., object]] = []

    def call_soon(func: Callable[..., object], *args: Any, context: Context | None = None) -> Any:
        if context is own:
            first_steps.append(func)
            return None
        # Of a finalizer: the collector may run at any time.
        return type(loop).call_soon(loop, func, *args, context=context)

    attributes["call_soon"] = call_soon
    try:
        task = asyncio.Task(work, loop=loop, name=name, context=own)
    finally:
        del attributes["call_soon"]
    asyncio.tasks._leave_task(loop, current)
    try:
        for step in first_steps:
            _ = own.run(step)
    finally:
        asyncio.tasks._enter_task(loop, current)
    return task


async def stop_all(runs: list[Run[Any, Any]], grace: float) -> asyncio.CancelledError | None:
    """Stop runs, all at the same time; return the caller's first cancellation meanwhile, if any.

    If a stopped run raises an exception instead of its cancellation, it is logged, because no
    caller gets it.
    """
    # All are stopped before anything is awaited: one of them might succeed meanwhile.
    stopping = [(run, run.stop(grace)) for run in runs if not run.task.done()]
    cancelled: asyncio.CancelledError | None = None
    for run, ended in stopping:
        later = await wait_uncancelled(ended)
        cancelled = cancelled or later
        if not ended.result():
            _, later = await shielded(run.give_up())  # before anything else is started
            cancelled = cancelled or later
    for task in [run.task for run in runs]:
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            _log.error(
                "%s raised while it was being stopped",
                task.get_name(),
                exc_info=error,
                extra=facts(task=task.get_name()),
            )
    return cancelled


async def wait_for_one(tasks: list[asyncio.Task[Any]], due: float) -> None:
    """Wait until one of the tasks is done, or until a time on the loop's clock."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def notify(_: object = None) -> None:
        if not waiter.done():
            waiter.set_result(None)

    timer = None if due == math.inf else loop.call_at(due, notify)
    for task in tasks:
        task.add_done_callback(notify)
    try:
        await waiter
    finally:
        if timer is not None:
            timer.cancel()
        for task in tasks:
            _ = task.remove_done_callback(notify)
