"""`StepContext`: a step's name, key and undo actions, which it commits or undoes."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from types import CoroutineType, TracebackType
from typing import Any, Final, Self, TypeVar, overload

from aiostream.core import BaseStream
from returns.future import FutureResult
from returns.result import Result, Success
from typing_extensions import deprecated

from returns_pipeline._engine import observing
from returns_pipeline._engine.cancellation import raise_both
from returns_pipeline._engine.future_results import (
    AsyncResult,
    StreamWithoutTerminal,
    awaitable_of,
    discard,
    refuse_stream,
    result_of,
)
from returns_pipeline._engine.names import name_of
from returns_pipeline._engine.observing import Observed
from returns_pipeline._engine.tracebacks import note_step, shorten
from returns_pipeline.compensation import (
    CompensationReport,
    CompensationScope,
    Journal,
    ScopeState,
    _internals,
)
from returns_pipeline.context._events import StepEvents
from returns_pipeline.context._step_scope import StepScope
from returns_pipeline.errors import InvalidArgument, LeaseLost, ScopeBusy, ScopeClosed
from returns_pipeline.telemetry import Observer

__all__ = ["StepContext"]

T = TypeVar("T")
U = TypeVar("U")
E = TypeVar("E")

_NOTHING: Final = CompensationReport()

# Looked up once: they are used for each item of a stream.
_new: Final = object.__new__
_OPEN: Final = ScopeState.OPEN


_busy: Final[set[CompensationScope]] = set()  # a context runs a step whose actions go there


class _Inside:
    """Data about the steps inside a context. Most contexts have none, and no such object."""

    __slots__ = ("child_failures", "keeps_key", "opened", "running")

    def __init__(self) -> None:
        self.keeps_key = False  # whether attempts of a policy inside share the key
        self.opened = 0  # steps, so far: they are numbered
        self.running: dict[StepContext, None] = {}  # the oldest first
        self.child_failures: list[CompensationReport] = []  # of steps that could not be undone


class StepContext(StepScope):
    """A step of a pipeline: its name, its key, and its undo actions.

    `run` settles the registered actions: a success commits them, any other outcome undoes them
    first. ``async with StepContext(...) as ctx`` commits the remaining actions on a normal exit,
    and undoes them on an exception or a cancellation, as `CompensationScope` does.

    Args:
        name: For paths, reports and observers.
        scope: The scope in which actions are registered; by default a scope of its own. A scope
            that is passed is settled by `run` and by an exception, and is otherwise left to the
            caller: a normal exit neither commits nor closes it.
        journal: For a scope of its own: stores the undo actions, so that they survive a crash.
        observer: Gets the events of the steps that run here and in children, and those of their
            undo actions; besides the observers of `returns_pipeline.telemetry.use`. A scope that is
            passed has observers of its own.
        deadline: The time on the running loop's clock by which steps should end. Steps may read it.

    Raises:
        InvalidArgument: At the call, if both a scope and a journal are given, or ``deadline`` is
            not a time.

    >>> from returns.result import Failure, Result
    >>> from returns_pipeline.testing import run
    >>> async def delete(name: str) -> None:
    ...     print("deleted", name)
    >>> async def main() -> object:
    ...     async with StepContext("shop") as ctx:
    ...         async def write() -> Result[int, str]:
    ...             await ctx.register(delete, "order 7")
    ...             return Failure("disk full")
    ...         return await ctx.run(write())
    >>> run(main())
    deleted order 7
    <IOResult: <Failure: disk full>>
    """

    __slots__ = (
        "__weakref__",
        "_attempt",
        "_events",
        "_inside",
        "_outcome",
        "_owns_scope",
        "deadline",
        "parent",
    )

    def __init__(
        self,
        name: str,
        *,
        scope: CompensationScope | None = None,
        journal: Journal | None = None,
        observer: Observer | None = None,
        deadline: float = math.inf,
    ) -> None:
        if scope is not None and journal is not None:
            raise InvalidArgument("pass a scope or a journal: a scope has a journal of its own")
        if math.isnan(deadline):
            raise InvalidArgument("deadline must be a time, not nan")
        observers = () if observer is None else (observer,)
        observed = observing.opened(None, observers, name)
        self._begin(name, None, None if observed is None else StepEvents(observed), deadline)
        if scope is None:
            self._scope = CompensationScope(name, journal=journal, observer=observer)
        else:
            self._scope = scope
        self._owns_scope = scope is None

    def _begin(
        self,
        name: str,
        parent: StepContext | None,
        events: StepEvents | None,
        deadline: float,
        number: int | None = None,
        attempt: int = 1,
    ) -> None:
        self._base = name
        self._number = number
        self._scope = self._records = None
        self._key_is_spent = False
        self.parent: StepContext | None = parent
        self.deadline: float = deadline
        self._events = events  # of the steps in it, if it is observed
        self._owns_scope = True
        self._outcome = _OPEN  # of the last run, while the scope stays open
        self._inside: _Inside | None = None
        self._attempt = attempt  # of the step by this name

    @property
    def path(self) -> str:
        """The names from the outermost context to this one, with slashes between."""
        names: list[str] = []
        at: StepContext | None = self
        while at is not None:
            names.append(at.name)
            at = at.parent
        return "/".join(reversed(names))

    @property
    def outcome(self) -> ScopeState:
        """The outcome for the actions of the last step: "committed", "rolled back", ...

        After a cancellation, or an error of the journal, it shows whether the effect was kept: it
        is "committed" if so, also by a commit without an answer; "rolled back" if it was undone;
        "lost" if another process has taken the actions over and undoes them. A cancellation during
        a commit is raised when the journal has answered. Before the first step has ended the
        outcome is "open".
        """
        state = self.scope.state
        if state is ScopeState.OPEN:
            return self._outcome
        # If no action was registered after the last run, closing the scope changed nothing.
        if self._key_is_spent and self._outcome is not ScopeState.OPEN:
            return self._outcome
        return state

    @property
    def report(self) -> CompensationReport:
        """The report of the last rollback, with the failures of rollbacks of steps inside."""
        report = self.scope.report
        inside = self._inside.child_failures if self._inside is not None else ()
        if not inside:
            return report
        return CompensationReport(
            done=report.done,
            failures=tuple(e for r in inside for e in r.failures) + report.failures,
            not_run=tuple(e for r in inside for e in r.not_run) + report.not_run,
            scope=report.scope or self.scope.path,
            committed=report.committed,
        )

    def now(self) -> float:
        """Return the time in seconds, on the running loop's clock."""
        return asyncio.get_running_loop().time()

    def child(self, name: str, *, deadline: float = math.inf) -> StepContext:
        """Open a context inside this one, for a part that may succeed or fail on its own.

        Its actions are settled by its own `run`, or else together with this context's.

        Args:
            name: For its path.
            deadline: When it should end; never later than the deadline of this context.

        Raises:
            ScopeClosed: This context is settled.
            InvalidArgument: ``deadline`` is not a time.
        """
        if math.isnan(deadline):
            raise InvalidArgument("deadline must be a time, not nan")
        made = _new(StepContext)
        events = None if self._events is None else self._events.inside()
        made._begin(name, self, events, min(deadline, self.deadline))
        made._scope = self.scope.child(name)
        return made

    @overload
    @deprecated("a stream has no outcome of its own: end it in collect(), run(), for_each(), ...")
    def run(self, step: BaseStream[Any], /) -> StreamWithoutTerminal: ...
    @overload
    def run(self, step: AsyncResult[T, E], /) -> FutureResult[T, E]: ...
    def run(self, step: AsyncResult[Any, Any], /) -> Any:
        """Run a step, and settle the actions registered since the last step.

        1. On a `Success`, they are committed.
        2. On a `Failure`, they are undone; then the same failure is returned.
        3. On an exception or a cancellation, they are undone; then the same exception propagates.
           There is one special case: a cancellation that comes while a journal commits. `outcome`
           shows whether the effect was kept.

        The context may be used again. Open children are settled with it. When this returns a
        result, the commits inside are durable, also those of a journal with lazy commits.

        Cancel safety: a cancellation during the rollback is raised once everything is undone.

        Raises:
            ScopeBusy: When awaited, if a step is being run here already.
            ScopeClosed: When awaited, if this context is settled; or if it was rolled back while
                the step ran, although the step succeeded.
            TypeError: At the call, if it is a stream, which has no outcome of its own.
        """
        refuse_stream(step, f"{self.path}: run() was given")
        return FutureResult(self._run(step))

    async def _run(self, step: AsyncResult[T, E]) -> Result[T, E]:
        scope = self.scope
        if scope in _busy or scope.closed:
            discard(step)
            if scope in _busy:
                raise ScopeBusy(self.path)
            raise ScopeClosed(self.path, scope.state)
        _busy.add(scope)
        self._renew_key()
        if self._inside is not None:
            self._inside.child_failures.clear()
        scope.report = _NOTHING
        self._outcome = ScopeState.OPEN
        try:
            result = await self._settle(lambda: step, StepContext._keep, close=False)
            if not isinstance(result, Success):
                await scope.flush()  # steps inside it may have succeeded
        finally:
            _busy.discard(scope)
            self._key_is_spent = True
        return result

    async def _keep(self) -> None:
        """Commit after a success."""
        try:
            await self.commit()
        except ScopeClosed:
            # The step may have committed it itself. If it was rolled back, by the step or together
            # with an enclosing scope, the effects were undone, and a success would be false.
            if self.scope.state is not ScopeState.COMMITTED:
                raise
        cancelled, lost = await _internals.flush(self.scope, committed=True)
        if lost is not None:
            self._outcome = ScopeState.LOST
        raise_both(cancelled, lost)

    async def commit(self) -> None:
        """Commit the actions registered so far: they are not undone, even if the step fails.

        Cancel safety: as `CompensationScope.commit`.

        Raises:
            ScopeClosed: This context is settled.
            JournalError: The journal refuses: nothing has changed.
        """
        cancelled = await _internals.commit(self.scope, keep_open=True)
        self._outcome = ScopeState.COMMITTED
        if cancelled is not None:
            raise cancelled

    async def _presume_committed(self) -> asyncio.CancelledError | None:
        """Commit what is registered, even if the journal refuses: nothing of it is undone here.

        Returns:
            A cancellation that came meanwhile; the caller must raise it.

        Raises:
            JournalError: The commit can never be written: another process undoes the actions.
        """
        cancelled = await _internals.presume_committed(self.scope)
        self._outcome = ScopeState.COMMITTED
        return cancelled

    def _with_child(
        self,
        func: Callable[[T, StepContext], AsyncResult[U, E]],
        /,
        *,
        name: str | None = None,
        hold: bool = False,
        covers: bool = False,
    ) -> Callable[[T], Coroutine[Any, Any, Result[U, E]]]:
        """Return a function that runs a step in a context of its own, inside this one.

        The actions of the step are settled when it ends. A success commits them, or, with ``hold``,
        passes them to this context, as one block in the position at which the step was started. Any
        other outcome undoes them before it is returned or raised.

        With ``covers``, a commit has the positions of the messages in its value.
        """
        called = name or name_of(func)
        accept = self._accepting(hold=hold, as_one=True)

        def run(value: T) -> Coroutine[Any, Any, Result[U, E]]:
            step = self._open_attempt(called)
            if step._events is not None:
                step._events.item = value
            accepts = partial(StepContext._accept_covering, value=value) if covers else accept
            return step._settle(lambda: func(value, step), accepts, close=True, beside=self._inside)

        return run

    def _steps_inside(self) -> tuple[int, int]:
        inside = self._inside
        return (0, 0) if inside is None else (inside.opened, len(inside.running))

    def _journal(self) -> Journal | None:
        """Return the journal in which the actions of its steps are recorded, if there is one."""
        return None if self._scope is None else self._scope.journal

    def _open_attempt(
        self, name: str, *, deadline: float = math.inf, attempt: int = 1
    ) -> StepContext:
        """Open a context for one run of a step, to be settled by `_run_and_settle`.

        It is not one of the open children: nothing rolls it back while its step runs.

        Args:
            name: The name of the step; a number is added.
            deadline: When it should end.
            attempt: The number of the attempt, if a policy makes several.

        Raises:
            ScopeClosed: This context is settled.
        """
        inside = self._inside
        if inside is None:
            inside = self._inside = _Inside()
        made = _new(StepContext)
        ends_at = self.deadline if self.deadline < deadline else deadline  # noqa: FURB136  # a call
        events = None if self._events is None else self._events.inside()
        made._begin(name, self, events, ends_at, inside.opened, attempt)
        made._detach_from(self._made_scope() if self._scope is None else self._scope)
        inside.opened += 1
        return made

    def _note(self) -> str:
        """Return the note of an exception: ``in step shop/persist[17], attempt 2``.

        A policy opens a context for each attempt, inside that of its step and with the same name:
        of these, only the number of the attempt is shown.
        """
        at, attempt = self, self._attempt
        while at.parent is not None and at.parent._base == at._base != at.name:
            at = at.parent
            attempt = max(attempt, at._attempt)
        path = at.path
        if at._attempt > 1:  # the number in its name is that of the attempt
            path = path.removesuffix(at.name) + at._base
        return f"in step {path}" + (f", attempt {attempt}" if attempt > 1 else "")

    def _keep_key(self, key: str) -> None:
        """Use this key, here and in the attempts of a policy inside."""
        _internals.renew_key(self.scope, key)
        self._inside = self._inside or _Inside()
        self._inside.keeps_key = True

    def _kept_key(self) -> str | None:
        """Return the key that attempts of a policy inside use, if they share one."""
        keeps = self._inside is not None and self._inside.keeps_key
        return self.key if keeps else None

    def _run_and_settle(
        self,
        call: Callable[[], AsyncResult[T, E]],
        *,
        hold: bool,
        as_one: bool = False,
        wanted: Callable[[], bool] | None = None,
    ) -> Coroutine[Any, Any, Result[T, E]]:
        """Run a step in this context, made by `_open_attempt`, and settle it for good.

        Args:
            call: Begins the step.
            hold: Whether a success passes its actions to the enclosing context instead of
                committing them.
            as_one: Whether they then stay together, in the position at which the step was started,
                or each keeps its position in the order of registration.
            wanted: Returns whether a success is still wanted; if not, it is undone, and counts as
                cancelled.
        """
        accept = self._accepting(hold=hold, as_one=as_one, wanted=wanted)
        beside = self.parent._inside if self.parent is not None else None
        return self._settle(call, accept, close=True, beside=beside)

    @staticmethod
    def _accepting(
        *, hold: bool, as_one: bool, wanted: Callable[[], bool] | None = None
    ) -> Callable[[StepContext], Awaitable[None] | None]:
        """Return what accepts a success: see `_run_and_settle`."""
        if hold or wanted is not None:
            return partial(StepContext._accept, hold=hold, as_one=as_one, wanted=wanted)
        return StepContext._accept_and_commit

    def _accept_and_commit(self) -> Awaitable[None] | None:
        """Commit after a success; return what has to be awaited for it, if anything."""
        return None if self._commit_at_once() else self._accept()

    async def _accept(
        self,
        *,
        hold: bool = False,
        as_one: bool = False,
        wanted: Callable[[], bool] | None = None,
    ) -> None:
        """Commit after a success, or pass the actions on: see `_run_and_settle`."""
        if wanted is not None and not wanted():
            raise asyncio.CancelledError("no longer wanted")
        scope, outer = self.scope, self.parent.scope if self.parent is not None else None
        if scope.state is ScopeState.COMMITTING:  # the step has not awaited its own commit
            with contextlib.suppress(ScopeClosed):
                await _internals.until_open(scope)
        if scope.closed:
            return  # by the step itself
        if not hold or outer is None:
            await scope.commit()
            return
        if outer.state is ScopeState.COMMITTING:
            await _internals.until_open(outer)
        outer.absorb(scope, as_one=as_one)

    async def _abandon(self) -> None:
        """Undo a step in this context that does not stop; before it, the steps inside it.

        From then on none of them can register anything, and their results are lost.
        """
        inner = self._inside.running if self._inside is not None else ()
        for step in reversed([*inner]):
            await step._abandon()
        _ = await self.scope.compensate()

    async def _commits_ended(self) -> None:
        """Wait for commits that are under way in this step and in those inside it, once.

        A step at its time limit is not stopped in the middle of a commit, or it would be unknown
        whether its effect is kept. Once the outcome is known, the step may have succeeded in time.
        """
        for step in [*self._inside.running] if self._inside is not None else ():
            await step._commits_ended()
        await _internals.commits_ended(self.scope)

    def _observed(self) -> Observed | None:
        """Return who observes the steps inside it."""
        return None if self._events is None else self._events.observed

    def _awaits_journal(self) -> bool:
        """Whether this step, or one inside it, waits for the journal and cannot be interrupted."""
        inner = self._inside.running if self._inside is not None else ()
        return _internals.awaits_journal(self.scope) or any(s._awaits_journal() for s in inner)

    async def _settle(
        self,
        call: Callable[[], AsyncResult[T, E]],
        accept: Callable[[StepContext], Awaitable[None] | None],
        *,
        close: bool,
        beside: _Inside | None = None,
    ) -> Result[T, E]:
        """Run a step; accept its success, or undo its actions after any other outcome.

        Only this method decides whether a step's actions are kept or undone. Each item of a stream
        with `bind_step` comes here, so a success calls few functions.

        Args:
            call: Begins the step.
            accept: Keeps the actions of a success; returns what has to be awaited for that.
            close: Whether the scope is settled for good.
            beside: Where to list the step while it runs.
        """
        if beside is not None:
            beside.running[self] = None
        try:
            if self._events is not None:
                self._events.begun(self._base, self._number, self._attempt, self.key)
            try:
                step: Any = call()
                given: Any = await (step if step.__class__ is CoroutineType else awaitable_of(step))
                result: Result[T, E] = given if given.__class__ is Success else result_of(given)
                if isinstance(result, Success) and (accepting := accept(self)) is not None:
                    await accepting
            except BaseException as error:
                await self._undo_after(error, close=close)
                raise
            if not isinstance(result, Success):
                await self._undo_failed(result, close=close)
            elif self._events is not None:
                self._events.ended("succeeded")
            return result
        finally:
            if beside is not None:
                del beside.running[self]

    async def _undo_after(self, error: BaseException, *, close: bool) -> None:
        """Undo the actions of a step that has raised."""
        shorten(error)
        note_step(error, self._note)
        try:
            await _internals.roll_back_after(self.scope, error, close=close)
        finally:
            self._rolled_back()
            if isinstance(error, LeaseLost) or isinstance(error.__cause__, LeaseLost):
                self._outcome = ScopeState.LOST
            if self._events is not None:
                cancelled = isinstance(error, asyncio.CancelledError)
                self._events.ended("cancelled" if cancelled else "raised", error)

    async def _undo_failed(self, failure: Result[Any, Any], *, close: bool) -> None:
        """Undo the actions of a step that has returned a `Failure`."""
        try:
            _, late = await _internals.roll_back(self.scope, close=close)
            if late is not None:
                raise late
        finally:
            self._rolled_back()
            if self._events is not None:
                self._events.ended("failed", failure.failure())

    def _rolled_back(self) -> None:
        """Record a rollback, if there was something to undo."""
        report = self.scope.report
        if report == _NOTHING:
            if self._outcome is ScopeState.OPEN:  # else an earlier commit remains the outcome
                # Nothing was left to undo: the scope may have been committed, or absorbed, before.
                state = self.scope.state
                self._outcome = ScopeState.ROLLED_BACK if state is ScopeState.OPEN else state
            return
        self._outcome = _internals.state_after(report)
        if report.failures or report.not_run:
            outer = self.parent
            while outer is not None:
                outer._inside = outer._inside or _Inside()
                outer._inside.child_failures.append(report)
                outer = outer.parent

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._owns_scope:
            await self.scope.__aexit__(kind, error, trace)
        elif error is not None:
            await _internals.roll_back_after(self.scope, error, close=False)

    def __repr__(self) -> str:
        return f"<StepContext {self.path!r}: {self.scope!r}>"
