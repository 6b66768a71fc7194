"""`Saga`: steps in sequence, each with the undo of its effect."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, Never, Self, TypeAlias, TypeVar, final, overload

from returns.future import FutureResult
from returns.result import Result, Success

from returns_pipeline._engine import checks
from returns_pipeline._engine.cancellation import add_note, shielded
from returns_pipeline._engine.checks import Seconds
from returns_pipeline._engine.future_results import AsyncResult, outcome_of, to_result
from returns_pipeline._engine.names import shown
from returns_pipeline._engine.retry_loop import run_with_retry
from returns_pipeline._engine.slips import (
    ButAPolicy,
    FirstNameThenStep,
    NotANumber,
    UndoThatIsNotCalled,
)
from returns_pipeline._engine.tracebacks import shortened
from returns_pipeline.compensation import (
    CompensationReport,
    CompensationScope,
    Journal,
    ScopeState,
    _internals,
)
from returns_pipeline.context import StepContext, _steps
from returns_pipeline.context._runs import Call, run_with_timeout
from returns_pipeline.errors import (
    InvalidArgument,
    JournalError,
    PipelineError,
    ScopeClosed,
    StepTimeout,
)
from returns_pipeline.retry import RetryPolicy, Timeout

__all__ = ["Saga"]

_log = logging.getLogger("returns_pipeline.saga")

A = TypeVar("A")
U = TypeVar("U")
F = TypeVar("F")
A_contra = TypeVar("A_contra", contravariant=True)
T_co = TypeVar("T_co", covariant=True)
E_co = TypeVar("E_co", covariant=True)

# An undo that takes the step's output, or its input and its output.
_Undo: TypeAlias = Callable[[U], Awaitable[object]] | Callable[[A, U], Awaitable[object]]

# A policy for the errors of a step. A policy for all errors, `object`, must not widen those of the
# saga: so it has to be the step alone that mypy infers them from. It infers from parameters without
# a callable first, and from all others together. Nothing is of the type of the second part.
_Retry: TypeAlias = RetryPolicy[F] | Callable[[F], ButAPolicy]

_NOTHING: Final = CompensationReport()
_ONCE: Final = RetryPolicy(attempts=1)


def _check_step(name: object, func: object, undo: object, retry: object) -> None:
    """Refuse arguments of `Saga.step` of other kinds.

    Raises:
        TypeError: There is one.
    """
    if not isinstance(name, str):
        raise TypeError(f"step() takes a name and then a step, not {shown(name)}")
    checks.callable_only("step", func)
    if undo is not None and not callable(undo):
        raise TypeError(f"undo= takes a function, which is called later, not {undo!r}")
    if retry is not None and not isinstance(retry, RetryPolicy):
        raise TypeError(f"retry= takes a RetryPolicy, not {retry!r}")


class _Pivot:
    """The point of no return of one run.

    Attributes:
        reached: The Result of the step before it, once that has succeeded.
    """

    __slots__ = ("_scope", "reached")

    def __init__(self, scope: CompensationScope) -> None:
        self._scope = scope
        self.reached: Success[Any] | None = None

    def reach(self, result: Success[Any], attempt: CompensationScope) -> bool:
        """Record that an attempt of the step before it has succeeded; return false if it is late.

        What the attempt has registered joins the actions of the saga at once, so that nothing that
        happens to the attempt afterwards undoes it. An attempt whose actions were undone meanwhile
        is late: it was abandoned, and the saga has continued without it.
        """
        if attempt.closed or self._scope.closed:
            return False
        self.reached = result
        if attempt.state is ScopeState.OPEN:  # else it joins when its own commit has ended
            self._scope.absorb(attempt)
        return True


@dataclass(frozen=True, slots=True)
class _Step:
    """One step. The signatures of `Saga.step` check that its types fit together."""

    name: str
    func: Callable[..., Any]
    undo: Callable[..., Awaitable[object]] | None
    retry: RetryPolicy[Any]
    timeout: Timeout | None
    takes_context: bool
    undo_takes_input: bool

    async def perform(
        self, value: Any, ctx: StepContext, pivot: _Pivot | None = None
    ) -> Result[Any, Any]:
        """Try it as often as its policy says, each time in a context of its own.

        Args:
            value: The output of the step before it.
            ctx: The context of the saga.
            pivot: The pivot, if it comes right after this step.
        """
        # The value is bound beforehand: it may be a context, too, but not the step's own.
        attempt: Callable[[StepContext], Any] = functools.partial(self._attempt, value, pivot)
        if self.timeout is not None:
            attempt = functools.partial(self._within, self.timeout, attempt)
        call = Call(attempt, (ctx,), {}, name=self.name)
        last = await run_with_retry(
            call.run, self.retry, deadline=call.deadline, report=call.report_retry
        )
        if pivot is not None and pivot.reached is not None:
            return pivot.reached  # even if the attempt was counted as timed out
        if isinstance(last, Exception):
            raise last
        return last

    async def _within(
        self, limit: Timeout, attempt: Callable[[StepContext], Any], own: StepContext
    ) -> Result[Any, Any]:
        return await run_with_timeout(Call(attempt, (own,), {}, name=self.name), limit)

    async def _attempt(
        self, value: Any, pivot: _Pivot | None, own: StepContext
    ) -> Result[Any, Any]:
        if pivot is not None and pivot.reached is not None:
            return pivot.reached  # an attempt that was cancelled had succeeded: do not repeat it
        given = self.func(value, own) if self.takes_context else self.func(value)
        result = await outcome_of(given)
        # Nothing else is awaited between the output and the registration of its undo, or its
        # pivot: no cancellation can come in between.
        if not isinstance(result, Success):
            return result
        if (pivot is None or not pivot.reach(result, own.scope)) and self.undo is not None:
            output = result.unwrap()
            call = (value, output) if self.undo_takes_input else (output,)
            await self._register(self.undo, call, own)
        return result

    async def _register(
        self, undo: Callable[..., Awaitable[object]], call: tuple[Any, ...], own: StepContext
    ) -> None:
        try:
            await own.register(undo, *call)
        except PipelineError as error:
            # It succeeded after it was abandoned: the saga has continued without it. Or the journal
            # refuses the undo: then only this process knows of the effect.
            kept = own.scope.journal if isinstance(error, ScopeClosed) else None
            _, cancelled = await shielded(self._undo_alone(undo, call, own, kept, error))
            raise cancelled or error from None

    async def _undo_alone(
        self,
        undo: Callable[..., Awaitable[object]],
        call: tuple[Any, ...],
        own: StepContext,
        journal: Journal | None,
        error: PipelineError,
    ) -> None:
        """Undo an output whose undo the step's own context refuses; in memory if need be."""
        alone = CompensationScope(own.path, timeout=own.scope.timeout, journal=journal)
        _internals.renew_key(alone, own.key)
        try:
            await alone.register(undo, *call)
        except JournalError:
            if journal is None:
                raise
            await self._undo_alone(undo, call, own, None, error)
        else:
            await _internals.roll_back_after(alone, error, close=True)


