"""`Worker` and `run_worker`: the life of a process around a pipeline."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Generic, NamedTuple, TypeAlias, TypeVar, cast, overload

from returns.future import Future, FutureResult
from returns.result import Failure, Result, Success

from returns_pipeline._engine import checks
from returns_pipeline._engine.cancellation import wait_uncancelled
from returns_pipeline._engine.checks import Seconds
from returns_pipeline._engine.future_results import failure_of, to_result
from returns_pipeline._engine.logs import Repeats, facts
from returns_pipeline._engine.names import name_of, shown
from returns_pipeline._engine.task_owner import notify
from returns_pipeline._engine.terminals import chain_of
from returns_pipeline.compensation import CompensationRegistry
from returns_pipeline.compensation.protocol import DurableJournal, RecoveryReport
from returns_pipeline.connectors import (
    DeadLetter,
    Message,
    Partition,
    Publisher,
    Source,
    SourceStatistics,
)
from returns_pipeline.context import StepContext
from returns_pipeline.errors import (
    InvalidArgument,
    JournalError,
    PartitionsLost,
    TooManyDeliveries,
)
from returns_pipeline.journal import recovering
from returns_pipeline.result_stream import ResultStream
from returns_pipeline.telemetry import Observer, use
from returns_pipeline.worker._events import WorkerEvents
from returns_pipeline.worker._pipelines import Pipelines
from returns_pipeline.worker._report import StoppedBy, WorkerHealth, WorkerReport
from returns_pipeline.worker._signals import sharing

__all__ = ["DeadLetters", "Messages", "Worker", "discard"]

T = TypeVar("T")
F = TypeVar("F")
E = TypeVar("E")
E_co = TypeVar("E_co", covariant=True)

_log = logging.getLogger("returns_pipeline.worker")

# Seconds that acknowledgements, and giving back, may still take when all else was cancelled.
_LAST_SECOND: Final = 1.0

Messages: TypeAlias = ResultStream[Message[T], DeadLetter[F | TooManyDeliveries]]
DeadLetters: TypeAlias = Callable[[E], Awaitable[object]] | Publisher[Any]


class _Refused(NamedTuple):
    """A failure of the pipeline that ``dead_letters`` has not taken, and what it returned."""

    error: object
    sink_failure: object


class Worker(Generic[E_co]):
    """What `run_worker` runs, as an object, which tells its health while it runs.

    .. code-block:: python

        worker = Worker(source, billing, journal=journal, registry=registry)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(serve(lambda: worker.health().alive))
            report = await worker.run()

    Args:
        source: As for `run_worker`, and so is everything else.
        pipeline: What to do with its messages.
        name: What the worker is called in logs, and its steps in the journal; by default the name
            of ``pipeline``.
        stuck_after: Seconds, above 0, for which messages may wait and none be acknowledged, until
            `health` says that the worker is not alive. It should be well above the longest window,
            and the slowest step with all its retries.
        observer: Gets the events of everything that the worker opens and runs.

    Raises:
        InvalidArgument: At the call, if an argument is out of range, if there is a registry without
            a journal, if the source has a ``before_ack`` that is not the journal's ``flush``, or if
            there is ``per_partition``, and the source has no partitions that are owned.
        RuntimeError: At the call, if there is a journal, and the source was entered before.
        TypeError: At the call, if an argument is of another kind.

    >>> from returns_pipeline.testing import MemoryBroker
    >>> broker = MemoryBroker()
    >>> worker = Worker(Source(broker.driver("sums"), decode=int), lambda messages: messages)
    >>> worker.health().state
    'new'
    """

    _loop: asyncio.AbstractEventLoop
    _work: asyncio.Task[Result[int, Any]]
    _over: asyncio.Future[None]  # resolved when it stops
    _first_round: asyncio.Future[None]  # resolved after the first recovery

    @overload
    def __init__(
        self: Worker[E],
        source: Source[T, F],
        pipeline: Callable[[Messages[T, F]], ResultStream[object, E]],
        *,
        name: str | None = None,
        journal: DurableJournal | None = None,
        registry: CompensationRegistry | None = None,
        dead_letters: DeadLetters[E] | None = None,
        recover_every: Seconds = 30.0,
        drain_timeout: Seconds = 25.0,
        stuck_after: Seconds = 600.0,
        per_partition: bool = False,
        observer: Observer | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: Worker[E],
        source: Source[T, F],
        pipeline: Callable[[Messages[T, F], StepContext], ResultStream[object, E]],
        *,
        name: str | None = None,
        journal: DurableJournal | None = None,
        registry: CompensationRegistry | None = None,
        dead_letters: DeadLetters[E] | None = None,
        recover_every: Seconds = 30.0,
        drain_timeout: Seconds = 25.0,
        stuck_after: Seconds = 600.0,
        per_partition: bool = False,
        observer: Observer | None = None,
    ) -> None: ...

    def __init__(
        self,
        source: Source[Any, Any],
        pipeline: Callable[..., ResultStream[object, Any]],
        *,
        name: str | None = None,
        journal: DurableJournal | None = None,
        registry: CompensationRegistry | None = None,
        dead_letters: DeadLetters[Any] | None = None,
        recover_every: Seconds = 30.0,
        drain_timeout: Seconds = 25.0,
        stuck_after: Seconds = 600.0,
        per_partition: bool = False,
        observer: Observer | None = None,
    ) -> None:
        if not isinstance(source, Source):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"a worker reads a Source, not {shown(source)}")
        if inspect.iscoroutinefunction(pipeline):
            raise TypeError(
                f"{name_of(pipeline)}() must return a stream, not a coroutine: make it a plain"
                " function, whose steps may be coroutine functions"
            )
        checks.callable_only("Worker", pipeline)
        self._publisher: Publisher[Any] | None = None
        if isinstance(dead_letters, Publisher):
            publisher: Publisher[Any] = cast("Any", dead_letters)
            self._publisher, dead_letters = publisher, publisher.publish
        elif dead_letters is not None:
            checks.async_function("dead_letters", dead_letters)
        if registry is not None and journal is None:
            raise InvalidArgument("there is nothing to recover from: pass a journal, too")
        self._recover_every = checks.seconds("recover_every", recover_every, finite=True)
        self._drain_timeout = checks.seconds("drain_timeout", drain_timeout, zero=True)
        self._stuck_after = checks.seconds("stuck_after", stuck_after)
        if journal is not None:
            source.flush_before_ack(journal.flush)
        self._source = source
        self._pipeline = pipeline
        self._takes_context: Final = checks.takes_two(pipeline)
        self._name: Final = name_of(pipeline) if name is None else name
        self._journal = journal
        self._registry = registry
        self._dead_letters: Callable[[Any], Awaitable[object]] | None = dead_letters
        self._state = "new"
        self._stopped_by = StoppedBy.END
        self._repeats = Repeats(_log)
        self._aborted_by: StoppedBy | None = None  # once `_work` was cancelled here
        self._signals = 0
        self._limit: asyncio.TimerHandle | None = None  # until draining has taken too long
        self._handled: Counter[str | None] = Counter()  # by partition, if they are read apart
        self._dead = 0
        self._recovered = 0
        self._stuck = 0
        self._observer = observer
        self._events: WorkerEvents | None = None
        self._first_round_error: Exception | None = None
        self._pipelines: Pipelines | None = None
        if per_partition:  # last: from now on, the source is read by its partitions
            partitions = source.partitions()
            self._pipelines = Pipelines(
                partitions,
                self._run_partition,
                on_end=lambda: self._stop(StoppedBy.END),
                on_refused=self._on_refused,
            )

    async def run(
        self, stop: asyncio.Event | Awaitable[object] | None = None
    ) -> WorkerReport[E_co]:
        """Do what `run_worker` does, once.

        Raises:
            RuntimeError: It was called before.
            BaseException: What `run_worker` raises.

        >>> from returns_pipeline.testing import MemoryBroker, run
        >>> source = Source(MemoryBroker().driver("sums"), decode=int)
        >>> worker = Worker(source, lambda messages: messages)
        >>> run(worker.run(stop=asyncio.sleep(9.0))).stopped_by
        <StoppedBy.STOP: 'stop'>
        """
        observers = () if self._observer is None else (self._observer,)
        with use(*observers, pipeline=self._name):
            return await self._run(stop)

    async def _run(self, stop: asyncio.Event | Awaitable[object] | None) -> WorkerReport[E_co]:
        self._events = WorkerEvents.opened()
        try:
            _check_stop(stop)
            work_of = self._work_of()
        except BaseException:
            discard(stop)
            raise
        self._state = "starting"
        loop = self._loop = asyncio.get_running_loop()
        self._over = loop.create_future()
        self._first_round = loop.create_future()
        stopper: asyncio.Task[None] | None = None
        cancelled: asyncio.CancelledError | None = None

        def on_signal(_: int) -> None:
            _handle = loop.call_soon_threadsafe(self._on_signal)

        try:
            with sharing(on_signal):
                if stop is not None:  # first: it may be set already
                    stopper = loop.create_task(_until(stop))
                    stopper.add_done_callback(lambda _: self._stop(StoppedBy.STOP))
                    if stopper.done():  # under an eager task factory; the callback comes later
                        self._stop(StoppedBy.STOP)
                work = self._work = loop.create_task(
                    self._live(work_of), name=f"worker {self._name}"
                )
                try:
                    _ = await asyncio.wait({work})
                except asyncio.CancelledError as error:
                    cancelled = error
                    self._abort(StoppedBy.STOP)
                    _ = await wait_uncancelled(work)
                if stopper is not None:
                    _ = stopper.cancel()
                    late = await wait_uncancelled(stopper)
                    cancelled = cancelled or late
        finally:
            self._state = "ended"
            if self._limit is not None:
                self._limit.cancel()
        try:
            report = self._report(work, stopper, cancelled)
        except BaseException as error:
            self._report_end(type(error).__name__)
            raise
        self._report_end(report.stopped_by.value)
        return report

    def _report_end(self, reason: str) -> None:
        if self._events is not None:
            self._events.ended(reason, self._handled.total(), self._dead)

    def _report(
        self,
        work: asyncio.Task[Result[int, Any]],
        stopper: asyncio.Task[None] | None,
        cancelled: asyncio.CancelledError | None,
    ) -> WorkerReport[E_co]:
        """Return the report, or raise what has ended the worker."""
        failed = None if work.cancelled() else work.exception()
        if cancelled is not None:
            raise cancelled from failed
        if failed is not None:
            raise failed
        if stopper is not None and not stopper.cancelled() and (error := stopper.exception()):
            raise error
        statistics = self._source.statistics()
        outcome: Result[int, Any] | None = None
        if not work.cancelled():
            outcome = work.result()
        elif self._aborted_by is None:
            raise asyncio.CancelledError  # other code has cancelled the task
        stopped_by, failure, sink_failure = self._stopped_by, None, None
        if isinstance(outcome, Failure):
            failure, stopped_by = outcome.failure(), StoppedBy.FAILURE
            if isinstance(failure, _Refused):
                failure, sink_failure = failure
                stopped_by = StoppedBy.DEAD_LETTERS
        elif outcome is None or statistics.in_flight:
            # What was handled could not be acknowledged in time.
            stopped_by = self._aborted_by or StoppedBy.DRAIN_TIMEOUT
        pipelines = self._pipelines
        return WorkerReport(
            self._handled.total(),
            self._dead,
            stopped_by,
            statistics,
            cast("E_co | None", failure),
            sink_failure,
            self._recovered,
            self._stuck,
            partition=None if failure is None or pipelines is None else pipelines.failed,
            partitions={name: count for name, count in self._handled.items() if name is not None},
        )

    # Stopping. These run in callbacks of the loop.

    def _on_signal(self) -> None:
        self._signals += 1
        if self._signals == 1:
            self._stop(StoppedBy.SIGNAL)
        else:
            self._abort(StoppedBy.SECOND_SIGNAL)

    def _stop(self, why: StoppedBy) -> None:
        """Begin to drain, unless that has begun."""
        if self._state not in {"starting", "running"}:
            return
        _log.info(
            "worker %s drains: %s",
            self._name,
            why.value,
            extra=facts(worker=self._name, reason=why.value),
        )
        if self._events is not None:
            self._events.draining(why.value)
        self._state = "draining"
        self._stopped_by = why
        self._source.drain(within=self._drain_timeout)
        if self._drain_timeout < math.inf:
            self._limit = self._loop.call_later(
                self._drain_timeout, self._abort, StoppedBy.DRAIN_TIMEOUT
            )
        notify(self._over)

    def _abort(self, why: StoppedBy) -> None:
        """Cancel everything, once: what is not committed is undone."""
        if self._aborted_by is None and not self._work.done():
            _log.warning(
                "worker %s is cancelled: %s",
                self._name,
                why.value,
                extra=facts(worker=self._name, reason=why.value),
            )
            self._aborted_by = why
            self._state = "draining"
            self._source.drain(within=_LAST_SECOND)
            notify(self._over)
            _ = self._work.cancel()

    # The task.

    def _work_of(self) -> Callable[[], Coroutine[Any, Any, Result[int, Any]]]:
        """Return what runs the pipeline, or pipelines, in the source's block.

        A pipeline that cannot work is refused before anything begins, unless there is one for each
        partition: the first is made when a message has arrived.

        Raises:
            RuntimeError: The worker has run.
        """
        if self._state != "new":
            raise RuntimeError("a worker runs once: make another one, with another source")
        if self._pipelines is not None:
            return self._pipelines.run
        work = self._whole()

        async def run() -> Result[int, Any]:
            run_once = work
            while True:
                try:
                    return await run_once()
                except PartitionsLost as lost:
                    self._on_refused(lost)
                run_once = self._whole()

        return run

    def _whole(self) -> Callable[[], Coroutine[Any, Any, Result[int, Any]]]:
        """Return what runs the pipeline of all messages, once."""
        context = StepContext(self._name, journal=self._journal)
        stream = self._stream(self._source.messages(), context)

        async def run() -> Result[int, Any]:
            return await to_result(context.run(stream.run()))

        return run

    def _on_refused(self, lost: PartitionsLost) -> None:
        """Read on with what is still owned: a step was refused, as others own its partitions."""
        self._repeats.warning(
            "worker %s: %s; it reads on with what it owns",
            self._name,
            lost,
            extra=facts(worker=self._name, reason=str(lost)),
        )
        self._source.reopen(lost)

    async def _run_partition(self, partition: Partition[Any, Any]) -> Result[int, Any]:
        """Run the pipeline of one partition, in a context of its own, whose name has both."""

        async def run() -> Result[int, Any]:
            stream = self._stream(partition.messages(), context, partition.name)
            return await to_result(stream.run())

        name = f"{self._name} {partition.name}"
        async with StepContext(name, journal=self._journal) as context:
            return await to_result(context.run(run()))

    async def _live(
        self, work: Callable[[], Coroutine[Any, Any, Result[int, Any]]]
    ) -> Result[int, Any]:
        if self._journal is None or self._registry is None:
            return await self._consume(work)
        recovery = self._loop.create_task(
            self._recover(self._journal, self._registry), name=f"worker {self._name}: recovery"
        )
        try:
            await self._wait_for_first_round(recovery)
            return await self._consume(work)
        finally:
            notify(self._over)
            cancelled = await wait_uncancelled(recovery)
            if cancelled is not None:
                raise cancelled

    async def _recover(self, journal: DurableJournal, registry: CompensationRegistry) -> None:
        """Recover until the worker stops; an undo that is under way then is finished."""

        def on_report(report: RecoveryReport) -> None:
            self._recovered += bool(report.done)
            self._stuck += len(report.stuck)

        def on_round(error: Exception | None) -> None:
            self._first_round_error = error
            notify(self._first_round)

        background = recovering(
            journal, registry, every=self._recover_every, on_report=on_report, on_round=on_round
        )
        async with background:
            _ = await asyncio.wait({self._over})

    async def _wait_for_first_round(self, recovery: asyncio.Task[None]) -> None:
        """Wait until what died before is undone, but not for undos that are tried for long.

        Raises:
            JournalError: The journal cannot be read.
        """
        _ = await asyncio.wait(
            {self._first_round, self._over, recovery},
            timeout=self._recover_every,
            return_when=asyncio.FIRST_COMPLETED,
        )
        # Later ones are logged: if the journal stays unusable, the next window fails.
        if isinstance(self._first_round_error, JournalError):
            raise self._first_round_error

    async def _consume(
        self, work: Callable[[], Coroutine[Any, Any, Result[int, Any]]]
    ) -> Result[int, Any]:
        if self._over.done():
            return Success(0)
        async with self._publisher or contextlib.nullcontext(), self._source:
            self._state = "running"
            _log.info("worker %s reads", self._name, extra=facts(worker=self._name))
            if self._events is not None:
                self._events.started()
            return await work()

    def _stream(
        self, messages: ResultStream[Any, Any], context: StepContext, partition: str | None = None
    ) -> ResultStream[object, Any]:
        """Return the pipeline's stream, with what the worker does with its items.

        Raises:
            InvalidArgument: It is not made of the messages, so nothing would be acknowledged.
            TypeError: It is not a stream.
        """
        own = (context,) if self._takes_context else ()
        made = cast("object", self._pipeline(messages, *own))
        if not isinstance(made, ResultStream):
            discard(made)
            is_end = isinstance(made, Future | FutureResult)
            what = "what a terminal returns" if is_end else shown(made)
            raise TypeError(
                f"{self._name}() returned {what}: it must return the ResultStream, which the worker"
                " runs"
            )
        stream = cast("ResultStream[object, Any]", made)
        if not chain_of(stream).marked:
            raise InvalidArgument(
                f"{self._name}() returned a stream that is not made of the messages by methods of"
                " ResultStream: nothing would be acknowledged"
            )
        handled = self._handled

        def count(_: object) -> None:
            handled[partition] += 1

        counted = stream.tap(count)
        return counted if self._dead_letters is None else counted.lash_async(self._bury)

    async def _bury(self, error: object) -> Result[None, object]:
        assert self._dead_letters is not None
        if self._publisher is not None and not isinstance(error, DeadLetter):
            return Failure(error)
        if (failure := await failure_of(self._dead_letters(cast("Any", error)))) is not None:
            return Failure(_Refused(error, failure.failure()))
        self._dead += 1
        return Success(None)

    # Looking.

    def health(self) -> WorkerHealth:
        """Return whether it works; call it in the loop's thread.

        Messages that wait while none is acknowledged are the one sign that every stuck pipeline
        gives: a step that never returns, a window that is never emitted, acknowledgements that are
        refused. A slow one, whose messages wait for long, is not stuck.
        """
        statistics = self._source.statistics()
        stalled = statistics.stalled_partitions
        return WorkerHealth(
            self._state,
            ready=self._state == "running" and statistics.connected,
            alive=statistics.stalled_for <= self._stuck_after,
            stalled_for=statistics.stalled_for,
            oldest_unacknowledged=statistics.oldest_unacknowledged,
            stuck=tuple(sorted(name for name in stalled if stalled[name] > self._stuck_after)),
        )

    def statistics(self) -> SourceStatistics:
        """Return what its source has done, and what it holds now.

        >>> from returns_pipeline.testing import MemoryBroker
        >>> source = Source(MemoryBroker().driver("sums"))
        >>> Worker(source, lambda messages: messages).statistics().emitted
        0
        """
        return self._source.statistics()

    def __repr__(self) -> str:
        return f"<Worker {self._name} of {self._source.name}, {self._state}>"


def _check_stop(stop: object) -> None:
    if not (stop is None or isinstance(stop, asyncio.Event) or inspect.isawaitable(stop)):
        raise TypeError(f"stop= takes an asyncio.Event or an awaitable, not {shown(stop)}")


def discard(awaitable: object) -> None:
    """Close what will not be awaited, if it is a coroutine: Python would warn of it."""
    if inspect.iscoroutine(awaitable):
        awaitable.close()


async def _until(stop: asyncio.Event | Awaitable[object]) -> None:
    """Return when an event is set, or another awaitable returns; never cancel a future."""
    if isinstance(stop, asyncio.Event):
        _ = await stop.wait()
    elif isinstance(stop, asyncio.Future):
        _ = await asyncio.wait({stop})
        _ = stop.result()
    else:
        _ = await stop
