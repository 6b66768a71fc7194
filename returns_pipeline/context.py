"""`StepContext`: what a step registers its undo actions with, and what settles them.

>>> from returns.future import future_safe
>>> from returns_pipeline.testing import run
>>> async def drop_table(name: str) -> None:
...     print("dropped", name)
>>> @future_safe(exceptions=(OSError,))
... async def load(ctx: StepContext) -> int:
...     await ctx.register(drop_table, "staging")  # then create it
...     raise OSError("no space")
>>> async def main() -> None:
...     async with StepContext("import") as ctx:
...         print(await ctx.run(load(ctx)))
>>> run(main())
dropped staging
<IOResult: <Failure: no space>>
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, Self, TypeAlias, TypeVar

from returns.future import FutureResult
from returns.result import Result, Success
from typing_extensions import ParamSpec

from returns_pipeline._engine.future_results import discard, to_result
from returns_pipeline._engine.names import name_of
from returns_pipeline.compensation import CompensationReport, CompensationScope
from returns_pipeline.errors import InvalidArgument, ScopeBusy, ScopeClosed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from types import TracebackType

    from returns_pipeline.compensation.protocol import Journal

__all__ = ["Observer", "StepContext", "StepEvent", "StepKind"]

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")
E = TypeVar("E")

_log = logging.getLogger("returns_pipeline")


_NOTHING: Final = CompensationReport()

StepKind: TypeAlias = Literal[
    "started", "succeeded", "failed", "raised", "cancelled", "rolled back"
]


@dataclass(frozen=True, slots=True)
class StepEvent:
    """Something that happened to a step, for an `Observer`.

    Attributes:
        kind: What happened. A step is started once, and ends in one of "succeeded", "failed" (it
            gave a `Failure`), "raised" or "cancelled"; "rolled back" comes before its end, if
            there was something to undo.
        path: The step's path.
        key: Its idempotency key: the same in all its events.
        at: When, in seconds on the running loop's clock.
        error: The failure's error or the exception; ``None`` for the other kinds.
        report: What the rollback did, for "rolled back".
    """

    kind: StepKind
    path: str
    key: str
    at: float
    error: object = None
    report: CompensationReport | None = None


class Observer(Protocol):
    """Is told what happens to steps."""

    def on_event(self, event: StepEvent, /) -> None:
        """Take note.

        It is called in the step's task and must not block. What it raises is logged.
        """


class StepContext:
    """The place of a step in a pipeline: its name, its key, and its undo actions.

    `run` settles what was registered: a success commits it, anything else has it undone first.
    ``async with StepContext(...) as ctx`` commits what is left on a normal exit, and rolls it back
    on an exception or a cancellation, as `CompensationScope` does.

    Args:
        name: For paths, reports and observers.
        scope: Where actions are registered; by default a scope of its own. One that is given is
            settled by `run` and by an exception, and is otherwise left to who gave it: a normal
            exit neither commits nor closes it.
        journal: For a scope of its own: keeps the undo actions where a crash cannot reach them.
        observer: Is told of the steps that run here and in children.
        deadline: When steps should be over, on the running loop's clock; for steps to look at.
    """

    __slots__ = (
        "__weakref__",
        "_children",
        "_key_is_spent",
        "_mishaps",
        "_observer",
        "_owns_scope",
        "_running",
        "deadline",
        "name",
        "parent",
        "scope",
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
            raise InvalidArgument("a scope that is given has a journal of its own, or none")
        own = CompensationScope(name, journal=journal) if scope is None else scope
        self._begin(name, None, own, observer, deadline)
        self._owns_scope = scope is None

    def _begin(
        self,
        name: str,
        parent: StepContext | None,
        scope: CompensationScope,
        observer: Observer | None,
        deadline: float,
    ) -> None:
        if math.isnan(deadline):
            raise InvalidArgument("deadline must be a time, not nan")
        self.name: str = name
        self.parent: StepContext | None = parent
        self.scope: CompensationScope = scope
        self.deadline: float = deadline
        self._observer = observer
        self._owns_scope = True
        self._key_is_spent = False  # by a run that is over
        self._children = itertools.count()
        self._mishaps: list[CompensationReport] = []  # of steps that could not be undone
        self._running: dict[StepContext, None] | None = None  # steps inside, the oldest first

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
    def key(self) -> str:
        """The idempotency key of this step: unique to it, and the same while it is undone.

        An undo reads it by `returns_pipeline.compensation.current_key`. Each `run` is a step of
        its own, with what is registered before it and after the last: it has a key of its own.
        """
        return self.scope.key

    @property
    def report(self) -> CompensationReport:
        """What the last rollback did, with what failed in the rollbacks of steps inside."""
        report = self.scope.report
        if not self._mishaps:
            return report
        inside = self._mishaps
        return CompensationReport(
            done=report.done,
            failures=tuple(e for r in inside for e in r.failures) + report.failures,
            not_run=tuple(e for r in inside for e in r.not_run) + report.not_run,
            scope=report.scope or self.scope.path,
        )

    def now(self) -> float:
        """Give the time in seconds, on the running loop's clock."""
        return asyncio.get_running_loop().time()

    def register(
        self, undo: Callable[P, Awaitable[object]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[object, object, None]:
        """Put an undo action on record, before its effect: see `CompensationScope.register`."""
        self._renew_key()
        return self.scope.register(undo, *args, **kwargs)

    def _renew_key(self) -> None:
        """Begin the next step, if the last is over: what is registered between two is its part."""
        if self._key_is_spent:
            self._key_is_spent = False
            self.scope.renew_key()

    def child(self, name: str, *, deadline: float = math.inf) -> StepContext:
        """Open a context inside this one, for a part that may succeed or fail on its own.

        What is registered there is settled by its own `run`, or else together with this one's.

        Args:
            name: For its path.
            deadline: When it should be over; it never outlives the deadline of this one.

        Raises:
            ScopeClosed: This context is settled.
        """
        return self._inside(name, self.scope.child(name), deadline)

    def _inside(self, name: str, scope: CompensationScope, deadline: float) -> StepContext:
        made = StepContext.__new__(StepContext)
        made._begin(name, self, scope, self._observer, min(deadline, self.deadline))
        return made

    def run(self, step: FutureResult[T, E] | Awaitable[Result[T, E]], /) -> FutureResult[T, E]:
        """Run a step and settle what was registered since the last one.

        1. On a `Success`, it is committed.
        2. On a `Failure`, all of it is undone; then the same failure is given.
        3. On an exception or a cancellation, all of it is undone; then the same exception goes on.

        It may be used again. Children that are open are settled with it. When it gives a result,
        the commits inside are durable, also those of a journal with lazy commits.

        Cancel safety: a cancellation that comes during the rollback is raised when all is undone.

        Raises:
            ScopeBusy: When awaited, if a step is being run here already.
            ScopeClosed: When awaited, if this context is settled; or if it was rolled back while
                the step ran, and the step succeeded all the same.
        """
        return FutureResult(self._run(step))

    async def _run(self, step: FutureResult[T, E] | Awaitable[Result[T, E]]) -> Result[T, E]:
        scope = self.scope
        if scope.busy or scope.closed:
            discard(step)
            if scope.busy:
                raise ScopeBusy(self.path)
            raise ScopeClosed(self.path, scope.how)
        scope.busy = True
        self._renew_key()
        self._mishaps.clear()
        scope.report = _NOTHING
        try:
            result = await self._settle(lambda: step, self._keep, close=False)
            if scope.journal is not None and not isinstance(result, Success):
                await scope.flush()  # steps inside it may have succeeded
        finally:
            scope.busy = False
            self._key_is_spent = True
        return result

    def in_own_step(
        self,
        func: Callable[[T, StepContext], FutureResult[U, E] | Awaitable[Result[U, E]]],
        /,
        *,
        name: str | None = None,
        hold: bool = False,
    ) -> Callable[[T], Coroutine[Any, Any, Result[U, E]]]:
        """Make of a step a function that runs it in a context of its own, inside this one.

        What the step registers is settled when it ends: a success commits it, or, to ``hold`` it,
        hands it to this context, as one and in the place where the step was started. Anything
        else undoes it before it is given or raised.
        """
        called = name or name_of(func)

        async def run(value: T) -> Result[U, E]:
            step = self.attempt(called)
            return await step.conclude(lambda: func(value, step), hold=hold, as_one=True)

        return run

    def attempt(self, name: str, *, deadline: float = math.inf) -> StepContext:
        """Open a context for one run of a step, to be settled by `conclude`.

        It is not one of the open children: it is not to be rolled back under a running step.

        Raises:
            ScopeClosed: This context is settled.
        """
        own = f"{name}[{next(self._children)}]"
        return self._inside(own, self.scope.detached(own), deadline)

    async def conclude(
        self,
        call: Callable[[], FutureResult[T, E] | Awaitable[Result[T, E]]],
        *,
        hold: bool,
        as_one: bool = False,
        wanted: Callable[[], bool] | None = None,
    ) -> Result[T, E]:
        """Run a step in this context, made by `attempt`, and settle it for good.

        Args:
            call: Begins the step.
            hold: Whether a success hands its actions to the context around this one, or commits.
            as_one: Whether they then stay together, in the place where the step was started, or
                each has its place in the order of registration.
            wanted: Says whether a success is still of use; else it is undone, and counts as
                cancelled.
        """

        async def accept() -> None:
            if wanted is not None and not wanted():
                raise asyncio.CancelledError("no longer wanted")
            if self.scope.closed:
                return  # by the step itself
            if hold and self.parent is not None:
                self.parent.scope.absorb(self.scope, as_one=as_one)
            else:
                await self.scope.commit()

        beside: dict[StepContext, None] = {}
        if self.parent is not None:
            beside = self.parent._running or beside
            self.parent._running = beside
        beside[self] = None
        try:
            return await self._settle(call, accept, close=True)
        finally:
            del beside[self]

    async def give_up(self) -> None:
        """Undo a step in this context that does not stop, the steps inside it first.

        It is left behind: neither can register anything any more, and what they come to is lost.
        """
        for inner in reversed([*(self._running or ())]):
            await inner.give_up()
        _ = await self.scope.compensate()

    async def _keep(self) -> None:
        # The step may have committed it itself. If it was rolled back, by the step or together with
        # a scope around it, what was done has been undone: a success would be untrue.
        if self.scope.how != "committed":
            await self.commit()
        await self.scope.flush()

    async def commit(self) -> None:
        """Commit what is registered so far: it will not be undone, whatever becomes of the step.

        Raises:
            ScopeClosed: This context is settled.
        """
        _ = await self.scope.settle(keep=True)

    async def _settle(
        self,
        call: Callable[[], FutureResult[T, E] | Awaitable[Result[T, E]]],
        accept: Callable[[], Awaitable[None]],
        *,
        close: bool,
    ) -> Result[T, E]:
        """Run a step; accept its success, undo what is registered on anything else.

        The one place where it is decided what becomes of a step's actions.
        """
        self._tell("started")
        scope = self.scope
        try:
            result = await to_result(call())
            if isinstance(result, Success):
                await accept()
        except BaseException as error:
            try:
                await scope.roll_back_after(error, close=close)
            finally:
                self._tell_rollback()
                cancelled = isinstance(error, asyncio.CancelledError)
                self._tell("cancelled" if cancelled else "raised", error)
            raise
        if isinstance(result, Success):
            self._tell("succeeded")
            return result
        try:
            # A step may have settled it itself; then this waits for a rollback, if it is one.
            close = close or scope.closed
            _ = await (scope.compensate() if close else scope.settle(keep=False))
        finally:
            self._tell_rollback()
            self._tell("failed", result.failure())
        return result

    def _tell_rollback(self) -> None:
        report = self.scope.report
        if report == _NOTHING:
            return
        if report.failures or report.not_run:
            outer = self.parent
            while outer is not None:
                outer._mishaps.append(report)
                outer = outer.parent
        self._tell("rolled back", report=report)

    def _tell(
        self,
        kind: StepKind,
        error: object = None,
        report: CompensationReport | None = None,
    ) -> None:
        if self._observer is None:
            return
        try:
            self._observer.on_event(StepEvent(kind, self.path, self.key, self.now(), error, report))
        except Exception:  # noqa: BLE001  # watching a step must not change it
            _log.exception("the observer of %r failed", self.path)

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
            await self.scope.roll_back_after(error, close=False)

    def __repr__(self) -> str:
        return f"<StepContext {self.path!r}: {self.scope!r}>"