@final
class _Empty:
    """The input and output type of a saga without steps, for the checkers alone.

    With ``Never`` in its place mypy finds two overloads of `Saga.step` that fit some generic
    functions, and silently takes the saga for ``Saga[Any, Any, Any]``.
    """


class Saga(Generic[A_contra, T_co, E_co]):
    """A chain of steps that is carried out as a whole, or undone.

    A saga is a value: `step` and `pivot` return a new one, and it can be run any number of times,
    also at the same time. Its types are those of its input, its output and its failures.

    When a step fails, raises or is cancelled, the steps before it are undone, the last one first:
    the undo of each is called with that step's output. Then the failure is returned or the
    exception propagates. The failed step has no output, so it cleans up its own partial effects,
    or registers undo actions with its context.

    Args:
        name: For reports.

    >>> from returns.future import future_safe
    >>> from returns_pipeline.testing import run
    >>> @future_safe(exceptions=(KeyError,))
    ... async def reserve(order: str) -> int:
    ...     return {"book": 1}[order]
    >>> async def release(reservation: int) -> None:
    ...     print("released", reservation)
    >>> @future_safe(exceptions=(ValueError,))
    ... async def charge(reservation: int) -> str:
    ...     raise ValueError("card declined")
    >>> ship = Saga("ship").step("reserve", reserve, undo=release).step("charge", charge)
    >>> run(ship.run("book"))
    released 1
    <IOResult: <Failure: card declined>>
    """

    __slots__ = ("_pivot", "_steps", "name")

    def __init__(self: Saga[_Empty, _Empty, Never], name: str) -> None:
        self.name: str = name
        self._steps: tuple[_Step, ...] = ()
        self._pivot: int | None = None  # how many steps come before it

    @overload
    def step(
        self: Saga[_Empty, _Empty, Never],
        name: str,
        func: Callable[[A], AsyncResult[U, F]],
        /,
        *,
        undo: Callable[[U], Awaitable[object]] | None = None,
        retry: _Retry[F] | None = None,
        timeout: None = None,
    ) -> Saga[A, U, F]: ...
    @overload
    def step(
        self: Saga[_Empty, _Empty, Never],
        name: str,
        func: Callable[[A], AsyncResult[U, F]],
        /,
        *,
        undo: Callable[[U], Awaitable[object]] | None = None,
        retry: _Retry[F] | None = None,
        timeout: Seconds | Timeout,
    ) -> Saga[A, U, F | StepTimeout]: ...
    @overload
    def step(
        self,
        name: str,
        func: Callable[[T_co], AsyncResult[U, F]],
        /,
        *,
        undo: Callable[[U], Awaitable[object]] | None = None,
        retry: _Retry[F] | None = None,
        timeout: None = None,
    ) -> Saga[A_contra, U, E_co | F]: ...
    @overload
    def step(
        self,
        name: str,
        func: Callable[[T_co], AsyncResult[U, F]],
        /,
        *,
        undo: Callable[[U], Awaitable[object]] | None = None,
        retry: _Retry[F] | None = None,
        timeout: Seconds | Timeout,
    ) -> Saga[A_contra, U, E_co | F | StepTimeout]: ...
    @overload
    def step(
        self: Saga[_Empty, _Empty, Never],
        name: str,
        func: Callable[[A], AsyncResult[U, F]],
        /,
        *,
        undo: Callable[[A, U], Awaitable[object]],
        retry: _Retry[F] | None = None,
        timeout: None = None,
    ) -> Saga[A, U, F]: ...
    @overload
    def step(
        self: Saga[_Empty, _Empty, Never],
        name: str,
        func: Callable[[A], AsyncResult[U, F]],
        /,
        *,
        undo: Callable[[A, U], Awaitable[object]],
        retry: _Retry[F] | None = None,
        timeout: Seconds | Timeout,
    ) -> Saga[A, U, F | StepTimeout]: ...
    @overload
    def step(
        self,
        name: str,
        func: Callable[[T_co], AsyncResult[U, F]],
        /,
        *,
        undo: Callable[[T_co, U], Awaitable[object]],
        retry: _Retry[F] | None = None,
        timeout: None = None,
    ) -> Saga[A_contra, U, E_co | F]: ...
    @overload
    def step(
        self,
        name: str,
        func: Callable[[T_co], AsyncResult[U, F]],
        /,
        *,
        undo: Callable[[T_co, U], Awaitable[object]],
        retry: _Retry[F] | None = None,
        timeout: Seconds | Timeout,
    ) -> Saga[A_contra, U, E_co | F | StepTimeout]: ...
    @overload
    def step(
        self: Saga[_Empty, _Empty, Never],
        name: str,
        func: Callable[[A, StepContext], AsyncResult[U, F]],
        /,
        *,
        undo: _Undo[U, A] | None = None,
        retry: _Retry[F] | None = None,
        timeout: None = None,
    ) -> Saga[A, U, F]: ...
    @overload
    def step(
        self: Saga[_Empty, _Empty, Never],
        name: str,
        func: Callable[[A, StepContext], AsyncResult[U, F]],
        /,
        *,
        undo: _Undo[U, A] | None = None,
        retry: _Retry[F] | None = None,
        timeout: Seconds | Timeout,
    ) -> Saga[A, U, F | StepTimeout]: ...
    @overload
    def step(
        self,
        name: str,
        func: Callable[[T_co, StepContext], AsyncResult[U, F]],
        /,
        *,
        undo: _Undo[U, T_co] | None = None,
        retry: _Retry[F] | None = None,
        timeout: None = None,
    ) -> Saga[A_contra, U, E_co | F]: ...
    @overload
    def step(
        self,
        name: str,
        func: Callable[..., object],
        /,
        *,
        undo: Awaitable[UndoThatIsNotCalled],
        retry: RetryPolicy | None = None,
        timeout: Seconds | Timeout | None = None,
    ) -> Saga[Any, Any, Any]: ...
    @overload
    def step(
        self,
        name: str,
        func: Callable[..., object],
        /,
        *,
        undo: Callable[..., object] | None = None,
        retry: NotANumber[ButAPolicy],
        timeout: Seconds | Timeout | None = None,
    ) -> Saga[Any, Any, Any]: ...
    @overload
    def step(
        self,
        func: Callable[..., FirstNameThenStep],
        name: str = ...,
        /,
        *,
        undo: object = None,
        retry: RetryPolicy | None = None,
        timeout: Seconds | Timeout | None = None,
    ) -> Saga[Any, Any, Any]: ...
    @overload
    def step(
        self,
        name: str,
        func: Callable[[T_co, StepContext], AsyncResult[U, F]],
        /,
        *,
        undo: _Undo[U, T_co] | None = None,
        retry: _Retry[F] | None = None,
        timeout: Seconds | Timeout,
    ) -> Saga[A_contra, U, E_co | F | StepTimeout]: ...
    def step(
        self,
        name: Any,
        func: Any = None,
        /,
        *,
        undo: Any = None,
        retry: Any = None,
        timeout: Seconds | Timeout | None = None,
    ) -> Saga[Any, Any, Any]:
        """Add a step, which takes the output of the step before it.

        Args:
            name: For reports; unique in this saga.
            func: The step: it returns a `FutureResult`, or is a coroutine function of a Result. If
                it has a second parameter without a default, that is the `StepContext` of the
                attempt. On it the step finds its ``key``, and can register an undo *before* its
                effect, so that the effect is undone even if the process dies in between.
            undo: Undoes the step, once it has succeeded (a step that is cut off in the middle is
                not undone by it): a `Compensation`, or any function that returns an awaitable. It
                is called with the step's output, or with the step's input and output if it has two
                parameters without a default, and must be idempotent. ``None`` if there is nothing
                to undo, or the step registers that itself.
            retry: How often the step is tried, as in `with_retry`; by default once, and after the
                pivot as often as `RetryPolicy()` says. The saga fails with the last failure, or
                the last exception if the policy names exceptions. So the errors of a saga are
                those of its steps.
            timeout: Seconds that one attempt may take, or a `Timeout`, as in `with_timeout`: at
                the limit the attempt is cancelled, and has failed with `StepTimeout`. If it
                succeeds nevertheless, then or after it was abandoned, it is undone at once.

        Raises:
            InvalidArgument: At the call, if the name is taken, ``timeout`` is out of range, or
                an ``undo`` is passed after the pivot.
            TypeError: At the call, if there is no name, or an argument is of another kind.
        """
        _check_step(name, func, undo, retry)
        if any(step.name == name for step in self._steps):
            raise InvalidArgument(f"saga {self.name!r} has a step {name!r} already")
        if undo is not None and self._pivot is not None:
            raise InvalidArgument(f"step {name!r} is after the pivot: nothing is undone there")
        if timeout is not None and not isinstance(timeout, Timeout):
            timeout = Timeout(timeout)
        if retry is None:
            retry = _ONCE if self._pivot is None else RetryPolicy()
        made = _Step(
            name,
            func,
            undo,
            retry,
            timeout,
            takes_context=checks.takes_two(func),
            undo_takes_input=undo is not None and checks.takes_two(undo),
        )
        return self._with((*self._steps, made), self._pivot)

    def pivot(self) -> Self:
        """Mark the point of no return: once the step before it has succeeded, nothing is undone.

        The actions registered until then are committed, and later steps are only retried. If one of
        them fails, raises or is cancelled, its failure is returned or the exception propagates, and
        nothing is undone.

        That commit is *presumed*. If the journal refuses it, the saga continues, and the journal
        writes the commit as soon as it can; `StepContext.run` returns only once it is durable, and
        raises its `JournalError` otherwise. If the process ends before the commit is written, the
        pivot is not on record, and `recover` undoes the steps before it: see ``docs/sagas.md``. If
        another process has taken the actions over meanwhile, it undoes them, and the saga ends with
        `LeaseLost`.

        Later steps are not recorded: if the process dies there, `recover` neither undoes nor
        resumes anything. Work that must happen after the pivot even then belongs where it is
        delivered again: in the sink, in the same transaction (an outbox), or in a queue.

        Raises:
            InvalidArgument: At the call, if there is no step before it, or a pivot already.
        """
        if not self._steps or self._pivot is not None:
            raise InvalidArgument("a saga has one pivot, after a step")
        return self._with(self._steps, len(self._steps))

    def run(
        self,
        value: A_contra,
        ctx: StepContext | None = None,
        *,
        on_report: Callable[[CompensationReport], object] | None = None,
    ) -> FutureResult[T_co, E_co]:
        """Carry out the steps, or undo them.

        Args:
            value: The input of the first step.
            ctx: The context that this run is part of. When all steps have succeeded, it takes over
                their undo actions, except those before a pivot. So they are still undone if
                something fails later in that context. Without a context they are committed.
            on_report: Called with the report if something was undone, before the failure is
                returned or the exception propagates. So a caller without a context, too, sees
                what could not be undone. It must not raise.

        Returns:
            The output of the last step, or the failure that ended the run.

        Cancel safety: a cancellation propagates once everything is undone.
        """
        return FutureResult(self._run(value, ctx, on_report))

    @shortened
    async def _run(
        self,
        value: A_contra,
        ctx: StepContext | None,
        on_report: Callable[[CompensationReport], object] | None,
    ) -> Result[T_co, E_co]:
        own = StepContext(self.name) if ctx is None else None

        async def carry_out(value: A_contra, ctx: StepContext) -> Result[T_co, E_co]:
            nonlocal own
            own = ctx
            return await self._carry_out(value, ctx)

        try:
            if own is not None:
                return await to_result(own.run(self._carry_out(value, own)))
            assert ctx is not None
            return await _steps.with_child(ctx, carry_out, name=self.name, hold=True)(value)
        finally:
            if on_report is not None and own is not None and own.report != _NOTHING:
                try:
                    _ = on_report(own.report)
                except Exception:  # noqa: BLE001  # it must not replace what happened
                    _log.exception("the observer of saga %r failed", self.name)

    async def _carry_out(self, value: Any, ctx: StepContext) -> Result[T_co, E_co]:
        pivot = _Pivot(ctx.scope)
        try:
            for number, step in enumerate(self._steps, 1):
                before_pivot = pivot if number == self._pivot else None
                result = await step.perform(value, ctx, before_pivot)
                if not isinstance(result, Success):
                    if pivot.reached is not None:  # also what later steps have done is kept
                        await self._keep(ctx)
                    return result
                value = result.unwrap()
                if before_pivot is not None:
                    await self._keep(ctx)
        except BaseException as error:
            if pivot.reached is not None:
                note = f"saga {self.name!r} is past its pivot: nothing of it is undone here"
                add_note(error, note)
                with contextlib.suppress(JournalError):  # it is the error, or matters less
                    cancelled = await _steps.presume_committed(ctx)
                    if cancelled is not None and not isinstance(error, asyncio.CancelledError):
                        raise cancelled from error
            raise
        return Success(value)

    async def _keep(self, ctx: StepContext) -> None:
        """Commit once the pivot was reached: presumed, whatever is cancelled or refused."""
        if (cancelled := await _steps.presume_committed(ctx)) is not None:
            raise cancelled

    def _with(self, steps: tuple[_Step, ...], pivot: int | None) -> Self:
        made = type(self).__new__(type(self))
        made.name = self.name
        made._steps = steps
        made._pivot = pivot
        return made

    def __repr__(self) -> str:
        names = [step.name for step in self._steps]
        if self._pivot is not None:
            names.insert(self._pivot, "| pivot |")
        return f"<Saga {self.name!r}: {' -> '.join(names)}>"
