"""One undo action being run: its attempts, its time limit, its record."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeAlias, cast

from returns.result import Failure, Result, Success

from returns_pipeline._engine.cancellation import (
    add_note,
    shielded,
    stop_within,
    wait_uncancelled,
)
from returns_pipeline._engine.future_results import unpacked
from returns_pipeline._engine.logs import facts
from returns_pipeline._engine.retry_loop import names_exception, run_with_retry
from returns_pipeline.compensation._report import CompensationEntry, CompensationReport, brief
from returns_pipeline.compensation.protocol import ActionRecord
from returns_pipeline.errors import AlreadyCommitted, LeaseLost, StepTimeout
from returns_pipeline.retry import RetryPolicy

__all__ = ["Action", "OnFailure", "Order", "Undo", "current_key", "undo_once", "why_failed"]

Order: TypeAlias = Literal["reverse", "parallel"]
OnFailure: TypeAlias = Literal["continue", "stop"]

# Seconds that an undo has for its clean-up after its time limit; then it is abandoned.
_GRACE = 5.0

_log = logging.getLogger("returns_pipeline.compensation")
_key: ContextVar[str] = ContextVar("returns_pipeline.current_key")


def current_key() -> str:
    """Return the idempotency key of the step that is being undone.

    To be called inside an undo. The key is that of the step's own `StepContext`, so that the undo
    can name the same request to the same service.

    Raises:
        LookupError: No undo is running here.

    >>> from returns_pipeline import CompensationScope
    >>> from returns_pipeline.testing import run
    >>> async def main() -> None:
    ...     scope = CompensationScope("shop")
    ...     key = scope.key
    ...     async def undo() -> None:
    ...         print(current_key() == key)
    ...     await scope.register(undo)
    ...     await scope.compensate()
    >>> run(main())
    True
    """
    return _key.get()


class _NoError:
    """Stands for the error of a ``Failure(None)``: ``None`` would mean success."""

    def __repr__(self) -> str:
        return "Failure(None)"


_NO_ERROR = _NoError()


class _Owner(Protocol):
    """The scope an action was registered in."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def timeout(self) -> float: ...


@dataclass(slots=True, eq=False, repr=False)
class Action:
    """An undo action, ready to be run.

    Attributes:
        name: The name in reports.
        owner: The scope it was registered in.
        undo: The function that is called.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        retry: How often it is tried.
        timeout: Seconds that it may take, all attempts and the waits between them included.
        mark: Its durable record, if there is one.
        sensitive: The positions and names of arguments that are not shown.
    """

    name: str
    owner: _Owner
    undo: Callable[..., Awaitable[object]]
    args: tuple[object, ...]
    kwargs: Mapping[str, object]
    retry: RetryPolicy
    timeout: float
    mark: ActionRecord | None = None
    sensitive: frozenset[int | str] = frozenset()

    def entry(self, attempts: int = 0, error: object = None) -> CompensationEntry:
        """Return the report's entry for it."""
        path = self.owner.path
        return CompensationEntry(
            self.name, self.args, self.kwargs, attempts, error, path, self.sensitive
        )


