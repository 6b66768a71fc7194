"""`Tally`: counts events in plain attributes, for OpenTelemetry and Prometheus to read.

A back end reads counters and gauges when it exports. Only values of histograms are passed to it at
once, as a `Distribution`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from threading import RLock
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

from returns_pipeline import telemetry
from returns_pipeline.telemetry import _instruments as of
from returns_pipeline.telemetry._instruments import Instrument

__all__ = ["Attributes", "Distribution", "Number", "Series", "Tally"]

_log = logging.getLogger("returns_pipeline.telemetry")

# How many series an instrument has at most: a bound for a program that makes up names, such as one
# pipeline for each request. SDKs have a limit, too, by default 2000.
MAX_SERIES: Final = 1000
_OTHER: Final = "other"

Attributes: TypeAlias = dict[str, str]


class Distribution(Protocol):
    """One series of a histogram."""

    def record(self, value: float, /) -> None:
        """Add a value."""


C = TypeVar("C")
D = TypeVar("D", bound=Distribution)


class Number:
    """One series of a counter or gauge.

    Attributes:
        value: Its value.
    """

    __slots__ = ("_lock", "value")

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self.value: float = 0

    def add(self, number: float, /) -> None:
        """Add to it."""
        with self._lock:
            self.value += number

    def set(self, value: float, /) -> None:
        """Replace it."""
        self.value = value


class Series(Generic[C]):
    """The series of one instrument."""

    __slots__ = ("_cells", "_instrument", "_lock", "_make")

    def __init__(self, instrument: Instrument, lock: Any, make: Callable[[Attributes], C]) -> None:
        self._instrument = instrument
        self._lock = lock
        self._make = make
        self._cells: dict[tuple[str | None, ...], tuple[Attributes, C]] = {}

    def at(self, *values: str | None) -> C:
        """Return the series with these values of the attributes; None leaves one out."""
        found = self._cells.get(values)
        return self._added(values) if found is None else found[1]

    def _added(self, values: tuple[str | None, ...]) -> C:
        names = self._instrument.attributes
        assert len(values) == len(names)
        with self._lock:
            if len(self._cells) >= MAX_SERIES:
                values = (_OTHER,) * len(names)
                if values not in self._cells:
                    _log.warning(
                        "%s has %d series: others are counted together",
                        self._instrument.name,
                        MAX_SERIES,
                    )
            if values not in self._cells:
                attributes = {
                    name: value
                    for name, value in zip(names, values, strict=True)
                    if value is not None
                }
                self._cells[values] = attributes, self._make(attributes)
            return self._cells[values][1]

    def remove(self, *values: str | None) -> None:
        """Remove a series, if it is there."""
        with self._lock:
            self._cells.pop(values, None)

    def all(self) -> list[tuple[Attributes, C]]:
        """Return all series. It may be called from any thread."""
        with self._lock:
            return [*self._cells.values()]


class Tally(Generic[D]):
    """An observer that counts. It may be used by several threads at once.

    Attributes:
        numbers: The series of all counters and gauges.
        distributions: The series of all histograms.
    """

    def __init__(self, make: Callable[[Instrument, Attributes], D]) -> None:
        """Begin at zero.

        Args:
            make: Returns a new series of a histogram.
        """
        # A finalizer may report an event while this thread holds the lock. It is never held while
        # the back end is called, which has locks of its own.
        lock = RLock()

        def distribution(instrument: Instrument) -> Series[D]:
            return Series(instrument, lock, lambda attributes: make(instrument, attributes))

        self.numbers: dict[Instrument, Series[Number]] = {
            instrument: Series(instrument, lock, lambda _: Number(lock))
            for instrument in of.INSTRUMENTS
            if instrument.kind != "histogram"
        }
        self.distributions: dict[Instrument, Series[D]] = {
            instrument: distribution(instrument)
            for instrument in of.INSTRUMENTS
            if instrument.kind == "histogram"
        }
        self._handlers: dict[type, Callable[[Any], None]] = {
            telemetry.Acknowledged: self._acknowledged,
            telemetry.Backpressure: self._backpressure,
            telemetry.BreakerChanged: self._breaker_changed,
            telemetry.Disconnected: self._disconnected,
            telemetry.Fetched: self._fetched,
            telemetry.ItemsDropped: self._items_dropped,
            telemetry.JournalRequest: self._journal_request,
            telemetry.LagMeasured: self._lag_measured,
            telemetry.LateItems: self._late_items,
            telemetry.LimiterWaited: self._limiter_waited,
            telemetry.PublishBegun: self._publish_begun,
            telemetry.PublishEnded: self._publish_ended,
            telemetry.Reconnected: self._reconnected,
            telemetry.Recovered: self._recovered,
            telemetry.Redelivered: self._redelivered,
            telemetry.Revoked: self._revoked,
            telemetry.ScopeCommitted: self._committed,
            telemetry.ScopeRolledBack: self._rolled_back,
            telemetry.StepBegun: self._step_begun,
            telemetry.StepEnded: self._step_ended,
            telemetry.StepRetried: self._step_retried,
            telemetry.StepTimedOut: self._step_timed_out,
            telemetry.UndoBegun: self._undo_begun,
            telemetry.UndoDone: self._undo_done,
            telemetry.UndoFailed: self._undo_failed,
            telemetry.UndoRegistered: self._undo_registered,
            telemetry.UndoStuck: self._undo_stuck,
            telemetry.WatermarkAdvanced: self._watermark_advanced,
            telemetry.WindowEmitted: self._window_emitted,
            telemetry.WorkerDraining: self._worker_draining,
            telemetry.WorkerEnded: self._worker_ended,
            telemetry.WorkerStarted: self._worker_started,
        }
        # For each window and step: one look-up for all that it changes.
        self._lock = lock
        self._windows: dict[tuple[str, str, str], tuple[Number, Number, Number]] = {}
        self._running: dict[tuple[str, str], Number] = {}
        self._ended: dict[tuple[str, str, str, str | None], tuple[Number, D]] = {}

    def on_event(self, event: telemetry.Event, /) -> None:
        """Count an event. A kind that is not known is ignored."""
        handle = self._handlers.get(event.__class__)
        if handle is not None:
            handle(event)

    # Streams

    def _window_emitted(self, event: telemetry.WindowEmitted) -> None:
        where = event.pipeline, event.stage, event.reason
        found = self._windows.get(where)
        if found is None:
            closed = self.numbers[of.WINDOW_CLOSED].at(*where)
            size = self.numbers[of.WINDOW_SIZE].at(*where)
            found = closed, size, self.numbers[of.WINDOW_AGE].at(*where)
            if len(self._windows) < MAX_SERIES:
                self._windows[where] = found
        closed, size, age = found
        with self._lock:
            closed.value += 1
            size.value += event.size
            if event.age is not None:
                age.value += event.age

    def _late_items(self, event: telemetry.LateItems) -> None:
        self.numbers[of.LATE_ITEMS].at(event.pipeline, event.stage).add(event.count)

    def _items_dropped(self, event: telemetry.ItemsDropped) -> None:
        where = event.pipeline, event.stage, str(event.branch)
        self.numbers[of.DROPPED].at(*where).add(event.count)

    def _watermark_advanced(self, event: telemetry.WatermarkAdvanced) -> None:
        if math.isfinite(event.watermark):
            self.numbers[of.WATERMARK].at(event.pipeline, event.stage).set(event.watermark)

    def _backpressure(self, event: telemetry.Backpressure) -> None:
        self.numbers[of.STAGE_WAIT].at(event.pipeline, event.stage).add(event.waited)
        self.numbers[of.STAGE_IN_FLIGHT].at(event.pipeline, event.stage).set(event.in_flight)

    # Steps

    def _step_begun(self, event: telemetry.StepBegun) -> None:
        where = event.pipeline, event.stage
        running = self._running.get(where)
        if running is None:
            running = self.numbers[of.STEP_RUNNING].at(*where)
            if len(self._running) < MAX_SERIES:
                self._running[where] = running
        with self._lock:
            running.value += 1

    def _step_ended(self, event: telemetry.StepEnded) -> None:
        error = event.error
        kind = None if error is None else type(error).__name__
        where = event.pipeline, event.stage, event.outcome, kind
        found = self._ended.get(where)
        if found is None:
            running = self.numbers[of.STEP_RUNNING].at(event.pipeline, event.stage)
            found = running, self.distributions[of.STEP_DURATION].at(*where)
            if len(self._ended) < MAX_SERIES:
                self._ended[where] = found
        running, took = found
        with self._lock:
            running.value -= 1
        took.record(event.duration)

    def _step_retried(self, event: telemetry.StepRetried) -> None:
        kind = _type_of(event.error)
        self.numbers[of.STEP_RETRIES].at(event.pipeline, event.stage, kind).add(1)

    def _step_timed_out(self, event: telemetry.StepTimedOut) -> None:
        abandoned = _yes_or_no(event.abandoned)
        self.numbers[of.STEP_TIMEOUTS].at(event.pipeline, event.stage, abandoned).add(1)

    def _limiter_waited(self, event: telemetry.LimiterWaited) -> None:
        waits = self.numbers[of.LIMITER_WAIT]
        waits.at(event.pipeline, event.stage, event.limiter).add(event.waited)

    def _breaker_changed(self, event: telemetry.BreakerChanged) -> None:
        self.numbers[of.BREAKER_CHANGES].at(event.pipeline, event.breaker, event.state).add(1)
        states = self.numbers[of.BREAKER_STATE]
        for state in ("closed", "open", "half open"):
            states.at(event.pipeline, event.breaker, state).set(state == event.state)

    # Undo actions

    def _undo_registered(self, event: telemetry.UndoRegistered) -> None:
        self.numbers[of.UNDO_REGISTERED].at(event.pipeline, event.undo).add(1)

    def _undo_begun(self, event: telemetry.UndoBegun) -> None:
        self.numbers[of.UNDO_RUNNING].at(event.pipeline, event.undo).add(1)

    def _undo_done(self, event: telemetry.UndoDone) -> None:
        self._undo(event, "done", None)

    def _undo_failed(self, event: telemetry.UndoFailed) -> None:
        self._undo(event, "failed", event.error)

    def _undo_stuck(self, event: telemetry.UndoStuck) -> None:
        self._undo(event, "stuck", event.error)

    def _undo(
        self,
        event: telemetry.UndoDone | telemetry.UndoFailed | telemetry.UndoStuck,
        outcome: str,
        error: object,
    ) -> None:
        where = event.pipeline, event.undo, outcome
        self.numbers[of.UNDO].at(*where, _type_of(error)).add(1)
        if event.run is not None:
            self.numbers[of.UNDO_RUNNING].at(event.pipeline, event.undo).add(-1)
        if event.attempt:
            self.distributions[of.UNDO_DURATION].at(*where).record(event.duration)

    def _committed(self, event: telemetry.ScopeCommitted) -> None:
        self.numbers[of.COMMITS].at(event.pipeline).add(event.actions)

    def _rolled_back(self, event: telemetry.ScopeRolledBack) -> None:
        outcome = "incomplete" if event.failed or event.not_run else "complete"
        self.numbers[of.ROLLBACKS].at(event.pipeline, outcome).add(1)

    # Journals

    def _journal_request(self, event: telemetry.JournalRequest) -> None:
        outcome = "failed" if event.failed else "done"
        took = self.distributions[of.JOURNAL_DURATION]
        took.at(event.pipeline, event.journal, event.kind, outcome).record(event.duration)
        self.numbers[of.JOURNAL_QUEUED].at(event.pipeline, event.journal).set(event.queued)

    def _recovered(self, event: telemetry.Recovered) -> None:
        counts = ("done", event.undone), ("stuck", event.stuck), ("deferred", event.deferred)
        for outcome, count in counts:
            self.numbers[of.RECOVERED].at(event.pipeline, event.journal, outcome).add(count)

    # Sources

    def _fetched(self, event: telemetry.Fetched) -> None:
        where = _source(event)
        self.numbers[of.CONSUMED].at(*where, "receive").add(event.messages)
        self.numbers[of.IN_FLIGHT].at(*where).set(event.in_flight)
        self.numbers[of.SOURCE_WAIT].at(*where).add(event.waited)

    def _acknowledged(self, event: telemetry.Acknowledged) -> None:
        took = self.distributions[of.OPERATION_DURATION]
        took.at(*_source(event), "ack", "settle").record(event.duration)

    def _redelivered(self, event: telemetry.Redelivered) -> None:
        self.numbers[of.REDELIVERED].at(*_source(event)).add(event.messages)

    def _lag_measured(self, event: telemetry.LagMeasured) -> None:
        where = *_source(event), event.partition or None
        self.numbers[of.LAG].at(*where).set(event.lag)
        self.numbers[of.OLDEST_AGE].at(*where).set(event.oldest)

    def _disconnected(self, event: telemetry.Disconnected) -> None:
        self.numbers[of.DISCONNECTED].at(*_source(event), _type_of(event.error)).add(1)

    def _reconnected(self, event: telemetry.Reconnected) -> None:
        self.numbers[of.RECONNECTED].at(*_source(event)).add(1)

    def _revoked(self, event: telemetry.Revoked) -> None:
        where = _source(event)
        settled = _yes_or_no(event.settled)
        self.numbers[of.REVOKED].at(*where, settled).add(len(event.partitions))
        for partition in event.partitions:  # another process reports these from now on
            self.numbers[of.LAG].remove(*where, partition)
            self.numbers[of.OLDEST_AGE].remove(*where, partition)

    # Publishers

    def _publish_begun(self, event: telemetry.PublishBegun) -> None:
        where = event.pipeline, event.system, event.destination
        self.numbers[of.PUBLISHING].at(*where).add(event.messages)

    def _publish_ended(self, event: telemetry.PublishEnded) -> None:
        where = event.pipeline, event.system, event.destination
        self.numbers[of.PUBLISHING].at(*where).add(-event.messages)
        sent = self.numbers[of.SENT]
        sent.at(*where, "send", None).add(event.confirmed)
        if event.refused:
            sent.at(*where, "send", "refused").add(event.refused)
        if event.unconfirmed:
            sent.at(*where, "send", "unconfirmed").add(event.unconfirmed)
        took = self.distributions[of.OPERATION_DURATION]
        took.at(*where, "send", "send").record(event.duration)

    # Workers

    def _worker_started(self, event: telemetry.WorkerStarted) -> None:
        self.numbers[of.WORKERS].at(event.pipeline).add(1)

    def _worker_draining(self, event: telemetry.WorkerDraining) -> None:
        self.numbers[of.DRAINS].at(event.pipeline).add(1)

    def _worker_ended(self, event: telemetry.WorkerEnded) -> None:
        self.numbers[of.WORKERS].at(event.pipeline).add(-1)


def _source(event: telemetry.SourceEvent) -> tuple[str, str, str]:
    return event.pipeline, event.system, event.source


def _type_of(error: object) -> str | None:
    return None if error is None else type(error).__name__


def _yes_or_no(flag: bool) -> str:
    return "true" if flag else "false"
