"""How scopes are rolled back: all their actions, in order, whatever is cancelled meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from returns_pipeline._engine.cancellation import wait_uncancelled
from returns_pipeline._engine.logs import facts
from returns_pipeline.compensation._binding import NoJournal
from returns_pipeline.compensation._records import Held, Registered, newest_first
from returns_pipeline.compensation._report import CompensationEntry, CompensationReport, printable
from returns_pipeline.compensation._reporting import RollbackEvents
from returns_pipeline.compensation._undo import Action, OnFailure, Order, Undo
from returns_pipeline.errors import LeaseLost, PipelineError

__all__ = ["Rollback", "UnderWay"]

S = TypeVar("S")

_log = logging.getLogger("returns_pipeline.compensation")


class UnderWay(Protocol):
    """A commit or a rollback that has not ended."""

    async def wait(self) -> asyncio.CancelledError | None:
        """Wait for the end, and return a cancellation that came meanwhile."""

    def supersede(self, rollback: Rollback[Any], /) -> None:
        """Record that this rollback has begun in an enclosing scope."""


class Rollback(Generic[S]):
    """One rollback, of a scope and those inside it: the data of the state ROLLING_BACK.

    It runs in a task of its own, so it ends even if every task that waits for it is cancelled.

    1. It waits until the commits and rollbacks that are under way inside have ended. Until then
       more scopes may be added.
    2. It undoes all actions, one after the other or all at once.
    3. It records which actions could not be undone.
    4. ``when_done`` changes the states of the scopes, before any waiting task resumes.

    Attributes:
        scopes: The scopes that are rolled back; empty once the rollback has ended.
        committed: Those of them whose actions the journal had all committed, with the answer lost.
            Known when ``when_done`` is called.
        reopens: Whether the scope that was asked to roll back is open afterwards.

    Args:
        path: The path of the scope that was asked to roll back.
        order: The order in which the actions are undone.
        on_failure: Whether a failed undo ends the rollback.
        binding: Has the durable records of the actions.
        before: The commits and rollbacks that are under way inside.
        reopens: See above.
        when_done: Called at the end, with this object and the report.
        events: Reports what happens to the observers, if there are some.
    """

    # Who calls what. `CompensationScope._begin_rollback` makes the object, then calls `add` for
    # each scope of the family and `start`, without an await between them. After that
    #
    #   - `add` is called by the task of a refused `Commit`, which `_run` waits for: so before the
    #     records are sorted, never after;
    #   - `supersede` and `reopens = False` may come at any time before `when_done`;
    #   - `wait` may be called by any number of tasks, also after the end.
    #
    # Invariants. `_held` has every record of the scopes in `scopes`, and those scopes have none, so
    # an action is in one rollback only. `_finished` is resolved exactly once, after all states have
    # changed: a task that resumes never sees ROLLING_BACK. `_when_done` refers to a scope, which
    # refers to this object; it is dropped when it is called, so no cycle outlives the rollback.

    __slots__ = (
        "_before",
        "_binding",
        "_events",
        "_finished",
        "_held",
        "_on_failure",
        "_order",
        "_path",
        "_task",
        "_when_done",
        "committed",
        "reopens",
        "scopes",
    )

    _task: asyncio.Task[None]

    def __init__(
        self,
        path: str,
        *,
        order: Order,
        on_failure: OnFailure,
        binding: NoJournal,
        before: Sequence[UnderWay],
        reopens: bool,
        when_done: Callable[[Rollback[S], CompensationReport], None],
        events: RollbackEvents | None = None,
    ) -> None:
        self._path = path
        self._order = order
        self._on_failure = on_failure
        self._binding = binding
        self._before = before
        self._events = events
        self._when_done: Callable[[Rollback[S], CompensationReport], None] | None = when_done
        self._held: list[Held] = []
        self.scopes: list[S] = []
        self.committed: set[object] = set()
        self.reopens = reopens
        loop = asyncio.get_running_loop()
        self._finished: asyncio.Future[CompensationReport] = loop.create_future()

    def add(self, scope: S, held: list[Held]) -> None:
        """Roll another scope back as well. To be called before the undoing begins."""
        self.scopes.append(scope)
        self._held += held

    def start(self) -> None:
        """Start the task. Under an eager task factory it runs up to its first wait at once."""
        self._task = asyncio.create_task(self._run(), name=f"roll back {self._path}")
        self._task.add_done_callback(self._ended)

    @property
    def report(self) -> CompensationReport:
        """The report. To be read only after the end."""
        return self._finished.result()

    def supersede(self, _: Rollback[Any], /) -> None:
        """Leave no scope open at the end: an enclosing scope is being rolled back."""
        self.reopens = False

    async def wait(self) -> asyncio.CancelledError | None:
        """Wait for the end; return a cancellation of the caller that came meanwhile.

        The caller must raise it, or it is lost.
        """
        return await wait_uncancelled(self._finished)

    async def _run(self) -> None:
        # Cancelling this task has no effect after its first step: `wait` and `entry` ignore it, and
        # `_note_failures` continues after it. For a cancellation before that step, see `_ended`.
        for other in self._before:
            _ = await other.wait()
        # From here on nothing is added. A refused commit has added its records by now, because it
        # changes the states of its scopes before it resumes the tasks that wait for it.
        records = list(newest_first(self._held))
        self._held.clear()
        actions = [
            record.action(holder, self._binding.action_record(record)) for record, holder in records
        ]
        undos: list[Undo] = []
        entries: list[CompensationEntry] = []
        if self._order == "parallel":
            undos = [self._started(action) for action in actions]  # each starts its own task
            for action, undo in zip(actions, undos, strict=True):
                entries.append(await self._entry(action, undo))
        else:
            # The next undo starts when the attempts before it have ended, or were abandoned.
            for action in actions:
                undos.append(self._started(action))
                entries.append(await self._entry(action, undos[-1]))
                if entries[-1].error is not None and self._on_failure == "stop":
                    break
        await self._note_failures([record for record, _ in records], actions, undos, entries)
        # Also actions that failed: they are no longer this tree's, but a person's or `recover`'s.
        self._binding.ended(len(actions))
        committed = {n for n, undo in enumerate(undos) if undo.is_committed}
        run = [entry for n, entry in enumerate(entries) if n not in committed]
        report = CompensationReport(
            done=tuple(entry for entry in run if entry.error is None),
            failures=tuple(entry for entry in run if entry.error is not None),
            not_run=tuple(action.entry() for action in actions[len(entries) :]),
            scope=self._path,
            committed=tuple(entries[n] for n in sorted(committed)),
        )
        if committed:
            holders = [holder for _, holder in records]
            others = {holder for n, holder in enumerate(holders) if n not in committed}
            self.committed.update({holders[n] for n in committed} - others)
        when_done, self._when_done = self._when_done, None
        assert when_done is not None
        when_done(self, report)
        if self._events is not None:
            self._events.ended(report)
        # This object outlives the scopes, as the data of their final state: drop all references.
        self.scopes, self._before, self.committed = [], (), set()
        self._finished.set_result(report)
        for note in report.notes():
            _log.error("scope %r: %s", self._path, note, extra=facts(scope=self._path))

    def _started(self, action: Action) -> Undo:
        if self._events is None:
            return Undo(action)
        return Undo(action, partial(self._events.begun, action))

    async def _entry(self, action: Action, undo: Undo) -> CompensationEntry:
        entry = await undo.entry()
        if self._events is not None:
            self._events.undone(action, undo, entry)
        return entry

    async def _note_failures(
        self,
        records: list[Registered],
        actions: list[Action],
        undos: list[Undo],
        entries: list[CompensationEntry],
    ) -> None:
        """Record which actions were not undone: they wait for a person, or for `recover`.

        An action that was tried as often as its policy says is given up: a person decides. One that
        was not, because the journal failed or its time passed, is left to `recover`. If such an
        action stopped the rollback, those that were not run are left to `recover` as well: once it
        is undone, they may follow in their order.

        Args:
            records: All actions, newest first.
            actions: The same, as they were run.
            undos: Those of them that were started, from the first on.
            entries: Their outcomes, one for each of ``undos``.
        """
        left: list[Registered] = []
        for index, action in enumerate(actions):
            error: object = entries[index].error if index < len(entries) else "not run"
            # After `LeaseLost` another process has the action: it must not be changed here.
            if action.mark is None or error is None or isinstance(error, LeaseLost):
                self._report_failure(index, action, undos, entries, again=action.mark is not None)
                continue
            # An action that was not run shares the fate of the one that stopped the rollback, which
            # is the last that was started.
            again = undos[min(index, len(undos) - 1)].may_be_tried_again
            name = printable(action.name)
            if not again:
                try:
                    await action.mark.give_up(error)
                except LeaseLost as failed:
                    _log.error(
                        "undo %s now belongs to another process: %s",
                        name,
                        failed,
                        extra=facts(undo=name, scope=self._path),
                    )
                except PipelineError as failed:
                    _log.error(
                        "undo %s cannot be marked as failed: %s",
                        name,
                        failed,
                        extra=facts(undo=name, scope=self._path),
                    )
                    again = True  # the journal still has it as pending
                except asyncio.CancelledError:
                    # The tasks of the loop are being cancelled, and whether the note was written is
                    # unknown. `abandon` passes over an action that is given up.
                    again = True
            if again:
                left.append(records[index])
            self._report_failure(index, action, undos, entries, again=again)
        if left:
            self._binding.abandon(left)

    def _report_failure(
        self,
        index: int,
        action: Action,
        undos: list[Undo],
        entries: list[CompensationEntry],
        *,
        again: bool,
    ) -> None:
        """Report an action that was not undone."""
        if self._events is None:
            return
        if index >= len(entries):
            self._events.not_undone(action, None, None, again=again)
        elif entries[index].error is not None:
            self._events.not_undone(action, entries[index], undos[index], again=again)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            # The task ignores cancellations from its first step on. This one came before that step,
            # as when all tasks of the loop are cancelled. No undo has begun, so start again.
            self.start()
        elif not self._finished.done():
            self._finished.set_exception(task.exception() or AssertionError("no report"))
