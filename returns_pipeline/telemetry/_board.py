"""`Board`: what was reported so far, in rows, for a live view.

It may be used by several threads at once: events come from the threads of the loops, and a live
view reads in a thread of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import RLock
from typing import Any, Final, TypeAlias, TypeVar

from returns_pipeline import telemetry

__all__ = [
    "Board",
    "Happened",
    "JournalRow",
    "SourceRow",
    "StageRow",
    "StepRow",
    "UndoRow",
    "error_text",
]

# How many rows of a kind are kept: a bound for programs that make up names.
MAX_ROWS: Final = 100
# How many failures, and how many undo actions, are kept.
LAST: Final = 5
# Errors are cut to this many characters: a view shows fewer.
_LONGEST: Final = 300
_OTHER: Final = ("", "other")

_Where: TypeAlias = tuple[str, str]  # the pipeline, and a name in it
R = TypeVar("R")


@dataclass(slots=True)
class StageRow:
    """A stage of a stream.

    Attributes:
        held: How many items it holds at this moment; None if that is not known.
    """

    windows: int = 0
    items: int = 0
    largest: int = 0
    reason: str = ""
    late: int = 0
    waited: float = 0.0
    held: int | None = None


@dataclass(slots=True)
class StepRow:
    """A step, or a context that a user has opened."""

    running: int = 0
    ended: int = 0
    failed: int = 0
    retried: int = 0
    timed_out: int = 0
    took: float = 0.0
    waited: float = 0.0


@dataclass(slots=True)
class UndoRow:
    """An undo action, by its name."""

    registered: int = 0
    done: int = 0
    failed: int = 0
    stuck: int = 0


@dataclass(slots=True)
class SourceRow:
    """What is read of a broker.

    Attributes:
        lag: For each partition the messages that wait, and the age of the oldest one in flight.
        lost: Why there is no connection; empty if there is one.
    """

    fetched: int = 0
    in_flight: int = 0
    redelivered: int = 0
    reconnected: int = 0
    lag: dict[str, tuple[int, float]] = field(default_factory=dict[str, tuple[int, float]])
    lost: str = ""


@dataclass(slots=True)
class JournalRow:
    """A journal."""

    requests: int = 0
    batches: int = 0
    took: float = 0.0
    queued: int = 0
    failed: int = 0
    recovered: int = 0


@dataclass(frozen=True, slots=True)
class Happened:
    """A failure, or what became of an undo action.

    Attributes:
        at: Seconds since the board was made.
        name: The name of the step, or of the action.
        text: What happened.
    """

    at: float
    name: str
    text: str


class Board:
    """Rows for everything that reports.

    Attributes:
        lock: To be held while rows are read.
        pipelines: The names of all pipelines, each with what its worker does.
        stages: The stages of streams, by pipeline and name; steps, undo actions, sources, journals
            and breakers likewise.
        committed: How many undo actions were committed.
        failures: The last failures, the latest at the end.
        undone: The last undo actions that were run, the latest at the end.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """Begin at zero.

        Args:
            clock: Returns the time in seconds.
        """
        self.lock = RLock()  # a finalizer may report an event while this thread holds it
        self._clock = clock
        self._began = clock()
        self.pipelines: dict[str, str] = {}
        self.stages: dict[_Where, StageRow] = {}
        self.steps: dict[_Where, StepRow] = {}
        self.undo: dict[_Where, UndoRow] = {}
        self.sources: dict[_Where, SourceRow] = {}
        self.journals: dict[_Where, JournalRow] = {}
        self.breakers: dict[_Where, str] = {}
        self.committed = 0
        self.failures: deque[Happened] = deque(maxlen=LAST)
        self.undone: deque[Happened] = deque(maxlen=LAST)
        self._handlers: dict[type, Callable[[Any], None]] = {
            telemetry.Acknowledged: self._acknowledged,
            telemetry.Backpressure: self._backpressure,
            telemetry.BreakerChanged: self._breaker_changed,
            telemetry.Disconnected: self._disconnected,
            telemetry.Fetched: self._fetched,
            telemetry.ItemsDropped: self._nothing,
            telemetry.JournalRequest: self._journal_request,
            telemetry.LagMeasured: self._lag_measured,
            telemetry.LateItems: self._late_items,
            telemetry.LimiterWaited: self._limiter_waited,
            telemetry.PublishBegun: self._nothing,
            telemetry.PublishEnded: self._nothing,
            telemetry.Reconnected: self._reconnected,
            telemetry.Recovered: self._recovered,
            telemetry.Redelivered: self._redelivered,
            telemetry.Revoked: self._revoked,
            telemetry.ScopeCommitted: self._scope_committed,
            telemetry.ScopeRolledBack: self._nothing,
            telemetry.StepBegun: self._step_begun,
            telemetry.StepEnded: self._step_ended,
            telemetry.StepRetried: self._step_retried,
            telemetry.StepTimedOut: self._step_timed_out,
            telemetry.UndoBegun: self._nothing,
            telemetry.UndoDone: self._undo_done,
            telemetry.UndoFailed: self._undo_failed,
            telemetry.UndoRegistered: self._undo_registered,
            telemetry.UndoStuck: self._undo_stuck,
            telemetry.WatermarkAdvanced: self._nothing,
            telemetry.WindowEmitted: self._window_emitted,
            telemetry.WorkerDraining: self._worker_draining,
            telemetry.WorkerEnded: self._worker_ended,
            telemetry.WorkerStarted: self._worker_started,
        }

    @property
    def age(self) -> float:
        """Seconds since the board was made."""
        return self._clock() - self._began

    def on_event(self, event: telemetry.Event) -> None:
        """Record an event. A kind that is not known is ignored."""
        handle = self._handlers.get(event.__class__)
        if handle is not None:
            with self.lock:
                if event.pipeline not in self.pipelines and len(self.pipelines) < MAX_ROWS:
                    self.pipelines[event.pipeline] = ""
                handle(event)

    def hold(self, pipeline: str, held: dict[str, int]) -> None:
        """Record how many items the stages of a stream hold at this moment."""
        with self.lock:
            for stage, count in held.items():
                self._row(self.stages, (pipeline, stage), StageRow).held = count

    def _row(self, rows: dict[_Where, R], where: _Where, make: Callable[[], R]) -> R:
        """Return the row of a name. What would need too many rows shares one."""
        if where not in rows and len(rows) >= MAX_ROWS:
            where = _OTHER
        if where not in rows:
            rows[where] = make()
        return rows[where]

    def _nothing(self, event: telemetry.Event) -> None:
        """Show nothing of an event that others tell more about."""

    # Streams

    def _stage(self, event: telemetry.StreamEvent) -> StageRow:
        return self._row(self.stages, (event.pipeline, event.stage), StageRow)

    def _window_emitted(self, event: telemetry.WindowEmitted) -> None:
        row = self._stage(event)
        row.windows += 1
        row.items += event.size
        row.largest = max(row.largest, event.size)
        row.reason = event.reason

    def _backpressure(self, event: telemetry.Backpressure) -> None:
        self._stage(event).waited += event.waited

    def _late_items(self, event: telemetry.LateItems) -> None:
        self._stage(event).late += event.count

    # Steps

    def _step(self, event: telemetry.StepEvent | telemetry.PolicyEvent) -> StepRow:
        name = "" if isinstance(event, telemetry.BreakerChanged) else event.stage
        return self._row(self.steps, (event.pipeline, name), StepRow)

    def _step_begun(self, event: telemetry.StepBegun) -> None:
        self._step(event).running += 1

    def _step_ended(self, event: telemetry.StepEnded) -> None:
        row = self._step(event)
        row.running = max(row.running - 1, 0)  # it may have begun before the view was there
        row.ended += 1
        row.took += event.duration
        if event.outcome in {"failed", "raised"}:
            row.failed += 1
            text = error_text(event.error)
            # A context returns the failure of a step inside it, which was recorded before.
            if event.number is None and any(each.text == text for each in self.failures):
                return
            self.failures.append(Happened(self.age, event.stage, text))

    def _step_retried(self, event: telemetry.StepRetried) -> None:
        self._step(event).retried += 1

    def _step_timed_out(self, event: telemetry.StepTimedOut) -> None:
        self._step(event).timed_out += 1

    def _limiter_waited(self, event: telemetry.LimiterWaited) -> None:
        self._step(event).waited += event.waited

    def _breaker_changed(self, event: telemetry.BreakerChanged) -> None:
        if len(self.breakers) < MAX_ROWS:
            self.breakers[event.pipeline, event.breaker] = event.state

    # Undo actions

    def _undo(self, event: telemetry.UndoEvent) -> UndoRow:
        name = getattr(event, "undo", "")
        return self._row(self.undo, (event.pipeline, name), UndoRow)

    def _undo_registered(self, event: telemetry.UndoRegistered) -> None:
        self._undo(event).registered += 1

    def _undo_done(self, event: telemetry.UndoDone) -> None:
        self._undo(event).done += 1
        self.undone.append(Happened(self.age, event.undo, "undone"))

    def _undo_failed(self, event: telemetry.UndoFailed) -> None:
        self._undo(event).failed += 1
        text = f"failed, to be tried again: {error_text(event.error)}"
        self.undone.append(Happened(self.age, event.undo, text))

    def _undo_stuck(self, event: telemetry.UndoStuck) -> None:
        self._undo(event).stuck += 1
        error = "it was not tried" if event.error is None else error_text(event.error)
        self.undone.append(Happened(self.age, event.undo, f"stuck: {error}"))

    def _scope_committed(self, event: telemetry.ScopeCommitted) -> None:
        self.committed += event.actions

    # Journals

    def _journal_request(self, event: telemetry.JournalRequest) -> None:
        row = self._row(self.journals, (event.pipeline, event.journal), JournalRow)
        row.requests += event.size
        row.batches += 1
        row.took += event.duration
        row.queued = event.queued
        row.failed += event.failed

    def _recovered(self, event: telemetry.Recovered) -> None:
        row = self._row(self.journals, (event.pipeline, event.journal), JournalRow)
        row.recovered += 1

    # Sources

    def _source(self, event: telemetry.SourceEvent) -> SourceRow:
        where = event.pipeline, f"{event.system} {event.source}"
        return self._row(self.sources, where, SourceRow)

    def _fetched(self, event: telemetry.Fetched) -> None:
        row = self._source(event)
        row.fetched += event.messages
        row.in_flight = event.in_flight

    def _acknowledged(self, event: telemetry.Acknowledged) -> None:
        row = self._source(event)
        row.in_flight = max(row.in_flight - event.messages, 0)

    def _redelivered(self, event: telemetry.Redelivered) -> None:
        self._source(event).redelivered += event.messages

    def _lag_measured(self, event: telemetry.LagMeasured) -> None:
        row = self._source(event)
        if event.partition in row.lag or len(row.lag) < MAX_ROWS:
            row.lag[event.partition] = event.lag, event.oldest

    def _disconnected(self, event: telemetry.Disconnected) -> None:
        self._source(event).lost = error_text(event.error)

    def _reconnected(self, event: telemetry.Reconnected) -> None:
        row = self._source(event)
        row.lost = ""
        row.reconnected += 1

    def _revoked(self, event: telemetry.Revoked) -> None:
        row = self._source(event)
        for partition in event.partitions:  # another process reads these from now on
            row.lag.pop(partition, None)

    # Workers

    def _worker_started(self, event: telemetry.WorkerStarted) -> None:
        self._worker(event, "reads")

    def _worker_draining(self, event: telemetry.WorkerDraining) -> None:
        self._worker(event, f"drains ({event.reason})")

    def _worker_ended(self, event: telemetry.WorkerEnded) -> None:
        self._worker(event, f"has ended ({event.reason})")

    def _worker(self, event: telemetry.WorkerEvent, state: str) -> None:
        if event.pipeline in self.pipelines:
            self.pipelines[event.pipeline] = state


def error_text(error: object) -> str:
    """Return an error as text, cut to a length."""
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  # the view is to show that a step failed, however it did
        text = ""
    text = " ".join(text[: 2 * _LONGEST].split())[:_LONGEST]
    if not isinstance(error, BaseException):
        return text or name
    return f"{name}: {text}" if text else name
