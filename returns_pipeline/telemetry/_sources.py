"""Events of journals, of the sources that brokers feed, and of workers."""

from __future__ import annotations

from typing import Literal, TypeAlias

from returns_pipeline._engine.records import Record

__all__ = [
    "Acknowledged",
    "Disconnected",
    "Fetched",
    "JournalEvent",
    "JournalRequest",
    "LagMeasured",
    "Reconnected",
    "Recovered",
    "Redelivered",
    "RequestKind",
    "Revoked",
    "SourceEvent",
    "WorkerDraining",
    "WorkerEnded",
    "WorkerEvent",
    "WorkerStarted",
]

RequestKind: TypeAlias = Literal["record", "forget", "other"]
"""What a journal has to do: record actions, forget those that are committed or undone, or something
else."""


class JournalRequest(Record, frozen=True, kw_only=True):
    """A journal has answered a batch of requests, which it has written together.

    Attributes:
        pipeline: The name of the pipeline; empty if none was set where the journal was opened.
        journal: The name of the journal's class.
        kind: What it had to do; "other" for a batch of several kinds.
        size: The number of requests in the batch.
        duration: Seconds that the batch has taken. `SqliteJournal` measures them by the real clock.
        queued: The number of requests that wait for the next batch. For `SqliteJournal` the
            requests of one turn of the loop are one.
        failed: Whether it was refused.
        at: The time in seconds, on the loop's clock.

    >>> JournalRequest(
    ...     pipeline="shop", journal="SqliteJournal", kind="record",
    ...     size=3, duration=0.01, queued=0, failed=False, at=2.0,
    ... ).size
    3
    """

    pipeline: str
    journal: str
    kind: RequestKind
    size: int
    duration: float
    queued: int
    failed: bool
    at: float


class Recovered(Record, frozen=True, kw_only=True):
    """The recovery of a saga of a dead process has ended.

    Its actions are reported as well, by `UndoDone`, `UndoFailed` and `UndoStuck`.

    Attributes:
        pipeline: The name of the pipeline; that of the saga, if none was set.
        journal: The name of the journal's class.
        saga: The id of the saga.
        undone: The number of actions that were undone.
        stuck: The number of those that wait for a person.
        deferred: The number of those that wait for a process that knows them.
        failed: Whether the journal has failed, so that actions are left.
        duration: Seconds since this process took it over.
        at: The time in seconds, on the loop's clock.

    >>> Recovered(
    ...     pipeline="shop", journal="SqliteJournal", saga="7f3a",
    ...     undone=2, stuck=0, deferred=0, failed=False, duration=0.5, at=2.0,
    ... ).undone
    2
    """

    pipeline: str
    journal: str
    saga: str
    undone: int
    stuck: int
    deferred: int
    failed: bool
    duration: float
    at: float


class Fetched(Record, frozen=True, kw_only=True):
    """A source has got messages from its broker.

    Attributes:
        pipeline: The name of the pipeline.
        system: The broker's kind, such as "nats" or "kafka".
        source: The name of what is read: a stream, a topic, a queue, a log.
        messages: The number of messages.
        in_flight: The number of messages that are not acknowledged, with these.
        waited: Seconds that the source has waited for them.
        at: The time in seconds, on the loop's clock.

    >>> Fetched(
    ...     pipeline="shop", system="nats", source="orders",
    ...     messages=100, in_flight=300, waited=0.01, at=2.0,
    ... ).messages
    100
    """

    pipeline: str
    system: str
    source: str
    messages: int
    in_flight: int
    waited: float
    at: float


class Acknowledged(Record, frozen=True, kw_only=True):
    """A source has acknowledged messages to its broker.

    For the other attributes see `Fetched`.

    Attributes:
        messages: The number of messages.
        duration: Seconds until the broker had confirmed it.

    >>> Acknowledged(
    ...     pipeline="shop", system="nats", source="orders", messages=100, duration=0.01, at=2.0
    ... ).duration
    0.01
    """

    pipeline: str
    system: str
    source: str
    messages: int
    duration: float
    at: float


class Redelivered(Record, frozen=True, kw_only=True):
    """A broker has delivered messages again.

    For the other attributes see `Fetched`.

    Attributes:
        messages: The number of messages that had been delivered before.

    >>> Redelivered(pipeline="shop", system="nats", source="orders", messages=2, at=2.0).messages
    2
    """

    pipeline: str
    system: str
    source: str
    messages: int
    at: float