class Undo:
    """One action being run: its attempts, in a task of their own, and its time limit.

    1. The journal records that an attempt begins.
    2. The undo runs. Its time passes only now: a journal that answers late uses none of it, and an
       undo that was never tried is not given up.
    3. The journal records that the action is undone. From here on no time limit applies.

    A timer keeps the limit, not a waiting task: only the undo itself can be cancelled.

    Args:
        action: The action.
        on_begin: Called once, in the task, before the first attempt.

    Attributes:
        abandoned: Whether an attempt ignored its cancellation and is still running.
        is_committed: Whether the journal has committed the action, so that no attempt was made.
        took: Seconds that it took, when it has ended.
    """

    __slots__ = (
        "_action",
        "_attempts",
        "_before",
        "_began",
        "_context",
        "_error",
        "_finished",
        "_journal_failed",
        "_late",
        "_on_begin",
        "_seconds_left",
        "_started_at",
        "_succeeded",
        "_task",
        "_timer",
        "_unmarked",
        "abandoned",
        "is_committed",
        "took",
    )

    _task: asyncio.Task[None]

    def __init__(self, action: Action, on_begin: Callable[[], None] | None = None) -> None:
        self._action = action
        self._on_begin = on_begin  # called in the task, before the first attempt
        self._attempts = 0
        self._succeeded = False
        self._unmarked = False  # it is undone, and the journal has not recorded that yet
        self._journal_failed = False  # at the last attempt
        self._late = False  # the time has passed: an attempt that fails now is the last one
        self._error: object = None
        self._before: object = None  # the error of the attempt before the time passed
        self._context = copy_context()
        _ = self._context.run(_key.set, action.owner.key)
        loop = asyncio.get_running_loop()
        self._finished: asyncio.Future[CompensationEntry] = loop.create_future()
        self._started_at = loop.time()
        self.took = 0.0
        self._seconds_left = action.timeout
        self._began = 0.0  # when the timer was started
        self._timer: asyncio.TimerHandle | None = None
        self.abandoned = False
        self.is_committed = False
        self._start()

    @property
    def may_be_tried_again(self) -> bool:
        """Whether `recover` may try again an action that has failed here.

        It may if the journal failed and not the undo, or if the time passed before all attempts
        were used. It may not if an attempt is still running: two attempts never overlap.
        """
        if self._succeeded or self.abandoned or isinstance(self._error, LeaseLost):
            return False
        policy = self._action.retry
        return self._journal_failed or (
            self._late
            and self._attempts < policy.attempts
            and (policy.retry_on is None or names_exception(policy, self._timeout()))
        )

    async def entry(self) -> CompensationEntry:
        """Wait for the end of the last attempt, and return the outcome of the action.

        The outcome of one that `is_committed` has no attempt, and no error.
        """
        _ = await wait_uncancelled(self._finished)  # a cancelled rollback continues
        return self._finished.result()

    def _start(self) -> None:
        self._task = asyncio.create_task(
            self._run(), name=f"undo {self._action.name}", context=self._context
        )
        self._task.add_done_callback(self._ended)

    async def _run(self) -> None:
        """Make attempts until one succeeds or the policy allows no other."""
        try:
            _ = await run_with_retry(self._attempt, self._action.retry, final=self._is_final)
        except Exception as error:  # noqa: BLE001  # a function of the policy has failed
            self._error = why_failed(self._error, error)

    def _is_final(self, error: object) -> bool:
        # `_unmarked`: the effect is undone. `LeaseLost`: another process has the action.
        finished = self._unmarked or self.is_committed
        return self._late or finished or isinstance(error, LeaseLost)

    async def _attempt(self, _due: float) -> Result[None, object]:
        action = self._action
        self._attempts += 1
        if action.mark is not None:
            self._stop_timer()
            try:
                await action.mark.begin()
            except (KeyboardInterrupt, SystemExit, GeneratorExit) as error:
                self._error = error
                raise
            except BaseException as error:  # noqa: BLE001  # also a cancellation: no attempt began
                self._error, self._journal_failed = error, True
                self.is_committed = isinstance(error, AlreadyCommitted)
                return Failure(error)
            self._journal_failed = False
        if self._timer is None:
            self._start_timer()
        self._report_begin()
        try:
            given: object = action.undo(*action.args, **action.kwargs)
            while inspect.isawaitable(given):  # a coroutine may return a FutureResult in turn
                given = unpacked(await given)
            _refuse_unrun(given)
            if action.mark is not None and not isinstance(given, Failure):
                self._unmarked = True  # from here on the undo must not run again
                self._journal_failed = True  # unless the next line returns
                _ = await shielded(action.mark.done())  # without a time limit: see `_cut_off`
                self._journal_failed = False
        except (KeyboardInterrupt, SystemExit, GeneratorExit) as error:
            self._error = error
            raise  # to the loop, which ends; the other actions of the rollback still run
        except BaseException as error:  # noqa: BLE001
            # A cancelled undo, by the timer or by its own code, has failed like any other.
            self._error = error
            return Failure(error)
        if isinstance(given, Failure):
            reason = cast("Failure[object]", given).failure()
            self._error = _NO_ERROR if reason is None else reason
            return Failure(reason)
        self._succeeded = True
        return Success(None)

    def _report_begin(self) -> None:
        """Report the first attempt."""
        on_begin, self._on_begin = self._on_begin, None
        if on_begin is not None:
            on_begin()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() and not self._attempts:
            self._start()  # cancelled before its first step: see `Rollback._ended`
            return
        if not task.cancelled():
            _ = task.exception()  # `_error` has it; asyncio must not log it as never retrieved
        if self._finished.done():
            return  # it was abandoned
        self._stop_timer()
        self._finish(self._timeout() if self._late else self._error)

    def _start_timer(self) -> None:
        if self._seconds_left < math.inf:
            loop = asyncio.get_running_loop()
            self._began = loop.time()
            self._timer = loop.call_later(self._seconds_left, self._cut_off)

    def _stop_timer(self) -> None:
        """Stop the clock: the journal is being waited for, or the undo has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._seconds_left -= asyncio.get_running_loop().time() - self._began

    def _cut_off(self) -> None:
        """Cancel the attempt at the limit, unless only the record of the undo is missing."""
        if self._task.done() or self._unmarked:
            return
        self._late = True
        self._before = self._error
        ended = stop_within(self._task, _GRACE, spared=lambda: self._unmarked)
        ended.add_done_callback(self._on_stopped)

    def _on_stopped(self, ended: asyncio.Future[bool]) -> None:
        """Finish without an attempt that was abandoned; one that has ended calls `_ended`."""
        if ended.result() or self._finished.done():
            return
        self.abandoned = True
        error = self._timeout()
        error.add_note(f"it ignored its cancellation for {_GRACE:g} s: left running")
        self._finish(error)

    def _finish(self, error: object) -> None:
        self.took = asyncio.get_running_loop().time() - self._started_at
        if self.is_committed:
            self._finished.set_result(self._action.entry())
            return
        entry = self._action.entry(self._attempts, None if self._succeeded else error)
        self._finished.set_result(entry)

    def _timeout(self) -> StepTimeout:
        made = StepTimeout(self._action.name, self._action.timeout)
        # The error of the clean-up, or of the attempt before.
        why = self._error if isinstance(self._error, Exception) else self._before
        if isinstance(why, Exception):
            made.__cause__ = why
        elif why is not None:
            made.add_note(f"the attempt before failed: {brief.repr(why)}")
        return made


def _refuse_unrun(given: object) -> None:
    """Refuse what an undo returns if its work would begin only when that is used.

    Raises:
        TypeError: It is a generator, or a function.
    """
    if inspect.isasyncgen(given) or inspect.isgenerator(given) or inspect.isfunction(given):
        kind = type(given).__name__.replace("_", " ")
        raise TypeError(f"it returned a {kind}, of which nothing was run")


def why_failed(error: object, broken: Exception) -> object:
    """Return the error of an undo whose retry policy has failed afterwards: the undo's own.

    The error of the policy is in a note. Without an error of the undo it is returned itself.
    """
    if error is None:
        return broken
    note = f"its retry policy failed: {brief.repr(broken)}"
    if isinstance(error, BaseException):
        add_note(error, note)
    _log.error("%s; %s", brief.repr(error), note)
    return error


async def undo_once(
    action: Action, attempt: int, on_begin: Callable[[], None] | None
) -> tuple[CompensationEntry, bool]:
    """Make one attempt of an undo action, and log its failure. For a task that is never cancelled.

    Args:
        action: The action; its policy allows one attempt.
        attempt: The number of this attempt, counted over all processes.
        on_begin: Called in the task that makes it, directly before.

    Returns:
        The outcome, and whether an attempt was abandoned and is still running.
    """
    undo = Undo(action, on_begin)
    entry = replace(await undo.entry(), attempts=attempt)
    if entry.error is not None:
        for note in CompensationReport(failures=(entry,)).notes():
            _log.error("scope %r: %s", entry.scope, note, extra=facts(scope=entry.scope))
    return entry, undo.abandoned
