"""What is measured: one table, for OpenTelemetry and for Prometheus.

Names and units are those of OpenTelemetry. Names that begin with "messaging" are of its semantic
conventions; a test compares them. An attribute never holds a key, an index, a position or the text
of an error, so the number of series stays small.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = [
    "BREAKER_CHANGES",
    "BREAKER_STATE",
    "COMMITS",
    "CONSUMED",
    "DISCONNECTED",
    "DRAINS",
    "DROPPED",
    "INSTRUMENTS",
    "IN_FLIGHT",
    "JOURNAL_DURATION",
    "JOURNAL_QUEUED",
    "LAG",
    "LATE_ITEMS",
    "LIMITER_WAIT",
    "OLDEST_AGE",
    "OPERATION_DURATION",
    "PUBLISHING",
    "RECONNECTED",
    "RECOVERED",
    "REDELIVERED",
    "REVOKED",
    "ROLLBACKS",
    "SENT",
    "SOURCE_WAIT",
    "STAGE_IN_FLIGHT",
    "STAGE_WAIT",
    "STEP_DURATION",
    "STEP_RETRIES",
    "STEP_RUNNING",
    "STEP_TIMEOUTS",
    "UNDO",
    "UNDO_DURATION",
    "UNDO_REGISTERED",
    "UNDO_RUNNING",
    "WATERMARK",
    "WINDOW_AGE",
    "WINDOW_CLOSED",
    "WINDOW_SIZE",
    "WORKERS",
    "Instrument",
]


@dataclass(frozen=True, slots=True, eq=False)
class Instrument:
    """One row of the table.

    Attributes:
        name: The name in OpenTelemetry.
        kind: "counter" only grows; "balance" is added to and taken from; "gauge" is set.
        unit: The unit, by UCUM.
        attributes: The names of the attributes, in the order in which their values are given.
        description: What it measures.
        bounds: Of a histogram, the upper bounds of its buckets.
    """

    name: str
    kind: Literal["counter", "balance", "gauge", "histogram"]
    unit: str
    attributes: tuple[str, ...]
    description: str
    bounds: tuple[float, ...] = ()


# The bounds that the semantic conventions advise for durations of messaging, and longer ones for
# steps.
_MESSAGING: Final = (
    0.005,
    0.01,
    0.025,
    0.05,
    0.075,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
)
_SECONDS: Final = (*_MESSAGING, 30.0, 60.0, 300.0)

_STAGE: Final = ("pipeline", "stage")
_SOURCE: Final = ("pipeline", "messaging.system", "messaging.destination.name")
_PARTITION: Final = (*_SOURCE, "messaging.destination.partition.id")

WINDOW_CLOSED: Final = Instrument(
    "returns_pipeline.window.closed",
    "counter",
    "{window}",
    (*_STAGE, "reason"),
    "Windows that were emitted, by why they were.",
)
WINDOW_SIZE: Final = Instrument(
    "returns_pipeline.window.size",
    "counter",
    "{item}",
    (*_STAGE, "reason"),
    "Items in the windows that were emitted.",
)
WINDOW_AGE: Final = Instrument(
    "returns_pipeline.window.age",
    "counter",
    "s",
    (*_STAGE, "reason"),
    "Ages of the windows that were emitted, since their first item, in total.",
)
LATE_ITEMS: Final = Instrument(
    "returns_pipeline.window.late_items",
    "counter",
    "{item}",
    _STAGE,
    "Items that came after the end of their window.",
)
DROPPED: Final = Instrument(
    "returns_pipeline.broadcast.dropped",
    "counter",
    "{item}",
    (*_STAGE, "branch"),
    "Items that a slow branch of a broadcast did not get.",
)
WATERMARK: Final = Instrument(
    "returns_pipeline.window.watermark",
    "gauge",
    "s",
    _STAGE,
    "The watermark, in seconds of event time.",
)
STAGE_WAIT: Final = Instrument(
    "returns_pipeline.stage.wait",
    "counter",
    "s",
    _STAGE,
    "Time that a stage has waited for its reader, which is slower.",
)
STAGE_IN_FLIGHT: Final = Instrument(
    "returns_pipeline.stage.in_flight",
    "gauge",
    "{item}",
    _STAGE,
    "Items that a stage held when it last waited for its reader.",
)
STEP_DURATION: Final = Instrument(
    "returns_pipeline.step.duration",
    "histogram",
    "s",
    (*_STAGE, "outcome", "error.type"),
    "Time that a step took, with the undo of what it had registered.",
    _SECONDS,
)
STEP_RUNNING: Final = Instrument(
    "returns_pipeline.step.running",
    "balance",
    "{step}",
    _STAGE,
    "Steps that have begun and have not ended.",
)
STEP_RETRIES: Final = Instrument(
    "returns_pipeline.step.retries",
    "counter",
    "{attempt}",
    (*_STAGE, "error.type"),
    "Attempts of steps that failed and were followed by another one.",
)
STEP_TIMEOUTS: Final = Instrument(
    "returns_pipeline.step.timeouts",
    "counter",
    "{step}",
    (*_STAGE, "abandoned"),
    "Steps that were stopped at their time limit.",
)
LIMITER_WAIT: Final = Instrument(
    "returns_pipeline.limiter.wait",
    "counter",
    "s",
    (*_STAGE, "limiter"),
    "Time that steps have waited for a limiter.",
)
BREAKER_CHANGES: Final = Instrument(
    "returns_pipeline.breaker.changes",
    "counter",
    "{change}",
    ("pipeline", "breaker", "state"),
    "Changes of circuit breakers, by their new state.",
)
BREAKER_STATE: Final = Instrument(
    "returns_pipeline.breaker.state",
    "gauge",
    "1",
    ("pipeline", "breaker", "state"),
    "1 for the state that a circuit breaker is in, 0 for the others.",
)
UNDO_REGISTERED: Final = Instrument(
    "returns_pipeline.undo.registered",
    "counter",
    "{action}",
    ("pipeline", "undo"),
    "Undo actions that were registered.",
)
UNDO: Final = Instrument(
    "returns_pipeline.undo",
    "counter",
    "{action}",
    ("pipeline", "undo", "outcome", "error.type"),
    "Undo actions by outcome: done; failed, to be tried again; stuck, which waits for a person.",
)
UNDO_RUNNING: Final = Instrument(
    "returns_pipeline.undo.running",
    "balance",
    "{action}",
    ("pipeline", "undo"),
    "Undo actions whose attempts have begun and have not ended.",
)
UNDO_DURATION: Final = Instrument(
    "returns_pipeline.undo.duration",
    "histogram",
    "s",
    ("pipeline", "undo", "outcome"),
    "Time that all attempts of an undo action took.",
    _SECONDS,
)
COMMITS: Final = Instrument(
    "returns_pipeline.scope.commits",
    "counter",
    "{action}",
    ("pipeline",),
    "Undo actions that were committed.",
)
ROLLBACKS: Final = Instrument(
    "returns_pipeline.scope.rollbacks",
    "counter",
    "{rollback}",
    ("pipeline", "outcome"),
    'Rollbacks that had something to undo: "complete", or "incomplete" if anything remains.',
)
JOURNAL_DURATION: Final = Instrument(
    "returns_pipeline.journal.duration",
    "histogram",
    "s",
    ("pipeline", "journal", "kind", "outcome"),
    "Time from a request to the answer of the journal.",
    _SECONDS,
)
JOURNAL_QUEUED: Final = Instrument(
    "returns_pipeline.journal.queued",
    "gauge",
    "{request}",
    ("pipeline", "journal"),
    "Requests that wait for the next batch of the journal.",
)
RECOVERED: Final = Instrument(
    "returns_pipeline.journal.recovered",
    "counter",
    "{action}",
    ("pipeline", "journal", "outcome"),
    "Undo actions of dead processes: done, stuck, or deferred to a process that knows them.",
)
CONSUMED: Final = Instrument(
    "messaging.client.consumed.messages",
    "counter",
    "{message}",
    (*_SOURCE, "messaging.operation.name"),
    "Messages that were fetched from a broker.",
)
OPERATION_DURATION: Final = Instrument(
    "messaging.client.operation.duration",
    "histogram",
    "s",
    (*_SOURCE, "messaging.operation.name", "messaging.operation.type"),
    "Time until a broker has confirmed acknowledgements, or messages.",
    _MESSAGING,
)
SENT: Final = Instrument(
    "messaging.client.sent.messages",
    "counter",
    "{message}",
    (*_SOURCE, "messaging.operation.name", "error.type"),
    'Messages that were published, by what came of them: "refused", "unconfirmed", or no error.',
)
PUBLISHING: Final = Instrument(
    "returns_pipeline.publisher.in_flight",
    "balance",
    "{message}",
    _SOURCE,
    "Messages that are being published, and have not been answered.",
)
SOURCE_WAIT: Final = Instrument(
    "returns_pipeline.source.wait",
    "counter",
    "s",
    _SOURCE,
    "Time that a source has waited for messages of its broker.",
)
IN_FLIGHT: Final = Instrument(
    "returns_pipeline.source.in_flight",
    "gauge",
    "{message}",
    _SOURCE,
    "Messages that are not acknowledged, at the last fetch.",
)
REDELIVERED: Final = Instrument(
    "returns_pipeline.source.redelivered",
    "counter",
    "{message}",
    _SOURCE,
    "Messages that a broker has delivered again.",
)
LAG: Final = Instrument(
    "returns_pipeline.source.lag",
    "gauge",
    "{message}",
    _PARTITION,
    "Messages that wait in the broker.",
)
OLDEST_AGE: Final = Instrument(
    "returns_pipeline.source.oldest_age",
    "gauge",
    "s",
    _PARTITION,
    "Time for which the oldest message in flight has waited for its acknowledgement.",
)
DISCONNECTED: Final = Instrument(
    "returns_pipeline.source.disconnected",
    "counter",
    "{connection}",
    (*_SOURCE, "error.type"),
    "Connections to brokers that were lost.",
)
RECONNECTED: Final = Instrument(
    "returns_pipeline.source.reconnected",
    "counter",
    "{connection}",
    _SOURCE,
    "Connections to brokers that were made again.",
)
REVOKED: Final = Instrument(
    "returns_pipeline.source.revoked",
    "counter",
    "{partition}",
    (*_SOURCE, "settled"),
    "Partitions that a source had to give up, by whether all was acknowledged before.",
)
WORKERS: Final = Instrument(
    "returns_pipeline.worker.running",
    "balance",
    "{worker}",
    ("pipeline",),
    "Workers that have started and have not ended.",
)
DRAINS: Final = Instrument(
    "returns_pipeline.worker.drains",
    "counter",
    "{worker}",
    ("pipeline",),
    "Workers that were asked to stop.",
)

INSTRUMENTS: Final = (
    WINDOW_CLOSED,
    WINDOW_SIZE,
    WINDOW_AGE,
    LATE_ITEMS,
    DROPPED,
    WATERMARK,
    STAGE_WAIT,
    STAGE_IN_FLIGHT,
    STEP_DURATION,
    STEP_RUNNING,
    STEP_RETRIES,
    STEP_TIMEOUTS,
    LIMITER_WAIT,
    BREAKER_CHANGES,
    BREAKER_STATE,
    UNDO_REGISTERED,
    UNDO,
    UNDO_RUNNING,
    UNDO_DURATION,
    COMMITS,
    ROLLBACKS,
    JOURNAL_DURATION,
    JOURNAL_QUEUED,
    RECOVERED,
    CONSUMED,
    SENT,
    PUBLISHING,
    OPERATION_DURATION,
    SOURCE_WAIT,
    IN_FLIGHT,
    REDELIVERED,
    LAG,
    OLDEST_AGE,
    DISCONNECTED,
    RECONNECTED,
    REVOKED,
    WORKERS,
    DRAINS,
)
"""All rows, in the order of the documentation."""
