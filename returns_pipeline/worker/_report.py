"""What a worker says of itself: why it has stopped, what it has done, and whether it is well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Generic, TypeVar

from returns_pipeline._engine.frozen import allow_type_arguments
from returns_pipeline.connectors import SourceStatistics

__all__ = ["StoppedBy", "WorkerHealth", "WorkerReport"]

E_co = TypeVar("E_co", covariant=True)


class StoppedBy(Enum):
    """Why a worker has stopped. The first four are orderly: everything handled is acknowledged.

    An exception has no entry here: `run_worker` raises it.

    >>> StoppedBy("signal").exit_code
    0
    """

    END = "end"
    """The source, or the pipeline, has ended by itself."""
    STOP = "stop"
    """``stop`` was set, and everything was drained."""
    SIGNAL = "signal"
    """SIGTERM or SIGINT came, and everything was drained."""
    FAILURE = "failure"
    """The pipeline failed, and there is no ``dead_letters``."""
    DEAD_LETTERS = "dead letters"
    """``dead_letters`` returned a failure."""
    DRAIN_TIMEOUT = "drain timeout"
    """Draining took longer than ``drain_timeout``: the rest was cancelled and undone."""
    SECOND_SIGNAL = "second signal"
    """A signal came while it was draining: the rest was cancelled and undone."""

    @property
    def exit_code(self) -> int:
        """The exit code that `WorkerReport.exit_code` explains."""
        return _EXIT_CODES.get(self, 0)


_EXIT_CODES: Final = {
    StoppedBy.FAILURE: 3,
    StoppedBy.DEAD_LETTERS: 4,
    StoppedBy.DRAIN_TIMEOUT: 5,
    StoppedBy.SECOND_SIGNAL: 6,
}


@allow_type_arguments
@dataclass(frozen=True, slots=True)
class WorkerReport(Generic[E_co]):
    """What a worker has done, and why it has stopped. `run_worker` returns it.

    Attributes:
        handled: How many values came out of the pipeline: of one that ends with windows, windows.
        dead: How many failures ``dead_letters`` has taken.
        stopped_by: Why it has stopped.
        failure: The failure that has stopped it, if one has.
        sink_failure: With `StoppedBy.DEAD_LETTERS`, what ``dead_letters`` failed with.
        statistics: What the source has done, and what it held at the end.
        recovered: Sagas of dead processes of which this worker has undone actions.
        stuck: Actions of dead processes that could not be undone, and need a person.
        partition: With ``per_partition``, the partition whose pipeline has failed, if one has.
        partitions: With ``per_partition``, how many values came out of the pipelines of each
            partition.

    >>> from returns_pipeline.connectors import SourceStatistics
    >>> report = WorkerReport(7, 0, StoppedBy.FAILURE, SourceStatistics(), failure="disk full")
    >>> report.exit_code
    3
    """

    handled: int
    dead: int
    stopped_by: StoppedBy
    statistics: SourceStatistics
    failure: E_co | None = None
    sink_failure: object = None
    recovered: int = 0
    stuck: int = 0
    partition: str | None = None
    partitions: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def exit_code(self) -> int:
        """The exit code of a process that has done nothing else.

        0: it has ended by itself, or was asked to and has drained. 3: a failure. 4: a failure of
        ``dead_letters``. 5: draining took too long. 6: a second signal. Python itself exits with 1
        after an exception, and the command line with 2 if it was used wrongly.

        >>> WorkerReport(7, 0, StoppedBy.STOP, SourceStatistics()).exit_code
        0
        """
        return self.stopped_by.exit_code


@dataclass(frozen=True, slots=True)
class WorkerHealth:
    """Whether a worker works. `Worker.health` makes it.

    Attributes:
        state: ``"new"``, ``"starting"``, ``"running"``, ``"draining"`` or ``"ended"``.
        ready: Whether it is running and connected to its broker.
        alive: Whether it is not stalled for longer than ``stuck_after``: if it is, restart it.
        stalled_for: Seconds for which messages have waited, and none was acknowledged.
        oldest_unacknowledged: Seconds since the oldest message arrived that is not acknowledged.
        stuck: With ``per_partition``, the partitions that are stalled for too long. The others go
            on; only a restart helps these.

    >>> health = WorkerHealth(
    ...     "draining", ready=False, alive=True, stalled_for=0.5, oldest_unacknowledged=9.0
    ... )
    >>> health.ready
    False
    """

    state: str
    ready: bool
    alive: bool
    stalled_for: float
    oldest_unacknowledged: float
    stuck: tuple[str, ...] = ()
