"""The events of journals and of recoveries, for their observers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from returns_pipeline import telemetry
from returns_pipeline._engine import observing
from returns_pipeline._engine.observing import Observed
from returns_pipeline.compensation import CompensationEntry
from returns_pipeline.compensation.protocol import RecoveryReport, StoredAction, StoredSaga

__all__ = ["JournalEvents", "RecoveryEvents"]


class JournalEvents:
    """Reports the batches of a journal."""

    def __init__(self, observed: Observed, journal: str) -> None:
        self._observed = observed
        self._journal = journal

    @classmethod
    def opened(cls, journal: str, observer: telemetry.Observer | None) -> JournalEvents | None:
        """Return the events of a journal that is opened here; None if it is not observed."""
        observed = observing.opened(None, () if observer is None else (observer,))
        return None if observed is None else cls(observed, journal)

    def answered(
        self, kinds: Iterable[str], size: int, duration: float, queued: int, *, failed: bool
    ) -> None:
        """Report that a batch was answered. To be called in the thread of an event loop."""
        found = set(kinds)
        kind: telemetry.RequestKind = "other"
        if found == {"record"}:
            kind = "record"
        elif found == {"forget"}:
            kind = "forget"
        event = telemetry.JournalRequest(
            pipeline=self._observed.pipeline,
            journal=self._journal,
            kind=kind,
            size=size,
            duration=duration,
            queued=queued,
            failed=failed,
            at=_now(),
        )
        self._observed.report(event)


class RecoveryEvents:
    """Reports what a recovery undoes."""

    def __init__(self, observed: Observed, journal: object) -> None:
        self._observed = observed
        self._journal = type(journal).__name__
        self._runs: dict[str, int] = {}  # of the actions that are tried, by their ids

    @classmethod
    def opened(cls, journal: object) -> RecoveryEvents | None:
        """Return the events of a recovery that begins here; None if it is not observed."""
        observed = observing.opened()
        return None if observed is None else cls(observed, journal)

    def begun(self, saga: StoredSaga, stored: StoredAction) -> None:
        """Report that an attempt to undo an action begins. To be called in its task."""
        run = self._runs[stored.id] = observing.next_run()
        event = telemetry.UndoBegun(
            pipeline=self._observed.pipeline or saga.name,
            scope=stored.path.rpartition("/")[2],
            undo=stored.name,
            key=stored.key,
            saga=saga.id,
            run=run,
            at=_now(),
        )
        self._observed.report(event)

    def undone(
        self, saga: StoredSaga, stored: StoredAction, entry: CompensationEntry, took: float
    ) -> None:
        """Report that an action was undone."""
        event = telemetry.UndoDone(
            pipeline=self._observed.pipeline or saga.name,
            scope=stored.path.rpartition("/")[2],
            undo=stored.name,
            key=stored.key,
            saga=saga.id,
            run=self._runs.pop(stored.id, None),
            attempt=entry.attempts,
            duration=took,
            at=_now(),
        )
        self._observed.report(event)

    def not_undone(
        self,
        saga: StoredSaga,
        stored: StoredAction,
        entry: CompensationEntry,
        took: float,
        *,
        again: bool,
    ) -> None:
        """Report that an attempt to undo an action has failed, and whether another one follows."""
        event = (telemetry.UndoFailed if again else telemetry.UndoStuck)(
            pipeline=self._observed.pipeline or saga.name,
            scope=stored.path.rpartition("/")[2],
            undo=stored.name,
            key=stored.key,
            saga=saga.id,
            run=self._runs.pop(stored.id, None),
            attempt=entry.attempts,
            duration=took,
            error=entry.error,
            at=_now(),
        )
        self._observed.report(event)

    def ended(self, report: RecoveryReport, began: float) -> None:
        """Report that the work on a saga has ended."""
        at = _now()
        event = telemetry.Recovered(
            pipeline=self._observed.pipeline or report.name,
            journal=self._journal,
            saga=report.saga,
            undone=len(report.done),
            stuck=len(report.stuck),
            deferred=len(report.deferred),
            failed=report.error is not None,
            duration=at - began,
            at=at,
        )
        self._observed.report(event)


def _now() -> float:
    return asyncio.get_running_loop().time()
