"""`CompensationScope`: undo actions, which run unless they are committed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self

from typing_extensions import ParamSpec

from returns_pipeline._engine import checks, observing
from returns_pipeline._engine.cancellation import (
    add_note,
    raise_both,
    shielded,
    shielded_from_anyio,
)
from returns_pipeline.compensation._binding import (
    Handled,
    JournalBinding,
    NoJournal,
    Settings,
    position,
)
from returns_pipeline.compensation._node import EMPTY, ScopeNode
from returns_pipeline.compensation._records import (
    Block,
    Registered,
    next_order,
    single,
)
from returns_pipeline.compensation._report import CompensationReport
from returns_pipeline.compensation._reporting import report_committed
from returns_pipeline.compensation._rollback import Rollback
from returns_pipeline.compensation._state import Commit, ScopeState, state_after
from returns_pipeline.compensation._undo import OnFailure, Order
from returns_pipeline.compensation.protocol import Journal
from returns_pipeline.errors import InvalidArgument, JournalError, LeaseLost, ScopeClosed
from returns_pipeline.telemetry import Observer

__all__ = ["IN_MEMORY", "CompensationScope"]

P = ParamSpec("P")

_log = logging.getLogger("returns_pipeline.compensation")

_TIMEOUT: Final = 30.0
IN_MEMORY: Final = NoJournal()
_OPEN: Final = ScopeState.OPEN
_COMMITTING: Final = ScopeState.COMMITTING
_COMMITTED: Final = ScopeState.COMMITTED
_ROLLING_BACK: Final = ScopeState.ROLLING_BACK
_ROLLED_BACK: Final = ScopeState.ROLLED_BACK


class CompensationScope(ScopeNode["CompensationScope"]):
    """Undo actions, which run unless they are committed.

    ``async with scope:`` commits on a normal exit. An exception or a cancellation rolls back, and
    the *same* exception propagates once everything is undone. Actions that could not be undone are
    noted on it (``__notes__``), logged, and listed in `report`. A commit that the journal refuses
    is such an exception.

    A rollback

    1. undoes the last registered action first, over all open children, at any depth;
    2. continues when an undo raises, returns a `Failure` or exceeds its time (see ``on_failure``);
    3. runs each action once, even if several tasks start it;
    4. ends before any exception or cancellation propagates, however often the waiting tasks are
       cancelled. It is bounded: each undo has its ``timeout``.

    A scope has one `state`. While it is "committing" or "rolling back", a task that calls one of
    its methods waits for the outcome first. So no task acts on a commit that the journal then
    refuses.

    A scope that is dropped with actions neither committed nor undone emits a `ResourceWarning`.

    Args:
        name: For reports and warnings.
        order: "reverse" for last in, first out; "parallel" to undo all at the same time.
        timeout: Seconds that an undo may take, its retries included, above 0, unless it has a
            timeout of its own. It is then cancelled, and five seconds later abandoned; the report
            shows both.
        on_failure: What a failed undo means for the rest: "continue" with it, or "stop" and leave
            it in `CompensationReport.not_run`.
        journal: Stores the actions on disk or in a database, where they survive a crash. An action
            is stored before `register` returns, and deleted before `commit` returns; if the journal
            has lazy commits, before `flush` or ``async with`` returns. ``docs/sagas.md`` says what
            that promises, and what happens in a crash.
        observer: Gets the events of its actions and of those of scopes inside it; besides the
            observers of `returns_pipeline.telemetry.use`.

    Raises:
        InvalidArgument: At the call, if an argument is out of range.

    >>> from returns_pipeline.testing import run
    >>> async def delete(name: str) -> None:
    ...     print("deleted", name)
    >>> async def main() -> None:
    ...     scope = CompensationScope("shop")
    ...     await scope.register(delete, "order 7")
    ...     await scope.register(delete, "order 8")
    ...     await scope.compensate()
    >>> run(main())
    deleted order 8
    deleted order 7
    """

    __slots__ = ()

    def __init__(
        self,
        name: str = "",
        *,
        order: Order = "reverse",
        timeout: checks.Seconds = _TIMEOUT,
        on_failure: OnFailure = "continue",
        journal: Journal | None = None,
        observer: Observer | None = None,
    ) -> None:
        if order not in {"reverse", "parallel"}:
            raise InvalidArgument(f"order must be 'reverse' or 'parallel', not {order!r}")
        if on_failure not in {"continue", "stop"}:
            raise InvalidArgument(f"on_failure must be 'continue' or 'stop', not {on_failure!r}")
        if order == "parallel" and on_failure == "stop":
            raise InvalidArgument("on_failure='stop' needs order='reverse'")
        binding = IN_MEMORY if journal is None else JournalBinding(journal, name, on_failure)
        limit = _TIMEOUT if timeout is _TIMEOUT else checks.seconds("timeout", timeout)
        observers = () if observer is None else (observer,)
        observed = observing.opened(None, observers, name)
        self._begin(name, None, Settings(order, limit, on_failure, binding, observed))

    async def _until_open(self) -> None:
        """Wait while it is committing.

        Raises:
            ScopeClosed: It does not accept actions afterwards.
        """
        while isinstance(self._pending, Commit):
            await self._pending.outcome()
        if self._state is not _OPEN:
            raise ScopeClosed(self.path, self._state)

    async def register(
        self, undo: Callable[P, Awaitable[object]], /, *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Record an undo action. Call this before the effect, not after.

        Args:
            undo: A `Compensation`, or any function that returns an awaitable. It fails by raising
                or by returning a `Failure`.
            args: Its positional arguments. They are kept, not copied.
            kwargs: Its keyword arguments.

        Raises:
            ScopeClosed: The scope is closed. The action is not accepted: do not begin its effect.
            TypeError: ``undo`` cannot be called.
        """
        if self._state is not _OPEN:
            await self._until_open()
        if not callable(undo):
            raise TypeError(f"expected a function, not {undo!r}")
        record = Registered(next_order(), undo, args, kwargs)
        binding = self._settings.binding
        if isinstance(binding, JournalBinding):
            await self._record(record, binding)
        else:
            self._records.append(record)
            if self._settings.observed is not None:  # here, as a call would cost where none is
                self._report_registered(record)

    async def _record(self, record: Registered, binding: JournalBinding) -> None:
        """Put an action into the journal. A cancellation does not stop this halfway."""
        accepting = self._records  # a rollback replaces the list
        self._recording += 1
        try:
            _, cancelled = await shielded(binding.record(record, self))
        except BaseException:
            binding.ended(1)
            raise
        finally:
            self._recording -= 1
        while isinstance(self._pending, Commit):
            cancelled = await self._pending.wait() or cancelled
        if self._state is _OPEN and self._records is accepting:
            self._follow([record], binding)
            accepting.append(record)
            self._report_registered(record)
            if cancelled is not None:
                raise cancelled  # the action is on record, so it is undone like the others
            return
        # The effect must not begin, so nothing has to be undone.
        try:
            _, late = await shielded(binding.forget([record]))
            cancelled = cancelled or late
            binding.ended(1)
        except BaseException:
            binding.abandon([record])  # this process has nothing more to do with it
            raise
        finally:
            if cancelled is not None:
                raise cancelled
        raise ScopeClosed(self.path, _ROLLED_BACK if self._state is _OPEN else self._state)

    def child(self, name: str = "") -> CompensationScope:
        """Open a scope inside this one, with the same order, timeout and handling of failures.

        It can be committed or rolled back on its own. While it is open, its actions are undone
        or committed together with this scope's.

        Raises:
            ScopeClosed: This scope is closed.
        """
        made = self._detached(name)
        self._adopt(made)
        return made

    def _detached(self, name: str = "") -> CompensationScope:
        """Open a scope whose actions belong to this one only when they are absorbed.

        It is for a running step: no rollback touches it while the step runs; the caller of the step
        settles it.

        Raises:
            ScopeClosed: This scope is closed.
        """
        if self._state is not _OPEN:
            self._check_takes_more()
        made = CompensationScope.__new__(CompensationScope)
        made._begin(name, self, self._settings)
        return made

    def absorb(self, child: CompensationScope, *, as_one: bool = False) -> None:
        """Take over the actions of another scope, and close that scope.

        The actions keep their order: each is undone in its position in the order of registration.
        Open children of the other scope become children of this one, with all that is inside them.
        With ``as_one``, all its actions, those of open children included, stay together in the
        position at which the other scope was opened; the children are closed.

        Raises:
            ScopeClosed: One of the two is closed.
            InvalidArgument: The other scope is this one, or encloses it; or it has another journal.
            JournalError: The journal refuses; nothing has changed.
        """
        self._check_absorb(child)
        taken, kept, inside = [child], list(child._children or ()), child._family()
        if as_one and kept:
            taken = [scope for scope in inside if scope._state is _OPEN]
            kept = [scope for scope in inside if scope._state is not _OPEN]
        # Others, which wait for the journal, `_follow`.
        records = [record for s in inside if s._state is _OPEN for record in s._records]
        own = child._records
        binding = self._settings.binding
        # First: if the journal refuses, nothing has changed, and the other scope is rolled back.
        prefix = f"{position(child._started)}." if as_one else ""
        binding.take_over(records, child._settings.binding, prefix=prefix)
        for scope in kept:
            scope.parent = self
            self._adopt(scope)
            if as_one and isinstance(scope._pending, Rollback):
                scope._pending.reopens = False
        for scope in inside:
            scope._settings = scope._settings._replace(binding=binding)
        for scope in taken:
            for record in scope._records:
                record.owner = record.owner or scope
            scope._change(ScopeState.ABSORBED, None if self._encloses(scope) else self)
        self._records += [Block(child._started, records)] if as_one and records else own

    async def commit(self) -> None:
        """Commit all actions, those of open children included: they will not be undone.

        The scope and those children are closed. A second call changes nothing.

        Cancel safety: if the commit is on its way to the journal, a cancellation propagates once
        the outcome is known. If it was committed, the `CancelledError` has a note.

        Raises:
            ScopeClosed: The scope was rolled back or absorbed.
            JournalError: The journal refuses: the scope is open as before.
        """
        if self._commit_at_once():
            return
        cancelled = await self._commit(keep_open=False)
        if cancelled is not None:
            raise cancelled

    def _commit_at_once(self) -> bool:
        """Commit and return true, in the usual case, which waits for nothing."""
        if (
            self._state is not _OPEN
            or self._children is not None
            or self._settings.binding is not IN_MEMORY
        ):
            return False
        observed = self._settings.observed
        actions = 0 if observed is None else len(self)
        self._change(_COMMITTED)
        if observed is not None:
            report_committed(observed, self, actions, "")
        return True

    async def _commit(
        self, *, keep_open: bool, presumed: bool = False, positions: Handled = ()
    ) -> asyncio.CancelledError | None:
        """Commit; with ``keep_open``, stay open for further actions.

        Args:
            keep_open: See above.
            positions: Positions that are stored together with the commit.
            presumed: Whether a refused commit counts as done: see `_presume_committed`.

        Returns:
            A cancellation that came meanwhile. The commit succeeded; the caller must raise it.
        """
        is_ready = self._state is _OPEN and self._commit_under_way is None  # the usual case
        if not is_ready and not await self._must_commit(keep_open=keep_open):
            return None
        family = members = self._family()
        records = self._records
        count = len(records)
        if self._children is not None:
            members = [scope for scope in family if scope._state is _OPEN]
            records = [record for scope in members for record in scope._records]
        observed = self._settings.observed
        saga = "" if observed is None else self._settings.binding.open_saga
        if not (records or positions) or self._settings.binding is IN_MEMORY:
            held = 0 if observed is None else len(single(records))
            self._committed(family, members, count, keep_open=keep_open)
            if observed is not None:
                report_committed(observed, self, held, saga)
            return None
        actions, binding = single(records), self._settings.binding
        commit = Commit(self if keep_open else None)
        for scope in members:
            scope._change(_COMMITTING, commit)
        try:
            cancelled, lost = await self._forget(actions, positions, presumed=presumed)
        except BaseException:
            self._follow(records, binding)
            for scope in members:
                scope._open_again(commit)
            commit.end()
            raise
        self._committed(family, members, count, keep_open=keep_open)
        commit.end()
        if observed is not None:
            report_committed(observed, self, len(actions), saga)
        if lost is not None:
            raise cancelled or lost
        self._note_committed(cancelled)
        return cancelled

    async def _must_commit(self, *, keep_open: bool) -> bool:
        """Wait for commits that are under way; return whether another one is needed."""
        while True:  # another task may have committed it whenever this one has waited
            if self._state is _COMMITTED and not keep_open:
                return False
            if self.closed:
                raise ScopeClosed(self.path, self._state)
            if (other := self._commit_under_way) is None:  # of this scope, or of one inside
                return True
            await other.outcome()

    async def _forget(
        self, actions: list[Registered], positions: Handled = (), *, presumed: bool
    ) -> tuple[asyncio.CancelledError | None, Exception | None]:
        """Ask the journal; return a cancellation, and the error of a presumed commit that is lost.

        A fault of the journal, which raises something else, counts as a refusal.

        Raises:
            Exception: The journal refuses, and the commit is not presumed.
            CancelledError: The same, or the commit was withdrawn.
        """
        binding = self._settings.binding
        try:
            if (work := binding.forget(actions, positions)) is None:
                return None, None
            _, cancelled = await shielded(work)
        except (Exception, asyncio.CancelledError) as error:
            cancelled = error if isinstance(error, asyncio.CancelledError) else None
            refused = error if cancelled is None else error.__cause__
            if not presumed or not isinstance(refused, Exception):
                raise
        else:
            binding.ended(len(actions))
            return cancelled, None
        _log.error("scope %r is past its pivot, and not committed: %s", self.path, refused)
        is_left = binding.forget_later(actions, refused, self)
        return cancelled, None if is_left and not isinstance(refused, LeaseLost) else refused

    async def _presume_committed(self) -> asyncio.CancelledError | None:
        """Commit after a point of no return: even if the journal refuses, nothing is undone here.

        A refused commit counts as done, and is left to the journal, which writes it as soon as it
        can: see `Journal.forget_later`. A cancellation cannot withdraw it.

        Returns:
            The first cancellation that came meanwhile. The caller must raise it, or it is lost.

        Raises:
            JournalError: The commit can never be written: the actions are undone by `recover`, or
                (`LeaseLost`) by the process that has taken them over. Nothing is undone here.
        """
        cancelled: asyncio.CancelledError | None = None
        with shielded_from_anyio():
            while True:
                try:
                    late = await self._commit(keep_open=True, presumed=True)
                except asyncio.CancelledError as error:
                    cancelled = cancelled or error  # the commit was withdrawn: ask again
                    continue
                except ScopeClosed:
                    return cancelled  # an enclosing scope has settled it
                return cancelled or late

    def _committed(
        self,
        family: list[CompensationScope],
        members: list[CompensationScope],
        count: int,
        *,
        keep_open: bool,
    ) -> None:
        """Enter the state after a commit of the first ``count`` records; absorbed ones are kept."""
        for scope in family:
            if isinstance(scope._pending, Rollback):
                scope._pending.reopens = False  # the scope does not outlive this commit
        for scope in members:
            if scope is not self:
                scope._change(_COMMITTED)
        del self._records[:count]  # the same list: it accepts what is on its way to the journal
        if not keep_open:
            self._change(_COMMITTED)
            return
        self.report = EMPTY
        if isinstance(self._pending, Commit):
            self._open_again(self._pending)

    def _open_again(self, commit: Commit) -> None:
        """Become open after a commit, or join the rollback that an enclosing scope has begun."""
        if commit.rollback is None:
            self._change(_OPEN)
        else:
            self._join(commit.rollback)

    async def flush(self) -> None:
        """Return when all commits of its journal are durable; without a journal, at once.

        Raises:
            JournalError: One is not durable. If it may still become so, it counts as committed: its
                actions are not undone here, but by `recover` if this process ends before.
        """
        raise_both(*await self._flush())

    async def _flush(
        self, *, committed: bool = False
    ) -> tuple[asyncio.CancelledError | None, JournalError | None]:
        """Do as `flush`, but return a cancellation, and the loss of a commit at a pivot.

        Args:
            committed: Whether this is the end of a commit, which a cancellation must tell.
        """
        binding = self._settings.binding
        if (flushing := binding.flush()) is None:
            return None, None
        cancelled = await flushing
        lost = binding.loss(self._encloses)
        if committed and lost is None:
            self._note_committed(cancelled)
        return cancelled, lost

    async def compensate(self) -> CompensationReport:
        """Undo all actions, those of open children included; close the scope.

        A second call, also in another task, returns the same report; so does a call on a scope that
        was rolled back together with an enclosing one. A scope that was committed or absorbed has
        nothing to undo. If a commit is under way, this waits for its outcome first.

        Cancel safety: a cancellation is raised once everything is undone.
        """
        report, cancelled = await self._roll_back(close=True)
        if cancelled is not None:
            raise cancelled
        return report

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            await self._roll_back_after(error, close=True)
            return
        if not self.closed:
            try:
                await self.commit()
            except BaseException as refused:
                # It is not committed, and no other process recovers it while this one is alive.
                await self._roll_back_after(refused, close=True)
                raise
        elif self._state is _ROLLING_BACK:
            _ = await self.compensate()  # wait for the rollback that another task has begun
        # The caller may acknowledge its source after this.
        raise_both(*await self._flush(committed=self._state is _COMMITTED))

    async def _roll_back_after(self, error: BaseException, *, close: bool) -> None:
        """Undo everything because of an exception, and add a note for each failed undo.

        The caller raises the exception. A cancellation that came meanwhile is raised here, unless
        the exception is a cancellation itself.
        """
        report, cancelled = await self._roll_back(close=close)
        for note in report.notes():
            add_note(error, note)
        if report.all_committed:
            self._note_committed(error)
        if cancelled is not None and not isinstance(error, asyncio.CancelledError):
            raise cancelled

    async def _roll_back(
        self, *, close: bool
    ) -> tuple[CompensationReport, asyncio.CancelledError | None]:
        """Undo everything; return the report and the first cancellation that came meanwhile."""
        cancelled: asyncio.CancelledError | None = None
        while isinstance(self._pending, Commit):
            late = await self._pending.wait()
            cancelled = cancelled or late
        rollback = self._begin_rollback(close=close)
        if rollback is None:
            return EMPTY, cancelled
        late = await rollback.wait()
        return rollback.report, cancelled or late

    def _begin_rollback(self, *, close: bool) -> Rollback[CompensationScope] | None:
        """Begin to undo all records of the family; return the rollback to wait for, if any.

        The whole family is closed to new actions at once, even if it is open again afterwards: a
        task that registers late must not begin its effect. The undo actions start when the commits
        and rollbacks that are under way inside have ended; a refused commit joins the rollback.
        """
        if isinstance(self._pending, Rollback):
            self._pending.reopens = self._pending.reopens and not close
            return self._pending
        if self._state is not _OPEN:
            return None
        family = self._family()
        members = [scope for scope in family if scope._state is _OPEN]
        pending = dict.fromkeys(scope._pending for scope in family)
        under_way = [it for it in pending if isinstance(it, (Commit, Rollback))]
        if not under_way and not any(scope._records for scope in members):
            for scope in members:
                if scope is not self or close:
                    scope._change(_ROLLED_BACK)
            if not close:
                self.report = EMPTY
            return None
        rollback: Rollback[CompensationScope] = Rollback(  # not `Rollback[...]()`, which is slow
            self.path,
            order=self.order,
            on_failure=self.on_failure,
            binding=self._settings.binding,
            before=under_way,
            reopens=not close,
            when_done=self._rolled_back,
            events=self._rollback_events(),
        )
        for scope in members:
            scope._join(rollback)
        for other in under_way:
            other.supersede(rollback)
        rollback.start()
        return rollback

    def _join(self, rollback: Rollback[CompensationScope]) -> None:
        """Join a rollback, which takes the records."""
        self._change(_ROLLING_BACK, rollback)
        rollback.add(self, self._held([self]))
        self._records = []

    def _rolled_back(
        self, rollback: Rollback[CompensationScope], report: CompensationReport
    ) -> None:
        """Enter the state after a rollback that began here, together with all that joined it."""
        self.report: CompensationReport = report
        state = state_after(report)
        for scope in rollback.scopes:
            if scope is self and rollback.reopens:
                scope._change(_OPEN)
            else:
                scope._change(_COMMITTED if scope in rollback.committed else state, rollback)
