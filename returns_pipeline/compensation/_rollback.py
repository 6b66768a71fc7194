"""How scopes are rolled back: all their actions, in order, whatever is cancelled meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from returns_pipeline._engine.cancellation import wait_uncancelled
from returns_pipeline.compensation._binding import NoJournal
from returns_pipeline.compensation._records import Held, Registered, newest_first
from returns_pipeline.compensation._report import CompensationEntry, CompensationReport
from returns_pipeline.compensation._undo import Action, OnFailure, Order, Undo
from returns_pipeline.errors import LeaseLost, PipelineError

__all__ = ["Rollback", "UnderWay"]

S = TypeVar("S")

_log = logging.getLogger("returns_pipeline")


class UnderWay(Protocol):
    """A commit or a rollback that has not ended."""

    async def wait(self) -> asyncio.CancelledError | None:
        """Wait for its end, and return the cancellation that came meanwhile."""

    def supersede(self, rollback: Rollback[Any], /) -> None:
        """Learn that a scope around is being rolled back, by this."""


class Rollback(Generic[S]):
    """One rollback, of a scope and those inside it: the data of the state ROLLING_BACK.

    It runs in a task of its own, so that it ends whatever becomes of the tasks that wait for it.

    1. Until the commits and rollbacks that are under way inside have ended it only waits, and
       scopes may still be added.
    2. Then it undoes all actions, in order or all at once.
    3. It notes on record what could not be undone.
    4. ``when_done`` changes the states of the scopes, before any task that waits resumes.

    Attributes:
        scopes: Those that are rolled back, until it has ended.
        reopens: Whether the scope that it began with is open afterwards.

    Args:
        path: Of the scope that it began with.
        order: Of undoing.
        on_failure: Whether a failed undo ends it.
        binding: Has the durable records of the actions.
        before: What is under way inside.
        reopens: See above.
        when_done: Called at its end, with this object and its report.
    """

    __slots__ = (
        "_before",
        "_binding",
        "_finished",
        "_held",
        "_on_failure",
        "_order",
        "_path",
        "_task",
        "_when_done",
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
    ) -> None:
        self._path = path
        self._order = order
        self._on_failure = on_failure
        self._binding = binding
        self._before = before
        self._when_done: Callable[[Rollback[S], CompensationReport], None] | None = when_done
        self._held: list[Held] = []
        self.scopes: list[S] = []
        self.reopens = reopens
        loop = asyncio.get_running_loop()
        self._finished: asyncio.Future[CompensationReport] = loop.create_future()

    def add(self, scope: S, held: list[Held]) -> None:
        """Roll another scope back as well. Only until the undoing begins."""
        self.scopes.append(scope)
        self._held += held

    def start(self) -> None:
        """Begin. An eager task factory makes it run up to its first wait at once."""
        self._task = asyncio.create_task(self._run(), name=f"roll back {self._path}")
        self._task.add_done_callback(self._ended)

    @property
    def report(self) -> CompensationReport:
        """What it did, once it has ended."""
        return self._finished.result()

    def supersede(self, _: Rollback[Any], /) -> None:
        """Leave no scope open: one around it is being rolled back."""
        self.reopens = False

    async def wait(self) -> asyncio.CancelledError | None:
        """Wait for its end; return the cancellation of the caller that came meanwhile.

        The caller raises it, or it is lost.
        """
        return await wait_uncancelled(self._finished)

    async def _run(self) -> None:
        for other in self._before:
            _ = await other.wait()
        records = list(newest_first(self._held))
        self._held.clear()
        actions = [
            record.action(holder, self._binding.action_record(record)) for record, holder in records
        ]
        undos: list[Undo] = []
        entries: list[CompensationEntry] = []
        if self._order == "parallel":
            undos = [Undo(action) for action in actions]
            entries = [await undo.entry() for undo in undos]
        else:
            for action in actions:
                undos.append(Undo(action))
                entries.append(await undos[-1].entry())
                if entries[-1].error is not None and self._on_failure == "stop":
                    break
        await self._note_failures([record for record, _ in records], actions, undos, entries)
        self._binding.ended(len(actions))
        report = CompensationReport(
            done=tuple(entry for entry in entries if entry.error is None),
            failures=tuple(entry for entry in entries if entry.error is not None),
            not_run=tuple(action.entry() for action in actions[len(entries) :]),
            scope=self._path,
        )
        when_done, self._when_done = self._when_done, None
        assert when_done is not None
        when_done(self, report)
        self.scopes, self._before = [], ()  # it outlives them, as the data of their last state
        self._finished.set_result(report)
        for note in report.notes():
            _log.error("scope %r: %s", self._path, note)

    async def _note_failures(
        self,
        records: list[Registered],
        actions: list[Action],
        undos: list[Undo],
        entries: list[CompensationEntry],
    ) -> None:
        """Keep on record what was not undone: for a person, or for `recover`.

        What was tried as often as its policy says is given up: a person decides. What was not, for
        the journal failed or the time had passed, is left to `recover`. If one of these has stopped
        the rollback, what was not run is, too: after the retry it may be undone in its order.
        """
        left: list[Registered] = []
        for index, action in enumerate(actions):
            error: object = entries[index].error if index < len(entries) else "not run"
            if action.mark is None or error is None or isinstance(error, LeaseLost):
                continue
            again = undos[min(index, len(undos) - 1)].may_be_tried_again
            if not again:
                try:
                    await action.mark.give_up(error)
                except LeaseLost as failed:
                    _log.error("undo %s is another process's now: %s", action.name, failed)
                except PipelineError as failed:
                    _log.error("undo %s cannot be marked: %s", action.name, failed)
                    again = True  # it is on record as open
            if again:
                left.append(records[index])
        if left:
            self._binding.abandon(left)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            # It swallows cancellations from its first step on. This one came before: somebody
            # cancels all tasks of the loop. Nothing is lost by beginning anew.
            self.start()
        elif not self._finished.done():
            self._finished.set_exception(task.exception() or AssertionError("no report"))