class LagMeasured(Record, frozen=True, kw_only=True):
    """How many messages wait in the broker for a source, as far as the broker tells.

    For the other attributes see `Fetched`.

    Attributes:
        partition: The name of the partition; empty if there are none.
        lag: The number of messages that were not fetched yet.
        oldest: Seconds for which the oldest message in flight has waited for its acknowledgement.

    >>> LagMeasured(
    ...     pipeline="shop", system="kafka", source="orders", partition="3",
    ...     lag=1200, oldest=0.5, at=2.0,
    ... ).lag
    1200
    """

    pipeline: str
    system: str
    source: str
    partition: str
    lag: int
    oldest: float
    at: float


class Disconnected(Record, frozen=True, kw_only=True):
    """A source has lost the connection to its broker.

    For the other attributes see `Fetched`.

    Attributes:
        error: The exception that showed it.

    >>> Disconnected(
    ...     pipeline="shop", system="nats", source="orders", error=OSError("reset"), at=2.0
    ... ).error
    OSError('reset')
    """

    pipeline: str
    system: str
    source: str
    error: BaseException
    at: float


class Reconnected(Record, frozen=True, kw_only=True):
    """A source is connected to its broker again.

    For the other attributes see `Fetched`.

    Attributes:
        attempts: How often it tried.
        duration: Seconds since the connection was lost.

    >>> Reconnected(
    ...     pipeline="shop", system="nats", source="orders", attempts=3, duration=1.5, at=3.5
    ... ).attempts
    3
    """

    pipeline: str
    system: str
    source: str
    attempts: int
    duration: float
    at: float


class Revoked(Record, frozen=True, kw_only=True):
    """A source had to give up partitions.

    For the other attributes see `Fetched`.

    Attributes:
        partitions: Their names.
        settled: Whether all their messages were acknowledged before.
        duration: Seconds that the source took for that.

    >>> Revoked(
    ...     pipeline="shop", system="kafka", source="orders", partitions=("3",),
    ...     settled=True, duration=0.5, at=2.0,
    ... ).settled
    True
    """

    pipeline: str
    system: str
    source: str
    partitions: tuple[str, ...]
    settled: bool
    duration: float
    at: float


class WorkerStarted(Record, frozen=True, kw_only=True):
    """A worker has recovered the sagas of dead processes, and begins to read.

    Attributes:
        pipeline: The name of the worker.
        at: The time in seconds, on the loop's clock.

    >>> WorkerStarted(pipeline="shop", at=2.0).pipeline
    'shop'
    """

    pipeline: str
    at: float


class WorkerDraining(Record, frozen=True, kw_only=True):
    """A worker was asked to stop: it reads nothing more, and handles what it has read.

    Attributes:
        pipeline: The name of the worker.
        reason: What has stopped it: the value of a `StoppedBy`, such as "signal".
        at: The time in seconds, on the loop's clock.

    >>> WorkerDraining(pipeline="shop", reason="signal", at=2.0).reason
    'signal'
    """

    pipeline: str
    reason: str
    at: float


class WorkerEnded(Record, frozen=True, kw_only=True):
    """A worker has ended.

    Attributes:
        pipeline: The name of the worker.
        reason: Why: the value of a `StoppedBy`, or the name of the exception that it raises.
        handled: How many values came out of its pipeline.
        dead: How many failures ``dead_letters`` has taken.
        duration: Seconds since `WorkerStarted`.
        at: The time in seconds, on the loop's clock.

    >>> WorkerEnded(
    ...     pipeline="shop", reason="signal", handled=7, dead=0, duration=60.0, at=62.0
    ... ).duration
    60.0
    """

    pipeline: str
    reason: str
    handled: int
    dead: int
    duration: float
    at: float


JournalEvent: TypeAlias = JournalRequest | Recovered
"""Events of journals."""

SourceEvent: TypeAlias = (
    Fetched | Acknowledged | Redelivered | LagMeasured | Disconnected | Reconnected | Revoked
)
"""Events of sources."""

WorkerEvent: TypeAlias = WorkerStarted | WorkerDraining | WorkerEnded
"""Events of workers."""
