"""Events of scopes and of their undo actions, for their observers."""

from __future__ import annotations

import asyncio

from returns_pipeline import telemetry
from returns_pipeline._engine import observing
from returns_pipeline._engine.observing import Observed
from returns_pipeline.compensation._records import Holder
from returns_pipeline.compensation._report import CompensationEntry, CompensationReport
from returns_pipeline.compensation._undo import Action, Undo

__all__ = ["RollbackEvents", "report_committed", "report_registered"]


def report_registered(observed: Observed, scope: Holder, undo: str, saga: str) -> None:
    """Report that an action is on record."""
    event = telemetry.UndoRegistered(
        pipeline=observed.pipeline,
        scope=scope.name,
        undo=undo,
        key=scope.key,
        saga=saga,
        at=_now(),
    )
    observed.report(event)


def report_committed(observed: Observed, scope: Holder, actions: int, saga: str) -> None:
    """Report a commit, unless there was nothing to commit."""
    if not actions:
        return
    event = telemetry.ScopeCommitted(
        pipeline=observed.pipeline,
        scope=scope.name,
        key=scope.key,
        saga=saga,
        actions=actions,
        at=_now(),
    )
    observed.report(event)


class RollbackEvents:
    """Reports one rollback: each action when its outcome is known, then the whole."""

    def __init__(self, observed: Observed, scope: Holder, saga: str) -> None:
        self._observed = observed
        self._name = scope.name
        self._key = scope.key
        self._saga = saga
        self._began = _now()
        self._runs: dict[Action, int] = {}  # of the actions that were tried

    def begun(self, action: Action) -> None:
        """Report that the first attempt of an action begins. To be called in its task."""
        run = self._runs[action] = observing.next_run()
        event = telemetry.UndoBegun(
            pipeline=self._observed.pipeline,
            scope=action.owner.name,
            undo=action.name,
            key=action.owner.key,
            saga=self._saga,
            run=run,
            at=_now(),
        )
        self._observed.report(event)

    def undone(self, action: Action, undo: Undo, entry: CompensationEntry) -> None:
        """Report that an action was undone, if it was."""
        if entry.error is not None or undo.is_committed:
            return
        event = telemetry.UndoDone(
            pipeline=self._observed.pipeline,
            scope=action.owner.name,
            undo=action.name,
            key=action.owner.key,
            saga=self._saga,
            run=self._runs.get(action),
            attempt=entry.attempts,
            duration=undo.took,
            at=_now(),
        )
        self._observed.report(event)

    def not_undone(
        self,
        action: Action,
        entry: CompensationEntry | None,
        undo: Undo | None,
        *,
        again: bool,
    ) -> None:
        """Report that an action was not undone.

        Args:
            action: The action.
            entry: Its outcome; None if it was not tried.
            undo: Its attempts; None if it was not tried.
            again: Whether `recover` will try it again.
        """
        if again and entry is None:
            return  # it waits for the one before it
        event = (telemetry.UndoFailed if again else telemetry.UndoStuck)(
            pipeline=self._observed.pipeline,
            scope=action.owner.name,
            undo=action.name,
            key=action.owner.key,
            saga=self._saga,
            run=self._runs.get(action),
            attempt=0 if entry is None else entry.attempts,
            duration=0.0 if undo is None else undo.took,
            error=None if entry is None else entry.error,
            at=_now(),
        )
        self._observed.report(event)

    def ended(self, report: CompensationReport) -> None:
        """Report the end of the rollback, unless there was nothing to undo."""
        counts = len(report.done), len(report.failures), len(report.not_run)
        if not any(counts):
            return
        undone, failed, not_run = counts
        at = _now()
        event = telemetry.ScopeRolledBack(
            pipeline=self._observed.pipeline,
            scope=self._name,
            key=self._key,
            saga=self._saga,
            undone=undone,
            failed=failed,
            not_run=not_run,
            duration=at - self._began,
            at=at,
        )
        self._observed.report(event)


def _now() -> float:
    return asyncio.get_running_loop().time()
